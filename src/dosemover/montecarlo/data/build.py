"""Rebuild the vendored photon data: ``python -m dosemover.montecarlo.data.build`` (needs fisx and xraylib).

The text files beside this script were written by it with fisx 1.3.2 and xraylib 4.3.0. See README.md for
where the numbers come from and what may be done with them.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import numpy as np

ELEMENTS = {
    "H": (1, 1.008), "Be": (4, 9.0122), "C": (6, 12.011), "N": (7, 14.007), "O": (8, 15.999),
    "F": (9, 18.998),
    "Na": (11, 22.990), "Mg": (12, 24.305), "Al": (13, 26.982), "Si": (14, 28.085), "P": (15, 30.974),
    "S": (16, 32.06), "Cl": (17, 35.45), "Ar": (18, 39.95), "K": (19, 39.098), "Ca": (20, 40.078),
    "Ti": (22, 47.867), "Fe": (26, 55.845), "Cu": (29, 63.546), "Zn": (30, 65.38), "Mo": (42, 95.95),
    "Rh": (45, 102.91), "Ag": (47, 107.87), "Sn": (50, 118.71), "I": (53, 126.904), "Ba": (56, 137.33),
    "Gd": (64, 157.25), "W": (74, 183.84), "Au": (79, 196.97), "Pb": (82, 207.2),
}  # fmt: skip
"""Atomic number and abridged standard atomic weight (IUPAC 2021) of each element."""
LOWEST_KEV, HIGHEST_KEV = 1.0, 20000.0
MOMENTUM = np.concatenate([[0.0], np.geomspace(0.005, 100.0, 130)])


def xcom_rows(path: Path) -> dict[str, list[tuple[float, ...]]]:
    """Rows (energy, coherent, incoherent, photoelectric, pair) of each element in a spec file."""
    rows: dict[str, list[tuple[float, ...]]] = {}
    symbol = ""
    for line in path.read_text(encoding="ascii").splitlines():
        if line.startswith("#S"):
            symbol = line.split()[2]
        elif line and not line.startswith("#") and symbol in ELEMENTS:
            energy, coherent, incoherent, _, photo, pair, _ = (float(word) for word in line.split())
            row = (energy, coherent, incoherent, photo, pair)
            known = rows.setdefault(symbol, [])
            if LOWEST_KEV <= energy <= HIGHEST_KEV and (not known or row != known[-1]):
                known.append(row)
    return rows


def write_cross_sections(target: Path) -> None:
    """Write ``xcom.txt`` from the XCOM table that fisx carries."""
    fisx = import_module("fisx")
    rows = xcom_rows(Path(str(fisx.__file__)).parent / "fisx_data" / "XCOM_CrossSections.dat")
    with target.open("w", encoding="ascii") as file:
        file.write(
            "# NIST XCOM photon cross sections; energy/keV, then cm2/g: coherent incoherent photo pair\n"
        )
        for symbol in ELEMENTS:
            file.write(f"element {symbol}\n")
            for row in rows[symbol]:
                file.write(" ".join(f"{value:.4E}" if k else f"{value:.8g}" for k, value in enumerate(row)))
                file.write("\n")


def write_scattering(target: Path) -> None:
    """Write ``scattering.txt``: atomic weight, form factor F(x, Z) and incoherent function S(x, Z)."""
    xraylib = import_module("xraylib")
    with target.open("w", encoding="ascii") as file:
        file.write("# x/(1/angstrom), atomic form factor F, incoherent scattering function S\n")
        for symbol, (number, weight) in ELEMENTS.items():
            file.write(f"element {symbol} {number} {weight:.6g}\n")
            for x in MOMENTUM:
                form = xraylib.FF_Rayl(number, x)
                incoherent = min(xraylib.SF_Compt(number, x), number) if x > 0 else 0.0
                file.write(f"{x:.6g} {form:.5E} {incoherent:.5E}\n")


if __name__ == "__main__":
    folder = Path(__file__).parent
    write_cross_sections(folder / "xcom.txt")
    write_scattering(folder / "scattering.txt")
