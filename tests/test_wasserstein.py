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
from dosemover.transport import axis_w2, wasserstein_2, wasserstein_2_gradient
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
def test_shifted_and_stretched_gaussians_read_bures(shift, stretch, record_validation):
    grid = Grid.regular(shape=(30, 32, 36), spacing_mm=(3.0, 3.0, 3.0), origin_mm=(-52.5, -46.5, -43.5))
    sigma = np.array([8.0, 9.0, 10.0])
    a, b = gaussian(grid, (0, -4, -3), sigma), gaussian(grid, np.add(shift, (0, -4, -3)), sigma * stretch)
    exact = np.sqrt(bures_squared((0, 0, 0), sigma**2, shift, (sigma * stretch) ** 2))
    voxels = axis_w2(reference=a, evaluated=b).value  # exact for products, constant in each voxel
    found = wasserstein_2(reference=a, evaluated=b)
    assert found.lower <= voxels * (1 + 1e-9)
    assert voxels <= found.upper * (1 + 1e-4)
    assert found.value == pytest.approx(exact, rel=2e-2)
    record_validation(
        "W₂ of moved and stretched Gaussians",
        "Bures formula",
        reached=abs(found.value / exact - 1),
        tolerance=0.02,
        unit="relative",
    )
    mean = found.settings["displacement_mean_mm"]
    assert mean == pytest.approx(shift[::-1], abs=0.02 + 0.02 * np.linalg.norm(shift))


@pytest.mark.parametrize("n", [25, 64])
def test_lines_agree_with_quantiles(n, record_validation):
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
    record_validation(
        "W₂ on uneven lines",
        "quantile functions by quadrature",
        reached=abs(found.value / exact - 1),
        tolerance=0.01,
        unit="relative",
    )


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_uniform_cubes_under_polynomial_maps(axes, record_validation):
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
    record_validation(
        f"W₂ of a uniform cube under a polynomial map, {axes}-D",
        "closed form (gradient maps are optimal)",
        reached=abs(found.value / exact - 1),
        tolerance=0.04,
        unit="relative",
    )
    assert found.lower <= exact * 1.01
    assert found.upper >= exact * 0.99


def test_blocks_apart_that_trade_mass_read_their_quantiles():
    a, b = np.zeros(20), np.zeros(20)
    a[2:5], a[12:15], b[2:5], b[12:15] = 2, 1, 1, 2
    found = wasserstein_2(
        reference=DoseMap.from_array(a, spacing_mm=(1.0,)), evaluated=DoseMap.from_array(b, spacing_mm=(1.0,))
    )
    exact = np.sqrt(w2_squared_on_a_line(np.arange(21.0), a, b))
    assert found.lower == pytest.approx(exact, rel=1e-4)
    assert found.upper == pytest.approx(exact, rel=1e-4)


def moved_block(shift, spacing, axes, edge_mm):
    """Block with walls 16 to 32 mm wide, blurred by ``edge_mm``, exact 0 outside; and moved along x."""
    from scipy.special import ndtr

    n = round(64 / spacing)
    e = np.arange(n + 1) * spacing

    def profile(low, high):
        if edge_mm:
            c = (e[1:] + e[:-1]) / 2
            smooth = ndtr((c - low) / edge_mm) - ndtr((c - high) / edge_mm)
            return np.where(smooth > 1e-3, smooth, 0.0)
        return np.clip(np.minimum(e[1:], high) - np.maximum(e[:-1], low), 0, None) / spacing

    maps = []
    for s in (0.0, shift):
        parts = [profile(18.0, 38.0)] * (axes - 1) + [profile(18.0 + s, 38.0 + s)]
        dose = parts[0]
        for part in parts[1:]:
            dose = np.multiply.outer(dose, part)
        maps.append(DoseMap.from_array(dose, spacing_mm=(spacing,) * axes))
    return maps


@pytest.mark.parametrize("edge_mm", [0.0, 3.0])
@pytest.mark.parametrize("shift", [1.0, 4.0, 10.0])
@pytest.mark.parametrize(("axes", "spacing"), [(2, 1.0), (2, 2.5), (2, 5.0), (3, 2.0), (3, 4.0)])
def test_blocks_in_vacuum_read_their_shift(edge_mm, shift, axes, spacing):
    a, b = moved_block(shift, spacing, axes, edge_mm)
    found = wasserstein_2(reference=a, evaluated=b)
    exact = axis_w2(reference=a, evaluated=b).value  # products of their projections
    assert found.lower <= found.value <= found.upper
    assert found.lower == pytest.approx(exact, rel=1e-6)
    assert found.upper >= exact * (1 - 1e-9)
    assert found.value == pytest.approx(exact, rel=0.01)
    if shift % spacing == 0 and not edge_mm:
        assert found.upper == pytest.approx(shift, rel=1e-9)
        assert found.settings["displacement_mean_mm"] == pytest.approx([shift, 0, 0], abs=1e-9)


@pytest.mark.parametrize("shift", [(4.0, -8.0, 2.0), (3.1, 2.3, -4.7), (0.0, 13.0, 0.6)])
def test_a_sharp_sphere_in_vacuum_reads_its_shift(shift, record_validation):
    grid = Grid.regular(shape=(26, 26, 26), spacing_mm=(2.0, 2.0, 2.0), origin_mm=(-25.0, -25.0, -25.0))
    fine = [np.linspace(e[0], e[-1], 4 * n + 1) for e, n in zip(grid.edges_mm, grid.shape, strict=True)]
    z, y, x = ((e[1:] + e[:-1]) / 2 for e in fine)
    maps = []
    for c in ((0.0, 0.0, 0.0), shift):
        inside = (x - c[2]) ** 2 + (y[:, None] - c[1]) ** 2 + (z[:, None, None] - c[0]) ** 2 < 11.0**2
        maps.append(DoseMap(dose_gy=inside.reshape(26, 4, 26, 4, 26, 4).mean(axis=(1, 3, 5)), grid=grid))
    found = wasserstein_2(reference=maps[0], evaluated=maps[1])
    exact = np.linalg.norm(shift)
    assert found.value == pytest.approx(exact, rel=0.01)
    record_validation(
        "W₂ of a sharp sphere moved in vacuum",
        "its shift",
        reached=abs(found.value / exact - 1),
        tolerance=0.01,
        unit="relative",
    )
    assert found.lower >= 0.99 * exact
    assert found.upper >= 0.999 * exact


@pytest.mark.parametrize("stretch", [1.25, 0.8])
def test_blocks_stretched_and_moved_far_read_their_quantiles(stretch):
    n, maps = 40, []
    e = np.arange(n + 1) * 2.0
    for center, half in ((25.0, 12.0), (49.0, 12.0 * stretch)):
        profile = np.clip(np.minimum(e[1:], center + half) - np.maximum(e[:-1], center - half), 0, None)
        maps.append(DoseMap.from_array(np.outer(profile, profile), spacing_mm=(2.0, 2.0)))
    found = wasserstein_2(reference=maps[0], evaluated=maps[1])
    exact = np.hypot(*[np.hypot(24.0, 12.0 * (stretch - 1) / np.sqrt(3))] * 2)
    assert found.value == pytest.approx(exact, rel=0.01)
    assert found.gap < 0.02


def test_the_interval_of_a_moved_target_in_a_still_body_stays_narrow():
    grid = Grid.regular(shape=(1, 40, 40), spacing_mm=(2.0, 2.0, 2.0), origin_mm=(-39.0, -39.0, 0.0))
    _, y, x = grid.centers_mm
    body = (x / 36) ** 2 + (y[:, None] / 32) ** 2 < 1
    maps = [
        DoseMap(dose_gy=((np.exp(-((x - s) ** 2 + y[:, None] ** 2) / 200) + 0.1) * body)[None], grid=grid)
        for s in (0.0, 6.0)
    ]
    found = wasserstein_2(reference=maps[0], evaluated=maps[1])
    assert found.status == "ok"
    assert found.gap < 0.05


def test_the_potential_of_a_moved_map_is_that_of_its_displacement():
    """y = x - grad phi(x)/2 for the cost |x - y|^2."""
    grid = Grid.regular(shape=(1, 40, 44), spacing_mm=(2.0, 2.0, 2.0))
    a, b = gaussian(grid, (0.0, 30.0, 30.0), (10, 7, 7)), gaussian(grid, (0.0, 44.0, 54.0), (10, 7.7, 7.7))
    found = wasserstein_2(reference=a, evaluated=b)
    dose = found.grid.shape
    phi, (x, y, _) = found.fields["potential"][0], found.fields["displacement_mm"][:, 0]
    gy, gx = np.gradient(phi, 2.0)
    inside = (slice(8, 22), slice(8, 22))
    assert dose == phi[None].shape
    assert np.abs(x + gx / 2)[inside].max() < 0.2
    assert np.abs(y + gy / 2)[inside].max() < 0.2
    assert np.mean(x[inside]) == pytest.approx(24.0, abs=1.5)


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
def test_the_gradient_is_that_of_finite_differences(shape, record_validation):
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
    record_validation(
        "gradient of the squared W₂",
        "finite differences",
        reached=abs(np.vdot(gradient, direction) / slope - 1),
        tolerance=1e-4,
        unit="relative",
    )


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


def test_the_gradient_far_from_the_reference_is_that_of_finite_differences():
    rng = np.random.default_rng(6)
    grid = Grid.regular(shape=(1, 12, 30), spacing_mm=(2.0, 2.0, 2.0))
    a, b = np.zeros(grid.shape), np.zeros(grid.shape)
    block = rng.uniform(0.8, 1.2, (2, 8, 9))
    a[0, 2:10, 3:12], b[0, 2:10, 15:24] = block
    reference = DoseMap(dose_gy=a, grid=grid)

    def value(dose):
        return wasserstein_2_gradient(
            reference=reference, evaluated=DoseMap(dose_gy=dose, grid=grid), tolerance=1e-10, linear=True
        )

    squared, gradient = value(b)
    assert squared == pytest.approx(24.0**2, rel=0.02)
    direction, step = rng.standard_normal(b.shape) * (b > 0), 1e-5
    slope = (value(b + step * direction)[0] - value(b - step * direction)[0]) / (2 * step)
    assert np.vdot(gradient, direction) == pytest.approx(slope, rel=1e-3)


@pytest.mark.parametrize("step", ["upper bound", "lower bound"])
def test_an_interrupt_keeps_the_best_interval_so_far(step):
    grid = Grid.regular(shape=(12, 12, 12), spacing_mm=(3.0, 3.0, 3.0))
    a, b = gaussian(grid, (16, 16, 16), (8, 8, 8)), gaussian(grid, (16, 17, 18), (9, 8, 8))

    def interrupt(what, fraction):
        if what == step:
            raise KeyboardInterrupt

    found = wasserstein_2(
        reference=a, evaluated=DoseMap(dose_gy=b.dose_gy + 0.1, grid=grid), progress=interrupt
    )
    assert "interrupted" in found.status
    assert 0 < found.lower <= found.value
    assert (found.upper is None) == (step == "upper bound")


def test_maps_that_cannot_be_compared_are_refused(monkeypatch):
    a = gaussian(Grid.regular(shape=(5, 5, 5), spacing_mm=(3.0, 3.0, 3.0)), (6, 6, 6), (5, 5, 5))
    with pytest.raises(InputError, match="has no dose"):
        wasserstein_2(reference=a, evaluated=DoseMap(dose_gy=np.zeros(a.grid.shape), grid=a.grid))
    with pytest.warns(AccuracyWarning, match="--scale"):
        wasserstein_2(reference=a, evaluated=a.scaled(5), bounds=False, fields=False)
    monkeypatch.setattr("dosemover.transport.measure.available_memory_bytes", lambda: 1000)
    with pytest.raises(InputError, match="of memory, and"):
        wasserstein_2(reference=a, evaluated=a)


def test_a_step_that_pushes_all_dose_out_of_the_box_is_not_taken():
    edges = [36.84, 37.39, 38.42, 39.46], [36.42, 38.36, 39.2, 39.74, 40.28, 41.48, 42.8, 44.04]
    edges[1].extend([45.76, 46.37, 46.92, 48.61, 49.26, 50.5, 51.12, 53.03, 55.08])
    doses = [1.0, 0.691, 0.0], [2.79e-05, 3.38e-4, 0.00292, 0.018, 0.0792, 0.248, 0.554, 0.881]
    doses[1].extend([1.0, 0.809, 0.466, 0.192, 0.0561, 0.0117, 0.00175, 0.000185])
    maps = [
        DoseMap(
            dose_gy=np.reshape(dose, (1, -1, 1)),
            grid=Grid(z_edges_mm=(0.0, 2.0), y_edges_mm=edge, x_edges_mm=(0.0, 2.0)),  # type: ignore[arg-type]
        )
        for edge, dose in zip(edges, doses, strict=True)
    ]
    maps[1] = maps[1].scaled(maps[0].integral_gy_mm3 / maps[1].integral_gy_mm3)
    found = wasserstein_2(reference=maps[0], evaluated=maps[1])
    truth = axis_w2(reference=maps[0], evaluated=maps[1]).value
    assert found.lower <= truth * (1 + 1e-9)
    assert truth <= found.upper * (1 + 1e-9)
