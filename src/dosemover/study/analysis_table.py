"""The measurements of a study, grouped into cells of replicates, and what each metric's values mean."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dosemover.comparison.families import FAMILIES
from dosemover.comparison.settings import CompareSettings
from dosemover.errors import DataFormatError
from dosemover.noise.significance import Direction
from dosemover.study.table import NO_CHANGE

COLUMNS = (
    "case",
    "engine",
    "change",
    "magnitude",
    "magnitude_unit",
    "noise_percent",
    "achieved_noise_percent",
    "histories",
    "noise_in",
    "replicate",
    "metric",
    "value",
)
"""Columns of the long table that the analysis reads."""

_KEYS = ("case", "change", "magnitude", "noise_percent", "noise_in", "metric")
_TEXTS = ("case", "engine", "change", "magnitude_unit", "noise_in", "metric")
_GAMMA = re.compile(r"gamma_(\d+(?:p\d+)?)_(\d+(?:p\d+)?)_(?:global|local)_")


@dataclass(frozen=True, kw_only=True)
class Trait:
    """What the values of a metric mean.

    Parameters
    ----------
    direction : {"larger", "smaller", "both"}
        Which values speak of a difference.
    unit : str
    ideal : float
        Value between equal maps.
    """

    direction: Direction
    unit: str
    ideal: float


@lru_cache(maxsize=512)
def trait(metric: str) -> Trait:
    """Direction, unit and ideal value of a metric, from the registry of `compare`.

    Examples
    --------
    >>> trait("gamma_1p5_2_local_passing_rate_percent")
    Trait(direction='smaller', unit='%', ideal=100.0)
    """
    match = _GAMMA.match(metric)
    criteria = tuple(float(part.replace("p", ".")) for part in match.groups()) if match else (3.0, 3.0)
    settings = CompareSettings(
        metrics=("all",), gamma=((criteria[0], criteria[1]),), normalization="both" if match else "global"
    )
    for family in FAMILIES:
        units = family.keys(settings)
        if metric in units:
            direction = family.direction(metric)
            return Trait(direction=direction, unit=units[metric], ideal=_ideal(metric, direction))
    return Trait(direction="larger", unit="", ideal=0.0)


def _ideal(metric: str, direction: Direction) -> float:
    """Value of a metric between equal maps."""
    if metric == "mass_ratio":
        return 1.0
    if metric.endswith("_db"):
        return np.inf
    if direction == "smaller":
        return 100.0 if metric.endswith("percent") else 1.0
    return 0.0


def excess(metric: str, values: NDArray[Any]) -> NDArray[np.float64]:
    """How far values lie from the metric's ideal, so that larger always means more different.

    Decibels have no finite ideal; for them it is the amplitude 10^(-value / 20).
    """
    ideal = trait(metric).ideal
    values = np.asarray(values, dtype=np.float64)
    if np.isinf(ideal):
        return 10.0 ** (-values / 20.0)
    return np.abs(values - ideal)


def scores(metric: str, null: NDArray[Any], changed: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Values turned so that larger ones speak of a difference.

    Of metrics that may err on both sides it is the distance from the mean of the null values, each null
    value measured against the mean of the others, as a changed one is.
    """
    null, changed = np.asarray(null, dtype=np.float64), np.asarray(changed, dtype=np.float64)
    direction = trait(metric).direction
    if direction == "smaller":
        return -null, -changed
    if direction == "larger":
        return null, changed
    n = null.shape[-1]
    mean = null.mean(axis=-1, keepdims=True)
    return np.abs(null - mean) * (n / max(n - 1, 1)), np.abs(changed - mean)


@dataclass(frozen=True, kw_only=True, eq=False)
class Cell:
    """Replicates of one metric under one condition.

    Parameters
    ----------
    case, engine, change, magnitude_unit, noise_in, metric : str
    magnitude : float
        Size of the change, in ``magnitude_unit``.
    noise_percent, achieved_noise_percent : float
        Nominal and measured noise of one map in its high-dose region [%].
    histories : float
        Histories of one noisy map.
    values : array, shape (n,)
        Finite values in the order of the replicates.
    missing : int
        Replicates without a value.
    """

    case: str
    engine: str
    change: str
    magnitude: float
    magnitude_unit: str
    noise_percent: float
    achieved_noise_percent: float
    histories: float
    noise_in: str
    metric: str
    values: NDArray[np.float64]
    missing: int

    @property
    def mean(self) -> float:
        """Mean over the replicates."""
        return float(self.values.mean()) if self.values.size else float("nan")

    @property
    def sd(self) -> float:
        """Standard deviation over the replicates."""
        return float(self.values.std(ddof=1)) if self.values.size > 1 else float("nan")

    @property
    def standard_error(self) -> float:
        """Standard error of the mean."""
        return self.sd / np.sqrt(self.values.size) if self.values.size > 1 else float("nan")


class StudyTable:
    """All cells of a study.

    Parameters
    ----------
    columns : mapping of str to sequence
        The columns `COLUMNS` of the long table; a pyarrow Table will do.

    Raises
    ------
    DataFormatError
        When a column is missing or the table is empty.
    """

    def __init__(self, columns: Any) -> None:
        self.cells: list[Cell] = list(_grouped(columns))
        self._index = {
            (c.case, c.change, c.magnitude, c.noise_percent, c.noise_in, c.metric): c for c in self.cells
        }

    def select(self, **conditions: Any) -> list[Cell]:
        """Cells whose attributes equal the conditions (a collection: are among them)."""
        found: Iterable[Cell] = self.cells
        if isinstance(conditions.get("metric"), str):
            found = self._by_metric.get(conditions.pop("metric"), [])
        for name, wanted in conditions.items():
            allowed = wanted if isinstance(wanted, (set, frozenset, tuple, list)) else (wanted,)
            found = [cell for cell in found if getattr(cell, name) in allowed]
        return list(found)

    def null_of(self, cell: Cell) -> Cell | None:
        """The cell of noise alone that belongs to a cell."""
        return self._nulls.get((cell.case, cell.noise_percent, cell.noise_in, cell.metric))

    def noiseless(self, cell: Cell) -> Cell | None:
        """The cell of the same change at the least noise that the study has, noise in both maps first."""
        same = self._by_change.get((cell.case, cell.change, cell.magnitude, cell.metric), [])
        kept = [c for c in same if c.values.size]
        order = {"both": 0}
        return min(kept, key=lambda c: (c.noise_percent, order.get(c.noise_in, 1)), default=None)

    @cached_property
    def _by_metric(self) -> dict[str, list[Cell]]:
        return _collected((c.metric, c) for c in self.cells)

    @cached_property
    def _by_change(self) -> dict[tuple[str, str, float, str], list[Cell]]:
        return _collected(((c.case, c.change, c.magnitude, c.metric), c) for c in self.cells)

    @cached_property
    def _nulls(self) -> dict[tuple[str, float, str, str], Cell]:
        nulls = (c for c in self.cells if c.change == NO_CHANGE)
        return {(c.case, c.noise_percent, c.noise_in, c.metric): c for c in nulls}

    def _values_of(self, name: str) -> list[Any]:
        return sorted({getattr(cell, name) for cell in self.cells})

    @cached_property
    def cases(self) -> list[str]:
        """Names of the cases."""
        return self._values_of("case")

    @cached_property
    def changes(self) -> list[str]:
        """Names of the changes, without that of no change."""
        return [name for name in self._values_of("change") if name != NO_CHANGE]

    @cached_property
    def metrics(self) -> list[str]:
        """Names of the metrics."""
        return self._values_of("metric")

    @cached_property
    def noise_levels(self) -> list[float]:
        """Nominal noise levels [%], without that of no noise."""
        return [level for level in self._values_of("noise_percent") if level > 0]

    @cached_property
    def replicates(self) -> int:
        """Most replicates that a cell has."""
        return max((cell.values.size + cell.missing for cell in self.cells), default=0)

    @cached_property
    def measurements(self) -> int:
        """Number of values."""
        return sum(cell.values.size for cell in self.cells)


def _collected(pairs: Iterable[tuple[Any, Cell]]) -> dict[Any, list[Cell]]:
    """Cells by a key."""
    found: dict[Any, list[Cell]] = {}
    for key, cell in pairs:
        found.setdefault(key, []).append(cell)
    return found


def _column(columns: Any, name: str) -> NDArray[Any]:
    """A column as a NumPy array; texts stay texts, numbers become doubles."""
    names = getattr(columns, "column_names", None) or list(columns)
    if name not in names:
        raise DataFormatError(
            f"the table of measurements has no column {name!r}, only {', '.join(names)}. It cannot be "
            "analyzed. Pass a table that `dosemover study run` wrote."
        )
    column = columns[name]
    if hasattr(column, "combine_chunks"):
        column = column.combine_chunks()
    if hasattr(column, "dictionary"):
        return np.asarray(column.dictionary.to_pylist())[column.indices.to_numpy(zero_copy_only=False)]
    values = column.to_numpy(zero_copy_only=False) if hasattr(column, "to_pylist") else np.asarray(column)
    return values if values.dtype.kind in "OU" else values.astype(np.float64)


def _rounded(values: NDArray[Any]) -> NDArray[np.float64]:
    """Settings as they were written in the study: single precision keeps six digits of them."""
    return np.array([float(f"{value:.6g}") for value in np.unique(values)])[
        np.unique(values, return_inverse=True)[1]
    ]


def _grouped(columns: Any) -> Iterator[Cell]:
    """Cells of a long table, in the order of their keys."""
    table = {name: _column(columns, name) for name in COLUMNS}
    size = len(table["value"])
    if not size:
        raise DataFormatError(
            "the table of measurements is empty. There is nothing to analyze. Run the study."
        )
    table |= {name: _rounded(table[name]) for name in ("magnitude", "noise_percent")}
    codes = [np.unique(table[name], return_inverse=True)[1] for name in _KEYS]
    order = np.lexsort([table["replicate"], *codes[::-1]])
    differs = np.any([code[order][1:] != code[order][:-1] for code in codes], axis=0)
    starts = np.flatnonzero(np.concatenate([[True], differs]))
    sorted_ = {name: values[order] for name, values in table.items()}
    for start, stop in zip(starts, [*starts[1:], size], strict=True):
        rows = slice(int(start), int(stop))
        values = sorted_["value"][rows]
        finite = np.isfinite(values)
        yield Cell(
            **{name: str(sorted_[name][start]) for name in _TEXTS},
            magnitude=float(sorted_["magnitude"][start]),
            noise_percent=float(sorted_["noise_percent"][start]),
            achieved_noise_percent=float(sorted_["achieved_noise_percent"][rows].mean()),
            histories=float(sorted_["histories"][rows].mean()),
            values=values[finite],
            missing=int((~finite).sum()),
        )
