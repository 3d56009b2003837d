"""Dose maps that the tests of the moment distances share."""

import numpy as np
from scipy.special import erf

from dosemover.dose import DoseMap
from dosemover.moments import tally_density
from dosemover.moments.legendre import legendre, legendre_derivatives


def beam(n=32, edge=0.3, background=1e-3, **fields):
    """Field of 200 mm with penumbra and a distal edge at ``edge`` (in units of 100 mm)."""
    t = (np.arange(n) + 0.5) / n * 2 - 1
    z, y, x = np.meshgrid(t, t, t, indexing="ij")
    distal = edge(y) if callable(edge) else edge

    def plateau(s):
        return 0.5 * (erf((s + 0.5) / 0.12) - erf((s - 0.5) / 0.12))

    depth = 0.5 * (erf((x + 0.6) / 0.12) - erf((x - distal) / 0.12))
    return DoseMap.from_array(
        depth * plateau(y) * plateau(z) + background, spacing_mm=(200 / n,) * 3, **fields
    )


def box_map(low, high, shape=(12, 12, 12), spacing=4.0):
    """One where a box of voxels is, 0 elsewhere."""
    dose = np.zeros(shape)
    dose[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = 1.0
    return DoseMap.from_array(dose, spacing_mm=(spacing,) * 3)


def load_batches(path):
    """EGSnrc dose in batches, voxels of 4 mm."""
    with np.load(path) as arrays:
        batches = arrays["batches"].astype(np.float64) * float(arrays["scale"])
    return DoseMap.from_array(batches.mean(axis=0), spacing_mm=(4.0, 4.0, 4.0), batches_gy=batches)


def voxel_size_error(energy, grid, degree):
    """Moments of deposits less those of their map, per unit of energy: h^2/12 int grad phi . grad f.

    ``energy`` [z, y, x] is what the voxels hold. The map spreads each deposit over its voxel: what is lost is
    the covariance, within the voxels, of the basis functions and of the density f of energy.
    """
    share = energy / energy.sum()
    values, slopes = [], []
    for edges, (low, high) in zip(grid.edges_mm, grid.box_mm, strict=True):
        t = (edges[1:] + edges[:-1] - low - high) / (high - low)
        values.append(legendre(t, degree))
        slopes.append(legendre_derivatives(t, degree, 1) * 2 / (high - low))
    lost = np.zeros((degree + 1,) * 3)
    for axis in range(3):
        width = grid.widths_mm[axis][0]
        change = np.gradient(share, width, axis=axis) * width**2 / 12
        factors = [slopes[i] if i == axis else values[i] for i in range(3)]
        lost += np.einsum("zyx,za,yb,xc->abc", change, *factors, optimize=True)
    return lost


def standardized_voxel_errors(streamed, energy_batches, grid):
    """(Streamed moments - moments of the map - voxel-size error) / standard error from the batches.

    The deposits of a batch are the same on both sides, so that only their places within the voxels differ.
    """
    volume = grid.voxel_volume_mm3
    degree = streamed.degree
    mapped = np.stack(
        [tally_density(energy / volume, grid, degree=degree).tensor for energy in energy_batches]
    )
    mapped *= streamed.batches[:, 0, 0, 0].sum() / mapped[:, 0, 0, 0].sum()
    np.testing.assert_allclose(mapped[:, 0, 0, 0], streamed.batches[:, 0, 0, 0], rtol=1e-6)
    off = ((streamed.batches - mapped) / streamed.mass).reshape(len(mapped), -1)[:, 1:]
    expected = voxel_size_error(energy_batches.sum(axis=0), grid, degree).ravel()[1:]
    error = off.std(axis=0, ddof=1) / np.sqrt(len(off))
    return (off.mean(axis=0) - expected) / error
