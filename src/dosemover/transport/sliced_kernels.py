"""Loops of the sliced distances: exact projections of maps; every kernel owns rows low to high."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, error_model="numpy")
def _march(moments, degree, first, second):
    """Sums of the truncated powers of ``degree - 1`` and ``degree`` at every knot.

    ``moments[i]`` holds the sums of D (1, q, q^2, q^3) of the corners in the cell below knot i, q the
    distance from corner to knot in units of the knot spacing.
    """
    s0 = s1 = s2 = s3 = 0.0
    for i in range(moments.shape[0]):
        s3 = s3 + 3.0 * (s2 + s1) + s0 + moments[i, 3]
        s2 = s2 + 2.0 * s1 + s0 + moments[i, 2]
        s1 = s1 + s0 + moments[i, 1]
        s0 = s0 + moments[i, 0]
        first[i] = s1 if degree == 2 else s2
        second[i] = s2 if degree == 2 else s3


@njit(cache=True, error_model="numpy")
def _deposit(moments, position, d):
    """Add a corner of strength d at ``position`` (in knots) to the moments of the knot above it."""
    cell = np.int64(position)
    q = cell + 1.0 - position
    moments[cell + 1, 0] += d
    moments[cell + 1, 1] += d * q
    moments[cell + 1, 2] += d * q * q
    moments[cell + 1, 3] += d * q * q * q


@njit(cache=True, error_model="numpy", nogil=True)
def project_layers(low, high, density, y, x, cos_phi, sin_phi, start, step, g, h):
    """Project z layers on the direction (cos_phi, sin_phi) of the (x, y) plane.

    The mass of a box below s is the mixed second difference over its corners of (s - s_corner)_+^2 /
    (2 cos_phi sin_phi); along an axis, the first difference of (s - s_corner)_+.

    Parameters
    ----------
    low, high : int
        Layers to work on.
    density : float64[nz, ny, nx]
    y, x : float64[ny + 1], float64[nx + 1]
        Voxel boundaries [mm].
    cos_phi, sin_phi : float
        Components along x and y; exactly 0 along an axis.
    start, step : float
        First knot and knot spacing in s [mm]; the knots cover every corner.
    g, h : float64[nz, n]
        Out: per layer the mass below each knot over the layer's thickness, and its integral over s.
    """
    _, ny, nx = density.shape
    n = g.shape[1]
    for k in range(low, high):
        moments = np.zeros((n, 4))
        if cos_phi == 0.0 or sin_phi == 0.0:
            degree = 2
            along_x = sin_phi == 0.0
            m = nx if along_x else ny
            line = np.zeros(m + 2)
            for j in range(ny):
                for i in range(nx):
                    if along_x:
                        line[i + 1] += density[k, j, i] * (y[j + 1] - y[j])
                    else:
                        line[j + 1] += density[k, j, i] * (x[i + 1] - x[i])
            for i in range(m + 1):
                d = line[i + 1] - line[i]
                if d != 0.0:
                    corner = cos_phi * x[i] if along_x else sin_phi * y[i]
                    # a direction against the axis swaps the two ends of a box
                    sign = cos_phi if along_x else sin_phi
                    _deposit(moments, (corner - start) / step, d * sign)
            scale = step
        else:
            degree = 3
            for j in range(ny + 1):
                sy = (sin_phi * y[j] - start) / step
                last = 0.0
                for i in range(nx + 1):
                    above = density[k, j, i] if j < ny and i < nx else 0.0
                    below = density[k, j - 1, i] if j > 0 and i < nx else 0.0
                    jump = above - below
                    d = jump - last
                    last = jump
                    if d != 0.0:
                        _deposit(moments, cos_phi * x[i] / step + sy, d)
            scale = step * step / (2.0 * cos_phi * sin_phi)
        _march(moments, degree, g[k], h[k])
        for i in range(n):
            g[k, i] *= scale
            h[k, i] *= scale * step / degree


@njit(cache=True, error_model="numpy", nogil=True)
def tilt_layers(low, high, g, h, z, start, step, cos_theta, sin_theta, t, cdf):
    """Distribution function of the projection on a direction tilted out of the (x, y) plane.

    F(t) = sum over layers of the integral over z of G_k((t - z cos_theta) / sin_theta), by differences
    of its integral H_k, which is interpolated by the cubic that takes H_k and G_k at the knots.

    Parameters
    ----------
    low, high : int
        Entries of t to work on.
    g, h : float64[nz, n]
        Of `project_layers`, knots from ``start`` in steps of ``step``.
    z : float64[nz + 1]
        Layer boundaries [mm].
    cos_theta, sin_theta : float
        Components of the direction along z (may be 0) and in the plane (positive).
    t : float64[m]
        Where to evaluate [mm].
    cdf : float64[m]
        Out: the mass below each t.
    """
    nz, n = g.shape
    for i in range(low, high):
        total = 0.0
        for k in range(nz):
            last = 0.0
            for end in range(2):
                s = (t[i] - cos_theta * z[k + end]) / sin_theta
                position = (s - start) / step
                if position <= 0.0:
                    value = slope = 0.0
                elif position >= n - 1:
                    value = h[k, n - 1] + g[k, n - 1] * (position - (n - 1)) * step
                    slope = g[k, n - 1]
                else:
                    cell = np.int64(position)
                    u = position - cell
                    v = 1.0 - u
                    value = (
                        v * v * ((1.0 + 2.0 * u) * h[k, cell] + u * step * g[k, cell])
                        + u * u * ((1.0 + 2.0 * v) * h[k, cell + 1] - v * step * g[k, cell + 1])
                    )  # fmt: skip
                    w = (h[k, cell + 1] - h[k, cell]) / step
                    slope = (
                        v * (v - 2.0 * u) * g[k, cell] + u * (u - 2.0 * v) * g[k, cell + 1] + 6.0 * u * v * w
                    )
                if cos_theta == 0.0:
                    last = -slope * (z[k + 1] - z[k])
                    break
                last = value - last
            total -= last
        cdf[i] = total if cos_theta == 0.0 else total * sin_theta / cos_theta
