"""The moment-SoS relaxation of W_2 in interpolant form: nodes, bases, constraints and cost."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dosemover.errors import InputError
from dosemover.moments.legendre import MultiIndex, legendre, total_degree_indices

Basis = Literal["full", "reduced"]


@lru_cache(maxsize=1)
def leja_points(n: int) -> NDArray[np.float64]:
    """Symmetric Leja points on [-1, 1]: 0, 1, -1, then the farthest pairs."""
    candidates = np.cos(np.linspace(0, np.pi, 4001))
    points = [0.0, 1.0, -1.0]
    while len(points) < n:
        distances = np.abs(candidates[:, None] - np.array(points)) + 1e-300
        farthest = float(candidates[np.argmax(np.log(distances).sum(axis=1))])
        points += [farthest, -farthest]
    return np.array(points[:n])


def evaluate_basis(points: NDArray[Any], indices: tuple[MultiIndex, ...]) -> NDArray[np.float64]:
    """Values of products of Legendre polynomials.

    Parameters
    ----------
    points : ndarray, shape (n, dimension)
        In [-1, 1] along each axis.
    indices : tuple of multi-index

    Returns
    -------
    ndarray, shape (n, len(indices))
    """
    where = np.array(indices)
    values = np.ones((len(points), len(indices)))
    for axis in range(points.shape[1]):
        values *= legendre(points[:, axis], int(where[:, axis].max()))[:, where[:, axis]]
    return values


def gram_basis(dimension: int, order: int, basis: Basis) -> tuple[MultiIndex, ...]:
    """Basis of the Gram matrix in (x, y): all degrees up to ``order``, or fewer mixed terms.

    Parameters
    ----------
    dimension : int
        Number of coordinates of x.
    order : int
    basis : {"full", "reduced"}
        "reduced" keeps terms in x alone and in y alone up to ``order`` and mixed ones up to
        order - 1: still a lower bound, at about a fifth of the cost.
    """
    if basis not in ("full", "reduced"):
        raise InputError(f"`basis` must be 'full' or 'reduced', got {basis!r}. No other Gram basis is built.")
    every = total_degree_indices(2 * dimension, order)
    if basis == "full" or order == 1:
        return every

    def keep(index: MultiIndex) -> bool:
        mixed = sum(index[:dimension]) > 0 and sum(index[dimension:]) > 0
        return not mixed or sum(index) < order

    return tuple(index for index in every if keep(index))


@dataclass(frozen=True, kw_only=True, eq=False)
class Relaxation:
    """min c's subject to A s = b and P_g' diag(g s) P_g positive semidefinite for every block.

    s are weights on interpolation nodes: L_z(p) = sum_k s_k p(node_k) for every polynomial p in the
    span of ``monomials``.

    Parameters
    ----------
    dimension : int
        Number of coordinates of x (and of y).
    basis : {"full", "reduced"}
        Of the moment matrix, see `gram_basis`.
    nodes : ndarray, shape (K, 2 dimension)
    monomials : tuple of multi-index, length K
        A lower set: sums of two elements of the Gram basis.
    values : ndarray, shape (K, K)
        Basis functions at the nodes.
    blocks : tuple of (ndarray (K,), ndarray (K, N))
        Weight g and basis P of the moment matrix (g = 1) and of the localising matrices
        (g = 1 - t_i^2).
    pure_x, pure_y : ndarray of int
        Positions of the monomials in x alone (1 included), and in y alone.
    """

    dimension: int
    basis: Basis
    nodes: NDArray[Any]
    monomials: tuple[MultiIndex, ...]
    values: NDArray[Any]
    blocks: tuple[tuple[NDArray[Any], NDArray[Any]], ...]
    pure_x: NDArray[Any]
    pure_y: NDArray[Any]

    @property
    def constraints(self) -> NDArray[np.float64]:
        """A, shape (constraints, K): the marginal moments as functions of s."""
        return np.vstack([self.values[:, self.pure_x].T, self.values[:, self.pure_y].T])

    @property
    def x_indices(self) -> tuple[MultiIndex, ...]:
        """Multi-indices of the fixed moments of the first marginal."""
        return tuple(self.monomials[k][: self.dimension] for k in self.pure_x)

    @property
    def y_indices(self) -> tuple[MultiIndex, ...]:
        """Multi-indices of the fixed moments of the second marginal, without degree 0."""
        return tuple(self.monomials[k][self.dimension :] for k in self.pure_y)

    @property
    def supremum_norms(self) -> NDArray[np.float64]:
        """Largest absolute value of each basis function on the box."""
        return np.prod(np.sqrt(2 * np.array(self.monomials) + 1), axis=1)


def check_order(dimension: int, order: int, *, copies: int = 1) -> None:
    """Refuse an order whose matrices would not fit, saying how large they would be."""
    from math import comb

    from dosemover._runtime import available_memory_bytes

    if order < 1:
        raise InputError(f"`order` must be at least 1, got {order}.")
    size = copies * comb(2 * dimension + 2 * order, 2 * order)
    needed = 10 * 8 * size**2
    free = available_memory_bytes()
    if size > 20_000 or (free is not None and needed > free):
        raise InputError(
            f"`order` {order} in {dimension} dimensions takes matrices of {size} x {size}, about "
            f"{needed / 2**30:.1f} GiB, more than is free. Use a lower order, or basis='reduced'."
        )


@lru_cache(maxsize=8)
def relaxation(dimension: int, order: int, basis: Basis = "full") -> Relaxation:
    """Relaxation of one order; the same for all maps of one dimension.

    Raises
    ------
    InputError
        When the order is below 1 or its matrices would not fit.
    """
    check_order(dimension, order)
    gram = gram_basis(dimension, order, basis)
    known = set(gram)
    array = np.array(gram)
    sums = {tuple(int(i) for i in row) for one in array for row in array + one}
    monomials = tuple(sorted(sums, key=lambda index: (sum(index), tuple(-a for a in index))))
    where = np.array(monomials)
    nodes = leja_points(int(where.max()) + 1)[where]
    blocks = [(np.ones(len(nodes)), evaluate_basis(nodes, gram))]
    for axis in range(2 * dimension):
        up = np.eye(2 * dimension, dtype=int)[axis]
        local = tuple(one for one in gram if tuple(np.array(one) + up) in known)
        if local:
            blocks.append((1 - nodes[:, axis] ** 2, evaluate_basis(nodes, local)))
    in_x, in_y = where[:, :dimension].sum(axis=1), where[:, dimension:].sum(axis=1)
    return Relaxation(
        dimension=dimension,
        basis=basis,
        nodes=nodes,
        monomials=monomials,
        values=evaluate_basis(nodes, monomials),
        blocks=tuple(blocks),
        pure_x=np.flatnonzero(in_y == 0),
        pure_y=np.flatnonzero((in_x == 0) & (in_y > 0)),
    )


def product_moments(
    problem: Relaxation, moments_x: NDArray[Any], moments_y: NDArray[Any]
) -> NDArray[np.float64]:
    """Moments of the product measure in the order of the relaxation's monomials."""
    x = dict(zip(problem.x_indices, moments_x, strict=True))
    y = dict(zip(problem.y_indices, moments_y, strict=True))
    d = problem.dimension
    y[(0,) * d] = 1.0
    return np.array([x[index[:d]] * y[index[d:]] for index in problem.monomials])
