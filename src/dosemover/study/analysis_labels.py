"""Short names of metrics and changes for tables and figures, and which metrics stand in front."""

from __future__ import annotations

import re
from collections.abc import Iterable

GROUPS: dict[str, tuple[str, ...]] = {
    "amounts": (
        "mass_ratio",
        "rmse_gy",
        "debiased_rmse_gy",
        "mae_gy",
        "max_difference_gy",
        "p99_difference_gy",
        "chi2_per_voxel",
        "ssim",
        "ssim_in_mask",
        "kf_fraction_percent",
        "dvh_w1_gy",
        "dvh_d95_difference_gy",
        "dvh_d2_difference_gy",
        "dvh_mean_difference_gy",
        "openkbp_dvh_score",
    ),
    "space": (
        "gamma_3_3_global_passing_rate_percent",
        "gamma_2_2_global_passing_rate_percent",
        "gamma_2_2_global_mean",
        "dta_mean_mm",
        "chi_passing_rate_percent",
        "isodose_dice_50",
        "isodose_hd95_50_mm",
        "center_shift_mm",
        "best_shift_mm",
        "axis_w2_mm",
    ),
    "transport": (
        "w1_mm",
        "w2_mm",
        "sliced_w2_mm",
        "sinkhorn_divergence_mm",
        "sobolev_w2_mm",
        "dmd_mm",
        "dmd_moved_mm",
        "dmd_changed_percent",
        "dmd_residual_max_percent",
        "dmd_residual_p99_percent",
        "kr_mm",
    ),
    "moments": ("bures_w2_mm", "moment_w2_mm", "moment_dmd_mm"),
}
"""Metrics that tables and figures show, by family, in their order."""

HEADLINE: tuple[str, ...] = tuple(metric for group in GROUPS.values() for metric in group)

_LABELS = {
    "mass_ratio": "mass ratio",
    "mean_difference_gy": "mean difference",
    "mae_gy": "MAE",
    "rmse_gy": "RMSE",
    "debiased_rmse_gy": "debiased RMSE",
    "max_difference_gy": "largest difference",
    "p99_difference_gy": "99th perc. of difference",
    "chi2_per_voxel": "χ² per voxel",
    "ssim": "SSIM",
    "ssim_in_mask": "SSIM in 10 % mask",
    "kf_fraction_percent": "Kawrakow-Fippel share",
    "dvh_w1_gy": "DVH: area between",
    "dvh_mean_difference_gy": "DVH: mean dose",
    "dvh_d95_difference_gy": "DVH: D95",
    "dvh_d2_difference_gy": "DVH: D2",
    "openkbp_dose_score": "OpenKBP dose score",
    "openkbp_dvh_score": "OpenKBP DVH score",
    "synthrad_dose_score": "SynthRAD dose score",
    "dta_mean_mm": "mean DTA",
    "chi_passing_rate_percent": "χ-index passing",
    "isodose_dice_50": "Dice of 50 % isodose",
    "isodose_hd95_50_mm": "HD95 of 50 % isodose",
    "center_shift_mm": "center of dose",
    "best_shift_mm": "best shift",
    "axis_w2_mm": "axis W₂",
    "w1_mm": "W₁",
    "w2_mm": "W₂",
    "sliced_w1_mm": "sliced W₁",
    "sliced_w2_mm": "sliced W₂",
    "sinkhorn_divergence_mm": "Sinkhorn divergence",
    "sobolev_w2_mm": "Sobolev W₂",
    "emd_mm": "EMD of voxel atoms",
    "dmd_mm": "DMD",
    "dmd_moved_mm": "DMD: moved",
    "dmd_changed_percent": "DMD: changed",
    "dmd_residual_max_percent": "DMD residual, largest",
    "dmd_residual_p99_percent": "DMD residual, 99th perc.",
    "kr_mm": "flat norm",
    "kr_moved_mm": "flat norm: moved",
    "kr_gained_percent": "flat norm: gained",
    "kr_lost_percent": "flat norm: lost",
    "mean_shift_mm": "mean shift",
    "bures_w2_mm": "Gaussian (Bures) W₂",
    "moment_w2_mm": "moment W₂",
    "moment_dmd_mm": "moment DMD",
}

_GAMMA = re.compile(r"gamma_(\w+?)_(\w+?)_(global|local)_(two_sided_)?(passing_rate_percent|mean)$")

FIGURED = (
    "dmd_mm",
    "moment_dmd_mm",
    "w2_mm",
    "w1_mm",
    "kr_mm",
    "center_shift_mm",
    "rmse_gy",
    "debiased_rmse_gy",
    "gamma_2_2_global_mean",
)
"""Metrics whose bias under noise is drawn."""

WHITE_NOISE = (
    "dmd_mm",
    "moment_dmd_mm",
    "moment_w2_mm",
    "sliced_w2_mm",
    "kr_mm",
    "dmd_residual_max_percent",
    "dmd_residual_p99_percent",
    "mass_ratio",
    "center_shift_mm",
    "rmse_gy",
    "debiased_rmse_gy",
    "max_difference_gy",
    "ssim",
    "gamma_2_2_global_passing_rate_percent",
    "gamma_2_2_global_mean",
    "isodose_dice_50",
)
"""Metrics that are measured under white noise, beside the table of the study."""

BALANCED = ("w1_mm", "w2_mm", "sliced_w1_mm", "sliced_w2_mm", "sobolev_w2_mm", "axis_w2_mm", "moment_w2_mm")
"""Distances between normalized maps."""

LOCAL = (
    "max_difference_gy",
    "p99_difference_gy",
    "rmse_gy",
    "debiased_rmse_gy",
    "chi2_per_voxel",
    "mae_gy",
    "gamma_2_2_global_passing_rate_percent",
    "gamma_2_2_global_mean",
    "ssim_in_mask",
    "dmd_residual_max_percent",
    "dmd_residual_p99_percent",
)
"""Metrics that look at voxels or their neighborhood."""


ABOUT = {
    "shift": "the whole beam or source moves to the side",
    "half_shift": "one half of the field moves along the line between the halves",
    "halves_apart": "the halves move along that line in opposite directions: center and integral stay",
    "penumbra": "the penumbra of the source becomes so much wider",
    "dwell_time": "the first of three dwell positions so much longer, the last as much shorter",
    "output": "the dose times 1 + size",
    "low_dose_bath": "an extra field of 110 mm x 110 mm with this share of the fluence",
    "hot_spot": "an extra field of 10 mm x 10 mm in the middle with this share of the fluence",
    "cold_spot": "so much less fluence in the middle 10 mm x 10 mm",
    "hot_and_cold": "so much more fluence in 10 mm x 10 mm, so much less beside: the integral stays",
    "missing_leaf": "a strip of the field of this width is closed, 5 mm beside the middle",
    "energy": "the tube voltage",
    "half_energy": "the tube voltage in one half of the field",
    "wrong_material": "a piece of this size is lung or bone in water, or soft tissue in the thorax",
}
"""What is changed in the project's own study, by the name of the change."""


def label(metric: str) -> str:
    """Short name of a metric.

    Examples
    --------
    >>> label("gamma_1p5_1_local_passing_rate_percent"), label("dmd_mm")
    ('γ 1.5/1 local passing', 'DMD')
    """
    if metric in _LABELS:
        return _LABELS[metric]
    match = _GAMMA.match(metric)
    if match:
        dose, distance, norm, sided, kind = match.groups()
        words = [f"γ {dose}/{distance}".replace("p", "."), "" if norm == "global" else norm]
        words += ["two-sided" if sided else "", "passing" if kind.endswith("percent") else "mean"]
        return " ".join(word for word in words if word)
    return metric.replace("_", " ")


def group_of(metric: str) -> str:
    """Family of a metric: amounts, space, transport or moments; of others by their names."""
    for name, members in GROUPS.items():
        if metric in members:
            return name
    if metric.startswith(("moment", "bures", "mean_shift")):
        return "moments"
    if metric.startswith(("w1", "w2", "dmd", "kr", "sliced", "sinkhorn", "sobolev", "emd")):
        return "transport"
    return (
        "space" if metric.startswith(("gamma", "iso", "chi_", "ndd", "dta", "axis", "center")) else "amounts"
    )


def shown(metrics: Iterable[str]) -> list[str]:
    """Those of the metrics that stand in front, in their order."""
    present = set(metrics)
    return [metric for metric in HEADLINE if metric in present]


def pretty(name: str) -> str:
    """A change's or case's name in words."""
    return name.replace("_", " ")


def matching(names: Iterable[str], *words: str) -> list[str]:
    """Names that are one of the words or, where there is none, that contain one."""
    names = list(names)
    whole = [name for name in names if name.lower() in words]
    return whole or [name for name in names if any(word in name.lower() for word in words)]
