"""Adapter for ompMC: MV photons and electrons with real electron transport (EGSnrc physics).

The sources of the configuration are sampled into a phase space, which ompMC transports through the phantom,
one process per batch. Install it with ``pip install 'dosemover[mc]'``; ompMC is GPL-3.0 and is only run,
never linked.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dosemover._runtime import Progress, no_progress
from dosemover.errors import DosemoverError, InputError, MissingDependencyError
from dosemover.montecarlo.external import Batch, ExternalEngine, StopRule, check_transport, run_batches
from dosemover.montecarlo.phase_space import sample_phase_space, write_phase_space
from dosemover.montecarlo.photon_engine import check_sources, kernel_box
from dosemover.montecarlo.result import SimulationResult
from dosemover.montecarlo.settings import SimulationConfig

MEDIA = {
    "water": "H2O700ICRU",
    "air": "AIR700ICRU",
    "lung": "LUNG700ICRU",
    "soft_tissue": "ICRUTISSUE700ICRU",
    "muscle": "ICRUTISSUE700ICRU",
    "cortical_bone": "ICRPBONE700ICRU",
    "pmma": "PMMA700ICRU",
    "polyethylene": "POLYETH700ICRU",
    "aluminium": "AL700ICRU",
    "titanium": "TI700ICRU",
    "iron": "FE700ICRU",
    "copper": "CU700ICRU",
    "tungsten": "W700ICRU",
}
"""PEGS medium of ompMC for each library material; voxels keep their own density."""

OPTIONS = (
    "media",
    "particle",
    "electron_cutoff_mev",
    "photon_cutoff_mev",
    "inner_batches",
    "timeout_s",
    "data_folder",
    "pegs_file",
)
"""Keys of the table [engine]."""

LONGEST_PATH = 120
"""ompMC keeps paths in buffers of 128 characters, and takes spaces out of them."""

LIMITS = (
    "Dose to medium by ompMC (EGSnrc physics): photons and electrons with multiple scattering; no Rayleigh "
    "scattering, no fluorescence, media of the PEGS file at the phantom's densities. ompMC writes a dose "
    "of 0 into voxels of air.",
)


def media_of(config: SimulationConfig) -> list[str]:
    """PEGS medium of each material of the phantom."""
    own = config.options.get("media", {})
    result = []
    for material in config.phantom.materials:
        medium = own.get(material.name, MEDIA.get(material.name))
        if medium is None:
            raise InputError(
                f"ompMC has no medium for the material {material.name!r}. Its electrons cannot be followed. "
                f"Name one "
                f'in [engine] media, for instance {{ {material.name} = "ICRUTISSUE700ICRU" }}.'
            )
        result.append(str(medium))
    return result


def _particles(config: SimulationConfig, n: int, batch: int) -> NDArray[np.float64]:
    """Source particles of one batch."""
    seed = (config.seed * 1_000_003 + batch) % 2**63
    return sample_phase_space(config.photon_sources, n, seed=seed)


def _job(config: SimulationConfig, n: int, batch: int) -> dict[str, Any]:
    """What the worker reads."""
    options, phantom = config.options, config.phantom
    z, y, x = phantom.grid.edges_mm
    rng = np.random.default_rng([config.seed, batch])
    return {
        "x_cm": x / 10,
        "y_cm": y / 10,
        "z_cm": z / 10,
        "media": np.array(media_of(config)),
        "density": phantom.density_g_per_cm3,
        "material": np.where(phantom.density_g_per_cm3 > 0, phantom.material.astype(np.int32) + 1, 0),
        "seeds": rng.integers(1, 2**31 - 1, size=2),
        "cutoffs": np.array(
            [options.get("electron_cutoff_mev", 0.189) + 0.511, options.get("photon_cutoff_mev", 0.01)]
        ),
        "histories": np.array(n),
        "inner_batches": np.array(options.get("inner_batches", 10)),
        "data_folder": np.array(_own_data(options, "data_folder")),
        "pegs_file": np.array(_own_data(options, "pegs_file")),
    }


def _own_data(options: Mapping[str, Any], key: str) -> str:
    """Absolute path of interaction data of one's own; empty for ompMC's."""
    if key not in options:
        return ""
    path = Path(options[key]).resolve()
    if not path.exists() or len(str(path)) > LONGEST_PATH or " " in str(path):
        raise InputError(
            f"[engine] {key} must be the path of something that exists, of at most {LONGEST_PATH} characters "
            f"without spaces, got {path}. ompMC could not read it. Leave it out for ompMC's own data."
        )
    return str(path)


def _run_batch(config: SimulationConfig, n: int, batch: int) -> Batch:
    """Dose of one batch."""
    with tempfile.TemporaryDirectory(prefix="dosemover-ompmc-") as name:
        folder = Path(name)
        electrons = config.options.get("particle", "photon") == "electron"
        write_phase_space(folder / "source", _particles(config, n, batch), electrons=electrons)
        np.savez(folder / "job.npz", **_job(config, n, batch))
        command = [sys.executable, "-m", "dosemover.montecarlo.ompmc_worker", str(folder)]
        timeout = config.options.get("timeout_s")
        try:
            run = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
        except subprocess.TimeoutExpired as error:
            raise DosemoverError(
                f"ompMC did not finish batch {batch + 1} of {n} histories within {timeout} s. There is no "
                f"dose of "
                "it. Raise `timeout_s` in [engine], or simulate fewer histories per batch."
            ) from error
        if run.returncode != 0 or not (folder / "result.npz").exists():
            last = (run.stderr.strip() or run.stdout.strip() or "no message").splitlines()[-1]
            raise DosemoverError(
                f"ompMC stopped with code {run.returncode} in batch {batch + 1}: {last}. There is no dose "
                f"of it. "
                "Check materials and source."
            )
        with np.load(folder / "result.npz") as result:
            dose, relative = result["dose"], result["relative"]
    if not np.all(np.isfinite(dose)) or dose.max() <= 0:
        raise DosemoverError(
            f"ompMC returned no dose in batch {batch + 1}. The beam may miss the phantom. Check its "
            f"isocentre."
        )
    # a voxel never hit carries a relative uncertainty of 0.9999999
    return Batch(dose_gy=dose, variance_gy2=np.where(dose > 0, dose * relative, 0.0) ** 2, histories=n)


def _check(config: SimulationConfig) -> None:
    """Refuse what ompMC cannot do."""
    from dosemover.montecarlo.config import check_keys

    check_keys(config.options, OPTIONS, "engine")
    if config.options.get("particle", "photon") not in ("photon", "electron"):
        raise InputError(f"[engine] particle must be photon or electron, got {config.options['particle']!r}.")
    check_transport(config, "ompMC")
    if find_spec("ompmc") is None:
        raise MissingDependencyError(
            "the engine ompMC is not installed. MV dose with electron transport needs it. "
            "Install it with: pip install 'dosemover[mc]'"
        )
    media_of(config)
    for key in ("data_folder", "pegs_file"):
        _own_data(config.options, key)
    check_sources(config, kernel_box(config))


def run_ompmc(
    config: SimulationConfig, *, progress: Progress = no_progress, stop: StopRule | None = None
) -> SimulationResult:
    """Simulate a configuration with ompMC, one process per batch.

    The uncertainty is that of ompMC's own statistics, `inner_batches` in each batch.

    Parameters
    ----------
    config : SimulationConfig
        With ``options`` (table ``[engine]``): ``media`` (material name to PEGS medium), ``particle``
        ("photon" or "electron"), ``electron_cutoff_mev`` (kinetic, 0.189), ``photon_cutoff_mev``
        (0.01), ``inner_batches`` (10), ``timeout_s``, and, for interaction data of one's own,
        ``data_folder`` (holding all files of ompMC's) and ``pegs_file``.
    progress, stop : callable
        As in `dosemover.montecarlo.simulate`; ``stop`` is asked between batches.

    Raises
    ------
    MissingDependencyError
        When ompMC is not installed.
    DosemoverError
        When it fails.

    Notes
    -----
    *Cost*: about 35 000 histories per CPU second at 6 MV; a photon of the phase space takes 33 bytes on disk.
    """
    _check(config)
    n = -(-config.histories // config.batches)
    media = zip(config.phantom.materials, media_of(config), strict=True)
    engine = ExternalEngine(
        run=lambda batch: _run_batch(config, n, batch),
        cancel=lambda: None,
        at_once=1,
        limits=LIMITS,
        messages=tuple(f"{material.name}: {medium}" for material, medium in media),
    )
    return run_batches(config, engine, progress=progress, stop=stop)
