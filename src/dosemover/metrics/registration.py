"""Rigid shifts between two maps: of the centre of dose, and the best translation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dosemover.dose import DoseMap
from dosemover.errors import InputError
from dosemover.grid import Grid, conserve, interpolate
from dosemover.metrics.masks import require_one_grid

_COARSE_VOXELS = 60_000
"""The search for the basin starts on maps averaged down to about this many voxels."""

_LAST_STEP_MM = 0.02
"""A Gauss-Newton step shorter than this is the last one: the next would be far shorter."""

_FEWEST_LAYERS = 4
"""Along axes of fewer voxels nothing is shifted."""

_LEAST_OVERLAP = 0.5
"""Share of the box along each axis that a shift must leave in common."""


@dataclass(frozen=True, kw_only=True, eq=False)
class CenterShiftResult:
    """Shift of the centre of dose.

    Parameters
    ----------
    vector_mm : tuple of float
        (x, y, z) from the reference's centre to the evaluated one's [mm].
    reference_center_mm, evaluated_center_mm : tuple of float
        Centres of dose (x, y, z) [mm].
    """

    vector_mm: tuple[float, float, float]
    reference_center_mm: tuple[float, float, float]
    evaluated_center_mm: tuple[float, float, float]

    @property
    def length_mm(self) -> float:
        """Length of the shift [mm]."""
        return float(np.linalg.norm(self.vector_mm))


def center_shift(*, reference: DoseMap, evaluated: DoseMap) -> CenterShiftResult:
    """Shift of the centre of dose, integral r D dV / integral D dV.

    Parameters
    ----------
    reference, evaluated : DoseMap
        Their grids may differ.

    Raises
    ------
    InputError
        When a map holds no dose.

    Notes
    -----
    *Limits*: only the mean of all movement, opposite movements cancel; a change of the low-dose
    bath far away moves it much. A lower bound on every Wasserstein distance.

    Examples
    --------
    >>> one = DoseMap.from_array([0.0, 1.0, 0.0], spacing_mm=(2.0,))
    >>> two = DoseMap.from_array([0.0, 1.0, 1.0], spacing_mm=(2.0,))
    >>> center_shift(reference=one, evaluated=two).vector_mm
    (1.0, 0.0, 0.0)
    """
    centers = [
        _center_of_dose(name, dose) for name, dose in (("reference", reference), ("evaluated", evaluated))
    ]
    vector = tuple(float(e - r) for r, e in zip(*centers, strict=True))
    return CenterShiftResult(
        vector_mm=(vector[0], vector[1], vector[2]),
        reference_center_mm=centers[0],
        evaluated_center_mm=centers[1],
    )


def _center_of_dose(name: str, dose: DoseMap) -> tuple[float, float, float]:
    """Centre of dose (x, y, z) [mm]."""
    wz, wy, wx = dose.grid.widths_mm
    density = dose.dose_gy.astype(np.float64)
    rows = density @ wx
    planes = rows @ wy
    total = float(planes @ wz)
    if total <= 0:
        raise InputError(f"the {name} map holds no dose. It has no centre. Check the map.")
    z, y, x = dose.grid.centers_mm
    return (
        float(wz @ ((density @ (wx * x)) @ wy)) / total,
        float(wz @ (rows @ (wy * y))) / total,
        float((wz * z) @ planes) / total,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class BestShiftResult:
    """The rigid translation of the evaluated map against the reference that minimises the RMSE.

    Parameters
    ----------
    vector_mm : tuple of float
        (x, y, z): how far the evaluated dose lies from the reference [mm].
    rmse_gy : float
        RMSE left after undoing the shift, over the voxels that both maps cover then, without the
        noise that interpolation smooths away [Gy].
    rmse_before_gy : float
        RMSE without a shift [Gy].
    n_iterations : int
    overlap : float
        Share of the voxels that is compared after the shift.
    status : str
        "ok", or what a reader must know.
    """

    vector_mm: tuple[float, float, float]
    rmse_gy: float
    rmse_before_gy: float
    n_iterations: int
    overlap: float
    status: str = "ok"

    @property
    def length_mm(self) -> float:
        """Length of the shift [mm]."""
        return float(np.linalg.norm(self.vector_mm))


def best_shift(*, reference: DoseMap, evaluated: DoseMap, max_iterations: int = 30) -> BestShiftResult:
    """Rigid translation t that minimises the RMSE between D_eval(r + t) and D_ref(r).

    Parameters
    ----------
    reference, evaluated : DoseMap
    max_iterations : int
        Most Gauss-Newton steps on the full maps.

    Returns
    -------
    BestShiftResult

    Raises
    ------
    GridMismatchError
        When the grids do not coincide.

    Notes
    -----
    *Definition*: the mean runs over reference voxels whose partner r + t lies between the outer
    voxel centres of the evaluated map: nothing shifted in from outside is compared. D_eval between
    centres is a cubic spline. Interpolating half-way between voxels smooths noise, so that the bare
    RMSE of noisy maps is least near half voxels, wherever the dose is; the variance that the
    spline takes from the noise of the evaluated map is therefore added back. That noise is taken
    from its batches or uncertainty, else from its mixed second differences, which hardly see a
    smooth dose.
    *Algorithm*: cross-correlation by FFT on coarse maps, Gauss-Newton there from its maximum, from
    the shift of the centre of dose and from 0, then on the full maps from the best of them.
    *Limits*: shifts of more than half the box along an axis, and along axes of fewer than 4 voxels,
    are not considered. Along a direction
    in which the dose does not change the shift is not determined, and stays near 0. Rotation and
    deformation are left in the RMSE. Noise adds to both RMSE values.
    *Cost*: about 1 s for 2 million voxels.

    References
    ----------
    lucas1981 for Gauss-Newton registration.
    """
    grid = require_one_grid(reference=reference, evaluated=evaluated)
    a, b = reference.dose_gy.astype(np.float64), evaluated.dose_gy.astype(np.float64)
    before = float(np.sqrt(np.mean((b - a) ** 2)))
    if not grid.extended_axes or before == 0.0 or not (a.any() and b.any()):
        status = "ok" if before == 0.0 else "no translation can be found: a map without extent or dose"
        return BestShiftResult(
            vector_mm=(0.0, 0.0, 0.0),
            rmse_gy=before,
            rmse_before_gy=before,
            n_iterations=0,
            overlap=1.0,
            status=status,
        )
    from threadpoolctl import threadpool_limits

    start = _coarse_shift(reference, evaluated, grid)
    problem = _Registration(a, b, grid, _noise_gy2(evaluated))
    with threadpool_limits(limits=1, user_api="blas"):  # one thread: the same bits, and as fast
        t, fit, n_iterations, converged = _gauss_newton(problem, start, max_iterations)
    z, y, x = (float(v) for v in t)
    return BestShiftResult(
        vector_mm=(x, y, z),
        rmse_gy=float(np.sqrt(max(fit.mean_square, 0.0))),
        rmse_before_gy=before,
        n_iterations=n_iterations,
        overlap=fit.overlap,
        status="ok" if converged else _unsettled(max_iterations),
    )


def _unsettled(steps: int) -> str:
    """What it means that the search ran out of steps."""
    return (
        f"not settled: the last of {steps} steps was still longer than {_LAST_STEP_MM:g} mm. The maps hardly "
        "tell which shift is best (flat dose, noise, or no shift at all): read it as a rough value"
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Fit:
    """Mean squared residual, its gradient and Gauss-Newton matrix at one shift."""

    mean_square: float
    gradient: NDArray[Any]
    hessian: NDArray[Any]
    overlap: float


class _Registration:
    """Squared difference of two maps as a function of the shift t (z, y, x) in mm.

    A cubic spline is separable and a translation moves all lines of an axis alike, so the shifted
    map is one small matrix M per axis times the map. White noise of variance s^2 keeps s^2 G(t),
    G the product over axes of the mean row sum of M^2.
    """

    def __init__(self, a: NDArray[Any], b: NDArray[Any], grid: Grid, noise_gy2: float) -> None:
        self.a, self.b, self.grid, self.noise_gy2 = a, b, grid, noise_gy2
        self.splines = [_cardinal_splines(centers) for centers in grid.centers_mm]
        self.margin = np.array([float(w.max()) for w in grid.widths_mm])

    def covered(self, low: NDArray[Any], high: NDArray[Any]) -> list[slice]:
        """Reference layers, per axis, whose partners lie between the evaluated map's outer centres.

        For every shift from ``low`` to ``high``.
        """
        layers = []
        for axis, centers in enumerate(self.grid.centers_mm):
            if self.splines[axis] is None:
                layers.append(slice(0, centers.size))
                continue
            slack = 1e-9 * (centers[-1] - centers[0])
            first, last = centers[0] - slack - low[axis], centers[-1] + slack - high[axis]
            hits = np.flatnonzero((centers >= first) & (centers <= last))
            layers.append(slice(int(hits[0]), int(hits[-1]) + 1) if hits.size else slice(0, 0))
        return layers

    def allows(self, t: NDArray[Any]) -> bool:
        """Whether enough of the box is left in common."""
        return all(
            rows.stop - rows.start >= max(1.0, _LEAST_OVERLAP * n)
            for rows, n in zip(self.covered(t, t), self.grid.shape, strict=True)
        )

    def neighborhood(self, t: NDArray[Any]) -> list[slice]:
        """Layers that every shift within the margin around t compares.

        One set of voxels for all of them: layers that come and go make steps in the mean.
        """
        return self.covered(t - self.margin, t + self.margin)

    def fit(self, t: NDArray[Any], rows: list[slice], *, derivatives: bool = True) -> _Fit:
        """Mean squared residual of some reference layers at a shift, with its derivatives."""
        values, slopes = [], []
        for axis in range(3):
            points = self.grid.centers_mm[axis][rows[axis]] + t[axis]
            spline = self.splines[axis]
            values.append(None if spline is None else spline(points))
            slopes.append(None if spline is None else spline(points, 1))
        residual, gradients = _shifted(self.b, values, slopes if derivatives else None)
        residual -= self.a[rows[0], rows[1], rows[2]]
        flat = residual.ravel()
        n = flat.size
        kept, kept_slope, kept_energy = self._noise_kept(values, slopes)
        gradient, hessian = np.zeros(3), np.zeros((3, 3))
        for i, g in gradients.items():
            gradient[i] = g.ravel() @ flat / n - self.noise_gy2 * kept_slope[i]
            for j, other in gradients.items():
                if j >= i:
                    hessian[i, j] = hessian[j, i] = g.ravel() @ other.ravel() / n
            own = hessian[i, i]
            hessian[i, i] = max(own - self.noise_gy2 * kept_energy[i], 0.1 * own)
        return _Fit(
            mean_square=float(flat @ flat) / n + self.noise_gy2 * (1.0 - kept),
            gradient=gradient,
            hessian=hessian,
            overlap=n / self.a.size,
        )

    def _noise_kept(
        self, values: list[NDArray[Any] | None], slopes: list[NDArray[Any] | None]
    ) -> tuple[float, NDArray[Any], NDArray[Any]]:
        """G, half its slope along each axis, and the gradient energy of noise of variance 1."""
        own, half_slope, energy = np.ones(3), np.zeros(3), np.zeros(3)
        for axis, (m, d) in enumerate(zip(values, slopes, strict=True)):
            if m is not None and d is not None:
                own[axis] = np.mean(np.sum(m * m, axis=1))
                half_slope[axis] = np.mean(np.sum(m * d, axis=1))
                energy[axis] = np.mean(np.sum(d * d, axis=1))
        others = np.array([own[1] * own[2], own[0] * own[2], own[0] * own[1]])
        return float(np.prod(own)), half_slope * others, energy * others


def _cardinal_splines(centers: NDArray[Any]) -> Any:
    """Spline through each unit vector on the centres: its values are an interpolation matrix.

    None for an axis of too few voxels, along which nothing is shifted.
    """
    from scipy.interpolate import make_interp_spline

    if centers.size < _FEWEST_LAYERS:
        return None
    return make_interp_spline(centers, np.eye(centers.size), k=3)


def _along(matrix: NDArray[Any] | None, values: NDArray[Any], axis: int) -> NDArray[Any]:
    """The matrix applied along one axis; None stands for the identity."""
    if matrix is None:
        return values
    if axis == 2:
        return values @ matrix.T
    if axis == 1:
        return np.matmul(matrix, values)
    nz, ny, nx = values.shape
    return (matrix @ values.reshape(nz, ny * nx)).reshape(-1, ny, nx)


def _shifted(
    b: NDArray[Any], values: list[NDArray[Any] | None], slopes: list[NDArray[Any] | None] | None
) -> tuple[NDArray[Any], dict[int, NDArray[Any]]]:
    """The shifted map, and its derivative along each axis with an extent."""
    z_done = _along(values[0], b, 0)
    zy_done = _along(values[1], z_done, 1)
    shifted = np.array(_along(values[2], zy_done, 2))
    gradients: dict[int, NDArray[Any]] = {}
    if slopes is not None:
        if slopes[2] is not None:
            gradients[2] = _along(slopes[2], zy_done, 2)
        if slopes[1] is not None:
            gradients[1] = _along(values[2], _along(slopes[1], z_done, 1), 2)
        if slopes[0] is not None:
            gradients[0] = _along(values[2], _along(values[1], _along(slopes[0], b, 0), 1), 2)
    return shifted, gradients


def _gauss_newton(
    problem: _Registration, start: NDArray[Any], max_iterations: int
) -> tuple[NDArray[Any], _Fit, int, bool]:
    """Damped Gauss-Newton (Levenberg-Marquardt) from a start; the mean square never rises."""
    t = start if problem.allows(start) else np.zeros(3)
    middle, rows = t, problem.neighborhood(t)
    fit, damping = problem.fit(t, rows), 0.0
    iteration, last = 0, False
    while not last and iteration < max_iterations:
        iteration += 1
        step = np.clip(_step(fit, damping), -problem.margin, problem.margin)
        last = float(np.max(np.abs(step))) < _LAST_STEP_MM
        if not problem.allows(t + step):
            damping = max(10 * damping, 1e-3)
            continue
        if np.any(np.abs(t + step - middle) > problem.margin):  # compare other voxels from here on
            middle, rows = t, problem.neighborhood(t)
            fit = problem.fit(t, rows)
        trial = problem.fit(t + step, rows, derivatives=not last)
        if trial.mean_square <= fit.mean_square:
            t, fit, damping = t + step, trial, damping / 10 if damping > 1e-6 else 0.0
        else:
            damping = max(10 * damping, 1e-3)
    return t, problem.fit(t, problem.covered(t, t), derivatives=False), iteration, last


def _step(fit: _Fit, damping: float) -> NDArray[Any]:
    """Solution of (H + damping diag H) step = -gradient, of least norm where H is singular."""
    hessian = fit.hessian + damping * np.diag(np.diag(fit.hessian))
    return -np.linalg.lstsq(hessian, fit.gradient, rcond=1e-10)[0]


def _coarse_shift(reference: DoseMap, evaluated: DoseMap, grid: Grid) -> NDArray[Any]:
    """Shift (z, y, x) [mm] of the best basin, found on coarse maps."""
    coarse = _coarse_grid(grid)
    a, b = (conserve(dose.dose_gy, source=grid, target=coarse) for dose in (reference, evaluated))
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    problem = _Registration(a, b, coarse, _second_difference_noise_gy2(b))
    center = np.array(center_shift(reference=reference, evaluated=evaluated).vector_mm[::-1])
    starts = [np.zeros(3), center, _correlation_shift(problem.a, problem.b, coarse)]
    fits = [_gauss_newton(problem, start, 20) for start in starts if problem.allows(start)]
    return min(fits, key=lambda outcome: outcome[1].mean_square)[0]


def _noise_gy2(dose: DoseMap) -> float:
    """Mean variance of the noise of a map [Gy2]."""
    if dose.batches_gy is not None:
        n = dose.batches_gy.shape[0]
        return float(np.mean(dose.batches_gy.var(axis=0, ddof=1, dtype=np.float64))) / n
    if dose.uncertainty_gy is not None:
        return float(np.mean(np.square(dose.uncertainty_gy, dtype=np.float64)))
    return _second_difference_noise_gy2(dose.dose_gy.astype(np.float64))


def _second_difference_noise_gy2(dose: NDArray[Any]) -> float:
    """Mean variance of white noise [Gy2] from second differences mixed over all axes."""
    difference, gain = dose, 1.0
    for axis, n in enumerate(dose.shape):
        if n > 2:
            difference = np.diff(difference, 2, axis=axis)
            gain *= 6.0
    return float(np.mean(difference**2)) / gain if gain > 1 else 0.0


def _coarse_grid(grid: Grid) -> Grid:
    """The grid with neighbouring voxels joined along its longest axes until it is small."""
    edges = list(grid.edges_mm)
    while np.prod([e.size - 1 for e in edges]) > _COARSE_VOXELS:
        axis = int(np.argmax([e.size for e in edges]))
        joined = edges[axis][::2]
        edges[axis] = joined if joined[-1] == edges[axis][-1] else np.append(joined, edges[axis][-1])
    return Grid(z_edges_mm=edges[0], y_edges_mm=edges[1], x_edges_mm=edges[2])


def _correlation_shift(a: NDArray[Any], b: NDArray[Any], grid: Grid) -> NDArray[Any]:
    """Shift (z, y, x) [mm] at the maximum of the cross-correlation, on an even grid."""
    from scipy.fft import irfftn, next_fast_len, rfftn

    shape = grid.shape
    spacing = [(high - low) / n for (low, high), n in zip(grid.box_mm, shape, strict=True)]
    if not grid.is_even:
        origin = [low + h / 2 for (low, _), h in zip(grid.box_mm, spacing, strict=True)]
        even = Grid.regular(shape=shape, spacing_mm=tuple(spacing[::-1]), origin_mm=tuple(origin[::-1]))
        a, b = (interpolate(dose, source=grid, target=even) for dose in (a, b))
    size = [int(next_fast_len(2 * n - 1, real=True) or 1) for n in shape]  # 2 n - 1 is 1 for one layer
    spectrum: Any = np.conj(np.asarray(rfftn(a, size))) * np.asarray(rfftn(b, size))
    correlation = np.asarray(irfftn(spectrum, size))
    best = np.unravel_index(int(np.argmax(correlation)), correlation.shape)
    lag = [int(i) - s if i > s // 2 else int(i) for i, s in zip(best, size, strict=True)]
    return np.array([n * h for n, h in zip(lag, spacing, strict=True)], dtype=np.float64)
