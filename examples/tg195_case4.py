"""AAPM Report 195, Case 4: a CT-like fan on a PMMA cylinder, set up and scored by script.

Usage: python examples/tg195_case4.py [histories]

Test 1 scores four slabs of the cylinder; test 2 two rods, one on the axis and one 10 mm deep, for
any projection angle. Energies are in eV per source photon, as in the report. The air between the source and
the cylinder belongs to the case: it takes 1 % of the photons.
"""

from __future__ import annotations

import math
import sys

import numpy as np

import dosemover.montecarlo as mc

LENGTH_MM = 700.0
"""Shorter than the report's 3000 mm: what scatters further does not come back to the scored volumes."""

AIR = mc.Material.from_atoms(
    name="TG-195 air",
    density_g_per_cm3=0.001205,
    atoms={"C": 0.015023, "N": 78.439633, "O": 21.078051, "Ar": 0.467293},
)
PMMA = mc.Material.from_atoms(
    name="TG-195 PMMA", density_g_per_cm3=1.19, atoms={"H": 53.281399, "C": 33.371577, "O": 13.347024}
)


def phantom(voxel_mm: float = 5.0) -> mc.Phantom:
    """The PMMA cylinder, 320 mm across, along z, in air that reaches to the source at x = -600 mm."""
    box = mc.uniform(
        AIR,
        size_mm=(780.0, 330.0, LENGTH_MM),
        voxel_mm=voxel_mm,
        center_mm=(-220.0, 0.0, 0.0),
        name="TG-195 Case 4",
    )
    shape = mc.Shape(kind="cylinder", center_mm=(0, 0, 0), size_mm=(320.0, 320.0, 2 * LENGTH_MM))
    return box.with_shape(shape, PMMA)


def fan(spectrum: mc.Spectrum, width_mm: float) -> mc.Beam:
    """Isotropic fan from x = -600 mm toward +x, 320 mm wide and ``width_mm`` thick at the axis."""
    return mc.Beam(
        spectrum=spectrum,
        field_mm=(320.0, width_mm),
        source_distance_mm=600.0,
        gantry_deg=270.0,
        fluence="isotropic",
    )


def regions(grid, angle_deg: float = 0.0) -> dict[str, np.ndarray]:
    """Scored volumes as the fraction of each voxel in them; the source turned by ``angle_deg`` about z."""
    result = {}
    for n in range(4):
        slab = mc.Shape(kind="box", center_mm=(0, 0, -10.0 * n), size_mm=(320.0, 320.0, 10.0))
        result[f"VOI{n + 1}"] = slab.fraction(grid)
    turn = math.radians(angle_deg)
    places = {"centre": (0.0, 0.0), "periphery": (-150.0 * math.cos(turn), 150.0 * math.sin(turn))}
    for name, (x, y) in places.items():
        rod = mc.Shape(kind="cylinder", center_mm=(x, y, 0), size_mm=(10.0, 10.0, 100.0))
        result[name] = rod.fraction(grid)
    return result


def run(
    spectrum: mc.Spectrum, width_mm: float, *, histories: float = 1e6, seed: int = 1, voxel_mm: float = 5.0
) -> mc.SimulationResult:
    """Simulate a fan; score with ``result.energy_in(regions(result.grid)[name])``."""
    config = mc.SimulationConfig(
        phantom=phantom(voxel_mm),
        sources=(fan(spectrum, width_mm),),
        histories=int(histories),
        batches=10,
        seed=seed,
        estimator="track_length",
    )
    return mc.simulate(config)


def main() -> None:
    """Run the mono-energetic fans and print their table."""
    histories = float(sys.argv[1]) if len(sys.argv) > 1 else 3e5
    for width in (10.0, 80.0):
        result = run(mc.Spectrum.mono(0.0564), width, histories=histories)
        for name, part in regions(result.grid).items():
            mean, sigma = result.energy_in(part)
            print(f"56.4 keV, {width:3.0f} mm, {name:9s} {mean:10.2f} +- {sigma:.2f} eV per photon")


if __name__ == "__main__":
    main()
