"""Every moment-based distance between two maps, level by level, each with its noise."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from dosemover._runtime import Progress, no_progress
from dosemover.dose import DoseMap
from dosemover.errors import InputError
from dosemover.grid import union_grid
from dosemover.moments.distances import support_box
from dosemover.moments.galerkin import GalerkinResult, galerkin_dmd, galerkin_w2
from dosemover.moments.gaussian import GaussianMoments, bures_squared, tally_gaussian
from dosemover.moments.moment_noise import (
    Statistic,
    drawn_noise,
    gaussian_statistic,
    has_noise,
    mean_statistic,
    sos_statistic,
)
from dosemover.moments.moment_sos import informative_axes, moment_sos
from dosemover.moments.relaxation import Basis, check_order
from dosemover.moments.tally import DEFAULT_DEGREE, MomentTally, tally_map

NO_NOISE = "no noise known: neither uncertainty nor batches"
"""What the status of every level says of maps without noise."""


@dataclass(frozen=True, kw_only=True, eq=False)
class MomentLevel:
    """One moment-based distance.

    Parameters
    ----------
    level : int
        0 mean, 1 Gaussian, 2 Galerkin, 3 moment-SoS.
    key : str
        "mean_shift_mm", "bures_w2_mm", "moment_w2_mm", "moment_dmd_mm" or "moment_sos_R_mm".
    value_mm : float or None
    certified_lower : bool
        Whether the value is a lower bound on W_2.
    floor_mm, floor_sd_mm, sd_mm, p : float or None
        Mean and standard deviation under noise alone, standard deviation at hand, p value.
    seconds : float
        Of the distance itself, without its noise.
    status : str
    settings : dict
    """

    level: int
    key: str
    value_mm: float | None
    certified_lower: bool
    floor_mm: float | None
    floor_sd_mm: float | None
    sd_mm: float | None
    p: float | None
    seconds: float
    status: str
    settings: dict[str, Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class MomentLevels:
    """All levels, and the tallies that they come from.

    Parameters
    ----------
    levels : tuple of MomentLevel
    reference, evaluated : MomentTally
        On the support box of both maps.
    tally_seconds : float
    """

    levels: tuple[MomentLevel, ...]
    reference: MomentTally
    evaluated: MomentTally
    tally_seconds: float

    def __getitem__(self, key: str) -> MomentLevel:
        """The level with a key."""
        return next(level for level in self.levels if level.key == key)

    def summary(self) -> dict[str, float | None]:
        """Values and floors in one flat dictionary."""
        rows: dict[str, float | None] = {}
        for level in self.levels:
            rows[level.key] = level.value_mm
            rows[level.key.removesuffix("_mm") + "_floor_mm"] = level.floor_mm
        return rows


def moment_levels(
    *,
    reference: DoseMap,
    evaluated: DoseMap,
    order: int = 2,
    degree: int = DEFAULT_DEGREE,
    basis: Basis = "full",
    exchange_mm_per_percent: float = 1.0,
    ambient_dose_percent: float = 0.1,
    draws: int = 1000,
    sos_draws: int = 24,
    seed: int = 0,
    progress: Progress | None = None,
) -> MomentLevels:
    """Mean shift, Gaussian bound, Galerkin estimates and moment-SoS bounds, each with its noise.

    Parameters
    ----------
    reference, evaluated : DoseMap
    order : int
        Highest order of the moment-SoS hierarchy; orders 2 to ``order`` are computed (order 1 is the
        Gaussian bound).
    degree : int
        Degree of the tallies.
    basis : {"full", "reduced"}
        Gram basis of the hierarchy.
    exchange_mm_per_percent, ambient_dose_percent : float
        Of the Dose Mover's Distance.
    draws, sos_draws : int
        Draws in moment space for the floors of mean and Gaussian bound, and of the hierarchy; 0 leaves
        the floors of the hierarchy out.
    seed : int
    progress : callable, optional

    Returns
    -------
    MomentLevels

    Raises
    ------
    InputError
        When a map has no dose, the degree is too low for the order, or the matrices of the order would not
        fit.

    Notes
    -----
    *Definition*: levels 0, 1 and 3 take their floor from draws of the moments with their covariance,
    level 2 from the closed form of its quadratic form. *Cost*: a pass over each map; 0.05 s for order
    2 in three dimensions and about a second for order 3, and as much for each draw of their floors.
    """
    if degree < 2 * max(order, 2):
        raise InputError(
            f"`degree` {degree} is too low: order {order} takes moments to degree {2 * order}, and two "
            "levels need degree 4. Raise the degree or lower the order."
        )
    report = progress or no_progress
    start = time.perf_counter()
    box = support_box(reference, evaluated)
    one, two = (tally_map(dose, box_mm=box, degree=degree) for dose in (reference, evaluated))
    seconds = time.perf_counter() - start
    check_order(len(informative_axes(one, two)), max(order, 1))  # before the lower orders take minutes
    work = _Levels(one, two, draws, seed)
    report("gaussian", 0.1)
    levels = [work.mean(), work.gaussian()]
    report("galerkin", 0.2)
    levels += [work.galerkin("moment_w2_mm", lambda: galerkin_w2(reference=one, evaluated=two))]
    levels += [
        work.galerkin(
            "moment_dmd_mm",
            lambda: _dmd(reference, evaluated, degree, exchange_mm_per_percent, ambient_dose_percent),
        )
    ]
    for r in range(2, order + 1):
        report(f"moment-SoS of order {r}", 0.3 + 0.7 * (r - 2) / max(order - 1, 1))
        levels.append(work.sos(reference, evaluated, r, basis, sos_draws))
    report("done", 1.0)
    return MomentLevels(levels=tuple(levels), reference=one, evaluated=two, tally_seconds=seconds)


def _dmd(
    reference: DoseMap, evaluated: DoseMap, degree: int, exchange: float, ambient_percent: float
) -> GalerkinResult:
    """Galerkin estimate of the Dose Mover's Distance on the union of both boxes."""
    box = union_grid(reference.grid, evaluated.grid).box_mm
    one, two = (tally_map(dose, box_mm=box, degree=degree) for dose in (reference, evaluated))
    return galerkin_dmd(
        reference=one,
        evaluated=two,
        exchange_mm_per_percent=exchange,
        ambient_dose_gy=ambient_percent / 100 * reference.max_gy,
    )


class _Levels:
    """Two tallies on one box, from which each level is one method."""

    def __init__(self, one: MomentTally, two: MomentTally, draws: int, seed: int) -> None:
        self.one, self.two = one, two
        self.draws, self.seed = draws, seed
        self.known = has_noise(one, two)

    def _told(self, status: str) -> str:
        """A status and, where none of the maps has noise, that."""
        if self.known:
            return status
        return NO_NOISE if status == "ok" else f"{status}; {NO_NOISE}"

    def _drawn(
        self, statistic: Statistic, key: str, level: int, compute: Callable[[], tuple[float, dict[str, Any]]]
    ) -> MomentLevel:
        """A distance from moments of degree 2 with its noise by draws."""
        start = time.perf_counter()
        value, settings = compute()
        seconds = time.perf_counter() - start
        noise = drawn_noise(
            statistic,
            value,
            reference=self.one,
            evaluated=self.two,
            degree=2,
            draws=self.draws,
            relabel=True,
            seed=self.seed,
        )
        return MomentLevel(
            level=level,
            key=key,
            value_mm=value,
            certified_lower=True,
            floor_mm=noise and noise.floor_mm,
            floor_sd_mm=noise and noise.floor_sd_mm,
            sd_mm=noise and noise.sd_mm,
            p=noise and noise.p,
            seconds=seconds,
            status=self._told("ok"),
            settings=settings,
        )

    def _gaussians(self) -> tuple[GaussianMoments, GaussianMoments]:
        """Mean and covariance of both maps."""
        return tally_gaussian(self.one), tally_gaussian(self.two)

    def mean(self) -> MomentLevel:
        """Level 0."""

        def compute() -> tuple[float, dict[str, Any]]:
            one, two = self._gaussians()
            shift = two.mean_mm - one.mean_mm
            return float(np.linalg.norm(shift)), {"shift_mm": shift.tolist()}

        return self._drawn(mean_statistic(self.one.half_widths_mm), "mean_shift_mm", 0, compute)

    def gaussian(self) -> MomentLevel:
        """Level 1."""

        def compute() -> tuple[float, dict[str, Any]]:
            one, two = self._gaussians()
            part = bures_squared(one.covariance_mm2, two.covariance_mm2)
            value = float(np.sqrt(np.sum((two.mean_mm - one.mean_mm) ** 2) + part))
            return value, {"covariance_part_mm": float(np.sqrt(part))}

        return self._drawn(gaussian_statistic(self.one.half_widths_mm), "bures_w2_mm", 1, compute)

    def galerkin(self, key: str, compute: Callable[[], GalerkinResult]) -> MomentLevel:
        """Level 2."""
        start = time.perf_counter()
        found = compute()
        chosen = found.chosen
        return MomentLevel(
            level=2,
            key=key,
            value_mm=chosen.value_mm,
            certified_lower=False,
            floor_mm=chosen.floor_mm,
            floor_sd_mm=chosen.floor_sd_mm,
            sd_mm=chosen.sd_mm,
            p=found.p,
            seconds=time.perf_counter() - start,
            status=self._told(found.status),
            settings={"degree": found.degree, "condition": chosen.condition, "n_moments": chosen.n_moments},
        )

    def sos(
        self, reference: DoseMap, evaluated: DoseMap, order: int, basis: Basis, draws: int
    ) -> MomentLevel:
        """Level 3, each map on its own support box."""
        start = time.perf_counter()
        boxes = support_box(reference), support_box(evaluated)
        one, two = (
            shared if np.allclose(box, shared.box_mm) else tally_map(dose, box_mm=box, degree=shared.degree)
            for dose, box, shared in zip((reference, evaluated), boxes, (self.one, self.two), strict=True)
        )
        found = moment_sos(reference=one, evaluated=two, order=order, basis=basis)
        seconds = time.perf_counter() - start
        status = found.status
        noise = None
        if self.known and draws > 0 and self.one.degree >= 4 * order:
            statistic = sos_statistic(self.one, self.two, order=order, basis=basis)
            noise = drawn_noise(
                statistic,
                found.lower_mm,
                reference=self.one,
                evaluated=self.two,
                degree=2 * order,
                draws=draws,
                sd_mm=found.sd_mm or 0.0,
                seed=self.seed,
            )
        elif self.known and draws > 0:
            status += f"; no floor: it takes tallies of degree {4 * order}"
        return MomentLevel(
            level=3,
            key=f"moment_sos_{order}_mm",
            value_mm=found.lower_mm,
            certified_lower=True,
            floor_mm=noise and noise.floor_mm,
            floor_sd_mm=noise and noise.floor_sd_mm,
            sd_mm=found.sd_mm,
            p=noise and noise.p,
            seconds=seconds,
            status=self._told(status),
            settings={
                "order": order,
                "basis": basis,
                "n_iterations": found.n_iterations,
                "draws": noise.n_draws if noise else 0,
            },
        )
