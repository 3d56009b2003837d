"""Are the p values right? Real Monte Carlo batches, split at random, against every method.

    python studies/calibration.py --data DIR [--pairs 200] [--only uniformity|whole|changes|slopes]
        [--cases e_high_5,...]

DIR holds the DOSXYZnrc batches (eA.npz, eB.npz, pA.npz, pB.npz and the real changes). Results go to
docs/calibration: one CSV for each table, and the same as Markdown, which docs/noise.md includes.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from dosemover.comparison import families
from dosemover.comparison.context import ComparisonContext
from dosemover.comparison.floors import with_significance
from dosemover.comparison.registry import run, select
from dosemover.comparison.result import MetricResult
from dosemover.comparison.settings import CompareSettings
from dosemover.dose import DoseMap
from dosemover.grid import Grid
from dosemover.noise import NoiseCorrelation, NoiseModel, noise_model
from dosemover.transport import dose_mover_floor, dose_movers_distance

OUT = Path(__file__).resolve().parents[1] / "docs" / "calibration"
VOXEL_MM = (4.0, 4.0, 4.0)
DRAWS = 19
SIGNIFICANT = 0.05
REPEATS = 4

METRICS = (
    "mass_ratio",
    "mean_difference_gy",
    "rmse_gy",
    "mae_gy",
    "max_difference_gy",
    "chi2_per_voxel",
    "gamma_2_2_global_mean",
    "center_shift_mm",
    "axis_w2_mm",
    "moment_dmd_mm",
    "dmd_mm",
)
CHANGE_METRICS = (
    *METRICS,
    "ssim",
    "bures_w2_mm",
    "gamma_2_2_global_passing_rate_percent",
    "isodose_dice_50",
    "moment_w2_mm",
)
METHODS = ("batches", "uncertainty", "independent")
"""Relabelled batches; uncertainty maps with the estimated correlation; the same, voxels independent."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """Where in which beam, and how many batches a side: the fewer, the noisier."""

    beam: str
    region: tuple[slice, slice, slice]
    batches: int


_E_FIELD = (slice(0, 14), slice(24, 40), slice(34, 44))
_P_FIELD = (slice(2, 18), slice(24, 40), slice(34, 44))
CASES = {
    "e_high_5": Case(beam="e", region=_E_FIELD, batches=5),
    "e_high_20": Case(beam="e", region=_E_FIELD, batches=20),
    "e_low_10": Case(beam="e", region=(slice(0, 12), slice(24, 40), slice(2, 16)), batches=10),
    "p_high_5": Case(beam="p", region=_P_FIELD, batches=5),
    "p_high_20": Case(beam="p", region=_P_FIELD, batches=20),
    "p_low_10": Case(beam="p", region=(slice(10, 22), slice(24, 40), slice(2, 14)), batches=10),
    "p_cavity_10": Case(beam="p", region=(slice(2, 11), slice(30, 42), slice(26, 38)), batches=10),
}


def load(data: Path, name: str) -> NDArray[np.float32]:
    """Batches [batch, z, y, x], about 1 at the maximum dose."""
    with np.load(data / f"{name}.npz") as stored:
        unit = float(stored["scale"]) / (4.0e-10 if name.startswith("e") else 7.6e-12)
        return stored["batches"].astype(np.float32) * np.float32(unit)


def dose_map(batches: NDArray[Any]) -> DoseMap:
    """Mean of batches on the grid of the phantom."""
    return DoseMap.from_batches(batches, Grid.regular(shape=batches.shape[1:], spacing_mm=VOXEL_MM))


def judged(
    reference: DoseMap,
    evaluated: DoseMap,
    metrics: Iterable[str],
    *,
    draws: int,
    seed: int,
    independent: bool,
) -> dict[str, MetricResult]:
    """What `compare` reports; with voxels taken as independent where asked for."""
    names = [name for name in metrics if name != "dmd_mm"]
    settings = CompareSettings(metrics=tuple(names), null=draws, seed=seed)
    context = ComparisonContext(reference=reference, evaluated=evaluated, settings=settings)
    if independent and context.noise is not None:
        context.noise.__dict__["model"] = NoiseModel(correlation=NoiseCorrelation.independent())
    wanted = select(families.FAMILIES, settings)
    todo = [family for family in families.FAMILIES if family.name in wanted]
    results = {r.key: r for family in todo for r in run(family, context, wanted[family.name])}
    results = with_significance(context, todo, wanted, results)
    return results | (closed_dmd(context) if "dmd_mm" in metrics else {})


def closed_dmd(context: ComparisonContext) -> dict[str, MetricResult]:
    """The Dose Mover's Distance with the closed form of its floor."""
    maps = {"reference": context.reference, "evaluated": context.evaluated}
    noise = context.noise
    assert noise is not None
    value = dose_movers_distance(**maps, bounds=False, fields=False).value
    normal = noise.model.draw if noise.needs_correlation else None
    floor = dose_mover_floor(**maps, normal=normal, seed=context.settings.seed)
    z = (value - floor.floor) / floor.floor_sd
    found = MetricResult(key="dmd_mm", value=value, floor=floor.floor, z=z, p=floor.p_value(value))
    return {"dmd_mm": found}


def uniformity(data: Path, pairs: int, chosen: Iterable[str]) -> Iterator[dict[str, Any]]:
    """p values of random halves of the pooled null batches, for every case, method and metric."""
    pools = {beam: np.concatenate([load(data, f"{beam}A"), load(data, f"{beam}B")]) for beam in "ep"}
    for name in chosen:
        case = CASES[name]
        pool = pools[case.beam][(slice(None), *case.region)]
        per_batch = pool.std(axis=0, ddof=1, dtype=np.float64)
        high = pool.mean(axis=0) > 0.5 * pool.mean(axis=0).max()
        noise = float(np.median(per_batch[high] / pool.mean(axis=0)[high])) / np.sqrt(case.batches)
        for method in METHODS:
            count = pairs // 2 if method == "independent" else pairs  # fails clearly enough with half
            p = list(p_values(pool, per_batch / np.sqrt(case.batches), case.batches, method, count))
            for metric in METRICS:
                yield summary([one[metric] for one in p if one.get(metric) is not None]) | {
                    "case": name,
                    "noise_percent": round(100 * noise, 2),
                    "method": method,
                    "metric": metric,
                }


def p_values(
    pool: NDArray[Any], uncertainty: NDArray[Any], n: int, method: str, pairs: int
) -> Iterator[dict[str, float | None]]:
    """p values of one method over random pairs of n batches each; discrete ones spread over their step."""
    rng = np.random.default_rng(20)
    grid = Grid.regular(shape=pool.shape[1:], spacing_mm=VOXEL_MM)
    for seed in range(pairs):
        order = rng.permutation(len(pool))
        sides = [dose_map(pool[order[:n]]), dose_map(pool[order[n : 2 * n]])]
        if method != "batches":
            sides = [DoseMap(dose_gy=one.dose_gy, grid=grid, uncertainty_gy=uncertainty) for one in sides]
        found = judged(*sides, METRICS, draws=DRAWS, seed=seed, independent=method == "independent")
        yield {key: _spread(one, rng) for key, one in found.items()}


def _spread(result: MetricResult, rng: np.random.Generator) -> float | None:
    """p value, uniform within its step where draws made it discrete."""
    draws = result.settings.get("null_draws") or 0
    return None if result.p is None else result.p - rng.random() / (draws + 1) * (draws > 0)


def summary(p: list[float]) -> dict[str, Any]:
    """How uniform p values are, and how often 5 % tests fire."""
    if not p:
        return {"pairs": 0, "fires_percent": None, "ks_p": None}
    return {
        "pairs": len(p),
        "fires_percent": round(100 * float(np.mean(np.array(p) <= SIGNIFICANT)), 1),
        "ks_p": float(f"{stats.kstest(p, 'uniform').pvalue:.2g}"),
    }


def changes(data: Path) -> Iterator[dict[str, Any]]:
    """Which metric finds which real change, with 5 and 10 batches a side, by relabelling."""
    rng = np.random.default_rng(21)
    for change in ("e_shift1", "e_E118", "p_shift1", "p_lung035"):
        beam = change[0]
        region = (slice(None), slice(0, 16 if beam == "e" else 30), slice(17, 47), slice(17, 47))
        null = np.concatenate([load(data, f"{beam}A"), load(data, f"{beam}B")])[region]
        real = load(data, change)[region]
        for n in (5, 10):
            found: dict[str, list[MetricResult]] = {}
            for seed in range(REPEATS):
                pair = (null[rng.permutation(len(null))[:n]], real[rng.permutation(len(real))[:n]])
                one = judged(*map(dose_map, pair), CHANGE_METRICS, draws=DRAWS, seed=seed, independent=False)
                for key in CHANGE_METRICS:
                    found.setdefault(key, []).append(one[key])
            for key, results in found.items():
                z = [r.z for r in results if r.z is not None]
                yield {
                    "change": change,
                    "batches": n,
                    "metric": key,
                    "found": sum(r.p is not None and r.p <= SIGNIFICANT for r in results),
                    "value": float(f"{np.median([r.value or 0.0 for r in results]):.3g}"),
                    "floor": float(f"{np.median([r.floor or 0.0 for r in results]):.3g}"),
                    "z": float(f"{np.median(z):.3g}") if z else None,
                }


def slopes(data: Path, pairs: int = 12) -> Iterator[dict[str, Any]]:
    """Mean of each metric between null pairs against the batches a side: the slope in log-log."""
    rng = np.random.default_rng(22)
    sizes = (2, 4, 8, 16)
    for beam, region in (("e", _E_FIELD), ("p", _P_FIELD)):
        pool = np.concatenate([load(data, f"{beam}A"), load(data, f"{beam}B")])[(slice(None), *region)]
        means: dict[str, list[float]] = {}
        for n in sizes:
            values: dict[str, list[float]] = {}
            for _ in range(pairs):
                order = rng.permutation(len(pool))
                settings = CompareSettings(metrics=METRICS)
                context = ComparisonContext(
                    reference=dose_map(pool[order[:n]]),
                    evaluated=dose_map(pool[order[n : 2 * n]]),
                    settings=settings,
                    values_only=True,
                )
                for name, keys in select(families.FAMILIES, settings).items():
                    family = next(f for f in families.FAMILIES if f.name == name)
                    for r in run(family, context, keys):
                        values.setdefault(r.key, []).append(abs((r.value or 0.0) - (r.key == "mass_ratio")))
            for key, found in values.items():
                means.setdefault(key, []).append(float(np.mean(found)))
        for key, found in means.items():
            if key in METRICS and key not in ("ssim", "chi2_per_voxel"):
                fit = stats.linregress(np.log(sizes), np.log(found))
                yield {"beam": beam, "metric": key, "slope": round(float(fit.slope), 2)} | {
                    f"at_{n}_batches": float(f"{v:.3g}") for n, v in zip(sizes, found, strict=True)
                }


def whole_maps(data: Path, pairs: int, n: int = 10) -> Iterator[dict[str, Any]]:
    """Sums over the whole map and its core, from uncertainty maps and the correlation of the whole map."""
    rng = np.random.default_rng(23)
    core = (slice(0, 10), slice(10, 26), slice(10, 26))
    for beam, depth in (("e", 16), ("p", 40)):
        pool = np.concatenate([load(data, f"{beam}A"), load(data, f"{beam}B")])[:, :depth, 14:50, 14:50]
        uncertainty = pool.std(axis=0, ddof=1, dtype=np.float64) / np.sqrt(n)
        grid = Grid.regular(shape=pool.shape[1:], spacing_mm=VOXEL_MM)
        z: dict[str, list[float]] = {"whole": [], "core": []}
        inflation = []
        for _ in range(pairs):
            order = rng.permutation(len(pool))
            one, two = (
                DoseMap(
                    dose_gy=pool[half].mean(axis=0, dtype=np.float64), grid=grid, uncertainty_gy=uncertainty
                )
                for half in (order[:n], order[n : 2 * n])
            )
            inflation.append(noise_model(reference=one, evaluated=two).correlation.inflation)
            for name, where in (("whole", ...), ("core", core)):
                total = float(np.sum((two.dose_gy - one.dose_gy)[where]))
                z[name].append(total / float(np.sqrt(2 * np.sum(uncertainty[where] ** 2))))
        for name, values in z.items():
            plain = np.abs(values)
            yield {
                "beam": beam,
                "sum over": name,
                "variance over independent voxels": round(float(np.var(values)), 2),
                "as estimated from a pair (median)": round(float(np.median(inflation)), 2),
                "fires_percent": 100 * float(np.mean(plain / np.sqrt(inflation) > 1.96)),
                "independent voxels fire_percent": 100 * float(np.mean(plain > 1.96)),
            }


def write(out: Path, name: str, rows: list[dict[str, Any]]) -> None:
    """One table as CSV and as Markdown; rows of an earlier run with other cases stay."""
    path = out / f"{name}.csv"
    keys = list(rows[0])
    if name == "uniformity":
        keys = ["case", "noise_percent", "method", "metric", "pairs", "fires_percent", "ks_p"]
        rows = _kept(path, {row["case"] for row in rows}) + rows
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, keys, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    table = _pivot(rows, *_LAYOUT[name]) if name in _LAYOUT else (keys, [[r[k] for k in keys] for r in rows])
    head, body = table
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join("" if v is None else str(v) for v in line) + " |" for line in body]
    (out / f"{name}.md").write_text("\n".join(lines) + "\n")


_LAYOUT = {
    "uniformity": (("case", "noise_percent", "method"), "metric", "fires_percent"),
    "changes": (("metric",), ("change", "batches"), ("found", "z")),
}
"""Rows, columns and entries of the Markdown tables."""


def _pivot(
    rows: list[dict[str, Any]], row: Any, column: Any, entry: Any
) -> tuple[list[str], list[list[Any]]]:
    """Rows of a long table as a wide one."""

    def label(one: dict[str, Any], names: Any) -> str:
        return " ".join(str(one[n]) for n in ((names,) if isinstance(names, str) else names))

    columns = list(dict.fromkeys(label(r, column) for r in rows))
    lines: dict[tuple[str, ...], dict[str, str]] = {}
    for r in rows:
        value = r[entry] if isinstance(entry, str) else f"{r[entry[0]]}/{REPEATS} (z {r[entry[1]]})"
        lines.setdefault(tuple(str(r[n]) for n in row), {})[label(r, column)] = value
    return [*row, *columns], [[*key, *(line.get(c) for c in columns)] for key, line in lines.items()]


def _kept(path: Path, replaced: set[str]) -> list[dict[str, Any]]:
    """Rows of cases that are not run again."""
    if not path.exists():
        return []
    with path.open() as file:
        return [row for row in csv.DictReader(file) if row["case"] not in replaced]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--only", choices=("uniformity", "whole", "changes", "slopes"))
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.only in (None, "uniformity"):
        for name in options.cases.split(","):
            write(options.out, "uniformity", list(uniformity(options.data, options.pairs, [name])))
            print(name, "done")
    if options.only in (None, "whole"):
        write(options.out, "whole", list(whole_maps(options.data, options.pairs)))
    if options.only in (None, "changes"):
        write(options.out, "changes", list(changes(options.data)))
    if options.only in (None, "slopes"):
        write(options.out, "slopes", list(slopes(options.data)))


if __name__ == "__main__":
    main()
