"""TOPAS scorer results: CSV, and binary with its header beside it."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dosemover.errors import DataFormatError, InputError
from dosemover.grid import Grid
from dosemover.io.files import FileContent, check_allocation, existing_file
from dosemover.io.text import number_table

_LENGTH_MM = {"mm": 1.0, "cm": 10.0, "m": 1000.0, "um": 1e-3, "nm": 1e-6}
_BINS = re.compile(r"#\s*(\w+) in (\d+) bins?\s+of\s+(\S+)\s+(\w+)")
_QUANTITY = re.compile(r"#\s*(\w[^:(]*?)\s*(?:\(\s*([^)]*?)\s*\))?\s*:\s*(\w+(?:\s+\w+)*)\s*$")
_STATISTICS = frozenset(
    {"Sum", "Mean", "Histories_with_Scorer_Active", "Count_in_Bin"}
    | {"Second_Moment", "Variance", "Standard_Deviation", "Min", "Max"}
)
_GRAY = {"Gy": 1.0, "mGy": 1e-3, "cGy": 1e-2, "kGy": 1e3}


@dataclass(frozen=True, kw_only=True)
class _Header:
    """What the comment lines say."""

    shape_xyz: tuple[int, int, int]
    width_mm: tuple[float, float, float]
    quantity: str
    unit: str
    statistics: tuple[str, ...]

    @property
    def n_bins(self) -> int:
        """Number of bins."""
        return math.prod(self.shape_xyz)


def read_topas(path: Path) -> FileContent:
    """Box scorer of TOPAS, with the statistical uncertainty where its statistics allow one.

    Parameters
    ----------
    path : Path
        The CSV file, the ``.bin`` file or its ``.binheader``.

    Returns
    -------
    FileContent
        ``Sum`` where reported, else ``Mean`` (per history).

    Raises
    ------
    DataFormatError
        Naming the line, for what is not a number, and for bins that are missing or given twice.
    InputError
        For scorers that are no box (cylinders, spheres, energy or time bins) and single bins.

    Notes
    -----
    *Definition*: TOPAS accumulates moments per history over the N histories with the scorer active:
    ``Second_Moment`` is the sum of squared deviations M2, ``Variance`` = M2/(N-1) and
    ``Standard_Deviation`` its root, all per history. So the standard uncertainty of ``Mean`` is
    Standard_Deviation/sqrt(N) and that of ``Sum`` = N Mean is

        u(Sum) = sqrt(N) Standard_Deviation.

    N is ``Histories_with_Scorer_Active``, else Sum/Mean, else M2/Variance + 1; without any of them
    there is no uncertainty. *Limits*: the file tells neither position nor rotation of the scoring component;
    the centre of the box is put at 0, as in the component's own frame, and its axes are taken for
    x, y, z. *Matches* topas2numpy in tests/test_io_topas.py.

    References
    ----------
    J. Perl et al., TOPAS: an innovative proton Monte Carlo platform for research and clinical
    applications, Med. Phys. 39, 6818 (2012).
    """
    binary = path.suffix.lower() in (".bin", ".binheader")
    header_file = path.with_suffix(".binheader") if binary else path
    header = _header(header_file)
    columns = _binary(path.with_suffix(".bin"), header) if binary else _table(path, header)
    value, uncertainty = _value_and_uncertainty(path, header, columns)
    scale, unit = (_GRAY[header.unit], "Gy") if header.unit in _GRAY else (1.0, header.unit)
    if value == "Mean":
        unit += "/history"
    origin = tuple(-h * (n - 1) / 2 for n, h in zip(header.shape_xyz, header.width_mm, strict=True))
    return FileContent(
        values=scale * columns[value],
        grid=Grid.regular(shape=header.shape_xyz[::-1], spacing_mm=header.width_mm, origin_mm=origin),
        uncertainty=None if uncertainty is None else scale * uncertainty,
        unit=unit,
        source={
            "format": "TOPAS binary" if binary else "TOPAS CSV",
            "quantity": header.quantity,
            "statistic": value,
            "statistics": " ".join(header.statistics),
            "position": "not in the file: centre of the scorer at 0",
        },
    )


def _header(path: Path) -> _Header:
    """Bins, quantity and statistics out of the comment lines."""
    with existing_file(path).open("rb") as stream:
        lines = [line.decode("utf-8", "replace").strip() for line in stream.read(1 << 16).splitlines()]
    bins: dict[str, tuple[int, float]] = {}
    quantity: tuple[str, str, tuple[str, ...]] | None = None
    for number, line in enumerate(lines, start=1):
        if match := _BINS.match(line):
            bins[match.group(1)] = _bin(path, number, match)
        elif (match := _QUANTITY.match(line)) and set(match.group(3).split()) <= _STATISTICS:
            quantity = match.group(1), match.group(2) or "", tuple(match.group(3).split())
    if quantity is None:
        raise DataFormatError(
            f"{path.name}: no line tells the quantity and its statistics ('# DoseToMedium ( Gy ) : Sum'). "
            "It is no TOPAS scorer result or damaged."
        )
    if set(bins) != {"X", "Y", "Z"}:
        raise InputError(
            f"{path.name} is scored in bins of {', '.join(bins) or 'nothing'}. A dose map needs X, Y and Z "
            "bins (TOPAS leaves them out for a single bin). Score in a divided TsBox without energy or "
            "time bins."
        )
    return _Header(
        shape_xyz=(bins["X"][0], bins["Y"][0], bins["Z"][0]),
        width_mm=(bins["X"][1], bins["Y"][1], bins["Z"][1]),
        quantity=quantity[0],
        unit=quantity[1],
        statistics=quantity[2],
    )


def _bin(path: Path, number: int, match: re.Match[str]) -> tuple[int, float]:
    """Number and width [mm] of the bins along one axis."""
    axis, count, width, unit = match.groups()
    try:
        size = float(width) * _LENGTH_MM.get(unit, 1.0)
    except ValueError:
        size = math.nan
    if not (math.isfinite(size) and size > 0 and int(count) > 0):
        raise DataFormatError(
            f"{path.name}: line {number}: {axis} has {count} bins of {width} {unit}. Bins need a positive "
            "number and width. Correct the header."
        )
    if axis in ("X", "Y", "Z") and unit not in _LENGTH_MM:
        raise DataFormatError(
            f"{path.name}: line {number}: {axis} bins are given in {unit!r}. A length is needed. Correct "
            "the header."
        )
    return int(count), size


def _binary(path: Path, header: _Header) -> dict[str, NDArray[Any]]:
    """Columns of a binary file: doubles, statistics fastest, then x, y, z."""
    need = 8 * header.n_bins * len(header.statistics)
    size = existing_file(path).stat().st_size
    if size != need:
        raise DataFormatError(
            f"{path.name} has {size} bytes, where {header.shape_xyz} bins (x, y, z) with "
            f"{len(header.statistics)} statistics take {need}. It is truncated or the header belongs to "
            "another file. Copy both again."
        )
    check_allocation(path, declared_bytes=need)
    nx, ny, nz = header.shape_xyz
    data = np.fromfile(path, dtype="<f8").reshape(nz, ny, nx, len(header.statistics))
    return {name: data[..., i] for i, name in enumerate(header.statistics)}


def _table(path: Path, header: _Header) -> dict[str, NDArray[Any]]:
    """Columns of a CSV file: the bin along x, y, z and the statistics."""
    n = header.n_bins
    check_allocation(
        path, declared_bytes=8.0 * n * len(header.statistics), stored_bytes=8.0 * path.stat().st_size
    )
    rows = number_table(path, columns=3 + len(header.statistics))
    index = rows[:, :3]
    inside = np.all((index >= 0) & (index < header.shape_xyz) & (index == np.floor(index)), axis=1)
    if not np.all(inside):
        raise DataFormatError(
            f"{path.name}: bin {rows[np.argmin(inside), :3].tolist()} lies outside of {header.shape_xyz} "
            "(x, y, z). The header belongs to another table. Export it again."
        )
    nx, ny, nz = header.shape_xyz
    x, y, z = index.astype(np.int64).T
    flat = (z * ny + y) * nx + x
    given = np.bincount(flat, minlength=n)
    if np.any(given != 1):
        raise DataFormatError(
            f"{path.name} holds {np.count_nonzero(given)} of {n} bins, {np.count_nonzero(given > 1)} of them "
            "more than once. It is truncated, or sparsified by TOPAS. Export or copy it whole."
        )
    result = {}
    for i, name in enumerate(header.statistics):
        column = np.empty(n)
        column[flat] = rows[:, 3 + i]
        result[name] = column.reshape(nz, ny, nx)
    return result


def _value_and_uncertainty(
    path: Path, header: _Header, columns: dict[str, NDArray[Any]]
) -> tuple[str, NDArray[Any] | None]:
    """Statistic to take for the dose, and its standard uncertainty where the others give it."""
    value = "Sum" if "Sum" in columns else "Mean"
    if value not in columns:
        raise InputError(
            f"{path.name} reports {' '.join(header.statistics)} of {header.quantity}, neither Sum nor Mean. "
            "Report one of them in TOPAS."
        )
    if "Standard_Deviation" in columns:
        deviation = columns["Standard_Deviation"]
    elif "Variance" in columns:
        deviation = np.sqrt(columns["Variance"])
    else:
        return value, None
    histories = _histories(columns)
    if histories is None:
        return value, None
    return value, deviation * np.sqrt(histories) if value == "Sum" else deviation / np.sqrt(histories)


def _histories(columns: dict[str, NDArray[Any]]) -> float | None:
    """Number of histories with the scorer active, as reported or as the other statistics imply."""
    if "Histories_with_Scorer_Active" in columns:
        histories = float(columns["Histories_with_Scorer_Active"].max())
        return histories if histories > 0 else None
    for above, below, more in (("Sum", "Mean", 0.0), ("Second_Moment", "Variance", 1.0)):
        if above in columns and below in columns:
            k = np.unravel_index(np.argmax(columns[below]), columns[below].shape)
            if columns[below][k] > 0:
                return float(np.round(columns[above][k] / columns[below][k])) + more
    return None
