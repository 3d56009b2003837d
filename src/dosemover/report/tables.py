"""The tables of the report as plain data: verdict, maps, DVH, settings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from dosemover.comparison.result import ComparisonResult, MetricResult
from dosemover.comparison.sentence import with_spread
from dosemover.dose import DoseMap
from dosemover.report.formatting import (
    base_name,
    grouped,
    is_number,
    number,
    p_value,
    pretty_unit,
    public_text,
    quantity,
    raised,
    unbroken,
)
from dosemover.report.sentences import GAMMA_RATE, explain, is_significant, rank
from dosemover.report.texts import GROUPS
from dosemover.report.volumes import OUTLINES

HEADLINES = ("dmd_mm", "mass_ratio", "dmd_residual_max_percent", "best_shift_mm")
"""Metrics shown as large figures on the first screen; two gamma passing rates join them."""

DMD_PARTS = ("dmd_moved_mm", "dmd_changed_percent")
"""Parts of the Dose Mover's Distance that join the headlines in the verdict table."""

FEW = 12
"""Up to this many metrics, all of them stand in the verdict table."""


def verdict_rows(result: ComparisonResult) -> list[dict[str, Any]]:
    """The verdict table: the few metrics that decide, all of them where there are few."""
    keys = list(result.metrics)
    if len(keys) > FEW:
        keys = [key for key in (*HEADLINES[:1], *DMD_PARTS, *HEADLINES[1:]) if key in result.metrics]
        keys += _first_gamma_rates(result)
    keys = sorted(dict.fromkeys(keys), key=rank)
    return _rows(result, keys)


def metric_groups(result: ComparisonResult) -> list[dict[str, Any]]:
    """Every metric that the verdict table leaves out: per group its heading and one row per metric."""
    shown = {row["key"] for row in verdict_rows(result)}
    rows: dict[str, list[dict[str, Any]]] = {group: [] for group in GROUPS}
    others = [key for key in result.metrics if key not in shown]
    for row in _rows(result, sorted(others, key=rank)):
        rows[explain(result.metrics[row["key"]]).group].append(row)
    return [{"heading": GROUPS[group], "key": group, "rows": found} for group, found in rows.items() if found]


def _rows(result: ComparisonResult, keys: Iterable[str]) -> list[dict[str, Any]]:
    """Rows of some metrics."""
    hidden = common_reason(result)
    return [_row(result.metrics[key], identifiers=result.identifiers, hidden_reason=hidden) for key in keys]


def _first_gamma_rates(result: ComparisonResult) -> list[str]:
    """Keys of the first two gamma passing rates."""
    return [key for key in result.metrics if GAMMA_RATE.fullmatch(key)][:2]


def common_reason(result: ComparisonResult) -> str:
    """Why no metric has a noise floor, where one reason holds for all that have a value; else empty."""
    reasons = {metric.missing_floor for metric in result.metrics.values() if is_number(metric.value)}
    return reasons.pop() if len(reasons) == 1 else ""


def _row(metric: MetricResult, *, identifiers: bool, hidden_reason: str) -> dict[str, Any]:
    """One metric as the table prints it, without the reason for a missing floor that is said above it."""
    text = explain(metric)
    known = is_number(metric.value)
    status = metric.status if identifiers else public_text(metric.status)
    return {
        "key": metric.key,
        "title": text.title,
        "value": quantity(metric.value, metric.unit, digits=3 if metric.unit else 4) if known else None,
        "interval": _interval(metric),
        "bar": _bar(metric) if known else None,
        "share": _share(metric) if known else "",
        "floor": _floor(metric),
        "floor_note": _floor_note(metric),
        "evidence": "" if hidden_reason and metric.missing_floor == hidden_reason else _evidence(metric),
        "significant": is_significant(metric) if known else None,
        "means": unbroken(text.means) if known else "",
        "blind": unbroken(text.blind),
        "status": "" if status == "ok" else status or "no reason was given",
        "seconds": number(metric.seconds, 2) if metric.seconds else "",
    }


def _interval(metric: MetricResult) -> str:
    """Certified bounds as text; a side that is not certified reads "not certified"."""
    if not is_number(metric.lower) and not is_number(metric.upper):
        return ""
    if metric.lower == metric.upper:
        return "exact"
    unit = f" {pretty_unit(metric.unit)}" if metric.unit else ""
    if not is_number(metric.upper):
        return f"≥ {number(metric.lower, 4)}{unit}"
    if not is_number(metric.lower):
        return f"≤ {number(metric.upper, 4)}{unit}"
    return f"[{number(metric.lower, 4)}, {number(metric.upper, 4)}]{unit}"


def _bar(metric: MetricResult) -> dict[str, float] | None:
    """Positions, in percent of the bar, of value, bounds and floor on a scale from 0."""
    marks = {"value": metric.value, "lower": metric.lower, "upper": metric.upper, "floor": metric.floor}
    known = {name: float(mark) for name, mark in marks.items() if mark is not None and is_number(mark)}
    if len(known) < 2 or min(known.values()) < 0:
        return None
    top = 1.1 * max(known.values()) or 1.0
    bar = {name: 100 * mark / top for name, mark in known.items()}
    if "floor" in known and metric.floor_sd is not None and is_number(metric.floor_sd):
        bar["floor_low"] = max(0.0, 100 * (known["floor"] - metric.floor_sd) / top)
        bar["floor_high"] = min(100.0, 100 * (known["floor"] + metric.floor_sd) / top)
    return bar


def _floor(metric: MetricResult) -> str:
    """Noise floor with its standard deviation."""
    if not is_number(metric.floor):
        return ""
    unit = f" {pretty_unit(metric.unit)}" if metric.unit else ""
    return unbroken(raised(with_spread(float(metric.floor or 0.0), metric.floor_sd, digits=1)) + unit)


def _share(metric: MetricResult) -> str:
    """How much of a value comes from voxels of low sampling."""
    share = metric.settings.get("low_sampling_share_percent")
    if not is_number(share):
        return ""
    part = "of the failures" if metric.key.endswith("passing_rate_percent") else "of it"
    return f"{quantity(share, '%')} {part} from low sampling"


def _floor_note(metric: MetricResult) -> str:
    """The grid that a floor was drawn on where that is a coarser one, and the value there."""
    grid = metric.settings.get("null_grid")
    if grid is None:
        return ""
    there = metric.settings.get("null_grid_value")
    value = f", where the value is {quantity(there, metric.unit)}" if is_number(there) else ""
    return f"drawn with {grid}{value}"


def where_table(result: ComparisonResult) -> list[dict[str, str]]:
    """Regions that are outlined: what they mean and how much of the irradiated volume they hold."""
    rows = []
    for key, name in OUTLINES.items():
        field = result.maps.get(key)
        if field is None:
            continue
        inside = np.asarray(field.values) > 0.5
        dose = np.asarray(result.reference.interpolated_to(field.grid).dose_gy)
        volume = np.broadcast_to(field.grid.voxel_volume_mm3, inside.shape)
        cells = [("volume", f"{number(float(np.sum(volume[inside])) / 1e3)} cm³")]
        for percent in (10, 50):
            above = dose >= percent / 100 * result.reference.max_gy
            total = float(np.sum(volume[above]))
            share = 100 * float(np.sum(volume[above & inside])) / total if total else None
            cells.append((f"above_{percent}", quantity(share, "%")))
        rows.append({"key": key, "name": name, "meaning": field.label, **dict(cells)})
    return rows


def _evidence(metric: MetricResult) -> str:
    """Significance, z and p, as text."""
    parts = []
    if is_number(metric.z):
        parts.append(f"z = {number(metric.z, 3)}")
    if is_number(metric.p):
        parts.append(p_value(metric.p, smallest=metric.p_is_smallest))
    if not parts and is_number(metric.value):
        return metric.missing_floor
    return ", ".join(parts)


def headlines(result: ComparisonResult) -> list[dict[str, Any]]:
    """The few rows of the verdict table that the first screen shows large."""
    keys = [key for key in HEADLINES if key in result.metrics]
    keys += _first_gamma_rates(result)
    return [row for row in _rows(result, keys) if row["value"] is not None]


def map_name(dose: DoseMap, fallback: str) -> str:
    """What to call a map: its file's base name, its name, or its role."""
    return base_name(str(dose.source.get("file") or dose.name or "")) or fallback


def map_card(dose: DoseMap, role: str, *, identifiers: bool) -> dict[str, Any]:
    """Name and facts of one map."""
    nz, ny, nx = dose.grid.shape
    spacing = " × ".join("uneven" if s is None else f"{s:.4g}" for s in dose.grid.spacing_mm)
    facts = {
        "Format": str(dose.source.get("format", "array")),
        "Voxels (x, y, z)": f"{nx} × {ny} × {nz} of {spacing} mm",
        "Origin": ", ".join(f"{o:.4g}" for o in dose.grid.origin_mm).replace("-", "−") + " mm",
        "Maximum": f"{number(dose.max_gy, 4)} {dose.unit}",
        "Integral": f"{number(dose.integral_gy_mm3 / 1e3, 4)} {dose.unit} cm³",
        "Uncertainty": _uncertainty(dose),
    }
    if identifiers:
        facts |= {str(key): str(value) for key, value in dose.identifiers.items()}
    return {"role": role, "name": map_name(dose, role), "facts": facts}


def _uncertainty(dose: DoseMap) -> str:
    """Whether a map carries its uncertainty, and how large that is where there is dose."""
    if dose.uncertainty_gy is None:
        return "not given"
    high = dose.dose_gy > 0.5 * dose.max_gy
    if not high.any():
        return "given"
    relative = 100 * float(np.mean(dose.uncertainty_gy[high] / dose.dose_gy[high]))
    source = f"{dose.batches_gy.shape[0]} batches, " if dose.batches_gy is not None else ""
    return f"{source}{number(relative, 2)} % in the high dose"


def scale_text(settings: Mapping[str, Any]) -> str:
    """The factor that the evaluated map was multiplied by, in words."""
    factor = settings.get("scale_factor", settings.get("scale"))
    if factor is None:
        return "not scaled (factor 1)"
    if not is_number(factor):
        return f"scaled: {factor}"
    if factor == 1:
        return "not scaled (factor 1)"
    mode = settings.get("scale")
    return f"multiplied by {number(factor, 5)}" + (f" ({mode})" if isinstance(mode, str) else "")


_NAMES = {"mae": "MAE", "mse": "MSE", "rmse": "RMSE", "relative_mae": "relative MAE", "dvh_w1": "DVH area"}


def dvh_name(key: str) -> str:
    """A DVH quantity in print: "d95_gy" reads D95 / Gy.

    Examples
    --------
    >>> dvh_name("d95_gy"), dvh_name("d0p03cc_gy"), dvh_name("v20gy_percent"), dvh_name("p99_gy")
    ('D95 / Gy', 'D0.03cc / Gy', 'V20Gy / %', '99th percentile / Gy')
    """
    if key.startswith("n_"):
        return key[2:].replace("_", " ")
    name, unit = key, ""
    for ending, printed in (("_gy2", "Gy²"), ("_gy", "Gy"), ("_percent", "%"), ("_cc", "cm³"), ("_mm", "mm")):
        if key.endswith(ending):
            name, unit = key[: -len(ending)], f" / {printed}"
            break
    if name[:1] == "p" and name[1:].isdigit():
        return f"{name[1:]}th percentile{unit}"
    if name[:1] in "dv" and name[1:2].isdigit():
        name = name.replace("p", ".").replace("gy", "Gy")
        name = name[0].upper() + name[1:]
    return _NAMES.get(name, name.replace("_", " ")) + unit


def dvh_table(result: ComparisonResult) -> dict[str, Any]:
    """Rows of structures and columns of DVH quantities: reference, evaluated, difference."""
    columns: list[str] = []
    for values in result.structures.values():
        columns += [key for key in values if key not in columns]
    if "d50_gy" in columns:
        columns = [key for key in columns if key != "median_gy"]  # the same number
    if not any(_any_value(values.get("outside_cc")) for values in result.structures.values()):
        columns = [key for key in columns if key != "outside_cc"]
    rows = []
    for name, values in result.structures.items():
        cells = []
        for key in columns:
            pair = values.get(key, {})
            reference, evaluated = pair.get("reference"), pair.get("evaluated")
            cells.append(
                {
                    "reference": number(reference, 4),
                    "evaluated": number(evaluated, 4),
                    "difference": _signed(reference, evaluated),
                }
            )
        rows.append({"name": name, "cells": cells})
    return {"columns": [dvh_name(key) for key in columns], "rows": rows}


def _any_value(pair: Mapping[str, float | None] | None) -> bool:
    """Whether a DVH quantity is anything but 0 in one of the maps."""
    return any((pair or {}).values())


def region_table(result: ComparisonResult) -> dict[str, Any]:
    """Rows of regions and columns of the differences inside them."""
    columns: list[str] = []
    for values in result.regions.values():
        columns += [key for key in values if key not in columns]
    rows = [
        {"name": name, "cells": [_region_cell(values.get(key)) for key in columns]}
        for name, values in result.regions.items()
    ]
    return {"columns": [dvh_name(key) for key in columns], "rows": rows}


def _region_cell(value: Any) -> str:
    """A number, or whatever else a region reports, as text."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, int) and not isinstance(value, bool):
        return grouped(value)
    return number(value) if value is None or isinstance(value, float) else str(value)


def _signed(reference: float | None, evaluated: float | None) -> str:
    """Difference with its sign; a dash where a side is missing."""
    if reference is None or evaluated is None or not is_number(reference) or not is_number(evaluated):
        return "–"
    difference = evaluated - reference
    if abs(difference) <= 5e-5 * max(abs(reference), abs(evaluated)):
        return "0"
    digits = 3 if abs(difference) >= 0.1 else 2
    return ("+" if difference > 0 else "") + number(difference, digits)
