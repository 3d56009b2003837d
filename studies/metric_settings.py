"""How much settings and noise change a metric, on the embedded example: tables of docs/review.md.

    python studies/metric_settings.py

Writes docs/tables/settings.md, docs/tables/noise_side.md and docs/tables/gamma_shift.md. About half a minute.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from dosemover.dose import DoseMap
from dosemover.examples import example_pair
from dosemover.grid import Grid
from dosemover.metrics import (
    debiased_rmse,
    differences,
    gamma_index,
    isodose_agreement,
    psnr_db,
    structural_similarity,
)
from dosemover.transport import dose_movers_distance, sinkhorn_divergence

TABLES = Path(__file__).resolve().parents[1] / "docs" / "tables"


def table(path: Path, head: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    """Write a Markdown table."""
    lines = ["| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows)]
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def gamma_rates(pair: dict[str, DoseMap]) -> list[tuple[str, ...]]:
    """Passing rate at 2 %/2 mm, one setting changed at a time."""
    middle = float(np.quantile(pair["reference"].dose_gy, 0.99))
    variants = {
        "global, maximum, threshold 10 %, exact": {},
        "local": {"normalization": "local"},
        "threshold 5 %": {"dose_threshold_percent": 5.0},
        "threshold 20 %": {"dose_threshold_percent": 20.0},
        "threshold 50 %": {"dose_threshold_percent": 50.0},
        f"normalised to {middle:.2f} Gy (99th percentile)": {"normalization_dose_gy": middle},
        "voxel centres only": {"interpolant": "grid"},
    }
    settings = {"dose_criterion_percent": 2.0, "distance_criterion_mm": 2.0}
    rows = [
        ("gamma 2 %/2 mm", name, f"{gamma_index(**pair, **settings, **other).passing_rate_percent:.1f} %")
        for name, other in variants.items()
    ]
    swapped = {"reference": pair["evaluated"], "evaluated": pair["reference"]}
    rate = gamma_index(**swapped, **settings).passing_rate_percent
    return [*rows, ("gamma 2 %/2 mm", "maps swapped", f"{rate:.1f} %")]


def other_settings(pair: dict[str, DoseMap]) -> list[tuple[str, ...]]:
    """SSIM, PSNR, isodose and transport under other settings."""
    top = pair["reference"].max_gy
    rows = []
    for name, data_range in (("maximum", top), ("1 Gy", 1.0), ("10 Gy", 10.0)):
        found = structural_similarity(**pair, data_range_gy=data_range)
        rows.append(
            ("SSIM", f"data range {name}", f"{found.value:.4f}, in the 10 % mask {found.in_mask:.4f}")
        )
    for name, data_range in (("maximum", top), ("10 Gy", 10.0)):
        rows.append(("PSNR", f"peak {name}", f"{psnr_db(**pair, data_range_gy=data_range):.1f} dB"))
    for name, threshold in (("whole map", 0.0), ("above 10 %", 10.0), ("above 50 %", 50.0)):
        found = differences(**pair, dose_threshold_percent=threshold)
        rows.append(("RMS difference", name, f"{1000 * found.rmse_gy:.1f} mGy"))
    levels = (10, 50, 80, 95)
    for level, one in zip(levels, isodose_agreement(**pair, levels_percent=levels).values(), strict=True):
        rows.append(("isodose Dice", f"{level} % of the maximum", f"{one.dice:.4f}"))
    for rate in (0.33, 1.0, 3.0):
        found = dose_movers_distance(**pair, exchange_mm_per_percent=rate, bounds=False, fields=False)
        rows.append(("Dose Mover's Distance", f"{rate:g} mm per %", f"{found.value:.2f} mm"))
    for blur in (2.0, 4.0, 8.0):
        found = sinkhorn_divergence(**pair, blur_mm=blur)
        rows.append(("Sinkhorn divergence", f"blur {blur:g} mm", f"{found.value:.2f} mm"))
    return rows


def of_batches(dose: DoseMap, n: int) -> DoseMap:
    """The map as its first n batches alone would give it."""
    batches = dose.batches_gy[:n]
    deviation = batches.std(axis=0, ddof=1) if n > 1 else dose.batches_gy.std(axis=0, ddof=1)
    return replace(
        dose,
        dose_gy=batches.mean(axis=0),
        uncertainty_gy=deviation / np.sqrt(n),
        batches_gy=batches if n > 1 else None,
    )


def noise_rows(reference: DoseMap, evaluated: DoseMap) -> list[tuple[str, ...]]:
    """The same change, noise in one map or in the other."""
    rows = []
    for side in ("evaluated", "reference"):
        for n in (8, 4, 2, 1):
            maps = {"reference": reference, "evaluated": evaluated}
            maps[side] = of_batches(maps[side], n)
            high = maps[side].dose_gy > 0.5 * maps[side].max_gy
            noise = 100 * float(np.mean(maps[side].uncertainty_gy[high] / maps[side].dose_gy[high]))
            gamma = {"dose_criterion_percent": 2.0, "distance_criterion_mm": 2.0}
            at = {"normalization_dose_gy": reference.max_gy, "max_gamma": 2.0}
            two = gamma_index(**maps, **gamma, **at)
            moved = dose_movers_distance(**maps, bounds=False, fields=False)
            rows.append(
                (
                    side,
                    f"{noise:.1f} %",
                    f"{two.passing_rate_percent:.1f} %",
                    f"{two.mean:.2f}",
                    f"{1000 * differences(**maps).rmse_gy:.0f}",
                    f"{1000 * debiased_rmse(**maps).value_gy:.0f}",
                    f"{structural_similarity(**maps).value:.3f}",
                    f"{moved.value:.2f}",
                )
            )
    return rows


FIELD_MM, SHIFT_MM = 60.0, 1.0
"""Width of the field of which gamma is asked whether it sees a shift, and the shift."""


def edge_field(voxel_mm: float, penumbra_mm: float, shift_mm: float) -> DoseMap:
    """A square field with edges of a width from 20 to 80 %, averaged over each voxel."""
    sigma = penumbra_mm / (2 * NormalDist().inv_cdf(0.8))
    n = round(1.6 * FIELD_MM / voxel_mm)
    x = (np.arange(n) - (n - 1) / 2) * voxel_mm
    inside = (np.arange(32) + 0.5) / 32 - 0.5

    def profile(shift: float) -> NDArray[Any]:
        at = x[:, None] + voxel_mm * inside - shift
        return np.mean(ndtr((at + FIELD_MM / 2) / sigma) - ndtr((at - FIELD_MM / 2) / sigma), axis=1)

    dose = np.repeat(np.outer(profile(0.0), profile(shift_mm))[None], 3, axis=0)
    return DoseMap(grid=Grid.regular(shape=(3, n, n), spacing_mm=(voxel_mm,) * 3), dose_gy=dose)


def shift_rows() -> list[tuple[str, ...]]:
    """What gamma 3 %/3 mm makes of a shift by 1 mm, over penumbra and voxel width."""
    rows = []
    for penumbra_mm in (2.0, 4.0, 8.0):
        for voxel_mm in (1.0, 2.0, 4.0, 8.0):
            reference, evaluated = (edge_field(voxel_mm, penumbra_mm, shift) for shift in (0.0, SHIFT_MM))
            steepest = 100 * float(np.abs(np.diff(reference.dose_gy[1], axis=1)).max()) / voxel_mm
            cells = []
            for interpolant in ("simplex", "grid"):
                found = gamma_index(
                    reference=reference, evaluated=evaluated, interpolant=interpolant, max_gamma=5.0
                )
                largest = float(np.nanmax(found.gamma))
                cells += [f"{found.passing_rate_percent:.1f} %", f"{largest:.2f}"]
            rows.append((f"{penumbra_mm:g}", f"{steepest:.0f}", f"{voxel_mm:g}", *cells))
    return rows


def main() -> None:
    """Write the tables."""
    reference, evaluated = example_pair()
    pair = {"reference": reference, "evaluated": evaluated}
    table(TABLES / "settings.md", ("metric", "setting", "value"), gamma_rates(pair) + other_settings(pair))
    table(
        TABLES / "noise_side.md",
        (
            "noise in",
            "at high dose",
            "gamma 2/2 passes",
            "mean gamma",
            "RMSE mGy",
            "debiased RMSE mGy",
            "SSIM",
            "DMD mm",
        ),
        noise_rows(reference, evaluated),
    )
    table(
        TABLES / "gamma_shift.md",
        (
            "penumbra mm",
            "steepest, % per mm",
            "voxels mm",
            "passes",
            "largest gamma",
            "passes, centres only",
            "largest, centres only",
        ),
        shift_rows(),
    )


if __name__ == "__main__":
    main()
