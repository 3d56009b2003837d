"""Moment-based distances in a comparison."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from dosemover import moments
from dosemover.comparison.context import ComparisonContext
from dosemover.comparison.registry import Family, fixed_keys
from dosemover.comparison.result import MetricResult
from dosemover.dose import DoseMap
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
        floor=floor,
        floor_sd=deviation,
        z=(found.value - floor) / deviation if deviation else None,
        p=levels["p"],
        settings=dict(found.settings) | _how(found),
        status=found.status,
    )


def _how(found: TransportResult) -> dict[str, Any]:
    """How floor and p value were found."""
    if found.settings["p"] is None:
        return {}
    floor = "closed form in moments"
    if found.settings["p_by_relabelling"]:
        how = f"exact p by relabelling the moments of the batches, floor by {floor}"
        return {"significance": how, "null_draws": 999}
    return {"significance": f"approximate: {floor}"}


def _noisy(context: ComparisonContext) -> dict[str, Any]:
    """The two maps, uncertainties without batches widened by the correlation of the noise.

    Moments are sums over many voxels: their variance is that of independent voxels times the sum of
    the correlation over all lags.
    """
    maps = {"reference": context.reference, "evaluated": context.evaluated}
    noise = None if context.values_only else context.noise
    if noise is None or noise.estimated or not noise.needs_correlation:
        return maps
    factor = float(np.sqrt(noise.model.correlation.inflation))
    return {name: _widened(dose, factor) for name, dose in maps.items()}


def _widened(dose: DoseMap, factor: float) -> DoseMap:
    """A map with its uncertainty multiplied by a factor, where it has no batches."""
    if dose.uncertainty_gy is None or dose.batches_gy is not None:
        return dose
    return replace(dose, uncertainty_gy=dose.uncertainty_gy * factor)


def _moment_w2(context: ComparisonContext, wanted: frozenset[str]) -> Iterator[MetricResult]:
    """W_2 from moments, inside the tightest cheap interval."""
    estimate = _galerkin("moment_w2_mm", moments.moment_w2(**_noisy(context)))
    if context.values_only:
        yield estimate
        return
    thorough = not {"all", "moment_w2", "moment_w2_mm"}.isdisjoint(context.settings.metrics)
    found = moments.w2_bounds(
        reference=context.reference, evaluated=context.evaluated, smooth_dual=thorough, flux=thorough
    )
    yield _inside(estimate, found, upper=thorough)


def _inside(estimate: MetricResult, found: moments.W2Bounds, *, upper: bool) -> MetricResult:
    """The estimate with its interval; a value outside stays and the status says so."""
    assert estimate.value is not None
    high = found.upper_mm if upper else None
    notes = [] if estimate.status == "ok" else [estimate.status]
    if estimate.value < found.lower_mm:
        notes.append(f"the estimate lies below the certified bound {found.lower_mm:.4g} mm")
    if high is not None and estimate.value > high:
        notes.append(f"the estimate lies above the certified bound {high:.4g} mm")
    active = {"active_lower": found.active_lower, "active_upper": found.active_upper if upper else None}
    return replace(
        estimate,
        lower=found.lower_mm,
        upper=high,
        settings=dict(estimate.settings) | active,
        status="; ".join(notes) or "ok",
    )


def _moment_dmd(context: ComparisonContext, wanted: frozenset[str]) -> Iterator[MetricResult]:
    """The Dose Mover's Distance from moments."""
    found = moments.moment_dmd(
        **_noisy(context),
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
        null="never",
    ),
)
