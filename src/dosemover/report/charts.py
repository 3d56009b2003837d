"""Data of the charts of the page: DVH, z histogram, profiles over scales, lines for 1-D maps."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from dosemover.comparison.result import ComparisonResult

MAX_POINTS = 400
"""Points of one curve on the page."""

Z_EDGES = np.linspace(-6.0, 6.0, 61)
"""Bins of the histogram of difference over uncertainty."""

NORMAL_BEYOND_3 = 0.0026998
"""Share of a normal distribution beyond three standard deviations."""


def _numbers(values: ArrayLike, digits: int = 5) -> list[float | None]:
    """Plain numbers of ``digits`` significant digits; null where not finite."""
    return [float(f"{v:.{digits}g}") if math.isfinite(v) else None for v in np.asarray(values, dtype=float)]


def _thin(*curves: ArrayLike) -> list[np.ndarray]:
    """The same at most `MAX_POINTS` points of several curves, the last included."""
    arrays = [np.asarray(c, dtype=float) for c in curves]
    n = min(a.size for a in arrays)
    keep = np.unique(np.linspace(0, n - 1, min(n, MAX_POINTS)).astype(int))
    return [a[keep] for a in arrays]


def dvh_chart(result: ComparisonResult) -> list[dict[str, Any]]:
    """Per structure the volume in percent above each dose, of both maps."""
    curves = []
    for name, curve in result.dvh_curves.items():
        dose, reference, evaluated = _thin(curve["dose_gy"], curve["reference"], curve["evaluated"])
        curves.append(
            {
                "name": name,
                "x": _numbers(dose),
                "reference": _numbers(reference),
                "evaluated": _numbers(evaluated),
            }
        )
    return curves


def z_histogram(result: ComparisonResult) -> dict[str, Any] | None:
    """Distribution of difference over uncertainty, beside what noise alone gives; None without z."""
    field = result.maps.get("z")
    if field is None:
        return None
    z = field.values[np.isfinite(field.values)]
    if not z.size:
        return None
    counts, _ = np.histogram(np.clip(z, Z_EDGES[0] + 1e-9, Z_EDGES[-1] - 1e-9), Z_EDGES)
    centers = (Z_EDGES[1:] + Z_EDGES[:-1]) / 2
    width = Z_EDGES[1] - Z_EDGES[0]
    return {
        "edges": _numbers(Z_EDGES),
        "density": _numbers(counts / (z.size * width)),
        "x": _numbers(centers),
        "normal": _numbers(np.exp(-(centers**2) / 2) / math.sqrt(2 * math.pi)),
        "n": int(z.size),
        "mean": round(float(z.mean()), 2) + 0.0,  # no minus before zero
        "sd": float(z.std()),
        "beyond_3_percent": 100 * float(np.mean(np.abs(z) > 3)),
        "expected_beyond_3_percent": 100 * NORMAL_BEYOND_3,
    }


_PROFILES = {
    # result key: (its scale, axis label, curve, axis label)
    "dmd_mm": ("exchange_length_mm", "exchange length L / mm", "DMD / mm"),
    "kr_mm": ("reach_mm", "reach R / mm", "flat norm / mm"),
}


def scale_profiles(result: ComparisonResult) -> list[dict[str, Any]]:
    """DMD over the exchange length and the flat norm over the reach, where they were asked for."""
    charts = []
    for key, (scale, x_label, y_label) in _PROFILES.items():
        profile = result.profiles.get(key)
        if profile is None or scale not in profile or "value" not in profile:
            continue
        chart = {"key": key, "xLabel": x_label, "yLabel": y_label, "x": _numbers(profile[scale])}
        for name in ("value", "lower", "upper", "floor"):
            if profile.get(name) is not None:
                values = [math.nan if v is None else v for v in profile[name]]
                chart[name] = _numbers(values)
        charts.append(chart)
    return charts


def line_profile(result: ComparisonResult) -> dict[str, Any] | None:
    """Both doses along the only long axis of a 1-D map; None for slices and volumes."""
    grid = result.reference.grid
    if len(grid.extended_axes) > 1:
        return None
    axis = grid.extended_axes[0] if grid.extended_axes else 2
    evaluated = result.evaluated.interpolated_to(grid).dose_gy
    return {
        "axis": "zyx"[axis],
        "x": _numbers(grid.centers_mm[axis], 7),
        "reference": _numbers(result.reference.dose_gy.ravel()),
        "evaluated": _numbers(evaluated.ravel()),
    }
