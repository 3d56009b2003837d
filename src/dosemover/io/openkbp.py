"""OpenKBP patients: the CSV folder of the challenge, and the same as sparse NPZ."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dosemover.dose import Structure
from dosemover.errors import DataFormatError, InputError
from dosemover.grid import Grid
from dosemover.io.files import FileContent, check_allocation, existing_file
from dosemover.io.text import number_table

SIDE = 128
"""Voxels along each axis of an OpenKBP cube."""

DOSE_FILE, VOXEL_FILE, MASK_NAME = "dose.csv", "voxel_dimensions.csv", "possible_dose_mask"
_NOT_STRUCTURES = frozenset({"dose", "ct", "voxel_dimensions"})


def from_cube(cube: ArrayLike) -> NDArray[Any]:
    """Turn an OpenKBP cube into [z, y, x] with ascending LPS axes.

    Parameters
    ----------
    cube : array_like, shape (128, 128, 128)
        As the challenge's files index it in C order: rows (anterior to posterior), columns (right to
        left), slices (superior to inferior).

    Returns
    -------
    ndarray, shape (128, 128, 128)
        A view: slices come first and in ascending order.

    Notes
    -----
    The files do not state the axes. They follow from anatomy: in every patient the left parotid lies at
    higher columns than the right one, the mandible at lower rows than the spinal cord, and the brain
    stem at lower slices than the cord.
    """
    return np.transpose(np.asarray(cube), (2, 0, 1))[::-1]


def to_cube(values: ArrayLike) -> NDArray[Any]:
    """Turn [z, y, x] into the challenge's C-ordered cube: the inverse of `from_cube`."""
    return np.transpose(np.asarray(values)[::-1], (1, 2, 0))


def is_openkbp_folder(path: Path) -> bool:
    """Whether a directory holds the dose and the voxel size of an OpenKBP patient."""
    return (path / DOSE_FILE).is_file() and (path / VOXEL_FILE).is_file()


def read_openkbp_folder(path: Path) -> FileContent:
    """Dose, structures and possible-dose mask of an OpenKBP patient.

    Parameters
    ----------
    path : Path
        Folder with ``dose.csv``, ``voxel_dimensions.csv`` and masks, each a list of C-order indices into a
        cube of 128^3 voxels.

    Returns
    -------
    FileContent
        Structures in the order of their names, the mask of possible dose as "possible_dose_mask".

    Raises
    ------
    DataFormatError
        Naming file and line.
    """
    rows = number_table(existing_file(path / VOXEL_FILE), columns=1)
    if rows.size != 3:
        raise DataFormatError(
            f"{path.name}/{VOXEL_FILE} holds {rows.size} numbers, not the 3 voxel sizes [mm]."
        )
    dose = number_table(existing_file(path / DOSE_FILE), columns=2, skip_lines=1)
    masks = {
        file.stem: number_table(file, columns=1, skip_lines=1, trailing_comma=True)[:, 0]
        for file in sorted(path.glob("*.csv"))
        if file.stem not in _NOT_STRUCTURES and _is_mask(file)
    }
    return _content(path, rows.ravel(), dose[:, 0], dose[:, 1], masks, "OpenKBP CSV")


def is_openkbp_npz(names: Mapping[str, Any] | list[str]) -> bool:
    """Whether the members of an NPZ file are those of a sparse OpenKBP patient."""
    return {"dose_idx", "dose", "voxel_mm"} <= set(names)


def openkbp_from_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> FileContent:
    """The same patient out of ``dose_idx``, ``dose``, ``voxel_mm`` and ``mask_NAME`` arrays."""
    masks = {name.removeprefix("mask_"): arrays[name] for name in sorted(arrays) if name.startswith("mask_")}
    return _content(path, arrays["voxel_mm"], arrays["dose_idx"], arrays["dose"], masks, "OpenKBP NPZ")


def _content(
    path: Path,
    voxel_mm: NDArray[Any],
    index: NDArray[Any],
    dose: NDArray[Any],
    masks: Mapping[str, NDArray[Any]],
    format_name: str,
) -> FileContent:
    """Dense [z, y, x] arrays on the grid of the cube, whose first voxel is at 0."""
    check_allocation(path, declared_bytes=SIDE**3 * (8.0 + 4.0 * len(masks)))
    if np.shape(voxel_mm) != (3,) or not np.all(np.isfinite(voxel_mm)) or np.any(np.asarray(voxel_mm) <= 0):
        raise InputError(
            f"{path.name}: the voxel size must be three positive numbers, got {np.ravel(voxel_mm).tolist()}. "
            "Distances in mm cannot be computed. Correct it."
        )
    row, column, slice_ = (float(v) for v in voxel_mm)
    grid = Grid.regular(shape=(SIDE, SIDE, SIDE), spacing_mm=(column, row, slice_))
    if np.shape(index) != np.shape(dose) or np.ndim(dose) != 1:
        raise DataFormatError(
            f"{path.name}: {np.size(index)} dose indices for {np.size(dose)} doses. Export it again."
        )
    structures = tuple(
        Structure(
            name=name, fraction=_filled(path, name, where, np.ones(np.size(where), np.float32)), grid=grid
        )
        for name, where in masks.items()
    )
    return FileContent(
        values=_filled(path, "dose", index, np.asarray(dose, np.float64)),
        grid=grid,
        structures=structures,
        unit="Gy",
        source={"format": format_name, "position": "not in the files: first voxel at 0"},
    )


def _filled(path: Path, name: str, index: NDArray[Any], values: NDArray[Any]) -> NDArray[Any]:
    """Values at C-order indices of the cube, 0 elsewhere, as [z, y, x]."""
    where = np.asarray(index)
    if np.any(where != np.floor(where)) or np.any(where < 0) or np.any(where >= SIDE**3):
        raise DataFormatError(
            f"{path.name}: {name} has voxel indices from {np.min(where)} to {np.max(where)}. They must be "
            f"whole numbers below {SIDE**3}. Export it again."
        )
    flat = np.zeros(SIDE**3, values.dtype)
    flat[where.astype(np.int64)] = values
    return np.ascontiguousarray(from_cube(flat.reshape(SIDE, SIDE, SIDE)))


def _is_mask(file: Path) -> bool:
    """Whether a CSV file is a list of indices as the challenge writes it."""
    with file.open("rb") as stream:
        return re.match(rb",data\r?\n\d+,\r?\n", stream.read(64)) is not None
