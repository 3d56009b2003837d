"""Dose maps that the transport tests share."""

from __future__ import annotations

import numpy as np

from dosemover.dose import DoseMap
from dosemover.grid import Grid


def line_map(values, edges) -> DoseMap:
    """A 1-D map along x between given voxel boundaries."""
    grid = Grid(x_edges_mm=np.asarray(edges, dtype=float), y_edges_mm=[0.0, 1.0], z_edges_mm=[0.0, 1.0])
    return DoseMap(dose_gy=np.asarray(values, dtype=float).reshape(1, 1, -1), grid=grid)


def box_map(shape, spacing_mm, low, high, origin_mm=(0.0, 0.0, 0.0)) -> DoseMap:
    """Dose 1 Gy in voxels ``low`` (inclusive) to ``high`` (exclusive), indices (z, y, x)."""
    dose = np.zeros(shape)
    dose[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = 1.0
    return DoseMap.from_array(dose, spacing_mm=spacing_mm, origin_mm=origin_mm)


def uneven_grid(seed=0, shape=(5, 6, 7)) -> Grid:
    """Voxel boundaries that are uneven along every axis."""
    rng = np.random.default_rng(seed)
    z, y, x = (np.cumsum(np.append(0.0, rng.uniform(0.5, 3.0, n))) for n in shape)
    return Grid(z_edges_mm=z, y_edges_mm=y, x_edges_mm=x)


def random_pair(seed=0, grid=None):
    """Two random maps on one grid, with zeros."""
    rng = np.random.default_rng(seed)
    where = Grid.regular(shape=(5, 6, 7), spacing_mm=(2.0, 2.5, 3.0)) if grid is None else grid
    a, b = (rng.random(where.shape) * (rng.random(where.shape) > 0.3) for _ in range(2))
    a.flat[0] = b.flat[-1] = 1.0
    return DoseMap(dose_gy=a, grid=where), DoseMap(dose_gy=b, grid=where)


def gaussian_pair(n=24, spacing=2.0, shift=(1.0, -0.5, 0.7), sigma=8.0):
    """A Gaussian and its translation by ``shift`` (x, y, z) [mm], both well inside the box."""
    x = (np.arange(n) - (n - 1) / 2) * spacing

    def blob(d):
        parts = [np.exp(-((x - one) ** 2) / (2 * sigma**2)) for one in d]
        return np.einsum("i,j,k->kji", *parts)

    maps = [DoseMap.from_array(blob(d), spacing_mm=(spacing,) * 3) for d in ((0, 0, 0), shift)]
    return maps[0], maps[1]
