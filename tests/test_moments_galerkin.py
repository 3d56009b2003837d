"""Moment tallies and the midpoint Galerkin estimates."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import erf

from dosemover.dose import DoseMap
from dosemover.errors import GridMismatchError, InputError
from dosemover.grid import Grid
from dosemover.moments import (
    MomentAccumulator,
    MomentTally,
    galerkin_dmd,
    galerkin_w2,
    gaussian_moments,
    moment_dmd,
    moment_w2,
    tally_density,
    tally_map,
)
from dosemover.moments.legendre import (
    interval_integrals,
    legendre,
    mass_matrix,
    product_tables,
    stiffness_matrix,
    total_degree_indices,
)
from moment_maps import standardized_voxel_errors, voxel_size_error
from strategies import dose_maps

N = 40
SPACING = 200 / N


def plateau(x, low, high, width=0.12):
    return 0.5 * (erf((x - low) / width) - erf((x - high) / width))


def field(edge=0.3, background=1e-4, **fields):
    """Field of 200 mm with penumbra and a distal edge at ``edge`` (in units of 100 mm)."""
    t = (np.arange(N) + 0.5) / N * 2 - 1
    z, y, x = np.meshgrid(t, t, t, indexing="ij")
    depth = 0.5 * (erf((x + 0.6) / 0.12) - erf((x - (edge(y) if callable(edge) else edge)) / 0.12))
    dose = depth * plateau(y, -0.5, 0.5) * plateau(z, -0.5, 0.5) + background
    return DoseMap.from_array(dose, spacing_mm=(SPACING,) * 3, **fields)


def test_basis_is_orthonormal():
    nodes, weights = np.polynomial.legendre.leggauss(12)
    values = legendre(nodes, 8)
    np.testing.assert_allclose(values.T @ (values * weights[:, None] / 2), np.eye(9), atol=1e-13)


def test_interval_integrals_agree_with_quadrature():
    edges = np.array([-1.0, -0.3, 0.2, 0.9])
    nodes, weights = np.polynomial.legendre.leggauss(20)
    for i, (low, high) in enumerate(pairwise(edges)):
        t = (low + high) / 2 + (high - low) / 2 * nodes
        expected = (high - low) / 2 * weights @ legendre(t, 9)
        np.testing.assert_allclose(interval_integrals(edges, 9)[i], expected, atol=1e-13)


def test_product_tables_expand_products():
    values, _ = product_tables(4)
    t = np.linspace(-1, 1, 7)
    low = legendre(t, 4)
    np.testing.assert_allclose(
        np.einsum("abc,tc->tab", values, legendre(t, 8)), low[:, :, None] * low[:, None, :], atol=1e-12
    )


def test_number_of_indices_is_a_binomial():
    assert len(total_degree_indices(3, 6)) == 84


def test_mass_and_stiffness_of_the_uniform_measure():
    tensor = np.zeros((5, 5, 5))
    tensor[0, 0, 0] = 1.0
    indices = total_degree_indices(3, 1)
    np.testing.assert_allclose(mass_matrix(tensor, indices), np.eye(4), atol=1e-13)
    # grad of sqrt(3) t / half has square 3 / half^2
    found = stiffness_matrix(tensor, indices, [1.0, 2.0, 4.0])
    np.testing.assert_allclose(np.diag(found), [0.0, 3.0, 3 / 4, 3 / 16], atol=1e-13)


def test_moments_do_not_depend_on_how_finely_voxels_are_cut():
    rng = np.random.default_rng(0)
    coarse = rng.random((3, 4, 5))
    grid = Grid.regular(shape=coarse.shape, spacing_mm=(2, 2, 2), origin_mm=(1, 1, 1))
    fine_grid = Grid.regular(shape=(6, 8, 10), spacing_mm=(1, 1, 1), origin_mm=(0.5, 0.5, 0.5))
    fine = coarse.repeat(2, 0).repeat(2, 1).repeat(2, 2)
    np.testing.assert_allclose(
        tally_density(coarse, grid).tensor, tally_density(fine, fine_grid).tensor, atol=1e-9
    )


@given(dose_maps())
def test_mass_and_mean_agree_with_the_map(dose):
    tally = tally_map(dose, degree=4)
    expected = gaussian_moments(dose.dose_gy, dose.grid)
    assert tally.mass == pytest.approx(expected.mass)
    np.testing.assert_allclose(tally.mean_mm, expected.mean_mm, atol=1e-9)


@given(st.integers(0, 1000))
def test_streamed_samples_approach_the_tally_of_their_map(seed):
    rng = np.random.default_rng(seed)
    points = rng.uniform([0, 0, 0], [10, 8, 6], (400, 3))
    weights = rng.random(400)
    box = ((0.0, 6.0), (0.0, 8.0), (0.0, 10.0))
    stream = MomentAccumulator(box_mm=box, degree=3)
    stream.add(points[:150], weights[:150])
    stream.add(points[150:], weights[150:])
    edges = [np.linspace(low, high, 121) for low, high in box]
    histogram, _ = np.histogramdd(points[:, ::-1], bins=edges, weights=weights)
    grid = Grid(z_edges_mm=edges[0], y_edges_mm=edges[1], x_edges_mm=edges[2])
    mapped = tally_density(histogram / grid.voxel_volume_mm3, grid, degree=3)
    # a deposit is at most half a voxel (1/240 of the box) from its voxel's mean, and a normalised
    # polynomial of degree 3 an axis changes by at most 0.1 over that, rms far less
    np.testing.assert_allclose(stream.tally().tensor, mapped.tensor, atol=0.03 * weights.sum())


def test_deposits_outside_the_box_are_counted_not_tallied():
    stream = MomentAccumulator(box_mm=((0, 1), (0, 1), (0, 1)), degree=2)
    stream.add([[0.5, 0.5, 0.5], [2.0, 0.5, 0.5]], [1.0, 3.0])
    assert stream.outside == 3.0
    assert stream.tally().mass == pytest.approx(1.0)


def test_streamed_batches_give_a_covariance():
    rng = np.random.default_rng(1)
    stream = MomentAccumulator(box_mm=((0, 1), (0, 1), (0, 1)), degree=2)
    for _ in range(50):
        stream.add(rng.random((200, 3)), np.full(200, 1 / 200))
        stream.end_batch()
    covariance = stream.tally().covariance(1)
    # an orthonormal function of one uniform sample has variance 1; 200 samples in 50 batches
    np.testing.assert_allclose(np.diag(covariance)[1:], 1 / (200 * 50), rtol=0.6)


def test_merged_batches_keep_the_covariance_of_the_sum():
    """Deviations that are orthogonal over the batches: the covariance of the sum is the sum of both."""
    rng = np.random.default_rng(4)
    box = ((0.0, 10.0),) * 3
    sides = []
    for signs in ([1, -1, 1, -1], [1, 1, -1, -1]):
        mean, deviation = rng.random((2, 5, 5, 5))
        batches = mean + np.multiply.outer(np.array(signs, dtype=float), deviation)
        sides.append(MomentTally(tensor=mean, box_mm=box, batches=batches))
    one, two = sides
    alone = [side.covariance(2) for side in sides]
    np.testing.assert_allclose((one + two).covariance(2), alone[0] + alone[1], rtol=1e-12)
    twice = replace(two, batches=np.repeat(two.batches, 2, axis=0))
    np.testing.assert_allclose((one + twice).batches, (one + two).batches, rtol=1e-12)
    assert (one + replace(two, batches=two.batches[:3])).batches is None


def test_merged_tallies_add():
    dose = field()
    one = tally_map(dose, degree=4)
    np.testing.assert_allclose((one + one).tensor, 2 * one.tensor)
    with pytest.raises(GridMismatchError, match="cannot be merged"):
        one + tally_map(dose, degree=5)


def test_saved_tallies_read_back(tmp_path):
    dose = field(uncertainty_gy=np.full((N, N, N), 0.1))
    tally = tally_map(dose, degree=4)
    read = MomentTally.load(tally.save(tmp_path / "t.npz"))
    np.testing.assert_array_equal(read.tensor, tally.tensor)
    np.testing.assert_array_equal(read.variance, tally.variance)
    assert read.box_mm == tally.box_mm


def test_what_is_no_tally_is_refused(tmp_path):
    (tmp_path / "x.npz").write_bytes(b"no")
    with pytest.raises(InputError, match="is no moment tally"):
        MomentTally.load(tmp_path / "x.npz")
    with pytest.raises(InputError, match="cannot be written"):
        tally_map(field(), degree=2).save(tmp_path / "absent" / "t.npz")


@pytest.mark.parametrize(
    ("edge", "true_mm", "tolerance"),
    [
        (0.38, 4.569, 0.005),
        (lambda y: 0.3 + 0.15 * np.tanh(y / 0.2), 6.78, 0.02),
    ],
)
def test_known_range_errors_are_estimated(edge, true_mm, tolerance, record_validation):
    # converged two-dimensional and one-dimensional transport of the same fields
    found = galerkin_w2(reference=tally_map(field(), degree=20), evaluated=tally_map(field(edge), degree=20))
    assert found.value_mm == pytest.approx(true_mm, rel=tolerance)
    record_validation(
        "Galerkin W₂ of range errors",
        "converged transport in one and two dimensions",
        reached=abs(found.value_mm / true_mm - 1),
        tolerance=tolerance,
        unit="relative",
    )


def test_degree_one_is_the_shift_of_the_mean():
    one, two = tally_map(field()), tally_map(field(0.38))
    shift = np.linalg.norm(one.mean_mm - two.mean_mm)
    # exact where the covariance of the midpoint is that of a rigid motion; here to 4 %
    assert galerkin_w2(reference=one, evaluated=two, max_degree=1).value_mm == pytest.approx(shift, rel=0.05)


def test_an_output_change_is_read_to_second_order():
    one = tally_map(field())
    two = tally_map(field().scaled(1.05))
    found = galerkin_dmd(reference=one, evaluated=two)
    assert found.value_mm == pytest.approx(200 * (np.sqrt(1.05) - 1), rel=1e-3)


def test_w2_is_blind_to_output_and_equal_maps_read_zero():
    dose = field()
    found = moment_w2(reference=dose, evaluated=dose.scaled(1.3))
    assert found.value == pytest.approx(0.0, abs=1e-6)
    assert moment_dmd(reference=dose, evaluated=dose).value == pytest.approx(0.0, abs=1e-9)


def test_a_single_voxel_cannot_move():
    one = DoseMap.from_array(np.ones((1, 1, 1)), spacing_mm=(2.0, 2.0, 2.0))
    assert moment_w2(reference=one, evaluated=one.scaled(1.1)).value == 0.0
    assert moment_dmd(reference=one, evaluated=one.scaled(1.1)).value == pytest.approx(9.76, rel=0.01)


def test_a_slice_is_compared_in_its_plane():
    dose = field().dose_gy[N // 2]
    one = DoseMap.from_array(dose, spacing_mm=(SPACING, SPACING))
    two = DoseMap.from_array(dose, spacing_mm=(SPACING, SPACING), origin_mm=(2.0, 0.0))
    assert moment_w2(reference=one, evaluated=two).value == pytest.approx(2.0, rel=0.03)


def noisy_pair(seed, level=0.05):
    rng = np.random.default_rng(seed)
    clean = field(background=0.02).dose_gy
    sigma = level * np.sqrt(clean)
    return [
        DoseMap.from_array(
            np.maximum(clean + sigma * rng.standard_normal(clean.shape), 0),
            spacing_mm=(SPACING,) * 3,
            uncertainty_gy=sigma,
        )
        for _ in range(2)
    ]


def test_predicted_floor_agrees_with_simulated_noise():
    squares, levels = [], None
    for seed in range(60):
        one, two = noisy_pair(seed)
        levels = galerkin_w2(reference=tally_map(one, degree=8), evaluated=tally_map(two, degree=8)).levels
        squares.append([level.value_mm**2 for level in levels])
    predicted = [level.squared_floor_mm2 for level in levels]
    np.testing.assert_allclose(np.mean(squares, axis=0)[1:], predicted[1:], rtol=0.1)
    floors = [level.floor_mm for level in levels]
    np.testing.assert_allclose(np.mean(np.sqrt(squares), axis=0)[1:], floors[1:], rtol=0.1)


def test_noise_chooses_a_low_degree_and_is_not_significant():
    one, two = noisy_pair(3)
    found = galerkin_w2(reference=tally_map(one), evaluated=tally_map(two))
    assert found.chosen.p > 0.01
    clean = galerkin_w2(reference=tally_map(field()), evaluated=tally_map(field(lambda y: 0.3 + 0.1 * y)))
    assert found.degree < clean.degree


def test_tallies_on_two_boxes_are_refused():
    one = tally_map(field())
    two = tally_map(field(), box_mm=((0.0, 100.0),) * 3)
    with pytest.raises(GridMismatchError, match="must share their box"):
        galerkin_w2(reference=one, evaluated=two)


def test_degrees_out_of_range_are_refused():
    one = tally_map(field(), degree=4)
    with pytest.raises(InputError, match="`max_degree` must lie between 1 and 2"):
        galerkin_w2(reference=one, evaluated=one, max_degree=3)
    with pytest.raises(InputError, match="`degree` must lie between"):
        tally_map(field(), degree=99)
    with pytest.raises(InputError, match="must have shapes"):
        MomentAccumulator(box_mm=((0, 1),) * 3).add([[0, 0]], [1])


def test_a_tally_made_during_a_simulation_is_that_of_its_map_to_the_voxel_size():
    """Every moment to degree 4 an axis within the noise of places in the voxels, which batches measure."""
    from dosemover.moments import MomentConsumer
    from dosemover.montecarlo import Beam, SimulationConfig, Spectrum, simulate, water_tank

    tank = water_tank(size_mm=120.0, voxel_mm=3.0)
    beam = Beam(spectrum=Spectrum.mono(0.1), field_mm=60.0)
    consumer = MomentConsumer(box_mm=tank.grid.box_mm, degree=4)
    config = SimulationConfig(phantom=tank, sources=(beam,), histories=4000, batches=20, seed=3)
    result = simulate(config, consumer=consumer)
    z = standardized_voxel_errors(consumer.tally(), result.batches_gy * tank.grid.voxel_volume_mm3, tank.grid)
    # 124 correlated values of Student's t with 19 degrees of freedom
    assert np.abs(z).max() < 5
    assert np.sqrt(np.mean(z**2)) < 1.4


def test_the_voxel_size_error_of_a_tally_is_the_one_stated():
    """A smooth cloud on a lattice of 1.5 mm: no noise, the formula itself to second order."""
    fine, coarse = (np.linspace(-60.0, 60.0, n + 1) for n in (80, 16))
    middles = (fine[1:] + fine[:-1]) / 2
    z, y, x = np.meshgrid(middles, middles, middles, indexing="ij")
    weights = np.exp(-((z - 4) ** 2 + (y + 3) ** 2) / (2 * 18.0**2) - (x + 6) ** 2 / (2 * 22.0**2))
    stream = MomentAccumulator(box_mm=((-60.0, 60.0),) * 3, degree=4)
    stream.add(np.stack([x.ravel(), y.ravel(), z.ravel()], axis=1), weights.ravel())
    streamed = stream.tally()
    grid = Grid(z_edges_mm=coarse, y_edges_mm=coarse, x_edges_mm=coarse)
    energy = weights.reshape(16, 5, 16, 5, 16, 5).sum(axis=(1, 3, 5))
    mapped = tally_density(energy / grid.voxel_volume_mm3, grid, degree=4)
    off = (streamed.tensor - mapped.tensor) / streamed.mass
    expected = voxel_size_error(energy, grid, 4)
    assert np.abs(expected).max() > 0.01
    assert np.linalg.norm(off - expected) < 0.1 * np.linalg.norm(off)


def test_a_consumer_without_deposits_has_no_tally():
    from dosemover.moments import MomentConsumer

    with pytest.raises(InputError, match="no deposit has been tallied"):
        MomentConsumer(box_mm=((0, 1),) * 3).tally()
