"""The Dose Mover's Distance as a quadratic form: every relabelling of batches from one solve a batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dosemover.dose import DoseMap
from dosemover.errors import GridMismatchError, InputError
from dosemover.grid import Grid, conserve
from dosemover.transport.dose_mover import MoverProblem, mover_problem
from dosemover.transport.measure import Weight, measure_factor
from dosemover.transport.multigrid import Multigrid
from dosemover.transport.quadratic_form import QuadraticNoise
from dosemover.transport.spline import SplineSpace, solve_potential

_SOLVED_VOXELS = 3e6
"""Voxels of all batches together: a few seconds."""

_FEWEST = 12
"""Cells along an axis below which its voxels are not merged."""

_TOLERANCE = 1e-2
"""Of the solves, in the energy norm: the forms are accurate to about its square."""


@dataclass(frozen=True, kw_only=True, eq=False)
class AppliedInverse:
    """Sources z and their potentials u = A^-1 z, A = -div(theta grad .) + theta ./L^2, as voxel means."""

    problem: MoverProblem
    sources: NDArray[np.float64]
    potentials: NDArray[np.float64]

    def pairs(self) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
        """(u, z) of every source."""
        return zip(self.potentials, self.sources, strict=True)

    def forms(self) -> dict[str, NDArray[np.float64]]:
        """Products of all pairs of sources: on the diagonal the squares of distance and parts.

        The distance's are z' A^-1 z / |a_ref| [mm2]; those of the change, u' theta u / (L^4 |a_ref|), in %^2;
        the movement's are what is left.
        """
        problem, n = self.problem, len(self.sources)
        volume = problem.grid.voxel_volume_mm3
        u, z = (field.reshape(n, -1) for field in (self.potentials, self.sources * volume))
        total = u @ z.T / problem.mass
        total = (total + total.T) / 2
        weighted = (self.potentials * (problem.mobility * volume)).reshape(n, -1)
        changed = weighted @ u.T * (problem.screening**2 / problem.mass)
        moved = total - changed / problem.screening
        return {"dmd_mm": total, "dmd_moved_mm": moved, "dmd_changed_percent": 1e4 * changed}


def inverse_operator(problem: MoverProblem, sources: NDArray[np.float64]) -> AppliedInverse:
    """Solve for the potential of every source, shape [source, z, y, x]."""
    space, theta = SplineSpace(problem.grid), problem.mobility
    multigrid = Multigrid(theta, problem.grid, screening=problem.screening, splines=True)
    potentials = np.empty_like(sources)
    for source, potential in zip(sources, potentials, strict=True):
        found = solve_potential(
            space, theta, source, screening=problem.screening, multigrid=multigrid, tolerance=_TOLERANCE
        )
        potential[:] = space.means(found.x)
    return AppliedInverse(problem=problem, sources=sources, potentials=potentials)


@dataclass(frozen=True, kw_only=True, eq=False)
class MoverGram:
    """Squares of the Dose Mover's Distance and its parts for any weights of pooled batches, near the null.

    Parameters
    ----------
    sizes : (int, int)
        Batches of the reference and of the evaluated map, in this order in the forms.
    forms : mapping
        Symmetric matrix G [batch, batch] of dmd_mm, dmd_moved_mm [mm2] and dmd_changed_percent [%^2]: maps
        that differ by sum_i w_i B_i, sum w_i = 0, have the square w' G w.
    merged : tuple of int
        Voxels in a cell along (z, y, x).
    """

    sizes: tuple[int, int]
    forms: dict[str, NDArray[np.float64]]
    merged: tuple[int, int, int] = (1, 1, 1)

    @property
    def exact_floor(self) -> bool:
        """Whether no voxels were merged: what merging averages out belongs to the floor."""
        return max(self.merged) == 1

    def noise(self) -> dict[str, QuadraticNoise]:
        """The squares under noise alone, from the batches of each side about their own mean."""
        return {key: self._noise(form) for key, form in self.forms.items()}

    def _noise(self, form: NDArray[np.float64]) -> QuadraticNoise:
        """Traces of the form with the batches' covariance, freed of the scatter of few batches (Wishart)."""
        sides = np.repeat([0, 1], self.sizes)
        centering = np.eye(len(sides))
        scale = np.zeros(len(sides))
        for side, n in enumerate(self.sizes):
            mine = sides == side
            centering -= np.outer(mine, mine) / n
            scale[mine] = 1 / np.sqrt(n * (n - 1))
        form = scale[:, None] * (centering @ form @ centering) * scale
        shares = np.array([np.trace(form[sides == side][:, sides == side]) for side in (0, 1)])
        first = float(shares.sum())
        if first <= 0:
            return QuadraticNoise(mean=max(first, 0.0), variance=0.0)
        inverse = float(np.sum((shares / first) ** 2 / (np.array(self.sizes) - 1)))
        second = 2 * float(np.sum(form**2))
        second = max((second - 2 * first**2 * inverse) / (1 + inverse), 0.05 * second)
        return QuadraticNoise(mean=first, variance=second, mean_variance=second * inverse)


def dose_mover_gram(
    *,
    reference: DoseMap,
    evaluated: DoseMap,
    exchange_mm_per_percent: float = 1.0,
    ambient_dose_percent: float = 0.1,
    ambient_dose_gy: float | None = None,
    mask: ArrayLike | None = None,
    weight: Weight = "dose",
    solved_voxels: float = _SOLVED_VOXELS,
) -> MoverGram:
    """Quadratic forms of the Dose Mover's Distance in the batches of two maps on one grid.

    Parameters
    ----------
    reference, evaluated : DoseMap
        With at least two batches each.
    exchange_mm_per_percent, ambient_dose_percent, ambient_dose_gy, mask, weight
        As for `dose_movers_distance`.
    solved_voxels : float
        Most voxels times batches: pairs of voxels are merged, along the finest axis first, until they are
        no more.

    Returns
    -------
    MoverGram

    Raises
    ------
    InputError, GridMismatchError
        Where a map has fewer than two batches, or the grids differ.

    Notes
    -----
    *Definition*: mobility and ambient dose are those of the mean of all batches, which no relabelling
    changes: ranks of w' G w among relabellings are exact, whatever the noise. To first order in the noise
    the square is that of the distance. *Limits*: a real change of the mobility is left out; merged voxels
    average out the finest noise, which raises floors but tells no difference. *Cost*: one solve a batch.
    """
    first, second = reference.batches_gy, evaluated.batches_gy
    if first is None or second is None or min(len(first), len(second)) < 2:
        raise InputError(
            "both maps must bring at least two batches: the distance of their relabelled means cannot be "
            "found otherwise. Pass --reference-batches and --evaluated-batches."
        )
    if not reference.grid.coincides_with(evaluated.grid):
        raise GridMismatchError(
            "batches on different grids cannot be relabelled. Their noise differs by the grid alone. "
            "Tally both simulations on one grid."
        )
    sizes = (len(first), len(second))
    mean = (first.sum(axis=0, dtype=np.float64) + second.sum(axis=0, dtype=np.float64)) / sum(sizes)
    pooled = replace(reference, dose_gy=mean, uncertainty_gy=None, batches_gy=None)
    problem = mover_problem(
        reference=pooled,
        evaluated=pooled,
        exchange_mm_per_percent=exchange_mm_per_percent,
        ambient_dose_percent=ambient_dose_percent,
        ambient_dose_gy=ambient_dose_gy,
        mask=mask,
        weight=weight,
    )
    factor = measure_factor(reference=reference, grid=problem.grid, mask=mask, weight=weight)
    grid, merged = _merged(problem.grid, solved_voxels / sum(sizes))
    fine, mass = problem.grid, problem.mass * reference.integral_gy_mm3 / pooled.integral_gy_mm3
    if max(merged) > 1:
        a = np.asarray(conserve(problem.a, source=fine, target=grid), dtype=np.float64)
        problem = replace(problem, a=a, b=a, grid=grid)
    problem = replace(problem, mass=mass)
    rows = np.empty((sum(sizes), *grid.shape))
    for row, batch in zip(rows, (*first, *second), strict=True):
        noise = np.subtract(batch, mean, dtype=np.float64)
        noise = noise if factor is None else noise * factor
        row[:] = noise if max(merged) == 1 else conserve(noise, source=fine, target=grid)
    return MoverGram(sizes=sizes, forms=inverse_operator(problem, rows).forms(), merged=merged)


def _merged(grid: Grid, most: float) -> tuple[Grid, tuple[int, int, int]]:
    """The grid with voxels merged, the finest axis first, until there are no more than ``most``."""
    edges = [np.asarray(e) for e in grid.edges_mm]
    factors = [1, 1, 1]
    while np.prod([e.size - 1 for e in edges]) > most:
        free = [axis for axis in range(3) if edges[axis].size - 1 >= 2 * _FEWEST]
        if not free:
            break
        axis = min(free, key=lambda one: float(np.mean(np.diff(edges[one]))))
        edges[axis] = _every_second(edges[axis])
        factors[axis] *= 2
    z, y, x = edges
    return Grid(z_edges_mm=z, y_edges_mm=y, x_edges_mm=x), (factors[0], factors[1], factors[2])


def _every_second(edges: NDArray[Any]) -> NDArray[np.float64]:
    """Every second boundary; the last cell takes what is left over."""
    kept = edges[: edges.size - (edges.size - 1) % 2 : 2].copy()
    kept[-1] = edges[-1]
    return kept
