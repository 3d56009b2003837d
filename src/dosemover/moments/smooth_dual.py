"""Lower bound on W_2 from a polynomial potential: moments choose it, one pass over the maps certifies it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dosemover.grid import Grid
from dosemover.moments.legendre import legendre, legendre_derivatives, stiffness_matrix, total_degree_indices
from dosemover.moments.tally import MomentTally
from dosemover.transport.measure import MeasurePair

_DEGREES = (4, 8)
_DAMPINGS = (3e-4, 3e-3, 1e-2, 2e-2, 4e-2)
"""Weights of the curvature of the potential that are tried: rough changes need more."""

_SCALES = (1.05, 1.0, 0.9)
_COARSE = 32
"""Cells along an axis of the grid on which potentials are compared."""

_FINALISTS = 3
"""Potentials that are certified on the voxels until one keeps its promise."""

_KEPT = 0.8
"""Share of the bound on cells that the bound on voxels must keep."""

_MARGIN = 3
"""Voxels without dose around the box: the spline is flat at its border, and may not be so inside."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SmoothDual:
    """Certified lower bound from one polynomial potential.

    Parameters
    ----------
    lower_mm : float
    degree : int
        Degree of the polynomial.
    damping : float
        Weight of its curvature.
    scale : float
        Multiple of the potential that was best.
    """

    lower_mm: float
    degree: int
    damping: float
    scale: float


def smooth_dual_bound(
    pair: MeasurePair, *, reference: MomentTally, evaluated: MomentTally
) -> SmoothDual | None:
    """Largest lower bound on W_2 among a few polynomial potentials.

    Parameters
    ----------
    pair : MeasurePair
        Both measures with mass 1, on the box of the tallies.
    reference, evaluated : MomentTally
        Of the same measures, on one box.

    Returns
    -------
    SmoothDual or None
        None where no potential certifies more than 0.

    Notes
    -----
    *Definition*: the potential u minimises the midpoint Galerkin energy plus ``damping`` times the
    integral of its squared second derivatives; half-steps of the quadratic spline w that
    interpolates -u make a feasible dual pair (`transport.bounds`). Potentials are compared on cells
    that merge voxels; the best is certified on the voxels, the next where it fails there.
    *Limits*: needs curvatures of w below 2, so displacements that vary by less than their distance.
    *Cost*: one pass over the maps.
    """
    if max(pair.grid.shape) < 2 * _MARGIN:
        return None
    limit = reference.degree // 2
    degrees = sorted({min(degree, limit) for degree in _DEGREES})
    coarse = _padded(_merged(pair, _COARSE))
    tried: list[tuple[float, int, float, float, NDArray[np.float64]]] = []
    for degree in degrees:
        potentials = DampedPotentials(reference, evaluated, degree)
        for damping in _DAMPINGS:
            u = potentials(damping)
            bounds = _certify(coarse, u, reference, _SCALES)
            top = int(np.argmax(bounds))
            tried.append((float(bounds[top]), degree, damping, _SCALES[top], u))
    tried.sort(key=lambda one: -one[0])
    whole = _padded(pair)
    for promise, degree, damping, scale, u in tried[:_FINALISTS]:
        if promise <= 0:
            break
        squared = float(_certify(whole, u, reference, (scale,))[0])
        if squared > _KEPT * promise:
            return SmoothDual(lower_mm=float(np.sqrt(squared)), degree=degree, damping=damping, scale=scale)
    return None


class DampedPotentials:
    """Galerkin potentials of one degree with any curvature penalty.

    Parameters
    ----------
    reference, evaluated : MomentTally
        On one box.
    degree : int
    """

    def __init__(self, reference: MomentTally, evaluated: MomentTally, degree: int) -> None:
        self.degree = degree
        self.indices = total_degree_indices(3, degree)[1:]
        where = tuple(np.array(self.indices).T)
        half = reference.half_widths_mm
        middle = (reference.tensor / reference.mass + evaluated.tensor / evaluated.mass) / 2
        self.delta = evaluated.tensor[where] / evaluated.mass - reference.tensor[where] / reference.mass
        self.stiffness = stiffness_matrix(middle, self.indices, half)
        self.curvature = float(np.mean(half)) ** 2 * _curvature_matrix(np.array(self.indices), half)

    def __call__(self, damping: float) -> NDArray[np.float64]:
        """Tensor of Legendre coefficients of u [mm2], without a constant."""
        matrix = self.stiffness + damping * self.curvature
        root = 1 / np.sqrt(np.diagonal(matrix))
        found = np.linalg.lstsq(matrix * root[:, None] * root, root * self.delta, rcond=1e-12)[0]
        tensor = np.zeros((self.degree + 1,) * 3)
        tensor[tuple(np.array(self.indices).T)] = root * found
        return tensor


def _curvature_matrix(indices: NDArray[Any], half: NDArray[Any]) -> NDArray[np.float64]:
    """Mean over the box of D2 phi_a : D2 phi_b [1/mm4]."""
    degree = int(indices.max())
    nodes, weights = np.polynomial.legendre.leggauss(degree + 2)
    tables = [legendre_derivatives(nodes, degree, k) for k in range(3)]
    grams = [(t.T * weights / 2) @ t for t in tables]
    picked = [
        [gram[np.ix_(column, column)] / h ** (2 * k) for k, gram in enumerate(grams)]
        for column, h in zip(indices.T, half, strict=True)
    ]
    total = np.zeros((len(indices), len(indices)))
    for i in range(3):
        for j in range(3):
            orders = [(axis == i) + (axis == j) for axis in range(3)]
            total += picked[0][orders[0]] * picked[1][orders[1]] * picked[2][orders[2]]
    return total


def _merged(pair: MeasurePair, most: int) -> MeasurePair:
    """Densities on cells that merge neighbouring voxels, at most ``most`` along each axis."""
    a, b = pair.a * pair.grid.voxel_volume_mm3, pair.b * pair.grid.voxel_volume_mm3
    edges = []
    for axis, e in enumerate(pair.grid.edges_mm):
        n = e.size - 1
        starts = np.unique(np.arange(min(n, most)) * n // min(n, most))
        a, b = np.add.reduceat(a, starts, axis=axis), np.add.reduceat(b, starts, axis=axis)
        edges.append(np.append(e[starts], e[-1]))
    grid = Grid(z_edges_mm=edges[0], y_edges_mm=edges[1], x_edges_mm=edges[2])
    return MeasurePair(a=a / grid.voxel_volume_mm3, b=b / grid.voxel_volume_mm3, grid=grid)


def _padded(pair: MeasurePair) -> MeasurePair:
    """The same measures with a margin of empty voxels along every axis that has more than one."""
    edges, pads = [], []
    for e in pair.grid.edges_mm:
        n = _MARGIN if e.size > 2 else 0
        steps = np.arange(1, n + 1)
        before, after = e[0] - steps[::-1] * (e[1] - e[0]), e[-1] + steps * (e[-1] - e[-2])
        edges.append(np.concatenate([before, e, after]))
        pads.append((n, n))
    grid = Grid(z_edges_mm=edges[0], y_edges_mm=edges[1], x_edges_mm=edges[2])
    return MeasurePair(a=np.pad(pair.a, pads), b=np.pad(pair.b, pads), grid=grid)


def _certify(
    pair: MeasurePair,
    u: NDArray[Any],
    tally: MomentTally,
    scales: tuple[float, ...],
) -> NDArray[np.float64]:
    """Certified lower bounds of W_2^2 from multiples of the spline through -u [mm2]."""
    from dosemover.transport.bounds import half_step_lower_bounds
    from dosemover.transport.spline import SplineSpace

    tables = [
        _spline_table(edges, box, len(u) - 1)
        for edges, box in zip(pair.grid.edges_mm, tally.box_mm, strict=True)
    ]
    w = np.ascontiguousarray(np.einsum("abc,za,yb,xc->zyx", -u, *tables, optimize=True))
    values, _ = half_step_lower_bounds(
        SplineSpace(pair.grid), w, pair.a, pair.b, penalty=np.inf, scales=scales
    )
    return np.asarray(values)


def _spline_table(edges: NDArray[Any], box: tuple[float, float], degree: int) -> NDArray[np.float64]:
    """Coefficients of quadratic B-splines through the basis: f - h^2/8 f'' at the voxel centres."""
    low, high = box
    half = (high - low) / 2
    t = ((edges[1:] + edges[:-1]) / 2 - (low + high) / 2) / half
    h = np.diff(edges)[:, None] / half
    if edges.size == 2:
        return legendre(t, degree)
    return legendre(t, degree) - h**2 / 8 * legendre_derivatives(t, degree, 2)
