"""Are the p values of every metric right? Null pairs of real and simulated batches, metric by metric.

    python studies/calibration_metrics.py --data DIR --raw DIR [--pairs 60] [--cases NAME,...] [--collect]

The table beside that of `calibration.py`: every metric of a comparison that it leaves out. 19 draws or
relabellings for each. Costly metrics: by batches on voxels merged in twos, the slowest for every fourth pair;
by uncertainty maps on voxels as they are, for every third pair, the slowest not at all. Results go to
docs/calibration (metrics.csv, metrics.md). A run goes on from the p values in the folder ``raw``; with
``--cases`` it adds to them and writes no table; ``--collect`` writes the tables of what is there.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import calibration
import numpy as np
from numpy.typing import NDArray

from dosemover.comparison import families
from dosemover.comparison.dvh import POSSIBLE_DOSE
from dosemover.comparison.registry import select
from dosemover.comparison.settings import CompareSettings
from dosemover.dose import Structure
from dosemover.grid import Grid

CASES = ("e_high_12", "p_low_10", "kv_high_10", "thorax_10")
METHODS = ("batches", "uncertainty")
NEEDS_A_PRESCRIPTION = ("synthrad",)
ON_MERGED_VOXELS = (
    "dmd", "kr", "w1", "w2", "sliced_w1", "sliced_w2", "sobolev_w2", "sinkhorn_divergence", "emd",
)  # fmt: skip
"""Families that batches judge on voxels twice as wide. Uncertainty maps judge them on voxels as they are: too
few voxels show no correlation of their noise."""
SLOW, EVERY = ("w2_mm", "sinkhorn_divergence_mm"), 4
"""Metrics that one pair of so many is tried with, by batches."""
SLOWEST, EVERY_FEW = (*SLOW, "emd_mm"), 3
"""Costly metrics that are not tried by uncertainty maps, and how few pairs the others are tried with."""


def other_metrics() -> tuple[list[str], list[str]]:
    """Metrics that the table of `calibration` leaves out: on the voxels as they are, and on merged ones."""
    settings = CompareSettings(metrics=("all",), gamma=((2.0, 2.0), (3.0, 3.0)))
    wanted = select(families.FAMILIES, settings)
    plain, merged = [], []
    for family in families.FAMILIES:
        if family.name in wanted and family.name not in NEEDS_A_PRESCRIPTION:
            keys = [key for key in family.keys(settings) if key not in calibration.METRICS]
            (merged if family.name in ON_MERGED_VOXELS else plain).extend(keys)
    return plain, merged


def p_values(pool: NDArray[Any], case: calibration.Case, method: str, pair: int) -> dict[str, float | None]:
    """p values of one method for one random pair."""
    plain, costly = other_metrics()
    by_batches = method == "batches"
    if by_batches:
        costly = [key for key in costly if key not in SLOW or pair % EVERY == 0]
    else:
        costly = [key for key in costly if key not in SLOWEST and pair % EVERY_FEW == 0]
    found: dict[str, float | None] = {}
    for keys, merged in ((plain, False), (costly, by_batches)):
        if not keys:
            continue
        sides, rng = calibration.null_pair(pool, case, method, pair, merged=merged)
        results = calibration.judged(
            *sides,
            keys,
            draws=calibration.DRAWS,
            seed=pair,
            independent=False,
            structures=_structures(sides[0].grid),
        )
        found |= {key: calibration.spread(results[key], rng) for key in keys}
    return found


def _structures(grid: Grid) -> tuple[Structure, ...]:
    """A target in the middle half of the region along y and x, an organ beside it, and all voxels."""
    _, ny, nx = grid.shape
    target, organ = np.zeros(grid.shape), np.zeros(grid.shape)
    target[:, ny // 4 : ny - ny // 4, nx // 4 : nx - nx // 4] = 1.0
    organ[:, :, : nx // 4] = 1.0
    drawn = {"PTV70": target, "SpinalCord": organ, POSSIBLE_DOSE: np.ones(grid.shape)}
    return tuple(Structure(name=name, fraction=one, grid=grid) for name, one in drawn.items())


def table(found: dict[tuple[str, str], list[dict[str, float | None]]]) -> list[dict[str, Any]]:
    """One row for each metric, case and method."""
    rows = []
    for key in [key for group in other_metrics() for key in group]:
        for (case, method), pairs in found.items():
            p = [value for one in pairs if (value := one.get(key)) is not None]
            rows.append({"metric": key, "case": case, "method": method} | calibration.summary(p))
    return rows


def markdown(rows: list[dict[str, Any]]) -> str:
    """One line for each metric: how often 5 % tests fire, in all cases and in the worst; KS below 0.01."""
    head = ["metric", "pairs"]
    head += [f"{method}: {what}" for method in METHODS for what in ("all / %", "worst case / %", "KS < 0.01")]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for key in dict.fromkeys(row["metric"] for row in rows):
        own = [row for row in rows if row["metric"] == key and row["pairs"]]
        if not own:
            continue
        cells = [f"`{key}`", str(max(_pairs(own, method) for method in METHODS))]
        for method in METHODS:
            cells += _cells([row for row in own if row["method"] == method])
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _pairs(rows: Iterable[dict[str, Any]], method: str) -> int:
    """Pairs of one method over all cases."""
    return sum(row["pairs"] for row in rows if row["method"] == method)


def _cells(rows: list[dict[str, Any]]) -> list[str]:
    """Share that fires over all cases, the worst case, and how many are not uniform."""
    if not rows:
        return ["", "", ""]
    fired = sum(row["fires_percent"] * row["pairs"] for row in rows) / sum(row["pairs"] for row in rows)
    worst = max(rows, key=lambda row: row["fires_percent"])
    uneven = sum(row["ks_p"] < 0.01 for row in rows)
    return [f"{fired:.1f}", f"{worst['fires_percent']:g} ({worst['case']})", f"{uneven} of {len(rows)}"]


def write(out: Path, rows: list[dict[str, Any]]) -> None:
    """The table as CSV and as Markdown."""
    with (out / "metrics.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    (out / "metrics.md").write_text(markdown(rows))


def main() -> None:
    """Run what is missing, and write the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--pairs", type=int, default=60)
    parser.add_argument(
        "--raw", type=Path, required=True, help="folder that keeps the p values of every pair"
    )
    parser.add_argument("--out", type=Path, default=calibration.OUT)
    parser.add_argument("--cases", help="these alone, and no table")
    parser.add_argument("--collect", action="store_true", help="run nothing")
    options = parser.parse_args()
    options.raw.mkdir(parents=True, exist_ok=True)
    cases = calibration.CASES | calibration.UNSEEN
    chosen = options.cases.split(",") if options.cases else CASES
    pools = calibration.pools(options.data, {cases[name].beam for name in chosen})
    found = {}
    for name in chosen:
        for method in METHODS:
            path = options.raw / f"{name}-{method}.jsonl"
            done = len(path.read_text().splitlines()) if path.exists() else 0
            one = partial(p_values, pools[cases[name].beam], cases[name], method)
            pairs = min(done, options.pairs) if options.collect else options.pairs
            found[name, method] = calibration.kept_p_values(one, pairs, path)
            print(name, method, len(found[name, method]), flush=True)
    if not options.cases:
        write(options.out, table(found))


if __name__ == "__main__":
    main()
