"""Dose differences: how much the dose changed, voxel by voxel, with and without the noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dosemover.dose import DoseMap, Structure
from dosemover.errors import InputError
from dosemover.metrics.masks import (
    normalization_dose_gy,
    region,
    require_one_grid,
    require_positive,
    structure_fraction,
    weighted_mean,
    weighted_percentile,
)

Normalization = Literal["maximum", "prescription", "local"]


@dataclass(frozen=True, kw_only=True, eq=False)
class DifferenceResult:
    """Differences d = evaluated - reference over a region.

    Parameters
    ----------
    n_voxels : int
        Voxels in the region, partly filled ones included.
    mean_gy, mae_gy, rmse_gy : float
        Mean of d, mean of |d|, root of the mean of d^2 [Gy]. NaN in an empty region.
    mse_gy2 : float
        Mean of d^2 [Gy2].
    max_gy, p95_gy, p99_gy : float
        Maximum, 95th and 99th percentile of |d| [Gy].
    relative_mean_percent, relative_mae_percent, relative_rmse_percent, relative_max_percent : float
        The same of d over the normalisation dose [%].
    normalization : {"maximum", "prescription", "local"}
    normalization_gy : float or None
        The dose that percentages refer to [Gy]; None for "local".
    n_without_local_dose : int
        Voxels left out of the relative values because the reference is 0 there ("local" only).
    """

    n_voxels: int
    mean_gy: float
    mae_gy: float
    mse_gy2: float
    rmse_gy: float
    max_gy: float
    p95_gy: float
    p99_gy: float
    relative_mean_percent: float
    relative_mae_percent: float
    relative_rmse_percent: float
    relative_max_percent: float
    normalization: Normalization
    normalization_gy: float | None
    n_without_local_dose: int

    @property
    def status(self) -> str:
        """Either "ok" or why the values are missing."""
        return "ok" if self.n_voxels else "no voxel lies inside the region"

    def summary(self) -> dict[str, Any]:
        """Every field in one flat dictionary."""
        return asdict(self)


def differences(
    *,
    reference: DoseMap,
    evaluated: DoseMap,
    mask: ArrayLike | None = None,
    dose_threshold_percent: float = 0.0,
    normalization: Normalization = "maximum",
    prescription_gy: float | None = None,
) -> DifferenceResult:
    """Differences between two maps on one grid.

    d = D_eval - D_ref; MAE = mean |d|, MSE = mean d^2, RMSE = sqrt(MSE).

    Parameters
    ----------
    reference, evaluated : DoseMap
    mask : array_like of bool or fraction, shape [z, y, x], optional
        Region; fractions weight their voxels.
    dose_threshold_percent : float
        Leaves out voxels whose reference dose is below this share of the normalisation dose (of
        the maximum for "local").
    normalization : {"maximum", "prescription", "local"}
        What relative differences refer to.
    prescription_gy : float, optional
        Needed for "prescription" [Gy].

    Raises
    ------
    GridMismatchError
        When the grids do not coincide.
    InputError
        When "prescription" is asked for without ``prescription_gy``, or the mask is empty.

    Notes
    -----
    *Limits*: voxels count alike, whatever their size. Noise adds to MAE, RMSE and percentiles
    (`debiased_rmse` takes it out of the RMSE). A whole-map mean depends on how much empty space the
    map holds: read it together with the values above a threshold.

    Examples
    --------
    >>> one = DoseMap.from_array([1.0, 2.0], spacing_mm=(1.0,))
    >>> two = DoseMap.from_array([1.0, 2.2], spacing_mm=(1.0,))
    >>> round(differences(reference=one, evaluated=two).relative_max_percent, 6)
    10.0
    """
    require_one_grid(reference=reference, evaluated=evaluated)
    scale_gy = _scale_gy(reference, normalization, prescription_gy)
    inside, weights = region(
        reference=reference,
        mask=mask,
        dose_threshold_percent=dose_threshold_percent,
        threshold_of_gy=scale_gy,
    )
    base = reference.dose_gy[inside].astype(np.float64)
    d = evaluated.dose_gy[inside].astype(np.float64) - base
    magnitude = np.abs(d)
    mse = weighted_mean(d * d, weights)
    relative, relative_weights = _relative(d, base, scale_gy, weights)
    relative_magnitude = np.abs(relative)
    return DifferenceResult(
        n_voxels=int(d.size),
        mean_gy=weighted_mean(d, weights),
        mae_gy=weighted_mean(magnitude, weights),
        mse_gy2=mse,
        rmse_gy=float(np.sqrt(mse)),
        max_gy=_maximum(magnitude),
        p95_gy=weighted_percentile(magnitude, 95.0, weights),
        p99_gy=weighted_percentile(magnitude, 99.0, weights),
        relative_mean_percent=weighted_mean(relative, relative_weights),
        relative_mae_percent=weighted_mean(relative_magnitude, relative_weights),
        relative_rmse_percent=float(np.sqrt(weighted_mean(relative**2, relative_weights))),
        relative_max_percent=_maximum(relative_magnitude),
        normalization=normalization,
        normalization_gy=scale_gy,
        n_without_local_dose=int(d.size - relative.size),
    )


def _scale_gy(
    reference: DoseMap, normalization: Normalization, prescription_gy: float | None
) -> float | None:
    """Normalisation dose [Gy], None for the local dose."""
    if normalization == "local":
        return None
    if normalization == "maximum":
        return normalization_dose_gy(reference, None)
    if normalization == "prescription" and prescription_gy is not None:
        return require_positive("prescription_gy", prescription_gy)
    raise InputError(
        f"`normalization` {normalization!r} cannot be used with prescription_gy={prescription_gy}. "
        "Relative differences need a dose to refer to. Pass 'maximum' or 'local', or 'prescription' "
        "together with `prescription_gy`."
    )


def _relative(
    d: NDArray[Any], base: NDArray[Any], scale_gy: float | None, weights: NDArray[Any] | None
) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Differences in % of the normalisation dose, without voxels that have no local dose."""
    if scale_gy is not None:
        return 100.0 * d / scale_gy, weights
    has_dose = base > 0
    kept = None if weights is None else weights[has_dose]
    return 100.0 * d[has_dose] / base[has_dose], kept


def _maximum(values: NDArray[Any]) -> float:
    """Largest value, NaN of nothing."""
    return float(values.max()) if values.size else float("nan")


def regional_differences(
    *,
    reference: DoseMap,
    evaluated: DoseMap,
    structures: Sequence[Structure] = (),
    dose_threshold_percent: float = 10.0,
    high_dose_percent: float = 80.0,
    normalization: Normalization = "maximum",
    prescription_gy: float | None = None,
) -> dict[str, DifferenceResult]:
    """`differences` in the whole map, above a threshold, in the high-dose region and per structure.

    Parameters
    ----------
    reference, evaluated : DoseMap
    structures : sequence of Structure
        Each under its own name; their partly filled voxels count by their fraction. Those without
        a voxel inside the grid are left out.
    dose_threshold_percent, high_dose_percent : float
        Lower limits of the two dose regions [% of the normalisation dose].
    normalization, prescription_gy
        As in `differences`.

    Returns
    -------
    dict of str to DifferenceResult
        "whole map", "above 10 %", "above 80 %" (the limits as given), then the structures' names.
    """
    regions: dict[str, tuple[float, NDArray[Any] | None]] = {
        "whole map": (0.0, None),
        f"above {dose_threshold_percent:g} %": (dose_threshold_percent, None),
        f"above {high_dose_percent:g} %": (high_dose_percent, None),
    }
    for structure in structures:
        fraction = structure_fraction(structure, reference.grid)
        if np.any(fraction > 0):
            regions[structure.name] = (0.0, np.clip(fraction, 0.0, 1.0))
    return {
        name: differences(
            reference=reference,
            evaluated=evaluated,
            mask=mask,
            dose_threshold_percent=threshold,
            normalization=normalization,
            prescription_gy=prescription_gy,
        )
        for name, (threshold, mask) in regions.items()
    }


@dataclass(frozen=True, kw_only=True, eq=False)
class DoseDifferencePassing:
    """Shares of voxels whose dose difference keeps within a criterion.

    Parameters
    ----------
    passing_rate_percent : mapping of float to float
        Per criterion [%]: the share of voxels with |d| <= criterion [%]; NaN in an empty region.
    n_voxels : int
        Voxels compared.
    normalization : {"global", "local"}
    normalization_gy : float or None
        What the criterion refers to [Gy]; None for "local".
    """

    passing_rate_percent: Mapping[float, float]
    n_voxels: int
    normalization: Literal["global", "local"]
    normalization_gy: float | None

    @property
    def status(self) -> str:
        """Either "ok" or why the values are missing."""
        return "ok" if self.n_voxels else "no voxel lies above the dose threshold"

    def summary(self) -> dict[str, float]:
        """Passing rates under their metric keys."""
        return {
            f"dose_difference_passing_{criterion:g}_percent".replace(".", "p"): rate
            for criterion, rate in self.passing_rate_percent.items()
        }


def dose_difference_passing(
    *,
    reference: DoseMap,
    evaluated: DoseMap,
    criteria_percent: Sequence[float] = (1.0, 2.0, 3.0),
    normalization: Literal["global", "local"] = "global",
    normalization_gy: float | None = None,
    dose_threshold_percent: float = 10.0,
    mask: ArrayLike | None = None,
) -> DoseDifferencePassing:
    """Share of voxels whose dose difference keeps within each criterion.

    A voxel passes when |D_eval - D_ref| <= criterion/100 x normalisation dose.

    Parameters
    ----------
    reference, evaluated : DoseMap
    criteria_percent : sequence of float
        Criteria [%].
    normalization : {"global", "local"}
        Percent of one dose, or of the reference dose of each voxel.
    normalization_gy : float, optional
        The one dose [Gy]; the maximum of the reference unless given. The threshold refers to it
        in both normalisations.
    dose_threshold_percent : float
        Voxels whose reference dose is below this are not compared [% of ``normalization_gy``].
    mask : array_like of bool or fraction, shape [z, y, x], optional

    Notes
    -----
    *Limits*: fails wherever the gradient is steep, however small the shift: gamma and the Dose
    Mover's Distance exist for that. A voxel with a reference of 0 passes locally only when the
    evaluated dose is 0 too.
    """
    require_one_grid(reference=reference, evaluated=evaluated)
    scale_gy = normalization_dose_gy(reference, normalization_gy)
    inside, weights = region(
        reference=reference,
        mask=mask,
        dose_threshold_percent=dose_threshold_percent,
        threshold_of_gy=scale_gy,
    )
    base = reference.dose_gy[inside].astype(np.float64)
    magnitude = np.abs(evaluated.dose_gy[inside].astype(np.float64) - base)
    allowed = base if normalization == "local" else np.full_like(base, scale_gy)
    slack = 1.0 + 1e-12
    rates = {
        float(c): 100.0
        * weighted_mean(magnitude <= require_positive("criterion", c) / 100 * allowed * slack, weights)
        for c in criteria_percent
    }
    return DoseDifferencePassing(
        passing_rate_percent=rates,
        n_voxels=int(base.size),
        normalization=normalization,
        normalization_gy=None if normalization == "local" else scale_gy,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class DebiasedResult:
    """Mean squared difference with the noise taken out.

    Parameters
    ----------
    value_gy : float or None
        Signed root of the mean square [Gy]: negative where noise alone explains more than is seen.
    mean_square_gy2 : float or None
        Unbiased estimate of the mean squared difference without noise [Gy2]; may be negative.
    standard_error_gy2 : float or None
        Its standard error by the jackknife over batches [Gy2], which holds for spatially correlated
        noise; None without three batches on both sides. It is right for a clear difference and up
        to 1.6 times too large (Efron and Stein: never too small on average) where there is none.
    rmse_gy : float
        The RMSE with the noise in it [Gy].
    n_voxels : int
    method : str
        Where the noise comes from on each side.
    status : str
        "ok", or why the value is missing.
    """

    value_gy: float | None
    mean_square_gy2: float | None
    standard_error_gy2: float | None
    rmse_gy: float
    n_voxels: int
    method: str
    status: str = "ok"


def debiased_rmse(
    *,
    reference: DoseMap,
    evaluated: DoseMap,
    mask: ArrayLike | None = None,
    dose_threshold_percent: float = 0.0,
) -> DebiasedResult:
    """RMSE without the noise: the root of mean(d^2 - s_eval^2 - s_ref^2).

    With independent noise of standard uncertainties s_ref and s_eval the expectation of d^2 is the
    true squared difference plus s_ref^2 + s_eval^2 in every voxel, whatever the spatial correlation
    of the noise: the difference is an unbiased estimate, below the noise too.

    Parameters
    ----------
    reference, evaluated : DoseMap
        With batches, or with an uncertainty map, or (one of them) free of noise.
    mask : array_like of bool or fraction, shape [z, y, x], optional
    dose_threshold_percent : float
        As in `differences`.

    Notes
    -----
    *Definition*: where batches are known, s^2 is the variance of their mean; the estimate then
    equals the average of (A_i - B_j)(A_k - B_l) over all i != k, j != l (cross-batch estimate).
    *Limits*: noise correlated between the two maps (common random numbers) is not foreseen. A
    negative mean square says that no difference is seen; its signed root keeps that visible. A map
    with neither batches nor uncertainty counts as free of noise, and the method says so.
    *Cost*: one pass; with batches on both sides their Gram matrix for the standard error.

    Examples
    --------
    >>> one = DoseMap.from_array([1.0, 1.0], spacing_mm=(1.0,), uncertainty_gy=[0.3, 0.3])
    >>> two = DoseMap.from_array([1.5, 0.5], spacing_mm=(1.0,))
    >>> round(debiased_rmse(reference=one, evaluated=two).value_gy, 6)
    0.4
    """
    require_one_grid(reference=reference, evaluated=evaluated)
    inside, weights = region(reference=reference, mask=mask, dose_threshold_percent=dose_threshold_percent)
    d = evaluated.dose_gy[inside].astype(np.float64) - reference.dose_gy[inside].astype(np.float64)
    mse = weighted_mean(d * d, weights)
    sides = {"reference": _variance(reference, inside), "evaluated": _variance(evaluated, inside)}
    method = ", ".join(f"{name}: {how}" for name, (_, how) in sides.items())
    known = [variance for variance, _ in sides.values() if variance is not None]
    if not known or not d.size:
        status = (
            "no voxel lies inside the region" if known else "neither map has an uncertainty map or batches"
        )
        return DebiasedResult(
            value_gy=None,
            mean_square_gy2=None,
            standard_error_gy2=None,
            rmse_gy=float(np.sqrt(mse)),
            n_voxels=int(d.size),
            method=method,
            status=status,
        )
    square = mse - sum(weighted_mean(variance, weights) for variance in known)
    error = None
    if reference.batches_gy is not None and evaluated.batches_gy is not None:
        error = _jackknife_error(reference.batches_gy, evaluated.batches_gy, inside, weights)
    return DebiasedResult(
        value_gy=float(np.copysign(np.sqrt(abs(square)), square)),
        mean_square_gy2=float(square),
        standard_error_gy2=error,
        rmse_gy=float(np.sqrt(mse)),
        n_voxels=int(d.size),
        method=method,
    )


def _variance(dose: DoseMap, inside: NDArray[np.bool_]) -> tuple[NDArray[Any] | None, str]:
    """Variance of the mean dose in each voxel [Gy2], and where it comes from."""
    if dose.batches_gy is not None:
        batches = dose.batches_gy[:, inside].astype(np.float64)
        return batches.var(axis=0, ddof=1) / batches.shape[0], f"{batches.shape[0]} batches"
    if dose.uncertainty_gy is not None:
        return np.square(dose.uncertainty_gy[inside], dtype=np.float64), "uncertainty map"
    return None, "taken as free of noise"


def _jackknife_error(
    a: NDArray[Any], b: NDArray[Any], inside: NDArray[np.bool_], weights: NDArray[Any] | None
) -> float | None:
    """Standard error of the cross-batch mean square, leaving out one batch at a time."""
    if min(a.shape[0], b.shape[0]) < 3:
        return None
    x = np.concatenate([a[:, inside], b[:, inside]]).astype(np.float64)
    x -= x.mean(axis=0)
    if weights is not None:
        x *= np.sqrt(weights)
    total = float(x.shape[1] if weights is None else weights.sum())
    gram = x @ x.T / total
    n, m = a.shape[0], b.shape[0]
    side = np.repeat([0, 1], [n, m])
    variance = 0.0
    for which, size in ((0, n), (1, m)):
        left_out = [
            _cross_batch_square(gram, side, np.delete(np.arange(n + m), i))
            for i in np.flatnonzero(side == which)
        ]
        variance += (size - 1) * float(np.var(left_out))
    return float(np.sqrt(variance))


def _cross_batch_square(gram: NDArray[Any], side: NDArray[Any], keep: NDArray[Any]) -> float:
    """Average of (A_i - B_j)(A_k - B_l) over i != k, j != l, from inner products."""
    g, s = gram[np.ix_(keep, keep)], side[keep]
    estimate = 0.0
    for which in (0, 1):
        own = g[np.ix_(s == which, s == which)]
        estimate += (own.sum() - np.trace(own)) / (own.shape[0] * (own.shape[0] - 1))
    return float(estimate - 2.0 * g[np.ix_(s == 0, s == 1)].mean())


@dataclass(frozen=True, kw_only=True, eq=False)
class SplitHalfResult:
    """Error of a map's mean as its own batches show it.

    Parameters
    ----------
    rmse_gy : float
        Root mean square over voxels of the standard uncertainty of the full mean [Gy].
    relative_percent : float
        The same over the maximum dose [%].
    n_batches, n_voxels : int
    """

    rmse_gy: float
    relative_percent: float
    n_batches: int
    n_voxels: int


def split_half_error(
    dose: DoseMap, *, mask: ArrayLike | None = None, dose_threshold_percent: float = 10.0
) -> SplitHalfResult | None:
    """Split-half error: half the RMS difference between the means of two halves of the batches.

    Parameters
    ----------
    dose : DoseMap
        With batches; the even and the odd ones make the halves (the last of an odd number is
        left out).
    mask : array_like of bool or fraction, shape [z, y, x], optional
    dose_threshold_percent : float
        Voxels below this share of the maximum are left out.

    Returns
    -------
    SplitHalfResult or None
        None where the map has no batches.

    Notes
    -----
    *Definition*: with halves H1 and H2 of n/2 batches, var(H1 - H2) = 4 var(mean of n), so that
    sqrt(mean (H1 - H2)^2) / 2 estimates the RMS standard uncertainty of the mean over the region.
    *Limits*: one split; its own spread falls with the number of independent voxels.
    """
    if dose.batches_gy is None:
        return None
    inside, weights = region(reference=dose, mask=mask, dose_threshold_percent=dose_threshold_percent)
    n = dose.batches_gy.shape[0] // 2 * 2
    batches = dose.batches_gy[:n, inside]
    difference = batches[0::2].mean(axis=0, dtype=np.float64) - batches[1::2].mean(axis=0, dtype=np.float64)
    rmse = float(np.sqrt(weighted_mean(difference**2, weights))) / 2
    return SplitHalfResult(
        rmse_gy=rmse,
        relative_percent=100.0 * rmse / normalization_dose_gy(dose, None),
        n_batches=n,
        n_voxels=int(difference.size),
    )
