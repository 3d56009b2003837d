"""Running a study on Dask: pilots, banks, chunks; stopped and resumed at any point."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dosemover._files import atomic_write
from dosemover._runtime import Progress, available_cores, no_progress, optional_import
from dosemover.errors import DosemoverError, InputError
from dosemover.study.bank import Pilot, make_bank, run_pilot
from dosemover.study.chunks import Chunk, chunks_of, measure_chunk
from dosemover.study.collect import collect
from dosemover.study.design import Case, Study, digest
from dosemover.study.table import BANKS, PARTS, part_files

PILOTS, STALE = "pilots", "parts-of-other-designs"

_OMPMC_REASON = "ompMC is not installed: pip install 'dosemover[mc]'"
_POLL_S = 0.2


@dataclass(kw_only=True, eq=False)
class Plan:
    """What a study has to do.

    Parameters
    ----------
    study : Study
    directory : pathlib.Path
    pilots : dict of str to Pilot
        By case.
    skipped : dict of str to str
        Cases that cannot be run here, and why.
    chunks : list of Chunk
        In the order of work.
    """

    study: Study
    directory: Path
    pilots: dict[str, Pilot] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    chunks: list[Chunk] = field(default_factory=list)

    def part(self, chunk: Chunk) -> Path:
        """File of a chunk."""
        return self.directory / PARTS / chunk.name

    def todo(self) -> list[Chunk]:
        """Chunks that are not measured yet."""
        return [chunk for chunk in self.chunks if not self.part(chunk).exists()]

    def measured(self) -> list[Chunk]:
        """Chunks that are measured."""
        return [chunk for chunk in self.chunks if self.part(chunk).exists()]


def run_study(
    study: Study,
    directory: str | os.PathLike[str],
    *,
    workers: int | None = None,
    scheduler: str | None = None,
    max_seconds: float | None = None,
    progress: Progress | None = None,
) -> list[Path]:
    """Run a study, or go on with it, and write its tables.

    Parameters
    ----------
    study : Study
    directory : path
        Gets ``measurements.parquet``, ``costs.parquet`` and ``provenance.json``; beside them the banks of
        batches, and the parts that a stopped run goes on from. A remote scheduler's workers must see it.
    workers : int, optional
        Processes of the embedded cluster, one thread each; as many as cores by default.
    scheduler : str, optional
        Address of a Dask scheduler instead ("tcp://10.0.0.1:8786"). Start its workers with
        ``NUMBA_NUM_THREADS=1`` and one thread each.
    max_seconds : float, optional
        Stop after this time; the tables hold the cells that are complete, the provenance names the others.
    progress : callable, optional
        ``progress(what, fraction)``.

    Returns
    -------
    list of pathlib.Path
        The three files.

    Raises
    ------
    InputError
        When the directory cannot be made, or the scheduler not be reached.
    DosemoverError
        When a piece of work fails; the others are done first and kept. When time is up before one cell is
        complete.
    MissingDependencyError
        When Dask or pyarrow is not installed.

    Notes
    -----
    Every random number comes from a hash of the study's seed and what it is for (case, change, level,
    replicate), and every file is written whole or not at all: the table is the same with any number of
    workers, however often the run was killed. Replicates share no histories within a bank. The banks of the
    unchanged reference serve every change at their level, so rows of different changes with the same
    replicate number share the noise of the reference.
    """
    optional_import("pyarrow", extra="study")
    optional_import("distributed", extra="study")
    start = time.monotonic()
    plan = Plan(study=study, directory=_folders(directory))
    report = progress or no_progress
    with _client(workers, scheduler) as client:
        _make_pilots(plan, client, report)
        failures = _work(plan, client, report, None if max_seconds is None else start + max_seconds)
    written = collect(plan, seconds=time.monotonic() - start) if plan.measured() else []
    if failures:
        raise DosemoverError(
            f"{len(failures)} pieces of work failed, the first of them {failures[0]}. The tables in "
            f"{plan.directory} hold the cells that are complete. Run the same command to try the others "
            "again."
        )
    if not written:
        raise DosemoverError(
            f"the time of {max_seconds:g} s was up before one cell was complete. There is no table yet; what "
            "was simulated is kept. Run the same command again, with more time."
        )
    report("done", 1.0)
    return written


def study_progress(study: Study, directory: str | os.PathLike[str]) -> tuple[int, int]:
    """Chunks measured, and chunks in all, as far as pilots have been run."""
    plan = planned(study, directory)
    return len(plan.chunks) - len(plan.todo()), len(plan.chunks)


def collect_study(study: Study, directory: str | os.PathLike[str]) -> list[Path]:
    """Write the tables of what has been measured, without measuring more."""
    return collect(planned(study, directory))


def planned(study: Study, directory: str | os.PathLike[str]) -> Plan:
    """The plan of a study whose pilots are there, without running anything."""
    plan = Plan(study=study, directory=Path(directory))
    for case in study.cases:
        if file := _existing_pilot(plan, case):
            plan.pilots[case.name] = file
        else:
            plan.skipped[case.name] = _reason(case) or "its pilot has not been run"
    _add_chunks(plan)
    return plan


def _folders(directory: str | os.PathLike[str]) -> Path:
    """The directory with its folders."""
    folder = Path(directory).absolute()
    try:
        for name in (BANKS, PILOTS, PARTS):
            (folder / name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{directory} cannot be made: {error.strerror}. Name another directory.") from error
    return folder


@contextmanager
def _client(workers: int | None, scheduler: str | None) -> Iterator[Any]:
    """A Dask client: of a cluster of our own, or of the scheduler at an address."""
    import distributed
    from dask import config

    one_thread = dict.fromkeys(("NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    settings = {
        "distributed.nanny.pre-spawn-environ": one_thread,
        "distributed.worker.daemon": False,
        "distributed.scheduler.worker-saturation": 1.0,
    }
    with config.set(settings):
        if scheduler is not None:
            try:
                with distributed.Client(scheduler, timeout="10s") as client:
                    yield client
            except OSError as error:
                raise InputError(
                    f"no Dask scheduler answers at {scheduler}: {error}. Nothing was run. Start one, or "
                    "leave `scheduler` out for an embedded cluster."
                ) from error
            return
        with (
            distributed.LocalCluster(
                n_workers=workers or available_cores(),
                threads_per_worker=1,
                processes=True,
                dashboard_address="127.0.0.1:0",  # a free port, seen by this machine alone
                memory_limit=0,
                silence_logs=logging.CRITICAL,
            ) as cluster,
            distributed.Client(cluster) as client,
        ):
            yield client


def _reason(case: Case) -> str | None:
    """Why a case cannot be run here."""
    return _OMPMC_REASON if case.engine == "ompmc" and find_spec("ompmc") is None else None


def _pilot_file(plan: Plan, case: Case) -> Path:
    """File of a case's pilot, named by what it depends on."""
    key = digest(
        [
            plan.study.seed, case.name, case.engine, case.document, case.batches, case.max_gy,
            case.high_dose_percent, case.pilot_histories,
        ]
    )  # fmt: skip
    return plan.directory / PILOTS / f"{case.name}-{key[:16]}.json"


def _existing_pilot(plan: Plan, case: Case) -> Pilot | None:
    """A pilot that has been run."""
    file = _pilot_file(plan, case)
    return Pilot(**json.loads(file.read_text(encoding="utf-8"))) if file.exists() else None


def _make_pilots(plan: Plan, client: Any, report: Progress) -> None:
    """Run the pilots that are not there, then lay out the chunks."""
    running = {}
    for case in plan.study.cases:
        if reason := _reason(case):
            plan.skipped[case.name] = reason
        elif pilot := _existing_pilot(plan, case):
            plan.pilots[case.name] = pilot
        else:
            running[case.name] = client.submit(run_pilot, plan.study.seed, case, pure=False)
    for n, case in enumerate(plan.study.cases):
        report("pilots", n / len(plan.study.cases))
        if case.name in running:
            plan.pilots[case.name] = running[case.name].result()
            with atomic_write(_pilot_file(plan, case)) as temporary:
                temporary.write_text(json.dumps(asdict(plan.pilots[case.name])), encoding="utf-8")
    _add_chunks(plan)
    _set_aside(plan)


def _add_chunks(plan: Plan) -> None:
    """Chunks of every case that has a pilot: all cases advance together, so that a part says most."""
    ranked = []
    for n, case in enumerate(plan.study.cases):
        if case.name in plan.pilots:
            own = list(chunks_of(plan.study.alone(case), case, plan.pilots[case.name]))
            ranked += [(i / len(own), n, chunk) for i, chunk in enumerate(own)]
    plan.chunks = [chunk for _, _, chunk in sorted(ranked, key=lambda one: one[:2])]


def _set_aside(plan: Plan) -> None:
    """Parts that belong to another design go into a folder of their own."""
    own = {chunk.name for chunk in plan.chunks}
    foreign = [file for file in part_files(plan.directory) if file.name not in own]
    for file in foreign:
        (plan.directory / STALE).mkdir(exist_ok=True)
        file.replace(plan.directory / STALE / file.name)


def _work(plan: Plan, client: Any, report: Progress, deadline: float | None) -> list[str]:
    """Do every chunk that is not there, its banks before it; returns what failed."""
    todo = plan.todo()
    banks_folder, parts_folder = plan.directory / BANKS, plan.directory / PARTS
    banks: dict[str, Any] = {}
    chunks: dict[Any, Chunk] = {}
    for n, chunk in enumerate(todo):
        for key in (chunk.reference, chunk.evaluated):
            if key.name not in banks:
                banks[key.name] = client.submit(
                    make_bank, key, banks_folder, key=f"bank-{key.name}", priority=-n
                )
        needed = [banks[key.name] for key in (chunk.reference, chunk.evaluated)]
        future = client.submit(
            measure_chunk, chunk, banks_folder, parts_folder, *needed, key=f"chunk-{chunk.name}", priority=-n
        )
        chunks[future] = chunk
    return _wait(chunks, len(plan.chunks), report, deadline, cancel=client.cancel)


def _wait(
    chunks: dict[Any, Chunk],
    total: int,
    report: Progress,
    deadline: float | None,
    *,
    cancel: Callable[[Sequence[Any]], Any],
    poll_s: float = _POLL_S,
) -> list[str]:
    """Watch the chunks until all are done or time is up; what failed, with its reason."""
    failures: list[str] = []
    waiting = dict(chunks)
    while waiting:
        for future in [future for future in waiting if future.done()]:
            chunk = waiting.pop(future)
            if future.status != "finished":
                error = future.exception() if future.status == "error" else future.status
                failures.append(f"{chunk.label}: {type(error).__name__}: {error}")
            report(chunk.label, (total - len(waiting)) / max(total, 1))
        if waiting and deadline is not None and time.monotonic() > deadline:
            cancel(list(waiting))
            return failures
        if waiting:
            time.sleep(poll_s)
    return failures
