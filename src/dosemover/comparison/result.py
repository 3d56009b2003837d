"""What a comparison returns: metric values with their floors, and maps to look at."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dosemover.dose import DoseMap
from dosemover.grid import Grid

SCHEMA = "dosemover.compare/1"
"""Name and version of the JSON that `ComparisonResult.to_json` writes."""

NO_FLOOR = "no floor: "
"""Before the reason why a metric has no noise floor, in its ``settings["significance"]``."""


@dataclass(frozen=True, kw_only=True, eq=False)
class MetricResult:
    """One number of a comparison, with everything needed to judge it.

    Parameters
    ----------
    key : str
        Name in tables and JSON, with its unit: "dmd_mm".
    value : float or None
        The metric; None where it cannot be computed, and ``status`` says why.
    unit : str
        "mm", "Gy", "%", "" and so on.
    lower, upper : float or None
        Certified bounds on the value, in its unit; None where a side is not certified.
    floor, floor_sd : float or None
        Mean and standard deviation of the metric between maps that differ by noise alone.
    z, p : float or None
        Significance of the value against noise alone.
    seconds : float
        Time that it took.
    settings : mapping
        Every setting as used, and what else explains the value.
    status : str
        "ok", or why the value is missing or weaker than it looks.
    """

    key: str
    value: float | None
    unit: str = ""
    lower: float | None = None
    upper: float | None = None
    floor: float | None = None
    floor_sd: float | None = None
    z: float | None = None
    p: float | None = None
    seconds: float = 0.0
    settings: Mapping[str, Any] = field(default_factory=dict)
    status: str = "ok"

    @property
    def p_is_smallest(self) -> bool:
        """Whether p is the least that the number of draws allows: the true one may be far smaller.

        Never without draws: a closed form has no smallest p.
        """
        draws = self.settings.get("null_draws")
        return bool(draws) and self.p is not None and self.p <= 1.0001 / (1 + draws)

    @property
    def missing_floor(self) -> str:
        """Why a value has no noise floor; empty where it has one or no reason is known."""
        return str(self.settings.get("significance", "")).partition(NO_FLOOR)[2]

    def to_dict(self) -> dict[str, Any]:
        """The fields of the JSON contract."""
        names = ("value", "unit", "lower", "upper", "floor", "floor_sd", "z", "p", "seconds", "settings")
        return {name: getattr(self, name) for name in names} | {"status": self.status}


@dataclass(frozen=True, kw_only=True, eq=False)
class FieldMap:
    """A per-voxel result, for pictures and for ``--save-maps``.

    Parameters
    ----------
    values : ndarray, shape [z, y, x] or [3, z, y, x]
        Scalars, or vectors with components (x, y, z); NaN where not evaluated.
    grid : Grid
    unit : str
    label : str
        What a colour bar calls it.
    """

    values: NDArray[Any]
    grid: Grid
    unit: str
    label: str


@dataclass(frozen=True, kw_only=True, eq=False)
class ComparisonResult:
    """Everything that `dosemover.compare` found out about two dose maps.

    Parameters
    ----------
    reference, evaluated : DoseMap
        The maps as compared: the evaluated one scaled, both on their own grids.
    metrics : mapping of str to MetricResult
        In the order of the tables.
    maps : mapping of str to FieldMap
        "gamma_3_3_global", "difference_gy", "z", "displacement_mm" (vectors), "change_percent",
        "dmd_index_mm", "dmd_residual_gy", "gain_loss_gy", "flow_mm" (vectors).
    structures : mapping
        Per structure name, per DVH quantity: {"reference": value, "evaluated": value}.
    dvh_curves : mapping
        Per structure name: {"dose_gy": edges, "reference": volume %, "evaluated": volume %}.
    regions : mapping
        Differences by region: the whole map, above the threshold, in the high dose, per structure.
    profiles : mapping
        "dmd_mm" and "kr_mm" over their scale, where asked for.
    settings, provenance : mapping
    warnings : tuple of str
        What the user must know before reading a number.
    """

    reference: DoseMap
    evaluated: DoseMap
    metrics: Mapping[str, MetricResult]
    maps: Mapping[str, FieldMap] = field(default_factory=dict)
    structures: Mapping[str, Mapping[str, Mapping[str, float | None]]] = field(default_factory=dict)
    dvh_curves: Mapping[str, Mapping[str, NDArray[Any]]] = field(default_factory=dict)
    regions: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    profiles: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    identifiers: bool = False

    def summary(self) -> dict[str, float | None]:
        """Every metric's value under its key: one row of a table."""
        return {key: metric.value for key, metric in self.metrics.items()}

    def to_dict(self) -> dict[str, Any]:
        """The JSON contract as Python objects."""
        return {
            "schema": SCHEMA,
            "reference": _describe(self.reference, identifiers=self.identifiers),
            "evaluated": _describe(self.evaluated, identifiers=self.identifiers),
            "settings": dict(self.settings),
            "provenance": dict(self.provenance),
            "warnings": list(self.warnings),
            "metrics": {key: metric.to_dict() for key, metric in self.metrics.items()},
            "regions": {name: dict(values) for name, values in self.regions.items()},
            "profiles": {key: dict(profile) for key, profile in self.profiles.items()},
            "structures": {name: dict(values) for name, values in self.structures.items()},
        }

    def to_json(self) -> str:
        """The JSON contract as text: plain JSON, with null for what is not a finite number."""
        return json.dumps(_plain(self.to_dict()), indent=2, allow_nan=False)

    def report(self, path: str | Path) -> Path:
        """Write the self-contained HTML report and return its path."""
        import importlib  # the report stands above this layer: found at run time, not imported

        return importlib.import_module("dosemover.report").write_report(self, path)


def _describe(dose: DoseMap, *, identifiers: bool) -> dict[str, Any]:
    """One map in the JSON: what it is and where it lies."""
    described: dict[str, Any] = {
        "file": dose.source.get("file", dose.name or None),
        "format": dose.source.get("format", "array"),
        "shape": list(dose.grid.shape),
        "spacing_mm": list(dose.grid.spacing_mm),
        "origin_mm": list(dose.grid.origin_mm),
        "max_gy": dose.max_gy,
        "integral_gy_mm3": dose.integral_gy_mm3,
    }
    return described | ({"identifiers": dict(dose.identifiers)} if identifiers else {})


def _plain(value: Any) -> Any:
    """JSON-ready copy: NumPy scalars and arrays unpacked, non-finite numbers as null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)
