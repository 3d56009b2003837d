"""Running a simulation, continuing one, merging several, and writing what came out."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from dosemover._files import atomic_write
from dosemover._runtime import Progress, no_progress
from dosemover.errors import DosemoverError, InputError
from dosemover.montecarlo.result import SimulationResult, Tallies
from dosemover.montecarlo.settings import SimulationConfig

STATE_FILE = "state.npz"


_TALLIES = ("energy_mev", "square_mev2", "histories", "balance", "seeds")
"""Arrays of a saved state."""


def simulate(
    config: SimulationConfig,
    *,
    histories: float | None = None,
    batches: int | None = None,
    seed: int | None = None,
    progress: Progress | None = None,
    stop: Callable[[SimulationResult], bool] | None = None,
    resume: SimulationResult | None = None,
    consumer: Any = None,
) -> SimulationResult:
    """Simulate a configuration.

    Parameters
    ----------
    config : SimulationConfig
    histories, batches, seed : optional
        Override those of the configuration.
    progress : callable, optional
        ``progress(what, fraction)``.
    stop : callable, optional
        Stop rule: gets the `SimulationResult` so far and returns whether it is good enough. Asked at fixed
        numbers of histories (1000 per batch, then 1.25 times as many), so that it ends at the same bits on
        any machine; external engines ask it between batches, the CUDA engine never.
    resume : SimulationResult, optional
        An earlier result of the same configuration, which is continued: the bits are those of one run.
    consumer : DepositConsumer, optional
        Gets every energy deposit as it happens (analog estimator of the built-in engine).

    Returns
    -------
    SimulationResult
        On Ctrl-C with status "interrupted" and what was simulated so far.

    Raises
    ------
    InputError
        When a source misses the phantom, or ``resume`` belongs to another configuration.
    MissingDependencyError
        When the engine is not installed.

    Notes
    -----
    *Cost*: about 1 to 2 million photons per second on two cores in a water tank, analog.

    References
    ----------
    Woodcock et al. 1965 (tracking); TG-105 (Chetty et al. 2007); TG-268 (Sechopoulos et al. 2018).

    Examples
    --------
    >>> from dosemover.montecarlo import Beam, Spectrum, water_tank
    >>> beam = Beam(spectrum=Spectrum.mono(0.1), field_mm=50.0)
    >>> tank = water_tank(size_mm=100.0, voxel_mm=10.0)
    >>> config = SimulationConfig(phantom=tank, sources=(beam,), histories=2000, batches=2)
    >>> simulate(config).dose_gy.shape
    (10, 10, 10)
    """
    overrides = {"histories": histories, "batches": batches, "seed": seed}
    config = replace(config, **{key: value for key, value in overrides.items() if value is not None})
    if resume is not None:
        _check_resumable(config, resume)
    if consumer is not None and (config.estimator != "analog" or config.engine != "builtin"):
        raise InputError(
            f"deposits can be streamed from the built-in engine's analog estimator, not from "
            f"{config.engine!r} "
            f"with {config.estimator!r}. There are no single deposits to hand over. Set estimator to "
            f"'analog'."
        )
    report = no_progress if progress is None else progress
    if config.engine == "ompmc":
        from dosemover.montecarlo.ompmc import run_ompmc

        return run_ompmc(config, progress=report, stop=stop)
    if config.engine == "mcsquare":
        from dosemover.montecarlo.mcsquare import run_mcsquare

        return run_mcsquare(config, progress=report, stop=stop)
    if config.engine == "cuda":
        from dosemover.montecarlo.cuda_engine import run_cuda

        return run_cuda(config, progress=report)
    from dosemover.montecarlo.photon_engine import run_photons

    return run_photons(config, progress=report, stop=stop, resume=resume, consumer=consumer)


def _check_resumable(config: SimulationConfig, resume: SimulationResult) -> None:
    """Refuse to continue a result of another configuration."""
    if resume.tallies is None:
        raise InputError(
            f"a result of the engine {resume.config.engine!r} cannot be continued. Simulate again, with "
            f"another "
            "seed, and merge both."
        )
    if config.fingerprint() != resume.config.fingerprint():
        raise InputError(
            "the result to continue belongs to another configuration (phantom, source, seed, batches or "
            "physics "
            "differ). The sum would mean nothing. Use the same configuration, or merge independent runs."
        )


def merge(results: Sequence[SimulationResult]) -> SimulationResult:
    """Merge independent runs of the same phantom and sources into one result.

    The batches of all runs are kept side by side.

    Parameters
    ----------
    results : sequence of SimulationResult
        Built-in engine, different seeds, equal grids and scaling.

    Raises
    ------
    InputError
        When the runs cannot be merged.
    """
    from dosemover.montecarlo.photon_engine import result_of

    if not results or any(r.tallies is None for r in results):
        raise InputError(
            "merging needs at least one result of the built-in engine. There is nothing to merge."
        )
    first = results[0]
    prints = {replace(r.config, seed=0, batches=2).fingerprint() for r in results}
    if len(prints) > 1:
        raise InputError(
            "the results belong to different configurations (phantom, source or physics differ). Their sum "
            "would mean nothing. Merge runs that differ in seed alone."
        )
    parts = [r.tallies for r in results if r.tallies is not None]
    seeds = np.concatenate([part.seeds for part in parts])
    if np.unique(seeds, axis=0).shape[0] < seeds.shape[0]:
        raise InputError(
            "two of the results share a seed, so they hold the same histories. Their sum would look more "
            "certain than it is. Give every run its own seed."
        )
    tallies = Tallies(
        energy_mev=np.concatenate([part.energy_mev for part in parts]),
        square_mev2=np.concatenate([part.square_mev2 for part in parts]),
        histories=np.concatenate([part.histories for part in parts]),
        balance=np.concatenate([part.balance for part in parts]),
        seeds=seeds,
    )
    total = int(tallies.histories.sum())
    return result_of(
        replace(first.config, histories=total, batches=tallies.histories.size),
        tallies,
        seconds=sum(r.seconds for r in results),
        cpu_seconds=sum(r.cpu_seconds for r in results),
        status="complete",
    )


def write_result(result: SimulationResult, directory: str | os.PathLike[str]) -> list[Path]:
    """Write dose, uncertainty, batches, the RECORDS table and, to resume from, the tallies.

    Files: ``dose.mha``, ``uncertainty.mha``, ``dose.dcm`` (RT Dose; in % of the maximum where the number of
    photons is not known), ``dose.npz`` (dose, uncertainty and batches), ``records.json``, ``state.npz``.

    Parameters
    ----------
    result : SimulationResult
    directory : path
        Made where absent.

    Returns
    -------
    list of Path

    Raises
    ------
    DosemoverError
        When the disk is full or the folder cannot be written; the simulation stays in memory.
    """
    folder = Path(directory)
    written, failed = [], None
    for name, write in _writers(result).items():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write(folder / name)
            written.append(folder / name)
        except (OSError, DosemoverError) as error:
            failed = error if failed is None else failed
    if failed is not None:
        reason = str(failed).split(" Nothing was written")[0]
        there = ", ".join(path.name for path in written) or "nothing"
        raise DosemoverError(
            f"the simulation could not be written to {folder} as a whole: {reason} Written was {there}; the "
            f"result itself is kept. Free some space or choose another folder, and write again; from a "
            f"{STATE_FILE} the command line writes it all again with --resume."
        ) from failed
    return written


def _writers(result: SimulationResult) -> dict[str, Callable[[Path], object]]:
    """What writes each file of a result; first the state, from which all others can be had again."""
    from dosemover.dose import DoseMap
    from dosemover.io import write_dose

    dose = result.to_dose_map(name="simulation")
    uncertainty = DoseMap(dose_gy=result.uncertainty_gy, grid=result.grid, unit=result.unit)
    single = replace(dose, uncertainty_gy=None, batches_gy=None)
    plan = single
    if result.unit != "Gy":
        plan = replace(single, dose_gy=100 * single.dose_gy / max(single.max_gy, 1e-300), unit="relative")
    table = {"records": result.records(), "limits": list(result.limits), "summary": result.summary()}
    writers: dict[str, Callable[[Path], object]] = {}
    if result.tallies is not None:
        writers[STATE_FILE] = lambda path: save_state(result, path)
    maps = {"dose.mha": single, "uncertainty.mha": uncertainty, "dose.dcm": plan, "dose.npz": dose}
    for name, each in maps.items():
        writers[name] = partial(write_dose, each)
    writers["records.json"] = lambda path: _write_text(json.dumps(table, indent=1), path)
    return writers


def _write_text(text: str, path: Path) -> None:
    """Write a text whole, or not at all."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def save_state(result: SimulationResult, path: str | os.PathLike[str]) -> None:
    """Save the tallies of a result, for `load_state`; written beside and then moved, so never half."""
    tallies = result.tallies
    if tallies is None:
        raise InputError(f"a result of the engine {result.config.engine!r} holds no state to save.")
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(
            file,
            energy_mev=tallies.energy_mev,
            square_mev2=tallies.square_mev2,
            histories=tallies.histories,
            balance=tallies.balance,
            seeds=tallies.seeds,
            seconds=np.array([result.seconds, result.cpu_seconds]),
            fingerprint=np.array(result.config.fingerprint()),
        )


def load_state(path: str | os.PathLike[str], config: SimulationConfig) -> SimulationResult:
    """Read tallies that `save_state` wrote, to pass as ``resume``.

    Parameters
    ----------
    path : path
    config : SimulationConfig
        The configuration that they belong to; ``histories`` may differ.

    Raises
    ------
    InputError
        When there are none, or they belong to another configuration.
    """
    from dosemover.montecarlo.photon_engine import result_of

    try:
        with np.load(path, allow_pickle=False) as data:
            state = {name: data[name] for name in (*_TALLIES, "fingerprint", "seconds")}
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path}: holds no state to resume from ({error}). It is written beside the dose of an earlier "
            "run; start without --resume."
        ) from error
    if str(state["fingerprint"]) != config.fingerprint():
        raise InputError(
            f"the state in {path} belongs to another configuration (phantom, source, seed, batches or "
            "physics differ) and cannot be continued. Use the one it was made with, or start afresh."
        )
    tallies = Tallies(**{name: state[name] for name in _TALLIES})
    seconds, cpu_seconds = (float(t) for t in state["seconds"])
    return result_of(config, tallies, seconds=seconds, cpu_seconds=cpu_seconds, status="interrupted")
