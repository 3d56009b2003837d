"""Compare two dose maps: every metric joined into one result, and metrics of one's own."""

from dosemover.comparison.compare import compare
from dosemover.comparison.register import register, unregister
from dosemover.comparison.registry import Words
from dosemover.comparison.result import ComparisonResult, FieldMap, MetricResult

__all__ = ["ComparisonResult", "FieldMap", "MetricResult", "Words", "compare", "register", "unregister"]
