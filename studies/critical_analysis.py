"""The critical analysis: figures, tables, page and paper, rebuilt from the shipped table of the study.

    python studies/critical_analysis.py [DIR]

DIR is the directory of the study, ``studies/noise`` by default. Writes docs/critical_analysis.md, the figures
and small tables in docs/critical_analysis, and the paper in docs/paper. Takes about a minute.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from dosemover.study.paper import render_page, write_paper
from dosemover.study.report import DRAWINGS, read_analysis, write_figures, write_tables

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
SHIPPED_TABLES = ("floors", "smallest", "histories", "cost")


def main() -> None:
    """Rebuild everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path, nargs="?", default=ROOT / "studies" / "noise")
    parser.add_argument("-o", "--output", type=Path, default=DOCS)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    analysis = read_analysis(options.directory)
    folder = options.output / "critical_analysis"
    written = write_tables(analysis, folder / "tables", SHIPPED_TABLES)
    drawn = write_figures(analysis, folder / "figures")
    page = options.output / "critical_analysis.md"
    text = render_page(
        analysis, drawings=DRAWINGS, drawn=drawn, figure_folder="critical_analysis/figures", site=True
    )
    page.write_text(text, encoding="utf-8")
    paper = write_paper(
        analysis,
        options.output / "paper",
        drawings=DRAWINGS,
        drawn=drawn,
        figure_folder="/critical_analysis/figures",
        root=options.output,
    )
    for path in (*written, page, *paper):
        print(path)


if __name__ == "__main__":
    main()
