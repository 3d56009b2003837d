"""The command line: outputs, exit codes, limits and bad input."""

import json
import os
import re
import subprocess
import sys
import time

import numpy as np
import pytest
import SimpleITK

import dosemover as dm
from dosemover.cli.main import main
from dosemover.cli.table import _value
from dosemover.comparison.result import MetricResult

SPACING = (2.0, 2.0, 2.5)


@pytest.fixture
def pair(tmp_path):
    """Two dose files on disk, the second 2 % higher."""
    z, y, x = np.meshgrid(np.arange(8.0), np.arange(10.0), np.arange(12.0), indexing="ij")
    dose = 2 * np.exp(-(((x - 5.5) / 3) ** 2 + ((y - 4.5) / 3) ** 2 + ((z - 3.5) / 3) ** 2))
    names = []
    for name, factor in (("reference.nrrd", 1.0), ("evaluated.mha", 1.02)):
        path = tmp_path / name
        dm.write_dose(dm.DoseMap.from_array(factor * dose, spacing_mm=SPACING), path)
        names.append(str(path))
    return names


FAST = ["--metrics", "mass,differences"]


def test_the_table_names_maps_scale_and_metrics(pair, capsys):
    assert main(["compare", *pair, *FAST]) == 0
    out = capsys.readouterr().out
    assert "reference.nrrd" in out
    assert "x 1" in out
    assert "mass_ratio" in out


def test_a_distance_of_rounding_size_is_not_printed_as_one():
    def shown(value):
        return _value(MetricResult(key="best_shift_mm", value=value, unit="mm"))

    assert [shown(v) for v in (8.3e-14, 0.0, 0.25, None)] == ["<1e-6", "0", "0.25", "–"]


def test_json_on_standard_output_is_only_json(pair, capsys):
    assert main(["compare", *pair, *FAST, "--json", "-"]) == 0
    written = json.loads(capsys.readouterr().out)
    assert written["metrics"]["mass_ratio"]["value"] == pytest.approx(1.02, rel=1e-5)
    assert written["reference"]["format"] == "NRRD"


def test_gamma_says_which_voxels_it_counts_and_what_it_misses(pair, capsys):
    assert main(["compare", *pair, "--metrics", "gamma", "--scale", "1.5"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"gamma: \d+ voxels of at least 0\.1\d+ Gy \(10 % of 1\.\d+ Gy\)", out)
    assert re.search(r"it does not see \d+ voxels of the evaluated map", out)


def test_a_relative_uncertainty_is_a_fraction_of_the_dose(pair, tmp_path, capsys):
    share = dm.DoseMap.from_array(np.full((8, 10, 12), 0.03), spacing_mm=SPACING)
    dm.write_dose(share, tmp_path / "relative.nrrd")
    uncertain = ["--evaluated-uncertainty", str(tmp_path / "relative.nrrd"), "--relative-uncertainty"]
    assert main(["compare", *pair, "--metrics", "chi2_per_voxel", *uncertain, "--json", "-"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["settings"]["inputs"]["evaluated_uncertainty"] == "relative.nrrd (relative)"
    chi2 = (0.02 / (0.03 * 1.02)) ** 2
    assert found["metrics"]["chi2_per_voxel"]["value"] == pytest.approx(chi2, rel=1e-3)


def test_the_area_between_histograms_names_its_structure(pair, tmp_path, capsys):
    labels = np.zeros((8, 10, 12), dtype=np.uint8)
    labels[2:6, 3:7, 3:9] = 1
    image = SimpleITK.GetImageFromArray(labels)
    image.SetSpacing(SPACING)
    SimpleITK.WriteImage(image, tmp_path / "cube.nrrd")
    structures = ["--structures", str(tmp_path / "cube.nrrd")]
    assert main(["compare", *pair, "--metrics", "dvh", *structures]) == 0
    assert re.search(r"dvh_w1_gy: the largest of all structures, in \w+", capsys.readouterr().out)


def test_scale_is_applied_and_printed(pair, capsys):
    assert main(["compare", *pair, *FAST, "--scale", "match-integral"]) == 0
    assert "x 0.980392" in capsys.readouterr().out


def test_report_json_and_maps_are_written(pair, tmp_path):
    report, result, maps = tmp_path / "r.html", tmp_path / "r.json", tmp_path / "maps"
    outputs = ["--report", str(report), "--json", str(result), "--save-maps", str(maps)]
    assert main(["compare", *pair, *FAST, "--quiet", *outputs]) == 0
    assert report.stat().st_size > 10_000
    assert json.loads(result.read_text())["schema"] == "dosemover.compare/1"
    assert (maps / "difference_gy.nrrd").exists()
    assert not [p for p in tmp_path.iterdir() if "tmp" in p.name]


@pytest.mark.parametrize(
    ("limit", "code"),
    [
        ("mass_ratio>1.01", 1),
        ("mass_ratio>1.05", 0),
        ("mass_ratio<=0.5", 0),
        ("mass_ratio.floor<0.1", 1),
        ("max_difference_gy>=0", 1),
    ],
)
def test_limits_decide_the_exit_code(pair, limit, code):
    assert main(["compare", *pair, *FAST, "--quiet", "--fail-if", limit]) == code


def test_a_limit_brings_its_metric_along(pair, capsys):
    assert main(["compare", *pair, "--metrics", "mass", "--quiet", "--fail-if", "mae_gy>100"]) == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["--fail-if", "mass_ratio=1"],
        ["--fail-if", "mass_ratio<x"],
        ["--fail-if", "mass_ratio<nan"],
        ["--gamma", "3"],
        ["--gamma", "3/x"],
        ["--scale", "match-nothing"],
        ["--reach", "-1"],
        ["--null", "1.5"],
        ["--null", "1"],
        ["--dose-threshold", "-3"],
        ["--dose-threshold", "nan"],
        ["--seed", "-1"],
        ["--metrics", ","],
    ],
)
def test_usage_that_has_no_meaning_exits_with_2(pair, arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["compare", *pair, *arguments])
    assert stopped.value.code == 2
    assert arguments[0] in one_line(capsys)


def one_line(capsys):
    """The one line on stderr."""
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("dosemover: ")
    return lines[0]


def test_the_start_of_a_metric_name_names_those_that_begin_with_it(pair, capsys):
    assert main(["compare", *pair, "--metrics", "kf"]) == 2
    assert "Did you mean kf_fraction_percent, kf_shift_sigma?" in one_line(capsys)


def test_unknown_metric_names_the_nearest(pair, capsys):
    assert main(["compare", *pair, "--metrics", "mas_ratio"]) == 2
    assert "mass_ratio" in one_line(capsys)


@pytest.mark.parametrize("broken", ["missing", "empty", "directory", "text"])
def test_a_file_that_is_no_dose_gets_one_line(pair, tmp_path, capsys, broken):
    path = tmp_path / "broken.nrrd"
    if broken == "empty":
        path.touch()
    elif broken == "directory":
        path.mkdir()
    elif broken == "text":
        path.write_text("no dose here")
    assert main(["compare", str(path), pair[1], *FAST]) == 2
    assert "broken.nrrd" in one_line(capsys)


def test_maps_that_do_not_overlap_get_one_line(pair, tmp_path, capsys):
    far = tmp_path / "far.nrrd"
    dose = dm.DoseMap.from_array(np.ones((4, 4, 4)), spacing_mm=SPACING, origin_mm=(500.0, 0.0, 0.0))
    dm.write_dose(dose, far)
    assert main(["compare", pair[0], str(far), *FAST]) == 2
    line = one_line(capsys)
    assert "do not overlap" in line
    assert "far.nrrd" in line


def test_a_density_that_cannot_be_used_names_its_file(pair, tmp_path, capsys):
    far = tmp_path / "far.nrrd"
    dm.write_dose(dm.DoseMap.from_array(np.ones((4, 4, 4)), spacing_mm=SPACING, origin_mm=(500.0, 0, 0)), far)
    assert main(["compare", *pair, *FAST, "--density", str(far)]) == 2
    assert "far.nrrd: the density spans" in one_line(capsys)


def test_vector_maps_are_saved_with_their_components_last(pair, tmp_path):
    maps = tmp_path / "maps"
    assert main(["compare", *pair, "--metrics", "dmd", "--quiet", "--save-maps", str(maps)]) == 0
    saved = SimpleITK.ReadImage(str(maps / "displacement_mm.nrrd"))
    assert saved.GetNumberOfComponentsPerPixel() == 3
    assert saved.GetSize() == (12, 10, 8)


def test_maps_on_uneven_voxels_are_saved_with_their_boundaries(tmp_path):
    edges = {"x_edges_mm": [0, 1, 3, 6, 7], "y_edges_mm": np.arange(6), "z_edges_mm": [0, 2, 3, 7]}
    dose = np.random.default_rng(3).random((3, 5, 4)) + 1
    names = [str(tmp_path / name) for name in ("a.npz", "b.npz")]
    for name, factor in zip(names, (1.0, 1.1), strict=True):
        np.savez(name, dose_gy=factor * dose, **edges)
    maps = tmp_path / "maps"
    assert main(["compare", *names, *FAST, "--quiet", "--save-maps", str(maps)]) == 0
    saved = np.load(maps / "difference_gy.npz")
    np.testing.assert_allclose(saved["values"], 0.1 * dose, rtol=1e-5)
    np.testing.assert_array_equal(saved["x_edges_mm"], edges["x_edges_mm"])


def test_a_warning_is_one_line_without_source(tmp_path, capsys):
    batches = np.random.default_rng(5).random((4, 3, 4, 5)) + 1
    np.savez(tmp_path / "a.npz", batches_gy=batches, spacing_mm=(2.0, 2.0, 2.0))
    assert main(["convert", str(tmp_path / "a.npz"), str(tmp_path / "a.dcm")]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("warning: a.dcm keeps the dose alone")


@pytest.mark.parametrize("option", ["--report", "--json", "--save-maps"])
def test_outputs_that_cannot_be_written_are_refused_before_the_work(pair, tmp_path, capsys, option):
    target = tmp_path / "absent" / "file"
    assert main(["compare", *pair, *FAST, option, str(target)]) == 2
    assert option in one_line(capsys)


def test_a_directory_as_report_and_a_file_as_directory_are_refused(pair, tmp_path, capsys):
    assert main(["compare", *pair, *FAST, "--report", str(tmp_path)]) == 2
    assert "is a directory" in one_line(capsys)
    assert main(["compare", *pair, *FAST, "--save-maps", pair[0]]) == 2
    assert "is a file" in one_line(capsys)


@pytest.mark.parametrize("option", ["--report", "--json"])
def test_an_output_never_overwrites_an_input(pair, capsys, option):
    assert main(["compare", *pair, option, pair[1]]) == 2
    assert f"{option} {pair[1]} would overwrite {pair[1]}, which is read" in one_line(capsys)


def test_two_outputs_never_share_a_file(pair, tmp_path, capsys):
    name = str(tmp_path / "out.html")
    assert main(["compare", *pair, "--report", name, "--json", name]) == 2
    assert "would overwrite what --report writes" in one_line(capsys)


def test_quiet_silences_the_table_and_no_warning(pair, capsys):
    assert main(["compare", *pair, "--metrics", "mass", "--quiet", "--scale", "0.01"]) == 0
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("warning: the integral of the evaluated map is 0.0")


def test_info_shows_grid_and_maximum(pair, capsys):
    assert main(["info", pair[0]]) == 0
    out = capsys.readouterr().out
    assert "2, 2, 2.5" in out
    assert main(["info", pair[0], "--json"]) == 0
    assert json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("suffix", [".dcm", ".nii.gz", ".npz", ".mhd"])
def test_convert_reads_back_equal(pair, tmp_path, capsys, suffix):
    target = tmp_path / f"converted{suffix}"
    assert main(["convert", pair[0], str(target)]) == 0
    before, after = dm.read_dose(pair[0]), dm.read_dose(target)
    np.testing.assert_allclose(after.dose_gy, before.dose_gy, atol=1e-5 * before.max_gy)
    assert after.grid.coincides_with(before.grid)


def test_doctor_passes_its_self_tests(capsys):
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "wrong" not in out
    assert "Dose Mover" in out


def test_help_is_quick_and_import_light():
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    code = (
        "import sys, dosemover; heavy = {'numba', 'scipy', 'pydicom', 'SimpleITK', 'matplotlib', 'ot'}; "
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )
    assert subprocess.run([sys.executable, "-c", code], env=env, check=False).returncode == 0
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "dosemover", "--help"], env=env, capture_output=True, text=True, check=True
    )
    assert "compare" in done.stdout
    assert time.perf_counter() - start < 5  # 0.1 s on an idle machine; the contract is 0.7 s
    code = "import sys, dosemover.cli.main as m; m.build_parser(); sys.exit('scipy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=env, check=False).returncode == 0
