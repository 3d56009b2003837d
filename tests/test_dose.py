"""Dose maps: validation, scaling and moving between grids."""

from dataclasses import replace

import numpy as np
import pytest

from dosemover.dose import DoseMap, Structure
from dosemover.errors import GridMismatchError, InputError, UnitError
from dosemover.grid import Grid


def a_map(**fields):
    dose = np.arange(24, dtype=float).reshape(2, 3, 4)
    return DoseMap.from_array(dose, spacing_mm=(2.0, 2.0, 2.0), **fields)


def test_integral_is_dose_times_volume():
    assert a_map().integral_gy_mm3 == pytest.approx(np.arange(24).sum() * 8)


def test_arrays_are_read_only():
    with pytest.raises(ValueError, match="read-only"):
        a_map().dose_gy[0, 0, 0] = 1


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1.0])
def test_values_that_are_no_dose_are_refused(bad):
    dose = np.ones((2, 2, 2))
    dose[1, 0, 1] = bad
    with pytest.raises(InputError, match=r"at index \(1, 0, 1\)"):
        DoseMap.from_array(dose, spacing_mm=(1, 1, 1))


def test_scaling_takes_the_uncertainty_along():
    scaled = a_map(uncertainty_gy=np.ones((2, 3, 4))).scaled(2.0)
    assert scaled.max_gy == 46
    assert scaled.uncertainty_gy.max() == 2


def test_batches_give_the_uncertainty_of_their_mean():
    rng = np.random.default_rng(1)
    batches = rng.random((5, 2, 3, 4))
    grid = Grid.regular(shape=(2, 3, 4), spacing_mm=(1, 1, 1))
    dose = DoseMap.from_batches(batches, grid)
    np.testing.assert_allclose(dose.uncertainty_gy, batches.std(0, ddof=1) / np.sqrt(5))


def test_wrong_batch_shape_is_refused():
    with pytest.raises(GridMismatchError, match="batches_gy"):
        a_map(batches_gy=np.ones((1, 2, 3, 4)))


@pytest.mark.parametrize("unit", ["cGy", "cGy/history"])
def test_centigray_are_not_taken_for_gray(unit):
    told = a_map(unit=unit)
    with pytest.raises(UnitError, match=f"'{unit}', not in Gy. Its numbers are 100 times as large"):
        told.require_gray()
    gray = replace(told.scaled(0.01), unit="Gy").require_gray()
    assert gray.max_gy == pytest.approx(told.max_gy / 100)


def test_relative_dose_is_refused_by_require_gray():
    with pytest.raises(UnitError, match="'relative', not in Gy"):
        a_map(unit="relative").require_gray()


def test_structure_volume_counts_partial_voxels():
    grid = Grid.regular(shape=(1, 1, 2), spacing_mm=(10, 10, 10))
    assert Structure(name="PTV", fraction=[[[1.0, 0.5]]], grid=grid).volume_cc == pytest.approx(1.5)


def test_structure_above_one_is_refused():
    grid = Grid.regular(shape=(1, 1, 2), spacing_mm=(10, 10, 10))
    with pytest.raises(InputError, match="'PTV' must lie between 0 and 1"):
        Structure(name="PTV", fraction=[[[1.0, 1.5]]], grid=grid)


def test_interpolated_map_keeps_unit_and_propagates_uncertainty():
    dose = a_map(uncertainty_gy=np.full((2, 3, 4), 0.1))
    grid = Grid.regular(shape=(2, 3, 3), spacing_mm=(2, 2, 2), origin_mm=(1, 0, 0))
    moved = dose.interpolated_to(grid)
    assert moved.dose_gy[0, 0, 0] == pytest.approx(0.5)
    np.testing.assert_allclose(moved.uncertainty_gy, 0.1 / np.sqrt(2))
