"""Files that the commands write: checked before the work, whole or not at all."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dosemover.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from rich.console import Console

    from dosemover.comparison.result import ComparisonResult, FieldMap


_FILE_WIDTH = 140
"""Width of tables in characters where they do not go to a terminal."""


def output_console() -> Console:
    """Console of standard output: as wide as the terminal, or wide where it goes to a file or pipe."""
    from rich.console import Console

    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_FILE_WIDTH)


def check_targets(
    report: str | None, json_file: str | None, directory: str | None, *, inputs: Sequence[str] = ()
) -> None:
    """Refuse outputs that cannot be written or would overwrite an input or each other, before the work."""
    taken = {Path(name).resolve(): f"{name}, which is read" for name in inputs}
    for option, name in (("--report", report), ("--json", json_file)):
        if name is None or (option == "--json" and name == "-"):
            continue
        path = Path(name)
        if path.resolve() in taken:
            raise InputError(f"{option} {name} would overwrite {taken[path.resolve()]}. Name another file.")
        taken[path.resolve()] = f"what {option} writes"
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
    try:
        with tempfile.TemporaryFile(dir=folder):
            return
    except OSError as error:
        raise InputError(
            f"{option} {name}: the directory {folder} cannot be written to ({error.strerror}). Name another."
        ) from error


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
    from dosemover._files import atomic_write

    with atomic_write(Path(name)) as temporary:
        temporary.write_text(text, encoding="utf-8")


def save_maps(result: ComparisonResult, directory: Path) -> None:
    """Write every per-voxel result as DIR/NAME.nrrd, or .npz where voxels are uneven."""
    import numpy as np

    from dosemover.io import write_map

    make_directory(directory)
    for name, one in result.maps.items():
        values = np.moveaxis(one.values, 0, -1) if one.values.ndim == 4 else one.values
        if one.grid.is_even:
            write_map(values, one.grid, directory / f"{name}.nrrd", unit=one.unit)
        else:
            _save_uneven(values, one, directory / f"{name}.npz")


def _save_uneven(values: NDArray[Any], one: FieldMap, target: Path) -> None:
    """Values with the voxel boundaries that no image format can hold."""
    import numpy as np

    from dosemover._files import atomic_write

    edges: dict[str, Any] = {f"{axis}_edges_mm": e for axis, e in zip("zyx", one.grid.edges_mm, strict=True)}
    with atomic_write(target) as temporary:
        np.savez_compressed(temporary, values=values, unit=np.array(one.unit), **edges)
