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
    """Both measures as atoms at the centres of a grid's voxels, masses in units of the reference's.

    ``sharing`` holds what shared the voxels' masses between the centres along each axis, where it was shared.
    """

    a: NDArray[np.float64]
    b: NDArray[np.float64]
    centers: Centers
    sharing: list[csr_array | None]
    log_a: NDArray[np.float64] = field(init=False)
    log_b: NDArray[np.float64] = field(init=False)

    def __post_init__(self) -> None:
        with np.errstate(divide="ignore"):
            self.log_a, self.log_b = np.log(self.a), np.log(self.b)

    def at_voxels(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Derivatives with respect to the voxels' masses from those with respect to the atoms'."""
        for axis, matrix in enumerate(self.sharing):
            values = values if matrix is None else _along(matrix.T.tocsr(), values, axis)
        return values


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
    centers: list[NDArray[np.float64]] = []
    sharing: list[csr_array | None] = []
    for axis, middles in enumerate(middles_of(grid)):
        nodes, matrix = middles, None
        n = int(np.ceil((middles[-1] - middles[0]) / width)) + 1
        if n < middles.size and n > 1:
            nodes = np.linspace(middles[0], middles[-1], n)
            matrix = _shared(middles, nodes)
            a, b = (_along(matrix, m, axis) for m in (a, b))
        centers.append(nodes)
        sharing.append(matrix)
    return Level(a=a, b=b, centers=(centers[0], centers[1], centers[2]), sharing=sharing)


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

    def slope(self, p: Potentials, sigma: float) -> NDArray[np.float64]:
        """Derivative of S with respect to b [mm^2]; balanced, up to a constant."""
        if self.reach is None:
            return p.ba - p.bb
        rho = self.reach**2
        return (rho + sigma**2) * np.exp(-p.bb / rho) * -np.expm1((p.bb - p.ba) / rho)

    def slope_at(
        self, outputs: Centers, p: Potentials, level: Level, grid: Grid, sigma: float
    ) -> NDArray[np.float64]:
        """The same at the voxels of a grid with the middles ``outputs``, which ``grid`` is a part of.

        Inside, of the number itself: of atoms shared between the nodes. Around it, where there is no dose,
        of potentials continued there.
        """
        found = self.slope(self.step(p, level, outputs, sigma), sigma)
        inside = tuple(
            slice(start, start + n)
            for start, n in zip(
                (int(np.searchsorted(o, m[0])) for o, m in zip(outputs, middles_of(grid), strict=True)),
                grid.shape,
                strict=True,
            )
        )
        found[inside] = level.at_voxels(self.slope(p, sigma))
        return found


def _average(p: Potentials, q: Potentials) -> Potentials:
    """Mean of old and new potentials."""
    return Potentials(ab=(p.ab + q.ab) / 2, ba=(p.ba + q.ba) / 2, aa=(p.aa + q.aa) / 2, bb=(p.bb + q.bb) / 2)


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


def _remaining(changes: NDArray[np.float64]) -> float:
    """What further steps would add: the largest of the last changes, at the rate at which they fall."""
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
    """The divergence, its derivative with respect to b where it is asked for, and how the iteration ended."""

    slope: NDArray[np.float64] | None
    divergence: float
    n_iterations: int
    rest: float
    converged: bool
    interrupted: bool


@dataclass(kw_only=True, eq=False)
class _Watch:
    """Judges when the divergence stands, and the potentials where derivatives are asked for.

    The divergence is stationary in the potentials: it stands while they are known to its root only.
    """

    tolerance: float
    floor: float
    derivatives: bool
    values: list[float] = field(default_factory=list)
    settled: bool = False
    _own: float = np.inf
    _steps: list[float] = field(default_factory=list)
    _spread: float = 0.0

    def note(self, value: float, level: Level, old: Potentials, new: Potentials) -> None:
        """Take the divergence after a step, and the potentials before and after it."""
        self.values.append(value)
        last, self._own = self._own, float(np.sum(level.a * new.aa) + np.sum(level.b * new.bb))
        settled = abs(self._own - last) <= _SETTLED * self.tolerance * abs(value)
        if self.derivatives:
            own = max(_size(level.a, new.aa - old.aa), _size(level.b, new.bb - old.bb))
            self._spread = self.tolerance * _size(level.b, new.ba - new.bb) + self.floor
            self._steps.append(max(own, _size(level.b, new.ba - old.ba)))
            settled &= own <= _SETTLED * self._spread
        self.settled |= settled

    @property
    def rest(self) -> float:
        """What the divergence may still change by [mm^2]."""
        return _remaining(np.abs(np.diff(self.values)))

    @property
    def converged(self) -> bool:
        """Whether what is asked for stands."""
        if self.derivatives and _remaining(np.array(self._steps)) > self._spread:
            return False
        return len(self.values) > 0 and self.rest <= self.tolerance * abs(self.values[-1]) + self.floor


def _size(masses: NDArray[np.float64], values: NDArray[np.float64]) -> float:
    """Root mean square under a measure."""
    return float(np.sqrt(np.vdot(masses, np.square(values)) / masses.sum()))


def _annealed(
    pair: MeasurePair, blurs: list[float], solver: Solver, progress: Progress
) -> tuple[Potentials, Level]:
    """Potentials for the last blur from all wider ones, on ever finer nodes."""
    a, b = pair.a * pair.grid.voxel_volume_mm3, pair.b * pair.grid.voxel_volume_mm3
    level = _level(a, b, pair.grid, blurs[0] / 2)
    zeros = np.zeros(level.a.shape)
    p = solver.step(Potentials(ab=zeros, ba=zeros, aa=zeros, bb=zeros), level, level.centers, blurs[0])
    for i, sigma in enumerate(blurs[:-1]):
        p = _average(p, solver.step(p, level, level.centers, sigma))
        finer = _level(a, b, pair.grid, blurs[i + 1] / 2)
        if finer.a.shape != level.a.shape:
            p = solver.step(p, level, finer.centers, sigma)
            level = finer
        progress("Sinkhorn divergence", i / len(blurs) / 2)
    return p, level


def solve(
    pair: MeasurePair,
    outputs: Centers | None,
    *,
    pool: ThreadPoolExecutor,
    settings: Settings,
    progress: Progress,
) -> Outcome:
    """Anneal the blur on ever finer nodes, then iterate at the last one until the divergence stands.

    An interrupt at the last blur keeps the divergence so far. Where ``outputs`` are given, the potentials
    are iterated until they stand as well, and the derivative is told there.
    """
    blur, most = settings.blur_mm, settings.max_iterations
    extent = float(np.sqrt(sum((e[-1] - e[0]) ** 2 for e in pair.grid.edges_mm)))
    blurs = _blurs(blur, extent)
    solver = Solver(settings.reach_mm, pool)
    p, level = _annealed(pair, blurs, solver, progress)
    watch = _Watch(tolerance=settings.tolerance, floor=1e-12 * extent**2, derivatives=outputs is not None)
    anderson = Anderson(np.stack([level.a, level.b]), _MEMORY if blur >= widest_of(pair.grid) / 2 else 0)
    interrupted = False
    try:
        while len(watch.values) < most and not watch.converged:
            new = _average(p, solver.step(p, level, level.centers, blur, settled=watch.settled))
            mixed = anderson.next(np.stack([p.ab, p.ba]), np.stack([new.ab, new.ba]))
            old, p = p, replace(new, ab=mixed[0], ba=mixed[1])
            watch.note(solver.divergence(p, level, blur), level, old, p)
            progress("Sinkhorn divergence", 0.5 + len(watch.values) / most / 2)
    except KeyboardInterrupt:
        if not watch.values:
            raise
        interrupted = True
    return Outcome(
        slope=None if outputs is None else solver.slope_at(outputs, p, level, pair.grid, blur),
        divergence=watch.values[-1],
        n_iterations=len(blurs) - 1 + len(watch.values),
        rest=watch.rest,
        converged=watch.converged,
        interrupted=interrupted,
    )


def widest_of(grid: Grid) -> float:
    """Width of the widest voxel along axes with more than one [mm]."""
    return max((float(grid.widths_mm[axis].max()) for axis in grid.extended_axes), default=0.0)
