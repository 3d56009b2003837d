"""Image similarity of dose maps: peak signal to noise and structural similarity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from dosemover.dose import DoseMap
from dosemover.metrics.masks import (
    normalization_dose_gy,
    region,
    require_one_grid,
    require_positive,
    threshold_mask,
    weighted_mean,
)


def psnr_db(
    *,
    reference: DoseMap,
    evaluated: DoseMap,
    mask: ArrayLike | None = None,
    dose_threshold_percent: float = 0.0,
    data_range_gy: float | None = None,
) -> float:
    """Peak signal to noise ratio 10 log10(R^2 / MSE) [dB].

    Parameters
    ----------
    reference, evaluated : DoseMap
    mask : array_like of bool or fraction, shape [z, y, x], optional
    dose_threshold_percent : float
        Leaves out voxels whose reference dose is below this share of the data range.
    data_range_gy : float, optional
        R [Gy]; the maximum of the reference unless given.

    Returns
    -------
    float
        Infinite for equal maps, NaN for an empty region.

    Notes
    -----
    *Limits*: nothing but the RMSE on a logarithmic scale, and as blind to where the errors are.
    *Matches*: `skimage.metrics.peak_signal_noise_ratio` at the same data range.
    """
    require_one_grid(reference=reference, evaluated=evaluated)
    data_range = normalization_dose_gy(reference, data_range_gy)
    inside, weights = region(
        reference=reference,
        mask=mask,
        dose_threshold_percent=dose_threshold_percent,
        threshold_of_gy=data_range,
    )
    d = evaluated.dose_gy[inside].astype(np.float64) - reference.dose_gy[inside].astype(np.float64)
    mse = weighted_mean(d * d, weights)
    return float("inf") if mse == 0 else float(10.0 * np.log10(data_range**2 / mse))


@dataclass(frozen=True, kw_only=True, eq=False)
class SsimResult:
    """Structural similarity with all that its value depends on.

    Parameters
    ----------
    value : float or None
        Mean over the whole map, without the border of half a window.
    in_mask : float or None
        Mean over the voxels above the dose threshold.
    data_range_gy : float
        Data range R of the constants (0.01 R)^2 and (0.03 R)^2 [Gy].
    sigma_voxels : float
        Standard deviation of the Gaussian window [voxels].
    window_voxels : int
        Width of the window along each axis [voxels].
    dose_threshold_percent : float
    n_dimensions : int
        Axes with more than one voxel.
    status : str
        "ok", or why the value is missing.
    """

    value: float | None
    in_mask: float | None
    data_range_gy: float
    sigma_voxels: float
    window_voxels: int
    dose_threshold_percent: float
    n_dimensions: int
    status: str = "ok"


def structural_similarity(
    *,
    reference: DoseMap,
    evaluated: DoseMap,
    dose_threshold_percent: float = 10.0,
    data_range_gy: float | None = None,
    sigma_voxels: float = 1.5,
) -> SsimResult:
    """Structural similarity of two maps on one grid, in three, two or one dimensions.

    SSIM = (2 m_a m_b + C1)(2 s_ab + C2) / ((m_a^2 + m_b^2 + C1)(s_a^2 + s_b^2 + C2)), with means m,
    variances and covariance s in a Gaussian window, C1 = (0.01 R)^2, C2 = (0.03 R)^2.

    Parameters
    ----------
    reference, evaluated : DoseMap
    dose_threshold_percent : float
        The mask of ``in_mask`` [% of the data range].
    data_range_gy : float, optional
        R [Gy]; the maximum of the reference unless given.
    sigma_voxels : float
        Standard deviation of the window [voxels]; it is cut at 3.5 of them.

    Notes
    -----
    *Limits*: counts voxels, not millimetres: values at different voxel sizes do not compare. The
    value depends on data range and window so much that one without them means nothing; this result
    carries both. A map narrower than the window along an axis has none.
    *Cost*: about 1 s for 2 million voxels.
    *Matches*: scikit-image, which computes it (population covariance, Gaussian weights).

    References
    ----------
    wang2004, there for two dimensions and with a window of 11 pixels as here.
    """
    from skimage.metrics import structural_similarity as ssim

    require_one_grid(reference=reference, evaluated=evaluated)
    data_range = normalization_dose_gy(reference, data_range_gy)
    window = 2 * int(3.5 * require_positive("sigma_voxels", sigma_voxels) + 0.5) + 1
    axes = reference.grid.extended_axes
    narrowest = min((reference.grid.shape[axis] for axis in axes), default=1)
    value = in_mask = None
    status = "ok"
    if narrowest < window:
        status = f"the map is {narrowest} voxels wide along an axis, the window {window}"
    else:
        shape = tuple(reference.grid.shape[axis] for axis in axes)
        outcome: tuple[Any, ...] = ssim(
            reference.dose_gy.reshape(shape),
            evaluated.dose_gy.reshape(shape).astype(reference.dose_gy.dtype, copy=False),
            data_range=data_range,
            gaussian_weights=True,
            sigma=sigma_voxels,
            use_sample_covariance=False,
            full=True,
        )
        value, local = float(outcome[0]), outcome[1]
        inside = threshold_mask(reference, percent=dose_threshold_percent, of_gy=data_range)
        in_mask = weighted_mean(local[inside.reshape(shape)], None) if inside.any() else None
    return SsimResult(
        value=value,
        in_mask=in_mask,
        data_range_gy=data_range,
        sigma_voxels=float(sigma_voxels),
        window_voxels=window,
        dose_threshold_percent=float(dose_threshold_percent),
        n_dimensions=len(axes),
        status=status,
    )
