"""Primal-dual iterations for the flat norm on one grid: of the potential, and of the flux."""

from __future__ import annotations

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

_NO_REACH = np.float32(1e30)


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
    smooth : bool
        Limit the mean square of the slopes on both sides of a node, which is second-order accurate for
        smooth f, instead of the largest, which makes trilinear f feasible.
    """

    def __init__(
        self, mesh: Mesh, load: Fields, half_reach: float, f: Fields, p: Fields, *, smooth: bool
    ) -> None:
        self.mesh, self.load, self.f, self.p = mesh, load, f, p
        self.smooth = smooth
        self._stiffness = mesh.mean_stiffness if smooth else mesh.stiffness
        self._lumped = mesh.mean_lumped if smooth else mesh.lumped
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
                k = self._stiffness
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
        kernel, slopes = (kernels.project_mean, m.mean_slopes) if self.smooth else (kernels.project, m.slopes)
        each_slab(kernel, m.shape[0], m.size, self._bar, self.p, np.float32(step), _OVER, *slopes)

    def _step_balanced(self) -> None:
        """Step in the metric of the gradient: the potential moves by a Poisson solve of the residual."""
        assert self._zero is not None
        assert self._volume is not None
        self._ascend(self._zero, 1.0, np.float32(0))
        u = self.mesh.poisson(self._bar * self._volume)
        u *= np.float32(0.25 / (self._ratio * self._lumped))
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
