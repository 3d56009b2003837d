"""``dosemover moments MAP [MAP ...]``."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dosemover.cli.table import number

if TYPE_CHECKING:
    from rich.console import Console

    from dosemover.dose import DoseMap
    from dosemover.moments.bounds import W2Bounds
    from dosemover.moments.levels import MomentLevel, MomentLevels

_PAIR = 2
_ROUNDING = 1e-6
"""Share of an estimate by which it may pass a bound."""

_TITLES = {
    "mean_shift_mm": "mean shift",
    "bures_w2_mm": "Gaussian (Gelbrich)",
    "moment_w2_mm": "Galerkin W_2",
    "moment_dmd_mm": "Galerkin DMD",
}


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "moments",
        help="moments of dose maps; with two maps, every moment-based distance and bound",
        description="Mass, mean and extent of each map from its moments. With two maps, also how far apart "
        "they are at every level (mean, Gaussian, Galerkin, moment-SoS) with what noise alone would read, "
        "and the tightest certified interval of W_2.",
    )
    parser.add_argument("maps", metavar="MAP", nargs="+", help="dose files; the first is the reference")
    parser.add_argument("--order", type=int, default=2, help="highest moment-SoS order (default 2)")
    parser.add_argument(
        "--basis",
        choices=("full", "reduced"),
        default="full",
        help="Gram basis of the hierarchy: reduced is a weaker bound with smaller matrices (default full)",
    )
    parser.add_argument(
        "--degree", type=int, help="degree of the tallies (default 12, or what the order takes)"
    )
    parser.add_argument("--unit", choices=("gy", "cgy"), help="unit of the values in the files")
    parser.add_argument("--seed", type=int, default=0, help="seed of the draws for noise floors")
    parser.add_argument("--no-bounds", action="store_true", help="leave the certified interval out")
    parser.add_argument("--json", metavar="FILE", help="write JSON to FILE, or to stdout with -")
    parser.add_argument(
        "--save", metavar="DIR", help="write each map's tally as NPZ, on the support box of all maps"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print moments, and distances where there are two maps."""
    from dosemover.io import read_dose
    from dosemover.moments import moment_levels, w2_bounds
    from dosemover.moments.tally import DEFAULT_DEGREE, MAX_DEGREE

    maps = [read_dose(path, unit=arguments.unit) for path in arguments.maps]
    degree = arguments.degree or min(max(DEFAULT_DEGREE, 4 * arguments.order), MAX_DEGREE)
    described = [_describe(dose, path) for dose, path in zip(maps, arguments.maps, strict=True)]
    if arguments.save:
        _save(maps, arguments.maps, Path(arguments.save), degree)
    levels = bounds = None
    if len(maps) == _PAIR:
        reference, evaluated = maps
        levels = moment_levels(
            reference=reference,
            evaluated=evaluated,
            order=arguments.order,
            degree=degree,
            basis=arguments.basis,
            seed=arguments.seed,
            progress=_log,
        )
        if not arguments.no_bounds:
            bounds = w2_bounds(
                reference=reference,
                evaluated=evaluated,
                order=arguments.order,
                basis=arguments.basis,
                progress=_log,
            )
    if arguments.json:
        _write_json(arguments.json, _to_dict(described, levels, bounds))
    if arguments.json != "-":
        _print(described, levels, bounds)
    return 0


def _log(what: str, fraction: float) -> None:
    """Progress on stderr, where someone looks at it."""
    if sys.stderr.isatty():
        print(f"\r{what:<24} {fraction:4.0%}", end="\n" if fraction >= 1 else "", file=sys.stderr, flush=True)


def _describe(dose: DoseMap, path: str) -> dict[str, Any]:
    """Mass, mean and covariance of one map."""
    from dosemover.errors import InputError
    from dosemover.moments import gaussian_moments

    if not dose.dose_gy.any():
        raise InputError(f"{path}: holds no dose. Moments of nothing are not defined. Check the file.")
    found = gaussian_moments(dose.dose_gy, dose.grid)
    return {
        "file": dose.name or path,
        "integral_gy_mm3": found.mass,
        "mean_mm": found.mean_mm.tolist(),
        "rms_extent_mm": [float(v) ** 0.5 for v in found.covariance_mm2.diagonal()],
        "covariance_mm2": found.covariance_mm2.tolist(),
    }


def _save(maps: list[DoseMap], paths: list[str], folder: Path, degree: int) -> None:
    """Tallies of all maps on their common support box."""
    from dosemover.moments import support_box, tally_map

    folder.mkdir(parents=True, exist_ok=True)
    box = support_box(*maps)
    for i, (dose, path) in enumerate(zip(maps, paths, strict=True), start=1):
        tally_map(dose, box_mm=box, degree=degree).save(folder / f"{i:02d}_{Path(path).stem}_moments.npz")


def _to_dict(
    described: list[dict[str, Any]], levels: MomentLevels | None, bounds: W2Bounds | None
) -> dict[str, Any]:
    """Everything as plain values."""
    from dosemover._runtime import provenance

    found: dict[str, Any] = {
        "schema": "dosemover.moments/1",
        "maps": described,
        "provenance": dict(provenance()),
    }
    if levels is not None:
        found["tally_seconds"] = levels.tally_seconds
        found["levels"] = {
            level.key: {k: v for k, v in vars(level).items() if k != "key"} for level in levels.levels
        }
    if bounds is not None:
        found["w2_bounds"] = bounds.summary() | {"bounds": [vars(bound) for bound in bounds.bounds]}
    return found


def _write_json(target: str, content: dict[str, Any]) -> None:
    """JSON to a file, or to stdout."""
    from dosemover.errors import InputError

    text = json.dumps(content, indent=2, allow_nan=False)
    if target == "-":
        print(text)
        return
    try:
        Path(target).write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(f"{target}: cannot be written ({error.strerror}). Choose another.") from error


def _print(described: list[dict[str, Any]], levels: MomentLevels | None, bounds: W2Bounds | None) -> None:
    """Tables for people."""
    from dosemover.cli.outputs import output_console

    console = output_console()
    _print_maps(console, described)
    if levels is not None:
        _print_levels(console, levels, bounds)
    if bounds is not None:
        _print_bounds(console, bounds)


def _print_maps(console: Console, described: list[dict[str, Any]]) -> None:
    """Mass, mean and extent, one row a map."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("map", overflow="fold")
    for title in ("Gy mm3", "mean x, y, z / mm", "rms extent / mm"):
        table.add_column(title, justify="right", no_wrap=True)
    for row in described:
        mean = ", ".join(f"{v:.2f}" for v in row["mean_mm"])
        extent = ", ".join(f"{v:.2f}" for v in row["rms_extent_mm"])
        table.add_row(escape(row["file"]), number(row["integral_gy_mm3"], 6), mean, extent)
    console.print(table)


def _print_levels(console: Console, levels: MomentLevels, bounds: W2Bounds | None) -> None:
    """Every level with its noise."""
    from rich.table import Table

    from dosemover.moments.levels import NO_NOISE

    known = any(level.floor_mm is not None for level in levels.levels)
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("", no_wrap=True)
    table.add_column("distance", overflow="fold")
    for title in ("mm", *(("noise alone", "sd", "p") if known else ()), "interval", "s"):
        table.add_column(title, justify="right", no_wrap=True)
    notes = []
    for level in levels.levels:
        title = _TITLES.get(level.key) or f"moment-SoS of order {level.settings['order']}"
        if "degree" in level.settings:
            title += f", degree {level.settings['degree']}"
        row = [str(level.level), title, number(level.value_mm)]
        if known:
            floor = number(level.floor_mm, 3)
            floor += f" ± {number(level.floor_sd_mm, 2)}" if level.floor_sd_mm else ""
            row += [floor, number(level.sd_mm, 2), number(level.p, 2)]
        row += [_interval(level, bounds), f"{level.seconds:.2g}"]
        table.add_row(*row)
        remark = level.status.removesuffix(NO_NOISE).removesuffix("; ").removeprefix("ok").removeprefix("; ")
        notes += [f"{title}: {note}" for note in (remark, _outside(level, bounds)) if note]
    console.print()
    console.print(table)
    for note in notes:
        console.print(f"[dim]{note}[/]", soft_wrap=True)
    note = "" if known else f"; {NO_NOISE}"
    sides = (
        f"{name} {low:.5g} to {high:.5g}"
        for name, (low, high) in zip("zyx", levels.reference.box_mm, strict=True)
    )
    box = ", ".join(reversed(list(sides)))
    console.print(f"[dim]tallies {levels.tally_seconds:.2g} s, on the box of the dose: {box} mm{note}[/]")


def _outside(level: MomentLevel, bounds: W2Bounds | None) -> str:
    """That an estimate lies outside the certified interval."""
    if bounds is None or level.key != "moment_w2_mm" or level.value_mm is None:
        return ""
    past, side = level.value_mm - bounds.upper_mm, "above"
    if level.value_mm < bounds.lower_mm:
        past, side = bounds.lower_mm - level.value_mm, "below"
    if past <= _ROUNDING * level.value_mm:
        return ""
    return (
        f"the estimate lies {number(past, 2)} mm {side} the certified interval. It sees polynomials of its "
        "degree and is of second order in the displacement: rely on the interval"
    )


def _interval(level: MomentLevel, bounds: W2Bounds | None) -> str:
    """What the level says about W_2: the certified interval, or its own lower bound."""
    if level.key == "moment_w2_mm" and bounds is not None:
        return rf"\[{number(bounds.lower_mm)}, {number(bounds.upper_mm)}]"
    return f"≥ {number(level.value_mm)}" if level.certified_lower else ""


def _print_bounds(console: Console, bounds: W2Bounds) -> None:
    """Every bound on W_2, the active ones marked."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim")
    for title, justify in (
        ("bound on W_2", "left"),
        ("", "left"),
        ("mm", "right"),
        ("s", "right"),
        ("", "left"),
    ):
        table.add_column(title, justify=justify)  # type: ignore[arg-type]
    for bound in bounds.bounds:
        active = bound.name in (bounds.active_lower, bounds.active_upper)
        sign = "≥" if bound.side == "lower" else "≤"
        note = "active" if active else "" if bound.status == "ok" else bound.status
        table.add_row(
            bound.name.replace("_", " "), sign, number(bound.value_mm), f"{bound.seconds:.2g}", note
        )
    console.print()
    console.print(table)
    console.print(
        f"[bold]{bounds.lower_mm:.4g} mm ≤ W_2 ≤ {bounds.upper_mm:.4g} mm[/] "
        f"({100 * bounds.gap:.2g} % wide; normalised maps, blind to scale)"
    )
