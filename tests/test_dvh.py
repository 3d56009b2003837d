"""Dose-volume histograms: closed forms, properties, and a planning system's own table."""

import csv
import re
import warnings
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dosemover.dose import DoseMap, Structure
from dosemover.errors import AccuracyWarning, InputError
from dosemover.grid import Grid
from dosemover.metrics import Dvh, dose_volume_histogram, dvh_w1_gy


def uniform(low, high, n=2000, name="S", cc=10.0):
    """Doses spread evenly from low to high over a volume."""
    dose = low + (high - low) * (np.arange(n) + 0.5) / n
    return Dvh(name=name, dose_gy=dose, volume_mm3=np.full(n, 1000.0 * cc / n))


def test_an_even_spread_of_dose_has_the_quantiles_of_a_line():
    dvh = uniform(20, 70)
    assert dvh.volume_cc == pytest.approx(10)
    assert dvh.mean_gy == pytest.approx(45)
    for percent in (98, 95, 50, 2):
        assert dvh.dose_at_volume(percent) == pytest.approx(70 - 0.5 * percent, abs=0.03)
    assert (dvh.d98_gy, dvh.d2_gy) == (dvh.dose_at_volume(98), dvh.dose_at_volume(2))
    assert dvh.dose_at_volume_cc(1.0) == pytest.approx(65, abs=0.03)
    assert dvh.volume_at_dose(50) == pytest.approx(40, abs=0.1)
    assert dvh.volume_at_dose_cc(50) == pytest.approx(4, abs=0.01)
    assert dvh.median_gy == pytest.approx(45, abs=0.03)
    assert (dvh.dose_at_volume(0), dvh.dose_at_volume(100)) == (dvh.max_gy, dvh.min_gy)
    assert dvh.homogeneity_index == pytest.approx((69 - 21) / 45, abs=1e-3)


def test_geud_of_an_even_spread_is_its_integral(record_validation):
    dvh = uniform(0, 60, n=20000)
    for a in (1.0, 2.0, 8.0):
        assert dvh.geud_gy(a) == pytest.approx(60 / (a + 1) ** (1 / a), rel=1e-4)
        record_validation(
            "gEUD of an even spread of dose",
            "closed form: integral of the power",
            reached=abs(dvh.geud_gy(a) * (a + 1) ** (1 / a) / 60 - 1),
            tolerance=1e-4,
            unit="relative",
        )
    assert uniform(50, 50).geud_gy(-20) == pytest.approx(50)
    assert uniform(10, 70).geud_gy(0) == pytest.approx(
        np.exp((70 * np.log(70) - 10 * np.log(10)) / 60 - 1), rel=1e-5
    )
    assert uniform(1, 70).geud_gy(500) == pytest.approx(70 / 501 ** (1 / 500), rel=0.01)
    extremes = uniform(1, 70).geud_gy(1e5), uniform(1, 70).geud_gy(-1e5)  # no power overflows
    assert extremes == pytest.approx((70, 1), rel=0.02)


def test_cumulative_curve_falls_from_all_to_nothing():
    curve = uniform(20, 70).cumulative_percent([0, 20, 45, 70, 100])
    np.testing.assert_allclose(curve, [100, 100, 50, 0, 0], atol=0.06)


def test_a_volume_larger_than_the_structure_has_no_dose():
    assert np.isnan(uniform(1, 2, cc=0.5).dose_at_volume_cc(1.0))
    assert np.isnan(uniform(1, 2, cc=0.5).summary()["d2cc_gy"])


def test_summary_names_each_value_with_its_unit():
    dvh = uniform(20, 70)
    got = dvh.summary()
    assert got["d0p03cc_gy"] == dvh.dose_at_volume_cc(0.03)
    assert got["v30gy_percent"] == pytest.approx(80, abs=0.1)
    assert got["median_gy"] == got["d50_gy"] == dvh.median_gy
    assert got["geud_am10_gy"] == dvh.geud_gy(-10) < got["mean_gy"] < got["geud_a8_gy"]


def test_area_between_two_histograms_is_the_mean_shift_of_their_doses():
    assert dvh_w1_gy(reference=uniform(20, 40), evaluated=uniform(23, 43)) == pytest.approx(3)
    assert dvh_w1_gy(reference=uniform(20, 40), evaluated=uniform(10, 50)) == pytest.approx(5, rel=1e-3)


def test_area_between_two_histograms_matches_scipy(record_validation):
    from scipy.stats import wasserstein_distance

    rng = np.random.default_rng(0)
    one = Dvh(name="A", dose_gy=rng.random(50), volume_mm3=rng.random(50) + 0.1)
    two = Dvh(name="A", dose_gy=rng.random(70), volume_mm3=rng.random(70) + 0.1)
    want = wasserstein_distance(one.dose_gy, two.dose_gy, one.volume_mm3, two.volume_mm3)
    assert dvh_w1_gy(reference=one, evaluated=two) == pytest.approx(want, rel=1e-12)
    record_validation(
        "area between two dose-volume histograms",
        "scipy.stats.wasserstein_distance",
        reached=abs(dvh_w1_gy(reference=one, evaluated=two) - want),
        tolerance=1e-12,
        unit="Gy",
    )


@settings(max_examples=50)
@given(seed=st.integers(0, 2**31), n=st.integers(1, 30))
def test_doses_fall_as_volumes_grow(seed, n):
    rng = np.random.default_rng(seed)
    dvh = Dvh(name="A", dose_gy=60 * rng.random(n), volume_mm3=rng.random(n) + 0.01)
    doses = [dvh.dose_at_volume(p) for p in range(0, 101, 5)]
    assert all(a >= b for a, b in pairwise(doses))
    assert np.all(np.diff(dvh.cumulative_percent(np.linspace(0, 70, 30))) <= 0)
    geud = [dvh.geud_gy(a) for a in (-5.0, 0.5, 1.0, 3.0, 10.0)]
    assert all(a <= b * (1 + 1e-9) for a, b in pairwise(geud))
    assert dvh.min_gy * (1 - 1e-9) <= geud[0]
    assert geud[-1] <= dvh.max_gy * (1 + 1e-9)
    assert geud[2] == pytest.approx(dvh.mean_gy)


def ramp_in_ball(spacing, radius=6.0, center=(0.3, -0.2, 0.1)):
    """A dose 30 + 2 x Gy and a ball with exact filled fractions (by fine counting)."""
    n = int(np.ceil(10 / spacing)) * 2 + 1
    half = spacing * (n - 1) / 2
    grid = Grid.regular(shape=(n,) * 3, spacing_mm=(spacing,) * 3, origin_mm=(-half,) * 3)
    x = np.broadcast_to(grid.centers_mm[2], grid.shape)
    m = 10
    fine = Grid.regular(
        shape=(n * m,) * 3,
        spacing_mm=(spacing / m,) * 3,
        origin_mm=(-half - spacing / 2 + spacing / m / 2,) * 3,
    )
    axes = [(c - o) ** 2 for c, o in zip(fine.centers_mm, center[::-1], strict=True)]
    inside = axes[0][:, None, None] + axes[1][:, None] + axes[2] <= radius**2
    fraction = inside.reshape(n, m, n, m, n, m).mean(axis=(1, 3, 5))
    return DoseMap(dose_gy=60 + 2 * x, grid=grid), Structure(name="ball", fraction=fraction, grid=grid)


def test_a_ball_on_coarse_voxels_has_its_true_volume_mean_and_extremes():
    dose, ball = ramp_in_ball(2.5)
    dvh = dose_volume_histogram(dose=dose, structure=ball)
    assert dvh.volume_cc == pytest.approx(4 / 3 * np.pi * 0.6**3, rel=0.01)
    assert dvh.mean_gy == pytest.approx(60.6, abs=0.05)
    assert dvh.max_gy == pytest.approx(72.6, abs=1.0)
    # The hottest 5 % of a ball: a cap of height h with h^2 (3 - h) = 0.2 radii.
    h = min(np.roots([-1, 3, 0, -0.2]).real[np.roots([-1, 3, 0, -0.2]).real > 0])
    assert dvh.dose_at_volume(5) == pytest.approx(60.6 + 12 * (1 - h), abs=0.4)


def test_the_border_inside_a_voxel_follows_the_filled_fraction():
    grid = Grid.regular(shape=(3, 3, 6), spacing_mm=(4, 4, 4))
    x = np.broadcast_to(grid.centers_mm[2], grid.shape)
    fraction = np.broadcast_to([0.0, 0.25, 1, 1, 0, 0], grid.shape)  # from x = 5 to 14 mm
    dvh = dose_volume_histogram(
        dose=DoseMap(dose_gy=x + 10, grid=grid),
        structure=Structure(name="slab", fraction=fraction, grid=grid),
        supersampling=8,
    )
    assert dvh.mean_gy == pytest.approx(10 + 9.5, abs=1e-9)
    assert dvh.min_gy == pytest.approx(15.25)


def test_the_border_inside_a_flat_voxel_lies_as_it_does_in_space():
    """The face x = -z/4 cuts voxels of 2 mm x 8 mm along their diagonal, whatever their shape.

    Between it and x = 13 mm, for z from -12 to 12 mm, the mean of x is (13^2 - 3) / (2 x 13) mm, 3 mm2
    being the mean of (z/4)^2.
    """
    grid = Grid.regular(shape=(5, 1, 15), spacing_mm=(2.0, 3.0, 8.0), origin_mm=(-14.0, 0.0, -16.0))
    z, _, x = np.meshgrid(*grid.centers_mm, indexing="ij")
    fraction = np.where((x > -z / 4) & (x < 13), 1.0, 0.0)
    fraction[np.isclose(x, -z / 4)] = 0.5
    inner = grid.crop((slice(1, 4), slice(0, 1), slice(0, 15)))  # the outer layers have one neighbor alone
    dvh = dose_volume_histogram(
        dose=DoseMap(dose_gy=200 + 10 * x[1:4], grid=inner),
        structure=Structure(name="wedge", fraction=fraction, grid=grid),
        supersampling=16,
    )
    assert dvh.volume_cc == pytest.approx(13 * 24 * 3 / 1000)
    assert dvh.mean_gy == pytest.approx(200 + 10 * (13**2 - 3) / (2 * 13), abs=0.03)


def test_a_dose_is_reached_by_the_volume_that_gets_just_that_dose():
    dvh = Dvh(name="A", dose_gy=[70.0, 50.0, 60.0], volume_mm3=[1.0, 2.0, 1.0])
    np.testing.assert_allclose(dvh.cumulative_percent([50.0, 60.0, 70.0, 70.1]), [100, 50, 25, 0])
    for dose, percent in ((50.0, 100), (60.0, 50), (70.0, 25)):
        assert dvh.volume_at_dose(dose) == pytest.approx(percent)


def test_structures_on_another_grid_and_beyond_the_dose_grid_are_handled():
    dose_grid = Grid.regular(shape=(1, 4, 10), spacing_mm=(2, 2, 2))
    x = np.broadcast_to(dose_grid.centers_mm[2], dose_grid.shape)
    grid = Grid.regular(shape=(1, 4, 20), spacing_mm=(1, 2, 2), origin_mm=(9.5, 0, 0))
    dvh = dose_volume_histogram(
        dose=DoseMap(dose_gy=x, grid=dose_grid),
        structure=Structure(name="S", fraction=np.ones(grid.shape), grid=grid),
    )
    assert dvh.volume_cc == pytest.approx(10 * 8 * 2 / 1000)
    assert dvh.outside_cc == pytest.approx(10 * 8 * 2 / 1000)
    assert dvh.min_gy == pytest.approx(9.5)
    coarse = Grid.regular(shape=(1, 1, 1), spacing_mm=(16, 8, 2), origin_mm=(9, 3, 0))
    mean = dose_volume_histogram(
        dose=DoseMap(dose_gy=x, grid=dose_grid),
        structure=Structure(name="S", fraction=np.ones((1, 1, 1)), grid=coarse),
    ).mean_gy
    assert mean == pytest.approx(9)


def test_a_filled_voxel_keeps_its_own_dose():
    rng = np.random.default_rng(0)
    dose = DoseMap.from_array(rng.random((4, 5, 6)), spacing_mm=(2, 2, 2))
    body = Structure(name="all", fraction=np.ones(dose.grid.shape), grid=dose.grid)
    assert dose_volume_histogram(dose=dose, structure=body).mean_gy == pytest.approx(dose.dose_gy.mean())


def test_what_has_no_histogram_is_refused():
    grid = Grid.regular(shape=(2, 2, 2), spacing_mm=(1, 1, 1))
    dose = DoseMap(dose_gy=np.ones((2, 2, 2)), grid=grid)
    far = Grid.regular(shape=(2, 2, 2), spacing_mm=(1, 1, 1), origin_mm=(50, 0, 0))
    for fraction, where in ((np.zeros((2, 2, 2)), grid), (np.ones((2, 2, 2)), far)):
        with pytest.raises(InputError, match="'PTV' has no volume inside the dose grid"):
            dose_volume_histogram(dose=dose, structure=Structure(name="PTV", fraction=fraction, grid=where))
    whole = Structure(name="PTV", fraction=np.ones((2, 2, 2)), grid=grid)
    with pytest.raises(InputError, match="`supersampling` must be at least 1"):
        dose_volume_histogram(dose=dose, structure=whole, supersampling=0)
    with pytest.raises(InputError, match="needs one positive volume for each dose"):
        Dvh(name="PTV", dose_gy=[1.0], volume_mm3=[0.0])
    with pytest.raises(InputError, match="between 0 and 100"):
        uniform(1, 2).dose_at_volume(101)
    with pytest.raises(InputError, match="`volume_cc` must not be negative"):
        uniform(1, 2).dose_at_volume_cc(-1)


def planning_system_means(path):
    """Volume [cm3] and mean dose [Gy] of each structure in a table of cumulative curves."""
    with open(path, encoding="utf-8") as file:
        rows = list(csv.reader(file))
    means = {}
    for column in range(0, len(rows[0]), 2):
        name = rows[0][column].split("_DvhArray")[0]
        volume = float(re.search(r"of ([\d.]+) cc", rows[0][column + 1])[1])
        curve = np.array([[float(row[column]), float(row[column + 1])] for row in rows[1:] if row[column]])
        means[key(name)] = volume, np.trapezoid(curve[:, 1], curve[:, 0]) / 100
    return means


def key(name):
    return re.sub(r"[^a-z0-9]", "", name.lower())


def test_mean_doses_are_those_of_the_planning_system(data_path, record_validation):
    from dosemover.io import read_dose, read_structures

    dose = read_dose(data_path("slicerrt/EclipseEnt_Dose.nrrd"))
    eclipse = planning_system_means(data_path("slicerrt/EclipseEnt_DvhTable_Eclipse.csv"))
    cerr = planning_system_means(data_path("slicerrt/EclipseEnt_DvhTable_CERR.csv"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AccuracyWarning)
        structures = read_structures(data_path("slicerrt/EclipseEnt_RTSTRUCT.dcm"), grid=dose.grid)
    compared = 0
    for structure in structures:
        name = key(structure.name)
        if name not in eclipse or eclipse[name][0] < 1:
            continue
        dvh = dose_volume_histogram(dose=dose, structure=structure)
        tolerance_gy = {"brstem": 0.15, "optoptic": 0.25}.get(name, 0.06)
        assert dvh.mean_gy == pytest.approx(eclipse[name][1], abs=tolerance_gy), name
        record_validation(
            "mean dose of each structure above 1 cm³",
            "Eclipse's own DVH table (EclipseEnt)",
            reached=abs(dvh.mean_gy - eclipse[name][1]),
            tolerance=tolerance_gy,
            unit="Gy",
        )
        record_validation(
            "volume of each structure above 1 cm³",
            "CERR's DVH table (EclipseEnt)",
            reached=abs(dvh.volume_cc / cerr[name][0] - 1),
            tolerance=0.005 if cerr[name][0] > 3 else 0.015,
            unit="relative",
        )
        tolerance = 0.005 if cerr[name][0] > 3 else 0.015
        assert dvh.volume_cc == pytest.approx(cerr[name][0], rel=tolerance), name
        compared += 1
    assert compared >= 11
