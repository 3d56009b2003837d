"""The errors and warnings that dosemover raises: one tree, so that callers can catch it whole."""

from __future__ import annotations

from typing import Any


class DosemoverError(Exception):
    """Base of every error that dosemover raises on purpose."""


class InputError(DosemoverError, ValueError):
    """An argument or a file's content that cannot be used as asked."""


class GridMismatchError(InputError):
    """Two grids, or a grid and an array, that do not fit together."""


class UnitError(InputError):
    """A quantity in a unit that the operation cannot use."""


class DataFormatError(DosemoverError, ValueError):
    """A file that does not hold what its format promises."""


class MissingDependencyError(DosemoverError, ImportError):
    """An optional package that the call needs is not installed."""


class NotConvergedError(DosemoverError, RuntimeError):
    """An iteration that stopped early; ``result`` carries what it has so far."""

    def __init__(self, message: str, *, result: Any = None) -> None:
        super().__init__(message)
        self.result = result


class StatisticalWarning(UserWarning):
    """A result whose statistical meaning is weaker than it looks."""


class AccuracyWarning(UserWarning):
    """A result that is less accurate, or about less of the dose, than it looks."""
