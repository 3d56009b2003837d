r"""Two balanced densities brought over each other by whole voxels before they are compared.

With m the distance of the centers of mass and T_s a the density a moved by any s,

    W_2(a, b)^2 = W_2(T_s a, b)^2 + |m|^2 - |m - s|^2,

because |y - x|^2 = |y - x - s|^2 + 2 s.(y - x) - |s|^2 and y - x has the mean m under every plan. The plans
are the same, moved; so are the bounds. Potentials change by 2 s.x. What is left to solve has short paths that
stay where there is dose, instead of long ones through the vacuum.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dosemover.grid import Grid
from dosemover.transport.measure import MeasurePair

_WORTH_MOVING = 0.7
"""Share of the unmatched mass that may stay unmatched after the move."""

_WORTH_EXPOSING = 1e-4
"""Share of the mass that may come to lie where the other map is 0, if less did before."""

_EVEN = 1e-6
"""Relative spread of the widths of an axis along which densities are moved."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Alignment:
    """A pair with its reference density moved by whole voxels.

    Parameters
    ----------
    pair : MeasurePair
        T_s a and b.
    shift_mm : ndarray, shape (3,)
        s along z, y, x.
    gained : float
        |m|^2 - |m - s|^2 [mm2], to be added to squared distances.
    steps : tuple of int
        s in voxels.
    first : tuple of int
        Index of the pair's first voxel in the grid that was given.
    """

    pair: MeasurePair
    shift_mm: NDArray[np.float64]
    gained: float
    steps: tuple[int, int, int]
    first: tuple[int, int, int]

    def at_reference(self, values: NDArray[Any], grid: Grid) -> NDArray[Any]:
        """Values [..., z, y, x] at the voxels that the given pair's were moved to; nearest outside."""
        index = [
            np.clip(np.arange(n) + k - low, 0, m - 1)
            for n, k, low, m in zip(grid.shape, self.steps, self.first, self.pair.grid.shape, strict=True)
        ]
        return values[(..., *np.ix_(*index))]

    def at_evaluated(self, values: NDArray[Any], grid: Grid) -> NDArray[Any]:
        """Values [..., z, y, x] at the voxels of a grid that the pair was cut from; nearest outside."""
        index = [
            np.clip(np.searchsorted(own, (edges[1:] + edges[:-1]) / 2) - 1, 0, own.size - 2)
            for own, edges in zip(self.pair.grid.edges_mm, grid.edges_mm, strict=True)
        ]
        return values[(..., *np.ix_(*index))]

    def squared_way(self, grid: Grid) -> NDArray[np.float64]:
        """Mean over each voxel of ``grid`` of the squared distance to the pair's box [mm2]: 0 inside."""
        z, y, x = (
            _mean_square(edges, box[0], box[-1])
            for edges, box in zip(grid.edges_mm, self.pair.grid.edges_mm, strict=True)
        )
        return z[:, None, None] + y[:, None] + x


def aligned(pair: MeasurePair) -> Alignment:
    """Move the reference density of a pair of equal masses by whole voxels, where they match better then.

    Notes
    -----
    *Limits*: only along axes of even spacing. Not where the smaller part of the dose has moved, nor where
    dose would be moved off the other map, as at the border of a body that stays where it is.
    """
    steps = _steps(pair)
    if any(steps):
        moved = _moved(pair, steps)
        before, exposed_before = _unmatched(pair)
        after, exposed_after = _unmatched(moved.pair)
        if after < _WORTH_MOVING * before and exposed_after <= max(exposed_before, _WORTH_EXPOSING):
            return moved
    still = (0, 0, 0)
    return Alignment(pair=pair, shift_mm=np.zeros(3), gained=0.0, steps=still, first=still)


def _mean_square(edges: NDArray[Any], low: float, high: float) -> NDArray[np.float64]:
    """Mean over each voxel of an axis of the squared distance to the interval from low to high."""
    way = np.maximum(np.maximum(low - edges, edges - high), 0.0)
    first, last = way[:-1], way[1:]
    return (first * first + first * last + last * last) / 3


def _unmatched(pair: MeasurePair) -> tuple[float, float]:
    """Mass by which the densities differ, and what of it lies where one of them is 0."""
    volume = pair.grid.voxel_volume_mm3
    mass = np.abs(pair.a - pair.b) * volume
    return float(mass.sum()), float(mass[(pair.a > 0) != (pair.b > 0)].sum())


def _center(density: NDArray[np.float64], grid: Grid) -> NDArray[np.float64]:
    """Center of mass [mm], z, y, x."""
    mass = density * grid.voxel_volume_mm3
    sums = (mass.sum(axis=tuple(j for j in range(3) if j != i)) for i in range(3))
    middles = ((e[1:] + e[:-1]) / 2 for e in grid.edges_mm)
    return np.array([np.dot(s, x) / s.sum() for s, x in zip(sums, middles, strict=True)])


def _steps(pair: MeasurePair) -> tuple[int, int, int]:
    """Distance of the centers in whole voxels; 0 along uneven axes."""
    distance = _center(pair.b, pair.grid) - _center(pair.a, pair.grid)
    steps = [
        round(float(m / v.mean())) if np.ptp(v) <= _EVEN * v.mean() else 0
        for m, v in zip(distance, pair.grid.widths_mm, strict=True)
    ]
    return steps[0], steps[1], steps[2]


def _support(density: NDArray[np.float64]) -> list[tuple[int, int]]:
    """First and last but one voxel with dose along each axis."""
    occupied = density > 0
    ends = []
    for axis in range(3):
        hits = np.flatnonzero(occupied.any(axis=tuple(j for j in range(3) if j != axis)))
        ends.append((int(hits[0]), int(hits[-1]) + 1))
    return ends


def _moved(pair: MeasurePair, steps: tuple[int, int, int]) -> Alignment:
    """The pair on the box that holds the moved reference and the evaluated density."""
    of_a, of_b = _support(pair.a), _support(pair.b)
    box = [
        (min(low + k, start), max(high + k, stop))
        for (low, high), (start, stop), k in zip(of_a, of_b, steps, strict=True)
    ]
    shape = tuple(high - low for low, high in box)
    a, b = np.zeros(shape), np.zeros(shape)
    from_a = tuple(slice(low, high) for low, high in of_a)
    from_b = tuple(slice(low, high) for low, high in of_b)
    to_a = tuple(
        slice(low + k - first, high + k - first)
        for (low, high), k, (first, _) in zip(of_a, steps, box, strict=True)
    )
    to_b = tuple(slice(low - first, high - first) for (low, high), (first, _) in zip(of_b, box, strict=True))
    a[to_a], b[to_b] = pair.a[from_a], pair.b[from_b]
    edges, widths = [], []
    for e, (low, high), k in zip(pair.grid.edges_mm, box, steps, strict=True):
        width = float(e[-1] - e[0]) / (e.size - 1)
        edges.append(e[0] + width * np.arange(low, high + 1) if k else e[low : high + 1])
        widths.append(width)
    grid = Grid(z_edges_mm=edges[0], y_edges_mm=edges[1], x_edges_mm=edges[2])
    shift = np.array(steps) * np.array(widths)
    rest = _center(b, grid) - _center(a, grid)
    return Alignment(
        pair=MeasurePair(a=a, b=b, grid=grid),
        shift_mm=shift,
        gained=float(np.dot(shift, shift + 2 * rest)),
        steps=steps,
        first=(box[0][0], box[1][0], box[2][0]),
    )
