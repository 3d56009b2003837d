"""Optimal transport in a comparison: values, certified intervals, parts and maps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dosemover import transport
from dosemover.comparison.context import ComparisonContext
from dosemover.comparison.noise_at_hand import NoiseAtHand
from dosemover.comparison.registry import Family, Null, fixed_keys
from dosemover.comparison.result import FieldMap, MetricResult
from dosemover.comparison.settings import CompareSettings
from dosemover.comparison.warm_up import finish_compilation
from dosemover.errors import GridMismatchError
from dosemover.grid import Grid, conserve, union_grid
from dosemover.noise import Relabellings
from dosemover.transport import TransportResult

if TYPE_CHECKING:
    from dosemover.transport.mover_gram import MoverGram

_DMD_PARTS = {
    "dmd_moved_mm": "mm",
    "dmd_changed_percent": "%",
    "dmd_residual_max_percent": "%",
    "dmd_residual_p99_percent": "%",
}
_DMD_RESIDUALS = ("dmd_residual_max_percent", "dmd_residual_p99_percent")
"""Parts that are known only where the fields are."""
_RELABELLINGS = 999
_KR_PARTS = {"kr_moved_mm": "mm", "kr_gained_percent": "%", "kr_lost_percent": "%"}

_MAPS = {
    "displacement_mm": ("mm", "displacement v"),
    "change_percent": ("%", "change c"),
    "index_mm": ("mm", "index sqrt(|v|² + (L c)²)"),
    "residual_gy": ("Gy", "residual after the motion"),
    "gain_loss_gy": ("Gy", "gained (+) or lost (-)"),
    "flow_mm": ("mm", "flow of dose over the reference maximum"),
}
"""Unit and label of the fields that a solver may return."""


def _result(key: str, found: TransportResult, *, certified: bool = True) -> MetricResult:
    """A solver's distance as a metric; bounds only where they are bounds on the value itself."""
    return MetricResult(
        key=key,
        value=found.value,
        unit="mm",
        lower=found.lower if certified else None,
        upper=found.upper if certified else None,
        settings=dict(found.settings),
        status=found.status,
    )


def _maps(context: ComparisonContext, found: TransportResult, names: dict[str, str]) -> None:
    """Fields of a solver into the comparison's maps, under the comparison's names."""
    for field, name in names.items():
        if field in found.fields:
            unit, label = _MAPS[field]
            values, grid = _on_reference(context, np.asarray(found.fields[field]), found.grid)
            context.maps[name] = FieldMap(
                values=values.astype(np.float32, copy=False), grid=grid, unit=unit, label=label
            )


def _on_reference(context: ComparisonContext, values: NDArray[Any], grid: Grid) -> tuple[NDArray[Any], Grid]:
    """A field averaged over the reference's voxels, where pieces of them had to be compared."""
    if context.reference.grid.coincides_with(context.evaluated.grid):
        return values, grid
    try:
        target = union_grid(context.reference.grid, context.evaluated.grid)
    except GridMismatchError:  # too many voxels of the reference
        return values, grid
    if values.ndim == 3:
        return conserve(values, source=grid, target=target), target
    return np.stack([conserve(v, source=grid, target=target) for v in values]), target


def _dose_mover(context: ComparisonContext, wanted: frozenset[str]) -> Iterator[MetricResult]:
    """The Dose Mover's Distance, its parts and its fields."""
    finish_compilation()
    settings = context.settings
    shared: dict[str, Any] = {
        "reference": context.reference,
        "evaluated": context.evaluated,
        "ambient_dose_percent": settings.ambient_dose_percent,
    }
    found = transport.dose_movers_distance(
        **shared,
        exchange_mm_per_percent=settings.exchange_mm_per_percent,
        bounds=not context.values_only,
        fields=not (context.values_only and wanted.isdisjoint(_DMD_RESIDUALS)),
        refine=_rounds(settings),
        progress=context.progress,
    )
    judge = mover_judge(context, shared)
    result = _result("dmd_mm", found)
    yield judge(replace(result, settings={**result.settings, "refine": _rounds(settings)}))
    for key, unit in _DMD_PARTS.items():
        if key in found.parts:
            yield judge(MetricResult(key=key, value=found.parts[key], unit=unit, status=found.status))
    if context.values_only:
        return
    names = {"index_mm": "dmd_index_mm", "residual_gy": "dmd_residual_gy"}
    _maps(context, found, {name: names.get(name, name) for name in _MAPS})
    if settings.profile:
        context.profiles["dmd_mm"] = transport.dose_mover_profile(**shared)


def _rounds(settings: CompareSettings) -> int:
    """Rounds that tighten the certified interval: one where the default set asks for a quick answer."""
    return 1 if "default" in settings.metrics else 3


def mover_judge(context: ComparisonContext, shared: dict[str, Any]) -> Callable[[MetricResult], MetricResult]:
    """What gives the Dose Mover's Distance and its parts their floors, where no draws are asked for."""
    noise = context.noise
    if context.values_only or context.settings.null is not None or noise is None:
        return lambda result: result
    shared = shared | {
        "reference": noise.reference,
        "evaluated": noise.evaluated,
        "exchange_mm_per_percent": context.settings.exchange_mm_per_percent,
    }
    gram, relabelled = _gram(noise, shared, context.settings.seed)
    if gram is not None and gram.exact_floor:
        parts, probes, method = gram.noise(), sum(gram.sizes), "floor from the batches' covariance"
    else:
        floor = transport.dose_mover_floor(
            **shared,
            seed=context.settings.seed,
            gram=gram,
            **_known_correlation(noise),
        )
        parts, probes, method = floor.parts, floor.n_probes, floor.method
    if relabelled and gram is not None:
        cells = "" if gram.exact_floor else f", on cells of {_times(gram.merged)} voxels"
        method = f"exact p by relabelling batches in the quadratic form of the distance{cells}; {method}"
    elif noise.needs_correlation:
        method = f"{method}, {noise.method}"

    def judge(result: MetricResult) -> MetricResult:
        if result.value is None or result.key not in parts:
            return result
        floor, deviation = parts[result.key].root
        return replace(
            result,
            floor=floor,
            floor_sd=deviation,
            z=(result.value - floor) / deviation if deviation > 0 else None,
            p=relabelled.get(result.key, parts[result.key].p_value(result.value)),
            settings={**result.settings, "significance": method, "floor_probes": probes}
            | ({"null_draws": _RELABELLINGS} if relabelled else {}),
        )

    return judge


def _known_correlation(noise: NoiseAtHand) -> dict[str, Any]:
    """How the noise of maps without batches hangs together, and how well that is known."""
    if not noise.needs_correlation:
        return {}
    model = noise.model
    known = {"freedom": model.correlation.freedom, "inflation": model.correlation.inflation}
    return {"normal": model.draw, **known}


def _gram(noise: NoiseAtHand, shared: dict[str, Any], seed: int) -> tuple[MoverGram | None, dict[str, float]]:
    """The quadratic form in the batches, and exact p values where there are enough of them."""
    if not noise.by_batches:
        return None, {}
    gram = transport.dose_mover_gram(**shared)
    ways = Relabellings(*gram.sizes)
    if not ways.enough:
        return gram, {}
    return gram, {key: ways.p_value(form, draws=_RELABELLINGS, seed=seed) for key, form in gram.forms.items()}


def _times(factors: tuple[int, ...]) -> str:
    """Sizes of a cell in voxels, x y z."""
    return " x ".join(str(f) for f in factors[::-1])


def _flat_norm(context: ComparisonContext, wanted: frozenset[str]) -> Iterator[MetricResult]:
    """The flat norm, its parts, its flow and its gain/loss map."""
    shared: dict[str, Any] = {"reference": context.reference, "evaluated": context.evaluated}
    found = transport.flat_norm(**shared, reach_mm=context.settings.reach_mm, progress=context.progress)
    yield _result("kr_mm", found)
    for key, unit in _KR_PARTS.items():
        yield MetricResult(key=key, value=found.parts[key], unit=unit, status=found.status)
    if context.values_only:
        return
    _maps(context, found, {name: name for name in ("gain_loss_gy", "flow_mm")})
    if context.settings.profile:
        context.profiles["kr_mm"] = transport.flat_norm_profile(**shared)


def _plain(name: str, key: str, *, certified: bool = True) -> Callable[..., Iterator[MetricResult]]:
    """Family function of a solver that needs nothing but the two maps."""

    def compute(context: ComparisonContext, wanted: frozenset[str]) -> Iterator[MetricResult]:
        solver = getattr(transport, name)
        found = solver(reference=context.reference, evaluated=context.evaluated)
        yield _result(key, found, certified=certified)

    return compute


def _balanced(
    name: str, key: str, *, certified: bool = True, default: str = "none", null: Null = "on request"
) -> Family:
    """Family of one balanced distance."""
    return Family(
        name=key.removesuffix("_mm"),
        keys=fixed_keys(**{key: "mm"}),
        compute=_plain(name, key, certified=certified),
        default=default,
        null=null,
    )


DOSE_MOVER = Family(
    name="dmd",
    keys=fixed_keys(dmd_mm="mm", **_DMD_PARTS),
    compute=_dose_mover,
    default="all",
    null="on request",
)
FLAT_NORM = Family(name="kr", keys=fixed_keys(kr_mm="mm", **_KR_PARTS), compute=_flat_norm, null="on request")

TRANSPORT = (
    DOSE_MOVER,
    FLAT_NORM,
    _balanced("wasserstein_1", "w1_mm"),
    _balanced("wasserstein_2", "w2_mm"),
    _balanced("sliced_w1", "sliced_w1_mm", null="coarse"),
    _balanced("sliced_w2", "sliced_w2_mm", default="all", null="coarse"),
    _balanced("axis_w1", "axis_w1_mm", null="always"),
    _balanced("axis_w2", "axis_w2_mm", default="all", null="always"),
    _balanced("sobolev_w2", "sobolev_w2_mm"),
    _balanced("sinkhorn_divergence", "sinkhorn_divergence_mm"),
    _balanced("emd", "emd_mm", certified=False),
)
