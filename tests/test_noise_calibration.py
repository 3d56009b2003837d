"""p values on real Monte Carlo batches: random halves of null pairs, by another code (DOSXYZnrc)."""

import numpy as np
import pytest
from scipy import stats

from dosemover.comparison.closed_floors import closed_floors
from dosemover.comparison.noise_at_hand import noise_at_hand
from dosemover.comparison.result import MetricResult
from dosemover.dose import DoseMap
from dosemover.grid import Grid
from dosemover.noise import (
    NoiseCorrelation,
    NoiseModel,
    noise_correlation,
    parametric_pairs,
    permuted_pairs,
    significance,
)

PAIRS = 200
REGIONS = {
    "high dose, 8 % noise": ("p", 5, (slice(2, 18), slice(24, 40), slice(24, 40))),
    "high dose, 4 % noise": ("p", 20, (slice(2, 18), slice(24, 40), slice(24, 40))),
    "low dose, beside the field": ("p", 10, (slice(10, 26), slice(24, 40), slice(0, 14))),
    "electrons, 3 % noise": ("e", 10, (slice(0, 14), slice(24, 40), slice(24, 40))),
    "air cavity, heavy tails": ("p", 10, (slice(3, 9), slice(32, 39), slice(28, 34))),
}


@pytest.fixture(scope="module")
def pools(data_path):
    found = {}
    for beam in "ep":
        halves = []
        for side in "AB":
            with np.load(data_path(f"mc_egsnrc/{beam}{side}.npz")) as stored:
                halves.append(stored["batches"].astype(np.float32) * np.float32(stored["scale"] * 1e11))
        found[beam] = np.concatenate(halves)
    return found


def null_pairs(pool, n, *, with_batches):
    """Random pairs of n batches; uncertainty maps as a code's own history-by-history statistics give."""
    rng = np.random.default_rng(3)
    grid = Grid.regular(shape=pool.shape[1:], spacing_mm=(4.0, 4.0, 4.0))
    uncertainty = pool.std(axis=0, ddof=1, dtype=np.float64) / np.sqrt(n)
    for _ in range(PAIRS):
        order = rng.permutation(len(pool))
        sides = (pool[order[:n]], pool[order[n : 2 * n]])
        if with_batches:
            yield tuple(DoseMap.from_batches(side, grid) for side in sides)
        else:
            yield tuple(
                DoseMap(dose_gy=side.mean(axis=0, dtype=np.float64), grid=grid, uncertainty_gy=uncertainty)
                for side in sides
            )


def closed_p(one, two, *, independent=False, draws=None):
    difference = two.dose_gy - one.dose_gy
    values = {
        "mass_ratio": two.dose_gy.sum() / one.dose_gy.sum(),
        "rmse_gy": float(np.sqrt(np.mean(difference**2))),
    }
    noise = noise_at_hand(reference=one, evaluated=two)
    if independent:
        noise.__dict__["model"] = NoiseModel(correlation=NoiseCorrelation.independent())
    results = {key: MetricResult(key=key, value=value) for key, value in values.items()}
    return {key: found.p for key, found in closed_floors(noise, results, draws=draws, seed=0).items()}


def fires_percent(p):
    return 100 * np.mean(np.asarray(p) <= 0.05)


@pytest.mark.parametrize("region", REGIONS)
def test_p_values_by_relabelled_batches_are_uniform_under_the_null(pools, region, record_validation):
    beam, n, where = REGIONS[region]
    pool = pools[beam][(slice(None), *where)]
    p = [closed_p(*pair, draws=199) for pair in null_pairs(pool, n, with_batches=True)]
    rng = np.random.default_rng(0)
    for key in ("mass_ratio", "rmse_gy"):
        values = np.array([one[key] for one in p]) - rng.random(PAIRS) / 200
        assert stats.kstest(values, "uniform").pvalue > 0.005, (key, region)
        assert fires_percent(values) == pytest.approx(5, abs=3.5), (key, region)
        record_validation(
            f"5 % tests by batches fire, {region}",
            "EGSnrc null pairs: no difference exists",
            reached=abs(fires_percent(values) - 5),
            tolerance=3.5,
            unit="% of pairs off 5 %",
        )


@pytest.mark.parametrize("region", REGIONS)
def test_p_values_from_uncertainty_maps_are_right_or_cautious(pools, region):
    beam, n, where = REGIONS[region]
    pool = pools[beam][(slice(None), *where)]
    p = [closed_p(*pair) for pair in null_pairs(pool, n, with_batches=False)]
    for key in ("mass_ratio", "rmse_gy"):
        assert fires_percent([one[key] for one in p]) < 9, (key, region)


def test_independent_voxels_reject_true_nulls(pools):
    beam, n, where = REGIONS["electrons, 3 % noise"]
    pool = pools[beam][(slice(None), *where)]
    p = [closed_p(*pair, independent=True)["mass_ratio"] for pair in null_pairs(pool, n, with_batches=False)]
    assert fires_percent(p) > 20
    assert stats.kstest(p, "uniform").pvalue < 1e-6


def test_p_values_of_the_maximum_by_relabelling_hold_in_the_air_cavity(pools):
    beam, n, where = REGIONS["air cavity, heavy tails"]
    pool = pools[beam][(slice(None), *where)]
    rng = np.random.default_rng(1)

    def largest(one, two):
        return float(np.max(np.abs(two.dose_gy - one.dose_gy)))

    p = []
    for one, two in null_pairs(pool, n, with_batches=True):
        pairs = permuted_pairs(reference=one, evaluated=two, draws=19, rng=rng)
        nulls = [largest(*pair) for pair in pairs]
        p.append(significance(largest(one, two), floor_values=nulls).p - rng.random() / 20)
    assert stats.kstest(p, "uniform").pvalue > 0.005
    assert fires_percent(p) == pytest.approx(5, abs=3.5)


def test_correlation_of_real_noise_is_found_from_one_pair(pools):
    """DOSXYZnrc electrons: neighbours in depth share about half their noise, those across a tenth."""
    pool = pools["e"][:, :22, 18:46, 18:46]
    deviation = pool.std(axis=0, ddof=1)
    z = (pool[:20].mean(axis=0) - pool[20:].mean(axis=0)) / (deviation * np.sqrt(0.1))
    found = noise_correlation(z, mask=pool.mean(axis=0) > 0.2 * pool.mean(axis=0).max())
    assert found.lag_1 == pytest.approx((0.48, 0.1, 0.1), abs=0.05)
    by_batches = noise_correlation(
        np.stack([(pool[i] - pool[i + 1]) / (deviation * np.sqrt(2)) for i in range(0, 40, 2)]),
        mask=pool.mean(axis=0) > 0.2 * pool.mean(axis=0).max(),
        variance=np.inf,
    )
    assert found.inflation == pytest.approx(by_batches.inflation, rel=0.6)


def test_drawn_maps_scatter_over_blocks_as_the_real_ones_do(pools):
    pool = pools["p"][:, 2:26, 20:44, 20:44]
    one, two = next(null_pairs(pool, 20, with_batches=False))
    model = noise_at_hand(reference=one, evaluated=two).model
    rng = np.random.default_rng(2)

    def block_means(dose):
        return dose.reshape(6, 4, 6, 4, 6, 4).mean(axis=(1, 3, 5))

    drawn = [
        block_means(b.dose_gy - a.dose_gy)
        for a, b in parametric_pairs(reference=one, evaluated=two, model=model, draws=20, rng=rng)
    ]
    real = [
        block_means(b.dose_gy - a.dose_gy) for a, b in list(null_pairs(pool, 20, with_batches=False))[:20]
    ]
    assert np.std(drawn) == pytest.approx(np.std(real), rel=0.15)
