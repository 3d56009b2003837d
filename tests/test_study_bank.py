"""Banks of batches: the analytic field, the noise that they reach, and what their files depend on."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import erf

from dosemover.errors import InputError
from dosemover.study import analytic
from dosemover.study.bank import (
    QUIET,
    REFERENCE,
    BankKey,
    Pilot,
    high_dose_noise_percent,
    make_bank,
    read_bank,
    read_facts,
    run_pilot,
)
from dosemover.study.design import Case, Change, Level

FIELD = {"field_mm": [-20, 20, -15, 15], "penumbra_mm": 6.0, "attenuation_per_mm": 0.01, "weight": 2.0}
BOX = {"phantom": {"type": "box", "size_mm": 80, "voxel_mm": 8}, "source": [FIELD]}
WATER = {
    "phantom": {"type": "uniform", "material": "water", "size_mm": 60, "voxel_mm": 10},
    "source": [{"spectrum": {"mono_mev": 0.1}, "field_mm": [-15, 15, -15, 15], "weight": 900}],
    "simulation": {"engine": "builtin", "estimator": "track_length"},
}
NONE = Change(name="none")


def case_of(document, engine, **settings):
    levels = (Level(percent=10.0, replicates=4),)
    return Case(
        name="case", engine=engine, document=document, levels=levels, usual_levels=(10.0,), changes=(NONE,),
        **settings,
    )  # fmt: skip


def key_of(case, *, change=NONE, role=REFERENCE, percent=10.0, replicates=4, seed=1, pilot=None):
    return BankKey(
        study_seed=seed, case=case, change=change, role=role, percent=percent, replicates=replicates,
        pilot=pilot or run_pilot(seed, case),
    )  # fmt: skip


def test_voxels_hold_the_mean_of_the_analytic_field():
    dose, grid = analytic.dose_of(BOX), analytic.grid_of(BOX)
    s = np.sqrt(2) * 6.0 / 1.6832424671458286

    def mean(function, edges, i):
        return quad(function, edges[i], edges[i + 1])[0] / (edges[i + 1] - edges[i])

    def profile(low, high):
        return lambda u: 0.5 * (erf((u - low) / s) - erf((u - high) / s))

    z, y, x = grid.edges_mm
    for k, j, i in ((5, 0, 5), (3, 4, 7), (0, 9, 2)):
        expected = 2 * mean(profile(-15, 15), z, k) * mean(profile(-20, 20), x, i)
        expected *= mean(lambda v: np.exp(-0.01 * (v - y[0])), y, j)
        assert dose[k, j, i] == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_a_field_without_attenuation_is_as_deep_as_the_box():
    flat = analytic.dose_of(BOX | {"source": [FIELD | {"attenuation_per_mm": 0.0}]})
    np.testing.assert_allclose(flat, flat[:, :1] * np.ones((1, 10, 1)))


def test_white_noise_is_unbiased_and_as_wide_as_asked():
    dose = np.full((10, 10, 10), 0.02)
    batches = analytic.noisy(
        dose, variance=np.full(dose.shape, 1e-4), batches=200, rng=np.random.default_rng(0)
    )
    assert np.all(batches >= 0)
    assert batches.mean() == pytest.approx(0.02, abs=5e-4)
    assert batches.mean(axis=0).std() == pytest.approx(1e-2, rel=0.1)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"phantom": {"type": "tank"}}, 'needs a phantom of type "box"'),
        ({"source": []}, "at least one source"),
        ({"source": [FIELD | {"penumbra": 1}]}, "Did you mean 'penumbra_mm'"),
        ({"source": [FIELD | {"field_mm": [1, 0, 0, 1]}]}, "edges"),
        ({"source": [FIELD | {"penumbra_mm": 0}]}, "positive penumbra"),
    ],
)
def test_analytic_fields_without_area_are_refused(damage, message):
    with pytest.raises(InputError, match=message):
        analytic.check(BOX | damage)


@pytest.mark.parametrize(("document", "engine"), [(BOX, "analytic"), (WATER, "builtin")])
def test_a_bank_reaches_the_noise_that_was_asked_for(tmp_path, document, engine):
    case = case_of(document, engine, pilot_histories=40_000)
    bank = read_bank(make_bank(key_of(case, percent=5.0, replicates=6), tmp_path))
    assert bank.noise_percent == pytest.approx(5.0, rel=0.12)
    between = bank.batches_gy.mean(axis=1)
    high = between.mean(axis=0) > 0.5 * between.mean(axis=0).max()
    scatter = between[:, high].std(axis=0, ddof=1) / between[:, high].mean(axis=0)
    assert 100 * np.sqrt(np.mean(scatter**2)) == pytest.approx(5.0, rel=0.25)


def test_the_reference_reaches_the_dose_that_was_asked_for(tmp_path):
    case = case_of(WATER, "builtin", max_gy=2.0, pilot_histories=40_000)
    dose = read_bank(make_bank(key_of(case, percent=2.0, replicates=2), tmp_path)).dose(0)
    assert dose.max_gy == pytest.approx(2.0, rel=0.1)


def test_a_bank_that_is_there_is_not_made_again(tmp_path):
    key = key_of(case_of(BOX, "analytic"))
    path = make_bank(key, tmp_path)
    stamp = path.stat().st_mtime_ns
    assert make_bank(key, tmp_path) == path
    assert path.stat().st_mtime_ns == stamp
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_the_same_key_gives_the_same_bits(tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
    key = key_of(case_of(WATER, "builtin", pilot_histories=20_000), percent=20.0)
    one, two = (read_bank(make_bank(key, tmp_path / folder)).batches_gy for folder in ("one", "two"))
    np.testing.assert_array_equal(one, two)


def test_every_replicate_and_every_role_has_its_own_histories(tmp_path):
    case = case_of(BOX, "analytic")
    keys = [key_of(case), key_of(case, role="none"), key_of(case, role=QUIET), key_of(case, seed=2)]
    maps = np.concatenate([read_bank(make_bank(key, tmp_path)).batches_gy for key in keys])
    flat = maps.reshape(-1, maps.shape[-3] * maps.shape[-2] * maps.shape[-1])
    assert np.unique(flat, axis=0).shape[0] == flat.shape[0]


@pytest.mark.parametrize(
    "other",
    [
        {"percent": 5.0},
        {"replicates": 5},
        {"role": "none"},
        {"seed": 2},
        {"change": Change(name="output", magnitude=1.0, kind="output")},
        {"pilot": Pilot(histories_at_1_percent=1e4, gray=3.0, cpu_seconds=0.0)},
    ],
)
def test_a_file_is_named_by_everything_it_depends_on(other):
    case = case_of(BOX, "analytic")
    pilot = Pilot(histories_at_1_percent=1e4, gray=1.0, cpu_seconds=0.0)
    assert key_of(case, pilot=pilot).name == key_of(case, pilot=replace(pilot, cpu_seconds=9.0)).name
    assert key_of(case, **({"pilot": pilot} | other)).name != key_of(case, pilot=pilot).name


def test_output_scales_the_dose_of_an_independent_simulation(tmp_path):
    case = case_of(BOX, "analytic")
    louder = Change(name="output", magnitude=3.0, kind="output", unit="%")
    plain, loud = (
        read_bank(make_bank(key_of(case, change=change, role=QUIET, percent=0.1), tmp_path)).dose(0)
        for change in (NONE, louder)
    )
    assert loud.integral_gy_mm3 / plain.integral_gy_mm3 == pytest.approx(1.03, abs=2e-4)
    assert np.any(np.abs(loud.dose_gy - 1.03 * plain.dose_gy) > 1e-6)


def test_facts_are_read_without_the_maps(tmp_path):
    path = make_bank(key_of(case_of(BOX, "analytic")), tmp_path)
    facts, bank = read_facts(path), read_bank(path)
    assert facts["histories"] == bank.histories == 100
    assert facts["noise_percent"] == bank.noise_percent


def test_histories_fall_with_the_square_of_the_noise():
    pilot = Pilot(histories_at_1_percent=1e6, gray=1.0, cpu_seconds=0.0)
    assert pilot.histories(10.0, 10) == 10_000
    assert pilot.histories(5.0, 10) == 40_000
    assert pilot.histories(1e6, 10) == 10


def test_the_noise_of_a_map_is_that_of_its_high_dose_region():
    from dosemover.dose import DoseMap

    dose = np.ones((4, 4, 4))
    dose[0] = 0.1
    sigma = np.where(dose == 1, 0.03, 0.1)
    found = DoseMap.from_array(dose, spacing_mm=(1.0, 1.0, 1.0), uncertainty_gy=sigma)
    assert high_dose_noise_percent(found, high_dose_percent=50.0) == pytest.approx(3.0)
    sigma[1:3] = 0.04
    mixed = DoseMap.from_array(dose, spacing_mm=(1.0, 1.0, 1.0), uncertainty_gy=sigma)
    # two layers of 4 %, one of 3 %: the root mean square
    assert high_dose_noise_percent(mixed, high_dose_percent=50.0) == pytest.approx(np.sqrt((9 + 32) / 3))
