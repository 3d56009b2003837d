"""Distances from the moments of dose maps."""

from dosemover.moments.gaussian import GaussianMoments, bures_squared, bures_w2, gaussian_moments

__all__ = ["GaussianMoments", "bures_squared", "bures_w2", "gaussian_moments"]
