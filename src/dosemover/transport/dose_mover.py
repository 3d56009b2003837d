"""The Dose Mover's Distance: how far the dose moved, and by how much it changed, in one number of mm."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dosemover._runtime import Progress, no_progress
from dosemover.dose import DoseMap
from dosemover.errors import AccuracyWarning, InputError
from dosemover.grid import Grid
from dosemover.transport.measure import Weight, check_memory, measure_pair, warn_about_mass_ratio
from dosemover.transport.mover_fields import motion_of_plan, motion_of_potential, mover_fields
from dosemover.transport.mover_interval import Interval, mover_interval
from dosemover.transport.mover_plan import StaticBounds
from dosemover.transport.multigrid import CgResult
from dosemover.transport.result import TransportResult
from dosemover.transport.spline import SplineSpace, nested_start, solve_potential, weighted_sum

_BYTES_PER_VOXEL = 350
"""Peak memory of the estimate, both bounds and the fields, both maps included: 210 to 310 were measured."""

_BYTES_HALVED = 1300
"""The same where the voxels are halved at last: 1240 were measured."""

_THETA_FLOOR = 1e-7
"""Smallest mobility over the largest, where neither map nor ambient dose gives one."""


@dataclass(frozen=True, kw_only=True, eq=False)
class MoverProblem:
    """Two densities with their ambient dose on one grid, the exchange length, and |a_ref|."""

    a: NDArray[np.float64]
    b: NDArray[np.float64]
    grid: Grid
    length_mm: float
    ambient_gy: float
    mass: float
    mass_ratio: float
    averaged_mm: float = 0.0

    @property
    def screening(self) -> float:
        """1 / L^2 [1/mm2]."""
        return 1 / self.length_mm**2

    @property
    def mobility(self) -> NDArray[np.float64]:
        """Mobility theta = ((sqrt a + sqrt b)/2)^2, which makes output changes exact."""
        theta = np.square((np.sqrt(self.a) + np.sqrt(self.b)) / 2)
        return np.maximum(theta, _THETA_FLOOR * float(theta.max()))

    def at_length(self, length_mm: float) -> MoverProblem:
        """The same maps at another exchange length."""
        return MoverProblem(
            a=self.a,
            b=self.b,
            grid=self.grid,
            length_mm=length_mm,
            ambient_gy=self.ambient_gy,
            mass=self.mass,
            mass_ratio=self.mass_ratio,
            averaged_mm=self.averaged_mm,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class MoverEstimate:
    """Spline estimate: coefficients of u, and HK^2 = moved + L^2 changed, each over |a_ref|."""

    solution: CgResult
    squared: float
    moved_squared: float
    changed_squared: float


def mover_problem(
    *,
    reference: DoseMap,
    evaluated: DoseMap,
    exchange_mm_per_percent: float = 1.0,
    ambient_dose_percent: float = 0.1,
    ambient_dose_gy: float | None = None,
    mask: ArrayLike | None = None,
    weight: Weight = "dose",
    bytes_per_voxel: int = _BYTES_PER_VOXEL,
) -> MoverProblem:
    """Check the settings and the memory, and bring both maps, with their ambient dose, onto one grid."""
    if not (np.isfinite(exchange_mm_per_percent) and exchange_mm_per_percent > 0):
        raise InputError(
            f"`exchange_mm_per_percent` must be positive, got {exchange_mm_per_percent}. Without a rate "
            "between mm and % the distance is not defined. Use 1.0, the rate of gamma 3 %/3 mm."
        )
    ambient = ambient_dose_percent if ambient_dose_gy is None else ambient_dose_gy
    if not (np.isfinite(ambient) and ambient >= 0):
        name = "ambient_dose_percent" if ambient_dose_gy is None else "ambient_dose_gy"
        raise InputError(f"`{name}` must not be negative, got {ambient}. Densities would be. Use 0 for none.")
    voxels = max(reference.grid.n_voxels, evaluated.grid.n_voxels)
    check_memory(voxels, bytes_per_voxel, "the Dose Mover's Distance")
    pair = measure_pair(reference=reference, evaluated=evaluated, mask=mask, weight=weight)
    check_memory(pair.grid.n_voxels, bytes_per_voxel, "the Dose Mover's Distance")
    if ambient_dose_gy is None:
        top = reference.max_gy if weight == "dose" else float(pair.a.max())
        ambient = ambient_dose_percent / 100 * top
    mass, ratio = pair.reference_mass, pair.mass_ratio
    warn_about_mass_ratio(ratio, "the distance will report a change of output above all", stacklevel=4)
    return MoverProblem(
        a=pair.a + ambient,
        b=pair.b + ambient,
        grid=pair.grid,
        length_mm=100.0 * exchange_mm_per_percent,
        ambient_gy=float(ambient),
        mass=mass,
        mass_ratio=ratio,
        averaged_mm=pair.averaged_mm * float(np.sqrt(ratio)),
    )


def mover_estimate(
    problem: MoverProblem,
    space: SplineSpace,
    *,
    tolerance: float,
    start: NDArray[np.float64] | None = None,
) -> MoverEstimate:
    """Solve -div(theta grad u) + theta u / L^2 = b - a in quadratic splines, and split the cost."""
    theta = problem.mobility
    source = problem.b - problem.a
    screening = problem.screening
    if start is None:
        start = nested_start(problem.grid, theta, source, screening=screening, tolerance=tolerance)
    solution = solve_potential(space, theta, source, screening=screening, start=start, tolerance=tolerance)
    mean, slope, square = space.voxel_means(solution.x)
    moved = weighted_sum(theta, slope, problem.grid) / problem.mass
    changed = weighted_sum(theta, square, problem.grid) * problem.screening / problem.mass
    cost = moved + changed
    squared = max(2 * weighted_sum(mean, source, problem.grid) / problem.mass - cost, 0.0)
    share = squared / cost if cost > 0 else 0.0
    return MoverEstimate(
        solution=solution,
        squared=squared,
        moved_squared=moved * share,
        changed_squared=changed * share * problem.screening,
    )


def dose_movers_distance(
    *,
    reference: DoseMap,
    evaluated: DoseMap,
    exchange_mm_per_percent: float = 1.0,
    ambient_dose_percent: float = 0.1,
    ambient_dose_gy: float | None = None,
    mask: ArrayLike | None = None,
    weight: Weight = "dose",
    bounds: bool | Literal["upper"] = True,
    fields: bool = True,
    refine: int = 3,
    halve: bool = False,
    tolerance: float = 2e-3,
    progress: Progress | None = None,
) -> TransportResult:
    r"""Dose Mover's Distance between two dose maps [mm], with a certified interval.

    Going from the reference to the evaluated map dose may move, by v, and change, by a relative amount c;
    a unit of dose that does both pays |v|^2 + L^2 c^2:

        HK_L(a,b)^2 = min over paths, d rho/dt + div m = s, of  integral (|m|^2 + L^2 s^2) / rho dx dt
        DMD = HK_L(a, b) / sqrt(|a_ref|),   DMD^2 = dmd_moved_mm^2 + (L x dmd_changed)^2,   L = 100 x exchange

    Parameters
    ----------
    reference, evaluated : DoseMap
        Any grids; compared on the union of their boxes, integrals conserved.
    exchange_mm_per_percent : float
        How many mm of movement 1 % of change counts for; L is 100 times that [mm].
    ambient_dose_percent : float
        Dose added to both maps, in % of the reference maximum.
    ambient_dose_gy : float, optional
        The same in Gy; overrides the percentage. (With energy weight: in Gy g/cm3.)
    mask : array_like of bool or fraction, shape reference.grid.shape, optional
        Doses outside it are set to 0; box and ambient dose are kept.
    weight : {"dose", "energy"}
        "energy" weights with the reference's density map.
    bounds : bool or "upper"
        Compute the certified interval, or its upper end alone, at a third of the time.
    fields : bool
        Compute displacement, change, index and residual per voxel.
    refine : int
        Rounds that improve the potential of the lower bound while the interval is wider than 1 %. With 0,
        plans and prices of the static form are not asked for either.
    halve : bool
        Halve the voxels at last, where the interval is still wide: noise needs it. Takes 4 times the memory.
    tolerance : float
        Of the solver, in the energy norm; the value is accurate to about its square.
    progress : callable, optional

    Returns
    -------
    TransportResult
        ``value`` [mm] is the estimate, clipped to the interval (``status`` says so). ``parts``: dmd_moved_mm,
        dmd_changed_percent, dmd_residual_max_percent, dmd_residual_p99_percent (of the reference maximum,
        over voxels that hold at least 10 % of it in either map). ``fields``: displacement_mm [3, z, y, x]
        (x, y, z), change_percent, index_mm = sqrt(v^2 + L^2 c^2), residual_gy = b(x + v) - a(x), and the
        potential u [mm2].

    Raises
    ------
    InputError
        Where there is no mass, a rate is not positive, or memory would not suffice.

    Notes
    -----
    *Definition*: the Hellinger-Kantorovich (Wasserstein-Fisher-Rao) distance. The estimate solves
    -div(theta grad u) + theta u/L^2 = b - a in quadratic B-splines, theta = ((sqrt a + sqrt b)/2)^2:
    HK^2 = integral u (b - a), moved and changed the two terms of its energy.

    *Limits*: a rigid shift by d reads d/sqrt(1 + k), k = (rms extent / L)^2 (``settings["extent_k"]``); an
    output change u reads 2 L |sqrt(1 + u) - 1|; a small hot spot is explained by its neighbours moving.
    The estimate is linearised: displacements should be small against the structures they move. Where the
    interval is still much wider than the voxels, dose travels far or appears in next to nothing: then prices
    and a plan of the static form bound it, on a coarse grid, and where they show the estimate to be wrong,
    value, parts and fields are the plan's (``settings["linear"]`` is False), as fine as its cells.

    *Cost*: at 2 M voxels about 4 CPU-s with bounds and fields, 15 where the lower bound is searched for, 8
    for dose that travels far; 350 bytes a voxel, 1300 with ``halve``.

    References
    ----------
    liero2018, chizat2018, kondratyev2016

    Examples
    --------
    >>> import numpy as np
    >>> dose = DoseMap.from_array(np.ones((4, 4, 4)), spacing_mm=(2.0, 2.0, 2.0))
    >>> more = DoseMap.from_array(np.full((4, 4, 4), 1.02), spacing_mm=(2.0, 2.0, 2.0))
    >>> result = dose_movers_distance(reference=dose, evaluated=more, ambient_dose_percent=0.0)
    >>> round(result.value, 4), round(200 * (1.02**0.5 - 1), 4)
    (1.9901, 1.9901)
    """
    report = progress or no_progress
    problem = mover_problem(
        reference=reference,
        evaluated=evaluated,
        exchange_mm_per_percent=exchange_mm_per_percent,
        ambient_dose_percent=ambient_dose_percent,
        ambient_dose_gy=ambient_dose_gy,
        mask=mask,
        weight=weight,
        bytes_per_voxel=_BYTES_HALVED if bounds is True and halve else _BYTES_PER_VOXEL,
    )
    settings = _settings(problem, exchange_mm_per_percent, weight, mask is not None)
    space = SplineSpace(problem.grid)
    report("estimate", 0.0)
    estimate = mover_estimate(problem, space, tolerance=tolerance)
    notes = [] if estimate.solution.converged else ["the estimate did not converge"]
    interval, static = Interval(None, None), None
    if bounds:
        interval, static, finished = mover_interval(
            problem, space, estimate, refine=refine, halve=halve, both=bounds is True, report=report
        )
        if not finished:
            notes.append("interrupted: the interval is the best so far")
    if interval.clip(estimate.squared**0.5) == estimate.squared**0.5:
        static = None
    value, parts = _value_and_parts(problem, estimate, static)
    clipped = interval.clip(value)
    if clipped != value:
        notes.append(f"the estimate {value:.6g} mm was clipped to the certified interval")
    maps: dict[str, NDArray[Any]] = {}
    if fields:
        report("fields", 0.8)
        u = estimate.solution.x
        motion = motion_of_plan(problem, static) if static else motion_of_potential(problem, space, u)
        maps, residuals = mover_fields(problem, motion, reference, evaluated, mask)
        parts |= residuals
    report("done", 1.0)
    found = TransportResult(
        value=clipped,
        lower=interval.lower,
        upper=interval.upper,
        grid=problem.grid,
        parts=parts,
        fields=maps,
        settings=settings | {"estimate_mm": value, "linear": static is None},
        n_iterations=estimate.solution.n_iterations,
        status="; ".join(notes) or "ok",
    )
    return found.of_maps(problem.averaged_mm)


def _value_and_parts(
    problem: MoverProblem, estimate: MoverEstimate, static: StaticBounds | None
) -> tuple[float, dict[str, float]]:
    """DMD [mm], its moved and its changed part, of the estimate or of the plan of the static form."""
    squared, moved, changed = estimate.squared, estimate.moved_squared, estimate.changed_squared
    if static is not None:
        squared = max(static.estimate, 0.0) / problem.mass
        moved = min(static.bound.moved / problem.mass, squared)
        changed = (squared - moved) * problem.screening
    parts = {"dmd_moved_mm": float(np.sqrt(moved)), "dmd_changed_percent": 100 * float(np.sqrt(changed))}
    return float(np.sqrt(squared)), parts


def _settings(problem: MoverProblem, exchange: float, weight: str, masked: bool) -> dict[str, Any]:
    """Settings as used, the ambient dose's share and the factor k that lowers rigid shifts."""
    grid = problem.grid
    box = float(np.prod([hi - lo for lo, hi in grid.box_mm]))
    share = 100 * problem.ambient_gy * box / problem.mass
    if share > 10:
        warnings.warn(
            f"the ambient dose holds {share:.0f} % of the reference's dose: readings are lowered. Pass a "
            "smaller ambient dose, or crop the maps to the dose.",
            AccuracyWarning,
            stacklevel=3,
        )
    extent = []
    for axis in (2, 1, 0):
        others = tuple(i for i in range(3) if i != axis)
        p = np.sum(problem.a * grid.voxel_volume_mm3, axis=others)
        p = p / p.sum()
        edges, h = grid.edges_mm[axis], grid.widths_mm[axis]
        x = (edges[1:] + edges[:-1]) / 2
        extent.append(float(p @ (x**2 + h**2 / 12) - (p @ x) ** 2) / problem.length_mm**2)
    return {
        "exchange_mm_per_percent": exchange,
        "exchange_length_mm": problem.length_mm,
        "ambient_dose_gy": problem.ambient_gy,
        "ambient_share_percent": share,
        "extent_k": extent,
        "mass_ratio": problem.mass_ratio,
        "weight": weight,
        "masked": masked,
    }
