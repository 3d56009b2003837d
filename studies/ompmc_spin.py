"""Interaction data that take the spin effects out of ompMC, for comparisons with EGSnrc run without them.

ompMC always corrects elastic scattering for spin and relativity (Mott over Rutherford) and takes out of it
the deflections that its Moller events already make. EGSnrc with ``Spin effects = Off`` does neither: screened
Rutherford scattering with Moliere's screening angle, nothing taken out. `without_spin` writes data with which
ompMC does the same:

- a neutral ``spinms.data``: rejection function 1, moments of screened Rutherford scattering, Moliere's
  screening. Moliere's parameter of a compound is the mean of log Z^(2/3) (1.13 + 3.76 (alpha Z)^2) with
  weights Z (Z + 1), so that one value per element serves all media;
- a PEGS file whose ``blcc`` and ``xcc^2`` are larger by what ompMC takes out, at one energy.

Kawrakow & Rogers, NRCC Report PIRS-701 (2000), sections 2.4.7 and 2.4.8.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import ompmc

ELECTRON_REST_MEV = 0.51099895
THOMAS_FERMI = 137.03604 * 0.88534138
"""Inverse fine-structure constant times the constant of the Thomas-Fermi radius."""

EULER = 1.16699413758864573
"""EGSnrc absorbs Euler's constant into ``blcc`` so."""

MOLIERE, MOLIERE_Z = 1.13, 3.34
"""Moliere's screening: 1.13 (1 + 3.34 (alpha Z)^2)."""

RECORD, ELEMENTS, ENERGIES = 276, 100, 32
"""Numbers per record of spinms.data, elements, and records of each charge of an element."""

HALF = ENERGIES // 2
CUTOFF_MEV = 0.189
"""Kinetic threshold of Moller events of the 700icru media."""

MEDIA = ("H2O700ICRU", "LUNG700ICRU", "ICRPBONE700ICRU", "AIR700ICRU")


def screened_moments(eta: np.ndarray) -> np.ndarray:
    """Second over first transport moment of screened Rutherford scattering, as EGSnrc normalizes it."""
    log = np.log1p(1 / eta)
    return 3 * (1 + eta) * (log * (1 + 2 * eta) - 2) / (log * (1 + eta) - 1)


def energies_mev(head: np.ndarray) -> np.ndarray:
    """Energies of the records: even in the logarithm, then in the squared velocity."""
    low, high, slow, fast = (float(value) for value in head)
    beta2 = slow + np.arange(HALF) * (fast - slow) / (HALF - 1)
    upper = np.where(
        beta2 < 0.999, 1e3 * ELECTRON_REST_MEV * (1 / np.sqrt(1 - np.minimum(beta2, 0.999)) - 1), 50585.1
    )
    upper[0] = high
    return np.concatenate([np.geomspace(low, high, HALF), upper]) / 1000


def neutral_spin(source: Path, target: Path) -> None:
    """Write a table of spin effects that has none."""
    records = np.fromfile(source, dtype="<f4").reshape(-1, RECORD)
    tau = energies_mev(records[0, 9:13]) / ELECTRON_REST_MEV
    for z in range(1, ELEMENTS + 1):
        screening = MOLIERE * (1 + MOLIERE_Z * (z / 137.03604) ** 2)
        eta = z ** (2 / 3) * screening / THOMAS_FERMI**2 / (4 * tau * (tau + 2))
        for charge in (0, 1):
            rows = 1 + (2 * (z - 1) + charge) * ENERGIES + np.arange(ENERGIES)
            records[rows, 0] = records[rows, 2] = 1.0
            records[rows, 1] = screened_moments(eta)
            records[rows, 3] = screening
            records[rows, 4:20] = 1.0
            records.view("<u2")[rows, 40:552] = 65535
    records.tofile(target)


def taken_out(text: str, medium: str, energy_mev: float) -> tuple[float, str, list[str]]:
    """Share of elastic scattering that ompMC leaves beside Moller events; the line of ``blcc``, its numbers.

    1 - g_M / g_R sum p Z / sum p Z (Z + 1), of which g_M belongs to Moller events above the threshold.
    """
    block = text[text.index(f"MEDIUM={medium}") :]
    block = block[: block.find("MEDIUM=", 8)]
    atoms = [(float(z), float(p)) for z, p in re.findall(r"Z=\s*([\d.]+),A=.*?PZ=\s*([\dE.+-]+)", block)]
    lines = [line for line in block.splitlines() if len(line.split()) == 4 and "," not in line]
    words = lines[0].split()
    blcc, xcc = float(words[2]), float(words[3])
    t, c = energy_mev / ELECTRON_REST_MEV, CUTOFF_MEV / ELECTRON_REST_MEV
    eta = 0.25 * xcc**2 / (EULER * blcc) / (t * (t + 2))
    elastic = (1 + 2 * eta) * np.log1p(1 / eta) - 2
    moller = (
        np.log(0.5 * t / c)
        + (1 + ((t + 2) / (t + 1)) ** 2) * np.log(2 * (t - c + 2) / (t + 4))
        - 0.25
        * (t + 2)
        * (t + 2 + 2 * (2 * t + 1) / (t + 1) ** 2)
        * np.log((t + 4) * (t - c) / t / (t - c + 2))
        + 0.5 * (t - 2 * c) * (t + 2) * (1 / (t - c) - 1 / (t + 1) ** 2)
    )
    weight = sum(p * z for z, p in atoms) / sum(p * z * (z + 1) for z, p in atoms)
    return float(1 - moller / elastic * weight), lines[0], words


def without_spin(folder: Path, energy_mev: float) -> dict[str, str]:
    """Write the data and return the options of the engine that use them.

    Parameters
    ----------
    folder : Path
    energy_mev : float
        Kinetic energy at which the scattering that ompMC takes out is put back; it varies slowly (4.0 % at
        12 MeV in water, 3.6 % at 6 MeV, 2.1 % at 1.5 MeV).
    """
    ours = Path(str(ompmc.__file__)).parent
    data = folder / "data"
    data.mkdir(parents=True, exist_ok=True)
    for file in (ours / "data").iterdir():
        if file.name != "spinms.data":
            shutil.copy(file, data)
    neutral_spin(ours / "data" / "spinms.data", data / "spinms.data")
    text = (ours / "pegs4" / "700icru.pegs4dat").read_text(encoding="ascii")
    for medium in MEDIA:
        share, line, words = taken_out(text, medium, energy_mev)
        numbers = [
            float(words[0]),
            float(words[1]),
            float(words[2]) / share,
            float(words[3]) / np.sqrt(share),
        ]
        head, tail = text.split(f"MEDIUM={medium}", 1)
        new = "".join(f"   {number:.5E}" for number in numbers)
        text = f"{head}MEDIUM={medium}{tail.replace(line, new, 1)}"
    (folder / "700icru.pegs4dat").write_text(text, encoding="ascii")
    return {"data_folder": str(data), "pegs_file": str(folder / "700icru.pegs4dat")}
