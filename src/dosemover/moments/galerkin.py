"""Midpoint Galerkin estimates of W_2 and of the Dose Mover's Distance from moments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dosemover.errors import GridMismatchError, InputError
from dosemover.moments.galerkin_batches import PooledBatches, whitening
from dosemover.moments.legendre import mass_matrix, stiffness_matrix, total_degree_indices
from dosemover.moments.rescale import rescaled_together
from dosemover.moments.tally import MomentTally
from dosemover.transport.quadratic_form import root_of_gamma, tail_of_gamma

_SMALLEST_P = 1e-15
"""P values are kept away from 0 and 1 by this where they are combined."""

_LARGEST_CONDITION = 1e10
"""Condition number of the scaled system above which the status says so."""


@dataclass(frozen=True, kw_only=True, eq=False)
class GalerkinLevel:
    """Estimate with polynomials up to one degree.

    Parameters
    ----------
    degree : int
    value_mm : float
        The distance as estimated, noise included.
    squared_floor_mm2 : float or None
        Mean of the squared distance between maps that differ by noise alone.
    squared_sd_mm2 : float or None
        Standard deviation of the squared distance, by the delta method.
    floor_mm, floor_sd_mm : float or None
        Mean and standard deviation of the distance itself under noise alone.
    p : float or None
        Probability of a distance at least as large under noise alone, for this degree alone.
    condition : float
        Condition number of the scaled system.
    n_moments : int
    """

    degree: int
    value_mm: float
    squared_floor_mm2: float | None
    squared_sd_mm2: float | None
    floor_mm: float | None
    floor_sd_mm: float | None
    p: float | None
    condition: float
    n_moments: int

    @property
    def debiased_squared_mm2(self) -> float:
        """Squared distance less its floor: unbiased near the null, may be negative [mm2]."""
        return self.value_mm**2 - (self.squared_floor_mm2 or 0.0)

    @property
    def sd_mm(self) -> float | None:
        """Standard deviation of the distance [mm]: that of the square over twice the value."""
        if self.squared_sd_mm2 is None:
            return None
        if self.value_mm**2 <= self.squared_sd_mm2:
            return float(np.sqrt(self.squared_sd_mm2))
        return self.squared_sd_mm2 / (2 * self.value_mm)


@dataclass(frozen=True, kw_only=True, eq=False)
class GalerkinResult:
    """Estimates at every degree, and the degree that the noise allows.

    Parameters
    ----------
    levels : tuple of GalerkinLevel
        Degree 1 (or 0) upwards.
    degree : int
        Chosen degree.
    potential : ndarray
        Coefficients of the potential in the Legendre basis at the chosen degree [mm2], in the order
        of `legendre.total_degree_indices`.
    status : str
    relabelled_p : float or None
        P value of all degrees together from relabelled batches, exact.
    """

    levels: tuple[GalerkinLevel, ...]
    degree: int
    potential: NDArray[Any]
    status: str = "ok"
    relabelled_p: float | None = None

    @property
    def chosen(self) -> GalerkinLevel:
        """The level at the chosen degree."""
        return next(level for level in self.levels if level.degree == self.degree)

    @property
    def value_mm(self) -> float:
        """Estimate at the chosen degree [mm]."""
        return self.chosen.value_mm

    @property
    def p(self) -> float | None:
        """P value of all degrees together, to which the choice of one does not matter.

        From relabelled batches where both tallies have enough of them; otherwise Cauchy's combination of
        the levels' closed forms (Liu & Xie 2020), which holds for p values that depend on each other.
        """
        if self.relabelled_p is not None:
            return self.relabelled_p
        known = [level.p for level in self.levels if level.p is not None]
        if not known:
            return None
        clipped = np.clip(known, _SMALLEST_P, 1 - _SMALLEST_P)
        return float(0.5 - np.arctan(np.mean(np.tan((0.5 - clipped) * np.pi))) / np.pi)


def _require_one_box(reference: MomentTally, evaluated: MomentTally) -> None:
    """Tallies of one degree on one box, with mass."""
    for tally in (reference, evaluated):
        tally.check_mass()
    if reference.degree != evaluated.degree or not np.allclose(reference.box_mm, evaluated.box_mm):
        raise GridMismatchError(
            "the two tallies must share their box and degree: their moments cannot be subtracted otherwise. "
            f"Got degree {reference.degree} on {reference.box_mm} and {evaluated.degree} on "
            f"{evaluated.box_mm}."
        )


def _degrees(reference: MomentTally, max_degree: int | None, lowest: int) -> range:
    """Degrees that the tallies allow: the stiffness of degree k takes moments to 2k."""
    most = reference.degree // 2
    top = most if max_degree is None else max_degree
    if not lowest <= top <= most:
        raise InputError(
            f"`max_degree` must lie between {lowest} and {most} for tallies of degree {reference.degree}, "
            f"got {top}. Tally to twice the degree."
        )
    return range(lowest, top + 1)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Noise:
    """Covariance of the moments of one tally, and the degrees of freedom behind it."""

    covariance: NDArray[Any]
    freedom: float

    def within(self, keep: NDArray[Any]) -> _Noise:
        """The covariance of the moments that are kept."""
        return _Noise(covariance=self.covariance[np.ix_(keep, keep)], freedom=self.freedom)

    def whitened(self, whiten: NDArray[Any]) -> _Noise:
        """The covariance of whitened moments."""
        return _Noise(covariance=whiten.T @ self.covariance @ whiten, freedom=self.freedom)

    def trace_of_square(self) -> float:
        """Estimate of tr(C^2), unbiased where C is that of a few batches (a Wishart matrix).

        E tr(C^2) = tr(S^2)(1 + 1/n) + tr(S)^2/n, E tr(C)^2 = tr(S)^2 + 2 tr(S^2)/n with n degrees of freedom.
        """
        square, trace = float(np.sum(self.covariance**2)), float(np.trace(self.covariance))
        n = self.freedom
        if not 1 < n < np.inf:
            return square
        unbiased = n**2 / ((n - 1) * (n + 2)) * (square - trace**2 / n)
        return max(unbiased, trace**2 / len(self.covariance))


@dataclass(frozen=True, kw_only=True, eq=False)
class _System:
    """One Galerkin system: delta' A^-1 delta with the noise of delta."""

    indices: tuple[tuple[int, ...], ...]
    matrix: NDArray[Any]
    delta: NDArray[Any]
    noises: tuple[_Noise, ...]

    def level(self, degree: int, scale: float) -> tuple[GalerkinLevel, NDArray[Any]]:
        """Solve; ``scale`` multiplies the square. Returns the level and the potential."""
        whiten, condition = whitening(self.matrix)
        white = whiten.T @ self.delta
        squared = float(white @ white) * scale
        known = bool(self.noises)
        parts = [noise.whitened(whiten) for noise in self.noises]
        both = sum((part.covariance for part in parts), start=np.zeros((whiten.shape[1],) * 2))
        squares = [part.trace_of_square() for part in parts]
        crossed = float(np.sum(both**2)) - sum(float(np.sum(part.covariance**2)) for part in parts)
        mean = float(np.trace(both)) * scale
        at_null = 2 * (sum(squares) + crossed) * scale**2
        of_mean = sum(2 * one / part.freedom for one, part in zip(squares, parts, strict=True)) * scale**2
        variance = at_null + 4 * float(white @ both @ white) * scale**2
        floor = root_of_gamma(mean, at_null)
        return (
            GalerkinLevel(
                degree=degree,
                value_mm=float(np.sqrt(squared)),
                squared_floor_mm2=mean if known else None,
                squared_sd_mm2=float(np.sqrt(variance)) if known else None,
                floor_mm=floor[0] if known else None,
                floor_sd_mm=floor[1] if known else None,
                p=tail_of_gamma(squared, mean, at_null, mean_variance=of_mean) if known else None,
                condition=condition,
                n_moments=len(self.indices),
            ),
            whiten @ white,
        )


def _conditioning(levels: list[GalerkinLevel], chosen: int) -> str:
    """Status of the chosen level: whether its system was solved to the digits that the value shows."""
    condition = next(level.condition for level in levels if level.degree == chosen)
    if condition < _LARGEST_CONDITION:
        return "ok"
    return (
        f"ill-conditioned ({condition:.1g}): the degree is too high for these moments, or the box much "
        "larger than the dose. Lower max_degree, or tally on the support box"
    )


def _choose(levels: list[GalerkinLevel]) -> int:
    """Degree at which added signal stops exceeding added floor: the largest value^2 - 2 floor."""
    if levels[0].squared_floor_mm2 is None:
        return levels[-1].degree
    gains = [level.value_mm**2 - 2 * (level.squared_floor_mm2 or 0.0) for level in levels]
    return levels[int(np.argmax(gains))].degree


def _noise(tally: MomentTally, degree: int, *, normalized: bool) -> _Noise | None:
    """Noise of the moments of one tally; of those over the mass without the degree 0 where ``normalized``."""
    covariance = tally.covariance(degree)
    if covariance is None:
        return None
    if normalized:
        where = tuple(np.array(total_degree_indices(3, degree)).T)
        means = tally.tensor[where] / tally.mass
        jacobian = np.eye(len(means))
        jacobian[:, 0] -= means
        covariance = (jacobian @ covariance @ jacobian.T)[1:, 1:] / tally.mass**2
    freedom = np.inf if tally.batches is None else len(tally.batches) - 1.0
    return _Noise(covariance=covariance, freedom=freedom)


def _noises(tallies: tuple[MomentTally, MomentTally], degree: int, *, normalized: bool) -> tuple[_Noise, ...]:
    """The noises that are known."""
    found = (_noise(tally, degree, normalized=normalized) for tally in tallies)
    return tuple(one for one in found if one is not None)


def _drop_flat_axes(tally: MomentTally, indices: tuple[tuple[int, ...], ...]) -> NDArray[Any]:
    """Which basis functions any measure in the tally can tell from constants."""
    flat = [
        axis for axis in range(3) if not np.any(np.take(tally.tensor, range(1, tally.degree + 1), axis=axis))
    ]
    return np.array([all(index[axis] == 0 for axis in flat) for index in indices])


def galerkin_w2(
    *, reference: MomentTally, evaluated: MomentTally, max_degree: int | None = None
) -> GalerkinResult:
    """Midpoint Galerkin estimate of W_2 between the normalised measures of two tallies.

    ``W_k^2 = delta' G^-1 delta``, delta the differences of the normalised moments up to degree k and
    G the stiffness matrix of the basis under the mean of both measures.

    Parameters
    ----------
    reference, evaluated : MomentTally
        On one box, of one degree. Streamed tallies on a box more than twice as wide as their deposits are
        rescaled, and the status says so; the potential is then that of the smaller box.
    max_degree : int, optional
        Largest polynomial degree k; half the degree of the tallies by default.

    Returns
    -------
    GalerkinResult

    Raises
    ------
    GridMismatchError
        When boxes or degrees differ.
    InputError
        When ``max_degree`` is more than the tallies allow, or a tally holds no mass.

    Notes
    -----
    *Definition*: the negative Sobolev norm of the difference, weighted by the midpoint density, on
    polynomials. Second-order accurate in the displacement. *Limits*: no bound in either direction;
    a large change of shape (one field into two) reads several percent high. The floor of the
    square is tr(G^-1 (C_ref + C_eval)). *Cost*: independent of the number of voxels.

    References
    ----------
    Peyre 2018 (Sobolev norms and W_2); Benamou & Brenier 2000 (the midpoint rule).
    """
    _require_one_box(reference, evaluated)
    reference, evaluated, note = rescaled_together(reference, evaluated)
    if note and max_degree is not None:
        max_degree = min(max_degree, reference.degree // 2)
    middle = (reference.tensor / reference.mass + evaluated.tensor / evaluated.mass) / 2
    pooled = PooledBatches.of(reference, evaluated, normalized=True)
    levels, potential, chosen = [], np.zeros(0), -1
    for degree in _degrees(reference, max_degree, 1):
        indices = total_degree_indices(3, degree)[1:]
        keep = _drop_flat_axes(reference, indices) | _drop_flat_axes(evaluated, indices)
        where = tuple(np.array(indices).T)
        delta = evaluated.tensor[where] / evaluated.mass - reference.tensor[where] / reference.mass
        matrix = stiffness_matrix(middle, indices, reference.half_widths_mm)
        noises = _noises((reference, evaluated), degree, normalized=True)
        if pooled is not None:
            pooled.add(indices, stiffness_matrix(pooled.middle, indices, reference.half_widths_mm), keep)
        level, one = _kept(indices, matrix, delta, noises, keep).level(degree, 1.0)
        levels.append(level)
        if _choose(levels) == degree:
            potential, chosen = _spread(one, keep), degree
    status = _conditioning(levels, chosen)
    return GalerkinResult(
        levels=tuple(levels),
        degree=chosen,
        potential=potential,
        status=f"{status}; {note}" if note else status,
        relabelled_p=None if pooled is None else pooled.p,
    )


def _kept(
    indices: tuple[tuple[int, ...], ...],
    matrix: NDArray[Any],
    delta: NDArray[Any],
    noises: tuple[_Noise, ...],
    keep: NDArray[Any],
) -> _System:
    """System restricted to the basis functions that the measures can see."""
    return _System(
        indices=tuple(index for index, one in zip(indices, keep, strict=True) if one),
        matrix=matrix[np.ix_(keep, keep)],
        delta=delta[keep],
        noises=tuple(one.within(keep) for one in noises),
    )


def _spread(coefficients: NDArray[Any], keep: NDArray[Any]) -> NDArray[np.float64]:
    """Coefficients of all basis functions, 0 for those left out."""
    full = np.zeros(keep.size)
    full[keep] = coefficients
    return full


def galerkin_dmd(
    *,
    reference: MomentTally,
    evaluated: MomentTally,
    exchange_mm_per_percent: float = 1.0,
    ambient_dose_gy: float = 0.0,
    max_degree: int | None = None,
) -> GalerkinResult:
    """Midpoint Galerkin estimate of the Dose Mover's Distance from moments.

    ``DMD_k^2 = delta' (G + M / L^2)^-1 delta / |a_ref|`` with moments that are not normalised,
    degree 0 included, M the mass matrix beside the stiffness matrix G.

    Parameters
    ----------
    reference, evaluated : MomentTally
        On one box, of one degree: the union box of both maps.
    exchange_mm_per_percent : float
        L = 100 x it [mm].
    ambient_dose_gy : float
        Added to both maps over the box, not to |a_ref| [Gy].
    max_degree : int, optional

    Returns
    -------
    GalerkinResult

    Raises
    ------
    GridMismatchError, InputError
        As for `galerkin_w2`.
    """
    _require_one_box(reference, evaluated)
    length = 100.0 * exchange_mm_per_percent
    middle = (reference.tensor + evaluated.tensor) / 2
    ambient = ambient_dose_gy * float(np.prod(2 * reference.half_widths_mm))
    middle[0, 0, 0] += ambient
    pooled = PooledBatches.of(reference, evaluated, normalized=False, ambient=ambient)
    levels, potential, chosen = [], np.zeros(0), -1
    for degree in _degrees(reference, max_degree, 0):
        indices = total_degree_indices(3, degree)
        keep = _drop_flat_axes(reference, indices) | _drop_flat_axes(evaluated, indices)
        where = tuple(np.array(indices).T)
        matrix = _screened(middle, indices, reference.half_widths_mm, length)
        delta = evaluated.tensor[where] - reference.tensor[where]
        noises = _noises((reference, evaluated), degree, normalized=False)
        if pooled is not None:
            pooled.add(indices, _screened(pooled.middle, indices, reference.half_widths_mm, length), keep)
        level, one = _kept(indices, matrix, delta, noises, keep).level(degree, 1 / reference.mass)
        levels.append(level)
        if _choose(levels) == degree:
            potential, chosen = _spread(one, keep), degree
    return GalerkinResult(
        levels=tuple(levels),
        degree=chosen,
        potential=potential,
        status=_conditioning(levels, chosen),
        relabelled_p=None if pooled is None else pooled.p,
    )


def _screened(
    middle: NDArray[Any], indices: tuple[tuple[int, ...], ...], half: NDArray[Any], length: float
) -> NDArray[np.float64]:
    """G + M / L^2 of a measure."""
    return stiffness_matrix(middle, indices, half) + mass_matrix(middle, indices) / length**2
