"""What ``dosemover info`` shows of a file."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from dosemover.io.read import read_unchecked
from dosemover.io.sums import relative_uncertainty_percent


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
            "uncertainty_above_half_maximum_percent": relative_uncertainty_percent(dose),
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
