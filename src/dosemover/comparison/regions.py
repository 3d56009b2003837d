"""Where the difference is real, and what share of each metric comes from regions of low sampling."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dosemover import transport
from dosemover.comparison.context import ComparisonContext
from dosemover.comparison.noise_at_hand import NoiseAtHand
from dosemover.comparison.result import FieldMap, MetricResult
from dosemover.dose import DoseMap
from dosemover.noise import nulls
from dosemover.noise.regions import low_sampling, significant_voxels

LOW_SAMPLING_PERCENT = 10.0
_DRAWS = 19
_MOST_VOXELS = 1_000_000
_REACH_HALF = 0.5

_FIELDS = ("dmd_index_mm", "gain_loss_gy")
"""Solver fields that are compared with their own noise where draws are asked for."""


def with_regions(context: ComparisonContext, results: dict[str, MetricResult]) -> dict[str, MetricResult]:
    """Masks into the comparison's maps, and shares from low sampling into the metrics' settings.

    ``low_sampling_mask``: the relative uncertainty exceeds 10 %. ``significant_mask``: the difference,
    averaged over 3 x 3 x 3 voxels, exceeds what noise alone reaches anywhere in the map;
    ``dmd_index_significant_mask`` and ``gain_loss_significant_mask``: the same of the solvers' fields,
    where ``null`` is given.
    """
    noise = context.noise
    if noise is None:
        return results
    here = noise.evaluated.interpolated_to(noise.reference.grid)
    low = low_sampling(reference=noise.reference, evaluated=here, limit_percent=LOW_SAMPLING_PERCENT)
    asked = context.settings.null is not None
    if asked or (not noise.estimated and context.reference.grid.n_voxels <= _MOST_VOXELS):
        _significant(context, noise, here)
    if low is None:
        return results
    label = f"relative uncertainty above {LOW_SAMPLING_PERCENT:g} %"
    context.maps["low_sampling_mask"] = _mask(context, low, label)
    weights = dict(_weights(context, results))
    return {
        key: _with_share(result, weights[key], low) if key in weights else result
        for key, result in results.items()
    }


def _mask(context: ComparisonContext, values: NDArray[np.bool_], label: str) -> FieldMap:
    """A mask on the reference's grid."""
    return FieldMap(values=values.astype(np.float32), grid=context.reference.grid, unit="", label=label)


def _with_share(result: MetricResult, weight: NDArray[Any], low: NDArray[np.bool_]) -> MetricResult:
    """A result with the share of its value that comes from low sampling."""
    total = float(np.nansum(weight))
    if total <= 0:
        return result
    share = 100 * float(np.nansum(weight[low])) / total
    return replace(result, settings={**result.settings, "low_sampling_share_percent": share})


def _weights(
    context: ComparisonContext, results: dict[str, MetricResult]
) -> Iterable[tuple[str, NDArray[Any]]]:
    """What each voxel of the reference's grid adds to a metric, where metrics are sums over voxels."""
    maps, grid = context.maps, context.reference.grid
    if "difference_gy" in maps:
        d = np.asarray(maps["difference_gy"].values, dtype=np.float64)
        yield from (("mae_gy", np.abs(d)), ("relative_mae_percent", np.abs(d)))
        yield from (("mse_gy2", d**2), ("rmse_gy", d**2))
    for name in (n for n in maps if n.startswith("gamma_")):
        gamma = np.asarray(maps[name].values, dtype=np.float64)
        yield f"{name}_mean", gamma
        yield f"{name}_passing_rate_percent", (gamma > 1).astype(np.float64)
    if "dmd_index_mm" in maps and maps["dmd_index_mm"].grid.coincides_with(grid):
        mean = (context.reference.dose_gy + np.asarray(context.evaluated_here.dose_gy)) / 2
        yield "dmd_mm", np.square(maps["dmd_index_mm"].values, dtype=np.float64) * mean
    if {"gain_loss_gy", "flow_mm"} <= maps.keys() and maps["flow_mm"].grid.coincides_with(grid):
        change = np.abs(np.asarray(maps["gain_loss_gy"].values, dtype=np.float64))
        flow = np.linalg.norm(np.asarray(maps["flow_mm"].values, dtype=np.float64), axis=0)
        moved = flow * context.reference.max_gy
        yield "kr_mm", moved + _REACH_HALF * context.settings.reach_mm * change
        yield "kr_moved_mm", moved


def _significant(context: ComparisonContext, noise: NoiseAtHand, here: DoseMap) -> None:
    """Masks of what noise alone does not reach, from draws under the null."""
    count = min(context.settings.null or _DRAWS, _DRAWS)
    if count < 2:
        return
    rng = np.random.default_rng(context.settings.seed)
    maps = {"reference": noise.reference, "evaluated": noise.evaluated}
    if noise.by_batches:
        pairs = list(nulls.resampled_pairs(**maps, draws=count, rng=rng))
    else:
        pairs = list(nulls.parametric_pairs(**maps, model=noise.model, draws=count, rng=rng))
    fields = [_averaged(one, two.interpolated_to(one.grid)) for one, two in pairs]
    found = significant_voxels(_averaged(noise.reference, here), fields)
    label = f"difference real, 3 x 3 x 3 voxels, {100 * found.level:.0f} % false alarms in the whole map"
    context.maps["significant_mask"] = _mask(context, found.mask, label)
    if context.settings.null is None:
        return
    for name in (n for n in _FIELDS if n in context.maps):
        drawn = [_solver_field(context, name, *pair) for pair in pairs]
        found = significant_voxels(np.asarray(context.maps[name].values), drawn)
        label = f"{context.maps[name].label} beyond its own noise, {100 * found.level:.0f} % false alarms"
        context.maps[f"{name.rsplit('_', 1)[0]}_significant_mask"] = FieldMap(
            values=found.mask.astype(np.float32), grid=context.maps[name].grid, unit="", label=label
        )


def _averaged(one: DoseMap, two: DoseMap) -> NDArray[np.float64]:
    """Difference averaged over 3 voxels along each axis [Gy]."""
    from scipy.ndimage import uniform_filter

    return uniform_filter(np.subtract(two.dose_gy, one.dose_gy, dtype=np.float64), size=3, mode="nearest")


def _solver_field(context: ComparisonContext, name: str, one: DoseMap, two: DoseMap) -> NDArray[Any]:
    """The index map of the Dose Mover's Distance, or the flat norm's gain and loss, of one drawn pair."""
    settings = context.settings
    if name == "gain_loss_gy":
        found = transport.flat_norm(reference=one, evaluated=two, reach_mm=settings.reach_mm)
        return np.asarray(found.fields["gain_loss_gy"])
    found = transport.dose_movers_distance(
        reference=one,
        evaluated=two,
        exchange_mm_per_percent=settings.exchange_mm_per_percent,
        ambient_dose_percent=settings.ambient_dose_percent,
        bounds=False,
    )
    return np.asarray(found.fields["index_mm"])
