"""Quadratic forms in the batches of two simulations: values, floors and exact p values, one solve a batch."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import kstest

import dosemover as dm
from dosemover.comparison.marginal_floors import marginal_floors
from dosemover.comparison.noise_at_hand import noise_at_hand
from dosemover.dose import DoseMap
from dosemover.errors import GridMismatchError, InputError
from dosemover.grid import Grid
from dosemover.metrics import center_shift
from dosemover.moments import bures_w2, galerkin_dmd, tally_map
from dosemover.noise import Relabellings
from dosemover.transport import axis_w2, dose_mover_floor, dose_movers_distance
from dosemover.transport.mover_gram import dose_mover_gram

GRID = Grid.regular(shape=(7, 8, 9), spacing_mm=(4.0, 5.0, 6.0))
PARTS = ("dmd_mm", "dmd_moved_mm", "dmd_changed_percent")


def simulated(rng, *, n=6, grid=GRID, noise=0.1, tilt=0.0):
    """Batches of a smooth dose with noise that neighbors share."""
    z, y, x = np.indices(grid.shape)
    mean = 1 + 0.5 * np.cos(x / 3) * np.cos(y / 4) + 0.05 * z + tilt * (x - x.mean())
    white = rng.standard_normal((n, *grid.shape))
    shared = (white + np.roll(white, 1, axis=1)) / np.sqrt(2)
    return DoseMap.from_batches(mean * (1 + noise * shared), grid)


def test_the_form_of_the_batches_as_labelled_is_the_square_of_the_distance():
    rng = np.random.default_rng(1)
    a, b = simulated(rng, tilt=0.0), simulated(rng, n=9, tilt=0.01)
    gram = dose_mover_gram(reference=a, evaluated=b)
    w = Relabellings(*gram.sizes).as_labelled[0]
    found = dose_movers_distance(reference=a, evaluated=b, bounds=False, fields=False)
    for key, value in {"dmd_mm": found.value, **found.parts}.items():
        assert np.sqrt(w @ gram.forms[key] @ w) == pytest.approx(value, rel=0.01), key


def test_the_floor_of_the_batches_needs_no_probes(record_validation):
    rng = np.random.default_rng(2)
    a, b = simulated(rng, n=12), simulated(rng, n=8)
    exact = dose_mover_gram(reference=a, evaluated=b).noise()
    probed = dose_mover_floor(reference=a, evaluated=b, n_probes=3000).parts
    for key in PARTS:
        assert exact[key].mean == pytest.approx(probed[key].mean, rel=0.15), key
        assert exact[key].variance == pytest.approx(probed[key].variance, rel=0.35), key
    values = {key: [] for key in PARTS}
    for _ in range(60):
        pair = simulated(rng, n=12), simulated(rng, n=8)
        found = dose_movers_distance(reference=pair[0], evaluated=pair[1], bounds=False, fields=False)
        for key, value in {"dmd_mm": found.value, **found.parts}.items():
            values[key].append(value)
    for key in PARTS:
        error = np.std(values[key]) / np.sqrt(60)
        spread = exact[key].mean_variance ** 0.5 / exact[key].mean / 2 * exact[key].root[0]
        assert exact[key].root[0] == pytest.approx(np.mean(values[key]), abs=3 * (error + spread)), key
        record_validation(
            f"noise floor of {key} from the batches of one pair",
            "mean of 60 simulated pairs",
            reached=abs(exact[key].root[0] / np.mean(values[key]) - 1),
            tolerance=3 * (error + spread) / np.mean(values[key]),
            unit="relative",
        )


def test_p_values_of_the_distance_and_its_parts_are_uniform_under_the_null():
    rng = np.random.default_rng(3)
    p = {key: [] for key in PARTS}
    for seed in range(120):
        gram = dose_mover_gram(reference=simulated(rng, n=5), evaluated=simulated(rng, n=7))
        for key, form in gram.forms.items():
            p[key].append(Relabellings(*gram.sizes).p_value(form, draws=199, seed=seed))
    for key, values in p.items():
        assert kstest(np.array(values) - rng.random(120) / 200, "uniform").pvalue > 0.01, key


def test_moment_distances_are_exact_under_the_null_with_unequal_numbers_of_batches():
    rng = np.random.default_rng(4)
    p = []
    for _ in range(100):
        pair = simulated(rng, n=5), simulated(rng, n=7)
        one, two = (tally_map(dose, box_mm=GRID.box_mm, degree=6) for dose in pair)
        found = galerkin_dmd(reference=one, evaluated=two)
        assert found.relabelled_p is not None
        p.append(found.p)
    assert kstest(np.array(p) - rng.random(100) / 1000, "uniform").pvalue > 0.01


def test_merged_voxels_leave_the_forms_of_smooth_differences_alone():
    rng = np.random.default_rng(5)
    grid = Grid.regular(shape=(24, 25, 26), spacing_mm=(2.0, 2.0, 2.0))
    pair = {"reference": simulated(rng, grid=grid), "evaluated": simulated(rng, grid=grid, tilt=0.01)}
    fine = dose_mover_gram(**pair)
    coarse = dose_mover_gram(**pair, solved_voxels=50_000)
    assert fine.exact_floor
    assert not coarse.exact_floor
    assert max(coarse.merged) == 2
    w = Relabellings(*fine.sizes).as_labelled[0]
    for key in PARTS:
        whole, merged = (np.sqrt(w @ one.forms[key] @ w) for one in (fine, coarse))
        assert merged == pytest.approx(whole, rel=0.05), key


def test_four_probes_beside_merged_voxels_find_the_floor_of_all_voxels():
    """Each batch with an output of its own: one strong mode, which four probes alone know to 70 % only."""
    rng = np.random.default_rng(8)
    grid = Grid.regular(shape=(24, 25, 26), spacing_mm=(2.0, 2.0, 2.0))

    def run():
        dose = simulated(rng, n=10, grid=grid)
        output = 1 + 0.03 * rng.standard_normal(10)
        return DoseMap.from_batches(dose.batches_gy * output[:, None, None, None], grid)

    pair = {"reference": run(), "evaluated": run()}
    exact = dose_mover_gram(**pair).noise()
    merged = dose_mover_gram(**pair, solved_voxels=50_000)
    assert max(merged.merged) == 2
    for seed in range(4):
        found = dose_mover_floor(**pair, n_probes=4, seed=seed, gram=merged).parts
        for key in PARTS:
            assert found[key].root[0] == pytest.approx(exact[key].root[0], rel=0.06), key
            assert found[key].root[1] == pytest.approx(exact[key].root[1], rel=0.15), key
    alone = [dose_mover_floor(**pair, n_probes=4, seed=seed).floor_sd for seed in range(4)]
    assert max(alone) / min(alone) > 1.5


def test_one_batch_and_two_grids_are_refused():
    rng = np.random.default_rng(6)
    a = simulated(rng)
    with pytest.raises(InputError, match="at least two batches"):
        dose_mover_gram(reference=a, evaluated=replace(a, batches_gy=None))
    other = simulated(rng, grid=Grid.regular(shape=GRID.shape, spacing_mm=(4.0, 5.0, 7.0)))
    with pytest.raises(GridMismatchError, match="different grids cannot be relabelled"):
        dose_mover_gram(reference=a, evaluated=other)


def test_few_batches_give_closed_forms_instead_of_ranks():
    assert not Relabellings(3, 4).enough
    assert Relabellings(4, 4).enough
    rng = np.random.default_rng(7)
    found = dm.compare(simulated(rng, n=3), simulated(rng, n=3), metrics=["dmd_mm"]).metrics["dmd_mm"]
    assert found.p is not None
    assert "relabelling" not in found.settings["significance"]


def test_relabelled_projections_give_the_metrics_of_the_relabelled_maps():
    """A pair relabelled by hand, through the metrics themselves, against the floors of the projections."""
    rng = np.random.default_rng(8)
    a, b = simulated(rng), simulated(rng, tilt=0.02)
    keys = ("center_shift_mm", "axis_w2_mm", "axis_w1_mm", "mean_shift_mm", "bures_w2_mm")
    results = {key: replace(dm.compare(a, b, metrics=[key]).metrics[key]) for key in keys}
    noise = noise_at_hand(reference=a, evaluated=b)
    found = marginal_floors(noise, results, draws=None, seed=0)
    assert set(found) == set(keys)
    pool = np.concatenate([a.batches_gy, b.batches_gy])
    values = {"center_shift_mm": [], "axis_w2_mm": [], "bures_w2_mm": []}
    for _ in range(300):
        order = rng.permutation(12)
        pair = [DoseMap.from_batches(pool[order[part]], GRID) for part in (slice(6), slice(6, None))]
        maps = dict(zip(("reference", "evaluated"), pair, strict=True))
        values["center_shift_mm"].append(center_shift(**maps).length_mm)
        values["axis_w2_mm"].append(axis_w2(**maps).value)
        values["bures_w2_mm"].append(bures_w2(**maps).value)
    for key, drawn in values.items():
        share = np.mean(np.array(drawn) >= results[key].value)
        assert found[key].p == pytest.approx(share, abs=0.08), key


def test_projections_as_labelled_read_what_the_metrics_read_of_maps_of_unequal_mass_far_from_the_origin():
    rng = np.random.default_rng(10)
    grid = Grid.regular(shape=(7, 8, 9), spacing_mm=(4.0, 5.0, 6.0), origin_mm=(300.0, -200.0, 100.0))
    a, more = simulated(rng, grid=grid), simulated(rng, grid=grid, tilt=0.02)
    b = DoseMap.from_batches(1.3 * more.batches_gy, grid)
    metrics = {
        "center_shift_mm": center_shift(reference=a, evaluated=b).length_mm,
        "axis_w2_mm": axis_w2(reference=a, evaluated=b).value,
        "bures_w2_mm": bures_w2(reference=a, evaluated=b).value,
    }
    results = {key: dm.MetricResult(key=key, value=value, unit="mm") for key, value in metrics.items()}
    found = marginal_floors(noise_at_hand(reference=a, evaluated=b), results, draws=19, seed=0)
    for key, value in metrics.items():
        one = found[key]
        assert one.floor + one.z * one.floor_sd == pytest.approx(value, rel=1e-6), key


@pytest.mark.parametrize("noise", ["batches", "uncertainty"])
def test_every_metric_of_the_default_set_has_a_floor_or_says_why_not(noise):
    rng = np.random.default_rng(9)
    grid = Grid.regular(shape=(20, 20, 20), spacing_mm=(3.0, 3.0, 3.0))
    pair = [simulated(rng, grid=grid), simulated(rng, grid=grid, tilt=0.002)]
    if noise == "uncertainty":
        pair = [replace(one, batches_gy=None) for one in pair]
    found = dm.compare(*pair).metrics
    known = [key for key, one in found.items() if one.value is not None]
    assert {"dmd_moved_mm", "dmd_changed_percent", "sliced_w2_mm", "best_shift_mm"} <= set(known)
    for key in known:
        one = found[key]
        if one.floor is None:
            assert key in ("dmd_residual_max_percent", "dmd_residual_p99_percent")
            assert "--null" in one.settings["significance"]
        else:
            assert one.floor_sd is not None
            assert 0 < one.p <= 1
            assert one.settings["significance"]
