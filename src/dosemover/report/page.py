"""The self-contained HTML report: one file that opens offline and asks the network for nothing."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from importlib import resources
from pathlib import Path
from typing import Any

from dosemover._files import atomic_write
from dosemover.comparison.result import ComparisonResult
from dosemover.report import charts, tables
from dosemover.report.citations import citations
from dosemover.report.formatting import is_number, public_text, raised, unbroken
from dosemover.report.sentences import SIGNIFICANT_P, SIGNIFICANT_Z, verdict, verdict_details
from dosemover.report.settings_table import key_values
from dosemover.report.volumes import LOW_SAMPLING_PERCENT, OUTLINE_VOXELS, dose_box, volumes

SCRIPTS = ("inflate.js", "volume.js", "charts.js", "viewer.js", "page.js")
"""Scripts of the page, in the order in which they are joined."""

ISODOSE_PERCENT = (10, 20, 50, 80, 95, 100)
"""Isodose lines, in percent of the prescription or, without one, of the reference maximum."""


def write_report(result: ComparisonResult, path: str | Path) -> Path:
    """Write the report of a comparison and return its path.

    Parameters
    ----------
    result : ComparisonResult
    path : str or Path
        The HTML file; its folder must exist. An old file is replaced only by a complete new one.

    Returns
    -------
    Path

    Raises
    ------
    InputError
        When the file cannot be written.

    Notes
    -----
    *Limits*: volumes that would make the page too large are joined in blocks, which the page says.
    File names are cut to their base names unless ``result.identifiers`` is set.
    *Cost*: about a second for a million voxels.
    """
    target = Path(path)
    with atomic_write(target) as temporary:
        temporary.write_text(render_report(result), encoding="utf-8")
    return target


def render_report(result: ComparisonResult) -> str:
    """The report of a comparison as the text of one HTML page."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: _resource("templates", name)),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    data = page_data(result)
    script = "\n".join(_resource("assets", name) for name in SCRIPTS)
    digest = base64.b64encode(hashlib.sha256(f"\n{script}\n".encode()).digest()).decode("ascii")
    return environment.get_template("report.html.j2").render(
        **context(result),
        data=data,
        style=_resource("assets", "report.css"),
        script=script,
        script_digest=digest,
        data_json=script_json(data),
    )


def _resource(folder: str, name: str) -> str:
    """Text of a file that comes with the package."""
    return resources.files("dosemover.report").joinpath(folder, name).read_text(encoding="utf-8")


def script_json(data: Any) -> str:
    """JSON that is safe inside a script element, whatever the strings hold."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def context(result: ComparisonResult) -> dict[str, Any]:
    """What the template prints."""
    identifiers = result.identifiers
    warnings = [raised(text if identifiers else public_text(text)) for text in result.warnings]
    missing = [key for key, metric in result.metrics.items() if not is_number(metric.value)]
    return {
        "cards": [
            tables.map_card(result.reference, "Reference", identifiers=identifiers),
            tables.map_card(result.evaluated, "Evaluated", identifiers=identifiers),
        ],
        "scale": tables.scale_text(result.settings),
        "verdict": unbroken(verdict(result)),
        "details": [unbroken(text) for text in verdict_details(result)],
        "headlines": tables.headlines(result),
        "warnings": warnings,
        "verdict_rows": tables.verdict_rows(result),
        "groups": tables.metric_groups(result),
        "n_missing": len(missing),
        "outline_voxels": OUTLINE_VOXELS,
        "common_reason": tables.common_reason(result),
        "significant_p": SIGNIFICANT_P,
        "significant_z": SIGNIFICANT_Z,
        "dvh": tables.dvh_table(result),
        "regions": tables.region_table(result),
        "where": tables.where_table(result),
        "planes": planes(result),
        "settings": key_values(result.settings, identifiers=identifiers),
        "provenance": key_values(result.provenance, identifiers=identifiers),
        "citations": citations(result.metrics),
        "version": _version(),
    }


def planes(result: ComparisonResult) -> list[str]:
    """Names of the planes in which the maps have an extent."""
    z, y, x = (n > 1 for n in result.reference.grid.shape)
    return [
        name for name, there in (("axial", x and y), ("coronal", x and z), ("sagittal", y and z)) if there
    ]


def _version() -> str:
    """Version of the package."""
    from dosemover import __version__

    return __version__


def page_data(result: ComparisonResult) -> dict[str, Any]:
    """What the scripts draw."""
    grid = result.reference.grid
    prescription = result.settings.get("prescription_gy")
    packed = volumes(result)
    names = ("x", "y", "z")
    counts = dict(zip(names, reversed(grid.shape), strict=True))
    return {
        "names": {
            "reference": tables.map_name(result.reference, "Reference"),
            "evaluated": tables.map_name(result.evaluated, "Evaluated"),
        },
        "volumes": packed,
        "fullShape": counts,
        "box": dose_box(result),
        "longAxes": [axis for axis in names if counts[axis] > 1],
        "doseUnit": result.reference.unit,
        "isodoses": {
            "percent": list(ISODOSE_PERCENT),
            "of": float(prescription) if prescription else result.reference.max_gy,
            "name": "the prescription" if prescription else "the reference maximum",
        },
        "marks": _marks(result),
        "lowSamplingPercent": LOW_SAMPLING_PERCENT,
        "outlineVoxels": OUTLINE_VOXELS,
        "dvh": charts.dvh_chart(result),
        "zHistogram": charts.z_histogram(result),
        "scaleProfiles": charts.scale_profiles(result),
        "line": charts.line_profile(result),
        "colormaps": json.loads(_resource("assets", "colormaps.json")),
    }


def _marks(result: ComparisonResult) -> list[dict[str, Any]]:
    """Points that the crosshair can jump to: maximum, largest difference, worst gamma."""
    import numpy as np

    marks = []
    grid = result.reference.grid
    found = [("Maximum dose", result.reference.dose_gy, grid)]
    for key, label in (("difference_gy", "Largest difference"), ("dmd_residual_gy", "Largest residual")):
        if key in result.maps:
            found.append((label, np.abs(result.maps[key].values), result.maps[key].grid))
    gammas = [key for key in result.maps if key.startswith("gamma")]
    if gammas:
        found.append(("Worst gamma", result.maps[gammas[0]].values, result.maps[gammas[0]].grid))
    for label, values, where in found:
        if not np.isfinite(values).any():
            continue
        index = np.unravel_index(int(np.nanargmax(values)), values.shape)
        z, y, x = (float(c[i]) for c, i in zip(where.centers_mm, index, strict=True))
        if all(map(math.isfinite, (x, y, z))):
            marks.append({"label": label, "x": x, "y": y, "z": z})
    return marks
