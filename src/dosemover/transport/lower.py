"""The lower bound's search: better multiples and better potentials for the certified half-steps."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dosemover.transport.bounds import half_step_lower_bounds
from dosemover.transport.monge_ampere import middle_densities, midpoint_newton
from dosemover.transport.shape_kernels import dilate
from dosemover.transport.slabs import each_slab
from dosemover.transport.spline import SplineSpace, solve_potential

_LOG = logging.getLogger(__name__)

_LARGEST_EXCESS = 3.0
"""Cap on the extra mobility of a voxel in one round."""

_THIN_EXCESS = 300.0
"""The same where there is next to no dose: flattening the potential costs nothing there."""

_SCALES = (1.0, 0.92, 0.8)
"""Multiples of a potential that are certified in one pass."""

_WORTH = 1.002
"""Gain of two rounds running, in the squared bound, below which more of their kind are not worth it."""

_FLOOR = 1e-4
"""Smallest mobility over the largest: dose too thin to matter does not slow the solver down."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Quadratic:
    """Second-order model of the dual functional: mobility and load, about a potential or about zero."""

    theta: NDArray[np.float64]
    source: NDArray[np.float64]
    load: NDArray[np.float64] | None


class LowerBoundSearch:
    r"""Largest certified lower bound of the squared distance times mass that a few rounds find.

    A round certifies multiples of a potential, and solves for the potential again with the mobility raised
    where the certificate's remainder terms cost most: theta (1 + excess), which flattens w there. Newton
    steps on the midpoint densities serve large displacements. At last the voxels are halved, so that the
    bounds of the Hessian become local. ``best`` holds at any time, by the ``potential`` beside it.

    Parameters
    ----------
    space : SplineSpace
    a, b : ndarray, shape space.grid.shape
        Densities [Gy].
    length_mm : float
        L [mm]; inf for balanced transport of equal masses.
    target : float
        Stop where the bound has reached it.
    """

    def __init__(
        self,
        space: SplineSpace,
        a: NDArray[np.float64],
        b: NDArray[np.float64],
        *,
        length_mm: float,
        target: float,
    ) -> None:
        self.space, self.a, self.b = space, a, b
        self.length_mm, self.target = length_mm, target
        self.screening = 0.0 if np.isinf(length_mm) else 1 / length_mm**2
        self.best = 0.0
        self.potential: tuple[SplineSpace, NDArray[np.float64]] | None = None
        self.excess = np.zeros(space.grid.shape)
        theta = (a + b) / 2
        self._thin = theta < _FLOOR * float(theta.max())
        self._model = _Quadratic(
            theta=np.maximum(theta, _FLOOR * float(theta.max())), source=a - b, load=None
        )

    @property
    def reached(self) -> bool:
        """Whether the bound is as good as was asked for."""
        return self.best >= self.target

    def certify(self, w: NDArray[np.float64], *, halve: bool = False) -> float:
        """Certify multiples of a potential; keep the best bound and where the remainders cost most."""
        space, scales = self.space, _SCALES
        if halve:
            (space, w), scales = self.space.refined(w), (1.0, 1.08)
        values, excess = half_step_lower_bounds(
            space, w, self.a, self.b, penalty=4 * self.length_mm**2, scales=scales
        )
        self.excess = _block_means(excess, self.a.shape)
        if self._thin.any():  # their slopes bound the window of their neighbours
            around = np.empty(self.a.shape, np.float32)
            own = self.excess.astype(np.float32)
            each_slab(dilate, own.shape[0], own.size, own, around)
            self.excess[self._thin] = _THIN_EXCESS * around[self._thin]
        found = float(np.max(values))
        if found > self.best:
            self.best, self.potential = found, (space, scales[int(np.argmax(values))] * w)
        _LOG.debug("certified %s at %s, halved %s", values, scales, halve)
        return found

    def newton(self, w: NDArray[np.float64]) -> NDArray[np.float64]:
        """Newton steps on the midpoint densities, kept where they certify more."""
        before, excess = self.best, self.excess
        pushed = midpoint_newton(self.space, self.a, self.b, w, length_mm=self.length_mm, steps=2)
        if pushed.n_iterations == 0 or self.certify(pushed.w) <= before:
            self.excess = excess
            return w
        ra, rb = middle_densities(self.space, pushed.w, self.a, self.b, length_mm=self.length_mm)
        theta = np.maximum(pushed.middle, _FLOOR * float(pushed.middle.max()))
        load = np.empty_like(pushed.w)
        weights = theta * self.space.grid.voxel_volume_mm3
        self.space.apply(pushed.w, weights, weights * self.screening, load)
        self._model = _Quadratic(theta=theta, source=ra - rb, load=load)
        return pushed.w

    def flatten(self, w: NDArray[np.float64], extra: NDArray[np.float64]) -> NDArray[np.float64]:
        """Solve again with the mobility raised by ``extra``."""
        model = self._model
        return solve_potential(
            self.space,
            model.theta * (1 + extra),
            model.source,
            screening=self.screening,
            screen=model.theta,
            load=model.load,
            start=w,
            tolerance=5e-3,
        ).x

    def run(self, w: NDArray[np.float64], *, rounds: int, halve: bool, known: bool = False) -> float:
        """Search from a first potential, ``known`` if certified already; the bound is also in ``best``."""
        if not known:
            self.certify(w)
        if self.reached or rounds == 0:
            return self.best
        w = self.newton(w)
        cap = np.where(self._thin, _THIN_EXCESS, _LARGEST_EXCESS)
        extra = np.minimum(self.excess, cap)
        plan, idle = [False] * rounds + [True] * (2 if halve else 0), 0
        while plan and not self.reached:
            halved, before = plan.pop(0), self.best
            w = self.flatten(w, extra)
            self.certify(w, halve=halved)
            extra = (extra + np.minimum(2 * self.excess, cap)) / 2
            idle = idle + 1 if self.best < _WORTH * before else 0
            if idle == 2:
                plan = [again for again in plan if again and not halved]
        return self.best


def _block_means(x: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Means over the halves of each voxel."""
    n0, n1, n2 = shape
    f0, f1, f2 = (m // n for m, n in zip(x.shape, shape, strict=True))
    return x.reshape(n0, f0, n1, f1, n2, f2).mean(axis=(1, 3, 5), dtype=np.float64)
