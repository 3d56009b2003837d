"""Sums of dose files: beams of a plan, without counting anything twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dosemover.dose import DoseMap
from dosemover.errors import DataFormatError, GridMismatchError, InputError, UnitError

_WHOLE = frozenset({"PLAN", "MULTI_PLAN", "PLAN_OVERVIEW"})
"""Values of DoseSummationType that hold the beams of a plan already."""

_PARTS = frozenset({"BEAM", "BRACHY"})
"""Values of DoseSummationType that are parts of a plan, to be summed."""

RT_DOSE_STORAGE = "1.2.840.10008.5.1.4.1.1.481.2"


@dataclass(frozen=True, kw_only=True)
class _Facts:
    """What decides whether two RT Dose files may be added."""

    file: Path
    instance: str
    kind: str
    plan: str


def dose_files(folder: Path) -> tuple[list[Path], dict[str, Any]]:
    """The RT Dose files of a directory that make one dose, and what to note about them.

    Parameters
    ----------
    folder : Path
        A directory of DICOM files, of which RT Dose files are looked at, or an OpenKBP folder.

    Returns
    -------
    files : list of Path
        Beams to sum, one plan dose, or the OpenKBP folder itself.
    note : dict
        For `DoseMap.source`.

    Raises
    ------
    InputError
        When no RT Dose is there, or when it is not clear which make one dose.
    """
    from dosemover.io.openkbp import is_openkbp_folder

    if is_openkbp_folder(folder):
        return [folder], {}
    facts = [f for f in map(_facts, sorted(p for p in folder.iterdir() if p.is_file())) if f is not None]
    if not facts:
        raise InputError(
            f"{folder} is a directory without RT Dose files and no OpenKBP folder. There is no dose to read. "
            "Name a dose file, or a directory of beam doses."
        )
    if len(facts) == 1:
        return [facts[0].file], {}
    _refuse_copies(facts)
    whole = [f for f in facts if f.kind in _WHOLE]
    if len(whole) == 1:
        left = [f.file.name for f in facts if f is not whole[0]]
        note = f"plan dose {whole[0].file.name}; {len(left)} other RT Dose files are part of it and not added"
        return [whole[0].file], {"sum": note}
    kinds = Counter(f.kind or "none" for f in facts)
    if whole or not {f.kind for f in facts} <= _PARTS or len({f.plan for f in facts}) > 1:
        listed = ", ".join(f"{n} {kind}" for kind, n in kinds.items())
        raise InputError(
            f"{folder} holds {len(facts)} RT Dose files of {len({f.plan for f in facts})} plan(s), with "
            f"DoseSummationType {listed}. Which of them make one dose is not clear. "
            "Name the file, or those to be summed as A.dcm+B.dcm."
        )
    return [f.file for f in facts], {}


def summed(maps: Sequence[DoseMap], files: Sequence[Path], *, name: str | None) -> DoseMap:
    """Sum of dose maps on one grid, uncertainties in quadrature.

    Parameters
    ----------
    maps : sequence of DoseMap
    files : sequence of Path
        Where they come from.
    name : str, optional
        What to call the sum; by default the files' names with plus signs.

    Raises
    ------
    GridMismatchError
        When the grids differ.
    UnitError
        When the units differ.
    InputError
        When a dose would be counted twice, or frames of reference differ.
    """
    first = maps[0]
    for one in maps[1:]:
        if not one.grid.coincides_with(first.grid):
            raise GridMismatchError(
                f"{first.name} and {one.name} cannot be summed: {first.grid.shape} voxels of "
                f"{first.grid.spacing_mm} mm from {first.grid.origin_mm} against {one.grid.shape} of "
                f"{one.grid.spacing_mm} from {one.grid.origin_mm}. Export the beams on one grid."
            )
        if one.unit != first.unit:
            raise UnitError(
                f"{first.name} is in {first.unit}, {one.name} in {one.unit}: they cannot be summed. "
                "Export both in the same unit."
            )
    _refuse_copies([f for f in map(_facts, files) if f is not None])
    if len({file.resolve() for file in files}) < len(files):
        raise InputError(f"{'+'.join(f.name for f in files)} names a file twice. Its dose would count twice.")
    kinds = {str(one.source.get("DoseSummationType", "")) for one in maps}
    if kinds & _WHOLE and kinds - _WHOLE:
        raise InputError(
            f"{'+'.join(f.name for f in files)} mixes DoseSummationType {' and '.join(sorted(kinds))}. A "
            "plan dose holds its beams already: they would count twice. Name the plan dose, or the beams "
            "alone."
        )
    for key, what in (("FrameOfReferenceUID", "frames of reference"), ("DoseType", "dose types")):
        if len({one.source[key] for one in maps if key in one.source}) > 1:
            raise InputError(
                f"{'+'.join(f.name for f in files)} have different {what}. They cannot be summed."
            )
    variances = [np.square(m.uncertainty_gy, dtype=np.float64) for m in maps if m.uncertainty_gy is not None]
    source = dict(first.source)
    source |= {"file": name or "+".join(f.name for f in files), "sum": f"{len(maps)} files"}
    if 0 < len(variances) < len(maps):
        source["uncertainty"] = f"left out: only {len(variances)} of {len(maps)} files have one"
    return DoseMap(
        dose_gy=sum((m.dose_gy for m in maps[1:]), start=first.dose_gy.astype(np.float64)),
        grid=first.grid,
        uncertainty_gy=np.sqrt(sum(variances)) if len(variances) == len(maps) else None,
        density_g_per_cm3=first.density_g_per_cm3,
        structures=first.structures,
        unit=first.unit,
        name=str(source["file"]),
        source=source,
        identifiers=first.identifiers,
    )


def _refuse_copies(facts: Sequence[_Facts]) -> None:
    """Refuse two files that are copies of one dose."""
    seen: dict[str, Path] = {}
    for one in facts:
        if one.instance and one.instance in seen:
            raise InputError(
                f"{seen[one.instance].name} and {one.file.name} are the same RT Dose (one SOPInstanceUID). "
                "It would count twice. Remove the copy."
            )
        seen[one.instance] = one.file


def _facts(file: Path) -> _Facts | None:
    """Facts of an RT Dose file; None for every other file."""
    from dosemover.io.dicom_dataset import is_dicom, items, read_dataset, text

    if not is_dicom(file):
        return None
    try:
        dataset = read_dataset(file, sop_class_uid=RT_DOSE_STORAGE, kind="an RT Dose")
    except (InputError, DataFormatError):
        return None
    plans = [text(item, "ReferencedSOPInstanceUID") for item in items(dataset, "ReferencedRTPlanSequence")]
    return _Facts(
        file=file,
        instance=text(dataset, "SOPInstanceUID"),
        kind=text(dataset, "DoseSummationType"),
        plan=plans[0] if plans else "",
    )
