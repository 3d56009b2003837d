"""Texts of a study's report: a page in Markdown and a paper in Typst, their numbers filled in."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dosemover.study.analysis_detection import AUC_WANTED, BOOTSTRAPS, FALSE_ALARMS, POWER_WANTED
from dosemover.study.analysis_findings import FINDINGS
from dosemover.study.analysis_gamma import gamma_rows
from dosemover.study.analysis_labels import label, matching, pretty
from dosemover.study.analysis_losses import race_rows
from dosemover.study.analysis_summary import StudyAnalysis
from dosemover.study.analysis_verdicts import Finding, count, number

if TYPE_CHECKING:
    from jinja2 import Environment

    from dosemover.study.report import Drawing

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
"""Metrics of the key table."""

OWN_STUDY = "noise"
"""Name of the project's own study, whose report draws conclusions; of others it gives the results."""

_KEY_CHANGES = (("shift",), ("output", "scale"), ("hot_spot", "hot"))

_log = logging.getLogger(__name__)


@cache
def _environment() -> Environment:
    """Templates of this package; filters escape what the two languages would read as commands."""
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    folder = resources.files("dosemover.study") / "templates"
    environment = Environment(
        loader=FunctionLoader(lambda name: (folder / name).read_text(encoding="utf-8")),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
        variable_start_string="<<",
        variable_end_string=">>",
        block_start_string="<%",
        block_end_string="%>",
        comment_start_string="<!#",
        comment_end_string="#!>",
    )
    environment.filters |= {
        "number": number,
        "count_of": count,
        "signed": _signed,
        "label": label,
        "pretty": pretty,
        "typ": typst_text,
        "md": _md,
    }
    return environment


def typst_text(text: str) -> str:
    r"""Text that Typst sets as it is.

    Examples
    --------
    >>> typst_text("50 % [a_b] #1")
    '50 % \\[a\\_b\\] \\#1'
    """
    return re.sub(r"([\\#$*_`<>@\[\]~])", r"\\\1", str(text))


def _signed(value: float) -> str:
    """A difference of two AUC, with its sign."""
    return f"{value:+.2f}".replace("-", "−")


def _md(text: str) -> str:
    """Text for a cell of a Markdown table."""
    return str(text).replace("|", "\\|").replace("<", "\\<")


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


def _finest(analysis: StudyAnalysis) -> str:
    """The simulated case with the smallest voxels, the main one where their size is not known."""
    return min(
        analysis.cases,
        key=lambda case: (
            v if math.isfinite(v := analysis.voxel_mm(case)) else math.inf,
            case != analysis.main_case,
        ),
    )


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


def _changes(analysis: StudyAnalysis) -> list[dict[str, Any]]:
    """Changes with the sizes that were studied."""
    found: dict[str, dict[str, Any]] = {}
    for cell in analysis.table.cells:
        if cell.change != "none":
            entry = found.setdefault(
                cell.change,
                {"name": pretty(cell.change), "unit": cell.magnitude_unit, "sizes": set(), "cases": set()},
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
        "finest_case": pretty(_finest(analysis)),
        "finest_mm": analysis.voxel_mm(_finest(analysis)),
        "fine_of": lambda word, metric: _one_size(analysis, word, metric, _finest(analysis)),
        "remeasured": analysis.provenance.get("remeasured"),
        "own": analysis.provenance.get("study") == OWN_STUDY,
        "false_alarms": 100 * FALSE_ALARMS,
        "power": 100 * POWER_WANTED,
        "auc": AUC_WANTED,
        "bootstraps": BOOTSTRAPS,
        "misjudged_of": lambda metric: analysis.mean_auc(metric, analysis.reference_noise, misjudged=True),
        "auc_of": lambda metric: analysis.mean_auc(metric, analysis.reference_noise),
        "seconds_of": lambda metric: analysis.seconds.get(metric, math.nan),
    }


def _figures(drawings: Mapping[str, Drawing], drawn: Sequence[str]) -> dict[str, Drawing]:
    return {name: drawings[name] for name in drawn}


def render_page(
    analysis: StudyAnalysis,
    *,
    drawings: Mapping[str, Drawing],
    drawn: Sequence[str],
    figure_folder: str,
    site: bool = False,
) -> str:
    """The page of findings in Markdown.

    Parameters
    ----------
    analysis : StudyAnalysis
    drawings : mapping of str to Drawing
        Captions and alternative texts.
    drawn : sequence of str
        Names of the figures that exist.
    figure_folder : str
        Where they lie, seen from the page.
    site : bool
        Whether the page is one of the documentation, with links to others.
    """
    template = _environment().get_template("critical_analysis.md.j2")
    text = template.render(
        **context(analysis), figures=_figures(drawings, drawn), figure_folder=figure_folder, site=site
    )
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def write_paper(
    analysis: StudyAnalysis,
    folder: Path,
    *,
    drawings: Mapping[str, Drawing],
    drawn: Sequence[str],
    figure_folder: str,
    root: Path | None = None,
) -> list[Path]:
    """The paper: Typst source, bibliography and, where Typst is installed, PDF; arguments as above.

    Parameters
    ----------
    folder : Path
        Where ``paper.typ``, ``paper.bib`` and ``paper.pdf`` go.
    root : Path, optional
        Folder that the figures are read from, at or above ``folder``.
    """
    template = _environment().get_template("paper.typ.j2")
    source, bibliography, pdf = (folder / f"paper.{suffix}" for suffix in ("typ", "bib", "pdf"))
    folder.mkdir(parents=True, exist_ok=True)
    text = template.render(
        **context(analysis), figures=_figures(drawings, drawn), figure_folder=figure_folder
    )
    source.write_text(text, encoding="utf-8")
    packaged = resources.files("dosemover.study") / "templates" / "paper.bib"
    bibliography.write_text(packaged.read_text(encoding="utf-8"), encoding="utf-8")
    return [source, bibliography, *_compiled(source, pdf, root or folder)]


def _compiled(source: Path, pdf: Path, root: Path) -> list[Path]:
    """The PDF, or nothing where Typst is missing."""
    try:
        import typst
    except ImportError:
        _log.warning(
            "the Python package 'typst' is not installed. The PDF was left out; %s is its source. "
            "Install it with: pip install 'dosemover[study]'",
            source.name,
        )
        return []
    import datetime

    made = datetime.datetime.fromtimestamp(0, datetime.UTC)
    how: dict[str, Any] = {"root": str(root), "ignore_system_fonts": True, "timestamp": made}
    try:
        typst.compile(str(source), output=str(pdf), **how)
    except typst.TypstError as error:
        if "internal error" not in str(error):
            raise
        _log.info("the PDF goes without accessibility tags: %s", error)  # they fail on some floating figures
        typst.compile(str(source), output=str(pdf), pdf_tags=False, **how)
    return [pdf]
