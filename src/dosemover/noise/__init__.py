"""Noise floors and significance of every metric."""

from dosemover.noise.correlation import (
    NoiseCorrelation,
    correlated_normal,
    lag_correlation,
    noise_correlation,
)
from dosemover.noise.level import (
    NoiseLevel,
    distant_variance,
    histories_factor,
    noise_level,
    undamped,
)
from dosemover.noise.nulls import (
    NoiseModel,
    combined_variance,
    noise_model,
    parametric_pairs,
    permuted_pairs,
    pooled_mean,
    replicated_pairs,
    resampled_pairs,
)
from dosemover.noise.quadratic import (
    BatchPermutations,
    Relabellings,
    centered_weights,
    debiased_significance,
    orthogonal_weights,
    quadratic_values,
    root_of_gamma,
    square_significance,
    sum_significance,
)
from dosemover.noise.regions import (
    SignificantVoxels,
    averaged_difference,
    low_sampling,
    significant_by_relabelling,
    significant_voxels,
    systematic_probability,
)
from dosemover.noise.significance import Significance, significance

__all__ = [
    "BatchPermutations",
    "NoiseCorrelation",
    "NoiseLevel",
    "NoiseModel",
    "Relabellings",
    "Significance",
    "SignificantVoxels",
    "averaged_difference",
    "centered_weights",
    "combined_variance",
    "correlated_normal",
    "debiased_significance",
    "distant_variance",
    "histories_factor",
    "lag_correlation",
    "low_sampling",
    "noise_correlation",
    "noise_level",
    "noise_model",
    "orthogonal_weights",
    "parametric_pairs",
    "permuted_pairs",
    "pooled_mean",
    "quadratic_values",
    "replicated_pairs",
    "resampled_pairs",
    "root_of_gamma",
    "significance",
    "significant_by_relabelling",
    "significant_voxels",
    "square_significance",
    "sum_significance",
    "systematic_probability",
    "undamped",
]
