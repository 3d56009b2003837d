"""Loops of the exact gamma search: bounds on cells, and the closest point of each tetrahedron.

Everything here is in criterion units: distances over the distance criterion, dose residuals over
the dose criterion, so that gamma is a Euclidean distance in four dimensions.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit, prange

POINTS_PER_BLOCK = 128
"""Consecutive points that share a search seed: fixed, so that threads do not change a bit."""

_BELOW, _ABOVE = 1.0 - 1.2e-7, 1.0 + 1.2e-7  # outward rounding of a dose to single precision


@njit(cache=True, error_model="numpy", parallel=True)
def cell_ranges(dose, z_low, y_low, x_low, z_high, y_high, x_high, ranges):
    """Smallest dose, and minus the largest, at the eight corners of every cell, rounded outward."""
    for i in prange(z_low.size):
        for j in range(y_low.size):
            for k in range(x_low.size):
                low = math.inf
                high = -math.inf
                for z in (z_low[i], z_high[i]):
                    for y in (y_low[j], y_high[j]):
                        a = dose[z, y, x_low[k]]
                        b = dose[z, y, x_high[k]]
                        low = min(low, a, b)
                        high = max(high, a, b)
                ranges[i, j, k, 0] = low * _BELOW
                ranges[i, j, k, 1] = -high * _ABOVE


@njit(cache=True, error_model="numpy", parallel=True)
def widen(ranges, before, after, widened):
    """Least values over each pair of cells along the middle axis, ``before`` and ``after`` cells included."""
    n_outer, n, n_inner = ranges.shape
    n_pairs = widened.shape[1]
    for task in prange(n_outer * n_pairs):
        outer = task // n_pairs
        pair = task - outer * n_pairs
        first = max(0, 2 * pair - before)
        last = min(n - 1, 2 * pair + 1 + after)
        for k in range(n_inner):
            widened[outer, pair, k] = ranges[outer, first, k]
        for m in range(first + 1, last + 1):
            for k in range(n_inner):
                widened[outer, pair, k] = min(widened[outer, pair, k], ranges[outer, m, k])


@njit(cache=True, error_model="numpy")
def _clamp(value):
    """Value held between 0 and 1."""
    return min(1.0, max(0.0, value))


@njit(cache=True, error_model="numpy")
def _square(p0, p1, p2, e, a, b, c, de1, de2, s, t):
    """Squared distance of the point p + s (a, b, 0) + t (0, 0, c), dose e + s de1 + t de2."""
    q0 = p0 + s * a
    q1 = p1 + s * b
    q2 = p2 + t * c
    q3 = e + s * de1 + t * de2
    return q0 * q0 + q1 * q1 + q2 * q2 + q3 * q3


@njit(cache=True, error_model="numpy")
def _triangle(p0, p1, p2, e, a, b, c, de1, de2, best):
    """Closest point of a triangle p + s (a, b, 0) + t (0, 0, c), 0 <= t <= s <= 1, dose e + s de1 + t de2.

    The two steps are orthogonal in space, so that its plane projects like a hyperplane of dose, without
    the cancellation of normal equations. Returns (value, s, t); ``best`` where no point is closer.
    """
    ww1 = 1.0 / (a * a + b * b)
    ww2 = 1.0 / (c * c)
    along1 = p0 * a + p1 * b
    along2 = p2 * c
    across = p0 * b - p1 * a
    residual = e - de1 * along1 * ww1 - de2 * along2 * ww2
    m = residual / (1.0 + de1 * de1 * ww1 + de2 * de2 * ww2)
    if across * across * ww1 + residual * m >= best:
        return best, 0.0, 0.0
    s = -(m * de1 + along1) * ww1
    t = -(m * de2 + along2) * ww2
    if 0.0 <= t <= s <= 1.0:
        return _square(p0, p1, p2, e, a, b, c, de1, de2, s, t), s, t
    low, u, v = best, 0.0, 0.0
    ss = a * a + b * b
    tt = c * c
    if t < 0.0:
        edge = _clamp(-(along1 + e * de1) / (ss + de1 * de1))
        value = _square(p0, p1, p2, e, a, b, c, de1, de2, edge, 0.0)
        if value < low:
            low, u, v = value, edge, 0.0
    if s > 1.0:
        edge = _clamp(-(along2 + (e + de1) * de2) / (tt + de2 * de2))
        value = _square(p0, p1, p2, e, a, b, c, de1, de2, 1.0, edge)
        if value < low:
            low, u, v = value, 1.0, edge
    if t > s:
        de = de1 + de2
        edge = _clamp(-(along1 + along2 + e * de) / (ss + tt + de * de))
        value = _square(p0, p1, p2, e, a, b, c, de1, de2, edge, edge)
        if value < low:
            low, u, v = value, edge, edge
    return low, u, v


@njit(cache=True, error_model="numpy")
def _faces(i, j, k, oi, oj, ok, ai, aj, ak, e0, gi, gj, gk, best, hit):
    """Closest point on the faces that the projection violates.

    The tetrahedron steps along axes i, j, k from its corner o, with widths a and slopes g.
    """
    m = (e0 - gi * oi - gj * oj - gk * ok) / (1.0 + gi * gi + gj * gj + gk * gk)
    ti = (-m * gi - oi) / ai
    tj = (-m * gj - oj) / aj
    tk = (-m * gk - ok) / ak
    di = gi * ai
    dj = gj * aj
    dk = gk * ak
    if ti > 1.0:  # the face t_i = 1
        value, s, t = _triangle(oj, oi + ai, ok, e0 + di, aj, 0.0, ak, dj, dk, best)
        if value < best:
            best = value
            hit[i] = oi + ai
            hit[j] = oj + s * aj
            hit[k] = ok + t * ak
            hit[3] = e0 + di + s * dj + t * dk
    if tj > ti:  # the face t_i = t_j
        value, s, t = _triangle(oi, oj, ok, e0, ai, aj, ak, di + dj, dk, best)
        if value < best:
            best = value
            hit[i] = oi + s * ai
            hit[j] = oj + s * aj
            hit[k] = ok + t * ak
            hit[3] = e0 + s * (di + dj) + t * dk
    if tk > tj:  # the face t_j = t_k: the second step is the diagonal one, so the path runs backward
        value, s, t = _triangle(
            oj + aj, ok + ak, oi + ai, e0 + di + dj + dk, -aj, -ak, -ai, -dj - dk, -di, best
        )
        if value < best:
            best = value
            hit[i] = oi + ai - t * ai
            hit[j] = oj + aj - s * aj
            hit[k] = ok + ak - s * ak
            hit[3] = e0 + di + dj + dk - s * (dj + dk) - t * di
    if tk < 0.0:  # the face t_k = 0
        value, s, t = _triangle(oi, ok, oj, e0, ai, 0.0, aj, di, dj, best)
        if value < best:
            best = value
            hit[i] = oi + s * ai
            hit[j] = oj + t * aj
            hit[k] = ok
            hit[3] = e0 + s * di + t * dj
    return best


@njit(cache=True, error_model="numpy")
def _kuhn(v, t0, t1, t2):
    """Interpolant of eight corner values at local coordinates t."""
    if t0 >= t1:
        if t1 >= t2:
            return v[0] + t0 * (v[4] - v[0]) + t1 * (v[6] - v[4]) + t2 * (v[7] - v[6])
        if t0 >= t2:
            return v[0] + t0 * (v[4] - v[0]) + t2 * (v[5] - v[4]) + t1 * (v[7] - v[5])
        return v[0] + t2 * (v[1] - v[0]) + t0 * (v[5] - v[1]) + t1 * (v[7] - v[5])
    if t0 >= t2:
        return v[0] + t1 * (v[2] - v[0]) + t0 * (v[6] - v[2]) + t2 * (v[7] - v[6])
    if t1 >= t2:
        return v[0] + t1 * (v[2] - v[0]) + t2 * (v[3] - v[2]) + t0 * (v[7] - v[3])
    return v[0] + t2 * (v[1] - v[0]) + t1 * (v[3] - v[1]) + t0 * (v[7] - v[3])


@njit(cache=True, error_model="numpy")
def _nearest(low, high):
    """Coordinate of an interval that is closest to 0, and the sides of it that lie in the interval.

    Sides: 1 beyond the near point, -1 before it, 0 both.
    """
    if low >= 0.0:
        return low, 1
    if high <= 0.0:
        return high, -1
    return 0.0, 0


@njit(cache=True, error_model="numpy")
def _descent(g0, g1, g2, g3, side, sign):
    """Fastest fall of |residual| per unit of distance among four parallel edges of a cell."""
    up = max(g0, g1, g2, g3)
    down = -min(g0, g1, g2, g3)
    if sign < 0.0:
        up, down = down, up
    if side > 0:
        up = 0.0
    elif side < 0:
        down = 0.0
    return max(up, down, 0.0)


@njit(cache=True, error_model="numpy")
def _out_of_reach(p0, p1, p2, e, r0, r1, r2, best):
    """Whether no point of a cell can be closer than ``best``: near point p, |residual| e there, descent r.

    A step u >= 0 away from p leaves at least |p + u|^2 + (e - r u)^2. Along axes with p >= r e no step
    pays; along the others the least value over all u, of either sign, is that of a hyperplane.
    """
    c = e
    s = 1.0
    rest = best
    for p, r in ((p0, r0), (p1, r1), (p2, r2)):
        if p < r * e:
            c += r * p
            s += r * r
        else:
            rest -= p * p
    return c * c >= rest * s


@njit(cache=True, error_model="numpy")
def _plane(e0, l0, l1, l2, w0, w1, w2, g0, g1, g2):
    """Projection on the hyperplane of a linear dose: squared distance, residual, local coordinates."""
    c = e0 - g0 * l0 - g1 * l1 - g2 * l2
    m = c / (1.0 + g0 * g0 + g1 * g1 + g2 * g2)
    return c * m, m, (-m * g0 - l0) * w0, (-m * g1 - l1) * w1, (-m * g2 - l2) * w2


@njit(cache=True, error_model="numpy")
def _inside(m, g0, g1, g2, hit):
    """Store the projection on a hyperplane as the closest point."""
    hit[0] = -m * g0
    hit[1] = -m * g1
    hit[2] = -m * g2
    hit[3] = m


@njit(cache=True, error_model="numpy")
def _cell(v, l0, l1, l2, h0, h1, h2, best, hit):
    """Closest point of a cell with corner residuals v, low corner l and high corner h around the point.

    The near point of the box first, then a bound from there, then the six tetrahedra: their
    hyperplanes, and the faces of those that hold no projection but could be closer still.
    """
    w0 = 1.0 / (h0 - l0)
    w1 = 1.0 / (h1 - l1)
    w2 = 1.0 / (h2 - l2)
    p0, s0 = _nearest(l0, h0)
    p1, s1 = _nearest(l1, h1)
    p2, s2 = _nearest(l2, h2)
    distance = p0 * p0 + p1 * p1 + p2 * p2
    e = _kuhn(v, (p0 - l0) * w0, (p1 - l1) * w1, (p2 - l2) * w2)
    if distance + e * e < best:
        best = distance + e * e
        hit[0] = p0
        hit[1] = p1
        hit[2] = p2
        hit[3] = e
    sign = 1.0 if e > 0.0 else -1.0
    z00, z01, z10, z11 = (v[4] - v[0]) * w0, (v[5] - v[1]) * w0, (v[6] - v[2]) * w0, (v[7] - v[3]) * w0
    y00, y01, y10, y11 = (v[2] - v[0]) * w1, (v[3] - v[1]) * w1, (v[6] - v[4]) * w1, (v[7] - v[5]) * w1
    x00, x01, x10, x11 = (v[1] - v[0]) * w2, (v[3] - v[2]) * w2, (v[5] - v[4]) * w2, (v[7] - v[6]) * w2
    r0 = _descent(z00, z01, z10, z11, s0, sign)
    r1 = _descent(y00, y01, y10, y11, s1, sign)
    r2 = _descent(x00, x01, x10, x11, s2, sign)
    if _out_of_reach(abs(p0), abs(p1), abs(p2), abs(e), r0, r1, r2, best):
        return best
    v0 = v[0]
    b0, m, t0, t1, t2 = _plane(v0, l0, l1, l2, w0, w1, w2, z00, y10, x11)
    if b0 < best and 1.0 >= t0 >= t1 >= t2 >= 0.0:
        best = b0
        _inside(m, z00, y10, x11, hit)
    b1, m, t0, t1, t2 = _plane(v0, l0, l1, l2, w0, w1, w2, z00, y11, x10)
    if b1 < best and 1.0 >= t0 >= t2 >= t1 >= 0.0:
        best = b1
        _inside(m, z00, y11, x10, hit)
    b2, m, t0, t1, t2 = _plane(v0, l0, l1, l2, w0, w1, w2, z10, y00, x11)
    if b2 < best and 1.0 >= t1 >= t0 >= t2 >= 0.0:
        best = b2
        _inside(m, z10, y00, x11, hit)
    b3, m, t0, t1, t2 = _plane(v0, l0, l1, l2, w0, w1, w2, z11, y00, x01)
    if b3 < best and 1.0 >= t1 >= t2 >= t0 >= 0.0:
        best = b3
        _inside(m, z11, y00, x01, hit)
    b4, m, t0, t1, t2 = _plane(v0, l0, l1, l2, w0, w1, w2, z01, y11, x00)
    if b4 < best and 1.0 >= t2 >= t0 >= t1 >= 0.0:
        best = b4
        _inside(m, z01, y11, x00, hit)
    b5, m, t0, t1, t2 = _plane(v0, l0, l1, l2, w0, w1, w2, z11, y01, x00)
    if b5 < best and 1.0 >= t2 >= t1 >= t0 >= 0.0:
        best = b5
        _inside(m, z11, y01, x00, hit)
    a0 = h0 - l0
    a1 = h1 - l1
    a2 = h2 - l2
    if b0 < best:
        best = _faces(0, 1, 2, l0, l1, l2, a0, a1, a2, v0, z00, y10, x11, best, hit)
    if b1 < best:
        best = _faces(0, 2, 1, l0, l2, l1, a0, a2, a1, v0, z00, x10, y11, best, hit)
    if b2 < best:
        best = _faces(1, 0, 2, l1, l0, l2, a1, a0, a2, v0, y00, z10, x11, best, hit)
    if b3 < best:
        best = _faces(1, 2, 0, l1, l2, l0, a1, a2, a0, v0, y00, x01, z11, best, hit)
    if b4 < best:
        best = _faces(2, 0, 1, l2, l0, l1, a2, a0, a1, v0, x00, z01, y11, best, hit)
    if b5 < best:
        best = _faces(2, 1, 0, l2, l1, l0, a2, a1, a0, v0, x00, y01, z11, best, hit)
    return best


@njit(cache=True, error_model="numpy")
def _corners(dose, z0, z1, y0, y1, x0, x1, d, inverse, v):
    """Residuals at the corners of a cell, in criterion units, from the flat dose."""
    a, b, c, e = z0 + y0, z0 + y1, z1 + y0, z1 + y1
    v[0] = (dose[np.uintp(a + x0)] - d) * inverse
    v[1] = (dose[np.uintp(a + x1)] - d) * inverse
    v[2] = (dose[np.uintp(b + x0)] - d) * inverse
    v[3] = (dose[np.uintp(b + x1)] - d) * inverse
    v[4] = (dose[np.uintp(c + x0)] - d) * inverse
    v[5] = (dose[np.uintp(c + x1)] - d) * inverse
    v[6] = (dose[np.uintp(e + x0)] - d) * inverse
    v[7] = (dose[np.uintp(e + x1)] - d) * inverse


@njit(cache=True, error_model="numpy")
def _gap(ranges, at, d):
    """Distance of a dose from the range (smallest, minus largest) stored at a flat position."""
    return max(ranges[np.uintp(at)] - d, ranges[np.uintp(at + 1)] + d, 0.0)


@njit(cache=True, error_model="numpy")
def _search_block(
    first, last, index, reference, dose, ranges, reach, axes, corners, homes, offsets, near, criteria,
    value, hits,
):  # fmt: skip
    """Gamma of consecutive points, each search seeded by the cell that its predecessor ended in."""
    z_node, y_node, x_node, z_position, y_position, x_position = axes
    z0, z1, y0, y1, x0, x1 = corners
    z_home, y_home, x_home = homes
    inverse_global, inverse_local, max_square = criteria
    ny, nx = y_position.size, x_position.size
    nz_cell, ny_cell, nx_cell = z_node.size - 1, y_node.size - 1, x_node.size - 1
    ny_pair, nx_pair = (ny_cell + 1) // 2, (nx_cell + 1) // 2
    v = np.empty(8)
    hit = np.empty(4)
    sz, sy, sx = 0, 0, 0  # the seed: offset of the cell that held the last closest point
    for q in range(first, last):
        row = index[q] // nx
        ix = index[q] - row * nx
        iz = row // ny
        iy = row - iz * ny
        pz, py, px = z_position[iz], y_position[iy], x_position[ix]
        hz, hy, hx = z_home[iz], y_home[iy], x_home[ix]
        d = reference[q]
        inverse = inverse_global if inverse_local == 0.0 else inverse_local / d
        best = max_square
        hit[:] = math.nan
        floor = (_gap(reach, 2 * (((hz // 2) * ny_pair + hy // 2) * nx_pair + hx // 2), d) * inverse) ** 2
        tz, ty, tx = sz, sy, sx
        for m in range(-1, near.size):
            oz, oy, ox, distance = tz, ty, tx, 0.0
            if m >= 0:
                oz, oy, ox, distance = offsets[m, 0], offsets[m, 1], offsets[m, 2], near[m]
            if distance + floor >= best:
                break
            cz, cy, cx = hz + oz, hy + oy, hx + ox
            if cz < 0 or cz >= nz_cell or cy < 0 or cy >= ny_cell or cx < 0 or cx >= nx_cell:
                continue
            gap = (_gap(ranges, 2 * ((cz * ny_cell + cy) * nx_cell + cx), d) * inverse) ** 2
            if distance + gap >= best or (m >= 0 and oz == tz and oy == ty and ox == tx):
                continue
            lz, uz = z_node[cz] - pz, z_node[cz + 1] - pz
            ly, uy = y_node[cy] - py, y_node[cy + 1] - py
            lx, ux = x_node[cx] - px, x_node[cx + 1] - px
            distance = max(lz, -uz, 0.0) ** 2 + max(ly, -uy, 0.0) ** 2 + max(lx, -ux, 0.0) ** 2
            if distance + max(floor, gap) >= best:
                continue
            _corners(dose, z0[cz], z1[cz], y0[cy], y1[cy], x0[cx], x1[cx], d, inverse, v)
            found = _cell(v, lz, ly, lx, uz, uy, ux, best, hit)
            if found < best:
                best = found
                sz, sy, sx = oz, oy, ox
        value[q] = math.sqrt(best)
        hits[q, 0] = hit[2]
        hits[q, 1] = hit[1]
        hits[q, 2] = hit[0]
        hits[q, 3] = hit[3]


@njit(cache=True, error_model="numpy", parallel=True)
def search(
    first, last, lanes, index, reference, dose, ranges, reach, axes, corners, homes, offsets, near, criteria,
    value, hits,
):  # fmt: skip
    """Gamma and the closest point (x, y, z, dose) of the points from ``first`` to ``last``.

    Blocks are dealt to ``lanes`` threads in turn, so that each gets its share of every region.
    ``index`` flat reference indices, ``reference`` their doses; ``dose`` flat evaluated dose, ``ranges``
    of the cells, ``reach`` of all cells within reach; ``axes`` nodes and positions, ``corners`` flat voxel
    offsets, ``near`` least squared distance of each cell offset; ``criteria`` 1 / global criterion,
    1 / local criterion or 0, squared maximum gamma.
    """
    n_blocks = (last - first + POINTS_PER_BLOCK - 1) // POINTS_PER_BLOCK
    per_lane = (n_blocks + lanes - 1) // lanes
    for task in prange(lanes * per_lane):
        block = (task % per_lane) * lanes + task // per_lane
        if block < n_blocks:
            start = first + block * POINTS_PER_BLOCK
            stop = min(last, start + POINTS_PER_BLOCK)
            _search_block(
                start, stop, index, reference, dose, ranges, reach, axes, corners, homes, offsets, near,
                criteria, value, hits,
            )  # fmt: skip


@njit(cache=True, error_model="numpy", parallel=True)
def search_voxels(first, last, index, reference, dose, axes, homes, offsets, near, criteria, value, hits):
    """Gamma and the closest voxel centre (x, y, z, dose) of the points from ``first`` to ``last``."""
    z_node, y_node, x_node, z_position, y_position, x_position = axes
    z_home, y_home, x_home = homes
    inverse_global, inverse_local, max_square = criteria
    nz, n_rows, n_columns = dose.shape
    ny, nx = y_position.size, x_position.size
    for q in prange(first, last):
        row = index[q] // nx
        ix = index[q] - row * nx
        iz = row // ny
        iy = row - iz * ny
        d = reference[q]
        inverse = inverse_global if inverse_local == 0.0 else inverse_local / d
        best = max_square
        hits[q, :] = math.nan
        for m in range(near.size):
            if near[m] >= best:
                break
            vz = z_home[iz] + offsets[m, 0]
            vy = y_home[iy] + offsets[m, 1]
            vx = x_home[ix] + offsets[m, 2]
            if vz < 0 or vz >= nz or vy < 0 or vy >= n_rows or vx < 0 or vx >= n_columns:
                continue
            e = (dose[vz, vy, vx] - d) * inverse
            dz = z_node[vz] - z_position[iz]
            dy = y_node[vy] - y_position[iy]
            dx = x_node[vx] - x_position[ix]
            found = dz * dz + dy * dy + dx * dx + e * e
            if found < best:
                best = found
                hits[q, 0] = dx
                hits[q, 1] = dy
                hits[q, 2] = dz
                hits[q, 3] = e
        value[q] = math.sqrt(best)
