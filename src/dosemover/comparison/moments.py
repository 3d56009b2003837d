"""Moment-based distances in a comparison."""

from __future__ import annotations

from collections.abc import Iterator

from dosemover import moments
from dosemover.comparison.context import ComparisonContext
from dosemover.comparison.registry import Family, fixed_keys
from dosemover.comparison.result import MetricResult
from dosemover.transport.result import TransportResult


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


def _galerkin(key: str, found: TransportResult) -> MetricResult:
    """A Galerkin estimate with the closed-form floor of its own quadratic form."""
    levels = found.settings
    floor, deviation = levels["floor_mm"], levels["floor_sd_mm"]
    return MetricResult(
        key=key,
        value=found.value,
        unit="mm",
        lower=found.lower,
        upper=found.upper,
        floor=floor,
        floor_sd=deviation,
        z=(found.value - floor) / deviation if deviation else None,
        p=levels["p"],
        settings=dict(found.settings),
        status=found.status,
    )


def _moment_w2(context: ComparisonContext, wanted: frozenset[str]) -> Iterator[MetricResult]:
    """W_2 from moments."""
    found = moments.moment_w2(reference=context.reference, evaluated=context.evaluated)
    yield _galerkin("moment_w2_mm", found)


def _moment_dmd(context: ComparisonContext, wanted: frozenset[str]) -> Iterator[MetricResult]:
    """The Dose Mover's Distance from moments."""
    found = moments.moment_dmd(
        reference=context.reference,
        evaluated=context.evaluated,
        exchange_mm_per_percent=context.settings.exchange_mm_per_percent,
        ambient_dose_percent=context.settings.ambient_dose_percent,
    )
    yield _galerkin("moment_dmd_mm", found)


MOMENTS = (
    Family(
        name="gaussian",
        keys=fixed_keys(mean_shift_mm="mm", bures_w2_mm="mm"),
        compute=_gaussian,
        default="all",
        fast="all",
    ),
    Family(
        name="moment_w2",
        keys=fixed_keys(moment_w2_mm="mm"),
        compute=_moment_w2,
        default="all",
        null="never",
    ),
    Family(
        name="moment_dmd",
        keys=fixed_keys(moment_dmd_mm="mm"),
        compute=_moment_dmd,
        default="all",
        null="never",
    ),
)
