"""Running studies: the same table however it was run, and nothing lost or counted twice."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from dosemover._runtime import no_progress
from dosemover.errors import DataFormatError, DosemoverError, InputError
from dosemover.study import read_costs, read_measurements, read_provenance
from dosemover.study.bank import make_bank, read_bank, run_pilot
from dosemover.study.chunks import chunks_of, measure_chunk, measured_again
from dosemover.study.collect import collect
from dosemover.study.design import read_study
from dosemover.study.runner import _wait, collect_study, planned, run_study, study_progress
from dosemover.study.table import MEASUREMENT_COLUMNS, SORTED_BY, write_table
from synthetic_study import synthetic_measurements

SHIPPED = Path(__file__).resolve().parents[1] / "studies" / "noise"
REDUCED = Path(__file__).resolve().parents[1] / "studies" / "reduced.toml"

TINY = """
[study]
name = "tiny"
seed = 3
batches = 3
metrics = ["mass_ratio", "rmse_gy", "center_shift_mm", "axis_w2_mm", "dvh_w1_gy"]
thinned = {{ center_shift_mm = 2 }}
certified_replicates = 1
quiet_percent = 1

[[level]]
percent = 20
replicates = {replicates}

[[level]]
percent = 10
replicates = {replicates}

[[case]]
name = "box"
engine = "analytic"

[case.phantom]
type = "box"
size_mm = {size}
voxel_mm = 5

[[case.source]]
field_mm = [-10, 10, -10, 10]
penumbra_mm = 5

[[case.structure]]
name = "target"
shape = "box"
center_mm = [0, 0, 0]
size_mm = [15, 15, 15]

[[case.structure]]
name = "organ"
shape = "cylinder"
center_mm = [10, 0, 0]
size_mm = [10, 10, 40]

[[case.change]]
name = "none"
noise_in = ["both", "reference", "evaluated"]

[[case.change]]
name = "shift"
kind = "shift"
direction = [1, 0, 0]
unit = "mm"
magnitudes = {magnitudes}
"""


def tiny(folder, *, replicates=4, magnitudes="[1, 4]", size=40):
    folder.mkdir(exist_ok=True)
    path = folder / "tiny.toml"
    path.write_text(TINY.format(replicates=replicates, magnitudes=magnitudes, size=size))
    return path


def in_this_process(path, directory):
    """Run a study without a cluster."""
    for name in ("banks", "parts", "pilots"):
        (directory / name).mkdir(parents=True, exist_ok=True)
    study = read_study(path)
    plan = planned(study, directory)
    plan.skipped.clear()
    for case in study.cases:
        plan.pilots[case.name] = run_pilot(study.seed, case)
        plan.chunks += chunks_of(study, case, plan.pilots[case.name])
    for chunk in plan.chunks:
        for key in (chunk.reference, chunk.evaluated):
            make_bank(key, directory / "banks")
        measure_chunk(chunk, directory / "banks", directory / "parts")
    return plan


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A tiny study run in this process: its plan, and the directory with its tables."""
    directory = tmp_path_factory.mktemp("study")
    plan = in_this_process(tiny(directory), directory / "out")
    collect(plan, seconds=1.0)
    return plan


def columns(table, *names):
    return [tuple(row.values()) for row in table.select(list(names)).to_pylist()]


def test_every_comparison_is_there_once(done):
    table = read_measurements(done.directory)
    rows = columns(table, "change", "magnitude", "noise_percent", "noise_in", "replicate", "metric")
    assert len(set(rows)) == len(rows)
    comparisons = {row[:-1] for row in rows}
    assert len(comparisons) == (3 + 2) * 2 * 4
    assert sum(metric == "rmse_gy" for *_, metric in rows) == len(comparisons)
    assert sum(metric == "center_shift_mm" for *_, metric in rows) == len(comparisons) / 2


def test_rows_are_sorted_and_columns_are_those_of_the_schema(done):
    table = read_measurements(done.directory)
    assert table.column_names == list(MEASUREMENT_COLUMNS)
    rows = columns(table, *SORTED_BY)
    assert rows == sorted(rows)


def test_values_are_those_of_a_comparison(done):
    from dosemover import compare

    chunk = next(c for c in done.chunks if c.change.magnitude == 4 and c.level.percent == 10)
    banks = [read_bank(done.directory / "banks" / key.name) for key in (chunk.reference, chunk.evaluated)]
    expected = compare(
        banks[0].dose(2), banks[1].dose(2), metrics=["mass_ratio", "rmse_gy", "axis_w2_mm"]
    ).metrics
    rows = {
        row["metric"]: row["value"]
        for row in read_measurements(done.directory).to_pylist()
        if (row["magnitude"], row["noise_percent"], row["replicate"]) == (4, 10, 2)
    }
    for key, result in expected.items():
        assert rows[key] == pytest.approx(result.value, rel=1e-6)


def test_structures_are_those_of_a_comparison(done):
    from dosemover import compare

    chunk = next(c for c in done.chunks if c.change.magnitude == 4 and c.level.percent == 10)
    banks = [read_bank(done.directory / "banks" / key.name) for key in (chunk.reference, chunk.evaluated)]
    reference, evaluated = banks[0].dose(2), banks[1].dose(2)
    structures = chunk.case.structures_on(reference.grid)
    expected = compare(reference, evaluated, structures=structures, metrics=["dvh_w1_gy"])
    rows = {
        row["metric"]: row["value"]
        for row in read_measurements(done.directory).to_pylist()
        if (row["magnitude"], row["noise_percent"], row["replicate"]) == (4, 10, 2)
    }
    assert rows["dvh_w1_gy"] == pytest.approx(expected.metrics["dvh_w1_gy"].value, rel=1e-6)
    for key, value in (("dvh_mean_difference_gy", "mean_gy"), ("dvh_d95_difference_gy", "d95_gy")):
        pairs = [expected.structures[name][value] for name in ("target", "organ")]
        largest = max(abs(pair["evaluated"] - pair["reference"]) for pair in pairs)
        assert rows[key] == pytest.approx(largest, rel=1e-6)
        assert largest > 0


def test_noise_in_one_map_is_compared_with_one_quiet_map(done):
    for chunk in done.chunks:
        quiet = {"reference": chunk.evaluated, "evaluated": chunk.reference, "both": None}[chunk.noise_in]
        if quiet is not None:
            assert (quiet.role, quiet.replicates, quiet.percent) == ("quiet", 1, 1)
    table = read_measurements(done.directory).to_pylist()
    rmse = {
        side: np.mean(
            [
                row["value"]
                for row in table
                if (row["metric"], row["change"], row["noise_in"]) == ("rmse_gy", "none", side)
            ]
        )
        for side in ("both", "reference", "evaluated")
    }
    assert rmse["both"] == pytest.approx(np.sqrt(2) * rmse["reference"], rel=0.1)
    assert rmse["reference"] == pytest.approx(rmse["evaluated"], rel=0.1)


def test_the_provenance_says_what_was_done(done):
    facts = read_provenance(done.directory)
    assert facts["comparisons"] == 40
    assert facts["missing_cells"] == []
    assert facts["seed"] == 3
    assert facts["measurement_cpu_seconds"] > 0
    levels = {row["noise_percent"]: row["achieved_noise_percent"] for row in facts["levels"]}
    assert levels[10] == pytest.approx(10, rel=0.3)


def test_costs_are_counted_by_case_and_metric(done):
    costs = {(row["case"], row["metric"]): row["count"] for row in read_costs(done.directory).to_pylist()}
    assert costs["box", "rmse_gy"] == 40
    assert costs["box", "center_shift_mm"] == 20


def test_what_is_missing_is_named_and_the_rest_is_kept(done, tmp_path):
    plan = in_this_process(tiny(tmp_path), tmp_path / "out")
    lost = plan.chunks[0]
    plan.part(lost).unlink()
    collect(plan, seconds=2.0)
    collect(plan)
    collect(plan, seconds=3.0)
    facts = read_provenance(plan.directory)
    assert facts["wall_seconds_of_runs"] == [2.0, 3.0]
    assert facts["missing_cells"] == [lost.facts()]
    assert facts["comparisons"] == 36
    partial = read_measurements(plan.directory)
    assert partial.num_rows < read_measurements(done.directory).num_rows
    assert read_measurements(plan.directory / "parts" / plan.chunks[1].name).num_rows > 0


def test_a_table_of_a_running_study_is_read_from_its_parts(done, tmp_path):
    plan = in_this_process(tiny(tmp_path), tmp_path / "out")
    assert read_measurements(plan.directory).equals(read_measurements(done.directory))


def test_a_part_that_a_killed_writer_left_before_its_rename_is_not_counted_twice(done, tmp_path):
    shutil.copytree(done.directory / "parts", tmp_path / "parts")
    part = next((tmp_path / "parts").glob("*.parquet"))
    shutil.copy(part, part.with_name(f".0123456789ab-{part.name}"))
    assert read_measurements(tmp_path).equals(read_measurements(done.directory))


def test_a_chunk_that_is_there_is_not_measured_again(done):
    chunk = done.chunks[0]
    stamp = done.part(chunk).stat().st_mtime_ns
    measure_chunk(chunk, done.directory / "banks", done.directory / "parts")
    assert done.part(chunk).stat().st_mtime_ns == stamp


def test_a_chunk_measured_again_reads_as_before(done):
    chunk = next(c for c in done.chunks if c.noise_in == "evaluated")
    banks = [read_bank(done.directory / "banks" / key.name) for key in (chunk.reference, chunk.evaluated)]
    pairs = list(measured_again(chunk, done.part(chunk), *banks))
    assert {metric for metric, *_ in pairs} >= {"rmse_gy", "center_shift_mm"}
    assert all(now == pytest.approx(before, rel=1e-6) for _, before, now in pairs)


def test_tables_survive_their_file(tmp_path):
    table = synthetic_measurements(replicates=2)
    write_table(table, tmp_path / "measurements.parquet")
    assert read_measurements(tmp_path).equals(table)
    assert read_measurements(tmp_path / "measurements.parquet").equals(table)


def test_directories_without_a_study_are_refused(tmp_path):
    for reader, message in (
        (read_measurements, r"holds no measurements.*dosemover study run"),
        (read_costs, r"holds no table of costs"),
        (read_provenance, r"cannot be read"),
    ):
        with pytest.raises(InputError, match=message):
            reader(tmp_path)
    (tmp_path / "measurements.parquet").write_bytes(b"nothing")
    with pytest.raises(DataFormatError, match=r"is no table of a study"):
        read_measurements(tmp_path)
    with pytest.raises(InputError, match=r"nothing has been measured"):
        collect_study(read_study(tiny(tmp_path)), tmp_path / "out")


def test_a_directory_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot be made"):
        run_study(read_study(tiny(tmp_path)), tmp_path / "file")


def test_a_scheduler_that_does_not_answer_is_named(tmp_path, monkeypatch):
    distributed = pytest.importorskip("distributed")

    def refuse(*_, **__):
        raise OSError("timed out")

    monkeypatch.setattr(distributed, "Client", refuse)
    with pytest.raises(InputError, match=r"no Dask scheduler answers at tcp://localhost:1"):
        run_study(read_study(tiny(tmp_path)), tmp_path / "out", scheduler="tcp://localhost:1")


def test_the_shipped_result_is_whole_and_small():
    facts, table = read_provenance(SHIPPED), read_measurements(SHIPPED)
    assert sum(file.stat().st_size for file in SHIPPED.iterdir()) < 5e6
    assert facts["rows"] == table.num_rows
    assert sum(cell["replicates"] for cell in facts["missing_cells"]) < 0.05 * facts["comparisons"]
    assert facts["remeasured"]["equal"] > 0.8 * facts["remeasured"]["metrics"]
    assert set(table["case"].cast("string").to_pylist()) == set(facts["settings"]["cases"])
    for row in facts["levels"]:
        assert row["achieved_noise_percent"] == pytest.approx(row["noise_percent"], rel=0.25)


@pytest.mark.slow
def test_the_table_does_not_depend_on_the_number_of_workers(done, tmp_path):
    study = read_study(tiny(tmp_path))
    for workers in (1, 2):
        run_study(study, tmp_path / str(workers), workers=workers)
        assert read_measurements(tmp_path / str(workers)).equals(read_measurements(done.directory))
    assert study_progress(study, tmp_path / "1") == (len(done.chunks), len(done.chunks))


@pytest.mark.slow
def test_parts_of_another_design_are_set_aside(tmp_path):
    run_study(read_study(tiny(tmp_path / "a")), tmp_path / "out", workers=1)
    run_study(read_study(tiny(tmp_path / "b", magnitudes="[1]")), tmp_path / "out", workers=1)
    assert len(list((tmp_path / "out" / "parts-of-other-designs").iterdir())) == 2
    assert set(read_measurements(tmp_path / "out")["magnitude"].to_pylist()) == {0.0, 1.0}


@pytest.mark.slow
def test_work_that_fails_is_told_after_the_rest_is_done(tmp_path):
    path = tiny(tmp_path)
    study = read_study(path)
    plan = in_this_process(path, tmp_path / "out")
    bank = tmp_path / "out" / "banks" / plan.chunks[-1].evaluated.name
    plan.part(plan.chunks[-1]).unlink()
    np.savez(bank, something=np.zeros(3))
    with pytest.raises(DosemoverError, match=r"1 pieces of work failed, the first of them box: shift"):
        run_study(study, tmp_path / "out", workers=1)
    assert read_provenance(tmp_path / "out")["missing_cells"] == [plan.chunks[-1].facts()]


class Piece:
    """A future as the runner sees it."""

    def __init__(self, status, error=None):
        self.status, self.error = status, error

    def done(self):
        return self.status != "pending"

    def exception(self):
        return self.error


def test_waiting_ends_when_time_is_up_and_cancels_the_rest(done):
    pieces = [Piece("finished"), Piece("pending"), Piece("pending")]
    canceled, shown = [], []
    failures = _wait(
        dict(zip(pieces, done.chunks, strict=False)),
        3,
        lambda what, fraction: shown.append((what, fraction)),
        time.monotonic() - 1,
        cancel=canceled.extend,
    )
    assert failures == []
    assert canceled == pieces[1:]
    assert shown == [(done.chunks[0].label, pytest.approx(1 / 3))]


def test_what_failed_is_told_with_its_reason(done):
    pieces = [Piece("error", ValueError("no dose")), Piece("cancelled"), Piece("finished")]
    failures = _wait(dict(zip(pieces, done.chunks, strict=False)), 3, no_progress, None, cancel=list)
    assert failures[0] == f"{done.chunks[0].label}: ValueError: no dose"
    assert "cancelled" in failures[1]
    assert len(failures) == 2


@pytest.mark.slow
def test_time_that_is_up_before_one_cell_is_complete_is_told(tmp_path):
    path = tiny(tmp_path, replicates=60, size=100)
    with pytest.raises(DosemoverError, match=r"time of 0.01 s was up before one cell was complete"):
        run_study(read_study(path), tmp_path / "out", workers=1, max_seconds=0.01)


def test_a_damaged_bank_is_made_again(tmp_path):
    plan = in_this_process(tiny(tmp_path), tmp_path / "out")
    key = plan.chunks[0].reference
    path = tmp_path / "out" / "banks" / key.name
    before = read_bank(path).batches_gy
    path.write_bytes(path.read_bytes()[:1000])
    make_bank(key, path.parent)
    np.testing.assert_array_equal(read_bank(path).batches_gy, before)


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_table(tmp_path):
    path = tiny(tmp_path, replicates=10, size=80)
    whole = in_this_process(path, tmp_path / "whole")
    command = [sys.executable, "-m", "dosemover", "study", "run", str(path), "-o", str(tmp_path / "out")]
    run = subprocess.Popen([*command, "--workers", "2"], start_new_session=True, stderr=subprocess.DEVNULL)
    parts = tmp_path / "out" / "parts"
    deadline = time.monotonic() + 120
    while len(list(parts.glob("*.parquet"))) < 2 and run.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    survived = len(list(parts.glob("*.parquet")))
    assert survived >= 2
    subprocess.run([*command, "--workers", "1", "--quiet"], check=True, capture_output=True)
    assert read_measurements(tmp_path / "out").equals(read_measurements(whole.directory))
    assert len(list(parts.glob("*.parquet"))) == len(whole.chunks)


@pytest.mark.slow
def test_the_reduced_study_runs(tmp_path):
    study = read_study(REDUCED)
    run_study(study, tmp_path, workers=2)
    facts = read_provenance(tmp_path)
    assert facts["missing_cells"] == []
    table = read_measurements(tmp_path).to_pylist()
    assert {row["case"] for row in table} == {"water_kv", "analytic"}
    bounded = [row for row in table if row["metric"] == "w2_mm" and row["replicate"] == 0]
    assert all(row["lower"] <= row["upper"] for row in bounded)
    shift = {
        row["magnitude"]: row["value"]
        for row in table
        if (row["case"], row["metric"], row["noise_percent"]) == ("analytic", "center_shift_mm", 10)
        and row["replicate"] == 0
    }
    assert shift[3.0] == pytest.approx(3.0, abs=1.0)
