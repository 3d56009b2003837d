"""Certified intervals of maps on different voxels: ``python benchmarks/transport_grids.py``.

A field of 100 mm with a penumbra, moved by 1.4 mm along the diagonal, each map on voxels of its own: the
table of "Maps on different voxels" in docs/transport.md. CPU seconds include compilation in the first rows.
"""

from __future__ import annotations

import time
import warnings

import numpy as np
from scipy.special import erf

from dosemover.dose import DoseMap
from dosemover.grid import Grid, conserve
from dosemover.transport import dose_movers_distance, wasserstein_2

SIDE_MM, HALF_FIELD_MM, BLUR_MM = 192.0, 50.0, 6.0
STEP_MM = 1.4 / 3**0.5


def cube(spacing_mm: float, offset_mm: float = 0.0) -> Grid:
    """Voxels of a cube around a point beside the origin."""
    n = round(SIDE_MM / spacing_mm)
    edges = offset_mm + spacing_mm * (np.arange(n + 1) - n / 2)
    return Grid(z_edges_mm=edges, y_edges_mm=edges, x_edges_mm=edges)


def field(grid: Grid, step_mm: float) -> DoseMap:
    """Blurred cubic field."""

    def slab(x: np.ndarray) -> np.ndarray:
        ends = [erf((x - step_mm + side * HALF_FIELD_MM) / (BLUR_MM * 2**0.5)) for side in (1, -1)]
        return (ends[0] - ends[1]) / 2

    z, y, x = (slab(np.asarray(c)) for c in grid.centers_mm)
    return DoseMap(dose_gy=z[:, None, None] * y[:, None] * x, grid=grid)


def on(dose: DoseMap, grid: Grid) -> DoseMap:
    """The same density on other voxels."""
    values = conserve(np.asarray(dose.dose_gy), source=dose.grid, target=grid)
    return DoseMap(dose_gy=values, grid=grid)


def main() -> None:
    """Print the table."""
    warnings.simplefilter("ignore")
    six, four = field(cube(6), 0.0), field(cube(4), STEP_MM)
    pairs = {
        "6 and 4 mm, on their pieces": (six, four),
        "the same on 2 mm voxels": (on(six, cube(2)), on(four, cube(2))),
        "4 and 4 mm, offset half a voxel": (field(cube(4), 0.0), field(cube(4, 2.0), STEP_MM)),
        "4 and 4 mm, offset an eighth": (field(cube(4), 0.0), field(cube(4, 0.5), STEP_MM)),
    }
    for name, (reference, evaluated) in pairs.items():
        for distance in (dose_movers_distance, wasserstein_2):
            start = time.process_time()
            found = distance(reference=reference, evaluated=evaluated)
            gap = 100 * (found.gap or 0.0)
            print(
                f"{name:34} {distance.__name__:22} {found.grid.n_voxels:8} {found.value:8.4f} {gap:6.2f} %"
                f" {time.process_time() - start:6.1f} CPU-s",
                flush=True,
            )


if __name__ == "__main__":
    main()
