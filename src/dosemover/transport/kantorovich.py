"""The flat norm (Kantorovich-Rubinstein) and W_1 between two dose maps, with certified intervals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dosemover._runtime import Progress, no_progress
from dosemover.dose import DoseMap
from dosemover.transport.kantorovich_solve import (
    check_settings,
    flat_norm_pair,
    result_of,
    solve_balanced,
    solve_difference,
    value_of,
    w1_pair,
)
from dosemover.transport.measure import Weight, to_evaluated_dose
from dosemover.transport.result import TransportResult


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
        ``lower`` (a feasible f) and ``upper`` (a feasible flux) enclose the flat norm of the
        piecewise-constant densities. ``value`` [mm]: the middle, where they come as close as ``tolerance``;
        else, with noise, the middle of an interval that close, ``settings["solver_lower_mm"]`` to
        ``settings["solver_upper_mm"]``, of the supremum over f that are trilinear between the middles of the
        voxels, clipped to the former. ``parts``, of that flux:
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
    *Definition*: face flux in lowest Raviart-Thomas elements against f; multilevel over-relaxed primal-dual
    iterations. ``lower``: f is a quadratic spline with knots on the voxel faces, whose gradient is a mean of
    Bezier points and so no longer than the longest; with noise a trilinear f, where |grad f|^2 is convex
    along each axis and its maximum at the nodes is exact. Either is repaired and scaled until feasible.
    ``upper``: div m is constant in a voxel, so gain and loss are exact; the mean of |m| is bounded by Jensen
    or by the trapezoid rule, whichever is less.
    *Relations*: KR_R <= (R/2) integral |a - b| / |a_ref|, equal for small R; KR_R never falls as R grows;
    KR_R <= W_1 of the normalised maps + (R/2) |mass_ratio - 1|; R to infinity with equal masses gives W_1.
    *Limits*: a shift of a wide field costs as much moved as lost at one edge and gained at the other, so it
    may read either way; the flux is not unique and no map of displacements. With noise ``value`` stays 15 to
    40 % below ``upper``: f may have one kink a voxel, the continuum's as many as it likes, and white noise
    pays for every one; the flux is as coarse on its side. Both are true statements about different suprema.
    *Cost*: about 11 CPU-s at 2 M voxels with 5 % noise, 1.5 where smooth; 240 bytes a voxel; linear in the
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
    check_settings(tolerance, max_iterations, reach_mm)
    pair = flat_norm_pair(reference=reference, evaluated=evaluated, mask=mask, weight=weight)
    ratio = pair.mass_ratio
    solved = solve_difference(
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
    result = result_of(solved, unit=unit, parts=parts, settings=settings)
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
        ``value``, ``lower``, ``upper`` and ``settings`` as for `flat_norm`. ``fields``:
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
    *Cost*: 1 to 5 CPU-s at 2 M voxels for smooth maps, 10 with noise; 250 bytes a voxel.

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
    check_settings(tolerance, max_iterations)
    pair = w1_pair(reference=reference, evaluated=evaluated, mask=mask, weight=weight)
    solved = solve_balanced(pair, tolerance, max_iterations, progress)
    settings = {
        "tolerance": tolerance,
        "max_iterations": max_iterations,
        "mass_ratio": pair.mass_ratio,
        "weight": weight,
        "masked": mask is not None,
    }
    result = result_of(solved, unit=1.0, parts={}, settings=settings)
    result = replace(result, fields={"flow_mm": result.fields["flow_mm"]})
    return result.of_maps(pair.averaged_mm)


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
    check_settings(tolerance, max_iterations, reach_mm)
    pair = flat_norm_pair(reference=reference, evaluated=evaluated, mask=mask, weight=weight)
    solved = solve_difference(
        pair,
        pair.a - pair.b,
        reach_mm / 2,
        tolerance=tolerance,
        max_iterations=max_iterations,
        progress=no_progress,
    )
    slope = -solved.potential() * pair.grid.voxel_volume_mm3 / pair.reference_mass
    gradient = to_evaluated_dose(slope, reference=reference, evaluated=evaluated, mask=mask, weight=weight)
    return value_of(solved.bounds, tolerance) / pair.reference_mass, gradient


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
    check_settings(tolerance, max_iterations)
    pair = w1_pair(reference=reference, evaluated=evaluated, mask=mask, weight=weight)
    solved = solve_balanced(pair, tolerance, max_iterations, no_progress)
    f, volume = solved.potential(), pair.grid.voxel_volume_mm3
    mass = pair.evaluated_mass
    slope = -(f - float(np.sum(f * pair.b * volume)) / mass) * volume / mass
    gradient = to_evaluated_dose(slope, reference=reference, evaluated=evaluated, mask=mask, weight=weight)
    return value_of(solved.bounds, tolerance), gradient
