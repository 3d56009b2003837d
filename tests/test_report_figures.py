"""Matplotlib figures of a comparison: what they draw and that they leave the session alone."""

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pytest
from matplotlib import pyplot as plt

import dosemover as dm
from dosemover import report
from dosemover.errors import InputError
from report_cases import make_result


@pytest.fixture(scope="module")
def result():
    return make_result(shape=(14, 18, 20), spacing_mm=(8.0, 8.0, 9.0))


@pytest.fixture
def ax():
    figure, axes = plt.subplots()
    yield axes
    plt.close(figure)


PLOTS = {
    "plot_slices": report.plot_slices,
    "plot_gamma": report.plot_gamma,
    "plot_displacement": report.plot_displacement,
    "plot_profiles": report.plot_profiles,
    "plot_dvh": report.plot_dvh,
    "plot_z_histogram": report.plot_z_histogram,
    "plot_scale_profiles": report.plot_scale_profiles,
}


@pytest.mark.parametrize("name", PLOTS)
def test_figures_draw_into_the_axes_given_and_change_no_settings(result, ax, name, monkeypatch):
    monkeypatch.setattr(plt, "show", lambda *a, **k: pytest.fail("show was called"))
    before = dict(matplotlib.rcParams)
    figures = plt.get_fignums()
    assert PLOTS[name](result, ax=ax) is ax
    assert dict(matplotlib.rcParams) == before
    assert plt.get_fignums() == figures
    assert ax.has_data()
    ax.figure.canvas.draw()


def test_figures_make_their_own_axes(result):
    axes = report.plot_profiles(result)
    assert axes.get_xlabel() == "x / mm"
    assert axes.get_ylabel() == "dose / Gy"
    plt.close(axes.figure)


def test_slices_are_drawn_in_mm_with_symmetric_limits(result, ax):
    report.plot_slices(result, key="difference_gy", plane="coronal", ax=ax)
    mesh = ax.collections[0]
    low, high = mesh.get_clim()
    assert low == -high
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("x / mm", "z / mm")
    assert ax.get_aspect() == 1
    box = result.reference.grid.box_mm
    assert mesh.get_coordinates()[..., 0].min() == pytest.approx(box[2][0])
    assert mesh.get_coordinates()[..., 1].max() == pytest.approx(box[0][1])


@pytest.mark.parametrize(("plane", "axes"), [("axial", (1, 2)), ("coronal", (0, 2)), ("sagittal", (0, 1))])
def test_a_slice_holds_the_voxels_of_its_plane(result, ax, plane, axes):
    report.plot_slices(result, key="reference", plane=plane, ax=ax)
    dose = result.reference.dose_gy
    index = np.unravel_index(int(dose.argmax()), dose.shape)
    normal = ({0, 1, 2} - set(axes)).pop()
    np.testing.assert_allclose(
        ax.collections[0].get_array().reshape(dose.take(0, normal).shape), dose.take(index[normal], normal)
    )


def test_gamma_breaks_at_one(result, ax):
    report.plot_gamma(result, ax=ax)
    mesh = ax.collections[0]
    below, above = mesh.cmap(mesh.norm(0.99)), mesh.cmap(mesh.norm(1.01))
    assert below[2] > below[0]  # bluish passes
    assert above[0] > above[2]  # reddish fails


def test_arrows_point_where_the_dose_moved(result, ax):
    report.plot_displacement(result, ax=ax)
    arrows = next(c for c in ax.collections if hasattr(c, "U"))
    assert arrows.U.mean() == pytest.approx(1.0, abs=0.1)
    assert abs(arrows.V.mean()) < 0.1


def test_a_1_d_map_has_a_profile_but_no_slice(ax):
    line = make_result(shape=(40,), spacing_mm=(3.0,), uncertainty=False, dose_mover=False, n_structures=0)
    report.plot_profiles(line, ax=ax)
    with pytest.raises(InputError, match="one dimension"):
        report.plot_slices(line, ax=ax)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda r, ax: report.plot_slices(r, key="nothing", ax=ax), "holds no map 'nothing'"),
        (lambda r, ax: report.plot_slices(r, key="displacement_mm", ax=ax), "holds vectors"),
        (lambda r, ax: report.plot_slices(r, plane="oblique", ax=ax), "`plane` must be one of"),
        (lambda r, ax: report.plot_displacement(r, key="z", ax=ax), "holds no vectors"),
        (lambda r, ax: report.plot_profiles(r, axis="t", ax=ax), "`axis` must be x, y or z"),
        (lambda r, ax: report.plot_profiles(r, point_mm=(1.0, 2.0), ax=ax), "must be \\(x, y, z\\)"),
        (lambda r, ax: report.plot_dvh(r, structures=["Heart"], ax=ax), "no DVH of Heart"),
        (lambda r, ax: report.plot_scale_profiles(r, key="w2_mm", ax=ax), "no profile 'w2_mm'"),
    ],
)
def test_what_cannot_be_drawn_is_said(result, ax, call, message):
    with pytest.raises(InputError, match=message):
        call(result, ax)


def test_doses_per_history_are_shown_in_a_power_of_ten_of_the_unit(result, ax):
    tiny = dm.compare(
        result.reference.scaled(1e-13), result.evaluated.scaled(1e-13), metrics=["dvh", "mae_gy"]
    )
    report.plot_profiles(tiny, ax=ax)
    assert ax.get_ylabel() == "dose / $10^{-12}$ Gy"
    ax.figure.canvas.draw()
    texts = [text.get_text() for text in ax.get_yticklabels()]
    assert all(len(text) < 5 for text in texts)
    np.testing.assert_allclose([float(t) * 1e-12 for t in texts], ax.get_yticks(), rtol=1e-6)
    histogram = report.plot_dvh(tiny)
    bar = report.plot_slices(tiny).figure.axes[-1]
    assert histogram.get_xlabel() == "dose / $10^{-12}$ Gy"
    assert bar.get_ylabel() == "evaluated - reference / $10^{-15}$ Gy"
    plt.close("all")
