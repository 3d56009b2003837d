"""Plans, prices and rearrangements: certified bounds of W_2 that need no dose between the maps."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from closed_forms import w2_squared_on_a_line
from dosemover.dose import DoseMap
from dosemover.grid import Grid
from dosemover.transport import axis_w2, emd, wasserstein_2
from dosemover.transport.plan import plan_bounds
from dosemover.transport.rearrangement import rearrangement_upper_bound
from transport_maps import uneven_grid


def densities(grid, *doses):
    """Densities of mass 1."""
    return [d / np.sum(d * grid.voxel_volume_mm3) for d in doses]


def random_pair(seed, grid):
    """Two maps with exact zeros."""
    rng = np.random.default_rng(seed)
    doses = [rng.random(grid.shape) * (rng.random(grid.shape) > 0.4) for _ in range(2)]
    doses[0].flat[0] = doses[1].flat[-1] = 1.0
    return doses


def overlap(edges, low, high):
    """Filled share of each voxel of an interval."""
    filled = np.minimum(edges[1:], high) - np.maximum(edges[:-1], low)
    return np.clip(filled, 0, None) / np.diff(edges)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([(4, 5, 6), (1, 6, 5), (1, 1, 9), (3, 1, 4)]))
def test_all_bounds_are_ordered_on_random_maps_with_zeros(seed, shape):
    grid = uneven_grid(seed, shape)
    doses = random_pair(seed, grid)
    a, b = densities(grid, *doses)
    found = plan_bounds(a, b, grid, n_cells=64, n_nodes=512)
    upper = rearrangement_upper_bound(a, b, grid)
    maps = [DoseMap(dose_gy=d, grid=grid) for d in doses]
    axes = axis_w2(reference=maps[0], evaluated=maps[1]).value ** 2 if _balanced(doses, grid) else 0.0
    assert found.lower <= found.estimate <= found.upper
    assert found.lower <= upper * (1 + 1e-9)
    assert axes <= upper * (1 + 1e-9)
    assert axes <= found.upper * (1 + 1e-9)


def _balanced(doses, grid):
    """Whether the masses are near enough for no warning."""
    first, second = (np.sum(d * grid.voxel_volume_mm3) for d in doses)
    return 0.5 < second / first < 2


@pytest.mark.parametrize("seed", range(3))
def test_bounds_enclose_the_exact_distance_of_finely_split_voxels(seed):
    grid = Grid.regular(shape=(1, 4, 5), spacing_mm=(6.0, 6.0))
    doses = random_pair(seed, grid)
    fine = [DoseMap.from_array(np.kron(d[0], np.ones((8, 8))), spacing_mm=(0.75, 0.75)) for d in doses]
    with pytest.warns(match="times the dose") if not _balanced(doses, grid) else _nothing():
        atoms = emd(reference=fine[0], evaluated=fine[1], order=2, max_atoms=1300)
    a, b = densities(grid, *doses)
    found = plan_bounds(a, b, grid, n_cells=20, n_nodes=4000)
    upper = min(found.upper, rearrangement_upper_bound(a, b, grid))
    assert found.lower**0.5 <= atoms.value + atoms.settings["atom_error_mm"]
    assert upper**0.5 >= atoms.value - atoms.settings["atom_error_mm"]
    assert found.lower**0.5 == pytest.approx(atoms.value, rel=0.3)


def _nothing():
    from contextlib import nullcontext

    return nullcontext()


@pytest.mark.parametrize("shift", [0.7, 1.0, 7.3])
def test_a_box_with_hard_walls_in_vacuum_reads_the_quantiles_of_its_voxels(shift):
    edges = 2.0 * np.arange(15)
    grid = Grid(z_edges_mm=edges, y_edges_mm=edges, x_edges_mm=edges)
    p, q = overlap(edges, 3.0, 8.0), overlap(edges, 3.0 + shift, 8.0 + shift)
    maps = [DoseMap(dose_gy=np.einsum("i,j,k->ijk", p, p, v), grid=grid) for v in (p, q)]
    exact = np.sqrt(w2_squared_on_a_line(edges, p, q))
    found = wasserstein_2(reference=maps[0], evaluated=maps[1])
    assert found.lower == pytest.approx(exact, rel=1e-4)
    assert found.upper == pytest.approx(exact, rel=1e-4)


def test_a_sharp_ellipsoid_stretched_along_its_axes_reads_its_stretch():
    """x -> (1 + s) x of a uniform ellipsoid costs s^2 r^2 / 5 along an axis of half-length r."""
    n, h, k = 30, 2.0, 4
    x = (np.arange(n * k) + 0.5) * h / k - n * h / 2

    def ellipsoid(stretch):
        inside = (x / (22 * stretch)) ** 2 + (x[:, None] / 18) ** 2 + (x[:, None, None] / 20) ** 2 < 1
        return DoseMap.from_array(inside.reshape(n, k, n, k, n, k).mean(axis=(1, 3, 5)), spacing_mm=(h, h, h))

    found = wasserstein_2(reference=ellipsoid(1.0), evaluated=ellipsoid(1.05))
    exact = 0.05 * 22 / 5**0.5
    assert found.lower == pytest.approx(exact, rel=0.04)
    assert found.upper == pytest.approx(exact, rel=0.06)
    assert found.gap < 0.06


def test_one_field_that_becomes_two_has_a_narrow_interval_and_true_displacements():
    edges = np.linspace(-90.0, 90.0, 31)
    grid = Grid(z_edges_mm=[-0.5, 0.5], y_edges_mm=edges, x_edges_mm=edges)
    x = (edges[1:] + edges[:-1]) / 2

    def field(cx, cy):
        return np.exp(-(((x - cx) ** 2 + (x[:, None] - cy) ** 2) / 200.0))[None] + 1e-6

    a, b = (
        DoseMap(dose_gy=field(0, 0), grid=grid),
        DoseMap(dose_gy=field(-45, 15) + field(45, -15), grid=grid),
    )
    found = wasserstein_2(reference=a, evaluated=b)
    assert found.gap < 0.03
    dx = found.fields["displacement_mm"][0, 0]
    middle = found.grid.centers_mm[2]
    inside = np.abs(found.grid.centers_mm[1])[:, None] < 15
    left, right = (dx[inside & (np.abs(middle - c) < 5)] for c in (-10.0, 10.0))
    assert left.mean() == pytest.approx(-40, abs=8)
    assert right.mean() == pytest.approx(40, abs=8)


def test_parts_apart_that_trade_mass_are_bounded_from_both_sides_in_the_plane():
    dose = np.zeros((2, 12, 12))
    dose[0, 2:4, 2:4], dose[0, 8:10, 8:10] = 2.0, 1.0
    dose[1, 2:4, 2:4], dose[1, 8:10, 8:10] = 1.0, 2.0
    a, b = (DoseMap.from_array(d, spacing_mm=(2.0, 2.0)) for d in dose)
    found = wasserstein_2(reference=a, evaluated=b)
    assert found.upper is not None
    assert found.upper <= 12.0 * 2**0.5 / 3**0.5  # a third of the dose moves 12 mm along both axes
    assert found.lower >= axis_w2(reference=a, evaluated=b).value * (1 - 1e-9)
    assert found.gap < 0.06
