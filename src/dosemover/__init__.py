"""Compare radiotherapy dose maps: how far the dose moved, in mm, and by how much, in %, it changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dosemover._runtime import lazy_exports

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

_MODULES = {
    "comparison": ("ComparisonResult", "MetricResult", "compare"),
    "dose": ("DoseMap", "Structure"),
    "errors": ("DosemoverError",),
    "grid": ("Grid",),
    "io": ("read_dose", "read_structures", "write_dose"),
    "metrics": ("best_shift", "dose_volume_histogram", "gamma_index", "isodose_agreement"),
    "moments": ("MomentTally", "moment_levels", "moment_sos", "w2_bounds"),
    "montecarlo": ("SimulationConfig", "SimulationResult", "read_config", "simulate"),
    "transport": (
        "dose_mover_profile",
        "dose_movers_distance",
        "flat_norm",
        "sinkhorn_divergence",
        "sliced_w1",
        "sliced_w2",
        "sobolev_w2",
        "wasserstein_1",
        "wasserstein_2",
    ),
}
"""Module of this package and the public names that it offers, imported at first use."""

__getattr__, __dir__, __all__ = lazy_exports(__name__, _MODULES)
