"""Numbers of a comparison that can be worked out by hand: values, what they are scaled to, floors."""

import numpy as np
import pytest

import dosemover as dm
from dosemover.comparison.closed_floors import closed_floors
from dosemover.comparison.context import ComparisonContext
from dosemover.comparison.floors import _with_doubt
from dosemover.comparison.noise_at_hand import NoiseAtHand
from dosemover.comparison.regions import _weights
from dosemover.comparison.result import MetricResult
from dosemover.comparison.settings import CompareSettings
from dosemover.dose import DoseMap, Structure
from dosemover.grid import Grid
from dosemover.noise import NoiseCorrelation, NoiseLevel, NoiseModel


def cube(dose_gy, **fields):
    return DoseMap.from_array(dose_gy, spacing_mm=(2.0, 2.0, 2.0), **fields)


def line(dose_gy):
    return DoseMap.from_array(dose_gy, spacing_mm=(1.0,))


def test_percentages_refer_to_the_prescription_in_every_metric():
    """1 Gy more than 50 Gy: 2 % of the maximum, but 4 % of a prescription of 25 Gy."""
    names = ["gamma", "dose_difference", "chi", "differences", "isodose"]
    flat = np.full((4, 5, 6), 50.0)
    for prescription, share, passes in ((None, 2.0, 100.0), (25.0, 4.0, 0.0)):
        found = dm.compare(cube(flat), cube(flat + 1), metrics=names, prescription_gy=prescription).metrics
        assert found["gamma_3_3_global_mean"].value == pytest.approx(share / 3)
        assert found["gamma_3_3_global_passing_rate_percent"].value == passes
        assert found["dose_difference_passing_3_percent"].value == passes
        assert found["chi_passing_rate_percent"].value == passes
        assert found["ndd_mean"].value == pytest.approx(share / 3)
        assert found["relative_mae_percent"].value == pytest.approx(share)
        assert found["isodose_dice_50"].settings["level_gy"] == pytest.approx(0.5 * (prescription or 50.0))
    two = dm.compare(
        cube(flat),
        cube(flat + 1),
        metrics=["gamma_3_3_global_two_sided_passing_rate_percent"],
        prescription_gy=25.0,
    )
    assert two.metrics["gamma_3_3_global_two_sided_passing_rate_percent"].value == 0.0


def test_a_criterion_is_percent_first_and_millimeters_second():
    """4 Gy more on a ramp of 1 Gy/mm: chi = 4 / hypot(2 % of 50 Gy, 5 mm x 1 Gy/mm) = 0.78.

    With 5 % and 2 mm it would be 4 / hypot(2.5, 2) = 1.25. Gamma is the same where the equal dose, 3.85 mm
    down the ramp, lies in the map: the point at 4 mm is the first that passes, 4 fail at either end.
    """
    ramp = line(20.0 + np.arange(41.0))
    names = ["chi_passing_rate_percent", "gamma_2_5_global_two_sided_passing_rate_percent"]
    names += ["gamma_2_5_global_passing_rate_percent"]
    settings = {"gamma": ((2.0, 5.0),), "prescription_gy": 50.0}
    found = dm.compare(ramp, line(ramp.dose_gy.ravel() + 4.0), metrics=names, **settings).metrics
    assert found["chi_passing_rate_percent"].value == 100.0
    assert found["gamma_2_5_global_passing_rate_percent"].value == pytest.approx(100 * 37 / 41)
    assert found["gamma_2_5_global_two_sided_passing_rate_percent"].value == pytest.approx(100 * 33 / 41)


def test_percentiles_of_the_difference_stand_under_their_names():
    flat = np.full(101, 50.0)
    found = dm.compare(line(flat), line(flat + 0.01 * np.arange(101)), metrics=["differences"]).metrics
    assert found["p95_difference_gy"].value == pytest.approx(0.95)
    assert found["p99_difference_gy"].value == pytest.approx(0.99)
    assert found["max_difference_gy"].value == pytest.approx(1.0)
    assert found["mean_difference_gy"].value == found["mae_gy"].value == pytest.approx(0.5)


def test_distances_of_an_isodose_stand_under_their_names():
    """A sphere moved by 1 mm: the mean of |cos| is 0.5, and exceeds 0.95 on 5 % of the surface."""
    half = 2.5 * 10
    grid = Grid.regular(shape=(21,) * 3, spacing_mm=(2.5,) * 3, origin_mm=(-half,) * 3)
    z, y, x = np.meshgrid(*grid.centers_mm, indexing="ij")
    one, two = (
        DoseMap(dose_gy=np.maximum(60 - 2 * np.sqrt((x - dx) ** 2 + y**2 + z**2), 0), grid=grid)
        for dx in (0.0, 1.0)
    )
    names = ["isodose_hd95_50_mm", "isodose_surface_50_mm"]
    found = dm.compare(one, two, metrics=names, prescription_gy=60.0).metrics
    assert found["isodose_hd95_50_mm"].value == pytest.approx(0.95, abs=0.03)
    assert found["isodose_surface_50_mm"].value == pytest.approx(0.5, abs=0.03)


def test_the_worst_structure_gives_the_distance_of_histograms():
    dose = np.full((4, 4, 4), 50.0)
    changed = dose.copy()
    changed[:2] += 1.0
    changed[2:] += 3.0
    low, high = np.zeros((2, 4, 4, 4))
    low[:2], high[2:] = 1.0, 1.0
    one = cube(dose)
    found = dm.compare(
        one,
        cube(changed),
        metrics=["dvh"],
        structures=[
            Structure(name="upper", fraction=high, grid=one.grid),
            Structure(name="lower", fraction=low, grid=one.grid),
        ],
    ).metrics["dvh_w1_gy"]
    assert found.value == pytest.approx(3.0)
    assert found.settings["largest_in"] == "upper"
    assert found.settings["by_structure"] == {"upper": pytest.approx(3.0), "lower": pytest.approx(1.0)}


def test_the_prescription_is_matched_where_it_is_delivered():
    """Half the dose from 95 % of 60 Gy on, the whole dose below: 57 Gy counts, 56 Gy does not."""
    reference = np.array([30.0, 56.0, 57.0, 63.0])
    evaluated = np.array([30.0, 56.0, 28.0, 32.0])
    found = dm.compare(
        line(reference),
        line(evaluated),
        metrics=["mass"],
        scale="match-prescription",
        prescription_gy=60.0,
    )
    assert found.settings["scale_factor"] == pytest.approx((57 + 63) / (28 + 32))


def test_integrals_are_matched_whatever_the_voxels():
    """The same dose on voxels of half the width: 8 times the sum over voxels, the same integral."""
    coarse = cube(np.full((4, 4, 4), 5.0))
    fine = DoseMap.from_array(
        np.full((8, 8, 8), 10.0), spacing_mm=(1.0, 1.0, 1.0), origin_mm=(-0.5, -0.5, -0.5)
    )
    found = dm.compare(coarse, fine, metrics=["mass"], scale="match-integral")
    assert found.settings["scale_factor"] == pytest.approx(0.5)


def test_the_dose_outside_the_other_grid_is_told_of_the_map_that_has_it():
    whole = cube(np.full((10, 4, 4), 5.0))
    part = cube(np.full((6, 4, 4), 5.0))
    for pair, side in (((whole, part), "reference"), ((part, whole), "evaluated")):
        (told,) = [w for w in dm.compare(*pair, metrics=["mass"]).warnings if "outside" in w]
        assert told.startswith(f"40 % of the {side} map's integral dose lies outside")


def test_the_share_of_low_sampling_is_that_of_its_terms():
    """One voxel of 64 differs by 3 Gy and is known to 30 %; the others by 1 Gy, known to 1 %."""
    dose = np.full((4, 4, 4), 10.0)
    change, sigma = np.full(dose.shape, 1.0), np.full(dose.shape, 0.1)
    change[1, 2, 3], sigma[1, 2, 3] = 3.0, 3.0
    found = dm.compare(
        cube(dose, uncertainty_gy=sigma),
        cube(dose + change),
        metrics=["differences", "gamma"],
        gamma=((20.0, 1.0),),
    )
    assert np.argwhere(found.maps["low_sampling_mask"].values).tolist() == [[1, 2, 3]]
    share = {key: one.settings.get("low_sampling_share_percent") for key, one in found.metrics.items()}
    assert share["mae_gy"] == share["relative_mae_percent"] == pytest.approx(100 * 3 / (3 + 63))
    assert share["mse_gy2"] == share["rmse_gy"] == pytest.approx(100 * 9 / (9 + 63))
    # gamma is 0.5 in 63 voxels; at the one with 3 Gy an equal dose of 11 Gy lies 2 mm away, and 0.5 there
    gamma = found.maps["gamma_20_1_global"].values
    assert share["gamma_20_1_global_mean"] == pytest.approx(100 * gamma[1, 2, 3] / gamma.sum(), rel=1e-5)
    assert share["gamma_20_1_global_passing_rate_percent"] == pytest.approx(100.0)  # none other fails


def test_what_each_voxel_adds_to_a_distance_sums_to_the_distance():
    """Sums over voxels of the terms that shares are told of, against the solvers' own values."""
    z, y, x = np.indices((12, 14, 16)) * 3.0
    one, two = (
        DoseMap.from_array(
            scale * np.exp(-((x - 24 - dx) ** 2 + (y - 21) ** 2 + (z - 18) ** 2) / 120) + 0.05,
            spacing_mm=(3.0, 3.0, 3.0),
        )
        for scale, dx in ((2.0, 0.0), (2.1, 1.0))
    )
    found = dm.compare(one, two, metrics=["dmd", "kr"], reach_mm=8.0)
    context = ComparisonContext(
        reference=one,
        evaluated=two,
        settings=CompareSettings(reach_mm=8.0),
        maps=dict(found.maps),
    )
    terms = {key: float(np.sum(one)) for key, one in _weights(context, dict(found.metrics))}
    kr = {key: found.metrics[key].value for key in ("kr_mm", "kr_moved_mm")}
    assert terms["kr_mm"] / terms["kr_moved_mm"] == pytest.approx(kr["kr_mm"] / kr["kr_moved_mm"], rel=0.05)
    mean = 27.0 * float(np.sum((one.dose_gy + two.dose_gy) / 2))  # voxels of 27 mm3
    for key in ("dmd_mm", "dmd_moved_mm", "dmd_changed_percent"):
        assert np.sqrt(terms[key] / mean) == pytest.approx(found.metrics[key].value, rel=0.02)
    whole = 27.0 * float(np.sum(one.dose_gy))
    for key in ("kr_gained_percent", "kr_lost_percent"):
        assert 100 * terms[key] / whole == pytest.approx(found.metrics[key].value, abs=0.05)


def test_voxels_count_in_distances_by_their_volume():
    """1 % more dose everywhere; half of the voxels are twice as wide, and known badly."""
    grid = Grid(
        x_edges_mm=np.concatenate([np.arange(0.0, 21.0, 2.0), np.arange(24.0, 61.0, 4.0)]),
        y_edges_mm=np.arange(0.0, 21.0, 4.0),
        z_edges_mm=np.arange(0.0, 21.0, 4.0),
    )
    dose = np.full(grid.shape, 10.0)
    sigma = np.full(grid.shape, 0.01)
    sigma[..., 10:] = 3.0
    found = dm.compare(
        DoseMap(dose_gy=dose, grid=grid, uncertainty_gy=sigma),
        DoseMap(dose_gy=1.01 * dose, grid=grid, uncertainty_gy=sigma),
        metrics=["dmd", "kr", "differences"],
    )
    share = {key: one.settings.get("low_sampling_share_percent") for key, one in found.metrics.items()}
    assert share["mae_gy"] == pytest.approx(50.0)  # 10 of 20 voxels
    for key in ("dmd_mm", "dmd_changed_percent", "kr_mm", "kr_gained_percent"):
        assert share[key] == pytest.approx(100 * 2 / 3, rel=0.02), key  # two thirds of the volume


def test_a_floor_of_an_estimated_level_is_as_doubtful_as_the_level():
    """Relative standard deviations of factors add in quadrature (GUM): 5 % of its own, 25 % of the level."""
    own = MetricResult(key="dmd_mm", value=2.0, unit="mm", floor=1.0, floor_sd=0.05, z=20.0, p=1e-9)
    found = _with_doubt(own)
    assert found.floor == pytest.approx(1.0, rel=0.05)
    assert found.floor_sd / found.floor == pytest.approx(np.hypot(0.05, 0.25), rel=0.05)
    assert 1e-5 < found.p < 1e-2  # about 4 deviations, not 20


def judged_by_estimated_level(**values):
    """Closed floors of independent noise of 0.1 Gy whose level was estimated, in 40 x 40 x 40 voxels."""
    dose = cube(np.full((40, 40, 40), 10.0), uncertainty_gy=np.full((40, 40, 40), 0.1))
    level = NoiseLevel(
        per_root_dose=0.1 / np.sqrt(10), high_dose_gy=10.0, whiteness=-0.67, status="estimated"
    )
    noise = NoiseAtHand(reference=dose, evaluated=dose, levels=(level, level))
    noise.__dict__["model"] = NoiseModel(correlation=NoiseCorrelation.independent())
    results = {key: MetricResult(key=key, value=value) for key, value in values.items()}
    return closed_floors(noise, results, draws=None, seed=0)


def test_squares_of_an_estimated_level_have_twice_its_doubt():
    """Standard uncertainty of the level 25 %, so that of its square 50 %."""
    found = judged_by_estimated_level(mse_gy2=0.02, rmse_gy=0.1)
    assert found["mse_gy2"].floor == pytest.approx(0.02)
    assert found["mse_gy2"].floor_sd == pytest.approx(0.01, rel=0.01)
    assert found["rmse_gy"].floor_sd / found["rmse_gy"].floor == pytest.approx(0.25, abs=0.02)


def test_sums_over_an_estimated_level_follow_students_t_of_8_degrees():
    """A variance known to 50 % is that of nu = 2 / 0.5^2 = 8 degrees of freedom: t(0.975, 8) = 2.306."""
    deviation = 0.1 * np.sqrt(2.0) / np.sqrt(40.0**3)
    found = judged_by_estimated_level(
        mean_difference_gy=2.306 * deviation, mass_ratio=1 - 2.306 * deviation / 10
    )
    for one in found.values():
        assert one.p == pytest.approx(0.05, abs=1e-3)
    assert found["mass_ratio"].floor_sd == pytest.approx(deviation / 10)
