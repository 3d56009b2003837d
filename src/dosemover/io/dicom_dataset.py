"""DICOM files as data sets, and their attributes as checked values: every fault in one clear sentence."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from dosemover.errors import DataFormatError, InputError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset
    from pydicom.uid import UID

T = TypeVar("T")

IDENTIFIERS = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyInstanceUID",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "StudyDescription",
    "SeriesDescription",
    "AccessionNumber",
    "ReferringPhysicianName",
    "OperatorsName",
    "InstitutionName",
)
"""Attributes that can tell who the patient is: kept apart, written nowhere unless asked for."""


def is_dicom(path: str | os.PathLike[str]) -> bool:
    """Whether a file looks like DICOM: by the prefix of PS3.10, or by a first data element without it.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    bool
        False as well for what is missing, a directory or unreadable.
    """
    try:
        with open(path, "rb") as file:
            return _looks_like_dicom(file.read(140))
    except (OSError, ValueError):
        return False


def _looks_like_dicom(head: bytes) -> bool:
    """Whether bytes begin with the DICOM prefix or with a plausible data element."""
    if head[128:132] == b"DICM":
        return True
    if len(head) < 8 or head[:2] not in (b"\x02\x00", b"\x08\x00", b"\x00\x08"):
        return False
    order = "big" if head[:2] == b"\x00\x08" else "little"
    element = int.from_bytes(head[2:4], order)
    explicit = head[4:6] in (b"UL", b"OB", b"UI", b"CS", b"SH", b"DA", b"TM", b"LO", b"LT", b"DT", b"SQ")
    return element < 0x2000 and (explicit or int.from_bytes(head[4:8], order) <= 128)


def read_dataset(path: str | os.PathLike[str], *, sop_class_uid: str, kind: str) -> Dataset:
    """Data set of a DICOM file of one SOP class.

    Parameters
    ----------
    path : path-like
    sop_class_uid : str
        The SOP class that the file must hold.
    kind : str
        Its name in messages, such as "an RT Dose".

    Raises
    ------
    InputError
        When there is no such file, or when it holds another SOP class.
    DataFormatError
        When the file is empty, not DICOM, or broken.
    """
    import pydicom

    content = _read_bytes(path)
    if not _looks_like_dicom(content[:140]):
        raise DataFormatError(
            f"{path} is not a DICOM file: it has neither the DICM prefix nor a first data element, "
            f"and {kind} cannot be read from it. Export it again, or give the file its format's suffix."
        )
    dataset = guarded(
        lambda: pydicom.dcmread(BytesIO(content), force=True),
        f"{path} is not a readable DICOM file",
    )
    found = text(dataset, "SOPClassUID") or text(
        getattr(dataset, "file_meta", None), "MediaStorageSOPClassUID"
    )
    if not found:
        raise DataFormatError(
            f"{path} lacks SOPClassUID, so that what it holds is unknown; it may be truncated. "
            "Export it again."
        )
    if found != sop_class_uid:
        raise InputError(
            f"{path} is not {kind} but {_sop_class_name(found)}. Nothing can be read from it here. "
            f"Name {kind} file."
        )
    return dataset


def _read_bytes(path: str | os.PathLike[str]) -> bytes:
    """Content of a file that is there and not empty."""
    try:
        file = Path(path)
        if file.is_dir():
            raise InputError(f"{path} is a directory, not a file. Name one DICOM file in it.")
        content = file.read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist. Check the name and the folder.") from error
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{path} cannot be read: {reason}. Check the name and its permissions.") from error
    if not content:
        raise DataFormatError(f"{path} is empty (0 bytes). Export or copy it again.")
    return content


def _sop_class_name(uid: str) -> str:
    """Name of a SOP class, or its UID where it has none."""
    name = uid_of(uid).name
    if name == uid:
        return f"of the SOP class {shown(uid)}"
    return f"{'an' if name.startswith(('RT', 'MR', 'X-', 'E')) else 'a'} {name.removesuffix(' Storage')}"


def uid_of(value: str) -> UID:
    """A UID as it stands in a file, valid or not."""
    from pydicom import config
    from pydicom.uid import UID

    return UID(value, config.IGNORE)


def guarded(action: Callable[[], T], fact: str) -> T:
    """Result of a call into pydicom, whatever it raises on broken bytes told in one sentence.

    A broken file makes pydicom raise almost any exception, and warn on the way: hence the wide net.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return action()
    except Exception as error:
        reason = " ".join(str(error).split()).rstrip(".")[:160] or type(error).__name__
        raise DataFormatError(
            f"{fact}: {reason}. Its content is damaged or not what DICOM allows. Export it again."
        ) from error


def shown(value: Any) -> str:
    """A value as it appears in a message: on one line, not too long."""
    one_line = " ".join(repr(value).split())
    return one_line if len(one_line) <= 60 else one_line[:57] + "..."


def text(dataset: Any, keyword: str) -> str:
    """Text of an attribute, stripped; empty where the attribute is missing, empty or unreadable."""
    if dataset is None:
        return ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = dataset.get(keyword)
            return "" if value is None else str(value).strip(" \0")
    except Exception:
        return ""


def is_absent(dataset: Dataset, keyword: str, path: str | os.PathLike[str]) -> bool:
    """Whether an attribute is missing or empty; one that cannot be read is neither."""
    value = guarded(lambda: dataset.get(keyword), f"{path}: {keyword} cannot be read")
    return value is None or (hasattr(value, "__len__") and len(value) == 0)


def items(dataset: Any, keyword: str) -> list[Any]:
    """Items of a sequence, none where it is missing or unreadable."""
    from pydicom.sequence import Sequence

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = dataset.get(keyword)
            return list(value) if isinstance(value, Sequence) else []
    except Exception:
        return []


def numbers(
    dataset: Dataset, keyword: str, path: str | os.PathLike[str], *, count: int | None = None
) -> NDArray[Any]:
    """Finite numbers of an attribute.

    Raises
    ------
    DataFormatError
        When the attribute is missing or empty, holds other than ``count`` values, or one that is not
        a finite number.
    """
    if is_absent(dataset, keyword, path):
        raise DataFormatError(
            f"{path} lacks {keyword}, or it is empty. The dose or contour cannot be placed without it; "
            "the file may be truncated. Export it again."
        )
    value = dataset[keyword].value
    try:
        parts = [value] if isinstance(value, int | float | str | bytes) else list(value)
        result = np.array([float(v) for v in parts], dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise DataFormatError(
            f"{path}: {keyword} must be numbers, got {shown(value)}. Export the file again."
        ) from error
    if count is not None and result.size != count:
        raise DataFormatError(
            f"{path}: {keyword} must hold {count} numbers, got {result.size}: {shown(value)}. "
            "Export the file again."
        )
    if not np.all(np.isfinite(result)):
        raise DataFormatError(f"{path}: {keyword} must be finite, got {shown(value)}. Export the file again.")
    return result


def integer(
    dataset: Dataset, keyword: str, path: str | os.PathLike[str], *, default: int | None = None
) -> int:
    """Whole number of an attribute, ``default`` where it is missing.

    Raises
    ------
    DataFormatError
        When it is missing without a default, or not one whole number.
    """
    if default is not None and is_absent(dataset, keyword, path):
        return default
    (value,) = numbers(dataset, keyword, path, count=1)
    if value != round(value):
        raise DataFormatError(f"{path}: {keyword} must be a whole number, got {value}. Export it again.")
    return int(value)


def identifiers(dataset: Dataset) -> dict[str, str]:
    """What a file tells about the patient, the study and the plan, by attribute keyword."""
    found = {keyword: text(dataset, keyword) for keyword in IDENTIFIERS}
    plans = [text(item, "ReferencedSOPInstanceUID") for item in items(dataset, "ReferencedRTPlanSequence")]
    found["ReferencedRTPlan"] = plans[0] if len(plans) == 1 else ""
    return {keyword: value for keyword, value in found.items() if value}
