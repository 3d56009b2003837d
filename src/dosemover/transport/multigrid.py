"""A multigrid V-cycle for screened, weighted Poisson problems, and conjugate gradients around it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dosemover.grid import Grid
from dosemover.transport import multigrid_kernels as kernels
from dosemover.transport.slabs import dot, each_slab

_COARSEST = 48
"""Unknowns below which a level is solved by a dense inverse."""

_SHARPEN = 0.275
"""Weight of the filter (1 - g) + g cos(w) that makes seven points resemble quadratic splines."""

_STRICTEST = 1e-9
"""Tolerance of conjugate gradients below which only rounding is solved for."""

_STRICTER = 3.0
"""Factor by which the tolerance shrinks where a solution is not accepted."""

_NEARLY_SINGULAR = 0.02
"""(box / L)^2 below which single precision loses the screening of constants, which are then solved apart."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Level:
    """One grid of the hierarchy: matrix, block factors to the next, and work arrays."""

    w: tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]
    screen: NDArray[np.float32]
    dg: NDArray[np.float32]
    inv: NDArray[np.float32]
    factors: tuple[int, int, int]
    work: tuple[NDArray[np.float32], ...]


def _chebyshev_coefficients(degree: int) -> list[tuple[np.float32, np.float32]]:
    """Coefficients of a Chebyshev smoother for the upper part [0.35, 2] of the Jacobi spectrum."""
    high, low = 2.0, 0.35
    t, d = (high + low) / 2, (high - low) / 2
    s, rho = t / d, d / t
    pairs = [(np.float32(0), np.float32(1 / t))]
    for _ in range(degree - 1):
        new = 1 / (2 * s - rho)
        pairs.append((np.float32(new * rho), np.float32(2 * new / d)))
        rho = new
    return pairs


def _block_factors(widths: list[NDArray[np.float64]]) -> tuple[int, int, int]:
    """Coarsen the axes whose voxels are not much wider than the finest."""
    finest = min(float(np.median(v)) for v in widths if v.size > 1)
    f = tuple(2 if v.size > 1 and float(np.median(v)) < 1.6 * finest else 1 for v in widths)
    return f[0], f[1], f[2]


def _merge(widths: NDArray[np.float64], factor: int) -> NDArray[np.float64]:
    """Widths of blocks of ``factor`` voxels; the last block may be smaller."""
    return np.add.reduceat(widths, np.arange(0, widths.size, factor))


def _supports(widths: list[NDArray[np.float64]]) -> list[NDArray[np.float32]]:
    """Integral of each quadratic B-spline along an axis over the width of its voxel; 1 on even axes."""
    ratios = []
    for axis, v in enumerate(widths):
        mirrored = np.concatenate([v[:1], v, v[-1:]])
        ratio = (mirrored[:-2] + v + mirrored[2:]) / (3 * v)
        ratios.append(ratio.astype(np.float32).reshape([-1 if i == axis else 1 for i in range(3)]))
    return ratios


def _distance_ratio(fine: NDArray[np.float64], coarse: NDArray[np.float64], factor: int) -> NDArray[Any]:
    """Distance between the voxels beside a block face over the distance between the blocks."""
    ratio = np.zeros(coarse.size, np.float32)
    inner = np.arange(coarse.size - 1)
    last = inner * factor + factor - 1
    ratio[:-1] = (fine[last] + fine[last + 1]) / (coarse[:-1] + coarse[1:])
    return ratio


def _elimination(n: int) -> NDArray[np.float32]:
    """Factors of the tridiagonal filter of n voxels with mirrored ends."""
    off = _SHARPEN / 2
    diagonal = np.full(n, 1 - _SHARPEN)
    diagonal[[0, -1]] = 1 - off if n > 1 else 1.0
    factors = np.zeros((3, n), np.float32)
    pivot = diagonal[0]
    factors[1, 0], factors[2, 0] = 1 / pivot, off
    for i in range(1, n):
        factors[0, i] = off / pivot
        pivot = diagonal[i] - off * off / pivot
        factors[1, i] = 1 / pivot
    return factors


class Multigrid:
    r"""Approximate inverse of A u = -div(theta grad u) + theta u / L^2, integrated over voxels.

    One V-cycle in single precision: blocks of two voxels along the axes of finer spacing, Chebyshev-Jacobi
    smoothing, face weights rescaled to the distance between blocks. Odd sizes leave a narrower last block.
    Symmetric and positive: a preconditioner for conjugate gradients.

    Parameters
    ----------
    theta : ndarray, shape grid.shape
        Mobility, positive.
    grid : Grid
    screening : float
        1 / L^2 [1/mm2]; 0 for the pure Neumann problem.
    screen : ndarray, shape grid.shape, optional
        Weight of the screening term; ``theta`` unless given.
    splines : bool
        Precondition the quadratic B-spline discretisation: sharpen residual and correction.

    Notes
    -----
    *Cost*: about 20 passes over the voxels a cycle, 40 bytes a voxel.
    """

    def __init__(
        self,
        theta: NDArray[np.float64],
        grid: Grid,
        *,
        screening: float,
        screen: NDArray[np.float64] | None = None,
        splines: bool = False,
        degree: int = 3,
    ) -> None:
        self.singular = screening == 0.0
        self._coefficients = _chebyshev_coefficients(degree)
        self._filters = [_elimination(n) for n in grid.shape] if splines else None
        widths = [np.asarray(v) for v in grid.widths_mm]
        scale = float(theta.max()) * float(np.mean(grid.voxel_volume_mm3.flat[:1]))
        self._scale = 1.0 / scale
        floor = np.maximum(theta, 1e-12 * float(theta.max()))
        w = tuple(np.empty(grid.shape, np.float32) for _ in range(3))
        each_slab(kernels.faces, grid.shape[0], theta.size, floor * self._scale, *widths, splines, *w)
        weight = floor if screen is None else screen
        extent = max(hi - lo for lo, hi in grid.box_mm)
        self._constant = 0.0
        if 0 < screening * extent**2 < _NEARLY_SINGULAR:
            self._constant = 1 / (screening * float(np.sum(weight * grid.voxel_volume_mm3)))
        screens = (weight * grid.voxel_volume_mm3 * (screening * self._scale)).astype(np.float32)
        if splines and not grid.is_even:  # voxels stand for splines, which reach into their neighbours
            ratios = _supports(widths)
            for axis, ratio in enumerate(ratios):
                screens *= ratio
                for across in (i for i in range(3) if i != axis):
                    w[across][...] *= ratio
        self._levels: list[_Level] = []
        self._build((w[0], w[1], w[2]), screens, widths)
        self._inverse = _dense_inverse(self._levels[-1], screened=self._constant == 0.0)

    def _build(self, w: tuple[Any, Any, Any], screen: NDArray[np.float32], widths: list[Any]) -> None:
        """Add levels until the last is small enough for a dense inverse."""
        while True:
            dg, inv = np.empty_like(screen), np.empty_like(screen)
            each_slab(kernels.diagonal, screen.shape[0], screen.size, *w, screen, dg, inv)
            last = screen.size <= _COARSEST
            factors = (1, 1, 1) if last else _block_factors(widths)
            work = tuple(np.zeros_like(screen) for _ in range(4))
            self._levels.append(_Level(w=w, screen=screen, dg=dg, inv=inv, factors=factors, work=work))
            if last:
                return
            coarse = [_merge(v, f) for v, f in zip(widths, factors, strict=True)]
            shape = tuple(v.size for v in coarse)
            finer = []
            for axis in range(3):
                out = np.empty(shape, np.float32)
                ratio = _distance_ratio(widths[axis], coarse[axis], factors[axis])
                each_slab(kernels.coarse_faces, shape[0], screen.size, w[axis], axis, ratio, *factors, out)
                finer.append(out)
            total = np.empty(shape, np.float32)
            each_slab(kernels.coarse_sum, shape[0], screen.size, screen, *factors, total)
            w, screen, widths = (finer[0], finer[1], finer[2]), total, coarse

    def _cycle(self, index: int, b: NDArray[np.float32]) -> NDArray[np.float32]:
        """One V-cycle from level ``index`` down."""
        level = self._levels[index]
        p, q, d, _ = level.work
        if index == len(self._levels) - 1:
            p[...] = (self._inverse @ b.ravel()).reshape(b.shape)
            return p
        n, size = p.shape[0], p.size
        each_slab(kernels.start, n, size, self._coefficients[0][1], b, level.inv, p, d)
        p, q = self._smooth(level, b, p, q, d, self._coefficients[1:])
        below = self._levels[index + 1]
        rhs = below.work[3]
        each_slab(kernels.restrict, rhs.shape[0], size, p, b, *level.w, level.dg, *level.factors, rhs)
        each_slab(kernels.prolong, n, size, self._cycle(index + 1, rhs), *level.factors, p)
        p, _ = self._smooth(level, b, p, q, d, self._coefficients)
        return p

    def _smooth(self, level: _Level, b: Any, p: Any, q: Any, d: Any, coefficients: Any) -> tuple[Any, Any]:
        """Chebyshev steps; the iterate alternates between two arrays."""
        for c0, c1 in coefficients:
            each_slab(
                kernels.chebyshev, p.shape[0], p.size, c0, c1, p, b, *level.w, level.dg, level.inv, d, q
            )
            p, q = q, p
        return p, q

    def _sharpen(self, r: NDArray[np.float32]) -> None:
        """Apply the inverse filter along each axis in place."""
        assert self._filters is not None
        g0, g1, g2 = self._filters
        each_slab(kernels.sharpen_planes, r.shape[0], r.size, g1, g2, r)
        if r.shape[0] > 1:
            each_slab(kernels.sharpen_columns, r.shape[1], r.size, g0, r)

    def __call__(self, r: NDArray[np.float64], out: NDArray[np.float64]) -> None:
        """Write the approximate solution for right-hand side ``r`` to ``out``."""
        size = max(float(r.max()), -float(r.min()))
        if size == 0.0:
            out[...] = 0.0
            return
        rhs = self._levels[0].work[3]
        each_slab(kernels.narrow, r.shape[0], r.size, 1.0 / size, r, rhs)
        if self._filters is not None:
            self._sharpen(rhs)
        z = self._cycle(0, rhs)
        if self._filters is not None:
            self._sharpen(z)
        each_slab(kernels.widen, r.shape[0], r.size, size * self._scale, z, out)
        if self.singular:
            out -= float(out.mean())
        elif self._constant > 0:
            out += self._constant * float(r.sum())


def _dense_inverse(level: _Level, *, screened: bool) -> NDArray[np.float32]:
    """Inverse (or pseudo-inverse, without screening) of the coarsest matrix."""
    shape = level.screen.shape
    n = level.screen.size
    index = np.arange(n).reshape(shape)
    matrix = np.diag(level.screen.ravel().astype(np.float64)) if screened else np.zeros((n, n))
    for axis, w in enumerate(level.w):
        i = index.take(range(shape[axis] - 1), axis=axis).ravel()
        j = index.take(range(1, shape[axis]), axis=axis).ravel()
        weight = w.take(range(shape[axis] - 1), axis=axis).ravel().astype(np.float64)
        np.add.at(matrix, (i, i), weight)
        np.add.at(matrix, (j, j), weight)
        np.add.at(matrix, (i, j), -weight)
        np.add.at(matrix, (j, i), -weight)
    inverse = np.linalg.pinv(matrix, rcond=1e-10, hermitian=True)
    return ((inverse + inverse.T) / 2).astype(np.float32)


@dataclass(frozen=True, kw_only=True, eq=False)
class CgResult:
    """What conjugate gradients leave: the solution, its residual and how they stopped."""

    x: NDArray[np.float64]
    residual: NDArray[np.float64]
    n_iterations: int
    converged: bool


def conjugate_gradients(
    apply: Callable[[NDArray[np.float64], NDArray[np.float64]], None],
    precondition: Callable[[NDArray[np.float64], NDArray[np.float64]], None],
    b: NDArray[np.float64],
    *,
    start: NDArray[np.float64] | None = None,
    tolerance: float,
    max_iterations: int,
    accept: Callable[[NDArray[np.float64], NDArray[np.float64]], bool] | None = None,
) -> CgResult:
    """Preconditioned conjugate gradients for A x = b.

    Stops when the preconditioned energy of the residual falls below ``tolerance``^2 of the energy of the
    solution: the energy itself is then accurate to about ``tolerance``^2.

    Parameters
    ----------
    apply, precondition : callable
        ``apply(x, out)`` writes A x, ``precondition(r, out)`` an approximate solution.
    b : ndarray, shape [z, y, x]
    start : ndarray, optional
        First guess; kept.
    tolerance : float
    max_iterations : int
    accept : callable, optional
        ``accept(x, residual)`` is asked then; where it denies, a stricter solution is sought, until only
        rounding is left.
    """

    def done(rz: float) -> bool:
        nonlocal tolerance
        energy = abs(dot(x, b))
        if not rz <= tolerance**2 * energy:
            return False
        if accept is None or rz <= _STRICTEST**2 * energy or accept(x, r):
            return True
        tolerance = (rz / energy) ** 0.5 / _STRICTER
        return False

    n = b.shape[0]
    q, z = np.empty_like(b), np.empty_like(b)
    x = np.zeros_like(b) if start is None else start.copy()
    r = b.copy()
    if start is not None:
        apply(x, q)
        r -= q
    precondition(r, z)
    p = z.copy()
    rz = dot(r, z)
    converged, count = done(rz), 0
    while not converged and count < max_iterations:
        apply(p, q)
        curvature = dot(p, q)
        if not (np.isfinite(curvature) and curvature > 0):
            break
        each_slab(kernels.step, n, b.size, rz / curvature, p, q, x, r)
        count += 1
        precondition(r, z)
        new = dot(r, z)
        converged = done(new)
        if not converged:
            each_slab(kernels.direct, n, b.size, new / rz if rz > 0 else 0.0, z, p)
        rz = new
    return CgResult(x=x, residual=r, n_iterations=count, converged=converged)
