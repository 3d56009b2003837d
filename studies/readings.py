"""Table of readings: what each metric says of changes that a physicist knows.

    python studies/readings.py [--size 128]

writes docs/readings.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf

import dosemover as dm
from dosemover import transport

WIDTH_MM = 256.0
PENUMBRA_MM = 6.0
BATH = 0.03
TABLE = Path(__file__).resolve().parents[1] / "docs" / "readings.md"
LENGTHS_MM = (10.0, 33.0, 100.0, 1000.0)
NOISE = 0.05

Field = Callable[..., NDArray[np.float64]]


def axes(n: int) -> tuple[NDArray[np.float64], ...]:
    """Voxel centres z, y, x [mm], broadcastable, 0 in the middle."""
    t = (np.arange(n) - (n - 1) / 2) * WIDTH_MM / n
    return t[:, None, None], t[:, None], t


def edge(t: NDArray[np.float64], low: float, high: float, width: float = PENUMBRA_MM) -> NDArray[np.float64]:
    """A strip from low to high [mm] with penumbras."""
    return 0.5 * (erf((t - low) / width) - erf((t - high) / width))


def field(n: int, *, shift: float = 0.0, penumbra: float = PENUMBRA_MM, distal: float = 60.0) -> NDArray:
    """120 x 100 x 100 mm field in a weak bath that falls off towards the edge of the box."""
    z, y, x = axes(n)
    box = edge(x - shift, -60, distal, penumbra) * edge(y, -50, 50, penumbra) * edge(z, -50, 50, penumbra)
    return 2.0 * (box + BATH * np.exp(-(x**2 + y**2 + z**2) / 90**2))


def with_range_error(n: int) -> NDArray[np.float64]:
    """Distal edge 3 mm deeper in half the field."""
    _, y, _ = axes(n)
    return np.where(y > 0, field(n, distal=63.0), field(n))


def with_hot_spot(n: int) -> NDArray[np.float64]:
    """+30 % in a sphere of 10 mm radius, smooth at its edge."""
    z, y, x = axes(n)
    distance = np.sqrt((x - 10) ** 2 + y**2 + z**2)
    return field(n) * (1 + 0.3 * 0.5 * (1 - erf((distance - 10) / 2)))


def with_missing_strip(n: int) -> NDArray[np.float64]:
    """A leaf 5 mm wide that lets nothing through."""
    _, y, _ = axes(n)
    return field(n) * (1 - edge(y, 10, 15, 1.0))


def noisy(n: int, seed: int) -> NDArray[np.float64]:
    """The field with white noise, sigma = 5 % of the maximum times the root of the relative dose."""
    dose = field(n)
    sigma = NOISE * np.sqrt(dose * dose.max())
    return np.maximum(dose + sigma * np.random.default_rng(seed).standard_normal(dose.shape), 0.0)


def cases(n: int) -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Name, reference and evaluated dose [Gy] of every row."""
    base = field(n)
    bath = base + 0.01 * base.max() * (base < 0.1 * base.max())
    return {
        "shift 0.2 mm": (base, field(n, shift=0.2)),
        "shift 1 mm": (base, field(n, shift=1.0)),
        "range 3 mm, half the field": (base, with_range_error(n)),
        "output +2 %": (base, 1.02 * base),
        "hot spot +30 %, 10 mm": (base, with_hot_spot(n)),
        "penumbra 6 to 9 mm": (base, field(n, penumbra=9.0)),
        "bath +1 % of maximum": (base, bath),
        "strip of 5 mm missing": (base, with_missing_strip(n)),
        "noise 5 % (both maps)": (noisy(n, 1), noisy(n, 2)),
    }


def row(name: str, reference: dm.DoseMap, evaluated: dm.DoseMap) -> str:
    """One line of the table."""
    pair = {"reference": reference, "evaluated": evaluated}
    keys = ["relative_mae_percent", "rmse_gy", "gamma", "dmd", "w2_mm", "kr_mm"]
    found = dm.compare(reference, evaluated, metrics=keys, gamma=((3, 3), (2, 2), (1, 1))).metrics
    profile = transport.dose_mover_profile(**pair, lengths_mm=LENGTHS_MM)
    rates = (found[f"gamma_{c}_{c}_global_passing_rate_percent"].value for c in (3, 2, 1))
    dmd = found["dmd_mm"]
    cells = [
        name,
        f"{100 * found['rmse_gy'].value / reference.max_gy:.2f}",
        f"{found['w2_mm'].value:.3g}",
        *(f"{value:.3g}" for value in profile["value"][:2]),
        f"**{dmd.value:.3g}** ({found['dmd_moved_mm'].value:.3g} / {found['dmd_changed_percent'].value:.2g})",
        f"{_bound(dmd.lower)} to {_bound(dmd.upper)}",
        f"{profile['value'][3]:.3g}",
        f"{found['dmd_residual_max_percent'].value:.2g}",
        f"{found['kr_mm'].value:.2g}",
        " / ".join(f"{rate:.4g}" for rate in rates),
    ]
    return "| " + " | ".join(cells) + " |"


def _bound(value: float | None) -> str:
    """A bound, or a dash where there is none."""
    return "–" if value is None else f"{value:.3g}"


def main() -> None:
    """Compute every row and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=128, help="voxels along each axis")
    n = parser.parse_args().size
    spacing = (WIDTH_MM / n,) * 3
    lines = [
        "| change | RMSE % | W₂ mm | L 10 | L 33 | **L 100**: mm (moved mm / changed %) | certified | L 1000 "
        "| residual max % | flat norm, R 10 | gamma 3/3, 2/2, 1/1 % |",
        "|---" * 11 + "|",
    ]
    for name, (reference, evaluated) in cases(n).items():
        maps = [dm.DoseMap.from_array(dose, spacing_mm=spacing) for dose in (reference, evaluated)]
        lines.append(row(name, *maps))
        print(lines[-1], flush=True)
    TABLE.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
