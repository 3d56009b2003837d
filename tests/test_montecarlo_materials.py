"""Cross sections, materials and phantoms against NIST, other programs and geometry."""

import numpy as np
import pytest

import dosemover.montecarlo as mc
from dosemover.errors import InputError
from dosemover.grid import Grid
from dosemover.montecarlo.materials import elements, material_library, photon_tables
from dosemover.montecarlo.photon_kernels import grid_position


def klein_nishina_transfer(energy_mev):
    """Mean share of the photon's energy that a free electron takes: numerical integral of Klein-Nishina."""
    k = energy_mev / 0.51099895
    cosine = np.linspace(-1, 1, 20001)
    ratio = 1 / (1 + k * (1 - cosine))
    density = ratio**2 * (ratio + 1 / ratio - 1 + cosine**2)
    return np.trapezoid(density * (1 - ratio), cosine) / np.trapezoid(density, cosine)


def test_water_attenuates_as_nist_says(record_validation):
    water = material_library()["water"]
    np.testing.assert_allclose(
        water.attenuation_cm2_per_g([0.1, 1.0, 6.0]), [0.1707, 0.07072, 0.02770], rtol=5e-4
    )
    record_validation(
        "attenuation of water at 0.1, 1, 6 MeV",
        "NIST XCOM",
        reached=float(
            np.abs(water.attenuation_cm2_per_g([0.1, 1.0, 6.0]) / [0.1707, 0.07072, 0.02770] - 1).max()
        ),
        tolerance=5e-4,
        unit="relative",
    )


def test_energy_transfer_of_water_is_near_nist_energy_absorption(record_validation):
    """NIST mu_en/rho (Hubbell & Seltzer 1995); mu_tr is larger by the bremsstrahlung, 3 % at 6 MeV."""
    transfer = material_library()["water"].energy_transfer_cm2_per_g([0.03, 0.1, 1.0, 6.0])
    np.testing.assert_allclose(transfer[:3], [0.1557, 0.02546, 0.03103], rtol=6e-3)
    record_validation(
        "energy transfer of water at 0.03, 0.1, 1 MeV",
        "NIST µ_en/ρ (Hubbell & Seltzer 1995)",
        reached=float(np.abs(transfer[:3] / [0.1557, 0.02546, 0.03103] - 1).max()),
        tolerance=6e-3,
        unit="relative",
    )
    assert 1.0 < transfer[3] / 0.01806 < 1.04


def test_recoil_fraction_of_nearly_free_electrons_is_that_of_klein_nishina(record_validation):
    for energy in (1.0, 6.0):
        fraction = material_library()["water"].recoil_fraction([energy])[0]
        assert fraction == pytest.approx(klein_nishina_transfer(energy), rel=2e-3)
        record_validation(
            "energy share of Compton electrons at 1 and 6 MeV",
            "Klein-Nishina by quadrature",
            reached=abs(fraction / klein_nishina_transfer(energy) - 1),
            tolerance=2e-3,
            unit="relative",
        )


def test_vendored_rows_agree_with_fisx(record_validation):
    fisx = pytest.importorskip("fisx", reason="fisx is not installed: pip install fisx")
    table = fisx.Elements()
    table.initializeAsPyMca()
    energy = np.array([5.0, 20.0, 60.0, 100.0])
    for symbol in ("H", "C", "O", "Ca", "Fe"):
        theirs = table.getMassAttenuationCoefficients(f"{symbol}1", energy.tolist())
        mine = mc.Material(name=symbol, density_g_per_cm3=1.0, mass_fractions={symbol: 1.0})
        np.testing.assert_allclose(mine.attenuation_cm2_per_g(energy / 1000), theirs["total"], rtol=0.02)
        record_validation(
            "attenuation of H, C, O, Ca, Fe, 5 to 100 keV",
            "fisx",
            reached=float(np.abs(mine.attenuation_cm2_per_g(energy / 1000) / theirs["total"] - 1).max()),
            tolerance=0.02,
            unit="relative",
        )


def test_scattering_and_absorption_agree_with_xraylib():
    xraylib = pytest.importorskip("xraylib", reason="xraylib is not installed: pip install xraylib")
    energy = np.array([12.0, 25.0, 56.4, 110.0])
    for symbol in ("C", "O", "Al", "Ca"):
        z = elements()[symbol].number
        mine = mc.Material(name=symbol, density_g_per_cm3=1.0, mass_fractions={symbol: 1.0})
        for channel, function in (
            ("photo", xraylib.CS_Photo),
            ("incoherent", xraylib.CS_Compt),
            ("coherent", xraylib.CS_Rayl),
        ):
            theirs = [function(z, e) for e in energy]
            np.testing.assert_allclose(
                mine.cross_section_cm2_per_g(channel, energy / 1000),
                theirs,
                rtol=0.01,
                err_msg=f"{symbol} {channel}",
            )


def test_tables_of_the_kernels_are_those_of_the_material():
    tables = photon_tables([material_library()["cortical_bone"]])
    energy = np.array([0.0041, 0.03, 0.7, 5.0])
    total = np.interp(energy, tables.energy_mev, tables.section[0, :, 3])
    expected = material_library()["cortical_bone"].attenuation_cm2_per_g(energy)
    np.testing.assert_allclose(10 * total, expected, rtol=5e-4)


def test_the_place_of_an_energy_on_the_grid_is_the_one_around_it():
    grid = photon_tables([material_library()["water"]]).energy_mev
    for energy in (*np.geomspace(1e-3, 20.0, 997).tolist(), 1e-3, 0.5, 1.0, 16.0, 20.0):
        i, f = grid_position(energy, grid.size)
        assert grid[i] <= energy <= grid[i + 1]
        assert grid[i] + f * (grid[i + 1] - grid[i]) == pytest.approx(energy, rel=1e-12)


def test_atoms_and_mass_fractions_give_the_same_water():
    water = mc.Material.from_atoms(name="water", density_g_per_cm3=1.0, atoms={"H": 2, "O": 1})
    assert water.mass_fractions["H"] == pytest.approx(0.111894, abs=2e-5)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"mass_fractions": {"H": 0.2, "O": 0.9}}, "sum to 1.1"),
        ({"mass_fractions": {"H": -0.1, "O": 1.1}}, "must not be negative"),
        ({"mass_fractions": {"U": 1.0}}, "holds U"),
        ({"density_g_per_cm3": 0.0}, "`density_g_per_cm3`.*must be positive"),
    ],
)
def test_impossible_materials_are_refused(change, match):
    good = {"name": "x", "density_g_per_cm3": 1.0, "mass_fractions": {"H": 0.1119, "O": 0.8881}}
    with pytest.raises(InputError, match=match):
        mc.Material(**(good | change))


def test_energies_outside_the_tables_are_refused():
    with pytest.raises(InputError, match="60 MeV lies outside the tables"):
        mc.Spectrum.mono(60.0)
    with pytest.raises(InputError, match="must be of one length"):
        mc.Spectrum(energy_mev=[0.1, 0.2], weight=[1.0])
    with pytest.raises(InputError, match="not all 0"):
        mc.Spectrum(energy_mev=[0.1], weight=[0.0])


@pytest.mark.parametrize(
    ("kind", "volume"),
    [("box", 20 * 30 * 40), ("ellipsoid", np.pi / 6 * 20 * 30 * 40), ("cylinder", np.pi / 4 * 20 * 30 * 40)],
)
def test_a_shape_keeps_its_volume_and_its_mass(kind, volume):
    shape = mc.Shape(kind=kind, center_mm=(1.3, -0.7, 2.1), size_mm=(20.0, 30.0, 40.0))
    phantom = mc.uniform("air", size_mm=60.0, voxel_mm=2.5)
    inside = shape.fraction(phantom.grid) * phantom.grid.voxel_volume_mm3
    assert inside.sum() == pytest.approx(volume, rel=3e-4)
    filled = phantom.with_shape(shape, "water")
    expected = phantom.mass_g + inside.sum() * 1e-3 * (1 - 0.0012048)
    assert filled.mass_g == pytest.approx(expected, rel=1e-5)


def test_every_phantom_holds_the_tissues_that_it_promises():
    def names(phantom):
        return {phantom.materials[i].name for i in np.unique(phantom.material)}

    assert names(mc.thorax(voxel_mm=8.0)) == {"air", "soft_tissue", "lung", "spongiosa", "cortical_bone"}
    assert names(mc.head(voxel_mm=6.0)) == {"air", "soft_tissue", "cortical_bone", "brain"}
    assert names(mc.cylinder("pmma", voxel_mm=10.0)) == {"air", "pmma"}
    layers = mc.slabs([("water", 30.0), ("lung", 60.0, 0.35), ("cortical_bone", 30.0)], voxel_mm=10.0)
    np.testing.assert_allclose(
        layers.density_g_per_cm3[5, :, 5], [1.0] * 3 + [0.35] * 6 + [1.92] * 3, rtol=1e-6
    )


def test_density_maps_and_ct_numbers_choose_materials():
    grid = Grid.regular(shape=(1, 1, 5), spacing_mm=(1.0, 1.0, 1.0))
    phantom = mc.from_density(np.array([[[0.001, 0.3, 0.95, 1.05, 1.8]]]), grid=grid)
    assert [phantom.materials[i].name for i in phantom.material[0, 0]] == [
        "air",
        "lung",
        "adipose",
        "soft_tissue",
        "cortical_bone",
    ]
    ct = mc.from_ct(np.array([[[-1000, -700, -100, 40, 900]]]), grid=grid)
    assert [ct.materials[i].name for i in ct.material[0, 0]] == [
        "air",
        "lung",
        "adipose",
        "soft_tissue",
        "cortical_bone",
    ]


def test_impossible_phantoms_are_refused():
    grid = Grid.regular(shape=(2, 2, 2), spacing_mm=(1.0, 1.0, 1.0))
    good = {
        "grid": grid,
        "material": np.zeros((2, 2, 2), int),
        "density_g_per_cm3": np.ones((2, 2, 2)),
        "materials": ("water",),
    }
    uneven = Grid(x_edges_mm=[0, 1, 3], y_edges_mm=[0, 1, 2], z_edges_mm=[0, 1, 2])
    for change, match in (
        ({"grid": uneven}, "uneven along an axis"),
        ({"material": np.ones((2, 2, 2), int)}, "indices 1 to 1, and there are 1"),
        ({"density_g_per_cm3": -np.ones((2, 2, 2))}, "`density_g_per_cm3` must be finite"),
        ({"materials": ("watter",)}, "did you mean 'water'"),
    ):
        with pytest.raises(InputError, match=match):
            mc.Phantom(**(good | change))
    with pytest.raises(InputError, match="ascending CT numbers"):
        mc.HounsfieldTable(hu=(0.0, -1.0), density_g_per_cm3=(1.0, 2.0))
    with pytest.raises(InputError, match="slabs need layers"):
        mc.slabs([])
    with pytest.raises(InputError, match="positive size"):
        mc.Shape(kind="box", center_mm=(0, 0, 0), size_mm=(1.0, 0.0, 1.0))


@pytest.mark.parametrize(
    ("name", "nist", "density"),
    [
        ("water", "Water, Liquid", 1.0),
        ("air", "Air, Dry (near sea level)", 0.001205),
        ("pmma", "Polymethyl Methacralate (Lucite, Perspex)", 1.19),
        ("polyethylene", "Polyethylene", 0.94),
        ("ptfe", "Polytetrafluoroethylene (Teflon)", 2.2),
    ],
)
def test_compounds_of_the_library_are_those_of_the_nist_data_base(name, nist, density):
    xraylib = pytest.importorskip("xraylib", reason="xraylib is not installed: pip install xraylib")
    theirs = xraylib.GetCompoundDataNISTByName(nist)
    mine = material_library()[name]
    assert mine.density_g_per_cm3 == pytest.approx(theirs["density"], rel=5e-4)
    assert theirs["density"] == density
    shares = zip(theirs["Elements"], theirs["massFractions"], strict=True)
    expected = {xraylib.AtomicNumberToSymbol(z): share for z, share in shares}
    assert mine.mass_fractions.keys() == expected.keys()
    for symbol, share in expected.items():
        assert mine.mass_fractions[symbol] == pytest.approx(share, abs=1e-5)


@pytest.mark.parametrize(
    ("symbol", "energy", "expected"),
    [
        ("Be", 0.01, 0.6466),
        ("Mo", 0.03, 28.10),
        ("Sn", 0.05, 10.70),
        ("Au", 0.1, 5.158),
        ("Pb", 1.0, 0.07102),
    ],
)
def test_windows_filters_and_shields_attenuate_as_nist_tabulates(symbol, energy, expected):
    """Hubbell & Seltzer, NISTIR 5632, table 3."""
    element = mc.Material(name=symbol, density_g_per_cm3=10.0, mass_fractions={symbol: 1.0})
    assert element.attenuation_cm2_per_g([energy])[0] == pytest.approx(expected, rel=2e-3)


def test_metals_have_the_density_of_the_elements():
    xraylib = pytest.importorskip("xraylib", reason="xraylib is not installed: pip install xraylib")
    for name in ("aluminium", "titanium", "iron", "copper", "tungsten"):
        (symbol,) = material_library()[name].mass_fractions
        density = xraylib.ElementDensity(xraylib.SymbolToAtomicNumber(symbol))
        assert material_library()[name].density_g_per_cm3 == pytest.approx(density, rel=1e-3)


MCSQUARE_TISSUES = {
    "lung": (0.26, {"H": 10.404040, "C": 10.606061, "N": 3.131313, "O": 75.656566, "P": 0.202020}),
    "adipose": (0.95, {"H": 11.434303, "C": 59.979940, "N": 0.702106, "O": 27.883651}),
    "brain": (1.04, {"H": 10.808081, "C": 14.646465, "N": 2.222222, "O": 71.919192, "P": 0.404040}),
    "muscle": (1.05, {"H": 10.292634, "C": 14.429869, "N": 3.430878, "O": 71.644803, "P": 0.201816}),
    "cortical_bone": (
        1.92,
        {"H": 3.420523, "C": 15.593561, "N": 4.225352, "O": 43.762575, "P": 10.362173, "Ca": 22.635815},
    ),
    "spongiosa": (
        1.18,
        {
            "H": 8.559919,
            "C": 40.684794,
            "N": 2.819738,
            "O": 36.958711,
            "P": 3.423968,
            "Ca": 7.452165,
            "Fe": 0.100705,
        },
    ),
}


@pytest.mark.parametrize("name", MCSQUARE_TISSUES)
def test_tissues_are_the_icru_ones_that_another_program_has(name):
    density, percent = MCSQUARE_TISSUES[name]
    mine = material_library()[name]
    assert mine.density_g_per_cm3 == density
    whole = sum(mine.mass_fractions[symbol] for symbol in percent)
    for symbol, share in percent.items():
        assert 100 * mine.mass_fractions[symbol] / whole == pytest.approx(share, abs=0.02)


def test_muscle_and_adipose_tissue_are_those_of_a_published_table():
    """ICRU 44 as printed in Table 1 of Rep. Pract. Oncol. Radiother. 19, 392, 2014 (PMC4201780)."""
    printed = {
        "muscle": {
            "H": 10.2,
            "C": 14.3,
            "N": 3.4,
            "O": 71.0,
            "Na": 0.1,
            "P": 0.2,
            "S": 0.3,
            "Cl": 0.1,
            "K": 0.4,
        },
        "adipose": {"H": 11.4, "C": 59.8, "N": 0.7, "O": 27.8, "Na": 0.1, "S": 0.1, "Cl": 0.1},
    }
    for name, percent in printed.items():
        for symbol, share in percent.items():
            assert 100 * material_library()[name].mass_fractions[symbol] == pytest.approx(share, abs=0.01)


def test_ct_numbers_become_densities_by_the_curve_of_schneider():
    """Schneider, Bortfeld & Schlegel 2000: four straight pieces, with a step at 100 HU."""
    hu = np.array([-98.0, -50.0, 0.0, 14.0, 20.0, 60.0, 99.0, 300.0, 1000.0, 1600.0])
    expected = np.select(
        [hu <= 14, hu <= 23, hu <= 100],
        [1.018 + 0.893e-3 * hu, 1.03 + 0 * hu, 1.003 + 1.169e-3 * hu],
        1.017 + 0.592e-3 * hu,
    )
    grid = Grid.regular(shape=(1, 1, hu.size), spacing_mm=(1.0, 1.0, 1.0))
    phantom = mc.from_ct(hu[None, None], grid=grid)
    np.testing.assert_allclose(phantom.density_g_per_cm3[0, 0], expected, rtol=1.5e-3)


def test_lines_of_radionuclides_are_those_of_the_evaluated_data():
    """I-125 and Cs-137 in xraylib's data base (ENSDF); Te K lines joined as AAPM TG-43 does."""
    xraylib = pytest.importorskip("xraylib", reason="xraylib is not installed: pip install xraylib")
    iodine = xraylib.GetRadioNuclideDataByName("125I")
    lines = dict(zip(iodine["XrayLines"], iodine["XrayIntensities"], strict=True))
    k_lines = {line: share for line, share in lines.items() if line > xraylib.L1L2_LINE}
    first, second = (lines[line] for line in (xraylib.KL2_LINE, xraylib.KL3_LINE))
    beta_1 = sum(lines[line] for line in (xraylib.KM2_LINE, xraylib.KM3_LINE))
    beta_2 = sum(k_lines.values()) - first - second - beta_1
    mine = mc.Spectrum.radionuclide("I-125")
    per_decay = np.array([first, second, beta_1, beta_2, iodine["GammaIntensities"][0]])
    np.testing.assert_allclose(mine.weight, per_decay / per_decay.sum(), rtol=0.03)
    np.testing.assert_allclose(iodine["GammaEnergies"][0] / 1000, mine.energy_mev[-1], rtol=1e-5)
    for line, energy in zip((xraylib.KL2_LINE, xraylib.KL3_LINE), mine.energy_mev[:2], strict=True):
        assert xraylib.LineEnergy(52, line) / 1000 == pytest.approx(energy, rel=1e-3)
    cesium = xraylib.GetRadioNuclideDataByName("137Cs")
    energy_mev = mc.Spectrum.radionuclide("Cs-137").energy_mev[0]
    assert energy_mev == pytest.approx(cesium["GammaEnergies"][1] / 1000, rel=1e-4)
