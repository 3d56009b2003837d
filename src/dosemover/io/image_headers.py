"""Headers of MetaImage, NRRD and NIfTI files, read before anything is allocated or handed to a library."""

from __future__ import annotations

import math
import re
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

from dosemover.errors import DataFormatError, InputError
from dosemover.io.files import GZIP_RATIO, existing_file

_HEADER_BYTES = 1 << 16
_CHUNK_BYTES = 1 << 20
_TEXT_RATIO = 8
"""Text spends at least one byte on a value, of at most eight bytes."""

_BZIP2_RATIO = 50_000

_LARGEST = 1e6
"""Positions, spacings [mm] and direction cosines beyond this are damage; libraries may never return."""

_FORMS_AGREE_MM = 0.01
"""The most by which qform and sform of a NIfTI may differ in origin or step [mm]."""

_NIFTI_2 = (b"n+2\0", b"ni2\0")

_META_GEOMETRY = (
    *("TransformMatrix", "Rotation", "Orientation", "Offset", "Origin", "Position"),
    *("ElementSpacing", "ElementSize", "CenterOfRotation"),
)
_NRRD_GEOMETRY = (
    *("space directions", "space origin", "spacings", "thicknesses", "measurement frame"),
    *("axis mins", "axismins", "axis maxs", "axismaxs"),
)


@dataclass(frozen=True, kw_only=True)
class ImageHeader:
    """Where an image file keeps its voxels.

    Parameters
    ----------
    entries : dict of str to str
        Text entries of the header.
    data_file : Path
        File that holds the voxels: the image itself, or one beside it.
    offset : int
        First byte of the voxels in ``data_file``; 0 where that does not matter.
    ratio : float
        The most bytes of voxels that a stored byte can become.
    packed : bool
        Whether the voxels are one zlib or gzip stream from ``offset`` on.
    """

    entries: dict[str, str]
    data_file: Path
    offset: int = 0
    ratio: float = 1.0
    packed: bool = False

    @property
    def stored_bytes(self) -> float:
        """The most bytes of voxels that the data file can hold."""
        return self.ratio * (self.data_file.stat().st_size - self.offset)


def image_format(head: bytes) -> str | None:
    """Name of the image format by the first 348 bytes of a file; None for anything else."""
    if head.startswith(b"NRRD0"):
        return "NRRD"
    if head[4:8] in _NIFTI_2 or head[344:348] in (b"n+1\0", b"ni1\0"):
        return "NIfTI"
    if re.match(rb"\s*(ObjectType|NDims|Comment|DimSize|BinaryData)\s*=", head):
        return "MetaImage"
    return None


def image_header(path: Path, kind: str) -> ImageHeader:
    """Header of a MetaImage, NRRD or NIfTI file.

    Raises
    ------
    DataFormatError
        When the header is cut short.
    InputError
        When the data file is missing or spread over several.
    """
    return {"MetaImage": _meta_header, "NRRD": _nrrd_header, "NIfTI": _nifti_header}[kind](path)


def check_packed(path: Path, header: ImageHeader, *, n_bytes: int) -> None:
    """Decompress the voxels once for their checksum, which the image library does not look at.

    Raises
    ------
    DataFormatError
        When the stream is damaged or does not hold ``n_bytes`` bytes.
    """
    if not header.packed:
        return
    stream = zlib.decompressobj(wbits=47)  # zlib or gzip, as the stream says
    total = 0
    with header.data_file.open("rb") as file:
        file.seek(header.offset)
        while not stream.eof and total <= n_bytes:
            chunk = stream.unconsumed_tail or file.read(_CHUNK_BYTES)
            if not chunk:
                break
            total += len(stream.decompress(chunk, _CHUNK_BYTES))
    if total != n_bytes or not stream.eof:
        raise DataFormatError(
            f"{path.name}: the compressed voxels give {total} bytes{'' if stream.eof else ' or more'}, the "
            f"header declares {n_bytes}. The file is truncated or damaged. Export or copy it again."
        )


def _meta_header(path: Path) -> ImageHeader:
    """Entries of a MetaImage header up to ElementDataFile, which ends it."""
    with path.open("rb") as stream:
        head = stream.read(_HEADER_BYTES)
    end = re.search(rb"ElementDataFile[ \t]*=[^\n]*\n?", head)
    if end is None:
        raise DataFormatError(
            f"{path.name}: the MetaImage header ends without ElementDataFile. The voxels cannot be found. "
            "Export it again."
        )
    entries = {}
    for line in _text(head[: end.end()]).splitlines():
        key, _, value = line.partition("=")
        entries[key.strip()] = value.strip()
    _check_dimensions(path, entries.get("NDims", ""), entries.get("DimSize", "").split())
    for key in set(_META_GEOMETRY) & set(entries):
        _check_geometry(path, key, entries[key])
    _check_spacing(path, "ElementSpacing", entries.get("ElementSpacing", ""))
    name = entries.get("ElementDataFile", "")
    local = name.upper() == "LOCAL"
    packed = entries.get("CompressedData", "false").lower() in ("true", "1")
    binary = entries.get("BinaryData", "true").lower() in ("true", "1")
    return ImageHeader(
        entries=entries,
        data_file=path if local else _data_file(path, name),
        offset=end.end() if local else 0,
        ratio=GZIP_RATIO if packed else 1 if binary else _TEXT_RATIO,
        packed=packed,
    )


def _text(head: bytes) -> str:
    """Header text: UTF-8, as names of files beside it are written today, or else Latin-1."""
    try:
        return head.decode("utf-8")
    except UnicodeDecodeError:
        return head.decode("latin-1")


def _nrrd_header(path: Path) -> ImageHeader:
    """Fields and key/value pairs of a NRRD header, which an empty line ends."""
    with path.open("rb") as stream:
        head = stream.read(_HEADER_BYTES)
    end = re.search(rb"\r?\n\r?\n", head)
    entries = {}
    for line in _text(head[: end.start() if end else None]).splitlines()[1:]:
        if match := re.match(r"([^#:]+):[=\s]\s*(.*)", line):
            entries[match.group(1).strip()] = match.group(2).strip()
    name = entries.get("data file", entries.get("datafile", ""))
    if "sizes" not in entries or "encoding" not in entries or (end is None and not name):
        raise DataFormatError(
            f"{path.name}: the NRRD header is cut short or lacks sizes or encoding. Export it again."
        )
    _check_dimensions(path, entries.get("dimension", ""), entries["sizes"].split())
    for key in set(_NRRD_GEOMETRY) & set(entries):
        _check_geometry(path, key, re.sub(r"\bnone\b|\bnan\b|[(),]", " ", entries[key], flags=re.IGNORECASE))
    _check_spacing(path, "spacings", entries.get("spacings", ""))
    encoding = entries["encoding"].lower()
    packed = encoding in ("gzip", "gz")
    ratio = {"raw": 1, "bzip2": _BZIP2_RATIO, "bz2": _BZIP2_RATIO}.get(encoding, _TEXT_RATIO)
    skips = {"byte skip", "byteskip", "line skip", "lineskip"} & set(entries)
    return ImageHeader(
        entries=entries,
        data_file=_data_file(path, name) if name else path,
        offset=end.end() if end and not name else 0,
        ratio=GZIP_RATIO if packed else ratio,
        packed=packed and not skips,
    )


def _nifti_header(path: Path) -> ImageHeader:
    """Offset of the voxels of a NIfTI-1 file, or the .img file of a pair."""
    with path.open("rb") as stream:
        head = stream.read(348)
    if head[4:8] in _NIFTI_2:
        raise InputError(
            f"{path.name} is NIfTI-2, which the image library does not read. Save it as NIfTI-1 or NRRD."
        )
    if len(head) < 348:
        raise DataFormatError(
            f"{path.name}: the NIfTI header is cut short ({len(head)} bytes). Copy it again."
        )
    order = "<" if struct.unpack_from("<i", head)[0] == 348 else ">"
    dim = struct.unpack_from(order + "8h", head, 40)
    _check_dimensions(path, str(dim[0]), [str(n) for n in dim[1 : max(1, dim[0] + 1)]])
    pixdim = struct.unpack_from(order + "8f", head, 76)[: dim[0] + 1]
    affine = struct.unpack_from(order + "18f", head, 256)
    _check_geometry(path, "pixdim, quatern, qoffset, srow", " ".join(map(repr, (*pixdim, *affine))))
    _check_forms(path, struct.unpack_from(order + "2h", head, 252), pixdim, affine)
    bits = struct.unpack_from(order + "h", head, 72)[0]
    offset, slope, intercept = struct.unpack_from(order + "3f", head, 108)
    scaled = (slope, intercept) not in ((0.0, 0.0), (1.0, 0.0))  # then the library hands out doubles
    ratio = max(1.0, 64 / bits) if scaled and bits > 0 else 1.0
    if head[344:348] == b"ni1\0":
        return ImageHeader(entries={}, data_file=existing_file(path.with_suffix(".img")), ratio=ratio)
    if not 0 <= offset <= path.stat().st_size:
        raise DataFormatError(
            f"{path.name}: the voxels should begin at byte {offset:g} of {path.stat().st_size}. The header "
            "is wrong or the file truncated. Export or copy it again."
        )
    return ImageHeader(entries={}, data_file=path, offset=int(offset), ratio=ratio)


def _check_forms(
    path: Path, codes: tuple[int, ...], pixdim: tuple[float, ...], affine: tuple[float, ...]
) -> None:
    """Refuse a NIfTI whose two transforms, both in force, put voxels into different places."""
    if min(codes) <= 0 or len(pixdim) < 4:
        return
    b, c, d = affine[:3]
    a = math.sqrt(max(1.0 - b * b - c * c - d * d, 0.0))
    rotation = (
        (a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)),
        (2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)),
        (2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c),
    )
    steps = (pixdim[1], pixdim[2], pixdim[3] * (-1.0 if pixdim[0] < 0 else 1.0))
    for axis in range(3):
        *row, offset = affine[6 + 4 * axis : 10 + 4 * axis]
        differences = [s - r * h for s, r, h in zip(row, rotation[axis], steps, strict=True)]
        if max(*map(abs, differences), abs(offset - affine[3 + axis])) > _FORMS_AGREE_MM:
            raise DataFormatError(
                f"{path.name}: its qform and its sform place the voxels differently (along {'xyz'[axis]}: "
                f"origin {affine[3 + axis]:g} and {offset:g} mm). Programs follow one or the other, so where "
                "the dose lies is unknown. Save it with both alike, or set the wrong one's code to 0."
            )


def _check_dimensions(path: Path, declared: str, sizes: list[str]) -> None:
    """Hold the number of dimensions against the sizes: libraries trust them before they look."""
    whole = re.fullmatch(r"[1-7]", declared) and all(re.fullmatch(r"[0-9]{1,18}", n) for n in sizes)
    if not whole or len(sizes) != int(declared) or "0" in {n.lstrip("0") or "0" for n in sizes}:
        raise DataFormatError(
            f"{path.name} declares {declared[:20]!r} dimensions of sizes {' '.join(sizes)[:80]!r}. "
            "Sizes must be positive, one for each dimension. The header is wrong. Export it again."
        )


def _check_geometry(path: Path, key: str, text: str) -> None:
    """Hold numbers of the geometry against what can be a position, a size or a direction."""
    for word in text.split():
        try:
            value = float(word)
        except ValueError:
            value = math.nan
        if not abs(value) <= _LARGEST:
            raise DataFormatError(
                f"{path.name}: {key} holds {word[:40]!r}. Positions and sizes in mm must be numbers up to "
                f"{_LARGEST:g}. The header is wrong. Export it again."
            )


def _check_spacing(path: Path, key: str, text: str) -> None:
    """Refuse voxels without a width; numbers have been checked before."""
    if any(float(word) <= 0 for word in text.split()):
        raise DataFormatError(
            f"{path.name}: {key} must be positive, got {text[:80]!r}. Distances in mm cannot be computed. "
            "The header is wrong. Export it again."
        )


def _data_file(path: Path, name: str) -> Path:
    """The one file beside the header that holds the voxels."""
    if name.upper().startswith("LIST") or "%" in name:
        raise InputError(
            f"{path.name} spreads its voxels over several files ({name}). Only one data file is understood. "
            "Export it as one file."
        )
    target = path.parent / name
    if not name or not target.is_file():
        raise InputError(
            f"{path.name} names the data file {name!r}, which is not beside it. The voxels are missing. "
            "Copy both files together."
        )
    return target
