"""Midpoint Galerkin estimates of W_2 and of the Dose Mover's Distance from moments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dosemover.errors import GridMismatchError, InputError
from dosemover.moments.legendre import mass_matrix, stiffness_matrix, total_degree_indices
from dosemover.moments.tally import MomentTally
from dosemover.transport.quadratic_form import root_of_gamma

_SMALLEST_EIGENVALUE = 1e-12
"""Directions in which the scaled stiffness is below this share of its largest are left out."""


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
        Probability of a distance at least as large under noise alone.
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
    """

    levels: tuple[GalerkinLevel, ...]
    degree: int
    potential: NDArray[Any]
    status: str = "ok"

    @property
    def chosen(self) -> GalerkinLevel:
        """The level at the chosen degree."""
        return next(level for level in self.levels if level.degree == self.degree)

    @property
    def value_mm(self) -> float:
        """Estimate at the chosen degree [mm]."""
        return self.chosen.value_mm


def _require_one_box(reference: MomentTally, evaluated: MomentTally) -> None:
    """Tallies of one degree on one box."""
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
class _System:
    """One Galerkin system: delta' A^-1 delta with the covariance of delta."""

    indices: tuple[tuple[int, ...], ...]
    matrix: NDArray[Any]
    delta: NDArray[Any]
    covariances: tuple[NDArray[Any], ...]

    def level(self, degree: int, scale: float) -> tuple[GalerkinLevel, NDArray[Any]]:
        """Solve; ``scale`` multiplies the square. Returns the level and the potential."""
        root = 1 / np.sqrt(np.diagonal(self.matrix))
        values, vectors = np.linalg.eigh(self.matrix * root[:, None] * root)
        keep = values > _SMALLEST_EIGENVALUE * values.max(initial=0.0)
        whiten = (root[:, None] * vectors[:, keep]) / np.sqrt(values[keep])
        white = whiten.T @ self.delta
        squared = float(white @ white) * scale
        noise = sum((whiten.T @ c @ whiten for c in self.covariances), start=np.zeros((keep.sum(),) * 2))
        known = bool(self.covariances)
        mean = float(np.trace(noise)) * scale
        at_null = 2 * float(np.sum(noise * noise)) * scale**2
        variance = at_null + 4 * float(white @ noise @ white) * scale**2
        floor = root_of_gamma(mean, at_null)
        return (
            GalerkinLevel(
                degree=degree,
                value_mm=float(np.sqrt(squared)),
                squared_floor_mm2=mean if known else None,
                squared_sd_mm2=float(np.sqrt(variance)) if known else None,
                floor_mm=floor[0] if known else None,
                floor_sd_mm=floor[1] if known else None,
                p=_tail_of_quadratic_form(squared, mean, at_null) if known else None,
                condition=float(values[-1] / values[keep].min()) if keep.any() else 1.0,
                n_moments=len(self.indices),
            ),
            whiten @ white,
        )


def _tail_of_quadratic_form(value: float, mean: float, variance: float) -> float | None:
    """Probability that a quadratic form exceeds a value, by Patnaik's match of a scaled chi-square."""
    from scipy.special import chdtrc

    if mean <= 0 or variance <= 0:
        return None
    n = 2 * mean**2 / variance
    return float(chdtrc(n, value * n / mean))


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


def _normalized_covariance(tally: MomentTally, degree: int) -> NDArray[Any] | None:
    """Covariance of the moments over the mass, without the degree 0."""
    covariance = tally.covariance(degree)
    if covariance is None:
        return None
    where = tuple(np.array(total_degree_indices(3, degree)).T)
    means = tally.tensor[where] / tally.mass
    jacobian = np.eye(len(means))
    jacobian[:, 0] -= means
    return (jacobian @ covariance @ jacobian.T)[1:, 1:] / tally.mass**2


def _covariances(found: list[NDArray[Any] | None]) -> tuple[NDArray[Any], ...]:
    """The covariances that are known."""
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
        On one box, of one degree.
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
        When ``max_degree`` is more than the tallies allow.

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
    middle = (reference.tensor / reference.mass + evaluated.tensor / evaluated.mass) / 2
    levels, potential, chosen = [], np.zeros(0), -1
    for degree in _degrees(reference, max_degree, 1):
        indices = total_degree_indices(3, degree)[1:]
        keep = _drop_flat_axes(reference, indices) | _drop_flat_axes(evaluated, indices)
        where = tuple(np.array(indices).T)
        delta = evaluated.tensor[where] / evaluated.mass - reference.tensor[where] / reference.mass
        matrix = stiffness_matrix(middle, indices, reference.half_widths_mm)
        covariances = _covariances([_normalized_covariance(t, degree) for t in (reference, evaluated)])
        level, one = _kept(indices, matrix, delta, covariances, keep).level(degree, 1.0)
        levels.append(level)
        if _choose(levels) == degree:
            potential, chosen = _spread(one, keep), degree
    return GalerkinResult(
        levels=tuple(levels), degree=chosen, potential=potential, status=_conditioning(levels, chosen)
    )


def _kept(
    indices: tuple[tuple[int, ...], ...],
    matrix: NDArray[Any],
    delta: NDArray[Any],
    covariances: tuple[NDArray[Any], ...],
    keep: NDArray[Any],
) -> _System:
    """System restricted to the basis functions that the measures can see."""
    return _System(
        indices=tuple(index for index, one in zip(indices, keep, strict=True) if one),
        matrix=matrix[np.ix_(keep, keep)],
        delta=delta[keep],
        covariances=tuple(c[np.ix_(keep, keep)] for c in covariances),
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
    middle[0, 0, 0] += ambient_dose_gy * float(np.prod(2 * reference.half_widths_mm))
    levels, potential, chosen = [], np.zeros(0), -1
    for degree in _degrees(reference, max_degree, 0):
        indices = total_degree_indices(3, degree)
        keep = _drop_flat_axes(reference, indices) | _drop_flat_axes(evaluated, indices)
        where = tuple(np.array(indices).T)
        matrix = stiffness_matrix(middle, indices, reference.half_widths_mm)
        matrix += mass_matrix(middle, indices) / length**2
        delta = evaluated.tensor[where] - reference.tensor[where]
        covariances = _covariances([t.covariance(degree) for t in (reference, evaluated)])
        level, one = _kept(indices, matrix, delta, covariances, keep).level(degree, 1 / reference.mass)
        levels.append(level)
        if _choose(levels) == degree:
            potential, chosen = _spread(one, keep), degree
    return GalerkinResult(
        levels=tuple(levels), degree=chosen, potential=potential, status=_conditioning(levels, chosen)
    )
