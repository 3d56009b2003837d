"""Small measured studies behind the critical analysis: what the large table of the study cannot tell.

    python studies/findings.py [--data DIR] [-o studies/noise/findings.json] [--only LETTER,LETTER]

DIR holds batches of real Monte Carlo dose (pA.npz, pB.npz and so on); without it those parts are left as
they are. White noise is used where it is said, as a contrast to simulated noise. Every number goes to one
JSON file, which the report of the study reads.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, median_filter
from scipy.special import erf

from dosemover.comparison import families
from dosemover.comparison.registry import select
from dosemover.comparison.settings import CompareSettings
from dosemover.dose import DoseMap
from dosemover.grid import Grid
from dosemover.study.analysis_labels import WHITE_NOISE
from dosemover.study.measure import measure
from dosemover.transport import dose_movers_distance, emd, wasserstein_1, wasserstein_2

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "studies" / "noise" / "findings.json"
SIZE = 64
VOXEL_MM = 3.0
PENUMBRA_MM = 6.0
BATH = 0.03
LIMIT_PERCENT = 95.0
SEED = 20261124

Array = NDArray[np.float64]

RATES = ("gamma_3_3_global_passing_rate_percent", "gamma_2_2_global_passing_rate_percent")


def measured(
    reference: DoseMap,
    evaluated: DoseMap,
    metrics: Iterable[str] = WHITE_NOISE,
    gamma: tuple[tuple[float, float], ...] = ((3.0, 3.0), (2.0, 2.0)),
) -> dict[str, float]:
    """Values of metrics, without floors."""
    settings = CompareSettings(metrics=tuple(metrics), gamma=gamma)
    wanted = select(families.FAMILIES, settings)
    results = measure(
        reference=reference, evaluated=evaluated, settings=settings, wanted=wanted, certified=False
    )
    return {r.key: float(r.value) for r, _ in results if r.value is not None}


def _axes(size: int = SIZE) -> tuple[Array, Array, Array]:
    t = (np.arange(size) - (size - 1) / 2) * VOXEL_MM * SIZE / size
    return t[:, None, None], t[:, None], t


def _edge(t: Array, low: float, high: float, width: float = PENUMBRA_MM) -> Array:
    return 0.5 * (erf((t - low) / width) - erf((t - high) / width))


def field(
    *,
    shift: float | Array = 0.0,
    penumbra: float = PENUMBRA_MM,
    distal: float | Array = 50.0,
    size: int = SIZE,
) -> Array:
    """A 90 x 80 x 80 mm field in a weak bath [Gy]; numbers may vary over z and y."""
    z, y, x = _axes(size)
    box = (
        _edge(x - shift, -40.0, distal, penumbra) * _edge(y, -40, 40, penumbra) * _edge(z, -40, 40, penumbra)
    )
    return 2.0 * (box + BATH * np.exp(-((x - shift) ** 2 + y**2 + z**2) / 80.0**2))


def _spot(dose: Array, excess: float, radius: float = 10.0, center_y: float = 0.0) -> Array:
    z, y, x = _axes()
    distance = np.sqrt((x - 6.0) ** 2 + (y - center_y) ** 2 + z**2)
    return dose * (1 + excess * 0.5 * (1 - erf((distance - radius) / 2.0)))


def _one_voxel(dose: Array, factor: float) -> Array:
    changed = dose.copy()
    changed[SIZE // 2, SIZE // 2, SIZE // 2] *= factor
    return changed


def changes() -> dict[str, Array]:
    """Evaluated dose of every change, by name."""
    base = field()
    z, y, _ = _axes()
    two_halves = np.where(y > 0, 1.0, -1.0)
    quarters = two_halves * np.where(z > 0, 1.0, -1.0)
    return {
        "shift 0.2 mm": field(shift=0.2),
        "shift 1 mm": field(shift=1.0),
        "output +0.2 %": 1.002 * base,
        "halves 0.5 mm apart": field(shift=0.5 * two_halves),
        "penumbra 6 to 6.6 mm": field(penumbra=6.6),
        "range +1 mm in one half": field(distal=50.0 + (y > 0)),
        "range +1 and -1 mm in quarters": field(distal=50.0 + quarters),
        "hot spot +10 %": _spot(base, 0.10),
        "cold spot -10 %": _spot(base, -0.10),
        "hot beside cold 10 %": _spot(_spot(base, 0.10, center_y=12.0), -0.10, center_y=-12.0),
        "leaf of 5 mm missing": base * (1 - 0.5 * _edge(y, 10.0, 15.0, 1.0)),
        "one voxel +50 %": _one_voxel(base, 1.5),
        "bath +0.2 % of the maximum": base + 0.002 * base.max() * (base < 0.1 * base.max()),
    }


def as_map(dose: Array, noise: float = 0.0, rng: np.random.Generator | None = None) -> DoseMap:
    """A map with white noise: relative uncertainty ``noise`` at the maximum, growing as 1/sqrt(dose)."""
    grid = Grid.regular(shape=dose.shape, spacing_mm=(VOXEL_MM,) * 3)
    if not noise or rng is None:
        return DoseMap(dose_gy=dose, grid=grid)
    sigma = noise * np.sqrt(dose * field().max())
    noisy = np.maximum(dose + sigma * rng.standard_normal(dose.shape), 0.0)
    return DoseMap(dose_gy=noisy, grid=grid, uncertainty_gy=sigma)


def detection(noise: float = 0.05, nulls: int = 60, repeats: int = 20) -> dict[str, Any]:
    """Readings without noise, and z of every metric under white noise, for every change."""
    rng = np.random.default_rng(SEED)
    base = field()
    null = [measured(as_map(base, noise, rng), as_map(base, noise, rng)) for _ in range(nulls)]
    found: dict[str, Any] = {}
    for name, dose in changes().items():
        clean = measured(as_map(base), as_map(dose))
        noisy = [measured(as_map(base, noise, rng), as_map(dose, noise, rng)) for _ in range(repeats)]
        found[name] = {key: _judged(key, clean.get(key), null, noisy) for key in null[0]}
    return {"noise_percent": 100 * noise, "nulls": nulls, "repeats": repeats, "changes": found}


def _judged(key: str, clean: float | None, null: list[dict], noisy: list[dict]) -> dict[str, float | None]:
    """Clean reading, floor, its spread, mean under noise, and how many spreads lie between."""
    floor, seen = (np.array([one[key] for one in runs if key in one]) for runs in (null, noisy))
    if min(floor.size, seen.size) < 2:
        return {"clean": clean, "floor": None, "floor_sd": None, "mean": None, "z": None}
    sd = float(floor.std(ddof=1))
    return {
        "clean": clean,
        "floor": float(floor.mean()),
        "floor_sd": sd,
        "mean": float(seen.mean()),
        "z": float(seen.mean() - floor.mean()) / sd if sd > 0 else None,
    }


def made_to_pass(output: float = 0.025, draws: int = 3) -> dict[str, Any]:
    """Passing rates of a map with too much output, as white noise is added to one of the maps."""
    rng = np.random.default_rng(SEED + 1)
    base, rows = field(), []
    wanted = (*RATES, "mass_ratio", "dmd_mm")
    for noise in (0.0, 0.01, 0.02, 0.03, 0.05):
        for where in ("evaluated", "reference"):
            levels = (0.0, noise) if where == "evaluated" else (noise, 0.0)
            runs = [
                measured(
                    as_map(base, levels[0], rng),
                    as_map((1 + output) * base, levels[1], rng),
                    wanted,
                    gamma=((3, 3), (2, 2)),
                )
                for _ in range(draws if noise else 1)
            ]
            means = {key: float(np.mean([one[key] for one in runs])) for key in runs[0]}
            rows.append(
                {"output_percent": 100 * output, "noise_percent": 100 * noise, "noise_in": where, **means}
            )
    return {"draws": draws, "limit_percent": LIMIT_PERCENT, "rows": rows}


def _batches(data: Path, name: str) -> NDArray[np.float32]:
    """Batches [batch, z, y, x] of a beam, about 1 at the maximum; the part of the phantom with the field."""
    with np.load(data / f"{name}.npz") as stored:
        unit = float(stored["scale"]) / (4.0e-10 if name.startswith("e") else 7.6e-12)
        return stored["batches"][:, :, 14:50, 20:58].astype(np.float32) * np.float32(unit)


def _real(dose: Any) -> DoseMap:
    grid = Grid.regular(shape=dose.shape, spacing_mm=(4.0, 4.0, 4.0))
    return DoseMap(dose_gy=np.asarray(dose, dtype=np.float64), grid=grid)


def real_made_to_pass(data: Path, outputs: tuple[float, ...] = (0.025, 0.03)) -> dict[str, Any]:
    """The same on real noise: fewer batches of the evaluated map, or of the reference."""
    first, second = _batches(data, "pA"), _batches(data, "pB")
    rows = []
    for output in outputs:
        for batches in (20, 10, 5, 2, 1):
            groups = [slice(i, i + batches) for i in range(0, 20 - batches + 1, batches)][:3]
            for where in ("evaluated", "reference"):
                runs = []
                for group in groups:
                    few, many = second[group].mean(axis=0), first.mean(axis=0)
                    pair = (many, (1 + output) * few) if where == "evaluated" else (few, (1 + output) * many)
                    runs.append(measured(_real(pair[0]), _real(pair[1]), (*RATES, "mass_ratio", "dmd_mm")))
                rows.append(
                    {
                        "output_percent": 100 * output,
                        "batches": batches,
                        "noise_in": where,
                        "noise_percent": _noise(second, batches),
                        **{key: float(np.mean([one[key] for one in runs])) for key in runs[0]},
                    }
                )
    return {"limit_percent": LIMIT_PERCENT, "quiet_noise_percent": _noise(first, 20), "rows": rows}


def _noise(batches: NDArray[Any], n: int) -> float:
    """Median relative uncertainty of a mean of n batches above half of the maximum [%]."""
    mean = batches.mean(axis=0)
    high = mean > 0.5 * mean.max()
    return float(100 * np.median(batches.std(axis=0, ddof=1)[high] / mean[high]) / np.sqrt(n))


def _smoothers() -> dict[str, Callable[[Array], Array]]:
    from skimage.restoration import denoise_tv_chambolle

    gaussians = {
        f"Gaussian, {sigma:g} voxels": (lambda dose, s=sigma: gaussian_filter(dose, s))
        for sigma in (0.5, 0.75, 1.0, 1.5, 2.0)
    }
    return {
        "none": lambda dose: dose,
        **gaussians,
        "median, 3 voxels": lambda dose: median_filter(dose, 3),
        "total variation": lambda dose: denoise_tv_chambolle(dose, weight=0.05 * float(dose.max())),
    }


def smoothed(data: Path, batches: int = 2) -> dict[str, Any]:
    """Smoothers on a map of few real batches, judged against the mean of all others."""
    rows = []
    for beam in "pe":
        first, second = _batches(data, f"{beam}A"), _batches(data, f"{beam}B")
        truth = np.concatenate([first[batches * 5 :], second]).mean(axis=0)
        inputs = [first[i * batches : (i + 1) * batches].mean(axis=0) for i in range(5)]
        for name, smoother in _smoothers().items():
            runs = []
            for dose in inputs:
                evaluated = np.maximum(smoother(dose.astype(np.float64)), 0.0)
                runs.append(measured(_real(truth), _real(evaluated), ("rmse_gy", "ssim", "gamma", *_MOVED)))
            mean = {key: float(np.mean([one[key] for one in runs])) for key in runs[0]}
            sd = {f"{key}_sd": float(np.std([one[key] for one in runs], ddof=1)) for key in runs[0]}
            rows.append({"beam": beam, "smoother": name, **mean, **sd})
    noise = {beam: _noise(_batches(data, f"{beam}A"), batches) for beam in "pe"}
    return {"batches": batches, "noise_percent": noise, "rows": rows}


_MOVED = ("mass_ratio", "dmd_mm", "w2_mm", "moment_w2_mm", "sliced_w2_mm")


def atoms(noise: float = 0.01) -> dict[str, Any]:
    """W_1 and W_2 of voxel atoms and of densities: a shift below one voxel, and two noisy copies."""
    n, spacing = 24, 5.0
    centers = (np.arange(n) - (n - 1) / 2) * spacing

    def profile(x: Array) -> Array:
        return 0.5 * (erf((x + 30) / 8) - erf((x - 30) / 8))

    def slab(shift: float = 0.0, level: float = 0.0, rng: np.random.Generator | None = None) -> DoseMap:
        dose = profile(centers)[:, None] * profile(centers - shift)[None, :] + 1e-4
        if rng is not None:
            dose = np.maximum(dose + level * np.sqrt(dose) * rng.standard_normal(dose.shape), 1e-6)
        return DoseMap.from_array(dose, spacing_mm=(spacing, spacing))

    def four(a: DoseMap, b: DoseMap) -> dict[str, float | None]:
        pair = {"reference": a, "evaluated": b}
        w1, w2 = wasserstein_1(**pair), wasserstein_2(**pair)
        return {
            "w1_atoms": emd(**pair, order=1).value,
            "w2_atoms": emd(**pair, order=2).value,
            "w1_density": w1.value,
            "w2_density": w2.value,
            "w2_lower": w2.lower,
            "w2_upper": w2.upper,
        }

    shifts = [{"shift_mm": s, **four(slab(), slab(s))} for s in (0.25, 0.5, 1.0, 2.0, 3.0, 5.0)]
    rng = np.random.default_rng(SEED + 2)
    copies = []
    for level in (noise, 0.02, 0.05):
        runs = [four(slab(0.0, level, rng), slab(0.0, level, rng)) for _ in range(5)]
        means = {k: float(np.mean([float(one[k] or 0.0) for one in runs])) for k in runs[0]}
        copies.append({"noise_percent": 100 * level, **means})
    return {"voxel_mm": spacing, "shifts": shifts, "copies": copies}


def costs(noise: float = 0.02, sizes: tuple[int, ...] = (24, 48, 96, 128)) -> dict[str, Any]:
    """Processor seconds of distances and of their estimates from moments, over the number of voxels."""
    rng = np.random.default_rng(SEED + 3)
    rows = []
    for size in sizes:
        spacing = VOXEL_MM * SIZE / size
        maps = {
            name: DoseMap.from_array(
                np.maximum(dose + noise * np.sqrt(dose * dose.max()) * rng.standard_normal(dose.shape), 0.0),
                spacing_mm=(spacing,) * 3,
            )
            for name, dose in (("reference", field(size=size)), ("evaluated", field(size=size, shift=1.0)))
        }
        ways: dict[str, Callable[[], Any]] = {
            "dmd_mm": lambda maps=maps: measured(**maps, metrics=("dmd_mm",)),
            "dmd_mm certified": lambda maps=maps: dose_movers_distance(**maps, fields=False),
            "moment_dmd_mm": lambda maps=maps: measured(**maps, metrics=("moment_dmd_mm",)),
            "w2_mm": lambda maps=maps: measured(**maps, metrics=("w2_mm",)),
            "moment_w2_mm": lambda maps=maps: measured(**maps, metrics=("moment_w2_mm",)),
        }
        for name, way in ways.items():
            times = []
            for _ in range(3 if size < 96 else 1):  # the first run of the smallest grid compiles
                start = time.process_time()
                way()
                times.append(time.process_time() - start)
            rows.append({"size": size, "way": name, "seconds": min(times)})
            print(size, name, round(min(times), 3))
    return {"noise_percent": 100 * noise, "rows": rows}


def main() -> None:
    """Measure what is asked for and add it to the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "mc_egsnrc")
    parser.add_argument("-o", "--output", type=Path, default=OUT)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "made_to_pass": made_to_pass,
        "detection": detection,
        "atoms": atoms,
        "costs": costs,
    }
    if options.data.is_dir():
        parts["real_made_to_pass"] = lambda: real_made_to_pass(options.data)
        parts["smoothed"] = lambda: smoothed(options.data)
    found = json.loads(options.output.read_text()) if options.output.exists() else {}
    chosen = options.only.split(",") if options.only else list(parts)
    for name in chosen:
        start = time.process_time()
        found[name] = parts[name]()
        found[name]["processor_seconds"] = round(time.process_time() - start, 1)
        print(f"{name}: {found[name]['processor_seconds']} s of processor time")
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
