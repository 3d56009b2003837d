"""AAPM Report 195, Cases 1 to 3, set up and scored by script: half value layers, radiography, mammography.

    python examples/tg195_cases.py [histories]

Every case is a box of air with bodies set into it, a field in solid angle, and regions scored by mask. Case 2
has voxels of 15 x 15 x 5 mm, in which all its volumes of interest are whole; Case 3 draws the air above the
breast in to a thin slab that attenuates alike. Energies are in eV per source photon. The report's means stand
beside them: AAPM Report 195 (2015), as tabulated in the validation of DXMClib.
"""

from __future__ import annotations

import sys

import numpy as np

import dosemover.montecarlo as mc

AIR = mc.Material(
    name="TG-195 air",
    density_g_per_cm3=0.001205,
    mass_fractions={"C": 0.000124, "N": 0.755268, "O": 0.231781, "Ar": 0.012827},
)
SOFT_TISSUE = mc.Material(
    name="TG-195 soft tissue",
    density_g_per_cm3=1.03,
    mass_fractions={
        "H": 0.105, "C": 0.256, "N": 0.027, "O": 0.602, "Na": 0.001, "P": 0.002, "S": 0.003, "Cl": 0.002,
        "K": 0.002,
    },
)  # fmt: skip
MINERALS = ("P", "S", "K", "Ca")
"""They share the ash of the mammography tissues evenly."""

SKIN = mc.Material(
    name="TG-195 skin",
    density_g_per_cm3=1.09,
    mass_fractions={"H": 0.098, "C": 0.178, "N": 0.05, "O": 0.667} | dict.fromkeys(MINERALS, 0.00175),
)
ADIPOSE = {"H": 0.112, "C": 0.619, "N": 0.017, "O": 0.251} | dict.fromkeys(MINERALS, 0.00025)
GLANDULAR = {"H": 0.102, "C": 0.184, "N": 0.032, "O": 0.677} | dict.fromkeys(MINERALS, 0.00125)
BREAST = mc.Material(
    name="TG-195 breast, 20 % glandular by mass",
    density_g_per_cm3=0.8 * 0.93 + 0.2 * 1.04,
    mass_fractions={symbol: 0.8 * ADIPOSE[symbol] + 0.2 * GLANDULAR[symbol] for symbol in ADIPOSE},
)

HALF_VALUE = {0.03: ((2.273, 0.50038), (4.546, 0.25045)), 0.1: ((15.11, 0.49895), (30.22, 0.24899))}
"""Case 1: energy [MeV] to thickness of aluminium [mm] and the share of the air kerma behind it."""

RADIOGRAPHY_MM = (
    (0, -150, 0), (-150, 0, 0), (0, 0, 0), (150, 0, 0), (0, 150, 0),
    (0, 0, -60), (0, 0, -30), (0, 0, 30), (0, 0, 60),
)  # fmt: skip
"""Case 2: centres of the nine cubes of 30 mm, from the centre of the body."""

RADIOGRAPHY_EV = {
    "56.4keV": (
        33171.4, (27.0105, 27.0031, 36.6674, 27.0083, 27.0080, 72.8588, 53.3451, 23.8321, 14.5952),
    ),
    "120kV": (
        33125.975, (24.9682, 24.9503, 33.5210, 24.9559, 24.9661, 72.7011, 49.9880, 21.7295, 13.4818),
    ),
}  # fmt: skip
"""Case 2, full field, 0 degrees: the body and its nine cubes."""

MAMMOGRAPHY_MM = ((50, 50, 0), (20, 0, 0), (50, 0, 0), (80, 0, 0), (50, -50, 0), (50, 0, -15), (50, 0, 15))
"""Case 3: centres of the seven boxes of 20 x 20 x 10 mm."""

MAMMOGRAPHY_EV = (4697.333, (17.692, 18.070, 17.865, 17.262, 17.768, 5.417, 56.017))
"""Case 3, 16.8 keV, full field, 0 degrees: breast tissue without skin, and its seven boxes."""


def box(center_mm, size_mm) -> mc.Shape:
    """A box."""
    return mc.Shape(kind="box", center_mm=center_mm, size_mm=size_mm)


def simulate(phantom: mc.Phantom, beam: mc.Beam, histories: float, seed: int = 1) -> mc.SimulationResult:
    """Track lengths score every voxel that a photon crosses: right for kV photons and small volumes."""
    config = mc.SimulationConfig(
        phantom=phantom,
        sources=(beam,),
        histories=int(histories),
        batches=20,
        seed=seed,
        estimator="track_length",
    )
    return mc.simulate(config)


def air_kerma(energy_mev: float, aluminium_mm: float, *, histories: float = 1e5) -> tuple[float, float]:
    """Case 1: energy in a disc of air 10 mm across, 1 m from the source, behind aluminium at 100 mm."""
    air = mc.uniform(
        AIR, size_mm=(70.0, 70.0, 1010.0), voxel_mm=(10.0, 10.0, 2.5), center_mm=(0.0, 0.0, 505.0)
    )
    if aluminium_mm:
        filters = box((0.0, 0.0, 100.0 + aluminium_mm / 2), (100.0, 100.0, aluminium_mm))
        air = air.with_shape(filters, "aluminium")
    cone = mc.Beam(
        spectrum=mc.Spectrum.mono(energy_mev),
        shape="circle",
        field_mm=10.0,
        source_distance_mm=1000.0,
        isocenter_mm=(0.0, 0.0, 1000.0),
        direction=(0.0, 0.0, 1.0),
        fluence="isotropic",
    )
    disc = mc.Shape(kind="cylinder", center_mm=(0.0, 0.0, 1000.0), size_mm=(10.0, 10.0, 10.0))
    return simulate(air, cone, histories).energy_in(disc.fraction(air.grid))


def radiography(spectrum: mc.Spectrum, *, histories: float = 1e6) -> list[tuple[float, float]]:
    """Case 2: a body of 390 x 390 x 200 mm, 1.55 m from the source; the field covers 390 mm at 1.8 m."""
    air = mc.uniform(
        AIR, size_mm=(420.0, 420.0, 1810.0), voxel_mm=(15.0, 15.0, 5.0), center_mm=(0.0, 0.0, 905.0)
    )
    center, body = np.array([0.0, 0.0, 1650.0]), box((0.0, 0.0, 1650.0), (390.0, 390.0, 200.0))
    field = mc.Beam(
        spectrum=spectrum,
        field_mm=390.0,
        source_distance_mm=1800.0,
        isocenter_mm=(0.0, 0.0, 1800.0),
        direction=(0.0, 0.0, 1.0),
        fluence="isotropic",
    )
    result = simulate(air.with_shape(body, SOFT_TISSUE), field, histories)
    regions = [body, *(box(center + offset, (30.0, 30.0, 30.0)) for offset in RADIOGRAPHY_MM)]
    return [result.energy_in(region.fraction(result.grid)) for region in regions]


def breast() -> mc.Phantom:
    """Half a cylinder of breast in 2 mm of skin between plates of PMMA, at a wall of water."""
    air = mc.uniform(
        AIR, size_mm=(320.0, 300.0, 100.0), voxel_mm=(2.0, 2.0, 1.0), center_mm=(-10.0, 0.0, 9.0)
    )
    above = box((-10.0, 0.0, 49.0), (400.0, 400.0, 20.0))  # stands for the air up to the source at 620 mm
    dense = AIR.density_g_per_cm3 * (1.0 + (620.0 - 59.0) / 20.0)
    parts: tuple[tuple[mc.Shape, str | mc.Material], ...] = (
        (mc.Shape(kind="cylinder", center_mm=(0.0, 0.0, 0.0), size_mm=(200.0, 200.0, 50.0)), SKIN),
        (mc.Shape(kind="cylinder", center_mm=(0.0, 0.0, 0.0), size_mm=(196.0, 196.0, 46.0)), BREAST),
        (box((70.0, 0.0, 26.0), (140.0, 260.0, 2.0)), "pmma"),
        (box((70.0, 0.0, -26.0), (140.0, 260.0, 2.0)), "pmma"),
        (box((-85.0, 0.0, 0.0), (170.0, 300.0, 300.0)), "water"),
    )
    result = air.with_shape(above, AIR, density_g_per_cm3=dense)
    for shape, material in parts:
        result = result.with_shape(shape, material)
    return result


def mammography(*, histories: float = 1e6) -> list[tuple[float, float]]:
    """Case 3: 16.8 keV from 660 mm over the receptor, onto 140 x 260 mm from the chest wall on."""
    field = mc.Beam(
        spectrum=mc.Spectrum.mono(0.0168),
        field_mm=(0.0, 140.0, -130.0, 130.0),
        source_distance_mm=660.0,
        isocenter_mm=(0.0, 0.0, -40.0),
        direction=(0.0, 0.0, -1.0),
        fluence="isotropic",
    )
    result = simulate(breast(), field, histories)
    tissue = mc.Shape(kind="cylinder", center_mm=(0.0, 0.0, 0.0), size_mm=(196.0, 196.0, 46.0)).fraction(
        result.grid
    )
    tissue = tissue * box((250.0, 0.0, 0.0), (500.0, 500.0, 500.0)).fraction(result.grid)
    boxes = [box(center, (20.0, 20.0, 10.0)).fraction(result.grid) for center in MAMMOGRAPHY_MM]
    return [result.energy_in(region) for region in (tissue, *boxes)]


def print_rows(
    title: str, measured: list[tuple[float, float]], report: tuple[float, tuple[float, ...]]
) -> None:
    """A body and its volumes of interest beside the report's means."""
    print(title)
    for n, ((mean, sigma), expected) in enumerate(zip(measured, (report[0], *report[1]), strict=True)):
        name = f"VOI{n}" if n else "body"
        deviation = 100 * (mean / expected - 1)
        print(f"  {name:5s} {mean:10.3f} +- {sigma:.3f}   report {expected:10.3f}   {deviation:+.2f} %")


def main() -> None:
    """Run the three cases."""
    histories = float(sys.argv[1]) if len(sys.argv) > 1 else 1e6
    for energy, layers in HALF_VALUE.items():
        open_beam, _ = air_kerma(energy, 0.0, histories=histories / 4)
        for thickness, expected in layers:
            behind, sigma = air_kerma(energy, thickness, histories=histories / 4)
            ratio, spread = behind / open_beam, sigma / open_beam
            setup = f"Case 1, {1000 * energy:g} keV, {thickness} mm Al"
            print(f"{setup}: {ratio:.4f} +- {spread:.4f}   report {expected}")
    title = "Case 2, 56.4 keV: eV per source photon"
    print_rows(title, radiography(mc.Spectrum.mono(0.0564), histories=histories), RADIOGRAPHY_EV["56.4keV"])
    print_rows("Case 3, 16.8 keV: eV per source photon", mammography(histories=histories), MAMMOGRAPHY_EV)


if __name__ == "__main__":
    main()
