"""The MCsquare adapter: files, silent failures (with a program that plays MCsquare), and the real one."""

import os
import signal
import stat
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import dosemover.montecarlo as mc
from dosemover.errors import DosemoverError, InputError, MissingDependencyError
from dosemover.montecarlo import external, mcsquare, mcsquare_files

REAL = os.environ.get(mcsquare.PROGRAM_VARIABLE)
needs_mcsquare = pytest.mark.skipif(
    not REAL, reason=f"no MCsquare program is configured: set {mcsquare.PROGRAM_VARIABLE} to its path"
)


@pytest.fixture
def program(tmp_path, monkeypatch):
    """A folder that holds a program playing MCsquare, and its list of materials."""
    folder = tmp_path / "mcsquare"
    (folder / "Materials").mkdir(parents=True)
    names = sorted({*mcsquare_files.MEDIA.values(), "Brass"})
    rows = [f"{n + 1} {name} \t # a comment" for n, name in enumerate(names)]
    (folder / "Materials" / "list.dat").write_text("\n\n".join(rows))
    path = folder / "MCsquare_linux"
    path.write_text(
        f'#!/bin/sh\nexec "{sys.executable}" "{Path(__file__).parent / "fake_mcsquare.py"}" "$@"\n'
    )
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.delenv(mcsquare.MATERIALS_VARIABLE, raising=False)
    monkeypatch.delenv(mcsquare.PROGRAM_VARIABLE, raising=False)
    return path


def config(program=None, **changes):
    tank = mc.water_tank(size_mm=(60.0, 100.0, 50.0), voxel_mm=(5.0, 2.0, 5.0), center_mm=(10.0, 50.0, -5.0))
    field = mc.ProtonField(energy_mev=90.0, isocenter_mm=(10.0, 50.0, -5.0))
    options = changes.pop("options", {})
    if program is not None:
        options = {"program": str(program)} | options
    settings = {"phantom": tank, "sources": (field,), "histories": 2000, "batches": 2, "engine": "mcsquare"}
    return mc.SimulationConfig(options=options, **(settings | changes))


def range_mm(result, level=0.8):
    """Depth of the distal fall to a share of the maximum, by linear interpolation between voxels [mm]."""
    curve, depth = result.dose_gy.sum(axis=(0, 2)), result.grid.centers_mm[1] - result.grid.box_mm[1][0]
    top = int(np.argmax(curve))
    after = top + int(np.argmax(curve[top:] < level * curve[top]))
    part = (curve[after - 1] - level * curve[top]) / (curve[after - 1] - curve[after])
    return depth[after - 1] + part * (depth[after] - depth[after - 1])


def test_batches_of_own_seeds_give_the_dose_and_its_uncertainty(program):
    seen = []
    setup = config(program, histories=4000, batches=6, photons=1e9)
    result = mc.simulate(setup, progress=lambda _, fraction: seen.append(fraction))
    assert seen[-1] == 1.0
    assert result.unit == "Gy"
    assert result.histories == 4002
    assert result.status == "complete"
    assert result.batches_gy.shape[0] == 6
    assert range_mm(result) == pytest.approx(0.022 * 90**1.77, abs=2.0)
    hit = result.dose_gy > 0
    # the noise that the program plays is 10 / sqrt(n) of the dose in each batch
    expected = 10 / np.sqrt(4002)
    measured = np.sqrt(np.mean(np.square(result.uncertainty_gy[hit] / result.dose_gy[hit])))
    assert measured == pytest.approx(expected, rel=0.2)
    assert np.array_equal(result.dose_gy, mc.simulate(setup).dose_gy)
    assert not np.array_equal(result.dose_gy, mc.simulate(setup, seed=5).dose_gy)
    assert "protons of 90 MeV" in result.records()["source"]
    assert "protons" in result.records()["transport parameters"]
    with pytest.raises(InputError, match="cannot be continued"):
        mc.simulate(setup, resume=result)


def test_patient_axes_are_turned_and_turned_back(program):
    """A spot left and toward the head, bone on the right: each must stay on its side."""
    setup = config(program)
    bone = mc.Shape(kind="box", center_mm=(-10.0, 20.0, -5.0), size_mm=(30.0, 10.0, 60.0))
    spots = ((-18.0, -8.0), (18.0, 8.0))
    field = mc.ProtonField(energy_mev=90.0, spots_mm=spots, isocenter_mm=(10.0, 50.0, -5.0))
    phantom = setup.phantom.with_shape(bone, "cortical_bone")
    result = mc.simulate(config(program, phantom=phantom, sources=(field,)))
    z, y, x = result.grid.centers_mm
    columns = {}
    for k, i in zip(*np.nonzero(result.dose_gy.sum(axis=1)), strict=True):
        columns[float(x[i]), float(z[k])] = y[np.nonzero(result.dose_gy[k, :, i])[0].max()]
    assert columns.keys() == {(-7.5, -12.5), (27.5, 2.5)}
    assert columns[27.5, 2.5] - columns[-7.5, -12.5] == pytest.approx(10 * 0.92, abs=2.1)


def test_densities_and_materials_reach_the_program_free_of_each_other(tmp_path):
    phantom = mc.slabs([("water", 20.0), ("lung", 20.0, 0.3), ("cortical_bone", 20.0, 1.7)], voxel_mm=10.0)
    density = phantom.density_g_per_cm3.copy()
    density[0, 0, 0], density[0, 1, 0] = 0.0, 1.0011
    phantom = mc.Phantom(
        grid=phantom.grid, material=phantom.material, density_g_per_cm3=density, materials=phantom.materials
    )
    labels = [17, 14, 38]
    mcsquare_files.write_image(tmp_path, phantom, labels)
    numbers = np.fromfile(tmp_path / "CT.raw", "<f4").reshape(phantom.grid.shape)[:, ::-1, ::-1]
    table = np.loadtxt(tmp_path / "HU_Density_Conversion.txt")
    assert np.all(np.diff(table[:, 0]) > 0)
    np.testing.assert_allclose(np.interp(numbers, *table.T), np.maximum(density, 1e-6), rtol=1e-5, atol=2e-6)
    steps = np.loadtxt(tmp_path / "HU_Material_Conversion.txt")
    chosen = steps[np.searchsorted(steps[:, 0], numbers, side="right") - 1, 1]
    assert np.array_equal(chosen, np.array(labels)[phantom.material])


@pytest.mark.parametrize(
    ("failure", "match"),
    [
        ("outside", r"4?\d+ of \d+ protons in batch 1 started outside the phantom"),
        ("nothing", "without an error and without a dose"),
        ("cut short", "cut short"),
        ("other size", r"as \(3, 2, 1\) voxels"),
        ("zero", "0 everywhere"),
        ("nan", "not a number"),
        ("silent", "did not say how many protons"),
        ("complaint", "stopped with code 0 in batch 1: Error: Unable to open"),
        ("processor", "stopped with code 1 in batch 1: Please verify that the processor"),
    ],
)
def test_a_failure_that_the_exit_code_hides_is_caught(program, monkeypatch, failure, match):
    monkeypatch.setenv("FAKE_MCSQUARE", failure)
    with pytest.raises(DosemoverError, match=match):
        mc.simulate(config(program))


def test_a_few_protons_outside_are_told_and_an_endless_program_ends(program, monkeypatch):
    monkeypatch.setenv("FAKE_MCSQUARE", "some outside")
    assert "10.0 % of the protons started outside" in mc.simulate(config(program)).messages[-1]
    monkeypatch.setenv("FAKE_MCSQUARE", "endless")
    with pytest.raises(DosemoverError, match=r"did not finish batch \d of 1000 protons within 1 s"):
        mc.simulate(config(program, options={"timeout_s": 1}))


def test_goals_end_it_after_the_same_batch_on_any_number_of_threads(program, monkeypatch):
    counts = []
    for threads in (1, 3):
        monkeypatch.setattr(mcsquare, "thread_count", lambda threads=threads: threads)
        result = mc.simulate(config(program, batches=8), stop=lambda r: len(r.batches_gy) >= 4)
        counts.append((result.status, len(result.batches_gy), result.config.batches))
    assert counts == [("goal reached", 4, 4)] * 2
    loose = mc.simulate(config(program, batches=4, uncertainty_goal_percent=50.0))
    assert loose.status == "goal reached"
    assert loose.mean_relative_uncertainty_percent <= 50
    assert mc.simulate(config(program, batches=4, max_seconds=1e-3)).status == "time limit"


def test_ctrl_c_keeps_the_batches_that_are_done(program, monkeypatch):
    monkeypatch.setattr(mcsquare, "thread_count", lambda: 2)
    done = []

    def interrupt(_, fraction):
        done.append(fraction)
        if fraction == 0.5:
            monkeypatch.setenv("FAKE_MCSQUARE", "endless")
            threading.Timer(0.7, os.kill, (os.getpid(), signal.SIGINT)).start()

    result = mc.simulate(config(program, batches=8), progress=interrupt)
    assert result.status == "interrupted"
    assert len(result.batches_gy) == 4


def test_a_program_that_is_not_there_is_explained(program, tmp_path, monkeypatch):
    with pytest.raises(MissingDependencyError, match=r"opentps-core.*DOSEMOVER_MCSQUARE"):
        mc.simulate(config())
    with pytest.raises(MissingDependencyError, match="there is no MCsquare program at"):
        mc.simulate(config(tmp_path / "nowhere"))
    program.chmod(0o644)
    with pytest.raises(MissingDependencyError, match="Run: chmod"):
        mc.simulate(config(program))
    program.write_bytes(b"\x7fELF of another machine")
    program.chmod(0o755)
    with pytest.raises(MissingDependencyError, match="cannot be run"):
        mc.simulate(config(program))
    monkeypatch.setenv(mcsquare.PROGRAM_VARIABLE, str(program.parent))
    assert mcsquare.program_path({}) == program.resolve()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"options": {"beam_modell": "x"}}, "unknown key 'beam_modell'.*'beam_model'"),
        ({"options": {"beam_model": "/nowhere/BDL.txt"}}, "beam model /nowhere/BDL.txt cannot be read"),
        ({"options": {"materials": "/nowhere"}}, "materials are not in /nowhere"),
        ({"options": {"spot_sigma_mm": 0.0}}, "`spot_sigma_mm` must be positive"),
        ({"options": {"media": {"water": "Watter"}}}, "no material 'Watter' for the phantom's 'water'"),
        ({"sources": (mc.ProtonField(energy_mev=300.0),)}, "300 to 300 MeV, leave the beam model"),
        ({"estimator": "track_length"}, "MCsquare has its own transport"),
        (
            {"sources": (mc.PointSource(spectrum=mc.Spectrum.mono(1.0), position_mm=(0, 0, 0)),)},
            "a source is none",
        ),
        ({"engine": "builtin"}, "'builtin' transports no protons"),
    ],
)
def test_what_mcsquare_cannot_do_is_said(program, change, match):
    with pytest.raises(InputError, match=match):
        mc.simulate(config(program, **change))


def test_a_beam_model_loses_line_ends_and_comments_that_mislead(program, tmp_path):
    model = mcsquare_files.generic_beam_model(4.0, 0.6).text
    path = tmp_path / "BDL.txt"
    path.write_bytes(model.replace("\n", "  # remark\r\n").encode())
    read = mcsquare_files.read_beam_model(path)
    assert read.text == model
    assert (read.lowest_mev, read.highest_mev) == (10.0, 250.0)
    assert mc.simulate(config(program, options={"beam_model": str(path)})).dose_gy.max() > 0
    path.write_text("no table")
    with pytest.raises(InputError, match="is no beam model"):
        mcsquare_files.read_beam_model(path)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"energy_mev": -1.0}, "`energy_mev` of a proton field"),
        ({"energy_mev": (100.0, 100.0)}, "each once"),
        ({"layer_weights": (1.0, 2.0)}, "one positive number for each of 1 energies"),
        ({"isocenter_mm": (0, 0)}, "`isocenter_mm` must be three"),
        ({"weight": 0.0}, "`weight` and `spot_spacing_mm` must be positive"),
        ({"field_mm": (10.0, -10.0, 0.0, 1.0)}, "cannot be filled"),
        ({"spots_mm": ((0, 0),), "field_mm": 10.0}, "not both"),
        ({"spots_mm": ((0, 0, -1.0),)}, "with positive weights"),
    ],
)
def test_impossible_proton_fields_are_refused(change, match):
    with pytest.raises(InputError, match=match):
        mc.ProtonField(**({"energy_mev": 100.0} | change))


def test_a_configuration_file_sets_up_protons(program, tmp_path):
    text = f"""
        [simulation]
        engine = "mcsquare"
        histories = 2000
        batches = 2
        [phantom]
        type = "water_tank"
        size_mm = 40.0
        voxel_mm = 5.0
        [[source]]
        type = "proton"
        energy_mev = [40.0, 50.0]
        layer_weights = [0.5, 1.0]
        field_mm = 20.0
        [engine]
        program = "{program.as_posix()}"
    """
    path = tmp_path / "protons.toml"
    path.write_text(text)
    setup = mc.read_config(path)
    np.testing.assert_allclose(setup.sources[0].spots()[:, 3].sum(), 1.0)
    assert mc.simulate(setup).dose_gy.max() > 0
    for old, new, match in (
        ("field_mm", "feild_mm", "'field_mm'"),
        ("energy_mev", "#", "needs `energy_mev`"),
    ):
        path.write_text(text.replace(old, new))
        with pytest.raises(InputError, match=match):
            mc.read_config(path)


def test_weighted_fields_share_the_protons():
    fields = [mc.ProtonField(energy_mev=(80.0, 90.0), field_mm=10.0, weight=w) for w in (1.0, 3.0)]
    lines = mcsquare_files.plan_text(fields, mc.water_tank(size_mm=100.0, voxel_mm=10.0)).splitlines()
    spots = np.array(
        [
            [float(v) for v in line.split()]
            for line in lines
            if line[:1] in "-0123456789" and line.count(" ") == 2
        ]
    )
    weights = [row[2] for row in spots if abs(row[0]) <= 5]
    assert sum(weights) == pytest.approx(4.0)
    assert sum(weights[: len(weights) // 2]) == pytest.approx(1.0)


def test_external_settings_are_told_apart_from_those_of_the_built_in_engine():
    with pytest.raises(InputError, match="history_by_history"):
        external.check_transport(config(history_by_history=True), "MCsquare")


@needs_mcsquare
def test_protons_of_150_mev_reach_as_far_as_the_csda_range_says():
    """R80 of 150.56 MeV in water: 158.7 mm (CSDA, NIST PSTAR)."""
    tank = mc.water_tank(size_mm=(60.0, 180.0, 60.0), voxel_mm=(2.0, 0.5, 2.0), center_mm=(0.0, 90.0, 0.0))
    field = mc.ProtonField(energy_mev=150.56, isocenter_mm=(0.0, 90.0, 0.0))
    result = mc.simulate(config(REAL, phantom=tank, sources=(field,), histories=20000, batches=2))
    assert range_mm(result) == pytest.approx(158.74, abs=0.5)
    energy_mev = float(np.sum(result.dose_gy * result.grid.voxel_volume_mm3)) * 1e-6 / 1.602176634e-13
    assert 0.9 * 150.56 < energy_mev < 150.56
    assert np.array_equal(result.dose_gy, mc.simulate(result.config).dose_gy)


@needs_mcsquare
@pytest.mark.parametrize(("gantry", "spot"), [(0, (10.0, -8.0)), (90, (10.0, 8.0)), (30, (0.0, 0.0))])
def test_real_protons_go_where_the_gantry_points(gantry, spot):
    isocenter = np.array([6.0, 12.0, -9.0])
    tank = mc.water_tank(size_mm=(120.0, 160.0, 100.0), voxel_mm=2.0, center_mm=(10.0, 20.0, -5.0))
    field = mc.ProtonField(
        energy_mev=90.0, spots_mm=(spot,), isocenter_mm=tuple(isocenter), gantry_deg=gantry
    )
    result = mc.simulate(config(REAL, phantom=tank, sources=(field,), histories=2000, batches=2))
    z, y, x = result.grid.centers_mm
    share = result.dose_gy / result.dose_gy.sum()
    center = np.array([np.sum(share * x), np.sum(share * y[:, None]), np.sum(share * z[:, None, None])])
    angle = np.radians(gantry)
    across, along = np.array([np.cos(angle), np.sin(angle), 0.0]), np.array([0.0, 0.0, 1.0])
    offset = center - isocenter
    assert offset @ across == pytest.approx(spot[0], abs=0.6)
    assert offset @ along == pytest.approx(spot[1], abs=0.6)


@needs_mcsquare
def test_a_beam_model_that_loses_every_proton_is_caught(tmp_path):
    """Spots without correlation of place and angle: the program divides by it, and ends with exit code 0."""
    path = tmp_path / "BDL.txt"
    path.write_text(mcsquare_files.generic_beam_model(4.0, 0.6).text.replace("1e-5 1e-3", "1e-3 0.0"))
    with pytest.raises(DosemoverError, match="started outside the phantom"):
        mc.simulate(config(REAL, options={"beam_model": str(path)}))
