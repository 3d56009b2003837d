"""Moment-based distances in a comparison."""

from __future__ import annotations

from collections.abc import Iterator

from dosemover import moments
from dosemover.comparison.context import ComparisonContext
from dosemover.comparison.registry import Family, fixed_keys
from dosemover.comparison.result import MetricResult


def _gaussian(context: ComparisonContext, wanted: frozenset[str]) -> Iterator[MetricResult]:
    """Shift of the mean and the Gaussian bound."""
    found = moments.bures_w2(reference=context.reference, evaluated=context.evaluated)
    yield MetricResult(
        key="mean_shift_mm",
        value=found.parts["mean_shift_mm"],
        unit="mm",
        settings={"vector_mm": found.settings["shift_mm"]},
    )
    yield MetricResult(
        key="bures_w2_mm",
        value=found.value,
        unit="mm",
        settings={"covariance_part_mm": found.parts["covariance_part_mm"]},
    )


MOMENTS = (
    Family(
        name="gaussian",
        keys=fixed_keys(mean_shift_mm="mm", bures_w2_mm="mm"),
        compute=_gaussian,
        default="all",
        fast="all",
    ),
)
