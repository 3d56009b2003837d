"""What every metric family of a comparison works from, computed once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from numpy.typing import NDArray

from dosemover._runtime import Progress, no_progress
from dosemover.comparison.noise_at_hand import NoiseAtHand, noise_at_hand
from dosemover.comparison.result import FieldMap, MetricResult
from dosemover.comparison.settings import CompareSettings
from dosemover.dose import DoseMap, Structure


@dataclass(kw_only=True, eq=False)
class ComparisonContext:
    """Two maps, their settings, and what the families leave for each other and for the result.

    Parameters
    ----------
    reference, evaluated : DoseMap
        On their own grids, the evaluated one scaled.
    structures : tuple of Structure
    settings : CompareSettings
    progress : callable
    values_only : bool
        Only the values are wanted, not maps, bounds or profiles: a draw under the null.
    """

    reference: DoseMap
    evaluated: DoseMap
    settings: CompareSettings
    structures: tuple[Structure, ...] = ()
    progress: Progress = no_progress
    values_only: bool = False
    maps: dict[str, FieldMap] = field(default_factory=dict)
    profiles: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    regions: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    dvh_values: dict[str, dict[str, dict[str, float | None]]] = field(default_factory=dict)
    dvh_curves: dict[str, dict[str, NDArray[Any]]] = field(default_factory=dict)

    @cached_property
    def evaluated_here(self) -> DoseMap:
        """The evaluated map at the reference's voxels."""
        return self.evaluated.interpolated_to(self.reference.grid)

    @cached_property
    def noise(self) -> NoiseAtHand | None:
        """The noise of the two maps, as given or estimated; None where there is none to be seen."""
        return noise_at_hand(reference=self.reference, evaluated=self.evaluated)

    @property
    def normalization_dose_gy(self) -> float:
        """Prescription, or the reference maximum where none is given [Gy]."""
        return self.settings.prescription_gy or self.reference.max_gy

    @property
    def threshold_of_maximum_percent(self) -> float:
        """The dose threshold for metrics that take it in % of the reference maximum."""
        return self.settings.dose_threshold_percent * self.normalization_dose_gy / self.reference.max_gy

    @property
    def nothing_to_evaluate(self) -> str:
        """Why no voxel lies above the dose threshold, and what to do; empty where some do."""
        percent, full = self.settings.dose_threshold_percent, self.normalization_dose_gy
        if percent / 100 * full <= self.reference.max_gy:
            return ""
        return (
            f"no voxel of the reference reaches the dose threshold, {percent:g} % of the prescription of "
            f"{full:.4g} Gy: its maximum is {self.reference.max_gy:.4g} Gy. Check the prescription (Gy, of "
            "as many fractions as the maps), or lower the dose threshold"
        )


def missing(key: str, unit: str, reason: str, **settings: Any) -> MetricResult:
    """A metric that has no value, and why."""
    return MetricResult(key=key, value=None, unit=unit, settings=settings, status=reason)
