"""What a comparison says about its maps before it says anything about their difference."""

from dataclasses import replace

import numpy as np
import pytest

import dosemover as dm
from dosemover.errors import InputError
from dosemover.grid import Grid

GRID = Grid.regular(shape=(10, 12, 14), spacing_mm=(2.0, 2.0, 2.5), origin_mm=(5.0, 0.0, -7.0))
RNG = np.random.default_rng(11)


def plain(**fields):
    z, y, x = np.meshgrid(*GRID.centers_mm, indexing="ij")
    dose = 2.0 * np.exp(-(((x - 18) / 7) ** 2 + ((y - 11) / 7) ** 2 + ((z - 4) / 9) ** 2))
    return dm.DoseMap(dose_gy=dose, grid=GRID, **fields)


def batches(n=10, noise=0.05):
    """A run in batches: noise that goes with the root of the dose."""
    dose = plain().dose_gy
    drawn = RNG.standard_normal((n, *GRID.shape))
    return np.maximum(dose + noise * np.sqrt(dose * dose.max()) * drawn, 0)


def said(reference, evaluated, **settings):
    return " ".join(dm.compare(reference, evaluated, metrics=["mass"], **settings).warnings)


def with_hot_voxel(relative):
    """A map whose maximum is one voxel of a given relative uncertainty."""
    dose = plain().dose_gy.copy()
    sigma = 0.01 * dose + 1e-6
    dose[2, 3, 4] = 3.0
    sigma[2, 3, 4] = relative * 3.0
    return dm.DoseMap(dose_gy=dose, grid=GRID, uncertainty_gy=sigma)


def test_a_maximum_that_is_poorly_known_is_named_with_a_dose_that_is_known():
    warning = said(with_hot_voxel(0.63), plain())
    assert "3 Gy at (x, y, z) = (13, 6, -2) mm, is one voxel known to 63 % only" in warning
    assert "--prescription GY" in warning
    assert f"the highest dose known to 5 % is {plain().max_gy:.4g} Gy" in warning


def test_a_maximum_that_is_known_needs_no_warning():
    assert not said(with_hot_voxel(0.04), plain())
    assert not said(with_hot_voxel(0.63), plain(), prescription_gy=2.0)


def test_noise_everywhere_leaves_no_dose_that_is_known():
    noisy = plain(uncertainty_gy=0.3 * plain().dose_gy)
    assert "no voxel above half the maximum is known to 5 %" in said(noisy, plain())


def test_the_air_voxel_of_a_real_photon_beam_is_told(data_path):
    with np.load(data_path("mc_egsnrc/pA.npz")) as stored:
        values = stored["batches"].astype(np.float64) * float(stored["scale"])
    grid = Grid.regular(shape=values.shape[1:], spacing_mm=(4.0, 4.0, 4.0))
    noisy = dm.DoseMap.from_batches(values, grid)
    warning = said(noisy, noisy)
    assert "(116, 136, 20) mm, is one voxel known to 41 % only" in warning
    assert "the highest dose known to 5 % is 8.043e-12 Gy" in warning


def test_batches_of_the_map_are_taken_whatever_their_rounding():
    stack = batches()
    whole = dm.DoseMap.from_batches(stack, GRID)
    rounded = replace(whole, batches_gy=stack.astype(np.float16).astype(np.float32))
    assert not said(rounded, plain())


def test_batches_of_another_run_are_told_as_that():
    stranger = replace(dm.DoseMap.from_batches(batches(), GRID), batches_gy=batches())
    warning = said(plain(), stranger)
    assert "the mean of the 10 batches of the evaluated map is not the map" in warning
    assert "1.4 times the uncertainty" in warning
    assert "are they of another run, or only some of its batches?" in warning


def test_batches_of_another_map_are_told_as_that():
    moved = np.roll(batches(noise=0.01), 1, axis=-1)
    warning = said(replace(plain(), batches_gy=moved), plain())
    assert "more than noise makes: they are those of another map" in warning


@pytest.mark.parametrize(
    ("factor", "hint"),
    [
        (0.1, "they add up to it (multiply each by 10)"),
        (100.0, "one is in Gy, the other in cGy"),
        (1e-9, "one may be per history, the other a total"),
        (1.3, "holds 1.3 times its dose. Their scatter is not the noise of this map. Pass"),
    ],
)
def test_batches_of_another_scale_are_refused_with_the_likely_cause(factor, hint):
    stack = batches()
    wrong = replace(dm.DoseMap.from_batches(stack, GRID), batches_gy=factor * stack)
    with pytest.raises(InputError) as raised:
        said(wrong, plain())
    assert hint in str(raised.value)


def test_a_dose_as_its_own_uncertainty_is_refused():
    with pytest.raises(InputError, match="the uncertainty of the evaluated map is its dose, voxel by voxel"):
        said(plain(), plain(uncertainty_gy=plain().dose_gy))


def test_an_uncertainty_as_large_as_the_dose_is_doubted():
    other = 0.9 * plain().dose_gy + 0.01
    warning = said(plain(uncertainty_gy=other), plain())
    assert "the uncertainty of the reference map is" in warning
    assert "a relative uncertainty" in warning


def test_batches_bring_their_uncertainty_along():
    stack = batches()
    bare = dm.DoseMap(dose_gy=stack.mean(axis=0), grid=GRID, batches_gy=stack)
    result = dm.compare(bare, bare, metrics=["mass"])
    expected = dm.DoseMap.from_batches(stack, GRID).uncertainty_gy
    np.testing.assert_allclose(result.reference.uncertainty_gy, expected, rtol=1e-12)


def test_maps_in_other_coordinates_are_told():
    far = Grid.regular(shape=GRID.shape, spacing_mm=(2.0, 2.0, 2.5), origin_mm=(25.0, 0.0, -7.0))
    warning = said(plain(), dm.DoseMap(dose_gy=plain().dose_gy, grid=far))
    assert "the centers of dose lie 20 mm apart, (x, y, z) = (20, 0, 0) mm" in warning
    near = Grid.regular(shape=GRID.shape, spacing_mm=(2.0, 2.0, 2.5), origin_mm=(9.0, 0.0, -7.0))
    assert "centers of dose" not in said(plain(), dm.DoseMap(dose_gy=plain().dose_gy, grid=near))
