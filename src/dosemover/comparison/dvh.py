"""Dose-volume histograms of the structures, and the scores of public challenges."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np

from dosemover import metrics
from dosemover.comparison.context import ComparisonContext, missing
from dosemover.comparison.registry import Family, fixed_keys
from dosemover.comparison.result import MetricResult
from dosemover.dose import Structure
from dosemover.errors import AccuracyWarning, InputError

POSSIBLE_DOSE = "possible_dose_mask"
"""Name of the OpenKBP structure that holds the voxels where dose is possible."""

_NO_STRUCTURES = "needs structures: --structures RTSTRUCT"
_CURVE_POINTS = 400


def _dvh(context: ComparisonContext, wanted: frozenset[str]) -> Iterator[MetricResult]:
    """DVH values and curves of every structure; the metric is the largest distance of a pair of DVHs."""
    structures = [s for s in context.structures if s.name != POSSIBLE_DOSE]
    if not structures:
        yield missing("dvh_w1_gy", "Gy", _NO_STRUCTURES)
        return
    distances = {}
    for structure in structures:
        try:
            distances[structure.name] = _one_structure(context, structure)
        except InputError as error:  # outside a dose grid: the others still have their DVH
            warnings.warn(f"structure {structure.name!r}: {error}", AccuracyWarning, stacklevel=2)
    if not distances:
        yield missing("dvh_w1_gy", "Gy", "no structure has volume inside the dose grid")
        return
    worst = max(distances, key=lambda name: distances[name])
    yield MetricResult(
        key="dvh_w1_gy",
        value=distances[worst],
        unit="Gy",
        settings={"largest_in": worst, "by_structure": distances},
    )


def _one_structure(context: ComparisonContext, structure: Structure) -> float:
    """Values and curves of one structure into the context; returns the distance of its DVHs."""
    pair = {
        side: metrics.dose_volume_histogram(dose=dose, structure=structure)
        for side, dose in (("reference", context.reference), ("evaluated", context.evaluated))
    }
    distance = metrics.dvh_w1_gy(reference=pair["reference"], evaluated=pair["evaluated"])
    values = {side: one.summary() for side, one in pair.items()}
    table: dict[str, dict[str, float | None]] = {
        key: {side: _finite(values[side][key]) for side in values} for key in values["reference"]
    }
    table["dvh_w1_gy"] = {"reference": None, "evaluated": distance}
    table |= _conformity(context, structure)
    context.dvh_values[structure.name] = table
    top = 1.02 * max(one.max_gy for one in pair.values())
    doses = np.linspace(0.0, top, _CURVE_POINTS)
    context.dvh_curves[structure.name] = {
        "dose_gy": doses,
        **{side: one.cumulative_percent(doses) for side, one in pair.items()},
    }
    return distance


def _finite(value: float) -> float | None:
    """None for what a structure is too small to have (D2cc of 1 cc)."""
    return float(value) if np.isfinite(value) else None


def _conformity(context: ComparisonContext, structure: Structure) -> dict[str, dict[str, float | None]]:
    """Conformity of both maps to a target, where the prescription is known and it looks like a target."""
    prescription = context.settings.prescription_gy
    if prescription is None or not structure.name.upper().startswith(("PTV", "CTV", "GTV")):
        return {}
    both = {
        side: metrics.conformity(dose=dose, target=structure, prescription_gy=prescription).summary()
        for side, dose in (("reference", context.reference), ("evaluated", context.evaluated))
    }
    return {key: {side: both[side][key] for side in both} for key in both["reference"]}


def _openkbp(context: ComparisonContext, wanted: frozenset[str]) -> Iterator[MetricResult]:
    """Dose and DVH score of the OpenKBP challenge, for its own data."""
    masks = {s.name: s.mask for s in context.structures}
    possible = masks.pop(POSSIBLE_DOSE, None)
    if possible is None:
        reason = f"needs OpenKBP data: a structure named {POSSIBLE_DOSE}"
        yield missing("openkbp_dose_score", "Gy", reason)
        yield missing("openkbp_dvh_score", "Gy", reason)
        return
    found = metrics.openkbp_score(
        reference=context.reference,
        evaluated=context.evaluated_here,
        possible_dose_mask=possible,
        structures=masks,
    )
    yield MetricResult(key="openkbp_dose_score", value=found.dose_score, unit="Gy")
    yield MetricResult(key="openkbp_dvh_score", value=found.dvh_score, unit="Gy")


def _synthrad(context: ComparisonContext, wanted: frozenset[str]) -> Iterator[MetricResult]:
    """Dose score of the SynthRAD challenge."""
    prescription = context.settings.prescription_gy
    if prescription is None:
        yield missing("synthrad_dose_score", "", "needs the prescription: --prescription GY")
        return
    value = metrics.synthrad_dose_score(
        reference=context.reference, evaluated=context.evaluated_here, prescription_gy=prescription
    )
    if value is None:
        reason = f"no voxel of the reference reaches 90 % of the prescription, {prescription:g} Gy"
        yield missing("synthrad_dose_score", "", reason, prescription_gy=prescription)
        return
    yield MetricResult(key="synthrad_dose_score", value=value, settings={"prescription_gy": prescription})


STRUCTURES = (
    Family(name="dvh", keys=fixed_keys(dvh_w1_gy="Gy"), compute=_dvh, default="all"),
    Family(
        name="openkbp",
        keys=fixed_keys(openkbp_dose_score="Gy", openkbp_dvh_score="Gy"),
        compute=_openkbp,
    ),
    Family(name="synthrad", keys=fixed_keys(synthrad_dose_score=""), compute=_synthrad),
)
