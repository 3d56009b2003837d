"""The table that ``dosemover compare`` prints."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dosemover.cli.outputs import output_console
from dosemover.dose import DoseMap

if TYPE_CHECKING:
    from dosemover.comparison.result import ComparisonResult, MetricResult


def number(value: float | None, digits: int = 4) -> str:
    """A number as short as its meaning allows; a dash for none."""
    if value is None:
        return "–"
    text = f"{value:.{digits}g}"
    return f"{value:.{digits - 1}e}" if "e" in text else text


def print_result(result: ComparisonResult) -> None:
    """Print maps, verdict, metrics, notes and DVH values."""
    console = output_console()
    _print_maps(console, result)
    console.print(_metric_table(result))
    _print_notes(console, result)
    if result.structures:
        console.print(_structure_table(result))


def _print_notes(console: Console, result: ComparisonResult) -> None:
    """Every status that says more than "ok", low sampling, coarse grids and missing floors."""
    statuses = _grouped(result, lambda metric: "" if metric.status == "ok" else metric.status)
    notes = [f"{_listed(keys)}: {status}" for status, keys in statuses.items()]
    more = (_gamma_note(result), _dvh_note(result), _sampling_note(result), _grid_note(result))
    for note in (*notes, *more, *_missing_floors(result)):
        if note:
            console.print(f"[dim]{escape(note)}[/]", soft_wrap=True)


def _grouped(result: ComparisonResult, said: Callable[[MetricResult], str]) -> dict[str, list[str]]:
    """Keys of the metrics of which something is said, once for all that share it."""
    groups: dict[str, list[str]] = {}
    for metric in result.metrics.values():
        if text := said(metric):
            groups.setdefault(text, []).append(metric.key)
    return groups


_GAMMA_SETTINGS = {
    "n_evaluated",
    "normalization_dose_gy",
    "dose_threshold_gy",
    "dose_threshold_percent",
    "dose_outside_voxels",
    "dose_outside_max_gy",
}


def _gamma_note(result: ComparisonResult) -> str:
    """Which voxels gamma was evaluated in, and what it does not see."""
    for metric in result.metrics.values():
        settings = metric.settings
        if not metric.key.startswith("gamma_") or not settings.keys() >= _GAMMA_SETTINGS:
            continue
        threshold, full = number(settings["dose_threshold_gy"]), number(settings["normalization_dose_gy"])
        note = (
            f"gamma: {settings['n_evaluated']} voxels of at least {threshold} Gy "
            f"({settings['dose_threshold_percent']:g} % of {full} Gy)"
        )
        if missed := settings["dose_outside_voxels"]:
            note += (
                f"; it does not see {missed} voxels of the evaluated map that reach it where the reference "
                f"does not, up to {number(settings['dose_outside_max_gy'])} Gy"
            )
        return note
    return ""


def _dvh_note(result: ComparisonResult) -> str:
    """The structure whose histograms differ most."""
    metric = result.metrics.get("dvh_w1_gy")
    name = None if metric is None else metric.settings.get("largest_in")
    return f"dvh_w1_gy: the largest of all structures, in {name}" if name else ""


def _sampling_note(result: ComparisonResult) -> str:
    """How much of the metrics comes from voxels of low sampling."""
    shares = [
        f"{key} {_share(share)} %"
        for key, metric in result.metrics.items()
        if (share := metric.settings.get("low_sampling_share_percent")) is not None
    ]
    mask = result.maps.get("low_sampling_mask")
    return f"from low sampling ({mask.label}): {', '.join(shares)}" if shares and mask is not None else ""


def _grid_note(result: ComparisonResult) -> str:
    """Which floors were drawn on a coarser grid."""
    grids = _grouped(result, lambda metric: str(metric.settings.get("null_grid") or ""))
    return "; ".join(f"noise alone of {', '.join(keys)}: {grid}" for grid, keys in grids.items())


_NAMED = 4
"""So many metrics that share a status, or the reason for a missing floor, are named; the rest is counted."""


def _missing_floors(result: ComparisonResult) -> list[str]:
    """Why values have no noise floor, once for all metrics that share the reason."""
    reasons = _grouped(
        result,
        lambda metric: metric.missing_floor if metric.value is not None and metric.floor is None else "",
    )
    return [f"noise alone not known of {_listed(keys)}: {reason}" for reason, keys in reasons.items()]


def _listed(keys: list[str]) -> str:
    """The first few names and how many more there are."""
    more = len(keys) - _NAMED
    return ", ".join(keys) if more <= 1 else f"{', '.join(keys[:_NAMED])} and {more} more"


def _share(percent: float) -> str:
    """A share of 0 to 100 % in plain notation."""
    from dosemover.comparison.sentence import short

    return "<0.01" if 0 < percent < 0.01 else short(percent)


def _print_maps(console: Console, result: ComparisonResult) -> None:
    """Which maps were compared, at which scale, and the plain sentence."""
    from dosemover.comparison.sentence import histories, verdict

    console.print(f"[bold]reference[/] {_map_line(result.reference)}", soft_wrap=True)
    console.print(f"[bold]evaluated[/] {_map_line(result.evaluated)}", soft_wrap=True)
    console.print(f"[bold]scale[/]     evaluated map x {result.settings.get('scale_factor', 1.0):.6g}")
    for name, used in result.settings.get("inputs", {}).items():
        console.print(f"[dim]{name.replace('_', ' ')}: {escape(used)}[/]", soft_wrap=True)
    sentence = verdict(result)
    if sentence:
        console.print(f"\n[bold]{sentence}[/]", soft_wrap=True)
    more = histories(result)
    if more:
        console.print(more, soft_wrap=True)
    console.print()


def _map_line(dose: DoseMap) -> str:
    """Name, grid and maximum of one map."""
    shape = " x ".join(str(n) for n in dose.grid.shape[::-1])
    spacing = " x ".join("uneven" if s is None else f"{s:.4g}" for s in dose.grid.spacing_mm)
    return f"{escape(dose.name or 'array')}  {shape} voxels of {spacing} mm, maximum {dose.max_gy:.4g} Gy"


def _metric_table(result: ComparisonResult) -> Table:
    """Every metric with what qualifies it; columns that nobody fills are left out."""
    metrics = list(result.metrics.values())
    with_interval = any(_interval(m) for m in metrics)
    with_floor = any(m.floor is not None for m in metrics)
    with_p = any(m.p is not None or m.z is not None for m in metrics)
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("metric", overflow="fold")
    headings = ["value", "unit"]
    headings += ["interval"] if with_interval else []
    headings += ["noise alone"] if with_floor else []
    headings += ["z", "p"] if with_p else []
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "unit" else "right", no_wrap=True)
    for metric in metrics:
        row = [metric.key, _value(metric), metric.unit]
        row += [_interval(metric)] if with_interval else []
        row += [_floor(metric)] if with_floor else []
        row += [number(metric.z, 3), _p(metric)] if with_p else []
        table.add_row(*row)
    return table


def _value(metric: MetricResult) -> str:
    """The value; a distance below a nanometre is rounding."""
    if metric.unit == "mm" and metric.value is not None and 0 < abs(metric.value) < 1e-6:
        return "<1e-6"
    return number(metric.value)


def _interval(metric: MetricResult) -> str:
    """Certified interval, open where a side is missing."""
    if metric.lower is None and metric.upper is None:
        return ""
    if metric.lower == metric.upper:
        return "exact"
    return f"[{number(metric.lower)}, {number(metric.upper)}]".replace("[", r"\[")


def _p(metric: MetricResult) -> str:
    """P value, an upper limit where more draws would have made it smaller."""
    if metric.p is not None and metric.p < 1e-3:
        return "<0.001"
    return ("≤" if metric.p_is_smallest else "") + number(metric.p, 2)


def _floor(metric: MetricResult) -> str:
    """Noise floor with its standard deviation."""
    from dosemover.comparison.sentence import with_spread

    return "" if metric.floor is None else with_spread(metric.floor, metric.floor_sd)


def _structure_table(result: ComparisonResult) -> Table:
    """DVH values of both maps, one row a structure."""
    columns = ["volume_cc", "mean_gy", "d95_gy", "d50_gy", "d2_gy", "dvh_w1_gy"]
    table = Table(box=None, pad_edge=False, header_style="dim", title_justify="left")
    table.title = "\nStructures: reference → evaluated"
    table.add_column("structure", no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right")
    for name, values in result.structures.items():
        table.add_row(escape(name), *(_pair(values.get(column)) for column in columns))
    return table


def _pair(values: object) -> str:
    """Reference → evaluated, or one number where both are the same."""
    if not isinstance(values, dict):
        return ""
    first, second = values.get("reference"), values.get("evaluated")
    if first is None or second is None:
        return number(second if first is None else first)
    texts = [number(first), number(second)]
    return texts[0] if texts[0] == texts[1] else " → ".join(texts)
