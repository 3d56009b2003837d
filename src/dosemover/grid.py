"""Axis-aligned voxel grids in patient coordinates (LPS, mm), and moving values between them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dosemover.errors import GridMismatchError, InputError

if TYPE_CHECKING:
    from scipy.sparse import csr_array

Axis = NDArray[Any]
"""Voxel boundaries, centres or widths along one axis, float64 [mm]."""

COINCIDENCE_TOLERANCE_MM = 1e-3
"""Grids whose boundaries differ by less than this coincide (NIfTI stores its affine in float32)."""

_SLIVER = 0.1
"""Share of a voxel below which no boundary of another grid cuts a piece off."""

_REFINED_VOXELS = 2**21
"""Voxels up to which two grids may be refined to a common one."""

_EVEN_TOLERANCE = 1e-4
"""Spacing counts as even where voxel widths differ by less than this fraction."""


def _edges(name: str, values: ArrayLike) -> Axis:
    """Check one axis of voxel boundaries and freeze it."""
    edges = np.array(values, dtype=np.float64)
    if edges.ndim != 1 or edges.size < 2:
        raise InputError(
            f"`{name}` must hold at least two voxel boundaries, got shape {edges.shape}. "
            "Pass the boundaries of n voxels as n + 1 numbers in mm."
        )
    if not np.all(np.isfinite(edges)) or not np.all(np.diff(edges) > 0):
        raise InputError(
            f"`{name}` must be finite and ascending, got {np.array2string(edges, threshold=6)}. "
            "A voxel must have a positive width in mm; flip descending axes together with the values."
        )
    edges.setflags(write=False)
    return edges


def _centers(name: str, values: ArrayLike | None, edges: Axis) -> Axis:
    """Check the positions of an axis' values, by default the middle of each voxel, and freeze them."""
    if values is None:
        centers = (edges[1:] + edges[:-1]) / 2
    else:
        centers = np.array(values, dtype=np.float64)
        if centers.shape != (edges.size - 1,) or not np.all((centers > edges[:-1]) & (centers < edges[1:])):
            raise InputError(
                f"`{name}` must hold one position inside each voxel, got "
                f"{np.array2string(centers, threshold=6)} for boundaries "
                f"{np.array2string(edges, threshold=6)}."
            )
    centers.setflags(write=False)
    return centers


def _edges_from_centers(name: str, centers: ArrayLike, width_mm: float) -> Axis:
    """Boundaries half-way between ascending centres; one voxel alone is ``width_mm`` wide."""
    c = np.atleast_1d(np.asarray(centers, dtype=np.float64))
    if c.size == 1:
        return _edges(name, [c[0] - width_mm / 2, c[0] + width_mm / 2])
    inner = (c[1:] + c[:-1]) / 2
    return _edges(name, np.concatenate([[2 * c[0] - inner[0]], inner, [2 * c[-1] - inner[-1]]]))


@dataclass(frozen=True, kw_only=True, eq=False)
class Grid:
    """Axis-aligned voxels, given by their boundaries.

    Arrays on the grid are indexed ``[z, y, x]``; points are (x, y, z) in mm, LPS.

    Parameters
    ----------
    x_edges_mm, y_edges_mm, z_edges_mm : array_like, shape (nx + 1,), (ny + 1,), (nz + 1,)
        Ascending voxel boundaries [mm]. They may be uneven.
    x_centers_mm, y_centers_mm, z_centers_mm : array_like, shape (nx,), (ny,), (nz,), optional
        Where in each voxel its value holds [mm]; the middle by default. Needed where values were
        sampled on unevenly spaced planes, which do not lie in the middle of their voxels.

    Raises
    ------
    InputError
        When boundaries are not finite and strictly ascending, or a centre lies outside its voxel.

    Examples
    --------
    >>> grid = Grid.regular(shape=(2, 3, 4), spacing_mm=(1.0, 2.0, 3.0))
    >>> grid.spacing_mm, grid.origin_mm
    ((1.0, 2.0, 3.0), (0.0, 0.0, 0.0))
    """

    x_edges_mm: Axis
    y_edges_mm: Axis
    z_edges_mm: Axis
    x_centers_mm: Axis = None  # type: ignore[assignment]
    y_centers_mm: Axis = None  # type: ignore[assignment]
    z_centers_mm: Axis = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        for axis in "xyz":
            edges = _edges(f"{axis}_edges_mm", getattr(self, f"{axis}_edges_mm"))
            name = f"{axis}_centers_mm"
            object.__setattr__(self, f"{axis}_edges_mm", edges)
            object.__setattr__(self, name, _centers(name, getattr(self, name), edges))

    @classmethod
    def regular(
        cls,
        *,
        shape: tuple[int, ...],
        spacing_mm: tuple[float, ...],
        origin_mm: tuple[float, ...] = (0.0, 0.0, 0.0),
    ) -> Grid:
        """Evenly spaced grid.

        Parameters
        ----------
        shape : tuple of int
            Number of voxels (nz, ny, nx); (ny, nx) is one slice and (nx,) one line, 1 mm thick
            where ``spacing_mm`` does not say.
        spacing_mm : tuple of float
            Voxel size (x, y, z) [mm].
        origin_mm : tuple of float
            Centre of the first voxel (x, y, z) [mm].
        """
        n = (1,) * (3 - len(shape)) + tuple(int(s) for s in shape)
        if len(n) != 3 or min(n) < 1:
            raise InputError(
                f"`shape` must be one to three positive integers, got {shape}. "
                "A dose map is indexed [z, y, x]."
            )
        spacing = tuple(float(s) for s in spacing_mm) + (1.0,) * (3 - len(spacing_mm))
        origin = tuple(float(s) for s in origin_mm) + (0.0,) * (3 - len(origin_mm))
        if len(spacing) != 3 or not all(np.isfinite(s) and s > 0 for s in spacing):
            raise InputError(
                f"`spacing_mm` must be positive, got {tuple(spacing_mm)}. Distances in mm cannot be "
                "computed. Pass the voxel size (x, y, z) in mm."
            )
        if len(origin) != 3 or not all(np.isfinite(o) for o in origin):
            raise InputError(f"`origin_mm` must be finite, got {tuple(origin_mm)}. Pass (x, y, z) in mm.")
        edges = [o + h * (np.arange(m + 1) - 0.5) for m, h, o in zip(n[::-1], spacing, origin, strict=True)]
        return cls(x_edges_mm=edges[0], y_edges_mm=edges[1], z_edges_mm=edges[2])

    @classmethod
    def from_centers(
        cls, *, x_mm: ArrayLike, y_mm: ArrayLike, z_mm: ArrayLike, width_mm: float = 1.0
    ) -> Grid:
        """Grid with boundaries half-way between ascending voxel centres [mm].

        An axis with one centre gets one voxel ``width_mm`` wide. Where centres are uneven they stay
        where they are, off the middle of their voxels.
        """
        return cls(
            x_edges_mm=_edges_from_centers("x_mm", x_mm, width_mm),
            y_edges_mm=_edges_from_centers("y_mm", y_mm, width_mm),
            z_edges_mm=_edges_from_centers("z_mm", z_mm, width_mm),
            x_centers_mm=np.atleast_1d(np.asarray(x_mm, dtype=np.float64)),
            y_centers_mm=np.atleast_1d(np.asarray(y_mm, dtype=np.float64)),
            z_centers_mm=np.atleast_1d(np.asarray(z_mm, dtype=np.float64)),
        )

    @property
    def edges_mm(self) -> tuple[Axis, Axis, Axis]:
        """Voxel boundaries [mm] in array order (z, y, x)."""
        return self.z_edges_mm, self.y_edges_mm, self.x_edges_mm

    @property
    def centers_mm(self) -> tuple[Axis, Axis, Axis]:
        """Where the values hold [mm], the middle of each voxel unless given; array order (z, y, x)."""
        return self.z_centers_mm, self.y_centers_mm, self.x_centers_mm

    @property
    def widths_mm(self) -> tuple[Axis, Axis, Axis]:
        """Voxel widths [mm] in array order (z, y, x)."""
        z, y, x = (np.diff(e) for e in self.edges_mm)
        return z, y, x

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of voxels (nz, ny, nx)."""
        return self.z_edges_mm.size - 1, self.y_edges_mm.size - 1, self.x_edges_mm.size - 1

    @property
    def n_voxels(self) -> int:
        """Number of voxels."""
        nz, ny, nx = self.shape
        return nz * ny * nx

    @property
    def extended_axes(self) -> tuple[int, ...]:
        """Array axes with more than one voxel: 3 of them for a volume, 2 for a slice."""
        return tuple(axis for axis, n in enumerate(self.shape) if n > 1)

    @property
    def spacing_mm(self) -> tuple[float | None, float | None, float | None]:
        """Voxel size (x, y, z) [mm], None along an axis where it is uneven."""
        return tuple(_even_width(e) for e in self.edges_mm[::-1])  # type: ignore[return-value]

    @property
    def is_even(self) -> bool:
        """Whether the spacing is even along every axis."""
        return None not in self.spacing_mm

    @property
    def origin_mm(self) -> tuple[float, float, float]:
        """Centre of the first voxel (x, y, z) [mm]."""
        z, y, x = self.centers_mm
        return float(x[0]), float(y[0]), float(z[0])

    @property
    def box_mm(self) -> tuple[tuple[float, float], tuple[float, float], tuple[float, float]]:
        """Outer boundaries (low, high) [mm] in array order (z, y, x)."""
        z, y, x = ((float(e[0]), float(e[-1])) for e in self.edges_mm)
        return z, y, x

    @property
    def voxel_volume_mm3(self) -> Axis:
        """Volume of each voxel [mm3], shape [z, y, x]; a read-only view where spacing is even."""
        wz, wy, wx = self.widths_mm
        if self.is_even:
            volume = np.prod([(e[-1] - e[0]) / (e.size - 1) for e in self.edges_mm])
            return np.broadcast_to(volume, self.shape)
        return wz[:, None, None] * wy[:, None] * wx

    def coincides_with(self, other: Grid, *, tolerance_mm: float = COINCIDENCE_TOLERANCE_MM) -> bool:
        """Whether both grids have the same voxels within ``tolerance_mm``."""
        return self.shape == other.shape and all(
            np.allclose(mine, theirs, rtol=0.0, atol=tolerance_mm)
            for mine, theirs in zip(
                self.edges_mm + self.centers_mm, other.edges_mm + other.centers_mm, strict=True
            )
        )

    def crop(self, slices: tuple[slice, slice, slice]) -> Grid:
        """Grid of the voxels ``array[slices]``; slices in array order, step 1."""
        cut = {}
        for axis, edges, centers, one in zip("zyx", self.edges_mm, self.centers_mm, slices, strict=True):
            start, stop, step = one.indices(centers.size)
            if step != 1 or stop <= start:
                raise InputError(f"`slices` must keep at least one voxel with step 1, got {slices}.")
            cut[f"{axis}_edges_mm"] = edges[start : stop + 1]
            cut[f"{axis}_centers_mm"] = centers[start:stop]
        return Grid(**cut)

    def check_array(self, name: str, values: ArrayLike) -> NDArray[Any]:
        """Return ``values`` as an array, or raise where its shape is not that of the grid."""
        array = np.asarray(values)
        if array.shape != self.shape:
            raise GridMismatchError(
                f"`{name}` has shape {array.shape}, the grid has {self.shape} (z, y, x). "
                "Values and voxels cannot be paired. Pass one value per voxel."
            )
        return array


def _even_width(edges: Axis) -> float | None:
    """Common voxel width of an axis, or None where it is uneven."""
    widths = np.diff(edges)
    mean = float((edges[-1] - edges[0]) / widths.size)
    return mean if np.all(np.abs(widths - mean) <= _EVEN_TOLERANCE * mean) else None


def _apply_along(matrices: list[Any], values: NDArray[Any]) -> NDArray[Any]:
    """Apply one sparse matrix along each array axis."""
    result = np.asarray(values, dtype=np.float64)
    for axis, matrix in enumerate(matrices):
        moved = np.moveaxis(result, axis, 0)
        flat = matrix @ moved.reshape(moved.shape[0], -1)
        result = np.moveaxis(flat.reshape((matrix.shape[0], *moved.shape[1:])), 0, axis)
    return np.ascontiguousarray(result)


def _linear_matrix(source: Axis, centers: Axis, points: Axis) -> csr_array:
    """Linear interpolation weights from values at ``centers`` to ``points``.

    Constant in the outer half voxel, zero outside the boundaries ``source``.
    """
    from scipy.sparse import csr_array

    n = centers.size
    low = np.clip(np.searchsorted(centers, points, side="right") - 1, 0, max(n - 2, 0))
    high = np.minimum(low + 1, n - 1)
    gap = np.where(high > low, centers[high] - centers[low], 1.0)
    weight = np.clip((points - centers[low]) / gap, 0.0, 1.0)
    tolerance = COINCIDENCE_TOLERANCE_MM
    inside = (points >= source[0] - tolerance) & (points <= source[-1] + tolerance)
    rows = np.arange(points.size)
    data = np.concatenate([(1 - weight) * inside, np.where(high > low, weight, 0.0) * inside])
    return csr_array(
        (data, (np.concatenate([rows, rows]), np.concatenate([low, high]))), shape=(points.size, n)
    )


def _overlap_matrix(source: Axis, target: Axis) -> csr_array:
    """Overlap length of each target voxel with each source voxel, over the target's width."""
    from scipy.sparse import csr_array

    cuts = np.union1d(source, target)
    middle = (cuts[1:] + cuts[:-1]) / 2
    length = np.diff(cuts)
    row = np.searchsorted(target, middle, side="right") - 1
    column = np.searchsorted(source, middle, side="right") - 1
    n_rows, n_columns = target.size - 1, source.size - 1
    keep = (row >= 0) & (row < n_rows) & (column >= 0) & (column < n_columns)
    data = length[keep] / np.diff(target)[row[keep]]
    return csr_array((data, (row[keep], column[keep])), shape=(n_rows, n_columns))


def interpolate(values: ArrayLike, *, source: Grid, target: Grid, squared: bool = False) -> NDArray[Any]:
    """Trilinear interpolation between voxel centres; 0 outside the source's box.

    Parameters
    ----------
    values : array_like, shape source.shape
        Values at the voxel centres, any unit.
    source, target : Grid
    squared : bool
        Use squared weights: interpolates a variance of independent voxels.

    Returns
    -------
    ndarray, shape target.shape
        The values themselves, not a copy, where the grids coincide.

    Notes
    -----
    *Limits*: constant in the outer half voxel. *Cost*: one pass an axis.
    """
    array = source.check_array("values", values)
    if source.coincides_with(target):
        return array
    matrices = [
        _linear_matrix(edges, centers, points)
        for edges, centers, points in zip(source.edges_mm, source.centers_mm, target.centers_mm, strict=True)
    ]
    if squared:
        matrices = [m * m for m in matrices]
    return _apply_along(matrices, array)


def conserve(density: ArrayLike, *, source: Grid, target: Grid) -> NDArray[Any]:
    """Mean of a piecewise-constant density over each target voxel; 0 where the source is absent.

    The integral over the target's box equals that of the source inside it, to rounding.

    Parameters
    ----------
    density : array_like, shape source.shape
        Density per volume (for a dose map: the dose), any unit.
    source, target : Grid

    Returns
    -------
    ndarray, shape target.shape
        The density itself, not a copy, where the grids coincide.
    """
    array = source.check_array("density", density)
    if source.coincides_with(target):
        return array
    matrices = [_overlap_matrix(s, t) for s, t in zip(source.edges_mm, target.edges_mm, strict=True)]
    return _apply_along(matrices, array)


def conserve_transposed(values: ArrayLike, *, source: Grid, target: Grid) -> NDArray[Any]:
    """Transpose of `conserve` as a linear map: carries derivatives from the target back to the source.

    Parameters
    ----------
    values : array_like, shape target.shape
        Derivative with respect to each target voxel's density.
    source, target : Grid

    Returns
    -------
    ndarray, shape source.shape
        Derivative with respect to each source voxel's density.
    """
    array = target.check_array("values", values)
    if source.coincides_with(target):
        return array
    from scipy.sparse import csr_array

    overlaps = [_overlap_matrix(s, t) for s, t in zip(source.edges_mm, target.edges_mm, strict=True)]
    return _apply_along([csr_array(m.T) for m in overlaps], array)


def _extend(edges: Axis, low: float, high: float) -> Axis:
    """Continue an axis with its own end widths until it covers [low, high].

    A sliver thinner than the tolerance moves the outer boundary instead of adding a voxel.
    """
    tolerance = COINCIDENCE_TOLERANCE_MM
    first, last = edges[1] - edges[0], edges[-1] - edges[-2]
    before = max(0, int(np.ceil((edges[0] - low - tolerance) / first)))
    after = max(0, int(np.ceil((high - edges[-1] - tolerance) / last)))
    extended = np.concatenate(
        [edges[0] - first * np.arange(before, 0, -1), edges, edges[-1] + last * np.arange(1, after + 1)]
    )
    extended[0], extended[-1] = min(extended[0], low), max(extended[-1], high)
    return extended


def require_overlap(reference: Grid, evaluated: Grid) -> None:
    """Refuse grids whose boxes have nothing in common.

    Raises
    ------
    GridMismatchError
        Naming the axis along which they miss each other.
    """
    for axis, mine, theirs in zip("zyx", reference.box_mm, evaluated.box_mm, strict=True):
        if min(mine[1], theirs[1]) - max(mine[0], theirs[0]) <= COINCIDENCE_TOLERANCE_MM:
            raise GridMismatchError(
                f"the grids do not overlap along {axis}: the reference covers {mine[0]:.2f} to "
                f"{mine[1]:.2f} mm, the evaluated map {theirs[0]:.2f} to {theirs[1]:.2f} mm. "
                "They cannot be compared. Check that both maps are in the same frame of reference."
            )


def union_grid(reference: Grid, evaluated: Grid) -> Grid:
    """The reference's voxels, continued until they cover both boxes.

    Raises
    ------
    GridMismatchError
        When the boxes do not overlap, or when the union would hold more than 30 times the voxels
        of both grids together.
    """
    require_overlap(reference, evaluated)
    if reference.coincides_with(evaluated):
        return reference
    z, y, x = (_extend(edges, *box) for edges, box in zip(reference.edges_mm, evaluated.box_mm, strict=True))
    n_voxels = (z.size - 1) * (y.size - 1) * (x.size - 1)
    if n_voxels > 30 * (reference.n_voxels + evaluated.n_voxels):
        raise GridMismatchError(
            f"covering both maps takes {n_voxels} voxels of the reference grid, more than 30 times what "
            "they hold themselves. Crop the maps to their common region first."
        )
    return Grid(z_edges_mm=z, y_edges_mm=y, x_edges_mm=x)


def _refined(edges: Axis, other: Axis) -> Axis:
    """Boundaries of both axes, without the other's where they would cut off next to nothing."""
    mine, widths = np.diff(edges), np.diff(other)
    own = np.minimum(np.append(np.inf, widths), np.append(widths, np.inf))
    inside = (other > edges[0]) & (other < edges[-1])
    inner = other[inside]
    after = np.searchsorted(edges, inner)
    low, high = edges[after - 1], edges[after]
    thin = np.maximum(_SLIVER * np.minimum(high - low, own[inside]), COINCIDENCE_TOLERANCE_MM)
    kept = inner[np.minimum(inner - low, high - inner) >= thin]
    before, beyond = (
        _beyond(edges[0] - other[::-1], widths=mine),
        _beyond(other - edges[-1], widths=mine[::-1]),
    )
    joined = np.concatenate([edges[0] - before[::-1], np.union1d(edges, kept), edges[-1] + beyond])
    joined[0], joined[-1] = min(joined[0], other[0]), max(joined[-1], other[-1])
    return joined


def _beyond(distances: Axis, *, widths: Axis) -> Axis:
    """Ascending distances beyond the end of an axis; a thin first one is left out, or made a whole voxel."""
    outside = distances[distances > COINCIDENCE_TOLERANCE_MM]
    if not outside.size or outside[0] >= _SLIVER * widths[0]:
        return outside
    return outside[1:] if outside.size > 1 else widths[:1]


def _misfit(edges: Axis, other: Axis) -> float:
    """How badly voxels average what lies on others: grows as the fourth power of their width."""
    inner = other[(other > edges[0]) & (other < edges[-1])]
    after = np.searchsorted(edges, inner)
    low, high = edges[after - 1], edges[after]
    width = float(np.median(np.diff(other)))
    return float(np.sum(np.square((inner - low) * (high - inner)) / (high - low))) * width**2


def common_grid(reference: Grid, evaluated: Grid) -> Grid:
    """Voxels on which both maps are constant, as far as their number allows; they cover both boxes.

    Along an axis that is refined, the voxels lie between the boundaries of both grids, and maps are brought
    to them exactly; a boundary of the evaluated grid is left out where it would cut less than a tenth off a
    voxel. Where all three axes together would take more than 2 M voxels, and more than twice those of
    `union_grid`, the axes on which the grids fit each other best keep the reference's voxels, continued over
    both boxes. Every boundary of the reference is kept in either case.

    Raises
    ------
    GridMismatchError
        When the boxes do not overlap, or as `union_grid` where not even one axis may be refined.
    """
    require_overlap(reference, evaluated)
    if reference.coincides_with(evaluated):
        return reference
    pairs = list(zip(reference.edges_mm, evaluated.edges_mm, strict=True))
    refined = [_refined(mine, theirs) for mine, theirs in pairs]
    coarse = [_extend(mine, float(theirs[0]), float(theirs[-1])) for mine, theirs in pairs]
    misfits = [_misfit(mine, theirs) for mine, theirs in pairs]
    most = max(_REFINED_VOXELS, 2 * int(np.prod([e.size - 1 for e in coarse])))
    best: tuple[float, int] | None = None
    found = coarse
    for choice in product((True, False), repeat=3):
        edges = [r if fine else c for fine, r, c in zip(choice, refined, coarse, strict=True)]
        n_voxels = int(np.prod([e.size - 1 for e in edges]))
        left = sum(m for fine, m in zip(choice, misfits, strict=True) if not fine)
        if any(choice) and n_voxels <= most and (best is None or (left, n_voxels) < best):
            best, found = (left, n_voxels), edges
    if best is None:
        return union_grid(reference, evaluated)
    return Grid(z_edges_mm=found[0], y_edges_mm=found[1], x_edges_mm=found[2])
