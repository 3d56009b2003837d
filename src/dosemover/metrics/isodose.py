"""Agreement of isodoses: overlap of the volumes that they enclose, distance of their surfaces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dosemover.dose import DoseMap
from dosemover.grid import Grid
from dosemover.metrics.masks import normalization_dose_gy, require_one_grid, require_positive

LEVELS_PERCENT = (10.0, 20.0, 50.0, 80.0, 95.0)
"""Isodose levels compared unless others are asked for."""

_LINES = 4
"""Lines per axis on which a cell crossed by an isodose is integrated."""


@dataclass(frozen=True, kw_only=True, eq=False)
class IsodoseResult:
    """Agreement of one isodose of two maps.

    Parameters
    ----------
    level_percent : float
    level_gy : float
        The isodose [Gy].
    dice, jaccard : float or None
        Of the voxels that reach the level; None where neither map has one.
    dice_subvoxel, jaccard_subvoxel : float or None
        Of the volumes with the dose trilinear between voxel centres.
    reference_cc, evaluated_cc : float
        These volumes [cm3].
    hd95_mm : float or None
        95 % Hausdorff distance [mm]: the larger of the two directed 95th percentiles; None where
        a map has no such surface.
    mean_surface_mm : float or None
        Mean distance of either surface to the other, by area [mm].
    hausdorff_mm : float or None
        Largest distance [mm].
    status : str
        "ok", or why values are missing.
    """

    level_percent: float
    level_gy: float
    dice: float | None
    jaccard: float | None
    dice_subvoxel: float | None
    jaccard_subvoxel: float | None
    reference_cc: float
    evaluated_cc: float
    hd95_mm: float | None
    mean_surface_mm: float | None
    hausdorff_mm: float | None
    status: str = "ok"

    def summary(self) -> dict[str, float | None]:
        """Values under their metric keys."""
        at = f"{self.level_percent:g}".replace(".", "p")
        return {
            f"isodose_dice_{at}": self.dice,
            f"isodose_jaccard_{at}": self.jaccard,
            f"isodose_hd95_{at}_mm": self.hd95_mm,
            f"isodose_surface_{at}_mm": self.mean_surface_mm,
        }


def isodose_agreement(
    *,
    reference: DoseMap,
    evaluated: DoseMap,
    levels_percent: Sequence[float] = LEVELS_PERCENT,
    normalization_gy: float | None = None,
    surfaces: bool = True,
) -> dict[float, IsodoseResult]:
    """Overlap and surface distance of the isodoses of two maps.

    With A and B the regions where the maps reach a level: Dice = 2 |A and B| / (|A| + |B|),
    Jaccard = |A and B| / |A or B|.

    Parameters
    ----------
    reference, evaluated : DoseMap
    levels_percent : sequence of float
        Levels [% of the normalisation dose].
    normalization_gy : float, optional
        What the levels refer to, in both maps [Gy]: a prescription; the maximum of the reference
        unless given.
    surfaces : bool
        Whether to measure surface distances too; without them those values are None.

    Returns
    -------
    dict of float to IsodoseResult
        By level [%], in the order asked for.

    Raises
    ------
    GridMismatchError
        When the grids do not coincide.
    InputError
        When a level is not positive.

    Notes
    -----
    *Definition*: ``dice`` and ``jaccard`` count voxels, as other programs do; the ``subvoxel``
    ones measure the volumes with trilinear dose. Surfaces are triangulated where the dose,
    linear along voxel edges, crosses the level (marching cubes); distances go from vertices,
    weighted with their area, to triangles: a shift by a fraction of a voxel reads true. A slice
    gives distances of contours, a line distances of points.
    *Limits*: overlap says little about large volumes, whose surface is a small part of them.
    Surfaces end at the border of the map.
    *Cost*: overlap about 0.1 s, surfaces about 0.5 s a level for 2 million voxels.

    References
    ----------
    dice1945; lorensen1987; huttenlocher1993 for the Hausdorff distance.
    """
    grid = require_one_grid(reference=reference, evaluated=evaluated)
    scale_gy = normalization_dose_gy(reference, normalization_gy)
    return {
        float(level): _one_level(
            reference.dose_gy,
            evaluated.dose_gy,
            grid,
            level_percent=require_positive("levels_percent", level),
            scale_gy=scale_gy,
            surfaces=surfaces,
        )
        for level in levels_percent
    }


def _one_level(
    a: NDArray[Any],
    b: NDArray[Any],
    grid: Grid,
    *,
    level_percent: float,
    scale_gy: float,
    surfaces: bool,
) -> IsodoseResult:
    """Agreement of one isodose."""
    level = level_percent / 100.0 * scale_gy
    in_a, in_b = a >= level, b >= level
    counts = float(in_a.sum()), float(in_b.sum()), float((in_a & in_b).sum())
    volumes = enclosed_volumes_mm3(a, b, grid, level)
    distances = _surface_distances(a, b, grid, level) if surfaces else None
    hd95, mean, largest = distances if distances is not None else (None, None, None)
    status = "ok"
    if surfaces and distances is None:
        missing = [name for name, inside in (("reference", in_a), ("evaluated", in_b)) if not inside.any()]
        if not missing:
            status = f"a map has no surface at {level:.4g} Gy inside the grid"
        elif len(missing) == 2:
            status = f"neither map reaches {level:.4g} Gy"
        else:
            status = f"the {missing[0]} map does not reach {level:.4g} Gy"
    return IsodoseResult(
        level_percent=float(level_percent),
        level_gy=float(level),
        dice=_dice(*counts),
        jaccard=_jaccard(*counts),
        dice_subvoxel=_dice(*volumes),
        jaccard_subvoxel=_jaccard(*volumes),
        reference_cc=volumes[0] / 1000.0,
        evaluated_cc=volumes[1] / 1000.0,
        hd95_mm=hd95,
        mean_surface_mm=mean,
        hausdorff_mm=largest,
        status=status,
    )


def _dice(a: float, b: float, both: float) -> float | None:
    """2 |A and B| / (|A| + |B|), None of nothing."""
    return 2.0 * both / (a + b) if a + b > 0 else None


def _jaccard(a: float, b: float, both: float) -> float | None:
    """|A and B| / |A or B|, None of nothing."""
    return both / (a + b - both) if a + b > 0 else None


def enclosed_volumes_mm3(
    a: NDArray[Any], b: NDArray[Any], grid: Grid, level_gy: float
) -> tuple[float, float, float]:
    """Volumes [mm3] where ``a``, where ``b`` and where both reach a level.

    Trilinear between voxel centres and constant in the outer half voxel.
    """
    from dosemover.metrics.isodose_kernels import isodose_volumes

    cut = _box_of(np.maximum(a, b) >= level_gy, margin=1)
    if cut is None:
        return 0.0, 0.0, 0.0
    part = grid.crop(cut)
    widths = [
        np.diff(np.concatenate([[edges[0]], centers, [edges[-1]]]))
        for edges, centers in zip(part.edges_mm, part.centers_mm, strict=True)
    ]
    layers = np.empty((widths[0].size, 3))
    padded = [np.pad(dose[cut].astype(np.float64), 1, mode="edge") for dose in (a, b)]
    isodose_volumes(padded[0], padded[1], float(level_gy), widths[0], widths[1], widths[2], _LINES, layers)
    first, second, both = layers.sum(axis=0)
    return float(first), float(second), float(both)


def _box_of(inside: NDArray[np.bool_], *, margin: int) -> tuple[slice, slice, slice] | None:
    """Slices around the marked voxels with a margin, None where there are none."""
    slices = []
    for axis in range(3):
        hits = np.flatnonzero(inside.any(axis=tuple(other for other in range(3) if other != axis)))
        if hits.size == 0:
            return None
        slices.append(slice(max(int(hits[0]) - margin, 0), int(hits[-1]) + 1 + margin))
    return slices[0], slices[1], slices[2]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Mesh:
    """Triangulated isodose surface: vertices [n, 3] (z, y, x) in mm, faces [m, 3], vertex areas."""

    vertices: NDArray[Any]
    faces: NDArray[Any]
    areas: NDArray[Any]


def _surface(dose: NDArray[Any], grid: Grid, level: float) -> _Mesh | None:
    """The isodose surface, None where the map has none."""
    from skimage.measure import marching_cubes

    cut = _box_of(dose >= level, margin=1)
    if cut is None or not float(dose.min()) < level < float(dose.max()):
        return None
    values, part = np.asarray(dose[cut], dtype=np.float64), grid.crop(cut)
    centers = []
    for axis, center in enumerate(part.centers_mm):
        if center.size == 1:  # a slice becomes a slab, its contour a wall
            values = np.repeat(values, 2, axis=axis)
            centers.append(center[0] + part.widths_mm[axis][0] * np.array([0.0, 1.0]))
        else:
            centers.append(center)
    if not float(values.min()) < level:
        return None
    index, faces, _, _ = marching_cubes(values, level)
    vertices = np.stack(
        [np.interp(index[:, a], np.arange(centers[a].size), centers[a]) for a in range(3)], axis=1
    )
    p, q, r = (vertices[faces[:, i]] for i in range(3))
    area = np.linalg.norm(np.cross(q - p, r - p), axis=1) / 2
    areas = np.bincount(faces.ravel(), np.repeat(area / 3, 3), minlength=len(vertices))
    return _Mesh(vertices=vertices, faces=faces.astype(np.int64), areas=areas)


def _surface_distances(
    a: NDArray[Any], b: NDArray[Any], grid: Grid, level: float
) -> tuple[float, float, float] | None:
    """95 % Hausdorff, mean and largest surface distance [mm], None where a surface is missing."""
    one, two = _surface(a, grid, level), _surface(b, grid, level)
    if one is None or two is None:
        return None
    there, back = _directed_distances(one, two), _directed_distances(two, one)
    hd95 = max(_area_percentile(there, one.areas), _area_percentile(back, two.areas))
    total = float(one.areas.sum() + two.areas.sum())
    mean = float((there * one.areas).sum() + (back * two.areas).sum()) / total
    return hd95, mean, float(max(there.max(), back.max()))


def _directed_distances(source: _Mesh, target: _Mesh) -> NDArray[Any]:
    """Distance from each vertex of one surface to the triangles of another [mm]."""
    from scipy.spatial import KDTree

    from dosemover.metrics.surface_kernels import mesh_distances

    k = min(4, len(target.vertices))
    _, near = KDTree(target.vertices).query(source.vertices, k=k)
    corner = target.faces.ravel()
    start = np.concatenate([[0], np.cumsum(np.bincount(corner, minlength=len(target.vertices)))])
    face_of_vertex = np.argsort(corner, kind="stable") // 3
    distance = np.empty(len(source.vertices))
    near = np.ascontiguousarray(near.reshape(-1, k), dtype=np.int64)
    mesh_distances(source.vertices, target.vertices, target.faces, near, start, face_of_vertex, distance)
    return distance


def _area_percentile(distance: NDArray[Any], area: NDArray[Any]) -> float:
    """Smallest distance that 95 % of the area keeps within."""
    order = np.argsort(distance, kind="stable")
    share = np.cumsum(area[order])
    return float(distance[order[min(np.searchsorted(share, 0.95 * share[-1]), distance.size - 1)]])
