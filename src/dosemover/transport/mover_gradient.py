"""The derivative of the Dose Mover's Distance with respect to the evaluated dose."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dosemover.dose import DoseMap
from dosemover.errors import InputError
from dosemover.transport.dose_mover import mover_estimate, mover_problem
from dosemover.transport.measure import Weight, to_evaluated_dose
from dosemover.transport.spline import SplineSpace


def dose_mover_gradient(
    *,
    reference: DoseMap,
    evaluated: DoseMap,
    exchange_mm_per_percent: float = 1.0,
    ambient_dose_percent: float = 0.1,
    ambient_dose_gy: float | None = None,
    mask: ArrayLike | None = None,
    weight: Weight = "dose",
    tolerance: float = 1e-4,
) -> tuple[float, NDArray[np.float64]]:
    r"""DMD^2 and its derivative with respect to the evaluated dose.

    By the envelope theorem for
    HK^2 = max over u of 2 integral u (b - a) - integral theta (|grad u|^2 + u^2/L^2):

        d HK^2 / d b = 2 u - (d theta / d b) (|grad u|^2 + u^2 / L^2),
        d theta / d b = (sqrt a + sqrt b) / (4 sqrt b),   voxel means times voxel volume

    Parameters
    ----------
    reference, evaluated, exchange_mm_per_percent, ambient_dose_percent, ambient_dose_gy, mask, weight
        As for `dose_movers_distance`.
    tolerance : float
        Of the solver, in the energy norm; the derivative is accurate to about this.

    Returns
    -------
    squared : float
        DMD^2 [mm2] of the estimate, before any clipping.
    gradient : ndarray, shape evaluated.grid.shape
        d DMD^2 / d dose of each evaluated voxel [mm2/Gy].

    Raises
    ------
    InputError
        As `dose_movers_distance`, and where a voxel has neither dose nor ambient dose.

    Notes
    -----
    *Limits*: of the estimate, its mobility theta included: not the bare potential, which is the derivative
    of the exact distance.
    """
    problem = mover_problem(
        reference=reference,
        evaluated=evaluated,
        exchange_mm_per_percent=exchange_mm_per_percent,
        ambient_dose_percent=ambient_dose_percent,
        ambient_dose_gy=ambient_dose_gy,
        mask=mask,
        weight=weight,
    )
    if float(problem.b.min()) <= 0:
        raise InputError(
            "the evaluated map has voxels without dose, and there is no ambient dose: the estimate has no "
            "derivative there. Pass a positive `ambient_dose_percent` or `ambient_dose_gy`."
        )
    space = SplineSpace(problem.grid)
    estimate = mover_estimate(problem, space, tolerance=tolerance)
    mean, slope, square = space.voxel_means(estimate.solution.x)
    root_a, root_b = np.sqrt(problem.a), np.sqrt(problem.b)
    derivative = 2 * mean - (root_a + root_b) / (4 * root_b) * (slope + problem.screening * square)
    derivative *= problem.grid.voxel_volume_mm3 / problem.mass
    gradient = to_evaluated_dose(
        derivative, reference=reference, evaluated=evaluated, mask=mask, weight=weight
    )
    return estimate.squared, gradient
