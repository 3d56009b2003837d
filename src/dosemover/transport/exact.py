"""Exact earth mover's distance between atoms, through POT: a cross-check for small maps."""

from __future__ import annotations

import warnings
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dosemover.dose import DoseMap
from dosemover.errors import InputError
from dosemover.grid import Grid
from dosemover.transport.measure import MeasurePair, Weight, checked_pair
from dosemover.transport.result import TransportResult

_ROUNDING = 1e-9
"""Marginals of POT's plan count as met within this share of the mass."""

_OPTIMAL = 1e-6
"""A plan is optimal where its bounds differ by less than this share."""

_BYTES_PER_VOXEL = 80
"""Peak memory on the voxel grid, beside the cost matrix."""


def _distances(x: NDArray[Any], y: NDArray[Any], order: int) -> NDArray[np.float64]:
    """Cost |x_i - y_j|^p, shape (n, m) [mm^p]."""
    squared = np.zeros((len(x), len(y)))
    for axis in range(x.shape[1]):
        squared += np.square(x[:, None, axis] - y[None, :, axis])
    return np.sqrt(squared, out=squared) if order == 1 else squared


def _solve(
    x: NDArray[Any], y: NDArray[Any], *, p: NDArray[Any], q: NDArray[Any], order: int, max_iterations: int
) -> tuple[float, float, str]:
    """Lower and upper bound of the least cost [mm^p] between masses p and q that sum to 1, and the status."""
    import ot

    cost = _distances(x, y, order)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # POT's iteration cap: the status says it
        plan, log = ot.emd(p, q, cost, numItermax=max_iterations, log=True)
    u = np.asarray(log["u"], dtype=np.float64)
    v = np.min(cost - u[:, None], axis=0)
    u = np.min(cost - v[None, :], axis=1)
    lower = max(float(u @ p + v @ q), 0.0)
    rest_p, rest_q = p - plan.sum(1), q - plan.sum(0)
    upper = float(np.sum(plan * cost))
    if min(rest_p.min(), rest_q.min()) < -_ROUNDING:  # not even a partial plan
        rest_p, rest_q, upper = p, q, 0.0
    rest_p, rest_q = np.maximum(rest_p, 0.0), np.maximum(rest_q, 0.0)
    if rest_q.sum() > 0:  # what an unfinished plan left behind moves independently
        upper += float(rest_p @ cost @ rest_q) / float(rest_q.sum())
    lower = min(lower, upper)
    code = int(log["result_code"])
    if upper - lower <= _OPTIMAL * upper:
        return lower, upper, "ok"
    return lower, upper, (
        f"not converged: POT stopped with result code {code} after at most {max_iterations} iterations; "
        "the interval holds, raise `max_iterations` to close it"
    )  # fmt: skip


def _merge(mass: NDArray[Any], starts: list[NDArray[np.int64]]) -> NDArray[Any]:
    """Mass of blocks of voxels that begin at ``starts`` along each axis."""
    for axis, first in enumerate(starts):
        mass = np.add.reduceat(mass, first, axis=axis)
    return mass


def _coarsened(pair: MeasurePair, order: int, max_atoms: int) -> tuple[Any, Any, Grid, tuple[int, ...]]:
    """Masses in blocks of voxels, as cubic as can be, until the cost matrix is small enough."""
    volume = pair.grid.voxel_volume_mm3
    masses = [pair.a * volume, pair.b * volume]
    factor = [1, 1, 1]
    while True:
        starts = [np.arange(0, n, f) for n, f in zip(pair.grid.shape, factor, strict=True)]
        a, b = (_merge(m, starts) for m in masses)
        if order == 1:  # what stays in place costs nothing, and for a metric nothing is lost by leaving it
            common = np.minimum(a, b)
            a, b = a - common, b - common
        if np.count_nonzero(a) * np.count_nonzero(b) <= max_atoms**2:
            edges = [np.append(e[s], e[-1]) for e, s in zip(pair.grid.edges_mm, starts, strict=True)]
            grid = Grid(z_edges_mm=edges[0], y_edges_mm=edges[1], x_edges_mm=edges[2])
            return a, b, grid, tuple(factor[::-1])
        width = [float(np.mean(np.diff(e))) for e in pair.grid.edges_mm]
        growing = [axis for axis in range(3) if factor[axis] < pair.grid.shape[axis]]
        axis = min(growing, key=lambda i: width[i] * factor[i])
        factor[axis] += 1


def _spread_mm(density: NDArray[Any], fine: Grid, coarse: Grid) -> float:
    """W_2 at most between a density and its atoms at the block centres [mm]."""
    total = 0.0
    mass = density * fine.voxel_volume_mm3
    for axis in range(3):
        edges, blocks = fine.edges_mm[axis], coarse.edges_mm[axis]
        centers = (edges[1:] + edges[:-1]) / 2
        block = np.clip(np.searchsorted(blocks, centers, side="right") - 1, 0, blocks.size - 2)
        offset = centers - (blocks[block] + blocks[block + 1]) / 2
        squared = offset**2 + fine.widths_mm[axis] ** 2 / 12
        others = tuple(i for i in range(3) if i != axis)
        total += float(mass.sum(axis=others) @ squared)
    return float(np.sqrt(total / mass.sum()))


def _atoms(mass: NDArray[Any], grid: Grid) -> tuple[NDArray[Any], NDArray[Any]]:
    """Centres (x, y, z) and masses of the occupied voxels."""
    index = np.nonzero(mass)
    z, y, x = (centers[i] for centers, i in zip(grid.centers_mm, index, strict=True))
    return np.stack([x, y, z], axis=1), mass[index]


def _check_order(order: int) -> None:
    """Refuse other orders than 1 and 2."""
    if order not in (1, 2):
        raise InputError(f"`order` must be 1 or 2, got {order}. Only W_1 and W_2 are defined here.")


def emd(
    *,
    reference: DoseMap,
    evaluated: DoseMap,
    mask: ArrayLike | None = None,
    weight: Weight = "dose",
    order: Literal[1, 2] = 1,
    max_atoms: int = 2500,
    max_iterations: int = 5_000_000,
) -> TransportResult:
    """Earth mover's distance between voxel atoms: exact W_p of maps that sit at voxel centres.

    ``EMD_p^p = min over plans P with marginals a, b of sum_ij P_ij |x_i - y_j|^p``, both masses 1.

    Parameters
    ----------
    reference, evaluated : DoseMap
    mask : array_like of bool or fraction, shape reference.grid.shape, optional
        Doses outside it are set to 0.
    weight : {"dose", "energy"}
        "energy" multiplies by the reference's density map.
    order : {1, 2}
        p.
    max_atoms : int
        The maps are merged into larger blocks, as cubic as can be, until the cost matrix has at most
        ``max_atoms`` squared entries.
    max_iterations : int
        Of POT's network simplex.

    Returns
    -------
    TransportResult
        Value [mm]; ``lower`` from the potentials, made feasible, and ``upper`` from the plan: both for
        the atoms, not for the density. ``settings`` holds the ``block`` (voxels merged along x, y, z)
        and ``atom_error_mm``: the value differs from W_p of the piecewise-constant density by no more
        than this. ``status`` tells of coarsening and of an iteration cap that was reached.

    Raises
    ------
    InputError
        Where ``order`` is neither 1 nor 2, or ``max_atoms`` is below 2.

    Notes
    -----
    *Definition*: atoms at the centres of (merged) voxels. With p = 1, mass common to both maps is left in
    place first, which changes nothing for a metric and leaves more atoms for the difference.
    *Limits*: for p = 2 atoms displaced by less than a voxel must hop a whole one: a shift by f over voxels
    h wide reads sqrt(f h). Never use it to judge small changes; `wasserstein` solves the same problem for
    the density.
    *Relations*: ``|EMD_p - W_p| <= atom_error_mm``; ``EMD_1 <= EMD_2``.
    *Cost*: about the cube of the number of atoms in time, ``8 max_atoms^2`` bytes several times over.

    References
    ----------
    Bonneel, van de Panne, Paris & Heidrich, Displacement interpolation using Lagrangian mass transport,
    2011 (the network simplex); Flamary et al., POT: Python Optimal Transport, 2021.
    """
    _check_order(order)
    if max_atoms < 2:
        raise InputError(f"`max_atoms` must be at least 2, got {max_atoms}. Nothing could move.")
    whole = checked_pair(
        reference=reference,
        evaluated=evaluated,
        mask=mask,
        weight=weight,
        what="the earth mover's distance",
        bytes_per_voxel=_BYTES_PER_VOXEL,
    )
    pair = whole.normalized()
    a, b, grid, block = _coarsened(pair, order, max_atoms)
    (x, p), (y, q) = _atoms(a, grid), _atoms(b, grid)
    moving = float(p.sum())
    lower, upper, status = 0.0, 0.0, "ok"
    if len(x) and len(y) and moving > 1e-14:
        lower, upper, status = _solve(
            x, y, p=p / moving, q=q / q.sum(), order=order, max_iterations=max_iterations
        )
    root = 1 / order
    error = _spread_mm(pair.a, pair.grid, grid) + _spread_mm(pair.b, pair.grid, grid)
    if block != (1, 1, 1):
        merged = " x ".join(str(n) for n in block)
        coarse = f"voxels merged {merged} (x, y, z), which changes the value by at most {error:.2g} mm"
        status = coarse if status == "ok" else f"{status}; {coarse}"
    return TransportResult(
        value=(moving * upper) ** root,
        lower=(moving * lower) ** root,
        upper=(moving * upper) ** root,
        grid=grid,
        settings={
            "order": order,
            "block": block,
            "n_atoms": (len(x), len(y)),
            "atom_error_mm": error,
            "mass_ratio": whole.mass_ratio,
            "max_iterations": max_iterations,
        },
        status=status,
    )


def _cloud(name: str, points: ArrayLike, weights: ArrayLike | None) -> tuple[NDArray[Any], NDArray[Any]]:
    """Points (n, d) and their masses, which sum to 1."""
    x = np.asarray(points, dtype=np.float64)
    if x.ndim != 2 or not 1 <= x.shape[1] <= 3 or not len(x) or not np.all(np.isfinite(x)):
        raise InputError(
            f"`{name}_mm` must hold finite points, shape (n, 1 to 3), got shape {x.shape}. "
            "Distances cannot be computed. Pass one row of coordinates [mm] per point."
        )
    p = np.ones(len(x)) if weights is None else np.asarray(weights, dtype=np.float64)
    if p.shape != (len(x),) or not np.all(np.isfinite(p) & (p >= 0)) or not p.sum() > 0:
        raise InputError(
            f"`{name}_weights` must be {len(x)} finite weights, none negative and not all 0. "
            "They are the masses of the points. Pass one per point."
        )
    return x, p / p.sum()


def emd_points(
    *,
    reference_mm: ArrayLike,
    evaluated_mm: ArrayLike,
    reference_weights: ArrayLike | None = None,
    evaluated_weights: ArrayLike | None = None,
    order: Literal[1, 2] = 1,
    max_iterations: int = 5_000_000,
) -> TransportResult:
    """Earth mover's distance between two clouds of weighted points.

    ``EMD_p^p = min over plans P with marginals p, q of sum_ij P_ij |x_i - y_j|^p``, both masses 1.

    Parameters
    ----------
    reference_mm, evaluated_mm : array_like, shape (n, d), (m, d)
        Points [mm], d from 1 to 3: energy deposits, phase-space positions, centres of spots.
    reference_weights, evaluated_weights : array_like, shape (n,), (m,), optional
        Masses, scaled to sum to 1; equal where left out.
    order : {1, 2}
        p.
    max_iterations : int
        Of POT's network simplex.

    Returns
    -------
    TransportResult
        Value [mm] with ``lower`` from the potentials, made feasible, and ``upper`` from the plan. The grid
        is the box of the points, one voxel.

    Raises
    ------
    InputError
        With points, weights or an order that cannot be used.

    Notes
    -----
    *Cost*: 8 n m bytes several times over; about the cube of the number of points in time.

    Examples
    --------
    >>> round(emd_points(reference_mm=[[0.0], [1.0]], evaluated_mm=[[3.0], [5.0]]).value, 9)
    3.5
    """
    _check_order(order)
    x, p = _cloud("reference", reference_mm, reference_weights)
    y, q = _cloud("evaluated", evaluated_mm, evaluated_weights)
    if x.shape[1] != y.shape[1]:
        raise InputError(
            f"`reference_mm` has {x.shape[1]} coordinates a point, `evaluated_mm` {y.shape[1]}. "
            "Distances between them are not defined."
        )
    lower, upper, status = _solve(x, y, p=p, q=q, order=order, max_iterations=max_iterations)
    root = 1 / order
    both = np.concatenate([x, y])
    ends = [(float(c.min()) - 0.5, float(c.max()) + 0.5) for c in both.T] + [(-0.5, 0.5)] * (3 - x.shape[1])
    return TransportResult(
        value=upper**root,
        lower=lower**root,
        upper=upper**root,
        grid=Grid(x_edges_mm=ends[0], y_edges_mm=ends[1], z_edges_mm=ends[2]),  # type: ignore[arg-type]
        settings={"order": order, "n_atoms": (len(x), len(y)), "max_iterations": max_iterations},
        status=status,
    )
