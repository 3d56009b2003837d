"""The weighted Sobolev distance against the line's closed form and its relatives."""

import numpy as np
import pytest

from dosemover.dose import DoseMap
from dosemover.errors import InputError
from dosemover.transport import axis_w2, sobolev_w2
from transport_maps import gaussian_pair, line_map, random_pair


def on_a_line(edges, p, q, floor_percent):
    """Energy of the one possible flux: integral (F - G)^2 / theta dx, by quadrature."""
    p, q = (d / np.dot(d, np.diff(edges)) for d in (p, q))
    x = np.linspace(edges[0], edges[-1], 500_001)
    f, g = (np.interp(x, edges, np.append(0, np.cumsum(d * np.diff(edges)))) for d in (p, q))
    theta = (p + q) / 2 + floor_percent / 100 * p.max()
    i = np.clip(np.searchsorted(edges, x, side="right") - 1, 0, p.size - 1)
    return np.sqrt(np.trapezoid((f - g) ** 2 / theta[i], x))


def test_on_a_line_it_equals_the_energy_of_the_only_flux(record_validation):
    edges = np.linspace(0, 100, 201)
    x = (edges[1:] + edges[:-1]) / 2
    p, q = 0.05 + np.exp(-((x - 48) ** 2) / 200), 0.05 + np.exp(-((x - 49.3) ** 2) / 210)
    found = sobolev_w2(reference=line_map(p, edges), evaluated=line_map(q, edges), tolerance=1e-4)
    assert found.value == pytest.approx(on_a_line(edges, p, q, 0.1), rel=1e-4)
    record_validation(
        "weighted Sobolev distance on a line",
        "energy of the only flux",
        reached=abs(found.value / on_a_line(edges, p, q, 0.1) - 1),
        tolerance=1e-4,
        unit="relative",
    )
    assert found.status == "ok"


def test_a_small_translation_reads_its_length():
    a, b = gaussian_pair(n=48, sigma=10.0)
    found = sobolev_w2(reference=a, evaluated=b, floor_percent=1e-3)
    assert found.value == pytest.approx(np.sqrt(1 + 0.25 + 0.49), rel=0.01)
    assert found.value == pytest.approx(axis_w2(reference=a, evaluated=b).value, rel=0.01)


def test_a_plane_reads_the_same_whatever_its_thickness():
    rng = np.random.default_rng(2)
    planes = 1 + rng.random((2, 9, 11))
    values = [
        sobolev_w2(
            reference=DoseMap.from_array(planes[0], spacing_mm=(2.0, 3.0, thick)),
            evaluated=DoseMap.from_array(planes[1], spacing_mm=(2.0, 3.0, thick)),
        ).value
        for thick in (1.0, 7.0)
    ]
    assert values[0] == pytest.approx(values[1], rel=1e-6)


def test_equal_maps_and_scaled_maps_are_at_distance_zero():
    a, _ = random_pair()
    assert sobolev_w2(reference=a, evaluated=a).value == 0
    scaled = sobolev_w2(reference=a, evaluated=a.scaled(2.0))
    assert scaled.value == pytest.approx(0, abs=1e-7)
    assert scaled.settings["mass_ratio"] == pytest.approx(2.0)


def test_with_the_reference_as_weight_it_is_at_least_half_w2_where_dose_is_spread():
    edges = np.linspace(0, 60, 121)
    x = (edges[1:] + edges[:-1]) / 2
    p, q = 1 + 0.5 * np.sin(x / 9), 1 + 0.5 * np.sin(x / 9 + 0.4)
    a, b = line_map(p, edges), line_map(q, edges)
    assert axis_w2(reference=a, evaluated=b).value <= 2 * sobolev_w2(reference=a, evaluated=b).value


def test_an_iteration_that_stops_early_says_so():
    a, b = random_pair()
    assert "not converged" in sobolev_w2(reference=a, evaluated=b, max_iterations=1, tolerance=1e-9).status


@pytest.mark.parametrize("name", ["floor_percent", "tolerance"])
def test_settings_that_are_not_positive_are_refused(name):
    a, b = random_pair()
    with pytest.raises(InputError, match=name):
        sobolev_w2(reference=a, evaluated=b, **{name: 0.0})
