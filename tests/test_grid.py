"""Grids: boundaries, interpolation and conservative overlap."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dosemover.errors import GridMismatchError, InputError
from dosemover.grid import Grid, conserve, interpolate, union_grid


def test_regular_grid_keeps_spacing_and_origin():
    grid = Grid.regular(shape=(3, 4, 5), spacing_mm=(1.0, 2.0, 2.5), origin_mm=(-1.0, 0.0, 7.0))
    assert grid.shape == (3, 4, 5)
    assert grid.spacing_mm == pytest.approx((1.0, 2.0, 2.5))
    assert grid.origin_mm == pytest.approx((-1.0, 0.0, 7.0))
    assert grid.voxel_volume_mm3.sum() == pytest.approx(60 * 5.0)


def test_uneven_axis_has_no_spacing():
    grid = Grid(x_edges_mm=[0, 1, 2], y_edges_mm=[0, 1, 3], z_edges_mm=[0, 1])
    assert grid.spacing_mm == (1.0, None, 1.0)
    assert grid.voxel_volume_mm3.sum() == pytest.approx(6.0)


def test_a_slice_is_one_millimetre_thick():
    assert Grid.regular(shape=(4, 5), spacing_mm=(1.0, 1.0)).spacing_mm[2] == 1.0


@pytest.mark.parametrize("spacing", [(2.5, 0.0, 2.5), (1.0, -1.0, 1.0), (np.nan, 1.0, 1.0)])
def test_spacing_that_is_not_positive_is_refused(spacing):
    with pytest.raises(InputError, match="`spacing_mm` must be positive"):
        Grid.regular(shape=(2, 2, 2), spacing_mm=spacing)


def test_descending_boundaries_are_refused():
    with pytest.raises(InputError, match="ascending"):
        Grid(x_edges_mm=[2, 1, 0], y_edges_mm=[0, 1], z_edges_mm=[0, 1])


def test_grids_a_nanometre_apart_coincide():
    one = Grid.regular(shape=(2, 3, 4), spacing_mm=(2.5, 2.5, 2.5))
    two = Grid.regular(shape=(2, 3, 4), spacing_mm=(2.5, 2.5, 2.5), origin_mm=(1e-6, 0, 0))
    assert one.coincides_with(two)


def test_linear_values_interpolate_exactly():
    source = Grid.regular(shape=(6, 6, 6), spacing_mm=(2.0, 2.0, 2.0))
    target = Grid.regular(shape=(4, 4, 4), spacing_mm=(1.3, 1.7, 1.1), origin_mm=(1.0, 2.0, 3.0))
    z, y, x = np.meshgrid(*source.centers_mm, indexing="ij")
    zt, yt, xt = np.meshgrid(*target.centers_mm, indexing="ij")
    got = interpolate(1 + x + 2 * y + 3 * z, source=source, target=target)
    np.testing.assert_allclose(got, 1 + xt + 2 * yt + 3 * zt, rtol=1e-12)


def test_interpolation_is_zero_outside_the_box():
    source = Grid.regular(shape=(2, 2, 2), spacing_mm=(1.0, 1.0, 1.0))
    target = Grid.regular(shape=(2, 2, 4), spacing_mm=(1.0, 1.0, 1.0), origin_mm=(-1.0, 0.0, 0.0))
    got = interpolate(np.ones(source.shape), source=source, target=target)
    np.testing.assert_array_equal(got[0, 0], [0, 1, 1, 0])


def test_variance_of_a_midpoint_halves():
    source = Grid.regular(shape=(1, 1, 2), spacing_mm=(2.0, 1.0, 1.0))
    target = Grid.regular(shape=(1, 1, 1), spacing_mm=(1.0, 1.0, 1.0), origin_mm=(1.0, 0.0, 0.0))
    assert interpolate(np.ones((1, 1, 2)), source=source, target=target, squared=True).item() == 0.5


@given(
    offset=st.floats(-3, 3),
    spacing=st.floats(1, 4),
    seed=st.integers(0, 2**16),
)
def test_overlap_conserves_the_integral(offset, spacing, seed):
    source = Grid.regular(shape=(3, 4, 5), spacing_mm=(1.1, 0.9, 1.7))
    other = Grid.regular(shape=(4, 5, 5), spacing_mm=(spacing,) * 3, origin_mm=(offset,) * 3)
    boxes = zip(source.box_mm, other.box_mm, strict=True)
    assume(all(min(a[1], b[1]) - max(a[0], b[0]) > 2e-3 for a, b in boxes))
    target = union_grid(other, source)
    density = np.random.default_rng(seed).random(source.shape)
    got = conserve(density, source=source, target=target)
    assert np.sum(got * target.voxel_volume_mm3) == pytest.approx(np.sum(density * source.voxel_volume_mm3))


def test_grids_that_do_not_overlap_are_refused():
    one = Grid.regular(shape=(2, 2, 2), spacing_mm=(1.0, 1.0, 1.0))
    two = Grid.regular(shape=(2, 2, 2), spacing_mm=(1.0, 1.0, 1.0), origin_mm=(50.0, 0.0, 0.0))
    with pytest.raises(GridMismatchError, match="do not overlap along x"):
        union_grid(one, two)


def test_wrong_shape_names_both_shapes():
    grid = Grid.regular(shape=(2, 2, 2), spacing_mm=(1.0, 1.0, 1.0))
    with pytest.raises(GridMismatchError, match=r"shape \(3,\)"):
        grid.check_array("dose", np.ones(3))


def test_values_on_uneven_planes_keep_their_positions():
    planes = [0.0, 2.0, 4.0, 7.0, 14.0]
    grid = Grid.from_centers(x_mm=[0.0, 1.0], y_mm=[0.0, 1.0], z_mm=planes)
    np.testing.assert_allclose(grid.z_edges_mm, [-1, 1, 3, 5.5, 10.5, 17.5])
    np.testing.assert_allclose(grid.centers_mm[0], planes)
    np.testing.assert_allclose(grid.crop((slice(1, 4), slice(0, 2), slice(0, 1))).centers_mm[0], planes[1:4])
    values = np.broadcast_to(np.array(planes)[:, None, None], grid.shape)
    target = Grid.from_centers(x_mm=[0.5], y_mm=[0.5], z_mm=[3.0, 4.0, 10.5])
    got = interpolate(values, source=grid, target=target)
    np.testing.assert_allclose(got.ravel(), [3.0, 4.0, 10.5])


def test_grids_whose_values_hold_elsewhere_do_not_coincide():
    one = Grid.from_centers(x_mm=[0.0], y_mm=[0.0], z_mm=[0.0, 2.0, 5.0])
    two = Grid(x_edges_mm=one.x_edges_mm, y_edges_mm=one.y_edges_mm, z_edges_mm=one.z_edges_mm)
    assert not one.coincides_with(two)


def test_a_value_outside_its_voxel_is_refused():
    with pytest.raises(InputError, match="one position inside each voxel"):
        Grid(x_edges_mm=[0, 1], y_edges_mm=[0, 1], z_edges_mm=[0, 1, 2], z_centers_mm=[0.5, 2.5])
