"""Moments of dose maps and of Monte Carlo deposits, in an orthonormal Legendre basis on a box."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce
from math import gcd
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dosemover._files import atomic_write
from dosemover.dose import DoseMap
from dosemover.errors import GridMismatchError, InputError
from dosemover.grid import Grid
from dosemover.moments.legendre import interval_integrals, legendre, mass_matrix, total_degree_indices

DEFAULT_DEGREE = 12
_CHUNK = 8192
MAX_DEGREE = 40
_LOST = 1e-7
"""Share of the mass that rounding may take from a moment when a tally changes its box."""

Box = tuple[tuple[float, float], tuple[float, float], tuple[float, float]]


def _check_degree(degree: int) -> None:
    """A degree that can be tallied and solved with."""
    if not (isinstance(degree, int | np.integer) and 0 <= degree <= MAX_DEGREE):
        raise InputError(
            f"`degree` must lie between 0 and {MAX_DEGREE} and be a whole number, got {degree}. Higher "
            "moments of a dose map are noise, and their tensor holds (degree + 1)^3 numbers."
        )


def _check_box(box: Box) -> None:
    """A box with a width along each axis."""
    sides = np.asarray(box, dtype=np.float64)
    if sides.shape != (3, 2) or not np.all(np.isfinite(sides)) or np.any(sides[:, 0] >= sides[:, 1]):
        raise InputError(
            f"`box_mm` must be (low, high) along z, y and x with low below high, got {box}. Moments are "
            "those of polynomials on it."
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class MomentTally:
    """Tensor moments of a measure on a box.

    ``m_abc = integral of phi_a(z) phi_b(y) phi_c(x) dm``, phi the Legendre polynomials that are
    orthonormal on each side of the box.

    Parameters
    ----------
    tensor : ndarray, shape (degree + 1,) * 3
        Moments in axis order (z, y, x) [Gy mm3]; ``tensor[0, 0, 0]`` is the mass.
    box_mm : tuple
        (low, high) [mm] along z, y, x.
    variance : ndarray, shape (degree + 1,) * 3, optional
        Tensor moments of the voxel variances sigma^2 V^2 [Gy2 mm6]: products of pairs of basis
        functions expand in it, so that it holds the covariance of all moments up to half the degree.
    batches : ndarray, shape (n, degree + 1, degree + 1, degree + 1), optional
        Moments of the independent batches whose mean ``tensor`` is.
    n_samples : int
        Number of deposits, for tallies that were streamed.
    extent_mm : tuple, optional
        (low, high) [mm] along z, y, x between which all deposits lay, for tallies that were streamed.
    """

    tensor: NDArray[Any]
    box_mm: Box
    variance: NDArray[Any] | None = None
    batches: NDArray[Any] | None = None
    n_samples: int = 0
    extent_mm: Box | None = None

    @property
    def degree(self) -> int:
        """Highest degree along each axis."""
        return self.tensor.shape[0] - 1

    @property
    def mass(self) -> float:
        """Integral of the measure [Gy mm3]."""
        return float(self.tensor[0, 0, 0])

    def check_mass(self) -> None:
        """Refuse a tally without mass: nothing of it can be normalised or moved.

        Raises
        ------
        InputError
        """
        if not self.mass > 0:
            raise InputError(
                f"a tally holds no mass: its integral is {self.mass:g}. It has neither a mean nor a "
                "distance. Check that the map holds dose, and that the box of the tally holds the map."
            )

    @property
    def half_widths_mm(self) -> NDArray[np.float64]:
        """Half the box along z, y, x [mm]."""
        return np.array([(high - low) / 2 for low, high in self.box_mm])

    @property
    def mean_mm(self) -> NDArray[np.float64]:
        """Mean position (x, y, z) [mm]; an InputError where there is no mass."""
        self.check_mass()
        first = np.array([self.tensor[1, 0, 0], self.tensor[0, 1, 0], self.tensor[0, 0, 1]])
        centers = np.array([(high + low) / 2 for low, high in self.box_mm])
        return (centers + self.half_widths_mm * first / np.sqrt(3) / self.mass)[::-1]

    def covariance(self, degree: int) -> NDArray[np.float64] | None:
        """Covariance of the moments up to a total degree, or None where no uncertainty is known.

        Parameters
        ----------
        degree : int
            At most half the degree of the tally where it comes from voxel variances.

        Returns
        -------
        ndarray, shape (n, n)
            In the order of `legendre.total_degree_indices` (3, degree).
        """
        indices = total_degree_indices(3, degree)
        if self.batches is not None:
            where = tuple(np.array(indices).T)
            rows = self.batches[(slice(None), *where)]
            return np.atleast_2d(np.cov(rows, rowvar=False)) / len(rows)
        if self.variance is not None:
            return mass_matrix(self.variance, indices)
        return None

    def __add__(self, other: MomentTally) -> MomentTally:
        """Tally of the sum of both measures; independent uncertainties add.

        Batches are summed in pairs, those of the tally that has more averaged in groups first; numbers
        without a common divisor leave no batches.
        """
        if self.degree != other.degree or not np.allclose(self.box_mm, other.box_mm):
            raise GridMismatchError(
                f"tallies of degree {self.degree} on {self.box_mm} and of degree {other.degree} on "
                f"{other.box_mm} cannot be merged. Tally both on one box to one degree."
            )

        def both(one: NDArray[Any] | None, two: NDArray[Any] | None) -> NDArray[Any] | None:
            return None if one is None or two is None else one + two

        return MomentTally(
            tensor=self.tensor + other.tensor,
            box_mm=self.box_mm,
            variance=both(self.variance, other.variance),
            batches=_summed_batches(self.batches, other.batches),
            n_samples=self.n_samples + other.n_samples,
            extent_mm=joined_box(self.extent_mm, other.extent_mm),
        )

    def on_box(self, box_mm: Box) -> MomentTally:
        """The same tally on another box that holds all its mass: exact, polynomials being polynomials there.

        Parameters
        ----------
        box_mm : tuple
            (low, high) [mm] along z, y, x.

        Returns
        -------
        MomentTally
            To the highest total degree at which rounding stays below 1e-7 of the mass: lower than the
            tally's own where the new box is much smaller. Tensor moments beyond it are 0.

        Notes
        -----
        *Limits*: nothing checks that no mass lies outside; what does is counted with polynomials that grow
        fast there. Streamed tallies know (``extent_mm``).
        """
        matrices = [
            change_of_box(old, new, self.degree) for old, new in zip(self.box_mm, box_mm, strict=True)
        ]
        trusted = _trusted_moments(matrices)
        cut = (..., *(slice(0, n) for n in trusted.shape))

        def moved(tensor: NDArray[Any] | None) -> NDArray[np.float64] | None:
            if tensor is None:
                return None
            return np.einsum("...abc,xa,yb,zc->...xyz", tensor, *matrices, optimize=True)[cut] * trusted

        tensor = moved(self.tensor)
        assert tensor is not None
        return replace(
            self, tensor=tensor, box_mm=box_mm, variance=moved(self.variance), batches=moved(self.batches)
        )

    def save(self, path: str | Path) -> Path:
        """Write the tally as NPZ, whole or not at all."""
        arrays = {"tensor": self.tensor, "box_mm": np.array(self.box_mm), "n_samples": self.n_samples}
        for name in ("variance", "batches", "extent_mm"):
            if getattr(self, name) is not None:
                arrays[name] = np.array(getattr(self, name))
        with atomic_write(path) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, **arrays)
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> MomentTally:
        """Read a tally that `save` wrote."""
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return cls(
                    tensor=arrays["tensor"],
                    box_mm=_as_box(arrays["box_mm"]),
                    variance=arrays.get("variance"),
                    batches=arrays.get("batches"),
                    n_samples=int(arrays["n_samples"]),
                    extent_mm=_as_box(arrays["extent_mm"]) if "extent_mm" in arrays else None,
                )
        except (OSError, ValueError, KeyError) as error:
            raise InputError(f"{path}: is no moment tally ({error}). Write one with save.") from error


def _as_box(array: NDArray[Any]) -> Box:
    """A box from an array of (low, high) along z, y, x."""
    z, y, x = ((float(low), float(high)) for low, high in array)
    return z, y, x


def joined_box(one: Box | None, two: Box | None) -> Box | None:
    """Smallest box that holds two; None where one is unknown."""
    if one is None or two is None:
        return None
    z, y, x = ((min(a[0], b[0]), max(a[1], b[1])) for a, b in zip(one, two, strict=True))
    return z, y, x


def change_of_box(old: tuple[float, float], new: tuple[float, float], degree: int) -> NDArray[np.float64]:
    """T with phi_a on the new side = sum_b T_ab phi_b on the old side, shape (degree + 1, degree + 1)."""
    nodes, weights = np.polynomial.legendre.leggauss(degree + 1)
    middle, half = (old[0] + old[1]) / 2, (old[1] - old[0]) / 2
    there = (2 * (middle + half * nodes) - (new[0] + new[1])) / (new[1] - new[0])
    return np.tril((legendre(there, degree).T * weights / 2) @ legendre(nodes, degree))


def _summed_batches(one: NDArray[Any] | None, two: NDArray[Any] | None) -> NDArray[np.float64] | None:
    """Batches of the sum of two independent measures; None where they cannot be paired."""
    if one is None or two is None:
        return None
    n = gcd(len(one), len(two))
    first, second = (side.reshape(n, -1, *side.shape[1:]).mean(axis=1) for side in (one, two))
    return first + second if n > 1 else None


def _trusted_moments(matrices: list[NDArray[Any]]) -> NDArray[np.bool_]:
    """Which tensor moments keep their digits in a change of box: all up to one total degree."""
    size = len(matrices[0])
    largest = np.sqrt(2 * np.arange(size) + 1)  # of a moment over the mass
    z, y, x = (np.abs(matrix) @ largest for matrix in matrices)
    lost = np.finfo(np.float64).eps * z[:, None, None] * y[:, None] * x
    total = np.add.outer(np.add.outer(np.arange(size), np.arange(size)), np.arange(size))
    degree = min(int(total[lost > _LOST].min(initial=size)) - 1, size - 1)
    return (total <= degree)[: degree + 1, : degree + 1, : degree + 1]


def _scaled_edges(grid: Grid, box: Box) -> list[NDArray[np.float64]]:
    """Voxel boundaries in the coordinates of the box, [-1, 1] along each axis."""
    return [
        (2 * edges - (low + high)) / (high - low)
        for edges, (low, high) in zip(grid.edges_mm, box, strict=True)
    ]


def _contract(density: NDArray[Any], integrals: list[NDArray[Any]]) -> NDArray[np.float64]:
    """Tensor of sums over voxels by one matrix product an axis, last axis first."""
    nz, ny, nx = density.shape
    along_x = density.reshape(nz * ny, nx) @ integrals[2].astype(density.dtype)
    along_y = np.einsum(
        "zya,yb->zba", along_x.reshape(nz, ny, -1).astype(np.float64), integrals[1], optimize=True
    )
    return np.einsum("zba,zc->cba", along_y, integrals[0], optimize=True)


def _moments(density: NDArray[Any], grid: Grid, box: Box, degree: int) -> NDArray[np.float64]:
    """Exact tensor moments of a piecewise-constant density."""
    integrals = [
        interval_integrals(np.clip(t, -1.0, 1.0), degree) * half
        for t, half in zip(_scaled_edges(grid, box), [(high - low) / 2 for low, high in box], strict=True)
    ]
    return _contract(np.asarray(density, dtype=np.float64), integrals)


def tally_density(
    density: ArrayLike, grid: Grid, *, box_mm: Box | None = None, degree: int = DEFAULT_DEGREE
) -> MomentTally:
    """Moments of a piecewise-constant density, exact to rounding.

    Parameters
    ----------
    density : array_like, shape [z, y, x]
    grid : Grid
    box_mm : tuple, optional
        (low, high) [mm] along z, y, x; the grid's own box by default. Density outside is left out.
    degree : int
        Highest degree along each axis.

    Returns
    -------
    MomentTally

    Raises
    ------
    InputError
        When the degree is out of range, or the box has no width.

    Notes
    -----
    *Cost*: one matrix product of the map with degree + 1 columns.
    """
    _check_degree(degree)
    box = grid.box_mm if box_mm is None else box_mm
    _check_box(box)
    return MomentTally(tensor=_moments(grid.check_array("density", density), grid, box, degree), box_mm=box)


def tally_map(dose: DoseMap, *, box_mm: Box | None = None, degree: int = DEFAULT_DEGREE) -> MomentTally:
    """Moments of a dose map, with the covariance that its batches or its uncertainty imply.

    Parameters
    ----------
    dose : DoseMap
    box_mm : tuple, optional
        (low, high) [mm] along z, y, x; the map's own box by default.
    degree : int

    Returns
    -------
    MomentTally
        With ``batches`` where the map has them (correlated noise included), else with ``variance``
        where it has an uncertainty (voxels taken as independent).
    """
    tally = tally_density(dose.dose_gy, dose.grid, box_mm=box_mm, degree=degree)
    box = tally.box_mm
    if dose.batches_gy is not None:
        batches = np.stack([_moments(batch, dose.grid, box, degree) for batch in dose.batches_gy])
        return replace(tally, batches=batches)
    if dose.uncertainty_gy is not None:
        variance = np.square(dose.uncertainty_gy, dtype=np.float64) * dose.grid.voxel_volume_mm3
        return replace(tally, variance=_moments(variance, dose.grid, box, degree))
    return tally


class MomentAccumulator:
    """Streaming tally of weighted points: Monte Carlo deposits without a grid.

    Parameters
    ----------
    box_mm : tuple
        (low, high) [mm] along z, y, x. Deposits outside are counted in ``outside`` and left out. A box
        that is too wide costs nothing that cannot be mended: the tally knows between which positions all
        deposits lay, and the levels re-expand it there (`MomentTally.on_box`).
    degree : int

    Notes
    -----
    *Cost*: about 2 (degree + 1)^3 operations a deposit; the memory does not grow.
    """

    def __init__(self, *, box_mm: Box, degree: int = DEFAULT_DEGREE) -> None:
        _check_degree(degree)
        _check_box(box_mm)
        self.box_mm = box_mm
        self.degree = degree
        self.n_samples = 0
        self.outside = 0.0
        self._sum = np.zeros((degree + 1,) * 3)
        self._batches: list[NDArray[np.float64]] = []
        self._low, self._high = np.full(3, np.inf), np.full(3, -np.inf)

    @property
    def extent_mm(self) -> Box | None:
        """(low, high) [mm] along z, y, x between which all deposits lay; None before the first."""
        if self.n_samples == 0 or np.any(self._low >= self._high):
            return None
        return _as_box(np.stack([self._low, self._high], axis=1))

    def add(self, positions_mm: ArrayLike, weights: ArrayLike) -> None:
        """Add deposits.

        Parameters
        ----------
        positions_mm : array_like, shape (n, 3)
            Points (x, y, z) [mm].
        weights : array_like, shape (n,)
            What each deposit adds to the measure [Gy mm3 or J].
        """
        points = np.asarray(positions_mm, dtype=np.float64)
        w = np.asarray(weights, dtype=np.float64)
        if points.ndim != 2 or points.shape[1] != 3 or w.shape != points.shape[:1]:
            raise InputError(
                f"`positions_mm` and `weights` must have shapes (n, 3) and (n,), got {points.shape} and "
                f"{w.shape}."
            )
        if not (np.all(np.isfinite(points)) and np.all(np.isfinite(w))):
            raise InputError(
                "`positions_mm` and `weights` must be finite, got NaN or infinity. One would make every "
                "moment of the tally NaN. Leave such deposits out."
            )
        for start in range(0, len(points), _CHUNK):
            self._add_chunk(points[start : start + _CHUNK, ::-1], w[start : start + _CHUNK])

    def _add_chunk(self, points: NDArray[Any], weights: NDArray[Any]) -> None:
        """Add deposits at points (z, y, x)."""
        t = np.stack(
            [(2 * points[:, i] - (low + high)) / (high - low) for i, (low, high) in enumerate(self.box_mm)]
        )
        inside = np.all(np.abs(t) <= 1, axis=0)
        self.outside += float(weights[~inside].sum())
        if not inside.any():
            return
        z, y, x = (legendre(values[inside], self.degree) for values in t)
        pairs = (z[:, :, None] * y[:, None, :]).reshape(len(z), -1)
        self._sum += (pairs.T @ (x * weights[inside, None])).reshape(self._sum.shape)
        self.n_samples += int(inside.sum())
        self._low = np.minimum(self._low, points[inside].min(axis=0))
        self._high = np.maximum(self._high, points[inside].max(axis=0))

    def end_batch(self) -> None:
        """Close a batch: what was added since the last one becomes an independent sample."""
        self._batches.append(self._sum)
        self._sum = np.zeros_like(self._sum)

    def tally(self) -> MomentTally:
        """The tally so far: the mean of the closed batches, or the sum where there are none."""
        if not self._batches:
            return MomentTally(
                tensor=self._sum.copy(),
                box_mm=self.box_mm,
                n_samples=self.n_samples,
                extent_mm=self.extent_mm,
            )
        batches = np.stack(self._batches)
        return MomentTally(
            tensor=batches.mean(axis=0),
            box_mm=self.box_mm,
            batches=batches if len(batches) > 1 else None,
            n_samples=self.n_samples,
            extent_mm=self.extent_mm,
        )


class MomentConsumer:
    """Tallies moments while a simulation runs: a consumer of energy deposits, batch by batch.

    Parameters
    ----------
    box_mm : tuple
        (low, high) [mm] along z, y, x. Deposits outside are left out.
    degree : int

    Notes
    -----
    *Definition*: each deposit weighs its energy, so that the tally is that of energy imparted; in a
    phantom of one density it is the dose's up to a factor. It agrees with the tally of the simulated
    map to the voxel size: a map spreads each deposit over its voxel, so that the streamed moment of a
    basis function phi exceeds the map's by the sum over axes of h^2 / 12 int d_i phi d_i f, f the
    density of energy and h the voxel width (their covariance within a voxel, to second order),
    beside the noise of where in their voxels the deposits lay. *Cost*: no memory per deposit.
    """

    def __init__(self, *, box_mm: Box, degree: int = DEFAULT_DEGREE) -> None:
        _check_degree(degree)
        _check_box(box_mm)
        self.box_mm, self.degree = box_mm, degree
        self._batches: dict[int, MomentAccumulator] = {}

    def deposits(self, batch: int, position_mm: NDArray[np.float64], energy_mev: NDArray[np.float64]) -> None:
        """Take deposits of one batch: positions (x, y, z) [mm], shape (n, 3), energies [MeV], shape (n,)."""
        if batch not in self._batches:
            self._batches[batch] = MomentAccumulator(box_mm=self.box_mm, degree=self.degree)
        self._batches[batch].add(position_mm, energy_mev)

    def tally(self) -> MomentTally:
        """Mean over the batches so far, with their covariance where there are two or more."""
        parts = [self._batches[batch].tally() for batch in sorted(self._batches)]
        if not parts:
            raise InputError("no deposit has been tallied. Pass the consumer to a simulation first.")
        batches = np.stack([part.tensor for part in parts])
        extents = [part.extent_mm for part in parts]
        return MomentTally(
            tensor=batches.mean(axis=0),
            box_mm=self.box_mm,
            batches=batches if len(batches) > 1 else None,
            n_samples=sum(part.n_samples for part in parts),
            extent_mm=reduce(joined_box, extents),
        )
