"""What the adapters of external engines share: the loop over batches, stop rules, and the result."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dosemover._runtime import Progress
from dosemover.errors import InputError
from dosemover.montecarlo.photon_engine import cpu_time
from dosemover.montecarlo.result import SimulationResult
from dosemover.montecarlo.settings import SimulationConfig

StopRule = Callable[[SimulationResult], bool]


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """One batch of an external engine.

    Parameters
    ----------
    dose_gy : ndarray, shape [z, y, x]
        Dose per source particle [Gy].
    variance_gy2 : ndarray, shape [z, y, x], or None
        Variance of that dose by the engine's own statistics [Gy^2]; None: told by the spread of the batches.
    histories : int
        Source particles simulated.
    """

    dose_gy: NDArray[Any]
    variance_gy2: NDArray[Any] | None
    histories: int


@dataclass(frozen=True, kw_only=True, eq=False)
class ExternalEngine:
    """How to run one engine.

    Parameters
    ----------
    run : callable
        ``run(batch number) -> Batch``.
    cancel : callable
        Ends what is running.
    at_once : int
        Batches that run side by side.
    limits, messages : tuple of str
        As in `SimulationResult`.
    """

    run: Callable[[int], Batch]
    cancel: Callable[[], None]
    at_once: int
    limits: tuple[str, ...]
    messages: tuple[str, ...]


def combined(
    config: SimulationConfig,
    engine: ExternalEngine,
    done: Sequence[Batch],
    *,
    start: tuple[float, float],
    status: str,
) -> SimulationResult:
    """Result of the batches so far; ``start`` holds the wall and processor time at the beginning."""
    doses = np.stack([batch.dose_gy for batch in done])
    own = [batch.variance_gy2 for batch in done if batch.variance_gy2 is not None]
    variance = np.sum(own, axis=0) / len(done) if len(own) == len(done) else doses.var(axis=0, ddof=1)
    scale = 1.0 if config.photons is None else config.photons
    histories = sum(batch.histories for batch in done)
    return SimulationResult(
        config=replace(config, batches=len(done), histories=histories),
        grid=config.phantom.grid,
        dose_gy=doses.mean(axis=0, dtype=np.float64) * scale,
        uncertainty_gy=np.sqrt(variance / len(done)) * scale,
        batches_gy=(doses * scale).astype(np.float32),
        density_g_per_cm3=config.phantom.density_g_per_cm3,
        histories=histories,
        seconds=time.perf_counter() - start[0],
        cpu_seconds=cpu_time() - start[1],
        status=status,
        limits=engine.limits,
        messages=engine.messages,
    )


def run_batches(
    config: SimulationConfig, engine: ExternalEngine, *, progress: Progress, stop: StopRule | None
) -> SimulationResult:
    """Run the batches of an external engine until all are done or a goal is met.

    Stop rules are asked between batches, from the second on. Ctrl-C keeps the batches that are done, where
    there are two.
    """
    start, status = (time.perf_counter(), cpu_time()), "complete"
    done: list[Batch] = []
    with ThreadPoolExecutor(engine.at_once) as pool:
        try:
            while len(done) < config.batches and status == "complete":
                numbers = range(len(done), min(len(done) + engine.at_once, config.batches))
                # a single batch runs in this thread, so that Ctrl-C reaches it
                done.extend(pool.map(engine.run, numbers) if len(numbers) > 1 else map(engine.run, numbers))
                progress("simulate", len(done) / config.batches)
                done, status = _checked(config, engine, done, first=numbers.start, start=start, stop=stop)
        except KeyboardInterrupt:
            engine.cancel()
            if len(done) < 2:
                raise
            status = "interrupted"
    return combined(config, engine, done, start=start, status=status)


def _checked(
    config: SimulationConfig,
    engine: ExternalEngine,
    done: list[Batch],
    *,
    first: int,
    start: tuple[float, float],
    stop: StopRule | None,
) -> tuple[list[Batch], str]:
    """Batches to keep, and the status: goals are asked after each in turn, whatever ran side by side."""
    goal = config.uncertainty_goal_percent
    if stop is not None or goal is not None:
        for n in range(max(first + 1, 2), min(len(done), config.batches - 1) + 1):
            result = combined(config, engine, done[:n], start=start, status="running")
            own = stop is not None and stop(result)
            if own or (goal is not None and result.mean_relative_uncertainty_percent <= goal):
                return done[:n], "goal reached"
    late = config.max_seconds is not None and time.perf_counter() - start[0] > config.max_seconds
    return done, "time limit" if late and 2 <= len(done) < config.batches else "complete"


def check_transport(config: SimulationConfig, name: str) -> None:
    """Refuse settings that belong to the built-in engine."""
    if config.uses_rays or config.variance_reduction.super_voxels or config.history_by_history:
        raise InputError(
            f"{name} has its own transport: `estimator`, `history_by_history` and variance reduction belong "
            f"to the built-in engine. Leave them out for engine {config.engine!r}."
        )
