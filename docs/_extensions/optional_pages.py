"""Pages that studies write: lines that lead to absent ones are left out, unlisted ones join the guide."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

OPTIONAL = ("critical_analysis", "gallery", "monte_carlo")
"""Names of such pages, without ``.md``."""

REST = "the_other_pages"
"""Entry of a toctree that stands for all pages that no toctree names."""

FRAGMENTS = frozenset({"index", "readings"})
"""Files that are no page of a toctree."""


def unlisted(folder: Path) -> list[str]:
    """Names of the pages that no page names on a line of its own."""
    pages = {path.stem: path.read_text(encoding="utf-8") for path in folder.glob("*.md")}
    named = {line.strip() for text in pages.values() for line in text.split("\n")}
    return sorted(set(pages) - named - FRAGMENTS)


def leave_out(text: str, folder: Path) -> str:
    """Text without toctree entries of, and table rows about, pages that are absent."""
    absent = [name for name in OPTIONAL if not (folder / f"{name}.md").exists()]
    text = text.replace(f"\n{REST}\n", "\n".join(["", *unlisted(folder), ""]))
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


def outdated(app: Sphinx, env: Any, added: set[str], changed: set[str], removed: set[str]) -> list[str]:
    """Pages whose text depends on which other pages there are, where one came or went."""
    if not added and not removed:
        return []
    texts = {name: Path(env.doc2path(name)).read_text(encoding="utf-8") for name in env.found_docs}
    return [name for name, text in texts.items() if f"\n{REST}\n" in text]


def setup(app: Sphinx) -> dict[str, Any]:
    """Filter every page as it is read."""
    app.connect("source-read", source_read)
    app.connect("env-get-outdated", outdated)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
