"""The gamma index, exact: the minimum over a continuous evaluated dose is found, not sampled."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from dosemover._runtime import Progress, no_progress
from dosemover.dose import DoseMap
from dosemover.errors import AccuracyWarning, InputError
from dosemover.metrics import masks
from dosemover.metrics.gamma_result import GammaResult, TwoSidedGammaResult
from dosemover.metrics.gamma_task import Criterion, GammaTask

Normalization = Literal["global", "local"]
Interpolant = Literal["simplex", "grid"]


def gamma_index(
    *,
    reference: DoseMap,
    evaluated: DoseMap,
    dose_criterion_percent: float = 3.0,
    distance_criterion_mm: float = 3.0,
    normalization: Normalization = "global",
    normalization_dose_gy: float | None = None,
    dose_threshold_percent: float = 10.0,
    max_gamma: float = 2.0,
    interpolant: Interpolant = "simplex",
    mask: ArrayLike | None = None,
    progress: Progress | None = None,
) -> GammaResult:
    r"""Gamma index of every reference voxel above the dose threshold.

    .. math::

        \gamma(r) = \min_x \sqrt{\frac{|x - r|^2}{\Delta d^2}
                    + \frac{(D_e(x) - D_r(r))^2}{\Delta D^2}}

    Parameters
    ----------
    reference : DoseMap
        Its voxel centres r are the points that gamma is evaluated at.
    evaluated : DoseMap
        The map that is searched, on its own grid, which need not be that of the reference.
    dose_criterion_percent : float
        Dose criterion [%] of the normalisation dose (global) or of the reference dose at r (local).
    distance_criterion_mm : float
        Distance criterion, Delta d [mm].
    normalization : {"global", "local"}
    normalization_dose_gy : float, optional
        Dose that percentages refer to [Gy], for instance the prescription; the maximum of the whole
        reference map unless given. It carries the threshold in local mode too.
    dose_threshold_percent : float
        Voxels with a reference dose below this percentage of the normalisation dose are not evaluated.
    max_gamma : float
        Search limit: larger values are reported as this. Above 1; it changes the mean, no passing rate.
    interpolant : {"simplex", "grid"}
        "simplex": dose linear on each tetrahedron of the Kuhn split of the cells between voxel
        centres. "grid": voxel centres alone, as SlicerRT and plastimatch compare by default.
    mask : array_like of bool or fraction, shape reference.grid.shape, optional
        Evaluate inside it only (at least half filled).
    progress : callable, optional
        ``progress(what, fraction)``.

    Returns
    -------
    GammaResult

    Raises
    ------
    InputError
        When a setting is out of range, or no voxel is left to evaluate.
    GridMismatchError
        When the mask is not on the reference grid.
    UnitError
        When a map is not in gray.

    Warns
    -----
    AccuracyWarning
        When points have no evaluated dose within their search radius: they fail, and stay in the rate.

    Notes
    -----
    *Definition*: Low et al. 1998; a point passes when gamma <= 1, read in single precision. The
    minimum over each tetrahedron is its closest point to (r, D_r) in the four-dimensional space of
    scaled position and dose (Ju et al. 2008), so the value is exact for that interpolant. Between
    the outermost voxel centres and the boundary of the map the dose is constant, as in
    `dosemover.grid.interpolate`: a slice holds its dose over its thickness.

    *Limits*: gamma is not symmetric: a hot spot where the reference is below the threshold is not
    seen (``dose_outside`` reports it, `gamma_two_sided` searches for it). Noise in the evaluated map
    lowers gamma, noise in the reference raises it. The simplex interpolant has a diagonal: mirrored
    maps can differ in the third decimal, and from trilinear interpolation by up to 0.2 on 4 mm
    voxels at 1 %/1 mm.

    *Cost*: about half a microsecond a point and core where maps agree, three times that where all
    fails; memory about 12 bytes a voxel and 40 a point.

    *Matches*: SlicerRT's stored gamma volume voxel by voxel with ``interpolant="grid"``
    (tests/test_gamma_published.py); pymedphys from below, as it samples the same minimum.

    References
    ----------
    low1998, ju2008, miften2018.

    Examples
    --------
    >>> import numpy as np
    >>> from dosemover.dose import DoseMap
    >>> ramp = np.arange(1.0, 21.0)
    >>> a = DoseMap.from_array(ramp, spacing_mm=(2.0,))
    >>> b = DoseMap.from_array(ramp, spacing_mm=(2.0,), origin_mm=(1.0, 0.0, 0.0))
    >>> result = gamma_index(reference=a, evaluated=b)
    >>> round(result.passing_rate_percent, 1), round(float(result.gamma[0, 0, 10]), 4)
    (100.0, 0.3095)
    """
    results = gamma_indices(
        reference=reference,
        evaluated=evaluated,
        criteria=((dose_criterion_percent, distance_criterion_mm),),
        normalizations=(normalization,),
        normalization_dose_gy=normalization_dose_gy,
        dose_threshold_percent=dose_threshold_percent,
        max_gamma=max_gamma,
        interpolant=interpolant,
        mask=mask,
        progress=progress,
    )
    return next(iter(results.values()))


def gamma_indices(
    *,
    reference: DoseMap,
    evaluated: DoseMap,
    criteria: Sequence[Criterion] = ((3.0, 3.0), (2.0, 2.0), (1.0, 1.0)),
    normalizations: Sequence[Normalization] = ("global", "local"),
    normalization_dose_gy: float | None = None,
    dose_threshold_percent: float = 10.0,
    max_gamma: float = 2.0,
    interpolant: Interpolant = "simplex",
    mask: ArrayLike | None = None,
    progress: Progress | None = None,
) -> dict[tuple[float, float, str], GammaResult]:
    """Gamma at several criteria, sharing every search that can be shared.

    Parameters
    ----------
    reference, evaluated : DoseMap
    criteria : sequence of (float, float)
        Pairs of dose criterion [%] and distance criterion [mm].
    normalizations : sequence of {"global", "local"}
    normalization_dose_gy, dose_threshold_percent, max_gamma, interpolant, mask, progress
        As in `gamma_index`.

    Returns
    -------
    dict
        Keys (dose criterion, distance criterion, normalization), values `GammaResult`.

    Raises
    ------
    InputError, GridMismatchError, UnitError
        As `gamma_index`.

    Notes
    -----
    Criteria of one ratio, such as 3/3, 2/2 and 1/1, differ by a factor: one search at the widest
    serves them all. *Cost*: one search for each ratio and normalisation.

    Examples
    --------
    >>> a = DoseMap.from_array([1.0, 2.0, 3.0], spacing_mm=(2.0,))
    >>> b = DoseMap.from_array([1.0, 2.0, 3.05], spacing_mm=(2.0,))
    >>> results = gamma_indices(reference=a, evaluated=b, criteria=((3, 3), (1, 1)))
    >>> [result.key for result in results.values()]
    ['3_3_global', '1_1_global', '3_3_local', '1_1_local']
    """
    _check(
        criteria=criteria,
        normalizations=normalizations,
        dose_threshold_percent=dose_threshold_percent,
        max_gamma=max_gamma,
        interpolant=interpolant,
    )
    task = GammaTask.prepare(
        reference=reference.require_gray(),
        evaluated=evaluated.require_gray(),
        normalization_dose_gy=normalization_dose_gy,
        dose_threshold_percent=dose_threshold_percent,
        max_gamma=float(max_gamma),
        interpolant=interpolant,
        mask=mask,
        progress=no_progress if progress is None else progress,
    )
    if task.search.index.size == 0:
        raise InputError(
            f"no reference voxel {'inside the mask ' if mask is not None else ''}reaches "
            f"{dose_threshold_percent} % of {task.normalization_dose_gy:.4g} Gy. A passing rate of no points "
            "has no meaning. Lower `dose_threshold_percent`, or check the normalisation dose and the mask."
        )
    results = task.results(criteria, normalizations)
    _warn_unreachable(results.values())
    return results


def gamma_two_sided(
    *,
    reference: DoseMap,
    evaluated: DoseMap,
    dose_criterion_percent: float = 3.0,
    distance_criterion_mm: float = 3.0,
    normalization: Normalization = "global",
    normalization_dose_gy: float | None = None,
    dose_threshold_percent: float = 10.0,
    max_gamma: float = 2.0,
    interpolant: Interpolant = "simplex",
    mask: ArrayLike | None = None,
    progress: Progress | None = None,
) -> TwoSidedGammaResult:
    """Larger of the gamma of the reference against the evaluated map and of the converse.

    Parameters
    ----------
    reference, evaluated : DoseMap
    dose_criterion_percent, distance_criterion_mm, normalization, normalization_dose_gy
        As in `gamma_index`. The normalisation dose is one for both directions, that of the reference;
        local criteria follow the map whose voxels are looked up.
    dose_threshold_percent, max_gamma, interpolant, mask, progress
        As in `gamma_index`; each map is evaluated where its own dose reaches the threshold.

    Returns
    -------
    TwoSidedGammaResult
        On the reference grid.

    Raises
    ------
    InputError, GridMismatchError, UnitError
        As `gamma_index`.

    Notes
    -----
    *Definition*: forward, reference voxels search the evaluated map; backward, the evaluated dose at
    reference voxel centres (trilinear where the grids differ) searches the reference map. A voxel is
    evaluated where either dose reaches the threshold, and takes the larger gamma of those it has.
    *Limits*: evaluated dose beyond the box of the reference grid takes no part; `dose_outside` of the
    forward result reports it. *Cost*: twice `gamma_index`.

    Examples
    --------
    >>> a = DoseMap.from_array([0.0, 0.0, 0.0, 0.0, 10.0, 10.0], spacing_mm=(5.0,))
    >>> b = DoseMap.from_array([0.0, 40.0, 0.0, 0.0, 10.0, 10.0], spacing_mm=(5.0,))
    >>> two = gamma_two_sided(reference=a, evaluated=b)
    >>> two.forward.passing_rate_percent, round(two.passing_rate_percent, 1)
    (100.0, 66.7)
    """
    forward = gamma_index(
        reference=reference,
        evaluated=evaluated,
        dose_criterion_percent=dose_criterion_percent,
        distance_criterion_mm=distance_criterion_mm,
        normalization=normalization,
        normalization_dose_gy=normalization_dose_gy,
        dose_threshold_percent=dose_threshold_percent,
        max_gamma=max_gamma,
        interpolant=interpolant,
        mask=mask,
        progress=progress,
    )
    converse = GammaTask.prepare(
        reference=evaluated.interpolated_to(reference.grid),
        evaluated=reference,
        normalization_dose_gy=float(forward.settings["normalization_dose_gy"]),
        dose_threshold_percent=dose_threshold_percent,
        max_gamma=float(max_gamma),
        interpolant=interpolant,
        mask=mask,
        progress=no_progress if progress is None else progress,
    )
    results = converse.results(((dose_criterion_percent, distance_criterion_mm),), (normalization,))
    return TwoSidedGammaResult(forward=forward, backward=next(iter(results.values())))


def _check(
    *,
    criteria: Sequence[Criterion],
    normalizations: Sequence[str],
    dose_threshold_percent: float,
    max_gamma: float,
    interpolant: str,
) -> None:
    """Refuse settings that no gamma is defined for."""
    for dose_criterion_percent, distance_criterion_mm in criteria:
        masks.require_positive("dose_criterion_percent", dose_criterion_percent)
        masks.require_positive("distance_criterion_mm", distance_criterion_mm)
    for normalization in normalizations:
        if normalization not in ("global", "local"):
            raise InputError(
                f"`normalization` must be 'global' or 'local', got {normalization!r}. "
                "The dose criterion in Gy does not follow from it. Choose one of the two."
            )
    if not (np.isfinite(max_gamma) and max_gamma > 1):
        raise InputError(
            f"`max_gamma` must be finite and above 1, got {max_gamma}. Failing points could not be told "
            "from passing ones. 2 is usual."
        )
    if interpolant not in ("simplex", "grid"):
        raise InputError(
            f"`interpolant` must be 'simplex' or 'grid', got {interpolant!r}. Between voxel centres the "
            "dose is not defined by it. Choose 'simplex', or 'grid' to compare with SlicerRT."
        )
    if "local" in normalizations and not dose_threshold_percent > 0:
        raise InputError(
            f"`dose_threshold_percent` must be positive with local normalisation, got "
            f"{dose_threshold_percent}. A percentage of no dose is no criterion. 10 is usual."
        )


def _warn_unreachable(results: Iterable[GammaResult]) -> None:
    """Say once how many points fail because the evaluated map does not reach them."""
    worst = max(results, key=lambda result: result.n_unreachable)
    if worst.n_unreachable:
        reach_mm = worst.settings["max_gamma"] * worst.distance_criterion_mm
        warnings.warn(
            f"{worst.n_unreachable} of {worst.n_evaluated} evaluated points have no evaluated dose within "
            f"{reach_mm:.4g} mm. They fail, and count in the passing rate. Check that both maps cover the "
            "same region, or pass a mask.",
            AccuracyWarning,
            stacklevel=3,
        )
