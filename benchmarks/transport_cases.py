"""Pairs of dose maps for the speed and accuracy table of the transport distances.

A target with a 6 mm penumbra over a broad bath, or a field with a distal edge, in a cube of 256 mm.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.special import erf

from dosemover.dose import DoseMap
from dosemover.grid import Grid

SIDE_MM = 256.0


def cube(n: int | tuple[int, int, int]) -> Grid:
    """Voxels of a cube of 256 mm around the origin."""
    shape = (n, n, n) if isinstance(n, int) else n
    edges = [np.linspace(-SIDE_MM / 2, SIDE_MM / 2, m + 1) for m in shape]
    return Grid(z_edges_mm=edges[0], y_edges_mm=edges[1], x_edges_mm=edges[2])


def _axes(grid: Grid, shift: tuple[float, float, float]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Coordinates (x, y, z) that broadcast to [z, y, x], shifted."""
    z, y, x = grid.centers_mm
    return x - shift[0], (y - shift[1])[:, None], (z - shift[2])[:, None, None]


def _slab(x: np.ndarray, low: float, high: float, blur: float) -> np.ndarray:
    """Blurred interval."""
    return (erf((x - low) / (blur * 2**0.5)) - erf((x - high) / (blur * 2**0.5))) / 2


def target(grid: Grid, shift: tuple[float, float, float] = (0, 0, 0), blur: float = 3.6) -> np.ndarray:
    """Ellipsoidal plateau over a Gaussian bath."""
    x, y, z = _axes(grid, shift)
    r = np.sqrt((x / 0.9) ** 2 + (y / 0.8) ** 2 + z**2)
    bath = np.exp(-((x / 45) ** 2 + (y / 60) ** 2 + (z / 70) ** 2) / 2)
    return 0.4 * (1 - erf((r - 50) / (blur * 2**0.5))) + 0.2 * bath


def beam(grid: Grid, longer_mm: float) -> np.ndarray:
    """Field along z with a sharp distal edge, longer by some mm on one half."""
    x, y, z = _axes(grid, (0, 0, 0))
    end = 30 + longer_mm / 2 * (1 + erf(y / 4))
    rise = np.where(z < end - 40, 0.55 + 0.45 * np.exp(np.minimum(z - end + 40, 0) / 40), 1.0)
    depth = rise * (1 - erf((z - end) / (2.5 * 2**0.5))) / 2
    return depth * _slab(y, -40, 40, 4) * _slab(x, -30, 30, 4)


def ball(grid: Grid, radius_mm: float) -> np.ndarray:
    """Hot spot beside the middle."""
    x, y, z = _axes(grid, (-8, 0, 10))
    return (1 - erf((np.sqrt(x**2 + y**2 + z**2) - radius_mm) / 1.5)) / 2


def field(grid: Grid, center: tuple[float, float, float]) -> np.ndarray:
    """Cubic field of 50 mm."""
    x, y, z = _axes(grid, center)
    return _slab(x, -25, 25, 4) * _slab(y, -25, 25, 4) * _slab(z, -25, 25, 4)


def noisy(dose: np.ndarray, relative: float, rng: np.random.Generator) -> np.ndarray:
    """White noise whose variance is proportional to the dose, cut at zero."""
    return np.maximum(dose + relative * np.sqrt(dose) * rng.standard_normal(dose.shape), 0)


def _shifted(grid: Grid, mm: float) -> tuple[np.ndarray, np.ndarray]:
    step = mm / 3**0.5
    return target(grid), target(grid, (step, step, step))


def _noisy_shift(grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    a, b = _shifted(grid, 1.0)
    return noisy(a, 0.02, rng), noisy(b, 0.02, rng)


def _noise(grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    rng, a = np.random.default_rng(1), target(grid)
    return noisy(a, 0.05, rng), noisy(a, 0.05, rng)


def _body(grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    x, y, z = _axes(grid, (0, 0, 0))
    inside = (z / 95) ** 2 + (y / 80) ** 2 + (x / 100) ** 2 < 1
    a, b = _shifted(grid, 1.0)
    return a * inside, b * inside


def _split(grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    a = field(grid, (0, 0, 0))
    b = field(grid, (0, 30, -70)) + field(grid, (20, -20, 70))
    return a, b * (a.sum() / b.sum())


CASES: dict[str, Callable[[Grid], tuple[np.ndarray, np.ndarray]]] = {
    "shift 1 mm": lambda g: _shifted(g, 1.0),
    "shift 3 mm": lambda g: _shifted(g, 3.0),
    "shift 10 mm": lambda g: _shifted(g, 10.0),
    "hot spot": lambda g: (target(g), target(g) + 0.3 * ball(g, 10)),
    "output +2 %": lambda g: (target(g), 1.02 * target(g)),
    "bath +1 %": lambda g: (target(g), target(g) + 0.01),
    "zeros outside": _body,
    "range 3 mm": lambda g: (beam(g, 0.0), beam(g, 3.0)),
    "shift, noise 2 %": _noisy_shift,
    "noise 5 %": _noise,
    "one field to two": _split,
}


def pair(name: str, n: int | tuple[int, int, int]) -> tuple[DoseMap, DoseMap]:
    """Reference and evaluated map of a case."""
    grid = cube(n)
    a, b = CASES[name](grid)
    return DoseMap(dose_gy=a, grid=grid), DoseMap(dose_gy=b, grid=grid)
