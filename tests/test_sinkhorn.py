"""The Sinkhorn divergence against dense solves, POT, its limits and finite differences."""

import numpy as np
import pytest
from scipy.special import logsumexp

from dosemover.dose import DoseMap
from dosemover.errors import InputError
from dosemover.transport import emd, sinkhorn_divergence, sinkhorn_gradient
from dosemover.transport.log_convolution import AxisKernel
from transport_maps import box_map, gaussian_pair, line_map, random_pair, uneven_grid


def atoms(dose: DoseMap):
    """Middles (x, y, z) and masses of the voxels."""
    z, y, x = np.meshgrid(*((e[1:] + e[:-1]) / 2 for e in dose.grid.edges_mm), indexing="ij")
    mass = (dose.dose_gy * dose.grid.voxel_volume_mm3).ravel()
    return np.stack([x.ravel(), y.ravel(), z.ravel()], axis=1), mass


def dense_transport(x, y, p, q, blur, reach=None):
    """Entropic cost at |x-y|^2, of a dense plan found in logarithms: the primal value."""
    keep_p, keep_q = p > 0, q > 0
    x, y, p, q = x[keep_p], y[keep_q], p[keep_p], q[keep_q]
    cost = ((x[:, None] - y[None]) ** 2).sum(2)
    reg = 2 * blur**2
    damping = 1.0 if reach is None else 2 * reach**2 / (2 * reach**2 + reg)
    f, g = np.zeros(len(p)), np.zeros(len(q))
    for _ in range(1500):
        f = -damping * reg * logsumexp((g - cost) / reg + np.log(q), axis=1)
        g = -damping * reg * logsumexp((f[:, None] - cost) / reg + np.log(p)[:, None], axis=0)
    plan = np.exp((f[:, None] + g - cost) / reg) * p[:, None] * q

    def kl(m, n):
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.sum(np.where(m > 0, m * np.log(m / n), 0) - m + n)

    value = np.sum(plan * cost) + reg * kl(plan, p[:, None] * q)
    if reach is not None:
        value += 2 * reach**2 * (kl(plan.sum(1), p) + kl(plan.sum(0), q))
    return value


def dense_divergence(a, b, blur, reach=None):
    """Sinkhorn divergence from three dense solves."""
    (x, p), (y, q) = atoms(a), atoms(b)
    p, q = (p / p.sum(), q / q.sum()) if reach is None else (p / p.sum(), q / p.sum())
    ab, aa, bb = (dense_transport(*pair, blur, reach) for pair in ((x, y, p, q), (x, x, p, p), (y, y, q, q)))
    return ab - aa / 2 - bb / 2 + (0 if reach is None else blur**2 * (p.sum() - q.sum()) ** 2)


@pytest.mark.parametrize("reach", [None, 6.0])
def test_it_equals_dense_solves_on_uneven_boundaries(reach, record_validation):
    a, b = random_pair(3, uneven_grid(4, (3, 4, 4)))
    found = sinkhorn_divergence(
        reference=a, evaluated=b, blur_mm=1.5, reach_mm=reach, tolerance=1e-7, max_iterations=500
    )
    assert found.value**2 == pytest.approx(dense_divergence(a, b, 1.5, reach), rel=1e-4)
    record_validation(
        "Sinkhorn divergence, balanced and unbalanced",
        "dense log-domain solve",
        reached=abs(found.value**2 / dense_divergence(a, b, 1.5, reach) - 1),
        tolerance=1e-4,
        unit="relative",
    )
    assert found.status == "ok"


def test_pots_unbalanced_plan_gives_the_same_entropic_cost(record_validation):
    ot = pytest.importorskip("ot")
    a, b = random_pair(8, uneven_grid(5, (1, 4, 5)))
    (x, p), (y, q) = atoms(a), atoms(b)
    q = q / p.sum()
    p = p / p.sum()
    keep_p, keep_q = p > 0, q > 0
    cost = ot.dist(x[keep_p], y[keep_q])
    plan = ot.unbalanced.sinkhorn_unbalanced(
        p[keep_p], q[keep_q], cost, 2 * 2.0**2, 2 * 5.0**2, numItermax=20000, stopThr=1e-12
    )
    ours = dense_transport(x, y, p, q, 2.0, 5.0)

    def kl(m, n):
        return np.sum(m * np.log(m / n) - m + n)

    theirs = (
        np.sum(plan * cost)
        + 8.0 * kl(plan, p[keep_p][:, None] * q[keep_q])
        + 50.0 * (kl(plan.sum(1), p[keep_p]) + kl(plan.sum(0), q[keep_q]))
    )
    assert theirs == pytest.approx(ours, rel=1e-6)
    record_validation(
        "unbalanced entropic cost",
        "POT's unbalanced Sinkhorn plan",
        reached=abs(theirs / ours - 1),
        tolerance=1e-6,
        unit="relative",
    )
    found = sinkhorn_divergence(reference=a, evaluated=b, blur_mm=2.0, reach_mm=5.0, tolerance=1e-7)
    assert found.value**2 == pytest.approx(dense_divergence(a, b, 2.0, 5.0), rel=1e-4)


@pytest.mark.parametrize(
    ("seed", "blur", "theirs"), [(3, 1.5, 0.8503896601541108), (4, 2.5, 0.8700931321880567)]
)
def test_ott_jax_gave_the_same_divergence(seed, blur, theirs, record_validation):
    """OTT-JAX 0.6.0, sinkhorn_divergence, epsilon = 2 blur^2, threshold 1e-9, double precision."""
    a, b = random_pair(seed, uneven_grid(4, (3, 4, 4)))
    found = sinkhorn_divergence(reference=a, evaluated=b, blur_mm=blur, tolerance=1e-7, max_iterations=500)
    assert found.value**2 == pytest.approx(theirs, rel=1e-6)
    record_validation(
        "Sinkhorn divergence",
        "OTT-JAX 0.6.0",
        reached=abs(found.value**2 / theirs - 1),
        tolerance=1e-6,
        unit="relative",
    )


@pytest.mark.parametrize("blur", [2.0, 6.0])
def test_a_translation_reads_its_length_at_every_blur(blur):
    a = box_map((20, 24, 28), (2.0, 2.0, 2.0), (5, 6, 7), (11, 12, 13))
    b = box_map((20, 24, 28), (2.0, 2.0, 2.0), (7, 7, 10), (13, 13, 16))
    length = 2 * np.sqrt(4 + 1 + 9)
    found = sinkhorn_divergence(reference=a, evaluated=b, blur_mm=blur, tolerance=1e-5)
    assert found.value == pytest.approx(length, rel=2e-3)


def test_it_tends_to_the_atoms_w2_as_the_blur_goes_to_zero_and_to_the_shift_of_centres_as_it_grows():
    rng = np.random.default_rng(0)
    edges = np.arange(13.0) * 3
    a, b = line_map(rng.random(12), edges), line_map(rng.random(12), edges)
    exact = emd(reference=a, evaluated=b, order=2).value
    errors = []
    for blur in (6.0, 3.0, 1.5):
        sharp = sinkhorn_divergence(
            reference=a, evaluated=b, blur_mm=blur, tolerance=1e-6, max_iterations=500
        )
        errors.append(exact - sharp.value)
    assert errors[0] > errors[1] > errors[2] > 0
    assert errors[2] < 0.05 * exact
    assert "below half a voxel" in sinkhorn_divergence(reference=a, evaluated=b, blur_mm=1.0).status
    x = (edges[1:] + edges[:-1]) / 2
    means = [np.average(x, weights=m.dose_gy.ravel()) for m in (a, b)]
    blunt = sinkhorn_divergence(reference=a, evaluated=b, blur_mm=2000.0)
    assert blunt.value == pytest.approx(abs(means[0] - means[1]), rel=1e-3)


def test_nothing_underflows_far_apart_at_a_small_blur():
    a = box_map((1, 1, 400), (1.0, 1.0, 1.0), (0, 0, 2), (1, 1, 5))
    b = box_map((1, 1, 400), (1.0, 1.0, 1.0), (0, 0, 390), (1, 1, 393))
    found = sinkhorn_divergence(reference=a, evaluated=b, blur_mm=0.5)
    assert found.value == pytest.approx(388.0, rel=1e-6)


@pytest.mark.parametrize("sigma", [0.05, 1.0, 30.0])
def test_the_kernel_of_one_axis_equals_a_plain_sum_of_exponentials(sigma):
    rng = np.random.default_rng(1)
    x, y = np.sort(rng.uniform(0, 50, 13)), np.sort(rng.uniform(0, 50, 17))
    v = rng.normal(size=(2, 17, 3)) * 200
    v[0, 3] = -np.inf
    kernel = -((x[:, None] - y[None]) ** 2) / (2 * sigma**2)
    expected = logsumexp(kernel[None, :, :, None] + v[:, None], axis=2)
    np.testing.assert_allclose(AxisKernel(x, y, sigma)(v), expected, rtol=1e-12)


def test_equal_maps_are_at_distance_zero_and_swapping_changes_nothing():
    a, b = random_pair(6)
    assert sinkhorn_divergence(reference=a, evaluated=a, blur_mm=2.0).value == pytest.approx(0, abs=1e-5)
    there = sinkhorn_divergence(reference=a, evaluated=b, blur_mm=2.0).value
    assert sinkhorn_divergence(reference=b, evaluated=a, blur_mm=2.0).value == pytest.approx(there, rel=1e-6)


def test_nodes_at_half_the_blur_keep_the_shift_of_a_sharp_edge():
    x = np.arange(120) * 0.25
    edges = np.arange(121) * 0.25
    p, q = ((np.abs(x - c) < 6).astype(float) for c in (14.0, 14.75))
    found = sinkhorn_divergence(reference=line_map(p, edges), evaluated=line_map(q, edges), blur_mm=4.0)
    assert found.value == pytest.approx(0.75, rel=2e-3)


@pytest.mark.parametrize("reach", [None, 5.0])
def test_the_gradient_equals_finite_differences(reach):
    a, b = random_pair(9, uneven_grid(6, (2, 4, 5)))
    settings = {"blur_mm": 2.5, "reach_mm": reach, "tolerance": 1e-10, "max_iterations": 3000}
    squared, gradient = sinkhorn_gradient(reference=a, evaluated=b, **settings)
    rng = np.random.default_rng(0)
    direction = rng.normal(size=b.grid.shape) * (b.dose_gy > 0) * 0.1 * b.dose_gy
    step = 1e-3
    ends = [
        sinkhorn_divergence(
            reference=a, evaluated=DoseMap(dose_gy=b.dose_gy + s * direction, grid=b.grid), **settings
        ).value
        ** 2
        for s in (step, -step)
    ]
    assert np.sum(gradient * direction) == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-4)
    assert squared == pytest.approx(np.mean(ends), rel=1e-4)
    assert gradient.shape == b.grid.shape


def test_the_gradient_is_on_the_evaluated_grid_and_blind_to_scale():
    a = box_map((1, 8, 10), (2.0, 2.0, 2.0), (0, 1, 1), (1, 5, 5))
    b = box_map((1, 9, 7), (2.0, 2.0, 2.0), (0, 2, 2), (1, 6, 5), origin_mm=(2.0, 0.0, 0.0))
    _, gradient = sinkhorn_gradient(reference=a, evaluated=b, blur_mm=3.0)
    assert gradient.shape == b.grid.shape
    assert np.sum(gradient * b.dose_gy) == pytest.approx(0, abs=1e-6 * np.abs(gradient).max())


def test_an_iteration_that_stops_early_says_how_far_it_is():
    a, b = gaussian_pair(n=12)
    found = sinkhorn_divergence(reference=a, evaluated=b, blur_mm=2.0, tolerance=1e-12, max_iterations=8)
    assert "not converged" in found.status
    assert found.settings["rest_mm2"] > 0


def test_threads_do_not_change_a_bit(monkeypatch):
    a, b = gaussian_pair(n=40)
    values = []
    for cores in (1, 3):
        monkeypatch.setattr("dosemover.transport.log_convolution.available_cores", lambda n=cores: n)
        values.append(sinkhorn_divergence(reference=a, evaluated=b, blur_mm=4.0).value)
    assert values[0] == values[1]


@pytest.mark.parametrize(
    ("name", "bad"),
    [("blur_mm", 0.0), ("reach_mm", -1.0), ("tolerance", np.nan), ("max_iterations", 6)],
)
def test_settings_that_cannot_be_used_are_refused(name, bad):
    a, b = random_pair()
    with pytest.raises(InputError, match=name):
        sinkhorn_divergence(reference=a, evaluated=b, **{name: bad})


def test_an_interrupt_keeps_the_divergence_so_far():
    a, b = random_pair(3)

    def interrupt(what, fraction):
        if fraction > 0.55:
            raise KeyboardInterrupt

    settings = {"blur_mm": 3.0, "tolerance": 1e-9}
    found = sinkhorn_divergence(reference=a, evaluated=b, progress=interrupt, **settings)
    assert "interrupted" in found.status
    assert found.value == pytest.approx(
        sinkhorn_divergence(reference=a, evaluated=b, **settings).value, rel=0.05
    )


def test_a_wide_blur_asks_for_less_memory_than_a_narrow_one(monkeypatch):
    a = DoseMap.from_array(np.ones((12, 12, 12)), spacing_mm=(2.0, 2.0, 2.0))
    monkeypatch.setattr("dosemover.transport.measure.available_memory_bytes", lambda: 200 * a.grid.n_voxels)
    with pytest.raises(InputError, match=r"Sinkhorn divergence on 1728 voxels needs about"):
        sinkhorn_divergence(reference=a, evaluated=a, blur_mm=1.0)
    assert sinkhorn_divergence(reference=a, evaluated=a, blur_mm=12.0).value == pytest.approx(0, abs=1e-4)
