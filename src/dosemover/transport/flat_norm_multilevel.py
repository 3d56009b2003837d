"""The flat norm's iteration on a hierarchy of grids, from coarse to fine, until its interval is narrow."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dosemover._runtime import Progress
from dosemover.grid import Grid
from dosemover.transport.flat_norm_bounds import Bounds, Problem
from dosemover.transport.flat_norm_iterations import DualIteration, FluxIteration
from dosemover.transport.flat_norm_mesh import Mesh

_COARSE_ITERATIONS = 200
"""Most iterations on every level but the coarsest, which gets three times as many, and the finest."""

_COARSE_CHECK = 40
"""Iterations after which it is judged whether a coarse level has done its part."""

_SPLINE_CHECK = 10
"""Iterations after which the splines' bound is evaluated."""

_SPLINE_ITERATIONS = 60
"""Iterations after which splines are given up."""

_IN_SIGHT = 0.7
"""Gap over the tolerance at which repaired splines may close the interval."""

_LITTLE = 0.05
"""Least narrowing of the interval, over its width, for which it is tried again."""

_OUT_OF_SIGHT = 10.0
"""Gap over the tolerance that no smooth test function will close: there is noise."""

_STANDSTILL = 0.2
"""Change of the gap over itself below which more iterations would not close it."""

_SHARE = 0.5
"""Share of what the tolerance leaves that is left to gradients that are too long."""

_FLUX_CHECKS = (20, 40, 80, 160, 320)
"""Iterations of the flux after which the continuum's upper bound is evaluated."""


def _hierarchy(grid: Grid, density: NDArray[np.float64]) -> tuple[list[Mesh], list[NDArray[np.float64]]]:
    """Meshes from fine to coarse, with the mean density in their voxels."""
    meshes, densities = [Mesh.of(grid)], [density]
    while (coarse := meshes[-1].coarser()) is not None:
        densities.append(meshes[-1].coarsened(densities[-1], coarse))
        meshes.append(coarse)
    return meshes, densities


def _start(
    meshes: list[Mesh], densities: list[Any], half_reach: float, tolerance: float, progress: Progress
) -> tuple[Any, Any]:
    """Potential and multipliers for the finest mesh, from all coarser ones."""
    net = float(np.sum(densities[-1] * meshes[-1].voxel_volume))
    f: Any = np.zeros(meshes[-1].shape, np.float32)
    if np.isfinite(half_reach):  # a long reach lifts f as a whole, with the sign of what is left over
        f += np.float32(np.sign(net) * max(half_reach - meshes[0].diameter / 2, 0.0))
    p: Any = np.zeros((6, *meshes[-1].shape), np.float32)
    for level in range(len(meshes) - 1, 0, -1):
        mesh = meshes[level]
        problem = Problem(mesh, densities[level], half_reach)
        load = (problem.loaded / mesh.node_volume).astype(np.float32)
        iteration = DualIteration(mesh, load, half_reach, f, p, smooth=True)
        most = max(_COARSE_ITERATIONS, (3 * _COARSE_ITERATIONS) >> (len(meshes) - 1 - level))
        for _ in range(most // _COARSE_CHECK):
            iteration.run(_COARSE_CHECK)
            if problem.raw_gap(f, p) < tolerance / 4:
                break
        f, p = mesh.interpolated(f, meshes[level - 1]), mesh.transferred(p, meshes[level - 1])
        progress("flat norm", 0.3 * (len(meshes) - level) / len(meshes))
    return f, p


def _checks(done: int, max_iterations: int) -> list[int]:
    """Iterations after which certificates are evaluated: ever further apart."""
    checks = [min(done + 20, max_iterations)]
    while checks[-1] < max_iterations:
        checks.append(min(max(checks[-1] + 20, int(1.4 * checks[-1])), max_iterations))
    return checks


def solve(
    grid: Grid,
    density: NDArray[np.float64],
    *,
    half_reach: float,
    tolerance: float,
    max_iterations: int,
    progress: Progress,
) -> Bounds:
    """Enclose the supremum of integral f density over 1-Lipschitz f with |f| <= half_reach.

    Parameters
    ----------
    grid : Grid
    density : ndarray, shape grid.shape
        Difference of both densities, not 0 everywhere.
    half_reach : float
        R/2 [mm]; infinity for W_1, where ``density`` must integrate to 0.
    tolerance : float
        Relative width at which the interval of the trilinear supremum is narrow enough.
    max_iterations : int
        On the finest grid, for the potential; the flux gets a fixed number.
    progress : callable

    Returns
    -------
    Bounds
        In the unit of density times mm4; the flow in density times mm3, outside in (z, y, x) order. An
        interrupt keeps the best so far, and ``interrupted`` tells.
    """
    from threadpoolctl import threadpool_limits

    scale = float(np.sum(np.square(density)) / np.sum(np.abs(density)))
    scaled = density / scale
    meshes, densities = _hierarchy(grid, scaled)
    problem, bounds = Problem(meshes[0], scaled, half_reach), Bounds()
    with threadpool_limits(1, "blas"):  # the bits of dense products would depend on their threads
        _enclose(meshes, densities, problem, bounds, tolerance, max_iterations, progress)
    return bounds.scaled(scale)


def _enclose(
    meshes: list[Mesh],
    densities: list[Any],
    problem: Problem,
    bounds: Bounds,
    tolerance: float,
    max_iterations: int,
    progress: Progress,
) -> None:
    """Iterate from the coarsest grid to the finest, then on the flux; an interrupt keeps the best so far."""
    mesh, half_reach = problem.mesh, problem.half_reach
    try:
        f, p = _start(meshes, densities, half_reach, tolerance, progress)
        load = (problem.loaded / mesh.node_volume).astype(np.float32)
        smooth = DualIteration(mesh, load, half_reach, f, p, smooth=True)
        gap = _by_splines(problem, smooth, bounds, tolerance, max_iterations, progress)
        if bounds.closed(tolerance):
            return
        potential = f.copy()
        iteration = DualIteration(mesh, load, half_reach, f, p, smooth=False)
        for check in _checks(bounds.n_iterations, max_iterations):
            iteration.run(check - bounds.n_iterations)
            bounds.n_iterations = check
            problem.trilinear(f, bounds, tolerance)
            problem.discrete(p, bounds)
            progress("flat norm", 0.4 + 0.4 * check / max(max_iterations, 1))
            lower, upper = bounds.solver
            if lower >= (1 - tolerance) * upper:
                break
        problem.upper(f, p, bounds)
        del iteration, smooth, p
        if bounds.gap > gap + tolerance:
            problem.spline(potential, bounds, tolerance, repair=_SHARE * max(tolerance - gap, 0.0))
        _tighten(problem, densities[0], bounds, tolerance, progress)
    except KeyboardInterrupt:
        if not np.isfinite(bounds.upper):
            raise
        bounds.interrupted = True


def _by_splines(
    problem: Problem,
    iteration: DualIteration,
    bounds: Bounds,
    tolerance: float,
    max_iterations: int,
    progress: Progress,
) -> float:
    """Close the continuum's interval with splines, as long as that is in sight: not with noise.

    Returns how wide it would be with the last spline, if all its gradients could be shortened for nothing.
    """
    gap = last = narrowest = np.inf
    for check in range(0, min(_SPLINE_ITERATIONS, max_iterations) + 1, _SPLINE_CHECK):
        iteration.run(check - bounds.n_iterations)
        bounds.n_iterations = check
        f, p = iteration.f, iteration.p
        problem.upper(f, p, bounds)
        gap = 1 - problem.spline(f, bounds, tolerance) / bounds.upper
        hopeless = gap > _OUT_OF_SIGHT * tolerance and check > 0
        stands = gap > _IN_SIGHT * tolerance and abs(gap - last) < _STANDSTILL * gap
        if abs(gap) <= _IN_SIGHT * tolerance:
            room = min(tolerance - gap, tolerance)
            problem.spline(f, bounds, tolerance, repair=_SHARE * room)
            stands = bounds.gap > (1 - _LITTLE) * narrowest
            narrowest = min(bounds.gap, narrowest)
        progress("flat norm", 0.3 + 0.1 * check / _SPLINE_ITERATIONS)
        if bounds.closed(tolerance) or hopeless or stands:
            break
        last = gap
    return abs(gap)


def _tighten(
    problem: Problem, density: NDArray[np.float64], bounds: Bounds, tolerance: float, progress: Progress
) -> None:
    """Lower the continuum's upper bound by the cheapest flux, while that pays."""
    if bounds.closed(tolerance):
        return
    flux = FluxIteration(
        problem.mesh, density.astype(np.float32), problem.half_reach, bounds.potential, bounds.flow
    )
    done, last = 0, np.inf
    for check in _FLUX_CHECKS:
        flux.run(check - done)
        cost = problem.continuum(flux.flow, flux.f, bounds)
        progress("flat norm", 0.8 + 0.2 * check / _FLUX_CHECKS[-1])
        if bounds.closed(tolerance) or cost > (1 - tolerance) * last:
            return
        done, last = check, cost
