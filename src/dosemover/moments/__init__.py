"""Distances from the moments of dose maps."""

from dosemover.moments.distances import moment_dmd, moment_w2, support_box
from dosemover.moments.galerkin import GalerkinLevel, GalerkinResult, galerkin_dmd, galerkin_w2
from dosemover.moments.gaussian import GaussianMoments, bures_squared, bures_w2, gaussian_moments
from dosemover.moments.moment_sos import MomentSosResult, moment_sos
from dosemover.moments.tally import MomentAccumulator, MomentTally, tally_density, tally_map

__all__ = [
    "GalerkinLevel",
    "GalerkinResult",
    "GaussianMoments",
    "MomentAccumulator",
    "MomentSosResult",
    "MomentTally",
    "bures_squared",
    "bures_w2",
    "galerkin_dmd",
    "galerkin_w2",
    "gaussian_moments",
    "moment_dmd",
    "moment_sos",
    "moment_w2",
    "support_box",
    "tally_density",
    "tally_map",
]
