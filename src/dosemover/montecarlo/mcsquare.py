"""Adapter for MCsquare: scanned protons, by the user's own program.

MCsquare (K. Souris, J.A. Lee and E. Sterpin, Med. Phys. 43, 1700, 2016) is not distributed with dosemover.
The files of a run are written into a folder of its own, the program runs there in one thread, and its dose is
read back; batches run side by side, each with its own seed, and their spread is the uncertainty.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from dosemover._runtime import Progress, no_progress
from dosemover.errors import DosemoverError, InputError, MissingDependencyError
from dosemover.montecarlo import mcsquare_files as files
from dosemover.montecarlo.external import Batch, ExternalEngine, StopRule, check_transport, run_batches
from dosemover.montecarlo.photon_engine import thread_count
from dosemover.montecarlo.protons import ProtonField
from dosemover.montecarlo.result import SimulationResult
from dosemover.montecarlo.settings import SimulationConfig

PROGRAM_VARIABLE = "DOSEMOVER_MCSQUARE"
"""Environment variable with the path of the program, or of the folder that holds it."""

MATERIALS_VARIABLE = "MCsquare_Materials_Dir"
"""MCsquare's own environment variable for its materials."""

OPTIONS = (
    "program",
    "materials",
    "media",
    "beam_model",
    "spot_sigma_mm",
    "energy_spread_percent",
    "timeout_s",
)
"""Keys of the table [engine]."""

MOST_OUTSIDE = 0.5
"""Share of protons that may start outside the phantom."""

WORTH_SAYING = 0.01
"""Share of protons outside the phantom from which on a message tells it."""

LIMITS = (
    "Dose to medium by MCsquare: protons with multiple scattering and nuclear interactions (secondary "
    "protons, deuterons and alphas; no neutrons, no photons), materials of its own data base at the "
    "phantom's densities.",
    "The uncertainty is the spread of the batches, K seeds: it is itself known to 1 part in sqrt(2 (K - 1)).",
)

HOW_TO_GET_IT = (
    "MCsquare comes with OpenTPS: `pip download --no-deps opentps-core==3.0.1`, unpack the wheel (it is a "
    f"zip file), make MCsquare_linux executable (chmod +x), and set {PROGRAM_VARIABLE}, or `program` in "
    "[engine], to its path."
)


def program_path(options: dict[str, Any]) -> Path:
    """The user's program, or an error that says how to get one."""
    named = options.get("program") or os.environ.get(PROGRAM_VARIABLE)
    if not named:
        raise MissingDependencyError(
            f"no MCsquare program is configured, and protons need one. {HOW_TO_GET_IT}"
        )
    path = Path(named).expanduser()
    if path.is_dir():
        names = {"win32": "MCsquare_win.exe", "darwin": "MCsquare_mac"}
        path = path / names.get(sys.platform, "MCsquare_linux")
    if not path.is_file():
        raise MissingDependencyError(
            f"there is no MCsquare program at {path}. Protons need one. {HOW_TO_GET_IT}"
        )
    if not os.access(path, os.X_OK):
        raise MissingDependencyError(
            f"{path} may not be executed (files unpacked from a wheel are not). Protons cannot be "
            f"simulated. Run: chmod +x {path}"
        )
    return path.resolve()


def _materials_folder(options: dict[str, Any], program: Path) -> Path:
    """The folder of MCsquare's materials."""
    named = options.get("materials") or os.environ.get(MATERIALS_VARIABLE)
    return Path(named).expanduser().resolve() if named else program.parent / "Materials"


def media_of(config: SimulationConfig, known: dict[str, int]) -> list[int]:
    """MCsquare's label of each material of the phantom."""
    own = config.options.get("media", {})
    result = []
    for material in config.phantom.materials:
        medium = own.get(material.name, files.MEDIA.get(material.name))
        if medium not in known:
            raise InputError(
                f"MCsquare has no material {medium!r} for the phantom's {material.name!r}. It would stop "
                f"without a word. Name one of its own in [engine] media, for instance {{ {material.name} = "
                '"Average_Soft_Tissue" }.'
            )
        result.append(known[medium])
    return result


def _beam_model(config: SimulationConfig) -> files.BeamModel:
    """The user's beam model or the generic one; energies of the plan must lie in it."""
    options = config.options
    if "beam_model" in options:
        model = files.read_beam_model(Path(options["beam_model"]).expanduser())
    else:
        model = files.generic_beam_model(
            float(options.get("spot_sigma_mm", 4.0)), float(options.get("energy_spread_percent", 0.6))
        )
    energies = [energy for field in _fields(config) for energy in field.energy_mev]
    if min(energies) < model.lowest_mev or max(energies) > model.highest_mev:
        raise InputError(
            f"the plan's energies, {min(energies):g} to {max(energies):g} MeV, leave the beam model, which "
            f"covers {model.lowest_mev:g} to {model.highest_mev:g} MeV. MCsquare would extrapolate, or lose "
            "the protons. Change the energies or the beam model."
        )
    return model


def _fields(config: SimulationConfig) -> list[ProtonField]:
    """The sources, which `SimulationConfig` has checked to be proton fields."""
    return [cast(ProtonField, source) for source in config.sources]


class Runner:
    """Runs the program for one configuration, and ends what runs when asked.

    Parameters
    ----------
    config : SimulationConfig
    """

    def __init__(self, config: SimulationConfig) -> None:
        self.config = config
        self.program = program_path(config.options)
        self.materials = _materials_folder(config.options, self.program)
        self.labels = media_of(config, files.read_materials(self.materials))
        self.model = _beam_model(config)
        self.histories = -(-config.histories // config.batches)
        self.seeds = (
            np.random.default_rng(config.seed).choice(2**31 - 2, size=config.batches, replace=False) + 1
        )
        self.running: list[subprocess.Popen[str]] = []
        self.outside: list[float] = []

    def batch(self, number: int) -> Batch:
        """Simulate one batch."""
        with tempfile.TemporaryDirectory(prefix="dosemover-mcsquare-") as name:
            folder = Path(name)
            (folder / "Outputs").mkdir()
            files.write_image(folder, self.config.phantom, self.labels)
            (folder / "BDL.txt").write_text(self.model.text, encoding="latin-1", newline="\n")
            plan = files.plan_text(_fields(self.config), self.config.phantom)
            (folder / "PlanPencil.txt").write_text(plan, encoding="ascii", newline="\n")
            text = files.config_text(histories=self.histories, seed=int(self.seeds[number]))
            (folder / "config.txt").write_text(text, encoding="ascii", newline="\n")
            output = self._run(folder, number)
            simulated = self._simulated(output, number)
            dose = files.read_dose(folder / "Outputs", self.config.phantom.grid.shape)
        vacuum = self.config.phantom.density_g_per_cm3 <= 0
        return Batch(dose_gy=np.where(vacuum, 0.0, dose), variance_gy2=None, histories=simulated)

    def _run(self, folder: Path, number: int) -> str:
        """Run the program in its folder; what it printed."""
        environment = {**os.environ, MATERIALS_VARIABLE: str(self.materials)}
        timeout = self.config.options.get("timeout_s")
        try:
            process = subprocess.Popen(
                [str(self.program), "config.txt"],
                cwd=folder,
                env=environment,
                text=True,
                errors="replace",
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        except OSError as error:
            raise MissingDependencyError(
                f"{self.program} cannot be run: {error.strerror}. Protons need it. Take the program for this "
                "system."
            ) from error
        with process:
            self.running.append(process)
            try:
                output, errors = process.communicate(timeout=timeout)
            except subprocess.TimeoutExpired as error:
                raise DosemoverError(
                    f"MCsquare did not finish batch {number + 1} of {self.histories} protons within "
                    f"{timeout} s. There is no dose of it. Raise `timeout_s` in [engine], or simulate fewer "
                    "protons per batch."
                ) from error
            finally:
                process.kill()
                self.running.remove(process)
        said = [line.strip() for line in (output + "\n" + errors).splitlines() if line.strip()]
        complaint = next((line for line in said if re.match(r"error\b", line, re.IGNORECASE)), None)
        if process.returncode != 0 or complaint:
            raise DosemoverError(
                f"MCsquare stopped with code {process.returncode} in batch {number + 1}: "
                f"{complaint or (said[-1] if said else 'no message')} There is no dose of it. Check the "
                "beam model and materials, and that the program is made for this processor."
            )
        return output

    def _simulated(self, output: str, number: int) -> int:
        """Protons that were simulated, or an error where too many never met the phantom."""
        found = re.search(r"Nbr primaries simulated:\s*(\d+)(?:\s*\((\d+) generated outside)?", output)
        if found is None or int(found[1]) == 0:
            raise DosemoverError(
                f"MCsquare did not say how many protons it simulated in batch {number + 1}. Its dose cannot "
                "be trusted: it may have stopped early. Run it again, or try version 1.1."
            )
        simulated, outside = int(found[1]), int(found[2] or 0)
        if outside > MOST_OUTSIDE * simulated:
            raise DosemoverError(
                f"MCsquare ended without an error, and {outside} of {simulated} protons in batch "
                f"{number + 1} started outside the phantom. Its dose is worthless. Check isocentre and "
                f"field; in a beam model of your own, its first line must be {files.FORMAT_LINE!r} for this "
                "layout, and divergences and correlations not 0."
            )
        self.outside.append(outside / simulated)
        return simulated

    def cancel(self) -> None:
        """End the programs that run."""
        for process in list(self.running):
            process.kill()


def run_mcsquare(
    config: SimulationConfig, *, progress: Progress = no_progress, stop: StopRule | None = None
) -> SimulationResult:
    """Simulate proton fields with the user's MCsquare, one process and one seed per batch.

    Parameters
    ----------
    config : SimulationConfig
        With ``options`` (table ``[engine]``): ``program`` (path; or the environment variable
        DOSEMOVER_MCSQUARE), ``materials`` (its folder of materials), ``media`` (material name to MCsquare's),
        ``beam_model`` (a BDL file; without it a generic one: ``spot_sigma_mm`` 4, ``energy_spread_percent``
        0.6), ``timeout_s``.
    progress, stop : callable
        As in `dosemover.montecarlo.simulate`; ``stop`` is asked between batches.

    Raises
    ------
    MissingDependencyError
        When no program is configured or it cannot be run.
    DosemoverError
        When it fails, with or without saying so.

    Notes
    -----
    *Cost*: about 8 000 to 18 000 protons per CPU second.

    References
    ----------
    Souris, Lee & Sterpin 2016.
    """
    from dosemover.montecarlo.config import check_keys

    check_keys(config.options, OPTIONS, "engine")
    check_transport(config, "MCsquare")
    runner = Runner(config)
    messages = [f"program {runner.program.name}", f"beam model {config.options.get('beam_model', 'generic')}"]
    engine = ExternalEngine(
        run=runner.batch,
        cancel=runner.cancel,
        at_once=min(thread_count(), config.batches),
        limits=LIMITS,
        messages=tuple(messages),
    )
    result = run_batches(config, engine, progress=progress, stop=stop)
    share = float(np.mean(runner.outside))
    if share <= WORTH_SAYING:
        return result
    note = f"{100 * share:.1f} % of the protons started outside the phantom and gave it no dose"
    return replace(result, messages=(*result.messages, note))
