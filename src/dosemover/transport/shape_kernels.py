"""Loops that bound and average the derivatives of a spline; a kernel owns rows low to high."""

from __future__ import annotations

import numpy as np
from numba import njit

from dosemover.transport.spline_kernels import load_plane, load_row


@njit(cache=True, error_model="numpy", nogil=True)
def _jump(left, right, wide, n2, scale, out):
    """Raise out to scale |right - left| over a window of three along the row; wide is scratch."""
    for k in range(n2):
        wide[k + 1] = abs(right[k] - left[k])
    wide[0] = wide[1]
    wide[n2 + 1] = wide[n2]
    for k in range(n2):
        out[k] = max(out[k], scale * max(wide[k], max(wide[k + 1], wide[k + 2])))


@njit(cache=True, error_model="numpy", nogil=True)
def _upper_jumps(c, i, j, s0, s1, s2, ih0, ih1, ih2, X, L, R, J):
    """Bounds of the jumps of D2 w over the width at the upper faces of row (i, j): raises J[axis, k]."""
    n0, n1, n2 = c.shape
    for m in range(3):
        jj = min(max(j - 1 + m, 0), n1 - 1)
        if i < n0 - 1:
            for k in range(n2):
                L[k] = s0[i, 0] * c[max(i - 1, 0), jj, k] + s0[i, 1] * c[i, jj, k]
                L[k] += s0[i, 2] * c[i + 1, jj, k]
                R[k] = s0[i + 1, 0] * c[i, jj, k] + s0[i + 1, 1] * c[i + 1, jj, k]
                R[k] += s0[i + 1, 2] * c[min(i + 2, n0 - 1), jj, k]
            _jump(L, R, X, n2, max(ih0[i], ih0[i + 1]), J[0])
        ii = min(max(i - 1 + m, 0), n0 - 1)
        if j < n1 - 1:
            for k in range(n2):
                L[k] = s1[j, 0] * c[ii, max(j - 1, 0), k] + s1[j, 1] * c[ii, j, k]
                L[k] += s1[j, 2] * c[ii, j + 1, k]
                R[k] = s1[j + 1, 0] * c[ii, j, k] + s1[j + 1, 1] * c[ii, j + 1, k]
                R[k] += s1[j + 1, 2] * c[ii, min(j + 2, n1 - 1), k]
            _jump(L, R, X, n2, max(ih1[j], ih1[j + 1]), J[1])
        for m1 in range(3):
            row = c[ii, min(max(j - 1 + m1, 0), n1 - 1)]
            for k in range(n2):
                L[k] = s2[k, 0] * row[max(k - 1, 0)] + s2[k, 1] * row[k]
                L[k] += s2[k, 2] * row[min(k + 1, n2 - 1)]
            for k in range(n2 - 1):
                J[2, k] = max(J[2, k], max(ih2[k], ih2[k + 1]) * abs(L[k + 1] - L[k]))


@njit(cache=True, error_model="numpy", nogil=True)
def repeat_missing(Y, np0, np1, np2):
    """Fill the Bezier points along axes of one voxel, where the spline is constant."""
    for p in range(3):
        for q in range(3):
            for r in range(3):
                if p >= np0 or q >= np1 or r >= np2:
                    Y[p, q, r] = Y[min(p, np0 - 1), min(q, np1 - 1), min(r, np2 - 1)]


@njit(cache=True, error_model="numpy", nogil=True)
def shape_bounds(low, high, c, b0, b1, b2, s0, s1, s2, ih0, ih1, ih2, grad, hess, smooth, jump):
    """Bounds over each voxel from Bezier nets: |grad w|, |D2 w|, |D3 w| inside, jumps of D2 w over h.

    The jumps are those at the voxel's upper faces. b are Bezier tables, s tables of the second derivative of
    coefficients along an axis.
    """
    n0, n1, n2 = c.shape
    np0 = 3 if n0 > 1 else 1
    np1 = 3 if n1 > 1 else 1
    np2 = 3 if n2 > 1 else 1
    Z = np.zeros((3, n1, n2))
    X = np.zeros(n2 + 2)
    Y = np.zeros((3, 3, 3, n2))
    G = np.empty((3, n2))
    H = np.empty((6, n2))
    T = np.empty((7, n2))
    J = np.empty((3, n2))
    L = np.empty(n2)
    R = np.empty(n2)
    for i in range(low, high):
        load_plane(c, i, b0, np0, Z)
        for j in range(n1):
            load_row(Z, j, b1, b2, np0, np1, np2, X, Y)
            repeat_missing(Y, np0, np1, np2)
            G[:] = 0.0
            H[:] = 0.0
            T[:] = 0.0
            J[:] = 0.0
            for p in range(3):
                for q in range(3):
                    for s in range(2):
                        for k in range(n2):
                            G[0, k] = max(G[0, k], abs(Y[s + 1, p, q, k] - Y[s, p, q, k]))
                            G[1, k] = max(G[1, k], abs(Y[p, s + 1, q, k] - Y[p, s, q, k]))
                            G[2, k] = max(G[2, k], abs(Y[p, q, s + 1, k] - Y[p, q, s, k]))
                    for k in range(n2):
                        H[0, k] = max(H[0, k], abs(Y[0, p, q, k] - 2 * Y[1, p, q, k] + Y[2, p, q, k]))
                        H[1, k] = max(H[1, k], abs(Y[p, 0, q, k] - 2 * Y[p, 1, q, k] + Y[p, 2, q, k]))
                        H[2, k] = max(H[2, k], abs(Y[p, q, 0, k] - 2 * Y[p, q, 1, k] + Y[p, q, 2, k]))
            for p in range(3):
                for s in range(2):
                    for t in range(2):
                        for k in range(n2):
                            u = Y[s, t, p, k] - Y[s + 1, t, p, k] - Y[s, t + 1, p, k] + Y[s + 1, t + 1, p, k]
                            H[3, k] = max(H[3, k], abs(u))
                            u = Y[s, p, t, k] - Y[s + 1, p, t, k] - Y[s, p, t + 1, k] + Y[s + 1, p, t + 1, k]
                            H[4, k] = max(H[4, k], abs(u))
                            u = Y[p, s, t, k] - Y[p, s + 1, t, k] - Y[p, s, t + 1, k] + Y[p, s + 1, t + 1, k]
                            H[5, k] = max(H[5, k], abs(u))
                    for k in range(n2):
                        a = Y[0, s, p, k] - 2 * Y[1, s, p, k] + Y[2, s, p, k]
                        b = Y[0, s + 1, p, k] - 2 * Y[1, s + 1, p, k] + Y[2, s + 1, p, k]
                        T[0, k] = max(T[0, k], abs(b - a))
                        a = Y[0, p, s, k] - 2 * Y[1, p, s, k] + Y[2, p, s, k]
                        b = Y[0, p, s + 1, k] - 2 * Y[1, p, s + 1, k] + Y[2, p, s + 1, k]
                        T[1, k] = max(T[1, k], abs(b - a))
                        a = Y[s, 0, p, k] - 2 * Y[s, 1, p, k] + Y[s, 2, p, k]
                        b = Y[s + 1, 0, p, k] - 2 * Y[s + 1, 1, p, k] + Y[s + 1, 2, p, k]
                        T[2, k] = max(T[2, k], abs(b - a))
                        a = Y[p, 0, s, k] - 2 * Y[p, 1, s, k] + Y[p, 2, s, k]
                        b = Y[p, 0, s + 1, k] - 2 * Y[p, 1, s + 1, k] + Y[p, 2, s + 1, k]
                        T[3, k] = max(T[3, k], abs(b - a))
                        a = Y[s, p, 0, k] - 2 * Y[s, p, 1, k] + Y[s, p, 2, k]
                        b = Y[s + 1, p, 0, k] - 2 * Y[s + 1, p, 1, k] + Y[s + 1, p, 2, k]
                        T[4, k] = max(T[4, k], abs(b - a))
                        a = Y[p, s, 0, k] - 2 * Y[p, s, 1, k] + Y[p, s, 2, k]
                        b = Y[p, s + 1, 0, k] - 2 * Y[p, s + 1, 1, k] + Y[p, s + 1, 2, k]
                        T[5, k] = max(T[5, k], abs(b - a))
            for s in range(2):
                for t in range(2):
                    for k in range(n2):
                        u = Y[s, t, 0, k] - Y[s + 1, t, 0, k] - Y[s, t + 1, 0, k] + Y[s + 1, t + 1, 0, k]
                        v = Y[s, t, 1, k] - Y[s + 1, t, 1, k] - Y[s, t + 1, 1, k] + Y[s + 1, t + 1, 1, k]
                        w = Y[s, t, 2, k] - Y[s + 1, t, 2, k] - Y[s, t + 1, 2, k] + Y[s + 1, t + 1, 2, k]
                        T[6, k] = max(T[6, k], max(abs(v - u), abs(w - v)))
            _upper_jumps(c, i, j, s0, s1, s2, ih0, ih1, ih2, X, L, R, J)
            X[0] = 0.0
            X[n2 + 1] = 0.0
            up = 1.0 + 1e-6
            x = 2 * ih0[i]
            y = 2 * ih1[j]
            for k in range(n2):
                z = 2 * ih2[k]
                grad[i, j, k] = up * np.sqrt((x * G[0, k]) ** 2 + (y * G[1, k]) ** 2 + (z * G[2, k]) ** 2)
                hxx = 0.5 * x * x * H[0, k]
                hyy = 0.5 * y * y * H[1, k]
                hzz = 0.5 * z * z * H[2, k]
                hxy = x * y * H[3, k]
                hxz = x * z * H[4, k]
                hyz = y * z * H[5, k]
                rows = max(hxx + hxy + hxz, max(hxy + hyy + hyz, hxz + hyz + hzz))
                total = hxx * hxx + hyy * hyy + hzz * hzz + 2 * (hxy * hxy + hxz * hxz + hyz * hyz)
                hess[i, j, k] = up * min(rows, np.sqrt(total))
                t = (0.5 * x * x * y * T[0, k]) ** 2 + (0.5 * x * x * z * T[1, k]) ** 2
                t += (0.5 * y * y * x * T[2, k]) ** 2 + (0.5 * y * y * z * T[3, k]) ** 2
                t += (0.5 * z * z * x * T[4, k]) ** 2 + (0.5 * z * z * y * T[5, k]) ** 2
                t = 3 * t + 6 * (x * y * z * T[6, k]) ** 2
                smooth[i, j, k] = up * np.sqrt(t)
                jump[i, j, k] = up * max(J[0, k], max(J[1, k], J[2, k]))


@njit(cache=True, error_model="numpy", nogil=True)
def dilate(low, high, x, out):
    """Maximum over the 27 voxels around each."""
    n0, n1, n2 = x.shape
    row = np.empty(n2 + 2, np.float32)
    for i in range(low, high):
        for j in range(n1):
            for k in range(n2):
                row[k + 1] = x[i, j, k]
            for ii in range(max(i - 1, 0), min(i + 2, n0)):
                for jj in range(max(j - 1, 0), min(j + 2, n1)):
                    s = x[ii, jj]
                    for k in range(n2):
                        row[k + 1] = max(row[k + 1], s[k])
            row[0] = row[1]
            row[n2 + 1] = row[n2]
            for k in range(n2):
                out[i, j, k] = max(row[k], max(row[k + 1], row[k + 2]))


@njit(cache=True, error_model="numpy", nogil=True)
def products(Y, E):
    """Row sums over Legendre modes: w^2, then the mean products of gradient components in voxel units."""
    r12 = np.sqrt(12.0)
    r60 = np.sqrt(60.0)
    n2 = E.shape[1]
    E[:] = 0.0
    for p in range(3):
        for q in range(3):
            for r in range(3):
                lp = 12.0 * p if p < 2 else 60.0
                lq = 12.0 * q if q < 2 else 60.0
                lr = 12.0 * r if r < 2 else 60.0
                y = Y[p, q, r]
                for k in range(n2):
                    v = y[k] * y[k]
                    E[0, k] += v
                    E[1, k] += lp * v
                    E[2, k] += lq * v
                    E[3, k] += lr * v
    for p in range(2):
        for q in range(2):
            f = (r12 if p == 0 else r60) * (r12 if q == 0 else r60)
            for r in range(3):
                for k in range(n2):
                    E[4, k] += f * Y[p + 1, q, r, k] * Y[p, q + 1, r, k]
                    E[5, k] += f * Y[p + 1, r, q, k] * Y[p, r, q + 1, k]
                    E[6, k] += f * Y[r, p + 1, q, k] * Y[r, p, q + 1, k]


@njit(cache=True, error_model="numpy", nogil=True)
def second_moments(Y, M, V):
    """Means and variances over each voxel of the second derivatives (xx yy zz xy xz yz) in voxel units."""
    r12 = np.sqrt(12.0)
    r60 = np.sqrt(60.0)
    top = r12 * r60
    n2 = M.shape[1]
    V[:] = 0.0
    for k in range(n2):
        M[0, k] = top * Y[2, 0, 0, k]
        M[1, k] = top * Y[0, 2, 0, k]
        M[2, k] = top * Y[0, 0, 2, k]
        M[3, k] = 12.0 * Y[1, 1, 0, k]
        M[4, k] = 12.0 * Y[1, 0, 1, k]
        M[5, k] = 12.0 * Y[0, 1, 1, k]
    for p in range(3):
        for q in range(3):
            if p + q > 0:
                for k in range(n2):
                    V[0, k] += 720.0 * Y[2, p, q, k] ** 2
                    V[1, k] += 720.0 * Y[p, 2, q, k] ** 2
                    V[2, k] += 720.0 * Y[p, q, 2, k] ** 2
    for p in range(1, 3):
        for q in range(1, 3):
            f = (12.0 if p == 1 else 60.0) * (12.0 if q == 1 else 60.0)
            for r in range(3):
                if p + q + r > 2:
                    for k in range(n2):
                        V[3, k] += f * Y[p, q, r, k] ** 2
                        V[4, k] += f * Y[p, r, q, k] ** 2
                        V[5, k] += f * Y[r, p, q, k] ** 2


@njit(cache=True, error_model="numpy", nogil=True)
def spans(Y, lo, hi, up, down):
    """Ranges over the Bezier net: second differences (xx yy zz xy xz yz), rise and fall of first ones."""
    n2 = lo.shape[1]
    lo[:] = np.inf
    hi[:] = -np.inf
    up[:] = 0.0
    down[:] = 0.0
    for p in range(3):
        for q in range(3):
            for k in range(n2):
                v = Y[0, p, q, k] - 2 * Y[1, p, q, k] + Y[2, p, q, k]
                lo[0, k] = min(lo[0, k], v)
                hi[0, k] = max(hi[0, k], v)
                v = Y[p, 0, q, k] - 2 * Y[p, 1, q, k] + Y[p, 2, q, k]
                lo[1, k] = min(lo[1, k], v)
                hi[1, k] = max(hi[1, k], v)
                v = Y[p, q, 0, k] - 2 * Y[p, q, 1, k] + Y[p, q, 2, k]
                lo[2, k] = min(lo[2, k], v)
                hi[2, k] = max(hi[2, k], v)
            for s in range(2):
                for k in range(n2):
                    v = Y[s + 1, p, q, k] - Y[s, p, q, k]
                    up[0, k] = max(up[0, k], v)
                    down[0, k] = max(down[0, k], -v)
                    v = Y[p, s + 1, q, k] - Y[p, s, q, k]
                    up[1, k] = max(up[1, k], v)
                    down[1, k] = max(down[1, k], -v)
                    v = Y[p, q, s + 1, k] - Y[p, q, s, k]
                    up[2, k] = max(up[2, k], v)
                    down[2, k] = max(down[2, k], -v)
    for p in range(3):
        for s in range(2):
            for t in range(2):
                for k in range(n2):
                    v = Y[s, t, p, k] - Y[s + 1, t, p, k] - Y[s, t + 1, p, k] + Y[s + 1, t + 1, p, k]
                    lo[3, k] = min(lo[3, k], v)
                    hi[3, k] = max(hi[3, k], v)
                    v = Y[s, p, t, k] - Y[s + 1, p, t, k] - Y[s, p, t + 1, k] + Y[s + 1, p, t + 1, k]
                    lo[4, k] = min(lo[4, k], v)
                    hi[4, k] = max(hi[4, k], v)
                    v = Y[p, s, t, k] - Y[p, s + 1, t, k] - Y[p, s, t + 1, k] + Y[p, s + 1, t + 1, k]
                    lo[5, k] = min(lo[5, k], v)
                    hi[5, k] = max(hi[5, k], v)
