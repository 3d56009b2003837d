"""Pages that a study writes: where one is not there yet, the lines that lead to it are left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

OPTIONAL = ("critical_analysis", "gallery")
"""Names of such pages, without ``.md``."""


def leave_out(text: str, folder: Path) -> str:
    """Text without toctree entries of, and table rows about, pages that are absent."""
    absent = [name for name in OPTIONAL if not (folder / f"{name}.md").exists()]
    return "\n".join(
        line
        for line in text.split("\n")
        if not any(
            line.strip() == name or (line.startswith("|") and f"({name}.md)" in line) for name in absent
        )
    )


def source_read(app: Sphinx, docname: str, source: list[str]) -> None:
    """Filter one page."""
    source[0] = leave_out(source[0], Path(app.srcdir))


def setup(app: Sphinx) -> dict[str, Any]:
    """Filter every page as it is read."""
    app.connect("source-read", source_read)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
