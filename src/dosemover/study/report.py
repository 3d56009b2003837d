"""The report of a study: figures, tables, one page of findings, and a paper."""

from __future__ import annotations

import csv
import json
import logging
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dosemover._runtime import Progress, no_progress
from dosemover.errors import DosemoverError, InputError
from dosemover.study import figures, figures_findings
from dosemover.study.analysis_response import median_seconds
from dosemover.study.analysis_summary import TABLES, Row, StudyAnalysis
from dosemover.study.analysis_table import StudyTable
from dosemover.study.figures_style import style
from dosemover.study.paper import render_page, write_paper
from dosemover.study.table import read_costs, read_measurements, read_provenance

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FINDINGS = "findings.json"
"""Small measured studies, beside the tables of a study."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """A figure of the report."""

    draw: Callable[[StudyAnalysis], Figure | None]
    caption: str
    alt: str


DRAWINGS: dict[str, Drawing] = {
    "gamma": Drawing(
        draw=figures.figure_gamma,
        caption="Passing rate of γ 2 %/2 mm over the noise, with the noise in one map or in both. Filled: "
        "changed; open: no change. Bars: standard deviation over the replicates. Dotted: 95 %.",
        alt="Passing rates rise with noise in the evaluated map and fall with noise in the reference",
    ),
    "made_to_pass": Drawing(
        draw=figures_findings.figure_made_to_pass,
        caption="A map with too much output: noise in the evaluated map makes it pass. Left white noise, "
        "right the batches of a DOSXYZnrc simulation, fewer of them to the right.",
        alt="Passing rates of a map with too high an output over the noise",
    ),
    "responses": Drawing(
        draw=figures.figure_responses,
        caption="What six metrics read of a shift, an output change and a hot spot, with noise in both maps. "
        "Bands: standard deviation over the replicates. A metric finds a change where the curve "
        "leaves the band that it starts from.",
        alt="Response curves of six metrics at several noise levels",
    ),
    "floors": Drawing(
        draw=figures.figure_floors,
        caption="Noise floor (mean distance from the ideal value between two maps that differ by noise alone)"
        " over the histories of a map, with fitted power laws. The range of slopes is that of the "
        "cases.",
        alt="Noise floors fall as a power of the histories",
    ),
    "detection": Drawing(
        draw=figures.figure_detection,
        caption="Area under the ROC curve, changed pairs against null pairs, with noise in both maps: 0.5 is "
        "guessing, 1 is always right. Case with most conditions. Colors of the names: amounts "
        "(ochre), space (orange), transport (blue), moments (green).",
        alt="Table of AUC for every metric and change in the main case",
    ),
    "detection_fine": Drawing(
        draw=figures.figure_detection_fine,
        caption="The same for the simulated case with the smallest voxels. Gray: not measured there.",
        alt="Table of AUC for every metric and change on the finest grid",
    ),
    "detection_others": Drawing(
        draw=figures.figure_detection_others,
        caption="The same for the other simulated cases. Gray: not measured.",
        alt="Table of AUC for every metric and change in the other cases",
    ),
    "smallest": Drawing(
        draw=figures.figure_smallest,
        caption="Smallest shift and output change that a metric finds with a power of 80 % at 5 % false "
        "alarms, with 95 % intervals, in the main case and on the finest grid. Triangles pointing down: the "
        "smallest size studied is found already.",
        alt="Smallest detectable change over noise for eight metrics",
    ),
    "histories": Drawing(
        draw=figures_findings.figure_histories,
        caption="Histories per map with which a metric finds a change with a power of 80 % at 5 % false "
        "alarms, with 95 % intervals.",
        alt="Histories that each metric needs",
    ),
    "white": Drawing(
        draw=figures_findings.figure_white,
        caption="Distance of the reading from the floor in standard deviations of the floor, under white "
        "noise in both maps. White noise is a contrast, not a model of Monte Carlo.",
        alt="Table of z for every metric and change under white noise",
    ),
    "bias": Drawing(
        draw=figures.figure_bias,
        caption="Reading under noise over the reading at the least noise of the study. 1 is no bias.",
        alt="Bias of nine metrics over noise",
    ),
    "cost": Drawing(
        draw=figures.figure_cost,
        caption="Mean AUC over all cases and changes against the processor time of the family that a metric "
        "is computed with.",
        alt="Detection power against cost of every metric",
    ),
    "costs": Drawing(
        draw=figures_findings.figure_costs,
        caption="Processor time (one thread) of the distances and of their estimates from moments for a field"
        " shifted by 1 mm, 2 % noise in both maps.",
        alt="Cost of distances and of moments over the number of voxels",
    ),
    "smoothing": Drawing(
        draw=figures_findings.figure_smoothing,
        caption="Smoothers on a map of few batches, judged against the mean of all others: RMSE, W₂ and DMD "
        "relative to the raw map. Bars: standard deviation over five maps.",
        alt="Smoothers lower RMSE and can raise W₂",
    ),
    "atoms": Drawing(
        draw=figures_findings.figure_atoms,
        caption="W₁ and W₂ between dose taken as atoms at voxel centers and as constant densities in voxels.",
        alt="W₂ of voxel atoms is biased, W₁ less so",
    ),
}
"""Figures of the report, in order."""


def write_report(
    directory: str | os.PathLike[str],
    *,
    output: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> list[Path]:
    """Write what a study shows: figures, tables, a page of findings and a paper.

    Parameters
    ----------
    directory : path
        Directory that `run_study` wrote; of one that is still running, what has been measured so far.
        Results of small measured studies are read from ``findings.json`` in it, if there.
    output : path, optional
        Directory for the report; by default ``report`` in the study's.
    progress : callable, optional
        ``progress(what, fraction)``.

    Returns
    -------
    list of pathlib.Path
        Files written: ``figures/*.svg``, ``tables/*.csv``, ``report.md``, ``paper.typ``, ``paper.bib``, and
        ``paper.pdf`` where the package typst is installed.

    Raises
    ------
    InputError
        When there are no measurements.

    Notes
    -----
    *Cost*: about a minute for a table of half a million rows.
    """
    source = Path(directory)
    target = Path(output) if output is not None else source / "report"
    tell = progress or no_progress
    tell("reading", 0.0)
    analysis = read_analysis(source)
    tell("tables", 0.1)
    written = write_tables(analysis, target / "tables")
    tell("figures", 0.5)
    drawn = write_figures(analysis, target / "figures")
    tell("texts", 0.8)
    page = target / "report.md"
    page.write_text(
        render_page(analysis, drawings=DRAWINGS, drawn=drawn, figure_folder="figures"), encoding="utf-8"
    )
    paper = write_paper(analysis, target, drawings=DRAWINGS, drawn=drawn, figure_folder="figures")
    tell("done", 1.0)
    return [*written, *(target / "figures" / f"{name}.svg" for name in drawn), page, *paper]


def read_analysis(directory: str | os.PathLike[str]) -> StudyAnalysis:
    """Analysis of the tables in a study's directory."""
    source = Path(directory)
    table = StudyTable(read_measurements(source))
    return StudyAnalysis(
        table,
        seconds=_optional(lambda: median_seconds(read_costs(source)), "costs"),
        findings=_findings(source / FINDINGS),
        provenance=_optional(lambda: read_provenance(source), "provenance"),
    )


def _optional(read: Callable[[], dict[str, Any]], what: str) -> dict[str, Any]:
    """What is there of a study that has not ended."""
    try:
        return read()
    except DosemoverError as error:
        _log.info("no %s: %s", what, error)
        return {}


def _findings(path: Path) -> dict[str, Any]:
    """Results of the small studies, empty where there are none."""
    if not path.exists():
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(
            f"{path.name} is no JSON file: {error}. The report would lack its findings. Run "
            "studies/findings.py again, or remove the file."
        ) from error


def write_figures(analysis: StudyAnalysis, folder: Path) -> list[str]:
    """Draw every figure that the study has data for; names of those drawn."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    for name, drawing in DRAWINGS.items():
        with style():
            figure = drawing.draw(analysis)
            if figure is None:
                _log.info("no data for the figure %s", name)
                continue
            figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
        drawn.append(name)
    return drawn


def write_tables(analysis: StudyAnalysis, folder: Path, names: Iterable[str] = tuple(TABLES)) -> list[Path]:
    """Write tables as CSV, numbers to four digits."""
    folder.mkdir(parents=True, exist_ok=True)
    return [_write_csv(TABLES[name](analysis), folder / f"{name}.csv") for name in names]


def _write_csv(rows: Iterable[Row], path: Path) -> Path:
    rows = list(rows)
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(
            {k: f"{v:.4g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows
        )
    return path
