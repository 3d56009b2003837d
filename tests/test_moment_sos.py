"""The moment-SoS hierarchy against closed forms and published values."""

from itertools import pairwise

import numpy as np
import pytest

from dosemover.dose import DoseMap
from dosemover.errors import InputError
from dosemover.moments import bures_squared, moment_sos
from dosemover.moments.legendre import legendre
from dosemover.moments.moment_sos import plan_sizes
from dosemover.moments.relaxation import evaluate_basis, relaxation
from dosemover.moments.tally import MomentTally, tally_density, tally_map
from dosemover.transport.line import line_w2_squared

NODES, WEIGHTS = np.polynomial.legendre.leggauss(60)


def tally(points, weights, half, degree):
    """Exact moments of a measure given by a quadrature rule, on [-half, half]."""
    points = np.asarray(points)
    flat = np.concatenate([np.ones((len(points), 1)), np.zeros((len(points), degree))], axis=1)
    tables = [flat] * (3 - points.shape[1])
    tables += [legendre(points[:, i] / half[i], degree) for i in range(points.shape[1])]
    tensor = np.einsum("n,na,nb,nc->abc", weights, *tables, optimize=True)
    box = [(-1.0, 1.0)] * (3 - points.shape[1]) + [(-h, h) for h in half]
    return MomentTally(tensor=tensor, box_mm=tuple(box))


def one_dimensional(name):
    """Uniform on [-1, 1] and its image under the monotone map, with a rule graded at the kink."""
    t, v = np.polynomial.legendre.leggauss(200)
    t, v = (t + 1) / 2, v / 2
    x, w = (t**3, 3 * v * t**2) if name == "A" else (1 - t**2, 2 * v * t)
    x, w = np.concatenate([x, -x])[:, None], np.concatenate([w, w]) / 2
    image = np.cbrt(x) if name == "A" else np.sign(x) * (1 - np.sqrt(1 - np.abs(x)))
    return x, w, image, [1.0], [1.0]


def two_dimensional():
    x = np.stack([g.ravel() for g in np.meshgrid(NODES, NODES, indexing="ij")], axis=1)
    w = np.outer(WEIGHTS, WEIGHTS).ravel() / 4
    image = x + 0.4 * np.stack([x[:, 1] ** 2 / 2, x[:, 0] * x[:, 1]], axis=1)
    return x, w, image, [1.0, 1.0], [1.2, 1.4]


def three_dimensional():
    nodes, weights = np.polynomial.legendre.leggauss(12)
    x = np.stack([g.ravel() for g in np.meshgrid(nodes, nodes, nodes, indexing="ij")], axis=1)
    w = np.einsum("i,j,k->ijk", weights, weights, weights).ravel() / 8
    image = x + 0.3 * x[:, [1, 0, 0]] * x[:, [2, 2, 1]]
    return x, w, image, [1.0] * 3, [1.3] * 3


CASES = {
    "A": (
        one_dimensional("A"),
        8 / 105,
        [0.03890614, 0.05693650, 0.06731931, 0.07102100, 0.07305563, 0.07391723],
    ),
    "B": (
        one_dimensional("B"),
        1 / 30,
        [0.02859548, 0.03105334, 0.03300309, 0.03329696, 0.03330789, 0.03332270],
    ),
    "C": (two_dimensional(), 0.16 * 29 / 180, [0.00468479, 0.0248175, 0.02571982, 0.02577171]),
    "D": (three_dimensional(), 0.03, [0.00022169, 0.02875932]),
}


@pytest.mark.parametrize("name", CASES)
def test_the_hierarchy_takes_its_known_values_and_rises_below_the_truth(name, record_validation):
    (x, w, image, half_x, half_y), exact, values = CASES[name]
    before = -np.inf
    for order, expected in enumerate(values, start=1):
        found = moment_sos(
            reference=tally(x, w, half_x, 2 * order),
            evaluated=tally(image, w, half_y, 2 * order),
            order=order,
        )
        assert found.primal_mm**2 == pytest.approx(expected, rel=2e-5, abs=1e-8)
        assert found.lower_squared_mm2 <= found.primal_mm**2
        assert found.lower_squared_mm2 == pytest.approx(expected, rel=1e-4)
        record_validation(
            f"moment-SoS hierarchy, closed-form case {name}, orders 1 to {len(values)}",
            "values by two general solvers",
            reached=abs(found.primal_mm**2 / expected - 1),
            tolerance=2e-5 + 1e-8 / expected,
            unit="relative",
        )
        assert before < found.lower_squared_mm2 < exact
        before = found.lower_squared_mm2


@pytest.mark.slow
def test_order_three_in_three_dimensions(record_validation):
    x, w, image, half_x, half_y = three_dimensional()
    found = moment_sos(
        reference=tally(x, w, half_x, 6), evaluated=tally(image, w, half_y, 6), order=3, tolerance=1e-6
    )
    assert found.primal_mm**2 == pytest.approx(0.02995039, rel=2e-5)
    record_validation(
        "moment-SoS of order 3 in three dimensions, case D",
        "value by a general solver",
        reached=abs(found.primal_mm**2 / 0.02995039 - 1),
        tolerance=2e-5,
        unit="relative",
    )
    assert found.lower_squared_mm2 == pytest.approx(0.02995039, rel=1e-4)
    assert found.lower_squared_mm2 < 0.03


@pytest.mark.slow
def test_order_five_in_two_dimensions_is_certified_to_the_digits_of_its_value():
    x, w, image, half_x, half_y = two_dimensional()
    found = moment_sos(reference=tally(x, w, half_x, 10), evaluated=tally(image, w, half_y, 10), order=5)
    tolerance = 1e-8 + 2e-5 * 0.025777
    assert found.primal_mm**2 == pytest.approx(0.025777, abs=tolerance)
    assert found.lower_squared_mm2 == pytest.approx(0.025777, abs=tolerance)


def test_no_plan_gives_a_basis_function_more_than_its_size():
    x, w, image, half_x, half_y = two_dimensional()
    one, two = tally(x, w, half_x, 6), tally(image, w, half_y, 6)
    problem = relaxation(2, 3)
    sizes = plan_sizes(problem, one, two, (1, 2))
    pairs = evaluate_basis(np.hstack([x / half_x, image / half_y]), problem.monomials)
    mirrored = evaluate_basis(np.hstack([x / half_x, image[::-1] / half_y]), problem.monomials)
    for plan in (pairs, mirrored):
        assert np.all(np.abs(w @ plan) <= sizes + 1e-12)
    assert sizes.sum() < 0.5 * problem.supremum_norms.sum()


def test_order_one_is_the_gaussian_bound(record_validation):
    x, w, image, half_x, half_y = two_dimensional()
    found = moment_sos(reference=tally(x, w, half_x, 2), evaluated=tally(image, w, half_y, 2), order=1)
    means = w @ x, w @ image
    covariances = [((y - m).T * w) @ (y - m) for y, m in zip((x, image), means, strict=True)]
    gelbrich = np.sum((means[0] - means[1]) ** 2) + bures_squared(*covariances)
    assert found.primal_mm**2 == pytest.approx(gelbrich, abs=1e-6)
    record_validation(
        "moment-SoS of order 1",
        "Gelbrich's bound",
        reached=abs(found.primal_mm**2 - gelbrich),
        tolerance=1e-6,
        unit="mm²",
    )


@pytest.mark.parametrize("order", [1, 2])
def test_affine_maps_are_exact(order, record_validation):
    x, w, *_ = two_dimensional()
    matrix = np.array([[1.2, 0.1], [0.1, 0.9]])
    image = x @ matrix + [0.3, -0.2]
    found = moment_sos(
        reference=tally(x, w, [1, 1], 2 * order),
        evaluated=tally(image, w, [1.6, 1.2], 2 * order),
        order=order,
    )
    exact = w @ np.sum((image - x) ** 2, axis=1)
    assert found.lower_squared_mm2 == pytest.approx(exact, rel=1e-4)
    record_validation(
        "moment-SoS of an affine map",
        "closed form",
        reached=abs(found.lower_squared_mm2 / exact - 1),
        tolerance=1e-4,
        unit="relative",
    )
    assert found.lower_squared_mm2 <= exact * (1 + 1e-12)


def test_the_dual_pair_is_feasible_everywhere():
    x, w, image, half_x, half_y = two_dimensional()
    found = moment_sos(reference=tally(x, w, half_x, 6), evaluated=tally(image, w, half_y, 6), order=3)
    rng = np.random.default_rng(0)
    one = rng.uniform(-1, 1, (4000, 2)) * half_x
    two = rng.uniform(-1, 1, (4000, 2)) * half_y
    from dosemover.moments.legendre import total_degree_indices

    indices = total_degree_indices(2, 6)
    phi = evaluate_basis(one / half_x, indices) @ found.phi
    psi = evaluate_basis(two / half_y, indices) @ found.psi
    assert np.max(phi + psi - np.sum((one - two) ** 2, axis=1)) < 1e-6


def test_the_map_is_the_gradient_of_the_dual_polynomial():
    x, w, image, half_x, half_y = two_dimensional()
    found = moment_sos(reference=tally(x, w, half_x, 8), evaluated=tally(image, w, half_y, 8), order=4)
    points = np.column_stack([x[:, ::-1], np.zeros(len(x))])  # columns (x, y, z); axes are (y, x)
    moved = found.displacement_mm(points)[:, :2][:, ::-1]
    error = np.sqrt(w @ np.sum((moved - (image - x)) ** 2, axis=1))
    assert error < 0.03


def test_the_reduced_basis_is_a_weaker_bound():
    x, w, image, half_x, half_y = two_dimensional()
    tallies = {"reference": tally(x, w, half_x, 6), "evaluated": tally(image, w, half_y, 6)}
    full = moment_sos(**tallies, order=3)
    reduced = moment_sos(**tallies, order=3, basis="reduced")
    assert reduced.lower_squared_mm2 <= full.primal_mm**2
    assert reduced.lower_squared_mm2 > 0.9 * full.lower_squared_mm2


@pytest.mark.parametrize("order", [1, 2, 3])
def test_the_shift_of_a_uniform_box_is_read_from_two_boxes_at_every_order(order):
    from dosemover.grid import Grid

    voxel = np.ones((1, 1, 1))
    grids = [
        Grid.regular(shape=(1, 1, 1), spacing_mm=(2, 3, 4), origin_mm=o) for o in ((0, 0, 0), (1, 20, 300))
    ]
    one, two = (tally_density(voxel, grid, degree=2 * order) for grid in grids)
    found = moment_sos(reference=one, evaluated=two, order=order)
    assert found.lower_mm == pytest.approx(np.sqrt(1 + 20**2 + 300**2), rel=1e-9)


def row(**masses):
    """Thirty voxels of 2 mm with dose in a few of them (v0=1.0, v29=0.3..)."""
    dose = np.zeros((1, 1, 30))
    for name, mass in masses.items():
        dose[0, 0, int(name[1:])] = mass
    return DoseMap.from_array(dose, spacing_mm=(2.0, 2.0, 2.0))


def test_no_order_falls_below_a_lower_one_where_rounding_stops_it():
    maps = row(v0=1.0, v29=0.3), row(v0=0.5, v29=1.0)
    # 17/39 of the mass hops over the 58 mm between the ends: quantiles of piecewise-constant densities
    exact = np.sqrt(transport_of_rows(*maps))
    bounds = []
    for order in range(1, 9):
        one, two = (tally_map(dose, degree=2 * order) for dose in maps)
        found = moment_sos(reference=one, evaluated=two, order=order)
        bounds.append(found.lower_mm)
        assert found.order <= order
        assert (found.order < order) == ("this is order" in found.status)
    assert found.status.startswith("order 8 stopped by rounding: this is order")
    assert all(b >= a * (1 - 1e-6) for a, b in pairwise(bounds))
    assert 0.99 * exact < bounds[-1] <= exact * (1 + 1e-12)


def transport_of_rows(one, two):
    """Exact W_2^2 of two rows of voxels."""
    edges = one.grid.edges_mm[2]
    levels = [np.concatenate([[0.0], np.cumsum(d.dose_gy.ravel()) / d.dose_gy.sum()]) for d in (one, two)]
    return line_w2_squared(edges, *levels)


def test_too_few_moments_are_refused():
    x, w, image, half_x, half_y = two_dimensional()
    with pytest.raises(InputError, match="takes moments to degree 4"):
        moment_sos(reference=tally(x, w, half_x, 2), evaluated=tally(image, w, half_y, 2), order=2)


def test_an_order_that_would_not_fit_is_refused():
    grid_tally = tally_density(np.arange(8.0).reshape(2, 2, 2), _grid(), degree=20)
    with pytest.raises(InputError, match="takes matrices of"):
        moment_sos(reference=grid_tally, evaluated=grid_tally, order=10)
    with pytest.raises(InputError, match="`order` must be at least 1"):
        moment_sos(reference=grid_tally, evaluated=grid_tally, order=0)


def test_uniform_maps_have_nothing_to_move():
    uniform = tally_density(np.ones((2, 2, 2)), _grid(), degree=2)
    assert moment_sos(reference=uniform, evaluated=uniform, order=1).lower_mm == pytest.approx(0, abs=1e-2)


def _grid():
    from dosemover.grid import Grid

    return Grid.regular(shape=(2, 2, 2), spacing_mm=(1, 1, 1))
