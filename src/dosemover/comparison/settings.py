"""Settings of a comparison, checked once."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from dosemover.errors import InputError

Normalization = Literal["global", "local", "both"]
Scale = float | Literal["match-integral", "match-prescription"] | None


def _require_positive(name: str, value: float | None, consequence: str) -> None:
    """Refuse a number that is not finite and positive."""
    if value is not None and not (np.isfinite(value) and value > 0):
        raise InputError(f"`{name}` must be positive, got {value}. {consequence}")


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
        Number of draws under the null, 2 or more; None lets each metric choose.
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
        if not 0 <= self.dose_threshold_percent < 100:
            raise InputError(
                f"`dose_threshold_percent` must lie in [0, 100), got {self.dose_threshold_percent}. "
                "No voxel would be evaluated. Pass a percentage such as 10."
            )
        _require_positive("prescription_gy", self.prescription_gy, "Pass the prescribed dose in Gy.")
        self._check_scale()
        _require_positive(
            "exchange_mm_per_percent", self.exchange_mm_per_percent, "1 mm per % is the default."
        )
        _require_positive("reach_mm", self.reach_mm, "No dose could move. 10 mm is the default.")
        if not (np.isfinite(self.ambient_dose_percent) and self.ambient_dose_percent >= 0):
            raise InputError(
                f"`ambient_dose_percent` must be 0 or positive, got {self.ambient_dose_percent}."
            )
        if self.seed < 0:
            raise InputError(f"`seed` must be 0 or a positive whole number, got {self.seed}.")
        if self.null is not None and self.null < 2:
            raise InputError(
                f"`null` must be 2 draws or more, got {self.null}. A floor needs the spread of several. "
                "Leave it out for the usual 9 to 19, or pass a number such as 99."
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
