"""Dose differences against closed forms, and the noise taken out of them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dosemover.dose import DoseMap, Structure
from dosemover.errors import GridMismatchError, InputError
from dosemover.grid import Grid
from dosemover.metrics import (
    debiased_rmse,
    differences,
    dose_difference_passing,
    regional_differences,
    split_half_error,
    threshold_mask,
)
from dosemover.metrics.masks import weighted_percentile
from strategies import dose_maps, grids

LINE = {"spacing_mm": (1.0,)}


def line(*values, **fields):
    return DoseMap.from_array(np.array(values, dtype=float), **LINE, **fields)


def test_differences_of_three_voxels_are_those_done_by_hand():
    got = differences(reference=line(1, 2, 10), evaluated=line(2, 2, 8))
    assert got.n_voxels == 3
    assert got.mean_gy == pytest.approx(-1 / 3)
    assert got.mae_gy == pytest.approx(1.0)
    assert got.mse_gy2 == pytest.approx(5 / 3)
    assert got.rmse_gy == pytest.approx(np.sqrt(5 / 3))
    assert got.max_gy == 2
    assert got.p95_gy == pytest.approx(1.9)
    assert got.relative_max_percent == pytest.approx(20)
    assert got.relative_mae_percent == pytest.approx(10)


def test_local_normalization_divides_by_each_voxel_and_leaves_zeros_out():
    got = differences(reference=line(0, 2, 10), evaluated=line(1, 3, 10), normalization="local")
    assert got.relative_mae_percent == pytest.approx(25)
    assert got.n_without_local_dose == 1
    assert got.mae_gy == pytest.approx(2 / 3)


def test_prescription_normalization_uses_the_prescription():
    got = differences(
        reference=line(1, 2), evaluated=line(2, 2), normalization="prescription", prescription_gy=50
    )
    assert got.relative_max_percent == pytest.approx(2)
    with pytest.raises(InputError, match="prescription_gy=None"):
        differences(reference=line(1), evaluated=line(1), normalization="prescription")


def test_threshold_and_mask_choose_the_voxels():
    one, two = line(1, 5, 10), line(2, 7, 13)
    assert differences(reference=one, evaluated=two, dose_threshold_percent=50).mean_gy == 2.5
    assert differences(reference=one, evaluated=two, mask=[[[True, False, True]]]).mean_gy == 2
    weighted = differences(reference=one, evaluated=two, mask=[[[0.5, 0.0, 1.0]]])
    assert weighted.mean_gy == pytest.approx((0.5 * 1 + 3) / 1.5)


def test_masks_that_cannot_be_used_are_refused():
    one = line(1, 5, 10)
    with pytest.raises(InputError, match="holds no voxel"):
        differences(reference=one, evaluated=one, mask=np.zeros((1, 1, 3), bool))
    with pytest.raises(InputError, match="between 0 and 1"):
        differences(reference=one, evaluated=one, mask=np.full((1, 1, 3), 2.0))
    with pytest.raises(GridMismatchError, match="`mask` has shape"):
        differences(reference=one, evaluated=one, mask=np.ones(3, bool))


def test_thresholds_that_mean_nothing_are_refused():
    with pytest.raises(InputError, match="`percent` must not be negative"):
        threshold_mask(line(1, 2), percent=-1)
    with pytest.raises(InputError, match="`of_gy` must be positive"):
        threshold_mask(line(1, 2), of_gy=0)
    with pytest.raises(InputError, match="reference dose is 0 everywhere"):
        differences(reference=line(0, 0), evaluated=line(1, 0))


def test_different_grids_are_refused():
    with pytest.raises(GridMismatchError, match="interpolated_to"):
        differences(reference=line(1, 2), evaluated=line(1, 2, 3))


def test_regions_of_a_report_hold_what_their_names_say():
    one, two = line(1, 5, 10), line(2, 7, 13)
    half = Structure(name="PTV", fraction=[[[0.0, 0.5, 0.5]]], grid=one.grid)
    nothing = Structure(name="far", fraction=np.zeros((1, 1, 3)), grid=one.grid)
    got = regional_differences(reference=one, evaluated=two, structures=[half, nothing])
    assert list(got) == ["whole map", "above 10 %", "above 80 %", "PTV"]
    assert got["above 80 %"].n_voxels == 1
    assert got["PTV"].mean_gy == pytest.approx(2.5)


def test_passing_rates_count_voxels_within_the_criterion():
    one, two = line(100, 100, 100, 50, 1), line(101, 102, 104, 51.4, 5)
    got = dose_difference_passing(reference=one, evaluated=two)
    assert got.n_voxels == 4
    assert got.summary() == {
        "dose_difference_passing_1_percent": 25.0,
        "dose_difference_passing_2_percent": 75.0,
        "dose_difference_passing_3_percent": 75.0,
    }
    local = dose_difference_passing(reference=one, evaluated=two, normalization="local")
    assert local.passing_rate_percent[2.0] == 50.0
    assert local.passing_rate_percent[3.0] == 75.0


@given(grid=grids(), data=st.data())
def test_differences_obey_their_order(grid, data):
    one, two = data.draw(dose_maps(grid)), data.draw(dose_maps(grid))
    got = differences(reference=one, evaluated=two)
    tiny = 1e-12
    assert abs(got.mean_gy) <= got.mae_gy + tiny <= got.rmse_gy + 2 * tiny <= got.max_gy + 3 * tiny
    assert got.p95_gy <= got.p99_gy <= got.max_gy
    back = differences(reference=two, evaluated=one)
    assert back.mean_gy == pytest.approx(-got.mean_gy, abs=1e-12)
    assert back.rmse_gy == pytest.approx(got.rmse_gy)


def noisy_pair(rng, shift_gy, sigma_gy=1.0, n_batches=6, shape=(20, 20, 20)):
    grid = Grid.regular(shape=shape, spacing_mm=(2, 2, 2))
    noise = sigma_gy * np.sqrt(n_batches)
    one = 50 + noise * rng.standard_normal((n_batches, *shape))
    two = 50 + shift_gy + noise * rng.standard_normal((n_batches, *shape))
    return DoseMap.from_batches(one, grid), DoseMap.from_batches(two, grid)


def test_debiased_rmse_finds_an_error_below_the_noise():
    one, two = noisy_pair(np.random.default_rng(3), shift_gy=0.3)
    got = debiased_rmse(reference=one, evaluated=two)
    assert got.rmse_gy > 1.3
    assert got.value_gy == pytest.approx(0.3, abs=0.1)
    assert got.method == "reference: 6 batches, evaluated: 6 batches"


def test_debiased_square_equals_the_average_over_pairs_of_different_batches():
    one, two = noisy_pair(np.random.default_rng(4), 0.5, n_batches=3, shape=(2, 3, 4))
    a, b = one.batches_gy, two.batches_gy
    pairs = [
        np.mean((a[i] - b[j]) * (a[k] - b[m]))
        for i in range(3)
        for k in range(3)
        for j in range(3)
        for m in range(3)
        if i != k and j != m
    ]
    got = debiased_rmse(reference=one, evaluated=two)
    assert got.mean_square_gy2 == pytest.approx(np.mean(pairs), rel=1e-10)


@pytest.mark.parametrize(("shift_gy", "most"), [(0.2, 1.7), (3.0, 1.15)])
def test_debiased_square_is_unbiased_and_its_standard_error_safe(shift_gy, most):
    rng = np.random.default_rng(5)
    results = [
        debiased_rmse(reference=one, evaluated=two)
        for one, two in (noisy_pair(rng, shift_gy, shape=(6, 6, 6)) for _ in range(200))
    ]
    squares = np.array([r.mean_square_gy2 for r in results])
    errors = np.array([r.standard_error_gy2 for r in results])
    assert squares.mean() == pytest.approx(shift_gy**2, abs=4 * squares.std() / np.sqrt(200))
    assert 0.85 < np.sqrt(np.mean(errors**2)) / squares.std() < most
    assert any(r.value_gy < 0 for r in results) == (shift_gy < 1)


def test_debiased_rmse_says_when_no_noise_is_known():
    got = debiased_rmse(reference=line(1, 2), evaluated=line(1, 3))
    assert got.value_gy is None
    assert "neither map has an uncertainty" in got.status


def test_split_half_error_estimates_the_uncertainty_of_the_mean():
    one, _ = noisy_pair(np.random.default_rng(6), 0.0, sigma_gy=0.7)
    got = split_half_error(one)
    assert got.rmse_gy == pytest.approx(0.7, rel=0.03)
    assert got.relative_percent == pytest.approx(100 * got.rmse_gy / one.max_gy)
    assert split_half_error(line(1, 2)) is None


def test_partly_filled_voxels_weigh_in_their_noise_too():
    """Differences 1 and 3 Gy, noise of 0.1 and 2 Gy; of the second voxel a quarter lies in the region."""
    one = line(10, 10, uncertainty_gy=[0.1, 2.0])
    got = debiased_rmse(reference=one, evaluated=line(11, 13), mask=[[[1.0, 0.25]]])
    assert got.mean_square_gy2 == pytest.approx((1 - 0.01 + 0.25 * (9 - 4)) / 1.25)


def test_a_voxel_of_half_weight_counts_like_half_of_two_voxels():
    """The standard error of a region with half-filled voxels, against filled ones listed twice."""
    one, two = noisy_pair(np.random.default_rng(12), 0.4, n_batches=5, shape=(2, 3, 4))
    grid = Grid.regular(shape=(4, 3, 4), spacing_mm=(2, 2, 2))
    doubled = [
        DoseMap.from_batches(np.concatenate([side.batches_gy] * 2, axis=1), grid) for side in (one, two)
    ]
    weights = np.random.default_rng(13).choice([0.5, 1.0], size=(2, 3, 4))
    half = debiased_rmse(reference=one, evaluated=two, mask=weights)
    # the second copy holds the voxels of weight 1 once more: counts 1 and 2 instead of 0.5 and 1
    mask = np.concatenate([np.ones((2, 3, 4), bool), weights == 1.0])
    whole = debiased_rmse(reference=doubled[0], evaluated=doubled[1], mask=mask)
    assert half.mean_square_gy2 == pytest.approx(whole.mean_square_gy2)
    assert half.standard_error_gy2 == pytest.approx(whole.standard_error_gy2)


def test_percentiles_of_weights_are_those_of_voxels_listed_as_often():
    """Weights 1/4, 2/4 and 1 over a smooth run of values, against numpy on 1, 2 and 4 copies of each."""
    d = np.linspace(0.0, 10.0, 2001)
    weights = np.tile([0.25, 0.5, 1.0], 667)
    got = differences(
        reference=line(*np.full(d.size, 50.0)), evaluated=line(*(50 + d)), mask=weights[None, None]
    )
    listed = np.repeat(d, (4 * weights).astype(int))
    assert got.p95_gy == pytest.approx(np.percentile(listed, 95), abs=0.01)
    assert got.p99_gy == pytest.approx(np.percentile(listed, 99), abs=0.01)


def test_percentiles_of_few_weighted_voxels_are_those_of_their_middles():
    """Middles of the weights 1, 1/2, 1/2 at 0.5, 1.25, 1.75: a median at 1.125 is 5/6 of the way to 2 Gy."""
    values, weights = np.array([1.0, 2.0, 3.0]), np.array([1.0, 0.5, 0.5])
    assert weighted_percentile(values, 50.0, weights) == pytest.approx(1 + 5 / 6)
    assert weighted_percentile(values, 50.0, np.full(3, 0.3)) == pytest.approx(2.0)
