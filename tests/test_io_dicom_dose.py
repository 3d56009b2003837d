"""Reading RT Dose: positions by an independent formula, values by the raw bytes, faults in one sentence."""

import itertools
import random
import warnings

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    RLELossless,
)

from dicom_files import FRAME, dose_dataset, save
from dosemover.dose import DoseMap
from dosemover.errors import DataFormatError, DosemoverError, InputError, MissingDependencyError
from dosemover.io.dicom_dataset import is_dicom
from dosemover.io.dicom_dose import read_dicom_dose

SIX = np.array(list(itertools.product([1, -1], np.eye(3, dtype=int).tolist())), dtype=object)
AXES = [sign * np.array(axis) for sign, axis in SIX]
ORIENTATIONS = [(*x, *y) for x in AXES for y in AXES if x @ y == 0]


def stored_values(shape=(3, 4, 5), dtype=np.uint16, seed=0):
    return np.random.default_rng(seed).integers(0, 100, shape).astype(dtype)


def position(ds, offsets, k, i, j):
    """PS3.3 C.7.6.2.1.1, equation by equation, as a person would with pencil and paper."""
    s = [float(v) for v in ds.ImagePositionPatient]
    x1, x2, x3, y1, y2, y3 = (float(v) for v in ds.ImageOrientationPatient)
    n = (x2 * y3 - x3 * y2, x3 * y1 - x1 * y3, x1 * y2 - x2 * y1)
    between_rows, between_columns = (float(v) for v in ds.PixelSpacing)
    return tuple(
        s[a] + (x1, x2, x3)[a] * between_columns * j + (y1, y2, y3)[a] * between_rows * i + n[a] * offsets[k]
        for a in range(3)
    )


def value_at(dose: DoseMap, point) -> float:
    """Value of the voxel whose position is the point (x, y, z)."""
    index = []
    for centers, coordinate in zip(dose.grid.centers_mm, point[::-1], strict=True):
        nearest = int(np.argmin(np.abs(centers - coordinate)))
        assert abs(centers[nearest] - coordinate) < 1e-6, "no voxel lies at the position that DICOM defines"
        index.append(nearest)
    return float(dose.dose_gy[tuple(index)])


def assert_every_voxel(dose, ds, stored, offsets):
    assert dose.dose_gy.size == stored.size
    assert all(np.all(np.diff(c) > 0) for c in dose.grid.centers_mm)
    voxels = list(np.ndindex(stored.shape))
    for k, i, j in voxels if len(voxels) < 700 else random.Random(1).sample(voxels, 700):
        expected = float(stored[k, i, j]) * float(ds.DoseGridScaling)
        assert value_at(dose, position(ds, offsets, k, i, j)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("direction", [1, -1])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_all_48_flips_and_permutations_land_where_dicom_defines(tmp_path, orientation, direction):
    stored = stored_values()
    offsets = [direction * d for d in (0.0, 2.5, 5.0)]
    ds = dose_dataset(stored, ImageOrientationPatient=list(orientation), GridFrameOffsetVector=offsets)
    assert_every_voxel(read_dicom_dose(save(ds, tmp_path / "d.dcm")), ds, stored, offsets)


@pytest.mark.parametrize(
    ("name", "origin", "spacing", "shape", "z"),
    [
        ("base16", (-20, -30, 5), (3, 2, 2.5), (6, 8, 10), [5, 7.5, 10, 12.5, 15, 17.5]),
        ("base32", (-20, -30, 5), (3, 2, 2.5), (6, 8, 10), [5, 7.5, 10, 12.5, 15, 17.5]),
        ("gfov_abs", (-20, -30, 5), (3, 2, 2.5), (6, 8, 10), [5, 7.5, 10, 12.5, 15, 17.5]),
        ("gfov_desc", (-20, -30, -7.5), (3, 2, 2.5), (6, 8, 10), [-7.5, -5, -2.5, 0, 2.5, 5]),
        ("gfov_nonuni", (-20, -30, 5), (3, 2, None), (6, 8, 10), [5, 7, 9, 12, 15, 19]),
        ("hfdl", (-20, -57, 5), (2, 3, 2.5), (6, 10, 8), [5, 7.5, 10, 12.5, 15, 17.5]),
        ("prone", (-7, 16, 5), (3, 2, 2.5), (6, 8, 10), [5, 7.5, 10, 12.5, 15, 17.5]),
    ],
)
def test_the_geometry_files_have_the_positions_worked_out_by_hand(
    data_path, name, origin, spacing, shape, z, record_validation
):
    path = data_path(f"dicom_geometry_generated/{name}.dcm")
    dose = read_dicom_dose(path)
    assert dose.grid.shape == shape
    assert dose.grid.origin_mm == pytest.approx(origin)
    assert dose.grid.spacing_mm == pytest.approx(spacing)
    np.testing.assert_allclose(dose.grid.centers_mm[0], z)
    ds = pydicom.dcmread(path)
    bits = ds.BitsAllocated
    stored = np.frombuffer(ds.PixelData, f"<u{bits // 8}").reshape(6, 8, 10)
    offsets = [float(v) - (5.0 if name == "gfov_abs" else 0.0) for v in ds.GridFrameOffsetVector]
    assert_every_voxel(dose, ds, stored, offsets)
    record_validation(
        "voxel positions of DICOM RT Dose: prone, decubitus, uneven and absolute frames",
        "worked out by hand from DICOM C.7.6.2",
        reached=float(np.abs(np.subtract(dose.grid.centers_mm[0], z)).max()),
        tolerance=1e-6,
        unit="mm",
    )


@pytest.mark.parametrize("positions", [(5.0, 7.5, 10.0), (5.0, 2.5, 0.0)])
@pytest.mark.parametrize("orientation", [(1, 0, 0, 0, 1, 0), (1, 0, 0, 0, -1, 0), (0, 1, 0, 1, 0, 0)])
def test_absolute_frame_offsets_are_positions_whichever_way_the_normal_points(
    tmp_path, orientation, positions
):
    """C.8.8.3.2: frame k lies at the z that the vector names, also where row x column points to the feet."""
    stored = stored_values()
    ds = dose_dataset(
        stored, ImageOrientationPatient=list(orientation), GridFrameOffsetVector=list(positions)
    )
    dose = read_dicom_dose(save(ds, tmp_path / "d.dcm"))
    assert dose.source["frame offsets"] == "absolute"
    x, y, _ = position(ds, (0.0, 0.0, 0.0), 0, 1, 2)
    for k, z in enumerate(positions):
        assert value_at(dose, (x, y, z)) == pytest.approx(0.001 * stored[k, 1, 2])


def test_uneven_frames_are_kept_with_boundaries_half_way(data_path):
    dose = read_dicom_dose(data_path("dicom_geometry_generated/gfov_nonuni.dcm"))
    np.testing.assert_allclose(dose.grid.z_edges_mm, [4, 6, 8, 10.5, 13.5, 17, 21])


def test_an_oblique_grid_is_refused(data_path):
    with pytest.raises(InputError, match=r"oblique.*axis-aligned grid"):
        read_dicom_dose(data_path("dicom_geometry_generated/oblique.dcm"))


REAL = {
    "pydicom/rtdose.dcm": "<u4",
    "pydicom/rtdose_expb.dcm": ">u4",
    "eyeplan/rtdose.dcm": "<u4",
    "agnew_mcgarry/ProstateIMRT_Reference_1mmPx.dcm": "<u2",
    "agnew_mcgarry/ProstateIMRT_Evaluated_0_25mmPx.dcm": "<u2",
    "agnew_mcgarry/GeometricSquare_Reference_1mmPx.dcm": "<u2",
    "rtkit/simple_phantom_case/RD1.3.6.1.4.1.2452.6.2111780937.1099271091.4199586950.4014688818.dcm": "<u2",
    "rtkit/simple_phantom_case/RD1.3.6.1.4.1.2452.6.3499739913.1197898690.1040988309.3964043299.dcm": "<u2",
    "rtkit/simple_phantom_case/RD1.3.6.1.4.1.2452.6.3641918815.1239528433.2837719487.3331095889.dcm": "<u2",
    "rtkit/simple_phantom_case/RD1.3.6.1.4.1.2452.6.3972076813.1154767945.2697895863.3611079142.dcm": "<u2",
}


@pytest.mark.parametrize("name", REAL)
def test_real_files_read_to_their_raw_bytes_at_their_positions(data_path, name):
    path = data_path(name)
    ds = pydicom.dcmread(path)
    frames = int(ds.get("NumberOfFrames") or 1)
    stored = np.frombuffer(ds.PixelData, REAL[name])[: frames * ds.Rows * ds.Columns]
    stored = stored.reshape(frames, ds.Rows, ds.Columns)
    offsets = ds.get("GridFrameOffsetVector", 0.0)
    assert_every_voxel(read_dicom_dose(path), ds, stored, np.atleast_1d(np.array(offsets, dtype=float)))


def test_rle_and_single_frame_files_hold_the_doses_of_the_plain_file(data_path):
    plain = read_dicom_dose(data_path("pydicom/rtdose.dcm"))
    assert plain.unit == "relative"
    assert plain.max_gy == pytest.approx(1.254)
    for name in ("rtdose_rle", "rtdose_expb", "rtdose_1frame", "rtdose_rle_1frame", "rtdose_expb_1frame"):
        dose = read_dicom_dose(data_path(f"pydicom/{name}.dcm"))
        np.testing.assert_array_equal(dose.dose_gy, plain.dose_gy[: dose.grid.shape[0]])
        assert dose.grid.coincides_with(
            plain.grid.crop((slice(0, dose.grid.shape[0]), slice(0, 10), slice(0, 10)))
        )


def test_the_beam_without_dose_reads_as_zero(data_path):
    name = "RD1.3.6.1.4.1.2452.6.3499739913.1197898690.1040988309.3964043299.dcm"
    dose = read_dicom_dose(data_path(f"rtkit/simple_phantom_case/{name}"))
    assert dose.max_gy == 0
    assert dose.grid.spacing_mm == pytest.approx((5, 5, 75))


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32])
def test_every_stored_type_reads(tmp_path, dtype):
    stored = stored_values(dtype=dtype)
    stored[0, 0, 0] = np.iinfo(dtype).max
    dose = read_dicom_dose(save(dose_dataset(stored), tmp_path / "d.dcm"))
    np.testing.assert_allclose(dose.dose_gy, stored * 0.001, rtol=1e-14)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian, RLELossless]
)
def test_every_transfer_syntax_of_pydicom_alone_reads(tmp_path, syntax, dtype):
    stored = stored_values(dtype=dtype)
    ds = dose_dataset(stored)
    if syntax == RLELossless:
        ds.compress(RLELossless, encoding_plugin="pydicom")
    else:
        ds.file_meta.TransferSyntaxUID = syntax
    if syntax == ExplicitVRBigEndian:
        swapped = stored.byteswap().tobytes()
        ds.PixelData = swapped
        if dtype == np.uint8:
            ds["PixelData"].VR = "OB"
    dose = read_dicom_dose(save(ds, tmp_path / "d.dcm"))
    np.testing.assert_allclose(dose.dose_gy, stored * 0.001, rtol=1e-14)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_jpeg_2000_reads_with_the_jpeg_extra(tmp_path, dtype):
    pytest.importorskip("openjpeg", reason="needs the extra jpeg")
    stored = stored_values(shape=(3, 32, 32), dtype=dtype)
    ds = dose_dataset(stored)
    ds.compress(JPEG2000Lossless)
    dose = read_dicom_dose(save(ds, tmp_path / "d.dcm"))
    np.testing.assert_allclose(dose.dose_gy, stored * 0.001, rtol=1e-14)


def test_a_missing_decoder_names_the_extra(tmp_path, monkeypatch):
    from pydicom.pixels.decoders import JPEGLosslessSV1Decoder

    monkeypatch.setattr(JPEGLosslessSV1Decoder, "_available", {})
    ds = dose_dataset(stored_values())
    ds.compress(RLELossless, encoding_plugin="pydicom")
    ds.file_meta.TransferSyntaxUID = JPEGLosslessSV1
    with pytest.raises(MissingDependencyError, match=r"pip install 'dosemover\[jpeg\]'"):
        read_dicom_dose(save(ds, tmp_path / "d.dcm"))


def test_a_file_without_prefix_and_meta_information_reads(tmp_path):
    ds = dose_dataset(stored_values())
    del ds.file_meta
    ds.save_as(tmp_path / "d.dcm", implicit_vr=True, little_endian=True, enforce_file_format=False)
    assert is_dicom(tmp_path / "d.dcm")
    np.testing.assert_allclose(read_dicom_dose(tmp_path / "d.dcm").dose_gy, stored_values() * 0.001)


def test_unused_high_bits_are_ignored(tmp_path):
    stored = stored_values() | np.uint16(0xF000)
    ds = dose_dataset(stored, BitsStored=12, HighBit=11)
    np.testing.assert_allclose(
        read_dicom_dose(save(ds, tmp_path / "d.dcm")).dose_gy, (stored & 0x0FFF) * 0.001
    )


@pytest.mark.parametrize(
    ("thickness", "offsets", "expected"),
    [("3.5", None, 3.5), ("", None, 1.0), (None, None, 1.0), ("0", [0, 4], 4.0), ("2", [0, 4], 2.0)],
)
def test_a_single_frame_is_as_thick_as_the_file_says(tmp_path, thickness, offsets, expected):
    ds = dose_dataset(stored_values((1, 4, 5)), GridFrameOffsetVector=offsets, NumberOfFrames=None)
    if thickness is not None:
        ds.SliceThickness = thickness
    dose = read_dicom_dose(save(ds, tmp_path / "d.dcm"))
    assert dose.grid.spacing_mm[2] == pytest.approx(expected)
    assert dose.grid.origin_mm[2] == pytest.approx(5)


def test_rounded_direction_cosines_are_taken_as_the_axis(tmp_path):
    ds = dose_dataset(stored_values(), ImageOrientationPatient=[1, 1e-6, 0, -1e-6, 1, 0])
    assert read_dicom_dose(save(ds, tmp_path / "d.dcm")).grid.origin_mm == pytest.approx((-20, -30, 5))


def test_identifiers_stay_apart_from_the_details(tmp_path):
    dose = read_dicom_dose(save(dose_dataset(stored_values()), tmp_path / "d.dcm"))
    assert dose.identifiers["PatientName"] == "Doe^Jane"
    assert dose.identifiers["PatientID"] == "4711"
    told = {**dose.source}
    assert told.pop("FrameOfReferenceUID") == FRAME
    assert told["file"] == "d.dcm"
    assert told["format"] == "DICOM RT Dose"
    assert told["DoseUnits"] == "GY"
    assert told["frame offsets"] == "relative"
    assert told["bits"] == "16 unsigned"
    for value in dose.identifiers.values():
        assert value not in {str(v) for v in told.values()}


FAULTS = {
    "negative": ({}, "negative dose"),
    "units": ({"DoseUnits": "CGY"}, "DoseUnits must be GY or RELATIVE, got 'CGY'"),
    "no units": ({"DoseUnits": None}, "lacks DoseUnits"),
    "spacing": ({"PixelSpacing": [0, 3]}, r"PixelSpacing must be positive, got \[0.0, 3.0\]"),
    "no spacing": ({"PixelSpacing": None}, "lacks PixelSpacing"),
    "no position": ({"ImagePositionPatient": None}, "lacks ImagePositionPatient"),
    "no orientation": ({"ImageOrientationPatient": None}, "lacks ImageOrientationPatient"),
    "position of two": ({"ImagePositionPatient": [1, 2]}, "must hold 3 numbers, got 2"),
    "no unit vectors": ({"ImageOrientationPatient": [2, 0, 0, 0, 1, 0]}, "two unit vectors"),
    "one direction": ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "right angle"),
    "no scaling": ({"DoseGridScaling": None}, "lacks DoseGridScaling"),
    "negative scaling": ({"DoseGridScaling": "-1"}, "DoseGridScaling must be positive"),
    "zero scaling": ({"DoseGridScaling": "0"}, "must be positive, got 0 with values"),
    "infinite dose": ({"DoseGridScaling": "1e308"}, "infinite dose"),
    "no offsets": ({"GridFrameOffsetVector": None}, "lacks GridFrameOffsetVector"),
    "too few offsets": ({"GridFrameOffsetVector": [0, 1]}, "holds 2 offsets for 3 frames"),
    "offsets turn": ({"GridFrameOffsetVector": [0, 2, 1]}, "ascend or descend strictly"),
    "equal offsets": ({"GridFrameOffsetVector": [0, 0, 1]}, "ascend or descend strictly"),
    "offsets from nowhere": ({"GridFrameOffsetVector": [1, 2, 3]}, "neither 0 .* nor the z 5.0 mm"),
    "no rows": ({"Rows": None}, "lacks Rows"),
    "rows 0": ({"Rows": 0}, "must be positive"),
    "huge": ({"Rows": 65535, "Columns": 65535, "NumberOfFrames": 2**31 - 1}, "truncated or damaged"),
    "too small": ({"Rows": 3}, "Which voxel a value belongs to is unknown"),
    "color": ({"SamplesPerPixel": 3}, "SamplesPerPixel of a dose must be 1, got '3'"),
    "palette": ({"PhotometricInterpretation": "PALETTE COLOR"}, "PhotometricInterpretation"),
    "sign": ({"PixelRepresentation": 2}, "PixelRepresentation of a dose must be 0 or 1"),
    "64 bits": ({"BitsAllocated": 64}, "8, 16 or 32 bits"),
    "high bit": ({"HighBit": 3}, "HighBit 3"),
    "no pixels": ({"PixelData": None}, "lacks PixelData"),
    "a CT": ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2"}, "is not an RT Dose but a CT Image"),
    "unknown class": ({"SOPClassUID": "1.2.3"}, "of the SOP class '1.2.3'"),
    "far away": ({"ImagePositionPatient": [1e9, 0, 0]}, "100 m from the origin"),
    "no room": ({"PixelSpacing": ["1e-200", 1]}, "no grid of voxels"),
    "negative thickness": ({"SliceThickness": "-2"}, "SliceThickness must not be negative"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_file_gets_one_clear_sentence(tmp_path, fault):
    changes, message = FAULTS[fault]
    stored = stored_values(dtype=np.int16 if fault == "negative" else np.uint16)
    if fault == "negative":
        stored[1, 2, 3] = -7
    path = save(dose_dataset(stored, **changes), tmp_path / "d.dcm")
    with pytest.raises((InputError, DataFormatError), match=message) as caught:
        read_dicom_dose(path)
    assert "d.dcm" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["abc", "1,5", "nan", "inf", "1e999", "--1"])
@pytest.mark.parametrize(
    ("keyword", "valid"),
    [("DoseGridScaling", b"0.001 "), ("PixelSpacing", b"2\\3 "), ("NumberOfFrames", b"3 ")],
)
def test_garbage_numbers_are_refused(tmp_path, keyword, valid, text):
    ds = dose_dataset(stored_values())
    element = ds.data_element(keyword)
    path = save(ds, tmp_path / "d.dcm")
    head = element.tag.group.to_bytes(2, "little") + element.tag.element.to_bytes(2, "little")
    content = path.read_bytes()
    start = content.index(head + element.VR.encode())
    length = int.from_bytes(content[start + 6 : start + 8], "little")
    garbage = (text.encode() + (b"\\3" if keyword == "PixelSpacing" else b"")).ljust(8)
    new = content[: start + 6] + len(garbage).to_bytes(2, "little") + garbage + content[start + 8 + length :]
    path.write_bytes(new)
    with pytest.raises(DataFormatError, match=keyword):
        read_dicom_dose(path)


def test_missing_empty_and_foreign_files_are_refused(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_dicom_dose(tmp_path / "nowhere.dcm")
    with pytest.raises(InputError, match="is a directory"):
        read_dicom_dose(tmp_path)
    with pytest.raises(InputError, match="cannot be read"):
        read_dicom_dose("a\0b")
    (tmp_path / "empty.dcm").touch()
    with pytest.raises(DataFormatError, match=r"empty \(0 bytes\)"):
        read_dicom_dose(tmp_path / "empty.dcm")
    (tmp_path / "text.dcm").write_text("no DICOM here, only a line of text")
    with pytest.raises(DataFormatError, match="is not a DICOM file"):
        read_dicom_dose(tmp_path / "text.dcm")
    (tmp_path / "prefix.dcm").write_bytes(bytes(128) + b"DICM")
    with pytest.raises(DataFormatError, match="lacks SOPClassUID"):
        read_dicom_dose(tmp_path / "prefix.dcm")
    assert not is_dicom(tmp_path / "text.dcm")
    assert not is_dicom(tmp_path / "nowhere.dcm")
    assert not is_dicom(tmp_path)


def test_an_unknown_transfer_syntax_is_refused(tmp_path):
    path = save(dose_dataset(stored_values()), tmp_path / "d.dcm")
    content = path.read_bytes()
    path.write_bytes(content.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.7\0", 1))
    with pytest.raises(DataFormatError, match=r"transfer syntax '1.2.840.10008.1.2.7' cannot be decoded"):
        read_dicom_dose(path)


def test_a_real_ct_is_refused(data_path):
    name = "CT1.3.6.1.4.1.2452.6.1182637672.1264755347.3544421004.3934111437.dcm"
    with pytest.raises(InputError, match="is not an RT Dose but a CT Image"):
        read_dicom_dose(data_path(f"rtkit/simple_phantom_case/{name}"))


def test_more_than_the_free_memory_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("dosemover.io.dicom_dose.available_memory_bytes", lambda: 100)
    with pytest.raises(InputError, match="GB are free"):
        read_dicom_dose(save(dose_dataset(stored_values()), tmp_path / "d.dcm"))


@pytest.mark.parametrize("syntax", ["plain", "rle", "deflated"])
def test_every_truncation_is_an_error(tmp_path, syntax):
    ds = dose_dataset(stored_values())
    if syntax == "rle":
        ds.compress(RLELossless, encoding_plugin="pydicom")
    if syntax == "deflated":
        ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    content = save(ds, tmp_path / "d.dcm").read_bytes()
    cut = tmp_path / "cut.dcm"
    for length in [*range(1, len(content) - 20, 37), len(content) - 20]:
        cut.write_bytes(content[:length])
        with pytest.raises(DosemoverError):
            read_dicom_dose(cut)


def read_or_refuse(path):
    """A dose map or a clear error; anything else fails the test."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            dose = read_dicom_dose(path)
        except DosemoverError as error:
            message = str(error)
        else:
            message = "a dose"
            assert 0 <= dose.max_gy < np.inf
    assert message
    assert "\n" not in message


@pytest.mark.parametrize("syntax", ["plain", "big endian", "rle", "deflated"])
def test_randomly_damaged_files_give_a_dose_or_a_clear_error(tmp_path, syntax):
    ds = dose_dataset(stored_values())
    if syntax == "rle":
        ds.compress(RLELossless, encoding_plugin="pydicom")
    elif syntax == "deflated":
        ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    elif syntax == "big endian":
        ds.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
        ds.PixelData = stored_values().byteswap().tobytes()
    content = save(ds, tmp_path / "d.dcm").read_bytes()
    rng = random.Random(20261124)
    path = tmp_path / "damaged.dcm"
    for _ in range(150):
        damaged = bytearray(content)
        for _ in range(rng.choice([1, 1, 2, 5, 20])):
            damaged[rng.randrange(128, len(damaged))] = rng.choice([0, 255, rng.randrange(256)])
        if rng.random() < 0.2:
            where = rng.randrange(132, len(damaged))
            del damaged[where : where + rng.randrange(1, 40)]
        path.write_bytes(bytes(damaged))
        read_or_refuse(path)


NUMBERS = st.lists(
    st.one_of(st.integers(-3, 300), st.floats(-1e30, 1e30)).map(lambda v: f"{v:.6g}"), max_size=7
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    changes=st.dictionaries(
        st.sampled_from(
            [
                *("PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient", "GridFrameOffsetVector"),
                *("DoseGridScaling", "SliceThickness", "Rows", "Columns", "BitsAllocated", "BitsStored"),
                *("HighBit", "PixelRepresentation", "SamplesPerPixel", "NumberOfFrames", "DoseUnits"),
            ]
        ),
        st.one_of(st.none(), st.integers(0, 65535), NUMBERS),
        min_size=1,
        max_size=3,
    )
)
def test_attributes_with_other_values_give_a_dose_or_a_clear_error(tmp_path, changes):
    ds = dose_dataset(stored_values(), SliceThickness="2.5")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for keyword, value in changes.items():
            try:
                if value is None:
                    delattr(ds, keyword)
                else:
                    setattr(ds, keyword, value)
            except (TypeError, ValueError, OverflowError, AttributeError):
                continue
        try:
            path = save(ds, tmp_path / "changed.dcm")
        except Exception:
            return
    read_or_refuse(path)
