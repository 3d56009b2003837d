"""The flat norm and W_1: closed forms, linear programs, certificates, gradients and laws."""

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import BSpline
from scipy.optimize import linprog

from closed_forms import w1_on_a_line
from dosemover.dose import DoseMap
from dosemover.errors import AccuracyWarning, InputError
from dosemover.grid import Grid
from dosemover.io import read_dose
from dosemover.transport import (
    axis_w1,
    axis_w2,
    emd,
    flat_norm,
    flat_norm_gradient,
    flat_norm_profile,
    sliced_w1,
    sliced_w2,
    sobolev_w2,
    wasserstein_1,
    wasserstein_1_gradient,
)
from dosemover.transport.flat_norm_bounds import Bounds, Problem
from dosemover.transport.flat_norm_mesh import Axis, Mesh
from strategies import dose_maps, grids
from transport_maps import box_map, gaussian_pair, line_map, random_pair, uneven_grid

FINE = {"tolerance": 1e-3, "max_iterations": 4000}


def assert_encloses(result, truth, width=None, slack=1e-6):
    """The truth lies inside the certified interval, which is at most ``width`` (relative) wide."""
    assert result.lower <= truth * (1 + slack) + 1e-9
    assert truth * (1 - slack) - 1e-9 <= result.upper
    assert result.lower <= result.value <= result.upper
    if width is not None:
        assert result.gap <= width


def hat_integrals(edges):
    """Integrals of every hat (peak at a middle, constant outside) over every voxel, by quadrature."""
    x = np.linspace(edges[0], edges[-1], 400_001)
    x = (x[1:] + x[:-1]) / 2
    node = (edges[1:] + edges[:-1]) / 2
    voxel = np.searchsorted(edges, x) - 1
    step = (edges[-1] - edges[0]) / x.size
    return (
        np.array([np.bincount(voxel, np.interp(x, node, one), node.size) for one in np.eye(node.size)]) * step
    )


# ---------------------------------------------------------------- closed forms


@pytest.mark.parametrize(("reach", "expected"), [(50.0, 6.0), (10.0, 3.0), (None, 6.0)])
def test_a_slab_shifted_by_6_mm_moves_or_loses_and_gains_its_ends(reach, expected, record_validation):
    a = box_map((1, 1, 64), (2.0, 2.0, 2.0), (0, 0, 20), (1, 1, 30))
    b = box_map((1, 1, 64), (2.0, 2.0, 2.0), (0, 0, 23), (1, 1, 33))
    found = (
        wasserstein_1(reference=a, evaluated=b, **FINE)
        if reach is None
        else flat_norm(reference=a, evaluated=b, reach_mm=reach, **FINE)
    )
    assert_encloses(found, expected, 0.03)
    record_validation(
        "flat norm and W₁ of a shifted slab",
        "closed form",
        reached=abs(found.value / expected - 1),
        tolerance=0.03,
        unit="relative",
    )


@pytest.mark.parametrize("distance", [4, 16])
@pytest.mark.parametrize("reach", [10.0, 30.0])
def test_two_small_boxes_cost_their_distance_or_the_reach_whichever_is_less(distance, reach):
    step = distance // 2
    a = box_map((12, 12, 24), (2.0, 2.0, 2.0), (5, 5, 6), (7, 7, 8))
    b = box_map((12, 12, 24), (2.0, 2.0, 2.0), (5, 5, 6 + step), (7, 7, 8 + step))
    found = flat_norm(reference=a, evaluated=b, reach_mm=reach, tolerance=0.005)
    assert_encloses(found, min(distance, reach))
    if distance > reach:
        assert found.parts["kr_lost_percent"] == pytest.approx(100, rel=0.1)


@pytest.mark.parametrize("change", [0.05, -0.03])
def test_an_output_change_is_gained_or_lost_at_half_the_reach(change, record_validation):
    a = DoseMap.from_array(np.ones((9, 10, 11)), spacing_mm=(2.0, 2.0, 2.0))
    found = flat_norm(reference=a, evaluated=a.scaled(1 + change), reach_mm=10.0)
    assert_encloses(found, abs(change) * 5, 0.01)
    record_validation(
        "flat norm of an output change",
        "closed form: half the reach times the change",
        reached=abs(found.value / abs(change) / 5 - 1),
        tolerance=0.01,
        unit="relative",
    )
    gained, lost = found.parts["kr_gained_percent"], found.parts["kr_lost_percent"]
    assert (gained if change > 0 else lost) == pytest.approx(100 * abs(change), rel=0.01)
    assert (lost if change > 0 else gained) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_w1_of_uneven_lines_encloses_the_integral_of_the_difference_of_the_distributions(
    seed, record_validation
):
    rng = np.random.default_rng(seed)
    edges = np.cumsum(rng.uniform(0.25, 5.0, 24))
    p, q = rng.random((2, 23))
    found = wasserstein_1(reference=line_map(p, edges), evaluated=line_map(q, edges), tolerance=0.003)
    assert_encloses(found, w1_on_a_line(edges, p, q), 0.2)
    exact = w1_on_a_line(edges, p, q)
    record_validation(
        "W₁ on uneven lines: distance of the truth from the certified interval",
        "integral of |F − G| by quadrature",
        reached=max(found.lower / exact - 1, 1 - found.upper / exact, 0.0),
        tolerance=1e-6,
        unit="relative",
    )


def test_a_box_moved_along_the_diagonal_costs_its_way(record_validation):
    a = box_map((24, 24, 24), (2.0, 2.0, 2.0), (4, 4, 4), (8, 8, 8))
    b = box_map((24, 24, 24), (2.0, 2.0, 2.0), (10, 10, 10), (14, 14, 14))
    assert_encloses(wasserstein_1(reference=a, evaluated=b), 12 * np.sqrt(3), 0.05)
    record_validation(
        "W₁ of a box moved along the diagonal",
        "its shift",
        reached=abs(wasserstein_1(reference=a, evaluated=b).value / 12 / np.sqrt(3) - 1),
        tolerance=0.05,
        unit="relative",
    )


def test_a_plane_of_any_thickness_reads_as_the_plane():
    rng = np.random.default_rng(4)
    values = rng.random((2, 9, 8))
    thin, thick = (
        flat_norm(
            reference=DoseMap.from_array(values[0], spacing_mm=(2.0, 3.0, t)),
            evaluated=DoseMap.from_array(values[1], spacing_mm=(2.0, 3.0, t)),
            **FINE,
        )
        for t in (1.0, 4.0)
    )
    assert thin.value == pytest.approx(thick.value, rel=2e-3)


# ---------------------------------------------------------------- linear programs


def test_on_a_line_the_trilinear_supremum_equals_a_linear_program():
    rng = np.random.default_rng(7)
    edges = np.cumsum(rng.uniform(0.5, 4.0, 15))
    p, q = rng.random((2, 14))
    node, load = (edges[1:] + edges[:-1]) / 2, hat_integrals(edges) @ (p - q)
    n = node.size
    slope = (np.eye(n, k=1) - np.eye(n))[:-1] / np.diff(node)[:, None]
    solved = linprog(
        -load, A_ub=np.vstack([slope, -slope]), b_ub=np.ones(2 * (n - 1)), bounds=[(-3.5, 3.5)] * n
    )
    found = flat_norm(reference=line_map(p, edges), evaluated=line_map(q, edges), reach_mm=7.0, **FINE)
    expected = -solved.fun / np.dot(p, np.diff(edges))
    assert found.lower <= expected * (1 + 1e-5) <= found.settings["solver_upper_mm"] * (1 + 2e-5)
    assert found.value == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("reach", [2.0, 6.0, None])
def test_in_a_plane_the_bilinear_supremum_equals_a_linear_program_up_to_its_polygon(reach):
    grid = uneven_grid(8, (1, 5, 6))
    a, b = random_pair(8, grid)
    rho = (a.dose_gy - b.dose_gy)[0]
    if reach is None:
        rho = a.dose_gy[0] / a.integral_gy_mm3 - b.dose_gy[0] / b.integral_gy_mm3
    load = hat_integrals(grid.y_edges_mm) @ rho @ hat_integrals(grid.x_edges_mm).T * grid.widths_mm[0][0]
    nodes = [(e[1:] + e[:-1]) / 2 for e in (grid.y_edges_mm, grid.x_edges_mm)]
    index = np.arange(load.size).reshape(load.shape)
    sides, rows = 96, []
    angles = 2 * np.pi * np.arange(sides) / sides
    for i, j in np.ndindex(*load.shape):
        for di, dj in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
            if not (0 <= i + di < load.shape[0] and 0 <= j + dj < load.shape[1]):
                continue
            for angle in angles:
                row = np.zeros(load.size)
                for (k, m), axis, part in (
                    ((i + di, j), 0, np.cos(angle)),
                    ((i, j + dj), 1, np.sin(angle)),
                ):
                    here, there = (i, k) if axis == 0 else (j, m)
                    weight = part / (nodes[axis][there] - nodes[axis][here])
                    row[index[k, m]] += weight
                    row[index[i, j]] -= weight
                rows.append(row)
    limit = 50.0 if reach is None else reach / 2  # wider than the plane
    solved = linprog(
        -load.ravel(), A_ub=np.array(rows), b_ub=np.ones(len(rows)), bounds=[(-limit, limit)] * load.size
    )
    expected = -solved.fun / (1.0 if reach is None else a.integral_gy_mm3)
    found = (
        wasserstein_1(reference=a, evaluated=b, **FINE)
        if reach is None
        else flat_norm(reference=a, evaluated=b, reach_mm=reach, **FINE)
    )
    polygon = np.cos(np.pi / sides)  # the program allows slopes up to one over this
    assert found.lower <= expected * (1 + 1e-6)
    assert expected * polygon <= found.settings["solver_upper_mm"] * (1 + 1e-5)
    assert found.value == pytest.approx(expected, rel=3e-3)


def test_pots_exact_distance_of_split_voxels_approaches_the_interval():
    a, b = random_pair(3, Grid.regular(shape=(3, 3, 3), spacing_mm=(2.0, 2.0, 2.0)))
    found = wasserstein_1(reference=a, evaluated=b, **FINE)
    coarse, fine = (emd(reference=split(a, n), evaluated=split(b, n), max_atoms=4000).value for n in (2, 4))
    limit = 2 * fine - coarse  # the atoms' error falls with the voxel
    assert found.lower <= limit * 1.01
    assert limit * 0.99 <= found.upper


def split(dose, n):
    """The same density on n times as many voxels along each axis."""
    values = dose.dose_gy
    for axis in range(3):
        values = np.repeat(values, n, axis=axis)
    edges = [np.interp(np.arange(n * (e.size - 1) + 1) / n, np.arange(e.size), e) for e in dose.grid.edges_mm]
    return DoseMap(dose_gy=values, grid=Grid(z_edges_mm=edges[0], y_edges_mm=edges[1], x_edges_mm=edges[2]))


# ---------------------------------------------------------------- certificates


def spline_matrices(edges, points):
    """Values and slopes at points of quadratic B-splines with these knots, mirrored at the ends."""
    n, first, last = edges.size - 1, edges[1] - edges[0], edges[-1] - edges[-2]
    knots = np.concatenate([edges[0] - first * np.array([2, 1]), edges, edges[-1] + last * np.array([1, 2])])
    mirrored = np.pad(np.eye(n), ((1, 1), (0, 0)), mode="edge")
    spline = BSpline(knots, mirrored, 2)
    return spline(points), spline.derivative()(points)


@pytest.mark.parametrize("shape", [(4, 5, 6), (1, 4, 5), (1, 1, 7), (3, 1, 2)])
def test_no_sampled_gradient_of_a_spline_exceeds_its_certified_length(shape):
    grid = uneven_grid(21, shape)
    rng = np.random.default_rng(21)
    c = (4 * rng.normal(size=shape)).astype(np.float32)
    problem = Problem(Mesh.of(grid), rng.normal(size=shape), np.inf)
    bounds = Bounds(upper=1e9)
    raw = problem.spline(c, bounds, 0.01)
    matrices = [
        spline_matrices(e, np.sort(rng.uniform(e[0], e[-1], 60))) if e.size > 2 else (np.ones((1, 1)),) * 2
        for e in grid.edges_mm
    ]
    slopes = []
    for axis in range(3):
        if shape[axis] > 1:
            parts = [m[1] if i == axis else m[0] for i, m in enumerate(matrices)]
            slopes.append(np.einsum("ai,bj,ck,ijk->abc", *parts, c, optimize=True))
    sampled = np.sqrt(sum(s**2 for s in slopes)).max()
    certified = raw / bounds.spline
    assert sampled <= certified * (1 + 1e-6)
    assert sampled >= 0.6 * certified
    repaired = Bounds(upper=1e9)
    problem.spline(c, repaired, 0.01, repair=0.001)
    assert repaired.spline >= bounds.spline
    means = Mesh.of(grid).spline_means(repaired.coefficients.astype(np.float64))
    assert np.sum(means * problem.mass) == pytest.approx(repaired.spline, rel=1e-4)


def voxel_atoms(dose, n):
    """Middles of voxels split n times along each axis, masses, and mass times how far that moves it."""
    fine = split(dose, n) if n > 1 else dose
    points = np.stack(np.meshgrid(*fine.grid.centers_mm, indexing="ij"), axis=-1).reshape(-1, 3)
    mass = (fine.dose_gy * fine.grid.voxel_volume_mm3).ravel()
    widths = [
        w.reshape([-1 if i == axis else 1 for i in range(3)]) for axis, w in enumerate(fine.grid.widths_mm)
    ]
    spread = np.sqrt(sum(w**2 for w in widths) / 12).ravel()
    return points, mass, float(mass @ spread)


def pots_flat_norm(a, b, reach, n):
    """Flat norm between atoms by POT, gain and loss as a store at half the reach, and the atoms' error."""
    import ot

    (x, p, moved_a), (y, q, moved_b) = voxel_atoms(a, n), voxel_atoms(b, n)
    cost = np.zeros((p.size + 1, q.size + 1))
    cost[:-1, :-1] = np.minimum(ot.dist(x, y, metric="euclidean"), reach)
    cost[-1, :-1] = cost[:-1, -1] = reach / 2
    total = p.sum() + q.sum()
    plan = np.append(p, q.sum()) / total, np.append(q, p.sum()) / total
    value = ot.emd2(*plan, cost, numItermax=2_000_000) * total
    return value / p.sum(), (moved_a + moved_b) / p.sum()


@pytest.mark.parametrize("seed", range(4))
def test_intervals_meet_the_exact_flat_norm_of_fine_atoms_whenever_the_iteration_stops(seed):
    rng = np.random.default_rng(seed)
    shape = [(3, 3, 3), (1, 5, 5), (1, 1, 12), (2, 3, 4)][seed % 4]
    grid = uneven_grid(seed, shape)
    values = rng.random((2, *shape)) ** 3 * (rng.random((2, *shape)) < 0.7)
    values[0].flat[0] = values[1].flat[-1] = 1.0
    a, b = (DoseMap(dose_gy=v, grid=grid) for v in values)
    b = b.scaled(a.integral_gy_mm3 / b.integral_gy_mm3 * rng.choice([1.0, 0.7, 1.6]))
    for reach in (0.02, 2.0, 15.0, 5000.0):
        truth, error = pots_flat_norm(a, b, reach, 3)
        for limits in ({"max_iterations": 0}, {"max_iterations": 15}, {}):
            found = flat_norm(reference=a, evaluated=b, reach_mm=reach, **limits)
            assert found.lower <= (truth + error) * (1 + 1e-5)
            assert (truth - error) * (1 - 1e-5) <= found.upper
            assert found.lower <= found.value <= found.upper


def test_the_upper_bound_is_the_flux_plus_what_it_leaves_at_half_the_reach():
    a, b = random_pair(5, uneven_grid(5))
    found = flat_norm(reference=a, evaluated=b, reach_mm=4.0)
    parts = found.parts
    left = (parts["kr_gained_percent"] + parts["kr_lost_percent"]) / 100
    assert found.upper == pytest.approx(parts["kr_moved_mm"] + 2.0 * left, rel=1e-6)
    volume = a.grid.voxel_volume_mm3
    net = np.sum(found.fields["gain_loss_gy"] * volume) / a.integral_gy_mm3
    assert net == pytest.approx(found.settings["mass_ratio"] - 1, rel=1e-5)
    assert found.fields["flow_mm"].shape == (3, *a.grid.shape)


def test_the_lower_bound_holds_for_the_interpolated_test_function():
    a, b = random_pair(6, uneven_grid(6, (3, 4, 5)))
    _, gradient = flat_norm_gradient(reference=a, evaluated=b, reach_mm=6.0, **FINE)
    found = flat_norm(reference=a, evaluated=b, reach_mm=6.0, **FINE)
    means = -gradient * a.integral_gy_mm3 / a.grid.voxel_volume_mm3
    assert np.abs(means).max() <= 3.0 + 1e-6
    inner = np.sum(means * (a.dose_gy - b.dose_gy) * a.grid.voxel_volume_mm3)
    assert inner / a.integral_gy_mm3 == pytest.approx(found.lower, rel=1e-5)


def test_refining_the_grid_raises_the_value_inside_an_interval_that_always_meets():
    a, b = random_pair(2, Grid.regular(shape=(4, 5, 5), spacing_mm=(2.0, 2.0, 2.0)))
    coarse = flat_norm(reference=a, evaluated=b, reach_mm=5.0, **FINE)
    fine = flat_norm(reference=split(a, 2), evaluated=split(b, 2), reach_mm=5.0, **FINE)
    assert fine.lower <= coarse.upper
    assert coarse.lower <= fine.upper
    assert fine.value >= coarse.value * (1 - 2e-3)


def test_a_margin_without_dose_changes_nothing():
    a, b = random_pair(1, Grid.regular(shape=(4, 5, 6), spacing_mm=(2.0, 2.0, 2.0)))
    wide = []
    for dose in (a, b):
        values = np.pad(dose.dose_gy, 4)
        wide.append(DoseMap.from_array(values, spacing_mm=(2.0, 2.0, 2.0), origin_mm=(-8.0, -8.0, -8.0)))
    narrow = [
        DoseMap.from_array(np.pad(d.dose_gy, 1), spacing_mm=(2.0,) * 3, origin_mm=(-2.0,) * 3) for d in (a, b)
    ]
    found = [flat_norm(reference=p[0], evaluated=p[1], **FINE) for p in (wide, narrow)]
    assert found[0].value == pytest.approx(found[1].value, rel=1e-12)
    assert found[0].fields["gain_loss_gy"].shape == wide[0].grid.shape


# ---------------------------------------------------------------- laws


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_the_flat_norm_is_symmetric_bounded_and_rises_with_the_reach(data):
    grid = data.draw(grids(max_side=5))
    a, b = data.draw(dose_maps(grid)), data.draw(dose_maps(grid))
    b = b.scaled(a.integral_gy_mm3 / b.integral_gy_mm3)
    short, long = (flat_norm(reference=a, evaluated=b, reach_mm=r) for r in (3.0, 12.0))
    back = flat_norm(reference=b, evaluated=a, reach_mm=3.0)
    ratio = a.integral_gy_mm3 / b.integral_gy_mm3
    assert short.lower <= back.settings["solver_upper_mm"] / ratio * (1 + 1e-6) + 1e-9
    assert back.lower / ratio <= short.settings["solver_upper_mm"] * (1 + 1e-6) + 1e-9
    assert short.lower <= long.settings["solver_upper_mm"] * (1 + 1e-6) + 1e-9
    total = np.sum(np.abs(a.dose_gy - b.dose_gy) * grid.voxel_volume_mm3) / a.integral_gy_mm3
    for reach, found in ((3.0, short), (12.0, long)):
        assert found.lower <= found.value <= found.upper
        assert found.lower <= reach / 2 * total * (1 + 1e-6)
        assert found.upper <= reach / 2 * total * (1 + 1e-6) + 1e-9


@pytest.mark.filterwarnings("ignore:the evaluated map holds:dosemover.errors.AccuracyWarning")
@settings(max_examples=15, deadline=None)
@given(st.data())
def test_w1_bounds_obey_the_triangle_inequality_and_lie_above_the_cheap_lower_bounds(data):
    grid = data.draw(grids(max_side=4))
    a, b, c = (data.draw(dose_maps(grid)) for _ in range(3))
    ab, bc, ac = (wasserstein_1(reference=x, evaluated=y) for x, y in ((a, b), (b, c), (a, c)))
    assert ac.lower <= ab.upper + bc.upper + 1e-9
    assert axis_w1(reference=a, evaluated=b).value <= ab.upper * (1 + 1e-6) + 1e-9
    sliced = sliced_w1(reference=a, evaluated=b, n_directions=16)
    assert sliced.settings["w1_lower_bound_mm"] <= ab.upper * (1 + 1e-4) + 1e-9
    exact = emd(reference=a, evaluated=b)
    assert ab.lower <= exact.value + exact.settings["atom_error_mm"]


def test_unequal_masses_cost_at_most_w1_plus_half_the_reach_times_the_difference():
    a, b = random_pair(11)
    b = b.scaled(1.2 * a.integral_gy_mm3 / b.integral_gy_mm3)
    w1 = wasserstein_1(reference=a, evaluated=b)
    for reach in (2.0, 10.0, 60.0):
        found = flat_norm(reference=a, evaluated=b, reach_mm=reach)
        assert found.lower <= w1.upper + reach / 2 * 0.2 * (1 + 1e-6)


@pytest.mark.filterwarnings("ignore:the evaluated map holds:dosemover.errors.AccuracyWarning")
def test_equal_maps_are_at_distance_zero():
    a, _ = random_pair()
    for found in (flat_norm(reference=a, evaluated=a), wasserstein_1(reference=a, evaluated=a.scaled(3.0))):
        assert (found.value, found.lower, found.upper) == (0.0, 0.0, 0.0)
        assert not found.fields["flow_mm"].any()


def test_a_mask_and_maps_of_different_extent_are_compared_where_they_lie():
    a = box_map((1, 10, 12), (2.0, 2.0, 2.0), (0, 2, 2), (1, 6, 5))
    b = box_map((1, 12, 9), (2.0, 2.0, 2.0), (0, 1, 1), (1, 5, 4), origin_mm=(6.0, 2.0, 0.0))
    assert_encloses(wasserstein_1(reference=a, evaluated=b), 4.0, 0.1)
    mask = np.zeros(a.grid.shape)
    mask[:, :, :4] = 1
    masked = DoseMap(dose_gy=a.dose_gy * mask, grid=a.grid)
    with_mask = flat_norm(reference=a, evaluated=a.scaled(1.1), mask=mask)
    assert with_mask.value == pytest.approx(
        flat_norm(reference=masked, evaluated=masked.scaled(1.1)).value, rel=1e-6
    )


def test_the_profile_rises_from_all_lost_to_all_moved():
    a, b = gaussian_pair(n=16, spacing=3.0, sigma=7.0, shift=(3.0, 0.0, 0.0))
    profile = flat_norm_profile(reference=a, evaluated=b, reaches_mm=(0.5, 2.0, 10.0, 40.0))
    assert profile["reach_mm"] == [0.5, 2.0, 10.0, 40.0]
    for i in range(3):
        assert profile["lower"][i] <= profile["upper"][i + 1]
    w1 = wasserstein_1(reference=a, evaluated=b)
    assert profile["value"][-1] == pytest.approx(w1.value, rel=0.05)
    assert profile["lost_percent"][0] > 10 * profile["lost_percent"][-1]


def test_a_profile_of_noise_in_any_order_of_reaches_never_falls_and_never_rises_per_reach():
    a, b = random_pair(14, uneven_grid(14, (3, 4, 5)))
    profile = flat_norm_profile(reference=a, evaluated=b, reaches_mm=(8.0, 1.0, 30.0, 7.9), tolerance=0.1)
    assert profile["reach_mm"] == [8.0, 1.0, 30.0, 7.9]
    order = np.argsort(profile["reach_mm"])
    reach, value, lower, upper = (
        np.array(profile[key])[order] for key in ("reach_mm", "value", "lower", "upper")
    )
    assert np.all((lower <= value) & (value <= upper))
    for row in (value, lower, upper):
        assert np.all(np.diff(row) >= -1e-12)
    assert np.all(np.diff(lower / reach) <= 1e-12)
    assert np.all(np.diff(upper / reach) <= 1e-12)
    for row in (lower, upper):
        slopes = np.diff(row, prepend=0.0) / np.diff(reach, prepend=0.0)
        assert np.all(np.diff(slopes) <= 1e-9)


def test_the_intervals_of_a_profile_tighten_each_other_and_hold():
    a, b = random_pair(15, uneven_grid(15, (3, 4, 5)))
    reaches = (1.0, 3.0, 3.0, 4.0, 12.0)
    profile = flat_norm_profile(reference=a, evaluated=b, reaches_mm=reaches, tolerance=0.1)
    for i, reach in enumerate(reaches):
        alone = flat_norm(reference=a, evaluated=b, reach_mm=reach, tolerance=0.1, max_iterations=1000)
        assert alone.lower <= profile["lower"][i] <= profile["upper"][i] <= alone.upper
        exact = flat_norm(reference=a, evaluated=b, reach_mm=reach, **FINE)
        assert profile["lower"][i] <= exact.upper
        assert exact.lower <= profile["upper"][i]


@pytest.mark.slow
def test_two_days_of_one_plan_lie_apart_by_their_rigid_shift_in_every_distance(data_path):
    a, b = (
        read_dose(data_path(f"slicerrt/{name}"))
        for name in ("EclipseEnt_Dose.nrrd", "EclipseEnt_Dose_Day2.nrrd")
    )
    shift = axis_w2(reference=a, evaluated=b)  # the second day is nearly the first, moved
    w1 = wasserstein_1(reference=a, evaluated=b)
    assert w1.gap < 0.02
    assert w1.value == pytest.approx(shift.value, rel=0.02)
    assert sobolev_w2(reference=a, evaluated=b).value == pytest.approx(shift.value, rel=0.02)
    sliced = sliced_w2(reference=a, evaluated=b).settings["w2_lower_bound_mm"]
    assert sliced == pytest.approx(shift.value, rel=0.01)
    kr = flat_norm(reference=a, evaluated=b)
    assert kr.gap < 0.03
    assert kr.parts["kr_lost_percent"] == pytest.approx(kr.parts["kr_gained_percent"], rel=0.01)


def test_voxels_that_are_even_but_for_a_ten_thousandth_keep_their_mass():
    edges = np.array([0.0, 1.0001, 2.0, 3.0])
    assert line_map([1, 0, 0], edges).grid.is_even
    a, b = line_map([1e-5, 0.0, 0.0], edges), line_map([1.0, 0.0, 0.0], edges)
    with pytest.warns(AccuracyWarning):
        found = flat_norm(reference=a, evaluated=b, reach_mm=0.01)
    assert found.lower <= 0.005 * (1e5 - 1) * (1 + 1e-9)
    assert found.upper == pytest.approx(0.005 * (1e5 - 1), rel=1e-6)


# ---------------------------------------------------------------- gradients


@pytest.mark.parametrize("reach", [4.0, None])
def test_the_gradient_equals_finite_differences(reach):
    a, b = random_pair(12, uneven_grid(12, (3, 4, 4)))
    rng = np.random.default_rng(0)
    direction = b.dose_gy * rng.normal(size=b.grid.shape)
    precise = {"tolerance": 2e-4, "max_iterations": 3000}

    def value(step):
        moved = DoseMap(dose_gy=b.dose_gy + step * direction, grid=b.grid)
        if reach is None:
            return wasserstein_1(reference=a, evaluated=moved, **precise).value
        return flat_norm(reference=a, evaluated=moved, reach_mm=reach, **precise).value

    found, gradient = (
        wasserstein_1_gradient(reference=a, evaluated=b, **precise)
        if reach is None
        else flat_norm_gradient(reference=a, evaluated=b, reach_mm=reach, **precise)
    )
    step = 0.02
    slope = (value(step) - value(-step)) / (2 * step)
    assert np.sum(gradient * direction) == pytest.approx(slope, abs=0.02 * abs(slope) + 1e-3 * found)
    assert gradient.shape == b.grid.shape


def test_the_gradient_is_a_subgradient_on_the_evaluated_grid():
    a = box_map((1, 10, 12), (2.0, 2.0, 2.0), (0, 2, 2), (1, 6, 5))
    b = box_map((1, 12, 9), (2.0, 2.0, 2.0), (0, 1, 1), (1, 5, 4), origin_mm=(6.0, 2.0, 0.0))
    value, gradient = flat_norm_gradient(reference=a, evaluated=b, **FINE)
    more = DoseMap(dose_gy=b.dose_gy + 0.05 * (b.dose_gy == 0), grid=b.grid)
    after = flat_norm(reference=a, evaluated=more, **FINE)
    assert after.upper >= value * (1 - 2e-3) + np.sum(gradient * (more.dose_gy - b.dose_gy))


# ---------------------------------------------------------------- pieces


def test_hats_integrate_to_the_loads_and_the_load_flow_balances_them():
    grid = uneven_grid(3, (3, 4, 5))
    mesh = Mesh.of(grid)
    rho = np.random.default_rng(0).normal(size=grid.shape)
    matrices = [hat_integrals(np.asarray(e)) for e in grid.edges_mm]
    expected = np.einsum("ai,bj,ck,ijk->abc", *matrices, rho)
    load, flow = mesh.load(rho)
    np.testing.assert_allclose(load, expected, atol=2e-4)
    divergence = sum(np.diff(f, axis=i, prepend=0.0) for i, f in enumerate(flow.astype(float)))
    np.testing.assert_allclose(rho * mesh.voxel_volume - load, divergence, atol=1e-5)
    nodal = np.random.default_rng(1).normal(size=grid.shape)
    means = mesh.voxel_means(nodal) * mesh.voxel_volume
    assert np.sum(means * rho) == pytest.approx(np.sum(load * nodal), rel=1e-12)


@pytest.mark.parametrize("even", [True, False])
def test_the_spectral_poisson_solve_balances_any_source(even):
    grid = Grid.regular(shape=(5, 7, 6), spacing_mm=(1, 2, 3)) if even else uneven_grid(1)
    mesh = Mesh.of(grid)
    source = np.random.default_rng(0).normal(size=grid.shape)
    source -= source.mean()
    flow = np.zeros((3, *grid.shape), np.float32)
    mesh.add_potential_flow(mesh.poisson(source), flow)
    divergence = sum(np.diff(f, axis=i, prepend=0.0) for i, f in enumerate(flow.astype(float)))
    np.testing.assert_allclose(divergence, source, atol=2e-5)


def test_coarser_axes_cover_the_same_length_and_stay_even():
    axis = Axis(np.linspace(0, 9, 10))
    coarse = axis.coarser(1.0)
    assert coarse.even
    assert coarse.n == 5
    assert (coarse.edges[0], coarse.edges[-1]) == (0, 9)
    assert axis.coarser(0.5) is axis


# ---------------------------------------------------------------- running


def test_threads_do_not_change_a_bit():
    a, b = gaussian_pair(n=36)
    before = numba.get_num_threads()
    found = []
    try:
        for n in sorted({1, min(2, numba.config.NUMBA_NUM_THREADS)}):
            numba.set_num_threads(n)
            found.append(flat_norm(reference=a, evaluated=b, reach_mm=5.0))
            found.append(wasserstein_1(reference=a, evaluated=b))
    finally:
        numba.set_num_threads(before)
    assert found[0].value == found[-2].value
    assert found[1].value == found[-1].value
    np.testing.assert_array_equal(found[0].fields["flow_mm"], found[-2].fields["flow_mm"])


def test_an_iteration_that_stops_early_says_so_and_its_interval_holds():
    a, b = random_pair(13, uneven_grid(13))
    best = flat_norm(reference=a, evaluated=b, reach_mm=8.0, **FINE)
    early = flat_norm(reference=a, evaluated=b, reach_mm=8.0, tolerance=1e-6, max_iterations=1)
    assert "not converged" in early.status
    assert early.lower <= best.value <= early.upper


def test_an_interrupt_keeps_the_best_interval_so_far():
    a, b = gaussian_pair(n=20)

    def interrupt(what, fraction):
        if fraction > 0.3:
            raise KeyboardInterrupt

    found = flat_norm(reference=a, evaluated=b, reach_mm=5.0, progress=interrupt)
    assert "interrupted" in found.status
    assert 0 < found.lower <= found.value <= found.upper


def test_masses_that_differ_by_more_than_twice_get_a_warning_that_names_the_remedy():
    a, b = random_pair()
    with pytest.warns(AccuracyWarning, match="--scale"):
        flat_norm(reference=a, evaluated=b.scaled(5.0))


@pytest.mark.parametrize(
    ("name", "bad"), [("reach_mm", 0.0), ("reach_mm", np.inf), ("tolerance", 0.0), ("max_iterations", -1)]
)
def test_settings_that_cannot_be_used_are_refused(name, bad):
    a, b = random_pair()
    with pytest.raises(InputError, match=name):
        flat_norm(reference=a, evaluated=b, **{name: bad})


def test_a_map_too_large_for_memory_is_refused_before_anything_starts(monkeypatch):
    a, b = random_pair()
    monkeypatch.setattr("dosemover.transport.measure.available_memory_bytes", lambda: 1000)
    with pytest.raises(InputError, match=r"flat norm on .* needs about"):
        flat_norm(reference=a, evaluated=b)


def test_no_public_name_is_hidden_by_a_module_of_its_name():
    import dosemover.transport as package

    found = [getattr(package, name) for name in package.__all__]
    assert all(callable(one) for one in found)
    assert all(callable(getattr(package, name)) for name in package.__all__)
