"""Means, covariances and the Gaussian bound on W_2."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dosemover.dose import DoseMap
from dosemover.errors import InputError
from dosemover.grid import Grid
from dosemover.moments import bures_squared, bures_w2, gaussian_moments
from strategies import dose_maps


def box(low, high, shape=(24, 24, 24)):
    dose = np.zeros(shape)
    dose[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = 1.0
    return DoseMap.from_array(dose, spacing_mm=(2.0, 2.0, 2.0))


def test_a_uniform_box_has_variance_of_its_side_squared_over_twelve():
    dose = box((4, 6, 8), (10, 16, 20))
    found = gaussian_moments(dose.dose_gy, dose.grid)
    np.testing.assert_allclose(found.covariance_mm2, np.diag([24.0**2, 20.0**2, 12.0**2]) / 12, atol=1e-9)
    np.testing.assert_allclose(found.mean_mm, [27.0, 21.0, 13.0])
    assert found.mass == pytest.approx(24 * 20 * 12)


def test_moments_do_not_depend_on_how_finely_voxels_are_cut():
    rng = np.random.default_rng(0)
    coarse = rng.random((3, 4, 5))
    grid = Grid(x_edges_mm=[0, 1, 3, 4, 7, 8], y_edges_mm=[0, 2, 3, 6, 7], z_edges_mm=[0, 4, 5, 9])
    fine_edges = {}
    for name in ("x_edges_mm", "y_edges_mm", "z_edges_mm"):
        edges = getattr(grid, name)
        fine_edges[name] = np.sort(np.concatenate([edges, (edges[1:] + edges[:-1]) / 2]))
    fine = coarse.repeat(2, 0).repeat(2, 1).repeat(2, 2)
    one, two = gaussian_moments(coarse, grid), gaussian_moments(fine, Grid(**fine_edges))
    np.testing.assert_allclose(one.covariance_mm2, two.covariance_mm2)
    np.testing.assert_allclose(one.mean_mm, two.mean_mm)


def test_a_rigid_shift_reads_as_itself():
    found = bures_w2(reference=box((4, 4, 4), (12, 12, 12)), evaluated=box((4, 7, 8), (12, 15, 16)))
    assert found.value == pytest.approx(10.0)
    assert found.parts["mean_shift_mm"] == pytest.approx(10.0)
    np.testing.assert_allclose(found.settings["shift_mm"], [8.0, 6.0, 0.0], atol=1e-9)


def test_a_stretched_box_reads_its_exact_w2(record_validation):
    one, two = box((8, 8, 8), (16, 16, 16)), box((8, 8, 4), (16, 16, 20))
    # uniform [-8, 8] to [-16, 16] along x under T = 2 x: W_2^2 = E[x^2] = 8^2 / 3
    assert bures_w2(reference=one, evaluated=two).value == pytest.approx(8 / np.sqrt(3))
    record_validation(
        "Gaussian (Bures) distance of a stretched box",
        "closed form, exact for affine maps",
        reached=abs(bures_w2(reference=one, evaluated=two).value * np.sqrt(3) / 8 - 1),
        tolerance=1e-6,
        unit="relative",
    )


def test_bures_distance_of_commuting_covariances():
    assert bures_squared(np.diag([4.0, 9.0]), np.diag([1.0, 25.0])) == pytest.approx(1 + 4)


@given(st.data())
def test_symmetric_and_zero_for_equal_maps(data):
    one = data.draw(dose_maps())
    two = data.draw(dose_maps(grid=one.grid))
    forth = bures_w2(reference=one, evaluated=two).value
    assert forth == pytest.approx(bures_w2(reference=two, evaluated=one).value, abs=1e-6)
    assert bures_w2(reference=one, evaluated=one).value == pytest.approx(0.0, abs=1e-5)


def test_a_mask_without_dose_is_refused():
    dose = box((4, 4, 4), (12, 12, 12))
    mask = np.zeros(dose.grid.shape, dtype=bool)
    with pytest.raises(InputError, match="no dose inside the mask"):
        bures_w2(reference=dose, evaluated=dose, mask=mask)
