"""Numbers in text files, with the line named where one is broken."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dosemover.errors import DataFormatError
from dosemover.io.files import check_allocation


def number_table(
    file: Path, *, columns: int, skip_lines: int = 0, trailing_comma: bool = False
) -> NDArray[np.float64]:
    """Comma-separated numbers, without empty lines and lines that begin with ``#``.

    Parameters
    ----------
    file : Path
    columns : int
        Numbers that each line holds.
    skip_lines : int
        Lines at the beginning to pass over.
    trailing_comma : bool
        Whether lines may end in a comma.

    Returns
    -------
    ndarray, shape [row, columns]

    Raises
    ------
    DataFormatError
        Naming the first line that does not hold ``columns`` numbers.
    """
    check_allocation(file, declared_bytes=8.0 * file.stat().st_size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of a table without rows, which is no error here
        try:
            table = np.loadtxt(
                file,
                delimiter=",",
                comments="#",
                skiprows=skip_lines,
                usecols=range(columns) if trailing_comma else None,
                ndmin=2,
                encoding="latin-1",
            )
        except (ValueError, IndexError):
            table = None
    if table is not None and (table.size == 0 or table.shape[1] == columns):
        return table.reshape(-1, columns)
    raise _broken_line(file, columns, skip_lines, trailing_comma)


def _broken_line(file: Path, columns: int, skip_lines: int, trailing_comma: bool) -> DataFormatError:
    """The first line that does not hold ``columns`` numbers, as an error."""
    where = f"{file.name}: the table"
    text = ""
    with file.open("r", encoding="latin-1") as stream:
        for number, line in enumerate(stream, start=1):
            text = line.strip()
            if number <= skip_lines or not text or text.startswith("#"):
                continue
            words = (text.rstrip(",") if trailing_comma else text).split(",")
            if len(words) != columns or not all(is_number(word) for word in words):
                where = f"{file.name}: line {number}: {text[:60]!r}"
                break
    return DataFormatError(
        f"{where} is not {columns} number{'s separated by commas' if columns > 1 else ''}. "
        "The file is damaged or of another format. Export or copy it again."
    )


def is_number(word: str | bytes) -> bool:
    """Whether a word reads as a number."""
    try:
        float(word)
    except ValueError:
        return False
    return True
