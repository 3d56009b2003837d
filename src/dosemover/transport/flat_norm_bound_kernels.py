"""Loops of the flat norm's certificates, trilinear f and fluxes; every kernel owns rows low to high.

Names as in `flat_norm_kernels`.
"""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, error_model="numpy", nogil=True)
def _row_slopes(f, i, j, fw0, bw0, fw1, bw1, fw2, bw2, out):
    """Largest squared octant gradient at each node of row (i, j)."""
    n0, n1, n2 = f.shape
    F = f[i, j]
    up = f[min(i + 1, n0 - 1), j]
    down = f[max(i - 1, 0), j]
    front = f[i, min(j + 1, n1 - 1)]
    back = f[i, max(j - 1, 0)]
    a = fw0[i]
    b = bw0[i]
    c = fw1[j]
    d = bw1[j]
    for k in range(n2):
        v = np.float64(F[k])
        x = abs(up[k] - v) * a
        y = abs(down[k] - v) * b
        x = x if x > y else y
        z = abs(front[k] - v) * c
        y = abs(back[k] - v) * d
        z = z if z > y else y
        out[k] = x * x + z * z
    last = 0.0
    for k in range(n2 - 1):
        x = abs(np.float64(F[k + 1]) - F[k])
        y = last * bw2[k]
        z = x * fw2[k]
        last = x
        z = z if z > y else y
        out[k] += z * z
    y = last * bw2[n2 - 1]
    out[n2 - 1] += y * y


@njit(cache=True, error_model="numpy", nogil=True)
def squared_slopes(low, high, f, fw0, bw0, fw1, bw1, fw2, bw2, largest):
    """Find the largest squared gradient of the trilinear f in plane i: convex, so at the nodes."""
    _, n1, n2 = f.shape
    row = np.empty(n2)
    for i in range(low, high):
        most = 0.0
        for j in range(n1):
            _row_slopes(f, i, j, fw0, bw0, fw1, bw1, fw2, bw2, row)
            for k in range(n2):
                most = row[k] if row[k] > most else most
        largest[i] = most


@njit(cache=True, error_model="numpy", nogil=True)
def shorten(low, high, color, f, trigger, limit, fw0, bw0, fw1, bw1, fw2, bw2):
    """One Kaczmarz sweep over planes color, color + 3, ...: too steep octant gradients are shortened.

    At nodes with a gradient above ``trigger``, each octant above ``limit`` moves its four nodes along the
    constraint's normal; planes of one colour share no node.
    """
    _, n1, n2 = f.shape
    row = np.empty(n2)
    for index in range(low, high):
        i = 3 * index + color
        for j in range(n1):
            _row_slopes(f, i, j, fw0, bw0, fw1, bw1, fw2, bw2, row)
            for k in range(n2):
                if row[k] <= trigger * trigger:
                    continue
                for octant in range(8):
                    a = fw0[i] if octant & 1 else bw0[i]
                    b = fw1[j] if octant & 2 else bw1[j]
                    c = fw2[k] if octant & 4 else bw2[k]
                    ii = i if a == 0 else (i + 1 if octant & 1 else i - 1)
                    jj = j if b == 0 else (j + 1 if octant & 2 else j - 1)
                    kk = k if c == 0 else (k + 1 if octant & 4 else k - 1)
                    v = np.float64(f[i, j, k])
                    x = (f[ii, j, k] - v) * a
                    y = (f[i, jj, k] - v) * b
                    z = (f[i, j, kk] - v) * c
                    r = np.sqrt(x * x + y * y + z * z)
                    if r > limit:
                        ex = x * a / r
                        ey = y * b / r
                        ez = z * c / r
                        ev = -(ex + ey + ez)
                        step = (r - limit) / (ex * ex + ey * ey + ez * ez + ev * ev)
                        f[ii, j, k] -= np.float32(step * ex)
                        f[i, jj, k] -= np.float32(step * ey)
                        f[i, j, kk] -= np.float32(step * ez)
                        f[i, j, k] -= np.float32(step * ev)


@njit(cache=True, error_model="numpy", nogil=True)
def pair_sums(low, high, f, c, total, largest):
    """total[i] = sum of f c and largest[i] = largest |f| in plane i, in double precision."""
    _, n1, n2 = f.shape
    for i in range(low, high):
        t = 0.0
        m = np.float32(0)
        for j in range(n1):
            row = 0.0
            for k in range(n2):
                row += np.float64(f[i, j, k]) * c[i, j, k]
                m = max(m, abs(f[i, j, k]))
            t += row
        total[i] = t
        largest[i] = m


@njit(cache=True, error_model="numpy", nogil=True)
def multiplier_flux(low, high, p, v0, v1, v2, fw0, fw1, fw2, flow):
    """Mass flow through the upper faces that the multipliers carry: -(V p+ + V' p-') / distance."""
    n0, n1, n2 = p.shape[1:]
    for i in range(low, high):
        for j in range(n1):
            for k in range(n2):
                flow[0, i, j, k] = 0.0
                flow[1, i, j, k] = 0.0
                flow[2, i, j, k] = 0.0
                if i < n0 - 1:
                    flow[0, i, j, k] = (
                        -(v0[i] * p[0, i, j, k] + v0[i + 1] * p[1, i + 1, j, k]) * v1[j] * v2[k] * fw0[i]
                    )
                if j < n1 - 1:
                    flow[1, i, j, k] = (
                        -(v1[j] * p[2, i, j, k] + v1[j + 1] * p[3, i, j + 1, k]) * v0[i] * v2[k] * fw1[j]
                    )
                if k < n2 - 1:
                    flow[2, i, j, k] = (
                        -(v2[k] * p[4, i, j, k] + v2[k + 1] * p[5, i, j, k + 1]) * v0[i] * v1[j] * fw2[k]
                    )


@njit(cache=True, error_model="numpy", nogil=True)
def multiplier_cost(low, high, p, v0, v1, v2, total):
    """total[i] = sum over the nodes of plane i of V sqrt(sum over axes of (|p+| + |p-|)^2)."""
    _, n1, n2 = p.shape[1:]
    for i in range(low, high):
        t = 0.0
        for j in range(n1):
            row = 0.0
            for k in range(n2):
                x = abs(np.float64(p[0, i, j, k])) + abs(np.float64(p[1, i, j, k]))
                y = abs(np.float64(p[2, i, j, k])) + abs(np.float64(p[3, i, j, k]))
                z = abs(np.float64(p[4, i, j, k])) + abs(np.float64(p[5, i, j, k]))
                row += v2[k] * np.sqrt(x * x + y * y + z * z)
            t += v0[i] * v1[j] * row
        total[i] = t


@njit(cache=True, error_model="numpy", nogil=True)
def mean_cost(low, high, p, v0, v1, v2, va0, vb0, va1, vb1, va2, vb2, total):
    """total[i]: the same with sqrt(sum over axes of 2 (p+^2 + p-^2)), the price where slopes are averaged."""
    _, n1, n2 = p.shape[1:]
    for i in range(low, high):
        t = 0.0
        for j in range(n1):
            row = 0.0
            for k in range(n2):
                x = va0[i] * np.float64(p[0, i, j, k]) ** 2 + vb0[i] * np.float64(p[1, i, j, k]) ** 2
                y = va1[j] * np.float64(p[2, i, j, k]) ** 2 + vb1[j] * np.float64(p[3, i, j, k]) ** 2
                z = va2[k] * np.float64(p[4, i, j, k]) ** 2 + vb2[k] * np.float64(p[5, i, j, k]) ** 2
                row += v2[k] * np.sqrt(x + y + z)
            t += v0[i] * v1[j] * row
        total[i] = t


@njit(cache=True, error_model="numpy", nogil=True)
def unmatched(low, high, mass, flow, out, total):
    """Set out = mass - div flow, and total[i] = sum of its absolute values in plane i."""
    _, n1, n2 = mass.shape
    for i in range(low, high):
        t = 0.0
        for j in range(n1):
            for k in range(n2):
                r = mass[i, j, k] - flow[0, i, j, k] - flow[1, i, j, k] - flow[2, i, j, k]
                if i > 0:
                    r += flow[0, i - 1, j, k]
                if j > 0:
                    r += flow[1, i, j - 1, k]
                if k > 0:
                    r += flow[2, i, j, k - 1]
                out[i, j, k] = r
                t += abs(r)
        total[i] = t


@njit(cache=True, error_model="numpy", nogil=True)
def flux_cost(low, high, flow, w0, w1, w2, total):
    """total[i]: an upper bound of the integral of |m| over plane i, m affine in each voxel.

    |m| is convex, so its mean is at most the trapezoid rule's on 27 points, and by Jensen at most the root
    mean square: the smaller counts.
    """
    _, n1, n2 = flow.shape[1:]
    X = np.empty(3)
    Y = np.empty(3)
    for i in range(low, high):
        t = 0.0
        for j in range(n1):
            for k in range(n2):
                a0 = 1.0 / (w1[j] * w2[k])
                a1 = 1.0 / (w0[i] * w2[k])
                a2 = 1.0 / (w0[i] * w1[j])
                x1 = flow[0, i, j, k] * a0
                x0 = flow[0, i - 1, j, k] * a0 if i > 0 else 0.0
                y1 = flow[1, i, j, k] * a1
                y0 = flow[1, i, j - 1, k] * a1 if j > 0 else 0.0
                z1 = flow[2, i, j, k] * a2
                z0 = flow[2, i, j, k - 1] * a2 if k > 0 else 0.0
                middle = 0.25 * ((x0 + x1) ** 2 + (y0 + y1) ** 2 + (z0 + z1) ** 2)
                jump = ((x1 - x0) ** 2 + (y1 - y0) ** 2 + (z1 - z0) ** 2) / 12.0
                volume = w0[i] * w1[j] * w2[k]
                if jump <= 1e-3 * middle:
                    t += np.sqrt(middle + jump) * volume
                    continue
                X[0] = x0 * x0
                X[1] = 0.25 * (x0 + x1) ** 2
                X[2] = x1 * x1
                Y[0] = y0 * y0
                Y[1] = 0.25 * (y0 + y1) ** 2
                Y[2] = y1 * y1
                zm = 0.25 * (z0 + z1) ** 2
                mean = 0.0
                for a in range(3):
                    for b in range(3):
                        weight = (0.5 if a == 1 else 0.25) * (0.5 if b == 1 else 0.25)
                        u = X[a] + Y[b]
                        mean += weight * (
                            0.25 * np.sqrt(u + z0 * z0) + 0.5 * np.sqrt(u + zm) + 0.25 * np.sqrt(u + z1 * z1)
                        )
                t += min(mean, np.sqrt(middle + jump)) * volume
        total[i] = t


@njit(cache=True, error_model="numpy", nogil=True)
def potential_flow(low, high, u, v0, v1, v2, fw0, fw1, fw2, flow):
    """Add the mass flow -V/distance x differences of a potential through the upper faces."""
    n0, n1, n2 = u.shape
    for i in range(low, high):
        for j in range(n1):
            for k in range(n2):
                if i < n0 - 1:
                    flow[0, i, j, k] -= (u[i + 1, j, k] - u[i, j, k]) * fw0[i] * v1[j] * v2[k]
                if j < n1 - 1:
                    flow[1, i, j, k] -= (u[i, j + 1, k] - u[i, j, k]) * fw1[j] * v0[i] * v2[k]
                if k < n2 - 1:
                    flow[2, i, j, k] -= (u[i, j, k + 1] - u[i, j, k]) * fw2[k] * v0[i] * v1[j]


@njit(cache=True, error_model="numpy", nogil=True)
def add_gradient(low, high, u, v0, v1, v2, p):
    """Add to the multipliers half of each difference of a potential, from both sides of every face."""
    n0, n1, n2 = u.shape
    for i in range(low, high):
        for j in range(n1):
            for k in range(n2):
                x = u[i, j, k]
                if i < n0 - 1:
                    p[0, i, j, k] += 0.5 * (u[i + 1, j, k] - x) / v0[i]
                if i > 0:
                    p[1, i, j, k] += 0.5 * (x - u[i - 1, j, k]) / v0[i]
                if j < n1 - 1:
                    p[2, i, j, k] += 0.5 * (u[i, j + 1, k] - x) / v1[j]
                if j > 0:
                    p[3, i, j, k] += 0.5 * (x - u[i, j - 1, k]) / v1[j]
                if k < n2 - 1:
                    p[4, i, j, k] += 0.5 * (u[i, j, k + 1] - x) / v2[k]
                if k > 0:
                    p[5, i, j, k] += 0.5 * (x - u[i, j, k - 1]) / v2[k]
