"""Tables of a study: their columns, reading and writing."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dosemover._files import atomic_write
from dosemover._runtime import optional_import
from dosemover.errors import DataFormatError, InputError

if TYPE_CHECKING:
    import pyarrow as pa

MEASUREMENTS = "measurements.parquet"
COSTS = "costs.parquet"
PROVENANCE = "provenance.json"
PARTS, BANKS = "parts", "banks"
"""Folders of a running study."""

NO_CHANGE = "none"
"""Name of the change of null rows: two independent simulations of the same beam."""

NOISE_IN = ("reference", "evaluated", "both")

MEASUREMENT_COLUMNS: dict[str, tuple[str, str]] = {
    "study": ("text", "name of the study"),
    "case": ("text", "name of the case: phantom, beam and engine"),
    "engine": ("text", "builtin, ompmc or analytic"),
    "change": ("text", "what differs in the evaluated map; 'none' in null rows"),
    "magnitude": ("float32", "how much of it; 0 in null rows"),
    "magnitude_unit": ("text", "unit of the magnitude: mm, % or empty"),
    "noise_percent": ("float32", "nominal relative uncertainty in the high-dose region [%]"),
    "achieved_noise_percent": ("float32", "the same as found from the batches, over all replicates [%]"),
    "histories": ("int64", "histories of one noisy map"),
    "noise_in": ("text", "which maps are noisy: reference, evaluated or both"),
    "replicate": ("int16", "number of the replicate, from 0"),
    "metric": ("text", "metric key, as in a comparison"),
    "unit": ("text", "unit of the value"),
    "value": ("float32", "value; null where there is none, see status"),
    "lower": ("float32", "certified lower bound, null where absent"),
    "upper": ("float32", "certified upper bound, null where absent"),
    "status": ("text", "ok, or what the value suffers from"),
}
"""Type and meaning of the columns of measurements.parquet: one row per comparison and metric."""

COST_COLUMNS: dict[str, tuple[str, str]] = {
    "case": ("text", "name of the case"),
    "metric": ("text", "metric key"),
    "seconds_median": ("float32", "median processor time of the metric's family [s]"),
    "count": ("int32", "comparisons"),
}
"""Type and meaning of the columns of costs.parquet."""

SORTED_BY = (
    "metric", "case", "change", "magnitude", "noise_percent", "noise_in", "replicate",
)  # fmt: skip
"""Order of the rows of measurements.parquet."""


def schema(columns: Mapping[str, tuple[str, str]]) -> pa.Schema:
    """Arrow schema of a table; texts are dictionary-encoded, meanings stand in the field's metadata."""
    pa = optional_import("pyarrow", extra="study")
    types = {
        "text": pa.dictionary(pa.int16(), pa.string()),
        "float32": pa.float32(),
        "int16": pa.int16(),
        "int32": pa.int32(),
        "int64": pa.int64(),
    }
    return pa.schema(
        [
            pa.field(name, types[kind], metadata={"meaning": meaning})
            for name, (kind, meaning) in columns.items()
        ]
    )


def table_of(
    rows: Sequence[Mapping[str, Any]], columns: Mapping[str, tuple[str, str]] = MEASUREMENT_COLUMNS
) -> pa.Table:
    """Arrow table of rows.

    Parameters
    ----------
    rows : sequence of mapping
        One value per column; None is null.
    columns : mapping
        `MEASUREMENT_COLUMNS` or `COST_COLUMNS`.
    """
    pa = optional_import("pyarrow", extra="study")
    target = schema(columns)
    arrays = [pa.array([row[name] for row in rows], type=target.field(name).type) for name in columns]
    return pa.Table.from_arrays(arrays, schema=target)


def write_table(table: pa.Table, path: Path) -> None:
    """Write a Parquet file whole or not at all: zstd, texts by dictionary, floats split by byte."""
    optional_import("pyarrow", extra="study")
    import pyarrow as pa
    import pyarrow.parquet as pq

    texts: Any = [f.name for f in table.schema if pa.types.is_dictionary(f.type)]
    split: Any = [name for name in ("value", "lower", "upper") if name in table.column_names]
    constant: Any = [n for n in table.column_names if n not in texts and n not in split]
    with atomic_write(path) as temporary:
        pq.write_table(
            table,
            temporary,
            compression="zstd",
            compression_level=19,
            use_dictionary=texts + constant,
            use_byte_stream_split=split,
            write_statistics=False,
        )


def concatenated(tables: Sequence[pa.Table]) -> pa.Table:
    """Tables of one schema, one after the other, with one dictionary for each text column."""
    import pyarrow as pa

    return pa.concat_tables(tables).unify_dictionaries().combine_chunks()


def in_order(table: pa.Table) -> pa.Table:
    """The rows of measurements sorted by `SORTED_BY`: the same table however it was put together."""
    import pyarrow as pa

    plain = pa.table(
        {
            name: column.cast(pa.string()) if pa.types.is_dictionary(column.type) else column
            for name, column in zip(table.column_names, table.columns, strict=True)
        }
    ).sort_by([(name, "ascending") for name in SORTED_BY])
    return plain.combine_chunks().cast(table.schema)


def part_files(directory: Path) -> list[Path]:
    """The measured parts of a store by name, without what a killed writer left half written (``.*``)."""
    return sorted(f for f in (directory / PARTS).glob("*.parquet") if not f.name.startswith("."))


def read_measurements(path: str | os.PathLike[str]) -> pa.Table:
    """Measurements of a study, columns as in `MEASUREMENT_COLUMNS`, rows sorted by `SORTED_BY`.

    Parameters
    ----------
    path : path
        A Parquet file, or the directory of a study; of one that is still running or was stopped, what has
        been measured so far.

    Raises
    ------
    InputError
        When there are none.
    DataFormatError
        When a file is no such table.
    MissingDependencyError
        When pyarrow is not installed.
    """
    optional_import("pyarrow", extra="study")
    source = Path(path)
    if source.is_dir():
        whole = source / MEASUREMENTS
        files = [whole] if whole.exists() else part_files(source)
    else:
        files = [source] if source.exists() else []
    if not files:
        raise InputError(
            f"{source} holds no measurements of a study. Nothing can be analyzed. "
            "Run: dosemover study run STUDY.toml -o DIR"
        )
    tables = [_read(file, MEASUREMENT_COLUMNS) for file in files]
    return tables[0] if len(tables) == 1 and files[0].name == MEASUREMENTS else in_order(concatenated(tables))


def read_costs(path: str | os.PathLike[str]) -> pa.Table:
    """Cost of each metric by case, columns as in `COST_COLUMNS`; `path` as for `read_measurements`."""
    optional_import("pyarrow", extra="study")
    source = Path(path)
    file = source / COSTS if source.is_dir() else source
    if not file.exists():
        raise InputError(f"{source} holds no table of costs. It is written when a study is complete.")
    return _read(file, COST_COLUMNS)


def read_provenance(path: str | os.PathLike[str]) -> dict[str, Any]:
    """How a study came about: version, seed, machine, times, noise levels reached, what is missing."""
    source = Path(path)
    file = source / PROVENANCE if source.is_dir() else source
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{file} cannot be read: {error}. It is written beside the table.") from error


def _read(file: Path, columns: Mapping[str, tuple[str, str]]) -> pa.Table:
    """One Parquet file with the columns of a schema."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    target = schema(columns)
    try:
        table = pq.ParquetFile(file).read()
        plain = {
            name: table[name].cast(pa.string()) if pa.types.is_dictionary(target.field(name).type)
            else table[name]
            for name in columns
        }  # fmt: skip
        return pa.table(plain).cast(target).unify_dictionaries().combine_chunks()
    except (OSError, KeyError, pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DataFormatError(
            f"{file.name} is no table of a study: {' '.join(str(error).split())}. "
            f"Its columns would be {', '.join(columns)}."
        ) from error
