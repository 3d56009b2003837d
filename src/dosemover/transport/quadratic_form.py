"""Moments of the root of a quadratic form of noise: what a distance reads where its square is known."""

from __future__ import annotations

from math import lgamma

import numpy as np


def root_of_gamma(mean: float, variance: float) -> tuple[float, float]:
    """Mean and standard deviation of the square root of a gamma variable with given moments.

    Parameters
    ----------
    mean, variance : float
        Of the variable itself: a sum of squares of noise.

    Returns
    -------
    tuple of float
    """
    if mean <= 0 or variance <= 0:
        return float(np.sqrt(max(mean, 0.0))), 0.0
    shape = mean**2 / variance
    if shape > 1e6:
        return float(np.sqrt(mean)), float(np.sqrt(mean / (4 * shape)))
    ratio = float(np.exp(lgamma(shape + 0.5) - lgamma(shape) - 0.5 * np.log(shape)))
    return float(np.sqrt(mean)) * ratio, float(np.sqrt(max(mean * (1 - ratio**2), 0.0)))
