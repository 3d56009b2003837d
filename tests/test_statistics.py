"""z scores and the Kawrakow-Fippel test, verified by simulation."""

import numpy as np
import pytest

from dosemover.dose import DoseMap
from dosemover.errors import InputError
from dosemover.grid import Grid
from dosemover.metrics import kawrakow_fippel, standardized_difference
from dosemover.metrics.shift_mixture import bin_edges, fit_mixture, grid_likelihood_ratio
from dosemover.metrics.statistics import _chi2_p

SHAPE = (30, 40, 50)


def noisy_pair(rng, change=0.0, share=1.0, sigma=0.01, shape=SHAPE):
    """Two maps of 50 Gy with relative noise; the second changed by a fraction in a share of voxels."""
    true = np.full(shape, 50.0)
    changed = true * (1 + change * (rng.random(shape) < share))
    s = np.full(shape, sigma * 50.0)
    grid = Grid.regular(shape=shape, spacing_mm=(2, 2, 2))
    return tuple(
        DoseMap(dose_gy=dose + s * rng.standard_normal(shape), grid=grid, uncertainty_gy=s)
        for dose in (true, changed)
    )


def test_z_of_noise_alone_is_normal():
    one, two = noisy_pair(np.random.default_rng(0))
    got = standardized_difference(reference=one, evaluated=two)
    assert got.n_voxels == 60000
    assert got.mean == pytest.approx(0, abs=0.02)
    assert got.chi2_per_voxel == pytest.approx(1, abs=0.03)
    assert got.chi2_expected == 1.0
    assert got.counts.sum() == 60000
    assert got.expected.sum() == pytest.approx(60000)
    large = got.expected > 20
    chi2 = np.sum((got.counts - got.expected)[large] ** 2 / got.expected[large])
    assert chi2 < large.sum() + 5 * np.sqrt(2 * large.sum())


def test_z_by_hand():
    one = DoseMap.from_array([1.0, 2.0, 3.0], spacing_mm=(1,), uncertainty_gy=[0.3, 0.0, 0.0])
    two = DoseMap.from_array([1.5, 2.0, 4.0], spacing_mm=(1,), uncertainty_gy=[0.4, 0.5, 0.0])
    got = standardized_difference(reference=one, evaluated=two)
    np.testing.assert_allclose(got.z.ravel(), [1.0, 0.0, np.nan])
    assert got.chi2_per_voxel == pytest.approx(0.5)
    assert got.status == "1 voxels without uncertainty are left out"


def test_z_without_any_uncertainty_is_missing():
    one = DoseMap.from_array([1.0], spacing_mm=(1,))
    assert standardized_difference(reference=one, evaluated=one) is None
    assert kawrakow_fippel(reference=one, evaluated=one) is None


def batch_pair(rng, n=8, m=6, change=0.0, common=0.0, shape=(10, 20, 30)):
    """Batches with independent noise of 1 Gy in the mean and a part common to all voxels."""
    grid = Grid.regular(shape=shape, spacing_mm=(2, 2, 2))
    sides = []
    for size, level in ((n, 50.0), (m, 50.0 * (1 + change))):
        noise = rng.standard_normal((size, *shape)) + common * rng.standard_normal((size, 1, 1, 1))
        sides.append(DoseMap.from_batches(level + np.sqrt(size) * noise, grid))
    return sides


def test_z_from_few_batches_has_the_chi_square_of_student():
    one, two = batch_pair(np.random.default_rng(1))
    got = standardized_difference(reference=one, evaluated=two)
    assert got.degrees_of_freedom == pytest.approx(2**2 / (1 / 7 + 1 / 5), rel=0.02)
    assert got.chi2_expected == pytest.approx(1.2, abs=0.02)
    assert got.chi2_per_voxel == pytest.approx(got.chi2_expected, rel=0.05)


@pytest.mark.parametrize(
    ("change", "share", "fraction", "shift"), [(0.01, 1.0, 100, 0.707), (0.02, 0.2, 20, 1.414)]
)
def test_kawrakow_fippel_finds_share_and_shift(change, share, fraction, shift, record_validation):
    one, two = noisy_pair(np.random.default_rng(2), change, share)
    got = kawrakow_fippel(reference=one, evaluated=two)
    assert got.fraction_percent == pytest.approx(fraction, abs=3)
    assert got.shift_sigma == pytest.approx(shift, abs=0.06)
    record_validation(
        "Kawrakow-Fippel: share of voxels with a systematic error",
        "simulated error of known share and size",
        reached=abs(got.fraction_percent - fraction),
        tolerance=3,
        unit="%",
    )
    record_validation(
        "Kawrakow-Fippel: size of the error",
        "simulated error of known share and size",
        reached=abs(got.shift_sigma - shift),
        tolerance=0.06,
        unit="σ",
    )
    assert got.p_value < 1e-10
    assert got.status == "ok"
    assert got.sigma_gy == pytest.approx(0.5 * np.sqrt(2))
    low, high = got.fraction_interval_percent
    assert low <= fraction <= high + 0.01
    assert got.mean_shift_sigma == pytest.approx(share * shift, abs=0.03)


def test_kawrakow_fippel_finds_shifts_both_ways():
    rng = np.random.default_rng(3)
    one, two = noisy_pair(rng)
    u = rng.random(SHAPE)
    moved = two.dose_gy + 0.5 * np.sqrt(2) * np.where(u < 0.2, 2.0, np.where(u > 0.9, -2.5, 0.0))
    two = DoseMap(dose_gy=moved, grid=two.grid, uncertainty_gy=two.uncertainty_gy)
    got = kawrakow_fippel(reference=one, evaluated=two)
    np.testing.assert_allclose(got.fractions, (0.2, 0.1), atol=0.03)
    np.testing.assert_allclose(got.shifts_sigma, (2.0, -2.5), atol=0.15)
    assert got.fraction_interval_percent is None


def test_noise_alone_is_reported_as_no_difference():
    one, two = noisy_pair(np.random.default_rng(4))
    got = kawrakow_fippel(reference=one, evaluated=two)
    assert got.fraction_percent == 0.0
    assert got.shift_sigma is None
    assert got.status.startswith("no systematic difference found (p = ")


def test_the_size_of_the_chi_square_bound_is_at_most_nominal():
    rng = np.random.default_rng(5)
    p = []
    for _ in range(80):
        x = rng.standard_normal(5000)
        edges = bin_edges(x)
        p.append(_chi2_p(fit_mixture(np.histogram(x, edges)[0], edges).likelihood_ratio))
    for level in (0.05, 0.2):
        assert np.mean(np.array(p) <= level) <= level + 2 * np.sqrt(level / 80)


def test_correlated_noise_does_not_pass_for_a_difference():
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(6)
    false_alarms = 0
    grid = Grid.regular(shape=SHAPE, spacing_mm=(2, 2, 2))
    s = np.full(SHAPE, 0.5)
    for _ in range(12):
        noise = [gaussian_filter(rng.standard_normal(SHAPE), 0.7, mode="wrap") for _ in range(2)]
        one, two = (DoseMap(dose_gy=50 + 0.5 * n / n.std(), grid=grid, uncertainty_gy=s) for n in noise)
        got = kawrakow_fippel(reference=one, evaluated=two)
        assert got.correlation_factor > 3
        false_alarms += got.p_value < 0.05
    assert false_alarms <= 2


def test_permuting_batches_is_not_fooled_by_common_noise():
    rng = np.random.default_rng(7)
    p = [
        kawrakow_fippel(reference=one, evaluated=two, n_permutations=9, seed=i).p_value
        for i, (one, two) in enumerate(batch_pair(rng, common=0.3, shape=(5, 10, 10)) for _ in range(16))
    ]
    assert 0.3 < np.mean(p) < 0.8
    assert np.mean(np.array(p) <= 0.1) < 0.35


@pytest.mark.parametrize("n_permutations", [9, 0])
def test_voxels_chosen_in_a_noisy_map_do_not_pass_for_a_difference(n_permutations):
    """A slope with 25 % noise: where the reference alone exceeds half its maximum, its noise is positive."""
    rng = np.random.default_rng(11)
    dose = np.broadcast_to(np.linspace(2.0, 10.0, 20), (6, 12, 20))
    grid = Grid.regular(shape=dose.shape, spacing_mm=(2, 2, 2))
    p = []
    for seed in range(20):
        if n_permutations:
            sides = [rng.gamma(1.6, dose / 1.6, size=(10, *dose.shape)) for _ in range(2)]
            one, two = (DoseMap.from_batches(side, grid) for side in sides)
        else:
            sides = [np.maximum(rng.normal(dose, 0.25 * dose), 0.0) for _ in range(2)]
            one, two = (DoseMap(dose_gy=side, grid=grid, uncertainty_gy=0.25 * dose) for side in sides)
        p.append(
            kawrakow_fippel(reference=one, evaluated=two, n_permutations=n_permutations, seed=seed).p_value
        )
    assert np.mean(np.array(p) <= 0.1) <= 0.3
    assert np.mean(p) > 0.3


def test_permuting_batches_sees_a_difference_and_repeats_itself():
    one, two = batch_pair(np.random.default_rng(8), change=0.02, shape=(5, 20, 30))
    got = kawrakow_fippel(reference=one, evaluated=two, n_permutations=49)
    assert got.p_method == "permutation of batches"
    assert got.p_value == pytest.approx(0.02)
    assert got.shift_sigma == pytest.approx(1 / np.sqrt(2), abs=0.08)
    again = kawrakow_fippel(reference=one, evaluated=two, n_permutations=49)
    assert (again.p_value, again.shift_sigma) == (got.p_value, got.shift_sigma)


def test_the_fit_is_at_least_as_good_as_its_grid():
    x = np.random.default_rng(9).standard_normal(2000) + 0.3
    edges = bin_edges(x)
    counts = np.histogram(x, edges)[0]
    assert fit_mixture(counts, edges).likelihood_ratio >= grid_likelihood_ratio(counts, edges)


def test_single_component_matches_a_maximum_likelihood_fit_of_the_samples():
    from scipy.optimize import minimize

    rng = np.random.default_rng(10)
    x = rng.standard_normal(4000) + 1.5 * (rng.random(4000) < 0.4)
    edges = bin_edges(x)
    got = fit_mixture(np.histogram(x, edges)[0], edges)
    want = minimize(
        lambda p: -np.sum(np.log1p(p[0] * (np.exp(p[1] * x - p[1] ** 2 / 2) - 1))),
        [0.5, 1.0],
        method="Nelder-Mead",
    )
    assert got.fractions[0] == pytest.approx(want.x[0], abs=0.01)
    assert got.shifts[0] == pytest.approx(want.x[1], abs=0.02)


def test_what_cannot_be_tested_is_refused():
    one, two = noisy_pair(np.random.default_rng(11), shape=(2, 2, 2))
    with pytest.raises(InputError, match="`n_permutations` needs batches in both maps"):
        kawrakow_fippel(reference=one, evaluated=two, n_permutations=9)
    quiet = DoseMap(dose_gy=one.dose_gy, grid=one.grid, uncertainty_gy=np.zeros((2, 2, 2)))
    with pytest.raises(InputError, match="no voxel above the dose threshold has an uncertainty"):
        kawrakow_fippel(reference=quiet, evaluated=quiet)
