"""What every reader needs of a file: its content before units are settled, gzip, size checks, errors."""

from __future__ import annotations

import gzip
import shutil
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dosemover._runtime import available_memory_bytes
from dosemover.dose import Structure
from dosemover.errors import DataFormatError, DosemoverError, InputError
from dosemover.grid import Grid

GZIP_RATIO = 1040
"""Deflate cannot shrink data by more than about 1032 times: a larger promise is false."""

_CHUNK_BYTES = 1 << 20

_DAMAGE = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    ArithmeticError,
    LookupError,
    MemoryError,
    RuntimeError,
    struct.error,
    zlib.error,
    zipfile.BadZipFile,
)
"""What libraries raise on damaged files; each becomes one clear line."""


@dataclass(frozen=True, kw_only=True, eq=False)
class FileContent:
    """Voxel values as a file holds them, on an ascending LPS grid.

    Parameters
    ----------
    values : ndarray, shape [z, y, x]
        Dose or another quantity, in ``unit``.
    grid : Grid
    uncertainty : ndarray, shape [z, y, x], optional
        Standard uncertainty (k = 1), in ``unit``.
    batches : ndarray, shape [batch, z, y, x], optional
        Independent batches, in ``unit``.
    density : ndarray, shape [z, y, x], optional
        Mass density [g/cm3].
    structures : tuple of Structure
    unit : str, optional
        What the file or its format states; None where it states nothing.
    source : dict
        Format details, "format" among them.
    """

    values: NDArray[Any]
    grid: Grid
    uncertainty: NDArray[Any] | None = None
    batches: NDArray[Any] | None = None
    density: NDArray[Any] | None = None
    structures: tuple[Structure, ...] = ()
    unit: str | None = None
    source: dict[str, Any] = field(default_factory=dict)


def one_line(error: BaseException) -> str:
    """The reason of an error as one short line."""
    text = " ".join(str(error).split("ERROR:")[-1].split()) or type(error).__name__
    return text if len(text) <= 200 else text[:197] + "..."


@contextmanager
def reading(file: Path, what: str) -> Iterator[None]:
    """Turn whatever goes wrong while reading ``file`` into one clear line that names it.

    Raises
    ------
    DosemoverError
        The error itself, with the file's name in front where it lacks it.
    DataFormatError
        For every error of a library underneath.
    """
    try:
        with np.errstate(all="ignore"):
            yield
    except DosemoverError as error:
        text = " ".join(str(error).split())
        if file.name in text and text == str(error):
            raise
        raise type(error)(text if file.name in text else f"{file.name}: {text}") from error
    except PermissionError as error:
        raise InputError(f"{file} cannot be opened: permission denied. Make it readable first.") from error
    except _DAMAGE as error:
        raise DataFormatError(
            f"{file.name} cannot be read as {what}: {one_line(error)}. It is damaged or incomplete. "
            "Export it again."
        ) from error


def existing_file(path: Path) -> Path:
    """The path itself, or a clear refusal where no readable file stands there."""
    try:
        if path.is_dir():
            raise InputError(f"{path} is a directory, not a file. Name a file in it.")
        if not path.exists():
            raise InputError(f"{path} does not exist. Check the path and the spelling.")
        if not path.is_file():
            raise InputError(f"{path} is not a regular file. Copy its content to a file first.")
        if path.stat().st_size == 0:
            raise DataFormatError(f"{path} is empty (0 bytes). Export or copy it again.")
    except DosemoverError:
        raise
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be opened: {one_line(error)}. Check the path.") from error
    return path


def check_allocation(file: Path, *, declared_bytes: float, stored_bytes: float | None = None) -> None:
    """Refuse declared dimensions that the file cannot hold or the memory cannot take.

    Parameters
    ----------
    file : Path
    declared_bytes : float
        Bytes that the header promises, after decompression.
    stored_bytes : float, optional
        The most that the bytes in the file can become.

    Raises
    ------
    DataFormatError
        When the file is too small for its header.
    InputError
        When the values would not fit into half of the memory that is free.
    """
    if stored_bytes is not None and declared_bytes > stored_bytes:
        raise DataFormatError(
            f"{file.name} declares {declared_bytes:.4g} bytes of voxels, but can hold {stored_bytes:.4g} at "
            "most. It is truncated or its header is wrong. Export or copy it again."
        )
    free = available_memory_bytes()
    if free is not None and declared_bytes > free / 2:
        raise InputError(
            f"{file.name} declares {declared_bytes:.4g} bytes of voxels, more than half of the free memory "
            f"({free:.4g} bytes). Nothing was read. Crop or resample the map first."
        )


@contextmanager
def uncompressed(path: Path) -> Iterator[Path]:
    """The file itself, or a temporary decompressed copy of a gzip file without the .gz suffix.

    Raises
    ------
    DataFormatError
        When the compressed data are damaged.
    InputError
        When the content is larger than half of the free memory.
    """
    existing_file(path)
    with reading(path, "a file"), path.open("rb") as stream:
        magic = stream.read(2)
    if magic != b"\x1f\x8b":
        yield path
        return
    name = path.name[:-3] if path.suffix.lower() == ".gz" else path.name
    with tempfile.TemporaryDirectory(prefix="dosemover-") as folder:
        target = Path(folder) / (name or "content")
        with reading(path, "gzip"):
            _decompress(path, target)
        yield existing_content(path, target)


def existing_content(path: Path, target: Path) -> Path:
    """The decompressed file, or a refusal where it is empty."""
    if target.stat().st_size == 0:
        raise DataFormatError(f"{path} holds 0 bytes after decompression. Export or copy it again.")
    return target


def _decompress(path: Path, target: Path) -> None:
    """Decompress in pieces, up to half of the free memory and of the free disk."""
    free = available_memory_bytes() or 1 << 33
    limit = min(free, shutil.disk_usage(target.parent).free) / 2
    total = 0
    with gzip.open(path, "rb") as stream, target.open("wb") as out:
        while chunk := stream.read(_CHUNK_BYTES):
            total += len(chunk)
            if total > limit:
                raise InputError(
                    f"{path.name} decompresses to more than {limit:.4g} bytes, half of what is free. "
                    "Nothing was read. Crop or resample the map first."
                )
            out.write(chunk)
