r"""Certified bounds of the Dose Mover's Distance and of W_2, for piecewise-constant densities.

Upper bound (Benamou & Brenier 2000; unbalanced: Chizat et al. 2018). Along the linear path from a to b any
face flux m (lowest Raviart-Thomas, none through the box) with the source s := b - a + div m is feasible, and
costs sum over voxels of integral (|m|^2 + L^2 s^2) / theta, theta the logarithmic mean of a and b. The flux
that u drives, m = M^-1 grad u, makes this u.(b - a) + u.r + L^2 r^2/theta with the residual r, so that every
iterate of conjugate gradients is a bound.

Lower bound. For any potential w the half-steps phi(x) = 2 inf_z (w(z) + |x - z|^2) and psi, the same of -w,
satisfy phi(x) + psi(y) <= |x - y|^2 <= c(x, y): take the midpoint as z. F(z) = w(z) + |x - z|^2 is convex
with D^2 F >= 2 (1 - beta) between x - g/2 and the minimiser, so that inf F >= F - |grad F|^2 / (4 (1 - beta))
at x - g/2. With g = grad w and H = D^2 w at x,

    phi >= 2 w - |g|^2/2 + g.H g/4 - g.e g/4 - |(H + e') g|^2 / (8 (1 - beta)),

e, e' the change of the Hessian in the mean over the way from x to x - g/2, with Taylor's and with even
weights (third derivatives inside voxels, jumps at faces), 2 beta >= |H| in the window that holds the
minimiser. All of it is bounded from the spline's Bezier net, nothing is sampled. Where beta is too large,
phi is at least 2 w - max |g|^2/2 over the window. The term g.H g enters phi and psi with opposite signs and
cancels where the two densities agree.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dosemover.grid import Grid
from dosemover.transport import lower_kernels, shape_kernels, upper_kernels
from dosemover.transport.multigrid import Multigrid, conjugate_gradients
from dosemover.transport.settlement import settle_by_cells
from dosemover.transport.slabs import dot, each_slab
from dosemover.transport.spline import SplineSpace, _by_rows

_LARGEST_WINDOW = 16
"""Voxels around a point beyond which the minimiser of a half-step is not searched."""

_MIXING = 1e-7
"""Share of the other map added where only one is 0, so that the path has a mobility."""

_UNMATCHED = 1e-3
"""Share of the cost that a residual charged as source may keep before the solver goes on."""

_DUST_LEVEL = 23
"""Halvings of the largest mobility from which on a balanced flux follows the spanning tree alone."""

_ROUNDING = 1e-11
"""Unmatched share of the mass that counts as rounding."""


@dataclass(frozen=True, kw_only=True, eq=False)
class FluxBound:
    """Upper bound of the squared distance times mass, and the potential that drives its flux."""

    squared: float
    potential: NDArray[np.float64]
    n_iterations: int
    converged: bool


def flux_upper_bound(
    a: NDArray[np.float64],
    b: NDArray[np.float64],
    grid: Grid,
    *,
    length_mm: float,
    start: NDArray[np.float64] | None = None,
    tolerance: float = 1e-3,
    max_iterations: int = 60,
) -> FluxBound:
    r"""Certified upper bound of the squared Hellinger-Kantorovich distance HK_L(a, b)^2 [Gy mm3 mm2].

    Parameters
    ----------
    a, b : ndarray, shape grid.shape
        Densities [Gy].
    grid : Grid
    length_mm : float
        Exchange length L [mm].
    start : ndarray, shape grid.shape, optional
        First guess of the potential: voxel means of the Galerkin estimate.
    tolerance : float
        Of conjugate gradients; every iterate is a bound.
    max_iterations : int

    Notes
    -----
    *Cost*: about 6 passes of line solves at 2 M voxels, half a second on two cores.
    """
    mixed = bool(np.any((a > 0) != (b > 0)))
    e = _MIXING if mixed else 0.0
    if mixed:
        a, b = a + e / 2 * (b - a), b + e / 2 * (a - b)
    inverse = np.empty_like(a)
    each_slab(upper_kernels.inverse_log_mean, a.shape[0], a.size, a, b, inverse)
    theta = np.where(inverse > 0, 1 / np.where(inverse > 0, inverse, 1.0), 0.0)
    screening = 1 / length_mm**2
    volume = grid.voxel_volume_mm3
    source = (b - a) * volume
    widths = [np.asarray(v) for v in grid.widths_mm]

    def apply(u: NDArray[np.float64], out: NDArray[np.float64]) -> None:
        each_slab(upper_kernels.flux_planes, u.shape[0], u.size, u, inverse, *widths, screening, out)
        if u.shape[0] > 1:
            each_slab(upper_kernels.flux_columns, u.shape[1], u.size, u, inverse, *widths, out)

    pre = Multigrid(theta, grid, screening=screening)
    if start is not None and mixed:
        start = np.where(inverse > 0, start, 0.0)
    partial = np.empty(source.shape[0])

    def costs(u: NDArray[np.float64], residual: NDArray[np.float64]) -> tuple[float, float]:
        each_slab(upper_kernels.unmatched_cost, u.shape[0], u.size, residual, inverse, volume, partial)
        unmatched = length_mm**2 * float(partial.sum())
        return dot(u, source) + dot(u, residual) + unmatched, unmatched

    def accept(u: NDArray[np.float64], residual: NDArray[np.float64]) -> bool:
        squared, unmatched = costs(u, residual)
        return unmatched < _UNMATCHED * squared

    found = conjugate_gradients(
        apply, pre, source, start=start, tolerance=tolerance, max_iterations=max_iterations, accept=accept
    )
    residual = found.residual
    apply(found.x, residual)
    np.subtract(source, residual, out=residual)
    squared = max(costs(found.x, residual)[0], 0.0) / (1 - (2 * e) ** 0.5) ** 2
    return FluxBound(
        squared=squared, potential=found.x, n_iterations=found.n_iterations, converged=found.converged
    )


def balanced_upper_bound(
    a: NDArray[np.float64],
    b: NDArray[np.float64],
    grid: Grid,
    *,
    start: NDArray[np.float64] | None = None,
    tolerance: float = 1e-4,
    max_iterations: int = 100,
) -> FluxBound:
    r"""Certified upper bound of W_2(a, b)^2 for densities of equal mass 1; infinite where it has none.

    As `flux_upper_bound` without a source: what conjugate gradients leave unmatched is carried away cell by
    cell, and where there are gaps along a spanning tree of the voxels; the cost is added. Voxels with next to
    no dose are served by the tree alone.

    Parameters
    ----------
    a, b : ndarray, shape grid.shape
        Densities of mass 1 [1/mm3].
    grid : Grid
    start : ndarray, shape grid.shape, optional
        First guess of the potential.
    tolerance, max_iterations
        Of conjugate gradients.

    Notes
    -----
    *Limits*: where both maps are 0 between two parts of different mass, no flux connects them: infinite.
    """
    mixed = bool(np.any((a > 0) != (b > 0)))
    e = _MIXING if mixed else 0.0
    if mixed:
        a, b = a + e / 2 * (b - a), b + e / 2 * (a - b)
    inverse = np.empty_like(a)
    each_slab(upper_kernels.inverse_log_mean, a.shape[0], a.size, a, b, inverse)
    source = (b - a) * grid.voxel_volume_mm3
    widths = [np.asarray(v) for v in grid.widths_mm]
    tree = _Tree(inverse, widths) if _has_gaps(inverse) else None
    open_to_flux = inverse if tree is None else np.where(tree.main.reshape(a.shape) > 0, inverse, -1.0)
    gathered = source if tree is None else tree.gathered(source)

    def apply(u: NDArray[np.float64], out: NDArray[np.float64]) -> None:
        each_slab(upper_kernels.flux_planes, u.shape[0], u.size, u, open_to_flux, *widths, 0.0, out)
        if u.shape[0] > 1:
            each_slab(upper_kernels.flux_columns, u.shape[1], u.size, u, open_to_flux, *widths, out)

    theta = np.where(open_to_flux > 0, 1 / np.where(open_to_flux > 0, inverse, 1.0), 0.0)
    pre = Multigrid(theta, grid, screening=0.0)
    del theta
    start = None if start is None else np.where(open_to_flux > 0, start, 0.0)

    shed = None if tree is None else source - gathered

    def costs(u: NDArray[np.float64], residual: NDArray[np.float64]) -> tuple[float, float]:
        return _balanced_costs(u, source, residual, open_to_flux, grid, tree)

    def accept(u: NDArray[np.float64], residual: NDArray[np.float64]) -> bool:
        carried, rest = costs(u, residual if shed is None else residual + shed)
        return rest < _UNMATCHED * carried

    found = conjugate_gradients(
        apply, pre, gathered, start=start, tolerance=tolerance, max_iterations=max_iterations, accept=accept
    )
    residual = found.residual
    apply(found.x, residual)
    np.subtract(source, residual, out=residual)
    squared = max(sum(costs(found.x, residual)), 0.0) / (1 - (2 * e) ** 0.5) ** 2
    return FluxBound(
        squared=squared, potential=found.x, n_iterations=found.n_iterations, converged=found.converged
    )


def _balanced_costs(
    u: NDArray[np.float64],
    source: NDArray[np.float64],
    residual: NDArray[np.float64],
    open_to_flux: NDArray[np.float64],
    grid: Grid,
    tree: _Tree | None,
) -> tuple[float, float]:
    r"""Energy of the flux m that u drives, and of the flux r for the residual: a bound of both.

    |m + r|^2 = |m|^2 + 2 <m, r> + |r|^2, |m|^2 = u.(source - residual). M m = grad u on the faces between
    voxels open to m, so that <m, r> = u.residual for what is evened out between them. The tree's flux t also
    crosses the border of the open voxels, where m is 0: there <m, t> is larger by the sum of t u over the
    voxels inside and by <m, t on the border>, at most |m| |t on the border|.
    """
    energy, left = settle_by_cells(residual, open_to_flux, grid)
    if tree is None:
        carried = dot(u, source) + dot(u, residual)
        return carried, energy if float(np.abs(left).sum()) < _ROUNDING else np.inf
    u = np.where(open_to_flux > 0, u, 0.0)
    carried = dot(u, source) + dot(u, residual)
    along, missed, exchanged, border = tree.settled(left, u)
    if not (missed < _ROUNDING and np.isfinite(along)):
        return carried, np.inf
    alone = max(dot(u, source) - dot(u, residual), 0.0)
    carried += 2 * exchanged + 2 * (alone * border) ** 0.5
    return carried, (energy**0.5 + along**0.5) ** 2


def _has_gaps(inverse: NDArray[np.float64]) -> bool:
    """Whether a flux may not enter every voxel, or finds next to no dose in some."""
    least = float(inverse.min())
    return least <= 0 or float(inverse.max()) >= 2.0**_DUST_LEVEL * least


class _Tree:
    """Spanning tree of the voxels that a flux may enter, densest first.

    Parameters
    ----------
    inverse : ndarray, shape [z, y, x]
        1 / mobility; not positive where no flux may enter.
    widths : list of ndarray
        Voxel widths [mm].
    """

    def __init__(self, inverse: NDArray[np.float64], widths: list[NDArray[np.float64]]) -> None:
        self._inverse, self._widths = inverse, widths
        self._order, self._parent, self.main = _spanning_tree(inverse)

    def gathered(self, source: NDArray[np.float64]) -> NDArray[np.float64]:
        """Source with what lies off the main parts carried onto them."""
        flow = source.copy()
        upper_kernels.gather_on_main(self._order, self._parent, self.main, flow.ravel())
        return flow

    def settled(
        self, residual: NDArray[np.float64], u: NDArray[np.float64]
    ) -> tuple[float, float, float, float]:
        """What `upper_kernels.settle_residual` tells of the tree's flux that carries a residual away."""
        flow = residual.ravel().copy()
        v0, v1, v2 = self._widths
        return upper_kernels.settle_residual(
            flow, u.ravel(), self._inverse, v0, v1, v2, self._order, self._parent, self.main
        )


def _spanning_tree(
    inverse: NDArray[np.float64],
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.uint8]]:
    """Order, parents and main parts of the voxels that a flux may enter."""
    n = inverse.size
    order, parent, following = (np.full(n, -1, np.int32) for _ in range(3))
    main = np.zeros(n, np.uint8)
    head = np.empty(200, np.int32)
    count = upper_kernels.grow_tree(inverse, _DUST_LEVEL, order, parent, head, following, main)
    return order[:count], parent, main


def _window(space: SplineSpace, bounds: list[NDArray[np.float32]], largest: float) -> None:
    """Widen the bounds (|grad w|, |D2 w|, |D3 w|, jumps), in place, to the window of each minimiser.

    The minimiser of w(z) + |x - z|^2 lies |grad w(z)|/2 from x: within k voxels if the gradient within k' + 1
    voxels stays below twice the width of any k' voxels in a row for every k' >= k. Where that needs too many
    voxels, the global gradient bounds it and the Hessian counts as unbounded. ``largest`` multiplies w.
    """
    slope = bounds[0]
    top = float(slope.max())
    scratch = np.empty_like(slope)

    def dilated(x: NDArray[np.float32]) -> NDArray[np.float32]:
        each_slab(shape_kernels.dilate, x.shape[0], x.size, x, scratch)
        return scratch

    spans = _spans(space.grid, _LARGEST_WINDOW)
    steps = int(np.searchsorted(spans, top * largest / 2)) + 1
    reach = np.ones(slope.shape, np.uint8)
    wider = slope.copy()
    wider[...] = dilated(wider)
    for k in range(1, min(steps, _LARGEST_WINDOW) + 1):
        wider[...] = dilated(wider)
        reach[wider > 2 * spans[k - 1] / largest] = k + 1
    far = reach > _LARGEST_WINDOW
    if steps > _LARGEST_WINDOW:
        far |= wider > 0
        reach[far] = 1
    widest = int(reach.max())
    for x in bounds:
        wide = x.copy()
        for k in range(1, widest + 1):
            wide[...] = dilated(wide)
            np.copyto(x, wide, where=reach >= k) if k > 1 else np.copyto(x, wide)
    if far.any():
        bounds[0][far] = top
        bounds[1][far] = np.inf


def _spans(grid: Grid, largest: int) -> NDArray[np.float64]:
    """Least width of 1, 2, ... voxels in a row along any axis, mirrored at the box [mm]."""
    spans = np.full(largest, np.inf)
    for v in grid.widths_mm:
        if v.size > 1:
            edges = np.cumsum(np.pad(np.asarray(v), largest, mode="symmetric"))
            for k in range(1, largest + 1):
                spans[k - 1] = min(spans[k - 1], float((edges[k:] - edges[:-k]).min()))
    return np.where(np.isfinite(spans), spans, 1.0)


def half_step_lower_bounds(
    space: SplineSpace,
    c: NDArray[np.float64],
    a: NDArray[np.float64],
    b: NDArray[np.float64],
    *,
    penalty: float,
    scales: tuple[float, ...] = (1.0,),
) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    r"""Certified lower bounds of the squared distance times mass from multiples of a potential.

    Parameters
    ----------
    space : SplineSpace
        Of the potential; its grid may halve the voxels of ``a`` and ``b``.
    c : ndarray, shape space.grid.shape
        Coefficients of w [mm2].
    a, b : ndarray
        Densities [Gy].
    penalty : float
        4 L^2 [mm2]; inf for balanced transport of equal masses.
    scales : tuple of float
        Multiples of w to try, the first being that of the returned excess.

    Returns
    -------
    bounds : ndarray, shape (len(scales),)
    excess : ndarray, shape space.grid.shape
        Cost of the remainders over the kinetic term, in each voxel.
    """
    shape = c.shape
    bezier = space.bezier
    second = [
        np.ascontiguousarray((t[:, 0] - 2 * t[:, 1] + t[:, 2]) * (2 / np.square(v))[:, None])
        for t, v in zip(bezier, space.grid.widths_mm, strict=True)
    ]
    inverse = [1 / np.asarray(v) for v in space.grid.widths_mm]
    rows = _by_rows(bezier[2])
    bounds = [np.empty(shape, np.float32) for _ in range(4)]
    each_slab(
        shape_kernels.shape_bounds,
        shape[0],
        c.size,
        c,
        bezier[0],
        bezier[1],
        rows,
        *second,
        *inverse,
        *bounds,
    )
    own = [bounds[0].copy(), bounds[2].copy()]
    _window(space, bounds, max(scales))
    factors = np.array([n // m for n, m in zip(shape, a.shape, strict=True)])
    partial = np.empty((shape[0], len(scales)))
    excess = np.empty(shape, np.float32)
    each_slab(
        lower_kernels.half_steps, shape[0], c.size, c, a, b, factors, *space.tables, bezier[0], bezier[1],
        rows, second[0], second[1], 2 * np.square(inverse[2]), *inverse, *own, *bounds, np.array(scales),
        min(penalty, 1e30), partial, excess,
    )  # fmt: skip
    return partial.sum(axis=0), excess


def best_scale(scales: NDArray[np.float64], values: NDArray[np.float64]) -> float:
    """Multiple of w at the top of the parabola through three values; their best where there is none."""
    curve = np.polyfit(scales, values, 2)
    best = float(scales[int(np.argmax(values))])
    if curve[0] >= 0:
        return best
    return float(np.clip(-curve[1] / (2 * curve[0]), 0.5 * scales.min(), 1.2 * scales.max()))
