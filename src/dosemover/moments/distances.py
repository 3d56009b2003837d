"""Moment-based distances between two dose maps."""

from __future__ import annotations

import numpy as np

from dosemover.dose import DoseMap
from dosemover.errors import InputError
from dosemover.grid import Grid, union_grid
from dosemover.moments.galerkin import GalerkinLevel, GalerkinResult, galerkin_dmd, galerkin_w2
from dosemover.moments.tally import DEFAULT_DEGREE, Box, tally_map
from dosemover.transport.result import TransportResult


def support_box(*maps: DoseMap) -> Box:
    """Smallest box of whole voxels that holds the dose of every map: (low, high) [mm] along z, y, x.

    Raises
    ------
    InputError
        When a map has no dose.
    """
    low, high = np.full(3, np.inf), np.full(3, -np.inf)
    for dose in maps:
        if not dose.dose_gy.any():
            raise InputError(
                f"{dose.name or 'a map'} holds no dose: every voxel is 0. It has no support, no moments "
                "but 0. Check that the right file was exported."
            )
        for axis, edges in enumerate(dose.grid.edges_mm):
            others = tuple(i for i in range(3) if i != axis)
            hit = np.flatnonzero(dose.dose_gy.any(axis=others))
            low[axis] = min(low[axis], edges[hit[0]])
            high[axis] = max(high[axis], edges[hit[-1] + 1])
    z, y, x = ((float(a), float(b)) for a, b in zip(low, high, strict=True))
    return z, y, x


def _as_result(found: GalerkinResult, grid: Grid, degree: int) -> TransportResult:
    """The chosen level as a transport result, with every level in the settings."""
    chosen = found.chosen
    return TransportResult(
        value=chosen.value_mm,
        lower=None,
        upper=None,
        grid=grid,
        parts={"floor_mm": chosen.floor_mm or 0.0, "sd_mm": chosen.sd_mm or 0.0},
        settings={
            "degree": found.degree,
            "tally_degree": degree,
            "condition": chosen.condition,
            "levels": [_level(level) for level in found.levels],
            "floor_mm": chosen.floor_mm,
            "floor_sd_mm": chosen.floor_sd_mm,
            "p": found.p,
            "p_by_relabelling": found.relabelled_p is not None,
        },
        status=found.status,
    )


def _level(level: GalerkinLevel) -> dict[str, float | int | None]:
    """One level as plain numbers."""
    names = ("degree", "value_mm", "floor_mm", "floor_sd_mm", "sd_mm", "p", "condition", "n_moments")
    return {name: getattr(level, name) for name in names}


def moment_w2(*, reference: DoseMap, evaluated: DoseMap, degree: int = DEFAULT_DEGREE) -> TransportResult:
    """Estimate of W_2 between the normalised maps from their moments.

    Parameters
    ----------
    reference, evaluated : DoseMap
    degree : int
        Degree of the tallies; polynomials go to half of it.

    Returns
    -------
    TransportResult
        ``value`` [mm]: midpoint Galerkin at the degree that the noise allows; ``lower`` and
        ``upper`` None: the estimate is not a bound. ``settings["levels"]`` holds every degree with
        its floor.

    Notes
    -----
    *Limits* and *Cost* as `galerkin_w2`; the tallies take one pass over each map.

    References
    ----------
    Peyre 2018; Mula & Nouy 2024 (moments for optimal transport).
    """
    box = support_box(reference, evaluated)
    tallies = [tally_map(dose, box_mm=box, degree=degree) for dose in (reference, evaluated)]
    found = galerkin_w2(reference=tallies[0], evaluated=tallies[1])
    return _as_result(found, reference.grid, degree)


def moment_dmd(
    *,
    reference: DoseMap,
    evaluated: DoseMap,
    exchange_mm_per_percent: float = 1.0,
    ambient_dose_percent: float = 0.1,
    degree: int = DEFAULT_DEGREE,
) -> TransportResult:
    """Estimate of the Dose Mover's Distance from moments.

    Parameters
    ----------
    reference, evaluated : DoseMap
    exchange_mm_per_percent : float
        L = 100 x it [mm].
    ambient_dose_percent : float
        Ambient dose over the union of both boxes [% of the reference maximum].
    degree : int
        Degree of the tallies; polynomials go to half of it.

    Returns
    -------
    TransportResult
        ``value`` [mm], without bounds.
    """
    grid = union_grid(reference.grid, evaluated.grid)
    tallies = [tally_map(dose, box_mm=grid.box_mm, degree=degree) for dose in (reference, evaluated)]
    found = galerkin_dmd(
        reference=tallies[0],
        evaluated=tallies[1],
        exchange_mm_per_percent=exchange_mm_per_percent,
        ambient_dose_gy=ambient_dose_percent / 100 * reference.max_gy,
    )
    return _as_result(found, grid, degree)
