"""Axis-marginal distances: exact on the line, rigorous lower bounds in space."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from closed_forms import w1_on_a_line, w2_squared_on_a_line
from dosemover.dose import DoseMap
from dosemover.errors import InputError
from dosemover.transport import axis_w1, axis_w2, emd
from strategies import dose_maps, grids
from transport_maps import box_map, line_map, random_pair


@pytest.mark.parametrize("seed", range(5))
def test_on_an_uneven_line_both_equal_the_quadrature_of_distribution_and_quantile_functions(
    seed, record_validation
):
    rng = np.random.default_rng(seed)
    edges = np.cumsum(rng.uniform(0.2, 3.0, 10))
    p, q = (rng.random(9) * (rng.random(9) > 0.3) + 1e-3 * (np.arange(9) == 4) for _ in range(2))
    a, b = line_map(p, edges), line_map(q, edges)
    assert axis_w1(reference=a, evaluated=b).value == pytest.approx(w1_on_a_line(edges, p, q), rel=1e-6)
    record_validation(
        "W₁ of projections on uneven voxels",
        "integral of |F − G| by quadrature",
        reached=abs(axis_w1(reference=a, evaluated=b).value / w1_on_a_line(edges, p, q) - 1),
        tolerance=1e-6,
        unit="relative",
    )
    assert axis_w2(reference=a, evaluated=b).value ** 2 == pytest.approx(
        w2_squared_on_a_line(edges, p, q), rel=1e-4
    )


def test_a_translation_reads_its_length_in_both():
    a = box_map((20, 20, 20), (1.0, 2.0, 3.0), (2, 3, 4), (8, 9, 10))
    b = box_map((20, 20, 20), (1.0, 2.0, 3.0), (4, 6, 8), (10, 12, 14))
    length = np.sqrt(4.0**2 + 6.0**2 + 6.0**2)
    assert axis_w2(reference=a, evaluated=b).value == pytest.approx(length, rel=1e-12)
    assert axis_w1(reference=a, evaluated=b).value == pytest.approx(length, rel=1e-12)
    assert axis_w2(reference=a, evaluated=b).settings["z_mm"] == pytest.approx(6.0)


def test_a_shift_by_a_fraction_of_a_voxel_is_exact():
    a = line_map([0, 1, 1, 0, 0], np.arange(6.0))
    b = line_map([0, 0.7, 1, 0.3, 0], np.arange(6.0))
    expected = w2_squared_on_a_line(np.arange(6.0), a.dose_gy.ravel(), b.dose_gy.ravel())
    assert axis_w2(reference=a, evaluated=b).value ** 2 == pytest.approx(expected, rel=1e-5)


@pytest.mark.filterwarnings("ignore:the evaluated map holds:dosemover.errors.AccuracyWarning")
def test_scale_is_not_seen_and_its_ratio_is_told():
    a, _ = random_pair()
    result = axis_w2(reference=a, evaluated=a.scaled(3.0))
    assert result.value == pytest.approx(0, abs=1e-7)
    assert result.settings["mass_ratio"] == pytest.approx(3.0)


def test_maps_of_different_extent_are_compared_where_they_lie():
    a = box_map((1, 1, 10), (1.0, 1.0, 1.0), (0, 0, 2), (1, 1, 4))
    b = box_map((1, 1, 6), (1.0, 1.0, 1.0), (0, 0, 1), (1, 1, 3), origin_mm=(7.0, 0.0, 0.0))
    assert axis_w2(reference=a, evaluated=b).value == pytest.approx(6.0, rel=1e-9)


def test_a_mask_keeps_the_dose_inside():
    a, b = random_pair(3)
    mask = np.zeros(a.grid.shape, bool)
    mask[:, :, :3] = True
    inside = [DoseMap(dose_gy=m.dose_gy * mask, grid=m.grid) for m in (a, b)]
    masked = axis_w1(reference=a, evaluated=b, mask=mask).value
    assert masked == pytest.approx(axis_w1(reference=inside[0], evaluated=inside[1]).value, rel=1e-12)


def test_energy_weight_counts_dense_voxels_more():
    density = np.ones((1, 1, 8))
    density[..., 4:] = 3.0
    a = DoseMap.from_array(np.ones(8), spacing_mm=(1.0,), density_g_per_cm3=density.ravel())
    b = DoseMap.from_array(np.r_[np.ones(7), 2.0], spacing_mm=(1.0,))
    weighted = axis_w1(reference=a, evaluated=b, weight="energy").value
    p = density.ravel()
    assert weighted == pytest.approx(w1_on_a_line(np.arange(9.0), p, p * b.dose_gy.ravel()), rel=1e-6)


def test_a_mask_without_dose_is_refused():
    a, b = random_pair()
    with pytest.raises(InputError, match="no dose inside the mask"):
        axis_w1(reference=a, evaluated=b, mask=np.zeros(a.grid.shape))


@pytest.mark.filterwarnings("ignore:the evaluated map holds:dosemover.errors.AccuracyWarning")
@settings(max_examples=30, deadline=None)
@given(st.data())
def test_both_are_symmetric_zero_for_equal_maps_ordered_and_below_the_exact_distance(data):
    grid = data.draw(grids(max_side=4))
    a, b = data.draw(dose_maps(grid)), data.draw(dose_maps(grid))
    w1, w2 = axis_w1(reference=a, evaluated=b), axis_w2(reference=a, evaluated=b)
    assert w1.value == pytest.approx(axis_w1(reference=b, evaluated=a).value, rel=1e-9, abs=1e-9)
    assert w2.value == pytest.approx(axis_w2(reference=b, evaluated=a).value, rel=1e-6, abs=1e-6)
    assert axis_w2(reference=a, evaluated=a).value == 0
    assert w1.value <= w2.value + 1e-9
    for order, result in ((1, w1), (2, w2)):
        exact = emd(reference=a, evaluated=b, order=order)
        assert result.value <= exact.value + exact.settings["atom_error_mm"]
