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


_LITERAL = re.compile(r"(`[^`]+`)|(?<!\w)'([^']+)'|(--[a-z-]+|\S*_\S*\w)")
"""What stands in backquotes or quotation marks, an option, a key."""


def _escape(text: str) -> str:
    """Help text as Markdown: argparse's %%, code as code, and nothing that Markdown would read as markup."""
    parts, end = [], 0
    text = text.replace("%%", "%")
    for found in _LITERAL.finditer(text):
        parts += [_plain(text[end : found.start()]), found[1] or f"`{found[2] or found[3]}`"]
        end = found.end()
    return "".join([*parts, _plain(text[end:])])


def _plain(text: str) -> str:
    """Text without markup."""
    return re.sub(r"([*_<>|\[\]])", r"\\\1", text)


def _invocation(action: argparse.Action) -> str:
    """How an argument is written on the command line."""
    value = action.metavar or (action.dest.upper() if action.nargs != 0 else "")
    if action.nargs == "?" and action.option_strings:
        value = f"[{value}]"
    if action.choices:
        value = "|".join(str(choice) for choice in action.choices)
    value = value[0] if isinstance(value, tuple) else value
    if not action.option_strings:
        return str(value)
    return ", ".join(f"{option} {value}".strip() for option in action.option_strings)


def _usage(parser: argparse.ArgumentParser) -> str:
    """The usage line, at a width of its own whatever the terminal's."""
    parser.formatter_class = lambda prog: argparse.HelpFormatter(prog, width=84, max_help_position=30)
    prefix = "usage: "
    usage = parser.format_usage().removeprefix(prefix).rstrip()
    return usage.replace("\n" + " " * len(prefix), "\n")


def markdown(name: str, parser: argparse.ArgumentParser, level: int = 2) -> list[str]:
    """One command's section, and those of its own commands below."""
    lines = [f"{'#' * level} {name}", "", _escape(parser.description or ""), ""]
    lines += ["```text", _usage(parser), "```", ""]
    for group in parser._action_groups:
        actions = [
            action
            for action in group._group_actions
            if action.dest != "help" and not isinstance(action, argparse._SubParsersAction)
        ]
        if not actions:
            continue
        title = {"positional arguments": "Arguments", "options": "Options"}.get(
            group.title or "", group.title
        )
        lines += [f"**{(title or '').capitalize()}**", ""]
        for action in actions:
            text = _escape((action.help or "") % (vars(action) | {"prog": parser.prog}))
            lines += [f"`{_invocation(action)}`", f": {text}", ""]
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for verb, own in action.choices.items():
                lines += markdown(f"{name} {verb}", own, level + 1)
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
