"""Ground services: optional imports, threads and provenance."""

from __future__ import annotations

import importlib
import os
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

from dosemover.errors import MissingDependencyError

Progress = Callable[[str, float], None]
"""Progress callback: ``progress(what, fraction)`` with ``fraction`` from 0 to 1."""


def no_progress(what: str, fraction: float) -> None:
    """Ignore progress: the default of every ``progress`` argument."""


def optional_import(name: str, *, extra: str) -> ModuleType:
    """Import an optional module, or say which extra installs it.

    Raises
    ------
    MissingDependencyError
        When the module is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingDependencyError(
            f"the Python package {name!r} is not installed, and this call needs it. "
            f"Install it with: pip install 'dosemover[{extra}]'"
        ) from error


def lazy_exports(
    package: str, modules: Mapping[str, Sequence[str]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """``__getattr__``, ``__dir__`` and ``__all__`` of a package whose names are imported at first use.

    Parameters
    ----------
    package : str
        ``__name__`` of the package.
    modules : mapping of str to sequence of str
        Module, relative to the package, and the public names that it offers.

    Examples
    --------
    >>> get, names, public = lazy_exports("dosemover", {"errors": ("InputError",)})
    >>> get("InputError").__name__, public
    ('InputError', ['InputError'])
    """
    homes = {name: f"{package}.{module}" for module, names in modules.items() for name in names}
    public = sorted(homes)

    def getattr_(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(homes[name]), name)
        vars(sys.modules[package])[name] = value
        return value

    def dir_() -> list[str]:
        return sorted({*vars(sys.modules[package]), *public})

    return getattr_, dir_, public


def available_cores() -> int:
    """Number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def available_memory_bytes() -> int | None:
    """Memory that could be allocated now, in bytes; None where the system does not say."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None


def provenance() -> dict[str, str]:
    """Versions and platform that a result was computed with."""
    import numpy as np

    from dosemover import __version__

    return {
        "version": __version__,
        "python": sys.version.split()[0],
        "numpy": np.__version__,
        "platform": platform.platform(terse=True),
        "cores": str(available_cores()),
    }


def kernels_are_compiled() -> bool:
    """Whether the machine keeps the compiled kernels of an earlier comparison."""
    from pathlib import Path

    package = Path(__file__).parent
    if any(package.rglob("__pycache__/lower_kernels*.nbi")):
        return True
    folder = os.environ.get("NUMBA_CACHE_DIR")
    return folder is not None and any(Path(folder).rglob("lower_kernels*.nbi"))
