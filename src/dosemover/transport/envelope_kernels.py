"""Lower envelopes of parabolas along the axes of a volume; every kernel owns rows low to high."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, error_model="numpy", nogil=True)
def _envelope(f, x, y, alpha, apex, start, out):
    """out[i] = min over j of f[j] + alpha (y[i] - x[j])^2, x and y ascending; apex and start are scratch."""
    last = -1
    for j in range(x.size):
        if not f[j] < np.inf:
            continue
        meet = -np.inf
        while last >= 0:
            p = apex[last]
            meet = 0.5 * ((f[j] - f[p]) / (alpha * (x[j] - x[p])) + x[j] + x[p])
            if meet > start[last]:
                break
            last -= 1
        last += 1
        apex[last] = j
        start[last] = meet if last > 0 else -np.inf
    k = 0
    for i in range(y.size):
        while k < last and start[k + 1] < y[i]:
            k += 1
        if last < 0:
            out[i] = np.inf
        else:
            d = y[i] - x[apex[k]]
            out[i] = f[apex[k]] + alpha * d * d


@njit(cache=True, error_model="numpy", nogil=True)
def envelope_rows(low, high, f, x, y, alpha, out):
    """Envelopes along axis 2, from the points x to the points y."""
    apex = np.empty(x.size, np.int64)
    start = np.empty(x.size)
    for i in range(low, high):
        for j in range(f.shape[1]):
            _envelope(f[i, j], x, y, alpha, apex, start, out[i, j])


@njit(cache=True, error_model="numpy", nogil=True)
def envelope_columns(low, high, f, x, y, alpha, out):
    """Envelopes along axis 1, from the points x to the points y."""
    _, n, m = f.shape
    apex = np.empty(n, np.int64)
    start = np.empty(n)
    turned = np.empty((m, n))
    found = np.empty((m, y.size))
    for i in range(low, high):
        for j in range(n):
            for k in range(m):
                turned[k, j] = f[i, j, k]
        for k in range(m):
            _envelope(turned[k], x, y, alpha, apex, start, found[k])
        for j in range(y.size):
            for k in range(m):
                out[i, j, k] = found[k, j]
