"""Gamma on published maps: figures of SlicerRT, of pymedphys, and of Agnew & McGarry's audit set."""

from __future__ import annotations

import numpy as np
import pytest

from dosemover.dose import DoseMap
from dosemover.io import read_dose
from dosemover.metrics import gamma_index, gamma_indices, gamma_two_sided


@pytest.fixture(scope="module")
def ent(data_path):
    """Day 1 and day 2 of SlicerRT's EclipseEnt: axes 1e-9 mm apart, the second almost a rigid shift."""
    return (
        read_dose(data_path("slicerrt/EclipseEnt_Dose.nrrd")),
        read_dose(data_path("slicerrt/EclipseEnt_Dose_Day2.nrrd")),
    )


def test_voxel_centre_mode_is_slicerrt_voxel_by_voxel(ent, data_path, record_validation):
    day1, day2 = ent
    stored = read_dose(data_path("slicerrt/GammaVolume_EclipseEnt_Day1Day2_Baseline.nrrd")).dose_gy
    result = gamma_index(reference=day1, evaluated=day2, interpolant="grid")
    assert result.passing_rate_percent == pytest.approx(80.90, abs=0.006)
    # SlicerRT stores 0 where it does not evaluate
    np.testing.assert_allclose(np.nan_to_num(result.gamma, nan=0.0), stored, atol=1e-6, rtol=0)
    record_validation(
        "gamma 3 %/3 mm of a head-and-neck plan, voxel centres, every voxel",
        "SlicerRT's stored gamma volume (EclipseEnt)",
        reached=float(np.abs(np.nan_to_num(result.gamma, nan=0.0) - stored).max()),
        tolerance=1e-6,
    )


def test_exact_gamma_of_the_shifted_plan(ent, record_validation):
    day1, day2 = ent
    rates = {
        result.key: result.passing_rate_percent
        for result in gamma_indices(reference=day1, evaluated=day2).values()
    }
    expected = {"3_3_global": 90.736, "3_3_local": 82.639, "2_2_global": 73.389, "2_2_local": 53.394}
    for key, rate in {**expected, "1_1_global": 52.019}.items():
        assert rates[key] == pytest.approx(rate, abs=0.001), key
    record_validation(
        "passing rates at 3/3, 2/2, 1/1, global and local, EclipseEnt",
        "independent search of every tetrahedron",
        reached=max(abs(rates[key] - rate) for key, rate in expected.items()),
        tolerance=0.001,
        unit="%",
    )


def test_normalisation_threshold_and_direction_change_the_rate_as_known(ent):
    day1, day2 = ent

    def rate(reference=day1, evaluated=day2, **settings):
        return gamma_index(reference=reference, evaluated=evaluated, **settings).passing_rate_percent

    assert rate(day2, day1) == pytest.approx(90.995, abs=0.01)
    assert rate(normalization_dose_gy=60.0) == pytest.approx(90.49, abs=0.01)
    assert rate(normalization_dose_gy=50.0) == pytest.approx(88.96, abs=0.01)
    for threshold, expected in ((0.5, 94.9), (5.0, 89.7), (20.0, 87.8)):
        assert rate(dose_threshold_percent=threshold) == pytest.approx(expected, abs=0.06)


def test_maximum_gamma_changes_the_mean_alone(ent):
    day1, day2 = ent
    low = gamma_index(reference=day1, evaluated=day2, max_gamma=1.2)
    high = gamma_index(reference=day1, evaluated=day2, max_gamma=3.0)
    assert low.passing_rate_percent == high.passing_rate_percent
    assert low.mean < high.mean


def test_two_sided_rate_is_below_both_directions(ent):
    day1, day2 = ent
    two = gamma_two_sided(reference=day1, evaluated=day2)
    assert two.passing_rate_percent < two.forward.passing_rate_percent
    assert two.backward.n_evaluated != two.forward.n_evaluated
    assert two.dose_outside.n_voxels > 0


def audit(data_path, evaluated, spacing="1mm"):
    name = evaluated.split("_")[0]
    return (
        read_dose(data_path(f"agnew_mcgarry/{name}_Reference_{spacing}Px.dcm")),
        read_dose(data_path(f"agnew_mcgarry/{evaluated}.dcm")),
    )


@pytest.mark.parametrize(
    ("evaluated", "expected", "pymedphys_rate"),
    [
        ("ProstateIMRT_Evaluated_1mmPx", 97.205, 96.03),
        ("GeometricSquare_Evaluated_1mmPx_DD_Test", 96.000, 96.000),
        ("GeometricSquare_Evaluated_1mmPx_DTA_Test", 92.314, 92.314),
    ],
)
def test_audit_set_at_one_percent_one_millimetre_local(
    data_path, evaluated, expected, pymedphys_rate, record_validation
):
    reference, other = audit(data_path, evaluated)
    result = gamma_index(
        reference=reference,
        evaluated=other,
        dose_criterion_percent=1.0,
        distance_criterion_mm=1.0,
        normalization="local",
        dose_threshold_percent=20.0,
    )
    assert result.passing_rate_percent == pytest.approx(expected, abs=0.005)
    if "Square" in evaluated:
        record_validation(
            "passing rate 1 %/1 mm local of the audit squares",
            "Agnew & McGarry 2016 maps, pymedphys",
            reached=abs(result.passing_rate_percent - pymedphys_rate),
            tolerance=0.005,
            unit="%",
        )
    assert result.passing_rate_percent >= pymedphys_rate - 0.005  # samples the same minimum from above


@pytest.mark.slow
@pytest.mark.parametrize("normalization", ["global", "local"])
@pytest.mark.parametrize("criterion", [3.0, 1.0])
def test_pymedphys_samples_the_minimum_from_above(ent, normalization, criterion, record_validation):
    pymedphys = pytest.importorskip("pymedphys")
    cut = (slice(58, 74), slice(30, 58), slice(60, 110))
    day1, day2 = (
        DoseMap(dose_gy=np.ascontiguousarray(day.dose_gy[cut]), grid=ent[0].grid.crop(cut)) for day in ent
    )
    exact = gamma_index(
        reference=day1,
        evaluated=day2,
        dose_criterion_percent=criterion,
        distance_criterion_mm=criterion,
        normalization=normalization,
    )
    axes = day1.grid.centers_mm
    theirs = pymedphys.gamma(
        axes,
        day1.dose_gy.astype(float),
        axes,
        day2.dose_gy.astype(float),
        criterion,
        criterion,
        lower_percent_dose_cutoff=10,
        interp_fraction=10,
        max_gamma=2,
        local_gamma=normalization == "local",
    )
    both = ~np.isnan(exact.gamma) & ~np.isnan(theirs)
    excess = theirs[both] - exact.gamma[both]
    assert both.mean() > 0.5
    # trilinear and simplex interpolants differ within a cell; the sampling step is a tenth of the criterion
    assert abs(np.median(excess)) < 0.02
    assert np.mean(excess) > 0
    assert np.quantile(excess, 0.99) < 0.2
    assert np.quantile(excess, 0.01) > -0.1
    record_validation(
        "gamma of a head-and-neck plan, median difference over voxels",
        "pymedphys (samples the same minimum)",
        reached=abs(float(np.median(excess))),
        tolerance=0.02,
    )


def test_finer_voxels_of_one_plan_bring_voxel_centres_towards_the_exact_rate(data_path):
    rates = {}
    for spacing in ("1mm", "0_25mm"):
        reference, other = audit(data_path, f"ProstateIMRT_Evaluated_{spacing}Px", spacing)
        for interpolant in ("simplex", "grid"):
            rates[spacing, interpolant] = gamma_index(
                reference=reference, evaluated=other, interpolant=interpolant
            ).passing_rate_percent
    coarse = rates["1mm", "simplex"] - rates["1mm", "grid"]
    fine = rates["0_25mm", "simplex"] - rates["0_25mm", "grid"]
    assert 0 <= fine <= coarse
