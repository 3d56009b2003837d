"""Hypothesis strategies: grids and dose maps with zeros and hot voxels."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from dosemover.dose import DoseMap
from dosemover.grid import Grid


@st.composite
def grids(draw, max_side: int = 6) -> Grid:
    """Small grids of one to three dimensions, spacings of 0.25 to 5 mm."""
    shape = tuple(draw(st.integers(1, max_side)) for _ in range(3))
    spacing = tuple(draw(st.sampled_from([0.25, 1.0, 2.0, 2.5, 5.0])) for _ in range(3))
    origin = tuple(draw(st.integers(-50, 50)) / 4 for _ in range(3))
    return Grid.regular(shape=shape, spacing_mm=spacing, origin_mm=origin)


@st.composite
def dose_maps(draw, grid: Grid | None = None, max_side: int = 6) -> DoseMap:
    """Dose maps with zeros, a hot voxel, and at least some dose."""
    where = draw(grids(max_side)) if grid is None else grid
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dose = rng.random(where.shape) * (rng.random(where.shape) > draw(st.sampled_from([0.0, 0.3])))
    dose.flat[rng.integers(dose.size)] = draw(st.sampled_from([1.0, 5.0]))
    return DoseMap(dose_gy=dose, grid=where)
