"""The HTML report without a browser: what it says, how large it is, and what it must never hold."""

import base64
import json
import re
import subprocess
import sys
import zlib
from dataclasses import replace
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dosemover.comparison.result import ComparisonResult, FieldMap, MetricResult
from dosemover.comparison.settings import CompareSettings
from dosemover.dose import DoseMap
from dosemover.errors import InputError
from dosemover.grid import Grid
from dosemover.report import explain, verdict, write_report
from dosemover.report.citations import REFERENCES, citations
from dosemover.report.formatting import number, p_value, percent, public_text, public_value, unbroken
from dosemover.report.page import page_data, render_report, script_json
from dosemover.report.sentences import is_significant, verdict_details
from dosemover.report.settings_table import key_values
from dosemover.report.tables import dvh_name, dvh_table, metric_groups, verdict_rows, where_table
from dosemover.report.texts import GROUPS
from dosemover.report.volumes import (
    NOT_A_NUMBER,
    coarse_grid,
    coarsen,
    encode,
    factors_for,
    layers,
    volumes,
)
from report_cases import make_metrics, make_result, with_masks

SMALL = {"shape": (10, 12, 14), "spacing_mm": (10.0, 10.0, 12.0)}


@pytest.fixture(scope="module")
def small():
    return make_result(**SMALL)


@pytest.fixture(scope="module")
def html(small):
    return render_report(small)


class Tags(HTMLParser):
    """Elements, attributes and text of a page."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.urls, self.ids, self.words = [], [], [], [], []
        self.joins = False  # a word goes on after a place where it may be broken
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.joins = self.joins or tag == "wbr"
        if tag not in ("meta", "link", "input", "br", "wbr", "rect"):
            self.open.append(tag)
        for name, value in attrs:
            if name in ("src", "href"):
                self.urls.append(value)
            if name == "id":
                self.ids.append(value)

    def handle_endtag(self, tag):
        assert self.open[-1:] == [tag], f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("script", "style"):
            joined = self.words.pop() if self.joins else ""
            self.words.append(joined + data)
            self.joins = False

    @property
    def text(self):
        return re.sub(r"\s+", " ", " ".join(self.words))


def embedded(html):
    """The data that the scripts read."""
    return json.loads(re.search(r'id="report-data">(.*?)</script>', html, re.DOTALL)[1])


def test_the_page_is_well_formed_and_points_nowhere(html):
    page = Tags(html)
    assert page.open == []
    assert all(url.startswith(("#", "data:")) for url in page.urls)
    assert len(page.ids) == len(set(page.ids))
    assert not re.search(r"@import|url\((?!data:|#)", html)


@pytest.mark.parametrize(
    ("left", "words"),
    [
        (5.0, "differ by 10.0 % of the maximum, by 5.0 % once the motion is taken out."),
        (12.0, "and the motion does not explain it: taken out, it leaves 12.0 %."),
    ],
)
def test_the_largest_residual_is_told_beside_the_largest_difference(left, words):
    one = DoseMap(dose_gy=np.full((2, 2, 2), 2.0), grid=Grid.regular(shape=(2, 2, 2), spacing_mm=(1, 1, 1)))
    found = {
        "max_difference_gy": MetricResult(key="max_difference_gy", value=0.2, unit="Gy"),
        "dmd_residual_max_percent": MetricResult(key="dmd_residual_max_percent", value=left, unit="%"),
    }
    result = ComparisonResult(reference=one, evaluated=one, metrics=found)
    assert words in " ".join(verdict_details(result)).replace("\xa0", " ").replace("\u202f", " ")


def test_only_the_page_s_own_script_may_run(html):
    import hashlib

    script = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    assert len(script) == 1
    digest = base64.b64encode(hashlib.sha256(script[0].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in html
    assert "default-src 'none'" in html


def test_every_metric_has_a_row_with_value_or_status(small, html):
    text = Tags(html).text
    for key, metric in small.metrics.items():
        assert key in text
        assert explain(metric).title in text
    assert text.count("not computed") == 3
    assert "needs at most 20 000 voxels" in text


def test_the_verdict_says_how_far_and_how_much(small, html):
    assert verdict(small) == "The dose moved by 0.84 mm and changed by 2 % (noise alone: 0.05 mm)."
    assert unbroken(verdict(small)) in html
    details = " ".join(verdict_details(small))
    assert "Noise alone does not explain that" in details
    assert "2.0 % less dose" in details
    assert "Gamma 3 %/3 mm, global: 98.9 %" in details


def test_the_verdict_without_transport_falls_back_on_shift_and_total(small):
    few = {k: v for k, v in small.metrics.items() if k in ("mass_ratio", "best_shift_mm")}
    assert verdict(replace(small, metrics=few)) == (
        "The best rigid shift is 1.0 mm and the total dose changed by −2.0 %."
    )
    assert "table below" in verdict(replace(small, metrics={}))


def test_the_verdict_admits_when_noise_is_not_known(small):
    unknown = replace(small, metrics=make_metrics(uncertainty=False))
    assert verdict(unknown) == "The dose moved by 0.84 mm and changed by 2 %."
    assert any("not known" in text for text in verdict_details(unknown))


@pytest.mark.parametrize(
    ("z", "p", "expected"),
    [(None, None, None), (5.0, None, True), (1.0, None, False), (9.0, 0.2, False), (None, 0.001, True)],
)
def test_significance_goes_by_p_and_then_by_z(z, p, expected):
    assert is_significant(MetricResult(key="dmd_mm", value=1.0, z=z, p=p)) is expected


def test_every_key_of_the_contract_is_explained():
    for metric in make_metrics().values():
        text = explain(metric)
        assert text.group in GROUPS
        assert text.group != "other", metric.key
        assert text.means.endswith(".")
        assert text.blind.endswith(".")
        assert "{" not in text.title + text.means + text.blind


def test_unknown_metrics_and_odd_units_still_get_a_row():
    metric = MetricResult(key="new_{value}_thing", value=3.0, unit="furlong")
    assert explain(metric).group == "other"
    assert "3.00 furlong" in explain(metric).means


def test_sentences_read_the_settings_as_used():
    reach = MetricResult(key="kr_mm", value=1.0, unit="mm", settings={"reach_mm": 25.0})
    assert "reach of 25 mm" in explain(reach).means
    exchange = MetricResult(key="dmd_mm", value=1.0, unit="mm", settings={"exchange_mm_per_percent": 0.5})
    assert "1 % of change counts as 0.5 mm" in explain(exchange).means


def gamma_row(key, **settings):
    given = {
        "n_evaluated": 28310,
        "normalization_dose_gy": 61.9,
        "dose_threshold_percent": 10.0,
        "dose_outside_voxels": 0,
        "dose_outside_max_gy": 0.0,
    }
    return explain(MetricResult(key=key, value=98.0, unit="%", settings=given | settings))


def test_a_gamma_row_says_which_voxels_it_counts_and_what_its_percent_is():
    text = gamma_row("gamma_3_2_global_passing_rate_percent")
    assert "of 28\xa0310 voxels with at least 6.19 Gy (10 % of 61.9 Gy) find" in text.means
    assert "(3 % is 1.86 Gy)" in text.means
    assert "dose where the reference has none (here no voxel)" in text.blind
    assert "(3 % is of the dose in each voxel)" in gamma_row("gamma_3_2_local_mean").means


def test_a_gamma_row_says_how_much_dose_it_is_blind_to():
    text = gamma_row("gamma_3_3_global_mean", dose_outside_voxels=1200, dose_outside_max_gy=9.0)
    assert "(here 1\xa0200 voxels, up to 9.00 Gy)" in text.blind


def test_an_interval_bar_spans_lower_to_upper(small):
    rows = {row["key"]: row for group in metric_groups(small) for row in group["rows"]}
    rows |= {row["key"]: row for row in verdict_rows(small)}
    bar = rows["dmd_mm"]["bar"]
    assert 0 < bar["floor"] < bar["lower"] < bar["value"] < bar["upper"] < 100
    assert bar["lower"] / bar["upper"] == pytest.approx(0.97 / 1.02)
    assert rows["dmd_mm"]["interval"] == "[2.144, 2.254] mm"
    assert rows["kr_mm"]["interval"] == "≤ 0.2100 mm"
    assert rows["rmse_gy"]["interval"] == ""


NASTY = '</script><script>alert("x")</script>\u2028<img src=x onerror=alert(1)>&lt;'


def test_text_from_outside_is_never_markup():
    grid = Grid.regular(shape=(4, 5, 6), spacing_mm=(5.0, 5.0, 5.0))
    dose = DoseMap(dose_gy=np.ones(grid.shape), grid=grid, source={"file": "<script>alert(1).dcm"})
    result = ComparisonResult(
        reference=dose,
        evaluated=replace(dose, source={"file": NASTY, "format": NASTY}),
        metrics={NASTY: MetricResult(key=NASTY, value=1.0, unit=NASTY, status=NASTY)},
        maps={NASTY: FieldMap(values=np.ones(grid.shape), grid=grid, unit=NASTY, label=NASTY)},
        structures={NASTY: {NASTY: {"reference": 1.0, "evaluated": 2.0}}},
        dvh_curves={NASTY: dict.fromkeys(("dose_gy", "reference", "evaluated"), np.arange(3.0))},
        settings={NASTY: NASTY},
        provenance={NASTY: [NASTY]},
        warnings=(NASTY,),
    )
    html = render_report(result)
    page = Tags(html)
    assert page.open == []
    assert page.tags.count("script") == 2
    assert "img" not in page.tags
    assert embedded(html)["dvh"][0]["name"] == NASTY


@settings(max_examples=40, deadline=None)
@given(
    st.recursive(
        st.text() | st.integers() | st.none(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_json_in_a_script_reads_back_and_cannot_end_it(data):
    text = script_json(data)
    assert json.loads(text) == data
    assert not set(text) & set("<>&\u2028\u2029")


def test_folders_never_reach_the_page(small):
    result = replace(
        small,
        reference=replace(
            small.reference, source={"file": "/data/Doe^Jane/rd.dcm"}, identifiers={"PatientName": "Doe^Jane"}
        ),
        evaluated=replace(small.evaluated, source={"file": "C:\\patients\\Doe^Jane\\mc.mhd"}),
        settings={
            "structures": "/data/Doe^Jane/rs.dcm",
            "batches": ["/data/Doe Jane/b1.mhd", Path("/Doe/b2.mhd")],
            "gamma": "3/3,2/2",
        },
        provenance={"command": "dosemover compare /data/Doe^Jane/rd.dcm runs/x.mhd --gamma 3/3"},
        warnings=("read /data/Doe^Jane/rd.dcm twice; Gy/history, 3 %/3 mm",),
        metrics={"emd_mm": MetricResult(key="emd_mm", value=None, status="no room in /home/Doe^Jane/tmp")},
    )
    html = render_report(result)
    assert "Doe" not in html
    text = Tags(html).text
    assert "rd.dcm" in text
    assert "mc.mhd" in text
    assert "Gy/history, 3 %/3 mm" in text
    assert "3/3,2/2" in text


def test_identifiers_appear_when_asked_for(small):
    reference = replace(small.reference, identifiers={"PatientName": "Doe^Jane"})
    assert "Doe^Jane" not in render_report(replace(small, reference=reference))
    assert "Doe^Jane" in render_report(replace(small, reference=reference, identifiers=True))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("gamma 3 %/3 mm", "gamma 3 %/3 mm"),
        ("evaluated / reference", "evaluated / reference"),
        ("Gy/history in g/cm3", "Gy/history in g/cm3"),
        ("</b>", "</b>"),
        ("~/doe/rd.dcm", "rd.dcm"),
        ("runs/doe/b.nii.gz", "b.nii.gz"),
        ("C:\\Doe\\rd.dcm", "rd.dcm"),
        ("read '/x/doe/a.dcm' and ../doe/b.dcm", "read 'a.dcm' and b.dcm"),
    ],
)
def test_paths_are_cut_and_other_slashes_are_not(text, expected):
    assert public_text(text) == expected


def test_a_setting_that_is_a_path_is_cut_even_with_spaces():
    assert public_value("/data/John Doe/rd.dcm") == "rd.dcm"
    assert public_value("runs/John Doe/rd.dcm") == "rd.dcm"
    assert public_value("3/3,2/2") == "3/3,2/2"


def test_settings_are_rows_of_words_and_never_json():
    settings = CompareSettings(normalization="both", gamma=((3.0, 3.0), (1.5, 1.0))).to_dict()
    rows = dict(key_values(settings | {"inputs": {"structures": "2 from rs.dcm"}}, identifiers=False))
    assert rows["Gamma criteria"] == "3 %/3 mm, 1.5 %/1 mm"
    assert rows["Dose threshold"] == "10 %"
    assert rows["Prescription"] == "not given: percentages refer to the reference maximum"
    assert rows["Exchange of movement and change"] == "1 mm per 1 %"
    assert rows["Profiles over the scale"] == "no"
    assert rows["Inputs: structures"] == "2 from rs.dcm"
    assert not set("".join(rows.values())) & set('[]{}"')


def test_a_number_stays_on_the_line_of_its_power_and_its_unit():
    assert " " not in unbroken("4.85 × 10⁻¹¹ Gy")


def test_rows_of_one_kind_keep_the_order_of_the_result(small):
    rows = [row["key"] for group in metric_groups(small) for row in group["rows"]]
    rates = [key for key in small.metrics if key.endswith("_passing_rate_percent") and key in rows]
    assert [key for key in rows if key in rates and key.startswith("gamma_")] == [
        key for key in rates if key.startswith("gamma_")
    ]


def test_bounds_that_meet_read_exact():
    metric = MetricResult(key="axis_w2_mm", value=0.25, unit="mm", lower=0.25, upper=0.25)
    assert verdict_rows(make_result(**SMALL, metrics={"axis_w2_mm": metric}))[0]["interval"] == "exact"


def test_numbers_read_as_people_write_them():
    assert [number(v) for v in (1234567.0, 1.2e-5, -0.5, 0.0, float("nan"))] == [
        "1.23 × 10⁶",
        "1.20 × 10⁻⁵",
        "−0.500",
        "0",
        "–",
    ]
    assert percent(99.9999) == "99.99"
    assert [p_value(p) for p in (0.0004, 0.04, 0.5, None)] == ["p < 0.001", "p = 0.040", "p = 0.50", "–"]


def test_one_reason_for_every_missing_floor_stands_once():
    reason = "no floor: neither map says how noisy it is"
    metrics = {
        key: MetricResult(key=key, value=1.0, unit="mm", settings={"significance": reason})
        for key in ("w1_mm", "w2_mm")
    }
    html = render_report(make_result(**SMALL, uncertainty=False, metrics=metrics))
    assert html.count("neither map says how noisy it is") == 1
    mixed = metrics | {"w1_mm": MetricResult(key="w1_mm", value=1.0, unit="mm", floor=0.5, z=3.0)}
    rows = {row["key"]: row for row in verdict_rows(make_result(**SMALL, metrics=mixed))}
    assert rows["w2_mm"]["evidence"] == "neither map says how noisy it is"
    assert rows["w1_mm"]["evidence"] == "z = 3.00"


def test_volume_outside_the_grid_has_a_column_where_there_is_some(small):
    def columns(outside):
        values = {"outside_cc": {"reference": outside, "evaluated": 0.0}}
        return dvh_table(replace(small, structures={"PTV": values}))["columns"]

    assert columns(0.0) == []
    assert columns(1.5) == ["outside / cm³"]


def test_the_median_stands_once_in_the_dvh_table(small):
    values = {
        "median_gy": {"reference": 1.0, "evaluated": 2.0},
        "d50_gy": {"reference": 1.0, "evaluated": 2.0},
    }
    assert dvh_table(replace(small, structures={"PTV": values}))["columns"] == ["D50 / Gy"]


def test_a_dvh_cell_without_value_shows_a_dash(small):
    table = dvh_table(small)
    assert "D0.03cc / Gy" in table["columns"]
    assert table["rows"][0]["cells"][table["columns"].index("D0.03cc / Gy")]["difference"] == "–"
    assert [dvh_name(k) for k in ("p95_gy", "d95_gy", "v20gy_percent", "geud_gy")] == [
        "95th percentile / Gy",
        "D95 / Gy",
        "V20Gy / %",
        "geud / Gy",
    ]


def test_regions_get_a_table(small):
    regions = {"whole map": {"n_voxels": 1680, "rmse_gy": 0.5}, "PTV <1>": {"rmse_gy": 0.7, "status": "ok"}}
    text = Tags(render_report(replace(small, regions=regions))).text
    assert "1 680" in text
    assert "PTV <1>" in text
    assert "RMSE / Gy" in text


def decode(packed, n):
    """Undo `encode` as the page does it."""
    raw = np.frombuffer(zlib.decompress(base64.b64decode(packed["data"]), -15), np.uint8).astype(np.uint16)
    codes = np.cumsum(raw[:n] + 256 * raw[n:], dtype=np.uint16)
    return np.where(codes == NOT_A_NUMBER, np.nan, packed["low"] + packed["step"] * codes)


@given(st.lists(st.floats(-5, 5) | st.just(float("nan")), min_size=1, max_size=60))
def test_quantised_values_come_back_within_half_a_step(values):
    array = np.array(values)
    got = decode(encode(array, low=-5.0, high=5.0, levels=1000), array.size)
    np.testing.assert_array_equal(np.isnan(got), np.isnan(array))
    np.testing.assert_allclose(got, array, atol=0.00501)


def test_zero_is_exact_in_a_symmetric_range():
    assert decode(encode(np.zeros(3), low=-1.7, high=1.7, levels=1022), 3) == pytest.approx(
        [0, 0, 0], abs=1e-12
    )


@given(st.tuples(*[st.integers(1, 40)] * 3), st.integers(1, 4000))
def test_blocks_leave_no_more_voxels_than_asked_for(shape, voxels):
    grid = Grid.regular(shape=shape, spacing_mm=(1.0, 1.0, 3.0))
    factors = factors_for(grid, voxels)
    coarse = coarse_grid(grid, factors)
    assert coarse.n_voxels <= max(voxels, 1)
    assert coarse.box_mm == grid.box_mm


def test_block_means_weigh_by_volume_and_extremes_keep_their_sign():
    grid = Grid(x_edges_mm=[0, 1, 3, 4, 6, 7], y_edges_mm=[0, 1, 2], z_edges_mm=[0, 1])
    values = np.arange(10.0).reshape(grid.shape)
    mean = coarsen(values, grid, (1, 2, 2), "mean")
    assert coarse_grid(grid, (1, 2, 2)).shape == (1, 1, 3)
    np.testing.assert_allclose(
        mean[0, 0], [(0 + 2 * 1 + 5 + 2 * 6) / 6, (2 + 2 * 3 + 7 + 2 * 8) / 6, (4 + 9) / 2]
    )
    signed = coarsen(np.where(values == 6, -20.0, values), grid, (1, 2, 2), "extreme")
    np.testing.assert_allclose(signed[0, 0], [-20, 8, 9])
    holes = coarsen(np.where(values > 4, np.nan, values), grid, (1, 2, 2), "mean")
    np.testing.assert_allclose(holes[0, 0], [2 / 3, 8 / 3, 4])


def test_large_maps_are_downsampled_and_the_page_says_so():
    result = make_result(shape=(40, 60, 60), spacing_mm=(2.0, 2.0, 3.0), n_structures=0)
    packed = volumes(result, page_bytes=300_000)
    assert sum(len(layer["data"]) for layer in packed["layers"]) <= 300_000
    assert packed["factors"]["x"] > 1
    assert packed["axes"]["edges"]["x"][0] == pytest.approx(result.reference.grid.x_edges_mm[0])
    assert packed["axes"]["edges"]["x"][-1] == pytest.approx(result.reference.grid.x_edges_mm[-1])


@pytest.mark.slow
def test_a_page_of_thirteen_million_voxels_stays_below_eight_megabytes(tmp_path):
    result = make_result(shape=(200, 256, 256), spacing_mm=(2.0, 2.0, 2.0), n_structures=2)
    path = write_report(result, tmp_path / "large.html")
    assert path.stat().st_size < 8e6
    assert "Downsampled for this page" in path.read_text(encoding="utf-8")


def test_small_maps_are_shown_voxel_by_voxel(small, html):
    assert page_data(small)["volumes"]["factors"] == {"x": 1, "y": 1, "z": 1}
    assert "Downsampled" not in html


def test_values_off_the_middle_of_their_voxels_stay_there():
    grid = Grid.from_centers(x_mm=[0, 2, 10, 11], y_mm=[0.0, 3.0, 6.0], z_mm=[0.0, 4.0])
    axes = volumes(make_result(grid=grid, n_structures=0))["axes"]
    assert axes["centers"]["x"] == [0, 2, 10, 11]
    assert axes["edges"]["x"] == [-1, 1, 6, 10.5, 11.5]


def test_maps_on_another_grid_are_brought_to_the_reference():
    small = make_result(**SMALL)
    other = Grid.regular(shape=(5, 6, 7), spacing_mm=(20.0, 20.0, 24.0), origin_mm=(-60.0, -50.0, -48.0))
    field = FieldMap(
        values=np.where(np.arange(210).reshape(other.shape) > 100, 2.0, np.nan),
        grid=other,
        unit="",
        label="g",
    )
    packed = volumes(replace(small, maps={"gamma_3_3_global": field}))
    layer = next(entry for entry in packed["layers"] if entry["key"] == "gamma_3_3_global")
    got = decode(layer, small.reference.grid.n_voxels)
    assert np.isnan(got).any()
    np.testing.assert_allclose(got[np.isfinite(got)], 2.0, atol=0.01)


@pytest.mark.parametrize(
    ("shape", "spacing"), [((9, 11), (3.0, 3.0)), ((20,), (2.0,)), ((1, 1, 1), (2.0, 2.0, 2.0))]
)
def test_flat_and_tiny_maps_have_a_report(shape, spacing, tmp_path):
    result = make_result(shape=shape, spacing_mm=spacing, uncertainty=False, dose_mover=False, n_structures=0)
    page = Tags(write_report(result, tmp_path / "flat.html").read_text(encoding="utf-8"))
    assert page.open == []
    assert ("slices" in page.ids) == (len(shape) == 2)
    assert ("profile-x" in page.ids) or shape == (1, 1, 1)


def test_a_result_with_nothing_but_two_doses_has_a_report(tmp_path):
    dose = DoseMap.from_array(np.zeros((3, 4, 5)), spacing_mm=(1.0, 1.0, 1.0))
    page = Tags(
        write_report(
            ComparisonResult(reference=dose, evaluated=dose, metrics={}), tmp_path / "a.html"
        ).read_text()
    )
    assert page.open == []


def test_the_result_writes_its_own_report(small, tmp_path):
    path = small.report(tmp_path / "r.html")
    assert path.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert [p.name for p in tmp_path.iterdir()] == ["r.html"]


def test_a_report_needs_a_folder_that_exists(small, tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        write_report(small, tmp_path / "no" / "r.html")
    with pytest.raises(InputError, match="is a directory"):
        write_report(small, tmp_path)


def test_a_disk_that_refuses_leaves_the_old_report(small, tmp_path, monkeypatch):
    (tmp_path / "r.html").write_text("old")

    def refuse(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", refuse)
    with pytest.raises(InputError, match="No space left on device"):
        write_report(small, tmp_path / "r.html")
    assert [p.name for p in tmp_path.iterdir()] == ["r.html"]
    assert (tmp_path / "r.html").read_text() == "old"


def test_citations_follow_the_metrics():
    assert {ref.key for ref in citations(["gamma_3_3_global_mean"])} == {
        "low1998",
        "ju2008",
        "miften2018",
        "graves2013",
    }
    assert citations(["rmse_gy"]) == []
    assert len({ref.key for ref in REFERENCES}) == len(REFERENCES)
    assert "@article{low1998," in REFERENCES[[r.key for r in REFERENCES].index("low1998")].bibtex


def test_templates_and_assets_come_with_the_package():
    folder = resources.files("dosemover.report")
    assert folder.joinpath("templates", "report.html.j2").is_file()
    for name in (
        "report.css",
        "inflate.js",
        "volume.js",
        "charts.js",
        "viewer.js",
        "page.js",
        "colormaps.json",
    ):
        assert folder.joinpath("assets", name).is_file(), name


def test_colour_tables_are_those_of_matplotlib():
    from matplotlib import colormaps

    tables = json.loads(resources.files("dosemover.report").joinpath("assets", "colormaps.json").read_text())
    t = np.linspace(0, 1, 256)
    for name, source in (("dose", "inferno"), ("sequential", "viridis"), ("diverging", "berlin")):
        if source in colormaps:
            ours = np.frombuffer(base64.b64decode(tables[name]), np.uint8).reshape(256, 3)
            np.testing.assert_allclose(ours, 255 * colormaps[source](t)[:, :3], atol=1)


def test_importing_the_report_loads_no_plotting():
    code = "import sys, dosemover.report; print('matplotlib' in sys.modules, 'jinja2' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_masks_are_outlined_and_not_offered_as_maps(small):
    found = {layer.key: layer for layer in layers(with_masks(small))}
    assert found["low_sampling_mask"].kind == found["significant_mask"].kind == "outline"
    assert found["difference_gy"].kind == "diverging"


def test_the_volume_of_every_outlined_region_is_listed(small):
    result = with_masks(small)
    rows = {row["key"]: row for row in where_table(result)}
    assert set(rows) == {"low_sampling_mask", "significant_mask"}
    above = result.reference.dose_gy >= 0.1 * result.reference.max_gy
    share = 100 * np.mean(result.maps["significant_mask"].values[above])
    assert rows["significant_mask"]["above_10"] == f"{share:.1f} %"
    assert "Difference real" in render_report(result)


def test_low_sampling_and_coarse_grids_stand_beside_the_value(small):
    settings = {
        "low_sampling_share_percent": 43.21,
        "null_grid": "2 voxels merged along an axis",
        "null_grid_value": 1.5,
    }
    metrics = {
        key: MetricResult(key=key, value=1.6, unit=unit, floor=0.2, settings=settings)
        for key, unit in (("dmd_mm", "mm"), ("gamma_3_3_global_passing_rate_percent", "%"))
    }
    page = render_report(replace(small, metrics=metrics))
    assert "43.2 % of it from low sampling" in page
    assert "43.2 % of the failures from low sampling" in page
    assert "drawn with 2 voxels merged along an axis, where the value is 1.50 mm" in page
    assert "About 1.6 times as many histories" in page


def test_floor_and_spread_share_their_decimals_and_ratios_keep_theirs(small):
    ratio = MetricResult(key="mass_ratio", value=1.00476, floor=1.0, floor_sd=0.00055)
    rate = MetricResult(
        key="gamma_3_3_global_passing_rate_percent", value=99.44, unit="%", floor=99.2, floor_sd=0.074
    )
    result = replace(small, metrics={one.key: one for one in (ratio, rate)})
    rows = {row["key"]: row for row in verdict_rows(result)}
    assert (rows[ratio.key]["value"], rows[ratio.key]["floor"]) == ("1.005", "1.0000 ± 0.0006")
    assert rows[rate.key]["floor"] == unbroken("99.20 ± 0.07 %")
