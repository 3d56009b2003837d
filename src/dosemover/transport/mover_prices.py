r"""Lower bound of the Dose Mover's Distance for paths of any length: prices on the nodes of a grid.

The cost c of the static form, K = 4 L^2, is a convex function of |x - y|^2 and lies above each of its
tangents alpha |x - y|^2 - beta. Let phi, psi be given at nodes v, u with phi(v) + psi(u) <= alpha |v - u|^2 -
beta, and continue them between the nodes by

    phi(x) = I phi(x) - alpha sum over axes of (x - x0)(x1 - x),

I the multilinear interpolation in the cell [x0, x1] of x. With the weights l, m of the interpolations at x
and y, alpha |x - y|^2 - phi(x) - psi(y) = sum l_v m_u (alpha |v - u|^2 - phi(v) - psi(u)), because x.y is
bilinear: the pair is feasible everywhere, exactly. By Jensen's inequality, and the chord of the exponential,
the dual functional of the piecewise-constant densities is at least K (|a| + |b| - sum of A_v exp(-phi(v)/K) +
B_v exp(-psi(v)/K)) with the masses A, B that `_node_matrix` shares between the nodes. The loss is about
alpha h^2 of h, the distance of the nodes, whatever the distance that the dose travels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dosemover.grid import Grid
from dosemover.transport import envelope_kernels as kernels
from dosemover.transport.slabs import each_slab

_ROUNDING = 1e-14
"""Relative error of the sums, which the large penalty multiplies."""

Axes = list[NDArray[np.float64]]
"""Coordinates along z, y, x [mm]."""


def nodes_of(edges: Axes) -> Axes:
    """Nodes on the edges of cells; one node on an axis of a single cell, where prices are constant."""
    return [e if e.size > 2 else (e[:1] + e[1:]) / 2 for e in edges]


def c_transform(f: NDArray[np.float64], at: Axes, to: Axes, alpha: float, beta: float) -> NDArray[np.float64]:
    """Largest g at the points ``to`` with f(x) + g(y) <= alpha |x - y|^2 - beta, f given at ``at`` [mm2].

    Separable lower envelopes of parabolas (Felzenszwalb & Huttenlocher 2012): linear in the number of points.
    """
    n0, n1, _ = f.shape
    m0, m1, m2 = (y.size for y in to)
    rows = np.empty((n0, n1, m2))
    each_slab(kernels.envelope_rows, n0, f.size, -f, at[2], to[2], alpha, rows)
    columns = np.empty((n0, m1, m2))
    each_slab(kernels.envelope_columns, n0, rows.size, rows, at[1], to[1], alpha, columns)
    out = np.empty((m0, m1, m2))
    each_slab(
        kernels.envelope_columns,
        m1,
        out.size,
        columns.swapaxes(0, 1),
        at[0],
        to[0],
        alpha,
        out.swapaxes(0, 1),
    )
    out -= beta
    return out


def tangent(squared_mm2: float, penalty: float) -> tuple[float, float]:
    """Slope alpha and offset beta [mm2] of the tangent of the static cost c at a squared distance.

    c(q) = -2 K log cos sqrt(q / K): alpha = tan(t)/t, t = sqrt(q / K), beta = alpha q - c(q).
    """
    t = float(np.sqrt(squared_mm2 / penalty))
    if t < 1e-3:
        return 1.0, 0.0
    alpha = float(np.tan(t)) / t
    return alpha, alpha * squared_mm2 + 2 * penalty * float(np.log(np.cos(t)))


def _node_matrix(
    edges: NDArray[np.float64], nodes: NDArray[np.float64], alpha: float, penalty: float
) -> NDArray[np.float64]:
    """Shares of each voxel's mass at the nodes of an axis, raised by what the continuation loses.

    Voxel means of hat_v(t) (1 + kappa d(t)), d = (t - t0)(t1 - t) and 1 + kappa d the chord that lies above
    exp(alpha d / K) between d = 0 and its largest value; cubic in each piece, where Simpson's rule is exact.
    """
    if nodes.size == 1:
        return np.ones((1, edges.size - 1))
    shares = np.zeros((nodes.size, edges.size - 1))
    cuts = np.union1d(edges, nodes[(nodes > edges[0]) & (nodes < edges[-1])])
    low, high = cuts[:-1], cuts[1:]
    middle = (low + high) / 2
    voxel = np.clip(np.searchsorted(edges, middle) - 1, 0, edges.size - 2)
    cell = np.clip(np.searchsorted(nodes, middle) - 1, 0, nodes.size - 2)
    first, width = nodes[cell], np.diff(nodes)[cell]
    top = alpha * width**2 / (4 * penalty)
    kappa = np.expm1(top) / np.where(top > 0, top, 1.0) * alpha / penalty
    for t, weight in ((low, 1 / 6), (middle, 2 / 3), (high, 1 / 6)):
        u = (t - first) / width
        part = weight * (high - low) / np.diff(edges)[voxel] * (1 + kappa * u * (1 - u) * width**2)
        np.add.at(shares, (cell, voxel), part * (1 - u))
        np.add.at(shares, (cell + 1, voxel), part * u)
    return shares


def along_axes(matrices: list[NDArray[np.float64]], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Apply one matrix along each axis."""
    for axis, matrix in enumerate(matrices):
        values = np.moveaxis(np.tensordot(matrix, values, axes=(1, axis)), 0, axis)
    return np.ascontiguousarray(values)


def _interpolation(at: NDArray[np.float64], to: NDArray[np.float64]) -> NDArray[np.float64]:
    """Matrix of linear interpolation between points of an axis, constant beyond the outer ones."""
    if at.size == 1:
        return np.ones((to.size, 1))
    low = np.clip(np.searchsorted(at, to) - 1, 0, at.size - 2)
    u = np.clip((to - at[low]) / (at[low + 1] - at[low]), 0.0, 1.0)
    matrix = np.zeros((to.size, at.size))
    rows = np.arange(to.size)
    matrix[rows, low] = 1 - u
    matrix[rows, low + 1] += u
    return matrix


def interpolated(values: NDArray[np.float64], at: Axes, to: Axes) -> NDArray[np.float64]:
    """Multilinear interpolation from the points of one grid to those of another, constant outside."""
    return along_axes([_interpolation(p, q) for p, q in zip(at, to, strict=True)], values)


def price_lower_bound(
    a: NDArray[np.float64],
    b: NDArray[np.float64],
    grid: Grid,
    phi: NDArray[np.float64],
    at: Axes,
    nodes: Axes,
    *,
    penalty: float,
    squared_mm2: float = 0.0,
) -> tuple[float, float]:
    r"""Certified lower bound of HK_L(a, b)^2 [Gy mm3 mm2] from any price on the reference's side.

    Parameters
    ----------
    a, b : ndarray, shape grid.shape
        Densities [Gy].
    grid : Grid
    phi : ndarray
        Price at the points ``at``, finite [mm2]; it is interpolated to the nodes and made feasible there.
    at, nodes : list of three ndarray
        Coordinates along z, y, x [mm]; the nodes reach from end to end of the box (`nodes_of`).
    penalty : float
        K = 4 L^2 [mm2].
    squared_mm2 : float
        Squared distance at which the tangent touches the static cost.

    Returns
    -------
    lower, nodal : float
        The bound, and the same without the loss of the continuation: exact where the dose lies on the nodes.

    Notes
    -----
    *Cost*: two envelopes, about 0.4 CPU-s at 2 M nodes.
    """
    alpha, beta = tangent(squared_mm2, penalty)
    psi = c_transform(interpolated(phi, at, nodes), nodes, nodes, alpha, beta)
    phi = c_transform(psi, nodes, nodes, alpha, beta)
    volume = grid.voxel_volume_mm3
    masses = a * volume, b * volume
    total = float(masses[0].sum() + masses[1].sum())

    def dual(loss: float) -> float:
        shares = [
            _node_matrix(np.asarray(e), n, loss * alpha, penalty)
            for e, n in zip(grid.edges_mm, nodes, strict=True)
        ]
        with np.errstate(over="ignore"):
            kept = [
                float(np.sum(along_axes(shares, mass) * np.exp(-price / penalty)))
                for mass, price in zip(masses, (phi, psi), strict=True)
            ]
        # moving a constant from one price to the other makes both sums equal
        both = float(np.sqrt(kept[0]) * np.sqrt(kept[1]))
        return penalty * (total * (1 - _ROUNDING) - 2 * both) if np.isfinite(both) else 0.0

    return dual(1.0), dual(0.0)
