"""Derivatives of the transport distances against finite differences of the number that users are shown.

Maps with voxel noise on uneven voxel boundaries, in one, two and three dimensions; inside a structure, above
a dose threshold, and weighted with a density.
"""

from __future__ import annotations

import numpy as np
import pytest

from dosemover.dose import DoseMap
from dosemover.grid import Grid
from dosemover.transport import (
    dose_mover_gradient,
    dose_movers_distance,
    flat_norm,
    flat_norm_gradient,
    sinkhorn_divergence,
    sinkhorn_gradient,
    wasserstein_1,
    wasserstein_1_gradient,
    wasserstein_2,
    wasserstein_2_gradient,
)
from dosemover.transport.line import line_w2_squared
from transport_maps import line_map

SHAPES = [(1, 1, 14), (1, 7, 6), (4, 5, 4)]
WEIGHTINGS = ["whole map", "structure", "threshold", "energy in a structure"]


def noisy_pair(shape, seed=0) -> tuple[DoseMap, DoseMap]:
    """A hump and the same moved by less than a voxel, 5 % noise in both, uneven voxels, density on one."""
    rng = np.random.default_rng(seed)
    edges = [np.concatenate([[0.0], np.cumsum(rng.uniform(1.5, 3.0, n))]) for n in shape]
    grid = Grid(z_edges_mm=edges[0], y_edges_mm=edges[1], x_edges_mm=edges[2])

    def hump(shift):
        dose = np.array(2.0)
        for e in edges:
            x = (e[1:] + e[:-1]) / 2
            part = np.exp(-(((x - e[-1] / 2 - shift) / (0.35 * e[-1])) ** 2)) if e.size > 2 else np.ones(1)
            dose = dose[..., None] * part
        return dose * (1 + 0.05 * rng.standard_normal(shape))

    density = rng.uniform(0.3, 1.5, shape)
    reference = DoseMap(dose_gy=hump(0.0), grid=grid, density_g_per_cm3=density)
    return reference, DoseMap(dose_gy=hump(0.5), grid=grid)


def weighting(name, reference) -> dict:
    """Settings of a masked or weighted distance; the structure touches the border."""
    if name == "whole map":
        return {}
    if name == "threshold":
        return {"mask": reference.dose_gy >= 0.6 * reference.max_gy}
    inside = np.ones(reference.grid.shape)
    inside[..., -2:] = 0.0
    inside[..., 0] = 0.5
    return {"mask": inside} | ({"weight": "energy"} if name.startswith("energy") else {})


def slope_of(number, evaluated, direction, step) -> float:
    """Central difference of a number of the evaluated map along a direction of the dose."""
    ends = [DoseMap(dose_gy=evaluated.dose_gy + s * direction, grid=evaluated.grid) for s in (step, -step)]
    return (number(ends[0]) - number(ends[1])) / (2 * step)


def directions(evaluated, seed=1) -> list[np.ndarray]:
    """One voxel's dose, noise everywhere, more output."""
    one = np.zeros(evaluated.grid.shape)
    one.flat[one.size // 2] = 1.0
    noise = np.random.default_rng(seed).standard_normal(one.shape) * evaluated.dose_gy
    return [one, noise, evaluated.dose_gy]


@pytest.mark.parametrize("name", WEIGHTINGS)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_derivative_of_the_squared_dose_movers_distance_is_its_slope(shape, name):
    reference, evaluated = noisy_pair(shape)
    settings = weighting(name, reference) | {"tolerance": 1e-9}

    def shown(moved):
        found = dose_movers_distance(
            reference=reference, evaluated=moved, bounds=False, fields=False, **settings
        )
        return found.value**2

    squared, gradient = dose_mover_gradient(reference=reference, evaluated=evaluated, **settings)
    assert squared == pytest.approx(shown(evaluated), rel=1e-9)
    for direction in directions(evaluated):
        slope = slope_of(shown, evaluated, direction, 1e-4)
        assert np.vdot(gradient, direction) == pytest.approx(slope, rel=1e-4, abs=1e-6 * squared)


@pytest.mark.parametrize("name", WEIGHTINGS)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_derivative_of_the_squared_w2_is_its_slope(shape, name):
    reference, evaluated = noisy_pair(shape)
    settings = weighting(name, reference) | {"tolerance": 1e-9}

    def shown(moved):
        found = wasserstein_2(reference=reference, evaluated=moved, bounds=False, fields=False, **settings)
        assert found.settings["linear"]
        return found.value**2

    squared, gradient = wasserstein_2_gradient(reference=reference, evaluated=evaluated, **settings)
    assert squared == pytest.approx(shown(evaluated), rel=1e-9)
    for direction in directions(evaluated):
        slope = slope_of(shown, evaluated, direction, 1e-4)
        assert np.vdot(gradient, direction) == pytest.approx(slope, rel=1e-4, abs=1e-6 * squared)


@pytest.mark.parametrize("shift", [0.0, 0.4, 6.0])
def test_dose_that_appears_around_the_box_costs_w2_the_way_from_its_border(shift):
    edges = np.arange(41) * 1.5
    x = (edges[1:] + edges[:-1]) / 2
    dose = ((x > 15) & (x < 36)) * (1.2 + np.sin(x / 4))
    moved = np.interp(x, x + shift, dose) * ((x > 15 + shift) & (x < 36 + shift))
    reference, evaluated = line_map(dose, edges), line_map(moved, edges)
    _, gradient = wasserstein_2_gradient(reference=reference, evaluated=evaluated)
    outside = np.flatnonzero(moved == 0)

    def distribution(values):
        total = np.concatenate([[0.0], np.cumsum(values)])
        return total / total[-1]

    step, now = 1e-5, line_w2_squared(edges, distribution(dose), distribution(moved))
    slopes = []
    for i in outside:
        more = moved.copy()
        more[i] += step
        slopes.append((line_w2_squared(edges, distribution(dose), distribution(more)) - now) / step)
    np.testing.assert_allclose(gradient[0, 0, outside], slopes, atol=0.1 * np.max(np.abs(slopes)))


@pytest.mark.parametrize("name", WEIGHTINGS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("reach", [5.0, None])
def test_the_derivative_of_the_flat_norm_and_of_w1_lies_between_their_slopes(reach, shape, name):
    reference, evaluated = noisy_pair(shape)
    settings = weighting(name, reference) | {"tolerance": 5e-4, "max_iterations": 2000}
    distance, gradient_of = wasserstein_1, wasserstein_1_gradient
    if reach is not None:
        distance, gradient_of = flat_norm, flat_norm_gradient
        settings["reach_mm"] = reach

    def shown(moved):
        return distance(reference=reference, evaluated=moved, **settings).value

    value, gradient = gradient_of(reference=reference, evaluated=evaluated, **settings)
    assert value == pytest.approx(shown(evaluated), rel=1e-9)
    for direction in directions(evaluated):
        step = 0.02 / float(np.abs(direction).max())
        more, less = (
            DoseMap(dose_gy=evaluated.dose_gy + s * direction, grid=evaluated.grid) for s in (step, -step)
        )
        before, after = (value - shown(less)) / step, (shown(more) - value) / step
        kink = 2 * settings["tolerance"] * value / step + 0.005 * max(abs(before), abs(after))
        assert before - kink <= np.vdot(gradient, direction) <= after + kink


@pytest.mark.parametrize("name", WEIGHTINGS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("reach", "blur"), [(None, 2.5), (None, 8.0), (6.0, 2.5), (6.0, 8.0)])
def test_the_derivative_of_the_sinkhorn_divergence_is_its_slope(reach, blur, shape, name):
    reference, evaluated = noisy_pair(shape)
    settings = weighting(name, reference) | {"tolerance": 1e-9, "max_iterations": 3000}
    settings |= {"blur_mm": blur, "reach_mm": reach}

    def shown(moved):
        return sinkhorn_divergence(reference=reference, evaluated=moved, **settings).value ** 2

    squared, gradient = sinkhorn_gradient(reference=reference, evaluated=evaluated, **settings)
    assert squared == pytest.approx(shown(evaluated), rel=1e-6)
    for direction in directions(evaluated):
        slope = slope_of(shown, evaluated, direction, 1e-3)
        assert np.vdot(gradient, direction) == pytest.approx(slope, rel=2e-4, abs=1e-6 * squared)
