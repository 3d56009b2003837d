"""Certified bounds against brute force: no sampled point may lie below a bound."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import NdBSpline
from scipy.ndimage import map_coordinates

from dosemover.grid import Grid
from dosemover.transport.bounds import balanced_upper_bound, flux_upper_bound, half_step_lower_bounds
from dosemover.transport.spline import SplineSpace

GAUSS, WEIGHTS = np.polynomial.legendre.leggauss(4)


def even_spline(c, h):
    """The quadratic spline by another program: scipy's B-splines, mirrored at the box; voxel i around i h."""
    return lambda z: map_coordinates(c, (z / h).T, order=2, prefilter=False, mode="reflect")


def uneven_spline(c, edges):
    """The same with knots on any edges, mirrored at the box."""
    knots = []
    for e in edges:
        v = np.diff(e)
        low, high = (e[0] - v[0], e[0]), (e[-1], e[-1] + v[-1])
        before, after = low[0] - v[min(1, v.size - 1)], high[1] + v[max(-2, -v.size)]
        knots.append(np.concatenate([[before, low[0]], e, [high[1], after]]))
    spline = NdBSpline(tuple(knots), np.pad(c, 1, mode="symmetric"), 2)

    def value(z):
        inside = []
        for x, e in zip(z.T, edges, strict=True):
            side = e[-1] - e[0]
            inside.append(e[-1] - np.abs(side - np.mod(x - e[0], 2 * side)))
        return spline(np.stack(inside, axis=1))

    return value


def brute_half_step(value_of, h, sign, points, rng):
    """2 min over z of (sign w(z) + |x - z|^2), by descent from several starts: never below the infimum."""
    best = np.full(len(points), np.inf)
    for spread in (0.0, 0.5):
        z = points + spread * h * rng.normal(size=points.shape)
        for _ in range(30):
            slope = np.stack(
                [(value_of(z + 1e-5 * e) - value_of(z - 1e-5 * e)) / 2e-5 for e in np.eye(points.shape[1])],
                axis=1,
            )
            z = z - 0.4 * (sign * slope + 2 * (z - points))
        value = sign * value_of(z) + np.sum((points - z) ** 2, axis=1)
        best = np.minimum(best, value)
    return 2 * best


def voxel_points(index, h):
    """Gauss points and weights of one voxel, in units where voxel i is centred at i h."""
    grids = np.meshgrid(*[GAUSS / 2] * 3, indexing="ij")
    offsets = np.stack(grids, axis=-1).reshape(-1, 3)
    weights = np.einsum("i,j,k->ijk", WEIGHTS, WEIGHTS, WEIGHTS).ravel() / 8
    return (np.array(index) + offsets) * h, weights


@pytest.mark.parametrize("amplitude", [0.05, 0.8, 6.0])
@pytest.mark.parametrize("penalty", [np.inf, 400.0])
@pytest.mark.parametrize("halve", [False, True])
def test_no_voxel_mean_of_a_half_step_lies_below_its_bound(amplitude, penalty, halve):
    rng = np.random.default_rng(int(10 * amplitude))
    shape, h = (5, 6, 7), 2.0
    grid = Grid.regular(shape=shape, spacing_mm=(h, h, h))
    c = amplitude * rng.standard_normal(shape)
    space, fine = SplineSpace(grid), c
    if halve:
        space, fine = space.refined(c)
    for index in [(2, 3, 3), (0, 0, 6), (4, 2, 1)]:
        points, weights = voxel_points(index, h)
        hot, none = np.zeros(shape), np.zeros(shape)
        hot[index] = 1.0
        for sign, pair in ((1.0, (hot, none)), (-1.0, (none, hot))):
            bound = half_step_lower_bounds(space, fine, *pair, penalty=penalty)[0][0] / h**3
            phi = brute_half_step(even_spline(c, h), h, sign, points, rng)
            gain = phi if np.isinf(penalty) else penalty * -np.expm1(-phi / penalty)
            assert bound <= weights @ gain + 1e-5


@pytest.mark.parametrize("amplitude", [0.01, 0.1, 1.0])
def test_no_voxel_mean_lies_below_its_bound_on_slivers_either(amplitude):
    rng = np.random.default_rng(int(100 * amplitude))
    for _ in range(3):
        shape = (6, 4, 7)
        edges = [np.cumsum(np.append(0.0, 10 ** rng.uniform(-1.5, 0.5, n))) for n in shape]
        grid = Grid(z_edges_mm=edges[0], y_edges_mm=edges[1], x_edges_mm=edges[2])
        z, y, x = np.meshgrid(*[np.asarray(m) for m in grid.centers_mm], indexing="ij")
        c = amplitude * (np.cos(2 * x + y) + np.sin(y - z)) * (1 + 0.1 * rng.standard_normal(shape))
        space, value = SplineSpace(grid), uneven_spline(c, edges)
        mean = value(np.stack([z.ravel(), y.ravel(), x.ravel()], axis=1)).reshape(shape)
        assert np.abs(mean - space.midpoints(c, iterations=1)[0]).max() < 1e-9 * amplitude
        for index in [tuple(rng.integers(0, shape)) for _ in range(6)]:
            box = [(e[i], e[i + 1]) for e, i in zip(edges, index, strict=True)]
            unit, weights = voxel_points((0, 0, 0), 1.0)
            points = np.array([(lo + hi) / 2 for lo, hi in box]) + unit * [hi - lo for lo, hi in box]
            hot, none = np.zeros(shape), np.zeros(shape)
            hot[index] = 1.0
            for sign, pair in ((1.0, (hot, none)), (-1.0, (none, hot))):
                bound = half_step_lower_bounds(space, c, *pair, penalty=np.inf)[0][0]
                phi = brute_half_step(value, 1.0, sign, points, rng)
                assert bound / grid.voxel_volume_mm3[index] <= weights @ phi + 1e-5


def test_a_smooth_potential_loses_next_to_nothing():
    n, h = 24, 2.0
    grid = Grid.regular(shape=(n, n, n), spacing_mm=(h, h, h))
    z, y, x = np.meshgrid(*[np.arange(n) * h] * 3, indexing="ij")
    w = 4 * np.cos(np.pi * x / 46) * np.cos(np.pi * y / 46) + 0.5 * np.cos(np.pi * z / 46)
    a = 1 + 0.5 * np.exp(-((x - 23) ** 2 + (y - 20) ** 2) / 200)
    space = SplineSpace(grid)
    bound = half_step_lower_bounds(space, w, a, a, penalty=np.inf)[0][0]
    _, slope, _ = space.voxel_means(w)
    kinetic = float(np.sum(a * slope) * h**3)
    assert bound == pytest.approx(-kinetic, rel=0.02)
    assert bound <= -kinetic


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(2, 6)))
def test_any_potential_gives_a_lower_and_any_flux_an_upper_bound(seed, shape):
    rng = np.random.default_rng(seed)
    edges = [np.concatenate([[0.0], np.cumsum(rng.uniform(0.5, 2.0, n))]) for n in shape]
    grid = Grid(z_edges_mm=edges[0], y_edges_mm=edges[1], x_edges_mm=edges[2])
    a, b = rng.uniform(0.1, 1.0, shape), rng.uniform(0.1, 1.0, shape)
    length = rng.uniform(1.0, 50.0)
    rough = flux_upper_bound(a, b, grid, length_mm=length, max_iterations=0, start=rng.standard_normal(shape))
    good = flux_upper_bound(a, b, grid, length_mm=length, tolerance=1e-8)
    assert good.squared <= rough.squared * (1 + 1e-9)
    c = rng.uniform(0, 1.0) * rng.standard_normal(shape)
    lower = half_step_lower_bounds(SplineSpace(grid), c, a, b, penalty=4 * length**2)[0][0]
    assert lower <= good.squared


def test_the_flux_bound_of_one_line_is_the_integral_of_its_cumulative_flux():
    rng = np.random.default_rng(0)
    n = 9
    edges = np.concatenate([[0.0], np.cumsum(rng.uniform(0.5, 2.0, n))])
    grid = Grid(z_edges_mm=[0, 1], y_edges_mm=[0, 1], x_edges_mm=edges)
    h = np.diff(edges)
    a, b = rng.uniform(0.5, 1.0, n), rng.uniform(0.5, 1.0, n)
    a, b = a / (a @ h), b / (b @ h)
    m = np.concatenate([[0.0], np.cumsum((a - b) * h)])
    theta = (b - a) / np.log(b / a)
    expected = np.sum(h / theta * (m[1:] ** 2 + m[1:] * m[:-1] + m[:-1] ** 2) / 3)
    found = balanced_upper_bound(a[None, None], b[None, None], grid, tolerance=1e-8)
    assert found.squared == pytest.approx(expected, rel=1e-9)
    rough = balanced_upper_bound(a[None, None], b[None, None], grid, max_iterations=0)
    assert rough.squared >= expected


@pytest.mark.parametrize("tolerance", [0.3, 1e-4, 1e-8])
def test_what_the_tree_carries_into_the_main_parts_is_paid_for(tolerance):
    worst = np.inf
    for seed in range(40):
        rng = np.random.default_rng(seed)
        n = int(rng.integers(6, 30))
        h = np.exp(rng.choice([0.0, 0.5]) * rng.standard_normal(n))
        a, b = rng.uniform(0.5, 1.0, n), rng.uniform(0.5, 1.0, n)
        thin = slice(n - int(rng.integers(1, n // 2)), n)
        level = 10 ** rng.uniform(-9, -6.2)
        a[thin] *= level
        b[thin] *= level * 10 ** rng.uniform(-1, 2)
        a, b = a / (a @ h), b / (b @ h)
        m = np.concatenate([[0.0], np.cumsum((a - b) * h)])
        exact = np.sum(h * np.log(b / a) / (b - a) * (m[1:] ** 2 + m[1:] * m[:-1] + m[:-1] ** 2) / 3)
        edges = np.concatenate([[0.0], np.cumsum(h)])
        grid = Grid(z_edges_mm=[0, 1], y_edges_mm=[0, 1], x_edges_mm=edges)
        found = balanced_upper_bound(a[None, None], b[None, None], grid, tolerance=tolerance).squared
        worst = min(worst, found / exact - 1)
    assert worst > -1e-11


def test_parts_of_different_mass_that_nothing_connects_have_no_flux_bound():
    a, b = np.zeros((1, 1, 7)), np.zeros((1, 1, 7))
    a[0, 0, :2], b[0, 0, 5:] = 0.5, 0.5
    grid = Grid.regular(shape=(7,), spacing_mm=(1.0,))
    assert balanced_upper_bound(a, b, grid).squared == np.inf
    b[0, 0, :2], b[0, 0, 5:] = 0.4, 0.1
    assert balanced_upper_bound(a, b, grid).squared == np.inf
    b[0, 0, 5:], b[0, 0, :2] = 0.0, (0.7, 0.3)
    assert np.isfinite(balanced_upper_bound(a, b, grid).squared)
