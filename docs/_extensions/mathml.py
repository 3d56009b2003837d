"""Formulas as MathML, written at build time: pages need neither scripts nor a network to show them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.logging import getLogger
from sphinx.util.math import get_node_equation_number

logger = getLogger(__name__)

NAMESPACE = "http://www.w3.org/1998/Math/MathML"
BARS = ("|", "\u2016")
MINUS = "\u2212"
BEFORE_A_SIGN = ("=", "(", "[", ",", "\u2264", "\u2265", "\u2248")
"""Operators after which a minus is a sign, not a difference."""

WITH_LIMITS = ("min", "max", "sup", "inf")
"""Operators whose index stands below them in a formula on a line of its own."""

RELATIONS = ("\u2ab0", "\u2aaf")
"""Relations that the converter writes as letters, without space around them."""

SPACES = {"negativethinmathspace": "-0.167em"}
"""Widths by name, which browsers no longer know."""

PUNCTUATION = ",.;:)"


def mathml(latex: str, *, display: str, node: nodes.Node | None = None) -> str:
    """MathML of a formula, "inline" or "block"; a command that comes out as text is warned of."""
    found = tidied(convert(latex, display=display))
    if "\\" in found:
        logger.warning("a command of this formula is not understood: %s", latex, location=node)
    return found


def tidied(found: str) -> str:
    """MathML with the spaces and limits of TeX: browsers do not get them from what the converter writes."""
    ElementTree.register_namespace("", NAMESPACE)
    root = ElementTree.fromstring(found)
    for element in root.iter(f"{{{NAMESPACE}}}mi"):
        if element.text in RELATIONS:
            element.tag = f"{{{NAMESPACE}}}mo"
    for element in root.iter(f"{{{NAMESPACE}}}mspace"):
        element.set("width", SPACES.get(element.get("width", ""), element.get("width", "")))
    for first, second in _neighbours(root):
        if second.text == MINUS and first.text in BEFORE_A_SIGN:
            second.set("form", "prefix")
    _space_operators(list(root.iter(f"{{{NAMESPACE}}}mo")))
    if root.get("display") == "block":
        for element in root.iter(f"{{{NAMESPACE}}}msub"):
            if element[0].text in WITH_LIMITS:
                element.tag = f"{{{NAMESPACE}}}munder"
    return ElementTree.tostring(root, encoding="unicode")


def _space_operators(operators: list[ElementTree.Element]) -> None:
    """Bars open and close by turns; a slash stands close."""
    for bar in BARS:
        bars = [element for element in operators if element.text == bar and "form" not in element.attrib]
        if len(bars) % 2 == 0:
            for i, element in enumerate(bars):
                element.set("form", "postfix" if i % 2 else "prefix")
                element.set("stretchy", "false")
    for element in operators:
        if element.text == "/":
            element.set("lspace", "0")
            element.set("rspace", "0")


def _neighbours(root: ElementTree.Element) -> Iterator[tuple[ElementTree.Element, ElementTree.Element]]:
    """Every element with the one after it."""
    for parent in root.iter():
        yield from zip(list(parent)[:-1], list(parent)[1:], strict=True)


def visit_math(translator: Any, node: nodes.math) -> None:
    """Write a formula within a line."""
    translator.body.append(mathml(node.astext(), display="inline", node=node))
    raise nodes.SkipNode


def visit_math_block(translator: Any, node: nodes.math_block) -> None:
    """Write a formula on a line of its own, with its number where it has one."""
    translator.body.append(translator.starttag(node, "div", CLASS="math-block"))
    translator.body.append(mathml(node.astext(), display="block", node=node))
    if node["number"]:
        number = get_node_equation_number(translator, node)
        translator.body.append(f'<span class="eqno">({number})</span>')
    translator.body.append("</div>\n")
    raise nodes.SkipNode


class KeepPunctuation(SphinxPostTransform):
    """A comma or full stop stays on the line of the formula before it."""

    default_priority = 900
    formats = ("html",)

    def run(self, **_: Any) -> None:
        """Bind each formula to the punctuation that follows."""
        for formula in list(self.document.findall(nodes.math)):
            parent = formula.parent
            place = parent.index(formula)
            text = parent[place + 1] if place + 1 < len(parent) else None
            if not isinstance(text, nodes.Text) or not text.startswith(tuple(PUNCTUATION)):
                continue
            rest = text.lstrip(PUNCTUATION)
            bound = nodes.inline(
                "", "", formula, nodes.Text(text[: len(text) - len(rest)]), classes=["unbroken"]
            )
            parent[place : place + 2] = [bound, nodes.Text(rest)]


def setup(app: Sphinx) -> dict[str, Any]:
    """Make MathML the way that HTML shows formulas."""
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_math_block, None))
    app.add_post_transform(KeepPunctuation)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
