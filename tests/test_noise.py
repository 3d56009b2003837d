"""Noise floors: correlation, draws under the null, significance."""

import numpy as np
import pytest
from scipy import stats

from dosemover.dose import DoseMap
from dosemover.errors import GridMismatchError, InputError
from dosemover.grid import Grid
from dosemover.noise import (
    NoiseCorrelation,
    NoiseModel,
    correlated_normal,
    lag_correlation,
    noise_model,
    parametric_pairs,
    permuted_pairs,
    pooled_mean,
    resampled_pairs,
    significance,
)
from dosemover.noise.nulls import gamma_variate

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


def test_too_few_draws_are_refused():
    with pytest.raises(InputError, match="at least 2 finite draws"):
        significance(1.0, floor_values=[1.0])


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
