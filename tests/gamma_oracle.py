"""Gamma by brute force: a constrained least-squares solve of every tetrahedron, by code of its own.

The evaluated dose is linear on the six tetrahedra of each cell of the grid of nodes: voxel centres,
and the outer boundaries, where the dose is that of the outermost voxel. In criterion units a point of
a tetrahedron is a convex combination of its four vertices (x, y, z, dose); the least norm over
convex combinations is found by solving the equality-constrained problem on every subset of vertices
and keeping the feasible ones.
"""

from __future__ import annotations

from itertools import combinations, permutations

import numpy as np

from dosemover.dose import DoseMap


def _nodes(edges):
    if edges.size == 2:
        return edges.copy()
    return np.concatenate([edges[:1], (edges[1:] + edges[:-1]) / 2, edges[-1:]])


def tetrahedra(dose: DoseMap):
    """Vertices of every tetrahedron, shape (tetrahedra, 4, 4): z, y, x [mm] and dose [Gy]."""
    values = np.asarray(dose.dose_gy, dtype=float)
    for axis, n in enumerate(values.shape):
        values = np.concatenate([values] * 2, axis) if n == 1 else np.pad(
            values, [(1, 1) if a == axis else (0, 0) for a in range(3)], mode="edge"
        )  # fmt: skip
    mesh = np.meshgrid(*(_nodes(e) for e in dose.grid.edges_mm), indexing="ij")
    points = np.stack([*mesh, values], axis=-1)
    cells = np.array(list(np.ndindex(*(n - 1 for n in values.shape))))
    out = []
    for path in permutations(range(3)):
        corner = cells.copy()
        vertices = [points[tuple(corner.T)]]
        for axis in path:
            corner[:, axis] += 1
            vertices.append(points[tuple(corner.T)])
        out.append(np.stack(vertices, axis=1))
    return np.concatenate(out)


def least_norm_square(simplices):
    """Squared distance of the origin from each simplex, shape (n, 4 vertices, d)."""
    best = np.sum(simplices**2, axis=2).min(axis=1)
    for size in (2, 3, 4):
        for subset in combinations(range(4), size):
            base = simplices[:, subset[0]]
            steps = simplices[:, subset[1:]] - base[:, None]
            # least squares through the QR factors: base + steps' w closest to 0
            q, r = np.linalg.qr(np.swapaxes(steps, 1, 2))
            w = np.linalg.solve(r, -np.einsum("nds,nd->ns", q, base)[..., None])[..., 0]
            feasible = (w >= 0).all(axis=1) & (w.sum(axis=1) <= 1)
            point = base + np.einsum("ns,nsd->nd", w, steps)
            best = np.where(feasible, np.minimum(best, np.sum(point**2, axis=1)), best)
    return best


def gamma_oracle(*, reference, evaluated, points, dose_criteria_gy, distance_criterion_mm, max_gamma):
    """Gamma of reference voxels ``points`` (index triples) at one dose criterion [Gy] each."""
    simplices = tetrahedra(evaluated)
    z, y, x = reference.grid.centers_mm
    found = []
    for (i, j, k), criterion in zip(points, dose_criteria_gy, strict=True):
        origin = np.array([z[i], y[j], x[k], float(reference.dose_gy[i, j, k])])
        scale = np.array([*[distance_criterion_mm] * 3, criterion])
        local = (simplices - origin) / scale
        # no vertex box closer than max_gamma: the simplex cannot count
        low, high = local.min(axis=1), local.max(axis=1)
        near = np.sum(np.maximum(np.maximum(low, -high), 0.0) ** 2, axis=1) <= max_gamma**2
        square = least_norm_square(local[near]).min() if near.any() else np.inf
        found.append(min(np.sqrt(square), max_gamma))
    return np.array(found)
