"""Noise level of a dose map that comes without any uncertainty, and the histories that lower a floor."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dosemover.dose import DoseMap
from dosemover.errors import InputError
from dosemover.noise.correlation import NoiseCorrelation

_STENCIL = np.array([1.0, -2.0, 1.0])
_FEWEST_VOXELS = 500
_LEAST_DOSE = 0.05
"""Voxels below this share of the high dose are not looked at: too few hits, or none."""
_LEAST_NOISE = 5e-4
"""Noise below this share of the high dose cannot be told from rounding and interpolation."""
_ROUNDING = 1.0
"""Noise below this many steps between stored values is that of rounding: 0.3 steps, which reads up to 0.8."""
_DISTANCE = 4
"""Voxels over which noise counts as no longer correlated."""
_HIGH_DOSE_PERCENTILE = 99.9
_LEAST_WHITE = -0.55
"""Correlation of neighboring second differences: -2/3 for white noise, about -0.63 for correlated Monte
Carlo noise, -0.5 for the beamlets of a planning system, above 0 for a smooth map."""


@dataclass(frozen=True, kw_only=True, eq=False)
class NoiseLevel:
    """Noise of a map as estimated from the map alone.

    Parameters
    ----------
    per_root_dose : float
        Standard deviation over the square root of the dose [Gy^1/2]; 0 where no noise was found.
    high_dose_gy : float
        99.9th percentile of the dose [Gy].
    whiteness : float
        Correlation of neighboring second differences along the axes: -2/3 for white noise, above 0
        for a smooth map.
    status : str
        "estimated", or why no noise was found.
    """

    per_root_dose: float
    high_dose_gy: float
    whiteness: float
    status: str

    @property
    def relative_percent(self) -> float:
        """Standard deviation at the high dose, over that dose [%]."""
        return 100 * self.per_root_dose / float(np.sqrt(self.high_dose_gy)) if self.high_dose_gy > 0 else 0.0

    def uncertainty_gy(self, dose: DoseMap) -> NDArray[np.float64]:
        """Standard deviation of each voxel [Gy]."""
        return self.per_root_dose * np.sqrt(np.asarray(dose.dose_gy, dtype=np.float64))


def noise_level(dose: DoseMap) -> NoiseLevel:
    """Noise of a dose map, from its second differences.

    Parameters
    ----------
    dose : DoseMap

    Returns
    -------
    NoiseLevel

    Notes
    -----
    *Definition*: second differences along every axis longer than 4, one after the other, remove the
    dose and leave the noise times 6^(axes / 2). Divided by sqrt(dose), as scored hits scatter, their
    median absolute value gives the level; medians ignore edges. Noise changes sign from voxel to voxel
    and a smooth map does not: the correlation of neighbors tells them apart. *Limits*: assumes equal
    voxel densities and equal weights of the hits; correlated noise is damped by the differences, which
    `undamped` mends where the correlation is known; a denoised or smoothed map shows no noise; noise
    below 0.05 % of the high dose reads none, and so does noise below the step of rounded values.

    References
    ----------
    Immerkaer 1996, "Fast noise variance estimation".
    """
    values = np.asarray(dose.dose_gy, dtype=np.float64)
    axes = [axis for axis in range(3) if values.shape[axis] > 4]
    response = _second_differences(values, axes)
    here = values[tuple(slice(1, -1) if a in axes else slice(None) for a in range(3))]
    top = float(np.percentile(values, _HIGH_DOSE_PERCENTILE))
    high = here > _LEAST_DOSE * top
    silent = NoiseLevel(per_root_dose=0.0, high_dose_gy=top, whiteness=0.0, status="no noise found")
    if not axes or np.count_nonzero(high) < _FEWEST_VOXELS:
        return replace(silent, status="no noise found: too few voxels to tell")
    scaled = np.where(high, response / np.sqrt(np.where(high, here, 1.0)), np.nan)
    median = float(np.nanmedian(np.abs(scaled)))
    level = median / 0.6745 / float(np.sqrt(6.0 ** len(axes)))
    whiteness = _neighbor_correlation(scaled, 5 * median, axes)
    if level < _LEAST_NOISE * np.sqrt(top) or whiteness > _LEAST_WHITE:
        return replace(silent, whiteness=whiteness)
    if level * np.sqrt(top) < _ROUNDING * _rounding_step(here[high]):
        return replace(
            silent, whiteness=whiteness, status="no noise found: rounding of the values explains it"
        )
    return NoiseLevel(per_root_dose=level, high_dose_gy=top, whiteness=whiteness, status="estimated")


def _second_differences(values: NDArray[Any], axes: list[int]) -> NDArray[np.float64]:
    """Second differences along each axis in turn."""
    for axis in axes:
        values = np.diff(values, n=2, axis=axis)
    return values


def _rounding_step(values: NDArray[Any]) -> float:
    """Least difference between two different values: the step of a rounded map, all but 0 for others."""
    steps = np.diff(np.unique(values))
    return float(steps.min()) if steps.size else 0.0


def distant_variance(scaled: NDArray[Any]) -> float | None:
    """Variance of correlated noise in a difference of two maps, from voxels too far apart to share it.

    Parameters
    ----------
    scaled : ndarray, shape [z, y, x]
        Difference over what makes its noise even; NaN is left out.

    Returns
    -------
    float or None
        None where the map is too small.

    Notes
    -----
    *Definition*: as in `noise_level`, with second differences over 4 voxels instead of 1: they damp noise
    that is correlated over up to 3 voxels no more, and take away a real difference that is smooth over 9.
    Medians ignore edges. *Limits*: a real difference that bends over most of the map counts as noise.
    """
    values = np.asarray(scaled, dtype=np.float64)
    axes = [axis for axis in range(3) if values.shape[axis] > 4 * _DISTANCE]
    for axis in axes:
        moved = np.moveaxis(values, axis, 0)
        bent = moved[: -2 * _DISTANCE] - 2 * moved[_DISTANCE:-_DISTANCE] + moved[2 * _DISTANCE :]
        values = np.moveaxis(bent, 0, axis)
    finite = values[np.isfinite(values)]
    if not axes or finite.size < _FEWEST_VOXELS:
        return None
    return float(np.median(np.abs(finite)) / 0.6745) ** 2 / 6.0 ** len(axes)


def _neighbor_correlation(values: NDArray[Any], limit: float, axes: list[int]) -> float:
    """Mean over the axes of the correlation between neighbors, large values cut to the limit."""
    cut = np.clip(values, -limit, limit)
    square = float(np.nanmean(cut**2)) if np.isfinite(cut).any() else 0.0
    if square == 0:
        return 0.0
    found = []
    for axis in axes:
        moved = np.moveaxis(cut, axis, 0)
        product = moved[1:] * moved[:-1]
        found.append(float(np.nanmean(product)) / square if np.isfinite(product).any() else 0.0)
    return float(np.mean(found))


def undamped(level: NoiseLevel, correlation: NoiseCorrelation, *, shape: tuple[int, ...]) -> NoiseLevel:
    """The level with what the second differences of correlated noise take away put back.

    Parameters
    ----------
    level : NoiseLevel
    correlation : NoiseCorrelation
    shape : tuple of int
        Of the map: axes of 4 voxels and less were not differenced.
    """
    table = correlation.table
    weights = np.ones((1, 1, 1))
    for axis in range(3):
        radius = table.shape[axis] // 2
        kernel = np.zeros(2 * radius + 1)
        twice = np.convolve(_STENCIL, _STENCIL) / 6 if shape[axis] > 4 else np.array([1.0])
        reach = min(radius, len(twice) // 2)
        middle = len(twice) // 2
        kernel[radius - reach : radius + reach + 1] = twice[middle - reach : middle + reach + 1]
        weights = weights * kernel.reshape([-1 if a == axis else 1 for a in range(3)])
    gain = max(float(np.sum(weights * table)), 0.05)
    return replace(level, per_root_dose=level.per_root_dose / np.sqrt(gain))


def histories_factor(*, floor: float, goal: float, power: float = 0.5) -> float:
    """How many times as many histories, on both sides, bring a noise floor down to a goal.

    Parameters
    ----------
    floor, goal : float
        Of one metric, in one unit.
    power : float
        q of the law floor ~ histories^-q: 1/2 for metrics of the first order in the difference
        (distances, RMSE, mean and maximum), 1 for mean squares.

    Returns
    -------
    float
        1 where the floor meets the goal already.

    Raises
    ------
    InputError
        When the goal or the power is not positive.

    Notes
    -----
    *Definition*: (floor / goal)^(1/q). *Limits*: passing rates and similarity indices follow no power law,
    see the calibration page for the slopes found.
    """
    if not (np.isfinite(goal) and goal > 0):
        raise InputError(
            f"`goal` must be positive, got {goal}. No number of histories brings noise to 0. "
            "Name the floor that you need, in the metric's unit."
        )
    if not (np.isfinite(power) and power > 0):
        raise InputError(f"`power` must be positive, got {power}. A floor that does not fall has no goal.")
    return max((floor / goal) ** (1 / power), 1.0)
