"""What a flux leaves over, carried away cell by cell."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dosemover.grid import Grid
from dosemover.transport.settlement import settle_by_cells


def line(n):
    return Grid.regular(shape=(1, 1, n), spacing_mm=(2.0, 3.0, 5.0))


def test_two_voxels_cost_the_integral_of_their_linear_flux():
    # a flux that rises from 0 to T and falls to 0 again: T^2 / 3 in each voxel, over its mobility
    residual, inverse = np.array([[[2.0, -2.0]]]), np.array([[[0.5, 4.0]]])
    energy, left = settle_by_cells(residual, inverse, line(2))
    area, width = 15.0, 2.0
    assert energy == pytest.approx((2.0 / area) ** 2 / 3 * (0.5 + 4.0) * area * width)
    np.testing.assert_allclose(left, 0.0, atol=1e-15)


def least_energy(residual, inverse, grid):
    """Energy of the best flux on a line: the cumulative residual, linear within each voxel."""
    flux = np.concatenate([[0.0], np.cumsum(residual.ravel())]) / 15.0
    squares = (flux[1:] ** 2 + flux[1:] * flux[:-1] + flux[:-1] ** 2) / 3
    return float(np.sum(squares * inverse.ravel())) * grid.voxel_volume_mm3.flat[0]


@settings(max_examples=30)
@given(st.integers(2, 33), st.integers(0, 10_000))
def test_on_a_line_no_less_is_charged_than_the_only_flux_costs(n, seed):
    rng = np.random.default_rng(seed)
    residual = rng.standard_normal((1, 1, n))
    residual -= residual.mean()
    inverse = rng.uniform(0.1, 10.0, (1, 1, n))
    energy, left = settle_by_cells(residual, inverse, line(n))
    assert energy >= least_energy(residual, inverse, line(n)) * (1 - 1e-12)
    np.testing.assert_allclose(left, 0.0, atol=1e-12)


@settings(max_examples=30)
@given(st.tuples(*[st.integers(1, 7)] * 3), st.integers(0, 10_000))
def test_what_may_not_be_entered_keeps_its_residual_and_no_mass_is_lost(shape, seed):
    rng = np.random.default_rng(seed)
    grid = Grid.regular(shape=shape, spacing_mm=(1.0, 2.0, 3.0))
    residual = rng.standard_normal(shape)
    inverse = np.where(rng.random(shape) < 0.1, -1.0, rng.uniform(0.1, 10.0, shape))
    energy, left = settle_by_cells(residual, inverse, grid)
    assert energy >= 0
    assert left.sum() == pytest.approx(residual.sum(), abs=1e-11)
    np.testing.assert_array_equal(left[inverse <= 0], residual[inverse <= 0])


def test_noise_of_one_size_costs_less_on_finer_voxels():
    # it has shorter ways to even out; along a single path through all voxels it would cost more
    rng = np.random.default_rng(0)
    costs = []
    for n in (16, 32):
        grid = Grid.regular(shape=(n, n, n), spacing_mm=(64 / n,) * 3)
        residual = rng.standard_normal((n, n, n)) * (16 / n) ** 3
        residual -= residual.mean()
        costs.append(settle_by_cells(residual, np.ones((n, n, n)), grid)[0])
    assert costs[1] < 0.35 * costs[0]
