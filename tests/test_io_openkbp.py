"""OpenKBP: CSV folder and sparse NPZ, axes by anatomy, structures and the mask of possible dose."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from dosemover.errors import DataFormatError, InputError
from dosemover.io import read_dose, read_structures
from dosemover.io.openkbp import from_cube, to_cube


@pytest.fixture
def folder(data_path, tmp_path):
    """A writable copy of the CSV patient, without its CT."""
    shutil.copytree(data_path("openkbp/raw_csv/pt_201"), tmp_path / "pt", ignore=lambda *_: ["ct.csv"])
    for file in (tmp_path / "pt").iterdir():
        file.chmod(0o644)
    (tmp_path / "pt").chmod(0o755)
    return tmp_path / "pt"


def test_cube_and_patient_axes_are_inverse_to_each_other():
    cube = np.arange(24).reshape(2, 3, 4)
    assert np.array_equal(to_cube(from_cube(cube)), cube)
    assert from_cube(cube)[0, 1, 2] == cube[1, 2, 3]


def test_folder_and_npz_are_the_same_patient(data_path):
    csv, npz = read_dose(data_path("openkbp/raw_csv/pt_201")), read_dose(data_path("openkbp/pt_201.npz"))
    assert csv.grid.coincides_with(npz.grid)
    assert csv.grid.spacing_mm == pytest.approx((5.422, 5.422, 3.0))
    assert np.allclose(csv.dose_gy, npz.dose_gy, rtol=1e-6)
    assert {s.name: s.mask.sum() for s in csv.structures} == {s.name: s.mask.sum() for s in npz.structures}
    assert "possible_dose_mask" in {s.name for s in csv.structures}
    assert csv.unit == "Gy"


def test_values_lie_at_their_c_order_index(data_path):
    cube = to_cube(read_dose(data_path("openkbp/raw_csv/pt_201")).dose_gy)
    assert cube.ravel()[630302] == 10.555  # the first line of dose.csv
    assert cube.ravel()[630428] == 13.82
    assert np.count_nonzero(cube) <= 116576


def test_voxel_sizes_are_those_of_rows_columns_and_slices(tmp_path):
    """Index (row, column, slice) = (10, 20, 30) of the cube lies at y = 10 rows, x = 20 columns."""
    index = np.ravel_multi_index((10, 20, 30), (128, 128, 128))
    np.savez(
        tmp_path / "a.npz", dose_idx=np.array([index]), dose=np.ones(1), voxel_mm=np.array([2.0, 3.0, 5.0])
    )
    dose = read_dose(tmp_path / "a.npz")
    assert dose.grid.spacing_mm == pytest.approx((3.0, 2.0, 5.0))
    ((z, y, x),) = np.argwhere(dose.dose_gy)
    z_mm, y_mm, x_mm = dose.grid.centers_mm
    assert (x_mm[x], y_mm[y]) == pytest.approx((60.0, 20.0))
    assert z_mm[-1] - z_mm[z] == pytest.approx(150.0)  # slices run from the head down


@pytest.mark.parametrize("patient", [201, 206, 211, 231, 237, 241, 242, 250])
def test_left_is_left_and_the_brain_stem_is_above_the_cord(patient, data_path):
    dose = read_dose(data_path(f"openkbp/pt_{patient}.npz"))
    z, y, x = np.meshgrid(*dose.grid.centers_mm, indexing="ij")
    at = {s.name: [float(c[s.mask].mean()) for c in (x, y, z)] for s in dose.structures}
    if {"LeftParotid", "RightParotid"} <= set(at):
        assert at["LeftParotid"][0] > at["RightParotid"][0]  # LPS: x to the left
    if {"Brainstem", "SpinalCord"} <= set(at):
        assert at["Brainstem"][2] > at["SpinalCord"][2]  # z to the head
    if {"Mandible", "SpinalCord"} <= set(at):
        assert at["Mandible"][1] < at["SpinalCord"][1]  # y to the back


def test_dose_statistics_agree_with_the_challenges_own(data_path):
    golden = json.loads(data_path("openkbp/official_scores_golden.json").read_text())
    dose = read_dose(data_path("openkbp/pt_201.npz"))
    for structure in dose.structures:
        key = f"mean|{structure.name}"
        theirs = golden["scale1.03"]["ref"]["pt_201"].get(key)
        if theirs is not None:
            assert dose.dose_gy[structure.mask].mean() == pytest.approx(theirs, rel=1e-6)


def test_structures_alone_can_be_read(data_path):
    (cord,) = read_structures(data_path("openkbp/pt_201.npz"), names=["SpinalCord"])
    assert cord.mask.sum() == 282


def test_the_dose_file_stands_for_its_folder(folder):
    assert read_dose(folder / "dose.csv").grid.shape == (128, 128, 128)


@pytest.mark.parametrize(
    ("name", "text", "error", "match"),
    [
        (
            "dose.csv",
            ",data\n1,2.0\n2,oops\n",
            DataFormatError,
            r"dose.csv: line 3: '2,oops' is not 2 numbers",
        ),
        (
            "dose.csv",
            ",data\n1,2.0\n9999999,2\n",
            DataFormatError,
            "dose has voxel indices from 1.0 to 9999999",
        ),
        ("voxel_dimensions.csv", "1\n2\n", DataFormatError, "holds 2 numbers, not the 3 voxel sizes"),
        ("voxel_dimensions.csv", "1\n0\n2\n", InputError, "voxel size must be three positive numbers"),
        ("PTV70.csv", ",data\n5,\nx,\n", DataFormatError, r"PTV70.csv: line 3: 'x,' is not 1 number"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(name, text, error, match, folder):
    (folder / name).write_text(text)
    with pytest.raises(error, match=match):
        read_dose(folder)


def test_indices_and_doses_must_pair(tmp_path):
    np.savez(tmp_path / "a.npz", dose_idx=np.arange(3), dose=np.ones(2), voxel_mm=np.ones(3))
    with pytest.raises(DataFormatError, match="3 dose indices for 2 doses"):
        read_dose(tmp_path / "a.npz")
