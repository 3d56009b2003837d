"""Photon transport along rays from voxel to voxel: track-length estimator and weighted flights.

Where ``woodcock_kernels`` jumps between tentative collisions, these kernels know the optical depth along
a ray, which the track-length estimator, forced interactions and the exponential transform need. Photons
carry weights; every method leaves the expected tally unchanged.
"""

from __future__ import annotations

import math

import numpy as np

from dosemover.montecarlo.photon_kernels import PAIR, grid_position, pick_channel, section_at
from dosemover.montecarlo.rng_kernels import device, larger, released, smaller, stream, unit
from dosemover.montecarlo.source_kernels import MISSED, distance_to_box, source_photon
from dosemover.montecarlo.woodcock_kernels import (
    DEPOSITED,
    EMITTED,
    ENTERED,
    ESCAPED,
    INTERACTIONS,
    MARGIN,
    WEIGHT,
    collide,
    drain,
    flush,
    record,
    score,
)

MOST_COPIES = 20
STACK = 400
NUDGE_MM = 1e-7
"""A photon that stopped between two voxels goes on this far inside the second."""
STACK_SHAPE = (STACK + 4 * MOST_COPIES, 10)

TRACK_LENGTH, FORCED, STRETCH, STRETCH_U, ROULETTE = 0, 1, 2, 3, 6
N_OPTIONS = 7


@device
def attenuated_length(length, depth, step, decay):
    """Integral of exp(-decay tau) along a piece of length whose optical depth goes from depth by step."""
    if decay == 0.0:
        return length
    x = decay * step
    start = math.exp(-decay * depth)
    if abs(x) < 1e-6:
        return length * start * (1.0 - 0.5 * x)
    return length * start * (-math.expm1(-x) / x)


@device
def first_plane(p, d, low, step, i):
    """Distance to the next plane of voxels, and from plane to plane."""
    if d > 0.0:
        return (low + (i + 1) * step - p) / d, step / d
    if d < 0.0:
        return (low + i * step - p) / d, -step / d
    return MISSED, MISSED


@device
def walk(
    x, y, z, u, v, w, target, energy, weight, decay, scoring, history, medium, importance, value, box,
    attenuation, transfer, tally, square, current, last,
):  # fmt: skip
    """Follow a ray to optical depth ``target`` or out.

    Returns length, voxel (-1: out), depth, energy scored, and whether it stopped short because the importance
    had doubled or halved against ``value``. With ``scoring`` each voxel gets weight x energy x mu_tr x the
    integral of exp(-decay tau).
    """
    nx, ny, nz = int(box[6]), int(box[7]), int(box[8])
    ix = smaller(larger(int((x - box[0]) / box[3]), 0), nx - 1)
    iy = smaller(larger(int((y - box[1]) / box[4]), 0), ny - 1)
    iz = smaller(larger(int((z - box[2]) / box[5]), 0), nz - 1)
    tx, dx = first_plane(x, u, box[0], box[3], ix)
    ty, dy = first_plane(y, v, box[1], box[4], iy)
    tz, dz = first_plane(z, w, box[2], box[5], iz)
    t = depth = scored = 0.0
    while True:
        voxel = (iz * ny + iy) * nx + ix
        end = larger(smaller(smaller(tx, ty), tz), t)
        rho = medium[voxel, 0]
        mu = rho * attenuation[int(medium[voxel, 1])]
        length = end - t
        step = mu * length
        reached = depth + step >= target
        if reached:
            length = (target - depth) / mu
            step = target - depth
        if scoring and rho > 0.0:
            gain = weight * energy * rho * transfer[int(medium[voxel, 1])]
            gain *= attenuated_length(length, depth, step, decay)
            scored += gain
            score(voxel, gain, history, tally, square, current, last)
        depth += step
        if reached:
            return t + length, voxel, depth, scored, False
        t = end
        if tx <= ty and tx <= tz:
            ix += 1 if u > 0.0 else -1
            tx += dx
        elif ty <= tz:
            iy += 1 if v > 0.0 else -1
            ty += dy
        else:
            iz += 1 if w > 0.0 else -1
            tz += dz
        if ix < 0 or iy < 0 or iz < 0 or ix >= nx or iy >= ny or iz >= nz:
            return t, -1, depth, scored, False
        if importance is not None:
            voxel = (iz * ny + iy) * nx + ix
            ratio = importance[voxel] / value
            if ratio >= 2.0 or ratio <= 0.5:
                return t, voxel, depth, scored, True


@device
def weighted_flight(
    x, y, z, u, v, w, energy, weight, forced, options, history, medium, importance, value, box, attenuation,
    transfer, tally, square, current, last, balance, s, g,
):  # fmt: skip
    """One flight: length, voxel (-1: left), weight, whether the importance stopped it, state."""
    scoring = options[TRACK_LENGTH] > 0.0
    if forced:
        _, voxel, depth, gain, _ = walk(
            x, y, z, u, v, w, MISSED, energy, weight, 1.0, scoring, history, medium, None, value, box,
            attenuation, transfer, tally, square, current, last,
        )  # fmt: skip
        balance[DEPOSITED] += gain
        chance = -math.expm1(-depth)
        balance[ESCAPED] += weight * energy * (1.0 - chance)
        if chance <= 0.0:
            return 0.0, -1, 0.0, False, s
        s += g
        target = -math.log1p(-unit(s) * chance)
        length, voxel, _, _, _ = walk(
            x, y, z, u, v, w, target, energy, weight, 0.0, False, history, medium, None, value, box,
            attenuation, transfer, tally, square, current, last,
        )  # fmt: skip
        return length, voxel, weight * chance, False, s
    cosine = u * options[STRETCH_U] + v * options[STRETCH_U + 1] + w * options[STRETCH_U + 2]
    c = 1.0 - options[STRETCH] * cosine
    s += g
    target = -math.log(unit(s)) / c
    length, voxel, depth, gain, stopped = walk(
        x, y, z, u, v, w, target, energy, weight, 1.0 - c, scoring, history, medium, importance, value, box,
        attenuation, transfer, tally, square, current, last,
    )  # fmt: skip
    balance[DEPOSITED] += gain
    if c != 1.0:
        weight *= math.exp(-(1.0 - c) * depth)
        if voxel >= 0 and not stopped:
            weight /= c
    return length, voxel, weight, stopped, s


@device
def copies_of(ratio, room, s, g):
    """How many copies of a photon go on whose importance rose by ``ratio``; the mean is the ratio."""
    if room < MOST_COPIES + 2:
        return 1, 1.0, s
    ratio = smaller(ratio, float(MOST_COPIES))
    s += g
    return int(ratio + unit(s)), ratio, s


@device
def push_ray(stack, depth, x, y, z, u, v, w, energy, weight, importance, flights):
    """Keep a photon for later, with its importance and the number of flights it made."""
    stack[depth, 0], stack[depth, 1], stack[depth, 2] = x, y, z
    stack[depth, 3], stack[depth, 4], stack[depth, 5] = u, v, w
    stack[depth, 6], stack[depth, 7] = energy, weight
    stack[depth, 8], stack[depth, 9] = importance, flights
    return depth + 1


@device
def interact(
    x, y, z, u, v, w, energy, weight, value, flights, voxel, i, f, history, medium, section,
    incoherent, form, cutoff, options, stack, depth, tally, square, current, last, samples, filled, balance,
    s, g,
):  # fmt: skip
    """Let a photon interact; what it scatters goes on the stack."""
    m = int(medium[voxel, 1])
    total = section_at(section, m, 3, i, f)
    s += g
    channel = pick_channel(section, m, i, f, unit(s) * total)
    given, scattered, un, vn, wn, s = collide(channel, energy, u, v, w, incoherent, form, m, s, g)
    if options[TRACK_LENGTH] > 0.0:
        given = 0.0
    if scattered < cutoff:
        given += 2.0 * scattered if channel == PAIR else scattered
        scattered = 0.0
    if given > 0.0:
        balance[DEPOSITED] += weight * given
        score(voxel, weight * given, history, tally, square, current, last)
        if samples is not None:
            record(x, y, z, weight * given, samples, filled)
    if scattered > 0.0:
        kept = weight
        if weight * value < options[ROULETTE]:
            s += g
            kept = 10.0 * weight if unit(s) < 0.1 else 0.0
        if kept > 0.0:
            depth = push_ray(stack, depth, x, y, z, un, vn, wn, scattered, kept, value, flights)
            if channel == PAIR:
                depth = push_ray(stack, depth, x, y, z, -un, -vn, -wn, scattered, kept, value, flights)
    balance[INTERACTIONS] += 1.0
    return depth, s


@device
def track_ray_history(
    sequence, history, s, g, beams, cumulative, spectra, particles, box, medium, section,
    incoherent, form, importance, options, cutoff, stack, attenuation, transfer, tally,
    square, current, last, samples, filled, balance,
):  # fmt: skip
    """Follow one source photon and all that it splits into to their ends."""
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
    depth = push_ray(stack, 0, x + gap * u, y + gap * v, z + gap * w, u, v, w, energy, weight, 1.0, 0.0)
    while depth > 0:
        depth -= 1
        x, y, z = stack[depth, 0], stack[depth, 1], stack[depth, 2]
        u, v, w = stack[depth, 3], stack[depth, 4], stack[depth, 5]
        energy, weight = stack[depth, 6], stack[depth, 7]
        value, flights = stack[depth, 8], stack[depth, 9]
        i, f = grid_position(energy, n_energies)
        for m in range(section.shape[0]):
            attenuation[m] = section_at(section, m, 3, i, f)
            transfer[m] = section_at(section, m, 4, i, f)
        length, voxel, weight, stopped, s = weighted_flight(
            x, y, z, u, v, w, energy, weight, flights < options[FORCED], options, history, medium, importance,
            value, box, attenuation, transfer, tally, square, current, last, balance, s, g,
        )  # fmt: skip
        if voxel < 0:
            balance[ESCAPED] += weight * energy
            continue
        if importance is not None:  # noqa: SIM102 - Numba prunes this branch only where it stands alone
            if stopped:
                copies, ratio, s = copies_of(importance[voxel] / value, STACK - depth, s, g)
                length += NUDGE_MM
                for _ in range(copies):
                    depth = push_ray(
                        stack, depth, x + length * u, y + length * v, z + length * w, u, v, w, energy,
                        weight / ratio, value * ratio, flights,
                    )  # fmt: skip
                continue
        depth, s = interact(
            x + length * u, y + length * v, z + length * w, u, v, w, energy, weight, value, flights + 1.0,
            voxel, i, f, history, medium, section, incoherent, form, cutoff, options, stack, depth,
            tally, square, current, last, samples, filled, balance, s, g,
        )  # fmt: skip


@released
def run_ray_batch(
    seed, batch, n_batches, first, stop, beams, cumulative, spectra, particles, box, medium, section,
    incoherent, form, importance, options, cutoff, stack, attenuation, transfer, tally, square,
    current, last, samples, filled, balance,
):  # fmt: skip
    """Histories ``first`` to ``stop`` of a batch; see ``woodcock_kernels.run_batch``."""
    history = first
    while history < stop:
        if samples is not None and filled[0] > samples.shape[0] - MARGIN:
            break
        s, g = stream(np.uint64(seed), np.uint64(batch), np.uint64(history))
        track_ray_history(
            history * n_batches + batch, history, s, g, beams, cumulative, spectra, particles, box, medium,
            section, incoherent, form, importance, options, cutoff, stack, attenuation,
            transfer, tally, square, current, last, samples, filled, balance,
        )  # fmt: skip
        history += 1
    if last is None:
        drain(tally, current)
    else:
        flush(tally, square, current, last)
    return history
