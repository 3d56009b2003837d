"""Does it pay to cut a plane map with a jump into cells? Moment-SoS of one box against 2 x 2 cells.

    python studies/moments_cells.py [--orders 1,2]

The uniform square is torn apart along a line through its middle, T = x + 0.3 sign(n.x) n, by 0.6 in all: the
gradient of a convex function, so W_2^2 = 0.09. With cells the plan has its own pseudo-moments for each of the
4 x 4 pairs, and each map its moments in each cell. The jump lies on a cell boundary, or at an angle to it.
"""

import argparse
import time
from dataclasses import dataclass
from itertools import product

import numpy as np
from threadpoolctl import threadpool_limits

from dosemover.moments import MomentTally, moment_sos
from dosemover.moments.interior_point import solve
from dosemover.moments.legendre import legendre
from dosemover.moments.relaxation import evaluate_basis, relaxation

EXACT = 0.3**2


@dataclass
class Cells:
    """One conic problem of all pairs of cells."""

    constraints: np.ndarray
    values: np.ndarray
    blocks: tuple
    supremum_norms: np.ndarray


def torn(angle, n=48):
    """Points of the uniform square, their weights, and their images."""
    t, v = np.polynomial.legendre.leggauss(n)
    x = np.stack([g.ravel() for g in np.meshgrid(t, t, indexing="ij")], axis=1)
    normal = np.array([np.cos(angle), np.sin(angle)])
    return x, np.outer(v, v).ravel() / 4, x + 0.3 * np.sign(x @ normal)[:, None] * normal


def one_box(points, weights, degree):
    """Tally of points on the square around 0 that holds them."""
    half = np.abs(points).max(axis=0)
    flat = np.eye(1, degree + 1).repeat(len(points), axis=0)
    tables = [flat, *(legendre(points[:, i] / half[i], degree) for i in range(2))]
    box = ((-1.0, 1.0), *((-h, h) for h in half))
    return MomentTally(tensor=np.einsum("n,na,nb,nc->abc", weights, *tables, optimize=True), box_mm=box)


def quarters(points):
    """Middle and half widths of the four cells around 0."""
    half = np.abs(points).max(axis=0) / 2
    return [(np.array(sign) * half, half) for sign in product((-1, 1), repeat=2)]


def cell_moments(points, weights, cells, indices):
    """Moments of points in each cell, shape (cells, len(indices))."""
    rows = []
    for middle, half in cells:
        t = (points - middle) / half
        inside = np.all(np.abs(t) <= 1, axis=1)
        rows.append(weights[inside] @ evaluate_basis(t[inside], indices))
    return np.array(rows)


def cut(x, weights, image, order):
    """Lower bound on W_2^2 with 2 x 2 cells of each map."""
    problem = relaxation(2, order)
    k, d = len(problem.nodes), 2
    zero = (0,) * d
    x_cells, y_cells = quarters(x), quarters(image)
    pairs = list(product(range(4), range(4)))
    y_indices = (zero, *problem.y_indices)
    mx, my = (
        cell_moments(x, weights, x_cells, problem.x_indices),
        cell_moments(image, weights, y_cells, y_indices),
    )
    y_columns = np.concatenate([problem.pure_x[:1], problem.pure_y])
    rows, targets = [], []
    for side, moments, columns in ((0, mx, problem.pure_x), (1, my, y_columns)):
        for cell, values in enumerate(moments):
            row = np.zeros((len(columns), len(pairs) * k))
            for c, pair in enumerate(pairs):
                if pair[side] == cell:
                    row[:, c * k : (c + 1) * k] = problem.values[:, columns].T
            skip = 1 if side == 1 and cell == 0 else 0  # both marginals have mass 1
            rows.append(row[skip:])
            targets.append(values[skip:])
    blocks, cost, start = [], [], []
    for c, (i, j) in enumerate(pairs):
        for g, p in problem.blocks:
            weight, basis = np.zeros(len(pairs) * k), np.zeros((len(pairs) * k, p.shape[1]))
            weight[c * k : (c + 1) * k], basis[c * k : (c + 1) * k] = g, p
            blocks.append((weight, basis))
        (a, ha), (b, hb) = x_cells[i], y_cells[j]
        gap = a + ha * problem.nodes[:, :d] - b - hb * problem.nodes[:, d:]
        cost.append(np.sum(gap**2, axis=1))
        of_x, of_y = (
            dict(zip(problem.x_indices, mx[i], strict=True)),
            dict(zip(y_indices, my[j], strict=True)),
        )
        start.append([of_x[index[:d]] * of_y[index[d:]] for index in problem.monomials])
    cells = Cells(
        constraints=np.vstack(rows),
        values=np.kron(np.eye(len(pairs)), problem.values),
        blocks=tuple(blocks),
        supremum_norms=np.tile(problem.supremum_norms, len(pairs)),
    )
    found = solve(cells, np.concatenate(cost), np.concatenate(targets), np.concatenate(start), tolerance=1e-5)
    return found.lower, found.status


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--orders", default="1,2,3,4,5", help="orders of the single box")
    parser.add_argument("--cell-orders", default="1,2", help="orders in the cells")
    arguments = parser.parse_args()
    print("jump at  cells  order  W_2 bound / exact  moments a map  CPU-s  status")
    with threadpool_limits(limits=1):
        for degrees in (0.0, 30.0):
            x, weights, image = torn(np.radians(degrees))
            for order in (int(r) for r in arguments.orders.split(",")):
                start = time.process_time()
                one, two = (one_box(p, weights, 2 * order) for p in (x, image))
                found = moment_sos(reference=one, evaluated=two, order=order)
                show(degrees, "1 x 1", order, found.lower_squared_mm2, 1, start, found.status)
            for order in (int(r) for r in arguments.cell_orders.split(",")):
                start = time.process_time()
                lower, status = cut(x, weights, image, order)
                show(degrees, "2 x 2", order, lower, 4, start, status)


def show(degrees, cells, order, squared, n, start, status):
    """One row of the table."""
    ratio = np.sqrt(max(squared, 0.0) / EXACT)
    moments = n * (2 * order + 1) * (2 * order + 2) // 2
    seconds = time.process_time() - start
    print(
        f"{degrees:5.0f}°   {cells}  {order:5d}  {ratio:17.4f}  {moments:13d}  {seconds:5.2f}  {status}",
        flush=True,
    )


if __name__ == "__main__":
    main()
