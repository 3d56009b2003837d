"""Mean and covariance of dose maps, and the Gaussian (Gelbrich, Bures) bound on W_2."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dosemover.dose import DoseMap
from dosemover.errors import InputError
from dosemover.grid import Grid
from dosemover.moments.tally import MomentTally
from dosemover.transport.measure import Weight, measure_pair
from dosemover.transport.result import TransportResult


@dataclass(frozen=True, kw_only=True, eq=False)
class GaussianMoments:
    """Mass, mean and covariance of a piecewise-constant density.

    Parameters
    ----------
    mass : float
        Integral [Gy mm3].
    mean_mm : ndarray, shape (3,)
        Centre of dose (x, y, z) [mm].
    covariance_mm2 : ndarray, shape (3, 3)
        Covariance of the normalised density (x, y, z) [mm2].
    """

    mass: float
    mean_mm: NDArray[np.float64]
    covariance_mm2: NDArray[np.float64]


def gaussian_moments(density: ArrayLike, grid: Grid) -> GaussianMoments:
    """Mass, mean and covariance, exact for a density that is constant in each voxel.

    Parameters
    ----------
    density : array_like, shape [z, y, x]
        Density per volume, not negative and not all zero.
    grid : Grid

    Returns
    -------
    GaussianMoments

    Notes
    -----
    *Definition*: the second moment of a voxel of width h about its middle is h^2/12, so the result
    does not depend on how finely a map is cut into voxels. *Cost*: one pass over the map.
    """
    values = np.asarray(density, dtype=np.float64)
    widths = grid.widths_mm
    mass = np.einsum("zyx,z,y,x->", values, *widths, optimize=True)
    centers = [(e[1:] + e[:-1]) / 2 for e in grid.edges_mm]
    planes = {
        (0, 1): np.einsum("zyx,z,y,x->zy", values, *widths, optimize=True) / mass,
        (0, 2): np.einsum("zyx,z,y,x->zx", values, *widths, optimize=True) / mass,
        (1, 2): np.einsum("zyx,z,y,x->yx", values, *widths, optimize=True) / mass,
    }
    lines = [planes[0, 1].sum(axis=1), planes[0, 1].sum(axis=0), planes[0, 2].sum(axis=0)]
    mean = np.array([line @ c for line, c in zip(lines, centers, strict=True)])
    offsets = [c - m for c, m in zip(centers, mean, strict=True)]
    covariance = np.diag(
        [line @ (o**2 + w**2 / 12) for line, o, w in zip(lines, offsets, widths, strict=True)]
    )
    for (i, j), plane in planes.items():
        covariance[i, j] = covariance[j, i] = offsets[i] @ plane @ offsets[j]
    return GaussianMoments(mass=float(mass), mean_mm=mean[::-1], covariance_mm2=covariance[::-1, ::-1])


def tally_gaussian(tally: MomentTally) -> GaussianMoments:
    """Mass, mean and covariance from a tally of degree 2 or more.

    Parameters
    ----------
    tally : MomentTally

    Returns
    -------
    GaussianMoments

    Raises
    ------
    InputError
        When the tally has no second moments, or no mass.
    """
    if tally.degree < 2:
        raise InputError(f"a covariance takes moments to degree 2, the tally holds {tally.degree}.")
    tally.check_mass()
    first, second = central_moments(tally.tensor / tally.mass, tally.half_widths_mm)
    centers = np.array([(high + low) / 2 for low, high in tally.box_mm])
    return GaussianMoments(
        mass=tally.mass, mean_mm=(centers + first)[::-1], covariance_mm2=second[::-1, ::-1]
    )


def central_moments(tensor: NDArray[Any], half: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Mean from the middle of the box and covariance (z, y, x) from normalised moments [..., a, b, c].

    t = phi_1 / sqrt 3, t^2 = 1/3 + 2 phi_2 / (3 sqrt 5), in units of the half widths.
    """
    unit = np.eye(3, dtype=int)
    first = np.stack([tensor[(..., *unit[i])] for i in range(3)], axis=-1) / np.sqrt(3)
    second = np.empty((*first.shape, 3))
    for i in range(3):
        for j in range(i + 1):
            raw = tensor[(..., *(unit[i] + unit[j]))]
            second[..., i, j] = 1 / 3 + raw * 2 / (3 * np.sqrt(5)) if i == j else raw / 3
            second[..., j, i] = second[..., i, j]
    second -= first[..., :, None] * first[..., None, :]
    return first * half, second * half[:, None] * half


def matrix_root(matrix: NDArray[Any]) -> NDArray[np.float64]:
    """Square root of a positive semidefinite matrix."""
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(np.maximum(values, 0.0))[..., None, :]) @ np.swapaxes(vectors, -1, -2)


def stacked_bures_squared(first: NDArray[Any], second: NDArray[Any]) -> NDArray[np.float64]:
    """Squared Bures distances of stacks of covariances, shape [...]."""
    root = matrix_root(first)
    cross = np.linalg.eigvalsh(root @ second @ root)
    traces = np.trace(first, axis1=-2, axis2=-1) + np.trace(second, axis1=-2, axis2=-1)
    return np.maximum(traces - 2 * np.sum(np.sqrt(np.maximum(cross, 0.0)), axis=-1), 0.0)


def bures_squared(first: NDArray[Any], second: NDArray[Any]) -> float:
    """Squared Bures distance of two covariances: tr(A + B - 2 (A^1/2 B A^1/2)^1/2) [mm2]."""
    return float(stacked_bures_squared(first, second))


def bures_w2(
    *,
    reference: DoseMap,
    evaluated: DoseMap,
    mask: ArrayLike | None = None,
    weight: Weight = "dose",
) -> TransportResult:
    """Gaussian lower bound on W_2 from the means and covariances of both maps.

    ``bures_w2^2 = |m_a - m_b|^2 + tr(A + B - 2 (A^1/2 B A^1/2)^1/2)``

    Parameters
    ----------
    reference, evaluated : DoseMap
    mask : array_like of bool or fraction, shape reference.grid.shape, optional
        Doses outside it are set to 0.
    weight : {"dose", "energy"}

    Returns
    -------
    TransportResult
        ``value`` [mm]; ``parts``: "mean_shift_mm", the distance of the means, and
        "covariance_part_mm". ``settings`` hold the vector of the shift (x, y, z) [mm].

    Raises
    ------
    InputError
        When a map has no mass.

    Notes
    -----
    *Definition*: the squared 2-Wasserstein distance of the Gaussians with the same means and
    covariances. *Limits*: ``mean_shift_mm <= bures_w2 <= W_2`` for any two maps (Gelbrich 1990);
    equal to W_2 where one map is the other under an affine map with a symmetric positive definite
    matrix. Blind to everything beyond second moments: a hot spot hardly shows. *Cost*: one pass
    over each map.

    References
    ----------
    Gelbrich 1990; Bhatia, Jain & Lim 2019 (the Bures distance).
    """
    pair = measure_pair(reference=reference, evaluated=evaluated, mask=mask, weight=weight)
    first, second = gaussian_moments(pair.a, pair.grid), gaussian_moments(pair.b, pair.grid)
    shift = second.mean_mm - first.mean_mm
    covariance_part = bures_squared(first.covariance_mm2, second.covariance_mm2)
    value = float(np.sqrt(shift @ shift + covariance_part))
    return TransportResult(
        value=value,
        lower=value,
        upper=value,
        grid=pair.grid,
        parts={
            "mean_shift_mm": float(np.linalg.norm(shift)),
            "covariance_part_mm": float(np.sqrt(covariance_part)),
        },
        settings={
            "shift_mm": shift.tolist(),
            "weight": weight,
            "mass_ratio": pair.mass_ratio,
            "reference_covariance_mm2": first.covariance_mm2.tolist(),
            "evaluated_covariance_mm2": second.covariance_mm2.tolist(),
        },
    )
