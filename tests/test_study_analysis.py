"""The analysis of a study, against tables whose answers are known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from dosemover.errors import DataFormatError, InputError
from dosemover.study import analysis_detection as detection
from dosemover.study import analysis_response as response
from dosemover.study.analysis_table import StudyTable, excess, scores, trait
from study_tables import METRICS, costs, histories, made_up


@pytest.fixture(scope="module")
def table() -> StudyTable:
    return StudyTable(made_up())


def test_cells_hold_every_replicate_of_their_condition(table):
    assert table.cases == ["lung", "water"]
    assert table.changes == ["hot_spot", "output", "shift"]
    assert table.noise_levels == [1.0, 2.0, 5.0, 10.0, 20.0]
    assert table.replicates == 20
    assert all(cell.values.size == 20 for cell in table.cells)
    assert table.measurements == len(table.cells) * 20
    (cell,) = table.select(
        case="water", change="shift", magnitude=0.2, noise_percent=5.0, noise_in="both", metric="dmd_mm"
    )
    assert cell.histories == histories(5.0)
    assert cell.mean == pytest.approx(0.2 + 0.05 * 5, abs=4 * 0.02 * 5 / np.sqrt(20))
    assert table.null_of(cell).change == "none"
    assert table.noiseless(cell).noise_percent == 1.0


def test_order_of_rows_does_not_matter():
    columns = made_up(replicates=3, levels=(5.0,))
    shuffled = np.random.default_rng(1).permutation(len(columns["value"]))
    mixed = {name: [values[i] for i in shuffled] for name, values in columns.items()}
    for a, b in zip(StudyTable(columns).cells, StudyTable(mixed).cells, strict=True):
        assert (a.case, a.change, a.metric, a.noise_in) == (b.case, b.change, b.metric, b.noise_in)
        np.testing.assert_array_equal(a.values, b.values)


def test_arrow_tables_read_like_columns():
    pytest.importorskip("pyarrow")
    from dosemover.study.table import MEASUREMENT_COLUMNS, table_of

    columns = made_up(replicates=2, levels=(5.0,))
    columns["value"][3] = None
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    arrow = StudyTable(table_of(rows, MEASUREMENT_COLUMNS))
    columns["value"][3] = np.nan
    plain = StudyTable(columns)
    assert sum(c.missing for c in arrow.cells) == 1
    for a, b in zip(arrow.cells, plain.cells, strict=True):
        assert (a.case, a.magnitude, a.metric, a.missing) == (b.case, b.magnitude, b.metric, b.missing)
        np.testing.assert_allclose(a.values, b.values, rtol=1e-6)


def test_a_table_without_a_column_is_refused():
    columns = made_up(replicates=2, levels=(5.0,))
    del columns["noise_in"]
    with pytest.raises(DataFormatError, match="no column 'noise_in'"):
        StudyTable(columns)


def test_an_empty_table_is_refused():
    with pytest.raises(DataFormatError, match="is empty"):
        StudyTable({name: [] for name in made_up(replicates=1, levels=(5.0,))})


def test_traits_come_from_the_registry():
    assert trait("gamma_1p5_1_local_passing_rate_percent").ideal == 100.0
    assert trait("gamma_1p5_1_local_passing_rate_percent").direction == "smaller"
    assert trait("gamma_3_3_global_mean").direction == "larger"
    assert trait("mass_ratio").direction == "both"
    assert trait("mass_ratio").ideal == 1.0
    assert trait("ssim").ideal == 1.0
    assert trait("dmd_mm").unit == "mm"
    assert trait("of a later version").direction == "larger"


def test_excess_grows_with_the_difference():
    np.testing.assert_allclose(excess("ssim", np.array([0.9, 1.0])), [0.1, 0.0])
    np.testing.assert_allclose(excess("mass_ratio", np.array([0.98, 1.02])), [0.02, 0.02])
    np.testing.assert_allclose(excess("psnr_db", np.array([20.0, 40.0])), [0.1, 0.01])


def test_scores_of_two_sided_metrics_are_exchangeable_under_the_null():
    """A null value is no nearer to the centre than a new one would be, on average."""
    values = np.random.default_rng(0).normal(1.0, 0.1, size=(4000, 11))
    null, changed = scores("mass_ratio", values[:, :10], values[:, 10:])
    # null: |x - mean of the 9 others|, variance 1 + 1/9; changed: |x - mean of 10|, variance 1 + 1/10
    assert null.mean() == pytest.approx(0.1 * np.sqrt(2 / np.pi * (1 + 1 / 9)), rel=0.02)
    assert changed.mean() == pytest.approx(0.1 * np.sqrt(2 / np.pi * (1 + 1 / 10)), rel=0.03)


@pytest.mark.parametrize("distance", [0.0, 0.5, 1.0, 2.5])
def test_auc_of_two_normals_is_phi_of_d_over_root_two(distance):
    rng = np.random.default_rng(3)
    found = detection.area_under_curve(rng.normal(size=1500), rng.normal(distance, 1.0, size=1500))
    assert found.value == pytest.approx(stats.norm.cdf(distance / np.sqrt(2)), abs=0.02)
    assert found.low < stats.norm.cdf(distance / np.sqrt(2)) < found.high


def test_auc_is_the_mann_whitney_statistic():
    rng = np.random.default_rng(4)
    null, changed = rng.integers(0, 9, size=17), rng.integers(2, 12, size=23)
    expected = stats.mannwhitneyu(changed, null).statistic / (17 * 23)
    assert detection.area_under_curve(null, changed).value == pytest.approx(expected)


@pytest.mark.parametrize("distance", [0.5, 1.5, 2.5, 4.0])
def test_auc_interval_covers_the_truth(distance):
    rng = np.random.default_rng(5)
    truth = stats.norm.cdf(distance / np.sqrt(2))
    hits = 0
    for _ in range(400):
        found = detection.area_under_curve(rng.normal(size=20), rng.normal(distance, 1.0, size=20))
        hits += found.low <= truth <= found.high
    assert hits / 400 >= 0.90


def test_separated_samples_leave_room_below_one():
    found = detection.area_under_curve(np.arange(20), np.arange(20) + 100)
    assert found.value == 1.0
    assert found.low == pytest.approx(0.025 ** (1 / 20))
    assert detection.area_under_curve(np.arange(20) + 100, np.arange(20)).high == pytest.approx(
        1 - 0.025 ** (1 / 20)
    )


def test_equal_values_give_no_information():
    found = detection.area_under_curve(np.ones(20), np.ones(20))
    assert found.value == 0.5
    assert found.low < 0.5 < found.high


def test_a_small_rise_over_a_large_floor_does_not_survive_misjudged_noise():
    rng = np.random.default_rng(8)
    null, changed = rng.normal(1.0, 0.01, 400), rng.normal(1.05, 0.01, 400)
    assert detection.area_under_curve(null, changed).value > 0.99
    # null values grow to 1.1 +- 0.011: P(1.05 + 0.01 x > 1.1 + 0.011 y) = Phi(-0.05 / sqrt(0.01^2 + 0.011^2))
    expected = stats.norm.cdf(-0.05 / np.hypot(0.01, 0.011))
    assert detection.misjudged_auc("rmse_gy", null, changed) == pytest.approx(expected, abs=5e-4)
    assert detection.misjudged_auc("rmse_gy", null, 3 * changed) == 1.0
    assert detection.misjudged_auc("ssim", 1 - 0.1 * null, 1 - 0.3 * changed) == 1.0


def test_auc_needs_two_scores_on_a_side():
    with pytest.raises(InputError, match="at least two scores"):
        detection.area_under_curve([1.0], [2.0, 3.0])


@given(st.integers(0, 60), st.integers(1, 60))
def test_wilson_interval_is_that_of_scipy(successes, n):
    successes = min(successes, n)
    expected = stats.binomtest(successes, n).proportion_ci(method="wilson")
    found = detection.wilson(successes, n)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-9)


@pytest.mark.parametrize("m", [19, 20, 39, 100])
def test_threshold_holds_its_false_alarms(m):
    rng = np.random.default_rng(6)
    null, new = rng.exponential(size=(4000, m)), rng.exponential(size=4000)
    assert (new > detection.threshold(null)).mean() <= 0.05 + 0.01


def test_power_of_two_normals_is_as_the_normal_law_says():
    rng = np.random.default_rng(7)
    found = detection.power(rng.normal(size=4999), rng.normal(2.0, 1.0, size=5000))
    assert found.value == pytest.approx(stats.norm.sf(stats.norm.ppf(0.95) - 2.0), abs=0.03)


def test_pairs_that_only_tie_with_noise_alone_are_not_found():
    """Passing rates of 100 % with and without a change: no test may call them different."""
    assert detection.power(np.full(20, -100.0), np.full(20, -100.0)).value == 0.0
    assert detection.power(np.arange(19.0), np.array([18.0, 18.5, 19.0, 0.0])).value == 0.5  # above 18


def test_passing_rates_fall_where_maps_differ(table):
    """Signal -3 % at 1 %, sd 0.3 %: found; the direction is that of the metric."""
    (found,) = detection.detections(
        table,
        case="water",
        change="shift",
        magnitude=3.0,
        noise_percent=1.0,
        noise_in="both",
        metric="gamma_3_3_global_passing_rate_percent",
    )
    assert found.auc.value > 0.98
    (found,) = detection.detections(
        table,
        case="water",
        change="output",
        magnitude=3.0,
        noise_percent=2.0,
        noise_in="both",
        metric="mass_ratio",
    )
    assert found.power.value > 0.95


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=8))
def test_non_decreasing_is_the_isotonic_fit(values):
    from scipy.optimize import isotonic_regression

    expected = isotonic_regression(np.array(values)).x
    np.testing.assert_allclose(detection.non_decreasing(np.array(values)), expected, atol=1e-9)


def test_crossing_interpolates_and_says_where_it_cannot():
    x = np.array([1.0, 2.0, 4.0])
    y = np.array([[0.1, 0.5, 0.9], [0.9, 0.9, 1.0], [0.1, 0.2, 0.3], [0.0, 0.8, 0.8]])
    np.testing.assert_allclose(detection.crossing(x, y, 0.8), [3.5, -np.inf, np.inf, 2.0])


def test_smallest_detectable_shift_is_as_the_binormal_law_says():
    """Power 0.8 at 5 %: delta = (1.645 + 0.842) sd; AUC 0.95: delta = 1.645 sqrt(2) sd."""
    sizes = tuple(np.round(np.arange(0.1, 1.0, 0.1), 1))
    columns = made_up(
        replicates=400,
        levels=(5.0,),
        metrics={"dmd_mm": METRICS["dmd_mm"]},
        changes={"shift": ("mm", sizes)},
    )
    table = StudyTable(columns)
    cells = table.select(case="water", change="shift", noise_in="both", metric="dmd_mm")
    by_power = detection.smallest_detectable(table, cells)
    sd = 0.02 * 5
    assert by_power.value == pytest.approx((1.6449 + 0.8416) * sd, abs=0.025)
    assert by_power.low < (1.6449 + 0.8416) * sd < by_power.high
    by_auc = detection.smallest_detectable(table, cells, by="auc")
    assert by_auc.value == pytest.approx(1.6449 * np.sqrt(2) * sd, abs=0.025)
    assert "mm" in by_auc.text


def one_metric(values, histories_of=None):
    """Cells of one metric: the values of every replicate by (change, magnitude, noise level)."""
    rows = []
    for (change, size, level), column in values.items():
        for replicate, value in enumerate(column):
            where = (level, level, (histories_of or histories)(level), "both", replicate, "dmd_mm", value)
            rows.append(("water", "builtin", change, size, "mm" if size else "", *where))
    names = ("case", "engine", "change", "magnitude", "magnitude_unit", "noise_percent")
    names += ("achieved_noise_percent", "histories", "noise_in", "replicate", "metric", "value")
    table = StudyTable(dict(zip(names, map(list, zip(*rows, strict=True)), strict=True)))
    return table, table.select(change="shift")


def test_the_smallest_change_is_found_by_interpolation_and_not_by_ties():
    """Null 0 to 18, threshold 18. Of 20 values 0, 10, 18 lie above it at 1, 2, 3 mm: 80 % at 2.75 mm."""
    above = {size: np.where(np.arange(20) < n, 20.0, 18.0) for size, n in ((1.0, 0), (2.0, 10), (3.0, 18))}
    table, cells = one_metric(
        {("none", 0.0, 5.0): np.arange(19.0)} | {("shift", s, 5.0): v for s, v in above.items()}
    )
    assert detection.smallest_detectable(table, cells).value == pytest.approx(2.75)


def test_the_scatter_of_noise_alone_is_in_the_interval_of_the_smallest_change():
    """Changed values without any scatter: what is uncertain is the threshold, the largest of 19 null values.

    A sample of 19 with replacement leaves the three largest out with (16/19)^19 = 3.8 %, four with 1.1 %.
    """
    null = np.append(np.linspace(0.0, 0.5, 15), [1.6, 2.6, 3.6, 4.6])
    changed = {("shift", float(size), 5.0): np.full(20, float(size)) for size in (1, 2, 3, 4, 5)}
    table, cells = one_metric({("none", 0.0, 5.0): null} | changed)
    found = detection.smallest_detectable(table, cells)
    assert found.value == pytest.approx(4.8)  # 80 % of the way from 4 mm, none, to 5 mm, all
    assert (found.low, found.high) == pytest.approx((1.8, 4.8))


def test_histories_are_interpolated_in_their_logarithm():
    """Power 0.6 at 1e4 and 1.0 at 1e6 histories: 0.8 half-way in the logarithm, at 1e5."""
    null = np.arange(19.0)
    weak, strong = np.where(np.arange(20) < 12, 20.0, 0.0), np.full(20, 20.0)
    values = {("none", 0.0, level): null for level in (10.0, 1.0)}
    values |= {("shift", 1.0, 10.0): weak, ("shift", 1.0, 1.0): strong}
    table, cells = one_metric(values, histories_of=lambda level: {10.0: 1e4, 1.0: 1e6}[level])
    found = detection.histories_needed(table, cells)
    assert found.value == pytest.approx(1e5)
    assert found.studied == pytest.approx((1e4, 1e6))


def test_what_lies_outside_the_range_is_said(table):
    common = {"case": "water", "noise_in": "both"}
    seen = detection.smallest_detectable(
        table, table.select(change="shift", noise_percent=1.0, metric="dmd_mm", **common)
    )
    assert seen.text == "≤ 0.2 mm"
    lost = detection.smallest_detectable(
        table, table.select(change="output", noise_percent=20.0, metric="max_difference_gy", **common)
    )
    assert lost.text == "> 3 %"
    assert detection.smallest_detectable(table, []) is None


def test_histories_needed_are_as_the_binormal_law_says():
    """sd = 0.02 noise, noise = 1e4 / sqrt(N): a shift of 0.2 mm needs sd = 0.2 / 2.486."""
    levels = tuple(np.round(np.geomspace(1.0, 20.0, 12), 3))
    columns = made_up(
        replicates=300,
        levels=levels,
        metrics={"dmd_mm": METRICS["dmd_mm"]},
        changes={"shift": ("mm", (0.2,))},
    )
    columns["value"] = [
        v - 0.05 * level for v, level in zip(columns["value"], columns["noise_percent"], strict=True)
    ]
    table = StudyTable(columns)
    cells = table.select(case="water", change="shift", noise_in="both", metric="dmd_mm")
    found = detection.histories_needed(table, cells)
    expected = histories(0.2 / (1.6449 + 0.8416) / 0.02)
    assert found.value == pytest.approx(expected, rel=0.3)
    assert found.low < expected < found.high


def test_floor_of_a_power_law_has_its_slope(table):
    """Floor = 0.05 noise: histories^-1/2."""
    cells = table.select(case="water", change="none", noise_in="both", metric="dmd_mm")
    law = response.floor_law(cells)
    assert law.slope == pytest.approx(-0.5, abs=0.05)
    assert law.low < -0.5 < law.high
    assert law.at(histories(5.0)) == pytest.approx(0.25, rel=0.05)
    assert response.floor_law(cells[:2]) is None


def test_a_poorly_known_floor_does_not_bend_the_law():
    """Floors of 10 and 5 known to 0.1 %, and one of 3 instead of 1 from a single value: histories^-1/2."""
    sharp = 1 + 0.004 * np.tile([-1.0, 1.0], 8)
    table, _ = one_metric(
        {("none", 0.0, 10.0): 10 * sharp, ("none", 0.0, 5.0): 5 * sharp}
        | {("none", 0.0, 1.0): np.append(48.0, np.zeros(15))}
    )
    law = response.floor_law(table.select(change="none"))
    assert law.slope == pytest.approx(-0.5, abs=0.02)


def test_interval_of_the_slope_covers_the_truth():
    hits = 0
    for seed in range(60):
        columns = made_up(metrics={"dmd_mm": METRICS["dmd_mm"]}, changes={}, seed=seed, replicates=10)
        table = StudyTable(columns)
        law = response.floor_law(table.select(case="water", change="none", noise_in="both", metric="dmd_mm"))
        hits += law.low <= -0.5 <= law.high
    assert hits >= 54


def test_response_rises_with_the_change_from_the_floor(table):
    points = response.response_curve(table, case="water", change="shift", metric="dmd_mm", noise_percent=2.0)
    assert [p.magnitude for p in points] == [0.0, 0.2, 1.0, 3.0]
    assert [p.mean for p in points] == pytest.approx([0.1, 0.3, 1.1, 3.1], abs=0.05)
    assert [p.bias for p in points] == pytest.approx([0.05] * 4, abs=0.05)
    assert points[0].standard_error == pytest.approx(points[0].sd / np.sqrt(20))


def test_seconds_are_medians_over_cases():
    assert response.median_seconds(costs())["dmd_mm"] == 1.0
    assert response.median_seconds(costs())["moment_dmd_mm"] == 0.01
