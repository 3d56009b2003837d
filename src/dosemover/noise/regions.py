"""Where a difference is real: fields against the same fields between maps that differ by noise alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dosemover.dose import DoseMap
from dosemover.errors import InputError

_LEAST_SHARE = 0.1


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


def significant_voxels(field: NDArray[Any], null_fields: Sequence[NDArray[Any]]) -> SignificantVoxels:
    """Voxels where a field exceeds its own noise, at one error rate for the whole map.

    Parameters
    ----------
    field : ndarray, shape [z, y, x]
        Values whose size speaks of a difference; NaN is never marked.
    null_fields : sequence of ndarray, shape [z, y, x]
        The same between maps that differ by noise alone.

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
    null ones; with few draws the voxel's own noise is itself uncertain, which costs power.

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
