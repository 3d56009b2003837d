"""Tables of what noise does to readings: bias, and noise in one of the two maps."""

from __future__ import annotations

import math
from collections.abc import Sequence

from dosemover.study.analysis_detection import Detection, detections
from dosemover.study.analysis_labels import label, pretty
from dosemover.study.analysis_response import noise_bias
from dosemover.study.analysis_summary import StudyAnalysis
from dosemover.study.analysis_table import Cell, excess
from dosemover.study.analysis_verdicts import number
from dosemover.study.table import NO_CHANGE
from dosemover.study.text_tables import ASKED, KEY_METRICS, TextTable, auc_text, one_of, with_unit

_SIDES = ("reference", "evaluated", "both")
_ALIKE = (0.6, 0.8)
"""Shares of the floor with noise in both maps that count as 1/sqrt(2)."""


def bias_table(analysis: StudyAnalysis, change: str, size: float, unit: str) -> TextTable | None:
    """How far the mean reading lies above that at the least noise, in the metric's unit, main case."""
    where = {"case": analysis.main_case, "change": change, "magnitude": size, "noise_in": "both"}
    levels = sorted({c.noise_percent for c in analysis.table.select(**where) if c.values.size})
    if len(levels) < 2:
        return None
    rows = []
    for metric in (*KEY_METRICS, "w2_mm", "w1_mm"):
        cells = {c.noise_percent: c for c in analysis.table.select(metric=metric, **where) if c.values.size}
        if levels[0] in cells:
            rows.append(
                (
                    with_unit(metric),
                    reading_text(cells[levels[0]]),
                    *(bias_text(analysis, cells.get(level)) for level in levels[1:]),
                )
            )
    what = "without any change" if change == NO_CHANGE else f"of {pretty(change)} {size:g} {unit}"
    return TextTable(
        title=f"Bias of readings {what} ({pretty(analysis.main_case)})",
        head=("metric", f"reading at {levels[0]:g} %", *(f"bias at {level:g} %" for level in levels[1:])),
        rows=tuple(rows),
        caption="Mean reading with the least noise in both maps, and by how much more noise raises or lowers "
        "it, ± the standard error, in the unit of the metric.",
    )


def reading_text(cell: Cell | None) -> str:
    """Mean of a cell, to the digits that its error allows."""
    if cell is None or not cell.values.size:
        return "–"
    return f"{cell.mean:.{_decimals(cell.standard_error, cell.mean)}f}".replace("-", "−")


def bias_text(analysis: StudyAnalysis, cell: Cell | None) -> str:
    """Bias of a cell with its standard error."""
    if cell is None:
        return "–"
    calm = analysis.table.noiseless(cell)
    bias = noise_bias(analysis.table, cell)
    if calm is None or not math.isfinite(bias):
        return "–"
    error = math.hypot(cell.standard_error, calm.standard_error)
    digits = _decimals(error, bias)
    return f"{bias:+.{digits}f} ± {error:.{digits}f}".replace("-", "−")


def _decimals(error: float, value: float) -> int:
    """Decimals that show an error to one digit, or a value without error to three."""
    scale = error if math.isfinite(error) and error > 0 else abs(value) / 100
    return 2 if scale <= 0 else min(max(-math.floor(math.log10(scale)), 0), 5)


def sides_table(analysis: StudyAnalysis) -> TextTable | None:
    """Readings with noise in one map or in both, main case, reference noise."""
    case, noise = analysis.main_case, analysis.reference_noise
    wanted = [(NO_CHANGE, 0.0, "")]
    wanted += [one for words, size in ASKED[:2] if (one := one_of(analysis, case, words, size)) is not None]

    def cell(change: str, size: float, metric: str, side: str) -> Cell | None:
        where = {"case": case, "noise_percent": noise, "noise_in": side}
        return next(iter(analysis.table.select(metric=metric, change=change, magnitude=size, **where)), None)

    wanted = [
        one for one in wanted if all(cell(one[0], one[1], "mass_ratio", side) is not None for side in _SIDES)
    ]
    if not wanted:
        return None
    rows = []
    for metric in (m for m in KEY_METRICS if m in analysis.metrics):
        texts = [reading_text(cell(c, size, metric, side)) for c, size, _ in wanted for side in _SIDES]
        rows.append((with_unit(metric), *texts))
    names = [
        "no change" if change == NO_CHANGE else f"{pretty(change)} {size:g} {unit}"
        for change, size, unit in wanted
    ]
    return TextTable(
        title=f"Readings with noise in the reference, in the evaluated map, in both ({pretty(case)})",
        head=("metric", *(f"{name}: {side}" for name in names for side in _SIDES)),
        rows=tuple(rows),
        caption=f"Mean readings at {noise:g} % noise in the maps named; where noise is in one map, the other "
        "is a simulation with little noise.",
    )


def sides_detection(analysis: StudyAnalysis) -> TextTable | None:
    """AUC with noise in one map or in both, main case, reference noise."""
    case, noise = analysis.main_case, analysis.reference_noise
    wanted = [one for words, size in ASKED[:2] if (one := one_of(analysis, case, words, size)) is not None]
    metrics = [m for m in KEY_METRICS if m in analysis.metrics]
    where = {"case": case, "noise_percent": noise, "metric": tuple(metrics)}
    found: dict[tuple[str, float, str, str], Detection] = {}
    for change, size, _ in wanted:
        for one in detections(analysis.table, change=change, magnitude=size, **where):
            found[change, size, one.cell.metric, one.cell.noise_in] = one
    wanted = [one for one in wanted if all((*one[:2], metrics[0], side) in found for side in _SIDES)]
    if not wanted:
        return None

    def cell(change: str, size: float, metric: str, side: str) -> str:
        one = found.get((change, size, metric, side))
        return auc_text(None if one is None else one.auc)

    rows = [
        (label(m), *(cell(change, size, m, side) for change, size, _ in wanted for side in _SIDES))
        for m in metrics
    ]
    return TextTable(
        title=f"AUC with noise in the reference, in the evaluated map, in both ({pretty(case)})",
        head=(
            "metric",
            *(f"{pretty(c)} {size:g} {unit}: {side}" for c, size, unit in wanted for side in _SIDES),
        ),
        rows=tuple(rows),
        caption=f"{noise:g} % noise in the maps named, with intervals of 95 %.",
    )


def side_shares(analysis: StudyAnalysis, metrics: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Floor with noise in the reference alone, and in the evaluated map alone, over that with both.

    Means over the simulated cases and noise levels that have all three.
    """
    found = {}
    for metric in metrics:
        shares: dict[str, list[float]] = {"reference": [], "evaluated": []}
        for both in analysis.table.select(metric=metric, change=NO_CHANGE, noise_in="both"):
            where = {"case": both.case, "change": NO_CHANGE, "noise_percent": both.noise_percent}
            sides = {side: analysis.table.select(metric=metric, noise_in=side, **where) for side in shares}
            whole = float(excess(metric, both.values).mean()) if both.values.size else 0.0
            if both.case in analysis.cases and whole > 0 and all(sides.values()):
                for side, cells in sides.items():
                    shares[side].append(float(excess(metric, cells[0].values).mean()) / whole)
        if shares["reference"]:
            mean = {side: math.fsum(each) / len(each) for side, each in shares.items()}
            found[metric] = (mean["reference"], mean["evaluated"])
    return found


def shares_sentences(analysis: StudyAnalysis) -> list[str]:
    """What noise in one map alone makes of the floors."""
    shares = side_shares(analysis, [m for m in KEY_METRICS if m in analysis.metrics])
    low, high = _ALIKE
    alike = {m: pair for m, pair in shares.items() if low <= min(pair) and max(pair) <= high}
    found = []
    if alike:
        ends = number(min(map(min, alike.values())), 2), number(max(map(max, alike.values())), 2)
        found.append(
            f"For {len(alike)} of {len(shares)} metrics it does not matter which map is the noisy one: with "
            f"noise in one of the two their floor is {ends[0]} to {ends[1]} of that with noise in both (0.71 "
            f"where variances add): {', '.join(map(label, alike))}."
        )
    others = [
        f"{label(m)}: {number(reference, 2)} in the reference, {number(evaluated, 2)} in the evaluated map"
        for m, (reference, evaluated) in shares.items()
        if m not in alike
    ]
    if others:
        found.append(
            "The others, share of the floor with noise in both that is left with noise in one map alone: "
            + "; ".join(others)
            + "."
        )
    return found
