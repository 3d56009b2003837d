"""Optimal transport between dose maps: distances in mm, with certified intervals where they exist."""

from __future__ import annotations

import importlib
from typing import Any

_EXPORTS = {
    "MeasurePair": "dosemover.transport.measure",
    "TransportResult": "dosemover.transport.result",
    "axis_w1": "dosemover.transport.axis",
    "axis_w2": "dosemover.transport.axis",
    "dose_mover_floor": "dosemover.transport.mover_floor",
    "dose_mover_gradient": "dosemover.transport.mover_gradient",
    "dose_mover_profile": "dosemover.transport.mover_profile",
    "dose_movers_distance": "dosemover.transport.dose_mover",
    "emd": "dosemover.transport.exact",
    "emd_points": "dosemover.transport.exact",
    "flat_norm": "dosemover.transport.kantorovich",
    "flat_norm_gradient": "dosemover.transport.kantorovich",
    "flat_norm_profile": "dosemover.transport.kantorovich",
    "measure_pair": "dosemover.transport.measure",
    "sinkhorn_divergence": "dosemover.transport.sinkhorn",
    "sinkhorn_gradient": "dosemover.transport.sinkhorn",
    "sliced_w1": "dosemover.transport.sliced",
    "sliced_w2": "dosemover.transport.sliced",
    "sobolev_w2": "dosemover.transport.sobolev",
    "wasserstein_1": "dosemover.transport.kantorovich",
    "wasserstein_1_gradient": "dosemover.transport.kantorovich",
    "wasserstein_2": "dosemover.transport.wasserstein",
    "wasserstein_2_gradient": "dosemover.transport.wasserstein",
}
"""Public names and the module that each is imported from, at first use: kernels load slowly."""

__all__ = [*_EXPORTS]  # noqa: PLE0604 - the keys are strings


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'dosemover.transport' has no attribute {name!r}")
    value = getattr(importlib.import_module(_EXPORTS[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
