"""Made-up tables of a study whose every answer is known in closed form."""

from __future__ import annotations

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
