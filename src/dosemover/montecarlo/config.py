"""Simulations described in a TOML file."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dosemover._files import read_toml
from dosemover.errors import DataFormatError, DosemoverError, InputError
from dosemover.grid import Grid
from dosemover.montecarlo import phantoms
from dosemover.montecarlo.materials import Material
from dosemover.montecarlo.phantoms import HounsfieldTable, Phantom, Shape, material_named
from dosemover.montecarlo.protons import ProtonField
from dosemover.montecarlo.settings import SimulationConfig, VarianceReduction
from dosemover.montecarlo.sources import Beam, PhaseSpaceSource, PointSource, Source
from dosemover.montecarlo.spectra import Spectrum, read_spectrum

_PHANTOMS: dict[str, tuple[str, ...]] = {
    "water_tank": ("size_mm", "voxel_mm", "center_mm"),
    "uniform": ("material", "size_mm", "voxel_mm", "center_mm", "density_g_per_cm3"),
    "slabs": ("layers", "width_mm", "voxel_mm", "axis", "center_mm"),
    "cylinder": (
        "material",
        "diameter_mm",
        "length_mm",
        "voxel_mm",
        "axis",
        "center_mm",
        "surroundings",
        "margin_mm",
    ),
    "thorax": ("voxel_mm", "length_mm", "center_mm"),
    "head": ("voxel_mm", "center_mm"),
    "ct": ("file", "hu", "density_g_per_cm3", "material_above_hu"),
    "density": ("file", "materials"),
}
_SIMULATION = (
    "histories",
    "batches",
    "seed",
    "engine",
    "estimator",
    "photon_cutoff_mev",
    "photons",
    "history_by_history",
    "uncertainty_goal_percent",
    "max_seconds",
)
_BEAM = tuple(f.name for f in fields(Beam))
_PROTONS = tuple(f.name for f in fields(ProtonField))
_SPECTRUM = (
    "mono_mev",
    "radionuclide",
    "linac",
    "file",
    "energy_mev",
    "weight",
    "width_mev",
    "peak_mev",
    "filters",
)
_INSERT = ("shape", "center_mm", "size_mm", "axis", "material", "density_g_per_cm3")
_REDUCTION = (
    "super_voxels",
    "forced_interactions",
    "stretch",
    "stretch_direction",
    "importance_doubling_mm",
    "roulette_weight",
)


def shape_from(table: Mapping[str, Any], where: str, *, also: Iterable[str] = ()) -> Shape:
    """Shape from ``shape``, ``center_mm``, ``size_mm`` and ``axis``; ``also`` are other keys needed."""
    if missing := [key for key in ("shape", "center_mm", "size_mm", *also) if key not in table]:
        raise InputError(f"{where} lacks {', '.join(missing)}. It cannot be drawn.")
    return Shape(
        kind=table["shape"],
        center_mm=table["center_mm"],
        size_mm=table["size_mm"],
        axis=table.get("axis", "z"),
    )


def check_keys(table: Mapping[str, Any], allowed: Iterable[str], where: str) -> None:
    """Refuse unknown keys, naming the nearest known one."""
    known = list(allowed)
    for key in table:
        if key not in known:
            near = get_close_matches(key, known, n=1, cutoff=0.5)
            hint = f"Did you mean {near[0]!r}?" if near else f"Known are {', '.join(known)}."
            raise InputError(f"{where} has an unknown key {key!r}. Nothing would come of it. {hint}")


def _table(parent: Mapping[str, Any], key: str, where: str) -> Mapping[str, Any]:
    """A table of the file, or an error where it is something else or absent."""
    value = parent.get(key)
    if not isinstance(value, Mapping):
        raise InputError(f"{where} must be a table, and is {value!r}. Write [{where}] and its keys below it.")
    return value


def _materials(table: Mapping[str, Any]) -> dict[str, Material]:
    """Materials that the file defines."""
    result = {}
    for name in table:
        where = f"material.{name}"
        row = _table(table, name, where)
        check_keys(row, ("density_g_per_cm3", "mass_fractions", "atoms"), where)
        if "density_g_per_cm3" not in row or ("mass_fractions" in row) == ("atoms" in row):
            raise InputError(
                f"{where} needs `density_g_per_cm3` and either `mass_fractions` or `atoms`. Its cross "
                f"sections "
                "cannot be told."
            )
        if "atoms" in row:
            result[name] = Material.from_atoms(
                name=name, density_g_per_cm3=row["density_g_per_cm3"], atoms=row["atoms"]
            )
        else:
            result[name] = Material(name=name, **row)
    return result


class _Reader:
    """Turns the tables of one file into the objects of a simulation."""

    def __init__(self, document: Mapping[str, Any], folder: Path) -> None:
        self.document = document
        self.folder = folder
        self.materials = _materials(document.get("material", {}))

    def material(self, name: str) -> Material:
        """A material of the file, or of the library."""
        return self.materials[name] if name in self.materials else material_named(name)

    def phantom(self) -> Phantom:
        """The phantom with its inserts."""
        table = dict(_table(self.document, "phantom", "phantom"))
        kind = table.pop("type", None)
        if kind not in _PHANTOMS:
            near = get_close_matches(str(kind), _PHANTOMS, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise InputError(f"phantom.type must be one of {', '.join(_PHANTOMS)}, got {kind!r}.{hint}")
        inserts = table.pop("insert", [])
        check_keys(table, _PHANTOMS[kind], f"phantom of type {kind!r}")
        phantom = self._build(kind, table)
        for n, row in enumerate(inserts):
            check_keys(row, _INSERT, f"phantom.insert {n + 1}")
            shape = shape_from(row, f"phantom.insert {n + 1}", also=("material",))
            phantom = phantom.with_shape(
                shape, self.material(row["material"]), density_g_per_cm3=row.get("density_g_per_cm3")
            )
        return phantom

    def _build(self, kind: str, table: dict[str, Any]) -> Phantom:
        """The phantom before inserts."""
        for key in ("material", "surroundings"):
            if key in table:
                table[key] = self.material(table[key])
        if kind == "slabs":
            table["layers"] = [(self.material(m), *rest) for m, *rest in table.get("layers", [])]
        if kind in ("ct", "density"):
            return self._from_image(kind, table)
        try:
            return getattr(phantoms, kind)(**table)
        except TypeError as error:
            raise InputError(
                f"phantom of type {kind!r} lacks a key: {error}. Its keys are {', '.join(_PHANTOMS[kind])}."
            ) from error

    def _from_image(self, kind: str, table: dict[str, Any]) -> Phantom:
        """A phantom from an image of CT numbers or densities."""
        if "file" not in table:
            raise InputError(f"phantom of type {kind!r} needs `file`, an image that SimpleITK reads.")
        values, grid = read_image(self.folder / table["file"])
        name = Path(table["file"]).name
        if kind == "density":
            rows = [(start, self.material(m)) for start, m in table.get("materials", [])]
            extra = {"materials": rows} if rows else {}
            return phantoms.from_density(values, grid=grid, name=name, **extra)
        settings = {key: tuple(table[key]) for key in ("hu", "density_g_per_cm3") if key in table}
        if "material_above_hu" in table:
            settings["material_above_hu"] = tuple(
                (hu, self.material(m)) for hu, m in table["material_above_hu"]
            )
        return phantoms.from_ct(values, grid=grid, table=HounsfieldTable(**settings), name=name)

    def spectrum(self, table: Any, where: str) -> Spectrum:
        """A spectrum: exactly one way of giving it."""
        if not isinstance(table, Mapping):
            raise InputError(
                f"{where} must be a table such as {{ mono_mev = 0.1 }}, got {table!r}. Its energies are not "
                f"known."
            )
        check_keys(table, _SPECTRUM, where)
        ways = [
            key
            for key in ("mono_mev", "radionuclide", "linac", "file", "energy_mev", "peak_mev")
            if key in table
        ]
        if len(ways) != 1:
            raise InputError(
                f"{where} must give one of mono_mev, radionuclide, linac, file, energy_mev or peak_mev, and "
                f"gives "
                f"{', '.join(ways) or 'none'}. Its energies are not known."
            )
        if "mono_mev" in table:
            return Spectrum.mono(table["mono_mev"])
        if "radionuclide" in table:
            return Spectrum.radionuclide(table["radionuclide"])
        if "file" in table:
            return read_spectrum(self.folder / table["file"])
        if "peak_mev" in table:
            filters = tuple((str(m), float(x)) for m, x in table.get("filters", ()))
            return Spectrum.bremsstrahlung(table["peak_mev"], filters=filters)
        if "linac" in table:
            if table["linac"] != "6MV":
                raise InputError(
                    f"{where}: the only stored linac spectrum is '6MV', got {table['linac']!r}. Give a "
                    f"`file`."
                )
            return Spectrum.linac_6mv()
        return Spectrum(
            energy_mev=table["energy_mev"],
            weight=table.get("weight", np.ones(np.size(table["energy_mev"]))),
            width_mev=table.get("width_mev", 0.0),
        )

    def source(self, table: Mapping[str, Any], where: str) -> Source | ProtonField:
        """One source."""
        table = dict(table)
        kind = table.pop("type", "beam")
        if kind == "phase_space":
            from dosemover.montecarlo.phase_space import read_phase_space

            check_keys(table, ("file", "weight"), where)
            particles = read_phase_space(self.folder / table["file"])
            return PhaseSpaceSource(particles=particles, weight=table.get("weight", 1.0))
        if kind == "proton":
            check_keys(table, _PROTONS, where)
            if "energy_mev" not in table:
                raise InputError(
                    f"{where} needs `energy_mev`, one or a list. A proton field has no range without."
                )
            return ProtonField(**table)
        if kind not in ("beam", "point"):
            raise InputError(f"{where}.type must be beam, point, phase_space or proton, got {kind!r}.")
        check_keys(table, _BEAM if kind == "beam" else ("spectrum", "position_mm", "weight"), where)
        table["spectrum"] = self.spectrum(table.get("spectrum"), f"{where}.spectrum")
        if kind == "point":
            if "position_mm" not in table:
                raise InputError(f"{where} needs `position_mm` (x, y, z). A point source must be somewhere.")
            return PointSource(**table)
        if table.get("source_distance_mm") == "parallel":
            table["source_distance_mm"] = None
        if table.get("field_mm") == "pencil":
            table["field_mm"] = None
        return Beam(**table)

    def reduction(self, phantom: Phantom) -> VarianceReduction:
        """Variance reduction; an importance that doubles every so many mm along ``stretch_direction``."""
        table = dict(self.document.get("variance_reduction", {}))
        check_keys(table, _REDUCTION, "variance_reduction")
        doubling = table.pop("importance_doubling_mm", None)
        if doubling is not None:
            direction = table.get("stretch_direction", (0.0, 1.0, 0.0))
            table["importance"] = importance_along(phantom.grid, direction, doubling)
        return VarianceReduction(**table)

    def config(self) -> SimulationConfig:
        """The whole simulation."""
        top = ("simulation", "phantom", "material", "source", "variance_reduction", "engine")
        check_keys(self.document, top, "the configuration")
        settings = dict(self.document.get("simulation", {}))
        check_keys(settings, _SIMULATION, "simulation")
        sources = self.document.get("source", [])
        if not isinstance(sources, list) or not sources:
            raise InputError("the configuration has no source. No photon can be emitted. Add [[source]].")
        phantom = self.phantom()
        return SimulationConfig(
            phantom=phantom,
            sources=tuple(self.source(row, f"source {n + 1}") for n, row in enumerate(sources)),
            variance_reduction=self.reduction(phantom),
            options=dict(self.document.get("engine", {})),
            **settings,
        )


def importance_along(grid: Grid, direction: Any, doubling_mm: float) -> NDArray[np.float64]:
    """Importance of each voxel, shape [z, y, x]: 1 where the phantom begins, doubling along a direction.

    Parameters
    ----------
    grid : Grid
    direction : (x, y, z)
        Direction in which the importance grows.
    doubling_mm : float
        Distance over which it doubles [mm].
    """
    d = np.asarray(direction, dtype=np.float64)
    if not np.linalg.norm(d) > 0 or not doubling_mm > 0:
        raise InputError(
            f"importance needs a direction and a positive doubling, got {direction}, {doubling_mm}."
        )
    d = d / np.linalg.norm(d)
    z, y, x = grid.centers_mm
    depth = z[:, None, None] * d[2] + y[:, None] * d[1] + x * d[0]
    return 2.0 ** ((depth - depth.min()) / doubling_mm)


def read_image(path: str | os.PathLike[str]) -> tuple[NDArray[Any], Grid]:
    """Values [z, y, x] and grid of an image (MHA, NRRD, NIfTI, or a folder of DICOM CT slices).

    Raises
    ------
    DataFormatError
        When it cannot be read, or its axes are not those of the patient.
    """
    import SimpleITK as sitk  # noqa: N813 - the name that everyone uses

    source = Path(path)
    try:
        if source.is_dir():
            reader = sitk.ImageSeriesReader()
            reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(source)))
            image = reader.Execute()
        else:
            image = sitk.ReadImage(str(source))
    except RuntimeError as error:
        raise DataFormatError(
            f"{source.name} cannot be read as an image. There is no phantom without it. Give an MHA, NRRD or "
            "NIfTI file, or a folder of CT slices."
        ) from error
    if not np.allclose(np.reshape(image.GetDirection(), (3, 3)), np.eye(3), atol=1e-4):
        raise DataFormatError(
            f"{source.name} is turned against the patient's axes. Voxels would be in the wrong place. "
            f"Resample "
            "it to an axis-aligned grid first."
        )
    grid = Grid.regular(
        shape=image.GetSize()[::-1], spacing_mm=tuple(image.GetSpacing()), origin_mm=tuple(image.GetOrigin())
    )
    return sitk.GetArrayFromImage(image), grid


def config_from(document: Mapping[str, Any], *, folder: str | os.PathLike[str] = ".") -> SimulationConfig:
    """Simulation from the tables of a TOML document; files in it are relative to ``folder``."""
    try:
        return _Reader(document, Path(folder)).config()
    except DosemoverError:
        raise
    except (TypeError, ValueError, KeyError) as error:
        raise InputError(
            f"the configuration holds a value of the wrong kind: {error}. Check numbers, texts and lists."
        ) from error


def read_config(path: str | os.PathLike[str]) -> SimulationConfig:
    """Read a simulation from a TOML file.

    Tables: ``[simulation]`` (histories, batches, seed, engine, ...), ``[phantom]`` with ``type`` and
    ``[[phantom.insert]]``, ``[material.NAME]``, ``[[source]]`` with its ``spectrum``,
    ``[variance_reduction]``, ``[engine]`` for the external engines.

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
    document = read_toml(path, consequence="No simulation can be set up from it.")
    return config_from(document, folder=Path(path).parent)
