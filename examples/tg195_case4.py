"""AAPM Report 195, Case 4: a CT-like fan on a PMMA cylinder, set up and scored by script.

    python examples/tg195_case4.py [histories] [case4.json]

Test 1 scores four slabs of the cylinder, test 2 two rods, one on the axis and one 10 mm deep: for the
source standing at 0, 10, ... 350 degrees, and turning. The cylinder is round, so one run with the source at
rest serves all angles: the rod is scored where it would lie from the source. Energies are in eV per source
photon, as in the report; its table, where given, is printed beside them. The air between the source and the
cylinder belongs to the case: it takes 1 % of the photons.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import numpy as np

import dosemover.montecarlo as mc

LENGTH_MM = 710.0
"""Shorter than the report's 3000 mm: what scatters further does not come back to the scored volumes."""

ROD_MM = 5.0
"""Radius of a rod."""

DOUBLING_MM = 60.0
"""Photons are split so that twice as many go on every so many mm of the cylinder."""

ANGLES_DEG = tuple(range(0, 360, 10))

AIR = mc.Material.from_atoms(
    name="TG-195 air",
    density_g_per_cm3=0.001205,
    atoms={"C": 0.015023, "N": 78.439633, "O": 21.078051, "Ar": 0.467293},
)
PMMA = mc.Material.from_atoms(
    name="TG-195 PMMA", density_g_per_cm3=1.19, atoms={"H": 53.281399, "C": 33.371577, "O": 13.347024}
)


NAME = "TG-195 Case 4"
CYLINDER = mc.Shape(kind="cylinder", center_mm=(0, 0, 0), size_mm=(320.0, 320.0, 2 * LENGTH_MM))


def phantom(voxel_mm: float | tuple[float, float, float] = (2.5, 2.5, 10.0)) -> mc.Phantom:
    """The PMMA cylinder, 320 mm across, along z, in air.

    The 440 mm of air between source and cylinder are drawn in to a slab of 40 mm, 11 times as dense: it
    attenuates alike, and no time goes into crossing empty voxels. The voxels are small because a rod 10 mm
    across that touches the edge of the fan, at 80 degrees, feels their size.
    """
    box = mc.uniform(
        AIR, size_mm=(370.0, 330.0, LENGTH_MM), voxel_mm=voxel_mm, center_mm=(-15.0, 0.0, 0.0), name=NAME
    )
    slab = mc.Shape(kind="box", center_mm=(-180.0, 0.0, 0.0), size_mm=(40.0, 400.0, 2 * LENGTH_MM))
    dense = box.with_shape(slab, AIR, density_g_per_cm3=11 * AIR.density_g_per_cm3)
    return dense.with_shape(CYLINDER, PMMA)


def turning_phantom(voxel_mm: float | tuple[float, float, float] = (2.5, 2.5, 10.0)) -> mc.Phantom:
    """The same for a source that turns about it: the air is drawn in to a tube around the cylinder.

    A ray that passes the axis at 80 mm, as on average, crosses 456 mm of air, and 44.7 mm of the tube.
    """
    box = mc.uniform(AIR, size_mm=(410.0, 410.0, LENGTH_MM), voxel_mm=voxel_mm, name=NAME)
    tube = mc.Shape(kind="cylinder", center_mm=(0, 0, 0), size_mm=(400.0, 400.0, 2 * LENGTH_MM))
    dense = box.with_shape(tube, AIR, density_g_per_cm3=456.0 / 44.7 * AIR.density_g_per_cm3)
    return dense.with_shape(CYLINDER, PMMA)


def fan(spectrum: mc.Spectrum, width_mm: float, *, arc_deg: float = 0.0) -> mc.Beam:
    """Isotropic fan from x = -600 mm toward +x, 320 mm wide and ``width_mm`` thick at the axis."""
    return mc.Beam(
        spectrum=spectrum,
        field_mm=(320.0, width_mm),
        source_distance_mm=600.0,
        gantry_deg=270.0,
        arc_deg=arc_deg,
        fluence="isotropic",
    )


def slab(grid, number: int) -> np.ndarray:
    """Volume of interest 1 to 4 of test 1, as the fraction of each voxel in it."""
    center = (0, 0, -10.0 * (number - 1))
    return mc.Shape(kind="box", center_mm=center, size_mm=(320.0, 320.0, 10.0)).fraction(grid)


def rod(grid, angle_deg: float | None = None) -> np.ndarray:
    """The rod of test 2 on the axis, or the outer one, turned by an angle from the source.

    A voxel's dose belongs to all of it, so that scoring by fractions widens the rod by h^2/6 in its second
    moments, h the side of a voxel. It is drawn narrower by as much (r^2/4 is the moment of a disc), and
    weighs as much as the whole: doses that are curved across the rod are then scored right.
    """
    x = y = 0.0
    if angle_deg is not None:
        turn = math.radians(angle_deg)
        x, y = -150.0 * math.cos(turn), 150.0 * math.sin(turn)
    narrow = math.sqrt(ROD_MM**2 - 2 / 3 * grid.spacing_mm[0] ** 2)
    size = (2 * narrow, 2 * narrow, 100.0)
    drawn = mc.Shape(kind="cylinder", center_mm=(x, y, 0), size_mm=size).fraction(grid)
    return drawn * (ROD_MM / narrow) ** 2


def outer_rods(grid, angle_deg: float) -> np.ndarray:
    """The outer rod at an angle and at its mirror image, half each: the case is symmetric."""
    return (rod(grid, angle_deg) + rod(grid, -angle_deg)) / 2


def importance(grid, doubling_mm: float, *, turning: bool = False) -> np.ndarray:
    """Where photons are split, shape [z, y, x]: doubling through the cylinder, and toward its axis.

    Few photons meet the rod on the axis; those that come near it are worth following many times. Depth counts
    from the side of a source at rest, or from the whole surface for one that turns.
    """
    z, y, x = grid.centers_mm
    radius = np.sqrt(np.square(y)[:, None] + np.square(x))
    depth = np.clip(160.0 - radius if turning else x + 160.0, 0.0, 320.0)
    near = sum((radius < limit).astype(float) for limit in (60.0, 30.0, 15.0))
    near = np.where((np.abs(z) < 70.0)[:, None, None], near, 0.0)
    return 2.0 ** (near + depth / doubling_mm)


def run(
    spectrum: mc.Spectrum,
    width_mm: float,
    *,
    histories: float = 1e6,
    seed: int = 1,
    turning: bool = False,
    doubling_mm: float | None = DOUBLING_MM,
) -> mc.SimulationResult:
    """Simulate a fan; score with ``result.energy_in(slab(result.grid, 1))``, or a rod.

    Parameters
    ----------
    turning : bool
        The source turns evenly about the cylinder.
    doubling_mm : float or None
        Split photons on their way through the cylinder, for the rods behind it and on its axis.
    """
    geometry = turning_phantom() if turning else phantom()
    reduction = mc.VarianceReduction()
    if doubling_mm is not None:
        split = importance(geometry.grid, doubling_mm, turning=turning)
        reduction = mc.VarianceReduction(importance=split)
    config = mc.SimulationConfig(
        phantom=geometry,
        sources=(fan(spectrum, width_mm, arc_deg=360.0 if turning else 0.0),),
        histories=int(histories),
        batches=40,
        seed=seed,
        estimator="track_length",
        variance_reduction=reduction,
    )
    return mc.simulate(config)


def print_row(name: str, measured: tuple[float, float], report: float | None) -> None:
    """One scored volume, and what the report says."""
    mean, sigma = measured
    text = f"  {name:22s} {mean:10.3f} +- {sigma:.3f}"
    print(text if report is None else f"{text}   report {report:10.3f}   {100 * (mean / report - 1):+.2f} %")


def main() -> None:
    """Run every fan and print its table."""
    histories = float(sys.argv[1]) if len(sys.argv) > 1 else 3e5
    report = json.loads(Path(sys.argv[2]).read_text(encoding="utf-8")) if len(sys.argv) > 2 else None
    spectra = {"56.4keV": mc.Spectrum.mono(0.0564)}
    if report is not None:
        tube = report["spectra"]["120kV"]
        energy = np.array(tube["energy_kev"]) / 1000
        spectra["120kV"] = mc.Spectrum(energy_mev=energy, weight=tube["weight"])
    for name, spectrum in spectra.items():
        for width in (10.0, 80.0):
            tables = (
                [None, None]
                if report is None
                else [report[f"case4_test{n}"]["results"][name][f"{width:.0f}mm"] for n in (1, 2)]
            )
            still = run(spectrum, width, histories=histories)
            turning = run(spectrum, width, histories=histories / 4, turning=True)
            print(f"{name}, {width:.0f} mm: eV per source photon")
            for n in range(1, 5):
                print_row(f"VOI{n}", still.energy_in(slab(still.grid, n)), tables[0] and tables[0][n - 1])
            rods = tables[1] or {"centre": [None] * 37, "periphery": [None] * 37}
            print_row("centre", still.energy_in(rod(still.grid)), rods["centre"][1])
            for angle in ANGLES_DEG[:19]:
                energy = still.energy_in(outer_rods(still.grid, angle))
                print_row(f"periphery, {angle} degrees", energy, rods["periphery"][1 + angle // 10])
            ring = sum(rod(turning.grid, angle) for angle in ANGLES_DEG) / len(ANGLES_DEG)
            print_row("centre, turning", turning.energy_in(rod(turning.grid)), rods["centre"][0])
            print_row("periphery, turning", turning.energy_in(ring), rods["periphery"][0])


if __name__ == "__main__":
    main()
