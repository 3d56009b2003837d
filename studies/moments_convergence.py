"""Figure and table of docs/moments.md: the hierarchy over its order r for the closed-form cases A to D.

python studies/moments_convergence.py [-o docs/moments]
"""

import argparse
import csv
import importlib.util
import time
from pathlib import Path

import numpy as np

from dosemover.moments import moment_sos
from dosemover.moments.legendre import legendre
from dosemover.moments.tally import MomentTally

ROOT = Path(__file__).resolve().parents[1]
ORDERS = {"A": range(1, 9), "B": range(1, 9), "C": range(1, 6), "D": range(1, 4)}


def example():
    """The closed-form cases of the readable script."""
    spec = importlib.util.spec_from_file_location("moment_hierarchy", ROOT / "examples/moment_hierarchy.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def exact_tally(points, weights, half, degree):
    """Moments of a quadrature rule on [-half, half]."""
    flat = np.eye(1, degree + 1).repeat(len(points), axis=0)
    tables = [flat] * (3 - points.shape[1])
    tables += [legendre(points[:, i] / half[i], degree) for i in range(points.shape[1])]
    tensor = np.einsum("n,na,nb,nc->abc", weights, *tables, optimize=True)
    box = [(-1.0, 1.0)] * (3 - points.shape[1]) + [(-h, h) for h in half]
    return MomentTally(tensor=tensor, box_mm=tuple(box))


def bounds(module):
    """Case, order, exact W_2^2, certified bound, value of the moment problem, CPU seconds."""
    for name, orders in ORDERS.items():
        x, weights, image, half, exact = module.case(name)
        for order in orders:
            one = exact_tally(x, weights, np.ones(x.shape[1]), 2 * order)
            two = exact_tally(image, weights, half, 2 * order)
            start = time.process_time()
            found = moment_sos(reference=one, evaluated=two, order=order)
            yield name, order, exact, found.lower_squared_mm2, found.primal_mm**2, time.process_time() - start


def figure(path, rows):
    """Share of W_2 that each order misses."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(5, 3.6), layout="constrained")
    FigureCanvasSVG(drawing)
    axes = drawing.add_subplot()
    for name in ORDERS:
        own = [row for row in rows if row[0] == name]
        axes.semilogy(
            [r[1] for r in own],
            [100 * (1 - np.sqrt(r[3] / r[2])) for r in own],
            marker="o",
            label=f"case {name}",
        )
    axes.set(xlabel="order r", ylabel="missing part of $W_2$ / %")
    axes.grid(alpha=0.3)
    axes.legend()
    drawing.savefig(path, metadata={"Date": None})


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "docs/moments")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    rows = list(bounds(example()))
    with open(arguments.output / "convergence.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("case", "order", "exact_w2_squared", "certified_lower", "moment_problem", "cpu_s"))
        writer.writerows([[f"{v:.8g}" if isinstance(v, float) else v for v in row] for row in rows])
    figure(arguments.output / "convergence.svg", rows)


if __name__ == "__main__":
    main()
