"""NumPy files: layout, batches, geometry, and nothing unpickled."""

from __future__ import annotations

import json

import numpy as np
import pytest

from dosemover.errors import DataFormatError, DosemoverError, InputError
from dosemover.io import read_dose, read_map

DOSE = np.arange(24, dtype=np.float64).reshape(2, 3, 4)
GEOMETRY = {"spacing_mm": [1.0, 2.0, 3.0], "origin_mm": [4.0, 5.0, 6.0]}


def test_spacing_and_origin_of_the_file_are_used(tmp_path):
    np.savez(tmp_path / "a.npz", dose=DOSE, **GEOMETRY)
    dose = read_dose(tmp_path / "a.npz", spacing_mm=(9.0, 9.0, 9.0))
    assert (dose.grid.spacing_mm, dose.grid.origin_mm) == ((1.0, 2.0, 3.0), (4.0, 5.0, 6.0))


def test_boundaries_of_the_file_may_be_uneven(tmp_path):
    edges = {"x_edges_mm": [0, 1, 2, 4, 8], "y_edges_mm": [0, 1, 2, 3], "z_edges_mm": [-1, 0, 1]}
    np.savez(tmp_path / "a.npz", dose_gy=DOSE, uncertainty_gy=0.1 * DOSE, unit="relative", **edges)
    dose = read_dose(tmp_path / "a.npz")
    assert dose.grid.spacing_mm == (None, 1.0, 1.0)
    assert dose.unit == "relative"
    assert np.array_equal(dose.uncertainty_gy, 0.1 * DOSE)
    np.savez(tmp_path / "b.npz", dose_gy=DOSE[:1], **edges)
    with pytest.raises(DataFormatError, match=r"boundaries of \(2, 3, 4\) voxels"):
        read_dose(tmp_path / "b.npz")


def test_an_array_without_voxel_size_needs_one(tmp_path):
    np.save(tmp_path / "a.npy", DOSE)
    with pytest.raises(InputError, match=r"a.npy tells no voxel size.*Pass spacing_mm"):
        read_dose(tmp_path / "a.npy")
    assert read_dose(tmp_path / "a.npy", spacing_mm=(1.0, 2.0, 3.0)).grid.spacing_mm == (1.0, 2.0, 3.0)


def test_batches_times_scale_give_mean_and_uncertainty(tmp_path):
    stored = (np.random.default_rng(0).random((5, 2, 3, 4)) * 100).astype(np.float16)
    np.savez(tmp_path / "a.npz", batches=stored, scale=2.0**-10, **GEOMETRY)
    dose = read_dose(tmp_path / "a.npz")
    batches = stored.astype("f8") * 2.0**-10
    assert np.array_equal(dose.batches_gy, batches)
    assert np.allclose(dose.dose_gy, batches.mean(axis=0))
    assert np.allclose(dose.uncertainty_gy, batches.std(axis=0, ddof=1) / np.sqrt(5))


def test_centigray_scales_everything(tmp_path):
    np.savez(tmp_path / "a.npz", dose=DOSE, uncertainty=0.1 * DOSE, **GEOMETRY)
    dose = read_dose(tmp_path / "a.npz", unit="cgy")
    assert np.allclose(dose.dose_gy, DOSE / 100)
    assert np.allclose(dose.uncertainty_gy, DOSE / 1000)
    assert dose.source["unit_in_file"] == "not stated, taken as cGy"


def test_centigray_scales_the_batches_as_well(tmp_path):
    stack = np.stack([DOSE, 2 * DOSE, 3 * DOSE])
    np.savez(tmp_path / "a.npz", batches=stack, **GEOMETRY)
    dose = read_dose(tmp_path / "a.npz", unit="cgy")
    assert np.allclose(dose.batches_gy, stack / 100)
    assert np.allclose(dose.dose_gy, 2 * DOSE / 100)
    assert np.allclose(dose.uncertainty_gy, DOSE / np.sqrt(3) / 100)  # deviation of 1, 2, 3 is 1


def test_a_scale_belongs_to_dose_and_uncertainty(tmp_path):
    np.savez(tmp_path / "a.npz", dose=DOSE, uncertainty=0.1 * DOSE, scale=0.5, **GEOMETRY)
    dose = read_dose(tmp_path / "a.npz")
    assert np.allclose(dose.dose_gy, 0.5 * DOSE)
    assert np.allclose(dose.uncertainty_gy, 0.05 * DOSE)


def test_the_density_beside_a_dose_is_the_map(tmp_path):
    np.savez(tmp_path / "a.npz", dose=DOSE, density=2 + DOSE, **GEOMETRY)
    assert np.array_equal(read_map(tmp_path / "a.npz")[0], 2 + DOSE)


def test_pickled_objects_are_never_opened(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("a pickle was opened",))

    for name in ("a.npz", "a.npy"):
        save = np.savez if name == "a.npz" else np.save
        save(tmp_path / name, np.array([Bomb()], dtype=object), allow_pickle=True)
        with pytest.raises(DataFormatError, match="never pickled objects"):
            read_dose(tmp_path / name, spacing_mm=(1.0, 1.0, 1.0))


def test_a_file_without_a_dose_names_what_it_holds(tmp_path):
    np.savez(tmp_path / "a.npz", image=DOSE, **GEOMETRY)
    with pytest.raises(
        DataFormatError, match="holds image, origin_mm, spacing_mm: no array is named dose_gy"
    ):
        read_dose(tmp_path / "a.npz")


def test_an_absurd_header_is_refused_before_it_is_allocated(tmp_path):
    np.save(tmp_path / "a.npy", DOSE)
    data = (tmp_path / "a.npy").read_bytes().replace(b"(2, 3, 4), }   ", b"(2, 3, 9999999), }")
    (tmp_path / "a.npy").write_bytes(data)
    with pytest.raises(DosemoverError, match=r"a\.npy"):
        read_dose(tmp_path / "a.npy", spacing_mm=(1.0, 1.0, 1.0))


@pytest.mark.parametrize("spacing", [(1.0, 0.0, 3.0), (1.0, -2.0, 3.0), (np.nan, 1.0, 1.0)])
def test_a_spacing_that_is_not_positive_is_refused(spacing, tmp_path):
    np.savez(tmp_path / "a.npz", dose=DOSE, spacing_mm=spacing)
    with pytest.raises(InputError, match=r"a.npz: `spacing_mm` must be positive"):
        read_dose(tmp_path / "a.npz")


def test_structure_masks_need_their_names(tmp_path):
    np.savez(
        tmp_path / "a.npz",
        dose=DOSE,
        structure_names=["a", "b"],
        structure_fractions=DOSE[None] / 24,
        **GEOMETRY,
    )
    with pytest.raises(DataFormatError, match="2 structure names for 1 masks"):
        read_dose(tmp_path / "a.npz")


def test_monte_carlo_batches_read_as_documented(data_path):
    path = data_path("mc_egsnrc/e_shift1.npz")
    phantom = json.loads(data_path("mc_egsnrc/phantom.json").read_text())
    with pytest.raises(InputError, match="tells no voxel size"):
        read_dose(path)
    dose = read_dose(path, spacing_mm=(4.0, 4.0, 4.0), origin_mm=(-126.0, -126.0, 2.0))
    assert dose.grid.x_edges_mm.tolist() == phantom["phantom"]["x_boundaries_mm"]
    assert dose.grid.z_edges_mm[0] == 0
    with np.load(path) as z:
        batches = z["batches"].astype("f8") * float(z["scale"])
    assert np.array_equal(dose.batches_gy, batches)
    noise = phantom["sets"]["e_shift1"]["rel_noise_of_batch_mean_above_50pct"]
    top = np.sort(dose.dose_gy.ravel())[-200:].mean()
    high = dose.dose_gy > 0.5 * top
    measured = np.sqrt(np.mean(np.square(dose.uncertainty_gy[high] / dose.dose_gy[high])))
    assert measured == pytest.approx(noise, rel=0.1)
