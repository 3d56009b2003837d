"""Loops that even out what a flux leaves over, pair by pair of neighbouring cells."""

from __future__ import annotations

from numba import njit


@njit(cache=True, error_model="numpy", nogil=True)
def merge_pairs(low, high, excess, resistance, size, share, merged, merged_resistance, left, energy):
    """Even out pairs of cells along the middle axis of arrays [rows, n, after], rows low to high.

    ``excess`` is the density that has to go, ``resistance`` the integral of 1/mobility over a cell (negative:
    the flux may not enter), ``size`` the widths along the middle axis, shape (n,); ``share`` the part of T^2
    times resistance that a flux rising from 0 to T costs. A pair in which one cell may not be entered stays
    apart: its excess goes to ``left``. ``energy`` gets the cost of each row.
    """
    _, n, after = excess.shape
    for i in range(low, high):
        total = 0.0
        for j in range(0, n, 2):
            to = j // 2
            if j + 1 == n:
                for k in range(after):
                    merged[i, to, k] = excess[i, j, k]
                    merged_resistance[i, to, k] = resistance[i, j, k]
                    left[i, j, k] = 0.0
                continue
            both = size[j] + size[j + 1]
            for k in range(after):
                r = resistance[i, j, k]
                s = resistance[i, j + 1, k]
                x = excess[i, j, k]
                y = excess[i, j + 1, k]
                if r > 0 and s > 0:
                    mean = (x * size[j] + y * size[j + 1]) / both
                    flux = (x - mean) * size[j]
                    total += flux * flux * share * (r + s)
                    merged[i, to, k] = mean
                    merged_resistance[i, to, k] = r + s
                    left[i, j, k] = 0.0
                    left[i, j + 1, k] = 0.0
                else:
                    merged[i, to, k] = 0.0
                    merged_resistance[i, to, k] = -1.0
                    left[i, j, k] = x if r > 0 else 0.0
                    left[i, j + 1, k] = y if s > 0 else 0.0
        energy[i] = total
