"""Figures of a study that are drawn from its table."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dosemover.study.analysis_labels import FIGURED, group_of, label, matching, pretty
from dosemover.study.analysis_response import response_curve
from dosemover.study.analysis_summary import StudyAnalysis
from dosemover.study.analysis_table import Cell, excess, trait
from dosemover.study.figures_style import (
    CYCLE,
    EVALUATED,
    FAMILY_COLORS,
    INK,
    MARKERS,
    REFERENCE,
    SOFT,
    family_legend,
    few_decades,
    heat_map,
    log_ticks,
    new_figure,
    whole_decades,
)
from dosemover.study.table import NO_CHANGE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PLACES: dict[str, tuple[Any, str]] = {
    "evaluated": ("-", EVALUATED),
    "reference": ("-", REFERENCE),
    "both": ("--", SOFT),
}
_RESPONDING = (
    "dmd_mm",
    "moment_w2_mm",
    "kr_mm",
    "rmse_gy",
    "max_difference_gy",
    "gamma_2_2_global_passing_rate_percent",
)
_FLOORED = (
    "dmd_mm",
    "w2_mm",
    "moment_dmd_mm",
    "kr_mm",
    "center_shift_mm",
    "mass_ratio",
    "rmse_gy",
    "max_difference_gy",
    "gamma_2_2_global_mean",
)
_COSTED = (
    "mass_ratio",
    "rmse_gy",
    "debiased_rmse_gy",
    "mae_gy",
    "max_difference_gy",
    "ssim",
    "kf_fraction_percent",
    "gamma_3_3_global_passing_rate_percent",
    "gamma_2_2_global_passing_rate_percent",
    "gamma_2_2_global_mean",
    "isodose_dice_50",
    "center_shift_mm",
    "best_shift_mm",
    "axis_w2_mm",
    "w1_mm",
    "w2_mm",
    "sliced_w2_mm",
    "sinkhorn_divergence_mm",
    "dmd_mm",
    "kr_mm",
    "moment_w2_mm",
    "moment_dmd_mm",
)
_TRACKED = (
    "dmd_mm",
    "dmd_moved_mm",
    "kr_mm",
    "center_shift_mm",
    "best_shift_mm",
    "mass_ratio",
    "rmse_gy",
    "gamma_2_2_global_passing_rate_percent",
)


def _word_of(cell: Cell) -> str:
    """A change and its size in words."""
    return f"{pretty(cell.change)} {cell.magnitude:g} {cell.magnitude_unit}".strip()


def figure_gamma(analysis: StudyAnalysis) -> Figure | None:
    """Passing rate of gamma over noise, with the noise in one map or the other."""
    metric = "gamma_2_2_global_passing_rate_percent"
    series: dict[tuple[str, str, float], dict[str, list[Cell]]] = {}
    for cell in analysis.table.select(metric=metric):
        if cell.values.size and cell.case in analysis.simulated:
            places = series.setdefault((cell.case, cell.change, cell.magnitude), {})
            places.setdefault(cell.noise_in, []).append(cell)
    panels = [
        key
        for key, places in series.items()
        if key[1] != NO_CHANGE and all(len(places.get(w, [])) > 1 for w in ("evaluated", "reference"))
    ]
    if not panels:
        return None
    panels = sorted(panels, key=lambda key: min(c.mean for c in series[key]["evaluated"]))[:6]
    columns = min(len(panels), 3)
    rows = math.ceil(len(panels) / columns)
    figure, grid = new_figure(rows, columns, height=2.3 * rows + 0.4, sharey=True)
    for axes, key in zip(grid.flat, panels, strict=False):
        for name, marker in ((key, "s"), ((key[0], NO_CHANGE, 0.0), "o")):
            for where, (line, color) in _PLACES.items():
                _rates(axes, series.get(name, {}).get(where, []), line + marker, color)
        axes.set_xscale("log")
        log_ticks(axes.xaxis, sorted({c.noise_percent for c in series[key]["evaluated"]}))
        axes.axhline(95, color=SOFT, linewidth=0.7, linestyle=":")
        axes.set_title(f"{pretty(key[0])}: {_word_of(series[key]['evaluated'][0])}")
        axes.set_xlabel("noise / %")
    for axes in grid[:, 0]:
        axes.set_ylabel("γ 2/2 passing / %")
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    _place_legend(figure)
    return figure


def _rates(axes: Axes, cells: list[Cell], style: Any, color: str) -> None:
    """Mean and spread over the noise; filled markers for a change, open ones for none."""
    if cells:
        cells = sorted(cells, key=lambda c: c.noise_percent)
        axes.errorbar(
            [c.noise_percent for c in cells],
            [c.mean for c in cells],
            yerr=[c.sd for c in cells],
            fmt=style,
            color=color,
            mfc=color if style.endswith("s") else "white",
            elinewidth=0.7,
        )


def _place_legend(figure: Figure) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D(
            [],
            [],
            linestyle=line,
            color=color,
            label=f"noise in {where}" + (" map" if where != "both" else ""),
        )
        for where, (line, color) in _PLACES.items()
    ]
    for marker, fill, name in (("s", SOFT, "changed"), ("o", "white", "no change")):
        handles.append(Line2D([], [], marker=marker, mfc=fill, color=SOFT, linestyle="", label=name))
    figure.legend(handles=handles, loc="outside lower center", ncols=5)


def figure_responses(analysis: StudyAnalysis) -> Figure | None:
    """What six metrics read over the size of three changes, at every noise level."""
    case = analysis.main_case
    rows = [
        found[0]
        for words in (("shift",), ("output", "scale"), ("hot_spot", "hot"))
        if (found := matching(analysis.changes_of(case), *words))
    ]
    metrics = [m for m in _RESPONDING if m in analysis.table.metrics]
    if not rows or not metrics:
        return None
    figure, grid = new_figure(len(metrics), len(rows), height=1.25 * len(metrics) + 0.6, sharex="col")
    studied = {c.noise_percent for c in analysis.table.select(case=case, noise_in="both") if c.change in rows}
    levels = _spread_out(sorted(studied), 6)
    from matplotlib import colormaps

    colors = colormaps["viridis"](np.linspace(0.0, 0.85, len(levels)))
    for j, change in enumerate(rows):
        unit = analysis.table.select(case=case, change=change)[0].magnitude_unit
        for i, metric in enumerate(metrics):
            axes = grid[i, j]
            for level, color in zip(levels, colors, strict=True):
                points = response_curve(
                    analysis.table, case=case, change=change, metric=metric, noise_percent=level
                )
                x = np.array([p.magnitude for p in points])
                mean = np.array([p.mean for p in points])
                sd = np.array([p.sd for p in points])
                axes.plot(x, mean, "-o", color=color, markersize=2.6)
                axes.fill_between(x, mean - sd, mean + sd, color=color, alpha=0.18, linewidth=0)
            if j == 0:
                axes.set_ylabel(_axis_label(metric), fontsize=7)
        grid[0, j].set_title(pretty(change))
        grid[-1, j].set_xlabel(f"{pretty(change)} / {unit}")
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=c, marker="o", label=f"{v:g} % noise")
        for v, c in zip(levels, colors, strict=True)
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(levels))
    figure.suptitle(f"case: {pretty(case)}", fontsize=8.5)
    return figure


def _axis_label(metric: str) -> str:
    unit = trait(metric).unit
    name = label(metric).replace(" of difference", "").replace("largest difference", "largest\ndifference")
    return f"{name} / {unit}" if unit else name


def _spread_out(values: list[float], n: int) -> list[float]:
    """At most n of the values, the ends among them."""
    if len(values) <= n:
        return values
    return [values[i] for i in np.unique(np.linspace(0, len(values) - 1, n).round().astype(int))]


def figure_floors(analysis: StudyAnalysis) -> Figure | None:
    """Noise floor of nine metrics over the histories, with fitted power laws."""
    metrics = [m for m in _FLOORED if any((c, m) in analysis.floors for c in analysis.cases)]
    if not metrics:
        return None
    columns = 3
    rows = math.ceil(len(metrics) / columns)
    figure, grid = new_figure(rows, columns, height=1.85 * rows + 0.5)
    for axes, metric in zip(grid.flat, metrics, strict=False):
        for i, case in enumerate(analysis.cases):
            law = analysis.floors.get((case, metric))
            if law is None:
                continue
            n, mean, error = np.array(law.points).T
            color = CYCLE[i % len(CYCLE)]
            axes.errorbar(n, mean, yerr=error, fmt=MARKERS[i % len(MARKERS)], color=color, elinewidth=0.7)
            axes.plot(n, [law.at(v) for v in n], color=color, linewidth=0.9)
        axes.set(xscale="log", yscale="log")
        few_decades(axes)
        whole_decades(axes)
        slopes = [law.slope for (c, m), law in analysis.floors.items() if m == metric and c in analysis.cases]
        axes.set_title(f"{label(metric)}\nslope {_minus(min(slopes))} to {_minus(max(slopes))}", fontsize=7.5)
        axes.set_ylabel(_excess_label(metric), fontsize=7)
    for axes in grid[-1]:
        axes.set_xlabel("histories per map")
    for axes in grid.flat[len(metrics) :]:
        axes.set_visible(False)
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=CYCLE[i % len(CYCLE)], marker=MARKERS[i % len(MARKERS)], label=pretty(case))
        for i, case in enumerate(analysis.cases)
        if any((case, m) in analysis.floors for m in metrics)
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 5))
    return figure


def _minus(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")


def _excess_label(metric: str) -> str:
    ideal, unit = trait(metric).ideal, trait(metric).unit
    text = "floor" if ideal == 0 else f"mean distance from {ideal:g}"
    return f"{text} / {unit}" if unit else text


def figure_detection(analysis: StudyAnalysis) -> Figure | None:
    """AUC of every metric for every change of the main case at the reference noise."""
    return _auc_map(analysis, [analysis.main_case])


def figure_detection_fine(analysis: StudyAnalysis) -> Figure | None:
    """AUC of every metric for every change on the finest grid."""
    case = analysis.finest_case
    return None if case == analysis.main_case else _auc_map(analysis, [case])


def figure_detection_others(analysis: StudyAnalysis) -> Figure | None:
    """AUC of every metric for every change of the other simulated cases."""
    shown = (analysis.main_case, analysis.finest_case)
    return _auc_map(analysis, [case for case in analysis.cases if case not in shown])


def _auc_map(analysis: StudyAnalysis, cases: list[str]) -> Figure | None:
    """Colored table of the AUC at the reference noise: metrics by conditions."""
    noise = analysis.reference_noise
    keys = sorted(key for key in analysis.by_condition if key[0] in cases and key[3] == noise)
    if not keys:
        return None
    values = np.full((len(analysis.metrics), len(keys)), np.nan)
    for i, metric in enumerate(analysis.metrics):
        for j, key in enumerate(keys):
            one = analysis.by_condition[key].get(metric)
            values[i, j] = one.auc.value if one is not None else np.nan
    names = []
    for key in keys:
        word = _word_of(next(iter(analysis.by_condition[key].values())).cell)
        names.append(word if len(cases) == 1 else f"{pretty(key[0])}: {word}")
    figure, grid = new_figure(height=0.16 * len(analysis.metrics) + 1.6)
    axes = grid[0, 0]
    image = heat_map(
        axes,
        values,
        rows=[label(m) for m in analysis.metrics],
        columns=names,
        limits=(0.5, 1.0),
        cmap="YlGnBu",
        text=lambda v: f"{v:.2f}".removeprefix("0") if v < 0.995 else "1",
    )
    for tick, metric in zip(axes.get_yticklabels(), analysis.metrics, strict=True):
        tick.set_color(FAMILY_COLORS[group_of(metric)])
    axes.tick_params(labelsize=6.6)
    if len(cases) == 1:
        axes.set_title(pretty(cases[0]))
    figure.colorbar(image, ax=axes, label=f"AUC at {noise:g} % noise", shrink=0.6, pad=0.01, aspect=30)
    return figure


def figure_smallest(analysis: StudyAnalysis) -> Figure | None:
    """The smallest shift and output change that metrics find over noise: main case, then finest grid."""
    metrics = [m for m in _TRACKED if m in analysis.metrics]
    panels = [
        (case, found[0])
        for case in dict.fromkeys((analysis.main_case, analysis.finest_case))
        for words in (("shift",), ("output", "scale"))
        if (found := matching(analysis.changes_of(case), *words)) and _sizes(analysis, case, found[0])[1:]
    ]
    if not panels or not metrics:
        return None
    rows = math.ceil(len(panels) / 2)
    figure, grid = new_figure(rows, min(len(panels), 2), height=2.7 * rows + 0.5)
    for axes, (case, change) in zip(grid.flat, panels, strict=False):
        _tracks(axes, analysis, case, change, metrics)
        axes.set_title(f"{pretty(case)}: {pretty(change)}")
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=CYCLE[i], marker=MARKERS[i], label=label(m)) for i, m in enumerate(metrics)
    ]
    for marker, fill, name in (("^", "white", "not found in the range"), ("v", INK, "smallest size found")):
        handles.append(Line2D([], [], color=INK, marker=marker, mfc=fill, linestyle="", label=name))
    figure.legend(handles=handles, loc="outside lower center", ncols=5)
    return figure


def _sizes(analysis: StudyAnalysis, case: str, change: str) -> list[float]:
    """Magnitudes of a change that a case has."""
    return sorted({c.magnitude for c in analysis.table.select(case=case, change=change)})


def _tracks(axes: Axes, analysis: StudyAnalysis, case: str, change: str, metrics: list[str]) -> None:
    """Smallest detectable size of one change over noise, one line a metric, with its interval."""
    sizes = _sizes(analysis, case, change)
    unit = analysis.table.select(case=case, change=change)[0].magnitude_unit
    for i, metric in enumerate(metrics):
        points = [
            (noise * 1.03 ** (i - len(metrics) / 2), one)
            for noise in analysis.table.noise_levels
            if (one := analysis.smallest.get((case, change, metric, noise))) is not None
            and one.studied[0] < one.studied[1]
        ]
        if not points:
            continue
        x = np.array([noise for noise, _ in points])
        y, low, high = (
            np.clip([getattr(one, name) for _, one in points], sizes[0], sizes[-1])
            for name in ("value", "low", "high")
        )
        lost = np.array([one.value == np.inf for _, one in points])
        sure = np.array([one.value == -np.inf for _, one in points])
        inside = ~lost & ~sure
        axes.plot(x, np.where(lost, np.nan, y), "-", color=CYCLE[i], linewidth=1.0)
        axes.plot(x[inside], y[inside], MARKERS[i], color=CYCLE[i])
        axes.vlines(x[inside], low[inside], high[inside], color=CYCLE[i], linewidth=0.7)
        axes.plot(x[sure], y[sure], "v", color=CYCLE[i], markersize=3)
        axes.plot(x[lost], y[lost] * (1.14 + 0.12 * i), "^", color=CYCLE[i], mfc="white")
    axes.set(xscale="log", yscale="log", xlabel="noise / %", ylabel=f"smallest found / {unit}")
    studied = {c.noise_percent for c in analysis.table.select(case=case, change=change, noise_in="both")}
    log_ticks(axes.xaxis, sorted(studied))
    log_ticks(axes.yaxis, sizes)


def figure_cost(analysis: StudyAnalysis) -> Figure | None:
    """Detection power against cost."""
    noise = analysis.reference_noise
    points = [
        (analysis.seconds[m], analysis.mean_auc(m, noise), m)
        for m in _COSTED
        if m in analysis.seconds and math.isfinite(analysis.mean_auc(m, noise))
    ]
    if not points:
        return None
    figure, grid = new_figure(height=4.2)
    axes = grid[0, 0]
    spread = max(max(p[1] for p in points) - min(p[1] for p in points), 0.1)
    step = spread / 26
    placed = [_Box(x=math.log10(max(s, 1e-6)) - 0.04, width=0.08, y=auc) for s, auc, _ in points]
    for seconds, auc, metric in sorted(points, key=lambda p: -p[1]):
        color = FAMILY_COLORS[group_of(metric)]
        axes.plot(seconds, auc, "o", color=color)
        box = _free(placed, math.log10(max(seconds, 1e-6)) + 0.05, 0.043 * len(label(metric)), auc, step)
        placed.append(box)
        axes.annotate(
            label(metric),
            (seconds, auc),
            xytext=(10**box.x, box.y),
            fontsize=6.6,
            color=color,
            va="center",
            arrowprops={"arrowstyle": "-", "color": color, "linewidth": 0.4}
            if abs(box.y - auc) > 0.3 * step
            else None,
        )
    axes.set(
        xscale="log",
        xlabel="processor time of the metric's family / s",
        ylabel=f"mean AUC at {noise:g} % noise",
    )
    low, high = axes.get_xlim()
    axes.set_xlim(low, high * 6)
    axes.margins(y=0.08)
    family_legend(axes, loc="lower left")
    return figure


@dataclass(frozen=True, kw_only=True)
class _Box:
    """Where a label or a marker lies: left end and width in decades, height in the units of the axis."""

    x: float
    width: float
    y: float


def _free(placed: list[_Box], x: float, width: float, y: float, step: float) -> _Box:
    """A place near a point for a label that lies on no marker and no other label."""
    for k in range(80):
        for sign in (1, -1):
            box = _Box(x=x + (0.06 if k else 0.0), width=width, y=y + sign * k * step / 4)
            if all(
                abs(box.y - other.y) >= step or box.x > other.x + other.width or other.x > box.x + box.width
                for other in placed
            ):
                return box
    return _Box(x=x, width=width, y=y)


def figure_bias(analysis: StudyAnalysis) -> Figure | None:
    """Bias of metrics under noise, relative to what they read at the least noise."""
    conditions = [
        found[0]
        for words, size in ((("shift",), 1.0), (("output", "scale"), 1.0))
        if (found := _condition_near(analysis, words, size))
    ]
    metrics = [m for m in FIGURED if m in analysis.metrics]
    if not conditions or not metrics:
        return None
    case = analysis.main_case
    figure, grid = new_figure(1, len(conditions), height=3.2)
    for axes, (change, size) in zip(grid[0], conditions, strict=True):
        word = ""
        for i, metric in enumerate(metrics):
            cells = analysis.table.select(
                case=case, change=change, magnitude=size, metric=metric, noise_in="both"
            )
            cells = sorted((c for c in cells if c.values.size), key=lambda c: c.noise_percent)
            word = _word_of(cells[0]) if cells else word
            calm = analysis.table.noiseless(cells[0]) if cells else None
            if calm is None:
                continue
            base = float(excess(metric, calm.values).mean())
            ratio = [float(excess(metric, c.values).mean()) / base if base > 0 else np.nan for c in cells]
            axes.plot(
                [c.noise_percent for c in cells],
                ratio,
                "-",
                color=CYCLE[i % len(CYCLE)],
                marker=MARKERS[i % 9],
            )
        axes.set(xscale="log", yscale="log", xlabel="noise in both maps / %")
        axes.set_title(f"{pretty(case)}: {word}")
        few_decades(axes)
        log_ticks(axes.xaxis, analysis.table.noise_levels)
        axes.axhline(1, color=SOFT, linewidth=0.7)
    grid[0, 0].set_ylabel("reading / reading at the least noise")
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=CYCLE[i % len(CYCLE)], marker=MARKERS[i % 9], label=label(m))
        for i, m in enumerate(metrics)
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    return figure


def _condition_near(analysis: StudyAnalysis, words: tuple[str, ...], size: float) -> list[tuple[str, float]]:
    """The change of a name in the fullest case whose magnitude is nearest to a size."""
    case = analysis.main_case
    names = matching(analysis.changes_of(case), *words)
    found = {(c.change, c.magnitude) for c in analysis.table.select(case=case) if c.change in names}
    return sorted(found, key=lambda key: abs(math.log(key[1] / size)))
