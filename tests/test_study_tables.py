"""Tables of a study's report: what they say of made-up values whose answers are known."""

import re
from pathlib import Path

import numpy as np
import pytest

from dosemover.study.analysis_detection import Smallest, area_under_curve
from dosemover.study.analysis_kinds import (
    Draws,
    drawn_measure,
    duel,
    interval,
    keys_of,
    kind_of,
    mean_measure,
)
from dosemover.study.analysis_labels import ABOUT
from dosemover.study.analysis_summary import StudyAnalysis
from dosemover.study.analysis_table import StudyTable
from dosemover.study.design import read_study
from dosemover.study.page_context import text_tables
from dosemover.study.text_tables import asked
from dosemover.study.text_tables_detection import (
    duel_table,
    histories_text,
    kind_table,
    power_table,
    structures_table,
)
from dosemover.study.text_tables_noise import bias_table, shares_sentences, side_shares
from study_tables import METRICS, WITH_STRUCTURES, made_up


@pytest.fixture(scope="module")
def analysis() -> StudyAnalysis:
    return StudyAnalysis(StudyTable(made_up(replicates=12, metrics=WITH_STRUCTURES)))


def test_every_row_has_the_cells_of_the_head(analysis):
    found = text_tables(analysis)
    assert all(found.values()), "every kind of table is there"
    for tables in found.values():
        for table in tables:
            assert table.rows, table.title
            assert {len(row) for row in table.rows} == {len(table.head)}, table.title
            assert not any(re.search(r"nan|inf|None", cell) for row in table.rows for cell in row)


def test_a_study_without_these_changes_has_no_tables():
    columns = made_up(replicates=2, levels=(5.0,), metrics={"mass_ratio": METRICS["mass_ratio"]}, changes={})
    bare = StudyAnalysis(StudyTable(columns))
    assert kind_table(bare, "auc") is None
    assert duel_table(bare, "mass_ratio") is None
    assert structures_table(bare) is None
    assert power_table([]) is None
    assert bias_table(bare, "none", 0.0, "") is None
    assert (
        shares_sentences(StudyAnalysis(StudyTable(made_up(replicates=2, metrics={"emd_mm": (0, 1, 1, 1)}))))
        == []
    )


def test_structures_are_compared_where_everything_was_measured():
    columns = made_up(replicates=4, metrics=WITH_STRUCTURES)
    kept = [
        n
        for n, (case, metric) in enumerate(zip(columns["case"], columns["metric"], strict=True))
        if (case, metric) != ("lung", "dvh_w1_gy")
    ]
    without = {name: [values[n] for n in kept] for name, values in columns.items()}
    table = structures_table(StudyAnalysis(StudyTable(without)))
    assert table.caption.startswith("water;")
    both = structures_table(StudyAnalysis(StudyTable(columns)))
    assert both.caption.startswith("lung, water;")
    assert [row[0] for row in table.rows[:1]] == ["DVH: area between"]
    assert "–" not in {cell for row in table.rows for cell in row}
    assert [int(head.split("(")[1][:-1]) * 2 for head in table.head[1:]] == [
        int(head.split("(")[1][:-1]) for head in both.head[1:]
    ]


def test_changes_have_their_kind():
    assert kind_of("halves_apart") == "movement of a part"
    assert kind_of("scale") == "output"
    assert kind_of("unheard_of") == ""


def test_the_first_draw_is_the_measured_value(analysis):
    for key in keys_of(analysis, "shift", 5.0):
        for metric in ("dmd_mm", "mass_ratio", "gamma_2_2_global_passing_rate_percent"):
            one = analysis.by_condition[key][metric]
            assert drawn_measure(analysis, metric, key, "auc", Draws(5))[0] == pytest.approx(one.auc.value)
            assert drawn_measure(analysis, metric, key, "power", Draws(5))[0] == pytest.approx(
                one.power.value
            )
            assert drawn_measure(analysis, metric, key, "misjudged", Draws(5))[0] == pytest.approx(
                one.misjudged
            )


def test_replicates_are_drawn_together_over_changes_and_metrics(analysis):
    draws = Draws(7)
    keys = keys_of(analysis, "shift", 5.0)[:2]
    cells = [analysis.by_condition[key][metric].cell for key in keys for metric in ("dmd_mm", "rmse_gy")]
    rows = [draws.of(cell) for cell in cells]
    order = [
        np.argsort(cell.values)[np.searchsorted(np.sort(cell.values), row)]
        for cell, row in zip(cells, rows, strict=True)
    ]
    assert all(np.array_equal(order[0], other) for other in order[1:])


def test_means_are_those_of_the_conditions_and_lie_in_their_interval(analysis):
    keys = keys_of(analysis, "output", 10.0)
    one = mean_measure(analysis, "mass_ratio", keys, "auc")
    assert one is not None
    assert one.value == pytest.approx(
        np.mean([analysis.by_condition[k]["mass_ratio"].auc.value for k in keys])
    )
    assert one.low <= one.value <= one.high
    assert one.high - one.low > 0.01
    assert mean_measure(analysis, "not_measured", keys, "auc") is None
    assert mean_measure(analysis, "mass_ratio", [], "auc") is None


def test_the_interval_of_a_mean_covers_the_truth_about_as_often_as_it_says():
    truth = 0.7602  # P(N(1, 1) > N(0, 1)) = Phi(1 / sqrt 2)
    inside = 0
    metrics = {"dmd_mm": (0.0, 1.0, 0.2, 0.0)}
    for seed in range(60):
        columns = made_up(levels=(5.0,), metrics=metrics, changes={"shift": ("mm", (1.0,))}, seed=seed)
        study = StudyAnalysis(StudyTable(columns))
        keys = [key for key in keys_of(study, "shift", 5.0) if key[0] == "water"]
        found = mean_measure(study, "dmd_mm", keys, "auc")
        assert found is not None
        inside += found.low <= truth <= found.high
    assert inside >= 0.85 * 60


def test_sure_shares_have_the_limit_of_their_replicates():
    found = interval(np.ones(11), 20)
    assert (found.value, found.high) == (1.0, 1.0)
    assert found.low == pytest.approx(0.025 ** (1 / 20))
    assert found.low == pytest.approx(area_under_curve(np.zeros(20), np.ones(20)).low)


def test_a_metric_that_sees_wins_against_one_that_is_blind():
    metrics = {"dmd_mm": (0.0, 1.0, 0.02, 0.05), "w2_mm": (0.0, 0.0, 0.02, 0.05)}
    study = StudyAnalysis(StudyTable(made_up(metrics=metrics)))
    keys = keys_of(study, "shift")
    found = duel(study, "dmd_mm", "w2_mm", keys)
    back = duel(study, "w2_mm", "dmd_mm", keys)
    assert found is not None
    assert back is not None
    assert (found.better, found.worse, found.of) == (back.worse, back.better, back.of)
    assert found.better > 0.7 * found.of
    assert found.worse == 0
    assert found.gain == pytest.approx(-back.gain)
    assert found.gain > 0.3
    assert duel(study, "dmd_mm", "rmse_gy", keys) is None


def test_bias_is_the_floor_that_noise_adds(analysis):
    table = bias_table(analysis, "shift", 1.0, "mm")
    assert table is not None
    (row,) = [row for row in table.rows if row[0] == "DMD / mm"]
    assert table.head[1:] == ("reading at 1 %", *(f"bias at {level} %" for level in (2, 5, 10, 20)))
    factor = 1.3 if "lung" in table.title else 1.0
    for text, level in zip(row[2:], (2, 5, 10, 20), strict=True):
        bias, error = (float(part.replace("−", "-")) for part in text.split(" ± "))
        assert bias == pytest.approx(factor * 0.05 * (level - 1), abs=4 * error + 0.01)


def test_noise_in_one_map_is_told_as_a_share_of_noise_in_both(analysis):
    found = side_shares(analysis, ["dmd_mm", "rmse_gy"])
    for pair in found.values():
        assert pair == (pytest.approx(1.0, abs=0.15), pytest.approx(1.0, abs=0.15))
    assert re.search(r"RMSE: (1\.00?|0\.9\d) in the reference", " ".join(shares_sentences(analysis)))


def test_histories_say_what_lies_outside_of_the_study():
    def one(value: float, low: float, high: float) -> str:
        return histories_text(Smallest(value=value, low=low, high=high, studied=(2e3, 8e5), unit="histories"))

    infinity = float("inf")
    assert one(-infinity, -infinity, 3e3) == "≤ 2.0 k"
    assert one(infinity, 7e5, infinity) == "> 800 k"
    assert one(3e4, -infinity, infinity) == "30 k (≤ 2.0 k–> 800 k)"
    assert one(3e4, 2e4, 5e4) == "30 k (20 k–50 k)"
    assert histories_text(None) == ""


def test_tables_ask_for_the_changes_nearest_to_their_sizes(analysis):
    assert asked(analysis) == [("shift", 1.0, "mm"), ("output", 1.0, "%"), ("hot_spot", 20.0, "%")]


def test_every_change_of_the_own_study_is_explained_and_has_a_kind():
    study = read_study(Path(__file__).resolve().parents[1] / "studies" / "noise.toml")
    names = {change.name for case in study.cases for change in case.changes} - {"none"}
    assert names == set(ABOUT)
    assert {name for name in names if not kind_of(name)} == {"missing_leaf"}
