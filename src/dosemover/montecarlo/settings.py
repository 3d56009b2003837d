"""What a simulation is told: phantom, sources, engine, statistics, variance reduction."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dosemover.errors import InputError
from dosemover.montecarlo.materials import HIGHEST_MEV, LOWEST_MEV
from dosemover.montecarlo.phantoms import Phantom
from dosemover.montecarlo.protons import ProtonField
from dosemover.montecarlo.sources import PhaseSpaceSource, Source

ENGINES = ("builtin", "cuda", "ompmc", "mcsquare")
ESTIMATORS = ("analog", "track_length")


@dataclass(frozen=True, kw_only=True, eq=False)
class VarianceReduction:
    """Ways to spend histories where they count; each leaves the mean dose unchanged.

    Parameters
    ----------
    super_voxels : int
        Side, in voxels, of blocks with a majorant of their own (Behlouli 2018); 0: one majorant for all.
        For analog tracking in phantoms where little of the volume is dense.
    forced_interactions : int
        The first so many flights of a photon are forced to end in an interaction inside the phantom,
        its weight multiplied by the probability. For phantoms that most photons cross.
    stretch : float
        Exponential transform: flights along ``stretch_direction`` are made in a medium 1 - stretch x cosine
        times as dense, weights corrected. Positive reaches deeper, -1 < stretch < 1.
    stretch_direction : (x, y, z)
        Direction to favour.
    importance : ndarray, shape [z, y, x], optional
        Importance of each voxel: a photon that goes where it is n times higher is split into n, and where it
        is n times lower it survives with probability 1/n (Russian roulette).
    roulette_weight : float
        Photons with less weight than this play Russian roulette, to carry ten times it.

    Raises
    ------
    InputError
        When a value is out of range, or methods that exclude each other are combined.
    """

    super_voxels: int = 0
    forced_interactions: int = 0
    stretch: float = 0.0
    stretch_direction: tuple[float, float, float] = (0.0, 1.0, 0.0)
    importance: NDArray[np.float64] | None = field(default=None, repr=False)
    roulette_weight: float = 1e-3

    def __post_init__(self) -> None:
        if self.super_voxels < 0 or self.forced_interactions < 0 or not -1 < self.stretch < 1:
            raise InputError(
                "`super_voxels` and `forced_interactions` must not be negative and `stretch` must lie "
                "between -1 "
                f"and 1, got {self.super_voxels}, {self.forced_interactions} and {self.stretch}. Weights "
                "would not be defined. Use 0 to switch a method off."
            )
        if not 0 <= self.roulette_weight < 0.1:
            raise InputError(
                f"`roulette_weight` must lie between 0 and 0.1, got {self.roulette_weight}. Every photon "
                "would be played for. The default is 0.001."
            )
        if self.forced_interactions and self.stretch:
            raise InputError(
                "`forced_interactions` and `stretch` both choose where a flight ends. They cannot be "
                "combined. "
                "Set one of them to 0."
            )
        if self.super_voxels and self.needs_rays:
            raise InputError(
                "`super_voxels` speeds up Woodcock tracking, and forcing, stretching and importance follow "
                "rays from voxel to voxel instead. They cannot be combined. Set `super_voxels` to 0."
            )
        norm = float(np.linalg.norm(self.stretch_direction))
        if not norm > 0:
            raise InputError("`stretch_direction` must not be (0, 0, 0). Give the direction to favour.")
        direction = tuple(float(c) / norm for c in self.stretch_direction)
        object.__setattr__(self, "stretch_direction", direction)
        if self.importance is not None and not np.all(np.asarray(self.importance) > 0):
            raise InputError(
                "`importance` must be positive in every voxel. Photons could not be split by it."
            )

    @property
    def needs_rays(self) -> bool:
        """Whether rays are followed from voxel to voxel instead of Woodcock tracking."""
        return bool(self.forced_interactions or self.stretch or self.importance is not None)


@dataclass(frozen=True, kw_only=True, eq=False)
class SimulationConfig:
    """A simulation.

    Parameters
    ----------
    phantom : Phantom
    sources : tuple of Beam, PointSource or PhaseSpaceSource, or of ProtonField
    histories : int
        Source particles in all; rounded up to a multiple of ``batches``.
    batches : int
        Independent batches, from whose spread the uncertainty is taken.
    seed : int
        The same seed gives the same bits on any number of threads.
    engine : str
        "builtin", "cuda", "ompmc" or, for proton fields, "mcsquare".
    estimator : str
        "analog", or "track_length": dose from the energy-transfer coefficient along each photon's path.
    photon_cutoff_mev : float
        Photons below this deposit their energy on the spot [MeV].
    photons : float, optional
        Particles that the source emits: the dose is scaled to them [Gy]. Without it the dose is per
        source particle.
    history_by_history : bool
        Also sum the squares of each history's dose, for a second estimate of the uncertainty.
    variance_reduction : VarianceReduction
    uncertainty_goal_percent : float, optional
        Stop once the mean relative uncertainty above half the maximum is this small.
    max_seconds : float, optional
        Stop after this time. External engines stop between batches.
    options : mapping
        Settings of the external engines.

    Raises
    ------
    InputError
        When a value is out of range.
    """

    phantom: Phantom
    sources: tuple[Source | ProtonField, ...]
    histories: int = 1_000_000
    batches: int = 10
    seed: int = 0
    engine: str = "builtin"
    estimator: str = "analog"
    photon_cutoff_mev: float = LOWEST_MEV
    photons: float | None = None
    history_by_history: bool = False
    variance_reduction: VarianceReduction = field(default_factory=VarianceReduction)
    uncertainty_goal_percent: float | None = None
    max_seconds: float | None = None
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sources", tuple(self.sources))
        for name in ("histories", "batches", "seed"):
            value = getattr(self, name)
            if value != int(value):
                raise InputError(f"`{name}` must be a whole number, got {value}.")
            object.__setattr__(self, name, int(value))
        if self.batches < 2 or self.histories < self.batches or not 0 <= self.seed < 2**63:
            raise InputError(
                f"there must be at least 2 `batches`, at least one history in each, and a `seed` from 0 to "
                f"2**63 - 1, got {self.batches}, {self.histories} and {self.seed}. No uncertainty could be "
                f"told."
            )
        for name, choices in (("engine", ENGINES), ("estimator", ESTIMATORS)):
            if getattr(self, name) not in choices:
                raise InputError(
                    f"`{name}` must be one of {', '.join(choices)}, got {getattr(self, name)!r}."
                )
        self._check_particles()
        if not LOWEST_MEV <= self.photon_cutoff_mev < HIGHEST_MEV:
            raise InputError(
                f"`photon_cutoff_mev` must lie between {LOWEST_MEV:g} and {HIGHEST_MEV:g}, got "
                f"{self.photon_cutoff_mev:g}. No cross sections are known below. Give it in MeV."
            )
        for name in ("photons", "uncertainty_goal_percent", "max_seconds"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InputError(f"`{name}` must be positive, got {value}. Leave it out for none.")
        if self.variance_reduction.super_voxels and self.estimator == "track_length":
            raise InputError(
                "the track-length estimator follows rays from voxel to voxel, `super_voxels` speeds up "
                "Woodcock "
                "tracking. They cannot be combined. Set `super_voxels` to 0."
            )
        importance = self.variance_reduction.importance
        if importance is not None:
            self.phantom.grid.check_array("importance", importance)

    def _check_particles(self) -> None:
        """Refuse sources whose particles the engine does not know."""
        protons = [isinstance(source, ProtonField) for source in self.sources]
        if self.engine == "mcsquare" and not (protons and all(protons)):
            raise InputError(
                "the engine 'mcsquare' transports protons, and a source is none. Its particles would not "
                "be followed. "
                'Use ProtonField (type = "proton") for every source, or another engine for photons.'
            )
        if self.engine != "mcsquare" and any(protons):
            raise InputError(
                f"the engine {self.engine!r} transports no protons. A proton field would give no dose. Set "
                "engine to 'mcsquare'."
            )

    @property
    def photon_sources(self) -> tuple[Source, ...]:
        """The sources that emit photons."""
        return tuple(source for source in self.sources if not isinstance(source, ProtonField))

    @property
    def uses_rays(self) -> bool:
        """Whether the built-in engine follows rays from voxel to voxel."""
        return self.estimator == "track_length" or self.variance_reduction.needs_rays

    def fingerprint(self) -> str:
        """Hash of everything that the bits of the result depend on, histories aside."""
        digest = hashlib.sha256()
        reduction = self.variance_reduction
        for array in (self.phantom.material, self.phantom.density_g_per_cm3, *self.phantom.grid.edges_mm):
            digest.update(np.ascontiguousarray(array).tobytes())
        for material in self.phantom.materials:
            digest.update(repr(sorted(material.mass_fractions.items())).encode())
        for source in self.sources:
            digest.update(repr(source).encode())
            if isinstance(source, PhaseSpaceSource):
                digest.update(source.particles.tobytes())
            elif not isinstance(source, ProtonField):
                digest.update(source.spectrum.alias_table().tobytes())
        if reduction.importance is not None:
            digest.update(np.ascontiguousarray(reduction.importance, dtype=np.float64).tobytes())
        settings = (self.batches, self.seed, self.engine, self.estimator, self.photon_cutoff_mev, reduction)
        digest.update(repr((settings, self.history_by_history, sorted(self.options.items()))).encode())
        return digest.hexdigest()


StopRule = Callable[[Any], bool]
"""A stop rule: given the `SimulationResult` so far, whether it is good enough."""
