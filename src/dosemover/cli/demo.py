"""``dosemover demo``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from dosemover.cli.progress import progress_bar, say


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "demo",
        help="the embedded example, compared, with its report",
        description="Compare the embedded example: a simulated field against itself moved by 1 mm, 2 % "
        "lower in output and with a small hot spot. Gamma 3 %/3 mm hardly notices; optimal transport does.",
    )
    parser.add_argument(
        "-o", "--output", default="dosemover-demo", metavar="DIR", help="directory (default: %(default)s)"
    )
    parser.add_argument("--quiet", action="store_true", help="no table, no progress")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Compare the embedded pair and write its report and JSON."""
    from dosemover.cli.outputs import make_directory, write_text
    from dosemover.cli.table import print_result
    from dosemover.examples import example_pair

    directory = make_directory(Path(arguments.output))
    from dosemover.comparison import compare
    from dosemover.comparison.warm_up import start_compilation

    if start_compilation():
        say("compiling, first run only (about half a minute)", quiet=arguments.quiet)

    reference, evaluated = example_pair()
    with progress_bar(quiet=arguments.quiet) as progress:
        result = compare(reference, evaluated, progress=progress)
    if not arguments.quiet:
        print_result(result)
    write_text(str(directory / "result.json"), result.to_json() + "\n")
    print(f"report: {result.report(directory / 'report.html').resolve()}")
    return 0
