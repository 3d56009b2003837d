"""Compare two dose maps with every metric that is asked for."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any, Literal

from dosemover._runtime import Progress, no_progress, provenance
from dosemover.comparison import families
from dosemover.comparison.caveats import check_noise, warn_about_maps
from dosemover.comparison.context import ComparisonContext
from dosemover.comparison.floors import with_significance
from dosemover.comparison.inputs import as_dose_map, inputs_used, scale_factor
from dosemover.comparison.regions import with_regions
from dosemover.comparison.registry import run, select
from dosemover.comparison.result import ComparisonResult, MetricResult
from dosemover.comparison.settings import CompareSettings, Normalization, Scale, as_criteria
from dosemover.dose import DoseMap, Structure
from dosemover.errors import AccuracyWarning, GridMismatchError, InputError, StatisticalWarning
from dosemover.grid import require_overlap


def compare(
    reference: Any,
    evaluated: Any,
    *,
    structures: str | PathLike[str] | Structure | Sequence[Structure] | None = None,
    density: Any = None,
    metrics: str | Iterable[str] = "default",
    gamma: Iterable[tuple[float, float]] = ((3, 3), (2, 2)),
    gamma_interpolant: Literal["simplex", "grid"] = "simplex",
    normalization: Normalization = "global",
    dose_threshold_percent: float = 10.0,
    prescription_gy: float | None = None,
    scale: Scale = None,
    exchange_mm_per_percent: float = 1.0,
    ambient_dose_percent: float = 0.1,
    reach_mm: float = 10.0,
    profile: bool = False,
    null: int | None = None,
    seed: int = 0,
    spacing_mm: tuple[float, ...] | None = None,
    origin_mm: tuple[float, ...] = (0.0, 0.0, 0.0),
    identifiers: bool = False,
    progress: Progress | None = None,
) -> ComparisonResult:
    """How different two dose maps are, where, and whether it is more than noise.

    Parameters
    ----------
    reference, evaluated : path, DoseMap or array_like
        The two maps. Arrays are doses [Gy] indexed [z, y, x] and need ``spacing_mm``.
    structures : path, Structure or sequence of Structure, optional
        RT Structure Set or label map for the dose-volume histograms; by default the structures
        that the reference map brought along.
    density : path or array_like, optional
        Mass density of the reference grid [g/cm3], for energy-weighted metrics and pictures.
    metrics : str or iterable of str
        "default", "fast", "all", metric keys, or names of metric families.
    gamma : iterable of (float, float)
        Gamma criteria (dose [%], distance [mm]).
    gamma_interpolant : {"simplex", "grid"}
        "simplex" finds the minimum over the piecewise-linear evaluated dose; "grid" looks at voxel
        centres only, as some programs do.
    normalization : {"global", "local", "both"}
        Dose that the gamma criterion's % refers to.
    dose_threshold_percent : float
        Reference voxels below this share of the prescription, or of the reference maximum where none is
        given, are left out of gamma and its kin [%].
    prescription_gy : float, optional
        Normalisation dose [Gy]; the reference maximum by default.
    scale : float, "match-integral", "match-prescription", optional
        Factor for the evaluated map, or how to find it.
    exchange_mm_per_percent : float
        Exchange rate of the Dose Mover's Distance: how many mm of movement 1 % of change is worth.
    ambient_dose_percent : float
        Ambient dose of the Dose Mover's Distance [% of the reference maximum].
    reach_mm : float
        Reach of the flat norm [mm].
    profile : bool
        Add the Dose Mover's Distance over the exchange length and the flat norm over the reach.
    null : int, optional
        Number of draws under the null hypothesis of noise alone, 2 to 100 000.
    seed : int
        Seed of every random draw.
    spacing_mm, origin_mm : tuple of float
        Geometry of arrays (x, y, z) [mm].
    identifiers : bool
        Let patient identifiers into the JSON and the report.
    progress : callable, optional
        ``progress(what, fraction)``.

    Returns
    -------
    ComparisonResult

    Raises
    ------
    InputError
        When a map, a setting or a metric name cannot be used.
    GridMismatchError
        When the maps do not overlap.

    Notes
    -----
    *Limits*: a metric that cannot be computed has no value and a status that says why; the others
    still appear. Voxelwise metrics use the evaluated map at the reference's voxel centres
    (trilinear); gamma, mass, moments and transport use each map on its own grid.

    Examples
    --------
    >>> import numpy as np
    >>> dose = np.zeros((8, 8, 8))
    >>> dose[2:6, 2:6, 2:6] = 2.0
    >>> result = compare(dose, 1.02 * dose, spacing_mm=(2.0, 2.0, 2.0), metrics=["mass_ratio"])
    >>> round(result.metrics["mass_ratio"].value, 6)
    1.02
    """
    settings = CompareSettings(
        metrics=(metrics,) if isinstance(metrics, str) else tuple(metrics),
        gamma=as_criteria(gamma),
        gamma_interpolant=gamma_interpolant,
        normalization=normalization,
        dose_threshold_percent=dose_threshold_percent,
        prescription_gy=prescription_gy,
        scale=scale,
        exchange_mm_per_percent=exchange_mm_per_percent,
        ambient_dose_percent=ambient_dose_percent,
        reach_mm=reach_mm,
        profile=profile,
        null=null,
        seed=seed,
    )
    wanted = select(families.FAMILIES, settings)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        first = as_dose_map("reference", reference, spacing_mm=spacing_mm, origin_mm=origin_mm)
        second = as_dose_map("evaluated", evaluated, spacing_mm=spacing_mm, origin_mm=origin_mm)
        _check_pair(first, second)
        factor = scale_factor(
            reference=first, evaluated=second, scale=settings.scale, prescription_gy=prescription_gy
        )
        first = _with_density(first, density)
        context = ComparisonContext(
            reference=first,
            evaluated=second.scaled(factor),
            structures=_structures(first, structures),
            settings=settings,
            progress=progress or no_progress,
        )
        results = _results(context, wanted)
    used = inputs_used(context, structures=structures, density=density)
    return ComparisonResult(
        reference=replace(context.reference, structures=_on_grid(context)),
        evaluated=context.evaluated,
        metrics=results,
        maps=context.maps,
        structures=context.dvh_values,
        dvh_curves=context.dvh_curves,
        regions=context.regions,
        profiles=context.profiles,
        settings=settings.to_dict() | {"scale_factor": factor, "inputs": used},
        provenance=provenance() | {"seed": seed},
        warnings=_own_warnings(caught),
        identifiers=identifiers,
    )


def _results(context: ComparisonContext, wanted: dict[str, frozenset[str]]) -> dict[str, MetricResult]:
    """Every wanted metric with its floor and its share of low sampling; warnings about the maps first."""
    warn_about_maps(context, distances=any(one.name in wanted for one in families.DISTANCES))
    results = with_significance(context, families.FAMILIES, wanted, _run_all(context, wanted))
    return with_regions(context, results)


def _check_pair(reference: DoseMap, evaluated: DoseMap) -> None:
    """Refuse maps whose boxes have nothing in common, naming both, and noise that is not theirs."""
    try:
        require_overlap(reference.grid, evaluated.grid)
    except GridMismatchError as error:
        names = f"{reference.name or 'the reference'} and {evaluated.name or 'the evaluated map'}"
        raise GridMismatchError(f"{names}: {error}") from error
    for name, dose in (("reference", reference), ("evaluated", evaluated)):
        check_noise(name, dose)


def _own_warnings(caught: Sequence[warnings.WarningMessage]) -> tuple[str, ...]:
    """What the project warns of, once each; what libraries warn of goes on to the caller."""
    own: dict[str, None] = {}
    for one in caught:
        if issubclass(one.category, AccuracyWarning | StatisticalWarning):
            own[str(one.message)] = None
        else:
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
    return tuple(own)


def _on_grid(context: ComparisonContext) -> tuple[Structure, ...]:
    """Structures that share the reference's voxels: those that a picture of it can outline."""
    return tuple(s for s in context.structures if s.grid.coincides_with(context.reference.grid))


def _run_all(context: ComparisonContext, wanted: dict[str, frozenset[str]]) -> dict[str, MetricResult]:
    """Results of every family that something is wanted of, in the families' order."""
    results: dict[str, MetricResult] = {}
    todo = [family for family in families.FAMILIES if family.name in wanted]
    for i, family in enumerate(todo):
        context.progress(family.name, i / len(todo))
        for result in run(family, context, wanted[family.name]):
            results[result.key] = result
    context.progress("done", 1.0)
    return results


def _with_density(reference: DoseMap, density: Any) -> DoseMap:
    """The reference map with the density that was passed for it."""
    if density is None:
        return reference
    if isinstance(density, str | PathLike):
        from dosemover.io.companions import with_density
        from dosemover.io.read import read_map

        return with_density(reference, Path(density).name, *read_map(density))
    return replace(reference, density_g_per_cm3=density)


def _structures(
    reference: DoseMap, structures: str | PathLike[str] | Structure | Sequence[Structure] | None
) -> tuple[Structure, ...]:
    """Structures from a file, from the caller, or from the reference map."""
    if structures is None:
        return reference.structures
    if isinstance(structures, str | PathLike):
        from dosemover.io import read_structures

        frame = reference.source.get("FrameOfReferenceUID")
        return read_structures(structures, grid=reference.grid, frame_of_reference_uid=frame)
    if isinstance(structures, Structure):
        return (structures,)
    for structure in structures:
        if not isinstance(structure, Structure):
            raise InputError(
                f"`structures` must be a path or Structure objects, got {type(structure).__name__}."
            )
    return tuple(structures)
