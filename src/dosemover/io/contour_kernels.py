"""Exact area that closed planar contours cover in each pixel."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray


@njit(cache=True, error_model="numpy")
def _mean_right_of(edge: float, low: float, high: float) -> float:
    """Mean of max(edge - x, 0) for x uniform between ``low`` and ``high``."""
    if edge <= low:
        return 0.0
    if edge >= high:
        return edge - 0.5 * (low + high)
    return 0.5 * (edge - low) * (edge - low) / (high - low)


@njit(cache=True, error_model="numpy")
def _add_right_of_line(
    x_at_low: float,
    x_at_high: float,
    height: float,
    sign: float,
    x_edges: NDArray[Any],
    partial: NDArray[Any],
    full: NDArray[Any],
) -> None:
    """Add the area right of a straight line through a strip, pixel by pixel.

    Pixels that the line crosses get their area in ``partial``; the pixels behind them get the height of
    the strip in ``full``, to be summed from the left and multiplied by their width.
    """
    low, high = min(x_at_low, x_at_high), max(x_at_low, x_at_high)
    n = x_edges.size - 1
    if low >= x_edges[n]:
        return
    first = np.searchsorted(x_edges, low, side="right") - 1
    column = max(first, 0)
    before = _mean_right_of(x_edges[column], low, high)
    while column < n and x_edges[column] < high:
        after = _mean_right_of(x_edges[column + 1], low, high)
        partial[column] += sign * height * (after - before)
        before = after
        column += 1
    full[column] += sign * height


@njit(cache=True, error_model="numpy")
def _segments(x: NDArray[Any], y: NDArray[Any], starts: NDArray[Any]) -> NDArray[Any]:
    """Sides of the contours that are not level, from low to high y: columns y0, x0, y1, x1, sorted by y0."""
    sides = np.empty((x.size, 4))
    count = 0
    for contour in range(starts.size - 1):
        first, last = starts[contour], starts[contour + 1]
        for i in range(first, last):
            j = i + 1 if i + 1 < last else first
            if y[i] < y[j]:
                sides[count, 0], sides[count, 1], sides[count, 2], sides[count, 3] = y[i], x[i], y[j], x[j]
                count += 1
            elif y[j] < y[i]:
                sides[count, 0], sides[count, 1], sides[count, 2], sides[count, 3] = y[j], x[j], y[i], x[i]
                count += 1
    order = np.argsort(sides[:count, 0], kind="mergesort")
    return sides[:count][order]


@njit(cache=True, error_model="numpy")
def _x_at(side: NDArray[Any], y: float) -> float:
    """Position x of a side at height y, exactly its end points at their heights."""
    if y <= side[0]:
        return side[1]
    if y >= side[2]:
        return side[3]
    return side[1] + (side[3] - side[1]) * ((y - side[0]) / (side[2] - side[0]))


@njit(cache=True, error_model="numpy")
def _crossing(a: NDArray[Any], b: NDArray[Any], y_low: float, y_high: float) -> float:
    """Height between ``y_low`` and ``y_high`` at which two sides cross; NaN where they do not."""
    low = max(a[0], b[0], y_low)
    high = min(a[2], b[2], y_high)
    if low >= high or max(a[1], a[3]) < min(b[1], b[3]) or max(b[1], b[3]) < min(a[1], a[3]):
        return np.nan
    at_low = _x_at(a, low) - _x_at(b, low)
    at_high = _x_at(a, high) - _x_at(b, high)
    if (at_low < 0.0 and at_high > 0.0) or (at_low > 0.0 and at_high < 0.0):
        return low + (high - low) * (at_low / (at_low - at_high))
    return np.nan


@njit(cache=True, error_model="numpy")
def _breaks(sides: NDArray[Any], active: NDArray[Any], y_low: float, y_high: float) -> NDArray[Any]:
    """Heights in a row of pixels between which no side begins, ends or crosses another."""
    n_crossings = 0
    for i in range(active.size):
        for j in range(i):
            if not np.isnan(_crossing(sides[active[i]], sides[active[j]], y_low, y_high)):
                n_crossings += 1
    heights = np.empty(2 + 2 * active.size + n_crossings)
    heights[0], heights[1] = y_low, y_high
    count = 2
    for i in range(active.size):
        for end in (sides[active[i], 0], sides[active[i], 2]):
            if y_low < end < y_high:
                heights[count] = end
                count += 1
        for j in range(i):
            height = _crossing(sides[active[i]], sides[active[j]], y_low, y_high)
            if not np.isnan(height):
                heights[count] = height
                count += 1
    return np.unique(heights[:count])


@njit(cache=True, error_model="numpy")
def even_odd_area(
    x: NDArray[Any],
    y: NDArray[Any],
    starts: NDArray[Any],
    x_edges: NDArray[Any],
    y_edges: NDArray[Any],
    area: NDArray[Any],
) -> None:
    """Add to ``area`` the part of each pixel that is inside an odd number of contours.

    Parameters
    ----------
    x, y : ndarray, shape (n,)
        Corners of all contours, one after the other [mm].
    starts : ndarray of int, shape (contours + 1,)
        Where each contour starts, and n.
    x_edges, y_edges : ndarray, shape (nx + 1,), (ny + 1,)
        Ascending pixel boundaries [mm].
    area : ndarray, shape (ny, nx)
        Area [mm2], changed in place.

    Notes
    -----
    *Definition*: a scan over rows of pixels. Each row is cut into strips at every corner and every
    crossing of sides; in a strip the sides, in order of x, alternately enter and leave the region, and
    the area right of a straight line is integrated over each pixel in closed form. Exact up to rounding
    for holes, keyholes, islands, overlaps and self-crossings.
    """
    sides = _segments(x, y, starts)
    n_rows, n_columns = y_edges.size - 1, x_edges.size - 1
    partial, full = np.zeros(n_columns), np.zeros(n_columns + 1)
    in_strip, middle = np.empty(sides.shape[0], np.int64), np.empty(sides.shape[0])
    active, n_active, following = np.empty(sides.shape[0], np.int64), 0, 0
    for row in range(n_rows):
        y_low, y_high = y_edges[row], y_edges[row + 1]
        kept = 0
        for i in range(n_active):
            if sides[active[i], 2] > y_low:
                active[kept] = active[i]
                kept += 1
        n_active = kept
        while following < sides.shape[0] and sides[following, 0] < y_high:
            if sides[following, 2] > y_low:
                active[n_active] = following
                n_active += 1
            following += 1
        if n_active == 0:
            continue
        partial[:] = 0.0
        full[:] = 0.0
        heights = _breaks(sides, active[:n_active], y_low, y_high)
        for strip in range(heights.size - 1):
            low, high = heights[strip], heights[strip + 1]
            count = 0
            for i in range(n_active):  # insertion sort by x in the middle of the strip
                side = sides[active[i]]
                if side[0] <= low and side[2] >= high:
                    at = _x_at(side, 0.5 * (low + high))
                    place = count
                    while place > 0 and middle[place - 1] > at:
                        middle[place], in_strip[place] = middle[place - 1], in_strip[place - 1]
                        place -= 1
                    middle[place], in_strip[place] = at, active[i]
                    count += 1
            for i in range(count):
                side = sides[in_strip[i]]
                sign = 1.0 if i % 2 == 0 else -1.0
                _add_right_of_line(
                    _x_at(side, low), _x_at(side, high), high - low, sign, x_edges, partial, full
                )
        height = 0.0
        for column in range(n_columns):
            height += full[column]
            area[row, column] += partial[column] + height * (x_edges[column + 1] - x_edges[column])
