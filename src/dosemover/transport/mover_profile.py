"""The Dose Mover's Distance over its exchange length: at which scale a difference is explained by moving."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from dosemover._runtime import Progress, no_progress
from dosemover.dose import DoseMap
from dosemover.errors import InputError
from dosemover.transport.dose_mover import mover_estimate, mover_problem
from dosemover.transport.measure import Weight
from dosemover.transport.spline import SplineSpace

DEFAULT_LENGTHS_MM = (3.0, 5.0, 10.0, 20.0, 33.0, 50.0, 100.0, 200.0, 333.0, 1000.0)
"""Exchange lengths of the profile [mm]."""


def dose_mover_profile(
    *,
    reference: DoseMap,
    evaluated: DoseMap,
    lengths_mm: ArrayLike = DEFAULT_LENGTHS_MM,
    ambient_dose_percent: float = 0.1,
    ambient_dose_gy: float | None = None,
    mask: ArrayLike | None = None,
    weight: Weight = "dose",
    tolerance: float = 5e-3,
    progress: Progress | None = None,
) -> dict[str, list[float]]:
    r"""Estimate of the Dose Mover's Distance for each exchange length L.

    It rises with L, and d DMD^2 / d(L^2) = dmd_changed^2: where the curve is flat the difference is movement,
    where it is proportional to L it is change.

    Parameters
    ----------
    reference, evaluated, ambient_dose_percent, ambient_dose_gy, mask, weight
        As for `dose_movers_distance`.
    lengths_mm : array_like
        Exchange lengths L [mm], positive.
    tolerance : float
        Of the solver.
    progress : callable, optional

    Returns
    -------
    dict
        "exchange_length_mm", "value" [mm], "moved_mm" and "changed_percent": one list each.

    Raises
    ------
    InputError
        Where a length is not positive, and as `dose_movers_distance`.

    Notes
    -----
    *Limits*: of the linearised estimate at every length; where `dose_movers_distance` finds that dose travels
    too far for it (``settings["linear"]`` is False), the profile does not hold either.
    *Cost*: one solve a length, each started from the one before.
    """
    lengths = np.atleast_1d(np.asarray(lengths_mm, dtype=np.float64))
    if lengths.size == 0 or not np.all(np.isfinite(lengths) & (lengths > 0)):
        raise InputError(
            f"`lengths_mm` must be positive, got {lengths.tolist()}. The exchange rate between mm and % "
            "is not defined without it. Pass lengths from 3 to 1000 mm."
        )
    report = progress or no_progress
    first = mover_problem(
        reference=reference,
        evaluated=evaluated,
        exchange_mm_per_percent=float(lengths[0]) / 100,
        ambient_dose_percent=ambient_dose_percent,
        ambient_dose_gy=ambient_dose_gy,
        mask=mask,
        weight=weight,
    )
    space, start = SplineSpace(first.grid), None
    found: dict[str, list[float]] = {
        name: [] for name in ("exchange_length_mm", "value", "moved_mm", "changed_percent")
    }
    for i, length in enumerate(lengths):
        report("profile over L", i / lengths.size)
        estimate = mover_estimate(first.at_length(float(length)), space, tolerance=tolerance, start=start)
        start = estimate.solution.x
        found["exchange_length_mm"].append(float(length))
        found["value"].append(float(np.sqrt(estimate.squared)))
        found["moved_mm"].append(float(np.sqrt(estimate.moved_squared)))
        found["changed_percent"].append(100 * float(np.sqrt(estimate.changed_squared)))
    return found
