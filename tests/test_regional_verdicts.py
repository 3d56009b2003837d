"""Where a difference is real: false alarms of whole maps, few batches, and which values are ranked."""

import numpy as np
import pytest

import dosemover as dm
from dosemover.comparison.compare import compare
from dosemover.comparison.noise_at_hand import noise_at_hand
from dosemover.dose import DoseMap
from dosemover.errors import GridMismatchError, InputError
from dosemover.grid import Grid
from dosemover.noise import (
    Relabellings,
    debiased_significance,
    significant_by_relabelling,
    significant_voxels,
    square_significance,
    sum_significance,
)

GRID = Grid.regular(shape=(14, 15, 16), spacing_mm=(3.0, 3.0, 3.0))
HOT = np.zeros(GRID.shape, dtype=bool)
HOT[5:9, 6:10, 6:10] = True


def field():
    z, y, x = np.meshgrid(*GRID.centers_mm, indexing="ij")
    return 2 * np.exp(-(((x - 22) / 14) ** 2) - ((y - 21) / 14) ** 2 - ((z - 20) / 16) ** 2) + 0.1


def batches(rng, n, *, noise=0.03, change=1.0, dtype=np.float64):
    """Gamma-distributed batches whose mean has a noise of 3 % at 2 Gy."""
    mean = field() * change
    variance = 2 * mean * noise**2 * n
    drawn = rng.gamma(mean**2 / variance, variance / mean, size=(n, *GRID.shape)).astype(dtype)
    if dtype == np.float64:
        return DoseMap.from_batches(drawn, GRID)
    return DoseMap(dose_gy=drawn.mean(axis=0, dtype=np.float64).astype(dtype), grid=GRID, batches_gy=drawn)


def uncertain(rng, *, noise=0.03):
    sigma = noise * np.sqrt(2 * field())
    drawn = np.maximum(field() + sigma * rng.standard_normal(GRID.shape), 0)
    return DoseMap(dose_gy=drawn, grid=GRID, uncertainty_gy=sigma)


def relabelled(one, two, seed=0, draws=19):
    rng = np.random.default_rng(seed)
    return significant_by_relabelling(reference=one, evaluated=two, draws=draws, rng=rng)


@pytest.mark.parametrize("n", [4, 5, 10])
def test_batches_without_a_difference_mark_a_voxel_in_one_map_of_twenty(n):
    """Few batches recombined around their mean would mark voxels in every map of 5 + 5."""
    rng = np.random.default_rng(40 + n)
    alarms = [relabelled(batches(rng, n), batches(rng, n)).mask.any() for _ in range(40)]
    assert sum(alarms) <= 7  # 2 expected; 8 or more in 1 of 1000 sets


@pytest.mark.parametrize("n", [4, 10])
def test_a_hot_spot_is_marked_by_relabelling_and_nothing_far_from_it(n):
    rng = np.random.default_rng(2)
    found = relabelled(batches(rng, n), batches(rng, n, change=np.where(HOT, 1.25, 1.0)))
    assert found.level == pytest.approx(0.05)
    assert found.mask[HOT].mean() > 0.7
    near = np.zeros_like(HOT)
    near[3:11, 4:12, 4:12] = True
    assert not found.mask[~near].any()


def test_batches_that_only_differ_by_their_storage_mark_nothing():
    same = DoseMap.from_batches(
        np.stack([field()] * 5) * (1 + 1e-8 * np.arange(5)[:, None, None, None]), GRID
    )
    assert not relabelled(same, same).mask.any()


@pytest.mark.parametrize(("n", "m", "others"), [(2, 2, 2), (3, 3, 9), (2, 3, 9), (4, 4, 34)])
def test_other_labellings_are_told_apart_and_exhausted(n, m, others):
    ways = Relabellings(n, m)
    found = ways.others(others, np.random.default_rng(0))
    assert len({side.tobytes() for side in found}) == others
    assert (found.sum(axis=1) == n).all()
    at_hand = np.arange(n + m) < n
    assert not (found == at_hand).all(axis=1).any()
    assert n != m or not (found == ~at_hand).all(axis=1).any()
    assert ways.others(others + 1, np.random.default_rng(0)) is None


@pytest.mark.parametrize("n", [2, 3])
def test_too_few_batches_to_relabel_are_judged_by_their_uncertainty(n):
    rng = np.random.default_rng(5)
    assert relabelled(batches(rng, n), batches(rng, n)) is None
    masks = [
        compare(batches(rng, n), batches(rng, n), metrics="mass_ratio").maps["significant_mask"]
        for _ in range(8)
    ]
    assert all("about 5 %" in mask.label for mask in masks)
    assert sum(bool(mask.values.any()) for mask in masks) <= 2


def test_relabelling_needs_batches_of_one_grid():
    rng = np.random.default_rng(6)
    one = batches(rng, 4)
    with pytest.raises(InputError, match="must bring their batches"):
        relabelled(one, uncertain(rng))
    cut = DoseMap.from_batches(one.batches_gy[:, :-1], GRID.crop((slice(0, 13), slice(None), slice(None))))
    with pytest.raises(GridMismatchError, match="different grids"):
        relabelled(one, cut)


@pytest.mark.slow
def test_fields_of_the_solvers_are_not_marked_between_maps_that_differ_by_noise_alone():
    rng = np.random.default_rng(7)
    names = ("displacement", "change", "dmd_index", "gain_loss")
    alarms = dict.fromkeys(names, 0)
    for _ in range(5):
        found = compare(batches(rng, 4), batches(rng, 4), metrics=["dmd", "kr"], null=19)
        for name in names:
            mask = found.maps[f"{name}_significant_mask"]
            assert "about 5 %" in mask.label
            alarms[name] += bool(mask.values.any())
    assert max(alarms.values()) <= 2


def test_a_known_noise_needs_no_estimate_from_few_draws():
    rng = np.random.default_rng(8)
    noise = 1 + np.indices(GRID.shape)[0]
    nulls = [noise * rng.standard_normal(GRID.shape) for _ in range(19)]
    change = np.zeros(GRID.shape)
    change[7, 7, 7] = 7 * 8
    known = significant_voxels(change, nulls, noise=noise)
    assert known.threshold < significant_voxels(change, nulls).threshold
    assert known.mask.sum() == 1
    assert known.mask[7, 7, 7]


@pytest.mark.parametrize("key", ["rmse_gy", "mae_gy", "ssim", "chi2_per_voxel"])
def test_maps_in_single_precision_tie_with_the_relabelling_that_changes_nothing(key):
    """Of 2 + 2 batches a third of all relabellings are the pair at hand or its mirror image."""
    for seed in range(4):
        rng = np.random.default_rng(seed)
        pair = batches(rng, 2, dtype=np.float32), batches(rng, 2, dtype=np.float32)
        assert compare(*pair, metrics=[key]).metrics[key].p > 0.05


def test_two_batches_get_a_floor_whose_scatter_is_that_of_the_metric():
    """Recombined they leave nothing but a sign: z of such floors had a root mean square of 8 to 60."""
    keys = ["rmse_gy", "mae_gy", "max_difference_gy", "ssim", "center_shift_mm"]
    rng = np.random.default_rng(9)
    found = [compare(batches(rng, 2), batches(rng, 2), metrics=keys).metrics for _ in range(8)]
    for key in keys:
        assert np.sqrt(np.mean([one[key].z ** 2 for one in found])) < 4, key
    assert "floor from the uncertainties" in found[0]["rmse_gy"].settings["significance"]


def test_the_doubt_about_an_estimated_level_reaches_drawn_floors():
    """The relative scatter of the floor is that of the level: 25 %."""
    rng = np.random.default_rng(10)
    pair = [DoseMap(dose_gy=uncertain(rng).dose_gy, grid=GRID) for _ in range(2)]
    noise = noise_at_hand(reference=pair[0], evaluated=pair[1])
    assert noise is not None
    assert noise.estimated
    found = compare(*pair, metrics=["mae_gy", "rmse_gy"], null=99).metrics
    for key in ("mae_gy", "rmse_gy"):
        assert found[key].floor_sd / found[key].floor == pytest.approx(0.25, abs=0.07)


def test_the_uncertainty_of_few_batches_scatters_in_drawn_maps_too():
    """Chi-square over an uncertainty from 5 batches is not 1 on average: the floor knows."""
    rng = np.random.default_rng(11)
    found = [compare(batches(rng, 5), uncertain(rng), metrics="chi2").metrics for _ in range(4)]
    assert all(abs(one["chi2_per_voxel"].z) < 4.5 for one in found)
    assert np.mean([one["chi2_per_voxel"].floor for one in found]) > 1.05


def test_a_noisy_map_without_uncertainty_beside_one_with_it_is_warned_of():
    rng = np.random.default_rng(12)
    other = DoseMap(dose_gy=uncertain(rng).dose_gy, grid=GRID)
    found = compare(uncertain(rng), other, metrics="rmse_gy")
    assert any("evaluated map comes without uncertainty" in text for text in found.warnings)
    assert "taken as free of noise" in found.metrics["rmse_gy"].settings["significance"]
    smooth = DoseMap(dose_gy=field(), grid=GRID)
    assert not any(
        "without uncertainty" in text for text in compare(uncertain(rng), smooth, metrics="rmse_gy").warnings
    )


def test_without_any_noise_every_difference_is_real():
    for p, q in (
        [square_significance(value, mean=0, variance=0, root=True, method="").p for value in (0.1, 0)],
        [debiased_significance(value, mean=0, variance=0, method="").p for value in (0.1, 0)],
        [sum_significance(value, center=1, deviation=0, method="").p for value in (1.1, 1)],
    ):
        assert (p, q) == (0.0, 1.0)


def test_more_draws_than_memory_holds_are_refused():
    dose = np.ones((3, 3, 3))
    with pytest.raises(InputError, match="100000 draws at most"):
        dm.compare(dose, dose, spacing_mm=(2.0, 2.0, 2.0), null=10**12)
