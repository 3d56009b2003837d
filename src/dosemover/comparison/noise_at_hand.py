"""What is known about the noise of the two maps of a comparison."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from dosemover.dose import DoseMap
from dosemover.noise import (
    NoiseLevel,
    NoiseModel,
    distant_variance,
    noise_correlation,
    noise_level,
    noise_model,
    parametric_pairs,
    resampled_pairs,
    undamped,
)
from dosemover.noise.nulls import Pair

_HIGH_SHARE = 0.2
"""Share of the high dose above which the correlation of noise of unknown level is looked at."""

_MOST_SIGMA = 4.0
"""Differences beyond this are no noise to learn a correlation from."""
VARIANCE_ERROR = 0.1
"""Relative standard error of the variance over distant voxels, from medians of few independent ones."""
LEVEL_UNCERTAINTY = 0.25
"""Relative standard uncertainty of an estimated noise level: noise need not go with the root of the dose."""

ESTIMATED = "approximate: noise level estimated from the maps"


@dataclass(frozen=True, kw_only=True, eq=False)
class NoiseAtHand:
    """The maps with their uncertainty, given or estimated.

    Parameters
    ----------
    reference, evaluated : DoseMap
        With ``uncertainty_gy`` where the noise is known; a map with none counts as free of noise.
    levels : tuple of NoiseLevel
        Of (reference, evaluated), where estimated; empty where given.
    """

    reference: DoseMap
    evaluated: DoseMap
    levels: tuple[NoiseLevel, ...] = ()

    @property
    def estimated(self) -> bool:
        """Whether the level of the noise comes from the maps themselves."""
        return bool(self.levels)

    @property
    def on_one_grid(self) -> bool:
        """Whether voxels can be compared without interpolation."""
        return self.reference.grid.coincides_with(self.evaluated.grid)

    @property
    def by_batches(self) -> bool:
        """Whether batches can be relabelled: both maps have them, on one grid."""
        return (
            self.reference.batches_gy is not None
            and self.evaluated.batches_gy is not None
            and self.on_one_grid
        )

    @property
    def can_resample(self) -> bool:
        """Whether the batches can be recombined: of two, centred, nothing is left but a sign."""
        sides = (self.reference.batches_gy, self.evaluated.batches_gy)
        return self.by_batches and min(len(side) for side in sides if side is not None) > 2

    @property
    def needs_correlation(self) -> bool:
        """Whether a map's noise is known voxel by voxel only, not from batches."""
        return any(
            m.uncertainty_gy is not None and m.batches_gy is None for m in (self.reference, self.evaluated)
        )

    @cached_property
    def model(self) -> NoiseModel:
        """Spatial correlation of the noise."""
        error = VARIANCE_ERROR if self.estimated else 0.0
        return noise_model(reference=self.reference, evaluated=self.evaluated, variance_error=error)

    @property
    def method(self) -> str:
        """How floors and p values are found, for the settings of a metric."""
        if self.by_batches:
            how = "by resampling centred batches" if self.can_resample else "from the uncertainties"
            return f"exact p by relabelling batches, floor {how}"
        rho = ", ".join(f"{r:.2f}" for r in self.model.correlation.lag_1)
        source = "batches" if self.model.source == "batches" else "the difference of the maps"
        start = ESTIMATED if self.estimated else "approximate: uncertainty maps"
        return (
            f"{start}, correlation of the noise from {source} (lag 1 in z, y, x {rho}; sums scatter "
            f"{np.sqrt(self.model.correlation.inflation):.2f} times as much as those of independent voxels)"
            f"{self._free_of_noise}"
        )

    @property
    def _free_of_noise(self) -> str:
        """Which map counts as exact, in words."""
        for name, dose in (("reference", self.reference), ("evaluated map", self.evaluated)):
            if dose.uncertainty_gy is None:
                return f"; the {name}, without uncertainty, is taken as free of noise"
        return ""

    def null_pairs(self, *, draws: int, rng: np.random.Generator, as_stated: bool = False) -> Iterator[Pair]:
        """Pairs of maps around the pooled mean with each side's own noise.

        Parameters
        ----------
        draws : int
        rng : numpy.random.Generator
        as_stated : bool
            As for `noise.parametric_pairs`; batches need no such thing.
        """
        if self.can_resample:
            return resampled_pairs(reference=self.reference, evaluated=self.evaluated, draws=draws, rng=rng)
        return self.parametric_pairs(draws=draws, rng=rng, as_stated=as_stated)

    def parametric_pairs(
        self, *, draws: int, rng: np.random.Generator, as_stated: bool = False
    ) -> Iterator[Pair]:
        """The same from the uncertainties and the correlation, even where there are batches.

        An estimated level is drawn anew for each pair, as far as it is in doubt.
        """
        return parametric_pairs(
            reference=self.reference,
            evaluated=self.evaluated,
            model=self.model,
            draws=draws,
            rng=rng,
            as_stated=as_stated,
            level_error=LEVEL_UNCERTAINTY if self.estimated else 0.0,
        )


def noise_at_hand(*, reference: DoseMap, evaluated: DoseMap) -> NoiseAtHand | None:
    """The noise as given, else as estimated; None where neither is there.

    Parameters
    ----------
    reference, evaluated : DoseMap
    """
    if reference.uncertainty_gy is not None or evaluated.uncertainty_gy is not None:
        return NoiseAtHand(reference=reference, evaluated=evaluated)
    levels = (noise_level(reference), noise_level(evaluated))
    if not any(level.per_root_dose for level in levels):
        return None
    levels = _with_correlation(reference, evaluated, levels)
    first, second = (
        replace(dose, uncertainty_gy=level.uncertainty_gy(dose)) if level.per_root_dose else dose
        for level, dose in zip(levels, (reference, evaluated), strict=True)
    )
    return NoiseAtHand(reference=first, evaluated=second, levels=levels)


def _with_correlation(
    reference: DoseMap, evaluated: DoseMap, levels: tuple[NoiseLevel, NoiseLevel]
) -> tuple[NoiseLevel, ...]:
    """The levels with what the correlation of the noise takes from second differences put back.

    One map does not tell correlated noise from dose; the difference of two does, where both are noisy
    alike. Its variance over voxels too far apart to share noise bounds what its correlation may explain.
    """
    here = evaluated.interpolated_to(reference.grid).dose_gy
    mean = (np.asarray(reference.dose_gy, dtype=np.float64) + here) / 2
    high = mean > _HIGH_SHARE * max(level.high_dose_gy for level in levels)
    scaled = np.where(high, (here - reference.dose_gy) / np.sqrt(np.where(high, mean, 1.0)), np.nan)
    near = sum(level.per_root_dose**2 for level in levels)
    distant = distant_variance(scaled)
    if distant is None or distant <= near:
        return levels
    most = _MOST_SIGMA * float(np.sqrt(distant))
    usual = np.where(np.abs(scaled) <= most, scaled, np.nan)
    correlation = noise_correlation(usual, variance=distant, variance_error=VARIANCE_ERROR)
    mended = tuple(undamped(one, correlation, shape=reference.grid.shape) for one in levels)
    total = sum(level.per_root_dose**2 for level in mended)
    share = float(np.sqrt(min(distant / total, 1.0)))
    return tuple(replace(one, per_root_dose=share * one.per_root_dose) for one in mended)
