"""Sliced distances: exact projections, conventions and bounds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dosemover.dose import DoseMap
from dosemover.errors import InputError
from dosemover.transport import axis_w1, axis_w2, emd, sliced_w1, sliced_w2
from dosemover.transport.axis import axis_marginal
from dosemover.transport.measure import measure_pair
from dosemover.transport.sliced import _directions, _projections
from strategies import dose_maps, grids
from transport_maps import box_map, gaussian_pair, line_map, random_pair, uneven_grid


def split_voxels(dose: DoseMap, n: int):
    """Points (x, y, z) and weights of every voxel split in n along each axis."""
    axes = [
        (e[:-1, None] + np.diff(e)[:, None] * (np.arange(n) + 0.5) / n).ravel() for e in dose.grid.edges_mm
    ]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    weight = dose.dose_gy * dose.grid.voxel_volume_mm3
    for axis in range(3):
        weight = np.repeat(weight, n, axis=axis)
    keep = weight.ravel() > 0
    points = np.stack([x.ravel(), y.ravel(), z.ravel()], axis=1)[keep]
    return points, weight.ravel()[keep] / weight.sum()


def test_a_translation_reads_its_length_over_the_root_of_the_dimension():
    a = box_map((16, 18, 20), (2.0, 2.0, 2.0), (2, 3, 4), (8, 9, 10))
    b = box_map((16, 18, 20), (2.0, 2.0, 2.0), (4, 6, 8), (10, 12, 14))
    length = 2 * np.sqrt(4 + 9 + 16)
    two = sliced_w2(reference=a, evaluated=b)
    assert two.value == pytest.approx(length / np.sqrt(3), rel=1e-4)
    assert two.settings["w2_lower_bound_mm"] == pytest.approx(length, rel=1e-4)
    one = sliced_w1(reference=a, evaluated=b)
    assert one.value == pytest.approx(length / 2, rel=0.02)
    assert length * 0.97 < one.settings["w1_lower_bound_mm"] <= length * (1 + 1e-6)


def test_in_a_plane_a_translation_reads_its_length_over_root_two():
    a = box_map((1, 40, 40), (1.0, 1.0, 2.5), (0, 5, 6), (1, 15, 17))
    b = box_map((1, 40, 40), (1.0, 1.0, 2.5), (0, 8, 10), (1, 18, 21))
    assert sliced_w2(reference=a, evaluated=b).value == pytest.approx(5 / np.sqrt(2), rel=1e-4)
    assert sliced_w1(reference=a, evaluated=b).value == pytest.approx(5 * 2 / np.pi, rel=1e-3)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_slice_reads_the_same_along_any_axis(axis):
    rng = np.random.default_rng(5)
    planes = [rng.random((7, 9)) for _ in range(2)]
    expected = sliced_w2(
        **dict(zip(("reference", "evaluated"), (plane(p, 0) for p in planes), strict=True))
    ).value
    a, b = (plane(p, axis) for p in planes)
    assert sliced_w2(reference=a, evaluated=b).value == pytest.approx(expected, rel=1e-9)


def plane(values, axis):
    """A slice whose single voxel lies along an array axis; 2 mm voxels in the plane."""
    spacing = [2.0, 2.0, 2.0]
    spacing[2 - axis] = 5.0
    return DoseMap.from_array(np.expand_dims(values, axis), spacing_mm=tuple(spacing))


def test_on_a_line_it_is_the_distance_itself():
    edges = np.array([0.0, 1.0, 1.5, 4.0, 5.0])
    a, b = line_map([1, 0, 2, 1], edges), line_map([0, 3, 1, 1], edges)
    for sliced, axis in ((sliced_w1, axis_w1), (sliced_w2, axis_w2)):
        exact = axis(reference=a, evaluated=b).value
        assert sliced(reference=a, evaluated=b).value == pytest.approx(exact, rel=1e-12)


def test_projections_equal_those_of_finely_split_voxels_on_uneven_boundaries():
    a, b = random_pair(1, uneven_grid(2, (4, 5, 3)))
    pair = measure_pair(reference=a, evaluated=b).normalized()
    directions = _directions(16, 3)  # none along an axis, where split voxels would lie on few planes
    points, weight = split_voxels(a, 16)
    for vector, (_, t, f, _) in zip(directions.vectors, _projections(pair, directions), strict=True):
        s = points @ vector
        at = np.linspace(t[0], t[-1], 40)[1:-1]
        expected = [weight[s <= one].sum() for one in at]
        np.testing.assert_allclose(np.interp(at, t, f), expected, atol=3e-3)


def test_the_projection_along_an_axis_equals_the_marginal():
    a, b = random_pair(1, uneven_grid(2, (4, 5, 3)))
    pair = measure_pair(reference=a, evaluated=b).normalized()
    directions = _directions(9, 3)
    for vector, (_, t, f, _) in zip(directions.vectors, _projections(pair, directions), strict=True):
        if abs(vector[1]) > 1 - 1e-9:
            expected = axis_marginal(pair.a, pair.grid, 1)
            np.testing.assert_allclose(np.interp(pair.grid.y_edges_mm, t, f), expected, atol=2e-3)
            break
    else:
        pytest.fail("no direction along y")


def test_pot_agrees_on_finely_split_voxels(record_validation):
    ot = pytest.importorskip("ot")
    a, b = random_pair(4, uneven_grid(3, (3, 4, 4)))
    directions = _directions(16, 3)
    (x, p), (y, q) = split_voxels(a, 7), split_voxels(b, 7)
    weights = np.tile(directions.weight, directions.azimuth.size)
    for order, ours in ((1, sliced_w1), (2, sliced_w2)):
        each = [
            ot.sliced_wasserstein_distance(x, y, p, q, projections=v[:, None], p=order) ** order
            for v in directions.vectors
        ]
        expected = np.dot(weights, each) ** (1 / order)
        found = ours(reference=a, evaluated=b, n_directions=16)
        assert found.value == pytest.approx(expected, rel=5e-3)
        record_validation(
            "sliced W₁ and W₂ of voxel densities",
            "POT on finely split voxels",
            reached=abs(found.value / expected - 1),
            tolerance=5e-3,
            unit="relative",
        )
        assert found.settings["n_directions"] == 16


def test_directions_average_the_outer_product_to_the_identity_over_the_dimension():
    for dimension in (2, 3):
        d = _directions(64, dimension)
        v, w = d.vectors, np.tile(d.weight, d.azimuth.size)
        outer = np.einsum("i,ij,ik->jk", w, v, v)[:dimension, :dimension]
        np.testing.assert_allclose(outer, np.eye(dimension) / dimension, atol=1e-12)
        u = np.random.default_rng(0).standard_normal((2000, 3))
        if dimension == 2:
            u[:, 2] = 0
        u /= np.linalg.norm(u, axis=1, keepdims=True)
        assert (np.abs(u @ v.T) @ w).max() <= d.mean_projection <= 1.03 * {2: 2 / np.pi, 3: 0.5}[dimension]


def test_more_directions_change_little():
    a, b = gaussian_pair()
    few = sliced_w2(reference=a, evaluated=b, n_directions=16).value
    many = sliced_w2(reference=a, evaluated=b, n_directions=400).value
    assert few == pytest.approx(many, rel=1e-3)


def test_too_few_directions_are_refused():
    a, b = random_pair()
    with pytest.raises(InputError, match="n_directions"):
        sliced_w1(reference=a, evaluated=b, n_directions=3)


@pytest.mark.filterwarnings("ignore:the evaluated map holds:dosemover.errors.AccuracyWarning")
@settings(max_examples=25, deadline=None)
@given(st.data())
def test_both_are_symmetric_ordered_and_below_the_exact_distance(data):
    grid = data.draw(grids(max_side=4))
    a, b = data.draw(dose_maps(grid)), data.draw(dose_maps(grid))
    one, two = (f(reference=a, evaluated=b, n_directions=16) for f in (sliced_w1, sliced_w2))
    back = sliced_w2(reference=b, evaluated=a, n_directions=16)
    assert two.value == pytest.approx(back.value, rel=1e-6, abs=1e-6)
    assert one.value <= two.value * (1 + 1e-6) + 1e-9
    for order, found in ((1, one), (2, two)):
        exact = emd(reference=a, evaluated=b, order=order)
        ceiling = exact.value + exact.settings["atom_error_mm"]
        assert found.settings[f"w{order}_lower_bound_mm"] <= ceiling * (1 + 1e-4)
        assert found.settings["largest_projection_mm"] <= ceiling * (1 + 1e-4)
    assert sliced_w2(reference=a, evaluated=a, n_directions=16).value == 0
