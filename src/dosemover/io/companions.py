"""Uncertainty maps that Monte Carlo programs leave beside the dose."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dosemover.errors import DosemoverError
from dosemover.grid import Grid
from dosemover.io.files import FileContent

_NAMES = ("{stem}-Uncertainty", "{stem}_uncertainty", "{stem}-uncertainty", "{stem}_Uncertainty")
"""GATE to version 9 writes X-Dose.mhd and X-Dose-Uncertainty.mhd, GATE 10 X_dose and X_dose_uncertainty."""


def companion_file(path: Path) -> Path | None:
    """The uncertainty map beside a dose, by GATE's names."""
    for name in _NAMES:
        candidate = path.with_name(name.format(stem=path.stem) + path.suffix)
        if candidate.is_file():
            return candidate
    return None


def with_companion(
    path: Path, content: FileContent, read: Callable[[Path], tuple[NDArray[Any], Grid]]
) -> FileContent:
    """The dose with GATE's uncertainty map, where one lies beside it.

    Parameters
    ----------
    path : Path
        The dose file.
    content : FileContent
        What it holds.
    read : callable
        Reads values and grid of the other file.

    Returns
    -------
    FileContent
        With the absolute uncertainty, or without one and with the reason in ``source["uncertainty"]``.

    Notes
    -----
    *Definition*: GATE writes the relative standard error of the mean over N histories,
    sqrt((N sum d^2/(sum d)^2 - 1)/(N - 1)), which is 1 at most, and exactly 1 where no dose was
    deposited. A map beside the dose that is not like this is not GATE's and is left alone: pass it
    as ``uncertainty=``.

    References
    ----------
    N. Chetty et al., Reporting and analyzing statistical uncertainties in Monte Carlo-based treatment
    planning, Int. J. Radiat. Oncol. Biol. Phys. 65, 1249 (2006).
    """
    beside = companion_file(path)
    if beside is None:
        return content
    try:
        relative, grid = read(beside)
        reason = _unlike_gate(relative, grid, content)
    except DosemoverError as error:
        relative, reason = None, str(error)
    if relative is None or reason is not None:
        note = f"{beside.name} beside the dose is not used: {reason}"
        return replace(content, source={**content.source, "uncertainty": note})
    note = f"{beside.name}, relative, found beside the dose"
    return replace(
        content,
        uncertainty=relative * np.asarray(content.values, dtype=np.float64),
        source={**content.source, "uncertainty": note},
    )


def _unlike_gate(relative: NDArray[Any], grid: Grid, content: FileContent) -> str | None:
    """Why a map is no relative uncertainty of the dose by GATE; None where it is."""
    if not grid.coincides_with(content.grid):
        return "it lies on another grid"
    if not (np.all(relative >= 0) and np.all(relative <= 1 + 1e-5)):
        return (
            f"it reaches from {relative.min():.4g} to {relative.max():.4g}, no relative uncertainty of GATE's"
        )
    if np.any(np.abs(relative[content.values == 0] - 1) > 1e-5):
        return "it is not 1 where the dose is 0, as GATE's relative uncertainty is"
    return None
