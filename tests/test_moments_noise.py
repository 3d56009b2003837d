"""Noise floors and standard deviations of every level against simulated replicates and real batches."""

import numpy as np
import pytest

from dosemover.dose import DoseMap
from dosemover.errors import InputError
from dosemover.moments import bures_squared, moment_levels, moment_sos, support_box, tally_gaussian, tally_map
from dosemover.moments.galerkin import galerkin_w2
from moment_maps import beam, load_batches

LEVEL = 0.05


def replicate(rng, clean, **fields):
    """The clean map with independent noise of its voxels."""
    sigma = LEVEL * np.sqrt(clean.dose_gy)
    noisy = np.maximum(clean.dose_gy + sigma * rng.standard_normal(sigma.shape), 0.0)
    return DoseMap.from_array(noisy, spacing_mm=clean.grid.spacing_mm, uncertainty_gy=sigma, **fields)


@pytest.fixture(scope="module")
def null_levels():
    """All levels of one noisy null pair, and their values over 200 replicates."""
    rng = np.random.default_rng(4)
    clean = beam(20, background=0.02)
    found = moment_levels(
        reference=replicate(rng, clean), evaluated=replicate(rng, clean), order=2, draws=2000, sos_draws=40
    )
    values = []
    for _ in range(200):
        one, two = (tally_map(replicate(rng, clean), degree=4) for _ in range(2))
        m, n = tally_gaussian(one), tally_gaussian(two)
        shift = np.linalg.norm(m.mean_mm - n.mean_mm)
        gaussian = np.sqrt(shift**2 + bures_squared(m.covariance_mm2, n.covariance_mm2))
        values.append([shift, gaussian, moment_sos(reference=one, evaluated=two, order=2).lower_mm])
    return found, np.array(values)


KEYS = ("mean_shift_mm", "bures_w2_mm", "moment_sos_2_mm")


@pytest.mark.slow
@pytest.mark.parametrize("key", KEYS)
def test_the_floor_of_every_level_is_that_of_200_replicates(null_levels, key):
    found, values = null_levels
    simulated = values[:, KEYS.index(key)]
    assert found[key].floor_mm == pytest.approx(simulated.mean(), rel=0.1)
    assert found[key].floor_sd_mm == pytest.approx(simulated.std(), rel=0.3)


@pytest.mark.slow
def test_galerkin_floors_are_those_of_200_replicates(record_validation):
    rng = np.random.default_rng(5)
    clean = beam(20, background=0.02)
    squares, levels = [], ()
    for _ in range(200):
        pair = [tally_map(replicate(rng, clean)) for _ in range(2)]
        levels = galerkin_w2(reference=pair[0], evaluated=pair[1]).levels
        squares.append([level.value_mm**2 for level in levels])
    ratios = np.array([level.squared_floor_mm2 for level in levels]) / np.mean(squares, axis=0)
    # degrees 1 to 4 within 10 %, above within 25 %
    np.testing.assert_allclose(ratios[:4], 1.0, atol=0.1)
    np.testing.assert_allclose(ratios[4:], 1.0, atol=0.25)
    record_validation(
        "noise floor of the Galerkin distance, degrees 1 to 4",
        "200 simulated pairs",
        reached=float(np.abs(ratios[:4] - 1).max()),
        tolerance=0.1,
        unit="relative",
    )


@pytest.mark.slow
def test_the_predicted_spread_of_a_real_change_is_that_of_200_replicates():
    rng = np.random.default_rng(6)
    one, two = beam(20, background=0.02), beam(20, 0.38, background=0.02)
    values, predicted = [], []
    for _ in range(200):
        found = galerkin_w2(
            reference=tally_map(replicate(rng, one)), evaluated=tally_map(replicate(rng, two)), max_degree=4
        )
        values.append([level.value_mm for level in found.levels])
        predicted.append([level.sd_mm for level in found.levels])
    np.testing.assert_allclose(np.mean(predicted, axis=0), np.std(values, axis=0, ddof=1), rtol=0.2)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["p", "e"])
def test_floors_from_batches_are_those_of_real_monte_carlo_noise(data_path, kind, record_validation):
    """Halves of 20 EGSnrc batches drawn at random from 40 of the same beam."""
    maps = [load_batches(data_path(f"mc_egsnrc/{kind}{name}.npz")) for name in "AB"]
    box = support_box(*maps)
    tallies = [tally_map(dose, box_mm=box, degree=8) for dose in maps]
    batches = np.concatenate([t.batches for t in tallies])
    rng = np.random.default_rng(7)
    squares, predicted = [], []
    for _ in range(200):
        order = rng.permutation(len(batches))
        halves = []
        for part in (order[: len(batches) // 2], order[len(batches) // 2 :]):
            rows = batches[part]
            halves.append(type(tallies[0])(tensor=rows.mean(axis=0), box_mm=box, batches=rows))
        levels = galerkin_w2(reference=halves[0], evaluated=halves[1]).levels
        squares.append([level.value_mm**2 for level in levels])
        predicted.append([level.squared_floor_mm2 for level in levels])
    ratios = np.mean(predicted, axis=0) / np.mean(squares, axis=0)
    np.testing.assert_allclose(ratios, 1.0, atol=0.1)
    record_validation(
        "noise floor of the Galerkin distance from batches",
        "EGSnrc (DOSXYZnrc) batches, 200 random halves",
        reached=float(np.abs(ratios - 1).max()),
        tolerance=0.1,
        unit="relative",
    )


def test_a_real_shift_of_the_source_is_found_and_a_null_pair_is_not(data_path):
    null = [load_batches(data_path(f"mc_egsnrc/p{name}.npz")) for name in "AB"]
    shifted = load_batches(data_path("mc_egsnrc/p_shift1.npz"))
    same = moment_levels(reference=null[0], evaluated=null[1], order=2, sos_draws=19)
    moved = moment_levels(reference=null[0], evaluated=shifted, order=2, sos_draws=19)
    for key in ("mean_shift_mm", "bures_w2_mm", "moment_w2_mm", "moment_sos_2_mm"):
        assert same[key].p > 0.05
        assert moved[key].p <= 0.05
        # the source moved by 1 mm; dose that a beam edge or a wall of the phantom holds does not follow
        assert moved[key].value_mm == pytest.approx(0.95, abs=0.1)


def test_levels_rise_and_say_that_no_noise_is_known():
    found = moment_levels(reference=beam(), evaluated=beam(edge=0.38), order=3)
    values = [found[key].value_mm for key in (*KEYS, "moment_sos_3_mm")]
    assert values == sorted(values)
    assert all(level.floor_mm is None for level in found.levels)
    assert "no noise known" in found["moment_sos_2_mm"].status
    assert set(found.summary()) >= {"moment_w2_mm", "moment_dmd_mm", "moment_dmd_floor_mm"}


def test_too_low_a_degree_is_refused():
    with pytest.raises(InputError, match="`degree` 4 is too low: order 3"):
        moment_levels(reference=beam(8), evaluated=beam(8), order=3, degree=4)


def test_a_floor_of_high_order_asks_for_more_moments():
    rng = np.random.default_rng(1)
    clean = beam(12, background=0.02)
    found = moment_levels(
        reference=replicate(rng, clean), evaluated=replicate(rng, clean), order=2, degree=6, sos_draws=2
    )
    assert "no floor: it takes tallies of degree 8" in found["moment_sos_2_mm"].status
