"""The files of MCsquare: what it reads (configuration, image, calibration, plan, beam model) and writes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dosemover.errors import DosemoverError, InputError
from dosemover.montecarlo.phantoms import Phantom
from dosemover.montecarlo.protons import ProtonField

GRAY_PER_EV_PER_G = 1.602176634e-16
"""1 eV/g in Gy: MCsquare writes eV/g per primary."""

LOWEST_MEV, HIGHEST_MEV = 10.0, 250.0
"""Energies of the generic beam model [MeV]."""

THINNEST_G_PER_CM3 = 1e-6
"""Density given to vacuum."""

FORMAT_LINE = "--UPenn beam model (double gaussian)--"
"""First line of a beam model of this layout: without it MCsquare reads another, and every proton misses."""

MEDIA = {
    "water": "Water",
    "air": "Air",
    "lung": "Lung",
    "adipose": "Adipose_Tissue",
    "soft_tissue": "Muscle_Skeletal",
    "muscle": "Muscle_Skeletal",
    "brain": "Brain",
    "spongiosa": "Bone_Spongiosa",
    "cortical_bone": "Bone_Cortical",
    "pmma": "PMMA",
    "polyethylene": "PEHD",
    "aluminium": "aluminium",
    "titanium": "titanium",
    "iron": "iron",
    "copper": "copper",
    "tungsten": "tungsten",
}
"""MCsquare material of each library material; voxels keep their own density."""


@dataclass(frozen=True, kw_only=True, eq=False)
class BeamModel:
    """A beam model as MCsquare reads it, and the energies that it covers [MeV]."""

    text: str
    lowest_mev: float
    highest_mev: float


def generic_beam_model(spot_sigma_mm: float, energy_spread_percent: float) -> BeamModel:
    """Parallel spots with one Gaussian profile and Gaussian energies; weights are numbers of protons.

    Parameters
    ----------
    spot_sigma_mm : float
        Standard deviation of a spot in vacuum [mm].
    energy_spread_percent : float
        Standard deviation of the energy, in percent of it.
    """
    if not (spot_sigma_mm > 0 and energy_spread_percent >= 0):
        raise InputError(
            "`spot_sigma_mm` must be positive and `energy_spread_percent` not negative, got "
            f"{spot_sigma_mm} and {energy_spread_percent}. The spots have no shape."
        )
    # MCsquare divides by divergence and correlation: they are made too small to matter instead of 0
    gaussian = f"{spot_sigma_mm:.6f} 1e-5 1e-3 {spot_sigma_mm:.6f} 1e-5 1e-3"
    energies = np.arange(LOWEST_MEV, HIGHEST_MEV + 1)
    spread = f"{energy_spread_percent:.6f}"
    rows = [f"{e:.1f} {e:.1f} {spread} 1.0 1.0 {gaussian} 0.0 {gaussian}" for e in energies]
    head = [FORMAT_LINE, "", "Nozzle exit to Isocenter distance", "500.0", ""]
    head += ["SMX to Isocenter distance", "1e5", "", "SMY to Isocenter distance", "1e5", ""]
    head += ["Beam parameters", f"{energies.size} energies", ""]
    columns = ["NominalEnergy", "MeanEnergy", "EnergySpread", "ProtonsMU"]
    for n in (1, 2):
        columns.append(f"Weight{n}")
        columns += [f"{name}{n}{axis}" for axis in "xy" for name in ("SpotSize", "Divergence", "Correlation")]
    head.append(" ".join(columns))
    return BeamModel(text="\n".join([*head, *rows]) + "\n", lowest_mev=LOWEST_MEV, highest_mev=HIGHEST_MEV)


def read_beam_model(path: Path) -> BeamModel:
    """A beam model of the user's, with line ends and comments that MCsquare mistakes for data taken out."""
    try:
        raw = path.read_bytes().decode("latin-1")
    except OSError as error:
        raise InputError(
            f"the beam model {path} cannot be read: {error.strerror}. There are no beams. Check `beam_model`."
        ) from error
    lines = [
        line.split("#")[0].rstrip() for line in raw.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    ]
    start = next(
        (n for n, line in enumerate(lines) if line.strip().lower().startswith("nominalenergy")), None
    )
    rows = [] if start is None else [line.split() for line in lines[start + 1 :] if line.strip()]
    try:
        energies = [float(row[0]) for row in rows]
    except ValueError:
        energies = []
    if not energies:
        raise InputError(
            f"{path.name} is no beam model: it has no table under a line that begins with NominalEnergy. "
            "MCsquare would lose every proton without a word. Give a BDL file, or leave `beam_model` out."
        )
    return BeamModel(text="\n".join(lines), lowest_mev=min(energies), highest_mev=max(energies))


def read_materials(folder: Path) -> dict[str, int]:
    """Labels of MCsquare's materials by name, from ``list.dat``."""
    try:
        lines = (folder / "list.dat").read_text(encoding="latin-1").splitlines()
    except OSError as error:
        raise InputError(
            f"MCsquare's materials are not in {folder} ({error.strerror}). It cannot start. Set `materials` "
            "in [engine], or MCsquare_Materials_Dir, to the folder that holds list.dat."
        ) from error
    words = [line.split("#")[0].split() for line in lines]
    return {row[1]: int(row[0]) for row in words if len(row) >= 2 and row[0].isdigit()}


def write_image(folder: Path, phantom: Phantom, labels: Sequence[int]) -> None:
    """Write the phantom as an image whose numbers stand for material and density, with both tables.

    Each material has a range of its own, in which the number less its start is the density [g/cm3], so that
    materials and densities stay free of each other. x and y run backwards: MCsquare's axes are the patient's
    turned by 180 degrees about z.
    """
    rho = np.maximum(phantom.density_g_per_cm3, THINNEST_G_PER_CM3).astype(np.float64)
    number = np.empty(rho.shape)
    density, material, start = [], [], 0.0
    # light materials first: single precision then holds their densities best
    for m in sorted(range(len(labels)), key=lambda m: phantom.materials[m].density_g_per_cm3):
        inside = phantom.material == m
        if not np.any(inside):
            continue
        top = float(rho[inside].max())
        number[inside] = start + rho[inside]
        density += [f"{start:.9g} 0.0", f"{start + top:.9g} {top:.9g}"]
        material.append(f"{start - 0.25:.9g} {labels[m]}")
        start += top + 1.0
    (folder / "HU_Density_Conversion.txt").write_text("\n".join(density) + "\n", encoding="ascii")
    (folder / "HU_Material_Conversion.txt").write_text("\n".join(material) + "\n", encoding="ascii")
    shape = phantom.grid.shape
    spacing = [(b - a) / n for (a, b), n in zip(phantom.grid.box_mm, shape, strict=True)]
    header = (
        "ObjectType = Image\nNDims = 3\n"
        f"DimSize = {shape[2]} {shape[1]} {shape[0]}\n"
        f"ElementSpacing = {spacing[2]:.9g} {spacing[1]:.9g} {spacing[0]:.9g}\n"
        "Offset = 0 0 0\nElementType = MET_FLOAT\nElementByteOrderMSB = False\nElementDataFile = CT.raw\n"
    )
    (folder / "CT.mhd").write_text(header, encoding="ascii")
    np.ascontiguousarray(number[:, ::-1, ::-1], dtype="<f4").tofile(folder / "CT.raw")


def plan_text(fields: Sequence[ProtonField], phantom: Phantom) -> str:
    """The plan of all fields.

    The isocentre counts from the low corner of the turned image along y and z, from its far end along x
    [mm].
    """
    total = sum(field.weight for field in fields)
    (z_low, _), (_, y_high), (x_low, _) = phantom.grid.box_mm
    text = ["#TREATMENT-PLAN-DESCRIPTION", "#PlanName", "dosemover", "#NumberOfFractions", "1"]
    text += ["##FractionID", "1", "##NumberOfFields", f"{len(fields)}"]
    for n in range(len(fields)):
        text += ["###FieldsID", f"{n + 1}"]
    text += ["#TotalMetersetWeightOfAllFields", f"{total:.9g}", ""]
    for n, field in enumerate(fields):
        x, y, z = field.isocenter_mm
        text += ["#FIELD-DESCRIPTION", "###FieldID", f"{n + 1}"]
        text += ["###FinalCumulativeMeterSetWeight", f"{field.weight:.9g}"]
        text += ["###GantryAngle", f"{field.gantry_deg:.9g}", "###PatientSupportAngle", "0.0"]
        text += ["###IsocenterPosition", f"{x - x_low:.9g} {y_high - y:.9g} {z - z_low:.9g}"]
        text += ["###NumberOfControlPoints", f"{len(field.energy_mev)}", "", "#SPOTS-DESCRIPTION"]
        text += _layers(field)
    return "\n".join(text) + "\n"


def _layers(field: ProtonField) -> list[str]:
    """Lines of the layers of a field, its weights summing to the field's."""
    spots, text, cumulative = field.spots(), [], 0.0
    for k, energy in enumerate(field.energy_mev):
        layer = spots[spots[:, 0] == energy] * [1.0, 1.0, 1.0, field.weight]
        cumulative += float(layer[:, 3].sum())
        text += ["####ControlPointIndex", f"{k + 1}", "####SpotTunnedID", "1"]
        text += ["####CumulativeMetersetWeight", f"{cumulative:.9g}", "####Energy (MeV)", f"{energy:.9g}"]
        text += ["####NbOfScannedSpots", f"{len(layer)}", "####X Y Weight"]
        text += [f"{a:.9g} {b:.9g} {w:.9g}" for _, a, b, w in layer]
    return text


def config_text(*, histories: int, seed: int) -> str:
    """The configuration of one run in one thread: the same seed then gives the same bits."""
    settings = {
        "Num_Threads": 1,
        "RNG_Seed": seed,
        "Num_Primaries": histories,
        "CT_File": "CT.mhd",
        "HU_Density_Conversion_File": "HU_Density_Conversion.txt",
        "HU_Material_Conversion_File": "HU_Material_Conversion.txt",
        "BDL_Machine_Parameter_File": "BDL.txt",
        "BDL_Plan_File": "PlanPencil.txt",
        "Simulate_Nuclear_Interactions": True,
        "Simulate_Secondary_Protons": True,
        "Simulate_Secondary_Deuterons": True,
        "Simulate_Secondary_Alphas": True,
        "Dose_to_Water_conversion": "Disabled",
        "Compute_stat_uncertainty": False,
        "Dose_MHD_Output": True,
        "Output_Directory": "Outputs",
    }
    return "".join(f"{key} {value}\n" for key, value in settings.items())


def read_dose(folder: Path, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Dose of a run [Gy per primary], shape [z, y, x], or an error where it is not what was asked for."""
    header, raw = folder / "Dose.mhd", folder / "Dose.raw"
    if not header.exists() or not raw.exists():
        raise DosemoverError(
            "MCsquare ended without an error and without a dose. Nothing can be read. Look at its output "
            "above, and whether the disk is full."
        )
    fields = dict(re.findall(r"^(\w+)\s*=\s*(.*?)\s*$", header.read_text(encoding="latin-1"), re.MULTILINE))
    kind = {"MET_FLOAT": "<f4", "MET_DOUBLE": "<f8"}.get(fields.get("ElementType", ""))
    size = tuple(int(n) for n in re.findall(r"\d+", fields.get("DimSize", "")))[::-1]
    if kind is None or size != shape or raw.stat().st_size != int(np.prod(shape)) * np.dtype(kind).itemsize:
        raise DosemoverError(
            f"MCsquare wrote {raw.stat().st_size} bytes as {size} voxels (z, y, x) of type "
            f"{fields.get('ElementType')}, and the phantom has {shape}. The dose is not that of the "
            "phantom, or was cut short. Check the space left on the disk and run it again."
        )
    dose = np.fromfile(raw, dtype=kind).reshape(shape)[:, ::-1, ::-1].astype(np.float64) * GRAY_PER_EV_PER_G
    if not np.all(np.isfinite(dose)) or dose.min() < 0 or dose.max() <= 0:
        raise DosemoverError(
            "MCsquare wrote a dose that is 0 everywhere, negative or not a number. The protons may miss "
            "the phantom. Check the isocentre, the gantry angle and the beam model."
        )
    return dose
