"""The certified interval of the Dose Mover's Distance: which bounds are asked, and in which order."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dosemover._runtime import Progress
from dosemover.transport.bounds import flux_upper_bound
from dosemover.transport.lower import LowerBoundSearch
from dosemover.transport.mover_plan import StaticBounds, even_edges, static_bounds
from dosemover.transport.spline import SplineSpace

if TYPE_CHECKING:
    from dosemover.transport.dose_mover import MoverEstimate, MoverProblem

_TARGET = 0.99
"""Lower over upper end from which on the interval is not narrowed any more."""

_CELLS = (32.0**3, 64.0**3)
"""Cells of the plans, coarse to fine."""

_NODES = 128.0**3
"""Nodes of the prices."""

_CLOSE = 0.97
"""Lower over upper end from which on no finer plan is made."""

_WORTH = 1.5
"""Width of the interval, over what prices or a finer plan lose themselves, from which on they pay."""

_HOPELESS = 0.5
"""Share of the static lower bound below which half-steps are not searched any further."""


@dataclass(frozen=True)
class Interval:
    """Certified ends [mm]; None where a side is missing."""

    lower: float | None
    upper: float | None

    def clip(self, value: float) -> float:
        """The value inside the interval."""
        if self.lower is not None:
            value = max(value, self.lower)
        return value if self.upper is None else min(value, self.upper)


@dataclass(kw_only=True, eq=False)
class MoverBounds:
    r"""Certified ends of HK^2 [Gy mm3 mm2], narrowed step by step; they hold at any time.

    First the flux of the linear path and the half-steps of the estimate's potential. Where the interval is
    then far wider than the voxels, dose travels far or appears in next to nothing: the static form's prices
    and plan bound it, on a coarse grid. Otherwise the half-steps are searched on.

    Parameters
    ----------
    problem : MoverProblem
    space : SplineSpace
    lower, upper : float
    static : StaticBounds or None
        Of the static form, where it was needed.
    """

    problem: MoverProblem
    space: SplineSpace
    lower: float = 0.0
    upper: float = np.inf
    static: StaticBounds | None = field(default=None, init=False)

    @property
    def interval(self) -> Interval:
        """In mm."""
        mass = self.problem.mass
        upper = float(np.sqrt(self.upper / mass)) if np.isfinite(self.upper) else None
        return Interval(float(np.sqrt(min(self.lower, self.upper) / mass)), upper)

    @property
    def _wide(self) -> float:
        """Width of the interval of HK^2 over the mean mass [mm2]; 0 where it is narrow enough."""
        if self.lower >= _TARGET**2 * self.upper:
            return 0.0
        volume = self.space.grid.voxel_volume_mm3
        return 2 * (self.upper - self.lower) / float(np.sum((self.problem.a + self.problem.b) * volume))

    def bound_above(self, u: NDArray[np.float64], *, report: Progress) -> None:
        """Bound HK^2 from above by the linear path, from the coefficients of the estimate's potential."""
        report("upper bound", 0.3)
        self.upper = self._flux(self.problem.a, self.problem.b, self.space, u, 1e-3)

    def narrow(self, u: NDArray[np.float64], *, refine: int, halve: bool, report: Progress) -> None:
        """Bound HK^2 from below too, and both ends closer where they are apart."""
        problem = self.problem
        report("lower bound", 0.5)
        search = LowerBoundSearch(
            self.space,
            problem.a,
            problem.b,
            length_mm=problem.length_mm,
            target=_TARGET**2 * self.upper,
        )
        self.lower = max(self.lower, search.certify(-u))
        if refine > 0:
            self._narrow_static(report)
        if halve and self.upper > 1.05**2 * max(self.lower, 0.0) and self._hopeful(search):
            self.upper = min(self.upper, self._flux(*self._halved(u), 2e-3))
        search.target = _TARGET**2 * self.upper
        try:
            if self._wide and self._hopeful(search):
                search.run(-u, rounds=refine, halve=halve, known=True)
        finally:
            self.lower = max(self.lower, search.best)

    def _hopeful(self, search: LowerBoundSearch) -> bool:
        """Whether half-steps come near the bound of the static form."""
        return self.static is None or search.best > _HOPELESS * self.static.lower

    def _flux(
        self,
        a: NDArray[np.float64],
        b: NDArray[np.float64],
        space: SplineSpace,
        u: NDArray[np.float64],
        tolerance: float,
    ) -> float:
        """Upper bound of the linear path."""
        length, start = self.problem.length_mm, space.means(u)
        return flux_upper_bound(a, b, space.grid, length_mm=length, start=start, tolerance=tolerance).squared

    def _halved(
        self, u: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], SplineSpace, NDArray[np.float64]]:
        """The same densities and potential on halved voxels, whose fluxes follow noise better."""
        fine, coefficients = self.space.refined(u)
        a, b = (_repeated(x) for x in (self.problem.a, self.problem.b))
        return a, b, fine, coefficients

    def _narrow_static(self, report: Progress) -> None:
        """Plans and prices on coarse grids, while the interval is wider than what they lose themselves."""
        problem = self.problem
        losses = [_loss(self.space, _NODES, per_voxel=2)] + [_loss(self.space, n) for n in _CELLS[1:]]
        for n_cells, loss in zip(_CELLS, losses, strict=True):
            close = self.static is not None and self.lower >= _CLOSE**2 * self.upper
            if close or self._wide <= _WORTH * loss:
                return
            report("plan between coarse cells", 0.6)
            self.static = static_bounds(
                problem.a,
                problem.b,
                problem.grid,
                length_mm=problem.length_mm,
                n_cells=n_cells,
                n_nodes=_NODES,
                start=self.static,
            )
            self.lower = max(self.lower, self.static.lower)
            self.upper = min(self.upper, self.static.bound.squared)


def _loss(space: SplineSpace, n_cells: float, *, per_voxel: int = 1) -> float:
    """Third of the summed squares of the cells' widths [mm2]: what prices on their edges lose."""
    edges = even_edges(space.grid, n_cells, per_voxel=per_voxel)
    return sum(float(np.diff(e).max()) ** 2 for e in edges if e.size > 2) / 3


def _repeated(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """The same density on voxels halved along every axis that has more than one."""
    for axis in range(3):
        if x.shape[axis] > 1:
            x = x.repeat(2, axis=axis)
    return x


def mover_interval(
    problem: MoverProblem,
    space: SplineSpace,
    estimate: MoverEstimate,
    *,
    refine: int,
    halve: bool,
    both: bool = True,
    report: Progress,
) -> tuple[Interval, StaticBounds | None, bool]:
    """Certified interval, the static form's solution where it was needed, and whether all was done.

    Without ``both`` ends, the upper one of the linear path alone. An interrupt keeps what there is.
    """
    if estimate.squared == 0.0 and not np.any(problem.a != problem.b):
        return Interval(0.0, 0.0), None, True
    bounds = MoverBounds(problem=problem, space=space)
    try:
        bounds.bound_above(estimate.solution.x, report=report)
        if not both:
            return Interval(None, bounds.interval.upper), None, True
        bounds.narrow(estimate.solution.x, refine=refine, halve=halve, report=report)
    except KeyboardInterrupt:
        return bounds.interval, bounds.static, False
    return bounds.interval, bounds.static, True
