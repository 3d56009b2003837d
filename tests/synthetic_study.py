"""A table of measurements whose law is known, in the columns of a real study."""

from __future__ import annotations

from typing import Any

import numpy as np

from dosemover.study.table import in_order, table_of

LEVELS = (20.0, 10.0, 5.0, 2.0, 1.0)
HISTORIES_AT_1 = 1_000_000
REPLICATES = 20
CHANGES = (("none", 0.0, ""), ("shift", 0.2, "mm"), ("shift", 1.0, "mm"), ("output", 1.0, "%"))

METRICS: dict[str, tuple[str, dict[str, float]]] = {
    "dmd_mm": ("mm", {"shift": 1.0, "output": 1.0}),
    "w2_mm": ("mm", {"shift": 1.0, "output": 0.0}),
    "rmse_gy": ("Gy", {"shift": 0.05, "output": 0.02}),
    "mass_ratio": ("", {"shift": 0.0, "output": 0.01}),
    "gamma_3_3_global_passing_rate_percent": ("%", {"shift": 0.0, "output": 0.0}),
}
"""Unit, and response per unit of magnitude, of each metric."""


def value_of(metric: str, change: str, magnitude: float, noise: float, normal: float) -> float:
    """sqrt(signal^2 + floor^2) + scatter, the floor proportional to the noise; passing rates fall with it."""
    slope = METRICS[metric][1].get(change, 0.0) * magnitude
    if metric == "mass_ratio":
        return 1.0 + slope + 2e-4 * noise * normal
    if metric.endswith("percent"):
        return min(100.0, 100.0 - 0.8 * noise + 0.1 * noise * normal)
    floor = 0.02 * noise
    return float(np.hypot(slope, floor) + 0.15 * floor * normal)


def synthetic_rows(
    *, case: str = "water", replicates: int = REPLICATES, seed: int = 7
) -> list[dict[str, Any]]:
    """Rows of one case with every level, change and metric."""
    rng = np.random.default_rng(seed)
    rows = []
    for change, magnitude, unit in CHANGES:
        for level in LEVELS:
            for noise_in in ("both",) if change == "shift" else ("both", "reference", "evaluated"):
                for replicate in range(replicates):
                    for metric, (metric_unit, _) in METRICS.items():
                        value = value_of(metric, change, magnitude, level, rng.normal())
                        bounded = metric == "dmd_mm"
                        rows.append(
                            {
                                "study": "synthetic",
                                "case": case,
                                "engine": "analytic",
                                "change": change,
                                "magnitude": magnitude,
                                "magnitude_unit": unit,
                                "noise_percent": level,
                                "achieved_noise_percent": 1.02 * level,
                                "histories": round(HISTORIES_AT_1 / level**2),
                                "noise_in": noise_in,
                                "replicate": replicate,
                                "metric": metric,
                                "unit": metric_unit,
                                "value": value,
                                "lower": 0.98 * value if bounded else None,
                                "upper": 1.02 * value if bounded else None,
                                "status": "ok",
                            }
                        )
    return rows


def synthetic_measurements(**settings: Any) -> Any:
    """The rows as the table that `read_measurements` returns."""
    return in_order(table_of(synthetic_rows(**settings)))
