"""Metrics of one's own, registered from outside."""

from __future__ import annotations

import json

import numpy as np
import pytest

import dosemover as dm
from dosemover.cli.main import main
from dosemover.comparison import MetricResult, Words, families, register, unregister
from dosemover.comparison.register import run_plugin
from dosemover.dose import DoseMap, Structure
from dosemover.errors import InputError
from dosemover.report import explain, render_report

SPACING = (2.0, 2.0, 2.0)


@pytest.fixture(autouse=True)
def _forget():
    """Every test leaves the metrics as it found them."""
    before = families.FAMILIES
    yield
    for family in families.FAMILIES:
        if all(family is not one for one in before):
            unregister(family.name)


def field(scale=1.0):
    """A smooth dose of 8 x 8 x 8 voxels."""
    z, y, x = np.indices((8, 8, 8))
    return scale * np.exp(-((z - 3.5) ** 2 + (y - 3.5) ** 2 + (x - 3.5) ** 2) / 8)


def with_batches(scale, seed):
    """A dose of 10 batches whose noise is 2 % of the maximum each."""
    rng = np.random.default_rng(seed)
    batches = np.abs(field(scale) + rng.normal(scale=0.02, size=(10, 8, 8, 8)))
    grid = DoseMap.from_array(field(), spacing_mm=SPACING).grid
    return DoseMap.from_batches(batches, grid)


def mean_excess_gy(*, reference, evaluated):
    """Mean of the evaluated dose less that of the reference."""
    return float(evaluated.dose_gy.mean() - reference.dose_gy.mean())


def test_a_number_becomes_a_metric_with_its_unit():
    register(mean_excess_gy, keys={"mean_excess_gy": "Gy"}, direction="both")
    result = dm.compare(field(), field(1.1), metrics=["mean_excess_gy"], spacing_mm=SPACING)
    metric = result.metrics["mean_excess_gy"]
    assert metric.value == pytest.approx(0.1 * field().mean())
    assert metric.unit == "Gy"
    assert json.loads(result.to_json())["metrics"]["mean_excess_gy"]["value"] == metric.value


def test_floor_and_p_are_those_of_the_same_metric_inside():
    register(mean_excess_gy, keys={"mean_excess_gy": "Gy"}, direction="both")
    maps = with_batches(1.0, 1), with_batches(1.02, 2)
    result = dm.compare(*maps, metrics=["mean_excess_gy", "mean_difference_gy"], null=199)
    own, known = result.metrics["mean_excess_gy"], result.metrics["mean_difference_gy"]
    assert own.value == pytest.approx(known.value, rel=1e-5)
    assert own.floor_sd == pytest.approx(known.floor_sd, rel=0.3)
    assert own.p == pytest.approx(known.p, abs=0.05)
    assert "relabelling" in own.settings["significance"]


def test_direction_decides_which_values_speak_of_a_difference():
    def agreement(*, reference, evaluated):
        return -abs(mean_excess_gy(reference=reference, evaluated=evaluated))

    maps = with_batches(1.0, 1), with_batches(1.3, 2)
    register(agreement, keys={"agreement": ""}, direction="smaller")
    assert dm.compare(*maps, metrics=["agreement"], null=99).metrics["agreement"].p < 0.05
    register(agreement, keys={"agreement": ""}, direction="larger")
    assert dm.compare(*maps, metrics=["agreement"], null=99).metrics["agreement"].p > 0.95


def test_a_mapping_gives_several_keys_each_with_its_direction():
    def extremes(*, reference, evaluated):
        return {"top_gy": evaluated.max_gy, "low_gy": None}

    family = register(
        extremes, keys={"top_gy": "Gy", "low_gy": "Gy"}, name="ends", direction={"low_gy": "smaller"}
    )
    assert (family.direction("top_gy"), family.direction("low_gy")) == ("larger", "smaller")
    metrics = dm.compare(field(), field(2.0), metrics=["ends"], spacing_mm=SPACING).metrics
    assert metrics["top_gy"].value == pytest.approx(field(2.0).max())
    assert metrics["low_gy"].value is None
    assert metrics["low_gy"].status == "the function returned None"


def test_bounds_and_status_come_along_and_the_key_decides_the_name():
    def bounded(*, reference, evaluated):
        return MetricResult(key="any", value=1.0, lower=0.5, upper=2.0, status="rough")

    register(bounded, keys={"bounded_mm": "mm"})
    metric = dm.compare(field(), field(), metrics=["bounded_mm"], spacing_mm=SPACING).metrics["bounded_mm"]
    assert (metric.key, metric.unit, metric.lower, metric.upper) == ("bounded_mm", "mm", 0.5, 2.0)
    assert metric.status == "rough"


def test_the_evaluated_map_comes_on_the_grid_that_was_asked_for():
    shapes = {}

    def seen(*, reference, evaluated):
        shapes["evaluated"] = evaluated.grid.shape
        return 0.0

    fine = DoseMap.from_array(np.ones((16, 16, 16)), spacing_mm=(1.0, 1.0, 1.0), origin_mm=(-0.5, -0.5, -0.5))
    for place, shape in (("reference grid", (8, 8, 8)), ("own grid", (16, 16, 16))):
        register(seen, keys={"seen": ""}, evaluated_on=place)
        dm.compare(field(), fine, metrics=["seen"], spacing_mm=SPACING)
        assert shapes["evaluated"] == shape


def test_the_reference_carries_the_structures_of_the_comparison():
    def inside_gy(*, reference, evaluated):
        (target,) = reference.structures
        return float(evaluated.dose_gy[target.fraction > 0.5].mean())

    reference = DoseMap.from_array(field(), spacing_mm=SPACING)
    target = Structure(name="target", grid=reference.grid, fraction=(field() > 0.5).astype(float))
    register(inside_gy, keys={"inside_gy": "Gy"})
    result = dm.compare(reference, reference, structures=[target], metrics=["inside_gy"])
    assert result.metrics["inside_gy"].value == pytest.approx(field()[field() > 0.5].mean())


def test_sets_hold_it_where_it_was_asked_for():
    register(mean_excess_gy, keys={"mean_excess_gy": "Gy"})
    assert "mean_excess_gy" not in dm.compare(field(), field(), metrics="fast", spacing_mm=SPACING).metrics
    (family,) = [one for one in families.FAMILIES if one.name == "mean_excess_gy"]
    assert family.default == "none"
    assert register(mean_excess_gy, keys={"mean_excess_gy": "Gy"}, default=True).default == "all"
    assert register(mean_excess_gy, keys={"mean_excess_gy": "Gy"}, costly=True).null == "on request"
    assert [one.name for one in families.FAMILIES].count("mean_excess_gy") == 1


def test_the_report_uses_its_words():
    words = Words(title="Mean excess", means="On average {value} more.", blind="Where {it} is.")
    register(mean_excess_gy, keys={"mean_excess_gy": "Gy"}, words={"mean_excess_gy": words})
    result = dm.compare(field(), field(1.1), metrics=["mean_excess_gy"], spacing_mm=SPACING)
    said = explain(result.metrics["mean_excess_gy"])
    assert (said.title, said.blind) == ("Mean excess", "Where {it} is.")
    assert said.means.startswith("On average 0.0")
    assert "Mean excess" in render_report(result)


def test_a_metric_without_words_is_shown_with_its_value():
    register(mean_excess_gy, keys={"mean_excess_gy": "Gy"})
    result = dm.compare(field(), field(1.1), metrics=["mean_excess_gy"], spacing_mm=SPACING)
    assert explain(result.metrics["mean_excess_gy"]).means.startswith("The value is 0.0")


@pytest.mark.parametrize(
    ("returned", "status"),
    [
        (float("nan"), "the value is nan"),
        (float("inf"), "the value is inf"),
        ("much", "the metric returned str for 'own_mm', no number"),
        ({"other_mm": 1.0}, "the metric returned 'other_mm', none of its keys own_mm"),
        (ValueError("too thin"), "the metric raised ValueError: too thin"),
        (InputError("no rim. Pass a rim."), "no rim. Pass a rim."),
    ],
)
def test_what_is_no_number_becomes_a_status(returned, status):
    def own(*, reference, evaluated):
        if isinstance(returned, Exception):
            raise returned
        return returned

    register(own, keys={"own_mm": "mm"})
    metrics = dm.compare(field(), field(1.1), metrics=["own_mm", "mass_ratio"], spacing_mm=SPACING).metrics
    assert metrics["own_mm"].value is None
    assert metrics["own_mm"].status == status
    assert metrics["mass_ratio"].value == pytest.approx(1.1)


def test_one_number_for_two_keys_becomes_a_status():
    register(mean_excess_gy, keys={"one_gy": "Gy", "two_gy": "Gy"})
    found = dm.compare(field(), field(), metrics=["one_gy"], spacing_mm=SPACING).metrics["one_gy"]
    assert found.status == "the metric returned one value for its 2 keys; it must return a mapping"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"keys": {}}, "`keys` is empty"),
        ({"keys": {"Mean excess": "Gy"}}, "cannot name a metric"),
        ({"keys": {"own_gy": "Gy"}, "name": "a-b"}, "cannot name a metric"),
        ({"keys": {"rmse_gy": "Gy"}}, "'rmse_gy' is the name of another metric"),
        ({"keys": {"own_gy": "Gy"}, "name": "dmd"}, "'dmd' is the name of another metric"),
        ({"keys": {"all": ""}}, "'all' is the name of another metric"),
        ({"keys": {"gamma_9_9_global_mean": ""}}, "is the name of another metric"),
        ({"keys": {"own_gy": "Gy"}, "direction": "up"}, "`direction` must be one of larger, smaller, both"),
        ({"keys": {"own_gy": "Gy"}, "direction": {"x": "both"}}, "`direction` speaks of 'x'"),
        ({"keys": {"own_gy": "Gy"}, "evaluated_on": "mine"}, "`evaluated_on` must be"),
        ({"keys": {"own_gy": "Gy"}, "words": {"x": Words(title="X")}}, "`words` speaks of 'x'"),
    ],
)
def test_names_and_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        register(mean_excess_gy, **settings)


def test_what_was_forgotten_is_unknown_again():
    register(mean_excess_gy, keys={"mean_excess_gy": "Gy"})
    unregister("mean_excess_gy")
    with pytest.raises(InputError, match="is no metric under these settings"):
        dm.compare(field(), field(), metrics=["mean_excess_gy"], spacing_mm=SPACING)
    with pytest.raises(InputError, match="'mean_excess_gy' is no registered metric"):
        unregister("mean_excess_gy")
    with pytest.raises(InputError, match="'dmd' is no registered metric"):
        unregister("dmd")


PLUGIN = """
from dosemover.comparison import register

def hottest_gy(*, reference, evaluated):
    return evaluated.max_gy - reference.max_gy

register(hottest_gy, keys={"hottest_gy": "Gy"})
"""


def test_the_command_line_runs_a_plugin_and_judges_by_it(tmp_path, capsys):
    for name, scale in (("a", 1.0), ("b", 1.1)):
        np.savez(tmp_path / f"{name}.npz", dose_gy=field(scale), spacing_mm=SPACING)
    (tmp_path / "own metrics.py").write_text(PLUGIN)
    maps = [str(tmp_path / "a.npz"), str(tmp_path / "b.npz")]
    plugin = ["--plugin", str(tmp_path / "own metrics.py")]
    code = main(["compare", *maps, "--metrics", "mass_ratio", *plugin, "--fail-if", "hottest_gy>0.05"])
    shown = capsys.readouterr()
    assert code == 1
    assert "hottest_gy" in shown.out
    assert "outside the limit hottest_gy>0.05" in shown.err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "is no Python file that can be run"),
        ("x = 1", "registers no metric"),
        ("1 / 0", "stops with ZeroDivisionError: division by zero"),
        ("from dosemover.comparison import register\nregister(print, keys={})", "`keys` is empty"),
    ],
)
def test_plugins_that_cannot_help_are_refused(tmp_path, text, message):
    path = tmp_path / "own.py"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=message):
        run_plugin(path)
