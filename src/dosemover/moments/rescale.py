"""Tallies on boxes that are much wider than what they hold, brought to the box of their deposits."""

from __future__ import annotations

from dosemover.moments.tally import Box, MomentTally, joined_box

_WORTH_RESCALING = 2.0
"""Width of a box over that of its deposits, along any axis, from which on it is rescaled."""


def _excess(box: Box, extent: Box) -> float:
    """Largest ratio of the widths of two boxes."""
    return max((b[1] - b[0]) / (e[1] - e[0]) for b, e in zip(box, extent, strict=True))


def rescaled_together(reference: MomentTally, evaluated: MomentTally) -> tuple[MomentTally, MomentTally, str]:
    """Both tallies on one box that holds the deposits of both, and what to say of it; as they are if unknown.

    Parameters
    ----------
    reference, evaluated : MomentTally
        On one box.

    Returns
    -------
    reference, evaluated : MomentTally
    note : str
        Empty where nothing changed.
    """
    extent = joined_box(reference.extent_mm, evaluated.extent_mm)
    if extent is None or _excess(reference.box_mm, extent) < _WORTH_RESCALING:
        return reference, evaluated, ""
    one, two = (tally.on_box(extent) for tally in (reference, evaluated))
    return one, two, _note(reference, extent)


def rescaled(tally: MomentTally, *, degree: int) -> tuple[MomentTally, str]:
    """A tally on the box of its own deposits, if that keeps moments to ``degree``; and what to say of it."""
    extent = tally.extent_mm
    if extent is None or _excess(tally.box_mm, extent) < _WORTH_RESCALING:
        return tally, ""
    moved = tally.on_box(extent)
    if moved.degree < degree:
        return tally, ""
    return moved, _note(tally, extent)


def _note(tally: MomentTally, extent: Box) -> str:
    """One sentence for a status."""
    times = _excess(tally.box_mm, extent)
    return f"the box of the tally, {times:.1f} times as wide as its deposits, was rescaled to theirs"
