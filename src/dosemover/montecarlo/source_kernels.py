"""Source particles: scalar device functions that sample one photon of a set of beams.

A beam is one row of numbers; the columns are named below. Positions in mm. A beam with a gantry angle is
described at gantry 0 and turned about its pivot, around the z axis.
"""

from __future__ import annotations

import math

import numpy as np

from dosemover.montecarlo.photon_kernels import isotropic
from dosemover.montecarlo.rng_kernels import device, larger, smaller, stream, unit

KIND, POSITION, DIRECTION, ACROSS, ALONG, PIVOT = 0, 1, 4, 7, 10, 13
ANGLE, ARC, DISTANCE, SHAPE, FIELD, BLUR, SOLID_ANGLE, FIRST, COUNT = 16, 17, 18, 19, 20, 24, 25, 26, 27
COSINE, SINE = 28, 29
N_COLUMNS = 30

PARALLEL, DIVERGENT, POINT, PHASE_SPACE = 0, 1, 2, 3
RECTANGLE, CIRCLE = 0, 1

MISSED = 1e300

SAMPLING_BATCH = 1 << 40
"""Batch number of photons sampled to look at the source, far from those of simulations."""


@device
def sampled_energy(spectra, first, count, s, g):
    """Energy from an alias table with columns (energy, width, probability, alias)."""
    s += g
    t = unit(s) * count
    i = smaller(int(t), count - 1)
    if t - i >= spectra[first + i, 2]:
        i = int(spectra[first + i, 3])
    energy = spectra[first + i, 0]
    width = spectra[first + i, 1]
    if width > 0.0:
        s += g
        energy += width * (unit(s) - 0.5)
    return energy, s


@device
def aimed_point(beams, b, s, g):
    """Point in the field plane: uniform in area, or in solid angle, blurred by the penumbra."""
    distance = beams[b, DISTANCE]
    while True:
        s += g
        p = unit(s)
        s += g
        q = unit(s)
        if beams[b, SHAPE] == CIRCLE:
            r = math.sqrt(p)
            x = beams[b, FIELD] + beams[b, FIELD + 1] * r * math.cos(2.0 * math.pi * q)
            y = beams[b, FIELD + 2] + beams[b, FIELD + 3] * r * math.sin(2.0 * math.pi * q)
        else:
            x = beams[b, FIELD] + (beams[b, FIELD + 1] - beams[b, FIELD]) * p
            y = beams[b, FIELD + 2] + (beams[b, FIELD + 3] - beams[b, FIELD + 2]) * q
        if beams[b, SOLID_ANGLE] == 0.0:
            break
        s += g
        cosine = distance / math.sqrt(x * x + y * y + distance * distance)
        if unit(s) < cosine * cosine * cosine:
            break
    if beams[b, BLUR] > 0.0:
        s += g
        r = beams[b, BLUR] * math.sqrt(-2.0 * math.log(unit(s)))
        s += g
        angle = 2.0 * math.pi * unit(s)
        x += r * math.cos(angle)
        y += r * math.sin(angle)
    return x, y, s


@device
def beam_photon(beams, b, s, g):
    """Position and direction of a photon of a parallel, divergent or point beam."""
    px, py, pz = beams[b, POSITION], beams[b, POSITION + 1], beams[b, POSITION + 2]
    if beams[b, KIND] == POINT:
        u, v, w, s = isotropic(s, g)
    else:
        x, y, s = aimed_point(beams, b, s, g)
        u, v, w = beams[b, DIRECTION], beams[b, DIRECTION + 1], beams[b, DIRECTION + 2]
        ax = x * beams[b, ACROSS] + y * beams[b, ALONG]
        ay = x * beams[b, ACROSS + 1] + y * beams[b, ALONG + 1]
        az = x * beams[b, ACROSS + 2] + y * beams[b, ALONG + 2]
        if beams[b, KIND] == PARALLEL:
            px, py, pz = px + ax, py + ay, pz + az
        else:
            distance = beams[b, DISTANCE]
            u, v, w = ax + distance * u, ay + distance * v, az + distance * w
            norm = 1.0 / math.sqrt(u * u + v * v + w * w)
            u, v, w = u * norm, v * norm, w * norm
    cosine, sine = beams[b, COSINE], beams[b, SINE]
    if beams[b, ARC] != 0.0:
        s += g
        angle = beams[b, ANGLE] + beams[b, ARC] * unit(s)
        cosine, sine = math.cos(angle), math.sin(angle)
    x = beams[b, PIVOT] + cosine * px - sine * py
    y = beams[b, PIVOT + 1] + sine * px + cosine * py
    z = beams[b, PIVOT + 2] + pz
    return x, y, z, cosine * u - sine * v, sine * u + cosine * v, w, s


@device
def source_photon(beams, cumulative, spectra, particles, sequence, s, g):
    """One photon of the source: position, direction, energy [MeV], weight, beam, state.

    ``sequence`` is the history's number among all batches: it walks through a phase space.
    """
    b = 0
    if beams.shape[0] > 1:
        s += g
        r = unit(s)
        low, high = 0, beams.shape[0] - 1
        while low < high:
            middle = (low + high) // 2
            if r < cumulative[middle]:
                high = middle
            else:
                low = middle + 1
        b = low
    first, count = int(beams[b, FIRST]), int(beams[b, COUNT])
    if beams[b, KIND] == PHASE_SPACE:
        i = first + sequence % count
        x, y, z = particles[i, 0], particles[i, 1], particles[i, 2]
        u, v, w = particles[i, 3], particles[i, 4], particles[i, 5]
        return x, y, z, u, v, w, particles[i, 6], particles[i, 7], b, s
    x, y, z, u, v, w, s = beam_photon(beams, b, s, g)
    energy, s = sampled_energy(spectra, first, count, s, g)
    return x, y, z, u, v, w, energy, 1.0, b, s


@device
def clipped(p, d, low, high, near, far):
    """Part of a ray inside one pair of planes."""
    if d == 0.0:
        if p < low or p >= high:
            return MISSED, -MISSED
        return near, far
    a, b = (low - p) / d, (high - p) / d
    if a > b:
        a, b = b, a
    return larger(near, a), smaller(far, b)


@device
def distance_to_box(x, y, z, u, v, w, box):
    """Distance along a ray to a box (0 from inside), or MISSED.

    The box holds the low corner (0 to 2), voxel size (3 to 5), number of voxels (6 to 8) and voxels per mm (9
    to 11) along x, y, z.
    """
    near, far = clipped(x, u, box[0], box[0] + box[3] * box[6], 0.0, MISSED)
    near, far = clipped(y, v, box[1], box[1] + box[4] * box[7], near, far)
    near, far = clipped(z, w, box[2], box[2] + box[5] * box[8], near, far)
    if far <= near:
        return MISSED
    return near


@device
def sample_sources(seed, beams, cumulative, spectra, particles, sampled, beam):
    """Fill rows (x, y, z, u, v, w, energy, weight) and the beam of each with source photons."""
    for n in range(sampled.shape[0]):
        s, g = stream(np.uint64(seed), np.uint64(SAMPLING_BATCH), np.uint64(n))
        x, y, z, u, v, w, energy, weight, b, s = source_photon(beams, cumulative, spectra, particles, n, s, g)
        sampled[n, 0], sampled[n, 1], sampled[n, 2] = x, y, z
        sampled[n, 3], sampled[n, 4], sampled[n, 5] = u, v, w
        sampled[n, 6], sampled[n, 7] = energy, weight
        beam[n] = b


@device
def box_distances(sampled, box, distance):
    """Distance to the box along each row's ray, or MISSED."""
    for n in range(sampled.shape[0]):
        distance[n] = distance_to_box(
            sampled[n, 0], sampled[n, 1], sampled[n, 2], sampled[n, 3], sampled[n, 4], sampled[n, 5], box
        )
