"""Each variance reduction: unbiased against analog, and worth its time on the case that it is meant for."""

import dataclasses

import numpy as np
import pytest

import dosemover.montecarlo as mc
from dosemover.errors import InputError

TANK = mc.slabs([("water", 30.0), ("cortical_bone", 10.0), ("lung", 40.0)], width_mm=80.0, voxel_mm=5.0)
BEAM = mc.Beam(spectrum=mc.Spectrum.mono(0.1), field_mm=40.0)
IMPORTANCE = mc.importance_along(TANK.grid, (0, 1, 0), 30.0)

METHODS = {
    "track length": {"estimator": "track_length"},
    "super-voxels": {"variance_reduction": mc.VarianceReduction(super_voxels=4)},
    "forced": {"variance_reduction": mc.VarianceReduction(forced_interactions=2)},
    "forced, track length": {
        "estimator": "track_length",
        "variance_reduction": mc.VarianceReduction(forced_interactions=1),
    },
    "stretched deeper": {"variance_reduction": mc.VarianceReduction(stretch=0.4)},
    "stretched back, track length": {
        "estimator": "track_length",
        "variance_reduction": mc.VarianceReduction(stretch=-0.4, stretch_direction=(0.2, 1.0, 0.0)),
    },
    "split and rouletted": {"variance_reduction": mc.VarianceReduction(importance=IMPORTANCE)},
    "all together": {
        "estimator": "track_length",
        "variance_reduction": mc.VarianceReduction(importance=IMPORTANCE, stretch=0.3),
    },
}


def setup(phantom, beam, histories, **changes):
    return mc.SimulationConfig(
        phantom=phantom, sources=(beam,), histories=histories, **({"batches": 20, "seed": 1} | changes)
    )


@pytest.fixture(scope="module")
def analog():
    return mc.simulate(setup(TANK, BEAM, 1_000_000, seed=99))


def block_sums(result):
    """Energy per history in blocks of 4 x 4 x 4 voxels: mean and its variance."""
    assert result.tallies is not None
    energy = result.tallies.energy_mev / result.tallies.histories[:, None, None, None]
    b, nz, ny, nx = energy.shape
    blocks = energy.reshape(b, nz // 4, 4, ny // 4, 4, nx // 4, 4).sum(axis=(2, 4, 6))
    return blocks.mean(axis=0), blocks.var(axis=0, ddof=1) / b


def check_unbiased(one, other):
    """z map of block sums against the reference: mean 0, spread 1; every depth and the whole agree."""
    (a, va), (b, vb) = block_sums(one), block_sums(other)
    high = b > 0.01 * b.max()
    z = (a - b)[high] / np.sqrt(va + vb)[high]
    assert np.abs(z).max() < 5
    assert z.std() < 1.35
    ny = one.grid.shape[1]
    for low in range(0, ny, 4):
        part = np.zeros(one.grid.shape)
        part[:, low : low + 4] = 1
        (a, sa), (b, sb) = one.energy_in(part), other.energy_in(part)
        assert abs(a - b) < 4 * np.hypot(sa, sb)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_leaves_the_mean_dose_unchanged(analog, name):
    check_unbiased(mc.simulate(setup(TANK, BEAM, 150_000, **METHODS[name])), analog)


def efficiency(result, region):
    """1 / (sigma^2 T): sigma^2 the variance of the region's voxels over their dose squared, T the CPU "
    "time."""
    sigma2 = np.sum(result.uncertainty_gy[region] ** 2) / np.sum(result.dose_gy[region]) ** 2
    return 1 / (sigma2 * result.cpu_seconds)


def gain(phantom, beam, histories, few, changes, region):
    """Efficiency over that of analog transport, after checking that both agree in the region."""
    for each in ({}, changes):
        mc.simulate(setup(phantom, beam, 200, **each))
    plain = mc.simulate(setup(phantom, beam, histories))
    other = mc.simulate(setup(phantom, beam, few, seed=2, **changes))
    (a, sa), (b, sb) = plain.energy_in(region), other.energy_in(region)
    assert abs(a - b) < 4 * np.hypot(sa, sb)
    return efficiency(other, region) / efficiency(plain, region)


def central(phantom, first, last):
    """Voxels around the beam axis between two depths [voxels]."""
    region = np.zeros(phantom.grid.shape, bool)
    nz, _, nx = region.shape
    region[nz // 2 - 2 : nz // 2 + 2, first:last, nx // 2 - 2 : nx // 2 + 2] = True
    return region


def test_track_length_pays_for_kv_dose():
    tank = mc.water_tank(size_mm=100.0, voxel_mm=5.0)
    beam = dataclasses.replace(BEAM, spectrum=mc.Spectrum.mono(0.05))
    changes = {"estimator": "track_length"}
    assert gain(tank, beam, 400_000, 100_000, changes, central(tank, 0, 20)) > 2


def test_forced_interactions_pay_where_most_photons_pass():
    plate = mc.water_tank(size_mm=(60.0, 10.0, 60.0), voxel_mm=5.0)
    beam = dataclasses.replace(BEAM, spectrum=mc.Spectrum.mono(1.25))
    changes = {"variance_reduction": mc.VarianceReduction(forced_interactions=1)}
    assert gain(plate, beam, 400_000, 100_000, changes, central(plate, 0, 2)) > 1.5


def test_super_voxels_pay_where_a_little_metal_sits_in_air():
    phantom = mc.uniform("lung", size_mm=160.0, voxel_mm=4.0)
    metal = mc.Shape(kind="box", center_mm=(60.0, 60.0, 60.0), size_mm=(16.0, 16.0, 16.0))
    phantom = phantom.with_shape(metal, "tungsten")
    changes = {"variance_reduction": mc.VarianceReduction(super_voxels=8)}
    assert gain(phantom, BEAM, 60_000, 60_000, changes, central(phantom, 0, 40)) > 3


@pytest.mark.parametrize(
    "reduction",
    [{"importance": True}, {"stretch": 0.5}],
    ids=["splitting and roulette", "exponential transform"],
)
def test_splitting_and_stretching_pay_at_depth(reduction):
    tank = mc.water_tank(size_mm=(80.0, 400.0, 80.0), voxel_mm=8.0)
    beam = dataclasses.replace(BEAM, spectrum=mc.Spectrum.mono(0.08))
    if "importance" in reduction:
        reduction = {"importance": mc.importance_along(tank.grid, (0, 1, 0), 40.0)}
    changes = {"variance_reduction": mc.VarianceReduction(**reduction)}
    assert gain(tank, beam, 600_000, 150_000, changes, central(tank, 40, 50)) > 1.3


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"stretch": 1.0}, "must lie between -1"),
        ({"roulette_weight": 0.5}, "`roulette_weight` must lie"),
        ({"stretch": 0.5, "forced_interactions": 1}, "cannot be combined"),
        ({"super_voxels": 4, "forced_interactions": 1}, "cannot be combined"),
        ({"stretch_direction": (0, 0, 0)}, "`stretch_direction`"),
        ({"importance": np.zeros((2, 2, 2))}, "`importance` must be positive"),
    ],
)
def test_impossible_combinations_are_refused(change, match):
    with pytest.raises(InputError, match=match):
        mc.VarianceReduction(**change)


def test_settings_that_do_not_fit_the_engine_are_refused():
    with pytest.raises(InputError, match="cannot be combined"):
        setup(
            TANK, BEAM, 100, estimator="track_length", variance_reduction=mc.VarianceReduction(super_voxels=2)
        )
    with pytest.raises(InputError, match="`importance` has shape"):
        setup(TANK, BEAM, 100, variance_reduction=mc.VarianceReduction(importance=np.ones((2, 2, 2))))
    with pytest.raises(InputError, match="direction and a positive doubling"):
        mc.importance_along(TANK.grid, (0, 1, 0), 0.0)
