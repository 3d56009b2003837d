"""Lower bound on W_2 from a smooth potential: chosen on moments and cells, certified on the voxels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dosemover.grid import Grid
from dosemover.moments.coarse_pair import CoarsePair
from dosemover.moments.legendre import legendre, legendre_derivatives, stiffness_matrix, total_degree_indices
from dosemover.moments.tally import Box, MomentTally
from dosemover.transport.spline import SplineSpace

_DEGREES = (4, 8)
_DAMPINGS = (3e-4, 3e-3, 1e-2, 2e-2, 4e-2)
"""Weights of the curvature of the potential that are tried: rough changes need more."""

_SCALES = (1.05, 1.0, 0.9)

_MOST_CELLS = 40_000
"""Cells on which polynomials are compared."""

_FINALISTS = 3
"""Potentials that are certified on the voxels until one keeps its promise."""

_KEPT = 0.8
"""Share of the bound on cells that the bound on voxels must keep."""

_ROUNDS = 3
"""Rounds that improve a spline where the certificate costs most."""

_FEWEST_VOXELS = 6
"""Voxels along the longest axis below which there is nothing smooth to certify."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SmoothDual:
    """Certified lower bound from one smooth potential.

    Parameters
    ----------
    squared_mm2 : float
        Lower bound on W_2^2.
    potential : str
        "polynomial of degree 8, damped 0.01", or "spline".
    """

    squared_mm2: float
    potential: str


@dataclass(frozen=True, kw_only=True, eq=False)
class _Candidate:
    """A potential w on the cells and the bound that it certifies there."""

    squared: float
    w: NDArray[np.float64]
    name: str
    polynomial: NDArray[np.float64] | None = None

    def on_voxels(self, pair: CoarsePair, box: Box) -> tuple[SplineSpace, NDArray[np.float64]]:
        """The potential on the voxels: a polynomial anew, a spline as it is."""
        if self.polynomial is None:
            return pair.on_voxels(self.w)
        return SplineSpace(pair.fine.grid), _spline_through(self.polynomial, pair.fine.grid, box)


def smooth_dual_bound(
    pair: CoarsePair,
    *,
    reference: MomentTally,
    evaluated: MomentTally,
    target_mm2: float = np.inf,
) -> SmoothDual | None:
    """Largest lower bound on W_2^2 among a few smooth potentials.

    Parameters
    ----------
    pair : CoarsePair
    reference, evaluated : MomentTally
        Of the same measures, on one box.
    target_mm2 : float
        A bound that is good enough [mm2].

    Returns
    -------
    SmoothDual or None
        None where no potential certifies more than 0.

    Notes
    -----
    *Definition*: polynomials u minimise the midpoint Galerkin energy plus a weight times the
    integral of their squared second derivatives; a spline on cells is improved where the certificate
    costs most (`transport.lower`). Half-steps of the quadratic spline w through -u make a feasible dual
    pair (`transport.bounds`). Potentials are compared on cells that merge voxels; the best is certified on
    the voxels, on which it is the same spline; the next where it fails there.
    *Limits*: needs curvatures of w below 2, so displacements that vary by less than their distance.
    *Cost*: about 1 CPU-s for the choice, 0.5 CPU-s a million voxels for the certificate.
    """
    if max(pair.fine.grid.shape) < _FEWEST_VOXELS:
        return None
    tried = _polynomials(CoarsePair(pair.pair, most=_MOST_CELLS), reference, evaluated)
    if max(one.squared for one in tried) < target_mm2:
        tried.append(_searched(pair, target_mm2))
    tried.sort(key=lambda one: -one.squared)
    for candidate in tried[:_FINALISTS]:
        if candidate.squared <= 0:
            break
        squared = candidate.squared
        if pair.merged or candidate.polynomial is not None:
            space, w = candidate.on_voxels(pair, reference.box_mm)
            squared = float(_certify(space, w, pair.fine.a, pair.fine.b, (1.0,))[0])
        if squared > _KEPT * candidate.squared:
            return SmoothDual(squared_mm2=squared, potential=candidate.name)
    return None


def _polynomials(pair: CoarsePair, reference: MomentTally, evaluated: MomentTally) -> list[_Candidate]:
    """Damped Galerkin potentials, each at its best multiple."""
    found = []
    for degree in sorted({min(degree, reference.degree // 2) for degree in _DEGREES}):
        potentials = DampedPotentials(reference, evaluated, degree)
        for damping in _DAMPINGS:
            polynomial = -potentials(damping)
            w = _spline_through(polynomial, pair.cells.grid, reference.box_mm)
            bounds = _certify(pair.space, w, pair.cells.a, pair.cells.b, _SCALES)
            top = int(np.argmax(bounds))
            name = f"polynomial of degree {degree}, damped {damping:g}"
            scale = _SCALES[top]
            found.append(
                _Candidate(squared=float(bounds[top]), w=scale * w, name=name, polynomial=scale * polynomial)
            )
    return found


def _searched(pair: CoarsePair, target: float) -> _Candidate:
    """The best spline that a search from the linear estimate finds."""
    from dosemover.transport.lower import LowerBoundSearch

    search = LowerBoundSearch(pair.space, pair.cells.a, pair.cells.b, length_mm=np.inf, target=target)
    search.run(-pair.estimate, rounds=_ROUNDS, halve=False)
    best = pair.estimate if search.potential is None else search.potential[1]
    return _Candidate(squared=search.best, w=best, name="spline")


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


def _certify(
    space: SplineSpace, w: NDArray[Any], a: NDArray[Any], b: NDArray[Any], scales: tuple[float, ...]
) -> NDArray[np.float64]:
    """Certified lower bounds of W_2^2 from multiples of a spline [mm2]."""
    from dosemover.transport.bounds import half_step_lower_bounds

    return np.asarray(half_step_lower_bounds(space, w, a, b, penalty=np.inf, scales=scales)[0])


def _spline_through(coefficients: NDArray[Any], grid: Grid, box: Box) -> NDArray[np.float64]:
    """Coefficients of the quadratic spline through a polynomial given on a box."""
    tables = [
        _spline_table(edges, side, len(coefficients) - 1)
        for edges, side in zip(grid.edges_mm, box, strict=True)
    ]
    return np.ascontiguousarray(np.einsum("abc,za,yb,xc->zyx", coefficients, *tables, optimize=True))


def _spline_table(edges: NDArray[Any], box: tuple[float, float], degree: int) -> NDArray[np.float64]:
    """Coefficients of quadratic B-splines through the basis: f - h^2/8 f'' at the voxel centres."""
    low, high = box
    half = (high - low) / 2
    t = ((edges[1:] + edges[:-1]) / 2 - (low + high) / 2) / half
    h = np.diff(edges)[:, None] / half
    if edges.size == 2:
        return legendre(t, degree)
    return legendre(t, degree) - h**2 / 8 * legendre_derivatives(t, degree, 2)
