"""Moment-SoS solver beside CVXOPT, Clarabel and SCS, and tallies of large maps, in one run.

    python benchmarks/moments.py [--cases C,D] [--orders 2,3] [--solvers CVXOPT,CLARABEL,SCS] [--large]

Seconds are CPU seconds of this process with one BLAS thread; memory is the peak of the process so far.
"""

import argparse
import importlib.util
import resource
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from dosemover.dose import DoseMap
from dosemover.moments import galerkin_w2, moment_sos, tally_map, w2_bounds
from dosemover.moments.legendre import legendre
from dosemover.moments.tally import MomentTally

ROOT = Path(__file__).resolve().parents[1]


def example():
    """The readable hierarchy of examples/."""
    spec = importlib.util.spec_from_file_location("moment_hierarchy", ROOT / "examples/moment_hierarchy.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def exact_tally(points, weights, half, degree):
    """Moments of a quadrature rule on [-half, half]."""
    flat = np.eye(1, degree + 1).repeat(len(points), axis=0)
    tables = [flat] * (3 - points.shape[1])
    tables += [legendre(points[:, i] / half[i], degree) for i in range(points.shape[1])]
    box = [(-1.0, 1.0)] * (3 - points.shape[1]) + [(-h, h) for h in half]
    return MomentTally(
        tensor=np.einsum("n,na,nb,nc->abc", weights, *tables, optimize=True), box_mm=tuple(box)
    )


def peak_mb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def timed(call):
    start = time.process_time()
    value = call()
    return value, time.process_time() - start


def row(name, order, solver, value, exact, seconds):
    print(
        f"{name}  {order}  {solver:<16} {value:.8f}  {value / exact:.5f}  {seconds:8.2f} s  {peak_mb():6d} MB"
    )
    sys.stdout.flush()


def solvers(module, name, order, general):
    """One case with every solver."""
    x, weights, image, half, exact = module.case(name)
    one = exact_tally(x, weights, np.ones(x.shape[1]), 2 * order)
    two = exact_tally(image, weights, half, 2 * order)
    for basis in ("full", "reduced") if order > 1 else ("full",):
        found, seconds = timed(partial(moment_sos, reference=one, evaluated=two, order=order, basis=basis))
        row(name, order, f"own, {basis}", found.lower_squared_mm2, exact, seconds)
    for solver in general:
        value, seconds = timed(partial(module.bound, name, order, solver))
        row(name, order, solver, value, exact, seconds)


def field(n, *, depth=0.3, shift=0.0, spot=0.0, tilt=0.0):
    """Field of 100 mm in a box of 200 mm with smooth edges: distal depth (tilted across), shift, hot spot.

    Lengths in units of 100 mm; the hot spot has a standard deviation of 10 mm.
    """
    t = (np.arange(n) + 0.5) / n * 2 - 1

    def edge(s, at):
        return 1 / (1 + np.exp(-(at - s) / 0.05))

    along = edge(t[None, :], depth + tilt * t[:, None]) * (1 - edge(t, -0.6))  # [y, x]
    dose = edge(np.abs(t), 0.5)[:, None, None] * (edge(np.abs(t - shift), 0.5)[:, None] * along)[None] + 1e-3
    if spot:
        bell = np.exp(-(t**2) / (2 * 0.1**2))
        dose *= 1 + spot * bell[:, None, None] * bell[:, None] * bell
    return DoseMap.from_array(dose.astype(np.float32), spacing_mm=(200 / n,) * 3)


CHANGES = {
    "shift 3 mm": {"shift": 0.03},
    "range 8 mm": {"depth": 0.38},
    "hot spot +30 %": {"spot": 0.3},
    "range tilted by 5 mm": {"tilt": 0.1},
}


def large(n):
    """Tallies, Galerkin estimate and interval of maps of n^3 voxels."""
    one = field(n)
    tally_map(one, degree=2)
    for name, change in CHANGES.items():
        two = field(n, **change)
        start = time.perf_counter()
        tallies = [tally_map(dose) for dose in (one, two)]
        tally_seconds = time.perf_counter() - start
        found, seconds = timed(lambda pair=tallies: galerkin_w2(reference=pair[0], evaluated=pair[1]))
        start, cpu = time.perf_counter(), time.process_time()
        bounds = w2_bounds(reference=one, evaluated=two)
        wall, cpu = time.perf_counter() - start, time.process_time() - cpu
        print(
            f"{name}, {n}^3 voxels: two tallies of degree 12 {tally_seconds:.2f} s wall, "
            f"Galerkin {found.value_mm:.4f} mm {seconds:.2f} s\n"
            f"  interval [{bounds.lower_mm:.4f}, {bounds.upper_mm:.4f}] mm, {100 * bounds.gap:.2f} % wide: "
            f"{wall:.1f} s wall, {cpu:.1f} CPU-s, {peak_mb()} MB",
            flush=True,
        )
        for bound in bounds.bounds:
            print(f"    {bound.name:<16} {bound.side}  {bound.value_mm}  {bound.seconds:.2f} s")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", default="C,D")
    parser.add_argument("--orders", default="2,3")
    parser.add_argument("--solvers", default="CVXOPT,CLARABEL,SCS", help="general solvers; none with ''")
    parser.add_argument("--large", type=int, metavar="N", help="also time maps of N^3 voxels")
    arguments = parser.parse_args()
    module = example()
    general = [s for s in arguments.solvers.split(",") if s]
    print("case r  solver           bound on W_2^2  share    CPU seconds  peak")
    with threadpool_limits(limits=1):
        for name in filter(None, arguments.cases.split(",")):
            for order in arguments.orders.split(","):
                solvers(module, name, int(order), general)
    if arguments.large:
        large(arguments.large)


if __name__ == "__main__":
    main()
