"""How a metric answers to changes, to noise and to more histories, and what it costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dosemover.study.analysis_table import Cell, StudyTable, excess
from dosemover.study.table import NO_CHANGE


@dataclass(frozen=True, kw_only=True)
class Response:
    """One point of a response curve.

    Parameters
    ----------
    magnitude : float
        0 for noise alone.
    mean, sd, standard_error : float
        Over the replicates.
    bias : float
        Mean less the mean at the least noise of the study.
    """

    magnitude: float
    mean: float
    sd: float
    standard_error: float
    bias: float


def response_curve(
    table: StudyTable, *, case: str, change: str, metric: str, noise_percent: float, noise_in: str = "both"
) -> list[Response]:
    """What a metric reads over the size of a change, from noise alone upwards."""
    where = {"case": case, "metric": metric, "noise_percent": noise_percent, "noise_in": noise_in}
    cells = table.select(change=NO_CHANGE, **where) + table.select(change=change, **where)
    kept = sorted((c for c in cells if c.values.size), key=lambda c: c.magnitude)
    return [
        Response(
            magnitude=c.magnitude,
            mean=c.mean,
            sd=c.sd,
            standard_error=c.standard_error,
            bias=noise_bias(table, c),
        )
        for c in kept
    ]


def noise_bias(table: StudyTable, cell: Cell) -> float:
    """Mean of a cell less that of the same change at the least noise of the study."""
    calm = table.noiseless(cell)
    return cell.mean - calm.mean if calm is not None else float("nan")


@dataclass(frozen=True, kw_only=True)
class PowerLaw:
    """A fit of floor = amplitude x histories^slope.

    Parameters
    ----------
    slope, low, high : float
        Slope and its 95 % confidence interval.
    log_amplitude : float
        Natural logarithm of the amplitude.
    points : tuple of (float, float, float)
        Histories, floor and its standard error.
    """

    slope: float
    low: float
    high: float
    log_amplitude: float
    points: tuple[tuple[float, float, float], ...]

    def at(self, histories: float) -> float:
        """Floor at a number of histories."""
        return float(np.exp(self.log_amplitude + self.slope * np.log(histories)))


def floor_law(cells: Sequence[Cell]) -> PowerLaw | None:
    """How the noise floor of one metric falls with the histories.

    Parameters
    ----------
    cells : sequence of Cell
        Null cells of one case and metric. The floor is the mean distance from the metric's ideal.

    Returns
    -------
    PowerLaw or None
        None with fewer than three levels of noise that have a positive floor.

    Notes
    -----
    *Definition*: straight line through (log N, log floor), weighted by the errors of the means; the interval
    of the slope by Student's t with k - 2 degrees of freedom, the scatter about the line as it is found or as
    the errors of the means say, whichever is larger.
    """
    points = []
    for cell in cells:
        if cell.values.size < 2 or cell.histories <= 0:
            continue
        values = excess(cell.metric, cell.values)
        mean, error = float(values.mean()), float(values.std(ddof=1) / np.sqrt(values.size))
        if mean > 0 and error > 0:
            points.append((cell.histories, mean, error))
    if len(points) < 3 or len({p[0] for p in points}) < 3:
        return None
    points.sort()
    n, mean, error = np.array(points).T
    x, y, w = np.log(n), np.log(mean), (mean / error) ** 2
    w = np.minimum(w, 1e4)  # no mean is trusted beyond 1 %: the law is no exact one
    center = (w * x).sum() / w.sum()
    spread = float((w * (x - center) ** 2).sum())
    slope = float((w * (x - center) * y).sum() / spread)
    level = float((w * y).sum() / w.sum()) - slope * center
    chi2 = float((w * (y - level - slope * x) ** 2).sum()) / (len(points) - 2)
    from scipy.stats import t

    half = float(t.ppf(0.975, len(points) - 2)) * np.sqrt(max(chi2, 1.0) / spread)
    return PowerLaw(
        slope=slope, low=slope - half, high=slope + half, log_amplitude=level, points=tuple(points)
    )


def median_seconds(costs: Any) -> dict[str, float]:
    """Median seconds of each metric, over the cases of a table of costs."""
    names = getattr(costs, "column_names", None) or list(costs)
    seconds = next(name for name in ("seconds_median", "median_seconds") if name in names)
    metric, value = (
        column.to_pylist() if hasattr(column, "to_pylist") else list(column)
        for column in (costs["metric"], costs[seconds])
    )
    found: dict[str, list[float]] = {}
    for name, spent in zip(metric, value, strict=True):
        if spent is not None and np.isfinite(spent):
            found.setdefault(str(name), []).append(float(spent))
    return {name: float(np.median(values)) for name, values in found.items()}
