"""Pairs of dose maps that differ by noise alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dosemover.dose import DoseMap
from dosemover.errors import GridMismatchError, InputError
from dosemover.noise.correlation import NoiseCorrelation, correlated_normals, noise_correlation
from dosemover.noise.quadratic import centered_weights, orthogonal_weights
from dosemover.noise.steady import denoised, expected_uncertainty

Pair = tuple[DoseMap, DoseMap]

_STRONG_SHARE = 0.9
_FEWEST_WEAK = 2000
_BATCH_PAIRS = 4
_MOST_SIGMA = 4.0
"""Standardised differences beyond this are no noise to learn a correlation from."""


def _require_batches(reference: DoseMap, evaluated: DoseMap) -> tuple[NDArray[Any], NDArray[Any]]:
    """Batches of both maps, or a clear error."""
    if reference.batches_gy is None or evaluated.batches_gy is None:
        raise InputError(
            "both maps must bring their batches. Nothing can be resampled without them. Pass "
            "--reference-batches and --evaluated-batches, or uncertainty maps."
        )
    return reference.batches_gy, evaluated.batches_gy


def permuted_pairs(
    *, reference: DoseMap, evaluated: DoseMap, draws: int, rng: np.random.Generator
) -> Iterator[Pair]:
    """Pairs of means after relabelling the pooled batches: exchangeable under the null.

    Parameters
    ----------
    reference, evaluated : DoseMap
        With batches of equal histories on one grid.
    draws : int
    rng : numpy.random.Generator

    Yields
    ------
    (DoseMap, DoseMap)
        With batches and uncertainty, in the numbers of the originals.

    Raises
    ------
    InputError, GridMismatchError
        When batches are missing or lie on different grids.
    """
    first, second = _require_batches(reference, evaluated)
    if not reference.grid.coincides_with(evaluated.grid):
        raise GridMismatchError(
            "batches on different grids cannot be relabelled. Their noise differs by the grid alone. "
            "Tally both simulations on one grid."
        )
    pooled = np.concatenate([first, second])
    for _ in range(draws):
        order = rng.permutation(len(pooled))
        yield (
            _from_batches(reference, pooled[order[: len(first)]]),
            _from_batches(evaluated, pooled[order[len(first) :]]),
        )


def pair_of_means(*, reference: DoseMap, evaluated: DoseMap) -> Pair | None:
    """The pair as its own batches give it, where a map is not just their mean; None where both are.

    A map stored in single precision differs from the mean of its batches by rounding: among relabelled pairs
    the labelling at hand would not tie with itself.

    Parameters
    ----------
    reference, evaluated : DoseMap
        With batches.
    """
    first, second = _require_batches(reference, evaluated)
    pair = _from_batches(reference, first), _from_batches(evaluated, second)
    same = (np.array_equal(a.dose_gy, b.dose_gy) for a, b in zip(pair, (reference, evaluated), strict=True))
    return None if all(same) else pair


def _from_batches(like: DoseMap, batches: NDArray[Any]) -> DoseMap:
    """Mean of batches on the grid of a map."""
    return DoseMap.from_batches(
        batches,
        like.grid,
        density_g_per_cm3=like.density_g_per_cm3,
        structures=like.structures,
        name=like.name,
    )


def resampled_pairs(
    *, reference: DoseMap, evaluated: DoseMap, draws: int, rng: np.random.Generator
) -> Iterator[Pair]:
    """Pairs around the pooled mean with the noise of each side's own batches.

    Each side's batches, less their own mean, are recombined with random weights of fixed size (see
    `centered_weights`); relabelling would mix a real difference into "noise alone".

    Parameters
    ----------
    reference, evaluated : DoseMap
        With batches; grids may differ.
    draws : int
    rng : numpy.random.Generator

    Yields
    ------
    (DoseMap, DoseMap)
        With the uncertainty of the originals.
    """
    _require_batches(reference, evaluated)
    truth = pooled_mean(reference, evaluated)
    for _ in range(draws):
        yield (
            _around(reference, truth, _resampled_noise(reference, rng)),
            _around(evaluated, truth, _resampled_noise(evaluated, rng)),
        )


def replicated_pairs(*, dose: DoseMap, draws: int, rng: np.random.Generator) -> Iterator[Pair]:
    """Pairs as two independent simulations of the quality of one map with batches would be.

    The two sides' weights are at right angles: independent ones of the same few batches would be more or
    less alike by chance, which the noise of two simulations is not.

    Parameters
    ----------
    dose : DoseMap
        With at least 3 batches.
    draws : int
    rng : numpy.random.Generator

    Yields
    ------
    (DoseMap, DoseMap)
    """
    batches, _ = _require_batches(dose, dose)
    truth = pooled_mean(dose, dose)
    for _ in range(draws):
        one, two = orthogonal_weights(len(batches), rng)
        yield (
            _around(dose, truth, np.tensordot(one, batches, axes=(0, 0))),
            _around(dose, truth, np.tensordot(two, batches, axes=(0, 0))),
        )


def _resampled_noise(dose: DoseMap, rng: np.random.Generator) -> NDArray[Any]:
    """Noise of the mean from recombined, centred batches [Gy]."""
    batches = dose.batches_gy
    assert batches is not None
    return np.tensordot(centered_weights(len(batches), 1, rng)[0], batches, axes=(0, 0))


def pooled_mean(reference: DoseMap, evaluated: DoseMap) -> DoseMap:
    """Best guess of the common dose under the null, on the reference's grid.

    Each side weighs as the other's mean variance: an exact map (without uncertainty) is taken as
    the truth; without any uncertainty both weigh the same. The mean is noisy itself, and noise put on
    top of noise would be rougher than either map (gamma would find agreement too easily): see
    `denoised`.
    """
    here = evaluated.interpolated_to(reference.grid)
    variances = [
        0.0 if m.uncertainty_gy is None else float(np.mean(np.square(m.uncertainty_gy, dtype=np.float64)))
        for m in (reference, here)
    ]
    total = sum(variances)
    share = 0.5 if total == 0 else variances[1] / total
    mean = share * np.asarray(reference.dose_gy, dtype=np.float64) + (1 - share) * here.dose_gy
    noise = sum(
        (
            np.square(weight * m.uncertainty_gy, dtype=np.float64)
            for weight, m in ((share, reference), (1 - share, here))
            if m.uncertainty_gy is not None
        ),
        np.zeros(mean.shape),
    )
    return replace(reference, dose_gy=denoised(mean, noise), uncertainty_gy=None, batches_gy=None)


def _around(like: DoseMap, truth: DoseMap, noise: NDArray[Any]) -> DoseMap:
    """A map on the grid of ``like`` with the dose of ``truth`` plus noise, not below 0."""
    mean = truth.interpolated_to(like.grid).dose_gy
    return replace(like, dose_gy=np.maximum(mean + noise, 0.0), batches_gy=None)


@dataclass(frozen=True, kw_only=True, eq=False)
class NoiseModel:
    """Spatial correlation of the noise of two maps, for a parametric bootstrap and closed forms.

    Parameters
    ----------
    correlation : NoiseCorrelation
        Of the voxels that hold most of the noise variance.
    weak : NoiseCorrelation, optional
        Of the voxels whose variance lies below ``split_gy2``, where it could be told.
    split_gy2 : float
    source : str
        Where the correlation comes from: "batches" or "difference".
    """

    correlation: NoiseCorrelation
    weak: NoiseCorrelation | None = None
    split_gy2: float = 0.0
    source: str = "difference"

    def doubted(self, rng: np.random.Generator) -> NoiseModel:
        """The model with a correlation as it may be instead: one that the estimate does not exclude."""
        freedom = self.correlation.freedom
        if not np.isfinite(freedom):
            return self
        factor = float(freedom / rng.chisquare(freedom))
        weak = None if self.weak is None else self.weak.inflated(factor)
        return replace(self, correlation=self.correlation.inflated(factor), weak=weak)

    def draw(self, uncertainty_gy: NDArray[Any], rng: np.random.Generator) -> NDArray[np.float64]:
        """Standard normal field with the correlation that belongs to each voxel's uncertainty."""
        shape: tuple[int, int, int] = uncertainty_gy.shape  # type: ignore[assignment]
        if self.weak is None:
            return correlated_normals(shape, [self.correlation], rng)[0]
        strong, weak = correlated_normals(shape, [self.correlation, self.weak], rng)
        return np.where(np.square(uncertainty_gy, dtype=np.float64) < self.split_gy2, weak, strong)


def combined_variance(*, reference: DoseMap, evaluated: DoseMap) -> NDArray[np.float64] | None:
    """Variance of the difference of two maps on one grid [Gy2]; None where neither knows its noise."""
    known = [m.uncertainty_gy for m in (reference, evaluated) if m.uncertainty_gy is not None]
    return (
        sum((np.square(u, dtype=np.float64) for u in known), np.zeros(reference.grid.shape))
        if known
        else None
    )


def noise_model(*, reference: DoseMap, evaluated: DoseMap, variance_error: float = 0.0) -> NoiseModel:
    """Correlation of the noise: from batches where a map has them, else from the standardised difference.

    Parameters
    ----------
    reference, evaluated : DoseMap
        At least one with its uncertainty.
    variance_error : float
        Relative standard error of the variances where they are estimates.

    Raises
    ------
    InputError
        When neither map brings an uncertainty.

    Notes
    -----
    Voxels are told apart in two classes: those that together hold 90 % of the noise variance, and the
    many others, hit seldom, whose noise is less correlated. *Limits*: the lags are voxels of the
    reference's grid; a map that was interpolated to it is smoother than its own noise.
    """
    here = evaluated.interpolated_to(reference.grid)
    variance = combined_variance(reference=reference, evaluated=here)
    if variance is None:
        raise InputError(
            "neither map brings an uncertainty: the correlation of its noise cannot be estimated. "
            "Pass uncertainty maps or batches."
        )
    fields, source = _standardized_noise(reference, here, variance)
    split = _split(variance)
    limit = np.inf if source == "batches" else 1.0
    strong = noise_correlation(fields, mask=variance >= split, variance=limit, variance_error=variance_error)
    below = (variance > 0) & (variance < split)
    weak = None
    if np.count_nonzero(below) >= _FEWEST_WEAK:
        weak = noise_correlation(fields, mask=below, variance=limit, variance_error=variance_error)
    return NoiseModel(correlation=strong, weak=weak, split_gy2=split / 2, source=source)


def _standardized_noise(
    reference: DoseMap, here: DoseMap, variance: NDArray[Any]
) -> tuple[NDArray[np.float64], str]:
    """Replicates of standardised noise [field, z, y, x], NaN where there is none, and their source."""
    fields = [field for m in (reference, here) for field in _standardized_batches(m)]
    if fields:
        return np.stack(fields), "batches"
    usable = variance > 0
    difference = np.subtract(here.dose_gy, reference.dose_gy, dtype=np.float64)
    z = np.where(usable, difference / np.sqrt(np.where(usable, variance, 1.0)), np.nan)
    return np.where(np.abs(z) <= _MOST_SIGMA, z, np.nan)[None], "difference"


def _standardized_batches(dose: DoseMap) -> Iterator[NDArray[np.float64]]:
    """Standardised differences of pairs of batches: free of the dose itself, at most 4."""
    batches = dose.batches_gy
    if batches is None:
        return
    deviation = batches.std(axis=0, ddof=1, dtype=np.float64) * np.sqrt(2.0)
    usable = deviation > 0
    for i in range(0, min(len(batches) - 1, 2 * _BATCH_PAIRS), 2):
        difference = np.subtract(batches[i], batches[i + 1], dtype=np.float64)
        yield np.where(usable, difference / np.where(usable, deviation, 1.0), np.nan)


def _split(variance: NDArray[Any]) -> float:
    """Least variance of the voxels that together hold 90 % of all [Gy2]."""
    ordered = np.sort(variance, axis=None)
    below = np.searchsorted(np.cumsum(ordered), (1 - _STRONG_SHARE) * float(ordered.sum()))
    return float(ordered[min(below, ordered.size - 1)])


def parametric_pairs(
    *,
    reference: DoseMap,
    evaluated: DoseMap,
    model: NoiseModel,
    draws: int,
    rng: np.random.Generator,
    as_stated: bool = False,
    level_error: float = 0.0,
) -> Iterator[Pair]:
    """Pairs around the pooled mean with noise of the given uncertainties and correlation.

    A voxel draws from a shifted gamma distribution with its mean and uncertainty (see `gamma_variate`):
    never negative, skewed as Monte Carlo noise is, and normal where the uncertainty is small.

    Parameters
    ----------
    reference, evaluated : DoseMap
        A map without uncertainty is taken as exact.
    model : NoiseModel
    draws : int
    rng : numpy.random.Generator
    as_stated : bool
        No voxel's uncertainty is less than its map states: for what single voxels decide. Averaged over its
        neighbourhood, the noise of a voxel that few large deposits reach would be lost.
    level_error : float
        Relative standard error of all uncertainties together, where they are estimates: the variances of the
        pairs are quantiles of a gamma distribution of twice that relative standard deviation.

    Yields
    ------
    (DoseMap, DoseMap)
    """
    truth = pooled_mean(reference, evaluated)
    sides = [(one, *_mean_and_deviation(one, truth, as_stated)) for one in (reference, evaluated)]
    for scale in _levels(level_error, draws, rng):
        one = model.doubted(rng)
        first, second = (_noisy(*side, one, rng, scale) for side in sides)
        yield first, second


def _levels(error: float, draws: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """What the uncertainties may have to be multiplied by: one quantile a draw, so that few keep the mean."""
    if error <= 0:
        return np.ones(draws)
    from scipy.special import gammaincinv

    shape = 1 / (2 * error) ** 2
    return np.sqrt(gammaincinv(shape, (rng.permutation(draws) + 0.5) / draws) / shape)


def _mean_and_deviation(
    like: DoseMap, truth: DoseMap, as_stated: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    """Dose in truth and uncertainty on the grid of a map [Gy]; None for a map without noise."""
    mean = np.asarray(truth.interpolated_to(like.grid).dose_gy, dtype=np.float64)
    if like.uncertainty_gy is None:
        return mean, None
    expected = expected_uncertainty(like.dose_gy, like.uncertainty_gy, mean)
    return mean, np.maximum(expected, like.uncertainty_gy) if as_stated else expected


def _noisy(
    like: DoseMap,
    mean: NDArray[np.float64],
    deviation: NDArray[np.float64] | None,
    model: NoiseModel,
    rng: np.random.Generator,
    scale: float,
) -> DoseMap:
    """A map on the grid of ``like`` with one draw of its noise, and of its uncertainty if from batches."""
    if deviation is None:
        return replace(like, dose_gy=mean, batches_gy=None)
    drawn = gamma_variate(mean, scale * deviation, model.draw(deviation, rng))
    stated = deviation
    if like.batches_gy is not None:
        freedom = len(like.batches_gy) - 1
        stated = deviation * np.sqrt(rng.chisquare(freedom, size=deviation.shape) / freedom)
    return replace(like, dose_gy=drawn, uncertainty_gy=stated, batches_gy=None)


def gamma_variate(
    mean: NDArray[Any], standard_deviation: NDArray[Any], normal: NDArray[Any]
) -> NDArray[np.float64]:
    """Non-negative variates with given mean and standard deviation, skewed as scored dose is.

    Parameters
    ----------
    mean, standard_deviation, normal : ndarray
        Of one shape; where the mean is 0 the result is 0.

    Notes
    -----
    *Definition*: a shifted gamma variate of skewness r (1 + min(r, 1)^2), r the relative standard
    deviation. The dose of a voxel is a sum of a Poisson number of deposits, of skewness
    r m1 m3 / m2^2 with m_i their moments: r at least (Cauchy & Schwarz), reached for equal deposits;
    where r nears 1, dose cannot be negative without the gamma variate's 2 r. DOSXYZnrc batches give 1.0
    r to 1.2 r for r from 0.1 to 0.5, and 1.1 r to 1.5 r at 0.7 and 0.9.

    References
    ----------
    Wilson & Hilferty 1931: the cube root of a gamma variate is nearly normal.
    """
    relative = np.where(mean > 0, standard_deviation / np.where(mean > 0, mean, 1.0), 0.0)
    skewness = relative * (1 + np.minimum(relative, 1.0) ** 2)
    shape = 4.0 / np.maximum(skewness, 1e-6) ** 2
    root = 1.0 - 1.0 / (9.0 * shape) + normal / (3.0 * np.sqrt(shape))
    standardized = (np.maximum(root, 0.0) ** 3 - 1.0) * np.sqrt(shape)
    return np.where(mean > 0, np.maximum(mean + standard_deviation * standardized, 0.0), 0.0)
