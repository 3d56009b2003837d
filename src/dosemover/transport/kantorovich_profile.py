"""The flat norm over its reach: at which scale a difference is a matter of moving."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dosemover._runtime import Progress, no_progress
from dosemover.dose import DoseMap
from dosemover.transport.kantorovich import flat_norm
from dosemover.transport.measure import Weight

DEFAULT_REACHES_MM = (1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 50.0, 100.0)
"""Reaches of the profile [mm]."""


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
    *Bounds*: each interval also tells about the other reaches. A flow that leaves a share g to gain or loss
    costs g dR / 2 more where the reach is dR longer, which bounds from above; KR_R never falls as R grows and
    is concave, which bounds from below.
    *Cost*: one solve a reach. Coarse grids start each one; to start from a neighbouring reach takes more
    iterations, not fewer (measured upwards and downwards, smooth and noisy: 0.9 to 3.6 times the CPU time).
    """
    reaches = [float(r) for r in np.atleast_1d(np.asarray(reaches_mm, dtype=np.float64))]
    rows = []
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
        rows.append((reach, one.value, one.lower, one.upper, *one.parts.values()))
    table = np.array(rows, dtype=np.float64).T
    _tighten(table)
    names = ("reach_mm", "value", "lower", "upper", "moved_mm", "gained_percent", "lost_percent")
    return {name: row.tolist() for name, row in zip(names, table, strict=True)}


def _tighten(table: NDArray[np.float64]) -> None:
    """Let each reach's interval tighten the others'.

    The flat norm is the least of all flows' costs, each of which rises by half of what its flow leaves over:
    so it never falls, and it is concave from 0 on.
    """
    order = np.argsort(table[0], kind="stable")
    reach, value, lower, upper = table[:4, order]
    left = table[5:, order].sum(axis=0) / 100
    upper = np.min(upper + np.subtract.outer(reach, reach) / 2 * left, axis=1)
    lower = np.minimum(_concave(reach, np.maximum.accumulate(np.minimum(lower, upper))), upper)
    value = np.maximum.accumulate(np.clip(value, lower, upper))
    table[1:4, order] = np.minimum(value, upper), lower, upper


def _concave(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Least concave function through 0 that is nowhere below y, at ascending positive x."""
    corners = [(0.0, 0.0)]
    for point in zip(x, y, strict=True):
        while len(corners) > 1 and _below(corners[-2], corners[-1], point):
            corners.pop()
        corners.append(point)
    return np.maximum(np.interp(x, *np.array(corners).T), y)


def _below(first: tuple[float, float], middle: tuple[float, float], last: tuple[float, float]) -> bool:
    """Whether the middle point lies on or below the chord from the first to the last."""
    (x0, y0), (x1, y1), (x2, y2) = first, middle, last
    return (y1 - y0) * (x2 - x0) <= (y2 - y0) * (x1 - x0)
