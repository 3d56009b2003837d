"""A gamma evaluation between its public functions and the search: points, criteria, coverage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dosemover._runtime import Progress
from dosemover.dose import DoseMap
from dosemover.grid import COINCIDENCE_TOLERANCE_MM, Grid, interpolate
from dosemover.metrics import masks
from dosemover.metrics.gamma_result import DoseOutside, GammaResult
from dosemover.metrics.gamma_search import Found, GammaSearch

Criterion = tuple[float, float]
"""Dose criterion [%] and distance criterion [mm]."""


@dataclass(frozen=True, kw_only=True, eq=False)
class GammaTask:
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
    ) -> GammaTask:
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
        self, criteria: Sequence[Criterion], normalizations: Sequence[str]
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

    def _search(self, criterion: Criterion, normalization: str) -> Found:
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
        self, searched: Found, widest: Criterion, criterion: Criterion, normalization: str
    ) -> GammaResult:
        """Result at one criterion of a family, scaled from its widest."""
        dose_criterion_percent, distance_criterion_mm = criterion
        max_gamma = float(self.settings["max_gamma"])
        factor = widest[1] / distance_criterion_mm
        gamma = np.empty(searched.gamma.size, dtype=np.float32)
        np.multiply(searched.gamma, factor, out=gamma, casting="same_kind")
        np.minimum(gamma, np.float32(max_gamma), out=gamma)
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
