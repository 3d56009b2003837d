"""Spatial correlation of Monte Carlo noise, estimated and drawn."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

_MAX_CORRELATION = 0.95
_RADIUS = 8
_FEWEST_PAIRS = 200
_STANDARD_ERRORS = 1.0
"""Lags that exceed so many are kept. Two would leave out the tail: small at every lag, but over hundreds."""
_WINDOW = 2
"""Lags within so many voxels may together hold correlation that none of them shows by itself."""
_FIRST_SQUARES = 2.5
"""Sum of rho^2 before any rho is known: sets the standard errors of the first round."""
_ROUNDS = 3
"""Standard errors depend on the correlation: rounds until they agree."""


@dataclass(frozen=True, kw_only=True, eq=False)
class NoiseCorrelation:
    """Correlation rho(h) of standardised noise between voxels that lie h apart.

    Parameters
    ----------
    table : ndarray, shape [2 rz + 1, 2 ry + 1, 2 rx + 1]
        rho at lags -r to r along (z, y, x); 1 in the middle, rho(-h) = rho(h).
    freedom : float
        Degrees of freedom of the variance of a sum that the estimate gives: infinite where it is known.
    base : NoiseCorrelation, optional
        The correlation whose lags but 0, times ``share``, this one has: their spectra are alike.
    share : float
    """

    table: NDArray[Any]
    freedom: float = np.inf
    base: NoiseCorrelation | None = None
    share: float = 1.0
    _powers: dict[tuple[int, ...], NDArray[Any]] = field(default_factory=dict, repr=False)

    @classmethod
    def independent(cls) -> NoiseCorrelation:
        """No correlation at all."""
        return cls(table=np.ones((1, 1, 1)))

    @classmethod
    def exponential(cls, lag_1: tuple[float, float, float]) -> NoiseCorrelation:
        """Product over the axes (z, y, x) of rho^|k|, cut off below 1e-3."""
        axes = []
        for rho in lag_1:
            radius = 0 if rho <= 0 else int(np.ceil(np.log(1e-3) / np.log(min(rho, _MAX_CORRELATION))))
            axes.append(float(max(rho, 0.0)) ** np.abs(np.arange(-radius, radius + 1)))
        return cls(table=axes[0][:, None, None] * axes[1][:, None] * axes[2])

    @property
    def lag_1(self) -> tuple[float, float, float]:
        """Correlation of neighbours along each array axis (z, y, x)."""
        middle = tuple(n // 2 for n in self.table.shape)
        return tuple(  # type: ignore[return-value]
            float(self.table[tuple(m + (a == axis) for a, m in enumerate(middle))])
            if self.table.shape[axis] > 1
            else 0.0
            for axis in range(3)
        )

    @cached_property
    def inflation(self) -> float:
        """Variance of a sum over many voxels, over that of independent voxels: the sum of rho."""
        return max(float(self.table.sum()), 0.1)

    @cached_property
    def squared_inflation(self) -> float:
        """Variance of a sum of squares, over that of independent voxels: the sum of rho^2."""
        return float(np.sum(self.table**2))

    def inflated(self, factor: float) -> NoiseCorrelation:
        """The correlation with all lags but 0 multiplied, so that `inflation` grows by a factor.

        No lag falls below 0 or rises above 1; noise of independent voxels stays what it is.
        """
        rest = float(self.table.sum()) - 1
        if rest <= 0:
            return self
        middle = tuple(n // 2 for n in self.table.shape)
        others = self.table.copy()
        others[middle] = 0.0
        share = float(np.clip((factor * (rest + 1) - 1) / rest, 0.0, 1 / max(float(others.max()), 1e-3)))
        table = share * others
        table[middle] = 1.0
        return NoiseCorrelation(table=table, freedom=self.freedom, base=self, share=share)

    def power(self, padded: tuple[int, ...]) -> NDArray[Any]:
        """Power spectrum on a periodic grid (half of it, as of real fields), negative parts 0, mean 1."""
        from scipy import fft

        if padded not in self._powers:
            if self.base is not None:
                power = 1 + self.share * (self.base.power(padded) - 1)
            else:
                power = np.real(np.asarray(fft.rfftn(self.around(padded).astype(np.float32))))
            power = np.maximum(power, 0.0)
            twice = np.full(power.shape[-1], 2.0)
            twice[0] = 1.0
            if padded[-1] % 2 == 0:
                twice[-1] = 1.0
            mean = float(np.sum(power @ twice.astype(power.dtype), dtype=np.float64)) / float(np.prod(padded))
            self._powers[padded] = (power / mean).astype(np.float32)
        return self._powers[padded]

    def sum_variance(self, standard_deviation: NDArray[Any]) -> float:
        """Variance of the sum over all voxels, edges of the map accounted for.

        Parameters
        ----------
        standard_deviation : ndarray, shape [z, y, x]
            Of each voxel.

        Notes
        -----
        *Definition*: sum over x, h of s(x) s(x + h) rho(h), by transforms. It is less than the sum of
        s^2 times `inflation` where the map is not much larger than the correlation reaches.
        """
        s = np.asarray(standard_deviation, dtype=np.float64)
        if self.table.size == 1:
            return float(np.sum(s**2))
        from scipy import fft

        padded, kernel = self.kernel(s.shape)
        product = np.asarray(fft.rfftn(s, padded)) * np.asarray(fft.rfftn(kernel))
        spread = np.asarray(fft.irfftn(product, padded))
        total = float(np.sum(spread[tuple(slice(n) for n in s.shape)] * s))
        return max(total, 0.1 * float(np.sum(s**2)))

    def kernel(self, shape: tuple[int, ...]) -> tuple[list[int], NDArray[np.float64]]:
        """The table around index 0 of a periodic grid that keeps opposite faces apart, and its shape."""
        padded = _fast_lengths(n + 2 * (m // 2) for n, m in zip(shape, self.table.shape, strict=True))
        return padded, self.around(tuple(padded))

    def around(self, padded: tuple[int, ...]) -> NDArray[np.float64]:
        """The table around index 0 of a periodic grid."""
        kernel = np.zeros(padded)
        middle = [n // 2 for n in self.table.shape]
        where = np.ix_(*[np.arange(-m, m + 1) % n for m, n in zip(middle, padded, strict=True)])
        kernel[where] = self.table
        return kernel


def lag_correlation(z: ArrayLike, *, mask: ArrayLike | None = None) -> tuple[float, float, float]:
    """Correlation between neighbours along each array axis (z, y, x).

    Parameters
    ----------
    z : array_like, shape [z, y, x]
        Standardised differences, about mean 0 and variance 1 where the maps agree; NaN is left out.
    mask : array_like of bool, shape [z, y, x], optional
        Voxels to use.

    Returns
    -------
    tuple of float
        0 along an axis with fewer than 30 pairs of neighbours.

    Notes
    -----
    *Definition*: for an exponential correlation rho^|k| the mean squared differences at lag 1 and 2
    are 2 (1 - rho) and 2 (1 - rho^2), so their ratio less 1 is rho. A slow real difference between
    the maps, which would pass for correlation in the lag-1 product, largely cancels. *Limits*: one
    number an axis; a negative correlation reads 0.
    """
    values = np.asarray(z, dtype=np.float64)
    valid = np.isfinite(values) if mask is None else np.isfinite(values) & np.asarray(mask, dtype=bool)
    return tuple(_axis_fit(values, valid, axis) for axis in range(3))  # type: ignore[return-value]


def _axis_fit(values: NDArray[Any], valid: NDArray[Any], axis: int) -> float:
    """Lag-1 correlation along one axis from mean squared differences at lags 1 and 2."""
    moved, usable = np.moveaxis(values, axis, 0), np.moveaxis(valid, axis, 0)
    if moved.shape[0] < 3:
        return 0.0
    triple = usable[:-2] & usable[1:-1] & usable[2:]
    if np.count_nonzero(triple) < 30:
        return 0.0
    near = (moved[1:-1] - moved[:-2])[triple]
    far = (moved[2:] - moved[:-2])[triple]
    denominator = float(np.mean(near**2))
    if denominator == 0:
        return 0.0
    return float(np.clip(np.mean(far**2) / denominator - 1, 0.0, _MAX_CORRELATION))


def noise_correlation(
    fields: ArrayLike,
    *,
    mask: ArrayLike | None = None,
    variance: float = 1.0,
    variance_error: float = 0.0,
    radius: int = _RADIUS,
) -> NoiseCorrelation:
    """Correlation of standardised noise at every lag where it can be told from 0.

    Parameters
    ----------
    fields : array_like, shape [z, y, x] or [field, z, y, x]
        Standardised differences, or independent replicates of standardised noise; NaN is left out.
    mask : array_like of bool, shape [z, y, x], optional
        Voxels to use.
    variance : float
        The most that the noise alone can vary: 1 for standardised differences.
    variance_error : float
        Relative standard error of ``variance`` where it is itself an estimate.
    radius : int
        Longest lag along each axis [voxels].

    Returns
    -------
    NoiseCorrelation

    Notes
    -----
    *Definition*: with g(h) half the mean squared difference at lag h and v the variance,
    rho(h) = 1 - g(h) / v. g(h) is taken over the mean square of the very voxels that enter it, times that
    of all: a sum over hundreds of lags does not forgive what chance makes of a face of a small map. v is g
    at the longest lags, or the variance that the uncertainties state where that exceeds it by more than 2
    standard errors: a real difference between the maps raises g, so that it can hide correlation but not
    pass for it. Kept are the lags that exceed 1 standard error, sqrt(sum rho^2 / pairs), and hang together
    with lag 0. Lags are averaged over their mirror images, which keeps the sum over all lags and so the
    scatter of large regions. Particle tracks spread as they go: the correlation is no product of one
    function an axis, so every lag is estimated for itself. A sum's variance from K lags of n voxels has
    about n / K degrees of freedom (that of a truncated window). Correlation too weak to be seen at any one
    lag still adds up over hundreds: the lags within 2 voxels that are not kept share their mean, where it is
    positive, and count among the K.
    *Limits*: one function for all voxels given, that of an oblique beam spread to both sides; negative
    correlations (a beam's energy is shared out, so that its parts compensate each other at long
    distances) read 0; what remains of a real difference shortens the correlation found, and so do
    uncertainties that are too small. *Cost*: five transforms a field.

    References
    ----------
    Priestley 1981, "Spectral analysis and time series".
    """
    values = np.asarray(fields, dtype=np.float64)
    stack = values[None] if values.ndim == 3 else values
    inside = np.isfinite(stack)
    if mask is not None:
        inside &= np.asarray(mask, dtype=bool)
    reach = [min(radius, n - 1) for n in stack.shape[1:]]
    total, own, pairs = (np.zeros([2 * r + 1 for r in reach]) for _ in range(3))
    for one, valid in zip(stack, inside, strict=True):
        found = _squared_differences(np.where(valid, one, 0.0), valid, reach)
        total, own, pairs = total + found[0], own + found[1], pairs + found[2]
    usable = (pairs >= _FEWEST_PAIRS) & (own > 0)
    middle = tuple(reach)
    if not (usable[middle] and np.any(usable & (total > 0))):
        return NoiseCorrelation.independent()
    mean_square = own[middle] / pairs[middle]
    half = mean_square * np.divide(total, 2 * own, out=np.zeros(total.shape), where=usable)
    offsets = np.abs(np.indices(half.shape) - np.reshape(reach, (3, 1, 1, 1)))
    bound = (variance, variance_error)
    return _correlogram(half, np.where(usable, pairs, 0.0), offsets, bound, radius)


def _correlogram(
    half: NDArray[Any],
    pairs: NDArray[Any],
    offsets: NDArray[Any],
    bound: tuple[float, float],
    radius: int,
) -> NoiseCorrelation:
    """Correlation from half the mean squared differences; lags without pairs read 0."""
    middle = tuple(n // 2 for n in half.shape)
    voxels = float(pairs[middle])
    variance, error_of_bound = bound
    distance = offsets.max(axis=0)
    longest = (pairs > 0) & (distance >= max(radius - 1, 2))
    if not longest.any():
        longest = (pairs > 0) & (distance >= 2)
    far = float(np.average(half[longest], weights=pairs[longest])) if longest.any() else np.inf
    mirrors = 2.0 ** (np.count_nonzero(offsets, axis=0) - 1)
    squares = _FIRST_SQUARES
    rho = table = np.ones((1, 1, 1))
    kept = np.ones((1, 1, 1), dtype=bool)
    for _ in range(_ROUNDS):
        most = variance * (1 + 2 * float(np.sqrt(2 * squares / voxels + error_of_bound**2)))
        sill = far if far <= most else variance
        if not (np.isfinite(sill) and sill > 0):
            return NoiseCorrelation.independent()
        rho = _mirrored(np.where(pairs > 0, 1 - half / sill, 0.0))
        rho[middle] = 1.0
        error = np.sqrt(squares / np.maximum(mirrors * pairs, 1.0))
        kept = _hanging_together(rho > _STANDARD_ERRORS * error)
        table = np.where(kept, np.minimum(rho, 1.0), 0.0)
        squares = float(np.sum(table**2))
    near = (distance <= _WINDOW) & (pairs > 0)
    weak = near & ~kept
    if weak.any():
        table[weak] = max(float(np.average(rho[weak], weights=pairs[weak])), 0.0)
    lags = max(float(np.sum(pairs[kept])), float(np.sum(pairs[near]))) / voxels
    return NoiseCorrelation(table=table, freedom=voxels / max(lags, 1.0))


def _fast_lengths(lengths: Iterable[int]) -> list[int]:
    """Lengths of at least these that a transform is quick for."""
    from scipy import fft

    return [int(fft.next_fast_len(n, real=True) or n) for n in lengths]


def _squared_differences(
    z: NDArray[Any], valid: NDArray[Any], reach: list[int]
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Sums of (z(x) - z(x + h))^2 and of z(x)^2 + z(x + h)^2, and pairs, at every lag within reach.

    The second is halved, so that it is the sum of z^2 at lag 0.
    """
    from scipy import fft

    shape = _fast_lengths(n + r for n, r in zip(z.shape, reach, strict=True))
    weight, first, second = (np.asarray(fft.rfftn(f, shape)) for f in (valid.astype(np.float64), z, z * z))
    lags = np.ix_(*[np.arange(-r, r + 1) % n for r, n in zip(reach, shape, strict=True)])
    both = np.real(np.conj(second) * weight)
    own = np.asarray(fft.irfftn(both, shape))[lags]
    squares = np.asarray(fft.irfftn(2 * (both - np.abs(first) ** 2), shape))[lags]
    pairs = np.asarray(fft.irfftn(np.abs(weight) ** 2, shape))[lags]
    return np.maximum(squares, 0.0), np.maximum(own, 0.0), np.round(pairs)


def _mirrored(rho: NDArray[Any]) -> NDArray[np.float64]:
    """Mean over the mirror images of the lags: less noise, the same sum over all lags."""
    for axis in range(3):
        rho = (rho + np.flip(rho, axis)) / 2
    return rho


def _hanging_together(significant: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The lags that are joined to lag 0 through significant ones."""
    from scipy import ndimage

    middle = tuple(n // 2 for n in significant.shape)
    significant[middle] = True
    labels, _ = ndimage.label(significant)  # type: ignore[misc]
    return np.asarray(labels == labels[middle])


def correlated_normal(
    shape: tuple[int, int, int],
    correlation: NoiseCorrelation,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Standard normal field with a given correlation.

    Parameters
    ----------
    shape : tuple of int
        (nz, ny, nx).
    correlation : NoiseCorrelation
    rng : numpy.random.Generator

    Returns
    -------
    ndarray, shape [z, y, x]
        Every value has mean 0 and variance 1.

    Notes
    -----
    White noise times the root of the power spectrum, on a grid that is longer by the longest lag, so
    that opposite faces are independent. Parts of the spectrum that the estimate made negative are 0.
    """
    return correlated_normals(shape, [correlation], rng)[0]


def correlated_normals(
    shape: tuple[int, int, int], correlations: Sequence[NoiseCorrelation], rng: np.random.Generator
) -> list[NDArray[np.float64]]:
    """Standard normal fields, one for each correlation, from the same white noise."""
    from scipy import fft

    longest = [max(c.table.shape[axis] // 2 for c in correlations) for axis in range(3)]
    if not any(longest):
        return [rng.standard_normal(shape)] * len(correlations)
    padded = tuple(_fast_lengths(n + 2 * m for n, m in zip(shape, longest, strict=True)))
    white = np.asarray(fft.rfftn(rng.standard_normal(padded, dtype=np.float32)))
    inside = tuple(slice(n) for n in shape)
    fields = (fft.irfftn(white * np.sqrt(c.power(padded)), padded) for c in correlations)
    return [np.asarray(one)[inside].astype(np.float64) for one in fields]
