"""The gamma index, exact: the minimum over a continuous evaluated dose is found, not sampled."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dosemover._runtime import Progress, no_progress
from dosemover.dose import DoseMap
from dosemover.errors import AccuracyWarning, InputError
from dosemover.grid import COINCIDENCE_TOLERANCE_MM, Grid, interpolate
from dosemover.metrics import masks
from dosemover.metrics.gamma_result import DoseOutside, GammaResult, TwoSidedGammaResult
from dosemover.metrics.gamma_search import Found, GammaSearch

Normalization = Literal["global", "local"]
Interpolant = Literal["simplex", "grid"]
Criterion = tuple[float, float]


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
    task = _Task.prepare(
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
    converse = _Task.prepare(
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


@dataclass(frozen=True, kw_only=True, eq=False)
class _Task:
    """Everything about a gamma evaluation that does not depend on the criterion."""

    reference: DoseMap
    search: GammaSearch
    outside: DoseOutside
    settings: Mapping[str, Any]
    progress: Progress
    margin_mm: NDArray[np.float32] = field(repr=False)
    distance_mm: NDArray[np.float32] | None = field(repr=False)

    @property
    def normalization_dose_gy(self) -> float:
        """Dose that percentages refer to [Gy]."""
        return float(self.settings["normalization_dose_gy"])

    @classmethod
    def prepare(
        cls,
        *,
        reference: DoseMap,
        evaluated: DoseMap,
        normalization_dose_gy: float | None,
        dose_threshold_percent: float,
        max_gamma: float,
        interpolant: str,
        mask: ArrayLike | None,
        progress: Progress,
    ) -> _Task:
        """Points to evaluate, and where they lie in the evaluated box."""
        scale = masks.normalization_dose_gy(reference, normalization_dose_gy)
        chosen = masks.threshold_mask(reference, percent=dose_threshold_percent, of_gy=scale)
        weights = masks.voxel_weights(reference.grid, mask)
        inside = None if weights is None else np.asarray(weights >= 0.5)
        threshold_gy = dose_threshold_percent / 100.0 * scale
        outside = _dose_outside(reference, evaluated, threshold_gy, chosen, inside)
        if inside is not None:
            chosen = chosen & inside
        index = np.flatnonzero(chosen)
        margin, distance = _box_distances(reference.grid, evaluated.grid, index)
        return cls(
            reference=reference,
            search=GammaSearch(
                grid=reference.grid,
                index=index,
                dose_gy=reference.dose_gy.ravel()[index].astype(np.float64),
                evaluated=evaluated,
            ),
            outside=outside,
            settings={
                "interpolant": interpolant,
                "normalization_dose_gy": scale,
                "dose_threshold_percent": float(dose_threshold_percent),
                "dose_threshold_gy": threshold_gy,
                "max_gamma": max_gamma,
                "masked": mask is not None,
            },
            progress=progress,
            margin_mm=margin,
            distance_mm=distance,
        )

    def results(
        self, criteria: Sequence[Criterion], normalizations: Sequence[Normalization]
    ) -> dict[tuple[float, float, str], GammaResult]:
        """One result for each criterion and normalisation, in the order asked for."""
        found: dict[tuple[float, float, str], GammaResult] = {}
        for normalization in normalizations:
            for family in _families(criteria):
                widest = max(family, key=lambda criterion: criterion[1])
                searched = self._search(widest, normalization)
                for criterion in family:
                    key = (*criterion, normalization)
                    found[key] = self._result(searched, widest, criterion, normalization)
        order = [(*criterion, normalization) for normalization in normalizations for criterion in criteria]
        return {key: found[key] for key in order}

    def _search(self, criterion: Criterion, normalization: Normalization) -> Found:
        """One search of all points."""
        dose_criterion_percent, distance_criterion_mm = criterion
        per_percent = 100.0 / dose_criterion_percent
        return self.search.run(
            distance_criterion_mm=distance_criterion_mm,
            inverse_global=per_percent / self.normalization_dose_gy,
            inverse_local=per_percent if normalization == "local" else 0.0,
            max_gamma=float(self.settings["max_gamma"]),
            interpolant=str(self.settings["interpolant"]),
            progress=self.progress,
        )

    def _result(
        self, searched: Found, widest: Criterion, criterion: Criterion, normalization: Normalization
    ) -> GammaResult:
        """Result at one criterion of a family, scaled from its widest."""
        dose_criterion_percent, distance_criterion_mm = criterion
        max_gamma = float(self.settings["max_gamma"])
        factor = widest[1] / distance_criterion_mm
        values = np.sqrt(searched.square)
        values *= factor
        gamma = np.minimum(values, max_gamma, out=values).astype(np.float32)
        n_unreachable = 0
        if self.distance_mm is not None:
            n_unreachable = int(np.sum(self.distance_mm > max_gamma * distance_criterion_mm))
        return GammaResult(
            grid=self.reference.grid,
            index=self.search.index,
            values=gamma,
            closest=searched.closest,
            closest_criterion_mm=widest[1],
            dose_criterion_percent=dose_criterion_percent,
            distance_criterion_mm=distance_criterion_mm,
            normalization=normalization,
            n_search_outside=int(np.sum(gamma * np.float32(distance_criterion_mm) > self.margin_mm)),
            n_unreachable=n_unreachable,
            dose_outside=self.outside,
            settings=self.settings,
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


def _families(criteria: Sequence[Criterion]) -> list[list[Criterion]]:
    """Criteria grouped by their ratio of dose to distance."""
    families: dict[float, list[Criterion]] = {}
    for criterion in criteria:
        ratio = float(f"{criterion[0] / criterion[1]:.12g}")
        families.setdefault(ratio, []).append(criterion)
    return list(families.values())


def _box_distances(
    grid: Grid, evaluated: Grid, index: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """Distance [mm] of each point to the evaluated boundary from inside, and to the box from outside.

    The first is negative outside the box; an axis of one voxel has no boundary to be close to. The
    second is None where every reference voxel lies inside.
    """
    margins = []
    for centers, edges in zip(grid.centers_mm, evaluated.edges_mm, strict=True):
        margin = np.minimum(centers - edges[0], edges[-1] - centers)
        if edges.size == 2:
            margin = np.where(margin >= -COINCIDENCE_TOLERANCE_MM, np.inf, margin)
        margins.append(margin.astype(np.float32))
    z, y, x = margins
    nearest = np.minimum(np.minimum(z[:, None, None], y[:, None]), x).ravel()[index]
    if min(float(margin.min()) for margin in margins) >= 0:
        return nearest, None
    z, y, x = (np.minimum(margin, 0) ** 2 for margin in margins)
    return nearest, np.sqrt(z[:, None, None] + y[:, None] + x).ravel()[index]


def _dose_outside(
    reference: DoseMap,
    evaluated: DoseMap,
    threshold_gy: float,
    chosen: NDArray[np.bool_],
    inside: NDArray[np.bool_] | None,
) -> DoseOutside:
    """Evaluated dose at or above the threshold where the reference is below it, on the evaluated grid."""
    grid = evaluated.grid
    if reference.grid.coincides_with(grid):
        missed = (evaluated.dose_gy >= threshold_gy) & ~chosen
        if inside is not None:
            missed &= inside
    else:
        there = interpolate(reference.dose_gy, source=reference.grid, target=grid)
        missed = (evaluated.dose_gy >= threshold_gy) & (there < threshold_gy)
        if inside is not None:
            missed &= interpolate(inside, source=reference.grid, target=grid) >= 0.5
    doses = evaluated.dose_gy[missed]
    if doses.size == 0:
        return DoseOutside(n_voxels=0, max_gy=0.0, integral_percent=0.0)
    volumes = grid.voxel_volume_mm3[missed]
    return DoseOutside(
        n_voxels=int(doses.size),
        max_gy=float(doses.max()),
        integral_percent=100.0 * float(np.sum(doses * volumes)) / evaluated.integral_gy_mm3,
    )
