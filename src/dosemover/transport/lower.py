"""The lower bound's search: better multiples and better potentials for the certified half-steps."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dosemover.transport.bounds import best_scale, half_step_lower_bounds
from dosemover.transport.spline import SplineSpace, solve_potential

_LARGEST_EXCESS = 3.0
"""Cap on the extra mobility of a voxel in one round."""


def best_lower_bound(
    space: SplineSpace,
    w: NDArray[np.float64],
    a: NDArray[np.float64],
    b: NDArray[np.float64],
    *,
    length_mm: float,
    target: float,
    rounds: int,
) -> float:
    r"""Largest certified lower bound of the squared distance times mass that a few rounds find.

    A round certifies multiples of w, and solves for w again with the mobility raised where the
    certificate's remainder terms cost most: theta (1 + excess), which flattens w there.

    Parameters
    ----------
    space : SplineSpace
    w : ndarray, shape space.grid.shape
        Coefficients of the first potential [mm2].
    a, b : ndarray, shape space.grid.shape
        Densities [Gy].
    length_mm : float
        L [mm]; inf for balanced transport.
    target : float
        Stop where the bound has reached it.
    rounds : int
        At most so many new potentials.
    """
    penalty, screening = 4 * length_mm**2, 1 / length_mm**2
    theta = (a + b) / 2
    theta = np.maximum(theta, 1e-7 * float(theta.max()))
    best, extra = 0.0, np.zeros_like(theta)
    tried = (1.0, 0.85, 0.7)
    for turn in range(rounds + 1):
        values, excess = half_step_lower_bounds(space, w, a, b, penalty=penalty, scales=tried)
        best = max(best, float(values.max()))
        if best >= target or turn == rounds:
            break
        new = np.minimum((2 if turn else 1) * excess, _LARGEST_EXCESS)
        extra = (extra + new) / 2 if turn else new.astype(np.float64)
        w = solve_potential(
            space,
            theta * (1 + extra),
            a - b,
            screening=screening,
            screen=theta,
            start=w,
            tolerance=5e-3,
        ).x
    last = best_scale(np.array(tried), values)
    if best < target and last not in tried:
        values, _ = half_step_lower_bounds(space, w, a, b, penalty=penalty, scales=(last,))
        best = max(best, float(values.max()))
    return best
