"""Dose maps and structures: what every comparison starts from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dosemover.errors import GridMismatchError, InputError, UnitError
from dosemover.grid import Grid, conserve, interpolate


def _frozen(array: NDArray[Any]) -> NDArray[Any]:
    """C-ordered, read-only view of an array; integers become float64."""
    if array.dtype not in (np.float32, np.float64):
        array = array.astype(np.float64)
    array = np.ascontiguousarray(array).view()
    array.setflags(write=False)
    return array


def _check_values(name: str, array: NDArray[Any]) -> None:
    """Refuse NaN, infinite and negative values, naming the first."""
    low, high = float(np.min(array)), float(np.max(array))  # a NaN shows in both
    if np.isfinite(low) and np.isfinite(high) and low >= 0:
        return
    bad = ~(np.isfinite(array) & (array >= 0))
    where = tuple(int(i) for i in np.argwhere(bad)[0])
    raise InputError(
        f"`{name}` must be finite and not negative, got {array[where]} at index {where} "
        f"and {int(bad.sum())} such values in all. No metric is defined for it. "
        "Set those voxels to 0 where that is what they mean."
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Structure:
    """A region of interest: the fraction of each voxel that it fills.

    Parameters
    ----------
    name : str
    fraction : array_like, shape [z, y, x]
        Filled fraction of each voxel, 0 to 1.
    grid : Grid
    """

    name: str
    fraction: NDArray[Any]
    grid: Grid

    def __post_init__(self) -> None:
        fraction = self.grid.check_array("fraction", self.fraction)
        _check_values("fraction", fraction)
        if float(fraction.max()) > 1 + 1e-6:
            raise InputError(
                f"`fraction` of structure {self.name!r} must lie between 0 and 1, got {fraction.max()}."
            )
        object.__setattr__(self, "fraction", _frozen(fraction))

    @property
    def mask(self) -> NDArray[np.bool_]:
        """Voxels that are at least half inside, shape [z, y, x]."""
        return self.fraction >= 0.5

    @property
    def volume_cc(self) -> float:
        """Volume [cm3] inside the grid."""
        return float(np.sum(self.fraction * self.grid.voxel_volume_mm3, dtype=np.float64)) / 1000.0


def uncertainty_of_batches(batches_gy: NDArray[Any]) -> NDArray[np.float64]:
    """Standard uncertainty of the mean of batches [Gy], shape [z, y, x]."""
    return batches_gy.std(axis=0, ddof=1, dtype=np.float64) / np.sqrt(len(batches_gy))


@dataclass(frozen=True, kw_only=True, eq=False)
class DoseMap:
    """Absorbed dose in the voxels of a grid.

    Parameters
    ----------
    dose_gy : array_like, shape [z, y, x]
        Dose D [Gy], finite and not negative. With another ``unit``, in that unit.
    grid : Grid
    uncertainty_gy : array_like, shape [z, y, x], optional
        Standard uncertainty of each voxel (k = 1) [Gy].
    batches_gy : array_like, shape [batch, z, y, x], optional
        Independent batch doses whose mean is ``dose_gy`` [Gy].
    density_g_per_cm3 : array_like, shape [z, y, x], optional
        Mass density [g/cm3].
    structures : tuple of Structure, optional
    unit : str
        "Gy", or what the file says instead ("relative", "Gy/history"); comparing needs Gy-like units.
    name : str
        What to call the map in tables: a file name, never a patient's.
    source : mapping
        Format details for ``dosemover info``: "file", "format" and whatever the format tells.
    identifiers : mapping
        Patient identifiers found in the file; written nowhere unless asked for.

    Raises
    ------
    InputError
        When values are not finite or negative.
    GridMismatchError
        When shapes do not fit the grid.

    Examples
    --------
    >>> import numpy as np
    >>> dose = DoseMap.from_array(np.ones((2, 3, 4)), spacing_mm=(2.0, 2.0, 2.5))
    >>> dose.integral_gy_mm3
    240.0
    """

    dose_gy: NDArray[Any]
    grid: Grid
    uncertainty_gy: NDArray[Any] | None = None
    batches_gy: NDArray[Any] | None = None
    density_g_per_cm3: NDArray[Any] | None = None
    structures: tuple[Structure, ...] = ()
    unit: str = "Gy"
    name: str = ""
    source: Mapping[str, Any] = field(default_factory=dict)
    identifiers: Mapping[str, str] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        for name in ("dose_gy", "uncertainty_gy", "density_g_per_cm3"):
            values = getattr(self, name)
            if values is not None:
                array = self.grid.check_array(name, values)
                _check_values(name, array)
                object.__setattr__(self, name, _frozen(array))
        if self.batches_gy is not None:
            object.__setattr__(self, "batches_gy", self._checked_batches(self.batches_gy))
        for name in ("source", "identifiers"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))

    def _checked_batches(self, values: ArrayLike) -> NDArray[Any]:
        """Batches with the grid's shape behind one leading axis."""
        batches = np.asarray(values)
        if batches.ndim != 4 or batches.shape[1:] != self.grid.shape or batches.shape[0] < 2:
            raise GridMismatchError(
                f"`batches_gy` must have shape (batches >= 2, {self.grid.shape}), got {batches.shape}. "
                "Pass one dose map per batch on the grid of the dose."
            )
        _check_values("batches_gy", batches)
        return _frozen(batches)

    @classmethod
    def from_array(
        cls,
        dose_gy: ArrayLike,
        *,
        spacing_mm: tuple[float, ...],
        origin_mm: tuple[float, ...] = (0.0, 0.0, 0.0),
        **fields: Any,
    ) -> DoseMap:
        """Dose map from an array of 1, 2 or 3 dimensions, indexed [x], [y, x] or [z, y, x].

        Parameters
        ----------
        dose_gy : array_like
            Dose [Gy].
        spacing_mm : tuple of float
            Voxel size (x, y, z) [mm]; a slice is 1 mm thick unless given.
        origin_mm : tuple of float
            Centre of the first voxel (x, y, z) [mm].
        **fields
            Other fields of `DoseMap`, arrays of the same dimensions.
        """
        array = np.asarray(dose_gy)
        grid = Grid.regular(shape=array.shape, spacing_mm=spacing_mm, origin_mm=origin_mm)
        for name in ("uncertainty_gy", "density_g_per_cm3"):
            if fields.get(name) is not None:
                fields[name] = np.asarray(fields[name]).reshape(grid.shape)
        if fields.get("batches_gy") is not None:
            batches = np.asarray(fields["batches_gy"])
            fields["batches_gy"] = batches.reshape(batches.shape[0], *grid.shape)
        return cls(dose_gy=array.reshape(grid.shape), grid=grid, **fields)

    @classmethod
    def from_batches(cls, batches_gy: ArrayLike, grid: Grid, **fields: Any) -> DoseMap:
        """Dose map that is the mean of independent batches, with the uncertainty of that mean.

        Parameters
        ----------
        batches_gy : array_like, shape [batch, z, y, x]
            At least two batch doses [Gy], of equal numbers of histories.
        grid : Grid
        **fields
            Other fields of `DoseMap`.
        """
        batches = np.asarray(batches_gy)
        if batches.ndim != 4 or batches.shape[0] < 2:
            raise InputError(
                f"`batches_gy` must hold at least two maps [batch, z, y, x], got shape {batches.shape}. "
                "One batch alone has no uncertainty."
            )
        mean = batches.mean(axis=0, dtype=np.float64)
        return cls(
            dose_gy=mean,
            grid=grid,
            uncertainty_gy=uncertainty_of_batches(batches),
            batches_gy=batches,
            **fields,
        )

    @property
    def max_gy(self) -> float:
        """Largest dose [Gy]."""
        return float(self.dose_gy.max())

    @property
    def integral_gy_mm3(self) -> float:
        """Integral of the dose over the volume [Gy mm3]."""
        if self.grid.is_even:
            volume = float(self.grid.voxel_volume_mm3.flat[0])
            return float(np.sum(self.dose_gy, dtype=np.float64)) * volume
        return float(np.sum(self.dose_gy * self.grid.voxel_volume_mm3, dtype=np.float64))

    def require_gray(self) -> DoseMap:
        """Return the map itself, or raise where its values are not a dose in gray."""
        unit = self.unit.lower()
        if unit.startswith("cgy"):
            raise UnitError(
                f"{self.name or 'the dose map'} is in {self.unit!r}, not in Gy. Its numbers are 100 times as "
                "large. Pass `dataclasses.replace(dose.scaled(0.01), unit='Gy')`."
            )
        if not unit.startswith("gy"):
            raise UnitError(
                f"{self.name or 'the dose map'} is in {self.unit!r}, not in Gy. Metrics in Gy and criteria "
                "in % of a dose have no meaning for it. Export it as an absolute dose in Gy."
            )
        return self

    def scaled(self, factor: float) -> DoseMap:
        """The map with dose, uncertainty and batches multiplied by ``factor``."""
        if not (np.isfinite(factor) and factor > 0):
            raise InputError(f"`factor` must be positive, got {factor}. A dose map cannot be scaled by it.")
        if factor == 1.0:
            return self

        def times(values: NDArray[Any] | None) -> NDArray[Any] | None:
            return None if values is None else values * values.dtype.type(factor)

        return replace(
            self,
            dose_gy=self.dose_gy * self.dose_gy.dtype.type(factor),
            uncertainty_gy=times(self.uncertainty_gy),
            batches_gy=times(self.batches_gy),
        )

    def interpolated_to(self, grid: Grid) -> DoseMap:
        """The map at the voxel centres of ``grid``: trilinear, 0 outside.

        The variance is propagated with squared weights (independent voxels).
        """
        if self.grid.coincides_with(grid):
            return self if self.grid is grid else self._moved_to(grid, self.dose_gy)
        dose = interpolate(self.dose_gy, source=self.grid, target=grid)
        uncertainty = None
        if self.uncertainty_gy is not None:
            variance = np.square(self.uncertainty_gy, dtype=np.float64)
            uncertainty = np.sqrt(interpolate(variance, source=self.grid, target=grid, squared=True))
        batches = None
        if self.batches_gy is not None:
            batches = np.stack([interpolate(b, source=self.grid, target=grid) for b in self.batches_gy])
        return replace(
            self,
            dose_gy=dose,
            grid=grid,
            uncertainty_gy=uncertainty,
            batches_gy=batches,
            density_g_per_cm3=None,
            structures=(),
        )

    def _moved_to(self, grid: Grid, dose_gy: NDArray[Any]) -> DoseMap:
        """Same voxels under a grid that coincides."""
        structures = tuple(replace(s, grid=grid) for s in self.structures)
        return replace(self, dose_gy=dose_gy, grid=grid, structures=structures)

    def conserved_on(self, grid: Grid) -> NDArray[Any]:
        """Mean dose [Gy] over each voxel of ``grid``, conserving the integral; 0 outside."""
        return conserve(self.dose_gy, source=self.grid, target=grid)
