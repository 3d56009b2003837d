"""Scores of dose prediction challenges: OpenKBP, SynthRAD and DoseRAD."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dosemover.dose import DoseMap
from dosemover.errors import InputError
from dosemover.grid import Grid
from dosemover.metrics.masks import require_one_grid, require_positive, threshold_mask

OPENKBP_ORGANS = (
    "Brainstem",
    "SpinalCord",
    "RightParotid",
    "LeftParotid",
    "Esophagus",
    "Larynx",
    "Mandible",
)
"""Organs at risk of OpenKBP, scored by D0.1cc and mean dose."""

OPENKBP_TARGETS = ("PTV56", "PTV63", "PTV70")
"""Targets of OpenKBP, scored by D99, D95 and D1."""


@dataclass(frozen=True, kw_only=True, eq=False)
class OpenKbpResult:
    """OpenKBP scores of one patient, or of several pooled.

    Parameters
    ----------
    dose_score : float
        Mean absolute dose difference over the possible-dose voxels [Gy].
    dvh_score : float or None
        Mean absolute difference of the DVH values [Gy]; None without a structure.
    dvh_differences_gy : mapping of (str, str) to float
        Absolute difference of each (DVH value, structure) [Gy].
    n_patients : int
    """

    dose_score: float
    dvh_score: float | None
    dvh_differences_gy: Mapping[tuple[str, str], float]
    n_patients: int = 1

    @property
    def status(self) -> str:
        """Either "ok" or why a score is missing."""
        return "ok" if self.dvh_score is not None else "no OpenKBP structure is present"


def openkbp_score(
    *,
    reference: DoseMap,
    evaluated: DoseMap,
    structures: Mapping[str, ArrayLike],
    possible_dose_mask: ArrayLike | None = None,
) -> OpenKbpResult:
    """Dose score and DVH score of the OpenKBP challenge, for one patient.

    Dose score = sum |D_eval - D_ref| / number of possible-dose voxels. DVH score = mean of the
    absolute differences of D0.1cc and mean dose of organs, D99, D95 and D1 of targets.

    Parameters
    ----------
    reference, evaluated : DoseMap
    structures : mapping of str to array_like of bool, shape [z, y, x]
        Voxels of each structure, under the challenge's names (`OPENKBP_ORGANS`,
        `OPENKBP_TARGETS`); other names are ignored, and empty masks count as absent.
    possible_dose_mask : array_like of bool, shape [z, y, x], optional
        Voxels that may get dose; those where the reference is above 0 unless given.

    Raises
    ------
    GridMismatchError
        When grids or masks do not fit.
    InputError
        When no voxel may get dose.

    Notes
    -----
    *Definition*: the sum runs over the whole map, the count over the mask. D_x is the (100 - x)th
    percentile of the voxels, D0.1cc the one that leaves max(1, round(100 / voxel mm3)) voxels above
    it, by linear interpolation of order statistics: unlike `Dvh`, which knows partial volumes.
    A structure of no more voxels than that has a D0.1cc of its least dose.
    *Matches*: the challenge's own evaluator to 1e-6.

    References
    ----------
    babier2021
    """
    grid = require_one_grid(reference=reference, evaluated=evaluated)
    a, b = reference.dose_gy.astype(np.float64), evaluated.dose_gy.astype(np.float64)
    possible = (
        a > 0
        if possible_dose_mask is None
        else grid.check_array("possible_dose_mask", possible_dose_mask) > 0
    )
    if not possible.any():
        raise InputError(
            "`possible_dose_mask` holds no voxel. The dose score has no denominator. Check the mask."
        )
    voxel_mm3 = float(np.mean(grid.voxel_volume_mm3))
    differences: dict[tuple[str, str], float] = {}
    for name in (*OPENKBP_ORGANS, *OPENKBP_TARGETS):
        if name not in structures:
            continue
        inside = grid.check_array(f"structures[{name!r}]", structures[name]) > 0
        if not inside.any():
            continue
        values = [_openkbp_values(name, dose[inside], voxel_mm3) for dose in (a, b)]
        for key, value in values[0].items():
            differences[key, name] = abs(value - values[1][key])
    return OpenKbpResult(
        dose_score=float(np.sum(np.abs(b - a))) / int(possible.sum()),
        dvh_score=float(np.mean(list(differences.values()))) if differences else None,
        dvh_differences_gy=differences,
    )


def _openkbp_values(name: str, dose: NDArray[Any], voxel_mm3: float) -> dict[str, float]:
    """DVH values of a structure as the challenge takes them [Gy]."""
    if name in OPENKBP_TARGETS:
        return {
            "D99": float(np.percentile(dose, 1)),
            "D95": float(np.percentile(dose, 5)),
            "D1": float(np.percentile(dose, 99)),
        }
    n_hottest = max(1.0, float(np.round(100.0 / voxel_mm3)))
    percentile = max(0.0, 100.0 - n_hottest / dose.size * 100.0)
    return {"D0.1cc": float(np.percentile(dose, percentile)), "mean": float(dose.mean())}


def pool_openkbp(results: Sequence[OpenKbpResult]) -> OpenKbpResult:
    """Scores of several patients: dose scores averaged, DVH differences pooled.

    Every DVH difference counts once, so that patients with more structures weigh more in the DVH
    score, as in the challenge.

    Raises
    ------
    InputError
        When there is no result.
    """
    if not results:
        raise InputError("`results` is empty. Scores cannot be averaged. Pass one result per patient.")
    keys = {key for result in results for key in result.dvh_differences_gy}
    every = [value for result in results for value in result.dvh_differences_gy.values()]
    mean = {
        key: float(np.mean([r.dvh_differences_gy[key] for r in results if key in r.dvh_differences_gy]))
        for key in sorted(keys)
    }
    return OpenKbpResult(
        dose_score=float(np.mean([result.dose_score for result in results])),
        dvh_score=float(np.mean(every)) if every else None,
        dvh_differences_gy=mean,
        n_patients=sum(result.n_patients for result in results),
    )


def synthrad_dose_score(
    *,
    reference: DoseMap,
    evaluated: DoseMap,
    prescription_gy: float,
    dose_threshold_percent: float = 90.0,
) -> float | None:
    """SynthRAD dose score: mean |D_eval - D_ref| over the prescription, in the high-dose region.

    Parameters
    ----------
    reference, evaluated : DoseMap
    prescription_gy : float
    dose_threshold_percent : float
        The region: reference dose at least this share of the prescription.

    Returns
    -------
    float or None
        A fraction (0.01 is 1 % of the prescription); None where no voxel reaches the region.

    Notes
    -----
    *Limits*: sees nothing outside the high-dose region of the reference.

    References
    ----------
    huijben2024
    """
    require_one_grid(reference=reference, evaluated=evaluated)
    require_positive("prescription_gy", prescription_gy)
    inside = threshold_mask(reference, percent=dose_threshold_percent, of_gy=prescription_gy)
    if not inside.any():
        return None
    d = evaluated.dose_gy[inside].astype(np.float64) - reference.dose_gy[inside].astype(np.float64)
    return float(np.mean(np.abs(d))) / prescription_gy


def doserad_masked_mae_percent(
    *, reference: DoseMap, evaluated: DoseMap, dose_threshold_percent: float = 10.0
) -> float | None:
    """DoseRAD masked MAE of one beam: mean |D_eval - D_ref| over the reference maximum [%].

    Parameters
    ----------
    reference, evaluated : DoseMap
        Dose of one beam or segment.
    dose_threshold_percent : float
        The region: reference dose at least this share of its maximum.

    Returns
    -------
    float or None
        None where the reference holds no dose.

    References
    ----------
    DoseRAD2026 challenge, "Metrics and ranking", level 1.1.
    """
    require_one_grid(reference=reference, evaluated=evaluated)
    if reference.max_gy <= 0:
        return None
    inside = threshold_mask(reference, percent=dose_threshold_percent)
    d = evaluated.dose_gy[inside].astype(np.float64) - reference.dose_gy[inside].astype(np.float64)
    return 100.0 * float(np.mean(np.abs(d))) / reference.max_gy


@dataclass(frozen=True, kw_only=True, eq=False)
class DepthDoseResult:
    """Integrated depth-dose curves of two maps along one direction.

    Parameters
    ----------
    distance_percent : float
        RMS difference of the curves over the peak of the reference's [%].
    depth_mm : ndarray, shape (n,)
        Position along the direction, from the first voxel inside the mask [mm].
    reference_gy_mm2, evaluated_gy_mm2 : ndarray, shape (n,)
        Dose integrated over the planes across [Gy mm2].
    """

    distance_percent: float
    depth_mm: NDArray[Any]
    reference_gy_mm2: NDArray[Any]
    evaluated_gy_mm2: NDArray[Any]


def depth_dose_distance(
    *,
    reference: DoseMap,
    evaluated: DoseMap,
    direction: Sequence[float],
    mask: ArrayLike | None = None,
    step_mm: float | None = None,
) -> DepthDoseResult | None:
    """Distance of the integrated depth-dose curves of two maps (DoseRAD).

    IDD(s) = integral of D over the plane at depth s along the beam; the distance is
    sqrt(mean over s of (IDD_eval - IDD_ref)^2) / max IDD_ref.

    Parameters
    ----------
    reference, evaluated : DoseMap
        Dose of one beam.
    direction : sequence of 3 floats
        Direction (x, y, z) in which the beam travels; any length.
    mask : array_like of bool, shape [z, y, x], optional
        The patient; doses outside it are left out, and depth starts at its surface.
    step_mm : float, optional
        Width of a depth bin [mm]; the smallest voxel width unless given.

    Returns
    -------
    DepthDoseResult or None
        None where the reference holds no dose inside the mask.

    Raises
    ------
    GridMismatchError
        When grids or mask do not fit.
    InputError
        When the direction has no length or no voxel lies in the mask.

    Notes
    -----
    *Definition*: the dose of a voxel is shared between the two depth bins nearest to its centre.
    *Limits*: parallel planes stand for a diverging beam; a lateral shift is invisible.

    References
    ----------
    DoseRAD2026 challenge, "Metrics and ranking", level 1.2.
    """
    grid = require_one_grid(reference=reference, evaluated=evaluated)
    unit = np.asarray(direction, dtype=np.float64)
    length = float(np.linalg.norm(unit))
    if unit.shape != (3,) or not np.isfinite(length) or length == 0:
        raise InputError(
            f"`direction` must be three finite numbers (x, y, z), not all 0, got {tuple(direction)}. "
            "Depth cannot be measured along it."
        )
    inside = np.ones(grid.shape, bool) if mask is None else grid.check_array("mask", mask) > 0
    if not inside.any():
        raise InputError("`mask` holds no voxel. Depth has no beginning. Check the patient contour.")
    smallest = min(float(w.min()) for w in grid.widths_mm)
    step = smallest if step_mm is None else require_positive("step_mm", step_mm)
    depth = _depths_mm(grid, unit / length)[inside]
    depth -= depth.min()
    volume = np.broadcast_to(grid.voxel_volume_mm3, grid.shape)[inside]
    curves = [_integrated(depth, dose.dose_gy[inside] * volume, step) for dose in (reference, evaluated)]
    peak = float(curves[0].max())
    if peak <= 0:
        return None
    rms = float(np.sqrt(np.mean((curves[1] - curves[0]) ** 2)))
    return DepthDoseResult(
        distance_percent=100.0 * rms / peak,
        depth_mm=step * np.arange(curves[0].size),
        reference_gy_mm2=curves[0],
        evaluated_gy_mm2=curves[1],
    )


def _depths_mm(grid: Grid, unit: NDArray[Any]) -> NDArray[Any]:
    """Position of each voxel centre along a direction (x, y, z) [mm]."""
    z, y, x = grid.centers_mm
    return unit[2] * z[:, None, None] + unit[1] * y[:, None] + unit[0] * x


def _integrated(depth: NDArray[Any], mass: NDArray[Any], step: float) -> NDArray[Any]:
    """Mass [Gy mm3] per depth [Gy mm2], shared between the two nearest bins."""
    position = depth / step
    low = np.floor(position + 1e-9).astype(np.int64)
    share = np.clip(position - low, 0.0, 1.0)
    n = int(low.max()) + 2
    curve = np.bincount(low, mass * (1 - share), minlength=n) + np.bincount(
        low + 1, mass * share, minlength=n
    )
    return curve[:-1] / step if curve[-1] == 0 else curve / step
