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
from dosemover.montecarlo import woodcock_kernels
from dosemover.montecarlo.materials import HIGHEST_MEV
from dosemover.montecarlo.photon_engine import PhotonEngine, cpu_time, result_of
from dosemover.montecarlo.result import SimulationResult, Tallies
from dosemover.montecarlo.rng_kernels import stream
from dosemover.montecarlo.settings import SimulationConfig
from dosemover.montecarlo.woodcock_kernels import N_BALANCE, STACK_SHAPE

cuda: Any = _numba_cuda

THREADS_PER_BLOCK = 128
HISTORIES_PER_THREAD = 64


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


def _device_track() -> Any:
    """``track_history`` of the CPU with the atomic score in the place of its own."""
    track: Any = woodcock_kernels.track_history
    function = getattr(track, "py_func", track)
    scope = {**function.__globals__, "score": cuda.jit(device=True)(_score)}
    return cuda.jit(device=True)(types.FunctionType(function.__code__, scope, "track_history"))


_track = _device_track()


def _check(config: SimulationConfig) -> None:
    """Refuse what the device cannot do here."""
    if config.uses_rays or config.variance_reduction.super_voxels or config.history_by_history:
        raise InputError(
            "the CUDA engine runs the analog estimator with batch statistics; variance reduction and sums "
            "history by history belong to the built-in engine. Leave them out, or set engine to 'builtin'."
        )
    if not cuda.is_available():
        raise MissingDependencyError(
            "no CUDA device was found. The engine 'cuda' needs an NVIDIA GPU, its driver and toolkit. "
            "Use engine 'builtin', which gives the same dose."
        )


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
    kernel: Any = cuda.jit(_kernel)
    arrays = (*engine.source, *engine.medium, *engine.blocks, engine.section, engine.maximum)
    fixed = [cuda.to_device(a) for a in arrays]
    tables = [cuda.to_device(a) for a in engine.physics]
    blocks = max(1, -(-histories // (THREADS_PER_BLOCK * HISTORIES_PER_THREAD)))
    energy, balance = [], np.zeros((config.batches, N_BALANCE))
    for b in range(config.batches):
        tally = cuda.to_device(np.zeros(config.phantom.grid.n_voxels, dtype=np.int64))
        sums = cuda.to_device(np.zeros(N_BALANCE))
        with np.errstate(over="ignore"):
            kernel[blocks, THREADS_PER_BLOCK](
                np.uint64(config.seed), b, config.batches, histories, *fixed, *tables,
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
