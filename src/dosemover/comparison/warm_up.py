"""First run on a machine: the transport kernels compile in a second process, beside everything else."""

from __future__ import annotations

import subprocess
import sys

import numpy as np

from dosemover._runtime import available_cores, kernels_are_compiled

_SIDE = 16
_running: list[subprocess.Popen[bytes]] = []


def start_compilation() -> bool:
    """Start compiling where nothing is compiled yet; returns whether this is the first run.

    The compiled kernels reach this process through the cache on disk: call `finish_compilation`
    before the first transport solver.
    """
    if kernels_are_compiled():
        return False
    if available_cores() > 1:
        command = [sys.executable, "-m", "dosemover.comparison.warm_up"]
        _running.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
    return True


def finish_compilation() -> None:
    """Wait for the second process; whatever it could not compile is compiled here at first use."""
    while _running:
        _running.pop().wait()


def compile_transport() -> None:
    """Run the Dose Mover's Distance once on a small noisy pair, and once on dose that travels far."""
    from dosemover.dose import DoseMap
    from dosemover.transport import dose_mover_floor, dose_movers_distance

    rng = np.random.default_rng(0)
    noise = 0.05 * rng.random((2, _SIDE, _SIDE, _SIDE))
    reference, evaluated = (
        DoseMap.from_array(1 + one, spacing_mm=(2.0, 2.0, 2.0), uncertainty_gy=0.01 + 0 * one)
        for one in noise
    )
    dose_movers_distance(reference=reference, evaluated=evaluated, refine=1)
    far = np.zeros((_SIDE, _SIDE, _SIDE))
    far[:4, :4, :4] = 1.0
    here, there = (DoseMap.from_array(d, spacing_mm=(8.0, 8.0, 8.0)) for d in (far, far[::-1, ::-1].copy()))
    dose_movers_distance(reference=here, evaluated=there, refine=1, fields=False)
    dose_mover_floor(reference=reference, evaluated=evaluated, n_probes=1)


if __name__ == "__main__":
    compile_transport()
