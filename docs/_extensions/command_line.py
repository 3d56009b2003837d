"""The directive ``command-line``: usage and options of every command, read from its parser."""

from __future__ import annotations

import argparse
import re
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from dosemover.cli.main import build_parser


def commands() -> dict[str, argparse.ArgumentParser]:
    """Every command's parser, by its name."""
    actions = build_parser()._actions
    found = next(action for action in actions if isinstance(action, argparse._SubParsersAction))
    return dict(found.choices)


def _escape(text: str) -> str:
    """Help text as Markdown: argparse's %% and what Markdown would read as markup."""
    return re.sub(r"([*_<>|\[\]])", r"\\\1", text.replace("%%", "%"))


def _invocation(action: argparse.Action) -> str:
    """How an argument is written on the command line."""
    value = action.metavar or (action.dest.upper() if action.nargs != 0 else "")
    if action.choices:
        value = "|".join(str(choice) for choice in action.choices)
    value = value[0] if isinstance(value, tuple) else value
    if not action.option_strings:
        return str(value)
    return ", ".join(f"{option} {value}".strip() for option in action.option_strings)


def _usage(parser: argparse.ArgumentParser) -> str:
    """The usage line, at a width of its own whatever the terminal's."""
    parser.formatter_class = lambda prog: argparse.HelpFormatter(prog, width=84, max_help_position=30)
    return parser.format_usage().removeprefix("usage: ").rstrip()


def markdown(name: str, parser: argparse.ArgumentParser) -> list[str]:
    """One command's section."""
    lines = [f"## {name}", "", _escape(parser.description or ""), "", "```text", _usage(parser), "```", ""]
    for group in parser._action_groups:
        actions = [action for action in group._group_actions if action.dest != "help"]
        if not actions:
            continue
        title = {"positional arguments": "Arguments", "options": "Options"}.get(
            group.title or "", group.title
        )
        lines += [f"**{(title or '').capitalize()}**", ""]
        for action in actions:
            text = _escape((action.help or "") % (vars(action) | {"prog": parser.prog}))
            lines += [f"`{_invocation(action)}`", f": {text or 'a dose map'}", ""]
    return lines


class CommandLine(SphinxDirective):
    """Sections for every command."""

    def run(self) -> list[nodes.Node]:
        """Parse the generated Markdown in place."""
        lines = [line for name, parser in commands().items() for line in markdown(name, parser)]
        holder = nodes.Element()
        self.state.nested_parse(StringList(lines, source="argparse"), 0, holder, match_titles=True)
        return holder.children


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive."""
    app.add_directive("command-line", CommandLine)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
