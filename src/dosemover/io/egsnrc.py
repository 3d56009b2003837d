"""EGSnrc ``.3ddose`` files: voxel boundaries, dose and relative uncertainty as text."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dosemover.errors import DataFormatError
from dosemover.grid import Grid
from dosemover.io.files import FileContent, check_allocation
from dosemover.io.text import is_number

_LOST_E = re.compile(rb"([0-9.])([+-][0-9]{3})(?![0-9.])")
"""Fortran drops the E of an exponent of three digits."""

_FORTRAN = bytes.maketrans(b",DdQq", b" eeee")
"""Separators and exponents of Fortran."""


def looks_like_3ddose(head: bytes) -> bool:
    """Whether a file begins with three whole numbers, and with numbers after them."""
    return re.match(rb"\s*\d{1,9}[\s,]+\d{1,9}[\s,]+\d{1,9}\s+[-+.\dEeDd\s]{3}", head) is not None


def read_3ddose(path: Path) -> FileContent:
    """Dose of DOSXYZnrc, egs_brachy, ompMC and kin, with its uncertainty.

    Parameters
    ----------
    path : Path
        Text: nx ny nz; the boundaries along x, y, z [cm]; the doses, x fastest; the relative standard
        uncertainties in the same order (they may be missing). Line breaks may stand anywhere.

    Returns
    -------
    FileContent
        Uncertainty = relative uncertainty x dose. The unit is "Gy", normalised as in the file: EGSnrc
        writes Gy per incident particle or per unit fluence, and the file does not say which.

    Raises
    ------
    DataFormatError
        Naming the line, for a word that is not a number and for a wrong number of values.

    Notes
    -----
    *Limits*: DOSXYZnrc by default writes 0 where the uncertainty is above 50 %, which the file does not
    tell. A voxel of zero dose gets zero uncertainty whatever its relative one. Fortran exponents
    (``1.0D-12``, ``1.0-101``) are understood. The frame of the boundaries is taken for LPS.
    """
    values, lines = _numbers(path)
    counts = _counts(path, values)
    n = int(np.prod(counts, dtype=object))
    first = 3 + sum(counts) + 3
    given = values.size - first
    if given not in (n, 2 * n):
        raise DataFormatError(
            f"{path.name} has {given} values after the boundaries, up to line {lines[-1][1]}, where "
            f"{counts[0]} x {counts[1]} x {counts[2]} voxels need {n} doses and as many uncertainties or "
            "none. It is truncated or damaged. Export or copy it again."
        )
    edges = []
    start = 3
    for axis, count in zip("xyz", counts, strict=True):
        edges.append(_edges(path, axis, values[start : start + count + 1], _line_of(lines, start)))
        start += count + 1
    grid = Grid(x_edges_mm=edges[0], y_edges_mm=edges[1], z_edges_mm=edges[2])
    dose = values[first : first + n].reshape(grid.shape)
    relative = values[first + n :].reshape(grid.shape) if given == 2 * n else None
    return FileContent(
        values=dose,
        grid=grid,
        uncertainty=None if relative is None else relative * dose,
        unit="Gy",
        source={"format": "EGSnrc 3ddose", "normalization": "as in the file (per particle or per fluence)"},
    )


def _counts(path: Path, values: NDArray[np.float64]) -> tuple[int, int, int]:
    """Number of voxels along x, y, z, held against the number of values before anything is made."""
    head = values[:3]
    if values.size < 3 or not np.all(np.isfinite(head)) or np.any(head < 1) or np.any(head != np.round(head)):
        raise DataFormatError(
            f"{path.name}: line 1 should hold three positive whole numbers of voxels, got {head.tolist()}. "
            "It is no 3ddose file or damaged."
        )
    nx, ny, nz = (int(v) for v in head)
    if nx * ny * nz > values.size:
        raise DataFormatError(
            f"{path.name} declares {nx} x {ny} x {nz} voxels, but holds {values.size} numbers in all. "
            "It is truncated or its first line is wrong. Export or copy it again."
        )
    return nx, ny, nz


def _edges(path: Path, axis: str, values_cm: NDArray[np.float64], line: int) -> NDArray[np.float64]:
    """Boundaries along one axis [mm]."""
    if not np.all(np.isfinite(values_cm)) or not np.all(np.diff(values_cm) > 0):
        raise DataFormatError(
            f"{path.name}: line {line}: the {axis} boundaries must be finite and ascending, got "
            f"{np.array2string(values_cm, threshold=6)} cm. Voxels need a positive width. Export it again."
        )
    return 10.0 * values_cm


def _numbers(path: Path) -> tuple[NDArray[np.float64], list[tuple[int, int]]]:
    """All numbers of the file, and for each line that has some: (numbers up to its end, line number)."""
    check_allocation(path, declared_bytes=10.0 * path.stat().st_size)
    parts: list[NDArray[np.float64]] = []
    lines: list[tuple[int, int]] = []
    total = 0
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            if not (part := _parsed(path, line, number)).size:
                continue
            parts.append(part)
            total += part.size
            lines.append((total, number))
    if not parts:
        raise DataFormatError(f"{path.name} holds no numbers. It is no 3ddose file or damaged.")
    return np.concatenate(parts), lines


def _parsed(path: Path, line: bytes, number: int) -> NDArray[np.float64]:
    """The numbers of one line."""
    words = line.translate(_FORTRAN).split()
    try:
        return np.array(words, dtype=np.float64)
    except ValueError:
        words = _LOST_E.sub(rb"\1e\2", b" ".join(words)).split()
    for i, word in enumerate(words):
        if not is_number(word):
            raise DataFormatError(
                f"{path.name}: line {number}: {word[:40].decode('ascii', 'replace')!r} is not a number (word "
                f"{i + 1} of the line). The file is damaged or of another format. Export or copy it again."
            )
    return np.array([float(word) for word in words])


def _line_of(lines: list[tuple[int, int]], index: int) -> int:
    """Line in which the number ``index`` stands."""
    return next(number for total, number in lines if index < total)
