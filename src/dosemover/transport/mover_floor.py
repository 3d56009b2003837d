"""What the Dose Mover's Distance and its parts read between two maps that differ by noise alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dosemover.dose import DoseMap
from dosemover.errors import InputError
from dosemover.grid import Grid, conserve
from dosemover.transport.dose_mover import MoverProblem, mover_problem
from dosemover.transport.measure import Weight, measure_factor
from dosemover.transport.mover_gram import MoverGram, inverse_operator
from dosemover.transport.quadratic_form import QuadraticNoise

StandardNoise = Callable[[NDArray[Any], np.random.Generator], NDArray[np.float64]]
"""Standard normal field for a map of uncertainties [Gy], with its spatial correlation."""

_FEWEST_PROBES, _MOST_PROBES = 4, 32
_PROBED_VOXELS = 1e6
"""Voxels of all probes together: a second or two."""
_SURE_FREEDOM = 200.0
"""Degrees of freedom from which a correlation is known well enough: 10 % of the square is in doubt."""


@dataclass(frozen=True, kw_only=True, eq=False)
class MoverFloor:
    """Noise floor of the Dose Mover's Distance.

    Parameters
    ----------
    floor, floor_sd : float
        Mean and standard deviation of the distance between maps that differ by noise alone [mm].
    mean_square, variance_square : float
        E[DMD^2] [mm2] and Var[DMD^2] [mm4].
    n_probes : int
        Random probes of the inverse operator, or batches that were sent through it.
    method : str
        Where the noise came from.
    batch_freedom : float
        Degrees of freedom of the covariance: of the batches that it came from, else infinite.
    parts : mapping
        The squares of dmd_mm, dmd_moved_mm and dmd_changed_percent under noise alone.
    """

    floor: float
    floor_sd: float
    mean_square: float
    variance_square: float
    n_probes: int
    method: str
    batch_freedom: float
    parts: Mapping[str, QuadraticNoise]

    def p_value(self, value_mm: float, key: str = "dmd_mm") -> float | None:
        """Probability of a value of at least ``value_mm`` under noise alone; None without noise.

        The square as a gamma variable with its mean and variance; where the mean is itself known from few
        batches, few probes or a correlation from few lags, the ratio of the two follows an F distribution.
        """
        return self.parts[key].p_value(value_mm)


def mover_floor(
    parts: Mapping[str, QuadraticNoise], *, n_probes: int, method: str, batch_freedom: float
) -> MoverFloor:
    """The floor whose parts are known."""
    whole = parts["dmd_mm"]
    floor, deviation = whole.root
    return MoverFloor(
        floor=floor,
        floor_sd=deviation,
        mean_square=whole.mean,
        variance_square=whole.variance,
        n_probes=n_probes,
        method=method,
        batch_freedom=batch_freedom,
        parts=parts,
    )


def dose_mover_floor(
    *,
    reference: DoseMap,
    evaluated: DoseMap,
    exchange_mm_per_percent: float = 1.0,
    ambient_dose_percent: float = 0.1,
    ambient_dose_gy: float | None = None,
    mask: ArrayLike | None = None,
    weight: Weight = "dose",
    n_probes: int | None = None,
    seed: int = 0,
    normal: StandardNoise | None = None,
    freedom: float = np.inf,
    inflation: float = 1.0,
    gram: MoverGram | None = None,
) -> MoverFloor:
    r"""Noise floor of the Dose Mover's Distance and its parts, from uncertainty maps or batches.

    With A the operator -div(theta grad .) + theta ./L^2 of the estimate and C the covariance of the noise,

        E[DMD^2] = tr(A^-1 C) / |a_ref|,   Var[DMD^2] = 2 tr((A^-1 C)^2) / |a_ref|^2

    and the same with B = A^-1 (theta / L^4) A^-1 for dmd_changed^2, with A^-1 - L^2 B for dmd_moved^2.
    The traces come from random probes: noise of covariance C with random signs, sent through A^-1. From an
    uncertainty map C is diagonal (voxels independent, any spatially varying variance) unless ``normal`` is
    given; from batches it is the batches' own, correlations included, and Var is freed from the scatter that
    a covariance from few batches adds. The mean of DMD itself is that of the square root of a gamma variable
    with these two moments.

    Parameters
    ----------
    reference, evaluated : DoseMap
        At least one with ``batches_gy`` or ``uncertainty_gy``; a map with neither counts as free of noise.
    exchange_mm_per_percent, ambient_dose_percent, ambient_dose_gy, mask, weight
        As for `dose_movers_distance`.
    n_probes : int, optional
        4 at 250 k voxels and more, up to 32 for small maps.
    seed : int
    normal : callable, optional
        ``normal(uncertainty_gy, rng)`` draws standardised noise for a map without batches, with its
        spatial correlation; independent voxels unless given.
    freedom : float
        Degrees of freedom of the variance of a sum that this correlation gives, for p values.
    inflation : float
        Variance of a sum that this correlation gives, over that of independent voxels.
    gram : MoverGram, optional
        Quadratic form of the same batches on merged voxels: the probes then estimate only what merging left
        out, and the smooth modes, few and strong, are counted exactly.

    Raises
    ------
    InputError
        Where neither map says how noisy it is.

    Notes
    -----
    An error of the correlation is common to all that it joins: its lags times one factor change E[DMD^2] by
    d = (E - E_0) I / (I - 1) times the relative change of the inflation I, E_0 being that of independent
    voxels. p takes the variance 2 d^2 / freedom of the mean from it (d = E where freedom exceeds 200, without
    the second set of probes that E_0 takes), or, where that is more, the one of modes that err independently.

    *Matches* simulated replicates within 5 % up to 5 % noise (tests). *Limits*: the change is a matter of
    few smooth modes, so that few probes alone leave its floor uncertain by 10 to 40 %; p values know it, and
    ``gram`` cures it.
    *Cost*: one solve a probe; two where freedom lies below 200.
    """
    problem = mover_problem(
        reference=reference,
        evaluated=evaluated,
        exchange_mm_per_percent=exchange_mm_per_percent,
        ambient_dose_percent=ambient_dose_percent,
        ambient_dose_gy=ambient_dose_gy,
        mask=mask,
        weight=weight,
    )
    factor = measure_factor(reference=reference, grid=problem.grid, mask=mask, weight=weight)
    noisy = [m for m in (reference, evaluated) if m.batches_gy is not None or m.uncertainty_gy is not None]
    if not noisy:
        raise InputError(
            "neither map says how noisy it is: the noise floor cannot be computed. Pass `uncertainty_gy` or "
            "`batches_gy`, or --reference-uncertainty MAP on the command line."
        )
    count = n_probes or int(np.clip(_PROBED_VOXELS / problem.grid.n_voxels, _FEWEST_PROBES, _MOST_PROBES))
    rng = np.random.default_rng(seed)
    probes, weights = zip(
        *(_probe(noisy, problem.grid, factor, rng, normal) for _ in range(count)), strict=True
    )
    independent = normal is None and all(m.batches_gy is None for m in noisy)
    inverse = _inverse_freedom(noisy)
    if gram is None:
        parts = _parts(problem, np.stack(probes), independent=independent, inverse=inverse)
    else:
        forms = inverse_operator(problem, np.stack(probes)).forms()
        parts = _beside(gram, forms, np.stack(weights), inverse=inverse)
    if normal is not None and np.isfinite(freedom):
        plain = None
        if inflation > 1 and freedom < _SURE_FREEDOM:
            white = [_probe(noisy, problem.grid, factor, rng, None)[0] for _ in range(count)]
            forms = inverse_operator(problem, np.stack(white)).forms()
            plain = {key: float(np.mean(np.diagonal(form))) for key, form in forms.items()}
        parts = {
            key: _in_doubt(one, None if plain is None else plain[key], freedom, inflation)
            for key, one in parts.items()
        }
    kinds = {"batches" if m.batches_gy is not None else "uncertainty maps" for m in noisy}
    return mover_floor(
        parts,
        n_probes=count,
        method="closed form from " + " and ".join(sorted(kinds)),
        batch_freedom=1 / inverse if inverse > 0 else np.inf,
    )


def _probe(
    maps: list[DoseMap],
    grid: Grid,
    factor: NDArray[np.float64] | None,
    rng: np.random.Generator,
    normal: StandardNoise | None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Noise of the difference with random signs, and the weights of the batches in it.

    E[z z'] is the covariance of the maps' noise.
    """
    total = np.zeros(grid.shape)
    weights = [np.empty(0)]
    for dose in maps:
        if dose.batches_gy is not None:
            n = dose.batches_gy.shape[0]
            signs = rng.choice([-1.0, 1.0], size=n)
            weights.append((signs - signs.mean()) / np.sqrt(n * (n - 1)))
            noise = np.tensordot(weights[-1], dose.batches_gy, axes=1)
        else:
            assert dose.uncertainty_gy is not None
            signs = rng.choice([-1.0, 1.0], size=dose.grid.shape)
            noise = (signs if normal is None else normal(dose.uncertainty_gy, rng)) * dose.uncertainty_gy
        total += conserve(noise, source=dose.grid, target=grid)
    return total if factor is None else total * factor, np.concatenate(weights)


def _parts(
    problem: MoverProblem, probes: NDArray[np.float64], *, independent: bool, inverse: float
) -> dict[str, QuadraticNoise]:
    """Mean and variance of the squares from the probes.

    The variance of the mean adds what few batches (``inverse``) and the number of probes leave open. For
    independent voxels tr((A^-1 C)^2) = E |C^1/2 A^-1 z|^2; otherwise E (z_1 A^-1 z_2)^2.
    """
    applied = inverse_operator(problem, probes)
    volume = problem.grid.voxel_volume_mm3
    squares = {"dmd_mm": np.mean([np.sum((u * z * volume) ** 2) for u, z in applied.pairs()])}
    count = len(probes)
    parts = {}
    for key, form in applied.forms().items():
        firsts = np.diagonal(form)
        first = float(np.mean(firsts))
        if independent and key in squares:
            second = 2 * float(squares[key]) / problem.mass**2
        else:
            second = 2 * float(np.mean(form[np.triu_indices(count, 1)] ** 2)) if count > 1 else 0.0
            second = max((second - 2 * first**2 * inverse) / (1 + inverse), 0.05 * second)
        drawn = float(np.var(firsts, ddof=1)) if independent and count > 1 else second
        parts[key] = QuadraticNoise(
            mean=first, variance=second, mean_variance=second * inverse + drawn / count
        )
    return parts


def _beside(
    gram: MoverGram, forms: Mapping[str, NDArray[np.float64]], weights: NDArray[np.float64], *, inverse: float
) -> dict[str, QuadraticNoise]:
    """The traces of merged voxels, exact over the batches, and what probes of all voxels read beyond them.

    The merged form is known for the same ``weights`` [probe, batch]: a control variate, whose differences
    hold none of the smooth modes.
    """
    count = len(weights)
    above = np.triu_indices(count, 1)
    parts = {}
    for key, merged in gram.noise().items():
        coarse = weights @ gram.forms[key] @ weights.T
        left = np.diagonal(forms[key] - coarse)
        mean = merged.mean + float(left.mean())
        more, drawn = 0.0, 0.0
        if count > 1:
            more = 2 * float(np.mean(forms[key][above] ** 2 - coarse[above] ** 2))
            more = (more - 2 * (mean**2 - merged.mean**2) * inverse) / (1 + inverse)
            drawn = float(np.var(left, ddof=1)) / count
        parts[key] = QuadraticNoise(
            mean=max(mean, 0.0),
            variance=merged.variance + max(more, 0.0),
            mean_variance=merged.mean_variance + drawn,
        )
    return parts


def _in_doubt(one: QuadraticNoise, plain: float | None, freedom: float, inflation: float) -> QuadraticNoise:
    """A square whose mean the correlation leaves in doubt; ``plain`` is the mean for independent voxels."""
    slope = one.mean
    if plain is not None:
        slope = float(np.clip((one.mean - plain) * inflation / (inflation - 1), 0.0, one.mean))
    elif freedom < _SURE_FREEDOM:
        slope = 0.0  # no correlation was found that a factor could change
    doubt = max(2 * slope**2, one.variance) / freedom
    return replace(one, mean_variance=one.mean_variance + doubt)


def _inverse_freedom(maps: list[DoseMap]) -> float:
    """1 / nu of the covariance of the difference, by Welch and Satterthwaite; 0 from uncertainty maps.

    For a covariance S^ from nu degrees of freedom E tr(S^^2) = tr(S^2) (1 + 1/nu) + tr(S)^2 / nu (Wishart).
    """
    sums = [_summed_variance(m) for m in maps]
    total = sum(sums)
    if total <= 0:
        return 0.0
    return sum(
        (s / total) ** 2 / (len(m.batches_gy) - 1)
        for s, m in zip(sums, maps, strict=True)
        if m.batches_gy is not None
    )


def _summed_variance(dose: DoseMap) -> float:
    """Sum over the voxels of the variance of a map [Gy2]."""
    if dose.batches_gy is not None:
        return float(np.sum(dose.batches_gy.var(axis=0, ddof=1, dtype=np.float64))) / len(dose.batches_gy)
    assert dose.uncertainty_gy is not None
    return float(np.sum(np.square(dose.uncertainty_gy, dtype=np.float64)))
