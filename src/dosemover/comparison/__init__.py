"""Compare two dose maps: every metric joined into one result."""

from dosemover.comparison.compare import compare
from dosemover.comparison.result import ComparisonResult, FieldMap, MetricResult

__all__ = ["ComparisonResult", "FieldMap", "MetricResult", "compare"]
