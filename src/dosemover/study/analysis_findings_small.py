"""What small measured studies beside the table show, and what moments cost: statements (f), (g), (h)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from dosemover.study.analysis_labels import label
from dosemover.study.analysis_summary import StudyAnalysis
from dosemover.study.analysis_verdicts import Finding, number, part

LITTLE_AUC = 0.02
"""Loss of AUC, averaged over all conditions, that is called little."""


def smoothing(analysis: StudyAnalysis) -> Finding:
    """(f) Smoothers lower RMSE and can raise W."""
    claim = "Smoothers and denoisers lower RMSE and can raise W and DMD."
    if "smoothed" not in analysis.findings:
        return Finding(letter="f", claim=claim)
    found = analysis.findings["smoothed"]
    raised, lowered, sentences = [], [], []
    parts: dict[str, list[bool]] = {"W₂": [], "DMD": []}
    for beam, name in (("p", "6 MV photons"), ("e", "12 MeV electrons")):
        rows = {row["smoother"]: row for row in found["rows"] if row["beam"] == beam}
        if not rows:
            continue
        raw = rows.pop("none")
        better = [row for row in rows.values() if row["rmse_gy"] < raw["rmse_gy"]]
        worse = [row for row in better if row["w2_mm"] > raw["w2_mm"]]
        lowered += better
        raised += worse
        parts["W₂"].append(bool(worse))
        parts["DMD"].append(any(row["dmd_mm"] > raw["dmd_mm"] for row in better))
        best = min(rows.values(), key=lambda row: row["rmse_gy"])
        text = (
            f"{name}, {found['batches']} batches ({number(found['noise_percent'][beam], 2)} % noise) "
            f"against the mean of all others: {best['smoother']} lowers RMSE by "
            f"{number(100 * (1 - best['rmse_gy'] / raw['rmse_gy']), 2)} % and changes W₂ from "
            f"{number(raw['w2_mm'])} to {number(best['w2_mm'])} mm and DMD from {number(raw['dmd_mm'])} to "
            f"{number(best['dmd_mm'])} mm"
        )
        top = max(worse, key=lambda row: row["w2_mm"] / raw["w2_mm"], default=best)
        if top is not best:
            text += (
                f"; {top['smoother']} still lowers RMSE by "
                f"{number(100 * (1 - top['rmse_gy'] / raw['rmse_gy']), 2)} % and raises W₂ "
                f"{number(top['w2_mm'] / raw['w2_mm'], 2)}-fold, DMD "
                f"{number(top['dmd_mm'] / raw['dmd_mm'], 2)}-fold"
            )
        sentences.append(text + ".")
    return Finding(
        letter="f",
        claim=claim,
        parts=(
            part("some smoother lowers RMSE and raises W₂, by beam", parts["W₂"]),
            part("some smoother lowers RMSE and raises DMD, by beam", parts["DMD"]),
        ),
        sentences=(
            *sentences,
            f"{len(raised)} of the {len(lowered)} smoothers that lower RMSE raise W₂: noise is unbiased, a "
            "filter is not.",
        ),
        numbers={"lowered": len(lowered), "raised": len(raised)},
    )


def atoms_are_biased(analysis: StudyAnalysis) -> Finding:
    """(g) W_2 on voxel atoms is biased, W_1 less so."""
    claim = "W₂ between voxel atoms is biased; W₁ less so."
    if "atoms" not in analysis.findings:
        return Finding(letter="g", claim=claim)
    found = analysis.findings["atoms"]
    moved = [row for row in found["shifts"] if row["shift_mm"] < found["voxel_mm"]]
    first, copies = moved[0], found["copies"][0]
    w2 = max(abs(row["w2_atoms"] / row["shift_mm"] - 1) for row in moved)
    w1 = max(abs(row["w1_atoms"] / row["shift_mm"] - 1) for row in moved)
    noise2, noise1 = copies["w2_atoms"] / copies["w2_density"], copies["w1_atoms"] / copies["w1_density"]
    return Finding(
        letter="g",
        claim=claim,
        parts=(
            part("W₂ of atoms misreads a small shift by more than a tenth", [w2 > 0.1]),
            part("W₁ of atoms misreads it less than a tenth as much", [w1 < 0.1 * w2]),
            part("noise raises W₂ of atoms over that of densities more than W₁", [noise1 < noise2]),
        ),
        sentences=(
            f"A field shifted by {number(first['shift_mm'], 2)} mm on {number(found['voxel_mm'], 2)} mm "
            f"voxels: W₂ of voxel atoms {number(first['w2_atoms'])} mm, W₁ of atoms "
            f"{number(first['w1_atoms'])} mm, W₂ of densities {number(first['w2_density'])} mm.",
            f"Two copies of one map with {number(copies['noise_percent'], 2)} % noise each: W₂ of atoms "
            f"{number(copies['w2_atoms'])} mm, of densities {number(copies['w2_density'])} mm (certified "
            f"{number(copies['w2_lower'])} to {number(copies['w2_upper'])}), {number(noise2, 2)} times as "
            f"much; W₁ {number(copies['w1_atoms'])} and {number(copies['w1_density'])} mm, "
            f"{number(noise1, 2)} times.",
        ),
        numbers={"w2_error": w2, "w1_error": w1, "noise_ratio_w2": noise2, "noise_ratio_w1": noise1},
    )


def _cost_ratio(findings: Mapping[str, Any], full: str, moment: str) -> tuple[float, str] | None:
    """How many times cheaper moments are on the largest grid measured, and that in words."""
    rows = findings.get("costs", {}).get("rows", [])
    if not rows:
        return None
    size = max(row["size"] for row in rows)
    seconds = {row["way"]: row["seconds"] for row in rows if row["size"] == size}
    ratio = seconds[full] / seconds[moment]
    text = (
        f"; on {size}³ voxels {number(seconds[moment], 2)} s instead of {number(seconds[full], 2)} s, "
        f"{number(ratio, 2)} times cheaper"
    )
    certified = seconds.get(f"{full} certified")
    if certified is not None:
        text += f" ({number(certified / seconds[moment], 2)} times cheaper than with certified bounds)"
    return max(ratio, (certified or 0.0) / seconds[moment]), text


def moments_are_cheap(analysis: StudyAnalysis) -> Finding:
    """(h) Moments lose little of the power at a thousandth of the cost."""
    sentences, kept, cheap, numbers = [], [], [], {}
    for full, moment in (("dmd_mm", "moment_dmd_mm"), ("w2_mm", "moment_w2_mm")):
        pairs = [
            (by[full].auc.value, by[moment].auc.value)
            for (case, _, _, _), by in analysis.by_condition.items()
            if full in by and moment in by and case in analysis.cases
        ]
        costs = analysis.seconds.get(full), analysis.seconds.get(moment)
        if not pairs or not costs[0] or not costs[1]:
            continue
        loss = np.array([a - b for a, b in pairs])
        error = float(loss.std(ddof=1) / np.sqrt(loss.size)) if loss.size > 1 else math.nan
        ratio, where = _cost_ratio(analysis.findings, full, moment) or (costs[0] / costs[1], "")
        kept.append(float(loss.mean()) < LITTLE_AUC)
        cheap.append(ratio >= 1000)
        numbers[moment] = {"loss": float(loss.mean()), "error": error, "ratio": ratio}
        where = where or f", {number(ratio, 2)} times cheaper"
        worse = "lower" if loss.mean() >= 0 else "higher"
        sentences.append(
            f"{label(moment)} against {label(full)}: AUC {worse} by {number(abs(float(loss.mean())), 2)} ± "
            f"{number(error, 2)} on average over {len(pairs)} conditions, {number(costs[1], 2)} s instead of "
            f"{number(costs[0], 2)} s on the small grids of the study{where}."
        )
    return Finding(
        letter="h",
        claim="Moments lose little of the power at a thousandth of the cost.",
        parts=(
            part(f"the AUC is lower by less than {LITTLE_AUC:g} on average", kept),
            part("the cost is a thousandth", cheap),
        ),
        sentences=tuple(sentences),
        numbers=numbers,
    )
