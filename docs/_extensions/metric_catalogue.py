"""The directive ``metric-catalogue``: every metric key of the registry with the report's own sentences."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from dosemover.comparison.families import FAMILIES
from dosemover.comparison.registry import Family
from dosemover.comparison.result import MetricResult
from dosemover.comparison.settings import CompareSettings
from dosemover.report.sentences import explain


def _sets(family: Family, key: str, settings: CompareSettings) -> str:
    """Which of the sets "fast" and "default" hold a key."""
    names = [tier for tier in ("fast", "default") if key in family.keys_in(tier, settings)]
    return ", ".join(names) or "all"


def rows(settings: CompareSettings | None = None) -> list[tuple[str, ...]]:
    """Key, unit, name in words, sets and family of every metric, in the order of the tables."""
    settings = settings or CompareSettings()
    found = []
    for family in FAMILIES:
        for key, unit in family.keys(settings).items():
            title = explain(MetricResult(key=key, value=1.0, unit=unit)).title
            found.append((key, unit, title, _sets(family, key, settings), family.name))
    return found


class MetricCatalogue(SphinxDirective):
    """A table of every metric."""

    def run(self) -> list[nodes.Node]:
        """Parse the generated table in place."""
        lines = ["| key | name | unit | smallest set | family |", "|---|---|---|---|---|"]
        for key, unit, title, sets, family in rows():
            lines.append(f"| `{key}` | {title} | {unit} | {sets.split(', ')[0]} | `{family}` |")
        holder = nodes.Element()
        self.state.nested_parse(StringList(lines, source="registry"), 0, holder)
        return holder.children


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive."""
    app.add_directive("metric-catalogue", MetricCatalogue)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
