r"""Carrying away what a flux leaves unmatched, at a cost that does not grow with the number of voxels.

Conjugate gradients stop with a small residual. Two neighbouring voxels even theirs out through the face
between them, pairs of pairs through theirs, axis by axis and level by level until the whole box is one cell,
whose residual is 0. Each of these fluxes is a lowest Raviart-Thomas field whose cost is bounded by the
integral of 1/mobility over the two cells; fluxes along one axis add by Minkowski's inequality, those along
different axes are orthogonal. Cells that a flux may not enter whole keep their residual, evened out within.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dosemover.grid import Grid
from dosemover.transport.settlement_kernels import merge_pairs
from dosemover.transport.slabs import each_slab


def settle_by_cells(
    residual: NDArray[np.float64], inverse: NDArray[np.float64], grid: Grid
) -> tuple[float, NDArray[np.float64]]:
    """Bound of the energy of a flux that carries a residual away, and the residual that is left.

    Parameters
    ----------
    residual : ndarray, shape grid.shape
        Mass that voxels have to get rid of.
    inverse : ndarray, shape grid.shape
        1 / mobility; not positive where no flux may enter. Such voxels keep their residual.
    grid : Grid

    Returns
    -------
    energy : float
        At least the integral of |m|^2 / mobility.
    left : ndarray, shape grid.shape
        Mass that remains; 0 to rounding where the flux may go everywhere.
    """
    volume = grid.voxel_volume_mm3
    blocked = inverse <= 0
    excess = np.where(blocked, 0.0, residual / volume)
    resistance = np.where(blocked, -1.0, inverse * volume)
    widths = [np.asarray(v) for v in grid.widths_mm]
    norms, lefts = np.zeros(3), []
    finest = True
    while excess.size > 1:
        for axis in (2, 1, 0):
            if excess.shape[axis] == 1:
                continue
            excess, resistance, energy, left = _merged(excess, resistance, widths, axis, finest)
            norms[axis] += np.sqrt(energy)
            lefts.append((axis, left))
        finest = False
    density = excess
    for axis, left in reversed(lefts):
        density = np.repeat(density, 2, axis=axis).take(range(left.shape[axis]), axis=axis) + left
    return float(norms @ norms), np.where(blocked, residual, density * volume)


def _merged(
    excess: NDArray[Any],
    resistance: NDArray[Any],
    widths: list[NDArray[Any]],
    axis: int,
    finest: bool,
) -> tuple[NDArray[Any], NDArray[Any], float, NDArray[Any]]:
    """Cells merged in pairs along one axis (``widths`` in place), the energy of it, and what stays apart."""
    shape = excess.shape
    n = shape[axis]
    rows, after = int(np.prod(shape[:axis])), int(np.prod(shape[axis + 1 :]))
    merged, merged_resistance = np.empty((rows, (n + 1) // 2, after)), np.empty((rows, (n + 1) // 2, after))
    left, energy = np.empty((rows, n, after)), np.empty(rows)
    share = 1 / 3 if finest else 1.0  # a flux that rises along one voxel; along several, at most its top
    each_slab(
        merge_pairs, rows, excess.size, excess.reshape(rows, n, after), resistance.reshape(rows, n, after),
        widths[axis], share, merged, merged_resistance, left, energy,
    )  # fmt: skip
    widths[axis] = np.add.reduceat(widths[axis], np.arange(0, n, 2))
    new = (*shape[:axis], (n + 1) // 2, *shape[axis + 1 :])
    return merged.reshape(new), merged_resistance.reshape(new), float(energy.sum()), left.reshape(shape)
