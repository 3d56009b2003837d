"""Tables of what metrics find: by kind of change, change by change, against each other, with histories."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from dosemover.study.analysis_detection import Smallest
from dosemover.study.analysis_kinds import KINDS, Duel, Key, Measure, duel, keys_of, mean_measure
from dosemover.study.analysis_labels import label, pretty
from dosemover.study.analysis_summary import Condition, StudyAnalysis, conditions
from dosemover.study.analysis_verdicts import count
from dosemover.study.text_tables import KEY_METRICS, TextTable, auc_text, power_text

DETAILED = (
    "dmd_mm",
    "dmd_moved_mm",
    "kr_mm",
    "best_shift_mm",
    "rmse_gy",
    "gamma_2_2_global_passing_rate_percent",
    "mass_ratio",
)
"""Metrics whose detection is told change by change."""

RIVALS = (
    "dmd_mm",
    "dmd_moved_mm",
    "center_shift_mm",
    "best_shift_mm",
    "mass_ratio",
    "kr_mm",
    "rmse_gy",
    "gamma_2_2_global_passing_rate_percent",
)
"""Metrics that others are compared with, condition by condition."""

IN_STRUCTURES = (
    "dvh_w1_gy",
    "dvh_mean_difference_gy",
    "dvh_d95_difference_gy",
    "dvh_d2_difference_gy",
    "openkbp_dvh_score",
)
BESIDE_STRUCTURES = ("rmse_gy", "kr_mm", "dmd_mm", "dmd_moved_mm", "gamma_2_2_global_passing_rate_percent")
"""Metrics of dose-volume histograms, and those that they are held against."""


def kind_table(analysis: StudyAnalysis, measure: Measure) -> TextTable | None:
    """Mean AUC or power at the reference noise by kind of change."""
    noise = analysis.reference_noise
    kinds = {kind: keys for kind in KINDS if (keys := keys_of(analysis, kind, noise))}
    if not kinds:
        return None
    names = {
        "auc": "Mean AUC by kind of change",
        "power": "Mean power in % by kind of change",
        "misjudged": "Mean AUC by kind of change, noise thought a tenth too large",
    }
    return TextTable(
        title=names[measure],
        head=_kinds_head("metric", kinds),
        rows=_kinds_rows(analysis, KEY_METRICS, kinds, measure),
        caption=f"Simulated cases, {noise:g} % noise in both maps. Beside the kind the number of conditions, "
        "beside a mean its 95 % interval by bootstrap over the replicates.",
    )


def _kinds_head(first: str, kinds: Mapping[str, Sequence[Key]]) -> tuple[str, ...]:
    """What the rows are, and the kinds of change with the number of their conditions."""
    return (first, *(f"{kind} ({len(keys)})" for kind, keys in kinds.items()))


def _kinds_rows(
    analysis: StudyAnalysis, metrics: Sequence[str], kinds: Mapping[str, Sequence[Key]], measure: Measure
) -> tuple[tuple[str, ...], ...]:
    """A mean with its interval for each of the metrics that were measured, and each kind of change."""
    write = power_text if measure == "power" else auc_text
    return tuple(
        (label(metric), *(write(mean_measure(analysis, metric, keys, measure)) for keys in kinds.values()))
        for metric in metrics
        if metric in analysis.metrics
    )


def structures_table(analysis: StudyAnalysis) -> TextTable | None:
    """Mean AUC of what is read from structures beside others, over the cases in which all were measured."""
    noise, cases = analysis.reference_noise, analysis.compared
    found = {kind: [key for key in keys_of(analysis, kind, noise) if key[0] in cases] for kind in KINDS}
    kinds = {kind: keys for kind, keys in found.items() if keys}
    if not kinds or not set(IN_STRUCTURES) & set(analysis.metrics):
        return None
    return TextTable(
        title="Structures beside whole maps: mean AUC by kind of change",
        head=_kinds_head("metric", kinds),
        rows=_kinds_rows(analysis, (*IN_STRUCTURES, *BESIDE_STRUCTURES), kinds, "auc"),
        caption=f"{', '.join(map(pretty, cases))}; {noise:g} % noise in both maps. Of the structures of a "
        "case the largest difference; of OpenKBP's score the mean. Beside the kind the number of conditions, "
        "beside a mean its 95 % interval by bootstrap over the replicates.",
    )


def case_table(analysis: StudyAnalysis, case: str, measure: Measure) -> TextTable | None:
    """AUC or power of the detailed metrics for every change of a case at the reference noise."""
    noise = analysis.reference_noise
    found = [one for one in conditions(analysis, "") if one.case == case and one.noise == noise]
    metrics = [m for m in DETAILED if m in analysis.metrics]
    if not found or not metrics:
        return None

    def cell(one: Condition, metric: str) -> str:
        detection = one.by.get(metric)
        if detection is None:
            return "–"
        return power_text(detection.power) if measure == "power" else auc_text(detection.auc)

    what = "Power in %" if measure == "power" else "AUC"
    return TextTable(
        title=f"{what} for every change ({pretty(case)})",
        head=("change", *map(label, metrics)),
        rows=tuple((one.change_text, *(cell(one, metric) for metric in metrics)) for one in found),
        caption=f"{noise:g} % noise in both maps, with intervals of 95 %.",
    )


def duel_table(analysis: StudyAnalysis, ours: str) -> TextTable | None:
    """How often a metric finds each kind of change surely better, and surely worse, than others."""
    kinds = {kind: keys for kind in KINDS if (keys := keys_of(analysis, kind))}
    if not kinds or ours not in analysis.metrics:
        return None

    def cell(one: Duel | None) -> str:
        return "–" if one is None else f"+{one.better}\u00a0−{one.worse}"

    rivals = [m for m in RIVALS if m != ours and m in analysis.metrics]
    rows = [(label(m), *(cell(duel(analysis, ours, m, keys)) for keys in kinds.values())) for m in rivals]
    return TextTable(
        title=f"{label(ours)} against other metrics",
        head=_kinds_head("against", kinds),
        rows=tuple(rows),
        caption="Conditions of the simulated cases, all noise levels, in which the AUC is surely higher (+) "
        "and surely lower (−): the 95 % interval of the difference, bootstrapped over the replicates of both "
        "together, leaves out 0. By chance one in forty does on either side. Beside the kind the number of "
        "conditions.",
    )


_BEYOND = ("dmd_mm", "dmd_moved_mm", "center_shift_mm", "mass_ratio", "best_shift_mm", "kr_mm", "rmse_gy")


def power_rows(found: Iterable[Condition]) -> tuple[tuple[str, ...], ...]:
    """Power of transport, of the two plain numbers and of their rivals in some conditions."""
    return tuple(
        (
            one.text,
            f"{one.noise:g}",
            *(power_text(one.by[m].power if m in one.by else None) for m in _BEYOND),
        )
        for one in found
    )


def power_table(found: Sequence[Condition]) -> TextTable | None:
    """The same as a table."""
    if not found:
        return None
    return TextTable(
        title="What the center of dose and the mass ratio do not find, and the DMD or its moved part does",
        head=("change", "noise / %", *map(label, _BEYOND)),
        rows=power_rows(found),
        caption="Power in % at 5 % false alarms with 95 % intervals, at the most noise at which it holds.",
    )


def histories_text(one: Smallest | None) -> str:
    """Histories that a change takes, with their interval."""
    if one is None:
        return ""
    low, high = one.studied
    if one.value == -math.inf:
        return f"≤ {count(low)}"
    if one.value == math.inf:
        return f"> {count(high)}"
    ends = (f"≤ {count(low)}" if one.low == -math.inf else count(one.low),)
    ends += (f"> {count(high)}" if one.high == math.inf else count(one.high),)
    return f"{count(one.value)} ({ends[0]}–{ends[1]})"


def histories_table(analysis: StudyAnalysis, change: str, size: float, unit: str) -> TextTable | None:
    """Histories of a map with which each metric finds one change, by case."""
    cases = [
        case
        for case in analysis.cases
        if any((case, change, size, m) in analysis.histories for m in KEY_METRICS)
    ]
    if not cases:
        return None
    rows = []
    for metric in (m for m in KEY_METRICS if m in analysis.metrics):
        cells = [histories_text(analysis.histories.get((case, change, size, metric))) for case in cases]
        rows.append((label(metric), *cells))
    return TextTable(
        title=f"Histories needed to find {pretty(change)} {size:g} {unit}",
        head=("metric", *map(pretty, cases)),
        rows=tuple(rows),
        caption="Histories per map for a power of 80 % at 5 % false alarms, with 95 % intervals by "
        "bootstrap. ≤: found at the fewest studied already; >: not even with the most.",
    )
