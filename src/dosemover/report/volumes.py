"""The maps of a comparison as compact volumes for the page: coarsened, quantised, compressed."""

from __future__ import annotations

import base64
import math
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dosemover.comparison.result import ComparisonResult, FieldMap
from dosemover.grid import Grid, interpolate

PAGE_BYTES = 6_500_000
"""Characters of base64 that all volumes of a page may take together."""

FIRST_VOXELS = 300_000
"""Voxels of one volume in the first try, which tells how well the maps compress."""

MOST_VOXELS = 2_500_000
"""Voxels of one volume of the page at the most: a phone holds a dozen of them unpacked."""

SAMPLE = 1_000_000
"""About how many voxels decide on the end of a colour scale."""

NOT_A_NUMBER = 65535
"""Code of a voxel that was not evaluated."""

ARROW_DOSE_FRACTION = 0.05
"""Arrows are drawn where the reference dose exceeds this fraction of its maximum."""

LOW_SAMPLING_PERCENT = 10.0
"""Relative standard uncertainty above which a voxel counts as poorly sampled."""

OUTLINE_VOXELS = 9
"""Pieces of low sampling that enclose fewer voxels of a slice of the page are not drawn."""

_LEVELS = {"dose": 4095, "mask": 64, "outline": 64}
_DEFAULT_LEVELS = 1022  # even: zero is one of the levels of a symmetric range


@dataclass(frozen=True, kw_only=True, eq=False)
class Layer:
    """One scalar map of the viewer.

    Parameters
    ----------
    key, label, unit : str
    kind : str
        How it is coloured: "dose", "diverging", "gamma", "sequential", "density", "mask" (a structure) or
        "outline" (a region that is drawn around, whatever map is shown).
    values : ndarray, shape [z, y, x]
        On the reference grid; NaN where not evaluated.
    limit : float
        End of the colour scale, and of its start for "diverging" (then ``-limit``).
    reduce : str
        How blocks of voxels are joined: "mean", or "extreme" for the value furthest from 0.
    """

    key: str
    label: str
    unit: str
    kind: str
    values: NDArray[Any]
    limit: float
    reduce: str = "mean"


_STYLES = {
    # map key: (kind, label of the button, reduction)
    "difference_gy": ("diverging", "Difference", "mean"),
    "z": ("diverging", "z", "extreme"),
    "change_percent": ("diverging", "Change", "mean"),
    "dmd_index_mm": ("sequential", "DMD index", "extreme"),
    "dmd_residual_gy": ("diverging", "Residual", "extreme"),
    "gain_loss_gy": ("diverging", "Gain / loss", "mean"),
    "kf_systematic_percent": ("sequential", "Systematic (K–F)", "extreme"),
}

OUTLINES = {
    "low_sampling_mask": "Low sampling",
    "significant_mask": "Difference real",
    "displacement_significant_mask": "Displacement real",
    "change_significant_mask": "Change real",
    "dmd_index_significant_mask": "DMD index real",
    "gain_loss_significant_mask": "Gain / loss real",
}
"""Masks that are outlined, and their names on the page."""

_VECTORS = {"displacement_mm": "Displacement", "flow_mm": "Flow"}


def _on_grid(field: FieldMap, grid: Grid) -> NDArray[Any]:
    """A scalar map at the voxel centres of ``grid``; not evaluated stays not evaluated."""
    if field.grid.coincides_with(grid):
        return field.values
    known = np.isfinite(field.values)
    moved = interpolate(np.where(known, field.values, 0.0), source=field.grid, target=grid)
    share = interpolate(known.astype(np.float64), source=field.grid, target=grid)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(share > 0.5, moved / share, np.nan)


def _limit(values: NDArray[Any], *, quantile: float = 0.995) -> float:
    """End of a colour scale: a high quantile of the size of what is not zero."""
    sample = values.ravel()[:: max(1, values.size // SAMPLE)]
    size = np.abs(sample[np.isfinite(sample) & (sample != 0)])
    return float(np.quantile(size, quantile)) if size.size else 1.0


def _style(key: str, values: NDArray[Any]) -> tuple[str, str]:
    """Kind and reduction of any map, known or not."""
    if key.startswith("gamma"):
        return "gamma", "extreme"
    if key in _STYLES:
        return _STYLES[key][0], _STYLES[key][2]
    negative = bool(np.nanmin(values) < 0) if np.isfinite(values).any() else False
    return ("diverging" if negative else "sequential"), "extreme"


def _gamma_label(key: str) -> str:
    """Name of a gamma map on its button: "gamma_3_2_local" reads "Gamma 3 %/2 mm local"."""
    parts = key.replace("p", ".").split("_")
    if len(parts) < 3:
        return "Gamma"
    return f"Gamma {parts[1]} %/{parts[2]} mm" + (f" {parts[3]}" if len(parts) > 3 else "")


def layers(result: ComparisonResult) -> list[Layer]:
    """Every scalar map of a comparison on the reference grid, in the order of the viewer."""
    grid = result.reference.grid
    reference = result.reference.dose_gy
    evaluated = result.evaluated.interpolated_to(grid).dose_gy
    top = max(float(reference.max()), float(evaluated.max())) or 1.0
    unit = result.reference.unit
    found = [
        Layer(key="reference", label="Reference", unit=unit, kind="dose", values=reference, limit=top),
        Layer(key="evaluated", label="Evaluated", unit=unit, kind="dose", values=evaluated, limit=top),
    ]
    scalars = dict(result.maps)
    if "difference_gy" not in scalars:
        difference = FieldMap(
            values=evaluated - reference, grid=grid, unit=unit, label="evaluated - reference"
        )
        scalars = {"difference_gy": difference} | scalars
    for key, field in scalars.items():
        if np.ndim(field.values) == 3:
            found.append(_scalar_layer(key, field, grid))
    return found + list(_extra_layers(result))


def _scalar_layer(key: str, field: FieldMap, grid: Grid) -> Layer:
    """One map of the comparison as a layer."""
    values = _on_grid(field, grid)
    if key in OUTLINES:
        shown = smoothed(values) if key == "low_sampling_mask" else values
        return Layer(key=key, label=OUTLINES[key], unit="", kind="outline", values=shown, limit=1.0)
    kind, reduce = _style(key, values)
    label = _gamma_label(key) if kind == "gamma" else _STYLES.get(key, ("", field.label, ""))[1]
    limit = 2.0 if kind == "gamma" else 5.0 if key == "z" else _limit(values)
    return Layer(key=key, label=label, unit=field.unit, kind=kind, values=values, limit=limit, reduce=reduce)


def smoothed(mask: NDArray[Any]) -> NDArray[np.float64]:
    """Mean of a mask over 3 voxels along each axis: its outline at 0.5 has no specks of single voxels."""
    from scipy.ndimage import uniform_filter

    return uniform_filter(np.asarray(mask, dtype=np.float64), size=3, mode="nearest")


def _extra_layers(result: ComparisonResult) -> Iterator[Layer]:
    """Relative uncertainty, density and structures, where there are any."""
    dose, grid = result.reference, result.reference.grid
    uncertain = dose.uncertainty_gy
    if uncertain is None and result.evaluated.uncertainty_gy is not None:
        dose = result.evaluated.interpolated_to(grid)
        uncertain = dose.uncertainty_gy
    if uncertain is not None:
        with np.errstate(invalid="ignore", divide="ignore"):
            relative = np.where(dose.dose_gy > 0.01 * dose.max_gy, 100 * uncertain / dose.dose_gy, np.nan)
        yield Layer(
            key="uncertainty_percent",
            label="Uncertainty",
            unit="%",
            kind="sequential",
            values=relative,
            limit=max(_limit(relative, quantile=0.99), 1e-6),
        )
    density = result.reference.density_g_per_cm3
    if density is not None:
        yield Layer(
            key="density",
            label="Density",
            unit="g/cm3",
            kind="density",
            values=density,
            limit=min(float(density.max()), 2.0) or 1.0,
        )
    for index, structure in enumerate(result.reference.structures):
        if structure.grid.coincides_with(grid):
            yield Layer(
                key=f"structure_{index}",
                label=structure.name,
                unit="",
                kind="mask",
                values=structure.fraction,
                limit=1.0,
            )


def coarsen(values: NDArray[Any], grid: Grid, factors: tuple[int, int, int], reduce: str) -> NDArray[Any]:
    """Join blocks of voxels: volume-weighted mean, or the value furthest from 0; NaN only where all are."""
    if factors == (1, 1, 1):
        return values
    known = np.isfinite(values)
    complete = bool(known.all())
    filled = values if complete else np.where(known, values, 0.0)
    if reduce == "extreme":
        low, high = _per_block(filled, factors, np.minimum), _per_block(filled, factors, np.maximum)
        joined = np.where(high >= -low, high, low)
    else:
        mass = _per_block(filled * grid.voxel_volume_mm3, factors, np.add)
        if complete:
            return mass / coarse_grid(grid, factors).voxel_volume_mm3
        with np.errstate(invalid="ignore", divide="ignore"):
            joined = mass / _per_block(known * grid.voxel_volume_mm3, factors, np.add)
    return joined if complete else np.where(_per_block(known, factors, np.logical_or), joined, np.nan)


def _per_block(array: NDArray[Any], factors: tuple[int, int, int], ufunc: np.ufunc) -> NDArray[Any]:
    """Reduce blocks of ``factors`` voxels with a ufunc, axis after axis."""
    for axis, factor in enumerate(factors):
        if factor > 1:
            array = ufunc.reduceat(array, np.arange(0, array.shape[axis], factor), axis=axis)
    return array


def coarse_grid(grid: Grid, factors: tuple[int, int, int]) -> Grid:
    """The grid whose voxels are blocks of ``factors`` voxels (z, y, x)."""
    if factors == (1, 1, 1):
        return grid
    z, y, x = (np.append(e[:-1:f], e[-1]) for e, f in zip(grid.edges_mm, factors, strict=True))
    return Grid(z_edges_mm=z, y_edges_mm=y, x_edges_mm=x)


def factors_for(grid: Grid, voxels: int) -> tuple[int, int, int]:
    """Block size (z, y, x) that leaves at most ``voxels``: the finest axes are joined first."""
    factors = [1, 1, 1]
    widths = [(e[-1] - e[0]) / (e.size - 1) for e in grid.edges_mm]

    def left() -> int:
        return math.prod(-(-n // f) for n, f in zip(grid.shape, factors, strict=True))

    while left() > voxels:
        able = [axis for axis in range(3) if factors[axis] < grid.shape[axis]]
        axis = min(able, key=lambda a: (widths[a] * factors[a], -grid.shape[a]))
        factors[axis] += 1
    return factors[0], factors[1], factors[2]


def encode(values: NDArray[Any], *, low: float, high: float, levels: int) -> dict[str, Any]:
    """Quantise to ``levels`` steps of [low, high], and pack: differences along x, bytes apart, deflated.

    Values beyond the range are clipped; NaN gets the code `NOT_A_NUMBER`. A value is
    ``low + code x step``.
    """
    step = (high - low) / levels if high > low else 1.0
    known = np.isfinite(values)
    codes = np.clip(np.rint((np.where(known, values, low) - low) / step), 0, levels).astype(np.uint16)
    codes[~known] = NOT_A_NUMBER
    flat = codes.ravel()
    change = flat.copy()
    change[1:] -= flat[:-1]
    packed = np.concatenate([(change & 255).astype(np.uint8), (change >> 8).astype(np.uint8)])
    deflater = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
    data = deflater.compress(packed.tobytes()) + deflater.flush()
    return {"low": low, "step": step, "data": base64.b64encode(data).decode("ascii")}


def _encode_layer(layer: Layer, grid: Grid, factors: tuple[int, int, int]) -> dict[str, Any]:
    """One layer as the page reads it."""
    values = coarsen(layer.values, grid, factors, layer.reduce)
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    if layer.kind == "diverging":
        high = max(-low, high) or 1.0
        if layer.key == "z":
            high = min(high, 20.0)
        low = -high
    elif layer.kind == "gamma":
        low, high = 0.0, min(max(high, 1.0), 10.0)
    else:
        low, high = min(low, 0.0), high if high > 0 else 1.0
        if layer.key == "uncertainty_percent":
            high = min(high, 100.0)
    packed = encode(values, low=low, high=high, levels=_LEVELS.get(layer.kind, _DEFAULT_LEVELS))
    return packed | {name: getattr(layer, name) for name in ("key", "label", "unit", "kind", "limit")}


def _encode_vectors(
    field: FieldMap, grid: Grid, factors: tuple[int, int, int], dose: NDArray[Any]
) -> dict[str, Any]:
    """A vector map on the coarser grid of its arrows; NaN where there is little dose."""
    coarse = coarse_grid(grid, factors)
    mask = coarsen(dose, grid, factors, "mean") < ARROW_DOSE_FRACTION * float(dose.max())
    parts, size = {}, np.zeros(coarse.shape)
    for name, component in zip("xyz", field.values, strict=True):
        scalar = FieldMap(values=component, grid=field.grid, unit=field.unit, label=field.label)
        values = np.where(mask, np.nan, coarsen(_on_grid(scalar, grid), grid, factors, "mean"))
        top = float(np.nanmax(np.abs(values))) if np.isfinite(values).any() else 1.0
        size = size + np.nan_to_num(values) ** 2
        parts[name] = encode(values, low=-top, high=top or 1.0, levels=_DEFAULT_LEVELS)
    seen = np.sqrt(size[~mask]) if (~mask).any() else np.zeros(1)
    return {
        "unit": field.unit,
        "axes": _axes(coarse),
        "typical": float(np.quantile(seen, 0.95)),
        **parts,
    }


def _axes(grid: Grid) -> dict[str, dict[str, list[float]]]:
    """Voxel boundaries, and where in the voxels the values hold, per axis [mm]."""
    edges = dict(zip("zyx", grid.edges_mm, strict=True))
    centers = dict(zip("zyx", grid.centers_mm, strict=True))
    return {
        "edges": {axis: np.round(mm, 4).tolist() for axis, mm in edges.items()},
        "centers": {axis: np.round(mm, 4).tolist() for axis, mm in centers.items()},
    }


def _vector_layers(result: ComparisonResult, factors: tuple[int, int, int]) -> dict[str, Any]:
    """Arrows of every vector map, about one per two voxels of the page along each long axis."""
    grid, dose = result.reference.grid, result.reference.dose_gy
    arrows = tuple(
        max(f, min(2 * f, -(-n // 8))) if n > 1 else 1 for f, n in zip(factors, grid.shape, strict=True)
    )
    return {
        key: {"label": _VECTORS.get(key, field.label)}
        | _encode_vectors(field, grid, (arrows[0], arrows[1], arrows[2]), dose)
        for key, field in result.maps.items()
        if np.ndim(field.values) == 4
    }


def _size(value: Any) -> int:
    """Characters of base64 in a nest of packed volumes."""
    if isinstance(value, Mapping):
        return sum(len(v) if k == "data" else _size(v) for k, v in value.items())
    return sum(_size(v) for v in value) if isinstance(value, list) else 0


def dose_box(result: ComparisonResult) -> dict[str, list[float]]:
    """Box (low, high) per axis [mm] that holds all dose above 5 % of the maximum, with a margin."""
    grid = result.reference.grid
    doses = (result.reference.dose_gy, result.evaluated.interpolated_to(grid).dose_gy)
    level = 0.05 * max(float(dose.max()) for dose in doses)
    inside = (doses[0] > level) | (doses[1] > level)
    box = {}
    for axis, edges in enumerate(grid.edges_mm):
        found = np.flatnonzero(inside.any(axis=tuple({0, 1, 2} - {axis})))
        low, high = (edges[found[0]], edges[found[-1] + 1]) if found.size else (edges[0], edges[-1])
        margin = 10.0 + 0.05 * (high - low)
        ends = np.clip([low - margin, high + margin], edges[0], edges[-1])
        box["zyx"[axis]] = [float(end) for end in ends]
    return box


def _pack(
    result: ComparisonResult, found: list[Layer], voxels: int
) -> tuple[tuple[int, int, int], dict[str, Any]]:
    """Layers and arrows in at most ``voxels`` voxels, and the blocks that this took."""
    factors = factors_for(result.reference.grid, voxels)
    return factors, {
        "layers": [_encode_layer(layer, result.reference.grid, factors) for layer in found],
        "vectors": _vector_layers(result, factors),
    }


def _affordable(found: list[Layer], grid: Grid, page_bytes: int) -> int:
    """Voxels of one volume that a page has room for, from how well every n-th voxel compresses."""
    steps = factors_for(grid, FIRST_VOXELS)
    thinned = tuple(slice(None, None, step) for step in steps)
    size = sum(
        len(_encode_layer(replace(layer, values=layer.values[thinned]), grid, (1, 1, 1))["data"])
        for layer in found
    )
    shown = math.prod(-(-n // step) for n, step in zip(grid.shape, steps, strict=True))
    return min(MOST_VOXELS, max(1, int(0.9 * shown * page_bytes / max(size, 1))))


def volumes(result: ComparisonResult, *, page_bytes: int = PAGE_BYTES) -> dict[str, Any]:
    """Everything that the viewer draws, small enough for one page.

    Returns
    -------
    dict
        "axes" of the voxels of the page [mm], "factors" (x, y, z) of the reference's voxels that
        each of them joins, "layers" and "vectors".

    Notes
    -----
    *Cost*: two compressions of the maps as shown, three where the first guess was too large.
    """
    grid = result.reference.grid
    found = layers(result)
    factors, packed = _pack(result, found, _affordable(found, grid, page_bytes))
    while (size := _size(packed)) > page_bytes and (shown := coarse_grid(grid, factors).n_voxels) > 1:
        factors, packed = _pack(result, found, max(1, int(0.9 * shown * page_bytes / size)))
    z, y, x = factors
    return {"axes": _axes(coarse_grid(grid, factors)), "factors": {"x": x, "y": y, "z": z}, **packed}
