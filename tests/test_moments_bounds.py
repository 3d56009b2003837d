"""The certified interval of W_2 from everything cheap."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from scipy.special import erf

from dosemover.dose import DoseMap
from dosemover.errors import InputError
from dosemover.moments import galerkin_w2, moment_sos, support_box, tally_map, w2_bounds
from dosemover.transport import wasserstein_2
from moment_maps import beam, box_map
from strategies import dose_maps


def values(found, side):
    return {b.name: b.value_mm for b in found.bounds if b.side == side}


def test_a_range_change_is_held_within_two_percent():
    # converged one-dimensional transport of the same depth profile: 4.53 mm on these voxels
    found = w2_bounds(reference=beam(), evaluated=beam(edge=0.38))
    assert found.gap < 0.02
    assert found.lower_mm <= 4.53 <= found.upper_mm
    assert found.active_upper in ("rearrangement", "flux")


def test_every_lower_bound_lies_below_every_upper_bound():
    found = w2_bounds(reference=beam(), evaluated=beam(edge=lambda y: 0.3 + 0.15 * np.tanh(y / 0.2)), order=3)
    lower, upper = values(found, "lower"), values(found, "upper")
    known = [v for v in lower.values() if v is not None]
    assert max(known) <= min(v for v in upper.values() if v is not None)
    assert lower["mean_shift"] <= lower["gaussian"] <= lower["moment_sos_2"] <= lower["moment_sos_3"]
    assert lower[found.active_lower] == max(known)
    assert found.active_lower == "smooth_dual"
    assert found.summary()["active_lower"] == "smooth_dual"


def test_a_translated_box_reads_its_shift_at_both_ends():
    found = w2_bounds(reference=box_map((2, 2, 2), (8, 8, 8)), evaluated=box_map((2, 2, 4), (8, 8, 10)))
    assert found.lower_mm == pytest.approx(8.0, rel=1e-9)
    assert found.upper_mm == pytest.approx(8.0, rel=1e-6)


def test_separated_boxes_are_held_without_dose_between_them(record_validation):
    one, two = box_map((0, 0, 0), (2, 2, 2)), box_map((0, 0, 10), (2, 2, 12))
    found = w2_bounds(reference=one, evaluated=two)
    # boxes of side 8 mm, 40 mm apart: variance 8^2/12 an axis and map
    assert values(found, "upper")["independent"] == pytest.approx(np.sqrt(40.0**2 + 6 * 8.0**2 / 12))
    assert found.lower_mm == pytest.approx(40.0)
    assert found.upper_mm == pytest.approx(40.0)
    record_validation(
        "lower bound on W₂ of two boxes apart",
        "their distance",
        reached=abs(found.lower_mm / 40 - 1),
        tolerance=1e-6,
        unit="relative",
    )


def test_equal_maps_have_an_interval_of_nothing():
    found = w2_bounds(reference=beam(16), evaluated=beam(16).scaled(2.0))
    assert found.lower_mm == pytest.approx(0.0, abs=1e-5)
    assert found.upper_mm == pytest.approx(0.0, abs=1e-5)


def one_dimensional(rng, n=24):
    """Two rows of voxels; exact W_2 from piecewise-linear quantiles, written out here once more."""
    a, b = rng.random(n) ** 3 + 0.01, rng.random(n) ** 3 + 0.01
    levels = [np.concatenate([[0], np.cumsum(d) / d.sum()]) for d in (a, b)]
    t = np.arange(n + 1) * 2.0
    q = np.union1d(*levels)
    gap = np.diff([np.interp(q, level, t) for level in levels], axis=0)[0]
    squares = (gap[1:] ** 2 + gap[1:] * gap[:-1] + gap[:-1] ** 2) / 3
    return a, b, np.sqrt(np.sum(np.diff(q) * squares))


def check_a_row(seed):
    a, b, exact = one_dimensional(np.random.default_rng(seed))
    one, two = (DoseMap.from_array(d[None, None, :], spacing_mm=(2.0, 2.0, 2.0)) for d in (a, b))
    found = w2_bounds(reference=one, evaluated=two)
    for name, value in values(found, "lower").items():
        assert value is None or value <= exact * (1 + 1e-9), name
    for name, value in values(found, "upper").items():
        assert value is None or value >= exact * (1 - 1e-9), name


@settings(max_examples=8)
@given(st.integers(0, 10_000))
def test_the_interval_holds_the_exact_distance_of_rows_of_voxels(seed):
    check_a_row(seed)


@pytest.mark.slow
@settings(max_examples=50)
@given(st.integers(10_001, 100_000))
def test_the_interval_holds_the_exact_distance_of_fifty_rows(seed):
    check_a_row(seed)


@settings(max_examples=5)
@given(st.data())
def test_the_interval_is_never_empty(data):
    one = data.draw(dose_maps())
    two = data.draw(dose_maps(grid=one.grid))
    found = w2_bounds(reference=one, evaluated=two)
    assert found.lower_mm <= found.upper_mm * (1 + 1e-9) + 1e-6


def test_parts_can_be_left_out():
    found = w2_bounds(reference=beam(16), evaluated=beam(16, 0.38), order=0, smooth_dual=False, flux=False)
    assert set(values(found, "lower")) == {"mean_shift", "gaussian", "axis_marginals"}
    assert found.active_upper == "independent"


def test_a_negative_order_is_refused():
    with pytest.raises(InputError, match="`order` must not be negative"):
        w2_bounds(reference=beam(8), evaluated=beam(8), order=-1)


def test_maps_without_mass_are_refused():
    empty = DoseMap.from_array(np.zeros((4, 4, 4)), spacing_mm=(2, 2, 2))
    with pytest.raises(InputError, match="has no dose"):
        w2_bounds(reference=beam(8), evaluated=empty)


def test_segments_tighten_the_upper_bound_of_a_tilt():
    found = w2_bounds(reference=beam(), evaluated=beam(edge=lambda y: 0.3 + 0.15 * np.tanh(y / 0.2)))
    upper = values(found, "upper")
    assert upper["flux_two_segments"] < 0.985 * upper["flux"]
    assert upper["flux_four_segments"] < upper["flux_two_segments"]
    # converged two-dimensional transport of the same field: 6.78 mm, voxels of 6 mm read a little less
    assert found.lower_mm < 6.74 < found.upper_mm


def penumbra(sigma, *, shift=0.0, edge=30.0, spot=0.0, n=48):
    """Field of 100 mm in 200 mm with penumbras of one width [mm], lateral shift, distal edge, hot spot."""
    t = ((np.arange(n) + 0.5) / n * 2 - 1) * 100

    def plateau(low, high):
        return 0.5 * (erf((t - low) / (sigma * 2**0.5)) - erf((t - high) / (sigma * 2**0.5)))

    z, y, x = plateau(-50, 50), plateau(-50 + shift, 50 + shift), plateau(-60, edge)
    dose = z[:, None, None] * y[:, None] * x + 1e-3
    r2 = t[:, None, None] ** 2 + t[:, None] ** 2 + t**2
    return DoseMap.from_array(dose * (1 + spot * np.exp(-r2 / 200)), spacing_mm=(200 / n,) * 3)


@pytest.mark.slow
@pytest.mark.parametrize("sigma", [4.0, 8.0])
@pytest.mark.parametrize("change", [{"shift": 1.0}, {"shift": 3.0}, {"edge": 33.0}, {"spot": 0.3}])
def test_smooth_changes_are_held_within_two_percent(sigma, change):
    found = w2_bounds(reference=penumbra(sigma), evaluated=penumbra(sigma, **change))
    assert 0 < found.lower_mm <= found.upper_mm
    assert found.gap < 0.02


def test_merged_cells_bound_what_voxels_bound(monkeypatch):
    from dosemover.moments import coarse_pair

    one, two = penumbra(6.0, n=32), penumbra(6.0, spot=0.3, n=32)
    fine = w2_bounds(reference=one, evaluated=two, order=0)
    monkeypatch.setattr(coarse_pair.CoarsePair.__init__, "__kwdefaults__", {"most": 3000})
    coarse = w2_bounds(reference=one, evaluated=two, order=0)
    assert values(coarse, "lower")["smooth_dual"] == pytest.approx(fine.lower_mm, rel=0.1)
    assert coarse.lower_mm <= fine.upper_mm
    assert coarse.upper_mm >= fine.lower_mm


def random_pair(seed):
    """Two small random maps, smooth where the seed is odd and rough where it is even."""
    rng = np.random.default_rng(seed)
    shape = tuple(int(n) for n in rng.integers(6, 13, 3))
    maps = []
    for _ in range(2):
        dose = rng.random(shape)
        dose = gaussian_filter(dose, 2.0, mode="nearest") if seed % 2 else dose**3
        dose = (dose - dose.min()) / (dose.max() - dose.min()) + 0.02
        maps.append(DoseMap.from_array(dose, spacing_mm=(3.0, 2.5, 2.0)))
    return maps


def check_against_transport(seed):
    one, two = random_pair(seed)
    ours = w2_bounds(reference=one, evaluated=two)
    theirs = wasserstein_2(reference=one, evaluated=two, fields=False)
    # both intervals hold the true value, which the estimate misses by no more than its own interval
    assert ours.lower_mm <= theirs.upper * (1 + 1e-9)
    assert theirs.lower <= ours.upper_mm * (1 + 1e-9)
    assert ours.lower_mm - (theirs.upper - theirs.value) <= theirs.value * (1 + 1e-9)
    assert theirs.value <= (ours.upper_mm + (theirs.value - theirs.lower)) * (1 + 1e-9)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_interval_agrees_with_that_of_the_transport_core(seed):
    check_against_transport(seed)


@pytest.mark.slow
def test_the_interval_agrees_with_the_transport_core_on_fifty_pairs():
    for seed in range(2, 52):
        check_against_transport(seed)


def test_a_box_much_larger_than_the_dose_is_said_and_the_bound_still_holds():
    one, two = beam(background=0.0), beam(edge=lambda y: 0.3 + 0.15 * np.tanh(y / 0.2), background=0.0)
    box = support_box(one, two)
    wide = tuple((low - 5 * (high - low), high + 5 * (high - low)) for low, high in box)
    tight, loose = ([tally_map(dose, box_mm=b, degree=12) for dose in (one, two)] for b in (box, wide))
    found = moment_sos(reference=loose[0], evaluated=loose[1], order=3)
    assert "tally on a smaller box" in found.status
    assert found.lower_mm <= moment_sos(reference=tight[0], evaluated=tight[1], order=3).lower_mm
    assert "ill-conditioned" in galerkin_w2(reference=loose[0], evaluated=loose[1]).status
    assert galerkin_w2(reference=tight[0], evaluated=tight[1]).status == "ok"


def test_identical_maps_have_no_lower_bound_above_the_upper_one():
    z, y, x = np.indices((7, 9, 11))
    dose = np.exp(-((z - 2.0) ** 2 / 6 + (y - 3) ** 2 / 8 + (x - 7) ** 2 / 12)).astype(np.float32)
    one = DoseMap.from_array(dose, spacing_mm=(2.0, 3.0, 2.5), origin_mm=(-10.0, 20.0, 5.0))
    found = w2_bounds(reference=one, evaluated=one)
    assert found.lower_mm <= found.upper_mm
    assert found.gap == 0.0
