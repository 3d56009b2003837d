"""Gaussian soft minimum on a grid, axis by axis, in logarithms: no underflow at any width."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dosemover._runtime import available_cores

_RANGE = 600.0
"""Exponents within one block of sources spread by at most this; e^-708 is the smallest double."""

_CHUNK = 1 << 15
"""Values per piece of work: a fixed cut, so that results do not depend on the number of threads."""

Centers = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]


class AxisKernel:
    """log sum_j exp(v_j - (x_i - y_j)^2 / 2 s^2) along one axis.

    Sources are cut into blocks so narrow that, for every output, the kernel spans less than `_RANGE`
    inside each; a block's largest exponent is taken out before exponents are raised.
    """

    def __init__(self, outputs: NDArray[Any], sources: NDArray[Any], sigma: float) -> None:
        span = max(outputs.max(), sources.max()) - min(outputs.min(), sources.min())
        limit = _RANGE * 2 * sigma**2
        width = limit / (span + np.sqrt(span * span + limit))  # solves 2 span w + w^2 = limit
        cells = np.floor((sources - sources[0]) / max(width, 1e-300))
        starts = np.flatnonzero(np.concatenate([[True], np.diff(cells) > 0]))
        self.blocks: list[tuple[slice, NDArray[np.float64], NDArray[np.float64]]] = []
        for start, stop in zip(starts, np.append(starts[1:], sources.size), strict=True):
            squared = np.square(outputs[:, None] - sources[None, start:stop]) / (2 * sigma**2)
            nearest = squared.min(axis=1)
            self.blocks.append((slice(start, stop), np.exp(nearest[:, None] - squared), -nearest))

    def __call__(self, v: NDArray[np.float64]) -> NDArray[np.float64]:
        """Apply along the middle axis of v, shape (m, sources, n)."""
        total = None
        for cut, kernel, offset in self.blocks:
            part = v[:, cut]
            top = part.max(axis=1, keepdims=True)
            top[~np.isfinite(top)] = 0.0
            with np.errstate(divide="ignore"):
                term = np.log(np.matmul(kernel, np.exp(part - top)))
            term += top
            term += offset[None, :, None]
            total = term if total is None else np.logaddexp(total, term, out=total)
        assert total is not None
        return total


def _along(kernel: AxisKernel, v: NDArray[np.float64], axis: int, pool: ThreadPoolExecutor) -> NDArray[Any]:
    """Apply a kernel along one axis of a volume, piece by piece."""
    n = v.shape[axis]
    m, k = int(np.prod(v.shape[:axis])), int(np.prod(v.shape[axis + 1 :]))
    flat = v.reshape(m, n, k)
    if axis == 2:
        pieces = np.array_split(flat.reshape(m, n), max(1, v.size // _CHUNK), axis=0)
        done = list(pool.map(lambda piece: kernel(piece.T[None])[0].T, pieces))
        flat = np.concatenate(done, axis=0)
    elif axis == 1:
        pieces = np.array_split(flat, max(1, min(m, v.size // _CHUNK)), axis=0)
        flat = np.concatenate(list(pool.map(kernel, pieces)), axis=0)
    else:
        pieces = np.array_split(flat, max(1, v.size // _CHUNK), axis=2)
        flat = np.concatenate(list(pool.map(kernel, pieces)), axis=2)
    return flat.reshape(*v.shape[:axis], -1, *v.shape[axis + 1 :])


def soft_minimum(
    v: NDArray[np.float64], *, outputs: Centers, sources: Centers, sigma: float, pool: ThreadPoolExecutor
) -> NDArray[np.float64]:
    """-s^2 log sum_y exp(v(y) - |x - y|^2 / 2 s^2) at the points of a grid.

    Parameters
    ----------
    v : ndarray, shape of the sources
        Exponents: potential over s^2 plus the logarithm of the mass; -inf where there is none.
    outputs, sources : tuple of three ndarray
        Coordinates (z, y, x) [mm].
    sigma : float
        s [mm].
    pool : ThreadPoolExecutor
        Of `workers`.

    Returns
    -------
    ndarray, shape of the outputs
        Soft minimum [mm^2].
    """
    for axis, (out, source) in enumerate(zip(outputs, sources, strict=True)):
        v = _along(AxisKernel(out, source, sigma), v, axis, pool)
    return -(sigma**2) * v


@contextmanager
def workers() -> Iterator[ThreadPoolExecutor]:
    """Threads for `soft_minimum`, as many as cores, each with a linear algebra of one thread."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, "blas"), ThreadPoolExecutor(max_workers=available_cores()) as pool:
        yield pool
