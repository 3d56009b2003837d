"""What a study shows or refutes: eight statements about metrics under noise, each judged by its numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dosemover.study.analysis_detection import AUC_WANTED, POWER_WANTED, Detection
from dosemover.study.analysis_findings_small import (
    atoms_are_biased,
    made_to_pass,
    moments_are_cheap,
    smoothing,
)
from dosemover.study.analysis_labels import BALANCED, LOCAL, label, matching, pretty
from dosemover.study.analysis_summary import StudyAnalysis
from dosemover.study.analysis_table import Cell, trait
from dosemover.study.analysis_verdicts import BLIND_Z, PASSES_PERCENT, Finding, judged, number


def gamma_under_noise(analysis: StudyAnalysis) -> Finding:
    """(a) Passing rates rise with noise in the evaluated map and fall with noise in the reference."""
    metric = "gamma_2_2_global_passing_rate_percent"
    rises, falls, nulls = [], [], {"evaluated": [], "reference": []}
    for where in ("evaluated", "reference"):
        for cells in _series(analysis, metric, where):
            calm, noisy = cells[0], cells[-1]
            if calm.change == "none":
                nulls[where].append(noisy.mean - calm.mean)
            elif where == "reference":
                falls.append(noisy.mean - calm.mean)
            elif calm.mean < 99.0:
                rises.append(noisy.mean - calm.mean)
    numbers: dict[str, Any] = {
        "rising": sum(d > 0 for d in rises),
        "rising_of": len(rises),
        "mean_rise": float(np.mean(rises)) if rises else math.nan,
        "falling": sum(d < 0 for d in falls),
        "falling_of": len(falls),
        "mean_fall": float(np.mean(falls)) if falls else math.nan,
    }
    sentences = []
    if rises or falls:
        sentences.append(
            "γ 2 %/2 mm, from the least to the most noise studied: with noise in the evaluated map the "
            f"passing rate rises in {numbers['rising']} of {numbers['rising_of']} changed maps that do not "
            f"pass everywhere already (on average by {number(numbers['mean_rise'])} points); with noise in "
            f"the reference it falls in {numbers['falling']} of {numbers['falling_of']} (on average by "
            f"{number(-numbers['mean_fall'])} points)."
        )
    if nulls["evaluated"] and nulls["reference"]:
        sentences.append(
            f"Without any change it falls by {number(-float(np.mean(nulls['evaluated'])))} points on "
            "average with "
            f"noise in the evaluated map and by {number(-float(np.mean(nulls['reference'])))} with noise "
            "in the "
            "reference."
        )
    parts = [numbers["rising"] > 0.8 * len(rises)] if rises else []
    parts += [numbers["falling"] > 0.8 * len(falls)] if falls else []
    passed, more = made_to_pass(analysis.findings, numbers)
    return Finding(
        letter="a",
        claim="γ's passing rate rises with noise in the evaluated map and falls with noise in the reference; "
        "a failing map can be made to pass by adding noise.",
        verdict=judged(parts + passed),
        sentences=(*sentences, *more),
        numbers=numbers,
    )


def _series(analysis: StudyAnalysis, metric: str, where: str) -> list[list[Cell]]:
    """Cells of every case and change over the noise levels, the least noise first."""
    found: dict[tuple[str, str, float], list[Cell]] = {}
    for cell in analysis.table.select(metric=metric, noise_in=where):
        if cell.values.size:
            found.setdefault((cell.case, cell.change, cell.magnitude), []).append(cell)
    return [sorted(cells, key=lambda c: c.noise_percent) for cells in found.values() if len(cells) > 1]


def shift_passes_gamma(analysis: StudyAnalysis) -> Finding:
    """(b) A 1 mm shift passes gamma 3 %/3 mm."""
    rates: dict[str, float] = {}
    for name in matching(analysis.table.changes, "shift"):
        cells = analysis.table.select(change=name, metric="gamma_3_3_global_passing_rate_percent")
        for cell in cells:
            if cell.values.size and cell.magnitude_unit == "mm" and cell.magnitude == _nearest(cells, 1.0):
                calm = analysis.table.noiseless(cell)
                if calm is not None and calm.noise_percent <= CALM_PERCENT:
                    rates[f"{pretty(cell.case)}, {pretty(name)} {cell.magnitude:g} mm"] = calm.mean
    if not rates:
        return Finding(letter="b", claim=_CLAIM_B, verdict="not measured")
    listed = "; ".join(f"{name}: {rate:.1f} %" for name, rate in sorted(rates.items()))
    return Finding(
        letter="b",
        claim=_CLAIM_B,
        verdict=judged(rate >= PASSES_PERCENT for rate in rates.values()),
        sentences=(f"γ 3 %/3 mm passing rate at the least noise of the study: {listed}.",),
        numbers=rates,
    )


_CLAIM_B = "A 1 mm shift passes γ 3 %/3 mm."


def _nearest(cells: Sequence[Cell], size: float) -> float:
    """The studied magnitude nearest to a size, by ratio."""
    sizes = {c.magnitude for c in cells if c.magnitude > 0}
    return min(sizes, key=lambda m: abs(math.log(m / size))) if sizes else math.nan


@dataclass(frozen=True, kw_only=True, eq=False)
class _Condition:
    """One change in one case at one noise level, with the detections of every metric."""

    case: str
    change: str
    size: float
    noise: float
    by: Mapping[str, Detection]

    @property
    def text(self) -> str:
        """The condition in words."""
        unit = next(iter(self.by.values())).cell.magnitude_unit
        return f"{pretty(self.change)} {self.size:g} {unit} ({pretty(self.case)})"


def _conditions(analysis: StudyAnalysis, *words: str) -> list[_Condition]:
    """Conditions of the changes that are called so, in every case, white noise too."""
    return [
        _Condition(case=case, change=change, size=size, noise=noise, by=by)
        for (case, change, size, noise), by in sorted(analysis.by_condition.items())
        if change in matching(analysis.changes_of(case), *words)
    ]


CALM_PERCENT = 3.0
"""Noise up to which a passing rate is taken for that of the change."""

_OUTPUT = ("output", "scale")


def small_changes(analysis: StudyAnalysis) -> Finding:
    """(c) DMD sees 0.2 mm and 0.2 % under 5 % noise; so do two plain numbers, but not all that DMD sees."""
    noise = analysis.reference_noise
    three = ("dmd_mm", "center_shift_mm", "mass_ratio")
    sentences, parts, numbers = [], [], {}
    for words, least, most in ((("shift",), 0.15, 0.3), (_OUTPUT, 0.1, 0.5)):
        seen = []
        for one in _conditions(analysis, *words):
            if one.noise != noise or not least <= one.size <= most or "dmd_mm" not in one.by:
                continue
            powers = {m: one.by[m].power for m in three if m in one.by}
            parts.append(powers["dmd_mm"].value >= POWER_WANTED)
            numbers[one.text] = {m: p.value for m, p in powers.items()}
            listed = ", ".join(f"{label(m)} {number(100 * p.value)} %" for m, p in powers.items())
            seen.append(f"{one.text}: {listed}")
        if seen:
            sentences.append(f"Power at 5 % false alarms under {noise:g} % noise. " + "; ".join(seen) + ".")
    beyond = _beyond_two_numbers(analysis, noise)
    if beyond:
        sentences.append(
            f"At {noise:g} % noise DMD finds with a power of at least {POWER_WANTED:g}, and neither the "
            f"center of dose nor the mass ratio with more than 0.5: {'; '.join(beyond)}."
        )
    sentences += _mass_noise(analysis, noise)
    white, blind, found = _white(analysis.findings)
    return Finding(
        letter="c",
        claim="DMD sees a 0.2 mm shift and a 0.2 % output change under 5 % noise. So do the center of dose "
        "and the mass ratio; but there are changes that DMD sees and these two do not.",
        verdict=judged([*parts, *found, *([bool(beyond or blind)] if parts or found else [])]),
        sentences=(*sentences, *white),
        numbers={**numbers, "beyond": beyond, "white_beyond": blind},
    )


def _mass_noise(analysis: StudyAnalysis, noise: float) -> list[str]:
    """What the noise of the whole dose adds to DMD in the main case."""
    case = {"case": analysis.main_case, "change": "none", "noise_percent": noise, "noise_in": "both"}
    mass, dmd = (analysis.table.select(metric=m, **case) for m in ("mass_ratio", "dmd_mm"))
    if not mass or not dmd or mass[0].values.size < 2:
        return []
    percent = 100 * mass[0].sd
    return [
        f"Why: {noise:g} % noise in a voxel is {number(mass[0].histories / 1000, 2)} thousand histories in "
        f"{pretty(analysis.main_case)}. The integral doses of two such maps differ by {number(percent, 2)} % "
        f"(standard deviation) by noise alone, which DMD counts as {number(percent, 2)} mm of its floor of "
        f"{number(dmd[0].mean, 2)} mm. On finer voxels the same noise in a voxel means more histories and a "
        f"lower floor."
    ]


def _beyond_two_numbers(analysis: StudyAnalysis, noise: float) -> list[str]:
    """Conditions that DMD finds while the center of dose and the mass ratio do not."""
    found = []
    for one in _conditions(analysis, ""):
        if one.noise != noise or not {"dmd_mm", "center_shift_mm", "mass_ratio"} <= one.by.keys():
            continue
        others = max(one.by[m].power.value for m in ("center_shift_mm", "mass_ratio"))
        if one.by["dmd_mm"].power.value >= POWER_WANTED and others <= 0.5:
            found.append(one.text)
    return found


def _white(findings: Mapping[str, Any]) -> tuple[list[str], list[str], list[bool]]:
    """What DMD and the two plain numbers see under white noise, and what only DMD sees."""
    if "detection" not in findings:
        return [], [], []
    found = findings["detection"]
    listed, blind, parts = [], [], []
    for name, by in found["changes"].items():
        z = {m: by[m]["z"] for m in ("dmd_mm", "center_shift_mm", "debiased_rmse_gy")}
        z["mass_ratio"] = by["mass_ratio"]["z"]
        if name in ("shift 0.2 mm", "output +0.2 %"):
            parts.append((z["dmd_mm"] or 0) > BLIND_Z)
            listed.append(
                f"{name}: z = {number(z['dmd_mm'])} (DMD), {number(z['center_shift_mm'])} (center of dose), "
                f"{number(z['mass_ratio'])} (mass ratio), {number(z['debiased_rmse_gy'])} (debiased RMSE)"
            )
        elif (
            (z["dmd_mm"] or 0) > BLIND_Z
            and abs(z["center_shift_mm"] or 0) < BLIND_Z
            and abs(z["mass_ratio"] or 0) < BLIND_Z
        ):
            blind.append(
                f"{name} (z = {number(z['dmd_mm'])} against {number(z['center_shift_mm'])} and "
                f"{number(z['mass_ratio'])})"
            )
    sentences = [
        f"White noise of {found['noise_percent']:g} % as a contrast: " + "; ".join(listed) + ".",
    ]
    if blind:
        sentences.append(
            "What the center of dose and the mass ratio cannot see there, and DMD does: "
            + "; ".join(blind)
            + "."
        )
    return sentences, blind, parts


def output_blindness(analysis: StudyAnalysis) -> Finding:
    """(d) Balanced OT is blind to output changes; DMD and the mass ratio are not."""
    chosen: dict[str, _Condition] = {}
    for one in _conditions(analysis, *_OUTPUT):  # per case the largest change at the least noise from 2 % on
        best = chosen.get(one.case)
        if one.noise >= 1.9 and (best is None or (-one.size, one.noise) < (-best.size, best.noise)):
            chosen[one.case] = one
    blind, seeing = {}, {}
    for one in chosen.values():
        where = f"{one.text}, {one.noise:g} % noise"
        blind |= {f"{label(m)}: {where}": one.by[m].auc for m in BALANCED if m in one.by}
        seeing |= {f"{label(m)}: {where}": one.by[m].auc for m in ("dmd_mm", "mass_ratio") if m in one.by}
    if not blind or not seeing:
        return Finding(letter="d", claim=_CLAIM_D, verdict="not measured")
    # of many intervals at 95 %, one in twenty leaves 0.5 out by chance
    inside = sum(a.low <= 0.5 for a in blind.values())
    found = sum(a.value >= AUC_WANTED for a in seeing.values())
    listed = "; ".join(f"{one.text} at {one.noise:g} % noise" for one in chosen.values())
    return Finding(
        letter="d",
        claim=_CLAIM_D,
        verdict=judged([inside >= 0.9 * len(blind), found == len(seeing)]),
        sentences=(
            f"AUC for {listed}: of the balanced distances (W₁, W₂, sliced, Sobolev, axis and moment W₂) "
            f"{number(min(a.value for a in blind.values()), 2)} to "
            f"{number(max(a.value for a in blind.values()), 2)}, and the interval reaches down to 0.5 in "
            f"{inside} "
            f"of {len(blind)}; of DMD and the mass ratio at least "
            f"{number(min(a.value for a in seeing.values()))}, "
            f"{AUC_WANTED:g} or more in {found} of {len(seeing)}.",
        ),
        numbers={
            "balanced": {k: a.value for k, a in blind.items()},
            "seeing": {k: a.value for k, a in seeing.items()},
        },
    )


_CLAIM_D = "Balanced OT is blind to output changes; DMD and the mass ratio are not."


def where_transport_loses(analysis: StudyAnalysis) -> Finding:
    """(e) Hot and cold spots, a missing leaf, single voxels; and the low-dose bath."""
    races: dict[str, list[_Condition]] = {}
    for one in _conditions(analysis, "hot_spot", "cold_spot", "missing_leaf", "spot", "leaf", "strip"):
        races.setdefault(one.text, []).append(one)
    sentences, parts, numbers = [], [], {}
    for text, conditions in races.items():
        found = _race(conditions)
        if found is None:
            continue
        parts.append(found["lost"])
        numbers[text] = found
        sentences.append(
            f"{text[0].upper() + text[1:]}: AUC {number(found['dmd'])} with DMD, {number(found['flat'])} "
            "with "
            f"the flat norm, {number(found['best'])} with {found['name']}, mean over the noise levels of "
            f"{found['levels']} %."
        )
    white, more = _losses_on_white_noise(analysis.findings, numbers)
    bath, lines = _bath(analysis, numbers)
    return Finding(
        letter="e",
        claim="OT loses against metrics of voxels for hot and cold spots in a plateau, a missing leaf and "
        "errors in single voxels; and DMD exaggerates a change of the low-dose bath.",
        verdict=judged([*parts, *white, *bath]),
        sentences=(*sentences, *more, *lines),
        numbers=numbers,
    )


def _race(conditions: Sequence[_Condition]) -> dict[str, Any] | None:
    """AUC of DMD against that of the best metric of voxels, averaged over noise levels."""
    shared = [one for one in conditions if "dmd_mm" in one.by]
    everywhere = [m for m in (*LOCAL, "kr_mm") if shared and all(m in one.by for one in shared)]
    if not set(everywhere) & set(LOCAL):
        return None
    means = {m: float(np.mean([one.by[m].auc.value for one in shared])) for m in (*everywhere, "dmd_mm")}
    ours, flat = means.pop("dmd_mm"), means.pop("kr_mm", math.nan)
    best = max(means, key=lambda m: means[m])
    levels = ", ".join(f"{one.noise:g}" for one in shared)
    # the best of many is a little better by chance
    return {
        "dmd": ours,
        "flat": flat,
        "best": means[best],
        "name": label(best),
        "lost": means[best] > ours + 0.02,
        "levels": levels,
    }


def _bath(analysis: StudyAnalysis, numbers: dict[str, Any]) -> tuple[list[bool], list[str]]:
    """What DMD and gamma read of a change of the low-dose bath at the least noise."""
    parts, sentences = [], []
    for case in analysis.table.cases:
        names = matching(analysis.changes_of(case), "bath")
        cells = {
            m: analysis.table.select(case=case, change=tuple(names), metric=m, noise_in="both")
            for m in ("dmd_mm", "gamma_2_2_global_passing_rate_percent", "mass_ratio")
        }
        if not all(cells.values()):
            continue
        size = max(c.magnitude for c in cells["dmd_mm"])
        calm = {
            m: min((c for c in found if c.magnitude == size), key=lambda c: c.noise_percent).mean
            for m, found in cells.items()
        }
        reading, rate, mass = calm.values()
        parts.append(reading > 1.0 and rate >= PASSES_PERCENT)
        text = f"{pretty(names[0])} {size:g} {cells['dmd_mm'][0].magnitude_unit} ({pretty(case)})"
        numbers[text] = calm
        sentences.append(
            f"{text[0].upper() + text[1:]} at the least noise: DMD {number(reading)} mm, integral dose "
            f"{number(100 * (mass - 1), 2)} % more, γ 2/2 passes {number(rate, 4)} %."
        )
    return parts, sentences


_LOSSES = ("hot spot", "cold spot", "leaf", "one voxel")


def _losses_on_white_noise(
    findings: Mapping[str, Any], numbers: dict[str, Any]
) -> tuple[list[bool], list[str]]:
    """What DMD and the best metric of voxels see under white noise, and what the bath reads."""
    if "detection" not in findings:
        return [], []
    changes, parts, listed = findings["detection"]["changes"], [], []
    for name in (n for n in changes if n.startswith(_LOSSES)):
        z = {m: _strength(m, changes[name][m]["z"]) for m in LOCAL if m in changes[name]}
        best = max(z, key=lambda m: z[m])
        ours = _strength("dmd_mm", changes[name]["dmd_mm"]["z"])
        parts.append(z[best] > max(ours, BLIND_Z))
        numbers[f"white {name}"] = {"dmd": ours, "best": z[best], "name": label(best)}
        listed.append(
            f"{name}: DMD z = {number(ours, 2)} ({number(changes[name]['dmd_mm']['clean'], 2)} mm without "
            f"noise), {label(best)} z = {number(z[best], 2)}"
        )
    sentences = [f"White noise of {findings['detection']['noise_percent']:g} %: " + "; ".join(listed) + "."]
    bath = next((n for n in changes if n.startswith("bath")), None)
    if bath is not None:
        by, shift = changes[bath], changes["shift 1 mm"]
        reading, mass = by["dmd_mm"]["clean"], 100 * (by["mass_ratio"]["clean"] - 1)
        rate = by["gamma_2_2_global_passing_rate_percent"]["clean"]
        parts.append(reading > shift["dmd_mm"]["clean"] and rate >= PASSES_PERCENT)
        numbers["bath"] = {"dmd": reading, "mass_percent": mass, "gamma": rate}
        sentences.append(
            f"{bath.capitalize()}, {number(mass, 2)} % of the integral dose: DMD reads {number(reading)} "
            f"mm, more than the {number(shift['dmd_mm']['clean'])} mm of a 1 mm shift of the whole field, "
            f"while γ 2/2 passes {number(rate, 4)} %."
            if parts[-1]
            else f"{bath.capitalize()}: DMD reads {number(reading)} mm, γ 2/2 passes {number(rate, 4)} %."
        )
    return parts, sentences


def _strength(metric: str, z: float | None) -> float:
    """Strength z in the direction that speaks of a difference."""
    if z is None:
        return 0.0
    direction = trait(metric).direction
    return -z if direction == "smaller" else abs(z) if direction == "both" else z


FINDINGS: tuple[Callable[[StudyAnalysis], Finding], ...] = (
    gamma_under_noise,
    shift_passes_gamma,
    small_changes,
    output_blindness,
    where_transport_loses,
    smoothing,
    atoms_are_biased,
    moments_are_cheap,
)
"""The eight statements, in order."""
