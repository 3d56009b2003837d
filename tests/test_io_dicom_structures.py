"""RT Structure Sets: areas in closed form, slabs, holes, gaps, and two treatment planning programs."""

import csv
import itertools
import random
import re
import time
import warnings

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813 (the name that its own documentation uses)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dicom_files import FRAME, structure_dataset
from dicom_files import save as save_dataset
from dosemover.errors import AccuracyWarning, DataFormatError, DosemoverError, InputError
from dosemover.grid import Grid
from dosemover.io.contour_kernels import even_odd_area
from dosemover.io.dicom_structures import read_structures, slabs

GRID = Grid.regular(shape=(12, 20, 24), spacing_mm=(2.0, 2.5, 3.0), origin_mm=(-23.0, -23.75, -16.5))
"""Box: x -24 to 24, y -25 to 25, z -18 to 18 mm."""

CLOSED = "CLOSED_PLANAR"


def polygon(radius, n=90, center=(0.0, 0.0), turn=1):
    angle = turn * 2 * np.pi * np.arange(n) / n
    return np.column_stack([center[0] + radius * np.cos(angle), center[1] + radius * np.sin(angle)])


def polygon_area(radius, n=90):
    return 0.5 * n * radius**2 * np.sin(2 * np.pi / n)


def rectangle(x0, x1, y0, y1):
    return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], dtype=float)


def at(z, corners, kind=CLOSED):
    return kind, np.column_stack([corners, np.full(len(corners), float(z))])


def read(tmp_path, rois, *, grid=GRID, **options):
    return read_structures(save_dataset(structure_dataset(rois), tmp_path / "s.dcm"), grid=grid, **options)


def areas(contours, x_edges, y_edges):
    corners = np.concatenate(contours)
    out = np.zeros((len(y_edges) - 1, len(x_edges) - 1))
    starts = np.cumsum([0, *map(len, contours)])
    x, y = (np.ascontiguousarray(corners[:, i]) for i in (0, 1))
    even_odd_area(x, y, starts, np.asarray(x_edges, float), np.asarray(y_edges, float), out)
    return out


def counted_area(contours, x_edges, y_edges, n):
    """Twin of the kernel: even-odd count on n x n points a pixel, by the crossing rule."""
    x, y = (
        np.concatenate([a + (b - a) * (np.arange(n) + 0.5) / n for a, b in itertools.pairwise(e)])
        for e in (x_edges, y_edges)
    )
    xx, yy = np.meshgrid(x, y)
    inside = np.zeros(xx.shape, dtype=bool)
    for corners in contours:
        for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
            if y0 != y1:
                inside ^= ((y0 > yy) != (y1 > yy)) & (xx < x0 + (x1 - x0) * (yy - y0) / (y1 - y0))
    share = inside.reshape(len(y_edges) - 1, n, len(x_edges) - 1, n).mean(axis=(1, 3))
    return share * np.outer(np.diff(y_edges), np.diff(x_edges))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), corners=st.integers(3, 9), contours=st.integers(1, 3))
def test_area_of_any_contours_is_that_of_counted_points(seed, corners, contours):
    rng = np.random.default_rng(seed)
    x_edges, y_edges = np.cumsum(rng.uniform(0.5, 3, 8)) - 7, np.cumsum(rng.uniform(0.5, 3, 7)) - 6
    shapes = [rng.uniform(-9, 9, (corners, 2)) for _ in range(contours)]
    got = areas(shapes, x_edges, y_edges)
    expected = counted_area(shapes, x_edges, y_edges, 60)
    assert np.abs(got - expected).max() < 0.05 * np.outer(np.diff(y_edges), np.diff(x_edges)).max()
    assert abs((got - expected).sum()) < 0.3


def test_areas_are_exact():
    edges = np.linspace(-10, 10, 12)
    assert areas([polygon(7)], edges, edges).sum() == pytest.approx(polygon_area(7), rel=1e-13)
    assert areas([polygon(30)], edges, edges) == pytest.approx(np.full((11, 11), (20 / 11) ** 2), rel=1e-13)
    ring = areas([polygon(7), polygon(4)], edges, edges).sum()
    assert ring == pytest.approx(polygon_area(7) - polygon_area(4), rel=1e-12)
    one_pixel = areas([np.array([(0.25, 0.0), (1.0, 0.75), (0.5, 1.0), (0.0, 0.5)])], [0, 1], [0, 1])
    assert one_pixel.item() == pytest.approx(0.5 * abs(0.1875 + 0.625 + 0.25 - 0.125), rel=1e-13)  # shoelace


@pytest.mark.parametrize("spacing", [(0.7, 0.9, 1.1), (2, 2.5, 3), (5, 5, 5), (40, 60, 50)])
def test_a_cylinder_has_its_volume_on_any_grid(tmp_path, spacing):
    shape = tuple(int(np.ceil(60 / s)) + 2 for s in spacing[::-1])
    origin = tuple(-s * (n - 1) / 2 + 0.3 for s, n in zip(spacing, shape[::-1], strict=True))
    grid = Grid.regular(shape=shape, spacing_mm=spacing, origin_mm=origin)
    rois = {"rod": [at(z, polygon(11.3)) for z in np.arange(-9, 10, 3)]}
    (rod,) = read(tmp_path, rois, grid=grid)
    assert rod.volume_cc == pytest.approx(polygon_area(11.3) * 21 / 1000, rel=1e-6)


def test_a_box_fills_voxels_by_the_product_of_its_overlaps(tmp_path):
    box = rectangle(-5.5, 7.0, -3.0, 9.25)
    (structure,) = read(tmp_path, {"box": [at(z, box) for z in (-4, 0, 4)]})

    def overlap(edges, low, high):
        return np.clip(np.minimum(edges[1:], high) - np.maximum(edges[:-1], low), 0, None) / np.diff(edges)

    fz, fy, fx = (
        overlap(edges, *span)
        for edges, span in zip(GRID.edges_mm, ((-6, 6), (-3, 9.25), (-5.5, 7)), strict=True)
    )
    np.testing.assert_allclose(structure.fraction, fz[:, None, None] * fy[:, None] * fx, atol=1e-12)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(dx=st.floats(-8, 8), dy=st.floats(-8, 8), dz=st.floats(-5, 5))
def test_volume_and_center_follow_the_contours(tmp_path, dx, dy, dz):
    dx, dy, dz = round(dx, 4), round(dy, 4), round(dz, 4)
    fine = Grid.regular(shape=(36, 50, 48), spacing_mm=(1, 1, 1), origin_mm=(-23.5, -24.5, -17.5))
    rois = {"s": [at(z + dz, polygon(10, center=(dx, dy))) for z in (-6, -3, 0, 3, 6)]}
    (s,) = read(tmp_path, rois, grid=fine)
    assert s.volume_cc == pytest.approx(polygon_area(10) * 15 / 1000, rel=1e-6)
    for axis, shift in ((0, dz), (1, dy), (2, dx)):
        other = tuple(a for a in range(3) if a != axis)
        mean = (s.fraction.sum(axis=other) * fine.centers_mm[axis]).sum() / s.fraction.sum()
        assert mean == pytest.approx(shift, abs=0.01)


@pytest.mark.parametrize("turn", [1, -1])
def test_nested_contours_are_holes_and_islands_in_them_are_filled(tmp_path, turn):
    rois = {
        "ring": [at(z, polygon(r, turn=t)) for z in (0, 3) for r, t in ((18, 1), (12, turn), (5, 1))],
    }
    (ring,) = read(tmp_path, rois)
    expected = (polygon_area(18) - polygon_area(12) + polygon_area(5)) * 6 / 1000
    assert ring.volume_cc == pytest.approx(expected, rel=1e-6)
    assert ring.fraction[6, 10, 12] == pytest.approx(1)


def test_a_keyhole_is_a_hole(tmp_path):
    outer, inner = polygon(18), polygon(9)
    keyhole = np.concatenate([outer, outer[:1], inner[:1], inner[:0:-1], inner[:1]])
    (ring,) = read(tmp_path, {"ring": [at(0, keyhole), at(3, keyhole)]})
    assert ring.volume_cc == pytest.approx((polygon_area(18) - polygon_area(9)) * 6 / 1000, rel=1e-6)


def test_separate_contours_of_a_slice_add(tmp_path):
    rois = {"two": [at(z, polygon(6, center=(x, 0))) for z in (0, 3) for x in (-12, 12)]}
    (two,) = read(tmp_path, rois)
    assert two.volume_cc == pytest.approx(2 * polygon_area(6) * 6 / 1000, rel=1e-6)


def test_a_contour_listed_twice_counts_once(tmp_path):
    (s,) = read(tmp_path, {"s": [at(z, polygon(8)) for z in (0, 0, 3)]})
    assert s.volume_cc == pytest.approx(polygon_area(8) * 6 / 1000, rel=1e-6)


def test_slices_between_contours_belong_to_the_nearer_one(tmp_path):
    fine = Grid.regular(shape=(40, 20, 24), spacing_mm=(2, 2.5, 0.5), origin_mm=(-23, -23.75, -9.75))
    (s,) = read(tmp_path, {"s": [at(-5, polygon(5)), at(0, polygon(10)), at(5, polygon(5))]}, grid=fine)
    per_slice = s.fraction.sum(axis=(1, 2)) * 5.0
    z = fine.centers_mm[0]
    expected = np.where(np.abs(z) < 2.5, polygon_area(10), np.where(np.abs(z) < 7.5, polygon_area(5), 0))
    np.testing.assert_allclose(per_slice, expected, rtol=1e-6)


def test_what_lies_outside_the_grid_is_cut_off(tmp_path):
    corner = rectangle(14, 100, 15, 100)
    (s,) = read(tmp_path, {"s": [at(z, corner) for z in (9, 15, 21, 27)]})
    assert s.volume_cc == pytest.approx(10 * 10 * 12 / 1000)
    assert s.fraction[-1, -1, -1] == 1


def test_missing_slices_are_not_filled_and_said(tmp_path):
    rois = {"s": [at(z, polygon(8)) for z in (-12, -9, -6, 3, 6)]}
    with pytest.warns(AccuracyWarning, match=r"'s' has no contours between z = -6 and 3 mm"):
        (s,) = read(tmp_path, rois)
    assert s.volume_cc == pytest.approx(polygon_area(8) * 15 / 1000, rel=1e-6)


@pytest.mark.parametrize(
    ("z", "others", "low", "high", "gaps"),
    [
        ([0, 3, 6], [], [-1.5, 1.5, 4.5], [1.5, 4.5, 7.5], []),
        ([0, 2, 4, 9, 14], [], [-1, 1, 3, 6.5, 11.5], [1, 3, 6.5, 11.5, 16.5], []),
        ([0, 2, 4, 8, 10], [], [-1, 1, 3, 7, 9], [1, 3, 5, 9, 11], [(4, 8)]),
        ([0, 2, 20], [], [-1, 1, 19], [1, 3, 21], [(2, 20)]),
        ([0], [], [-2], [2], []),
        ([0], [10, 13, 16], [-1.5], [1.5], []),
        ([0, 6], [], [-3, 3], [3, 9], []),
        ([0, 6], [2, 4, 8, 10], [-1, 5], [1, 7], [(0, 6)]),
        (
            [0, 2, 4, 6, 10, 14, 16],
            [8, 12],
            [-1, 1, 3, 5, 9, 13, 15],
            [1, 3, 5, 7, 11, 15, 17],
            [(6, 10), (10, 14)],
        ),
        ([0, 4, 8, 12], [2, 6, 10], [-2, 2, 6, 10], [2, 6, 10, 14], []),
    ],
)
def test_slabs_reach_half_way_except_over_missing_slices(z, others, low, high, gaps):
    got = slabs(np.array(z, float), np.unique([*z, *others]).astype(float), default_mm=4.0)
    np.testing.assert_allclose(got[0], low)
    np.testing.assert_allclose(got[1], high)
    assert got[2] == gaps


def test_a_structure_of_one_plane_is_as_thick_as_the_spacing_of_the_set(tmp_path):
    rois = {"disc": [at(0, polygon(8))], "rod": [at(z, polygon(4)) for z in (-4, 0, 4)]}
    disc, _ = read(tmp_path, rois)
    assert disc.volume_cc == pytest.approx(polygon_area(8) * 4 / 1000, rel=1e-6)


def test_points_open_contours_and_empty_structures_are_left_out_and_said(tmp_path):
    rois = {
        "iso": [("POINT", [(0, 0, 0)])],
        "wire": [at(0, polygon(5), kind="OPEN_PLANAR")],
        "empty": [],
        "two corners": [at(0, polygon(5, n=2))],
        "far": [at(z, polygon(5, center=(300, 0))) for z in (0, 3)],
        "s": [at(z, polygon(5)) for z in (0, 3)],
    }
    with pytest.warns(AccuracyWarning) as caught:
        structures = read(tmp_path, rois)
    assert [s.name for s in structures] == ["s"]
    assert len(caught) == 1
    for part in ("'iso' has no closed", "'wire' has no", "'empty' has no", "'far' lies outside the grid"):
        assert part in str(caught[0].message)
    with pytest.raises(InputError, match=r"'empty' has no closed contour\. It was asked for by name"):
        read(tmp_path, rois, names=["empty", "s"])
    assert [s.name for s in read(tmp_path, rois, names=["s"])] == ["s"]


def test_names_pick_and_order_structures(tmp_path):
    rois = {name: [at(z, polygon(5)) for z in (0, 3)] for name in ("a", "b", "c")}
    assert [s.name for s in read(tmp_path, rois, names=["c", "a"])] == ["c", "a"]
    with pytest.raises(InputError, match=r"no structure named 'd', 'e'\. It has: 'a', 'b', 'c'"):
        read(tmp_path, rois, names=["a", "d", "e"])


def test_names_used_twice_get_a_number(tmp_path):
    rois = {name: [at(z, polygon(5)) for z in (0, 3)] for name in ("PTV", "PTV*", "PTV**", "")}
    assert [s.name for s in read(tmp_path, rois)] == ["PTV", "PTV (2)", "PTV (3)", "ROI 4"]


def test_another_frame_of_reference_is_refused(tmp_path):
    rois = {"s": [at(z, polygon(5)) for z in (0, 3)]}
    assert read(tmp_path, rois, frame_of_reference_uid=FRAME)
    with pytest.raises(
        InputError, match=r"belongs to the frame of reference .*498\.1, the dose to 1\.2\.3\."
    ):
        read(tmp_path, rois, frame_of_reference_uid="1.2.3")


def test_the_frame_of_reference_of_the_whole_set_counts_as_well(tmp_path):
    ds = structure_dataset({"s": [at(z, polygon(5)) for z in (0, 3)]})
    del ds.StructureSetROISequence[0].ReferencedFrameOfReferenceUID
    assert read_structures(save_dataset(ds, tmp_path / "s.dcm"), grid=GRID, frame_of_reference_uid="1.2.3")
    frame = pydicom.Dataset()
    frame.FrameOfReferenceUID = FRAME
    ds.ReferencedFrameOfReferenceSequence = [frame]
    with pytest.raises(InputError, match="belongs to the frame of reference"):
        read_structures(save_dataset(ds, tmp_path / "s.dcm"), grid=GRID, frame_of_reference_uid="1.2.3")


def test_contours_that_are_not_axial_are_refused(tmp_path):
    sagittal = [(CLOSED, [(0, 0, 0), (0, 10, 0), (0, 10, 10), (0, 0, 10)])]
    with pytest.raises(InputError, match=r"reaches from z = 0 to 10 mm. Only axial"):
        read(tmp_path, {"s": sagittal})


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"1\\2\\3\\4 ", "finite triples"),
        (b"1\\2\\x ", "must be numbers"),
        (b"nan\\2\\3 ", "finite triples"),
        (b"1e300\\2\\3 ", "finite triples"),
    ],
)
def test_garbage_contours_are_refused(tmp_path, data, message):
    ds = structure_dataset({"s": [at(0, rectangle(11, 12, 13, 14))]})
    path = save_dataset(ds, tmp_path / "s.dcm")
    content = path.read_bytes()
    tag = bytes.fromhex("06305000") + b"DS"
    start = content.index(tag) + 6
    length = int.from_bytes(content[start : start + 2], "little")
    padded = data.ljust(length)  # trailing spaces are padding
    path.write_bytes(content[: start + 2] + padded + content[start + 2 + length :])
    with pytest.raises(DataFormatError, match=message):
        read_structures(path, grid=GRID)


def test_a_set_without_structures_is_refused(tmp_path):
    with pytest.raises(DataFormatError, match="names no structure"):
        read(tmp_path, {})
    with pytest.raises(InputError, match=r"holds no structure on the grid of the dose: 'iso' has no closed"):
        read(tmp_path, {"iso": [("POINT", [(0, 0, 0)])]})


def test_another_kind_of_file_is_refused(data_path):
    with pytest.raises(InputError, match="is not an RT Structure Set but an RT Dose"):
        read_structures(data_path("pydicom/rtdose.dcm"), grid=GRID)


def test_a_file_without_prefix_reads(data_path):
    grid = Grid.regular(shape=(5, 20, 20), spacing_mm=(50, 50, 10), origin_mm=(-475, -475, -210))
    with pytest.warns(AccuracyWarning, match="'Isocenter 1' has no closed contour"):
        (patient,) = read_structures(data_path("pydicom/rtstruct.dcm"), grid=grid)
    assert patient.name == "patient"
    assert patient.volume_cc == pytest.approx(
        set_volume(data_path("pydicom/rtstruct.dcm"), 1, 10.0), rel=1e-9
    )


def set_volume(path, number, thickness_mm):
    """Shoelace areas times a thickness [cm3], for contours that do not nest."""
    total = 0.0
    for roi in pydicom.dcmread(path, force=True).ROIContourSequence:
        if roi.ReferencedROINumber == number:
            for contour in roi.ContourSequence:
                x, y, _ = np.array(contour.ContourData, dtype=float).reshape(-1, 3).T
                total += abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2 * thickness_mm
    return total / 1000


def test_the_phantom_structures_have_their_drawn_volumes(data_path):
    path = data_path(
        "rtkit/simple_phantom_case/RS1.3.6.1.4.1.2452.6.727319383.1116259385.3336283576.3074434425.dcm"
    )
    grid = Grid.regular(shape=(7, 100, 100), spacing_mm=(10, 10, 75), origin_mm=(-495, -495, -225))
    structures = read_structures(path, grid=grid)
    names = ["External", "Big", "Small", "Circle", "BigH_SmallV", "BigV_SmallH", "Star"]
    assert [s.name for s in structures] == names
    for number, structure in enumerate(structures, start=1):
        assert structure.volume_cc == pytest.approx(set_volume(path, number, 75.0), rel=1e-9)


def nrrd(path):
    image = sitk.ReadImage(str(path))
    dose = sitk.GetArrayFromImage(image).astype(float)
    grid = Grid.regular(shape=dose.shape, spacing_mm=image.GetSpacing(), origin_mm=image.GetOrigin())
    return dose, grid


def dvh_table(path):
    """Volume [cm3] and mean dose [Gy] of each structure of a table of cumulative DVHs, letters only."""
    with path.open(newline="") as file:
        head, *rows = csv.reader(file)
    table = {}
    for i in range(0, len(head) - 1, 2):
        name = re.sub(r"[^a-z0-9]", "", head[i].split("_DvhArray")[0].lower())
        points = np.array(
            [(float(r[i]), float(r[i + 1])) for r in rows if len(r) > i + 1 and r[i] and r[i + 1]]
        )
        volume = float(re.search(r"% of ([\d.]+) cc", head[i + 1]).group(1))
        heights = (points[1:, 1] + points[:-1, 1]) / 2
        table[name] = volume, float(heights @ np.diff(points[:, 0])) / 100
    return table


def key(name):
    return re.sub(r"[^a-z0-9]", "", name.lower())


def test_a_head_and_neck_has_the_volumes_and_mean_doses_of_two_planning_programs(data_path):
    dose, grid = nrrd(data_path("slicerrt/EclipseEnt_Dose.nrrd"))
    cerr = dvh_table(data_path("slicerrt/EclipseEnt_DvhTable_CERR.csv"))
    eclipse = dvh_table(data_path("slicerrt/EclipseEnt_DvhTable_Eclipse.csv"))
    structures = read_structures(data_path("slicerrt/EclipseEnt_RTSTRUCT.dcm"), grid=grid)
    assert {key(s.name) for s in structures} == set(cerr)
    compared = 0
    for s in structures:
        volume, _ = cerr[key(s.name)]
        if volume < 1:
            continue
        compared += 1
        assert s.volume_cc == pytest.approx(volume, rel=0.005 if volume > 3 else 0.015), s.name
        mean = float((s.fraction * dose).sum() / s.fraction.sum())
        limit = {"BRSTEM": 0.15, "optOptic": 0.25}.get(s.name, 0.06)
        assert mean == pytest.approx(eclipse[key(s.name)][1], abs=limit), s.name
    assert compared == 13


def test_a_head_and_neck_is_read_in_two_seconds(data_path):
    path = data_path("slicerrt/EclipseEnt_RTSTRUCT.dcm")
    grid = Grid.regular(shape=(136, 88, 176), spacing_mm=(2.5,) * 3, origin_mm=(-219.97, -113.05, -99.88))
    read_structures(path, grid=grid, names=["GTV"])  # compiles
    start = time.process_time()
    read_structures(path, grid=grid)
    assert time.process_time() - start < 2.0


def test_the_tiny_patient_has_its_drawn_volumes(data_path):
    _, grid = nrrd(data_path("slicerrt/TinyPatientDose.nrrd"))
    path = data_path("slicerrt/TinyPatient_RTSTRUCT.dcm")
    wide = Grid.regular(shape=(40, 60, 60), spacing_mm=(20, 20, 23), origin_mm=(-590, -590, -448))
    for structure, number in zip(read_structures(path, grid=wide), (1, 2), strict=True):
        assert structure.volume_cc == pytest.approx(set_volume(path, number, 23.0), rel=1e-9)
    assert all(s.volume_cc > 0 for s in read_structures(path, grid=grid))


def test_randomly_damaged_sets_give_structures_or_a_clear_error(tmp_path):
    rois = {"s": [at(z, polygon(5, n=12)) for z in (0, 3, 6)], "iso": [("POINT", [(0, 0, 0)])]}
    content = save_dataset(structure_dataset(rois), tmp_path / "s.dcm").read_bytes()
    rng = random.Random(20261124)
    path = tmp_path / "damaged.dcm"
    for _ in range(200):
        damaged = bytearray(content)
        for _ in range(rng.choice([1, 1, 2, 5, 20])):
            damaged[rng.randrange(128, len(damaged))] = rng.choice([0, 255, rng.randrange(256)])
        if rng.random() < 0.3:
            damaged = damaged[: rng.randrange(132, len(damaged))]
        path.write_bytes(bytes(damaged))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.simplefilter("ignore", AccuracyWarning)
            try:
                structures = read_structures(path, grid=GRID)
            except DosemoverError as error:
                message = str(error)
            else:
                message = "structures"
                assert all(0 <= s.fraction.min() <= s.fraction.max() <= 1 for s in structures)
        assert message
        assert "\n" not in message
