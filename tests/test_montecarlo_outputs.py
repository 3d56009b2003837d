"""Outputs of other programs, with their uncertainties, are compared as simulated maps are."""

import numpy as np
import pytest

import dosemover as dm
import dosemover.montecarlo as mc

HISTORIES = 40_000
KEYS = ("chi2_per_voxel", "mae_gy", "mass_ratio")


@pytest.fixture(scope="module")
def maps():
    """Two independent simulations of one kV field, in Gy."""
    tank = mc.water_tank(size_mm=(50.0, 60.0, 40.0), voxel_mm=10.0, center_mm=(0.0, 30.0, 0.0))
    beam = mc.Beam(spectrum=mc.Spectrum.mono(0.1), field_mm=30.0)
    config = mc.SimulationConfig(
        phantom=tank, sources=(beam,), histories=HISTORIES, batches=20, photons=1e12, estimator="track_length"
    )
    return [mc.simulate(config, seed=seed).to_dose_map(name=f"seed {seed}") for seed in (1, 2)]


def metaimage(path, values, grid):
    import SimpleITK as sitk  # noqa: N813 - the name that everyone uses

    image = sitk.GetImageFromArray(np.ascontiguousarray(values))
    image.SetSpacing(grid.spacing_mm)
    image.SetOrigin(grid.origin_mm)
    sitk.WriteImage(image, str(path))


def relative_of(dose):
    """GATE's relative uncertainty: 1 where there is no dose."""
    ratio = np.divide(dose.uncertainty_gy, dose.dose_gy, out=np.ones(dose.grid.shape), where=dose.dose_gy > 0)
    return np.minimum(ratio, 1.0)


def as_gate(folder, dose, names):
    for name, values in zip(names, (dose.dose_gy, relative_of(dose)), strict=True):
        metaimage(folder / name, values, dose.grid)
    return {"path": folder / names[0]}


def as_egsnrc(folder, dose):
    z, y, x = dose.grid.edges_mm
    numbers = [dose.grid.shape[::-1], x / 10, y / 10, z / 10, dose.dose_gy.ravel(), relative_of(dose).ravel()]
    lines = [" ".join(repr(v.item() if hasattr(v, "item") else v) for v in row) for row in numbers]
    (folder / "dose.3ddose").write_text("\n".join(lines) + "\n")
    return {"path": folder / "dose.3ddose"}


def as_topas(folder, dose):
    n, (dx, dy, dz) = dose.grid.shape[::-1], dose.grid.spacing_mm
    head = ["# TOPAS Version: 3.9", "# Parameter File: beam.txt", "# Results for scorer dose"]
    head += ["# Scored in component: Phantom"]
    head += [f"# {a} in {m} bins of {h / 10} cm" for a, m, h in zip("XYZ", n, (dx, dy, dz), strict=True)]
    head += ["# DoseToMedium ( Gy ) : Sum   Standard_Deviation   Histories_with_Scorer_Active   "]
    deviation = dose.uncertainty_gy / np.sqrt(HISTORIES)
    rows = [
        f"{i}, {j}, {k}, {dose.dose_gy[k, j, i]!r}, {deviation[k, j, i]!r}, {HISTORIES}"
        for i, j, k in np.ndindex(*n)
    ]
    text = "\n".join([*head, *rows]).replace("np.float64(", "").replace(")", "").replace("( Gy ", "( Gy )")
    (folder / "dose.csv").write_text(text + "\n")
    return {"path": folder / "dose.csv"}


def as_seeds(folder, dose):
    """Batches of K seeds as images, the dose their mean."""
    files = []
    for number, batch in enumerate(dose.batches_gy):
        files.append(folder / f"seed{number:02d}.mhd")
        metaimage(files[-1], batch, dose.grid)
    metaimage(folder / "Dose.mhd", dose.batches_gy.mean(axis=0), dose.grid)
    return {"path": folder / "Dose.mhd", "batches": files}


def as_two_images(folder, dose):
    for name, values in (("dose.nrrd", dose.dose_gy), ("sigma.nrrd", dose.uncertainty_gy)):
        metaimage(folder / name, values, dose.grid)
    return {"path": folder / "dose.nrrd", "uncertainty": folder / "sigma.nrrd"}


WRITERS = {
    "GATE 9": lambda folder, dose: as_gate(folder, dose, ("b-Dose.mhd", "b-Dose-Uncertainty.mhd")),
    "opengate": lambda folder, dose: as_gate(folder, dose, ("b_dose.mhd", "b_dose_uncertainty.mhd")),
    "EGSnrc": as_egsnrc,
    "TOPAS": as_topas,
    "K seeds": as_seeds,
    "two images": as_two_images,
}


@pytest.mark.parametrize("program", WRITERS)
def test_each_program_carries_its_uncertainty_into_the_comparison(maps, program, tmp_path):
    reference, evaluated = maps
    expected = dm.compare(reference, evaluated, metrics=KEYS)
    read = dm.read_dose(**WRITERS[program](tmp_path, evaluated))
    np.testing.assert_allclose(read.dose_gy, evaluated.dose_gy, rtol=1e-5)
    hit = evaluated.dose_gy > 0
    np.testing.assert_allclose(read.uncertainty_gy[hit], evaluated.uncertainty_gy[hit], rtol=1e-4)
    if read.grid != reference.grid:  # a TOPAS file holds no position
        read = dm.DoseMap(dose_gy=read.dose_gy, uncertainty_gy=read.uncertainty_gy, grid=reference.grid)
    found = dm.compare(reference, read, metrics=KEYS)
    for key in KEYS:
        assert found.metrics[key].value == pytest.approx(expected.metrics[key].value, rel=1e-3), key
    assert 0.5 < found.metrics["chi2_per_voxel"].value < 2.0


def test_a_relative_map_taken_for_absolute_shows_in_chi_square(maps, tmp_path):
    """The trap: a relative uncertainty read as gray makes every difference significant."""
    reference, evaluated = maps
    metaimage(tmp_path / "dose.nrrd", evaluated.dose_gy, evaluated.grid)
    metaimage(tmp_path / "relative.nrrd", relative_of(evaluated), evaluated.grid)
    right = dm.read_dose(
        tmp_path / "dose.nrrd", uncertainty=tmp_path / "relative.nrrd", uncertainty_kind="relative"
    )
    hit = evaluated.dose_gy > 0
    np.testing.assert_allclose(right.uncertainty_gy[hit], evaluated.uncertainty_gy[hit], rtol=1e-5)
    wrong = dm.read_dose(tmp_path / "dose.nrrd", uncertainty=tmp_path / "relative.nrrd")
    good, bad = (
        dm.compare(reference, read, metrics=("chi2_per_voxel",)).metrics["chi2_per_voxel"].value
        for read in (right, wrong)
    )
    assert not 0.5 < bad / good < 2.0
