"""Noise floors and significance of every metric."""

from dosemover.noise.correlation import correlated_normal, lag_correlation
from dosemover.noise.nulls import (
    NoiseModel,
    noise_model,
    parametric_pairs,
    permuted_pairs,
    pooled_mean,
    resampled_pairs,
)
from dosemover.noise.significance import Significance, significance

__all__ = [
    "NoiseModel",
    "Significance",
    "correlated_normal",
    "lag_correlation",
    "noise_model",
    "parametric_pairs",
    "permuted_pairs",
    "pooled_mean",
    "resampled_pairs",
    "significance",
]
