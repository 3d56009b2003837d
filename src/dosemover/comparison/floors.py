"""Noise floors and significance of a comparison's metrics, from draws under the null."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import chain, islice

import numpy as np

from dosemover.comparison.closed_floors import closed_floors
from dosemover.comparison.coarse_floors import PILOTS, coarsened, coarsest_factor
from dosemover.comparison.context import ComparisonContext, missing
from dosemover.comparison.histories import with_histories
from dosemover.comparison.marginal_floors import marginal_floors
from dosemover.comparison.noise_at_hand import LEVEL_UNCERTAINTY, NoiseAtHand
from dosemover.comparison.registry import Family, run
from dosemover.comparison.result import NO_FLOOR, MetricResult
from dosemover.comparison.settings import CompareSettings
from dosemover.dose import DoseMap
from dosemover.errors import InputError
from dosemover.noise import nulls, square_significance
from dosemover.noise.significance import Significance, significance

_VOXEL_DRAWS = 2_000_000
_FEWEST, _MOST = 9, 19
_COARSE_VOXELS = 500_000
"""Most voxels of maps whose costlier metrics are drawn without being asked for."""
_STUDENTIZED = frozenset({"chi2_per_voxel"})
"""Divided by an uncertainty from the same batches: recombined batches would keep the uncertainty as it is,
and miss what its own scatter adds. Relabelled ones have their own, and a real difference cancels in them."""
_SINGLE_VOXELS = frozenset({"max_difference_gy"})
"""Decided by the noisiest voxels alone, whose stated uncertainty no average over neighbours may replace."""


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
        reason = "neither map says how noisy it is, and no noise was found in them"
        return {key: _with_reason(one, reason) for key, one in results.items()}
    judged = with_histories(_judge_all(context, context.noise, families, wanted, results))
    reasons = {
        key: _reason(context, context.noise, family, judged[key])
        for family in families
        for key in wanted.get(family.name, ())
    }
    return {key: _with_reason(one, reasons.get(key, "")) for key, one in judged.items()}


def _reason(context: ComparisonContext, noise: NoiseAtHand, family: Family, metric: MetricResult) -> str:
    """Why a metric of a family that has a value may have no floor."""
    if family.null == "never":
        if metric.p is not None:
            return "its p value needs no floor"
        return "needs batches or uncertainty maps: an estimated level of the noise does not do"
    if context.settings.null is not None:
        return "too few drawn maps gave a value"
    if noise.estimated:
        return "the level of the noise is estimated, and draws are left to --null N"
    if family.null == "coarse":
        return "costly at this size: draws are left to --null N"
    return "costly: draws are left to --null N"


def _with_reason(result: MetricResult, reason: str) -> MetricResult:
    """A result that says why it has no floor, where it has none."""
    if result.value is None or result.floor is not None or "significance" in result.settings:
        return result
    return replace(result, settings={**result.settings, "significance": f"{NO_FLOOR}{reason}"})


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
    modes = ("always", "coarse", "on request") if asked else ("always", "coarse")
    todo = [f for f in families if f.null in modes and wanted.get(f.name, frozenset()) - exact.keys()]
    together = [family for family in todo if family.null == "always" or not asked]
    groups = ([together] if together else []) + [[family] for family in todo if family not in together]
    for group in groups:
        draws = _Draws(context, noise, group, wanted)
        for family in draws.families:
            for key in wanted[family.name] - exact.keys():
                judged[key] = draws.judged(results, key, family)
    return judged


class _Draws:
    """Values of some families under noise alone, all from the same drawn maps.

    Parameters
    ----------
    context : ComparisonContext
    noise : NoiseAtHand
    families : sequence of Family
        Costly ones get the coarsest grid that does not falsify their floor; on large maps they are left
        out, unless draws are asked for.
    wanted : mapping
    """

    def __init__(
        self,
        context: ComparisonContext,
        noise: NoiseAtHand,
        families: Sequence[Family],
        wanted: dict[str, frozenset[str]],
    ) -> None:
        self.context, self.noise, self.wanted = context, noise, wanted
        asked = context.settings.null is not None
        draws = draws_for(context)
        rng = np.random.default_rng(context.settings.seed)
        quick = noise.by_batches and not asked  # the p value takes its own draws
        count = min(draws, _FEWEST) if quick else draws
        pairs = noise.null_pairs(draws=count, rng=rng)
        self.families = [family for family in families if asked or self._in_reach(family)]
        costly = [family for family in self.families if family.null != "always"]
        self.factors = {family.name: 1 for family in families}
        if costly and count > 2 * PILOTS:
            pilots = list(islice(pairs, PILOTS))
            self.factors |= {family.name: self._factor(family, pilots) for family in costly}
            pairs = chain(pilots, pairs)
        self.floors = self._values(pairs, count, wanted)
        self.permuted = None
        self.ranked: dict[str, float] = {}
        if noise.by_batches:
            maps = {"reference": noise.reference, "evaluated": noise.evaluated}
            self.permuted = self._values(nulls.permuted_pairs(**maps, draws=draws, rng=rng), draws, wanted)
            if (means := nulls.pair_of_means(**maps)) is not None:
                self.ranked = {key: found[0] for key, found in self._values([means], 1, wanted).items()}
        self.single: dict[str, list[float]] = {}
        single = {name: keys & _SINGLE_VOXELS for name, keys in wanted.items()}
        if any(single[family.name] for family in self.families) and not noise.by_batches:
            self.single = self._values(noise.null_pairs(draws=count, rng=rng, as_stated=True), count, single)
        self._coarse: dict[str, MetricResult] = {}
        for family in self.families:
            if (factor := self.factors[family.name]) > 1:
                maps = (coarsened(one, factor) for one in (context.reference, context.evaluated))
                found = run(family, _drawn(context, *maps), wanted[family.name])
                self._coarse |= {result.key: result for result in found}

    def _factor(self, family: Family, pilots: list[nulls.Pair]) -> int:
        """How many voxels a costly family's draws merge along an axis."""

        def evaluate(one: DoseMap, two: DoseMap) -> dict[str, float]:
            found = run(family, _drawn(self.context, one, two), self.wanted[family.name])
            return {result.key: result.value for result in found if result.value is not None}

        return coarsest_factor(evaluate, iter(pilots))

    def _in_reach(self, family: Family) -> bool:
        """Whether a family's draws take seconds at most, trials on the full grid included."""
        return family.null == "always" or self.context.reference.grid.n_voxels <= _COARSE_VOXELS

    def _values(
        self, pairs: Iterable[nulls.Pair], draws: int, wanted: dict[str, frozenset[str]]
    ) -> dict[str, list[float]]:
        """Values of every wanted metric over pairs of maps."""
        context = self.context
        values: dict[str, list[float]] = {}
        for i, pair in enumerate(pairs):
            context.progress(f"noise alone, draw {i + 1} of {draws}", i / draws)
            drawn = {1: _drawn(context, *pair)}
            for family in (one for one in self.families if wanted[one.name]):
                factor = self.factors[family.name]
                if factor not in drawn:
                    drawn[factor] = _drawn(context, *(coarsened(dose, factor) for dose in pair))
                for result in run(family, drawn[factor], wanted[family.name]):
                    if result.value is not None:
                        values.setdefault(result.key, []).append(result.value)
        return values

    def judged(self, results: dict[str, MetricResult], key: str, family: Family) -> MetricResult:
        """One result with its floor and significance, as far as they could be found."""
        result, factor = results[key], self.factors[family.name]
        there = result if factor == 1 else self._coarse.get(key)
        floors = self.permuted if self.permuted is not None and key in _STUDENTIZED else self.floors
        if key in _SINGLE_VOXELS and key in self.single:
            floors = self.single
        if result.value is None or there is None or there.value is None or key not in floors:
            return result
        try:
            found = significance(
                there.value,
                floor_values=floors[key],
                null_values=None if self.permuted is None else self.permuted.get(key),
                direction=family.direction(key),
                method=self.noise.method,
                ranked=self.ranked.get(key),
            )
        except InputError:
            return result
        judged = _with(result, found)
        if factor == 1:
            return judged
        note = {"null_grid": f"{factor} voxels merged along an axis", "null_grid_value": there.value}
        return replace(judged, settings={**judged.settings, **note})


def _drawn(context: ComparisonContext, reference: DoseMap, evaluated: DoseMap) -> ComparisonContext:
    """A context of two drawn maps, of which only the values are wanted."""
    return ComparisonContext(
        reference=reference,
        evaluated=evaluated,
        structures=context.structures,
        settings=context.settings,
        values_only=True,
    )


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
        pairs = noise.null_pairs(draws=_FEWEST, rng=rng)
    drawn = [one for pair in pairs for one in run(family, _drawn(context, *pair), wanted[family.name])]
    values = [one.value for one in drawn if one.key == key and one.value is not None]
    if len(values) < 2:
        return result
    method = {"significance": noise.method, "null_draws": len(values)}
    return replace(
        result,
        floor=float(np.mean(values)),
        floor_sd=float(np.std(values, ddof=1)),
        settings={**result.settings, **method},
    )
