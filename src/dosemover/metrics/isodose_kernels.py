"""Volumes enclosed by isodoses of two maps, with the dose trilinear between voxel centres."""

from __future__ import annotations

import numpy as np
from numba import njit, prange


@njit(cache=True, error_model="numpy")
def _span(left, right, level, span):
    """Part of [0, 1] where a linear function from ``left`` to ``right`` reaches ``level``."""
    span[0], span[1] = 0.0, 1.0
    if left >= level and right >= level:
        return
    if left < level and right < level:
        span[1] = 0.0
    elif left < level:
        span[0] = (level - left) / (right - left)
    else:
        span[1] = (level - left) / (right - left)


@njit(cache=True, error_model="numpy")
def _ends(dose, k, j, i, u, v, ends):
    """Dose at the two x ends of the line at fractions (u, v) along z and y of a cell."""
    for side in range(2):
        low = (1.0 - v) * dose[k, j, i + side] + v * dose[k, j + 1, i + side]
        high = (1.0 - v) * dose[k + 1, j, i + side] + v * dose[k + 1, j + 1, i + side]
        ends[side] = (1.0 - u) * low + u * high


@njit(cache=True, error_model="numpy")
def _state(dose, k, j, i, level):
    """Number of the eight corners of a cell that reach the level."""
    n = 0
    for dk in range(2):
        for dj in range(2):
            for di in range(2):
                if dose[k + dk, j + dj, i + di] >= level:
                    n += 1
    return n


@njit(cache=True, error_model="numpy", parallel=True)
def isodose_volumes(a, b, level, wz, wy, wx, n_lines, layers):
    """Volumes where a, where b and where both reach ``level``, one row of ``layers`` a layer.

    ``a`` and ``b`` hold the corners of the cells, ``wz, wy, wx`` the widths of the cells. Each cell
    that an isodose crosses is cut into n_lines^2 lines along x, on which the dose is linear.
    """
    nz, ny, nx = wz.size, wy.size, wx.size
    for k in prange(nz):
        ends, span_a, span_b = np.empty(2), np.empty(2), np.empty(2)
        sum_a, sum_b, sum_both = 0.0, 0.0, 0.0
        for j in range(ny):
            for i in range(nx):
                n_a = _state(a, k, j, i, level)
                n_b = _state(b, k, j, i, level)
                if n_a == 0 and n_b == 0:
                    continue
                volume = wz[k] * wy[j] * wx[i]
                if n_a in (0, 8) and n_b in (0, 8):
                    sum_a += volume if n_a == 8 else 0.0
                    sum_b += volume if n_b == 8 else 0.0
                    sum_both += volume if n_a == 8 and n_b == 8 else 0.0
                    continue
                part = volume / (n_lines * n_lines)
                for p in range(n_lines):
                    for q in range(n_lines):
                        u, v = (p + 0.5) / n_lines, (q + 0.5) / n_lines
                        _ends(a, k, j, i, u, v, ends)
                        _span(ends[0], ends[1], level, span_a)
                        _ends(b, k, j, i, u, v, ends)
                        _span(ends[0], ends[1], level, span_b)
                        sum_a += part * (span_a[1] - span_a[0])
                        sum_b += part * (span_b[1] - span_b[0])
                        both = min(span_a[1], span_b[1]) - max(span_a[0], span_b[0])
                        sum_both += part * max(both, 0.0)
        layers[k, 0], layers[k, 1], layers[k, 2] = sum_a, sum_b, sum_both
