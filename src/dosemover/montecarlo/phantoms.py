"""Voxel phantoms: tank, slabs, cylinder, thorax, head, CT, density maps, and shapes set into them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dosemover.errors import InputError
from dosemover.grid import Grid
from dosemover.montecarlo.materials import Material, material_library

Vector = tuple[float, float, float]

SUBSAMPLES = {2: 32, 3: 12}
"""Points per axis that measure how much of a pixel or voxel on a round surface is inside."""

SURFACE_CHUNK = 4096
"""Voxels on a surface that are subsampled at a time."""


def material_named(name: str | Material) -> Material:
    """A material itself, or the library's by name."""
    if isinstance(name, Material):
        return name
    library = material_library()
    if name not in library:
        from difflib import get_close_matches

        near = get_close_matches(name, library, n=1)
        raise InputError(
            f"no material is called {name!r}{f' (did you mean {near[0]!r}?)' if near else ''}. "
            f"Define it by its composition, or choose one of {', '.join(library)}."
        )
    return library[name]


@dataclass(frozen=True, kw_only=True, eq=False)
class Shape:
    """A box, ellipsoid or elliptical cylinder.

    Parameters
    ----------
    kind : str
        "box", "ellipsoid" or "cylinder".
    center_mm : (x, y, z)
        Centre [mm], LPS.
    size_mm : (x, y, z)
        Full extent along each axis [mm].
    axis : str
        Axis of a cylinder: "x", "y" or "z".
    """

    kind: str
    center_mm: Any
    size_mm: Any
    axis: str = "z"

    def __post_init__(self) -> None:
        if self.kind not in ("box", "ellipsoid", "cylinder") or self.axis not in ("x", "y", "z"):
            raise InputError(
                f"a shape must be a box, an ellipsoid or a cylinder along x, y or z, got {self.kind!r} along "
                f"{self.axis!r}. It cannot be drawn."
            )
        size = np.broadcast_to(np.asarray(self.size_mm, dtype=np.float64), (3,))
        center = np.asarray(self.center_mm, dtype=np.float64)
        if center.shape != (3,) or not np.all(np.isfinite(center)) or not np.all(size > 0):
            raise InputError(
                f"a shape needs a centre (x, y, z) and a positive size, got {self.center_mm} and "
                f"{self.size_mm}. It cannot be drawn. Give both in mm."
            )
        object.__setattr__(self, "size_mm", tuple(float(s) for s in size))
        object.__setattr__(self, "center_mm", tuple(float(c) for c in center))

    def fraction(self, grid: Grid) -> NDArray[np.float64]:
        """Filled fraction of each voxel, shape [z, y, x]: exact for boxes, by subsampling on surfaces."""
        sides = [self._overlap(grid, axis) for axis in range(3)]
        if self.kind == "box":
            return sides[0][:, None, None] * sides[1][:, None] * sides[2]
        along = "zyx".index(self.axis) if self.kind == "cylinder" else None
        round_axes = [axis for axis in range(3) if axis != along]
        inside = self._round_fraction(grid, round_axes)
        if along is None:
            return inside
        return np.expand_dims(inside, along) * sides[along].reshape(
            [-1 if n == along else 1 for n in range(3)]
        )

    def _overlap(self, grid: Grid, axis: int) -> NDArray[np.float64]:
        """Fraction of each voxel's width inside the shape's extent along one array axis."""
        center, size, edges = self.center_mm[2 - axis], self.size_mm[2 - axis], grid.edges_mm[axis]
        return np.diff(np.clip(edges, center - size / 2, center + size / 2)) / np.diff(edges)

    def _round_fraction(self, grid: Grid, axes: list[int]) -> NDArray[np.float64]:
        """Filled fraction of pixels (two axes) or voxels (three) by an ellipse or ellipsoid."""
        scaled = [(grid.edges_mm[n] - self.center_mm[2 - n]) / (self.size_mm[2 - n] / 2) for n in axes]
        nearest, farthest = 0.0, 0.0
        for k, edges in enumerate(scaled):
            low, high = edges[:-1], edges[1:]
            shape = [-1 if n == k else 1 for n in range(len(axes))]
            near = np.maximum(np.maximum(low, -high), 0.0)
            nearest = nearest + (near**2).reshape(shape)
            farthest = farthest + (np.maximum(np.abs(low), np.abs(high)) ** 2).reshape(shape)
        result = (np.asarray(farthest) <= 1.0).astype(np.float64)
        cut = np.nonzero((np.asarray(nearest) < 1.0) & (np.asarray(farthest) > 1.0))
        n = SUBSAMPLES[len(axes)]
        offsets = (np.arange(n) + 0.5) / n
        for start in range(0, cut[0].size, SURFACE_CHUNK):
            some = tuple(index[start : start + SURFACE_CHUNK] for index in cut)
            square = np.zeros((some[0].size,) + (1,) * len(axes))
            for k, edges in enumerate(scaled):
                points = edges[some[k], None] + offsets * np.diff(edges)[some[k], None]
                square = square + (points**2).reshape([-1, *(n if m == k else 1 for m in range(len(axes)))])
            result[some] = (square <= 1.0).reshape(some[0].size, -1).mean(axis=1)
        return result


@dataclass(frozen=True, kw_only=True, eq=False)
class Phantom:
    """Materials and densities on a grid of evenly spaced voxels; vacuum around it.

    Parameters
    ----------
    grid : Grid
    material : array_like of int, shape [z, y, x]
        Index into ``materials``.
    density_g_per_cm3 : array_like, shape [z, y, x]
        Mass density [g/cm3]; 0 is vacuum.
    materials : sequence of Material or str
    name : str

    Raises
    ------
    InputError
        When the grid is uneven, an index has no material, or a density is negative or not finite.

    Examples
    --------
    >>> phantom = water_tank(size_mm=100.0, voxel_mm=5.0)
    >>> phantom.grid.shape, phantom.mass_g
    ((20, 20, 20), 1000.0)
    """

    grid: Grid
    material: NDArray[Any]
    density_g_per_cm3: NDArray[Any]
    materials: tuple[Material, ...] = field(repr=False)
    name: str = ""

    def __post_init__(self) -> None:
        if not self.grid.is_even:
            raise InputError(
                "the phantom's voxels are uneven along an axis. Photons are tracked in even voxels only. "
                "Resample the image to an even spacing first."
            )
        materials = tuple(material_named(m) for m in self.materials)
        index = self.grid.check_array("material", self.material)
        if not 0 < len(materials) <= 256 or index.min() < 0 or index.max() >= len(materials):
            raise InputError(
                f"`material` holds indices {index.min()} to {index.max()}, and there are {len(materials)} "
                "materials. Voxels would have no cross section. Count materials from 0."
            )
        density = self.grid.check_array("density_g_per_cm3", self.density_g_per_cm3)
        if not np.all(np.isfinite(density)) or density.min() < 0 or density.max() <= 0:
            raise InputError(
                f"`density_g_per_cm3` must be finite, not negative and not 0 everywhere, got {density.min()} "
                f"to {density.max()}. Photons cannot be tracked. Give mass densities in g/cm3."
            )
        frozen = {"material": index.astype(np.uint8), "density_g_per_cm3": density.astype(np.float32)}
        for name, array in frozen.items():
            array.setflags(write=False)
            object.__setattr__(self, name, array)
        object.__setattr__(self, "materials", materials)

    @property
    def mass_g(self) -> float:
        """Mass of all voxels [g]."""
        return float(np.sum(self.voxel_mass_g))

    @property
    def voxel_mass_g(self) -> NDArray[np.float64]:
        """Mass of each voxel [g], shape [z, y, x]."""
        return self.density_g_per_cm3.astype(np.float64) * (self.grid.voxel_volume_mm3 * 1e-3)

    def with_shape(
        self, shape: Shape, material: str | Material, *, density_g_per_cm3: float | None = None
    ) -> Phantom:
        """The phantom with a shape of one material set into it.

        Voxels cut by its surface get the volume-weighted density and the material that gives them most of
        their mass, so that the mass of the shape is kept.
        """
        inside = material_named(material)
        rho = inside.density_g_per_cm3 if density_g_per_cm3 is None else density_g_per_cm3
        part = shape.fraction(self.grid)
        materials = self.materials
        known = [i for i, m in enumerate(materials) if m is inside or m.name == inside.name]
        if not known:
            materials, known = (*materials, inside), [len(materials)]
        outside = (1 - part) * self.density_g_per_cm3
        index = np.where((part * rho >= outside) & (part > 0), known[0], self.material)
        return Phantom(
            grid=self.grid,
            material=index,
            density_g_per_cm3=part * rho + outside,
            materials=materials,
            name=self.name,
        )


def _centered_grid(size_mm: Any, voxel_mm: Any, center_mm: Vector) -> Grid:
    """Grid of about this size and voxel size around a centre."""
    size = np.broadcast_to(np.asarray(size_mm, dtype=np.float64), (3,))
    voxel = np.broadcast_to(np.asarray(voxel_mm, dtype=np.float64), (3,))
    if not (np.all(size > 0) and np.all(voxel > 0)):
        raise InputError(f"`size_mm` and `voxel_mm` must be positive, got {size_mm} and {voxel_mm}.")
    n = np.maximum(np.rint(size / voxel).astype(int), 1)
    origin = np.asarray(center_mm) - (n - 1) / 2 * voxel
    return Grid.regular(shape=tuple(n[::-1]), spacing_mm=tuple(voxel), origin_mm=tuple(origin))


def uniform(
    material: str | Material = "water",
    *,
    size_mm: Any,
    voxel_mm: Any,
    center_mm: Vector = (0.0, 0.0, 0.0),
    density_g_per_cm3: float | None = None,
    name: str = "",
) -> Phantom:
    """A box of one material.

    Parameters
    ----------
    material : str or Material
    size_mm, voxel_mm : float or (x, y, z)
        Size of the box and of its voxels [mm]; the size is rounded to whole voxels.
    center_mm : (x, y, z)
        Centre of the box [mm].
    density_g_per_cm3 : float, optional
        The material's own by default.
    name : str
    """
    grid = _centered_grid(size_mm, voxel_mm, center_mm)
    filling = material_named(material)
    rho = filling.density_g_per_cm3 if density_g_per_cm3 is None else density_g_per_cm3
    return Phantom(
        grid=grid,
        material=np.zeros(grid.shape, dtype=np.uint8),
        density_g_per_cm3=np.full(grid.shape, rho, dtype=np.float32),
        materials=(filling,),
        name=name or filling.name,
    )


def water_tank(*, size_mm: Any = 300.0, voxel_mm: Any = 3.0, center_mm: Vector = (0.0, 0.0, 0.0)) -> Phantom:
    """A box of water; see `uniform`."""
    return uniform("water", size_mm=size_mm, voxel_mm=voxel_mm, center_mm=center_mm, name="water tank")


def slabs(
    layers: Sequence[tuple[str | Material, float] | tuple[str | Material, float, float]],
    *,
    width_mm: float = 200.0,
    voxel_mm: Any = 3.0,
    axis: str = "y",
    center_mm: Vector = (0.0, 0.0, 0.0),
) -> Phantom:
    """Layers along an axis, the first at its low end (toward the source for gantry 0 and axis "y").

    Parameters
    ----------
    layers : sequence of (material, thickness_mm) or (material, thickness_mm, density_g_per_cm3)
    width_mm : float
        Extent across the layers [mm].
    voxel_mm : float or (x, y, z)
    axis : str
        "x", "y" or "z".
    center_mm : (x, y, z)
    """
    if axis not in ("x", "y", "z") or not layers:
        raise InputError(f"slabs need layers and an axis x, y or z, got {layers} along {axis!r}.")
    along = "xyz".index(axis)
    size = np.full(3, width_mm, dtype=np.float64)
    size[along] = sum(layer[1] for layer in layers)
    phantom = uniform(layers[0][0], size_mm=size, voxel_mm=voxel_mm, center_mm=center_mm, name="slabs")
    start = center_mm[along] - size[along] / 2
    for material, thickness, *rho in layers:
        center, extent = np.array(center_mm, dtype=np.float64), 2 * size
        center[along], extent[along] = start + thickness / 2, thickness
        shape = Shape(kind="box", center_mm=tuple(center), size_mm=tuple(extent))
        phantom = phantom.with_shape(shape, material, density_g_per_cm3=rho[0] if rho else None)
        start += thickness
    return phantom


def cylinder(
    material: str | Material = "water",
    *,
    diameter_mm: float = 200.0,
    length_mm: float = 200.0,
    voxel_mm: Any = 3.0,
    axis: str = "z",
    center_mm: Vector = (0.0, 0.0, 0.0),
    surroundings: str | Material = "air",
    margin_mm: float = 10.0,
) -> Phantom:
    """A cylinder of one material in a box of another, with a margin around it."""
    extent = {a: length_mm if a == axis else diameter_mm for a in "xyz"}
    size = tuple(extent.values())
    box = tuple(s if a == axis else s + 2 * margin_mm for a, s in extent.items())
    phantom = uniform(surroundings, size_mm=box, voxel_mm=voxel_mm, center_mm=center_mm, name="cylinder")
    return phantom.with_shape(Shape(kind="cylinder", center_mm=center_mm, size_mm=size, axis=axis), material)


def thorax(*, voxel_mm: Any = 4.0, length_mm: float = 200.0, center_mm: Vector = (0.0, 0.0, 0.0)) -> Phantom:
    """An elliptical thorax (320 x 220 mm) along z with two lungs and a spine, in air."""
    cx, cy, cz = center_mm
    box = uniform(
        "air", size_mm=(340.0, 240.0, length_mm), voxel_mm=voxel_mm, center_mm=center_mm, name="thorax"
    )
    parts = (
        ("soft_tissue", (0.0, 0.0), (320.0, 220.0)),
        ("lung", (-80.0, -10.0), (100.0, 150.0)),
        ("lung", (80.0, -10.0), (100.0, 150.0)),
        ("spongiosa", (0.0, 65.0), (40.0, 40.0)),
        ("cortical_bone", (0.0, 90.0), (14.0, 24.0)),
    )
    for material, (dx, dy), (sx, sy) in parts:
        shape = Shape(kind="cylinder", center_mm=(cx + dx, cy + dy, cz), size_mm=(sx, sy, length_mm))
        box = box.with_shape(shape, material)
    return box


def head(*, voxel_mm: Any = 3.0, center_mm: Vector = (0.0, 0.0, 0.0)) -> Phantom:
    """An ellipsoidal head (150 x 200 x 220 mm): skin, a skull of 7 mm, brain, two air sinuses, in air."""
    cx, cy, cz = center_mm
    box = uniform("air", size_mm=(170.0, 220.0, 240.0), voxel_mm=voxel_mm, center_mm=center_mm, name="head")
    parts = (
        ("soft_tissue", (0.0, 0.0, 0.0), (150.0, 200.0, 220.0)),
        ("cortical_bone", (0.0, 0.0, 0.0), (138.0, 188.0, 208.0)),
        ("brain", (0.0, 0.0, 0.0), (124.0, 174.0, 194.0)),
        ("air", (-14.0, -72.0, -40.0), (18.0, 24.0, 24.0)),
        ("air", (14.0, -72.0, -40.0), (18.0, 24.0, 24.0)),
    )
    for material, (dx, dy, dz), size in parts:
        box = box.with_shape(
            Shape(kind="ellipsoid", center_mm=(cx + dx, cy + dy, cz + dz), size_mm=size), material
        )
    return box


@dataclass(frozen=True, kw_only=True, eq=False)
class HounsfieldTable:
    """From CT numbers to density and material.

    Parameters
    ----------
    hu, density_g_per_cm3 : sequence of float
        Points of a piecewise linear curve; constant beyond its ends.
    material_above_hu : sequence of (float, material)
        Each material holds from its CT number upward to the next.
    """

    hu: tuple[float, ...] = (-1000.0, -98.0, -97.0, 14.0, 23.0, 100.0, 101.0, 1600.0, 3000.0)
    density_g_per_cm3: tuple[float, ...] = (
        0.00121, 0.93, 0.930486, 1.03, 1.031, 1.1199, 1.0762, 1.9642, 2.8,
    )  # fmt: skip
    material_above_hu: tuple[tuple[float, str | Material], ...] = (
        (-np.inf, "air"),
        (-900.0, "lung"),
        (-200.0, "adipose"),
        (-50.0, "soft_tissue"),
        (100.0, "spongiosa"),
        (300.0, "cortical_bone"),
    )

    def __post_init__(self) -> None:
        starts = [float(row[0]) for row in self.material_above_hu]
        ascending = len(self.hu) > 1 and np.all(np.diff(self.hu) > 0) and np.all(np.diff(starts) > 0)
        if len(self.hu) != len(self.density_g_per_cm3) or not ascending:
            raise InputError(
                "a Hounsfield table needs as many ascending CT numbers as densities, and materials in "
                f"ascending order, got {self.hu} and {self.density_g_per_cm3}. CT numbers cannot be "
                f"converted."
            )


def from_ct(
    hounsfield: ArrayLike, *, grid: Grid, table: HounsfieldTable | None = None, name: str = "CT"
) -> Phantom:
    """Phantom from CT numbers.

    The default table joins the stoichiometric density curve of Schneider, Bortfeld & Schlegel 2000, with its
    step at 100 HU where connective tissue gives way to bone, with six ICRU 44 tissues; give the scanner's own
    for absolute work.

    Parameters
    ----------
    hounsfield : array_like, shape [z, y, x]
        CT numbers [HU].
    grid : Grid
    table : HounsfieldTable, optional
    name : str
    """
    table = HounsfieldTable() if table is None else table
    hu = grid.check_array("hounsfield", hounsfield)
    starts = [row[0] for row in table.material_above_hu]
    index = np.clip(np.searchsorted(starts, hu, side="right") - 1, 0, None)
    return Phantom(
        grid=grid,
        material=index,
        density_g_per_cm3=np.interp(hu, table.hu, table.density_g_per_cm3),
        materials=tuple(material_named(row[1]) for row in table.material_above_hu),
        name=name,
    )


def from_density(
    density_g_per_cm3: ArrayLike,
    *,
    grid: Grid,
    materials: Sequence[tuple[float, str | Material]] = (
        (0.0, "air"),
        (0.05, "lung"),
        (0.6, "adipose"),
        (0.99, "soft_tissue"),
        (1.12, "spongiosa"),
        (1.35, "cortical_bone"),
    ),
    name: str = "density map",
) -> Phantom:
    """Phantom from mass densities; each material holds from its density upward to the next.

    Parameters
    ----------
    density_g_per_cm3 : array_like, shape [z, y, x]
    grid : Grid
    materials : sequence of (float, material)
    name : str
    """
    rho = grid.check_array("density_g_per_cm3", density_g_per_cm3)
    index = np.clip(np.searchsorted([row[0] for row in materials], rho, side="right") - 1, 0, None)
    return Phantom(
        grid=grid,
        material=index,
        density_g_per_cm3=rho,
        materials=tuple(material_named(row[1]) for row in materials),
        name=name,
    )
