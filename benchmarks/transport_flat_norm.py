"""Flat norm, W_1, sliced, Sobolev and Sinkhorn distances: intervals, seconds and memory, beside POT.

    python benchmarks/transport_flat_norm.py [--quick] [--threads N]

``--quick`` stays at 64^3. The maps fill a cube of 256 mm: a target with penumbra in a low-dose bath, moved
by 1 mm along the diagonal; a beam whose range is 3 mm longer in half the field; 2 % more output and a hot
spot; one field against two; and noise as of Monte Carlo. POT solves the same maps as voxel atoms, as far as
its cost matrix goes, and sliced distances from the atoms. Kernels are compiled before anything is timed.
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np
from scipy.special import erf

from dosemover import transport
from dosemover.dose import DoseMap

SIDE_MM = 256.0
CASES = ("shift", "range", "hot spot", "two fields", "shift, noise 2 %", "noise 5 %")
SIZES = ((64, 64, 64), (128, 128, 128), (256, 256, 128))


def axes(shape):
    """Coordinates (z, y, x) around the middle of the cube, ready to broadcast."""
    z, y, x = ((np.arange(n) + 0.5) * SIDE_MM / n - SIDE_MM / 2 for n in shape)
    return z[:, None, None], y[:, None], x


def step(u, width):
    """Smooth step from 0 to 1 at u = 0."""
    return 0.5 * (1 + erf(u / (width * np.sqrt(2))))


def target(shape, moved=0.0):
    """Ellipsoidal plateau with 6 mm penumbra over a broad bath, moved along the diagonal [mm]."""
    z, y, x = (u - moved / np.sqrt(3) for u in axes(shape))
    radius = np.sqrt(x**2 + (y / 0.8) ** 2 + (z / 0.9) ** 2)
    bath = np.exp(-((x / 70) ** 2 + (y / 60) ** 2 + (z / 45) ** 2) / 2)
    return 0.8 * step(50 - radius, 3.6) + 0.2 * bath


def field(shape, middle, half=25.0):
    """A box field with 4 mm edges around ``middle`` (x, y, z) [mm]."""
    z, y, x = axes(shape)
    edges = [step(half - np.abs(u - m), 4.0) for u, m in zip((x, y, z), middle, strict=True)]
    return edges[0] * edges[1] * edges[2]


def beam(shape, longer=0.0):
    """A beam along x that stops at 30 mm, ``longer`` [mm] further where y is positive."""
    z, y, x = axes(shape)
    end = 30.0 + longer * step(y, 4.0)
    rise = np.where(x < end - 40, 0.55 + 0.45 * np.exp((x - end + 40) / 40), 1.0)
    return step(end - x, 2.5) * rise * step(40 - np.abs(y), 4.0) * step(30 - np.abs(z), 4.0)


def noisy(dose, share, rng):
    """Noise that grows as the root of the dose, ``share`` of the maximum at the maximum."""
    return np.maximum(dose + share * np.sqrt(dose) * rng.standard_normal(dose.shape), 0)


def pair(case, shape):
    """Reference and evaluated map of a case."""
    rng = np.random.default_rng(1)
    a = target(shape)
    if case.startswith("shift"):
        b = target(shape, 1.0)
    elif case == "range":
        a, b = beam(shape), beam(shape, 3.0)
    elif case == "hot spot":
        z, y, x = axes(shape)
        b = 1.02 * a + 0.3 * step(10 - np.sqrt((x - 10) ** 2 + y**2 + (z + 8) ** 2), 1.5)
    elif case == "two fields":
        a = field(shape, (0, 0, 0))
        b = 0.5 * (field(shape, (-70, 30, 0)) + field(shape, (70, -20, 20)))
    else:
        b = a
    if "noise" in case:
        share = 0.02 if "2 %" in case else 0.05
        a, b = noisy(a, share, rng), noisy(b, share, rng)
    spacing = tuple(SIDE_MM / n for n in shape[::-1])
    return tuple(DoseMap.from_array(dose, spacing_mm=spacing) for dose in (a, b))


def timed(run):
    """Result of ``run``, CPU and wall seconds."""
    cpu, wall = time.process_time(), time.perf_counter()
    result = run()
    return result, time.process_time() - cpu, time.perf_counter() - wall


def row(name, case, shape, result, cpu, wall):
    """One line of the table."""
    solver = result.settings.get("solver_upper_mm")
    inner = f"{100 * (1 - result.lower / solver):6.2f}" if solver else "     -"
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
    a, b = pair("shift", shape)
    for name in ("axis_w2", "sliced_w1", "sliced_w2", "sobolev_w2"):
        row(name, "shift", shape, *timed(lambda n=name: getattr(transport, n)(reference=a, evaluated=b)))
    if np.prod(shape) <= 128**3:
        found = timed(lambda: transport.sinkhorn_divergence(reference=a, evaluated=b, blur_mm=8.0))
        row("sinkhorn, blur 8", "shift", shape, *found)


def pots(shape):
    """POT on the same maps as voxel atoms."""
    import ot

    a, b = pair("shift", shape)
    z, y, x = np.meshgrid(*a.grid.centers_mm, indexing="ij")
    points = np.stack([x.ravel(), y.ravel(), z.ravel()], axis=1)
    p, q = (m.dose_gy.ravel() / m.dose_gy.sum() for m in (a, b))
    size = "x".join(map(str, shape[::-1]))
    if points.shape[0] <= 16**3:
        cost = ot.dist(points, points, metric="euclidean")
        value, cpu, wall = timed(lambda: ot.emd2(p, q, cost, numItermax=10_000_000))
        print(f"{'POT emd2, W_1':18} {'shift':17} {size:>12} {value:10.5f} {'':19} {cpu:8.2f} {wall:8.2f}")
    value, cpu, wall = timed(
        lambda: ot.sliced_wasserstein_distance(points, points, p, q, n_projections=64, seed=0)
    )
    print(f"{'POT sliced, 64':18} {'shift':17} {size:>12} {value:10.5f} {'':19} {cpu:8.2f} {wall:8.2f}")


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
