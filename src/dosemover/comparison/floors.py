"""Noise floors and significance of a comparison's metrics, from draws under the null."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from dosemover.comparison.closed_floors import closed_floors
from dosemover.comparison.context import ComparisonContext
from dosemover.comparison.noise_at_hand import NoiseAtHand
from dosemover.comparison.registry import Family, run
from dosemover.comparison.result import MetricResult
from dosemover.errors import InputError
from dosemover.noise import nulls
from dosemover.noise.significance import Direction, Significance, significance

_VOXEL_DRAWS = 2_000_000
_FEWEST, _MOST = 9, 19


def draws_for(context: ComparisonContext) -> int:
    """Number of null draws: as asked for, else as many as the size of the maps allows in seconds."""
    if context.settings.null is not None:
        return context.settings.null
    voxels = context.reference.grid.n_voxels + context.evaluated.grid.n_voxels
    return int(np.clip(2 * _VOXEL_DRAWS // voxels, _FEWEST, _MOST))


def with_significance(
    context: ComparisonContext,
    families: Sequence[Family],
    wanted: dict[str, frozenset[str]],
    results: dict[str, MetricResult],
) -> dict[str, MetricResult]:
    """The results with floor, floor_sd, z and p where the noise of the maps is known.

    Batches on both sides of one grid: p by relabelling the pooled batches (exact), the floor by
    resampling each side's centred batches. Otherwise a parametric bootstrap with the uncertainties and
    the spatial correlation of the noise (approximate). Sums and mean squares need no drawn maps. Where
    the level of the noise had to be estimated from the maps, drawn maps are left to ``null``.
    """
    noise = context.noise
    if noise is None:
        return results
    asked = context.settings.null is not None
    exact = closed_floors(noise, results, draws=context.settings.null, seed=context.settings.seed)
    judged = {key: _with(results[key], exact[key]) if key in exact else results[key] for key in results}
    if noise.estimated and not asked:
        return judged
    modes = ("always", "on request") if asked else ("always",)
    todo = [f for f in families if f.null in modes and wanted.get(f.name, frozenset()) - exact.keys()]
    if not todo:
        return judged
    draws = draws_for(context)
    floors, permuted = _null_values(context, noise, todo, wanted, draws)
    for family in todo:
        for key in wanted[family.name] - exact.keys():
            null_values = None if permuted is None else permuted.get(key)
            judged[key] = _judged(
                results[key], floors.get(key), null_values, family.direction(key), noise.method
            )
    return judged


def _null_values(
    context: ComparisonContext,
    noise: NoiseAtHand,
    families: Sequence[Family],
    wanted: dict[str, frozenset[str]],
    draws: int,
) -> tuple[dict[str, list[float]], dict[str, list[float]] | None]:
    """Values under noise alone for the floor and, from batches, for the p value."""
    rng = np.random.default_rng(context.settings.seed)
    maps = {"reference": noise.reference, "evaluated": noise.evaluated}
    if not noise.by_batches:
        pairs = nulls.parametric_pairs(**maps, model=noise.model, draws=draws, rng=rng)
        return _collect(context, families, wanted, pairs, draws), None
    floors = _collect(context, families, wanted, nulls.resampled_pairs(**maps, draws=draws, rng=rng), draws)
    return floors, _collect(
        context, families, wanted, nulls.permuted_pairs(**maps, draws=draws, rng=rng), draws
    )


def _collect(
    context: ComparisonContext,
    families: Sequence[Family],
    wanted: dict[str, frozenset[str]],
    pairs: Iterable[nulls.Pair],
    draws: int,
) -> dict[str, list[float]]:
    """Values of every wanted metric over pairs of maps."""
    values: dict[str, list[float]] = {}
    for i, (reference, evaluated) in enumerate(pairs):
        context.progress(f"noise alone, draw {i + 1} of {draws}", i / draws)
        drawn = ComparisonContext(
            reference=reference,
            evaluated=evaluated,
            structures=context.structures,
            settings=context.settings,
            values_only=True,
        )
        for result in _run_each(families, drawn, wanted):
            if result.value is not None:
                values.setdefault(result.key, []).append(result.value)
    return values


def _run_each(
    families: Sequence[Family], context: ComparisonContext, wanted: dict[str, frozenset[str]]
) -> Iterator[MetricResult]:
    """Results of every family on one drawn pair."""
    for family in families:
        yield from run(family, context, wanted[family.name])


def _judged(
    result: MetricResult,
    floors: list[float] | None,
    permuted: list[float] | None,
    direction: Direction,
    method: str,
) -> MetricResult:
    """One result with its floor and significance, as far as they could be found."""
    if result.value is None or floors is None:
        return result
    try:
        found = significance(
            result.value, floor_values=floors, null_values=permuted, direction=direction, method=method
        )
    except InputError:
        return result
    return _with(result, found)


def _with(result: MetricResult, found: Significance) -> MetricResult:
    """A result with its floor and significance."""
    return replace(
        result,
        floor=found.floor,
        floor_sd=found.floor_sd,
        z=found.z,
        p=found.p,
        settings={**result.settings, "significance": found.method, "null_draws": found.n_draws},
    )
