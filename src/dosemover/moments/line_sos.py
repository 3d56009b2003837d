"""Moment-SoS bounds on the line: W_1, W_2 and W_4, globally or cell by cell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dosemover.errors import InputError
from dosemover.moments.interior_point import InteriorPointResult, lower_order_status, solve
from dosemover.moments.legendre import MultiIndex, interval_integrals, total_degree_indices
from dosemover.moments.relaxation import evaluate_basis, leja_points

Power = Literal[1, 2, 4]
Cell = tuple[float, float]


@dataclass(frozen=True, kw_only=True, eq=False)
class LineSosResult:
    """Lower bound on W_p on the line.

    Parameters
    ----------
    power : int
        p.
    order : int
        Of the relaxation behind the bound: below the order that was asked for where rounding stopped that
        one so early that a lower order bounds better; the status says so.
    lower_mm : float
        Certified lower bound on W_p [mm].
    lower_power : float
        Its p-th power before clipping at 0 [mm^p].
    primal_power : float
        Value of the moment problem at the end [mm^p].
    n_components : int
        Pairs of cells, each with its own pseudo-moments.
    solution : InteriorPointResult
    status : str
        How the interior-point method ended.
    """

    power: Power
    order: int
    lower_mm: float
    lower_power: float
    primal_power: float
    n_components: int
    solution: InteriorPointResult
    status: str


@dataclass(frozen=True, kw_only=True, eq=False)
class _Component:
    """Part of the plan that moves one cell to another; ``sign`` orders x and y where they share it."""

    i: int
    j: int
    x_cell: Cell
    y_cell: Cell
    sign: int

    def positions(self, nodes: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Positions x and y [mm] at nodes in [-1, 1]^2."""
        (a, b), (c, d) = self.x_cell, self.y_cell
        return (a + b) / 2 + (b - a) / 2 * nodes[:, 0], (c + d) / 2 + (d - c) / 2 * nodes[:, 1]

    def displacement(self, nodes: NDArray[Any]) -> NDArray[np.float64]:
        """Distance sign (x - y): not negative on the part of the cells that the component lives on."""
        x, y = self.positions(nodes)
        return (self.sign or 1) * (x - y)


@dataclass(frozen=True, kw_only=True, eq=False)
class _LineProblem:
    """All components as one conic problem."""

    constraints: NDArray[Any]
    values: NDArray[Any]
    blocks: tuple[tuple[NDArray[Any], NDArray[Any]], ...]
    supremum_norms: NDArray[Any]


def cell_moments(
    edges_mm: ArrayLike, density: ArrayLike, cells: Sequence[Cell], degree: int
) -> NDArray[np.float64]:
    """Legendre moments of a piecewise-constant density in each cell.

    Parameters
    ----------
    edges_mm : array_like, shape (n + 1,)
    density : array_like, shape (n,)
        Per mm.
    cells : sequence of (low, high) [mm]
    degree : int

    Returns
    -------
    ndarray, shape (len(cells), degree + 1)
        Over the total mass.
    """
    edges, values = np.asarray(edges_mm, dtype=np.float64), np.asarray(density, dtype=np.float64)
    rows = []
    for low, high in cells:
        t = np.clip((2 * edges - (low + high)) / (high - low), -1.0, 1.0)
        rows.append(values @ interval_integrals(t, degree) * (high - low) / 2)
    return np.array(rows) / (values @ np.diff(edges))


def line_sos(
    edges_mm: ArrayLike,
    reference: ArrayLike,
    evaluated: ArrayLike,
    *,
    power: Power = 2,
    order: int = 4,
    cells: Sequence[float] = (),
    tolerance: float = 1e-6,
) -> LineSosResult:
    """Lower bound on W_p between two densities on the line from their moments.

    Parameters
    ----------
    edges_mm : array_like, shape (n + 1,)
    reference, evaluated : array_like, shape (n,)
        Densities on the voxels between the edges, normalised here: projections of dose maps.
    power : {1, 2, 4}
        p.
    order : int
        r, at least p/2.
    cells : sequence of float
        Inner cell boundaries [mm]: both densities are cut there, and the plan has its own moments for
        each pair of cells. Cut at jumps.
    tolerance : float

    Returns
    -------
    LineSosResult

    Raises
    ------
    InputError
        When a density has no mass, is negative, or boundaries lie outside; and for an unknown power or
        too low an order.

    Notes
    -----
    *Definition*: minimum over pseudo-moments of the plan of |x - y|^p; for p = 1 the plan is split where
    the sign of x - y changes. *Limits*: on the line exact distances are cheap (`transport.axis_w2`), and
    this serves where only moments are known, and to study the hierarchy. *Cost*: grows with the sixth
    power of the number of cells.
    """
    edges = np.asarray(edges_mm, dtype=np.float64)
    densities = [np.asarray(d, dtype=np.float64) for d in (reference, evaluated)]
    for name, values in zip(("reference", "evaluated"), densities, strict=True):
        if values.shape != (edges.size - 1,) or np.any(values < 0) or not values.any():
            raise InputError(
                f"`{name}` must be a density on {edges.size - 1} voxels, not negative and not all 0."
            )
    if any(not edges[0] < c < edges[-1] for c in cells):
        raise InputError(f"`cells` must lie inside ({edges[0]}, {edges[-1]}) mm, got {list(cells)}.")
    cuts = np.array([edges[0], *sorted(cells), edges[-1]])
    parts = list(zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True))
    tables = [cell_moments(edges, d, parts, 2 * order) for d in densities]
    return line_sos_from_moments(
        tables[0], tables[1], x_cells=parts, y_cells=parts, power=power, order=order, tolerance=tolerance
    )


def line_sos_from_moments(
    moments_x: NDArray[Any],
    moments_y: NDArray[Any],
    *,
    x_cells: Sequence[Cell],
    y_cells: Sequence[Cell],
    power: Power = 2,
    order: int = 4,
    tolerance: float = 1e-6,
) -> LineSosResult:
    """Lower bound on W_p on the line from Legendre moments in cells.

    Parameters
    ----------
    moments_x, moments_y : ndarray, shape (cells, 2 order + 1)
        Moments of both measures in the orthonormal Legendre basis of each cell; the first column holds
        the masses, each summing to 1.
    x_cells, y_cells : sequence of (low, high) [mm]
    power, order, tolerance
        As for `line_sos`.

    Returns
    -------
    LineSosResult

    Raises
    ------
    InputError
        When the power is unknown or the order too low for it.
    """
    if power not in (1, 2, 4):
        raise InputError(f"`power` must be 1, 2 or 4, got {power}: other costs are no polynomials.")
    least = max(1, power // 2)
    if order < least:
        raise InputError(f"`order` must be at least {least} for p = {power}, got {order}.")
    found = _of_order(moments_x, moments_y, x_cells, y_cells, power, order, tolerance)
    gap = found.primal_power - found.lower_power
    if found.status == "ok" or order == least or gap < 10 * tolerance * found.primal_power:
        return found
    lower = line_sos_from_moments(
        moments_x,
        moments_y,
        x_cells=x_cells,
        y_cells=y_cells,
        power=power,
        order=order - 1,
        tolerance=tolerance,
    )
    if lower.lower_power <= found.lower_power:
        return found
    return replace(
        lower, status=lower_order_status(order, found.status, taken=lower.order, status=lower.status)
    )


def _of_order(
    moments_x: NDArray[Any],
    moments_y: NDArray[Any],
    x_cells: Sequence[Cell],
    y_cells: Sequence[Cell],
    power: Power,
    order: int,
    tolerance: float,
) -> LineSosResult:
    """The relaxation of one order, as far as its iteration goes."""
    used = [
        _Component(i=i, j=j, x_cell=x, y_cell=y, sign=sign)
        for i, x in enumerate(x_cells)
        for j, y in enumerate(y_cells)
        if moments_x[i, 0] > 0 and moments_y[j, 0] > 0
        for sign in _signs(x, y, power)
    ]
    indices = total_degree_indices(2, 2 * order)
    nodes = leja_points(2 * order + 1)[np.array(indices)]
    unit = max(max(abs(c[1] - d[0]), abs(d[1] - c[0])) for c in x_cells for d in y_cells)
    problem, targets = _assemble(used, moments_x, moments_y, nodes, indices, order, unit)
    cost = np.concatenate([(c.displacement(nodes) / unit) ** power for c in used])
    start = np.concatenate([_start(c, moments_x, moments_y, indices, used) for c in used])
    found = solve(problem, cost, targets, start, tolerance=tolerance, max_iterations=100)
    scale = unit**power
    return LineSosResult(
        power=power,
        order=order,
        lower_mm=float(unit * max(found.lower, 0.0) ** (1 / power)),
        lower_power=scale * found.lower,
        primal_power=scale * found.primal,
        n_components=len(used),
        solution=found,
        status=found.status,
    )


def _signs(x: Cell, y: Cell, power: Power) -> tuple[int, ...]:
    """0 where the cost is a polynomial; for p = 1 the signs of x - y that two cells allow."""
    if power != 1:
        return (0,)
    if x[0] >= y[1]:
        return (1,)
    return (-1,) if x[1] <= y[0] else (1, -1)


def _assemble(
    used: list[_Component],
    moments_x: NDArray[Any],
    moments_y: NDArray[Any],
    nodes: NDArray[Any],
    indices: tuple[MultiIndex, ...],
    order: int,
    unit: float,
) -> tuple[_LineProblem, NDArray[Any]]:
    """Conic problem of all components with the marginal moments as targets."""
    n, k = len(used), len(indices)
    basis = evaluate_basis(nodes, indices)
    where = np.array(indices)
    pure = [np.flatnonzero(where[:, 1] == 0), np.flatnonzero(where[:, 0] == 0)]
    rows, targets = [], []
    for side, moments in enumerate((moments_x, moments_y)):
        for cell, values in enumerate(moments):
            members = [c for c, one in enumerate(used) if (one.i, one.j)[side] == cell]
            if not members:
                continue
            row = np.zeros((2 * order + 1, n * k))
            for c in members:
                row[:, c * k : (c + 1) * k] = basis[:, pure[side]].T
            rows.append(row)
            targets.append(values[: 2 * order + 1])
    redundant = len(rows[0]) * sum(1 for m in moments_x if m[0] > 0)  # both marginals have mass 1
    blocks = []
    for c, one in enumerate(used):
        weights = [(np.ones(k), order), (1 - nodes[:, 0] ** 2, order - 1), (1 - nodes[:, 1] ** 2, order - 1)]
        if one.sign and _overlap(one):
            weights.append((one.displacement(nodes) / unit, order - 1))
        for g, degree in weights:
            block = np.zeros((n * k, len(total_degree_indices(2, degree))))
            block[c * k : (c + 1) * k] = evaluate_basis(nodes, total_degree_indices(2, degree))
            weight = np.zeros(n * k)
            weight[c * k : (c + 1) * k] = g
            blocks.append((weight, block))
    return (
        _LineProblem(
            constraints=np.delete(np.vstack(rows), redundant, axis=0),
            values=np.kron(np.eye(n), basis),
            blocks=tuple(blocks),
            supremum_norms=np.tile(np.prod(np.sqrt(2 * where + 1), axis=1), n),
        ),
        np.delete(np.concatenate(targets), redundant),
    )


def _overlap(component: _Component) -> bool:
    """Whether the two cells share more than a point."""
    (a, b), (c, d) = component.x_cell, component.y_cell
    return min(b, d) > max(a, c)


def _start(
    component: _Component,
    moments_x: NDArray[Any],
    moments_y: NDArray[Any],
    indices: tuple[MultiIndex, ...],
    used: list[_Component],
) -> NDArray[np.float64]:
    """Moments of a measure to start from: the product, or a uniform one where the sign cuts the cells."""
    x, y = moments_x[component.i], moments_y[component.j]
    if not component.sign or not _overlap(component):
        return np.array([x[a] * y[b] for a, b in indices])
    t, w = np.polynomial.legendre.leggauss(64)
    grid = np.stack([g.ravel() for g in np.meshgrid(t, t, indexing="ij")], axis=1)
    weights = np.outer(w, w).ravel() * (component.displacement(grid) > 0)
    shares = sum((c.i, c.j) == (component.i, component.j) for c in used)
    return (weights / weights.sum()) @ evaluate_basis(grid, indices) * x[0] * y[0] / shares
