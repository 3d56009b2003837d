"""Every metric of one pair of maps, at the least cost: values alone, certified bounds where asked for."""

from __future__ import annotations

import re
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from dosemover import metrics, transport
from dosemover.comparison import families
from dosemover.comparison.context import ComparisonContext
from dosemover.comparison.registry import Family, run, select
from dosemover.comparison.result import MetricResult
from dosemover.comparison.settings import CompareSettings
from dosemover.dose import DoseMap, Structure

KF_PERMUTATIONS = 19
"""Relabelled batches behind a Kawrakow-Fippel test: the fewest that allow p = 0.05."""

_LONGEST_STATUS = 100

Wanted = Mapping[str, frozenset[str]]
"""Keys that are wanted of each family."""


def wanted_keys(
    settings: CompareSettings, *, leave_out: tuple[str, ...], thinned: Mapping[str, int], replicate: int
) -> dict[str, frozenset[str]]:
    """Keys of each family that one replicate measures.

    Parameters
    ----------
    settings : CompareSettings
        Its ``metrics`` are the widest set.
    leave_out : tuple of str
        Keys, families or sets that are never measured.
    thinned : mapping of str to int
        Keys or families that only the first so many replicates measure.
    replicate : int
    """
    without = [*leave_out, *(name for name, first in thinned.items() if replicate >= first)]
    wanted = select(families.FAMILIES, settings)
    if not without:
        return wanted
    dropped = select(families.FAMILIES, replace(settings, metrics=tuple(without)))
    left = {name: keys - dropped.get(name, frozenset()) for name, keys in wanted.items()}
    return {name: keys for name, keys in left.items() if keys}


def measure(
    *,
    reference: DoseMap,
    evaluated: DoseMap,
    settings: CompareSettings,
    wanted: Wanted,
    certified: bool,
    structures: tuple[Structure, ...] = (),
) -> list[tuple[MetricResult, float]]:
    """Metrics of one pair and the processor time of each one's family [s].

    No floors, p values or maps. The Dose Mover's Distance and W_2 are the solvers' estimates, not clipped
    to the certified interval, which is computed for ``certified`` pairs only.

    Parameters
    ----------
    reference, evaluated : DoseMap
    settings : CompareSettings
    wanted : mapping
        From `wanted_keys`.
    certified : bool
    structures : tuple of Structure
        Their mean doses, D95 and D2 are compared beside what the metrics of a comparison say of them.
    """
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for family in families.FAMILIES:
            if family.name not in wanted:
                continue
            context = ComparisonContext(
                reference=reference,
                evaluated=evaluated,
                settings=settings,
                structures=structures,
                values_only=True,
            )
            start = time.process_time()
            results = run(_quick(family), context, wanted[family.name])
            seconds = time.process_time() - start
            if certified and family.name in _BOUNDED:
                results = [_with_bounds(result, context) for result in results]
            results += _dvh_points(context)
            found += [(result, seconds) for result in results]
    return found


def _dvh_points(context: ComparisonContext) -> list[MetricResult]:
    """Largest absolute difference of each DVH value over the structures; none where no DVH was computed."""
    results = []
    for key, value in _DVH_POINTS.items():
        pairs = [table[value] for table in context.dvh_values.values()]
        differences = [
            abs(pair["evaluated"] - pair["reference"])
            for pair in pairs
            if pair["evaluated"] is not None and pair["reference"] is not None
        ]
        if differences:
            results.append(MetricResult(key=key, value=max(differences), unit="Gy"))
    return results


_DVH_POINTS = {
    "dvh_mean_difference_gy": "mean_gy",
    "dvh_d95_difference_gy": "d95_gy",
    "dvh_d2_difference_gy": "d2_gy",
}
"""Keys of a study's table, and the DVH value that each compares."""


def _quick(family: Family) -> Family:
    """The family with a cheaper way to the same values where there is one."""
    compute = _QUICK.get(family.name)
    return family if compute is None else replace(family, compute=compute)


def _dose_mover(context: ComparisonContext, wanted: frozenset[str]) -> Iterator[MetricResult]:
    """The Dose Mover's Distance with its residual, without bounds."""
    found = transport.dose_movers_distance(**_mover_settings(context), bounds=False)
    yield MetricResult(key="dmd_mm", value=found.value, unit="mm", status=found.status)
    for key, value in found.parts.items():
        yield MetricResult(key=key, value=value, unit="mm" if key.endswith("_mm") else "%")


def _mover_settings(context: ComparisonContext) -> dict[str, Any]:
    """What the Dose Mover's Distance is told."""
    return {
        "reference": context.reference,
        "evaluated": context.evaluated,
        "exchange_mm_per_percent": context.settings.exchange_mm_per_percent,
        "ambient_dose_percent": context.settings.ambient_dose_percent,
    }


def _wasserstein_2(context: ComparisonContext, wanted: frozenset[str]) -> Iterator[MetricResult]:
    """W_2 without bounds and fields."""
    found = transport.wasserstein_2(
        reference=context.reference, evaluated=context.evaluated, bounds=False, fields=False
    )
    yield MetricResult(key="w2_mm", value=found.value, unit="mm", status=found.status)


def _kawrakow_fippel(context: ComparisonContext, wanted: frozenset[str]) -> Iterator[MetricResult]:
    """The test of Kawrakow and Fippel with few permutations."""
    found = metrics.kawrakow_fippel(
        reference=context.reference,
        evaluated=context.evaluated,
        n_permutations=KF_PERMUTATIONS,
        seed=context.settings.seed,
    )
    if found is None:
        return
    yield MetricResult(key="kf_fraction_percent", value=found.fraction_percent, unit="%", status=found.status)
    yield MetricResult(key="kf_shift_sigma", value=found.shift_sigma, unit="sigma", status=found.status)


_QUICK: dict[str, Callable[..., Iterator[MetricResult]]] = {
    "dmd": _dose_mover,
    "w2": _wasserstein_2,
    "kawrakow_fippel": _kawrakow_fippel,
}


def _with_bounds(result: MetricResult, context: ComparisonContext) -> MetricResult:
    """A distance with its certified interval, in one round of refinement."""
    if result.key not in _BOUNDED.values():
        return result
    if result.key == "w2_mm":
        pair = {"reference": context.reference, "evaluated": context.evaluated}
        found = transport.wasserstein_2(**pair, fields=False, refine=1)
    else:
        found = transport.dose_movers_distance(**_mover_settings(context), fields=False, refine=1)
    return replace(result, lower=found.lower, upper=found.upper)


_BOUNDED = {"dmd": "dmd_mm", "w2": "w2_mm"}
"""Families whose bounds cost extra, and the key that they belong to."""


def short_status(text: str) -> str:
    """A status without its numbers, so that a table holds few different ones."""
    return re.sub(r"\d+(\.\d+)?(e[-+]?\d+)?", "#", text)[:_LONGEST_STATUS]
