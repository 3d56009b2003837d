"""Gamma in a comparison: every criterion and normalisation in one pass."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from dosemover import metrics
from dosemover.comparison.context import ComparisonContext
from dosemover.comparison.registry import Family
from dosemover.comparison.result import FieldMap, MetricResult
from dosemover.comparison.settings import CompareSettings
from dosemover.noise.significance import Direction

_ENDINGS = {"passing_rate_percent": "%", "mean": "", "two_sided_passing_rate_percent": "%"}


def criterion_key(dose: float, distance: float, normalization: str) -> str:
    """Name of a criterion in metric keys: 3_3_global, 1p5_1_local."""
    numbers = (f"{value:g}".replace(".", "p") for value in (dose, distance))
    return "_".join((*numbers, normalization))


def _criteria(settings: CompareSettings) -> dict[str, tuple[float, float, str]]:
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
        "criteria": settings.gamma,
        "normalizations": settings.normalizations,
        "normalization_dose_gy": settings.prescription_gy,
        "dose_threshold_percent": settings.dose_threshold_percent,
        "interpolant": settings.gamma_interpolant,
    }


def _gamma(context: ComparisonContext, wanted: frozenset[str]) -> Iterator[MetricResult]:
    """Passing rates and means, with the maps of each criterion."""
    results = metrics.gamma_indices(**_common(context))
    for name, criterion in _criteria(context.settings).items():
        found = results[criterion]
        context.maps[f"gamma_{name}"] = FieldMap(
            values=np.asarray(found.gamma, dtype=np.float32),
            grid=context.reference.grid,
            unit="",
            label=f"gamma {criterion[0]:g} %/{criterion[1]:g} mm {criterion[2]}",
        )
        shared = dict(found.settings)
        yield MetricResult(
            key=f"gamma_{name}_passing_rate_percent",
            value=found.passing_rate_percent,
            unit="%",
            settings=shared,
            status=found.status,
        )
        yield MetricResult(key=f"gamma_{name}_mean", value=found.mean, settings=shared, status=found.status)
    if any("two_sided" in key for key in wanted):
        yield from _two_sided(context)


def _two_sided(context: ComparisonContext) -> Iterator[MetricResult]:
    """Passing rates with each map searched for the other."""
    for criterion, found in metrics.gamma_indices_two_sided(**_common(context)).items():
        yield MetricResult(
            key=f"gamma_{criterion_key(*criterion)}_two_sided_passing_rate_percent",
            value=found.passing_rate_percent,
            unit="%",
            settings=dict(found.settings),
            status=found.status,
        )


class _GammaFamily(Family):
    """Gamma: the sets "default" and "fast" hold the one-sided keys of every criterion."""

    def keys_in(self, tier: str, settings: CompareSettings) -> frozenset[str]:
        every = frozenset(self.keys(settings))
        return every if tier == "all" else frozenset(key for key in every if "two_sided" not in key)

    def direction(self, key: str) -> Direction:
        return "smaller" if key.endswith("percent") else "larger"


GAMMA = _GammaFamily(name="gamma", keys=_keys, compute=_gamma)
