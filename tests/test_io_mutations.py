"""Damaged files of every format give a dose map or a clear error, never anything else."""

from __future__ import annotations

import gzip
import re
import resource
import time
import warnings

import numpy as np
import pytest
import SimpleITK
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dosemover.dose import DoseMap, Structure
from dosemover.errors import DosemoverError
from dosemover.io import read_dose, read_map, read_structures, write_dose

EXTREMES = [
    b"0",
    b"-1",
    b"nan",
    b"inf",
    b"1e308",
    b"99999999999",
    b"4294967296",
    b"2147483648",
    b"",
    b"x",
    b"7",
]
SECONDS = 20.0
MEGABYTES = 600.0


def dose_map() -> DoseMap:
    """A small dose with everything that a map can hold."""
    rng = np.random.default_rng(7)
    dose = rng.random((3, 4, 5)) + 0.1
    plain = DoseMap.from_array(dose, spacing_mm=(1.0, 2.0, 3.0), origin_mm=(-4.0, 5.0, 6.0))
    mask = Structure(name="PTV", fraction=(dose > 0.5).astype(float), grid=plain.grid)
    return DoseMap(dose_gy=dose, grid=plain.grid, uncertainty_gy=0.02 * dose, structures=(mask,))


def three_ddose() -> bytes:
    """A small .3ddose file."""
    dose = dose_map().dose_gy
    lines = ["5 4 3", *(" ".join(str(0.1 * k * (n + 1)) for k in range(n + 1)) for n in (5, 4, 3))]
    lines += [" ".join(f"{v:.5e}" for v in dose.ravel()), " ".join("0.02" for _ in range(60))]
    return "\n".join(lines).encode()


def topas_csv() -> bytes:
    """A small TOPAS table."""
    lines = [
        "# TOPAS Version: 3.9",
        "# Results for scorer Dose",
        "# X in 2 bins of 0.1 cm",
        "# Y in 1 bin  of 1 cm",
    ]
    lines += [
        "# Z in 3 bins of 2 mm",
        "# DoseToMedium ( Gy ) : Sum   Histories_with_Scorer_Active   Standard_Deviation",
    ]
    lines += [f"{i}, 0, {k}, {0.1 + i + k}, 1000, 0.01" for i in range(2) for k in range(3)]
    return "\n".join(lines).encode()


def image_bytes(tmp_path, suffix: str, *, compressed: bool) -> bytes:
    """A small image by SimpleITK."""
    image = SimpleITK.GetImageFromArray(dose_map().dose_gy.astype("f4"))
    image.SetSpacing((1.0, 2.0, 3.0))
    SimpleITK.WriteImage(image, str(tmp_path / f"a{suffix}"), useCompression=compressed)
    return (tmp_path / f"a{suffix}").read_bytes()


def npz_bytes(tmp_path) -> bytes:
    write_dose(dose_map(), tmp_path / "a.npz")
    return (tmp_path / "a.npz").read_bytes()


def stored_npz_bytes(tmp_path) -> bytes:
    np.savez(
        tmp_path / "s.npz", dose=dose_map().dose_gy, spacing_mm=[1.0, 2.0, 3.0], origin_mm=[0.0, 0.0, 0.0]
    )
    return (tmp_path / "s.npz").read_bytes()


def dicom_bytes(tmp_path) -> bytes:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write_dose(dose_map(), tmp_path / "a.dcm")
    return (tmp_path / "a.dcm").read_bytes()


VALID = {
    "a.mha": lambda folder: image_bytes(folder, ".mha", compressed=False),
    "packed.mha": lambda folder: image_bytes(folder, ".mha", compressed=True),
    "a.nrrd": lambda folder: image_bytes(folder, ".nrrd", compressed=False),
    "packed.nrrd": lambda folder: image_bytes(folder, ".nrrd", compressed=True),
    "a.nii": lambda folder: image_bytes(folder, ".nii", compressed=False),
    "a.nii.gz": lambda folder: image_bytes(folder, ".nii.gz", compressed=True),
    "a.3ddose": lambda folder: three_ddose(),
    "a.3ddose.gz": lambda folder: gzip.compress(three_ddose()),
    "a.csv": lambda folder: topas_csv(),
    "a.npz": npz_bytes,
    "stored.npz": stored_npz_bytes,
    "a.dcm": dicom_bytes,
}


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """One to three random damages."""
    for _ in range(rng.integers(1, 4)):
        if not data:
            break
        where = int(rng.integers(len(data)) if rng.random() < 0.6 else rng.integers(min(len(data), 600)))
        length = int(rng.integers(1, 40))
        kind = rng.choice(["flip", "flip", "truncate", "insert", "delete", "repeat", "number", "number"])
        if kind == "flip":
            data = data[:where] + bytes([data[where] ^ int(rng.integers(1, 256))]) + data[where + 1 :]
        elif kind == "truncate":
            data = data[:where]
        elif kind == "insert":
            data = data[:where] + rng.bytes(length) + data[where:]
        elif kind == "delete":
            data = data[:where] + data[where + length :]
        elif kind == "repeat":
            data = data[:where] + 2 * data[where : where + length] + data[where + length :]
        else:
            numbers = list(re.finditer(rb"[-+0-9.eE]+", data[:4096]))
            if numbers:
                hit = numbers[int(rng.integers(len(numbers)))]
                data = data[: hit.start()] + EXTREMES[int(rng.integers(len(EXTREMES)))] + data[hit.end() :]
    return data


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", VALID)
def test_a_damaged_file_is_read_or_refused_in_one_line(name, tmp_path_factory, capfd):
    folder = tmp_path_factory.mktemp("mutations")
    valid = VALID[name](folder)
    target = folder / name
    target.write_bytes(valid)
    assert isinstance(read_dose(target), DoseMap)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcomes = {"read": 0, "refused": 0}

    @settings(
        max_examples=80,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(seed=st.integers(0, 2**32 - 1))
    def check(seed):
        message = ""
        target.write_bytes(mutated(valid, np.random.default_rng(seed)))
        start = time.monotonic()
        for read in (read_dose, read_map):
            try:
                result = read(target)
            except DosemoverError as error:
                outcomes["refused"] += 1
                message = str(error)
            else:
                outcomes["read"] += 1
                assert isinstance(result, DoseMap | tuple)
        assert "\n" not in message
        assert len(message) < 1000
        assert time.monotonic() - start < SECONDS

    check()
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown < MEGABYTES, f"{grown:.0f} MB more were allocated"
    assert outcomes["refused"] > 0
    printed = capfd.readouterr()
    assert printed.out == ""
    assert printed.err == ""


@pytest.mark.parametrize("name", ["a.nrrd", "a.mha", "a.nii"])
def test_a_damaged_label_map_is_read_or_refused(name, tmp_path):
    labels = SimpleITK.GetImageFromArray((np.arange(60).reshape(3, 4, 5) % 3).astype("u1"))
    SimpleITK.WriteImage(labels, str(tmp_path / name))
    valid = (tmp_path / name).read_bytes()
    for seed in range(60):
        (tmp_path / name).write_bytes(mutated(valid, np.random.default_rng(seed)))
        try:
            found = read_structures(tmp_path / name)
        except DosemoverError:
            continue
        assert all(isinstance(s, Structure) for s in found)
