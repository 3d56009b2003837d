"""Variances of voxels without the scatter that an estimate from few histories or batches has."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_CLASSES = 10
"""Classes of dose whose scatter is told apart: the fewer hits, the more the variance scatters."""

_FEWEST_VOXELS = 100
_DOUBTFUL = 0.3
"""Relative uncertainty from which on a voxel's own uncertainty is too random to be taken at its word."""


def denoised(dose_gy: NDArray[Any], variance_gy2: NDArray[Any]) -> NDArray[np.float64]:
    """Dose without most of its noise, edges kept.

    Parameters
    ----------
    dose_gy, variance_gy2 : ndarray, shape [z, y, x]
        Dose [Gy] and variance of its noise [Gy2].

    Returns
    -------
    ndarray, shape [z, y, x]

    Notes
    -----
    *Definition*: d = m + w (D - m) with m the local mean over 3 voxels an axis and w the share of the
    local mean square of D - m, over 5 voxels, that the noise does not explain: the local Wiener filter
    of Lee. Where the variance is 0 the dose stays as it is.

    References
    ----------
    Lee 1980, "Digital image enhancement and noise filtering by use of local statistics".
    """
    if not np.any(variance_gy2):
        return np.asarray(dose_gy, dtype=np.float64)
    from scipy.ndimage import uniform_filter

    dose = np.asarray(dose_gy, dtype=np.float64)
    smooth = uniform_filter(dose, size=3, mode="nearest")
    rest = dose - smooth
    square = uniform_filter(rest**2, size=5, mode="nearest")
    noise = uniform_filter(np.asarray(variance_gy2, dtype=np.float64), size=5, mode="nearest")
    kept = np.maximum(square - noise, 0.0) / np.where(square > 0, square, 1.0)
    return np.where(variance_gy2 > 0, smooth + np.where(square > 0, kept, 1.0) * rest, dose)


def steady_variance(dose_gy: NDArray[Any], variance_gy2: NDArray[Any]) -> NDArray[np.float64]:
    """Variances with the scatter of their estimates taken out, as far as the map itself shows it.

    Parameters
    ----------
    dose_gy, variance_gy2 : ndarray, shape [z, y, x]
        Dose [Gy] and estimated variance of its noise [Gy2].

    Returns
    -------
    ndarray, shape [z, y, x]
        0 where the variance or the dose around is 0.

    Notes
    -----
    A variance s^2 from few independent values is right on average, but its root is not: E s < sigma, and
    noise drawn with s is too small by 1/(4 n) for n normal values. Variance goes with dose times something
    that changes slowly or at interfaces. *Definition*: the ratio of a voxel's variance to its denoised dose,
    over that of its neighbourhood (5 voxels an axis), goes through the filter of `denoised`. What counts as
    scatter is what its second differences show (median, by class of dose): they remove what is smooth and do
    not see the few voxels of an interface. The mean variance of every neighbourhood stays. Smooth
    uncertainties stay as they are.
    """
    from scipy.ndimage import uniform_filter

    dose = np.asarray(dose_gy, dtype=np.float64)
    variance = np.asarray(variance_gy2, dtype=np.float64)
    around, spread = (uniform_filter(field, size=5, mode="nearest") for field in (dose, variance))
    expected = _ratio(spread, around) * np.maximum(denoised(dose, variance), 0.0)
    known = (variance > 0) & (expected > 0)
    if np.count_nonzero(known) < _FEWEST_VOXELS:
        return variance
    relative = np.where(known, _ratio(variance, expected), 1.0)
    steady = np.where(known, denoised(relative, _scatter(relative, dose, known)) * expected, 0.0)
    steady = np.maximum(steady, 0.0)
    return steady * _ratio(spread, uniform_filter(steady, size=5, mode="nearest"))


def _ratio(one: NDArray[Any], other: NDArray[Any]) -> NDArray[np.float64]:
    """One over the other; 0 where the other is not positive."""
    return np.divide(one, other, out=np.zeros(one.shape), where=other > 0)


def _scatter(
    relative: NDArray[np.float64], dose: NDArray[np.float64], known: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Variance of estimated relative variances [voxel by voxel], from second differences by class of dose."""
    axes = [axis for axis in range(3) if relative.shape[axis] >= 3]
    second, usable = relative, known
    for axis in axes:
        parts = [range(i, second.shape[axis] - 2 + i) for i in range(3)]
        low, middle, high = (np.take(second, part, axis=axis) for part in parts)
        second = low - 2 * middle + high
        usable = np.logical_and.reduce([np.take(usable, part, axis=axis) for part in parts])
    inner = tuple(slice(1, -1) if axis in axes else slice(None) for axis in range(3))
    factor = 6.0 ** len(axes) * 0.6745**2
    values, doses = np.abs(second[usable]), dose[inner][usable]
    if not axes or values.size < _FEWEST_VOXELS:
        return np.zeros(relative.shape)
    count = int(np.clip(values.size // _FEWEST_VOXELS, 1, _CLASSES))
    limits = np.quantile(doses, np.linspace(0, 1, count + 1)[1:-1])
    member = np.searchsorted(limits, doses)
    found = np.array(
        [np.median(values[member == i]) ** 2 / factor if np.any(member == i) else 0.0 for i in range(count)]
    )
    return np.where(known, found[np.searchsorted(limits, dose)], 0.0)


def expected_uncertainty(
    dose_gy: NDArray[Any], uncertainty_gy: NDArray[Any], mean_gy: NDArray[Any]
) -> NDArray[np.float64]:
    """Uncertainty [Gy] as it is on average, where a voxel's own is a matter of chance.

    Parameters
    ----------
    dose_gy, uncertainty_gy, mean_gy : ndarray, shape [z, y, x]
        Dose and standard uncertainty of a map, and the dose that it is taken to have in truth [Gy].

    Notes
    -----
    Where few histories hit a voxel its uncertainty is as random as its dose, and large exactly when one
    large deposit came: of voxels noisier than 30 % the variance is the mean dose times the ratio of variance
    to dose over 5 voxels along each axis. That also fills voxels that no history hit, which report 0 although
    their dose is no better known than their neighbours'. Of the others it is the `steady_variance`.
    """
    from scipy.ndimage import uniform_filter

    variance = np.square(uncertainty_gy, dtype=np.float64)
    dose = np.asarray(dose_gy, dtype=np.float64)
    total = float(np.sum(dose))
    overall = float(np.sum(variance)) / total if total > 0 else 0.0
    around, spread = (uniform_filter(field, size=5, mode="nearest") for field in (dose, variance))
    expected = mean_gy * np.where(spread > 0, spread / np.where(around > 0, around, 1.0), overall)
    doubtful = (expected > np.square(_DOUBTFUL * mean_gy)) | ((variance == 0) & (dose == 0))
    return np.sqrt(np.where(doubtful, expected, steady_variance(dose, variance)))
