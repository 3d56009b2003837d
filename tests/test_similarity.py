"""PSNR and SSIM: closed forms, scikit-image, and what is refused."""

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio
from skimage.metrics import structural_similarity as skimage_ssim

from dosemover.dose import DoseMap
from dosemover.metrics import psnr_db, structural_similarity


def smooth(shape=(14, 15, 16), seed=0, noise=0.0):
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    dose = 60 * np.exp(-2 * sum(axis**2 for axis in axes))
    dose = dose + noise * np.random.default_rng(seed).random(shape)
    return DoseMap.from_array(dose, spacing_mm=(2.5,) * len(shape))


def test_psnr_of_a_constant_difference_is_its_decibels():
    one = DoseMap.from_array(np.full((3, 3, 3), 10.0), spacing_mm=(1, 1, 1))
    two = DoseMap.from_array(np.full((3, 3, 3), 9.0), spacing_mm=(1, 1, 1))
    assert psnr_db(reference=one, evaluated=two) == pytest.approx(20.0)
    assert psnr_db(reference=one, evaluated=one) == np.inf


def test_psnr_matches_scikit_image(record_validation):
    one, two = smooth(), smooth(noise=2.0)
    want = peak_signal_noise_ratio(one.dose_gy, two.dose_gy, data_range=one.max_gy)
    assert psnr_db(reference=one, evaluated=two) == pytest.approx(want)
    record_validation(
        "peak signal-to-noise ratio",
        "scikit-image",
        reached=abs(psnr_db(reference=one, evaluated=two) - want),
        tolerance=1e-6,
        unit="dB",
    )


def test_ssim_of_equal_maps_is_one():
    got = structural_similarity(reference=smooth(), evaluated=smooth())
    assert got.value == pytest.approx(1.0)
    assert got.in_mask == pytest.approx(1.0)


def test_ssim_carries_the_settings_that_it_depends_on(record_validation):
    one, two = smooth(), smooth(noise=5.0)
    got = structural_similarity(reference=one, evaluated=two)
    want, local = skimage_ssim(
        one.dose_gy,
        two.dose_gy,
        data_range=one.max_gy,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        full=True,
    )
    assert got.value == pytest.approx(want, rel=1e-12)
    record_validation(
        "structural similarity",
        "scikit-image, same window and range",
        reached=abs(got.value - want),
        tolerance=1e-12,
    )
    assert got.in_mask == pytest.approx(local[one.dose_gy >= 0.1 * one.max_gy].mean(), rel=1e-12)
    assert (got.data_range_gy, got.window_voxels, got.n_dimensions) == (one.max_gy, 11, 3)


def test_ssim_of_constant_maps_is_the_luminance_term():
    one = DoseMap.from_array(np.full((12, 12), 10.0), spacing_mm=(1, 1))
    two = DoseMap.from_array(np.full((12, 12), 5.0), spacing_mm=(1, 1))
    c1 = (0.01 * 10) ** 2
    want = (2 * 10 * 5 + c1) / (10**2 + 5**2 + c1)
    got = structural_similarity(reference=one, evaluated=two)
    assert got.value == pytest.approx(want)
    assert got.n_dimensions == 2


def test_ssim_of_a_profile_works_in_one_dimension():
    got = structural_similarity(reference=smooth((40,)), evaluated=smooth((40,), noise=1.0))
    assert 0.9 < got.value < 1.0
    assert got.n_dimensions == 1


def test_ssim_of_a_map_narrower_than_its_window_is_missing_with_the_reason():
    got = structural_similarity(reference=smooth((5, 20, 20)), evaluated=smooth((5, 20, 20)))
    assert got.value is None
    assert got.status == "the map is 5 voxels wide along an axis, the window 11"
