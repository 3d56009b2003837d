"""Geometry of the flat norm's finite elements: nodes, loads, transfers between grids, Poisson solves."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dctn, idctn
from scipy.sparse import csr_array

from dosemover.grid import Grid
from dosemover.transport import flat_norm_bound_kernels as kernels
from dosemover.transport.slabs import each_slab
from dosemover.transport.spline import SplineSpace

Fields = NDArray[Any]


class Axis:
    """One axis: voxels between ``edges``, nodes at their middles, hats constant in the outer half voxels.

    Parameters
    ----------
    edges : ndarray, shape (n + 1,)
        Voxel boundaries [mm].
    """

    def __init__(self, edges: NDArray[np.float64]) -> None:
        self.edges = edges
        self.n = edges.size - 1
        self.width = w = np.diff(edges)
        self.node = (edges[1:] + edges[:-1]) / 2
        self.to_next = w[:-1] / 8 * (4 * w[:-1] / (w[:-1] + w[1:])) / 2
        self.to_last = w[1:] / 8 * (4 * w[1:] / (w[:-1] + w[1:])) / 2
        self.even = bool(np.all(np.abs(w - w.mean()) <= 1e-6 * w.mean()))
        self.volume = w.copy()
        self.volume[1:] += self.to_next
        self.volume[:-1] -= self.to_next
        self.volume[:-1] += self.to_last
        self.volume[1:] -= self.to_last
        step = np.diff(self.node)
        self.forward = np.append(1 / step, 0.0)
        self.backward = np.append(0.0, 1 / step)
        ratio = self.volume[1:] / self.volume[:-1]
        self.up_forward = np.append(ratio / step, 0.0)
        self.up_backward = np.append(0.0, 1 / (ratio * step))
        self.stiffest = float(np.max(2 * (1 + np.maximum(ratio, 1 / ratio)) / step**2, initial=0.0))
        self.count_forward, self.count_backward = np.full(self.n, 2.0), np.full(self.n, 2.0)
        self.count_forward[0] = self.count_backward[-1] = 1.0  # an end has no other slope to average with
        shares = self.volume[:-1] / self.count_forward[:-1] + self.volume[1:] / self.count_backward[1:]
        least = np.minimum(self.volume[:-1], self.volume[1:])
        self.mean_stiffest = float(np.max(2 * shares / least / step**2, initial=0.0))
        self.mean_lumped = float(np.max(shares / (2 * step), initial=0.5))
        distance = np.append(step, 1.0)
        inner = np.append(np.ones(self.n - 1), 0.0)
        self.face_weights = tuple(
            (inner * v / distance).astype(np.float32) for v in (w, np.append(w[1:], 0.0), np.ones(self.n))
        )
        self.stiffest_flux = float(np.max(4 / (w[1:] * w[:-1]), initial=0.0))
        self.lumped = float(np.max((self.volume[1:] + self.volume[:-1]) / (2 * step), initial=1.0))

    def load(self, x: Fields, axis: int) -> tuple[Fields, Fields]:
        """Integrals of a piecewise-constant density against the hats, and the flow that equals the change.

        The mass that a hat takes from the neighbouring voxel crosses their face: mass - load = div flow.
        """
        shape = [1, 1, 1]
        shape[axis] = -1
        low = (slice(None),) * axis + (slice(0, self.n - 1),)
        high = (slice(None),) * axis + (slice(1, self.n),)
        flow = np.zeros_like(x)
        up, down = self.to_next.reshape(shape), self.to_last.reshape(shape)
        flow[low] = up * x[low] - down * x[high]
        out = x * self.width.reshape(shape)
        out[low] -= flow[low]
        out[high] += flow[low]
        return out, flow

    def modes(self) -> tuple[NDArray[np.float32] | None, NDArray[np.float64], float]:
        """Matrix that diagonalises -d2/dx2 (None for a cosine transform), eigenvalues and scale."""
        if self.n == 1 or self.even:
            h = float(self.width.mean())
            return None, (2 - 2 * np.cos(np.pi * np.arange(self.n) / self.n)) / h**2, 1 / h
        root = np.sqrt(self.volume)
        stiffness = np.zeros((self.n, self.n))
        i = np.arange(self.n - 1)
        stiffness[i, i] += self.forward[:-1]
        stiffness[i + 1, i + 1] += self.forward[:-1]
        stiffness[i, i + 1] = stiffness[i + 1, i] = -self.forward[:-1]
        values, vectors = np.linalg.eigh(stiffness / np.outer(root, root))
        values[0] = 0.0
        return (vectors / root[:, None]).astype(np.float32), values, 1.0

    def coarser(self, finest: float) -> Axis:
        """Half as many voxels over the same length, where they are not much wider than the finest."""
        if self.n == 1 or float(np.median(self.width)) > 1.6 * finest:
            return self
        if self.even:
            return Axis(np.linspace(self.edges[0], self.edges[-1], (self.n + 1) // 2 + 1))
        return Axis(np.append(self.edges[:-1:2], self.edges[-1]))


def along(matrix: csr_array, x: Fields, axis: int) -> Fields:
    """Apply a sparse matrix along one axis of [z, y, x] (counted from the last for more dimensions)."""
    moved = np.moveaxis(x, axis - 3, 0)
    product = matrix @ moved.reshape(moved.shape[0], -1)
    return np.moveaxis(product.reshape(-1, *moved.shape[1:]), 0, axis - 3)


class Mesh:
    """Nodes and voxels of one grid of the hierarchy.

    Parameters
    ----------
    axes : tuple of Axis
        In array order (z, y, x).
    """

    def __init__(self, axes: tuple[Axis, Axis, Axis]) -> None:
        self.axes = axes
        self.shape = (axes[0].n, axes[1].n, axes[2].n)
        self.size = int(np.prod(self.shape))
        single = [
            tuple(v.astype(np.float32) for v in (a.forward, a.backward, a.up_forward, a.up_backward))
            for a in axes
        ]
        self.coefficients = tuple(v for four in single for v in four)
        self.slopes = tuple(v for four in single for v in four[:2])
        self.counts = tuple(v for a in axes for v in (a.count_forward, a.count_backward))
        self.mean_slopes = tuple(
            v.astype(np.float32)
            for a in axes
            for v in (
                a.forward / a.count_forward,
                a.backward / a.count_backward,
                a.count_forward,
                a.count_backward,
            )
        )
        self.steps = tuple(v for a in axes for v in (a.forward, a.backward))
        self.distances = tuple(a.forward for a in axes)
        self.volumes = tuple(a.volume for a in axes)
        self.widths = tuple(a.width for a in axes)
        self.stiffness = float(np.sqrt(sum(2 * a.stiffest for a in axes))) or 1.0  # 1 for a single voxel
        self.mean_stiffness = float(np.sqrt(sum(2 * a.mean_stiffest for a in axes))) or 1.0
        self.mean_lumped = max(a.mean_lumped for a in axes)
        self.diameter = float(np.sqrt(sum((a.edges[-1] - a.edges[0]) ** 2 for a in axes)))
        self.spacing = max((1 / float(a.forward.max()) for a in axes if a.n > 1), default=1.0)
        self.lumped = max(a.lumped for a in axes)

    @classmethod
    def of(cls, grid: Grid) -> Mesh:
        """Mesh of a grid's voxels."""
        z, y, x = (Axis(e) for e in grid.edges_mm)
        return cls((z, y, x))

    @property
    def node_volume(self) -> Fields:
        """Integral of each hat [mm3]."""
        z, y, x = self.volumes
        return z[:, None, None] * y[:, None] * x

    @property
    def voxel_volume(self) -> Fields:
        """Volume of each voxel [mm3]."""
        z, y, x = self.widths
        return z[:, None, None] * y[:, None] * x

    @property
    def spread_widths(self) -> tuple[Fields, Fields, Fields]:
        """Voxel widths along each axis, shaped to broadcast over [z, y, x] [mm]."""
        z, y, x = self.widths
        return z[:, None, None], y[:, None], x

    @cached_property
    def _splines(self) -> SplineSpace:
        """Quadratic splines with knots on the voxel faces."""
        z, y, x = (a.edges for a in self.axes)
        return SplineSpace(Grid(z_edges_mm=z, y_edges_mm=y, x_edges_mm=x))

    @property
    def spline_steps(self) -> tuple[Fields, ...]:
        """Weights of the lower faces' values and one over the distances of the middles, for each axis."""
        blends = [lower for lower, _ in self._splines.blends]
        return tuple(v for b, a in zip(blends, self.axes, strict=True) for v in (b, a.forward, a.backward))

    def spline_load(self, mass: Fields) -> Fields:
        """Integrals against the B-splines of a density with voxel integrals ``mass``."""
        return self._splines.load(mass)

    def spline_means(self, c: Fields) -> Fields:
        """Mean over each voxel of the spline with coefficients c: the transpose of `spline_load`."""
        return self._splines.means(c)

    def coarser(self) -> Mesh | None:
        """Mesh of half as many voxels along the finest axes; None where there is nothing left to merge."""
        long = [float(np.median(a.width)) for a in self.axes if a.n > 1]
        if not long or max(self.shape) <= 8:
            return None
        z, y, x = (a.coarser(min(long)) for a in self.axes)
        return Mesh((z, y, x))

    def load(self, density: Fields) -> tuple[Fields, Fields]:
        """Integrals of a density against the trilinear hats [mass], and the flow that equals the change."""
        flow = np.empty((3, *self.shape), np.float32)
        x = density
        for axis, one in enumerate(self.axes):
            x, moved = one.load(x, axis)
            for later in range(axis + 1, 3):
                shape = [1, 1, 1]
                shape[later] = -1
                moved = moved * self.widths[later].reshape(shape)
            flow[axis] = moved
        return x, flow

    def voxel_means(self, f: Fields) -> Fields:
        """Mean over each voxel of the trilinear function with nodal values f: the transpose of `load`."""
        for axis, one in enumerate(self.axes):
            low = (slice(None),) * axis + (slice(0, one.n - 1),)
            high = (slice(None),) * axis + (slice(1, one.n),)
            shape = [1, 1, 1]
            shape[axis] = -1
            rise = f[high] - f[low]
            f = f.copy()
            f[low] += (one.to_next / one.width[:-1]).reshape(shape) * rise
            f[high] -= (one.to_last / one.width[1:]).reshape(shape) * rise
        return f

    def coarsened(self, density: Fields, coarse: Mesh) -> Fields:
        """Mean density in the voxels of a coarser mesh."""
        for axis, (mine, theirs) in enumerate(zip(self.axes, coarse.axes, strict=True)):
            if mine is not theirs:
                mass = np.moveaxis(density, axis, -1) * mine.width
                below = np.concatenate([np.zeros((*mass.shape[:-1], 1)), np.cumsum(mass, axis=-1)], axis=-1)
                at_faces = along(interpolation(mine.edges, theirs.edges), below, 2)
                density = np.moveaxis(np.diff(at_faces, axis=-1) / theirs.width, -1, axis)
        return np.ascontiguousarray(density)

    def interpolated(self, f: Fields, fine: Mesh) -> Fields:
        """Nodal values on a finer mesh."""
        for axis, (mine, theirs) in enumerate(zip(self.axes, fine.axes, strict=True)):
            if mine is not theirs:
                f = along(interpolation(mine.node, theirs.node), f, axis)
        return np.ascontiguousarray(f)

    def transferred(self, p: Fields, fine: Mesh) -> Fields:
        """Multipliers on a finer mesh: the flux on faces, interpolated and split evenly."""
        out = np.zeros((6, *fine.shape), np.float32)
        for axis in range(3):
            mine, theirs = self.axes[axis], fine.axes[axis]
            if mine.n == 1:
                continue
            low = (slice(None),) * axis + (slice(0, mine.n - 1),)
            high = (slice(None),) * axis + (slice(1, mine.n),)
            flux = (p[2 * axis][low] + p[2 * axis + 1][high]) / np.float32(2)
            inner = interpolation(mine.edges, theirs.edges[1:-1])[:, 1:-1]  # no flux through the box
            flux = along(csr_array(inner), flux, axis)
            for other in range(3):
                if other != axis and self.axes[other] is not fine.axes[other]:
                    flux = along(interpolation(self.axes[other].node, fine.axes[other].node), flux, other)
            out[2 * axis][(slice(None),) * axis + (slice(0, theirs.n - 1),)] = flux
            out[2 * axis + 1][(slice(None),) * axis + (slice(1, theirs.n),)] = flux
        return out

    @cached_property
    def _spectrum(self) -> tuple[list[NDArray[np.float32] | None], NDArray[np.float32]]:
        """Modes of each axis, and the scale over the sum of eigenvalues."""
        modes = [a.modes() for a in self.axes]
        total = np.zeros(self.shape)
        for axis, (_, values, _) in enumerate(modes):
            total += values.reshape([-1 if i == axis else 1 for i in range(3)])
        total.flat[0] = np.inf
        inverse = float(np.prod([scale for _, _, scale in modes])) / total
        return [matrix for matrix, _, _ in modes], inverse.astype(np.float32)

    def poisson(self, mass: Fields) -> Fields:
        """Potential u without flow through the box: V/distance differences balance ``mass`` (total 0)."""
        matrices, inverse = self._spectrum
        cosine = [axis for axis in range(3) if matrices[axis] is None and self.shape[axis] > 1]
        u: Any = mass.astype(np.float32)
        if cosine:
            u = dctn(u, axes=cosine, norm="ortho", workers=_workers(), overwrite_x=True)
        for axis, matrix in enumerate(matrices):
            if matrix is not None:
                u = _multiply(matrix.T, u, axis)
        u *= inverse
        for axis, matrix in enumerate(matrices):
            if matrix is not None:
                u = _multiply(matrix, u, axis)
        if cosine:
            u = idctn(u, axes=cosine, norm="ortho", workers=_workers(), overwrite_x=True)
        return np.ascontiguousarray(u)

    def add_potential_flow(self, u: Fields, flow: Fields) -> None:
        """Add the flow down a potential to ``flow``."""
        each_slab(kernels.potential_flow, self.shape[0], self.size, u, *self.volumes, *self.distances, flow)


def interpolation(knots: NDArray[np.float64], points: NDArray[np.float64]) -> csr_array:
    """Linear interpolation from values at knots, constant past the ends, in single precision."""
    n = knots.size
    if n == 1:
        return csr_array(np.ones((points.size, 1), np.float32))
    high = np.clip(np.searchsorted(knots, points, side="right"), 1, n - 1)
    weight = np.clip((points - knots[high - 1]) / (knots[high] - knots[high - 1]), 0.0, 1.0)
    rows = np.arange(points.size)
    data = np.concatenate([1 - weight, weight]).astype(np.float32)
    entries = (np.concatenate([rows, rows]), np.concatenate([high - 1, high]))
    return csr_array((data, entries), shape=(points.size, n))


def _multiply(matrix: NDArray[np.float32], x: Fields, axis: int) -> Fields:
    """Dense matrix along one axis."""
    return np.ascontiguousarray(np.moveaxis(np.tensordot(matrix, x, (1, axis)), 0, axis))


def _workers() -> int:
    """Threads for the cosine transforms."""
    import numba

    return int(numba.get_num_threads())
