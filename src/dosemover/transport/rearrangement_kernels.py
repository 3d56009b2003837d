"""Loops of the Knothe-Rosenblatt rearrangement: monotone couplings along one axis after the other."""

from __future__ import annotations

from numba import njit


@njit(cache=True, error_model="numpy", nogil=True)
def _row_cost(p, q, w, e):
    """W_2^2 of two densities on a line, given in the cells between edges e with widths w."""
    n = p.size
    total_p = 0.0
    total_q = 0.0
    for k in range(n):
        total_p += p[k] * w[k]
        total_q += q[k] * w[k]
    i = 0
    j = 0
    left_p = p[0] * w[0] / total_p
    left_q = q[0] * w[0] / total_q
    x = e[0]
    y = e[0]
    cost = 0.0
    while True:
        while left_p <= 0.0 and i < n - 1:
            i += 1
            left_p = p[i] * w[i] / total_p
            x = e[i]
        while left_q <= 0.0 and j < n - 1:
            j += 1
            left_q = q[j] * w[j] / total_q
            y = e[j]
        du = min(left_p, left_q)
        if du <= 0.0:
            return cost
        step_x = du * total_p / p[i]
        step_y = du * total_q / q[j]
        d0 = x - y
        d1 = d0 + step_x - step_y
        cost += du * (d0 * d0 + d0 * d1 + d1 * d1) / 3
        x += step_x
        y += step_y
        left_p = left_p - du if left_p > du else 0.0
        left_q = left_q - du if left_q > du else 0.0


@njit(cache=True, error_model="numpy", nogil=True)
def _plane_cost(a, b, rows_a, rows_b, w1, e1, w2, e2):
    """Cost of the rearrangement of two planes: their rows' masses first, then row by row.

    ``rows_a`` and ``rows_b`` hold the integrals of the rows.
    """
    n = rows_a.size
    total_a = 0.0
    total_b = 0.0
    for k in range(n):
        total_a += rows_a[k] * w1[k]
        total_b += rows_b[k] * w1[k]
    i = 0
    j = 0
    left_a = rows_a[0] * w1[0] / total_a
    left_b = rows_b[0] * w1[0] / total_b
    x = e1[0]
    y = e1[0]
    cost = 0.0
    while True:
        while left_a <= 0.0 and i < n - 1:
            i += 1
            left_a = rows_a[i] * w1[i] / total_a
            x = e1[i]
        while left_b <= 0.0 and j < n - 1:
            j += 1
            left_b = rows_b[j] * w1[j] / total_b
            y = e1[j]
        du = min(left_a, left_b)
        if du <= 0.0:
            return cost
        step_x = du * total_a / rows_a[i]
        step_y = du * total_b / rows_b[j]
        d0 = x - y
        d1 = d0 + step_x - step_y
        cost += du * ((d0 * d0 + d0 * d1 + d1 * d1) / 3 + _row_cost(a[i], b[j], w2, e2))
        x += step_x
        y += step_y
        left_a = left_a - du if left_a > du else 0.0
        left_b = left_b - du if left_b > du else 0.0


@njit(cache=True, error_model="numpy", nogil=True)
def piece_costs(low, high, first, second, share, a, b, rows_a, rows_b, w1, e1, w2, e2, cost):
    """cost[k] = share times the cost of rearranging plane first[k] of a into plane second[k] of b."""
    for k in range(low, high):
        i = first[k]
        j = second[k]
        cost[k] = share[k] * _plane_cost(a[i], b[j], rows_a[i], rows_b[j], w1, e1, w2, e2)
