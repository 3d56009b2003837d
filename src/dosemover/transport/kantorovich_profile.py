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
    *Bounds*: each interval also holds at the other reaches: KR_R never falls as R grows, and is concave in R,
    so KR_R / R never rises.
    *Cost*: one solve a reach.
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
    """Let each reach's interval tighten the others': the flat norm never falls, and per reach never rises."""
    order = np.argsort(table[0], kind="stable")
    reach, value, lower, upper = table[:4, order]
    lower = np.maximum.accumulate(lower)
    lower = np.maximum(lower, reach * np.maximum.accumulate((lower / reach)[::-1])[::-1])
    upper = np.minimum.accumulate(upper[::-1])[::-1]
    upper = np.minimum(upper, reach * np.minimum.accumulate(upper / reach))
    value = np.maximum.accumulate(np.clip(value, lower, upper))
    table[1:4, order] = np.minimum(value, upper), lower, upper
