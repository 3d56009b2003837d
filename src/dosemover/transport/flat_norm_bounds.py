"""Certified bounds of the flat norm: of trilinear functions, of splines, of fluxes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dosemover.transport import flat_norm_bound_kernels as kernels
from dosemover.transport import flat_norm_spline_kernels as spline_kernels
from dosemover.transport.flat_norm_mesh import Mesh
from dosemover.transport.slabs import each_slab

Fields = NDArray[Any]

_SWEEPS = 40
"""Most repair sweeps over gradients that are too long."""

_SWEEP_GAIN = 1e-4
"""Least relative gain for which another sweep is made."""

_PATIENCE = 3
"""Sweeps without that gain after which splines are left alone: the longest gradient may rise at first."""

_EXCESS = 0.1
"""Excess over 1 at which gradients are left alone, over the tolerance: f is scaled by what remains."""

_LEAST_EXCESS = 2e-4
"""The same where the tolerance is so small that single precision shows."""


@dataclass(kw_only=True, eq=False)
class Bounds:
    """What has been found: all in units of the density times mm4, best so far.

    ``trilinear`` and ``discrete`` enclose the supremum over trilinear test functions; ``trilinear`` and
    ``spline`` are below, ``upper`` is above that over all of them.
    """

    trilinear: float = -np.inf
    spline: float = -np.inf
    discrete: float = np.inf
    upper: float = np.inf
    potential: Fields = field(default_factory=lambda: np.zeros(0))
    coefficients: Fields = field(default_factory=lambda: np.zeros(0))
    flow: Fields = field(default_factory=lambda: np.zeros(0))
    moved: float = 0.0
    gain_loss: Fields = field(default_factory=lambda: np.zeros(0))
    n_iterations: int = 0
    interrupted: bool = False

    def scaled(self, factor: float) -> Bounds:
        """The same for a density ``factor`` times as large."""
        return replace(
            self,
            trilinear=self.trilinear * factor,
            spline=self.spline * factor,
            discrete=self.discrete * factor,
            upper=self.upper * factor,
            moved=self.moved * factor,
            flow=self.flow * np.float32(factor),
            gain_loss=self.gain_loss * factor,
        )

    @property
    def lower(self) -> float:
        """Lower bound of the supremum over all test functions; they meet the upper one to rounding."""
        return min(max(self.trilinear, self.spline), self.upper)

    @property
    def solver(self) -> tuple[float, float]:
        """Interval of the supremum over trilinear functions, from 0 where none has been tried."""
        upper = min(self.discrete, self.upper)
        return min(max(self.trilinear, 0.0), upper), upper

    @property
    def gap(self) -> float:
        """Width of the continuum's interval over its upper end."""
        return 1 - self.lower / self.upper

    def closed(self, tolerance: float) -> bool:
        """Whether the continuum's interval is narrow enough."""
        return self.lower >= (1 - tolerance) * self.upper


def _too_long(excess: float) -> tuple[float, float]:
    """Length of a gradient from which on it is repaired, and the length that repair leaves."""
    excess = max(excess, _LEAST_EXCESS)
    return 1 + excess, 1 + excess / 2


class Problem:
    """sup of integral f rho over |grad f| <= 1, |f| <= half the reach, on a mesh.

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
        self.spline_loaded = mesh.spline_load(self.mass)
        self._work = np.empty(mesh.shape)
        self._rows = np.empty(mesh.shape[0]), np.empty(mesh.shape[0])

    def _planes_most(self, kernel: Any, *args: Any) -> float:
        """Largest of a kernel's plane maxima."""
        each_slab(kernel, self.mesh.shape[0], self.mesh.size, *args, self._rows[0])
        return float(self._rows[0].max())

    def _planes(self, kernel: Any, *args: Any) -> float:
        """Sum of a kernel's plane sums, added in order."""
        each_slab(kernel, self.mesh.shape[0], self.mesh.size, *args, self._rows[0])
        return float(self._rows[0].sum())

    def trilinear(self, f: Fields, bounds: Bounds, tolerance: float) -> None:
        """Raise the lower bound: repair octants that are too steep, then scale f until it is feasible."""
        mesh = self.mesh
        trigger, limit = _too_long(_EXCESS * tolerance)
        g = f.copy() if self.balanced else np.clip(f, -self.half_reach, self.half_reach)
        last = -np.inf
        for _ in range(_SWEEPS):
            slope = self._planes_most(kernels.squared_slopes, g, *mesh.steps) ** 0.5
            value, excess = self._paired(g, self.loaded, slope)
            if value > bounds.trilinear:
                bounds.trilinear = value
                bounds.potential = g / np.float32(excess)
            if excess <= trigger * (1 + 1e-6) or value - last < _SWEEP_GAIN * abs(value):
                return
            last = value
            for color in range(3):
                rows = (mesh.shape[0] - color + 2) // 3
                each_slab(kernels.shorten, rows, mesh.size, color, g, trigger, limit, *mesh.steps)

    def spline(self, f: Fields, bounds: Bounds, tolerance: float, *, repair: float | None = None) -> float:
        """Raise the lower bound with f as the coefficients of a spline, repaired if asked, then scaled.

        ``repair`` is the excess over 1 down to which gradients are shortened. Returns what the spline as it
        is would give, feasible or not.
        """
        mesh = self.mesh
        trigger, limit = _too_long(max(repair or 0.0, _EXCESS * tolerance))
        c = f.copy() if self.balanced else np.clip(f, -self.half_reach, self.half_reach)
        raw, best, idle = 0.0, -np.inf, 0
        for sweep in range(_SWEEPS):
            slope = self._planes_most(spline_kernels.spline_slopes, c, *mesh.spline_steps) ** 0.5
            value, excess = self._paired(c, self.spline_loaded, slope)
            raw = value * excess if sweep == 0 else raw
            if value > bounds.spline:
                bounds.spline = value
                bounds.coefficients = c / np.float32(excess)
            idle = idle + 1 if value - best < _SWEEP_GAIN * abs(value) else 0
            best = max(best, value)
            done = bounds.closed(tolerance) or excess <= trigger * (1 + 1e-6) or idle == _PATIENCE
            if repair is None or done:
                break
            for color in range(3):
                rows = (mesh.shape[0] - color + 2) // 3
                each_slab(
                    spline_kernels.shorten_spline,
                    rows,
                    mesh.size,
                    color,
                    c,
                    trigger,
                    limit,
                    *mesh.spline_steps,
                )
        return raw

    def _paired(self, f: Fields, load: Fields, slope: float) -> tuple[float, float]:
        """Integral of f once it is scaled until feasible, and what it is divided by."""
        each_slab(kernels.pair_sums, self.mesh.shape[0], self.mesh.size, f, load, *self._rows)
        excess = max(1.0, slope, float(self._rows[1].max()) / self.half_reach) * (1 + 1e-12)
        return float(self._rows[0].sum()) / excess, excess

    def raw_gap(self, f: Fields, p: Fields) -> float:
        """Relative difference of both sides of the smooth iteration as they are, feasible or not."""
        mesh = self.mesh
        each_slab(kernels.pair_sums, mesh.shape[0], mesh.size, f, self.loaded, *self._rows)
        value = float(self._rows[0].sum())
        price = min(self.half_reach, 4 * mesh.spacing)
        left = self._leftover(self.loaded, self._carried(p))
        cost = self._planes(kernels.mean_cost, p, *mesh.volumes, *mesh.counts) + price * left
        return abs(cost - value) / max(cost, 1e-300)

    def _leftover(self, mass: Fields, flow: Fields) -> float:
        """Absolute mass that a flow leaves unmatched; the signed one lies in the work array."""
        return self._planes(kernels.unmatched, mass, flow, self._work)

    def discrete(self, p: Fields, bounds: Bounds) -> None:
        """Lower the upper bound of the supremum over trilinear functions."""
        mesh = self.mesh
        left = self._leftover(self.loaded, self._carried(p))
        if self.balanced:  # close the flow, to rounding
            u, p = mesh.poisson(self._work), p.copy()
            each_slab(kernels.add_gradient, mesh.shape[0], mesh.size, u, *mesh.volumes, p)
            left = self._leftover(self.loaded, self._carried(p))
        price = mesh.diameter / 2 if self.balanced else self.half_reach
        cost = self._planes(kernels.multiplier_cost, p, *mesh.volumes)
        bounds.discrete = min(bounds.discrete, cost + price * left)

    def upper(self, f: Fields, p: Fields, bounds: Bounds) -> None:
        """Lower the continuum's upper bound with the flow that the multipliers carry."""
        flow = self._carried(p)
        self._add_load_flow(f, flow)
        self.continuum(flow, f, bounds)

    def _carried(self, p: Fields) -> Fields:
        """Mass flow of the multipliers through the upper faces."""
        m = self.mesh
        flow = np.empty((3, *m.shape), np.float32)
        each_slab(kernels.multiplier_flux, m.shape[0], m.size, p, *m.volumes, *m.distances, flow)
        return flow

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
