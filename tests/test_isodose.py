"""Isodose overlap and surface distances against closed forms, below the voxel size."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dosemover.dose import DoseMap
from dosemover.errors import GridMismatchError, InputError
from dosemover.grid import Grid
from dosemover.metrics import isodose_agreement
from dosemover.metrics.isodose import enclosed_volumes_mm3
from strategies import dose_maps, grids


def ball(center=(0.0, 0.0, 0.0), radius=15.0, n=21, spacing=2.5):
    """A dose whose 50 % isodose is a sphere of the given radius: 60 Gy in the middle."""
    half = spacing * (n - 1) / 2
    grid = Grid.regular(shape=(n,) * 3, spacing_mm=(spacing,) * 3, origin_mm=(-half,) * 3)
    z, y, x = np.meshgrid(*grid.centers_mm, indexing="ij")
    r = np.sqrt((x - center[0]) ** 2 + (y - center[1]) ** 2 + (z - center[2]) ** 2)
    return DoseMap(dose_gy=np.maximum(60 - 30 * r / radius, 0), grid=grid)


def at_half(one, two):
    return isodose_agreement(reference=one, evaluated=two, levels_percent=[50], normalization_gy=60.0)[50.0]


def test_a_shift_of_a_sphere_by_a_fraction_of_a_voxel_reads_true():
    got = at_half(ball(), ball(center=(1.0, 0, 0)))
    assert got.hd95_mm == pytest.approx(0.95, abs=0.03)  # |cos| exceeds 0.95 on 5 % of a sphere
    assert got.hausdorff_mm == pytest.approx(1.0, abs=0.05)
    assert got.mean_surface_mm == pytest.approx(0.5, abs=0.03)
    overlap = 1 - 1.5 * (1 / 30) + 0.5 * (1 / 30) ** 3  # of two spheres, centres 1 mm apart
    assert got.dice_subvoxel == pytest.approx(overlap, abs=0.002)
    assert got.jaccard_subvoxel == pytest.approx(overlap / (2 - overlap), abs=0.003)


def test_concentric_spheres_are_apart_by_the_difference_of_radii():
    got = at_half(ball(radius=15.0), ball(radius=15.6))
    assert got.hd95_mm == pytest.approx(0.6, abs=0.08)  # facets lie up to h^2 / 8r inside
    assert got.mean_surface_mm == pytest.approx(0.6, abs=0.02)
    assert got.reference_cc == pytest.approx(4 / 3 * np.pi * 1.5**3, rel=0.02)
    assert got.evaluated_cc == pytest.approx(4 / 3 * np.pi * 1.56**3, rel=0.02)


def test_an_isodose_island_that_one_map_has_alone_counts_by_its_area():
    """A second sphere of radius r, L apart, in the evaluated map: a third of the area of both maps.

    Its points lie sqrt(L^2 + r^2 + 2 L r c) - r from the first sphere, c the cosine, evenly spread in
    -1 to 1: the mean of the root is ((L + r)^3 - (L - r)^3) / (6 L r), and the 95th percentile of the
    evaluated surface, half of which is at 0, is at c = 0.8.
    """
    r, apart, n, spacing = 6.0, 20.0, 25, 1.5
    grid = Grid.regular(
        shape=(13, 13, n), spacing_mm=(spacing,) * 3, origin_mm=(-8.0, -6 * spacing, -6 * spacing)
    )
    z, y, x = np.meshgrid(*grid.centers_mm, indexing="ij")
    balls = [60 - 30 * np.sqrt((x - c) ** 2 + y**2 + z**2) / r for c in (0.0, apart)]
    one = DoseMap(dose_gy=np.maximum(balls[0], 0), grid=grid)
    two = DoseMap(dose_gy=np.maximum(np.maximum(*balls), 0), grid=grid)
    mean = ((apart + r) ** 3 - (apart - r) ** 3) / (6 * apart * r) - r
    far = np.sqrt(apart**2 + r**2 + 2 * apart * r * 0.8) - r
    for got in (at_half(one, two), at_half(two, one)):
        assert got.mean_surface_mm == pytest.approx(mean / 3, rel=0.03)
        assert got.hd95_mm == pytest.approx(far, abs=0.3)
        assert got.hausdorff_mm == pytest.approx(apart, abs=0.2)


def test_equal_maps_agree_completely():
    for got in isodose_agreement(reference=ball(), evaluated=ball()).values():
        assert got.dice == got.jaccard == got.dice_subvoxel == 1.0
        assert got.hd95_mm == pytest.approx(0.0, abs=1e-6)
        assert got.status == "ok"


def test_dice_counts_voxels():
    one = DoseMap.from_array([1.0, 1, 1, 0, 0, 0], spacing_mm=(1,))
    two = DoseMap.from_array([0.0, 1, 1, 1, 1, 0], spacing_mm=(1,))
    got = at_half_of_one(one, two)
    assert got.dice == pytest.approx(4 / 7)
    assert got.jaccard == pytest.approx(2 / 5)


def at_half_of_one(one, two):
    return isodose_agreement(reference=one, evaluated=two, levels_percent=[50], normalization_gy=1.0)[50.0]


def test_slices_and_lines_give_contour_and_point_distances():
    x = np.arange(30.0)
    one, two = np.clip(10 - x / 2, 0, 10), np.clip(10.35 - x / 2, 0, 10)
    line = isodose_agreement(
        reference=DoseMap.from_array(one, spacing_mm=(2.0,)),
        evaluated=DoseMap.from_array(two, spacing_mm=(2.0,)),
        levels_percent=[50],
    )[50.0]
    assert line.mean_surface_mm == pytest.approx(1.4, rel=1e-5)
    plane = isodose_agreement(
        reference=DoseMap.from_array(np.tile(one, (8, 1)), spacing_mm=(2.0, 3.0)),
        evaluated=DoseMap.from_array(np.tile(two, (8, 1)), spacing_mm=(2.0, 3.0)),
        levels_percent=[50],
    )[50.0]
    assert plane.hd95_mm == pytest.approx(1.4, rel=1e-5)


def test_a_level_that_a_map_does_not_reach_has_no_distance_and_says_so():
    got = isodose_agreement(reference=ball(), evaluated=ball().scaled(0.9))[95.0]
    assert got.hd95_mm is None
    assert got.status == "the evaluated map does not reach 57 Gy"
    assert got.dice == 0.0
    high = isodose_agreement(
        reference=ball(), evaluated=ball(), levels_percent=[100], normalization_gy=200.0
    )[100.0]
    assert high.dice is None


def test_a_map_wholly_above_a_level_has_no_surface():
    flat = DoseMap.from_array(np.full((4, 4, 4), 5.0), spacing_mm=(1, 1, 1))
    got = isodose_agreement(reference=flat, evaluated=flat)[50.0]
    assert got.dice == 1.0
    assert got.status == "a map has no surface at 2.5 Gy inside the grid"
    assert got.reference_cc == pytest.approx(0.064)


def test_summary_uses_the_metric_keys():
    assert set(at_half(ball(), ball()).summary()) == {
        "isodose_dice_50",
        "isodose_jaccard_50",
        "isodose_hd95_50_mm",
        "isodose_surface_50_mm",
    }


def test_volume_of_a_ramp_is_exact_on_uneven_voxels():
    grid = Grid(x_edges_mm=[0, 1, 3, 4, 8], y_edges_mm=[0, 2], z_edges_mm=[0, 3, 4])
    dose = np.broadcast_to(grid.centers_mm[2], grid.shape)
    volume, _, _ = enclosed_volumes_mm3(dose, dose, grid, 2.9)
    assert volume == pytest.approx((8 - 2.9) * 2 * 4)


@settings(max_examples=30, deadline=None)
@given(grid=grids(5), data=st.data(), level=st.floats(0.05, 0.95))
def test_volumes_lie_between_nothing_and_the_box_and_overlap_within_both(grid, data, level):
    one, two = data.draw(dose_maps(grid)), data.draw(dose_maps(grid))
    a, b, both = enclosed_volumes_mm3(one.dose_gy, two.dose_gy, grid, level)
    tiny = 1e-9 * grid.voxel_volume_mm3.sum()
    assert max(a + b - grid.voxel_volume_mm3.sum(), 0) - tiny <= both <= min(a, b) + tiny


def test_bad_levels_and_grids_are_refused():
    with pytest.raises(InputError, match="`levels_percent` must be positive"):
        isodose_agreement(reference=ball(), evaluated=ball(), levels_percent=[0])
    with pytest.raises(GridMismatchError, match="cannot be paired"):
        isodose_agreement(reference=ball(), evaluated=ball(n=19))


def test_any_number_of_threads_gives_the_same_bits():
    import numba

    one, two, n = ball(), ball(center=(1.0, 0.3, 0)), numba.get_num_threads()
    every = at_half(one, two)
    try:
        numba.set_num_threads(1)
        single = at_half(one, two)
    finally:
        numba.set_num_threads(n)
    assert single.summary() == every.summary()
    assert single.dice_subvoxel == every.dice_subvoxel


def volume_twin(dose, grid, level, n=12):
    """Plain count of points with trilinear dose at or above a level."""
    from scipy.interpolate import RegularGridInterpolator

    axes = [np.concatenate([[e[0]], c, [e[-1]]]) for e, c in zip(grid.edges_mm, grid.centers_mm, strict=True)]
    at = RegularGridInterpolator(axes, np.pad(dose, 1, mode="edge"))
    points = [
        e[0] + (e[-1] - e[0]) * (np.arange(n * (e.size - 1)) + 0.5) / (n * (e.size - 1))
        for e in grid.edges_mm
    ]
    inside = at(np.stack(np.meshgrid(*points, indexing="ij"), axis=-1)) >= level
    return inside.mean() * grid.voxel_volume_mm3.sum()


def test_enclosed_volume_matches_a_plain_count():
    rng = np.random.default_rng(0)
    grid = Grid.regular(shape=(3, 4, 5), spacing_mm=(2, 2.5, 3))
    dose = rng.random(grid.shape)
    got, _, _ = enclosed_volumes_mm3(dose, dose, grid, 0.5)
    assert got == pytest.approx(volume_twin(dose, grid, 0.5), rel=0.01)
