"""Gamma against pymedphys in one run: CPU seconds, wall seconds, peak memory and passing rates.

    python benchmarks/gamma.py [--quick | --full] [--threads N]

By default pymedphys evaluates a random subset of the points on the larger maps and its time is scaled
to all of them (marked ~); ``--full`` lets it evaluate every point, which takes hours; ``--quick`` stays
at 64^3. dosemover always evaluates every point, kernels compiled before. The maps are a plan of two
modulated fields with penumbra and depth dose, against itself moved by 1.3 mm with a local error; and
against itself 10 % higher, where nearly every point fails: the worst case of a search.
"""

from __future__ import annotations

import argparse
import resource
import time
import warnings

import numpy as np
from scipy.special import erf

from dosemover.dose import DoseMap
from dosemover.metrics import gamma_index, gamma_indices

SIDE_MM = 256.0
CRITERIA = ((3.0, 3.0), (2.0, 2.0), (1.0, 1.0))
SUBSET = 20_000


def plan(shape, *, shift_mm=(0.0, 0.0, 0.0), local_error=0.0, output=1.0) -> DoseMap:
    """Two crossing fields in a cube of water: penumbra, depth dose, modulation; 60 Gy at most."""
    spacing = [SIDE_MM / n for n in shape]
    z, y, x = (
        (np.arange(n) + 0.5) * h - SIDE_MM / 2 - moved
        for n, h, moved in zip(shape, spacing, shift_mm, strict=True)
    )
    z, y = z[:, None, None], y[:, None]

    def edge(u, half_width):
        return 0.5 * (erf((u + half_width) / 5.0) - erf((u - half_width) / 5.0))

    def depth(u):
        return np.exp(-(u + 128.0) / 190.0) * (1.0 - 0.9 * np.exp(-np.maximum(u + 128.0, 0.0) / 8.0))

    error = local_error * np.sin(x / 9.0 + z / 11.0 + y / 13.0)
    front = edge(x, 55.0) * edge(z, 60.0) * depth(y) * (1.0 + 0.15 * np.sin(x / 14.0) * np.cos(z / 17.0))
    side = edge(y, 45.0) * edge(z, 60.0) * depth(x) * (1.0 + 0.10 * np.cos(y / 10.0) * np.sin(z / 12.0))
    dose = (front * (1.0 + error) + 0.6 * side) * (60.0 / 1.2) * output
    return DoseMap.from_array(
        np.maximum(dose, 0.0).astype(np.float32),
        spacing_mm=tuple(spacing[::-1]),
        origin_mm=tuple(h / 2 - SIDE_MM / 2 for h in spacing[::-1]),
    )


def peak_above_now(run):
    """Result of ``run``, CPU s, wall s, and peak memory above that at the start [MB] (None off Linux)."""
    resident = None
    try:
        with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
            file.write("5")
        resident = memory_kb("VmRSS")
    except OSError:
        pass
    cpu, wall = time.process_time(), time.perf_counter()
    result = run()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    peak = None if resident is None else (memory_kb("VmHWM") - resident) / 1024
    return result, cpu, wall, peak


def memory_kb(field):
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(field))


def pymedphys_seconds(reference, evaluated, criterion, normalization, *, every_point):
    """CPU seconds and passing rate of pymedphys, scaled to every point where it took a subset."""
    import pymedphys

    points = np.count_nonzero(reference.dose_gy >= 0.1 * reference.max_gy)
    subset = None if every_point or points <= SUBSET else SUBSET
    axes = reference.grid.centers_mm
    np.random.seed(0)  # noqa: NPY002 - pymedphys draws its subset from the global generator
    start = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gamma = pymedphys.gamma(
            axes,
            np.asarray(reference.dose_gy, dtype=float),
            axes,
            np.asarray(evaluated.dose_gy, dtype=float),
            *criterion,
            lower_percent_dose_cutoff=10,
            interp_fraction=10,
            max_gamma=2,
            local_gamma=normalization == "local",
            random_subset=subset,
        )
    seconds = time.process_time() - start
    rate = 100.0 * float(np.mean(gamma[~np.isnan(gamma)] <= 1))
    return seconds * (1 if subset is None else points / subset), rate, subset is not None


def compare(shape, *, every_point):
    """One block of the table."""
    reference = plan(shape)
    evaluated = plan(shape, shift_mm=(0.7, 0.5, 1.0), local_error=0.02)
    name = "x".join(map(str, shape[::-1]))
    alone = []
    for criterion in CRITERIA:
        for normalization in ("global", "local"):
            result, cpu, wall, peak = peak_above_now(
                lambda c=criterion, n=normalization: gamma_index(
                    reference=reference,
                    evaluated=evaluated,
                    dose_criterion_percent=c[0],
                    distance_criterion_mm=c[1],
                    normalization=n,
                )
            )
            alone.append(cpu)
            line = f"{name:>12} {result.key:>11} {result.n_evaluated:>8} {result.passing_rate_percent:8.3f}"
            line += f" {cpu:8.2f} {wall:8.2f} {'-' if peak is None else f'{peak:.0f}':>6}"
            try:
                theirs, rate, scaled = pymedphys_seconds(
                    reference, evaluated, criterion, normalization, every_point=every_point
                )
                line += f" {rate:8.3f} {'~' if scaled else ' '}{theirs:8.1f} {theirs / cpu:7.0f}x"
            except ImportError:
                line += "   pymedphys is not installed"
            print(line, flush=True)
    _, cpu, wall, peak = peak_above_now(lambda: gamma_indices(reference=reference, evaluated=evaluated))
    print(f"{name:>12} {'all six':>11} {cpu:26.2f} {wall:8.2f} {peak or 0:6.0f}   "
          f"{cpu / max(alone):.2f} to {cpu / min(alone):.2f} times one of them")  # fmt: skip
    worst = plan(shape, output=1.1)
    for criterion in CRITERIA:
        for normalization in ("global", "local"):
            result, cpu, wall, peak = peak_above_now(
                lambda c=criterion, n=normalization: gamma_index(
                    reference=reference,
                    evaluated=worst,
                    dose_criterion_percent=c[0],
                    distance_criterion_mm=c[1],
                    normalization=n,
                )
            )
            print(f"{name:>12} {result.key:>11} {result.n_evaluated:>8} {result.passing_rate_percent:8.3f}"
                  f" {cpu:8.2f} {wall:8.2f} {peak or 0:6.0f}   10 % output error", flush=True)  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="64^3 alone")
    parser.add_argument("--full", action="store_true", help="let pymedphys evaluate every point")
    parser.add_argument("--threads", type=int, help="threads of dosemover")
    arguments = parser.parse_args()
    if arguments.threads:
        import numba

        numba.set_num_threads(arguments.threads)
    small = plan((16, 16, 16))
    gamma_indices(reference=small, evaluated=small)  # compiles the kernels
    print(f"{'grid':>12} {'criterion':>11} {'points':>8} {'passing':>8} {'CPU s':>8} {'wall s':>8} {'MB':>6}"
          f" {'pymedphys':>8} {'CPU s':>8} {'ratio':>8}")  # fmt: skip
    shapes = [(64, 64, 64)] if arguments.quick else [(64, 64, 64), (128, 128, 128), (128, 256, 256)]
    for shape in shapes:
        compare(shape, every_point=arguments.full or shape == (64, 64, 64))
    print(f"largest resident memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


if __name__ == "__main__":
    main()
