"""From what the caller passes to two dose maps that can be compared."""

from __future__ import annotations

from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from dosemover.comparison.context import ComparisonContext
from dosemover.comparison.settings import Scale
from dosemover.dose import DoseMap, uncertainty_of_batches
from dosemover.errors import InputError

_PRESCRIPTION_REGION = 0.95
"""Share of the prescription above which ``match-prescription`` compares mean doses."""


def as_dose_map(
    name: str,
    value: Any,
    *,
    spacing_mm: tuple[float, ...] | None = None,
    origin_mm: tuple[float, ...] = (0.0, 0.0, 0.0),
) -> DoseMap:
    """Dose map from a path, a `DoseMap` or an array, checked for use in a comparison.

    Parameters
    ----------
    name : str
        "reference" or "evaluated": named in messages.
    value : str, path, DoseMap or array_like
        An array is a dose [Gy] indexed [z, y, x] and needs ``spacing_mm``.
    spacing_mm, origin_mm : tuple of float
        Geometry of an array (x, y, z) [mm].

    Raises
    ------
    InputError
        When an array comes without its spacing, or a map holds no dose.
    UnitError
        When a map is not in Gy.
    """
    if isinstance(value, DoseMap):
        dose = value
    elif isinstance(value, str | PathLike):
        from dosemover.io import read_dose

        dose = read_dose(value)
    else:
        dose = _from_array(name, value, spacing_mm, origin_mm)
    dose.require_gray()
    if dose.max_gy == 0:
        raise InputError(
            f"{dose.name or f'the {name} map'} holds no dose: every voxel is 0. Nothing can be compared. "
            "Check that the right file was exported, or sum it with its other beams (A.dcm+B.dcm)."
        )
    if dose.batches_gy is not None and dose.uncertainty_gy is None:
        return replace(dose, uncertainty_gy=uncertainty_of_batches(dose.batches_gy))
    return dose


def inputs_used(context: ComparisonContext, *, structures: Any, density: Any) -> dict[str, str]:
    """Which files, beside the two maps, a comparison rests on: base names, for its settings.

    Parameters
    ----------
    context : ComparisonContext
    structures, density : path, object or None
        As passed to `compare`.

    Returns
    -------
    dict
        "structures", "density", "reference_uncertainty", "reference_batches" and so on, those there are.
    """
    used: dict[str, str] = {}
    reference, evaluated = context.reference, context.evaluated
    if context.structures:
        used["structures"] = f"{len(context.structures)} from {_origin(structures, reference)}"
    if reference.density_g_per_cm3 is not None:
        used["density"] = reference.source.get("density") or _origin(density, reference)
    for side, dose in (("reference", reference), ("evaluated", evaluated)):
        if dose.batches_gy is not None:
            here = f"{len(dose.batches_gy)} from {_origin(None, dose)}"
            used[f"{side}_batches"] = dose.source.get("batches") or here
        if dose.uncertainty_gy is not None:
            here = "from the batches" if dose.batches_gy is not None else f"from {_origin(None, dose)}"
            used[f"{side}_uncertainty"] = dose.source.get("uncertainty") or here
    return used


def _origin(passed: Any, dose: DoseMap) -> str:
    """Base name of the file that something comes from: one of its own, or that of the dose."""
    if isinstance(passed, str | PathLike):
        return Path(passed).name
    return "memory" if passed is not None else str(dose.source.get("file") or "memory")


def _from_array(
    name: str, value: Any, spacing_mm: tuple[float, ...] | None, origin_mm: tuple[float, ...]
) -> DoseMap:
    """Dose map from anything that NumPy understands."""
    array = np.asarray(value)
    if array.dtype.kind not in "fiub" or not 1 <= array.ndim <= 3:
        raise InputError(
            f"`{name}` must be a path, a DoseMap or a numeric array of 1 to 3 dimensions, got "
            f"{type(value).__name__} of shape {array.shape} and type {array.dtype}."
        )
    if spacing_mm is None:
        raise InputError(
            f"`{name}` is an array without a voxel size: distances in mm cannot be computed. "
            "Pass spacing_mm=(x, y, z) in mm, or a DoseMap."
        )
    if len(spacing_mm) < array.ndim:
        raise InputError(
            f"`{name}` has {array.ndim} dimensions, but spacing_mm={spacing_mm} has {len(spacing_mm)} "
            "numbers. Distances in mm cannot be computed. Pass one for each of (x, y, z)."
        )
    return DoseMap.from_array(array, spacing_mm=spacing_mm, origin_mm=origin_mm, name=name)


def scale_factor(
    *, reference: DoseMap, evaluated: DoseMap, scale: Scale, prescription_gy: float | None
) -> float:
    """Factor for the evaluated map.

    Parameters
    ----------
    reference, evaluated : DoseMap
    scale : float, "match-integral", "match-prescription" or None
        "match-integral" makes the integrals over both whole maps equal; "match-prescription" makes
        the mean doses equal over the voxels where the reference receives at least 95 % of the
        prescription.
    prescription_gy : float, optional

    Returns
    -------
    float
        1 where nothing is asked for.

    Notes
    -----
    A least-squares factor against a noisy map is biased low; ratios of means are not.
    """
    if scale is None:
        return 1.0
    if not isinstance(scale, str):
        return float(scale)
    if scale == "match-integral":
        return reference.integral_gy_mm3 / evaluated.integral_gy_mm3
    assert prescription_gy is not None  # checked by the settings
    region = reference.dose_gy >= _PRESCRIPTION_REGION * prescription_gy
    if not region.any():
        raise InputError(
            f"`scale='match-prescription'`: no voxel of the reference reaches 95 % of {prescription_gy} Gy, "
            f"its maximum is {reference.max_gy:.4g} Gy. Check the prescription."
        )
    here = evaluated.interpolated_to(reference.grid).dose_gy[region].mean(dtype=np.float64)
    if here == 0:
        raise InputError(
            "`scale='match-prescription'`: the evaluated map holds no dose where the reference receives the "
            "prescription. Use scale='match-integral' or a factor."
        )
    return float(reference.dose_gy[region].mean(dtype=np.float64) / here)
