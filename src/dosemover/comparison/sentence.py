"""The plain sentence that a comparison comes down to."""

from __future__ import annotations

import math

from dosemover.comparison.histories import SHARE
from dosemover.comparison.noise_at_hand import ESTIMATED
from dosemover.comparison.result import ComparisonResult, MetricResult
from dosemover.noise import histories_factor


def verdict(result: ComparisonResult) -> str | None:
    """How far the dose moved and by how much it changed, in words; None without those numbers.

    "The dose moved by 0.8 mm and changed by 0.3 % (noise alone: 0.05 mm)."
    """
    moved = _value(result, "dmd_moved_mm")
    changed = _value(result, "dmd_changed_percent")
    if moved is None or changed is None:
        return None
    noise = _noise_alone(result.metrics.get("dmd_mm"))
    return f"The dose moved by {short(moved)} mm and changed by {short(changed)} %{noise}."


def _noise_alone(metric: MetricResult | None) -> str:
    """The floor of a distance in brackets, "about" where the level of the noise is estimated."""
    if metric is None or metric.floor is None:
        return ""
    about = "about " if ESTIMATED in str(metric.settings.get("significance")) else ""
    return f" (noise alone: {about}{short(metric.floor)} mm)"


_USEFUL_MM = 0.1
"""A floor of the Dose Mover's Distance below this is never worth more histories."""


def histories(result: ComparisonResult) -> str | None:
    """How many histories would bring the noise below what matters; None where it is below, or unknown.

    What matters is 0.1 mm, or a tenth of the reading where that is more. "About 4 times as many histories
    on both sides would bring the noise floor below 0.1 mm."
    """
    metric = result.metrics.get("dmd_mm")
    if metric is None or metric.value is None or not metric.floor:
        return None
    goal = max(_USEFUL_MM, SHARE * metric.value)
    if metric.floor <= goal:
        return None
    factor = histories_factor(floor=metric.floor, goal=goal)
    share = ", a tenth of the reading" if goal > _USEFUL_MM else ""
    return (
        f"About {short(factor)} times as many histories on both sides would bring the noise floor "
        f"from {short(metric.floor)} mm to {short(goal)} mm{share}."
    )


def short(value: float) -> str:
    """Two digits in plain notation; 0 for what is rounding.

    Examples
    --------
    >>> short(153.6), short(0.0834), short(4e-13)
    ('150', '0.083', '0')
    """
    return "0" if abs(value) < 1e-6 else f"{float(f'{value:.2g}'):g}"


def _value(result: ComparisonResult, key: str) -> float | None:
    """Value of a metric that may not be there."""
    metric = result.metrics.get(key)
    return None if metric is None else metric.value


def with_spread(mean: float, deviation: float | None, *, digits: int = 2) -> str:
    """A mean with its standard deviation, both to the decimals that the deviation's digits reach.

    Parameters
    ----------
    mean : float
    deviation : float, optional
        Left out where it is None.
    digits : int
        Significant digits of the deviation; the mean alone gets one more.

    Examples
    --------
    >>> with_spread(1.0000012, 0.00055), with_spread(99.2, 0.0739, digits=1), with_spread(148.2, 27.4)
    ('1.00000 ± 0.00055', '99.20 ± 0.07', '148 ± 27')
    >>> with_spread(3.1e-13, 4.2e-14), with_spread(0.25, None), with_spread(2.0, 0.0)
    ('3.10e-13 ± 4.2e-14', '0.25', '2 ± 0')
    """
    alone = f"{mean:.{digits + 1}g}"
    if deviation is None or not math.isfinite(deviation):
        return alone
    if deviation <= 0:
        return f"{alone} ± 0"
    decimals = digits - 1 - math.floor(math.log10(deviation))
    if decimals > 8 or max(abs(mean), deviation) >= 1e6:
        return f"{mean:.{digits}e} ± {deviation:.{digits - 1}e}"
    places = max(decimals, 0)
    return f"{round(mean, places) + 0.0:.{places}f} ± {deviation:.{places}f}"
