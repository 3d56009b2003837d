"""Made-up comparison results for the report's tests: plausible maps and a value for every metric key."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from scipy.special import erf

from dosemover.comparison.result import ComparisonResult, FieldMap, MetricResult
from dosemover.dose import DoseMap, Structure
from dosemover.grid import Grid

Pair = dict[str, np.ndarray]


def field_dose(
    grid: Grid, *, shift_mm: float = 0.0, output: float = 1.0, hot_spot: bool = False
) -> np.ndarray:
    """A beam with penumbra and depth fall-off [Gy], moved along x, with a hot spot if asked for."""
    z, y, x = np.meshgrid(*grid.centers_mm, indexing="ij")
    (z0, z1), (y0, y1), (x0, x1) = grid.box_mm
    u, w = x - (x0 + x1) / 2 - shift_mm, z - (z0 + z1) / 2
    half_x, half_z = 0.28 * (x1 - x0), 0.26 * (z1 - z0)

    def edge(t: np.ndarray, half: float) -> np.ndarray:
        return 0.5 * (erf((t + half) / 5.0) - erf((t - half) / 5.0)) if half > 2 else np.ones_like(t)

    depth = y - y0
    dose = (
        output
        * 60.0
        * edge(u, half_x)
        * edge(w, half_z)
        * np.exp(-depth / 220.0)
        * (1 - 0.5 * np.exp(-depth / 7.0))
    )
    dose = dose + output * 1.2 * np.exp(-(u**2) / (2 * (half_x + 30) ** 2))
    if hot_spot:
        dose = dose * (1 + 0.15 * (np.hypot(np.hypot(u - 0.4 * half_x, w), y - (y0 + y1) / 2) < 9.0))
    return dose


def make_result(
    *,
    shape: tuple[int, ...] = (44, 60, 72),
    spacing_mm: tuple[float, ...] = (2.5, 2.5, 3.0),
    grid: Grid | None = None,
    uncertainty: bool = True,
    dose_mover: bool = True,
    names: tuple[str, str] = ("reference.dcm", "evaluated.dcm"),
    warnings: tuple[str, ...] = (),
    n_structures: int = 3,
    **fields: Any,
) -> ComparisonResult:
    """A comparison of a field with the same field moved by 1 mm, 2 % lower, with a hot spot and noise."""
    if grid is None:
        n = (1,) * (3 - len(shape)) + tuple(shape)
        corner = tuple(-(m - 1) * h / 2 for m, h in zip(n[::-1], (*spacing_mm, 1.0, 1.0), strict=False))
        grid = Grid.regular(shape=shape, spacing_mm=spacing_mm, origin_mm=corner)
    rng = np.random.default_rng(7)
    clean = {
        "reference": field_dose(grid),
        "evaluated": field_dose(grid, shift_mm=1.0, output=0.98, hot_spot=True),
    }
    sigma = {k: 0.008 * np.sqrt(v.max() * (v + 0.02 * v.max())) for k, v in clean.items()}
    noisy = {k: np.maximum(clean[k] + sigma[k] * rng.standard_normal(grid.shape), 0.0) for k in clean}
    density = 0.05 + 0.95 * (
        np.abs(np.meshgrid(*grid.centers_mm, indexing="ij")[2]) < 0.45 * np.ptp(grid.x_edges_mm)
    )
    doses = {
        k: DoseMap(
            dose_gy=noisy[k],
            grid=grid,
            uncertainty_gy=sigma[k] if uncertainty else None,
            density_g_per_cm3=density if k == "reference" else None,
            structures=_structures(grid, n_structures) if k == "reference" else (),
            source={"file": name, "format": "DICOM RT Dose"},
        )
        for k, name in zip(clean, names, strict=True)
    }
    maps = _maps(grid, noisy, sigma, uncertainty=uncertainty, dose_mover=dose_mover, rng=rng)
    tables = {s.name: _dvh_values(noisy, s.fraction) for s in doses["reference"].structures}
    curves = {s.name: _dvh_curve(noisy, s.fraction) for s in doses["reference"].structures}
    options: dict[str, Any] = {
        "metrics": make_metrics(uncertainty=uncertainty, dose_mover=dose_mover),
        "maps": maps,
        "structures": tables,
        "dvh_curves": curves,
        "profiles": _scale_profiles() if dose_mover else {},
        "settings": {
            "gamma": [[3, 3], [2, 2]],
            "normalization": "global",
            "scale_factor": 1.0,
            "metrics": "all",
        },
        "provenance": {"version": "0.1.0", "seed": 0, "platform": "Linux-6.1", "cores": "2"},
        "warnings": warnings,
    }
    return ComparisonResult(reference=doses["reference"], evaluated=doses["evaluated"], **(options | fields))


def _structures(grid: Grid, count: int) -> tuple[Structure, ...]:
    """Ellipsoids along x."""
    z, y, x = np.meshgrid(*grid.centers_mm, indexing="ij")
    names = ("PTV 60", "SpinalCord", "Lung_L", *(f"Organ {i}" for i in range(30)))
    reach = 0.25 * np.ptp(grid.x_edges_mm)
    found = []
    for i in range(count):
        offset = (i - (count - 1) / 2) * 1.6 * reach / max(count - 1, 1)
        inside = np.hypot(np.hypot(x - offset, y - y.mean()), z - z.mean()) < 0.55 * reach
        if inside.any():
            found.append(Structure(name=names[i], fraction=inside.astype(float), grid=grid))
    return tuple(found)


def _maps(
    grid: Grid, dose: Pair, sigma: Pair, *, uncertainty: bool, dose_mover: bool, rng: Any
) -> dict[str, FieldMap]:
    """The maps that a comparison returns, roughly right."""
    reference = dose["reference"]
    difference = dose["evaluated"] - reference
    top = float(reference.max())
    axes = [a for a in range(3) if grid.shape[a] > 1]
    steep = np.sqrt(
        sum((np.gradient(reference, grid.centers_mm[a], axis=a) ** 2 for a in axes), np.zeros(grid.shape))
    )
    gamma = np.abs(difference) / (0.03 * top) / np.sqrt(1 + (steep / (0.01 * top)) ** 2)

    def entry(values: np.ndarray, unit: str, label: str) -> FieldMap:
        return FieldMap(values=values, grid=grid, unit=unit, label=label)

    maps = {
        "difference_gy": entry(difference, "Gy", "evaluated - reference"),
        "gamma_3_3_global": entry(np.where(reference > 0.1 * top, gamma, np.nan), "", "gamma"),
        "gamma_2_2_global": entry(np.where(reference > 0.1 * top, 1.5 * gamma, np.nan), "", "gamma"),
    }
    if uncertainty:
        maps["z"] = entry(difference / np.hypot(sigma["reference"], sigma["evaluated"]), "", "z")
    if dose_mover:
        moved = np.zeros((3, *grid.shape))
        moved[0] = 1.0 - 0.3 * (reference < 0.2 * top)
        moved += 0.12 * rng.standard_normal(moved.shape)
        change = -2.0 + 0.3 * rng.standard_normal(grid.shape)
        maps |= {
            "displacement_mm": entry(moved, "mm", "displacement"),
            "change_percent": entry(change, "%", "change"),
            "dmd_index_mm": entry(np.sqrt((moved**2).sum(axis=0) + change**2), "mm", "DMD index"),
            "dmd_residual_gy": entry(difference + 0.02 * reference, "Gy", "residual"),
            "gain_loss_gy": entry(
                np.where(np.abs(difference) > 0.02 * top, difference, 0.0), "Gy", "gain / loss"
            ),
            "flow_mm": entry(0.2 * moved, "mm", "flow"),
        }
    return maps


def _dvh_values(dose: Pair, fraction: np.ndarray) -> dict[str, dict[str, float | None]]:
    """Some DVH quantities of one structure."""
    inside = fraction > 0.5
    found: dict[str, dict[str, float | None]] = {}
    for key, share in (("d98_gy", 2), ("d95_gy", 5), ("d50_gy", 50), ("d2_gy", 98)):
        found[key] = {k: float(np.percentile(v[inside], share)) for k, v in dose.items()}
    found["mean_gy"] = {k: float(v[inside].mean()) for k, v in dose.items()}
    found["v20gy_percent"] = {k: 100 * float(np.mean(v[inside] > 20)) for k, v in dose.items()}
    found["d0p03cc_gy"] = {"reference": float(dose["reference"][inside].max()), "evaluated": None}
    return found


def _dvh_curve(dose: Pair, fraction: np.ndarray) -> dict[str, np.ndarray]:
    """Volume in percent above each dose."""
    inside = fraction > 0.5
    edges = np.linspace(0, 1.05 * max(float(v.max()) for v in dose.values()), 500)
    curves = {k: 100 * np.mean(v[inside][:, None] > edges, axis=0) for k, v in dose.items()}
    return {"dose_gy": edges, **curves}


def _scale_profiles() -> dict[str, dict[str, Any]]:
    """DMD over L and flat norm over R."""
    length, reach = np.geomspace(3, 1000, 12), np.geomspace(1, 50, 10)
    dmd = 2.1 * length / (length + 60)
    kr = 0.5 * reach / (reach + 20)
    return {
        "dmd_mm": {
            "exchange_length_mm": length,
            "value": dmd,
            "lower": 0.97 * dmd,
            "upper": [*1.02 * dmd[:-1], None],
        },
        "kr_mm": {"reach_mm": reach, "value": kr},
    }


_VALUES: dict[str, tuple[float | None, str]] = {
    "mass_ratio": (0.9803, ""),
    "mean_difference_gy": (-0.318, "Gy"),
    "mae_gy": (0.512, "Gy"),
    "mse_gy2": (0.884, "Gy2"),
    "rmse_gy": (0.94, "Gy"),
    "debiased_rmse_gy": (0.79, "Gy"),
    "max_difference_gy": (7.93, "Gy"),
    "p95_difference_gy": (2.11, "Gy"),
    "p99_difference_gy": (4.02, "Gy"),
    "relative_mae_percent": (0.85, "%"),
    "dose_difference_passing_1_percent": (71.3, "%"),
    "dose_difference_passing_2_percent": (88.4, "%"),
    "psnr_db": (36.4, "dB"),
    "ssim": (0.9931, ""),
    "ssim_in_mask": (0.9712, ""),
    "chi2_per_voxel": (2.31, ""),
    "kf_fraction_percent": (41.0, "%"),
    "kf_shift_sigma": (-2.4, ""),
    "gamma_3_3_global_passing_rate_percent": (98.93, "%"),
    "gamma_3_3_global_mean": (0.31, ""),
    "gamma_2_2_global_passing_rate_percent": (93.1, "%"),
    "gamma_1p5_1_local_passing_rate_percent": (61.2, "%"),
    "gamma_3_3_global_two_sided_passing_rate_percent": (98.7, "%"),
    "dta_mean_mm": (0.9, "mm"),
    "chi_passing_rate_percent": (98.1, "%"),
    "ndd_mean": (0.4, ""),
    "isodose_dice_50": (0.9871, ""),
    "isodose_jaccard_50": (0.9745, ""),
    "isodose_hd95_50_mm": (1.1, "mm"),
    "isodose_surface_50_mm": (0.7, "mm"),
    "center_shift_mm": (0.99, "mm"),
    "best_shift_mm": (1.02, "mm"),
    "axis_w1_mm": (0.95, "mm"),
    "axis_w2_mm": (0.98, "mm"),
    "w1_mm": (1.1, "mm"),
    "w2_mm": (1.21, "mm"),
    "sliced_w1_mm": (0.55, "mm"),
    "sliced_w2_mm": (0.62, "mm"),
    "sinkhorn_divergence_mm": (1.0, "mm"),
    "sobolev_w2_mm": (1.18, "mm"),
    "emd_mm": (None, "mm"),
    "dmd_mm": (2.21, "mm"),
    "dmd_moved_mm": (0.842, "mm"),
    "dmd_changed_percent": (2.04, "%"),
    "dmd_residual_max_percent": (11.6, "%"),
    "dmd_residual_p99_percent": (1.9, "%"),
    "kr_mm": (0.197, "mm"),
    "kr_moved_mm": (0.013, "mm"),
    "kr_gained_percent": (1.1, "%"),
    "kr_lost_percent": (3.0, "%"),
    "mean_shift_mm": (0.99, "mm"),
    "bures_w2_mm": (1.01, "mm"),
    "moment_w2_mm": (1.15, "mm"),
    "moment_dmd_mm": (2.17, "mm"),
    "dvh_w1_gy": (0.92, "Gy"),
    "openkbp_dose_score": (0.7, "Gy"),
    "openkbp_dvh_score": (None, "Gy"),
    "synthrad_dose_score": (float("nan"), ""),
}
"""A plausible value and unit for every metric key of the JSON contract."""


def make_metrics(*, uncertainty: bool = True, dose_mover: bool = True) -> dict[str, MetricResult]:
    """One result per metric key; some without value, some with interval, floor and significance."""
    metrics = {}
    for key, (value, unit) in _VALUES.items():
        if not dose_mover and key.startswith(("dmd", "kr")):
            continue
        extra: dict[str, Any] = {"seconds": 0.12}
        if value is None or value != value:
            extra["status"] = "needs at most 20 000 voxels, the maps have 190 080 (coarsen them first)"
        elif key in ("dmd_mm", "w1_mm", "w2_mm", "moment_w2_mm"):
            extra |= {"lower": 0.97 * value, "upper": 1.02 * value}
        elif key == "kr_mm":
            extra |= {"upper": 0.21}
        if uncertainty and value is not None and unit == "mm":
            floor = 0.05 if "isodose" not in key else 0.69
            extra |= {"floor": floor, "floor_sd": 0.006, "z": (value - floor) / 0.03, "p": 0.0005}
            if "isodose" in key:
                extra |= {"z": 0.3, "p": 0.38}
        metrics[key] = MetricResult(key=key, value=value, unit=unit, **extra)
    return metrics


def with_masks(result: ComparisonResult) -> ComparisonResult:
    """The result with a region of low sampling and one of real difference, each half of the map."""
    grid = result.reference.grid
    half = np.zeros(grid.shape, dtype=np.float32)
    half[..., : grid.shape[2] // 2] = 1
    masks = {
        "low_sampling_mask": FieldMap(
            values=half, grid=grid, unit="", label="relative uncertainty above 10 %"
        ),
        "significant_mask": FieldMap(values=1 - half, grid=grid, unit="", label="difference real"),
    }
    return replace(result, maps={**result.maps, **masks})
