"""Fit of a normal mixture, shifted shares beside an unshifted rest, to a histogram of z scores."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

_WIDTH = 0.1
"""Width of the histogram bins, in standard uncertainties."""

_WIDEST = 12.0
"""Values beyond this many standard uncertainties count in the end bins."""

_SECOND_COMPONENT = 9.21
"""Gain in 2 log L that a second component must bring (99th percentile of chi-square of 2)."""

_INTERVAL = 3.841
"""Loss in 2 log L that bounds the interval of a share (95th percentile of chi-square of 1)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class MixtureFit:
    """The best mixture of a histogram.

    Parameters
    ----------
    fractions, shifts : tuple of float
        Share and shift of one or two components, the largest share times shift first.
    likelihood_ratio : float
        2 log L of two shifted components against none.
    counts, edges : ndarray
        The histogram.
    """

    fractions: tuple[float, ...]
    shifts: tuple[float, ...]
    likelihood_ratio: float
    counts: NDArray[Any]
    edges: NDArray[Any]

    def interval_percent(self, correlation_factor: float) -> tuple[float, float] | None:
        """95 % profile likelihood interval of the share of one component [%]; None for two."""
        if len(self.fractions) != 1:
            return None
        shares = np.linspace(0.005, 1.0, 200)
        shifts = self.shifts[0] * np.concatenate([np.geomspace(0.5, 20, 400), [1.0]])
        log_ratio = _ratio(bin_probabilities(self.edges, shifts), self.edges)
        used = self.counts > 0
        n, log_ratio = self.counts[used], log_ratio[:, used]
        profile = np.array([np.max(np.log(np.maximum(1.0 + a * log_ratio, 1e-300)) @ n) for a in shares])
        allowed = profile.max() - profile <= _INTERVAL * correlation_factor / 2
        return 100.0 * float(shares[allowed][0]), 100.0 * float(shares[allowed][-1])


def bin_edges(x: NDArray[Any]) -> NDArray[np.float64]:
    """Histogram edges that hold the values, up to 12 standard uncertainties either way."""
    reach = float(np.clip(np.ceil(np.max(np.abs(x), initial=0.0)) + 1, 6.0, _WIDEST))
    return np.linspace(-reach, reach, round(2 * reach / _WIDTH) + 1)


def bin_probabilities(edges: NDArray[Any], shifts: NDArray[Any]) -> NDArray[np.float64]:
    """Probability of each bin, end bins open, for unit normals at each shift, [shift, bin]."""
    from scipy.special import ndtr

    cumulative = ndtr(edges[None, :] - np.asarray(shifts, dtype=np.float64)[:, None])
    cumulative[:, 0], cumulative[:, -1] = 0.0, 1.0
    return np.maximum(np.diff(cumulative, axis=1), 1e-300)


def _ratio(probabilities: NDArray[Any], edges: NDArray[Any]) -> NDArray[Any]:
    """Bin probabilities over those without a shift, minus 1."""
    return probabilities / bin_probabilities(edges, np.zeros(1)) - 1.0


@lru_cache(maxsize=8)
def _pair_grid(reach: float, n_edges: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Ratios [shift, bin] on a grid of shifts, and the indices of all pairs of shifts."""
    edges = np.linspace(-reach, reach, n_edges)
    near = np.linspace(-3.0, 3.0, 25)
    far = np.arange(3.5, reach + 0.1, 0.5)
    shifts = np.concatenate([-far[::-1], near, far])
    shifts = shifts[shifts != 0]
    first, second = np.triu_indices(shifts.size, 1)
    return _ratio(bin_probabilities(edges, shifts), edges), np.stack([first, second]), shifts


def _best_pair(counts: NDArray[Any], edges: NDArray[Any]) -> tuple[float, NDArray[Any]]:
    """Largest 2 log L over a grid of pairs of shifts, and its (a1, a2, d1, d2).

    For given shifts log L is concave in the shares: a few steps of expectation maximisation tell
    good pairs from bad ones, more steps sharpen the best.
    """
    ratios, pairs, shifts = _pair_grid(float(edges[-1]), edges.size)
    used = counts > 0
    n = counts[used].astype(np.float64)
    total = n.sum()
    r = ratios[:, used]
    keep = np.arange(pairs.shape[1])
    a = np.full((keep.size, 2), 0.1)
    value = np.empty(0)
    for steps, kept in ((8, 60), (40, 8), (300, 1)):
        r1, r2 = r[pairs[0, keep]], r[pairs[1, keep]]
        for _ in range(steps):
            weight = n / (1.0 + a[:, :1] * r1 + a[:, 1:] * r2)
            a = a * np.stack([((1.0 + r1) * weight).sum(axis=1), ((1.0 + r2) * weight).sum(axis=1)], axis=1)
            a /= total
        value = 2.0 * (np.log(np.maximum(1.0 + a[:, :1] * r1 + a[:, 1:] * r2, 1e-300)) @ n)
        best = np.argsort(-value, kind="stable")[:kept]
        keep, a, value = keep[best], a[best], value[best]
    first, second = pairs[:, keep[0]]
    return float(max(value[0], 0.0)), np.array([a[0, 0], a[0, 1], shifts[first], shifts[second]])


def grid_likelihood_ratio(counts: NDArray[Any], edges: NDArray[Any]) -> float:
    """2 log L of two shifted components against none, shifts on a grid: quick, for permutations."""
    return _best_pair(counts, edges)[0]


def fit_mixture(counts: NDArray[Any], edges: NDArray[Any]) -> MixtureFit:
    """One or two shifted components by maximum likelihood.

    Parameters
    ----------
    counts : ndarray, shape (n,)
        Histogram of x.
    edges : ndarray, shape (n + 1,)
        From `bin_edges`.
    """
    grid_value, start = _best_pair(counts, edges)
    a1, a2, d1, d2 = start
    share = max(a1 + a2, 1e-6)
    middle = (a1 * d1 + a2 * d2) / share
    one_starts = [np.array([min(share, 0.99), d]) for d in (middle, d1, d2) if d != 0]
    one_starts += [np.array([0.9, np.clip(_mean(counts, edges), -3, 3) or 0.1])]
    one_value, one = max((_polish(counts, edges, s) for s in one_starts), key=lambda v: v[0])
    two_starts = [start, np.array([one[0] / 2, one[0] / 2, 0.7 * one[1], 1.3 * one[1]])]
    two_value, two = max((_polish(counts, edges, s) for s in two_starts), key=lambda v: v[0])
    ratio = max(grid_value, one_value, two_value, 0.0)
    parameters = two if two_value - one_value > _SECOND_COMPONENT else one
    half = parameters.size // 2
    order = np.argsort(-np.abs(parameters[:half] * parameters[half:]), kind="stable")
    return MixtureFit(
        fractions=tuple(float(v) for v in parameters[:half][order]),
        shifts=tuple(float(v) for v in parameters[half:][order]),
        likelihood_ratio=float(ratio),
        counts=counts,
        edges=edges,
    )


def _mean(counts: NDArray[Any], edges: NDArray[Any]) -> float:
    """Mean of a histogram."""
    return float(counts @ (edges[1:] + edges[:-1]) / 2 / counts.sum())


def _polish(counts: NDArray[Any], edges: NDArray[Any], start: NDArray[Any]) -> tuple[float, NDArray[Any]]:
    """2 log L against no shift and its parameters (shares, then shifts), from a start."""
    from scipy.optimize import minimize

    used = counts > 0
    n = counts[used].astype(np.float64)
    total = n.sum()
    none = bin_probabilities(edges, np.zeros(1))[0, used]
    half = start.size // 2
    low, high = edges[:-1].copy(), edges[1:].copy()
    low[0], high[-1] = -np.inf, np.inf

    def objective(p: NDArray[Any]) -> tuple[float, NDArray[Any]]:
        shares, shifts = p[:half], p[half:]
        r = bin_probabilities(edges, shifts)[:, used] / none - 1.0
        density = np.maximum(1.0 + shares @ r, 1e-300)
        slope = (_normal(low - shifts[:, None]) - _normal(high - shifts[:, None]))[:, used] / none
        gradient = np.concatenate([r @ (n / density), shares * (slope @ (n / density))])
        return -float(np.log(density) @ n) / total, -gradient / total

    result = minimize(
        objective,
        np.clip(
            start,
            np.r_[np.zeros(half), np.full(half, edges[0])],
            np.r_[np.full(half, 0.999), np.full(half, edges[-1])],
        ),
        jac=True,
        method="SLSQP",
        bounds=[(0.0, 1.0)] * half + [(edges[0], edges[-1])] * half,
        constraints=[
            {
                "type": "ineq",
                "fun": lambda p: 1.0 - p[:half].sum(),
                "jac": lambda p: np.r_[-np.ones(half), np.zeros(half)],
            }
        ],
        options={"maxiter": 300, "ftol": 1e-13},
    )
    return -2.0 * float(result.fun) * total, np.asarray(result.x)


def _normal(x: NDArray[Any]) -> NDArray[Any]:
    """Density of the unit normal distribution."""
    return np.exp(-0.5 * np.square(x)) / np.sqrt(2.0 * np.pi)
