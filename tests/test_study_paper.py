"""The report of a study: every number comes from the table, and nothing breaks the texts."""

import csv
import json
import logging
import re
import sys

import pytest

from study_tables import costs, made_up, small_findings

pytest.importorskip("pyarrow")

from dosemover.errors import InputError
from dosemover.study.paper import typst_text
from dosemover.study.report import DRAWINGS, read_analysis, write_report
from dosemover.study.table import COST_COLUMNS, table_of, write_table


def drawn_here():
    """Figures that a study of which no voxel size is known has."""
    return set(DRAWINGS) - {"detection_fine"}


def rows_of(columns):
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Directory of a study as the runner leaves it."""
    folder = tmp_path_factory.mktemp("study")
    write_table(table_of(rows_of(made_up(replicates=8))), folder / "measurements.parquet")
    write_table(table_of(rows_of(costs()), COST_COLUMNS), folder / "costs.parquet")
    provenance = {
        "bank_cpu_seconds": 3600.0,
        "measurement_cpu_seconds": 1800.0,
        "settings": {"cases": {"water": {"title": "a field in [water] #1 | <2>", "engine": "builtin"}}},
    }
    (folder / "provenance.json").write_text(json.dumps(provenance), encoding="utf-8")
    (folder / "findings.json").write_text(json.dumps(small_findings()), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def report(study, tmp_path_factory):
    """Files of its report."""
    folder = tmp_path_factory.mktemp("report")
    return folder, write_report(study, output=folder)


def test_report_writes_what_it_says(report):
    folder, files = report
    assert all(file.is_file() and file.stat().st_size > 0 for file in files)
    names = {file.relative_to(folder).as_posix() for file in files}
    assert {f"figures/{name}.svg" for name in drawn_here()} <= names
    assert {"report.md", "paper.typ", "paper.bib", "tables/smallest.csv"} <= names


def test_pages_hold_the_numbers_of_the_table(report, study):
    folder, _ = report
    text = (folder / "report.md").read_text(encoding="utf-8")
    analysis = read_analysis(study)
    grouped = f"{analysis.table.measurements:,}".replace(",", "\u202f")
    assert f"{grouped} values of {len(analysis.table.metrics)} metrics" in text
    assert "1.5 hours of processor time" in text
    assert f"| DMD | {analysis.mean_auc('dmd_mm', 5.0):.3f} |" in text
    for name in drawn_here():
        assert f"(figures/{name}.svg)" in text


def test_conclusions_are_drawn_of_the_own_study_alone(report, study, tmp_path):
    from dosemover.study.paper import render_page, write_paper

    folder, _ = report
    assert "## Recommendations" not in (folder / "report.md").read_text(encoding="utf-8")
    analysis = read_analysis(study)
    analysis.provenance["study"] = "noise"
    analysis.provenance["remeasured"] = {
        "cells": 3,
        "values": 123,
        "metrics": 9,
        "equal": 8,
        "tolerance": 1e-6,
        "differing": ["DMD by up to 1 %"],
    }
    how = {"drawings": DRAWINGS, "drawn": [], "figure_folder": "figures"}
    text = render_page(analysis, site=True, **how)
    assert "## Recommendations" in text
    assert "123 values of 3 cells" in text
    assert "(noise.md)" in text
    write_paper(analysis, tmp_path, **how)
    assert "= Discussion" in (tmp_path / "paper.typ").read_text(encoding="utf-8")


def test_nothing_is_left_to_fill_in(report):
    folder, _ = report
    for name in ("report.md", "paper.typ"):
        text = (folder / name).read_text(encoding="utf-8")
        assert not re.search(r"<<|>>|<%|%>|\bnan\b|\bNone\b|\binf\b|built-in method", text)


def test_tables_of_the_page_have_as_many_cells_in_every_row(report):
    folder, _ = report
    lines = (folder / "report.md").read_text(encoding="utf-8").splitlines()
    width = None
    for line in lines:
        if not line.startswith("|"):
            width = None
            continue
        cells = len(re.findall(r"(?<!\\)\|", line))
        assert width in (None, cells), line
        width = cells


def test_csv_holds_the_powers(report, study):
    folder, _ = report
    with (folder / "tables" / "detection.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    analysis = read_analysis(study)
    one = analysis.by_condition["water", "shift", 1.0, 5.0]["dmd_mm"]
    (row,) = [
        r
        for r in rows
        if (r["case"], r["change"], r["magnitude"], r["noise_percent"], r["metric"])
        == ("water", "shift", "1", "5", "dmd_mm")
    ]
    assert float(row["auc"]) == pytest.approx(one.auc.value, rel=1e-3)
    assert float(row["power"]) == pytest.approx(one.power.value, rel=1e-3)


def test_the_paper_becomes_a_pdf(report):
    pytest.importorskip("typst")
    folder, files = report
    assert folder / "paper.pdf" in files
    assert (folder / "paper.pdf").read_bytes().startswith(b"%PDF")


def test_without_typst_the_pdf_is_left_out_with_a_reason(study, tmp_path, monkeypatch, caplog):
    from dosemover.study import report

    monkeypatch.setitem(sys.modules, "typst", None)
    monkeypatch.setattr(report, "DRAWINGS", {"atoms": DRAWINGS["atoms"]})
    with caplog.at_level(logging.WARNING):
        files = write_report(study, output=tmp_path)
    assert "'typst' is not installed" in caplog.text
    assert not any(file.suffix == ".pdf" for file in files)
    assert tmp_path / "paper.typ" in files


def test_a_study_that_runs_still_is_reported(study, tmp_path, monkeypatch):
    from dosemover.study import report

    monkeypatch.setattr(report, "DRAWINGS", {})
    columns = made_up(replicates=2, levels=(5.0,))
    write_table(table_of(rows_of(columns)), tmp_path / "measurements.parquet")
    files = write_report(tmp_path)
    assert tmp_path / "report" / "report.md" in files


def test_broken_findings_are_refused(study, tmp_path):
    for name in ("measurements.parquet", "costs.parquet"):
        (tmp_path / name).write_bytes((study / name).read_bytes())
    (tmp_path / "findings.json").write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match="is no JSON file"):
        read_analysis(tmp_path)


def test_a_directory_without_measurements_is_refused(tmp_path):
    with pytest.raises(InputError, match="no measurements"):
        write_report(tmp_path)


def test_typst_sees_no_commands_in_texts():
    assert typst_text("#a $b$ *c* _d_ <e> @f [g] \\") == r"\#a \$b\$ \*c\* \_d\_ \<e\> \@f \[g\] \\"
