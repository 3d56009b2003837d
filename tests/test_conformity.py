"""Homogeneity, conformity and gradient indices of spheres."""

import numpy as np
import pytest

from dosemover.dose import DoseMap, Structure
from dosemover.errors import InputError
from dosemover.grid import Grid
from dosemover.metrics import Dvh, conformity, homogeneity_index, isodose_volume_cc

GRID = Grid.regular(shape=(41,) * 3, spacing_mm=(2.0,) * 3, origin_mm=(-40.0,) * 3)
Z, Y, X = np.meshgrid(*GRID.centers_mm, indexing="ij")


def radius(x=0.0):
    return np.sqrt((X - x) ** 2 + Y**2 + Z**2)


def cone(x=0.0):
    """A dose of 60 Gy in the middle that falls by 2 Gy per mm."""
    return DoseMap(dose_gy=np.maximum(60 - 2 * radius(x), 0), grid=GRID)


def target(r):
    return Structure(name="PTV", fraction=np.clip((r - radius()) / 2 + 0.5, 0, 1), grid=GRID)


def sphere_cc(r):
    return 4 / 3 * np.pi * (r / 10) ** 3


def test_isodose_within_the_target_covers_part_of_it():
    got = conformity(dose=cone(), target=target(15.0), prescription_gy=36.0)  # isodose of 12 mm
    assert got.target_cc == pytest.approx(sphere_cc(15), rel=0.01)
    assert got.prescription_isodose_cc == pytest.approx(sphere_cc(12), rel=0.02)
    assert got.coverage == pytest.approx((12 / 15) ** 3, rel=0.03)
    assert got.selectivity == pytest.approx(1, abs=0.02)
    assert got.conformity_index == pytest.approx((12 / 15) ** 3, rel=0.03)
    assert got.paddick == got.vant_riet == pytest.approx((12 / 15) ** 3, rel=0.03)
    assert got.gradient_index == pytest.approx((21 / 12) ** 3, rel=0.02)
    assert got.status == "ok"


def test_isodose_around_the_target_is_not_selective():
    got = conformity(dose=cone(), target=target(10.0), prescription_gy=36.0)
    assert got.coverage == pytest.approx(1, abs=0.01)
    assert got.selectivity == pytest.approx((10 / 12) ** 3, rel=0.03)
    assert got.paddick == pytest.approx((10 / 12) ** 3, rel=0.03)


def test_isodose_beside_the_target_conforms_less():
    aside = conformity(dose=cone(6.0), target=target(12.0), prescription_gy=36.0)
    d, r = 6.0, 12.0
    overlap = 1 - 0.75 * d / r + (d / r) ** 3 / 16
    assert aside.paddick == pytest.approx(overlap**2, rel=0.04)
    assert aside.conformity_index == pytest.approx(1, abs=0.03)


def test_a_prescription_that_no_dose_reaches_leaves_indices_missing():
    got = conformity(dose=cone(), target=target(10.0), prescription_gy=70.0)
    assert got.paddick is None
    assert got.gradient_index is None
    assert got.coverage == 0
    assert got.status == "no dose reaches the prescription of 70 Gy"
    assert got.summary()["selectivity"] is None


def test_homogeneity_of_a_uniform_target_is_zero():
    assert homogeneity_index(Dvh(name="P", dose_gy=[60.0, 60.0], volume_mm3=[1.0, 1.0])) == 0
    assert np.isnan(homogeneity_index(Dvh(name="P", dose_gy=[0.0], volume_mm3=[1.0])))


def test_isodose_volume_of_a_ramp_is_exact(record_validation):
    grid = Grid.regular(shape=(1, 1, 11), spacing_mm=(1, 1, 1))
    dose = DoseMap(dose_gy=np.arange(11.0).reshape(1, 1, 11), grid=grid)
    assert isodose_volume_cc(dose=dose, level_gy=3.3) == pytest.approx((10.5 - 3.3) / 1000)
    record_validation(
        "isodose volume of a ramp",
        "closed form",
        reached=abs(isodose_volume_cc(dose=dose, level_gy=3.3) * 1000 / 7.2 - 1),
        tolerance=1e-6,
        unit="relative",
    )


def test_prescriptions_and_levels_must_be_positive():
    with pytest.raises(InputError, match="`prescription_gy` must be positive"):
        conformity(dose=cone(), target=target(10.0), prescription_gy=0)
    with pytest.raises(InputError, match="`level_gy` must be positive"):
        isodose_volume_cc(dose=cone(), level_gy=-1)
