"""Closed forms that the tests compare with: one function per published equation."""

import numpy as np


def gamma_of_a_ramp(
    *, difference_gy: float, slope_gy_per_mm: float, dose_criterion_gy: float, distance_criterion_mm: float
) -> float:
    """Gamma on a linear dose, |chi| of Bakai et al. 2003: difference / sqrt(dD^2 + (slope dd)^2)."""
    return abs(difference_gy) / (dose_criterion_gy**2 + (slope_gy_per_mm * distance_criterion_mm) ** 2) ** 0.5


def gamma_of_a_step(
    *,
    to_edge_mm: float,
    ramp_mm: float,
    height_gy: float,
    dose_criterion_gy: float,
    distance_criterion_mm: float,
) -> float:
    """Gamma of a plateau point ``to_edge_mm`` beyond the plateau of a step that falls linearly over a ramp.

    Low et al. 1998: the closest point lies on the ramp, before its upper end where the ramp is steep: the
    distance of a point from a line segment in criterion units.
    """
    far = to_edge_mm / distance_criterion_mm  # upper end of the ramp, no dose difference
    step = ramp_mm / distance_criterion_mm
    rise = height_gy / dose_criterion_gy
    t = min(1.0, max(0.0, far * step / (step**2 + rise**2)))
    return ((far - t * step) ** 2 + (t * rise) ** 2) ** 0.5


def w1_on_a_line(edges, p, q):
    """W_1 = integral |F - G| dx (Villani 2003, section 2.2) of densities between edges, by quadrature."""
    x = np.linspace(edges[0], edges[-1], 400_001)
    f, g = (
        np.interp(x, edges, np.append(0, np.cumsum(d * np.diff(edges))) / np.dot(d, np.diff(edges)))
        for d in (p, q)
    )
    return float(np.trapezoid(np.abs(f - g), x))


def w2_squared_on_a_line(edges, p, q):
    """W_2^2 = integral (F^-1 - G^-1)^2 du (Villani 2003, section 2.2), by the midpoint rule."""
    u = (np.arange(400_000) + 0.5) / 400_000

    def quantile(d):
        cdf = np.append(0, np.cumsum(d * np.diff(edges))) / np.dot(d, np.diff(edges))
        i = np.searchsorted(cdf, u, side="left") - 1
        return edges[i] + (u - cdf[i]) / (cdf[i + 1] - cdf[i]) * (edges[i + 1] - edges[i])

    return float(np.mean((quantile(p) - quantile(q)) ** 2))


def dmd_of_an_output_change(u, length_mm):
    """Dose Mover's Distance of b = (1 + u) a, without ambient dose: 2 L |sqrt(1 + u) - 1|."""
    return 2 * length_mm * abs(np.sqrt(1 + u) - 1)


def hellinger_mm(a, b, volume, length_mm):
    """Limit of small L: 2 L (integral (sqrt a - sqrt b)^2 / |a|)^(1/2) (Liero, Mielke & Savare 2018)."""
    return 2 * length_mm * np.sqrt(np.sum((np.sqrt(a) - np.sqrt(b)) ** 2 * volume) / np.sum(a * volume))


def hellinger_kantorovich_cost(distance_mm, length_mm):
    """-8 L^2 log cos(min(d / 2L, pi/2)): the cost of the static form (Liero, Mielke & Savare 2018)."""
    angle = np.minimum(distance_mm / (2 * length_mm), np.pi / 2 * (1 - 1e-12))
    return -8 * length_mm**2 * np.log(np.cos(angle))


def bures_squared(mean_a, covariance_a, mean_b, covariance_b):
    """W_2^2 of two Gaussians with commuting covariances (diagonals)."""
    spread = (np.sqrt(covariance_a) - np.sqrt(covariance_b)) ** 2
    return float(np.sum((np.asarray(mean_a) - np.asarray(mean_b)) ** 2) + np.sum(spread))
