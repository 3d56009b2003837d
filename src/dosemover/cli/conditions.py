"""Limits on results: ``--fail-if 'gamma_3_3_global_passing_rate_percent<95'``."""

from __future__ import annotations

import argparse
import math
import operator
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dosemover.comparison.result import ComparisonResult, MetricResult


OPERATORS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
_FIELDS = ("value", "lower", "upper", "floor", "floor_sd", "z", "p")
_PATTERN = re.compile(r"^\s*([a-z0-9_]+)(?:\.([a-z_]+))?\s*(<=|>=|<|>)\s*(\S+)\s*$")


@dataclass(frozen=True, kw_only=True, eq=False)
class Condition:
    """One limit: KEY[.FIELD] OPERATOR NUMBER."""

    key: str
    field: str
    comparison: str
    limit: float
    text: str

    def verdict(self, result: ComparisonResult) -> str | None:
        """Why the run fails, or None where it does not."""
        metric = result.metrics.get(self.key)
        value = getattr(metric, self.field, None)
        if metric is None or value is None:
            status = "it was not computed" if metric is None else self._why_missing(metric)
            return f"{self.text}: {self.key}.{self.field} has no value ({status})"
        if OPERATORS[self.comparison](value, self.limit):
            return f"{self.text}: {self.key}.{self.field} is {value:.6g} {metric.unit}".rstrip()
        return None

    def _why_missing(self, metric: MetricResult) -> str:
        """Why a metric lacks the field that the limit asks for."""
        if metric.value is None or metric.status != "ok":
            return metric.status
        if self.field in ("lower", "upper"):
            return "no bound of it is certified"
        return metric.missing_floor or "how much of it noise alone makes is not known"


def condition(text: str) -> Condition:
    """Parse one limit."""
    match = _PATTERN.match(text)
    limit = finite_number(match.group(4)) if match else None
    if match is None or limit is None or (match.group(2) or "value") not in _FIELDS:
        raise argparse.ArgumentTypeError(
            f"must be KEY<NUMBER with <, <=, > or >=, and KEY optionally followed by one of "
            f".{', .'.join(_FIELDS)}; got {text!r}"
        )
    return Condition(
        key=match.group(1), field=match.group(2) or "value", comparison=match.group(3), limit=limit, text=text
    )


def finite_number(text: str) -> float | None:
    """A finite number, or None where the text is none."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
