"""Families about amounts: differences, similarity, noise tests."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from dosemover import metrics
from dosemover.comparison.context import ComparisonContext, missing
from dosemover.comparison.registry import Family, fixed_keys
from dosemover.comparison.result import FieldMap, MetricResult

_DIFFERENCES = {
    "mean_difference_gy": "mean_gy",
    "mae_gy": "mae_gy",
    "mse_gy2": "mse_gy2",
    "rmse_gy": "rmse_gy",
    "max_difference_gy": "max_gy",
    "p95_difference_gy": "p95_gy",
    "p99_difference_gy": "p99_gy",
    "relative_mae_percent": "relative_mae_percent",
}
"""Metric key and attribute of the difference result."""

_PASSING_UNITS = {f"dose_difference_passing_{criterion}_percent": "%" for criterion in (1, 2, 3)}

_UNCERTAINTY_HINT = (
    "needs the uncertainty of at least one map: --reference-uncertainty, --evaluated-uncertainty or batches"
)


def _mass_ratio(context: ComparisonContext, wanted: frozenset[str]) -> Iterator[MetricResult]:
    """Ratio of the integral doses, over each map's whole grid."""
    ratio = context.evaluated.integral_gy_mm3 / context.reference.integral_gy_mm3
    yield MetricResult(key="mass_ratio", value=ratio)


def _differences(context: ComparisonContext, wanted: frozenset[str]) -> Iterator[MetricResult]:
    """Voxelwise differences over the whole map, and by region for the result."""
    reference, evaluated = context.reference, context.evaluated_here
    prescription = context.settings.prescription_gy
    normalization = "maximum" if prescription is None else "prescription"
    found = metrics.differences(
        reference=reference,
        evaluated=evaluated,
        normalization=normalization,
        prescription_gy=prescription,
    )
    context.maps["difference_gy"] = FieldMap(
        values=np.asarray(evaluated.dose_gy - reference.dose_gy, dtype=np.float32),
        grid=reference.grid,
        unit="Gy",
        label="evaluated - reference",
    )
    settings = {"normalization": normalization, "normalization_dose_gy": found.normalization_gy}
    units = DIFFERENCES.keys(context.settings)
    for key, attribute in _DIFFERENCES.items():
        relative = settings if key.endswith("percent") else {}
        yield MetricResult(key=key, value=getattr(found, attribute), unit=units[key], settings=relative)
    context.regions.update(
        {
            name: one.summary()
            for name, one in metrics.regional_differences(
                reference=reference,
                evaluated=evaluated,
                structures=context.structures,
                dose_threshold_percent=context.settings.dose_threshold_percent,
                normalization=normalization,
                prescription_gy=prescription,
            ).items()
        }
    )


def _debiased(context: ComparisonContext, wanted: frozenset[str]) -> Iterator[MetricResult]:
    """Root mean square difference less the noise."""
    found = metrics.debiased_rmse(reference=context.reference, evaluated=context.evaluated_here)
    yield MetricResult(
        key="debiased_rmse_gy",
        value=found.value_gy,
        unit="Gy",
        settings={"method": found.method},
        status=found.status,
    )


def _passing(context: ComparisonContext, wanted: frozenset[str]) -> Iterator[MetricResult]:
    """Share of voxels within 1, 2 and 3 % of the normalisation dose."""
    settings = context.settings
    found = metrics.dose_difference_passing(
        reference=context.reference,
        evaluated=context.evaluated_here,
        criteria_percent=(1, 2, 3),
        normalization_gy=context.normalization_dose_gy,
        dose_threshold_percent=settings.dose_threshold_percent,
    )
    shared = {
        "dose_threshold_percent": settings.dose_threshold_percent,
        "normalization_dose_gy": context.normalization_dose_gy,
        "n_voxels": found.n_voxels,
    }
    for criterion in (1, 2, 3):
        yield MetricResult(
            key=f"dose_difference_passing_{criterion}_percent",
            value=found.passing_rate_percent[criterion],
            unit="%",
            settings=shared,
            status=context.nothing_to_evaluate or found.status,
        )


def _psnr(context: ComparisonContext, wanted: frozenset[str]) -> Iterator[MetricResult]:
    """Peak signal-to-noise ratio; without an end where the maps are equal."""
    value = metrics.psnr_db(reference=context.reference, evaluated=context.evaluated_here)
    shared = {"data_range_gy": context.reference.max_gy}
    if np.isfinite(value):
        yield MetricResult(key="psnr_db", value=value, unit="dB", settings=shared)
    else:
        yield missing("psnr_db", "dB", "infinite: the maps are equal", **shared)


def _ssim(context: ComparisonContext, wanted: frozenset[str]) -> Iterator[MetricResult]:
    """Structural similarity over the whole map and inside the mask."""
    found = metrics.structural_similarity(
        reference=context.reference,
        evaluated=context.evaluated_here,
        dose_threshold_percent=context.threshold_of_maximum_percent,
    )
    shared = {"data_range_gy": found.data_range_gy, "window": "Gaussian, sigma 1.5 voxels"}
    yield MetricResult(key="ssim", value=found.value, settings=shared, status=found.status)
    yield MetricResult(
        key="ssim_in_mask",
        value=found.in_mask,
        settings=shared | {"dose_threshold_percent": context.settings.dose_threshold_percent},
        status=context.nothing_to_evaluate or found.status,
    )


def _chi2(context: ComparisonContext, wanted: frozenset[str]) -> Iterator[MetricResult]:
    """Standardised differences, their map, and chi-square per voxel."""
    found = metrics.standardized_difference(reference=context.reference, evaluated=context.evaluated_here)
    if found is None:
        yield missing("chi2_per_voxel", "", _UNCERTAINTY_HINT)
        return
    context.maps["z"] = FieldMap(
        values=np.asarray(found.z, dtype=np.float32),
        grid=context.reference.grid,
        unit="",
        label="difference / standard uncertainty",
    )
    yield MetricResult(
        key="chi2_per_voxel",
        value=found.chi2_per_voxel,
        settings={"n_voxels": found.n_voxels},
        status=found.status,
    )


def _kawrakow_fippel(context: ComparisonContext, wanted: frozenset[str]) -> Iterator[MetricResult]:
    """Systematic part of the differences, told from noise."""
    found = metrics.kawrakow_fippel(
        reference=context.reference, evaluated=context.evaluated_here, seed=context.settings.seed
    )
    if found is None:
        yield missing("kf_fraction_percent", "%", _UNCERTAINTY_HINT)
        yield missing("kf_shift_sigma", "sigma", _UNCERTAINTY_HINT)
        return
    shared = {
        "dose_threshold_percent": 50.0,
        "fractions": list(found.fractions),
        "shifts_sigma": list(found.shifts_sigma),
        "likelihood_ratio": found.likelihood_ratio,
    }
    for key, value, unit in (
        ("kf_fraction_percent", found.fraction_percent, "%"),
        ("kf_shift_sigma", found.shift_sigma, "sigma"),
    ):
        yield MetricResult(
            key=key, value=value, unit=unit, p=found.p_value, settings=shared, status=found.status
        )


MASS_RATIO = Family(
    name="mass",
    keys=fixed_keys(mass_ratio=""),
    compute=_mass_ratio,
    default="all",
    fast="all",
    both=frozenset({"mass_ratio"}),
)
DIFFERENCES = Family(
    name="differences",
    keys=fixed_keys(
        mean_difference_gy="Gy",
        mae_gy="Gy",
        mse_gy2="Gy²",
        rmse_gy="Gy",
        max_difference_gy="Gy",
        p95_difference_gy="Gy",
        p99_difference_gy="Gy",
        relative_mae_percent="%",
    ),
    compute=_differences,
    default="all",
    fast="all",
    both=frozenset({"mean_difference_gy"}),
)
DEBIASED = Family(name="debiased", keys=fixed_keys(debiased_rmse_gy="Gy"), compute=_debiased, default="all")
PASSING = Family(
    name="dose_difference",
    keys=fixed_keys(**_PASSING_UNITS),
    compute=_passing,
    default="all",
    fast="all",
    smaller=frozenset(_PASSING_UNITS),
)
PSNR = Family(name="psnr", keys=fixed_keys(psnr_db="dB"), compute=_psnr, smaller=frozenset({"psnr_db"}))
SSIM = Family(
    name="ssim",
    keys=fixed_keys(ssim="", ssim_in_mask=""),
    compute=_ssim,
    default="all",
    smaller=frozenset({"ssim", "ssim_in_mask"}),
)
CHI2 = Family(name="chi2", keys=fixed_keys(chi2_per_voxel=""), compute=_chi2, default="all", fast="all")
KAWRAKOW_FIPPEL = Family(
    name="kawrakow_fippel",
    keys=fixed_keys(kf_fraction_percent="%", kf_shift_sigma="sigma"),
    compute=_kawrakow_fippel,
    null="never",
)

AMOUNTS = (MASS_RATIO, DIFFERENCES, DEBIASED, PASSING, PSNR, SSIM, CHI2, KAWRAKOW_FIPPEL)
