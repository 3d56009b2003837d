"""Writes docs/validation.md from what the tests recorded: `make validation`."""

from __future__ import annotations

import json
from pathlib import Path

HERE = Path(__file__).resolve().parent

AREAS = {
    "Gamma": ("gamma", "gamma_published", "agreement"),
    "Differences, similarity, histograms, scores": (
        "similarity",
        "statistics",
        "registration",
        "conformity",
        "dvh",
        "scores",
    ),
    "Dose Mover's Distance": ("dose_mover",),
    "Wasserstein distances, flat norm and their companions": (
        "wasserstein",
        "flat_norm",
        "exact",
        "sinkhorn",
        "sliced",
        "sobolev",
        "axis",
    ),
    "Distances from moments": (
        "moment_sos",
        "moment_hierarchy_example",
        "moments_gaussian",
        "moments_galerkin",
        "moments_bounds",
        "moments_noise",
    ),
    "Noise and significance": ("noise", "noise_calibration", "batch_forms"),
    "Monte Carlo": ("montecarlo_materials", "montecarlo_photons", "montecarlo_tg195", "montecarlo_ompmc"),
    "Files": ("io_dicom_dose",),
}
"""Sections of the page and the test modules that fill them."""

HEAD = """# Validation

Every row is a number that a test compares with something outside this project: a closed form, a published
table, another program, or an independent calculation of the same quantity.
*Reached* is the largest deviation over all cases of that test in the recorded run,
*tolerance* what the test allows; a larger deviation fails the test, so it cannot stand here. The page is
written by `make validation`, which runs these tests and nothing else; the records lie in `docs/validation/`.
{n} rows, {cases} cases.
"""


def number(value: float) -> str:
    """Two digits, or a power of ten; 0 where nothing differs."""
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < 1e3:
        return f"{value:.2g}"
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa} · 10{superscript(int(exponent))}"


def superscript(exponent: int) -> str:
    """An exponent in raised digits."""
    return str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def amount(value: float, unit: str) -> str:
    """A deviation with its unit; relative ones in percent where that reads better."""
    if unit == "relative" and value == 0:
        return "0"
    if unit == "relative":
        return f"{number(100 * value)} %" if value >= 1e-4 else f"{number(value)} (relative)"
    return f"{number(value)} {unit}".rstrip()


def table(rows: list[dict]) -> list[str]:
    """Rows of one section."""
    lines = [
        "| quantity | outside witness | tolerance | reached | cases | version |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        tolerance, reached = (amount(row[key], row["unit"]) for key in ("tolerance", "reached"))
        cells = (row["quantity"], row["witness"], tolerance, reached, str(row["cases"]), row["version"])
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return lines


def records(folder: Path) -> dict[str, list[dict]]:
    """Recorded rows by test module."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))}


def page(found: dict[str, list[dict]]) -> str:
    """The page as Markdown."""
    rows = [row for module in found.values() for row in module]
    lines = [HEAD.format(n=len(rows), cases=sum(row["cases"] for row in rows))]
    for title, modules in AREAS.items():
        here = [row for module in modules for row in found.get(module, [])]
        if here:
            lines += [f"## {title}", "", *table(here), ""]
    return "\n".join(lines)


if __name__ == "__main__":
    (HERE.parent / "validation.md").write_text(page(records(HERE)), encoding="utf-8")
