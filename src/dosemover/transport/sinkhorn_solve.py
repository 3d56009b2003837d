"""The iteration of the Sinkhorn divergence: annealed blur, nodes as coarse as it allows, acceleration."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from dosemover._runtime import Progress
from dosemover.errors import InputError
from dosemover.grid import Grid
from dosemover.transport.log_convolution import Centers, soft_minimum
from dosemover.transport.measure import MeasurePair

_SCALING = 0.9
"""Factor from one blur to the next on the way down."""

_SETTLED = 0.01
"""Change of the measures' own terms over the tolerance from which on their potentials are kept."""

_MEMORY = 6
"""Iterates that the acceleration at the last blur combines; none where atoms show: it would not settle."""


@dataclass(kw_only=True, eq=False)
class Level:
    """Both measures as atoms at the centres of a grid's voxels, masses in units of the reference's."""

    a: NDArray[np.float64]
    b: NDArray[np.float64]
    centers: Centers
    log_a: NDArray[np.float64] = field(init=False)
    log_b: NDArray[np.float64] = field(init=False)

    def __post_init__(self) -> None:
        with np.errstate(divide="ignore"):
            self.log_a, self.log_b = np.log(self.a), np.log(self.b)


@dataclass(kw_only=True, eq=False)
class Potentials:
    """Potentials [mm^2] at cost |x-y|^2 / 2: of a against b, b against a, a and b against themselves."""

    ab: NDArray[np.float64]
    ba: NDArray[np.float64]
    aa: NDArray[np.float64]
    bb: NDArray[np.float64]


def middles_of(grid: Grid) -> Centers:
    """Middles of the voxels (z, y, x) [mm]."""
    z, y, x = ((e[1:] + e[:-1]) / 2 for e in grid.edges_mm)
    return z, y, x


def _shared(points: NDArray[Any], nodes: NDArray[Any]) -> csr_array:
    """Linear sharing of masses at ``points`` between the nodes beside them: total and mean are kept."""
    high = np.clip(np.searchsorted(nodes, points, side="right"), 1, nodes.size - 1)
    weight = (points - nodes[high - 1]) / (nodes[high] - nodes[high - 1])
    columns = np.arange(points.size)
    entries = (np.concatenate([high - 1, high]), np.concatenate([columns, columns]))
    return csr_array((np.concatenate([1 - weight, weight]), entries), shape=(nodes.size, points.size))


def _level(a: NDArray[Any], b: NDArray[Any], grid: Grid, width: float) -> Level:
    """Atoms at the voxels' middles, or shared between nodes ``width`` apart where that is fewer."""
    centers = []
    for axis, middles in enumerate(middles_of(grid)):
        nodes = middles
        n = int(np.ceil((middles[-1] - middles[0]) / width)) + 1
        if n < middles.size and n > 1:
            nodes = np.linspace(middles[0], middles[-1], n)
            matrix = _shared(middles, nodes)
            a, b = (_along(matrix, m, axis) for m in (a, b))
        centers.append(nodes)
    return Level(a=a, b=b, centers=(centers[0], centers[1], centers[2]))


def _along(matrix: csr_array, values: NDArray[Any], axis: int) -> NDArray[np.float64]:
    """Apply a sparse matrix along one axis."""
    moved = np.moveaxis(values, axis, 0)
    product = matrix @ moved.reshape(moved.shape[0], -1)
    return np.ascontiguousarray(np.moveaxis(product.reshape(-1, *moved.shape[1:]), 0, axis))


class Solver:
    """Averaged Sinkhorn iterations on all four potentials at once."""

    def __init__(self, reach: float | None, pool: ThreadPoolExecutor) -> None:
        self.reach = reach
        self.pool = pool

    def step(
        self, p: Potentials, level: Level, outputs: Centers, sigma: float, *, settled: bool = False
    ) -> Potentials:
        """New potentials at ``outputs`` from those on the level's nodes; ``settled``: aa and bb stay."""
        damping = 1.0 if self.reach is None else 1.0 / (1.0 + (sigma / self.reach) ** 2)

        def update(potential: NDArray[Any], log_mass: NDArray[Any]) -> NDArray[Any]:
            exponents = potential / sigma**2 + log_mass
            return damping * soft_minimum(
                exponents, outputs=outputs, sources=level.centers, sigma=sigma, pool=self.pool
            )

        return Potentials(
            ab=update(p.ba, level.log_b),
            ba=update(p.ab, level.log_a),
            aa=p.aa if settled else update(p.aa, level.log_a),
            bb=p.bb if settled else update(p.bb, level.log_b),
        )

    def divergence(self, p: Potentials, level: Level, sigma: float) -> float:
        """S at cost |x-y|^2 / 2 [mm^2], from the potentials."""
        a, b = level.a, level.b
        if self.reach is None:
            return float(np.sum(a * (p.ab - p.aa)) + np.sum(b * (p.ba - p.bb)))
        rho = self.reach**2
        change_a = np.exp(-p.aa / rho) * -np.expm1((p.aa - p.ab) / rho)
        change_b = np.exp(-p.bb / rho) * -np.expm1((p.bb - p.ba) / rho)
        return (rho + sigma**2 / 2) * float(np.sum(a * change_a) + np.sum(b * change_b))


def _average(p: Potentials, q: Potentials) -> Potentials:
    """Mean of old and new potentials."""
    return Potentials(ab=(p.ab + q.ab) / 2, ba=(p.ba + q.ba) / 2, aa=(p.aa + q.aa) / 2, bb=(p.bb + q.bb) / 2)


def _own_terms(p: Potentials, level: Level) -> float:
    """Sum of the potentials of both measures against themselves: it settles sooner than the divergence."""
    return float(np.sum(level.a * p.aa) + np.sum(level.b * p.bb))


def _blurs(blur: float, extent: float) -> list[float]:
    """Blurs from the extent of the maps down to ``blur``."""
    n = max(0, int(np.ceil(np.log(extent / blur) / -np.log(_SCALING))))
    return [blur * _SCALING**-k for k in range(n, 0, -1)] + [blur]


class Anderson:
    """Anderson acceleration of the fixed-point iteration of one pair of potentials.

    The next iterate is the combination of the last ones that would cancel the residual if it were linear, in
    the norm weighted with the masses; forgotten where the residual grows.
    """

    def __init__(self, masses: NDArray[np.float64], memory: int) -> None:
        self._root = np.sqrt(masses)
        self._memory = memory
        self._x: list[NDArray[np.float64]] = []
        self._r: list[NDArray[np.float64]] = []
        self._sizes: list[float] = []

    def next(self, x: NDArray[np.float64], fixed: NDArray[np.float64]) -> NDArray[np.float64]:
        """Next iterate from x and its image under the plain iteration."""
        if self._memory == 0:
            return fixed
        r = fixed - x
        size = float(np.linalg.norm(self._root * r))
        if self._sizes and size > 2 * min(self._sizes[-self._memory :]):
            self._x, self._r = [], []
        self._sizes.append(size)
        self._x, self._r = [*self._x[-self._memory :], x], [*self._r[-self._memory :], r]
        if len(self._r) < 2 or size == 0.0:
            return fixed
        steps = [self._root * (r - old) for old in self._r[:-1]]
        gram = np.array([[np.vdot(p, q) for q in steps] for p in steps])
        gram += np.eye(len(steps)) * 1e-12 * np.trace(gram)
        target = np.array([np.vdot(p, self._root * r) for p in steps])
        weights = np.linalg.lstsq(gram, target, rcond=None)[0]
        for weight, old_x, old_r in zip(weights, self._x[:-1], self._r[:-1], strict=True):
            fixed = fixed - weight * ((x - old_x) + (r - old_r))
        return fixed


def _rest(values: list[float]) -> float:
    """What further steps would add: the largest of the last changes, at the rate at which they fall."""
    changes = np.abs(np.diff(values))
    if changes.size < 6:
        return np.inf
    last, before = float(changes[-3:].max()), float(changes[-6:-3].max())
    ratio = (last / before) ** (1 / 3) if before > 0 else 0.0
    return last / (1 - ratio) if ratio < 1 else np.inf


@dataclass(frozen=True, kw_only=True, eq=False)
class Settings:
    """Settings of the divergence, checked."""

    blur_mm: float
    reach_mm: float | None
    tolerance: float
    max_iterations: int

    def __post_init__(self) -> None:
        for name in ("blur_mm", "reach_mm", "tolerance"):
            number = getattr(self, name)
            if number is not None and not (np.isfinite(number) and number > 0):
                raise InputError(
                    f"`{name}` must be positive, got {number}. The divergence is not defined without it. "
                    "Pass a length in mm, such as 5 (a tolerance: 1e-3)."
                )
        if self.max_iterations < 7:
            raise InputError(
                f"`max_iterations` must be at least 7, got {self.max_iterations}. Convergence is judged "
                "from the last seven values."
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
    """Potentials at the last blur and how the iteration ended."""

    potentials: Potentials | None
    divergence: float
    n_iterations: int
    rest: float
    converged: bool
    interrupted: bool


def solve(
    pair: MeasurePair,
    outputs: Centers | None,
    *,
    pool: ThreadPoolExecutor,
    settings: Settings,
    progress: Progress,
) -> Outcome:
    """Anneal the blur on ever finer nodes, then iterate at the last one until the divergence stands.

    An interrupt at the last blur keeps the divergence so far. Potentials are brought to ``outputs``.
    """
    blur, reach, tolerance = settings.blur_mm, settings.reach_mm, settings.tolerance
    max_iterations = settings.max_iterations
    a, b = pair.a * pair.grid.voxel_volume_mm3, pair.b * pair.grid.voxel_volume_mm3
    extent = float(np.sqrt(sum((e[-1] - e[0]) ** 2 for e in pair.grid.edges_mm)))
    blurs = _blurs(blur, extent)
    level = _level(a, b, pair.grid, blurs[0] / 2)
    solver = Solver(reach, pool)
    zeros = np.zeros(level.a.shape)
    p = solver.step(Potentials(ab=zeros, ba=zeros, aa=zeros, bb=zeros), level, level.centers, blurs[0])
    for i, sigma in enumerate(blurs[:-1]):
        p = _average(p, solver.step(p, level, level.centers, sigma))
        finer = _level(a, b, pair.grid, blurs[i + 1] / 2)
        if finer.a.shape != level.a.shape:
            p = solver.step(p, level, finer.centers, sigma)
            level = finer
        progress("Sinkhorn divergence", i / len(blurs) / 2)
    values: list[float] = []
    converged = settled = interrupted = False
    own = np.inf
    anderson = Anderson(np.stack([level.a, level.b]), _MEMORY if blur >= widest_of(pair.grid) / 2 else 0)
    try:
        while len(values) < max_iterations and not converged:
            new = _average(p, solver.step(p, level, level.centers, blur, settled=settled))
            mixed = anderson.next(np.stack([p.ab, p.ba]), np.stack([new.ab, new.ba]))
            p = replace(new, ab=mixed[0], ba=mixed[1])
            values.append(solver.divergence(p, level, blur))
            last, own = own, _own_terms(p, level)
            settled = settled or abs(own - last) <= _SETTLED * tolerance * abs(values[-1])
            converged = _rest(values) <= tolerance * abs(values[-1]) + 1e-12 * extent**2
            progress("Sinkhorn divergence", 0.5 + len(values) / max_iterations / 2)
    except KeyboardInterrupt:
        if not values:
            raise
        interrupted = True
    return Outcome(
        potentials=None if outputs is None else solver.step(p, level, outputs, blur),
        divergence=values[-1],
        n_iterations=len(blurs) - 1 + len(values),
        rest=_rest(values),
        converged=converged,
        interrupted=interrupted,
    )


def widest_of(grid: Grid) -> float:
    """Width of the widest voxel along axes with more than one [mm]."""
    return max((float(grid.widths_mm[axis].max()) for axis in grid.extended_axes), default=0.0)
