"""Figures of a study that are drawn from its table."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from dosemover.study.analysis_labels import FIGURED, group_of, label, matching, pretty
from dosemover.study.analysis_response import response_curve
from dosemover.study.analysis_summary import StudyAnalysis
from dosemover.study.analysis_table import Cell, excess, trait
from dosemover.study.figures_style import (
    CYCLE,
    FAMILY_COLORS,
    INK,
    MARKERS,
    SOFT,
    family_legend,
    heat_map,
    log_ticks,
    new_figure,
)
from dosemover.study.table import NO_CHANGE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PLACES = {"evaluated": ("-", "#c2410c"), "reference": ("-", "#1d5fd0"), "both": ("--", "#545b66")}
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
_TRACKED = (
    "dmd_mm",
    "moment_dmd_mm",
    "w2_mm",
    "kr_mm",
    "center_shift_mm",
    "mass_ratio",
    "rmse_gy",
    "max_difference_gy",
    "gamma_2_2_global_passing_rate_percent",
)


def _word_of(cell: Cell) -> str:
    """A change and its size in words."""
    return f"{pretty(cell.change)} {cell.magnitude:g} {cell.magnitude_unit}".strip()


def figure_gamma(analysis: StudyAnalysis) -> Figure | None:
    """Passing rate of gamma over noise, with the noise in one map or the other."""
    metric = "gamma_2_2_global_passing_rate_percent"
    series: dict[tuple[str, str], list[Cell]] = {}
    for where in _PLACES:
        for cell in analysis.table.select(metric=metric, noise_in=where):
            if cell.values.size:
                series.setdefault((cell.case, where), []).append(cell)
    cases = [c for c in analysis.table.cases if (c, "evaluated") in series and (c, "reference") in series]
    if not cases:
        return None
    columns = min(len(cases), 3)
    rows = math.ceil(len(cases) / columns)
    figure, grid = new_figure(rows, columns, height=2.3 * rows + 0.4, sharey=True)
    for axes, case in zip(grid.flat, cases, strict=False):
        changed = _failing(series[case, "evaluated"])
        for where, (line, color) in _PLACES.items():
            for name, marker in ((NO_CHANGE, "o"), (changed, "s")):
                cells = [c for c in series.get((case, where), []) if (c.change, c.magnitude) == _key(name)]
                cells.sort(key=lambda c: c.noise_percent)
                if cells:
                    axes.errorbar(
                        [c.noise_percent for c in cells],
                        [c.mean for c in cells],
                        yerr=[c.sd for c in cells],
                        fmt=line + marker,
                        color=color,
                        mfc=color if marker == "s" else "white",
                        elinewidth=0.7,
                    )
        axes.set_xscale("log")
        log_ticks(axes.xaxis, sorted({c.noise_percent for c in series[case, "evaluated"]}))
        axes.axhline(95, color=SOFT, linewidth=0.7, linestyle=":")
        axes.set_title(
            f"{pretty(case)}; ■ {_title(changed, series[case, 'evaluated'])}, ○ no change", fontsize=7.5
        )
        axes.set_xlabel("noise / %")
    for axes in grid[:, 0]:
        axes.set_ylabel("γ 2/2 passing / %")
    for axes in grid.flat[len(cases) :]:
        axes.set_visible(False)
    _place_legend(figure)
    return figure


def _key(name: str | tuple[str, float]) -> tuple[str, float]:
    return (name, 0.0) if isinstance(name, str) else name


def _title(changed: tuple[str, float], cells: list[Cell]) -> str:
    return next(_word_of(c) for c in cells if (c.change, c.magnitude) == changed)


def _failing(cells: list[Cell]) -> tuple[str, float]:
    """The changed condition that passes least at the least noise."""
    changed = [c for c in cells if c.change != NO_CHANGE] or cells
    worst = min(changed, key=lambda c: (c.noise_percent, c.mean))
    return worst.change, worst.magnitude


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
    figure.legend(handles=handles, loc="outside lower center", ncols=3)


def figure_responses(analysis: StudyAnalysis) -> Figure | None:
    """What six metrics read over the size of three changes, at every noise level."""
    case = _fullest_case(analysis)
    rows = [
        found[0]
        for words in (("shift",), ("output", "scale"), ("hot",))
        if (found := matching(_changes_of(analysis, case), *words))
    ]
    metrics = [m for m in _RESPONDING if m in analysis.table.metrics]
    if not rows or not metrics:
        return None
    figure, grid = new_figure(len(metrics), len(rows), height=1.25 * len(metrics) + 0.6, sharex="col")
    levels = _spread_out(analysis.table.noise_levels, 5)
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


def _changes_of(analysis: StudyAnalysis, case: str) -> list[str]:
    return sorted({c.change for c in analysis.table.select(case=case) if c.change != NO_CHANGE})


def _fullest_case(analysis: StudyAnalysis) -> str:
    """The case with most values, simulated ones before made-up ones."""
    sizes = {
        case: (
            any(c.engine != "analytic" for c in analysis.table.select(case=case)),
            sum(c.values.size for c in analysis.table.select(case=case)),
        )
        for case in analysis.table.cases
    }
    return max(sizes, key=lambda case: sizes[case])


def _spread_out(values: list[float], n: int) -> list[float]:
    """At most n of the values, the ends among them."""
    if len(values) <= n:
        return values
    return [values[i] for i in np.unique(np.linspace(0, len(values) - 1, n).round().astype(int))]


def figure_floors(analysis: StudyAnalysis) -> Figure | None:
    """Noise floor of nine metrics over the histories, with fitted power laws."""
    metrics = [m for m in _FLOORED if any((c, m) in analysis.floors for c in analysis.table.cases)]
    if not metrics:
        return None
    columns = 3
    rows = math.ceil(len(metrics) / columns)
    figure, grid = new_figure(rows, columns, height=1.85 * rows + 0.5)
    for axes, metric in zip(grid.flat, metrics, strict=False):
        for i, case in enumerate(analysis.table.cases):
            law = analysis.floors.get((case, metric))
            if law is None:
                continue
            n, mean, error = np.array(law.points).T
            color = CYCLE[i % len(CYCLE)]
            axes.errorbar(n, mean, yerr=error, fmt=MARKERS[i % len(MARKERS)], color=color, elinewidth=0.7)
            axes.plot(n, [law.at(v) for v in n], color=color, linewidth=0.9)
        axes.set(xscale="log", yscale="log")
        slopes = [law.slope for (_, m), law in analysis.floors.items() if m == metric]
        axes.set_title(f"{label(metric)}: slope {_minus(min(slopes))} to {_minus(max(slopes))}", fontsize=7.5)
        axes.set_ylabel(_excess_label(metric), fontsize=7)
    for axes in grid[-1]:
        axes.set_xlabel("histories per map")
    for axes in grid.flat[len(metrics) :]:
        axes.set_visible(False)
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=CYCLE[i % len(CYCLE)], marker=MARKERS[i % len(MARKERS)], label=pretty(case))
        for i, case in enumerate(analysis.table.cases)
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
    """AUC of every metric for every change at the reference noise, averaged over the cases."""
    noise = analysis.reference_noise
    conditions: dict[tuple[str, float], str] = {}
    for (_, change, size, level), by in analysis.by_condition.items():
        if level == noise:
            conditions[change, size] = _word_of(next(iter(by.values())).cell)
    if not conditions:
        return None
    keys = sorted(conditions)
    values = np.full((len(analysis.metrics), len(keys)), np.nan)
    for i, metric in enumerate(analysis.metrics):
        for j, (change, size) in enumerate(keys):
            found = [
                by[metric].auc.value
                for (_, name, magnitude, level), by in analysis.by_condition.items()
                if (name, magnitude, level) == (change, size, noise) and metric in by
            ]
            values[i, j] = np.mean(found) if found else np.nan
    figure, grid = new_figure(height=0.17 * len(analysis.metrics) + 1.7)
    axes = grid[0, 0]
    image = heat_map(
        axes,
        values,
        rows=[label(m) for m in analysis.metrics],
        columns=[conditions[key] for key in keys],
        limits=(0.5, 1.0),
        cmap="YlGnBu",
        text=lambda v: f"{v:.2f}".removeprefix("0") if v < 0.995 else "1",
    )
    for tick, metric in zip(axes.get_yticklabels(), analysis.metrics, strict=True):
        tick.set_color(FAMILY_COLORS[group_of(metric)])
    axes.tick_params(axis="x", labelsize=6.8)
    figure.colorbar(image, ax=axes, label=f"AUC at {noise:g} % noise, mean over cases", shrink=0.6)
    return figure


def figure_smallest(analysis: StudyAnalysis) -> Figure | None:
    """The smallest shift, output change and hot spot that metrics find, over noise."""
    names = [
        (found[0], title)
        for words, title in ((("shift",), "shift"), (("output", "scale"), "output"), (("hot",), "hot spot"))
        if (found := matching(analysis.table.changes, *words))
    ]
    metrics = [m for m in _TRACKED if m in analysis.metrics]
    if not names or not analysis.smallest:
        return None
    figure, grid = new_figure(1, len(names), height=3.1)
    for axes, (change, title) in zip(grid[0], names, strict=True):
        _tracks(axes, analysis, change, metrics)
        axes.set_title(title)
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=CYCLE[i], marker=MARKERS[i], label=label(m)) for i, m in enumerate(metrics)
    ]
    handles.append(
        Line2D([], [], color=INK, marker="^", mfc="white", linestyle="", label="not found in the range")
    )
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    return figure


def _tracks(axes: Axes, analysis: StudyAnalysis, change: str, metrics: list[str]) -> None:
    """Smallest detectable size of one change over noise, one line a metric."""
    unit, sizes = "", set()
    for i, metric in enumerate(metrics):
        points = []
        for noise in analysis.table.noise_levels:
            one = analysis.median_smallest(change, metric, noise)
            if one is not None:
                unit = one.unit
                sizes |= set(one.studied)
                points.append((noise, one))
        if not points:
            continue
        jitter = 1.0 + 0.025 * (i - len(metrics) / 2)
        x = np.array([noise * jitter for noise, _ in points])
        y = np.array([np.clip(one.value, *one.studied) for _, one in points])
        lost = np.array([one.value == np.inf for _, one in points])
        sure = np.array([one.value == -np.inf for _, one in points])
        axes.plot(x, np.where(lost, np.nan, y), "-", color=CYCLE[i], linewidth=1.1)
        inside = ~lost & ~sure
        axes.plot(x[inside], y[inside], MARKERS[i], color=CYCLE[i])
        axes.plot(x[sure], y[sure], "v", color=CYCLE[i], markersize=3)
        axes.plot(x[lost], y[lost] * (1.12 + 0.09 * i), "^", color=CYCLE[i], mfc="white")
    axes.set(xscale="log", yscale="log", xlabel="noise / %", ylabel=f"smallest found / {unit}")
    log_ticks(axes.xaxis, analysis.table.noise_levels)
    studied = analysis.table.select(change=change)
    log_ticks(axes.yaxis, sorted({c.magnitude for c in studied}))


def figure_cost(analysis: StudyAnalysis) -> Figure | None:
    """Detection power against cost."""
    noise = analysis.reference_noise
    points = [
        (analysis.seconds[m], analysis.mean_auc(m, noise), m)
        for m in analysis.metrics
        if m in analysis.seconds and math.isfinite(analysis.mean_auc(m, noise))
    ]
    if not points:
        return None
    figure, grid = new_figure(height=4.2)
    axes = grid[0, 0]
    placed: list[tuple[float, float]] = []
    for seconds, auc, metric in sorted(points, key=lambda p: -p[1]):
        color = FAMILY_COLORS[group_of(metric)]
        axes.plot(seconds, auc, "o", color=color)
        y = _free_height(placed, math.log10(max(seconds, 1e-6)), auc)
        placed.append((math.log10(max(seconds, 1e-6)), y))
        axes.annotate(
            label(metric),
            (seconds, auc),
            xytext=(seconds * 1.12, y),
            fontsize=6.6,
            color=color,
            va="center",
            arrowprops={"arrowstyle": "-", "color": color, "linewidth": 0.4}
            if abs(y - auc) > 0.004
            else None,
        )
    axes.set(
        xscale="log",
        xlabel="processor time of the metric's family / s",
        ylabel=f"mean AUC at {noise:g} % noise",
    )
    low, high = axes.get_xlim()
    axes.set_xlim(low, high * 6)
    family_legend(axes, loc="lower left")
    return figure


def _free_height(placed: list[tuple[float, float]], x: float, y: float, step: float = 0.0105) -> float:
    """A height for a label that lies on no other one."""
    for k in range(60):
        for sign in (-1, 1):
            candidate = y + sign * k * step / 2
            if all(abs(candidate - other) >= step or abs(x - at) > 0.75 for at, other in placed):
                return candidate
    return y


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
    case = _fullest_case(analysis)
    figure, grid = new_figure(1, len(conditions), height=3.2)
    for axes, (change, size) in zip(grid[0], conditions, strict=True):
        for i, metric in enumerate(metrics):
            cells = analysis.table.select(
                case=case, change=change, magnitude=size, metric=metric, noise_in="both"
            )
            cells = sorted((c for c in cells if c.values.size), key=lambda c: c.noise_percent)
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
        axes.set_title(f"{_word_of(cells[0])}, {pretty(case)}")
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
    case = _fullest_case(analysis)
    names = matching(_changes_of(analysis, case), *words)
    found = {(c.change, c.magnitude) for c in analysis.table.select(case=case) if c.change in names}
    return sorted(found, key=lambda key: abs(math.log(key[1] / size)))
