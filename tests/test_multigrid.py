"""Multigrid, conjugate gradients and splines: against dense linear algebra and other programs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates

from dosemover.grid import Grid
from dosemover.transport.multigrid import Multigrid
from dosemover.transport.spline import SplineSpace, solve_potential


def random_grid(rng, shape, uneven=True):
    widths = [rng.uniform(0.5, 3.0, n) if uneven else np.full(n, 2.0) for n in shape]
    edges = [np.concatenate([[0.0], np.cumsum(w)]) for w in widths]
    return Grid(z_edges_mm=edges[0], y_edges_mm=edges[1], x_edges_mm=edges[2])


def dense(apply, shape):
    """Matrix of a linear map, column by column."""
    columns = []
    for i in range(int(np.prod(shape))):
        unit, out = np.zeros(shape), np.empty(shape)
        unit.flat[i] = 1.0
        apply(unit, out)
        columns.append(out.ravel().copy())
    return np.array(columns).T


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10**6), st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 5)))
def test_the_spline_operator_is_symmetric_and_its_constants_feel_the_screening_alone(seed, shape):
    rng = np.random.default_rng(seed)
    grid = random_grid(rng, shape)
    space, weights = SplineSpace(grid), rng.uniform(0.1, 1.0, shape)
    matrix = dense(lambda c, out: space.apply(c, weights, 0.3 * weights, out), shape)
    assert matrix == pytest.approx(matrix.T, abs=1e-12)
    assert matrix.sum() == pytest.approx(0.3 * weights.sum())
    assert np.linalg.eigvalsh(matrix).min() > 0


def test_voxel_means_are_those_of_quadrature():
    rng = np.random.default_rng(1)
    grid = Grid.regular(shape=(4, 5, 6), spacing_mm=(2.0, 2.0, 2.0))
    c = rng.standard_normal(grid.shape)
    mean, slope, square = SplineSpace(grid).voxel_means(c)
    nodes, weights = np.polynomial.legendre.leggauss(4)
    offset = np.stack(np.meshgrid(*[nodes / 2] * 3, indexing="ij"), -1).reshape(-1, 3)
    weight = np.einsum("i,j,k->ijk", weights, weights, weights).ravel() / 8

    def value(points):
        return map_coordinates(c, points.T, order=2, prefilter=False, mode="reflect")

    for index in [(0, 0, 0), (2, 3, 1), (3, 4, 5)]:
        points = np.array(index) + 0.999 * offset
        w = value(points)
        g = [(value(points + 1e-5 * e) - value(points - 1e-5 * e)) / 4e-5 for e in np.eye(3)]
        assert mean[index] == pytest.approx(weight @ w, rel=2e-3, abs=2e-3)
        assert square[index] == pytest.approx(weight @ w**2, rel=5e-3, abs=2e-3)
        assert slope[index] == pytest.approx(weight @ np.square(g).sum(axis=0), rel=5e-3, abs=2e-3)


def test_halving_the_voxels_keeps_the_spline():
    rng = np.random.default_rng(2)
    grid = random_grid(rng, (3, 1, 5))
    space, c = SplineSpace(grid), rng.standard_normal((3, 1, 5))
    fine, d = space.refined(c)
    assert fine.grid.shape == (6, 1, 10)
    for coarse, halves in zip(space.voxel_means(c), fine.voxel_means(d), strict=True):
        volume = fine.grid.voxel_volume_mm3
        sums = (halves * volume).reshape(3, 2, 1, 1, 5, 2).sum(axis=(1, 3, 5))
        assert sums == pytest.approx(coarse * grid.voxel_volume_mm3, rel=1e-9)


@pytest.mark.parametrize("shape", [(64, 1, 1), (1, 37, 53), (13, 17, 19), (31, 8, 5)])
@pytest.mark.parametrize("contrast", [0.0, 3.0])
@pytest.mark.parametrize("uneven", [False, True])
def test_few_iterations_suffice_at_odd_sizes_contrasts_and_uneven_voxels(shape, contrast, uneven):
    rng = np.random.default_rng(3)
    grid = random_grid(rng, shape, uneven)
    theta = 10 ** (-contrast * rng.random(shape))
    found = solve_potential(
        SplineSpace(grid), theta, rng.standard_normal(shape) * theta, screening=1e-4, tolerance=1e-3
    )
    assert found.converged
    assert found.n_iterations <= (25 if contrast == 0 else 55)


def test_the_solution_is_that_of_dense_algebra():
    rng = np.random.default_rng(4)
    shape = (3, 4, 5)
    grid = random_grid(rng, shape)
    space, theta, d = SplineSpace(grid), rng.uniform(0.1, 1, shape), rng.standard_normal(shape)
    volume = grid.voxel_volume_mm3
    matrix = dense(lambda c, out: space.apply(c, theta * volume, 0.01 * theta * volume, out), shape)
    exact = np.linalg.solve(matrix, space.load(d * volume).ravel()).reshape(shape)
    found = solve_potential(space, theta, d, screening=0.01, tolerance=1e-10)
    assert found.x == pytest.approx(exact, rel=1e-7, abs=1e-9)


@pytest.mark.parametrize("screening", [0.0, 1e-9, 1e-3])
def test_the_preconditioner_is_symmetric_and_positive(screening):
    rng = np.random.default_rng(5)
    grid = random_grid(rng, (5, 7, 6))
    pre = Multigrid(rng.uniform(0.01, 1, grid.shape), grid, screening=screening, splines=True)
    x, y = rng.standard_normal((2, *grid.shape))
    x, y = x - x.mean(), y - y.mean()
    mx, my = np.empty_like(x), np.empty_like(y)
    pre(x, mx)
    pre(y, my)
    assert np.vdot(x, my) == pytest.approx(np.vdot(y, mx), rel=1e-3, abs=1e-3 * np.vdot(x, mx))
    assert np.vdot(x, mx) > 0


@pytest.mark.parametrize("thin", [0.5, 0.05])
def test_slivers_between_voxels_do_not_slow_the_solver_down(thin):
    edges = np.sort(np.concatenate([np.arange(0.0, 41.0, 4.0), np.arange(0.0, 37.0, 4.0) + thin]))
    grid = Grid(z_edges_mm=edges, y_edges_mm=edges, x_edges_mm=edges)
    z, y, x = ((e[1:] + e[:-1]) / 2 for e in grid.edges_mm)
    source = np.cos(z / 9)[:, None, None] * np.cos(y / 7)[:, None] * np.sin(x / 8)
    theta = 0.01 + np.exp(-((z[:, None, None] - 20) ** 2 + (y[:, None] - 20) ** 2 + (x - 20) ** 2) / 90)
    found = solve_potential(SplineSpace(grid), theta, source, screening=1e-4, tolerance=1e-3)
    assert found.converged
    assert found.n_iterations <= 15
