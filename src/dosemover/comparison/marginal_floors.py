"""Floors of what projections on the axes and moments of degree 2 hold, from those of every batch."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from dosemover.comparison.noise_at_hand import NoiseAtHand
from dosemover.comparison.result import MetricResult
from dosemover.grid import Grid
from dosemover.moments.moment_noise import gaussian_statistic
from dosemover.moments.tally import tally_density
from dosemover.noise import Relabellings, Significance, pooled_mean, significance
from dosemover.transport.line import line_w1, line_w2_squared

KEYS = ("center_shift_mm", "mean_shift_mm", "axis_w1_mm", "axis_w2_mm", "bures_w2_mm")
"""Metrics that read nothing but the projections, and the Gaussian bound, which reads moments of degree 2."""

_RELABELLINGS, _FLOORS = 399, 99

_Sums = list[NDArray[np.float64]]
"""Mass along z, y and x, and the moments to degree 2 where they are asked for; one map or batch a row."""


def marginal_floors(
    noise: NoiseAtHand, results: Mapping[str, MetricResult], *, draws: int | None, seed: int
) -> dict[str, Significance]:
    """Floors and significance of those of `KEYS` that have a value, from 3 batches a side or more.

    Parameters
    ----------
    noise : NoiseAtHand
    results : mapping
    draws : int, optional
        Relabellings; 399 unless given: a second for W_2.
    seed : int
    """
    keys = [key for key in KEYS if key in results and results[key].value is not None]
    if not (keys and noise.can_resample):
        return {}
    first, second = noise.reference.batches_gy, noise.evaluated.batches_gy
    assert first is not None
    assert second is not None
    grid = noise.reference.grid
    moments = "bures_w2_mm" in keys
    sums = [_sums(batches, grid, moments=moments) for batches in (first, second)]
    rows = [np.concatenate(both) for both in zip(*sums, strict=True)]
    ways = Relabellings(len(first), len(second))
    rng = np.random.default_rng(seed)
    chosen = np.vstack([ways.as_labelled, ways.relabelled(draws or _RELABELLINGS, rng)])
    nulls = _distances(keys, grid, *(_means(rows, chosen, sign) for sign in (-1, 1)))
    truth = _sums(pooled_mean(noise.reference, noise.evaluated).dose_gy[None], grid, moments=moments)
    resampled = ways.resampled(draws or _FLOORS, rng)
    around = []
    for side in (slice(0, ways.n), slice(ways.n, None)):
        drawn = [t + resampled[:, side] @ row[side] for t, row in zip(truth, rows, strict=True)]
        around.append([np.maximum(mass, 0.0) for mass in drawn[:3]] + drawn[3:])
    floors = _distances(keys, grid, *around)
    return {
        key: significance(
            float(nulls[key][0]),
            floor_values=list(floors[key]),
            null_values=list(nulls[key][1:]),
            method=noise.method,
        )
        for key in keys
    }


def _sums(doses: NDArray[np.floating], grid: Grid, *, moments: bool) -> _Sums:
    """Mass of maps [n, z, y, x] along each axis; with ``moments`` their tensors to degree 2, one a row."""
    widths = [np.asarray(w) for w in grid.widths_mm]
    sums = [
        np.stack([np.einsum(f"zyx,z,y,x->{axis}", one, *widths, optimize=True) for one in doses])
        for axis in "zyx"
    ]
    if moments:
        sums.append(np.stack([tally_density(one, grid, degree=2).tensor.ravel() for one in doses]))
    return sums


def _means(rows: _Sums, weights: NDArray[np.float64], sign: int) -> _Sums:
    """Sums of one side's mean: of the batches whose weight has this sign."""
    share = np.where(weights * sign > 0, np.abs(weights), 0.0)
    return [share @ row for row in rows]


def _distances(keys: list[str], grid: Grid, first: _Sums, second: _Sums) -> dict[str, NDArray[np.float64]]:
    """Every wanted metric between two stacks of sums [mm]."""
    found: dict[str, NDArray[np.float64]] = {}
    shift = np.zeros(len(first[0]))
    squares = {"axis_w1_mm": np.zeros(len(shift)), "axis_w2_mm": np.zeros(len(shift))}
    for a, b, edges, centers in zip(first[:3], second[:3], grid.edges_mm, grid.centers_mm, strict=True):
        shift += (b @ centers / b.sum(axis=1) - a @ centers / a.sum(axis=1)) ** 2
        for i, (f, g) in enumerate(zip(_distribution(a), _distribution(b), strict=True)):
            if "axis_w1_mm" in keys:
                squares["axis_w1_mm"][i] += line_w1(edges, f, g) ** 2
            if "axis_w2_mm" in keys:
                squares["axis_w2_mm"][i] += line_w2_squared(edges, f, g)
    for key in keys:
        found[key] = np.sqrt(squares.get(key, shift))
    if "bures_w2_mm" in keys:
        halves = np.array([(high - low) / 2 for low, high in grid.box_mm])
        tensors = (rows[3].reshape(-1, 3, 3, 3) for rows in (first, second))
        found["bures_w2_mm"] = gaussian_statistic(halves)(*(t / t[:, :1, :1, :1] for t in tensors))
    return found


def _distribution(mass: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distribution functions at the boundaries, one a row."""
    summed = np.cumsum(mass, axis=1)
    return np.concatenate([np.zeros((len(mass), 1)), summed / summed[:, -1:]], axis=1)
