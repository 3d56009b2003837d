r"""The static form of the Dose Mover's Distance on coarse cells: a plan for dose that travels far.

A semi-coupling gives every pair of places (x, y) the dose g0 that leaves x and g1 that arrives at y:

    HK_L(a, b)^2 = K (|a| + |b| - 2 max of sum sqrt(g0 g1) cos(min(|x - y| / 2 L, pi/2))),   K = 4 L^2,

the sums of g0 and g1 being a and b. Any semi-coupling is an upper bound. Here it comes from an entropic plan
P between the cells of a coarse grid, rescaled to a and b; within a pair of cells the doses are coupled
independently, each with its true density. As the cosine is a convex function of |x - y|^2, a cell with the
weight W = sum sqrt(g0 g1) and the weighted mean q of |x - y|^2 contributes at least W cos(sqrt(q)/2L)
(Jensen): five Gaussian convolutions give W and q exactly.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dosemover.grid import Grid
from dosemover.transport.log_convolution import soft_minimum, workers
from dosemover.transport.mover_prices import (
    Axes,
    along_axes,
    c_transform,
    interpolated,
    nodes_of,
    price_lower_bound,
)

_LONGEST_AXIS = 192
"""Most cells along an axis."""

_MOST_NODES = 1024
"""Most nodes of prices along an axis."""

_SHRINK = 0.75
"""Factor from one blur of the plan to the next."""

_BLUR = 0.5
"""Last blur of the plan over the width of a cell: narrower, the plan shows the lattice of the cells."""

_ITERATIONS = 4
"""Rescalings of both sides at each blur, averaged with what was: the same whichever map comes first."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Pieces:
    """What coarse cells hold of a density: mass, center [mm] and mean |x|^2 [mm2], from the low corner."""

    mass: NDArray[np.float64]
    center: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]
    square: NDArray[np.float64]


def even_edges(grid: Grid, n_cells: float, *, per_voxel: int = 1, longest: int = _LONGEST_AXIS) -> Axes:
    """Edges of about ``n_cells`` even cells, at most ``per_voxel`` a voxel; axes of one voxel stay."""
    sizes = [(float(e[-1] - e[0]), e.size - 1) for e in grid.edges_mm]
    extended = [extent for extent, n in sizes if n > 1]
    if not extended:
        return [np.asarray(e) for e in grid.edges_mm]
    h = float(np.prod(extended) / n_cells) ** (1 / len(extended))
    edges = []
    for e, (extent, n) in zip(grid.edges_mm, sizes, strict=True):
        count = int(np.clip(round(extent / h), min(n, 2), min(per_voxel * n, longest) if n > 1 else 1))
        edges.append(np.asarray(e) if count == n else np.linspace(e[0], e[-1], count + 1))
    return edges


def pieces(density: NDArray[np.float64], grid: Grid, edges: Axes) -> Pieces:
    """Exact moments of a piecewise-constant density in the cells of a coarse grid."""
    powers: list[list[NDArray[np.float64]]] = []
    for e, cut in zip(grid.edges_mm, edges, strict=True):
        low = np.maximum(e[:-1], cut[:-1, None]) - cut[0]
        high = np.maximum(np.minimum(e[1:], cut[1:, None]) - cut[0], low)
        powers.append([(high ** (p + 1) - low ** (p + 1)) / ((p + 1) * np.diff(e)) for p in range(3)])
    mass = density * grid.voxel_volume_mm3

    def moment(axis: int, power: int) -> NDArray[np.float64]:
        return along_axes([powers[k][power if k == axis else 0] for k in range(3)], mass)

    total = moment(0, 0)
    over = 1 / np.where(total > 0, total, 1.0)
    single = [cut.size == 2 for cut in edges]
    center = [np.zeros_like(total) if single[k] else moment(k, 1) * over for k in range(3)]
    square = sum((moment(k, 2) * over for k in range(3) if not single[k]), np.zeros_like(total))
    return Pieces(mass=total, center=(center[0], center[1], center[2]), square=square)


@dataclass(frozen=True, kw_only=True, eq=False)
class PlanBound:
    """Upper bound from a plan, the estimate beside it, and where the plan carries the reference's dose.

    Parameters
    ----------
    squared : float
        Certified upper bound of HK^2 [Gy mm3 mm2].
    estimate, moved : float
        HK^2 with every cell's dose sent to its mean target, and the part of it that is movement.
    weight : ndarray
        sqrt of left times arrived dose over the dose of each cell.
    displacement_mm : ndarray, shape [3, z, y, x]
        Mean displacement along z, y, x of each cell's dose.
    mean_square_mm2 : float
        Mean squared distance, weighted with what it costs.
    """

    squared: float
    estimate: float
    moved: float
    weight: NDArray[np.float64]
    displacement_mm: NDArray[np.float64]
    mean_square_mm2: float


class CoarsePlan:
    """Entropic unbalanced plan between the cells of a coarse grid, at cost |x - y|^2, blur after blur.

    The reference measure of the entropy is the heat kernel weighted with sqrt(r(x) r(y)), r the larger of
    both densities: equal densities then have the potentials 0 at any blur.

    Parameters
    ----------
    a, b : ndarray, shape grid.shape
        Densities [Gy].
    grid : Grid
    edges : list of ndarray
        Edges of the cells.
    penalty : float
        K = 4 L^2 [mm2].
    """

    def __init__(
        self, a: NDArray[np.float64], b: NDArray[np.float64], grid: Grid, edges: Axes, penalty: float
    ) -> None:
        self.a, self.b = pieces(a, grid, edges), pieces(b, grid, edges)
        self.edges, self.penalty = edges, penalty
        self.middles = [(e[1:] + e[:-1]) / 2 for e in edges]
        widths = [np.diff(e) for e in edges]
        self._extended = [v for v in widths if v.size > 1]
        volume = widths[0][:, None, None] * widths[1][:, None] * widths[2]
        with np.errstate(divide="ignore"):
            self._log_a, self._log_b = np.log(self.a.mass), np.log(self.b.mass)
            self._log_weight = 0.5 * np.log(np.maximum(self.a.mass, self.b.mass) * volume)
        self.phi, self.psi = np.zeros(volume.shape), np.zeros(volume.shape)
        self.blur_mm = max((_BLUR * float(v.max()) for v in self._extended), default=1.0)

    def solve(self, pool: ThreadPoolExecutor, start: StaticBounds | None = None) -> None:
        """Rescale both sides in turn, from the blur of the whole box down to that of a cell.

        From the prices of a coarser plan, only the last blurs are taken.
        """
        extent = max((float(v.sum()) for v in self._extended), default=0.0)
        blur = max(self.blur_mm, min(extent / 2, 2 * self.penalty**0.5))
        if start is not None:
            prices = [c_transform(p, start.middles, self.middles, 1.0, 0.0) for p in start.prices[::-1]]
            self.phi, self.psi = prices
            blur = self.blur_mm / _SHRINK**2
        while True:
            last = blur <= self.blur_mm
            for _ in range(_ITERATIONS * (2 if last else 1)):
                phi = self._scaled(self._log_a, self.psi, blur, pool)
                psi = self._scaled(self._log_b, self.phi, blur, pool)
                self.phi, self.psi = (self.phi + phi) / 2, (self.psi + psi) / 2
            if last:
                return
            blur = max(_SHRINK * blur, self.blur_mm)

    def _source(self, potential: NDArray[np.float64], blur: float) -> NDArray[np.float64]:
        """Exponent of a side of the plan: potential over eps = 2 blur^2, and its reference measure."""
        normal = 0.25 * len(self._extended) * np.log(2 * np.pi * blur**2)
        return potential / (2 * blur**2) + self._log_weight - normal

    def _convolved(
        self, exponent: NDArray[np.float64], blur: float, pool: ThreadPoolExecutor
    ) -> NDArray[np.float64]:
        """Logarithm of the sum over the other side's cells."""
        at = (self.middles[0], self.middles[1], self.middles[2])
        return -soft_minimum(exponent, outputs=at, sources=at, sigma=blur, pool=pool) / blur**2

    def _scaled(
        self, log_mass: NDArray[np.float64], other: NDArray[np.float64], blur: float, pool: ThreadPoolExecutor
    ) -> NDArray[np.float64]:
        """Potential whose marginal is the mass times exp(-potential / K), given that of the other side."""
        eps = 2 * blur**2
        arriving = self._convolved(self._source(other, blur), blur, pool)
        held = np.isfinite(log_mass)
        exponent = np.where(held, log_mass, 0.0) - arriving - self._source(np.zeros_like(other), blur)
        return np.where(held, self.penalty * eps / (self.penalty + eps) * exponent, -np.inf)

    def bound(self, pool: ThreadPoolExecutor) -> PlanBound:
        """Upper bound of the semi-coupling that the plan gives, rescaled to both densities."""
        blur = self.blur_mm
        left, right = self._source(self.phi, blur), self._source(self.psi, blur)
        leaves, arrives = left + self._convolved(right, blur, pool), right + self._convolved(left, blur, pool)
        with np.errstate(invalid="ignore"):
            row = np.where(self.a.mass > 0, left + 0.5 * (self._log_a - leaves), -np.inf)
            column = np.where(self.b.mass > 0, right + 0.5 * (self._log_b - arrives), -np.inf)
        there = self._side(self.a, self.b, row, column, pool)
        back = self._side(self.b, self.a, column, row, pool)
        return PlanBound(
            squared=min(there.squared, back.squared),
            estimate=(there.estimate + back.estimate) / 2,
            moved=(there.moved + back.moved) / 2,
            weight=there.weight,
            displacement_mm=there.displacement_mm,
            mean_square_mm2=(there.mean_square_mm2 + back.mean_square_mm2) / 2,
        )

    def _side(
        self,
        a: Pieces,
        b: Pieces,
        row: NDArray[np.float64],
        column: NDArray[np.float64],
        pool: ThreadPoolExecutor,
    ) -> PlanBound:
        """Bound from the cells of one side, the exponents of sqrt(g0 g1) given."""

        def summed(values: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
            with np.errstate(divide="ignore"):
                source = column if values is None else column + np.log(np.maximum(values, 0.0))
            return np.exp(row + self._convolved(source, self.blur_mm, pool))

        weight = summed()
        over = 1 / np.where(weight > 0, weight, 1.0)
        square, displacement = a.square + summed(b.square) * over, np.zeros((3, *weight.shape))
        for axis, (from_, to) in enumerate(zip(a.center, b.center, strict=True)):
            if self.middles[axis].size > 1:
                mean = summed(to) * over
                square -= 2 * from_ * mean
                displacement[axis] = np.where(weight > 0, mean - from_, 0.0)
        square = np.maximum(square, 0.0)
        total = float(a.mass.sum() + b.mass.sum())
        angle = self._angle(np.square(displacement).sum(axis=0))
        cost = weight * square
        return PlanBound(
            squared=self.penalty * (total - 2 * float(np.sum(weight * np.cos(self._angle(square))))),
            estimate=self.penalty * (total - 2 * float(np.sum(weight * np.cos(angle)))),
            moved=self.penalty * float(np.sum(weight * angle * np.sin(angle))),
            weight=weight / np.where(a.mass > 0, a.mass, 1.0),
            displacement_mm=displacement,
            mean_square_mm2=float(np.sum(cost * square) / np.sum(cost)) if cost.any() else 0.0,
        )

    def _angle(self, square: NDArray[np.float64]) -> NDArray[np.float64]:
        """|x - y| / 2 L, at most a right angle."""
        return np.minimum(np.sqrt(square / self.penalty), np.pi / 2)

    def prices(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Prices on both sides, finite everywhere [mm2]."""
        return self._finite(self.phi), self._finite(self.psi)

    def _finite(self, price: NDArray[np.float64]) -> NDArray[np.float64]:
        """The price itself, or what both transforms make of it where a cell holds no dose."""
        if np.all(np.isfinite(price)):
            return price
        other = c_transform(price, self.middles, self.middles, 1.0, 0.0)
        return c_transform(other, self.middles, self.middles, 1.0, 0.0)


@dataclass(frozen=True, kw_only=True, eq=False)
class StaticBounds:
    """Certified interval of HK^2 [Gy mm3 mm2] from the static form, its estimate, and the plan behind it."""

    lower: float
    estimate: float
    bound: PlanBound
    prices: tuple[NDArray[np.float64], NDArray[np.float64]]
    middles: Axes

    def on(self, values: NDArray[np.float64], grid: Grid) -> NDArray[np.float64]:
        """Values at the cells' middles, brought to the voxels of a grid."""
        return interpolated(values, self.middles, [np.asarray(c) for c in grid.centers_mm])


def static_bounds(
    a: NDArray[np.float64],
    b: NDArray[np.float64],
    grid: Grid,
    *,
    length_mm: float,
    n_cells: float,
    n_nodes: float,
    start: StaticBounds | None = None,
) -> StaticBounds:
    r"""Both bounds of HK_L(a, b)^2 from the static form, for dose that travels many voxels.

    Parameters
    ----------
    a, b : ndarray, shape grid.shape
        Densities [Gy].
    grid : Grid
    length_mm : float
        L [mm].
    n_cells : float
        Cells of the plan, at most the voxels: the upper bound loses 1.5 to 3 times their width squared.
    n_nodes : float
        Nodes of the prices: the lower bound loses the square of their distance.
    start : StaticBounds, optional
        Of fewer cells.

    Notes
    -----
    *Cost*: at 32 k cells and 2 M nodes about 1 CPU-s.
    """
    penalty = 4 * length_mm**2
    plan = CoarsePlan(a, b, grid, even_edges(grid, n_cells), penalty)
    with workers() as pool:
        plan.solve(pool, start)
        bound = plan.bound(pool)
    prices = plan.prices()
    nodes = nodes_of(even_edges(grid, n_nodes, per_voxel=2, longest=_MOST_NODES))
    touched = [0.0]
    if bound.mean_square_mm2 > 0.01 * penalty:
        touched.append(min(bound.mean_square_mm2, penalty))
    lower, nodal = max(
        price_lower_bound(first, second, grid, price, plan.middles, nodes, penalty=penalty, squared_mm2=q)
        for first, second, price in ((a, b, prices[0]), (b, a, prices[1]))
        for q in touched
    )
    return StaticBounds(
        lower=max(lower, 0.0),
        estimate=(bound.estimate + nodal) / 2,
        bound=bound,
        prices=prices,
        middles=plan.middles,
    )
