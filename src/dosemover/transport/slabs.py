"""Slabs of an array given to threads: every kernel writes its own rows, so the bits do not depend on N."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

_SMALL = 30_000
"""Voxels below which handing slabs to threads costs more than it saves."""

_pools: dict[tuple[int, int], ThreadPoolExecutor] = {}


def _threads() -> int:
    """Number of threads that Numba may use now."""
    import numba

    return int(numba.get_num_threads())


def _pool(n_threads: int) -> ThreadPoolExecutor:
    """One pool per process and size; a forked child makes its own."""
    key = (os.getpid(), n_threads)
    if key not in _pools:
        _pools[key] = ThreadPoolExecutor(n_threads, thread_name_prefix="dosemover")
    return _pools[key]


def each_slab(kernel: Callable[..., Any], n: int, work: int, *args: Any) -> None:
    """Call ``kernel(low, high, *args)`` on slabs that cover range(n).

    Parameters
    ----------
    kernel : callable
        A compiled kernel that releases the GIL and writes only rows low to high.
    n : int
        Number of rows.
    work : int
        Number of voxels, from which it is judged whether threads pay.
    """
    n_threads = min(_threads(), n)
    if n_threads < 2 or work < _SMALL:
        kernel(0, n, *args)
        return
    cuts = [n * i // n_threads for i in range(n_threads + 1)]
    pool = _pool(n_threads)
    futures = [pool.submit(kernel, low, high, *args) for low, high in pairwise(cuts[1:])]
    try:
        kernel(cuts[0], cuts[1], *args)
    finally:
        for future in futures:
            future.result()


def dot(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Inner product, added plane by plane in a fixed order."""
    from dosemover.transport.multigrid_kernels import dot_planes

    partial = np.empty(x.shape[0])
    each_slab(dot_planes, x.shape[0], x.size, x, y, partial)
    return float(partial.sum())
