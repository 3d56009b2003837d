"""Which voxels a metric looks at: dose thresholds, structures, and the checks all metrics share."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dosemover.dose import DoseMap, Structure
from dosemover.errors import GridMismatchError, InputError
from dosemover.grid import Grid, conserve


def require_one_grid(*, reference: DoseMap, evaluated: DoseMap) -> Grid:
    """The common grid of both maps.

    Raises
    ------
    GridMismatchError
        When the grids do not coincide.
    """
    if not reference.grid.coincides_with(evaluated.grid):
        raise GridMismatchError(
            f"the reference grid has shape {reference.grid.shape}, spacing {reference.grid.spacing_mm} mm "
            f"and origin {reference.grid.origin_mm} mm, the evaluated one {evaluated.grid.shape}, "
            f"{evaluated.grid.spacing_mm} mm and {evaluated.grid.origin_mm} mm. Voxels cannot be paired. "
            "Bring one map to the other's grid first: evaluated.interpolated_to(reference.grid)."
        )
    return reference.grid


def threshold_mask(dose: DoseMap, *, percent: float = 10.0, of_gy: float | None = None) -> NDArray[np.bool_]:
    """Voxels whose dose reaches a share of a dose.

    Parameters
    ----------
    dose : DoseMap
    percent : float
        Threshold [% of ``of_gy``]; 0 keeps every voxel.
    of_gy : float, optional
        What the percentage refers to [Gy]; the maximum of the map unless given.

    Returns
    -------
    ndarray of bool, shape [z, y, x]

    Raises
    ------
    InputError
        When ``percent`` is negative or ``of_gy`` not positive.

    Examples
    --------
    >>> dose = DoseMap.from_array([0.0, 1.0, 10.0], spacing_mm=(1.0,))
    >>> threshold_mask(dose, percent=10.0).ravel().tolist()
    [False, True, True]
    """
    if not (np.isfinite(percent) and percent >= 0):
        raise InputError(
            f"`percent` must not be negative, got {percent}. No dose threshold follows from it. "
            "Pass the threshold in % of the maximum, 0 for every voxel."
        )
    if of_gy is not None:
        require_positive("of_gy", of_gy)
    scale = dose.max_gy if of_gy is None else of_gy
    return np.asarray(dose.dose_gy >= percent / 100.0 * scale)


def structure_fraction(structure: Structure, grid: Grid) -> NDArray[Any]:
    """Filled fraction of each voxel of ``grid``: the structure's own, averaged over the voxels."""
    return conserve(structure.fraction, source=structure.grid, target=grid)


def require_positive(name: str, value: float) -> float:
    """The value itself, or an `InputError` that names it where it is not positive and finite."""
    if not (np.isfinite(value) and value > 0):
        raise InputError(
            f"`{name}` must be positive and finite, got {value}. Nothing can be measured against it. "
            f"Pass a positive `{name}`."
        )
    return float(value)


def voxel_weights(grid: Grid, mask: ArrayLike | None) -> NDArray[Any] | None:
    """Weights between 0 and 1 from a mask of booleans or fractions; None where every voxel counts.

    Raises
    ------
    GridMismatchError
        When the mask has another shape than the grid.
    InputError
        When it holds values outside 0 to 1, or nothing else than 0.
    """
    if mask is None:
        return None
    weights = grid.check_array("mask", mask)
    if weights.dtype != np.bool_:
        low, high = float(weights.min()), float(weights.max())
        if not (low >= 0 and high <= 1 + 1e-6):
            raise InputError(
                f"`mask` must hold booleans or fractions between 0 and 1, got values from {low} to {high}. "
                "Voxels cannot be weighted with it. Pass the structure's `fraction`, or a comparison."
            )
        if not ((weights > 0) & (weights < 1)).any():
            weights = weights > 0.5
    if not weights.any():
        raise InputError(
            "`mask` holds no voxel. No metric is defined on nothing. Check that the structure lies inside "
            "the dose grid."
        )
    return weights


def region(
    *,
    reference: DoseMap,
    mask: ArrayLike | None,
    dose_threshold_percent: float,
    threshold_of_gy: float | None = None,
) -> tuple[NDArray[np.bool_], NDArray[Any] | None]:
    """Voxels inside the mask and above the dose threshold, and their weights where fractional.

    Returns
    -------
    inside : ndarray of bool, shape [z, y, x]
    weights : ndarray, shape (inside.sum(),), or None
        Filled fraction of each voxel inside; None where all count once.
    """
    weights = voxel_weights(reference.grid, mask)
    inside = threshold_mask(reference, percent=dose_threshold_percent, of_gy=threshold_of_gy)
    if weights is None:
        return inside, None
    if weights.dtype == np.bool_:
        return inside & weights, None
    inside = inside & (weights > 0)
    return inside, np.asarray(weights[inside], dtype=np.float64)


def normalization_dose_gy(reference: DoseMap, normalization_gy: float | None) -> float:
    """Dose that percentages refer to [Gy]: as given, else the maximum of the reference.

    Raises
    ------
    InputError
        When it is not positive: an all-zero reference, or a bad ``normalization_gy``.
    """
    if normalization_gy is not None:
        return require_positive("normalization_gy", normalization_gy)
    if reference.max_gy <= 0:
        raise InputError(
            "the reference dose is 0 everywhere. Percentages of its maximum have no meaning. "
            "Pass `normalization_gy`, or check the file."
        )
    return reference.max_gy


def weighted_mean(values: NDArray[Any], weights: NDArray[Any] | None) -> float:
    """Mean, weighted where weights are given; NaN of nothing."""
    if values.size == 0:
        return float("nan")
    if weights is None:
        return float(np.mean(values, dtype=np.float64))
    return float(np.sum(values * weights, dtype=np.float64) / np.sum(weights, dtype=np.float64))


def weighted_percentile(values: NDArray[Any], percent: float, weights: NDArray[Any] | None) -> float:
    """Percentile by linear interpolation, `numpy.percentile` where all weights are equal."""
    if values.size == 0:
        return float("nan")
    if weights is None:
        return float(np.percentile(values, percent))
    order = np.argsort(values, kind="stable")
    w = np.asarray(weights, dtype=np.float64)[order]
    position = np.cumsum(w) - w / 2
    first, last = position[0], position[-1]
    if last <= first:
        return float(values[order[-1]])
    return float(np.interp(percent / 100.0, (position - first) / (last - first), values[order]))
