"""``dosemover convert IN OUT``."""

from __future__ import annotations

import argparse
from typing import Any


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "convert",
        help="convert a dose file to DICOM RT Dose, MHA, MHD, NRRD, NIfTI or NPZ",
        description="Convert a dose file; the format of OUT follows from its suffix "
        "(.dcm .mha .mhd .nrrd .nii .nii.gz .npz).",
    )
    parser.add_argument("source", metavar="IN", help="dose file, A.dcm+B.dcm to sum beams, or a directory")
    parser.add_argument("target", metavar="OUT", help="file to write")
    parser.add_argument("--unit", choices=("gy", "cgy"), help="unit of the values in IN")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Read, write, and say where."""
    from dosemover.io import read_dose, write_dose

    written = write_dose(read_dose(arguments.source, unit=arguments.unit), arguments.target)
    print(written)
    return 0
