"""Settings and provenance as rows of words: the label of a setting and its value with its unit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from dosemover.report.formatting import is_number, public_value

_LABELS = {
    "gamma": "Gamma criteria",
    "gamma_interpolant": "Gamma: evaluated dose between voxels",
    "normalization": "Gamma: % refers to",
    "scale": "Scale asked for",
    "scale_factor": "Factor of the evaluated map",
    "exchange_mm_per_percent": "Exchange of movement and change",
    "exchange_length_mm": "Exchange length L",
    "reach_mm": "Reach of the flat norm",
    "profile": "Profiles over the scale",
    "null": "Draws of noise alone",
    "n": "Number",
}
"""Labels of settings whose key says too little."""

_UNITS = {"mm_per_percent": "mm per 1 %", "percent": "%", "mm": "mm", "gy": "Gy", "seconds": "s"}
"""Endings of keys, and the unit that they stand for."""

_NONE = {
    "prescription_gy": "not given: percentages refer to the reference maximum",
    "scale": "none",
    "null": "as many as the size of the maps allows (9 to 19)",
}
"""What it means that a setting is not given."""

_VALUES = {
    ("normalization", "global"): "the prescription, or the reference maximum (global)",
    ("normalization", "local"): "the dose in each voxel (local)",
    ("normalization", "both"): "the prescription or maximum, and the dose in each voxel (global and local)",
    ("gamma_interpolant", "simplex"): "linear on tetrahedra (simplex)",
    ("gamma_interpolant", "grid"): "none, voxel centres alone (grid)",
}
"""Values that are a word of their own, in more words."""


def key_values(mapping: Mapping[str, Any], *, identifiers: bool) -> list[tuple[str, str]]:
    """Rows (label, value) of settings or provenance; paths cut to base names unless identifiers are wanted.

    Examples
    --------
    >>> key_values({"gamma": [[3.0, 3.0], [2.0, 2.0]], "reach_mm": 10.0, "null": None}, identifiers=False)[:2]
    [('Gamma criteria', '3 %/3 mm, 2 %/2 mm'), ('Reach of the flat norm', '10 mm')]
    """
    return list(_rows(mapping, "", identifiers=identifiers))


def _rows(mapping: Mapping[str, Any], prefix: str, *, identifiers: bool) -> Iterator[tuple[str, str]]:
    """Rows of a mapping, those of a mapping inside it under its name."""
    for key, value in mapping.items():
        name, _ = _unit(key)
        label = _LABELS.get(key) or name.replace("_", " ")
        label = f"{prefix}: {label}" if prefix else label[:1].upper() + label[1:]
        if isinstance(value, Mapping):
            yield from _rows(value, label, identifiers=identifiers)
        else:
            yield label, _text(key, value, identifiers=identifiers)


def _unit(key: str) -> tuple[str, str]:
    """A key without its unit, and the unit."""
    for ending, unit in _UNITS.items():
        if key.endswith(f"_{ending}"):
            return key[: -len(ending) - 1], unit
    return key, ""


def _text(key: str, value: Any, *, identifiers: bool) -> str:
    """One value in words."""
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if value is None:
        return _NONE.get(key, "not given")
    if key == "gamma" and _is_pairs(value):
        return ", ".join(f"{dose:g} %/{distance:g} mm" for dose, distance in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple | set):
        return ", ".join(_text("", entry, identifiers=identifiers) for entry in value) or "none"
    if isinstance(value, int | float):
        unit = _unit(key)[1]
        return f"{value:.6g} {unit}".rstrip() if isinstance(value, float) else f"{value} {unit}".rstrip()
    words = str(value) if identifiers else public_value(str(value))
    return _VALUES.get((key, words), words)


def _is_pairs(value: Any) -> bool:
    """Whether a value is a list of pairs of numbers."""
    return isinstance(value, list | tuple) and all(
        isinstance(pair, list | tuple) and len(pair) == 2 and all(map(is_number, pair)) for pair in value
    )
