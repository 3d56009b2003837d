"""Gamma in a comparison: every criterion and normalisation in one pass."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from dosemover import metrics
from dosemover.comparison.context import ComparisonContext, missing
from dosemover.comparison.registry import Family
from dosemover.comparison.result import FieldMap, MetricResult
from dosemover.comparison.settings import CompareSettings
from dosemover.noise.significance import Direction

_ENDINGS = {"passing_rate_percent": "%", "mean": "", "two_sided_passing_rate_percent": "%"}


def criterion_key(dose: float, distance: float, normalization: str) -> str:
    """Name of a criterion in metric keys: 3_3_global, 1p5_1_local."""
    numbers = (f"{value:g}".replace(".", "p") for value in (dose, distance))
    return "_".join((*numbers, normalization))


def _criteria(settings: CompareSettings) -> dict[str, tuple[float, float, Literal["global", "local"]]]:
    """Every criterion that the settings ask for, by its name."""
    return {
        criterion_key(dose, distance, normalization): (dose, distance, normalization)
        for normalization in settings.normalizations
        for dose, distance in settings.gamma
    }


def _keys(settings: CompareSettings) -> dict[str, str]:
    """Gamma keys and units under given settings."""
    return {
        f"gamma_{name}_{ending}": unit for name in _criteria(settings) for ending, unit in _ENDINGS.items()
    }


def _common(context: ComparisonContext) -> dict[str, Any]:
    """Arguments that one- and two-sided gamma share."""
    settings = context.settings
    return {
        "reference": context.reference,
        "evaluated": context.evaluated,
        "normalization_dose_gy": settings.prescription_gy,
        "dose_threshold_percent": settings.dose_threshold_percent,
        "interpolant": settings.gamma_interpolant,
        "progress": context.progress,
    }


def _metric(ending: str, value: float, found: Any) -> MetricResult:
    """One number of a gamma result, null where no voxel was evaluated."""
    return MetricResult(
        key=f"gamma_{found.key}_{ending}",
        value=value,
        unit=_ENDINGS[ending],
        settings={key: value for key, value in found.summary().items() if key != "key"},
    )


def _gamma(context: ComparisonContext, wanted: frozenset[str]) -> Iterator[MetricResult]:
    """Passing rates and means, with the maps of each criterion."""
    settings = context.settings
    if context.nothing_to_evaluate:
        units = _keys(settings)
        yield from (missing(key, units[key], context.nothing_to_evaluate) for key in sorted(wanted))
        return
    if any("two_sided" not in key for key in wanted):
        results = metrics.gamma_indices(
            **_common(context), criteria=settings.gamma, normalizations=settings.normalizations
        )
        for found in results.values():
            if not context.values_only:
                context.maps[f"gamma_{found.key}"] = _map(found)
            yield _metric("passing_rate_percent", found.passing_rate_percent, found)
            yield _metric("mean", found.mean, found)
    if any("two_sided" in key for key in wanted):
        yield from _two_sided(context, wanted)


def _map(found: metrics.GammaResult) -> FieldMap:
    """The gamma map of one criterion."""
    return FieldMap(
        values=found.gamma,
        grid=found.grid,
        unit="",
        label=f"gamma {found.dose_criterion_percent:g} %/{found.distance_criterion_mm:g} mm "
        f"{found.normalization}",
    )


def _two_sided(context: ComparisonContext, wanted: frozenset[str]) -> Iterator[MetricResult]:
    """Passing rates with each map searched for the other."""
    for name, (dose, distance, normalization) in _criteria(context.settings).items():
        if f"gamma_{name}_two_sided_passing_rate_percent" in wanted:
            found = metrics.gamma_two_sided(
                **_common(context),
                dose_criterion_percent=dose,
                distance_criterion_mm=distance,
                normalization=normalization,
            )
            yield _metric("two_sided_passing_rate_percent", found.passing_rate_percent, found)


class _GammaFamily(Family):
    """Gamma: the sets "default" and "fast" hold the one-sided keys of every criterion."""

    def keys_in(self, tier: str, settings: CompareSettings) -> frozenset[str]:
        every = frozenset(self.keys(settings))
        return every if tier == "all" else frozenset(key for key in every if "two_sided" not in key)

    def direction(self, key: str) -> Direction:
        return "smaller" if key.endswith("percent") else "larger"


GAMMA = _GammaFamily(name="gamma", keys=_keys, compute=_gamma)
