"""Detection by kind of change, with intervals, and which of two metrics finds more."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dosemover.study.analysis_detection import BOOTSTRAPS, Interval, threshold
from dosemover.study.analysis_summary import StudyAnalysis
from dosemover.study.analysis_table import Cell, excess, scores

KINDS: dict[str, tuple[str, ...]] = {
    "shift": ("shift",),
    "movement of a part": ("half_shift", "halves_apart", "penumbra", "dwell_time"),
    "output": ("output", "scale"),
    "low-dose bath": ("low_dose_bath", "bath"),
    "hot or cold spot": ("hot_spot", "cold_spot", "hot_and_cold"),
    "energy, material": ("energy", "half_energy", "wrong_material"),
}
"""Kinds of change that a user may ask for, with the names of their changes in a study."""

Measure = Literal["auc", "power", "misjudged"]
Key = tuple[str, str, float, float]
"""Case, change, magnitude and noise level of a condition."""

_MISJUDGED = 1.1
"""Factor on the distance of null values from the ideal where the noise is thought a tenth too large."""


def kind_of(change: str) -> str:
    """Kind of a change; empty where it has none.

    Examples
    --------
    >>> kind_of("penumbra"), kind_of("missing_leaf")
    ('movement of a part', '')
    """
    return next((kind for kind, names in KINDS.items() if change in names), "")


def keys_of(analysis: StudyAnalysis, kind: str, noise: float | None = None) -> list[Key]:
    """Conditions of a kind in the simulated cases, at one noise level or at all."""
    return sorted(
        key
        for key in analysis.by_condition
        if key[0] in analysis.cases and kind_of(key[1]) == kind and noise in (None, key[3])
    )


class Draws:
    """Replicates drawn with replacement: the same ones for all that share the noise of a reference.

    Replicates of one number share the noise of the reference in every change of a case and noise level, and
    in every metric: they are drawn together, so that means and differences keep what is common to them.

    Parameters
    ----------
    draws : int
    seed : int
    """

    def __init__(self, draws: int = BOOTSTRAPS, seed: int = 0) -> None:
        self._rng = np.random.default_rng(seed)
        self._draws = draws
        self._chosen: dict[tuple[str, float, int], NDArray[np.intp]] = {}

    def of(self, cell: Cell) -> NDArray[np.float64]:
        """Values of a cell: in the first row as they are, then as drawn, shape (1 + draws, n)."""
        n = cell.values.size
        key = (cell.case, cell.noise_percent, n)
        if key not in self._chosen:
            drawn = self._rng.integers(n, size=(self._draws, n))
            self._chosen[key] = np.concatenate([np.arange(n)[None], drawn])
        return cell.values[self._chosen[key]]


def drawn_measure(
    analysis: StudyAnalysis, metric: str, key: Key, measure: Measure, draws: Draws
) -> NDArray[np.float64]:
    """AUC or power of a metric in one condition, shape (1 + draws,): the first as measured."""
    changed = analysis.by_condition[key][metric].cell
    null = analysis.table.null_of(changed)
    assert null is not None
    noise, signal = draws.of(null), draws.of(changed)
    if measure == "misjudged":
        noise, signal = excess(metric, noise) * _MISJUDGED, excess(metric, signal)
    else:
        noise, signal = scores(metric, noise, signal)
    if measure == "power":
        return (signal > threshold(noise)[:, None]).mean(axis=1)
    wins = signal[:, None, :] > noise[:, :, None]
    ties = signal[:, None, :] == noise[:, :, None]
    return (wins + 0.5 * ties).mean(axis=(1, 2))


def interval(values: NDArray[np.float64], replicates: int) -> Interval:
    """The first value with the 95 % interval of the others.

    Where all agree on 0 or 1, the other end is that share which all replicates would show with a probability
    of 2.5 %.
    """
    value, drawn = float(values[0]), np.sort(values[1:])
    low, high = drawn[int(0.025 * (drawn.size - 1))], drawn[int(np.ceil(0.975 * (drawn.size - 1)))]
    low, high = min(float(low), value), max(float(high), value)
    if low == high and value in (0.0, 1.0):
        reach = 1.0 - 0.025 ** (1.0 / replicates)
        low, high = max(value - reach, 0.0), min(value + reach, 1.0)
    return Interval(value=value, low=low, high=high)


def mean_measure(
    analysis: StudyAnalysis, metric: str, keys: Sequence[Key], measure: Measure
) -> Interval | None:
    """Mean of AUC or power over conditions with its interval; None where the metric lacks one of them."""
    if not keys or any(metric not in analysis.by_condition[key] for key in keys):
        return None
    draws = Draws()
    values = [drawn_measure(analysis, metric, key, measure, draws) for key in keys]
    fewest = min(analysis.by_condition[key][metric].cell.values.size for key in keys)
    return interval(np.mean(values, axis=0), fewest)


@dataclass(frozen=True, kw_only=True)
class Duel:
    """How often one metric finds a kind of change surely better or worse than another.

    Parameters
    ----------
    better, worse, of : int
        Conditions in which the 95 % interval of the difference of the AUC lies above or below 0, and all.
    gain : float
        Mean difference of the AUC.
    """

    better: int
    worse: int
    of: int
    gain: float


def duel(analysis: StudyAnalysis, ours: str, theirs: str, keys: Sequence[Key]) -> Duel | None:
    """One metric against another over conditions, by the AUC, replicates drawn together."""
    both = [key for key in keys if {ours, theirs} <= analysis.by_condition[key].keys()]
    if not both:
        return None
    gains = list(_gains(analysis, ours, theirs, both))
    return Duel(
        better=sum(gain.low > 0 for gain in gains),
        worse=sum(gain.high < 0 for gain in gains),
        of=len(gains),
        gain=float(np.mean([gain.value for gain in gains])),
    )


def _gains(analysis: StudyAnalysis, ours: str, theirs: str, keys: Sequence[Key]) -> Iterator[Interval]:
    draws = Draws()
    for key in keys:
        first, second = (drawn_measure(analysis, m, key, "auc", draws) for m in (ours, theirs))
        drawn = np.sort((first - second)[1:])
        yield Interval(
            value=float(first[0] - second[0]),
            low=float(drawn[int(0.025 * (drawn.size - 1))]),
            high=float(drawn[int(np.ceil(0.975 * (drawn.size - 1)))]),
        )
