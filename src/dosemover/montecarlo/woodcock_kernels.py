"""Analog photon transport by Woodcock tracking in voxels, and the tallies of a history.

A photon is followed until it is absorbed, falls below the cutoff or leaves; electrons deposit their energy
where they start (kerma). ``track_history`` is scalar and allocates nothing: the CPU loop below and the CUDA
kernel both call it.
"""

from __future__ import annotations

import math

import numpy as np

from dosemover.montecarlo.photon_kernels import (
    COMPTON,
    ELECTRON_REST_MEV,
    PAIR,
    PHOTO,
    azimuth,
    compton,
    grid_position,
    isotropic,
    pick_channel,
    rayleigh,
    section_at,
    turned,
)
from dosemover.montecarlo.rng_kernels import device, larger, released, smaller, stream, unit
from dosemover.montecarlo.source_kernels import MISSED, distance_to_box, source_photon

EMITTED, DEPOSITED, ESCAPED, INTERACTIONS, ENTERED, WEIGHT = 0, 1, 2, 3, 4, 5
N_BALANCE = 6

BLOCK_BITS = 3
"""Blocks of equal voxels are 2^BLOCK_BITS voxels a side."""

WAITING = 512
"""Deposits that wait to be added to the tally together."""

MARGIN = 2048
"""Free places that a sample buffer must have for one more history."""

STACK_SHAPE = (16, 8)
"""Photons waiting to be followed: an annihilation photon per pair."""


@device
def drain(tally, waiting):
    """Add the deposits that wait (how many numbers, then voxel and energy of each) to the tally."""
    for k in range(1, int(waiting[0]), 2):
        tally[int(waiting[k])] += waiting[k + 1]
    waiting[0] = 0.0


@device
def score(voxel, energy, history, tally, square, current, last):
    """Add energy to a voxel; where ``last`` is not None, also the square of what each history gives it.

    Where it is None, deposits first wait in ``current``: many voxels are then fetched from memory at a time,
    and each still gets its deposits in their order.
    """
    if last is None:
        n = int(current[0])
        current[n + 1], current[n + 2] = voxel, energy
        current[0] = n + 2
        if n + 4 >= current.size:
            drain(tally, current)
    elif last[voxel] == history:
        current[voxel] += energy
    else:
        tally[voxel] += current[voxel]
        square[voxel] += current[voxel] * current[voxel]
        current[voxel] = energy
        last[voxel] = history


@device
def record(x, y, z, energy, samples, filled):
    """Append a deposit to the sample buffer."""
    n = filled[0]
    samples[n, 0] = x
    samples[n, 1] = y
    samples[n, 2] = z
    samples[n, 3] = energy
    filled[0] = n + 1


@device
def medium_at(x, y, z, box, medium, blocks, palette):
    """Flat index of the voxel at a point (-1 outside), its density and material.

    Blocks of 8^3 equal voxels hold a row of the palette, which is small enough for the fastest memory; the
    rest hold -1, and the voxel itself is read.
    """
    a = (x - box[0]) * box[9]
    b = (y - box[1]) * box[10]
    c = (z - box[2]) * box[11]
    if a < 0.0 or b < 0.0 or c < 0.0 or a >= box[6] or b >= box[7] or c >= box[8]:
        return -1, 0.0, 0
    ix, iy, iz = int(a), int(b), int(c)
    voxel = (iz * int(box[7]) + iy) * int(box[6]) + ix
    row = int(blocks[iz >> BLOCK_BITS, iy >> BLOCK_BITS, ix >> BLOCK_BITS])
    if row >= 0:
        return voxel, palette[row, 0], int(palette[row, 1])
    return voxel, float(medium[voxel, 0]), int(medium[voxel, 1])


@device
def push(stack, depth, x, y, z, u, v, w, energy, weight):
    """Keep a photon for later."""
    stack[depth, 0], stack[depth, 1], stack[depth, 2] = x, y, z
    stack[depth, 3], stack[depth, 4], stack[depth, 5] = u, v, w
    stack[depth, 6], stack[depth, 7] = energy, weight
    return depth + 1


@device
def collide(channel, energy, u, v, w, incoherent, form, material, s, g):
    """Outcome of an interaction: energy to electrons, scattered photon's energy (0: none), direction.

    Pair production returns one annihilation photon; its twin goes the opposite way.
    """
    if channel == COMPTON:
        ratio, cosine, s = compton(energy, incoherent, material, s, g)
        a, b, s = azimuth(s, g)
        u, v, w = turned(u, v, w, cosine, a, b)
        return energy * (1.0 - ratio), energy * ratio, u, v, w, s
    if channel == PHOTO:
        return energy, 0.0, u, v, w, s
    if channel == PAIR:
        u, v, w, s = isotropic(s, g)
        return energy - 2.0 * ELECTRON_REST_MEV, ELECTRON_REST_MEV, u, v, w, s
    cosine, s = rayleigh(energy, form, material, s, g)
    a, b, s = azimuth(s, g)
    u, v, w = turned(u, v, w, cosine, a, b)
    return 0.0, energy, u, v, w, s


@device
def free_flight(x, y, z, u, v, w, majorant, i, f, medium, blocks, palette, section, box, s, g):
    """Fly to the next real interaction: position, voxel (-1: left), material, its share q of the section."""
    while True:
        s += g
        d = -math.log(unit(s)) / majorant
        x += d * u
        y += d * v
        z += d * w
        voxel, rho, m = medium_at(x, y, z, box, medium, blocks, palette)
        if voxel < 0:
            return x, y, z, voxel, m, 0.0, s
        s += g
        q = unit(s) * majorant
        if q < rho * section_at(section, m, 3, i, f):
            return x, y, z, voxel, m, q / rho, s


@device
def corner_flight(
    x, y, z, u, v, w, i, f, scale, block, group, medium, blocks, palette, section, box, majorant, s, g
):
    """The same by super-voxels: each block of ``block`` voxels a side has its own majorant."""
    bx, by, bz = scale.shape[2], scale.shape[1], scale.shape[0]
    hx, hy, hz = box[3] * block, box[4] * block, box[5] * block
    ix = smaller(larger(int((x - box[0]) / hx), 0), bx - 1)
    iy = smaller(larger(int((y - box[1]) / hy), 0), by - 1)
    iz = smaller(larger(int((z - box[2]) / hz), 0), bz - 1)
    while True:
        tx = (box[0] + (ix + (1 if u > 0.0 else 0)) * hx - x) / u if u != 0.0 else MISSED
        ty = (box[1] + (iy + (1 if v > 0.0 else 0)) * hy - y) / v if v != 0.0 else MISSED
        tz = (box[2] + (iz + (1 if w > 0.0 else 0)) * hz - z) / w if w != 0.0 else MISSED
        edge = larger(smaller(smaller(tx, ty), tz), 0.0)
        local = majorant * scale[iz, iy, ix, group]
        s += g
        d = -math.log(unit(s)) / local if local > 0.0 else MISSED
        if d < edge:
            x += d * u
            y += d * v
            z += d * w
            voxel, rho, m = medium_at(x, y, z, box, medium, blocks, palette)
            if voxel < 0:
                return x, y, z, voxel, m, 0.0, s
            s += g
            q = unit(s) * local
            if q < rho * section_at(section, m, 3, i, f):
                return x, y, z, voxel, m, q / rho, s
            continue
        x += edge * u
        y += edge * v
        z += edge * w
        if tx <= ty and tx <= tz:
            ix += 1 if u > 0.0 else -1
        elif ty <= tz:
            iy += 1 if v > 0.0 else -1
        else:
            iz += 1 if w > 0.0 else -1
        if ix < 0 or iy < 0 or iz < 0 or ix >= bx or iy >= by or iz >= bz:
            return x, y, z, -1, 0, 0.0, s


@device
def track_history(
    sequence, history, s, g, beams, cumulative, spectra, particles, box, medium, blocks, palette, section,
    maximum, incoherent, form, scale, block, cutoff, stack, tally, square, current, last, samples,
    filled, balance,
):  # fmt: skip
    """Follow one source photon and its annihilation photons to their ends."""
    n_energies = section.shape[1]
    x, y, z, u, v, w, energy, weight, _, s = source_photon(
        beams, cumulative, spectra, particles, sequence, s, g
    )
    balance[EMITTED] += weight * energy
    balance[WEIGHT] += weight
    gap = distance_to_box(x, y, z, u, v, w, box)
    if gap == MISSED:
        balance[ESCAPED] += weight * energy
        return
    balance[ENTERED] += 1.0
    depth = push(stack, 0, x + gap * u, y + gap * v, z + gap * w, u, v, w, energy, weight)
    while depth > 0:
        depth -= 1
        x, y, z = stack[depth, 0], stack[depth, 1], stack[depth, 2]
        u, v, w = stack[depth, 3], stack[depth, 4], stack[depth, 5]
        energy, weight = stack[depth, 6], stack[depth, 7]
        while energy > 0.0:
            i, f = grid_position(energy, n_energies)
            majorant = maximum[i] + f * (maximum[i + 1] - maximum[i])
            if scale is not None:
                group = i * scale.shape[3] // n_energies
                x, y, z, voxel, m, q, s = corner_flight(
                    x, y, z, u, v, w, i, f, scale, block, group, medium, blocks, palette, section, box,
                    majorant, s, g,
                )  # fmt: skip
            else:
                x, y, z, voxel, m, q, s = free_flight(
                    x, y, z, u, v, w, majorant, i, f, medium, blocks, palette, section, box, s, g
                )
            if voxel < 0:
                balance[ESCAPED] += weight * energy
                break
            balance[INTERACTIONS] += 1.0
            channel = pick_channel(section, m, i, f, q)
            given, energy, u, v, w, s = collide(channel, energy, u, v, w, incoherent, form, m, s, g)
            if energy < cutoff:
                given += 2.0 * energy if channel == PAIR else energy
                energy = 0.0
            elif channel == PAIR:
                depth = push(stack, depth, x, y, z, -u, -v, -w, energy, weight)
            if given > 0.0:
                balance[DEPOSITED] += weight * given
                score(voxel, weight * given, history, tally, square, current, last)
                if samples is not None:
                    record(x, y, z, weight * given, samples, filled)


@device
def flush(tally, square, current, last):
    """Close the open histories of all voxels."""
    for voxel in range(last.size):
        if last[voxel] >= 0:
            tally[voxel] += current[voxel]
            square[voxel] += current[voxel] * current[voxel]
            current[voxel] = 0.0
            last[voxel] = -1


@released
def run_batch(
    seed, batch, n_batches, first, stop, beams, cumulative, spectra, particles, box, medium, blocks, palette,
    section, maximum, incoherent, form, scale, block, cutoff, stack, tally, square, current, last, samples,
    filled, balance,
):  # fmt: skip
    """Histories ``first`` to ``stop`` of a batch, in order; returns where it stopped.

    It stops before ``stop`` only where the sample buffer is full.
    """
    history = first
    while history < stop:
        if samples is not None and filled[0] > samples.shape[0] - MARGIN:
            break
        s, g = stream(np.uint64(seed), np.uint64(batch), np.uint64(history))
        track_history(
            history * n_batches + batch, history, s, g, beams, cumulative, spectra, particles, box, medium,
            blocks, palette, section, maximum, incoherent, form, scale, block, cutoff, stack, tally,
            square, current, last, samples, filled, balance,
        )  # fmt: skip
        history += 1
    if last is None:
        drain(tally, current)
    else:
        flush(tally, square, current, last)
    return history
