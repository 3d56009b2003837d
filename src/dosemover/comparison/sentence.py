"""The plain sentence that a comparison comes down to."""

from __future__ import annotations

from dosemover.comparison.histories import SHARE
from dosemover.comparison.result import ComparisonResult
from dosemover.noise import histories_factor


def verdict(result: ComparisonResult) -> str | None:
    """How far the dose moved and by how much it changed, in words; None without those numbers.

    "The dose moved by 0.8 mm and changed by 0.3 % (noise alone: 0.05 mm)."
    """
    moved = _value(result, "dmd_moved_mm")
    changed = _value(result, "dmd_changed_percent")
    if moved is None or changed is None:
        return None
    floor = result.metrics["dmd_mm"].floor if "dmd_mm" in result.metrics else None
    noise = f" (noise alone: {_short(floor)} mm)" if floor is not None else ""
    return f"The dose moved by {_short(moved)} mm and changed by {_short(changed)} %{noise}."


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
        f"About {_short(factor)} times as many histories on both sides would bring the noise floor "
        f"from {_short(metric.floor)} mm to {_short(goal)} mm{share}."
    )


def _short(value: float) -> str:
    """Two digits in plain notation; 0 for what is rounding.

    Examples
    --------
    >>> _short(153.6), _short(0.0834), _short(4e-13)
    ('150', '0.083', '0')
    """
    return "0" if abs(value) < 1e-6 else f"{float(f'{value:.2g}'):g}"


def _value(result: ComparisonResult, key: str) -> float | None:
    """Value of a metric that may not be there."""
    metric = result.metrics.get(key)
    return None if metric is None else metric.value
