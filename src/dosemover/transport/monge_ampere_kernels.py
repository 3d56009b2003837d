"""Loops that push two densities half-way towards each other; every kernel owns rows low to high."""

from __future__ import annotations

import numpy as np
from numba import njit

from dosemover.transport.spline_kernels import locate


@njit(cache=True, error_model="numpy", nogil=True)
def _bracket(x, start, edges, centers, out):
    """Lower voxel and weight of linear interpolation between centres at x, constant beyond the outer ones."""
    n = centers.size
    k = locate(x, start, edges)
    if x < centers[k] and k > 0:
        k -= 1
    if k >= n - 1:
        out[0] = max(n - 2, 0)
        out[1] = 1.0 if n > 1 else 0.0
        return
    out[0] = k
    out[1] = min(max((x - centers[k]) / (centers[k + 1] - centers[k]), 0.0), 1.0)


@njit(cache=True, error_model="numpy", nogil=True)
def _linear(a, p, q, r):
    """Trilinear interpolation at three brackets (voxel, weight)."""
    n0, n1, n2 = a.shape
    i = int(p[0])
    j = int(q[0])
    k = int(r[0])
    i1 = min(i + 1, n0 - 1)
    j1 = min(j + 1, n1 - 1)
    k1 = min(k + 1, n2 - 1)
    f = r[1]
    u = (a[i, j, k] * (1 - f) + a[i, j, k1] * f) * (1 - q[1])
    u += (a[i, j1, k] * (1 - f) + a[i, j1, k1] * f) * q[1]
    v = (a[i1, j, k] * (1 - f) + a[i1, j, k1] * f) * (1 - q[1])
    v += (a[i1, j1, k] * (1 - f) + a[i1, j1, k1] * f) * q[1]
    return u * (1 - p[1]) + v * p[1]


@njit(cache=True, error_model="numpy", nogil=True)
def _determinant(xx, yy, zz, xy, xz, yz, s):
    """det(1 + s H / 2), not below 0.02."""
    a = 1 + 0.5 * s * xx
    b = 1 + 0.5 * s * yy
    c = 1 + 0.5 * s * zz
    d = 0.5 * s * xy
    e = 0.5 * s * xz
    f = 0.5 * s * yz
    return max(a * (b * c - f * f) - d * (d * c - f * e) + e * (d * f - b * e), 0.02)


@njit(cache=True, error_model="numpy", nogil=True)
def push_to_middle(low, high, w, a, b, e0, e1, e2, x0, x1, x2, t0, t1, t2, K, ra, rb):
    """Densities of a and b at the midpoints z of their paths: a(z + grad w/2) det(1 + D2 w/2), b likewise.

    Both carry the mass factor exp(-+2 w / K - |grad w|^2 / 2K). t[i, p, m] gives value, slope and second
    derivative (p = 0, 1, 2) at a voxel's middle.
    """
    n0, n1, n2 = w.shape
    p = np.empty(2)
    q = np.empty(2)
    r = np.empty(2)
    line = np.empty((3, 3, 3))
    sheet = np.empty((3, 3, 3))
    for i in range(low, high):
        for j in range(n1):
            for k in range(n2):
                for u in range(3):
                    ii = min(max(i - 1 + u, 0), n0 - 1)
                    for v in range(3):
                        row = w[ii, min(max(j - 1 + v, 0), n1 - 1)]
                        x = row[max(k - 1, 0)]
                        y = row[k]
                        z = row[min(k + 1, n2 - 1)]
                        for d in range(3):
                            line[u, v, d] = t2[k, d, 0] * x + t2[k, d, 1] * y + t2[k, d, 2] * z
                for u in range(3):
                    for d in range(3):
                        for m in range(3 - d):
                            sheet[u, m, d] = (
                                t1[j, m, 0] * line[u, 0, d]
                                + t1[j, m, 1] * line[u, 1, d]
                                + t1[j, m, 2] * line[u, 2, d]
                            )
                f = t0[i, 0]
                g = t0[i, 1]
                h = t0[i, 2]
                value = f[0] * sheet[0, 0, 0] + f[1] * sheet[1, 0, 0] + f[2] * sheet[2, 0, 0]
                s0 = g[0] * sheet[0, 0, 0] + g[1] * sheet[1, 0, 0] + g[2] * sheet[2, 0, 0]
                s1 = f[0] * sheet[0, 1, 0] + f[1] * sheet[1, 1, 0] + f[2] * sheet[2, 1, 0]
                s2 = f[0] * sheet[0, 0, 1] + f[1] * sheet[1, 0, 1] + f[2] * sheet[2, 0, 1]
                h00 = h[0] * sheet[0, 0, 0] + h[1] * sheet[1, 0, 0] + h[2] * sheet[2, 0, 0]
                h11 = f[0] * sheet[0, 2, 0] + f[1] * sheet[1, 2, 0] + f[2] * sheet[2, 2, 0]
                h22 = f[0] * sheet[0, 0, 2] + f[1] * sheet[1, 0, 2] + f[2] * sheet[2, 0, 2]
                h01 = g[0] * sheet[0, 1, 0] + g[1] * sheet[1, 1, 0] + g[2] * sheet[2, 1, 0]
                h02 = g[0] * sheet[0, 0, 1] + g[1] * sheet[1, 0, 1] + g[2] * sheet[2, 0, 1]
                h12 = f[0] * sheet[0, 1, 1] + f[1] * sheet[1, 1, 1] + f[2] * sheet[2, 1, 1]
                fade = np.exp(-(s0 * s0 + s1 * s1 + s2 * s2) / (2 * K))
                _bracket(x0[i] + 0.5 * s0, i, e0, x0, p)
                _bracket(x1[j] + 0.5 * s1, j, e1, x1, q)
                _bracket(x2[k] + 0.5 * s2, k, e2, x2, r)
                det = _determinant(h00, h11, h22, h01, h02, h12, 1.0)
                ra[i, j, k] = _linear(a, p, q, r) * det * fade * np.exp(-2 * value / K)
                _bracket(x0[i] - 0.5 * s0, i, e0, x0, p)
                _bracket(x1[j] - 0.5 * s1, j, e1, x1, q)
                _bracket(x2[k] - 0.5 * s2, k, e2, x2, r)
                det = _determinant(h00, h11, h22, h01, h02, h12, -1.0)
                rb[i, j, k] = _linear(b, p, q, r) * det * fade * np.exp(2 * value / K)
