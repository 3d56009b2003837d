"""``dosemover simulate``: what it writes, and how it resumes."""

import json
from pathlib import Path

import numpy as np
import pytest

import dosemover as dm
from dosemover.cli.main import main

BEAM = Path(__file__).resolve().parents[1] / "examples" / "beam.toml"


def simulate(directory, histories, *more):
    arguments = ["simulate", str(BEAM), "-o", str(directory), "--histories", str(histories), "--batches", "4"]
    return main([*arguments, "--quiet", *more])


def test_it_writes_maps_batches_and_records(tmp_path):
    assert simulate(tmp_path / "out", 4000) == 0
    dose = dm.read_dose(tmp_path / "out" / "dose.npz")
    assert dose.batches_gy.shape[0] == 4
    assert dm.read_dose(tmp_path / "out" / "dose.mha").max_gy == pytest.approx(dose.max_gy, rel=1e-5)
    assert (
        "histories and statistics" in json.loads((tmp_path / "out" / "records.json").read_text())["records"]
    )


def test_resumed_bits_are_those_of_one_run(tmp_path):
    assert simulate(tmp_path / "pieces", 2000) == 0
    assert simulate(tmp_path / "pieces", 4000, "--resume") == 0
    assert simulate(tmp_path / "whole", 4000) == 0
    pieces, whole = (dm.read_dose(tmp_path / name / "dose.npz") for name in ("pieces", "whole"))
    np.testing.assert_array_equal(pieces.dose_gy, whole.dose_gy)


def test_the_help_says_what_kerma_means(capsys):
    with pytest.raises(SystemExit):
        main(["simulate", "--help"])
    assert "kerma" in capsys.readouterr().out


def test_goals_of_uncertainty_and_time_end_the_run(tmp_path, capsys):
    assert simulate(tmp_path / "sure", 10**9, "--uncertainty-goal", "60") == 0
    assert simulate(tmp_path / "late", 10**9, "--max-seconds", "0.2") == 0
    states = [
        json.loads((tmp_path / name / "records.json").read_text())["summary"] for name in ("sure", "late")
    ]
    assert [state["status"] for state in states] == ["goal reached", "time limit"]
    assert states[0]["mean_relative_uncertainty_percent"] <= 60
    assert simulate(tmp_path / "bad", 1000, "--max-seconds", "-1") == 2
    assert "`max_seconds` must be positive" in capsys.readouterr().err


def test_an_unknown_key_names_the_nearest(tmp_path, capsys):
    config = tmp_path / "beam.toml"
    config.write_text(BEAM.read_text().replace("histories", "histories_"))
    assert main(["simulate", str(config), "-o", str(tmp_path / "out")]) == 2
    assert "histories" in capsys.readouterr().err


def test_resuming_from_nothing_is_refused(tmp_path, capsys):
    assert simulate(tmp_path / "out", 2000, "--resume") == 2
    assert "state.npz" in capsys.readouterr().err
