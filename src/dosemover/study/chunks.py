"""The work of a study in pieces: each measures one change at one noise level and writes one file."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dosemover import __version__
from dosemover.dose import DoseMap
from dosemover.montecarlo.photon_engine import cpu_time
from dosemover.study.bank import QUIET, REFERENCE, Bank, BankKey, Pilot, read_bank, single_threaded
from dosemover.study.design import Case, Change, Level, Study, digest
from dosemover.study.measure import measure, short_status, wanted_keys
from dosemover.study.table import MEASUREMENT_COLUMNS, NO_CHANGE, table_of, write_table

PART_COLUMNS = MEASUREMENT_COLUMNS | {"seconds": ("float32", "processor time of the metric's family [s]")}
"""Columns of a part; the last one goes into the table of costs."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Chunk:
    """One change of a case at one noise level, noise in one or both maps: all of its replicates.

    Parameters
    ----------
    study : Study
        With this case alone.
    case : Case
    change : Change
    level : Level
    noise_in : str
    pilot : Pilot
    """

    study: Study
    case: Case
    change: Change
    level: Level
    noise_in: str
    pilot: Pilot

    @property
    def reference(self) -> BankKey:
        """Bank of the reference maps."""
        if self.noise_in == "evaluated":
            return self._bank(Change(name=NO_CHANGE), QUIET)
        return self._bank(Change(name=NO_CHANGE), REFERENCE)

    @property
    def evaluated(self) -> BankKey:
        """Bank of the evaluated maps."""
        if self.noise_in == "reference":
            return self._bank(self.change, QUIET)
        return self._bank(self.change, self.change.label)

    def _bank(self, change: Change, role: str) -> BankKey:
        """A bank of this chunk's case and level."""
        quiet = role == QUIET
        return BankKey(
            study_seed=self.study.seed,
            case=self.case,
            change=change,
            role=role,
            percent=self.study.quiet_percent if quiet else self.level.percent,
            replicates=1 if quiet else self.level.replicates,
            pilot=self.pilot,
        )

    @property
    def label(self) -> str:
        """What it measures, for messages."""
        return f"{self.case.name}: {self.change.label}, {self.level.percent:g} %, noise in {self.noise_in}"

    @property
    def name(self) -> str:
        """File name of its part: readable words and a hash of everything that its rows depend on."""
        study = self.study
        settings = study.settings(self.case).to_dict()
        key = digest(
            [
                __version__, study.name, self.reference.name, self.evaluated.name, settings,
                study.leave_out, study.thinned, study.certified_replicates,
                *([self.case.structures] if self.case.structures else []),
            ]
        )  # fmt: skip
        words = f"{self.case.name} {self.change.label} {self.level.percent:g} {self.noise_in}"
        return f"{re.sub('[^A-Za-z0-9.]+', '-', words)}-{key[:16]}.parquet"

    def facts(self) -> dict[str, Any]:
        """What the chunk is, as plain values."""
        return {
            "case": self.case.name,
            "change": self.change.name,
            "magnitude": self.change.magnitude,
            "noise_percent": self.level.percent,
            "noise_in": self.noise_in,
            "replicates": self.level.replicates,
        }


def chunks_of(study: Study, case: Case, pilot: Pilot) -> Iterator[Chunk]:
    """Chunks of one case: coarse levels first, null rows first among them."""
    for change in sorted(case.changes, key=lambda change: change.name != NO_CHANGE):
        for noise_in in change.noise_in:
            for level in case.levels_of(change, noise_in):
                yield Chunk(
                    study=study, case=case, change=change, level=level, noise_in=noise_in, pilot=pilot
                )


def measure_chunk(chunk: Chunk, banks: Path, parts: Path, *_: Any) -> Path:
    """Measure every replicate of a chunk and write its part; nothing is done where it is there already.

    Parameters
    ----------
    chunk : Chunk
    banks, parts : pathlib.Path
        Folders of the banks, which must be there, and of the parts.
    """
    path = parts / chunk.name
    if path.exists():
        return path
    start, cpu_start = time.perf_counter(), cpu_time()
    single_threaded()
    reference, evaluated = (read_bank(banks / key.name) for key in (chunk.reference, chunk.evaluated))
    rows = []
    for replicate in range(chunk.level.replicates):
        rows += _rows(chunk, reference, evaluated, replicate)
    table = table_of(rows, PART_COLUMNS)
    times = {"seconds": time.perf_counter() - start, "cpu_seconds": cpu_time() - cpu_start}
    write_table(table.replace_schema_metadata({key: f"{value:.3f}" for key, value in times.items()}), path)
    return path


def measured_again(
    chunk: Chunk, part: Path, reference: Bank, evaluated: Bank, replicates: int = 2
) -> Iterator[tuple[str, float | None, float | None]]:
    """Metric, value in a part and value now, for the first replicates of a chunk; None where there is none.

    Parameters
    ----------
    chunk : Chunk
    part : pathlib.Path
        Its part, of whatever state of the program.
    reference, evaluated : Bank
    replicates : int
    """
    import pyarrow.parquet as pq

    columns = ("replicate", "metric", "value")
    table = pq.ParquetFile(part).read(list(columns))
    stored = zip(*(table[name].to_pylist() for name in columns), strict=True)
    before = {(replicate, metric): value for replicate, metric, value in stored}
    for replicate in range(min(replicates, chunk.level.replicates)):
        for row in _rows(chunk, reference, evaluated, replicate):
            yield row["metric"], before.get((replicate, row["metric"])), row["value"]


def _map(bank: Bank, replicate: int) -> DoseMap:
    """A replicate, or the one quiet map."""
    return bank.dose(replicate if bank.batches_gy.shape[0] > 1 else 0)


def _rows(chunk: Chunk, reference: Bank, evaluated: Bank, replicate: int) -> Iterator[dict[str, Any]]:
    """Rows of one replicate."""
    study = chunk.study
    noisy = evaluated if chunk.noise_in == "evaluated" else reference
    settings = study.settings(chunk.case)
    wanted = wanted_keys(settings, leave_out=study.leave_out, thinned=study.thinned, replicate=replicate)
    results = measure(
        reference=_map(reference, replicate),
        evaluated=_map(evaluated, replicate),
        structures=chunk.case.structures_on(reference.grid),
        settings=settings,
        wanted=wanted,
        certified=replicate < study.certified_replicates,
    )
    shared = {
        "study": study.name,
        "case": chunk.case.name,
        "engine": chunk.case.engine,
        "change": chunk.change.name,
        "magnitude": chunk.change.magnitude,
        "magnitude_unit": chunk.change.unit,
        "noise_percent": chunk.level.percent,
        "achieved_noise_percent": noisy.noise_percent,
        "histories": noisy.histories,
        "noise_in": chunk.noise_in,
        "replicate": replicate,
    }
    for result, seconds in results:
        yield shared | {
            "metric": result.key,
            "unit": result.unit,
            "value": result.value,
            "lower": result.lower,
            "upper": result.upper,
            "status": short_status(result.status),
            "seconds": seconds,
        }
