"""The tables of a study out of its parts, with their provenance."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dosemover._files import atomic_write
from dosemover._runtime import provenance
from dosemover.errors import InputError
from dosemover.study.bank import read_facts
from dosemover.study.measure import KF_PERMUTATIONS
from dosemover.study.table import (
    BANKS,
    COST_COLUMNS,
    COSTS,
    MEASUREMENT_COLUMNS,
    MEASUREMENTS,
    PROVENANCE,
    concatenated,
    in_order,
    schema,
    table_of,
    write_table,
)

if TYPE_CHECKING:
    import pyarrow as pa

    from dosemover.study.chunks import Chunk
    from dosemover.study.runner import Plan

_NOTES = (
    "Every noisy map is an independent simulation: replicates of a bank share no histories.",
    "Noisy references serve every change at their level: rows of different changes with one replicate number "
    "share the noise of the reference. Null rows compare them with a second bank of the same beam.",
    "A change of output is a new simulation times 1 + magnitude / 100: dose is linear in the photons.",
    "Where noise is in one map only, the other is a map at the quiet level, with its own small uncertainty.",
    "noise_percent is the root mean square relative uncertainty of the voxels above the case's share of the "
    "maximum, from the batches.",
    "Histories of the analytic case are events in a voxel of maximum dose: 10 000 give 1 %.",
    "dmd_mm and w2_mm are estimates, not clipped to their certified interval.",
)


def collect(plan: Plan, *, seconds: float | None = None) -> list[Path]:
    """Write the tables of the chunks that are measured, and what is missing into the provenance.

    Parameters
    ----------
    plan : Plan
    seconds : float, optional
        Wall time of the run that ends here.
    """
    there = plan.measured()
    if not there:
        raise InputError(f"nothing has been measured in {plan.directory}. There is no table to write.")
    parts = [_part(plan.part(chunk)) for chunk in there]
    files = [plan.directory / name for name in (MEASUREMENTS, COSTS, PROVENANCE)]
    measured = [part.select(list(MEASUREMENT_COLUMNS)).cast(schema(MEASUREMENT_COLUMNS)) for part in parts]
    table = in_order(concatenated(measured))
    write_table(table, files[0])
    write_table(_costs(parts), files[1])
    walls = _earlier_walls(files[2]) + ([] if seconds is None else [round(seconds, 1)])
    facts = _provenance(plan, there, parts, table.num_rows) | {"wall_seconds_of_runs": walls}
    with atomic_write(files[2]) as temporary:
        temporary.write_text(json.dumps(facts, indent=1), encoding="utf-8")
    return files


def _earlier_walls(path: Path) -> list[float]:
    """Wall times of the runs that ended before this one [s]."""
    if not path.exists():
        return []
    return json.loads(path.read_text(encoding="utf-8")).get("wall_seconds_of_runs", [])


def _part(path: Path) -> pa.Table:
    """One part with its times as metadata."""
    import pyarrow.parquet as pq

    return pq.ParquetFile(path).read()


def _costs(parts: list[pa.Table]) -> pa.Table:
    """Median processor time of each metric's family by case."""
    times: dict[tuple[str, str], list[float]] = {}
    for part in parts:
        columns = (part[name].to_pylist() for name in ("case", "metric", "seconds"))
        for case, metric, one in zip(*columns, strict=True):
            times.setdefault((case, metric), []).append(one)
    rows = [
        {"case": case, "metric": metric, "seconds_median": float(np.median(each)), "count": len(each)}
        for (case, metric), each in sorted(times.items())
    ]
    return table_of(rows, COST_COLUMNS)


def _provenance(plan: Plan, there: list[Chunk], parts: list[pa.Table], rows: int) -> dict[str, Any]:
    """How the table came about."""
    study = plan.study
    banks = {key.name: key for chunk in there for key in (chunk.reference, chunk.evaluated)}
    facts = {name: read_facts(plan.directory / BANKS / name) for name in banks}
    measuring = [{k.decode(): float(v) for k, v in (p.schema.metadata or {}).items()} for p in parts]
    missing = [chunk.facts() for chunk in plan.todo()]
    return {
        "study": study.name,
        "seed": study.seed,
        "fingerprint": study.fingerprint(),
        **provenance(),
        "rows": rows,
        "comparisons": sum(chunk.level.replicates for chunk in there),
        "bank_cpu_seconds": sum(one["cpu_seconds"] for one in facts.values()),
        "bank_worker_seconds": sum(one["seconds"] for one in facts.values()),
        "measurement_cpu_seconds": sum(one.get("cpu_seconds", 0.0) for one in measuring),
        "measurement_worker_seconds": sum(one.get("seconds", 0.0) for one in measuring),
        "pilot_cpu_seconds": sum(pilot.cpu_seconds for pilot in plan.pilots.values()),
        "skipped_cases": plan.skipped,
        "missing_cells": missing,
        "levels": [
            {
                "case": key.case.name,
                "role": key.role,
                "change": key.change.label,
                "noise_percent": key.percent,
                "achieved_noise_percent": round(facts[name]["noise_percent"], 4),
                "histories": int(facts[name]["histories"]),
                "replicates": key.replicates,
                "batches": key.case.batches,
            }
            for name, key in banks.items()
        ],
        "settings": {
            "kawrakow_fippel_permutations": KF_PERMUTATIONS,
            "quiet_percent": study.quiet_percent,
            "certified_replicates": study.certified_replicates,
            "thinned": dict(study.thinned),
            "left_out": list(study.leave_out),
            "cases": {
                case.name: {
                    "title": case.title,
                    "engine": case.engine,
                    "voxel_mm": case.document.get("phantom", {}).get("voxel_mm"),
                    **case.instead,
                }
                for case in study.cases
            },
        },
        "notes": list(_NOTES),
    }
