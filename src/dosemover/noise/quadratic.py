"""Closed forms: what noise does to sums and sums of squares of differences, without drawing maps."""

from __future__ import annotations

from math import comb
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dosemover.errors import InputError
from dosemover.noise.significance import Significance, significance
from dosemover.transport.quadratic_form import FEWEST_LABELLINGS, root_of_gamma, tail_of_gamma


def square_significance(
    value: float, *, mean: float, variance: float, root: bool, method: str
) -> Significance:
    """Floor and significance of a mean square, or of its root, from the two moments of the square.

    Parameters
    ----------
    value : float
        The mean square, or its root.
    mean, variance : float
        Of the mean square under noise alone.
    root : bool
        Whether the metric is the root: the floor is then the mean of the root.
    method : str

    Notes
    -----
    *Definition*: the mean square follows a gamma distribution with its mean and variance (Patnaik's
    match of a quadratic form). For n voxels with variances s_i^2 the mean is sum s_i^2 / n and the
    variance 2 sum_ij C_ij^2 / n^2, about 2 sum s_i^4 / n^2 times the sum of rho(h)^2.
    """
    floor, deviation = root_of_gamma(mean, variance) if root else (mean, float(np.sqrt(variance)))
    tail = tail_of_gamma(value**2 if root else value, mean, variance)
    p = _without_noise(value > floor) if tail is None else tail
    z = (value - floor) / deviation if deviation > 0 else None
    return Significance(floor=floor, floor_sd=deviation, z=z, p=p, n_draws=0, method=method)


def debiased_significance(value: float, *, mean: float, variance: float, method: str) -> Significance:
    """Floor and significance of the signed root of a mean square less its mean under noise alone.

    Parameters
    ----------
    value : float
        The signed root, as `debiased_rmse` gives it.
    mean, variance : float
        Of the mean square itself under noise alone, as for `square_significance`.
    method : str

    Notes
    -----
    *Definition*: p is that of the mean square, which this is a monotonic function of; floor and its
    deviation are those of the signed root of a gamma variable less its mean, at 1000 quantiles of it.
    """
    from scipy.special import gammaincinv

    if mean <= 0 or variance <= 0:
        p = _without_noise(value > 0)
        return Significance(floor=0.0, floor_sd=0.0, z=None, p=p, n_draws=0, method=method)
    shape = mean**2 / variance
    excess = mean * (gammaincinv(shape, (np.arange(1000) + 0.5) / 1000) / shape - 1)
    roots = np.copysign(np.sqrt(np.abs(excess)), excess)
    floor, deviation = float(roots.mean()), float(roots.std())
    tail = tail_of_gamma(max(mean + float(np.copysign(value**2, value)), 0.0), mean, variance)
    return Significance(
        floor=floor,
        floor_sd=deviation,
        z=(value - floor) / deviation,
        p=1.0 if tail is None else tail,
        n_draws=0,
        method=method,
    )


def sum_significance(
    value: float, *, center: float, deviation: float, method: str, freedom: float = np.inf
) -> Significance:
    """Floor and two-sided significance of a sum of noise, which is normal.

    Parameters
    ----------
    value : float
    center, deviation : float
        Mean and standard deviation under noise alone.
    method : str
    freedom : float
        Degrees of freedom of the deviation where it is an estimate: p is then that of Student's t.
    """
    from scipy.special import erfc, stdtr

    z = (value - center) / deviation if deviation > 0 else None
    p = _without_noise(abs(value - center) > 1e-12 * abs(value))
    if z is not None:
        known = not np.isfinite(freedom)
        p = float(erfc(abs(z) / np.sqrt(2)) if known else 2 * stdtr(freedom, -abs(z)))
    return Significance(floor=center, floor_sd=deviation, z=z, p=p, n_draws=0, method=method)


def _without_noise(differs: bool) -> float:
    """The p value where there is no noise at all: any difference is real."""
    return 0.0 if differs else 1.0


def centered_weights(n: int, draws: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Random weights of n batches that give noise of the size of that of their mean.

    Parameters
    ----------
    n, draws : int
    rng : numpy.random.Generator

    Returns
    -------
    ndarray, shape [draws, n]

    Notes
    -----
    Each row is uniform on the sphere sum w_i = 0, sum w_i^2 = 1/n: noise sum w_i B_i then has the
    covariance of the batches' mean. Drawing batches with replacement has that too, but the sum of its
    squared weights scatters, by 35 % for 8 batches, and mean squares with it, which those of real
    simulations do not.
    """
    normal = rng.standard_normal((draws, n))
    normal -= normal.mean(axis=1, keepdims=True)
    return normal / (np.linalg.norm(normal, axis=1, keepdims=True) * np.sqrt(n))


def orthogonal_weights(n: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Two rows of `centered_weights` at right angles to each other, shape [2, n].

    Raises
    ------
    InputError
        When there are fewer than 3 batches: the weights of two have no direction left.
    """
    if n < 3:
        raise InputError(
            f"a floor between two simulations of the quality of one needs at least 3 batches, got {n}. "
            "Simulate in more batches."
        )
    normal = rng.standard_normal((2, n))
    normal -= normal.mean(axis=1, keepdims=True)
    basis, _ = np.linalg.qr(normal.T)
    return basis.T / np.sqrt(n)


class Relabellings:
    """Ways to share pooled batches out between two sides.

    Parameters
    ----------
    n, m : int
        Batches of the reference and of the evaluated map.
    """

    def __init__(self, n: int, m: int) -> None:
        self.n, self.m = n, m

    @property
    def enough(self) -> bool:
        """Whether p values can come from them: 60 ways at least, else p could not fall below 0.03."""
        return comb(self.n + self.m, self.n) >= FEWEST_LABELLINGS

    def _weights(self, order: NDArray[Any]) -> NDArray[Any]:
        """Weight of each pooled batch in the difference, one relabelling a row."""
        w = np.where(np.arange(self.n + self.m) < self.n, -1 / self.n, 1 / self.m)
        return np.take(w, order)

    def relabelled(self, draws: int, rng: np.random.Generator) -> NDArray[Any]:
        """Weights of random relabellings, shape [draws, batch]."""
        return self._weights(np.argsort(rng.random((draws, self.n + self.m)), axis=1))

    def others(self, draws: int, rng: np.random.Generator) -> NDArray[np.bool_] | None:
        """Which batches go to the reference in other labellings than the one at hand, each at most once.

        Parameters
        ----------
        draws : int
        rng : numpy.random.Generator

        Returns
        -------
        ndarray of bool, shape [draws, batch], or None
            None where there are fewer. Of sides of equal numbers a labelling and its mirror image, which
            differ by the sign of the difference alone, count as one.
        """
        mirrored = self.n == self.m
        if comb(self.n + self.m, self.n) // (1 + mirrored) - 1 < draws:
            return None
        at_hand = np.arange(self.n + self.m) < self.n
        found: dict[bytes, NDArray[np.bool_]] = {at_hand.tobytes(): at_hand}
        while len(found) <= draws:
            side = rng.permutation(at_hand)
            side = ~side if mirrored and not side[0] else side
            found.setdefault(side.tobytes(), side)
        return np.stack(list(found.values())[1:])

    def resampled(self, draws: int, rng: np.random.Generator) -> NDArray[Any]:
        """Weights that recombine each side's centred batches, shape [draws, batch]."""
        first, second = centered_weights(self.n, draws, rng), centered_weights(self.m, draws, rng)
        return np.concatenate([-first, second], axis=1)

    @property
    def as_labelled(self) -> NDArray[np.float64]:
        """Weights of the batches as they came, shape [1, batch]."""
        return self._weights(np.arange(self.n + self.m))[None]

    def p_value(self, form: NDArray[Any], *, draws: int, seed: int) -> float:
        """Rank of a quadratic form of the batches among relabellings: exact.

        Parameters
        ----------
        form : ndarray, shape [batch, batch]
            Any that does not depend on how the batches are labelled.
        draws, seed : int
        """
        nulls = quadratic_values(form, self.relabelled(draws, np.random.default_rng(seed)))
        value = float(quadratic_values(form, self.as_labelled)[0])
        return significance(value, floor_values=list(nulls)).p


def quadratic_values(form: NDArray[Any], weights: NDArray[Any]) -> NDArray[np.float64]:
    """Quadratic form w' G w for each row w of weights."""
    return np.einsum("di,ij,dj->d", weights, form, weights, optimize=True)


class BatchPermutations(Relabellings):
    """Relabellings of pooled batches for metrics that are quadratic or linear in the difference.

    Parameters
    ----------
    reference, evaluated : ndarray, shape [batch, z, y, x]
        On one grid.

    Raises
    ------
    InputError
        When the two grids differ in shape.

    Notes
    -----
    With d = sum_i w_i B_i the mean square of d is w' G w, G the Gram matrix of the batches: thousands
    of relabellings cost less than one map. *Definition* of the cross-batch estimate: the mean of
    (A_i - B_j)(A_k - B_l) over i != k, j != l, unbiased for the mean square of the true difference.
    """

    def __init__(self, reference: NDArray[Any], evaluated: NDArray[Any]) -> None:
        if reference.shape[1:] != evaluated.shape[1:]:
            raise InputError(
                f"batches must share their grid, got {reference.shape[1:]} and {evaluated.shape[1:]}. "
                "They cannot be relabelled. Tally both simulations on one grid."
            )
        super().__init__(len(reference), len(evaluated))
        rows = np.concatenate([reference, evaluated]).reshape(self.n + self.m, -1).astype(np.float64)
        self.sums: NDArray[Any] = rows.mean(axis=1)
        rows -= rows.mean(axis=0)
        self.gram: NDArray[Any] = rows @ rows.T / rows.shape[1]

    def mean_squares(self, weights: NDArray[Any]) -> NDArray[np.float64]:
        """Mean square difference for each row of weights [Gy2]."""
        return np.maximum(quadratic_values(self.gram, weights), 0.0)

    def mean_differences(self, weights: NDArray[Any]) -> NDArray[np.float64]:
        """Mean difference for each row of weights [Gy]."""
        return weights @ self.sums

    def cross_batch_mean_squares(self, weights: NDArray[Any]) -> NDArray[np.float64]:
        """Unbiased estimate of the mean square of the true difference; may be negative [Gy2].

        One for each row of weights of a relabelling: negative for one side's batches, positive for the
        other's.
        """
        own = np.zeros(len(weights))
        for side, size in ((weights < 0, self.n), (weights > 0, self.m)):
            x = side.astype(np.float64)
            everything = quadratic_values(self.gram, x)
            own += (everything - x @ np.diagonal(self.gram)) / (size * (size - 1)) - everything / size**2
        return quadratic_values(self.gram, weights) + own
