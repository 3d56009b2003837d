"""Simulated dose maps: phantoms, sources, the built-in photon engine and adapters, imported at first use."""

from __future__ import annotations

from dosemover._runtime import lazy_exports

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
    "protons": ("ProtonField",),
    "records": ("records_table",),
    "result": ("SimulationResult", "Tallies"),
    "settings": ("SimulationConfig", "VarianceReduction"),
    "simulation": ("load_state", "merge", "save_state", "simulate", "write_result"),
    "sources": ("Beam", "PhaseSpaceSource", "PointSource"),
    "spectra": ("Spectrum", "read_spectrum"),
}
"""Module of this package and the public names that it offers."""

__getattr__, __dir__, __all__ = lazy_exports(__name__, _MODULES)
