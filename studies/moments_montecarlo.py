"""Moment distances and direct W_2 against simulated Monte Carlo noise: the last part of moments_noise.py.

    python studies/moments_montecarlo.py [-o docs/moments] [--noise 20,10,5,2,1,0.2] [--tables]

A 40 mm field of 0.1 MeV photons in 120 mm of water, voxels of 6 mm, track-length estimator, 10 batches. The
evaluated map is an independent simulation with its beam 3 mm aside (shift), of 0.12 MeV (range: the dose
reaches deeper), multiplied by a hot spot of +30 % (10 mm), or by 1.03 (output). The truth of every distance
is its own value between maps of far more histories, that of the atoms the direct W_2. Histories go with the
inverse square of the noise.
"""

import argparse
import csv
import time
from pathlib import Path

import numpy as np
from moments_noise import coarse_atoms_w2, levels_of, write

from dosemover.dose import DoseMap
from dosemover.moments import moment_dmd, tally_map
from dosemover.transport import sliced_w2, wasserstein_2

HISTORIES_AT_ONE_PERCENT = 400_000
BATCHES = 10
REPLICATES = {20.0: 16, 10.0: 16, 5.0: 16, 2.0: 16, 1.0: 8, 0.2: 4}
"""Pairs of every change at each noise level [%]."""

TITLES = {
    "mean_shift": "mean shift",
    "gaussian": "Gaussian",
    "galerkin": "Galerkin",
    "galerkin_less_floor": "Galerkin less floor",
    "moment_sos_2": "moment-SoS, $r=2$",
    "direct_w2": "direct $W_2$",
    "atoms_12_mm": "atoms of 12 mm",
}
"""Distances in the tables: the moment levels, then the two direct ones."""

CHANGES = ("shift 3 mm", "range (0.12 MeV)", "hot spot +30 %", "output +3 %")


def simulated(percent, seed, *, shift=0.0, energy=0.1):
    """One simulation with about ``percent`` noise (k = 1) where the dose is above half its maximum."""
    from dosemover.montecarlo import Beam, SimulationConfig, Spectrum, simulate, water_tank

    beam = Beam(spectrum=Spectrum.mono(energy), field_mm=40.0, isocenter_mm=(shift, 0.0, 0.0))
    config = SimulationConfig(
        phantom=water_tank(size_mm=120.0, voxel_mm=6.0),
        sources=(beam,),
        histories=int(HISTORIES_AT_ONE_PERCENT / percent**2),
        batches=BATCHES,
        seed=seed,
        estimator="track_length",
    )
    return simulate(config).to_dose_map()


def scaled_by(dose, factor):
    """A map, its batches and its uncertainty multiplied by a field."""
    return DoseMap(
        dose_gy=dose.dose_gy * factor,
        grid=dose.grid,
        batches_gy=dose.batches_gy * factor,
        uncertainty_gy=dose.uncertainty_gy * factor,
    )


def hot_spot(grid):
    """1 + 0.3 in a Gaussian of 10 mm in the middle of the tank."""
    z, y, x = (c - c.mean() for c in grid.centers_mm)
    r2 = z[:, None, None] ** 2 + y[:, None] ** 2 + x**2
    return 1 + 0.3 * np.exp(-r2 / (2 * 10.0**2))


def maps(percent, replicate):
    """Reference and evaluated maps of one replicate, every one with random numbers of its own."""
    seeds = np.random.SeedSequence([int(10 * percent), replicate]).generate_state(4)
    one, two = (simulated(percent, int(seed)) for seed in seeds[:2])
    evaluated = (
        simulated(percent, int(seeds[2]), shift=3.0),
        simulated(percent, int(seeds[3]), energy=0.12),
        scaled_by(two, hot_spot(two.grid)),
        two.scaled(1.03),
    )
    return one, dict(zip(CHANGES, evaluated, strict=True))


def distances(one, two):
    """Every distance [mm] with CPU seconds and the bytes that it keeps."""
    start = time.process_time()
    tallies = [tally_map(d, degree=8) for d in (one, two)]
    tallied = time.process_time() - start
    size = sum(t.tensor.nbytes for t in tallies)
    found = {k: (v, s + tallied, size) for k, (v, s) in levels_of(*tallies).items()}
    direct = {
        "moment_dmd": lambda: moment_dmd(reference=one, evaluated=two, degree=8).value,
        "sliced": lambda: sliced_w2(reference=one, evaluated=two).value,
        "direct_w2": lambda: wasserstein_2(reference=one, evaluated=two, bounds=False, fields=False).value,
    }
    for name, compute in direct.items():
        start = time.process_time()
        value = compute()
        found[name] = value, time.process_time() - start, 2 * one.dose_gy.nbytes
    found["atoms_12_mm"] = coarse_atoms_w2(one, two)
    return found


def spread_of(dose):
    """Noise where the dose is above half its maximum, over the dose, root mean square [%]."""
    high = dose.dose_gy > dose.max_gy / 2
    return 100 * float(np.sqrt(np.mean((dose.uncertainty_gy[high] / dose.dose_gy[high]) ** 2)))


def montecarlo(levels, truth_percent):
    """Rows of every distance and change; ``levels`` maps the noise [%] to the number of replicates."""
    one, changed = maps(truth_percent, 10_000)
    truth = {}
    for change, two in changed.items():
        truth[change] = {name: found[0] for name, found in distances(one, two).items()}
        truth[change]["atoms_12_mm"] = truth[change]["direct_w2"]
    rows = []
    for percent, replicates in levels.items():
        for i in range(replicates):
            one, changed = maps(percent, i)
            if i == 0:
                noise = round(spread_of(one), 2)
            for change, two in changed.items():
                for name, (value, seconds, size) in distances(one, two).items():
                    rows.append((change, noise, i, name, value, truth[change][name], seconds, size))
            print(f"noise {noise} %, replicate {i}: {time.process_time():.0f} CPU-s so far", flush=True)
    return rows


def tables(folder):
    """Bias and spread of every distance at every noise level, and its cost: Markdown from the summary."""
    with open(folder / "montecarlo_summary.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    noises = sorted({float(row["n_or_noise_percent"]) for row in rows}, reverse=True)
    titles = " | ".join(f"{noise:.2g} %" for noise in noises)
    lines = [f"| change | distance | its truth / mm | {titles} |", "|---" * (3 + len(noises)) + "|"]
    for change in CHANGES:
        for name, title in TITLES.items():
            own = [row for row in rows if (row["case"], row["distance"]) == (change, name)]
            own.sort(key=lambda row: -float(row["n_or_noise_percent"]))
            cells = [f"{signed(row['bias_mm'])} ± {float(row['spread_mm']):.2f}" for row in own]
            lines.append(f"| {change} | {title} | {float(own[0]['truth_mm']):.2f} | {' | '.join(cells)} |")
    (folder / "montecarlo_table.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    lines = ["| distance | CPU-s, least to most | bytes kept |", "|---|---|---|"]
    for name, title in TITLES.items():
        own = [row for row in rows if row["distance"] == name]
        seconds = sorted(float(row["cpu_s"]) for row in own)
        lines.append(f"| {title} | {seconds[0]:.2g} to {seconds[-1]:.2g} | {int(float(own[0]['bytes'])):,} |")
    (folder / "montecarlo_costs.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def signed(value):
    """A bias with its sign; none where it rounds to 0."""
    text = f"{float(value):+.2f}".replace("-", "−")
    return "0.00" if text[1:] == "0.00" else text


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "-o", "--output", type=Path, default=Path(__file__).resolve().parents[1] / "docs/moments"
    )
    parser.add_argument("--noise", default="20,10,5,2,1,0.2", help="levels in percent")
    parser.add_argument("--replicates", type=int, help="of every level; by default 16 down to 4")
    parser.add_argument("--truth", type=float, default=0.2, help="noise of the maps behind the truth")
    parser.add_argument("--tables", action="store_true", help="only write the tables from the summary")
    arguments = parser.parse_args()
    if arguments.tables:
        tables(arguments.output)
        return
    levels = [float(level) for level in arguments.noise.split(",")]
    replicates = {level: arguments.replicates or REPLICATES.get(level, 8) for level in levels}
    write(arguments.output, "montecarlo", montecarlo(replicates, arguments.truth))
    tables(arguments.output)


if __name__ == "__main__":
    main()
