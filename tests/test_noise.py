"""Noise floors: correlation, draws under the null, significance."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage, stats

from dosemover.dose import DoseMap
from dosemover.errors import GridMismatchError, InputError
from dosemover.grid import Grid
from dosemover.noise import (
    BatchPermutations,
    NoiseCorrelation,
    NoiseLevel,
    NoiseModel,
    centered_weights,
    correlated_normal,
    debiased_significance,
    histories_factor,
    lag_correlation,
    low_sampling,
    noise_correlation,
    noise_level,
    noise_model,
    orthogonal_weights,
    parametric_pairs,
    permuted_pairs,
    pooled_mean,
    resampled_pairs,
    root_of_gamma,
    significance,
    significant_voxels,
    square_significance,
    sum_significance,
    undamped,
)
from dosemover.noise.nulls import gamma_variate
from dosemover.noise.steady import denoised, steady_variance

GRID = Grid.regular(shape=(6, 7, 8), spacing_mm=(2, 2, 2))


def batched(rng, mean=5.0, n=10, sd=0.5):
    return DoseMap.from_batches(np.abs(rng.normal(mean, sd, (n, *GRID.shape))), GRID)


def test_correlation_that_is_drawn_is_found():
    rng = np.random.default_rng(0)
    field = correlated_normal((40, 40, 40), NoiseCorrelation.exponential((0.5, 0.2, 0.0)), rng)
    assert field.std() == pytest.approx(1.0, abs=0.03)
    assert lag_correlation(field) == pytest.approx((0.5, 0.2, 0.0), abs=0.02)


def test_a_slow_trend_is_no_correlation():
    rng = np.random.default_rng(1)
    trend = np.linspace(-3, 3, 40)[:, None, None]
    found = lag_correlation(rng.standard_normal((40, 40, 40)) + trend)
    assert max(found) < 0.05


def test_one_voxel_along_an_axis_has_no_correlation():
    assert lag_correlation(np.ones((1, 8, 8)))[0] == 0.0


@pytest.mark.parametrize("relative", [0.01, 0.1, 0.5, 1.0])
def test_gamma_variates_have_their_mean_and_deviation(relative):
    normal = np.random.default_rng(2).standard_normal(200_000)
    drawn = gamma_variate(np.full_like(normal, 3.0), np.full_like(normal, 3.0 * relative), normal)
    assert drawn.mean() == pytest.approx(3.0, rel=0.01)
    assert drawn.std() == pytest.approx(3.0 * relative, rel=0.03)
    assert drawn.min() >= 0


def test_relabelled_pairs_keep_the_pooled_mean():
    rng = np.random.default_rng(3)
    one, two = batched(rng), batched(rng, mean=6.0)
    for a, b in permuted_pairs(reference=one, evaluated=two, draws=3, rng=rng):
        np.testing.assert_allclose(a.dose_gy + b.dose_gy, one.dose_gy + two.dose_gy)


def test_resampled_pairs_leave_the_real_difference_out():
    rng = np.random.default_rng(4)
    one, two = batched(rng, mean=5.0), batched(rng, mean=9.0)
    differences = [
        b.dose_gy.mean() - a.dose_gy.mean()
        for a, b in resampled_pairs(reference=one, evaluated=two, draws=30, rng=rng)
    ]
    assert np.mean(differences) == pytest.approx(0.0, abs=0.02)


def test_resampled_noise_has_the_uncertainty_of_the_map():
    rng = np.random.default_rng(5)
    one, two = batched(rng), batched(rng)
    draws = np.stack(
        [a.dose_gy for a, _ in resampled_pairs(reference=one, evaluated=two, draws=300, rng=rng)]
    )
    ratio = draws.std(axis=0, ddof=1) / one.uncertainty_gy
    assert np.mean(ratio) == pytest.approx(1.0, abs=0.03)


def test_parametric_noise_has_the_uncertainty_of_the_map():
    rng = np.random.default_rng(6)
    dose = np.full(GRID.shape, 4.0)
    one = DoseMap(dose_gy=dose, grid=GRID, uncertainty_gy=0.1 * dose)
    exact = DoseMap(dose_gy=dose, grid=GRID)
    pairs = parametric_pairs(
        reference=exact,
        evaluated=one,
        model=NoiseModel(correlation=NoiseCorrelation.exponential((0.4, 0.0, 0.0))),
        draws=200,
        rng=rng,
    )
    drawn = [(a.dose_gy, b.dose_gy) for a, b in pairs]
    assert all(np.array_equal(a, dose) for a, _ in drawn)
    assert np.stack([b for _, b in drawn]).std() == pytest.approx(0.4, rel=0.02)


def test_never_hit_voxels_get_noise_where_the_other_map_has_dose():
    rng = np.random.default_rng(7)
    hit = np.full(GRID.shape, 4.0)
    hit[0] = 0.0
    one = DoseMap(dose_gy=hit, grid=GRID, uncertainty_gy=0.5 * hit)
    two = DoseMap(dose_gy=np.full(GRID.shape, 4.0), grid=GRID, uncertainty_gy=np.full(GRID.shape, 2.0))
    pairs = parametric_pairs(
        reference=one,
        evaluated=two,
        model=NoiseModel(correlation=NoiseCorrelation.independent()),
        draws=50,
        rng=rng,
    )
    assert np.stack([a.dose_gy[0] for a, _ in pairs]).std() > 0.5


def test_an_exact_map_is_the_truth_of_the_null():
    exact = DoseMap(dose_gy=np.full(GRID.shape, 4.0), grid=GRID)
    noisy = DoseMap(dose_gy=np.full(GRID.shape, 5.0), grid=GRID, uncertainty_gy=np.full(GRID.shape, 0.1))
    assert pooled_mean(exact, noisy).max_gy == 4.0
    assert pooled_mean(noisy, exact).max_gy == 4.0


def test_a_poor_map_beside_a_good_one_does_not_smooth_the_pooled_mean():
    """Weights 1/1601 and 1600/1601: the pooled mean is as noisy as the good map, and keeps its stripes."""
    rng = np.random.default_rng(28)
    truth = 20.0 + 4.0 * (-1.0) ** np.indices(GRID.shape)[2]
    poor, good = (
        DoseMap(
            dose_gy=np.abs(truth + sd * rng.standard_normal(GRID.shape)),
            grid=GRID,
            uncertainty_gy=np.full(GRID.shape, sd),
        )
        for sd in (20.0, 0.5)
    )
    for pair in ((poor, good), (good, poor)):
        assert np.std(pooled_mean(*pair).dose_gy - truth) < 0.7


def two_classes(rng):
    """Noise of 1 Gy, half of it shared by neighbors, in a third of a map; independent of 0.2 Gy elsewhere."""
    shape = (36, 24, 24)
    strong = np.arange(shape[0]) < 12
    shared = correlated_normal(shape, NoiseCorrelation.exponential((0.5, 0.5, 0.5)), rng)
    z = np.where(strong[:, None, None], shared, rng.standard_normal(shape))
    sigma = np.where(strong[:, None, None], 1.0, 0.2) * np.ones(shape)
    mean = np.full(shape, 50.0)
    noisy = DoseMap.from_array(mean + sigma * z, spacing_mm=(2, 2, 2), uncertainty_gy=sigma)
    return DoseMap.from_array(mean, spacing_mm=(2, 2, 2)), noisy, sigma, strong


def test_rarely_hit_voxels_have_a_correlation_of_their_own():
    rng = np.random.default_rng(29)
    exact, noisy, sigma, strong = two_classes(rng)
    model = noise_model(reference=exact, evaluated=noisy)
    assert model.correlation.lag_1 == pytest.approx((0.5, 0.5, 0.5), abs=0.1)
    assert model.weak is not None
    assert model.weak.lag_1 == pytest.approx((0.0, 0.0, 0.0), abs=0.1)
    drawn = [model.draw(sigma, rng) for _ in range(4)]
    for part, rho in ((drawn_part(drawn, strong), 0.5), (drawn_part(drawn, ~strong), 0.0)):
        assert np.mean(part[:, :, 1:] * part[:, :, :-1]) == pytest.approx(rho, abs=0.1)


def drawn_part(drawn, layers):
    """Some layers of several fields, one after the other."""
    return np.concatenate([field[layers] for field in drawn])


def test_the_split_between_the_classes_leaves_90_percent_of_the_variance_above():
    """2000 voxels each of variance 1 and 4, 4000 of 10: the least 10 % of 50 000 end among those of 4."""
    variance = np.repeat([1.0, 4.0, 10.0, 10.0], 2000).reshape(20, 20, 20)
    dose = np.full(variance.shape, 100.0)
    noise = np.sqrt(variance) * np.random.default_rng(34).standard_normal(variance.shape)
    exact = DoseMap.from_array(dose, spacing_mm=(2, 2, 2))
    noisy = DoseMap.from_array(dose + noise, spacing_mm=(2, 2, 2), uncertainty_gy=np.sqrt(variance))
    model = noise_model(reference=exact, evaluated=noisy)
    assert model.split_gy2 == pytest.approx(4.0 / 2)  # of one of two maps that share the noise
    assert model.weak is not None


def test_noise_without_any_uncertainty_is_refused():
    dose = DoseMap(dose_gy=np.ones(GRID.shape), grid=GRID)
    with pytest.raises(InputError, match="neither map brings an uncertainty"):
        noise_model(reference=dose, evaluated=dose)


def test_relabelling_without_batches_is_refused():
    dose = DoseMap(dose_gy=np.ones(GRID.shape), grid=GRID)
    with pytest.raises(InputError, match="must bring their batches"):
        next(permuted_pairs(reference=dose, evaluated=dose, draws=1, rng=np.random.default_rng(0)))


def test_batches_on_two_grids_are_not_relabelled():
    rng = np.random.default_rng(8)
    other = DoseMap.from_batches(
        rng.random((4, 6, 7, 8)), Grid.regular(shape=(6, 7, 8), spacing_mm=(2, 2, 2), origin_mm=(1, 0, 0))
    )
    with pytest.raises(GridMismatchError, match="different grids"):
        next(permuted_pairs(reference=batched(rng), evaluated=other, draws=1, rng=rng))


def test_significance_of_known_draws():
    found = significance(3.0, floor_values=[0.0, 1.0, 2.0], direction="larger")
    assert (found.floor, found.floor_sd, found.z, found.p) == (1.0, 1.0, 2.0, 0.25)


@pytest.mark.parametrize(("direction", "p"), [("larger", 1.0), ("smaller", 0.25), ("both", 0.25)])
def test_direction_says_which_values_speak_of_a_difference(direction, p):
    assert significance(-9.0, floor_values=[0.0, 1.0, 2.0], direction=direction).p == p


def test_the_floor_comes_from_one_set_of_draws_and_p_from_the_other():
    found = significance(12.0, floor_values=[0.0, 1.0, 2.0], null_values=[10.0, 11.0, 12.0, 13.0])
    assert (found.floor, found.floor_sd, found.z) == (1.0, 1.0, 11.0)
    assert (found.p, found.n_draws) == (3 / 5, 4)  # 12 and 13 are as large: (1 + 2) / (1 + 4)


def test_a_draw_that_equals_the_value_is_as_extreme_as_the_value():
    assert significance(2.0, floor_values=[0.0, 1.0, 2.0]).p == 2 / 4
    assert significance(0.0, floor_values=[0.0, 1.0, 2.0], direction="smaller").p == 2 / 4


def test_a_ratio_is_extreme_on_both_sides_of_1():
    """Of ratios about 1 the distances from 1 count, not those from 0."""
    nulls = [0.8, 0.9, 1.0, 1.1, 1.2]
    for value, p in ((0.6, 1 / 6), (1.4, 1 / 6), (1.0, 6 / 6)):
        assert significance(value, floor_values=nulls, direction="both").p == pytest.approx(p)


def test_relabelled_sides_keep_their_numbers_of_batches():
    rng = np.random.default_rng(3)
    one, two = batched(rng, n=3), batched(rng, n=7)
    for a, b in permuted_pairs(reference=one, evaluated=two, draws=2, rng=rng):
        assert (len(a.batches_gy), len(b.batches_gy)) == (3, 7)
        np.testing.assert_allclose(3 * a.dose_gy + 7 * b.dose_gy, 3 * one.dose_gy + 7 * two.dose_gy)


def test_too_few_draws_are_refused():
    with pytest.raises(InputError, match="at least 2 finite draws"):
        significance(1.0, floor_values=[1.0])


def test_nulls_that_scatter_by_rounding_alone_give_no_z():
    found = significance(2.0, floor_values=[1.0, 1.0 + 2e-16, 1.0 - 2e-16])
    assert found.z is None
    assert found.floor_sd == 0.0
    assert found.p == 0.25


def test_permutation_p_values_are_uniform_under_the_null():
    rng = np.random.default_rng(9)
    p_values = []
    for _ in range(200):
        one, two = batched(rng, n=5), batched(rng, n=5)

        def rmse(a, b):
            return float(np.sqrt(np.mean((a.dose_gy - b.dose_gy) ** 2)))

        nulls = [rmse(a, b) for a, b in permuted_pairs(reference=one, evaluated=two, draws=39, rng=rng)]
        p_values.append(significance(rmse(one, two), floor_values=nulls, null_values=nulls).p)
    jittered = np.array(p_values) - rng.random(200) / 40
    assert stats.kstest(jittered, "uniform").pvalue > 0.01


def test_correlation_is_estimated_at_diagonal_lags_too():
    """Each value sums (0, 0), (1, 0) and (1, 1) in (z, y): the lag (1, 1) shares a third, (1, -1) nothing."""
    white = np.random.default_rng(10).standard_normal((41, 41, 40))
    field = (white[1:, 1:] + white[1:, :-1] + white[:-1, :-1]) / np.sqrt(3)
    found = noise_correlation(field)
    z, y, x = (n // 2 for n in found.table.shape)
    assert found.lag_1 == pytest.approx((1 / 3, 1 / 3, 0), abs=0.03)
    assert found.table[z + 1, y + 1, x] == pytest.approx(1 / 6, abs=0.03)  # mean with its mirror image
    assert found.inflation == pytest.approx(3.0, abs=0.3)


@pytest.mark.parametrize(("shared", "inflation"), [(1, 1.0), (3, 3.0)])
def test_correlation_of_a_small_box_is_not_lost_and_not_made_up(shared, inflation):
    """A box of 2304 voxels: hundreds of lags, each known to 2 %, whose sum must still be right."""
    rng = np.random.default_rng(23)
    found = []
    for _ in range(20):
        white = rng.standard_normal((13, 17, 12))
        parts = [white[1:, 1:], white[1:, :-1], white[:-1, :-1]][:shared]
        found.append(noise_correlation(sum(parts) / np.sqrt(shared)).inflation)
    assert np.median(found) == pytest.approx(inflation, rel=0.15)
    assert np.mean(found) < 1.7 * inflation


@pytest.mark.parametrize("share", [0.0, 0.03, 0.05])
def test_correlation_too_weak_to_be_seen_at_any_one_lag_adds_up(share):
    """A share of the variance common to 3 x 3 x 3 voxels: 0.03 a lag at most, 26 shares in the sum."""
    rng = np.random.default_rng(1)
    found = []
    for _ in range(40):
        white, common = rng.standard_normal((2, 16, 16, 16))
        common = ndimage.uniform_filter(common, 3, mode="wrap") * np.sqrt(27)
        z = np.sqrt(1 - share) * white + np.sqrt(share) * common
        found.append(noise_correlation(z[2:14, 2:14, 2:14]))
    assert np.median([one.inflation for one in found]) == pytest.approx(1 + 26 * share, rel=0.15)
    # 12^3 voxels over 5 x 5 x 5 lags, less what the box cuts off
    assert max(one.freedom for one in found) < 20


def test_a_single_voxel_may_be_as_noisy_as_its_map_states():
    """One large deposit among voxels that are all equally likely to get one."""
    dose = np.full(GRID.shape, 1.0)
    uncertainty = np.full(GRID.shape, 0.5)
    uncertainty[2, 3, 4] = 1.5
    one = DoseMap(dose_gy=dose, grid=GRID, uncertainty_gy=uncertainty)
    model = NoiseModel(correlation=NoiseCorrelation.independent())
    spreads = []
    for as_stated in (False, True):
        rng = np.random.default_rng(8)
        pairs = parametric_pairs(
            reference=one,
            evaluated=one,
            model=model,
            draws=400,
            rng=rng,
            as_stated=as_stated,
        )
        spreads.append(np.std([a.dose_gy[2, 3, 4] for a, _ in pairs]))
    averaged, stated = spreads
    assert averaged < 0.9
    assert stated == pytest.approx(1.5, rel=0.2)


def test_variance_of_a_sum_is_that_of_drawn_fields_edges_included():
    correlation = NoiseCorrelation.exponential((0.7, 0.5, 0.2))
    shape = (5, 6, 7)
    deviation = np.linspace(0.5, 2.0, 5)[:, None, None] * np.ones(shape)
    rng = np.random.default_rng(24)
    sums = [np.sum(deviation * correlated_normal(shape, correlation, rng)) for _ in range(4000)]
    found = correlation.sum_variance(deviation)
    assert np.var(sums) == pytest.approx(found, rel=0.08)
    assert found < correlation.inflation * np.sum(deviation**2)


def test_the_debiased_root_has_the_p_value_of_the_mean_square_and_a_floor_about_0():
    rng = np.random.default_rng(27)
    mean, freedom = 0.04, 30
    squares = mean * rng.chisquare(freedom, 100_000) / freedom
    moments = {"mean": mean, "variance": 2 * mean**2 / freedom, "method": ""}
    roots = np.copysign(np.sqrt(np.abs(squares - mean)), squares - mean)
    for value in (roots.max(), 0.08, 0.0, -0.05, -0.3):
        square = max(mean + np.copysign(value**2, value), 0.0)
        found = debiased_significance(value, **moments)
        assert found.p == square_significance(square, root=False, **moments).p
        assert found.floor == pytest.approx(roots.mean(), abs=5e-4)
        assert found.floor_sd == pytest.approx(roots.std(), rel=0.01)
    assert debiased_significance(-0.1, mean=0.0, variance=0.0, method="").p == 1.0


def test_a_sum_of_estimated_scatter_follows_students_t():
    found = sum_significance(2.571, center=0.0, deviation=1.0, method="", freedom=5.0)
    assert found.p == pytest.approx(0.05, abs=1e-3)  # Student 1908: t(0.975, 5) = 2.571


def test_uncertainties_of_rarely_hit_voxels_are_taken_from_their_neighbours():
    """Voxels hit by one history in three runs: their own uncertainty is 0, or as large as their dose."""
    rng = np.random.default_rng(25)
    truth = np.full((20, 20, 20), 1.0)
    counts = rng.poisson(0.7, truth.shape)
    dose = DoseMap.from_array(counts / 0.7, spacing_mm=(2, 2, 2))
    noisy = replace(dose, uncertainty_gy=np.sqrt(counts) / 0.7)
    exact = replace(dose, dose_gy=truth)
    pairs = parametric_pairs(
        reference=exact,
        evaluated=noisy,
        model=NoiseModel(correlation=NoiseCorrelation.independent()),
        draws=3,
        rng=rng,
    )
    drawn = np.stack([b.uncertainty_gy for _, b in pairs])
    assert drawn.std() / drawn.mean() < 0.1
    assert drawn.mean() == pytest.approx(np.sqrt(1 / 0.7), rel=0.05)


def test_a_real_difference_does_not_pass_for_correlation():
    rng = np.random.default_rng(11)
    z = rng.standard_normal((30, 30, 30)) + 5 * np.sin(np.linspace(0, 12, 30))[:, None, None]
    assert noise_correlation(z).inflation < 1.3


def test_drawn_fields_have_the_scatter_of_sums_that_their_correlation_says():
    model = NoiseCorrelation.exponential((0.5, 0.1, 0.1))
    rng = np.random.default_rng(12)
    sums = [correlated_normal((24, 24, 24), model, rng).sum() for _ in range(300)]
    assert np.var(sums) / 24**3 == pytest.approx(model.inflation, rel=0.2)


@pytest.mark.parametrize("n", [3, 8])
def test_recombined_batches_have_exactly_the_noise_of_their_mean(n):
    weights = centered_weights(n, 4000, np.random.default_rng(13))
    np.testing.assert_allclose(weights.sum(axis=1), 0, atol=1e-12)
    np.testing.assert_allclose((weights**2).sum(axis=1), 1 / n)


@pytest.mark.parametrize("n", [3, 8])
def test_weights_of_two_simulations_are_centered_of_the_right_size_and_independent(n):
    weights = orthogonal_weights(n, np.random.default_rng(35))
    np.testing.assert_allclose(weights.sum(axis=1), 0, atol=1e-12)
    np.testing.assert_allclose(weights @ weights.T, np.eye(2) / n, atol=1e-12)


def test_cross_batch_estimate_is_the_mean_over_all_pairs_of_batches():
    rng = np.random.default_rng(14)
    a, b = rng.random((3, 2, 2, 2)), rng.random((4, 2, 2, 2))
    products = [
        np.mean((a[i] - b[j]) * (a[k] - b[m]))
        for i in range(3)
        for k in range(3)
        for j in range(4)
        for m in range(4)
        if i != k and j != m
    ]
    pool = BatchPermutations(a, b)
    assert pool.cross_batch_mean_squares(pool.as_labelled) == pytest.approx(np.mean(products))


def test_relabelled_mean_squares_are_those_of_the_maps():
    rng = np.random.default_rng(15)
    a, b = rng.random((3, 2, 3, 4)), rng.random((5, 2, 3, 4))
    pool = BatchPermutations(a, b)
    weights = pool.relabelled(5, rng)
    pooled = np.concatenate([a, b])
    for w, square, shift in zip(
        weights, pool.mean_squares(weights), pool.mean_differences(weights), strict=True
    ):
        d = np.tensordot(w, pooled, axes=1)
        assert square == pytest.approx(np.mean(d**2))
        assert shift == pytest.approx(np.mean(d))


def test_batches_of_two_shapes_are_not_relabelled():
    with pytest.raises(InputError, match="batches must share their grid"):
        BatchPermutations(np.ones((2, 1, 1, 1)), np.ones((2, 1, 1, 2)))


def test_root_of_a_chi_square_has_its_mean_and_deviation(record_validation):
    mean, deviation = root_of_gamma(3.0, 6.0)  # chi-square of 3 degrees of freedom: Maxwell
    assert mean == pytest.approx(2 * np.sqrt(2 / np.pi))
    record_validation(
        "floor of a distance whose square is chi-square",
        "Maxwell distribution, closed form",
        reached=abs(mean / (2 * np.sqrt(2 / np.pi)) - 1),
        tolerance=1e-6,
        unit="relative",
    )
    assert deviation == pytest.approx(np.sqrt(3 - 8 / np.pi))


def test_significance_of_sums_and_squares_is_that_of_normal_and_chi_square():
    assert sum_significance(1.96, center=0.0, deviation=1.0, method="").p == pytest.approx(0.05, abs=1e-3)
    found = square_significance(7.815, mean=3.0, variance=6.0, root=False, method="")
    assert found.p == pytest.approx(0.05, abs=1e-3)
    assert square_significance(np.sqrt(7.815), mean=3, variance=6, root=True, method="").p == pytest.approx(
        found.p
    )


def smooth_dose(shape=(24, 24, 24)):
    z, y, x = np.indices(shape) - (shape[0] - 1) / 2
    return 2.0 / (1 + np.exp((np.abs(x) - 8) / 1.5)) / (1 + np.exp((np.abs(y) - 8) / 1.5)) * np.exp(-z / 40)


@pytest.mark.parametrize("relative", [0.005, 0.02, 0.1])
def test_noise_level_of_a_map_is_found_without_its_uncertainty(relative):
    truth = smooth_dose()
    deviation = relative * np.sqrt(truth * truth.max())
    noisy = np.abs(truth + deviation * np.random.default_rng(16).standard_normal(truth.shape))
    level = noise_level(DoseMap.from_array(noisy, spacing_mm=(3, 3, 3)))
    assert level.status == "estimated"
    assert level.per_root_dose == pytest.approx(relative * np.sqrt(truth.max()), rel=0.1)


def test_a_noise_level_is_told_in_percent_of_the_high_dose():
    """0.06 Gy of 4 Gy, with a standard deviation of 0.03 times the root of the dose."""
    level = NoiseLevel(per_root_dose=0.03, high_dose_gy=4.0, whiteness=-0.67, status="estimated")
    assert level.relative_percent == pytest.approx(1.5)
    dose = DoseMap.from_array([0.0, 1.0, 4.0], spacing_mm=(1.0,))
    np.testing.assert_allclose(level.uncertainty_gy(dose).ravel(), [0.0, 0.03, 0.06])


def test_damping_of_correlated_noise_is_mended():
    truth = np.full((40, 40, 40), 2.0)
    correlation = NoiseCorrelation.exponential((0.4, 0.1, 0.1))
    normal = correlated_normal(truth.shape, correlation, np.random.default_rng(17))
    dose = DoseMap.from_array(truth + 0.1 * normal, spacing_mm=(3, 3, 3))
    level = undamped(noise_level(dose), correlation, shape=truth.shape)
    assert level.per_root_dose * np.sqrt(2.0) == pytest.approx(0.1, rel=0.05)


@pytest.mark.parametrize("step", [0.0, 1e-4, 1e-3])
def test_a_smooth_map_has_no_noise_even_rounded(step):
    dose = smooth_dose()
    rounded = np.round(dose / step) * step if step else dose
    level = noise_level(DoseMap.from_array(rounded, spacing_mm=(3, 3, 3)))
    assert level.per_root_dose == 0.0
    assert level.status == "no noise found"


def test_few_voxels_do_not_tell_their_noise():
    level = noise_level(DoseMap.from_array(np.ones((5, 5, 5)), spacing_mm=(3, 3, 3)))
    assert level.status == "no noise found: too few voxels to tell"


def test_half_the_floor_takes_four_times_the_histories():
    assert histories_factor(floor=0.2, goal=0.1) == pytest.approx(4.0)
    assert histories_factor(floor=0.2, goal=0.1, power=1.0) == pytest.approx(2.0)  # mean squares
    assert histories_factor(floor=0.05, goal=0.1) == 1.0
    with pytest.raises(InputError, match="`goal` must be positive"):
        histories_factor(floor=0.2, goal=0.0)


def test_denoising_keeps_edges_and_takes_noise():
    truth = np.zeros((20, 20, 20))
    truth[:, :, 10:] = 10.0
    noise = 0.3 * np.random.default_rng(18).standard_normal(truth.shape)
    found = denoised(truth + noise, np.full(truth.shape, 0.09))
    inside = np.abs(np.arange(20) - 9.5) > 4
    assert np.std((found - truth)[:, :, inside]) < 0.15
    assert np.abs(found - truth)[:, :, 9:11].mean() < 0.6


def test_noise_alone_marks_no_voxel_more_often_than_stated():
    rng = np.random.default_rng(19)
    marked = 0
    for _ in range(200):
        fields = rng.standard_normal((20, 6, 6, 6)) * np.linspace(0.1, 3, 6)
        marked += bool(significant_voxels(fields[0], list(fields[1:])).mask.any())
    assert marked / 200 < 0.1


def test_a_real_spot_is_marked_where_it_is():
    rng = np.random.default_rng(20)
    fields = rng.standard_normal((20, 6, 6, 6))
    fields[0, 3, 3, 3] += 15
    found = significant_voxels(fields[0], list(fields[1:]))
    assert found.mask[3, 3, 3]
    assert found.mask.sum() == 1
    assert found.level == pytest.approx(0.05)


def test_one_null_field_is_refused():
    with pytest.raises(InputError, match="at least 2 fields"):
        significant_voxels(np.ones((2, 2, 2)), [np.ones((2, 2, 2))])


def test_low_sampling_is_where_the_relative_uncertainty_is_large():
    dose = np.full(GRID.shape, 4.0)
    dose[0] = 0.0
    uncertainty = np.full(GRID.shape, 0.1)
    uncertainty[1] = 0.5
    one = DoseMap(dose_gy=dose, grid=GRID, uncertainty_gy=uncertainty)
    exact = DoseMap(dose_gy=dose, grid=GRID)
    found = low_sampling(reference=one, evaluated=exact)
    assert found[1].all()
    assert not found[0].any()
    assert not found[2:].any()
    assert low_sampling(reference=exact, evaluated=exact) is None


def test_a_difference_of_many_sigma_does_not_pass_for_correlation():
    """A moved field, whose differences reach far beyond what noise alone does."""
    rng = np.random.default_rng(26)
    pair = []
    for shift in (0, 1):
        dose = np.roll(smooth_dose(), shift, axis=2)
        sigma = 0.01 * np.sqrt(dose * dose.max())
        noisy = np.abs(dose + sigma * rng.standard_normal(dose.shape))
        pair.append(DoseMap.from_array(noisy, spacing_mm=(3, 3, 3), uncertainty_gy=sigma))
    model = noise_model(reference=pair[0], evaluated=pair[1])
    assert model.correlation.inflation < 1.5


def estimated_variances(rng, n, *, shape=(20, 20, 20)):
    """True variances of a field with a penumbra and a second material, and estimates from n values each."""
    z, _, x = np.indices(shape)
    dose = 0.1 + 1 / (1 + np.exp((np.abs(x - shape[2] / 2) - 5) / 1.5))
    per_dose = np.where(z < shape[0] / 2, 1.0, 3.0) * 1e-3
    truth = per_dose * dose
    return dose, truth, truth * rng.chisquare(n - 1, shape) / (n - 1)


def test_roots_of_estimated_variances_are_mended(record_validation):
    """E s = c4 sigma for normal values: 0.973 for 10 of them."""
    dose, truth, estimate = estimated_variances(np.random.default_rng(30), 10)
    before, after = (
        np.sum(np.sqrt(v)) / np.sum(np.sqrt(truth)) for v in (estimate, steady_variance(dose, estimate))
    )
    assert before == pytest.approx(0.973, abs=0.002)
    assert after == pytest.approx(1.0, abs=0.006)
    record_validation(
        "mean standard uncertainty from 10 values a voxel, scatter taken out",
        "the true one (c4 = 0.973 of it before)",
        reached=abs(after - 1),
        tolerance=0.006,
        unit="relative",
    )


def test_steadied_variances_keep_their_sum_and_the_edge_between_materials():
    dose, truth, estimate = estimated_variances(np.random.default_rng(31), 20)
    found = steady_variance(dose, estimate)
    assert found.sum() == pytest.approx(estimate.sum(), rel=0.01)
    beside = np.s_[8:12]
    error, plain = (np.sqrt(np.mean((v / truth - 1)[beside] ** 2)) for v in (found, estimate))
    assert error < plain
    far = np.s_[:6]
    error, plain = (np.sqrt(np.mean((v / truth - 1)[far] ** 2)) for v in (found, estimate))
    assert error < 0.4 * plain


def test_known_variances_stay_as_they_are():
    dose, truth, _ = estimated_variances(np.random.default_rng(32), 10)
    assert np.allclose(steady_variance(dose, truth), truth, rtol=0.02)


def test_a_correlation_that_is_doubted_scatters_as_its_freedom_says():
    correlation = replace(NoiseCorrelation.exponential((0.5, 0.3, 0.2)), freedom=30.0)
    model = NoiseModel(correlation=correlation)
    rng = np.random.default_rng(33)
    found = np.array([model.doubted(rng).correlation.inflation for _ in range(400)])
    assert np.mean(1 / found) == pytest.approx(1 / correlation.inflation, rel=0.03)
    assert np.std(1 / found) * correlation.inflation == pytest.approx(np.sqrt(2 / 30), rel=0.15)
    both = NoiseModel(correlation=correlation, weak=NoiseCorrelation.exponential((0.3, 0.3, 0.3)))
    doubted = both.doubted(rng)
    assert doubted.weak is not None
    factor = doubted.correlation.inflation / correlation.inflation
    assert doubted.weak.inflation == pytest.approx(factor * both.weak.inflation)  # doubted together
    assert NoiseCorrelation.independent().inflated(3.0).inflation == 1.0
    grown = correlation.inflated(1.5)
    assert grown.inflation == pytest.approx(1.5 * correlation.inflation)
    sums = [correlated_normal((12, 12, 12), grown, rng).sum() for _ in range(400)]
    assert np.var(sums) == pytest.approx(grown.sum_variance(np.ones((12, 12, 12))), rel=0.25)
