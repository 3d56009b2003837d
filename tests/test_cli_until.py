"""Stopping rules of ``dosemover simulate``: what they ask for, when they look, what they say."""

import argparse
import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from dosemover.cli.main import main
from dosemover.cli.until import StoppingRule, goal
from dosemover.comparison.families import FAMILIES
from dosemover.comparison.floors import noise_floor
from dosemover.comparison.settings import CompareSettings
from dosemover.dose import DoseMap
from dosemover.errors import InputError
from dosemover.grid import Grid
from dosemover.io import write_dose
from dosemover.montecarlo import read_config
from dosemover.montecarlo import simulate as run_simulation

BEAM = Path(__file__).resolve().parents[1] / "examples" / "beam.toml"
GRID = Grid.regular(shape=(8, 9, 10), spacing_mm=(3, 3, 3))


def simulate(directory, *more, histories="2e6"):
    start = ["simulate", str(BEAM), "-o", str(directory), "--histories", histories, "--batches", "8"]
    return main([*start, "--quiet", *more])


class Simulated:
    """A simulation of a uniform dose, with the noise of so many histories."""

    def __init__(self, histories, seed=0):
        self.histories = histories
        noise = np.random.default_rng(seed).standard_normal((8, *GRID.shape))
        self.batches = np.abs(1 + noise * np.sqrt(8 * 1000 / histories))

    def to_dose_map(self, *, name):
        return DoseMap.from_batches(self.batches, GRID, name=name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dmd_mm.floor=<0.1", "'=<', which is none of <, <=, >, >=; did you mean '<='"),
        ("dmd_mm.floor==0.1", "did you mean '<='"),
        ("dmd_mm.flor<0.1", "did you mean dmd_mm.floor?"),
        ("dmd_mm.value<0.1", "a simulation alone knows only dmd_mm.floor and .floor_sd"),
        ("dmd_mm", "must be KEY.floor<NUMBER"),
        ("dmd_mm.floor<much", "must be KEY.floor<NUMBER"),
    ],
)
def test_a_rule_that_cannot_be_read_says_what_was_meant(text, message):
    with pytest.raises(argparse.ArgumentTypeError) as error:
        goal(text)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dmd_m.floor<0.1", "'dmd_m', which is no metric.*Did you mean dmd_mm"),
        ("kf_shift_sigma.floor<1", "has no noise floor"),
        ("mass_ratio.floor<0.1", "Ask for mass_ratio.floor_sd"),
    ],
)
def test_a_metric_without_a_floor_is_refused_before_anything_is_simulated(tmp_path, capsys, text, message):
    with pytest.raises(InputError, match=message):
        StoppingRule(goals=[goal(text)])
    assert simulate(tmp_path / "out", "--until", text) == 2
    assert text.split(".")[0] in capsys.readouterr().err
    assert not (tmp_path / "out" / "dose.mha").exists()


def test_a_simulation_stops_when_its_floor_is_low_enough(tmp_path):
    assert simulate(tmp_path / "out", "--until", "center_shift_mm.floor<2") == 0
    told = json.loads((tmp_path / "out" / "until.json").read_text())
    last = told["checks"][-1]
    assert last["reached"]
    assert last["floors"]["center_shift_mm.floor<2"]["floor"] < 2
    assert last["histories"] < 2_000_000
    assert "reached, center_shift_mm.floor is" in told["told"][0]


def test_a_rule_that_is_not_met_says_how_many_histories_it_takes(tmp_path, capsys):
    assert simulate(tmp_path / "out", "--until", "center_shift_mm.floor<0.001", histories="16000") == 3
    assert "times as many would do" in capsys.readouterr().err
    assert (tmp_path / "out" / "dose.mha").exists()


def test_a_reference_map_takes_part_in_the_floor(tmp_path):
    exact = run_simulation(read_config(BEAM), histories=400_000, batches=4, seed=9)
    dose = replace(exact.to_dose_map(name="goal"), batches_gy=None, unit="Gy")
    write_dose(replace(dose, uncertainty_gy=None).scaled(1e9), tmp_path / "goal.mha")
    reached = []
    for more in ((), ("--reference", str(tmp_path / "goal.mha"))):
        simulate(tmp_path / "out", "--until", "center_shift_mm.floor<0.001", *more, histories="16000")
        checks = json.loads((tmp_path / "out" / "until.json").read_text())["checks"]
        reached.append(checks[-1]["floors"]["center_shift_mm.floor<0.001"]["floor"])
    assert reached[1] < 0.95 * reached[0]  # one noisy map instead of two: about 1 / sqrt(2)


def test_a_reference_without_a_rule_is_refused(tmp_path, capsys):
    assert simulate(tmp_path / "out", "--reference", "goal.mha") == 2
    assert "Add --until" in capsys.readouterr().err


def test_checks_come_at_growing_numbers_of_histories():
    rule = StoppingRule(goals=[goal("mae_gy.floor<0.01")])
    n = 8000
    while not rule(Simulated(n)) and n < 1e9:
        n = int(1.25 * n)
    seen = [one["histories"] for one in rule.checks]
    assert rule.checks[-1]["reached"]
    assert len(seen) < 14
    assert all(1.5 <= b / a <= 5 for a, b in pairwise(seen))


def test_all_rules_must_be_met():
    rule = StoppingRule(goals=[goal("mae_gy.floor<10"), goal("rmse_gy.floor<1e-6")])
    assert not rule(Simulated(80_000))
    assert ["not reached" in sentence for sentence in rule.told()] == [False, True]


def test_the_floor_of_one_simulation_is_that_of_two_independent_ones():
    """Witness: the mean absolute difference of two normal maps is 2 sigma / sqrt(pi)."""
    family = next(f for f in FAMILIES if "mae_gy" in f.keys(CompareSettings()))
    dose = Simulated(80_000).to_dose_map(name="")
    found = noise_floor(
        "mae_gy",
        reference=dose,
        evaluated=dose,
        family=family,
        settings=CompareSettings(metrics=("mae_gy",)),
    )
    sigma = np.sqrt(1000 / 80_000)
    assert found.floor == pytest.approx(2 * sigma / np.sqrt(np.pi), rel=0.05)


@pytest.mark.parametrize(("factor", "ratio"), [(2, 2**-0.5), (4, 0.5)])
@pytest.mark.parametrize("key", ["mae_gy", "rmse_gy", "relative_mae_percent", "center_shift_mm", "dmd_mm"])
def test_first_order_floors_fall_with_the_root_of_the_histories(key, factor, ratio):
    family = next(f for f in FAMILIES if key in f.keys(CompareSettings()))
    floors = []
    for n in (1_600_000, factor * 1_600_000):
        dose = Simulated(n).to_dose_map(name="")
        settings = CompareSettings(metrics=(key,))
        floors.append(
            noise_floor(key, reference=dose, evaluated=dose, family=family, settings=settings).floor
        )
    assert floors[1] / floors[0] == pytest.approx(ratio, rel=0.15)
