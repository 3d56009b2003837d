"""Where a difference is real: fields against the same fields between maps that differ by noise alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dosemover.dose import DoseMap
from dosemover.errors import GridMismatchError, InputError
from dosemover.noise.nulls import combined_variance
from dosemover.noise.quadratic import Relabellings

_LEAST_SHARE = 0.1
_AVERAGED = 3
"""Voxels along an axis over which differences are averaged before they are judged."""
_VARIANCE_OVER = 5
"""Voxels along an axis over which the variance of few batches is averaged, relative to the dose."""
_LEAST_RELATIVE = float(np.finfo(np.float32).eps)
"""Scatter of batches below this share of the dose is that of their storage."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SignificantVoxels:
    """Voxels whose value noise alone does not reach anywhere in the map.

    Parameters
    ----------
    mask : ndarray of bool, shape [z, y, x]
    threshold : float
        Least value, over the voxel's own noise, that counts.
    level : float
        Probability that noise alone marks any voxel: 1 / (1 + draws).
    """

    mask: NDArray[np.bool_]
    threshold: float
    level: float


def averaged_difference(*, reference: DoseMap, evaluated: DoseMap) -> NDArray[np.float64]:
    """Difference averaged over 3 voxels along each axis [Gy], shape [z, y, x].

    Parameters
    ----------
    reference, evaluated : DoseMap
        On one grid.
    """
    return _averaged(np.subtract(evaluated.dose_gy, reference.dose_gy, dtype=np.float64))


def averaged_noise(*, reference: DoseMap, evaluated: DoseMap) -> NDArray[np.float64]:
    """Standard deviation of the averaged difference of independent voxels [Gy], shape [z, y, x].

    Parameters
    ----------
    reference, evaluated : DoseMap
        On one grid; a map without uncertainty counts as exact.
    """
    variance = combined_variance(reference=reference, evaluated=evaluated)
    if variance is None:
        return np.zeros(reference.grid.shape)
    return np.sqrt(_averaged(variance) / _AVERAGED**3)


def _averaged(values: NDArray[Any], size: int = _AVERAGED) -> NDArray[Any]:
    """Mean over some voxels along each axis."""
    from scipy.ndimage import uniform_filter

    return uniform_filter(values, size=size, mode="nearest")


def significant_by_relabelling(
    *, reference: DoseMap, evaluated: DoseMap, draws: int, rng: np.random.Generator
) -> SignificantVoxels | None:
    """Voxels whose averaged difference no relabelling of the batches reaches anywhere: an exact level.

    Parameters
    ----------
    reference, evaluated : DoseMap
        With batches of equal histories, on one grid.
    draws : int
    rng : numpy.random.Generator

    Returns
    -------
    SignificantVoxels or None
        None where the batches cannot be labelled in that many other ways.

    Raises
    ------
    InputError, GridMismatchError
        When batches are missing or lie on different grids.

    Notes
    -----
    *Definition*: t = d / s, d the difference of the means of the two sides, averaged over 3 voxels an axis, s
    its standard error from the scatter of batches within the sides; the variance relative to the dose is
    averaged over 5 voxels an axis, since few batches know that of a voxel badly (pseudo-t). A relabelling's t
    has an s of its own: chance in d / s is the same in all of them, and a real difference widens their s. Not
    so the same few batches recombined around their mean: their noise is bounded where the difference of the
    maps is not, and of 5 + 5 batches every null map would have marks. The threshold is the largest t of all
    relabellings anywhere; they are drawn without repetition, the one at hand and its mirror image left out.

    References
    ----------
    Nichols & Holmes 2002, "Nonparametric permutation tests for functional neuroimaging".
    """
    first, second = reference.batches_gy, evaluated.batches_gy
    if first is None or second is None:
        raise InputError("both maps must bring their batches. Nothing can be relabelled without them.")
    if first.shape[1:] != second.shape[1:]:
        raise GridMismatchError("batches on different grids cannot be relabelled. Tally them on one grid.")
    n, m = len(first), len(second)
    others = Relabellings(n, m).others(draws, rng)
    if others is None:
        return None
    pooled = np.concatenate([first, second])
    mean = pooled.mean(axis=0, dtype=np.float64)
    parts = np.stack([_averaged(one - mean).astype(np.float32) for one in pooled])
    dose = _averaged(mean)
    around = _averaged(dose, _VARIANCE_OVER)
    share = np.divide(dose, around, out=np.zeros(dose.shape), where=around > 0)
    squares = np.einsum("b...,b...->...", parts, parts, dtype=np.float64)
    either = 1 / n + 1 / m

    def statistic(side: NDArray[Any]) -> NDArray[np.float64]:
        total = np.tensordot(side.astype(np.float32), parts, axes=1).astype(np.float64)
        within = np.maximum(squares - either * total**2, 0.0)
        variance = _averaged(within, _VARIANCE_OVER) * share * either / (n + m - 2)
        error = np.sqrt(np.maximum(variance, (_LEAST_RELATIVE * dose) ** 2))
        return np.divide(either * np.abs(total), error, out=np.zeros(dose.shape), where=error > 0)

    highest = max(float(np.max(statistic(side))) for side in others)
    mask = statistic(np.arange(n + m) < n) > highest
    return SignificantVoxels(mask=mask, threshold=highest, level=1 / (1 + draws))


def significant_voxels(
    field: NDArray[Any], null_fields: Sequence[NDArray[Any]], *, noise: NDArray[Any] | None = None
) -> SignificantVoxels:
    """Voxels where a field exceeds its own noise, at one error rate for the whole map.

    Parameters
    ----------
    field : ndarray, shape [z, y, x]
        Values whose size speaks of a difference; NaN is never marked.
    null_fields : sequence of ndarray, shape [z, y, x]
        The same between maps that differ by noise alone.
    noise : ndarray, shape [z, y, x], optional
        Standard deviation of each voxel's value under noise alone, up to a factor, where it is known better
        than from the null fields.

    Returns
    -------
    SignificantVoxels

    Raises
    ------
    InputError
        When there are fewer than two null fields.

    Notes
    -----
    *Definition*: each voxel's value is divided by the root mean square of the null fields there (of the
    other null fields, for a null field), not less than a tenth of the median over the map; the
    threshold is the largest value that any null field reaches anywhere. All voxels are tested at once:
    no further correction for their number is due. *Limits*: exact only for fields exchangeable with the
    null ones, which few batches recombined around their mean are not (see `significant_by_relabelling`);
    with few draws the voxel's own noise is itself uncertain, which costs power.

    References
    ----------
    Nichols & Holmes 2002, "Nonparametric permutation tests for functional neuroimaging".
    """
    if len(null_fields) < 2:
        raise InputError(
            f"`null_fields` must hold at least 2 fields, got {len(null_fields)}. The noise of a voxel is "
            "unknown without them. Raise `null` (--null N)."
        )
    size = np.abs(field)
    nulls = [np.nan_to_num(np.abs(one)).astype(np.float64) for one in null_fields]
    if noise is not None:
        return _against_known_noise(size, nulls, noise)
    squares = np.zeros(field.shape)
    for one in nulls:
        squares += one**2
    hit = squares[squares > 0]
    least = (_LEAST_SHARE * float(np.median(hit)) if hit.size else 0.0) or np.finfo(np.float64).tiny
    count = len(nulls)
    highest = max(
        float(np.max(one / np.sqrt(np.maximum((squares - one**2), least) / (count - 1)))) for one in nulls
    )
    with np.errstate(invalid="ignore"):
        mask = size / np.sqrt(np.maximum(squares, least) / count) > highest
    return SignificantVoxels(mask=mask, threshold=highest, level=1 / (1 + count))


def _against_known_noise(
    size: NDArray[Any], nulls: list[NDArray[np.float64]], noise: NDArray[Any]
) -> SignificantVoxels:
    """Values over a noise that no draw had a part in."""
    hit = noise[noise > 0]
    least = (_LEAST_SHARE * float(np.median(hit)) if hit.size else 0.0) or np.finfo(np.float64).tiny
    deviation = np.maximum(noise, least)
    highest = max(float(np.max(one / deviation)) for one in nulls)
    with np.errstate(invalid="ignore"):
        mask = size / deviation > highest
    return SignificantVoxels(mask=mask, threshold=highest, level=1 / (1 + len(nulls)))


def low_sampling(
    *, reference: DoseMap, evaluated: DoseMap, limit_percent: float = 10.0
) -> NDArray[np.bool_] | None:
    """Voxels whose relative uncertainty exceeds a limit; None where no uncertainty is known.

    Parameters
    ----------
    reference, evaluated : DoseMap
        On one grid.
    limit_percent : float
        Uncertainty of the difference over the mean dose of the two maps [%].

    Notes
    -----
    Voxels without dose in both maps are no region of low sampling: nothing was to be sampled.
    """
    known = [m.uncertainty_gy for m in (reference, evaluated) if m.uncertainty_gy is not None]
    if not known:
        return None
    variance = sum((np.square(u, dtype=np.float64) for u in known), np.zeros(reference.grid.shape))
    mean = (np.asarray(reference.dose_gy, dtype=np.float64) + evaluated.dose_gy) / 2
    return (mean > 0) & (variance > np.square(limit_percent / 100 * mean))


def systematic_probability(
    z: NDArray[Any], *, fractions: NDArray[Any], shifts_sigma: NDArray[Any]
) -> NDArray[np.float64]:
    """Probability that a voxel belongs to a shifted component of a mixture, given its z.

    Parameters
    ----------
    z : ndarray
        Standardised differences; NaN stays NaN.
    fractions, shifts_sigma : ndarray, shape (component,)
        Share a_i and shift d_i of each component, as `dosemover.metrics.kawrakow_fippel` fits them.

    Notes
    -----
    *Definition*: sum a_i n(z - d_i) / [sum a_i n(z - d_i) + (1 - sum a_i) n(z)], n the normal density.
    *Limits*: a voxel is judged by its own z alone, so that shifts below one standard uncertainty leave
    every voxel near the share itself; neighbours lend it nothing.
    """
    values = np.asarray(z, dtype=np.float64)[..., None]
    odds = np.sum(
        fractions * np.exp(np.clip(values * shifts_sigma - shifts_sigma**2 / 2, -700, 700)), axis=-1
    )
    return odds / (odds + max(1 - float(np.sum(fractions)), 1e-12))
