"""The photon engine against closed forms, itself, and the AAPM TG-195 report."""

import dataclasses
import itertools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numba import njit
from scipy import stats

import dosemover.montecarlo as mc
from dosemover.errors import InputError
from dosemover.montecarlo import photon_engine
from dosemover.montecarlo.materials import KEV_ANGSTROM, material_library, photon_tables
from dosemover.montecarlo.photon_kernels import compton, rayleigh
from dosemover.montecarlo.ray_kernels import walk
from dosemover.montecarlo.rng_kernels import stream, unit
from dosemover.montecarlo.woodcock_kernels import corner_flight, free_flight

WATER = material_library()["water"]
TANK = mc.water_tank(size_mm=100.0, voxel_mm=5.0, center_mm=(0.0, 50.0, 0.0))
TG195_HISTORIES = 8e6
"""Source photons of a fan at rest: about 3 minutes of one processor."""

KV_BEAM = mc.Beam(spectrum=mc.Spectrum.mono(0.1), field_mm=50.0)


def config(**changes):
    settings = {"phantom": TANK, "sources": (KV_BEAM,), "histories": 40000, "batches": 10, "seed": 1}
    return mc.SimulationConfig(**(settings | changes))


@njit
def uniforms(seed, batch, n, out):
    for i in range(n):
        s, g = stream(np.uint64(seed), np.uint64(batch), np.uint64(i))
        for j in range(out.shape[1]):
            s += g
            out[i, j] = unit(s)


@njit
def compton_angles(n, energy, incoherent, out):
    s, g = stream(np.uint64(1), np.uint64(2), np.uint64(3))
    for i in range(n):
        _, out[i], s = compton(energy, incoherent, 0, s, g)


@njit
def rayleigh_angles(n, energy, form, out):
    s, g = stream(np.uint64(4), np.uint64(5), np.uint64(6))
    for i in range(n):
        out[i], s = rayleigh(energy, form, 0, s, g)


@njit
def passed_woodcock(n, box, medium, blocks, palette, section, maximum, energy_index):
    s, g = stream(np.uint64(7), np.uint64(8), np.uint64(9))
    count = 0
    for _ in range(n):
        _, _, _, voxel, _, _, s = free_flight(
            0.0,
            0.0,
            -50.0,
            0.3,
            0.1,
            0.948683298,
            maximum[energy_index],
            energy_index,
            0.0,
            medium,
            blocks,
            palette,
            section,
            box,
            s,
            g,
        )
        count += voxel < 0
    return count


@njit
def passed_super_voxels(n, box, medium, blocks, palette, section, maximum, scale, block, energy_index):
    s, g = stream(np.uint64(10), np.uint64(11), np.uint64(12))
    group = energy_index * scale.shape[3] // section.shape[1]
    count = 0
    for _ in range(n):
        _, _, _, voxel, _, _, s = corner_flight(
            0.0, 0.0, -50.0, 0.3, 0.1, 0.948683298, energy_index, 0.0, scale, block, group, medium,
            blocks, palette, section, box, maximum[energy_index], s, g,
        )  # fmt: skip
        count += voxel < 0
    return count


def test_random_numbers_are_uniform_and_streams_independent():
    numbers = np.empty((40000, 8))
    with np.errstate(over="ignore"):
        uniforms(3, 1, len(numbers), numbers)
    assert numbers.min() > 0
    assert numbers.max() < 1
    for column in (0, 3, 7):
        assert stats.kstest(numbers[:, column], "uniform").pvalue > 1e-3
    correlation = np.corrcoef(np.hstack([numbers[1:], numbers[:-1]]).T) - np.eye(16)
    assert np.abs(correlation).max() < 4.5 / np.sqrt(len(numbers))


@pytest.mark.parametrize("energy", [0.03, 0.3, 3.0])
def test_compton_angles_follow_klein_nishina_times_the_incoherent_function(energy):
    tables = photon_tables([WATER])
    sampled = np.empty(400_000)
    compton_angles(sampled.size, energy, tables.incoherent, sampled)
    edges = np.linspace(-1, 1, 41)
    fine = np.linspace(-1, 1, 40 * 100 + 1)
    middle = (fine[1:] + fine[:-1]) / 2
    ratio = 1 / (1 + energy / 0.51099895 * (1 - middle))
    momentum = energy * 1000 / KEV_ANGSTROM * np.sqrt((1 - middle) / 2)
    density = ratio**2 * (ratio + 1 / ratio - 1 + middle**2) * WATER.incoherent_function(momentum)
    expected = density.reshape(40, 100).sum(axis=1)
    counts, _ = np.histogram(sampled, edges)
    assert stats.chisquare(counts, expected / expected.sum() * sampled.size).pvalue > 1e-3


@pytest.mark.parametrize("energy", [0.02, 0.1])
def test_rayleigh_angles_follow_thomson_times_the_squared_form_factor(energy):
    tables = photon_tables([WATER])
    sampled = np.empty(200_000)
    rayleigh_angles(sampled.size, energy, tables.rayleigh, sampled)
    edges = np.concatenate([np.linspace(-1, 0.9, 20), np.linspace(0.9, 1, 21)[1:]])
    fine = np.concatenate([np.linspace(a, b, 101)[:-1] for a, b in itertools.pairwise(edges)])
    width = np.repeat(np.diff(edges) / 100, 100)
    middle = fine + width / 2
    momentum = energy * 1000 / KEV_ANGSTROM * np.sqrt((1 - middle) / 2)
    density = (1 + middle**2) * WATER.squared_form_factor(momentum) * width
    expected = density.reshape(-1, 100).sum(axis=1)
    expected = expected / expected.sum() * sampled.size
    counts, _ = np.histogram(sampled, edges)
    used = expected > 20
    deviation = (counts - expected)[used] / expected[used]
    assert np.all(np.abs(deviation) < 0.01 + 4.5 / np.sqrt(expected[used]))


def test_narrow_beam_attenuation_is_exponential_to_two_parts_in_a_thousand(record_validation):
    """Oblique flights through water, bone and lung: Woodcock, super-voxels and rays all give exp(-mu x)."""
    layers = [("water", 40.0), ("cortical_bone", 20.0), ("lung", 40.0)]
    phantom = mc.slabs(layers, width_mm=120.0, voxel_mm=2.0, axis="z")
    beam = mc.Beam(spectrum=mc.Spectrum.mono(0.5), direction=(0, 0, 1))
    setup = mc.SimulationConfig(
        phantom=phantom, sources=(beam,), variance_reduction=mc.VarianceReduction(super_voxels=7)
    )
    engine = photon_engine.PhotonEngine(setup)
    box, medium = engine.medium
    index = 1300
    path = np.array([40.0, 20.0, 40.0]) / 0.948683298
    mu = [m.density_g_per_cm3 * engine.section[i, index, 3] for i, m in enumerate(phantom.materials)]
    expected = np.exp(-np.dot(mu, path))
    n = 4_000_000
    with np.errstate(over="ignore"):
        woodcock = passed_woodcock(n, box, medium, *engine.blocks, engine.section, engine.maximum, index) / n
        blocks = (
            passed_super_voxels(
                n, box, medium, *engine.blocks, engine.section, engine.maximum, *engine.reduction, index
            )
            / n
        )
    attenuation = np.ascontiguousarray(engine.section[:, index, 3])
    none = np.zeros(0)
    _, voxel, depth, _, _ = walk(
        0.0, 0.0, -50.0, 0.3, 0.1, 0.948683298, 1e300, 0.5, 1.0, 0.0, False, 0, medium, None, 1.0, box,
        attenuation, attenuation, none, None, np.zeros(9), None,
    )  # fmt: skip
    assert voxel == -1
    assert np.exp(-depth) == pytest.approx(expected, rel=1e-6)
    assert woodcock == pytest.approx(expected, rel=2e-3)
    assert blocks == pytest.approx(expected, rel=2e-3)
    record_validation(
        "narrow-beam attenuation through water, bone and lung",
        "exp(−µx)",
        reached=max(abs(woodcock / expected - 1), abs(blocks / expected - 1)),
        tolerance=2e-3,
        unit="relative",
    )


@pytest.mark.parametrize("spectrum", [mc.Spectrum.mono(0.05), mc.Spectrum.linac_6mv()])
def test_deposited_plus_escaped_energy_is_emitted_energy(spectrum, record_validation):
    beam = mc.Beam(spectrum=spectrum, field_mm=120.0)
    result = mc.simulate(config(sources=(beam,), phantom=mc.thorax(voxel_mm=10.0)))
    balance = result.balance()
    total = balance["deposited_mev"] + balance["escaped_mev"]
    assert total == pytest.approx(balance["emitted_mev"], rel=1e-11)
    assert result.tallies is not None
    assert result.tallies.energy_mev.sum() == pytest.approx(balance["deposited_mev"], rel=1e-11)
    assert balance["escaped_mev"] > 0
    record_validation(
        "deposited plus escaped energy",
        "emitted energy",
        reached=abs(total / balance["emitted_mev"] - 1),
        tolerance=1e-11,
        unit="relative",
    )


def test_the_same_seed_gives_the_same_bits_on_any_number_of_threads(monkeypatch):
    setup = config(history_by_history=True)
    results = []
    for threads in (1, 2, 5):
        monkeypatch.setattr(photon_engine, "thread_count", lambda threads=threads: threads)
        results.append(mc.simulate(setup))
    for other in results[1:]:
        assert np.array_equal(results[0].dose_gy, other.dose_gy)
        assert np.array_equal(results[0].uncertainty_gy, other.uncertainty_gy)
    assert not np.array_equal(results[0].dose_gy, mc.simulate(setup, seed=2).dose_gy)


def test_a_run_in_pieces_gives_the_bits_of_one_run():
    setup = config(estimator="track_length", history_by_history=True)
    whole = mc.simulate(setup)
    pieces = mc.simulate(setup, resume=mc.simulate(setup, histories=15000))
    assert pieces.histories == whole.histories
    assert np.array_equal(pieces.dose_gy, whole.dose_gy)
    assert np.array_equal(pieces.history_uncertainty_gy, whole.history_uncertainty_gy)
    with pytest.raises(InputError, match="belongs to another configuration"):
        mc.simulate(config(seed=3), resume=whole)


def test_ctrl_c_keeps_what_was_simulated_and_it_continues(monkeypatch):
    setup = config(histories=60000)
    advance, calls = photon_engine.PhotonEngine.advance, []

    def interrupted(self, stop):
        calls.append(stop)
        if len(calls) == 3:
            raise KeyboardInterrupt
        advance(self, stop)

    monkeypatch.setattr(photon_engine.PhotonEngine, "advance", interrupted)
    partial = mc.simulate(setup)
    assert partial.status == "interrupted"
    assert 0 < partial.histories < 60000
    monkeypatch.setattr(photon_engine.PhotonEngine, "advance", advance)
    assert np.array_equal(mc.simulate(setup, resume=partial).dose_gy, mc.simulate(setup).dose_gy)


def test_ctrl_c_amid_a_chunk_leaves_tallies_and_histories_in_step(monkeypatch):
    """A signal while some batches are ahead of others: none of them may count twice when resumed."""
    setup = config(histories=60000)
    advance, calls = photon_engine.PhotonEngine._advance_batch, []

    def signalled(self, b, stop):
        calls.append(b)
        if len(calls) == 25:  # the third chunk of ten batches
            os.kill(os.getpid(), signal.SIGINT)
        return advance(self, b, stop)

    monkeypatch.setattr(photon_engine.PhotonEngine, "_advance_batch", signalled)
    partial = mc.simulate(setup)
    assert partial.status == "interrupted"
    assert len(calls) == 30
    assert np.array_equal(partial.tallies.balance[:, 5], partial.tallies.histories)
    assert np.array_equal(mc.simulate(setup, resume=partial).dose_gy, mc.simulate(setup).dose_gy)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_stop_rules_end_a_run_at_a_fixed_number_of_histories():
    loose = config(histories=10**7, uncertainty_goal_percent=30.0)
    first, second = mc.simulate(loose), mc.simulate(loose)
    assert first.status == "goal reached"
    assert first.mean_relative_uncertainty_percent <= 30
    assert first.histories == second.histories < 10**7
    own = mc.simulate(config(histories=10**7), stop=lambda result: result.histories > 20000)
    assert 20000 < own.histories < 40000
    assert mc.simulate(config(histories=10**9, max_seconds=0.2)).status == "time limit"


def test_merged_runs_are_more_certain_and_shared_seeds_are_refused():
    parts = [mc.simulate(config(seed=seed)) for seed in (1, 2, 3, 4)]
    merged = mc.merge(parts)
    assert merged.histories == 4 * parts[0].histories
    np.testing.assert_allclose(merged.dose_gy, np.mean([p.dose_gy for p in parts], axis=0), rtol=1e-12)
    gain = parts[0].mean_relative_uncertainty_percent / merged.mean_relative_uncertainty_percent
    assert gain == pytest.approx(2.0, rel=0.1)
    assert len(merged.to_dose_map().batches_gy) == 40
    with pytest.raises(InputError, match="share a seed"):
        mc.merge([parts[0], parts[0]])
    with pytest.raises(InputError, match="different configurations"):
        mc.merge([parts[0], mc.simulate(config(photon_cutoff_mev=0.01))])
    with pytest.raises(InputError, match="nothing to merge"):
        mc.merge([])


def test_blocks_of_equal_voxels_hold_what_their_voxels_hold():
    phantom = mc.thorax(voxel_mm=6.0)
    engine = photon_engine.PhotonEngine(config(phantom=phantom))
    blocks, palette = engine.blocks
    assert np.count_nonzero(blocks >= 0) > 0.2 * blocks.size
    z, y, x = (
        np.minimum(np.arange(n) // 8, m - 1) for n, m in zip(phantom.grid.shape, blocks.shape, strict=True)
    )
    row = blocks[np.ix_(z, y, x)]
    assert np.array_equal(palette[row[row >= 0], 0], phantom.density_g_per_cm3[row >= 0])
    assert np.array_equal(palette[row[row >= 0], 1], phantom.material[row >= 0])


def test_deposits_stream_to_a_consumer_without_being_stored():
    class Consumer:
        def __init__(self):
            self.energy = np.zeros(10)
            self.moment = np.zeros(3)

        def deposits(self, batch, position_mm, energy_mev):
            self.energy[batch] += energy_mev.sum()
            self.moment += energy_mev @ position_mm

    consumer = Consumer()
    result = mc.simulate(config(histories=400_000), consumer=consumer)
    assert result.tallies is not None
    energy = result.tallies.energy_mev
    np.testing.assert_allclose(consumer.energy, energy.sum(axis=(1, 2, 3)), rtol=1e-10)
    depth = result.grid.centers_mm[1]
    mean_depth = consumer.moment[1] / consumer.energy.sum()
    voxelwise = (energy.sum(axis=(0, 1, 3)) @ depth) / energy.sum()
    assert mean_depth == pytest.approx(voxelwise, abs=0.1)
    assert np.array_equal(result.dose_gy, mc.simulate(config(histories=400_000)).dose_gy)
    with pytest.raises(InputError, match="analog estimator"):
        mc.simulate(config(estimator="track_length"), consumer=consumer)


def test_uncertainty_falls_as_one_over_the_root_of_the_histories():
    sizes = np.array([40_000, 160_000, 640_000])
    tank = mc.water_tank(size_mm=100.0, voxel_mm=20.0, center_mm=(0.0, 50.0, 0.0))
    setup = config(phantom=tank, estimator="track_length", history_by_history=True, batches=4)
    high = None
    values = []
    for n in sizes:
        result = mc.simulate(setup, histories=n)
        high = result.dose_gy > 0.3 * result.dose_gy.max() if high is None else high
        values.append(np.mean(result.history_uncertainty_gy[high] / result.dose_gy[high]))
    slope = np.polyfit(np.log(sizes), np.log(values), 1)[0]
    assert slope == pytest.approx(-0.5, abs=0.02)


def test_the_reported_uncertainty_is_the_spread_between_seeds(record_validation):
    tank = mc.water_tank(size_mm=100.0, voxel_mm=10.0, center_mm=(0.0, 50.0, 0.0))
    setup = config(phantom=tank, histories=20000, batches=20, history_by_history=True)
    runs = [mc.simulate(setup, seed=seed) for seed in range(20)]
    doses = np.stack([run.dose_gy for run in runs])
    high = doses.mean(axis=0) > 0.1 * doses.mean(axis=0).max()
    empirical = np.sqrt(doses.var(axis=0, ddof=1)[high].mean())
    by_batches = np.sqrt(np.mean([run.uncertainty_gy[high] ** 2 for run in runs]))
    by_histories = np.sqrt(np.mean([run.history_uncertainty_gy[high] ** 2 for run in runs]))
    assert empirical / by_batches == pytest.approx(1.0, abs=0.03)
    assert empirical / by_histories == pytest.approx(1.0, abs=0.03)
    record_validation(
        "reported uncertainty, by batches and by histories",
        "spread of 20 independent runs",
        reached=max(abs(empirical / by_batches - 1), abs(empirical / by_histories - 1)),
        tolerance=0.03,
        unit="relative",
    )


def test_kernels_run_as_plain_python_with_the_same_result():
    code = (
        "import numpy as np, dosemover.montecarlo as mc\n"
        "tank = mc.water_tank(size_mm=60.0, voxel_mm=20.0)\n"
        "beams = (mc.Beam(spectrum=mc.Spectrum.mono(3.0), field_mm=30.0, penumbra_mm=2.0),\n"
        "         mc.PointSource(spectrum=mc.Spectrum.radionuclide('I-125'), position_mm=(0, 0, 0)))\n"
        "for extra in ({}, {'estimator': 'track_length'}):\n"
        "    c = mc.SimulationConfig(phantom=tank, sources=beams, histories=60, batches=2, seed=5, **extra)\n"
        "    print(repr(mc.simulate(c).dose_gy.ravel().tolist()))\n"
    )
    outputs = []
    for disable in ("0", "1"):
        env = {**os.environ, "NUMBA_DISABLE_JIT": disable}
        run = subprocess.run(
            [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
        )
        outputs.append(np.array([json.loads(line) for line in run.stdout.splitlines()]))
    np.testing.assert_allclose(outputs[1], outputs[0], rtol=1e-9, atol=1e-30)


@pytest.mark.parametrize(
    ("estimator", "energy"), [("analog", 3.0), ("track_length", 3.0), ("track_length", 0.06)]
)
def test_the_cuda_kernel_gives_the_dose_of_the_cpu(estimator, energy):
    """In Numba's simulator: the same histories, sums equal up to the quantum of the integer tally."""
    code = (
        "import json, dosemover.montecarlo as mc\n"
        "tank = mc.slabs([('water', 20.0), ('cortical_bone', 20.0)], width_mm=60.0, voxel_mm=20.0)\n"
        f"beam = mc.Beam(spectrum=mc.Spectrum.mono({energy}), field_mm=30.0)\n"
        f"c = dict(phantom=tank, sources=(beam,), histories=60, batches=2, seed=5, estimator={estimator!r})\n"
        "for engine in ('builtin', 'cuda'):\n"
        "    result = mc.simulate(mc.SimulationConfig(engine=engine, **c))\n"
        "    print(json.dumps(result.dose_gy.ravel().tolist()))\n"
    )
    env = {**os.environ, "NUMBA_DISABLE_JIT": "1", "NUMBA_ENABLE_CUDASIM": "1", "PYTHONWARNINGS": "ignore"}
    run = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    cpu, device = (np.array(json.loads(line)) for line in run.stdout.splitlines())
    assert cpu.max() > 0
    np.testing.assert_allclose(device, cpu, rtol=1e-10, atol=1e-10 * cpu.max())


@pytest.mark.slow
def test_numba_cuda_compiles_both_kernels_for_a_gpu():
    """To PTX by NVIDIA's own compiler (libnvvm, CUDA_HOME), which needs no GPU."""
    code = (
        "import sys, types as t\n"
        "import numba\n"
        "from numba import cuda, types\n"
        "from numba.cuda import api, compiler, dispatcher\n"
        "from numba.cuda.cudadrv.nvvm import NVVM\n"
        "try:\n"
        "    NVVM()\n"
        "except Exception:\n"
        "    sys.exit(77)\n"
        "for module in (api, compiler, dispatcher):\n"
        "    module.get_current_device = lambda: t.SimpleNamespace(compute_capability=(8, 0))\n"
        "import dosemover.montecarlo as mc\n"
        "from dosemover.montecarlo import cuda_engine\n"
        "from dosemover.montecarlo.photon_engine import PhotonEngine\n"
        "tank = mc.slabs([('water', 20.0), ('cortical_bone', 20.0)], width_mm=60.0, voxel_mm=20.0)\n"
        "beam = mc.Beam(spectrum=mc.Spectrum.mono(3.0), field_mm=30.0)\n"
        "for name in ('analog', 'track_length'):\n"
        "    c = dict(phantom=tank, sources=(beam,), histories=2, batches=2, estimator=name)\n"
        "    kernel, arrays = cuda_engine._kernel_and_tables(PhotonEngine(mc.SimulationConfig(**c)))\n"
        "    kinds = [types.Array(numba.from_dtype(a.dtype), a.ndim, 'C') for a in arrays]\n"
        "    rest = types.float64, types.int64[::1], types.float64, types.float64[::1]\n"
        "    head = types.uint64, types.int64, types.int64, types.int64\n"
        "    signature = types.void(*head, *kinds, *rest)\n"
        "    text, _ = cuda.compile(kernel, signature, device=False, abi='numba', cc=(8, 0))\n"
        "    print(len(text), '.entry' in text, 'atom' in text)\n"
    )
    env = {**os.environ, "PYTHONWARNINGS": "ignore"}
    run = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    if run.returncode == 77:
        pytest.skip("NVIDIA's libnvvm is not installed: pip install nvidia-cuda-nvcc-cu12, and set CUDA_HOME")
    assert run.returncode == 0, run.stderr
    assert [line.split()[1:] for line in run.stdout.splitlines()] == [["True", "True"]] * 2


def test_cuda_refuses_what_it_cannot_do():
    with pytest.raises(InputError, match="analog and the track-length estimator with batch statistics"):
        mc.simulate(config(engine="cuda", variance_reduction=mc.VarianceReduction(forced_interactions=1)))


def test_a_beam_that_misses_is_named():
    missing = mc.Beam(spectrum=mc.Spectrum.mono(0.1), field_mm=20.0, isocenter_mm=(500.0, 0.0, 0.0))
    with pytest.raises(InputError, match=r"source 2 of 2 misses the phantom"):
        mc.simulate(config(sources=(KV_BEAM, missing)))


def test_gantry_angles_turn_the_beam_as_iec_61217_says():
    tank = mc.water_tank(size_mm=100.0, voxel_mm=10.0)
    for angle, axis, sign in ((0, 1, 1), (90, 2, -1), (180, 1, -1), (270, 2, 1)):
        beam = mc.Beam(spectrum=mc.Spectrum.mono(0.06), field_mm=40.0, gantry_deg=angle)
        dose = mc.simulate(config(phantom=tank, sources=(beam,), estimator="track_length")).dose_gy
        along = dose.sum(axis=tuple(n for n in range(3) if n != axis))
        assert (along[0] > 3 * along[-1]) == (sign > 0)
        assert (along[-1] > 3 * along[0]) == (sign < 0)


def test_sources_have_the_field_penumbra_and_weights_that_they_state():
    beam = mc.Beam(
        spectrum=mc.Spectrum.mono(1.0),
        field_mm=(-20.0, 40.0, -10.0, 10.0),
        direction=(0, 0, 1),
        penumbra_mm=8.0,
    )
    circle = mc.Beam(
        spectrum=mc.Spectrum.mono(2.0),
        shape="circle",
        field_mm=30.0,
        direction=(0, 0, 1),
        source_distance_mm=None,
        weight=3.0,
    )
    photons = mc.sample_phase_space([beam, circle], 200_000, plane_z_mm=0.0)
    first, second = photons[photons[:, 6] == 1.0], photons[photons[:, 6] == 2.0]
    assert len(second) / len(first) == pytest.approx(3.0, rel=0.02)
    x = first[:, 0]
    assert x.mean() == pytest.approx(10.0, abs=0.3)
    inner = ((x > 0) & (x < 20)).sum() / 20
    for level, edge in ((0.8, 40 - 4), (0.2, 40 + 4)):
        local = ((x > edge - 0.5) & (x < edge + 0.5)).sum()
        assert local / inner == pytest.approx(level, abs=0.06)
    radius = np.hypot(second[:, 0], second[:, 1])
    assert radius.max() <= 15.0
    assert np.mean(radius**2) == pytest.approx(15.0**2 / 2, rel=0.01)
    np.testing.assert_allclose(second[:, 3:6], [[0, 0, 1]] * len(second), atol=1e-12)
    arc = dataclasses.replace(beam, direction=None, arc_deg=360.0)
    directions = mc.sample_phase_space([arc], 20000)[:, 3:6]
    np.testing.assert_allclose(directions[:, :2].mean(axis=0), 0.0, atol=0.03)


def test_the_dose_says_that_it_is_kerma_and_warns_above_co_60():
    assert len(mc.simulate(config(histories=100)).limits) == 2
    mv = mc.Beam(spectrum=mc.Spectrum.linac_6mv(), field_mm=50.0)
    result = mc.simulate(config(sources=(mv,), histories=100))
    assert any("not an MV dose" in limit for limit in result.limits)
    assert "kerma" in result.records()["limits"]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"engine": "geant"}, "`engine` must be one of"),
        ({"photon_cutoff_mev": 1e-5}, "`photon_cutoff_mev` must lie"),
        ({"photons": -1.0}, "`photons` must be positive"),
        ({"sources": ()}, "no source"),
    ],
)
def test_impossible_settings_are_refused(change, match):
    with pytest.raises(InputError, match=match):
        mc.simulate(config(**change))


def test_impossible_sources_are_refused():
    spectrum = mc.Spectrum.mono(0.1)
    for change, match in (
        ({"direction": (0, 0, 0)}, "must not be"),
        ({"source_distance_mm": -1.0}, "`source_distance_mm` must be positive"),
        ({"weight": 0.0}, "`weight` must be positive"),
        ({"shape": "hexagon"}, "`shape` of a beam"),
        ({"isocenter_mm": (0.0, np.nan, 0.0)}, "three finite numbers"),
    ):
        with pytest.raises(InputError, match=match):
            mc.Beam(spectrum=spectrum, **change)
    with pytest.raises(InputError, match="`weight` of a point source"):
        mc.PointSource(spectrum=spectrum, position_mm=(0, 0, 0), weight=0.0)
    with pytest.raises(InputError, match=r"must have shape \(n, 8\)"):
        mc.PhaseSpaceSource(particles=np.zeros((3, 7)))


def tg195(data_path, name, width):
    """The example script, the spectrum, and the report's slabs and rods of one fan."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))
    import tg195_case4 as case

    report = json.loads(data_path("tg195/case4.json").read_text())
    spectrum = mc.Spectrum.mono(0.0564)
    if name == "120kV":
        tube = report["spectra"]["120kV"]
        spectrum = mc.Spectrum(energy_mev=np.array(tube["energy_kev"]) / 1000, weight=tube["weight"])
    tables = [report[f"case4_test{n}"]["results"][name][f"{width:.0f}mm"] for n in (1, 2)]
    return case, spectrum, *tables


@pytest.mark.slow
@pytest.mark.parametrize("width", [10.0, 80.0])
@pytest.mark.parametrize(("name", "limit"), [("56.4keV", 0.01), ("120kV", 0.02)])
def test_tg195_case_4_is_met(data_path, name, limit, width, record_validation):
    """AAPM Report 195, Case 4: mean of the report's codes, eV per source photon.

    Standard uncertainties of 0.3 %, 1 % for the rods beyond 90 degrees, whose deviation may reach 3 of them.
    """
    case, spectrum, slabs, rods = tg195(data_path, name, width)
    result = case.run(spectrum, width, histories=TG195_HISTORIES)
    worst = 0.0
    for n, expected in enumerate(slabs):
        mean, sigma = result.energy_in(case.slab(result.grid, n + 1))
        assert sigma / expected < 0.003
        assert mean == pytest.approx(expected, rel=limit), f"VOI{n + 1}"
        worst = max(worst, abs(mean / expected - 1))
    mean, sigma = result.energy_in(case.rod(result.grid))
    expected = np.mean(rods["centre"][1:])
    assert sigma / expected < 0.003
    assert mean == pytest.approx(expected, rel=limit)
    worst = max(worst, abs(mean / expected - 1))
    outer = np.array(rods["periphery"][1:])
    for angle in range(0, 190, 10):
        mean, sigma = result.energy_in(case.outer_rods(result.grid, angle))
        expected = (outer[angle // 10] + outer[-angle // 10]) / 2  # the report's own mirror image
        assert sigma / expected < (0.003 if angle <= 90 else 0.01), angle
        if angle <= 90:
            assert mean == pytest.approx(expected, rel=limit), angle
            worst = max(worst, abs(mean / expected - 1))
        else:
            assert mean == pytest.approx(expected, rel=limit, abs=3 * sigma), angle
    record_validation(
        f"energy deposited in a body phantom, {name}",
        "AAPM TG-195 case 4, mean of its codes",
        reached=worst,
        tolerance=limit,
        unit="relative",
    )


@pytest.mark.slow
@pytest.mark.parametrize("width", [10.0, 80.0])
@pytest.mark.parametrize(("name", "limit"), [("56.4keV", 0.01), ("120kV", 0.02)])
def test_tg195_case_4_is_met_by_a_source_that_turns(data_path, name, limit, width):
    """A turning source gives the mean over its angles; the report's own entry for it is up to 2.1 % below.

    On the axis of a round phantom the angle cannot matter, and yet the report's continuous rotation lies
    0.3 to 2.1 % under its own 36 projections: it is met within the limit plus this difference.
    """
    case, spectrum, _, rods = tg195(data_path, name, width)
    result = case.run(spectrum, width, histories=TG195_HISTORIES / 5, turning=True)
    ring = sum(case.rod(result.grid, angle) for angle in case.ANGLES_DEG) / len(case.ANGLES_DEG)
    for rod, part in (("centre", case.rod(result.grid)), ("periphery", ring)):
        mean, sigma = result.energy_in(part)
        turning, projections = rods[rod][0], np.mean(rods[rod][1:])
        assert sigma / projections < 0.005
        assert mean == pytest.approx(projections, rel=limit, abs=3 * sigma)
        assert mean == pytest.approx(turning, rel=limit + abs(turning / projections - 1), abs=3 * sigma)
