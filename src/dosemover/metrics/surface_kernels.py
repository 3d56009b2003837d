"""Distances from points to isodose surfaces: triangles, and level sets of linear tetrahedra."""

from __future__ import annotations

import numpy as np
from numba import njit, prange

KUHN_AXES = np.array([[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]], dtype=np.int64)
"""Order of axes along which the six tetrahedra of a cell go from its low to its high corner."""


@njit(cache=True, error_model="numpy")
def triangle_distance2(p, a, b, c):
    """Squared distance from p to the triangle a b c (Ericson 2005, closest point by regions)."""
    ab0, ab1, ab2 = b[0] - a[0], b[1] - a[1], b[2] - a[2]
    ac0, ac1, ac2 = c[0] - a[0], c[1] - a[1], c[2] - a[2]
    ap0, ap1, ap2 = p[0] - a[0], p[1] - a[1], p[2] - a[2]
    d1 = ab0 * ap0 + ab1 * ap1 + ab2 * ap2
    d2 = ac0 * ap0 + ac1 * ap1 + ac2 * ap2
    s, t = 0.0, 0.0
    bp0, bp1, bp2 = p[0] - b[0], p[1] - b[1], p[2] - b[2]
    d3 = ab0 * bp0 + ab1 * bp1 + ab2 * bp2
    d4 = ac0 * bp0 + ac1 * bp1 + ac2 * bp2
    cp0, cp1, cp2 = p[0] - c[0], p[1] - c[1], p[2] - c[2]
    d5 = ab0 * cp0 + ab1 * cp1 + ab2 * cp2
    d6 = ac0 * cp0 + ac1 * cp1 + ac2 * cp2
    va = d3 * d6 - d5 * d4
    vb = d5 * d2 - d1 * d6
    vc = d1 * d4 - d3 * d2
    if d1 <= 0.0 and d2 <= 0.0:
        s, t = 0.0, 0.0
    elif d3 >= 0.0 and d4 <= d3:
        s, t = 1.0, 0.0
    elif d6 >= 0.0 and d5 <= d6:
        s, t = 0.0, 1.0
    elif vc <= 0.0 and d1 >= 0.0 and d3 <= 0.0:
        s, t = d1 / (d1 - d3), 0.0
    elif vb <= 0.0 and d2 >= 0.0 and d6 <= 0.0:
        s, t = 0.0, d2 / (d2 - d6)
    elif va <= 0.0 and d4 - d3 >= 0.0 and d5 - d6 >= 0.0:
        t = (d4 - d3) / ((d4 - d3) + (d5 - d6))
        s = 1.0 - t
    else:
        total = va + vb + vc
        s, t = vb / total, vc / total
    r0 = ap0 - s * ab0 - t * ac0
    r1 = ap1 - s * ab1 - t * ac1
    r2 = ap2 - s * ab2 - t * ac2
    return r0 * r0 + r1 * r1 + r2 * r2


@njit(cache=True, error_model="numpy")
def tetrahedron_level_distance2(p, corner, value, crossing, best):
    """Squared distance from p to where the linear function on a tetrahedron is 0, or ``best``.

    ``corner`` [4, 3] positions, ``value`` [4] dose minus level, ``crossing`` [4, 3] work space.
    """
    n_above = 0
    for i in range(4):
        if value[i] >= 0.0:
            n_above += 1
        if value[i] == 0.0:
            d2 = 0.0
            for axis in range(3):
                d2 += (p[axis] - corner[i, axis]) ** 2
            best = min(best, d2)
    if n_above in (0, 4):
        return best
    n = 0
    for i in range(4):
        for j in range(i + 1, 4):
            if (value[i] >= 0.0) != (value[j] >= 0.0):
                share = value[i] / (value[i] - value[j])
                for axis in range(3):
                    crossing[n, axis] = corner[i, axis] + share * (corner[j, axis] - corner[i, axis])
                n += 1
    best = min(best, triangle_distance2(p, crossing[0], crossing[1], crossing[2]))
    if n == 4:  # edges in order ac ad bc bd: the quadrilateral is abc and bcd
        best = min(best, triangle_distance2(p, crossing[1], crossing[2], crossing[3]))
    return best


@njit(cache=True, error_model="numpy")
def cell_level_distance2(p, dose, level, z, y, x, k, j, i, work, best):
    """Squared distance from p to the isodose inside one cell of the Kuhn split, or ``best``."""
    corner, value, crossing = work[0], work[1, 0], work[2]
    index = np.empty(3, np.int64)
    for tetrahedron in range(6):
        index[0], index[1], index[2] = k, j, i
        for vertex in range(4):
            if vertex > 0:
                index[KUHN_AXES[tetrahedron, vertex - 1]] += 1
            corner[vertex, 0] = z[index[0]]
            corner[vertex, 1] = y[index[1]]
            corner[vertex, 2] = x[index[2]]
            value[vertex] = dose[index[0], index[1], index[2]] - level
        best = tetrahedron_level_distance2(p, corner, value, crossing, best)
    return best


@njit(cache=True, error_model="numpy")
def _gap(centers, index, cell):
    """Distance along one axis from voxel centre ``index`` to the cell between two centres."""
    if cell >= index:
        return centers[cell] - centers[index]
    return centers[index] - centers[cell + 1]


@njit(cache=True, error_model="numpy")
def _ring_gap(centers, index, ring):
    """Distance along one axis to the nearer end layer of cells of a ring; infinite outside."""
    gap = np.inf
    if index + ring < centers.size - 1:
        gap = centers[index + ring] - centers[index]
    if index - 1 - ring >= 0:
        gap = min(gap, centers[index] - centers[index - ring])
    return gap


@njit(cache=True, error_model="numpy")
def nearest_level_distance(dose, low, high, level, z, y, x, k0, j0, i0, reach, work):
    """Distance from a voxel centre to the nearest point with dose ``level``, ``reach`` at most."""
    p = work[3, 0]
    p[0], p[1], p[2] = z[k0], y[j0], x[i0]
    best = reach * reach
    nz, ny, nx = low.shape
    ring = 0
    while True:
        bound = min(_ring_gap(z, k0, ring), _ring_gap(y, j0, ring), _ring_gap(x, i0, ring))
        if bound * bound >= best:
            break
        for k in range(max(k0 - 1 - ring, 0), min(k0 + ring, nz - 1) + 1):
            gz = _gap(z, k0, k) ** 2
            if gz >= best:
                continue
            z_end = k in (k0 - 1 - ring, k0 + ring)
            for j in range(max(j0 - 1 - ring, 0), min(j0 + ring, ny - 1) + 1):
                gzy = gz + _gap(y, j0, j) ** 2
                if gzy >= best:
                    continue
                step = 1 if z_end or j in (j0 - 1 - ring, j0 + ring) else 2 * ring + 1
                for i in range(i0 - 1 - ring, i0 + ring + 1, step):
                    if i < 0 or i >= nx or low[k, j, i] > level or high[k, j, i] < level:
                        continue
                    if gzy + _gap(x, i0, i) ** 2 < best:
                        best = cell_level_distance2(p, dose, level, z, y, x, k, j, i, work, best)
        ring += 1
    return np.sqrt(best)


@njit(cache=True, error_model="numpy", parallel=True)
def level_distances(dose, low, high, levels, z, y, x, points, reach, distance):
    """`nearest_level_distance` of many voxels: ``points`` [n, 3] indices, ``levels`` [n] doses."""
    n = points.shape[0]
    chunk = 1024
    for block in prange((n + chunk - 1) // chunk):
        work = np.empty((4, 4, 4), np.float64)
        for m in range(block * chunk, min((block + 1) * chunk, n)):
            distance[m] = nearest_level_distance(
                dose, low, high, levels[m], z, y, x, points[m, 0], points[m, 1], points[m, 2], reach, work
            )


@njit(cache=True, error_model="numpy", parallel=True)
def mesh_distances(points, vertices, faces, near, face_start, face_of_vertex, distance):
    """Distance from each point to the faces that touch its nearest vertices ``near`` [n, m]."""
    chunk = 1024
    n = points.shape[0]
    for block in prange((n + chunk - 1) // chunk):
        for m in range(block * chunk, min((block + 1) * chunk, n)):
            best = np.inf
            for c in range(near.shape[1]):
                vertex = near[m, c]
                for f in range(face_start[vertex], face_start[vertex + 1]):
                    face = face_of_vertex[f]
                    d2 = triangle_distance2(
                        points[m],
                        vertices[faces[face, 0]],
                        vertices[faces[face, 1]],
                        vertices[faces[face, 2]],
                    )
                    best = min(best, d2)
            distance[m] = np.sqrt(best)
