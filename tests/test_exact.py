"""Exact earth mover's distance between atoms."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from closed_forms import w1_on_a_line, w2_squared_on_a_line
from dosemover.errors import InputError
from dosemover.transport import emd, emd_points
from strategies import dose_maps, grids
from transport_maps import box_map, line_map, random_pair, uneven_grid


def transport_lp(x, y, p, q, order):
    """The transport problem as a linear program."""
    cost = np.linalg.norm(x[:, None] - y[None], axis=2) ** order
    n, m = cost.shape
    rows = [np.kron(np.eye(n), np.ones(m)), np.kron(np.ones(n), np.eye(m))]
    solved = linprog(cost.ravel(), A_eq=np.vstack(rows), b_eq=np.concatenate([p, q]), method="highs")
    return solved.fun ** (1 / order)


@pytest.mark.parametrize("order", [1, 2])
def test_clouds_agree_with_a_linear_program(order, record_validation):
    rng = np.random.default_rng(order)
    x, y = rng.normal(size=(9, 3)), rng.normal(size=(11, 3)) + 1
    p, q = rng.random(9), rng.random(11)
    found = emd_points(reference_mm=x, evaluated_mm=y, reference_weights=p, evaluated_weights=q, order=order)
    assert found.value == pytest.approx(transport_lp(x, y, p / p.sum(), q / q.sum(), order), rel=1e-8)
    record_validation(
        "earth mover's distance of point clouds (through POT)",
        "linear program (scipy HiGHS)",
        reached=abs(found.value / transport_lp(x, y, p / p.sum(), q / q.sum(), order) - 1),
        tolerance=1e-8,
        unit="relative",
    )
    assert found.lower <= found.value == found.upper
    assert found.status == "ok"


@pytest.mark.parametrize("order", [1, 2])
def test_small_maps_agree_with_a_linear_program(order):
    a, b = random_pair(7, uneven_grid(1, (2, 3, 3)))
    z, y, x = np.meshgrid(*((e[1:] + e[:-1]) / 2 for e in a.grid.edges_mm), indexing="ij")
    points = np.stack([x.ravel(), y.ravel(), z.ravel()], axis=1)
    p, q = ((m.dose_gy * m.grid.voxel_volume_mm3).ravel() for m in (a, b))
    expected = transport_lp(points, points, p / p.sum(), q / q.sum(), order)
    assert emd(reference=a, evaluated=b, order=order).value == pytest.approx(expected, rel=1e-7)


def test_a_shift_by_whole_voxels_reads_its_length():
    a = box_map((6, 7, 8), (2.0, 2.0, 2.0), (1, 1, 1), (3, 3, 3))
    b = box_map((6, 7, 8), (2.0, 2.0, 2.0), (1, 4, 5), (3, 6, 7))
    for order in (1, 2):
        assert emd(reference=a, evaluated=b, order=order).value == pytest.approx(10.0, rel=1e-9)


def test_atoms_shifted_by_a_fraction_of_a_voxel_read_the_root_of_fraction_times_width_in_w2(
    record_validation,
):
    a = line_map([0, 1, 1, 1, 1, 0], np.arange(7.0) * 4)
    b = line_map([0, 0.75, 1, 1, 1, 0.25], np.arange(7.0) * 4)  # the slab moved by 1 mm
    exact = emd(reference=a, evaluated=b, order=2)
    assert exact.value == pytest.approx(np.sqrt(1.0 * 4.0), rel=1e-9)
    record_validation(
        "W₂ of voxel atoms moved by a quarter voxel",
        "closed form √(f h)",
        reached=abs(exact.value / 2 - 1),
        tolerance=1e-9,
        unit="relative",
    )
    assert abs(exact.value - 1.0) <= exact.settings["atom_error_mm"]


@pytest.mark.parametrize("order", [1, 2])
def test_the_density_lies_within_the_atom_error(order):
    rng = np.random.default_rng(3)
    edges = np.cumsum(rng.uniform(0.5, 3, 13))
    p, q = rng.random((2, 12))
    power = w1_on_a_line(edges, p, q) if order == 1 else w2_squared_on_a_line(edges, p, q)
    for atoms in (100, 4):
        found = emd(reference=line_map(p, edges), evaluated=line_map(q, edges), order=order, max_atoms=atoms)
        assert abs(found.value - power ** (1 / order)) <= found.settings["atom_error_mm"]


def test_large_maps_are_coarsened_and_it_is_said():
    a, b = random_pair(2)
    found = emd(reference=a, evaluated=b, order=2, max_atoms=30)
    assert found.settings["block"] != (1, 1, 1)
    assert "voxels merged" in found.status
    assert max(found.settings["n_atoms"]) <= 60
    fine = emd(reference=a, evaluated=b, order=2)
    assert abs(found.value - fine.value) <= found.settings["atom_error_mm"]


def test_a_reached_iteration_cap_is_said_and_the_interval_holds():
    a, b = random_pair(5)
    best = emd(reference=a, evaluated=b, order=2)
    capped = emd(reference=a, evaluated=b, order=2, max_iterations=20)
    assert "not converged" in capped.status
    assert capped.lower <= best.value <= capped.upper


def test_equal_maps_are_at_distance_zero():
    a, _ = random_pair()
    for order in (1, 2):
        assert emd(reference=a, evaluated=a, order=order).value == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"reference_mm": np.zeros((0, 3))}, "reference_mm"),
        ({"evaluated_mm": [[np.nan, 0, 0]]}, "finite points"),
        ({"evaluated_mm": [[0.0, 0.0]]}, "coordinates a point"),
        ({"reference_weights": [-1.0, 2.0]}, "reference_weights"),
        ({"order": 3}, "order"),
    ],
)
def test_clouds_that_cannot_be_used_are_refused(change, match):
    cloud = {"reference_mm": np.zeros((2, 3)), "evaluated_mm": np.ones((2, 3))} | change
    with pytest.raises(InputError, match=match):
        emd_points(**cloud)


def test_settings_that_cannot_be_used_are_refused():
    a, b = random_pair()
    with pytest.raises(InputError, match="max_atoms"):
        emd(reference=a, evaluated=b, max_atoms=1)
    with pytest.raises(InputError, match="order"):
        emd(reference=a, evaluated=b, order=4)


@pytest.mark.filterwarnings("ignore:the evaluated map holds:dosemover.errors.AccuracyWarning")
@settings(max_examples=20, deadline=None)
@given(st.data())
def test_it_is_symmetric_ordered_and_obeys_the_triangle_inequality(data):
    grid = data.draw(grids(max_side=3))
    a, b, c = (data.draw(dose_maps(grid)) for _ in range(3))
    for order in (1, 2):
        ab, ba, bc, ac = (
            emd(reference=one, evaluated=other, order=order)
            for one, other in ((a, b), (b, a), (b, c), (a, c))
        )
        assert ab.value == pytest.approx(ba.value, rel=1e-6, abs=1e-6)
        assert ac.lower <= ab.upper + bc.upper + 1e-6
    w1, w2 = (emd(reference=a, evaluated=b, order=order) for order in (1, 2))
    assert w1.lower <= w2.upper + 1e-6
