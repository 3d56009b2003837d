"""Loops of the flat norm over trilinear test functions; every kernel owns rows low to high.

f holds the values at the nodes (the middles of the voxels), p six multipliers a node: forward and backward
along axes 0, 1, 2. Per axis, ``fw`` and ``bw`` are one over the distance to the next and to the last node,
and ``uf``, ``ub`` the same times the ratio of the neighbour's to the node's own volume; all are 0 past the
ends.
"""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, error_model="numpy", nogil=True)
def ascend(low, high, f, fb, p, c, t, lam, over, fw0, bw0, uf0, ub0, fw1, bw1, uf1, ub1, fw2, bw2, uf2, ub2):
    """Set g = clip(f + t (c - G'p), +-lam); fb = 2 g - f; f <- f + over (g - f)."""
    n0, n1, n2 = f.shape
    two = np.float32(2)
    for i in range(low, high):
        im = max(i - 1, 0)
        ip = min(i + 1, n0 - 1)
        a = fw0[i]
        b = bw0[i]
        u = uf0[i]
        v = ub0[i]
        for j in range(n1):
            jm = max(j - 1, 0)
            jp = min(j + 1, n1 - 1)
            d = fw1[j]
            e = bw1[j]
            w = uf1[j]
            z = ub1[j]
            F = f[i, j]
            B = fb[i, j]
            C = c[i, j]
            p0 = p[0, i, j]
            p0m = p[0, im, j]
            p1 = p[1, i, j]
            p1p = p[1, ip, j]
            p2 = p[2, i, j]
            p2m = p[2, i, jm]
            p3 = p[3, i, j]
            p3p = p[3, i, jp]
            p4 = p[4, i, j]
            p5 = p[5, i, j]
            for k in range(n2):
                B[k] = (
                    C[k]
                    + (a * p0[k] - v * p0m[k] - b * p1[k] + u * p1p[k])
                    + (d * p2[k] - z * p2m[k] - e * p3[k] + w * p3p[k])
                    + (fw2[k] * p4[k] - bw2[k] * p5[k])
                )
            for k in range(n2 - 1):
                B[k] += uf2[k] * p5[k + 1]
            for k in range(1, n2):
                B[k] -= ub2[k] * p4[k - 1]
            for k in range(n2):
                old = F[k]
                g = old + t * B[k]
                g = lam if g > lam else g
                g = -lam if g < -lam else g
                B[k] = two * g - old
                F[k] = old + over * (g - old)


@njit(cache=True, error_model="numpy", nogil=True)
def _relax(p, q, bound, s, over):
    """Set p <- p + over (s (q - clip(q, +-bound)) - p) for one row."""
    for k in range(p.size):
        x = q[k]
        m = bound[k]
        y = m if x > m else x
        y = -m if y < -m else y
        p[k] += over * (s * (x - y) - p[k])


@njit(cache=True, error_model="numpy", nogil=True)
def project(low, high, fb, p, s, over, fw0, bw0, fw1, bw1, fw2, bw2):
    """Relax p to q - s proj(q / s), q = p + s G fb, onto sum over axes of max(|d+|, |d-|)^2 <= 1.

    The projection clips the pair of each axis at t = max(A/(1+mu), S/(2+mu)), A the larger and S the sum of
    |d+|, |d-|; two Newton steps find the common mu.
    """
    n0, n1, n2 = fb.shape
    zero = np.float32(0)
    one = np.float32(1)
    two = np.float32(2)
    tiny = np.float32(1e-12)
    huge = np.float32(1e30)
    inverse = one / s
    Q = np.empty((6, n2), np.float32)
    A = np.empty((3, n2), np.float32)
    S = np.empty((3, n2), np.float32)
    M = np.empty(n2, np.float32)
    q0, q1, q2, q3, q4, q5 = Q[0], Q[1], Q[2], Q[3], Q[4], Q[5]
    a0, a1, a2 = A[0], A[1], A[2]
    s0, s1, s2 = S[0], S[1], S[2]
    for i in range(low, high):
        im = max(i - 1, 0)
        ip = min(i + 1, n0 - 1)
        for j in range(n1):
            B = fb[i, j]
            up = fb[ip, j]
            down = fb[im, j]
            front = fb[i, min(j + 1, n1 - 1)]
            back = fb[i, max(j - 1, 0)]
            p0 = p[0, i, j]
            p1 = p[1, i, j]
            p2 = p[2, i, j]
            p3 = p[3, i, j]
            p4 = p[4, i, j]
            p5 = p[5, i, j]
            for k in range(n2):
                b = B[k]
                q0[k] = p0[k] * inverse + fw0[i] * (up[k] - b)
                q1[k] = p1[k] * inverse + bw0[i] * (b - down[k])
                q2[k] = p2[k] * inverse + fw1[j] * (front[k] - b)
                q3[k] = p3[k] * inverse + bw1[j] * (b - back[k])
                q4[k] = p4[k] * inverse
                q5[k] = p5[k] * inverse
            for k in range(n2 - 1):
                q4[k] += fw2[k] * (B[k + 1] - B[k])
            for k in range(1, n2):
                q5[k] += bw2[k] * (B[k] - B[k - 1])
            most = zero
            for k in range(n2):
                x = abs(q0[k])
                y = abs(q1[k])
                u = x if x > y else y
                a0[k] = u
                s0[k] = x + y
                x = abs(q2[k])
                y = abs(q3[k])
                v = x if x > y else y
                a1[k] = v
                s1[k] = x + y
                x = abs(q4[k])
                y = abs(q5[k])
                w = x if x > y else y
                a2[k] = w
                s2[k] = x + y
                m = np.sqrt(u * u + v * v + w * w) - one
                M[k] = m if m > zero else zero
            for k in range(n2):
                most = M[k] if M[k] > most else most
            if most == zero:
                for k in range(n2):
                    p0[k] -= over * p0[k]
                    p1[k] -= over * p1[k]
                    p2[k] -= over * p2[k]
                    p3[k] -= over * p3[k]
                    p4[k] -= over * p4[k]
                    p5[k] -= over * p5[k]
                continue
            for _ in range(2):
                for k in range(n2):
                    mu = M[k]
                    i1 = one / (one + mu)
                    i2 = one / (two + mu)
                    x = a0[k] * i1
                    y = s0[k] * i2
                    u = x if x > y else y
                    du = x * i1 if x > y else y * i2
                    x = a1[k] * i1
                    y = s1[k] * i2
                    v = x if x > y else y
                    dv = x * i1 if x > y else y * i2
                    x = a2[k] * i1
                    y = s2[k] * i2
                    w = x if x > y else y
                    dw = x * i1 if x > y else y * i2
                    g = u * u + v * v + w * w
                    m = mu + (np.sqrt(g) - one) * g / (u * du + v * dv + w * dw + tiny)
                    M[k] = m if m > zero else zero
            for k in range(n2):
                mu = M[k]
                free = huge if mu <= zero else zero
                i1 = one / (one + mu)
                i2 = one / (two + mu)
                x = a0[k] * i1
                y = s0[k] * i2
                a0[k] = (x if x > y else y) + free
                x = a1[k] * i1
                y = s1[k] * i2
                a1[k] = (x if x > y else y) + free
                x = a2[k] * i1
                y = s2[k] * i2
                a2[k] = (x if x > y else y) + free
            _relax(p0, q0, a0, s, over)
            _relax(p1, q1, a0, s, over)
            _relax(p2, q2, a1, s, over)
            _relax(p3, q3, a1, s, over)
            _relax(p4, q4, a2, s, over)
            _relax(p5, q5, a2, s, over)


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
