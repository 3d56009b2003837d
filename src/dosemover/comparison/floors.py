"""Noise floors and significance of a comparison's metrics, from draws under the null."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from dosemover.comparison.closed_floors import closed_floors
from dosemover.comparison.coarse_floors import PILOTS, coarsened, coarsest_factor
from dosemover.comparison.context import ComparisonContext, missing
from dosemover.comparison.histories import with_histories
from dosemover.comparison.marginal_floors import marginal_floors
from dosemover.comparison.noise_at_hand import LEVEL_UNCERTAINTY, NoiseAtHand
from dosemover.comparison.registry import Family, run
from dosemover.comparison.result import MetricResult
from dosemover.comparison.settings import CompareSettings
from dosemover.dose import DoseMap
from dosemover.errors import InputError
from dosemover.noise import nulls, square_significance
from dosemover.noise.significance import Direction, Significance, significance

_VOXEL_DRAWS = 2_000_000
_FEWEST, _MOST = 9, 19
_STUDENTIZED = frozenset({"chi2_per_voxel"})
"""Divided by an uncertainty from the same batches: recombined batches would keep the uncertainty as it is,
and miss what its own scatter adds. Relabelled ones have their own, and a real difference cancels in them."""


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
    the level of the noise had to be estimated from the maps, drawn maps are left to ``null``. Costly
    metrics are drawn on the coarsest grid on which the floor's error stays below its own standard
    deviation, and their value there is what is compared (settings ``null_grid``).
    """
    if context.noise is None:
        return results
    return with_histories(_judge_all(context, context.noise, families, wanted, results))


def _judge_all(
    context: ComparisonContext,
    noise: NoiseAtHand,
    families: Sequence[Family],
    wanted: dict[str, frozenset[str]],
    results: dict[str, MetricResult],
) -> dict[str, MetricResult]:
    """Every result that can be judged, judged."""
    asked = context.settings.null is not None
    how = {"draws": context.settings.null, "seed": context.settings.seed}
    exact = closed_floors(noise, results, **how) | marginal_floors(noise, results, **how)
    judged = {key: _with(results[key], exact[key]) if key in exact else results[key] for key in results}
    if noise.estimated:
        judged = {key: one if key in exact else _with_doubt(one) for key, one in judged.items()}
        if not asked:
            return judged
    modes = ("always", "on request") if asked else ("always",)
    todo = [f for f in families if f.null in modes and wanted.get(f.name, frozenset()) - exact.keys()]
    if not todo:
        return judged
    draws = draws_for(context)
    cheap = [family for family in todo if family.null == "always"]
    groups = ([cheap] if cheap else []) + [[family] for family in todo if family.null != "always"]
    for group in groups:
        costly = group[0].null != "always"
        factor = _factor(context, noise, group[0], wanted, draws) if costly else 1
        found = _null_values(context, noise, group, wanted, draws, factor)
        observed = _observed(context, group, wanted, results, factor)
        for family in group:
            for key in wanted[family.name] - exact.keys():
                judged[key] = _judged(results[key], observed, found, family.direction(key), noise, factor)
    return judged


def _factor(
    context: ComparisonContext,
    noise: NoiseAtHand,
    family: Family,
    wanted: dict[str, frozenset[str]],
    draws: int,
) -> int:
    """How many voxels a costly family's draws merge along an axis."""
    if draws <= 2 * PILOTS:
        return 1
    pairs = _floor_pairs(noise, PILOTS, np.random.default_rng(context.settings.seed))

    def evaluate(one: DoseMap, two: DoseMap) -> dict[str, float]:
        found = run(family, _drawn(context, one, two), wanted[family.name])
        return {result.key: result.value for result in found if result.value is not None}

    return coarsest_factor(evaluate, iter(pairs))


def _observed(
    context: ComparisonContext,
    families: Sequence[Family],
    wanted: dict[str, frozenset[str]],
    results: dict[str, MetricResult],
    factor: int,
) -> dict[str, MetricResult]:
    """The values that are compared with the draws: on their grid."""
    if factor == 1:
        return results
    drawn = _drawn(context, *(coarsened(one, factor) for one in (context.reference, context.evaluated)))
    return {result.key: result for result in _run_each(families, drawn, wanted)}


def _floor_pairs(noise: NoiseAtHand, draws: int, rng: np.random.Generator) -> Iterator[nulls.Pair]:
    """Pairs around the pooled mean with each side's own noise."""
    maps = {"reference": noise.reference, "evaluated": noise.evaluated}
    if noise.by_batches:
        return nulls.resampled_pairs(**maps, draws=draws, rng=rng)
    return nulls.parametric_pairs(**maps, model=noise.model, draws=draws, rng=rng)


def _null_values(
    context: ComparisonContext,
    noise: NoiseAtHand,
    families: Sequence[Family],
    wanted: dict[str, frozenset[str]],
    draws: int,
    factor: int,
) -> tuple[dict[str, list[float]], dict[str, list[float]] | None]:
    """Values under noise alone for the floor and, from batches, for the p value."""
    rng = np.random.default_rng(context.settings.seed)
    quick = noise.by_batches and context.settings.null is None  # the p value takes its own draws
    floor_draws = min(draws, _FEWEST) if quick else draws
    floors = _collect(context, families, wanted, _floor_pairs(noise, floor_draws, rng), floor_draws, factor)
    if not noise.by_batches:
        return floors, None
    pairs = nulls.permuted_pairs(reference=noise.reference, evaluated=noise.evaluated, draws=draws, rng=rng)
    return floors, _collect(context, families, wanted, pairs, draws, factor)


def _drawn(context: ComparisonContext, reference: DoseMap, evaluated: DoseMap) -> ComparisonContext:
    """A context of two drawn maps, of which only the values are wanted."""
    return ComparisonContext(
        reference=reference,
        evaluated=evaluated,
        structures=context.structures,
        settings=context.settings,
        values_only=True,
    )


def _collect(
    context: ComparisonContext,
    families: Sequence[Family],
    wanted: dict[str, frozenset[str]],
    pairs: Iterable[nulls.Pair],
    draws: int,
    factor: int,
) -> dict[str, list[float]]:
    """Values of every wanted metric over pairs of maps."""
    values: dict[str, list[float]] = {}
    for i, pair in enumerate(pairs):
        context.progress(f"noise alone, draw {i + 1} of {draws}", i / draws)
        one, two = pair if factor == 1 else (coarsened(dose, factor) for dose in pair)
        for result in _run_each(families, _drawn(context, one, two), wanted):
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
    observed: dict[str, MetricResult],
    drawn: tuple[dict[str, list[float]], dict[str, list[float]] | None],
    direction: Direction,
    noise: NoiseAtHand,
    factor: int,
) -> MetricResult:
    """One result with its floor and significance, as far as they could be found."""
    floors, permuted = drawn
    if permuted is not None and result.key in _STUDENTIZED:
        floors = permuted
    value = observed[result.key].value if result.key in observed else None
    if result.value is None or value is None or result.key not in floors:
        return result
    try:
        found = significance(
            value,
            floor_values=floors[result.key],
            null_values=None if permuted is None else permuted.get(result.key),
            direction=direction,
            method=noise.method,
        )
    except InputError:
        return result
    judged = _with(result, found)
    if factor == 1:
        return judged
    note = {"null_grid": f"{factor} voxels merged along an axis", "null_grid_value": value}
    return replace(judged, settings={**judged.settings, **note})


def _with_doubt(result: MetricResult) -> MetricResult:
    """A floor that its own family found, with the uncertainty of an estimated noise level.

    The square of a distance is proportional to the variance of the noise: its relative standard deviation
    gains twice that of the level.
    """
    if result.floor is None or result.value is None or result.floor_sd is None or result.floor <= 0:
        return result
    square = result.floor**2 + result.floor_sd**2
    spread = 4 * result.floor**2 * result.floor_sd**2 + (2 * LEVEL_UNCERTAINTY * square) ** 2
    method = str(result.settings.get("significance", ""))
    found = square_significance(result.value, mean=square, variance=spread, root=True, method=method)
    return replace(result, floor=found.floor, floor_sd=found.floor_sd, z=found.z, p=found.p)


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


def noise_floor(
    key: str,
    *,
    reference: DoseMap,
    evaluated: DoseMap,
    family: Family,
    settings: CompareSettings,
) -> MetricResult:
    """The floor of one metric between two maps, at the least cost: no p value, no bounds.

    Parameters
    ----------
    key : str
        A key of the family.
    reference, evaluated : DoseMap
        At least one with batches or uncertainty; the same map twice stands for two independent
        simulations of its quality.
    family : Family
    settings : CompareSettings

    Returns
    -------
    MetricResult
        With `floor` and `floor_sd`, or with None and the reason in `status`.
    """
    wanted = {family.name: frozenset({key})}
    context = ComparisonContext(reference=reference, evaluated=evaluated, settings=settings)
    noise = context.noise
    if noise is None:
        return missing(key, family.keys(settings)[key], "no noise is known or was found")
    result = run(family, context, wanted[family.name])[0]
    if result.floor is not None:
        return result
    exact = closed_floors(noise, {key: result}, draws=None, seed=settings.seed)
    if key in exact:
        return _with(result, exact[key])
    rng = np.random.default_rng(settings.seed)
    if noise.by_batches and reference is evaluated:
        pairs = nulls.replicated_pairs(dose=reference, draws=_FEWEST, rng=rng)
    else:
        pairs = _floor_pairs(noise, _FEWEST, rng)
    values = _collect(context, [family], wanted, pairs, _FEWEST, 1).get(key, [])
    if len(values) < 2:
        return result
    method = {"significance": noise.method, "null_draws": len(values)}
    return replace(
        result,
        floor=float(np.mean(values)),
        floor_sd=float(np.std(values, ddof=1)),
        settings={**result.settings, **method},
    )
