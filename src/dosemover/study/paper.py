"""Texts of a study's report: a page in Markdown and a paper in Typst, their numbers filled in."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dosemover.study.analysis_labels import label, pretty
from dosemover.study.analysis_summary import StudyAnalysis
from dosemover.study.analysis_verdicts import count, number
from dosemover.study.page_context import context

if TYPE_CHECKING:
    from jinja2 import Environment

    from dosemover.study.report import Drawing

_log = logging.getLogger(__name__)


@cache
def _environment() -> Environment:
    """Templates of this package; filters escape what the two languages would read as commands."""
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    folder = resources.files("dosemover.study") / "templates"
    environment = Environment(
        loader=FunctionLoader(lambda name: (folder / name).read_text(encoding="utf-8")),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
        variable_start_string="<<",
        variable_end_string=">>",
        block_start_string="<%",
        block_end_string="%>",
        comment_start_string="<!#",
        comment_end_string="#!>",
    )
    environment.filters |= {
        "number": number,
        "count_of": count,
        "signed": _signed,
        "grouped": lambda n: f"{n:,}".replace(",", "\u202f"),
        "label": label,
        "pretty": pretty,
        "typ": typst_text,
        "md": _md,
    }
    return environment


def typst_text(text: str) -> str:
    r"""Text that Typst sets as it is.

    Examples
    --------
    >>> typst_text("50 % [a_b] #1")
    '50 % \\[a\\_b\\] \\#1'
    """
    return re.sub(r"([\\#$*_`<>@\[\]~])", r"\\\1", str(text))


def _signed(value: float) -> str:
    """A difference of two AUC, with its sign."""
    return f"{value:+.2f}".replace("-", "−")


def _md(text: str) -> str:
    """Text for a cell of a Markdown table; ranges of numbers stay on one line."""
    escaped = str(text).replace("|", "\\|").replace("<", "\\<")
    return re.sub(r"(?<=[\dkM])–(?=[\d≤>])", "\u2060–\u2060", escaped)


def _figures(drawings: Mapping[str, Drawing], drawn: Sequence[str]) -> dict[str, Drawing]:
    return {name: drawings[name] for name in drawn}


def render_page(
    analysis: StudyAnalysis,
    *,
    drawings: Mapping[str, Drawing],
    drawn: Sequence[str],
    figure_folder: str,
    site: bool = False,
) -> str:
    """The page of findings in Markdown.

    Parameters
    ----------
    analysis : StudyAnalysis
    drawings : mapping of str to Drawing
        Captions and alternative texts.
    drawn : sequence of str
        Names of the figures that exist.
    figure_folder : str
        Where they lie, seen from the page.
    site : bool
        Whether the page is one of the documentation, with links to others.
    """
    template = _environment().get_template("critical_analysis.md.j2")
    text = template.render(
        **context(analysis), figures=_figures(drawings, drawn), figure_folder=figure_folder, site=site
    )
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def write_paper(
    analysis: StudyAnalysis,
    folder: Path,
    *,
    drawings: Mapping[str, Drawing],
    drawn: Sequence[str],
    figure_folder: str,
    root: Path | None = None,
) -> list[Path]:
    """The paper: Typst source, bibliography and, where Typst is installed, PDF; arguments as above.

    Parameters
    ----------
    folder : Path
        Where ``paper.typ``, ``paper.bib`` and ``paper.pdf`` go.
    root : Path, optional
        Folder that the figures are read from, at or above ``folder``.
    """
    template = _environment().get_template("paper.typ.j2")
    source, bibliography, pdf = (folder / f"paper.{suffix}" for suffix in ("typ", "bib", "pdf"))
    folder.mkdir(parents=True, exist_ok=True)
    text = template.render(
        **context(analysis), figures=_figures(drawings, drawn), figure_folder=figure_folder
    )
    source.write_text(text, encoding="utf-8")
    packaged = resources.files("dosemover.study") / "templates" / "paper.bib"
    bibliography.write_text(packaged.read_text(encoding="utf-8"), encoding="utf-8")
    return [source, bibliography, *_compiled(source, pdf, root or folder)]


def _compiled(source: Path, pdf: Path, root: Path) -> list[Path]:
    """The PDF, or nothing where Typst is missing."""
    try:
        import typst
    except ImportError:
        _log.warning(
            "the Python package 'typst' is not installed. The PDF was left out; %s is its source. "
            "Install it with: pip install 'dosemover[study]'",
            source.name,
        )
        return []
    import datetime

    made = datetime.datetime.fromtimestamp(0, datetime.UTC)
    how: dict[str, Any] = {"root": str(root), "ignore_system_fonts": True, "timestamp": made}
    try:
        typst.compile(str(source), output=str(pdf), **how)
    except typst.TypstError as error:
        if "internal error" not in str(error):
            raise
        _log.info("the PDF goes without accessibility tags: %s", error)  # they fail on some floating figures
        typst.compile(str(source), output=str(pdf), pdf_tags=False, **how)
    return [pdf]
