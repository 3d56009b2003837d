"""Made-up tables of a study whose every answer is known in closed form."""

from __future__ import annotations

from typing import Any

import numpy as np

from dosemover.study.table import MEASUREMENT_COLUMNS

CHANGES = {"shift": ("mm", (0.2, 1.0, 3.0)), "output": ("%", (0.5, 1.0, 3.0)), "hot_spot": ("%", (5.0, 20.0))}
LEVELS = (20.0, 10.0, 5.0, 2.0, 1.0)
METRICS = {
    # ideal value, signal per unit of a change, noise at 1 % of noise, floor at 1 % of noise
    "dmd_mm": (0.0, 1.0, 0.02, 0.05),
    "moment_dmd_mm": (0.0, 1.0, 0.025, 0.05),
    "w2_mm": (0.0, 1.0, 0.02, 0.05),
    "w1_mm": (0.0, 0.8, 0.02, 0.05),
    "sliced_w2_mm": (0.0, 0.6, 0.02, 0.05),
    "kr_mm": (0.0, 0.1, 0.02, 0.05),
    "center_shift_mm": (0.0, 0.9, 0.02, 0.03),
    "mass_ratio": (1.0, 0.01, 0.001, 0.0),
    "rmse_gy": (0.0, 0.01, 0.001, 0.02),
    "debiased_rmse_gy": (0.0, 0.01, 0.002, 0.0),
    "max_difference_gy": (0.0, 0.05, 0.03, 0.3),
    "ssim": (1.0, -0.001, 0.001, -0.01),
    "gamma_3_3_global_passing_rate_percent": (100.0, -1.0, 0.3, -0.5),
    "gamma_2_2_global_passing_rate_percent": (100.0, -1.5, 0.3, -1.0),
    "gamma_2_2_global_mean": (0.0, 0.1, 0.01, 0.05),
    "isodose_dice_50": (1.0, -0.002, 0.001, -0.005),
}
WITH_STRUCTURES = METRICS | {"dvh_w1_gy": (0.0, 0.01, 0.001, 0.01)}


def histories(level: float) -> int:
    """Histories that give a noise level."""
    return int(1e8 / level**2)


def made_up(
    *,
    replicates: int = 20,
    levels: tuple[float, ...] = LEVELS,
    metrics=METRICS,
    changes=CHANGES,
    seed: int = 0,
) -> dict[str, list]:
    """Columns of a table: value = ideal + signal x magnitude + floor x noise + sd x noise x normal."""
    rng = np.random.default_rng(seed)
    rows: list[tuple] = []
    wanted = [("none", 0.0, "")] + [(c, m, unit) for c, (unit, sizes) in changes.items() for m in sizes]
    for case, factor in (("water", 1.0), ("lung", 1.3)):
        for change, size, unit in wanted:
            for level in levels:
                for noise_in in ("reference", "evaluated", "both"):
                    for metric, (ideal, signal, sd, floor) in metrics.items():
                        side = -1.0 if "passing" in metric and noise_in == "evaluated" and size else 1.0
                        mean = ideal + signal * size + side * factor * floor * level
                        for replicate in range(replicates):
                            value = mean + factor * sd * level * rng.standard_normal()
                            where = (level, 1.02 * level, histories(level), noise_in, replicate)
                            what = (case, "analytic", change, size, unit)
                            rows.append(("made up", *what, *where, metric, "", value, None, None, "ok"))
    names = list(MEASUREMENT_COLUMNS)
    return dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))


def costs(metrics=METRICS) -> dict[str, list]:
    """Costs by case and metric: moments a hundredth of the distances."""
    seconds = {m: 0.01 if m.startswith("moment") else 1.0 for m in metrics}
    rows = [(case, m, s, 100) for case in ("water", "lung") for m, s in seconds.items()]
    return dict(
        zip(("case", "metric", "seconds_median", "count"), map(list, zip(*rows, strict=True)), strict=True)
    )


def small_findings() -> dict[str, Any]:
    """Results of small studies in which every statement holds."""

    def rates(outputs: tuple[float, ...]) -> list[dict[str, Any]]:
        return [
            {
                "output_percent": output,
                "noise_percent": noise,
                "noise_in": where,
                "mass_ratio": 1 + output / 100,
                "dmd_mm": output,
                "gamma_3_3_global_passing_rate_percent": 99.0,
                "gamma_2_2_global_passing_rate_percent": 100
                - 10 * output
                + noise * (5 if where == "evaluated" else -5),
            }
            for output in outputs
            for noise in (0.0, 2.0, 4.0)
            for where in ("evaluated", "reference")
        ]

    smoothed = [
        {"beam": beam, "smoother": name, "rmse_gy": rmse, "w2_mm": w2, "dmd_mm": w2}
        | {"rmse_gy_sd": 0.01, "w2_mm_sd": 0.01, "dmd_mm_sd": 0.01}
        for beam in "pe"
        for name, rmse, w2 in (("none", 1.0, 0.2), ("Gaussian, 1 voxels", 0.5, 0.4), ("median", 0.7, 0.1))
    ]
    shifts = [
        {"shift_mm": s, "w1_atoms": s, "w2_atoms": (5 * s) ** 0.5, "w1_density": s, "w2_density": s}
        for s in (0.5, 2.0, 5.0)
    ]
    copies = [
        {"noise_percent": n, "w1_atoms": 0.06 * n, "w2_atoms": 0.6, "w1_density": 0.04 * n}
        | {"w2_density": 0.07 * n, "w2_lower": 0.06 * n, "w2_upper": 0.08 * n}
        for n in (1.0, 5.0)
    ]
    metrics = (*METRICS, "dmd_residual_max_percent")
    strong = {"shift 0.2 mm": 9.0, "shift 1 mm": 99.0, "output +0.2 %": 20.0, "halves 0.5 mm apart": 30.0}
    changes = {
        name: {m: {"clean": 1.0, "z": z if m == "dmd_mm" else 1.0} for m in metrics}
        for name, z in strong.items()
    }
    for name in ("hot spot +10 %", "bath +0.2 % of the maximum"):
        changes[name] = {m: {"clean": 1.0, "z": 8.0 if m == "rmse_gy" else 2.0} for m in metrics}
    changes["bath +0.2 % of the maximum"]["dmd_mm"]["clean"] = 9.0
    changes["bath +0.2 % of the maximum"]["gamma_2_2_global_passing_rate_percent"]["clean"] = 100.0
    return {
        "made_to_pass": {"limit_percent": 95.0, "rows": rates((2.0,))},
        "real_made_to_pass": {"limit_percent": 95.0, "rows": rates((0.4, 2.0, 9.0))},
        "smoothed": {"batches": 2, "noise_percent": {"p": 10.0, "e": 5.0}, "rows": smoothed},
        "costs": {
            "rows": [
                {"size": size, "way": way, "seconds": seconds * size}
                for size in (10, 20)
                for way, seconds in (("dmd_mm", 1.0), ("dmd_mm certified", 5.0), ("moment_dmd_mm", 0.01))
            ]
        },
        "atoms": {"voxel_mm": 5.0, "shifts": shifts, "copies": copies},
        "detection": {"noise_percent": 5.0, "nulls": 20, "repeats": 10, "changes": changes},
    }
