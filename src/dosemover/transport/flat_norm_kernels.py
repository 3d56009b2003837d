"""Loops of the flat norm's iterations over values at the nodes; every kernel owns rows low to high.

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
def project_mean(low, high, fb, p, s, over, a0, b0, va0, vb0, a1, b1, va1, vb1, a2, b2, va2, vb2):
    """Relax p as `project` does, onto mean squared slopes: sum over axes of (d+^2 + d-^2) / 2 <= 1.

    At the ends of an axis, d with one neighbour counts twice. ``a``, ``b`` are the slopes' factors over
    ``va``, ``vb``, the number of slopes that are averaged.
    """
    n0, n1, n2 = fb.shape
    zero = np.float32(0)
    one = np.float32(1)
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
            f0 = s * a0[i]
            g0 = s * b0[i]
            f1 = s * a1[j]
            g1 = s * b1[j]
            for k in range(n2):
                b = B[k]
                right = B[min(k + 1, n2 - 1)]
                left = B[max(k - 1, 0)]
                q0 = p0[k] + f0 * (up[k] - b)
                q1 = p1[k] + g0 * (b - down[k])
                q2 = p2[k] + f1 * (front[k] - b)
                q3 = p3[k] + g1 * (b - back[k])
                q4 = p4[k] + s * a2[k] * (right - b)
                q5 = p5[k] + s * b2[k] * (b - left)
                r = np.sqrt(
                    va0[i] * q0 * q0
                    + vb0[i] * q1 * q1
                    + va1[j] * q2 * q2
                    + vb1[j] * q3 * q3
                    + va2[k] * q4 * q4
                    + vb2[k] * q5 * q5
                )
                t = one - s / r if r > s else zero
                p0[k] += over * (t * q0 - p0[k])
                p1[k] += over * (t * q1 - p1[k])
                p2[k] += over * (t * q2 - p2[k])
                p3[k] += over * (t * q3 - p3[k])
                p4[k] += over * (t * q4 - p4[k])
                p5[k] += over * (t * q5 - p5[k])
