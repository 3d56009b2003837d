"""Differences in units of their uncertainty: z scores, chi-square, and the Kawrakow-Fippel test."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dosemover.dose import DoseMap
from dosemover.errors import InputError
from dosemover.metrics.masks import region, require_one_grid
from dosemover.metrics.shift_mixture import bin_edges, fit_mixture, grid_likelihood_ratio

_LONGEST_LAG = 5
"""Voxels up to which the correlation of z is looked at, along each axis."""

_PERMUTATIONS = 99
"""Permutations of batches unless another number is asked for."""

_PERMUTED_VOXELS = 200_000
"""Most voxels in a permutation test, evenly spread over the region."""


@dataclass(frozen=True, kw_only=True, eq=False)
class StandardizedDifferenceResult:
    """Per-voxel z = (evaluated - reference) / combined standard uncertainty.

    Parameters
    ----------
    z : ndarray, shape [z, y, x]
        NaN outside the region and where no uncertainty is known.
    n_voxels : int
        Voxels with a z.
    n_without_uncertainty : int
        Voxels of the region whose combined uncertainty is 0.
    mean, standard_deviation : float
        Of z; 0 and 1 for noise alone (a little above 1 with few batches).
    chi2_per_voxel : float
        Mean of z^2.
    chi2_expected : float
        What noise alone gives: 1, or v / (v - 2) with v degrees of freedom.
    degrees_of_freedom : float
        Of the uncertainty, from the numbers of batches (Welch); infinite for uncertainty maps.
    edges, counts, expected : ndarray
        Histogram of z from -6 to 6 (values beyond in the end bins), and the counts expected from
        the normal curve, or Student's t with batches.
    """

    z: NDArray[Any]
    n_voxels: int
    n_without_uncertainty: int
    mean: float
    standard_deviation: float
    chi2_per_voxel: float
    chi2_expected: float
    degrees_of_freedom: float
    edges: NDArray[Any]
    counts: NDArray[Any]
    expected: NDArray[Any]

    @property
    def status(self) -> str:
        """Either "ok" or what a reader must know."""
        if self.n_voxels == 0:
            return "no voxel of the region has an uncertainty"
        if self.n_without_uncertainty:
            return f"{self.n_without_uncertainty} voxels without uncertainty are left out"
        return "ok"


def standardized_difference(
    *,
    reference: DoseMap,
    evaluated: DoseMap,
    mask: ArrayLike | None = None,
    dose_threshold_percent: float = 0.0,
) -> StandardizedDifferenceResult | None:
    """Difference of two maps over its standard uncertainty, voxel by voxel.

    z = (D_eval - D_ref) / sqrt(s_eval^2 + s_ref^2); chi2/n is the mean of z^2.

    Parameters
    ----------
    reference, evaluated : DoseMap
        At least one with batches or an uncertainty map; the other counts as free of noise without.
    mask : array_like of bool or fraction, shape [z, y, x], optional
        Voxels that it touches.
    dose_threshold_percent : float
        Voxels whose reference dose is below this share of the maximum are left out.

    Returns
    -------
    StandardizedDifferenceResult or None
        None where neither map has an uncertainty.

    Notes
    -----
    *Limits*: uncertainties from batches are noisy themselves: z then follows Student's t, and its
    chi2 the value given as expected. Correlation between voxels leaves the mean of chi2/n alone
    but widens its scatter. In voxels with few hits z is skewed.

    References
    ----------
    gum2008
    """
    require_one_grid(reference=reference, evaluated=evaluated)
    sides = [_side_variance(dose) for dose in (reference, evaluated)]
    known = [variance for variance, _ in sides if variance is not None]
    if not known:
        return None
    inside, _ = region(reference=reference, mask=mask, dose_threshold_percent=dose_threshold_percent)
    variance = np.sum(known, axis=0)
    usable = inside & (variance > 0)
    d = evaluated.dose_gy[usable].astype(np.float64) - reference.dose_gy[usable].astype(np.float64)
    values = d / np.sqrt(variance[usable])
    z = np.full(reference.grid.shape, np.nan)
    z[usable] = values
    freedom = _degrees_of_freedom(sides, usable)
    edges = np.linspace(-6.0, 6.0, 61)
    counts, _ = np.histogram(np.clip(values, -6.0, 6.0), edges)
    empty = values.size == 0
    return StandardizedDifferenceResult(
        z=z,
        n_voxels=int(values.size),
        n_without_uncertainty=int(inside.sum() - usable.sum()),
        mean=float("nan") if empty else float(values.mean()),
        standard_deviation=float("nan") if empty else float(values.std()),
        chi2_per_voxel=float("nan") if empty else float(np.mean(values**2)),
        chi2_expected=freedom / (freedom - 2) if 2 < freedom < np.inf else 1.0,
        degrees_of_freedom=freedom,
        edges=edges,
        counts=counts,
        expected=_expected_counts(edges, values.size, freedom),
    )


def _side_variance(dose: DoseMap) -> tuple[NDArray[Any] | None, float]:
    """Variance of a map [Gy2] and its degrees of freedom; None for a map free of noise."""
    if dose.batches_gy is not None:
        n = dose.batches_gy.shape[0]
        return dose.batches_gy.var(axis=0, ddof=1, dtype=np.float64) / n, n - 1.0
    if dose.uncertainty_gy is not None:
        return np.square(dose.uncertainty_gy, dtype=np.float64), np.inf
    return None, np.inf


def _degrees_of_freedom(sides: list[tuple[NDArray[Any] | None, float]], usable: NDArray[np.bool_]) -> float:
    """Degrees of freedom of the summed variance by Welch and Satterthwaite, at its mean."""
    means = [(float(v[usable].mean()) if usable.any() else 0.0, f) for v, f in sides if v is not None]
    spread = sum(m * m / f for m, f in means)
    return sum(m for m, _ in means) ** 2 / spread if spread > 0 else np.inf


def _expected_counts(edges: NDArray[Any], n: int, freedom: float) -> NDArray[Any]:
    """Counts of n values of noise alone in each bin, the end bins open."""
    from scipy.special import ndtr, stdtr

    cumulative = ndtr(edges) if np.isinf(freedom) else stdtr(freedom, edges)
    cumulative[0], cumulative[-1] = 0.0, 1.0
    return n * np.diff(cumulative)


@dataclass(frozen=True, kw_only=True, eq=False)
class KawrakowFippelResult:
    """Systematic difference of two Monte Carlo maps, told apart from their noise.

    Parameters
    ----------
    fraction_percent : float
        Share of the voxels that differ systematically [%]; 0 where the test finds none.
    shift_sigma : float or None
        Shift of the component with the largest share times shift, in combined standard
        uncertainties; None where the test finds none.
    fractions, shifts_sigma : tuple of float
        alpha_i and delta_i of each component, the largest share times shift first.
    mean_shift_sigma : float
        Mean of x over the voxels: what is known best where share and shift trade off.
    fraction_interval_percent : tuple of float or None
        95 % profile likelihood interval of the share, for one component.
    p_value : float
        Probability of such a likelihood ratio from noise alone.
    p_method : str
        "permutation of batches" (exact) or "chi-square bound" (approximate).
    likelihood_ratio : float
        2 log(L(two shifted components) / L(none)).
    correlation_factor : float
        Variance inflation by the correlation between voxels, by which the ratio is divided.
    sigma_gy : float
        Root mean square of the combined standard uncertainty [Gy]: turns shifts into doses.
    n_voxels : int
    status : str
        "ok", or what a reader must know.
    """

    fraction_percent: float
    shift_sigma: float | None
    fractions: tuple[float, ...]
    shifts_sigma: tuple[float, ...]
    mean_shift_sigma: float
    fraction_interval_percent: tuple[float, float] | None
    p_value: float
    p_method: str
    likelihood_ratio: float
    correlation_factor: float
    sigma_gy: float
    n_voxels: int
    status: str = "ok"


def kawrakow_fippel(
    *,
    reference: DoseMap,
    evaluated: DoseMap,
    dose_threshold_percent: float = 50.0,
    mask: ArrayLike | None = None,
    significance_level: float = 0.05,
    n_permutations: int | None = None,
    seed: int = 0,
) -> KawrakowFippelResult | None:
    """Separate a systematic difference between two Monte Carlo maps from their noise.

    x = (D_eval - D_ref) / sqrt(s_eval^2 + s_ref^2) is fitted by
    f(x) = [a_1 e^(-(x-d_1)^2/2) + a_2 e^(-(x-d_2)^2/2) + (1 - a_1 - a_2) e^(-x^2/2)] / sqrt(2 pi):
    a share a_i of the voxels is shifted by d_i standard uncertainties.

    Parameters
    ----------
    reference, evaluated : DoseMap
        As in `standardized_difference`.
    dose_threshold_percent : float
        Voxels whose dose, averaged over both maps, is below this share of the maximum are left out.
    mask : array_like of bool or fraction, shape [z, y, x], optional
    significance_level : float
        Above this p value no difference is reported, because then shares mean nothing.
    n_permutations : int, optional
        Permutations of batches for the p value; 99 unless given where both maps have batches, 0
        for the chi-square bound.
    seed : int
        Of the permutations.

    Returns
    -------
    KawrakowFippelResult or None
        None where neither map has an uncertainty.

    Raises
    ------
    InputError
        When no voxel of the region has an uncertainty, or permutations are asked for without
        batches on both sides.

    Notes
    -----
    *Definition*: the likelihood ratio against noise alone comes first. Where it is significant,
    one shifted component is fitted, and two where they fit better (chi-square of 2 at 1 %). The
    likelihood is that of a histogram with exact bin probabilities.
    *p value*: with batches on both sides by permuting them (on 200 000 voxels at most): exact
    whatever the correlation of the noise, because batches are exchangeable when nothing differs. The
    voxels are chosen by the mean of both maps: chosen by the reference alone, where it is noisy, they would
    be those in which its noise happens to be positive.
    Otherwise the ratio, over the correlation factor of the voxels, against a chi-square of 4: at
    most its nominal size for independent noise, because shares at their bound and shifts without
    a share use fewer degrees of freedom.
    *Limits*: the chi-square bound takes a smooth difference for correlated noise (and so misses
    small ones), and noise common to all voxels of a map, as from a recycled phase space, for a
    difference: nothing but batches tells these apart. With batches x is turned from Student's t to
    normal, which shortens large shifts a little. Where the shift is far below 1 only share times
    shift is determined, see the interval. Uncertainties must be right: an underestimate by 5 % looks
    like shifts both ways, and so do, without batches, the heavier tails of noise above 10 %. Shifts
    that vary over the map are summed up in two.
    *Cost*: under 1 s for millions of voxels, and up to 0.1 s a permutation.

    References
    ----------
    kawrakow2000
    """
    require_one_grid(reference=reference, evaluated=evaluated)
    inside, _ = region(
        reference=_common_dose(reference, evaluated),
        mask=mask,
        dose_threshold_percent=dose_threshold_percent,
    )
    base = standardized_difference(reference=reference, evaluated=evaluated, mask=inside)
    if base is None:
        return None
    if base.n_voxels == 0:
        raise InputError(
            "no voxel above the dose threshold has an uncertainty. Noise and difference cannot be told "
            "apart. Lower `dose_threshold_percent`, or check the uncertainty maps."
        )
    usable = np.isfinite(base.z)
    x = _as_normal(base.z[usable], base.degrees_of_freedom)
    field = np.full(base.z.shape, np.nan)
    field[usable] = x
    factor = _correlation_factor(field)
    edges = bin_edges(x)
    counts, _ = np.histogram(np.clip(x, edges[0], edges[-1]), edges)
    fit = fit_mixture(counts, edges)
    if n_permutations is None:
        both = reference.batches_gy is not None and evaluated.batches_gy is not None
        n_permutations = _PERMUTATIONS if both else 0
    if n_permutations > 0:
        p_value = _permutation_p(reference, evaluated, usable, edges, n_permutations, seed)
        method = "permutation of batches"
    else:
        p_value = _chi2_p(fit.likelihood_ratio / factor)
        method = "chi-square bound"
    found = p_value <= significance_level
    difference = evaluated.dose_gy[usable].astype(np.float64) - reference.dose_gy[usable]
    moved = base.z[usable] != 0
    variance = (difference[moved] / base.z[usable][moved]) ** 2
    return KawrakowFippelResult(
        fraction_percent=100.0 * sum(fit.fractions) if found else 0.0,
        shift_sigma=fit.shifts[0] if found and fit.shifts else None,
        fractions=fit.fractions if found else (),
        shifts_sigma=fit.shifts if found else (),
        mean_shift_sigma=float(x.mean()),
        fraction_interval_percent=fit.interval_percent(factor) if found else None,
        p_value=p_value,
        p_method=method,
        likelihood_ratio=fit.likelihood_ratio,
        correlation_factor=factor,
        sigma_gy=float(np.sqrt(variance.mean())) if variance.size else 0.0,
        n_voxels=int(x.size),
        status="ok" if found else f"no systematic difference found (p = {p_value:.2g})",
    )


def _common_dose(reference: DoseMap, evaluated: DoseMap) -> DoseMap:
    """Mean of two maps whose noise does not go with that of their difference.

    Weighted by the number of batches, so that no labelling of batches changes it; else by the inverse of the
    mean variances, a map without noise being all of it.
    """
    first, second = reference.batches_gy, evaluated.batches_gy
    if first is not None and second is not None:
        share = len(second) / (len(first) + len(second))
    else:
        one, other = (
            0.0 if variance is None else float(variance.mean())
            for variance, _ in map(_side_variance, (reference, evaluated))
        )
        share = one / (one + other) if one + other > 0 else 0.5
    mean = (1 - share) * np.asarray(reference.dose_gy, dtype=np.float64) + share * evaluated.dose_gy
    return replace(reference, dose_gy=mean, uncertainty_gy=None, batches_gy=None)


def _as_normal(z: NDArray[Any], freedom: float) -> NDArray[Any]:
    """Normal values of the same probability as Student's t values."""
    from scipy.special import ndtri, stdtr

    if np.isinf(freedom):
        return z
    tail = np.maximum(stdtr(freedom, -np.abs(z)), 1e-300)
    return -np.sign(z) * ndtri(tail)


def _chi2_p(ratio: float) -> float:
    """Upper tail of the chi-square distribution of 4 degrees of freedom."""
    half = max(ratio, 0.0) / 2
    return float(np.exp(-half) * (1.0 + half))


def _correlation_factor(field: NDArray[Any]) -> float:
    """Variance inflation of a mean over the field: product over axes of 1 + 2 sum of correlations.

    Correlations count up to the first that is within twice its own standard error of 0.
    """
    known = np.isfinite(field)
    centered = np.where(known, field - field[known].mean(), 0.0)
    variance = float(np.mean(centered[known] ** 2))
    factor = 1.0
    for axis, n in enumerate(field.shape):
        inflation = 1.0
        for lag in range(1, min(_LONGEST_LAG, n - 1) + 1):
            near = tuple(slice(None, -lag) if a == axis else slice(None) for a in range(3))
            far = tuple(slice(lag, None) if a == axis else slice(None) for a in range(3))
            pairs = int(np.count_nonzero(known[near] & known[far]))
            if pairs == 0 or variance == 0:
                break
            correlation = float(np.sum(centered[near] * centered[far])) / (pairs * variance)
            if correlation < 2.0 / np.sqrt(pairs):
                break
            inflation += 2.0 * correlation
        factor *= inflation
    return factor


def _permutation_p(
    reference: DoseMap,
    evaluated: DoseMap,
    usable: NDArray[np.bool_],
    edges: NDArray[Any],
    n_permutations: int,
    seed: int,
) -> float:
    """Share of batch permutations, the observed one included, with at least its likelihood ratio."""
    if reference.batches_gy is None or evaluated.batches_gy is None:
        raise InputError(
            "`n_permutations` needs batches in both maps. Without them noise cannot be permuted. "
            "Pass 0 for the approximate p value."
        )
    rng = np.random.default_rng(seed)
    n = reference.batches_gy.shape[0]
    chosen = np.flatnonzero(usable)
    chosen = chosen[:: -(-chosen.size // _PERMUTED_VOXELS)]
    batches = np.concatenate(
        [
            side.reshape(side.shape[0], -1)[:, chosen].astype(np.float64)
            for side in (reference.batches_gy, evaluated.batches_gy)
        ]
    )
    batches -= batches.mean(axis=0)
    squares = batches**2
    first = np.arange(len(batches)) < n
    observed = _split_ratio(batches, squares, first, edges)
    as_large = 1
    for _ in range(n_permutations):
        as_large += (
            _split_ratio(batches, squares, first[rng.permutation(first.size)], edges) >= observed - 1e-9
        )
    return as_large / (n_permutations + 1)


def _split_ratio(
    batches: NDArray[Any], squares: NDArray[Any], first: NDArray[np.bool_], edges: NDArray[Any]
) -> float:
    """Likelihood ratio of a shift between the batches marked ``first`` and the others."""
    means, variances, freedoms = [], [], []
    for side in (first, ~first):
        m = int(side.sum())
        weights = side / m
        mean = weights @ batches
        means.append(mean)
        variances.append(np.maximum(weights @ squares - mean**2, 0.0) / (m - 1))
        freedoms.append(m - 1.0)
    total = variances[0] + variances[1]
    z = np.divide(means[1] - means[0], np.sqrt(total), out=np.zeros_like(total), where=total > 0)
    spread = sum(float(v.mean()) ** 2 / f for v, f in zip(variances, freedoms, strict=True))
    x = _as_normal(z, float(total.mean()) ** 2 / spread if spread > 0 else np.inf)
    counts, _ = np.histogram(np.clip(x, edges[0], edges[-1]), edges)
    return grid_likelihood_ratio(counts, edges)
