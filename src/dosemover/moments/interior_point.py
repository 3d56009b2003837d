"""Primal-dual interior-point method for the moment-SoS relaxation in interpolant form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import scipy.linalg as sl
from numpy.typing import NDArray

_dsymv, _dsyrk = sl.get_blas_funcs(("symv", "syrk"), dtype=np.float64)

_STEP = 0.95
_SMALLEST_STEP = 1e-8
_PATIENCE = 3
_SMALLEST_EIGENVALUE = 1e-11

ROUNDING = "stopped by rounding"
"""Status of an iteration that can make no more progress in double precision."""


def lower_order_status(order: int, why: str, *, taken: int, status: str) -> str:
    """Status of a bound of order ``taken`` where ``order`` was asked for and ended early for ``why``."""
    remark = "" if status == "ok" else f"; {status}"
    return f"order {order} {why}: this is order {taken}{remark}"


@dataclass(frozen=True, kw_only=True, eq=False)
class InteriorPointResult:
    """Where the iteration ended.

    Parameters
    ----------
    lower : float
        Largest certified lower bound seen: the dual value less the largest mean that any plan can give to
        what the sums of squares leave of cost - phi - psi.
    primal, dual : float
        Objective values at the end.
    dual_variables : ndarray
        Multipliers of the marginal moments behind ``lower``: coefficients of phi, then of psi.
    weights : ndarray, shape (K,)
        Node weights s of the pseudo-moments.
    n_iterations : int
    status : str
    """

    lower: float
    primal: float
    dual: float
    dual_variables: NDArray[Any]
    weights: NDArray[Any]
    n_iterations: int
    status: str


@dataclass(eq=False)
class _State:
    """Iterates and what is computed from them once a step."""

    s: NDArray[Any]
    y: NDArray[Any]
    x: list[NDArray[Any]]
    m: list[NDArray[Any]]


def _weighted_gram(block: tuple[NDArray[Any], NDArray[Any]], s: NDArray[Any]) -> NDArray[Any]:
    """P' diag(g s) P."""
    g, p = block
    return (p.T * (g * s)) @ p


def _cholesky(matrix: NDArray[Any]) -> NDArray[Any]:
    """Lower Cholesky factor, with the smallest shift that rounding makes necessary."""
    shift = 0.0
    for _ in range(8):
        try:
            return np.linalg.cholesky(matrix + shift * np.eye(len(matrix)))
        except np.linalg.LinAlgError:
            shift = max(1e-16 * float(np.trace(matrix)), 100 * shift)
    raise np.linalg.LinAlgError("matrix is not positive definite")


def _largest_step(factor: NDArray[Any], direction: NDArray[Any]) -> float:
    """Largest a with L L' + a D positive semidefinite."""
    half = sl.solve_triangular(factor, direction, lower=True, check_finite=False)
    both = sl.solve_triangular(factor, half.T, lower=True, check_finite=False)
    lowest = sl.eigvalsh((both + both.T) / 2, subset_by_index=[0, 0])[0]
    return np.inf if lowest >= 0 else -1.0 / lowest


def _orthonormal_blocks(
    problem: ConicProblem, s: NDArray[Any]
) -> tuple[tuple[NDArray[Any], NDArray[Any]], ...]:
    """Blocks whose bases are orthonormal under the starting measure.

    Directions that the start cannot see are left out: fewer squares, still a lower bound.
    """
    blocks = []
    for block in problem.blocks:
        m = _weighted_gram(block, s)
        diagonal = np.maximum(np.diagonal(m), 1e-300)
        root = 1 / np.sqrt(diagonal)
        values, vectors = np.linalg.eigh(m * root[:, None] * root)
        keep = values > _SMALLEST_EIGENVALUE
        blocks.append((block[0], block[1] @ ((root[:, None] * vectors[:, keep]) / np.sqrt(values[keep]))))
    return tuple(blocks)


class ConicProblem(Protocol):
    """min c's subject to A s = b and P_g' diag(g s) P_g positive semidefinite for every block."""

    @property
    def constraints(self) -> NDArray[Any]:
        """A, shape (constraints, K)."""
        ...

    @property
    def values(self) -> NDArray[Any]:
        """Basis functions (columns) at the nodes (rows), shape (K, K)."""
        ...

    @property
    def blocks(self) -> tuple[tuple[NDArray[Any], NDArray[Any]], ...]:
        """Weight g (K,) and basis P (K, N) of every block."""
        ...

    @property
    def supremum_norms(self) -> NDArray[Any]:
        """Largest absolute value of each basis function on its domain, shape (K,)."""
        ...


def solve(
    problem: ConicProblem,
    cost: NDArray[Any],
    targets: NDArray[Any],
    start: NDArray[Any],
    *,
    offset: float = 0.0,
    sizes: NDArray[Any] | None = None,
    tolerance: float = 1e-7,
    max_iterations: int = 60,
) -> InteriorPointResult:
    """Solve one relaxation.

    Parameters
    ----------
    problem : ConicProblem
    cost : ndarray, shape (K,)
        Cost at the nodes, not negative on the domain.
    targets : ndarray
        b, the marginal moments; of total mass 1.
    start : ndarray, shape (K,)
        Moments of a measure with a density, in the order of the basis: the iteration starts there. It
        need not have the marginals.
    offset : float
        Part of the distance that the cost no longer holds: the tolerance is relative to the sum.
    sizes : ndarray, shape (K,), optional
        Largest absolute means of the basis functions under any plan with these marginals, by which what
        the squares leave over is charged; their largest values on the domain by default.
    tolerance : float
        Relative gap at which to stop.
    max_iterations : int

    Returns
    -------
    InteriorPointResult

    Notes
    -----
    *Definition*: Helmberg-Kojima-Monteiro direction with Mehrotra's predictor-corrector. From the product
    measure every iterate is feasible. The Schur matrix is
    sum_g (g g') o (P M^-1 P') o (P X P'): matrix products only. *Limits*: a certified lower bound at
    every iteration, so that an early stop loses tightness, not validity. *Cost*: O(K^2 N + K^3) an
    iteration, one BLAS thread (two threads on matrices this small lose a factor).

    References
    ----------
    Helmberg et al. 1996; Papp & Yildiz 2019 (interpolant bases).
    """
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1, user_api="blas"):
        return _Iteration(problem, cost, targets, start, sizes).run(offset, tolerance, max_iterations)


class _Iteration:
    """The data of one solve; `run` does the steps."""

    def __init__(
        self,
        problem: ConicProblem,
        cost: NDArray[Any],
        targets: NDArray[Any],
        start: NDArray[Any],
        sizes: NDArray[Any] | None,
    ) -> None:
        self.c = cost
        self.a = problem.constraints
        self.b = targets
        self.sizes = problem.supremum_norms if sizes is None else sizes
        self.lu = sl.lu_factor(problem.values.T, check_finite=False)
        s = sl.lu_solve(self.lu, start, check_finite=False)
        self.blocks = _orthonormal_blocks(problem, s)
        self.size = sum(p.shape[1] for _, p in self.blocks)
        m = [_weighted_gram(block, s) for block in self.blocks]
        tau = max(1e-12, float(cost @ s)) / self.size
        x = [tau * np.linalg.inv(one) for one in m]
        self.scale = max(1e-12, float(cost @ s))
        self.state = _State(s=s, y=np.zeros(len(self.b)), x=x, m=m)

    def run(self, offset: float, tolerance: float, max_iterations: int) -> InteriorPointResult:
        """Iterate until the certified gap closes, rounding stops it, or the count runs out."""
        best, best_y = 0.0, self.state.y  # the cost is itself a square
        top, stale = -np.inf, 0
        status, n = "stopped after the largest number of iterations", 0
        while n < max_iterations:
            n += 1
            try:
                work = _Work(self)
                lower = work.certified(float(self.b @ self.state.y))
                stale = 0 if lower > top + 0.1 * tolerance * self.scale else stale + 1
                top = max(top, lower)
                if lower > best:
                    best, best_y = lower, self.state.y.copy()
                primal = float(self.c @ self.state.s)
                if primal - best < tolerance * max(1e-3 * self.scale, abs(primal) + offset):
                    status = "ok"
                    break
                moved = work.step() if stale < _PATIENCE else 0.0
            except np.linalg.LinAlgError:
                moved = 0.0
            if moved < _SMALLEST_STEP:
                status = ROUNDING
                break
        state = self.state
        return InteriorPointResult(
            lower=best,
            primal=float(self.c @ state.s),
            dual=float(self.b @ state.y),
            dual_variables=best_y,
            weights=state.s,
            n_iterations=n,
            status=status,
        )


class _Work:
    """One iteration: factors, Schur matrix, directions."""

    def __init__(self, iteration: _Iteration) -> None:
        self.it = iteration
        state, blocks = iteration.state, iteration.blocks
        self.factors = [np.linalg.cholesky(m) for m in state.m]
        self.inverses = [sl.cho_solve((f, True), np.eye(len(f)), check_finite=False) for f in self.factors]
        self.x_factors = [_cholesky(x) for x in state.x]
        k = len(iteration.c)
        self.schur = np.zeros((k, k), order="F")
        self.from_x, self.from_m = np.zeros(k), np.zeros(k)
        for (g, p), factor, x_factor in zip(blocks, self.factors, self.x_factors, strict=True):
            weighted = g[:, None] * p
            by_m = sl.solve_triangular(factor, p.T, lower=True, check_finite=False).T
            by_x = weighted @ x_factor
            gram_m, gram_x = _syrk(g[:, None] * by_m), _syrk(p @ x_factor)
            self.from_m += g * np.einsum("ki,ki->k", by_m, by_m)
            self.from_x += np.einsum("ki,ki->k", by_x, p @ x_factor)
            gram_m *= gram_x
            self.schur += gram_m
        self.dual_residual = iteration.c - iteration.a.T @ state.y - self.from_x

    def certified(self, dual: float) -> float:
        """Dual value less what the sums of squares leave over, after pushing the rest into them.

        The residual of cost - phi - psi - squares is itself written as a change of the squares that
        keeps them positive, where the step allows it; what rounding leaves is charged.
        """
        before = self._charge(self.dual_residual)
        self._factor_schur()
        ds = self._solve(-self.dual_residual)
        ds += self._solve(-self.dual_residual - self._schur_times(ds))
        dm = [_weighted_gram(block, ds) for block in self.it.blocks]
        x = []
        for one, inverse, d in zip(self.it.state.x, self.inverses, dm, strict=True):
            product = inverse @ d @ one
            x.append(one - (product + product.T) / 2)
        if not all(_is_positive(one) for one in x):
            return dual - before
        left = self.it.c - self.it.a.T @ self.it.state.y
        for (g, p), one in zip(self.it.blocks, x, strict=True):
            left = left - g * np.einsum("ki,ki->k", p @ one, p)
        return dual - min(before, self._charge(left))

    def _schur_times(self, vector: NDArray[Any]) -> NDArray[np.float64]:
        """Product with the Schur matrix, of which the lower triangle is stored."""
        return _dsymv(1.0, self.schur, vector, lower=1)

    def _charge(self, residual: NDArray[Any]) -> float:
        """Bound of the mean of a residual polynomial, given at the nodes, under any plan."""
        coefficients = sl.lu_solve(self.it.lu, residual, trans=1, check_finite=False)
        return float(np.abs(coefficients) @ self.it.sizes)

    def _factor_schur(self) -> None:
        """Cholesky of the scaled Schur matrix, and of the matrix of the constraints in it."""
        diagonal = 1 / np.sqrt(np.diagonal(self.schur))
        scaled = self.schur * diagonal[:, None] * diagonal
        shift = 1e-14
        while True:
            try:
                shifted = scaled.copy(order="F")
                shifted[np.diag_indices_from(shifted)] += shift
                factor = sl.cho_factor(shifted, lower=True, overwrite_a=True, check_finite=False)
                break
            except np.linalg.LinAlgError:
                shift *= 100
                if shift > 1e-5:
                    raise
        self.diagonal, self.factor = diagonal, factor
        self.by_constraint = self._solve(self.it.a.T)
        small = self.it.a @ self.by_constraint
        self.constraint_factor = sl.cho_factor((small + small.T) / 2, check_finite=False)

    def _solve(self, right: NDArray[Any]) -> NDArray[Any]:
        """Schur matrix solve."""
        d = self.diagonal if right.ndim == 1 else self.diagonal[:, None]
        return d * sl.cho_solve(self.factor, d * right, check_finite=False)

    def _direction(self, right: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """ds, dy with A' dy - B ds = right and A ds = b - A s."""
        a, state = self.it.a, self.it.state
        by_right = self._solve(right)
        primal_residual = self.it.b - a @ state.s
        dy = sl.cho_solve(self.constraint_factor, primal_residual + a @ by_right, check_finite=False)
        return self.by_constraint @ dy - by_right, dy

    def _dx(self, dm: list[NDArray[Any]], tau: float, correction: list[NDArray[Any]]) -> list[NDArray[Any]]:
        """Changes of the sums-of-squares matrices."""
        changes = []
        for x, inverse, d, c in zip(self.it.state.x, self.inverses, dm, correction, strict=True):
            product = inverse @ d @ x
            changes.append(tau * inverse - x - (product + product.T) / 2 - c)
        return changes

    def _steps(self, dm: list[NDArray[Any]], dx: list[NDArray[Any]]) -> tuple[float, float]:
        """Largest primal and dual steps."""
        primal = min(_largest_step(f, d) for f, d in zip(self.factors, dm, strict=True))
        dual = min(_largest_step(f, d) for f, d in zip(self.x_factors, dx, strict=True))
        return primal, dual

    def step(self) -> float:
        """Predictor and corrector; returns the smaller step."""
        it, state, blocks = self.it, self.it.state, self.it.blocks
        none = [np.zeros_like(x) for x in state.x]
        mu = _inner(state.m, state.x) / it.size
        ds, _ = self._direction(self.dual_residual + self.from_x)
        dm = [_weighted_gram(block, ds) for block in blocks]
        dx = self._dx(dm, 0.0, none)
        primal, dual = (min(1.0, a) for a in self._steps(dm, dx))
        ahead = _inner(_moved(state.m, primal, dm), _moved(state.x, dual, dx)) / it.size
        sigma = min(0.9, max(1e-4, (ahead / mu) ** 2)) if ahead > 0 else 0.1
        if np.abs(self.dual_residual).max() > 1e3 * mu:
            sigma = max(sigma, 0.1)
        correction = []
        for inverse, d, change in zip(self.inverses, dm, dx, strict=True):
            product = inverse @ d @ change
            correction.append((product + product.T) / 2)
        from_correction = sum(
            g * np.einsum("ki,ki->k", p @ c, p) for (g, p), c in zip(blocks, correction, strict=True)
        )
        tau = sigma * mu
        ds, dy = self._direction(self.dual_residual + self.from_x - tau * self.from_m + from_correction)
        dm = [_weighted_gram(block, ds) for block in blocks]
        dx = self._dx(dm, tau, correction)
        primal, dual = (min(1.0, _STEP * a) for a in self._steps(dm, dx))
        state.s = state.s + primal * ds
        state.m = [_weighted_gram(block, state.s) for block in blocks]
        state.y = state.y + dual * dy
        state.x = [(x + x.T) / 2 for x in _moved(state.x, dual, dx)]
        return min(primal, dual)


def _is_positive(matrix: NDArray[Any]) -> bool:
    """Whether a symmetric matrix is positive definite."""
    try:
        np.linalg.cholesky(matrix)
    except np.linalg.LinAlgError:
        return False
    return True


def _syrk(z: NDArray[Any]) -> NDArray[np.float64]:
    """Z Z', lower triangle only."""
    return _dsyrk(1.0, np.asfortranarray(z), lower=1)


def _inner(first: list[NDArray[Any]], second: list[NDArray[Any]]) -> float:
    """Sum of the inner products of pairs of matrices."""
    return float(sum(np.sum(a * b) for a, b in zip(first, second, strict=True)))


def _moved(start: list[NDArray[Any]], step: float, by: list[NDArray[Any]]) -> list[NDArray[Any]]:
    """Matrices after a step."""
    return [a + step * d for a, d in zip(start, by, strict=True)]
