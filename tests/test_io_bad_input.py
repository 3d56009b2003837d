"""Bad input of every kind gets one clear line that names the file and the remedy."""

from __future__ import annotations

import gzip
import os

import numpy as np
import pytest

from dosemover.dose import DoseMap
from dosemover.errors import DataFormatError, DosemoverError, InputError
from dosemover.io import read_dose, read_map, read_structures, write_dose

NAMES = [
    "a.dcm",
    "a.mha",
    "a.mhd",
    "a.nrrd",
    "a.nii",
    "a.nii.gz",
    "a.3ddose",
    "a.csv",
    "a.npz",
    "a.bin",
    "a.xyz",
]
READERS = [read_dose, read_map, read_structures]


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("name", NAMES)
def test_a_missing_file_is_named(read, name, tmp_path):
    with pytest.raises(InputError, match=rf"{name} does not exist. Check the path"):
        read(tmp_path / name)


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("name", NAMES)
def test_an_empty_file_is_named(read, name, tmp_path):
    (tmp_path / name).touch()
    with pytest.raises(DataFormatError, match=rf"{name} is empty \(0 bytes\)"):
        read(tmp_path / name)


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("name", NAMES)
def test_random_bytes_are_refused_in_one_line(read, name, tmp_path):
    (tmp_path / name).write_bytes(np.random.default_rng(1).bytes(3000))
    with pytest.raises(DosemoverError, match=name) as caught:
        read(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_directory_without_doses_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("no dose")
    with pytest.raises(InputError, match="is a directory without RT Dose files"):
        read_dose(tmp_path)
    for read in (read_map, read_structures):
        with pytest.raises(InputError, match="is a directory, not a file"):
            read(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_refused_instead_of_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.nrrd")
    with pytest.raises(InputError, match="is not a regular file"):
        read_dose(tmp_path / "a.nrrd")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="needs a user without all rights")
def test_an_unreadable_file_is_refused(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"PK")
    (tmp_path / "a.npz").chmod(0)
    with pytest.raises(InputError, match="permission denied"):
        read_dose(tmp_path / "a.npz")


def test_a_path_with_a_null_character_is_refused():
    with pytest.raises(InputError, match=r"cannot be opened|does not exist"):
        read_dose("a\0b.nrrd")
    with pytest.raises(InputError):
        read_dose("")


@pytest.mark.parametrize(
    ("value", "match"),
    [(np.nan, "got nan at index"), (np.inf, "got inf at index"), (-1.0, r"got -1.0 at index \(1, 1, 1\)")],
)
@pytest.mark.parametrize("suffix", [".nrrd", ".npz"])
def test_values_that_are_no_dose_are_refused(value, match, suffix, tmp_path):
    from dosemover.io import write_map

    values = np.ones((2, 3, 4))
    values[1, 1, 1] = value
    if suffix == ".npz":
        np.savez(tmp_path / "a.npz", dose=values, spacing_mm=(1.0, 1.0, 1.0))
    else:
        write_map(
            values, DoseMap.from_array(np.ones((2, 3, 4)), spacing_mm=(1, 1, 1)).grid, tmp_path / "a.nrrd"
        )
    with pytest.raises(InputError, match=rf"a{suffix}: `dose_gy` must be finite and not negative, {match}"):
        read_dose(tmp_path / f"a{suffix}")


def test_a_dose_of_zeros_is_refused(tmp_path):
    write_dose(DoseMap.from_array(np.zeros((2, 3, 4)), spacing_mm=(1, 1, 1)), tmp_path / "a.mha")
    with pytest.raises(InputError, match=r"a.mha holds no dose: every voxel is 0"):
        read_dose(tmp_path / "a.mha")


@pytest.mark.parametrize("suffix", [".mha", ".nrrd", ".nii", ".nii.gz", ".npz", ".dcm"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.97])
def test_truncated_files_are_refused(suffix, share, tmp_path):
    path = tmp_path / f"a{suffix}"
    write_dose(
        DoseMap.from_array(np.random.default_rng(0).random((8, 9, 10)) + 0.1, spacing_mm=(1, 2, 3)), path
    )
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(DosemoverError, match=path.stem) as caught:
        read_dose(path)
    assert "\n" not in str(caught.value)


def test_damaged_and_empty_gzip_is_refused(tmp_path):
    packed = gzip.compress(b"1 1 1\n0 1\n0 1\n0 1\n5\n")
    (tmp_path / "a.3ddose.gz").write_bytes(packed[:-5])
    with pytest.raises(DataFormatError, match=r"a.3ddose.gz cannot be read as gzip"):
        read_dose(tmp_path / "a.3ddose.gz")
    (tmp_path / "b.3ddose.gz").write_bytes(gzip.compress(b""))
    with pytest.raises(DataFormatError, match="holds 0 bytes after decompression"):
        read_dose(tmp_path / "b.3ddose.gz")


def test_more_than_half_of_the_memory_is_not_allocated(tmp_path, monkeypatch):
    from dosemover.io import files

    write_dose(DoseMap.from_array(np.ones((8, 9, 10)), spacing_mm=(1, 2, 3)), tmp_path / "a.nrrd")
    monkeypatch.setattr(files, "available_memory_bytes", lambda: 8000)
    with pytest.raises(
        InputError, match=r"a.nrrd declares 5760 bytes of voxels, more than half of the free memory"
    ):
        read_dose(tmp_path / "a.nrrd")
    (tmp_path / "a.nrrd.gz").write_bytes(gzip.compress(bytes(9000)))
    with pytest.raises(InputError, match=r"a.nrrd.gz decompresses to more than 4000 bytes"):
        read_dose(tmp_path / "a.nrrd.gz")


def test_nothing_of_the_libraries_reaches_the_terminal(tmp_path, capfd):
    write_dose(DoseMap.from_array(np.ones((8, 9, 10)), spacing_mm=(1, 2, 3)), tmp_path / "a.mha")
    data = (tmp_path / "a.mha").read_bytes().replace(b"ElementSpacing = 1 2 3", b"ElementSpacing = 0 0 0")
    (tmp_path / "a.mha").write_bytes(data)
    with pytest.raises(DosemoverError):
        read_dose(tmp_path / "a.mha")
    printed = capfd.readouterr()
    assert (printed.out, printed.err) == ("", "")
