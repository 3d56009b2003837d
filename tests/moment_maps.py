"""Dose maps that the tests of the moment distances share."""

import numpy as np
from scipy.special import erf

from dosemover.dose import DoseMap


def beam(n=32, edge=0.3, background=1e-3, **fields):
    """Field of 200 mm with penumbra and a distal edge at ``edge`` (in units of 100 mm)."""
    t = (np.arange(n) + 0.5) / n * 2 - 1
    z, y, x = np.meshgrid(t, t, t, indexing="ij")
    distal = edge(y) if callable(edge) else edge

    def plateau(s):
        return 0.5 * (erf((s + 0.5) / 0.12) - erf((s - 0.5) / 0.12))

    depth = 0.5 * (erf((x + 0.6) / 0.12) - erf((x - distal) / 0.12))
    return DoseMap.from_array(
        depth * plateau(y) * plateau(z) + background, spacing_mm=(200 / n,) * 3, **fields
    )


def box_map(low, high, shape=(12, 12, 12), spacing=4.0):
    """One where a box of voxels is, 0 elsewhere."""
    dose = np.zeros(shape)
    dose[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = 1.0
    return DoseMap.from_array(dose, spacing_mm=(spacing,) * 3)


def load_batches(path):
    """EGSnrc dose in batches, voxels of 4 mm."""
    with np.load(path) as arrays:
        batches = arrays["batches"].astype(np.float64) * float(arrays["scale"])
    return DoseMap.from_array(batches.mean(axis=0), spacing_mm=(4.0, 4.0, 4.0), batches_gy=batches)
