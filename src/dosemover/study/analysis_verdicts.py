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


@dataclass(frozen=True, kw_only=True, eq=False)
class Finding:
    """One statement with its verdict.

    Parameters
    ----------
    letter : str
    claim : str
        The statement under test.
    verdict : str
    sentences : tuple of str
        What was found, with numbers.
    numbers : dict
        The same numbers by name.
    """

    letter: str
    claim: str
    verdict: Verdict
    sentences: tuple[str, ...] = ()
    numbers: dict[str, Any] = field(default_factory=dict)


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


def judged(parts: Iterable[bool]) -> Verdict:
    """Shown where all parts hold, partly where some do, refuted where none does."""
    parts = list(parts)
    if not parts:
        return "not measured"
    return "shown" if all(parts) else "partly shown" if any(parts) else "refuted"
