"""Every metric family, in the order of tables and JSON."""

from __future__ import annotations

from dosemover.comparison.amounts import AMOUNTS
from dosemover.comparison.dvh import STRUCTURES
from dosemover.comparison.gamma import GAMMA
from dosemover.comparison.moments import MOMENTS
from dosemover.comparison.registry import Family, Words
from dosemover.comparison.space import SPACE
from dosemover.comparison.transport import TRANSPORT

DISTANCES: tuple[Family, ...] = (*TRANSPORT, *MOMENTS)
"""Metric families that bring both maps to one grid by averaging."""

FAMILIES: tuple[Family, ...] = (*AMOUNTS, GAMMA, *SPACE, *TRANSPORT, *MOMENTS, *STRUCTURES)
"""Metric families by theme: amounts, space, transport, moments, structures; then registered ones."""


def words_of(key: str) -> Words | None:
    """What a family says about a key for the report; None where it says nothing."""
    return next((family.words[key] for family in FAMILIES if key in family.words), None)
