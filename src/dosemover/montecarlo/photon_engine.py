"""The built-in photon engine: tables and tallies for the kernels, and the loop over chunks of histories."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from dosemover._runtime import Progress, available_cores, no_progress
from dosemover.errors import InputError
from dosemover.montecarlo import ray_kernels, source_kernels, woodcock_kernels
from dosemover.montecarlo.materials import photon_tables
from dosemover.montecarlo.result import (
    SimulationResult,
    Tallies,
    gray_per_mev,
    weighted_mean,
)
from dosemover.montecarlo.settings import SimulationConfig
from dosemover.montecarlo.sources import source_tables

MAJORANT_GROUPS = 16
"""Energy groups of the super-voxel majorants."""

PALETTE = 4096
"""Most rows of the palette of equal blocks."""

FIRST_CHECK = 1000
"""Histories per batch before stop rules are first asked; then 1.25 times as many each time."""

CHUNK_SECONDS = 0.5
"""Kernel calls are sized to take about this long, so that progress shows and Ctrl-C is heard."""

SAMPLE_BUFFER = 32768
"""Deposits per batch that are gathered before a consumer gets them."""

KERMA_LIMITS = (
    "Photons only: electrons deposit their energy where they start (kerma). Right for kV and brachytherapy "
    "energies, and for Co-60-like energies away from surfaces and interfaces; there is no build-up.",
    "No fluorescence, no Doppler broadening, no bremsstrahlung escape; pair positrons annihilate at rest.",
)
MV_LIMIT = (
    "The source holds photons above 1.4 MeV: the dose at surfaces is several times too high and lung and "
    "interfaces lack electronic disequilibrium. This is not an MV dose; use the ompMC engine for one."
)


class DepositConsumer(Protocol):
    """Takes energy deposits as they are simulated, so that they need not be stored."""

    def deposits(self, batch: int, position_mm: NDArray[np.float64], energy_mev: NDArray[np.float64]) -> None:
        """Take deposits of one batch: positions (x, y, z) [mm], shape (n, 3), energies [MeV], shape (n,)."""
        ...


def limits_of(config: SimulationConfig) -> tuple[str, ...]:
    """What a kerma dose of this source does not contain."""
    tables = source_tables(config.photon_sources)
    energies = np.concatenate([tables.spectra[:, 0], tables.particles[:, 6]])
    return (*KERMA_LIMITS, MV_LIMIT) if energies.max() > 1.4 else KERMA_LIMITS


def kernel_box(config: SimulationConfig) -> NDArray[np.float64]:
    """Low corner, voxel size, number of voxels and voxels per mm along x, y, z."""
    grid = config.phantom.grid
    low = [box[0] for box in grid.box_mm[::-1]]
    high = [box[1] for box in grid.box_mm[::-1]]
    n = grid.shape[::-1]
    size = [(b - a) / m for a, b, m in zip(low, high, n, strict=True)]
    return np.array([*low, *size, *n, *(1 / h for h in size)], dtype=np.float64)


def material_maximum(config: SimulationConfig) -> NDArray[np.float64]:
    """Largest density of each material in the phantom [g/cm3]."""
    phantom = config.phantom
    result = np.zeros(len(phantom.materials))
    np.maximum.at(result, phantom.material.ravel(), phantom.density_g_per_cm3.ravel())
    return result


def super_voxel_scale(
    config: SimulationConfig, total: NDArray[Any], maximum: NDArray[Any]
) -> NDArray[np.float64]:
    """Majorant of each block over the phantom's, shape [block z, y, x, energy group].

    The largest ratio over the energies of the group, so that it holds at all of them (Behlouli 2018: each
    super-voxel knows its own most attenuating material).
    """
    side = config.variance_reduction.super_voxels
    phantom = config.phantom
    blocks = tuple(-(-n // side) for n in phantom.grid.shape)
    scale = np.zeros((*blocks, MAJORANT_GROUPS))
    padded = [(0, b * side - n) for b, n in zip(blocks, phantom.grid.shape, strict=True)]
    edges = np.arange(MAJORANT_GROUPS + 1) * maximum.size // MAJORANT_GROUPS
    for m in range(len(phantom.materials)):
        rho = np.pad(np.where(phantom.material == m, phantom.density_g_per_cm3, 0.0), padded)
        rho = rho.reshape(blocks[0], side, blocks[1], side, blocks[2], side).max(axis=(1, 3, 5))
        for group in range(MAJORANT_GROUPS):
            inside = slice(max(edges[group] - 1, 0), edges[group + 1] + 2)
            ratio = np.max(total[m, inside] / maximum[inside])
            np.maximum(scale[..., group], rho * ratio, out=scale[..., group])
    return scale * (1 + 1e-12)


def equal_blocks(config: SimulationConfig) -> tuple[NDArray[np.int16], NDArray[np.float64]]:
    """Palette row of each block of 8^3 equal voxels, -1 for other blocks, shape [block z, y, x]; the palette.

    The palette's rows are density [g/cm3] and material.
    """
    phantom = config.phantom
    side = 1 << woodcock_kernels.BLOCK_BITS
    padded = [(0, -n % side) for n in phantom.grid.shape]
    lowest, highest = [], []
    for values in (phantom.density_g_per_cm3, phantom.material):
        whole = np.pad(values, padded, mode="edge")
        a, b, c = (n // side for n in whole.shape)
        cells = whole.reshape(a, side, b, side, c, side)
        lowest.append(cells.min(axis=(1, 3, 5)).astype(np.float64))
        highest.append(cells.max(axis=(1, 3, 5)).astype(np.float64))
    equal = (lowest[0] == highest[0]) & (lowest[1] == highest[1])
    blocks = np.full(equal.shape, -1, dtype=np.int16)
    if not np.any(equal):
        return blocks, np.zeros((1, 2))
    palette, row = np.unique(np.stack([low[equal] for low in lowest], axis=1), axis=0, return_inverse=True)
    blocks[equal] = np.where(row.ravel() < PALETTE, row.ravel(), -1)
    return blocks, np.ascontiguousarray(palette[:PALETTE])


def check_sources(config: SimulationConfig, box: NDArray[np.float64]) -> None:
    """Refuse a source none of whose particles meets the phantom."""
    tables = source_tables(config.photon_sources)
    sampled, beam = np.empty((4096, 8)), np.empty(4096, dtype=np.int64)
    distance = np.empty(4096)
    for n in range(len(config.sources)):
        row = tables.rows[n : n + 1]
        with np.errstate(over="ignore"):
            source_kernels.sample_sources(
                np.uint64(config.seed), row, np.ones(1), tables.spectra, tables.particles, sampled, beam
            )
        source_kernels.box_distances(sampled, box, distance)
        if np.all(distance == source_kernels.MISSED):
            low, high = box[:3], box[:3] + box[3:6] * box[6:9]
            raise InputError(
                f"source {n + 1} of {len(config.sources)} misses the phantom: none of 4096 particles, which "
                f"start around {np.round(sampled[:, :3].mean(axis=0), 1).tolist()} mm and fly toward "
                f"{np.round(sampled[:, 3:6].mean(axis=0), 2).tolist()}, meets the box from "
                f"{np.round(low, 1).tolist()} to {np.round(high, 1).tolist()} mm. There would be no dose. "
                "Check its isocentre, gantry angle and field."
            )


class PhotonEngine:
    """Kernel arguments and tallies of one configuration.

    Parameters
    ----------
    config : SimulationConfig
    tallies : Tallies, optional
        Sums to continue from.
    streaming : bool
        Gather deposits for a consumer.
    """

    def __init__(
        self, config: SimulationConfig, *, tallies: Tallies | None = None, streaming: bool = False
    ) -> None:
        self.config = config
        self.box = kernel_box(config)
        check_sources(config, self.box)
        tables = photon_tables(config.phantom.materials)
        source = source_tables(config.photon_sources)
        total = tables.section[:, :, 3]
        maximum = np.ascontiguousarray((total * material_maximum(config)[:, None]).max(axis=0) * (1 + 1e-12))
        self.source = (source.rows, source.cumulative, source.spectra, source.particles)
        phantom = config.phantom
        medium = np.stack([phantom.density_g_per_cm3.ravel(), phantom.material.ravel()], axis=1)
        self.medium = (self.box, medium.astype(np.float32))
        self.section, self.maximum = tables.section, maximum
        self.blocks = equal_blocks(config)
        self.physics = (tables.incoherent, tables.rayleigh)
        self.reduction = self._reduction(total)
        batches, n = config.batches, config.phantom.grid.n_voxels
        if tallies is None:
            self.tally = np.zeros((batches, n))
            self.square = np.zeros((batches, n if config.history_by_history else 0))
            self.balance = np.zeros((batches, woodcock_kernels.N_BALANCE))
            self.done = np.zeros(batches, dtype=np.int64)
        else:
            self.tally = tallies.energy_mev.reshape(batches, n).copy()
            self.square = tallies.square_mev2.reshape(batches, -1).copy()
            self.balance, self.done = tallies.balance.copy(), tallies.histories.copy()
        shape = ray_kernels.STACK_SHAPE if config.uses_rays else woodcock_kernels.STACK_SHAPE
        self.stack = np.empty((batches, *shape))
        self.scratch = np.empty((batches, 2, len(config.phantom.materials)))
        waiting = (batches, 1 + 2 * woodcock_kernels.WAITING)
        self.current = np.zeros(self.square.shape if config.history_by_history else waiting)
        self.last = np.full(self.square.shape, -1, dtype=np.int64) if config.history_by_history else None
        self.samples = np.empty((batches, SAMPLE_BUFFER, 4)) if streaming else None
        self.filled = np.zeros((batches, 1), dtype=np.int64)

    def _reduction(self, total: NDArray[Any]) -> tuple[Any, ...]:
        """The arguments that differ between Woodcock and ray tracking."""
        config = self.config
        reduction = config.variance_reduction
        if config.uses_rays:
            options = np.zeros(ray_kernels.N_OPTIONS)
            options[ray_kernels.TRACK_LENGTH] = float(config.estimator == "track_length")
            options[ray_kernels.FORCED] = reduction.forced_interactions
            options[ray_kernels.STRETCH] = reduction.stretch
            options[ray_kernels.STRETCH_U : ray_kernels.STRETCH_U + 3] = reduction.stretch_direction
            options[ray_kernels.ROULETTE] = reduction.roulette_weight if reduction.needs_rays else 0.0
            importance = reduction.importance
            if importance is not None:
                importance = np.ascontiguousarray(importance, dtype=np.float64).ravel()
            return importance, options
        if reduction.super_voxels:
            return super_voxel_scale(config, total, self.maximum), reduction.super_voxels
        return None, 1

    def advance(self, stop: int) -> None:
        """Simulate every batch up to ``stop`` histories, or until its sample buffer is full.

        Ctrl-C is heard when all of them are there: a tally and its number of histories always agree.
        """
        with deferred_interrupt(), np.errstate(over="ignore"), ThreadPoolExecutor(thread_count()) as pool:
            self.done = np.array(
                list(pool.map(lambda b: self._advance_batch(b, stop), range(self.config.batches)))
            )

    def _advance_batch(self, b: int, stop: int) -> Any:
        """Simulate one batch, in the calling thread."""
        config = self.config

        def of(array: NDArray[Any] | None) -> NDArray[Any] | None:
            return None if array is None else array[b]

        head: tuple[Any, ...] = (np.uint64(config.seed), b, config.batches, int(self.done[b]), stop)
        head = (*head, *self.source, *self.medium)
        square = self.square[b] if config.history_by_history else None
        kept = (square, of(self.current), of(self.last), of(self.samples), self.filled[b])
        sums: tuple[Any, ...] = (self.tally[b], *kept, self.balance[b])
        cutoff, stack = config.photon_cutoff_mev, self.stack[b]
        if config.uses_rays:
            run = cast(Any, ray_kernels.run_ray_batch)
            return run(
                *head, self.section, *self.physics, *self.reduction, cutoff, stack, *self.scratch[b], *sums
            )
        run = cast(Any, woodcock_kernels.run_batch)
        return run(
            *head,
            *self.blocks,
            self.section,
            self.maximum,
            *self.physics,
            *self.reduction,
            cutoff,
            stack,
            *sums,
        )

    def hand_over(self, consumer: DepositConsumer) -> None:
        """Give the gathered deposits to the consumer, batch by batch."""
        assert self.samples is not None
        for batch in range(self.config.batches):
            rows = self.samples[batch, : self.filled[batch, 0]]
            if rows.shape[0]:
                consumer.deposits(batch, rows[:, :3].copy(), rows[:, 3].copy())
        self.filled[:] = 0

    def tallies(self) -> Tallies:
        """The sums so far."""
        shape = (self.config.batches, *self.config.phantom.grid.shape)
        seeds = np.stack([np.full(shape[0], self.config.seed), np.arange(shape[0])], axis=1)
        square = self.square if self.square.size == 0 else self.square.reshape(shape)
        return Tallies(
            energy_mev=self.tally.reshape(shape),
            square_mev2=square,
            histories=self.done,
            balance=self.balance,
            seeds=seeds,
        )


def result_of(
    config: SimulationConfig, tallies: Tallies, *, seconds: float, cpu_seconds: float, status: str
) -> SimulationResult:
    """Dose, uncertainty and batches from tallies."""
    factor = gray_per_mev(config, config.phantom.grid)
    mean, variance = weighted_mean(tallies.energy_mev, tallies.histories)
    counts = np.maximum(tallies.histories, 1)[:, None, None, None]
    return SimulationResult(
        config=config,
        grid=config.phantom.grid,
        dose_gy=mean * factor,
        uncertainty_gy=np.sqrt(variance) * factor,
        batches_gy=(tallies.energy_mev / counts * factor).astype(np.float32),
        density_g_per_cm3=config.phantom.density_g_per_cm3,
        histories=int(tallies.histories.sum()),
        seconds=seconds,
        cpu_seconds=cpu_seconds,
        status=status,
        limits=limits_of(config),
        tallies=tallies,
    )


def thread_count() -> int:
    """Threads to use: ``NUMBA_NUM_THREADS`` where set, else the cores of this process."""
    return int(os.environ.get("NUMBA_NUM_THREADS", "0")) or available_cores()


def cpu_time() -> float:
    """Processor time of this process and its children [s]."""
    t = os.times()
    return t.user + t.system + t.children_user + t.children_system


@contextmanager
def deferred_interrupt() -> Iterator[None]:
    """Hold Ctrl-C back until the block is done, so that what it changes stays whole."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Ctrl-C is raised in the main thread alone
        return
    heard: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: heard.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler if before is None else before)
    if heard and before is not signal.SIG_IGN:
        signal.raise_signal(signal.SIGINT)


def run_photons(
    config: SimulationConfig,
    *,
    progress: Progress = no_progress,
    stop: Callable[[SimulationResult], bool] | None = None,
    resume: SimulationResult | None = None,
    consumer: DepositConsumer | None = None,
) -> SimulationResult:
    """Run the built-in engine; see `dosemover.montecarlo.simulate`."""
    before = (0.0, 0.0) if resume is None else (resume.seconds, resume.cpu_seconds)
    engine = PhotonEngine(
        config, tallies=None if resume is None else resume.tallies, streaming=consumer is not None
    )
    goal = -(-config.histories // config.batches)
    start, cpu_start = time.perf_counter(), cpu_time()

    def so_far(status: str) -> SimulationResult:
        return result_of(
            config,
            engine.tallies(),
            seconds=before[0] + time.perf_counter() - start,
            cpu_seconds=before[1] + cpu_time() - cpu_start,
            status=status,
        )

    status = "complete"
    try:
        status = _loop(engine, goal, so_far, progress=progress, stop=stop, consumer=consumer)
    except KeyboardInterrupt:
        status = "interrupted"
    return so_far(status)


def _loop(
    engine: PhotonEngine,
    goal: int,
    so_far: Callable[[str], SimulationResult],
    *,
    progress: Progress,
    stop: Callable[[SimulationResult], bool] | None,
    consumer: DepositConsumer | None,
) -> str:
    """Chunks of histories until the goal; stop rules are asked at fixed numbers of histories."""
    config = engine.config
    check = FIRST_CHECK
    chunk, start = 64, time.perf_counter()
    while engine.done.min() < goal:
        done = int(engine.done.min())
        while check <= done:
            check = int(check * 1.25)
        tick = time.perf_counter()
        end = min(done + chunk, check, goal)
        engine.advance(end)
        while consumer is not None:
            engine.hand_over(consumer)
            if engine.done.min() >= end:
                break
            engine.advance(end)
        took = max(time.perf_counter() - tick, 1e-6)
        chunk = max(16, int(min(4.0, CHUNK_SECONDS / took) * chunk))
        progress("simulate", min(1.0, end / goal))
        if end == check and end < goal and _good_enough(config, so_far, stop):
            return "goal reached"
        if config.max_seconds is not None and time.perf_counter() - start > config.max_seconds:
            return "complete" if end >= goal else "time limit"
    return "complete"


def _good_enough(
    config: SimulationConfig,
    so_far: Callable[[str], SimulationResult],
    stop: Callable[[SimulationResult], bool] | None,
) -> bool:
    """Whether the uncertainty goal or the caller's stop rule is met."""
    if config.uncertainty_goal_percent is None and stop is None:
        return False
    result = so_far("running")
    if stop is not None and stop(result):
        return True
    goal = config.uncertainty_goal_percent
    return goal is not None and result.mean_relative_uncertainty_percent <= goal
