"""Random numbers as a function of (seed, batch, history): split streams of SplitMix64.

Steele, Lea & Flood 2014: the state advances by an odd constant of its own stream (gamma) and is hashed to
give a number. A history's state and gamma are hashes of (seed, batch, history), so any thread can start any
history, and the bits do not depend on who did.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

_OPTIONS: dict[str, Any] = {"cache": True, "error_model": "numpy", "_nrt": False}

device = njit(**_OPTIONS)
"""Compiles a scalar function that makes no arrays, so that Numba counts no references in it (half the "
"time)."""

released = njit(nogil=True, **_OPTIONS)
"""Likewise, for the loops that run in threads."""

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_M1 = np.uint64(0xBF58476D1CE4E5B9)
_M2 = np.uint64(0x94D049BB133111EB)
_M3 = np.uint64(0xFF51AFD7ED558CCD)
_M4 = np.uint64(0xC4CEB9FE1A85EC53)
_ALTERNATING = np.uint64(0xAAAAAAAAAAAAAAAA)
_P1 = np.uint64(0x5555555555555555)
_P2 = np.uint64(0x3333333333333333)
_P4 = np.uint64(0x0F0F0F0F0F0F0F0F)
_P8 = np.uint64(0x0101010101010101)
_ONE, _TWO, _FOUR = np.uint64(1), np.uint64(2), np.uint64(4)
_S12, _S27, _S30, _S31, _S33, _S56 = (np.uint64(n) for n in (12, 27, 30, 31, 33, 56))
_FEW_BITS = np.uint64(24)


@device
def larger(a, b):
    """The larger of two numbers (CUDA lacks ``max`` in some versions of Numba)."""
    return a if a > b else b


@device
def smaller(a, b):
    """The smaller of two numbers."""
    return a if a < b else b


@device
def mix(z):
    """Hash of 64 bits (variant 13 of the finaliser of MurmurHash3)."""
    z = (z ^ (z >> _S30)) * _M1
    z = (z ^ (z >> _S27)) * _M2
    return z ^ (z >> _S31)


@device
def mix_gamma(z):
    """Odd stream constant with enough bit changes (Steele, Lea & Flood 2014)."""
    z = (z ^ (z >> _S33)) * _M3
    z = (z ^ (z >> _S33)) * _M4
    z = (z ^ (z >> _S33)) | _ONE
    n = z ^ (z >> _ONE)
    n = n - ((n >> _ONE) & _P1)
    n = (n & _P2) + ((n >> _TWO) & _P2)
    n = (((n + (n >> _FOUR)) & _P4) * _P8) >> _S56
    if n < _FEW_BITS:
        return z ^ _ALTERNATING
    return z


@device
def stream(seed, batch, history):
    """State and gamma of a history's stream; all arguments unsigned 64-bit."""
    key = mix(mix(seed + _GOLDEN) + batch * _M1 + _GOLDEN)
    state = mix(key + history * _GOLDEN)
    return state, mix_gamma(state + _GOLDEN)


@device
def unit(state):
    """Uniform number in the open interval (0, 1) from an advanced state."""
    return float(mix(state) >> _S12) * 2.220446049250313e-16 + 1.1102230246251565e-16
