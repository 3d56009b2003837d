"""Photon spectra: lines, histograms, radionuclides, filtered bremsstrahlung, and spectrum files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dosemover.errors import DataFormatError, InputError
from dosemover.montecarlo.materials import check_energy, material_library

_RADIONUCLIDES: dict[str, tuple[tuple[float, float], ...]] = {
    "Co-60": ((1.17323, 0.9985), (1.33249, 0.9998)),
    "Cs-137": ((0.66166, 0.851),),
    "I-125": (
        (0.027202, 0.406), (0.027472, 0.757), (0.030980, 0.202), (0.031710, 0.0439), (0.035492, 0.0668),
    ),
    "Ir-192": (
        (0.20131, 0.00473), (0.20580, 0.0331), (0.29596, 0.2871), (0.30846, 0.2970), (0.31651, 0.8286),
        (0.37449, 0.0073), (0.41647, 0.0067), (0.46807, 0.4784), (0.48458, 0.0319), (0.48906, 0.0044),
        (0.58858, 0.0452), (0.60441, 0.0822), (0.61247, 0.0534), (0.88454, 0.0029),
    ),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, eq=False)
class Spectrum:
    """Photon energies and how often each occurs.

    Parameters
    ----------
    energy_mev : array_like, shape (n,)
        Lines, or bin centres [MeV].
    weight : array_like, shape (n,)
        Relative numbers of photons.
    width_mev : array_like, shape (n,), or float
        Bin widths [MeV]; 0 (default) for lines. Energies are uniform within a bin.
    name : str

    Raises
    ------
    InputError
        When energies leave the tables (1 keV to 20 MeV) or weights are negative or all zero.

    Examples
    --------
    >>> round(float(Spectrum.radionuclide("Co-60").mean_mev), 3)
    1.253
    """

    energy_mev: NDArray[np.float64]
    weight: NDArray[np.float64]
    width_mev: NDArray[np.float64] | float = 0.0
    name: str = ""

    def __post_init__(self) -> None:
        energy = np.atleast_1d(np.array(self.energy_mev, dtype=np.float64))
        weight = np.atleast_1d(np.array(self.weight, dtype=np.float64))
        if energy.ndim != 1 or energy.shape != weight.shape:
            raise InputError(
                f"`energy_mev` and `weight` of a spectrum must be of one length, got {energy.shape} and "
                f"{weight.shape}. Energies and weights cannot be paired. Give one weight per energy."
            )
        width = np.broadcast_to(np.asarray(self.width_mev, dtype=np.float64), energy.shape).copy()
        if not np.all(np.isfinite(weight)) or np.any(weight < 0) or not weight.sum() > 0:
            raise InputError(
                "`weight` of a spectrum must be finite, not negative and not all 0. No photon could be "
                "drawn from it. Give relative numbers of photons."
            )
        keep = weight > 0
        energy, weight, width = energy[keep], weight[keep], width[keep]
        check_energy(energy - width / 2)
        check_energy(energy + width / 2)
        for name, values in (("energy_mev", energy), ("weight", weight / weight.sum()), ("width_mev", width)):
            values.setflags(write=False)
            object.__setattr__(self, name, values)

    @classmethod
    def mono(cls, energy_mev: float) -> Spectrum:
        """One energy [MeV]."""
        return cls(energy_mev=np.array([energy_mev]), weight=np.ones(1), name=f"{energy_mev:g} MeV")

    @classmethod
    def radionuclide(cls, name: str) -> Spectrum:
        """Main photon lines of a bare radionuclide: Co-60, Cs-137, Ir-192 or I-125.

        Emission probabilities per decay of the decay-data evaluations, rounded; I-125 as in AAPM TG-43U1.
        Gamma lines under 0.3 % are left out, and so are the X rays of Cs-137 and Ir-192, which a capsule
        stops; the capsule's other effects are not modelled.
        """
        if name not in _RADIONUCLIDES:
            raise InputError(
                f"no spectrum is stored for {name!r}. Choose one of {', '.join(_RADIONUCLIDES)}, or give "
                "energies and weights."
            )
        lines = np.array(_RADIONUCLIDES[name])
        return cls(energy_mev=lines[:, 0], weight=lines[:, 1], name=name)

    @classmethod
    def bremsstrahlung(
        cls,
        peak_mev: float,
        *,
        filters: Sequence[tuple[str, float]] = (),
        lowest_mev: float = 0.01,
        bins: int = 60,
    ) -> Spectrum:
        """Filtered thin-target bremsstrahlung, a stand-in for a tube or linac where no measured one is given.

        N(E) = (E_peak - E) / E * product of exp(-mu/rho(E) * x), Kramers' law behind filters: no
        characteristic lines, no absorption in the target.

        Parameters
        ----------
        peak_mev : float
            End point [MeV]: tube voltage or electron energy.
        filters : sequence of (str, float)
            Material name and thickness [g/cm2].
        lowest_mev : float
            Lowest energy kept [MeV].
        bins : int
            Number of bins, even in energy.
        """
        edges = np.linspace(lowest_mev, peak_mev, bins + 1)
        energy = (edges[1:] + edges[:-1]) / 2
        weight = (peak_mev - energy) / energy
        for material, thickness in filters:
            weight *= np.exp(-material_library()[material].attenuation_cm2_per_g(energy) * thickness)
        return cls(
            energy_mev=energy,
            weight=weight,
            width_mev=np.diff(edges),
            name=f"{peak_mev:g} MeV bremsstrahlung",
        )

    @classmethod
    def linac_6mv(cls) -> Spectrum:
        """A 6 MV-like spectrum: 6 MeV bremsstrahlung behind 18 g/cm2 of tungsten, mean about 1.9 MeV."""
        spectrum = cls.bremsstrahlung(6.0, filters=(("tungsten", 18.0),), lowest_mev=0.1)
        object.__setattr__(spectrum, "name", "6 MV-like")
        return spectrum

    @property
    def mean_mev(self) -> float:
        """Mean energy per photon [MeV]."""
        return float(np.sum(self.energy_mev * self.weight))

    def alias_table(self) -> NDArray[np.float64]:
        """Columns (energy, width, probability, alias) for sampling in constant time (Walker 1977)."""
        n = self.energy_mev.size
        scaled = self.weight * n
        probability, alias = np.ones(n), np.arange(n)
        small = [i for i in range(n) if scaled[i] < 1]
        large = [i for i in range(n) if scaled[i] >= 1]
        scaled = scaled.copy()
        while small and large:
            low, high = small.pop(), large[-1]
            probability[low], alias[low] = scaled[low], high
            scaled[high] -= 1 - scaled[low]
            if scaled[high] < 1:
                small.append(large.pop())
        width = np.broadcast_to(self.width_mev, (n,))
        return np.stack([self.energy_mev, width, probability, alias.astype(np.float64)], axis=1)


def read_spectrum(path: str | PathLike[str]) -> Spectrum:
    """Read a spectrum file.

    Two forms are understood: two columns of energy [MeV] and relative number of photons, with commas or
    blanks, ``#`` for comments (lines); and the EGSnrc form (title; number of bins, lower edge, mode;
    upper edge and weight of each bin; mode 0 counts per bin, mode 1 per MeV).

    Raises
    ------
    DataFormatError
        When the file is neither.
    """
    try:
        text = Path(path).read_text(encoding="latin-1")
    except OSError as error:
        raise DataFormatError(
            f"the spectrum file {path} cannot be read: {error.strerror}. The source has no energies. Check "
            f"the path."
        ) from error
    lines = [line.split("#")[0].replace(",", " ").strip() for line in text.splitlines()]
    try:
        rows: ArrayLike = [[float(word) for word in line.split()] for line in lines if line]
        table = np.array(rows)
        return Spectrum(energy_mev=table[:, 0], weight=table[:, 1], name=Path(path).name)
    except InputError:
        raise
    except (ValueError, IndexError):
        return _egs_spectrum(Path(path), lines)


def _egs_spectrum(path: Path, lines: list[str]) -> Spectrum:
    """A spectrum of the EGSnrc form: a title, a line of three numbers, the bins."""
    try:
        n, lowest, mode = (float(word) for word in lines[1].split()[:3])
        rows = np.array([[float(word) for word in line.split()[:2]] for line in lines[2 : 2 + int(n)]])
        edges = np.concatenate([[lowest], rows[:, 0]])
        weight = rows[:, 1] * (np.diff(edges) if mode == 1 else 1.0)
    except (ValueError, IndexError) as error:
        raise DataFormatError(
            f"{path.name} is not a spectrum file. Its energies cannot be read. Write two columns, energy in "
            "MeV and relative number of photons."
        ) from error
    edges[0] = max(edges[0], min(1e-3, 0.5 * edges[1]))
    return Spectrum(
        energy_mev=(edges[1:] + edges[:-1]) / 2, weight=weight, width_mev=np.diff(edges), name=path.name
    )
