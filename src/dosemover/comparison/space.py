"""Families about agreement in space: distances, isodoses, shifts."""

from __future__ import annotations

from collections.abc import Iterator

from dosemover import metrics
from dosemover.comparison.context import ComparisonContext
from dosemover.comparison.registry import Family, fixed_keys
from dosemover.comparison.result import MetricResult

LEVELS_PERCENT = (10, 20, 50, 80, 95)
"""Isodose levels in % of the reference maximum, or of the prescription."""

_ISODOSE_UNITS = {
    key: unit
    for level in LEVELS_PERCENT
    for key, unit in (
        (f"isodose_dice_{level}", ""),
        (f"isodose_jaccard_{level}", ""),
        (f"isodose_hd95_{level}_mm", "mm"),
        (f"isodose_surface_{level}_mm", "mm"),
    )
}


def _dta(context: ComparisonContext, wanted: frozenset[str]) -> Iterator[MetricResult]:
    """Mean distance to agreement."""
    found = metrics.distance_to_agreement(
        reference=context.reference,
        evaluated=context.evaluated_here,
        dose_threshold_percent=context.settings.dose_threshold_percent,
    )
    yield MetricResult(
        key="dta_mean_mm",
        value=found.mean_mm,
        unit="mm",
        settings={
            "dose_threshold_percent": context.settings.dose_threshold_percent,
            "n_voxels": found.n_voxels,
            "n_not_found": found.n_not_found,
        },
        status=found.status,
    )


def _chi(context: ComparisonContext, wanted: frozenset[str]) -> Iterator[MetricResult]:
    """Chi (Bakai) and normalised dose difference (Jiang), at the first gamma criterion."""
    dose, distance = context.settings.gamma[0]
    shared = {
        "dose_criterion_percent": dose,
        "distance_criterion_mm": distance,
        "dose_threshold_percent": context.settings.dose_threshold_percent,
        "normalization_gy": context.normalization_dose_gy,
    }
    chi = metrics.chi_index(reference=context.reference, evaluated=context.evaluated_here, **shared)
    yield MetricResult(
        key="chi_passing_rate_percent",
        value=chi.passing_rate_percent,
        unit="%",
        settings=shared,
        status=chi.status,
    )
    ndd = metrics.normalized_dose_difference(
        reference=context.reference, evaluated=context.evaluated_here, **shared
    )
    yield MetricResult(key="ndd_mean", value=ndd.mean, settings=shared, status=ndd.status)


def _isodose(context: ComparisonContext, wanted: frozenset[str]) -> Iterator[MetricResult]:
    """Overlap and surface distances of isodose volumes, at the wanted levels."""
    levels = tuple(level for level in LEVELS_PERCENT if any(f"_{level}" in key for key in wanted))
    found = metrics.isodose_agreement(
        reference=context.reference,
        evaluated=context.evaluated_here,
        levels_percent=levels,
        normalization_gy=context.normalization_dose_gy,
        surfaces=any(key.endswith("_mm") for key in wanted),
    )
    for level, one in zip(levels, found.values(), strict=True):
        for key, value in (
            (f"isodose_dice_{level}", one.dice),
            (f"isodose_jaccard_{level}", one.jaccard),
            (f"isodose_hd95_{level}_mm", one.hd95_mm),
            (f"isodose_surface_{level}_mm", one.mean_surface_mm),
        ):
            yield MetricResult(
                key=key,
                value=value,
                unit=_ISODOSE_UNITS[key],
                settings={"level_gy": one.level_gy},
                status="ok" if value is not None else one.status,
            )


def _center(context: ComparisonContext, wanted: frozenset[str]) -> Iterator[MetricResult]:
    """Shift of the centre of dose, each map on its own grid."""
    found = metrics.center_shift(reference=context.reference, evaluated=context.evaluated)
    yield MetricResult(
        key="center_shift_mm",
        value=found.length_mm,
        unit="mm",
        settings={"vector_mm": list(found.vector_mm)},
    )


def _best_shift(context: ComparisonContext, wanted: frozenset[str]) -> Iterator[MetricResult]:
    """Translation that brings the maps closest, with the difference that is left."""
    found = metrics.best_shift(reference=context.reference, evaluated=context.evaluated_here)
    yield MetricResult(
        key="best_shift_mm",
        value=found.length_mm,
        unit="mm",
        settings={
            "vector_mm": list(found.vector_mm),
            "rmse_gy": found.rmse_gy,
            "rmse_before_gy": found.rmse_before_gy,
        },
        status=found.status,
    )


SPACE = (
    Family(name="dta", keys=fixed_keys(dta_mean_mm="mm"), compute=_dta, null="on request"),
    Family(
        name="chi",
        keys=fixed_keys(chi_passing_rate_percent="%", ndd_mean=""),
        compute=_chi,
        smaller=frozenset({"chi_passing_rate_percent"}),
    ),
    Family(
        name="isodose",
        keys=fixed_keys(**_ISODOSE_UNITS),
        compute=_isodose,
        default=frozenset({"isodose_dice_50"}),
        smaller=frozenset(key for key in _ISODOSE_UNITS if "dice" in key or "jaccard" in key),
    ),
    Family(
        name="center_shift",
        keys=fixed_keys(center_shift_mm="mm"),
        compute=_center,
        default="all",
        fast="all",
    ),
    Family(
        name="best_shift",
        keys=fixed_keys(best_shift_mm="mm"),
        compute=_best_shift,
        default="all",
        null="on request",
    ),
)
