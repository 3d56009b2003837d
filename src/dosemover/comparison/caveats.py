"""What a user must know before reading a number of a comparison: errors and warnings about the maps."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dosemover.comparison.context import ComparisonContext
from dosemover.comparison.sentence import short
from dosemover.dose import DoseMap, uncertainty_of_batches
from dosemover.errors import AccuracyWarning, GridMismatchError, InputError, StatisticalWarning
from dosemover.metrics import center_shift
from dosemover.noise import noise_level
from dosemover.transport.measure import measure_pair

_TOLERATED_REBINNING_MM = 0.01
_KNOWN_WELL = 0.05
"""Relative uncertainty up to which one voxel may be what every percentage refers to."""
_ROUNDING = 1e-3
"""Difference between a map and its batches' mean that storing them in 16 bits may make (RMS)."""
_WITHIN_NOISE = 3.0
"""The same in units of the uncertainty that the batches give: an independent run differs by 1.4."""
_SAME_INTEGRAL = 0.01
_IMPLAUSIBLE = 0.5
"""Relative uncertainty, weighted with the squared dose, above which a map is rather no uncertainty."""


def warn_about_maps(context: ComparisonContext, *, distances: bool) -> None:
    """Every warning about a pair of maps and what belongs to them.

    Parameters
    ----------
    context : ComparisonContext
    distances : bool
        Whether a metric is wanted that brings both maps to one grid by averaging.
    """
    reference, evaluated = context.reference, context.evaluated
    warn_about_kinds(reference, evaluated)
    warn_about_masses(reference, evaluated)
    warn_about_outside(reference, evaluated)
    warn_about_places(reference, evaluated)
    if distances:
        warn_about_rebinning(reference, evaluated)
    warn_about_one_side(reference, evaluated)
    if context.settings.prescription_gy is None:
        warn_about_maximum(reference)
    if context.nothing_to_evaluate:
        warnings.warn(f"{context.nothing_to_evaluate}.", AccuracyWarning, stacklevel=3)


def check_noise(name: str, dose: DoseMap) -> None:
    """Refuse or doubt an uncertainty or batches that cannot be those of a map.

    Parameters
    ----------
    name : str
        "reference" or "evaluated": named in messages.
    dose : DoseMap

    Raises
    ------
    InputError
        When the uncertainty is the dose itself, or the batches have another scale than the dose.
    """
    if dose.batches_gy is not None:
        _check_batches(name, dose, dose.batches_gy)
    if dose.uncertainty_gy is not None:
        _check_uncertainty(name, dose, dose.uncertainty_gy)


def _check_batches(name: str, dose: DoseMap, batches: NDArray[Any]) -> None:
    """The mean of the batches is the map, up to rounding; as a warning where it is another run's."""
    mean = batches.mean(axis=0, dtype=np.float64)
    ratio = float(np.sum(mean)) / float(np.sum(dose.dose_gy, dtype=np.float64))
    if abs(ratio - 1) >= _SAME_INTEGRAL:
        raise InputError(
            f"the mean of the {len(batches)} batches of the {name} map holds {ratio:.4g} times its dose. "
            f"Their scatter is not the noise of this map{_scale_hint(ratio, len(batches))}. Pass batches "
            "whose mean is the map, or the map that they are the batches of."
        )
    difference = float(np.sqrt(np.sum((mean - dose.dose_gy) ** 2)))
    share = difference / float(np.sqrt(np.sum(np.square(dose.dose_gy, dtype=np.float64))))
    if share <= _ROUNDING:
        return
    noise = float(np.sqrt(np.sum(uncertainty_of_batches(batches) ** 2)))
    times = difference / noise if noise > 0 else np.inf
    cause = (
        "as much as two runs differ by their noise: are they of another run, or only some of its batches?"
        if times <= _WITHIN_NOISE
        else "more than noise makes: they are those of another map."
    )
    warnings.warn(
        f"the mean of the {len(batches)} batches of the {name} map is not the map: they differ by "
        f"{short(100 * share)} % (RMS), {short(times)} times the uncertainty that the batches give, {cause} "
        "Values come from the map, noise floors and p values from the batches. Pass the batches of this map, "
        "or their mean as the map.",
        StatisticalWarning,
        stacklevel=4,
    )


def _scale_hint(ratio: float, n: int) -> str:
    """What a factor between batches and map may come from."""
    if abs(ratio * n - 1) < _SAME_INTEGRAL:
        return f": they add up to it (multiply each by {n})"
    for factor in (0.01, 100.0):
        if abs(ratio / factor - 1) < _SAME_INTEGRAL:
            return ": one is in Gy, the other in cGy"
    return ": one may be per history, the other a total" if not 1e-3 < ratio < 1e3 else ""


def _check_uncertainty(name: str, dose: DoseMap, uncertainty: NDArray[Any]) -> None:
    """The uncertainty is small against the dose where that is high, and not the dose itself."""
    if np.allclose(uncertainty, dose.dose_gy, rtol=_ROUNDING, atol=0):
        raise InputError(
            f"the uncertainty of the {name} map is its dose, voxel by voxel: no difference could be told "
            "from noise. Pass the map of the standard uncertainty (k = 1), or leave it out."
        )
    weight = np.asarray(dose.dose_gy, dtype=np.float64)
    relative = float(np.vdot(weight, uncertainty)) / float(np.vdot(weight, weight))
    if relative > _IMPLAUSIBLE:
        warnings.warn(
            f"the uncertainty of the {name} map is {100 * relative:.3g} % of the dose where that is high: "
            "no difference can be told from such noise. Is it a dose, a relative uncertainty, or in another "
            "unit than the dose? It has to be the standard uncertainty (k = 1) in the unit of the dose, or "
            "relative and told so (--relative-uncertainty, uncertainty_kind='relative' of read_dose).",
            StatisticalWarning,
            stacklevel=4,
        )


def warn_about_one_side(reference: DoseMap, evaluated: DoseMap) -> None:
    """Warn where a map without uncertainty counts as exact beside one that has it, but is noisy itself."""
    sides = (("reference", reference, evaluated), ("evaluated", evaluated, reference))
    for name, one, other in sides:
        if one.uncertainty_gy is not None or other.uncertainty_gy is None:
            continue
        level = noise_level(one)
        if level.per_root_dose:
            warnings.warn(
                f"the {name} map comes without uncertainty and is taken as free of noise beside the other, "
                f"but its voxels scatter by about {short(level.relative_percent)} % where the dose is high: "
                "noise floors are too low, p values too small. Pass "
                f"--{name}-uncertainty or --{name}-batches.",
                StatisticalWarning,
                stacklevel=3,
            )


def warn_about_maximum(reference: DoseMap) -> None:
    """Warn where the voxel that every percentage refers to is poorly known, and name a better one."""
    if reference.uncertainty_gy is None:
        return
    dose, uncertainty = reference.dose_gy, reference.uncertainty_gy
    index = np.unravel_index(int(np.argmax(dose)), reference.grid.shape)
    relative = float(uncertainty[index] / dose[index])
    if relative <= _KNOWN_WELL:
        return
    z, y, x = (float(c[i]) for c, i in zip(reference.grid.centers_mm, index, strict=True))
    known = float(np.max(dose, where=uncertainty <= _KNOWN_WELL * dose, initial=0.0))
    better = (
        f"the highest dose known to {100 * _KNOWN_WELL:g} % is {known:.4g} Gy"
        if known > 0.5 * dose[index]
        else f"no voxel above half the maximum is known to {100 * _KNOWN_WELL:g} %"
    )
    warnings.warn(
        f"the reference maximum, {dose[index]:.4g} Gy at (x, y, z) = ({x:.4g}, {y:.4g}, {z:.4g}) mm, is one "
        f"voxel known to {short(100 * relative)} % only. Dose thresholds, percentages and the ambient dose "
        f"refer to it. Pass a dose that is known, best the prescription (--prescription GY): {better}.",
        StatisticalWarning,
        stacklevel=3,
    )


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


def warn_about_places(reference: DoseMap, evaluated: DoseMap) -> None:
    """Warn where the doses lie so far apart that their coordinates are in doubt."""
    from dosemover.moments import gaussian_moments

    found = gaussian_moments(reference.dose_gy, reference.grid)
    extent = float(np.sqrt(np.trace(found.covariance_mm2)))
    shift = np.array(center_shift(reference=reference, evaluated=evaluated).vector_mm)
    distance = float(np.linalg.norm(shift))
    if distance > extent:
        x, y, z = (f"{mm:.3g}" for mm in shift)
        warnings.warn(
            f"the centers of dose lie {distance:.3g} mm apart, (x, y, z) = ({x}, {y}, {z}) mm, further than "
            f"the reference dose extends ({extent:.3g} mm, root mean square). Are the maps in the same "
            "coordinates, and of the same patient? Compare their origins (dosemover info FILE).",
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
