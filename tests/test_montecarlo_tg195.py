"""AAPM Report 195, Cases 1 to 3, as the example script sets them up."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

import dosemover.montecarlo as mc


@pytest.fixture(scope="module")
def cases():
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))
    import tg195_cases

    return tg195_cases


@pytest.mark.parametrize("energy", [0.03, 0.1])
def test_case_1_half_and_quarter_value_layers_of_aluminium_are_the_reports(cases, energy):
    open_beam, error = cases.air_kerma(energy, 0.0, histories=2e5)
    assert error / open_beam < 0.002
    for thickness, expected in cases.HALF_VALUE[energy]:
        behind, sigma = cases.air_kerma(energy, thickness, histories=2e5)
        ratio, spread = behind / open_beam, sigma / open_beam
        assert spread / ratio < 0.005
        assert ratio == pytest.approx(expected, rel=0.005, abs=3 * spread)
        attenuation = float(mc.material_library()["aluminium"].attenuation_cm2_per_g([energy])[0])
        narrow = np.exp(-attenuation * 2.699 * thickness / 10)
        air = (
            float(cases.AIR.attenuation_cm2_per_g([energy])[0]) * cases.AIR.density_g_per_cm3 * thickness / 10
        )
        assert ratio == pytest.approx(
            narrow * np.exp(air), rel=0.01, abs=3 * spread
        )  # little is scattered so far


def check_volumes(measured, report, record_validation, name, limit):
    """The body within the limit, its volumes of interest within the limit or 3 of their uncertainties."""
    (body, error), *boxes = measured
    assert error / report[0] < 0.003
    assert body == pytest.approx(report[0], rel=limit)
    together = sum(mean for mean, _ in boxes)
    assert together == pytest.approx(sum(report[1]), rel=limit)
    for (mean, sigma), expected in zip(boxes, report[1], strict=True):
        assert sigma / expected < 0.025
        assert mean == pytest.approx(expected, rel=limit, abs=3 * sigma)
    record_validation(
        name,
        "AAPM TG-195, mean of its codes",
        reached=max(abs(body / report[0] - 1), abs(together / sum(report[1]) - 1)),
        tolerance=limit,
        unit="relative",
    )


@pytest.mark.slow
@pytest.mark.parametrize(("name", "limit"), [("56.4keV", 0.01), ("120kV", 0.02)])
def test_case_2_energy_in_a_body_and_its_cubes_is_the_reports(
    cases, data_path, record_validation, name, limit
):
    spectrum = mc.Spectrum.mono(0.0564)
    if name == "120kV":
        tube = json.loads(data_path("tg195/case4.json").read_text())["spectra"]["120kV"]
        spectrum = mc.Spectrum(energy_mev=np.array(tube["energy_kev"]) / 1000, weight=tube["weight"])
    measured = cases.radiography(spectrum, histories=5e6)
    title = f"energy in a body and its cubes, radiography, {name} (TG-195 case 2)"
    check_volumes(measured, cases.RADIOGRAPHY_EV[name], record_validation, title, limit)


@pytest.mark.slow
def test_case_3_energy_in_a_breast_and_its_boxes_is_the_reports(cases, record_validation):
    measured = cases.mammography(histories=5e6)
    title = "energy in a breast and its boxes, mammography, 16.8 keV (TG-195 case 3)"
    check_volumes(measured, cases.MAMMOGRAPHY_EV, record_validation, title, 0.01)
