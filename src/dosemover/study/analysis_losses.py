"""Where optimal transport loses against metrics of voxels, and what it exaggerates: statement (e)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dosemover.study.analysis_detection import BOOTSTRAPS, Interval, resampled
from dosemover.study.analysis_labels import LOCAL, label, matching, pretty
from dosemover.study.analysis_summary import Condition, StudyAnalysis, conditions
from dosemover.study.analysis_table import Cell, scores, trait
from dosemover.study.analysis_verdicts import BLIND_Z, PASSES_PERCENT, Finding, number, part

_CLAIM = (
    "OT loses against metrics of voxels for hot and cold spots in a plateau, a missing leaf and "
    "errors in single voxels; and DMD exaggerates a change of the low-dose bath."
)
_KINDS = {
    "a hot spot": ("hot_spot", "hot spot"),
    "a cold spot": ("cold_spot", "cold spot"),
    "a hot beside a cold spot": ("hot_and_cold", "hot beside cold"),
    "a missing leaf": ("missing_leaf", "leaf"),
    "an error in one voxel": ("one_voxel", "one voxel"),
}
"""What transport is said to lose, with its names in the study and in the small studies."""

_FEWEST = 4
"""Replicates from which the best metric can be chosen on one half and measured on the other."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Race:
    """The Dose Mover's Distance against the best metric of voxels on one change, over the noise levels.

    Parameters
    ----------
    text : str
        The change in words.
    levels : tuple of float
        Noise levels [%] that the AUC are averaged over.
    ours, flat : float
        AUC of the Dose Mover's Distance and of the flat norm.
    rival : str
        The metric of voxels with the highest AUC.
    best : float
        Its AUC: the highest of many, a little too high by chance.
    lead : Interval
        By how much the best metric of voxels leads, chosen on one half of the replicates and measured on
        the other, so that chance does not help it; with a 95 % interval.
    """

    text: str
    levels: tuple[float, ...]
    ours: float
    flat: float
    rival: str
    best: float
    lead: Interval

    @property
    def outcome(self) -> str:
        """Whether transport surely loses, surely wins, or neither."""
        return "loses" if self.lead.low > 0 else "wins" if self.lead.high < 0 else "no difference"


def races(analysis: StudyAnalysis, *words: str) -> list[Race]:
    """The races on all changes of a kind."""
    grouped: dict[str, list[Condition]] = {}
    for one in conditions(analysis, *words):
        grouped.setdefault(one.text, []).append(one)
    found = (_race(analysis, text, each) for text, each in grouped.items())
    return [race for race in found if race is not None]


def _race(analysis: StudyAnalysis, text: str, each: Sequence[Condition]) -> Race | None:
    """The race on one change, or nothing where there are too few replicates."""
    pairs = []
    for one in each:
        if "dmd_mm" in one.by:
            cells = {m: (analysis.table.null_of(d.cell), d.cell) for m, d in one.by.items()}
            pairs.append({m: (null, cell) for m, (null, cell) in cells.items() if null is not None})
    rivals = [m for m in LOCAL if pairs and all(m in by for by in pairs)]
    whole = [by[m] for by in pairs for m in (*rivals, "dmd_mm")]
    if not rivals or min(min(null.values.size, cell.values.size) for null, cell in whole) < _FEWEST:
        return None
    aucs = {
        m: float(np.mean([one.by[m].auc.value for one in each if m in one.by]))
        for m in (*rivals, "dmd_mm", "kr_mm")
        if all(m in by for by in pairs)
    }
    rival = max(rivals, key=lambda m: aucs[m])
    return Race(
        text=text,
        levels=tuple(sorted(one.noise for one in each if "dmd_mm" in one.by)),
        ours=aucs["dmd_mm"],
        flat=aucs.get("kr_mm", math.nan),
        rival=rival,
        best=aucs[rival],
        lead=_lead(pairs, rivals),
    )


def _lead(pairs: Sequence[Mapping[str, tuple[Cell, Cell]]], rivals: Sequence[str]) -> Interval:
    """Lead of the best rival over the Dose Mover's Distance, with its interval by bootstrap."""
    names = (*rivals, "dmd_mm")
    value = _crossed(pairs, names, None)[0]
    drawn = np.sort(_crossed(pairs, names, np.random.default_rng(0)))
    low, high = drawn[int(0.025 * (drawn.size - 1))], drawn[int(np.ceil(0.975 * (drawn.size - 1)))]
    return Interval(value=float(value), low=float(low), high=float(high))


def _crossed(
    pairs: Sequence[Mapping[str, tuple[Cell, Cell]]], names: Sequence[str], rng: np.random.Generator | None
) -> NDArray[np.float64]:
    """Lead for each draw, shape (draws,): the rival chosen on one half of the replicates, seen on another."""
    draws = 1 if rng is None else BOOTSTRAPS
    means = np.zeros((2, draws, len(names)))
    for by in pairs:
        for half in (0, 1):
            sizes = [values[half::2].size for name in names for values in (c.values for c in by[name])]
            chosen = resampled(min(sizes), draws, rng)
            for k, name in enumerate(names):
                null, changed = (cell.values[half::2][chosen] for cell in by[name])
                noise, signal = scores(name, null, changed)
                wins = signal[:, None, :] > noise[:, :, None]
                ties = signal[:, None, :] == noise[:, :, None]
                means[half, :, k] += (wins + 0.5 * ties).mean(axis=(1, 2)) / len(pairs)
    draw = np.arange(draws)
    leads = [
        means[half, draw, means[1 - half, :, :-1].argmax(axis=1)] - means[half, :, -1] for half in (0, 1)
    ]
    return np.mean(leads, axis=0)


def where_transport_loses(analysis: StudyAnalysis) -> Finding:
    """(e) Hot and cold spots, a missing leaf, single voxels; and the low-dose bath."""
    white = _white_races(analysis.findings)
    parts, sentences, numbers = [], [], {}
    for kind, words in _KINDS.items():
        own = races(analysis, *words)
        numbers |= {race.text: {"lead": race.lead.value, "outcome": race.outcome} for race in own}
        lost = [race.outcome == "loses" for race in own]
        lost += [found["lost"] for name, found in white.items() if name.startswith(words)]
        parts.append(part(f"DMD loses against metrics of voxels: {kind}", lost))
    numbers |= {f"white {name}": found for name, found in white.items()}
    sentences += _summary(analysis)
    if white:
        sentences.append(
            f"White noise of {analysis.findings['detection']['noise_percent']:g} %: "
            + "; ".join(found["text"] for found in white.values())
            + "."
        )
    bath, lines = _bath(analysis, numbers)
    more, others = _white_bath(analysis.findings, numbers)
    parts.append(part("DMD exaggerates a change of the low-dose bath", [*bath, *more]))
    return Finding(
        letter="e", claim=_CLAIM, parts=tuple(parts), sentences=(*sentences, *lines, *others), numbers=numbers
    )


def race_rows(analysis: StudyAnalysis) -> list[Race]:
    """Races on everything that transport is said to lose."""
    return [race for words in _KINDS.values() for race in races(analysis, *words)]


def _summary(analysis: StudyAnalysis) -> Iterator[str]:
    """Which races are lost, won, or neither."""
    rows = race_rows(analysis)
    if not rows:
        return
    lost, won = ([race.text for race in rows if race.outcome == outcome] for outcome in ("loses", "wins"))
    yield (
        "Detection, mean AUC over the noise levels: the DMD surely loses against the best metric of voxels "
        f"in {len(lost)} of {len(rows)} changes{_listed(lost)} and surely wins in {len(won)}{_listed(won)}; "
        f"in {len(rows) - len(lost) - len(won)} the study cannot tell."
    )


def _listed(names: Sequence[str]) -> str:
    """Names in parentheses, nothing where there are none."""
    return f" ({'; '.join(names)})" if names else ""


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


def _white_races(findings: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What DMD and the best metric of voxels see under white noise."""
    changes = findings.get("detection", {}).get("changes", {})
    names = tuple(word for words in _KINDS.values() for word in words)
    found = {}
    for name in (n for n in changes if n.startswith(names)):
        z = {m: toward(m, changes[name][m]["z"]) for m in LOCAL if m in changes[name]}
        best = max(z, key=lambda m: z[m])
        ours = toward("dmd_mm", changes[name]["dmd_mm"]["z"])
        clean = number(changes[name]["dmd_mm"]["clean"], 2)
        found[name] = {
            "dmd": ours,
            "best": z[best],
            "name": label(best),
            "lost": z[best] > max(ours, BLIND_Z),
            "text": f"{name}: DMD z = {number(ours, 2)} ({clean} mm without noise), {label(best)} "
            f"z = {number(z[best], 2)}",
        }
    return found


def _white_bath(findings: Mapping[str, Any], numbers: dict[str, Any]) -> tuple[list[bool], list[str]]:
    """What DMD and gamma read of a weak bath without noise, beside a shift of the whole field."""
    changes = findings.get("detection", {}).get("changes", {})
    bath = next((n for n in changes if n.startswith("bath")), None)
    if bath is None:
        return [], []
    by, shift = changes[bath], changes["shift 1 mm"]["dmd_mm"]["clean"]
    reading, mass = by["dmd_mm"]["clean"], 100 * (by["mass_ratio"]["clean"] - 1)
    rate = by["gamma_2_2_global_passing_rate_percent"]["clean"]
    numbers["bath"] = {"dmd": reading, "mass_percent": mass, "gamma": rate}
    exaggerated = reading > shift and rate >= PASSES_PERCENT
    text = (
        f"{bath.capitalize()}, {number(mass, 2)} % of the integral dose: DMD reads {number(reading)} mm, "
        f"{'more' if reading > shift else 'no more'} than the {number(shift)} mm of a 1 mm shift of the "
        f"whole field, while γ 2/2 passes {number(rate, 4)} %."
    )
    return [exaggerated], [text]


def toward(metric: str, z: float | None) -> float:
    """Strength z in the direction that speaks of a difference; 0 where there is none."""
    if z is None:
        return 0.0
    direction = trait(metric).direction
    return -z if direction == "smaller" else abs(z) if direction == "both" else z
