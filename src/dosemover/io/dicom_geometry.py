"""Where the voxels of a multi-frame DICOM image lie: PS3.3 C.7.6.2.1.1 and C.8.8.3.2, in numbers alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dosemover.errors import DataFormatError, InputError
from dosemover.grid import Grid

SNAP_TOLERANCE_MM = 0.05
"""Axes that are not quite those of the patient are taken as such when no voxel moves farther than this."""

POSITION_TOLERANCE_MM = 0.01
"""Absolute frame offsets start at the image position within this."""

LARGEST_COORDINATE_MM = 1e5
"""Positions beyond this are no place in a patient or a phantom."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Placement:
    """A grid in patient coordinates, and how stored frames become an array on it.

    Parameters
    ----------
    grid : Grid
    axes : tuple of int
        Axis of the stored array [frame, row, column] that runs along z, y and x.
    flipped : tuple of bool
        Whether the stored array descends along z, y and x.
    """

    grid: Grid
    axes: tuple[int, int, int]
    flipped: tuple[bool, bool, bool]

    def arrange(self, frames: NDArray[Any]) -> NDArray[Any]:
        """Stored values [frame, row, column] as [z, y, x], ascending in LPS."""
        turned = np.transpose(frames, self.axes)
        return turned[tuple(slice(None, None, -1 if flip else 1) for flip in self.flipped)]


def frame_offsets(
    offsets_mm: NDArray[Any],
    *,
    position_mm: NDArray[Any],
    orientation: NDArray[Any],
    n_frames: int,
    file: str,
) -> tuple[NDArray[Any], str]:
    """Distance of each frame from the first, along the normal of the frames.

    Parameters
    ----------
    offsets_mm : ndarray, shape (n,)
        GridFrameOffsetVector [mm]. Either it starts at 0 and holds distances along the normal (the
        cross product of row and column direction), or it starts at the z of ImagePositionPatient and
        holds z coordinates of transverse frames.
    position_mm : ndarray, shape (3,)
        ImagePositionPatient [mm].
    orientation : ndarray, shape (6,)
        ImageOrientationPatient.
    n_frames : int
    file : str
        Name for messages.

    Returns
    -------
    distances_mm : ndarray, shape (n_frames,)
    form : str
        "relative" or "absolute".

    Raises
    ------
    DataFormatError
        When the vector does not fit the number of frames, is in neither form or not monotonic.

    References
    ----------
    DICOM PS3.3, C.8.8.3.2, Grid Frame Offset Vector.
    """
    if offsets_mm.size != n_frames and n_frames > 1:
        raise DataFormatError(
            f"{file}: GridFrameOffsetVector holds {offsets_mm.size} offsets for {n_frames} frames. "
            "The frames cannot be placed. Export the file again."
        )
    steps = np.diff(offsets_mm)
    if not (np.all(steps > 0) or np.all(steps < 0)):
        raise DataFormatError(
            f"{file}: GridFrameOffsetVector must ascend or descend strictly, got "
            f"{np.array2string(offsets_mm, threshold=6)}. The frames cannot be placed. Export it again."
        )
    first = float(offsets_mm[0])
    if abs(first) < 1e-6:
        return offsets_mm[:n_frames], "relative"
    normal = np.cross(orientation[:3], orientation[3:])
    if abs(first - position_mm[2]) > POSITION_TOLERANCE_MM or abs(abs(normal[2]) - 1) > 1e-3:
        raise DataFormatError(
            f"{file}: GridFrameOffsetVector starts at {first} mm, which is neither 0 (distances) nor the z "
            f"{position_mm[2]} mm of ImagePositionPatient of transverse frames (positions). "
            "The frames cannot be placed. Export the file again."
        )
    return ((offsets_mm - first) * np.sign(normal[2]))[:n_frames], "absolute"


def place_frames(
    *,
    shape: tuple[int, int, int],
    position_mm: NDArray[Any],
    orientation: NDArray[Any],
    pixel_spacing_mm: NDArray[Any],
    distances_mm: NDArray[Any],
    thickness_mm: float,
    file: str,
) -> Placement:
    r"""Grid of stored frames by the affine of PS3.3 C.7.6.2.1.1.

    .. math:: P(k, i, j) = S + X \Delta_j\, j + Y \Delta_i\, i + (X \times Y)\, d_k

    for frame k, row i and column j: S the image position, X and Y the directions of increasing column
    and row index, and the first pixel spacing the distance between *rows*.

    Parameters
    ----------
    shape : tuple of int
        Frames, rows, columns.
    position_mm : ndarray, shape (3,)
        S, ImagePositionPatient: centre of the first voxel, LPS [mm].
    orientation : ndarray, shape (6,)
        X and Y, ImageOrientationPatient.
    pixel_spacing_mm : ndarray, shape (2,)
        PixelSpacing: between rows, between columns [mm].
    distances_mm : ndarray, shape (frames,)
        d, from `frame_offsets` [mm].
    thickness_mm : float
        Width of a single frame [mm].
    file : str
        Name for messages.

    Returns
    -------
    Placement

    Raises
    ------
    InputError
        When the frames are oblique to the patient's axes.
    DataFormatError
        When spacing is not positive, directions are not unit vectors at a right angle, or positions
        are beyond any patient.

    Notes
    -----
    *Limits*: axis-aligned frames in any of the 48 flips and permutations (prone, decubitus, feet
    first, coronal, sagittal). Directions off an axis by so little that no voxel moves by 0.05 mm are
    taken as that axis. Unevenly spaced frames get voxel boundaries half-way between them; their values
    stay on the frames.
    """
    directions = _directions(orientation, file)
    spacings = [float(s) for s in pixel_spacing_mm]
    if min(spacings) <= 0:
        raise DataFormatError(
            f"{file}: PixelSpacing must be positive, got {spacings}. Distances in mm cannot be computed. "
            "Export the file again."
        )
    steps = [distances_mm, spacings[0] * np.arange(shape[1]), spacings[1] * np.arange(shape[2])]
    if (
        max(float(np.abs(s[[0, -1]]).max()) for s in steps) + np.abs(position_mm).max()
        > LARGEST_COORDINATE_MM
    ):
        raise DataFormatError(
            f"{file}: ImagePositionPatient {position_mm.tolist()}, PixelSpacing {spacings} and the frame "
            "offsets place voxels more than 100 m from the origin. Export the file again."
        )
    patient_axis = [int(np.argmax(np.abs(d))) for d in directions]
    _refuse_oblique(directions, patient_axis, steps, orientation, file)
    centers: list[NDArray[Any]] = [np.empty(0)] * 3
    axes, flipped = [0, 0, 0], [False, False, False]
    for stored, (axis, step, direction) in enumerate(zip(patient_axis, steps, directions, strict=True)):
        line = position_mm[axis] + np.sign(direction[axis]) * step
        descending = bool(line[-1] < line[0])
        centers[axis] = line[::-1] if descending else line
        axes[2 - axis], flipped[2 - axis] = stored, descending
    widths = dict(zip(patient_axis, (thickness_mm, *spacings), strict=True))
    return Placement(
        grid=_grid(centers, [widths[axis] for axis in range(3)], file),
        axes=(axes[0], axes[1], axes[2]),
        flipped=(flipped[0], flipped[1], flipped[2]),
    )


def _directions(orientation: NDArray[Any], file: str) -> list[NDArray[Any]]:
    """Directions of increasing frame, row and column index, checked to be orthonormal."""
    along_columns, along_rows = orientation[:3], orientation[3:]
    lengths = np.linalg.norm(along_columns), np.linalg.norm(along_rows)
    if max(abs(length - 1) for length in lengths) > 1e-3 or abs(along_columns @ along_rows) > 1e-3:
        raise DataFormatError(
            f"{file}: ImageOrientationPatient must be two unit vectors at a right angle, got "
            f"{orientation.tolist()}. The dose cannot be placed. Export the file again."
        )
    return [np.cross(along_columns, along_rows), along_rows, along_columns]


def _refuse_oblique(
    directions: list[NDArray[Any]],
    patient_axis: list[int],
    steps: list[NDArray[Any]],
    orientation: NDArray[Any],
    file: str,
) -> None:
    """Refuse directions that are off the patient's axes by more than rounding."""
    off = 0.0
    for direction, axis, step in zip(directions, patient_axis, steps, strict=True):
        snapped = np.zeros(3)
        snapped[axis] = np.sign(direction[axis])
        off += float(np.linalg.norm(direction - snapped) * np.abs(step[-1]))
    if len(set(patient_axis)) < 3 or off > SNAP_TOLERANCE_MM:
        raise InputError(
            f"{file}: the dose grid is oblique (ImageOrientationPatient {orientation.tolist()}): its voxels "
            f"lie up to {off:.3g} mm off the patient's axes. Only axis-aligned grids are compared. "
            "Export the dose on an axis-aligned grid."
        )


def _grid(centers: list[NDArray[Any]], widths: list[float], file: str) -> Grid:
    """Grid of ascending centres along x, y and z; one voxel alone has its own width."""
    try:
        grids = [
            Grid.from_centers(x_mm=line, y_mm=[0.0], z_mm=[0.0], width_mm=width)
            for line, width in zip(centers, widths, strict=True)
        ]
    except InputError as error:
        raise DataFormatError(
            f"{file}: its geometry gives no grid of voxels: {error} Export the file again."
        ) from error
    edges = {f"{axis}_edges_mm": grid.x_edges_mm for axis, grid in zip("xyz", grids, strict=True)}
    lines = {f"{axis}_centers_mm": grid.x_centers_mm for axis, grid in zip("xyz", grids, strict=True)}
    return Grid(**edges, **lines)
