"""The RECORDS table of AAPM TG-268: what a Monte Carlo study must report."""

from __future__ import annotations

from typing import Any

from dosemover._runtime import provenance

EXTERNAL_TRANSPORT = {
    "ompmc": "photons and electrons (EGSnrc physics)",
    "mcsquare": "protons, multiple scattering, nuclear interactions; secondary protons, deuterons, alphas",
}
"""What each external engine transports."""

EXTERNAL_CHECKS = {
    "ompmc": "comparison with EGSnrc in tests/test_montecarlo_ompmc.py",
    "mcsquare": "range in water against CSDA in tests/test_montecarlo_mcsquare.py",
}
"""Where each external engine is checked."""


def _source_text(source: Any) -> str:
    """One source in words."""
    kind = type(source).__name__
    if kind == "PhaseSpaceSource":
        return f"phase space of {source.particles.shape[0]} photons"
    if kind == "ProtonField":
        energies = ", ".join(f"{energy:g}" for energy in source.energy_mev)
        return (
            f"protons of {energies} MeV, {len(source.spots_mm)} spots a layer, gantry {source.gantry_deg:g} "
            f"deg, isocentre {source.isocenter_mm} mm, weight {source.weight:g}"
        )
    spectrum = f"{source.spectrum.name or 'spectrum'}, mean {source.spectrum.mean_mev:.4g} MeV"
    if kind == "PointSource":
        return f"isotropic point at {source.position_mm} mm, {spectrum}, weight {source.weight:g}"
    where = f"direction {source.direction}" if source.direction else f"gantry {source.gantry_deg:g} deg"
    shape = "parallel" if source.source_distance_mm is None else f"source at {source.source_distance_mm:g} mm"
    return (
        f"{source.shape} field {source.field_mm} mm, {shape}, {where}, arc {source.arc_deg:g} deg, penumbra "
        f"{source.penumbra_mm:g} mm, {spectrum}, weight {source.weight:g}"
    )


def _reduction_text(config: Any) -> str:
    """Variance reduction in words."""
    reduction = config.variance_reduction
    words = [f"{config.estimator} estimator"]
    if reduction.super_voxels:
        words.append(f"super-voxel majorants of {reduction.super_voxels} voxels a side")
    if reduction.forced_interactions:
        words.append(f"first {reduction.forced_interactions} interactions forced")
    if reduction.stretch:
        words.append(f"exponential transform {reduction.stretch:g} along {reduction.stretch_direction}")
    if reduction.importance is not None:
        words.append("splitting and Russian roulette by an importance map")
    return ", ".join(words)


def _physics(config: Any) -> dict[str, str]:
    """Items that depend on the engine."""
    if config.engine in ("builtin", "cuda"):
        return {
            "code": f"dosemover {provenance()['version']}, engine {config.engine}",
            "validation": "AAPM TG-195 Case 4, NIST XCOM attenuation, Klein-Nishina "
            "(tests/test_montecarlo_*.py)",
            "cross sections": "NIST XCOM; form factors and incoherent functions of Hubbell et al. (xraylib)",
            "transport": (
                f"photons to {config.photon_cutoff_mev * 1000:g} keV by Woodcock or ray tracking: "
                "photoelectric, Compton with S(x), Rayleigh with F(x), pair with two annihilation photons; "
                "electrons deposit on the spot (kerma)"
            ),
            "variance reduction": _reduction_text(config),
        }
    return {
        "code": f"external engine {config.engine}, run by dosemover {provenance()['version']}",
        "validation": "of the engine; " + EXTERNAL_CHECKS[config.engine],
        "cross sections": "of the engine",
        "transport": EXTERNAL_TRANSPORT[config.engine],
        "variance reduction": "none",
    }


def records_table(result: Any) -> dict[str, str]:
    """Items of TG-268 (Sechopoulos et al. 2018), filled in from a `SimulationResult`.

    Parameters
    ----------
    result : SimulationResult

    Returns
    -------
    dict of str to str
    """
    config = result.config
    phantom = config.phantom
    physics = _physics(config)
    spacing = ", ".join(f"{h:g}" for h in phantom.grid.spacing_mm)
    materials = "; ".join(
        f"{m.name}: " + " ".join(f"{symbol} {share:.4f}" for symbol, share in m.mass_fractions.items())
        for m in phantom.materials
    )
    return {
        "code, version": physics["code"],
        "validation": physics["validation"],
        "timing": f"{result.seconds:.1f} s wall, {result.cpu_seconds:.1f} s CPU; {provenance()['platform']}",
        "geometry": f"{phantom.name}: {phantom.grid.shape} voxels (z, y, x) of {spacing} mm",
        "materials": materials,
        "source": "; ".join(_source_text(source) for source in config.sources),
        "cross sections": physics["cross sections"],
        "transport parameters": physics["transport"],
        "variance reduction": physics["variance reduction"],
        "scored quantity": f"dose to medium per voxel [{result.unit}]",
        "histories and statistics": (
            f"{result.histories} histories in {config.batches} batches, seed {config.seed}; mean relative "
            f"uncertainty above half the maximum {result.mean_relative_uncertainty_percent:.2f} % (k=1, "
            f"from the "
            f"batches); status {result.status}"
        ),
        "limits": " ".join(result.limits),
    }
