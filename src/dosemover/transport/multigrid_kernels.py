"""Loops of the multigrid preconditioner and of conjugate gradients; every kernel owns rows low to high."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, error_model="numpy", nogil=True)
def dot_planes(low, high, x, y, partial):
    """Inner product of each plane: partial[i] = sum of x[i] y[i]."""
    _, n1, n2 = x.shape
    for i in range(low, high):
        total = 0.0
        for j in range(n1):
            xr = x[i, j]
            yr = y[i, j]
            row = 0.0
            for k in range(n2):
                row += xr[k] * yr[k]
            total += row
        partial[i] = total


@njit(cache=True, error_model="numpy", nogil=True)
def step(low, high, alpha, p, q, x, r):
    """Do x += alpha p, r -= alpha q."""
    _, n1, n2 = x.shape
    for i in range(low, high):
        for j in range(n1):
            for k in range(n2):
                x[i, j, k] += alpha * p[i, j, k]
                r[i, j, k] -= alpha * q[i, j, k]


@njit(cache=True, error_model="numpy", nogil=True)
def direct(low, high, beta, z, p):
    """Do p = z + beta p."""
    _, n1, n2 = p.shape
    for i in range(low, high):
        for j in range(n1):
            for k in range(n2):
                p[i, j, k] = z[i, j, k] + beta * p[i, j, k]


@njit(cache=True, error_model="numpy", nogil=True)
def narrow(low, high, factor, r, out):
    """Write factor r in single precision."""
    _, n1, n2 = r.shape
    for i in range(low, high):
        for j in range(n1):
            for k in range(n2):
                out[i, j, k] = np.float32(factor * r[i, j, k])


@njit(cache=True, error_model="numpy", nogil=True)
def widen(low, high, factor, z, out):
    """Write factor z in double precision."""
    _, n1, n2 = z.shape
    for i in range(low, high):
        for j in range(n1):
            for k in range(n2):
                out[i, j, k] = factor * np.float64(z[i, j, k])


@njit(cache=True, error_model="numpy", nogil=True)
def start(low, high, c1, b, inv, p, d):
    """First Chebyshev step from zero: p = d = c1 b / diagonal."""
    _, n1, n2 = b.shape
    for i in range(low, high):
        for j in range(n1):
            for k in range(n2):
                t = c1 * b[i, j, k] * inv[i, j, k]
                d[i, j, k] = t
                p[i, j, k] = t


@njit(cache=True, error_model="numpy", nogil=True)
def chebyshev(low, high, c0, c1, p, b, w0, w1, w2, dg, inv, d, q):
    """Do d = c0 d + c1 (b - A p) / diagonal, q = p + d, for A = diagonal - face weights."""
    n0, n1, n2 = p.shape
    zero = np.zeros(n2, np.float32)
    for i in range(low, high):
        for j in range(n1):
            P = p[i, j]
            up = p[min(i + 1, n0 - 1), j]
            down = p[max(i - 1, 0), j]
            front = p[i, min(j + 1, n1 - 1)]
            back = p[i, max(j - 1, 0)]
            wu = w0[i, j]
            wd = w0[i - 1, j] if i > 0 else zero
            wf = w1[i, j]
            wb = w1[i, j - 1] if j > 0 else zero
            wr = w2[i, j]
            B = b[i, j]
            G = dg[i, j]
            V = inv[i, j]
            D = d[i, j]
            Q = q[i, j]
            for k in range(n2):
                r = B[k] - G[k] * P[k] + wu[k] * up[k] + wd[k] * down[k] + wf[k] * front[k] + wb[k] * back[k]
                Q[k] = r
            for k in range(1, n2):
                Q[k] += wr[k - 1] * P[k - 1]
            for k in range(n2 - 1):
                Q[k] += wr[k] * P[k + 1]
            for k in range(n2):
                t = c0 * D[k] + c1 * Q[k] * V[k]
                D[k] = t
                Q[k] = P[k] + t


@njit(cache=True, error_model="numpy", nogil=True)
def restrict(low, high, p, b, w0, w1, w2, dg, f0, f1, f2, out):
    """Coarse rows low to high: sums of b - A p over blocks of f0 x f1 x f2 voxels."""
    n0, n1, n2 = p.shape
    m1, m2 = out.shape[1:]
    zero = np.zeros(n2, np.float32)
    Q = np.empty(n2, np.float32)
    for ci in range(low, high):
        for J in range(m1):
            for K in range(m2):
                out[ci, J, K] = 0.0
        for i in range(ci * f0, min(ci * f0 + f0, n0)):
            for j in range(n1):
                P = p[i, j]
                up = p[min(i + 1, n0 - 1), j]
                down = p[max(i - 1, 0), j]
                front = p[i, min(j + 1, n1 - 1)]
                back = p[i, max(j - 1, 0)]
                wu = w0[i, j]
                wd = w0[i - 1, j] if i > 0 else zero
                wf = w1[i, j]
                wb = w1[i, j - 1] if j > 0 else zero
                wr = w2[i, j]
                B = b[i, j]
                G = dg[i, j]
                for k in range(n2):
                    Q[k] = (
                        B[k]
                        - G[k] * P[k]
                        + wu[k] * up[k]
                        + wd[k] * down[k]
                        + wf[k] * front[k]
                        + wb[k] * back[k]
                    )
                for k in range(1, n2):
                    Q[k] += wr[k - 1] * P[k - 1]
                for k in range(n2 - 1):
                    Q[k] += wr[k] * P[k + 1]
                row = out[ci, j // f1]
                for k in range(n2):
                    row[k // f2] += Q[k]


@njit(cache=True, error_model="numpy", nogil=True)
def prolong(low, high, coarse, f0, f1, f2, p):
    """Add the block values of the coarse correction."""
    n1, n2 = p.shape[1:]
    for i in range(low, high):
        for j in range(n1):
            C = coarse[i // f0, j // f1]
            P = p[i, j]
            for k in range(n2):
                P[k] += C[k // f2]


@njit(cache=True, error_model="numpy", nogil=True)
def _conductance(s, t, u, v, smooth):
    """Conductance of a face of area 1 between voxels of mobility s, t and width u, v.

    Two half voxels in series; for smooth potentials, whose slope cannot jump, side by side.
    """
    if smooth:
        return 2 * (s * u + t * v) / (u + v) ** 2
    return 2 / (u / s + v / t)


@njit(cache=True, error_model="numpy", nogil=True)
def faces(low, high, theta, v0, v1, v2, smooth, w0, w1, w2):
    """Seven-point weights, stored on upper faces."""
    n0, n1, n2 = theta.shape
    for i in range(low, high):
        for j in range(n1):
            for k in range(n2):
                t = theta[i, j, k]
                w0[i, j, k] = 0.0
                w1[i, j, k] = 0.0
                w2[i, j, k] = 0.0
                if i < n0 - 1:
                    w0[i, j, k] = (
                        v1[j] * v2[k] * _conductance(t, theta[i + 1, j, k], v0[i], v0[i + 1], smooth)
                    )
                if j < n1 - 1:
                    w1[i, j, k] = (
                        v0[i] * v2[k] * _conductance(t, theta[i, j + 1, k], v1[j], v1[j + 1], smooth)
                    )
                if k < n2 - 1:
                    w2[i, j, k] = (
                        v0[i] * v1[j] * _conductance(t, theta[i, j, k + 1], v2[k], v2[k + 1], smooth)
                    )


@njit(cache=True, error_model="numpy", nogil=True)
def coarse_faces(low, high, w, axis, ratio, f0, f1, f2, out):
    """Coarse face weights: fine weights of the faces between blocks, times the ratio of distances."""
    n0, n1, n2 = w.shape
    m1, m2 = out.shape[1:]
    for ci in range(low, high):
        for J in range(m1):
            for K in range(m2):
                out[ci, J, K] = 0.0
        for i in range(ci * f0, min(ci * f0 + f0, n0)):
            if axis == 0 and (i == n0 - 1 or (i + 1) // f0 == ci):
                continue
            for j in range(n1):
                if axis == 1 and (j == n1 - 1 or (j + 1) // f1 == j // f1):
                    continue
                for k in range(n2):
                    if axis == 2 and (k == n2 - 1 or (k + 1) // f2 == k // f2):
                        continue
                    K = k // f2
                    at = ci if axis == 0 else (j // f1 if axis == 1 else K)
                    out[ci, j // f1, K] += w[i, j, k] * ratio[at]


@njit(cache=True, error_model="numpy", nogil=True)
def coarse_sum(low, high, s, f0, f1, f2, out):
    """Sums over blocks."""
    n0, n1, n2 = s.shape
    m1, m2 = out.shape[1:]
    for ci in range(low, high):
        for J in range(m1):
            for K in range(m2):
                out[ci, J, K] = 0.0
        for i in range(ci * f0, min(ci * f0 + f0, n0)):
            for j in range(n1):
                for k in range(n2):
                    out[ci, j // f1, k // f2] += s[i, j, k]


@njit(cache=True, error_model="numpy", nogil=True)
def diagonal(low, high, w0, w1, w2, s, dg, inv):
    """Diagonal of the seven-point matrix and its inverse."""
    _, n1, n2 = s.shape
    for i in range(low, high):
        for j in range(n1):
            for k in range(n2):
                t = s[i, j, k] + w0[i, j, k] + w1[i, j, k] + w2[i, j, k]
                if i > 0:
                    t += w0[i - 1, j, k]
                if j > 0:
                    t += w1[i, j - 1, k]
                if k > 0:
                    t += w2[i, j, k - 1]
                dg[i, j, k] = t
                inv[i, j, k] = 1.0 / t if t > 0 else 0.0


@njit(cache=True, error_model="numpy", nogil=True)
def sharpen_planes(low, high, g1, g2, r):
    """Solve the tridiagonal filter along axes 1 and 2 in place; g holds the elimination factors."""
    _, n1, n2 = r.shape
    for i in range(low, high):
        if n1 > 1:
            for j in range(1, n1):
                for k in range(n2):
                    r[i, j, k] -= g1[0, j] * r[i, j - 1, k]
            for k in range(n2):
                r[i, n1 - 1, k] *= g1[1, n1 - 1]
            for j in range(n1 - 2, -1, -1):
                for k in range(n2):
                    r[i, j, k] = (r[i, j, k] - g1[2, 0] * r[i, j + 1, k]) * g1[1, j]
        if n2 > 1:
            for j in range(n1):
                R = r[i, j]
                for k in range(1, n2):
                    R[k] -= g2[0, k] * R[k - 1]
                R[n2 - 1] *= g2[1, n2 - 1]
                for k in range(n2 - 2, -1, -1):
                    R[k] = (R[k] - g2[2, 0] * R[k + 1]) * g2[1, k]


@njit(cache=True, error_model="numpy", nogil=True)
def sharpen_columns(low, high, g0, r):
    """Solve the tridiagonal filter along axis 0 in place, for columns low to high of axis 1."""
    n0, _, n2 = r.shape
    for i in range(1, n0):
        for j in range(low, high):
            for k in range(n2):
                r[i, j, k] -= g0[0, i] * r[i - 1, j, k]
    for j in range(low, high):
        for k in range(n2):
            r[n0 - 1, j, k] *= g0[1, n0 - 1]
    for i in range(n0 - 2, -1, -1):
        for j in range(low, high):
            for k in range(n2):
                r[i, j, k] = (r[i, j, k] - g0[2, 0] * r[i + 1, j, k]) * g0[1, i]
