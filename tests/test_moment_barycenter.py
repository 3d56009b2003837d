"""Barycenters, maps and supports from pseudo-moments, and the hierarchy on the line."""

from itertools import pairwise

import numpy as np
import pytest

from dosemover.errors import GridMismatchError, InputError
from dosemover.moments import line_sos, line_sos_from_moments, moment_barycenter, moment_sos, tally_map
from dosemover.moments.legendre import legendre
from dosemover.transport.line import line_w1, line_w2_squared
from moment_maps import box_map
from test_moment_sos import one_dimensional, tally, two_dimensional

BOX = ((0.0, 48.0),) * 3
METHODS = [("gradient", 0.03), ("regression", 0.02), ("christoffel", 0.03)]


def tallies(*maps, degree=4):
    return [tally_map(dose, box_mm=BOX, degree=degree) for dose in maps]


def centered_box(half):
    """Box of half sides (z, y, x) in voxels around the middle of 12^3 voxels."""
    return box_map([6 - h for h in half], [6 + h for h in half])


@pytest.mark.parametrize("order", [1, 2])
def test_two_translations_meet_half_way(order):
    one, two = box_map((2, 2, 2), (6, 6, 6)), box_map((2, 4, 6), (6, 8, 10))
    found = moment_barycenter(
        [tally_map(d, box_mm=((-2.0, 46.0),) * 3, degree=4) for d in (one, two)], order=order
    )
    shift = np.array([16.0, 8.0, 0.0])
    np.testing.assert_allclose(found.mean_mm, [14, 14, 14] + shift / 2, atol=1e-2)
    # each map is half the shift away from the middle
    assert found.lower_squared_mm2 == pytest.approx(np.sum(shift**2) / 4, rel=1e-4)
    assert found.lower_squared_mm2 <= np.sum(shift**2) / 4 * (1 + 1e-9)


def test_the_barycenter_of_stretched_boxes_has_the_mean_of_their_sides():
    maps = [centered_box(h) for h in ((1, 2, 3), (3, 2, 1), (2, 2, 2))]
    found = moment_barycenter(tallies(*maps), order=2)
    np.testing.assert_allclose(np.diag(found.covariance_mm2), np.full(3, 16.0**2 / 12), rtol=5e-3)
    # W_2^2 of boxes with half sides 4 and 8 mm (an axis): (4)^2 / 3; two maps differ along two axes
    assert found.spread_mm**2 == pytest.approx(2 / 3 * 2 * 4.0**2 / 3, rel=1e-3)


def test_weights_move_the_barycenter():
    one, two = box_map((2, 2, 2), (6, 6, 6)), box_map((2, 2, 6), (6, 6, 10))
    found = moment_barycenter(tallies(one, two), weights=[3, 1], order=1)
    # a voxel reaches from -2 mm to 46 mm: the middle of the first box is at 14 mm
    assert found.mean_mm[0] == pytest.approx(14 + 16 / 4, abs=1e-2)


def test_bad_barycenters_are_refused():
    one = tally_map(box_map((2, 2, 2), (6, 6, 6)), box_mm=BOX, degree=4)
    other = tally_map(box_map((2, 2, 2), (6, 6, 6)), degree=4)
    with pytest.raises(InputError, match="takes two tallies or more"):
        moment_barycenter([one])
    with pytest.raises(InputError, match="`weights` must be 2 positive numbers"):
        moment_barycenter([one, one], weights=[1, 0])
    with pytest.raises(GridMismatchError, match="must share their box"):
        moment_barycenter([one, other])
    with pytest.raises(InputError, match="`order` 3 takes moments to degree 6"):
        moment_barycenter([one, one], order=3)


@pytest.mark.parametrize(("method", "largest"), METHODS)
def test_the_map_is_recovered_from_the_pseudo_moments(method, largest):
    x, w, image, half_x, half_y = two_dimensional()
    found = moment_sos(reference=tally(x, w, half_x, 8), evaluated=tally(image, w, half_y, 8), order=4)
    points = np.column_stack([x[:, ::-1], np.zeros(len(x))])
    moved = found.displacement_mm(points, method=method)[:, :2][:, ::-1]
    assert np.sqrt(w @ np.sum((moved - (image - x)) ** 2, axis=1)) < largest


def test_the_support_of_the_plan_is_the_graph_of_the_map():
    x, w, image, half_x, half_y = two_dimensional()
    found = moment_sos(reference=tally(x, w, half_x, 6), evaluated=tally(image, w, half_y, 6), order=3)
    points, targets = (np.column_stack([p[::7, ::-1], np.zeros(len(p[::7]))]) for p in (x, image))
    on = found.christoffel(points, targets)
    off = found.christoffel(points, np.roll(targets, len(targets) // 2, axis=0))
    assert np.median(off) > 100 * np.median(on)


def test_an_unknown_map_is_refused():
    x, w, image, half_x, half_y = two_dimensional()
    found = moment_sos(reference=tally(x, w, half_x, 2), evaluated=tally(image, w, half_y, 2), order=1)
    with pytest.raises(InputError, match="`method` must be"):
        found.displacement_mm([[0, 0, 0]], method="other")


@pytest.mark.parametrize(
    ("power", "values"),
    [
        (2, {1: 0.03890614, 2: 0.05693650, 3: 0.06731931, 4: 0.07102100, 6: 0.07391723, 8: 0.07495548}),
        (4, {2: 0.003598, 3: 0.006838, 4: 0.007465, 6: 0.008227, 8: 0.008433}),
        (1, {2: 0.188432, 3: 0.220793, 4: 0.233990}),
    ],
)
def test_the_line_takes_the_known_values(power, values):
    x, w, image, _, _ = one_dimensional("A")
    exact = {1: 0.25, 2: 8 / 105, 4: 0.00852481}[power]
    for order, expected in values.items():
        mu, nu = ((w @ legendre(p[:, 0], 2 * order))[None] for p in (x, image))
        found = line_sos_from_moments(
            mu, nu, x_cells=[(-1.0, 1.0)], y_cells=[(-1.0, 1.0)], power=power, order=order
        )
        assert found.primal_power == pytest.approx(expected, rel=2e-5, abs=1e-6)
        assert found.lower_power <= found.primal_power
        assert found.lower_power < exact
        # |x - y| has a kink: the certificate costs a little there
        assert found.lower_power == pytest.approx(expected, rel=5e-4)


EDGES = np.linspace(0, 100, 101)
ONE = ((EDGES[:-1] >= 40) & (EDGES[:-1] < 60)).astype(float)
TWO = (((EDGES[:-1] >= 10) & (EDGES[:-1] < 20)) | ((EDGES[:-1] >= 80) & (EDGES[:-1] < 90))).astype(float)


@pytest.mark.parametrize("power", [1, 2])
def test_cells_resolve_a_split_that_global_polynomials_cannot(power):
    f, g = (np.concatenate([[0.0], np.cumsum(d) / d.sum()]) for d in (ONE, TWO))
    exact = line_w1(EDGES, f, g) if power == 1 else np.sqrt(line_w2_squared(EDGES, f, g))
    whole = line_sos(EDGES, ONE, TWO, power=power, order=2)
    cut = line_sos(EDGES, ONE, TWO, power=power, order=2, cells=[50.0])
    assert whole.lower_mm < 0.985 * exact
    assert cut.lower_mm == pytest.approx(exact, rel=1e-5)
    assert cut.lower_mm <= exact
    assert cut.n_components > whole.n_components


@pytest.mark.parametrize("power", [1, 2, 4])
def test_no_order_on_the_line_falls_below_a_lower_one(power):
    ends, places = np.zeros(100), np.zeros(100)
    ends[[0, -1]], places[[0, 23, 64, 99]] = (1.0, 0.3), (1.0, 2.0, 1.0, 0.5)
    found = [line_sos(EDGES, ends, places, power=power, order=order) for order in range(2, 8)]
    bounds = [one.lower_mm for one in found]
    assert all(b >= a * (1 - 1e-4) for a, b in pairwise(bounds))
    assert "this is order" in found[-1].status


def test_impossible_lines_are_refused():
    with pytest.raises(InputError, match="`power` must be 1, 2 or 4"):
        line_sos(EDGES, ONE, TWO, power=3)
    with pytest.raises(InputError, match="`order` must be at least 2"):
        line_sos(EDGES, ONE, TWO, power=4, order=1)
    with pytest.raises(InputError, match="`cells` must lie inside"):
        line_sos(EDGES, ONE, TWO, cells=[120.0])
    with pytest.raises(InputError, match="`evaluated` must be a density"):
        line_sos(EDGES, ONE, -TWO)
