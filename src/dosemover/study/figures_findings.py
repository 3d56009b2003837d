"""Figures of the small measured studies beside the table, and of the histories that a change takes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from dosemover.study.analysis_detection import Smallest
from dosemover.study.analysis_gamma import passing_example
from dosemover.study.analysis_labels import WHITE_NOISE, label, matching, pretty
from dosemover.study.analysis_summary import StudyAnalysis
from dosemover.study.analysis_table import trait
from dosemover.study.figures_style import (
    CYCLE,
    EVALUATED,
    INK,
    MARKERS,
    OCHRE,
    REFERENCE,
    SOFT,
    TEAL,
    few_decades,
    heat_map,
    log_ticks,
    new_figure,
    whole_decades,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def figure_white(analysis: StudyAnalysis) -> Figure | None:
    """How many spreads of the floor lie between floor and reading, under white noise."""
    from matplotlib.colors import BoundaryNorm, LinearSegmentedColormap

    found = analysis.findings.get("detection")
    if found is None:
        return None
    changes = found["changes"]
    first = next(iter(changes.values()))
    metrics = [m for m in WHITE_NOISE if m in first]
    values = np.array([[_toward(m, by[m]["z"]) for by in changes.values()] for m in metrics])
    figure, grid = new_figure(height=0.2 * len(metrics) + 1.5)
    colors = LinearSegmentedColormap.from_list("z", ["#ffffff", "#dbe7fb", "#7fb0ff", REFERENCE, "#0b2a66"])
    image = heat_map(
        grid[0, 0],
        values,
        rows=[label(m) for m in metrics],
        columns=list(changes),
        limits=(0, 1),
        cmap=colors,
        norm=BoundaryNorm([0, 1, 2, 3, 5, 10, 30, 100, 300, 1000], 256, extend="both"),
        text=lambda v: f"{v:.1f}".replace("-0.0", "0.0").replace("-", "−") if abs(v) < 10 else f"{v:.0f}",
    )
    figure.colorbar(image, ax=grid[0, 0], label=f"z at {found['noise_percent']:g} % white noise", shrink=0.8)
    return figure


def _toward(metric: str, z: float | None) -> float:
    """Strength z in the direction that speaks of a difference."""
    if z is None:
        return math.nan
    direction = trait(metric).direction
    return -z if direction == "smaller" else abs(z) if direction == "both" else z


def figure_smoothing(analysis: StudyAnalysis) -> Figure | None:
    """RMSE, W_2 and DMD of smoothed maps, relative to the raw one."""
    found = analysis.findings.get("smoothed")
    if found is None:
        return None
    figure, grid = new_figure(1, 2, height=3.0, sharey=True)
    shown = (("rmse_gy", "RMSE"), ("w2_mm", "W₂"), ("dmd_mm", "DMD"))
    for axes, (beam, name) in zip(grid[0], (("p", "6 MV photons"), ("e", "12 MeV electrons")), strict=True):
        rows = [row for row in found["rows"] if row["beam"] == beam]
        raw = next(row for row in rows if row["smoother"] == "none")
        y = np.arange(len(rows))[::-1]
        for i, (metric, title) in enumerate(shown):
            ratio = np.array([row[metric] / raw[metric] for row in rows])
            error = np.array([row[f"{metric}_sd"] / raw[metric] for row in rows])
            axes.errorbar(
                ratio,
                y + 0.2 * (1 - i),
                xerr=error,
                fmt=MARKERS[i],
                color=CYCLE[i],
                label=title,
                elinewidth=0.7,
            )
        axes.axvline(1, color=SOFT, linewidth=0.7)
        axes.set_yticks(y, [row["smoother"] for row in rows])
        axes.set(xscale="log", xlabel="reading / reading of the raw map")
        axes.set_title(f"{name}, {found['noise_percent'][beam]:.1f} % noise")
        _decades(axes)
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return figure


def _decades(axes: Axes) -> None:
    """Plain numbers 0.2, 0.5, 1, 2, 5 on a logarithmic x axis."""
    low, high = axes.get_xlim()
    ticks = [v * 10.0**k for k in range(-3, 4) for v in (1, 2, 5)]
    log_ticks(axes.xaxis, [t for t in ticks if low <= t <= high])


def figure_atoms(analysis: StudyAnalysis) -> Figure | None:
    """Distances between voxel atoms and between densities."""
    found = analysis.findings.get("atoms")
    if found is None:
        return None
    figure, grid = new_figure(1, 2, height=2.7)
    kinds = (
        ("w2_atoms", "W₂, voxel atoms"),
        ("w1_atoms", "W₁, voxel atoms"),
        ("w2_density", "W₂, densities"),
        ("w1_density", "W₁, densities"),
    )
    for axes, rows, x in (
        (grid[0, 0], found["shifts"], "shift_mm"),
        (grid[0, 1], found["copies"], "noise_percent"),
    ):
        values = [row[x] for row in rows]
        for i, (key, name) in enumerate(kinds):
            color = (EVALUATED, OCHRE, REFERENCE, TEAL)[i]
            axes.plot(
                values,
                [row[key] for row in rows],
                "-" if i < 3 else "--",
                marker=MARKERS[i],
                color=color,
                label=name,
            )
        axes.set(xscale="log", yscale="log", ylabel="distance / mm")
        log_ticks(axes.xaxis, values)
    shifts = [row["shift_mm"] for row in found["shifts"]]
    grid[0, 0].plot(shifts, shifts, color=SOFT, linewidth=0.7, zorder=0)
    grid[0, 0].set(xlabel="shift / mm", title=f"shifted field, {found['voxel_mm']:g} mm voxels")
    grid[0, 1].set(xlabel="noise of each copy / %", title="two noisy copies of one map")
    for axes in grid.flat:
        few_decades(axes)
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    return figure


def figure_made_to_pass(analysis: StudyAnalysis) -> Figure | None:
    """Passing rates of a map with too much output over the noise, on white and on real noise."""
    kinds = (("made_to_pass", "white noise"), ("real_made_to_pass", "real 6 MV noise"))
    parts = [(analysis.findings[key], name) for key, name in kinds if key in analysis.findings]
    if not parts:
        return None
    figure, grid = new_figure(1, len(parts), height=2.6, sharey=True)
    for axes, (found, name) in zip(grid[0], parts, strict=True):
        _, evaluated, reference = passing_example(found)
        for where, rows, color in (
            ("evaluated", evaluated, EVALUATED),
            ("reference", reference, REFERENCE),
        ):
            for rate, line in (("3_3", "--"), ("2_2", "-")):
                axes.plot(
                    [r["noise_percent"] for r in rows],
                    [r[f"gamma_{rate}_global_passing_rate_percent"] for r in rows],
                    line + "o",
                    color=color,
                    label=f"γ {rate.replace('_', '/')}, noise in {where}",
                )
        axes.axhline(found["limit_percent"], color=SOFT, linewidth=0.7, linestyle=":")
        axes.set(xlabel="noise / %", title=f"output +{evaluated[0]['output_percent']:.3g} %, {name}")
    grid[0, 0].set_ylabel("passing rate / %")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    return figure


def figure_costs(analysis: StudyAnalysis) -> Figure | None:
    """Processor time of distances and of their estimates from moments over the number of voxels."""
    rows = analysis.findings.get("costs", {}).get("rows", [])
    if not rows:
        return None
    figure, grid = new_figure(height=2.7)
    axes = grid[0, 0]
    for i, way in enumerate(dict.fromkeys(row["way"] for row in rows)):
        points = [(row["size"] ** 3, row["seconds"]) for row in rows if row["way"] == way]
        key, _, kind = way.partition(" ")
        axes.plot(
            *zip(*points, strict=True), "-", marker=MARKERS[i], color=CYCLE[i], label=f"{label(key)} {kind}"
        )
    axes.set(xscale="log", yscale="log", xlabel="voxels", ylabel="processor time / s")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    whole_decades(axes)
    few_decades(axes)
    return figure


_ASKED = (
    "dmd_mm",
    "dmd_moved_mm",
    "moment_dmd_mm",
    "moment_w2_mm",
    "kr_mm",
    "center_shift_mm",
    "best_shift_mm",
    "mass_ratio",
    "rmse_gy",
    "debiased_rmse_gy",
    "max_difference_gy",
    "gamma_2_2_global_mean",
    "gamma_2_2_global_passing_rate_percent",
    "ssim",
)


def figure_histories(analysis: StudyAnalysis) -> Figure | None:
    """Histories that a metric needs to find a shift and an output change, relative to DMD's best case."""
    wanted: list[tuple[str, float]] = []
    for words, size in ((("shift",), 1.0), (("output", "scale"), 1.0), (("hot_spot", "hot"), 20.0)):
        names = matching(analysis.changes_of(analysis.main_case), *words)[:1]
        keys = {
            (change, m)
            for case, change, m, _ in analysis.histories
            if change in names and case == analysis.main_case
        }
        if keys:
            wanted.append(min(keys, key=lambda key: abs(math.log(key[1] / size))))
    if not wanted:
        return None
    metrics = [m for m in _ASKED if m in analysis.metrics]
    figure, grid = new_figure(1, len(wanted), height=0.165 * len(metrics) + 1.2, sharey=True)
    for axes, (change, size) in zip(grid[0], wanted, strict=True):
        unit = analysis.table.select(change=change, magnitude=size)[0].magnitude_unit
        for k, case in enumerate(analysis.cases):
            for j, metric in enumerate(metrics):
                one = analysis.histories.get((case, change, size, metric))
                if one is not None:
                    _needed(axes, one, len(metrics) - 1 - j + 0.13 * (k - 1.5), k)
        axes.set(xscale="log", xlabel="histories per map")
        whole_decades(axes)
        axes.set_title(f"{pretty(change)} {size:g} {unit}")
    grid[0, 0].set_yticks(range(len(metrics)), [label(m) for m in reversed(metrics)])
    _case_legend(figure, analysis.cases)
    return figure


def _needed(axes: Axes, one: Smallest, y: float, k: int) -> None:
    """A point, or an arrow head where the number lies outside the studied range."""
    color = CYCLE[k % len(CYCLE)]
    low, high = one.studied
    if one.value == np.inf:
        axes.plot(high * 1.6, y, ">", color=color, mfc="white")
    elif one.value == -np.inf:
        axes.plot(low, y, "<", color=color)
    else:
        axes.plot(
            [np.clip(one.low, low, high), np.clip(one.high, low, high)], [y, y], color=color, linewidth=0.8
        )
        axes.plot(one.value, y, MARKERS[k % len(MARKERS)], color=color)


def _case_legend(figure: Figure, cases: list[str]) -> None:
    from matplotlib.lines import Line2D

    handles: list[Any] = [
        Line2D([], [], color=CYCLE[k % len(CYCLE)], marker=MARKERS[k % len(MARKERS)], label=pretty(case))
        for k, case in enumerate(cases)
    ]
    handles.append(
        Line2D([], [], color=INK, marker=">", mfc="white", linestyle="", label="more than studied")
    )
    handles.append(Line2D([], [], color=INK, marker="<", linestyle="", label="found at the fewest studied"))
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
