"""Densities on the way between two maps: the Benamou-Brenier bound in several segments."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dosemover.moments.coarse_pair import CoarsePair

_LEAST_SHARE = 1e-3
"""Least half-way density over the smaller of both maps' densities, so that no path is closed."""

_LARGEST_MISMATCH = 0.05
"""Share of the mass that the two half-way densities may leave unmatched."""


def halfway_density(pair: CoarsePair) -> NDArray[np.float64] | None:
    """Density of mass 1 half-way along the displacement from one map to the other.

    Both maps are pushed half-way along the midpoint potential, which Newton's method finds on the cells; the
    mean of the two, positive where both maps are.

    Parameters
    ----------
    pair : CoarsePair

    Returns
    -------
    ndarray, shape of the voxels, or None
        None where Newton's method did not bring the two together.
    """
    from dosemover.transport.monge_ampere import middle_densities, midpoint_potential

    cells, fine = pair.cells, pair.fine
    found = midpoint_potential(cells.grid, cells.a, cells.b, length_mm=np.inf)
    if not found.mismatch < _LARGEST_MISMATCH:
        return None
    space, w = pair.on_voxels(found.w)
    first, second = middle_densities(space, w, fine.a, fine.b, length_mm=np.inf)
    middle = pair.inner((first + second) / 2)
    np.maximum(middle, _LEAST_SHARE * pair.inner(np.minimum(fine.a, fine.b)), out=middle)
    return middle / float(np.sum(middle * pair.inner(fine.grid.voxel_volume_mm3)))
