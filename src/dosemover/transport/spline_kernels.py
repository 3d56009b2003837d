"""Loops over quadratic B-splines with knots on the voxel faces; every kernel owns rows low to high.

A table t[i, p, m] gives functional p of the spline on voxel i from coefficients i - 1 + m. Along the last
axis tables are stored t[p, m, k], so that rows vectorise. Weights that would reach outside are zero.
"""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, error_model="numpy", nogil=True)
def load_plane(c, i, t0, np0, Z):
    """Functionals along axis 0: Z[p] = sum over m of t0[i, p, m] c[i - 1 + m]."""
    n0, n1, n2 = c.shape
    A = c[max(i - 1, 0)]
    B = c[i]
    C = c[min(i + 1, n0 - 1)]
    for p in range(np0):
        x = t0[i, p, 0]
        y = t0[i, p, 1]
        z = t0[i, p, 2]
        for j in range(n1):
            for k in range(n2):
                Z[p, j, k] = x * A[j, k] + y * B[j, k] + z * C[j, k]


@njit(cache=True, error_model="numpy", nogil=True)
def load_row(Z, j, t1, t2, np0, np1, np2, X, Y):
    """Functionals of row j along axes 1 and 2: Y[p, q, r, k]; X is a scratch row with two margins."""
    n1, n2 = Z.shape[1:]
    jm = max(j - 1, 0)
    jp = min(j + 1, n1 - 1)
    for p in range(np0):
        A = Z[p, jm]
        B = Z[p, j]
        C = Z[p, jp]
        for q in range(np1):
            x = t1[j, q, 0]
            y = t1[j, q, 1]
            z = t1[j, q, 2]
            for k in range(n2):
                X[k + 1] = x * A[k] + y * B[k] + z * C[k]
            for r in range(np2):
                u = t2[r, 0]
                v = t2[r, 1]
                w = t2[r, 2]
                out = Y[p, q, r]
                for k in range(n2):
                    out[k] = u[k] * X[k] + v[k] * X[k + 1] + w[k] * X[k + 2]


@njit(cache=True, error_model="numpy", nogil=True)
def _row_modes(X, T, U, t2, l2, base, np2, Y, S, out):
    """Modes of a row along axis 2, weighted with T times their rates + U, given back to its coefficients.

    Y and S are scratch; the unused modes of Y must be zero.
    """
    n2 = T.size
    for r in range(np2):
        u = t2[r, 0]
        v = t2[r, 1]
        w = t2[r, 2]
        rate = l2[r]
        y = Y[r]
        for k in range(n2):
            y[k] = (u[k] * X[k] + v[k] * X[k + 1] + w[k] * X[k + 2]) * (T[k] * (base + rate[k]) + U[k])
    y = Y[0]
    y1 = Y[1]
    y2 = Y[2]
    for m in range(3):
        s = S[m]
        u = t2[0, m]
        v = t2[1, m]
        w = t2[2, m]
        for k in range(n2):
            s[k + 1] = u[k] * y[k] + v[k] * y1[k] + w[k] * y2[k]
    for k in range(n2):
        out[k] = S[0, k + 2] + S[1, k + 1] + S[2, k]


@njit(cache=True, error_model="numpy", nogil=True)
def spline_apply(low, high, c, tv, sv, t0, t1, t2, l0, l1, l2, out):
    """Sum over voxels of the means of tv grad w . grad B + sv w B, B the basis functions."""
    n0, n1, n2 = c.shape
    np0 = 3 if n0 > 1 else 1
    np1 = 3 if n1 > 1 else 1
    np2 = 3 if n2 > 1 else 1
    Z = np.empty((np0, n1, n2))
    W = np.empty((np0, n1, n2))
    X = np.zeros(n2 + 2)
    Y = np.zeros((3, n2))
    S = np.zeros((3, n2 + 2))
    V = np.zeros((3, n2))
    for i in range(low, high):
        out[i] = 0.0
    for i in range(max(low - 1, 0), min(high + 1, n0)):
        load_plane(c, i, t0, np0, Z)
        W[:] = 0.0
        for j in range(n1):
            for p in range(np0):
                A = Z[p, max(j - 1, 0)]
                B = Z[p, j]
                C = Z[p, min(j + 1, n1 - 1)]
                for q in range(np1):
                    x = t1[j, q, 0]
                    y = t1[j, q, 1]
                    z = t1[j, q, 2]
                    for k in range(n2):
                        X[k + 1] = x * A[k] + y * B[k] + z * C[k]
                    _row_modes(X, tv[i, j], sv[i, j], t2, l2, l0[i, p] + l1[j, q], np2, Y, S, V[q])
                for m in range(3):
                    jj = j - 1 + m
                    if 0 <= jj < n1:
                        x = t1[j, 0, m]
                        y = t1[j, 1, m] if np1 > 1 else 0.0
                        z = t1[j, 2, m] if np1 > 1 else 0.0
                        w = W[p, jj]
                        for k in range(n2):
                            w[k] = w[k] + x * V[0, k] + y * V[1, k] + z * V[2, k]
        for m in range(3):
            ii = i - 1 + m
            if low <= ii < high:
                for p in range(np0):
                    f = t0[i, p, m]
                    for j in range(n1):
                        for k in range(n2):
                            out[ii, j, k] += f * W[p, j, k]


@njit(cache=True, error_model="numpy", nogil=True)
def spline_voxels(low, high, c, t0, t1, t2, l0, l1, l2, mean, slope, square):
    """Voxel means of w, |grad w|^2 and w^2."""
    n0, n1, n2 = c.shape
    np0 = 3 if n0 > 1 else 1
    np1 = 3 if n1 > 1 else 1
    np2 = 3 if n2 > 1 else 1
    Z = np.empty((np0, n1, n2))
    X = np.zeros(n2 + 2)
    Y = np.empty((np0, np1, np2, n2))
    for i in range(low, high):
        load_plane(c, i, t0, np0, Z)
        for j in range(n1):
            load_row(Z, j, t1, t2, np0, np1, np2, X, Y)
            M = mean[i, j]
            E = slope[i, j]
            Q = square[i, j]
            for k in range(n2):
                M[k] = Y[0, 0, 0, k]
                E[k] = 0.0
                Q[k] = 0.0
            for p in range(np0):
                for q in range(np1):
                    base = l0[i, p] + l1[j, q]
                    for r in range(np2):
                        y = Y[p, q, r]
                        rate = l2[r]
                        for k in range(n2):
                            v = y[k] * y[k]
                            Q[k] += v
                            E[k] += v * (base + rate[k])


@njit(cache=True, error_model="numpy", nogil=True)
def three_taps(low, high, x, a0, a1, a2, out):
    """Separable filter: out[i] = sum over m of a[i, m] x[i - 1 + m] along every axis."""
    n0, n1, n2 = x.shape
    P = np.empty((n1, n2))
    R = np.zeros(n2 + 2)
    for i in range(low, high):
        A = x[max(i - 1, 0)]
        B = x[i]
        C = x[min(i + 1, n0 - 1)]
        for j in range(n1):
            for k in range(n2):
                P[j, k] = a0[i, 0] * A[j, k] + a0[i, 1] * B[j, k] + a0[i, 2] * C[j, k]
        for j in range(n1):
            jm = max(j - 1, 0)
            jp = min(j + 1, n1 - 1)
            for k in range(n2):
                R[k + 1] = a1[j, 0] * P[jm, k] + a1[j, 1] * P[j, k] + a1[j, 2] * P[jp, k]
            for k in range(n2):
                out[i, j, k] = a2[0, k] * R[k] + a2[1, k] * R[k + 1] + a2[2, k] * R[k + 2]


@njit(cache=True, error_model="numpy", nogil=True)
def split_axis(low, high, c, alpha, beta, out):
    """Insert a knot in the middle of every voxel along axis 1 of a (n, m, q) array: same spline."""
    _, m, q = c.shape
    for i in range(low, high):
        for j in range(m):
            jm = max(j - 1, 0)
            jp = min(j + 1, m - 1)
            u = 0.5 * alpha[j]
            v = 0.5 * beta[j]
            for k in range(q):
                x = c[i, j, k]
                out[i, 2 * j, k] = x + u * (c[i, jm, k] - x)
                out[i, 2 * j + 1, k] = x + v * (c[i, jp, k] - x)


@njit(cache=True, error_model="numpy", nogil=True)
def locate(x, start, edges):
    """Voxel that holds x, walking from voxel ``start``; clamped to the axis."""
    n = edges.size - 1
    k = start
    while k > 0 and x < edges[k]:
        k -= 1
    while k < n - 1 and x >= edges[k + 1]:
        k += 1
    return k


@njit(cache=True, error_model="numpy", nogil=True)
def basis(x, k, edges, alpha, beta, value, slope):
    """Values and slopes at x of the three basis functions of voxel k along one axis."""
    h = edges[k + 1] - edges[k]
    s = min(max((x - edges[k]) / h, 0.0), 1.0)
    a = alpha[k]
    b = beta[k]
    value[0] = a * (1 - s) * (1 - s)
    value[2] = b * s * s
    value[1] = 1.0 - value[0] - value[2]
    slope[0] = -2 * a * (1 - s) / h
    slope[2] = 2 * b * s / h
    slope[1] = -slope[0] - slope[2]


@njit(cache=True, error_model="numpy", nogil=True)
def midpoints(low, high, c, e0, e1, e2, x0, x1, x2, al0, be0, al1, be1, al2, be2, iterations, out):
    """Solve z = x + grad u(z) / 2 for each voxel centre x: out = (u, grad u) at z in order 0, 1, 2.

    Where the iteration leaves the box, z stays on it.
    """
    n0, n1, n2 = c.shape
    f0 = np.empty(3)
    f1 = np.empty(3)
    f2 = np.empty(3)
    d0 = np.empty(3)
    d1 = np.empty(3)
    d2 = np.empty(3)
    for i in range(low, high):
        for j in range(n1):
            for k in range(n2):
                g0 = 0.0
                g1 = 0.0
                g2 = 0.0
                u = 0.0
                for _ in range(iterations):
                    z0 = x0[i] + 0.5 * g0
                    z1 = x1[j] + 0.5 * g1
                    z2 = x2[k] + 0.5 * g2
                    i0 = locate(z0, i, e0)
                    j0 = locate(z1, j, e1)
                    k0 = locate(z2, k, e2)
                    basis(z0, i0, e0, al0, be0, f0, d0)
                    basis(z1, j0, e1, al1, be1, f1, d1)
                    basis(z2, k0, e2, al2, be2, f2, d2)
                    u = 0.0
                    s0 = 0.0
                    s1 = 0.0
                    s2 = 0.0
                    for a in range(3):
                        ii = min(max(i0 - 1 + a, 0), n0 - 1)
                        for b in range(3):
                            jj = min(max(j0 - 1 + b, 0), n1 - 1)
                            v = 0.0
                            w = 0.0
                            for m in range(3):
                                y = c[ii, jj, min(max(k0 - 1 + m, 0), n2 - 1)]
                                v += f2[m] * y
                                w += d2[m] * y
                            u += f0[a] * f1[b] * v
                            s0 += d0[a] * f1[b] * v
                            s1 += f0[a] * d1[b] * v
                            s2 += f0[a] * f1[b] * w
                    change = abs(s0 - g0) + abs(s1 - g1) + abs(s2 - g2)
                    g0 = s0
                    g1 = s1
                    g2 = s2
                    if change < 2e-4:
                        break
                out[0, i, j, k] = u
                out[1, i, j, k] = g0
                out[2, i, j, k] = g1
                out[3, i, j, k] = g2


@njit(cache=True, error_model="numpy", nogil=True)
def moved_difference(low, high, v, a, b, e0, e1, e2, x0, x1, x2, out):
    """Write b(x + v) - a(x), b trilinear between voxel centres and constant beyond the outer ones."""
    n0, n1, n2 = a.shape
    for i in range(low, high):
        for j in range(n1):
            for k in range(n2):
                y0 = x0[i] + v[2, i, j, k]
                y1 = x1[j] + v[1, i, j, k]
                y2 = x2[k] + v[0, i, j, k]
                i0 = locate(y0, i, e0)
                j0 = locate(y1, j, e1)
                k0 = locate(y2, k, e2)
                if y0 < x0[i0] and i0 > 0:
                    i0 -= 1
                if y1 < x1[j0] and j0 > 0:
                    j0 -= 1
                if y2 < x2[k0] and k0 > 0:
                    k0 -= 1
                i1 = min(i0 + 1, n0 - 1)
                j1 = min(j0 + 1, n1 - 1)
                k1 = min(k0 + 1, n2 - 1)
                f = min(max((y0 - x0[i0]) / (x0[i1] - x0[i0]), 0.0), 1.0) if i1 > i0 else 0.0
                g = min(max((y1 - x1[j0]) / (x1[j1] - x1[j0]), 0.0), 1.0) if j1 > j0 else 0.0
                h = min(max((y2 - x2[k0]) / (x2[k1] - x2[k0]), 0.0), 1.0) if k1 > k0 else 0.0
                p = (b[i0, j0, k0] * (1 - h) + b[i0, j0, k1] * h) * (1 - g)
                p += (b[i0, j1, k0] * (1 - h) + b[i0, j1, k1] * h) * g
                q = (b[i1, j0, k0] * (1 - h) + b[i1, j0, k1] * h) * (1 - g)
                q += (b[i1, j1, k0] * (1 - h) + b[i1, j1, k1] * h) * g
                out[i, j, k] = p * (1 - f) + q * f - a[i, j, k]
