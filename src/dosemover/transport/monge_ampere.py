r"""Newton's method for the midpoint potential: large displacements, balanced or not.

The half-steps of w bring a and b together half-way: with z = x - grad w(z)/2 = y + grad w(z)/2,

    rho_a(z) = a(z + grad w/2) det(1 + D^2 w/2) exp(-2 w/K - |grad w|^2/2K),   rho_b likewise with -w,

and the dual functional is stationary where rho_a = rho_b (a Monge-Ampere equation in symmetric form). A
Newton step solves -div(rho grad d) + rho d / L^2 = rho_a - rho_b, rho their mean.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dosemover.grid import Grid, conserve, interpolate
from dosemover.transport import monge_ampere_kernels as kernels
from dosemover.transport.slabs import each_slab
from dosemover.transport.spline import SplineSpace, solve_potential

_FLOOR = 1e-4
"""Smallest mobility of a Newton step over the largest."""

_COARSEST = 14
"""Voxels along an axis below which grids are not coarsened further."""

_STALLED = 0.05
"""Mismatch above which a coarse Newton solution is not trusted."""

_BACKGROUNDS = tuple(float(x) for x in np.geomspace(10, 1e-3, 17))
"""Backgrounds of the continuation, over the mean density."""


@dataclass(frozen=True, kw_only=True, eq=False)
class MidpointPotential:
    """Potential w, the density at the midpoints, and how far the two half-way densities still differ."""

    w: NDArray[np.float64]
    middle: NDArray[np.float64]
    mismatch: float
    n_iterations: int
    converged: bool


def _center_tables(space: SplineSpace) -> list[NDArray[np.float64]]:
    """Tables of value, slope and second derivative at the middle of each voxel."""
    tables = []
    for bezier, v in zip(space.bezier, space.grid.widths_mm, strict=True):
        value = bezier[:, 0] / 4 + bezier[:, 1] / 2 + bezier[:, 2] / 4
        slope = (bezier[:, 2] - bezier[:, 0]) / v[:, None]
        second = 2 * (bezier[:, 0] - 2 * bezier[:, 1] + bezier[:, 2]) / np.square(v)[:, None]
        tables.append(np.ascontiguousarray(np.stack([value, slope, second], axis=1)))
    return tables


def middle_densities(
    space: SplineSpace,
    w: NDArray[np.float64],
    a: NDArray[np.float64],
    b: NDArray[np.float64],
    *,
    length_mm: float,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Densities of both maps at the midpoints of their paths, trilinear between voxel middles."""
    ra, rb = np.empty_like(a), np.empty_like(b)
    edges = space.grid.edges_mm
    middles = [(e[1:] + e[:-1]) / 2 for e in edges]
    penalty = min(4 * length_mm**2, 1e30)
    each_slab(
        kernels.push_to_middle, a.shape[0], a.size, w, a, b, *edges, *middles, *_center_tables(space),
        penalty, ra, rb,
    )  # fmt: skip
    if np.isinf(length_mm):
        volume = space.grid.voxel_volume_mm3
        total = float(np.sum(a * volume))
        for pushed in (ra, rb):
            left = float(np.sum(pushed * volume))
            pushed[:] *= total / left if left > 0 else 0.0  # 0: a step far too long leaves nothing in the box
    return ra, rb


def midpoint_newton(
    space: SplineSpace,
    a: NDArray[np.float64],
    b: NDArray[np.float64],
    w: NDArray[np.float64],
    *,
    length_mm: float,
    steps: int = 6,
    tolerance: float = 1e-3,
) -> MidpointPotential:
    r"""Improve a midpoint potential by damped Newton steps.

    Parameters
    ----------
    space : SplineSpace
    a, b : ndarray, shape space.grid.shape
        Densities; of equal mass where ``length_mm`` is inf.
    w : ndarray, shape space.grid.shape
        Coefficients of the first guess [mm2].
    length_mm : float
        L [mm]; inf for balanced transport.
    steps : int
        At most so many Newton steps.
    tolerance : float
        Stop where integral |rho_a - rho_b| falls below this share of the mass.
    """
    volume = space.grid.voxel_volume_mm3
    screening = 0.0 if np.isinf(length_mm) else 1 / length_mm**2

    def state(potential: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
        ra, rb = middle_densities(space, potential, a, b, length_mm=length_mm)
        both = float(np.sum((ra + rb) * volume))
        mismatch = 2 * float(np.sum(np.abs(ra - rb) * volume)) / both if both > 0 else np.inf
        return ra, rb, mismatch

    ra, rb, mismatch = state(w)
    count = 0
    while count < steps and mismatch > tolerance:
        mean = (ra + rb) / 2
        theta = np.maximum(mean, _FLOOR * float(mean.max()))
        step = solve_potential(
            space, theta, ra - rb, screening=screening, tolerance=3e-2, max_iterations=25
        ).x
        count += 1
        for damping in (1.0, 0.5, 0.2, 0.08):
            trial = w + damping * step
            new = state(trial)
            if new[2] < mismatch:
                break
        else:
            break
        previous, w, (ra, rb, mismatch) = mismatch, trial, new
        if mismatch > 0.95 * previous:
            break
    return MidpointPotential(
        w=w,
        middle=(ra + rb) / 2,
        mismatch=mismatch,
        n_iterations=count,
        converged=mismatch <= tolerance,
    )


def _coarser(grid: Grid) -> Grid | None:
    """Grid of pairs of voxels along every axis that is long enough; None where there is none."""
    edges, changed = [], False
    for e in grid.edges_mm:
        if e.size - 1 >= 2 * _COARSEST:
            changed = True
            kept = e[::2]
            edges.append(kept if e.size % 2 else np.append(kept, e[-1]))
        else:
            edges.append(e)
    if not changed:
        return None
    return Grid(z_edges_mm=edges[0], y_edges_mm=edges[1], x_edges_mm=edges[2])


def midpoint_potential(
    grid: Grid,
    a: NDArray[np.float64],
    b: NDArray[np.float64],
    *,
    length_mm: float,
    steps: int = 10,
    tolerance: float = 1e-3,
) -> MidpointPotential:
    """Midpoint potential from coarse grids to the finest, for displacements of many voxels."""
    coarse = _coarser(grid)
    space = SplineSpace(grid)
    more = steps
    if coarse is None:
        start = _continued(space, a, b, length_mm=length_mm, steps=3 * steps)
    else:
        below = midpoint_potential(
            coarse,
            conserve(a, source=grid, target=coarse),
            conserve(b, source=grid, target=coarse),
            length_mm=length_mm,
            steps=2 * steps,
            tolerance=tolerance,
        )
        start = _prolonged(below.w, coarse, grid)
    return midpoint_newton(space, a, b, start, length_mm=length_mm, steps=more, tolerance=tolerance)


def _continued(
    space: SplineSpace,
    a: NDArray[np.float64],
    b: NDArray[np.float64],
    *,
    length_mm: float,
    steps: int,
) -> NDArray[np.float64]:
    """Potential on a coarse grid; where Newton stalls, a background is added and taken away in stages."""
    zero = np.zeros(space.grid.shape)
    found = midpoint_newton(space, a, b, zero, length_mm=length_mm, steps=steps)
    if found.mismatch < _STALLED:
        return found.w
    w, level = zero, float(np.mean(a))
    for share in _BACKGROUNDS:
        trial = midpoint_newton(
            space, a + share * level, b + share * level, w, length_mm=length_mm, steps=steps
        )
        if trial.mismatch > _STALLED:
            break
        w = trial.w
    return w


def _prolonged(w: NDArray[np.float64], coarse: Grid, grid: Grid) -> NDArray[np.float64]:
    """Coefficients on a grid of half the spacing: exact where voxels are halved, else interpolated."""
    space, fine = SplineSpace(coarse).refined(w)
    if space.grid.coincides_with(grid):
        return fine
    return np.ascontiguousarray(interpolate(w, source=coarse, target=grid), dtype=np.float64)
