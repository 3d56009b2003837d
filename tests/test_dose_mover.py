"""The Dose Mover's Distance: closed forms, independent solutions, laws, failures."""

import warnings
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp

from closed_forms import (
    dmd_of_an_output_change,
    hellinger_kantorovich_cost,
    hellinger_mm,
    w2_squared_on_a_line,
)
from dosemover.dose import DoseMap
from dosemover.errors import AccuracyWarning, InputError
from dosemover.grid import Grid
from dosemover.transport import (
    dose_mover_floor,
    dose_mover_gradient,
    dose_mover_profile,
    dose_movers_distance,
    mover_interval,
    wasserstein_2,
)
from strategies import dose_maps


def blob(shape=(12, 14, 13), spacing=(2.5, 2.0, 3.0), shift=(0.0, 0.0, 0.0), width=7.0, base=0.2):
    """Smooth dose map with a bath."""
    grid = Grid.regular(shape=shape, spacing_mm=spacing)
    z, y, x = grid.centers_mm
    c = [(p[0] + p[-1]) / 2 for p in (x, y, z)]
    r2 = ((x - c[0] - shift[0]) / width) ** 2 + ((y - c[1] - shift[1])[:, None] / width) ** 2
    r2 = r2 + ((z - c[2] - shift[2])[:, None, None] / width) ** 2
    return DoseMap(dose_gy=base + 2 * np.exp(-r2 / 2), grid=grid)


def line(values, h):
    """One row of voxels."""
    return DoseMap.from_array(np.asarray(values, dtype=float), spacing_mm=(h,))


@pytest.mark.parametrize("shape", [(7,), (6, 5), (5, 7, 3)])
@pytest.mark.parametrize("u", [-0.3, -0.02, 0.001, 0.02, 0.5])
def test_an_output_change_reads_its_closed_form(shape, u, record_validation):
    rng = np.random.default_rng(1)
    a = rng.uniform(0.5, 2.0, shape)
    reference = DoseMap.from_array(a, spacing_mm=(2.0, 1.5, 3.0)[: len(shape)])
    for rate in (0.1, 1.0):
        found = dose_movers_distance(
            reference=reference,
            evaluated=reference.scaled(1 + u),
            ambient_dose_percent=0,
            exchange_mm_per_percent=rate,
            tolerance=1e-8,
        )
        exact = dmd_of_an_output_change(u, 100 * rate)
        assert found.settings["estimate_mm"] == pytest.approx(exact, rel=2e-3 * abs(u) + 1e-6)
        assert found.lower * (1 - 1e-9) <= exact <= found.upper * (1 + 1e-9)
        assert found.fields["change_percent"] == pytest.approx(100 * u, rel=2e-3)
        record_validation(
            "Dose Mover's Distance of an output change, −30 to +50 %",
            "closed form 2L|√(1+u) − 1|",
            reached=abs(found.settings["estimate_mm"] / exact - 1),
            tolerance=2e-3,
            unit="relative",
        )


def test_identical_maps_are_at_distance_zero():
    a = blob()
    found = dose_movers_distance(reference=a, evaluated=a)
    assert (found.value, found.lower, found.upper, found.status) == (0.0, 0.0, 0.0, "ok")
    assert all(value == 0 for value in found.parts.values())


@pytest.mark.parametrize("spacing", [0.25, 1.0, 3.0])
@pytest.mark.parametrize("shift", [0.1, 0.7, 1.5])
def test_a_shifted_gaussian_reads_its_shift_less_its_extent(spacing, shift):
    """The reading lies between d / sqrt(1 + k) and d, whatever fraction of a voxel d is."""
    n = round(60 / spacing)
    x = (np.arange(n) + 0.5) * spacing - 30
    a, b = (1e-3 + np.exp(-((x - s) ** 2) / 50) for s in (0.0, shift))
    found = dose_movers_distance(
        reference=line(a, spacing), evaluated=line(b, spacing), ambient_dose_percent=0
    )
    k = found.settings["extent_k"][0]
    slack = 0.02
    assert shift / np.sqrt(1 + k) * (1 - slack) <= found.value <= shift * (1 + slack)


def static_problem(a, b, edges, length, parts=5):
    """Primal and dual value of the static form on a refined line by log-domain Sinkhorn iterations."""
    fine = np.concatenate([np.linspace(lo, hi, parts, endpoint=False) for lo, hi in pairwise(edges)])
    h = np.repeat(np.diff(edges) / parts, parts)
    x = fine + h / 2
    p, q = np.repeat(a, parts) * h, np.repeat(b, parts) * h
    cost = hellinger_kantorovich_cost(np.abs(x[:, None] - x), length)
    rho = 4 * length**2
    f, g = np.zeros_like(x), np.zeros_like(x)
    log_p, log_q = np.log(p / p.sum()), np.log(q / p.sum())
    for eps in np.geomspace(length**2 / 4, 0.15, 40):
        for _ in range(80):
            f = -rho * eps / (rho + eps) * (logsumexp((g - cost) / eps + log_q, axis=1))
            g = -rho * eps / (rho + eps) * (logsumexp((f[:, None] - cost) / eps + log_p[:, None], axis=0))
            top, low = (logsumexp(-v / rho + lw) for v, lw in ((f, log_p), (g, log_q)))
            shift = rho / 2 * (top - low)
            f, g = f + shift, g - shift
    plan = np.exp((f[:, None] + g - cost) / eps + log_p[:, None] + log_q) * p.sum()
    p1, q1 = plan.sum(axis=1), plan.sum(axis=0)
    primal = np.sum(plan * cost) + rho * (
        np.sum(p1 * np.log(p1 / p) - p1 + p) + np.sum(q1 * np.log(q1 / q) - q1 + q)
    )
    g = np.min(cost - f[:, None], axis=0)
    dual = rho * (np.sum(p * -np.expm1(-f / rho)) + np.sum(q * -np.expm1(-g / rho)))
    mass = np.sum(a * np.diff(edges))
    return np.sqrt(dual / mass), np.sqrt(primal / mass)


@pytest.mark.parametrize("length", [10.0, 33.0, 100.0])
@pytest.mark.parametrize("uneven", [False, True])
def test_one_dimension_agrees_with_the_static_form(length, uneven, record_validation):
    rng = np.random.default_rng(3)
    widths = rng.uniform(1.5, 4.5, 20) if uneven else np.full(20, 3.0)
    edges = np.concatenate([[0.0], np.cumsum(widths)])
    x = (edges[1:] + edges[:-1]) / 2
    a = 0.2 + np.exp(-((x - 28) ** 2) / 120)
    b = 0.22 + 1.1 * np.exp(-((x - 30) ** 2) / 150)
    grid = Grid(z_edges_mm=[0, 1], y_edges_mm=[0, 1], x_edges_mm=edges)
    reference, evaluated = (DoseMap(dose_gy=v[None, None], grid=grid) for v in (a, b))
    found = dose_movers_distance(
        reference=reference,
        evaluated=evaluated,
        ambient_dose_percent=0,
        exchange_mm_per_percent=length / 100,
    )
    dual, primal = static_problem(a, b, edges, length)
    assert primal - dual < 0.03 * primal
    assert found.lower <= primal * 1.005
    assert found.upper >= dual * 0.995
    assert found.value == pytest.approx((primal + dual) / 2, rel=0.02)
    record_validation(
        "Dose Mover's Distance on a line, L = 10, 33, 100 mm",
        "static form, log-domain solve with its own bracket",
        reached=abs(found.value / ((primal + dual) / 2) - 1),
        tolerance=0.02,
        unit="relative",
    )
    assert found.gap < 0.05


def pots_unbalanced_distance(a, b, voxel_mm, length, splits):
    """POT's unbalanced transport, without entropy, of the atoms in the middles of split voxels [mm]."""
    import ot

    n = a.shape[0] * splits
    first, second = (np.repeat(np.repeat(v, splits, 0), splits, 1).ravel() / splits**2 for v in (a, b))
    middles = (np.arange(n) + 0.5) * voxel_mm / splits
    points = np.stack(np.meshgrid(middles, middles, indexing="ij"), axis=-1).reshape(-1, 2)
    apart = np.linalg.norm(points[:, None] - points, axis=-1)
    cost = hellinger_kantorovich_cost(apart, length) / (4 * length**2)
    plan = ot.unbalanced.mm_unbalanced(
        first, second, cost, reg_m=1.0, div="kl", numItermax=4000, stopThr=1e-12
    )
    total = np.sum(plan * cost)
    for marginal, mass in ((plan.sum(axis=1), first), (plan.sum(axis=0), second)):
        total += np.sum(marginal * np.log(marginal / mass) - marginal + mass)
    return 2 * length * np.sqrt(total / a.sum())


@pytest.mark.parametrize(("rate", "within"), [(0.1, 0.04), (0.3, 0.01)])
def test_pots_unbalanced_transport_of_split_voxels_approaches_the_distance(rate, within, record_validation):
    t = np.arange(-17.5, 20, 5)
    x, y = np.meshgrid(t, t)
    a = np.exp(-(x**2 + y**2) / (2 * 8.0**2)) + 0.05
    b = 1.1 * np.exp(-((x - 5) ** 2 + (y - 1) ** 2) / (2 * 9.0**2)) + 0.05
    reference, evaluated = (DoseMap.from_array(v[None], spacing_mm=(5.0,) * 3) for v in (a, b))
    found = dose_movers_distance(
        reference=reference, evaluated=evaluated, exchange_mm_per_percent=rate, ambient_dose_percent=0
    )
    theirs = [pots_unbalanced_distance(a, b, 5.0, 100 * rate, splits) for splits in (1, 2, 3)]
    assert theirs == sorted(theirs, reverse=True)
    for splits, value in enumerate(theirs, start=1):
        assert found.lower <= value
        # each map lies within W_2 of its atoms, h sqrt(2 / 12) in the plane
        assert value <= found.upper + 2 * 5.0 / splits * np.sqrt(2 / 12) * np.sqrt(b.sum() / a.sum())
    record_validation(
        f"Dose Mover's Distance in the plane, exchange {rate} mm per %",
        "POT's unbalanced transport of voxels split in 3 x 3 atoms (biased upwards)",
        reached=theirs[-1] / found.value - 1,
        tolerance=within,
        unit="relative",
    )
    assert theirs[-1] == pytest.approx(found.value, rel=within)


def test_large_exchange_length_gives_w2_and_small_gives_hellinger(record_validation):
    a = blob()
    other = blob(shift=(1.0, -0.5, 0.7))
    b = other.scaled(a.integral_gy_mm3 / other.integral_gy_mm3)
    none = {"ambient_dose_percent": 0}
    far = dose_movers_distance(reference=a, evaluated=b, exchange_mm_per_percent=100, **none)
    assert far.value == pytest.approx(wasserstein_2(reference=a, evaluated=b).value, rel=2e-3)
    near = dose_movers_distance(reference=a, evaluated=b, exchange_mm_per_percent=1e-4, **none)
    volume = a.grid.voxel_volume_mm3
    exact = hellinger_mm(a.dose_gy, b.dose_gy, volume, 0.01)
    assert near.lower <= exact * 1.001
    assert exact <= near.upper * 1.001
    assert near.value == pytest.approx(exact, rel=0.02)
    record_validation(
        "Dose Mover's Distance for L → 0",
        "Hellinger distance, closed form",
        reached=abs(near.value / exact - 1),
        tolerance=0.02,
        unit="relative",
    )


def test_one_dimension_at_large_length_agrees_with_quantiles(record_validation):
    n, h = 60, 2.0
    x = (np.arange(n) + 0.5) * h
    a, b = 0.3 + np.exp(-((x - 58) ** 2) / 300), 0.3 + np.exp(-((x - 61) ** 2) / 340)
    b *= a.sum() / b.sum()
    found = dose_movers_distance(
        reference=line(a, h), evaluated=line(b, h), ambient_dose_percent=0, exchange_mm_per_percent=1000
    )
    edges = np.arange(n + 1) * h
    exact = np.sqrt(w2_squared_on_a_line(edges, a / a.sum(), b / b.sum()))
    assert found.lower <= exact * (1 + 1e-6)
    assert exact <= found.upper * (1 + 1e-6)
    assert found.value == pytest.approx(exact, rel=2e-2)
    record_validation(
        "Dose Mover's Distance for L → ∞ on a line",
        "W₂ by quantile functions",
        reached=abs(found.value / exact - 1),
        tolerance=0.02,
        unit="relative",
    )
    assert found.gap < 0.06


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_bounds_order_symmetry_and_triangle(data):
    a = data.draw(dose_maps())
    b, c = (data.draw(dose_maps(grid=a.grid)) for _ in range(2))
    setting = {
        "ambient_dose_gy": data.draw(st.sampled_from([0.0, 0.001, 0.05])),
        "fields": False,
        "refine": 1,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AccuracyWarning)
        ab, bc, ac, ba = (
            dose_movers_distance(reference=p, evaluated=q, **setting)
            for p, q in ((a, b), (b, c), (a, c), (b, a))
        )

    def absolute(found, reference):
        mass = reference.integral_gy_mm3
        return found.lower * np.sqrt(mass), found.value * np.sqrt(mass), found.upper * np.sqrt(mass)

    for found in (ab, bc, ac, ba):
        assert found.lower <= found.value <= found.upper
    assert absolute(ab, a) == pytest.approx(absolute(ba, b), rel=1e-6, abs=1e-6)
    assert absolute(ac, a)[0] <= (absolute(ab, a)[2] + absolute(bc, b)[2]) * (1 + 1e-9)


def test_the_estimate_is_symmetric_and_scales_with_length():
    a, b = blob(), blob(shift=(0.5, 0.2, 0.0), width=7.3)
    kept = {"ambient_dose_gy": 0.01, "tolerance": 1e-8, "bounds": False, "fields": False}
    there = dose_movers_distance(reference=a, evaluated=b, **kept).value * np.sqrt(a.integral_gy_mm3)
    back = dose_movers_distance(reference=b, evaluated=a, **kept).value * np.sqrt(b.integral_gy_mm3)
    assert there == pytest.approx(back, rel=1e-7)
    wide = [DoseMap.from_array(m.dose_gy, spacing_mm=tuple(2 * s for s in m.grid.spacing_mm)) for m in (a, b)]
    twice = dose_movers_distance(reference=wide[0], evaluated=wide[1], exchange_mm_per_percent=2, **kept)
    once = dose_movers_distance(reference=a, evaluated=b, **kept)
    assert twice.value == pytest.approx(2 * once.value, rel=1e-6)


def test_the_profile_rises_and_its_slope_is_the_change():
    a, b = blob(), blob(shift=(0.8, 0.0, 0.4), width=7.2)
    lengths = [20.0, 99.5, 100.5, 300.0]
    found = dose_mover_profile(reference=a, evaluated=b, lengths_mm=lengths, tolerance=1e-7)
    value = np.square(found["value"])
    assert np.all(np.diff(found["value"]) > 0)
    slope = (value[2] - value[1]) / (lengths[2] ** 2 - lengths[1] ** 2)
    at = dose_movers_distance(reference=a, evaluated=b, tolerance=1e-7, bounds=False, fields=False)
    assert slope == pytest.approx((at.parts["dmd_changed_percent"] / 100) ** 2, rel=1e-3)
    total = at.parts["dmd_moved_mm"] ** 2 + at.parts["dmd_changed_percent"] ** 2
    assert at.value**2 == pytest.approx(total, rel=1e-6)


@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_refining_the_grid_leaves_the_distance_alone(noise, record_validation):
    rng = np.random.default_rng(4)
    a, b = blob(), blob(shift=(0.5, 0.0, 0.3))
    maps = [m.dose_gy * (1 + noise * rng.standard_normal(m.dose_gy.shape)) for m in (a, b)]
    values = []
    for times in (1, 2):
        fine = [np.repeat(np.repeat(np.repeat(m, times, 0), times, 1), times, 2) for m in maps]
        spacing = tuple(s / times for s in a.grid.spacing_mm)
        r, e = (DoseMap.from_array(m, spacing_mm=spacing) for m in fine)
        values.append(dose_movers_distance(reference=r, evaluated=e, fields=False, tolerance=1e-5))
    allowed = 1e-3 if noise == 0 else 1.5e-2
    assert values[1].value == pytest.approx(values[0].value, rel=allowed)
    if noise == 0:
        record_validation(
            "Dose Mover's Distance of one density on twice as many voxels an axis",
            "itself: the density is the same",
            reached=abs(values[1].value / values[0].value - 1),
            tolerance=allowed,
            unit="relative",
        )
    assert max(v.lower for v in values) <= min(v.upper for v in values)


@pytest.mark.parametrize("shape", [(4, 5, 3), (1, 6, 7), (1, 1, 11), (9, 1, 1)])
def test_the_gradient_is_that_of_finite_differences(shape, record_validation):
    rng = np.random.default_rng(5)
    edges = [np.concatenate([[0.0], np.cumsum(rng.uniform(1.0, 2.0, n))]) for n in shape]
    grid = Grid(z_edges_mm=edges[0], y_edges_mm=edges[1], x_edges_mm=edges[2])
    a, b = rng.uniform(0.3, 1.0, shape), rng.uniform(0.3, 1.0, shape)
    reference = DoseMap(dose_gy=a, grid=grid)

    def value(dose):
        evaluated = DoseMap(dose_gy=dose, grid=grid)
        return dose_mover_gradient(reference=reference, evaluated=evaluated, tolerance=1e-10)

    _, gradient = value(b)
    direction, step = rng.standard_normal(shape), 1e-5
    slope = (value(b + step * direction)[0] - value(b - step * direction)[0]) / (2 * step)
    assert np.vdot(gradient, direction) == pytest.approx(slope, rel=1e-5)
    record_validation(
        "gradient of the squared Dose Mover's Distance",
        "finite differences",
        reached=abs(np.vdot(gradient, direction) / slope - 1),
        tolerance=1e-5,
        unit="relative",
    )


def test_a_plan_that_says_nothing_below_its_accuracy_gives_no_negative_squares():
    x = np.cumsum([0.0, 1.14785854, 0.21597061, 1.42306096])
    grid = Grid(z_edges_mm=np.arange(4) * 0.13952585, y_edges_mm=np.arange(10) / 12, x_edges_mm=x)
    a, b = np.zeros(grid.shape), np.zeros(grid.shape)
    a[:, :3, 2], b[:, :3, 2] = 1.07431104e-05, 1.05825052e-05
    b[:, :3, 1] = b[:, 6:, 1] = 5.2912526e-07
    reference, evaluated = (DoseMap(dose_gy=m, grid=grid) for m in (a, b))
    found = dose_movers_distance(reference=reference, evaluated=evaluated, ambient_dose_gy=0.0)
    assert found.lower <= found.value <= found.upper
    assert all(np.isfinite(part) for part in found.parts.values())


def test_the_gradient_reaches_the_evaluated_grid_through_mask_and_weight():
    rng = np.random.default_rng(6)
    grid = Grid.regular(shape=(4, 5, 6), spacing_mm=(2.0, 2.0, 2.0))
    reference = DoseMap(
        dose_gy=rng.uniform(0.5, 1, grid.shape), grid=grid, density_g_per_cm3=rng.uniform(0.3, 1, grid.shape)
    )
    other = Grid.regular(shape=(3, 4, 5), spacing_mm=(2.3, 2.1, 2.6), origin_mm=(0.4, 0.3, 0.5))
    b = rng.uniform(0.5, 1, other.shape)
    mask = rng.random(grid.shape) > 0.2

    def value(dose):
        evaluated = DoseMap(dose_gy=dose, grid=other)
        return dose_mover_gradient(
            reference=reference, evaluated=evaluated, mask=mask, weight="energy", tolerance=1e-10
        )

    _, gradient = value(b)
    direction, step = rng.standard_normal(b.shape), 1e-5
    slope = (value(b + step * direction)[0] - value(b - step * direction)[0]) / (2 * step)
    assert np.vdot(gradient, direction) == pytest.approx(slope, rel=1e-4)


@pytest.mark.parametrize("shape", [(10, 11, 9), (24, 22)])
@pytest.mark.parametrize("uneven", [False, True])
@pytest.mark.parametrize(("noise", "allowed"), [(0.05, 0.05), (0.1, 0.1)])
def test_the_floor_is_the_mean_of_simulated_noise(noise, allowed, shape, uneven, record_validation):
    rng = np.random.default_rng(7)
    n = (1,) * (3 - len(shape)) + shape
    edges = [
        np.concatenate([[0.0], np.cumsum(rng.uniform(1, 3, m) if uneven and m > 1 else np.full(m, 2.0))])
        for m in n
    ]
    grid = Grid(z_edges_mm=edges[0], y_edges_mm=edges[1], x_edges_mm=edges[2])
    truth = 0.5 + rng.random(grid.shape)
    sigma = noise * truth * rng.uniform(0.5, 1.5, grid.shape)

    def measured():
        dose = np.maximum(truth + sigma * rng.standard_normal(grid.shape), 0)
        return DoseMap(dose_gy=dose, grid=grid, uncertainty_gy=sigma)

    quick = {"bounds": False, "fields": False}
    values = [
        dose_movers_distance(reference=measured(), evaluated=measured(), **quick).value for _ in range(100)
    ]
    floor = dose_mover_floor(reference=measured(), evaluated=measured(), n_probes=64)
    error = np.std(values) / 10
    assert floor.floor == pytest.approx(np.mean(values), rel=allowed, abs=3 * error)
    record_validation(
        "noise floor of the Dose Mover's Distance, closed form",
        "mean of 100 simulated pairs of noisy maps",
        reached=abs(floor.floor / np.mean(values) - 1),
        tolerance=max(allowed, 3 * error / np.mean(values)),
        unit="relative",
    )
    assert floor.floor_sd == pytest.approx(np.std(values), rel=0.4)


def test_the_floor_of_batches_sees_correlated_noise():
    rng = np.random.default_rng(8)
    grid = Grid.regular(shape=(8, 8, 8), spacing_mm=(2.0, 2.0, 2.0))
    truth = np.ones(grid.shape)

    def batches():
        noise = rng.standard_normal((20, 9, 9, 9))
        smooth = sum(
            noise[:, i : i + 8, j : j + 8, k : k + 8] for i in (0, 1) for j in (0, 1) for k in (0, 1)
        )
        return DoseMap.from_batches(truth + 0.05 * smooth, grid)

    quick = {"bounds": False, "fields": False}
    pairs = [(batches(), batches()) for _ in range(40)]
    values = [dose_movers_distance(reference=r, evaluated=e, **quick).value for r, e in pairs]
    floors = [dose_mover_floor(reference=r, evaluated=e, n_probes=24).floor for r, e in pairs[:6]]
    assert np.mean(floors) == pytest.approx(np.mean(values), rel=0.1)
    white = DoseMap(dose_gy=truth, grid=grid, uncertainty_gy=pairs[0][0].uncertainty_gy)
    assert dose_mover_floor(reference=white, evaluated=white).floor < 0.8 * np.mean(values)


def test_p_of_the_moved_part_knows_that_the_correlation_is_in_doubt():
    """Noise whose blocks of 2 x 2 x 2 are one: all modes longer than that err together."""
    grid = Grid.regular(shape=(12, 12, 12), spacing_mm=(4.0, 4.0, 4.0))
    one = DoseMap(dose_gy=np.ones(grid.shape), grid=grid, uncertainty_gy=np.full(grid.shape, 0.05))

    def blocks(uncertainty_gy, rng):
        return np.kron(rng.standard_normal((6, 6, 6)), np.ones((2, 2, 2)))

    floors = [
        dose_mover_floor(
            reference=one, evaluated=one, normal=blocks, freedom=freedom, inflation=8.0, n_probes=32
        ).parts["dmd_moved_mm"]
        for freedom in (np.inf, 1000.0, 10.0)
    ]
    known, sure, doubtful = (f.mean_variance - floors[0].mean_variance for f in floors)
    square = floors[0].mean
    assert known == 0
    assert sure == pytest.approx(2 * square**2 / 1000)  # the whole square goes with the inflation
    # sums of 8 equal voxels have 8 times the variance; what moves within blocks less: a share in doubt
    assert 2 * square**2 / 10 * 0.5 < doubtful <= 2 * square**2 / 10
    values = 1.3 * np.sqrt(square)
    assert floors[2].p_value(values) > 2 * floors[0].p_value(values)


def test_the_displacement_field_is_the_shift_and_the_residual_small():
    where = {"shape": (24, 24, 24), "spacing": (2.0, 2.0, 2.0), "base": 0.002}
    a, b = blob(**where), blob(**where, shift=(0.6, -0.4, 0.2))
    found = dose_movers_distance(reference=a, evaluated=b)
    hot = a.dose_gy > 1.0
    v = found.fields["displacement_mm"][:, hot].mean(axis=1)
    assert v == pytest.approx([0.6, -0.4, 0.2], rel=0.15)
    assert found.parts["dmd_residual_max_percent"] < 2.0
    index = np.sqrt(
        np.square(found.fields["displacement_mm"]).sum(axis=0) + np.square(found.fields["change_percent"])
    )
    assert found.fields["index_mm"] == pytest.approx(index, rel=1e-3, abs=1e-6)


def test_zeros_noise_masks_and_other_extents_give_finite_intervals():
    rng = np.random.default_rng(9)
    a, b = blob(shape=(17, 13, 19)), blob(shape=(17, 13, 19), shift=(1, 0, 0))
    hit = rng.random(a.grid.shape) > 0.58
    a = DoseMap(dose_gy=a.dose_gy * hit * rng.gamma(2, 0.5, hit.shape), grid=a.grid)
    b = DoseMap(dose_gy=b.dose_gy * rng.permutation(hit.ravel()).reshape(hit.shape), grid=b.grid)
    small = DoseMap(
        dose_gy=b.dose_gy[2:, 1:-1, 3:], grid=b.grid.crop((slice(2, 17), slice(1, 12), slice(3, 19)))
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AccuracyWarning)
        for evaluated, mask in ((b, None), (small, None), (b, blob(shape=(17, 13, 19)).dose_gy > 0.5)):
            for percent in (0.1, 0.0):
                found = dose_movers_distance(
                    reference=a, evaluated=evaluated, mask=mask, ambient_dose_percent=percent
                )
                assert 0 <= found.lower <= found.value <= found.upper < 1000
                assert found.lower > 0 or percent == 0
                for values in found.fields.values():
                    assert np.all(np.isfinite(values))


def test_more_threads_give_the_same_bits():
    import numba

    a, b = blob(shape=(40, 32, 36)), blob(shape=(40, 32, 36), shift=(1, 0.5, 0))
    results = []
    before = numba.get_num_threads()
    for n in (1, before):
        numba.set_num_threads(n)
        results.append(dose_movers_distance(reference=a, evaluated=b))
    numba.set_num_threads(before)
    assert results[0].summary() == results[1].summary()


def test_an_interrupt_keeps_the_best_interval_so_far(monkeypatch):
    a, b = blob(), blob(shift=(1, 0, 0))

    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(mover_interval.LowerBoundSearch, "certify", interrupt)
    found = dose_movers_distance(reference=a, evaluated=b)
    assert found.status.startswith("interrupted")
    assert found.lower == 0.0
    assert found.value <= found.upper


def test_settings_that_mean_nothing_are_refused():
    a = blob()
    with pytest.raises(InputError, match="`exchange_mm_per_percent` must be positive, got 0"):
        dose_movers_distance(reference=a, evaluated=a, exchange_mm_per_percent=0)
    with pytest.raises(InputError, match="`ambient_dose_percent` must not be negative"):
        dose_movers_distance(reference=a, evaluated=a, ambient_dose_percent=-1)
    with pytest.raises(InputError, match="`ambient_dose_gy` must not be negative"):
        dose_movers_distance(reference=a, evaluated=a, ambient_dose_gy=-0.1)
    with pytest.raises(InputError, match="`lengths_mm` must be positive"):
        dose_mover_profile(reference=a, evaluated=a, lengths_mm=[3, 0])
    with pytest.raises(InputError, match="neither map says how noisy"):
        dose_mover_floor(reference=a, evaluated=a)
    empty = DoseMap(dose_gy=np.zeros(a.grid.shape), grid=a.grid)
    with pytest.raises(InputError, match="evaluated map has no dose"):
        dose_movers_distance(reference=a, evaluated=empty)
    spot = np.array(a.dose_gy)
    spot[3, 3, 3] = 0
    with pytest.raises(InputError, match="voxels without dose"):
        dose_mover_gradient(reference=a, evaluated=DoseMap(dose_gy=spot, grid=a.grid), ambient_dose_percent=0)


def test_weak_settings_warn(monkeypatch):
    a = blob()
    with pytest.warns(AccuracyWarning, match="--scale"):
        dose_movers_distance(reference=a, evaluated=a.scaled(3), bounds=False, fields=False)
    with pytest.warns(AccuracyWarning, match="ambient dose holds"):
        dose_movers_distance(reference=a, evaluated=a, ambient_dose_percent=30, bounds=False, fields=False)
    monkeypatch.setattr("dosemover.transport.measure.available_memory_bytes", lambda: 1000)
    with pytest.raises(InputError, match="of memory, and"):
        dose_movers_distance(reference=a, evaluated=a)
    enough_unless_halved = 700 * a.grid.n_voxels
    monkeypatch.setattr("dosemover.transport.measure.available_memory_bytes", lambda: enough_unless_halved)
    assert dose_movers_distance(reference=a, evaluated=a, fields=False).value == 0.0
    with pytest.raises(InputError, match="It was not started"):
        dose_movers_distance(reference=a, evaluated=a, fields=False, halve=True)


def test_the_upper_end_alone_is_that_of_the_interval():
    a, b = blob(), blob(shift=(1.0, 0.0, 0.0))
    both = dose_movers_distance(reference=a, evaluated=b, refine=0, fields=False)
    upper = dose_movers_distance(reference=a, evaluated=b, bounds="upper", fields=False)
    assert upper.lower is None
    assert upper.upper == both.upper
    assert upper.value == both.value
