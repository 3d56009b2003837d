"""Which metric families exist, and which of their keys a comparison asks for."""

from __future__ import annotations

import difflib
import math
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from dosemover.comparison.context import ComparisonContext, missing
from dosemover.comparison.result import MetricResult
from dosemover.comparison.settings import CompareSettings
from dosemover.errors import AccuracyWarning, DosemoverError, InputError
from dosemover.noise.significance import Direction

Null = Literal["always", "coarse", "on request", "never"]
"""When a family's floors are drawn."""

Compute = Callable[[ComparisonContext, frozenset[str]], Iterable[MetricResult]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Words:
    """What a report says about a metric that it has no words of its own for.

    Parameters
    ----------
    title : str
        The metric's name in words.
    means : str
        What the number means, in one sentence; ``{value}`` stands for the value with its unit.
    blind : str
        What it cannot see, in one sentence.
    """

    title: str
    means: str = "The value is {value}."
    blind: str = "Nobody has said."


@dataclass(frozen=True, kw_only=True, eq=False)
class Family:
    """Metrics that are computed together.

    Parameters
    ----------
    name : str
        Accepted by ``metrics=`` for all of its keys.
    keys : callable
        Metric keys and their units under given settings.
    compute : callable
        ``compute(context, wanted)`` yields results for at least the wanted keys.
    default, fast : frozenset of str, "all" or "none"
        Keys that belong to the sets "default" and "fast".
    smaller, both : frozenset of str
        Keys whose small values, or whose values on either side of the floor, speak of a difference;
        for the others it is the large ones.
    null : {"always", "coarse", "on request", "never"}
        Whether floors and p values come from draws under the null: of costly families on a coarse grid, or
        only where their number is asked for; never where the family always brings its own.
    words : mapping of str to Words
        By key: what a report says, where it has no words of its own.
    """

    name: str
    keys: Callable[[CompareSettings], dict[str, str]]
    compute: Compute
    default: frozenset[str] | str = "none"
    fast: frozenset[str] | str = "none"
    smaller: frozenset[str] = frozenset()
    both: frozenset[str] = frozenset()
    null: Null = "always"
    words: Mapping[str, Words] = field(default_factory=dict)

    def direction(self, key: str) -> Direction:
        """Which values of a key speak of a difference."""
        return "smaller" if key in self.smaller else "both" if key in self.both else "larger"

    def keys_in(self, tier: str, settings: CompareSettings) -> frozenset[str]:
        """Keys that belong to "all", "default" or "fast"."""
        every = frozenset(self.keys(settings))
        members = "all" if tier == "all" else getattr(self, tier)
        if members == "all":
            return every
        return frozenset() if members == "none" else every & frozenset(members)


def fixed_keys(**units: str) -> Callable[[CompareSettings], dict[str, str]]:
    """Keys that no setting changes."""
    return lambda settings: units


def select(families: Sequence[Family], settings: CompareSettings) -> dict[str, frozenset[str]]:
    """Wanted keys of each family.

    Raises
    ------
    InputError
        When a name is neither a set, nor a family, nor a key; the nearest known one is named.
    """
    wanted: dict[str, set[str]] = {family.name: set() for family in families}
    for name in settings.metrics:
        found = False
        for family in families:
            if name in ("all", "default", "fast"):
                members = family.keys_in(name, settings)
            elif name == family.name:
                members = frozenset(family.keys(settings))
            else:
                members = frozenset({name}) & frozenset(family.keys(settings))
            wanted[family.name] |= members
            found = found or bool(members)
        if not found:
            raise InputError(_unknown(name, families, settings))
    return {name: frozenset(keys) for name, keys in wanted.items() if keys}


def _unknown(name: str, families: Sequence[Family], settings: CompareSettings) -> str:
    """Message for a metric name that nobody knows."""
    known = ["default", "fast", "all"]
    known += [key for family in families for key in (family.name, *family.keys(settings))]
    near = [other for other in known if name and other.startswith(name)][:3]
    near = near or difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    hint = f"Did you mean {', '.join(near)}?" if near else f"Known: {', '.join(known)}."
    return f"`metrics` names {name!r}, which is no metric under these settings. {hint}"


def run(family: Family, context: ComparisonContext, wanted: frozenset[str]) -> list[MetricResult]:
    """Wanted results of one family, in the family's order, each with a status where it has no value.

    A value that is not finite counts as none.
    """
    units = family.keys(context.settings)
    start = time.perf_counter()
    try:
        results = {result.key: result for result in family.compute(context, wanted)}
    except (DosemoverError, MemoryError) as error:
        reason = str(error) or "not enough memory"
        return [missing(key, unit, reason) for key, unit in units.items() if key in wanted]
    except Exception as error:  # a defect in one family must not take the results of the others along
        reason = f"internal error, please report it ({type(error).__name__}: {error})"
        warnings.warn(f"{family.name}: {reason}", AccuracyWarning, stacklevel=2)
        return [missing(key, unit, reason) for key, unit in units.items() if key in wanted]
    seconds = time.perf_counter() - start
    absent = "not computed"
    ordered = [results.get(key, missing(key, units[key], absent)) for key in units if key in wanted]
    return [_finished(result, seconds) for result in ordered]


def _finished(result: MetricResult, seconds: float) -> MetricResult:
    """The result with its time, and with a reason where there is no finite value."""
    value, status = result.value, result.status
    if value is not None and not math.isfinite(value):
        value, status = None, f"the value is {value}" if status == "ok" else status
    elif value is None and status == "ok":
        status = "there is no value"
    return replace(result, value=value, status=status, seconds=result.seconds or seconds)
