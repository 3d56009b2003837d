"""Photon engine: histories per second, gain of each variance reduction, ratio to ompMC.

Usage: python benchmarks/montecarlo.py [--quick] [--parts speed,gains,ompmc] [--cases WORDS]
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util

import numpy as np

import dosemover.montecarlo as mc
from dosemover.montecarlo.photon_engine import thread_count


def timed(config: mc.SimulationConfig) -> mc.SimulationResult:
    """Simulate, after a run that compiles."""
    mc.simulate(dataclasses.replace(config, histories=20 * config.batches))
    return mc.simulate(config)


def speed(histories: int) -> None:
    """Histories per second in a 100 x 100 x 100 water tank, analog."""
    tank = mc.water_tank(size_mm=300.0, voxel_mm=3.0, center_mm=(0.0, 150.0, 0.0))
    for spectrum in (mc.Spectrum.linac_6mv(), mc.Spectrum.radionuclide("Co-60"), mc.Spectrum.mono(0.06)):
        beam = mc.Beam(spectrum=spectrum, field_mm=100.0)
        config = mc.SimulationConfig(phantom=tank, sources=(beam,), histories=histories, batches=4)
        result = timed(config)
        per_core = histories / result.cpu_seconds / 1e6
        print(
            f"{spectrum.name:12s} {histories / result.seconds / 1e6:6.2f} M/s on {thread_count()} threads, "
            f"{per_core:6.2f} M per CPU second: {2 * per_core:.2f} M/s on two idle cores"
        )


def efficiency(result: mc.SimulationResult, region: np.ndarray) -> float:
    """1 / (sigma^2 T) of a region's voxels, T in CPU seconds."""
    variance = np.sum(result.uncertainty_gy[region] ** 2) / np.sum(result.dose_gy[region]) ** 2
    return 1 / (variance * result.cpu_seconds)


def core(phantom: mc.Phantom, first: int, last: int) -> np.ndarray:
    """Voxels around the beam axis between two depths [voxels]."""
    region = np.zeros(phantom.grid.shape, bool)
    nz, _, nx = region.shape
    region[nz // 2 - 2 : nz // 2 + 2, first:last, nx // 2 - 2 : nx // 2 + 2] = True
    return region


def gains(histories: int, words: str = "") -> None:
    """Efficiency of each variance reduction over analog, on the case that it is meant for.

    ``words`` choose cases: those whose names hold them.
    """
    kv = mc.water_tank(size_mm=100.0, voxel_mm=5.0)
    plate = mc.water_tank(size_mm=(60.0, 10.0, 60.0), voxel_mm=5.0)
    metal = mc.uniform("lung", size_mm=160.0, voxel_mm=4.0).with_shape(
        mc.Shape(kind="box", center_mm=(60.0, 60.0, 60.0), size_mm=16.0), "tungsten"
    )
    deep = mc.water_tank(size_mm=(80.0, 400.0, 80.0), voxel_mm=8.0)
    importance = mc.importance_along(deep.grid, (0, 1, 0), 40.0)
    reduction = mc.VarianceReduction
    cases = {
        "track length, 50 keV": (kv, 0.05, core(kv, 0, 20), {"estimator": "track_length"}),
        "track length + forced, 50 keV": (
            kv,
            0.05,
            core(kv, 0, 20),
            {"estimator": "track_length", "variance_reduction": reduction(forced_interactions=1)},
        ),
        "forced, 10 mm plate, 1.25 MeV": (
            plate,
            1.25,
            core(plate, 0, 2),
            {"variance_reduction": reduction(forced_interactions=1)},
        ),
        "super-voxels, metal in lung": (
            metal,
            0.1,
            core(metal, 0, 40),
            {"variance_reduction": reduction(super_voxels=8)},
        ),
        "splitting, 360 mm deep, 80 keV": (
            deep,
            0.08,
            core(deep, 40, 50),
            {"variance_reduction": reduction(importance=importance)},
        ),
        "stretching, 360 mm deep, 80 keV": (
            deep,
            0.08,
            core(deep, 40, 50),
            {"variance_reduction": reduction(stretch=0.5)},
        ),
    }
    for name, (phantom, energy, region, changes) in cases.items():
        if words not in name:
            continue
        beam = mc.Beam(spectrum=mc.Spectrum.mono(energy), field_mm=40.0)
        n = histories * (8 if phantom is deep else 1)  # few analog photons get there
        config = mc.SimulationConfig(phantom=phantom, sources=(beam,), histories=n, batches=20)
        plain, other = timed(config), timed(dataclasses.replace(config, seed=2, **changes))
        (a, sa), (b, sb) = plain.energy_in(region), other.energy_in(region)
        ratio = efficiency(other, region) / efficiency(plain, region)
        bias, spread = 100 * (b - a) / a, 100 * np.hypot(sa, sb) / a
        print(f"{name:32s} {n} histories: gain {ratio:7.1f}   bias {bias:+.2f} +- {spread:.2f} %")


def against_ompmc(histories: int) -> None:
    """Time to equal uncertainty, ompMC over the kerma engine, on one geometry in water."""
    if importlib.util.find_spec("ompmc") is None:
        print("ompMC is not installed: pip install 'dosemover[mc]'")
        return
    tank = mc.water_tank(size_mm=200.0, voxel_mm=5.0, center_mm=(0.0, 100.0, 0.0))
    region = core(tank, 5, 35)
    for spectrum in (mc.Spectrum.mono(0.1), mc.Spectrum.mono(2.0), mc.Spectrum.linac_6mv()):
        beam = mc.Beam(spectrum=spectrum, field_mm=50.0)
        config = mc.SimulationConfig(phantom=tank, sources=(beam,), histories=histories, batches=10)
        few = max(histories // 4, 1000)
        external = mc.simulate(dataclasses.replace(config, engine="ompmc", batches=2, histories=few))
        per_second = external.histories / external.cpu_seconds / 1e3
        print(f"{spectrum.name}: ompMC {per_second:.1f} k per CPU second; to the same uncertainty")
        for estimator in ("analog", "track_length"):
            result = timed(dataclasses.replace(config, estimator=estimator))
            ratio = efficiency(result, region) / efficiency(external, region)
            print(f"  {estimator:12s} {ratio:7.1f} times as fast as ompMC (which follows electrons)")


def main() -> None:
    """Run the parts that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the histories")
    parser.add_argument("--parts", default="speed,gains,ompmc", help="some of speed, gains, ompmc")
    parser.add_argument("--cases", default="", help="of the gains, only cases whose names hold these words")
    arguments = parser.parse_args()
    divisor, parts = 10 if arguments.quick else 1, arguments.parts.split(",")
    if "speed" in parts:
        speed(4_000_000 // divisor)
    if "gains" in parts:
        gains(600_000 // divisor, arguments.cases)
    if "ompmc" in parts:
        against_ompmc(800_000 // divisor)


if __name__ == "__main__":
    main()
