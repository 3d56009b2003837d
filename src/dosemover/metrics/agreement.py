"""Agreement in dose and space, voxel by voxel: distance to agreement, chi, normalised difference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dosemover.dose import DoseMap
from dosemover.errors import InputError
from dosemover.grid import Grid
from dosemover.metrics.masks import (
    normalization_dose_gy,
    region,
    require_one_grid,
    require_positive,
    weighted_mean,
    weighted_percentile,
)

Acceptance = Literal["composite", "box", "gamma"]


@dataclass(frozen=True, kw_only=True, eq=False)
class DtaResult:
    """Distances to agreement.

    Parameters
    ----------
    mean_mm, p95_mm, max_mm : float
        Over the voxels compared [mm]; voxels without an equal dose in reach count as ``reach_mm``,
        so that they are lower bounds where ``n_not_found`` is not 0. NaN in an empty region.
    n_voxels : int
        Voxels compared.
    n_not_found : int
        Of these, voxels whose dose does not occur within ``reach_mm``.
    reach_mm : float
    distance_mm : ndarray, shape [z, y, x]
        Distance of each voxel [mm], infinite where not found, NaN where not compared.
    """

    mean_mm: float
    p95_mm: float
    max_mm: float
    n_voxels: int
    n_not_found: int
    reach_mm: float
    distance_mm: NDArray[Any]

    @property
    def status(self) -> str:
        """Either "ok" or what a reader must know."""
        if self.n_voxels == 0:
            return "no voxel lies above the dose threshold"
        if self.n_not_found:
            return (
                f"{self.n_not_found} of {self.n_voxels} voxels find no equal dose within {self.reach_mm:g} mm"
            )
        return "ok"


def distance_to_agreement(
    *,
    reference: DoseMap,
    evaluated: DoseMap,
    mask: ArrayLike | None = None,
    dose_threshold_percent: float = 10.0,
    reach_mm: float = 10.0,
) -> DtaResult:
    """Distance from each reference voxel to the nearest point of equal evaluated dose.

    DTA(r) = min |r' - r| over all r' with D_eval(r') = D_ref(r).

    Parameters
    ----------
    reference, evaluated : DoseMap
    mask : array_like of bool or fraction, shape [z, y, x], optional
    dose_threshold_percent : float
        Voxels whose reference dose is below this share of the maximum are not compared.
    reach_mm : float
        How far to search [mm].

    Raises
    ------
    GridMismatchError
        When the grids do not coincide.
    InputError
        When ``reach_mm`` is not positive.

    Notes
    -----
    *Definition*: D_eval is linear on each tetrahedron of the Kuhn split between voxel centres; the
    nearest point on it is found, not sampled. Three, two or one dimensions.
    *Limits*: means nothing in flat regions, where a small dose difference puts the equal dose far
    away or nowhere: read it beside the dose difference. It finds the nearest equal dose, not where
    the dose went: a pure shift along an isodose is invisible.
    *Cost*: about 1 microsecond a voxel for differences within a voxel, 20 where the search goes far.

    References
    ----------
    harms1998; low1998 for the definition of distance to agreement.
    """
    from dosemover.metrics.surface_kernels import level_distances

    grid = require_one_grid(reference=reference, evaluated=evaluated)
    require_positive("reach_mm", reach_mm)
    inside, weights = region(reference=reference, mask=mask, dose_threshold_percent=dose_threshold_percent)
    levels = np.ascontiguousarray(reference.dose_gy[inside], dtype=np.float64)
    dose, (z, y, x) = _thickened(evaluated.dose_gy.astype(np.float64), grid)
    low, high = _cell_range(dose)
    points = np.argwhere(inside)
    found = np.full(levels.size, float(reach_mm))
    hopeful = _occurs_near(evaluated.dose_gy, grid, inside, levels, reach_mm)
    if hopeful.any():
        distance = np.empty(int(hopeful.sum()))
        level_distances(dose, low, high, levels[hopeful], z, y, x, points[hopeful], float(reach_mm), distance)
        found[hopeful] = distance
    missing = found >= reach_mm
    distance_mm = np.full(grid.shape, np.nan)
    distance_mm[inside] = np.where(missing, np.inf, found)
    return DtaResult(
        mean_mm=weighted_mean(found, weights),
        p95_mm=weighted_percentile(found, 95.0, weights),
        max_mm=float(found.max()) if found.size else float("nan"),
        n_voxels=int(found.size),
        n_not_found=int(missing.sum()),
        reach_mm=float(reach_mm),
        distance_mm=distance_mm,
    )


def _thickened(dose: NDArray[Any], grid: Grid) -> tuple[NDArray[Any], list[NDArray[Any]]]:
    """The dose with every single layer doubled, and its centres [mm]: a slice becomes a slab."""
    centers = []
    for axis, center in enumerate(grid.centers_mm):
        if center.size == 1:
            dose = np.repeat(dose, 2, axis=axis)
            centers.append(np.array([center[0], center[0] + grid.widths_mm[axis][0]]))
        else:
            centers.append(np.ascontiguousarray(center))
    return np.ascontiguousarray(dose), centers


def _cell_range(dose: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Smallest and largest corner of each cell between voxel centres."""
    low = high = dose
    for axis in range(3):
        first = tuple(slice(None, -1) if a == axis else slice(None) for a in range(3))
        second = tuple(slice(1, None) if a == axis else slice(None) for a in range(3))
        low = np.minimum(low[first], low[second])
        high = np.maximum(high[first], high[second])
    return np.ascontiguousarray(low), np.ascontiguousarray(high)


def _occurs_near(
    dose: NDArray[Any], grid: Grid, inside: NDArray[np.bool_], levels: NDArray[Any], reach_mm: float
) -> NDArray[np.bool_]:
    """Whether each level lies between the extremes of the dose in the box of half-width reach."""
    from scipy.ndimage import maximum_filter1d, minimum_filter1d

    low = high = dose
    for axis, (center, n) in enumerate(zip(grid.centers_mm, grid.shape, strict=True)):
        if n == 1:
            continue
        layers = min(int(np.ceil(reach_mm / np.diff(center).min())) + 1, n)
        low = minimum_filter1d(low, 2 * layers + 1, axis=axis, mode="nearest")
        high = maximum_filter1d(high, 2 * layers + 1, axis=axis, mode="nearest")
    return (low[inside] <= levels) & (levels <= high[inside])


@dataclass(frozen=True, kw_only=True, eq=False)
class ChiResult:
    """The chi index.

    Parameters
    ----------
    chi : ndarray, shape [z, y, x]
        Signed, positive where the evaluated dose is higher; NaN where not compared.
    passing_rate_percent : float
        Share of voxels with |chi| <= 1 [%]; NaN in an empty region.
    mean : float
        Mean of |chi|.
    n_voxels : int
    dose_criterion_percent, distance_criterion_mm, dose_threshold_percent : float
    normalization : {"global", "local"}
    normalization_gy : float
        Dose that the threshold and global criteria refer to [Gy].
    """

    chi: NDArray[Any]
    passing_rate_percent: float
    mean: float
    n_voxels: int
    dose_criterion_percent: float
    distance_criterion_mm: float
    dose_threshold_percent: float
    normalization: Literal["global", "local"]
    normalization_gy: float

    @property
    def status(self) -> str:
        """Either "ok" or why the values are missing."""
        return "ok" if self.n_voxels else "no voxel lies above the dose threshold"


def chi_index(
    *,
    reference: DoseMap,
    evaluated: DoseMap,
    dose_criterion_percent: float = 3.0,
    distance_criterion_mm: float = 3.0,
    normalization: Literal["global", "local"] = "global",
    normalization_gy: float | None = None,
    dose_threshold_percent: float = 10.0,
    mask: ArrayLike | None = None,
) -> ChiResult:
    """Dose difference over what the local gradient lets pass.

    chi = (D_eval - D_ref) / sqrt(dD^2 + dd^2 |grad D_ref|^2), dD the dose and dd the distance
    criterion.

    Parameters
    ----------
    reference, evaluated : DoseMap
    dose_criterion_percent, distance_criterion_mm : float
        dD [% of the normalisation dose or of the local dose] and dd [mm].
    normalization : {"global", "local"}
    normalization_gy : float, optional
        Dose that percentages refer to [Gy]; the maximum of the reference unless given.
    dose_threshold_percent : float
        Voxels whose reference dose is below this are not compared [% of ``normalization_gy``].
    mask : array_like of bool or fraction, shape [z, y, x], optional

    Raises
    ------
    GridMismatchError
        When the grids do not coincide.
    InputError
        When a criterion is not positive.

    Notes
    -----
    *Definition*: central differences (one-sided at the faces). On locally linear dose of one
    gradient |chi| equals gamma.
    *Limits*: where the gradient changes within the distance criterion (shoulders, small fields) it
    fails points that gamma passes, and the reverse.
    *Cost*: one pass of the maps.

    References
    ----------
    bakai2003
    """
    inside, weights, d, gradient, dose_criterion_gy, scale_gy = _tolerance_inputs(
        reference=reference,
        evaluated=evaluated,
        dose_criterion_percent=dose_criterion_percent,
        normalization=normalization,
        normalization_gy=normalization_gy,
        dose_threshold_percent=dose_threshold_percent,
        mask=mask,
    )
    spread = require_positive("distance_criterion_mm", distance_criterion_mm) * gradient
    values = d / np.sqrt(dose_criterion_gy**2 + spread**2)
    chi = np.full(reference.grid.shape, np.nan)
    chi[inside] = values
    return ChiResult(
        chi=chi,
        passing_rate_percent=100.0 * weighted_mean(np.abs(values) <= 1.0 + 1e-12, weights),
        mean=weighted_mean(np.abs(values), weights),
        n_voxels=int(values.size),
        dose_criterion_percent=float(dose_criterion_percent),
        distance_criterion_mm=float(distance_criterion_mm),
        dose_threshold_percent=float(dose_threshold_percent),
        normalization=normalization,
        normalization_gy=scale_gy,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class NddResult:
    """The normalised dose difference.

    Parameters
    ----------
    ndd_gy : ndarray, shape [z, y, x]
        Signed [Gy]; passes where |NDD| is within the dose criterion; NaN where not compared.
    mean : float
        Mean of |NDD| over the dose criterion: 1 is the limit of acceptance.
    mean_gy : float
        Mean of |NDD| [Gy].
    passing_rate_percent : float
        Share of voxels that pass [%]; NaN in an empty region.
    n_voxels : int
    acceptance : {"composite", "box", "gamma"}
    dose_criterion_percent, distance_criterion_mm, dose_threshold_percent : float
    normalization : {"global", "local"}
    normalization_gy : float
    """

    ndd_gy: NDArray[Any]
    mean: float
    mean_gy: float
    passing_rate_percent: float
    n_voxels: int
    acceptance: Acceptance
    dose_criterion_percent: float
    distance_criterion_mm: float
    dose_threshold_percent: float
    normalization: Literal["global", "local"]
    normalization_gy: float

    @property
    def status(self) -> str:
        """Either "ok" or why the values are missing."""
        return "ok" if self.n_voxels else "no voxel lies above the dose threshold"


def normalized_dose_difference(
    *,
    reference: DoseMap,
    evaluated: DoseMap,
    dose_criterion_percent: float = 3.0,
    distance_criterion_mm: float = 3.0,
    normalization: Literal["global", "local"] = "global",
    normalization_gy: float | None = None,
    dose_threshold_percent: float = 10.0,
    acceptance: Acceptance = "composite",
    mask: ArrayLike | None = None,
) -> NddResult:
    """Dose difference scaled by dose criterion over the maximum allowed dose difference (MADD).

    NDD = dD (D_eval - D_ref) / MADD. A voxel passes when |D_eval - D_ref| <= MADD, that is when
    |NDD| <= dD.

    Parameters
    ----------
    reference, evaluated, dose_criterion_percent, distance_criterion_mm, normalization,
    normalization_gy, dose_threshold_percent, mask
        As in `chi_index`; dD and dd are the dose and the distance criterion.
    acceptance : {"composite", "box", "gamma"}
        Which differences are allowed: within dD or within dd ("composite"), within dD at a point
        within dd ("box"), or gamma <= 1 ("gamma").

    Raises
    ------
    GridMismatchError
        When the grids do not coincide.
    InputError
        When a criterion is not positive or ``acceptance`` is unknown.

    Notes
    -----
    *Definition*: with locally linear dose of slope g = |grad D_ref| the largest difference that a
    test lets pass follows from geometry: max(dD, g dd) for "composite", dD + g dd for "box",
    sqrt(dD^2 + (g dd)^2) for "gamma" (then NDD = dD chi).
    *Limits*: like chi, the local gradient stands for the neighbourhood within dd.

    References
    ----------
    jiang2006: maximum allowed dose difference and its use as a scale.
    """
    inside, weights, d, gradient, dose_criterion_gy, scale_gy = _tolerance_inputs(
        reference=reference,
        evaluated=evaluated,
        dose_criterion_percent=dose_criterion_percent,
        normalization=normalization,
        normalization_gy=normalization_gy,
        dose_threshold_percent=dose_threshold_percent,
        mask=mask,
    )
    spread = require_positive("distance_criterion_mm", distance_criterion_mm) * gradient
    allowed = _allowed_difference_gy(acceptance, dose_criterion_gy, spread)
    share = np.abs(d) / allowed
    values = dose_criterion_gy * d / allowed
    ndd = np.full(reference.grid.shape, np.nan)
    ndd[inside] = values
    return NddResult(
        ndd_gy=ndd,
        mean=weighted_mean(share, weights),
        mean_gy=weighted_mean(np.abs(values), weights),
        passing_rate_percent=100.0 * weighted_mean(share <= 1.0 + 1e-12, weights),
        n_voxels=int(values.size),
        acceptance=acceptance,
        dose_criterion_percent=float(dose_criterion_percent),
        distance_criterion_mm=float(distance_criterion_mm),
        dose_threshold_percent=float(dose_threshold_percent),
        normalization=normalization,
        normalization_gy=scale_gy,
    )


def _allowed_difference_gy(
    acceptance: Acceptance, dose_criterion_gy: NDArray[Any], spread_gy: NDArray[Any]
) -> NDArray[Any]:
    """Maximum allowed dose difference [Gy] on locally linear dose."""
    if acceptance == "composite":
        return np.maximum(dose_criterion_gy, spread_gy)
    if acceptance == "box":
        return dose_criterion_gy + spread_gy
    if acceptance == "gamma":
        return np.hypot(dose_criterion_gy, spread_gy)
    raise InputError(
        f"`acceptance` must be 'composite', 'box' or 'gamma', got {acceptance!r}. The allowed dose "
        "difference depends on it."
    )


def _tolerance_inputs(
    *,
    reference: DoseMap,
    evaluated: DoseMap,
    dose_criterion_percent: float,
    normalization: Literal["global", "local"],
    normalization_gy: float | None,
    dose_threshold_percent: float,
    mask: ArrayLike | None,
) -> tuple[NDArray[np.bool_], NDArray[Any] | None, NDArray[Any], NDArray[Any], NDArray[Any], float]:
    """Region, weights, difference, |gradient|, dose criterion [Gy] and normalisation dose."""
    grid = require_one_grid(reference=reference, evaluated=evaluated)
    scale_gy = normalization_dose_gy(reference, normalization_gy)
    share = require_positive("dose_criterion_percent", dose_criterion_percent) / 100.0
    inside, weights = region(
        reference=reference,
        mask=mask,
        dose_threshold_percent=dose_threshold_percent,
        threshold_of_gy=scale_gy,
    )
    if normalization == "local":
        inside &= reference.dose_gy > 0
        if weights is not None:
            weights = np.asarray(mask, dtype=np.float64)[inside]
    base = reference.dose_gy.astype(np.float64)
    squared = np.zeros(grid.shape)
    for axis in grid.extended_axes:
        squared += np.gradient(base, grid.centers_mm[axis], axis=axis) ** 2
    d = evaluated.dose_gy[inside].astype(np.float64) - base[inside]
    criterion_gy = share * (base[inside] if normalization == "local" else np.full(d.size, scale_gy))
    return inside, weights, d, np.sqrt(squared[inside]), criterion_gy, scale_gy
