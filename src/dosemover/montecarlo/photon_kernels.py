"""Photon interactions: scalar device functions that Numba compiles for CPU and CUDA alike.

A function that draws random numbers takes the state ``s`` and gamma ``g`` of the history's stream and returns
the advanced state last.
"""

from __future__ import annotations

import math

from dosemover.montecarlo.rng_kernels import device, larger, smaller, unit

ELECTRON_REST_MEV = 0.51099895
INVERSE_ANGSTROM_PER_MEV = 1000.0 / 12.398419843

POINTS_PER_OCTAVE = 128.0
"""Points of the energy grid from an energy to its double."""

LOWEST_EXPONENT = -9
"""The grid begins at 2^(LOWEST_EXPONENT - 1) MeV."""

COMPTON, RAYLEIGH, PAIR, PHOTO = 0, 1, 2, 3


@device
def grid_position(energy, n):
    """Lower index and fraction of an energy on the grid of n points, even within each factor of two.

    The exponent and mantissa of the number are its place: no logarithm is taken.
    """
    mantissa, exponent = math.frexp(energy)
    t = (2.0 * mantissa - 1.0 + (exponent - LOWEST_EXPONENT)) * POINTS_PER_OCTAVE
    i = smaller(larger(int(t), 0), n - 2)
    return i, smaller(larger(t - i, 0.0), 1.0)


@device
def section_at(section, material, column, i, f):
    """One column of the section table, linear between grid points."""
    low = section[material, i, column]
    return low + f * (section[material, i + 1, column] - low)


@device
def pick_channel(section, material, i, f, q):
    """Channel of an interaction; q is uniform between 0 and the total cross section."""
    if q < section_at(section, material, 0, i, f):
        return COMPTON
    if q < section_at(section, material, 1, i, f):
        return RAYLEIGH
    if q < section_at(section, material, 2, i, f):
        return PAIR
    return PHOTO


@device
def azimuth(s, g):
    """Cosine and sine of an angle uniform on the circle (von Neumann 1951)."""
    while True:
        s += g
        x = 2.0 * unit(s) - 1.0
        s += g
        y = unit(s)
        r2 = x * x + y * y
        if 0.0 < r2 <= 1.0:
            return (x * x - y * y) / r2, 2.0 * x * y / r2, s


@device
def turned(u, v, w, cosine, a, b):
    """Direction after scattering by an angle with this cosine, azimuth of cosine a and sine b."""
    sine = math.sqrt(larger(0.0, 1.0 - cosine * cosine))
    a *= sine
    b *= sine
    rho2 = u * u + v * v
    if rho2 < 1e-10:
        if w > 0.0:
            return a, b, cosine
        return a, -b, -cosine
    inverse = 1.0 / math.sqrt(rho2)
    un = u * cosine + (a * u * w - b * v) * inverse
    vn = v * cosine + (a * v * w + b * u) * inverse
    wn = w * cosine - a * rho2 * inverse
    norm = 1.5 - 0.5 * (un * un + vn * vn + wn * wn)
    return un * norm, vn * norm, wn * norm


@device
def isotropic(s, g):
    """Direction uniform on the sphere."""
    s += g
    cosine = 2.0 * unit(s) - 1.0
    a, b, s = azimuth(s, g)
    sine = math.sqrt(larger(0.0, 1.0 - cosine * cosine))
    return sine * a, sine * b, cosine, s


@device
def incoherent_share(incoherent, material, x):
    """Incoherent scattering function per electron at x [1/angstrom]."""
    n = incoherent.shape[1]
    t = x / (1.0 + x) * (n - 1)
    i = smaller(int(t), n - 2)
    return incoherent[material, i] + (t - i) * (incoherent[material, i + 1] - incoherent[material, i])


@device
def compton(energy, incoherent, material, s, g):
    """Energy ratio E'/E and cosine of a Compton scattering.

    Klein-Nishina by composition and rejection (Butcher & Messel 1960), times S(x), the share of electrons.
    """
    k = energy / ELECTRON_REST_MEV
    lowest = 1.0 / (1.0 + 2.0 * k)
    a1 = -math.log(lowest)
    a2 = 0.5 * (1.0 - lowest * lowest)
    scale = energy * INVERSE_ANGSTROM_PER_MEV
    while True:
        s += g
        first = unit(s) * (a1 + a2) < a1
        s += g
        r = unit(s)
        square = lowest * lowest
        ratio = math.exp(-a1 * r) if first else math.sqrt(square + (1.0 - square) * r)
        t = smaller((1.0 - ratio) / (k * ratio), 2.0)
        accept = 1.0 - ratio * t * (2.0 - t) / (1.0 + ratio * ratio)
        s += g
        r = unit(s)
        if r < accept:
            share = incoherent_share(incoherent, material, scale * math.sqrt(0.5 * t))
            if r < accept * share:
                return ratio, 1.0 - t, s


@device
def rayleigh(energy, table, material, s, g):
    """Cosine of a Rayleigh scattering: F^2(x) in x^2 by inversion, (1 + cos^2)/2 by rejection."""
    n = table.shape[2]
    x2_max = (energy * INVERSE_ANGSTROM_PER_MEV) ** 2
    low, high = 0, n - 1
    while high - low > 1:
        middle = (low + high) // 2
        if table[material, 0, middle] <= x2_max:
            low = middle
        else:
            high = middle
    width = table[material, 0, high] - table[material, 0, low]
    f = smaller((x2_max - table[material, 0, low]) / width, 1.0)
    total = table[material, 1, low] + f * (table[material, 1, high] - table[material, 1, low])
    while True:
        s += g
        target = unit(s) * total
        low, high = 0, n - 1
        while high - low > 1:
            middle = (low + high) // 2
            if table[material, 1, middle] <= target:
                low = middle
            else:
                high = middle
        step = table[material, 1, high] - table[material, 1, low]
        f = (target - table[material, 1, low]) / step if step > 0.0 else 0.0
        x2 = table[material, 0, low] + f * (table[material, 0, high] - table[material, 0, low])
        cosine = larger(1.0 - 2.0 * x2 / x2_max, -1.0)
        s += g
        if unit(s) < 0.5 * (1.0 + cosine * cosine):
            return cosine, s
