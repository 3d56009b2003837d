"""The result of a simulation: dose, uncertainty, batches, balance, and the TG-268 table."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dosemover._runtime import provenance
from dosemover.dose import DoseMap
from dosemover.errors import InputError
from dosemover.grid import Grid
from dosemover.montecarlo.settings import SimulationConfig

GRAY_PER_MEV_PER_G = 1.602176634e-10
"""1 MeV/g in Gy."""

AIR_BELOW_G_PER_CM3 = 0.1
"""Voxels below this density count as air."""

BALANCE = ("emitted_mev", "deposited_mev", "escaped_mev", "interactions", "entered", "weight")
"""Columns of ``Tallies.balance``."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Tallies:
    """What the built-in engine has summed up so far; it can be continued and merged.

    Parameters
    ----------
    energy_mev : ndarray, shape [batch, z, y, x]
        Energy deposited in each voxel [MeV].
    square_mev2 : ndarray, shape [batch, z, y, x] or (batch, 0)
        Sum of the squares of what each history deposited [MeV^2], where asked for.
    histories : ndarray of int, shape (batch,)
        Histories of each batch.
    balance : ndarray, shape (batch, 6)
        Sums over the histories, columns as in `BALANCE`.
    seeds : ndarray of int, shape (batch, 2)
        Seed and batch number that each batch's random numbers came from.
    """

    energy_mev: NDArray[np.float64]
    square_mev2: NDArray[np.float64]
    histories: NDArray[np.int64]
    balance: NDArray[np.float64]
    seeds: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class SimulationResult:
    """Dose of a simulation with its statistical uncertainty.

    Parameters
    ----------
    config : SimulationConfig
    tallies : Tallies or None
        Sums of the built-in engine; None for the external ones.
    grid : Grid
    dose_gy : ndarray, shape [z, y, x]
        Dose [Gy], per source particle unless ``config.photons`` says for how many.
    uncertainty_gy : ndarray, shape [z, y, x]
        Standard uncertainty of the mean, k = 1 [Gy].
    batches_gy : ndarray, shape [batch, z, y, x], or None
        Batch doses [Gy].
    density_g_per_cm3 : ndarray, shape [z, y, x]
    histories : int
    seconds, cpu_seconds : float
        Wall and processor time.
    status : str
        "complete", "goal reached", "time limit" or "interrupted".
    limits : tuple of str
        What the dose does not contain; read before use.
    messages : tuple of str
        Remarks of the engine.
    """

    config: SimulationConfig
    grid: Grid
    dose_gy: NDArray[Any]
    uncertainty_gy: NDArray[Any]
    batches_gy: NDArray[Any] | None
    density_g_per_cm3: NDArray[Any]
    histories: int
    seconds: float
    cpu_seconds: float
    status: str
    limits: tuple[str, ...]
    messages: tuple[str, ...] = ()
    tallies: Tallies | None = field(default=None, repr=False)

    @property
    def seed(self) -> int:
        """Seed of the random numbers."""
        return self.config.seed

    @property
    def unit(self) -> str:
        """Unit of the dose: "Gy" where the number of photons is known, else "Gy/history"."""
        return "Gy/history" if self.config.photons is None else "Gy"

    @cached_property
    def relative_uncertainty(self) -> NDArray[np.float64]:
        """Standard uncertainty over dose, shape [z, y, x]; infinite where no dose was scored."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(self.dose_gy > 0, self.uncertainty_gy / self.dose_gy, np.inf)

    @property
    def mean_relative_uncertainty_percent(self) -> float:
        """Root mean square relative uncertainty [%] of the voxels above half the maximum dose.

        As TG-105 proposes to state it; voxels of air (under 0.1 g/cm3), where single electrons make huge
        doses, are left out.
        """
        tissue = self.density_g_per_cm3 >= AIR_BELOW_G_PER_CM3
        top = float(self.dose_gy[tissue].max()) if np.any(tissue) else 0.0
        if top == 0.0:
            return float("inf")
        high = tissue & (self.dose_gy > 0.5 * top)
        return float(100 * np.sqrt(np.mean(self.relative_uncertainty[high] ** 2)))

    @property
    def efficiency_per_s(self) -> float:
        """1 / (sigma^2 T) [1/s], sigma the mean relative uncertainty above half the maximum, T CPU time."""
        sigma = self.mean_relative_uncertainty_percent / 100
        return 1.0 / (sigma**2 * self.cpu_seconds)

    @cached_property
    def history_uncertainty_gy(self) -> NDArray[np.float64] | None:
        """Standard uncertainty from history-by-history sums [Gy], shape [z, y, x]; None without them.

        sigma^2 = (sum d^2 / N - (sum d / N)^2) / (N - 1) (Walters, Kawrakow & Rogers 2002).
        """
        if self.tallies is None or self.tallies.square_mev2.size == 0:
            return None
        n = self.histories
        mean = self.tallies.energy_mev.sum(axis=0) / n
        square = self.tallies.square_mev2.reshape(self.tallies.energy_mev.shape).sum(axis=0) / n
        variance = np.maximum(square - mean**2, 0.0) / (n - 1)
        return np.sqrt(variance) * gray_per_mev(self.config, self.grid)

    def balance(self) -> dict[str, float]:
        """Energy emitted, deposited and escaped [MeV], interactions, photons that entered, source weight."""
        if self.tallies is None:
            return {}
        return dict(zip(BALANCE, self.tallies.balance.sum(axis=0).tolist(), strict=True))

    def energy_in(self, fraction: ArrayLike | None = None) -> tuple[float, float]:
        """Energy deposited in a region, and its standard uncertainty [eV per source photon].

        Parameters
        ----------
        fraction : array_like, shape [z, y, x], optional
            Fraction of each voxel that belongs to the region, or a mask; everything by default.
        """
        if self.tallies is None:
            raise InputError(
                "energy per region is tallied by the built-in engine alone. Sum dose times mass instead."
            )
        energy = self.tallies.energy_mev
        part = np.ones(self.grid.shape) if fraction is None else self.grid.check_array("fraction", fraction)
        sums = np.array([np.sum(batch * part, dtype=np.float64) for batch in energy]) * 1e6
        mean, variance = weighted_mean(sums[:, None], self.tallies.histories)
        return float(mean[0]), float(np.sqrt(variance[0]))

    def to_dose_map(self, *, max_gy: float | None = None, name: str = "") -> DoseMap:
        """The dose with its uncertainty and batches as a `DoseMap`.

        Parameters
        ----------
        max_gy : float, optional
            Scale the dose to this maximum [Gy]: the mean of the highest 0.1 % of voxels denser than air, less
            noisy than the highest one.
        name : str
        """
        equal = self.tallies is None or np.all(self.tallies.histories == self.tallies.histories[0])
        result = DoseMap(
            dose_gy=self.dose_gy,
            grid=self.grid,
            uncertainty_gy=self.uncertainty_gy,
            batches_gy=self.batches_gy if equal else None,
            density_g_per_cm3=self.density_g_per_cm3,
            unit=self.unit,
            name=name,
            source={"format": "simulation", "engine": self.config.engine, "histories": self.histories},
        )
        if max_gy is None:
            return result
        tissue = self.dose_gy[self.density_g_per_cm3 >= AIR_BELOW_G_PER_CM3]
        n = max(1, tissue.size // 1000)
        top = float(np.mean(np.partition(tissue, -n)[-n:]))
        return replace(result.scaled(max_gy / top), unit="Gy")

    def summary(self) -> dict[str, Any]:
        """A flat dict: one row of a study table."""
        return {
            "engine": self.config.engine,
            "estimator": self.config.estimator,
            "phantom": self.config.phantom.name,
            "histories": self.histories,
            "batches": self.config.batches,
            "seed": self.seed,
            "status": self.status,
            "max_dose": float(self.dose_gy.max()),
            "unit": self.unit,
            "mean_relative_uncertainty_percent": self.mean_relative_uncertainty_percent,
            "seconds": self.seconds,
            "cpu_seconds": self.cpu_seconds,
            "histories_per_s": self.histories / max(self.seconds, 1e-9),
        } | {f"provenance_{key}": value for key, value in provenance().items()}

    def records(self) -> dict[str, str]:
        """The RECORDS table of AAPM TG-268; see `dosemover.montecarlo.records`."""
        from dosemover.montecarlo.records import records_table

        return records_table(self)


def gray_per_mev(config: SimulationConfig, grid: Grid) -> NDArray[np.float64]:
    """Gy per MeV in each voxel, times the photons emitted; 0 in vacuum. Shape [z, y, x]."""
    mass = config.phantom.density_g_per_cm3 * (grid.voxel_volume_mm3 * 1e-3)
    with np.errstate(divide="ignore"):
        factor = np.where(mass > 0, GRAY_PER_MEV_PER_G / mass, 0.0)
    return factor * (1.0 if config.photons is None else config.photons)


def weighted_mean(
    sums: NDArray[Any], histories: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean per history over batches and the variance of that mean.

    D = sum S_b / N, var = sum n_b (S_b/n_b - D)^2 / (N (B - 1)).

    Parameters
    ----------
    sums : ndarray, shape (batch, ...)
        Sums over the histories of each batch.
    histories : ndarray of int, shape (batch,)
    """
    total = float(histories.sum())
    mean = sums.sum(axis=0, dtype=np.float64) / total
    variance = np.zeros(mean.shape)
    for batch, n in zip(sums, histories, strict=True):
        if n > 0:
            variance += n * (batch / n - mean) ** 2
    return mean, variance / (total * max(len(histories) - 1, 1))
