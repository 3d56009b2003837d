"""Families about agreement in space: distances, isodoses, shifts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dosemover import metrics
from dosemover.comparison.context import ComparisonContext
from dosemover.comparison.registry import Family, fixed_keys
from dosemover.comparison.result import MetricResult
from dosemover.dose import DoseMap

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
        dose_threshold_percent=context.threshold_of_maximum_percent,
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
        status=context.nothing_to_evaluate or found.status,
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
        status=context.nothing_to_evaluate or chi.status,
    )
    ndd = metrics.normalized_dose_difference(
        reference=context.reference, evaluated=context.evaluated_here, **shared
    )
    yield MetricResult(
        key="ndd_mean",
        value=ndd.mean,
        settings=shared,
        status=context.nothing_to_evaluate or ndd.status,
    )


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


def _covered_by_both(context: ComparisonContext) -> tuple[DoseMap, DoseMap]:
    """Both maps at the reference's voxels between the outer voxel centres of the evaluated map.

    Beyond them the evaluated map counts as 0, an edge that no shift of the dose has made.
    """
    reference, other = context.reference, context.evaluated.grid
    if reference.grid.coincides_with(other):
        return reference, context.evaluated_here
    cut = []
    for centers, theirs, box in zip(reference.grid.centers_mm, other.centers_mm, other.box_mm, strict=True):
        low, high = (theirs[0], theirs[-1]) if theirs.size > 1 else box
        hits = np.flatnonzero((centers >= low) & (centers <= high))
        if not hits.size:
            return reference, context.evaluated_here
        cut.append(slice(int(hits[0]), int(hits[-1]) + 1))
    slices = (cut[0], cut[1], cut[2])
    if reference.grid.crop(slices).shape == reference.grid.shape:
        return reference, context.evaluated_here
    return _cropped(reference, slices), _cropped(context.evaluated_here, slices)


def _cropped(dose: DoseMap, slices: tuple[slice, slice, slice]) -> DoseMap:
    """The dose, its uncertainty and its batches in some layers."""

    def cut(values: NDArray[Any] | None) -> NDArray[Any] | None:
        return None if values is None else values[(..., *slices)]

    return replace(
        dose,
        grid=dose.grid.crop(slices),
        dose_gy=dose.dose_gy[slices],
        uncertainty_gy=cut(dose.uncertainty_gy),
        batches_gy=cut(dose.batches_gy),
        density_g_per_cm3=None,
        structures=(),
    )


def _best_shift(context: ComparisonContext, wanted: frozenset[str]) -> Iterator[MetricResult]:
    """Translation that brings the maps closest, with the difference that is left."""
    reference, evaluated = _covered_by_both(context)
    found = metrics.best_shift(reference=reference, evaluated=evaluated)
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
        null="coarse",
    ),
)
