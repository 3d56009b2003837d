"""Optimal transport between dose maps: distances in mm, with certified intervals where they exist."""

from __future__ import annotations

from dosemover._runtime import lazy_exports

_MODULES = {
    "axis": ("axis_w1", "axis_w2"),
    "dose_mover": ("dose_movers_distance",),
    "exact": ("emd", "emd_points"),
    "kantorovich": (
        "flat_norm",
        "flat_norm_gradient",
        "wasserstein_1",
        "wasserstein_1_gradient",
    ),
    "kantorovich_profile": ("flat_norm_profile",),
    "measure": ("MeasurePair", "measure_pair"),
    "mover_floor": ("dose_mover_floor",),
    "mover_gradient": ("dose_mover_gradient",),
    "mover_gram": ("dose_mover_gram",),
    "mover_profile": ("dose_mover_profile",),
    "result": ("TransportResult",),
    "sinkhorn": ("sinkhorn_divergence", "sinkhorn_gradient"),
    "sliced": ("sliced_w1", "sliced_w2"),
    "sobolev": ("sobolev_w2",),
    "wasserstein": ("wasserstein_2", "wasserstein_2_gradient"),
}
"""Module of this package and the public names that it offers; kernels load slowly, so at first use."""

__getattr__, __dir__, __all__ = lazy_exports(__name__, _MODULES)
