"""Two measures merged to cells, whose spline potentials are splines on the voxels too."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dosemover.grid import Grid
from dosemover.transport.measure import MeasurePair
from dosemover.transport.spline import SplineSpace, solve_potential

_MOST_CELLS = 270_000
"""Cells to merge voxels to: a potential is looked for there in a second."""

_FEWEST = 12
"""Cells along an axis below which its voxels are not merged."""

_MARGIN = 3
"""Cells without dose around the box: splines are flat at their border, and potentials may not be."""

_EVEN = 1e-6
"""Relative spread of the widths of an axis whose voxels are merged."""

_FLOOR = 1e-4
"""Smallest mobility over the largest."""


class CoarsePair:
    """A pair of measures with a margin, on its voxels and on cells of 1, 2, 4.. voxels along each axis.

    Parameters
    ----------
    pair : MeasurePair
        Both measures with mass 1.
    most : int
        Merge voxels until there are no more cells than this.

    Attributes
    ----------
    pair : MeasurePair
    fine, cells : MeasurePair
        With a margin of empty voxels, on voxels and on cells.
    space : SplineSpace
        Of the cells.
    merged : bool
        Whether cells hold more than one voxel.
    """

    def __init__(self, pair: MeasurePair, *, most: int = _MOST_CELLS) -> None:
        self.pair = pair
        factors = _factors(pair.grid, most)
        self._halvings = [int(np.log2(f)) for f in factors]
        self.fine, self._inner = _with_margin(pair, factors)
        self.cells = _merged(self.fine, factors)
        self.space = SplineSpace(self.cells.grid)
        self.merged = max(factors) > 1

    @cached_property
    def estimate(self) -> NDArray[np.float64]:
        """Coefficients on the cells of the potential u of the linear estimate [mm2]."""
        a, b = self.cells.a, self.cells.b
        theta = (a + b) / 2
        theta = np.maximum(theta, _FLOOR * float(theta.max()))
        found = solve_potential(self.space, theta, b - a, screening=0.0, tolerance=3e-3, max_iterations=80)
        return found.x

    def on_voxels(self, w: NDArray[np.float64]) -> tuple[SplineSpace, NDArray[np.float64]]:
        """The same spline as coefficients on the voxels."""
        space = self.space
        for step in range(max(self._halvings)):
            axes = tuple(axis for axis in range(3) if step < self._halvings[axis])
            space, w = space.refined(w, axes)
        return space, w

    def inner(self, values: NDArray[Any]) -> NDArray[Any]:
        """Values on the voxels without the margin."""
        return np.ascontiguousarray(values[self._inner])


def _factors(grid: Grid, most: int) -> list[int]:
    """Voxels in a cell along each axis: the finest axes are merged first."""
    factors = [1, 1, 1]
    sizes = list(grid.shape)
    widths = [float(v.mean()) for v in grid.widths_mm]
    even = [np.ptp(v) <= _EVEN * v.mean() for v in grid.widths_mm]
    while np.prod(sizes) > most:
        free = [axis for axis in range(3) if even[axis] and sizes[axis] >= 2 * _FEWEST]
        if not free:
            break
        axis = min(free, key=lambda one: widths[one])
        factors[axis] *= 2
        widths[axis] *= 2
        sizes[axis] = -(-sizes[axis] // 2)
    return factors


def _with_margin(pair: MeasurePair, factors: list[int]) -> tuple[MeasurePair, tuple[slice, ...]]:
    """The same measures with empty voxels around: whole cells, three on each side."""
    edges, pads, inner = [], [], []
    for e, f in zip(pair.grid.edges_mm, factors, strict=True):
        n = e.size - 1
        before = _MARGIN * f if n > 1 else 0
        after = before + (-n) % f
        low = e[0] - np.arange(before, 0, -1) * (e[1] - e[0])
        high = e[-1] + np.arange(1, after + 1) * (e[-1] - e[-2])
        edges.append(np.concatenate([low, e, high]))
        pads.append((before, after))
        inner.append(slice(before, before + n))
    grid = Grid(z_edges_mm=edges[0], y_edges_mm=edges[1], x_edges_mm=edges[2])
    return MeasurePair(a=np.pad(pair.a, pads), b=np.pad(pair.b, pads), grid=grid), tuple(inner)


def _merged(pair: MeasurePair, factors: list[int]) -> MeasurePair:
    """Densities on cells of ``factors`` voxels."""
    if max(factors) == 1:
        return pair
    split = [size for n, f in zip(pair.grid.shape, factors, strict=True) for size in (n // f, f)]
    a, b = (d.reshape(split).mean(axis=(1, 3, 5)) for d in (pair.a, pair.b))
    z, y, x = (e[::f] for e, f in zip(pair.grid.edges_mm, factors, strict=True))
    return MeasurePair(a=a, b=b, grid=Grid(z_edges_mm=z, y_edges_mm=y, x_edges_mm=x))
