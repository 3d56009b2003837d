"""What a transport solver returns: a value inside a certified interval, and fields to look at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from numpy.typing import NDArray

from dosemover.grid import Grid


@dataclass(frozen=True, kw_only=True, eq=False)
class TransportResult:
    """A transport distance with its certified interval.

    Parameters
    ----------
    value : float
        The distance [mm].
    lower, upper : float or None
        Certified bounds [mm]; None where a side is not certified.
    grid : Grid
        Grid of the fields.
    parts : mapping
        Parts of the distance by metric key ("dmd_moved_mm", "kr_gained_percent").
    fields : mapping of str to ndarray
        Per-voxel results, [z, y, x] or [3, z, y, x] with components (x, y, z).
    settings : mapping
        Every setting as used, and what else explains the value.
    n_iterations : int
    status : str
        "ok", or what a reader must know.
    """

    value: float
    lower: float | None
    upper: float | None
    grid: Grid
    parts: Mapping[str, float] = field(default_factory=dict)
    fields: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    n_iterations: int = 0
    status: str = "ok"

    @property
    def gap(self) -> float | None:
        """Width of the interval over its upper end; None where a side is missing."""
        if self.lower is None or self.upper is None:
            return None
        return (self.upper - self.lower) / self.upper if self.upper > 0 else 0.0

    def of_maps(self, averaged_mm: float) -> TransportResult:
        """The result for maps that lie up to ``averaged_mm`` from the densities that were compared.

        Any distance that is at most W_2 of the normalised maps changes by no more than that, so certified
        bounds are widened by it.
        """
        if averaged_mm == 0.0:
            return self
        return replace(
            self,
            lower=None if self.lower is None else max(self.lower - averaged_mm, 0.0),
            upper=None if self.upper is None else self.upper + averaged_mm,
            settings={**self.settings, "averaged_mm": averaged_mm},
        )

    def summary(self) -> dict[str, float | None]:
        """Value, bounds and parts in one flat dictionary."""
        return {"value": self.value, "lower": self.lower, "upper": self.upper, **self.parts}
