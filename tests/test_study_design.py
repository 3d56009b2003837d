"""Studies as they stand in a TOML file: what is understood, and what is refused."""

import copy
import tomllib
from pathlib import Path

import numpy as np
import pytest

from dosemover.errors import DataFormatError, InputError
from dosemover.grid import Grid
from dosemover.study.changes import changed_document, factor_of, photons_of
from dosemover.study.design import Change, Level, digest, read_study, seed_of, study_from
from dosemover.study.measure import short_status, wanted_keys

STUDIES = Path(__file__).resolve().parents[1] / "studies"
SMALL = """
[study]
name = "small"

[[level]]
percent = 10
replicates = 3

[[level]]
percent = 5

[[case]]
name = "water"
levels = [10]

[case.phantom]
type = "uniform"
material = "water"
size_mm = 40
voxel_mm = 10

[[case.source]]
spectrum = { mono_mev = 0.1 }
field_mm = [-10, 10, -10, 10]
penumbra_mm = 4
weight = 400

[[case.change]]
name = "none"
noise_in = ["both", "evaluated"]
one_sided_levels = [5]

[[case.change]]
name = "shift"
kind = "shift"
direction = [0, 0, 2]
unit = "mm"
magnitudes = [1, 3]
levels = [10, 5]
"""


@pytest.fixture
def small():
    return tomllib.loads(SMALL)


def test_levels_are_those_of_the_change_else_of_the_case_else_all(small):
    case = study_from(small).cases[0]
    none, shift, _ = case.changes
    assert [level.percent for level in case.levels_of(none, "both")] == [10]
    assert [level.percent for level in case.levels_of(none, "evaluated")] == [5]
    assert [level.percent for level in case.levels_of(shift, "both")] == [10, 5]
    assert [level.replicates for level in case.levels] == [3, 20]
    del small["case"][0]["levels"]
    assert [one.percent for one in study_from(small).cases[0].levels_of(none, "both")] == [10, 5]


def test_a_case_may_afford_fewer_replicates(small):
    small["case"][0]["replicates"] = {"5": 2}
    assert [level.replicates for level in study_from(small).cases[0].levels] == [3, 2]


def test_a_case_may_leave_out_what_its_grid_cannot_afford(small):
    other = copy.deepcopy(small["case"][0]) | {
        "name": "fine",
        "leave_out": ["emd"],
        "thinned": {"w1": 2},
        "certified_replicates": 0,
        "quiet_percent": 0.5,
    }
    small["case"].append(other)
    study = study_from(small)
    coarse, fine = (study.alone(case) for case in study.cases)
    assert (coarse.leave_out, coarse.quiet_percent, coarse.certified_replicates) == ((), 0.25, 20)
    assert (fine.leave_out, fine.quiet_percent, fine.certified_replicates) == (("emd",), 0.5, 0)
    assert fine.thinned == {"w1": 2}
    assert not coarse.thinned
    assert study_from({**small, "case": [other]}).fingerprint() != study.fingerprint()
    other["leave_out"] = ["no_such_metric"]
    with pytest.raises(InputError, match="no_such_metric"):
        study_from(small)


def test_a_shift_moves_every_source_along_a_unit_vector(small):
    case = study_from(small).cases[0]
    moved = case.variant(case.changes[2])["source"][0]["isocenter_mm"]
    np.testing.assert_allclose(moved, [0, 0, 3])
    assert "isocenter_mm" not in case.document["source"][0]


def test_a_point_source_moves_by_its_position():
    document = {"source": [{"type": "point", "position_mm": [1, 2, 3]}]}
    moved = changed_document(document, "shift", 2.0, {"direction": [1, 0, 0]})
    assert moved["source"][0]["position_mm"] == [3, 2, 3]


def test_a_value_of_a_source_grows_by_an_amount_or_by_percent(small):
    document = study_from(small).cases[0].document
    wider = changed_document(document, "source", 2.0, {"key": "penumbra_mm", "by": "mm"})
    harder = changed_document(document, "source", 5.0, {"key": "spectrum.mono_mev", "by": "%"})
    assert wider["source"][0]["penumbra_mm"] == 6
    assert harder["source"][0]["spectrum"]["mono_mev"] == pytest.approx(0.105)
    with pytest.raises(InputError, match=r"no 'spectrum.peak_mev'.*Write the value"):
        changed_document(document, "source", 5.0, {"key": "spectrum.peak_mev", "by": "%"})


def test_an_extra_source_adds_its_photons(small):
    case = study_from(small).cases[0]
    added = [{"field_mm": [-5, 5, -5, 5], "weight": 100}]
    change = Change(name="hot", magnitude=20.0, kind="extra", settings={"sources": added})
    assert photons_of(case.variant(change)) == 420
    assert case.dose_factor(change) == pytest.approx(1.05)
    assert case.variant(change)["source"][1]["penumbra_mm"] == 4


def test_output_is_a_factor_and_nothing_else(small):
    case = study_from(small).cases[0]
    change = Change(name="output", magnitude=3.0, kind="output")
    assert case.variant(change) == case.document
    assert case.dose_factor(change) == factor_of("output", 3.0) == pytest.approx(1.03)


@pytest.mark.parametrize(
    ("text", "number"), [("m", 2.0), ("-m", -2.0), ("-20 + m", -18.0), ("100 - m", 98.0), ("-5+m", -3.0)]
)
def test_numbers_with_the_magnitude_in_them(text, number):
    document = {"source": [{"weight": 1.0}]}
    found = changed_document(document, "sources", 2.0, {"sources": [{"field_mm": [text, 1]}]})
    assert found["source"][0]["field_mm"] == [number, 1]


@pytest.mark.parametrize("text", ["lung", "a + m", "1 * m"])
def test_other_texts_stay_texts(text):
    document = {"source": [{}]}
    found = changed_document(document, "sources", 2.0, {"sources": [{"name": text}]})
    assert found["source"][0]["name"] == text


def test_inserts_come_after_those_of_the_case():
    document = {"phantom": {"insert": ["first"]}, "source": [{}]}
    found = changed_document(document, "insert", 7.0, {"inserts": [{"size_mm": ["m", 1, 1]}]})
    assert found["phantom"]["insert"] == ["first", {"size_mm": [7.0, 1, 1]}]


def test_seeds_depend_on_what_they_are_for_and_on_nothing_else():
    assert seed_of(1, "case", 10.0, 3) == seed_of(1, "case", 10.0, 3)
    seeds = {seed_of(study, case, 10.0, n) for study in range(5) for case in ("a", "b") for n in range(100)}
    assert len(seeds) == 1000
    assert all(0 <= seed < 2**62 for seed in seeds)
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})


def test_the_fingerprint_tells_designs_apart(small):
    other = copy.deepcopy(small)
    other["case"][0]["change"][1]["magnitudes"] = [1, 2]
    assert study_from(small).fingerprint() == study_from(small).fingerprint()
    assert study_from(small).fingerprint() != study_from(other).fingerprint()


def test_thinned_metrics_are_measured_for_the_first_replicates_only(small):
    study = study_from(small)
    settings = study.settings(study.cases[0])
    first, later = (
        wanted_keys(settings, leave_out=("dvh",), thinned={"emd": 2, "w1_mm": 1}, replicate=n) for n in (0, 2)
    )
    assert "emd" in first
    assert "w1" in first
    assert "emd" not in later
    assert "w1" not in later
    assert "dvh" not in first
    assert later["dmd"] == first["dmd"]


def test_a_status_keeps_its_words_and_loses_its_numbers():
    assert short_status("27 of 1904 voxels, p = 1.5e-3") == "# of # voxels, p = #"
    assert len(short_status("x" * 500)) == 100


@pytest.mark.parametrize("name", ["noise", "reduced"])
def test_the_projects_own_studies_can_be_read(name):
    study = read_study(STUDIES / f"{name}.toml")
    assert study.name == name
    assert len(study.cases) >= 2


def test_the_projects_study_covers_what_it_must():
    study = read_study(STUDIES / "noise.toml")
    assert {case.engine for case in study.cases} == {"builtin", "ompmc", "analytic"}
    names = {change.name for case in study.cases for change in case.changes}
    wanted = {"none", "shift", "output", "energy", "penumbra", "hot_spot", "cold_spot", "low_dose_bath"}
    assert wanted | {"wrong_material", "missing_leaf", "half_shift", "half_energy"} <= names
    simulated = {case.name: case for case in study.cases if case.engine != "analytic"}
    down_to = {
        name: {level.percent for change in case.changes for level in case.levels_of(change, "both")}
        for name, case in simulated.items()
    }
    assert sum(percents >= {20, 10, 5, 2, 1, 0.5} for percents in down_to.values()) >= 3
    assert down_to["mv_6"] >= {20, 10, 5, 3}
    assert {level.replicates for case in study.cases for level in case.levels} == {20}
    assert not study.leave_out
    assert sum(bool(case.structures) for case in study.cases) >= 5


def test_structures_are_drawn_on_the_grid_of_the_maps(small):
    box = {"name": "PTV70", "shape": "box", "center_mm": [0, 0, 5], "size_mm": [20, 40, 10]}
    small["case"][0]["structure"] = [box]
    grid = Grid.regular(shape=(4, 4, 4), spacing_mm=(10, 10, 10), origin_mm=(-15, -15, -15))
    (drawn,) = study_from(small).cases[0].structures_on(grid)
    assert drawn.name == "PTV70"
    assert drawn.volume_cc == pytest.approx(8.0)
    assert drawn.mask[2, :, 1:3].all()
    assert drawn.mask.sum() == 8


BAD = [
    (lambda d: d.update(cases=1), r"the study has an unknown key 'cases'.*Did you mean 'case'"),
    (lambda d: d["study"].update(sed=1), r"study has an unknown key 'sed'.*Did you mean 'seed'"),
    (lambda d: d["level"][0].update(percentage=1), r"level has an unknown key.*Did you mean 'percent'"),
    (lambda d: d["case"][0].update(engin="x"), r"case 'water' has an unknown key.*Did you mean 'engine'"),
    (
        lambda d: d["case"][0]["change"][1].update(direktion=1),
        r"change 'shift' has an unknown key.*Did you mean 'direction'",
    ),
    (lambda d: d["case"][0]["phantom"].update(voxel=1), r"unknown key 'voxel'.*Did you mean 'voxel_mm'"),
    (lambda d: d["case"][0]["source"][0].update(feld=1), r"unknown key 'feld'.*Did you mean 'field_mm'"),
    (lambda d: d["study"].update(metrics=["dmd_m"]), r"'dmd_m'.*Did you mean dmd_mm"),
    (lambda d: d["study"].update(thinned={"emdd": 1}), r"'emdd'.*Did you mean emd"),
    (lambda d: d["study"].pop("name"), r"needs `name`"),
    (lambda d: d["case"][0].pop("name"), r"a case has no `name`"),
    (lambda d: d["case"][0].update(engine="geant"), r"`engine` must be one of builtin, ompmc, analytic"),
    (lambda d: d["case"][0]["change"].pop(0), r'no change named "none"'),
    (lambda d: d["case"][0].update(levels=[7]), r"asks for the levels \[7.0\]"),
    (lambda d: d["case"][0]["change"][1].update(levels=[7]), r"asks for the levels \[7.0\]"),
    (lambda d: d["case"][0]["change"][1].update(kind="move"), r"needs a `name` and a `kind`"),
    (lambda d: d["case"][0]["change"][1].pop("direction"), r"lacks direction"),
    (lambda d: d["case"][0]["change"][1].pop("magnitudes"), r"needs `magnitudes`"),
    (lambda d: d["case"][0]["change"][1].update(noise_in=["none"]), r"`noise_in` must be out of"),
    (lambda d: d["case"][0]["change"][1].update(direction=[0, 0, 0]), r"`direction` must be three numbers"),
    (lambda d: d["case"][0]["change"].append(d["case"][0]["change"][1]), r"two changes of one name"),
    (lambda d: d["case"].append(d["case"][0]), r"two cases share a name"),
    (lambda d: d["case"][0].update(batches=1), r"at least 2 batches"),
    (
        lambda d: d["case"][0].update(structure=[{"name": "PTV70", "form": "box"}]),
        r"structure 'PTV70' has an unknown key 'form'",
    ),
    (
        lambda d: d["case"][0].update(structure=[{"name": "PTV70", "shape": "box"}]),
        r"structure 'PTV70' lacks center_mm, size_mm",
    ),
    (
        lambda d: d["case"][0].update(
            structure=[{"name": "a", "shape": "ball", "center_mm": [0, 0, 0], "size_mm": 1}]
        ),
        r"a box, an ellipsoid or a cylinder",
    ),
    (lambda d: d["level"][0].update(percent=0), r"positive `percent`"),
    (lambda d: d["level"][0].update(percent="much"), r"value of the wrong kind"),
    (lambda d: d["case"][0]["source"][0].pop("field_mm") and d["case"][0].pop("source"), r"no source"),
]


@pytest.mark.parametrize(("damage", "message"), BAD)
def test_what_cannot_be_used_is_refused_with_a_reason(small, damage, message):
    damage(small)
    with pytest.raises(InputError, match=message):
        study_from(small)


def test_files_that_are_no_studies_are_named(tmp_path):
    with pytest.raises(InputError, match=r"cannot be read"):
        read_study(tmp_path / "absent.toml")
    (tmp_path / "bad.toml").write_text("[study\n")
    with pytest.raises(DataFormatError, match=r"bad.toml is not a TOML file"):
        read_study(tmp_path / "bad.toml")


def test_a_level_needs_noise():
    with pytest.raises(InputError, match="at least 1 replicate"):
        Level(percent=5.0, replicates=0)
