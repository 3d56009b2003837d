"""The report in a real headless browser: it is used as a reader would, and watched."""

import base64
import json
import zlib
from dataclasses import replace

import numpy as np
import pytest

import dosemover as dm
from browser import Browser, find_browser
from dosemover.comparison.result import FieldMap
from dosemover.grid import Grid
from dosemover.report import write_report
from dosemover.report.volumes import layers, volumes
from report_cases import make_result, with_masks

pytestmark = pytest.mark.browser

CANVAS = "[data-plane=axial] canvas"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    pytest.importorskip("websocket", reason="the package websocket-client is not installed")
    executable = find_browser()
    if executable is None:
        pytest.skip("no Chromium, Chrome, Edge or Brave found (DOSEMOVER_BROWSER may name one)")
    with Browser(executable, tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture(scope="module")
def result():
    return make_result(
        shape=(20, 26, 30), spacing_mm=(5.0, 5.0, 6.0), warnings=("</script><b>not markup</b>",)
    )


@pytest.fixture(scope="module")
def path(result, tmp_path_factory):
    return write_report(result, tmp_path_factory.mktemp("report") / "report.html")


@pytest.fixture
def page(browser, path):
    browser.problems.clear()
    browser.requests.clear()
    browser.size(1280, 900)
    browser.open(path)
    yield browser
    assert browser.problems == []
    foreign = [url for url in browser.requests if not url.startswith(("file:", "data:", "blob:"))]
    assert foreign == []


def picture(page, selector=CANVAS):
    return page.js(f"document.querySelector('{selector}').toDataURL()")


def readout(page):
    return page.js("document.querySelector('#readout').innerText")


def test_the_page_asks_the_network_for_nothing(page, path):
    assert page.requests[0] == path.resolve().as_uri()
    page.js("window.scrollTo(0, document.body.scrollHeight)")
    page.frame()


def test_arrow_and_page_keys_move_the_focused_slice(page):
    page.js(f"document.querySelector('{CANVAS}').focus()")
    start, before, values = page.js("doseReport.viewer.voxel.z"), picture(page), readout(page)
    page.press("ArrowUp")
    assert page.js("doseReport.viewer.voxel.z") == start + 1
    assert picture(page) != before
    assert readout(page) != values
    page.press("ArrowDown")
    assert page.js("doseReport.viewer.voxel.z") == start
    page.press("Home")
    page.press("PageUp")
    assert page.js("doseReport.viewer.voxel.z") == 10
    page.press("PageDown")
    assert page.js("doseReport.viewer.voxel.z") == 0


def test_a_slice_in_focus_shows_it(page):
    page.js(f"document.querySelector('{CANVAS}').focus()")
    page.press("ArrowUp")  # keyboard use makes the focus visible
    assert page.js(f"getComputedStyle(document.querySelector('{CANVAS}')).outlineStyle") == "solid"


def test_the_slider_moves_its_slice(page):
    slider = "[data-plane=coronal] input[type=range]"
    page.js(f"document.querySelector('{slider}').focus()")
    start, before = page.js("doseReport.viewer.voxel.y"), picture(page, "[data-plane=coronal] canvas")
    page.press("ArrowRight")
    assert page.js("doseReport.viewer.voxel.y") == start + 1
    assert picture(page, "[data-plane=coronal] canvas") != before
    assert page.js("document.querySelector('[data-plane=coronal] output').innerText").startswith("y = ")


def test_a_click_moves_the_crosshair_to_the_place_in_mm(page):
    page.click(CANVAS, across=0.25, down=0.75)
    place = page.js("[['x', 0.25], ['y', 0.75]].map(p => doseReport.viewer.voxelAt(...p))")
    assert page.js("[doseReport.viewer.voxel.x, doseReport.viewer.voxel.y]") == place
    assert "x −" in page.js("document.querySelector('#position').innerText")


def test_every_layer_can_be_shown(page):
    keys = page.js("doseReport.viewer.layers.map(layer => layer.key)")
    assert {
        "reference",
        "evaluated",
        "difference_gy",
        "gamma_3_3_global",
        "z",
        "change_percent",
        "dmd_index_mm",
    } <= set(keys)
    seen = {}
    for key in keys:
        page.js(f"document.querySelector('[data-layer=\"{key}\"]').click()")
        page.frame()
        seen[key] = picture(page), page.js("document.querySelector('#colorbar .title').innerText")
    assert len({title for _, title in seen.values()}) == len(keys)
    assert len({image for image, _ in seen.values()}) == len(keys)
    assert seen["reference"][1] == "Reference / Gy"


def test_overlays_change_the_picture(page):
    for option in page.js(
        "Array.from(document.querySelectorAll('#overlays input'), box => box.dataset.option)"
    ):
        before = picture(page)
        page.js(f"document.querySelector('[data-option={option}]').click()")
        page.frame()
        assert picture(page) != before, f"{option} draws nothing"


def test_structures_can_be_switched_off_in_the_dvh(page):
    lines = "document.querySelectorAll('#dvh-chart path').length"
    before = page.js(lines)
    page.click("#dvh-structures input")
    assert page.js(lines) == before - 2


def test_the_crosshair_jumps_to_the_reference_maximum(page, result):
    page.click("#marks button")
    z, y, x = np.unravel_index(int(np.argmax(result.reference.dose_gy)), result.reference.grid.shape)
    assert page.js("doseReport.viewer.voxel") == {"x": x, "y": y, "z": z}
    shown = page.js("document.querySelector('[data-value=reference]').innerText")
    assert float(shown.split()[0]) == pytest.approx(result.reference.max_gy, rel=5e-3)


def test_the_theme_button_goes_round(page):
    themes = []
    for _ in range(3):
        page.click("#theme")
        themes.append(page.js("document.documentElement.dataset.theme || 'auto'"))
    assert themes == ["light", "dark", "auto"]


def test_file_names_and_warnings_stay_text(page):
    assert page.js("document.querySelectorAll('.warnings b').length") == 0
    assert "</script><b>not markup</b>" in page.js("document.querySelector('.warnings').innerText")


def test_a_phone_scrolls_in_one_direction_only(page):
    page.size(390, 844, phone=True)
    page.frame()
    assert page.js("document.documentElement.scrollWidth") <= 390
    assert page.js(
        "doseReport.viewer.planes.every(plane => plane.canvas.getBoundingClientRect().right <= 390)"
    )


def test_the_page_decodes_what_python_encoded(page, result):
    grid = result.reference.grid
    packed = {entry["key"]: entry for entry in volumes(result)["layers"]}
    for layer in layers(result):
        slices = f"k => Array.from(doseReport.viewer.byKey[{json.dumps(layer.key)}].slice('x', 'y', 'z', k))"
        values = f"Array.from({{length: {grid.shape[0]}}}, (_, k) => ({slices})(k)).flat()"
        got = page.js(f"{values}.map(v => Number.isNaN(v) ? null : v)")
        got = np.array([np.nan if v is None else v for v in got]).reshape(grid.shape)
        step = packed[layer.key]["step"]
        inside = np.abs(layer.values) <= np.nanmax(np.abs(got))
        np.testing.assert_array_equal(np.isnan(got), np.isnan(layer.values))
        np.testing.assert_allclose(got[inside], layer.values[inside], atol=0.51 * step, err_msg=layer.key)


@pytest.mark.parametrize(
    ("level", "strategy"), [(0, zlib.Z_DEFAULT_STRATEGY), (6, zlib.Z_FIXED), (9, zlib.Z_DEFAULT_STRATEGY)]
)
def test_inflate_undoes_every_kind_of_deflate_block(page, level, strategy):
    rng = np.random.default_rng(1)
    data = np.concatenate(
        [rng.integers(0, 256, 70_000), np.repeat(rng.integers(0, 4, 500), 400), rng.integers(0, 9, 9000)]
    )
    data = data.astype(np.uint8).tobytes()
    deflater = zlib.compressobj(level, zlib.DEFLATED, -15, 9, strategy)
    packed = base64.b64encode(deflater.compress(data) + deflater.flush()).decode()
    # checked by a position-dependent sum: the bytes themselves would be slow to bring back
    add = "(sum, byte, i) => (sum + byte * (i % 8191 + 1)) % 4294967291"
    got = page.js(f"inflate(decodeBase64('{packed}'), {len(data)}).reduce({add}, 0)")
    values = np.frombuffer(data, np.uint8).astype(np.int64)
    assert got == int(np.sum(values * (np.arange(values.size) % 8191 + 1))) % 4294967291


def test_uneven_voxels_keep_their_shape_in_mm(browser, tmp_path):
    x = np.concatenate([np.arange(-60, 0, 2.0), np.arange(0, 121, 8.0)])
    grid = Grid(x_edges_mm=x, y_edges_mm=np.arange(-40.0, 41, 5), z_edges_mm=np.arange(0.0, 31, 3))
    browser.problems.clear()
    browser.size(1280, 900)
    browser.open(write_report(make_result(grid=grid), tmp_path / "uneven.html"))
    browser.click("[data-option=whole]")
    box = browser.js(f"(c => [c.clientWidth, c.clientHeight])(document.querySelector('{CANVAS}'))")
    assert box[0] / box[1] == pytest.approx(180 / 80, rel=0.01)
    # half of the picture's width is 30 mm right of the left edge plus 90 mm: the position 30 mm
    browser.click(CANVAS, across=0.5)
    index = int(np.searchsorted(x, 30.0, side="right") - 1)
    assert browser.js("doseReport.viewer.voxel.x") == index
    assert browser.problems == []


@pytest.mark.parametrize(("shape", "spacing", "n_planes"), [((24, 30), (2.0, 2.0), 1), ((50,), (2.0,), 0)])
def test_slices_and_lines_have_reports_too(browser, tmp_path, shape, spacing, n_planes):
    browser.problems.clear()
    browser.size(1280, 900)
    flat = make_result(shape=shape, spacing_mm=spacing, uncertainty=False, dose_mover=False, n_structures=0)
    browser.open(write_report(flat, tmp_path / "flat.html"))
    assert browser.js("document.querySelectorAll('[data-plane]').length") == n_planes
    assert browser.js("document.querySelectorAll('#profiles path.evaluated').length") == len(shape)
    assert browser.problems == []


def test_regions_are_outlined_and_what_is_not_real_is_dimmed(browser, tmp_path, result):
    browser.problems.clear()
    browser.size(1280, 900)
    browser.open(write_report(with_masks(result), tmp_path / "masks.html"))
    assert browser.js("document.querySelector('[data-option=low_sampling_mask]').checked")
    browser.js("document.querySelector('[data-layer=difference_gy]').click()")
    browser.frame()
    assert browser.js("document.querySelector('[data-option=significant_mask]').checked")
    seen = {picture(browser)}
    for option in ("significant_mask", "low_sampling_mask", "real"):
        browser.js(f"document.querySelector('[data-option={option}]').click()")
        browser.frame()
        seen.add(picture(browser))
    assert len(seen) == 4
    assert browser.problems == []


def test_doses_per_history_are_drawn_in_a_power_of_ten_of_the_unit(browser, tmp_path, result):
    browser.problems.clear()
    browser.size(1280, 900)
    tiny = dm.compare(
        result.reference.scaled(1e-13), result.evaluated.scaled(1e-13), metrics=["dvh", "mae_gy"]
    )
    browser.open(write_report(tiny, tmp_path / "tiny.html"))
    labels = browser.js(
        "[...document.querySelectorAll('#profiles .axis, #dvh .axis')].map((t) => t.textContent)"
    )
    assert labels.count("dose / 10⁻¹² Gy") == 4
    apart = """[...document.querySelectorAll('svg.chart')].every((svg) => {
      const label = svg.querySelectorAll('.axis')[1].getBoundingClientRect();
      const ticks = [...svg.querySelectorAll('.tick.end')];
      return ticks.every((t) => t.getBoundingClientRect().left >= label.right);
    })"""
    assert browser.js(apart)
    assert browser.js("document.querySelector('#colorbar .title').textContent") == "Reference / 10⁻¹² Gy"
    assert browser.js("doseReport.viewer.byKey.difference_gy.at(doseReport.viewer.voxel) !== 0")
    assert browser.problems == []


def test_contours_are_whole_lines_and_specks_of_low_sampling_are_left_out(browser, tmp_path, result):
    browser.problems.clear()
    browser.size(1280, 900)
    masked = with_masks(result)
    field = masked.maps["low_sampling_mask"]
    specks = np.array(field.values)
    specks[::5, ::5, 20::5] = 1  # single voxels, all over the half that is well sampled
    layer = FieldMap(values=specks, grid=field.grid, unit="", label=field.label)
    specked = replace(masked, maps={**masked.maps, "low_sampling_mask": layer})
    browser.open(write_report(specked, tmp_path / "specks.html"))
    assert (
        browser.js("joined([[[0, 0], [1, 0]], [[1, 1], [0, 0]], [[1, 0], [1, 1]], [[5, 5], [6, 5]]]).length")
        == 2
    )
    assert browser.js("enclosed([[0, 0], [2, 0], [2, 2], [0, 2], [0, 0]])") == 4
    assert browser.js("enclosed([[0, 0], [30, 0]])") == 100  # a line across the slice is no speck
    drawn = """(() => {
      const plane = doseReport.viewer.planes[0];
      return plane.large(plane.lines(doseReport.viewer.byKey.low_sampling_mask, 0.5)).length;
    })()"""
    assert browser.js(drawn) == 1
    assert browser.problems == []
