"""Moment distances against noise, and from Monte Carlo samples: tables and figures of docs/moments.md.

    python studies/moments_noise.py [-o docs/moments] [--quick] [--redraw] [--parts samples,white,real,..]

Four parts, each written as CSV with one figure:
  samples   one stream of simulated deposits (0.1 MeV photons in water), the evaluated beam 3 mm aside: exact
            W_2 of the two clouds (POT), sliced W_2, and the moment levels from the streaming tally
  white     known changes of a synthetic field with independent noise of its voxels (a labelled contrast)
  real      EGSnrc batches of a 6 MV photon field, its source moved by 1 mm: correlated noise (skipped
            where the data are absent)
  montecarlo  known changes of a simulated field with simulated noise (moments_montecarlo.py)
"""

import argparse
import csv
import os
import resource
import time
from pathlib import Path

import numpy as np
from scipy.special import erf

from dosemover.dose import DoseMap
from dosemover.moments import (
    MomentAccumulator,
    MomentConsumer,
    MomentTally,
    bures_squared,
    galerkin_w2,
    moment_sos,
    tally_gaussian,
    tally_map,
)
from dosemover.transport import sliced_w2

DATA = Path(os.environ.get("DOSEMOVER_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
BOX = ((-60.0, 60.0),) * 3
LARGEST_CLOUD = 3200
"""Deposits a side up to which exact transport of two clouds is run: 0.8 GB of costs follow."""

LARGEST_SLICED = 100_000
FEWEST_REPLICATES, MOST_REPLICATES = 5, 20

STYLES = {
    "mean_shift": ("mean shift", "C0o-"),
    "gaussian": ("Gaussian (Gelbrich)", "C1s-"),
    "galerkin": ("Galerkin $W_2$", "C2o-"),
    "galerkin_less_floor": ("Galerkin less its floor", "C2o--"),
    "moment_sos_2": ("moment-SoS, $r = 2$", "C3^-"),
    "moment_dmd": ("Galerkin DMD", "C4d:"),
    "sliced": ("sliced $W_2$", "C5v-"),
    "sliced_clouds": (r"sliced $W_2$ of the deposits, $\times\sqrt{3}$", "C5v-"),
    "direct_w2": ("direct $W_2$", "C6D-"),
    "exact_clouds": ("exact $W_2$ of the deposits", "C7X-"),
    "atoms_12_mm": ("exact $W_2$ of atoms, 12 mm", "C7X-"),
    "atoms_20_mm": ("exact $W_2$ of atoms, 20 mm", "C7X-"),
}
"""Name of a distance in the figures, and its color, marker and line."""


def levels_of(one, two):
    """Distance at every level from two tallies, and CPU seconds."""
    found = {}
    start = time.process_time()
    m, n = tally_gaussian(one), tally_gaussian(two)
    found["mean_shift"] = float(np.linalg.norm(m.mean_mm - n.mean_mm)), time.process_time() - start
    start = time.process_time()
    squared = np.sum((m.mean_mm - n.mean_mm) ** 2) + bures_squared(m.covariance_mm2, n.covariance_mm2)
    found["gaussian"] = float(np.sqrt(squared)), time.process_time() - start
    start = time.process_time()
    estimate = galerkin_w2(reference=one, evaluated=two)
    seconds = time.process_time() - start
    found["galerkin"] = estimate.value_mm, seconds
    found["galerkin_less_floor"] = float(np.sqrt(max(estimate.chosen.debiased_squared_mm2, 0.0))), seconds
    start = time.process_time()
    found["moment_sos_2"] = (
        moment_sos(reference=one, evaluated=two, order=2).lower_mm,
        time.process_time() - start,
    )
    return found


class Stream:
    """Gathers every deposit of a simulation."""

    def __init__(self):
        self.parts = []

    def deposits(self, batch, position_mm, energy_mev):
        self.parts.append(np.column_stack([position_mm, energy_mev]))

    def rows(self, rng):
        return rng.permutation(np.concatenate(self.parts))


def beam_in_water(shift, histories, seed, consumer):
    """40 mm field of 0.1 MeV photons in 120 mm of water, its deposits given to a consumer."""
    from dosemover.montecarlo import Beam, SimulationConfig, Spectrum, simulate, water_tank

    beam = Beam(spectrum=Spectrum.mono(0.1), field_mm=40.0, isocenter_mm=(shift, 0.0, 0.0))
    tank = water_tank(size_mm=120.0, voxel_mm=6.0)
    simulate(
        SimulationConfig(phantom=tank, sources=(beam,), histories=histories, batches=4, seed=seed),
        consumer=consumer,
    )


def simulated_deposits(shift, histories, seed):
    """Every deposit in random order: x, y, z [mm] and energy [MeV]."""
    stream = Stream()
    beam_in_water(shift, histories, seed, stream)
    return stream.rows(np.random.default_rng(seed))


def simulated_tally(shift, histories, seed):
    """Streaming tally of a simulation of any length."""
    consumer = MomentConsumer(box_mm=BOX)
    beam_in_water(shift, histories, seed, consumer)
    return consumer.tally()


def stream_tally(rows, batches=10, degree=12):
    """Streaming tally of deposits in batches."""
    accumulator = MomentAccumulator(box_mm=BOX, degree=degree)
    for part in np.array_split(rows, batches):
        accumulator.add(part[:, :3], part[:, 3])
        accumulator.end_batch()
    return accumulator.tally()


def cloud_w2(one, two):
    """Exact W_2 of two weighted clouds, CPU seconds, bytes of the cost matrix."""
    import ot

    start = time.process_time()
    weights = [r[:, 3] / r[:, 3].sum() for r in (one, two)]
    cost = ot.dist(one[:, :3], two[:, :3])
    value = float(np.sqrt(ot.emd2(*weights, cost, numItermax=2_000_000)))
    return value, time.process_time() - start, cost.nbytes


def cloud_sliced(one, two, directions=64):
    """Sliced W_2 of two clouds by sorted projections, scaled by sqrt(3) to read a translation as itself."""
    import ot

    start = time.process_time()
    weights = [r[:, 3] / r[:, 3].sum() for r in (one, two)]
    value = ot.sliced_wasserstein_distance(one[:, :3], two[:, :3], *weights, n_projections=directions, seed=0)
    return float(value * np.sqrt(3)), time.process_time() - start, one.nbytes + two.nbytes


def samples(largest, truth_histories):
    """Every distance from N deposits a side, against its own value from far more."""
    truth_of = levels_of(*(simulated_tally(x, truth_histories, seed) for x, seed in ((0.0, 11), (3.0, 12))))
    truth = {name: value for name, (value, _) in truth_of.items()}
    need = FEWEST_REPLICATES * largest // 2  # a photon leaves about two deposits
    one, two = simulated_deposits(0.0, need, 1), simulated_deposits(3.0, need, 2)
    rows = []
    n = 100
    while n <= largest:
        for i in range(min(MOST_REPLICATES, len(one) // n, len(two) // n)):
            a, b = (r[i * n : (i + 1) * n] for r in (one, two))
            start = time.process_time()
            tallies = stream_tally(a), stream_tally(b)
            tally_seconds = time.process_time() - start
            size = sum(t.tensor.nbytes for t in tallies)
            for name, (value, seconds) in levels_of(*tallies).items():
                rows.append(("samples", n, i, name, value, truth[name], seconds + tally_seconds, size))
            if n <= LARGEST_CLOUD and i < FEWEST_REPLICATES:
                rows.append(("samples", n, i, "exact_clouds", *_with(cloud_w2(a, b), truth["galerkin"])))
            if n <= LARGEST_SLICED:
                rows.append(("samples", n, i, "sliced_clouds", *_with(cloud_sliced(a, b), truth["galerkin"])))
        n = int(n * np.sqrt(10) + 0.5)
    return rows


def _with(found, truth):
    value, seconds, size = found
    return value, truth, seconds, size


def field(n=40, *, edge=0.3, shift=0.0, spot=0.0, output=1.0):
    """Synthetic field of 200 mm (units of 100 mm): distal edge, lateral shift, hot spot, output."""
    t = (np.arange(n) + 0.5) / n * 2 - 1
    z, y, x = np.meshgrid(t, t, t, indexing="ij")

    def plateau(s):
        return 0.5 * (erf((s + 0.5) / 0.12) - erf((s - 0.5) / 0.12))

    depth = 0.5 * (erf((x + 0.6) / 0.12) - erf((x - edge) / 0.12))
    dose = depth * plateau(y - shift) * plateau(z) + 1e-3
    dose *= 1 + spot * np.exp(-(x**2 + y**2 + z**2) / (2 * 0.1**2))
    return output * dose


CHANGES = {
    "shift 2 mm": {"shift": 0.02},
    "range 5 mm": {"edge": 0.35},
    "hot spot +30 %": {"spot": 0.3},
    "output +3 %": {"output": 1.03},
}


def noisy(dose, percent, rng):
    """Map with independent noise of ``percent`` of the maximum times the root of the relative dose."""
    sigma = percent / 100 * np.sqrt(dose * dose.max())
    return DoseMap.from_array(
        np.maximum(dose + sigma * rng.standard_normal(dose.shape), 0.0),
        spacing_mm=(200 / len(dose),) * 3,
        uncertainty_gy=sigma,
    )


def coarse_atoms_w2(one, two, cells=10):
    """Exact W_2 of voxel centres on ten merged voxels an axis: the direct way, as far as memory goes."""
    import ot

    start = time.process_time()
    f = len(one.dose_gy) // cells
    masses = [d.dose_gy.reshape(cells, f, cells, f, cells, f).sum(axis=(1, 3, 5)).ravel() for d in (one, two)]
    low, high = one.grid.box_mm[0]
    t = (np.arange(cells) + 0.5) * (high - low) / cells
    points = np.stack([g.ravel() for g in np.meshgrid(t, t, t, indexing="ij")], axis=1)
    cost = ot.dist(points, points)
    value = float(np.sqrt(ot.emd2(*(m / m.sum() for m in masses), cost, numItermax=2_000_000)))
    return value, time.process_time() - start, cost.nbytes


def white(replicates):
    """Known changes over noise levels."""
    rows = []
    clean = field()
    for change, settings in CHANGES.items():
        changed = field(**settings)
        quiet = [DoseMap.from_array(d, spacing_mm=(5.0,) * 3) for d in (clean, changed)]
        truth = {name: value for name, (value, _) in levels_of(*(tally_map(d) for d in quiet)).items()}
        truth["sliced"] = sliced_w2(reference=quiet[0], evaluated=quiet[1]).value
        truth["atoms_20_mm"] = truth["galerkin"]
        for percent in (0.2, 1.0, 2.0, 5.0, 10.0, 20.0):
            for i in range(replicates):
                rng = np.random.default_rng([i, int(10 * percent)])
                one, two = noisy(clean, percent, rng), noisy(changed, percent, rng)
                tallies = [tally_map(d) for d in (one, two)]
                size = sum(t.tensor.nbytes for t in tallies)
                for name, (value, seconds) in levels_of(*tallies).items():
                    rows.append((change, percent, i, name, value, truth[name], seconds, size))
                start = time.process_time()
                value = sliced_w2(reference=one, evaluated=two).value
                seconds = time.process_time() - start
                rows.append(
                    (change, percent, i, "sliced", value, truth["sliced"], seconds, one.dose_gy.nbytes)
                )
                if i == 0:
                    found = coarse_atoms_w2(one, two)
                    rows.append((change, percent, i, "atoms_20_mm", *_with(found, truth["atoms_20_mm"])))
    return rows


def real(replicates):
    """EGSnrc batches: means of k of the 20 (null: of each map) batches against 10 of the moved source."""
    tallies = {}
    for name in ("pA", "p_shift1"):
        with np.load(DATA / f"mc_egsnrc/{name}.npz") as arrays:
            batches = arrays["batches"].astype(np.float64) * float(arrays["scale"])
        dose = DoseMap.from_array(batches.mean(axis=0), spacing_mm=(4.0,) * 3, batches_gy=batches)
        tallies[name] = tally_map(dose, degree=12)
        if name == "pA":
            high = dose.dose_gy > dose.max_gy / 2
            single = 100 * float(np.mean(batches[:, high].std(axis=0, ddof=1) / dose.dose_gy[high]))
    truth = {k: v for k, (v, _) in levels_of(tallies["pA"], tallies["p_shift1"]).items()}
    rows = []
    for k in (2, 3, 5, 10):
        for i in range(replicates):
            rng = np.random.default_rng([k, i])
            pair = []
            for tally in tallies.values():
                chosen = tally.batches[rng.permutation(len(tally.batches))[:k]]
                pair.append(MomentTally(tensor=chosen.mean(axis=0), box_mm=tally.box_mm, batches=chosen))
            percent = round(single / np.sqrt(k), 2)
            for name, (value, seconds) in levels_of(*pair).items():
                size = pair[0].tensor.nbytes
                rows.append(
                    ("source moved 1 mm (EGSnrc)", percent, i, name, value, truth[name], seconds, size)
                )
    return rows


COLUMNS = ("case", "n_or_noise_percent", "replicate", "distance", "value_mm", "truth_mm", "cpu_s", "bytes")
SUMMARY_COLUMNS = ("case", COLUMNS[1], "distance", "truth_mm", "bias_mm", "spread_mm", "cpu_s", "bytes")
LABELS = ("noise / % (k = 1)", "deposits a side")


def summary(rows):
    """Bias, spread and cost of each distance at each point."""
    groups = {}
    for case, at, _, name, value, truth, seconds, size in rows:
        groups.setdefault((case, at, name), []).append((value, truth, seconds, size))
    table = []
    for (case, at, name), found in groups.items():
        values = np.array(found)
        spread = float(values[:, 0].std(ddof=1)) if len(values) > 1 else float("nan")
        truth = values[0, 1]
        table.append(
            (case, at, name, truth, values[:, 0].mean() - truth, spread, values[:, 2].mean(), size_of(values))
        )
    return table


def size_of(values):
    return int(values[:, 3].mean())


def write(folder, name, rows):
    """All rows as CSV, the summary as CSV and the figure."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / f"{name}.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows([[f"{v:.6g}" if isinstance(v, float) else v for v in row] for row in rows])
    table = summary(rows)
    with open(folder / f"{name}_summary.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(SUMMARY_COLUMNS)
        writer.writerows([[f"{v:.4g}" if isinstance(v, float) else v for v in row] for row in table])
    figure(folder / f"{name}.svg", table, LABELS[name == "samples"])


def redraw(folder, name):
    """The figure of one part from its table."""
    with open(folder / f"{name}_summary.csv", encoding="utf-8") as file:
        rows = list(csv.reader(file))[1:]
    table = [(row[0], float(row[1]), row[2], *map(float, row[3:])) for row in rows]
    figure(folder / f"{name}.svg", table, LABELS[name == "samples"])


def figure(path, table, label):
    """Error (bias and spread together) over noise or samples, one panel a case."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    cases = list(dict.fromkeys(row[0] for row in table))
    columns = min(len(cases), 2)
    height = -(-len(cases) // columns)
    drawing = Figure(figsize=(4.6 * columns, 3.4 * height + 0.9), layout="constrained")
    FigureCanvasSVG(drawing)
    grid = drawing.subplots(height, columns, squeeze=False, sharey=True)
    for axes, case in zip(grid.flat, cases, strict=False):
        own = [row for row in table if row[0] == case]
        for name in (one for one in STYLES if any(row[2] == one for row in own)):
            points = [row for row in own if row[2] == name]
            error = [np.hypot(row[4], 0.0 if np.isnan(row[5]) else row[5]) for row in points]
            title, style = STYLES[name]
            at = [row[1] for row in points]
            axes.loglog(at, np.maximum(error, 1e-4), style, ms=4, mfc="none", lw=1.2, label=title)
        if case != "samples":
            marks = sorted({row[1] for row in own})
            axes.set_xticks(marks, [f"{float(f'{m:.2g}'):g}" for m in marks])
            axes.set_xticks([], minor=True)
        axes.set(title="" if case == "samples" else case, xlabel=label)
        axes.grid(alpha=0.3)
    for axes in grid[:, 0]:
        axes.set_ylabel("error / mm")
    handles, names = grid[0, 0].get_legend_handles_labels()
    drawing.legend(handles, names, loc="outside lower center", ncols=2 if columns == 1 else 4, fontsize=8)
    drawing.savefig(path, metadata={"Date": None})


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "-o", "--output", type=Path, default=Path(__file__).resolve().parents[1] / "docs/moments"
    )
    parser.add_argument("--quick", action="store_true", help="few replicates")
    parser.add_argument("--parts", default="samples,white,real,montecarlo", help="parts to rebuild")
    parser.add_argument("--redraw", action="store_true", help="only draw the figures from the tables")
    arguments = parser.parse_args()
    few, parts = arguments.quick, arguments.parts.split(",")
    if arguments.redraw:
        for part in parts:
            redraw(arguments.output, part)
        return
    if "samples" in parts:
        found = samples(10_000, 100_000) if few else samples(1_000_000, 15_000_000)
        write(arguments.output, "samples", found)
    if "white" in parts:
        write(arguments.output, "white", white(2 if few else 8))
    if "real" in parts and (DATA / "mc_egsnrc").exists():
        write(arguments.output, "real", real(5 if few else 40))
    if "montecarlo" in parts:
        from moments_montecarlo import REPLICATES, montecarlo, tables

        levels = dict.fromkeys((20.0, 10.0, 5.0), 2) if few else REPLICATES
        write(arguments.output, "montecarlo", montecarlo(levels, 1.0 if few else 0.2))
        tables(arguments.output)
    print(
        f"written to {arguments.output}; peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MB"
    )


if __name__ == "__main__":
    main()
