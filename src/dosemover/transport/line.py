"""Wasserstein distances on the line, exact for distribution functions that are linear between knots."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def line_w1(t: NDArray[Any], f: NDArray[Any], g: NDArray[Any]) -> float:
    """W_1 = integral |F - G| dt of two distribution functions given at common knots.

    Parameters
    ----------
    t : ndarray, shape (n,)
        Ascending knots [mm].
    f, g : ndarray, shape (n,)
        Distribution functions F and G at the knots, 0 at the first and 1 at the last, linear between.

    Returns
    -------
    float
        W_1 [mm].
    """
    d = f - g
    left, right = np.abs(d[:-1]), np.abs(d[1:])
    total = left + right
    crossing = d[:-1] * d[1:] < 0
    mean = total / 2
    mean[crossing] = (left[crossing] ** 2 + right[crossing] ** 2) / (2 * total[crossing])
    return float(np.dot(np.diff(t), mean))


def _quantiles(t: NDArray[Any], f: NDArray[Any], u: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Quantile function at both ends of each interval of ``u``, which holds every value of F."""
    middle = (u[1:] + u[:-1]) / 2
    i = np.clip(np.searchsorted(f, middle, side="right") - 1, 0, f.size - 2)
    rise = f[i + 1] - f[i]
    slope = (t[i + 1] - t[i]) / np.where(rise > 0, rise, 1.0)
    return t[i] + (u[:-1] - f[i]) * slope, t[i] + (u[1:] - f[i]) * slope


def line_w2_squared(t: NDArray[Any], f: NDArray[Any], g: NDArray[Any]) -> float:
    """W_2^2 = integral over u from 0 to 1 of (F^-1(u) - G^-1(u))^2 of two distribution functions.

    Parameters
    ----------
    t : ndarray, shape (n,)
        Ascending knots [mm].
    f, g : ndarray, shape (n,)
        Distribution functions F and G at the knots, 0 at the first and 1 at the last, never falling,
        linear between.

    Returns
    -------
    float
        W_2^2 [mm^2].
    """
    u = np.union1d(f, g)
    du = np.diff(u)
    f0, f1 = _quantiles(t, f, u)
    g0, g1 = _quantiles(t, g, u)
    d0, d1 = f0 - g0, f1 - g1
    return float(np.dot(du, d0 * d0 + d0 * d1 + d1 * d1)) / 3
