"""The comparison layer: selection, statuses, scaling, JSON, floors."""

import json

import numpy as np
import pytest

import dosemover as dm
from dosemover.comparison import families
from dosemover.comparison.coarse_floors import coarsened
from dosemover.comparison.context import ComparisonContext
from dosemover.comparison.registry import Family, fixed_keys, run, select
from dosemover.comparison.result import MetricResult
from dosemover.comparison.settings import CompareSettings
from dosemover.errors import AccuracyWarning, InputError, UnitError
from dosemover.grid import Grid

GRID = Grid.regular(shape=(10, 12, 14), spacing_mm=(2.0, 2.0, 2.5))


def field(scale=1.0, shift=0.0, seed=None, noise=0.0, **fields):
    z, y, x = np.meshgrid(*GRID.centers_mm, indexing="ij")
    dose = 2.0 * scale * np.exp(-(((x - 13 - shift) / 7) ** 2 + ((y - 11) / 7) ** 2 + ((z - 11) / 9) ** 2))
    if seed is not None:
        sigma = noise * np.sqrt(dose * dose.max())
        dose = np.maximum(dose + sigma * np.random.default_rng(seed).standard_normal(dose.shape), 0)
        fields["uncertainty_gy"] = sigma
    return dm.DoseMap(dose_gy=dose, grid=GRID, **fields)


AMOUNTS = ["mass", "differences", "dose_difference"]


def test_output_change_reads_as_itself():
    result = dm.compare(field(), field(1.03), metrics=AMOUNTS)
    assert result.metrics["mass_ratio"].value == pytest.approx(1.03)
    assert result.metrics["max_difference_gy"].value == pytest.approx(0.03 * field().max_gy)
    assert result.metrics["dose_difference_passing_2_percent"].value < 100


def test_arrays_need_a_spacing():
    with pytest.raises(InputError, match="without a voxel size"):
        dm.compare(np.ones((2, 2, 2)), np.ones((2, 2, 2)))


def test_a_volume_needs_a_spacing_along_every_axis():
    with pytest.raises(InputError, match="has 3 dimensions, but spacing_mm="):
        dm.compare(np.ones((2, 2, 2)), np.ones((2, 2, 2)), spacing_mm=(2.0, 2.0))


def test_one_structure_needs_no_list():
    inside = dm.Structure(name="PTV", fraction=(field().dose_gy > 1.0).astype(float), grid=GRID)
    assert "PTV" in dm.compare(field(), field(), structures=inside, metrics=["dvh"]).structures


def test_something_else_is_no_map():
    with pytest.raises(InputError, match="must be a path, a DoseMap or a numeric array"):
        dm.compare(object(), field())


def test_an_empty_map_is_refused():
    empty = dm.DoseMap(dose_gy=np.zeros(GRID.shape), grid=GRID)
    with pytest.raises(InputError, match="holds no dose"):
        dm.compare(field(), empty)


def test_a_relative_map_is_refused():
    with pytest.raises(UnitError, match="'relative', not in Gy"):
        dm.compare(field(), field(unit="relative"))


def test_matching_the_integral_undoes_a_scale():
    result = dm.compare(field(), field(0.25), scale="match-integral", metrics=AMOUNTS)
    assert result.settings["scale_factor"] == pytest.approx(4.0)
    assert result.metrics["mae_gy"].value == pytest.approx(0.0, abs=1e-12)


def test_matching_the_prescription_undoes_a_scale():
    result = dm.compare(field(), field(0.5), scale="match-prescription", prescription_gy=1.5, metrics=AMOUNTS)
    assert result.settings["scale_factor"] == pytest.approx(2.0)


def test_matching_an_unreached_prescription_is_refused():
    with pytest.raises(InputError, match="no voxel of the reference reaches"):
        dm.compare(field(), field(), scale="match-prescription", prescription_gy=50.0)


@pytest.mark.parametrize(
    ("scales", "factor", "which"), [((1.0, 100.0), "0.01", "evaluated"), ((100.0, 1.0), "100", "reference")]
)
def test_a_map_in_cgy_is_told_the_factor_that_mends_it(scales, factor, which):
    first, second = (field(scale) for scale in scales)
    (warning,) = dm.compare(first, second, metrics=["mass"]).warnings
    assert f"--scale {factor} if the {which} map is in cGy" in warning
    mended = dm.compare(first, second, metrics=["mass"], scale=float(factor))
    assert mended.metrics["mass_ratio"].value == pytest.approx(1.0)
    assert not mended.warnings


@pytest.mark.parametrize(
    ("key", "values", "words"),
    [
        ("DoseSummationType", ("PLAN", "BEAM"), "sum up different things (DoseSummationType PLAN and BEAM)"),
        ("DoseType", ("PHYSICAL", "EFFECTIVE"), "doses of different type (DoseType PHYSICAL and EFFECTIVE)"),
        ("FrameOfReferenceUID", ("1.2", "1.3"), "different frames of reference"),
        ("DoseType", ("ERROR", "ERROR"), "the reference is of DoseType ERROR"),
    ],
)
def test_maps_that_say_themselves_that_they_differ_in_kind_warn(key, values, words):
    maps = [field(source={key: value}) for value in values]
    assert words in " ".join(dm.compare(*maps, metrics=["mass"]).warnings)
    assert not dm.compare(maps[0], field(), metrics=["mass"]).warnings or values[0] == "ERROR"


def test_integrals_that_differ_by_more_than_two_warn():
    result = dm.compare(field(), field(0.4), metrics=["mass"])
    assert any("--scale" in warning for warning in result.warnings)


def test_dose_outside_the_other_grid_is_told():
    cut = dm.DoseMap(
        dose_gy=field().dose_gy[:, :, 5:], grid=GRID.crop((slice(0, 10), slice(0, 12), slice(5, 14)))
    )
    result = dm.compare(field(), cut, metrics=["mass"])
    assert any("lies outside the other map's grid" in warning for warning in result.warnings)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"gamma": ((3, 0),)}, "gamma distance criterion"),
        ({"gamma": "3/3"}, "`gamma` must be pairs"),
        ({"gamma": (3, 3)}, "`gamma` must be pairs"),
        ({"gamma": ()}, "`gamma` must be pairs"),
        ({"metrics": ()}, "`metrics` names no metric"),
        ({"null": 2.5}, "`null` must be 2 draws or more, a whole number, got 2.5"),
        ({"seed": "x"}, "`seed` must be 0 or a positive whole number, got 'x'"),
        ({"prescription_gy": "60"}, "`prescription_gy` must be positive, got '60'"),
        ({"dose_threshold_percent": "10"}, "`dose_threshold_percent` must lie"),
        ({"normalization": "none"}, "`normalization` must be"),
        ({"gamma_interpolant": "cubic"}, "`gamma_interpolant` must be"),
        ({"dose_threshold_percent": 100}, "`dose_threshold_percent` must lie"),
        ({"prescription_gy": -1}, "`prescription_gy` must be positive"),
        ({"scale": "match-maximum"}, "`scale` must be a factor"),
        ({"scale": "match-prescription"}, "needs the prescription"),
        ({"scale": -1.0}, "`scale` must be positive"),
        ({"exchange_mm_per_percent": 0}, "`exchange_mm_per_percent` must be positive"),
        ({"reach_mm": -3}, "`reach_mm` must be positive"),
        ({"ambient_dose_percent": -1}, "`ambient_dose_percent` must be"),
        ({"null": -1}, "`null` must be"),
        ({"null": 1}, "`null` must be 2 draws or more, a whole number, got 1"),
        ({"metrics": "gama"}, "Did you mean gamma"),
    ],
)
def test_settings_without_meaning_are_refused(setting, message):
    with pytest.raises(InputError, match=message):
        dm.compare(field(), field(), **setting)


def test_every_key_belongs_to_one_family():
    settings = CompareSettings(normalization="both")
    keys = [key for family in families.FAMILIES for key in family.keys(settings)]
    assert len(keys) == len(set(keys))
    assert set(select(families.FAMILIES, CompareSettings(metrics=("all",)))) == {
        family.name for family in families.FAMILIES
    }


def test_a_family_that_fails_leaves_a_status_and_the_others():
    def fails(context, wanted):
        raise InputError("no dose here")
        yield

    family = Family(name="x", keys=fixed_keys(one="mm", two=""), compute=fails)
    results = run(family, None_context(), frozenset({"one", "two"}))
    assert [(r.value, r.status) for r in results] == [(None, "no dose here")] * 2


def None_context():  # noqa: N802 - a stand-in with settings only
    class Context:
        settings = CompareSettings()

    return Context()


def test_a_defect_in_one_family_is_told_and_the_others_stay():
    def broken(context, wanted):
        raise IndexError("index -1 is out of bounds")

    family = Family(name="broken", keys=fixed_keys(broken_mm="mm"), compute=broken)
    context = ComparisonContext(reference=field(), evaluated=field(), settings=CompareSettings())
    with pytest.warns(AccuracyWarning, match="broken: internal error"):
        (result,) = run(family, context, frozenset({"broken_mm"}))
    assert result.value is None
    assert "IndexError: index -1" in result.status


def test_the_centre_of_dose_is_taken_on_each_grid():
    wide = Grid.regular(shape=(20, 30, 40), spacing_mm=(1.5, 1.7, 2.0), origin_mm=(-12.0, -14.0, -7.0))
    z, y, x = np.meshgrid(*wide.centers_mm, indexing="ij")
    dose = 2.0 * np.exp(-(((x - 14) / 7) ** 2 + ((y - 11) / 7) ** 2 + ((z - 11) / 9) ** 2))
    mass = dose / dose.sum()
    z0, y0, x0 = np.meshgrid(*GRID.centers_mm, indexing="ij")
    own = field().dose_gy / field().dose_gy.sum()
    expected = [(mass * p).sum() - (own * q).sum() for p, q in ((x, x0), (y, y0), (z, z0))]
    result = dm.compare(field(), dm.DoseMap(dose_gy=dose, grid=wide), metrics=["center_shift"])
    assert result.metrics["center_shift_mm"].settings["vector_mm"] == pytest.approx(expected, abs=1e-9)


def test_a_prescription_that_no_voxel_reaches_is_told():
    metrics = dm.compare(field(), field(1.02), metrics=["synthrad", "isodose"], prescription_gy=50.0).metrics
    assert metrics["synthrad_dose_score"].value is None
    assert "no voxel of the reference reaches 90 %" in metrics["synthrad_dose_score"].status
    assert all(m.status != "ok" for m in metrics.values() if m.value is None)


@pytest.mark.parametrize("key", ["ssim_in_mask", "dta_mean_mm"])
def test_the_dose_threshold_is_a_share_of_the_prescription_in_every_metric(key):
    z, y, x = np.indices((14, 14, 14))
    doses = [2 * np.exp(-((z - 7) ** 2 + (y - 7) ** 2 + (x - 7 - shift) ** 2) / 20) for shift in (0, 0.5)]
    maps = [dm.DoseMap.from_array(dose, spacing_mm=(2.0, 2.0, 2.0)) for dose in doses]
    prescribed = dm.compare(*maps, metrics=[key], prescription_gy=1.0, dose_threshold_percent=40.0)
    share = 40.0 * 1.0 / maps[0].max_gy
    plain = dm.compare(*maps, metrics=[key], dose_threshold_percent=share)
    assert prescribed.metrics[key].value == pytest.approx(plain.metrics[key].value, rel=1e-9)


def test_no_value_is_ever_without_a_reason_or_not_finite():
    dose = np.linspace(0.0, 2.0, 14**3).reshape(14, 14, 14)
    keys = ["ssim_in_mask", "dta_mean_mm", "chi_passing_rate_percent", "ndd_mean"]
    keys += ["gamma_3_3_global_mean", "gamma_2_2_global_two_sided_passing_rate_percent"]
    keys += ["dose_difference_passing_2_percent"]
    result = dm.compare(dose, dose, metrics=keys, prescription_gy=500.0, spacing_mm=(2, 2, 2))
    metrics = result.metrics
    assert "its maximum is 2 Gy. Check the prescription" in result.warnings[0]
    for key in keys:
        assert metrics[key].value is None
        assert "reaches the dose threshold, 10 % of the prescription of 500 Gy" in metrics[key].status


def test_an_isodose_without_surface_still_has_its_overlap():
    flat = dm.DoseMap(dose_gy=np.ones(GRID.shape), grid=GRID)
    metrics = dm.compare(flat, flat.scaled(1.1), metrics=["isodose"]).metrics
    assert metrics["isodose_dice_50"].value == 1.0
    assert metrics["isodose_dice_50"].status == "ok"
    assert "no surface" in metrics["isodose_hd95_50_mm"].status


def test_the_end_of_a_smaller_grid_is_no_shift():
    part = slice(2, 8), slice(0, 12), slice(0, 7)
    cut = dm.DoseMap(dose_gy=field(1.0, 0.3).dose_gy[part], grid=GRID.crop(part))
    found = dm.compare(field(), cut, metrics=["best_shift"]).metrics["best_shift_mm"]
    assert found.settings["vector_mm"] == pytest.approx([0.3, 0.0, 0.0], abs=0.01)


def test_what_averaging_over_other_voxels_moves_is_told():
    def ball(offset):
        axis = np.arange(-30.0, 30.0, 2.0) + offset
        z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
        origin = (-30.0 + offset,) * 3
        dose = np.exp(-(x**2 + y**2 + z**2) / (2 * 7.0**2))
        return dm.DoseMap.from_array(dose, spacing_mm=(2.0, 2.0, 2.0), origin_mm=origin)

    result = dm.compare(ball(0.0), ball(0.15), metrics=["mean_shift_mm"])  # pieces too thin to cut off
    (told,) = [w for w in result.warnings if "moves its dose by" in w]
    # t = 0.15 mm of each voxel lie with the next, whose dose differs by a share q of rms h/s: up to t q moves
    most = np.sqrt(3) * 0.15 * 2.0 / 7.0
    assert 0.1 * most < float(told.split("moves its dose by up to ")[1].split(" mm")[0]) < most
    for exact in (0.0, 1.0):
        found = dm.compare(ball(0.0), ball(exact), metrics=["mean_shift_mm"])
        assert not [w for w in found.warnings if "moves" in w]
    assert not [w for w in dm.compare(ball(0.0), ball(0.15), metrics=["mass"]).warnings if "moves" in w]


def test_json_follows_the_contract():
    result = dm.compare(field(), field(1.01), metrics=AMOUNTS)
    written = json.loads(result.to_json())
    assert written["schema"] == "dosemover.compare/1"
    for side in ("reference", "evaluated"):
        assert set(written[side]) == {
            "file",
            "format",
            "shape",
            "spacing_mm",
            "origin_mm",
            "max_gy",
            "integral_gy_mm3",
        }
    fields = {
        "value",
        "unit",
        "lower",
        "upper",
        "floor",
        "floor_sd",
        "z",
        "p",
        "seconds",
        "settings",
        "status",
    }
    assert all(set(metric) == fields for metric in written["metrics"].values())
    assert written["provenance"]["version"] == dm.__version__
    assert written["settings"]["gamma"] == [[3.0, 3.0], [2.0, 2.0]]


def test_the_files_beside_the_maps_are_told_by_their_base_names(tmp_path):
    drawn = np.random.default_rng(3).uniform(0.9, 1.1, (4, *GRID.shape)) * field().dose_gy
    for i, batch in enumerate(drawn):
        dm.write_dose(dm.DoseMap(dose_gy=batch, grid=GRID), tmp_path / f"batch_{i}.nrrd")
    dm.write_dose(dm.DoseMap(dose_gy=drawn.mean(axis=0), grid=GRID), tmp_path / "mean.nrrd")
    dm.write_dose(dm.DoseMap(dose_gy=0.01 * field().dose_gy + 1e-6, grid=GRID), tmp_path / "sigma.nrrd")
    one = dm.read_dose(tmp_path / "mean.nrrd", batches=str(tmp_path / "batch_*.nrrd"))
    two = dm.read_dose(tmp_path / "mean.nrrd", uncertainty=tmp_path / "sigma.nrrd")
    inside = dm.Structure(name="PTV", fraction=(field().dose_gy > 1.0).astype(float), grid=GRID)
    result = dm.compare(one, two, metrics=["mass"], structures=[inside])
    assert json.loads(result.to_json())["settings"]["inputs"] == {
        "structures": "1 from memory",
        "reference_batches": "4 from batch_0.nrrd on",
        "reference_uncertainty": "from the batches",
        "evaluated_uncertainty": "sigma.nrrd (absolute)",
    }
    assert dm.compare(field(), field(), metrics=["mass"]).settings["inputs"] == {}


def test_not_a_number_becomes_null_in_json():
    metric = MetricResult(key="x", value=float("nan"))
    result = dm.ComparisonResult(reference=field(), evaluated=field(), metrics={"x": metric})
    assert json.loads(result.to_json())["metrics"]["x"]["value"] is None


def test_identifiers_stay_inside_unless_asked_for():
    named = field(identifiers={"PatientName": "Doe^Jane"})
    assert "Doe" not in dm.compare(named, named, metrics=["mass"]).to_json()
    assert "Doe" in dm.compare(named, named, metrics=["mass"], identifiers=True).to_json()


def test_noise_alone_is_not_significant_and_a_change_is():
    one, two = field(seed=1, noise=0.03), field(seed=2, noise=0.03)
    changed = field(1.05, seed=3, noise=0.03)
    null = dm.compare(one, two, metrics=["mass", "rmse_gy"], null=39)
    real = dm.compare(one, changed, metrics=["mass", "rmse_gy", "debiased"], null=39)
    assert null.metrics["mass_ratio"].p > 0.05
    # 8.5 standard deviations; Student's t, since 1680 voxels tell of 125 weak lags with 9 degrees of freedom
    assert real.metrics["mass_ratio"].p < 1e-4
    assert real.metrics["mass_ratio"].z > 5
    assert real.metrics["rmse_gy"].value > real.metrics["rmse_gy"].floor
    assert real.metrics["debiased_rmse_gy"].p == pytest.approx(real.metrics["rmse_gy"].p, rel=1e-6)
    assert abs(real.metrics["debiased_rmse_gy"].floor) < 0.2 * real.metrics["rmse_gy"].floor


def test_the_largest_difference_is_judged_by_the_uncertainty_that_its_voxel_states():
    """One voxel among noisy ones states 7 times their uncertainty, and reads 1.4 deviations."""
    rng = np.random.default_rng(11)
    sigma = np.full(GRID.shape, 0.4)
    sigma[5, 6, 7] = 3.0
    doses = 1 + 0.4 * rng.standard_normal((2, *GRID.shape)).clip(-2.4, 2.6)
    doses[:, 5, 6, 7] = 1.0, 7.0
    maps = [dm.DoseMap(dose_gy=dose, grid=GRID, uncertainty_gy=sigma) for dose in doses]
    found = dm.compare(*maps, metrics=["max_difference_gy"], null=99).metrics["max_difference_gy"]
    assert found.value == pytest.approx(6.0)
    assert found.p > 0.05  # 0.01, the least of 99 draws, with the uncertainty of its neighborhood
    assert found.floor_sd > 1  # 0.3 there


def test_sums_of_a_small_map_lose_little_of_their_power_to_an_estimated_correlation():
    """Independent noise; the output change is 4.2 standard deviations of the mass ratio."""
    found = {}
    for scale in (1.0, 1.012):
        pairs = [(field(seed=2 * k, noise=0.03), field(scale, seed=2 * k + 1, noise=0.03)) for k in range(60)]
        p = [dm.compare(*pair, metrics=["mass"]).metrics["mass_ratio"].p for pair in pairs]
        found[scale] = np.mean(np.array(p) <= 0.05)
    assert found[1.0] <= 0.08
    assert found[1.012] >= 0.9


def test_batches_give_exact_significance():
    rng = np.random.default_rng(5)
    base = field().dose_gy

    def batches(scale):
        drawn = np.maximum(scale * base + 0.1 * rng.standard_normal((10, *base.shape)), 0)
        return dm.DoseMap.from_batches(drawn, GRID)

    result = dm.compare(batches(1.0), batches(1.05), metrics=["mass"], null=39)
    metric = result.metrics["mass_ratio"]
    assert metric.p == pytest.approx(1 / 40)
    assert "exact p by relabelling batches" in metric.settings["significance"]


def test_the_same_seed_gives_the_same_floors():
    one, two = field(seed=1, noise=0.03), field(seed=2, noise=0.03)
    runs = [dm.compare(one, two, metrics=["rmse_gy"], null=9, seed=4).metrics["rmse_gy"] for _ in range(2)]
    assert runs[0].floor == runs[1].floor


def test_without_uncertainty_there_is_no_floor():
    metric = dm.compare(field(), field(1.1), metrics=["rmse_gy"]).metrics["rmse_gy"]
    assert metric.floor is None
    assert metric.p is None


def test_the_dose_movers_distance_has_a_closed_form_floor():
    one, two = field(seed=1, noise=0.01), field(seed=2, noise=0.01)
    moved = field(shift=1.0, seed=3, noise=0.01)
    null = dm.compare(one, two, metrics=["dmd"]).metrics["dmd_mm"]
    real = dm.compare(one, moved, metrics=["dmd"]).metrics["dmd_mm"]
    assert null.settings["significance"].startswith("closed form")
    assert abs(null.z) < 3
    assert null.p > 0.01
    assert real.p < 1e-6
    assert real.lower <= real.value <= real.upper


def test_structures_get_dvh_values_and_curves():
    fraction = np.zeros(GRID.shape)
    fraction[3:7, 4:8, 5:9] = 1.0
    target = dm.Structure(name="PTV", fraction=fraction, grid=GRID)
    result = dm.compare(field(), field(1.1), structures=[target], prescription_gy=1.0, metrics=["dvh"])
    values = result.structures["PTV"]
    assert values["mean_gy"]["evaluated"] == pytest.approx(1.1 * values["mean_gy"]["reference"])
    assert values["dvh_w1_gy"]["evaluated"] == pytest.approx(0.1 * values["mean_gy"]["reference"])
    assert values["paddick"]["reference"] is not None
    assert result.dvh_curves["PTV"]["reference"][0] == pytest.approx(100.0)
    assert result.metrics["dvh_w1_gy"].settings["largest_in"] == "PTV"


def test_a_structure_outside_the_dose_is_told_and_the_others_stay():
    far = Grid.regular(shape=(4, 4, 4), spacing_mm=(2, 2, 2), origin_mm=(500, 0, 0))
    outside = dm.Structure(name="far", fraction=np.ones(far.shape), grid=far)
    inside = dm.Structure(name="near", fraction=np.ones(GRID.shape), grid=GRID)
    result = dm.compare(field(), field(1.1), structures=[outside, inside], metrics=["dvh"])
    assert list(result.structures) == ["near"]
    assert any("'far'" in warning for warning in result.warnings)


def test_structures_of_another_kind_are_refused():
    with pytest.raises(InputError, match="`structures` must be a path or Structure objects"):
        dm.compare(field(), field(), structures=[np.ones(3)])


def test_a_p_value_at_the_limit_of_its_draws_says_so():
    draws = {"null_draws": 19}
    assert MetricResult(key="x", value=1.0, p=0.05, settings=draws).p_is_smallest
    assert not MetricResult(key="x", value=1.0, p=0.10, settings=draws).p_is_smallest
    assert not MetricResult(key="x", value=1.0, p=0.05).p_is_smallest
    assert not MetricResult(key="x", value=1.0, p=0.05, settings={"null_draws": 0}).p_is_smallest


def test_costly_metrics_are_drawn_on_the_coarsest_grid_that_keeps_their_floor():
    shape = (32, 32, 32)
    z, y, x = np.indices(shape)
    base = np.exp(-((z - 16.0) ** 2 + (y - 16.0) ** 2 + (x - 16.0) ** 2) / 60) + 0.01
    rng = np.random.default_rng(6)
    maps = [
        dm.DoseMap.from_array(
            np.maximum(base * (1 + 0.02 * rng.standard_normal(shape)), 0),
            spacing_mm=(2, 2, 2),
            uncertainty_gy=0.02 * base,
        )
        for _ in range(2)
    ]
    metric = dm.compare(*maps, metrics=["sliced_w2_mm"], null=19).metrics["sliced_w2_mm"]
    assert metric.settings["null_grid"].endswith("voxels merged along an axis")
    assert metric.settings["null_grid_value"] == pytest.approx(metric.value, rel=0.3)
    assert metric.p > 0.05
    assert abs(metric.z) < 4


def test_regions_of_low_sampling_are_masked_and_their_share_is_told():
    result = dm.compare(field(seed=1, noise=0.03), field(1.05, seed=2, noise=0.03), metrics=["mae_gy", "dmd"])
    assert set(np.unique(result.maps["low_sampling_mask"].values)) <= {0.0, 1.0}
    assert result.maps["significant_mask"].values.any()
    for key in ("mae_gy", "dmd_mm"):
        assert 0 <= result.metrics[key].settings["low_sampling_share_percent"] <= 100


def test_noise_alone_leaves_the_significant_mask_all_but_empty():
    result = dm.compare(field(seed=1, noise=0.03), field(seed=2, noise=0.03), metrics=["mae_gy"])
    assert result.maps["significant_mask"].values.mean() < 0.01


def test_without_uncertainty_the_noise_is_estimated_and_labelled():
    rng = np.random.default_rng(7)
    shape = (24, 24, 24)
    base = 1 + np.exp(-((np.indices(shape)[2] - 12.0) ** 2) / 50)
    maps = [
        dm.DoseMap.from_array(base + 0.02 * np.sqrt(base) * rng.standard_normal(shape), spacing_mm=(2, 2, 2))
        for _ in range(2)
    ]
    metric = dm.compare(*maps, metrics=["rmse_gy", "mae_gy"]).metrics
    assert "estimated from the maps" in metric["rmse_gy"].settings["significance"]
    assert metric["rmse_gy"].floor == pytest.approx(metric["rmse_gy"].value, rel=0.1)
    assert metric["mae_gy"].floor is None
    asked = dm.compare(*maps, metrics=["mae_gy"], null=9).metrics["mae_gy"]
    assert asked.floor == pytest.approx(asked.value, rel=0.15)


def test_merged_voxels_keep_the_integral():
    rng = np.random.default_rng(8)
    dose = dm.DoseMap.from_array(rng.random((33, 40, 10)), spacing_mm=(2, 2, 2))
    merged = coarsened(dose, 2)
    assert merged.grid.shape == (16, 20, 10)
    assert merged.integral_gy_mm3 == pytest.approx(dose.integral_gy_mm3)


def test_chi_square_from_few_batches_is_not_taken_for_a_difference():
    """Uncertainties from 5 + 5 batches alone bring chi-square to 8 / 6: the floor must know."""
    rng = np.random.default_rng(9)
    pair = [dm.DoseMap.from_batches(5 + 0.3 * rng.standard_normal((5, *GRID.shape)), GRID) for _ in range(2)]
    metric = dm.compare(*pair, metrics=["chi2_per_voxel"], null=19).metrics["chi2_per_voxel"]
    assert metric.floor == pytest.approx(8 / 6, rel=0.05)
    assert abs(metric.z) < 3
