"""Quadratic B-spline potentials with knots on the voxel faces, one coefficient a voxel."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dosemover.grid import Grid
from dosemover.transport import spline_kernels as kernels
from dosemover.transport.multigrid import CgResult, Multigrid, conjugate_gradients
from dosemover.transport.multigrid_kernels import coarse_sum
from dosemover.transport.slabs import dot, each_slab

_EVEN = 1e-9
"""Relative difference of widths that counts as rounding."""

_SHORTEST = 16
"""Voxels along an axis below which they are not merged for a first guess."""

_SMALLEST = 30_000
"""Voxels below which a first guess costs more than it saves."""


def _blends(widths: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weights (alpha, beta) of the neighbours in the spline's value on the lower and upper face."""
    alpha, beta = np.zeros_like(widths), np.zeros_like(widths)
    alpha[1:] = widths[1:] / (widths[:-1] + widths[1:])
    beta[:-1] = widths[:-1] / (widths[:-1] + widths[1:])
    return alpha, beta


def _bezier_table(alpha: NDArray[np.float64], beta: NDArray[np.float64]) -> NDArray[np.float64]:
    """Table of the Bezier points (value on lower face, coefficient, value on upper face)."""
    table = np.zeros((alpha.size, 3, 3))
    table[:, 0, 0], table[:, 0, 1] = alpha, 1 - alpha
    table[:, 1, 1] = 1.0
    table[:, 2, 1], table[:, 2, 2] = 1 - beta, beta
    return table


def _legendre_table(bezier: NDArray[np.float64]) -> NDArray[np.float64]:
    """Table of the orthonormal Legendre coefficients on each voxel."""
    to_legendre = np.array(
        [[1 / 3, 1 / 3, 1 / 3], [-1 / 12**0.5, 0.0, 1 / 12**0.5], np.array([1, -2, 1]) / (6 * 5**0.5)]
    )
    return np.einsum("pb,nbm->npm", to_legendre, bezier)


def _by_rows(table: NDArray[np.float64]) -> NDArray[np.float64]:
    """Table of the last axis, stored [p, m, k]."""
    return np.ascontiguousarray(table.transpose(1, 2, 0))


class SplineSpace:
    r"""Quadratic splines w on the voxels of a grid: continuous gradient, mirrored at the box.

    On a voxel of width h with lower and upper neighbours h-, h+, the Bezier points along an axis are
    (alpha c- + (1 - alpha) c, c, (1 - beta) c + beta c+), alpha = h/(h- + h), beta = h/(h + h+). Legendre
    polynomials make voxel integrals exact. An axis of one voxel carries constants.

    Parameters
    ----------
    grid : Grid
        Spacing may be uneven.
    """

    def __init__(self, grid: Grid) -> None:
        self.grid = grid
        self.blends = [_blends(np.asarray(v)) for v in grid.widths_mm]
        self.bezier = [_bezier_table(*blend) for blend in self.blends]
        legendre = [_legendre_table(table) for table in self.bezier]
        self._tables = (legendre[0], legendre[1], _by_rows(legendre[2]))
        rates = [np.outer(1 / np.square(v), [0.0, 12.0, 60.0]) for v in grid.widths_mm]
        self._rates = (rates[0], rates[1], np.ascontiguousarray(rates[2].T))
        means = [table[:, 0, :] for table in legendre]
        self._means = [np.ascontiguousarray(m) for m in means]
        self._adjoint = [_transposed_taps(m) for m in means]

    @property
    def tables(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Legendre tables of the three axes, the last stored by rows."""
        return self._tables

    def apply(self, c: Any, weights: Any, screen: Any, out: Any) -> None:
        """Write A c: sums of weights x mean of grad w . grad B + screen x mean of w B over voxels."""
        each_slab(
            kernels.spline_apply, c.shape[0], c.size, c, weights, screen, *self._tables, *self._rates, out
        )

    def means(self, c: NDArray[np.float64]) -> NDArray[np.float64]:
        """Voxel means of the spline."""
        return self._filter(c, self._means)

    def load(self, g: NDArray[np.float64]) -> NDArray[np.float64]:
        """Transpose of `means`: the right-hand side of a source with voxel integrals ``g``."""
        return self._filter(g, self._adjoint)

    def _filter(self, x: NDArray[np.float64], taps: list[NDArray[np.float64]]) -> NDArray[np.float64]:
        """Separable three-tap filter."""
        out = np.empty_like(x)
        last = np.ascontiguousarray(taps[2].T)
        each_slab(kernels.three_taps, x.shape[0], x.size, x, taps[0], taps[1], last, out)
        return out

    def voxel_means(self, c: NDArray[np.float64]) -> tuple[Any, Any, Any]:
        """Voxel means of w, |grad w|^2 and w^2."""
        out = tuple(np.empty_like(c) for _ in range(3))
        each_slab(kernels.spline_voxels, c.shape[0], c.size, c, *self._tables, *self._rates, *out)
        return out[0], out[1], out[2]

    def refined(
        self, c: NDArray[np.float64], axes: tuple[int, ...] = (0, 1, 2)
    ) -> tuple[SplineSpace, NDArray[np.float64]]:
        """The same spline on voxels halved along those of ``axes`` that have more than one."""
        edges = []
        for axis, e in enumerate(self.grid.edges_mm):
            if e.size == 2 or axis not in axes:
                edges.append(e)
                continue
            cut = np.empty(2 * e.size - 1)
            cut[::2], cut[1::2] = e, (e[1:] + e[:-1]) / 2
            edges.append(cut)
            before, after = int(np.prod(c.shape[:axis])), int(np.prod(c.shape[axis + 1 :]))
            flat = c.reshape(before, c.shape[axis], after)
            out = np.empty((before, 2 * c.shape[axis], after))
            each_slab(kernels.split_axis, before, c.size, flat, *self.blends[axis], out)
            c = out.reshape(*c.shape[:axis], 2 * c.shape[axis], *c.shape[axis + 1 :])
        grid = Grid(z_edges_mm=edges[0], y_edges_mm=edges[1], x_edges_mm=edges[2])
        return SplineSpace(grid), c

    def midpoints(self, u: NDArray[np.float64], *, iterations: int = 12) -> NDArray[np.float64]:
        """(u, grad u) at the midpoint z = x + grad u(z)/2 of the path from each voxel centre: [4, ...]."""
        out = np.empty((4, *u.shape))
        blends = [b for pair in self.blends for b in pair]
        axes = [*self.grid.edges_mm, *self.grid.centers_mm]
        each_slab(kernels.midpoints, u.shape[0], u.size, u, *axes, *blends, iterations, out)
        return out


def _transposed_taps(taps: NDArray[np.float64]) -> NDArray[np.float64]:
    """Three taps of the transposed filter."""
    out = np.zeros_like(taps)
    out[1:, 0] = taps[:-1, 2]
    out[:, 1] = taps[:, 1]
    out[:-1, 2] = taps[1:, 0]
    return out


def nested_start(
    grid: Grid,
    theta: NDArray[np.float64],
    source: NDArray[np.float64],
    *,
    screening: float,
    tolerance: float,
) -> NDArray[np.float64] | None:
    """First guess of a potential: the solution on voxels twice as wide, on its part begun on wider ones.

    None where there are too few voxels, or no axis of even ones, to merge in pairs.
    """
    axes = [axis for axis, v in enumerate(grid.widths_mm) if v.size >= _SHORTEST and np.ptp(v) < _EVEN * v[0]]
    if not axes or theta.size < _SMALLEST:
        return None
    edges = [e if i not in axes else np.unique(np.append(e[::2], e[-1])) for i, e in enumerate(grid.edges_mm)]
    coarse = Grid(z_edges_mm=edges[0], y_edges_mm=edges[1], x_edges_mm=edges[2])
    n, factors = coarse.shape[0], [2 if axis in axes else 1 for axis in range(3)]
    means = []
    for density in (theta, source):
        out = np.empty(coarse.shape)
        x = density if grid.is_even else density * grid.voxel_volume_mm3
        each_slab(coarse_sum, n, x.size, x, *factors, out)
        out *= (float(grid.voxel_volume_mm3.flat[0]) if grid.is_even else 1.0) / coarse.voxel_volume_mm3
        means.append(out)
    start = nested_start(coarse, means[0], means[1], screening=screening, tolerance=tolerance)
    space = SplineSpace(coarse)
    found = solve_potential(
        space, means[0], means[1], screening=screening, start=start, tolerance=tolerance, max_iterations=30
    )
    fine = space.refined(found.x, axes=tuple(axes))[1]
    n0, n1, n2 = theta.shape
    return np.ascontiguousarray(fine[:n0, :n1, :n2])


def solve_potential(
    space: SplineSpace,
    theta: NDArray[np.float64],
    source: NDArray[np.float64],
    *,
    screening: float,
    screen: NDArray[np.float64] | None = None,
    load: NDArray[np.float64] | None = None,
    multigrid: Multigrid | None = None,
    start: NDArray[np.float64] | None = None,
    tolerance: float = 2e-3,
    max_iterations: int = 60,
) -> CgResult:
    r"""Galerkin solution of -div(theta grad u) + screening theta u = source in quadratic splines.

    Parameters
    ----------
    space : SplineSpace
    theta : ndarray, shape grid.shape
        Mobility, positive.
    source : ndarray, shape grid.shape
        Source density.
    screening : float
        1 / L^2 [1/mm2].
    screen : ndarray, shape grid.shape, optional
        Weight of the screening term; ``theta`` unless given.
    load : ndarray, shape grid.shape, optional
        Right-hand side in coefficients, added to that of ``source``.
    multigrid : Multigrid, optional
        Preconditioner for splines; built from ``theta`` unless given.
    start : ndarray, optional
        First guess of the coefficients.
    tolerance, max_iterations
        See `conjugate_gradients`.

    Returns
    -------
    CgResult
        ``x`` holds the spline's coefficients.
    """
    volume = space.grid.voxel_volume_mm3
    weights = theta * volume
    screens = (theta if screen is None else screen) * volume * screening
    pre = multigrid or Multigrid(theta, space.grid, screening=screening, screen=screen, splines=True)

    def apply(c: NDArray[np.float64], out: NDArray[np.float64]) -> None:
        space.apply(c, weights, screens, out)

    rhs = space.load(source * volume)
    if load is not None:
        rhs += load
    return conjugate_gradients(
        apply, pre, rhs, start=start, tolerance=tolerance, max_iterations=max_iterations
    )


def weighted_sum(x: NDArray[np.float64], y: NDArray[np.float64], grid: Grid) -> float:
    """Integral of x y over the box, x and y constant in voxels."""
    if grid.is_even:
        return dot(x, y) * float(grid.voxel_volume_mm3.flat[0])
    return dot(x * grid.voxel_volume_mm3, y)
