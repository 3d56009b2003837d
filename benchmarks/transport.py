"""Value, interval, time and memory of the transport distances: ``python benchmarks/transport.py [size]``.

With a second argument only rows that hold that word are run. Times are CPU and wall seconds
after one warm-up call that compiles.
"""

from __future__ import annotations

import resource
import sys
import time
import warnings
from typing import Any

from transport_cases import pair

from dosemover.transport import dose_movers_distance, wasserstein_2

DISTANCES = {"DMD": dose_movers_distance, "W_2": wasserstein_2}
NOISE = {"halve": True}
QUICK = {"bounds": "upper", "fields": False, "tolerance": 1e-2}
"""Estimate and upper end alone."""

ROWS: list[tuple[str, str, dict[str, Any]]] = [
    ("DMD", "shift 1 mm", {}),
    ("DMD", "shift 3 mm", {}),
    ("DMD", "hot spot", {}),
    ("DMD", "output +2 %", {}),
    ("DMD", "bath +1 %", {}),
    ("DMD", "zeros outside", {}),
    ("DMD", "zeros outside", QUICK),
    ("DMD", "range 3 mm", {}),
    ("DMD", "shift, noise 2 %", {}),
    ("DMD", "noise 5 %", NOISE),
    ("DMD", "shift 10 mm", {}),
    ("DMD", "one field to two", {}),
    ("W_2", "shift 1 mm", {}),
    ("W_2", "shift 3 mm", {}),
    ("W_2", "shift 10 mm", {}),
    ("W_2", "zeros outside", {}),
    ("W_2", "shift, noise 2 %", {}),
]


def measure(distance: str, case: str, n: int, settings: dict[str, Any]) -> str:
    """One row of the table."""
    reference, evaluated = pair(case, n)
    marks: list[tuple[str, float]] = []
    cpu, wall = time.process_time(), time.perf_counter()

    def note(what: str, fraction: float) -> None:
        marks.append((what, time.perf_counter() - wall))

    found = DISTANCES[distance](reference=reference, evaluated=evaluated, progress=note, **settings)
    cpu, total = time.process_time() - cpu, time.perf_counter() - wall
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    lower, upper = (f"{v:9.4f}" if v is not None else "     none" for v in (found.lower, found.upper))
    gap = f"{100 * found.gap:6.2f} %" if found.gap is not None else "    none"
    first = dict(marks).get("lower bound", total)
    return (
        f"{distance:4} {case:18} {n:4}^3 {found.value:9.4f} {lower} {upper} {gap} {cpu:7.1f} {total:7.1f}"
        f" {first:7.1f} {memory:7.0f}  {found.status}"
    )


def main() -> None:
    """Print the table."""
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 128
    word = sys.argv[2] if len(sys.argv) > 2 else ""
    warnings.simplefilter("ignore")
    for distance in DISTANCES:
        measure(distance, "shift 10 mm", 16, {"refine": 1})
    print(
        "case                    voxels   value/mm    lower    upper      gap   CPU/s  wall/s  est+up  RSS/MB"
    )
    for distance, case, settings in ROWS:
        if word in f"{distance} {case}":
            print(measure(distance, case, n, settings), flush=True)


if __name__ == "__main__":
    main()
