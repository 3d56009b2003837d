"""What the moments refuse, in words: no mass, no box, no finite deposit, no whole degree."""

import numpy as np
import pytest

from dosemover.dose import DoseMap
from dosemover.errors import InputError
from dosemover.moments import (
    MomentAccumulator,
    MomentConsumer,
    galerkin_dmd,
    galerkin_w2,
    moment_barycenter,
    moment_dmd,
    moment_levels,
    moment_sos,
    moment_w2,
    support_box,
    tally_gaussian,
    tally_map,
)

BOX = ((0.0, 1.0),) * 3
EMPTY = DoseMap.from_array(np.zeros((3, 3, 3)), spacing_mm=(1, 1, 1))
FULL = DoseMap.from_array(np.ones((3, 3, 3)), spacing_mm=(1, 1, 1))


@pytest.mark.parametrize("distance", [moment_sos, galerkin_w2, galerkin_dmd])
def test_distances_of_tallies_without_mass_are_refused(distance):
    for pair in ((EMPTY, FULL), (FULL, EMPTY)):
        one, two = (tally_map(dose) for dose in pair)
        with pytest.raises(InputError, match="holds no mass: its integral is 0"):
            distance(reference=one, evaluated=two)


@pytest.mark.parametrize("distance", [moment_w2, moment_dmd, moment_levels])
def test_distances_of_maps_without_dose_are_refused(distance):
    for pair in ((EMPTY, FULL), (FULL, EMPTY)):
        with pytest.raises(InputError, match=r"holds no (dose|mass)"):
            distance(reference=pair[0], evaluated=pair[1])


def test_mean_covariance_support_and_barycenter_of_nothing_are_refused():
    with pytest.raises(InputError, match="neither a mean nor a distance"):
        tally_map(EMPTY).mean_mm  # noqa: B018
    with pytest.raises(InputError, match="holds no mass"):
        tally_gaussian(tally_map(EMPTY))
    with pytest.raises(InputError, match="holds no dose: every voxel is 0"):
        support_box(FULL, EMPTY)
    with pytest.raises(InputError, match="holds no mass"):
        moment_barycenter([tally_map(FULL), tally_map(EMPTY)])


@pytest.mark.parametrize("low_high", [(1.0, 0.0), (0.0, 0.0), (0.0, np.inf)])
def test_a_box_without_a_width_is_refused(low_high):
    box = (low_high, *BOX[1:])
    for make in (
        lambda: tally_map(FULL, box_mm=box),
        lambda: MomentAccumulator(box_mm=box),
        lambda: MomentConsumer(box_mm=box),
    ):
        with pytest.raises(InputError, match="`box_mm` must be"):
            make()


def test_a_broken_degree_and_an_unknown_basis_are_refused():
    with pytest.raises(InputError, match=r"be a whole number, got 2\.5"):
        tally_map(FULL, degree=2.5)
    one = tally_map(FULL)
    with pytest.raises(InputError, match="`basis` must be 'full' or 'reduced', got 'half'"):
        moment_sos(reference=one, evaluated=one, order=2, basis="half")


@pytest.mark.parametrize(("position", "weight"), [(np.nan, 1.0), (0.5, np.inf)])
def test_deposits_that_are_not_finite_are_refused(position, weight):
    with pytest.raises(InputError, match="must be finite, got NaN or infinity"):
        MomentAccumulator(box_mm=BOX).add([[0.5, position, 0.5]], [weight])


def test_deposits_outside_the_box_are_counted_even_where_none_is_inside():
    stream = MomentAccumulator(box_mm=BOX, degree=2)
    stream.add([[2.0, 0.5, 0.5], [0.5, -1.0, 0.5]], [1.0, 2.0])
    assert stream.outside == 3.0
    assert stream.n_samples == 0
    assert stream.extent_mm is None
    assert stream.tally().mass == 0.0
