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


def sections_of_the_review():
    """Sections of the review below its first level, by title."""
    text = (DOCS / "review.md").read_text(encoding="utf-8")
    parts = re.split(r"^### (.*)\n", text, flags=re.MULTILINE)
    return {
        title: re.split(r"^## ", body, flags=re.MULTILINE)[0]
        for title, body in zip(parts[1::2], parts[2::2], strict=True)
    }


def test_the_review_describes_every_metric_of_the_registry():
    sections = sections_of_the_review()
    for family in FAMILIES:
        for key in family.keys(CompareSettings(gamma=((3, 3),))):
            stem = re.sub(r"_(10|20|80|95)(_|$)", r"_50\2", key)  # isodose levels are named once
            if stem.endswith("_two_sided_passing_rate_percent"):
                stem = "..._two_sided_..."
            named = [title for title, body in sections.items() if f"`{stem}`" in body]
            assert named, f"no section of the review describes {key}"


def test_sections_of_the_review_say_what_a_metric_is_sees_and_misses_and_its_settings():
    for title, body in sections_of_the_review().items():
        if "`" not in body:
            continue
        for words in ("**See", "**Cannot see**", "**Settings**"):
            assert words in body, f"{title}: {words} is missing"
        definition = body.split("**See")[0]
        assert "$" in definition or "| what it is |" in definition, f"{title}: no formula defines it"


def test_the_review_cites_what_defines_or_warns():
    cited = [title for title, body in sections_of_the_review().items() if "{cite:" in body]
    assert len(cited) >= 14


def test_entries_of_the_bibliography_have_what_their_kind_needs(bibliography):
    for key, entry in bibliography.items():
        assert {"author", "title", "year"} <= entry.keys(), key
        assert re.fullmatch(r"(1[89]|20)\d\d", entry["year"]), key
        surname = re.sub(r"[^a-z]", "", entry["author"].split(",")[0].lower())
        assert key in ("gum2008", "icru83") or surname.startswith(key.rstrip("0123456789")), key
        if "doi" in entry:
            assert re.fullmatch(r"10\.\d{4,9}/\S+", entry["doi"]), key
        if "journal" in entry:
            assert {"volume", "pages"} <= entry.keys(), key
            assert re.fullmatch(r"[A-Za-z]?\d+(--[A-Za-z]?\d+)?", entry["pages"]), key


def test_every_entry_of_the_bibliography_is_cited(bibliography):
    places = [*DOCS.glob("*.md"), *(ROOT / "src").rglob("*.py"), *(ROOT / "tests").glob("*.py")]
    text = "\n".join(path.read_text(encoding="utf-8") for path in places)
    for key, entry in bibliography.items():
        surname = re.sub(r"\\['\"]|[{}]", "", entry["author"]).split(",")[0]
        by_name = rf"{re.escape(surname)}[^\n]{{0,60}}{entry['year']}"
        assert re.search(rf"\b{key}\b", text) or re.search(by_name, text), f"nothing cites {key}"


def test_the_paper_cites_entries_of_the_same_bibliography(bibliography):
    text = (ROOT / "src/dosemover/study/templates/paper.bib").read_text(encoding="utf-8")
    source = (ROOT / "src/dosemover/study/templates/paper.typ.j2").read_text(encoding="utf-8")
    entries = dict(re.findall(r"^@\w+\{(\w+),\n(.*?)^\}", text, re.MULTILINE | re.DOTALL))
    for key, body in entries.items():
        assert f"@{key}" in source, f"the paper does not cite {key}"
        for field in ("year", "volume", "pages", "doi"):
            found = re.search(rf"\b{field} = \{{([^}}]*)\}}", body)
            assert (found[1] if found else None) == bibliography[key].get(field), f"{key}: {field}"


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


def test_help_reads_on_the_page_as_it_does_in_a_terminal():
    docs = pytest.importorskip("command_line", reason="Sphinx is not installed: pip install --group docs")
    for name, parser in docs.commands().items():
        for line in docs.markdown(name, parser):
            assert line != ": ", f"an argument of {name} has no help"
    study = docs.markdown("study", docs.commands()["study"])
    assert "### study report" in study
    simulate = docs.markdown("simulate", docs.commands()["simulate"])
    assert "`--moments [DEGREE]`" in simulate
    assert any("`dmd_mm.floor<0.1`" in line and "`--histories`" in line for line in simulate)
    assert docs._escape("a [b] of 'x_y<1' and the map's 5 %% of *z*") == (
        r"a \[b\] of `x_y<1` and the map's 5 % of \*z\*"
    )


def test_formulas_keep_the_spaces_and_limits_of_tex():
    docs = pytest.importorskip("mathml", reason="Sphinx is not installed: pip install --group docs")
    bars = re.findall(r'<mo[^>]*form="(\w+)"[^>]*>\|</mo>', docs.mathml("2|a|^2 + |b|", display="inline"))
    assert bars == ["prefix", "postfix", "prefix", "postfix"]
    assert 'form="prefix">\u2212</mo>' in docs.mathml("a = -b", display="inline")
    assert 'form="prefix"' not in docs.mathml("a - b", display="inline")
    assert "<munder><mo>max</mo>" in docs.mathml(r"\max_x f", display="block")
    assert "<munder>" not in docs.mathml(r"\max_x f", display="inline")


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
