"""Rigid shifts: known translations come back, far below the voxel size."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dosemover.dose import DoseMap
from dosemover.errors import GridMismatchError, InputError
from dosemover.grid import Grid
from dosemover.metrics import best_shift, center_shift


def field(shift=(0.0, 0.0, 0.0), shape=(30, 32, 36), spacing=2.5, width=12.0, noise=0.0, seed=0):
    """A smooth field with flat top and bath, moved by (x, y, z) mm."""
    grid = Grid.regular(shape=shape, spacing_mm=(spacing,) * 3)
    z, y, x = np.meshgrid(*grid.centers_mm, indexing="ij")
    cz, cy, cx = ((low + high) / 2 for low, high in grid.box_mm)
    u, v, w = x - cx - shift[0], y - cy - shift[1], z - cz - shift[2]
    edge = [
        1 / (1 + np.exp((np.abs(d) - s) / 3)) for d, s in ((u, width), (v, 0.8 * width), (w, 0.9 * width))
    ]
    dose = 60 * edge[0] * edge[1] * edge[2] * (1 + 0.1 * np.sin(u / 8)) + 0.5
    dose = dose + noise * np.random.default_rng(seed).standard_normal(grid.shape)
    return DoseMap(dose_gy=np.maximum(dose, 0), grid=grid)


@pytest.mark.parametrize("shift", [(0.3, 0, 0), (-1.1, 0.7, 2.2), (6.0, -4.0, 3.3), (30.0, 0, 0)])
def test_best_shift_returns_the_translation_within_a_fiftieth_of_a_millimetre(shift, record_validation):
    shape = (30, 32, 60)
    got = best_shift(reference=field(shape=shape), evaluated=field(shift, shape=shape))
    np.testing.assert_allclose(got.vector_mm, shift, atol=0.02)
    assert got.length_mm == pytest.approx(np.linalg.norm(shift), abs=0.02)
    record_validation(
        "best rigid shift, 0.3 to 30 mm, any fraction of a voxel",
        "the known translation of an analytic field",
        reached=float(np.abs(np.subtract(got.vector_mm, shift)).max()),
        tolerance=0.02,
        unit="mm",
    )
    assert got.rmse_gy < 0.02
    assert got.rmse_before_gy > 20 * got.rmse_gy
    assert got.status == "ok"


@pytest.mark.parametrize("shift", [(0.4, 0.0, -0.3), (1.25, 1.25, 1.25), (-0.7, 2.0, 0.1)])
def test_noise_does_not_pull_the_shift_to_half_voxels(shift):
    one, two = field(noise=1.0, seed=1), field(shift, noise=1.0, seed=2)
    got = best_shift(reference=one, evaluated=two)
    np.testing.assert_allclose(got.vector_mm, shift, atol=0.07)
    known = replace(two, uncertainty_gy=np.where(two.dose_gy > 1e-9, 1.0, 0.0))
    np.testing.assert_allclose(best_shift(reference=one, evaluated=known).vector_mm, shift, atol=0.07)


def test_noise_of_batches_is_that_of_their_mean():
    """Four batches of 2 Gy noise are a map of 1 Gy: the difference of two maps holds sqrt(2) Gy.

    Half-way between voxels a spline takes most of the noise of one map away; what it takes is added back.
    """
    rng = np.random.default_rng(3)
    shift, sides = (1.25, 1.25, 1.25), []
    for moved in ((0.0, 0.0, 0.0), shift):
        clean = field(moved)
        noisy = clean.dose_gy + 20.0 + 2.0 * rng.standard_normal((4, *clean.grid.shape))
        sides.append(DoseMap.from_batches(noisy, clean.grid))
    got = best_shift(reference=sides[0], evaluated=sides[1])
    np.testing.assert_allclose(got.vector_mm, shift, atol=0.07)
    assert got.rmse_gy == pytest.approx(np.sqrt(2.0), rel=0.03)


def test_a_shift_far_below_the_noise_is_not_held_at_zero():
    one, two = field(noise=0.3, seed=1), field((0.03, 0.0, 0.0), noise=0.3, seed=2)
    got = best_shift(reference=one, evaluated=two)
    assert got.vector_mm[0] == pytest.approx(0.03, abs=0.02)
    assert got.vector_mm[1] != 0.0


def test_a_few_layers_are_not_shifted():
    one, two = field(shape=(3, 32, 36)), field((1.5, 0, 0), shape=(3, 32, 36))
    got = best_shift(reference=one, evaluated=two)
    np.testing.assert_allclose(got.vector_mm, (1.5, 0, 0), atol=0.02)


def test_a_field_that_leaves_the_box_is_not_compared_where_it_is_missing():
    got = best_shift(reference=field(width=60), evaluated=field((7.0, 0, 0), width=60))
    assert got.vector_mm[0] == pytest.approx(7.0, abs=0.1)
    assert got.overlap == pytest.approx(33 / 36)


def test_output_and_shift_are_told_apart():
    got = best_shift(reference=field(), evaluated=field((1.5, 0, 0)).scaled(1.03))
    np.testing.assert_allclose(got.vector_mm, (1.5, 0, 0), atol=0.02)
    assert got.rmse_gy == pytest.approx(np.sqrt(np.mean((0.03 * field().dose_gy) ** 2)), rel=0.1)


def test_shift_on_uneven_voxels():
    rng = np.random.default_rng(0)
    edges = [np.concatenate([[0], np.cumsum(rng.uniform(1.5, 2.5, n))]) for n in (24, 25, 30)]
    grid = Grid(z_edges_mm=edges[0], y_edges_mm=edges[1], x_edges_mm=edges[2])
    z, y, x = np.meshgrid(*grid.centers_mm, indexing="ij")

    def bell(cx):
        return DoseMap(dose_gy=50 * np.exp(-((x - cx) ** 2 + (y - 25) ** 2 + (z - 24) ** 2) / 200), grid=grid)

    got = best_shift(reference=bell(30), evaluated=bell(32.2))
    np.testing.assert_allclose(got.vector_mm, (2.2, 0, 0), atol=0.02)


@pytest.mark.parametrize("shape", [(60,), (40, 60)])
def test_slices_and_lines_shift_within_themselves(shape):
    axes = np.meshgrid(*(2.0 * np.arange(n) for n in shape), indexing="ij")

    def bell(shift):
        r2 = sum(
            (a - n - (shift if i == len(shape) - 1 else 0)) ** 2
            for i, (a, n) in enumerate(zip(axes, shape, strict=True))
        )
        return DoseMap.from_array(50 * np.exp(-r2 / 300), spacing_mm=(2.0,) * len(shape))

    got = best_shift(reference=bell(0.0), evaluated=bell(-3.1))
    np.testing.assert_allclose(got.vector_mm, (-3.1, 0, 0), atol=0.02)


def test_a_search_that_runs_out_of_steps_says_what_that_means():
    noise = np.random.default_rng(2).uniform(0.5, 1.5, (2, 12, 12, 12))
    one, two = (DoseMap.from_array(dose, spacing_mm=(2.0,) * 3) for dose in noise)
    status = best_shift(reference=one, evaluated=two, max_iterations=1).status
    assert status.startswith("not settled: the last of 1 steps was still longer than 0.02 mm")
    assert "read it as a rough value" in status


def test_equal_maps_do_not_move():
    got = best_shift(reference=field(), evaluated=field())
    assert got.vector_mm == (0.0, 0.0, 0.0)
    assert got.rmse_gy == 0.0


def test_a_single_voxel_cannot_be_registered_and_says_so():
    one = DoseMap.from_array([1.0], spacing_mm=(1.0,))
    assert "no translation can be found" in best_shift(reference=one, evaluated=one.scaled(2)).status


@settings(max_examples=15, deadline=None)
@given(shift=st.tuples(*[st.floats(-6, 6)] * 3))
def test_best_shift_reverses_when_the_maps_are_swapped(shift):
    one, two = field(shape=(20, 20, 20), width=6), field(shift, shape=(20, 20, 20), width=6)
    there = best_shift(reference=one, evaluated=two).vector_mm
    back = best_shift(reference=two, evaluated=one).vector_mm
    np.testing.assert_allclose(there, shift, atol=0.05)
    np.testing.assert_allclose(back, -np.array(there), atol=0.05)


def test_center_of_dose_moves_with_the_dose_on_any_grid():
    one = DoseMap.from_array(np.pad(np.ones((2, 2, 2)), 2), spacing_mm=(1.0, 2.0, 3.0))
    two = DoseMap.from_array(
        np.pad(np.ones((2, 2, 2)), 2), spacing_mm=(1.0, 2.0, 3.0), origin_mm=(1, -2, 0.5)
    )
    got = center_shift(reference=one, evaluated=two)
    np.testing.assert_allclose(got.vector_mm, (1, -2, 0.5))
    assert got.length_mm == pytest.approx(np.sqrt(5.25))
    np.testing.assert_allclose(got.reference_center_mm, (2.5, 5.0, 7.5))


def test_center_of_dose_weights_uneven_voxels_by_volume():
    grid = Grid(x_edges_mm=[0, 1, 4], y_edges_mm=[0, 1], z_edges_mm=[0, 1])
    dose = DoseMap(dose_gy=np.ones((1, 1, 2)), grid=grid)
    assert center_shift(reference=dose, evaluated=dose).reference_center_mm[0] == pytest.approx(2.0)


def test_maps_without_dose_or_common_grid_are_refused():
    none = DoseMap.from_array([0.0, 0.0], spacing_mm=(1.0,))
    with pytest.raises(InputError, match="the evaluated map holds no dose"):
        center_shift(reference=DoseMap.from_array([1.0, 0.0], spacing_mm=(1.0,)), evaluated=none)
    with pytest.raises(GridMismatchError, match="cannot be paired"):
        best_shift(reference=none, evaluated=field())
