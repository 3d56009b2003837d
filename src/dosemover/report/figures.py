"""Matplotlib figures of a comparison, for scripts and notebooks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dosemover.comparison.result import ComparisonResult, FieldMap
from dosemover.errors import InputError
from dosemover.report.charts import Z_EDGES, scale_profiles

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

ISODOSE_PERCENT = (10, 20, 50, 80, 95, 100)
"""Isodose lines in percent of the prescription or, without one, of the reference maximum."""

_PLANES = {"axial": (2, 1, 0), "coronal": (2, 0, 1), "sagittal": (1, 0, 2)}
"""Array axes across, down and along the normal of each plane."""

_NAMES = "zyx"


def _axes(ax: Axes | None) -> Axes:
    """The axes to draw into: those given, or those of a new figure."""
    if ax is not None:
        return ax
    from matplotlib import pyplot as plt

    return plt.subplots(layout="constrained")[1]


def _field(result: ComparisonResult, key: str) -> FieldMap:
    """A map of the result by its key; "reference" and "evaluated" are the doses."""
    if key == "reference":
        return FieldMap(values=result.reference.dose_gy, grid=result.reference.grid, unit="Gy", label="dose")
    if key == "evaluated":
        return FieldMap(values=result.evaluated.dose_gy, grid=result.evaluated.grid, unit="Gy", label="dose")
    if key not in result.maps:
        known = ", ".join(("reference", "evaluated", *result.maps))
        raise InputError(
            f"the comparison holds no map {key!r}. It cannot be drawn. Choose one of: {known}; "
            "`dm.compare` makes a map together with the metric that it belongs to."
        )
    return result.maps[key]


def _gamma_key(result: ComparisonResult) -> str:
    """The first gamma map of a result."""
    return next((key for key in result.maps if key.startswith("gamma")), "gamma_3_3_global")


def _colors(key: str, values: NDArray[Any]) -> dict[str, Any]:
    """Colour map and limits: sequential for dose, diverging around 0, gamma with its break at 1."""
    from matplotlib import colormaps
    from matplotlib.colors import BoundaryNorm, ListedColormap

    finite = values[np.isfinite(values)]
    top = float(np.quantile(np.abs(finite), 0.999)) if finite.size else 1.0
    if key.startswith("gamma"):
        low, high = (
            colormaps["Blues"](np.linspace(0.15, 0.75, 10)),
            colormaps["YlOrRd"](np.linspace(0.35, 0.95, 10)),
        )
        return {
            "cmap": ListedColormap(np.vstack([low, high])),
            "norm": BoundaryNorm(np.linspace(0, 2, 21), 20),
        }
    if finite.size and float(finite.min()) < 0:
        return {"cmap": "RdBu_r", "vmin": -(top or 1.0), "vmax": top or 1.0}
    return {"cmap": "viridis", "vmin": 0.0, "vmax": float(finite.max()) if finite.size else 1.0}


def _quantity(field: FieldMap) -> str:
    """What a colour bar or axis reads: "dose / Gy"."""
    return f"{field.label} / {field.unit}" if field.unit else field.label


def _label(axis: Axis, text: str, top: float) -> None:
    """Label an axis; where its numbers are too small or large to print, in a power of ten of the unit.

    Parameters
    ----------
    axis : matplotlib Axis
    text : str
        "dose / Gy"; without a unit, the numbers stay as they are.
    top : float
        Largest number on the axis: between 0.01 and 100 000 nothing is done.
    """
    from matplotlib.ticker import FuncFormatter

    name, _, unit = text.partition(" / ")
    if unit and top > 0 and not 1e-2 <= top < 1e5:
        power = 3 * math.floor(math.log10(top) / 3)
        text = f"{name} / $10^{{{power}}}$ {unit}"
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / 10.0**power:.6g}"))
    axis.set_label_text(text)


def _nearest(centers: NDArray[Any], mm: float) -> int:
    """Voxel whose centre is nearest to a position [mm]."""
    return int(np.argmin(np.abs(centers - mm)))


def _maximum_mm(result: ComparisonResult) -> tuple[float, float, float]:
    """Position (x, y, z) [mm] of the reference maximum."""
    dose = result.reference
    index = np.unravel_index(int(np.argmax(dose.dose_gy)), dose.grid.shape)
    z, y, x = (float(c[i]) for c, i in zip(dose.grid.centers_mm, index, strict=True))
    return x, y, z


def _plane(result: ComparisonResult, name: str | None) -> tuple[int, int, int]:
    """Array axes of a plane; by default of the first in which the maps have an extent."""
    if name is not None and name not in _PLANES:
        raise InputError(f"`plane` must be one of {', '.join(_PLANES)}, got {name!r}. No slice was drawn.")
    long = result.reference.grid.extended_axes
    for plane, axes in _PLANES.items():
        if name == plane or (name is None and axes[0] in long and axes[1] in long):
            return axes
    raise InputError(
        "the maps have one dimension, so they have no slices. Nothing was drawn. Use `plot_profiles`."
    )


def plot_slices(
    result: ComparisonResult,
    *,
    key: str = "difference_gy",
    plane: str | None = None,
    position_mm: float | None = None,
    isodoses: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """One slice of a map, with the isodose lines of the reference.

    Parameters
    ----------
    result : ComparisonResult
    key : str
        "reference", "evaluated" or a key of ``result.maps`` that holds scalars.
    plane : str, optional
        "axial", "coronal" or "sagittal"; by default the first in which the maps have an extent.
    position_mm : float, optional
        Where to cut along the plane's normal [mm]; by default through the reference maximum.
    isodoses : bool
        Draw the reference's 10, 20, 50, 80, 95 and 100 % lines.
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    InputError
        When there is no such map or plane.
    """
    field = _field(result, key)
    if field.values.ndim == 4:
        raise InputError(
            f"the map {key!r} holds vectors. A slice of scalars was asked for. Use `plot_displacement`."
        )
    across, down, normal = _plane(result, plane)
    at = _maximum_mm(result)[2 - normal] if position_mm is None else position_mm
    axes = _axes(ax)
    values = _cut(field, (across, down, normal), at)
    edges = field.grid.edges_mm
    image = axes.pcolormesh(edges[across], edges[down], values, rasterized=True, **_colors(key, field.values))
    bar = axes.figure.colorbar(image, ax=axes, extend="both" if image.norm.vmin else "max")
    _label(bar.ax.yaxis, _quantity(field), float(image.get_clim()[1] or 0.0))
    if isodoses:
        _isodose_lines(result, (across, down, normal), at, axes)
    _frame(axes, (across, down, normal), at)
    return axes


def _cut(field: FieldMap, plane: tuple[int, int, int], at: float) -> NDArray[Any]:
    """A slice with rows along the plane's second axis."""
    across, down, normal = plane
    index = _nearest(field.grid.centers_mm[normal], at)
    values = np.take(field.values, index, axis=normal + field.values.ndim - 3)
    return values if down < across else np.swapaxes(values, -1, -2)


def _isodose_lines(result: ComparisonResult, plane: tuple[int, int, int], at: float, axes: Axes) -> None:
    """Contours of the reference dose in percent of the prescription or its maximum."""
    across, down, _ = plane
    dose = _cut(_field(result, "reference"), plane, at)
    if min(dose.shape) < 2:
        return
    full = result.settings.get("prescription_gy") or result.reference.max_gy
    levels = [p / 100 * full for p in ISODOSE_PERCENT]
    shown = [
        (level, p)
        for level, p in zip(levels, ISODOSE_PERCENT, strict=True)
        if dose.min() < level < dose.max()
    ]
    if not shown:
        return
    centers = result.reference.grid.centers_mm
    lines = axes.contour(
        centers[across],
        centers[down],
        dose,
        levels=[level for level, _ in shown],
        colors="0.25",
        linewidths=0.8,
    )
    axes.clabel(lines, fmt={level: f"{p} %" for level, p in shown}, fontsize=7)


def _frame(axes: Axes, plane: tuple[int, int, int], at: float) -> None:
    """Axis labels in mm, equal aspect, and posterior down in axial slices."""
    across, down, normal = plane
    axes.set(xlabel=f"{_NAMES[across]} / mm", ylabel=f"{_NAMES[down]} / mm", aspect="equal")
    axes.set_title(f"{_NAMES[normal]} = {at:.4g} mm", fontsize="medium")
    if _NAMES[down] == "y" and not axes.yaxis_inverted():
        axes.invert_yaxis()


def plot_gamma(
    result: ComparisonResult,
    *,
    key: str | None = None,
    plane: str | None = None,
    position_mm: float | None = None,
    ax: Axes | None = None,
) -> Axes:
    """One slice of a gamma map, its colours broken at 1; parameters as in `plot_slices`.

    ``key`` defaults to the first gamma map of the result.
    """
    return plot_slices(result, key=key or _gamma_key(result), plane=plane, position_mm=position_mm, ax=ax)


def plot_displacement(
    result: ComparisonResult,
    *,
    key: str = "displacement_mm",
    background: str = "change_percent",
    plane: str | None = None,
    position_mm: float | None = None,
    n_arrows: int = 24,
    ax: Axes | None = None,
) -> Axes:
    """Arrows of a displacement or flow over a slice of the change map.

    Parameters
    ----------
    result : ComparisonResult
    key : str
        A key of ``result.maps`` that holds vectors [mm].
    background : str
        The scalar map below the arrows.
    plane, position_mm, ax
        As in `plot_slices`.
    n_arrows : int
        About how many arrows along the longer side.

    Returns
    -------
    matplotlib Axes

    Notes
    -----
    Arrows are drawn where the reference exceeds 5 % of its maximum, larger than life; the key says
    how much.
    """
    field = _field(result, key)
    if field.values.ndim != 4:
        raise InputError(f"the map {key!r} holds no vectors. Arrows cannot be drawn. Use `plot_slices`.")
    axes = plot_slices(result, key=background, plane=plane, position_mm=position_mm, isodoses=False, ax=ax)
    cut = _plane(result, plane)
    across, down, normal = cut
    at = _maximum_mm(result)[2 - normal] if position_mm is None else position_mm
    vectors = _cut(field, cut, at)
    x, y = field.grid.centers_mm[across], field.grid.centers_mm[down]
    dose = result.reference.interpolated_to(field.grid).dose_gy
    enough = (
        _cut(FieldMap(values=dose, grid=field.grid, unit="Gy", label="dose"), cut, at) > 0.05 * dose.max()
    )
    step = max(1, round(max(x.size, y.size) / n_arrows))
    keep = np.zeros(enough.shape, bool)
    keep[step // 2 :: step, step // 2 :: step] = True
    rows, columns = np.nonzero(keep & enough)
    u, v = vectors[2 - across][rows, columns], vectors[2 - down][rows, columns]
    size = np.hypot(u, v)
    typical = float(np.quantile(size, 0.95)) if size.size else 0.0
    pitch = float(np.ptp(x)) / max(x.size - 1, 1) * step
    if typical > 0:
        arrows = axes.quiver(
            x[columns],
            y[rows],
            u,
            v,
            angles="xy",
            scale_units="xy",
            scale=typical / (1.2 * pitch),
            width=0.004,
        )
        axes.quiverkey(arrows, 0.86, 1.03, typical, f"{typical:.2g} {field.unit}", labelpos="E")
    return axes


def plot_profiles(
    result: ComparisonResult,
    *,
    axis: str = "x",
    point_mm: Sequence[float] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Both doses along one axis through a point, by default through the reference maximum.

    Parameters
    ----------
    result : ComparisonResult
    axis : str
        "x", "y" or "z".
    point_mm : sequence of float, optional
        Point (x, y, z) [mm] that the profile passes.
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib Axes
    """
    if axis not in ("x", "y", "z"):
        raise InputError(f"`axis` must be x, y or z, got {axis!r}. No profile was drawn.")
    point = _maximum_mm(result) if point_mm is None else tuple(float(p) for p in point_mm)
    if len(point) != 3:
        raise InputError(f"`point_mm` must be (x, y, z), got {len(point)} numbers. No profile was drawn.")
    along = _NAMES.index(axis)
    axes = _axes(ax)
    for dose, label, style in ((result.reference, "reference", "-"), (result.evaluated, "evaluated", "--")):
        centers = dose.grid.centers_mm
        index: list[Any] = [_nearest(c, point[2 - a]) for a, c in enumerate(centers)]
        index[along] = slice(None)
        values = dose.dose_gy[tuple(index)]
        (line,) = axes.plot(centers[along], values, style, label=label)
        if dose.uncertainty_gy is not None:
            spread = dose.uncertainty_gy[tuple(index)]
            axes.fill_between(
                centers[along], values - spread, values + spread, color=line.get_color(), alpha=0.2, lw=0
            )
    axes.set(xlabel=f"{axis} / mm")
    axes.set_ylim(bottom=0)
    _label(axes.yaxis, "dose / Gy", axes.get_ylim()[1])
    axes.legend()
    return axes


def plot_dvh(
    result: ComparisonResult, *, structures: Sequence[str] | None = None, ax: Axes | None = None
) -> Axes:
    """Dose-volume histograms: reference solid, evaluated dashed; all structures unless named.

    Raises
    ------
    InputError
        When the comparison holds no such structure.
    """
    names = list(result.dvh_curves) if structures is None else list(structures)
    missing = [name for name in names if name not in result.dvh_curves]
    if missing or not names:
        known = ", ".join(result.dvh_curves) or "none: pass `structures=` to `dm.compare`"
        raise InputError(
            f"the comparison holds no DVH of {', '.join(missing) or 'any structure'}. Nothing was drawn. "
            f"Structures it holds: {known}."
        )
    axes = _axes(ax)
    for name in names:
        curve = result.dvh_curves[name]
        n = min(len(curve["dose_gy"]), len(curve["reference"]))
        (line,) = axes.plot(curve["dose_gy"][:n], curve["reference"][:n], label=name)
        axes.plot(curve["dose_gy"][:n], curve["evaluated"][:n], "--", color=line.get_color())
    axes.set(ylabel="volume / %", ylim=(0, 102))
    axes.set_xlim(left=0)
    _label(axes.xaxis, "dose / Gy", axes.get_xlim()[1])
    axes.legend(title="solid reference, dashed evaluated", fontsize="small", title_fontsize="small")
    return axes


def plot_z_histogram(result: ComparisonResult, *, ax: Axes | None = None) -> Axes:
    """Distribution of difference over uncertainty beside the normal curve that noise alone gives.

    Raises
    ------
    InputError
        When the comparison holds no "z" map: no uncertainty was known.
    """
    z = _field(result, "z").values
    z = z[np.isfinite(z)]
    axes = _axes(ax)
    axes.hist(
        np.clip(z, Z_EDGES[0], Z_EDGES[-1]), bins=list(Z_EDGES), density=True, color="0.75", label="voxels"
    )
    x = np.linspace(Z_EDGES[0], Z_EDGES[-1], 400)
    axes.plot(x, np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi), "k", label="noise alone (normal)")
    axes.set(xlabel="difference / its standard uncertainty", ylabel="share of voxels per unit")
    axes.legend()
    return axes


def plot_scale_profiles(result: ComparisonResult, *, key: str = "dmd_mm", ax: Axes | None = None) -> Axes:
    """DMD over the exchange length L ("dmd_mm") or the flat norm over the reach R ("kr_mm").

    Raises
    ------
    InputError
        When the profile was not asked for.
    """
    chart = next((c for c in scale_profiles(result) if c["key"] == key), None)
    if chart is None:
        raise InputError(
            f"the comparison holds no profile {key!r}. It cannot be drawn. Ask for it: "
            "`dm.compare(..., profile=True)`."
        )
    axes = _axes(ax)
    x = np.array(chart["x"], dtype=float)
    axes.plot(x, np.array(chart["value"], dtype=float), label="value")
    for side in ("lower", "upper"):
        if side in chart:
            axes.plot(x, np.array(chart[side], dtype=float), ":", color="0.4", label=side)
    axes.set(xscale="log", xlabel=chart["xLabel"], ylabel=chart["yLabel"])
    axes.set_ylim(bottom=0)
    axes.legend()
    return axes
