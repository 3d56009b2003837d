"""Settings of a comparison, checked once."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from numbers import Integral, Real
from typing import Any, Literal

from dosemover.errors import InputError

Normalization = Literal["global", "local", "both"]
Scale = float | Literal["match-integral", "match-prescription"] | None

_MOST_DRAWS = 100_000
"""Draws under the null whose labellings take tens of megabytes."""


def _require_positive(name: str, value: float | None, consequence: str) -> None:
    """Refuse a number that is not finite and positive."""
    if value is not None and not (_is_number(value) and value > 0):
        raise InputError(f"`{name}` must be positive, got {value!r}. {consequence}")


def _is_number(value: Any) -> bool:
    """Whether a value is one finite number."""
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(float(value))


def _is_whole(value: Any) -> bool:
    """Whether a value is one whole number."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_pair(value: Any) -> bool:
    """Whether a value is a pair of numbers."""
    return not isinstance(value, str | Real) and len(value) == 2 and all(map(_is_number, value))


def as_criteria(gamma: Any) -> tuple[tuple[float, float], ...]:
    """Gamma criteria as pairs of numbers.

    Parameters
    ----------
    gamma : iterable of (float, float)
        Dose criterion [%], distance criterion [mm].

    Raises
    ------
    InputError
        When that is something else, or empty.
    """
    pairs = () if isinstance(gamma, str | None) else tuple(gamma)
    if not pairs or not all(map(_is_pair, pairs)):
        raise InputError(
            "`gamma` must be pairs of (dose in %, distance in mm), for example ((3, 3), (2, 2)), got "
            f"{gamma!r}. Pass at least one pair."
        )
    return tuple((float(dose), float(distance)) for dose, distance in pairs)


@dataclass(frozen=True, kw_only=True, eq=False)
class CompareSettings:
    """Everything that changes a number of a comparison.

    Parameters
    ----------
    metrics : tuple of str
        "default", "fast", "all", metric keys or names of metric families.
    gamma : tuple of (float, float)
        Criteria (dose %, distance mm).
    gamma_interpolant : {"simplex", "grid"}
        How the evaluated dose is continued between voxel centres.
    normalization : {"global", "local", "both"}
    dose_threshold_percent : float
        Voxels below this share of the normalisation dose (the prescription, or the reference maximum) are
        left out of gamma and its kin [%].
    prescription_gy : float, optional
        Normalisation dose of global gamma and of relative differences [Gy]; the reference maximum
        where it is None.
    scale : float, "match-integral", "match-prescription" or None
        Acts on the evaluated map.
    exchange_mm_per_percent : float
        Exchange rate of the Dose Mover's Distance [mm per %].
    ambient_dose_percent : float
        Ambient dose of the Dose Mover's Distance [% of the reference maximum].
    reach_mm : float
        Reach of the flat norm [mm].
    profile : bool
        Add the profiles over the exchange length and the reach.
    null : int, optional
        Number of draws under the null, 2 to 100 000; None lets each metric choose.
    seed : int
    """

    metrics: tuple[str, ...] = ("default",)
    gamma: tuple[tuple[float, float], ...] = ((3.0, 3.0), (2.0, 2.0))
    gamma_interpolant: Literal["simplex", "grid"] = "simplex"
    normalization: Normalization = "global"
    dose_threshold_percent: float = 10.0
    prescription_gy: float | None = None
    scale: Scale = None
    exchange_mm_per_percent: float = 1.0
    ambient_dose_percent: float = 0.1
    reach_mm: float = 10.0
    profile: bool = False
    null: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.metrics:
            raise InputError("`metrics` names no metric. Pass 'default', 'fast', 'all', families or keys.")
        for dose, distance in self.gamma:
            _require_positive("gamma dose criterion", dose, "Pass criteria in % and mm, for example 3/3.")
            _require_positive(
                "gamma distance criterion", distance, "Pass criteria in % and mm, for example 3/3."
            )
        if self.normalization not in ("global", "local", "both"):
            raise InputError(
                f"`normalization` must be 'global', 'local' or 'both', got {self.normalization!r}."
            )
        if self.gamma_interpolant not in ("simplex", "grid"):
            raise InputError(
                f"`gamma_interpolant` must be 'simplex' or 'grid', got {self.gamma_interpolant!r}."
            )
        if not (_is_number(self.dose_threshold_percent) and 0 <= self.dose_threshold_percent < 100):
            raise InputError(
                f"`dose_threshold_percent` must lie in [0, 100), got {self.dose_threshold_percent!r}. "
                "No voxel would be evaluated. Pass a percentage such as 10."
            )
        _require_positive("prescription_gy", self.prescription_gy, "Pass the prescribed dose in Gy.")
        self._check_scale()
        _require_positive(
            "exchange_mm_per_percent", self.exchange_mm_per_percent, "1 mm per % is the default."
        )
        _require_positive("reach_mm", self.reach_mm, "No dose could move. 10 mm is the default.")
        if not (_is_number(self.ambient_dose_percent) and self.ambient_dose_percent >= 0):
            raise InputError(
                f"`ambient_dose_percent` must be 0 or positive, got {self.ambient_dose_percent!r}."
            )
        if not (_is_whole(self.seed) and self.seed >= 0):
            raise InputError(f"`seed` must be 0 or a positive whole number, got {self.seed!r}.")
        if self.null is not None and not (_is_whole(self.null) and self.null >= 2):
            raise InputError(
                f"`null` must be 2 draws or more, a whole number, got {self.null!r}. A floor needs the "
                "spread of several. Leave it out for the usual 9 to 19, or pass a number such as 99."
            )
        if self.null is not None and self.null > _MOST_DRAWS:
            raise InputError(
                f"`null` must be {_MOST_DRAWS} draws at most, got {self.null!r}. Each costs as much as the "
                "metric itself, and their labellings fill the memory. Pass a number such as 999."
            )

    def _check_scale(self) -> None:
        """A positive factor, or one of the two ways to find it."""
        if isinstance(self.scale, str):
            if self.scale not in ("match-integral", "match-prescription"):
                raise InputError(
                    f"`scale` must be a factor, 'match-integral' or 'match-prescription', got {self.scale!r}."
                )
            if self.scale == "match-prescription" and self.prescription_gy is None:
                raise InputError(
                    "`scale='match-prescription'` needs the prescription. Pass prescription_gy "
                    "(--prescription GY on the command line)."
                )
        else:
            _require_positive("scale", self.scale, "The evaluated map is multiplied by it.")

    @property
    def normalizations(self) -> tuple[Literal["global", "local"], ...]:
        """Gamma normalisations to compute."""
        return ("global", "local") if self.normalization == "both" else (self.normalization,)

    @property
    def exchange_length_mm(self) -> float:
        """Exchange length L = 100 x exchange_mm_per_percent [mm]."""
        return 100.0 * self.exchange_mm_per_percent

    def to_dict(self) -> dict[str, Any]:
        """The settings for a result: plain values."""
        return asdict(self) | {"exchange_length_mm": self.exchange_length_mm}
