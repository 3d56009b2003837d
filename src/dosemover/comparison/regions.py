"""Where the difference is real, and what share of each metric comes from regions of low sampling."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dosemover import metrics, transport
from dosemover.comparison.context import ComparisonContext
from dosemover.comparison.noise_at_hand import NoiseAtHand
from dosemover.comparison.result import FieldMap, MetricResult
from dosemover.dose import DoseMap
from dosemover.errors import InputError
from dosemover.noise import nulls
from dosemover.noise.regions import (
    averaged_difference,
    averaged_noise,
    low_sampling,
    significant_by_relabelling,
    significant_voxels,
    systematic_probability,
)

LOW_SAMPLING_PERCENT = 10.0
_DRAWS = 19
_MOST_VOXELS = 1_000_000
_REACH_HALF = 0.5
_KF_PERMUTATIONS = 39

_DMD_FIELDS = {
    "dmd_index_mm": "index_mm",
    "displacement_mm": "displacement_mm",
    "change_percent": "change_percent",
}
"""Maps of a comparison and the solver's fields that they hold, compared with their own noise on request."""


def with_regions(context: ComparisonContext, results: dict[str, MetricResult]) -> dict[str, MetricResult]:
    """Masks into the comparison's maps, and shares from low sampling into the metrics' settings.

    ``low_sampling_mask``: the relative uncertainty exceeds 10 %. ``significant_mask``: the difference,
    averaged over 3 x 3 x 3 voxels, exceeds what noise alone reaches anywhere in the map;
    ``dmd_index_significant_mask``, ``displacement_significant_mask``, ``change_significant_mask`` and
    ``gain_loss_significant_mask``: the same of the solvers' fields, where ``null`` is given.
    ``kf_systematic_percent``: the probability, by the fit of Kawrakow and Fippel, that a voxel's difference
    is systematic.
    """
    noise = context.noise
    if noise is None:
        return results
    here = noise.evaluated.interpolated_to(noise.reference.grid)
    low = low_sampling(reference=noise.reference, evaluated=here, limit_percent=LOW_SAMPLING_PERCENT)
    asked = context.settings.null is not None
    if asked or (not noise.estimated and context.reference.grid.n_voxels <= _MOST_VOXELS):
        _significant(context, noise, here)
    _kawrakow_fippel(context, results)
    if low is None:
        return results
    label = f"relative uncertainty above {LOW_SAMPLING_PERCENT:g} %"
    context.maps["low_sampling_mask"] = _mask(context, low, label)
    weights = dict(_weights(context, results))
    return {
        key: _with_share(result, weights[key], low) if key in weights else result
        for key, result in results.items()
    }


def _mask(context: ComparisonContext, values: NDArray[np.bool_], label: str) -> FieldMap:
    """A mask on the reference's grid."""
    return FieldMap(values=values.astype(np.float32), grid=context.reference.grid, unit="", label=label)


def _with_share(result: MetricResult, weight: NDArray[Any], low: NDArray[np.bool_]) -> MetricResult:
    """A result with the share of its value that comes from low sampling."""
    total = float(np.nansum(weight))
    if total <= 0:
        return result
    share = 100 * float(np.nansum(weight[low])) / total
    return replace(result, settings={**result.settings, "low_sampling_share_percent": share})


def _weights(
    context: ComparisonContext, results: dict[str, MetricResult]
) -> Iterable[tuple[str, NDArray[Any]]]:
    """What each voxel of the reference's grid adds to a metric, where metrics are sums over voxels.

    Means over voxels count them alike, integrals by their volume.
    """
    maps = context.maps
    if "difference_gy" in maps:
        d = np.asarray(maps["difference_gy"].values, dtype=np.float64)
        yield from (("mae_gy", np.abs(d)), ("relative_mae_percent", np.abs(d)))
        yield from (("mse_gy2", d**2), ("rmse_gy", d**2))
        yield "max_difference_gy", (np.abs(d) == np.abs(d).max()).astype(np.float64)
    if "z" in maps:
        yield "chi2_per_voxel", np.square(maps["z"].values, dtype=np.float64)
    for name in (n for n in maps if n.startswith("gamma_")):
        gamma = np.asarray(maps[name].values, dtype=np.float64)
        yield f"{name}_mean", gamma
        yield f"{name}_passing_rate_percent", (gamma > 1).astype(np.float64)
    yield from _transport_weights(context)


def _transport_weights(context: ComparisonContext) -> Iterable[tuple[str, NDArray[Any]]]:
    """The same of the Dose Mover's Distance and the flat norm with their parts, where fields are known."""
    maps, grid = context.maps, context.reference.grid

    def field(name: str) -> NDArray[np.float64]:
        return np.asarray(maps[name].values, dtype=np.float64)

    if "dmd_index_mm" in maps and maps["dmd_index_mm"].grid.coincides_with(grid):
        mean = (context.reference.dose_gy + np.asarray(context.evaluated_here.dose_gy)) / 2
        dose = mean * grid.voxel_volume_mm3
        yield "dmd_mm", field("dmd_index_mm") ** 2 * dose
        yield "dmd_moved_mm", np.sum(field("displacement_mm") ** 2, axis=0) * dose
        yield "dmd_changed_percent", field("change_percent") ** 2 * dose
    if {"gain_loss_gy", "flow_mm"} <= maps.keys() and maps["flow_mm"].grid.coincides_with(grid):
        change = field("gain_loss_gy") * grid.voxel_volume_mm3
        moved = np.linalg.norm(field("flow_mm"), axis=0) * context.reference.max_gy * grid.voxel_volume_mm3
        yield "kr_mm", moved + _REACH_HALF * context.settings.reach_mm * np.abs(change)
        yield "kr_moved_mm", moved
        yield "kr_gained_percent", np.maximum(change, 0.0)
        yield "kr_lost_percent", np.maximum(-change, 0.0)


def _significant(context: ComparisonContext, noise: NoiseAtHand, here: DoseMap) -> None:
    """Masks of what noise alone does not reach: by relabelling where batches allow it, else from draws."""
    settings = context.settings
    count = min(settings.null or _DRAWS, _DRAWS)
    maps = {"reference": noise.reference, "evaluated": here}
    found = None
    if noise.by_batches:
        found = significant_by_relabelling(**maps, draws=count, rng=np.random.default_rng(settings.seed))
    how = f"{100 * found.level:.0f} %" if found else ""
    pairs = []
    if found is None or settings.null is not None:
        pairs = list(noise.parametric_pairs(draws=count, rng=np.random.default_rng(settings.seed)))
    if found is None:
        drawn = [{"reference": one, "evaluated": two.interpolated_to(one.grid)} for one, two in pairs]
        found = significant_voxels(
            averaged_difference(**maps),
            [averaged_difference(**pair) for pair in drawn],
            noise=None if noise.by_batches else averaged_noise(**drawn[0]),
        )
        how = f"about {100 * found.level:.0f} %"
    label = f"difference real, 3 x 3 x 3 voxels, {how} false alarms in the whole map"
    context.maps["significant_mask"] = _mask(context, found.mask, label)
    if settings.null is not None:
        _significant_fields(context, pairs)


def _significant_fields(context: ComparisonContext, pairs: Sequence[nulls.Pair]) -> None:
    """Masks of where the solvers' fields exceed the same fields between maps of noise alone."""
    if "dmd_index_mm" in context.maps:
        drawn = [_dose_mover_fields(context, *pair) for pair in pairs]
        for name, field in _DMD_FIELDS.items():
            _mark(context, name, [_size(one[field]) for one in drawn])
    if "gain_loss_gy" in context.maps:
        _mark(context, "gain_loss_gy", [_gain_loss(context, *pair) for pair in pairs])


def _mark(context: ComparisonContext, name: str, drawn: list[NDArray[Any]]) -> None:
    """The mask of one field, under the name of the field without its unit."""
    shown = context.maps[name]
    found = significant_voxels(_size(shown.values), drawn)
    label = f"{shown.label} beyond its own noise, about {100 * found.level:.0f} % false alarms"
    context.maps[f"{name.rsplit('_', 1)[0]}_significant_mask"] = FieldMap(
        values=found.mask.astype(np.float32), grid=shown.grid, unit="", label=label
    )


def _size(field: NDArray[Any]) -> NDArray[np.float64]:
    """A scalar field as it is, the length of vectors."""
    values = np.asarray(field, dtype=np.float64)
    return np.linalg.norm(values, axis=0) if values.ndim == 4 else values


def _gain_loss(context: ComparisonContext, one: DoseMap, two: DoseMap) -> NDArray[Any]:
    """The flat norm's gain and loss of one drawn pair."""
    found = transport.flat_norm(reference=one, evaluated=two, reach_mm=context.settings.reach_mm)
    return np.asarray(found.fields["gain_loss_gy"])


def _dose_mover_fields(context: ComparisonContext, one: DoseMap, two: DoseMap) -> Mapping[str, NDArray[Any]]:
    """Index, displacement and change of the Dose Mover's Distance of one drawn pair."""
    return transport.dose_movers_distance(
        reference=one,
        evaluated=two,
        exchange_mm_per_percent=context.settings.exchange_mm_per_percent,
        ambient_dose_percent=context.settings.ambient_dose_percent,
        bounds=False,
    ).fields


def _kawrakow_fippel(context: ComparisonContext, results: Mapping[str, MetricResult]) -> None:
    """The decomposition voxel by voxel and region by region, where it was asked for."""
    fitted = results.get("kf_fraction_percent")
    if fitted is None or fitted.value is None or "z" not in context.maps:
        return
    fractions = np.asarray(fitted.settings["fractions"], dtype=np.float64)
    shifts = np.asarray(fitted.settings["shifts_sigma"], dtype=np.float64)
    high = (
        context.reference.dose_gy
        >= fitted.settings["dose_threshold_percent"] / 100 * context.reference.max_gy
    )
    if fractions.size:
        z = np.asarray(context.maps["z"].values, dtype=np.float64)
        probability = 100 * systematic_probability(z, fractions=fractions, shifts_sigma=shifts)
        context.maps["kf_systematic_percent"] = FieldMap(
            values=np.where(high, probability, np.nan).astype(np.float32),
            grid=context.reference.grid,
            unit="%",
            label="probability that the difference is systematic",
        )
    noise = context.noise
    common = context.reference if noise is None else nulls.pooled_mean(noise.reference, noise.evaluated)
    for name, row in list(context.regions.items()):
        context.regions[name] = {**row, **_decomposed(context, _mask_of(context, name, common))}


def _mask_of(context: ComparisonContext, region: str, common: DoseMap) -> NDArray[Any] | None:
    """Voxels of a region of the table: all above a dose, by the mean of both maps, or a structure's."""
    structure = next((s for s in context.structures if s.name == region), None)
    if structure is not None:
        return metrics.structure_fraction(structure, context.reference.grid) > 0.5
    words = region.split()
    percent = float(words[1]) if words[0] == "above" else 0.0
    return common.dose_gy >= percent / 100 * context.normalization_dose_gy


def _decomposed(context: ComparisonContext, mask: NDArray[Any] | None) -> dict[str, float | None]:
    """Share and size of the systematic difference in one region."""
    try:
        found = metrics.kawrakow_fippel(
            reference=context.reference,
            evaluated=context.evaluated_here,
            dose_threshold_percent=0.0,
            mask=mask,
            n_permutations=_KF_PERMUTATIONS if context.noise is not None and context.noise.by_batches else 0,
            seed=context.settings.seed,
        )
    except InputError:  # no voxel of the region has an uncertainty
        found = None
    if found is None:
        return {"kf_fraction_percent": None, "kf_shift_sigma": None, "kf_p": None}
    return {
        "kf_fraction_percent": found.fraction_percent,
        "kf_shift_sigma": found.shift_sigma,
        "kf_p": found.p_value,
    }
