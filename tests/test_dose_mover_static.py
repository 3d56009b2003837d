"""The static form's bounds: prices against brute force, plans against independent solutions, far travel."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from closed_forms import hellinger_kantorovich_cost, hellinger_mm
from dosemover.dose import DoseMap
from dosemover.errors import AccuracyWarning
from dosemover.grid import Grid
from dosemover.transport import dose_movers_distance
from dosemover.transport.mover_plan import even_edges, pieces, static_bounds
from dosemover.transport.mover_prices import c_transform, nodes_of, price_lower_bound, tangent
from test_dose_mover import static_problem


def random_grid(rng, shape):
    """Grid of uneven voxels."""
    z, y, x = (np.concatenate([[0.0], np.cumsum(rng.uniform(0.5, 3.0, n))]) for n in shape)
    return Grid(z_edges_mm=z, y_edges_mm=y, x_edges_mm=x)


def all_points(axes):
    """Every point of a grid of coordinates, [n, 3]."""
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)


def brute_transform(f, at, to, alpha, beta):
    """min over x of alpha |x - y|^2 - beta - f(x), every pair looked at."""
    x, y = all_points(at), all_points(to)
    distance = np.square(y[:, None] - x).sum(axis=2)
    return (alpha * distance - beta - f.ravel()).min(axis=1).reshape([t.size for t in to])


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_separable_envelopes_are_the_minimum_over_all_pairs(seed):
    rng = np.random.default_rng(seed)
    at, to = ([np.sort(rng.uniform(0, 20, n)) for n in rng.integers(1, 6, 3)] for _ in range(2))
    f = 50 * rng.standard_normal([x.size for x in at])
    f[rng.random(f.shape) < 0.2] = -np.inf
    f.flat[0] = 1.0
    alpha, beta = rng.uniform(1, 2), rng.uniform(0, 5)
    assert c_transform(f, at, to, alpha, beta) == pytest.approx(brute_transform(f, at, to, alpha, beta))


@pytest.mark.parametrize("reach", [0.0, 30.0, 90.0, 140.0])
def test_the_tangent_touches_the_cost_and_lies_below_it(reach):
    length = 100.0
    alpha, beta = tangent(reach**2, 4 * length**2)
    d = np.linspace(0, 310, 1000)
    below = alpha * d**2 - beta
    assert np.all(below <= hellinger_kantorovich_cost(d, length) + 1e-6)
    assert alpha * reach**2 - beta == pytest.approx(hellinger_kantorovich_cost(reach, length), abs=1e-6)


def continued(values, nodes, points, alpha):
    """The price between its nodes: multilinear less alpha (x - x0)(x1 - x) an axis."""
    low, share, lost = [], [], np.zeros(len(points))
    for x, n in zip(points.T, nodes, strict=True):
        if n.size == 1:
            low.append(np.zeros(len(x), int))
            share.append(np.zeros(len(x)))
            continue
        cell = np.clip(np.searchsorted(n, x) - 1, 0, n.size - 2)
        low.append(cell)
        share.append((x - n[cell]) / (n[cell + 1] - n[cell]))
        lost += alpha * (x - n[cell]) * (n[cell + 1] - x)
    total = -lost
    for corner in np.ndindex(2, 2, 2):
        index = tuple(np.minimum(c + s, n.size - 1) for c, s, n in zip(low, corner, nodes, strict=True))
        weight = np.prod([u if s else 1 - u for u, s in zip(share, corner, strict=True)], axis=0)
        total = total + weight * values[index]
    return total


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_prices_feasible_at_the_nodes_are_feasible_everywhere(seed):
    rng = np.random.default_rng(seed)
    nodes = [np.concatenate([[0.0], np.cumsum(rng.uniform(1, 9, n))]) for n in rng.integers(1, 5, 3)]
    alpha, beta = tangent(rng.uniform(0, 100) ** 2, 4e4)
    phi = 300 * rng.standard_normal([n.size for n in nodes])
    psi = c_transform(phi, nodes, nodes, alpha, beta)
    x, y = (np.stack([rng.uniform(0, n[-1], 300) for n in nodes], axis=1) for _ in range(2))
    left = continued(phi, nodes, x, alpha)[:, None] + continued(psi, nodes, y, alpha)
    distance = np.sqrt(np.square(x[:, None] - y).sum(axis=2))
    assert np.all(left <= hellinger_kantorovich_cost(distance, 100.0) + 1e-6)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6))
def test_the_price_bound_lies_below_the_integral_of_its_own_prices(seed):
    """Against the dual functional of the continued prices, by Gauss quadrature in every voxel."""
    rng = np.random.default_rng(seed)
    grid = random_grid(rng, rng.integers(1, 4, 3))
    a, b = rng.random(grid.shape), rng.random(grid.shape)
    nodes = nodes_of(even_edges(grid, rng.integers(1, 30), per_voxel=2))
    penalty = float(rng.choice([30.0, 400.0, 4e4]))
    start = 5 * rng.standard_normal([n.size for n in nodes])
    found, nodal = price_lower_bound(a, b, grid, start, nodes, nodes, penalty=penalty)
    psi = c_transform(start, nodes, nodes, 1.0, 0.0)
    phi = c_transform(psi, nodes, nodes, 1.0, 0.0)
    t, w = np.polynomial.legendre.leggauss(12)
    points, weights = [], []
    for e, n in zip(grid.edges_mm, nodes, strict=True):
        cuts = np.union1d(e, n)
        width = np.diff(cuts)
        points.append((cuts[:-1, None] + width[:, None] * (t + 1) / 2).ravel())
        weights.append((width[:, None] * w / 2).ravel())
    x = all_points(points)
    volume = np.prod(all_points(weights), axis=1)
    index = tuple(np.searchsorted(e, x[:, k]) - 1 for k, e in enumerate(grid.edges_mm))
    kept = [
        np.sum(d[index] * volume * np.exp(-continued(p, nodes, x, 1.0) / penalty))
        for d, p in ((a, phi), (b, psi))
    ]
    total = np.sum((a + b) * grid.voxel_volume_mm3)
    exact = penalty * (total - 2 * np.sqrt(kept[0] * kept[1]))
    assert found <= exact + 1e-9 * penalty * total
    assert found <= nodal + 1e-9 * penalty * total


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6))
def test_coarse_cells_hold_the_exact_moments(seed):
    rng = np.random.default_rng(seed)
    grid = random_grid(rng, rng.integers(1, 6, 3))
    a = rng.random(grid.shape)
    edges = even_edges(grid, rng.integers(1, 40))
    held = pieces(a, grid, edges)
    mass = a * grid.voxel_volume_mm3
    assert held.mass.sum() == pytest.approx(mass.sum())
    for axis, (e, cut) in enumerate(zip(grid.edges_mm, edges, strict=True)):
        mean = np.sum(mass.sum(axis=tuple({0, 1, 2} - {axis})) * ((e[1:] + e[:-1]) / 2 - e[0]))
        assert np.sum(held.mass * held.center[axis]) == pytest.approx(mean if cut.size > 2 else 0.0)
    second = sum(
        np.sum(mass.sum(axis=tuple({0, 1, 2} - {k})) * (np.diff((e - e[0]) ** 3) / (3 * np.diff(e))))
        for k, (e, cut) in enumerate(zip(grid.edges_mm, edges, strict=True))
        if cut.size > 2
    )
    assert np.sum(held.mass * held.square) == pytest.approx(second)


def two_from_one(n=60, h=4.0):
    """A blob on a line, two blobs on both sides of it."""
    edges = np.arange(n + 1) * h
    x = (edges[1:] + edges[:-1]) / 2
    a = np.exp(-((x - 120) ** 2) / 300)
    b = 0.6 * np.exp(-((x - 50) ** 2) / 300) + 0.4 * np.exp(-((x - 185) ** 2) / 200)
    return a, b, edges


@pytest.mark.parametrize("length", [60.0, 100.0, 300.0])
def test_dose_that_travels_far_is_bracketed_around_the_static_form(length):
    a, b, edges = two_from_one()
    a, b = a + 1e-3, b + 1e-3
    grid = Grid(z_edges_mm=[0, 1], y_edges_mm=[0, 1], x_edges_mm=edges)
    found = dose_movers_distance(
        reference=DoseMap(dose_gy=a[None, None], grid=grid),
        evaluated=DoseMap(dose_gy=b[None, None], grid=grid),
        ambient_dose_percent=0,
        exchange_mm_per_percent=length / 100,
    )
    dual, primal = static_problem(a, b, edges, length, parts=2)
    assert found.lower <= primal * 1.005
    assert found.upper >= dual * 0.995
    assert found.gap < 0.06
    assert not found.settings["linear"]
    assert found.value == pytest.approx((dual + primal) / 2, rel=0.03)
    moved, changed = found.parts["dmd_moved_mm"], found.parts["dmd_changed_percent"]
    assert np.hypot(moved, length / 100 * changed) == pytest.approx(found.settings["estimate_mm"], rel=1e-6)
    v = found.fields["displacement_mm"][0, 0, 0]
    x = (edges[1:] + edges[:-1]) / 2
    assert v[np.argmin(abs(x - 110))] == pytest.approx(-70, abs=15)
    assert v[np.argmin(abs(x - 140))] == pytest.approx(60, abs=15)
    for values in found.fields.values():
        assert np.all(np.isfinite(values))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6))
def test_both_static_bounds_hold_for_any_maps_and_lengths(seed):
    """Against a change without movement, an upper bound of the distance, and against each other."""
    rng = np.random.default_rng(seed)
    grid = random_grid(rng, rng.integers(1, 6, 3))
    a, b = (rng.random(grid.shape) * (rng.random(grid.shape) > 0.3) for _ in range(2))
    a.flat[0] = b.flat[-1] = 1.0
    length = float(rng.choice([2.0, 20.0, 100.0, 1e4]))
    found = static_bounds(a, b, grid, length_mm=length, n_cells=60, n_nodes=400)
    volume = grid.voxel_volume_mm3
    still = hellinger_mm(a, b, volume, length) ** 2 * np.sum(a * volume)
    assert found.lower <= found.bound.squared * (1 + 1e-9)
    assert found.lower <= still * (1 + 1e-9)
    apart = 4 * length**2 * np.sum((a + b) * volume)
    assert found.bound.squared <= apart * (1 + 1e-9)


def test_a_bath_that_appears_is_bounded_from_below():
    n = 32
    grid = Grid.regular(shape=(n, n, n), spacing_mm=(8.0, 8.0, 8.0))
    z, y, x = (c - c.mean() for c in grid.centers_mm)
    r = np.sqrt(x**2 + y[:, None] ** 2 + z[:, None, None] ** 2)
    a = 1 / (1 + np.exp((r - 50) / 3))
    found = dose_movers_distance(
        reference=DoseMap(dose_gy=a, grid=grid), evaluated=DoseMap(dose_gy=a + 0.01, grid=grid)
    )
    assert found.gap < 0.12


def test_static_bounds_are_symmetric():
    a, b, edges = two_from_one()
    grid = Grid(z_edges_mm=[0, 1], y_edges_mm=[0, 1], x_edges_mm=edges)
    maps = [DoseMap(dose_gy=v[None, None], grid=grid) for v in (a, b)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AccuracyWarning)
        there, back = (
            dose_movers_distance(reference=p, evaluated=q, ambient_dose_gy=1e-3)
            for p, q in (maps, maps[::-1])
        )
    scale = np.sqrt(maps[1].integral_gy_mm3 / maps[0].integral_gy_mm3)
    for side in ("lower", "value", "upper"):
        assert getattr(there, side) == pytest.approx(getattr(back, side) * scale, rel=1e-8)
