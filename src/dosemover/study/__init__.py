"""Studies: simulated changes under noise, measured by every metric, and what can be learned from them."""

from dosemover._runtime import lazy_exports

_MODULES = {
    "design": ("Case", "Change", "Study", "read_study"),
    "report": ("write_report",),
    "runner": ("collect_study", "run_study", "study_progress"),
    "table": ("read_costs", "read_measurements", "read_provenance"),
}
"""Module of this package and the public names that it offers."""

__getattr__, __dir__, __all__ = lazy_exports(__name__, _MODULES)
