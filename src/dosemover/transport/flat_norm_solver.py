"""Multilevel primal-dual iteration for the flat norm, and its certificates."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dosemover.transport import flat_norm_kernels as kernels
from dosemover.transport import flux_kernels
from dosemover.transport.flat_norm_mesh import Mesh
from dosemover.transport.slabs import dot, each_slab

Fields = NDArray[Any]

_OVER = np.float32(1.7)
"""Over-relaxation of both variables."""

_BALANCE = 2.0
"""Ratio of the steps: multiplier norm over potential norm, times this."""

_FLUX_BALANCE = 1.0
"""The same ratio for the iteration of the flux."""

_SWEEPS = 40
"""Most repair sweeps over octants that are too steep."""

_SWEEP_GAIN = 1e-4
"""Least relative gain for which another sweep is made."""

_NO_REACH = np.float32(1e30)


@dataclass(kw_only=True, eq=False)
class Bounds:
    """What the iteration has found: all in units of the density times mm4, best so far.

    ``lower`` and ``discrete`` enclose the supremum over trilinear test functions, ``lower`` and ``upper``
    that over all of them.
    """

    lower: float = -np.inf
    discrete: float = np.inf
    upper: float = np.inf
    potential: Fields = field(default_factory=lambda: np.zeros(0))
    flow: Fields = field(default_factory=lambda: np.zeros(0))
    moved: float = 0.0
    gain_loss: Fields = field(default_factory=lambda: np.zeros(0))
    n_iterations: int = 0
    interrupted: bool = False

    def scaled(self, factor: float) -> Bounds:
        """The same for a density ``factor`` times as large."""
        return replace(
            self,
            lower=self.lower * factor,
            discrete=self.discrete * factor,
            upper=self.upper * factor,
            moved=self.moved * factor,
            flow=self.flow * np.float32(factor),
            gain_loss=self.gain_loss * factor,
        )

    @property
    def solver_upper(self) -> float:
        """Upper bound of the supremum over trilinear functions."""
        return min(self.discrete, self.upper)


class Problem:
    """sup of integral f rho over trilinear f on a mesh, |grad f| <= 1, |f| <= half the reach.

    Parameters
    ----------
    mesh : Mesh
    density : ndarray, shape [z, y, x]
        rho, the difference of both densities.
    half_reach : float
        R/2 [mm], or infinity.
    """

    def __init__(self, mesh: Mesh, density: NDArray[np.float64], half_reach: float) -> None:
        self.mesh = mesh
        self.half_reach = half_reach
        self.balanced = not np.isfinite(half_reach)
        self.mass = density * mesh.voxel_volume
        self.loaded, self.load_flow = mesh.load(density)
        self._work = np.empty(mesh.shape)
        self._rows = np.empty(mesh.shape[0]), np.empty(mesh.shape[0])

    def _planes(self, kernel: Any, *args: Any) -> float:
        """Sum of a kernel's plane sums, added in order."""
        each_slab(kernel, self.mesh.shape[0], self.mesh.size, *args, self._rows[0])
        return float(self._rows[0].sum())

    def lower(self, f: Fields, bounds: Bounds) -> None:
        """Raise the lower bound: repair octants that are too steep, then scale f until it is feasible."""
        mesh = self.mesh
        g = f.copy() if self.balanced else np.clip(f, -self.half_reach, self.half_reach)
        last = -np.inf
        for _ in range(_SWEEPS):
            each_slab(kernels.squared_slopes, mesh.shape[0], mesh.size, g, *mesh.steps, self._rows[0])
            slope = float(np.sqrt(self._rows[0].max()))
            each_slab(kernels.pair_sums, mesh.shape[0], mesh.size, g, self.loaded, *self._rows)
            excess = max(1.0, slope, float(self._rows[1].max()) / self.half_reach) * (1 + 1e-12)
            value = float(self._rows[0].sum()) / excess
            if value > bounds.lower:
                bounds.lower = value
                bounds.potential = g / np.float32(excess)
            if excess < 1.0005 or value - last < _SWEEP_GAIN * abs(value):
                return
            last = value
            for color in range(3):
                rows = (mesh.shape[0] - color + 2) // 3
                each_slab(kernels.shorten, rows, mesh.size, color, g, 1.0002, 0.9998, *mesh.steps)

    def raw_gap(self, f: Fields, p: Fields) -> float:
        """Relative difference of both sides as they are, feasible or not: how far the iteration has come."""
        mesh = self.mesh
        each_slab(kernels.pair_sums, mesh.shape[0], mesh.size, f, self.loaded, *self._rows)
        value = float(self._rows[0].sum())
        flow = np.empty((3, *mesh.shape), np.float32)
        each_slab(kernels.multiplier_flux, mesh.shape[0], mesh.size, p, *mesh.volumes, *mesh.distances, flow)
        price = min(self.half_reach, 4 * mesh.spacing)
        cost = self._planes(kernels.multiplier_cost, p, *mesh.volumes) + price * self._leftover(
            self.loaded, flow
        )
        return abs(cost - value) / max(cost, 1e-300)

    def _leftover(self, mass: Fields, flow: Fields) -> float:
        """Absolute mass that a flow leaves unmatched; the signed one lies in the work array."""
        return self._planes(kernels.unmatched, mass, flow, self._work)

    def upper(self, f: Fields, p: Fields, bounds: Bounds) -> None:
        """Lower both upper bounds with the flow that the multipliers carry."""
        mesh = self.mesh
        flow = np.empty((3, *mesh.shape), np.float32)
        each_slab(kernels.multiplier_flux, mesh.shape[0], mesh.size, p, *mesh.volumes, *mesh.distances, flow)
        left = self._leftover(self.loaded, flow)
        if self.balanced:
            u = mesh.poisson(self._work)
            closed = p.copy()
            each_slab(kernels.add_gradient, mesh.shape[0], mesh.size, u, *mesh.volumes, closed)
            mesh.add_potential_flow(u, flow)
            each_slab(
                kernels.multiplier_flux,
                mesh.shape[0],
                mesh.size,
                closed,
                *mesh.volumes,
                *mesh.distances,
                flow,
            )
            left = self._leftover(self.loaded, flow) * mesh.diameter / 2
            cost = self._planes(kernels.multiplier_cost, closed, *mesh.volumes)
        else:
            left *= self.half_reach
            cost = self._planes(kernels.multiplier_cost, p, *mesh.volumes)
        bounds.discrete = min(bounds.discrete, cost + left)
        self._add_load_flow(f, flow)
        self.continuum(flow, f, bounds)

    def _add_load_flow(self, f: Fields, flow: Fields) -> None:
        """Add the flow between hats and voxels, where moving is cheaper than gain or loss."""
        if self.balanced:
            flow += self.load_flow
            return
        inside = np.abs(f) < 0.995 * self.half_reach
        for axis in range(3):
            low = (slice(None),) * axis + (slice(0, -1),)
            high = (slice(None),) * axis + (slice(1, None),)
            flow[axis][low] += self.load_flow[axis][low] * (inside[low] | inside[high])

    def continuum(self, flow: Fields, f: Fields, bounds: Bounds) -> float:
        """Lower the continuum's upper bound with any flow: leave what is left, or route it by a potential.

        Returns what the flow costs at best.
        """
        cost = np.inf
        if not self.balanced:
            cost = self._take(flow, bounds)
            self._work *= np.abs(f) < 0.995 * self.half_reach
            if not self._work.any():
                return cost
            self._work -= self._work.mean()
        else:
            self._leftover(self.mass, flow)
        routed = flow.copy()
        self.mesh.add_potential_flow(self.mesh.poisson(self._work), routed)
        return min(cost, self._take(routed, bounds))

    def _take(self, flow: Fields, bounds: Bounds) -> float:
        """Keep a flow where it is the cheapest so far; its cost."""
        left = self._leftover(self.mass, flow)
        moved = self._planes(kernels.flux_cost, flow, *self.mesh.widths)
        price = self.mesh.diameter / 2 if self.balanced else self.half_reach
        if moved + price * left < bounds.upper:
            bounds.upper = moved + price * left
            bounds.moved = moved
            bounds.flow = flow.copy()
            bounds.gain_loss = self._work.copy()
        return moved + price * left


class DualIteration:
    """Over-relaxed primal-dual iteration on one mesh: potential f against six multipliers a node.

    Parameters
    ----------
    mesh : Mesh
    load : ndarray, float32, shape [z, y, x]
        Integrals of the density against the hats, over the hats' volumes.
    half_reach : float
    f, p : ndarray, float32
        Start; changed in place.
    """

    def __init__(self, mesh: Mesh, load: Fields, half_reach: float, f: Fields, p: Fields) -> None:
        self.mesh, self.load, self.f, self.p = mesh, load, f, p
        self.half_reach = half_reach
        self.balanced = not np.isfinite(half_reach)
        self._limit = _NO_REACH if self.balanced else np.float32(half_reach)
        self._bar = np.empty_like(f)
        self._count = 0
        self._zero = np.zeros_like(f) if self.balanced else None
        self._volume = mesh.node_volume.astype(np.float32) if self.balanced else None
        self._ratio = 0.05

    def _norm(self, x: Fields) -> float:
        """Euclidean norm."""
        flat = x.reshape(-1, *self.mesh.shape[1:])
        return float(np.sqrt(dot(flat, flat)))

    def _set_ratio(self) -> None:
        """Ratio of the steps from the sizes of both variables, at first and a few times later."""
        size = self._norm(self.p)
        if self._count not in (0, 10, 30, 100, 200, 400) or size == 0.0:
            return
        if self.balanced:
            self._ratio = 5.0 * max(size, 1e-6) / np.sqrt(2 * self.mesh.size)
            return
        spacing = self.mesh.spacing
        potential = min(self._norm(self.f), 3 * spacing * self.mesh.size**0.5)
        self._ratio = max(_BALANCE * size / max(potential, 1e-20), 1e-4)

    def run(self, n: int) -> None:
        """Iterate n times."""
        for _ in range(n):
            self._set_ratio()
            if self.balanced:
                self._step_balanced()
            else:
                k = self.mesh.stiffness
                self._ascend(self.f, 1 / (self._ratio * k), _OVER)
                self._project(self._ratio / k)
            self._count += 1

    def _ascend(self, f: Fields, step: float, over: np.float32) -> None:
        """Step of the potential; leaves its extrapolation."""
        m = self.mesh
        each_slab(
            kernels.ascend,
            m.shape[0],
            m.size,
            f,
            self._bar,
            self.p,
            self.load,
            np.float32(step),
            self._limit,
            over,
            *m.coefficients,
        )

    def _project(self, step: float) -> None:
        """Step of the multipliers."""
        m = self.mesh
        each_slab(kernels.project, m.shape[0], m.size, self._bar, self.p, np.float32(step), _OVER, *m.slopes)

    def _step_balanced(self) -> None:
        """Step in the metric of the gradient: the potential moves by a Poisson solve of the residual."""
        assert self._zero is not None
        assert self._volume is not None
        self._ascend(self._zero, 1.0, np.float32(0))
        u = self.mesh.poisson(self._bar * self._volume)
        u *= np.float32(0.25 / (self._ratio * self.mesh.lumped))
        np.add(self.f, 2 * u, out=self._bar)
        u *= _OVER
        self.f += u
        self._project(self._ratio)


class FluxIteration:
    """Over-relaxed primal-dual iteration for the cheapest flux on voxel faces, root mean square cost a voxel.

    Parameters
    ----------
    mesh : Mesh
    density : ndarray, float32, shape [z, y, x]
    half_reach : float
    f : ndarray
        Potential to start from.
    flow : ndarray, shape [3, z, y, x]
        Mass flow through the upper faces to start from.
    """

    def __init__(self, mesh: Mesh, density: Fields, half_reach: float, f: Fields, flow: Fields) -> None:
        self.mesh, self.density = mesh, density
        self._limit = np.float32(min(half_reach, _NO_REACH))
        self._area = [mesh.voxel_volume / w for w in mesh.spread_widths]
        self.f = f.astype(np.float32, copy=True)
        self.m = np.stack([flow[axis] / area for axis, area in enumerate(self._area)]).astype(np.float32)
        self._y = self._slopes()
        self._bar = np.zeros_like(self.m)
        self._faces = tuple(v for a in mesh.axes for v in a.face_weights)
        self._rates = tuple((1 / w).astype(np.float32) for w in mesh.widths)
        self._norm2 = sum(a.stiffest_flux for a in mesh.axes) or 1.0
        size = float(np.linalg.norm(self.m))
        spacing = mesh.spacing
        potential = min(float(np.linalg.norm(self.f)), 3 * spacing * mesh.size**0.5)
        self._ratio = max(_FLUX_BALANCE * size / max(potential, 1e-20), 1e-4)

    def _slopes(self) -> Fields:
        """Multipliers of the flux from the potential's slopes: -grad f, at most 1 long."""
        y = np.zeros((6, *self.mesh.shape), np.float32)
        for axis, one in enumerate(self.mesh.axes):
            if one.n > 1:
                y[2 * axis] = -np.gradient(self.f, one.node.astype(np.float32), axis=axis)
        y /= np.maximum(1, np.sqrt(np.einsum("aijk,aijk->ijk", y, y)))
        return y

    def run(self, n: int) -> None:
        """Iterate n times."""
        m = self.mesh
        t = self._ratio / np.sqrt(self._norm2)
        steps = np.float32(0.5 / (t * self._norm2)), np.float32(0.5 / t)
        for _ in range(n):
            each_slab(
                flux_kernels.descend,
                m.shape[0],
                m.size,
                self.f,
                self._y,
                self.m,
                self._bar,
                np.float32(t),
                _OVER,
                *self._faces,
            )
            each_slab(
                flux_kernels.balance,
                m.shape[0],
                m.size,
                self.f,
                self._y,
                self._bar,
                self.density,
                *steps,
                self._limit,
                _OVER,
                *self._rates,
            )

    @property
    def flow(self) -> Fields:
        """Mass flow through the upper faces."""
        return np.stack([self.m[axis] * area for axis, area in enumerate(self._area)]).astype(np.float32)
