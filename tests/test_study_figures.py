"""Figures and verdicts of a study, on tables whose answers are known."""

import copy
import re
from importlib import resources

import numpy as np
import pytest

from dosemover.study import analysis_findings as findings
from dosemover.study import analysis_findings_small as small
from dosemover.study import analysis_gamma, analysis_losses
from dosemover.study.analysis_labels import group_of, label, matching, shown
from dosemover.study.analysis_response import median_seconds
from dosemover.study.analysis_summary import StudyAnalysis
from dosemover.study.analysis_table import StudyTable
from dosemover.study.analysis_verdicts import Finding, Part, part
from dosemover.study.figures_style import EVALUATED, INK, LINE, REFERENCE, SOFT, style
from dosemover.study.report import DRAWINGS
from study_tables import METRICS, costs, made_up, small_findings


@pytest.fixture(scope="module")
def analysis() -> StudyAnalysis:
    return StudyAnalysis(
        StudyTable(made_up(replicates=12)), seconds=median_seconds(costs()), findings=small_findings()
    )


def with_metrics(**changed: tuple[float, float, float, float]) -> StudyAnalysis:
    """An analysis of a table in which metrics answer as given."""
    return StudyAnalysis(
        StudyTable(made_up(replicates=20, metrics=METRICS | changed)), seconds=median_seconds(costs())
    )


@pytest.mark.parametrize("name", DRAWINGS)
def test_every_figure_is_drawn(analysis, name):
    if name == "detection_fine":
        cases = {"lung": {"voxel_mm": [5, 5, 5]}, "water": {"voxel_mm": [2, 2, 3]}}
        analysis = StudyAnalysis(analysis.table, provenance={"settings": {"cases": cases}})
        assert (analysis.main_case, analysis.finest_case) == ("lung", "water")
    with style():
        figure = DRAWINGS[name].draw(analysis)
        figure.canvas.draw()
    assert figure is not None
    assert any(axes.has_data() for axes in figure.axes)


@pytest.mark.parametrize("name", DRAWINGS)
def test_figures_without_data_are_left_out(name):
    columns = made_up(replicates=1, levels=(5.0,), metrics={"dice_of_tomorrow": METRICS["dmd_mm"]})
    with style():
        assert DRAWINGS[name].draw(StudyAnalysis(StudyTable(columns))) is None


def test_colors_are_those_of_the_report_of_a_comparison():
    sheet = (resources.files("dosemover.report") / "assets" / "report.css").read_text(encoding="utf-8")
    colors = dict(
        reversed(re.findall(r"--([a-z-]+): (#[0-9a-f]{3,6});", sheet))
    )  # the first of a name counts
    names = ("reference", "evaluated", "ink", "soft", "line")
    assert [colors[name] for name in names] == [REFERENCE, EVALUATED, INK, SOFT, LINE]


def test_style_stays_within_its_block():
    from matplotlib import rcParams

    before = dict(rcParams)
    with style():
        assert rcParams["font.size"] == 8.0
    assert dict(rcParams) == before


def test_quantities_stand_on_the_axes(analysis):
    with style():
        figure = DRAWINGS["smallest"].draw(analysis)
    assert [axes.get_xlabel() for axes in figure.axes] == ["noise / %", "noise / %"]
    assert [axes.get_ylabel() for axes in figure.axes] == ["smallest found / mm", "smallest found / %"]


def test_labels_are_short_and_families_known():
    assert label("gamma_2_2_global_two_sided_passing_rate_percent") == "γ 2/2 two-sided passing"
    assert label("a_metric_to_come_mm") == "a metric to come mm"
    assert group_of("moment_w2_mm") == "moments"
    assert group_of("kr_moved_mm") == "transport"
    assert group_of("gamma_1_1_global_mean") == "space"
    assert shown(["ssim", "dmd_mm", "unknown"]) == ["ssim", "dmd_mm"]


def test_a_change_of_that_very_name_comes_before_names_that_contain_it():
    assert matching(["half_shift", "shift"], "shift") == ["shift"]
    assert matching(["half_shift", "output"], "shift") == ["half_shift"]


def test_white_noise_is_left_out_of_averages():
    columns = made_up(replicates=4, levels=(5.0,))
    columns["engine"] = ["builtin" if case == "water" else "analytic" for case in columns["case"]]
    analysis = StudyAnalysis(StudyTable(columns))
    assert analysis.cases == ["water"]
    assert analysis.main_case == "water"
    aucs = [by["ssim"].auc.value for (case, *_), by in analysis.by_condition.items() if case == "water"]
    assert analysis.mean_auc("ssim", 5.0) == pytest.approx(np.mean(aucs))


def test_averages_are_over_the_cases_in_which_every_metric_was_measured():
    columns = made_up(replicates=4, levels=(5.0,))
    kept = [(c, m) != ("lung", "w1_mm") for c, m in zip(columns["case"], columns["metric"], strict=True)]
    short = {name: [v for v, k in zip(values, kept, strict=True) if k] for name, values in columns.items()}
    analysis = StudyAnalysis(StudyTable(short))
    assert analysis.compared == ["water"]
    assert analysis.mean_auc("ssim", 5.0) == analysis.mean_auc("ssim", 5.0, case="water")
    assert StudyAnalysis(StudyTable(columns)).compared == ["lung", "water"]


def test_a_statement_is_shown_where_each_of_its_parts_is():
    assert [Part(claim="", held=h, of=10, share=0.8).verdict for h in (10, 8, 7, 1, 0)] == [
        "shown", "shown", "partly shown", "partly shown", "refuted"
    ]  # fmt: skip
    yes, some, no, none = (part("", found) for found in ([True], [True, False], [False], []))
    verdicts = [
        Finding(letter="x", claim="", parts=parts).verdict
        for parts in ((yes, yes, none), (yes, no), (some,), (no, none), (none,))
    ]
    assert verdicts == ["shown", "partly shown", "partly shown", "refuted", "not measured"]


def test_the_best_of_many_metrics_does_not_lead_by_chance():
    level = (0.0, 0.0, 0.05, 0.3)
    blind = dict.fromkeys((*analysis_losses.LOCAL, "dmd_mm"), level)  # they see nothing but noise
    found = analysis_losses.races(with_metrics(**blind), "hot_spot")
    assert [race.outcome for race in found] == ["no difference"] * len(found)
    assert all(race.best > 0.5 and race.lead.value < race.best - race.ours + 0.02 for race in found)


def test_reference_noise_is_five_percent_or_the_nearest():
    assert with_metrics().reference_noise == 5.0
    table = StudyTable(made_up(replicates=2, levels=(10.0, 3.0), metrics={"ssim": METRICS["ssim"]}))
    assert StudyAnalysis(table).reference_noise == 3.0


def test_gamma_that_rises_and_falls_is_shown(analysis):
    found = findings.gamma_under_noise(analysis)
    assert found.verdict == "shown"
    assert found.numbers["rising"] == found.numbers["rising_of"] > 0
    assert found.numbers["falling"] == found.numbers["falling_of"] > 0
    assert 0 < found.numbers["saved"] <= found.numbers["saved_of"]
    rows = list(analysis_gamma.gamma_rows(analysis))
    assert all(row["best"] > row["calm"] > row["reference_last"] for row in rows)


def test_gamma_that_falls_with_any_noise_is_partly_shown():
    columns = made_up(replicates=6)
    rate = "gamma_2_2_global_passing_rate_percent"
    other = rate.replace("2_2", "3_3")
    ideal, signal, _, floor = METRICS[rate]
    columns["value"] = [
        ideal + signal * size + floor * noise if metric in (rate, other) else value
        for metric, value, size, noise in zip(
            columns["metric"], columns["value"], columns["magnitude"], columns["noise_percent"], strict=True
        )
    ]
    found = findings.gamma_under_noise(StudyAnalysis(StudyTable(columns)))
    assert found.verdict == "partly shown"
    assert found.numbers["rising"] == 0


def test_gamma_that_passes_more_with_too_much_output_is_named():
    rate = "gamma_2_2_global_passing_rate_percent"
    flattering = with_metrics(**{rate: (90.0, 2.0, 0.3, -0.5)})
    named = [s for s in findings.gamma_under_noise(flattering).sentences if "flatters" in s]
    assert len(named) == 1
    assert "γ 2/2, output" in named[0]
    assert not any("flatters" in s for s in findings.gamma_under_noise(with_metrics()).sentences)


def test_a_shift_that_gamma_rejects_refutes_the_claim():
    rate = "gamma_3_3_global_passing_rate_percent"
    assert findings.shift_passes_gamma(with_metrics()).verdict == "shown"
    found = findings.shift_passes_gamma(with_metrics(**{rate: (100.0, -20.0, 0.3, -0.5)}))
    assert found.verdict == "refuted"
    assert found.numbers["water, shift 1 mm, 1 % noise"] == pytest.approx(79.5, abs=0.5)


def test_changes_beyond_two_plain_numbers_are_named():
    blind = {"center_shift_mm": (0.0, 0.0, 0.02, 0.03), "mass_ratio": (1.0, 0.0, 0.001, 0.0)}
    found = findings.small_changes(with_metrics(**blind))
    assert "shift 1 mm (water)" in found.numbers["beyond"]
    named = [
        one for one in findings.beyond_two_numbers(with_metrics(**blind)) if one.text == "shift 1 mm (water)"
    ]
    assert [one.noise for one in named] == [10.0]
    assert findings.small_changes(with_metrics(**{"dmd_mm": (0.0, 0.0, 0.1, 0.0)})).numbers["beyond"] == []


def test_a_change_that_one_plain_number_sees_is_not_beyond_both():
    half_blind = {"center_shift_mm": (0.0, 0.0, 0.02, 0.03), "mass_ratio": (1.0, 0.05, 0.001, 0.0)}
    beyond = findings.small_changes(with_metrics(**half_blind)).numbers["beyond"]
    assert not [text for text in beyond if text.startswith(("shift 1 ", "shift 3 "))]


def test_noise_goes_with_the_root_of_the_histories(analysis):
    """The made-up study has 1e8 histories over the squared noise in percent."""
    for percent in (0.5, 3.0, 20.0):
        found = findings._noise_at(analysis, "water", 1e8 / percent**2)
        assert found == pytest.approx(percent, rel=1e-5)


def test_strength_is_positive_where_a_value_speaks_of_a_difference():
    rate = "gamma_2_2_global_passing_rate_percent"
    assert [analysis_losses.toward(rate, z) for z in (-5.0, 5.0, None)] == [5.0, -5.0, 0.0]
    assert [analysis_losses.toward("dmd_mm", z) for z in (-5.0, 5.0)] == [-5.0, 5.0]
    assert [analysis_losses.toward("mass_ratio", z) for z in (-5.0, 5.0)] == [5.0, 5.0]


def test_balanced_distances_blind_to_output_are_shown():
    flat = (0.0, 0.0, 0.02, 0.05)
    seen = {"mass_ratio": (1.0, 0.05, 0.001, 0.0)}
    blind = dict.fromkeys(("w1_mm", "w2_mm", "sliced_w2_mm"), flat)
    assert findings.output_blindness(with_metrics(**blind, **seen)).verdict == "shown"
    assert findings.output_blindness(with_metrics(**seen)).verdict == "partly shown"


def test_transport_that_misses_hot_spots_is_shown():
    lost = {"dmd_mm": (0.0, 0.0, 0.02, 0.05)}
    assert findings.where_transport_loses(with_metrics(**lost)).verdict == "shown"
    won = {m: (0.0, 0.0, 0.02, 0.05) for m in METRICS if m not in ("dmd_mm", "mass_ratio")}
    analysis = with_metrics(**won)
    assert findings.where_transport_loses(analysis).verdict == "refuted"
    assert {race.outcome for race in analysis_losses.race_rows(analysis)} == {"wins"}


def test_moments_are_judged_by_power_and_by_cost(analysis):
    found = findings.moments_are_cheap(analysis)  # on the largest grid, certified bounds included
    assert found.numbers["moment_dmd_mm"]["ratio"] == pytest.approx(500)
    assert found.verdict == "partly shown"
    assert "on 20³ voxels" in found.sentences[0]
    small_grids = StudyAnalysis(analysis.table, seconds=analysis.seconds)
    assert findings.moments_are_cheap(small_grids).numbers["moment_dmd_mm"]["ratio"] == pytest.approx(100)
    cheap = StudyAnalysis(analysis.table, seconds={"dmd_mm": 1.0, "moment_dmd_mm": 1e-4})
    assert findings.moments_are_cheap(cheap).verdict == "shown"


def test_moments_that_see_less_lose_and_those_that_see_more_do_not():
    blind = (0.0, 0.0, 0.02, 0.05)
    lost, won = (
        findings.moments_are_cheap(with_metrics(**{metric: blind})) for metric in ("moment_dmd_mm", "dmd_mm")
    )
    assert lost.numbers["moment_dmd_mm"]["loss"] > 0.2
    assert lost.parts[0].held == 0
    assert won.numbers["moment_dmd_mm"]["loss"] < -0.2
    assert won.parts[0].held == 1


def test_small_studies_are_judged_by_their_numbers(analysis):
    assert small.smoothing(analysis).verdict == "shown"
    assert small.atoms_are_biased(analysis).verdict == "shown"
    assert analysis_gamma.made_to_pass(analysis.findings, {})[0] == [True, True]
    calm = copy.deepcopy(small_findings())
    for row in calm["smoothed"]["rows"]:
        row["w2_mm"] = 0.5 * row["rmse_gy"]
    for row in calm["made_to_pass"]["rows"]:
        row["gamma_2_2_global_passing_rate_percent"] = 80.0
    analysis = StudyAnalysis(analysis.table, findings=calm)
    transported, moved = small.smoothing(analysis).parts
    assert (transported.verdict, transported.of) == ("refuted", 2)
    assert moved.verdict == "shown"
    assert analysis_gamma.made_to_pass(calm, {})[0] == [False, True]


def test_what_was_not_measured_is_said():
    table = StudyTable(made_up(replicates=2, levels=(5.0,), metrics={"ssim": METRICS["ssim"]}))
    verdicts = {judge(StudyAnalysis(table)).verdict for judge in findings.FINDINGS}
    assert verdicts == {"not measured"}
