"""The analytic case: fields with Gaussian penumbras in a closed form, under white noise of our own making.

A contrast to simulated cases: noise of a simulation is correlated between voxels, this one is not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dosemover.errors import InputError
from dosemover.grid import Grid
from dosemover.montecarlo.config import check_keys
from dosemover.montecarlo.sources import PENUMBRA_PER_SIGMA

_PHANTOM = ("type", "size_mm", "voxel_mm", "center_mm")
_SOURCE = ("isocenter_mm", "field_mm", "penumbra_mm", "attenuation_per_mm", "weight")


def check(document: Mapping[str, Any]) -> None:
    """Refuse unknown keys and fields without an area."""
    phantom = document.get("phantom", {})
    check_keys(phantom, _PHANTOM, "phantom of an analytic case")
    if phantom.get("type") != "box" or not document.get("source"):
        raise InputError('an analytic case needs a phantom of type "box" and at least one source.')
    for source in document["source"]:
        check_keys(source, _SOURCE, "source of an analytic case")
        x1, x2, z1, z2 = source["field_mm"]
        if not (x2 > x1 and z2 > z1 and source["penumbra_mm"] > 0):
            raise InputError(
                f"an analytic field needs edges (x1, x2, z1, z2) that ascend and a positive penumbra, got "
                f"{source['field_mm']} and {source['penumbra_mm']} mm."
            )


def grid_of(document: Mapping[str, Any]) -> Grid:
    """Grid of the box."""
    phantom = document["phantom"]
    size, voxel, center = (
        np.broadcast_to(np.asarray(phantom.get(key, default), dtype=np.float64), (3,))
        for key, default in (("size_mm", 120.0), ("voxel_mm", 5.0), ("center_mm", 0.0))
    )
    n = np.maximum(np.rint(size / voxel).astype(int), 1)
    origin = center - (n - 1) * voxel / 2
    return Grid.regular(shape=tuple(n[::-1]), spacing_mm=tuple(voxel), origin_mm=tuple(origin))


def dose_of(document: Mapping[str, Any]) -> NDArray[np.float64]:
    """Dose relative to a field's entrance, shape [z, y, x], averaged exactly over each voxel.

    Sum over the fields of weight x P(x) P(z) exp(-mu y'), y' the depth below the top of the box, P the
    profile 0.5 (erf((u - u1) / s) - erf((u - u2) / s)), s = sqrt(2) times the standard deviation.
    """
    grid = grid_of(document)
    z, y, x = grid.edges_mm
    total = np.zeros(grid.shape)
    for source in document["source"]:
        cx, _, cz = source.get("isocenter_mm", (0.0, 0.0, 0.0))
        x1, x2, z1, z2 = source["field_mm"]
        s = np.sqrt(2.0) * source["penumbra_mm"] / PENUMBRA_PER_SIGMA
        across, along = _profile(x, cx + x1, cx + x2, s), _profile(z, cz + z1, cz + z2, s)
        depth = _depth(y - y[0], source.get("attenuation_per_mm", 0.0))
        total += source.get("weight", 1.0) * along[:, None, None] * depth[:, None] * across
    return total


def _profile(edges: NDArray[np.float64], low: float, high: float, s: float) -> NDArray[np.float64]:
    """Mean over each voxel of a slab blurred by a Gaussian."""
    from scipy.special import erf

    def integral(u: NDArray[np.float64]) -> NDArray[np.float64]:
        return 0.5 * (u * erf(u / s) + s / np.sqrt(np.pi) * np.exp(-((u / s) ** 2)))

    return np.maximum(np.diff(integral(edges - low) - integral(edges - high)) / np.diff(edges), 0.0)


def _depth(edges: NDArray[np.float64], mu: float) -> NDArray[np.float64]:
    """Mean over each voxel of an exponential."""
    if mu == 0:
        return np.ones(edges.size - 1)
    return -np.diff(np.exp(-mu * edges)) / (mu * np.diff(edges))


def noisy(
    dose: NDArray[np.float64], *, variance: NDArray[np.float64], batches: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Batches whose mean has the given mean and variance in each voxel, independent between voxels.

    Gamma-distributed: never negative, and unbiased however low the dose.

    Parameters
    ----------
    dose, variance : ndarray, shape [z, y, x]
        Of the mean of the batches.
    batches : int
    rng : numpy.random.Generator
    """
    wide = variance * batches
    with np.errstate(divide="ignore", invalid="ignore"):
        shape = np.where(wide > 0, dose**2 / wide, 0.0)
        scale = np.where(dose > 0, wide / dose, 0.0)
    return rng.gamma(shape, scale, size=(batches, *dose.shape))
