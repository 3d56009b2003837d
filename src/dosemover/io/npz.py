"""NumPy files: our own NPZ layout, batches from Monte Carlo, and plain arrays with a stated spacing."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dosemover.dose import DoseMap, Structure, uncertainty_of_batches
from dosemover.errors import DataFormatError, InputError
from dosemover.grid import Grid
from dosemover.io.files import GZIP_RATIO, FileContent, check_allocation
from dosemover.io.openkbp import is_openkbp_npz, openkbp_from_arrays

LAYOUT = "dosemover.dose/1"
"""Value of the entry ``layout`` in the files written here."""

_ALIASES = {
    "values": ("dose_gy", "dose"),
    "uncertainty": ("uncertainty_gy", "uncertainty"),
    "batches": ("batches_gy", "batches"),
    "density": ("density_g_per_cm3", "density"),
}
_EDGES = ("x_edges_mm", "y_edges_mm", "z_edges_mm")
_RATIO = {zipfile.ZIP_STORED: 1.0, zipfile.ZIP_DEFLATED: float(GZIP_RATIO)}
_OTHER_RATIO = 50_000.0
"""The most that bzip2 and LZMA shrink constant data."""


def read_npz(
    path: Path,
    *,
    spacing_mm: tuple[float, ...] | None = None,
    origin_mm: tuple[float, ...] | None = None,
) -> FileContent:
    """Dose map of an NPZ file, or of a single NPY array.

    Parameters
    ----------
    path : Path
        NPZ with ``dose_gy`` (or ``dose``), shape [z, y, x] or [y, x], or with ``batches_gy`` (or
        ``batches``), shape [batch, z, y, x], whose mean is then the dose; both are multiplied by ``scale``
        where that is given. Geometry: ``x_edges_mm``, ``y_edges_mm``, ``z_edges_mm``, or
        ``spacing_mm`` and ``origin_mm`` (x, y, z). Optional: ``uncertainty_gy``,
        ``density_g_per_cm3``, ``unit``, ``structure_names`` with ``structure_fractions``. The sparse OpenKBP
        patients (``dose_idx``, ``dose``, ``voxel_mm``, ``mask_NAME``) are understood.
    spacing_mm, origin_mm : tuple of float, optional
        Voxel size and centre of the first voxel (x, y, z) [mm], where the file has no geometry.

    Returns
    -------
    FileContent

    Raises
    ------
    InputError
        When neither the file nor the arguments tell the voxel size.
    DataFormatError
        For damaged files, and arrays of Python objects, which are never unpickled.
    """
    with path.open("rb") as stream:
        single = stream.read(6) == b"\x93NUMPY"
    arrays = {"dose": _array(path)} if single else _members(path)
    if is_openkbp_npz(list(arrays)):
        return openkbp_from_arrays(path, arrays)
    return _content(path, arrays, spacing_mm, origin_mm)


def _content(
    path: Path,
    arrays: Mapping[str, NDArray[Any]],
    spacing_mm: tuple[float, ...] | None,
    origin_mm: tuple[float, ...] | None,
) -> FileContent:
    """Arrays by their meaning, in double precision where a scale is applied."""
    found = {
        meaning: arrays[name] for meaning, names in _ALIASES.items() for name in names[::-1] if name in arrays
    }
    scale = float(arrays["scale"]) if "scale" in arrays else 1.0
    for name in ("values", "batches", "uncertainty"):
        if name in found and (scale != 1.0 or found[name].dtype not in (np.float32, np.float64)):
            found[name] = found[name].astype(np.float64) * scale
    if "values" not in found and "batches" not in found:
        raise DataFormatError(
            f"{path.name} holds {', '.join(sorted(arrays)) or 'nothing'}: no array is named dose_gy, dose, "
            "batches_gy or batches. Save the dose under one of these names."
        )
    batches = found.get("batches")
    values = found["values"] if "values" in found else np.asarray(batches).mean(axis=0, dtype=np.float64)
    grid = _grid(path, arrays, values.shape, spacing_mm, origin_mm)
    uncertainty = found.get("uncertainty")
    if uncertainty is None and batches is not None and len(batches) > 1:
        uncertainty = uncertainty_of_batches(batches)
    density = found.get("density")
    return FileContent(
        values=values.reshape(grid.shape),
        grid=grid,
        uncertainty=None if uncertainty is None else uncertainty.reshape(grid.shape),
        batches=None if batches is None else batches.reshape(-1, *grid.shape),
        density=None if density is None else density.reshape(grid.shape),
        structures=_structures(path, arrays, grid),
        unit=str(arrays["unit"]) if "unit" in arrays else None,
        source={"format": "NPZ", "arrays": " ".join(sorted(arrays))},
    )


def _grid(
    path: Path,
    arrays: Mapping[str, NDArray[Any]],
    shape: tuple[int, ...],
    spacing_mm: tuple[float, ...] | None,
    origin_mm: tuple[float, ...] | None,
) -> Grid:
    """Geometry of the file, else of the arguments."""
    if set(_EDGES) <= set(arrays):
        grid = Grid(**{name: arrays[name] for name in _EDGES})
        if grid.n_voxels != math.prod(shape):
            raise DataFormatError(
                f"{path.name} has boundaries of {grid.shape} voxels (z, y, x) for a dose of shape {shape}. "
                "Save both of the same map."
            )
        return grid
    spacing = tuple(np.ravel(arrays["spacing_mm"]).tolist()) if "spacing_mm" in arrays else spacing_mm
    origin = tuple(np.ravel(arrays["origin_mm"]).tolist()) if "origin_mm" in arrays else origin_mm
    if spacing is None:
        raise InputError(
            f"{path.name} tells no voxel size: neither x_edges_mm, y_edges_mm and z_edges_mm nor spacing_mm. "
            "Distances in mm cannot be computed. Pass spacing_mm=(x, y, z) to `read_dose` or save it in "
            "the file."
        )
    return Grid.regular(shape=shape, spacing_mm=spacing, origin_mm=origin or (0.0, 0.0, 0.0))


def _structures(path: Path, arrays: Mapping[str, NDArray[Any]], grid: Grid) -> tuple[Structure, ...]:
    """Structures as written by `write_npz`."""
    if "structure_names" not in arrays or "structure_fractions" not in arrays:
        return ()
    names = np.ravel(arrays["structure_names"]).tolist()
    fractions = arrays["structure_fractions"]
    if len(names) != len(fractions):
        raise DataFormatError(
            f"{path.name}: {len(names)} structure names for {len(fractions)} masks. Save it again."
        )
    return tuple(Structure(name=str(n), fraction=f, grid=grid) for n, f in zip(names, fractions, strict=True))


def _array(path: Path) -> NDArray[Any]:
    """One NPY file, its header checked before anything is allocated."""
    with path.open("rb") as stream:
        _check_array_header(path, path.name, stream, float(path.stat().st_size))
        stream.seek(0)
        return np.lib.format.read_array(stream, allow_pickle=False)


def _members(path: Path) -> dict[str, NDArray[Any]]:
    """All arrays of an NPZ file, their headers checked before anything is allocated."""
    with zipfile.ZipFile(path) as archive:
        members = [m for m in archive.infolist() if m.filename.endswith(".npy")]
        total = 0.0
        for member in members:
            stored = _RATIO.get(member.compress_type, _OTHER_RATIO) * member.compress_size
            with archive.open(member) as stream:
                total += _check_array_header(path, member.filename, stream, min(stored, member.file_size))
        check_allocation(path, declared_bytes=total)
        arrays = {}
        for member in members:
            with archive.open(member) as stream:
                arrays[member.filename.removesuffix(".npy")] = np.lib.format.read_array(
                    stream, allow_pickle=False
                )
    return arrays


def _check_array_header(path: Path, name: str, stream: Any, stored_bytes: float) -> float:
    """Bytes that an NPY header declares, after holding them against those that are stored."""
    major, _ = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(stream)
    if dtype.hasobject or dtype.kind not in "biufUS":
        raise DataFormatError(
            f"{path.name}: {name} holds {dtype} values. Only numbers and text are read, never pickled "
            "objects. Save plain arrays."
        )
    declared = float(math.prod(shape)) * dtype.itemsize
    check_allocation(path, declared_bytes=declared, stored_bytes=stored_bytes)
    return declared


def write_npz(dose: DoseMap, path: Path) -> None:
    """Write everything that a dose map holds, uneven grids included, but no identifiers.

    Parameters
    ----------
    dose : DoseMap
    path : Path
        Compressed NPZ in the layout that `read_npz` describes.
    """
    arrays: dict[str, Any] = {"layout": LAYOUT, "dose_gy": dose.dose_gy, "unit": dose.unit}
    arrays |= {name: getattr(dose.grid, name) for name in _EDGES}
    for name in ("uncertainty_gy", "batches_gy", "density_g_per_cm3"):
        if getattr(dose, name) is not None:
            arrays[name] = getattr(dose, name)
    if dose.structures:
        arrays["structure_names"] = np.array([s.name for s in dose.structures])
        arrays["structure_fractions"] = np.stack([s.fraction for s in dose.structures])
    with path.open("wb") as stream:
        np.savez_compressed(stream, allow_pickle=False, **arrays)
