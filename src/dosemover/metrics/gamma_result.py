"""What a gamma evaluation returns: the values, where they came from, and what they do not cover."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dosemover.grid import Grid


@dataclass(frozen=True, kw_only=True)
class DoseOutside:
    """Evaluated dose at or above the threshold where the reference is below it: gamma is blind to it.

    Parameters
    ----------
    n_voxels : int
        Voxels of the evaluated grid.
    max_gy : float
        Largest evaluated dose there [Gy].
    integral_percent : float
        Its share of the integral of the evaluated map [%].
    """

    n_voxels: int
    max_gy: float
    integral_percent: float


@dataclass(frozen=True, kw_only=True, eq=False)
class GammaResult:
    """Gamma at the evaluated points, with its map, its parts and its coverage.

    Parameters
    ----------
    grid : Grid
        Grid of the reference.
    index : ndarray of int64, shape (points,)
        Flat indices of the evaluated voxels.
    values : ndarray of float32, shape (points,)
        Gamma there, at most ``max_gamma``.
    closest : ndarray of float32, shape (points, 4)
        Closest point of the evaluated map: displacement (x, y, z) and dose residual, in units of the
        criterion whose distance is ``closest_criterion_mm``. Shared by the criteria of one search.
    closest_criterion_mm : float
    dose_criterion_percent, distance_criterion_mm : float
    normalization : str
    n_search_outside : int
        Points whose search, a ball of radius gamma times the distance criterion, left the box of the
        evaluated map: dose beyond the box might have given a lower value.
    n_unreachable : int
        Points with no evaluated dose within the maximum search radius. They fail.
    dose_outside : DoseOutside
    settings : mapping
        "interpolant", "normalization_dose_gy", "dose_threshold_percent", "dose_threshold_gy",
        "max_gamma", "masked".
    """

    grid: Grid
    index: NDArray[np.int64] = field(repr=False)
    values: NDArray[np.float32] = field(repr=False)
    closest: NDArray[np.float32] = field(repr=False)
    closest_criterion_mm: float
    dose_criterion_percent: float
    distance_criterion_mm: float
    normalization: str
    n_search_outside: int
    n_unreachable: int
    dose_outside: DoseOutside
    settings: Mapping[str, Any]

    def __post_init__(self) -> None:
        for array in (self.index, self.values, self.closest):
            array.setflags(write=False)

    @property
    def key(self) -> str:
        """Criterion as metric keys spell it: "3_3_global", "1p5_1_local"."""
        numbers = (self.dose_criterion_percent, self.distance_criterion_mm)
        return "_".join([*(f"{value:g}".replace(".", "p") for value in numbers), self.normalization])

    @property
    def n_evaluated(self) -> int:
        """Number of evaluated points."""
        return int(self.index.size)

    @property
    def passing_rate_percent(self) -> float:
        """Share of the evaluated points with gamma <= 1 [%]; NaN where there are none."""
        return 100.0 * float(np.mean(self.values <= 1)) if self.n_evaluated else float("nan")

    @property
    def mean(self) -> float:
        """Mean gamma of the evaluated points, values above ``max_gamma`` counted as that."""
        return float(np.mean(self.values, dtype=np.float64)) if self.n_evaluated else float("nan")

    @property
    def search_outside_percent(self) -> float:
        """Share of the evaluated points whose search left the evaluated box [%]."""
        return 100.0 * self.n_search_outside / self.n_evaluated if self.n_evaluated else 0.0

    @cached_property
    def gamma(self) -> NDArray[np.float32]:
        """Gamma map, shape [z, y, x]; NaN where not evaluated."""
        return self._spread(self.values)

    @cached_property
    def displacement_mm(self) -> NDArray[np.float32]:
        """Vectors (x, y, z) from each voxel to its closest point [mm], shape [3, z, y, x].

        The distance-to-agreement field; NaN where not evaluated or where gamma reached its maximum.
        """
        vectors = np.empty((3, *self.grid.shape), dtype=np.float32)
        for component in range(3):
            vectors[component] = self._spread(self._closest(component, self.closest_criterion_mm))
        vectors.setflags(write=False)
        return vectors

    @property
    def distance_part(self) -> NDArray[np.float32]:
        """Distance to the closest point in units of the distance criterion, shape [z, y, x]."""
        return np.sqrt(np.sum(self.displacement_mm**2, axis=0)) / np.float32(self.distance_criterion_mm)

    @property
    def dose_part(self) -> NDArray[np.float32]:
        """Evaluated minus reference dose at the closest point, in dose criteria, shape [z, y, x].

        gamma^2 = distance_part^2 + dose_part^2; NaN where `displacement_mm` is.
        """
        return self._spread(self._closest(3, self.closest_criterion_mm / self.distance_criterion_mm))

    def _closest(self, component: int, factor: float) -> NDArray[np.float32]:
        """One component of the closest points, NaN where gamma reached its maximum."""
        values = self.closest[:, component] * np.float32(factor)
        values[self.values >= np.float32(self.settings["max_gamma"])] = np.nan
        return values

    def _spread(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Values of the evaluated points on the whole grid, NaN elsewhere, read-only."""
        spread = np.full(self.grid.n_voxels, np.nan, dtype=np.float32)
        spread[self.index] = values
        spread = spread.reshape(self.grid.shape)
        spread.setflags(write=False)
        return spread

    def summary(self) -> dict[str, float | str]:
        """One flat row: rate, mean, coverage and settings."""
        return {
            "key": self.key,
            "passing_rate_percent": self.passing_rate_percent,
            "mean": self.mean,
            "n_evaluated": self.n_evaluated,
            "n_unreachable": self.n_unreachable,
            "search_outside_percent": self.search_outside_percent,
            "dose_outside_voxels": self.dose_outside.n_voxels,
            "dose_outside_max_gy": self.dose_outside.max_gy,
            "dose_outside_integral_percent": self.dose_outside.integral_percent,
            **self.settings,
        }

    def citations(self) -> tuple[str, ...]:
        """Keys into docs/references.bib of what to cite for this result."""
        base = ("low1998", "miften2018")
        return (*base, "ju2008") if self.settings["interpolant"] == "simplex" else base


@dataclass(frozen=True, kw_only=True, eq=False)
class TwoSidedGammaResult:
    """Gamma in both directions on the reference grid; the larger of the two counts.

    Parameters
    ----------
    forward : GammaResult
        Reference voxels, searched for in the evaluated map.
    backward : GammaResult
        Evaluated dose at reference voxels, searched for in the reference map.
    """

    forward: GammaResult
    backward: GammaResult

    @property
    def key(self) -> str:
        """Criterion as metric keys spell it."""
        return self.forward.key

    @cached_property
    def gamma(self) -> NDArray[np.float32]:
        """Larger gamma of the two directions, shape [z, y, x]; NaN where neither is evaluated."""
        larger = np.fmax(self.forward.gamma, self.backward.gamma)
        larger.setflags(write=False)
        return larger

    @property
    def n_evaluated(self) -> int:
        """Number of voxels evaluated in either direction."""
        return int(np.sum(~np.isnan(self.gamma)))

    @property
    def passing_rate_percent(self) -> float:
        """Share of the voxels evaluated in either direction that pass in each [%]."""
        return 100.0 * float(np.sum(self.gamma <= 1)) / self.n_evaluated

    @property
    def mean(self) -> float:
        """Mean of the larger gamma."""
        return float(np.nanmean(self.gamma, dtype=np.float64))

    @property
    def dose_outside(self) -> DoseOutside:
        """What the forward direction is blind to."""
        return self.forward.dose_outside

    def summary(self) -> dict[str, float | str]:
        """One flat row: rates of both directions and of the larger."""
        return {
            "key": self.key,
            "passing_rate_percent": self.passing_rate_percent,
            "mean": self.mean,
            "n_evaluated": self.n_evaluated,
            "forward_passing_rate_percent": self.forward.passing_rate_percent,
            "backward_passing_rate_percent": self.backward.passing_rate_percent,
            "dose_outside_voxels": self.dose_outside.n_voxels,
            "dose_outside_max_gy": self.dose_outside.max_gy,
            "dose_outside_integral_percent": self.dose_outside.integral_percent,
            **self.forward.settings,
        }

    def citations(self) -> tuple[str, ...]:
        """Keys into docs/references.bib of what to cite for this result."""
        return self.forward.citations()
