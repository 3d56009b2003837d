"""Challenge scores: the OpenKBP evaluator's own numbers, and closed forms."""

import json

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from dosemover.dose import DoseMap
from dosemover.errors import GridMismatchError, InputError
from dosemover.grid import Grid
from dosemover.metrics import (
    depth_dose_distance,
    doserad_masked_mae_percent,
    openkbp_score,
    pool_openkbp,
    synthrad_dose_score,
)

PATIENTS = ("pt_201", "pt_206", "pt_211", "pt_231", "pt_237")

CHANGES = {
    "scale1.03": lambda dose: 1.03 * dose,
    "roll_x1": lambda dose: np.roll(dose, 1, axis=0),
    "gauss1vox": lambda dose: gaussian_filter(dose, sigma=1),
    "const30": lambda dose: np.full_like(dose, 30.0),
}

OFFICIAL_NAMES = {"D0.1cc": "D_0.1_cc", "mean": "mean", "D99": "D_99", "D95": "D_95", "D1": "D_1"}


def patient(path):
    """Dose cube in C order, masks and voxel size of one patient; doses have three decimals."""
    data = np.load(path)

    def cube(indices, values=1.0):
        flat = np.zeros(128**3)
        flat[indices] = values
        return flat.reshape(128, 128, 128)

    masks = {name[5:]: cube(data[name]) for name in data.files if name.startswith("mask_")}
    return cube(data["dose_idx"], data["dose"].astype(float).round(3)), masks, tuple(data["voxel_mm"])


@pytest.fixture(scope="module")
def patients(data_path):
    return {name: patient(data_path(f"openkbp/{name}.npz")) for name in PATIENTS}


@pytest.mark.parametrize("change", CHANGES)
def test_openkbp_scores_are_those_of_the_challenge(change, patients, data_path, record_validation):
    with open(data_path("openkbp/official_scores_golden.json"), encoding="utf-8") as file:
        golden = json.load(file)[change]
    results = []
    for name, (dose, masks, voxel_mm) in patients.items():
        possible = masks["possible_dose_mask"]
        grid = Grid.regular(shape=dose.shape, spacing_mm=voxel_mm)
        result = openkbp_score(
            reference=DoseMap(dose_gy=dose, grid=grid),
            evaluated=DoseMap(dose_gy=CHANGES[change](dose) * possible, grid=grid),
            structures=masks,
            possible_dose_mask=possible,
        )
        assert result.dose_score == pytest.approx(golden["per_patient"][name], abs=1e-6)
        for (value, structure), got in result.dvh_differences_gy.items():
            key = f"{OFFICIAL_NAMES[value]}|{structure}"
            want = abs(golden["ref"][name][key] - golden["pred"][name][key])
            assert got == pytest.approx(want, abs=1e-6), key
        results.append(result)
    pooled = pool_openkbp(results)
    assert pooled.n_patients == 5
    assert pooled.dose_score == pytest.approx(golden["dose_score"], abs=1e-6)
    assert pooled.dvh_score == pytest.approx(golden["dvh_score"], abs=1e-6)
    record_validation(
        "OpenKBP dose and DVH score of five patients",
        "the challenge's own scoring code",
        reached=max(
            abs(pooled.dose_score - golden["dose_score"]), abs(pooled.dvh_score - golden["dvh_score"])
        ),
        tolerance=1e-6,
        unit="Gy",
    )


def small(values, spacing=(2.0, 2.0, 2.0)):
    return DoseMap.from_array(np.asarray(values, dtype=float), spacing_mm=spacing)


def test_openkbp_score_without_structures_says_so():
    dose = small(np.ones((2, 2, 2)))
    got = openkbp_score(reference=dose, evaluated=dose.scaled(2), structures={"Liver": np.ones((2, 2, 2))})
    assert got.dose_score == 1.0
    assert got.dvh_score is None
    assert got.status == "no OpenKBP structure is present"


def test_openkbp_masks_that_do_not_fit_are_refused():
    dose = small(np.ones((2, 2, 2)))
    with pytest.raises(GridMismatchError, match="structures\\['PTV70'\\]"):
        openkbp_score(reference=dose, evaluated=dose, structures={"PTV70": np.ones(3)})
    with pytest.raises(InputError, match="`possible_dose_mask` holds no voxel"):
        openkbp_score(reference=dose, evaluated=dose, structures={}, possible_dose_mask=np.zeros((2, 2, 2)))
    with pytest.raises(InputError, match="`results` is empty"):
        pool_openkbp([])


def test_synthrad_score_is_the_relative_error_in_the_high_dose_region():
    one, two = small([[[10.0, 54.0, 60.0]]]), small([[[90.0, 55.2, 58.2]]])
    got = synthrad_dose_score(reference=one, evaluated=two, prescription_gy=60)
    assert got == pytest.approx((1.2 + 1.8) / 2 / 60)
    assert synthrad_dose_score(reference=one, evaluated=two, prescription_gy=100) is None


def test_doserad_error_is_masked_and_relative_to_the_beam_maximum():
    one, two = small([[[0.4, 5.0, 10.0]]]), small([[[3.0, 5.2, 9.6]]])
    assert doserad_masked_mae_percent(reference=one, evaluated=two) == pytest.approx(3.0)
    assert (
        doserad_masked_mae_percent(reference=small([[[0.0, 0.0]]]), evaluated=small([[[0.0, 1.0]]])) is None
    )


def test_depth_dose_of_a_beam_along_an_axis_is_its_plane_integral():
    falling = np.broadcast_to(np.array([10.0, 8.0, 6.0, 4.0])[None, :, None], (3, 4, 5))
    one, two = small(falling), small(falling * 1.02)
    got = depth_dose_distance(reference=one, evaluated=two, direction=(0, 1, 0))
    np.testing.assert_allclose(got.depth_mm, [0, 2, 4, 6])
    np.testing.assert_allclose(got.reference_gy_mm2, np.array([10, 8, 6, 4]) * 15 * 4)
    want = 100 * 0.02 * np.sqrt(np.mean(np.array([10, 8, 6, 4.0]) ** 2)) / 10
    assert got.distance_percent == pytest.approx(want)


@pytest.mark.parametrize(("axis", "direction", "spacing"), [(0, (0, 0, 1), 4.0), (2, (-1, 0, 0), 2.0)])
def test_depth_runs_along_the_direction_that_is_named_x_y_z(axis, direction, spacing):
    """A dose that falls along z (or towards lower x) alone, integrated over the planes across."""
    shape = [3, 3, 3]
    shape[axis] = 4
    falling = np.moveaxis(np.broadcast_to([10.0, 8.0, 6.0, 4.0], (3, 3, 4)), 2, axis)
    if sum(direction) < 0:
        falling = np.flip(falling, axis)
    one = small(falling, spacing=(2.0, 3.0, 4.0))
    got = depth_dose_distance(reference=one, evaluated=one, direction=direction, step_mm=spacing)
    np.testing.assert_allclose(got.depth_mm, spacing * np.arange(4))
    plane_mm2 = 9 * 2.0 * 3.0 * 4.0 / spacing
    np.testing.assert_allclose(got.reference_gy_mm2, np.array([10, 8, 6, 4]) * plane_mm2)


def test_depth_dose_conserves_the_integral_along_any_direction():
    rng = np.random.default_rng(0)
    dose = small(rng.random((5, 6, 7)), spacing=(2.0, 2.5, 3.0))
    got = depth_dose_distance(reference=dose, evaluated=dose, direction=(1, 2, -0.5))
    assert np.sum(got.reference_gy_mm2) * 2.0 == pytest.approx(dose.integral_gy_mm3)
    assert got.distance_percent == 0


def test_depth_starts_at_the_surface_of_the_mask():
    dose = small(np.broadcast_to(np.arange(1.0, 5)[None, :, None], (2, 4, 2)))
    mask = np.zeros((2, 4, 2), bool)
    mask[:, 1:] = True
    got = depth_dose_distance(reference=dose, evaluated=dose, direction=(0, 1, 0), mask=mask)
    np.testing.assert_allclose(got.reference_gy_mm2, np.array([2, 3, 4]) * 16)
    assert (
        depth_dose_distance(reference=small([[[0.0]]]), evaluated=small([[[1.0]]]), direction=(1, 0, 0))
        is None
    )


def test_directions_and_masks_without_meaning_are_refused():
    dose = small(np.ones((2, 2, 2)))
    with pytest.raises(InputError, match="`direction` must be three finite numbers"):
        depth_dose_distance(reference=dose, evaluated=dose, direction=(0, 0, 0))
    with pytest.raises(InputError, match="Depth has no beginning"):
        depth_dose_distance(reference=dose, evaluated=dose, direction=(1, 0, 0), mask=np.zeros((2, 2, 2)))
