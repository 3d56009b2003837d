"""What the pseudo-moments of a plan say about it: its map by regression, and its support."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dosemover.moments.legendre import MultiIndex, legendre, legendre_derivatives, total_degree_indices
from dosemover.moments.relaxation import evaluate_basis, gram_basis

if TYPE_CHECKING:
    from dosemover.moments.moment_sos import MomentSosResult

_RIDGE = 1e-6
"""Added to the moment matrix over its largest eigenvalue: pseudo-moments are known to about that."""

_STEPS = 30


def regression_targets(found: MomentSosResult, scaled: NDArray[Any]) -> NDArray[np.float64]:
    """Best polynomial of degree ``order`` for y given x under the pseudo-moments, in the evaluated box.

    Parameters
    ----------
    found : MomentSosResult
    scaled : ndarray, shape (n, d)
        Points of the reference in [-1, 1].

    Returns
    -------
    ndarray, shape (n, d)
        In [-1, 1] of the evaluated box.
    """
    problem, s = found.problem, found.pseudo_moments.weights
    d = problem.dimension
    indices = total_degree_indices(d, found.order)
    basis = evaluate_basis(problem.nodes[:, :d], indices)
    gram = (basis.T * s) @ basis
    mixed = (basis.T * s) @ problem.nodes[:, d:]
    coefficients = np.linalg.lstsq(gram, mixed, rcond=1e-10)[0]
    return np.clip(evaluate_basis(scaled, indices) @ coefficients, -1.0, 1.0)


class ChristoffelDarboux:
    """Inverse Christoffel function v(x, y)' M^-1 v(x, y) of the pseudo-moments: small on the plan's support.

    Parameters
    ----------
    found : MomentSosResult
    """

    def __init__(self, found: MomentSosResult) -> None:
        problem = found.problem
        self.dimension = problem.dimension
        self.indices: tuple[MultiIndex, ...] = gram_basis(self.dimension, found.order, problem.basis)
        basis = problem.blocks[0][1]
        moments = (basis.T * found.pseudo_moments.weights) @ basis
        values, vectors = np.linalg.eigh((moments + moments.T) / 2)
        self.root = vectors.T / np.sqrt(np.maximum(values, 0.0) + _RIDGE * values[-1])[:, None]

    def __call__(self, x: NDArray[Any], y: NDArray[Any]) -> NDArray[np.float64]:
        """Values at pairs of points in [-1, 1]^d, shape (n, d) each."""
        v = evaluate_basis(np.hstack([x, y]), self.indices)
        return np.sum((v @ self.root.T) ** 2, axis=1)

    def targets(self, x: NDArray[Any], start: NDArray[Any]) -> NDArray[np.float64]:
        """Points y of the smallest value for each x: damped Gauss-Newton steps in the box from ``start``."""
        y, damping = start.copy(), np.full(len(x), 1e-3)
        value = self(x, y)
        for _ in range(_STEPS):
            residual, jacobian = self._residual(x, y)
            normal = np.einsum("nkd,nke->nde", jacobian, jacobian)
            diagonal = np.einsum("ndd->nd", normal)
            normal = normal + (damping[:, None] * (diagonal + 1e-12))[:, :, None] * np.eye(self.dimension)
            slope = np.einsum("nkd,nk->nd", jacobian, residual)
            trial = np.clip(y - np.linalg.solve(normal, slope[:, :, None])[:, :, 0], -1.0, 1.0)
            new = self(x, trial)
            better = new < value
            y[better], value = trial[better], np.where(better, new, value)
            damping = np.where(better, damping / 3, damping * 4)
        return y

    def _residual(self, x: NDArray[Any], y: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """M^-1/2 v and its derivatives along y, shapes (n, N) and (n, N, d)."""
        d, where = self.dimension, np.array(self.indices)
        points = np.hstack([x, y])
        tables = [legendre(points[:, i], int(where[:, i].max()))[:, where[:, i]] for i in range(2 * d)]
        residual = np.prod(tables, axis=0) @ self.root.T
        columns = []
        for i in range(d, 2 * d):
            slopes = legendre_derivatives(points[:, i], int(where[:, i].max()), 1)[:, where[:, i]]
            others = np.prod([t for k, t in enumerate(tables) if k != i], axis=0)
            columns.append((others * slopes) @ self.root.T)
        return residual, np.stack(columns, axis=2)
