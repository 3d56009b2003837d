"""The certified interval of W_2: which bounds are asked, and in which order."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from dosemover._runtime import Progress
from dosemover.transport.alignment import Alignment
from dosemover.transport.axis import axis_marginal
from dosemover.transport.bounds import balanced_upper_bound
from dosemover.transport.line import line_w2_squared
from dosemover.transport.lower import LowerBoundSearch
from dosemover.transport.measure import MeasurePair
from dosemover.transport.mover_interval import Interval
from dosemover.transport.mover_plan import even_edges
from dosemover.transport.plan import PlanBounds, plan_bounds
from dosemover.transport.rearrangement import rearrangement_upper_bound
from dosemover.transport.spline import SplineSpace

_TARGET = 0.99
"""Lower over upper end from which on the interval is not narrowed any more."""

_CELLS = (32.0**3, 56.0**3)
"""Cells of the plans, coarse to fine."""

_NODES = 128.0**3
"""Nodes of the prices."""

_WORTH = 1.5
"""Width of the interval, over what prices or a finer plan lose themselves, from which on they pay."""


def axis_squared(pair: MeasurePair) -> float:
    """Sum over the axes of W_2^2 of the projections: a lower bound, exact for shifts and products."""
    return sum(
        line_w2_squared(t, axis_marginal(pair.a, pair.grid, i), axis_marginal(pair.b, pair.grid, i))
        for i, t in enumerate(pair.grid.edges_mm)
    )


@dataclass(kw_only=True, eq=False)
class BalancedBounds:
    r"""Certified ends of W_2^2 [mm2] of an aligned pair, narrowed step by step; they hold at any time.

    First the projections, the flux of the linear path and the rearrangement along the axes, then half-steps
    of the estimate's potential. Where the interval is still far wider than the voxels, dose travels far: a
    plan between coarse cells and its prices. Otherwise the half-steps are searched on.

    Parameters
    ----------
    moved : Alignment
    space : SplineSpace
        On the grid of the moved pair.
    lower, upper : float
        Of the moved pair.
    plan : PlanBounds or None
        Where it was needed.
    """

    moved: Alignment
    space: SplineSpace
    lower: float = 0.0
    upper: float = np.inf
    plan: PlanBounds | None = field(default=None, init=False)

    @property
    def interval(self) -> Interval:
        """In mm, of the pair before it was moved."""
        low, high = (max(self.moved.gained + end, 0.0) for end in (min(self.lower, self.upper), self.upper))
        return Interval(float(np.sqrt(low)), float(np.sqrt(high)) if np.isfinite(high) else None)

    @property
    def _aim(self) -> float:
        """Lower end at which the interval is narrow enough."""
        return _TARGET**2 * (self.moved.gained + self.upper) - self.moved.gained

    def contradicts(self, squared: float, *, trusted: bool) -> bool:
        """Whether a plan was made and the estimate is outside the interval, or did not converge."""
        return self.plan is not None and not (trusted and self.lower <= squared <= self.upper)

    def narrow(self, u: NDArray[np.float64], *, refine: int, halve: bool, report: Progress) -> bool:
        """Bound W_2^2 from both sides, from the coefficients of the estimate's potential; False: stopped."""
        try:
            self._narrow(u, refine, halve, report)
        except KeyboardInterrupt:
            return False
        return True

    def _narrow(self, u: NDArray[np.float64], refine: int, halve: bool, report: Progress) -> None:
        """All the steps, while the interval is too wide."""
        pair = self.moved.pair
        if not np.any(pair.a != pair.b):
            self.upper = 0.0
            return
        self.lower = axis_squared(pair)
        report("upper bound", 0.3)
        self.upper = balanced_upper_bound(pair.a, pair.b, pair.grid, start=self.space.means(u)).squared
        if self.lower >= self._aim:
            return
        self.upper = min(self.upper, rearrangement_upper_bound(pair.a, pair.b, pair.grid))
        if self.lower >= self._aim:
            return
        report("lower bound", 0.5)
        search = LowerBoundSearch(self.space, pair.a, pair.b, length_mm=np.inf, target=self._aim)
        try:
            self.lower = max(self.lower, search.certify(-u))
            if refine > 0:
                self._plan(report)
            search.target = self._aim
            if self.lower < self._aim:
                search.run(-u, rounds=refine, halve=halve, known=True)
        finally:
            self.lower = max(self.lower, search.best)

    def _plan(self, report: Progress) -> None:
        """Plans and prices on coarse grids, while the interval is wider than what they lose themselves."""
        pair = self.moved.pair
        losses = [_loss(self.space, _NODES, per_voxel=2), _loss(self.space, _CELLS[1])]
        for n_cells, loss in zip(_CELLS, losses, strict=True):
            if self.lower >= self._aim or self.upper - self.lower <= _WORTH * loss:
                return
            report("plan between coarse cells", 0.6)
            self.plan = plan_bounds(pair.a, pair.b, pair.grid, n_cells=n_cells, n_nodes=_NODES)
            self.lower = max(self.lower, self.plan.lower)
            self.upper = min(self.upper, self.plan.upper)


def _loss(space: SplineSpace, n_cells: float, *, per_voxel: int = 1) -> float:
    """Sum of the squares of the cells' widths over 3 [mm2]: what prices on their edges lose."""
    edges = even_edges(space.grid, n_cells, per_voxel=per_voxel)
    return sum(float(np.diff(e).max()) ** 2 for e in edges if e.size > 2) / 3
