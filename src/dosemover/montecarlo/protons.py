"""Proton fields: energy layers of scanned spots, for the engine MCsquare."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dosemover.errors import InputError

Vector = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True, eq=False)
class ProtonField:
    """A field of scanned proton pencil beams.

    Parameters
    ----------
    energy_mev : float or sequence of float
        Energy of each layer [MeV]: the mean energy for the generic beam model, the nominal one for a beam
        model of the user's.
    layer_weights : sequence of float, optional
        Protons of each layer, relative (monitor units for a beam model of the user's); equal by default.
    field_mm : float, (float, float), (float, float, float, float) or None
        Area to fill with spots in the plane through the isocentre: side of a square, (across, along), or
        edges (x1, x2, y1, y2) [mm]. None: one spot on the axis.
    spot_spacing_mm : float
        Distance from spot to spot [mm].
    spots_mm : sequence of (x, y) or (x, y, weight), optional
        Spots of every layer in that plane instead of ``field_mm`` [mm].
    isocenter_mm : (x, y, z)
        Point on the axis [mm], LPS.
    gantry_deg : float
        IEC 61217 gantry angle, head first supine: at 0 the beam travels toward +y, at 90 toward -x.
    weight : float
        Relative number of protons among several fields.

    Raises
    ------
    InputError
        When an energy, a weight or the spots cannot be used.

    Examples
    --------
    >>> ProtonField(energy_mev=(120.0, 130.0), field_mm=20.0, spot_spacing_mm=10.0).spots().shape
    (18, 4)
    """

    energy_mev: Any
    layer_weights: Any = None
    field_mm: Any = None
    spot_spacing_mm: float = 5.0
    spots_mm: Any = None
    isocenter_mm: Vector = (0.0, 0.0, 0.0)
    gantry_deg: float = 0.0
    weight: float = 1.0

    def __post_init__(self) -> None:
        energy = np.atleast_1d(np.asarray(self.energy_mev, dtype=np.float64))
        given = np.ones(energy.size) if self.layer_weights is None else self.layer_weights
        weights = np.atleast_1d(np.asarray(given, dtype=np.float64))
        if (
            energy.ndim != 1
            or not np.all(np.isfinite(energy) & (energy > 0))
            or np.unique(energy).size < energy.size
        ):
            raise InputError(
                "`energy_mev` of a proton field must be positive energies, each once, got "
                f"{self.energy_mev}. Its layers are not defined. Give them in MeV."
            )
        if weights.shape != energy.shape or not np.all(np.isfinite(weights) & (weights > 0)):
            raise InputError(
                f"`layer_weights` must be one positive number for each of {energy.size} energies, got "
                f"{self.layer_weights}. The layers cannot be weighted."
            )
        center = np.asarray(self.isocenter_mm, dtype=np.float64)
        if center.shape != (3,) or not np.all(np.isfinite(center)) or not np.isfinite(self.gantry_deg):
            raise InputError(
                f"`isocenter_mm` must be three finite numbers (x, y, z) and `gantry_deg` one, got "
                f"{self.isocenter_mm} and {self.gantry_deg}. The field cannot be placed."
            )
        if not self.weight > 0 or not self.spot_spacing_mm > 0:
            raise InputError(
                f"`weight` and `spot_spacing_mm` must be positive, got {self.weight} and "
                f"{self.spot_spacing_mm}. There would be no spots."
            )
        frozen: dict[str, Any] = {
            "energy_mev": tuple(energy.tolist()),
            "layer_weights": tuple(weights.tolist()),
            "isocenter_mm": tuple(center.tolist()),
            "spots_mm": self._spots(),
        }
        for name, value in frozen.items():
            object.__setattr__(self, name, value)

    def _spots(self) -> tuple[Vector, ...]:
        """Spots of a layer as rows (x, y, weight)."""
        if self.spots_mm is not None:
            if self.field_mm is not None:
                raise InputError(
                    "a proton field takes `field_mm` or `spots_mm`, not both. Leave one of them out."
                )
            return _checked_spots(self.spots_mm)
        field = np.atleast_1d(np.asarray(0.0 if self.field_mm is None else self.field_mm, dtype=np.float64))
        if field.size in (1, 2):
            field = np.array([-field[0] / 2, field[0] / 2, -field[-1] / 2, field[-1] / 2])
        if (
            field.shape != (4,)
            or not np.all(np.isfinite(field))
            or field[1] < field[0]
            or field[3] < field[2]
        ):
            raise InputError(
                f"`field_mm` must be one side, two sides or ascending edges (x1, x2, y1, y2) in mm, got "
                f"{self.field_mm}. It cannot be filled with spots."
            )
        x, y = (_spread(a, b, self.spot_spacing_mm) for a, b in (field[:2], field[2:]))
        return tuple((float(a), float(b), 1.0) for b in y for a in x)

    def spots(self) -> NDArray[np.float64]:
        """All spots: rows (energy [MeV], x [mm], y [mm], weight), weights sum to 1; shape (n, 4)."""
        layer = np.array(self.spots_mm)
        rows = [
            np.column_stack([np.full(len(layer), energy), layer[:, :2], share * layer[:, 2]])
            for energy, share in zip(self.energy_mev, self.layer_weights, strict=True)
        ]
        table = np.concatenate(rows)
        table[:, 3] /= table[:, 3].sum()
        return table


def _spread(low: float, high: float, spacing: float) -> NDArray[np.float64]:
    """Positions a spacing apart, centred between two edges."""
    n = int(np.floor((high - low) / spacing + 1e-9))
    return np.asarray((low + high) / 2 + (np.arange(n + 1) - n / 2) * spacing, dtype=np.float64)


def _checked_spots(spots: Sequence[Any]) -> tuple[Vector, ...]:
    """Rows (x, y, weight) of the caller's spots."""
    rows = [tuple(float(v) for v in row) for row in spots]
    full = [(*row, 1.0) if len(row) == 2 else row for row in rows]
    if (
        not full
        or any(len(row) != 3 for row in full)
        or not np.all(np.isfinite(full))
        or min(r[2] for r in full) <= 0
    ):
        raise InputError(
            f"`spots_mm` must be rows (x, y) or (x, y, weight) with positive weights, got {spots}. Nothing "
            "could be scanned."
        )
    return tuple((row[0], row[1], row[2]) for row in full)
