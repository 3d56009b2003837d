"""``dosemover simulate CONFIG.toml -o DIR``."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dosemover.cli import options
from dosemover.cli.progress import progress_bar, say
from dosemover.cli.until import goal
from dosemover.errors import InputError

if TYPE_CHECKING:
    from dosemover.cli.until import StoppingRule
    from dosemover.moments import MomentConsumer
    from dosemover.montecarlo import SimulationConfig, SimulationResult

_STATE = "state.npz"
_UNTIL = "until.json"
_MOMENTS = "moments.npz"
_NOT_REACHED, _INTERRUPTED = 3, 130


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "simulate",
        help="simulate a dose map by Monte Carlo, with its uncertainty and batches",
        description="Simulate the dose of the sources in CONFIG.toml and write DIR/dose.mha, dose.dcm (RT "
        "Dose), uncertainty.mha, dose.npz (with the batches) and records.json (AAPM TG-268). The built-in "
        "engine transports photons only: electrons deposit their energy where they start (kerma). That is "
        "right for kV and brachytherapy energies, and for Co-60-like energies away from surfaces; it is no "
        "MV dose: engine = 'ompmc' gives one, and engine = 'mcsquare' simulates protons. Ctrl-C keeps what "
        "was simulated; --resume goes on.",
    )
    parser.add_argument("config", metavar="CONFIG.toml", help="phantom, sources and engine")
    parser.add_argument("-o", "--output", required=True, metavar="DIR", help="directory for the results")
    parser.add_argument("--histories", type=options.count, metavar="N", help="number of primary particles")
    parser.add_argument("--batches", type=options.count, metavar="N", help="number of batches")
    parser.add_argument("--seed", type=int, metavar="N", help="seed of the random numbers")
    parser.add_argument(
        "--uncertainty-goal",
        dest="uncertainty_goal_percent",
        type=float,
        metavar="PERCENT",
        help="stop when the root mean square relative uncertainty above half the maximum is this small",
    )
    parser.add_argument("--max-seconds", type=float, metavar="S", help="stop after this time")
    parser.add_argument(
        "--until",
        type=goal,
        action="append",
        default=[],
        metavar="KEY.floor<NUMBER",
        help="stop when the noise floor of a metric, between two independent simulations of the quality "
        "reached, is low enough: 'dmd_mm.floor<0.1'. --histories is then the most that is simulated; may be "
        "given more than once",
    )
    parser.add_argument(
        "--reference", metavar="MAP", help="with --until: the floor between this map and the simulation"
    )
    parser.add_argument(
        "--moments",
        nargs="?",
        const=12,
        type=options.count,
        metavar="DEGREE",
        help="also tally the moments of the energy deposits, without voxels, to DIR/moments.npz (degree 12 "
        "unless given; analog estimator of the built-in engine, not with --resume)",
    )
    parser.add_argument("--resume", action="store_true", help="go on from DIR/state.npz of an earlier run")
    parser.add_argument("--quiet", action="store_true", help="no table, no progress")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Simulate, write, and print the summary."""
    from dosemover.cli.outputs import make_directory
    from dosemover.montecarlo import load_state, read_config, simulate, write_result

    names = ("histories", "batches", "seed", "uncertainty_goal_percent", "max_seconds")
    asked = {name: getattr(arguments, name) for name in names}
    config = replace(
        read_config(arguments.config), **{name: value for name, value in asked.items() if value is not None}
    )
    directory = make_directory(Path(arguments.output))
    rule = _rule(arguments, config)
    consumer = _consumer(arguments, config)
    earlier = load_state(directory / _STATE, config) if arguments.resume else None
    with progress_bar(quiet=arguments.quiet) as progress:
        result = simulate(config, progress=progress, resume=earlier, stop=rule, consumer=consumer)
    reached = rule is None or rule.check(result)
    written = write_result(result, directory)
    if consumer is not None:
        written.append(consumer.tally().save(directory / _MOMENTS))
    if rule is not None:
        written.append(_write_until(rule, directory))
    if not arguments.quiet:
        _print(result)
    for sentence in [] if rule is None else rule.told():
        say(sentence, quiet=arguments.quiet and reached)
    for path in written:
        print(path)
    if result.status == "interrupted":
        say("interrupted: what was simulated is written, --resume goes on", quiet=False)
        return _INTERRUPTED
    return 0 if reached else _NOT_REACHED


def _rule(arguments: argparse.Namespace, config: SimulationConfig) -> StoppingRule | None:
    """The stopping rule that was asked for, checked before anything is simulated."""
    if not arguments.until:
        if arguments.reference:
            raise InputError("--reference is the map of a stopping rule. Alone it does nothing. Add --until.")
        return None
    if config.engine != "builtin":
        raise InputError(
            f"--until watches the built-in engine, but the engine is {config.engine!r}. Its dose comes only "
            "when it is done. Set histories, compare, and read how many times as many are needed."
        )
    from dosemover.cli.until import StoppingRule
    from dosemover.io import read_dose

    reference = None if arguments.reference is None else read_dose(arguments.reference)
    return StoppingRule(goals=arguments.until, reference=reference)


def _consumer(arguments: argparse.Namespace, config: SimulationConfig) -> MomentConsumer | None:
    """What tallies the moments of the deposits on the phantom's box, where that was asked for."""
    if arguments.moments is None:
        return None
    if arguments.resume:
        raise InputError(
            "--moments tallies deposits as they happen, and those of the earlier run are gone. The tally "
            "would be that of a part. Simulate without --resume."
        )
    from dosemover.moments import MomentConsumer

    return MomentConsumer(box_mm=config.phantom.grid.box_mm, degree=arguments.moments)


def _write_until(rule: StoppingRule, directory: Path) -> Path:
    """What the stopping rule found at every check, beside the dose."""
    from dosemover.cli.outputs import write_text

    told = {"told": rule.told(), "checks": rule.checks}
    write_text(str(directory / _UNTIL), json.dumps(told, indent=1) + "\n")
    return directory / _UNTIL


def _print(result: SimulationResult) -> None:
    """Summary and limits."""
    from rich.table import Table

    from dosemover.cli.outputs import output_console

    console = output_console()
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for key, value in result.summary().items():
        table.add_row(key, f"{value:.6g}" if isinstance(value, float) else str(value))
    console.print(table)
    for limit in result.limits:
        console.print(f"[dim]{limit}[/]", soft_wrap=True)
