"""Preparing and running a gamma search: axes in criterion units, the order of cells, dose ranges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dosemover._runtime import Progress
from dosemover.dose import DoseMap
from dosemover.errors import InputError
from dosemover.grid import Grid

_SNAP = 2e-7  # criterion units: reference points this close to a plane of evaluated voxel centres lie on it
_HOME_TOLERANCE = 1e-4  # criterion units: points this close below a node count to the cell above it
_POINTS_PER_CALL = 2**18  # points between two progress reports
_MAX_OFFSETS = 20_000_000


@dataclass(frozen=True, kw_only=True, eq=False)
class SearchAxis:
    """One axis of a search; every length in units of the distance criterion.

    Parameters
    ----------
    nodes : ndarray, shape (cells + 1,)
        Where the evaluated dose is pinned: its voxel centres and the two outer boundaries; in voxel
        search the voxel centres alone.
    positions : ndarray, shape (reference voxels,)
        Reference voxel centres.
    homes : ndarray of int, shape (reference voxels,)
        Cell (or voxel) from which offsets count.
    first, last : int
        Smallest and largest offset that any reference voxel can reach; ``first > last`` when none.
    distances : ndarray, shape (last - first + 1,)
        Smallest distance between a reference voxel and its cell at that offset.
    low, high : ndarray of int, shape (cells,)
        Evaluated voxels at the two ends of each cell.
    """

    nodes: NDArray[np.float64]
    positions: NDArray[np.float64]
    homes: NDArray[np.int64]
    first: int
    last: int
    distances: NDArray[np.float64]
    low: NDArray[np.int64]
    high: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Found:
    """What a search found for each point.

    Parameters
    ----------
    gamma : ndarray, shape (points,)
        At most the maximum gamma.
    closest : ndarray of float32, shape (points, 4)
        Displacement (x, y, z) and dose residual of the closest point in criterion units; NaN where
        none is closer than the maximum gamma.
    """

    gamma: NDArray[np.float64]
    closest: NDArray[np.float32]


def _snapped(positions: NDArray[np.float64], nodes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Positions, moved onto a node where they differ from it by rounding only."""
    after = np.clip(np.searchsorted(nodes, positions), 1, nodes.size - 1)
    nearest = np.where(positions - nodes[after - 1] < nodes[after] - positions, after - 1, after)
    return np.where(np.abs(positions - nodes[nearest]) < _SNAP, nodes[nearest], positions)


def _reach(
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    positions: NDArray[np.float64],
    homes: NDArray[np.int64],
    max_gamma: float,
) -> tuple[int, int, NDArray[np.float64]]:
    """Offsets of the intervals [low, high] within ``max_gamma`` of a position, and their least distances."""
    first_hit = np.searchsorted(high, positions - max_gamma, "left")
    last_hit = np.searchsorted(low, positions + max_gamma, "right") - 1
    near = last_hit >= first_hit
    if not near.any():
        return 0, -1, np.empty(0)
    first, last = int((first_hit - homes)[near].min()), int((last_hit - homes)[near].max())
    distances = np.full(last - first + 1, np.inf)
    for i, offset in enumerate(range(first, last + 1)):
        at = homes + offset
        inside = (at >= 0) & (at < low.size)
        if inside.any():
            x, cell = positions[inside], at[inside]
            distances[i] = np.maximum(np.maximum(low[cell] - x, x - high[cell]), 0.0).min()
    return first, last, distances


def _cell_axis(
    centers_mm: NDArray[np.float64], edges_mm: NDArray[np.float64], distance_mm: float, max_gamma: float
) -> SearchAxis:
    """Axis of a search through the cells between voxel centres, and the outer half voxels."""
    n = edges_mm.size - 1
    inner = (edges_mm[1:] + edges_mm[:-1]) / 2 if n > 1 else np.empty(0)
    nodes = np.concatenate([edges_mm[:1], inner, edges_mm[-1:]]) / distance_mm
    positions = _snapped(centers_mm / distance_mm, nodes)
    cells = np.arange(nodes.size - 1)
    homes = np.clip(np.searchsorted(nodes, positions + _HOME_TOLERANCE, "right") - 1, 0, cells[-1])
    first, last, distances = _reach(nodes[:-1], nodes[1:], positions, homes, max_gamma)
    return SearchAxis(
        nodes=nodes,
        positions=positions,
        homes=homes,
        first=first,
        last=last,
        distances=distances,
        low=np.clip(cells - 1, 0, n - 1),
        high=np.clip(cells, 0, n - 1),
    )


def _voxel_axis(
    centers_mm: NDArray[np.float64], edges_mm: NDArray[np.float64], distance_mm: float, max_gamma: float
) -> SearchAxis:
    """Axis of a search through voxel centres; a slice alone reaches over its own thickness."""
    nodes = (edges_mm[1:] + edges_mm[:-1]) / 2 / distance_mm
    positions = centers_mm / distance_mm
    if nodes.size == 1:
        half = (edges_mm[1] - edges_mm[0]) / 2 / distance_mm
        from_center = positions - nodes[0]
        positions = nodes[0] + np.sign(from_center) * np.maximum(np.abs(from_center) - half, 0.0)
    homes = np.clip(np.searchsorted(nodes, positions + _HOME_TOLERANCE, "right") - 1, 0, nodes.size - 1)
    first, last, distances = _reach(nodes, nodes, positions, homes, max_gamma)
    voxels = np.arange(nodes.size)
    return SearchAxis(
        nodes=nodes,
        positions=positions,
        homes=homes,
        first=first,
        last=last,
        distances=distances,
        low=voxels,
        high=voxels,
    )


def _ordered_offsets(
    axes: list[SearchAxis], max_gamma: float
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Cell offsets within ``max_gamma`` in order of their least squared distance, and that distance."""
    count = int(np.prod([max(axis.distances.size, 0) for axis in axes], dtype=float))
    if count > _MAX_OFFSETS:
        raise InputError(
            f"`max_gamma` times the distance criterion reaches over {count} voxels of the evaluated grid. "
            f"A search that wide would not end. Lower `max_gamma`, now {max_gamma}, or the criterion."
        )
    z, y, x = (axis.distances**2 for axis in axes)
    squares = (z[:, None, None] + y[:, None] + x).ravel()
    order = np.argsort(squares, kind="stable")
    order = order[squares[order] < max_gamma**2]
    steps = np.unravel_index(order, (z.size, y.size, x.size)) if order.size else (order,) * 3
    offsets = np.stack([s + axis.first for s, axis in zip(steps, axes, strict=True)], axis=1)
    return np.ascontiguousarray(offsets, dtype=np.int64), squares[order]


class GammaSearch:
    """The evaluated map, ready to be searched at any criterion.

    Parameters
    ----------
    grid : Grid
        Grid of the reference.
    index : ndarray of int64, shape (points,)
        Flat indices of the reference voxels to evaluate.
    dose_gy : ndarray of float64, shape (points,)
        Reference dose there [Gy].
    evaluated : DoseMap
    """

    def __init__(
        self, *, grid: Grid, index: NDArray[np.int64], dose_gy: NDArray[np.float64], evaluated: DoseMap
    ) -> None:
        self.grid = grid
        self.index = index
        self.dose_gy = dose_gy
        self.evaluated = evaluated
        self._ranges: NDArray[np.float32] | None = None
        self._reach: dict[tuple[int, ...], NDArray[np.float32]] = {}

    def run(
        self,
        *,
        distance_criterion_mm: float,
        inverse_global: float,
        inverse_local: float,
        max_gamma: float,
        interpolant: str,
        progress: Progress,
    ) -> Found:
        """Search every point once.

        Parameters
        ----------
        distance_criterion_mm : float
        inverse_global : float
            1 / dose criterion [1/Gy] with global normalisation.
        inverse_local : float
            1 / dose criterion as a fraction of the local dose; 0 selects ``inverse_global``.
        max_gamma : float
        interpolant : {"simplex", "grid"}
        progress : callable
        """
        make = _cell_axis if interpolant == "simplex" else _voxel_axis
        axes = [
            make(centers, edges, distance_criterion_mm, max_gamma)
            for centers, edges in zip(self.grid.centers_mm, self.evaluated.grid.edges_mm, strict=True)
        ]
        n = self.index.size
        found = Found(gamma=np.full(n, max_gamma), closest=np.full((n, 4), np.nan, dtype=np.float32))
        offsets, squares = _ordered_offsets(axes, max_gamma)
        if squares.size == 0:
            return found
        criteria = (float(inverse_global), float(inverse_local), float(max_gamma**2))
        prepare = self._through_cells if interpolant == "simplex" else self._through_voxels
        search = prepare(axes, offsets, squares, criteria, found)
        for first in range(0, n, _POINTS_PER_CALL):
            last = min(n, first + _POINTS_PER_CALL)
            search(first, last)
            progress("gamma", last / n)
        return found

    def _through_cells(
        self,
        axes: list[SearchAxis],
        offsets: NDArray[np.int64],
        squares: NDArray[np.float64],
        criteria: tuple[float, float, float],
        found: Found,
    ) -> Any:
        """Search function for the piecewise-linear dose."""
        from numba import get_num_threads

        from dosemover.metrics import gamma_kernels

        dose = self.evaluated.dose_gy
        strides = (dose.shape[1] * dose.shape[2], dose.shape[2], 1)
        ranges = self._cell_ranges(axes).ravel()
        reach = self._reachable(axes)
        corners = tuple(
            voxels * stride
            for axis, stride in zip(axes, strides, strict=True)
            for voxels in (axis.low, axis.high)
        )
        fixed = (
            *(self.index, self.dose_gy, dose.ravel(), ranges, reach),
            *(_lengths(axes), corners, tuple(axis.homes for axis in axes), offsets, squares),
            *(criteria, found.gamma, found.closest),
        )

        def search(first: int, last: int) -> None:
            gamma_kernels.search(first, last, get_num_threads(), *fixed)

        return search

    def _through_voxels(
        self,
        axes: list[SearchAxis],
        offsets: NDArray[np.int64],
        squares: NDArray[np.float64],
        criteria: tuple[float, float, float],
        found: Found,
    ) -> Any:
        """Search function for voxel centres alone."""
        from dosemover.metrics import gamma_kernels

        homes = tuple(axis.homes for axis in axes)
        fixed = (
            *(self.index, self.dose_gy, self.evaluated.dose_gy, _lengths(axes), homes, offsets, squares),
            *(criteria, found.gamma, found.closest),
        )

        def search(first: int, last: int) -> None:
            gamma_kernels.search_voxels(first, last, *fixed)

        return search

    def _cell_ranges(self, axes: list[SearchAxis]) -> NDArray[np.float32]:
        """Dose range of every cell, shape [z, y, x, 2]: computed once for all criteria."""
        if self._ranges is None:
            from dosemover.metrics import gamma_kernels

            ranges = np.empty((*(axis.low.size for axis in axes), 2), dtype=np.float32)
            z, y, x = axes
            dose = self.evaluated.dose_gy
            gamma_kernels.cell_ranges(dose, z.low, y.low, x.low, z.high, y.high, x.high, ranges)
            self._ranges = ranges
        return self._ranges

    def _reachable(self, axes: list[SearchAxis]) -> NDArray[np.float32]:
        """Dose range within reach of every pair of cells: computed once for all criteria of one reach."""
        window = tuple(bound for axis in axes for bound in (axis.first, axis.last))
        if window not in self._reach:
            self._reach = {window: _reachable_ranges(self._cell_ranges(axes), axes)}
        return self._reach[window]


def _lengths(axes: list[SearchAxis]) -> tuple[NDArray[np.float64], ...]:
    """Nodes of the three axes, then their positions."""
    return (*(axis.nodes for axis in axes), *(axis.positions for axis in axes))


def _reachable_ranges(ranges: NDArray[np.float32], axes: list[SearchAxis]) -> NDArray[np.float32]:
    """Dose range over all cells that a pair of home cells can reach, flat [z, y, x, 2], each axis halved."""
    from dosemover.metrics import gamma_kernels

    shape = list(ranges.shape)
    for position, axis in enumerate(axes):
        outer, inner = int(np.prod(shape[:position])), int(np.prod(shape[position + 1 :]))
        pairs = (shape[position] + 1) // 2
        widened = np.empty((outer, pairs, inner), dtype=np.float32)
        gamma_kernels.widen(ranges.reshape(outer, shape[position], inner), -axis.first, axis.last, widened)
        shape[position] = pairs
        ranges = widened
    return ranges.ravel()
