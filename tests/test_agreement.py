"""Distance to agreement, chi and normalised dose difference against closed forms."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dosemover.dose import DoseMap
from dosemover.errors import GridMismatchError, InputError
from dosemover.grid import Grid
from dosemover.metrics import chi_index, distance_to_agreement, normalized_dose_difference
from strategies import dose_maps, grids


def ramp(shape=(7, 8, 12), spacing=(2.0, 2.5, 3.0), slope=(1.0, 0.0, 0.0), base=40.0):
    """Dose base + slope . (x, y, z)."""
    grid = Grid.regular(shape=shape, spacing_mm=spacing)
    z, y, x = np.meshgrid(*grid.centers_mm, indexing="ij")
    return DoseMap(dose_gy=base + slope[0] * x + slope[1] * y + slope[2] * z, grid=grid)


def test_dta_of_a_ramp_is_dose_difference_over_slope(record_validation):
    one, two = ramp(slope=(0.3, 0.4, 1.2), base=40), ramp(slope=(0.3, 0.4, 1.2), base=41)
    got = distance_to_agreement(reference=one, evaluated=two)
    inner = got.distance_mm[1:-1, 2:-2, 2:-2]
    np.testing.assert_allclose(inner, 1 / 1.3, rtol=1e-9)
    record_validation(
        "distance to agreement on a plane of dose",
        "closed form: difference over slope",
        reached=float(np.abs(inner - 1 / 1.3).max()),
        tolerance=1e-9,
        unit="mm",
    )
    assert got.n_not_found == 2  # the corner below every evaluated dose


@pytest.mark.parametrize("shape", [(1, 1, 30), (1, 12, 30), (6, 12, 30)])
def test_dta_of_a_shift_is_the_shift_in_any_dimension(shape):
    one = ramp(shape, spacing=(1.5, 2.0, 2.5), slope=(1.0, 0, 0))
    two = ramp(shape, spacing=(1.5, 2.0, 2.5), slope=(1.0, 0, 0), base=40.8)
    got = distance_to_agreement(reference=one, evaluated=two).distance_mm
    np.testing.assert_allclose(got[..., 1:], 0.8, rtol=1e-9)


def test_dta_just_within_reach_is_found_between_the_layers():
    """9.5 mm down a ramp of 1 Gy/mm on voxels of 3 mm: farther than three layers, nearer than 10 mm."""
    one, two = (ramp((1, 1, 30), spacing=(3.0, 1.0, 1.0), base=base) for base in (40, 49.5))
    got = distance_to_agreement(reference=one, evaluated=two, reach_mm=10.0)
    np.testing.assert_allclose(got.distance_mm[0, 0, 4:], 9.5, rtol=1e-9)
    beyond = distance_to_agreement(reference=one, evaluated=two, reach_mm=9.4)
    assert beyond.n_not_found == 30


def test_dta_of_a_uniform_output_change_is_not_found_and_says_so():
    one = DoseMap.from_array(np.full((5, 5, 5), 50.0), spacing_mm=(2, 2, 2))
    got = distance_to_agreement(reference=one, evaluated=one.scaled(1.02), reach_mm=4)
    assert got.n_not_found == got.n_voxels == 125
    assert got.mean_mm == 4.0
    assert np.all(np.isinf(got.distance_mm))
    assert "125 of 125 voxels find no equal dose within 4 mm" in got.status


def test_dta_of_a_sphere_is_the_difference_of_radii():
    grid = Grid.regular(shape=(31, 31, 31), spacing_mm=(1, 1, 1), origin_mm=(-15, -15, -15))
    z, y, x = np.meshgrid(*grid.centers_mm, indexing="ij")
    r = np.sqrt(x**2 + y**2 + z**2)
    one = DoseMap(dose_gy=110 - 4 * r, grid=grid)
    two = DoseMap(dose_gy=110 - 4 * np.maximum(r - 0.7, 0), grid=grid)
    got = distance_to_agreement(reference=one, evaluated=two)
    shell = (r > 4) & (r < 12)
    np.testing.assert_allclose(got.distance_mm[shell], 0.7, atol=0.06)


def closest_on_tetrahedron(p, corners, values):
    """Independent oracle: nearest zero of a linear function on a tetrahedron, by SLSQP."""
    from scipy.optimize import minimize

    if values.min() > 0 or values.max() < 0:
        return np.inf
    result = minimize(
        lambda w: np.sum((w @ corners - p) ** 2),
        np.full(4, 0.25),
        bounds=[(0, 1)] * 4,
        constraints=[
            {"type": "eq", "fun": lambda w: w.sum() - 1},
            {"type": "eq", "fun": lambda w: w @ values},
        ],
        options={"ftol": 1e-14, "maxiter": 300},
    )
    return np.sqrt(result.fun) if result.success else np.inf


def test_dta_matches_a_constrained_solve_of_every_tetrahedron():
    from itertools import permutations, product

    rng = np.random.default_rng(2)
    grid = Grid(x_edges_mm=[0, 1, 3, 4.5], y_edges_mm=[0, 2, 3, 4], z_edges_mm=[0, 1, 2, 4])
    one = DoseMap(dose_gy=rng.random(grid.shape), grid=grid)
    two = DoseMap(dose_gy=rng.random(grid.shape), grid=grid)
    got = distance_to_agreement(reference=one, evaluated=two, dose_threshold_percent=0)
    centers = grid.centers_mm
    for index in [(0, 0, 0), (1, 1, 1), (2, 0, 1)]:
        p = np.array([centers[a][index[a]] for a in range(3)])
        best = np.inf
        for cell in product(range(2), repeat=3):
            for order in permutations(range(3)):
                at = [np.array(cell)]
                for axis in order:
                    at.append(at[-1] + np.eye(3, dtype=int)[axis])
                corners = np.array([[centers[a][v[a]] for a in range(3)] for v in at])
                values = np.array([two.dose_gy[tuple(v)] for v in at]) - one.dose_gy[index]
                best = min(best, closest_on_tetrahedron(p, corners, values))
        if np.isfinite(best):
            assert got.distance_mm[index] == pytest.approx(best, abs=1e-5)
        else:
            assert np.isinf(got.distance_mm[index])


@settings(max_examples=30, deadline=None)
@given(grid=grids(5), data=st.data())
def test_dta_of_a_map_with_itself_is_zero(grid, data):
    dose = data.draw(dose_maps(grid))
    got = distance_to_agreement(reference=dose, evaluated=dose)
    assert got.max_mm == 0
    assert got.n_not_found == 0


def test_chi_of_a_ramp_is_its_closed_form(record_validation):
    one, two = ramp(slope=(0.6, 0.0, 0.8)), ramp(slope=(0.6, 0.0, 0.8), base=42)
    got = chi_index(reference=one, evaluated=two, dose_criterion_percent=2, distance_criterion_mm=1.5)
    want = 2 / np.hypot(0.02 * one.max_gy, 1.5)
    np.testing.assert_allclose(got.chi, want)
    record_validation(
        "chi on a plane of dose",
        "closed form (Bakai 2003)",
        reached=float(np.abs(got.chi - want).max()),
        tolerance=1e-7,
    )
    assert got.passing_rate_percent == (100.0 if want <= 1 else 0.0)


def test_the_gradient_that_chi_allows_for_is_that_of_the_reference():
    """Flat reference, steep evaluated map: only the dose criterion counts; the other way the gradient too."""
    flat, steep = ramp(slope=(0.0, 0.0, 0.0)), ramp(slope=(1.0, 0.0, 0.0), base=41)
    d = steep.dose_gy - flat.dose_gy
    got = chi_index(reference=flat, evaluated=steep, normalization_gy=100.0)
    np.testing.assert_allclose(got.chi, d / 3)
    back = chi_index(reference=steep, evaluated=flat, normalization_gy=100.0)
    np.testing.assert_allclose(back.chi, -d / np.hypot(3, 3))


def test_chi_is_signed_and_passes_up_to_one():
    one = DoseMap.from_array(np.full((2, 2, 2), 100.0), spacing_mm=(1, 1, 1))
    low = chi_index(reference=one, evaluated=one.scaled(0.97))
    np.testing.assert_allclose(low.chi, -1)
    assert low.passing_rate_percent == 100
    assert chi_index(reference=one, evaluated=one.scaled(0.969)).passing_rate_percent == 0


def test_local_chi_uses_the_dose_of_the_voxel():
    one = DoseMap.from_array(np.full((1, 4), 50.0), spacing_mm=(1, 1))
    got = chi_index(reference=one, evaluated=one.scaled(1.02), normalization="local", normalization_gy=100.0)
    np.testing.assert_allclose(got.chi, 2 / 3)


def test_local_criteria_leave_out_voxels_without_reference_dose():
    one = DoseMap.from_array([0.0, 50.0, 40.0], spacing_mm=(1,))
    two = DoseMap.from_array([1.0, 50.0, 40.0], spacing_mm=(1,))
    settings = {"normalization": "local", "dose_threshold_percent": 0.0}
    assert chi_index(reference=one, evaluated=two, **settings).n_voxels == 2
    weighted = chi_index(reference=one, evaluated=two, mask=[[[1.0, 0.5, 1.0]]], **settings)
    assert (weighted.n_voxels, weighted.passing_rate_percent) == (2, 100.0)


def test_uneven_voxels_give_the_gradient_of_a_linear_dose():
    grid = Grid(x_edges_mm=[0, 1, 3, 4, 7], y_edges_mm=[0, 1], z_edges_mm=[0, 1])
    dose = 10 + 2 * grid.centers_mm[2][None, None, :]
    one = DoseMap(dose_gy=dose, grid=grid)
    two = DoseMap(dose_gy=dose + 1, grid=grid)
    got = chi_index(reference=one, evaluated=two, normalization_gy=100.0)
    np.testing.assert_allclose(got.chi, 1 / np.hypot(3, 6))


@pytest.mark.parametrize(
    ("acceptance", "allowed"), [("composite", 3.0), ("box", 4.0), ("gamma", np.sqrt(10.0))]
)
def test_ndd_of_a_ramp_follows_the_allowed_difference(acceptance, allowed):
    one, two = ramp(slope=(1.0, 0, 0)), ramp(slope=(1.0, 0, 0), base=42)
    got = normalized_dose_difference(
        reference=one,
        evaluated=two,
        dose_criterion_percent=1,
        distance_criterion_mm=3,
        normalization_gy=100.0,
        acceptance=acceptance,
    )
    assert got.mean == pytest.approx(2 / allowed)
    np.testing.assert_allclose(got.ndd_gy, 2 / allowed)


def test_ndd_with_gamma_acceptance_is_chi():
    rng = np.random.default_rng(0)
    one = DoseMap.from_array(rng.random((4, 5, 6)), spacing_mm=(1, 2, 3))
    two = DoseMap.from_array(rng.random((4, 5, 6)), spacing_mm=(1, 2, 3))
    chi = chi_index(reference=one, evaluated=two)
    ndd = normalized_dose_difference(reference=one, evaluated=two, acceptance="gamma")
    np.testing.assert_allclose(ndd.ndd_gy, chi.chi * 0.03 * one.max_gy)
    assert ndd.mean == pytest.approx(chi.mean)


def test_criteria_that_mean_nothing_are_refused():
    one = ramp()
    with pytest.raises(InputError, match="`reach_mm` must be positive"):
        distance_to_agreement(reference=one, evaluated=one, reach_mm=0)
    with pytest.raises(InputError, match="`dose_criterion_percent` must be positive"):
        chi_index(reference=one, evaluated=one, dose_criterion_percent=-1)
    with pytest.raises(InputError, match="`acceptance` must be"):
        normalized_dose_difference(reference=one, evaluated=one, acceptance="disc")
    with pytest.raises(GridMismatchError, match="cannot be paired"):
        chi_index(reference=one, evaluated=ramp((2, 2, 2)))
