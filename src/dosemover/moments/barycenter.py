"""Barycenter of several measures from their moments: a star of couplings in one moment problem."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dosemover.errors import GridMismatchError, InputError
from dosemover.moments.gaussian import central_moments
from dosemover.moments.interior_point import InteriorPointResult, solve
from dosemover.moments.legendre import MultiIndex
from dosemover.moments.moment_sos import informative_axes, normalized_moments
from dosemover.moments.relaxation import Relaxation, check_order, product_moments, relaxation
from dosemover.moments.tally import MomentTally

_FEWEST = 2


@dataclass(frozen=True, kw_only=True, eq=False)
class BarycenterResult:
    """Moments of the W_2 barycenter and a certified lower bound of its spread.

    Parameters
    ----------
    order : int
    weights : ndarray, shape (n,)
        lambda_i, summing to 1.
    lower_squared_mm2 : float
        Certified lower bound of min over nu of sum_i lambda_i W_2(mu_i, nu)^2 [mm2].
    mean_mm : ndarray, shape (3,)
        Mean of the barycenter (x, y, z) [mm].
    covariance_mm2 : ndarray, shape (3, 3)
    moments : mapping of multi-index (z, y, x) to float
        Legendre moments of the barycenter up to total degree 2 order on the common box.
    solution : InteriorPointResult
    """

    order: int
    weights: NDArray[Any]
    lower_squared_mm2: float
    mean_mm: NDArray[Any]
    covariance_mm2: NDArray[Any]
    moments: dict[MultiIndex, float]
    solution: InteriorPointResult

    @property
    def spread_mm(self) -> float:
        """Root of the certified bound: how far the maps are from their barycenter, at least [mm]."""
        return float(np.sqrt(max(self.lower_squared_mm2, 0.0)))

    @property
    def status(self) -> str:
        """How the interior-point method ended."""
        return self.solution.status


@dataclass(frozen=True, kw_only=True, eq=False)
class _Star:
    """n couplings with fixed first marginals and one shared second marginal."""

    constraints: NDArray[Any]
    values: NDArray[Any]
    blocks: tuple[tuple[NDArray[Any], NDArray[Any]], ...]
    supremum_norms: NDArray[Any]


def moment_barycenter(
    tallies: Sequence[MomentTally],
    *,
    weights: ArrayLike | None = None,
    order: int = 2,
    tolerance: float = 1e-6,
) -> BarycenterResult:
    """W_2 barycenter of several measures from their moments.

    ``min over nu of sum_i lambda_i W_2(mu_i, nu)^2``, relaxed to pseudo-moments of the couplings of
    each mu_i with nu.

    Parameters
    ----------
    tallies : sequence of MomentTally
        Two or more on one box, of degree 2 order at least; normalised here. Several Monte Carlo runs,
        or several patients' normalised fields.
    weights : array_like, shape (n,), optional
        lambda_i; equal by default.
    order : int
    tolerance : float

    Returns
    -------
    BarycenterResult

    Raises
    ------
    InputError
        When there are fewer than two tallies, weights are not positive, or the order does not fit.
    GridMismatchError
        When the boxes differ.

    Notes
    -----
    *Limits*: exact for translations and affine copies at every order; the moments of other barycenters
    are those of the relaxation. *Cost*: n^3 times one coupling of that order.

    References
    ----------
    Agueh & Carlier 2011; Mula & Nouy 2024.
    """
    n = len(tallies)
    if n < _FEWEST:
        raise InputError(f"a barycenter takes two tallies or more, got {n}.")
    for tally in tallies:
        tally.check_mass()
    share = np.full(n, 1 / n) if weights is None else np.asarray(weights, dtype=np.float64)
    if share.shape != (n,) or np.any(share <= 0):
        raise InputError(f"`weights` must be {n} positive numbers, got {share.tolist()}.")
    share = share / share.sum()
    first = tallies[0]
    for tally in tallies:
        if not np.allclose(tally.box_mm, first.box_mm):
            raise GridMismatchError(
                "the tallies of a barycenter must share their box. Tally all maps on one support box."
            )
        if tally.degree < 2 * order:
            raise InputError(
                f"`order` {order} takes moments to degree {2 * order}, a tally holds {tally.degree}."
            )
    axes = informative_axes(*tallies)
    check_order(len(axes), order, copies=n)
    problem = relaxation(len(axes), order)
    half = first.half_widths_mm[list(axes)]
    d, unit = len(axes), float(half.max())
    gap = (problem.nodes[:, :d] - problem.nodes[:, d:]) * half / unit
    cost = np.concatenate([one * np.sum(gap**2, axis=1) for one in share])
    fixed = [normalized_moments(t, axes, problem.x_indices) for t in tallies]
    mixture = np.average(
        [normalized_moments(t, axes, problem.y_indices) for t in tallies], axis=0, weights=share
    )
    start = np.concatenate([product_moments(problem, x, mixture) for x in fixed])
    targets = np.concatenate([*fixed, np.zeros((n - 1) * len(problem.pure_y))])
    found = solve(_star(problem, n), cost, targets, start, tolerance=tolerance)
    moments = _second_marginal(problem, found.weights, axes, n)
    mean, covariance = _mean_and_covariance(moments, first)
    return BarycenterResult(
        order=order,
        weights=share,
        lower_squared_mm2=unit**2 * found.lower,
        mean_mm=mean,
        covariance_mm2=covariance,
        moments=moments,
        solution=found,
    )


def _star(problem: Relaxation, n: int) -> _Star:
    """Copies of one coupling, tied at their second marginals."""
    k = len(problem.nodes)
    along_x, along_y = problem.values[:, problem.pure_x].T, problem.values[:, problem.pure_y].T
    ties = np.zeros(((n - 1) * len(along_y), n * k))
    for i in range(n - 1):
        rows = slice(i * len(along_y), (i + 1) * len(along_y))
        ties[rows, i * k : (i + 1) * k] = along_y
        ties[rows, (i + 1) * k : (i + 2) * k] = -along_y
    blocks = []
    for i in range(n):
        for g, p in problem.blocks:
            weight, basis = np.zeros(n * k), np.zeros((n * k, p.shape[1]))
            weight[i * k : (i + 1) * k], basis[i * k : (i + 1) * k] = g, p
            blocks.append((weight, basis))
    return _Star(
        constraints=np.vstack([np.kron(np.eye(n), along_x), ties]),
        values=np.kron(np.eye(n), problem.values),
        blocks=tuple(blocks),
        supremum_norms=np.tile(problem.supremum_norms, n),
    )


def _second_marginal(
    problem: Relaxation, weights: NDArray[Any], axes: tuple[int, ...], n: int
) -> dict[MultiIndex, float]:
    """Moments of the barycenter: the mean over the couplings' second marginals."""
    s = weights.reshape(n, -1).mean(axis=0)
    found: dict[MultiIndex, float] = {(0, 0, 0): 1.0}
    for index, value in zip(problem.y_indices, s @ problem.values[:, problem.pure_y], strict=True):
        whole = [0, 0, 0]
        for axis, degree in zip(axes, index, strict=True):
            whole[axis] = degree
        found[whole[0], whole[1], whole[2]] = float(value)
    return found


def _mean_and_covariance(
    moments: dict[MultiIndex, float], tally: MomentTally
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Mean and covariance (x, y, z) from moments of degree 1 and 2."""
    tensor = np.zeros((3, 3, 3))
    for index, value in moments.items():
        if sum(index) <= 2:
            tensor[index] = value
    first, second = central_moments(tensor, tally.half_widths_mm)
    center = np.array([(low + high) / 2 for low, high in tally.box_mm])
    return (center + first)[::-1], second[::-1, ::-1]
