"""One plain sentence per metric: what the number means, and what it cannot see."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dosemover.comparison.families import words_of
from dosemover.comparison.result import ComparisonResult, MetricResult
from dosemover.comparison.sentence import histories
from dosemover.comparison.sentence import verdict as moved_and_changed
from dosemover.report.formatting import grouped, is_number, number, p_value, percent, quantity
from dosemover.report.texts import TEXTS

SIGNIFICANT_P = 0.01
"""Below this p value the report calls a difference more than noise."""

SIGNIFICANT_Z = 3.0
"""The same without a p value, in standard deviations."""


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """What the report says about one metric.

    Parameters
    ----------
    title : str
        The metric's name in words.
    group : str
        A key of `GROUPS`.
    means : str
        What the number means, in one sentence.
    blind : str
        What it cannot see, in one sentence.
    """

    title: str
    group: str
    means: str
    blind: str


GAMMA_RATE = re.compile(r"gamma_[\dp]+_[\dp]+_(global|local)_passing_rate_percent")
"""Keys of the one-sided gamma passing rates."""

_COMPILED = tuple((re.compile(pattern), *rest) for pattern, *rest in TEXTS)


def rank(key: str) -> int:
    """Place of a metric in the verdict table."""
    return next((i for i, entry in enumerate(_COMPILED) if entry[0].fullmatch(key)), len(_COMPILED))


def explain(metric: MetricResult) -> Explanation:
    """Title, group and plain sentences of one metric.

    Examples
    --------
    >>> from dosemover.comparison.result import MetricResult
    >>> explain(MetricResult(key="w2_mm", value=0.9, unit="mm")).means
    'A unit of dose travels 0.900 mm (root mean square).'
    """
    for pattern, group, title, means, blind in _COMPILED:
        match = pattern.fullmatch(metric.key)
        if match is not None:
            named = {k: v.replace("p", ".") for k, v in match.groupdict().items()}
            words = _words(metric) | _coverage(metric, named) | named
            words = {name: _ordinal_safe(text) for name, text in words.items()}
            return Explanation(
                title=title.format(**words),
                group=group,
                means=means.format(**words),
                blind=blind.format(**words),
            )
    own = words_of(metric.key)
    if own is not None:
        value = quantity(metric.value, metric.unit)
        return Explanation(
            title=own.title, group="other", means=own.means.replace("{value}", value), blind=own.blind
        )
    return Explanation(
        title=metric.key,
        group="other",
        means=f"The value is {quantity(metric.value, metric.unit)}.",
        blind="See the documentation of this metric.",
    )


def _ordinal_safe(text: str) -> str:
    """Text without the braces that ``str.format`` would read."""
    return text.replace("{", "(").replace("}", ")")


def _words(metric: MetricResult) -> dict[str, str]:
    """What the sentences may quote: the value, its settings, and a ratio as more or less."""
    settings = metric.settings
    exchange = settings.get("exchange_mm_per_percent", 1.0)
    reach = settings.get("reach_mm", 10.0)
    value = metric.value
    change = "an unknown amount of"
    if is_number(value) and value is not None:
        share = 100 * (value - 1)
        more = "more" if share > 0 else "less"
        change = "the same" if abs(share) < 0.005 else f"{number(abs(share), 2)} % {more}"
    where = f", most in {settings['largest_in']}" if "largest_in" in settings else ""
    return {
        "where": where,
        "value": quantity(value, metric.unit),
        "change": change,
        "exchange": f"{exchange:g}" if is_number(exchange) else str(exchange),
        "reach": f"{reach:g}" if is_number(reach) else str(reach),
    }


def _coverage(metric: MetricResult, named: Mapping[str, str]) -> dict[str, str]:
    """Which voxels a passing rate counts, what its percentage is in gray, and what dose it leaves out.

    Parameters
    ----------
    metric : MetricResult
    named : mapping
        The dose criterion in %, "dd" or "q", and "norm" where there is one.
    """
    words = {"voxels": "the voxels", "criterion": "", "outside": ""}
    names = ("n_evaluated", "normalization_dose_gy", "dose_threshold_percent")
    given: dict[str, Any] = {"n_evaluated": metric.settings.get("n_voxels")} | dict(metric.settings)
    if not all(is_number(given.get(name)) for name in names):
        return words
    count, full, share = (given[name] for name in names)
    threshold = f"{number(share / 100 * full)} Gy ({share:g} % of {number(full)} Gy)"
    words["voxels"] = f"{grouped(count)} voxels with at least {threshold}"
    criterion = named.get("dd") or named.get("q")
    if named.get("norm") == "local":
        words["criterion"] = f" ({criterion} % is of the dose in each voxel)"
    elif criterion:
        words["criterion"] = f" ({criterion} % is {number(float(criterion) / 100 * full)} Gy)"
    missed = given.get("dose_outside_voxels")
    if missed:
        most = number(given.get("dose_outside_max_gy"))
        words["outside"] = f" (here {grouped(missed)} voxels, up to {most} Gy)"
    elif missed == 0:
        words["outside"] = " (here no voxel)"
    return words


def is_significant(metric: MetricResult) -> bool | None:
    """Whether a metric is more than noise alone would give; None where that is not known.

    By p; where the draws under the null allow no p small enough and the value lies beyond all of
    them, by z.
    """
    if is_number(metric.p) and not (metric.p_is_smallest and is_number(metric.z)):
        return float(metric.p or 0.0) < SIGNIFICANT_P
    if is_number(metric.z):
        return abs(float(metric.z or 0.0)) >= SIGNIFICANT_Z
    return None


def verdict(result: ComparisonResult) -> str:
    """The sentence that heads a report.

    "The dose moved by 0.8 mm and changed by 0.3 % (noise alone: 0.05 mm)." Without the Dose
    Mover's Distance it falls back on the best rigid shift and the total dose.
    """
    sentence = moved_and_changed(result)
    if sentence is not None:
        return sentence
    ratio, shift = _value(result, "mass_ratio"), _value(result, "best_shift_mm")
    parts = []
    if shift is not None:
        parts.append(f"the best rigid shift is {number(shift, 2)} mm")
    if ratio is not None:
        parts.append(f"the total dose changed by {number(100 * (ratio - 1), 2)} %")
    if not parts:
        return "The maps were compared; the table below says how they differ."
    text = " and ".join(parts)
    return text[0].upper() + text[1:] + "."


def verdict_details(result: ComparisonResult) -> list[str]:
    """Short sentences under the verdict: significance, histories, total, gamma, residual."""
    parts = (_noise(result), histories(result), _total(result), _gamma(result), _residual(result))
    return [text for text in parts if text]


def _noise(result: ComparisonResult) -> str:
    """Whether the headline is more than noise."""
    metric = result.metrics.get("dmd_mm")
    if metric is None or metric.value is None:
        return ""
    significant = is_significant(metric)
    if significant is None:
        return "Whether that is more than noise is not known: no uncertainty was given or estimated."
    evidence = ", ".join(
        text
        for text in (
            f"z = {number(metric.z, 2)}" if is_number(metric.z) else "",
            p_value(metric.p, smallest=metric.p_is_smallest) if is_number(metric.p) else "",
        )
        if text
    )
    if significant:
        return f"Noise alone does not explain that ({evidence})."
    return f"Noise alone would explain that ({evidence})."


def _total(result: ComparisonResult) -> str:
    """The total dose in words."""
    metric = result.metrics.get("mass_ratio")
    if metric is None or metric.value is None:
        return ""
    return f"In total the evaluated map holds {_words(metric)['change']} dose."


def _gamma(result: ComparisonResult) -> str:
    """The first gamma passing rate in words."""
    for metric in result.metrics.values():
        if GAMMA_RATE.fullmatch(metric.key) and is_number(metric.value):
            return f"{explain(metric).title}: {percent(metric.value)} % of the voxels pass."
    return ""


def _residual(result: ComparisonResult) -> str:
    """What the motion does not explain, in words."""
    value = _value(result, "dmd_residual_max_percent")
    if value is None:
        return ""
    before = _largest_difference_percent(result)
    if before is None:
        return f"What movement does not explain reaches {percent(value)} % of the maximum in one voxel."
    if value < before:
        return (
            f"In one voxel the maps differ by {percent(before)} % of the maximum, "
            f"by {percent(value)} % once the motion is taken out."
        )
    return (
        f"In one voxel the maps differ by {percent(before)} % of the maximum, and the motion does not "
        f"explain it: taken out, it leaves {percent(value)} %."
    )


def _largest_difference_percent(result: ComparisonResult) -> float | None:
    """Largest difference of the maps as they came, in percent of the reference maximum."""
    largest = _value(result, "max_difference_gy")
    maximum = result.reference.max_gy
    return None if largest is None or maximum <= 0 else 100 * largest / maximum


def _value(result: ComparisonResult, key: str) -> float | None:
    """A metric's value where it is there and finite."""
    metric = result.metrics.get(key)
    return metric.value if metric is not None and is_number(metric.value) else None
