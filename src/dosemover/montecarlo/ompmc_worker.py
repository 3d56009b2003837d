"""Runs ompMC in a process of its own: ``python -m dosemover.montecarlo.ompmc_worker FOLDER``.

ompMC keeps its state in global variables and prints to C stdout, so every run gets a process. The folder
holds ``job.npz`` and a phase space; ``result.npz`` is written into it.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np


def main(folder: Path) -> None:
    """Run one job."""
    import ompmc

    with np.load(folder / "job.npz") as job:
        geometry = ompmc.Geometry(
            job["x_cm"],
            job["y_cm"],
            job["z_cm"],
            [str(name) for name in job["media"]],
            np.asfortranarray(job["density"].transpose(2, 1, 0), dtype=np.float64),
            np.asfortranarray(job["material"].transpose(2, 1, 0), dtype=np.int32),
        )
        physics = ompmc.Physics(
            n_split=1,
            seeds=(int(job["seeds"][0]), int(job["seeds"][1])),
            global_ecut=float(job["cutoffs"][0]),
            global_pcut=float(job["cutoffs"][1]),
            data_folder=str(job["data_folder"]) or None,
            pegs_file=str(job["pegs_file"]) or None,
        )
        source = ompmc.PhaseSpaceSource(str(folder / "source"))
        dose, relative, *_ = ompmc.calc_forward_phsp(
            geometry, source, physics, n_histories=int(job["histories"]), n_batches=int(job["inner_batches"])
        )
    np.savez(folder / "result.npz", dose=dose.transpose(2, 1, 0), relative=relative.transpose(2, 1, 0))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
