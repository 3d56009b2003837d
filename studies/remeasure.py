"""Does a table of a study hold with the program as it is? A sample of its cells is measured again.

    python studies/remeasure.py studies/noise.toml DIR [-n CELLS] [-o PROVENANCE.json]

DIR is the directory of the study with its banks and parts. Two replicates of each cell drawn are compared;
what came of it is written into the provenance as ``remeasured``.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path
from typing import Any

import numpy as np

from dosemover.study.analysis_labels import label
from dosemover.study.analysis_verdicts import number
from dosemover.study.bank import read_bank
from dosemover.study.chunks import measured_again
from dosemover.study.design import read_study
from dosemover.study.runner import planned
from dosemover.study.table import BANKS, PROVENANCE

TOLERANCE = 1e-6
"""Relative difference up to which two values are called equal."""

ABSOLUTE = 1e-7
SEED = 1


def differences(directory: Path, study: Path, cells: int) -> tuple[int, int, dict[str, float]]:
    """Cells drawn, values compared, and the largest relative difference of each metric."""
    plan = planned(read_study(study), directory)
    drawn = random.Random(SEED).sample(plan.measured(), min(cells, len(plan.measured())))
    worst: dict[str, float] = {}
    values = 0
    for chunk in drawn:
        banks = [read_bank(directory / BANKS / key.name) for key in (chunk.reference, chunk.evaluated)]
        for metric, before, now in measured_again(chunk, plan.part(chunk), *banks):
            values += 1
            worst[metric] = max(worst.get(metric, 0.0), _difference(before, now))
    return len(drawn), values, worst


def _difference(before: float | None, now: float | None) -> float:
    """Relative difference of two values; infinite where one of them is missing."""
    known = [value is not None and bool(np.isfinite(value)) for value in (before, now)]
    if before is None or now is None or not all(known):
        return 0.0 if not any(known) else np.inf
    gap = abs(before - now)
    return 0.0 if gap < ABSOLUTE else gap / max(abs(before), abs(now))


def main() -> None:
    """Measure again and write what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", type=Path)
    parser.add_argument("directory", type=Path)
    parser.add_argument("-n", "--cells", type=int, default=24)
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    cells, values, worst = differences(options.directory, options.study, options.cells)
    differing = {metric: d for metric, d in worst.items() if d > TOLERANCE}
    found: dict[str, Any] = {
        "cells": cells,
        "values": values,
        "metrics": len(worst),
        "equal": len(worst) - len(differing),
        "tolerance": TOLERANCE,
        "differing": [f"{label(m)} by up to {number(100 * d, 1)} %" for m, d in sorted(differing.items())],
    }
    path = options.output or options.directory / PROVENANCE
    facts = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(facts | {"remeasured": found}, indent=1), encoding="utf-8")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
