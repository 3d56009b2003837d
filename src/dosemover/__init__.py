"""Compare radiotherapy dose maps: how far the dose moved, in mm, and by how much, in %, it changed."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from dosemover.comparison import ComparisonResult as ComparisonResult
    from dosemover.comparison import MetricResult as MetricResult
    from dosemover.comparison import compare as compare
    from dosemover.dose import DoseMap as DoseMap
    from dosemover.dose import Structure as Structure
    from dosemover.errors import DosemoverError as DosemoverError
    from dosemover.grid import Grid as Grid
    from dosemover.io import read_dose as read_dose
    from dosemover.io import read_structures as read_structures
    from dosemover.io import write_dose as write_dose
    from dosemover.metrics import gamma_index as gamma_index

_EXPORTS = {
    "ComparisonResult": "dosemover.comparison",
    "DoseMap": "dosemover.dose",
    "DosemoverError": "dosemover.errors",
    "Grid": "dosemover.grid",
    "MetricResult": "dosemover.comparison",
    "Structure": "dosemover.dose",
    "compare": "dosemover.comparison",
    "gamma_index": "dosemover.metrics",
    "read_dose": "dosemover.io",
    "read_structures": "dosemover.io",
    "write_dose": "dosemover.io",
}
"""Public names and the module that each is imported from, at first use."""

__all__ = list(_EXPORTS)


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'dosemover' has no attribute {name!r}")
    value = getattr(importlib.import_module(_EXPORTS[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
