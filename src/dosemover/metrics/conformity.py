"""How well the dose fits a target: homogeneity, conformity and the fall around it."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from dosemover.dose import DoseMap, Structure
from dosemover.metrics.dvh import Dvh, dose_volume_histogram
from dosemover.metrics.isodose import enclosed_volumes_mm3
from dosemover.metrics.masks import require_positive

_FEW_VOXELS = 100_000
"""Targets of fewer voxels are cut finely, for an isodose inside whole voxels."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ConformityResult:
    """Indices of one target at one prescription.

    With TV the target volume, PIV the volume of the prescription isodose, TV_PIV their overlap:

    Parameters
    ----------
    homogeneity_index : float
        (D2% - D98%) / D50% of the target (ICRU 83); 0 is homogeneous.
    coverage : float
        TV_PIV / TV.
    selectivity : float or None
        TV_PIV / PIV; None where nothing reaches the prescription.
    conformity_index : float
        PIV / TV (RTOG): blind to where the isodose lies.
    paddick : float or None
        TV_PIV^2 / (TV PIV) (Paddick 2000); 1 is perfect.
    vant_riet : float or None
        Conformation number TV_PIV / TV x TV_PIV / PIV (van't Riet 1997): the same number.
    gradient_index : float or None
        Volume at half the prescription over PIV (Paddick and Lippitz 2006).
    target_cc, prescription_isodose_cc, half_isodose_cc : float
        TV, PIV and the volume at half the prescription [cm3].
    prescription_gy : float
    """

    homogeneity_index: float
    coverage: float
    selectivity: float | None
    conformity_index: float
    paddick: float | None
    vant_riet: float | None
    gradient_index: float | None
    target_cc: float
    prescription_isodose_cc: float
    half_isodose_cc: float
    prescription_gy: float

    @property
    def status(self) -> str:
        """Either "ok" or why values are missing."""
        if self.prescription_isodose_cc > 0:
            return "ok"
        return f"no dose reaches the prescription of {self.prescription_gy:g} Gy"

    def summary(self) -> dict[str, float | None]:
        """Every field in one flat dictionary."""
        return asdict(self)


def homogeneity_index(dvh: Dvh) -> float:
    """(D2% - D98%) / D50% of a target (ICRU 83); NaN where the median dose is 0."""
    return dvh.homogeneity_index


def isodose_volume_cc(*, dose: DoseMap, level_gy: float) -> float:
    """Volume that gets at least a dose, trilinear between voxel centres [cm3]."""
    require_positive("level_gy", level_gy)
    return enclosed_volumes_mm3(dose.dose_gy, dose.dose_gy, dose.grid, level_gy)[0] / 1000.0


def conformity(*, dose: DoseMap, target: Structure, prescription_gy: float) -> ConformityResult:
    """Homogeneity, conformity and gradient indices of a target.

    Parameters
    ----------
    dose : DoseMap
    target : Structure
    prescription_gy : float
        Prescribed dose [Gy].

    Raises
    ------
    InputError
        When the prescription is not positive or the target lies outside the dose grid.

    Notes
    -----
    *Definition*: volumes below the voxel size, `dose_volume_histogram` for the target and
    `isodose_volume_cc` for the isodoses.
    *Limits*: made for one target: with several in the map PIV takes in the dose around all of them,
    and the indices fall. The gradient index grows beyond meaning where half the prescription
    leaves the map.

    References
    ----------
    icru83, vantriet1997, paddick2000, paddick2006
    """
    require_positive("prescription_gy", prescription_gy)
    fine = 3 if np.count_nonzero(target.fraction) < _FEW_VOXELS else None
    dvh = dose_volume_histogram(dose=dose, structure=target, supersampling=fine)
    piv = isodose_volume_cc(dose=dose, level_gy=prescription_gy)
    half = isodose_volume_cc(dose=dose, level_gy=prescription_gy / 2)
    tv = dvh.volume_cc
    covered = min(dvh.volume_at_dose_cc(prescription_gy), piv)
    product = covered / tv * covered / piv if piv > 0 else None
    return ConformityResult(
        homogeneity_index=dvh.homogeneity_index,
        coverage=covered / tv,
        selectivity=covered / piv if piv > 0 else None,
        conformity_index=piv / tv,
        paddick=product,
        vant_riet=product,
        gradient_index=half / piv if piv > 0 else None,
        target_cc=tv,
        prescription_isodose_cc=piv,
        half_isodose_cc=half,
        prescription_gy=float(prescription_gy),
    )
