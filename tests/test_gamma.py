"""Gamma: against an independent oracle, closed forms, and the laws that it obeys."""

from __future__ import annotations

import numba
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from closed_forms import gamma_of_a_ramp, gamma_of_a_step
from dosemover.dose import DoseMap
from dosemover.errors import AccuracyWarning, GridMismatchError, InputError, UnitError
from dosemover.grid import Grid
from dosemover.metrics import gamma_index, gamma_indices, gamma_two_sided
from gamma_oracle import gamma_oracle


@st.composite
def axes(draw, n):
    """Boundaries of one axis: even or uneven, 0.25 to 5 mm, not at a round place."""
    width = draw(st.sampled_from([0.25, 1.0, 2.0, 2.5, 5.0]))
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    widths = width * (rng.uniform(0.3, 2.0, n) if draw(st.booleans()) else np.ones(n))
    return rng.uniform(-2, 2) + np.concatenate([[0.0], np.cumsum(widths)])


@st.composite
def pairs(draw):
    """Two maps of one to three dimensions, on one grid or two, smooth or rough, float32 or float64."""
    n_dimensions = draw(st.integers(1, 3))
    sides = [1] * (3 - n_dimensions) + [draw(st.integers(1, 6)) for _ in range(n_dimensions)]

    def grid(shape):
        return Grid(**{f"{a}_edges_mm": draw(axes(n)) for a, n in zip("zyx", shape, strict=True)})

    evaluated = grid(sides)
    reference = evaluated if draw(st.booleans()) else grid([draw(st.integers(1, 4)) for _ in range(3)])
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    rough, base = draw(st.sampled_from([0.02, 0.2, 1.0])), draw(st.sampled_from([0.01, 0.5]))

    def dose(where):
        z, y, x = np.meshgrid(*where.centers_mm, indexing="ij")
        smooth = 1.0 + np.sin(x / 5 + y / 7 + z / 3)
        values = base + 0.1 * smooth + rough * rng.random(where.shape) * (rng.random(where.shape) > 0.2)
        return DoseMap(dose_gy=values.astype(draw(st.sampled_from([np.float32, np.float64]))), grid=where)

    return dose(reference), dose(evaluated)


CRITERIA = {
    "dose_criterion_percent": st.sampled_from([0.5, 1.0, 3.0, 10.0, 30.0]),
    "distance_criterion_mm": st.sampled_from([0.5, 1.0, 3.0, 10.0]),
    "normalization": st.sampled_from(["global", "local"]),
    "max_gamma": st.sampled_from([1.5, 2.0, 4.0]),
}
RELAXED = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}


@pytest.mark.filterwarnings("ignore::dosemover.errors.AccuracyWarning")
@settings(max_examples=80, **RELAXED)
@given(maps=pairs(), criterion=st.fixed_dictionaries(CRITERIA), seed=st.integers(0, 2**31))
def test_gamma_is_the_least_over_every_tetrahedron(maps, criterion, seed):
    reference, evaluated = maps
    result = gamma_index(reference=reference, evaluated=evaluated, **criterion)
    some = np.random.default_rng(seed).permutation(result.index)[:8]
    points = np.stack(np.unravel_index(some, reference.grid.shape), axis=1)
    local = criterion["normalization"] == "local"
    doses = reference.dose_gy.ravel()[some].astype(float) if local else np.full(some.size, reference.max_gy)
    expected = gamma_oracle(
        reference=reference,
        evaluated=evaluated,
        points=points,
        dose_criteria_gy=criterion["dose_criterion_percent"] / 100 * doses,
        distance_criterion_mm=criterion["distance_criterion_mm"],
        max_gamma=criterion["max_gamma"],
    )
    np.testing.assert_allclose(result.gamma.ravel()[some], expected, atol=1e-6, rtol=0)


@pytest.mark.filterwarnings("ignore::dosemover.errors.AccuracyWarning")
@settings(max_examples=40, **RELAXED)
@given(maps=pairs(), criterion=st.fixed_dictionaries(CRITERIA))
def test_closest_points_explain_gamma(maps, criterion):
    reference, evaluated = maps
    result = gamma_index(reference=reference, evaluated=evaluated, **criterion)
    below = result.gamma < criterion["max_gamma"]
    parts = np.sqrt(result.distance_part**2 + result.dose_part**2)
    np.testing.assert_allclose(parts[below], result.gamma[below], atol=2e-6)
    assert np.isnan(parts[~below]).all()
    assert (result.values >= 0).all()
    assert (result.values <= np.float32(criterion["max_gamma"])).all()


@pytest.mark.filterwarnings("ignore::dosemover.errors.AccuracyWarning")
@settings(max_examples=30, **RELAXED)
@given(maps=pairs(), local=st.booleans())
def test_gamma_halves_when_both_criteria_double(maps, local):
    reference, evaluated = maps
    normalization = "local" if local else "global"

    def gamma(factor):
        return gamma_index(
            reference=reference,
            evaluated=evaluated,
            dose_criterion_percent=2.0 * factor,
            distance_criterion_mm=2.0 * factor,
            normalization=normalization,
            max_gamma=4.0 / factor,
        ).values

    np.testing.assert_allclose(2 * gamma(2.0 / 1.0), gamma(1.0), atol=1e-6)


@settings(max_examples=30, **RELAXED)
@given(maps=pairs())
def test_gamma_is_at_most_the_dose_difference_alone(maps):
    reference, evaluated = maps
    assume(reference.grid is evaluated.grid)
    result = gamma_index(reference=reference, evaluated=evaluated)
    difference = np.abs(np.subtract(evaluated.dose_gy, reference.dose_gy, dtype=np.float64))
    bound = difference / (0.03 * reference.max_gy)
    assert (result.values <= bound.ravel()[result.index] + 1e-6).all()


@pytest.mark.filterwarnings("ignore::dosemover.errors.AccuracyWarning")
@settings(max_examples=30, **RELAXED)
@given(maps=pairs())
def test_the_continuous_dose_is_at_least_as_close_as_its_voxel_centres(maps):
    reference, evaluated = maps
    exact = gamma_index(reference=reference, evaluated=evaluated)
    centers = gamma_index(reference=reference, evaluated=evaluated, interpolant="grid")
    assert (exact.values <= centers.values + 1e-6).all()


@settings(max_examples=30, **RELAXED)
@given(maps=pairs(), seed=st.integers(0, 2**31))
def test_identical_maps_pass_everywhere_with_any_mask(maps, seed):
    dose = maps[0]
    mask = np.random.default_rng(seed).random(dose.grid.shape) > 0.5
    mask.flat[np.argmax(dose.dose_gy)] = True
    for normalization in ("global", "local"):
        result = gamma_index(reference=dose, evaluated=dose, mask=mask, normalization=normalization)
        assert result.passing_rate_percent == 100.0
        assert not result.values.any()
        assert not np.isfinite(result.gamma[~mask]).any()


def line(values, *, spacing_mm=1.0, start_mm=0.0):
    return DoseMap.from_array(
        np.asarray(values, dtype=float), spacing_mm=(spacing_mm,), origin_mm=(start_mm, 0.0, 0.0)
    )


@pytest.mark.parametrize("slope", [0.0, 0.05, 0.5, 3.0])
@pytest.mark.parametrize("direction", [(0, 0, 1), (0, 1, 0), (1, 0, 0), (1, 1, 1), (1, -2, 0.5)])
def test_gamma_of_a_ramp_is_the_absolute_chi(slope, direction, record_validation):
    grid = Grid.regular(shape=(9, 9, 9), spacing_mm=(1.0, 1.5, 2.0))
    z, y, x = np.meshgrid(*grid.centers_mm, indexing="ij")
    along = (direction[0] * z + direction[1] * y + direction[2] * x) / np.linalg.norm(direction)
    reference = DoseMap(dose_gy=60 + slope * along, grid=grid)
    evaluated = DoseMap(dose_gy=reference.dose_gy + 1.0, grid=grid)
    result = gamma_index(reference=reference, evaluated=evaluated, normalization_dose_gy=60.0)
    expected = gamma_of_a_ramp(
        difference_gy=1.0, slope_gy_per_mm=slope, dose_criterion_gy=1.8, distance_criterion_mm=3.0
    )
    assert result.gamma[4, 4, 4] == pytest.approx(expected, abs=1e-6)
    record_validation(
        "gamma of a tilted plane of dose",
        "closed form |chi| (Bakai 2003)",
        reached=abs(result.gamma[4, 4, 4] - expected),
        tolerance=1e-6,
    )


def test_closest_point_of_a_ramp_lies_down_the_slope():
    result = gamma_index(
        reference=line(np.arange(40.0)), evaluated=line(np.arange(40.0) + 1.0), normalization_dose_gy=100.0
    )
    expected = -1.0 * 3.0**2 / (3.0**2 + 3.0**2)  # d = -difference slope / (slope^2 + (dD/dd)^2)
    np.testing.assert_allclose(result.displacement_mm[:, 0, 0, 20], [expected, 0, 0], atol=1e-6)
    np.testing.assert_allclose(result.dose_part[0, 0, 20], (1.0 + expected) / 3.0, atol=1e-6)


@pytest.mark.parametrize("shift_mm", [0.5, 1.0, 2.0, 4.5])
def test_gamma_of_a_shifted_step_is_its_distance(shift_mm, record_validation):
    x = np.arange(60) * 0.5
    reference = line(np.where(x < 15, 100.0, 20.0), spacing_mm=0.5)
    evaluated = line(np.where(x < 15 - shift_mm, 100.0, 20.0), spacing_mm=0.5)
    result = gamma_index(reference=reference, evaluated=evaluated)
    at = 29  # the last voxel of the high plateau, at 14.5 mm
    expected = gamma_of_a_step(
        to_edge_mm=shift_mm, ramp_mm=0.5, height_gy=80.0, dose_criterion_gy=3.0, distance_criterion_mm=3.0
    )
    assert result.gamma[0, 0, at] == pytest.approx(expected, abs=1e-6)
    record_validation(
        "gamma beside a shifted step",
        "closed form: distance from a segment (Low 1998)",
        reached=abs(result.gamma[0, 0, at] - expected),
        tolerance=1e-6,
    )


def test_constant_dose_difference_on_a_plateau_reads_its_share_of_the_criterion():
    flat = DoseMap.from_array(np.full((4, 5, 6), 50.0), spacing_mm=(2.0, 2.0, 2.0))
    for percent, normalization in ((2.0, "global"), (2.0, "local")):
        result = gamma_index(
            reference=flat, evaluated=flat.scaled(1 + percent / 100), normalization=normalization
        )
        np.testing.assert_allclose(result.values, percent / 3.0, atol=1e-6)


@pytest.mark.parametrize("shift_mm", [0.1, 0.7, 1.3])
def test_a_rigid_shift_reads_at_most_the_shift(shift_mm):
    x, y = np.arange(40) * 1.0, np.arange(30)[:, None] * 1.0
    dose = 10 + np.exp(-((x - 20) ** 2 + (y - 15) ** 2) / 50)
    reference = DoseMap.from_array(dose, spacing_mm=(1.0, 1.0))
    evaluated = DoseMap.from_array(dose, spacing_mm=(1.0, 1.0), origin_mm=(shift_mm, 0.0, 0.0))
    result = gamma_index(reference=reference, evaluated=evaluated)
    assert result.values.max() <= np.float32(shift_mm / 3.0) + 1e-6


def test_axes_a_nanometre_apart_give_the_same_gamma():
    rng = np.random.default_rng(3)
    dose, other = rng.random((2, 6, 7, 8)) + 1
    one = DoseMap.from_array(dose, spacing_mm=(2.5, 2.5, 2.5))
    two = DoseMap.from_array(other, spacing_mm=(2.5, 2.5, 2.5))
    moved = DoseMap.from_array(other, spacing_mm=(2.5, 2.5, 2.5), origin_mm=(1e-9, -1e-9, 1e-9))
    first, second = gamma_index(reference=one, evaluated=two), gamma_index(reference=one, evaluated=moved)
    np.testing.assert_allclose(first.values, second.values, atol=1e-6)


def test_a_slice_holds_its_dose_over_its_thickness():
    dose = np.random.default_rng(0).random((5, 6)) + 1
    one = DoseMap.from_array(dose, spacing_mm=(2.0, 2.0, 1.0))
    inside = DoseMap.from_array(dose, spacing_mm=(2.0, 2.0, 1.0), origin_mm=(0.0, 0.0, 0.4))
    beyond = DoseMap.from_array(dose, spacing_mm=(2.0, 2.0, 1.0), origin_mm=(0.0, 0.0, 2.0))
    for interpolant in ("simplex", "grid"):
        near = gamma_index(reference=one, evaluated=inside, interpolant=interpolant)
        far = gamma_index(reference=one, evaluated=beyond, interpolant=interpolant)
        np.testing.assert_allclose(near.values, 0.0, atol=1e-7)
        np.testing.assert_allclose(far.values, 1.5 / 3.0, atol=1e-6)
    assert near.n_search_outside == 0


def test_points_without_evaluated_dose_in_reach_fail_and_stay_in_the_rate():
    reference = line(np.full(40, 10.0))
    evaluated = line(np.full(20, 10.0))
    with pytest.warns(AccuracyWarning, match="14 of 40 evaluated points have no evaluated dose within 6 mm"):
        result = gamma_index(reference=reference, evaluated=evaluated)
    # the box ends at 19.5 mm: centres up to 22 mm pass within 3 mm, those from 26 mm on are out of reach
    assert result.n_evaluated == 40
    assert result.n_unreachable == 14
    assert result.passing_rate_percent == pytest.approx(100 * 23 / 40)
    assert (result.values[26:] == 2.0).all()
    assert result.n_search_outside == 20


def test_what_is_out_of_reach_is_so_by_the_distance_in_space():
    """Beyond a corner of the evaluated box: 15 voxels 7 mm away along an axis, and one by 5 mm along both."""
    reference = DoseMap.from_array(np.full((1, 8, 8), 10.0), spacing_mm=(2.0, 2.0))
    evaluated = DoseMap.from_array(np.full((1, 4, 4), 10.0), spacing_mm=(2.0, 2.0))
    with pytest.warns(AccuracyWarning, match="evaluated points have no evaluated dose within 6 mm"):
        result = gamma_index(reference=reference, evaluated=evaluated)
    beyond = np.maximum(2.0 * np.arange(8) - 7.0, 0.0)  # the box ends at 7 mm
    away = np.hypot(beyond[:, None], beyond)
    assert result.n_unreachable == np.sum(away > 6.0) == 16
    np.testing.assert_allclose(result.gamma[0], np.minimum(away / 3.0, 2.0), atol=1e-6)


def test_maps_apart_fail_everywhere():
    with pytest.warns(AccuracyWarning, match="10 of 10"):
        result = gamma_index(reference=line(np.ones(10)), evaluated=line(np.ones(10), start_mm=500.0))
    assert result.passing_rate_percent == 0.0
    assert np.isnan(result.displacement_mm).all()


def test_threshold_refers_to_the_normalisation_dose():
    reference = line(np.arange(1.0, 11.0))
    assert gamma_index(reference=reference, evaluated=reference, dose_threshold_percent=30).n_evaluated == 8
    half = gamma_index(
        reference=reference, evaluated=reference, dose_threshold_percent=30, normalization_dose_gy=20.0
    )
    assert half.n_evaluated == 5
    assert half.settings["dose_threshold_gy"] == pytest.approx(6.0)


def test_criteria_of_one_ratio_share_a_search_and_its_values():
    rng = np.random.default_rng(5)
    z, y, x = np.indices((10, 12, 14))
    dose = 50 * np.exp(-((x - 7) ** 2 + (y - 6) ** 2 + (z - 5) ** 2) / 60)
    reference = DoseMap.from_array(dose, spacing_mm=(2.0, 2.0, 3.0))
    evaluated = DoseMap.from_array(dose * (1 + 0.05 * rng.random(dose.shape)), spacing_mm=(2.0, 2.0, 3.0))
    together = gamma_indices(
        reference=reference, evaluated=evaluated, criteria=((3, 3), (1, 1), (2, 1), (1.5, 1.5))
    )
    assert len(together) == 8
    for (dose_percent, distance_mm, normalization), result in together.items():
        alone = gamma_index(
            reference=reference,
            evaluated=evaluated,
            dose_criterion_percent=dose_percent,
            distance_criterion_mm=distance_mm,
            normalization=normalization,
        )
        np.testing.assert_allclose(result.values, alone.values, atol=1e-6)
        np.testing.assert_allclose(result.dose_part, alone.dose_part, atol=1e-5)
        assert result.key == alone.key
    assert together[(1.5, 1.5, "local")].key == "1p5_1p5_local"


def test_one_sided_gamma_is_blind_to_a_hot_spot_below_the_threshold_and_says_so():
    dose = np.zeros((12, 12))
    dose[:4] = 60.0
    hot = dose.copy()
    hot[9, 6] = 40.0
    reference = DoseMap.from_array(dose, spacing_mm=(3.0, 3.0))
    evaluated = DoseMap.from_array(hot, spacing_mm=(3.0, 3.0))
    one = gamma_index(reference=reference, evaluated=evaluated)
    assert one.passing_rate_percent == 100.0
    assert (one.dose_outside.n_voxels, one.dose_outside.max_gy) == (1, 40.0)
    assert one.dose_outside.integral_percent == pytest.approx(100 * 40 / (48 * 60 + 40))
    two = gamma_two_sided(reference=reference, evaluated=evaluated)
    assert two.n_evaluated == 49
    assert two.passing_rate_percent == pytest.approx(100 * 48 / 49)
    assert two.gamma[0, 9, 6] == 2.0
    assert two.summary()["forward_passing_rate_percent"] == 100.0
    assert two.mean == pytest.approx(2.0 / 49)


def test_both_directions_refer_to_the_maximum_of_the_reference():
    """3 Gy of 100 Gy: it just passes; of the evaluated map's own 200 Gy it would be half the criterion.

    The cold half of the evaluated map, 15 Gy, is above 10 % of 100 Gy, but not above 10 % of 200 Gy.
    """
    reference = line([100.0] * 8 + [0.0] * 40 + [2.0] * 8)
    evaluated = line([103.5] * 8 + [0.0] * 20 + [200.0] + [0.0] * 19 + [15.0] * 8)
    two = gamma_two_sided(reference=reference, evaluated=evaluated)
    assert two.backward.settings["normalization_dose_gy"] == 100.0
    assert (two.forward.n_evaluated, two.backward.n_evaluated) == (8, 17)
    np.testing.assert_allclose(two.gamma[0, 0, :5], 3.5 / 3.0, atol=1e-6)


def test_dose_outside_counts_evaluated_dose_beyond_the_reference_box():
    reference = line(np.full(10, 10.0))
    evaluated = line(np.full(15, 10.0))
    result = gamma_index(reference=reference, evaluated=evaluated)
    assert result.dose_outside.n_voxels == 5
    masked = gamma_index(reference=reference, evaluated=evaluated, mask=np.ones((1, 1, 10), dtype=bool))
    assert masked.dose_outside.n_voxels == 0


def test_two_sided_gamma_works_where_the_evaluated_map_has_nothing_above_the_threshold():
    two = gamma_two_sided(reference=line([10.0] * 5), evaluated=line([0.5] * 5))
    assert two.passing_rate_percent == 0.0
    assert np.isnan(two.backward.passing_rate_percent)


def test_gamma_is_not_symmetric_where_gradients_differ():
    rng = np.random.default_rng(1)
    smooth, rough = line(np.full(60, 10.0)), line(10 + rng.normal(0, 0.5, 60))
    forward = gamma_index(reference=smooth, evaluated=rough)
    backward = gamma_index(reference=rough, evaluated=smooth)
    assert forward.passing_rate_percent > backward.passing_rate_percent


@pytest.mark.parametrize("interpolant", ["simplex", "grid"])
def test_any_number_of_threads_gives_the_same_bits(interpolant):
    rng = np.random.default_rng(2)
    reference = DoseMap.from_array(rng.random((20, 21, 22)) + 0.5, spacing_mm=(1.0, 1.5, 2.0))
    evaluated = DoseMap.from_array(rng.random((20, 21, 22)) + 0.5, spacing_mm=(1.0, 1.5, 2.0))
    threads = numba.get_num_threads()
    results = []
    try:
        for n in {1, numba.config.NUMBA_NUM_THREADS}:
            numba.set_num_threads(n)
            results.append(gamma_index(reference=reference, evaluated=evaluated, interpolant=interpolant))
    finally:
        numba.set_num_threads(threads)
    for result in results[1:]:
        assert result.values.tobytes() == results[0].values.tobytes()
        assert result.closest.tobytes() == results[0].closest.tobytes()


def test_mask_fractions_count_from_one_half():
    dose = line(np.full(4, 2.0))
    result = gamma_index(reference=dose, evaluated=dose, mask=np.array([[[0.4, 0.5, 1.0, 0.0]]]))
    assert result.index.tolist() == [1, 2]


def test_result_names_its_interpolant_and_settings():
    dose = line(np.full(4, 2.0))
    summary = gamma_index(reference=dose, evaluated=dose, interpolant="grid").summary()
    assert summary["interpolant"] == "grid"
    assert summary["normalization_dose_gy"] == 2.0
    assert "ju2008" in gamma_index(reference=dose, evaluated=dose).citations()
    assert "ju2008" not in gamma_index(reference=dose, evaluated=dose, interpolant="grid").citations()


def test_progress_ends_at_one():
    dose, seen = line(np.full(4, 2.0)), []
    gamma_index(reference=dose, evaluated=dose, progress=lambda what, fraction: seen.append((what, fraction)))
    assert seen[-1] == ("gamma", 1.0)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"dose_criterion_percent": 0.0}, "`dose_criterion_percent` must be positive"),
        ({"distance_criterion_mm": np.nan}, "`distance_criterion_mm` must be positive"),
        ({"normalization": "van Dyk"}, "`normalization` must be 'global' or 'local'"),
        ({"max_gamma": 1.0}, "`max_gamma` must be finite and above 1"),
        ({"interpolant": "cubic"}, "`interpolant` must be 'simplex' or 'grid'"),
        ({"normalization_dose_gy": -1.0}, "must be positive"),
        ({"dose_threshold_percent": -1.0}, "must not be negative"),
        ({"dose_threshold_percent": 101.0}, "no reference voxel reaches"),
        ({"normalization": "local", "dose_threshold_percent": 0.0}, "must be positive with local"),
        ({"max_gamma": 1e9, "distance_criterion_mm": 10.0}, "reaches over"),
    ],
)
def test_bad_settings_are_refused(setting, message):
    dose = DoseMap.from_array(np.ones((6, 1500, 1500), dtype=np.float32), spacing_mm=(1.0, 1.0, 1.0))
    with pytest.raises(InputError, match=message):
        gamma_index(reference=dose, evaluated=dose, **setting)


def test_a_mask_off_the_reference_grid_is_refused():
    dose = line(np.ones(4))
    with pytest.raises(GridMismatchError, match="`mask` has shape"):
        gamma_index(reference=dose, evaluated=dose, mask=np.ones((1, 1, 5), dtype=bool))


def test_a_relative_dose_is_refused():
    relative = DoseMap.from_array(np.ones(4), spacing_mm=(1.0,), unit="relative")
    with pytest.raises(UnitError, match="relative"):
        gamma_index(reference=relative, evaluated=relative)


def test_an_empty_reference_is_refused():
    dose = line(np.zeros(4))
    with pytest.raises(InputError, match="0 everywhere"):
        gamma_index(reference=dose, evaluated=dose)
