"""What noise does to gamma's passing rate: statements (a) and (b)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dosemover.study.analysis_labels import matching, pretty
from dosemover.study.analysis_summary import StudyAnalysis, conditions
from dosemover.study.analysis_table import Cell
from dosemover.study.analysis_verdicts import PASSES_PERCENT, Finding, number, part
from dosemover.study.table import NO_CHANGE

Rows = list[Mapping[str, Any]]

RATES = {
    "gamma_2_2_global_passing_rate_percent": "γ 2/2",
    "gamma_3_3_global_passing_rate_percent": "γ 3/3",
}
DISTANCES_MM = dict(zip(RATES, (2.0, 3.0), strict=True))
"""Distance to agreement of each rate [mm]."""

ROOM_PERCENT = 99.0
"""Passing rate below which there is room to rise."""

CALM_PERCENT = 3.0
"""Noise up to which a passing rate is taken for that of the change."""

_SURE = 3.0
"""Standard errors from which two mean rates are said to differ."""

_CLAIM_A = (
    "γ's passing rate rises with noise in the evaluated map and falls with noise in the reference; "
    "a failing map can be made to pass by adding noise."
)
_CLAIM_B = "A 1 mm shift passes γ 3 %/3 mm."


@dataclass(frozen=True, kw_only=True, eq=False)
class Track:
    """Passing rate of one changed map over the noise in one of the two maps.

    Parameters
    ----------
    cells : tuple of Cell
        The least noise first; at least two.
    rate : str
        Metric key, one of `RATES`.
    """

    cells: tuple[Cell, ...]
    rate: str

    @property
    def calm(self) -> Cell:
        """At the least noise."""
        return self.cells[0]

    @property
    def last(self) -> Cell:
        """At the most noise."""
        return self.cells[-1]

    @property
    def best(self) -> Cell:
        """Where the rate is highest."""
        return max(self.cells, key=lambda cell: cell.mean)

    @property
    def rises(self) -> bool:
        """Whether the rate at some noise is surely above that at the least."""
        return any(_gain(self.calm, cell) > _SURE for cell in self.cells[1:])

    @property
    def falls(self) -> bool:
        """Whether the rate at the most noise is surely below that at the least."""
        return _gain(self.calm, self.last) < -_SURE

    @property
    def saved(self) -> bool:
        """Whether a map that fails at the least noise passes at more."""
        return self.calm.mean < PASSES_PERCENT <= self.best.mean


def _gain(calm: Cell, noisy: Cell) -> float:
    """Difference of two mean rates in its standard errors."""
    error = math.hypot(calm.standard_error, noisy.standard_error)
    return (noisy.mean - calm.mean) / error if error > 0 else math.copysign(math.inf, noisy.mean - calm.mean)


def tracks(analysis: StudyAnalysis, where: str, *, changed: bool = True) -> list[Track]:
    """Passing rates over the noise in one map, of changed maps or of unchanged ones."""
    found: dict[tuple[str, str, str, float], list[Cell]] = {}
    for rate in RATES:
        for cell in analysis.table.select(metric=rate, noise_in=where):
            if cell.values.size > 1 and (cell.change != NO_CHANGE) == changed:
                found.setdefault((rate, cell.case, cell.change, cell.magnitude), []).append(cell)
    return [
        Track(cells=tuple(sorted(cells, key=lambda c: c.noise_percent)), rate=key[0])
        for key, cells in found.items()
        if len(cells) > 1
    ]


def gamma_rows(analysis: StudyAnalysis) -> Iterator[dict[str, Any]]:
    """Rows of a table: rates at the least noise, at their highest and at the most noise."""
    other = {_key(track): track for track in tracks(analysis, "reference")}
    for track in tracks(analysis, "evaluated"):
        if track.calm.mean >= ROOM_PERCENT:
            continue
        cell, partner = track.calm, other.get(_key(track))
        yield {
            "case": pretty(cell.case),
            "voxel_mm": analysis.voxel_mm(cell.case),
            "change": f"{pretty(cell.change)} {cell.magnitude:g} {cell.magnitude_unit}".strip(),
            "rate": RATES[track.rate],
            "calm": cell.mean,
            "calm_noise": cell.noise_percent,
            "best": track.best.mean,
            "best_noise": track.best.noise_percent,
            "last": track.last.mean,
            "last_noise": track.last.noise_percent,
            "reference_last": partner.last.mean if partner is not None else math.nan,
            "reference_noise": partner.last.noise_percent if partner is not None else math.nan,
        }


def _key(track: Track) -> tuple[str, str, str, float]:
    """What a track is about."""
    return track.rate, track.calm.case, track.calm.change, track.calm.magnitude


def gamma_under_noise(analysis: StudyAnalysis) -> Finding:
    """(a) Passing rates rise with noise in the evaluated map and fall with noise in the reference."""
    roomy = [track for track in tracks(analysis, "evaluated") if track.calm.mean < ROOM_PERCENT]
    failing = [track for track in roomy if track.calm.mean < PASSES_PERCENT]
    falling = tracks(analysis, "reference")
    numbers: dict[str, Any] = {
        "rising": sum(track.rises for track in roomy),
        "rising_of": len(roomy),
        "falling": sum(track.falls for track in falling),
        "falling_of": len(falling),
        "saved": sum(track.saved for track in failing),
        "saved_of": len(failing),
    }
    if saved := [track for track in failing if track.saved]:
        numbers["worst_saved"] = _told(min(saved, key=lambda track: track.calm.mean))
    sentences = [*_rising(roomy), *_falling(falling), *_saved(failing), *_unchanged(analysis)]
    sentences += _flattered(analysis)
    passed, more = made_to_pass(analysis.findings, numbers)
    wide = {track: analysis.voxel_mm(track.calm.case) > DISTANCES_MM[track.rate] for track in roomy}
    fine, coarse = ([track.rises for track in roomy if wide[track] == which] for which in (False, True))
    made = [*([numbers["saved"] > 0] if failing else []), *passed]
    return Finding(
        letter="a",
        claim=_CLAIM_A,
        parts=(
            part(f"{_RAISES}, on voxels no wider than the distance to agreement", fine, _MOST),
            part(f"{_RAISES}, on wider voxels", coarse, _MOST),
            part("noise in the reference lowers it", (track.falls for track in falling), _MOST),
            part("a failing map is made to pass: in the study, with white noise, with real noise", made),
        ),
        sentences=(*sentences, *more),
        numbers=numbers,
    )


_RAISES = "noise in the evaluated map raises the rate of a changed map"

_MOST = 0.8
"""Share of the maps in which a tendency has to be seen."""


def _rising(roomy: Sequence[Track]) -> list[str]:
    """How often rates rise with noise in the evaluated map."""
    if not roomy:
        return []
    up = [track for track in roomy if track.rises]
    text = (
        f"Noise in the evaluated map: of {len(roomy)} rates under {ROOM_PERCENT:g} % (γ 2/2 and γ 3/3 of "
        f"changed maps) {len(up)} rise surely, by more than {_SURE:g} standard errors, at some more noise"
    )
    if up:
        gains = [track.best.mean - track.calm.mean for track in up]
        back = sum(track.last.mean < track.calm.mean for track in up)
        text += (
            f", by {number(min(gains), 2)} to {number(max(gains), 2)} points; with the most noise studied "
            f"{back} of them lie below where they began"
        )
    return [text + "."]


def _falling(falling: Sequence[Track]) -> list[str]:
    """How often rates fall with noise in the reference."""
    if not falling:
        return []
    losses = [track.calm.mean - track.last.mean for track in falling]
    return [
        f"Noise in the reference: {sum(track.falls for track in falling)} of {len(falling)} rates fall "
        f"surely from the least to the most noise studied, by {number(float(np.mean(losses)))} points on "
        "average."
    ]


def _saved(failing: Sequence[Track]) -> list[str]:
    """Which failing maps pass with more noise."""
    if not failing:
        return []
    saved = [track for track in failing if track.saved]
    text = (
        f"Of {len(failing)} rates that fail the limit of {PASSES_PERCENT:g} % at the least noise, "
        f"{len(saved) or 'none'} "
    )
    if not saved:
        return [text + "passes it with more noise in the evaluated map alone."]
    listed = "; ".join(_told(track) for track in saved)
    verb = "pass" if len(saved) > 1 else "passes"
    return [text + f"{verb} it with more noise in the evaluated map: {listed}."]


def _flattered(analysis: StudyAnalysis) -> list[str]:
    """Where a map with too much output surely passes more than one without any change, noise in both."""
    tried = [
        (one, rate)
        for one in conditions(analysis, "output", "scale")
        for rate in RATES
        if rate in one.by and one.case in analysis.cases
    ]
    better = [(one, rate) for one, rate in tried if one.by[rate].auc.high < 0.5]
    if not better:
        return []
    one, rate = max(better, key=lambda found: (found[0].size, -found[0].noise))
    null = analysis.table.null_of(one.by[rate].cell)
    means = (
        ""
        if null is None
        else (
            f" ({RATES[rate]}, {one.text}, {one.noise:g} % noise: {number(one.by[rate].cell.mean)} % on "
            f"average, {number(null.mean)} % without the change)"
        )
    )
    return [
        f"With noise in both maps, {len(better)} of {len(tried)} rates are surely higher with too much "
        f"output than without any change (AUC below 0.5 with its whole interval){means}: there γ flatters "
        "the error."
    ]


def _told(track: Track) -> str:
    """A map that is made to pass, in words."""
    calm, best = track.calm, track.best
    return (
        f"{RATES[track.rate]}, {pretty(calm.change)} {calm.magnitude:g} {calm.magnitude_unit} "
        f"({pretty(calm.case)}): {number(calm.mean)} % at {calm.noise_percent:g} % noise, "
        f"{number(best.mean)} % at {best.noise_percent:g} %"
    )


def _unchanged(analysis: StudyAnalysis) -> list[str]:
    """What noise takes from the rates of maps that did not change."""
    lost = {
        where: [track.calm.mean - track.last.mean for track in tracks(analysis, where, changed=False)]
        for where in ("evaluated", "reference")
    }
    if not all(lost.values()):
        return []
    evaluated, reference = (number(float(np.mean(values))) for values in lost.values())
    return [
        f"Without any change rates can only fall: by {evaluated} points on average with the most noise in "
        f"the evaluated map, by {reference} with the most in the reference."
    ]


def passing_example(found: Mapping[str, Any]) -> tuple[str, Rows, Rows]:
    """Passing rate and rows of one output, noise in the evaluated map and in the reference, the least first.

    It is the first rate, and the largest output, with a map that fails at the least noise and passes at more;
    where there is none, the first rate and the smallest output that fails at the least noise.
    """
    by_output: dict[float, dict[str, Rows]] = {}
    for row in sorted(found["rows"], key=lambda row: float(row["noise_percent"])):
        places = by_output.setdefault(float(row["output_percent"]), {"evaluated": [], "reference": []})
        places[row["noise_in"]].append(row)
    failing = {
        rate: [o for o, places in by_output.items() if places["evaluated"][0][rate] < PASSES_PERCENT]
        for rate in RATES
    }
    for rate, outputs in failing.items():
        passing = [o for o in outputs if max(r[rate] for r in by_output[o]["evaluated"]) >= PASSES_PERCENT]
        if passing:
            chosen = by_output[max(passing)]
            return rate, chosen["evaluated"], chosen["reference"]
    rate = next((rate for rate, outputs in failing.items() if outputs), next(iter(RATES)))
    chosen = by_output[min(failing[rate] or by_output)]
    return rate, chosen["evaluated"], chosen["reference"]


def made_to_pass(findings: Mapping[str, Any], numbers: dict[str, Any]) -> tuple[list[bool], list[str]]:
    """Whether a map that fails at the least noise passes at more, on white and on real noise."""
    parts, sentences = [], []
    for key, kind in (("made_to_pass", "White noise"), ("real_made_to_pass", "Real 6 MV noise (DOSXYZnrc)")):
        if key not in findings:
            continue
        rate, rows, others = passing_example(findings[key])
        calm, best = rows[0], max(rows, key=lambda row: row[rate])
        first = next((r for r in rows if r[rate] >= PASSES_PERCENT), None)
        last = others[-1]
        parts.append(calm[rate] < PASSES_PERCENT <= best[rate])
        numbers[key] = {
            "rate": RATES[rate],
            "output": calm["output_percent"],
            "calm": calm[rate],
            "best": best[rate],
            "noise": best["noise_percent"],
        }
        start = (
            ""
            if first is None or first is calm
            else (
                f" (over the limit of {PASSES_PERCENT:g} % from {number(first['noise_percent'], 2)} % "
                "noise on)"
            )
        )
        sentences.append(
            f"{kind}, output {number(calm['output_percent'], 2)} % too high: {RATES[rate]} passes "
            f"{number(calm[rate])} % at {number(calm['noise_percent'], 2)} % noise in the evaluated map and "
            f"{number(best[rate])} % at {number(best['noise_percent'], 2)} %{start}; with "
            f"{number(last['noise_percent'], 2)} % noise in the reference it passes {number(last[rate])} %. "
            f"The mass ratio reads {number(calm['mass_ratio'], 4)} and {number(best['mass_ratio'], 4)}, the "
            f"DMD {number(calm['dmd_mm'])} and {number(best['dmd_mm'])} mm."
        )
    return parts, sentences


def shift_passes_gamma(analysis: StudyAnalysis) -> Finding:
    """(b) A 1 mm shift passes gamma 3 %/3 mm."""
    rates: dict[str, float] = {}
    for name in matching(analysis.table.changes, "shift"):
        cells = analysis.table.select(change=name, metric="gamma_3_3_global_passing_rate_percent")
        for cell in cells:
            if cell.values.size and cell.magnitude_unit == "mm" and cell.magnitude == _nearest(cells, 1.0):
                calm = analysis.table.noiseless(cell)
                if calm is not None and calm.noise_percent <= CALM_PERCENT:
                    width = analysis.voxel_mm(cell.case)
                    voxels = f", voxels of {width:g} mm" if math.isfinite(width) else ""
                    noise = f"{calm.noise_percent:g} % noise"
                    rates[f"{pretty(cell.case)}, {pretty(name)} {cell.magnitude:g} mm{voxels}, {noise}"] = (
                        calm.mean
                    )
    if not rates:
        return Finding(letter="b", claim=_CLAIM_B)
    listed = "; ".join(f"{name}: {rate:.1f} %" for name, rate in sorted(rates.items()))
    return Finding(
        letter="b",
        claim=_CLAIM_B,
        parts=(part("it passes, by case", (rate >= PASSES_PERCENT for rate in rates.values())),),
        sentences=(
            f"γ 3 %/3 mm passing rate at the least noise of the study: {listed}.",
            "The condition is that γ is searched between voxels: then a dose that moved by 1 mm is found "
            "1 mm away, γ = 1/3 but for the error of the interpolation, whatever its gradient. A search of "
            "voxel centers alone lets such a shift fail where the dose changes by more than 3 % within 1 mm "
            "and no center lies near enough; and noise in the reference lowers the rate of any map.",
        ),
        numbers=rates,
    )


def _nearest(cells: Sequence[Cell], size: float) -> float:
    """The studied magnitude nearest to a size, by ratio."""
    sizes = {c.magnitude for c in cells if c.magnitude > 0}
    return min(sizes, key=lambda m: abs(math.log(m / size))) if sizes else math.nan
