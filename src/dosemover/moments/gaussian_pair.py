"""The quadratic dual pair of the Gaussian bound, on which the moment-SoS hierarchy builds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dosemover.moments.gaussian import bures_squared, central_moments, matrix_root
from dosemover.moments.legendre import MultiIndex
from dosemover.moments.tally import MomentTally

_SMALLEST_VARIANCE = 1e-10
"""Share of the largest variance below which a direction counts as having none."""


@dataclass(frozen=True, kw_only=True, eq=False)
class GaussianPair:
    """Quadratic potentials phi(x) + psi(y) <= |x - y|^2 on all of space.

    With u = x - m, v = y - n, Delta = n - m and S the symmetric matrix with S A S = B,
    ``phi = u'(1 - S)u - 2 Delta.u + |Delta|^2``, ``psi = v'(1 - S^-1)v + 2 Delta.v`` and
    ``|x - y|^2 - phi - psi = |S^1/2 u - S^-1/2 v|^2``.

    Parameters
    ----------
    squared_mm2 : float
        Value of the pair: the squared Gaussian bound; that of the means alone where a covariance is
        singular.
    mean_x, mean_y : ndarray, shape (d,)
        m and n [mm].
    map_matrix : ndarray, shape (d, d)
        S, the identity where a covariance is singular.
    """

    squared_mm2: float
    mean_x: NDArray[Any]
    mean_y: NDArray[Any]
    map_matrix: NDArray[Any]

    def remaining_cost(self, x: NDArray[Any], y: NDArray[Any]) -> NDArray[np.float64]:
        """|x - y|^2 - phi(x) - psi(y) at points [mm], shape (n, d) each; never negative."""
        root = matrix_root(self.map_matrix)
        left = (x - self.mean_x) @ root - (y - self.mean_y) @ np.linalg.inv(root)
        return np.sum(left**2, axis=1)

    def phi(self, center: NDArray[Any], half: NDArray[Any]) -> dict[MultiIndex, float]:
        """Legendre coefficients of phi on a box [mm2]."""
        shift = self.mean_y - self.mean_x
        curvature = np.eye(len(shift)) - self.map_matrix
        return _quadratic(curvature, -2 * shift, float(shift @ shift), center - self.mean_x, half)

    def psi(self, center: NDArray[Any], half: NDArray[Any]) -> dict[MultiIndex, float]:
        """Legendre coefficients of psi on a box [mm2]."""
        shift = self.mean_y - self.mean_x
        curvature = np.eye(len(shift)) - np.linalg.inv(self.map_matrix)
        return _quadratic(curvature, 2 * shift, 0.0, center - self.mean_y, half)


def gaussian_pair(reference: MomentTally, evaluated: MomentTally, axes: tuple[int, ...]) -> GaussianPair:
    """The optimal quadratic pair for the means and covariances of two tallies along some axes."""
    means, covariances = [], []
    for tally in (reference, evaluated):
        first, second = central_moments(tally.tensor / tally.mass, tally.half_widths_mm)
        center = np.array([(low + high) / 2 for low, high in tally.box_mm])
        means.append((center + first)[list(axes)])
        covariances.append(second[np.ix_(axes, axes)])
    matrix, squared = np.eye(len(axes)), 0.0
    spectra = [np.linalg.eigvalsh(c) for c in covariances]
    if all(s[0] > _SMALLEST_VARIANCE * max(t[-1] for t in spectra) for s in spectra):
        root = matrix_root(covariances[0])
        inverse = np.linalg.inv(root)
        matrix = inverse @ matrix_root(root @ covariances[1] @ root) @ inverse
        matrix = (matrix + matrix.T) / 2
        squared = bures_squared(*covariances)
    shift = means[1] - means[0]
    return GaussianPair(
        squared_mm2=float(shift @ shift) + squared, mean_x=means[0], mean_y=means[1], map_matrix=matrix
    )


def _quadratic(
    curvature: NDArray[Any], slope: NDArray[Any], constant: float, offset: NDArray[Any], half: NDArray[Any]
) -> dict[MultiIndex, float]:
    """Legendre coefficients of u'Q u + l.u + c with u = offset + half t: t^2 = 1/3 + 2 phi_2 / (3 sqrt 5)."""
    d = len(offset)
    unit = np.eye(d, dtype=int)
    scaled = curvature * half[:, None] * half
    linear = half * (slope + 2 * curvature @ offset)
    level = constant + slope @ offset + offset @ curvature @ offset + np.trace(scaled) / 3
    found: dict[MultiIndex, float] = {(0,) * d: float(level)}
    for i in range(d):
        found[tuple(unit[i].tolist())] = float(linear[i] / np.sqrt(3))
        found[tuple((2 * unit[i]).tolist())] = float(2 * scaled[i, i] / (3 * np.sqrt(5)))
        for j in range(i):
            found[tuple((unit[i] + unit[j]).tolist())] = float(2 * scaled[i, j] / 3)
    return found
