"""Reading dose maps, density maps and structures: the format is told by content, then by suffix."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dosemover.dose import DoseMap, Structure
from dosemover.errors import AccuracyWarning, DataFormatError, InputError
from dosemover.grid import Grid, conserve
from dosemover.io.companions import batch_files, with_batches, with_companion, with_density, with_uncertainty
from dosemover.io.files import FileContent, existing_file, reading, uncompressed

PathLike = str | os.PathLike[str]

FORMATS = (
    "DICOM RT Dose (.dcm), MetaImage (.mha, .mhd), NRRD (.nrrd, .nhdr), NIfTI (.nii), EGSnrc (.3ddose), "
    "TOPAS (.csv, .bin with .binheader), NumPy (.npz, .npy), an OpenKBP folder, each file also with .gz"
)

_IMAGES = ("MetaImage", "NRRD", "NIfTI")
_BY_SUFFIX = {
    ".dcm": "DICOM",
    ".mha": "MetaImage",
    ".mhd": "MetaImage",
    ".nrrd": "NRRD",
    ".nhdr": "NRRD",
    ".nii": "NIfTI",
    ".3ddose": "3ddose",
    ".csv": "TOPAS",
    ".npz": "NumPy",
    ".npy": "NumPy",
}
_CENTIGRAY = 0.01


def read_dose(
    path: PathLike,
    *,
    uncertainty: PathLike | None = None,
    uncertainty_kind: str = "absolute",
    density: PathLike | None = None,
    batches: str | Sequence[PathLike] | None = None,
    unit: str | None = None,
    spacing_mm: tuple[float, ...] | None = None,
    origin_mm: tuple[float, ...] | None = None,
) -> DoseMap:
    """Dose map from a file, several files to sum, or a directory.

    Parameters
    ----------
    path : path-like
        A dose file; "A.dcm+B.dcm" for the sum of files on one grid; a directory of RT Dose files, whose
        beams are summed; an OpenKBP folder. gzip is understood.
    uncertainty : path-like, optional
        Map of the standard uncertainty (k = 1) on the grid of the dose.
    uncertainty_kind : {"absolute", "relative"}
        Whether that map is in the unit of the dose, or a fraction of the dose in each voxel.
    density : path-like, optional
        Mass density [g/cm3], on any grid; averaged over the voxels of the dose.
    batches : str or sequence of path-like, optional
        Independent batch doses on the grid of the dose: a glob pattern, or the files. Their mean or
        their sum must be the dose.
    unit : {"gy", "cgy"}, optional
        Unit of the values where the file states none (images, arrays; taken as Gy by default). A unit
        that the file states is never overridden.
    spacing_mm, origin_mm : tuple of float, optional
        Voxel size and centre of the first voxel (x, y, z) [mm], for NumPy files without geometry.

    Returns
    -------
    DoseMap
        ``name`` is the file's name; ``source`` tells file, format and what was assumed.

    Raises
    ------
    InputError
        For what cannot be used: no such file, no dose in it, negative or only zero doses, files that
        would be counted twice.
    DataFormatError
        For damaged files.
    GridMismatchError
        For summands or companions on other grids.

    Warns
    -----
    AccuracyWarning
        When ``unit`` is asked for and an image states another one.

    Notes
    -----
    *Definition*: a sum adds doses voxel by voxel, and uncertainties in quadrature where every summand has
    one. A directory with one PLAN dose and BEAM doses gives the plan dose alone, because it holds the
    beams already; named with "+", such a mixture is refused.

    The relative uncertainty map that GATE writes beside its dose is found by its name
    (`dosemover.io.companions`).
    """
    if uncertainty_kind not in ("absolute", "relative"):
        raise InputError(f"`uncertainty_kind` must be 'absolute' or 'relative', got {uncertainty_kind!r}.")
    if unit not in (None, "gy", "cgy"):
        raise InputError(f"`unit` must be 'gy' or 'cgy', got {unit!r}. Other units need `DoseMap.scaled`.")
    geometry = {"spacing_mm": spacing_mm, "origin_mm": origin_mm}
    dose = read_unchecked(path, unit=unit, **geometry)
    if dose.max_gy == 0:
        raise InputError(
            f"{dose.name} holds no dose: every voxel is 0. Nothing can be compared. "
            "Check that the right file was exported, or sum it with its other beams (A.dcm+B.dcm)."
        )
    if batches is not None:
        files = batch_files(batches)
        dose = with_batches(dose, files, [read_unchecked(file, unit=unit, **geometry) for file in files])
    if uncertainty is not None:
        stated = "not stated" not in str(dose.source.get("unit_in_file"))
        factor = _CENTIGRAY if unit == "cgy" and not stated else 1.0
        values, grid = read_map(uncertainty)
        name = Path(os.fspath(uncertainty)).name
        dose = with_uncertainty(dose, name, values, grid, kind=uncertainty_kind, factor=factor)
    if density is not None:
        dose = with_density(dose, Path(os.fspath(density)).name, *read_map(density))
    return dose


def read_unchecked(path: PathLike, *, unit: str | None = None, **geometry: Any) -> DoseMap:
    """Dose map of a path as `read_dose` takes it, which may be 0 everywhere."""
    from dosemover.io.sums import dose_files, summed

    text = os.fspath(path)
    whole = Path(text)
    with reading(whole, "a path"):
        if whole.is_dir():
            files, note = dose_files(whole)
        else:
            files, note = split_sum(text), {}
    maps = [_one_dose(file, unit=unit, **geometry) for file in files]
    if len(maps) > 1:
        return summed(maps, files, name=whole.name if whole.is_dir() else None)
    return replace(maps[0], source={**maps[0].source, **note}) if note else maps[0]


def split_sum(text: str) -> list[Path]:
    """The files of "A+B", where a file that has a plus sign in its name stays whole.

    Raises
    ------
    InputError
        When a part does not exist.
    """
    parts: list[Path] = []
    pending = ""
    for piece in text.split("+"):
        pending = f"{pending}+{piece}" if pending else piece
        if pending and Path(pending).is_file():
            parts.append(Path(pending))
            pending = ""
    if pending or not parts:
        existing_file(Path(pending or text))
        raise InputError(f"{text} names no dose file. Give one file, or A.dcm+B.dcm.")
    return parts


def read_map(path: PathLike) -> tuple[NDArray[Any], Grid]:
    """Values of a file of any supported format, of any sign, in the unit of the file: a density, a map.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    values : ndarray, shape [z, y, x]
        The density where an NPZ file has one beside the dose.
    grid : Grid

    Raises
    ------
    InputError, DataFormatError
        As `read_dose`.
    """
    with _opened(Path(os.fspath(path))) as (file, kind):
        content = _content(file, kind)
    if isinstance(content, DoseMap):
        return content.dose_gy, content.grid
    values = content.values if content.density is None else content.density
    return values, content.grid


def read_structures(
    path: PathLike,
    *,
    grid: Grid | None = None,
    frame_of_reference_uid: str | None = None,
    names: Sequence[str] | None = None,
) -> tuple[Structure, ...]:
    """Structures of an RT Structure Set, a label map or mask (image), or a dose file that holds some.

    Parameters
    ----------
    path : path-like
    grid : Grid, optional
        Voxels whose filled fractions are wanted. RT Structure Sets need it; images have their own.
    frame_of_reference_uid : str, optional
        Frame of the dose, against which an RT Structure Set is checked.
    names : sequence of str, optional
        Structures to read; by default all.

    Returns
    -------
    tuple of Structure

    Raises
    ------
    InputError, DataFormatError
        For files without structures, and names that are not in the file.
    """
    from dosemover.io.images import read_label_map

    with _opened(Path(os.fspath(path))) as (file, kind):
        if kind == "DICOM":
            if grid is None:
                raise InputError(f"{file.name} holds contours: pass the grid of the dose as `grid=`.")
            from dosemover.io.dicom_structures import read_structures as read_contours

            return tuple(
                read_contours(file, grid=grid, frame_of_reference_uid=frame_of_reference_uid, names=names)
            )
        if kind in _IMAGES:
            found = read_label_map(file, kind=kind, grid=grid)
        else:
            content = _content(file, kind)
            found = tuple(_moved(s, grid) for s in content.structures)
    if not found:
        raise InputError(f"{path} holds no structures. Pass an RT Structure Set, a label map or a mask.")
    if names is None:
        return found
    by_name = {s.name: s for s in found}
    if missing := [n for n in names if n not in by_name]:
        raise InputError(
            f"{path} has no structure {missing[0]!r}, only {', '.join(by_name)}. Check the names."
        )
    return tuple(by_name[n] for n in names)


def _moved(structure: Structure, grid: Grid | None) -> Structure:
    """The structure on another grid, its volume conserved."""
    if grid is None or structure.grid.coincides_with(grid):
        return structure
    fraction = conserve(structure.fraction, source=structure.grid, target=grid)
    return Structure(name=structure.name, fraction=np.clip(fraction, 0.0, 1.0), grid=grid)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Path, str]]:
    """The decompressed file and its format, with errors that name the file."""
    if path.is_dir():
        from dosemover.io.openkbp import is_openkbp_folder

        if not is_openkbp_folder(path):
            raise InputError(f"{path} is a directory, not a file. Name a file in it.")
        with reading(path, "OpenKBP"):
            yield path, "OpenKBP"
        return
    with uncompressed(path) as file:
        kind = file_format(file)
        with reading(path, kind):
            yield file, kind


def file_format(path: Path) -> str:
    """Name of the format, by the first bytes of a file, then by its suffix.

    Raises
    ------
    DataFormatError
        When it is none that is known, listing those that are.
    """
    from dosemover.io.dicom_dataset import is_dicom
    from dosemover.io.egsnrc import looks_like_3ddose
    from dosemover.io.image_headers import image_format

    with reading(path, "a file"), path.open("rb") as stream:
        head = stream.read(4096)
    suffix = path.suffix.lower()
    has_header = suffix in (".bin", ".binheader") and path.with_suffix(".binheader").is_file()
    by_content = {
        image_format(head): True,
        "NumPy": head.startswith((b"PK\x03\x04", b"\x93NUMPY")),
        "DICOM": is_dicom(path),
        "TOPAS": b"# TOPAS Version" in head or has_header,
        "OpenKBP": head.startswith(b",data"),
        "3ddose": looks_like_3ddose(head),
    }
    for kind, fits in by_content.items():
        if kind is not None and fits:
            return kind
    if suffix in _BY_SUFFIX:
        return _BY_SUFFIX[suffix]
    raise DataFormatError(
        f"{path.name} is of no format that is known here, by its first bytes or its suffix {suffix!r}. "
        f"Known are: {FORMATS}."
    )


def _content(file: Path, kind: str, **geometry: Any) -> FileContent | DoseMap:
    """What the file holds, by the reader of its format."""
    if kind == "DICOM":
        from dosemover.io.dicom_dose import read_dicom_dose

        return read_dicom_dose(file)
    if kind in _IMAGES:
        from dosemover.io.images import read_image

        return read_image(file, kind=kind)
    if kind == "NumPy":
        from dosemover.io.npz import read_npz

        return read_npz(file, **geometry)
    if kind == "TOPAS":
        from dosemover.io.topas import read_topas

        return read_topas(file)
    if kind == "OpenKBP":
        from dosemover.io.openkbp import read_openkbp_folder

        return read_openkbp_folder(file if file.is_dir() else file.parent)
    from dosemover.io.egsnrc import read_3ddose

    return read_3ddose(file)


def _one_dose(path: Path, *, unit: str | None, **geometry: Any) -> DoseMap:
    """Dose map of one file or OpenKBP folder."""
    with _opened(path) as (file, kind):
        content = _content(file, kind, **geometry)
        if isinstance(content, DoseMap):
            return replace(content, name=path.name, source={**content.source, "file": path.name})
        if kind == "MetaImage":
            content = with_companion(path, content, read_map)
        if kind in _IMAGES and unit is not None and content.unit is not None and content.unit.lower() != unit:
            warnings.warn(
                f"{path.name} states its unit, {content.unit}: `unit` ({unit}) is not applied to it. "
                "Scale it (--scale 0.01) where the file is wrong.",
                AccuracyWarning,
                stacklevel=4,
            )
        return dose_map(content, name=path.name, unit=unit)


def dose_map(content: FileContent, *, name: str, unit: str | None) -> DoseMap:
    """Dose map in Gy from what a file holds and what the caller says of its unit."""
    if content.unit is None:
        factor, result_unit = (_CENTIGRAY, "Gy") if unit == "cgy" else (1.0, "Gy")
        told = {"unit_in_file": f"not stated, taken as {'cGy' if unit == 'cgy' else 'Gy'}"}
    else:
        factor = _CENTIGRAY if content.unit.lower() == "cgy" else 1.0
        result_unit = "Gy" if factor != 1.0 else content.unit
        told = {"unit_in_file": content.unit}

    def scaled(values: NDArray[Any] | None) -> NDArray[Any] | None:
        return values if values is None or factor == 1.0 else values * np.float64(factor)

    return DoseMap(
        dose_gy=content.values if factor == 1.0 else content.values * np.float64(factor),
        grid=content.grid,
        uncertainty_gy=scaled(content.uncertainty),
        batches_gy=scaled(content.batches),
        density_g_per_cm3=content.density,
        structures=content.structures,
        unit=result_unit,
        name=name,
        source={"file": name, **content.source, **told},
    )
