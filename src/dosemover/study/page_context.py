"""What the page and the paper of a study fill in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from dosemover.study.analysis_detection import AUC_WANTED, BOOTSTRAPS, FALSE_ALARMS, POWER_WANTED
from dosemover.study.analysis_findings import FINDINGS, beyond_two_numbers
from dosemover.study.analysis_gamma import gamma_rows
from dosemover.study.analysis_kinds import KINDS, Measure, duel, keys_of, mean_measure
from dosemover.study.analysis_labels import ABOUT, label, matching, pretty
from dosemover.study.analysis_losses import race_rows
from dosemover.study.analysis_summary import StudyAnalysis
from dosemover.study.analysis_verdicts import Finding, number
from dosemover.study.table import NO_CHANGE
from dosemover.study.text_tables import KEY_METRICS, TextTable, asked
from dosemover.study.text_tables_detection import (
    case_table,
    duel_table,
    histories_table,
    histories_text,
    kind_table,
    power_table,
    structures_table,
)
from dosemover.study.text_tables_noise import bias_table, shares_sentences, sides_detection, sides_table

OWN_STUDY = "noise"
"""Name of the project's own study, whose report draws conclusions; of others it gives the results."""

_KEY_CHANGES = (("shift",), ("output", "scale"), ("hot_spot", "hot"))


_FEWEST_SIZES = 3
"""Sizes of a change from which a table of the smallest that is found says something."""


def key_table(analysis: StudyAnalysis, words: Sequence[str], case: str) -> dict[str, Any] | None:
    """Smallest detectable size of one change in a case, by metric and noise level."""
    names = matching(analysis.changes_of(case), *words)
    if not names:
        return None
    change = names[0]
    sizes: dict[float, set[float]] = {}
    for cell in analysis.table.select(case=case, change=change, noise_in="both"):
        sizes.setdefault(cell.noise_percent, set()).add(cell.magnitude)
    if max(map(len, sizes.values()), default=0) < _FEWEST_SIZES:
        return None
    levels = sorted((noise for noise, found in sizes.items() if len(found) > 1), reverse=True)
    rows = []
    unit = ""
    for metric in KEY_METRICS:
        cells = []
        for noise in levels:
            one = analysis.smallest.get((case, change, metric, noise))
            cells.append("" if one is None else _bare(one.value, one.studied))
            unit = one.unit if one is not None else unit
        if metric in analysis.metrics:
            rows.append({"metric": label(metric), "cells": cells})
    if not rows:
        return None
    return {
        "case": pretty(case),
        "change": pretty(change),
        "unit": unit,
        "levels": levels,
        "n_levels": len(levels),
        "rows": rows,
    }


def _bare(value: float, studied: tuple[float, float]) -> str:
    """A size without its unit, or the end of the range that it lies beyond."""
    if value == -math.inf:
        return f"≤ {studied[0]:g}"
    return f"> {studied[1]:g}" if value == math.inf else number(value, 2)


def _one_size(analysis: StudyAnalysis, word: str, metric: str, case: str) -> str:
    """Smallest size of a change that a metric finds in a case at the reference noise."""
    names = matching(analysis.changes_of(case), word)
    key = (case, names[0] if names else "", metric, analysis.reference_noise)
    one = analysis.smallest.get(key)
    return "–" if one is None else f"{_bare(one.value, one.studied)} {one.unit}"


def _levels(analysis: StudyAnalysis) -> list[dict[str, Any]]:
    """What each case was simulated with: engine, histories by noise level, achieved noise."""
    found = []
    titles = analysis.provenance.get("settings", {}).get("cases", {})
    for case in analysis.table.cases:
        cells = [c for c in analysis.table.select(case=case, change="none") if c.values.size]
        by_level = {c.noise_percent: c for c in sorted(cells, key=lambda c: c.noise_in == "both")}
        if not by_level:
            continue
        first = next(iter(by_level.values()))
        found.append(
            {
                "name": pretty(case),
                "title": titles.get(case, {}).get("title", "") or pretty(case),
                "engine": first.engine,
                "levels": [
                    {
                        "noise": noise,
                        "achieved": cell.achieved_noise_percent,
                        "histories": cell.histories,
                        "replicates": cell.values.size + cell.missing,
                    }
                    for noise, cell in sorted(by_level.items(), reverse=True)
                ],
            }
        )
    return found


def _is_own(analysis: StudyAnalysis) -> bool:
    """Whether this is the project's own study."""
    return analysis.provenance.get("study") == OWN_STUDY


def _changes(analysis: StudyAnalysis) -> list[dict[str, Any]]:
    """Changes with the sizes that were studied."""
    found: dict[str, dict[str, Any]] = {}
    for cell in analysis.table.cells:
        if cell.change != "none":
            entry = found.setdefault(
                cell.change,
                {
                    "name": pretty(cell.change),
                    "about": ABOUT.get(cell.change, "") if _is_own(analysis) else "",
                    "unit": cell.magnitude_unit,
                    "sizes": set(),
                    "cases": set(),
                },
            )
            entry["sizes"].add(cell.magnitude)
            entry["cases"].add(pretty(cell.case))
    return [
        {**entry, "sizes": sorted(entry["sizes"]), "cases": sorted(entry["cases"])}
        for entry in found.values()
    ]


def key_tables(analysis: StudyAnalysis) -> list[list[dict[str, Any]]]:
    """Tables of the smallest sizes found, by case: the main one first."""
    cases = [analysis.main_case, *(case for case in analysis.cases if case != analysis.main_case)]
    found = [[key_table(analysis, words, case) for words in _KEY_CHANGES] for case in cases]
    return [kept for tables in found if (kept := [table for table in tables if table])]


def _ranked_cases(analysis: StudyAnalysis) -> list[str]:
    """Simulated cases with changes at the reference noise."""
    measured = {case for case, _, _, noise in analysis.by_condition if noise == analysis.reference_noise}
    return [case for case in analysis.cases if case in measured]


def _ranking(analysis: StudyAnalysis) -> list[dict[str, Any]]:
    """Metrics by their mean AUC at the reference noise."""
    noise = analysis.reference_noise
    rows = [(m, analysis.mean_auc(m, noise)) for m in analysis.metrics]
    kept = sorted((r for r in rows if math.isfinite(r[1])), key=lambda r: -r[1])
    return [
        {
            "key": m,
            "metric": label(m),
            "auc": auc,
            "by_case": [analysis.mean_auc(m, noise, case=case) for case in _ranked_cases(analysis)],
            "misjudged": analysis.mean_auc(m, noise, misjudged=True),
            "seconds": analysis.seconds.get(m, math.nan),
        }
        for m, auc in kept
    ]


def _slopes(analysis: StudyAnalysis) -> list[dict[str, Any]]:
    """Range of the slopes of the floors over the cases, for the metrics of the key table."""
    found = []
    for metric in (*KEY_METRICS, "w2_mm", "w1_mm", "sliced_w2_mm"):
        laws = [
            law for (case, name), law in analysis.floors.items() if name == metric and case in analysis.cases
        ]
        if laws:
            slopes = [law.slope for law in laws]
            inside = sum(law.low <= -0.5 <= law.high for law in laws)
            found.append(
                {
                    "metric": label(metric),
                    "least": min(slopes),
                    "most": max(slopes),
                    "inside": inside,
                    "of": len(laws),
                }
            )
    return found


def text_tables(analysis: StudyAnalysis) -> dict[str, list[TextTable]]:
    """Tables of texts by what they are about; those that the study has no data for are left out."""
    shown = [analysis.main_case]
    if analysis.finest_case not in shown:
        shown.append(analysis.finest_case)
    changes = asked(analysis)
    found = {
        "kinds": [kind_table(analysis, measure) for measure in ("auc", "power", "misjudged")],
        "duels": [duel_table(analysis, metric) for metric in ("dmd_moved_mm", "dmd_mm", "kr_mm")],
        "structures": [structures_table(analysis)],
        "changes": [case_table(analysis, case, what) for case in shown for what in ("auc", "power")],
        "histories": [histories_table(analysis, *one) for one in changes],
        "bias": [bias_table(analysis, *one) for one in ((NO_CHANGE, 0.0, ""), *changes[:2])],
        "sides": [sides_table(analysis), sides_detection(analysis)],
    }
    return {name: [table for table in tables if table is not None] for name, tables in found.items()}


def _kind_value(
    analysis: StudyAnalysis, metric: str, kind: str, measure: Measure, cases: Sequence[str] | None = None
) -> str:
    """Mean AUC (or power in %) of a metric for a kind of change at the reference noise, in cases or all."""
    keys = keys_of(analysis, kind, analysis.reference_noise)
    one = mean_measure(analysis, metric, [key for key in keys if cases is None or key[0] in cases], measure)
    if one is None:
        return "–"
    return f"{100 * one.value:.0f} %" if measure == "power" else f"{one.value:.2f}"


def _duel_words(analysis: StudyAnalysis, ours: str, theirs: str, kind: str) -> str:
    """In how many conditions one metric finds a kind of change surely better and worse than another."""
    one = duel(analysis, ours, theirs, keys_of(analysis, kind))
    return "–" if one is None else f"surely better in {one.better}, surely worse in {one.worse} of {one.of}"


_STATISTICS = {
    "shift": ("best_shift_mm", "dmd_moved_mm", "dmd_mm"),
    "output": ("mass_ratio", "dmd_mm"),
    "halves": ("kr_mm", "dmd_moved_mm"),
    "penumbra": ("gamma_2_2_global_passing_rate_percent", "kr_mm", "dmd_moved_mm"),
    "hot": ("rmse_gy", "dmd_mm"),
}
"""Metrics whose histories are recommended, by a word of the change."""


def _wanted(analysis: StudyAnalysis) -> list[tuple[str, str, str, str]]:
    """Word and name of a change, key and name of a metric, for a table of recommended histories."""
    return [
        (word, f"{pretty(change)} {size:g} {unit}", metric, label(metric))
        for word, metrics in _STATISTICS.items()
        for change, size, unit in asked(analysis)
        if word in change
        for metric in metrics
    ]


def _needed(analysis: StudyAnalysis, word: str, metric: str, case: str) -> str:
    """Histories that a metric needs for one of the changes that tables ask for, in a case."""
    change, size, _ = next((one for one in asked(analysis) if word in one[0]), ("", 0.0, ""))
    return histories_text(analysis.histories.get((case, change, size, metric))) or "–"


def context(analysis: StudyAnalysis) -> dict[str, Any]:
    """All that the templates fill in."""
    findings: dict[str, Finding] = {f.letter: f for f in (judge(analysis) for judge in FINDINGS)}
    table = analysis.table
    ranking = _ranking(analysis)
    tables = key_tables(analysis)
    seconds = sum(
        analysis.provenance.get(key) or 0.0
        for key in ("bank_cpu_seconds", "measurement_cpu_seconds", "pilot_cpu_seconds")
    )
    return {
        "findings": findings,
        "tables": tables,
        "texts": text_tables(analysis),
        "kinds": [kind for kind in KINDS if keys_of(analysis, kind, analysis.reference_noise)],
        "main_mm": analysis.voxel_mm(analysis.main_case),
        "finest_name": analysis.finest_case,
        "wanted": _wanted(analysis),
        "beyond": power_table(beyond_two_numbers(analysis)),
        "kind_of": lambda metric, kind: _kind_value(analysis, metric, kind, "auc"),
        "inside_of": lambda metric, kind: _kind_value(analysis, metric, kind, "auc", analysis.compared),
        "power_of": lambda metric, kind: _kind_value(analysis, metric, kind, "power"),
        "rough_of": lambda metric, kind: _kind_value(analysis, metric, kind, "misjudged"),
        "duel_of": lambda ours, theirs, kind: _duel_words(analysis, ours, theirs, kind),
        "needed": lambda word, metric, case=None: _needed(analysis, word, metric, case or analysis.main_case),
        "shares": shares_sentences(analysis),
        "gamma_rows": list(gamma_rows(analysis)),
        "races": race_rows(analysis),
        "compared": [pretty(case) for case in analysis.compared],
        "ranked_cases": [pretty(case) for case in _ranked_cases(analysis)],
        "main_case": pretty(analysis.main_case),
        "cases": _levels(analysis),
        "changes": _changes(analysis),
        "ranking": ranking,
        "slopes": _slopes(analysis),
        "noise": analysis.reference_noise,
        "levels": table.noise_levels,
        "replicates": table.replicates,
        "measurements": table.measurements,
        "conditions": len(analysis.by_condition),
        "n_metrics": len(table.metrics),
        "hours": seconds / 3600,
        "wall_hours": sum(analysis.provenance.get("wall_seconds_of_runs") or [0.0]) / 3600,
        "missing": len(analysis.provenance.get("missing_cells", [])),
        "smallest_of": lambda word, metric: _one_size(analysis, word, metric, analysis.main_case),
        "finest_case": pretty(analysis.finest_case),
        "finest_mm": analysis.voxel_mm(analysis.finest_case),
        "fine_of": lambda word, metric: _one_size(analysis, word, metric, analysis.finest_case),
        "remeasured": analysis.provenance.get("remeasured"),
        "own": _is_own(analysis),
        "false_alarms": 100 * FALSE_ALARMS,
        "power": 100 * POWER_WANTED,
        "auc": AUC_WANTED,
        "bootstraps": BOOTSTRAPS,
        "misjudged_of": lambda metric: analysis.mean_auc(metric, analysis.reference_noise, misjudged=True),
        "auc_of": lambda metric: analysis.mean_auc(metric, analysis.reference_noise),
        "seconds_of": lambda metric: analysis.seconds.get(metric, math.nan),
    }
