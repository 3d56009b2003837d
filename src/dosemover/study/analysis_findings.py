"""What a study shows or refutes: eight statements about metrics under noise, each judged by its numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dosemover.study.analysis_detection import AUC_WANTED, POWER_WANTED
from dosemover.study.analysis_findings_small import atoms_are_biased, moments_are_cheap, smoothing
from dosemover.study.analysis_gamma import gamma_under_noise, shift_passes_gamma
from dosemover.study.analysis_labels import BALANCED, label, pretty
from dosemover.study.analysis_losses import where_transport_loses
from dosemover.study.analysis_summary import Condition, StudyAnalysis, conditions
from dosemover.study.analysis_verdicts import BLIND_Z, Finding, count, number, part

_OUTPUT = ("output", "scale")


_CLAIM_C = (
    "DMD sees a 0.2 mm shift and a 0.2 % output change under 5 % noise. So do the center of dose "
    "and the mass ratio; but there are changes that DMD sees and these two do not."
)
_SMALL = (0.15, 0.3)
"""Sizes [mm or %] that count as 0.2."""


def small_changes(analysis: StudyAnalysis) -> Finding:
    """(c) DMD sees 0.2 mm and 0.2 % under 5 % noise; so do two plain numbers, but not all that DMD sees."""
    noise = analysis.reference_noise
    sentences, parts, numbers = [], [], {}
    white = _white(analysis.findings)
    for words, plain, name, unit in (
        (("shift",), "center_shift_mm", "a shift of 0.2 mm", "mm"),
        (_OUTPUT, "mass_ratio", "an output change of 0.2 %", "%"),
    ):
        small = [
            one
            for one in conditions(analysis, *words)
            if one.noise == noise and _is_small(one) and {"dmd_mm", plain} <= one.by.keys()
        ]
        powers = {one.text: {m: one.by[m].power.value for m in ("dmd_mm", plain)} for one in small}
        numbers |= powers
        simulated = [one.text for one in small if one.case in analysis.cases]
        for metric in ("dmd_mm", plain):
            found = [powers[text][metric] >= POWER_WANTED for text in simulated]
            parts.append(part(f"{label(metric)} sees {name} under simulated noise", found))
            parts.append(
                part(f"{label(metric)} sees {name} under white noise", white.seen.get((unit, metric), []))
            )
        if small:
            listed = "; ".join(
                f"{text}: {', '.join(f'{label(m)} {100 * power:.0f} %' for m, power in by.items())}"
                for text, by in powers.items()
            )
            sentences.append(f"Power to find {name} at 5 % false alarms under {noise:g} % noise. {listed}.")
        sentences += _needed(analysis, words, name)
    found = beyond_two_numbers(analysis)
    beyond = [one.text for one in found]
    sentences += _beyond(found)
    claim = "there are changes that DMD sees and these two do not"
    if numbers:
        parts.append(part(f"{claim}, under simulated noise", [bool(beyond)]))
    if white.sentences:
        parts.append(part(f"{claim}, under white noise", [bool(white.blind)]))
    return Finding(
        letter="c",
        claim=_CLAIM_C,
        parts=tuple(parts),
        sentences=(*sentences, *_mass_noise(analysis, noise), *white.sentences),
        numbers={**numbers, "beyond": beyond, "white_beyond": white.blind},
    )


def _is_small(one: Condition) -> bool:
    """Whether a change counts as one of 0.2 mm or 0.2 %."""
    return _SMALL[0] <= one.size <= _SMALL[1]


def _needed(analysis: StudyAnalysis, words: tuple[str, ...], name: str) -> list[str]:
    """From how much noise downwards metrics find a small change in each simulated case."""
    listed = []
    for one in {(c.case, c.change, c.size): c for c in conditions(analysis, *words)}.values():
        if one.case not in analysis.cases or not _is_small(one):
            continue
        texts = []
        for metric in ("dmd_mm", "dmd_moved_mm", "center_shift_mm", "mass_ratio", "rmse_gy"):
            found = analysis.histories.get((one.case, one.change, one.size, metric))
            if found is not None and math.isfinite(found.value):
                percent = _noise_at(analysis, one.case, found.value)
                texts.append(f"{label(metric)} {number(percent, 2)} % ({count(found.value)} histories)")
        listed.append(f"{pretty(one.case)}: {', '.join(texts) or 'none at the noise studied'}")
    if not listed:
        return []
    return [
        f"Noise from which {name} is found with a power of {100 * POWER_WANTED:g} %: {'; '.join(listed)}."
    ]


def _noise_at(analysis: StudyAnalysis, case: str, histories: float) -> float:
    """Noise of a map with so many histories in a case [%]."""
    null = analysis.table.select(case=case, change="none", noise_in="both", metric="mass_ratio")
    return math.sqrt(max(cell.histories * cell.noise_percent**2 for cell in null) / histories)


def _mass_noise(analysis: StudyAnalysis, noise: float) -> list[str]:
    """What the noise of the whole dose adds to DMD in each simulated case."""
    listed = []
    for case in analysis.cases:
        where = {"case": case, "change": "none", "noise_percent": noise, "noise_in": "both"}
        mass, dmd = (analysis.table.select(metric=m, **where) for m in ("mass_ratio", "dmd_mm"))
        if mass and dmd and min(mass[0].values.size, dmd[0].values.size) > 1:
            listed.append(
                f"{pretty(case)}: {count(mass[0].histories)} histories, {number(100 * mass[0].sd, 2)} % and "
                f"{number(dmd[0].mean, 2)} mm"
            )
    if not listed:
        return []
    return [
        f"Why: a photon deposits dose all along its way, so that the noise of voxels does not average out in "
        f"sums as white noise does. Histories of a map with {noise:g} % noise in a voxel, standard deviation "
        f"of the ratio of two integral doses by noise alone, and the DMD's floor: {'; '.join(listed)}. "
        "The DMD counts each percent of the integral dose as a millimeter."
    ]


_BLIND_POWER = 0.25
"""Power up to which a metric is said not to see a change."""


def beyond_two_numbers(analysis: StudyAnalysis) -> list[Condition]:
    """Changes that the DMD or its moved part finds under simulated noise, and two plain numbers do not.

    Of each change the condition with the most noise at which that is so.
    """
    found: dict[str, Condition] = {}
    for one in conditions(analysis, ""):  # in the order of their noise
        if one.case not in analysis.cases or not {"dmd_mm", *_PLAIN} <= one.by.keys():
            continue
        ours = max(one.by[m].power.value for m in _OURS if m in one.by)
        others = max(one.by[m].power.value for m in _PLAIN)
        if ours >= POWER_WANTED and others <= _BLIND_POWER:
            found[one.text] = one
    return list(found.values())


def _beyond(found: Sequence[Condition]) -> list[str]:
    """The same in words, with what the other metrics make of these changes."""
    if not found:
        return []
    sentences = [
        f"Under simulated noise the DMD or its moved part finds {len(found)} changes with a power of at "
        f"least {100 * POWER_WANTED:g} % that neither the center of dose nor the mass ratio finds with more "
        f"than {100 * _BLIND_POWER:g} %: "
        f"{'; '.join(f'{one.text} at {one.noise:g} % noise' for one in found)}."
    ]
    counts = {
        m: sum(m in one.by and one.by[m].power.value >= POWER_WANTED for one in found)
        for m in (*_OURS, "kr_mm", "rmse_gy", "best_shift_mm")
    }
    listed = ", ".join(f"{label(m)} {n}" for m, n in counts.items())
    return [*sentences, f"How many of these {len(found)} each metric finds with that power: {listed}."]


_OURS = ("dmd_mm", "dmd_moved_mm")
_PLAIN = ("center_shift_mm", "mass_ratio")
"""The two plain numbers that say where the dose is and how much."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _White:
    """What is seen under white noise: by (unit of the change, metric), and by the DMD alone."""

    seen: Mapping[tuple[str, str], list[bool]]
    blind: list[str]
    sentences: list[str]


def _white(findings: Mapping[str, Any]) -> _White:
    """What DMD and the two plain numbers see under white noise, and what only DMD sees."""
    found = findings.get("detection")
    if found is None:
        return _White(seen={}, blind=[], sentences=[])
    listed, blind = [], []
    seen: dict[tuple[str, str], list[bool]] = {}
    for name, by in found["changes"].items():
        z = {m: by[m]["z"] for m in ("dmd_mm", "center_shift_mm", "mass_ratio", "debiased_rmse_gy")}
        if name in ("shift 0.2 mm", "output +0.2 %"):
            unit = name.rsplit(" ", 1)[1]
            plain = "center_shift_mm" if unit == "mm" else "mass_ratio"
            seen |= {(unit, m): [abs(z[m] or 0) > BLIND_Z] for m in ("dmd_mm", plain)}
            listed.append(f"{name}: " + ", ".join(f"{_z(v)} ({label(m)})" for m, v in z.items()))
        elif (z["dmd_mm"] or 0) > BLIND_Z and all(
            abs(z[m] or 0) < BLIND_Z for m in ("center_shift_mm", "mass_ratio")
        ):
            blind.append(
                f"{name} (z = {_z(z['dmd_mm'])} against {_z(z['center_shift_mm'])} and {_z(z['mass_ratio'])})"
            )
    sentences = [
        f"White noise of {found['noise_percent']:g} % as a contrast, z (distance of the reading from the "
        "floor in standard deviations of the floor) of " + "; ".join(listed) + "."
    ]
    if blind:
        sentences.append(
            "What the center of dose and the mass ratio cannot see there, and DMD does: "
            + "; ".join(blind)
            + "."
        )
    return _White(seen=seen, blind=blind, sentences=sentences)


def _z(value: float | None) -> str:
    """A distance from the floor in its standard deviations, to one decimal."""
    return "–" if value is None else f"{value + 0.0:.1f}".replace("-0.0", "0.0").replace("-", "−")


def output_blindness(analysis: StudyAnalysis) -> Finding:
    """(d) Balanced OT is blind to output changes; DMD and the mass ratio are not."""
    chosen: dict[str, Condition] = {}
    for one in conditions(analysis, *_OUTPUT):  # per case the largest change at the least noise from 2 % on
        best = chosen.get(one.case)
        if one.noise >= 1.9 and (best is None or (-one.size, one.noise) < (-best.size, best.noise)):
            chosen[one.case] = one
    blind, seeing = {}, {}
    for one in chosen.values():
        where = f"{one.text}, {one.noise:g} % noise"
        blind |= {f"{label(m)}: {where}": one.by[m].auc for m in BALANCED if m in one.by}
        seeing |= {f"{label(m)}: {where}": one.by[m].auc for m in ("dmd_mm", "mass_ratio") if m in one.by}
    if not blind or not seeing:
        return Finding(letter="d", claim=_CLAIM_D)
    inside = [a.low <= 0.5 for a in blind.values()]
    found = [a.value >= AUC_WANTED for a in seeing.values()]
    listed = "; ".join(f"{one.text} at {one.noise:g} % noise" for one in chosen.values())
    return Finding(
        letter="d",
        claim=_CLAIM_D,
        parts=(
            # of many intervals at 95 %, one in twenty leaves 0.5 out by chance
            part("balanced distances do no better than guessing", inside, 0.9),
            part(f"DMD and the mass ratio find it with an AUC of at least {AUC_WANTED:g}", found),
        ),
        sentences=(
            f"AUC for {listed}: of the balanced distances (W₁, W₂, sliced, Sobolev, axis and moment W₂) "
            f"{number(min(a.value for a in blind.values()), 2)} to "
            f"{number(max(a.value for a in blind.values()), 2)}, and the interval reaches down to 0.5 in "
            f"{sum(inside)} "
            f"of {len(blind)}; of DMD and the mass ratio at least "
            f"{number(min(a.value for a in seeing.values()))}, "
            f"{AUC_WANTED:g} or more in {sum(found)} of {len(seeing)}.",
        ),
        numbers={
            "balanced": {k: a.value for k, a in blind.items()},
            "seeing": {k: a.value for k, a in seeing.items()},
        },
    )


_CLAIM_D = "Balanced OT is blind to output changes; DMD and the mass ratio are not."


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
