"""Are the p values right? Real Monte Carlo batches, split at random, against every method.

    python studies/calibration.py --data DIR [--pairs 200] [--only uniformity|validation|whole|...]
        [--cases e_high_5,...] [--methods batches,...]

DIR holds the DOSXYZnrc batches (eA.npz, eB.npz, pA.npz, pB.npz and the real changes); a planned dose without
noise is read from DIR/../slicerrt. Results go to
docs/calibration: one CSV for each table, and the same as Markdown, which docs/noise.md includes.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
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
from dosemover.comparison.transport import mover_judge
from dosemover.dose import DoseMap, Structure
from dosemover.examples import example_pair
from dosemover.grid import Grid
from dosemover.io import read_dose
from dosemover.montecarlo import (
    Beam,
    PointSource,
    SimulationConfig,
    Spectrum,
    simulate,
    thorax,
    water_tank,
)
from dosemover.noise import NoiseCorrelation, NoiseModel, noise_model
from dosemover.transport import dose_movers_distance

OUT = Path(__file__).resolve().parents[1] / "docs" / "calibration"
VOXEL_MM = (4.0, 4.0, 4.0)
DRAWS = 19
SIGNIFICANT = 0.05
BATCHES = 40
REPEATS = 4

METRICS = (
    "mass_ratio",
    "mean_difference_gy",
    "rmse_gy",
    "debiased_rmse_gy",
    "mae_gy",
    "max_difference_gy",
    "chi2_per_voxel",
    "gamma_2_2_global_mean",
    "center_shift_mm",
    "axis_w2_mm",
    "moment_dmd_mm",
    "dmd_mm",
    "dmd_moved_mm",
    "dmd_changed_percent",
)
DMD = frozenset({"dmd_mm", "dmd_moved_mm", "dmd_changed_percent"})
"""Those of the Dose Mover's Distance, found without its bounds."""
CHANGE_METRICS = (
    *METRICS,
    "ssim",
    "bures_w2_mm",
    "gamma_2_2_global_passing_rate_percent",
    "isodose_dice_50",
    "moment_w2_mm",
)
MORE_METRICS = (
    "p95_difference_gy",
    "p99_difference_gy",
    "dose_difference_passing_2_percent",
    "psnr_db",
    "ssim_in_mask",
    "gamma_3_3_global_passing_rate_percent",
    "gamma_3_3_global_mean",
    "kf_fraction_percent",
    "isodose_surface_50_mm",
    "mean_shift_mm",
    "axis_w1_mm",
    "sliced_w2_mm",
)
"""Tried on the real changes with 10 batches a side."""
COSTLY_METRICS = ("kr_mm", "w1_mm", "w2_mm", "sliced_w1_mm", "sinkhorn_divergence_mm", "best_shift_mm")
"""Tried on the real changes with 10 batches a side on 8 mm voxels."""
METHODS = ("batches", "uncertainty", "independent")
"""Relabelled batches; uncertainty maps with the estimated correlation; the same, voxels independent."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """Which voxels of which beam, and how many batches a side: the fewer, the noisier.

    Parameters
    ----------
    beam : str
        "e", "p" (DOSXYZnrc), "kv" (the built-in engine) or "white" (a field with independent noise).
    size : tuple of int
        Voxels (z, y, x) of the region.
    starts : tuple of (int, int)
        First and last index, along (z, y, x), at which the region of a pair may begin: the batches of one
        region are one sample of 40, whose variance of a sum is known to 22 % only.
    batches : int
    """

    beam: str
    size: tuple[int, int, int]
    starts: tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
    batches: int

    def region(self, rng: np.random.Generator) -> tuple[slice, ...]:
        """Where one pair is cut out of the batches."""
        first = [int(rng.integers(low, high + 1)) for low, high in self.starts]
        return (slice(None), *(slice(i, i + n) for i, n in zip(first, self.size, strict=True)))


_E_FIELD: Any = {"beam": "e", "size": (14, 16, 10), "starts": ((0, 0), (21, 28), (21, 33))}
_P_FIELD: Any = {"beam": "p", "size": (16, 16, 10), "starts": ((2, 7), (21, 28), (21, 33))}
_SMALL_FIELD: Any = {"size": (12, 12, 12), "starts": ((4, 10), (7, 9), (7, 9))}
_SMALL_OUTSIDE: Any = {"size": (16, 24, 6), "starts": ((2, 8), (0, 4), (0, 1))}
CASES = {
    "e_high_5": Case(**_E_FIELD, batches=5),
    "e_high_12": Case(**_E_FIELD, batches=12),
    "e_low_10": Case(beam="e", size=(12, 16, 14), starts=((0, 0), (16, 32), (0, 2)), batches=10),
    "p_high_5": Case(**_P_FIELD, batches=5),
    "p_high_12": Case(**_P_FIELD, batches=12),
    "p_low_10": Case(beam="p", size=(12, 16, 12), starts=((6, 13), (16, 32), (0, 2)), batches=10),
    "p_cavity_10": Case(beam="p", size=(9, 12, 12), starts=((2, 2), (30, 30), (26, 26)), batches=10),
    "kv_high_10": Case(beam="kv", **_SMALL_FIELD, batches=10),
    "kv_low_10": Case(beam="kv", **_SMALL_OUTSIDE, batches=10),
    "white_high_10": Case(beam="white", **_SMALL_FIELD, batches=10),
    "white_low_10": Case(beam="white", **_SMALL_OUTSIDE, batches=10),
}
UNSEEN = {
    "brachy_near_10": Case(beam="brachy", size=(12, 12, 12), starts=((4, 8), (4, 8), (4, 8)), batches=10),
    "brachy_far_5": Case(beam="brachy", size=(22, 22, 7), starts=((0, 2), (0, 2), (0, 1)), batches=5),
    "thorax_10": Case(beam="thorax", size=(10, 14, 12), starts=((6, 9), (3, 8), (13, 18)), batches=10),
    "e_tail_10": Case(beam="e", size=(10, 16, 12), starts=((14, 17), (17, 31), (17, 35)), batches=10),
    "p_deep_8": Case(beam="p", size=(14, 14, 14), starts=((20, 28), (18, 32), (18, 32)), batches=8),
}
"""Beams, phantoms and places that the method was not developed on."""


def pools(data: Path, beams: set[str]) -> dict[str, NDArray[np.float32]]:
    """40 null batches [batch, z, y, x] of each beam."""
    made = {
        "kv": engine_batches,
        "white": white_batches,
        "brachy": brachy_batches,
        "thorax": thorax_batches,
    }
    return {
        beam: made[beam]()
        if beam in made
        else np.concatenate([load(data, f"{beam}A"), load(data, f"{beam}B")])
        for beam in sorted(beams)
    }


def engine_batches() -> NDArray[np.float32]:
    """Batches of the built-in engine: 100 kV-like photons on water, about 1 at the maximum."""
    beam = Beam(spectrum=Spectrum.mono(0.1), field_mm=70.0)
    tank = water_tank(size_mm=140.0, voxel_mm=5.0)
    config = SimulationConfig(phantom=tank, sources=(beam,), histories=BATCHES * 40_000, batches=BATCHES)
    batches = simulate(config, seed=20).batches_gy
    assert batches is not None
    along_z = np.moveaxis(batches, 2, 1)  # the beam travels along y
    return np.asarray(along_z / along_z.mean(axis=0).max(), dtype=np.float32)


def brachy_batches() -> NDArray[np.float32]:
    """Batches of the built-in engine: Ir-192 at two dwell positions in water, 5 mm voxels."""
    sources = tuple(
        PointSource(spectrum=Spectrum.radionuclide("Ir-192"), position_mm=(0.0, 0.0, z)) for z in (-8.0, 8.0)
    )
    return _simulated(water_tank(size_mm=120.0, voxel_mm=5.0), sources, histories=20_000, seed=31)


def thorax_batches() -> NDArray[np.float32]:
    """Batches of the built-in engine: 2 MeV photons from the front through chest wall and lung."""
    beam = Beam(spectrum=Spectrum.mono(2.0), field_mm=60.0, isocenter_mm=(60.0, 0.0, 0.0))
    return _simulated(thorax(voxel_mm=8.0), (beam,), histories=40_000, seed=32)


def _simulated(phantom: Any, sources: tuple[Any, ...], *, histories: int, seed: int) -> NDArray[np.float32]:
    """40 batches of so many histories each, about 1 at the maximum."""
    config = SimulationConfig(
        phantom=phantom, sources=sources, histories=BATCHES * histories, batches=BATCHES
    )
    batches = simulate(config, seed=seed).batches_gy
    assert batches is not None
    return np.asarray(batches / batches.mean(axis=0).max(), dtype=np.float32)


def white_batches() -> NDArray[np.float32]:
    """A field with penumbra and scatter; each voxel a gamma variate of its own, with 10 % noise at 1."""
    z, y, x = np.indices((28, 28, 28)) - 13.5
    edges = [0.02 + 0.98 / (1 + np.exp((np.abs(u) - 7) / 1.2)) for u in (x, y)]
    dose = edges[0] * edges[1] * np.exp(-(z + 13.5) / 40)
    hits = 100 * dose
    return (np.random.default_rng(20).gamma(hits, size=(BATCHES, *dose.shape)) / 100).astype(np.float32)


def load(data: Path, name: str) -> NDArray[np.float32]:
    """Batches [batch, z, y, x], about 1 at the maximum dose."""
    with np.load(data / f"{name}.npz") as stored:
        unit = float(stored["scale"]) / (4.0e-10 if name.startswith("e") else 7.6e-12)
        return stored["batches"].astype(np.float32) * np.float32(unit)


def dose_map(batches: NDArray[Any]) -> DoseMap:
    """Mean of batches on the grid of the phantom."""
    return DoseMap.from_batches(batches, Grid.regular(shape=batches.shape[1:], spacing_mm=VOXEL_MM))


def merged_twos(batches: NDArray[Any]) -> NDArray[Any]:
    """Batches on voxels twice as wide along each axis."""
    n, *shape = batches.shape
    return batches.reshape(n, *[size for axis in shape for size in (axis // 2, 2)]).mean(axis=(2, 4, 6))


def judged(
    reference: DoseMap,
    evaluated: DoseMap,
    metrics: Iterable[str],
    *,
    draws: int | None,
    seed: int,
    independent: bool,
    structures: tuple[Structure, ...] = (),
) -> dict[str, MetricResult]:
    """What `compare` reports; with voxels taken as independent where asked for."""
    names = [name for name in metrics if name not in DMD]
    settings = CompareSettings(metrics=tuple(names), gamma=_criteria(names), null=draws, seed=seed)
    context = ComparisonContext(
        reference=reference, evaluated=evaluated, settings=settings, structures=structures
    )
    if independent:
        _take_voxels_as_independent(context)
    wanted = select(families.FAMILIES, settings)
    todo = [family for family in families.FAMILIES if family.name in wanted]
    results = {r.key: r for family in todo for r in run(family, context, wanted[family.name])}
    results = with_significance(context, todo, wanted, results)
    return results | (closed_dmd(context, independent=independent) if DMD & set(metrics) else {})


def _take_voxels_as_independent(context: ComparisonContext) -> None:
    """Leave out the correlation that would be estimated."""
    if context.noise is not None:
        context.noise.__dict__["model"] = NoiseModel(correlation=NoiseCorrelation.independent())


def _criteria(names: Iterable[str]) -> tuple[tuple[float, float], ...]:
    """Gamma criteria that the metrics need."""
    return tuple((x, x) for x in (2.0, 3.0) if x == 2 or any(name.startswith("gamma_3_3") for name in names))


def closed_dmd(context: ComparisonContext, *, independent: bool) -> dict[str, MetricResult]:
    """The Dose Mover's Distance and its parts with the floors that a comparison gives them by default."""
    maps = {"reference": context.reference, "evaluated": context.evaluated}
    found = dose_movers_distance(**maps, bounds=False, fields=False)
    values = {"dmd_mm": found.value, **found.parts}
    closed = replace(context, settings=replace(context.settings, null=None))
    if independent:
        _take_voxels_as_independent(closed)
    judge = mover_judge(closed, maps)
    return {key: judge(MetricResult(key=key, value=value)) for key, value in values.items()}


def uniformity(
    data: Path, pairs: int, chosen: Iterable[str], methods: Iterable[str], raw: Path | None = None
) -> Iterator[dict[str, Any]]:
    """p values of random halves of the pooled null batches, for every case, method and metric.

    The folder ``raw`` keeps the p values of every pair: pairs that are there are not run again.
    """
    cases = CASES | UNSEEN
    found = pools(data, {cases[name].beam for name in chosen})
    for name in chosen:
        case = cases[name]
        pool = found[case.beam]
        noise = noise_percent(pool[case.region(np.random.default_rng(0))]) / np.sqrt(case.batches)
        for method in methods:
            count = pairs // 4 if method == "independent" else pairs  # fails clearly enough with a quarter
            p = kept_p_values(
                partial(p_values, pool, case, method), count, raw and raw / f"{name}-{method}.jsonl"
            )
            for metric in METRICS:
                yield summary([value for one in p if (value := one.get(metric)) is not None]) | {
                    "case": name,
                    "noise_percent": round(noise, 2),
                    "method": method,
                    "metric": metric,
                }


def kept_p_values(
    of_pair: Callable[[int], dict[str, float | None]], pairs: int, path: Path | None
) -> list[dict[str, float | None]]:
    """p values of the first pairs, those of earlier runs from their file."""
    if path is None:
        return [of_pair(pair) for pair in range(pairs)]
    kept = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    with path.open("a") as file:
        for pair in range(len(kept), pairs):
            kept.append(of_pair(pair))
            file.write(json.dumps(kept[-1], default=float) + "\n")
            file.flush()
    return kept[:pairs]


def noise_percent(batches: NDArray[Any]) -> float:
    """Median noise of one batch where the dose exceeds half the maximum [%]."""
    mean = batches.mean(axis=0)
    high = mean > 0.5 * mean.max()
    return 100 * float(np.median(batches.std(axis=0, ddof=1)[high] / mean[high]))


def p_values(pool: NDArray[Any], case: Case, method: str, pair: int) -> dict[str, float | None]:
    """p values of one method for one random pair of sets of batches; discrete ones spread over their step."""
    sides, rng = null_pair(pool, case, method, pair)
    found = judged(*sides, METRICS, draws=None, seed=pair, independent=method == "independent")
    return {key: spread(one, rng) for key, one in found.items() if key in METRICS}


def null_pair(
    pool: NDArray[Any], case: Case, method: str, pair: int, *, merged: bool = False
) -> tuple[tuple[DoseMap, DoseMap], np.random.Generator]:
    """One random pair of sets of batches, as a method is given it, and the generator that drew it."""
    rng = np.random.default_rng((20, pair))
    n = case.batches
    order = rng.permutation(len(pool))
    batches = pool[case.region(rng)]
    voxel_mm = VOXEL_MM
    if merged:
        batches, voxel_mm = merged_twos(batches), (2 * VOXEL_MM[0], 2 * VOXEL_MM[1], 2 * VOXEL_MM[2])
    grid = Grid.regular(shape=batches.shape[1:], spacing_mm=voxel_mm)
    sides = [DoseMap.from_batches(batches[chosen], grid) for chosen in (order[:n], order[n : 2 * n])]
    if method != "batches":
        uncertainty = batches.std(axis=0, ddof=1, dtype=np.float64) / np.sqrt(n)
        sides = [DoseMap(dose_gy=one.dose_gy, grid=grid, uncertainty_gy=uncertainty) for one in sides]
    return (sides[0], sides[1]), rng


def spread(result: MetricResult, rng: np.random.Generator) -> float | None:
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


CHANGES = ("e_shift1", "e_E118", "p_shift1", "p_lung035")


def changed(data: Path, change: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Null batches of a beam and those with a real change, of the field and its surroundings."""
    beam = change[0]
    region = (slice(None), slice(0, 16 if beam == "e" else 30), slice(17, 47), slice(17, 47))
    null = np.concatenate([load(data, f"{beam}A"), load(data, f"{beam}B")])[region]
    return null, load(data, change)[region]


def changes(data: Path) -> Iterator[dict[str, Any]]:
    """Which metric finds which real change, with 5 and 10 batches a side, by relabelling."""
    rng = np.random.default_rng(21)
    for change in CHANGES:
        null, real = changed(data, change)
        for n, metrics in ((5, CHANGE_METRICS), (10, (*CHANGE_METRICS, *MORE_METRICS))):
            found: dict[str, list[MetricResult]] = {}
            for seed in range(REPEATS):
                pair = (null[rng.permutation(len(null))[:n]], real[rng.permutation(len(real))[:n]])
                first, second = (dose_map(side) for side in pair)
                one = judged(first, second, metrics, draws=DRAWS, seed=seed, independent=False)
                for key in metrics:
                    found.setdefault(key, []).append(one[key])
            for key, results in found.items():
                yield {
                    "change": change,
                    "batches": n,
                    "metric": key,
                    "found": sum(r.p is not None and r.p <= SIGNIFICANT for r in results),
                    "value": float(f"{np.median([r.value or 0.0 for r in results]):.3g}"),
                    "floor": _median([r.floor for r in results]),
                    "z": _median([r.z for r in results]),
                }


def costly_changes(data: Path, n: int = 10) -> Iterator[dict[str, Any]]:
    """The same for costly metrics: voxels merged in twos, rank and z among 19 relabellings."""
    for change in CHANGES:
        found: dict[str, list[tuple[float, float, float]]] = {}
        for seed in range(REPEATS):
            rng = np.random.default_rng((22, seed))
            chosen = [one[rng.permutation(len(one))[:n]] for one in changed(data, change)]
            pool = np.concatenate([merged_twos(side) for side in chosen])
            orders = [np.arange(2 * n), *(rng.permutation(2 * n) for _ in range(DRAWS))]
            pairs = [(dose_map_of(pool[o[:n]]), dose_map_of(pool[o[n:]])) for o in orders]
            for key in COSTLY_METRICS:
                values = np.array([value_of(key, *pair) for pair in pairs])
                nulls = values[1:]
                p = (1 + np.count_nonzero(nulls >= values[0])) / (1 + DRAWS)
                z = (values[0] - nulls.mean()) / nulls.std(ddof=1)
                found.setdefault(key, []).append((values[0], p, z))
        for key, results in found.items():
            value, _, z = (float(f"{v:.3g}") for v in np.median(results, axis=0))
            yield {
                "change": change,
                "batches": n,
                "metric": key,
                "found": sum(p <= SIGNIFICANT for _, p, _ in results),
                "value": value,
                "floor": None,
                "z": z,
            }


def dose_map_of(batches: NDArray[Any]) -> DoseMap:
    """Mean of batches whose voxels were merged in twos, without its noise."""
    spacing: Any = tuple(2 * h for h in VOXEL_MM)
    grid = Grid.regular(shape=batches.shape[1:], spacing_mm=spacing)
    return DoseMap(dose_gy=batches.mean(axis=0, dtype=np.float64), grid=grid)


def value_of(key: str, reference: DoseMap, evaluated: DoseMap) -> float:
    """One metric and nothing else."""
    settings = CompareSettings(metrics=(key,))
    context = ComparisonContext(reference=reference, evaluated=evaluated, settings=settings, values_only=True)
    wanted = select(families.FAMILIES, settings)
    family = next(f for f in families.FAMILIES if f.name in wanted)
    found = {r.key: r.value for r in run(family, context, wanted[family.name])}[key]
    return np.nan if found is None else found


def _median(values: list[float | None]) -> float | None:
    """Median of the values that are there, to three digits."""
    known = [value for value in values if value is not None]
    return float(f"{np.median(known):.3g}") if known else None


_SIDE = (slice(24, 40), slice(34, 44))


def slopes(data: Path, pairs: int = 12) -> Iterator[dict[str, Any]]:
    """Mean of each metric between null pairs against the batches a side: the slope in log-log."""
    rng = np.random.default_rng(22)
    sizes = (2, 4, 8, 16)
    for beam, region in (("e", (slice(0, 14), *_SIDE)), ("p", (slice(2, 18), *_SIDE))):
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
                slope = np.polyfit(np.log(sizes), np.log(found), 1)[0]
                yield {"beam": beam, "metric": key, "slope": round(float(slope), 2)} | {
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
        regions: dict[str, Any] = {"whole": ..., "core": core}
        z: dict[str, list[float]] = {name: [] for name in regions}
        p: dict[str, list[float]] = {name: [] for name in regions}
        inflation: dict[str, list[float]] = {name: [] for name in regions}
        for _ in range(pairs):
            order = rng.permutation(len(pool))
            one, two = (
                DoseMap(
                    dose_gy=pool[half].mean(axis=0, dtype=np.float64), grid=grid, uncertainty_gy=uncertainty
                )
                for half in (order[:n], order[n : 2 * n])
            )
            correlation = noise_model(reference=one, evaluated=two).correlation
            for name, where in regions.items():
                total = float(np.sum((two.dose_gy - one.dose_gy)[where]))
                sigma = np.sqrt(2) * uncertainty[where]
                plain, variance = float(np.sum(sigma**2)), correlation.sum_variance(sigma)
                z[name].append(total / float(np.sqrt(plain)))
                inflation[name].append(variance / plain)
                p[name].append(2 * float(stats.t.sf(abs(total) / np.sqrt(variance), correlation.freedom)))
        for name, values in z.items():
            yield {
                "beam": beam,
                "sum over": name,
                "variance over independent voxels": round(float(np.var(values)), 2),
                "as estimated from a pair (median)": round(float(np.median(inflation[name])), 2),
                "fires_percent": 100 * float(np.mean(np.array(p[name]) <= SIGNIFICANT)),
                "independent voxels fire_percent": 100 * float(np.mean(np.abs(values) > 1.96)),
            }


ESTIMATED = ("mass_ratio", "rmse_gy", "dmd_mm")


def estimated(data: Path, pairs: int) -> Iterator[dict[str, Any]]:
    """False alarms where no uncertainty is given: null pairs with noise, and without any."""
    for name, truth, found in _unlabelled(data, pairs):
        rows = [without_uncertainty(*pair) for pair in found]
        seen = [row for row in rows if row is not None]
        line: dict[str, Any] = {"pairs": name, "number": len(rows), "noise found in": len(seen)}
        line["noise percent"] = truth
        line["as estimated"] = round(float(np.median([r.pop("level") for r in seen])), 2) if seen else None
        for key in ESTIMATED:
            p = [r[key].p for r in seen if r[key].p is not None]
            z = [abs(r[key].z) for r in seen if r[key].z is not None]
            line[f"{key} fires_percent"] = (
                round(100 * float(np.mean(np.array(p) <= SIGNIFICANT)), 1) if p else 0.0
            )
            line[f"{key} largest z"] = round(max(z), 1) if z else None
        yield line


def _unlabelled(data: Path, pairs: int) -> Iterator[tuple[str, float | None, list[tuple[DoseMap, DoseMap]]]]:
    """Null pairs of maps without uncertainty, after their name and their noise at the highest doses [%]."""
    rng = np.random.default_rng(24)
    pool = pools(data, {"e", "p", "kv", "white"})
    whole = {"e": pool["e"][:, :16, 14:50, 14:50], "p": pool["p"][:, :40, 14:50, 14:50]}
    whole |= {"kv": pool["kv"], "white": pool["white"]}
    whole |= {f"example, {side}": batches for side, batches in _example()}
    for name, batches in whole.items():
        for n in (5, 20) if len(batches) == BATCHES else (4,):
            found = []
            for _ in range(pairs):
                order = rng.permutation(len(batches))
                found.append((_bare(batches[order[:n]]), _bare(batches[order[n : 2 * n]])))
            yield f"{name}, {n} batches", round(top_noise_percent(batches) / np.sqrt(n), 2), found
    z, y, x = np.indices((40, 40, 40)) - 19.5
    edges = [1 / (1 + np.exp((np.abs(u) - 10) / 1.5)) for u in (x, y)]
    for name, dose in (("smooth", np.exp(-z / 60) * edges[0] * edges[1]), ("planned", _planned(data))):
        yield (
            f"{name}, with itself in single precision",
            None,
            [(_bare(dose[None]), _bare(dose[None].astype("f4")))],
        )
        for bits in (6, 8, 10, 12, 16):
            step = dose.max() / 2**bits
            yield (
                f"{name}, rounded to {bits} bits",
                None,
                [
                    (_bare(dose[None]), _bare(np.round(dose / step)[None] * step)),
                    (_bare(np.floor(dose / step)[None] * step), _bare(np.round(dose / step)[None] * step)),
                ],
            )


def _example() -> Iterator[tuple[str, NDArray[Any]]]:
    """The batches of the two maps of the embedded example."""
    for side, dose in zip(("reference", "evaluated"), example_pair(), strict=True):
        assert dose.batches_gy is not None
        yield side, dose.batches_gy


def _planned(data: Path) -> NDArray[np.float64]:
    """Dose of a treatment planning system, which has no noise."""
    return np.asarray(read_dose(data.parent / "slicerrt" / "EclipseEnt_Dose.nrrd").dose_gy, dtype=np.float64)


def _bare(batches: NDArray[Any]) -> DoseMap:
    """Mean of batches without a word about its noise."""
    mean = batches.mean(axis=0, dtype=np.float64)
    return DoseMap(dose_gy=mean, grid=Grid.regular(shape=mean.shape, spacing_mm=VOXEL_MM))


def top_noise_percent(batches: NDArray[Any]) -> float:
    """Noise of one batch at the highest doses, as an estimated level is told [%]."""
    mean = batches.mean(axis=0, dtype=np.float64)
    high = mean > 0.5 * mean.max()
    per_root = np.median(batches.std(axis=0, ddof=1, dtype=np.float64)[high] / np.sqrt(mean[high]))
    return 100 * float(per_root / np.sqrt(np.percentile(mean, 99.9)))


def without_uncertainty(reference: DoseMap, evaluated: DoseMap) -> dict[str, Any] | None:
    """What a comparison says of two maps that know nothing of their noise; None where it finds none."""
    settings = CompareSettings(metrics=tuple(key for key in ESTIMATED if key not in DMD))
    context = ComparisonContext(reference=reference, evaluated=evaluated, settings=settings)
    if context.noise is None:
        return None
    wanted = select(families.FAMILIES, settings)
    todo = [family for family in families.FAMILIES if family.name in wanted]
    results = {r.key: r for family in todo for r in run(family, context, wanted[family.name])}
    results |= closed_dmd(context, independent=False)
    level = float(np.mean([one.relative_percent for one in context.noise.levels]))
    return {**with_significance(context, todo, wanted, results), "level": level}


def write(out: Path, name: str, rows: list[dict[str, Any]]) -> None:
    """One table as CSV and as Markdown; rows of an earlier run with other cases stay."""
    path = out / f"{name}.csv"
    keys = list(rows[0])
    most: dict[tuple[Any, Any], int] = {}
    if name in ("uniformity", "validation"):
        keys = ["case", "noise_percent", "method", "metric", "pairs", "fires_percent", "ks_p"]
        rows = sorted(_kept(path, rows) + rows, key=_place)
        for r in rows:
            key = (r["case"], r["method"])
            most[key] = max(most.get(key, 0), int(r["pairs"]))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, keys, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    if name in ("uniformity", "validation"):
        rows = [r | {"of": most[r["case"], r["method"]]} for r in rows]
    table = _pivot(rows, *_LAYOUT[name]) if name in _LAYOUT else (keys, [[r[k] for k in keys] for r in rows])
    head, body = table
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join("" if v is None else str(v) for v in line) + " |" for line in body]
    (out / f"{name}.md").write_text("\n".join(lines) + "\n")


_LAYOUT = {
    "uniformity": (("case", "noise_percent", "method", "of"), "metric", "fires_percent"),
    "validation": (("case", "noise_percent", "method", "of"), "metric", "fires_percent"),
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
        value = r[entry] if isinstance(entry, str) else _found(*(r[name] for name in entry))
        lines.setdefault(tuple(str(r[n]) for n in row), {})[label(r, column)] = value
    return [*row, *columns], [[*key, *(line.get(c) for c in columns)] for key, line in lines.items()]


def _found(count: Any, z: Any) -> str:
    """In how many of the choices a change was found, with z where there is one."""
    return f"{count}/{REPEATS}" + (f" (z {z})" if z not in (None, "") else "")


def _kept(path: Path, replaced: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of cases and methods that are not run again."""
    if not path.exists():
        return []
    again = {(row["case"], row["method"]) for row in replaced}
    with path.open() as file:
        return [
            row
            for row in csv.DictReader(file)
            if row["case"] in CASES | UNSEEN and (row["case"], row["method"]) not in again
        ]


def _place(row: dict[str, Any]) -> tuple[int, ...]:
    """Where a row of the table of p values stands."""
    lists: tuple[tuple[str, ...], ...] = (tuple(CASES | UNSEEN), METHODS, METRICS)
    return tuple(
        names.index(row[key]) for names, key in zip(lists, ("case", "method", "metric"), strict=True)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument(
        "--only", choices=("uniformity", "validation", "whole", "estimated", "changes", "slopes")
    )
    parser.add_argument("--cases", help="of the first two tables; all unless given")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--raw", type=Path, help="folder that keeps the p values of every pair")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.raw:
        options.raw.mkdir(parents=True, exist_ok=True)
    for table, cases in (("uniformity", CASES), ("validation", UNSEEN)):
        if options.only not in (None, table):
            continue
        for name in options.cases.split(",") if options.cases else cases:
            rows = list(
                uniformity(options.data, options.pairs, [name], options.methods.split(","), options.raw)
            )
            write(options.out, table, rows)
            print(name, "done", flush=True)
    if options.only in (None, "whole"):
        write(options.out, "whole", list(whole_maps(options.data, options.pairs)))
    if options.only in (None, "estimated"):
        write(options.out, "estimated", list(estimated(options.data, min(options.pairs, 16))))
    if options.only in (None, "changes"):
        write(options.out, "changes", [*changes(options.data), *costly_changes(options.data)])
    if options.only in (None, "slopes"):
        write(options.out, "slopes", list(slopes(options.data)))


if __name__ == "__main__":
    main()
