"""Noise floors and significance of a comparison's metrics, from draws under the null."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from dosemover.comparison.context import ComparisonContext
from dosemover.comparison.registry import Family, run
from dosemover.comparison.result import MetricResult
from dosemover.errors import InputError
from dosemover.noise import nulls
from dosemover.noise.significance import Direction, significance

_VOXEL_DRAWS = 2_000_000
_FEWEST, _MOST = 9, 19

NO_UNCERTAINTY = (
    "no floor: neither map brings an uncertainty (--reference-uncertainty, --reference-batches, and the same "
    "for the evaluated map)"
)


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
    resampling each side's centred batches. Otherwise, with an uncertainty on at least one side, a
    parametric bootstrap with the spatial correlation of the noise (approximate).
    """
    reference, evaluated = context.reference, context.evaluated
    if reference.uncertainty_gy is None and evaluated.uncertainty_gy is None:
        return results
    modes = ("always",) if context.settings.null is None else ("always", "on request")
    todo = [family for family in families if family.name in wanted and family.null in modes]
    rng = np.random.default_rng(context.settings.seed)
    draws = draws_for(context)
    by_batches = (
        reference.batches_gy is not None
        and evaluated.batches_gy is not None
        and reference.grid.coincides_with(evaluated.grid)
    )
    permuted = None
    if by_batches:
        method = "exact p by relabelling batches, floor by resampling centred batches"
        pairs = nulls.resampled_pairs(reference=reference, evaluated=evaluated, draws=draws, rng=rng)
        floors = _collect(context, todo, wanted, pairs, draws)
        pairs = nulls.permuted_pairs(reference=reference, evaluated=evaluated, draws=draws, rng=rng)
        permuted = _collect(context, todo, wanted, pairs, draws)
    else:
        model = nulls.noise_model(reference=reference, evaluated=evaluated)
        rho = ", ".join(f"{r:.2f}" for r in model.correlation)
        method = f"approximate: parametric bootstrap, lag-1 correlation of the noise (z, y, x) {rho}"
        pairs = nulls.parametric_pairs(
            reference=reference, evaluated=evaluated, model=model, draws=draws, rng=rng
        )
        floors = _collect(context, todo, wanted, pairs, draws)
    judged = dict(results)
    for family in todo:
        for key in wanted[family.name]:
            null_values = None if permuted is None else permuted.get(key)
            judged[key] = _judged(results[key], floors.get(key), null_values, family.direction(key), method)
    return judged


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
    return replace(
        result,
        floor=found.floor,
        floor_sd=found.floor_sd,
        z=found.z,
        p=found.p,
        settings={**result.settings, "significance": method, "null_draws": found.n_draws},
    )
