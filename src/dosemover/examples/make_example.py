"""Rebuild the embedded example pair: ``python -m dosemover.examples.make_example`` (a few seconds).

A tumour in a lung, treated with three Co-60-like fields by the built-in photon engine. The evaluated map is
another simulation with another seed: the fields moved by 1 mm along x, 2 % less output, and a narrow extra
field that heats a small spot. Both maps keep their batches, rounded to 6 bits of mantissa (0.8 %, a small
part of a batch's noise), to stay small.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dosemover.montecarlo import (
    Beam,
    Phantom,
    Shape,
    SimulationConfig,
    SimulationResult,
    Spectrum,
    simulate,
    uniform,
)

HISTORIES = 1_000_000
BATCHES = 8
VOXEL_MM = 4.0
MAXIMUM_GY = 2.0
SHIFT_MM = 1.0
OUTPUT = 0.98
HOT_SPOT_WEIGHT = 0.006
MANTISSA_BITS = 6
FOLDER = Path(__file__).parent


def example_phantom() -> Phantom:
    """A thorax in small: soft tissue, one lung with a tumour in it, a spine; 36 x 36 x 36 voxels."""
    phantom = uniform("air", size_mm=36 * VOXEL_MM, voxel_mm=VOXEL_MM, name="small thorax")
    parts = (
        ("soft_tissue", "cylinder", (0.0, 0.0, 0.0), (136.0, 120.0, 144.0)),
        ("lung", "ellipsoid", (14.0, -6.0, 0.0), (84.0, 80.0, 120.0)),
        ("soft_tissue", "ellipsoid", (10.0, -4.0, 0.0), (30.0, 28.0, 32.0)),
        ("cortical_bone", "cylinder", (-34.0, 30.0, 0.0), (24.0, 24.0, 144.0)),
    )
    for material, kind, center, size in parts:
        phantom = phantom.with_shape(Shape(kind=kind, center_mm=center, size_mm=size), material)
    return phantom


def example_beams(*, shift_mm: float, hot_spot: bool) -> tuple[Beam, ...]:
    """Three Co-60-like fields on the tumour, and one narrow one beside its centre."""
    spectrum = Spectrum.radionuclide("Co-60")
    center = (10.0 + shift_mm, -4.0, 0.0)
    fields = tuple(
        Beam(
            spectrum=spectrum,
            field_mm=44.0,
            source_distance_mm=800.0,
            isocenter_mm=center,
            gantry_deg=angle,
            penumbra_mm=6.0,
        )
        for angle in (20.0, 140.0, 260.0)
    )
    if not hot_spot:
        return fields
    narrow = Beam(
        spectrum=spectrum,
        shape="circle",
        field_mm=8.0,
        source_distance_mm=800.0,
        isocenter_mm=(center[0] + 6.0, center[1] + 6.0, center[2] + 8.0),
        gantry_deg=320.0,
        penumbra_mm=3.0,
        weight=3 * HOT_SPOT_WEIGHT,
    )
    return (*fields, narrow)


def rounded(values: NDArray[np.float64]) -> NDArray[np.float16]:
    """Values with `MANTISSA_BITS` bits of mantissa, which compress well."""
    mantissa, exponent = np.frexp(values)
    scale = 2.0 ** (MANTISSA_BITS + 1)
    return np.ldexp(np.rint(mantissa * scale) / scale, exponent).astype(np.float16)


def save(result: SimulationResult, gray_per_unit: float, path: Path) -> None:
    """Write batches and density as NPZ for `dosemover.io`; dose and uncertainty follow from them."""
    assert result.batches_gy is not None
    z, y, x = result.grid.edges_mm
    np.savez_compressed(
        path,
        batches_gy=rounded(result.batches_gy.astype(np.float64) * gray_per_unit),
        density_g_per_cm3=result.density_g_per_cm3.astype(np.float16),
        x_edges_mm=x,
        y_edges_mm=y,
        z_edges_mm=z,
        unit=np.array("Gy"),
    )


def main() -> None:
    """Simulate both maps and write them beside this file."""
    phantom = example_phantom()
    settings = {"phantom": phantom, "histories": HISTORIES, "batches": BATCHES, "estimator": "track_length"}
    reference = simulate(
        SimulationConfig(sources=example_beams(shift_mm=0.0, hot_spot=False), seed=1, **settings)
    )
    evaluated = simulate(
        SimulationConfig(sources=example_beams(shift_mm=SHIFT_MM, hot_spot=True), seed=2, **settings)
    )
    top = float(np.mean(np.sort(reference.dose_gy.ravel())[-50:]))
    factor = MAXIMUM_GY / top
    save(reference, factor, FOLDER / "example_reference.npz")
    save(evaluated, factor * OUTPUT * (1 + HOT_SPOT_WEIGHT), FOLDER / "example_evaluated.npz")


if __name__ == "__main__":
    main()
