"""Loops of the certified half-steps; a kernel owns rows low to high and adds into one number a plane."""

from __future__ import annotations

import numpy as np
from numba import njit

from dosemover.transport.shape_kernels import products, repeat_missing, second_moments, spans
from dosemover.transport.spline_kernels import load_plane, load_row


@njit(cache=True, error_model="numpy", nogil=True)
def _second_plane(c, i, s0, out):
    """Second derivative of coefficients along axis 0 on plane i."""
    n0, n1, n2 = c.shape
    A = c[max(i - 1, 0)]
    B = c[i]
    C = c[min(i + 1, n0 - 1)]
    for j in range(n1):
        for k in range(n2):
            out[j, k] = s0[i, 0] * A[j, k] + s0[i, 1] * B[j, k] + s0[i, 2] * C[j, k]


@njit(cache=True, error_model="numpy", nogil=True)
def _note_jump(values, rises, falls):
    """Keep the largest rise and the largest fall of a jump."""
    for k in range(values.size):
        rises[k] = max(rises[k], values[k])
        falls[k] = max(falls[k], -values[k])


@njit(cache=True, error_model="numpy", nogil=True)
def _face_jumps(i, j, n0, planes, N, Y, b1, b2, s1, s2, np1, np2, X, T, V, jumps):
    """Rise and fall of the second derivative across the faces of row (i, j): jumps[axis, face, sign, k].

    ``planes`` holds the second derivative along axis 0 on planes i - 1, i, i + 1, N the Bezier points along
    axis 0 of plane i, Y those of the row.
    """
    n1, n2 = N.shape[1:]
    jumps[:] = 0.0
    for face in range(2):
        if 0 <= i - 1 + 2 * face < n0:
            D = planes[face + 1 : face + 2]
            E = planes[face : face + 1]
            load_row(D, j, b1, b2, 1, np1, np2, X, T)
            for q in range(np1):
                for r in range(np2):
                    V[q, r] = T[0, q, r]
            load_row(E, j, b1, b2, 1, np1, np2, X, T)
            for q in range(np1):
                for r in range(np2):
                    for k in range(n2):
                        V[q, r, k] -= T[0, q, r, k]
                    _note_jump(V[q, r], jumps[0, face, 0], jumps[0, face, 1])
        if 0 <= j - 1 + 2 * face < n1:
            x = j - 1 + face
            y = x + 1
            for p in range(N.shape[0]):
                P = N[p]
                for k in range(n2):
                    high = (
                        s1[y, 0] * P[max(y - 1, 0), k]
                        + s1[y, 1] * P[y, k]
                        + s1[y, 2] * P[min(y + 1, n1 - 1), k]
                    )
                    low = s1[x, 0] * P[max(x - 1, 0), k] + s1[x, 1] * P[x, k] + s1[x, 2] * P[y, k]
                    X[k + 1] = high - low
                for r in range(np2):
                    for k in range(n2):
                        V[0, r, k] = b2[r, 0, k] * X[k] + b2[r, 1, k] * X[k + 1] + b2[r, 2, k] * X[k + 2]
                    _note_jump(V[0, r], jumps[1, face, 0], jumps[1, face, 1])
    for p in range(3):
        for q in range(3):
            for k in range(n2):
                X[k + 1] = s2[k] * (Y[p, q, 0, k] - 2 * Y[p, q, 1, k] + Y[p, q, 2, k])
            for k in range(n2 - 1):
                v = X[k + 2] - X[k + 1]
                jumps[2, 1, 0, k] = max(jumps[2, 1, 0, k], v)
                jumps[2, 1, 1, k] = max(jumps[2, 1, 1, k], -v)
                jumps[2, 0, 0, k + 1] = max(jumps[2, 0, 0, k + 1], v)
                jumps[2, 0, 1, k + 1] = max(jumps[2, 0, 1, k + 1], -v)


@njit(cache=True, error_model="numpy", nogil=True)
def _kicks(k, jumps, up, down, ih, beside, f, step, out):
    """Means over a voxel of what the jumps on the way from x to x - g/2 cost, for phi (side 0) and psi (1).

    out[side] bounds g.e g, out[2 + side] |e' g|^2; e, e' are the change of the Hessian in the mean over the
    way with Taylor's and with even weights. From distance d < P of a face, a way of length P along its axis
    crosses it with the weights (1 - d/P)^2 and 1 - d/P: of mean P/3h, and 1 - d/P of mean square P/3h. Faces
    of other rows, after crossing into them, and further faces of its own row, where P exceeds the width
    ``beside``, jump by at most ``step`` times the widths before them. out[4 + side] is the sum of P/h.
    """
    for m in range(6):
        out[m] = 0.0
    for side in range(2):
        total = 0.0
        for axis in range(3):
            total += ih[axis] * ih[axis] * f * (up[axis, k] + down[axis, k])
        out[4 + side] = total
        for axis in range(3):
            h = ih[axis]
            across = total - h * h * f * (up[axis, k] + down[axis, k])
            for face in range(2):
                rises = (face == 0) == (side == 0)
                g = 2 * h * f * (up[axis, k] if rises else down[axis, k])
                way = 0.5 * g
                share = way * h
                crossed = min(share / 3, 1.0)
                further = step * way if way > beside[axis, face] else 0.0
                rise = f * jumps[axis, face, 0, k]
                fall = f * jumps[axis, face, 1, k]
                worse = rise if face == side else fall
                larger = max(rise, fall) + further
                other = step / h + further
                turning = min(share * across / 12, 1.0)
                most = step * (way / 3 + 1 / h)
                out[side] += min((worse + further) * crossed + other * turning, most) * g * g
                most = step * (way / 2 + 1 / h)
                out[2 + side] += min(larger**2 * crossed + other**2 * turning, most**2) * g * g


@njit(cache=True, error_model="numpy", nogil=True)
def _invariants(k, E, lo, hi, M, V, ih, g, out):
    """Mean |g|^2 and, with the Hessian H = C + deviation: mean g.C g, root mean |C g|^2, deviation on g.

    C is the middle of H's range, its deviation at most R times |g|, or its mean, its deviation in the root
    mean at most the largest |g| times its standard deviation: whichever is less. The fourth number is the
    deviation over the root mean of |g|^2.
    """
    x = ih[0]
    y = ih[1]
    z = ih[2]
    xx = x * x * E[1, k]
    yy = y * y * E[2, k]
    zz = z * z * E[3, k]
    xy = x * y * E[4, k]
    xz = x * z * E[5, k]
    yz = y * z * E[6, k]
    rxx = x * x * (hi[0, k] - lo[0, k])
    ryy = y * y * (hi[1, k] - lo[1, k])
    rzz = z * z * (hi[2, k] - lo[2, k])
    rxy = 2 * x * y * (hi[3, k] - lo[3, k])
    rxz = 2 * x * z * (hi[4, k] - lo[4, k])
    ryz = 2 * y * z * (hi[5, k] - lo[5, k])
    rows = max(rxx + rxy + rxz, rxy + ryy + ryz, rxz + ryz + rzz)
    radius = min(rows, np.sqrt(rxx**2 + ryy**2 + rzz**2 + 2 * (rxy**2 + rxz**2 + ryz**2)))
    m2 = xx + yy + zz
    spread = x**4 * V[0, k] + y**4 * V[1, k] + z**4 * V[2, k]
    spread += 2 * (x * x * y * y * V[3, k] + x * x * z * z * V[4, k] + y * y * z * z * V[5, k])
    spread = g * np.sqrt(spread) / np.sqrt(m2) if m2 > 0 else 0.0
    if spread < radius:
        radius = spread
        cxx = x * x * M[0, k]
        cyy = y * y * M[1, k]
        czz = z * z * M[2, k]
        cxy = x * y * M[3, k]
        cxz = x * z * M[4, k]
        cyz = y * z * M[5, k]
    else:
        cxx = x * x * (lo[0, k] + hi[0, k])
        cyy = y * y * (lo[1, k] + hi[1, k])
        czz = z * z * (lo[2, k] + hi[2, k])
        cxy = 2 * x * y * (lo[3, k] + hi[3, k])
        cxz = 2 * x * z * (lo[4, k] + hi[4, k])
        cyz = 2 * y * z * (lo[5, k] + hi[5, k])
    q2 = (cxx * cxx + cxy * cxy + cxz * cxz) * xx + (cxy * cxy + cyy * cyy + cyz * cyz) * yy
    q2 += (cxz * cxz + cyz * cyz + czz * czz) * zz
    q2 += 2 * (cxx * cxy + cxy * cyy + cxz * cyz) * xy
    q2 += 2 * (cxx * cxz + cxy * cyz + cxz * czz) * xz
    q2 += 2 * (cxy * cxz + cyy * cyz + cyz * czz) * yz
    out[0] = m2
    out[1] = cxx * xx + cyy * yy + czz * zz + 2 * (cxy * xy + cxz * xz + cyz * yz)
    out[2] = np.sqrt(max(q2, 0.0)) + radius * np.sqrt(m2)
    out[3] = radius


@njit(cache=True, error_model="numpy", nogil=True)
def _remainders(f, inv, g, hess, inside, around, kick, out):
    """Loss of phi and of psi, the odd term g.H g/4 and its blur, for the multiple f of w (bounds.py).

    ``inside`` and ``around`` bound |D3 w| in the voxel and in its window: beyond the faces that a way
    crosses, of which ``kick`` tells the shares, the larger one counts.
    """
    m2 = f * f * inv[0]
    top = f * f * g * g
    beta = 0.5 * f * hess
    way = 0.5 * f * g
    own = f * inside * way
    more = f * max(around - inside, 0.0) * way
    for side in range(2):
        share = kick[4 + side]
        bent = own * m2 / 3 + more * top * min(share / 12, 1 / 3) + kick[side]
        rate = f * f * inv[2] + own * np.sqrt(m2) / 2 + more * np.sqrt(top * min(share / 20, 1 / 4))
        turned = min((rate + np.sqrt(kick[2 + side])) ** 2, 4 * beta * beta * m2)
        out[side] = 0.25 * bent + 0.125 * turned / (1 - beta)
    out[2] = 0.25 * f * f * f * inv[1]
    out[3] = 0.25 * f * inv[3] * m2


@njit(cache=True, error_model="numpy", nogil=True)
def _beside(ih, i, out):
    """Widths of the voxels before and after voxel i of an axis, itself beyond the ends."""
    out[0] = 1 / ih[max(i - 1, 0)]
    out[1] = 1 / ih[min(i + 1, ih.size - 1)]


@njit(cache=True, error_model="numpy", nogil=True)
def half_steps(
    low, high, c, a, b, blocks, t0, t1, t2, b0, b1, b2, s0, s1, s2, ih0, ih1, ih2, grad, inside, near, hess,
    smooth, jump, scales, K, partial, excess,
):  # fmt: skip
    """Certified sums over voxels of a p + b q at each multiple of w; a, b constant in blocks of voxels.

    p, q = K (1 - exp(-phi / K)), the half-steps phi, psi of +-w bounded from below (bounds.py). ``grad`` and
    ``inside`` bound |grad w| and |D3 w| in the voxel; ``near``, ``hess``, ``smooth``, ``jump`` bound the
    window that holds the minimiser. ``excess`` receives the cost of the remainders over the kinetic term.
    """
    n0, n1, n2 = c.shape
    np0 = 3 if n0 > 1 else 1
    np1 = 3 if n1 > 1 else 1
    np2 = 3 if n2 > 1 else 1
    Z = np.zeros((3, n1, n2))
    N = np.zeros((3, n1, n2))
    planes = np.zeros((3, n1, n2))
    X = np.zeros(n2 + 2)
    Y = np.zeros((3, 3, 3, n2))
    T = np.zeros((1, 3, 3, n2))
    V = np.zeros((3, 3, n2))
    E = np.zeros((7, n2))
    M = np.empty((6, n2))
    S = np.empty((6, n2))
    beside = np.empty((3, 2))
    lo = np.empty((6, n2))
    hi = np.empty((6, n2))
    up = np.empty((3, n2))
    down = np.empty((3, n2))
    jumps = np.empty((3, 2, 2, n2))
    mean = np.empty(n2)
    ih = np.empty(3)
    inv = np.empty(4)
    kick = np.empty(6)
    rest = np.empty(4)
    for i in range(low, high):
        partial[i] = 0.0
        load_plane(c, i, t0, np0, Z)
        load_plane(c, i, b0, np0, N)
        for m in range(3):
            if 0 <= i - 1 + m < n0:
                _second_plane(c, i - 1 + m, s0, planes[m])
        ih[0] = ih0[i]
        _beside(ih0, i, beside[0])
        for j in range(n1):
            ih[1] = ih1[j]
            _beside(ih1, j, beside[1])
            Y[:] = 0.0
            load_row(Z, j, t1, t2, np0, np1, np2, X, Y)
            products(Y, E)
            second_moments(Y, M, S)
            mean[:] = Y[0, 0, 0]
            load_row(N, j, b1, b2, np0, np1, np2, X, Y)
            repeat_missing(Y, np0, np1, np2)
            spans(Y, lo, hi, up, down)
            _face_jumps(i, j, n0, planes, N[:np0], Y, b1, b2, s1, s2, np1, np2, X, T, V, jumps)
            X[0] = 0.0
            X[n2 + 1] = 0.0
            for k in range(n2):
                da = a[i // blocks[0], j // blocks[1], k // blocks[2]]
                db = b[i // blocks[0], j // blocks[1], k // blocks[2]]
                excess[i, j, k] = 0.0
                if da <= 0 and db <= 0:
                    continue
                ih[2] = ih2[k]
                _beside(ih2, k, beside[2])
                w = mean[k]
                g = np.float64(grad[i, j, k])
                diameter = np.sqrt(1 / ih[0] ** 2 + 1 / ih[1] ** 2 + 1 / ih[2] ** 2)
                _invariants(k, E, lo, hi, M, S, ih, g, inv)
                for s in range(scales.size):
                    f = scales[s]
                    kin = 0.5 * f * f * inv[0]
                    around = 0.5 * f * f * np.float64(near[i, j, k]) ** 2
                    A = da * np.exp(-2 * f * w / K)
                    B = db * np.exp(2 * f * w / K)
                    lost = (A + B) * (around - kin)
                    beta = 0.5 * f * np.float64(hess[i, j, k])
                    if beta < 0.95:
                        _kicks(k, jumps, up, down, ih, beside, f, f * np.float64(jump[i, j, k]), kick)
                        _remainders(
                            f, inv, g, np.float64(hess[i, j, k]), np.float64(inside[i, j, k]),
                            np.float64(smooth[i, j, k]), kick, rest,
                        )  # fmt: skip
                        found = A * rest[0] + B * rest[1] - (A - B) * rest[2] + abs(A - B) * rest[3]
                        lost = min(lost, found)
                    shift = np.exp(2 * f * g * diameter / K)
                    factor = shift * (1 + 0.5 * around / K * np.exp(around / K))
                    variance = max(E[0, k] - w * w, 0.0)
                    total = -K * (da * np.expm1(-2 * f * w / K) + db * np.expm1(2 * f * w / K))
                    total -= (A + B) * 2 * f * f * variance / K * shift
                    total -= factor * ((A + B) * kin + lost)
                    partial[i, s] += total / (ih[0] * ih[1] * ih[2])
                    if s == 0 and kin > 0:
                        excess[i, j, k] = min(max(lost / ((A + B) * kin), 0.0), 1e4)
