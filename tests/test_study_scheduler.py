"""Studies on a Dask scheduler and workers that run in processes of their own, started from the outside."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytest.importorskip("pyarrow")
pytest.importorskip("distributed")

from dosemover.study import read_measurements, read_provenance
from dosemover.study.design import read_study
from dosemover.study.runner import run_study, study_progress
from dosemover.study.table import part_files
from test_study_runner import REDUCED, in_this_process, tiny

pytestmark = pytest.mark.slow

_ENVIRONMENT = os.environ | {"NUMBA_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
_PATIENCE_S = 120.0


@contextmanager
def process(*arguments: str) -> Iterator[subprocess.Popen]:
    """A Python module in a process group of its own, killed at the end."""
    running = subprocess.Popen(
        [sys.executable, "-m", *arguments],
        start_new_session=True,
        env=_ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield running
    finally:
        if running.poll() is None:
            os.killpg(running.pid, signal.SIGKILL)
        running.wait()


def worker(address: str):
    """A Dask worker of one thread."""
    return process("dask", "worker", address, "--nthreads", "1", "--no-dashboard", "--death-timeout", "60")


def until(condition, what: str) -> None:
    """Wait for something that another process does."""
    deadline = time.monotonic() + _PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited {_PATIENCE_S:g} s for {what}"
        time.sleep(0.02)


@pytest.fixture
def scheduler(tmp_path):
    """Address of a scheduler without workers."""
    file = tmp_path / "scheduler.json"
    with process(
        "dask", "scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard",
        "--scheduler-file", str(file),
    ):  # fmt: skip
        until(lambda: file.exists() and file.read_text().strip().endswith("}"), "the scheduler")
        yield json.loads(file.read_text())["address"]


def command(path: Path, out: Path, address: str) -> list[str]:
    """Arguments of the command line."""
    return ["dosemover", "study", "run", str(path), "-o", str(out), "--scheduler", address, "--quiet"]


def test_workers_of_another_scheduler_write_the_table_of_the_embedded_cluster(scheduler, tmp_path):
    run_study(read_study(REDUCED), tmp_path / "embedded", workers=2)
    with worker(scheduler), worker(scheduler), process(*command(REDUCED, tmp_path / "out", scheduler)) as run:
        assert run.wait(timeout=10 * _PATIENCE_S) == 0
    table = read_measurements(tmp_path / "out")
    assert table.num_rows > 0
    assert table.equals(read_measurements(tmp_path / "embedded"))
    assert read_provenance(tmp_path / "out")["missing_cells"] == []


def test_a_killed_run_and_a_killed_worker_lose_and_repeat_nothing(scheduler, tmp_path):
    path = tiny(tmp_path, replicates=10, size=80)
    whole = in_this_process(path, tmp_path / "whole")
    out = tmp_path / "out"
    with worker(scheduler) as lost, process(*command(path, out, scheduler)) as run:
        until(lambda: len(part_files(out)) >= 1 or run.poll() is not None, "a part")
        os.killpg(lost.pid, signal.SIGKILL)
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
    survived = {file.name: file.stat().st_mtime_ns for file in part_files(out)}
    assert 1 <= len(survived) < len(whole.chunks)
    done, of = study_progress(read_study(path), out)
    assert (done, of) == (len(survived), len(whole.chunks))
    with worker(scheduler), process(*command(path, out, scheduler)) as run:
        assert run.wait(timeout=_PATIENCE_S) == 0
    files = {file.name: file.stat().st_mtime_ns for file in part_files(out)}
    assert survived.items() <= files.items()
    assert set(files) == {chunk.name for chunk in whole.chunks}
    assert read_measurements(out).equals(read_measurements(whole.directory))
