"""ompMC against EGSnrc on one phantom: 6 MV photons and 12 MeV electrons, z map and profiles.

    python studies/egsnrc.py DATA [--store DIR] [--draw]

DATA is the folder with phantom.json, pA.npz, pB.npz, eA.npz and eB.npz (DOSXYZnrc in batches). Writes
docs/gallery/egsnrc_photons.png, egsnrc_electrons.png and docs/gallery/egsnrc.json, the figures that
docs/monte_carlo.md quotes. Runs are kept in DIR (default build/gallery); --draw simulates nothing.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import ompmc
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter
from scipy.stats import norm

import dosemover.montecarlo as mc

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "gallery"
NAMES = {"lung": "lung", "bone": "cortical_bone", "air": "air"}
AIR_G_PER_CM3 = 0.1
FIELD_CM2 = 100.0
"""EGSnrc states the dose per planar fluence: times this area it is the dose per particle."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """ompMC and EGSnrc on one grid: doses and standard uncertainties [Gy cm2], shape [z, y, x]."""

    grid: Any
    density: NDArray[Any]
    mine: NDArray[Any]
    my_sigma: NDArray[Any]
    theirs: NDArray[Any]
    their_sigma: NDArray[Any]
    histories: int

    @property
    def top(self) -> float:
        """Mean of the 200 highest voxels outside air."""
        return float(np.mean(np.sort(self.theirs[self.density > AIR_G_PER_CM3])[-200:]))

    @property
    def used(self) -> NDArray[np.bool_]:
        """Voxels above 20 % of the maximum outside the air cavity."""
        return (self.density > AIR_G_PER_CM3) & (self.theirs > 0.2 * self.top)

    @property
    def z(self) -> NDArray[np.float64]:
        """Difference over its standard uncertainty."""
        combined = np.hypot(self.my_sigma, self.their_sigma)
        return np.divide(self.mine - self.theirs, combined, out=np.zeros_like(combined), where=combined > 0)


def phantom(data: Path) -> mc.Phantom:
    """The phantom of the EGSnrc maps."""
    facts = json.loads((data / "phantom.json").read_text(encoding="utf-8"))["phantom"]
    result = mc.water_tank(size_mm=256.0, voxel_mm=4.0, center_mm=(0.0, 0.0, 128.0))
    for name, insert in facts["inserts"].items():
        bounds = np.array([insert["x_mm"], insert["y_mm"], insert["z_mm"]])
        box = mc.Shape(kind="box", center_mm=bounds.mean(axis=1), size_mm=np.diff(bounds)[:, 0])
        result = result.with_shape(box, NAMES[name], density_g_per_cm3=insert["density_g_cm3"])
    return result


def setup(data: Path, beam_name: str) -> mc.SimulationConfig:
    """The same phantom and beam for ompMC."""
    spectrum = mc.read_spectrum(Path(str(ompmc.__file__)).parent / "spectra" / "mohan6.spectrum")
    distance: float | None = 1000.0
    options: dict[str, Any] = {}
    histories = 3_000_000
    if beam_name == "e":
        spectrum, distance, histories = mc.Spectrum.mono(12.0), None, 300_000
        options = {"particle": "electron"}
    beam = mc.Beam(
        spectrum=spectrum,
        field_mm=100.0,
        source_distance_mm=distance,
        isocenter_mm=(0.0, 0.0, 0.0),
        direction=(0.0, 0.0, 1.0),
        fluence="isotropic",
    )
    return mc.SimulationConfig(
        phantom=phantom(data), sources=(beam,), histories=histories, batches=6, seed=1, engine="ompmc",
        options=options,
    )  # fmt: skip


def egs_batches(data: Path, beam_name: str) -> NDArray[np.float64]:
    """All batches of both EGSnrc runs [Gy cm2]."""
    parts = []
    for run in "AB":
        with np.load(data / f"{beam_name}{run}.npz") as file:
            parts.append(file["batches"].astype(np.float64) * float(file["scale"]))
    return np.concatenate(parts)


def simulated(data: Path, beam_name: str, store: Path, *, draw_only: bool) -> Pair:
    """Both programs' doses; ompMC is run where no earlier run is kept."""
    file = store / f"egsnrc_{beam_name}.npz"
    config = setup(data, beam_name)
    if not file.exists():
        if draw_only:
            raise SystemExit(f"{file} is missing: run without --draw")
        result = mc.simulate(config)
        kept = {"dose": result.dose_gy, "sigma": result.uncertainty_gy}
        np.savez(file, histories=result.histories, **kept)
    with np.load(file) as run:
        batches = egs_batches(data, beam_name)
        spread = batches.std(axis=0, ddof=1) / np.sqrt(len(batches))
        # few batches know a voxel's sigma poorly: variances are averaged over 5^3 voxels
        sigma = np.sqrt(uniform_filter(np.square(run["sigma"] * FIELD_CM2), 5))
        return Pair(
            grid=config.phantom.grid,
            density=config.phantom.density_g_per_cm3,
            mine=run["dose"] * FIELD_CM2,
            my_sigma=sigma,
            theirs=batches.mean(axis=0),
            their_sigma=spread,
            histories=int(run["histories"]),
        )


def facts(pair: Pair) -> dict[str, float]:
    """The figures that the page quotes."""
    used, z = pair.used, pair.z[pair.used]
    difference = (pair.mine - pair.theirs)[used]
    combined = np.hypot(pair.my_sigma, pair.their_sigma)[used]
    margin = 0.02 * pair.top
    result = {
        "histories": pair.histories,
        "voxels": int(np.count_nonzero(used)),
        "combined_sigma_percent_of_maximum": 100 * float(np.sqrt(np.mean(combined**2))) / pair.top,
        "mean_difference_percent": 100 * float(difference.mean() / pair.theirs[used].mean()),
        "within_2_percent_and_1_sigma_percent": 100 * float(np.mean(np.abs(difference) < margin + combined)),
        "expected_by_noise_alone_percent": 100
        * float(np.mean(norm.cdf(margin / combined + 1) - norm.cdf(-margin / combined - 1))),
        "within_2_percent_and_2_sigma_percent": 100
        * float(np.mean(np.abs(difference) < margin + 2 * combined)),
        "z_mean": float(z.mean()),
        "z_sd": float(z.std()),
    }
    depth = pair.grid.centers_mm[0]
    regions = {
        "first_voxel": np.broadcast_to((depth < 4)[:, None, None], used.shape),
        "lung": np.isclose(pair.density, 0.26),
        "bone": pair.density > 1.5,
        "water": np.isclose(pair.density, 1.0),
    }
    for name, region in regions.items():
        both = region & used
        if np.any(both):
            spread = np.sqrt(np.sum(pair.my_sigma[both] ** 2 + pair.their_sigma[both] ** 2))
            total = pair.theirs[both].sum()
            result[f"{name}_difference_percent"] = 100 * float((pair.mine[both].sum() - total) / total)
            result[f"{name}_uncertainty_percent"] = 100 * float(spread / total)
    return {name: round(value, 3) for name, value in result.items()}


def draw(pair: Pair, path: Path, title: str) -> None:
    """Depth and lateral profiles, z map and histogram."""
    figure, axes = plt.subplots(2, 2, figsize=(9.6, 7.2), layout="constrained")
    z_mm, _, x_mm = pair.grid.centers_mm
    near, beside = slice(30, 34), slice(28, 32)  # in y beside the air cavity, of which ompMC writes no dose
    unit = 100 / pair.top
    lines = (
        (axes[0, 0], z_mm, lambda a: a[:, beside, near].mean(axis=(1, 2)), 16, "depth, y = −16 to 0 mm"),
        (axes[0, 1], x_mm, lambda a: a[12:16, beside].mean(axis=(0, 1)), 16, "x at 56 mm depth / mm"),
    )
    for axis, at, mean, n, label in lines:
        for dose, sigma, style, name in (
            (pair.theirs, pair.their_sigma, {"color": "0.2", "lw": 1.2}, "EGSnrc"),
            (
                pair.mine,
                pair.my_sigma,
                {"color": "#d1495b", "lw": 0, "elinewidth": 0.8, "marker": ".", "ms": 5},
                "ompMC",
            ),
        ):
            axis.errorbar(at, unit * mean(dose), unit * np.sqrt(mean(sigma**2) / n), label=name, **style)
        axis.set(xlabel=label, ylabel="dose / % of maximum", ylim=(0, None))
        axis.legend(frameon=False)
    shown = np.where(pair.used, pair.z, np.nan)[:, 31]
    extent = (x_mm[0] - 2, x_mm[-1] + 2, z_mm[-1] + 2, z_mm[0] - 2)
    image = axes[1, 0].imshow(shown, vmin=-4, vmax=4, cmap="RdBu_r", extent=extent, interpolation="nearest")
    axes[1, 0].contour(x_mm, z_mm, pair.density[:, 31], levels=(0.6, 1.4), colors="k", linewidths=0.6)
    axes[1, 0].set(
        xlabel="x / mm", ylabel="depth / mm", title="z, plane y = −2 mm", xlim=(-80, 80), ylim=(200, 0)
    )
    figure.colorbar(image, ax=axes[1, 0], label="(ompMC − EGSnrc) / combined uncertainty")
    z = pair.z[pair.used]
    bins = np.linspace(-5, 5, 81)
    axes[1, 1].hist(z, bins, density=True, color="#8fb3d9")
    axes[1, 1].plot(bins, norm.pdf(bins), "k", lw=1, label="normal law")
    axes[1, 1].set(
        xlabel="z", ylabel="density", title=f"{z.size} voxels: mean {z.mean():+.2f}, sd {z.std():.2f}"
    )
    axes[1, 1].legend(frameon=False)
    figure.suptitle(title)
    figure.savefig(path, dpi=95)
    plt.close(figure)


def main() -> None:
    """Simulate what is missing, draw, and write the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--store", type=Path, default=ROOT / "build" / "gallery")
    parser.add_argument("--draw", action="store_true", help="simulate nothing")
    parser.add_argument("--beams", default="pe", help="p, e or pe")
    arguments = parser.parse_args()
    arguments.store.mkdir(parents=True, exist_ok=True)
    IMAGES.mkdir(parents=True, exist_ok=True)
    page = IMAGES / "egsnrc.json"
    table = json.loads(page.read_text(encoding="utf-8")) if page.exists() else {}
    names = {"p": ("photons", "6 MV photons, 10 x 10 cm"), "e": ("electrons", "12 MeV electrons, 10 x 10 cm")}
    for beam_name in arguments.beams:
        short, title = names[beam_name]
        pair = simulated(arguments.data, beam_name, arguments.store, draw_only=arguments.draw)
        draw(pair, IMAGES / f"egsnrc_{short}.png", title)
        table[short] = facts(pair)
        print(short, json.dumps(table[short], indent=1), flush=True)
        page.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
