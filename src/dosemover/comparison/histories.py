"""How many histories a lower noise floor costs: the power law of each metric's floor."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from dosemover.comparison.result import MetricResult
from dosemover.noise import histories_factor

_FIRST_ORDER = re.compile(
    r"(mae|rmse|max_difference|p9[59]_difference)_gy|relative_mae_percent"
    r"|(dmd|dmd_moved|kr|kr_moved|center_shift|mean_shift|bures_w2|moment_w2|moment_dmd)_mm"
    r"|(axis|sliced)_w[12]_mm|(w1|w2|sobolev_w2)_mm|(dmd_changed|kr_gained|kr_lost)_percent"
)
"""Metrics that are of the first order in the difference: their floors fall as histories^-1/2."""

_SECOND_ORDER = re.compile(r"mse_gy2")
"""Mean squares: their floors fall as 1/histories."""

_SCATTER = re.compile(r"mass_ratio|mean_difference_gy")
"""Signed metrics: their floor stays, its standard deviation falls as histories^-1/2."""

SHARE = 0.1
"""A floor at this share of a reading leaves its first digit alone."""


def power(key: str) -> float | None:
    """Exponent q of the law floor ~ histories^-q; None where a metric follows none.

    Examples
    --------
    >>> power("dmd_mm"), power("mse_gy2"), power("ssim")
    (0.5, 1.0, None)
    """
    if _FIRST_ORDER.fullmatch(key) or _SCATTER.fullmatch(key):
        return 0.5
    return 1.0 if _SECOND_ORDER.fullmatch(key) else None


def has_scatter_only(key: str) -> bool:
    """Whether noise leaves the floor of a metric where it is, and only scatters the metric around it."""
    return _SCATTER.fullmatch(key) is not None


def with_histories(results: Mapping[str, MetricResult]) -> dict[str, MetricResult]:
    """The results, with the histories that would bring a floor down to a tenth of the value.

    ``settings["histories"]`` holds ``goal`` (in the metric's unit) and ``factor``, where the floor exceeds
    the goal, the metric follows a power law, and the value stands out of the noise.
    """
    return {key: _with_factor(result) for key, result in results.items()}


def _with_factor(result: MetricResult) -> MetricResult:
    """One result with its factor, where that means something."""
    q = power(result.key)
    if q is None or has_scatter_only(result.key) or result.value is None or not result.floor:
        return result
    goal = SHARE * abs(result.value)
    if result.z is None or result.z < 2 or not 0 < goal < result.floor:
        return result
    factor = histories_factor(floor=result.floor, goal=goal, power=q)
    return replace(result, settings={**result.settings, "histories": {"goal": goal, "factor": factor}})
