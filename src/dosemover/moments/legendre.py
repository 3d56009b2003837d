"""Orthonormal Legendre polynomials on a box: values, voxel integrals, products and derivatives."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

MultiIndex = tuple[int, ...]


def legendre(t: ArrayLike, degree: int) -> NDArray[np.float64]:
    """phi_a(t) = sqrt(2a + 1) P_a(t) for a = 0 .. degree, shape [..., degree + 1].

    Orthonormal under the uniform probability on [-1, 1].
    """
    x = np.asarray(t, dtype=np.float64)
    values = np.empty((*x.shape, degree + 1))
    values[..., 0] = 1.0
    if degree >= 1:
        values[..., 1] = x
    for a in range(1, degree):
        values[..., a + 1] = ((2 * a + 1) * x * values[..., a] - a * values[..., a - 1]) / (a + 1)
    return values * np.sqrt(2 * np.arange(degree + 1) + 1)


def legendre_derivatives(t: ArrayLike, degree: int, order: int) -> NDArray[np.float64]:
    """Derivatives of the orthonormal polynomials, shape [n, degree + 1].

    Parameters
    ----------
    t : array_like, shape (n,)
    degree : int
    order : int
        0 for the values.
    """
    x = np.asarray(t, dtype=np.float64)
    coefficients = np.diag(np.sqrt(2 * np.arange(degree + 1) + 1))
    if order > degree:
        return np.zeros((x.size, degree + 1))
    derivatives = np.polynomial.legendre.legder(coefficients, order)
    return np.asarray(np.polynomial.legendre.legval(x, derivatives).T, dtype=np.float64)


def interval_integrals(edges: ArrayLike, degree: int) -> NDArray[np.float64]:
    """Integral of phi_a over each interval between ascending ``edges`` in [-1, 1].

    Returns
    -------
    ndarray, shape [n, degree + 1]
        From the antiderivative (P_{a+1} - P_{a-1}) / (2a + 1), exact to rounding.
    """
    t = np.asarray(edges, dtype=np.float64)
    norms = np.sqrt(2 * np.arange(degree + 2) + 1)
    p = legendre(t, degree + 1) / norms
    antiderivative = np.empty((t.size, degree + 1))
    antiderivative[:, 0] = t
    for a in range(1, degree + 1):
        antiderivative[:, a] = (p[:, a + 1] - p[:, a - 1]) / (2 * a + 1)
    return np.diff(antiderivative, axis=0) * norms[: degree + 1]


@lru_cache(maxsize=32)
def product_tables(degree: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Expansions of products in the basis, for a, b = 0 .. degree and c = 0 .. 2 degree.

    Returns
    -------
    values, derivatives : ndarray, shape [degree + 1, degree + 1, 2 degree + 1]
        phi_a phi_b = sum_c values[a, b, c] phi_c, and the same of phi_a' phi_b'.
    """
    nodes, weights = np.polynomial.legendre.leggauss(2 * degree + 2)
    weights = weights / 2
    basis = legendre(nodes, 2 * degree)
    slopes = legendre_derivatives(nodes, degree, 1)
    low = basis[:, : degree + 1]
    values = np.einsum("qa,qb,qc,q->abc", low, low, basis, weights, optimize=True)
    derivatives = np.einsum("qa,qb,qc,q->abc", slopes, slopes, basis, weights, optimize=True)
    return values, derivatives


@lru_cache(maxsize=64)
def total_degree_indices(dimension: int, degree: int) -> tuple[MultiIndex, ...]:
    """Multi-indices with sum <= degree, by total degree."""
    if dimension == 1:
        return tuple((a,) for a in range(degree + 1))
    found = [
        (a, *rest) for a in range(degree + 1) for rest in total_degree_indices(dimension - 1, degree - a)
    ]
    return tuple(sorted(found, key=lambda index: (sum(index), tuple(-a for a in index))))


def _gather(tensor: NDArray[Any], tables: list[NDArray[Any]], indices: NDArray[Any]) -> NDArray[Any]:
    """Contract a moment tensor with one product table an axis and pick the pairs of indices."""
    result = tensor
    for table in tables:
        result = np.tensordot(result, table, axes=(0, 2))  # axes end as a1, b1, a2, b2, ...
    pick: list[NDArray[Any]] = []
    for axis in range(indices.shape[1]):
        pick += [indices[:, axis][:, None], indices[:, axis][None, :]]
    return result[tuple(pick)]


def _cut(tensor: NDArray[Any], degree: int) -> NDArray[Any]:
    """The corner of a moment tensor that products of two polynomials of ``degree`` need."""
    return tensor[(slice(0, 2 * degree + 1),) * tensor.ndim]


def mass_matrix(tensor: NDArray[Any], indices: tuple[MultiIndex, ...]) -> NDArray[np.float64]:
    """M_ab = integral of phi_a phi_b under the measure with tensor moments ``tensor``.

    Parameters
    ----------
    tensor : ndarray, shape (2 degree + 1,) * dimension or larger
    indices : tuple of multi-index
    """
    degree = max(max(index) for index in indices)
    values, _ = product_tables(degree)
    return _gather(_cut(tensor, degree), [values] * tensor.ndim, np.array(indices))


def stiffness_matrix(
    tensor: NDArray[Any], indices: tuple[MultiIndex, ...], half_widths: ArrayLike
) -> NDArray[np.float64]:
    """G_ab = integral of grad phi_a . grad phi_b under a measure, gradients per unit of the half widths.

    Parameters
    ----------
    tensor : ndarray, shape (2 degree + 1,) * dimension or larger
        Tensor moments of the measure on the box scaled to [-1, 1].
    indices : tuple of multi-index
    half_widths : array_like, shape (dimension,)
        Half the box along each axis of the tensor [mm].
    """
    degree = max(max(index) for index in indices)
    values, derivatives = product_tables(degree)
    cut, where = _cut(tensor, degree), np.array(indices)
    total = np.zeros((len(indices), len(indices)))
    for axis, half in enumerate(np.asarray(half_widths, dtype=np.float64)):
        tables = [derivatives if axis == other else values for other in range(tensor.ndim)]
        total += _gather(cut, tables, where) / half**2
    return total
