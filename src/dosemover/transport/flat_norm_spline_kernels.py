"""Loops of the flat norm over quadratic splines, knots on the voxel faces; kernels own rows low to high.

c holds one coefficient a voxel. Per axis, ``blend`` is the weight of the voxel before in the value on the
lower face, ``fw`` and ``bw`` one over the distance to the next and to the last middle; all are 0 past the
ends. On a voxel the gradient is a polynomial with three Bezier points along each axis, of the lower face, the
middle and the upper face: it is a mean of the 27 everywhere, so never longer than the longest. The upper
face's are those of the next voxel's lower face, and at the box no longer than the middle's.
"""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, error_model="numpy", nogil=True)
def _rows(c, i, j, p, q, blend0, fw0, bw0, blend1, fw1, bw1, V, Y, Z):
    """Values, and slopes along axes 1 and 0, of row (i, j): on lower faces (p, q = 0) or in the middles."""
    n0, n1, n2 = c.shape
    im = max(i - 1, 0)
    ip = min(i + 1, n0 - 1)
    jm = max(j - 1, 0)
    jp = min(j + 1, n1 - 1)
    a = blend0[i] if p == 0 else 0.0
    b = blend1[j] if q == 0 else 0.0
    # weights of the last, this and the next row: along the own axis the slope, along the other the value
    zm = -bw0[i] if p == 0 else -0.5 * bw0[i]
    zp = 0.0 if p == 0 else 0.5 * fw0[i]
    ym = -bw1[j] if q == 0 else -0.5 * bw1[j]
    yp = 0.0 if q == 0 else 0.5 * fw1[j]
    z = -(zm + zp)
    y = -(ym + yp)
    C = c[i, j]
    Cm = c[im, j]
    Cp = c[ip, j]
    J = c[i, jm]
    Jm = c[im, jm]
    Jp = c[ip, jm]
    K = c[i, jp]
    Km = c[im, jp]
    for k in range(n2):
        here = (1.0 - b) * C[k] + b * J[k]
        below = (1.0 - b) * Cm[k] + b * Jm[k]
        above = (1.0 - b) * Cp[k] + b * Jp[k]
        V[k] = (1.0 - a) * here + a * below
        Z[k] = z * here + zm * below + zp * above
        Y[k] = (
            y * ((1.0 - a) * C[k] + a * Cm[k])
            + ym * ((1.0 - a) * J[k] + a * Jm[k])
            + yp * ((1.0 - a) * K[k] + a * Km[k])
        )


@njit(cache=True, error_model="numpy", nogil=True)
def _row_slopes(c, i, j, blend0, fw0, bw0, blend1, fw1, bw1, blend2, fw2, bw2, V, Y, Z, out):
    """Longest squared Bezier point of the gradient in each voxel of row (i, j), lower faces and middles."""
    n2 = c.shape[2]
    out[:] = 0.0
    for p in range(2):
        for q in range(2):
            _rows(c, i, j, p, q, blend0, fw0, bw0, blend1, fw1, bw1, V, Y, Z)
            for k in range(1, n2):
                x = (V[k] - V[k - 1]) * bw2[k]
                y = (1.0 - blend2[k]) * Y[k] + blend2[k] * Y[k - 1]
                z = (1.0 - blend2[k]) * Z[k] + blend2[k] * Z[k - 1]
                s = x * x + y * y + z * z
                out[k] = s if s > out[k] else out[k]
            for k in range(1, n2 - 1):
                x = 0.5 * ((V[k] - V[k - 1]) * bw2[k] + (V[k + 1] - V[k]) * fw2[k])
                s = x * x + Y[k] * Y[k] + Z[k] * Z[k]
                out[k] = s if s > out[k] else out[k]
            last = n2 - 1
            x = 0.5 * (V[min(1, last)] - V[0]) * fw2[0]
            out[0] = max(out[0], x * x + Y[0] * Y[0] + Z[0] * Z[0])
            x = 0.5 * (V[last] - V[max(last - 1, 0)]) * bw2[last]
            out[last] = max(out[last], x * x + Y[last] * Y[last] + Z[last] * Z[last])


@njit(cache=True, error_model="numpy", nogil=True)
def spline_slopes(low, high, c, blend0, fw0, bw0, blend1, fw1, bw1, blend2, fw2, bw2, largest):
    """largest[i]: at least the largest squared gradient of the spline in plane i."""
    _, n1, n2 = c.shape
    V = np.empty(n2)
    Y = np.empty(n2)
    Z = np.empty(n2)
    row = np.empty(n2)
    for i in range(low, high):
        most = 0.0
        for j in range(n1):
            _row_slopes(c, i, j, blend0, fw0, bw0, blend1, fw1, bw1, blend2, fw2, bw2, V, Y, Z, row)
            for k in range(n2):
                most = row[k] if row[k] > most else most
        largest[i] = most


@njit(cache=True, error_model="numpy", nogil=True)
def _taps(middle, i, blend, fw, bw, value, slope):
    """Weights of coefficients i - 1, i, i + 1 in value and slope on the lower face or in the middle."""
    a = 0.0 if middle else blend[i]
    value[0] = a
    value[1] = 1.0 - a
    value[2] = 0.0
    slope[0] = -0.5 * bw[i] if middle else -bw[i]
    slope[2] = 0.5 * fw[i] if middle else 0.0
    slope[1] = -(slope[0] + slope[2])


@njit(cache=True, error_model="numpy", nogil=True)
def _gather(c, i, j, k, near):
    """Copy the coefficients of a voxel and its 26 neighbours; past the ends they repeat."""
    n0, n1, n2 = c.shape
    for u in range(3):
        ii = min(max(i + u - 1, 0), n0 - 1)
        for v in range(3):
            jj = min(max(j + v - 1, 0), n1 - 1)
            near[u, v, 0] = c[ii, jj, max(k - 1, 0)]
            near[u, v, 1] = c[ii, jj, k]
            near[u, v, 2] = c[ii, jj, min(k + 1, n2 - 1)]


@njit(cache=True, error_model="numpy", nogil=True)
def _gradient(near, value, slope, g):
    """Set g to the Bezier point of the gradient with these weights; return its length."""
    g[:] = 0.0
    for u in range(3):
        x = y = z = 0.0
        for v in range(3):
            own = near[u, v]
            a = value[2, 0] * own[0] + value[2, 1] * own[1] + value[2, 2] * own[2]
            b = slope[2, 0] * own[0] + slope[2, 1] * own[1] + slope[2, 2] * own[2]
            z += value[1, v] * a
            y += slope[1, v] * a
            x += value[1, v] * b
        g[0] += slope[0, u] * z
        g[1] += value[0, u] * y
        g[2] += value[0, u] * x
    return np.sqrt(g[0] * g[0] + g[1] * g[1] + g[2] * g[2])


@njit(cache=True, error_model="numpy", nogil=True)
def _shorten_point(c, i, j, k, excess, near, value, slope, g, taps):
    """Move coefficients along the constraint's normal until this Bezier point, g, is ``excess`` shorter."""
    g /= np.sqrt(g[0] * g[0] + g[1] * g[1] + g[2] * g[2])
    total = 0.0
    for u in range(3):
        for v in range(3):
            x = g[2] * value[0, u] * value[1, v]
            y = g[0] * slope[0, u] * value[1, v] + g[1] * value[0, u] * slope[1, v]
            for w in range(3):
                tap = x * slope[2, w] + y * value[2, w]
                taps[u, v, w] = tap
                total += tap * tap
    step = excess / total
    for u in range(3):
        for v in range(3):
            for w in range(3):
                if taps[u, v, w] != 0.0:
                    c[i + u - 1, j + v - 1, k + w - 1] -= np.float32(step * taps[u, v, w])
    _gather(c, i, j, k, near)


@njit(cache=True, error_model="numpy", nogil=True)
def shorten_spline(low, high, color, c, trigger, limit, blend0, fw0, bw0, blend1, fw1, bw1, blend2, fw2, bw2):
    """One Kaczmarz sweep over planes color, color + 3, ...: Bezier points that are too long are shortened.

    In voxels with one above ``trigger``, each above ``limit``; planes of one colour share no coefficient.
    """
    _, n1, n2 = c.shape
    V = np.empty(n2)
    Y = np.empty(n2)
    Z = np.empty(n2)
    row = np.empty(n2)
    near = np.empty((3, 3, 3))
    taps = np.empty((3, 3, 3))
    value = np.empty((3, 3))
    slope = np.empty((3, 3))
    g = np.empty(3)
    for index in range(low, high):
        i = 3 * index + color
        for j in range(n1):
            _row_slopes(c, i, j, blend0, fw0, bw0, blend1, fw1, bw1, blend2, fw2, bw2, V, Y, Z, row)
            for k in range(n2):
                if row[k] <= trigger * trigger:
                    continue
                _gather(c, i, j, k, near)
                for point in range(8):
                    _taps(point & 1, i, blend0, fw0, bw0, value[0], slope[0])
                    _taps(point & 2, j, blend1, fw1, bw1, value[1], slope[1])
                    _taps(point & 4, k, blend2, fw2, bw2, value[2], slope[2])
                    length = _gradient(near, value, slope, g)
                    if length > limit:
                        _shorten_point(c, i, j, k, length - limit, near, value, slope, g, taps)
