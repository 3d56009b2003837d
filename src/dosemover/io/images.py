"""MetaImage (MHA, MHD), NRRD and NIfTI images through SimpleITK, straightened to ascending LPS axes."""

from __future__ import annotations

import math
import os
import re
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dosemover.dose import Structure
from dosemover.errors import DataFormatError, GridMismatchError, InputError
from dosemover.grid import Grid, conserve
from dosemover.io.files import FileContent, check_allocation, one_line
from dosemover.io.image_headers import check_packed, image_header

OBLIQUE_TOLERANCE_MM = 0.01
"""An image counts as straight where its tilt moves no voxel by more than this."""

UNIT_KEY = "dose_unit"
"""Header entry in which images written here keep the unit of their values."""

MAXIMUM_LABELS = 1000
"""A label map with more different values than this is taken for something else."""

_IMAGE_IO = {"MetaImage": "MetaImageIO", "NRRD": "NrrdImageIO", "NIfTI": "NiftiImageIO"}
_library_lock = threading.Lock()


def read_image(path: Path, *, kind: str) -> FileContent:
    """Scalar image of two or three dimensions on an ascending LPS grid.

    Parameters
    ----------
    path : Path
        Compression inside the format is understood.
    kind : str
        "MetaImage", "NRRD" or "NIfTI".

    Returns
    -------
    FileContent
        A 2-D image is one slice, 1 mm thick. The unit is None unless the header names it.

    Raises
    ------
    InputError
        For oblique images, several components or volumes, and spacings that are not positive.
    DataFormatError
        For damaged files.

    Notes
    -----
    *Definition*: axes are permuted and flipped by the direction cosines; positions that NIfTI and NRRD
    give in RAS become LPS. *Limits*: oblique grids are refused, beyond a tilt that moves no voxel by
    more than `OBLIQUE_TOLERANCE_MM`; series of volumes are refused. Checksums of compressed voxels
    are verified, at the cost of decompressing twice. *Matches* nibabel and pynrrd in
    tests/test_io_images.py.

    MCsquare writes neither direction cosines nor a unit (its own is eV/g per primary proton). Its
    geometry has x reversed against the file, and y reversed against LPS where OpenTPS or REGGUI exported
    the CT, but not where matRad did, which turns the gantry instead. The file does not tell these
    apart, so voxels are taken in the order of the file, and ``source["orientation"]`` says so. Two
    MCsquare maps compare rightly; against a plan, flip the array as the exporting program does.
    """
    array, grid, entries = _read_straight(path, kind)
    if array.ndim != 3:
        raise InputError(
            f"{path.name} holds {array.shape[-1]} components per voxel. A dose map has one. "
            "Export the dose alone as a scalar image."
        )
    source: dict[str, Any] = {"format": kind, "stored_as": str(array.dtype)}
    if kind == "MetaImage" and "TransformMatrix" not in entries and "ElementByteOrderMSB" in entries:
        source["orientation"] = "none in the file (as MCsquare writes it): voxels in file order"
        source["unit_note"] = "if by MCsquare, values are eV/g per primary proton: scale them"
    return FileContent(values=array, grid=grid, unit=_unit(entries), source=source)


def read_label_map(path: Path, *, kind: str, grid: Grid | None) -> tuple[Structure, ...]:
    """Structures from an image of labels, by the exact overlap of voxels.

    Parameters
    ----------
    path : Path
    kind : str
        "MetaImage", "NRRD" or "NIfTI".
    grid : Grid, optional
        Where the fractions are wanted; by default the image's own grid.

    Returns
    -------
    tuple of Structure
        One for each label above 0, in ascending order, layer by layer. Names are those of a 3D Slicer
        segmentation (``Segment0_Name``), else the file's name for a mask of one label, else "label 3".

    Raises
    ------
    InputError
        When the values are not labels.
    GridMismatchError
        When the image and ``grid`` do not overlap.
    """
    array, own, entries = _read_straight(path, kind)
    layers = array[..., None] if array.ndim == 3 else array
    target = own if grid is None else grid
    if not all(a[0] < b[1] and b[0] < a[1] for a, b in zip(own.box_mm, target.box_mm, strict=True)):
        raise GridMismatchError(
            f"{path.name} spans {own.box_mm} mm (z, y, x), the dose {target.box_mm} mm: they do not overlap. "
            "No voxel of the dose lies in a structure. Pass the labels of the same patient and frame."
        )
    names = _segment_names(entries)
    labels = [(n, value) for n in range(layers.shape[-1]) for value in _labels(path, layers[..., n])]
    found = []
    for layer, value in labels:
        plain = path.name.split(".")[0] if len(labels) == 1 else f"label {value}"
        inside = (layers[..., layer] == value).astype(np.float64)
        fraction = np.clip(conserve(inside, source=own, target=target), 0.0, 1.0)
        found.append(Structure(name=names.get((layer, value), plain), fraction=fraction, grid=target))
    return tuple(found)


def _unit(entries: dict[str, str]) -> str | None:
    """Unit of the values where the header names it."""
    note = re.fullmatch(rf"{UNIT_KEY}=(.+)", entries.get("ITK_FileNotes", "").strip("\0 "))
    return entries.get(UNIT_KEY) or (note.group(1) if note else None)


def _labels(path: Path, layer: NDArray[Any]) -> list[int]:
    """Labels above 0 of one layer."""
    values = np.unique(layer)
    if values.size > MAXIMUM_LABELS or not np.all(np.isfinite(values)) or np.any(values != np.round(values)):
        raise InputError(
            f"{path.name} holds {values.size} different values from {values.min()} to {values.max()}. Labels "
            f"are whole numbers, {MAXIMUM_LABELS} at most. Export the structures as a label map."
        )
    return [int(v) for v in values if v > 0]


def _segment_names(entries: dict[str, str]) -> dict[tuple[int, int], str]:
    """Names of a 3D Slicer segmentation by (layer, label)."""
    names = {}
    for key, name in entries.items():
        if match := re.fullmatch(r"Segment(\d+)_Name", key):
            stem = f"Segment{match.group(1)}_"
            with suppress(ValueError):
                layer, value = (
                    int(entries.get(stem + "Layer", "0")),
                    int(entries.get(stem + "LabelValue", "1")),
                )
                names[layer, value] = name
    return names


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what C and C++ libraries print off the terminal; their exceptions still come through."""
    import SimpleITK

    with _library_lock, ExitStack() as stack:
        stack.callback(
            SimpleITK.ProcessObject.SetGlobalWarningDisplay, SimpleITK.ProcessObject.GetGlobalWarningDisplay()
        )
        SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
        sink = os.open(os.devnull, os.O_WRONLY)
        stack.callback(os.close, sink)
        for number in (1, 2):
            with suppress(OSError):  # a closed stream needs no silencing
                saved = os.dup(number)
                stack.callback(os.close, saved)
                os.dup2(sink, number)
                stack.callback(os.dup2, saved, number)
        yield


def _read_straight(path: Path, kind: str) -> tuple[NDArray[Any], Grid, dict[str, str]]:
    """Voxels [z, y, x] or [z, y, x, component], their grid, and the header's text entries."""
    import SimpleITK

    header = image_header(path, kind)
    reader = SimpleITK.ImageFileReader()
    reader.SetImageIO(_IMAGE_IO[kind])
    reader.SetFileName(os.fspath(path))
    try:
        with _quiet():
            reader.ReadImageInformation()
            size = list(reader.GetSize())
            _check_dimensions(path, size)
            n_bytes = math.prod(size) * reader.GetNumberOfComponents() * _item_bytes(reader)
            check_allocation(path, declared_bytes=n_bytes, stored_bytes=header.stored_bytes)
            check_packed(path, header, n_bytes=n_bytes)
            if len(size) > 3:
                reader.SetExtractSize([*size[:3], *[0] * (len(size) - 3)])
            image = reader.Execute()
            array = SimpleITK.GetArrayFromImage(image)
    except RuntimeError as error:
        reason = one_line(error).split(" Reason:")[0]
        raise DataFormatError(
            f"{path.name} cannot be read as {kind}: {reason}. It is damaged or incomplete. Export it again."
        ) from error
    entries = dict(header.entries)
    if reader.HasMetaDataKey("ITK_FileNotes"):
        entries["ITK_FileNotes"] = reader.GetMetaData("ITK_FileNotes")
    values, grid = _straightened(path, array, image)
    return values, grid, entries


def _item_bytes(reader: Any) -> int:
    """Bytes of one component of the image that ``reader`` looked at."""
    import SimpleITK

    if "complex" in SimpleITK.GetPixelIDValueAsString(reader.GetPixelID()):
        raise InputError(
            f"{reader.GetFileName()} holds complex numbers. A dose is real. Export the dose alone."
        )
    return SimpleITK.Image(
        [1, 1], reader.GetPixelID(), reader.GetNumberOfComponents()
    ).GetSizeOfPixelComponent()


def _check_dimensions(path: Path, size: list[int]) -> None:
    """Two or three dimensions, or more of which the further ones have one entry."""
    if len(size) < 2 or min(size) < 1 or any(n > 1 for n in size[3:]):
        raise InputError(
            f"{path.name} has dimensions {tuple(size)}. A dose map is one slice or one volume. "
            "Export the volumes of a series one by one."
        )


def _straightened(path: Path, array: NDArray[Any], image: Any) -> tuple[NDArray[Any], Grid]:
    """Permute and flip the axes by the direction cosines."""
    dimension = image.GetDimension()
    direction = np.eye(3)
    direction[:dimension, :dimension] = np.reshape(image.GetDirection(), (dimension, dimension))
    size = np.array([*image.GetSize(), 1][:3])
    spacing = np.array([*image.GetSpacing(), 1.0][:3])
    origin = np.array([*image.GetOrigin(), 0.0][:3])
    if dimension == 2:
        array = array[None]
    if not (np.all(np.isfinite(spacing)) and np.all(spacing > 0)):
        raise InputError(
            f"{path.name} has voxel spacing {tuple(spacing.tolist())} mm. It must be positive: distances in "
            "mm cannot be computed. Correct the header."
        )
    axis_of = np.argmax(np.abs(direction), axis=0)  # of each image axis, the patient axis that it follows
    off_axis = np.abs(direction)
    off_axis[axis_of, np.arange(3)] = 0.0
    if sorted(axis_of) != [0, 1, 2] or not np.all(off_axis * size * spacing <= OBLIQUE_TOLERANCE_MM):
        raise InputError(
            f"{path.name} lies oblique to the patient axes (direction {np.round(direction, 4).tolist()}). "
            "Voxels are boxes along x, y, z here. Resample it to a straight grid first."
        )
    image_axes = np.argsort(axis_of)  # of each patient axis, the image axis
    sign = np.sign(direction[np.arange(3), image_axes])
    n, h = size[image_axes], spacing[image_axes]
    first = np.where(sign > 0, origin, origin - h * (n - 1))
    order = [int(2 - a) for a in image_axes[::-1]]
    values = np.transpose(array, (*order, *range(3, array.ndim)))
    flipped = values[tuple(slice(None, None, int(s)) for s in sign[::-1])]
    grid = Grid.regular(
        shape=tuple(int(k) for k in n[::-1]),
        spacing_mm=tuple(h.tolist()),
        origin_mm=tuple(first.tolist()),
    )
    return np.ascontiguousarray(flipped), grid


def write_image(values: NDArray[Any], grid: Grid, path: Path, *, unit: str = "Gy") -> None:
    """Write one scalar image, in the format that the suffix of ``path`` says.

    Parameters
    ----------
    values : ndarray, shape [z, y, x]
        Single or double precision; kept.
    grid : Grid
        Evenly spaced.
    path : Path
        .mha, .nrrd, .nii or .nii.gz.
    unit : str
        Kept in the header, from where `read_image` takes it.

    Raises
    ------
    InputError
        When the spacing is uneven, which none of these formats can hold.
    """
    import SimpleITK

    spacing = even_spacing(grid, path)
    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(values))
    image.SetSpacing(spacing)
    image.SetOrigin(grid.origin_mm)
    if ".nii" in path.suffixes:
        image.SetMetaData("ITK_FileNotes", f"{UNIT_KEY}={unit}"[:79])
    else:
        image.SetMetaData(UNIT_KEY, unit)
    try:
        with _quiet():
            SimpleITK.WriteImage(image, os.fspath(path), useCompression=True)
    except RuntimeError as error:
        raise OSError(one_line(error)) from error


def write_mhd(
    values: NDArray[Any], grid: Grid, header_file: Path, raw_file: Path, *, raw_name: str, unit: str
) -> None:
    """Write a MetaImage as a header and a raw file.

    Parameters
    ----------
    values : ndarray, shape [z, y, x]
        Single or double precision; kept.
    grid : Grid
        Evenly spaced.
    header_file, raw_file : Path
        Files to write.
    raw_name : str
        Name of the raw file in the header.
    unit : str
        Kept in the header.
    """
    spacing = even_spacing(grid, header_file)
    kind = "MET_FLOAT" if values.dtype == np.float32 else "MET_DOUBLE"
    np.ascontiguousarray(values).astype("<f4" if kind == "MET_FLOAT" else "<f8", copy=False).tofile(raw_file)
    lines = {
        "ObjectType": "Image",
        "NDims": "3",
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": "False",
        "CompressedData": "False",
        "TransformMatrix": "1 0 0 0 1 0 0 0 1",
        "Offset": " ".join(repr(v) for v in grid.origin_mm),
        "ElementSpacing": " ".join(repr(v) for v in spacing),
        "DimSize": " ".join(str(n) for n in grid.shape[::-1]),
        UNIT_KEY: unit,
        "ElementType": kind,
        "ElementDataFile": raw_name,
    }
    header_file.write_text("".join(f"{key} = {value}\n" for key, value in lines.items()), encoding="utf-8")


def even_spacing(grid: Grid, path: Path) -> tuple[float, float, float]:
    """Voxel size (x, y, z) [mm], or a refusal where it is uneven."""
    x, y, z = grid.spacing_mm
    if x is None or y is None or z is None:
        raise InputError(
            f"{path.name} cannot be written: the voxel spacing (x, y, z) is {grid.spacing_mm}, None where "
            f"uneven, and {''.join(path.suffixes)} images are even. Write .npz, or resample with "
            "`DoseMap.conserved_on` an even grid first."
        )
    return x, y, z
