"""Writing DICOM RT Dose."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dosemover._files import atomic_write
from dosemover.dose import DoseMap
from dosemover.errors import AccuracyWarning, InputError, UnitError
from dosemover.grid import COINCIDENCE_TOLERANCE_MM, Grid
from dosemover.io.dicom_dataset import IDENTIFIERS
from dosemover.io.dicom_dose import RT_DOSE_STORAGE

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

IMPLEMENTATION_CLASS_UID = "2.25.133435971896052489554187604471808833245"
"""Identifies this program in the files that it writes (a UUID-derived UID, PS3.5 B.2)."""

RT_PLAN_STORAGE = "1.2.840.10008.5.1.4.1.1.481.5"

LARGEST_STORED = 2**32 - 2
"""Stored value of the maximum; one below the largest, for the rounding of DoseGridScaling."""

_UNITS = {"Gy": "GY", "relative": "RELATIVE"}
_EMPTY_UNLESS_IDENTIFIED = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
    "OperatorsName",
)
"""Attributes of type 2: present, and empty where nothing is to be told."""


def write_dicom_dose(dose: DoseMap, path: str | os.PathLike[str], *, identifiers: bool = False) -> Path:
    r"""Write a dose map as DICOM RT Dose.

    Parameters
    ----------
    dose : DoseMap
        In Gy, or relative; its grid evenly spaced along x and y.
    path : path-like
    identifiers : bool
        Whether to write the identifiers that the map carries (`DoseMap.identifiers`): patient, study
        and the plan that the dose belongs to. By default those attributes are empty, and study and
        plan get new UIDs.

    Returns
    -------
    pathlib.Path
        The file written.

    Raises
    ------
    InputError
        When the grid is uneven along x or y, or the file cannot be written.
    UnitError
        When the map is neither in Gy nor relative.

    Warns
    -----
    AccuracyWarning
        When voxel boundaries are lost, because those along z are not half-way between the values.

    Notes
    -----
    *Definition*: 32-bit unsigned stored values, DoseGridScaling = maximum / (2^32 - 2): a value reads
    back within 1.2e-10 of the maximum. Explicit VR little endian, orientation 1\0\0\0\1\0, frames
    along z by a relative GridFrameOffsetVector. The series and the file get new UIDs of the 2.25 root,
    the frame of reference keeps the one of the file that the map was read from, so that its structure
    set still fits. DoseSummationType is PLAN.

    *Limits*: doses alone, without uncertainty, batches, density or structures.

    References
    ----------
    DICOM PS3.3, A.18 (RT Dose IOD); PS3.5, B.2 (UUID-derived UIDs).
    """
    if dose.unit not in _UNITS:
        raise UnitError(
            f"an RT Dose holds a dose in Gy or a relative one, this map is in {dose.unit}. "
            "Its unit would be lost. Scale it to Gy first (--scale)."
        )
    dataset = _identity(dose, identifiers)
    _add_geometry(dataset, dose.grid)
    _add_dose(dataset, dose)
    with atomic_write(path) as temporary:
        dataset.save_as(temporary, enforce_file_format=True)
    return Path(path)


def _identity(dose: DoseMap, with_identifiers: bool) -> Dataset:
    """Data set with file meta information, patient, study, series and equipment."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

    from dosemover import __version__

    told = {k: v for k, v in dose.identifiers.items() if with_identifiers and k in IDENTIFIERS}
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID = UID(RT_DOSE_STORAGE)
    dataset.SOPInstanceUID = generate_uid(prefix=None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # values out of another file may not be what their type allows
        for keyword in _EMPTY_UNLESS_IDENTIFIED:
            setattr(dataset, keyword, "")
        for keyword, value in told.items():
            setattr(dataset, keyword, value)
    if not told.get("StudyInstanceUID"):
        dataset.StudyInstanceUID = generate_uid(prefix=None)
    dataset.SeriesInstanceUID = generate_uid(prefix=None)
    dataset.SeriesNumber = None
    dataset.InstanceNumber = None
    dataset.Modality = "RTDOSE"
    dataset.Manufacturer = "dosemover"
    dataset.SoftwareVersions = __version__
    frame_of_reference = str(dose.source.get("FrameOfReferenceUID", ""))
    keep = UID(frame_of_reference).is_valid if frame_of_reference else False
    dataset.FrameOfReferenceUID = UID(frame_of_reference) if keep else generate_uid(prefix=None)
    dataset.PositionReferenceIndicator = ""
    plan = Dataset()
    plan.ReferencedSOPClassUID = UID(RT_PLAN_STORAGE)
    known = dose.identifiers.get("ReferencedRTPlan", "") if with_identifiers else ""
    plan.ReferencedSOPInstanceUID = UID(known) if known else generate_uid(prefix=None)
    dataset.ReferencedRTPlanSequence = [plan]
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    dataset.file_meta.ImplementationVersionName = f"DOSEMOVER {__version__}"[:16]
    return dataset


def _add_geometry(dataset: Dataset, grid: Grid) -> None:
    """Add the image plane and multi-frame attributes of a grid."""
    from pydicom.tag import Tag

    dx, dy, dz = grid.spacing_mm
    if dx is None or dy is None:
        raise InputError(
            f"an RT Dose has evenly spaced rows and columns, this grid is uneven along "
            f"{' and '.join(axis for axis, d in zip('xy', (dx, dy), strict=True) if d is None)}. "
            "It cannot be written. Resample the map to an even grid, or write it as npz."
        )
    z, y, x = grid.centers_mm
    as_read = Grid.from_centers(x_mm=x, y_mm=y, z_mm=z, width_mm=float(grid.widths_mm[0][0]))
    lost = float(np.abs(as_read.z_edges_mm - grid.z_edges_mm).max())
    if lost > COINCIDENCE_TOLERANCE_MM:
        warnings.warn(
            f"an RT Dose holds where its frames are, not where voxels end: boundaries along z will read "
            f"back up to {lost:.3g} mm off. Write the map as npz to keep them.",
            AccuracyWarning,
            stacklevel=3,
        )
    dataset.Rows, dataset.Columns, dataset.NumberOfFrames = y.size, x.size, z.size
    dataset.PixelSpacing = [_decimal_string(dy), _decimal_string(dx)]
    dataset.ImagePositionPatient = [_decimal_string(float(c[0])) for c in (x, y, z)]
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.SliceThickness = None if dz is None else _decimal_string(dz)
    dataset.FrameIncrementPointer = Tag("GridFrameOffsetVector")
    dataset.GridFrameOffsetVector = [_decimal_string(float(d)) for d in z - z[0]]


def _add_dose(dataset: Dataset, dose: DoseMap) -> None:
    """Add the pixels and the RT Dose attributes."""
    if dose.dose_gy.size * 4 >= 2**32:
        raise InputError(
            f"an RT Dose holds less than 4 GB, this map has {dose.dose_gy.size} voxels of 4 bytes. "
            "It cannot be written. Crop or coarsen it."
        )
    scaling = _decimal(dose.max_gy / LARGEST_STORED) if dose.max_gy > 0 else "1"
    if float(scaling) == 0:
        raise InputError(
            f"the maximum of the map, {dose.max_gy}, is too small to be scaled. Scale it up first."
        )
    stored = np.rint(np.asarray(dose.dose_gy, dtype=np.float64) / float(scaling))
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 32
    dataset.HighBit = 31
    dataset.PixelRepresentation = 0
    dataset.DoseUnits = _UNITS[dose.unit]
    kind = dose.source.get("DoseType")
    dataset.DoseType = kind if kind in ("PHYSICAL", "EFFECTIVE", "ERROR") else "PHYSICAL"
    dataset.DoseSummationType = "PLAN"
    dataset.DoseGridScaling = scaling
    dataset.PixelData = np.minimum(stored, 2**32 - 1).astype("<u4").tobytes()


def _decimal_string(value: float) -> str:
    """A number in at most the 16 characters of a decimal string, as precise as they allow."""
    candidates = (f"{value:.{digits}g}" for digits in range(16, 0, -1))
    return next(shown for shown in candidates if len(shown) <= 16)


def _decimal(value: float) -> str:
    """A positive number in at most 16 characters, the most that a decimal string may have."""
    candidates = (f"{value:.{digits}e}" for digits in range(10, -1, -1))
    return next(shown for shown in candidates if len(shown) <= 16)
