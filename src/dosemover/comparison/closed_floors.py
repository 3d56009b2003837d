"""Floors of sums and mean squares without drawing maps: many relabellings, or closed forms."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from dosemover.comparison.noise_at_hand import LEVEL_UNCERTAINTY, NoiseAtHand
from dosemover.comparison.result import MetricResult
from dosemover.noise import (
    BatchPermutations,
    Significance,
    combined_variance,
    debiased_significance,
    significance,
    square_significance,
    sum_significance,
)

_RELABELLINGS = 999

KEYS = frozenset({"mass_ratio", "mean_difference_gy", "rmse_gy", "mse_gy2", "debiased_rmse_gy"})
"""Metrics that have such floors."""

Judge = Callable[[str, float], Significance]


def closed_floors(
    noise: NoiseAtHand, results: Mapping[str, MetricResult], *, draws: int | None, seed: int
) -> dict[str, Significance]:
    """Floors and significance of those of `KEYS` that have a value.

    Parameters
    ----------
    noise : NoiseAtHand
        With both maps on one grid; otherwise nothing is returned.
    results : mapping
    draws : int, optional
        Relabellings; 999 unless given.
    seed : int
    """
    if not noise.on_one_grid:
        return {}
    keys = [key for key in KEYS if key in results and results[key].value is not None]
    if not noise.reference.grid.is_even:
        keys = [key for key in keys if key != "mass_ratio"]
    if not keys:
        return {}
    values = {key: float(results[key].value or 0.0) for key in keys}
    if not noise.by_batches:
        judge = _by_variance(noise)
        return {key: judge(key, value) for key, value in values.items()}
    judge = _by_batches(noise, draws or _RELABELLINGS, seed)
    found = {key: judge(key, value) for key, value in values.items()}
    if noise.can_resample:
        return found
    scatter = _by_variance(noise)
    return {
        key: replace(scatter(key, values[key]), p=one.p, n_draws=one.n_draws, method=one.method)
        for key, one in found.items()
    }


def _by_batches(noise: NoiseAtHand, draws: int, seed: int) -> Judge:
    """Exact p by relabelling the pooled batches."""
    first, second = noise.reference.batches_gy, noise.evaluated.batches_gy
    assert first is not None
    assert second is not None
    rng = np.random.default_rng(seed)
    pool = BatchPermutations(first, second)
    nulls, floors = pool.relabelled(draws, rng), pool.resampled(draws, rng)
    return partial(_judge_batches, pool, nulls, floors, noise.method)


def _judge_batches(
    pool: BatchPermutations,
    nulls: NDArray[np.float64],
    floors: NDArray[np.float64],
    method: str,
    key: str,
    value: float,
) -> Significance:
    """One metric from the Gram matrix or the sums of the batches; ranked is what their means read."""

    def statistic(weights: NDArray[np.float64], noise: NDArray[np.float64]) -> NDArray[np.float64]:
        if key == "debiased_rmse_gy":
            square = pool.mean_squares(weights) - noise
            return np.copysign(np.sqrt(np.abs(square)), square)
        if key in ("rmse_gy", "mse_gy2"):
            square = pool.mean_squares(weights)
            return np.sqrt(square) if key == "rmse_gy" else square
        shift = pool.mean_differences(weights)
        center = float(pool.sums.mean())
        return shift if key == "mean_difference_gy" else (center + shift / 2) / (center - shift / 2)

    labelled = pool.as_labelled
    own = pool.mean_squares(labelled) - pool.cross_batch_mean_squares(labelled)
    relabelled = pool.mean_squares(nulls) - pool.cross_batch_mean_squares(nulls)
    return significance(
        value,
        floor_values=list(statistic(floors, own)),
        null_values=list(statistic(nulls, relabelled)),
        direction="both" if key in ("mass_ratio", "mean_difference_gy") else "larger",
        method=method,
        ranked=float(statistic(labelled, own)[0]),
    )


def _by_variance(noise: NoiseAtHand) -> Judge:
    """Closed form from the uncertainties and the correlation of the noise."""
    here = noise.evaluated.interpolated_to(noise.reference.grid)
    variance = combined_variance(reference=noise.reference, evaluated=here)
    assert variance is not None
    doubt = LEVEL_UNCERTAINTY if noise.estimated else 0.0
    correlation = noise.model.correlation
    n = variance.size
    total = float(variance.sum())
    square_variance = 2 * float(np.sum(variance**2)) * correlation.squared_inflation / n**2
    square_variance += (2 * doubt * total / n) ** 2
    deviation = float(np.sqrt(correlation.sum_variance(np.sqrt(variance)))) / n
    center = float(np.mean(noise.reference.dose_gy, dtype=np.float64))

    def judge(key: str, value: float) -> Significance:
        method = f"closed form, {noise.method}"
        if key in ("rmse_gy", "mse_gy2"):
            return square_significance(
                value, mean=total / n, variance=square_variance, root=key == "rmse_gy", method=method
            )
        if key == "debiased_rmse_gy":
            return debiased_significance(value, mean=total / n, variance=square_variance, method=method)
        freedom = 1 / (1 / correlation.freedom + 2 * doubt**2) if doubt else correlation.freedom
        if key == "mean_difference_gy":
            return sum_significance(value, center=0.0, deviation=deviation, method=method, freedom=freedom)
        spread = deviation / center
        return sum_significance(value, center=1.0, deviation=spread, method=method, freedom=freedom)

    return judge
