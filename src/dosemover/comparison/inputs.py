"""From what the caller passes to two dose maps that can be compared."""

from __future__ import annotations

import warnings
from os import PathLike
from typing import Any

import numpy as np

from dosemover.comparison.settings import Scale
from dosemover.dose import DoseMap
from dosemover.errors import AccuracyWarning, GridMismatchError, InputError
from dosemover.transport.measure import measure_pair

_PRESCRIPTION_REGION = 0.95
"""Share of the prescription above which ``match-prescription`` compares mean doses."""

_TOLERATED_REBINNING_MM = 0.01


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
    return dose


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


def warn_about_masses(reference: DoseMap, evaluated: DoseMap) -> None:
    """Warn where the integrals differ so much that the units are in doubt."""
    ratio = evaluated.integral_gy_mm3 / reference.integral_gy_mm3
    if not 0.5 <= ratio <= 2.0:
        hint = ""
        for factor, which in ((0.01, "evaluated"), (100.0, "reference")):
            if 0.8 <= ratio * factor <= 1.25:
                hint = f", --scale {factor:g} if the {which} map is in cGy and the other in Gy"
        warnings.warn(
            f"the integral of the evaluated map is {ratio:.4g} times that of the reference: are they in the "
            "same unit, for the same number of fractions or histories? Every number below depends on it. "
            f"Use scale= (--scale FACTOR|match-integral|match-prescription{hint}).",
            AccuracyWarning,
            stacklevel=3,
        )


_KINDS = {
    "FrameOfReferenceUID": "lie in different frames of reference: without a registration their positions do "
    "not compare",
    "DoseType": "are doses of different type",
    "DoseSummationType": "sum up different things",
}
"""DICOM attributes in which two maps that are compared should agree, and what it means if they do not."""


def warn_about_kinds(reference: DoseMap, evaluated: DoseMap) -> None:
    """Warn where two RT Doses say themselves that they are of different kinds."""
    for key, meaning in _KINDS.items():
        first, second = (str(one.source.get(key, "")) for one in (reference, evaluated))
        if first and second and first != second:
            values = "" if key.endswith("UID") else f" ({key} {first} and {second})"
            warnings.warn(
                f"the maps {meaning}{values}. Check that these are the files to compare.",
                AccuracyWarning,
                stacklevel=3,
            )
    for one, whose in ((reference, "reference"), (evaluated, "evaluated map")):
        if one.source.get("DoseType") == "ERROR":
            warnings.warn(
                f"the {whose} is of DoseType ERROR: it holds differences between desired and planned dose, "
                "no dose. Name the file with the dose.",
                AccuracyWarning,
                stacklevel=3,
            )


def warn_about_rebinning(reference: DoseMap, evaluated: DoseMap) -> None:
    """Warn where a common grid blurs the evaluated map, and by how much."""
    if reference.grid.coincides_with(evaluated.grid):
        return
    try:
        moved = measure_pair(reference=reference, evaluated=evaluated).averaged_mm
    except GridMismatchError:  # no common grid: every distance says so itself
        return
    if moved > _TOLERATED_REBINNING_MM:
        warnings.warn(
            "the maps lie on different voxels, in too many or too thin pieces to compare exactly: averaging "
            f"the evaluated map over larger ones moves its dose by up to {moved:.2g} mm. The certified "
            "intervals of transport are widened by that; values below it mean nothing. Compute both maps on "
            "one grid, or crop them.",
            AccuracyWarning,
            stacklevel=3,
        )


def warn_about_outside(reference: DoseMap, evaluated: DoseMap) -> None:
    """Warn about dose that voxelwise metrics cannot see because it lies outside the other grid."""
    if reference.grid.coincides_with(evaluated.grid):
        return
    for this, other, whose in (
        (reference, evaluated, "reference"),
        (evaluated, reference, "evaluated"),
    ):
        inside = float(np.sum(this.conserved_on(other.grid) * other.grid.voxel_volume_mm3, dtype=np.float64))
        share = 100 * (1 - inside / this.integral_gy_mm3)
        if share > 0.01:
            warnings.warn(
                f"{share:.3g} % of the {whose} map's integral dose lies outside the other map's grid: "
                "voxelwise metrics count the other map as 0 there.",
                AccuracyWarning,
                stacklevel=3,
            )
