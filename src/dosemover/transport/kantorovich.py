"""The flat norm (Kantorovich-Rubinstein) and W_1 between two dose maps, with certified intervals."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dosemover._runtime import Progress, no_progress
from dosemover.dose import DoseMap
from dosemover.errors import InputError
from dosemover.grid import Grid
from dosemover.transport.flat_norm_bounds import Bounds
from dosemover.transport.measure import MeasurePair, Weight, checked_pair, to_evaluated_dose
from dosemover.transport.result import TransportResult

DEFAULT_REACHES_MM = (1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 50.0, 100.0)
"""Reaches of the profile [mm]."""

_BYTES_PER_VOXEL = 240
"""Peak memory on the grid, beside both maps."""

_flat_norm_pair = partial(
    checked_pair,
    what="the flat norm",
    bytes_per_voxel=_BYTES_PER_VOXEL,
    consequence="the flat norm will report gain or loss above all",
)
_w1_pair = partial(checked_pair, what="W_1", bytes_per_voxel=_BYTES_PER_VOXEL)


def _check(tolerance: float, max_iterations: int, reach_mm: float | None = None) -> None:
    """Refuse settings without meaning."""
    if reach_mm is not None and not (np.isfinite(reach_mm) and reach_mm > 0):
        raise InputError(
            f"`reach_mm` must be positive and finite, got {reach_mm}. It is the longest way that dose may "
            "travel before gain and loss are cheaper. Pass 10 mm, or call `wasserstein_1` for no limit."
        )
    if not 0 < tolerance < 1:
        raise InputError(f"`tolerance` must lie between 0 and 1, got {tolerance}. Pass 0.01 for 1 %.")
    if max_iterations < 0:
        raise InputError(f"`max_iterations` must not be negative, got {max_iterations}. Pass 2000.")


@dataclass(frozen=True, kw_only=True, eq=False)
class _Solved:
    """Bounds on the box of the difference, with a margin of one voxel that leaves them unchanged."""

    pair: MeasurePair
    cut: tuple[slice, slice, slice]
    grid: Grid
    bounds: Bounds | None

    def _padding(self) -> list[tuple[int, int]]:
        """Voxels of the pair's grid before and after the box along each axis."""
        ends = zip(self.cut, self.pair.grid.shape, strict=True)
        return [(one.start, n - one.stop) for one, n in ends]

    def potential(self) -> NDArray[np.float64]:
        """Voxel means of the optimal test function f [mm], continued constantly outside the box."""
        from dosemover.transport.flat_norm_mesh import Mesh

        if self.bounds is None:
            return np.zeros(self.pair.grid.shape)
        mesh = Mesh.of(self.pair.grid)
        smooth = self.bounds.spline > self.bounds.trilinear
        best = self.bounds.coefficients if smooth else self.bounds.potential
        f = np.pad(best.astype(np.float64), self._padding(), mode="edge")
        return mesh.spline_means(f) if smooth else mesh.voxel_means(f)

    def outside(self, values: NDArray[Any]) -> NDArray[Any]:
        """Values on the box, 0 around it."""
        leading = [(0, 0)] * (values.ndim - 3)
        return np.pad(values, [*leading, *self._padding()])


def _solve(pair: MeasurePair, density: NDArray[np.float64], half_reach: float, **settings: Any) -> _Solved:
    """Crop to the difference and enclose its norm; no bounds where there is none."""
    from dosemover.transport.flat_norm_multilevel import solve

    different = density != 0
    slices = []
    for axis, n in enumerate(density.shape):
        hits = np.flatnonzero(different.any(axis=tuple(i for i in range(3) if i != axis)))
        slices.append(
            slice(max(int(hits[0]) - 1, 0), min(int(hits[-1]) + 2, n)) if hits.size else slice(0, n)
        )
    cut = (slices[0], slices[1], slices[2])
    grid = pair.grid.crop(cut)
    if not different.any():
        return _Solved(pair=pair, cut=cut, grid=grid, bounds=None)
    bounds = solve(grid, np.ascontiguousarray(density[cut]), half_reach=half_reach, **settings)
    return _Solved(pair=pair, cut=cut, grid=grid, bounds=bounds)


def _flow_fields(solved: _Solved) -> dict[str, NDArray[Any]]:
    """Flow of dose in mm (over the reference maximum) and gain or loss of dose in Gy, per voxel."""
    shape = solved.pair.grid.shape
    if solved.bounds is None:
        zero = np.zeros(shape, np.float32)
        return {"flow_mm": np.zeros((3, *shape), np.float32), "gain_loss_gy": zero}
    volume = solved.grid.voxel_volume_mm3
    flow = np.empty((3, *solved.grid.shape), np.float32)
    for axis in range(3):
        through = solved.bounds.flow[axis]
        mean = through.copy()
        later = (slice(None),) * axis + (slice(1, None),)
        mean[later] += through[(slice(None),) * axis + (slice(0, -1),)]
        width = solved.grid.widths_mm[axis].reshape([-1 if i == axis else 1 for i in range(3)])
        flow[2 - axis] = mean / 2 * width / volume
    flow /= np.float32(solved.pair.a.max())
    gain = (-solved.bounds.gain_loss / volume).astype(np.float32)
    return {"flow_mm": solved.outside(flow), "gain_loss_gy": solved.outside(gain)}


def _value(bounds: Bounds, tolerance: float) -> float:
    """Middle of the continuum's interval where that is narrow, else of the solver's, if inside the former."""
    if bounds.closed(tolerance):
        return (bounds.lower + bounds.upper) / 2
    return min(max(sum(bounds.solver) / 2, bounds.lower), bounds.upper)


def _status(bounds: Bounds, tolerance: float) -> str:
    """What a reader must know."""
    lower, upper = bounds.solver
    width = min(1 - lower / upper, bounds.gap)
    if bounds.interrupted:
        return f"interrupted: the interval holds, and is {100 * width:.2g} % wide for the solver"
    if width > tolerance:
        return (
            f"not converged after {bounds.n_iterations} iterations: the interval holds, and is "
            f"{100 * width:.2g} % wide for the solver; raise `max_iterations`"
        )
    return "ok"


def _result(
    solved: _Solved, *, unit: float, parts: dict[str, float], settings: dict[str, Any]
) -> TransportResult:
    """Result in mm, ``unit`` one over the mass that the cost is divided by."""
    fields = _flow_fields(solved)
    bounds = solved.bounds
    if bounds is None:
        return TransportResult(
            value=0.0,
            lower=0.0,
            upper=0.0,
            grid=solved.pair.grid,
            parts=parts,
            fields=fields,
            settings=settings | {"solver_lower_mm": 0.0, "solver_upper_mm": 0.0},
        )
    closed = bounds.closed(settings["tolerance"])
    lower, upper = (bounds.lower, bounds.upper) if closed else bounds.solver
    return TransportResult(
        value=_value(bounds, settings["tolerance"]) * unit,
        lower=bounds.lower * unit,
        upper=bounds.upper * unit,
        grid=solved.pair.grid,
        parts=parts,
        fields=fields,
        settings=settings | {"solver_lower_mm": lower * unit, "solver_upper_mm": upper * unit},
        n_iterations=bounds.n_iterations,
        status=_status(bounds, settings["tolerance"]),
    )


def flat_norm(
    *,
    reference: DoseMap,
    evaluated: DoseMap,
    reach_mm: float = 10.0,
    mask: ArrayLike | None = None,
    weight: Weight = "dose",
    tolerance: float = 0.01,
    max_iterations: int = 2000,
    progress: Progress = no_progress,
) -> TransportResult:
    r"""Flat norm (Kantorovich-Rubinstein) between two dose maps [mm]: moving, gain and loss within a reach.

    Moving a unit of dose by d costs d, gaining or losing it R/2, so nothing travels further than the reach R:

        KR_R(a, b) = (1/|a_ref|) min over flux m of  integral |m| + (R/2) integral |a - b - div m|
                   = (1/|a_ref|) sup of integral f (a - b),  f 1-Lipschitz, |f| <= R/2

    Parameters
    ----------
    reference, evaluated : DoseMap
        Any grids; compared on the union of their boxes, integrals conserved.
    reach_mm : float
        R [mm].
    mask : array_like of bool or fraction, shape reference.grid.shape, optional
        Doses outside it are set to 0.
    weight : {"dose", "energy"}
        "energy" multiplies by the reference's density map.
    tolerance : float
        Relative width of the solver's interval at which it stops.
    max_iterations : int
        On the voxel grid.
    progress : callable

    Returns
    -------
    TransportResult
        ``value`` [mm]: the supremum over test functions that are trilinear between the middles of the
        voxels, the middle of its interval from ``lower`` (a feasible f) to ``settings["solver_upper_mm"]``.
        ``upper``: an upper bound of the supremum over all test functions, from a feasible flux; so
        [lower, upper] encloses the flat norm of the piecewise-constant densities. ``parts``, of that flux:
        kr_moved_mm = integral |m| / |a_ref|, kr_gained_percent and kr_lost_percent of |a_ref|. ``fields``:
        flow_mm [3, z, y, x], the flux m in (x, y, z) over the reference maximum, and gain_loss_gy, dose
        gained (positive) or lost (negative).

    Raises
    ------
    InputError
        Where there is no mass, the reach or a setting is not usable, or memory would not suffice.

    Warns
    -----
    AccuracyWarning
        Where the masses differ by more than a factor of 2.

    Notes
    -----
    *Definition*: face flux in lowest Raviart-Thomas elements against nodal trilinear f; multilevel
    over-relaxed primal-dual iterations. ``lower``: |grad f|^2 is convex along each axis, so its maximum at
    the nodes is exact; f is repaired and scaled until feasible. ``upper``: div m is constant in a voxel, so
    gain and loss are exact; the mean of |m| is bounded by Jensen or by the trapezoid rule, whichever is less.
    *Relations*: KR_R <= (R/2) integral |a - b| / |a_ref|, equal for small R; KR_R never falls as R grows;
    KR_R <= W_1 of the normalised maps + (R/2) |mass_ratio - 1|; R to infinity with equal masses gives W_1.
    *Limits*: a shift of a wide field costs as much moved as lost at one edge and gained at the other, so it
    may read either way; the flux is not unique and no map of displacements. With noise the value of voxels
    (trilinear f) stays 15 to 40 % below ``upper``: both are true statements about different suprema.
    *Cost*: about 5 CPU-s at 2 M voxels with 5 % noise, 1.5 where smooth; 240 bytes a voxel; linear in the
    number of voxels.

    References
    ----------
    Lellmann, Lorenz, Schonlieb & Valkonen, Imaging with Kantorovich-Rubinstein discrepancy, 2014; Chambolle &
    Pock, A first-order primal-dual algorithm for convex problems, 2011.

    Examples
    --------
    >>> import numpy as np
    >>> dose = DoseMap.from_array(np.ones((4, 4, 4)), spacing_mm=(2.0, 2.0, 2.0))
    >>> more = DoseMap.from_array(np.full((4, 4, 4), 1.05), spacing_mm=(2.0, 2.0, 2.0))
    >>> result = flat_norm(reference=dose, evaluated=more)
    >>> round(result.value, 2), round(result.parts["kr_gained_percent"], 2)
    (0.25, 5.0)
    """
    _check(tolerance, max_iterations, reach_mm)
    pair = _flat_norm_pair(reference=reference, evaluated=evaluated, mask=mask, weight=weight)
    ratio = pair.mass_ratio
    solved = _solve(
        pair,
        pair.a - pair.b,
        reach_mm / 2,
        tolerance=tolerance,
        max_iterations=max_iterations,
        progress=progress,
    )
    unit = 1 / pair.reference_mass
    parts = {"kr_moved_mm": 0.0, "kr_gained_percent": 0.0, "kr_lost_percent": 0.0}
    if solved.bounds is not None:
        left = solved.bounds.gain_loss
        parts = {
            "kr_moved_mm": solved.bounds.moved * unit,
            "kr_gained_percent": -100 * unit * float(left[left < 0].sum()),
            "kr_lost_percent": 100 * unit * float(left[left > 0].sum()),
        }
    settings = {
        "reach_mm": reach_mm,
        "tolerance": tolerance,
        "max_iterations": max_iterations,
        "mass_ratio": ratio,
        "weight": weight,
        "masked": mask is not None,
    }
    result = _result(solved, unit=unit, parts=parts, settings=settings)
    return result.of_maps(pair.averaged_mm * pair.mass_ratio)


def wasserstein_1(
    *,
    reference: DoseMap,
    evaluated: DoseMap,
    mask: ArrayLike | None = None,
    weight: Weight = "dose",
    tolerance: float = 0.01,
    max_iterations: int = 1000,
    progress: Progress = no_progress,
) -> TransportResult:
    r"""Wasserstein distance W_1 between the normalised maps [mm]: the least mean way.

        W_1(a, b) = min over flux m with div m = a/|a| - b/|b| of  integral |m|
                  = sup of integral f (a/|a| - b/|b|),  f 1-Lipschitz

    Parameters
    ----------
    reference, evaluated : DoseMap
        Any grids; compared on the union of their boxes, integrals conserved.
    mask : array_like of bool or fraction, shape reference.grid.shape, optional
        Doses outside it are set to 0.
    weight : {"dose", "energy"}
        "energy" multiplies by the reference's density map.
    tolerance : float
        Relative width of the solver's interval at which it stops.
    max_iterations : int
        On the voxel grid.
    progress : callable

    Returns
    -------
    TransportResult
        ``value``, ``lower``, ``upper`` and ``settings["solver_upper_mm"]`` as for `flat_norm`. ``fields``:
        flow_mm [3, z, y, x], the flux in (x, y, z) over the largest normalised reference density.

    Raises
    ------
    InputError
        Where there is no mass, a setting is not usable, or memory would not suffice.

    Notes
    -----
    *Definition*: the flat norm without limit on the reach; the potential's steps are taken in the metric of
    the gradient, by a spectral Poisson solve, which also closes the flux.
    *Relations*: ``axis_w1 <= W_1 <= W_2``, ``SW_1 <= W_1``; W_1 of voxel atoms (`emd`) differs by at most its
    ``atom_error_mm``.
    *Limits*: blind to scale (see mass_ratio); the flux is not unique and no map of displacements.
    *Cost*: 3 CPU-s at 2 M voxels for smooth maps, 10 with noise; 250 bytes a voxel.

    References
    ----------
    Jacobs, Leger, Li & Osher, Solving large-scale optimization problems with a convergence rate independent
    of grid size, 2019 (steps in the metric of the gradient).

    Examples
    --------
    >>> import numpy as np
    >>> dose = np.zeros((1, 1, 16)); dose[..., 2:6] = 1.0
    >>> a = DoseMap.from_array(dose, spacing_mm=(2.0, 2.0, 2.0))
    >>> b = DoseMap.from_array(np.roll(dose, 4, axis=2), spacing_mm=(2.0, 2.0, 2.0))
    >>> round(wasserstein_1(reference=a, evaluated=b).value, 1)
    8.0
    """
    _check(tolerance, max_iterations)
    pair = _w1_pair(reference=reference, evaluated=evaluated, mask=mask, weight=weight)
    solved = _solve_balanced(pair, tolerance, max_iterations, progress)
    settings = {
        "tolerance": tolerance,
        "max_iterations": max_iterations,
        "mass_ratio": pair.mass_ratio,
        "weight": weight,
        "masked": mask is not None,
    }
    result = _result(solved, unit=1.0, parts={}, settings=settings)
    result = replace(result, fields={"flow_mm": result.fields["flow_mm"]})
    return result.of_maps(pair.averaged_mm)


def _solve_balanced(pair: MeasurePair, tolerance: float, max_iterations: int, progress: Progress) -> _Solved:
    """Bounds of W_1 between the normalised maps."""
    a, b = pair.a / pair.reference_mass, pair.b / pair.evaluated_mass
    density = a - b
    density[np.abs(density) <= 4 * np.finfo(np.float64).eps * (a + b)] = 0.0  # one map is a multiple
    return _solve(
        MeasurePair(a=a, b=b, grid=pair.grid),
        density,
        np.inf,
        tolerance=tolerance,
        max_iterations=max_iterations,
        progress=progress,
    )


def flat_norm_gradient(
    *,
    reference: DoseMap,
    evaluated: DoseMap,
    reach_mm: float = 10.0,
    mask: ArrayLike | None = None,
    weight: Weight = "dose",
    tolerance: float = 0.01,
    max_iterations: int = 2000,
) -> tuple[float, NDArray[np.float64]]:
    r"""Flat norm and its derivative with respect to the evaluated dose.

    By the envelope theorem, ``d KR / d b = -f / |a_ref|``, f the optimal test function, averaged over each
    voxel and times its volume.

    Parameters
    ----------
    reference, evaluated, reach_mm, mask, weight, tolerance, max_iterations
        As for `flat_norm`.

    Returns
    -------
    value : float
        KR [mm].
    gradient : ndarray, shape evaluated.grid.shape
        d KR / d dose of each evaluated voxel [mm/Gy].

    Notes
    -----
    *Limits*: a subgradient of a convex function: where f is not unique (equal maps above all), one of
    several; its error shrinks with ``tolerance``.
    """
    _check(tolerance, max_iterations, reach_mm)
    pair = _flat_norm_pair(reference=reference, evaluated=evaluated, mask=mask, weight=weight)
    solved = _solve(
        pair,
        pair.a - pair.b,
        reach_mm / 2,
        tolerance=tolerance,
        max_iterations=max_iterations,
        progress=no_progress,
    )
    slope = -solved.potential() * pair.grid.voxel_volume_mm3 / pair.reference_mass
    gradient = to_evaluated_dose(slope, reference=reference, evaluated=evaluated, mask=mask, weight=weight)
    value = 0.0 if solved.bounds is None else _value(solved.bounds, tolerance)
    return value / pair.reference_mass, gradient


def wasserstein_1_gradient(
    *,
    reference: DoseMap,
    evaluated: DoseMap,
    mask: ArrayLike | None = None,
    weight: Weight = "dose",
    tolerance: float = 0.01,
    max_iterations: int = 1000,
) -> tuple[float, NDArray[np.float64]]:
    r"""W_1 and its derivative with respect to the evaluated dose.

    By the envelope theorem, ``d W_1 / d b = -(f - mean of f under b) / |b|``, averaged over each voxel and
    times its volume.

    Parameters
    ----------
    reference, evaluated, mask, weight, tolerance, max_iterations
        As for `wasserstein_1`.

    Returns
    -------
    value : float
        W_1 [mm].
    gradient : ndarray, shape evaluated.grid.shape
        d W_1 / d dose of each evaluated voxel [mm/Gy].

    Notes
    -----
    *Limits*: as for `flat_norm_gradient`.
    """
    _check(tolerance, max_iterations)
    pair = _w1_pair(reference=reference, evaluated=evaluated, mask=mask, weight=weight)
    solved = _solve_balanced(pair, tolerance, max_iterations, no_progress)
    f, volume = solved.potential(), pair.grid.voxel_volume_mm3
    mass = pair.evaluated_mass
    slope = -(f - float(np.sum(f * pair.b * volume)) / mass) * volume / mass
    gradient = to_evaluated_dose(slope, reference=reference, evaluated=evaluated, mask=mask, weight=weight)
    return 0.0 if solved.bounds is None else _value(solved.bounds, tolerance), gradient


def flat_norm_profile(
    *,
    reference: DoseMap,
    evaluated: DoseMap,
    reaches_mm: ArrayLike = DEFAULT_REACHES_MM,
    mask: ArrayLike | None = None,
    weight: Weight = "dose",
    tolerance: float = 0.02,
    max_iterations: int = 1000,
    progress: Progress = no_progress,
) -> dict[str, list[float]]:
    """Flat norm for each reach R: at which scale a difference is a matter of moving.

    It never falls as R grows: proportional to R while everything is gained and lost, level once everything
    moves, and rising again by (R/2) |mass_ratio - 1| where the masses differ.

    Parameters
    ----------
    reference, evaluated, mask, weight, tolerance, max_iterations, progress
        As for `flat_norm`.
    reaches_mm : array_like
        Reaches R [mm], positive.

    Returns
    -------
    dict
        "reach_mm", "value", "lower", "upper" [mm], "moved_mm", "gained_percent" and "lost_percent": one list
        each.

    Raises
    ------
    InputError
        Where a reach is not positive, and as `flat_norm`.

    Notes
    -----
    *Cost*: one solve a reach.
    """
    reaches = [float(r) for r in np.atleast_1d(np.asarray(reaches_mm, dtype=np.float64))]
    names = ("reach_mm", "value", "lower", "upper", "moved_mm", "gained_percent", "lost_percent")
    found: dict[str, list[float]] = {name: [] for name in names}
    for i, reach in enumerate(reaches):
        progress("profile over R", i / len(reaches))
        one = flat_norm(
            reference=reference,
            evaluated=evaluated,
            reach_mm=reach,
            mask=mask,
            weight=weight,
            tolerance=tolerance,
            max_iterations=max_iterations,
        )
        assert one.lower is not None
        assert one.upper is not None
        row = (reach, one.value, one.lower, one.upper, *one.parts.values())
        for name, value in zip(names, row, strict=True):
            found[name].append(value)
    return found
