"""Grids on which a costly metric's floor is drawn: the coarsest that does not falsify it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dosemover.dose import DoseMap
from dosemover.grid import Grid
from dosemover.noise.nulls import Pair

PILOTS = 4
_SURE = 0.62
"""Of the standard deviation of four values, what the true one exceeds with 95 %: root of 3 over 7.81, the
95th percentile of chi-square with 3 degrees of freedom."""
_FACTORS = (4, 2)
_FEWEST_VOXELS = 16
"""Axes are merged where at least this many voxels remain."""

Values = dict[str, float]
Evaluate = Callable[[DoseMap, DoseMap], Values]


def coarsened(dose: DoseMap, factor: int) -> DoseMap:
    """A map with voxels merged along every axis that is long enough; the integral is kept.

    Parameters
    ----------
    dose : DoseMap
    factor : int
        Voxels merged along an axis; the last voxel takes what is left over.

    Returns
    -------
    DoseMap
        Without uncertainty and batches.
    """
    edges = [_merged(axis, factor) for axis in dose.grid.edges_mm]
    z, y, x = edges
    grid = Grid(x_edges_mm=x, y_edges_mm=y, z_edges_mm=z)
    return replace(
        dose,
        dose_gy=dose.conserved_on(grid),
        grid=grid,
        uncertainty_gy=None,
        batches_gy=None,
        density_g_per_cm3=None,
        structures=(),
    )


def _merged(edges: NDArray[Any], factor: int) -> NDArray[Any]:
    """Every factor-th boundary and the last."""
    n = len(edges) - 1
    if n < factor * _FEWEST_VOXELS:
        return edges
    kept = edges[: n - n % factor + 1 : factor].copy()
    kept[-1] = edges[-1]
    return kept


def coarsest_factor(evaluate: Evaluate, pairs: Iterator[Pair]) -> int:
    """Largest merging of voxels that surely moves no metric's mean by more than its own scatter.

    Parameters
    ----------
    evaluate : callable
        Values of a family's metrics between two maps.
    pairs : iterator
        Pairs that differ by noise alone; four are used.

    Returns
    -------
    int
        1 where no merging will do.
    """
    pilots = [pair for pair, _ in zip(pairs, range(PILOTS), strict=False)]
    fine = [evaluate(*pair) for pair in pilots]
    for factor in _FACTORS:
        merged = [tuple(coarsened(one, factor) for one in pair) for pair in pilots]
        if any(one.grid.shape == pair[0].grid.shape for (one, _), pair in zip(merged, pilots, strict=True)):
            continue
        if _alike(fine, [evaluate(*pair) for pair in merged]):
            return factor
    return 1


def _alike(fine: list[Values], coarse: list[Values]) -> bool:
    """Whether the means of all metrics surely differ by less than the standard deviation on the fine grid."""
    for key in fine[0]:
        values, others = ([one.get(key, np.nan) for one in side] for side in (fine, coarse))
        if not abs(np.mean(others) - np.mean(values)) <= _SURE * np.std(values, ddof=1):
            return False
    return True
