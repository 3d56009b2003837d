"""A density half-way between two maps: the Benamou-Brenier bound in two segments."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dosemover.moments.legendre import legendre, legendre_derivatives
from dosemover.moments.smooth_dual import DampedPotentials
from dosemover.moments.tally import MomentTally
from dosemover.transport.measure import MeasurePair

_DEGREE = 8
_DAMPING = 1e-3
_LEAST_SHARE = 1e-3
"""Least half-way density over the smaller of both maps' densities, so that no path is closed."""


def halfway_density(
    pair: MeasurePair, *, reference: MomentTally, evaluated: MomentTally
) -> NDArray[np.float64]:
    """Density of mass 1 about half-way along the displacement from one map to the other.

    With u the damped Galerkin potential (the map is x + grad u to first order), the mean of
    ``a(z - grad u/2)(1 - Lap u/2)`` and ``b(z + grad u/2)(1 + Lap u/2)``, positive where a and b are.

    Parameters
    ----------
    pair : MeasurePair
        Both measures with mass 1.
    reference, evaluated : MomentTally
        Of the same measures, on one box.

    Returns
    -------
    ndarray, shape pair.grid.shape
    """
    degree = min(_DEGREE, reference.degree // 2)
    u = DampedPotentials(reference, evaluated, degree)(_DAMPING)
    slopes, laplacian = _slopes_and_laplacian(pair, u, reference)
    total = np.maximum(_moved(pair.a, pair, slopes, -0.5) * (1 - laplacian / 2), 0.0)
    total += np.maximum(_moved(pair.b, pair, slopes, 0.5) * (1 + laplacian / 2), 0.0)
    np.maximum(total / 2, _LEAST_SHARE * np.minimum(pair.a, pair.b), out=total)
    return total / float(np.sum(total * pair.grid.voxel_volume_mm3))


def _slopes_and_laplacian(
    pair: MeasurePair, u: NDArray[Any], tally: MomentTally
) -> tuple[list[NDArray[np.float32]], NDArray[np.float32]]:
    """Derivatives of the potential along z, y, x [mm] and its Laplacian at the voxel centres."""
    degree = len(u) - 1
    tables = []
    for edges, (low, high) in zip(pair.grid.edges_mm, tally.box_mm, strict=True):
        half = (high - low) / 2
        t = ((edges[1:] + edges[:-1]) / 2 - (low + high) / 2) / half
        tables.append(
            (
                legendre(t, degree),
                legendre_derivatives(t, degree, 1) / half,
                legendre_derivatives(t, degree, 2) / half**2,
            )
        )

    def field(orders: list[int]) -> NDArray[np.float32]:
        picked = [table[k].astype(np.float32) for table, k in zip(tables, orders, strict=True)]
        return np.einsum("abc,za,yb,xc->zyx", u.astype(np.float32), *picked, optimize=True)

    unit = np.eye(3, dtype=int)
    slopes = [field(unit[i].tolist()) for i in range(3)]
    laplacian = field((2 * unit[0]).tolist()) + field((2 * unit[1]).tolist()) + field((2 * unit[2]).tolist())
    return slopes, np.clip(laplacian, -1.0, 1.0)


def _moved(
    density: NDArray[Any], pair: MeasurePair, slopes: list[NDArray[np.float32]], share: float
) -> NDArray[np.float64]:
    """The density at z + share grad u, trilinear between voxel centres."""
    from scipy.ndimage import map_coordinates

    where = np.empty((3, *density.shape), np.float32)
    for axis, centers in enumerate(pair.grid.centers_mm):
        shape = [1, 1, 1]
        shape[axis] = -1
        position = centers.reshape(shape) + share * slopes[axis]
        where[axis] = np.interp(position.ravel(), centers, np.arange(centers.size)).reshape(density.shape)
    return map_coordinates(density, where, order=1, mode="nearest")
