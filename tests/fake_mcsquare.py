"""Plays MCsquare for the tests: reads what the adapter wrote, answers as the program does.

FAKE_MCSQUARE names a failure to play.
"""

import os
import sys
import time
from pathlib import Path

import numpy as np


def pairs(path):
    """Lines of two words."""
    rows = [line.split(None, 1) for line in Path(path).read_text().splitlines() if line.strip()]
    return {key: value.strip() for key, value in rows}


def image(name):
    """Values [z, y, x] and voxel size of an image."""
    head = dict(line.split(" = ", 1) for line in Path(name).read_text().splitlines())
    shape = tuple(int(n) for n in head["DimSize"].split())[::-1]
    values = np.fromfile(head["ElementDataFile"], "<f4").reshape(shape)
    return values, np.array([float(h) for h in head["ElementSpacing"].split()])


def plan():
    """Gantry angle, isocentre and rows (energy, x, y, weight) of the first field."""
    lines = Path("PlanPencil.txt").read_text().splitlines()
    gantry = float(lines[lines.index("###GantryAngle") + 1])
    isocenter = [float(v) for v in lines[lines.index("###IsocenterPosition") + 1].split()]
    spots, energy = [], 0.0
    for n, line in enumerate(lines):
        if line == "####Energy (MeV)":
            energy = float(lines[n + 1])
        if line == "####X Y Weight":
            for row in lines[n + 1 :]:
                if row.startswith("#"):
                    break
                spots.append((energy, *(float(v) for v in row.split())))
    return gantry, isocenter, np.array(spots)


def bragg(density, spacing, isocenter, spots, rng, histories):
    """A crude Bragg curve along each spot at gantry 0, toward -y of the image, with white noise."""
    dose = np.zeros(density.shape)
    depth = np.cumsum(density[:, ::-1] * spacing[1], axis=1)[:, ::-1]
    nz, _, nx = density.shape
    for energy, x, y, weight in spots:
        reach = 0.0022 * energy**1.77 * 10
        i = int((nx * spacing[0] - isocenter[0] - x) / spacing[0])
        k = int((isocenter[2] + y) / spacing[2])
        if 0 <= i < nx and 0 <= k < nz:
            left = np.maximum(reach - depth[k, :, i], 0.0)
            dose[k, :, i] += weight * np.where(left > 0, (left + 2.0) ** -0.43, 0.0)
    noise = 1 + rng.standard_normal(dose.shape) * 10 / np.sqrt(histories)
    return 1e8 * np.maximum(dose * noise, 0.0)


def main():
    failure = os.environ.get("FAKE_MCSQUARE", "")
    config = pairs(sys.argv[1])
    n, seed = int(config["Num_Primaries"]), int(config["RNG_Seed"])
    assert seed > 0, "a seed of 0 is the clock"
    assert (Path(os.environ["MCsquare_Materials_Dir"]) / "list.dat").exists()  # noqa: SIM112 - the program's own name
    assert "\r" not in Path("BDL.txt").read_bytes().decode()
    assert "#" not in Path("BDL.txt").read_text()
    if failure == "processor":
        sys.stderr.write("Please verify that the processor supports AVX2 instructions.\n")
        return 1
    if failure == "complaint":
        sys.stdout.write(' Error: Unable to open "CT.raw".\n')
        return 0
    if failure == "endless":
        time.sleep(60)
    numbers, spacing = image(config["CT_File"])
    table = np.loadtxt("HU_Density_Conversion.txt", ndmin=2)
    density = np.interp(numbers, table[:, 0], table[:, 1])
    gantry, isocenter, spots = plan()
    assert gantry == 0
    dose = bragg(density, spacing, isocenter, spots, np.random.default_rng(seed), n)
    outside = {"outside": n, "some outside": n // 10}.get(failure, 0)
    if failure in ("outside", "zero"):
        dose[:] = 0
    if failure == "nan":
        dose[0, 0, 0] = np.nan
    out = Path(config["Output_Directory"])
    if failure != "nothing":
        shape = dose.shape[::-1] if failure != "other size" else (1, 2, 3)
        dims = " ".join(str(m) for m in shape)
        (out / "Dose.mhd").write_text(
            f"NDims = 3\nDimSize = {dims}\nElementType = MET_FLOAT\nElementDataFile = Dose.raw\n"
        )
        raw = dose.astype("<f4").tobytes()
        (out / "Dose.raw").write_bytes(raw[: len(raw) // 2] if failure == "cut short" else raw)
    if failure != "silent":
        more = f" ({outside} generated outside the geometry) " if outside else " "
        sys.stdout.write(f"Nbr primaries simulated: {n}{more}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
