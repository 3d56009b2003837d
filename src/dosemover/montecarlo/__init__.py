"""Simulated dose maps: phantoms, sources, the built-in photon engine and adapters, imported at first use."""

from __future__ import annotations

import importlib
from typing import Any

_MODULES = {
    "config": ("config_from", "importance_along", "read_config", "read_image"),
    "materials": ("Material", "PhotonTables", "elements", "material_library", "photon_tables"),
    "phase_space": ("read_phase_space", "sample_phase_space", "write_phase_space"),
    "phantoms": (
        "HounsfieldTable",
        "Phantom",
        "Shape",
        "cylinder",
        "from_ct",
        "from_density",
        "head",
        "slabs",
        "thorax",
        "uniform",
        "water_tank",
    ),
    "photon_engine": ("DepositConsumer",),
    "records": ("records_table",),
    "result": ("SimulationResult", "Tallies"),
    "settings": ("SimulationConfig", "VarianceReduction"),
    "simulation": ("load_state", "merge", "save_state", "simulate", "write_result"),
    "sources": ("Beam", "PhaseSpaceSource", "PointSource"),
    "spectra": ("Spectrum", "read_spectrum"),
}
"""Module of this package and the public names that it offers."""

_EXPORTS = {name: module for module, names in _MODULES.items() for name in names}

__all__ = sorted(_EXPORTS)  # noqa: PLE0605 - names are imported at first use


def __getattr__(name: str) -> Any:
    """Import a public name at its first use."""
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_EXPORTS[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Public names, imported or not."""
    return sorted({*globals(), *__all__})
