"""Loops of the certified upper bounds; a kernel owns rows low to high and adds into one number a plane."""

from __future__ import annotations

import numpy as np
from numba import njit


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
def grow_tree(inv, dust, order, parent, head, following, main):
    """Spanning tree of the voxels with inv > 0, densest first, so that thin voxels hang on dense ones.

    ``parent`` must start at -1; ``head`` holds one stack for each factor of two of density, the stacks from
    ``dust`` on being dust. ``main`` marks what the densest voxel of a part reaches without crossing dust.
    Returns the number of voxels in ``order``.
    """
    n0, n1, n2 = inv.shape
    flat = inv.ravel()
    top = np.inf
    for v in range(flat.size):
        if flat[v] > 0 and flat[v] < top:
            top = flat[v]
    count = 0
    levels = head.size
    for stage in range(2):
        for seed in range(flat.size):
            if flat[seed] <= 0 or parent[seed] != -1 or (stage == 0 and flat[seed] > 2 * top):
                continue
            parent[seed] = seed
            main[seed] = 1
            head[:] = -1
            head[0] = seed
            following[seed] = -1
            level = 0
            while level < levels:
                v = head[level]
                if v < 0:
                    level += 1
                    continue
                head[level] = following[v]
                order[count] = v
                count += 1
                i = v // (n1 * n2)
                j = (v // n2) % n1
                k = v % n2
                for side in range(6):
                    ii = i + (1 if side == 0 else (-1 if side == 1 else 0))
                    jj = j + (1 if side == 2 else (-1 if side == 3 else 0))
                    kk = k + (1 if side == 4 else (-1 if side == 5 else 0))
                    if ii < 0 or ii >= n0 or jj < 0 or jj >= n1 or kk < 0 or kk >= n2:
                        continue
                    u = (ii * n1 + jj) * n2 + kk
                    if flat[u] <= 0 or parent[u] != -1:
                        continue
                    parent[u] = v
                    at = min(max(int(np.log2(flat[u] / top)), 0), levels - 1)
                    main[u] = 1 if main[v] == 1 and at < dust else 0
                    following[u] = head[at]
                    head[at] = u
                    level = min(level, at)
    return count


@njit(cache=True, error_model="numpy", nogil=True)
def gather_on_main(order, parent, main, flow):
    """Carry what lies off the main parts along the tree onto them; flow becomes 0 off them."""
    for place in range(order.size - 1, -1, -1):
        v = order[place]
        if main[v] == 0:
            flow[parent[v]] += flow[v]
            flow[v] = 0.0


@njit(cache=True, error_model="numpy", nogil=True)
def settle_residual(flow, value, inv, v0, v1, v2, order, parent, main):
    """Bound of the energy of the tree's flux t that carries the residual away, and largest mass left over.

    Of the faces where t enters the main parts, also the sum of t times ``value`` behind them, and a bound of
    t's energy there. On entry flow holds the residual, on exit t towards each parent.
    """
    _, n1, n2 = inv.shape
    flat = inv.ravel()
    cost = 0.0
    left = 0.0
    exchanged = 0.0
    border = 0.0
    for place in range(order.size - 1, -1, -1):
        v = order[place]
        u = parent[v]
        t = flow[v]
        if u == v:
            left = max(left, abs(t))
            continue
        flow[u] += t
        i = v // (n1 * n2)
        j = (v // n2) % n1
        k = v % n2
        if u // n2 == v // n2:
            own = v2[k] * flat[v]
            other = v2[u % n2] * flat[u]
            area = v0[i] * v1[j]
        elif u // (n1 * n2) == i:
            own = v1[j] * flat[v]
            other = v1[(u // n2) % n1] * flat[u]
            area = v0[i] * v2[k]
        else:
            own = v0[i] * flat[v]
            other = v0[u // (n1 * n2)] * flat[u]
            area = v1[j] * v2[k]
        cost += 0.5 * t * t * (own + other) / area
        if main[v] != main[u]:
            exchanged += t * value[u]
            border += 0.5 * t * t * other / area
    return cost, left, exchanged, border
