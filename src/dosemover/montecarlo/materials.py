"""Materials by element composition, and the photon tables that the kernels read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import CubicSpline

from dosemover.errors import InputError
from dosemover.montecarlo.photon_kernels import LOWEST_EXPONENT, POINTS_PER_OCTAVE

ELECTRON_REST_MEV = 0.51099895
"""Rest energy of the electron [MeV]."""

KEV_ANGSTROM = 12.398419843
"""h c [keV angstrom]."""

LOWEST_MEV, HIGHEST_MEV = 1e-3, 20.0
"""Range of the vendored tables [MeV]."""

COMPOSITION_TOLERANCE = 5e-3
"""Mass fractions may miss 1 by this much (tables are rounded); they are then divided by their sum."""

OCTAVES = 15
"""Factors of two that the kernels' energy grid covers, from 2^-10 MeV."""

N_MOMENTA = 1024
"""Points of the kernels' grid of the incoherent scattering function, even in x / (1 + x)."""

_CHANNELS = ("coherent", "incoherent", "photo", "pair")


@dataclass(frozen=True, kw_only=True, eq=False)
class Element:
    """Vendored data of one element.

    Parameters
    ----------
    symbol : str
    number : int
        Atomic number Z.
    weight : float
        Relative atomic mass A.
    energy_mev : ndarray, shape (n,)
        Energies of the XCOM rows [MeV]; an absorption edge is two rows of one energy.
    cross_section : mapping of str to ndarray, shape (n,)
        "coherent", "incoherent", "photo" and "pair" [cm2/g].
    momentum : ndarray, shape (m,)
        x = sin(theta/2) / wavelength [1/angstrom].
    form_factor, incoherent_function : ndarray, shape (m,)
        F(x, Z) and S(x, Z).
    """

    symbol: str
    number: int
    weight: float
    energy_mev: NDArray[np.float64]
    cross_section: Mapping[str, NDArray[np.float64]]
    momentum: NDArray[np.float64]
    form_factor: NDArray[np.float64]
    incoherent_function: NDArray[np.float64]


def _blocks(name: str) -> list[tuple[list[str], NDArray[np.float64]]]:
    """Read one vendored file: the words after ``element`` and the rows that follow."""
    text = files("dosemover.montecarlo.data").joinpath(name).read_text(encoding="ascii")
    blocks = []
    for block in text.split("element ")[1:]:
        head, *lines = block.strip().split("\n")
        blocks.append((head.split(), np.array([line.split() for line in lines], dtype=np.float64)))
    return blocks


@lru_cache(maxsize=1)
def elements() -> Mapping[str, Element]:
    """Elements that the vendored tables hold, by symbol."""
    scattering = {head[0]: (head, rows) for head, rows in _blocks("scattering.txt")}
    table = {}
    for (symbol, *_), rows in _blocks("xcom.txt"):
        head, s = scattering[symbol]
        table[symbol] = Element(
            symbol=symbol,
            number=int(head[1]),
            weight=float(head[2]),
            energy_mev=rows[:, 0] / 1000,
            cross_section={name: rows[:, k + 1] for k, name in enumerate(_CHANNELS)},
            momentum=s[:, 0],
            form_factor=s[:, 1],
            incoherent_function=s[:, 2],
        )
    return MappingProxyType(table)


def _between_edges(energy: NDArray[Any], x: NDArray[Any], y: NDArray[Any]) -> NDArray[np.float64]:
    """Log-log cubic spline in each piece between absorption edges (repeated energies)."""
    result = np.empty(energy.size)
    cuts = np.flatnonzero(np.diff(x) == 0) + 1
    for start, stop in zip([0, *cuts], [*cuts, x.size], strict=True):
        low = -np.inf if start == 0 else x[start]
        high = np.inf if stop == x.size else x[stop - 1]
        inside = (energy >= low) & (energy < high)
        logs = np.log(x[start:stop]), np.log(y[start:stop])
        if stop - start >= 4:
            result[inside] = np.exp(CubicSpline(*logs)(np.log(energy[inside])))
        else:
            result[inside] = np.exp(np.interp(np.log(energy[inside]), *logs))
    return result


def _pair(energy: NDArray[Any], x: NDArray[Any], y: NDArray[Any]) -> NDArray[np.float64]:
    """Pair production: the cross section over the cube of (1 - threshold / energy) is smooth."""
    threshold = 2 * ELECTRON_REST_MEV
    known = y > 0
    reduced = np.log(y[known] / (1 - threshold / x[known]) ** 3)
    above = energy > threshold
    at = np.maximum(energy[above], x[known][0])
    result = np.zeros(energy.size)
    spline = CubicSpline(np.log(x[known]), reduced)
    result[above] = np.exp(spline(np.log(at))) * (1 - threshold / energy[above]) ** 3
    return result


@dataclass(frozen=True, kw_only=True, eq=False)
class Material:
    """A material by the mass fractions of its elements.

    Parameters
    ----------
    name : str
    density_g_per_cm3 : float
        Nominal mass density; voxels may have their own.
    mass_fractions : mapping of str to float
        Element symbol to mass fraction; they must sum to 1 within 0.005 and are divided by their sum.

    Raises
    ------
    InputError
        When an element is not in the tables, or the fractions are negative or do not sum to 1.

    Examples
    --------
    >>> water = Material(name="water", density_g_per_cm3=1.0, mass_fractions={"H": 0.111894, "O": 0.888106})
    >>> round(float(water.attenuation_cm2_per_g([0.1])[0]), 4)
    0.1707
    """

    name: str
    density_g_per_cm3: float
    mass_fractions: Mapping[str, float] = field(repr=False)

    def __post_init__(self) -> None:
        fractions = {symbol: float(value) for symbol, value in self.mass_fractions.items()}
        unknown = [symbol for symbol in fractions if symbol not in elements()]
        if unknown:
            raise InputError(
                f"material {self.name!r} holds {', '.join(unknown)}, which the cross section tables lack. "
                f"Its photons cannot be followed. The tables hold {' '.join(elements())}."
            )
        total = sum(fractions.values())
        if min(fractions.values(), default=-1.0) < 0 or abs(total - 1) > COMPOSITION_TOLERANCE:
            raise InputError(
                f"the mass fractions of material {self.name!r} sum to {total:.4f}; they must not be negative "
                "and must sum to 1. Its cross sections would be wrong by as much. Pass fractions by mass, "
                "or use Material.from_atoms for numbers of atoms."
            )
        if not (np.isfinite(self.density_g_per_cm3) and self.density_g_per_cm3 > 0):
            raise InputError(
                f"`density_g_per_cm3` of material {self.name!r} must be positive, got "
                f"{self.density_g_per_cm3}. Give its mass density in g/cm3."
            )
        shares = {symbol: value / total for symbol, value in fractions.items() if value > 0}
        object.__setattr__(self, "mass_fractions", MappingProxyType(shares))

    @classmethod
    def from_atoms(cls, *, name: str, density_g_per_cm3: float, atoms: Mapping[str, float]) -> Material:
        """Material from numbers of atoms (H: 2, O: 1), or atom percentages."""
        missing = [symbol for symbol in atoms if symbol not in elements()]
        weights = {
            symbol: n * elements()[symbol].weight for symbol, n in atoms.items() if symbol not in missing
        }
        weights.update(dict.fromkeys(missing, 0.0))
        total = sum(weights.values()) or 1.0
        shares = {symbol: value / total for symbol, value in weights.items()}
        return cls(name=name, density_g_per_cm3=density_g_per_cm3, mass_fractions=shares)

    def cross_section_cm2_per_g(self, channel: str, energy_mev: ArrayLike) -> NDArray[np.float64]:
        """Cross section of one channel: "coherent", "incoherent", "photo" or "pair".

        Log-log cubic splines between the XCOM rows, cut at absorption edges; pair production by the
        spline of its ratio to (1 - 2 m c^2 / E)^3 (Berger & Hubbell 1987).

        Parameters
        ----------
        channel : str
        energy_mev : array_like, shape (n,)
            Photon energies [MeV], 0.001 to 20.
        """
        energy = check_energy(energy_mev)
        interpolate = _pair if channel == "pair" else _between_edges
        result = np.zeros(energy.size)
        for symbol, fraction in self.mass_fractions.items():
            element = elements()[symbol]
            result += fraction * interpolate(energy, element.energy_mev, element.cross_section[channel])
        return result

    def attenuation_cm2_per_g(self, energy_mev: ArrayLike) -> NDArray[np.float64]:
        """Total mass attenuation coefficient mu/rho, coherent scattering included [cm2/g]."""
        return np.sum([self.cross_section_cm2_per_g(name, energy_mev) for name in _CHANNELS], axis=0)

    def energy_transfer_cm2_per_g(self, energy_mev: ArrayLike) -> NDArray[np.float64]:
        """Mass energy-transfer coefficient mu_tr/rho of the engine's own model [cm2/g].

        Photoelectric absorption gives all the energy, Compton scattering the recoil energy, pair
        production the energy above 2 m c^2; fluorescence is not followed.
        """
        energy = check_energy(energy_mev)
        grid = np.geomspace(LOWEST_MEV, HIGHEST_MEV, 257)
        share = np.interp(np.log(energy), np.log(grid), self.recoil_fraction(grid))
        pair = self.cross_section_cm2_per_g("pair", energy) * (1 - 2 * ELECTRON_REST_MEV / energy)
        compton = self.cross_section_cm2_per_g("incoherent", energy) * share
        return self.cross_section_cm2_per_g("photo", energy) + compton + np.maximum(pair, 0.0)

    def incoherent_function(self, momentum: ArrayLike) -> NDArray[np.float64]:
        """Incoherent scattering function per electron, 0 to 1, at x [1/angstrom]."""
        x = np.asarray(momentum, dtype=np.float64)
        total, electrons = np.zeros(x.shape), 0.0
        for symbol, fraction in self.mass_fractions.items():
            element = elements()[symbol]
            atoms = fraction / element.weight
            total += atoms * np.interp(x, element.momentum, element.incoherent_function)
            electrons += atoms * element.number
        return total / electrons

    def squared_form_factor(self, momentum: ArrayLike) -> NDArray[np.float64]:
        """Sum over the atoms in a gram of F^2, independent atoms, up to a constant factor."""
        x = np.asarray(momentum, dtype=np.float64)
        total = np.zeros(x.shape)
        for symbol, fraction in self.mass_fractions.items():
            element = elements()[symbol]
            positive = np.maximum(element.momentum, 1e-6)
            logs = np.interp(
                np.log(np.maximum(x, 1e-6)), np.log(positive), np.log(np.maximum(element.form_factor, 1e-12))
            )
            total += fraction / element.weight * np.exp(2 * logs)
        return total

    def recoil_fraction(self, energy_mev: ArrayLike) -> NDArray[np.float64]:
        """Mean share of the photon's energy that a Compton electron takes.

        Integral of the Klein-Nishina cross section times S(x), by 256 Gauss-Legendre points in log
        (E'/E).
        """
        energy = check_energy(energy_mev)
        k = (energy / ELECTRON_REST_MEV)[:, None]
        nodes, weights = np.polynomial.legendre.leggauss(256)
        span = np.log1p(2 * k)
        ratio = np.exp(-span * (nodes + 1) / 2)
        t = (1 - ratio) / (k * ratio)
        momentum = energy[:, None] * 1000 / KEV_ANGSTROM * np.sqrt(np.clip(t / 2, 0.0, 1.0))
        density = (ratio + 1 / ratio - t * (2 - t)) * self.incoherent_function(momentum) * ratio * weights
        return np.sum(density * (1 - ratio), axis=1) / np.sum(density, axis=1)


def check_energy(energy_mev: ArrayLike) -> NDArray[np.float64]:
    """Energies as an array, or an error where they leave the tables."""
    energy = np.atleast_1d(np.asarray(energy_mev, dtype=np.float64))
    bad = ~((energy >= LOWEST_MEV * (1 - 1e-9)) & (energy <= HIGHEST_MEV * (1 + 1e-9)))
    if np.any(bad):
        raise InputError(
            f"photon energy {energy[bad][0]:g} MeV lies outside the tables, which run from {LOWEST_MEV:g} to "
            f"{HIGHEST_MEV:g} MeV. No cross section is known there. Give energies in MeV, not keV."
        )
    return np.clip(energy, LOWEST_MEV, HIGHEST_MEV)


def _library() -> dict[str, Material]:
    """Materials that configurations may call by name."""
    rows: list[tuple[str, float, str]] = [
        ("water", 1.0, "H 0.111894 O 0.888106"),
        ("air", 0.0012048, "C 0.000124 N 0.755268 O 0.231781 Ar 0.012827"),
        ("pmma", 1.19, "H 0.080538 C 0.599848 O 0.319614"),
        ("polyethylene", 0.94, "H 0.143711 C 0.856289"),
        ("ptfe", 2.2, "C 0.240183 F 0.759817"),
        ("adipose", 0.95, "H 0.114 C 0.598 N 0.007 O 0.278 Na 0.001 S 0.001 Cl 0.001"),
        ("soft_tissue", 1.06, "H .102 C .143 N .034 O .708 Na .002 P .003 S .003 Cl .002 K .003"),
        ("muscle", 1.05, "H .102 C .143 N .034 O .710 Na .001 P .002 S .003 Cl .001 K .004"),
        ("brain", 1.04, "H .107 C .145 N .022 O .712 Na .002 P .004 S .002 Cl .003 K .003"),
        ("lung", 0.26, "H .103 C .105 N .031 O .749 Na .002 P .002 S .003 Cl .003 K .002"),
        (
            "spongiosa",
            1.18,
            "H .085 C .404 N .028 O .367 Na .001 Mg .001 P .034 S .002 Cl .002 K .001 Ca .074 Fe .001",
        ),
        ("cortical_bone", 1.92, "H .034 C .155 N .042 O .435 Na .001 Mg .002 P .103 S .003 Ca .225"),
        ("aluminium", 2.699, "Al 1"),
        ("titanium", 4.54, "Ti 1"),
        ("iron", 7.874, "Fe 1"),
        ("copper", 8.96, "Cu 1"),
        ("tungsten", 19.3, "W 1"),
    ]

    def parts(text: str) -> dict[str, float]:
        words = text.split()
        return {symbol: float(share) for symbol, share in zip(words[::2], words[1::2], strict=True)}

    return {n: Material(name=n, density_g_per_cm3=rho, mass_fractions=parts(text)) for n, rho, text in rows}


@lru_cache(maxsize=1)
def material_library() -> Mapping[str, Material]:
    """Materials known by name: water, air, plastics, metals and the ICRU Report 44 tissues."""
    return MappingProxyType(_library())


@dataclass(frozen=True, kw_only=True, eq=False)
class PhotonTables:
    """What the kernels read of a list of materials.

    Parameters
    ----------
    energy_mev : ndarray, shape (energy,)
        Energy grid of the kernels, even within each factor of two [MeV].
    section : ndarray, shape (material, energy, 5)
        Per unit density, [cm3/g/mm]: Compton; Compton + Rayleigh; these + pair; total; energy
        transfer.
    incoherent : ndarray, shape (material, N_MOMENTA)
        Incoherent scattering function per electron, even in x / (1 + x), up to x / (1 + x) = 1.
    rayleigh : ndarray, shape (material, 2, n)
        x^2 [1/angstrom^2] and the cumulative integral of F^2 over x^2.
    """

    energy_mev: NDArray[np.float64]
    section: NDArray[np.float64]
    incoherent: NDArray[np.float64]
    rayleigh: NDArray[np.float64]


def photon_tables(materials: Sequence[Material]) -> PhotonTables:
    """Tabulate materials for the kernels, 1 keV to 20 MeV; the grid's ends beyond are those values."""
    octave, part = np.divmod(np.arange(OCTAVES * int(POINTS_PER_OCTAVE) + 1), int(POINTS_PER_OCTAVE))
    grid = np.ldexp(0.5 * (1 + part / POINTS_PER_OCTAVE), octave + LOWEST_EXPONENT)
    energy = np.clip(grid, LOWEST_MEV, HIGHEST_MEV)
    share = np.linspace(0.0, 1.0, N_MOMENTA)
    momentum = share[:-1] / (1 - share[:-1])
    nodes = np.concatenate([[0.0], np.geomspace(1e-3, 100.0, 511)])
    middle = np.sqrt((nodes[1:] ** 2 + nodes[:-1] ** 2) / 2)
    section = np.empty((len(materials), grid.size, 5))
    incoherent = np.ones((len(materials), N_MOMENTA))
    rayleigh = np.zeros((len(materials), 2, nodes.size))
    for m, material in enumerate(materials):
        parts = {name: material.cross_section_cm2_per_g(name, energy) for name in _CHANNELS}
        order = ("incoherent", "coherent", "pair", "photo")
        section[m, :, :4] = 0.1 * np.cumsum([parts[name] for name in order], axis=0).T
        section[m, :, 4] = 0.1 * material.energy_transfer_cm2_per_g(energy)
        incoherent[m, :-1] = material.incoherent_function(momentum)
        rayleigh[m, 0] = nodes**2
        rayleigh[m, 1, 1:] = np.cumsum(material.squared_form_factor(middle) * np.diff(nodes**2))
    return PhotonTables(
        energy_mev=grid,
        section=section,
        incoherent=incoherent,
        rayleigh=rayleigh,
    )
