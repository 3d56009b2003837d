"""The command that prints moments, levels and bounds."""

import json
from pathlib import Path

import numpy as np
import pytest

from dosemover.cli.main import main
from dosemover.dose import DoseMap
from dosemover.io import read_dose, write_dose
from dosemover.moments import MomentTally
from moment_maps import beam, standardized_voxel_errors


@pytest.fixture
def maps(tmp_path):
    paths = []
    for name, edge in (("one", 0.3), ("two", 0.38)):
        path = tmp_path / f"{name}.nrrd"
        write_dose(beam(16, edge), path)
        paths.append(str(path))
    return paths


def test_one_map_shows_its_moments(maps, capsys):
    assert main(["moments", maps[0]]) == 0
    shown = capsys.readouterr().out
    assert "rms extent" in shown
    assert "bound" not in shown


def test_two_maps_show_every_level_and_the_interval(maps, capsys):
    assert main(["moments", *maps]) == 0
    shown = capsys.readouterr().out
    levels = ("mean shift", "Gaussian", "Galerkin W_2", "Galerkin DMD", "moment-SoS of order 2")
    for words in (*levels, "≤ W_2 ≤"):
        assert words in shown
    assert "no noise known" in " ".join(shown.split())


def test_no_number_of_the_table_is_cut_where_noise_is_known(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    rng = np.random.default_rng(3)
    paths = []
    for name in ("a", "b"):
        batches = rng.uniform(0.8, 1.2, (6, 12, 12, 12)).astype(np.float32)
        paths.append(str(tmp_path / f"{name}.npz"))
        np.savez(paths[-1], batches_gy=batches, spacing_mm=(2.0, 2.0, 2.0))
    assert main(["moments", *paths, "--no-bounds"]) == 0
    shown = capsys.readouterr().out
    assert "noise alone" in shown
    assert "…" not in shown


def test_json_holds_levels_and_bounds(maps, capsys):
    assert main(["moments", *maps, "--order", "1", "--json", "-"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["schema"] == "dosemover.moments/1"
    assert found["levels"]["mean_shift_mm"]["value_mm"] <= found["w2_bounds"]["lower_mm"] * (1 + 1e-9)
    assert found["w2_bounds"]["lower_mm"] <= found["w2_bounds"]["upper_mm"]


def test_tallies_are_saved(maps, tmp_path, capsys):
    folder = tmp_path / "tallies"
    outputs = ["--save", str(folder), "--json", str(tmp_path / "m.json")]
    assert main(["moments", *maps, "--no-bounds", *outputs]) == 0
    saved = sorted(folder.glob("*.npz"))
    assert len(saved) == 2
    assert MomentTally.load(saved[0]).degree == 12
    assert "w2_bounds" not in json.loads((tmp_path / "m.json").read_text(encoding="utf-8"))


def test_a_map_without_dose_is_one_line_on_stderr(tmp_path, capsys):
    path = tmp_path / "empty.nrrd"
    write_dose(DoseMap.from_array(np.zeros((4, 4, 4)), spacing_mm=(2, 2, 2)), path)
    assert main(["moments", str(path)]) == 2
    assert "holds no dose" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("order", "why"), [("8", "takes matrices of"), ("30", "order 30 takes moments to degree 60")]
)
def test_an_order_that_would_not_fit_is_refused_before_the_lower_ones_run(maps, capsys, order, why):
    assert main(["moments", *maps, "--order", order]) == 2
    told = capsys.readouterr().err
    assert why in told
    assert "moment-SoS of order 2" not in told


def test_an_absent_folder_for_json_is_one_line_on_stderr(maps, tmp_path, capsys):
    assert main(["moments", maps[0], "--json", str(tmp_path / "absent" / "m.json")]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_simulate_tallies_moments_beside_its_map(tmp_path, capsys):
    beam = Path(__file__).resolve().parents[1] / "examples" / "beam.toml"
    config, folder = tmp_path / "beam.toml", tmp_path / "out"
    config.write_text(beam.read_text(encoding="utf-8").replace("track_length", "analog"), encoding="utf-8")
    arguments = ["simulate", str(config), "-o", str(folder), "--histories", "4000", "--quiet"]
    assert main([*arguments, "--moments", "4"]) == 0
    streamed = MomentTally.load(folder / "moments.npz")
    dose = read_dose(folder / "dose.npz")
    assert streamed.degree == 4
    assert len(streamed.batches) == len(dose.batches_gy)
    weight = np.ones(dose.grid.shape) if dose.density_g_per_cm3 is None else dose.density_g_per_cm3
    z = standardized_voxel_errors(streamed, dose.batches_gy * weight * dose.grid.voxel_volume_mm3, dose.grid)
    assert np.abs(z).max() < 6
    assert np.sqrt(np.mean(z**2)) < 1.4
    assert main([*arguments, "--moments", "--resume"]) == 2
    assert "Simulate without --resume" in capsys.readouterr().err


def test_an_estimate_outside_the_certified_interval_is_told_without_noise_too(tmp_path, capsys):
    """A voxel that moved by 8 mm: polynomials on a box of 10 mm cannot tell how far."""
    paths = []
    for x in (10, 14):
        dose = np.zeros((20, 20, 20))
        dose[10, 10, x] = 1.0
        paths.append(str(tmp_path / f"{x}.nrrd"))
        write_dose(DoseMap.from_array(dose, spacing_mm=(2, 2, 2)), paths[-1])
    assert main(["moments", *paths]) == 0
    told = capsys.readouterr().out
    assert "8 mm ≤ W_2 ≤ 8 mm" in told
    assert "Galerkin W_2, degree 6: the estimate lies 50 mm above the certified interval" in told


def test_equal_maps_are_bounded_by_zero(maps, capsys):
    assert main(["moments", maps[0], maps[0], "--json", "-"]) == 0
    levels = json.loads(capsys.readouterr().out)["levels"]
    assert levels["moment_sos_2_mm"]["value_mm"] == 0.0


def test_the_reduced_basis_bounds_from_below_with_smaller_matrices(maps, capsys):
    found = {}
    for basis in ("full", "reduced"):
        assert main(["moments", *maps, "--basis", basis, "--order", "3", "--json", "-"]) == 0
        content = json.loads(capsys.readouterr().out)
        found[basis] = content["levels"]["moment_sos_3_mm"]["value_mm"]
        named = {bound["name"]: bound["value_mm"] for bound in content["w2_bounds"]["bounds"]}
        assert named["moment_sos_3"] == pytest.approx(found[basis], rel=1e-4)
    assert found["reduced"] <= found["full"] * (1 + 1e-9)
    assert found["reduced"] > 0.99 * found["full"]
