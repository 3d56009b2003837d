"""ompMC against EGSnrc on one phantom: 6 MV photons and 12 MeV electrons, z map and profiles.

    python studies/egsnrc.py DATA [--store DIR] [--draw]

DATA is the folder with phantom.json, pA.npz, pB.npz, eA.npz and eB.npz (DOSXYZnrc in batches). ompMC runs as
it comes, with spin effects in elastic scattering, and without them, as EGSnrc ran (see ompmc_spin.py). Writes
docs/gallery/egsnrc_photons.png, egsnrc_electrons.png, egsnrc_spin.png and egsnrc.json, the figures that
docs/monte_carlo.md quotes. Runs are kept in DIR (default build/gallery); --draw simulates nothing.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import ompmc
from numpy.typing import NDArray
from ompmc_spin import without_spin
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
    batches: NDArray[Any]
    """EGSnrc's batches [batch, z, y, x]: the noise of voxels that share electrons goes together."""

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

    def deviation_percent(self, region: NDArray[np.bool_]) -> tuple[float, float]:
        """Difference of the mean dose of a region, and its standard uncertainty.

        The spread of EGSnrc's batches says how much more a region's sum varies than independent voxels would;
        ompMC's noise is taken to go together as much.
        """
        sums = self.batches[:, region].sum(axis=1)
        total, own = sums.mean(), sums.std(ddof=1) / np.sqrt(len(sums))
        together = own / np.sqrt(np.sum(self.their_sigma[region] ** 2))
        other = together * np.sqrt(np.sum(self.my_sigma[region] ** 2))
        return 100 * float(self.mine[region].sum() / total - 1), 100 * float(np.hypot(own, other) / total)


def phantom(data: Path) -> mc.Phantom:
    """The phantom of the EGSnrc maps."""
    facts = json.loads((data / "phantom.json").read_text(encoding="utf-8"))["phantom"]
    result = mc.water_tank(size_mm=256.0, voxel_mm=4.0, center_mm=(0.0, 0.0, 128.0))
    for name, insert in facts["inserts"].items():
        bounds = np.array([insert["x_mm"], insert["y_mm"], insert["z_mm"]])
        box = mc.Shape(kind="box", center_mm=bounds.mean(axis=1), size_mm=np.diff(bounds)[:, 0])
        result = result.with_shape(box, NAMES[name], density_g_per_cm3=insert["density_g_cm3"])
    return result


HISTORIES = {"p": (3_000_000, 5_000_000), "e": (300_000, 900_000)}
"""Histories of ompMC with and without spin effects."""

MEAN_ENERGY_MEV = {"p": 1.5, "e": 8.0}
"""About the energy of the electrons where their scattering matters most."""


def setup(data: Path, beam_name: str) -> mc.SimulationConfig:
    """The same phantom and beam for ompMC."""
    spectrum = mc.read_spectrum(Path(str(ompmc.__file__)).parent / "spectra" / "mohan6.spectrum")
    distance: float | None = 1000.0
    options: dict[str, Any] = {}
    if beam_name == "e":
        spectrum, distance = mc.Spectrum.mono(12.0), None
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
        phantom=phantom(data), sources=(beam,), histories=HISTORIES[beam_name][0], batches=6, seed=1,
        engine="ompmc", options=options,
    )  # fmt: skip


def egs_batches(data: Path, beam_name: str) -> NDArray[np.float64]:
    """All batches of both EGSnrc runs [Gy cm2]."""
    parts = []
    for run in "AB":
        with np.load(data / f"{beam_name}{run}.npz") as file:
            parts.append(file["batches"].astype(np.float64) * float(file["scale"]))
    return np.concatenate(parts)


def run(config: mc.SimulationConfig, beam_name: str, *, spin: bool) -> mc.SimulationResult:
    """ompMC as it comes, or without spin effects."""
    if spin:
        return mc.simulate(config)
    with tempfile.TemporaryDirectory() as folder:
        data = without_spin(Path(folder), MEAN_ENERGY_MEV[beam_name])
        own = replace(config, histories=HISTORIES[beam_name][1], options=config.options | data)
        return mc.simulate(own)


def simulated(data: Path, beam_name: str, store: Path, *, spin: bool, draw_only: bool) -> Pair:
    """Both programs' doses; ompMC is run where no earlier run is kept."""
    file = store / f"egsnrc_{beam_name}{'' if spin else '_without_spin'}.npz"
    config = setup(data, beam_name)
    if not file.exists():
        if draw_only:
            raise SystemExit(f"{file} is missing: run without --draw")
        result = run(config, beam_name, spin=spin)
        kept = {"dose": result.dose_gy, "sigma": result.uncertainty_gy}
        np.savez(file, histories=result.histories, **kept)
    with np.load(file) as stored:
        batches = egs_batches(data, beam_name)
        spread = batches.std(axis=0, ddof=1) / np.sqrt(len(batches))
        # few batches know a voxel's sigma poorly: variances are averaged over 5^3 voxels
        sigma = np.sqrt(uniform_filter(np.square(stored["sigma"] * FIELD_CM2), 5))
        return Pair(
            grid=config.phantom.grid,
            density=config.phantom.density_g_per_cm3,
            mine=stored["dose"] * FIELD_CM2,
            my_sigma=sigma,
            theirs=batches.mean(axis=0),
            their_sigma=spread,
            batches=batches,
            histories=int(stored["histories"]),
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
        value, spread = pair.deviation_percent(region & used)
        result[f"{name}_difference_percent"] = value
        result[f"{name}_uncertainty_percent"] = spread
    rows = layers(pair)
    result["layers_chi_square_per_layer"] = float(np.mean((rows[:, 1] / rows[:, 2]) ** 2))
    result["layers_largest_percent"] = float(np.max(np.abs(rows[:, 1])))
    return {name: round(value, 3) for name, value in result.items()}


def layers(pair: Pair) -> NDArray[np.float64]:
    """Depth [mm], difference and uncertainty [%] of each layer with at least 300 used voxels."""
    rows = []
    for k, depth in enumerate(pair.grid.centers_mm[0]):
        if np.count_nonzero(pair.used[k]) >= 300:
            region = np.zeros_like(pair.used)
            region[k] = pair.used[k]
            rows.append((depth, *pair.deviation_percent(region)))
    return np.array(rows)


def draw_spin(pairs: dict[str, tuple[Pair, Pair]], path: Path) -> None:
    """Difference of each layer against depth, ompMC as it comes and without spin effects."""
    figure, axes = plt.subplots(
        1, len(pairs), figsize=(4.8 * len(pairs), 3.4), layout="constrained", squeeze=False
    )
    for axis, (title, both) in zip(axes[0], pairs.items(), strict=True):
        named = (("as it comes, with spin effects", "#d1495b", "o"), ("without spin effects", "#2e6f9e", "s"))
        for pair, (name, color, marker) in zip(both, named, strict=True):
            depth, value, spread = layers(pair).T
            axis.errorbar(depth, value, spread, label=name, color=color, marker=marker, ms=3, lw=0.8)
        axis.axhline(0.0, color="0.4", lw=0.8)
        axis.set(xlabel="depth / mm", ylabel="ompMC − EGSnrc / %", title=title)
        axis.legend(frameon=False)
    figure.savefig(path, dpi=95)
    plt.close(figure)


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
    both = {}
    for beam_name in arguments.beams:
        short, title = names[beam_name]
        pairs = []
        for spin in (True, False):
            pair = simulated(arguments.data, beam_name, arguments.store, spin=spin, draw_only=arguments.draw)
            pairs.append(pair)
            key = short if spin else f"{short}_without_spin"
            table[key] = facts(pair)
            print(key, json.dumps(table[key], indent=1), flush=True)
            page.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
        draw(pairs[0], IMAGES / f"egsnrc_{short}.png", title)
        both[title] = (pairs[0], pairs[1])
    draw_spin(both, IMAGES / "egsnrc_spin.png")


if __name__ == "__main__":
    main()
