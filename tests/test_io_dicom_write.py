"""Writing RT Dose: what is written reads back, is valid and names nobody."""

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813 (the name that its own documentation uses)
from hypothesis import HealthCheck, given, settings
from pydicom.valuerep import validate_value

from dicom_files import FRAME, dose_dataset, save
from dosemover._files import atomic_write
from dosemover.dose import DoseMap
from dosemover.errors import AccuracyWarning, InputError, UnitError
from dosemover.grid import Grid
from dosemover.io.dicom_dose import read_dicom_dose
from dosemover.io.dicom_write import write_dicom_dose
from strategies import dose_maps

# PS3.3 A.18 and the modules that it names: attributes of type 1 and 1C that apply, and of type 2
TYPE_1 = [
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "Modality",
    "SeriesInstanceUID",
    "FrameOfReferenceUID",
    "PixelSpacing",
    "ImageOrientationPatient",
    "ImagePositionPatient",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PixelData",
    "NumberOfFrames",
    "FrameIncrementPointer",
    "DoseUnits",
    "DoseType",
    "DoseSummationType",
    "GridFrameOffsetVector",
    "DoseGridScaling",
    "ReferencedRTPlanSequence",
    "SpecificCharacterSet",
]
TYPE_2 = [
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
    "StudyID",
    "AccessionNumber",
    "SeriesNumber",
    "OperatorsName",
    "Manufacturer",
    "PositionReferenceIndicator",
    "InstanceNumber",
    "SliceThickness",
]


def a_map(**fields) -> DoseMap:
    rng = np.random.default_rng(3)
    return DoseMap.from_array(
        70 * rng.random((5, 6, 7)), spacing_mm=(2.0, 2.5, 3.0), origin_mm=(-10.25, 4.5, -123.4567), **fields
    )


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(dose=dose_maps())
def test_any_map_reads_back_within_a_billionth_of_its_maximum(tmp_path, dose):
    back = read_dicom_dose(write_dicom_dose(dose, tmp_path / "out.dcm"))
    assert back.grid.coincides_with(dose.grid)
    assert np.abs(back.dose_gy - dose.dose_gy).max() <= 1e-9 * dose.max_gy
    assert back.unit == "Gy"


@pytest.mark.parametrize("maximum", [1e-30, 1e-5, 1.0, 62.6, 1e9, 1e120])
def test_maps_of_any_size_read_back(tmp_path, maximum):
    dose = a_map()
    dose = dose.scaled(maximum / dose.max_gy)
    back = read_dicom_dose(write_dicom_dose(dose, tmp_path / "out.dcm"))
    assert np.abs(back.dose_gy - dose.dose_gy).max() <= 1e-9 * maximum


def test_a_zero_map_and_a_relative_map_read_back(tmp_path):
    zero = DoseMap.from_array(np.zeros((2, 3, 4)), spacing_mm=(1, 1, 1), unit="relative")
    back = read_dicom_dose(write_dicom_dose(zero, tmp_path / "out.dcm"))
    assert back.max_gy == 0
    assert back.unit == "relative"


def test_the_file_holds_every_attribute_that_the_iod_requires(tmp_path):
    ds = pydicom.dcmread(write_dicom_dose(a_map(), tmp_path / "out.dcm"))  # warnings are errors here
    for keyword in TYPE_1:
        assert keyword in ds, keyword
        assert ds[keyword].value not in (None, ""), keyword
    for keyword in TYPE_2:
        assert keyword in ds, keyword
    for element in ds.iterall():
        values = element.value if element.VM > 1 else [element.value]
        for value in values if element.VR in ("DS", "IS", "UI", "CS", "LO", "PN", "SH") else ():
            validate_value(element.VR, "" if value is None else str(value), pydicom.config.RAISE)
    uids = [ds.SOPInstanceUID, ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID]
    assert len(set(uids)) == 4
    assert all(uid.is_valid and uid.startswith("2.25.") for uid in uids)
    assert ds.file_meta.MediaStorageSOPInstanceUID == ds.SOPInstanceUID
    assert ds.FrameIncrementPointer == 0x3004000C


def test_another_program_reads_the_same_values_at_the_same_places(tmp_path):
    dose = a_map()
    image = sitk.ReadImage(str(write_dicom_dose(dose, tmp_path / "out.dcm")))
    scaling = float(pydicom.dcmread(tmp_path / "out.dcm").DoseGridScaling)
    np.testing.assert_allclose(sitk.GetArrayFromImage(image) * scaling, dose.dose_gy, atol=1e-9 * dose.max_gy)
    assert image.GetOrigin() == pytest.approx(dose.grid.origin_mm)
    assert image.GetSpacing() == pytest.approx(dose.grid.spacing_mm)
    assert image.GetDirection() == (1, 0, 0, 0, 1, 0, 0, 0, 1)


def test_identifiers_are_written_only_when_asked_for(tmp_path):
    original = save(
        dose_dataset(np.ones((3, 4, 5), np.uint16), StudyDescription="of Jane"), tmp_path / "in.dcm"
    )
    dose = read_dicom_dose(original)
    secrets = [v.encode() for v in dose.identifiers.values()]
    assert secrets
    content = write_dicom_dose(dose, tmp_path / "out.dcm").read_bytes()
    assert not any(secret in content for secret in secrets)
    content = write_dicom_dose(dose, tmp_path / "named.dcm", identifiers=True).read_bytes()
    assert all(secret in content for secret in secrets)


def test_the_frame_of_reference_is_kept_for_the_structure_set(tmp_path):
    dose = read_dicom_dose(save(dose_dataset(np.ones((3, 4, 5), np.uint16)), tmp_path / "in.dcm"))
    assert pydicom.dcmread(write_dicom_dose(dose, tmp_path / "out.dcm")).FrameOfReferenceUID == FRAME


def test_uneven_frames_read_back_where_they_were(tmp_path):
    grid = Grid.from_centers(x_mm=[0, 1], y_mm=[0, 2], z_mm=[5, 7, 9, 12, 15, 19])
    dose = DoseMap(dose_gy=np.arange(24.0).reshape(6, 2, 2), grid=grid)
    assert read_dicom_dose(write_dicom_dose(dose, tmp_path / "out.dcm")).grid.coincides_with(grid)


def test_boundaries_that_a_file_cannot_hold_are_said_to_be_lost(tmp_path):
    grid = Grid(x_edges_mm=[0, 1, 2], y_edges_mm=[0, 1, 2], z_edges_mm=[0, 1, 3])
    with pytest.warns(AccuracyWarning, match=r"boundaries along z will read back up to 0.25 mm off"):
        write_dicom_dose(DoseMap(dose_gy=np.ones((2, 2, 2)), grid=grid), tmp_path / "out.dcm")


def test_uneven_rows_are_refused(tmp_path):
    grid = Grid(x_edges_mm=[0, 1, 3], y_edges_mm=[0, 1, 3], z_edges_mm=[0, 1])
    with pytest.raises(InputError, match="uneven along x and y"):
        write_dicom_dose(DoseMap(dose_gy=np.ones((1, 2, 2)), grid=grid), tmp_path / "out.dcm")
    assert not list(tmp_path.iterdir())


def test_other_units_are_refused(tmp_path):
    with pytest.raises(UnitError, match="this map is in Gy/history"):
        write_dicom_dose(a_map(unit="Gy/history"), tmp_path / "out.dcm")


def test_a_vanishing_map_is_refused(tmp_path):
    dose = DoseMap.from_array(np.full((2, 2), 1e-318), spacing_mm=(1, 1))
    with pytest.raises(InputError, match="too small to be scaled"):
        write_dicom_dose(dose, tmp_path / "out.dcm")


def test_a_map_of_four_gigabytes_is_refused(tmp_path):
    grid = Grid.regular(shape=(1024, 1024, 1024), spacing_mm=(1, 1, 1))
    huge = object.__new__(DoseMap)
    for name, value in {"dose_gy": np.broadcast_to(1.0, grid.shape), "grid": grid, "unit": "Gy"}.items():
        object.__setattr__(huge, name, value)
    for name in ("source", "identifiers"):
        object.__setattr__(huge, name, {})
    with pytest.raises(InputError, match="less than 4 GB"):
        write_dicom_dose(huge, tmp_path / "out.dcm")


def test_an_unwritable_output_is_one_clear_sentence(tmp_path):
    with pytest.raises(InputError, match=r"does not exist\. Nothing was written"):
        write_dicom_dose(a_map(), tmp_path / "nowhere" / "out.dcm")
    with pytest.raises(InputError, match="is a directory, not a file"):
        write_dicom_dose(a_map(), tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cannot be written|does not exist"):
        write_dicom_dose(a_map(), tmp_path / "file" / "out.dcm")
    with pytest.raises(InputError, match="cannot be overwritten"):
        write_dicom_dose(a_map(), "/dev/null")
    with pytest.raises(InputError, match="cannot be written"):
        write_dicom_dose(a_map(), tmp_path / ("x" * 300))
    with pytest.raises(InputError, match="cannot be written"):
        write_dicom_dose(a_map(), "a\0b")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "dose.nii.gz"
    target.write_text("old")
    with pytest.raises(ZeroDivisionError), atomic_write(target) as temporary:
        temporary.write_text(f"new {1 // 0}")
    with (
        pytest.raises(InputError, match=r"No space left on device\. Nothing was written"),
        atomic_write(target),
    ):
        raise OSError(28, "No space left on device")
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_the_temporary_file_has_the_suffixes_and_takes_the_place_of_a_link(tmp_path):
    target, link = tmp_path / "dose.nii.gz", tmp_path / "link.nii.gz"
    target.write_text("old")
    link.symlink_to(target)
    with atomic_write(link) as temporary:
        assert temporary.name.endswith(".nii.gz")
        temporary.write_text("new")
    assert link.is_symlink()
    assert target.read_text() == "new"


@pytest.mark.parametrize("spacing", [9.999999999999998, 99.99999999999997, 0.1 + 0.2, 1 / 3])
def test_decimal_strings_have_at_most_16_characters(spacing, tmp_path):
    dose = DoseMap.from_array(
        np.ones((2, 3, 4)), spacing_mm=(spacing, 2.0, spacing), origin_mm=(-spacing, 0, 0)
    )
    dataset = pydicom.dcmread(write_dicom_dose(dose, tmp_path / "a.dcm"))
    for value in (*dataset.PixelSpacing, *dataset.ImagePositionPatient, *dataset.GridFrameOffsetVector):
        assert len(str(value)) <= 16
    assert read_dicom_dose(tmp_path / "a.dcm").grid.coincides_with(dose.grid, tolerance_mm=1e-9)
