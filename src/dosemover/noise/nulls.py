"""Pairs of dose maps that differ by noise alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dosemover.dose import DoseMap
from dosemover.errors import GridMismatchError, InputError
from dosemover.noise.correlation import correlated_normal, lag_correlation

Pair = tuple[DoseMap, DoseMap]


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

    Each side's batches, less their own mean, are drawn with replacement and widened by
    sqrt(n / (n - 1)); relabelling would mix a real difference into "noise alone".

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


def _resampled_noise(dose: DoseMap, rng: np.random.Generator) -> NDArray[Any]:
    """Mean of resampled, centred batches [Gy]."""
    batches = dose.batches_gy
    assert batches is not None
    n = len(batches)
    weights = rng.multinomial(n, np.full(n, 1 / n)) / n - 1 / n
    return np.tensordot(weights, batches, axes=(0, 0)) * np.sqrt(n / (n - 1))


def pooled_mean(reference: DoseMap, evaluated: DoseMap) -> DoseMap:
    """Best guess of the common dose under the null, on the reference's grid.

    Each side weighs as the other's mean variance: an exact map (without uncertainty) is taken as
    the truth; without any uncertainty both weigh the same.
    """
    here = evaluated.interpolated_to(reference.grid)
    variances = [
        0.0 if m.uncertainty_gy is None else float(np.mean(np.square(m.uncertainty_gy, dtype=np.float64)))
        for m in (reference, here)
    ]
    total = sum(variances)
    share = 0.5 if total == 0 else variances[1] / total
    return replace(
        reference,
        dose_gy=share * reference.dose_gy + (1 - share) * here.dose_gy,
        uncertainty_gy=None,
        batches_gy=None,
    )


def _around(like: DoseMap, truth: DoseMap, noise: NDArray[Any]) -> DoseMap:
    """A map on the grid of ``like`` with the dose of ``truth`` plus noise, not below 0."""
    mean = truth.interpolated_to(like.grid).dose_gy
    return replace(like, dose_gy=np.maximum(mean + noise, 0.0), batches_gy=None)


@dataclass(frozen=True, kw_only=True, eq=False)
class NoiseModel:
    """Noise of a parametric bootstrap.

    Parameters
    ----------
    correlation : tuple of float
        Lag-1 correlation of the noise along each array axis (z, y, x).
    estimated : bool
        Whether the level itself was estimated from the maps.
    """

    correlation: tuple[float, float, float]
    estimated: bool = False


def noise_model(*, reference: DoseMap, evaluated: DoseMap) -> NoiseModel:
    """Correlation of the noise from the standardised difference of two maps on one grid.

    Parameters
    ----------
    reference, evaluated : DoseMap
        At least one with its uncertainty.
    """
    here = evaluated.interpolated_to(reference.grid)
    variance = sum(
        np.square(m.uncertainty_gy, dtype=np.float64)
        for m in (reference, here)
        if m.uncertainty_gy is not None
    )
    if np.isscalar(variance):
        raise InputError(
            "neither map brings an uncertainty: the correlation of its noise cannot be estimated. "
            "Pass uncertainty maps or batches."
        )
    usable = variance > 0
    z = np.where(
        usable, (here.dose_gy - reference.dose_gy) / np.sqrt(np.where(usable, variance, 1.0)), np.nan
    )
    return NoiseModel(correlation=lag_correlation(z))


def parametric_pairs(
    *,
    reference: DoseMap,
    evaluated: DoseMap,
    model: NoiseModel,
    draws: int,
    rng: np.random.Generator,
) -> Iterator[Pair]:
    """Pairs around the pooled mean with noise of the given uncertainties and correlation.

    A voxel draws from a gamma distribution with its mean and uncertainty (Wilson & Hilferty's
    cube of a normal variate): never negative, skewed as Monte Carlo noise is, and normal where the
    uncertainty is small.

    Parameters
    ----------
    reference, evaluated : DoseMap
        A map without uncertainty is taken as exact.
    model : NoiseModel
    draws : int
    rng : numpy.random.Generator

    Yields
    ------
    (DoseMap, DoseMap)
    """
    truth = pooled_mean(reference, evaluated)
    for _ in range(draws):
        yield _noisy(reference, truth, model, rng), _noisy(evaluated, truth, model, rng)


def _noisy(like: DoseMap, truth: DoseMap, model: NoiseModel, rng: np.random.Generator) -> DoseMap:
    """A map on the grid of ``like`` with one draw of its noise."""
    mean = np.asarray(truth.interpolated_to(like.grid).dose_gy, dtype=np.float64)
    if like.uncertainty_gy is None:
        return replace(like, dose_gy=mean, batches_gy=None)
    normal = correlated_normal(like.grid.shape, model.correlation, rng)
    deviation = _filled_uncertainty(like, mean)
    return replace(like, dose_gy=gamma_variate(mean, deviation, normal), batches_gy=None)


def _filled_uncertainty(like: DoseMap, mean: NDArray[Any]) -> NDArray[np.float64]:
    """Uncertainty [Gy], with that of the map's mean deposit where no history ever hit a voxel.

    A voxel without a hit reports 0, but its dose is no better known than its neighbours': there the
    variance is taken as the mean times the map's own ratio of variance to dose.
    """
    deviation = np.asarray(like.uncertainty_gy, dtype=np.float64)
    total = float(np.sum(like.dose_gy, dtype=np.float64))
    per_dose = float(np.sum(deviation**2)) / total if total > 0 else 0.0
    never_hit = (deviation == 0) & (like.dose_gy == 0)
    return np.where(never_hit, np.sqrt(per_dose * mean), deviation)


def gamma_variate(
    mean: NDArray[Any], standard_deviation: NDArray[Any], normal: NDArray[Any]
) -> NDArray[np.float64]:
    """Gamma variates with given mean and standard deviation, from standard normal ones.

    Parameters
    ----------
    mean, standard_deviation, normal : ndarray
        Of one shape; where the mean is 0 the result is 0.

    References
    ----------
    Wilson & Hilferty 1931: the cube root of a gamma variate is nearly normal.
    """
    safe = np.where(mean > 0, mean, 1.0)
    relative = np.where(mean > 0, standard_deviation / safe, 0.0)
    shape = 1.0 / np.maximum(relative, 1e-12) ** 2
    root = 1.0 - 1.0 / (9.0 * shape) + normal / (3.0 * np.sqrt(shape))
    return np.where(mean > 0, mean * np.maximum(root, 0.0) ** 3, 0.0)
