"""Stopping rules of a simulation: ``--until 'dmd_mm.floor<0.1'``."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from dosemover.cli.conditions import OPERATORS, finite_number
from dosemover.errors import InputError

if TYPE_CHECKING:
    from dosemover.comparison.registry import Family
    from dosemover.comparison.result import MetricResult
    from dosemover.dose import DoseMap
    from dosemover.montecarlo import SimulationResult

_FIELDS = ("floor", "floor_sd")
_PATTERN = re.compile(r"\s*(\w+)(?:\.(\w+))?\s*([^\w\s.+-]+)\s*(\S+)\s*")
_MEANT = {"=<": "<=", "=>": ">=", "≤": "<=", "≥": ">=", "=": "<=", "==": "<=", "<<": "<", ">>": ">"}
_STEP = 1.5
_LONGEST_STEP = 4.0
_SHORT_OF = 0.9
"""The next check comes a little before the histories that the power law predicts."""


@dataclass(frozen=True, kw_only=True)
class Goal:
    """One stopping rule: KEY.floor or KEY.floor_sd, an operator, a number."""

    key: str
    field: str
    comparison: str
    limit: float
    text: str

    def met_by(self, value: float) -> bool:
        """Whether a floor is where it should be."""
        return bool(OPERATORS[self.comparison](value, self.limit))


def goal(text: str) -> Goal:
    """Parse one stopping rule."""
    match = _PATTERN.fullmatch(text)
    limit = finite_number(match.group(4)) if match else None
    if match is None or limit is None:
        raise argparse.ArgumentTypeError(
            f"must be KEY.floor<NUMBER, for example 'dmd_mm.floor<0.1', got {text!r}"
        )
    key, part, comparison = match.group(1), match.group(2) or "floor", match.group(3)
    if comparison not in OPERATORS:
        meant = _MEANT.get(comparison, "<")
        raise argparse.ArgumentTypeError(
            f"holds the operator {comparison!r}, which is none of {', '.join(OPERATORS)}; did you mean "
            f"{meant!r}? Got {text!r}"
        )
    if part not in _FIELDS:
        near = difflib.get_close_matches(part, _FIELDS, n=1, cutoff=0.0)[0]
        raise argparse.ArgumentTypeError(
            f"asks for .{part}, but a simulation alone knows only {key}.{' and .'.join(_FIELDS)}; did you "
            f"mean {key}.{near}? Got {text!r}"
        )
    return Goal(key=key, field=part, comparison=comparison, limit=limit, text=text.strip())


@dataclass(kw_only=True, eq=False)
class StoppingRule:
    """Asks of a running simulation whether the noise floors of metrics are low enough.

    The floor is that between two independent simulations of the quality reached, from the running batches;
    with a reference, that between the simulation and it. Between two checks lie at least 1.5 and at most 4
    times as many histories, by what the floor's power law predicts: a rule costs the same few checks
    however long the simulation.

    Parameters
    ----------
    goals : sequence of Goal
        All must be met.
    reference : DoseMap, optional
        The map that the simulation will be compared with.
    """

    goals: Sequence[Goal]
    reference: DoseMap | None = None
    checks: list[dict[str, Any]] = field(default_factory=list)
    _next: float = 0.0

    def __post_init__(self) -> None:
        self._families = {one.key: _family(one) for one in self.goals}

    def __call__(self, result: SimulationResult) -> bool:
        """Whether every goal is met; checks nothing before the next number of histories is due."""
        if result.histories < self._next:
            return False
        return self.check(result)

    def check(self, result: SimulationResult) -> bool:
        """Whether every goal is met by the histories so far."""
        if self.checks and self.checks[-1]["histories"] == result.histories:
            return bool(self.checks[-1]["reached"])
        found = {one.text: self._floor(one, result) for one in self.goals}
        reached = all(
            value is not None and one.met_by(value)
            for one, value in ((g, getattr(found[g.text], g.field)) for g in self.goals)
        )
        factor = max((_needed(one, found[one.text]) for one in self.goals), default=_STEP)
        self._next = result.histories * min(max(_SHORT_OF * factor, _STEP), _LONGEST_STEP)
        self.checks.append(
            {
                "histories": result.histories,
                "reached": reached,
                "floors": {text: _described(one) for text, one in found.items()},
            }
        )
        return reached

    def _floor(self, one: Goal, result: SimulationResult) -> MetricResult:
        """The floor at the quality reached so far."""
        from dosemover.comparison.floors import noise_floor
        from dosemover.comparison.settings import CompareSettings

        simulated = result.to_dose_map(name="simulation")
        reference = simulated
        if self.reference is not None:
            reference = self.reference
            simulated = replace(simulated, unit=reference.unit).scaled(_to_scale_of(reference, simulated))
        return noise_floor(
            one.key,
            reference=reference,
            evaluated=simulated,
            family=self._families[one.key],
            settings=CompareSettings(metrics=(one.key,)),
        )

    def told(self) -> list[str]:
        """What was reached, one sentence a goal."""
        if not self.checks:
            return [f"{one.text}: never checked" for one in self.goals]
        last = self.checks[-1]
        return [_sentence(one, last["floors"][one.text], last["histories"]) for one in self.goals]


def _to_scale_of(reference: DoseMap, simulated: DoseMap) -> float:
    """Factor that gives the simulation the reference's integral dose on the reference's grid."""
    total = float(simulated.interpolated_to(reference.grid).integral_gy_mm3)
    if not total > 0:
        raise InputError(
            "the simulation has no dose where the reference is: the floor of their difference has no "
            "meaning. Pass the map that this simulation is to be compared with."
        )
    return reference.integral_gy_mm3 / total


def _family(one: Goal) -> Family:
    """The family of a goal's metric, or an error that names the nearest key that has a floor."""
    from dosemover.comparison.families import FAMILIES
    from dosemover.comparison.histories import has_scatter_only
    from dosemover.comparison.settings import CompareSettings

    settings = CompareSettings()
    known = {key: family for family in FAMILIES for key in family.keys(settings)}
    without = {"kf_fraction_percent", "kf_shift_sigma"}
    if one.key not in known or one.key in without:
        near = difflib.get_close_matches(one.key, [key for key in known if key not in without], 3, 0.4)
        hint = f"Did you mean {', '.join(near)}?" if near else "`dosemover compare --metrics all` lists them."
        fact = "has no noise floor" if one.key in without else "is no metric"
        raise InputError(f"--until names {one.key!r}, which {fact}. The rule cannot be checked. {hint}")
    if one.field == "floor" and has_scatter_only(one.key):
        raise InputError(
            f"--until asks for {one.key}.floor, which noise leaves where it is: the metric scatters to both "
            f"sides of it. More histories would never meet the rule. Ask for {one.key}.floor_sd."
        )
    return known[one.key]


def _needed(one: Goal, found: MetricResult) -> float:
    """How many times as many histories the power law asks for; the shortest step where there is none."""
    from dosemover.comparison.histories import power
    from dosemover.noise import histories_factor

    value, q = getattr(found, one.field), power(one.key)
    if q is None or value is None or one.limit <= 0 or one.comparison.startswith(">"):
        return _STEP
    return histories_factor(floor=value, goal=one.limit, power=q)


def _described(found: MetricResult) -> dict[str, Any]:
    """A floor for the file that says what was reached."""
    return {
        "floor": found.floor,
        "floor_sd": found.floor_sd,
        "unit": found.unit,
        "status": found.status,
        "method": found.settings.get("significance"),
    }


def _sentence(one: Goal, found: dict[str, Any], histories: int) -> str:
    """Whether one goal was met, and what is missing."""
    value = found[one.field]
    if value is None:
        return f"{one.text}: not known after {histories:.3g} histories ({found['status']})"
    unit = f" {found['unit']}" if found["unit"] else ""
    start = f"{one.key}.{one.field} is {value:.3g}{unit} after {histories:.3g} histories"
    if one.met_by(value):
        return f"{one.text}: reached, {start}"
    from dosemover.comparison.histories import power
    from dosemover.noise import histories_factor

    q = power(one.key)
    if q is None or one.limit <= 0 or one.comparison.startswith(">"):
        return f"{one.text}: not reached, {start}"
    factor = histories_factor(floor=value, goal=one.limit, power=q)
    return f"{one.text}: not reached, {start}; about {factor:.2g} times as many would do"
