"""Displacement, change, index and residual of the Dose Mover's Distance, voxel by voxel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dosemover.dose import DoseMap
from dosemover.transport.measure import measure_pair
from dosemover.transport.mover_plan import StaticBounds
from dosemover.transport.slabs import each_slab
from dosemover.transport.spline import SplineSpace

if TYPE_CHECKING:
    from dosemover.transport.dose_mover import MoverProblem

_LEAST_DOSE = 0.1
"""Share of the reference maximum from which on a voxel counts in the residual's summary."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Motion:
    """Where the dose of each voxel goes, and how it grows.

    Parameters
    ----------
    displacement_mm : ndarray, shape [3, z, y, x]
        v, components along x, y, z.
    growth : ndarray, shape [z, y, x]
        Arrived over left dose, 1 + c.
    potential : ndarray, shape [z, y, x]
        u [mm2].
    """

    displacement_mm: NDArray[np.float32]
    growth: NDArray[np.float64]
    potential: NDArray[np.float64]


def motion_of_potential(problem: MoverProblem, space: SplineSpace, u: NDArray[np.float64]) -> Motion:
    """Motion along the gradient of the estimate's potential.

    The midpoint z of a path that starts in x solves z = x + grad u(z)/2; the displacement has length
    2 L atan(|grad u(z)|/2 L) (the cone's geodesic), the amplitude grows by (1 + u/4L^2)/(1 - u/4L^2).
    """
    length = problem.length_mm
    middle = space.midpoints(u)
    norm = np.sqrt(np.square(middle[1:]).sum(axis=0))
    stretch = np.where(
        norm > 0, 2 * length * np.arctan(norm / (2 * length)) / np.where(norm > 0, norm, 1), 1.0
    )
    displacement = np.stack([middle[3] * stretch, middle[2] * stretch, middle[1] * stretch])
    amplitude = np.clip(middle[0] / (4 * length**2), -0.999, 0.999)
    return Motion(
        displacement_mm=displacement.astype(np.float32),
        growth=np.square((1 + amplitude) / (1 - amplitude)),
        potential=space.means(u),
    )


def motion_of_plan(problem: MoverProblem, static: StaticBounds) -> Motion:
    """Mean displacement and growth of the dose of the cells of a plan, interpolated to the voxels."""
    bound = static.bound
    displacement = np.stack([static.on(v, problem.grid) for v in bound.displacement_mm[::-1]])
    return Motion(
        displacement_mm=displacement.astype(np.float32),
        growth=np.square(static.on(bound.weight, problem.grid)),
        potential=static.on(-static.prices[0] / 2, problem.grid),
    )


def mover_fields(
    problem: MoverProblem,
    motion: Motion,
    reference: DoseMap,
    evaluated: DoseMap,
    mask: ArrayLike | None,
) -> tuple[dict[str, NDArray[Any]], dict[str, float]]:
    """Displacement, change, index and residual of each voxel, and the residual's summary."""
    from dosemover.transport import spline_kernels as kernels

    displacement, change = motion.displacement_mm, motion.growth - 1
    index = np.sqrt(np.square(displacement).sum(axis=0) + np.square(problem.length_mm * change))
    dose = measure_pair(reference=reference, evaluated=evaluated, mask=mask)
    residual = np.empty_like(dose.a)
    axes = [*dose.grid.edges_mm, *dose.grid.centers_mm]
    each_slab(
        kernels.moved_difference, residual.shape[0], residual.size, displacement, dose.a, dose.b, *axes,
        residual,
    )  # fmt: skip
    top = reference.max_gy
    matters = np.maximum(dose.a, dose.a + residual) >= _LEAST_DOSE * top
    size = np.abs(residual[matters]) if matters.any() else np.abs(residual).ravel()
    maps = {
        "displacement_mm": displacement,
        "change_percent": (100 * change).astype(np.float32),
        "index_mm": index.astype(np.float32),
        "residual_gy": residual.astype(np.float32),
        "potential": motion.potential,
    }
    for values in maps.values():
        values.setflags(write=False)
    return maps, {
        "dmd_residual_max_percent": 100 * float(size.max()) / top,
        "dmd_residual_p99_percent": 100 * float(np.quantile(size, 0.99)) / top,
    }
