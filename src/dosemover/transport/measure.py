"""From two dose maps to two measures on one grid: what every transport distance starts from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dosemover.dose import DoseMap
from dosemover.errors import InputError
from dosemover.grid import Grid, conserve, conserve_transposed, union_grid

Weight = Literal["dose", "energy"]


@dataclass(frozen=True, kw_only=True, eq=False)
class MeasurePair:
    """Two piecewise-constant densities on one grid.

    Parameters
    ----------
    a, b : ndarray, shape [z, y, x]
        Density of the reference and of the evaluated measure [Gy], or [Gy g/cm3] with energy weight.
    grid : Grid
        Covers the boxes of both maps.
    """

    a: NDArray[np.float64]
    b: NDArray[np.float64]
    grid: Grid

    @property
    def reference_mass(self) -> float:
        """|a|, the integral of the reference density [Gy mm3]."""
        return float(np.sum(self.a * self.grid.voxel_volume_mm3))

    @property
    def evaluated_mass(self) -> float:
        """|b|, the integral of the evaluated density [Gy mm3]."""
        return float(np.sum(self.b * self.grid.voxel_volume_mm3))

    @property
    def mass_ratio(self) -> float:
        """|b| / |a|: what a balanced distance cannot see."""
        return self.evaluated_mass / self.reference_mass

    def normalized(self) -> MeasurePair:
        """Both measures with mass 1, cropped to the box that holds them (exact for balanced OT)."""
        occupied = (self.a > 0) | (self.b > 0)
        slices = []
        for axis in range(3):
            others = tuple(i for i in range(3) if i != axis)
            hits = np.flatnonzero(occupied.any(axis=others))
            slices.append(slice(int(hits[0]), int(hits[-1]) + 1))
        cut = (slices[0], slices[1], slices[2])
        return MeasurePair(
            a=np.ascontiguousarray(self.a[cut]) / self.reference_mass,
            b=np.ascontiguousarray(self.b[cut]) / self.evaluated_mass,
            grid=self.grid.crop(cut),
        )


def measure_pair(
    *,
    reference: DoseMap,
    evaluated: DoseMap,
    mask: ArrayLike | None = None,
    weight: Weight = "dose",
) -> MeasurePair:
    """Both maps as densities on the union of their boxes, integrals conserved.

    Parameters
    ----------
    reference, evaluated : DoseMap
    mask : array_like of bool or fraction, shape reference.grid.shape, optional
        Doses outside it are set to 0; the box is kept.
    weight : {"dose", "energy"}
        "energy" multiplies by the density map of the reference (energy imparted per volume).

    Raises
    ------
    InputError
        When a map has no mass (left), or energy weight is asked for without a density map.
    """
    grid = union_grid(reference.grid, evaluated.grid)
    a = np.asarray(reference.conserved_on(grid), dtype=np.float64)
    b = np.asarray(evaluated.conserved_on(grid), dtype=np.float64)
    factor = _factor(reference, grid, mask, weight)
    if factor is not None:
        a, b = a * factor, b * factor
    for name, density in (("reference", a), ("evaluated", b)):
        if not density.any():
            raise InputError(
                f"the {name} map has no dose {'inside the mask' if mask is not None else 'at all'}. "
                "No transport distance is defined without mass. Check the map and the mask."
            )
    return MeasurePair(a=a, b=b, grid=grid)


def measure_factor(
    *, reference: DoseMap, grid: Grid, mask: ArrayLike | None = None, weight: Weight = "dose"
) -> NDArray[Any] | None:
    """What mask and weight multiply a dose on ``grid`` by; None where by nothing."""
    return _factor(reference, grid, mask, weight)


def to_evaluated_dose(
    derivative: NDArray[np.float64],
    *,
    reference: DoseMap,
    evaluated: DoseMap,
    mask: ArrayLike | None = None,
    weight: Weight = "dose",
) -> NDArray[np.float64]:
    """Derivative with respect to the evaluated dose [1/Gy], from one with respect to the pair's ``b``.

    Parameters
    ----------
    derivative : ndarray, shape of the pair's grid
    reference, evaluated, mask, weight
        As for `measure_pair`.

    Returns
    -------
    ndarray, shape evaluated.grid.shape
    """
    grid = union_grid(reference.grid, evaluated.grid)
    factor = _factor(reference, grid, mask, weight)
    weighted = derivative if factor is None else derivative * factor
    return np.asarray(conserve_transposed(weighted, source=evaluated.grid, target=grid), dtype=np.float64)


def _factor(reference: DoseMap, grid: Grid, mask: ArrayLike | None, weight: Weight) -> NDArray[Any] | None:
    """Product of mask and density on the union grid, None where neither is asked for."""
    factor = None
    if mask is not None:
        inside = reference.grid.check_array("mask", mask).astype(np.float64)
        factor = conserve(inside, source=reference.grid, target=grid)
    if weight == "energy":
        if reference.density_g_per_cm3 is None:
            raise InputError(
                "`weight='energy'` needs the mass density, and the reference map has none. "
                "Pass density_g_per_cm3, or --density MAP on the command line."
            )
        density = conserve(reference.density_g_per_cm3, source=reference.grid, target=grid)
        factor = density if factor is None else factor * density
    return factor
