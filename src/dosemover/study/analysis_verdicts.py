"""A statement about metrics, judged by measured numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

Verdict = Literal["shown", "partly shown", "refuted", "not measured"]

PASSES_PERCENT = 95.0
"""Passing rate from which a map is said to pass (the tolerance limit of TG-218)."""

BLIND_Z = 3.0
"""Standard deviations of the floor from which a reading is said to see something."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part of a statement, with the conditions in which it was tested.

    Parameters
    ----------
    claim : str
    held, of : int
        Conditions in which it held, and all in which it was tested.
    share : float
        Share of the conditions in which it has to hold to be shown.
    """

    claim: str
    held: int
    of: int
    share: float = 1.0

    @property
    def verdict(self) -> Verdict:
        """Shown where it holds in its share of the conditions, refuted where it holds in none."""
        if not self.of:
            return "not measured"
        if self.held >= self.share * self.of:
            return "shown"
        return "partly shown" if self.held else "refuted"


def part(claim: str, outcomes: Iterable[bool], share: float = 1.0) -> Part:
    """A part of a statement out of what came of each condition."""
    found = list(outcomes)
    return Part(claim=claim, held=sum(found), of=len(found), share=share)


@dataclass(frozen=True, kw_only=True, eq=False)
class Finding:
    """One statement with its verdict.

    Parameters
    ----------
    letter : str
    claim : str
        The statement under test.
    parts : tuple of Part
        What it says, one by one; parts that no condition tested are left out.
    sentences : tuple of str
        What was found, with numbers.
    numbers : dict
        The same numbers by name.
    """

    letter: str
    claim: str
    parts: tuple[Part, ...] = ()
    sentences: tuple[str, ...] = ()
    numbers: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "parts", tuple(one for one in self.parts if one.of))

    @property
    def verdict(self) -> Verdict:
        """Shown where every part is, refuted where every part is, partly shown otherwise."""
        found: set[Verdict] = {one.verdict for one in self.parts}
        if not found:
            return "not measured"
        return "partly shown" if len(found) > 1 else next(iter(found))


def number(value: float | None, digits: int = 3) -> str:
    """A number of a few significant digits, never in powers of ten; a dash where there is none."""
    if value is None or not math.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    decimals = max(digits - 1 - math.floor(math.log10(abs(value))), 0)
    return f"{value:.{min(decimals, 6)}f}".replace("-", "−")


def count(value: float) -> str:
    """A large count with k for thousands and M for millions.

    Examples
    --------
    >>> count(1850), count(30), count(2.96e6)
    ('1.9 k', '30', '3.0 M')
    """
    for limit, letter in ((1e6, " M"), (1e3, " k")):
        if value >= limit:
            scaled = value / limit
            return (f"{scaled:.0f}" if scaled >= 9.95 else f"{scaled:.1f}") + letter
    return f"{value:.0f}"
