"""What the flat norm and W_1 share: their maps, the solve on the box of the difference, the result."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dosemover._runtime import Progress
from dosemover.errors import InputError
from dosemover.grid import Grid
from dosemover.transport.flat_norm_bounds import Bounds
from dosemover.transport.measure import MeasurePair, checked_pair
from dosemover.transport.result import TransportResult

_BYTES_PER_VOXEL = 240
"""Peak memory on the grid, beside both maps."""

flat_norm_pair = partial(
    checked_pair,
    what="the flat norm",
    bytes_per_voxel=_BYTES_PER_VOXEL,
    consequence="the flat norm will report gain or loss above all",
)
w1_pair = partial(checked_pair, what="W_1", bytes_per_voxel=_BYTES_PER_VOXEL)


def check_settings(tolerance: float, max_iterations: int, reach_mm: float | None = None) -> None:
    """Refuse settings without meaning."""
    if reach_mm is not None and not (np.isfinite(reach_mm) and reach_mm > 0):
        raise InputError(
            f"`reach_mm` must be positive and finite, got {reach_mm}. It is the longest way that dose may "
            "travel before gain and loss are cheaper. Pass 10 mm, or call `wasserstein_1` for no limit."
        )
    if not 0 < tolerance < 1:
        raise InputError(f"`tolerance` must lie between 0 and 1, got {tolerance}. Pass 0.01 for 1 %.")
    if max_iterations < 0:
        raise InputError(f"`max_iterations` must not be negative, got {max_iterations}. Pass 2000.")


@dataclass(frozen=True, kw_only=True, eq=False)
class Solved:
    """Bounds on the box of the difference, with a margin of one voxel that leaves them unchanged."""

    pair: MeasurePair
    cut: tuple[slice, slice, slice]
    grid: Grid
    bounds: Bounds | None

    def _padding(self) -> list[tuple[int, int]]:
        """Voxels of the pair's grid before and after the box along each axis."""
        ends = zip(self.cut, self.pair.grid.shape, strict=True)
        return [(one.start, n - one.stop) for one, n in ends]

    def potential(self) -> NDArray[np.float64]:
        """Voxel means of the optimal test function f [mm], continued constantly outside the box."""
        from dosemover.transport.flat_norm_mesh import Mesh

        if self.bounds is None:
            return np.zeros(self.pair.grid.shape)
        mesh = Mesh.of(self.pair.grid)
        smooth = self.bounds.spline > self.bounds.trilinear
        best = self.bounds.coefficients if smooth else self.bounds.potential
        f = np.pad(best.astype(np.float64), self._padding(), mode="edge")
        return mesh.spline_means(f) if smooth else mesh.voxel_means(f)

    def outside(self, values: NDArray[Any]) -> NDArray[Any]:
        """Values on the box, 0 around it."""
        leading = [(0, 0)] * (values.ndim - 3)
        return np.pad(values, [*leading, *self._padding()])


def solve_difference(
    pair: MeasurePair, density: NDArray[np.float64], half_reach: float, **settings: Any
) -> Solved:
    """Crop to the difference and enclose its norm; no bounds where there is none."""
    from dosemover.transport.flat_norm_multilevel import solve

    different = density != 0
    slices = []
    for axis, n in enumerate(density.shape):
        hits = np.flatnonzero(different.any(axis=tuple(i for i in range(3) if i != axis)))
        slices.append(
            slice(max(int(hits[0]) - 1, 0), min(int(hits[-1]) + 2, n)) if hits.size else slice(0, n)
        )
    cut = (slices[0], slices[1], slices[2])
    grid = pair.grid.crop(cut)
    if not different.any():
        return Solved(pair=pair, cut=cut, grid=grid, bounds=None)
    bounds = solve(grid, np.ascontiguousarray(density[cut]), half_reach=half_reach, **settings)
    return Solved(pair=pair, cut=cut, grid=grid, bounds=bounds)


def _flow_fields(solved: Solved) -> dict[str, NDArray[Any]]:
    """Flow of dose in mm (over the reference maximum) and gain or loss of dose in Gy, per voxel."""
    shape = solved.pair.grid.shape
    if solved.bounds is None:
        zero = np.zeros(shape, np.float32)
        return {"flow_mm": np.zeros((3, *shape), np.float32), "gain_loss_gy": zero}
    volume = solved.grid.voxel_volume_mm3
    flow = np.empty((3, *solved.grid.shape), np.float32)
    for axis in range(3):
        through = solved.bounds.flow[axis]
        mean = through.copy()
        later = (slice(None),) * axis + (slice(1, None),)
        mean[later] += through[(slice(None),) * axis + (slice(0, -1),)]
        width = solved.grid.widths_mm[axis].reshape([-1 if i == axis else 1 for i in range(3)])
        flow[2 - axis] = mean / 2 * width / volume
    flow /= np.float32(solved.pair.a.max())
    gain = (-solved.bounds.gain_loss / volume).astype(np.float32)
    return {"flow_mm": solved.outside(flow), "gain_loss_gy": solved.outside(gain)}


def value_of(bounds: Bounds | None, tolerance: float) -> float:
    """Middle of the continuum's interval where that is narrow, else of the solver's, if inside the former."""
    if bounds is None:
        return 0.0
    if bounds.closed(tolerance):
        return (bounds.lower + bounds.upper) / 2
    return min(max(sum(bounds.solver) / 2, bounds.lower), bounds.upper)


def _status(bounds: Bounds, tolerance: float) -> str:
    """What a reader must know."""
    lower, upper = bounds.solver
    width = min(1 - lower / upper, bounds.gap)
    if bounds.interrupted:
        return f"interrupted: the interval holds, and is {100 * width:.2g} % wide for the solver"
    if width > tolerance:
        return (
            f"not converged after {bounds.n_iterations} iterations: the interval holds, and is "
            f"{100 * width:.2g} % wide for the solver; raise `max_iterations`"
        )
    return "ok"


def result_of(
    solved: Solved, *, unit: float, parts: dict[str, float], settings: dict[str, Any]
) -> TransportResult:
    """Result in mm, ``unit`` one over the mass that the cost is divided by."""
    fields = _flow_fields(solved)
    bounds = solved.bounds
    if bounds is None:
        return TransportResult(
            value=0.0,
            lower=0.0,
            upper=0.0,
            grid=solved.pair.grid,
            parts=parts,
            fields=fields,
            settings=settings | {"solver_lower_mm": 0.0, "solver_upper_mm": 0.0},
        )
    closed = bounds.closed(settings["tolerance"])
    lower, upper = (bounds.lower, bounds.upper) if closed else bounds.solver
    return TransportResult(
        value=value_of(bounds, settings["tolerance"]) * unit,
        lower=bounds.lower * unit,
        upper=bounds.upper * unit,
        grid=solved.pair.grid,
        parts=parts,
        fields=fields,
        settings=settings | {"solver_lower_mm": lower * unit, "solver_upper_mm": upper * unit},
        n_iterations=bounds.n_iterations,
        status=_status(bounds, settings["tolerance"]),
    )


def solve_balanced(pair: MeasurePair, tolerance: float, max_iterations: int, progress: Progress) -> Solved:
    """Bounds of W_1 between the normalised maps."""
    a, b = pair.a / pair.reference_mass, pair.b / pair.evaluated_mass
    density = a - b
    density[np.abs(density) <= 4 * np.finfo(np.float64).eps * (a + b)] = 0.0  # one map is a multiple
    return solve_difference(
        MeasurePair(a=a, b=b, grid=pair.grid),
        density,
        np.inf,
        tolerance=tolerance,
        max_iterations=max_iterations,
        progress=progress,
    )
