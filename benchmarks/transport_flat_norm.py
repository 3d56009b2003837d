"""Flat norm, W_1, sliced, Sobolev and Sinkhorn distances: intervals, seconds and memory, beside POT.

    python benchmarks/transport_flat_norm.py [--quick] [--threads N]

``--quick`` stays at 64^3. The maps are those of `transport_cases.py`. POT solves the same maps as voxel
atoms, as far as its cost matrix goes, and sliced distances from the atoms. Kernels are compiled before
anything is timed.
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np
from transport_cases import pair

from dosemover import transport

CASES = ("shift 1 mm", "range 3 mm", "hot spot", "one field to two", "shift, noise 2 %", "noise 5 %")
SIZES = ((64, 64, 64), (128, 128, 128), (256, 256, 128))


def timed(run):
    """Result of ``run``, CPU and wall seconds."""
    cpu, wall = time.process_time(), time.perf_counter()
    result = run()
    return result, time.process_time() - cpu, time.perf_counter() - wall


def row(name, case, shape, result, cpu, wall):
    """One line of the table."""
    solver = result.settings.get("solver_upper_mm"), result.settings.get("solver_lower_mm")
    inner = f"{100 * (1 - solver[1] / solver[0]):6.2f}" if solver[0] else "     -"
    outer = f"{100 * result.gap:6.2f}" if result.gap is not None else "     -"
    size = "x".join(map(str, shape[::-1]))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{name:18} {case:17} {size:>12} {result.value:10.5f} {inner} {outer} {result.n_iterations:5d}"
        f" {cpu:8.2f} {wall:8.2f} {peak:7.0f}",
        flush=True,
    )


def ours(shape):
    """Every case by the flat norm and W_1, the first by the companions."""
    for case in CASES:
        a, b = pair(case, shape)
        for name, solver in (("flat norm, R 10", transport.flat_norm), ("W_1", transport.wasserstein_1)):
            row(name, case, shape, *timed(lambda s=solver, a=a, b=b: s(reference=a, evaluated=b)))
        if case == "hot spot":
            coarse = timed(lambda a=a, b=b: transport.wasserstein_1(reference=a, evaluated=b, tolerance=0.03))
            row("W_1, tolerance 3 %", case, shape, *coarse)
    a, b = pair("shift 1 mm", shape)
    for name in ("axis_w2", "sliced_w1", "sliced_w2", "sobolev_w2"):
        row(name, "shift 1 mm", shape, *timed(lambda n=name: getattr(transport, n)(reference=a, evaluated=b)))
    if np.prod(shape) <= 128**3:
        found = timed(lambda: transport.sinkhorn_divergence(reference=a, evaluated=b, blur_mm=8.0))
        row("sinkhorn, blur 8", "shift 1 mm", shape, *found)


def pots(shape):
    """POT on the same maps as voxel atoms."""
    import ot

    a, b = pair("shift 1 mm", shape)
    z, y, x = np.meshgrid(*a.grid.centers_mm, indexing="ij")
    points = np.stack([x.ravel(), y.ravel(), z.ravel()], axis=1)
    p, q = (m.dose_gy.ravel() / m.dose_gy.sum() for m in (a, b))
    size = "x".join(map(str, shape[::-1]))
    if points.shape[0] <= 16**3:
        cost = ot.dist(points, points, metric="euclidean")
        value, cpu, wall = timed(lambda: ot.emd2(p, q, cost, numItermax=10_000_000))
        print(
            f"{'POT emd2, W_1':18} {'shift 1 mm':17} {size:>12} {value:10.5f} {'':19} {cpu:8.2f} {wall:8.2f}"
        )
    value, cpu, wall = timed(
        lambda: ot.sliced_wasserstein_distance(points, points, p, q, n_projections=64, seed=0)
    )
    print(f"{'POT sliced, 64':18} {'shift 1 mm':17} {size:>12} {value:10.5f} {'':19} {cpu:8.2f} {wall:8.2f}")


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="stay at 64^3")
    parser.add_argument("--threads", type=int, help="Numba threads (default: all)")
    chosen = parser.parse_args()
    if chosen.threads:
        import numba

        numba.set_num_threads(chosen.threads)
    a, b = pair("noise 5 %", (16, 16, 16))
    for name in ("flat_norm", "wasserstein_1", "sliced_w1", "sliced_w2", "sobolev_w2", "sinkhorn_divergence"):
        getattr(transport, name)(reference=a, evaluated=b)
    print(
        f"{'distance':18} {'case':17} {'grid':>12} {'value/mm':>10} {'solver':>6} {'all %':>6} {'steps':>5}"
        f" {'CPU s':>8} {'wall s':>8} {'peak MB':>7}"
    )
    for shape in SIZES[:1] if chosen.quick else SIZES:
        ours(shape)
    for shape in ((16, 16, 16), (32, 32, 32), (64, 64, 64)):
        pots(shape)


if __name__ == "__main__":
    main()
