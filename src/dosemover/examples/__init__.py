"""The embedded example pair: Monte Carlo maps of a small lung treatment, and what changed between them."""

from __future__ import annotations

from importlib.resources import as_file, files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dosemover.dose import DoseMap

EXAMPLE_CHANGES = (
    "The evaluated map is a second simulation: the fields moved by 1 mm along x, 2 % less output, and a "
    "narrow extra field that heats a small spot in the tumour."
)
"""What was changed, in words."""


def example_pair() -> tuple[DoseMap, DoseMap]:
    """Reference and evaluated dose map of the example, with 8 batches each.

    Three Co-60-like fields on a tumour in a lung, 36 x 36 x 36 voxels of 4 mm, about 2 Gy at most, simulated
    by the built-in photon engine (kerma deposition). Noise of about 1.3 % at high dose. The evaluated map is
    moved by 1 mm along x, 2 % lower in output and has a small hot spot.

    Returns
    -------
    reference, evaluated : DoseMap

    Examples
    --------
    >>> reference, evaluated = example_pair()
    >>> reference.grid.shape
    (36, 36, 36)
    """
    from dosemover.io import read_dose

    maps = []
    for name in ("reference", "evaluated"):
        with as_file(files(__name__).joinpath(f"example_{name}.npz")) as path:
            maps.append(read_dose(path))
    return maps[0], maps[1]
