"""The validation page against the tests that it quotes: nothing stale, nothing missing."""

from __future__ import annotations

import ast
import importlib.util
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
RECORDS = TESTS.parent / "docs" / "validation"
REMEDY = "run `make validation` and commit docs/validation and docs/validation.md"


def load_page():
    """The script that writes the page."""
    spec = importlib.util.spec_from_file_location("validation_page", RECORDS / "page.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PAGE = load_page()
ROWS = [(module, row) for module, rows in PAGE.records(RECORDS).items() for row in rows]


def witnessed(path):
    """Tests of a module that record what they reach."""
    return {
        node.name
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef)
        and node.name.startswith("test_")
        and "record_validation" in [one.arg for one in node.args.args]
    }


def spoken(path):
    """Patterns of the strings in a module; what an f-string fills in may be anything."""
    patterns = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            patterns.add(re.escape(node.value))
        elif isinstance(node, ast.JoinedStr):
            parts = [re.escape(str(p.value)) if isinstance(p, ast.Constant) else ".+" for p in node.values]
            patterns.add("".join(parts))
    patterns.discard(".+")
    return re.compile("|".join(f"(?:{one})" for one in sorted(patterns)), re.DOTALL)


TESTED = {path.stem.removeprefix("test_"): witnessed(path) for path in sorted(TESTS.glob("test_*.py"))}


@pytest.mark.parametrize("module", sorted(name for name, tests in TESTED.items() if tests))
def test_every_test_with_an_outside_witness_is_on_the_page(module):
    recorded = {row["test"].split("::")[1] for name, row in ROWS if name == module}
    missing = TESTED[module] - recorded
    assert not missing, f"{sorted(missing)} of test_{module}.py are not recorded: {REMEDY}"


@pytest.mark.parametrize("module", sorted({module for module, _ in ROWS}))
def test_every_row_of_the_page_is_still_tested(module):
    path = TESTS / f"test_{module}.py"
    assert path.exists(), f"{module}.json has no test module any more: delete it and {REMEDY}"
    words = spoken(path)
    for row in (row for name, row in ROWS if name == module):
        file, test = row["test"].split("::")
        assert file == path.name
        assert test in TESTED[module], f"{row['test']} is gone: {REMEDY}"
        for said in (row["quantity"], row["witness"]):
            assert words.fullmatch(said), f"{row['test']} says {said!r} no more: {REMEDY}"


def test_every_row_keeps_its_tolerance():
    for _, row in ROWS:
        assert 0 <= row["reached"] <= row["tolerance"], row["test"]
        assert row["cases"] >= 1


def test_every_recorded_module_has_a_section():
    sections = {module for modules in PAGE.AREAS.values() for module in modules}
    assert {module for module, _ in ROWS} <= sections, "name the module in AREAS of docs/validation/page.py"


def test_the_page_is_what_its_records_say():
    written = (RECORDS.parent / "validation.md").read_text(encoding="utf-8")
    assert written == PAGE.page(PAGE.records(RECORDS)), REMEDY
