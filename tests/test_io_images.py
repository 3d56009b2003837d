"""MetaImage, NRRD and NIfTI: geometry against nibabel and pynrrd, refusals, label maps."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
import SimpleITK

from dosemover.dose import DoseMap
from dosemover.errors import DataFormatError, GridMismatchError, InputError
from dosemover.grid import Grid
from dosemover.io import read_dose, read_map, read_structures

RNG = np.random.default_rng(3)
VALUES = RNG.random((3, 4, 5)) + 0.1


def centers(grid: Grid) -> np.ndarray:
    """Voxel centres (x, y, z), shape [z, y, x, 3]."""
    z, y, x = np.meshgrid(*grid.centers_mm, indexing="ij")
    return np.stack([x, y, z], axis=-1)


def write(path, array, *, spacing=(1.0, 2.0, 3.0), origin=(-4.0, 5.0, 6.0), direction=None):
    image = SimpleITK.GetImageFromArray(array)
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    if direction is not None:
        image.SetDirection(np.ravel(direction).tolist())
    SimpleITK.WriteImage(image, str(path), useCompression=True)
    return image


AXES = np.eye(3)
TURNS = [AXES[list(p)] * np.array(s)[:, None] for p in [(0, 1, 2), (1, 0, 2), (2, 0, 1)] for s in
         [(1, 1, 1), (-1, 1, -1), (1, -1, -1), (-1, -1, 1)]]  # fmt: skip


@pytest.mark.parametrize("suffix", [".mha", ".mhd", ".nrrd", ".nhdr", ".nii", ".nii.gz"])
@pytest.mark.parametrize("direction", TURNS, ids=range(len(TURNS)))
def test_every_permutation_and_flip_keeps_each_value_at_its_place(suffix, direction, tmp_path):
    path = tmp_path / f"a{suffix}"
    image = write(path, VALUES, direction=direction)
    dose = read_dose(path)
    where = centers(dose.grid)
    assert sorted(dose.grid.shape) == [3, 4, 5]
    for index in np.ndindex(dose.grid.shape):
        i, j, k = (int(n) for n in image.TransformPhysicalPointToIndex(where[index].tolist()))
        assert dose.dose_gy[index] == pytest.approx(VALUES[k, j, i], rel=1e-12)
        assert image.TransformIndexToPhysicalPoint((i, j, k)) == pytest.approx(where[index], abs=1e-4)
    assert dose.source["format"] == {"m": "MetaImage", "n": "NIfTI"}.get(suffix[1] if "nii" in suffix or
           suffix[1] == "m" else "r", "NRRD")  # fmt: skip


def test_nifti_positions_agree_with_nibabel(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    affine = np.array([[0, -2.0, 0, 30], [1.5, 0, 0, -20], [0, 0, 3.0, 7], [0, 0, 0, 1]])  # RAS
    values = RNG.random((4, 3, 5)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(values, affine), tmp_path / "a.nii.gz")
    dose = read_dose(tmp_path / "a.nii.gz")
    where = centers(dose.grid)
    for index in np.ndindex(values.shape):
        ras = (affine @ [*index, 1])[:3]
        lps = ras * [-1, -1, 1]
        at = np.argwhere(np.all(np.abs(where - lps) < 1e-3, axis=-1))
        assert len(at) == 1
        assert dose.dose_gy[tuple(at[0])] == values[index]


def test_nifti_2_is_refused_with_a_remedy(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    nibabel.save(nibabel.Nifti2Image(VALUES, np.eye(4)), tmp_path / "a.nii")
    with pytest.raises(InputError, match=r"a.nii is NIfTI-2.*Save it as NIfTI-1"):
        read_dose(tmp_path / "a.nii")


def test_nifti_slope_and_units_are_applied(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    image = nibabel.Nifti1Image(
        np.arange(24, dtype=np.int16).reshape(2, 3, 4), np.diag([-0.002, -0.002, 0.002, 1])
    )
    image.header.set_xyzt_units("meter")
    image.header.set_slope_inter(0.5, 1.0)
    image.header["scl_slope"], image.header["scl_inter"] = 0.5, 1.0
    raw = bytearray(image.to_bytes())
    raw[112:120] = np.array([0.5, 1.0], "<f4").tobytes()
    (tmp_path / "a.nii").write_bytes(bytes(raw))
    stored = np.asarray(nibabel.load(tmp_path / "a.nii").get_fdata())
    dose = read_dose(tmp_path / "a.nii")
    assert dose.grid.spacing_mm == pytest.approx((2.0, 2.0, 2.0), rel=1e-6)
    assert np.allclose(np.transpose(stored, (2, 1, 0)), dose.dose_gy)


@pytest.mark.parametrize("space", ["left-posterior-superior", "right-anterior-superior"])
def test_nrrd_positions_agree_with_pynrrd(space, tmp_path):
    nrrd = pytest.importorskip("nrrd")
    values = RNG.random((4, 3, 5))
    header = {"space": space, "space directions": np.diag([1.5, -2.0, 3.0]), "space origin": [1.0, 2.0, 3.0]}
    nrrd.write(str(tmp_path / "a.nrrd"), values, header)
    back, told = nrrd.read(str(tmp_path / "a.nrrd"))
    sign = np.array([1, 1, 1]) if space.startswith("left") else np.array([-1, -1, 1])
    dose = read_dose(tmp_path / "a.nrrd")
    where = centers(dose.grid)
    for index in np.ndindex(back.shape):
        lps = sign * (told["space origin"] + np.array(index) @ told["space directions"])
        at = np.argwhere(np.all(np.abs(where - lps) < 1e-6, axis=-1))
        assert dose.dose_gy[tuple(at[0])] == back[index]


@pytest.mark.parametrize("encoding", ["raw", "gzip", "ascii"])
def test_nrrd_encodings_give_the_same_values(encoding, tmp_path):
    nrrd = pytest.importorskip("nrrd")
    values = np.arange(24, dtype=np.float64).reshape(2, 3, 4) + 0.5
    nrrd.write(str(tmp_path / "a.nrrd"), values, {"encoding": encoding, "spacings": [1.0, 2.0, 3.0]})
    assert np.array_equal(read_dose(tmp_path / "a.nrrd").dose_gy, values.transpose(2, 1, 0))


@pytest.mark.parametrize("kind", ["u1", "i2", "u2", "i4", "u4", "f4", "f8"])
def test_integer_and_float_types_are_read(kind, tmp_path):
    values = np.arange(24).reshape(2, 3, 4).astype(kind)
    write(tmp_path / "a.mha", values)
    assert np.array_equal(read_dose(tmp_path / "a.mha").dose_gy, values)


def test_big_endian_metaimage_is_read(tmp_path):
    values = np.arange(24, dtype=">f4").reshape(2, 3, 4)
    header = "NDims = 3\nDimSize = 4 3 2\nElementType = MET_FLOAT\nElementSpacing = 1 2 3\n"
    header += "BinaryDataByteOrderMSB = True\nElementDataFile = LOCAL\n"
    (tmp_path / "a.mha").write_bytes(header.encode() + values.tobytes())
    assert np.array_equal(read_dose(tmp_path / "a.mha").dose_gy, values)


@pytest.mark.parametrize("suffix", [".mha", ".nrrd", ".nii"])
def test_a_two_dimensional_image_is_a_slice_of_one_millimetre(suffix, tmp_path):
    image = SimpleITK.GetImageFromArray(VALUES[0])
    image.SetSpacing((1.0, 2.0))
    SimpleITK.WriteImage(image, str(tmp_path / f"a{suffix}"))
    dose = read_dose(tmp_path / f"a{suffix}")
    assert dose.grid.spacing_mm == (1.0, 2.0, 1.0)
    assert np.allclose(dose.dose_gy[0], VALUES[0])


def test_a_series_of_one_volume_is_read_and_of_two_refused(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    one = RNG.random((5, 4, 3, 1)).astype("f4")
    nibabel.save(nibabel.Nifti1Image(one, np.diag([-1.0, -1, 1, 1])), tmp_path / "one.nii")
    assert np.allclose(read_dose(tmp_path / "one.nii").dose_gy, one[..., 0].transpose(2, 1, 0))
    two = np.concatenate([one, one], axis=3)
    nibabel.save(nibabel.Nifti1Image(two, np.diag([-1.0, -1, 1, 1])), tmp_path / "two.nii")
    with pytest.raises(InputError, match=r"two.nii has dimensions \(5, 4, 3, 2\)"):
        read_dose(tmp_path / "two.nii")


def test_oblique_images_are_refused_and_rounding_is_not(tmp_path):
    c, s = np.cos(0.1), np.sin(0.1)
    write(tmp_path / "oblique.nrrd", VALUES, direction=[[c, -s, 0], [s, c, 0], [0, 0, 1]])
    with pytest.raises(InputError, match=r"oblique.nrrd lies oblique.*Resample"):
        read_dose(tmp_path / "oblique.nrrd")
    c, s = np.cos(1e-6), np.sin(1e-6)
    write(tmp_path / "rounded.nrrd", VALUES, direction=[[c, -s, 0], [s, c, 0], [0, 0, 1]])
    assert read_dose(tmp_path / "rounded.nrrd").grid.spacing_mm == pytest.approx((1.0, 2.0, 3.0))


def test_several_components_and_complex_numbers_are_refused(tmp_path):
    SimpleITK.WriteImage(
        SimpleITK.GetImageFromArray(np.zeros((2, 3, 4, 3), "f4"), isVector=True), str(tmp_path / "v.mha")
    )
    with pytest.raises(InputError, match="holds 3 components per voxel"):
        read_dose(tmp_path / "v.mha")
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(np.zeros((2, 3, 4), "c8")), str(tmp_path / "c.nii"))
    with pytest.raises(InputError, match="complex numbers"):
        read_dose(tmp_path / "c.nii")


@pytest.mark.parametrize("spacing", ["1 0 3", "1 -2 3", "1 nan 3"])
def test_spacings_that_are_not_positive_are_refused(spacing, tmp_path):
    header = f"NDims = 3\nDimSize = 4 3 2\nElementType = MET_FLOAT\nElementSpacing = {spacing}\n"
    header += "ElementDataFile = LOCAL\n"
    (tmp_path / "a.mha").write_bytes(header.encode() + bytes(96))
    with pytest.raises(DataFormatError, match=r"a\.mha: ElementSpacing (must be positive|holds 'nan')"):
        read_dose(tmp_path / "a.mha")


@pytest.mark.parametrize("suffix", [".mha", ".nrrd"])
def test_a_flipped_bit_in_compressed_voxels_is_noticed(suffix, tmp_path):
    path = tmp_path / f"a{suffix}"
    write(path, RNG.random((8, 9, 10)))
    data = bytearray(path.read_bytes())
    data[-2000] ^= 4
    path.write_bytes(bytes(data))
    with pytest.raises(DataFormatError, match=path.name):
        read_dose(path)


@pytest.mark.parametrize("suffix", [".mha", ".nrrd", ".nii", ".mhd"])
def test_a_truncated_image_is_refused_before_it_is_allocated(suffix, tmp_path):
    path = tmp_path / f"a{suffix}"
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(VALUES), str(path))
    victim = tmp_path / "a.raw" if suffix == ".mhd" else path
    victim.write_bytes(victim.read_bytes()[:-8])
    with pytest.raises(DataFormatError, match=r"declares 480 bytes of voxels, but can hold 47"):
        read_dose(path)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "a.mha",
            "NDims = 3\nDimSize = 900000 900000 900000\nElementType = MET_FLOAT\nElementDataFile = LOCAL\n",
        ),
        (
            "a.nrrd",
            "NRRD0004\ntype: float\ndimension: 3\nsizes: 900000 900000 900000\nendian: little\n"
            "encoding: gzip\n\n",
        ),
        (
            "b.nrrd",
            "NRRD0004\ntype: float\ndimension: 3\nsizes: 900000 900000 900000\nendian: little\n"
            "encoding: raw\n\n",
        ),
    ],
)
def test_absurd_dimensions_are_refused_before_they_are_allocated(name, text, tmp_path):
    (tmp_path / name).write_bytes(text.encode() + bytes(100))
    with pytest.raises((InputError, DataFormatError), match=rf"{name}.*2\.916e\+18 bytes"):
        read_dose(tmp_path / name)


def test_what_is_missing_beside_a_header_is_named(tmp_path):
    header = "NDims = 3\nDimSize = 4 3 2\nElementType = MET_FLOAT\nElementDataFile = {}\n"
    (tmp_path / "a.mhd").write_text(header.format("gone.raw"))
    with pytest.raises(InputError, match=r"data file 'gone.raw', which is not beside it"):
        read_dose(tmp_path / "a.mhd")
    (tmp_path / "b.mhd").write_text(header.format("slice%03d.raw 1 10 1"))
    with pytest.raises(InputError, match="spreads its voxels over several files"):
        read_dose(tmp_path / "b.mhd")
    (tmp_path / "c.mhd").write_text("NDims = 3\nDimSize = 4 3 2\n")
    with pytest.raises(DataFormatError, match="ends without ElementDataFile"):
        read_dose(tmp_path / "c.mhd")
    (tmp_path / "d.nrrd").write_text("NRRD0004\ntype: float\n\n")
    with pytest.raises(DataFormatError, match="lacks sizes or encoding"):
        read_dose(tmp_path / "d.nrrd")
    (tmp_path / "e.nii").write_bytes(b"\x5c\x01\0\0" + bytes(300))
    with pytest.raises(DataFormatError, match="header is cut short"):
        read_dose(tmp_path / "e.nii")


def test_gzip_around_an_image_is_understood(tmp_path):
    write(tmp_path / "a.mha", VALUES)
    (tmp_path / "b.mha.gz").write_bytes(gzip.compress((tmp_path / "a.mha").read_bytes()))
    dose = read_dose(tmp_path / "b.mha.gz")
    assert dose.name == "b.mha.gz"
    assert np.array_equal(dose.dose_gy, VALUES)


def test_a_suffix_that_lies_does_not_matter(tmp_path):
    write(tmp_path / "a.nrrd", VALUES)
    (tmp_path / "a.mha").write_bytes((tmp_path / "a.nrrd").read_bytes())
    assert read_dose(tmp_path / "a.mha").source["format"] == "NRRD"


def test_the_eclipse_dose_has_its_published_maximum_and_integral(data_path):
    dose = read_dose(data_path("slicerrt/EclipseEnt_Dose.nrrd"))
    nrrd = pytest.importorskip("nrrd")
    values, header = nrrd.read(str(data_path("slicerrt/EclipseEnt_Dose.nrrd")))
    assert np.array_equal(dose.dose_gy, values.transpose(2, 1, 0))
    assert dose.grid.origin_mm == pytest.approx(tuple(header["space origin"]), abs=1e-9)
    other = read_dose(data_path("slicerrt/EclipseEnt_Dose_Day2.nrrd"))
    assert other.grid.coincides_with(dose.grid)
    assert other.integral_gy_mm3 / dose.integral_gy_mm3 == pytest.approx(1, abs=3e-6)


def test_fred_output_is_turned_to_ascending_axes(data_path):
    path = data_path("matrad/testData/FRED_data/MCrun/out/score/Phantom.Dose.mhd")
    raw = np.frombuffer(path.read_bytes()[-8000:], "<f4").reshape(
        10, 20, 10
    )  # TransformMatrix 1 0 0 0 -1 0 0 0 -1
    dose = read_dose(path)
    assert np.array_equal(dose.dose_gy, raw[::-1, ::-1])
    assert dose.grid.origin_mm == (-45.0, -95.0, -45.0)


def test_mcsquare_output_keeps_the_order_of_the_file_and_says_so(data_path):
    path = data_path("matrad/testData/MCsquare_data/output/Dose.mhd")
    raw = np.fromfile(path.with_suffix(".raw"), "<f4").reshape(10, 20, 10)
    dose = read_dose(path)
    assert np.array_equal(dose.dose_gy, raw)
    assert "file order" in dose.source["orientation"]
    assert "eV/g" in dose.source["unit_note"]


def test_a_ct_is_no_dose_but_a_map(data_path):
    path = data_path("slicerrt/TinyPatientCT.nrrd")
    with pytest.raises(
        InputError, match=r"TinyPatientCT.nrrd: `dose_gy` must be finite and not negative, got -1000"
    ):
        read_dose(path)
    values, grid = read_map(path)
    assert values.min() == -1000
    assert values.shape == grid.shape


def label_image(path, labels, meta=()):
    image = SimpleITK.GetImageFromArray(labels)
    for key, value in meta:
        image.SetMetaData(key, value)
    SimpleITK.WriteImage(image, str(path))


def test_labels_become_structures_with_the_names_of_slicer(tmp_path):
    labels = np.zeros((4, 4, 4), "u1")
    labels[:2], labels[3, 0] = 1, 5
    label_image(tmp_path / "plain.mha", labels)
    assert [s.name for s in read_structures(tmp_path / "plain.mha")] == ["label 1", "label 5"]
    meta = [("Segment0_Name", "PTV"), ("Segment0_LabelValue", "5"), ("Segment0_Layer", "0")]
    label_image(tmp_path / "a.seg.nrrd", labels, meta)
    one, ptv = read_structures(tmp_path / "a.seg.nrrd")
    assert (one.name, ptv.name) == ("label 1", "PTV")
    assert ptv.volume_cc == pytest.approx(4 / 1000)
    assert [s.name for s in read_structures(tmp_path / "a.seg.nrrd", names=["PTV"])] == ["PTV"]
    with pytest.raises(InputError, match="no structure 'CTV', only label 1, PTV"):
        read_structures(tmp_path / "a.seg.nrrd", names=["CTV"])


def test_a_mask_takes_the_name_of_its_file_and_keeps_its_volume_on_another_grid(tmp_path):
    mask = np.zeros((6, 6, 6), "u1")
    mask[2:5, 1:4, 1:5] = 1
    label_image(tmp_path / "lung.nii.gz", mask)  # LPS through SimpleITK
    grid = Grid.regular(shape=(3, 3, 3), spacing_mm=(2.5, 2.5, 2.5), origin_mm=(0.2, 0.4, 0.75))
    (lung,) = read_structures(tmp_path / "lung.nii.gz", grid=grid)
    assert lung.name == "lung"
    z, y, x = grid.box_mm
    box = (0.5, 4.5), (0.5, 3.5), (1.5, 4.5)
    inside = [min(h, b) - max(low, a) for (low, h), (a, b) in zip((x, y, z), box, strict=True)]
    assert lung.volume_cc == pytest.approx(np.prod(inside) / 1000, rel=1e-6)


def test_overlapping_segments_lie_in_layers(tmp_path):
    layers = np.zeros((3, 3, 3, 2), "u1")
    layers[0, ..., 0] = 1
    layers[0:2, ..., 1] = 1
    image = SimpleITK.GetImageFromArray(layers, isVector=True)
    image.SetMetaData("Segment1_Name", "outer")
    image.SetMetaData("Segment1_LabelValue", "1")
    image.SetMetaData("Segment1_Layer", "1")
    SimpleITK.WriteImage(image, str(tmp_path / "a.seg.nrrd"))
    inner, outer = read_structures(tmp_path / "a.seg.nrrd")
    assert outer.name == "outer"
    assert (inner.mask.sum(), outer.mask.sum()) == (9, 18)


def test_what_is_no_label_map_or_lies_elsewhere_is_refused(tmp_path):
    write(tmp_path / "dose.mha", VALUES)
    with pytest.raises(InputError, match="Labels are whole numbers"):
        read_structures(tmp_path / "dose.mha")
    label_image(tmp_path / "a.mha", np.ones((2, 2, 2), "u1"))
    far = Grid.regular(shape=(2, 2, 2), spacing_mm=(1.0, 1.0, 1.0), origin_mm=(500.0, 0.0, 0.0))
    with pytest.raises(GridMismatchError, match="do not overlap"):
        read_structures(tmp_path / "a.mha", grid=far)
    label_image(tmp_path / "empty.mha", np.zeros((2, 2, 2), "u1"))
    with pytest.raises(InputError, match="holds no structures"):
        read_structures(tmp_path / "empty.mha")


def gate_pair(folder, *, stem="a-Dose", companion="a-Dose-Uncertainty"):
    dose = np.zeros((2, 3, 4), "f4")
    dose[0] = np.linspace(1, 2, 12).reshape(3, 4)
    relative = np.where(dose > 0, 0.03, 1.0).astype("f4")
    write(folder / f"{stem}.mhd", dose)
    write(folder / f"{companion}.mhd", relative)
    return dose


@pytest.mark.parametrize(
    ("stem", "companion"),
    [("a-Dose", "a-Dose-Uncertainty"), ("a_dose", "a_dose_uncertainty"), ("dose", "dose_uncertainty")],
)
def test_the_uncertainty_that_gate_leaves_beside_the_dose_is_found(stem, companion, tmp_path):
    values = gate_pair(tmp_path, stem=stem, companion=companion)
    dose = read_dose(tmp_path / f"{stem}.mhd")
    assert np.allclose(dose.uncertainty_gy, 0.03 * values, rtol=1e-6)
    assert dose.source["uncertainty"] == f"{companion}.mhd, relative, found beside the dose"


@pytest.mark.parametrize(
    ("change", "reason"),
    [(lambda r: 3 * r, "reaches from"), (lambda r: np.where(r == 1, 0, r), "is not 1 where the dose is 0")],
)
def test_a_map_beside_the_dose_that_is_not_gates_is_left_alone(change, reason, tmp_path):
    values = gate_pair(tmp_path)
    write(tmp_path / "a-Dose-Uncertainty.mhd", change(np.where(values > 0, 0.03, 1.0)).astype("f4"))
    dose = read_dose(tmp_path / "a-Dose.mhd")
    assert dose.uncertainty_gy is None
    assert reason in dose.source["uncertainty"]


def test_a_companion_on_another_grid_or_damaged_is_left_alone(tmp_path):
    gate_pair(tmp_path)
    write(tmp_path / "a-Dose-Uncertainty.mhd", np.ones((2, 3, 3), "f4"))
    assert "another grid" in read_dose(tmp_path / "a-Dose.mhd").source["uncertainty"]
    (tmp_path / "a-Dose-Uncertainty.mhd").write_text("damaged")
    dose = read_dose(tmp_path / "a-Dose.mhd")
    assert isinstance(dose, DoseMap)
    assert "not used" in dose.source["uncertainty"]


def test_a_data_file_with_letters_beyond_ascii_is_found(tmp_path):
    image = SimpleITK.GetImageFromArray(VALUES)
    SimpleITK.WriteImage(image, str(tmp_path / "dose à 2 Gy.mhd"))
    assert np.array_equal(read_dose(tmp_path / "dose à 2 Gy.mhd").dose_gy, VALUES)
    header = (tmp_path / "dose à 2 Gy.mhd").read_text("utf-8")
    (tmp_path / "old.mhd").write_bytes(
        f"Comment = Ärztin\n{header.replace('dose à 2 Gy', 'x')}".encode("latin-1")
    )
    (tmp_path / "dose à 2 Gy.raw").rename(tmp_path / "x.raw")
    assert np.array_equal(read_dose(tmp_path / "old.mhd").dose_gy, VALUES)


def test_nifti_whose_two_transforms_disagree_is_refused(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    affine = np.array([[0, -2.0, 0, 30], [1.5, 0, 0, -20], [0, 0, 3.0, 7], [0, 0, 0, 1]])
    image = nibabel.Nifti1Image(VALUES, affine)
    image.set_qform(affine, 1)
    image.set_sform(affine, 1)
    nibabel.save(image, tmp_path / "both.nii")
    both = read_dose(tmp_path / "both.nii")
    shifted = affine.copy()
    shifted[1, 3] += 1.0
    image.set_sform(shifted, 1)
    nibabel.save(image, tmp_path / "shifted.nii")
    with pytest.raises(DataFormatError, match=r"its qform and its sform.*along y: origin -20 and -19 mm"):
        read_dose(tmp_path / "shifted.nii")
    image.set_sform(shifted, 0)
    nibabel.save(image, tmp_path / "one.nii")
    assert read_dose(tmp_path / "one.nii").grid.coincides_with(both.grid)
