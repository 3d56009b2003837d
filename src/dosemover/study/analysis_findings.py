"""What a study shows or refutes: eight statements about metrics under noise, each judged by its numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from dosemover.study.analysis_detection import AUC_WANTED, POWER_WANTED, Detection
from dosemover.study.analysis_findings_small import atoms_are_biased, moments_are_cheap, smoothing
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
    parts = [numbers["rising"] > 0.8 * len(rises)] if rises else []
    parts += [numbers["falling"] > 0.8 * len(falls)] if falls else []
    passed, more = _made_to_pass(analysis.findings, numbers)
    return Finding(
        letter="a",
        claim="γ's passing rate rises with noise in the evaluated map and falls with noise in the reference; "
        "a failing map can be made to pass by adding noise.",
        verdict=judged(parts + passed),
        sentences=(*sentences, *more),
        numbers=numbers,
    )


def _made_to_pass(findings: Mapping[str, Any], numbers: dict[str, Any]) -> tuple[list[bool], list[str]]:
    """Whether a map that fails without noise passes with it, on white and on real noise."""
    parts, sentences = [], []
    for key, kind in (("made_to_pass", "white noise"), ("real_made_to_pass", "real 6 MV noise (DOSXYZnrc)")):
        if key not in findings:
            continue
        found = findings[key]
        rate = "gamma_2_2_global_passing_rate_percent"
        rows = sorted((r for r in found["rows"] if r["noise_in"] == "evaluated"), key=_noise)
        calm = rows[0]
        best = max(rows, key=lambda row: row[rate])
        first = next((r for r in rows if r[rate] >= PASSES_PERCENT), None)
        reference = max((r for r in found["rows"] if r["noise_in"] == "reference"), key=_noise)
        parts.append(calm[rate] < PASSES_PERCENT <= best[rate])
        numbers[key] = {"calm": calm[rate], "best": best[rate], "noise": best["noise_percent"]}
        text = (
            f"{kind.capitalize()}, output {number(found['output_percent'])} % too high: γ 2/2 passes "
            f"{number(calm[rate])} % at {number(calm['noise_percent'], 2)} % noise and {number(best[rate])} "
            f"% at {number(best['noise_percent'], 2)} % noise in the evaluated map"
        )
        if calm[rate] < PASSES_PERCENT and first is not None:
            start = number(first["noise_percent"], 2)
            text += f" (over the limit of {PASSES_PERCENT:g} % from {start} % noise on)"
        text += (
            f"; with {number(reference['noise_percent'], 2)} % noise in the reference it passes "
            f"{number(reference[rate])} %. The mass ratio reads {number(best['mass_ratio'], 4)} and the DMD "
            f"{number(best['dmd_mm'])} mm throughout ({number(calm['dmd_mm'])} mm with the least noise)."
        )
        sentences.append(text)
    return parts, sentences


def _noise(row: Mapping[str, Any]) -> float:
    return float(row["noise_percent"])


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
                if calm is not None:
                    rates[f"{pretty(cell.case)}, {pretty(name)} {cell.magnitude:g} mm"] = calm.mean
    if not rates:
        return Finding(letter="b", claim=_CLAIM_B, verdict="not measured")
    listed = "; ".join(f"{name}: {number(rate, 4)} %" for name, rate in sorted(rates.items()))
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


def _at(
    analysis: StudyAnalysis, words: Sequence[str], size: float, noise: float
) -> dict[str, tuple[str, float, str, dict[str, Detection]]]:
    """Detections at the magnitude nearest to a size, one change a case: (change, size, unit, by metric)."""
    found = {}
    for case in analysis.table.cases:
        options = [
            (change, magnitude, by)
            for (name, change, magnitude, level), by in analysis.by_condition.items()
            if name == case and level == noise and change in matching([change], *words)
        ]
        if options:
            change, magnitude, by = min(options, key=lambda o: abs(math.log(o[1] / size)))
            unit = next(iter(by.values())).cell.magnitude_unit
            found[case] = (change, magnitude, unit, by)
    return found


_OUTPUT = ("output", "scale")


def small_changes(analysis: StudyAnalysis) -> Finding:
    """(c) DMD sees 0.2 mm and 0.2 % under 5 % noise; so do two plain numbers, but not all that DMD sees."""
    noise = analysis.reference_noise
    three = ("dmd_mm", "center_shift_mm", "mass_ratio")
    sentences, parts, numbers = [], [], {}
    for words in (("shift",), _OUTPUT):
        seen = []
        for case, (change, size, unit, by) in _at(analysis, words, 0.2, noise).items():
            powers = {m: by[m].power for m in three if m in by}
            if "dmd_mm" not in powers:
                continue
            parts.append(powers["dmd_mm"].value >= POWER_WANTED)
            numbers[f"{case} {change} {size:g} {unit}"] = {m: p.value for m, p in powers.items()}
            listed = ", ".join(f"{label(m)} {number(100 * p.value)} %" for m, p in powers.items())
            seen.append(f"{pretty(case)}, {pretty(change)} {size:g} {unit}: {listed}")
        if seen:
            sentences.append(
                f"Power at 5 % false alarms under {noise:g} % simulated noise. " + "; ".join(seen) + "."
            )
    beyond = _beyond_two_numbers(analysis, noise)
    if beyond:
        sentences.append(
            f"At {noise:g} % noise DMD finds with a power of at least {POWER_WANTED:g}, and neither the "
            f"center of dose nor the mass ratio with more than 0.5: {'; '.join(beyond)}."
        )
    white, blind = _white(analysis.findings)
    sentences += white
    return Finding(
        letter="c",
        claim="DMD sees a 0.2 mm shift and a 0.2 % output change under 5 % noise. So do the center of dose "
        "and the mass ratio; but there are changes that DMD sees and these two do not.",
        verdict=judged([*parts, *([bool(beyond or blind)] if parts or blind else [])]),
        sentences=tuple(sentences),
        numbers={**numbers, "beyond": beyond, "white_beyond": blind},
    )


def _beyond_two_numbers(analysis: StudyAnalysis, noise: float) -> list[str]:
    """Conditions that DMD finds while the center of dose and the mass ratio do not."""
    found = []
    for (case, change, size, level), by in sorted(analysis.by_condition.items()):
        if level != noise or not {"dmd_mm", "center_shift_mm", "mass_ratio"} <= by.keys():
            continue
        others = max(by[m].power.value for m in ("center_shift_mm", "mass_ratio"))
        if by["dmd_mm"].power.value >= POWER_WANTED and others <= 0.5:
            unit = by["dmd_mm"].cell.magnitude_unit
            found.append(f"{pretty(change)} {size:g} {unit} ({pretty(case)})")
    return found


def _white(findings: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """What DMD and the two plain numbers see under white noise, and what only DMD sees."""
    if "detection" not in findings:
        return [], []
    found = findings["detection"]
    listed, blind = [], []
    for name, by in found["changes"].items():
        z = {m: by[m]["z"] for m in ("dmd_mm", "center_shift_mm", "debiased_rmse_gy")}
        z["mass_ratio"] = by["mass_ratio"]["z"]
        if name in ("shift 0.2 mm", "output +0.2 %"):
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
    return sentences, blind


def output_blindness(analysis: StudyAnalysis) -> Finding:
    """(d) Balanced OT is blind to output changes; DMD and the mass ratio are not."""
    levels = analysis.table.noise_levels
    noise = min(levels, key=lambda level: abs(level - 2.0)) if levels else math.nan
    conditions = _at(analysis, _OUTPUT, 3.0, noise)
    blind, seeing = {}, {}
    for case, (_, size, unit, by) in conditions.items():
        for metric in BALANCED:
            if metric in by:
                blind[f"{label(metric)}, {pretty(case)}, {size:g} {unit}"] = by[metric].auc
        for metric in ("dmd_mm", "mass_ratio"):
            if metric in by:
                seeing[f"{label(metric)}, {pretty(case)}, {size:g} {unit}"] = by[metric].auc
    if not blind or not seeing:
        return Finding(letter="d", claim=_CLAIM_D, verdict="not measured")
    # of so many intervals at 95 %, one in twenty leaves 0.5 out by chance
    inside = sum(a.low <= 0.5 <= a.high for a in blind.values())
    found = sum(a.value >= AUC_WANTED for a in seeing.values())
    sizes = sorted({f"{size:g} {unit}" for _, size, unit, _ in conditions.values()})
    return Finding(
        letter="d",
        claim=_CLAIM_D,
        verdict=judged([inside >= 0.9 * len(blind), found == len(seeing)]),
        sentences=(
            f"Output change of {' and '.join(sizes)} at {noise:g} % noise. AUC of the balanced distances "
            "(W₁, W₂, sliced, Sobolev, axis and moment W₂): "
            f"{number(min(a.value for a in blind.values()), 2)} to "
            f"{number(max(a.value for a in blind.values()), 2)}, 0.5 within the interval in {inside} of "
            f"{len(blind)}; of DMD and the mass ratio: at least "
            f"{number(min(a.value for a in seeing.values()))} in all {len(seeing)}.",
        ),
        numbers={
            "balanced": {k: a.value for k, a in blind.items()},
            "seeing": {k: a.value for k, a in seeing.items()},
        },
    )


_CLAIM_D = "Balanced OT is blind to output changes; DMD and the mass ratio are not."


def where_transport_loses(analysis: StudyAnalysis) -> Finding:
    """(e) Hot and cold spots, a missing leaf, single voxels; and the low-dose bath."""
    noise = analysis.reference_noise
    sentences, parts, numbers = [], [], {}
    for change in matching(analysis.table.changes, "spot", "leaf", "strip"):
        for case in analysis.table.cases:
            found = _race(analysis, case, change, noise)
            if found is None:
                continue
            best, ours = found["best"], found["dmd"]
            parts.append(found["lost"])
            numbers[f"{case} {change}"] = found
            sentences.append(
                f"{pretty(change).capitalize()} in {pretty(case)} at {noise:g} % noise: smallest found with "
                f"DMD {ours}, with the best metric of voxels, {found['name']}, {best}."
            )
    white, more = _losses_on_white_noise(analysis.findings, numbers)
    parts += white
    return Finding(
        letter="e",
        claim="OT loses against metrics of voxels for hot and cold spots in a plateau, a missing leaf and "
        "errors in single voxels; and DMD exaggerates a change of the low-dose bath.",
        verdict=judged(parts),
        sentences=(*sentences, *more),
        numbers=numbers,
    )


def _race(analysis: StudyAnalysis, case: str, change: str, noise: float) -> dict[str, Any] | None:
    """DMD against the best metric of voxels: who finds the smaller change."""
    ours = analysis.smallest.get((case, change, "dmd_mm", noise))
    others = {m: analysis.smallest.get((case, change, m, noise)) for m in LOCAL}
    known = {m: s for m, s in others.items() if s is not None}
    if ours is None or not known:
        return None
    name = min(known, key=lambda m: known[m].value)
    return {
        "dmd": ours.text,
        "best": known[name].text,
        "name": label(name),
        "lost": known[name].value < ours.value,
        "tie": known[name].value == ours.value,
    }


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
