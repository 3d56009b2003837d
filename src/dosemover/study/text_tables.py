"""Tables of a study's report as rows of texts, for the page and for the paper alike."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from dosemover.study.analysis_detection import Interval
from dosemover.study.analysis_labels import label, matching
from dosemover.study.analysis_summary import StudyAnalysis
from dosemover.study.analysis_table import trait

KEY_METRICS = (
    "dmd_mm",
    "dmd_moved_mm",
    "moment_dmd_mm",
    "moment_w2_mm",
    "kr_mm",
    "center_shift_mm",
    "best_shift_mm",
    "mass_ratio",
    "mae_gy",
    "rmse_gy",
    "debiased_rmse_gy",
    "max_difference_gy",
    "ssim",
    "gamma_3_3_global_passing_rate_percent",
    "gamma_2_2_global_passing_rate_percent",
    "gamma_2_2_global_mean",
)
"""Metrics of the key tables."""

ASKED: tuple[tuple[tuple[str, ...], float], ...] = (
    (("shift",), 1.0),
    (("output", "scale"), 1.0),
    (("hot_spot", "hot"), 20.0),
    (("penumbra",), 2.0),
    (("halves_apart",), 1.0),
)
"""Changes whose histories and bias are told, with their sizes."""


@dataclass(frozen=True, kw_only=True)
class TextTable:
    """A table that stands as it is.

    Parameters
    ----------
    title : str
    head : tuple of str
    rows : tuple of tuple of str
        As many cells each as the head has.
    caption : str
        What the numbers are.
    """

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str


def auc_text(one: Interval | None) -> str:
    """An AUC with its interval.

    Examples
    --------
    >>> auc_text(Interval(value=0.91, low=0.774, high=0.97))
    '0.91 (0.77–0.97)'
    """
    return "–" if one is None else f"{one.value:.2f} ({one.low:.2f}–{one.high:.2f})"


def power_text(one: Interval | None) -> str:
    """A power in percent with its interval."""
    if one is None:
        return "–"
    return f"{100 * one.value:.0f} ({100 * one.low:.0f}–{100 * one.high:.0f})"


def with_unit(metric: str) -> str:
    """Name of a metric with its unit."""
    unit = trait(metric).unit
    return f"{label(metric)} / {unit}" if unit else label(metric)


def one_of(
    analysis: StudyAnalysis, case: str, words: Sequence[str], size: float
) -> tuple[str, float, str] | None:
    """Change, size and unit of a case that come nearest to a size, where its name is one of the words."""
    names = matching(analysis.changes_of(case), *words)[:1]
    cells = analysis.table.select(case=case, change=tuple(names), noise_in="both")
    if not cells:
        return None
    best = min(cells, key=lambda c: abs(math.log(c.magnitude / size)))
    return best.change, best.magnitude, best.magnitude_unit


def asked(analysis: StudyAnalysis) -> list[tuple[str, float, str]]:
    """Changes of the main case that tables ask for."""
    found = (one_of(analysis, analysis.main_case, words, size) for words, size in ASKED)
    return [one for one in found if one is not None]
