"""Maps on different voxels: common pieces, what averaging moves, intervals that hold for the maps."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from closed_forms import w1_on_a_line, w2_squared_on_a_line
from dosemover import grid as grid_module
from dosemover import transport
from dosemover.dose import DoseMap
from dosemover.errors import GridMismatchError
from dosemover.grid import Grid, common_grid, conserve, union_grid
from dosemover.transport.measure import measure_pair


def even(n, spacing, start=0.0):
    """Edges of n voxels."""
    return start + spacing * np.arange(n + 1)


def cube(edges):
    return Grid(z_edges_mm=edges, y_edges_mm=edges, x_edges_mm=edges)


def line(edges):
    return Grid(z_edges_mm=[0.0, 1.0], y_edges_mm=[0.0, 1.0], x_edges_mm=edges)


def bump(edges, center, width, background=0.02):
    """Values of a Gaussian over a background at the middles."""
    x = (edges[1:] + edges[:-1]) / 2
    return background + np.exp(-((x - center) ** 2) / (2 * width**2))


def product(edges, centers, widths):
    """Map whose density is a product along the axes."""
    parts = [bump(edges, c, w) for c, w in zip(centers, widths, strict=True)]
    return DoseMap(dose_gy=np.einsum("i,j,k->ijk", *parts), grid=cube(edges))


def on(dose, grid):
    """The same piecewise-constant map on finer voxels."""
    return DoseMap(dose_gy=dose.conserved_on(grid), grid=grid)


def test_the_common_voxels_of_3_and_2_mm_lie_between_all_boundaries():
    found = common_grid(cube(even(4, 3.0)), cube(even(6, 2.0)))
    for edges in found.edges_mm:
        np.testing.assert_allclose(edges, [0, 2, 3, 4, 6, 8, 9, 10, 12])


def test_boundaries_that_cut_off_next_to_nothing_are_left_out_and_far_ends_are_covered():
    found = common_grid(line(even(4, 3.0)), line(even(4, 3.0, 0.2)))
    np.testing.assert_allclose(found.x_edges_mm, even(5, 3.0))
    found = common_grid(line(even(4, 3.0)), line(even(5, 3.0, -1.0)))
    np.testing.assert_allclose(found.x_edges_mm, [-1, 0, 2, 3, 5, 6, 8, 9, 11, 12, 14])
    found = common_grid(line(even(3, 10.0)), line(np.array([5.0, 5.5, 6.0, 6.5])))
    np.testing.assert_allclose(found.x_edges_mm, [0, 5, 5.5, 6, 6.5, 10, 20, 30])


def test_where_voxels_would_be_too_many_the_worst_axes_are_refined(monkeypatch):
    one = Grid(z_edges_mm=even(6, 2.0), y_edges_mm=even(6, 2.0), x_edges_mm=even(6, 2.0))
    two = Grid(z_edges_mm=even(6, 2.0), y_edges_mm=even(3, 4.0), x_edges_mm=even(6, 2.0, 1.0))
    monkeypatch.setattr(grid_module, "_REFINED_VOXELS", 0)
    found = common_grid(one, two)
    np.testing.assert_allclose(found.x_edges_mm, even(13, 1.0))
    np.testing.assert_allclose(found.y_edges_mm, one.y_edges_mm)
    three = cube(even(6, 2.0, 1.0))
    found = common_grid(one, three)
    assert found.n_voxels <= 2 * 7**3
    assert sorted(found.shape) == [7, 7, 13]


def test_grids_that_do_not_overlap_have_none():
    with pytest.raises(GridMismatchError, match="do not overlap along z"):
        common_grid(cube(even(4, 3.0)), cube(even(4, 3.0, 50.0)))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6))
def test_both_maps_keep_their_integrals_and_the_reference_its_values(seed):
    rng = np.random.default_rng(seed)
    first, second = (
        cube(rng.uniform(-1, 1) + np.cumsum(np.append(0.0, rng.uniform(0.3, 3.0, 5)))) for _ in range(2)
    )
    a, b = (DoseMap(dose_gy=rng.random(g.shape), grid=g) for g in (first, second))
    pair = measure_pair(reference=a, evaluated=b)
    assert pair.reference_mass == pytest.approx(a.integral_gy_mm3)
    assert pair.evaluated_mass == pytest.approx(b.integral_gy_mm3)
    back = conserve(pair.a, source=pair.grid, target=first)
    np.testing.assert_allclose(back, a.dose_gy, rtol=1e-9, atol=1e-9)
    squares = [np.sum(x**2 * g.voxel_volume_mm3) for x, g in ((pair.a, pair.grid), (a.dose_gy, first))]
    if pair.averaged_mm == 0:
        total = np.sum(pair.b**2 * pair.grid.voxel_volume_mm3)
        assert total == pytest.approx(np.sum(b.dose_gy**2 * second.voxel_volume_mm3))
    assert squares[0] <= squares[1] * (1 + 1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_what_averaging_moves_on_a_line_is_w2(monkeypatch, seed):
    monkeypatch.setattr("dosemover.transport.measure.common_grid", union_grid)
    rng = np.random.default_rng(seed)
    reference, edges = even(4, 3.0), np.sort(np.append(rng.uniform(0.1, 11.9, 6), [0.0, 12.0]))
    b = rng.random(7)
    found = measure_pair(
        reference=DoseMap(dose_gy=np.ones((1, 1, 4)), grid=line(reference)),
        evaluated=DoseMap(dose_gy=b[None, None], grid=line(edges)),
    )
    t = np.union1d(edges, reference)
    middle = (t[1:] + t[:-1]) / 2
    own = b[np.searchsorted(edges, middle) - 1]
    mean = found.b[0, 0][np.searchsorted(reference, middle) - 1]
    assert found.averaged_mm == pytest.approx(np.sqrt(w2_squared_on_a_line(t, own, mean)), rel=1e-4)


def test_what_averaging_moves_in_space_bounds_w2_within_a_mask(monkeypatch):
    """Product densities average to products, and their W_2 is that of the lines."""
    monkeypatch.setattr("dosemover.transport.measure.common_grid", union_grid)
    a, b = product(even(8, 3.0), (12, 12, 12), (5, 5, 5)), product(even(6, 4.0), (11, 13, 12), (5, 6, 4))
    mask = np.zeros(a.grid.shape)
    mask[2:6, 1:7, 2:7] = 0.5
    for inside in (None, mask):
        pair = measure_pair(reference=a, evaluated=b, mask=inside)
        fine = cube(even(24, 1.0))
        factor = 1.0 if inside is None else conserve(inside, source=a.grid, target=fine)
        own = DoseMap(dose_gy=b.conserved_on(fine) * factor, grid=fine)
        mean = DoseMap(dose_gy=conserve(pair.b, source=pair.grid, target=fine), grid=fine)
        exact = transport.axis_w2(reference=own, evaluated=mean).value
        assert exact * (1 - 1e-9) <= pair.averaged_mm <= 1.2 * exact


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize(
    "edges",
    [(even(24, 3.0), even(36, 2.0)), (even(24, 3.0), even(24, 3.0, 1.1)), (even(36, 2.0), even(29, 2.5))],
)
def test_intervals_of_unequal_grids_hold_for_the_maps_themselves(monkeypatch, exact, edges):
    if not exact:
        monkeypatch.setattr("dosemover.transport.measure.common_grid", union_grid)
    p, q = bump(edges[0], 34.0, 9.0), bump(edges[1], 35.5, 9.4)
    a, b = (DoseMap(dose_gy=v[None, None], grid=line(e)) for v, e in zip((p, q), edges, strict=True))
    fine = np.union1d(np.round(edges[0], 6), np.round(edges[1], 6))
    one, two = (on(m, line(fine)).dose_gy.ravel() for m in (a, b))
    w1, w2 = w1_on_a_line(fine, one, two), np.sqrt(w2_squared_on_a_line(fine, one, two))
    found = transport.wasserstein_2(reference=a, evaluated=b)
    assert found.lower <= w2 * (1 + 1e-4)
    assert w2 <= found.upper * (1 + 1e-4)
    assert found.gap < (0.03 if exact else 0.5)
    assert ("averaged_mm" in found.settings) is not exact
    found = transport.wasserstein_1(reference=a, evaluated=b)
    assert found.lower <= w1 * (1 + 1e-5)
    assert w1 <= found.upper * (1 + 1e-5)
    true = on(a, line(fine)), on(b, line(fine))
    for solver in (transport.dose_movers_distance, transport.flat_norm):
        found = solver(reference=a, evaluated=b)
        truth = solver(reference=true[0], evaluated=true[1])
        assert found.lower <= truth.upper * (1 + 1e-9)
        assert truth.lower <= found.upper * (1 + 1e-9)


def test_products_on_3_and_2_mm_voxels_read_their_quantiles():
    """W_2 of products is that of their lines; 1 mm voxels hold both maps exactly."""
    edges = even(16, 3.0), even(24, 2.0)
    centers, widths = ((24.0, 24.0, 24.0), (25.0, 23.5, 24.4)), ((7.0, 8.0, 7.5), (7.3, 8.0, 7.2))
    a, b = (product(e, c, w) for e, c, w in zip(edges, centers, widths, strict=True))
    fine = even(48, 1.0)
    squared = 0.0
    for axis in range(3):
        p, q = (bump(e, c[axis], w[axis]) for e, c, w in zip(edges, centers, widths, strict=True))
        squared += w2_squared_on_a_line(fine, np.repeat(p, 3), np.repeat(q, 2))
    found = transport.wasserstein_2(reference=a, evaluated=b)
    assert "averaged_mm" not in found.settings
    assert found.lower <= np.sqrt(squared) * (1 + 1e-4)
    assert np.sqrt(squared) <= found.upper * (1 + 1e-4)
    assert found.gap < 0.02
    dmd = transport.dose_movers_distance(reference=a, evaluated=b)
    truth = transport.dose_movers_distance(reference=on(a, cube(fine)), evaluated=on(b, cube(fine)))
    assert dmd.value == pytest.approx(truth.value, rel=0.01)
    assert dmd.lower <= truth.upper
    assert truth.lower <= dmd.upper


def test_gradients_reach_the_evaluated_voxels_of_another_grid():
    rng = np.random.default_rng(3)
    a = DoseMap(
        dose_gy=rng.uniform(0.5, 1, (1, 4, 6)), grid=Grid.regular(shape=(1, 4, 6), spacing_mm=(3.0, 3.0))
    )
    grid = Grid.regular(shape=(1, 6, 9), spacing_mm=(2.0, 2.0), origin_mm=(-0.5, -0.5))
    b, direction = rng.uniform(0.5, 1, grid.shape), rng.standard_normal(grid.shape)

    def value(dose):
        return transport.wasserstein_2_gradient(
            reference=a, evaluated=DoseMap(dose_gy=dose, grid=grid), tolerance=1e-10, linear=True
        )

    _, gradient = value(b)
    slope = (value(b + 1e-5 * direction)[0] - value(b - 1e-5 * direction)[0]) / 2e-5
    assert np.vdot(gradient, direction) == pytest.approx(slope, rel=1e-4)


@pytest.mark.parametrize("name", ["wasserstein_2", "wasserstein_1", "flat_norm", "sinkhorn"])
def test_gradients_under_a_mask_and_density_are_those_of_the_weighted_maps(name):
    rng = np.random.default_rng(5)
    edges = [np.cumsum(np.append(0.0, rng.uniform(1.0, 3.0, n))) for n in (2, 3, 4)]
    grid = Grid(z_edges_mm=edges[0], y_edges_mm=edges[1], x_edges_mm=edges[2])
    density, mask = rng.uniform(0.3, 1.5, grid.shape), rng.uniform(0.2, 1.0, grid.shape)
    doses = rng.uniform(0.5, 1.0, (2, *grid.shape))
    a = DoseMap(dose_gy=doses[0], grid=grid, density_g_per_cm3=density)
    b = DoseMap(dose_gy=doses[1], grid=grid)
    weighted = [DoseMap(dose_gy=d * density * mask, grid=grid) for d in doses]
    gradient = getattr(transport, f"{name}_gradient")
    value, found = gradient(reference=a, evaluated=b, mask=mask, weight="energy")
    same, plain = gradient(reference=weighted[0], evaluated=weighted[1])
    assert value == pytest.approx(same, rel=1e-9)
    np.testing.assert_allclose(found, plain * density * mask, rtol=1e-6, atol=1e-12)


def test_every_balanced_distance_names_the_remedy_for_unequal_masses():
    from dosemover.errors import AccuracyWarning, InputError

    a = product(even(6, 3.0), (9, 9, 9), (5, 5, 5))
    names = ("wasserstein_1", "wasserstein_2", "sliced_w1", "sliced_w2", "sinkhorn_divergence", "sobolev_w2")
    for name in (*names, "axis_w1", "axis_w2", "flat_norm", "emd"):
        with pytest.warns(AccuracyWarning, match="holds 3 times the dose of the reference.*--scale"):
            getattr(transport, name)(reference=a, evaluated=a.scaled(3))
    with warnings.catch_warnings():
        warnings.simplefilter("error", AccuracyWarning)
        transport.sliced_w2(reference=a, evaluated=a.scaled(1.9))
    assert issubclass(InputError, ValueError)


def test_every_solver_says_how_much_memory_it_needs_before_it_starts(monkeypatch):
    from dosemover.errors import InputError

    a = product(even(6, 3.0), (9, 9, 9), (5, 5, 5))
    monkeypatch.setattr("dosemover.transport.measure.available_memory_bytes", lambda: 1000)
    names = ("wasserstein_1", "wasserstein_2", "sliced_w1", "sliced_w2", "sinkhorn_divergence", "sobolev_w2")
    gradients = (
        "wasserstein_1_gradient",
        "wasserstein_2_gradient",
        "flat_norm_gradient",
        "sinkhorn_gradient",
    )
    for name in (*names, *gradients, "axis_w1", "axis_w2", "flat_norm", "emd", "dose_movers_distance"):
        with pytest.raises(InputError, match=r"on 216 voxels needs about .* GiB of memory, and"):
            getattr(transport, name)(reference=a, evaluated=a)
