"""Classical dose comparison metrics, imported at first use."""

from __future__ import annotations

from dosemover._runtime import lazy_exports

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

__getattr__, __dir__, __all__ = lazy_exports(__name__, _MODULES)
