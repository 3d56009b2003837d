"""Noise floors and standard deviations of moment distances, from draws in moment space."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import comb
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dosemover.moments.gaussian import central_moments, stacked_bures_squared
from dosemover.moments.legendre import total_degree_indices
from dosemover.moments.moment_sos import moment_sos
from dosemover.moments.relaxation import Basis
from dosemover.moments.tally import MomentTally
from dosemover.transport.quadratic_form import FEWEST_LABELLINGS

_ROUNDING = 1e-9
"""Relative difference at which two distances count as equal."""

Statistic = Callable[[NDArray[Any], NDArray[Any]], NDArray[np.float64]]
"""Distances [mm] from two stacks of normalised moment tensors, NaN where one could not be computed."""


@dataclass(frozen=True, kw_only=True, eq=False)
class MomentNoise:
    """What noise does to one moment distance.

    Parameters
    ----------
    floor_mm, floor_sd_mm : float
        Mean and standard deviation between maps that differ by noise alone [mm].
    sd_mm : float
        Standard deviation of the distance between the maps at hand [mm].
    p : float
        Share of the relabellings of the batches, or of the draws under the null, that reach the value.
    n_draws : int
        Draws that gave a distance.
    """

    floor_mm: float
    floor_sd_mm: float
    sd_mm: float
    p: float
    n_draws: int


class MomentDraws:
    """Draws of the normalised moments of one noisy tally.

    Parameters
    ----------
    tally : MomentTally
        With batches, or with the moments of the voxel variances to twice ``degree``.
    degree : int
        Total degree of the moments that are drawn; higher ones keep their mean.
    """

    def __init__(self, tally: MomentTally, degree: int) -> None:
        self.indices = tuple(np.array(total_degree_indices(3, degree)).T)
        self.size = degree + 1
        self.mean = tally.tensor[(slice(0, self.size),) * 3] / tally.mass
        self.factor = _covariance_factor(tally, degree) / tally.mass
        self.freedom = np.inf if tally.batches is None else len(tally.batches) - 1.0

    def around(self, center: NDArray[Any], rng: np.random.Generator, n: int) -> NDArray[np.float64]:
        """Tensors with the tally's noise around other moments, normalised, shape [n, ...]."""
        drawn = np.repeat(center[None], n, axis=0)
        noise = rng.standard_normal((n, self.factor.shape[1])) @ self.factor.T
        drawn[(slice(None), *self.indices)] += noise
        return drawn / drawn[:, :1, :1, :1]


def _covariance_factor(tally: MomentTally, degree: int) -> NDArray[np.float64]:
    """F with F F' the covariance of the moments; no noise gives no columns."""
    where = tuple(np.array(total_degree_indices(3, degree)).T)
    if tally.batches is not None:
        rows = tally.batches[(slice(None), *where)]
        n = len(rows)
        return (rows - rows.mean(axis=0)).T / np.sqrt(n * (n - 1))
    covariance = tally.covariance(degree)
    if covariance is None:
        return np.zeros((len(where[0]), 0))
    values, vectors = np.linalg.eigh(covariance)
    return vectors * np.sqrt(np.maximum(values, 0.0))


def has_noise(*tallies: MomentTally) -> bool:
    """Whether the noise of any tally is known."""
    return any(t.batches is not None or t.variance is not None for t in tallies)


def drawn_noise(
    statistic: Statistic,
    value_mm: float,
    *,
    reference: MomentTally,
    evaluated: MomentTally,
    degree: int,
    draws: int,
    sd_mm: float | None = None,
    relabel: bool = False,
    seed: int = 0,
) -> MomentNoise | None:
    """Floor, spread and p value of a distance that is a function of moments.

    Parameters
    ----------
    statistic : callable
        ``statistic(first, second)`` -> distances [mm] of stacks of normalised tensors.
    value_mm : float
        The distance of the maps at hand.
    reference, evaluated : MomentTally
        On one box.
    degree : int
        Total degree of the moments that ``statistic`` reads.
    draws : int
    sd_mm : float, optional
        Standard deviation where it is known otherwise; drawn where it is None.
    relabel : bool
        Take p from relabelled batches where both maps have enough of them: exact, and as many distances
        more.
    seed : int

    Returns
    -------
    MomentNoise or None
        None where no noise is known, or no draw gave a distance.

    Notes
    -----
    *Definition*: under the null both maps are drawn around the mean of their normalised moments, each
    with its own covariance; the standard deviation comes from draws around each map's own moments.
    Moments are sums over many voxels, so that Gaussian draws serve whatever the voxels' noise. Where the
    covariance is that of few batches, p widens each draw by what a variance from so few may be off.
    """
    if not has_noise(reference, evaluated):
        return None
    rng = np.random.default_rng(seed)
    one, two = MomentDraws(reference, degree), MomentDraws(evaluated, degree)
    middle = (one.mean + two.mean) / 2
    null = statistic(one.around(middle, rng, draws), two.around(middle, rng, draws))
    null = null[np.isfinite(null)]
    if len(null) < 2:
        return None
    if sd_mm is None:
        here = statistic(one.around(one.mean, rng, draws), two.around(two.mean, rng, draws))
        sd_mm = float(np.nanstd(here, ddof=1))
    p = _relabelled_p(statistic, value_mm, (reference, evaluated), degree, draws, rng) if relabel else None
    if p is None:
        p = _share_reaching(value_mm, null * _widening(one, two, null, rng))
    return MomentNoise(
        floor_mm=float(null.mean()), floor_sd_mm=float(null.std(ddof=1)), sd_mm=sd_mm, p=p, n_draws=len(null)
    )


def _share_reaching(value_mm: float, null: NDArray[Any]) -> float:
    """P value of a distance among those of the null, itself one of them."""
    return float((1 + np.sum(null >= value_mm * (1 - _ROUNDING))) / (1 + len(null)))


def _widening(
    one: MomentDraws, two: MomentDraws, null: NDArray[Any], rng: np.random.Generator
) -> NDArray[np.float64] | float:
    """Factors by which normal draws widen where the noise is known from few batches.

    The square of the distance counts about 2 mean^2 / variance terms, each with the freedom of the
    covariances (Satterthwaite's for the sum of two).
    """
    sizes = np.array([np.sum(draws.factor**2) for draws in (one, two)])
    inverse = float(np.sum(sizes**2 / np.array([one.freedom, two.freedom])))
    if inverse == 0.0:
        return 1.0
    squares = null**2
    terms = max(1.0, float(2 * squares.mean() ** 2 / squares.var(ddof=1)))
    freedom = terms * float(sizes.sum() ** 2) / inverse
    return np.sqrt(freedom / rng.chisquare(freedom, len(null)))


def _relabelled_p(
    statistic: Statistic,
    value_mm: float,
    tallies: tuple[MomentTally, MomentTally],
    degree: int,
    draws: int,
    rng: np.random.Generator,
) -> float | None:
    """P value by relabelling batches, exchangeable under the null; None where there are too few."""
    first, second = (t.batches for t in tallies)
    if first is None or second is None:
        return None
    n, total = len(first), len(first) + len(second)
    if comb(total, n) < FEWEST_LABELLINGS:
        return None
    corner = (slice(None), *(slice(0, degree + 1),) * 3)
    rows = np.concatenate([b[corner] / t.mass for b, t in zip((first, second), tallies, strict=True)])
    chosen = rng.permuted(np.tile(np.arange(total) < n, (draws, 1)), axis=1).astype(float)
    sums = np.tensordot(chosen, rows, axes=1), np.tensordot(1 - chosen, rows, axes=1)
    one, two = (part / part[:, :1, :1, :1] for part in sums)
    return _share_reaching(value_mm, statistic(one, two))


def mean_statistic(half_widths_mm: NDArray[Any]) -> Statistic:
    """Distance of the means."""

    def compute(first: NDArray[Any], second: NDArray[Any]) -> NDArray[np.float64]:
        one, two = (central_moments(t, half_widths_mm)[0] for t in (first, second))
        return np.linalg.norm(one - two, axis=-1)

    return compute


def gaussian_statistic(half_widths_mm: NDArray[Any]) -> Statistic:
    """Gaussian (Gelbrich) bound."""

    def compute(first: NDArray[Any], second: NDArray[Any]) -> NDArray[np.float64]:
        (m, a), (n, b) = (central_moments(t, half_widths_mm) for t in (first, second))
        return np.sqrt(np.sum((m - n) ** 2, axis=-1) + stacked_bures_squared(a, b))

    return compute


def sos_statistic(reference: MomentTally, evaluated: MomentTally, *, order: int, basis: Basis) -> Statistic:
    """Moment-SoS bound of one order; NaN where the drawn moments belong to no measure."""

    def one(first: NDArray[Any], second: NDArray[Any]) -> float:
        pair = [
            replace(tally, tensor=tensor, variance=None, batches=None)
            for tally, tensor in ((reference, first), (evaluated, second))
        ]
        try:
            return moment_sos(reference=pair[0], evaluated=pair[1], order=order, basis=basis).lower_mm
        except np.linalg.LinAlgError:
            return np.nan

    def compute(first: NDArray[Any], second: NDArray[Any]) -> NDArray[np.float64]:
        return np.array([one(a, b) for a, b in zip(first, second, strict=True)])

    return compute
