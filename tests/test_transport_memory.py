"""What a distance says it needs against the peak of a fresh process: large maps are refused by it."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys

import pytest

MEASURE = """
import sys, warnings
import numpy as np
from dosemover import transport
from dosemover.dose import DoseMap
from dosemover.grid import Grid

def status(key):
    with open("/proc/self/status") as lines:
        return 1024 * int(next(line for line in lines if line.startswith(key)).split()[1])

def pair(n):
    grid = Grid.regular(shape=(n, n, n), spacing_mm=(2.0, 2.0, 2.0), origin_mm=(1.0 - n, 1.0 - n, 1.0 - n))
    z, y, x = np.meshgrid(*(c / n for c in (grid.z_centers_mm, grid.y_centers_mm, grid.x_centers_mm)),
                          indexing="ij", sparse=True)
    def dose(s):
        smooth = 0.01 + np.exp(-8 * ((x - s) ** 2 + y**2 + z**2))
        return smooth * (1 + 0.02 * rng.standard_normal(smooth.shape))
    return DoseMap(dose_gy=dose(0.0), grid=grid), DoseMap(dose_gy=dose(1.0 / n), grid=grid)

rng = np.random.default_rng(1)

def run(a, b):
    getattr(transport, sys.argv[1])(reference=a, evaluated=b)

run(*pair(24))  # compiles
a, b = pair(96)
with open("/proc/self/clear_refs", "w") as peak:
    peak.write("5")  # the peak so far is forgotten
before = status("VmRSS")
run(a, b)
print((status("VmHWM") - before) / a.grid.n_voxels)
"""


@pytest.mark.slow
@pytest.mark.skipif(
    not os.access("/proc/self/clear_refs", os.W_OK), reason="only Linux tells a process its peak"
)
@pytest.mark.parametrize(
    ("distance", "module", "least"),
    [
        ("flat_norm", "kantorovich_solve", 0.7),
        ("wasserstein_1", "kantorovich_solve", 0.6),
        ("sobolev_w2", "sobolev", 0.7),
        ("sliced_w2", "sliced", 0.7),
        ("axis_w2", "axis", 0.5),
        ("dose_movers_distance", "dose_mover", 0.4),
        ("wasserstein_2", "wasserstein", 0.4),
    ],
)
def test_the_memory_that_is_asked_for_is_what_is_used(distance, module, least):
    """Some changes ask for more than noise and a small shift do; the estimate covers them: ``least``."""
    stated = importlib.import_module(f"dosemover.transport.{module}")._BYTES_PER_VOXEL
    # freed blocks go back to the system at once, so that none is used again unseen
    environment = os.environ | {"MALLOC_TRIM_THRESHOLD_": "0", "MALLOC_MMAP_THRESHOLD_": "65536"}
    ran = subprocess.run(
        [sys.executable, "-c", MEASURE, distance], capture_output=True, text=True, check=True, env=environment
    )
    used = float(ran.stdout)
    assert least * stated <= used <= 1.1 * stated
