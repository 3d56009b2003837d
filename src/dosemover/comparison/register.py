"""Metrics of one's own: a function of two dose maps becomes keys like any other."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any, Literal

from dosemover.comparison import families
from dosemover.comparison.context import ComparisonContext
from dosemover.comparison.registry import Family, Words, fixed_keys
from dosemover.comparison.result import MetricResult
from dosemover.comparison.settings import CompareSettings
from dosemover.errors import DosemoverError, InputError
from dosemover.noise.significance import Direction

Found = float | MetricResult | Mapping[str, "float | MetricResult | None"] | None
"""What a metric of one's own may return."""

_SETS = ("all", "default", "fast")
_DIRECTIONS = ("larger", "smaller", "both")
_own: dict[str, Family] = {}
"""Families that were registered, by name."""


def register(
    function: Callable[..., Found],
    *,
    keys: Mapping[str, str],
    name: str | None = None,
    direction: Direction | Mapping[str, Direction] = "larger",
    evaluated_on: Literal["reference grid", "own grid"] = "reference grid",
    default: bool = False,
    costly: bool = False,
    words: Mapping[str, Words] | None = None,
) -> Family:
    """Make a function of two dose maps a metric: keys, unit, noise floor, p, table, JSON and report.

    Parameters
    ----------
    function : callable
        ``function(reference=..., evaluated=...)`` with two `DoseMap`: returns a number, or a mapping from
        keys to numbers (None where there is none). A `MetricResult` in a number's place brings certified
        bounds, settings or a status along. ``reference.structures`` are the comparison's.
    keys : mapping of str to str
        Key of each number, with its unit at the end of the key, and the unit: ``{"rim_shift_mm": "mm"}``.
    name : str, optional
        Family name, which ``metrics=`` accepts for all keys; the function's unless given.
    direction : {"larger", "smaller", "both"} or mapping of them by key
        Which values speak of a difference.
    evaluated_on : {"reference grid", "own grid"}
        Whether the evaluated map arrives at the reference's voxel centres (trilinear) or as it is.
    default : bool
        Whether ``metrics="default"`` computes it; "all" always does.
    costly : bool
        Draws under the null only where their number is asked for (``null=``, ``--null``).
    words : mapping of str to Words, optional
        By key: what the report calls the number, what it means and what it cannot see.

    Returns
    -------
    Family
        Registered for this process. Registering the same name again replaces it.

    Raises
    ------
    InputError
        When a name or key is taken, malformed, or a direction unknown.

    Notes
    -----
    *Noise*: floor, z and p come from the batches or uncertainties of the maps as for every other metric: the
    function is called on each draw, so that it must not change its arguments nor keep state.
    *Errors*: what the function raises becomes the metric's status; the other metrics still appear.
    *Limits*: another process does not know of it: the workers of a study, a later session. On the command
    line ``--plugin FILE.py`` runs a file that registers.

    Examples
    --------
    >>> import numpy as np
    >>> from dosemover.comparison import compare, register, unregister
    >>> def hottest_gy(*, reference, evaluated):
    ...     return evaluated.max_gy - reference.max_gy
    >>> family = register(hottest_gy, keys={"hottest_gy": "Gy"}, direction="both")
    >>> dose = np.arange(8.0).reshape(2, 2, 2)
    >>> result = compare(dose, dose + 0.5, spacing_mm=(2.0, 2.0, 2.0), metrics=["hottest_gy"])
    >>> result.metrics["hottest_gy"].value, result.metrics["hottest_gy"].unit
    (0.5, 'Gy')
    >>> unregister("hottest_gy")
    """
    name = str(name or getattr(function, "__name__", ""))
    units = dict(keys)
    ways = dict.fromkeys(units, direction) if isinstance(direction, str) else dict(direction)
    _check_names(name, units)
    _check_directions(ways, units)
    if evaluated_on not in ("reference grid", "own grid"):
        raise InputError(f"`evaluated_on` must be 'reference grid' or 'own grid', got {evaluated_on!r}.")
    if unknown := sorted(set(words or {}) - set(units)):
        raise InputError(f"`words` speaks of {unknown[0]!r}, which is none of the keys {', '.join(units)}.")
    family = Family(
        name=name,
        keys=fixed_keys(**units),
        compute=partial(_compute, function, units, evaluated_on == "own grid"),
        default="all" if default else "none",
        smaller=frozenset(key for key, way in ways.items() if way == "smaller"),
        both=frozenset(key for key, way in ways.items() if way == "both"),
        null="on request" if costly else "always",
        words=dict(words or {}),
    )
    others = tuple(one for one in families.FAMILIES if one is not _own.get(name))
    _own[name] = family
    families.FAMILIES = (*others, family)
    return family


def unregister(name: str) -> None:
    """Forget a metric that `register` made known.

    Raises
    ------
    InputError
        When no metric of one's own has this name.
    """
    family = _own.pop(name, None)
    if family is None:
        known = f"Registered: {', '.join(_own)}." if _own else "None is registered."
        raise InputError(f"{name!r} is no registered metric. There is nothing to forget. {known}")
    families.FAMILIES = tuple(one for one in families.FAMILIES if one is not family)


def run_plugin(path: str | PathLike[str]) -> None:
    """Run a Python file that registers metrics.

    Raises
    ------
    InputError
        When the file cannot be run, or registers nothing.
    """
    file = Path(path)
    before = list(_own.values())
    spec = importlib.util.spec_from_file_location(f"dosemover_plugin_{file.stem}", file)
    if not file.is_file() or spec is None or spec.loader is None:
        raise InputError(f"{file} is no Python file that can be run. Its metrics stay unknown. Name a .py.")
    try:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
    except DosemoverError as error:
        raise InputError(f"{file}: {error}") from error
    except Exception as error:
        raise InputError(
            f"{file} stops with {type(error).__name__}: {error}. Its metrics stay unknown. Run it in Python."
        ) from error
    if all(any(one is old for old in before) for one in _own.values()):
        raise InputError(
            f"{file} registers no metric. Nothing of it would be computed. Call "
            "`dosemover.comparison.register` in it."
        )


def _check_names(name: str, units: Mapping[str, str]) -> None:
    """Names that ``metrics=``, ``--fail-if`` and the JSON can hold, and that nobody else has."""
    if not units:
        raise InputError("`keys` is empty. The metric would have no name. Pass {'rim_shift_mm': 'mm'}.")
    for text in (name, *units):
        if not re.fullmatch(r"[a-z][a-z0-9_]*", text):
            raise InputError(
                f"{text!r} cannot name a metric: letters a-z, digits and _ can. `metrics=` and --fail-if "
                "would not find it. Pass another `name` or key."
            )
    others = [one for one in families.FAMILIES if one is not _own.get(name)]
    settings = CompareSettings(normalization="both")
    taken = {*_SETS, *(one.name for one in others)}
    taken |= {key for one in others for key in one.keys(settings)}
    for text in (name, *units):
        if text in taken or text.startswith("gamma_"):
            raise InputError(f"{text!r} is the name of another metric. Pass another `name` or key.")


def _check_directions(ways: Mapping[str, str], units: Mapping[str, str]) -> None:
    """A known direction for known keys."""
    for key, way in ways.items():
        if key not in units:
            raise InputError(f"`direction` speaks of {key!r}, which is none of the keys {', '.join(units)}.")
        if way not in _DIRECTIONS:
            raise InputError(f"`direction` must be one of {', '.join(_DIRECTIONS)}, got {way!r} for {key!r}.")


def _compute(
    function: Callable[..., Found],
    units: Mapping[str, str],
    own_grid: bool,
    context: ComparisonContext,
    wanted: frozenset[str],
) -> Iterator[MetricResult]:
    """The function's numbers as results."""
    reference = context.reference
    if context.structures is not reference.structures:
        reference = replace(reference, structures=context.structures)
    evaluated = context.evaluated if own_grid else context.evaluated_here
    try:
        found = function(reference=reference, evaluated=evaluated)
    except DosemoverError:
        raise
    except Exception as error:
        raise InputError(f"the metric raised {type(error).__name__}: {error}") from error
    for key, value in _by_key(found, units):
        if isinstance(value, MetricResult):
            yield replace(value, key=key, unit=units[key])
        elif value is None:
            yield MetricResult(key=key, value=None, unit=units[key], status="the function returned None")
        else:
            yield MetricResult(key=key, value=_number(key, value), unit=units[key])


def _by_key(found: Any, units: Mapping[str, str]) -> Iterable[tuple[str, Any]]:
    """What the function returned, by key."""
    if isinstance(found, Mapping):
        if unknown := [key for key in found if key not in units]:
            raise InputError(f"the metric returned {unknown[0]!r}, none of its keys {', '.join(units)}")
        return found.items()
    if len(units) > 1:
        raise InputError(f"the metric returned one value for its {len(units)} keys; it must return a mapping")
    return [(next(iter(units)), found)]


def _number(key: str, value: Any) -> float:
    """The value as a float."""
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise InputError(f"the metric returned {type(value).__name__} for {key!r}, no number") from error
