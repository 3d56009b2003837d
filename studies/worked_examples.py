"""Worked examples of the Dose Mover's Distance: table and figure of docs/dose_movers_distance.md.

    python studies/worked_examples.py [--data DIR]

Writes docs/tables/worked_examples.md and docs/images/exchange_profile.svg. Without the directory of the real
plans the last row is left out. About a minute.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from readings import WIDTH_MM, field, with_hot_spot, with_range_error

import dosemover as dm
from dosemover.transport import dose_mover_profile

N = 64
DOCS = Path(__file__).resolve().parents[1] / "docs"
KEYS = ("mass_ratio", "best_shift_mm", "dmd", "kr")


def examples() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Reference and evaluated dose [Gy] of each example."""
    base = field(N)
    return {
        "1. field moved by 1 mm": (base, field(N, shift=1.0)),
        "2. output +2 %": (base, 1.02 * base),
        "3. both": (base, 1.02 * field(N, shift=1.0)),
        "4. range +3 mm in one half": (base, with_range_error(N)),
        "5. hot spot +30 %, 10 mm": (base, with_hot_spot(N)),
    }


def as_maps(pair: tuple[np.ndarray, np.ndarray]) -> list[dm.DoseMap]:
    """Two dose maps on the grid of the examples."""
    return [dm.DoseMap.from_array(dose, spacing_mm=(WIDTH_MM / N,) * 3) for dose in pair]


def mean_displacement(result: dm.ComparisonResult, where: slice = slice(None)) -> str:
    """Mean displacement along x over the dose [mm], in a part of the map along y."""
    arrows = result.maps["displacement_mm"]
    weight = result.reference.dose_gy[:, where]
    return f"{np.average(arrows.values[0][:, where], weights=weight):+.2f}"


def row(name: str, reference: dm.DoseMap, evaluated: dm.DoseMap) -> tuple[str, ...]:
    """One example."""
    result = dm.compare(reference, evaluated, metrics=KEYS)
    found = result.metrics
    dmd = found["dmd_mm"]
    halves = [slice(None)]
    if "half" in name:
        half = reference.grid.shape[1] // 2
        halves = [slice(0, half), slice(half, None)]
    same = result.maps["displacement_mm"].values.shape[1:] == reference.grid.shape
    return (
        name,
        f"{dmd.value:.3g} ({dmd.lower:.3g} to {dmd.upper:.3g})",
        f"{found['dmd_moved_mm'].value:.2g}",
        f"{found['dmd_changed_percent'].value:.2g}",
        " / ".join(mean_displacement(result, half) for half in halves) if same else "–",
        f"{found['dmd_residual_max_percent'].value:.2g}",
        f"{found['mass_ratio'].value:.4f}",
        f"{found['best_shift_mm'].value:.2f}",
        f"{found['kr_gained_percent'].value:.2g} / {found['kr_lost_percent'].value:.2g}",
    )


def plot_profiles(path: Path) -> None:
    """Distance over the exchange length for the simple examples."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    axes = figure.subplots()
    lengths = np.geomspace(3, 1000, 13)
    for name, pair in examples().items():
        maps = as_maps(pair)
        found = dose_mover_profile(reference=maps[0], evaluated=maps[1], lengths_mm=tuple(lengths))
        axes.plot(lengths, found["value"], marker=".", label=name)
    axes.axvline(100, color="0.6", lw=1, ls="--")
    axes.text(104, axes.get_ylim()[1] * 0.7, "1 mm per %", color="0.4", va="top")
    axes.set(xscale="log", yscale="log", xlabel="exchange length L / mm", ylabel="Dose Mover's Distance / mm")
    axes.legend(frameon=False, fontsize=8)
    axes.grid(alpha=0.25)
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Write the table and the figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[2] / "shared" / "data")
    data = parser.parse_args().data
    rows = [row(name, *as_maps(pair)) for name, pair in examples().items()]
    days = [data / "slicerrt" / f"EclipseEnt_Dose{day}.nrrd" for day in ("", "_Day2")]
    if all(path.exists() for path in days):
        rows.append(row("6. a head-and-neck plan on two days", *(dm.read_dose(path) for path in days)))
    head = (
        "example",
        "DMD mm (certified)",
        "moved mm",
        "changed %",
        "mean arrow along x, mm",
        "largest residual %",
        "mass ratio",
        "best shift mm",
        "gained / lost %",
    )
    lines = ["| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows)]
    (DOCS / "tables" / "worked_examples.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    plot_profiles(DOCS / "images" / "exchange_profile.svg")


if __name__ == "__main__":
    main()
