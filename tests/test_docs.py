"""The documentation: bibliography, generated tables and the pieces that build the site."""

import ast
import json
import re
import sys
from pathlib import Path

import pytest

from dosemover.comparison.families import FAMILIES
from dosemover.comparison.settings import CompareSettings
from dosemover.report.citations import REFERENCES

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
sys.path.insert(0, str(DOCS / "_extensions"))
sys.path.insert(0, str(DOCS / "validation"))

KEY = re.compile(r"\b[a-z]+(?:19|20)\d\d[a-z]?\b")


@pytest.fixture(scope="module")
def bibliography():
    """Fields of each entry, braces and TeX accents left in."""
    text = (DOCS / "references.bib").read_text(encoding="utf-8")
    entries = {}
    for key, body in re.findall(r"^@(?!comment)\w+\{(\w+),\n(.*?)^\}", text, re.MULTILINE | re.DOTALL):
        entries[key] = dict(re.findall(r"(\w+) = \{((?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*)\}", body))
    return entries


def test_reports_cite_what_the_bibliography_holds(bibliography):
    for reference in REFERENCES:
        entry = bibliography[reference.key]
        assert int(entry["year"]) == reference.year, reference.key
        assert entry.get("doi", "") == reference.doi, reference.key
        volume, _, pages = reference.locator.partition(", ")
        assert entry.get("volume", "") == volume, reference.key
        assert entry.get("pages", "").replace("--", "–") == pages, reference.key


def test_docstrings_cite_keys_of_the_bibliography(bibliography):
    section = re.compile(r"References\n\s+-+\n(.*?)(?:\n\s*\n|\Z)", re.DOTALL)
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                for found in section.findall(ast.get_docstring(node) or ""):
                    unknown = set(KEY.findall(found)) - set(bibliography)
                    assert not unknown, f"{path.name}: {node.name} cites {unknown}"


def test_pages_cite_keys_of_the_bibliography(bibliography):
    for path in DOCS.glob("*.md"):
        for keys in re.findall(r"\{cite:[pt]\}`([^`]+)`", path.read_text(encoding="utf-8")):
            assert set(keys.split(",")) <= set(bibliography), path.name


def test_the_review_speaks_of_every_metric():
    text = (DOCS / "review.md").read_text(encoding="utf-8")
    settings = CompareSettings(gamma=((3, 3),))
    for family in FAMILIES:
        for key in family.keys(settings):
            stem = re.sub(r"_(10|20|80|95)(_|$)", r"_50\2", key)  # isodose levels are named once
            stem = re.sub(r"passing_[23]_percent", "passing_1_percent", stem)
            known = stem in text or stem.endswith("_two_sided_passing_rate_percent")
            assert known or stem.startswith("dmd_"), key


def test_images_of_pages_exist_and_say_what_they_show():
    for path in DOCS.glob("*.md"):
        text = path.read_text(encoding="utf-8")
        for words, target in re.findall(r"!\[([^\]]*)\]\(([^)]+)\)", text):
            assert words, f"{path.name}: {target} has no text"
            assert (DOCS / target).exists(), f"{path.name}: {target}"
        for target in re.findall(r"```\{figure\} (\S+)", text):
            assert (DOCS / target).exists(), f"{path.name}: {target}"


def test_every_page_has_one_title():
    for path in DOCS.glob("*.md"):
        text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
        titles = re.findall(r"^# ", text, re.MULTILINE)
        assert len(titles) == (0 if path.name in ("readings.md", "changes.md") else 1), path.name


def test_the_validation_page_is_that_of_the_records():
    import page

    found = page.records(DOCS / "validation")
    assert (DOCS / "validation.md").read_text(encoding="utf-8") == page.page(found)
    assert set(found) <= {module for modules in page.AREAS.values() for module in modules}
    rows = [row for module in found.values() for row in module]
    assert len(rows) >= 40
    assert all(row["reached"] <= row["tolerance"] for row in rows)


def test_every_validation_row_is_of_a_test_that_exists():
    for path in (DOCS / "validation").glob("*.json"):
        for row in json.loads(path.read_text(encoding="utf-8")):
            module, test = row["test"].split("::")
            source = (ROOT / "tests" / module).read_text(encoding="utf-8")
            assert f"def {test}(" in source, row["test"]
            assert "record_validation" in source


def test_deviations_read_as_people_write_them():
    import page

    assert page.amount(0.012, "relative") == "1.2 %"
    assert page.amount(2.4e-7, "mm") == "2.4 · 10⁻⁷ mm"
    assert page.amount(0, "") == "0"


def test_bars_are_escaped_outside_literals_and_formulas():
    docs = pytest.importorskip("plain_docstrings", reason="Sphinx is not installed: pip install --group docs")
    lines = ["The value |x| of ``|y|``.", "", ".. math::", "", "    |z|", "", "Then |a", "b|."]
    escaped = docs.escape_bars(lines)
    assert escaped[0] == r"The value \|x\| of ``|y|``."
    assert escaped[4] == "    |z|"
    assert escaped[-2:] == [r"Then \|a", r"b\|."]


def test_bibliography_keys_of_docstrings_become_citations():
    docs = pytest.importorskip("plain_docstrings", reason="Sphinx is not installed: pip install --group docs")
    lines = ["Text low1998.", ".. rubric:: References", "low1998, nobody2000."]
    linked = docs.link_references(lines, frozenset({"low1998"}))
    assert linked == ["Text low1998.", ".. rubric:: References", ":cite:t:`low1998`, nobody2000."]


def test_every_command_has_its_section():
    docs = pytest.importorskip("command_line", reason="Sphinx is not installed: pip install --group docs")
    for name, parser in docs.commands().items():
        text = "\n".join(docs.markdown(name, parser))
        assert text.startswith(f"## {name}\n")
        for action in parser._actions:
            for option in action.option_strings:
                assert option in text or option in ("-h", "--help"), f"{name} {option}"


def test_links_to_absent_pages_are_left_out(tmp_path):
    docs = pytest.importorskip("optional_pages", reason="Sphinx is not installed: pip install --group docs")
    text = "review\ncritical_analysis\n| [Gallery](gallery.md) | x |\n"
    assert docs.leave_out(text, tmp_path) == "review\n"
    (tmp_path / "gallery.md").touch()
    assert "gallery.md" in docs.leave_out(text, tmp_path)


def test_pages_that_no_toctree_names_join_the_guide(tmp_path):
    docs = pytest.importorskip("optional_pages", reason="Sphinx is not installed: pip install --group docs")
    for name in ("index", "guide", "review", "new"):
        (tmp_path / f"{name}.md").write_text("guide\nreview\nthe_other_pages\n" if name == "guide" else "")
    assert docs.unlisted(tmp_path) == ["new"]
    assert docs.leave_out("a\nthe_other_pages\nb", tmp_path) == "a\nnew\nb"
