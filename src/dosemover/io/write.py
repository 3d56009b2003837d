"""Writing dose maps and other maps: the suffix tells the format; whole files or none."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dosemover._files import atomic_write
from dosemover.dose import DoseMap
from dosemover.errors import GridMismatchError, InputError, StatisticalWarning
from dosemover.grid import Grid

WRITABLE = (".dcm", ".mha", ".mhd", ".nrrd", ".nii", ".nii.gz", ".npz")
"""Suffixes that can be written."""


def write_dose(dose: DoseMap, path: str | os.PathLike[str]) -> Path:
    """Write a dose map in the format that the suffix says.

    Parameters
    ----------
    dose : DoseMap
    path : path-like
        ``.dcm`` (RT Dose), ``.mha``, ``.mhd`` (with a ``.raw`` beside it), ``.nrrd``, ``.nii``, ``.nii.gz``
        or ``.npz``. An existing file is replaced when the new one is complete, never before.

    Returns
    -------
    Path
        The file written.

    Raises
    ------
    InputError
        For another suffix, an uneven grid in a format of even ones, a file that cannot be written.

    Warns
    -----
    StatisticalWarning
        When an uncertainty or batches are lost, which only ``.npz`` keeps.

    Notes
    -----
    *Definition*: images and NPZ keep the precision of the values; RT Dose rounds them (see
    `dosemover.io.dicom_write`). NIfTI stores positions in single precision. Patient identifiers are
    written by none of them.
    """
    target = Path(os.fspath(path))
    suffix = writable_suffix(target)
    if suffix != ".npz" and (dose.uncertainty_gy is not None or dose.batches_gy is not None):
        warnings.warn(
            f"{target.name} keeps the dose alone: its uncertainty and batches are not written. "
            "Write .npz to keep them.",
            StatisticalWarning,
            stacklevel=2,
        )
    if suffix == ".dcm":
        from dosemover.io.dicom_write import write_dicom_dose

        write_dicom_dose(dose, target)
    elif suffix == ".npz":
        from dosemover.io.npz import write_npz

        with atomic_write(target) as temporary:
            write_npz(dose, temporary)
    else:
        _write_image(dose.dose_gy, dose.grid, target, suffix, unit=dose.unit)
    return target


def write_map(values: ArrayLike, grid: Grid, path: str | os.PathLike[str], *, unit: str = "") -> Path:
    """Write values of any sign, NaN among them, as an image: gamma, a difference, a displacement.

    Parameters
    ----------
    values : array_like, shape [z, y, x] or [z, y, x, component]
    grid : Grid
        Evenly spaced.
    path : path-like
        ``.mha``, ``.mhd``, ``.nrrd``, ``.nii`` or ``.nii.gz``.
    unit : str
        Kept in the header.

    Returns
    -------
    Path
        The file written.

    Raises
    ------
    InputError
        For another suffix, an uneven grid, a file that cannot be written.
    GridMismatchError
        When the values do not fit the grid.
    """
    target = Path(os.fspath(path))
    suffix = writable_suffix(target)
    array = np.asarray(values)
    if array.shape[:3] != grid.shape or array.ndim not in (3, 4):
        raise GridMismatchError(
            f"{target.name}: values of shape {array.shape} do not fit the grid {grid.shape} (z, y, x). "
            "Pass one value, or one vector, per voxel."
        )
    if suffix in (".dcm", ".npz") or (suffix == ".mhd" and array.ndim == 4):
        raise InputError(f"{target.name}: a map is written as .nrrd, .mha or .nii, not as {suffix}.")
    if array.dtype not in (np.float32, np.float64):
        array = array.astype(np.float64)
    _write_image(array, grid, target, suffix, unit=unit)
    return target


def writable_suffix(path: Path) -> str:
    """The suffix, lower case, if it can be written.

    Raises
    ------
    InputError
        When it cannot, listing those that can.
    """
    name = path.name.lower()
    for suffix in WRITABLE[::-1]:
        if name.endswith(suffix):
            return suffix
    raise InputError(
        f"{path.name} has no suffix that can be written. Nothing was written. Use one of "
        f"{', '.join(WRITABLE)}."
    )


def _write_image(values: NDArray[Any], grid: Grid, target: Path, suffix: str, *, unit: str) -> None:
    """Write one image, or header and raw file, to temporary files that then take their places."""
    from dosemover.io.images import even_spacing, write_image, write_mhd

    even_spacing(grid, target)
    if suffix != ".mhd":
        with atomic_write(target) as temporary:
            write_image(values, grid, temporary, unit=unit)
        return
    raw = target.with_suffix(".raw")
    with atomic_write(target) as header, atomic_write(raw) as data:
        write_mhd(values, grid, header, data, raw_name=raw.name, unit=unit)
