"""Tallies on boxes that are much wider than what they hold."""

import numpy as np
import pytest

from dosemover.moments import MomentAccumulator, MomentTally, galerkin_w2, moment_sos
from dosemover.moments.legendre import total_degree_indices

LOW, HIGH = np.array([10.0, 20.0, 30.0]), np.array([30.0, 35.0, 60.0])
OWN = ((30.0, 60.0), (20.0, 35.0), (10.0, 30.0))


def wide(times):
    """A box around the deposits, so many times as wide."""
    return tuple((a - (times - 1) / 2 * (b - a), b + (times - 1) / 2 * (b - a)) for a, b in OWN)


def streamed(box, *, shift=0.0, stretch=1.0, seed=0, degree=12, batches=0):
    rng = np.random.default_rng(seed)
    stream = MomentAccumulator(box_mm=box, degree=degree)
    for _ in range(max(batches, 1)):
        points = LOW + (HIGH - LOW) * rng.beta(2.0, 2.0, (1500, 3)) ** stretch
        points[:, 0] += shift
        stream.add(points, rng.random(len(points)))
        if batches:
            stream.end_batch()
    return stream.tally()


@pytest.mark.parametrize("times", [1.5, 4.0, 13.0])
def test_a_tally_moves_to_another_box_exactly(times):
    moved, direct = streamed(wide(times)).on_box(OWN), streamed(OWN)
    for index in total_degree_indices(3, moved.degree):
        assert moved.tensor[index] == pytest.approx(direct.tensor[index], abs=1e-6 * direct.mass)
    assert moved.degree >= 5


def test_the_degree_falls_where_rounding_would_eat_the_moments():
    degrees = [streamed(wide(times)).on_box(OWN).degree for times in (1.5, 4.0, 13.0, 40.0)]
    assert degrees == sorted(degrees, reverse=True)
    assert degrees[0] == 12


def test_the_extent_is_that_of_all_deposits_and_is_kept(tmp_path):
    one, two = streamed(wide(3.0)), streamed(wide(3.0), shift=2.0)
    assert all(own[0] <= low < high <= own[1] for (low, high), own in zip(one.extent_mm, OWN, strict=True))
    assert (one + two).extent_mm[2][1] == max(one.extent_mm[2][1], two.extent_mm[2][1])
    assert MomentTally.load(one.save(tmp_path / "t.npz")).extent_mm == one.extent_mm


def test_levels_on_a_box_much_too_wide_are_those_of_the_deposits_box_and_say_so():
    pairs = {
        box: [streamed(box), streamed(box, shift=1.0, stretch=1.1, seed=1)] for box in (wide(1.1), wide(5.0))
    }
    tight, loose = (galerkin_w2(reference=a, evaluated=b, max_degree=3) for a, b in pairs.values())
    assert loose.value_mm == pytest.approx(tight.value_mm, rel=1e-6)
    assert "times as wide as its deposits, was rescaled to theirs" in loose.status
    assert tight.status == "ok"
    tight, loose = (moment_sos(reference=a, evaluated=b, order=2) for a, b in pairs.values())
    assert "was rescaled to theirs" in loose.status
    assert loose.lower_mm >= tight.lower_mm * (1 - 1e-4)


def test_the_covariance_moves_with_the_tally():
    moved, direct = (
        streamed(box, batches=6) if box == OWN else streamed(box, batches=6).on_box(OWN)
        for box in (wide(3.0), OWN)
    )
    np.testing.assert_allclose(
        moved.covariance(3), direct.covariance(3), atol=1e-6 * np.max(direct.covariance(3))
    )
