"""Spatial correlation of Monte Carlo noise, estimated and drawn."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

_MAX_CORRELATION = 0.95


def lag_correlation(z: ArrayLike, *, mask: ArrayLike | None = None) -> tuple[float, float, float]:
    """Correlation between neighbours along each array axis (z, y, x).

    Parameters
    ----------
    z : array_like, shape [z, y, x]
        Standardised differences, about mean 0 and variance 1 where the maps agree; NaN is left out.
    mask : array_like of bool, shape [z, y, x], optional
        Voxels to use.

    Returns
    -------
    tuple of float
        0 along an axis with fewer than 30 pairs of neighbours.

    Notes
    -----
    *Definition*: for an exponential correlation rho^|k| the mean squared differences at lag 1 and 2
    are 2 (1 - rho) and 2 (1 - rho^2), so their ratio less 1 is rho. A slow real difference between
    the maps, which would pass for correlation in the lag-1 product, largely cancels. *Limits*: one
    number an axis; a negative correlation reads 0.
    """
    values = np.asarray(z, dtype=np.float64)
    valid = np.isfinite(values) if mask is None else np.isfinite(values) & np.asarray(mask, dtype=bool)
    return tuple(_axis_correlation(values, valid, axis) for axis in range(3))  # type: ignore[return-value]


def _axis_correlation(values: NDArray[Any], valid: NDArray[Any], axis: int) -> float:
    """Lag-1 correlation along one axis from mean squared differences at lags 1 and 2."""
    moved, usable = np.moveaxis(values, axis, 0), np.moveaxis(valid, axis, 0)
    if moved.shape[0] < 3:
        return 0.0
    triple = usable[:-2] & usable[1:-1] & usable[2:]
    if np.count_nonzero(triple) < 30:
        return 0.0
    near = (moved[1:-1] - moved[:-2])[triple]
    far = (moved[2:] - moved[:-2])[triple]
    denominator = float(np.mean(near**2))
    if denominator == 0:
        return 0.0
    return float(np.clip(np.mean(far**2) / denominator - 1, 0.0, _MAX_CORRELATION))


def correlated_normal(
    shape: tuple[int, int, int],
    correlation: tuple[float, float, float],
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Standard normal field with correlation rho^|k| along each axis (z, y, x).

    Parameters
    ----------
    shape : tuple of int
        (nz, ny, nx).
    correlation : tuple of float
        Lag-1 correlation along each array axis, 0 to 0.95.
    rng : numpy.random.Generator

    Returns
    -------
    ndarray, shape [z, y, x]
        Every value has mean 0 and variance 1.
    """
    from scipy.signal import lfilter

    field: NDArray[Any] = rng.standard_normal(shape)
    for axis, rho in enumerate(correlation):
        if rho > 0 and shape[axis] > 1:
            gain = np.sqrt(1 - rho**2)
            first = np.take(field, [0], axis=axis)
            driven = np.concatenate([first, gain * np.delete(field, 0, axis=axis)], axis=axis)
            field = np.asarray(lfilter([1.0], [1.0, -rho], driven, axis=axis))
    return field
