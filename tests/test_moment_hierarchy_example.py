"""The readable hierarchy of examples/ against the project's own solver."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from dosemover.moments import moment_sos
from test_moment_sos import tally

pytest.importorskip("cvxpy", reason="the readable hierarchy needs cvxpy")


@pytest.fixture(scope="module")
def example():
    path = Path(__file__).resolve().parents[1] / "examples" / "moment_hierarchy.py"
    spec = importlib.util.spec_from_file_location("moment_hierarchy", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("solver", ["CVXOPT", "CLARABEL"])
@pytest.mark.parametrize(
    ("name", "order"), [("A", 1), ("A", 2), ("A", 3), ("B", 3), ("C", 1), ("C", 2), ("D", 1)]
)
def test_general_solvers_agree_with_the_fast_one(example, name, order, solver, record_validation):
    x, weights, image, half_y, _ = example.case(name)
    found = moment_sos(
        reference=tally(x, weights, np.ones(x.shape[1]), 2 * order),
        evaluated=tally(image, weights, half_y, 2 * order),
        order=order,
        tolerance=1e-7,
    )
    assert example.bound(name, order, solver) == pytest.approx(found.primal_mm**2, abs=1e-6)
    record_validation(
        "moment-SoS by the own interior-point method",
        f"cvxpy with {solver}",
        reached=abs(example.bound(name, order, solver) - found.primal_mm**2),
        tolerance=1e-6,
        unit="mm²",
    )


def test_the_script_fits_on_a_few_pages(example):
    assert len(Path(example.__file__).read_text(encoding="utf-8").splitlines()) <= 150
