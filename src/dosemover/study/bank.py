"""Banks of simulated batches: written once, keyed by what they depend on, and never by order of work."""

from __future__ import annotations

import re
import time
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dosemover._files import atomic_write
from dosemover._runtime import available_cores
from dosemover.dose import DoseMap
from dosemover.grid import Grid
from dosemover.montecarlo import SimulationResult, config_from, simulate
from dosemover.montecarlo.photon_engine import cpu_time
from dosemover.study import analytic
from dosemover.study.design import Case, Change, digest, seed_of

FORMAT = 1
"""Changes when the same key would hold other numbers."""

REFERENCE, QUIET = "reference", "quiet"
"""Roles of a bank: noisy references, and single maps with so little noise that they stand for none;
noisy evaluated maps have the label of their change."""

EVENTS_AT_1_PERCENT = 10_000
"""Events in a voxel that give 1 % noise: what counts as histories of the analytic case."""


@dataclass(frozen=True, kw_only=True)
class Pilot:
    """What a short run of a case's unchanged beam tells.

    Parameters
    ----------
    histories_at_1_percent : float
        Histories of a map with 1 % noise in the high-dose region.
    gray : float
        Gy per unit of dose per photon, such that the maximum is the case's.
    cpu_seconds : float
    """

    histories_at_1_percent: float
    gray: float
    cpu_seconds: float

    def histories(self, percent: float, batches: int) -> int:
        """Histories of a map with that much noise, a multiple of its batches."""
        return batches * max(1, int(np.ceil(self.histories_at_1_percent / percent**2 / batches)))


def high_dose_noise_percent(dose: DoseMap, *, high_dose_percent: float) -> float:
    """Root mean square relative uncertainty of the voxels above a share of the maximum [%]."""
    assert dose.uncertainty_gy is not None
    high = dose.dose_gy > high_dose_percent / 100 * dose.max_gy
    return float(100 * np.sqrt(np.mean((dose.uncertainty_gy[high] / dose.dose_gy[high]) ** 2)))


def run_pilot(study_seed: int, case: Case) -> Pilot:
    """Simulate the unchanged beam for a moment."""
    if case.engine == "analytic":
        top = float(analytic.dose_of(case.document).max())
        return Pilot(histories_at_1_percent=EVENTS_AT_1_PERCENT, gray=case.max_gy / top, cpu_seconds=0.0)
    start = cpu_time()
    seed = seed_of(study_seed, case.name, "pilot")
    found = _simulated(case.document, case.pilot_histories, case.batches, seed)
    assert found.batches_gy is not None
    dose = DoseMap.from_batches(found.batches_gy, found.grid)
    noise = high_dose_noise_percent(dose, high_dose_percent=case.high_dose_percent)
    high = np.sort(dose.dose_gy[dose.dose_gy > 0.9 * dose.max_gy])
    return Pilot(
        histories_at_1_percent=found.histories * noise**2,
        gray=case.max_gy / float(high.mean()),
        cpu_seconds=cpu_time() - start,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class BankKey:
    """What a bank holds: maps of one variant of a case at one noise level.

    Parameters
    ----------
    study_seed : int
    case : Case
    change : Change
    role : str
        "reference", "quiet" or the label of the change.
    percent : float
        Noise level [%].
    replicates : int
    pilot : Pilot
    """

    study_seed: int
    case: Case
    change: Change
    role: str
    percent: float
    replicates: int
    pilot: Pilot

    @property
    def histories(self) -> int:
        """Histories of one map."""
        return self.pilot.histories(self.percent, self.case.batches)

    @property
    def factor(self) -> float:
        """Gy per unit of simulated dose."""
        return self.pilot.gray * self.case.dose_factor(self.change)

    @property
    def name(self) -> str:
        """File name without folder: readable words and a hash of everything that the bank depends on."""
        case = self.case
        key = digest(
            [
                FORMAT, self.study_seed, case.name, case.engine, case.variant(self.change), case.batches,
                case.high_dose_percent, self.role, self.change.label, self.percent, self.replicates,
                self.histories, self.factor,
            ]
        )  # fmt: skip
        words = f"{case.name} {self.role} {self.change.label} {self.percent:g}"
        return f"{re.sub('[^A-Za-z0-9.]+', '-', words)}-{key[:16]}.npz"

    def seed(self, replicate: int) -> int:
        """Seed of one replicate's batches; the engine counts batches and histories from there."""
        return seed_of(self.study_seed, self.case.name, self.role, self.change.label, self.percent, replicate)


@dataclass(frozen=True, kw_only=True, eq=False)
class Bank:
    """Maps of one variant at one noise level.

    Parameters
    ----------
    batches_gy : ndarray, shape [replicate, batch, z, y, x]
        Batch doses of each map [Gy].
    grid : Grid
    histories : int
        Of one map.
    noise_percent : float
        Root mean square relative uncertainty in the high-dose region over all maps [%].
    cpu_seconds, seconds : float
    """

    batches_gy: NDArray[np.float32]
    grid: Grid
    histories: int
    noise_percent: float
    cpu_seconds: float
    seconds: float

    def dose(self, replicate: int) -> DoseMap:
        """One map, its uncertainty from its batches."""
        return DoseMap.from_batches(self.batches_gy[replicate], self.grid)


def make_bank(key: BankKey, folder: Path) -> Path:
    """Simulate a bank, or find it: its file, written whole or not at all; a damaged one is made again."""
    path = folder / key.name
    if zipfile.is_zipfile(path):
        return path
    start, cpu_start = time.perf_counter(), cpu_time()
    single_threaded()
    maps, grid = [], None
    for replicate in range(key.replicates):
        batches, grid = _one_map(key, key.seed(replicate))
        maps.append(batches)
    assert grid is not None
    batches_gy = np.stack(maps)
    squares = [_noise(one, grid, key.case.high_dose_percent) ** 2 for one in batches_gy]
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        np.savez(
            file,
            batches_gy=batches_gy,
            z_mm=grid.edges_mm[0],
            y_mm=grid.edges_mm[1],
            x_mm=grid.edges_mm[2],
            facts=np.array(
                [
                    key.histories, np.sqrt(np.mean(squares)), cpu_time() - cpu_start,
                    time.perf_counter() - start,
                ]
            ),
        )  # fmt: skip
    return path


def read_bank(path: Path) -> Bank:
    """Read a bank."""
    with np.load(path) as data:
        histories, noise, cpu_seconds, seconds = data["facts"].tolist()
        return Bank(
            batches_gy=data["batches_gy"],
            grid=Grid(x_edges_mm=data["x_mm"], y_edges_mm=data["y_mm"], z_edges_mm=data["z_mm"]),
            histories=int(histories),
            noise_percent=noise,
            cpu_seconds=cpu_seconds,
            seconds=seconds,
        )


def read_facts(path: Path) -> dict[str, float]:
    """Histories of one map, noise reached [%] and time of a bank, without its maps."""
    with zipfile.ZipFile(path) as archive, archive.open("facts.npy") as file:
        facts = np.lib.format.read_array(file)
    return dict(zip(("histories", "noise_percent", "cpu_seconds", "seconds"), facts.tolist(), strict=True))


def single_threaded() -> None:
    """Let kernels of this process run on one thread: workers share the cores already."""
    import numba

    if numba.get_num_threads() > 1 and available_cores() >= 1:
        numba.set_num_threads(1)


def _noise(batches: NDArray[Any], grid: Grid, high_dose_percent: float) -> float:
    """Noise of one map in the high-dose region [%]."""
    return high_dose_noise_percent(DoseMap.from_batches(batches, grid), high_dose_percent=high_dose_percent)


def _one_map(key: BankKey, seed: int) -> tuple[NDArray[np.float32], Grid]:
    """Batches of one map [Gy]."""
    case, document = key.case, key.case.variant(key.change)
    if case.engine == "analytic":
        dose = analytic.dose_of(document) * key.factor
        rng = np.random.default_rng(seed)
        variance = _white_variance(dose, key.percent, case.high_dose_percent)
        batches = analytic.noisy(dose, variance=variance, batches=case.batches, rng=rng)
        return batches.astype(np.float32), analytic.grid_of(document)
    found = _simulated(document, key.histories, case.batches, seed)
    assert found.batches_gy is not None
    return (found.batches_gy * key.factor).astype(np.float32), found.grid


def _white_variance(dose: NDArray[Any], percent: float, high_dose_percent: float) -> NDArray[np.float64]:
    """Variance in proportion to the dose, whose noise in the high-dose region is as asked for."""
    high = dose > high_dose_percent / 100 * dose.max()
    scale = (percent / 100) ** 2 / float(np.mean(1 / dose[high]))
    return scale * dose


def _simulated(document: Mapping[str, Any], histories: int, batches: int, seed: int) -> SimulationResult:
    """Run the engine of a case."""
    return simulate(config_from(document), histories=histories, batches=batches, seed=seed)
