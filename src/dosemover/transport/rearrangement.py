r"""Knothe-Rosenblatt rearrangement: an upper bound of W_2 that needs no dose between the two maps.

The planes' masses are coupled monotonically along the first axis; each pair of planes along the second by its
rows' masses; each pair of rows along the third. As the densities are constant in voxels, every coupling is a
finite list of pieces on which the displacement is linear, and the cost is exact:

    W_2^2 <= sum over pieces of mass x (mean d_1^2 + mean d_2^2 + mean d_3^2).

It is W_2 itself for translations, for products of their projections, and for stretches along the axes, also
of sharp edges in a vacuum, where a flux finds nothing to go through.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dosemover.grid import Grid
from dosemover.transport import rearrangement_kernels as kernels
from dosemover.transport.slabs import each_slab

_ORDERS = ((0, 1, 2), (1, 2, 0), (2, 0, 1))
"""Orders of the axes that are tried."""


def _pieces(
    p: NDArray[np.float64], q: NDArray[np.float64], edges: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], float]:
    """Cells and share of every piece of the monotone coupling of two densities on a line, and its cost."""
    widths = np.diff(edges)
    cdfs = [np.append(0.0, np.cumsum(x * widths)) for x in (p, q)]
    f, g = (c / c[-1] for c in cdfs)
    u = np.union1d(f, g)
    share, middle = np.diff(u), (u[1:] + u[:-1]) / 2
    cells, ends = [], []
    for cdf in (f, g):
        cell = np.clip(np.searchsorted(cdf, middle, side="right") - 1, 0, widths.size - 1)
        rise = np.diff(cdf)[cell]
        slope = widths[cell] / np.where(rise > 0, rise, 1.0)
        cells.append(cell)
        ends.append([edges[cell] + (at - cdf[cell]) * slope for at in (u[:-1], u[1:])])
    d0, d1 = (one - two for one, two in zip(*ends, strict=True))
    cost = float(np.dot(share, d0 * d0 + d0 * d1 + d1 * d1)) / 3
    kept = share > 0
    return cells[0][kept], cells[1][kept], share[kept], cost


def rearrangement_upper_bound(a: NDArray[np.float64], b: NDArray[np.float64], grid: Grid) -> float:
    """Upper bound of W_2(a, b)^2 [mm2] by the cheapest of three orders of the axes.

    Parameters
    ----------
    a, b : ndarray, shape grid.shape
        Densities of equal mass [1/mm3], neither without any.
    grid : Grid

    Notes
    -----
    *Limits*: under noise, rows are rearranged one by one, and the bound is far above W_2.
    *Cost*: about 8 steps a voxel and order.

    References
    ----------
    Villani, Optimal Transport: Old and New, 2009, chapter 1 (Knothe-Rosenblatt coupling).
    """
    best = np.inf
    for order in _ORDERS:
        one, two = (np.ascontiguousarray(x.transpose(order)) for x in (a, b))
        edges = [np.asarray(grid.edges_mm[axis]) for axis in order]
        widths = [np.diff(e) for e in edges]
        rows = [x @ widths[2] for x in (one, two)]
        first, second, share, cost = _pieces(rows[0] @ widths[1], rows[1] @ widths[1], edges[0])
        if not (rows[0][first].any(axis=1).all() and rows[1][second].any(axis=1).all()):
            continue  # rounding has put a piece where there is no dose
        found = np.empty(share.size)
        each_slab(
            kernels.piece_costs, share.size, 2 * one.size, first, second, share, one, two, *rows, widths[1],
            edges[1], widths[2], edges[2], found,
        )  # fmt: skip
        best = min(best, cost + float(found.sum()))
    return best
