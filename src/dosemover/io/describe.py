"""What ``dosemover info`` shows of a file."""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np

from dosemover.dose import DoseMap
from dosemover.io.read import read_unchecked


def describe(
    path: str | os.PathLike[str], *, unit: str | None = None, identifiers: bool = False
) -> dict[str, Any]:
    """Grid, units, maximum, integral, uncertainty and format details of a dose file.

    Parameters
    ----------
    path : path-like
        As `read_dose` takes it. A dose that is 0 everywhere is described, too.
    unit : {"gy", "cgy"}, optional
        Unit of the values where the file states none.
    identifiers : bool
        Include patient identifiers.

    Returns
    -------
    dict
        Flat, in the order to print it.
    """
    dose = read_unchecked(path, unit=unit)
    details = dict(dose.source)
    grid = dose.grid
    with np.errstate(all="ignore"):
        described: dict[str, Any] = {
            "file": details.pop("file", dose.name),
            "format": details.pop("format", ""),
            "unit": dose.unit,
            "shape": list(grid.shape),
            "spacing_mm": list(grid.spacing_mm),
            "origin_mm": list(grid.origin_mm),
            "box_mm": [list(limits) for limits in grid.box_mm[::-1]],
            "max_gy": dose.max_gy,
            "mean_gy": float(np.mean(dose.dose_gy, dtype=np.float64)),
            "integral_gy_mm3": dose.integral_gy_mm3,
            "uncertainty": "none" if dose.uncertainty_gy is None else "standard uncertainty per voxel",
            "uncertainty_above_half_maximum_percent": _relative_uncertainty_percent(dose),
            "batches": 0 if dose.batches_gy is None else len(dose.batches_gy),
            "density": dose.density_g_per_cm3 is not None,
            "structures": [s.name for s in dose.structures],
        }
    if "uncertainty" in details:
        described["uncertainty"] = details.pop("uncertainty")
    described |= {key: value for key, value in details.items() if key not in described}
    if identifiers:
        described |= dict(dose.identifiers)
    return described


def _relative_uncertainty_percent(dose: DoseMap) -> float | None:
    """Median relative standard uncertainty [%] of the voxels above half of the maximum."""
    if dose.uncertainty_gy is None or dose.max_gy == 0:
        return None
    high = dose.dose_gy >= 0.5 * dose.max_gy
    value = float(np.median(np.asarray(dose.uncertainty_gy)[high] / dose.dose_gy[high]))
    return 100 * value if math.isfinite(value) else None
