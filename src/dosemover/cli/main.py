"""Entry point of the command line: parses, dispatches, and turns errors into one line and a code."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

from dosemover import __version__
from dosemover.errors import AccuracyWarning, DosemoverError, NotConvergedError, StatisticalWarning

EXIT_DONE, EXIT_LIMIT, EXIT_INPUT, EXIT_NOT_CONVERGED, EXIT_INTERRUPTED = 0, 1, 2, 3, 130


class _Parser(argparse.ArgumentParser):
    """Parser that answers wrong usage with one line, like every other bad input."""

    def error(self, message: str) -> NoReturn:
        """Print what is wrong and where help is, and exit."""
        self.exit(EXIT_INPUT, f"dosemover: {message}. See: {self.prog} --help\n")


def build_parser() -> argparse.ArgumentParser:
    """Parser of every command; each command's module is imported when it runs."""
    from dosemover.cli import compare, convert, demo, doctor, info, moments, simulate, study

    parser = _Parser(
        prog="dosemover",
        description="Compare radiotherapy dose maps: how far, in mm, the dose moved, and by how much, in %, "
        "it changed, beside every classical metric. A research tool, not a medical device.",
        epilog="exit codes: 0 done, 1 outside a limit that was asked for, 2 bad input or usage, "
        "3 not converged",
    )
    parser.add_argument("--version", action="version", version=f"dosemover {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in (compare, info, convert, simulate, moments, study, demo, doctor):
        module.add_parser(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    parsed = build_parser().parse_args(arguments)
    try:
        with _warnings_on_one_line():
            return parsed.run(parsed)
    except NotConvergedError as error:
        return _fail(error, EXIT_NOT_CONVERGED)
    except DosemoverError as error:
        return _fail(error, EXIT_INPUT)
    except KeyboardInterrupt:
        print("dosemover: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader of our output has gone: nothing left to say
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_DONE


@contextmanager
def _warnings_on_one_line() -> Iterator[None]:
    """Show the project's own warnings as lines of stderr, and no library's."""

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        print(f"warning: {' '.join(str(message).split())}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for category in (AccuracyWarning, StatisticalWarning):
            warnings.simplefilter("always", category)
        warnings.showwarning = show
        yield


def _fail(error: Exception, code: int) -> int:
    """Print an error on one line of stderr and return its exit code."""
    print(f"dosemover: {' '.join(str(error).split())}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
