"""Loops of the cheapest flux on voxel faces (lowest Raviart-Thomas); every kernel owns rows low to high.

m holds the flux through the upper faces, y six multipliers a voxel (mean and jump along axes 0, 1, 2), f
one for its balance. Per axis, ``own`` and ``next`` are the widths of the voxels below and above a face over
the distance of their middles, ``per`` one over that distance, ``rate`` one over the voxel's width; all are 0
past the ends.
"""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, error_model="numpy", nogil=True)
def descend(low, high, f, y, m, bar, t, over, own0, next0, per0, own1, next1, per1, own2, next2, per2):
    """Step of the flux down the gradient of the Lagrangian; ``bar`` is its extrapolation."""
    n0, n1, n2 = f.shape
    half = np.float32(0.5)
    jump = np.float32(0.28867513459481287)
    two = np.float32(2)
    for i in range(low, high):
        for j in range(n1):
            F = f[i, j]
            for axis in range(2):
                if (axis == 0 and i == n0 - 1) or (axis == 1 and j == n1 - 1):
                    continue
                ii = i + 1 - axis
                jj = j + axis
                own = own0[i] if axis == 0 else own1[j]
                nxt = next0[i] if axis == 0 else next1[j]
                per = per0[i] if axis == 0 else per1[j]
                u = y[2 * axis, i, j]
                v = y[2 * axis + 1, i, j]
                un = y[2 * axis, ii, jj]
                vn = y[2 * axis + 1, ii, jj]
                G = f[ii, jj]
                M = m[axis, i, j]
                B = bar[axis, i, j]
                for k in range(n2):
                    d = t * (
                        half * (own * u[k] + nxt * un[k])
                        + jump * (own * v[k] - nxt * vn[k])
                        + per * (G[k] - F[k])
                    )
                    B[k] = M[k] - two * d
                    M[k] -= over * d
            u = y[4, i, j]
            v = y[5, i, j]
            M = m[2, i, j]
            B = bar[2, i, j]
            for k in range(n2 - 1):
                d = t * (
                    half * (own2[k] * u[k] + next2[k] * u[k + 1])
                    + jump * (own2[k] * v[k] - next2[k] * v[k + 1])
                    + per2[k] * (F[k + 1] - F[k])
                )
                B[k] = M[k] - two * d
                M[k] -= over * d


@njit(cache=True, error_model="numpy", nogil=True)
def balance(low, high, f, y, bar, density, step, step_y, lam, over, rate0, rate1, rate2):
    """Step of the multipliers: f on density - div m, clipped at +-lam; y on mean and jump, at most 1."""
    _, n1, n2 = f.shape
    zero = np.zeros(n2, np.float32)
    half = step_y * np.float32(0.5)
    jump = step_y * np.float32(0.28867513459481287)
    one = np.float32(1)
    lower = np.zeros(n2, np.float32)
    for i in range(low, high):
        for j in range(n1):
            F = f[i, j]
            R = density[i, j]
            X = bar[0, i, j]
            XL = bar[0, i - 1, j] if i > 0 else zero
            Y = bar[1, i, j]
            YL = bar[1, i, j - 1] if j > 0 else zero
            Z = bar[2, i, j]
            for k in range(1, n2):
                lower[k] = Z[k - 1]
            a0 = y[0, i, j]
            a1 = y[1, i, j]
            a2 = y[2, i, j]
            a3 = y[3, i, j]
            a4 = y[4, i, j]
            a5 = y[5, i, j]
            for k in range(n2):
                dx = X[k] - XL[k]
                dy = Y[k] - YL[k]
                dz = Z[k] - lower[k]
                v = F[k] - step * (rate0[i] * dx + rate1[j] * dy + rate2[k] * dz - R[k])
                v = lam if v > lam else v
                v = -lam if v < -lam else v
                F[k] += over * (v - F[k])
                q0 = a0[k] + half * (X[k] + XL[k])
                q1 = a1[k] + jump * dx
                q2 = a2[k] + half * (Y[k] + YL[k])
                q3 = a3[k] + jump * dy
                q4 = a4[k] + half * (Z[k] + lower[k])
                q5 = a5[k] + jump * dz
                r = np.sqrt(q0 * q0 + q1 * q1 + q2 * q2 + q3 * q3 + q4 * q4 + q5 * q5)
                r = one / (r if r > one else one)
                a0[k] += over * (q0 * r - a0[k])
                a1[k] += over * (q1 * r - a1[k])
                a2[k] += over * (q2 * r - a2[k])
                a3[k] += over * (q3 * r - a3[k])
                a4[k] += over * (q4 * r - a4[k])
                a5[k] += over * (q5 * r - a5[k])
