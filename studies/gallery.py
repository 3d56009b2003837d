"""Gallery of simulated dose maps: four cases at 1e4 to 1e7 histories, dose and uncertainty side by side.

    python studies/gallery.py [--cases chest,brachytherapy,photons,protons] [--store DIR] [--draw]

writes docs/gallery/CASE.png and docs/gallery.md. A run is kept in DIR (default build/gallery), so that --draw
redraws the page from what was simulated. The case "photons" needs ompMC, "protons" a MCsquare program
(``DOSEMOVER_MCSQUARE``).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import LogNorm, Normalize
from numpy.typing import NDArray

import dosemover.montecarlo as mc

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "gallery.md"
IMAGES = ROOT / "docs" / "gallery"
HISTORIES = (10_000, 100_000, 1_000_000, 10_000_000)
LEVELS = (10, 20, 50, 80, 95)
"""Isodose lines of the dose [%]."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One row of the gallery: how to simulate it, and through which plane to look."""

    title: str
    text: str
    setup: Callable[[], mc.SimulationConfig]
    axis: int
    position_mm: float
    steep: bool = False
    """The dose is shown on a logarithmic scale."""


def chest() -> mc.SimulationConfig:
    """A chest radiograph, anterior to posterior."""
    tube = mc.Spectrum.bremsstrahlung(0.12, filters=(("aluminium", 0.81),), lowest_mev=0.015)
    beam = mc.Beam(spectrum=tube, field_mm=(320.0, 300.0), source_distance_mm=1500.0)
    return mc.SimulationConfig(
        phantom=mc.thorax(voxel_mm=4.0), sources=(beam,), histories=10_000, batches=10, seed=1,
        estimator="track_length",
    )  # fmt: skip


def brachytherapy() -> mc.SimulationConfig:
    """Five dwell positions of an Ir-192-like point source beside a bone."""
    tank = mc.water_tank(size_mm=160.0, voxel_mm=2.0)
    bone = mc.Shape(kind="cylinder", center_mm=(40.0, 0.0, 0.0), size_mm=(25.0, 25.0, 400.0))
    air = mc.Shape(kind="ellipsoid", center_mm=(-40.0, 0.0, 0.0), size_mm=(30.0, 50.0, 60.0))
    sources = tuple(
        mc.PointSource(spectrum=mc.Spectrum.radionuclide("Ir-192"), position_mm=(1.0, 1.0 + 10.0 * n, 1.0))
        for n in range(-2, 3)
    )
    phantom = tank.with_shape(bone, "cortical_bone").with_shape(air, "air")
    return mc.SimulationConfig(
        phantom=phantom, sources=sources, histories=10_000, batches=10, seed=1, estimator="track_length"
    )


def photons() -> mc.SimulationConfig:
    """A 5 x 5 cm field of 6 MV photons through a lung, with electron transport."""
    layers = [("water", 40.0), ("lung", 80.0), ("water", 80.0)]
    phantom = mc.slabs(layers, width_mm=160.0, voxel_mm=4.0, center_mm=(0.0, 100.0, 0.0))
    tumor = mc.Shape(kind="ellipsoid", center_mm=(0.0, 80.0, 0.0), size_mm=(30.0, 30.0, 30.0))
    beam = mc.Beam(
        spectrum=mc.Spectrum.linac_6mv(), field_mm=50.0, penumbra_mm=5.0, isocenter_mm=(0.0, 80.0, 0.0)
    )
    return mc.SimulationConfig(
        phantom=phantom.with_shape(tumor, "water"), sources=(beam,), histories=10_000, batches=2, seed=1,
        engine="ompmc",
    )  # fmt: skip


def protons() -> mc.SimulationConfig:
    """Four energy layers of scanned protons into bone and lung."""
    phantom = mc.water_tank(size_mm=(120.0, 180.0, 120.0), voxel_mm=2.0, center_mm=(0.0, 90.0, 0.0))
    bone = mc.Shape(kind="box", center_mm=(-30.0, 35.0, 0.0), size_mm=(60.0, 12.0, 200.0))
    lung = mc.Shape(kind="box", center_mm=(30.0, 55.0, 0.0), size_mm=(60.0, 20.0, 200.0))
    field = mc.ProtonField(
        energy_mev=(120.0, 125.0, 130.0, 135.0),
        layer_weights=(0.25, 0.3, 0.45, 1.0),
        field_mm=40.0,
        isocenter_mm=(0.0, 90.0, 0.0),
    )
    return mc.SimulationConfig(
        phantom=phantom.with_shape(bone, "cortical_bone").with_shape(lung, "lung"), sources=(field,),
        histories=10_000, batches=4, seed=1, engine="mcsquare",
    )  # fmt: skip


CASES = {
    "chest": Case(
        title="Chest radiograph, 120 kV, anterior to posterior",
        text="Elliptical thorax of 4 mm voxels with lungs, spine and air around it; Kramers spectrum of "
        "120 kV behind 3 mm of aluminium, source at 1.5 m. Built-in engine, track-length estimator (kerma, "
        "right at these energies). The spine and its shadow stand out: bone takes up kV photons by the "
        "photoelectric effect.",
        setup=chest,
        axis=0,
        position_mm=0.0,
    ),
    "brachytherapy": Case(
        title="Ir-192-like source, five dwell positions",
        text="Point sources 10 mm apart in a water cube of 2 mm voxels, between a bone (right) and an air "
        "cavity (left). Built-in engine, track-length estimator. The dose falls as the square of the "
        "distance, so the noise grows outward (the colours of the dose are logarithmic).",
        setup=brachytherapy,
        axis=0,
        position_mm=1.0,
        steep=True,
    ),
    "photons": Case(
        title="6 MV photons in a lung phantom, with electron transport",
        text="5 x 5 cm field into 4 cm of water, 8 cm of lung that holds a tumour of 3 cm, and water, "
        "4 mm voxels. ompMC. Build-up at the surface, wider penumbra and less dose in the lung: what the "
        "built-in kerma engine does not contain.",
        setup=photons,
        axis=0,
        position_mm=0.0,
    ),
    "protons": Case(
        title="Scanned protons, 120 to 135 MeV, behind bone and lung",
        text="4 x 4 cm of spots in four energy layers into water with a slab of bone (left half) and of lung "
        "(right half), 2 mm voxels. MCsquare, uncertainty from four seeds. Bone pulls the distal edge up, "
        "lung pushes it down.",
        setup=protons,
        axis=0,
        position_mm=0.0,
    ),
}


def plane(case: Case, result: mc.SimulationResult) -> dict[str, Any]:
    """Dose and uncertainty in the plane of a case, with what the page prints."""
    centers = result.grid.centers_mm[case.axis]
    index = int(np.argmin(np.abs(centers - case.position_mm)))
    x, y = result.grid.edges_mm[2], result.grid.edges_mm[1]
    return {
        "dose": np.take(result.dose_gy, index, axis=case.axis),
        "sigma": np.take(result.uncertainty_gy, index, axis=case.axis),
        "density": np.take(result.density_g_per_cm3, index, axis=case.axis),
        "extent": np.array([x[0], x[-1], y[-1], y[0]]),
        "seconds": np.array([result.seconds, result.cpu_seconds]),
        "percent": np.array(result.mean_relative_uncertainty_percent),
        "histories": np.array(result.histories),
    }


def simulated(name: str, store: Path, *, draw_only: bool) -> list[dict[str, NDArray[Any]]]:
    """The case at every number of histories, simulated or read back."""
    rows = []
    for n in HISTORIES:
        file = store / f"{name}_{n}.npz"
        if not file.exists():
            if draw_only:
                break
            setup = CASES[name].setup()
            if setup.engine == "builtin":
                mc.simulate(setup, histories=200)  # compiles
            np.savez(file, **plane(CASES[name], mc.simulate(setup, histories=n)))
        with np.load(file) as data:
            rows.append({key: data[key] for key in data.files})
    return rows


def draw(name: str, rows: list[dict[str, NDArray[Any]]]) -> None:
    """Dose above, relative uncertainty below, one column per number of histories."""
    last = rows[-1]
    left, right, bottom, upmost = last["extent"]
    size = (2.6 * len(rows) + 0.6, 4.4 * abs(upmost - bottom) / (right - left) + 1.6)
    figure, axes = plt.subplots(2, len(rows), figsize=size, layout="constrained", sharex=True, sharey=True)
    tissue = last["density"] > 0.1
    top = float(np.percentile(last["dose"][tissue], 99.9 if CASES[name].steep else 99.5))
    scale = LogNorm(0.1, 100) if CASES[name].steep else Normalize(0, 105)
    shown: list[Any] = [None, None]
    for column, row in enumerate(rows):
        dose = 100 * row["dose"] / top
        with np.errstate(divide="ignore", invalid="ignore"):
            relative = np.where(row["dose"] > 0, 100 * row["sigma"] / row["dose"], np.nan)
        style = {"extent": row["extent"], "interpolation": "nearest"}
        upper, lower = axes[0, column], axes[1, column]
        shown[0] = upper.imshow(dose, norm=scale, cmap="inferno", **style)
        shown[1] = lower.imshow(relative, norm=LogNorm(0.3, 100), cmap="viridis_r", **style)
        x, y = (np.linspace(a, b, n) for a, b, n in zip(
            (row["extent"][0], row["extent"][3]), (row["extent"][1], row["extent"][2]), dose.shape[::-1],
            strict=True))  # fmt: skip
        if row is last:
            upper.contour(x, y, dose, levels=LEVELS, colors="w", linewidths=0.5)
        upper.contour(x, y, row["density"], levels=(0.6, 1.4), colors="#7fd4ff", linewidths=0.6)
        digits, power = f"{float(row['histories']):.0e}".split("e")
        count = f"$10^{int(power)}$" if digits == "1" else f"${digits} \\times 10^{int(power)}$"
        seconds = f"{float(row['seconds'][1]):.2g}" if row["seconds"][1] < 10 else f"{row['seconds'][1]:.0f}"
        percent = f"{float(row['percent']):.2g}"
        upper.set_title(f"{count} histories\n{seconds} CPU seconds\n± {percent} %", fontsize=9)
        lower.set_xlabel("x / mm")
    axes[0, 0].set_ylabel("y / mm")
    axes[1, 0].set_ylabel("y / mm")
    figure.colorbar(shown[0], ax=axes[0], label="dose / % of maximum", shrink=0.9)
    figure.colorbar(shown[1], ax=axes[1], label="uncertainty / % of dose", shrink=0.9)
    IMAGES.mkdir(parents=True, exist_ok=True)
    figure.savefig(IMAGES / f"{name}.png", dpi=90)
    plt.close(figure)


HEAD = """# Gallery of simulated dose maps

Four beams, each with ten thousand histories and more: what noise looks like before it is measured. Above,
the dose in one plane (white: isodoses of 10, 20, 50, 80 and 95 %; blue: edges of tissues); below, its
standard uncertainty in percent of the local dose, on a logarithmic scale. Over each column: processor
seconds (the engines share them among the cores), and the root mean square relative uncertainty of the voxels
above half the maximum. Ten times the histories make the noise 3.2 times smaller.

`python studies/gallery.py` simulates what is missing and draws this page again.
"""


def write_page(drawn: dict[str, list[dict[str, NDArray[Any]]]]) -> None:
    """Write docs/gallery.md for the cases that were drawn."""
    parts = [HEAD]
    for name, case in CASES.items():
        parts.append(f"\n## {case.title}\n\n{case.text}\n")
        if name not in drawn:
            continue
        counts = [int(row["histories"]) for row in drawn[name]]
        listed = f"{', '.join(f'{n:.0e}'.replace('e+0', 'e') for n in counts[:-1])} and {counts[-1]:.0e}"
        text = listed.replace("e+0", "e")
        parts.append(
            f"\n![{case.title}: dose and relative uncertainty at {text} histories](gallery/{name}.png)\n"
        )
    PAGE.write_text("".join(parts), encoding="utf-8")


def main() -> None:
    """Simulate what is missing, draw, and write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", default=",".join(CASES), help="names with commas between")
    parser.add_argument("--store", type=Path, default=ROOT / "build" / "gallery")
    parser.add_argument("--draw", action="store_true", help="simulate nothing")
    arguments = parser.parse_args()
    arguments.store.mkdir(parents=True, exist_ok=True)
    asked = arguments.cases.split(",")
    drawn: dict[str, list[dict[str, NDArray[Any]]]] = {}
    for name in CASES:
        rows = simulated(name, arguments.store, draw_only=arguments.draw or name not in asked)
        if rows:
            draw(name, rows)
            drawn[name] = rows
    write_page(drawn)


if __name__ == "__main__":
    main()
