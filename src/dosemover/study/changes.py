"""How a change acts on the description of a case: the beam is moved or altered, then simulated anew."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dosemover.errors import InputError
from dosemover.study.table import NO_CHANGE

KINDS: dict[str, tuple[str, ...]] = {
    NO_CHANGE: (),
    "shift": ("direction",),
    "output": (),
    "source": ("key", "by"),
    "extra": ("sources",),
    "sources": ("sources",),
    "insert": ("inserts",),
}
"""Kinds of change and the settings that each needs.

- ``none``: nothing, an independent simulation of the same beam.
- ``shift``: every source moves by the magnitude [mm] along ``direction``.
- ``output``: the dose is multiplied by 1 + magnitude / 100 (exact: dose is linear in the number of photons).
- ``source``: the value ``key`` of every source ("spectrum.peak_mev") grows by the magnitude (``by = "mm"``,
  or any unit in which it stands) or by magnitude percent (``by = "%"``).
- ``extra``: ``sources`` are added, their weight times magnitude / 100.
- ``sources``: ``sources`` take the place of the case's own; keys that they lack are those of its first one.
- ``insert``: ``inserts`` are set into the phantom.

Weights of simulated sources count photons: field area times fluence for beams. In ``sources`` and
``inserts`` a text such as "m" or "-20 + m" is a number with the magnitude m in it.
"""


def changed_document(
    document: Mapping[str, Any], kind: str, magnitude: float, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Tables of a case under a change.

    Parameters
    ----------
    document : mapping
        Tables of the unchanged case.
    kind : str
        One of `KINDS`.
    magnitude : float
    settings : mapping
        The settings of the kind.
    """
    result = copy.deepcopy(dict(document))
    sources = result.get("source", [])
    if kind == "shift":
        for source in sources:
            _move(source, np.asarray(settings["direction"], dtype=np.float64), magnitude)
    elif kind == "source":
        for source in sources:
            _grow(source, settings["key"], settings["by"], magnitude)
    elif kind == "extra":
        added = _completed(settings["sources"], sources[0], magnitude)
        result["source"] = sources + [s | {"weight": s["weight"] * magnitude / 100} for s in added]
    elif kind == "sources":
        result["source"] = _completed(settings["sources"], sources[0], magnitude)
    elif kind == "insert":
        phantom = result["phantom"]
        inserts = _with_magnitude(settings["inserts"], magnitude)
        phantom["insert"] = [*phantom.get("insert", []), *inserts]
    return result


def factor_of(kind: str, magnitude: float) -> float:
    """Factor on the dose that stands for a change of output."""
    return 1.0 + magnitude / 100 if kind == "output" else 1.0


def photons_of(document: Mapping[str, Any]) -> float:
    """Photons that the sources emit, in the unit of their weights."""
    return float(sum(source.get("weight", 1.0) for source in document["source"]))


def _completed(sources: Sequence[Any], first: Mapping[str, Any], magnitude: float) -> list[dict[str, Any]]:
    """Sources with their numbers filled in, and missing keys from the case's first source."""
    return [dict(first) | _with_magnitude(source, magnitude) for source in sources]


def _move(source: dict[str, Any], direction: np.ndarray, magnitude: float) -> None:
    """Move one source, a beam by its isocentre, along a unit vector."""
    length = float(np.linalg.norm(direction))
    if direction.shape != (3,) or not length > 0:
        raise InputError(f"`direction` must be three numbers (x, y, z), not all 0, got {direction.tolist()}.")
    key = "position_mm" if source.get("type") == "point" else "isocenter_mm"
    start = np.asarray(source.get(key, (0.0, 0.0, 0.0)), dtype=np.float64)
    source[key] = (start + magnitude * direction / length).tolist()


def _grow(source: dict[str, Any], key: str, by: str, magnitude: float) -> None:
    """Let one value of a source, its keys separated by points, grow by an amount or by percent."""
    *path, last = key.split(".")
    table = source
    for name in path:
        table = table.get(name, {})
    if last not in table:
        raise InputError(
            f"a source has no {key!r}. It cannot change. Write the value into the case's source."
        )
    table[last] = table[last] * (1 + magnitude / 100) if by == "%" else table[last] + magnitude


def _with_magnitude(value: Any, magnitude: float) -> Any:
    """Values with every text of the form "number + m" (or - m, or m alone) made a number."""
    if isinstance(value, Mapping):
        return {key: _with_magnitude(each, magnitude) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_with_magnitude(each, magnitude) for each in value]
    return _number(value, magnitude) if isinstance(value, str) else value


def _number(text: str, magnitude: float) -> Any:
    """The number behind "-20 + m", or the text itself where it is none."""
    words = text.replace("+", " + ").split()
    signed = {"m": magnitude, "-m": -magnitude}
    if len(words) == 1:
        return signed.get(words[0], text)
    if len(words) == 3 and words[1] in ("+", "-") and words[2] == "m":
        try:
            return float(words[0]) + (magnitude if words[1] == "+" else -magnitude)
        except ValueError:
            return text
    return text
