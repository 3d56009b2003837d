"""Writes the report of the embedded example beside the pages, so that a reader can open it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sphinx.application import Sphinx


def write_report(app: Sphinx, error: Exception | None) -> None:
    """Compare the embedded pair and write ``example_report.html`` into the finished site."""
    if error is not None or app.builder.format != "html":
        return
    target = Path(app.outdir) / "example_report.html"
    if target.exists():
        return
    from dosemover.comparison import compare
    from dosemover.examples import example_pair

    compare(*example_pair(), profile=True).report(target)


def setup(app: Sphinx) -> dict[str, Any]:
    """Write the report when all pages are there."""
    app.connect("build-finished", write_report)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
