"""From two dose maps to two measures on one grid: what every transport distance starts from."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dosemover._runtime import available_memory_bytes
from dosemover.dose import DoseMap
from dosemover.errors import AccuracyWarning, InputError
from dosemover.grid import Grid, common_grid, conserve, conserve_transposed

Weight = Literal["dose", "energy"]

_ROUNDING = 1e-9
"""Relative spread of the widths of an axis up to which bounds do not feel it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class MeasurePair:
    """Two piecewise-constant densities on one grid.

    Parameters
    ----------
    a, b : ndarray, shape [z, y, x]
        Density of the reference and of the evaluated measure [Gy], or [Gy g/cm3] with energy weight.
    grid : Grid
        Covers the boxes of both maps.
    averaged_mm : float
        At least W_2 between ``b`` and the evaluated map itself, both normalised: 0 where its voxels are
        unions of the grid's. Certified bounds of the pair are widened by it to be bounds of the maps.
    """

    a: NDArray[np.float64]
    b: NDArray[np.float64]
    grid: Grid
    averaged_mm: float = 0.0

    @property
    def reference_mass(self) -> float:
        """|a|, the integral of the reference density [Gy mm3]."""
        return _mass(self.a, self.grid)

    @property
    def evaluated_mass(self) -> float:
        """|b|, the integral of the evaluated density [Gy mm3]."""
        return _mass(self.b, self.grid)

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
            averaged_mm=self.averaged_mm,
        )


def measure_pair(
    *,
    reference: DoseMap,
    evaluated: DoseMap,
    mask: ArrayLike | None = None,
    weight: Weight = "dose",
) -> MeasurePair:
    """Both maps as densities on one grid over the union of their boxes, integrals conserved.

    The grid is `common_grid`: maps on different voxels are brought to common pieces of them, exactly as far
    as the number of voxels allows; ``averaged_mm`` bounds what averaging over larger ones moves.

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
    grid = _exactly_even(common_grid(reference.grid, evaluated.grid))
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
    averaged = 0.0
    if not evaluated.grid.coincides_with(grid):
        averaged = _averaged_mm(evaluated, grid, factor, _mass(b, grid))
    return MeasurePair(a=a, b=b, grid=grid, averaged_mm=averaged)


def _exactly_even(grid: Grid) -> Grid:
    """The grid, or one exactly even where its voxels differ by more than rounding and yet have one volume."""
    if not grid.is_even or all(np.ptp(w) <= _ROUNDING * w.mean() for w in grid.widths_mm):
        return grid
    z, y, x = (np.linspace(e[0], e[-1], e.size) for e in grid.edges_mm)
    even = Grid(z_edges_mm=z, y_edges_mm=y, x_edges_mm=x)
    return even if even.coincides_with(grid) else grid


def _mass(density: NDArray[np.float64], grid: Grid) -> float:
    """Integral of a density [Gy mm3]."""
    if grid.is_even:
        return float(np.sum(density)) * float(grid.voxel_volume_mm3.flat[0])
    return float(np.sum(density * grid.voxel_volume_mm3))


def check_memory(n_voxels: int, bytes_per_voxel: int, what: str) -> None:
    """Refuse a problem that would not fit into memory, before anything is allocated."""
    available = available_memory_bytes()
    needed = n_voxels * bytes_per_voxel
    if available is not None and needed > available:
        raise InputError(
            f"{what} on {n_voxels} voxels needs about {needed / 2**30:.1f} GiB of memory, and "
            f"{available / 2**30:.1f} GiB are free. It was not started. Crop the maps to the region of "
            "interest or resample them to a coarser grid."
        )


def warn_about_mass_ratio(ratio: float, consequence: str, *, stacklevel: int = 3) -> None:
    """Warn where the masses differ by more than a factor of 2, from the caller's caller by default."""
    if not 0.5 <= ratio <= 2:
        warnings.warn(
            f"the evaluated map holds {ratio:.3g} times the dose of the reference: {consequence}. "
            "Scale it first (--scale match-integral, or a factor).",
            AccuracyWarning,
            stacklevel=stacklevel,
        )


def checked_pair(
    *,
    reference: DoseMap,
    evaluated: DoseMap,
    mask: ArrayLike | None,
    weight: Weight,
    what: str,
    bytes_per_voxel: int,
    consequence: str | None = None,
) -> MeasurePair:
    """`measure_pair` for a solver: looks at the memory first, and warns of masses that differ by a factor.

    Parameters
    ----------
    reference, evaluated, mask, weight
        As for `measure_pair`.
    what : str
        What is to be computed, for messages.
    bytes_per_voxel : int
        Peak memory of the solver on the pair's grid.
    consequence : str, optional
        What a mass ratio beyond 1/2 to 2 does to the result; balanced solvers cannot see it.

    Raises
    ------
    InputError
        Where memory would not suffice, and as `measure_pair`.

    Warns
    -----
    AccuracyWarning
        Where the masses differ by more than a factor of 2.
    """
    check_memory(common_grid(reference.grid, evaluated.grid).n_voxels, bytes_per_voxel, what)
    pair = measure_pair(reference=reference, evaluated=evaluated, mask=mask, weight=weight)
    blind = "balanced distances compare normalised maps and cannot see that"
    warn_about_mass_ratio(pair.mass_ratio, consequence or blind, stacklevel=4)
    return pair


def _averaged_mm(evaluated: DoseMap, grid: Grid, factor: NDArray[Any] | None, mass: float) -> float:
    """At least W_2 between a map and its average over a grid's voxels, both normalised [mm].

    Averaging along one axis after the other moves dose within its voxel along that axis: the squared
    distances add up, and each is at most that of averaging the map itself.
    """
    total = 0.0
    for axis, (own, edges) in enumerate(zip(evaluated.grid.edges_mm, grid.edges_mm, strict=True)):
        cost = _averaging_cost(np.asarray(evaluated.dose_gy, dtype=np.float64), own, edges, axis)
        if cost is None:
            continue
        name = "zyx"[axis] + "_edges_mm"
        mixed = {f"{one}_edges_mm": e for one, e in zip("zyx", evaluated.grid.edges_mm, strict=True)}
        cost = conserve(cost, source=Grid(**(mixed | {name: edges})), target=grid)
        total += float(np.sum((cost if factor is None else cost * factor) * grid.voxel_volume_mm3))
    return float(np.sqrt(max(total, 0.0) / mass))


def _averaging_cost(
    density: NDArray[np.float64], own: NDArray[Any], edges: NDArray[Any], axis: int
) -> NDArray[np.float64] | None:
    """Squared distance that averaging along an axis moves dose, a voxel and volume; None where by nothing.

    On a piece of constant density the monotone map to the average is linear, so the integral is exact.
    """
    cuts = np.union1d(own, edges)
    cuts = cuts[(cuts >= edges[0]) & (cuts <= edges[-1])]
    middle, width = (cuts[1:] + cuts[:-1]) / 2, np.diff(cuts)
    target = np.searchsorted(edges, middle) - 1
    cut_up = np.flatnonzero(np.bincount(target, minlength=edges.size - 1) > 1)
    if not cut_up.size:
        return None
    source = np.searchsorted(own, middle) - 1
    outside = (source < 0) | (source >= own.size - 1)
    lines = np.moveaxis(density, axis, -1)
    result = np.zeros((*lines.shape[:-1], edges.size - 1))
    for j in cut_up:
        pieces = np.flatnonzero(target == j)
        values = lines[..., np.clip(source[pieces], 0, own.size - 2)] * ~outside[pieces]
        masses = values * width[pieces]
        below = np.concatenate([np.zeros((*masses.shape[:-1], 1)), np.cumsum(masses, axis=-1)], axis=-1)
        mean = below[..., -1:] / (edges[j + 1] - edges[j])
        knots = np.append(cuts[pieces], cuts[pieces[-1] + 1]) - edges[j]
        moved = below / np.where(mean > 0, mean, 1.0) - knots
        first, last = moved[..., :-1], moved[..., 1:]
        cost = masses * (first * first + first * last + last * last) / 3
        result[..., j] = cost.sum(axis=-1) / (edges[j + 1] - edges[j])
    return np.moveaxis(result, -1, axis)


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
    grid = common_grid(reference.grid, evaluated.grid)
    factor = _factor(reference, grid, mask, weight)
    weighted = derivative if factor is None else derivative * factor
    return np.asarray(conserve_transposed(weighted, source=evaluated.grid, target=grid), dtype=np.float64)


def _factor(reference: DoseMap, grid: Grid, mask: ArrayLike | None, weight: Weight) -> NDArray[Any] | None:
    """Product of mask and density on the common grid, None where neither is asked for."""
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
