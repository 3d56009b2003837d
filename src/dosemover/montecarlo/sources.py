"""Photon sources: beams with a field and a gantry angle, points, and phase spaces."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dosemover.errors import InputError
from dosemover.montecarlo import source_kernels as k
from dosemover.montecarlo.materials import check_energy
from dosemover.montecarlo.spectra import Spectrum

PENUMBRA_PER_SIGMA = 1.6832424671458286
"""20 % to 80 % width of an edge blurred by a Gaussian, over its standard deviation."""

Vector = tuple[float, float, float]


def _vector(name: str, values: ArrayLike) -> Vector:
    """Three finite numbers."""
    array = np.asarray(values, dtype=np.float64)
    if array.shape != (3,) or not np.all(np.isfinite(array)):
        raise InputError(
            f"`{name}` must be three finite numbers (x, y, z), got {values}. Pass them in mm, LPS."
        )
    return float(array[0]), float(array[1]), float(array[2])


@dataclass(frozen=True, kw_only=True, eq=False)
class Beam:
    """A photon field.

    Parameters
    ----------
    spectrum : Spectrum
    field_mm : float, (float, float), (float, float, float, float) or None
        Field in the plane through the isocentre, perpendicular to the beam: side of a square, (across,
        along), or edges (x1, x2, y1, y2) [mm]. For a circle: its diameter. None: a pencil.
    shape : str
        "rectangle" or "circle".
    source_distance_mm : float or None
        From the point source to the isocentre [mm]; None for a parallel beam.
    isocenter_mm : (x, y, z)
        Point on the beam axis [mm], LPS.
    gantry_deg : float
        IEC 61217 gantry angle for a patient lying head first supine: at 0 the beam travels toward +y
        (anterior to posterior), at 90 toward -x.
    arc_deg : float
        The gantry turns evenly by this much from ``gantry_deg`` on; 0: it stands still.
    collimator_deg : float
        Rotation of the field about the beam axis.
    direction : (x, y, z) or None
        Direction of travel instead of a gantry angle; then the field's first axis lies as near x as can be.
    penumbra_mm : float
        20 % to 80 % width of the field edges at the isocentre, Gaussian [mm].
    fluence : str
        "flat": uniform in the isocentre plane; "isotropic": uniform in solid angle.
    weight : float
        Relative number of photons among several sources.
    start_mm : float
        Where a parallel beam starts, this far upstream of the isocentre [mm].
    """

    spectrum: Spectrum
    field_mm: Any = 100.0
    shape: str = "rectangle"
    source_distance_mm: float | None = 1000.0
    isocenter_mm: Vector = (0.0, 0.0, 0.0)
    gantry_deg: float = 0.0
    arc_deg: float = 0.0
    collimator_deg: float = 0.0
    direction: Vector | None = None
    penumbra_mm: float = 0.0
    fluence: str = "flat"
    weight: float = 1.0
    start_mm: float = 1000.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "isocenter_mm", _vector("isocenter_mm", self.isocenter_mm))
        if self.direction is not None:
            direction = _vector("direction", self.direction)
            if math.hypot(*direction) == 0 or self.arc_deg or self.gantry_deg:
                raise InputError(
                    "`direction` must not be (0, 0, 0) and excludes `gantry_deg` and `arc_deg`. The beam's "
                    "direction is not defined. Give one or the other."
                )
            object.__setattr__(self, "direction", direction)
        for name, choices in (("shape", ("rectangle", "circle")), ("fluence", ("flat", "isotropic"))):
            if getattr(self, name) not in choices:
                raise InputError(f"`{name}` of a beam must be one of {choices}, got {getattr(self, name)!r}.")
        if self.source_distance_mm is not None and not self.source_distance_mm > 0:
            raise InputError(
                f"`source_distance_mm` must be positive, got {self.source_distance_mm}. The beam has no "
                "source. Leave it out for 1000 mm, or set parallel beams to None."
            )
        if not (self.weight > 0 and self.penumbra_mm >= 0):
            raise InputError(
                f"`weight` must be positive and `penumbra_mm` not negative, got {self.weight} and "
                f"{self.penumbra_mm}. The beam cannot be sampled."
            )
        object.__setattr__(self, "field_mm", self._edges())

    def _edges(self) -> tuple[float, float, float, float]:
        """Field edges (x1, x2, y1, y2); for a circle (x, radius, y, radius)."""
        field = np.atleast_1d(np.asarray(0.0 if self.field_mm is None else self.field_mm, dtype=np.float64))
        if field.size == 4:
            edges = field
        elif self.shape == "circle" and field.size == 1:
            edges = np.array([0.0, field[0] / 2, 0.0, field[0] / 2])
        elif field.size in (1, 2):
            a, b = field[0] / 2, field[-1] / 2
            edges = np.array([-a, a, -b, b])
        else:
            edges = np.array([np.nan])
        if (
            edges.size != 4
            or not np.all(np.isfinite(edges))
            or np.any(edges[1::2] < edges[::2] * (self.shape != "circle"))
        ):
            raise InputError(
                f"`field_mm` must be one side, two sides or edges (x1, x2, y1, y2) in mm, got "
                f"{self.field_mm}. "
                "The field has no area. Edges must ascend."
            )
        return float(edges[0]), float(edges[1]), float(edges[2]), float(edges[3])

    @property
    def area_mm2(self) -> float:
        """Area of the field in the isocentre plane [mm2]."""
        x1, x2, y1, y2 = self.field_mm
        return math.pi * x2 * y2 if self.shape == "circle" else (x2 - x1) * (y2 - y1)

    def _axes(self) -> NDArray[np.float64]:
        """Rows: direction of travel, first and second field axis."""
        if self.direction is None:
            w, u = np.array([0.0, 1.0, 0.0]), np.array([1.0, 0.0, 0.0])
        else:
            w = np.asarray(self.direction) / math.hypot(*self.direction)
            near = np.array([1.0, 0.0, 0.0]) if abs(w[0]) < 0.9 else np.array([0.0, 1.0, 0.0])
            u = near - w * float(near @ w)
            u /= np.linalg.norm(u)
        v = np.cross(w, u)
        c, s = math.cos(math.radians(self.collimator_deg)), math.sin(math.radians(self.collimator_deg))
        return np.stack([w, c * u + s * v, c * v - s * u])

    def row(self, first: int, count: int) -> NDArray[np.float64]:
        """The beam as the kernels read it; its spectrum is rows first to first + count."""
        row = np.zeros(k.N_COLUMNS)
        axes = self._axes()
        parallel = self.source_distance_mm is None
        distance = self.start_mm if self.source_distance_mm is None else self.source_distance_mm
        row[k.KIND] = k.PARALLEL if parallel else k.DIVERGENT
        row[k.POSITION : k.POSITION + 3] = -distance * axes[0]
        row[k.DIRECTION : k.DIRECTION + 9] = axes.ravel()
        row[k.PIVOT : k.PIVOT + 3] = self.isocenter_mm
        row[k.ANGLE], row[k.ARC] = math.radians(self.gantry_deg), math.radians(self.arc_deg)
        row[k.COSINE], row[k.SINE] = math.cos(row[k.ANGLE]), math.sin(row[k.ANGLE])
        row[k.DISTANCE] = distance
        row[k.SHAPE] = k.CIRCLE if self.shape == "circle" else k.RECTANGLE
        row[k.FIELD : k.FIELD + 4] = self.field_mm
        row[k.BLUR] = self.penumbra_mm / PENUMBRA_PER_SIGMA
        row[k.SOLID_ANGLE] = float(self.fluence == "isotropic" and not parallel)
        row[k.FIRST], row[k.COUNT] = first, count
        return row


@dataclass(frozen=True, kw_only=True, eq=False)
class PointSource:
    """A point that emits photons evenly in all directions: a brachytherapy-like source.

    Parameters
    ----------
    spectrum : Spectrum
    position_mm : (x, y, z)
        Where it is [mm], LPS.
    weight : float
        Relative number of photons among several sources (dwell time).
    """

    spectrum: Spectrum
    position_mm: Vector
    weight: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "position_mm", _vector("position_mm", self.position_mm))
        if not self.weight > 0:
            raise InputError(f"`weight` of a point source must be positive, got {self.weight}.")

    def row(self, first: int, count: int) -> NDArray[np.float64]:
        """The source as the kernels read it."""
        row = np.zeros(k.N_COLUMNS)
        row[k.KIND] = k.POINT
        row[k.POSITION : k.POSITION + 3] = self.position_mm
        row[k.COSINE] = 1.0
        row[k.FIRST], row[k.COUNT] = first, count
        return row


@dataclass(frozen=True, kw_only=True, eq=False)
class PhaseSpaceSource:
    """Photons of a phase space, taken in turn and again from the start when used up.

    Parameters
    ----------
    particles : ndarray, shape (n, 8)
        x, y, z [mm]; direction cosines u, v, w; energy [MeV]; statistical weight.
    weight : float
        Relative number of photons among several sources.
    """

    particles: NDArray[np.float64]
    weight: float = 1.0

    def __post_init__(self) -> None:
        particles = np.ascontiguousarray(self.particles, dtype=np.float64)
        if particles.ndim != 2 or particles.shape[1] != 8 or particles.shape[0] == 0:
            raise InputError(
                f"`particles` must have shape (n, 8), got {particles.shape}. No photon can be taken from it. "
                "Read a phase space with read_phase_space."
            )
        check_energy(particles[:, 6])
        particles.setflags(write=False)
        object.__setattr__(self, "particles", particles)

    def row(self, first: int, count: int) -> NDArray[np.float64]:
        """The source as the kernels read it; its particles are rows first to first + count."""
        row = np.zeros(k.N_COLUMNS)
        row[k.KIND] = k.PHASE_SPACE
        row[k.FIRST], row[k.COUNT] = first, count
        return row


Source = Beam | PointSource | PhaseSpaceSource


@dataclass(frozen=True, kw_only=True, eq=False)
class SourceTables:
    """What the kernels read of a list of sources: rows, cumulative weights, spectra, particles."""

    rows: NDArray[np.float64]
    cumulative: NDArray[np.float64]
    spectra: NDArray[np.float64]
    particles: NDArray[np.float64]


def source_tables(sources: Sequence[Source]) -> SourceTables:
    """Tabulate sources for the kernels."""
    if not sources:
        raise InputError("the configuration has no source. No photon can be emitted. Add a beam.")
    rows, spectra, particles = [], [], []
    n_lines = n_particles = 0
    for source in sources:
        if isinstance(source, PhaseSpaceSource):
            rows.append(source.row(n_particles, source.particles.shape[0]))
            particles.append(source.particles)
            n_particles += source.particles.shape[0]
        else:
            table = source.spectrum.alias_table()
            rows.append(source.row(n_lines, table.shape[0]))
            spectra.append(table)
            n_lines += table.shape[0]
    weights = np.array([source.weight for source in sources], dtype=np.float64)
    return SourceTables(
        rows=np.array(rows),
        cumulative=np.cumsum(weights) / weights.sum(),
        spectra=np.concatenate(spectra) if spectra else np.zeros((0, 4)),
        particles=np.concatenate(particles) if particles else np.zeros((0, 8)),
    )
