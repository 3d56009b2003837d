"""Classical dose comparison metrics, imported at first use."""

from __future__ import annotations

import importlib
from typing import Any

_MODULES = {
    "agreement": (
        "ChiResult",
        "DtaResult",
        "NddResult",
        "chi_index",
        "distance_to_agreement",
        "normalized_dose_difference",
    ),
    "conformity": ("ConformityResult", "conformity", "homogeneity_index", "isodose_volume_cc"),
    "difference": (
        "DebiasedResult",
        "DifferenceResult",
        "DoseDifferencePassing",
        "SplitHalfResult",
        "debiased_rmse",
        "differences",
        "dose_difference_passing",
        "regional_differences",
        "split_half_error",
    ),
    "dvh": ("Dvh", "dose_volume_histogram", "dvh_w1_gy"),
    "gamma": ("gamma_index", "gamma_indices", "gamma_two_sided"),
    "gamma_result": ("DoseOutside", "GammaResult", "TwoSidedGammaResult"),
    "isodose": ("IsodoseResult", "isodose_agreement"),
    "masks": ("structure_fraction", "threshold_mask"),
    "registration": ("BestShiftResult", "CenterShiftResult", "best_shift", "center_shift"),
    "scores": (
        "DepthDoseResult",
        "OpenKbpResult",
        "depth_dose_distance",
        "doserad_masked_mae_percent",
        "openkbp_score",
        "pool_openkbp",
        "synthrad_dose_score",
    ),
    "similarity": ("SsimResult", "psnr_db", "structural_similarity"),
    "statistics": (
        "KawrakowFippelResult",
        "StandardizedDifferenceResult",
        "kawrakow_fippel",
        "standardized_difference",
    ),
}
"""Module of this package and the public names that it offers."""

_EXPORTS = {name: module for module, names in _MODULES.items() for name in names}

__all__ = sorted(_EXPORTS)  # noqa: PLE0605 - names are imported at first use


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_EXPORTS[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)
