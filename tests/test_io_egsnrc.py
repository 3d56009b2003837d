"""EGSnrc .3ddose: order, uneven boundaries, uncertainties, and lines that are broken."""

from __future__ import annotations

import gzip
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dosemover.errors import DataFormatError
from dosemover.io import read_dose
from dosemover.io.egsnrc import read_3ddose

SMALL = """2 1 3
0.0 1.0 3.0
-1 1
0 0.5 1 2
1 2 3 4 5 6
.1 .2 .3 .4 .5 .6
"""


def write(folder, text: str, name: str = "a.3ddose"):
    (folder / name).write_text(text)
    return folder / name


def test_x_runs_fastest_and_boundaries_are_in_centimetres(tmp_path):
    dose = read_dose(write(tmp_path, SMALL))
    assert dose.dose_gy.tolist() == [[[1, 2]], [[3, 4]], [[5, 6]]]
    assert dose.grid.x_edges_mm.tolist() == [0, 10, 30]
    assert dose.grid.y_edges_mm.tolist() == [-10, 10]
    assert dose.grid.z_edges_mm.tolist() == [0, 5, 10, 20]
    assert dose.grid.spacing_mm == (None, 20.0, None)
    # 1x10 + 2x20 over 20 x 5 mm2, and so on, by hand
    assert dose.integral_gy_mm3 == pytest.approx((50 * 100) + (110 * 100) + (170 * 200))


def test_relative_uncertainties_become_absolute(tmp_path):
    dose = read_dose(write(tmp_path, SMALL))
    assert np.allclose(dose.uncertainty_gy.ravel(), [0.1, 0.4, 0.9, 1.6, 2.5, 3.6])
    assert dose.unit == "Gy"
    assert "per particle" in dose.source["normalization"]


def test_the_uncertainties_may_be_missing(tmp_path):
    assert read_dose(write(tmp_path, SMALL.replace(".1 .2 .3 .4 .5 .6\n", ""))).uncertainty_gy is None


@pytest.mark.parametrize(
    "text",
    [
        SMALL.replace("1 2 3 4 5 6", "1.0D0 2.0d+00 0.3E1\n  4,5 6"),
        SMALL.replace("1 2 3 4 5 6", "1\n2\n3\n4\n\n5\n6"),
        SMALL.replace("\n", "\r\n"),
        SMALL.replace(" ", "\t"),
        SMALL.replace("2 1 3\n0.0", "2 1 3 0.0"),
    ],
)
def test_fortran_numbers_and_any_line_breaks_are_understood(text, tmp_path):
    assert read_dose(write(tmp_path, text)).dose_gy.ravel().tolist() == [1, 2, 3, 4, 5, 6]


def test_a_fortran_exponent_of_three_digits_has_no_letter(tmp_path):
    dose = read_dose(write(tmp_path, SMALL.replace("1 2 3", "1.0-101 2 3")))
    assert dose.dose_gy.flat[0] == 1e-101


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (("1 2 3 4 5 6", "1 2 3 banana 5 6"), r"a.3ddose: line 5: 'banana' is not a number \(word 4"),
        (
            ("1 2 3 4 5 6", "1 2 3 4 5"),
            "11 values after the boundaries, up to line 6, where 2 x 1 x 3 voxels need 6",
        ),
        ((".1 .2 .3 .4 .5 .6", ".1 .2"), "8 values after the boundaries"),
        ((".5 .6", ".5 .6 .7"), "13 values after the boundaries"),
        (("2 1 3", "0 1 3"), "three positive whole numbers of voxels, got"),
        (("2 1 3", "2.5 1 3"), "three positive whole numbers of voxels, got"),
        (("2 1 3", "999999 999999 999999"), "declares 999999 x 999999 x 999999 voxels, but holds 24 numbers"),
        (("0.0 1.0 3.0", "0.0 0.0 3.0"), "line 2: the x boundaries must be finite and ascending"),
        (("0 0.5 1 2", "0 0.5 nan 2"), "line 4: the z boundaries must be finite and ascending"),
    ],
)
def test_a_broken_line_is_named(change, match, tmp_path):
    with pytest.raises(DataFormatError, match=match):
        read_dose(write(tmp_path, SMALL.replace(*change)))


def test_a_file_without_numbers_is_refused(tmp_path):
    with pytest.raises(DataFormatError, match="holds no numbers"):
        read_dose(write(tmp_path, "\n \n"))


@settings(max_examples=25, deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 4)] * 3),
    seed=st.integers(0, 2**32 - 1),
    newline=st.sampled_from([" ", "\n", "\n  "]),
)
def test_every_map_comes_back_as_written(shape, seed, newline, tmp_path_factory):
    rng = np.random.default_rng(seed)
    nz, ny, nx = shape
    dose, relative = rng.random(shape), rng.random(shape)
    edges = [np.cumsum(rng.random(n + 1) + 0.1) for n in (nx, ny, nz)]
    blocks = [[nx, ny, nz], *edges, dose.ravel(), relative.ravel()]
    text = "\n".join(newline.join(repr(float(v)) if i else str(v) for v in b) for i, b in enumerate(blocks))
    path = write(tmp_path_factory.mktemp("egs"), text)
    content = read_3ddose(path)
    assert np.array_equal(content.values, dose)
    assert np.allclose(content.uncertainty, relative * dose, rtol=1e-15)
    assert np.allclose(content.grid.x_edges_mm, 10 * edges[0])


@pytest.mark.parametrize(
    ("name", "shape", "first", "relative", "z_mm"),
    [  # read off the files by eye
        ("recycling/gold_standard.3ddose", (3, 3, 3), 1.90162e-12, 6.728e-05, (-7.5, 7.5)),
        ("scatter/gold.3ddose", (1, 1, 20), 1.77158e-12, 2.0327e-05, (-9990.0, 9990.0)),
        ("variable_w_recycling/gold_standard.3ddose", (2, 1, 1), 1.06146e-13, 0.000136256, (-10.0, 10.0)),
        ("tg43mode/gold_standard.3ddose", (11, 11, 11), 4.00055e-14, None, (-11.0, 11.0)),
        ("stepped_source/gold_standard.3ddose", (1, 2, 16), 1.86398e-15, None, (-9990.0, 9990.0)),
    ],
)
def test_egs_brachy_files_read_as_printed(name, shape, first, relative, z_mm, data_path):
    dose = read_dose(data_path(f"egs_brachy/{name}"))
    assert dose.grid.shape == shape
    assert dose.dose_gy.flat[0] == first
    if relative is not None:
        assert dose.uncertainty_gy.flat[0] / first == pytest.approx(relative, rel=1e-3)
    assert dose.grid.box_mm[0] == pytest.approx(z_mm)


def test_every_egs_brachy_file_is_read_and_gzip_changes_nothing(data_path, tmp_path):
    files = sorted(data_path("egs_brachy").glob("*/*.3ddose"))
    assert len(files) == 16
    for path in files:
        dose = read_dose(path)
        words = path.read_text().split()
        first = 6 + sum(int(n) for n in words[:3])
        assert dose.dose_gy.ravel().tolist() == [float(w) for w in words[first : first + dose.grid.n_voxels]]
        (tmp_path / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            packed = read_dose(tmp_path / f"{path.name}.gz")
        assert np.array_equal(packed.dose_gy, dose.dose_gy)
