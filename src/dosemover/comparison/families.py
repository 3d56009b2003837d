"""Every metric family, in the order of tables and JSON."""

from __future__ import annotations

from dosemover.comparison.amounts import AMOUNTS
from dosemover.comparison.dvh import STRUCTURES
from dosemover.comparison.gamma import GAMMA
from dosemover.comparison.moments import MOMENTS
from dosemover.comparison.registry import Family
from dosemover.comparison.space import SPACE
from dosemover.comparison.transport import TRANSPORT

DISTANCES: tuple[Family, ...] = (*TRANSPORT, *MOMENTS)
"""Metric families that bring both maps to one grid by averaging."""

FAMILIES: tuple[Family, ...] = (*AMOUNTS, GAMMA, *SPACE, *TRANSPORT, *MOMENTS, *STRUCTURES)
"""Metric families by theme: amounts, space, transport, moments, structures."""
