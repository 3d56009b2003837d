"""The photon engine on a CUDA device: the CPU's own device functions, with integer tallies.

Deposits are added as whole numbers of a fixed quantum of energy, so that their sum does not depend on the
order in which threads come by: the same seed gives the same dose on any device, equal to the CPU's up to
the quantum. Needs a CUDA device and its toolkit; Numba's simulator (``NUMBA_ENABLE_CUDASIM=1`` together with
``NUMBA_DISABLE_JIT=1``) runs the same kernel slowly on the CPU.
"""

from __future__ import annotations

import math
import time
import types
from typing import Any

import numpy as np
from numba import cuda as _numba_cuda
from numpy.typing import NDArray

from dosemover._runtime import Progress, no_progress
from dosemover.errors import InputError, MissingDependencyError
from dosemover.montecarlo import ray_kernels, woodcock_kernels
from dosemover.montecarlo.materials import HIGHEST_MEV
from dosemover.montecarlo.photon_engine import PhotonEngine, cpu_time, result_of
from dosemover.montecarlo.result import SimulationResult, Tallies
from dosemover.montecarlo.rng_kernels import stream
from dosemover.montecarlo.settings import SimulationConfig
from dosemover.montecarlo.woodcock_kernels import N_BALANCE, STACK_SHAPE

cuda: Any = _numba_cuda

THREADS_PER_BLOCK = 128
HISTORIES_PER_THREAD = 64
MOST_MATERIALS = 256
RAY_STACK_SHAPE = (16, 10)
"""Photons waiting in a thread: without splitting, one annihilation photon per pair."""


def quantum_per_mev(histories: int) -> float:
    """Tally units per MeV, a power of two, so that no 64-bit sum can overflow."""
    return 2.0 ** math.floor(62 - math.log2(max(histories, 1) * HIGHEST_MEV))


def _score(voxel, energy, history, tally, square, current, last):
    """Add energy as whole quanta; ``square``, not tallied here, is the number of quanta per MeV."""
    cuda.atomic.add(tally, voxel, np.int64(energy * square + 0.5))


def _kernel(
    seed, batch, n_batches, stop, beams, cumulative, spectra, particles, box, medium, blocks, palette,
    section, maximum, incoherent, form, cutoff, tally, scale, balance,
):  # fmt: skip
    """Every so many-th history of a batch in each thread."""
    stack = cuda.local.array(STACK_SHAPE, np.float64)
    mine = cuda.local.array(N_BALANCE, np.float64)
    for k in range(N_BALANCE):
        mine[k] = 0.0
    history = cuda.grid(1)
    while history < stop:
        s, g = stream(np.uint64(seed), np.uint64(batch), np.uint64(history))
        _track(
            history * n_batches + batch, history, s, g, beams, cumulative, spectra, particles, box, medium,
            blocks, palette, section, maximum, incoherent, form, None, 1, cutoff, stack, tally, scale, None,
            None, None, None, mine,
        )  # fmt: skip
        history += cuda.gridsize(1)
    for k in range(N_BALANCE):
        cuda.atomic.add(balance, k, mine[k])


def _ray_kernel(
    seed, batch, n_batches, stop, beams, cumulative, spectra, particles, box, medium, section, incoherent,
    form, options, cutoff, tally, scale, balance,
):  # fmt: skip
    """Likewise by rays from voxel to voxel, for the track-length estimator."""
    stack = cuda.local.array(RAY_STACK_SHAPE, np.float64)
    attenuation = cuda.local.array(MOST_MATERIALS, np.float64)
    transfer = cuda.local.array(MOST_MATERIALS, np.float64)
    mine = cuda.local.array(N_BALANCE, np.float64)
    for k in range(N_BALANCE):
        mine[k] = 0.0
    history = cuda.grid(1)
    while history < stop:
        s, g = stream(np.uint64(seed), np.uint64(batch), np.uint64(history))
        _track_rays(
            history * n_batches + batch, history, s, g, beams, cumulative, spectra, particles, box, medium,
            section, incoherent, form, None, options, cutoff, stack, attenuation, transfer, tally, scale,
            None, None, None, None, mine,
        )  # fmt: skip
        history += cuda.gridsize(1)
    for k in range(N_BALANCE):
        cuda.atomic.add(balance, k, mine[k])


def _rebuilt(function: Any, **replaced: Any) -> Any:
    """A device function of the CPU with some of the functions that it calls replaced."""
    source = getattr(function, "py_func", function)
    scope = {**source.__globals__, **replaced}
    return cuda.jit(device=True)(types.FunctionType(source.__code__, scope, source.__name__))


_atomic_score = cuda.jit(device=True)(_score)
_track = _rebuilt(woodcock_kernels.track_history, score=_atomic_score)
_walk = _rebuilt(ray_kernels.walk, score=_atomic_score)
_track_rays = _rebuilt(
    ray_kernels.track_ray_history,
    weighted_flight=_rebuilt(ray_kernels.weighted_flight, walk=_walk),
    interact=_rebuilt(ray_kernels.interact, score=_atomic_score),
)


def _check(config: SimulationConfig) -> None:
    """Refuse what the device cannot do here."""
    reduction = config.variance_reduction
    if reduction.needs_rays or reduction.super_voxels or config.history_by_history:
        raise InputError(
            "the CUDA engine runs the analog and the track-length estimator with batch statistics; other "
            "variance reduction and sums history by history belong to the built-in engine. Leave them out, "
            "or set engine to 'builtin'."
        )
    if not cuda.is_available():
        raise MissingDependencyError(
            "no CUDA device was found. The engine 'cuda' needs an NVIDIA GPU, its driver and toolkit. "
            "Use engine 'builtin', which gives the same dose."
        )


def _kernel_and_tables(engine: PhotonEngine) -> tuple[Any, list[Any]]:
    """The kernel of the estimator, and the arrays that it reads, on the device."""
    if engine.config.uses_rays:
        _, options = engine.reduction
        return _ray_kernel, [*engine.source, *engine.medium, engine.section, *engine.physics, options]
    media = (*engine.source, *engine.medium, *engine.blocks)
    return _kernel, [*media, engine.section, engine.maximum, *engine.physics]


def run_cuda(config: SimulationConfig, *, progress: Progress = no_progress) -> SimulationResult:
    """Run the photon engine on a CUDA device; arguments as `dosemover.montecarlo.simulate`.

    Raises
    ------
    MissingDependencyError
        When there is no CUDA device.
    InputError
        For settings that only the CPU engine knows.
    """
    _check(config)
    start, cpu_start = time.perf_counter(), cpu_time()
    engine = PhotonEngine(config)
    histories = -(-config.histories // config.batches)
    scale = quantum_per_mev(histories)
    function, arrays = _kernel_and_tables(engine)
    kernel: Any = cuda.jit(function)
    tables = [cuda.to_device(array) for array in arrays]
    blocks = max(1, -(-histories // (THREADS_PER_BLOCK * HISTORIES_PER_THREAD)))
    energy, balance = [], np.zeros((config.batches, N_BALANCE))
    for b in range(config.batches):
        tally = cuda.to_device(np.zeros(config.phantom.grid.n_voxels, dtype=np.int64))
        sums = cuda.to_device(np.zeros(N_BALANCE))
        with np.errstate(over="ignore"):
            kernel[blocks, THREADS_PER_BLOCK](
                np.uint64(config.seed), b, config.batches, histories, *tables,
                config.photon_cutoff_mev, tally, scale, sums,
            )  # fmt: skip
        energy.append(_to_mev(tally.copy_to_host(), scale, config))
        balance[b] = sums.copy_to_host()
        progress("simulate", (b + 1) / config.batches)
    tallies = Tallies(
        energy_mev=np.stack(energy),
        square_mev2=np.zeros((config.batches, 0)),
        histories=np.full(config.batches, histories),
        balance=balance,
        seeds=np.stack([np.full(config.batches, config.seed), np.arange(config.batches)], axis=1),
    )
    return result_of(
        config,
        tallies,
        seconds=time.perf_counter() - start,
        cpu_seconds=cpu_time() - cpu_start,
        status="complete",
    )


def _to_mev(tally: NDArray[Any], scale: float, config: SimulationConfig) -> NDArray[np.float64]:
    """Energy [MeV] from whole numbers of quanta, shape [z, y, x]."""
    return tally.reshape(config.phantom.grid.shape) / scale
