"""The Wasserstein distance W_2 between dose maps of normalised mass, with a certified interval."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dosemover._runtime import Progress, no_progress
from dosemover.dose import DoseMap
from dosemover.errors import AccuracyWarning
from dosemover.grid import Grid
from dosemover.transport.alignment import Alignment, aligned
from dosemover.transport.axis import axis_marginal
from dosemover.transport.bounds import balanced_upper_bound
from dosemover.transport.dose_mover import Interval, check_memory
from dosemover.transport.line import line_w2_squared
from dosemover.transport.lower import LowerBoundSearch
from dosemover.transport.measure import MeasurePair, Weight, measure_pair, to_evaluated_dose
from dosemover.transport.monge_ampere import midpoint_potential
from dosemover.transport.result import TransportResult
from dosemover.transport.spline import SplineSpace, solve_potential, weighted_sum

_BYTES_PER_VOXEL = 420
"""Peak memory of the estimate, both bounds and the fields, measured at 2 M voxels."""

_THETA_FLOOR = 1e-4
"""Smallest mobility over the largest."""

_TRUSTED_MISMATCH = 0.05
"""Share of the mass that the half-way densities may leave unmatched in a Newton solution."""

_WORTH_TELLING = 5e-3
"""Relative change of the estimate by the interval from which on the status tells of it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Balanced:
    """Potential u = -w of a balanced problem and the squared distance that it tells."""

    u: NDArray[np.float64]
    squared: float
    theta: NDArray[np.float64]
    linear: bool
    n_iterations: int
    converged: bool


def _pair(
    reference: DoseMap, evaluated: DoseMap, mask: ArrayLike | None, weight: Weight
) -> tuple[MeasurePair, float]:
    """Normalised pair on the box that holds it, and the ratio of the masses."""
    voxels = max(reference.grid.n_voxels, evaluated.grid.n_voxels)
    check_memory(voxels, _BYTES_PER_VOXEL, "W_2")
    pair = measure_pair(reference=reference, evaluated=evaluated, mask=mask, weight=weight)
    check_memory(pair.grid.n_voxels, _BYTES_PER_VOXEL, "W_2")
    ratio = pair.mass_ratio
    if not 0.5 <= ratio <= 2:
        warnings.warn(
            f"the evaluated map holds {ratio:.3g} times the dose of the reference: W_2 compares normalised "
            "maps and cannot see that. Scale it (--scale) and read the mass ratio beside it.",
            AccuracyWarning,
            stacklevel=3,
        )
    return pair.normalized(), ratio


def _solve(pair: MeasurePair, space: SplineSpace, *, tolerance: float, linear: bool | None) -> _Balanced:
    """Linear estimate, or Newton's from coarse to fine where displacements exceed a voxel."""
    a, b, grid = pair.a, pair.b, pair.grid
    theta = (a + b) / 2
    theta = np.maximum(theta, _THETA_FLOOR * float(theta.max()))
    found = solve_potential(space, theta, b - a, screening=0.0, tolerance=tolerance, max_iterations=80)
    mean, slope, _ = space.voxel_means(found.x)
    cost = weighted_sum(theta, slope, grid)
    squared = max(2 * weighted_sum(mean, b - a, grid) - cost, 0.0)
    h = min((float(v.min()) for v in grid.widths_mm if v.size > 1), default=np.inf)
    if linear is None:
        mass = theta * grid.voxel_volume_mm3
        linear = float(mass[slope > h**2].sum()) < 0.01 * float(mass.sum())
    if not linear:
        pushed = midpoint_potential(grid, a, b, length_mm=np.inf)
        if pushed.mismatch < _TRUSTED_MISMATCH:
            _, slope, _ = space.voxel_means(pushed.w)
            return _Balanced(
                u=-pushed.w,
                squared=weighted_sum(pushed.middle, slope, grid),
                theta=pushed.middle,
                linear=False,
                n_iterations=pushed.n_iterations,
                converged=True,
            )
    return _Balanced(
        u=found.x,
        squared=squared,
        theta=theta,
        linear=True,
        n_iterations=found.n_iterations,
        converged=found.converged and linear,
    )


def _quantile(values: NDArray[Any], weights: NDArray[Any], share: float) -> float:
    """Weighted quantile."""
    order = np.argsort(values, axis=None)
    total = np.cumsum(weights.ravel()[order])
    return float(values.ravel()[order[int(np.searchsorted(total, share * total[-1]))]])


def wasserstein_2(
    *,
    reference: DoseMap,
    evaluated: DoseMap,
    mask: ArrayLike | None = None,
    weight: Weight = "dose",
    bounds: bool = True,
    fields: bool = True,
    refine: int = 3,
    halve: bool = False,
    tolerance: float = 3e-3,
    progress: Progress | None = None,
) -> TransportResult:
    r"""Wasserstein distance W_2 between two dose maps [mm], with a certified interval.

    W_2^2 = min over plans P of a/|a| and b/|b| of integral |x - y|^2 dP(x, y)

    Parameters
    ----------
    reference, evaluated : DoseMap
        Any grids; constant density in voxels.
    mask : array_like of bool or fraction, shape reference.grid.shape, optional
        Doses outside it are set to 0.
    weight : {"dose", "energy"}
    bounds : bool
        Compute the certified interval.
    fields : bool
        Compute the displacement and the potential per voxel.
    refine : int
        Rounds that improve the lower bound while the interval is wider than 1 %.
    halve : bool
        Halve the voxels at last, where the interval is still wide (noise). Takes 8 times the memory.
    tolerance : float
        Of the linear solver, in the energy norm.
    progress : callable, optional

    Returns
    -------
    TransportResult
        ``value`` [mm] is the estimate, clipped to the interval (``status`` says so where that changes it by
        more than 0.5 %; ``settings["estimate_mm"]`` is the estimate itself). ``fields`` on the cropped
        ``grid``: displacement_mm [3, z, y, x] (x, y, z) from each reference voxel, and the
        Kantorovich potential phi [mm2]. ``settings``: displacement_mean_mm (x, y, z),
        displacement_p95_mm (both weighted with the reference dose), mass_ratio.

    Raises
    ------
    InputError
        Where there is no mass, or memory would not suffice.

    Notes
    -----
    *Definition*: balanced transport of the normalised densities; blind to scale, see the mass ratio.
    *Method*: the reference is first moved by whole voxels towards the evaluated map where that makes them
    match better (``settings["moved_first_mm"]``), exactly accounted for. The lower bound is at least
    `axis_w2`, so that both ends meet for shifts by whole voxels.
    *Limits*: ``upper`` is None where voxels without dose separate parts of different mass. Where
    displacements exceed a voxel, a Newton scheme solves the Monge-Ampere equation of the midpoints from
    coarse to fine; ``status`` tells where it did not converge. Below a voxel the estimate is linear.
    *Cost*: about 3 CPU-s at 2 M voxels, twice that with Newton.

    References
    ----------
    benamou2000, jacobs2020, villani2003
    """
    report = progress or no_progress
    pair, ratio = _pair(reference, evaluated, mask, weight)
    moved = aligned(pair)
    check_memory(moved.pair.grid.n_voxels, _BYTES_PER_VOXEL, "W_2")
    space = SplineSpace(moved.pair.grid)
    report("estimate", 0.0)
    solved = _solve(moved.pair, space, tolerance=tolerance, linear=None)
    notes = [] if solved.converged else ["the estimate did not converge"]
    interval = Interval(None, None)
    if bounds:
        interval = _interval(moved, space, solved, refine, halve, report, notes)
    value = float(np.sqrt(moved.gained + solved.squared))
    clipped = interval.clip(value)
    if abs(clipped - value) > _WORTH_TELLING * value:
        notes.append(f"the estimate {value:.6g} mm was clipped to the certified interval")
    settings: dict[str, Any] = {"mass_ratio": ratio, "weight": weight, "masked": mask is not None}
    maps: dict[str, NDArray[Any]] = {}
    if fields:
        report("fields", 0.8)
        maps, told = _fields(pair, moved, space, solved.u)
        settings |= told
    report("done", 1.0)
    return TransportResult(
        value=clipped,
        lower=interval.lower,
        upper=interval.upper,
        grid=pair.grid,
        fields=maps,
        settings=settings
        | {
            "estimate_mm": value,
            "linear": solved.linear,
            "moved_first_mm": [float(s) for s in moved.shift_mm[::-1]],
        },
        n_iterations=solved.n_iterations,
        status="; ".join(notes) or "ok",
    )


def _axis_squared(pair: MeasurePair) -> float:
    """Sum over the axes of W_2^2 of the projections: a lower bound, exact for shifts and products."""
    return sum(
        line_w2_squared(t, axis_marginal(pair.a, pair.grid, i), axis_marginal(pair.b, pair.grid, i))
        for i, t in enumerate(pair.grid.edges_mm)
    )


def _interval(
    moved: Alignment,
    space: SplineSpace,
    solved: _Balanced,
    refine: int,
    halve: bool,
    report: Progress,
    notes: list[str],
) -> Interval:
    """Both bounds from the potential; an interrupt keeps what there is."""
    pair, gained = moved.pair, moved.gained
    if not np.any(pair.a != pair.b):
        return Interval(float(np.sqrt(gained)), float(np.sqrt(gained)))
    lower, upper, search = gained + _axis_squared(pair), np.inf, None
    try:
        report("upper bound", 0.3)
        flux = balanced_upper_bound(pair.a, pair.b, pair.grid, start=space.means(solved.u))
        upper = gained + flux.squared
        target = 0.99**2 * upper
        report("lower bound", 0.5)
        if lower < target:
            search = LowerBoundSearch(
                space, pair.a, pair.b, length_mm=np.inf, target=target - gained if upper < np.inf else np.inf
            )
            search.run(-solved.u, rounds=refine, halve=halve)
    except KeyboardInterrupt:
        notes.append("interrupted: the interval is the best so far")
    if search is not None:
        lower = max(lower, gained + search.best)
    return Interval(float(np.sqrt(min(lower, upper))), float(np.sqrt(upper)) if upper < np.inf else None)


def _fields(
    pair: MeasurePair, moved: Alignment, space: SplineSpace, u: NDArray[np.float64]
) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Displacement of each reference voxel, Kantorovich potential, and the displacement's summary."""
    middle = moved.at_reference(space.midpoints(u), pair.grid)
    potential = 2 * (np.square(middle[1:]).sum(axis=0) / 4 - middle[0])
    potential -= _ramp(moved.shift_mm, pair.grid)
    middle[1:] += moved.shift_mm[:, None, None, None]
    displacement = np.stack([middle[3], middle[2], middle[1]]).astype(np.float32)
    length = np.sqrt(np.square(middle[1:]).sum(axis=0))
    mass = pair.a * pair.grid.voxel_volume_mm3
    told = {
        "displacement_mean_mm": [float(np.sum(mass * v)) for v in displacement],
        "displacement_p95_mm": _quantile(length, mass, 0.95),
    }
    for values in (displacement, potential):
        values.setflags(write=False)
    return {"displacement_mm": displacement, "potential": potential}, told


def _ramp(shift_mm: NDArray[np.float64], grid: Grid) -> NDArray[np.float64]:
    """2 s.x [mm2], x from the middle of the box: what moving a density by s changes a potential by."""
    z, y, x = (
        2 * s * (c - (low + high) / 2)
        for s, c, (low, high) in zip(shift_mm, grid.centers_mm, grid.box_mm, strict=True)
    )
    return z[:, None, None] + y[:, None] + x


def wasserstein_2_gradient(
    *,
    reference: DoseMap,
    evaluated: DoseMap,
    mask: ArrayLike | None = None,
    weight: Weight = "dose",
    tolerance: float = 1e-4,
    linear: bool | None = None,
) -> tuple[float, NDArray[np.float64]]:
    r"""W_2^2 and its derivative with respect to the evaluated dose.

    d W_2^2 / d b = (psi - its mean under b) / |b|, psi the Kantorovich potential of the evaluated side, which
    is 2 u - |grad u|^2 / 2 for the linear estimate.

    Parameters
    ----------
    reference, evaluated, mask, weight
        As for `wasserstein_2`.
    tolerance : float
        Of the linear solver; its derivative is accurate to about this.
    linear : bool, optional
        Use the linear estimate (True) or Newton's (False); by default as `wasserstein_2` does.

    Returns
    -------
    squared : float
        W_2^2 [mm2] of the estimate, before any clipping.
    gradient : ndarray, shape evaluated.grid.shape
        Derivative [mm2/Gy].

    Notes
    -----
    *Limits*: exact for the linear estimate; for Newton's, the derivative of the exact distance, as good
    as the solution is converged.
    """
    check_memory(evaluated.grid.n_voxels, _BYTES_PER_VOXEL, "W_2")
    whole = measure_pair(reference=reference, evaluated=evaluated, mask=mask, weight=weight)
    a, b = whole.a / whole.reference_mass, whole.b / whole.evaluated_mass
    pair = MeasurePair(a=a, b=b, grid=whole.grid)
    moved = aligned(pair, whole=True)
    space = SplineSpace(moved.pair.grid)
    solved = _solve(moved.pair, space, tolerance=tolerance, linear=linear)
    if solved.linear:
        mean, slope, _ = space.voxel_means(solved.u)
        theta = (moved.pair.a + moved.pair.b) / 2
        psi = 2 * mean - np.where(theta >= solved.theta, slope / 2, 0.0)
    else:
        middle = space.midpoints(-solved.u)
        psi = 2 * (np.square(middle[1:]).sum(axis=0) / 4 - middle[0])
    psi = moved.at_evaluated(psi, pair.grid) + _ramp(moved.shift_mm, pair.grid)
    psi = psi - weighted_sum(psi, b, pair.grid)
    derivative = psi * pair.grid.voxel_volume_mm3 / whole.evaluated_mass
    gradient = to_evaluated_dose(
        derivative, reference=reference, evaluated=evaluated, mask=mask, weight=weight
    )
    return moved.gained + solved.squared, gradient
