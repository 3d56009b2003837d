"""TOPAS scorers: bins, statistics, the uncertainty of a sum, and broken tables."""

from __future__ import annotations

import numpy as np
import pytest

from dosemover.errors import DataFormatError, InputError
from dosemover.io import read_dose

HEADER = """# TOPAS Version: 3.9
# Parameter File: a.txt
# Results for scorer Dose
# Scored in component: Phantom
# X in 2 bins of 0.1 cm
# Y in 1 bin  of 5 mm
# Z in 3 bins of 0.2 cm
# DoseToMedium ( Gy ) : {}
"""


def table(folder, statistics="Sum", rows=None, header=HEADER, name="a.csv"):
    """A CSV file; by default the value of bin (i, j, k) is 1 + i + 10 k."""
    n = len(statistics.split())
    rows = rows or [[i, 0, k, *[1 + i + 10 * k] * n] for i in range(2) for k in range(3)]
    (folder / name).write_text(
        header.format(statistics) + "\n".join(", ".join(map(str, r)) for r in rows) + "\n"
    )
    return folder / name


def test_bins_are_placed_by_their_numbers_around_the_centre_of_the_component(tmp_path):
    dose = read_dose(table(tmp_path))
    assert dose.dose_gy[:, 0, :].tolist() == [[1, 2], [11, 12], [21, 22]]
    assert dose.grid.spacing_mm == pytest.approx((1.0, 5.0, 2.0))
    assert np.mean(dose.grid.box_mm, axis=1) == pytest.approx([0, 0, 0], abs=1e-12)
    assert (dose.unit, dose.uncertainty_gy) == ("Gy", None)


def test_rows_may_come_in_any_order(tmp_path):
    rows = [[i, 0, k, 1 + i + 10 * k] for k in (2, 0, 1) for i in (1, 0)]
    assert read_dose(table(tmp_path, rows=rows)).dose_gy[:, 0, 1].tolist() == [2, 12, 22]


N, SD, MEAN = 400.0, 0.03, 0.05


@pytest.mark.parametrize(
    ("statistics", "value", "uncertainty"),
    [  # u(Sum) = sqrt(N) SD, u(Mean) = SD / sqrt(N), by whatever tells N
        ("Sum Histories_with_Scorer_Active Standard_Deviation", N * MEAN, 20 * SD),
        ("Mean Histories_with_Scorer_Active Standard_Deviation", MEAN, SD / 20),
        ("Sum Mean Standard_Deviation", N * MEAN, 20 * SD),
        ("Sum Second_Moment Variance", N * MEAN, 20 * SD),
        ("Sum Standard_Deviation", N * MEAN, None),
        ("Sum Histories_with_Scorer_Active", N * MEAN, None),
    ],
)
def test_the_uncertainty_of_a_sum_is_the_deviation_times_the_root_of_the_histories(
    statistics, value, uncertainty, tmp_path
):
    known = {"Sum": N * MEAN, "Mean": MEAN, "Histories_with_Scorer_Active": N, "Standard_Deviation": SD}
    known |= {"Variance": SD**2, "Second_Moment": SD**2 * (N - 1)}
    rows = [[i, 0, k, *(known[s] for s in statistics.split())] for i in range(2) for k in range(3)]
    dose = read_dose(table(tmp_path, statistics, rows))
    assert dose.dose_gy.flat[0] == pytest.approx(value)
    if uncertainty is None:
        assert dose.uncertainty_gy is None
    else:
        assert np.allclose(dose.uncertainty_gy, uncertainty)
    assert dose.unit == ("Gy" if "Sum" in statistics else "Gy/history")


def test_a_simulated_scorer_confirms_the_uncertainty_of_the_sum():
    rng = np.random.default_rng(1)
    histories = rng.exponential(size=(4000, 200))  # 4000 repetitions of 200 histories
    sums, deviations = histories.sum(axis=1), histories.std(axis=1, ddof=1)
    assert np.mean(np.sqrt(200) * deviations) == pytest.approx(sums.std(ddof=1), rel=0.03)


@pytest.mark.parametrize(("unit", "factor"), [("cGy", 0.01), ("mGy", 0.001)])
def test_other_units_of_dose_become_gray(unit, factor, tmp_path):
    dose = read_dose(table(tmp_path, header=HEADER.replace("Gy", unit)), unit="cgy")
    assert (dose.unit, dose.dose_gy.flat[0]) == ("Gy", pytest.approx(factor))


def test_the_uncertainty_is_in_the_unit_of_the_dose(tmp_path):
    """5 cGy a history with a deviation of 3 cGy: 20 Gy of 400 histories, known to 0.6 Gy."""
    statistics = "Sum Histories_with_Scorer_Active Standard_Deviation"
    rows = [[i, 0, k, 400 * 5.0, 400, 3.0] for i in range(2) for k in range(3)]
    dose = read_dose(table(tmp_path, statistics, rows, header=HEADER.replace("Gy", "cGy")))
    assert dose.dose_gy.flat[0] == pytest.approx(20.0)
    assert dose.uncertainty_gy.flat[0] == pytest.approx(0.6)


@pytest.mark.parametrize(
    ("unit", "factor"), [("m", 1000.0), ("cm", 10.0), ("mm", 1.0), ("um", 1e-3), ("nm", 1e-6)]
)
def test_every_unit_of_length_becomes_millimeters(unit, factor, tmp_path):
    dose = read_dose(table(tmp_path, header=HEADER.replace("0.1 cm", f"0.1 {unit}")))
    assert dose.grid.spacing_mm == pytest.approx((0.1 * factor, 5.0, 2.0))


@pytest.mark.parametrize(("unit", "factor"), [("Gy", 1.0), ("kGy", 1000.0)])
def test_large_units_of_dose_become_gray(unit, factor, tmp_path):
    assert read_dose(table(tmp_path, header=HEADER.replace("Gy", unit))).dose_gy.flat[0] == factor


def test_another_quantity_keeps_its_unit(tmp_path):
    assert read_dose(table(tmp_path, header=HEADER.replace("Gy", "MeV"))).unit == "MeV"


@pytest.mark.parametrize(
    ("old", "new", "error", "match"),
    [
        ("0, 0, 1, 11", "0, 0, one, 11", DataFormatError, "line 10: .0, 0, one, 11. is not 4 numbers"),
        ("0, 0, 1, 11", "0, 0, 1", DataFormatError, r"a.csv: line 10: '0, 0, 1' is not 4 numbers"),
        ("0, 0, 1, 11\n", "", DataFormatError, "holds 5 of 6 bins, 0 of them more than once"),
        ("0, 0, 1, 11", "0, 0, 2, 11", DataFormatError, "holds 5 of 6 bins, 1 of them more than once"),
        ("0, 0, 1, 11", "0, 0, 7, 11", DataFormatError, r"bin \[0.0, 0.0, 7.0\] lies outside of \(2, 1, 3\)"),
        ("# Z in 3 bins of 0.2 cm", "# Z in 3 bins of 0 cm", DataFormatError, "line 7: Z has 3 bins of 0 cm"),
        ("# Z in 3 bins of 0.2 cm", "# Z in 3 bins of 0.2 deg", DataFormatError, "Z bins are given in .deg."),
        ("# X in 2 bins of 0.1 cm", "# R in 2 bins of 0.1 cm", InputError, "scored in bins of R, Y, Z"),
        ("# DoseToMedium ( Gy ) : Sum", "#", DataFormatError, "no line tells the quantity"),
        (": Sum", ": Count_in_Bin", InputError, "neither Sum nor Mean"),
        ("# X in 2 bins", "# X in 20000000000 bins", DataFormatError, r"a.csv declares 4.8e\+11 bytes"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(old, new, error, match, tmp_path):
    path = table(tmp_path)
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(error, match=match):
        read_dose(path)


def test_a_header_without_bins_is_refused(tmp_path):
    (tmp_path / "a.csv").write_text(HEADER.format("Sum"))
    with pytest.raises(DataFormatError, match="holds 0 of 6 bins"):
        read_dose(tmp_path / "a.csv")


def test_a_binary_file_of_another_size_is_refused(tmp_path):
    (tmp_path / "a.binheader").write_text(HEADER.format("Sum Mean"))
    (tmp_path / "a.bin").write_bytes(bytes(90))
    with pytest.raises(DataFormatError, match=r"a.bin has 90 bytes, where \(2, 1, 3\) bins .* take 96"):
        read_dose(tmp_path / "a.bin")


def test_a_binary_file_has_x_fastest_and_its_statistics_together(tmp_path):
    (tmp_path / "a.binheader").write_text(HEADER.format("Sum Count_in_Bin"))
    values = np.array([[1 + i + 10 * k, 7.0] for k in range(3) for i in range(2)])
    values.astype("<f8").tofile(tmp_path / "a.bin")
    for name in ("a.bin", "a.binheader"):
        assert read_dose(tmp_path / name).dose_gy[:, 0, :].tolist() == [[1, 2], [11, 12], [21, 22]]


@pytest.mark.filterwarnings("ignore::SyntaxWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("name", ["Dose.csv", "Dose.bin"])
def test_values_agree_with_topas2numpy(name, data_path):
    topas2numpy = pytest.importorskip("topas2numpy")
    path = data_path(f"topas2numpy/{name}")
    theirs = topas2numpy.BinnedResult(str(path))
    dose = read_dose(path)
    assert np.array_equal(dose.dose_gy, theirs.data["Sum"].transpose(2, 1, 0))
    widths = [10 * d.bin_width for d in theirs.dimensions]
    assert dose.grid.spacing_mm == pytest.approx(tuple(widths))


def test_the_example_of_topas_has_the_uncertainty_that_its_statistics_imply(data_path):
    dose = read_dose(data_path("topas2numpy/Dose.bin"))
    # first bin: 1000 histories, standard deviation 1.48807366e-13 Gy, sum 3.60548313e-10 Gy
    assert dose.dose_gy[0, 0, 0] == pytest.approx(3.60548313e-10, rel=1e-8)
    assert dose.uncertainty_gy[0, 0, 0] == pytest.approx(np.sqrt(1000) * 1.48807366e-13, rel=1e-8)
    assert dose.source["statistic"] == "Sum"
