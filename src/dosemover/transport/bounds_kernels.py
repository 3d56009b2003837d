"""Loops of the certified bounds; every kernel owns rows low to high and adds into one number a plane."""

from __future__ import annotations

import numpy as np
from numba import njit

from dosemover.transport.spline_kernels import load_plane, load_row


@njit(cache=True, error_model="numpy", nogil=True)
def inverse_log_mean(low, high, a, b, out):
    """1 / logarithmic mean of a and b; -1 where one of them is 0."""
    _, n1, n2 = a.shape
    for i in range(low, high):
        for j in range(n1):
            for k in range(n2):
                x = a[i, j, k]
                y = b[i, j, k]
                if x <= 0 or y <= 0:
                    out[i, j, k] = -1.0
                    continue
                s = x + y
                t = (y - x) / s
                t2 = t * t
                if t2 < 1e-3:
                    out[i, j, k] = 2 / s * (1 + t2 * (1 / 3 + t2 * (1 / 5 + t2 * (1 / 7 + t2 / 9))))
                else:
                    out[i, j, k] = np.log(y / x) / (y - x)


@njit(cache=True, error_model="numpy", nogil=True)
def flux_planes(low, high, u, inv, v0, v1, v2, screen, out):
    """Write screen V u / inv - (outflow along axes 1 and 2) of the flux that u drives; inv < 0 blocks."""
    _, n1, n2 = u.shape
    cr = np.empty(n2)
    mr = np.empty(n2)
    C = np.zeros((n1, n2))
    M = np.zeros((n1, n2))
    for i in range(low, high):
        for j in range(n1):
            U = u[i, j]
            A = inv[i, j]
            out_row = out[i, j]
            area = v0[i] * v1[j]
            for k in range(n2):
                out_row[k] = screen * area * v2[k] * U[k] / A[k] if A[k] > 0 else 0.0
            c = 0.0
            m = 0.0
            for k in range(n2 - 1):
                p = A[k] * v2[k]
                q = A[k + 1] * v2[k + 1]
                if p <= 0 or q <= 0:
                    c = 0.0
                    m = 0.0
                else:
                    e = 1 / ((p + q) / 3 - p / 6 * c)
                    m = (U[k + 1] - U[k] - p / 6 * m) * e
                    c = q / 6 * e
                cr[k] = c
                mr[k] = m
            m = 0.0
            for k in range(n2 - 2, -1, -1):
                m = mr[k] - cr[k] * m
                out_row[k] -= area * m
                out_row[k + 1] += area * m
        for j in range(n1 - 1):
            U = u[i, j]
            U1 = u[i, j + 1]
            A = inv[i, j]
            A1 = inv[i, j + 1]
            jm = max(j - 1, 0)
            for k in range(n2):
                p = A[k] * v1[j]
                q = A1[k] * v1[j + 1]
                cm = C[jm, k] if j > 0 else 0.0
                mm = M[jm, k] if j > 0 else 0.0
                e = 1 / ((p + q) / 3 - p / 6 * cm)
                free = p > 0 and q > 0
                C[j, k] = q / 6 * e if free else 0.0
                M[j, k] = (U1[k] - U[k] - p / 6 * mm) * e if free else 0.0
        for j in range(n1 - 2, -1, -1):
            out_row = out[i, j]
            next_row = out[i, j + 1]
            for k in range(n2):
                if j < n1 - 2:
                    M[j, k] -= C[j, k] * M[j + 1, k]
                f = v0[i] * v2[k] * M[j, k]
                out_row[k] -= f
                next_row[k] += f


@njit(cache=True, error_model="numpy", nogil=True)
def flux_columns(low, high, u, inv, v0, v1, v2, out):
    """Subtract from out the outflow along axis 0, for columns low to high of axis 1."""
    n0, _, n2 = u.shape
    C = np.zeros((n0, n2))
    M = np.zeros((n0, n2))
    for j in range(low, high):
        for i in range(n0 - 1):
            U = u[i, j]
            U1 = u[i + 1, j]
            A = inv[i, j]
            A1 = inv[i + 1, j]
            im = max(i - 1, 0)
            for k in range(n2):
                p = A[k] * v0[i]
                q = A1[k] * v0[i + 1]
                cm = C[im, k] if i > 0 else 0.0
                mm = M[im, k] if i > 0 else 0.0
                e = 1 / ((p + q) / 3 - p / 6 * cm)
                free = p > 0 and q > 0
                C[i, k] = q / 6 * e if free else 0.0
                M[i, k] = (U1[k] - U[k] - p / 6 * mm) * e if free else 0.0
        for i in range(n0 - 2, -1, -1):
            out_row = out[i, j]
            next_row = out[i + 1, j]
            for k in range(n2):
                if i < n0 - 2:
                    M[i, k] -= C[i, k] * M[i + 1, k]
                f = v1[j] * v2[k] * M[i, k]
                out_row[k] -= f
                next_row[k] += f


@njit(cache=True, error_model="numpy", nogil=True)
def unmatched_cost(low, high, r, inv, volume, partial):
    """Sum of r^2 inv / volume over each plane; infinite where r remains in a blocked voxel."""
    _, n1, n2 = r.shape
    for i in range(low, high):
        total = 0.0
        for j in range(n1):
            for k in range(n2):
                v = r[i, j, k]
                w = inv[i, j, k]
                if v != 0.0:
                    total += v * v * w / volume[i, j, k] if w > 0 else np.inf
        partial[i] = total


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
def shape_bounds(low, high, c, b0, b1, b2, s0, s1, s2, ih0, ih1, ih2, grad, hess, smooth, jump):
    """Bounds over each voxel from Bezier nets: |grad w|, |D2 w|, |D3 w| inside, jump of D2 w at upper faces / h.

    b are Bezier tables, s tables of the second derivative of coefficients along an axis.
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
            for p in range(3):
                for q in range(3):
                    for r in range(3):
                        if p >= np0 or q >= np1 or r >= np2:
                            s = Y[min(p, np0 - 1), min(q, np1 - 1), min(r, np2 - 1)]
                            for k in range(n2):
                                Y[p, q, r, k] = s[k]
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
def half_steps(
    low,
    high,
    c,
    a,
    b,
    f0,
    f1,
    f2,
    t0,
    t1,
    t2,
    b0,
    b1,
    b2,
    ih0,
    ih1,
    ih2,
    grad,
    near,
    hess,
    smooth,
    jump,
    scales,
    K,
    uneven,
    partial,
    excess,
):
    """Certified sums over voxels of a p + b q at each multiple of w; a, b constant in blocks of f voxels.

    p, q = K (1 - exp(-phi / K)), the half-steps phi, psi of +-w bounded from below (bounds.py, Notes).
    ``near``, ``hess``, ``smooth``, ``jump`` bound the window that holds the minimiser. ``excess`` receives the
    cost of the remainders over the kinetic term.
    """
    n0, n1, n2 = c.shape
    np0 = 3 if n0 > 1 else 1
    np1 = 3 if n1 > 1 else 1
    np2 = 3 if n2 > 1 else 1
    Z = np.zeros((3, n1, n2))
    N = np.zeros((3, n1, n2))
    X = np.zeros(n2 + 2)
    Y = np.zeros((3, 3, 3, n2))
    E = np.zeros((7, n2))
    Lo = np.empty((6, n2))
    Hi = np.empty((6, n2))
    D = np.empty(n2)
    r12 = np.sqrt(12.0)
    r60 = np.sqrt(60.0)
    for i in range(low, high):
        for s in range(scales.size):
            partial[i, s] = 0.0
        load_plane(c, i, t0, np0, Z)
        load_plane(c, i, b0, np0, N)
        for j in range(n1):
            Y[:] = 0.0
            load_row(Z, j, t1, t2, np0, np1, np2, X, Y)
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
            D[:] = Y[0, 0, 0]
            load_row(N, j, b1, b2, np0, np1, np2, X, Y)
            for p in range(3):
                for q in range(3):
                    for r in range(3):
                        if p >= np0 or q >= np1 or r >= np2:
                            y = Y[min(p, np0 - 1), min(q, np1 - 1), min(r, np2 - 1)]
                            for k in range(n2):
                                Y[p, q, r, k] = y[k]
            Lo[:] = np.inf
            Hi[:] = -np.inf
            for p in range(3):
                for q in range(3):
                    for k in range(n2):
                        v = Y[0, p, q, k] - 2 * Y[1, p, q, k] + Y[2, p, q, k]
                        Lo[0, k] = min(Lo[0, k], v)
                        Hi[0, k] = max(Hi[0, k], v)
                        v = Y[p, 0, q, k] - 2 * Y[p, 1, q, k] + Y[p, 2, q, k]
                        Lo[1, k] = min(Lo[1, k], v)
                        Hi[1, k] = max(Hi[1, k], v)
                        v = Y[p, q, 0, k] - 2 * Y[p, q, 1, k] + Y[p, q, 2, k]
                        Lo[2, k] = min(Lo[2, k], v)
                        Hi[2, k] = max(Hi[2, k], v)
            for p in range(3):
                for s in range(2):
                    for t in range(2):
                        for k in range(n2):
                            v = Y[s, t, p, k] - Y[s + 1, t, p, k] - Y[s, t + 1, p, k] + Y[s + 1, t + 1, p, k]
                            Lo[3, k] = min(Lo[3, k], v)
                            Hi[3, k] = max(Hi[3, k], v)
                            v = Y[s, p, t, k] - Y[s + 1, p, t, k] - Y[s, p, t + 1, k] + Y[s + 1, p, t + 1, k]
                            Lo[4, k] = min(Lo[4, k], v)
                            Hi[4, k] = max(Hi[4, k], v)
                            v = Y[p, s, t, k] - Y[p, s + 1, t, k] - Y[p, s, t + 1, k] + Y[p, s + 1, t + 1, k]
                            Lo[5, k] = min(Lo[5, k], v)
                            Hi[5, k] = max(Hi[5, k], v)
            x = ih0[i]
            y1 = ih1[j]
            for k in range(n2):
                da = a[i // f0, j // f1, k // f2]
                db = b[i // f0, j // f1, k // f2]
                excess[i, j, k] = 0.0
                if da <= 0 and db <= 0:
                    continue
                z = ih2[k]
                w = D[k]
                variance = max(E[0, k] - w * w, 0.0)
                xx = x * x * E[1, k]
                yy = y1 * y1 * E[2, k]
                zz = z * z * E[3, k]
                xy = x * y1 * E[4, k]
                xz = x * z * E[5, k]
                yz = y1 * z * E[6, k]
                m2 = xx + yy + zz
                g = np.float64(grad[i, j, k])
                cxx = x * x * (Lo[0, k] + Hi[0, k])
                cyy = y1 * y1 * (Lo[1, k] + Hi[1, k])
                czz = z * z * (Lo[2, k] + Hi[2, k])
                cxy = 2 * x * y1 * (Lo[3, k] + Hi[3, k])
                cxz = 2 * x * z * (Lo[4, k] + Hi[4, k])
                cyz = 2 * y1 * z * (Lo[5, k] + Hi[5, k])
                rxx = x * x * (Hi[0, k] - Lo[0, k])
                ryy = y1 * y1 * (Hi[1, k] - Lo[1, k])
                rzz = z * z * (Hi[2, k] - Lo[2, k])
                rxy = 2 * x * y1 * (Hi[3, k] - Lo[3, k])
                rxz = 2 * x * z * (Hi[4, k] - Lo[4, k])
                ryz = 2 * y1 * z * (Hi[5, k] - Lo[5, k])
                R = min(
                    max(rxx + rxy + rxz, max(rxy + ryy + ryz, rxz + ryz + rzz)),
                    np.sqrt(rxx**2 + ryy**2 + rzz**2 + 2 * (rxy**2 + rxz**2 + ryz**2)),
                )
                q1 = cxx * xx + cyy * yy + czz * zz + 2 * (cxy * xy + cxz * xz + cyz * yz)
                q2 = (cxx * cxx + cxy * cxy + cxz * cxz) * xx + (cxy * cxy + cyy * cyy + cyz * cyz) * yy
                q2 += (cxz * cxz + cyz * cyz + czz * czz) * zz
                q2 += (
                    2 * (cxx * cxy + cxy * cyy + cxz * cyz) * xy
                    + 2 * (cxx * cxz + cxy * cyz + cxz * czz) * xz
                )
                q2 += 2 * (cxy * cxz + cyy * cyz + cyz * czz) * yz
                hg = np.sqrt(max(q2, 0.0)) + R * np.sqrt(m2)
                diameter = np.sqrt(1 / (x * x) + 1 / (y1 * y1) + 1 / (z * z))
                widest = 1 / min(x, min(y1, z))
                finest = max(x, max(y1, z))
                for s in range(scales.size):
                    f = scales[s]
                    kin = 0.5 * f * f * m2
                    gg = f * f * g * g
                    beta = 0.5 * f * hess[i, j, k]
                    around = 0.5 * f * f * np.float64(near[i, j, k]) ** 2
                    loss = around - kin
                    turn = 0.0
                    blur = 0.0
                    if beta < 0.95:
                        reach = 0.5 * f * g / (1 - beta)
                        third = reach / 3 * f * smooth[i, j, k]
                        step = f * jump[i, j, k]
                        if uneven > 0 and reach > uneven:
                            kick = (reach + widest) * step
                            kick2 = kick * kick
                        else:
                            ratio = reach * finest
                            kick = 2 / 3 * reach * step
                            kick2 = 0.4 * ratio if ratio < 1 else (ratio / 3 + 1) ** 2
                            kick2 *= (step * widest) ** 2
                        full = min(
                            (f * f * hg + third * f * np.sqrt(m2) + np.sqrt(kick2 * gg)) ** 2,
                            4 * beta * beta * f * f * m2,
                        )
                        remainder = 0.25 * (third * f * f * m2 + kick * gg) + 0.125 * full / (1 - beta)
                        if remainder < loss:
                            loss = remainder
                            turn = 0.25 * f * f * f * q1
                            blur = 0.25 * f * f * f * R * m2
                    A = da * np.exp(-2 * f * w / K)
                    B = db * np.exp(2 * f * w / K)
                    factor = np.exp(2 * f * g * diameter / K) * (1 + 0.5 * around / K * np.exp(around / K))
                    spread = 2 * f * f * variance / K * np.exp(2 * f * g * diameter / K)
                    cost = (A + B) * (kin + loss) - (A - B) * turn + abs(A - B) * blur
                    total = -K * (da * np.expm1(-2 * f * w / K) + db * np.expm1(2 * f * w / K))
                    partial[i, s] += (total - (A + B) * spread - factor * cost) / (x * y1 * z)
                    if s == 0 and kin > 0:
                        excess[i, j, k] = min((loss + blur * abs(A - B) / (A + B)) / kin, 1e4)
