"""``dosemover study``: what it says, and how it fails."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from dosemover.cli.main import main
from dosemover.study.table import write_table
from synthetic_study import synthetic_measurements
from test_study_runner import in_this_process, tiny

STUDIES = Path(__file__).resolve().parents[1] / "studies"


def test_collect_writes_the_tables_and_prints_their_paths(tmp_path, capsys):
    from dosemover.study.design import read_study
    from dosemover.study.runner import Plan, _pilot_file

    path = tiny(tmp_path)
    plan = in_this_process(path, tmp_path / "out")
    study = read_study(path)
    pilot = plan.pilots["box"]
    _pilot_file(Plan(study=study, directory=tmp_path / "out"), study.cases[0]).write_text(
        json.dumps(vars(pilot))
    )
    assert main(["study", "status", str(path), "-o", str(tmp_path / "out")]) == 0
    assert "10 of 10 pieces measured" in capsys.readouterr().out
    assert main(["study", "collect", str(path), "-o", str(tmp_path / "out")]) == 0
    assert [Path(line).name for line in capsys.readouterr().out.split()] == [
        "measurements.parquet",
        "costs.parquet",
        "provenance.json",
    ]


def test_status_before_the_start(tmp_path, capsys):
    assert main(["study", "status", str(tiny(tmp_path)), "-o", str(tmp_path / "out")]) == 0
    assert "no pilot has been run yet" in capsys.readouterr().out


def test_bad_studies_end_in_one_line(tmp_path, capsys):
    path = tmp_path / "bad.toml"
    path.write_text((STUDIES / "reduced.toml").read_text().replace("pilot_histories", "pilot_history"))
    assert main(["study", "run", str(path), "-o", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "Did you mean 'pilot_histories'" in error
    assert not (tmp_path / "out").exists()


def test_collecting_nothing_is_an_error(tmp_path, capsys):
    assert main(["study", "collect", str(tiny(tmp_path)), "-o", str(tmp_path / "out")]) == 2
    assert "nothing has been measured" in capsys.readouterr().err


def test_the_report_goes_beside_the_table(tmp_path, capsys, monkeypatch):
    import dosemover.study

    write_table(synthetic_measurements(replicates=2), tmp_path / "measurements.parquet")
    seen = []

    def write_report(directory, *, output):
        seen.append((directory, output))
        return [output / "index.html"]

    monkeypatch.setattr(dosemover.study, "write_report", write_report, raising=False)
    assert main(["study", "report", str(tmp_path)]) == 0
    assert main(["study", "report", str(tmp_path), "-o", str(tmp_path / "there")]) == 0
    assert seen == [(tmp_path, tmp_path / "report"), (tmp_path, tmp_path / "there")]
    assert capsys.readouterr().out.split() == [str(output / "index.html") for _, output in seen]


@pytest.mark.parametrize(
    "arguments",
    [["study"], ["study", "run"], ["study", "run", "x.toml", "-o", "y", "--workers", "0"], ["study", "walk"]],
)
def test_wrong_usage_ends_with_a_hint(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert "--help" in capsys.readouterr().err


def test_importing_dosemover_and_its_command_line_stays_light():
    code = (
        "import sys, dosemover, dosemover.cli.study, dosemover.study;"
        "print([m for m in ('dask', 'distributed', 'pyarrow', 'numba') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


@pytest.mark.slow
def test_a_run_tells_of_its_progress_and_prints_its_files(tmp_path):
    path = tiny(tmp_path, replicates=2, magnitudes="[1]")
    command = [sys.executable, "-m", "dosemover", "study", "run", str(path), "-o", str(tmp_path / "out")]
    run = subprocess.run([*command, "--workers", "1"], capture_output=True, text=True, check=True)
    assert "100.0 % done" in run.stderr
    assert run.stdout.count("\n") == 3
