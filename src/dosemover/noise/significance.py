"""From the values of a metric under the null to its floor and significance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from dosemover.errors import InputError

Direction = Literal["larger", "smaller", "both"]
"""Which values of a metric speak of a difference: larger, smaller, or either side of the floor."""

_ROUNDING = 1e-12
"""Relative difference of values that are equal but for rounding."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Significance:
    """How a value stands against noise alone.

    Parameters
    ----------
    floor, floor_sd : float
        Mean and standard deviation of the metric between maps that differ by noise alone.
    z : float or None
        (value - floor) / floor_sd; None where the null does not scatter.
    p : float
        Probability of a value at least as extreme under the null: (1 + hits) / (1 + draws).
    n_draws : int
    method : str
    """

    floor: float
    floor_sd: float
    z: float | None
    p: float
    n_draws: int
    method: str


def significance(
    value: float,
    *,
    floor_values: Sequence[float],
    null_values: Sequence[float] | None = None,
    direction: Direction = "larger",
    method: str = "",
    ranked: float | None = None,
) -> Significance:
    """Floor, z and p of a value from draws under the null.

    Parameters
    ----------
    value : float
        The metric between the two maps at hand.
    floor_values : sequence of float
        The metric between maps that differ by noise alone, around their pooled mean.
    null_values : sequence of float, optional
        The metric between relabelled maps, for an exact p; ``floor_values`` where None.
    direction : {"larger", "smaller", "both"}
        Which values speak of a difference.
    method : str
        How the draws were made, for the result.
    ranked : float, optional
        What takes the place of ``value`` among the null values, where these come from means of batches and
        the value from a map that is only rounded from them: a relabelling that changes nothing must tie.

    Returns
    -------
    Significance

    Raises
    ------
    InputError
        When there are fewer than two finite draws.

    Notes
    -----
    *Definition*: p = (1 + #{null at least as extreme}) / (1 + draws), valid at any number of draws
    when the observed value and the null values are exchangeable. On both sides: as far from the median of
    the null values and the observed one, which treats them all alike. *Limits*: p is never below
    1 / (1 + draws).

    References
    ----------
    Phipson & Smyth 2010, "Permutation p-values should never be zero".
    """
    floors = np.asarray(floor_values, dtype=np.float64)
    floors = floors[np.isfinite(floors)]
    if floors.size < 2:
        raise InputError(
            f"`floor_values` must hold at least 2 finite draws, got {floors.size}. A floor has no meaning "
            "without them. Raise `null` (--null N)."
        )
    nulls = floors if null_values is None else np.asarray(null_values, dtype=np.float64)
    nulls = nulls[np.isfinite(nulls)]
    floor, deviation = float(floors.mean()), float(floors.std(ddof=1))
    if deviation <= _ROUNDING * max(float(np.max(np.abs(floors))), abs(value)):
        deviation = 0.0
    hits = np.count_nonzero(_at_least_as_extreme(value if ranked is None else ranked, nulls, direction))
    return Significance(
        floor=floor,
        floor_sd=deviation,
        z=(value - floor) / deviation if deviation > 0 else None,
        p=(1 + hits) / (1 + nulls.size),
        n_draws=int(nulls.size),
        method=method,
    )


def _at_least_as_extreme(value: float, nulls: np.ndarray, direction: Direction) -> np.ndarray:
    """Null values that speak of a difference at least as loudly as the value, ties included."""
    tolerance = _ROUNDING * max(abs(value), float(np.max(np.abs(nulls), initial=0.0)))
    if direction == "larger":
        return nulls >= value - tolerance
    if direction == "smaller":
        return nulls <= value + tolerance
    center = float(np.median(np.append(nulls, value)))
    return np.abs(nulls - center) >= abs(value - center) - tolerance
