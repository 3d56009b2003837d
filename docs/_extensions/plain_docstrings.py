"""Docstrings as they are written: |x| is an absolute value, and bibliography keys become links."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

_KEY = re.compile(r"\b[a-z]+[0-9]{4}[a-z]?\b")
"""What a bibliography key looks like."""

_LITERAL = re.compile(r"(``.+?``|`.+?`)", re.DOTALL)
"""What stands between backquotes, over line ends too."""


@cache
def _keys(path: Path) -> frozenset[str]:
    """Keys of a BibTeX file."""
    return frozenset(re.findall(r"^@\w+\{(\w+),", path.read_text(encoding="utf-8"), re.MULTILINE))


def escape_bars(lines: list[str]) -> list[str]:
    """Escape vertical bars outside literals, literal blocks, formulas and doctests."""
    escaped: list[str] = []
    paragraph: list[str] = []
    block_indent: int | None = None

    def flush() -> None:
        parts = _LITERAL.split("\n".join(paragraph))
        parts[::2] = [part.replace("|", r"\|") for part in parts[::2]]
        escaped.extend("".join(parts).split("\n") if paragraph else [])
        paragraph.clear()

    for line in lines:
        indent = len(line) - len(line.lstrip())
        if block_indent is not None and line.strip() and indent <= block_indent:
            block_indent = None
        if block_indent is not None or not line.strip() or line.lstrip().startswith(">>>"):
            flush()
            escaped.append(line)
        else:
            paragraph.append(line)
        if block_indent is None and line.rstrip().endswith(("::", ".. math::")):
            block_indent = indent
    flush()
    return escaped


def link_references(lines: list[str], keys: frozenset[str]) -> list[str]:
    """Bibliography keys below "References" as citations."""
    start = next((i for i, line in enumerate(lines) if line.strip() == ".. rubric:: References"), None)
    if start is None:
        return lines
    linked = [
        _KEY.sub(lambda m: f":cite:t:`{m[0]}`" if m[0] in keys else m[0], x) for x in lines[start + 1 :]
    ]
    return [*lines[: start + 1], *linked]


def process(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Mend one docstring in place."""
    lines[:] = link_references(escape_bars(lines), _keys(Path(app.srcdir) / "references.bib"))


def setup(app: Sphinx) -> dict[str, Any]:
    """Run after numpydoc has laid out the sections."""
    app.connect("autodoc-process-docstring", process, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
