"""Distances from the moments of dose maps."""

from dosemover.moments.barycenter import BarycenterResult, moment_barycenter
from dosemover.moments.bounds import Bound, W2Bounds, w2_bounds
from dosemover.moments.distances import moment_dmd, moment_w2, support_box
from dosemover.moments.galerkin import GalerkinLevel, GalerkinResult, galerkin_dmd, galerkin_w2
from dosemover.moments.gaussian import (
    GaussianMoments,
    bures_squared,
    bures_w2,
    gaussian_moments,
    tally_gaussian,
)
from dosemover.moments.levels import MomentLevel, MomentLevels, moment_levels
from dosemover.moments.line_sos import LineSosResult, line_sos, line_sos_from_moments
from dosemover.moments.moment_sos import MomentSosResult, moment_sos
from dosemover.moments.tally import (
    MomentAccumulator,
    MomentConsumer,
    MomentTally,
    tally_density,
    tally_map,
)

__all__ = [
    "BarycenterResult",
    "Bound",
    "GalerkinLevel",
    "GalerkinResult",
    "GaussianMoments",
    "LineSosResult",
    "MomentAccumulator",
    "MomentConsumer",
    "MomentLevel",
    "MomentLevels",
    "MomentSosResult",
    "MomentTally",
    "W2Bounds",
    "bures_squared",
    "bures_w2",
    "galerkin_dmd",
    "galerkin_w2",
    "gaussian_moments",
    "line_sos",
    "line_sos_from_moments",
    "moment_barycenter",
    "moment_dmd",
    "moment_levels",
    "moment_sos",
    "moment_w2",
    "support_box",
    "tally_density",
    "tally_gaussian",
    "tally_map",
    "w2_bounds",
]
