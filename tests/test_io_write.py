"""Writers: what is written comes back, whole or not at all."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import SimpleITK
from hypothesis import given, settings

from dosemover.dose import DoseMap, Structure
from dosemover.errors import GridMismatchError, InputError, StatisticalWarning
from dosemover.grid import Grid
from dosemover.io import images as images_module
from dosemover.io import read_dose, read_map, write_dose, write_map
from strategies import dose_maps

IMAGES = [".mha", ".mhd", ".nrrd", ".nii", ".nii.gz"]


@pytest.mark.parametrize("suffix", [*IMAGES, ".npz"])
@settings(max_examples=12, deadline=None)
@given(dose=dose_maps())
def test_a_dose_comes_back_as_written(suffix, dose, tmp_path_factory):
    path = tmp_path_factory.mktemp("write") / f"a{suffix}"
    assert write_dose(dose, path) == path
    back = read_dose(path)
    assert np.array_equal(back.dose_gy, dose.dose_gy)
    assert back.grid.coincides_with(dose.grid)
    assert back.unit == "Gy"
    written = {path.name, "a.raw"} if suffix == ".mhd" else {path.name}
    assert {p.name for p in path.parent.iterdir()} == written


@settings(max_examples=10, deadline=None)
@given(dose=dose_maps())
def test_rt_dose_comes_back_to_one_part_in_ten_thousand(dose, tmp_path_factory):
    path = tmp_path_factory.mktemp("write") / "a.dcm"
    write_dose(dose, path)
    back = read_dose(path)
    assert np.allclose(back.dose_gy, dose.dose_gy, rtol=1e-4, atol=1e-4 * dose.max_gy)
    assert back.grid.coincides_with(dose.grid)


@pytest.mark.parametrize("suffix", [*IMAGES, ".npz"])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_precision_is_kept(suffix, kind, tmp_path):
    dose = DoseMap.from_array(np.random.default_rng(0).random((2, 3, 4)).astype(kind), spacing_mm=(1, 2, 3))
    write_dose(dose, tmp_path / f"a{suffix}")
    assert read_dose(tmp_path / f"a{suffix}").dose_gy.dtype == kind


@pytest.mark.parametrize("suffix", [".mha", ".mhd", ".nrrd", ".nii"])
def test_a_relative_dose_stays_relative(suffix, tmp_path):
    write_dose(
        DoseMap.from_array(np.ones((2, 3, 4)), spacing_mm=(1, 1, 1), unit="relative"), tmp_path / f"a{suffix}"
    )
    assert read_dose(tmp_path / f"a{suffix}").unit == "relative"


def test_npz_keeps_everything_but_identifiers(tmp_path):
    grid = Grid(x_edges_mm=[0, 1, 3], y_edges_mm=[0, 2, 3], z_edges_mm=[0, 1, 5])
    batches = np.random.default_rng(0).random((3, 2, 2, 2))
    mask = Structure(name="PTV ü", fraction=np.eye(2)[None].repeat(2, 0), grid=grid)
    dose = DoseMap.from_batches(
        batches, grid, density_g_per_cm3=np.ones((2, 2, 2)), structures=(mask,), unit="Gy/history",
        identifiers={"PatientName": "SECRET^NAME"},
    )  # fmt: skip
    write_dose(dose, tmp_path / "a.npz")
    back = read_dose(tmp_path / "a.npz")
    for name in ("dose_gy", "uncertainty_gy", "batches_gy", "density_g_per_cm3"):
        assert np.array_equal(getattr(back, name), getattr(dose, name))
    assert back.structures[0].name == "PTV ü"
    assert np.array_equal(back.structures[0].fraction, mask.fraction)
    assert back.unit == "Gy/history"
    assert back.grid.spacing_mm == (None, None, None)
    assert b"SECRET" not in b"".join(
        np.load(tmp_path / "a.npz")[k].tobytes() for k in np.load(tmp_path / "a.npz")
    )


@pytest.mark.parametrize("suffix", IMAGES)
def test_simpleitk_reads_what_is_written(suffix, tmp_path):
    values = np.random.default_rng(0).random((2, 3, 4))
    dose = DoseMap.from_array(values, spacing_mm=(1.5, 2.5, 3.5), origin_mm=(-1.0, 2.0, 3.0))
    write_dose(dose, tmp_path / f"a{suffix}")
    image = SimpleITK.ReadImage(str(tmp_path / f"a{suffix}"))
    assert np.array_equal(SimpleITK.GetArrayFromImage(image), values)
    assert image.GetSpacing() == pytest.approx((1.5, 2.5, 3.5))
    assert image.GetOrigin() == pytest.approx((-1.0, 2.0, 3.0))


def test_nibabel_finds_the_dose_in_ras(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    values = np.random.default_rng(0).random((2, 3, 4))
    dose = DoseMap.from_array(values, spacing_mm=(1.5, 2.5, 3.5), origin_mm=(-1.0, 2.0, 3.0))
    write_dose(dose, tmp_path / "a.nii.gz")
    image = nibabel.load(tmp_path / "a.nii.gz")
    assert np.allclose(
        image.affine @ [1, 2, 1, 1], [-0.5, -7.0, 6.5, 1], atol=1e-5
    )  # x -1+1.5, y 2+2x2.5, z 3+3.5
    assert image.get_fdata()[1, 2, 1] == values[1, 2, 1]


@pytest.mark.parametrize("suffix", IMAGES)
def test_uneven_grids_need_npz(suffix, tmp_path):
    grid = Grid(x_edges_mm=[0, 1, 3], y_edges_mm=[0, 1, 2], z_edges_mm=[0, 1])
    with pytest.raises(InputError, match=r"the voxel spacing \(x, y, z\) is \(None, 1.0, 1.0\).*Write .npz"):
        write_dose(DoseMap(dose_gy=np.ones((1, 2, 2)), grid=grid), tmp_path / f"a{suffix}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [".mha", ".dcm"])
def test_losing_the_uncertainty_is_said(suffix, tmp_path):
    dose = DoseMap.from_array(np.ones((2, 3, 4)), spacing_mm=(1, 1, 1), uncertainty_gy=np.ones((2, 3, 4)))
    with pytest.warns(StatisticalWarning, match="keeps the dose alone"):
        write_dose(dose, tmp_path / f"a{suffix}")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_dose(dose, tmp_path / "a.npz")


def dose_of_one() -> DoseMap:
    return DoseMap.from_array(np.ones((2, 3, 4)), spacing_mm=(1, 1, 1))


@pytest.mark.parametrize("name", ["a.txt", "a.3ddose", "a", "a.nrrd.gz"])
def test_a_suffix_that_cannot_be_written_is_refused(name, tmp_path):
    with pytest.raises(InputError, match=r"no suffix that can be written.*\.dcm, \.mha"):
        write_dose(dose_of_one(), tmp_path / name)


@pytest.mark.parametrize("suffix", [*IMAGES, ".npz", ".dcm"])
def test_places_that_cannot_be_written_are_refused_in_one_line(suffix, tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        write_dose(dose_of_one(), tmp_path / "nowhere" / f"a{suffix}")
    (tmp_path / f"folder{suffix}").mkdir()
    with pytest.raises(InputError, match="is a directory, not a file"):
        write_dose(dose_of_one(), tmp_path / f"folder{suffix}")
    assert [p.name for p in tmp_path.iterdir()] == [f"folder{suffix}"]


@pytest.mark.parametrize("suffix", [".mha", ".nrrd", ".nii", ".mhd", ".npz"])
def test_an_existing_file_survives_a_failed_write(suffix, tmp_path, monkeypatch):
    path = tmp_path / f"a{suffix}"
    write_dose(dose_of_one(), path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(SimpleITK, "WriteImage", fail)
    monkeypatch.setattr(np, "savez_compressed", fail)
    monkeypatch.setattr(images_module.Path, "write_text", fail)
    with pytest.raises(InputError, match="No space left on device"):
        write_dose(dose_of_one().scaled(2.0), path)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_an_error_of_the_image_library_is_one_line(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("Exception thrown in X:\nITK ERROR: ImageIO(0x1): disk is full")

    monkeypatch.setattr(SimpleITK, "WriteImage", fail)
    with pytest.raises(InputError, match=r"a.mha cannot be written: ImageIO\(0x1\): disk is full. Nothing"):
        write_dose(dose_of_one(), tmp_path / "a.mha")


def test_maps_of_any_sign_and_vectors_are_written(tmp_path):
    grid = dose_of_one().grid
    values = np.random.default_rng(0).normal(size=grid.shape)
    values[0, 0, 0] = np.nan
    write_map(values, grid, tmp_path / "gamma.nrrd", unit="1")
    back, back_grid = read_map(tmp_path / "gamma.nrrd")
    assert np.array_equal(back, values, equal_nan=True)
    assert back_grid.coincides_with(grid)
    vectors = np.random.default_rng(0).normal(size=(*grid.shape, 3))
    write_map(vectors, grid, tmp_path / "v.nrrd")
    assert np.array_equal(SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(tmp_path / "v.nrrd"))), vectors)
    write_map(values > 0, grid, tmp_path / "mask.mha")
    assert set(np.unique(read_map(tmp_path / "mask.mha")[0])) == {0.0, 1.0}


def test_maps_that_do_not_fit_are_refused(tmp_path):
    grid = dose_of_one().grid
    with pytest.raises(GridMismatchError, match=r"values of shape \(2, 3\) do not fit the grid \(2, 3, 4\)"):
        write_map(np.ones((2, 3)), grid, tmp_path / "a.nrrd")
    with pytest.raises(InputError, match=r"a map is written as .*not as \.dcm"):
        write_map(np.ones(grid.shape), grid, tmp_path / "a.dcm")
