"""``dosemover doctor``."""

from __future__ import annotations

import argparse
import importlib.metadata
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dosemover.errors import DosemoverError

if TYPE_CHECKING:
    from dosemover.dose import DoseMap

_PACKAGES = ("numpy", "scipy", "numba", "pydicom", "SimpleITK", "scikit-image", "matplotlib", "rich", "POT")
_EXTRAS = {"ompmc": "mc", "pylibjpeg": "jpeg"}
_EXTENT_MM, _SPACING_MM, _SHIFT_MM, _OUTPUT = 48.0, 2.0, 4.0, 0.02


@dataclass(frozen=True, kw_only=True, eq=False)
class SelfTest:
    """A solver on a case whose value is known.

    Parameters
    ----------
    name : str
    expected : float
    tolerance : float
        Relative.
    compute : callable
        Returns the solver's value.
    law : str
        The closed form in words.
    """

    name: str
    expected: float
    tolerance: float
    compute: Callable[[], float]
    law: str


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "doctor",
        help="versions, threads, and a self-test of each solver against a closed form",
        description="Show what dosemover runs on, and test each solver against a closed form.",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print versions and self-tests; 1 where a solver misses its closed form."""
    from rich.table import Table

    from dosemover.cli.outputs import output_console

    console = output_console()
    about = Table(box=None, show_header=False, pad_edge=False)
    for key, value in _machine().items():
        about.add_row(f"[bold]{key}[/]", value)
    console.print(about)
    table = Table(box=None, pad_edge=False, header_style="dim", title="\nself-tests", title_justify="left")
    for column in ("solver", "value", "closed form", "seconds", "", "law"):
        table.add_column(column, justify="right" if column in ("value", "closed form", "seconds") else "left")
    failures = 0
    for test in self_tests():
        row, passed = _judge(test)
        failures += not passed
        table.add_row(*row)
    console.print(table)
    return 1 if failures else 0


def _machine() -> dict[str, str]:
    """Versions, cores and memory."""
    from dosemover._runtime import available_memory_bytes, kernels_are_compiled, provenance

    found = provenance()
    lines = {"dosemover": found["version"], "python": found["python"], "platform": found["platform"]}
    lines |= {package: importlib.metadata.version(package) for package in _PACKAGES}
    for package, extra in _EXTRAS.items():
        try:
            lines[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            lines[package] = f"not installed (pip install 'dosemover\\[{extra}]')"
    memory = available_memory_bytes()
    lines["cores"] = found["cores"]
    lines["free memory"] = "unknown" if memory is None else f"{memory / 2**30:.1f} GiB"
    lines["kernels"] = "compiled" if kernels_are_compiled() else "will be compiled at first use"
    return lines


def _judge(test: SelfTest) -> tuple[list[str], bool]:
    """One row of the table, and whether the solver met its closed form."""
    start = time.perf_counter()
    try:
        value = test.compute()
    except DosemoverError as error:
        return [test.name, "", f"{test.expected:.5g}", "", "[red]failed[/]", str(error)], False
    seconds = f"{time.perf_counter() - start:.2f}"
    passed = abs(value - test.expected) <= test.tolerance * max(abs(test.expected), 1e-12)
    verdict = "[green]ok[/]" if passed else "[red]wrong[/]"
    return [test.name, f"{value:.5g}", f"{test.expected:.5g}", seconds, verdict, test.law], passed


def _box(shift_mm: float = 0.0, output: float = 1.0, background: float = 0.0) -> DoseMap:
    """Uniform cube of 16 mm in a field of 48 mm, moved along x by whole voxels."""
    import numpy as np

    from dosemover.dose import DoseMap

    n = int(_EXTENT_MM / _SPACING_MM)
    dose = np.full((n, n, n), background)
    low, high = n // 3, 2 * n // 3
    moved = round(shift_mm / _SPACING_MM)
    dose[low:high, low:high, low + moved : high + moved] = output
    return DoseMap.from_array(dose, spacing_mm=(_SPACING_MM,) * 3)


def self_tests() -> list[SelfTest]:
    """Every solver on a moved cube or on an output change, whichever has a closed form."""
    return [_gamma_test(), *_shift_tests(), *_output_tests()]


def _gamma_test() -> SelfTest:
    """Gamma where every voxel uses exactly its tolerance."""
    from dosemover import metrics

    return SelfTest(
        name="gamma 2 %/2 mm",
        expected=1.0,
        tolerance=1e-6,
        compute=lambda: (
            metrics.gamma_index(
                reference=_box(background=1.0),
                evaluated=_box(output=1 + _OUTPUT, background=1 + _OUTPUT),
                dose_criterion_percent=100 * _OUTPUT,
                distance_criterion_mm=2.0,
            ).mean
        ),
        law="+2 % everywhere: gamma 1",
    )


def _shift_tests() -> list[SelfTest]:
    """Solvers that read a rigid shift as its length."""
    from dosemover import metrics, transport

    pair: dict[str, Any] = {"reference": _box(), "evaluated": _box(_SHIFT_MM)}
    law = f"a rigid shift by {_SHIFT_MM:g} mm"
    projected = _SHIFT_MM / math.sqrt(3)
    solvers: tuple[tuple[str, float, float, Callable[[], float], str], ...] = (
        ("best shift", _SHIFT_MM, 0.02, lambda: metrics.best_shift(**pair).length_mm, law),
        ("W_1", _SHIFT_MM, 0.02, lambda: transport.wasserstein_1(**pair).value, law),
        ("W_2", _SHIFT_MM, 0.02, lambda: transport.wasserstein_2(**pair).value, law),
        ("axis W_2", _SHIFT_MM, 1e-6, lambda: transport.axis_w2(**pair).value, law),
        ("EMD (voxel atoms)", _SHIFT_MM, 1e-6, lambda: transport.emd(**pair).value, law),
        ("sliced W_2", projected, 1e-6, lambda: transport.sliced_w2(**pair).value, f"{law}, over sqrt(3)"),
    )
    return [
        SelfTest(name=name, expected=expected, tolerance=tolerance, compute=compute, law=said)
        for name, expected, tolerance, compute, said in solvers
    ]


def _output_tests() -> list[SelfTest]:
    """Solvers that read a change of output."""
    from dosemover import transport

    pair: dict[str, Any] = {"reference": _box(), "evaluated": _box(output=1 + _OUTPUT)}
    length, reach = 100.0, 10.0
    return [
        SelfTest(
            name="Dose Mover's Distance",
            expected=2 * length * (math.sqrt(1 + _OUTPUT) - 1),
            tolerance=1e-4,
            compute=lambda: transport.dose_movers_distance(**pair, ambient_dose_percent=0.0).value,
            law="output +2 %: 2 L (sqrt(1.02) - 1)",
        ),
        SelfTest(
            name="flat norm",
            expected=reach / 2 * _OUTPUT,
            tolerance=0.01,
            compute=lambda: transport.flat_norm(**pair, reach_mm=reach).value,
            law="output +2 %: R/2 times 0.02",
        ),
    ]
