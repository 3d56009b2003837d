r"""W_2 of dose that travels many voxels: a plan between coarse cells, and prices on the nodes of a grid.

An entropic plan P between cells is rounded to the masses of the cells (Altschuler, Weed & Rigollet 2017);
within a pair of cells the densities are coupled independently. Its cost is an upper bound and needs the
cells' masses, centers and second moments alone:

    sum over cells of integral |x|^2 da + integral |y|^2 db - 2 sum P_ij x_i . y_j.

Lower bound: prices phi, psi at nodes v, u with phi(v) + psi(u) <= |v - u|^2, continued between the nodes by
multilinear interpolation less sum over axes of (x - x0)(x1 - x), are feasible everywhere (mover_prices.py).
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dosemover.grid import Grid
from dosemover.transport.log_convolution import soft_minimum, workers
from dosemover.transport.mover_plan import even_edges, pieces
from dosemover.transport.mover_prices import Axes, along_axes, c_transform, interpolated, nodes_of

_SHRINK = 0.75
"""Factor from one blur of the plan to the next."""

_BLUR = 0.5
"""Last blur of the plan over the width of a cell."""

_ITERATIONS = (3, 12)
"""Rescalings of both sides at each blur but the last, and at the last."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PlanBounds:
    """Certified interval of W_2^2 [mm2] for densities of mass 1, and what the plan tells beside it.

    Parameters
    ----------
    lower, upper : float
    estimate : float
        The dual value without the loss between the nodes: exact where the dose lies on them.
    displacement_mm : ndarray, shape [3, z, y, x]
        Mean displacement along z, y, x of each cell's reference dose.
    price : ndarray, shape [z, y, x]
        Price phi on the reference's side at the cells' middles [mm2].
    middles : list of ndarray
        Middles of the cells along z, y, x [mm].
    """

    lower: float
    upper: float
    estimate: float
    displacement_mm: NDArray[np.float64]
    price: NDArray[np.float64]
    middles: Axes

    def on(self, values: NDArray[np.float64], grid: Grid) -> NDArray[np.float64]:
        """Values at the cells' middles, brought to the voxels of a grid."""
        return interpolated(values, self.middles, [np.asarray(c) for c in grid.centers_mm])


class _Coupling:
    """Entropic plan between the cells of a coarse grid at cost |x - y|^2, blur after blur."""

    def __init__(
        self,
        a: NDArray[np.float64],
        b: NDArray[np.float64],
        grid: Grid,
        edges: Axes,
        pool: ThreadPoolExecutor,
    ) -> None:
        self.a, self.b = pieces(a, grid, edges), pieces(b, grid, edges)
        self.middles = [(e[1:] + e[:-1]) / 2 for e in edges]
        self._pool = pool
        with np.errstate(divide="ignore"):
            self._log_a, self._log_b = np.log(self.a.mass), np.log(self.b.mass)
        extents = [(float(e[-1] - e[0]), float(np.diff(e).max())) for e in edges if e.size > 2]
        self._blur = max((_BLUR * width for _, width in extents), default=1.0)
        self.phi = self.psi = np.zeros(self.a.mass.shape)
        blur = max(max((extent / 2 for extent, _ in extents), default=0.0), self._blur)
        while True:
            last = blur <= self._blur
            for _ in range(_ITERATIONS[last]):
                self.phi = 2 * blur**2 * (self._log_a - self._arriving(self.psi, blur))
                self.psi = 2 * blur**2 * (self._log_b - self._arriving(self.phi, blur))
            if last:
                return
            blur = max(_SHRINK * blur, self._blur)

    def _arriving(self, potential: NDArray[np.float64], blur: float) -> NDArray[np.float64]:
        """Logarithm of the sum over the other side's cells, of exp((potential - |x - y|^2) / 2 blur^2)."""
        at = (self.middles[0], self.middles[1], self.middles[2])
        exponent = potential / (2 * blur**2)
        return -soft_minimum(exponent, outputs=at, sources=at, sigma=blur, pool=self._pool) / blur**2

    def rounded(self) -> tuple[float, NDArray[np.float64]]:
        """Cost of the plan rounded to both masses [mm2], and the mean displacement from each cell."""
        a, b, eps = self.a, self.b, 2 * self._blur**2
        with np.errstate(invalid="ignore"):
            row = np.where(a.mass > 0, self.phi / eps + self._arriving(self.psi, self._blur), -np.inf)
            left = np.where(a.mass > 0, self.phi / eps + np.minimum(self._log_a - row, 0.0), -np.inf)
            column = np.where(b.mass > 0, self.psi / eps + self._arriving(eps * left, self._blur), -np.inf)
            right = np.where(b.mass > 0, self.psi / eps + np.minimum(self._log_b - column, 0.0), -np.inf)

        def sent(values: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
            with np.errstate(divide="ignore"):
                source = right if values is None else right + np.log(np.maximum(values, 0.0))
            return np.exp(left + self._arriving(eps * source, self._blur))

        row = sent()
        short = np.maximum(a.mass - row, 0.0)
        missing = np.maximum(b.mass - np.minimum(np.exp(column), b.mass), 0.0)
        rest = max(float(missing.sum()), 1e-300)
        cost = float(np.sum(a.mass * a.square) + np.sum(b.mass * b.square))
        moved = np.zeros((3, *a.mass.shape))
        for axis, (from_, to) in enumerate(zip(a.center, b.center, strict=True)):
            if self.middles[axis].size > 1:
                target = sent(to)
                cost -= 2 * float(np.sum(from_ * target))
                cost -= 2 * float(np.sum(short * from_)) * float(np.sum(missing * to)) / rest
                moved[axis] = np.where(row > 0, target / np.where(row > 0, row, 1.0) - from_, 0.0)
        return cost, moved

    def price(self) -> NDArray[np.float64]:
        """Price on the reference's side, finite everywhere [mm2]."""
        psi = c_transform(self.phi, self.middles, self.middles, 1.0, 0.0)
        return c_transform(psi, self.middles, self.middles, 1.0, 0.0)


def _shares(
    edges: NDArray[np.float64], nodes: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Shares of each voxel's mass at the nodes of an axis, and the mean of (x - x0)(x1 - x) over it."""
    shares, loss = np.zeros((nodes.size, edges.size - 1)), np.zeros(edges.size - 1)
    if nodes.size == 1:
        return np.ones_like(shares), loss
    cuts = np.union1d(edges, nodes[(nodes > edges[0]) & (nodes < edges[-1])])
    low, high = cuts[:-1], cuts[1:]
    middle = (low + high) / 2
    voxel = np.clip(np.searchsorted(edges, middle) - 1, 0, edges.size - 2)
    cell = np.clip(np.searchsorted(nodes, middle) - 1, 0, nodes.size - 2)
    width = np.diff(nodes)[cell]
    part = (high - low) / np.diff(edges)[voxel]
    u, v = (low - nodes[cell]) / width, (high - nodes[cell]) / width
    np.add.at(shares, (cell, voxel), part * (1 - (u + v) / 2))
    np.add.at(shares, (cell + 1, voxel), part * (u + v) / 2)
    np.add.at(loss, voxel, part * width**2 * ((u + v) / 2 - (u * u + u * v + v * v) / 3))
    return shares, loss


def _dual(
    a: NDArray[np.float64],
    b: NDArray[np.float64],
    grid: Grid,
    price: NDArray[np.float64],
    at: Axes,
    nodes: Axes,
) -> tuple[float, float]:
    """Dual value of a price made feasible at the nodes [mm2]: certified, and without the loss between."""
    psi = c_transform(interpolated(price, at, nodes), nodes, nodes, 1.0, 0.0)
    phi = c_transform(psi, nodes, nodes, 1.0, 0.0)
    found = [_shares(np.asarray(e), n) for e, n in zip(grid.edges_mm, nodes, strict=True)]
    shares, volume = [s for s, _ in found], grid.voxel_volume_mm3
    total, lost = 0.0, 0.0
    for density, values in ((a, phi), (b, psi)):
        mass = density * volume
        total += float(np.sum(along_axes(shares, mass) * values))
        for axis, (_, loss) in enumerate(found):
            lost += float(mass.sum(axis=tuple(i for i in range(3) if i != axis)) @ loss)
    return total - lost, total


def plan_bounds(
    a: NDArray[np.float64], b: NDArray[np.float64], grid: Grid, *, n_cells: float, n_nodes: float
) -> PlanBounds:
    r"""Certified interval of W_2(a, b)^2 from a plan between coarse cells and prices on a finer grid.

    Parameters
    ----------
    a, b : ndarray, shape grid.shape
        Densities of mass 1 [1/mm3].
    grid : Grid
    n_cells : float
        Cells of the plan, at most the voxels: the upper bound loses about 1.3 times their width squared.
    n_nodes : float
        Nodes of the prices: the lower bound loses the square of their distance.

    Notes
    -----
    *Cost*: at 32 k cells and 2 M nodes about 2 CPU-s.

    References
    ----------
    Altschuler, Weed & Rigollet, Near-linear time approximation algorithms for optimal transport via Sinkhorn
    iteration, 2017 (rounding).
    """
    with workers() as pool:
        coupling = _Coupling(a, b, grid, even_edges(grid, n_cells), pool)
        upper, displacement = coupling.rounded()
    price = coupling.price()
    lower, estimate = _dual(
        a, b, grid, price, coupling.middles, nodes_of(even_edges(grid, n_nodes, per_voxel=2))
    )
    return PlanBounds(
        lower=max(lower, 0.0),
        upper=upper,
        estimate=min(max(estimate, lower, 0.0), upper),
        displacement_mm=displacement,
        price=price,
        middles=coupling.middles,
    )
