"""How well a metric tells a change from noise: AUC, power, and the smallest change that it finds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dosemover.errors import InputError
from dosemover.study.analysis_table import Cell, StudyTable, excess, scores
from dosemover.study.table import NO_CHANGE

FALSE_ALARMS = 0.05
"""Share of null pairs that a test may call different."""

POWER_WANTED = 0.8
AUC_WANTED = 0.95
_Z95 = 1.959963984540054
BOOTSTRAPS = 300
_USE_UNCERTAINTY = ("debiased_rmse_gy", "chi2_per_voxel", "kf_fraction_percent", "kf_shift_sigma")


@dataclass(frozen=True, kw_only=True)
class Interval:
    """An estimate with its 95 % confidence interval."""

    value: float
    low: float
    high: float


def area_under_curve(null: ArrayLike, changed: ArrayLike) -> Interval:
    """Area under the ROC curve: probability that a changed pair scores higher than a null pair.

    Parameters
    ----------
    null, changed : array_like, shapes (m,) and (n,)
        Scores, larger for more different.

    Returns
    -------
    Interval
        Ties count half.

    Raises
    ------
    InputError
        With fewer than two scores on a side.

    Notes
    -----
    *Definition*: the Mann-Whitney statistic over m n.
    *Interval*: variance by placements (DeLong et al. 1988), normal on the logit scale, as Perme & Manevski
    2019 recommend. Where the two sides do not overlap that variance is 0; then the limit is that AUC at
    which min(m, n) disjoint pairs would all be in order with probability 2.5 %.

    References
    ----------
    delong1988, pohar2019

    Examples
    --------
    >>> area_under_curve([1.0, 2.0, 3.0], [2.5, 4.0, 5.0]).value
    0.8888888888888888
    """
    null, changed = np.asarray(null, dtype=np.float64), np.asarray(changed, dtype=np.float64)
    m, n = null.size, changed.size
    if min(m, n) < 2:
        raise InputError(
            f"an AUC needs at least two scores on a side, got {m} and {n}. Its error cannot be told. "
            "Run more replicates."
        )
    wins = (changed[None, :] > null[:, None]) + 0.5 * (changed[None, :] == null[:, None])
    auc = float(wins.mean())
    variance = float(wins.mean(axis=1).var(ddof=1) / m + wins.mean(axis=0).var(ddof=1) / n)
    if auc in (0.0, 1.0) or variance == 0.0:
        reach = 1.0 - 0.025 ** (1.0 / min(m, n))
        return Interval(value=auc, low=max(auc - reach, 0.0), high=min(auc + reach, 1.0))
    logit = np.log(auc / (1.0 - auc))
    half = _Z95 * np.sqrt(variance) / (auc * (1.0 - auc))
    low, high = 1.0 / (1.0 + np.exp(-(logit + np.array([-half, half]))))
    return Interval(value=auc, low=float(low), high=float(high))


def misjudged_auc(metric: str, null: ArrayLike, changed: ArrayLike, factor: float = 1.1) -> float:
    """AUC where the noise of the null pairs is larger than that of the changed ones by a factor.

    A user who thinks the noise a tenth larger than it is expects such null values: floors of most metrics
    grow in proportion to the noise. A metric whose changed values rise far above its floor hardly suffers;
    one whose values rise by a few percent of the floor, however reproducibly, is lost.

    Parameters
    ----------
    metric : str
    null, changed : array_like
        Values, not scores.
    factor : float
        On the distance of the null values from the metric's ideal.

    Returns
    -------
    float
        NaN for metrics that use the stated uncertainties themselves, which a factor does not describe.
    """
    if metric in _USE_UNCERTAINTY:
        return float("nan")
    noise, signal = excess(metric, np.asarray(null)) * factor, excess(metric, np.asarray(changed))
    wins = (signal[None, :] > noise[:, None]) + 0.5 * (signal[None, :] == noise[:, None])
    return float(wins.mean())


def wilson(successes: float, n: int) -> Interval:
    """Share of successes with its score interval.

    References
    ----------
    wilson1927

    Examples
    --------
    >>> interval = wilson(20, 20)
    >>> round(interval.low, 3), interval.high
    (0.839, 1.0)
    """
    p, z2 = successes / n, _Z95**2 / n
    center = (p + z2 / 2) / (1 + z2)
    half = np.sqrt(z2 * p * (1 - p) + z2**2 / 4) / (1 + z2)
    low, high = max(float(center - half), 0.0), min(float(center + half), 1.0)
    return Interval(value=p, low=0.0 if successes == 0 else low, high=1.0 if successes == n else high)


def threshold(null: NDArray[np.float64], false_alarms: float = FALSE_ALARMS) -> NDArray[np.float64]:
    """Score above which a pair is called different, along the last axis.

    Notes
    -----
    *Definition*: the ceil((1 - alpha)(m + 1))-th smallest of m null scores. A new null score exceeds it with
    probability at most alpha, whatever its distribution. Below m = 1/alpha - 1 = 19 scores no such rank
    exists, and the largest is taken: false alarms are then 1/(m + 1).
    """
    ordered = np.sort(null, axis=-1)
    m = ordered.shape[-1]
    rank = min(int(np.ceil((1 - false_alarms) * (m + 1) - 1e-9)), m)
    return ordered[..., rank - 1]


def power(null: ArrayLike, changed: ArrayLike, false_alarms: float = FALSE_ALARMS) -> Interval:
    """Share of changed pairs that score above the null's threshold.

    Notes
    -----
    *Limits*: the interval is that of the share for this threshold; that the threshold comes from few null
    pairs itself is in the bootstrap of `smallest_detectable`, not here.
    """
    changed = np.asarray(changed, dtype=np.float64)
    limit = threshold(np.asarray(null, dtype=np.float64), false_alarms)
    return wilson(int((changed > limit).sum()), changed.size)


@dataclass(frozen=True, kw_only=True, eq=False)
class Detection:
    """How well one metric finds one change under one condition.

    Parameters
    ----------
    cell : Cell
    auc, power : Interval
    misjudged : float
        AUC if the noise were thought to be a tenth larger than it is.
    """

    cell: Cell
    auc: Interval
    power: Interval
    misjudged: float


def detections(table: StudyTable, **conditions: object) -> list[Detection]:
    """AUC and power of every cell that has a change and enough replicates, against its null cell."""
    found = []
    for cell in table.select(**conditions):
        null = table.null_of(cell)
        if null is None or cell.change == NO_CHANGE or min(cell.values.size, null.values.size) < 2:
            continue
        noise, signal = scores(cell.metric, null.values, cell.values)
        found.append(
            Detection(
                cell=cell,
                auc=area_under_curve(noise, signal),
                power=power(noise, signal),
                misjudged=misjudged_auc(cell.metric, null.values, cell.values),
            )
        )
    return found


def non_decreasing(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Least-squares non-decreasing sequence along the last axis (pool adjacent violators, min-max form)."""
    n = values.shape[-1]
    sums = np.concatenate([np.zeros((*values.shape[:-1], 1)), np.cumsum(values, axis=-1)], axis=-1)
    fitted = np.empty_like(values)
    for i in range(n):
        best = np.full(values.shape[:-1], -np.inf)
        for j in range(i + 1):
            means = (sums[..., i + 1 :] - sums[..., j : j + 1]) / np.arange(i + 1 - j, n + 1 - j)
            best = np.maximum(best, means.min(axis=-1))
        fitted[..., i] = best
    return fitted


def crossing(x: NDArray[np.float64], y: NDArray[np.float64], target: float) -> NDArray[np.float64]:
    """Where curves first reach a target, by linear interpolation in x.

    Parameters
    ----------
    x : array, shape (k,)
        Increasing.
    y : array, shape (..., k)
        Made non-decreasing first.

    Returns
    -------
    array, shape (...)
        -inf where the first point is above the target already, +inf where the last is below it.
    """
    y = non_decreasing(y)
    above = y >= target
    last = np.argmax(above, axis=-1)
    before = np.maximum(last - 1, 0)
    y0, y1 = (np.take_along_axis(y, i[..., None], axis=-1)[..., 0] for i in (before, last))
    share = (target - y0) / np.where(y1 > y0, y1 - y0, 1.0)
    found = x[before] + share * (x[last] - x[before])
    found = np.where(above[..., 0], -np.inf, found)
    return np.where(above.any(axis=-1), found, np.inf)


@dataclass(frozen=True, kw_only=True)
class Smallest:
    """The least size of a change, or number of histories, at which a metric finds it.

    Parameters
    ----------
    value, low, high : float
        -inf: below all that was studied, +inf: above all that was studied.
    studied : tuple of (float, float)
        Least and largest that was studied.
    unit : str
    """

    value: float
    low: float
    high: float
    studied: tuple[float, float]
    unit: str

    @property
    def text(self) -> str:
        """The value in words, "at most" and "not within" where the study has no number."""
        unit = f" {self.unit}" if self.unit else ""
        if self.value == -np.inf:
            return f"≤ {self.studied[0]:.3g}{unit}"
        if self.value == np.inf:
            return f"> {self.studied[1]:.3g}{unit}"
        low = f"≤ {self.studied[0]:.3g}" if self.low == -np.inf else f"{self.low:.2g}"
        high = f"> {self.studied[1]:.3g}" if self.high == np.inf else f"{self.high:.2g}"
        return f"{self.value:.2g}{unit} ({low} to {high})"


def smallest_detectable(
    table: StudyTable, cells: Sequence[Cell], *, by: str = "power", seed: int = 0
) -> Smallest | None:
    """The least change of one kind that one metric finds in 80 % of the pairs (or with AUC 0.95).

    Parameters
    ----------
    table : StudyTable
    cells : sequence of Cell
        Cells of one case, change, metric, noise level and place of the noise, for several magnitudes.
    by : {"power", "auc"}
    seed : int
        Of the bootstrap over replicates.

    Returns
    -------
    Smallest or None
        None where there are no values.
    """
    cells = sorted((c for c in cells if c.values.size > 1), key=lambda c: c.magnitude)
    null = table.null_of(cells[0]) if cells else None
    if null is None or null.values.size < 2:
        return None
    rng = np.random.default_rng(seed)
    curve = [_curve([null] * len(cells), cells, by, resample) for resample in (None, rng)]
    return _smallest(np.array([c.magnitude for c in cells]), *curve, by=by, unit=cells[0].magnitude_unit)


def histories_needed(
    table: StudyTable, cells: Sequence[Cell], *, by: str = "power", seed: int = 0
) -> Smallest | None:
    """The least histories of a map with which one metric finds one change; arguments as above.

    The cells are those of one change and magnitude at several noise levels; interpolation is in the
    logarithm of the histories.
    """
    pairs = [(c, table.null_of(c)) for c in sorted(cells, key=lambda c: c.histories)]
    usable = [(c, n) for c, n in pairs if n is not None and min(c.values.size, n.values.size) > 1]
    if not usable or any(c.histories <= 0 for c, _ in usable):
        return None
    rng = np.random.default_rng(seed)
    changed, nulls = [c for c, _ in usable], [n for _, n in usable]
    curve = [_curve(nulls, changed, by, resample) for resample in (None, rng)]
    found = _smallest(np.log(np.array([c.histories for c in changed])), *curve, by=by, unit="histories")
    low, high = np.exp(found.studied)
    return Smallest(
        value=_exp(found.value),
        low=_exp(found.low),
        high=_exp(found.high),
        studied=(float(low), float(high)),
        unit="histories",
    )


def _exp(value: float) -> float:
    """Exponential that keeps -inf."""
    return value if np.isinf(value) else float(np.exp(value))


def _curve(
    nulls: Sequence[Cell], cells: Sequence[Cell], by: str, rng: np.random.Generator | None
) -> NDArray[np.float64]:
    """Power or AUC at every cell, shape (draws, cells); resampled replicates where a generator is given."""
    columns = []
    draws = 1 if rng is None else BOOTSTRAPS
    shared: dict[int, NDArray[np.float64]] = {}
    for null, cell in zip(nulls, cells, strict=True):
        if id(null) not in shared:
            shared[id(null)] = _drawn(null.values, draws, rng)
        noise, signal = scores(cell.metric, shared[id(null)], _drawn(cell.values, draws, rng))
        if by == "auc":
            wins = (signal[:, None, :] > noise[:, :, None]) + 0.5 * (signal[:, None, :] == noise[:, :, None])
            columns.append(wins.mean(axis=(1, 2)))
        else:
            columns.append((signal > threshold(noise)[:, None]).mean(axis=1))
    return np.stack(columns, axis=-1)


def resampled(n: int, draws: int, rng: np.random.Generator | None) -> NDArray[np.intp]:
    """Indices of n replicates, shape (draws, n), with replacement; all in order without a generator."""
    return np.arange(n)[None] if rng is None else rng.integers(n, size=(draws, n))


def _drawn(values: NDArray[np.float64], draws: int, rng: np.random.Generator | None) -> NDArray[np.float64]:
    """The values themselves, or samples of them with replacement."""
    return values[resampled(values.size, draws, rng)]


def _smallest(
    x: NDArray[np.float64], curve: NDArray[np.float64], resampled: NDArray[np.float64], *, by: str, unit: str
) -> Smallest:
    """Crossing of the curve and of its resamples."""
    target = AUC_WANTED if by == "auc" else POWER_WANTED
    value = float(crossing(x, curve, target)[0])
    drawn = np.sort(crossing(x, resampled, target))
    low, high = drawn[int(0.025 * (drawn.size - 1))], drawn[int(np.ceil(0.975 * (drawn.size - 1)))]
    return Smallest(
        value=value, low=float(low), high=float(high), studied=(float(x[0]), float(x[-1])), unit=unit
    )
