"""``dosemover info FILE``."""

from __future__ import annotations

import argparse
from typing import Any


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "info",
        help="grid, units, maximum, integral, uncertainty and format details of a dose file",
        description="Show what dosemover reads from a dose file.",
    )
    parser.add_argument("file", metavar="FILE", help="dose file, A.dcm+B.dcm to sum beams, or a directory")
    parser.add_argument("--unit", choices=("gy", "cgy"), help="unit of the values in the file")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--identifiers", action="store_true", help="show patient identifiers")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Describe one file."""
    from dosemover.io import describe

    described = describe(arguments.file, unit=arguments.unit, identifiers=arguments.identifiers)
    if arguments.json:
        import json

        print(json.dumps(described, indent=2, default=str))
        return 0
    from rich.markup import escape
    from rich.table import Table

    from dosemover.cli.outputs import output_console

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for key, value in described.items():
        empty = "uneven" if key == "spacing_mm" else ""
        table.add_row(key, escape(_text(value, empty)))
    output_console().print(table)
    return 0


def _text(value: Any, empty: str = "") -> str:
    """One value of the table, with numbers short, and a word for what there is not."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return ", ".join(_text(entry, empty) for entry in value)
    if isinstance(value, dict):
        return "; ".join(f"{key}: {_text(entry, empty)}" for key, entry in value.items())
    return empty if value is None else str(value)
