"""``dosemover compare REFERENCE EVALUATED``."""

from __future__ import annotations

import argparse
import glob
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dosemover.cli import options
from dosemover.cli.conditions import condition
from dosemover.cli.progress import progress_bar, say

if TYPE_CHECKING:
    from dosemover.comparison.result import ComparisonResult


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "compare",
        help="compare two dose maps: a table, a JSON and a report",
        description="Compare an evaluated dose map with a reference. Maps are DICOM RT Dose, MHA, MHD, NRRD, "
        "NIfTI, 3ddose, TOPAS, NPZ or OpenKBP data; A.dcm+B.dcm or a directory sums beams.",
    )
    parser.add_argument("reference", metavar="REFERENCE", help="the map that is compared with")
    parser.add_argument("evaluated", metavar="EVALUATED", help="the map that is judged")
    _add_input_options(parser)
    _add_metric_options(parser)
    _add_output_options(parser)
    parser.set_defaults(run=run)


def _add_input_options(parser: argparse.ArgumentParser) -> None:
    """Options about what is compared."""
    group = parser.add_argument_group("inputs")
    group.add_argument("--structures", metavar="RTSTRUCT", help="RT Structure Set or label map for the DVH")
    group.add_argument("--density", metavar="MAP", help="mass density of the reference [g/cm3]")
    for side in ("reference", "evaluated"):
        group.add_argument(
            f"--{side}-uncertainty", metavar="MAP", help=f"standard uncertainty (k=1) of the {side} map"
        )
        group.add_argument(
            f"--{side}-batches", metavar="GLOB", help=f"batch doses whose mean the {side} map is"
        )
    group.add_argument(
        "--relative-uncertainty",
        action="store_true",
        help="the uncertainty maps are relative: fractions of the dose in each voxel",
    )
    group.add_argument("--unit", choices=("gy", "cgy"), help="unit of the values in both files")
    group.add_argument(
        "--scale",
        type=options.scale,
        metavar="FACTOR|match-integral|match-prescription",
        help="multiply the evaluated map",
    )
    group.add_argument("--prescription", type=options.positive, metavar="GY", help="prescribed dose")


def _add_metric_options(parser: argparse.ArgumentParser) -> None:
    """Options about what is computed."""
    group = parser.add_argument_group("metrics")
    group.add_argument(
        "--metrics",
        type=options.names,
        default=("default",),
        metavar="default|fast|all|NAME,NAME",
        help="which metrics: sets, families or keys of the JSON (default: default)",
    )
    group.add_argument(
        "--plugin",
        action="append",
        default=[],
        metavar="FILE.py",
        help="run a Python file that registers metrics of your own (dosemover.comparison.register); may be "
        "given more than once",
    )
    _add_gamma_options(group)
    _add_transport_options(group)
    _add_noise_options(group)


def _add_gamma_options(group: Any) -> None:
    """Options about gamma and its kin."""
    group.add_argument(
        "--gamma",
        type=options.criteria,
        default=((3.0, 3.0), (2.0, 2.0)),
        metavar="3/3,2/2",
        help="gamma criteria PERCENT/MM (default: 3/3,2/2)",
    )
    group.add_argument(
        "--normalization",
        choices=("global", "local", "both"),
        default="global",
        help="dose that the gamma criterion's %% refers to (default: global)",
    )
    group.add_argument(
        "--gamma-interpolant",
        choices=("simplex", "grid"),
        default="simplex",
        help="simplex: the exact minimum over the interpolated dose; grid: voxel centres only",
    )
    group.add_argument(
        "--dose-threshold",
        type=options.not_negative,
        default=10.0,
        metavar="PERCENT",
        help="leave out reference doses below this share of the prescription, or of the maximum where none "
        "is given (default: 10)",
    )


def _add_transport_options(group: Any) -> None:
    """Options about the Dose Mover's Distance and the flat norm."""
    group.add_argument(
        "--exchange",
        type=options.positive,
        default=1.0,
        metavar="MM_PER_PERCENT",
        help="Dose Mover's Distance: mm of movement that 1 %% of change is worth (default: 1)",
    )
    group.add_argument(
        "--ambient-dose",
        type=options.not_negative,
        default=0.1,
        metavar="PERCENT",
        help="Dose Mover's Distance: ambient dose in %% of the reference maximum (default: 0.1)",
    )
    group.add_argument(
        "--reach", type=options.positive, default=10.0, metavar="MM", help="flat norm: reach (default: 10)"
    )
    group.add_argument("--profile", action="store_true", help="add profiles over exchange length and reach")


def _add_noise_options(group: Any) -> None:
    """Options about draws of noise alone."""
    group.add_argument(
        "--null",
        type=options.draws,
        metavar="N",
        help="number of draws of noise alone, 2 or more; also gives those metrics a floor that are left out "
        "otherwise, since each draw costs as much as they do",
    )
    group.add_argument(
        "--seed", type=options.seed, default=0, metavar="N", help="seed of every random draw (default: 0)"
    )


def _add_output_options(parser: argparse.ArgumentParser) -> None:
    """Options about what is written."""
    group = parser.add_argument_group("output")
    group.add_argument("--report", metavar="FILE.html", help="write the self-contained HTML report")
    group.add_argument("--json", metavar="FILE|-", help="write the JSON; - for standard output")
    group.add_argument("--save-maps", metavar="DIR", help="write per-voxel results as NRRD")
    group.add_argument(
        "--fail-if",
        type=condition,
        action="append",
        default=[],
        metavar="KEY<NUMBER",
        help="exit with 1 where a metric is outside a limit; may be given more than once",
    )
    group.add_argument("--identifiers", action="store_true", help="let patient identifiers into outputs")
    group.add_argument("--quiet", action="store_true", help="no table, no progress; warnings stay")


def run(arguments: argparse.Namespace) -> int:
    """Compare, print, write, and judge."""
    from dosemover.cli.outputs import check_targets

    check_targets(arguments.report, arguments.json, arguments.save_maps, inputs=_files(arguments))
    if arguments.plugin:
        from dosemover.comparison.register import run_plugin

        for path in arguments.plugin:
            run_plugin(path)
    result = _compare(arguments)
    return publish(result, arguments)


def publish(result: ComparisonResult, arguments: argparse.Namespace) -> int:
    """Print the table, write what was asked for, and return the exit code."""
    from dosemover.cli.outputs import save_maps, write_text
    from dosemover.cli.table import print_result

    for warning in result.warnings:
        say(f"warning: {warning}", quiet=False)
    if arguments.json and arguments.json != "-":
        write_text(arguments.json, result.to_json() + "\n")
    if arguments.save_maps:
        save_maps(result, Path(arguments.save_maps))
    if arguments.report:
        say(f"report: {result.report(arguments.report)}", quiet=arguments.quiet)
    if arguments.json == "-":
        print(result.to_json())
    elif not arguments.quiet:
        print_result(result)
    verdicts = [verdict for one in arguments.fail_if if (verdict := one.verdict(result)) is not None]
    for verdict in verdicts:
        say(f"dosemover: outside the limit {verdict}", quiet=False)
    return 1 if verdicts else 0


def _files(arguments: argparse.Namespace) -> list[str]:
    """Every file that is read, as far as the command line names it."""
    names = [arguments.structures, arguments.density, *arguments.plugin]
    for side in ("reference", "evaluated"):
        whole = getattr(arguments, side)
        names += [whole, *whole.split("+"), getattr(arguments, f"{side}_uncertainty")]
        names += glob.glob(getattr(arguments, f"{side}_batches") or "")
    return [name for name in names if name]


def _compare(arguments: argparse.Namespace) -> ComparisonResult:
    """Read both maps and compare them."""
    from dosemover.comparison import compare
    from dosemover.comparison.warm_up import start_compilation

    if start_compilation():
        say("compiling, first run only (about half a minute)", quiet=arguments.quiet)

    with progress_bar(quiet=arguments.quiet) as progress:
        progress("reading", 0.0)
        reference, evaluated = _read(arguments, "reference"), _read(arguments, "evaluated")
        limits = tuple(one.key for one in arguments.fail_if)
        return compare(
            reference,
            evaluated,
            structures=arguments.structures,
            density=arguments.density,
            metrics=tuple(dict.fromkeys(arguments.metrics + limits)),
            gamma=arguments.gamma,
            gamma_interpolant=arguments.gamma_interpolant,
            normalization=arguments.normalization,
            dose_threshold_percent=arguments.dose_threshold,
            prescription_gy=arguments.prescription,
            scale=arguments.scale,
            exchange_mm_per_percent=arguments.exchange,
            ambient_dose_percent=arguments.ambient_dose,
            reach_mm=arguments.reach,
            profile=arguments.profile,
            null=arguments.null,
            seed=arguments.seed,
            identifiers=arguments.identifiers,
            progress=progress,
        )


def _read(arguments: argparse.Namespace, side: str) -> Any:
    """One map with the uncertainty or the batches that belong to it."""
    from dosemover.io import read_dose

    return read_dose(
        getattr(arguments, side),
        uncertainty=getattr(arguments, f"{side}_uncertainty"),
        uncertainty_kind="relative" if arguments.relative_uncertainty else "absolute",
        batches=getattr(arguments, f"{side}_batches"),
        unit=arguments.unit,
    )
