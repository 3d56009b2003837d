"""Fixtures shared by all tests."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import settings

import dosemover

settings.register_profile("dosemover", deadline=None, derandomize=True)
settings.load_profile("dosemover")

DATA = Path(os.environ.get("DOSEMOVER_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))


@pytest.fixture(scope="session")
def data_path():
    """Path of a file of the shared real data; skips where it is absent."""

    def find(name: str) -> Path:
        path = DATA / name
        if not path.exists():
            pytest.skip(f"real data absent: {name} not under {DATA} (DOSEMOVER_DATA names another place)")
        return path

    return find


VALIDATION = pytest.StashKey[dict]()
"""Rows that the tests of a run have recorded, by test and quantity."""


def pytest_addoption(parser):
    parser.addoption(
        "--validation",
        metavar="DIR",
        help="run the tests that have an outside witness and write what they reach to DIR",
    )


def pytest_configure(config):
    config.stash[VALIDATION] = {}


def pytest_collection_modifyitems(config, items):
    if config.getoption("--validation"):
        chosen = [item for item in items if "record_validation" in item.fixturenames]
        config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
        items[:] = chosen


@pytest.fixture
def record_validation(request):
    """Record how close a quantity comes to its outside witness; further than the tolerance fails."""
    rows = request.config.stash[VALIDATION]
    test = f"{request.node.path.name}::{request.node.originalname}"

    def record(quantity: str, witness: str, *, reached: float, tolerance: float, unit: str = "") -> None:
        reached, tolerance = float(reached), float(tolerance)
        assert reached <= tolerance, f"{quantity} against {witness}: {reached:.3g} {unit} > {tolerance:.3g}"
        row = rows.setdefault((test, quantity, witness), {"reached": 0.0, "tolerance": 0.0, "cases": 0})
        worst = reached / tolerance >= row["reached"] / (row["tolerance"] or 1.0)
        if worst or not row["cases"]:
            row |= {"reached": reached, "tolerance": tolerance}
        row |= {"unit": unit, "cases": row["cases"] + 1, "version": dosemover.__version__}

    return record


def pytest_sessionfinish(session, exitstatus):
    folder = session.config.getoption("--validation")
    if not folder or exitstatus != 0:
        return
    by_module = {}
    for (test, quantity, witness), row in session.config.stash[VALIDATION].items():
        by_module.setdefault(test.split("::")[0].removesuffix(".py"), []).append(
            {"test": test, "quantity": quantity, "witness": witness, **row}
        )
    Path(folder).mkdir(parents=True, exist_ok=True)
    for module, rows in by_module.items():
        path = Path(folder) / f"{module.removeprefix('test_')}.json"
        path.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
