"""What belongs to a dose and lies in other files: uncertainties, batches, densities."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dosemover.dose import DoseMap
from dosemover.errors import DosemoverError, GridMismatchError, InputError
from dosemover.grid import Grid, conserve
from dosemover.io.files import FileContent, reading

_BATCH_TOLERANCE = 0.01
"""Relative difference allowed between the integral of a dose and that of its batches' mean or sum."""

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


def with_uncertainty(
    dose: DoseMap, name: str, values: NDArray[Any], grid: Grid, *, kind: str, factor: float
) -> DoseMap:
    """The dose with the standard uncertainty of another file.

    Parameters
    ----------
    dose : DoseMap
    name : str
        Name of the other file.
    values : ndarray, shape [z, y, x]
        Absolute uncertainty, in the unit of the file, or relative uncertainty.
    grid : Grid
        Grid of the values.
    kind : {"absolute", "relative"}
    factor : float
        Gray per unit of the file.

    Raises
    ------
    GridMismatchError
        When the grids differ.
    """
    if not grid.coincides_with(dose.grid):
        raise GridMismatchError(
            f"{name}: the uncertainty has {grid.shape} voxels of {grid.spacing_mm} mm from "
            f"{grid.origin_mm}, the dose {dose.name} {dose.grid.shape} of {dose.grid.spacing_mm} from "
            f"{dose.grid.origin_mm}. Pass an uncertainty on the grid of the dose."
        )
    absolute = values * dose.dose_gy if kind == "relative" else values * np.float64(factor)
    with reading(Path(name), "an uncertainty"):
        return replace(
            dose, uncertainty_gy=absolute, source={**dose.source, "uncertainty": f"{name} ({kind})"}
        )


def with_density(dose: DoseMap, name: str, values: NDArray[Any], grid: Grid) -> DoseMap:
    """The dose with the density [g/cm3] of another file, averaged over its voxels.

    Raises
    ------
    GridMismatchError
        When the density does not cover the dose.
    """
    density = values
    if not grid.coincides_with(dose.grid):
        covered = conserve(np.ones(grid.shape), source=grid, target=dose.grid)
        if float(covered.min()) < 1 - 1e-6:
            raise GridMismatchError(
                f"{name}: the density spans {grid.box_mm} mm (z, y, x) and does not cover the dose "
                f"{dose.name}, {dose.grid.box_mm} mm. Energy there is unknown. Crop the dose, or pass a "
                "larger density map."
            )
        density = conserve(values, source=grid, target=dose.grid)
    with reading(Path(name), "a density"):
        return replace(dose, density_g_per_cm3=density, source={**dose.source, "density": name})


def with_batches(dose: DoseMap, files: Sequence[Path], maps: Sequence[DoseMap]) -> DoseMap:
    """The dose with its independent batches, and with the uncertainty that they give where it has none.

    Parameters
    ----------
    dose : DoseMap
    files : sequence of Path
        Where the batches come from.
    maps : sequence of DoseMap
        One map a batch, or one that holds all batches.

    Raises
    ------
    GridMismatchError
        When a batch lies on another grid.
    InputError
        When neither mean nor sum of the batches is the dose.
    """
    for file, one in zip(files, maps, strict=True):
        if not one.grid.coincides_with(dose.grid):
            raise GridMismatchError(
                f"{file.name}: the batch has {one.grid.shape} voxels of {one.grid.spacing_mm} mm, the dose "
                f"{dose.name} {dose.grid.shape} of {dose.grid.spacing_mm}. Pass batches on the grid of the "
                "dose."
            )
    held = maps[0].batches_gy if len(maps) == 1 else None
    stack = np.stack([one.dose_gy for one in maps]) if held is None else held
    if len(stack) < 2:
        raise InputError(f"{files[0].name} is one batch alone, which tells no uncertainty. Pass two or more.")
    ratio = float(np.sum(stack, dtype=np.float64) / len(stack) / np.sum(dose.dose_gy, dtype=np.float64))
    if abs(ratio * len(stack) - 1) < _BATCH_TOLERANCE:
        stack = stack * len(stack)
    elif abs(ratio - 1) >= _BATCH_TOLERANCE:
        raise InputError(
            f"the {len(stack)} batches of {dose.name} have a mean of {ratio:.4g} times and a sum of "
            f"{ratio * len(stack):.4g} times its integral dose. They are not its batches, or not in its "
            "unit (per history against a total, cGy against Gy). Pass those whose mean or sum is the dose."
        )
    whole = DoseMap.from_batches(stack, dose.grid)
    uncertainty = whole.uncertainty_gy if dose.uncertainty_gy is None else dose.uncertainty_gy
    source = {**dose.source, "batches": f"{len(stack)} from {files[0].name} on"}
    return replace(dose, batches_gy=stack, uncertainty_gy=uncertainty, source=source)


def batch_files(batches: str | Sequence[str | os.PathLike[str]]) -> list[Path]:
    """The files of a glob pattern or of a sequence, in the order of their names."""
    if not isinstance(batches, str):
        files = [Path(os.fspath(b)) for b in batches]
    else:
        files = [Path(name) for name in sorted(glob.glob(batches, recursive=True))]
    if not files:
        raise InputError(f"`batches`: no file matches {batches!r}. Quote the pattern, and check the folder.")
    return files
