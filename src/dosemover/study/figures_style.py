"""Look of the figures of a study: colors, sizes, and what several of them draw."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH_IN = 6.9
"""Width of a figure: the text width of the page [inch]."""

REFERENCE, EVALUATED = "#1d5fd0", "#c2410c"
INK, SOFT, LINE = "#16191d", "#545b66", "#d9dde3"
"""Colors of the two maps and of texts: those of the same names in the report of a comparison."""

OCHRE, GREEN, TEAL = "#a16207", "#15803d", "#0e7490"
FAMILY_COLORS = {"amounts": OCHRE, "space": EVALUATED, "transport": REFERENCE, "moments": GREEN}
CYCLE = (REFERENCE, EVALUATED, GREEN, OCHRE, "#7e22ce", TEAL, "#be185d", SOFT, "#65a30d")
MARKERS = "os^DvPX*h"

_STYLE: Any = {
    "font.size": 8.0,
    "font.family": "DejaVu Sans",
    "axes.titlesize": 8.5,
    "axes.labelsize": 8.0,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    "lines.linewidth": 1.3,
    "lines.markersize": 3.6,
    "axes.grid": True,
    "grid.color": LINE,
    "grid.linewidth": 0.5,
    "axes.axisbelow": True,
    "svg.hashsalt": "dosemover",
    "figure.dpi": 150,
}


@contextmanager
def style() -> Iterator[None]:
    """The house's look, within a block only."""
    from matplotlib import rc_context

    with rc_context(_STYLE):
        yield


def new_figure(
    rows: int = 1, columns: int = 1, *, height: float, **options: Any
) -> tuple[Figure, np.ndarray]:
    """A figure of the page's width with a grid of axes, without pyplot's global state."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH_IN, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def family_legend(target: Any, **options: Any) -> None:
    """Legend that names the families' colors."""
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], marker="o", linestyle="", color=c, label=n) for n, c in FAMILY_COLORS.items()]
    target.legend(handles=handles, **options)


def log_ticks(axis: Any, values: Sequence[float]) -> None:
    """Plain numbers at the studied values of a logarithmic axis."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    axis.set_major_locator(FixedLocator(list(values)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def few_decades(axes: Axes) -> None:
    """Logarithmic y axis with plain numbers at 1, 2 and 5 of each decade, no others."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    low, high = axes.get_ylim()
    subs = (1.0, 2.0, 5.0) if high / low < 100 else (1.0,)
    axes.yaxis.set_major_locator(LogLocator(subs=subs))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def whole_decades(axes: Axes) -> None:
    """Logarithmic x axis with numbers at powers of ten only."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.xaxis.set_major_locator(LogLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())


def heat_map(
    axes: Axes,
    values: np.ndarray,
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    limits: tuple[float, float],
    cmap: Any,
    text: Any,
    norm: Any = None,
) -> Any:
    """Colored table with a number in every cell; light letters on dark cells."""
    from matplotlib import colormaps

    kinds: dict[str, Any] = {"norm": norm} if norm is not None else {"vmin": limits[0], "vmax": limits[1]}
    cmap = (colormaps[cmap] if isinstance(cmap, str) else cmap).with_extremes(bad="#eef0f3")
    image = axes.imshow(np.ma.masked_invalid(values), cmap=cmap, aspect="auto", **kinds)
    axes.set_xticks(range(len(columns)), columns, rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(rows)), rows)
    axes.grid(visible=False)
    axes.tick_params(length=0)
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)
    for i, j in np.ndindex(*values.shape):
        if np.isfinite(values[i, j]):
            red, green, blue, _ = image.cmap(image.norm(values[i, j]))
            dark = 0.3 * red + 0.59 * green + 0.11 * blue < 0.5
            color = "white" if dark else INK
            axes.text(j, i, text(values[i, j]), ha="center", va="center", fontsize=6.2, color=color)
    return image
