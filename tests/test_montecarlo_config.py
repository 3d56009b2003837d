"""Configurations in TOML, and the errors that name what is wrong."""

import numpy as np
import pytest

import dosemover.montecarlo as mc
from dosemover.errors import DataFormatError, DosemoverError, InputError

DOCUMENT = """
[simulation]
histories = 4000
batches = 4
seed = 7
estimator = "track_length"

[phantom]
type = "water_tank"
size_mm = 100.0
voxel_mm = 10.0
center_mm = [0.0, 50.0, 0.0]

[[phantom.insert]]
shape = "ellipsoid"
center_mm = [0.0, 50.0, 0.0]
size_mm = [40.0, 40.0, 40.0]
material = "ivory"

[material.ivory]
density_g_per_cm3 = 1.8
mass_fractions = { H = 0.05, C = 0.15, O = 0.45, P = 0.12, Ca = 0.23 }

[[source]]
field_mm = [40.0, 60.0]
penumbra_mm = 5.0
spectrum = { peak_mev = 0.12, filters = [["aluminium", 0.7]] }

[[source]]
type = "point"
position_mm = [0.0, 20.0, 0.0]
weight = 0.5
spectrum = { radionuclide = "Ir-192" }

[variance_reduction]
forced_interactions = 1
importance_doubling_mm = 100.0
"""


def read(tmp_path, text):
    path = tmp_path / "beam.toml"
    path.write_text(text, encoding="utf-8")
    return mc.read_config(path)


def test_a_configuration_says_the_same_as_python(tmp_path):
    config = read(tmp_path, DOCUMENT)
    assert (config.histories, config.batches, config.seed, config.estimator) == (4000, 4, 7, "track_length")
    assert [m.name for m in config.phantom.materials] == ["water", "ivory"]
    assert config.sources[0].field_mm == (-20.0, 20.0, -30.0, 30.0)
    assert config.sources[1].spectrum.name == "Ir-192"
    importance = config.variance_reduction.importance
    assert importance is not None
    assert importance[0, -1, 0] / importance[0, 0, 0] == pytest.approx(2**0.9)
    result = mc.simulate(config)
    assert result.dose_gy.max() > 0
    assert "ivory" in result.records()["materials"]


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ("histories", "histroies", "unknown key 'histroies'.*'histories'"),
        ('"water_tank"', '"water_tnak"', "phantom.type.*'water_tank'"),
        ("voxel_mm", "voxel_size", "unknown key 'voxel_size'"),
        ("penumbra_mm", "penumbra", "source 1 has an unknown key 'penumbra'.*'penumbra_mm'"),
        ("P = 0.12", "P = 0.32", "sum to 1.2"),
        ("Ca = 0.23", "Xx = 0.23", "holds Xx"),
        ('material = "ivory"', 'material = "ivry"', "no material is called 'ivry'"),
        ('"Ir-192"', '"Ir-193"', "no spectrum is stored for 'Ir-193'"),
        ("peak_mev = 0.12", "mono_mev = 60.0", "60 MeV lies outside the tables"),
        ('estimator = "track_length"', 'estimator = "tracks"', "`estimator` must be one of"),
        ("batches = 4", "batches = 1", "at least 2 `batches`"),
        ("histories = 4000", "histories = 4000.5", "must be a whole number"),
        ('[[source]]\ntype = "point"', '[[source]]\ntype = "pint"', "source 2.type"),
        ("position_mm = [0.0, 20.0, 0.0]", "", "source 2 needs `position_mm`"),
        ("[variance_reduction]", "[variance]", "unknown key 'variance'.*'variance_reduction'"),
        ("field_mm = [40.0, 60.0]", "field_mm = [1.0, 2.0, 3.0]", "`field_mm` must be one side"),
        ('shape = "ellipsoid"', 'shape = "egg"', "a shape must be"),
        ("mass_fractions", "grams", "unknown key 'grams'"),
        ("size_mm = 100.0", 'size_mm = "large"', "a value of the wrong kind"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, old, new, match):
    assert old in DOCUMENT
    with pytest.raises(InputError, match=match):
        read(tmp_path, DOCUMENT.replace(old, new, 1))


def test_a_file_that_is_not_toml_is_refused(tmp_path):
    with pytest.raises(DataFormatError, match="is not a TOML file"):
        read(tmp_path, "[simulation\n")
    with pytest.raises(InputError, match="cannot be read"):
        mc.read_config(tmp_path / "absent.toml")


def test_a_ct_becomes_a_phantom(tmp_path):
    import SimpleITK as sitk  # noqa: N813 - the name that everyone uses

    hu = np.full((4, 5, 6), -1000, dtype=np.int16)
    hu[:, 2:, :] = 0
    hu[:, 3, 2:4] = 800
    image = sitk.GetImageFromArray(hu)
    image.SetSpacing((2.0, 3.0, 4.0))
    sitk.WriteImage(image, str(tmp_path / "ct.mha"))
    text = '[phantom]\ntype = "ct"\nfile = "ct.mha"\n[[source]]\nspectrum = { mono_mev = 0.1 }\n'
    phantom = read(tmp_path, text).phantom
    assert phantom.grid.spacing_mm == (2.0, 3.0, 4.0)
    assert {phantom.materials[i].name for i in np.unique(phantom.material)} == {
        "air",
        "soft_tissue",
        "cortical_bone",
    }
    # Schneider, Bortfeld & Schlegel 2000: 1.017 + 0.592e-3 HU above 100 HU.
    assert phantom.density_g_per_cm3[0, 3, 2] == pytest.approx(1.017 + 0.592e-3 * 800, abs=1e-3)
    with pytest.raises(DataFormatError, match="cannot be read as an image"):
        read(tmp_path, text.replace("ct.mha", "beam.toml"))


def test_a_result_is_written_read_and_continued(tmp_path):
    from dosemover.io import read_dose

    config = read(tmp_path, DOCUMENT)
    half = mc.simulate(config, histories=2000)
    files = mc.write_result(half, tmp_path / "out")
    assert {"dose.mha", "uncertainty.mha", "dose.dcm", "dose.npz", "records.json", "state.npz"} == {
        path.name for path in files
    }
    dose = read_dose(tmp_path / "out" / "dose.npz")
    np.testing.assert_allclose(dose.dose_gy, half.dose_gy, rtol=1e-6)
    assert dose.batches_gy is not None
    assert len(dose.batches_gy) == 4
    resumed = mc.load_state(tmp_path / "out" / "state.npz", config)
    whole = mc.simulate(config, resume=resumed)
    assert np.array_equal(whole.dose_gy, mc.simulate(config).dose_gy)
    with pytest.raises(InputError, match="belongs to another configuration"):
        mc.load_state(
            tmp_path / "out" / "state.npz", read(tmp_path, DOCUMENT.replace("seed = 7", "seed = 8"))
        )


def test_a_full_disk_is_one_clear_error_and_leaves_no_half_file(tmp_path, monkeypatch):
    result = mc.simulate(read(tmp_path, DOCUMENT), histories=400)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full)
    with pytest.raises(DosemoverError, match=r"No space left.*Written was dose\.mha, unc.*--resume"):
        mc.write_result(result, tmp_path / "out")
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {"dose.mha", "uncertainty.mha", "dose.dcm", "records.json"}


def test_the_state_is_written_first_so_that_a_disk_that_fills_costs_no_simulation(tmp_path, monkeypatch):
    from dosemover import io

    config = read(tmp_path, DOCUMENT)
    result = mc.simulate(config, histories=400)

    def full(*_, **__):
        raise DosemoverError("x cannot be written: No space left on device. Nothing was written. Look.")

    with monkeypatch.context() as patch:
        patch.setattr(io, "write_dose", full)
        with pytest.raises(DosemoverError, match=r"No space left on device\. Written was state\.npz"):
            mc.write_result(result, tmp_path / "out")
    again = mc.simulate(config, histories=400, resume=mc.load_state(tmp_path / "out" / "state.npz", config))
    assert np.array_equal(again.dose_gy, result.dose_gy)


def test_a_phase_space_survives_the_round_trip(tmp_path):
    beam = mc.Beam(spectrum=mc.Spectrum.linac_6mv(), direction=(0.0, 0.0, 1.0), field_mm=80.0)
    photons = mc.sample_phase_space([beam], 2000, seed=3, plane_z_mm=-200.0)
    np.testing.assert_allclose(photons[:, 2], -200.0)
    header = mc.write_phase_space(tmp_path / "beam", photons)
    back = mc.read_phase_space(header)
    np.testing.assert_allclose(back, photons, rtol=1e-5, atol=1e-5)
    tank = mc.water_tank(size_mm=100.0, voxel_mm=10.0)
    config = mc.SimulationConfig(
        phantom=tank, sources=(mc.PhaseSpaceSource(particles=back),), histories=2000, batches=2
    )
    assert mc.simulate(config).balance()["entered"] == 2000
    (tmp_path / "beam.IAEAphsp").write_bytes(b"12345")
    with pytest.raises(DataFormatError, match="no whole number of records"):
        mc.read_phase_space(header)
    header.write_text("nothing")
    with pytest.raises(DataFormatError, match="not the header"):
        mc.read_phase_space(header)
    with pytest.raises(DataFormatError, match="side by side"):
        mc.read_phase_space(tmp_path / "absent")


def test_spectrum_files_of_both_forms_are_read(tmp_path):
    lines = tmp_path / "lines.csv"
    lines.write_text("# MeV, n\n0.1, 1\n0.2, 3\n")
    assert mc.read_spectrum(lines).mean_mev == pytest.approx(0.175)
    egs = tmp_path / "egs.spectrum"
    egs.write_text("a title\n2, 0.0, 0\n1.0, 1.0\n2.0, 3.0\n")
    assert mc.read_spectrum(egs).mean_mev == pytest.approx(1.25, abs=1e-3)
    (tmp_path / "bad").write_text("no\nspectrum\n")
    with pytest.raises(DataFormatError, match="is not a spectrum file"):
        mc.read_spectrum(tmp_path / "bad")
