"""The plain sentence that a comparison comes down to."""

from __future__ import annotations

from dosemover.comparison.result import ComparisonResult


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
