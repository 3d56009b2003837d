"""Reading DICOM RT Dose: values by DoseGridScaling, positions by an affine of our own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dosemover._runtime import available_memory_bytes
from dosemover.dose import DoseMap
from dosemover.errors import DataFormatError, InputError, MissingDependencyError
from dosemover.io.dicom_dataset import (
    guarded,
    identifiers,
    integer,
    is_absent,
    numbers,
    read_dataset,
    shown,
    text,
    uid_of,
)
from dosemover.io.dicom_geometry import Placement, frame_offsets, place_frames

if TYPE_CHECKING:
    from pydicom.dataset import Dataset
    from pydicom.pixels.decoders.base import Decoder
    from pydicom.uid import UID

RT_DOSE_STORAGE = "1.2.840.10008.5.1.4.1.1.481.2"
"""SOP class UID of RT Dose."""

LARGEST_COMPRESSION = 10_000
"""No lossless code shrinks a dose by more than this; a larger declared size is damage."""


def read_dicom_dose(path: str | os.PathLike[str]) -> DoseMap:
    """Dose map of one DICOM RT Dose file.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    DoseMap
        In ``unit`` "Gy" (DoseUnits GY) or "relative" (RELATIVE). ``source`` tells the format's details,
        ``identifiers`` what names the patient.

    Raises
    ------
    InputError
        When there is no such file, it is no RT Dose, its grid is oblique or its values are negative.
    DataFormatError
        When it does not hold what DICOM promises: truncated, attributes missing or out of range.
    MissingDependencyError
        When its pixels are compressed by a code whose decoder is not installed.

    Notes
    -----
    *Definition*: D = stored value x DoseGridScaling; positions by PS3.3 C.7.6.2.1.1 and C.8.8.3.2
    (`dosemover.io.dicom_geometry`). A single frame is as thick as its SliceThickness says, else as the
    frame offsets are apart, else 1 mm. Unevenly spaced frames keep their positions, with voxel
    boundaries half-way between them.

    *Limits*: 8, 16 and 32 bits, signed and unsigned; every transfer syntax that pydicom decodes, those
    of the JPEG family with the extra ``jpeg``; axis-aligned grids.

    *Cost*: about 20 bytes of memory a voxel while reading, 8 afterwards.

    References
    ----------
    DICOM PS3.3, A.18 (RT Dose IOD), C.7.6.2 (Image Plane), C.8.8.3 (RT Dose module).
    """
    dataset = read_dataset(path, sop_class_uid=RT_DOSE_STORAGE, kind="an RT Dose")
    unit = _unit(dataset, path)
    scaling = _scaling(dataset, path)
    shape = _declared_shape(dataset, path)
    _check_pixel_size(dataset, path, shape)
    placement, offsets_form = _placement(dataset, path, shape)
    stored = _stored_values(dataset, path, shape)
    if stored.min() < 0:
        raise InputError(
            f"{path} holds a negative dose: {float(stored.min()) * scaling:.6g} "
            f"{'Gy' if unit == 'Gy' else '(relative)'} in {int((stored < 0).sum())} voxels with the least. "
            "No metric is defined for it. Export a dose, not a difference of doses."
        )
    if scaling == 0 and stored.any():
        raise DataFormatError(
            f"{path}: DoseGridScaling must be positive, got 0 with values that are not 0. "
            "The dose is unknown. Export the file again."
        )
    if not np.isfinite(float(stored.max()) * scaling):
        raise DataFormatError(f"{path}: DoseGridScaling {scaling} makes an infinite dose. Export it again.")
    return DoseMap(
        dose_gy=np.multiply(placement.arrange(stored), scaling, dtype=np.float64),
        grid=placement.grid,
        unit=unit,
        name=Path(path).name,
        source=_details(dataset, path, scaling, offsets_form),
        identifiers=identifiers(dataset),
    )


def _unit(dataset: Dataset, path: str | os.PathLike[str]) -> str:
    """Unit of the map from DoseUnits."""
    units = text(dataset, "DoseUnits").upper()
    if not units:
        raise DataFormatError(
            f"{path} lacks DoseUnits, or it is empty. The dose has no known unit; the file may be truncated. "
            "Export it again, as an absolute dose in GY."
        )
    if units not in ("GY", "RELATIVE"):
        raise DataFormatError(
            f"{path}: DoseUnits must be GY or RELATIVE, got {shown(units)}. The dose has no known unit. "
            "Export it as an absolute dose in GY."
        )
    return "Gy" if units == "GY" else "relative"


def _scaling(dataset: Dataset, path: str | os.PathLike[str]) -> float:
    """DoseGridScaling: unit of dose per stored unit."""
    (scaling,) = numbers(dataset, "DoseGridScaling", path, count=1)
    if scaling < 0:
        raise DataFormatError(
            f"{path}: DoseGridScaling must be positive, got {scaling}. Doses would be negative. "
            "Export the file again."
        )
    return float(scaling)


def _declared_shape(dataset: Dataset, path: str | os.PathLike[str]) -> tuple[int, int, int]:
    """Frames, rows and columns that the header declares."""
    frames = integer(dataset, "NumberOfFrames", path, default=1)
    shape = frames, integer(dataset, "Rows", path), integer(dataset, "Columns", path)
    if min(shape) < 1:
        raise DataFormatError(
            f"{path}: NumberOfFrames, Rows and Columns must be positive, got {shape}. "
            "There is no dose to read. Export the file again."
        )
    return shape


def _check_pixel_size(dataset: Dataset, path: str | os.PathLike[str], shape: tuple[int, int, int]) -> None:
    """Refuse pixels that are missing, of a wrong type or fewer than declared, before allocating any."""
    bits = integer(dataset, "BitsAllocated", path)
    stored = integer(dataset, "BitsStored", path, default=bits)
    high = integer(dataset, "HighBit", path, default=stored - 1)
    if bits not in (8, 16, 32) or not 1 <= stored <= bits or high != stored - 1:
        raise DataFormatError(
            f"{path}: a dose has 8, 16 or 32 bits a value, the highest of BitsStored being HighBit; got "
            f"BitsAllocated {bits}, BitsStored {stored}, HighBit {high}. Export the file again."
        )
    _expect(dataset, path, "SamplesPerPixel", ("1",))
    _expect(dataset, path, "PixelRepresentation", ("0", "1"))
    _expect(dataset, path, "PhotometricInterpretation", ("MONOCHROME2", "MONOCHROME1"))
    declared = shape[0] * shape[1] * shape[2] * (bits // 8)
    pixels = guarded(lambda: dataset.get("PixelData"), f"{path}: PixelData cannot be read")
    held = len(pixels) if isinstance(pixels, bytes) else 0
    if not held:
        raise DataFormatError(
            f"{path} lacks PixelData: it holds no dose values; it may be truncated. Export it again."
        )
    encapsulated = _decoder(dataset, path).is_encapsulated
    if declared > held * (LARGEST_COMPRESSION if encapsulated else 1):
        raise DataFormatError(
            f"{path} is truncated or damaged: its {shape[0]} frames of {shape[1]} x {shape[2]} voxels of "
            f"{bits} bits are {declared} bytes, and it holds {held}. Export or copy it again."
        )
    if not encapsulated and held - declared > 7:
        raise DataFormatError(
            f"{path}: its {shape[0]} frames of {shape[1]} x {shape[2]} voxels of {bits} bits are {declared} "
            f"bytes, but it holds {held}. Which voxel a value belongs to is unknown. Export it again."
        )
    memory = available_memory_bytes()
    needed = declared + 16 * shape[0] * shape[1] * shape[2]
    if memory is not None and needed > memory:
        raise InputError(
            f"{path}: its {shape[0]} frames of {shape[1]} x {shape[2]} voxels need {needed / 1e9:.1f} GB of "
            f"memory, {memory / 1e9:.1f} GB are free. Read it on a larger machine, or export a coarser grid."
        )


def _expect(dataset: Dataset, path: str | os.PathLike[str], keyword: str, allowed: tuple[str, ...]) -> None:
    """Refuse an attribute whose value is not one of those allowed."""
    value = text(dataset, keyword)
    if value not in allowed:
        raise DataFormatError(
            f"{path}: {keyword} of a dose must be {' or '.join(allowed)}, got {shown(value)}. "
            "Its values cannot be read. Export the file again."
        )


def _decoder(dataset: Dataset, path: str | os.PathLike[str]) -> Decoder:
    """What decodes the pixels of the file's transfer syntax."""
    from pydicom.pixels.decoders.base import get_decoder

    decoder = guarded(
        lambda: get_decoder(_syntax(dataset)),
        f"{path}: its transfer syntax {shown(str(_syntax(dataset)))} cannot be decoded",
    )
    if not decoder.is_available:
        raise MissingDependencyError(
            f"{path} is compressed ({decoder.UID.name}), and no decoder for it is installed. "
            "Install one with: pip install 'dosemover[jpeg]'"
        )
    return decoder


def _syntax(dataset: Dataset) -> UID:
    """Transfer syntax, as the file meta information says or else as the data set was encoded."""
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    if stated := text(getattr(dataset, "file_meta", None), "TransferSyntaxUID"):
        return uid_of(stated)
    implicit, little = dataset.original_encoding
    if implicit is not False:
        return ImplicitVRLittleEndian
    return ExplicitVRBigEndian if little is False else ExplicitVRLittleEndian


def _placement(
    dataset: Dataset, path: str | os.PathLike[str], shape: tuple[int, int, int]
) -> tuple[Placement, str]:
    """Where the frames lie, and the form of their offsets."""
    position = numbers(dataset, "ImagePositionPatient", path, count=3)
    orientation = numbers(dataset, "ImageOrientationPatient", path, count=6)
    distances, form, thickness = np.zeros(1), "none", 0.0
    if shape[0] > 1 or not is_absent(dataset, "GridFrameOffsetVector", path):
        offsets = numbers(dataset, "GridFrameOffsetVector", path)
        distances, form = frame_offsets(
            offsets, position_mm=position, orientation=orientation, n_frames=shape[0], file=str(path)
        )
        thickness = float(abs(offsets[1] - offsets[0])) if offsets.size > 1 else 0.0
    if not is_absent(dataset, "SliceThickness", path):
        thickness = float(numbers(dataset, "SliceThickness", path, count=1)[0]) or thickness
    if thickness < 0:
        raise DataFormatError(
            f"{path}: SliceThickness must not be negative, got {thickness} mm. Export the file again."
        )
    placement = place_frames(
        shape=shape,
        position_mm=position,
        orientation=orientation,
        pixel_spacing_mm=numbers(dataset, "PixelSpacing", path, count=2),
        distances_mm=distances,
        thickness_mm=thickness or 1.0,
        file=str(path),
    )
    return placement, form


def _stored_values(
    dataset: Dataset, path: str | os.PathLike[str], shape: tuple[int, int, int]
) -> NDArray[Any]:
    """Stored values [frame, row, column], decoded by pydicom."""
    decoder = _decoder(dataset, path)
    # pydicom's own decoder, where it has one, refuses damaged frames on which compiled ones may abort
    plugin = "pydicom" if "pydicom" in decoder.available_plugins else ""
    values, _ = guarded(
        lambda: decoder.as_array(dataset, raw=True, decoding_plugin=plugin),
        f"{path}: its pixels cannot be decoded",
    )
    if values.size != shape[0] * shape[1] * shape[2]:
        raise DataFormatError(
            f"{path}: its pixels decode to shape {values.shape}, its header declares {shape}. "
            "Export the file again."
        )
    return values.reshape(shape)


def _details(
    dataset: Dataset, path: str | os.PathLike[str], scaling: float, offsets_form: str
) -> dict[str, Any]:
    """What ``dosemover info`` shows: nothing that names a patient."""
    signed = "signed" if text(dataset, "PixelRepresentation") == "1" else "unsigned"
    orientation = numbers(dataset, "ImageOrientationPatient", path, count=6)
    details = {
        "file": Path(path).name,
        "format": "DICOM RT Dose",
        "DoseUnits": text(dataset, "DoseUnits"),
        "DoseType": text(dataset, "DoseType"),
        "DoseSummationType": text(dataset, "DoseSummationType"),
        "DoseGridScaling": scaling,
        "bits": f"{text(dataset, 'BitsAllocated')} {signed}",
        "transfer syntax": str(_syntax(dataset).name),
        "orientation": " ".join(f"{value:g}" for value in orientation),
        "frame offsets": offsets_form,
        "FrameOfReferenceUID": text(dataset, "FrameOfReferenceUID"),
    }
    return {key: value for key, value in details.items() if value != ""}
