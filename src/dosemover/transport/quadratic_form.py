"""Quadratic forms of noise as gamma variables: what a distance reads, and how often that much or more."""

from __future__ import annotations

from dataclasses import dataclass
from math import lgamma

import numpy as np

FEWEST_LABELLINGS = 60
"""Ways to share the batches out below which p is not taken from them: it could not fall below 0.03."""


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


def tail_of_gamma(value: float, mean: float, variance: float, *, mean_variance: float = 0.0) -> float | None:
    """Probability that a quadratic form of noise reaches a value; None where there is no noise.

    Parameters
    ----------
    value : float
    mean, variance : float
        Of the form: a gamma variable with these two moments (Patnaik's match of a scaled chi-square).
    mean_variance : float
        Variance of ``mean`` itself where it is an estimate: the ratio of the two then follows an F
        distribution, as Hotelling's T^2 does.

    Returns
    -------
    float or None
    """
    from scipy.special import fdtrc, gammaincc

    if mean <= 0 or variance <= 0:
        return None
    shape = mean**2 / variance
    if mean_variance > 0:
        return float(fdtrc(2 * shape, 2 * mean**2 / mean_variance, value / mean))
    return float(gammaincc(shape, shape * value / mean))


@dataclass(frozen=True, kw_only=True, eq=False)
class QuadraticNoise:
    """A squared metric under noise alone.

    Parameters
    ----------
    mean, variance : float
        Of the square.
    mean_variance : float
        Variance of ``mean`` itself where it is an estimate.
    """

    mean: float
    variance: float
    mean_variance: float = 0.0

    @property
    def root(self) -> tuple[float, float]:
        """Mean and standard deviation of the metric itself."""
        return root_of_gamma(self.mean, self.variance)

    def p_value(self, value: float) -> float | None:
        """Probability that the metric reaches ``value``; None where there is no noise."""
        return tail_of_gamma(value**2, self.mean, self.variance, mean_variance=self.mean_variance)
