"""Phase spaces in the IAEA format: a header of text, and one binary record per particle."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dosemover.errors import DataFormatError, InputError

PHOTON, ELECTRON = 1, 2
"""Particle types of the format; 3 positrons, 4 neutrons, 5 protons."""

_VARIABLES = ("X", "Y", "Z", "U", "V", "W", "Weight")


def _paths(path: str | os.PathLike[str]) -> tuple[Path, Path]:
    """Header and record file of a phase space, whichever of both (or neither suffix) is given."""
    base = Path(path)
    if base.suffix in (".IAEAheader", ".IAEAphsp"):
        base = base.with_suffix("")
    return base.with_name(base.name + ".IAEAheader"), base.with_name(base.name + ".IAEAphsp")


def _sections(text: str) -> dict[str, list[str]]:
    """Lines of each section ``$NAME:`` of a header, comments off."""
    result: dict[str, list[str]] = {}
    for block in re.split(r"^\$", text, flags=re.MULTILINE)[1:]:
        name, _, rest = block.partition(":")
        lines = [line.split("//")[0].strip() for line in rest.splitlines()]
        result[name.strip().upper()] = [line for line in lines if line]
    return result


def _record_type(stored: list[int], n_float: int, n_int: int, order: str) -> np.dtype:
    """Layout of a record: type, energy, the stored variables, extra floats and integers."""
    names = [name for name, flag in zip(_VARIABLES, stored, strict=True) if flag and name != "W"]
    rows = [("type", "i1"), ("E", f"{order}f4"), *((name, f"{order}f4") for name in names)]
    rows += [(f"float{n}", f"{order}f4") for n in range(n_float)]
    rows += [(f"int{n}", f"{order}i4") for n in range(n_int)]
    return np.dtype(rows)


def read_phase_space(path: str | os.PathLike[str]) -> NDArray[np.float64]:
    """Photons of an IAEA phase space.

    Parameters
    ----------
    path : path
        The ``.IAEAheader``, the ``.IAEAphsp`` beside it, or their common name.

    Returns
    -------
    ndarray, shape (n, 8)
        x, y, z [mm]; direction cosines u, v, w; energy [MeV]; weight. Other particles are left out.

    Raises
    ------
    DataFormatError
        When the files are not a phase space, or do not fit together.

    References
    ----------
    IAEA INDC(NDS)-0484, phase-space database for external beam radiotherapy (Capote et al. 2006).
    """
    header, records = _paths(path)
    try:
        sections = _sections(header.read_text(encoding="latin-1"))
        contents = [int(word) for line in sections["RECORD_CONTENTS"] for word in line.split()[:1]]
        order = "<" if sections.get("BYTE_ORDER", ["1234"])[0].split()[0] == "1234" else ">"
        constants = [float(line.split()[0]) for line in sections.get("RECORD_CONSTANT", [])]
        stored = contents[:7]
        layout = _record_type(stored, contents[7], contents[8], order)
        data = np.fromfile(records, dtype=layout)
    except (KeyError, ValueError, IndexError) as error:
        raise DataFormatError(
            f"{header.name} is not the header of an IAEA phase space. Its particles cannot be read. It "
            f"needs the "
            "section $RECORD_CONTENTS with nine numbers."
        ) from error
    except OSError as error:
        raise DataFormatError(
            f"{header.name} and {records.name} must lie side by side: {error.strerror}. The phase space "
            f"cannot be "
            "read. Give the name that both share."
        ) from error
    if records.stat().st_size != data.size * layout.itemsize or data.size == 0:
        raise DataFormatError(
            f"{records.name} holds {records.stat().st_size} bytes, no whole number of records of "
            f"{layout.itemsize} bytes. Particles would be read wrongly. Check that header and records "
            f"belong together."
        )
    return _photons(data, stored, constants)


def _photons(data: NDArray[np.void], stored: list[int], constants: list[float]) -> NDArray[np.float64]:
    """Rows of the photons; absent variables are constants of the header."""
    fixed = iter(constants)
    value = {
        name: float(next(fixed, 1.0 if name == "Weight" else 0.0)) if not flag else None
        for name, flag in zip(_VARIABLES, stored, strict=True)
    }
    kind = data["type"]
    photons = data[np.abs(kind) == PHOTON]
    backward = np.sign(kind[np.abs(kind) == PHOTON])
    result = np.empty((photons.size, 8))
    for column, name in enumerate(("X", "Y", "Z", "U", "V")):
        known = value[name]
        result[:, column] = photons[name].astype(np.float64) if known is None else known
    result[:, :3] *= 10.0
    across = result[:, 3] ** 2 + result[:, 4] ** 2
    result[:, 5] = np.sqrt(np.maximum(1.0 - across, 0.0)) * backward
    norm = np.sqrt(np.sum(result[:, 3:6] ** 2, axis=1))
    result[:, 3:6] /= norm[:, None]
    result[:, 6] = np.abs(photons["E"].astype(np.float64))
    weight = value["Weight"]
    result[:, 7] = photons["Weight"].astype(np.float64) if weight is None else weight
    return result


def write_phase_space(
    path: str | os.PathLike[str],
    particles: NDArray[np.float64],
    *,
    histories: int | None = None,
    electrons: bool = False,
) -> Path:
    """Write photons (or electrons) as an IAEA phase space.

    Parameters
    ----------
    path : path
        With or without ``.IAEAphsp``; a header is written beside it.
    particles : ndarray, shape (n, 8)
        x, y, z [mm]; u, v, w; energy [MeV]; weight.
    histories : int, optional
        Source particles that they came from; their number by default.
    electrons : bool
        The particles are electrons and not photons.

    Returns
    -------
    Path
        The header.

    Raises
    ------
    InputError
        When ``particles`` has another shape.
    """
    rows = np.asarray(particles, dtype=np.float64)
    if rows.ndim != 2 or rows.shape[1] != 8 or rows.shape[0] == 0:
        raise InputError(f"`particles` must have shape (n, 8), got {rows.shape}. There is nothing to write.")
    header, records = _paths(path)
    data = np.zeros(rows.shape[0], dtype=_record_type([1] * 7, 0, 0, "<"))
    kind = ELECTRON if electrons else PHOTON
    data["type"] = np.where(rows[:, 5] < 0, -kind, kind)
    data["E"] = rows[:, 6]
    for column, name in enumerate(("X", "Y", "Z")):
        data[name] = rows[:, column] / 10.0
    data["U"], data["V"], data["Weight"] = rows[:, 3], rows[:, 4], rows[:, 7]
    data.tofile(records)
    stored = [f"    1     // {name} is stored" for name in _VARIABLES]
    stored += ["    0     // extra floats", "    0     // extra longs"]
    text = {
        "IAEA_INDEX": "0",
        "TITLE": "photons written by dosemover",
        "FILE_TYPE": "0",
        "CHECKSUM": str(records.stat().st_size),
        "RECORD_CONTENTS": "\n".join(stored),
        "RECORD_CONSTANT": "",
        "RECORD_LENGTH": str(data.dtype.itemsize),
        "BYTE_ORDER": "1234",
        "ORIG_HISTORIES": str(rows.shape[0] if histories is None else histories),
        "PARTICLES": str(rows.shape[0]),
        "ELECTRONS" if electrons else "PHOTONS": str(rows.shape[0]),
    }
    header.write_text("".join(f"${key}:\n{value}\n\n" for key, value in text.items()), encoding="ascii")
    return header


def sample_phase_space(
    sources: object, n: int, *, seed: int = 0, plane_z_mm: float | None = None
) -> NDArray[np.float64]:
    """Photons of a source, where they start or where they cross a plane.

    Parameters
    ----------
    sources : sequence of Beam, PointSource or PhaseSpaceSource
    n : int
        Number of photons.
    seed : int
    plane_z_mm : float, optional
        Move each photon along its ray to this plane [mm]; photons that never cross it are left out.

    Returns
    -------
    ndarray, shape (m, 8), m <= n
    """
    from dosemover.montecarlo import source_kernels
    from dosemover.montecarlo.sources import source_tables

    tables = source_tables(list(sources))  # type: ignore[call-overload]
    particles, beam = np.empty((n, 8)), np.empty(n, dtype=np.int64)
    with np.errstate(over="ignore"):
        source_kernels.sample_sources(
            np.uint64(seed), tables.rows, tables.cumulative, tables.spectra, tables.particles, particles, beam
        )
    if plane_z_mm is None:
        return particles
    with np.errstate(divide="ignore", invalid="ignore"):
        distance = (plane_z_mm - particles[:, 2]) / particles[:, 5]
    crosses = np.isfinite(distance) & (distance >= 0)
    particles = particles[crosses]
    particles[:, :3] += distance[crosses, None] * particles[:, 3:6]
    return particles
