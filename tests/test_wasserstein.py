"""W_2: closed forms, quantiles, polynomial maps, laws, failures."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from closed_forms import bures_squared, w2_squared_on_a_line
from dosemover.dose import DoseMap
from dosemover.errors import AccuracyWarning, InputError
from dosemover.grid import Grid
from dosemover.transport import wasserstein_2, wasserstein_2_gradient
from strategies import dose_maps


def gaussian(grid, center, sigma):
    """Product Gaussian, integrated over each voxel; order (z, y, x)."""
    from scipy.special import ndtr

    parts = [
        np.diff(ndtr((e - c) / s)) / np.diff(e) for e, c, s in zip(grid.edges_mm, center, sigma, strict=True)
    ]
    return DoseMap(dose_gy=parts[0][:, None, None] * parts[1][:, None] * parts[2] * 1e4, grid=grid)


@pytest.mark.parametrize("shift", [(0.3, -0.2, 0.1), (2.0, 1.0, -3.0), (0.0, 12.0, 9.0)])
@pytest.mark.parametrize("stretch", [1.0, 1.1])
def test_shifted_and_stretched_gaussians_read_bures(shift, stretch):
    grid = Grid.regular(shape=(30, 32, 36), spacing_mm=(3.0, 3.0, 3.0), origin_mm=(-52.5, -46.5, -43.5))
    sigma = np.array([8.0, 9.0, 10.0])
    a, b = gaussian(grid, (0, -4, -3), sigma), gaussian(grid, np.add(shift, (0, -4, -3)), sigma * stretch)
    exact = np.sqrt(bures_squared((0, 0, 0), sigma**2, shift, (sigma * stretch) ** 2))
    found = wasserstein_2(reference=a, evaluated=b)
    assert found.lower <= exact * (1 + 1e-4)
    assert exact <= found.upper * (1 + 1e-4)
    assert found.value == pytest.approx(exact, rel=2e-2)
    mean = found.settings["displacement_mean_mm"]
    assert mean == pytest.approx(shift[::-1], abs=0.02 + 0.02 * np.linalg.norm(shift))


@pytest.mark.parametrize("n", [25, 64])
def test_lines_agree_with_quantiles(n):
    rng = np.random.default_rng(2)
    edges = np.concatenate([[0.0], np.cumsum(rng.uniform(1.0, 2.0, n))])
    x = (edges[1:] + edges[:-1]) / 2 / edges[-1]
    grid = Grid(z_edges_mm=[0, 1], y_edges_mm=[0, 1], x_edges_mm=edges)
    p, q = 1 + 0.5 * np.sin(6 * x), 1 + 0.4 * np.cos(5 * x)
    a, b = (DoseMap(dose_gy=v[None, None], grid=grid) for v in (p, q))
    exact = np.sqrt(w2_squared_on_a_line(edges, p, q))
    found = wasserstein_2(reference=a, evaluated=b)
    assert found.lower <= exact * (1 + 1e-5)
    assert exact <= found.upper * (1 + 1e-5)
    assert found.value == pytest.approx(exact, rel=1e-2)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_uniform_cubes_under_polynomial_maps(axes):
    """U[-1, 1]^d to 1.5 x^2, by x + 0.4 grad(x1 x2^2/2) and x + 0.3 grad(x1 x2 x3); 1 unit = 20 mm."""
    n = {1: 400, 2: 48, 3: 20}[axes]
    scale = 20.0
    exact = scale * np.sqrt({1: 8 / 105, 2: 0.16 * 29 / 180, 3: 0.03}[axes])
    x = (np.stack(np.meshgrid(*[np.arange(n * 6)] * axes, indexing="ij")).reshape(axes, -1) + 0.5) / (
        3 * n
    ) - 1
    if axes == 1:
        y = np.cbrt(x)
    elif axes == 2:
        y = x + 0.4 * np.stack([x[1] ** 2 / 2, x[0] * x[1]])
    else:
        y = x + 0.3 * np.stack([x[1] * x[2], x[0] * x[2], x[0] * x[1]])
    bounds = (-1.6, 1.6)
    m = round(n * 1.6)
    counts = [np.histogramdd(v.T, bins=m, range=[bounds] * axes)[0] for v in (x, y)]
    spacing = tuple([3.2 * scale / m] * axes)
    a, b = (DoseMap.from_array(c, spacing_mm=spacing) for c in counts)
    found = wasserstein_2(reference=a, evaluated=b)
    assert found.value == pytest.approx(exact, rel=0.04)
    assert found.lower <= exact * 1.01
    assert found.upper >= exact * 0.99


def test_two_blocks_apart_have_a_lower_bound_and_no_flux():
    a, b = np.zeros(20), np.zeros(20)
    a[2:5], b[12:15] = 1, 1
    found = wasserstein_2(
        reference=DoseMap.from_array(a, spacing_mm=(1.0,)), evaluated=DoseMap.from_array(b, spacing_mm=(1.0,))
    )
    assert found.lower <= 10.0
    assert found.upper is None or found.upper >= 10.0


def test_identical_and_rescaled_maps_are_at_distance_zero():
    a = gaussian(Grid.regular(shape=(6, 7, 8), spacing_mm=(3.0, 3.0, 3.0)), (9, 9, 9), (5, 5, 5))
    for evaluated in (a, a.scaled(1.5)):
        found = wasserstein_2(reference=a, evaluated=evaluated)
        assert found.value == pytest.approx(0, abs=1e-6)
        assert found.upper == pytest.approx(0, abs=1e-4)
    assert found.settings["mass_ratio"] == pytest.approx(1.5)


@settings(max_examples=12, deadline=None)
@given(st.data())
def test_bounds_are_ordered_and_obey_the_triangle(data):
    a = data.draw(dose_maps())
    b, c = (data.draw(dose_maps(grid=a.grid)) for _ in range(2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AccuracyWarning)
        ab, bc, ac = (
            wasserstein_2(reference=p, evaluated=q, fields=False, refine=1)
            for p, q in ((a, b), (b, c), (a, c))
        )
    for found in (ab, bc, ac):
        assert found.lower <= found.value
        assert found.upper is None or found.value <= found.upper
    if ab.upper is not None and bc.upper is not None:
        assert ac.lower <= (ab.upper + bc.upper) * (1 + 1e-9)


def test_zeros_outside_the_body_and_noise_give_both_sides():
    rng = np.random.default_rng(3)
    grid = Grid.regular(shape=(24, 26, 22), spacing_mm=(3.0, 3.0, 3.0), origin_mm=(-31.5, -37.5, -34.5))
    z, y, x = grid.centers_mm
    body = (x / 30) ** 2 + (y[:, None] / 36) ** 2 + (z[:, None, None] / 33) ** 2 < 1
    maps = []
    for shift in (0.0, 1.0):
        dose = (gaussian(grid, (0, 0, shift), (12, 12, 12)).dose_gy + 0.05) * body
        dose = np.maximum(dose + 0.02 * np.sqrt(dose) * rng.standard_normal(dose.shape), 0)
        maps.append(DoseMap(dose_gy=dose, grid=grid))
    found = wasserstein_2(reference=maps[0], evaluated=maps[1])
    assert 0.3 < found.lower < found.value < found.upper < 1.0
    assert found.gap < 0.15


@pytest.mark.parametrize("shape", [(3, 4, 5), (1, 1, 12), (1, 5, 6)])
def test_the_gradient_is_that_of_finite_differences(shape):
    rng = np.random.default_rng(4)
    grid = Grid.regular(shape=shape, spacing_mm=(2.0, 1.5, 2.5))
    a, b = rng.uniform(0.4, 1, shape), rng.uniform(0.4, 1, shape)
    reference = DoseMap(dose_gy=a, grid=grid)

    def value(dose):
        return wasserstein_2_gradient(
            reference=reference, evaluated=DoseMap(dose_gy=dose, grid=grid), tolerance=1e-10, linear=True
        )

    _, gradient = value(b)
    direction, step = rng.standard_normal(shape), 1e-5
    slope = (value(b + step * direction)[0] - value(b - step * direction)[0]) / (2 * step)
    assert np.vdot(gradient, direction) == pytest.approx(slope, rel=1e-4)


def test_newtons_gradient_is_that_of_the_distance():
    grid = Grid.regular(shape=(1, 1, 80), spacing_mm=(1.0, 1.0, 1.0))
    x = grid.centers_mm[2]
    a, b = (0.2 + np.exp(-((x - c) ** 2) / 150) for c in (36.0, 44.0))
    direction = np.exp(-((x - 50) ** 2) / 60)
    edges, step = grid.x_edges_mm, 1e-3
    reference, evaluated = (DoseMap(dose_gy=v[None, None], grid=grid) for v in (a, b))
    _, gradient = wasserstein_2_gradient(reference=reference, evaluated=evaluated, linear=False)
    slope = w2_squared_on_a_line(edges, a, b + step * direction) - w2_squared_on_a_line(
        edges, a, b - step * direction
    )
    assert np.vdot(gradient, direction) == pytest.approx(slope / (2 * step), rel=0.02)


def test_maps_that_cannot_be_compared_are_refused(monkeypatch):
    from dosemover.transport import dose_mover

    a = gaussian(Grid.regular(shape=(5, 5, 5), spacing_mm=(3.0, 3.0, 3.0)), (6, 6, 6), (5, 5, 5))
    with pytest.raises(InputError, match="has no dose"):
        wasserstein_2(reference=a, evaluated=DoseMap(dose_gy=np.zeros(a.grid.shape), grid=a.grid))
    with pytest.warns(AccuracyWarning, match="--scale"):
        wasserstein_2(reference=a, evaluated=a.scaled(5), bounds=False, fields=False)
    monkeypatch.setattr(dose_mover, "available_memory_bytes", lambda: 1000)
    with pytest.raises(InputError, match="of memory, and"):
        wasserstein_2(reference=a, evaluated=a)
