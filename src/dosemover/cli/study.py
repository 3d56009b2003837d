"""``dosemover study run | status | collect | report``."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from dosemover._runtime import Progress, no_progress
from dosemover.cli import options
from dosemover.cli.progress import progress_bar

_LINE_EVERY_S = 30.0


def add_parser(commands: Any) -> None:
    """Add the command and its own commands."""
    parser = commands.add_parser(
        "study",
        help="measure simulated changes under noise with every metric, and analyze the table",
        description="A study is described in a TOML file: cases (phantom, beam, engine), changes, noise "
        "levels, replicates, metrics. `run` simulates and measures, `report` analyzes the table. A run may "
        "be stopped, or killed, and goes on where it was; its table is the same with any number of workers.",
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="COMMAND")
    _add_run(verbs)
    for verb, text, action in (
        ("status", "say how much of a study has been measured", _status),
        ("collect", "write the tables of what has been measured, without measuring more", _collect),
    ):
        sub = verbs.add_parser(verb, help=text, description=f"{text[0].upper()}{text[1:]}.")
        sub.add_argument("study", metavar="STUDY.toml", help="description of the study")
        sub.add_argument("-o", "--output", required=True, metavar="DIR", help="directory of the study")
        sub.set_defaults(run=action)
    sub = verbs.add_parser(
        "report",
        help="analyze the table of a study: figures and tables",
        description="Response curves, noise floors, detection power and cost from DIR/measurements.parquet.",
    )
    sub.add_argument("directory", metavar="DIR", help="directory of the study")
    sub.add_argument("-o", "--output", metavar="OUT", help="where the report goes; DIR/report by default")
    sub.set_defaults(run=_report)


def _add_run(verbs: Any) -> None:
    """Add ``study run``."""
    sub = verbs.add_parser(
        "run",
        help="run a study, or go on with it",
        description="Write DIR/measurements.parquet (one row per comparison and metric), costs.parquet and "
        "provenance.json. Runs on an embedded Dask cluster, or on the scheduler at --scheduler, whose "
        "workers must see DIR.",
    )
    sub.add_argument("study", metavar="STUDY.toml", help="description of the study")
    sub.add_argument("-o", "--output", required=True, metavar="DIR", help="directory for banks and tables")
    sub.add_argument("--workers", type=options.count, metavar="N", help="processes; as many as cores")
    sub.add_argument("--scheduler", metavar="ADDRESS", help="Dask scheduler, such as tcp://10.0.0.1:8786")
    sub.add_argument(
        "--max-minutes", type=options.positive, metavar="M", help="stop after M minutes; what is whole counts"
    )
    sub.add_argument("--quiet", action="store_true", help="no progress")
    sub.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    """Run or go on."""
    from dosemover.study import read_study, run_study

    study = read_study(arguments.study)
    with progress_bar(quiet=arguments.quiet) as bar:
        lines = bar is no_progress and not arguments.quiet
        written = run_study(
            study,
            arguments.output,
            workers=arguments.workers,
            scheduler=arguments.scheduler,
            max_seconds=None if arguments.max_minutes is None else 60 * arguments.max_minutes,
            progress=_line_by_line() if lines else bar,
        )
    _print_paths(written)
    return 0


def _line_by_line() -> Progress:
    """Progress as lines of stderr, for logs."""
    last = -_LINE_EVERY_S

    def show(what: str, fraction: float) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _LINE_EVERY_S or fraction >= 1:
            last = now
            print(f"{time.strftime('%H:%M:%S')} {100 * fraction:5.1f} % {what}", file=sys.stderr, flush=True)

    return show


def _status(arguments: argparse.Namespace) -> int:
    """Print how far a study is."""
    from dosemover.study import read_study, study_progress

    done, total = study_progress(read_study(arguments.study), arguments.output)
    print(f"{done} of {total} pieces measured" if total else "no pilot has been run yet")
    return 0


def _collect(arguments: argparse.Namespace) -> int:
    """Write the tables of what is there."""
    from dosemover.study import collect_study, read_study

    _print_paths(collect_study(read_study(arguments.study), arguments.output))
    return 0


def _report(arguments: argparse.Namespace) -> int:
    """Analyze the table."""
    from dosemover.study import write_report

    directory = Path(arguments.directory)
    output = Path(arguments.output) if arguments.output else directory / "report"
    _print_paths(write_report(directory, output=output))
    return 0


def _print_paths(paths: list[Path]) -> None:
    """One path a line, on stdout."""
    for path in paths:
        print(path)
