"""Files that the commands write: checked before the work, whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from dosemover.errors import InputError

if TYPE_CHECKING:
    from dosemover.comparison.result import ComparisonResult


def check_targets(report: str | None, json_file: str | None, directory: str | None) -> None:
    """Refuse outputs that cannot be written before anything is computed."""
    for option, name in (("--report", report), ("--json", json_file)):
        if name is None or (option == "--json" and name == "-"):
            continue
        path = Path(name)
        if path.is_dir():
            raise InputError(f"{option} {name}: is a directory. Pass the name of a file.")
        _check_folder(option, name, path.parent)
    if directory is not None:
        path = Path(directory)
        if path.exists() and not path.is_dir():
            raise InputError(f"--save-maps {directory}: is a file. Pass the name of a directory.")
        _check_folder("--save-maps", directory, path if path.exists() else path.parent)


def _check_folder(option: str, name: str, folder: Path) -> None:
    """A folder that exists and can be written to."""
    if not folder.is_dir():
        raise InputError(f"{option} {name}: the directory {folder} does not exist. Create it first.")
    if not os.access(folder, os.W_OK):
        raise InputError(f"{option} {name}: the directory {folder} cannot be written to. Choose another.")


def make_directory(directory: Path) -> Path:
    """Create a directory that may exist already."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{directory}: the directory cannot be created ({error.strerror}). Choose another."
        ) from error
    return directory


def write_text(name: str, text: str) -> None:
    """Write a text file whole or not at all."""
    from dosemover.io.atomic import atomic_write

    with atomic_write(Path(name)) as temporary:
        temporary.write_text(text, encoding="utf-8")


def save_maps(result: ComparisonResult, directory: Path) -> None:
    """Write every per-voxel result as DIR/NAME.nrrd."""
    from dosemover.io import write_map

    make_directory(directory)
    for name, one in result.maps.items():
        write_map(one.values, one.grid, directory / f"{name}.nrrd")
