"""Designs of studies: cases, changes and noise levels, read from TOML and checked."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from dosemover._files import read_toml
from dosemover.comparison import families
from dosemover.comparison.registry import select
from dosemover.comparison.settings import CompareSettings
from dosemover.dose import Structure
from dosemover.errors import DosemoverError, InputError
from dosemover.grid import Grid
from dosemover.montecarlo.config import check_keys, config_from, shape_from
from dosemover.study import analytic
from dosemover.study.changes import KINDS, changed_document, factor_of, photons_of
from dosemover.study.table import NO_CHANGE, NOISE_IN

ENGINES = ("builtin", "ompmc", "analytic")

_TOP = ("study", "level", "case")
_STUDY = (
    "name", "seed", "batches", "metrics", "leave_out", "thinned", "certified_replicates", "gamma",
    "quiet_percent",
)  # fmt: skip
_LEVEL = ("percent", "replicates")
_CASE = (
    "name", "title", "engine", "max_gy", "prescription_gy", "high_dose_percent", "pilot_histories",
    "batches", "levels", "replicates", "phantom", "source", "material", "simulation", "engine_options",
    "structure", "change", "leave_out", "thinned", "certified_replicates", "quiet_percent",
)  # fmt: skip
_STRUCTURE = ("name", "shape", "center_mm", "size_mm", "axis")
_OWN = ("title", "max_gy", "prescription_gy", "high_dose_percent", "pilot_histories", "batches")
_INSTEAD = ("leave_out", "thinned", "certified_replicates", "quiet_percent")
_CHANGE = ("name", "unit", "kind", "magnitudes", "levels", "noise_in", "one_sided_levels")


@dataclass(frozen=True, kw_only=True)
class Level:
    """A noise level.

    Parameters
    ----------
    percent : float
        Root mean square relative uncertainty of the voxels of the high-dose region [%].
    replicates : int
        Independent noisy maps of each variant.
    """

    percent: float
    replicates: int = 20

    def __post_init__(self) -> None:
        if not (np.isfinite(self.percent) and self.percent > 0) or self.replicates < 1:
            raise InputError(
                f"a level needs a positive `percent` and at least 1 replicate, got {self.percent} and "
                f"{self.replicates}. No map could be simulated for it."
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class Change:
    """One way in which the evaluated map differs, at one magnitude.

    Parameters
    ----------
    name : str
        "none" for null rows.
    magnitude : float
    unit : str
    kind : str
        One of `dosemover.study.changes.KINDS`.
    settings : mapping
        What the kind needs besides the magnitude.
    levels : tuple of float or None
        Noise levels [%]; None: those of the case.
    noise_in : tuple of str
        Which maps are noisy: "both", "reference", "evaluated".
    one_sided_levels : tuple of float or None
        Noise levels at which only one map is noisy; None: as ``levels``.
    """

    name: str
    magnitude: float = 0.0
    unit: str = ""
    kind: str = NO_CHANGE
    settings: Mapping[str, Any] = field(default_factory=dict)
    levels: tuple[float, ...] | None = None
    noise_in: tuple[str, ...] = ("both",)
    one_sided_levels: tuple[float, ...] | None = None

    @property
    def label(self) -> str:
        """Name and magnitude, for files and messages."""
        return self.name if self.name == NO_CHANGE else f"{self.name} {self.magnitude:g} {self.unit}".strip()


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """A phantom with a beam, and what is changed about them.

    Parameters
    ----------
    name, title : str
    engine : str
        "builtin", "ompmc", or "analytic": a closed form with white noise, no simulation.
    document : mapping
        Tables of a simulation (phantom, source, material, simulation, engine), as in its TOML file.
    levels : tuple of Level
        Every level of the study, with the replicates that the case can afford.
    usual_levels : tuple of float
        Those of changes that name none of their own [%].
    changes : tuple of Change
    max_gy : float
        Maximum of the reference dose [Gy]; every map of the case is scaled by one factor.
    prescription_gy : float or None
        Normalization dose of the metrics [Gy]; the maximum where None.
    high_dose_percent : float
        The noise level is that of voxels above this share of the maximum [%].
    pilot_histories : int
        Histories of the run that tells how many each noise level takes.
    batches : int
        Batches of each noisy map.
    structures : tuple of mapping
        ``name``, ``shape``, ``center_mm``, ``size_mm`` and ``axis`` of each structure, as of an insert of a
        phantom.
    instead : mapping
        Values that take the place of the study's for this case: ``leave_out``, ``thinned``,
        ``certified_replicates``, ``quiet_percent``. A fine grid cannot afford what a coarse one can.
    """

    name: str
    engine: str
    document: Mapping[str, Any]
    levels: tuple[Level, ...]
    usual_levels: tuple[float, ...]
    changes: tuple[Change, ...]
    title: str = ""
    max_gy: float = 2.0
    prescription_gy: float | None = None
    high_dose_percent: float = 50.0
    pilot_histories: int = 200_000
    batches: int = 10
    structures: tuple[Mapping[str, Any], ...] = ()
    instead: Mapping[str, Any] = field(default_factory=dict)

    def variant(self, change: Change) -> dict[str, Any]:
        """Tables of the simulation under a change."""
        return changed_document(self.document, change.kind, change.magnitude, change.settings)

    def structures_on(self, grid: Grid) -> tuple[Structure, ...]:
        """The structures, drawn on the grid of a map."""
        return tuple(
            Structure(name=one["name"], fraction=shape_from(one, one["name"]).fraction(grid), grid=grid)
            for one in self.structures
        )

    def dose_factor(self, change: Change) -> float:
        """Dose of the evaluated map per dose per photon, relative to the case: photons and output.

        Weights of sources count photons: a source more, or a narrower one, changes how many there are.
        """
        ratio = 1.0
        if self.engine != "analytic":
            ratio = photons_of(self.variant(change)) / photons_of(self.document)
        return ratio * factor_of(change.kind, change.magnitude)

    def levels_of(self, change: Change, noise_in: str) -> tuple[Level, ...]:
        """Noise levels at which a change is measured, coarsest first."""
        percents = change.levels or self.usual_levels
        if noise_in != "both" and change.one_sided_levels is not None:
            percents = change.one_sided_levels
        wanted = [level for level in self.levels if level.percent in percents]
        return tuple(sorted(wanted, key=lambda level: -level.percent))


@dataclass(frozen=True, kw_only=True, eq=False)
class Study:
    """A study.

    Parameters
    ----------
    name : str
    seed : int
    cases : tuple of Case
    metrics, leave_out : tuple of str
        Metric keys, families or sets, and those of them that mean nothing here.
    thinned : mapping of str to int
        Families or keys that are measured for the first so many replicates only.
    certified_replicates : int
        Replicates whose transport distances come with certified bounds.
    gamma : tuple of (float, float)
    quiet_percent : float
        Noise level of maps that stand for noise-free ones [%].
    """

    name: str
    cases: tuple[Case, ...]
    seed: int = 0
    metrics: tuple[str, ...] = ("all",)
    leave_out: tuple[str, ...] = ()
    thinned: Mapping[str, int] = field(default_factory=dict)
    certified_replicates: int = 20
    gamma: tuple[tuple[float, float], ...] = ((3.0, 3.0), (2.0, 2.0))
    quiet_percent: float = 0.25

    def fingerprint(self) -> str:
        """Hash of everything that the table depends on."""
        return digest(self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """The design as plain values."""
        from dataclasses import asdict

        return json.loads(json.dumps(asdict(self), sort_keys=True, default=dict))

    def alone(self, case: Case) -> Study:
        """The study as far as one case is concerned: what it does differently, and no other cases."""
        return replace(self, cases=(), **case.instead)

    def settings(self, case: Case) -> CompareSettings:
        """Settings of the case's comparisons."""
        return CompareSettings(
            metrics=self.metrics, gamma=self.gamma, prescription_gy=case.prescription_gy, seed=self.seed
        )


def digest(value: Any) -> str:
    """SHA-256 of plain values, in hexadecimal: the same on any machine and in any order of keys."""
    text = json.dumps(value, sort_keys=True, default=dict)
    return hashlib.sha256(text.encode()).hexdigest()


def seed_of(*parts: Any) -> int:
    """Seed [0, 2**62) from what it is for, never from the order of work."""
    return int(digest(parts)[:16], 16) % 2**62


def read_study(path: str | os.PathLike[str]) -> Study:
    """Read a study from a TOML file.

    ``[study]`` names it and chooses the metrics; ``[[level]]`` are the noise levels with their replicates;
    ``[[case]]`` has ``phantom`` and ``[[case.source]]`` as in the configuration of a simulation, and
    ``[[case.change]]`` with ``name``, ``kind``, ``magnitudes`` and the settings of the kind (see
    `dosemover.study.changes`). ``[[case.structure]]`` (``name``, ``shape``, ``center_mm``, ``size_mm``,
    ``axis``, as an insert of a phantom) gives a case structures, whose dose-volume histograms are compared;
    named as in OpenKBP, that challenge's scores too. A case may have its own ``leave_out``, ``thinned``,
    ``certified_replicates`` and ``quiet_percent``.

    Parameters
    ----------
    path : path

    Raises
    ------
    DataFormatError
        When the file is not TOML.
    InputError
        For unknown keys (the nearest known one is named) and unusable values.
    """
    return study_from(read_toml(path, consequence="No study can be set up."))


def study_from(document: Mapping[str, Any]) -> Study:
    """Study from the tables of a TOML document."""
    try:
        return _study(document)
    except DosemoverError:
        raise
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise InputError(
            f"the study holds a value of the wrong kind: {error!r}. Check numbers, texts and lists."
        ) from error


def _study(document: Mapping[str, Any]) -> Study:
    """The whole study, checked."""
    check_keys(document, _TOP, "the study")
    table = dict(document.get("study", {}))
    check_keys(table, _STUDY, "study")
    if not table.get("name") or not document.get("case") or not document.get("level"):
        raise InputError(
            "a study needs `name` in [study], at least one [[level]] and one [[case]]. There is nothing to "
            "do without them."
        )
    for row in document["level"]:
        check_keys(row, _LEVEL, "level")
    levels = tuple(Level(**row) for row in document["level"])
    batches = table.pop("batches", 10)
    cases = tuple(_case(row, levels, batches) for row in document["case"])
    if len({case.name for case in cases}) < len(cases):
        raise InputError("two cases share a name. Their rows could not be told apart. Rename one.")
    for key in ("metrics", "leave_out"):
        if key in table:
            table[key] = tuple(table[key])
    if "gamma" in table:
        table["gamma"] = tuple((float(dose), float(distance)) for dose, distance in table["gamma"])
    study = Study(cases=cases, **table)
    for case in cases:
        _check_names(study, case)
    return study


def _check_names(study: Study, case: Case) -> None:
    """Refuse metric names that no comparison knows."""
    settings = study.settings(case)
    own = study.alone(case)
    for names in (own.metrics, own.leave_out, tuple(own.thinned)):
        if names:
            select(families.FAMILIES, replace(settings, metrics=names))


def _case(row: Mapping[str, Any], levels: tuple[Level, ...], batches: int) -> Case:
    """One case, checked down to whether every variant of it can be simulated."""
    name = row.get("name")
    if not name:
        raise InputError("a case has no `name`. Its rows could not be told apart. Give it one.")
    where = f"case {name!r}"
    check_keys(row, _CASE, where)
    engine = row.get("engine", "builtin")
    if engine not in ENGINES:
        raise InputError(f"{where}: `engine` must be one of {', '.join(ENGINES)}, got {engine!r}.")
    simulation = dict(row.get("simulation", {}))
    if engine == "builtin":
        simulation.setdefault("estimator", "track_length")
    document: dict[str, Any] = {key: row[key] for key in ("phantom", "source", "material") if key in row}
    if engine != "analytic":
        document["simulation"] = simulation | {"engine": engine}
    if "engine_options" in row:
        document["engine"] = row["engine_options"]
    own: dict[str, Any] = {key: row[key] for key in _OWN if key in row}
    own.setdefault("batches", batches)
    case = Case(
        name=name,
        engine=engine,
        document=document,
        levels=_levels(row, levels),
        usual_levels=_known_levels(row.get("levels", [one.percent for one in levels]), levels, where),
        changes=tuple(one for table in row.get("change", ()) for one in _changes(table, levels, where)),
        structures=tuple(_structure(table, where) for table in row.get("structure", ())),
        instead=_instead(row),
        **own,
    )
    _check_case(case, where)
    return case


def _instead(row: Mapping[str, Any]) -> dict[str, Any]:
    """What a case does differently from its study."""
    instead = {key: row[key] for key in _INSTEAD if key in row}
    if "leave_out" in instead:
        instead["leave_out"] = tuple(instead["leave_out"])
    return instead


def _structure(table: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """Description of one structure, checked."""
    where = f"{where}, structure {table.get('name', '')!r}"
    check_keys(table, _STRUCTURE, where)
    if not table.get("name"):
        raise InputError(f"{where} lacks name. It cannot be drawn.")
    shape_from(table, where)
    return table


def _levels(row: Mapping[str, Any], levels: tuple[Level, ...]) -> tuple[Level, ...]:
    """The study's levels with the replicates that a case can afford."""
    most = {float(percent): int(n) for percent, n in row.get("replicates", {}).items()}
    return tuple(replace(one, replicates=most.get(one.percent, one.replicates)) for one in levels)


def _known_levels(wanted: Any, levels: tuple[Level, ...], where: str) -> tuple[float, ...]:
    """Percentages, each of which is one of the study's levels."""
    known = [level.percent for level in levels]
    percents = tuple(float(percent) for percent in wanted)
    if missing := [percent for percent in percents if percent not in known]:
        raise InputError(
            f"{where} asks for the levels {missing} %, which no [[level]] describes. Known are {known}."
        )
    return percents


def _changes(table: Mapping[str, Any], known: tuple[Level, ...], where: str) -> list[Change]:
    """A change at each of its magnitudes."""
    name = table.get("name")
    kind = table.get("kind", NO_CHANGE if name == NO_CHANGE else None)
    if not name or kind not in KINDS:
        raise InputError(
            f"{where}: a change needs a `name` and a `kind` out of {', '.join(KINDS)}, got {name!r} and "
            f"{kind!r}."
        )
    where = f"{where}, change {name!r}"
    check_keys(table, (*_CHANGE, *KINDS[kind]), where)
    if lacking := [key for key in KINDS[kind] if key not in table]:
        raise InputError(f"{where} lacks {', '.join(lacking)}. A change of kind {kind!r} needs it.")
    magnitudes = table.get("magnitudes", [0.0] if kind == NO_CHANGE else None)
    if not magnitudes:
        raise InputError(f"{where} needs `magnitudes`, a list of numbers. Nothing would change.")
    noise_in = tuple(table.get("noise_in", ("both",)))
    if bad := set(noise_in) - set(NOISE_IN):
        raise InputError(f"{where}: `noise_in` must be out of {', '.join(NOISE_IN)}, got {sorted(bad)}.")
    levels = {
        key: _known_levels(table[key], known, where) if key in table else None
        for key in ("levels", "one_sided_levels")
    }
    settings = {key: table[key] for key in KINDS[kind]}
    return [
        Change(
            name=name, magnitude=float(m), unit=table.get("unit", ""), kind=kind, settings=settings,
            noise_in=noise_in, **levels,
        )
        for m in magnitudes
    ]  # fmt: skip


def _check_case(case: Case, where: str) -> None:
    """Refuse a case without null rows, with rows that cannot be told apart, or that cannot be simulated."""
    labels = [change.label for change in case.changes]
    if NO_CHANGE not in labels:
        raise InputError(
            f'{where} has no change named "none". Without null rows nothing is known of noise alone. Add '
            f'[[case.change]] name = "none".'
        )
    if len(set(labels)) < len(labels):
        raise InputError(f"{where} has two changes of one name and magnitude. Rename one.")
    if case.batches < 2:
        raise InputError(f"{where} needs at least 2 batches for each map, got {case.batches}.")
    for change in case.changes:
        if case.engine == "analytic":
            analytic.check(case.variant(change))
        else:
            config_from(case.variant(change))
