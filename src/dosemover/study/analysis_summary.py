"""Tables of a study's results: floors, detection, smallest detectable changes, histories, bias, cost."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from dosemover.study.analysis_detection import (
    Detection,
    Smallest,
    detections,
    histories_needed,
    smallest_detectable,
)
from dosemover.study.analysis_labels import matching, pretty, shown
from dosemover.study.analysis_response import PowerLaw, floor_law, noise_bias
from dosemover.study.analysis_table import Cell, StudyTable
from dosemover.study.table import NO_CHANGE

Row = dict[str, Any]


class StudyAnalysis:
    """Everything that is derived from the table of a study, each part computed once.

    Parameters
    ----------
    table : StudyTable
    seconds : mapping of str to float
        Median cost of each metric [s]; may be empty.
    findings : mapping
        Small measured studies beside the table; may be empty.
    provenance : mapping
        How the table came about; may be empty.
    """

    def __init__(
        self,
        table: StudyTable,
        *,
        seconds: Mapping[str, float] | None = None,
        findings: Mapping[str, Any] | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        self.table = table
        self.seconds = dict(seconds or {})
        self.findings = dict(findings or {})
        self.provenance = dict(provenance or {})
        self.metrics = shown(table.metrics)

    @cached_property
    def simulated(self) -> list[str]:
        """Simulated cases, or all where none is: white noise is a contrast, no part of averages."""
        simulated = {cell.case for cell in self.table.cells if cell.engine != "analytic"}
        return [case for case in self.table.cases if case in simulated] or self.table.cases

    @cached_property
    def cases(self) -> list[str]:
        """Those of the simulated cases that have noise in both maps, which detection is told of."""
        both = {cell.case for cell in self.table.cells if cell.noise_in == "both"}
        return [case for case in self.simulated if case in both] or self.simulated

    @cached_property
    def main_case(self) -> str:
        """The simulated case with most conditions, which tables and figures show first."""
        conditions = {
            case: len({(c.change, c.magnitude, c.noise_percent) for c in self.table.select(case=case)})
            for case in self.cases
        }
        return max(conditions, key=lambda case: conditions[case])

    @cached_property
    def compared(self) -> list[str]:
        """Simulated cases in which every shown metric was measured, which averages are taken over.

        A case that leaves metrics out would favor or harm them; all cases where none is complete.
        """
        measured = {
            (c.case, c.metric) for c in self.table.cells if c.change != NO_CHANGE and c.noise_in == "both"
        }
        whole = [case for case in self.cases if all((case, m) in measured for m in self.metrics)]
        return whole or self.cases

    def voxel_mm(self, case: str) -> float:
        """Widest side of a case's voxels [mm]; NaN where the provenance does not tell."""
        told = self.provenance.get("settings", {}).get("cases", {}).get(case, {}).get("voxel_mm")
        return float(np.max(told)) if told is not None else math.nan

    @cached_property
    def finest_case(self) -> str:
        """The simulated case with the smallest voxels, the main one where their size is not known."""
        return min(
            self.cases,
            key=lambda case: (
                width if math.isfinite(width := self.voxel_mm(case)) else math.inf,
                case != self.main_case,
            ),
        )

    def changes_of(self, case: str) -> list[str]:
        """Changes of a case."""
        return self._changes.get(case, [])

    @cached_property
    def _changes(self) -> dict[str, list[str]]:
        found: dict[str, set[str]] = defaultdict(set)
        for c in self.table.cells:
            if c.change != NO_CHANGE:
                found[c.case].add(c.change)
        return {case: sorted(changes) for case, changes in found.items()}

    @cached_property
    def detections(self) -> list[Detection]:
        """AUC and power of every cell with noise in both maps."""
        return detections(self.table, noise_in="both")

    @cached_property
    def by_condition(self) -> dict[tuple[str, str, float, float], dict[str, Detection]]:
        """Detections by metric, under (case, change, magnitude, noise level)."""
        found: dict[tuple[str, str, float, float], dict[str, Detection]] = defaultdict(dict)
        for one in self.detections:
            c = one.cell
            found[c.case, c.change, c.magnitude, c.noise_percent][c.metric] = one
        return dict(found)

    @cached_property
    def reference_noise(self) -> float:
        """Noise level that examples are given for: 5 % or the nearest that was studied."""
        levels = self.table.noise_levels
        return min(levels, key=lambda level: (abs(math.log(level / 5.0)), level)) if levels else math.nan

    @cached_property
    def smallest(self) -> dict[tuple[str, str, str, float], Smallest]:
        """Smallest detectable size by (case, change, metric, noise level), noise in both maps, by power."""
        groups: dict[tuple[str, str, str, float], list[Cell]] = defaultdict(list)
        for metric in self.metrics:
            for c in self.table.select(metric=metric, noise_in="both"):
                if c.change != NO_CHANGE:
                    groups[c.case, c.change, metric, c.noise_percent].append(c)
        found = {key: smallest_detectable(self.table, cells) for key, cells in groups.items()}
        return {key: one for key, one in found.items() if one is not None}

    @cached_property
    def histories(self) -> dict[tuple[str, str, float, str], Smallest]:
        """Histories needed by (case, change, magnitude, metric), noise in both maps, by power."""
        groups: dict[tuple[str, str, float, str], list[Cell]] = defaultdict(list)
        for metric in self.metrics:
            for c in self.table.select(metric=metric, noise_in="both"):
                if c.change != NO_CHANGE:
                    groups[c.case, c.change, c.magnitude, metric].append(c)
        found = {key: histories_needed(self.table, cells) for key, cells in groups.items() if len(cells) > 1}
        return {key: one for key, one in found.items() if one is not None}

    @cached_property
    def floors(self) -> dict[tuple[str, str], PowerLaw]:
        """How the floor falls with the histories, by (case, metric), noise in both maps."""
        found = {}
        for metric in self.table.metrics:
            for case in self.table.cases:
                law = floor_law(
                    self.table.select(metric=metric, case=case, change=NO_CHANGE, noise_in="both")
                )
                if law is not None:
                    found[case, metric] = law
        return found

    def mean_auc(
        self, metric: str, noise: float, *, misjudged: bool = False, case: str | None = None
    ) -> float:
        """AUC of a metric averaged over all changes of the compared cases, or of one, at a noise level.

        With ``misjudged`` as if the noise were thought to be a tenth larger than it is.
        """
        cases = self.compared if case is None else [case]
        values = [
            found[metric].misjudged if misjudged else found[metric].auc.value
            for (name, _, _, level), found in self.by_condition.items()
            if level == noise and metric in found and name in cases
        ]
        return float(np.mean(values)) if values else math.nan


@dataclass(frozen=True, kw_only=True, eq=False)
class Condition:
    """One change in one case at one noise level, with the detections of every metric."""

    case: str
    change: str
    size: float
    noise: float
    by: Mapping[str, Detection]

    @property
    def text(self) -> str:
        """The condition in words."""
        return f"{self.change_text} ({pretty(self.case)})"

    @property
    def change_text(self) -> str:
        """The change in words."""
        unit = next(iter(self.by.values())).cell.magnitude_unit
        return f"{pretty(self.change)} {self.size:g} {unit}".strip()


def conditions(analysis: StudyAnalysis, *words: str) -> list[Condition]:
    """Conditions of the changes that are called so, in every case, white noise too."""
    called = {case: set(matching(analysis.changes_of(case), *words)) for case in analysis.table.cases}
    return [
        Condition(case=case, change=change, size=size, noise=noise, by=by)
        for (case, change, size, noise), by in sorted(analysis.by_condition.items())
        if change in called[case]
    ]


def floor_rows(analysis: StudyAnalysis) -> Iterable[Row]:
    """One row per case and metric: slope of the floor and the floor at each noise level."""
    for (case, metric), law in analysis.floors.items():
        cells = analysis.table.select(metric=metric, case=case, change=NO_CHANGE, noise_in="both")
        levels = {f"floor_at_{c.noise_percent:g}_percent": c.mean for c in cells}
        yield {"case": case, "metric": metric, "slope": law.slope, "low": law.low, "high": law.high, **levels}


def detection_rows(analysis: StudyAnalysis) -> Iterable[Row]:
    """One row per condition and metric: AUC and power with their intervals."""
    for one in analysis.detections:
        c = one.cell
        yield {
            **_condition(c),
            "n": c.values.size,
            "auc": one.auc.value,
            "auc_low": one.auc.low,
            "auc_high": one.auc.high,
            "power": one.power.value,
            "power_low": one.power.low,
            "power_high": one.power.high,
        }


def response_rows(analysis: StudyAnalysis) -> Iterable[Row]:
    """One row per condition and metric: mean, spread, and bias against the least noise."""
    for c in analysis.table.cells:
        if c.values.size and c.metric in analysis.metrics:
            yield {
                **_condition(c),
                "noise_in": c.noise_in,
                "n": c.values.size,
                "mean": c.mean,
                "sd": c.sd,
                "bias": noise_bias(analysis.table, c),
            }


def _condition(c: Cell) -> Row:
    return {
        "case": c.case,
        "change": c.change,
        "magnitude": c.magnitude,
        "unit": c.magnitude_unit,
        "noise_percent": c.noise_percent,
        "histories": c.histories,
        "metric": c.metric,
    }


def smallest_rows(analysis: StudyAnalysis) -> Iterable[Row]:
    """One row per case, change, metric and noise level: the smallest detectable size."""
    for (case, change, metric, noise), one in analysis.smallest.items():
        yield {"case": case, "change": change, "metric": metric, "noise_percent": noise, **_smallest(one)}


def histories_rows(analysis: StudyAnalysis) -> Iterable[Row]:
    """One row per case, change, magnitude and metric: the histories needed."""
    for (case, change, magnitude, metric), one in analysis.histories.items():
        yield {"case": case, "change": change, "magnitude": magnitude, "metric": metric, **_smallest(one)}


def _smallest(one: Smallest) -> Row:
    return {
        "value": one.value,
        "low": one.low,
        "high": one.high,
        "studied_from": one.studied[0],
        "studied_to": one.studied[1],
        "unit": one.unit,
    }


def cost_rows(analysis: StudyAnalysis) -> Iterable[Row]:
    """One row per metric: seconds, and mean AUC over all changes at each noise level."""
    for metric in analysis.table.metrics:
        aucs = {
            f"mean_auc_at_{level:g}_percent": analysis.mean_auc(metric, level)
            for level in analysis.table.noise_levels
        }
        yield {"metric": metric, "seconds": analysis.seconds.get(metric, math.nan), **aucs}


TABLES = {
    "floors": floor_rows,
    "detection": detection_rows,
    "responses": response_rows,
    "smallest": smallest_rows,
    "histories": histories_rows,
    "cost": cost_rows,
}
"""Tables that a report writes as CSV."""
