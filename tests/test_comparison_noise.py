"""Noise in a comparison: histories, regions, estimated levels, floors on coarser grids."""

import numpy as np
import pytest

import dosemover as dm
from dosemover.cli.table import print_result
from dosemover.comparison import families
from dosemover.comparison.coarse_floors import coarsened
from dosemover.comparison.context import ComparisonContext
from dosemover.comparison.floors import with_significance
from dosemover.comparison.histories import power, with_histories
from dosemover.comparison.noise_at_hand import noise_at_hand
from dosemover.comparison.registry import run, select
from dosemover.comparison.result import MetricResult
from dosemover.comparison.sentence import histories
from dosemover.comparison.settings import CompareSettings
from dosemover.dose import DoseMap
from dosemover.grid import Grid
from dosemover.noise import (
    NoiseCorrelation,
    correlated_normal,
    distant_variance,
    systematic_probability,
)

GRID = Grid.regular(shape=(12, 14, 16), spacing_mm=(3.0, 3.0, 3.0))


def field(grid=GRID, *, scale=1.0, shift_mm=0.0):
    z, y, x = np.meshgrid(*grid.centers_mm, indexing="ij")
    (_, z1), (_, y1), (_, x1) = grid.box_mm
    r = ((x - x1 / 2 - shift_mm) / 9) ** 2 + ((y - y1 / 2) / 9) ** 2 + ((z - z1 / 2) / 12) ** 2
    return scale * (2 * np.exp(-r) + 0.02)


def batches(seed, *, noise=0.02, n=8, **change):
    mean = field(**change)
    drawn = np.random.default_rng(seed).standard_normal((n, *mean.shape))
    return DoseMap.from_batches(np.maximum(mean + noise * np.sqrt(n * mean * 2) * drawn, 0), GRID)


def metric(key, **fields):
    return MetricResult(key=key, unit="mm", **fields)


def compared(*metrics):
    one = DoseMap(dose_gy=field(), grid=GRID)
    return dm.comparison.ComparisonResult(reference=one, evaluated=one, metrics={m.key: m for m in metrics})


@pytest.mark.parametrize(
    ("value", "floor", "words"),
    [
        (0.5, 0.2, "About 4 times as many histories on both sides .* from 0.2 mm to 0.1 mm."),
        (5.0, 1.0, "About 4 times .* from 1 mm to 0.5 mm, a tenth of the reading."),
    ],
)  # fmt: skip
def test_the_histories_that_a_lower_floor_costs_are_told(value, floor, words):
    import re

    assert re.fullmatch(words, histories(compared(metric("dmd_mm", value=value, floor=floor))))


@pytest.mark.parametrize(("value", "floor"), [(0.5, 0.09), (5.0, 0.4), (0.5, None), (None, None)])
def test_a_floor_that_does_not_matter_is_not_talked_about(value, floor):
    assert histories(compared(metric("dmd_mm", value=value, floor=floor))) is None


def test_the_table_prints_the_histories(capsys):
    print_result(compared(metric("dmd_mm", value=0.5, floor=0.2)))
    assert "About 4 times as many histories" in capsys.readouterr().out


def test_factors_follow_the_order_of_the_metric():
    found = with_histories(
        {
            key: MetricResult(key=key, value=1.0, floor=0.4, z=5.0)
            for key in ("rmse_gy", "mse_gy2", "ssim", "mass_ratio")
        }
    )
    assert found["rmse_gy"].settings["histories"] == {"goal": 0.1, "factor": pytest.approx(16)}
    assert found["mse_gy2"].settings["histories"]["factor"] == pytest.approx(4)
    assert "histories" not in found["ssim"].settings
    assert "histories" not in found["mass_ratio"].settings


LAWS = ("mae_gy", "rmse_gy", "mse_gy2", "relative_mae_percent", "p95_difference_gy",
        "center_shift_mm", "mean_shift_mm", "axis_w1_mm", "axis_w2_mm", "sliced_w1_mm", "sliced_w2_mm",
        "bures_w2_mm")  # fmt: skip


def test_floors_fall_as_their_power_law_says_when_histories_double():
    """Mean of each metric between simulated null pairs, at N and at 4 N histories."""
    settings = CompareSettings(metrics=LAWS)
    wanted = select(families.FAMILIES, settings)
    means = []
    for noise in (0.004, 0.002):
        values: dict[str, list[float]] = {}
        for seed in range(12):
            pair = [batches(2 * seed + side, noise=noise, n=2) for side in (0, 1)]
            context = ComparisonContext(
                reference=pair[0], evaluated=pair[1], settings=settings, values_only=True
            )
            for one in families.FAMILIES:
                if one.name in wanted:
                    for result in run(one, context, wanted[one.name]):
                        values.setdefault(result.key, []).append(result.value)
        means.append({key: np.mean(values[key]) for key in LAWS})
    for key in LAWS:
        slope = np.log(means[0][key] / means[1][key]) / np.log(4)
        assert slope == pytest.approx(power(key), abs=0.08), key


def test_fields_of_the_solvers_are_marked_where_they_exceed_their_own_noise():
    result = dm.compare(
        batches(1, noise=0.003),
        batches(2, noise=0.003, shift_mm=1.5),
        metrics=["dmd", "kf_fraction_percent", "differences", "chi2"],
        null=4,
    )
    for part in ("moved_mm", "changed_percent", "residual_max_percent", "residual_p99_percent"):
        assert result.metrics[f"dmd_{part}"].floor > 0
    inside = field() > 0.5
    for name in ("displacement", "change", "dmd_index"):
        mask = result.maps[f"{name}_significant_mask"].values
        assert set(np.unique(mask)) <= {0.0, 1.0}
    moved = result.maps["displacement_significant_mask"]
    assert np.mean(moved.values[inside]) > 0.3


def test_the_decomposition_is_given_voxel_by_voxel_and_region_by_region():
    result = dm.compare(
        batches(3), batches(4, scale=1.1), metrics=["kf_fraction_percent", "differences", "chi2"]
    )
    probability = result.maps["kf_systematic_percent"].values
    high = result.reference.dose_gy >= 0.5 * result.reference.max_gy
    assert np.isnan(probability[~high]).all()
    assert 0 <= np.nanmin(probability) <= np.nanmax(probability) <= 100
    rows = {name: row["kf_fraction_percent"] for name, row in result.regions.items()}
    assert rows["above 80 %"] > 50
    assert all(row["kf_p"] is not None for row in result.regions.values())


def test_the_probability_of_a_voxel_is_that_of_the_mixture():
    found = systematic_probability(
        np.array([0.0, 2.0, np.nan]), fractions=[0.5], shifts_sigma=np.array([4.0])
    )
    assert found[1] == pytest.approx(0.5)  # half-way between two equal components
    assert found[0] == pytest.approx(1 / (1 + np.exp(8)))
    assert np.isnan(found[2])


def estimated_pair(seed, correlation, *, relative=0.03):
    grid = Grid.regular(shape=(30, 30, 30), spacing_mm=(4, 4, 4))
    mean = field(grid) + 0.5
    rng = np.random.default_rng(seed)
    return [
        DoseMap(
            dose_gy=mean + relative * np.sqrt(mean) * correlated_normal(mean.shape, correlation, rng),
            grid=grid,
        )
        for _ in range(2)
    ]


@pytest.mark.parametrize("lag_1", [(0.0, 0.0, 0.0), (0.5, 0.1, 0.1)])
def test_the_level_of_noise_of_unknown_correlation_is_found_from_a_pair(lag_1):
    correlation = NoiseCorrelation.exponential(lag_1)
    found = [noise_at_hand(reference=a, evaluated=b) for a, b in
             (estimated_pair(seed, correlation) for seed in range(3))]  # fmt: skip
    for noise in found:
        assert noise.levels[0].per_root_dose == pytest.approx(0.03, rel=0.15)


def test_correlated_noise_of_unknown_level_gives_no_false_alarm():
    correlation = NoiseCorrelation.exponential((0.5, 0.1, 0.1))
    alarms = 0
    for seed in range(12):
        settings = CompareSettings(metrics=("rmse_gy", "mass_ratio"))
        reference, evaluated = estimated_pair(200 + seed, correlation)
        context = ComparisonContext(reference=reference, evaluated=evaluated, settings=settings)
        wanted = select(families.FAMILIES, settings)
        todo = [f for f in families.FAMILIES if f.name in wanted]
        results = {r.key: r for f in todo for r in run(f, context, wanted[f.name])}
        judged = with_significance(context, todo, wanted, results)
        assert all(abs(one.z) < 4 for key, one in judged.items() if key in settings.metrics)
        alarms += sum(judged[key].p < 0.05 for key in settings.metrics)
    assert alarms <= 3


@pytest.mark.parametrize("bits", [6, 8, 10, 12, 16])
def test_rounding_of_smooth_maps_gives_no_false_alarm(bits):
    grid = Grid.regular(shape=(40, 40, 40), spacing_mm=(2, 2, 2))
    dose, step = field(grid), 2.0**-bits
    pair = [DoseMap(dose_gy=np.round(dose / step + offset) * step, grid=grid) for offset in (0.0, 0.3)]
    found = dm.compare(*pair, metrics=["rmse_gy", "mass_ratio"]).metrics
    assert all(one.floor is None and one.p is None for one in found.values())


def test_distant_voxels_show_the_whole_variance_of_correlated_noise():
    noise = correlated_normal(
        (40, 40, 40), NoiseCorrelation.exponential((0.5, 0.2, 0.1)), np.random.default_rng(5)
    )
    slow = 5 * np.sin(np.indices(noise.shape)[0] / 30)
    assert distant_variance(noise + slow) == pytest.approx(1.0, rel=0.15)
    assert distant_variance(noise[:5, :5, :5]) is None


COSTLY = [
    key
    for family in families.FAMILIES
    if family.null in ("coarse", "on request")
    for key in family.keys(CompareSettings())
    if key in ("kr_mm", "w1_mm", "w2_mm", "sliced_w1_mm", "sliced_w2_mm", "sobolev_w2_mm",
               "sinkhorn_divergence_mm", "best_shift_mm", "dmd_mm")
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("key", COSTLY)
def test_the_floor_of_a_costly_metric_keeps_its_own_standard_deviation_on_its_grid(key):
    """The mean on the grid that was chosen, against the mean of the same draws on the full grid."""
    grid = Grid.regular(shape=(32, 32, 32), spacing_mm=(3.0, 3.0, 3.0))
    mean = field(grid)
    sigma = 0.03 * np.sqrt(2 * mean)
    rng = np.random.default_rng(11)

    def drawn():
        return DoseMap(
            dose_gy=np.maximum(mean + sigma * rng.standard_normal(mean.shape), 0),
            grid=grid,
            uncertainty_gy=sigma,
        )

    found = dm.compare(drawn(), drawn(), metrics=[key], null=9).metrics[key]
    said = found.settings.get("null_grid")
    factor = int(said.split()[0]) if said else 1
    settings = CompareSettings(metrics=(key,))
    wanted = select(families.FAMILIES, settings)
    (family,) = [f for f in families.FAMILIES if f.name in wanted]
    values = {1: [], factor: []}
    for _ in range(6):
        pair = drawn(), drawn()
        for used in values:
            one, two = (coarsened(dose, used) if used > 1 else dose for dose in pair)
            context = ComparisonContext(reference=one, evaluated=two, settings=settings, values_only=True)
            values[used] += [r.value for r in run(family, context, wanted[family.name]) if r.key == key]
    spread = np.std(values[1], ddof=1)
    assert abs(np.mean(values[factor]) - np.mean(values[1])) < 1.5 * spread
    assert found.floor == pytest.approx(np.mean(values[1]), abs=3 * spread)


def test_the_table_says_why_metrics_have_no_floor(capsys):
    many = [metric(f"m{i}", value=1.0, settings={"significance": "no floor: costly"}) for i in range(7)]
    print_result(compared(*many, metric("one", value=1.0, settings={"significance": "no floor: other"})))
    printed = capsys.readouterr().out
    assert "noise alone not known of m0, m1, m2, m3 and 3 more: costly" in printed
    assert "noise alone not known of one: other" in printed


def test_a_distance_from_moments_says_why_it_has_neither_floor_nor_p():
    sides = [DoseMap(dose_gy=batches(seed).dose_gy, grid=GRID) for seed in (1, 2)]
    result = dm.compare(reference=sides[0], evaluated=sides[1], metrics=("moment_w2_mm",))
    found = result.metrics["moment_w2_mm"]
    assert found.p is None
    assert found.missing_floor.startswith("needs batches or uncertainty maps")


def test_a_limit_on_a_bound_that_nothing_certifies_says_so():
    from dosemover.cli.conditions import condition

    unknown = metric("rmse", value=1.0, settings={"significance": "no floor: costly"})
    assert "no bound of it is certified" in str(condition("rmse.upper<3").verdict(compared(unknown)))
    assert "(costly)" in str(condition("rmse.p<0.05").verdict(compared(unknown)))


def test_a_floor_from_an_estimated_level_is_about_that_much():
    from dosemover.comparison.noise_at_hand import ESTIMATED
    from dosemover.comparison.sentence import verdict

    parts = (metric("dmd_moved_mm", value=1.0), metric("dmd_changed_percent", value=0.0))
    for how, words in ((ESTIMATED, "(noise alone: about 0.2 mm)"), ("exact", "(noise alone: 0.2 mm)")):
        whole = metric("dmd_mm", value=1.0, floor=0.2, settings={"significance": how})
        assert words in str(verdict(compared(whole, *parts)))
