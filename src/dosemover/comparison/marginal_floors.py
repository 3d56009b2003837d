"""Floors of what the projections on the axes hold, from the projections of every batch: many relabellings."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from dosemover.comparison.noise_at_hand import NoiseAtHand
from dosemover.comparison.result import MetricResult
from dosemover.grid import Grid
from dosemover.noise import Relabellings, Significance, pooled_mean, significance
from dosemover.transport.line import line_w1, line_w2_squared

KEYS = ("center_shift_mm", "mean_shift_mm", "axis_w1_mm", "axis_w2_mm")
"""Metrics that read nothing but the projections."""

_RELABELLINGS, _FLOORS = 399, 99

_Projections = list[NDArray[np.float64]]
"""Mass along z, y and x; one map or batch a row."""


def marginal_floors(
    noise: NoiseAtHand, results: Mapping[str, MetricResult], *, draws: int | None, seed: int
) -> dict[str, Significance]:
    """Floors and significance of those of `KEYS` that have a value, from batches on one grid.

    Parameters
    ----------
    noise : NoiseAtHand
    results : mapping
    draws : int, optional
        Relabellings; 399 unless given: a second for W_2.
    seed : int
    """
    keys = [key for key in KEYS if key in results and results[key].value is not None]
    if not (keys and noise.by_batches):
        return {}
    first, second = noise.reference.batches_gy, noise.evaluated.batches_gy
    assert first is not None
    assert second is not None
    grid = noise.reference.grid
    rows = [
        np.concatenate(both) for both in zip(*(_projections(b, grid) for b in (first, second)), strict=True)
    ]
    ways = Relabellings(len(first), len(second))
    rng = np.random.default_rng(seed)
    chosen = np.vstack([ways.as_labelled, ways.relabelled(draws or _RELABELLINGS, rng)])
    nulls = _distances(keys, grid, *(_means(rows, chosen, sign) for sign in (-1, 1)))
    truth = _projections(pooled_mean(noise.reference, noise.evaluated).dose_gy[None], grid)
    resampled = ways.resampled(draws or _FLOORS, rng)
    around = []
    for side in (slice(0, ways.n), slice(ways.n, None)):
        pairs = zip(truth, rows, strict=True)
        around.append([np.maximum(t + resampled[:, side] @ row[side], 0.0) for t, row in pairs])
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


def _projections(doses: NDArray[np.floating], grid: Grid) -> _Projections:
    """Mass of maps [n, z, y, x] along each axis."""
    widths = [np.asarray(w) for w in grid.widths_mm]
    return [
        np.stack([np.einsum(f"zyx,z,y,x->{axis}", one, *widths, optimize=True) for one in doses])
        for axis in "zyx"
    ]


def _means(rows: _Projections, weights: NDArray[np.float64], sign: int) -> _Projections:
    """Projections of one side's mean: of the batches whose weight has this sign."""
    share = np.where(weights * sign > 0, np.abs(weights), 0.0)
    return [share @ row for row in rows]


def _distances(
    keys: list[str], grid: Grid, first: _Projections, second: _Projections
) -> dict[str, NDArray[np.float64]]:
    """Every wanted metric between two stacks of projections [mm]."""
    found: dict[str, NDArray[np.float64]] = {}
    shift = np.zeros(len(first[0]))
    squares = {"axis_w1_mm": np.zeros(len(shift)), "axis_w2_mm": np.zeros(len(shift))}
    for a, b, edges, centers in zip(first, second, grid.edges_mm, grid.centers_mm, strict=True):
        shift += (b @ centers / b.sum(axis=1) - a @ centers / a.sum(axis=1)) ** 2
        for i, (f, g) in enumerate(zip(_distribution(a), _distribution(b), strict=True)):
            if "axis_w1_mm" in keys:
                squares["axis_w1_mm"][i] += line_w1(edges, f, g) ** 2
            if "axis_w2_mm" in keys:
                squares["axis_w2_mm"][i] += line_w2_squared(edges, f, g)
    for key in keys:
        found[key] = np.sqrt(squares.get(key, shift))
    return found


def _distribution(mass: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distribution functions at the boundaries, one a row."""
    summed = np.cumsum(mass, axis=1)
    return np.concatenate([np.zeros((len(mass), 1)), summed / summed[:, -1:]], axis=1)
