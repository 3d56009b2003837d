"""The dispatcher: formats by content, sums of beams, companions, batches, and `describe`."""

from __future__ import annotations

import gzip
import shutil

import numpy as np
import pytest

from dosemover.dose import DoseMap
from dosemover.errors import AccuracyWarning, DataFormatError, GridMismatchError, InputError, UnitError
from dosemover.io import describe, read_dose, read_map, read_structures, write_dose
from dosemover.io.read import file_format
from dosemover.io.sums import dose_files

pydicom = pytest.importorskip("pydicom")
RNG = np.random.default_rng(5)
DOSE = RNG.random((3, 4, 5)) + 0.5
SPACING, ORIGIN = (1.0, 2.0, 3.0), (-4.0, 5.0, 6.0)


def a_map(values=DOSE, **fields) -> DoseMap:
    return DoseMap.from_array(values, spacing_mm=SPACING, origin_mm=ORIGIN, **fields)


def saved(path, values=DOSE, **fields):
    """An NPZ or image file of values."""
    write_dose(a_map(values, **fields), path)
    return path


@pytest.fixture
def beams(data_path, tmp_path):
    """A writable folder with the four beam doses of a plan, and nothing else."""
    folder = tmp_path / "beams"
    folder.mkdir()
    for i, file in enumerate(sorted(data_path("rtkit/simple_phantom_case").glob("RD*.dcm"))):
        shutil.copyfile(file, folder / f"beam{i}.dcm")
    return folder


def edit(path, **attributes):
    """Change attributes of a DICOM file."""
    dataset = pydicom.dcmread(path)
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    dataset.save_as(path)
    return path


# --- sums -------------------------------------------------------------------------------------------


def test_a_directory_of_beams_is_their_sum(data_path):
    folder = data_path("rtkit/simple_phantom_case")
    files = sorted(folder.glob("RD*.dcm"))
    by_hand = 0
    for file in files:
        dataset = pydicom.dcmread(file)
        by_hand = by_hand + dataset.pixel_array.astype(float) * float(dataset.DoseGridScaling)
    whole = read_dose(folder)  # the folder also holds CT, RT Plan, RT Image and RT Structure Set
    assert np.allclose(np.sort(whole.dose_gy.ravel()), np.sort(by_hand.ravel()), rtol=1e-12)
    assert whole.source["sum"] == "4 files"
    named = read_dose("+".join(map(str, files)))
    assert np.array_equal(named.dose_gy, whole.dose_gy)
    assert named.name == "+".join(f.name for f in files)


def test_a_zero_beam_is_refused_alone_and_welcome_in_a_sum(beams):
    dataset = pydicom.dcmread(beams / "beam0.dcm")
    edit(beams / "beam0.dcm", PixelData=bytes(len(dataset.PixelData)))
    with pytest.raises(InputError, match=r"beam0.dcm holds no dose: every voxel is 0"):
        read_dose(beams / "beam0.dcm")
    assert describe(beams / "beam0.dcm")["max_gy"] == 0
    assert read_dose(beams).max_gy > 0


def test_a_plan_dose_in_a_directory_stands_for_its_beams(beams):
    edit(beams / "beam0.dcm", DoseSummationType="PLAN")
    dose = read_dose(beams)
    assert np.array_equal(dose.dose_gy, read_dose(beams / "beam0.dcm").dose_gy)
    assert "3 other RT Dose files are part of it and not added" in dose.source["sum"]
    with pytest.raises(InputError, match="mixes DoseSummationType BEAM and PLAN"):
        read_dose(f"{beams / 'beam0.dcm'}+{beams / 'beam1.dcm'}")


def test_a_directory_that_is_not_clearly_one_dose_is_refused(beams):
    edit(beams / "beam0.dcm", DoseSummationType="PLAN")
    edit(beams / "beam1.dcm", DoseSummationType="PLAN")
    with pytest.raises(InputError, match=r"holds 4 RT Dose files .* 2 PLAN, 2 BEAM.*not clear"):
        read_dose(beams)


def test_a_copy_is_not_counted_twice(beams):
    shutil.copyfile(beams / "beam0.dcm", beams / "copy.dcm")
    with pytest.raises(InputError, match=r"beam0.dcm and copy.dcm are the same RT Dose"):
        read_dose(beams)
    with pytest.raises(InputError, match="are the same RT Dose"):
        read_dose(f"{beams / 'beam0.dcm'}+{beams / 'beam0.dcm'}")


def test_one_dose_in_a_directory_is_that_dose(beams):
    for name in ("beam1.dcm", "beam2.dcm", "beam3.dcm"):
        (beams / name).unlink()
    assert read_dose(beams).name == "beam0.dcm"
    assert dose_files(beams) == ([beams / "beam0.dcm"], {})


def test_frames_and_units_must_agree(beams):
    edit(beams / "beam0.dcm", FrameOfReferenceUID="1.2.3")
    with pytest.raises(InputError, match="different frames of reference"):
        read_dose(beams)
    edit(beams / "beam1.dcm", DoseUnits="RELATIVE")
    with pytest.raises(UnitError, match=r"beam0.dcm is in Gy, beam1.dcm in relative"):
        read_dose(beams)


def test_uncertainties_add_in_quadrature(tmp_path):
    one = saved(tmp_path / "a.npz", uncertainty_gy=0.3 * DOSE)
    two = saved(tmp_path / "b.npz", 2 * DOSE, uncertainty_gy=0.4 * DOSE)
    both = read_dose(f"{one}+{two}")
    assert np.allclose(both.dose_gy, 3 * DOSE)
    assert np.allclose(both.uncertainty_gy, 0.5 * DOSE)
    bare = saved(tmp_path / "c.npz")
    mixed = read_dose(f"{one}+{bare}")
    assert mixed.uncertainty_gy is None
    assert mixed.source["uncertainty"] == "left out: only 1 of 2 files have one"


def test_summands_on_other_grids_are_refused(tmp_path):
    one, two = saved(tmp_path / "a.npz"), tmp_path / "b.npz"
    write_dose(DoseMap.from_array(DOSE, spacing_mm=SPACING), two)
    with pytest.raises(GridMismatchError, match=r"a.npz and b.npz cannot be summed"):
        read_dose(f"{one}+{two}")
    with pytest.raises(InputError, match="names a file twice"):
        read_dose(f"{one}+{one}")


def test_a_plus_sign_in_a_name_is_no_sum(tmp_path):
    saved(tmp_path / "a+b.npz")
    saved(tmp_path / "c.npz")
    assert read_dose(tmp_path / "a+b.npz").name == "a+b.npz"
    assert np.allclose(read_dose(f"{tmp_path / 'a+b.npz'}+{tmp_path / 'c.npz'}").dose_gy, 2 * DOSE)
    with pytest.raises(InputError, match=r"gone.npz does not exist"):
        read_dose(f"{tmp_path / 'c.npz'}+{tmp_path / 'gone.npz'}")


# --- companions -------------------------------------------------------------------------------------


def test_an_uncertainty_file_is_absolute_unless_declared_relative(tmp_path):
    dose, other = saved(tmp_path / "a.nrrd"), saved(tmp_path / "u.nrrd", 0.1 * DOSE)
    assert np.allclose(read_dose(dose, uncertainty=other).uncertainty_gy, 0.1 * DOSE)
    relative = read_dose(dose, uncertainty=other, uncertainty_kind="relative")
    assert np.allclose(relative.uncertainty_gy, 0.1 * DOSE**2)
    assert relative.source["uncertainty"] == "u.nrrd (relative)"
    with pytest.raises(
        InputError, match="`uncertainty_kind` must be 'absolute' or 'relative', got 'percent'"
    ):
        read_dose(dose, uncertainty=other, uncertainty_kind="percent")


def test_an_uncertainty_without_unit_is_in_the_unit_of_the_dose(tmp_path):
    for name, values in (("a.npz", DOSE), ("u.npz", 0.1 * DOSE)):
        np.savez(tmp_path / name, dose=values, spacing_mm=SPACING, origin_mm=ORIGIN)
    dose = read_dose(tmp_path / "a.npz", uncertainty=tmp_path / "u.npz", unit="cgy")
    assert np.allclose(dose.uncertainty_gy, 0.001 * DOSE)


def test_an_uncertainty_elsewhere_or_negative_is_refused(tmp_path):
    dose = saved(tmp_path / "a.nrrd")
    other = tmp_path / "u.nrrd"
    write_dose(DoseMap.from_array(DOSE, spacing_mm=SPACING), other)
    with pytest.raises(GridMismatchError, match=r"u.nrrd: the uncertainty has \(3, 4, 5\) voxels"):
        read_dose(dose, uncertainty=other)
    np.savez(tmp_path / "n.npz", dose=-DOSE, spacing_mm=SPACING, origin_mm=ORIGIN)
    with pytest.raises(InputError, match=r"n.npz: `uncertainty_gy` must be finite and not negative"):
        read_dose(dose, uncertainty=tmp_path / "n.npz")


def test_batches_whose_mean_is_the_dose_give_its_uncertainty(tmp_path):
    stack = RNG.random((4, 3, 4, 5)) + 1
    files = [saved(tmp_path / f"batch{i}.nrrd", b) for i, b in enumerate(stack)]
    for factor in (1, 4):  # the dose is the mean of the batches, or their sum
        dose = read_dose(saved(tmp_path / "whole.nrrd", factor * stack.mean(axis=0)), batches=files)
        assert np.allclose(dose.batches_gy, factor * stack)
        assert np.allclose(dose.uncertainty_gy, factor * stack.std(axis=0, ddof=1) / 2)
    by_glob = read_dose(tmp_path / "whole.nrrd", batches=str(tmp_path / "batch*.nrrd"))
    assert np.allclose(by_glob.batches_gy, dose.batches_gy)
    with pytest.raises(
        InputError, match=r"the 4 batches of odd.nrrd have a mean of .* They are not its batches"
    ):
        read_dose(saved(tmp_path / "odd.nrrd", 2 * stack.mean(axis=0)), batches=files)
    with pytest.raises(InputError, match="is one batch alone"):
        read_dose(tmp_path / "whole.nrrd", batches=files[:1])
    with pytest.raises(InputError, match="no file matches"):
        read_dose(tmp_path / "whole.nrrd", batches=str(tmp_path / "nothing*"))


def test_batches_may_stand_together_in_one_file(tmp_path):
    stack = RNG.random((4, 3, 4, 5)) + 1
    np.savez(tmp_path / "b.npz", batches=stack, spacing_mm=SPACING, origin_mm=ORIGIN)
    dose = read_dose(saved(tmp_path / "a.nrrd", stack.mean(axis=0)), batches=str(tmp_path / "b.npz"))
    assert np.array_equal(dose.batches_gy, stack)


def test_batches_on_another_grid_are_refused(tmp_path):
    files = [saved(tmp_path / f"b{i}.npz") for i in range(2)]
    write_dose(DoseMap.from_array(DOSE, spacing_mm=SPACING), tmp_path / "a.npz")
    with pytest.raises(GridMismatchError, match=r"b0.npz: the batch has"):
        read_dose(tmp_path / "a.npz", batches=files)


def test_density_is_averaged_over_the_voxels_of_the_dose(tmp_path):
    dose = tmp_path / "a.npz"
    write_dose(
        DoseMap.from_array(np.ones((2, 2, 2)), spacing_mm=(2.0, 2.0, 2.0), origin_mm=(0.5, 0.5, 0.5)), dose
    )
    fine = RNG.random((4, 4, 4))
    write_dose(DoseMap.from_array(fine, spacing_mm=(1.0, 1.0, 1.0)), tmp_path / "rho.nrrd")
    density = read_dose(dose, density=tmp_path / "rho.nrrd").density_g_per_cm3
    assert np.allclose(density, fine.reshape(2, 2, 2, 2, 2, 2).mean(axis=(1, 3, 5)))
    write_dose(DoseMap.from_array(fine[:3], spacing_mm=(1.0, 1.0, 1.0)), tmp_path / "short.nrrd")
    with pytest.raises(GridMismatchError, match=r"short.nrrd: the density spans .* does not cover"):
        read_dose(dose, density=tmp_path / "short.nrrd")


# --- units and formats ------------------------------------------------------------------------------


def test_a_unit_that_the_file_states_is_not_overridden(tmp_path):
    saved(tmp_path / "stated.nrrd")  # written here: the header says Gy
    np.savez(tmp_path / "bare.npz", dose=DOSE, spacing_mm=SPACING)
    with pytest.warns(AccuracyWarning, match=r"stated\.nrrd states its unit, Gy"):
        assert read_dose(tmp_path / "stated.nrrd", unit="cgy").max_gy == DOSE.max()
    assert read_dose(tmp_path / "bare.npz", unit="cgy").max_gy == pytest.approx(DOSE.max() / 100)
    assert read_dose(tmp_path / "bare.npz", unit="gy").max_gy == DOSE.max()
    with pytest.raises(InputError, match="`unit` must be 'gy' or 'cgy', got 'rad'"):
        read_dose(tmp_path / "bare.npz", unit="rad")


def test_a_relative_dose_is_read_and_keeps_its_unit(data_path):
    assert describe(data_path("pydicom/rtdose_1frame.dcm"))["unit"] == "relative"


@pytest.mark.parametrize(
    "content", [b"\x89PNG\r\n\x1a\n" + bytes(100), b"hello world, this is text", bytes(500)]
)
def test_an_unknown_format_lists_those_that_are_known(content, tmp_path):
    (tmp_path / "a.xyz").write_bytes(content)
    with pytest.raises(DataFormatError, match=r"a.xyz is of no format that is known here.*RT Dose.*TOPAS"):
        read_dose(tmp_path / "a.xyz")


def test_formats_are_told_by_content(tmp_path, data_path):
    for name, kind in [
        ("egs_brachy/scatter/gold.3ddose", "3ddose"),
        ("topas2numpy/Dose.csv", "TOPAS"),
        ("slicerrt/TinyPatientDose.nrrd", "NRRD"),
        ("matrad/testData/MCsquare_data/output/Dose.mhd", "MetaImage"),
        ("openkbp/pt_201.npz", "NumPy"),
        ("eyeplan/rtdose.dcm", "DICOM"),
    ]:
        shutil.copyfile(data_path(name), tmp_path / "nameless")
        assert file_format(tmp_path / "nameless") == kind


@pytest.mark.parametrize(
    "name", ["eyeplan/rtdose.dcm", "topas2numpy/Dose.csv", "slicerrt/TinyPatientDose.nrrd"]
)
def test_gzip_changes_nothing(name, data_path, tmp_path):
    path = data_path(name)
    packed = tmp_path / f"{path.name}.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    plain, unpacked = read_dose(path), read_dose(packed)
    assert np.array_equal(plain.dose_gy, unpacked.dose_gy)
    assert unpacked.name == packed.name
    assert plain.grid.coincides_with(unpacked.grid)


# --- describe, maps, structures ---------------------------------------------------------------------


def test_describe_is_flat_and_holds_no_identifiers_unless_asked(data_path):
    path = data_path("eyeplan/rtdose.dcm")
    plain = describe(path)
    told = describe(path, identifiers=True)
    assert plain["format"] == "DICOM RT Dose"
    assert plain["max_gy"] == pytest.approx(read_dose(path).max_gy)
    assert {"PatientName", "PatientID", "StudyInstanceUID"}.isdisjoint(plain)
    assert set(plain) < set(told)
    for value in plain.values():
        assert isinstance(value, str | int | float | list | None)


def test_describe_tells_uncertainty_and_structures(data_path):
    told = describe(data_path("egs_brachy/scatter/gold.3ddose"))
    assert told["uncertainty"] == "standard uncertainty per voxel"
    assert told["uncertainty_above_half_maximum_percent"] == pytest.approx(0.0020327)
    assert "SpinalCord" in describe(data_path("openkbp/pt_201.npz"))["structures"]


def test_read_map_takes_a_dose_as_well(data_path):
    values, grid = read_map(data_path("eyeplan/rtdose.dcm"))
    assert values.shape == grid.shape


def test_contours_need_the_grid_of_the_dose(data_path):
    path = data_path("slicerrt/TinyPatient_RTSTRUCT.dcm")
    with pytest.raises(InputError, match="pass the grid of the dose"):
        read_structures(path)
    dose = read_dose(data_path("slicerrt/TinyPatientDose.nrrd"))
    assert len(read_structures(path, grid=dose.grid)) == 2


def test_structures_of_a_dose_file_move_to_another_grid(tmp_path):
    from dosemover.dose import Structure

    plain = a_map()
    half = Structure(
        name="half", fraction=(np.arange(60).reshape(3, 4, 5) < 20).astype(float), grid=plain.grid
    )
    write_dose(a_map(structures=(half,)), tmp_path / "a.npz")
    grid = DoseMap.from_array(np.ones((9, 8, 5)), spacing_mm=(1, 1, 1), origin_mm=(-4, 4.5, 5)).grid
    (moved,) = read_structures(tmp_path / "a.npz", grid=grid)
    assert moved.volume_cc == pytest.approx(half.volume_cc)
