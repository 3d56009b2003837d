"""Writing a file whole or not at all, and reading the TOML of a setup."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from dosemover.errors import DataFormatError, InputError


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Temporary file beside ``path`` that takes its place when the block ends without an error.

    Parameters
    ----------
    path : path-like
        The file to write. An existing file keeps its content until the block has ended; a link is
        followed.

    Yields
    ------
    pathlib.Path
        An empty file in the same folder, with the same suffixes, so that a library which picks the
        format by the name picks the right one. Where the block raises, it is removed.

    Raises
    ------
    InputError
        When the file cannot be written: no such folder, a folder of that name, no permission, no
        space left.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with atomic_write(Path(folder) / "dose.txt") as temporary:
    ...         _ = temporary.write_text("2 Gy")
    ...     (Path(folder) / "dose.txt").read_text()
    '2 Gy'
    """
    target = _checked_target(path)
    temporary = target.with_name(f".{secrets.token_hex(6)}-{target.name}")
    try:
        temporary.open("xb").close()
    except OSError as error:
        raise _cannot_write(path, error) from error
    try:
        yield temporary
        os.replace(temporary, target)
    except OSError as error:
        raise _cannot_write(path, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _checked_target(path: str | os.PathLike[str]) -> Path:
    """The file behind ``path``, or a clear refusal before anything is computed or written."""
    try:
        target = Path(path).resolve()
        if target.is_dir():
            raise InputError(f"{path} is a directory, not a file. Nothing was written. Name a file in it.")
        if not target.parent.is_dir():
            raise InputError(
                f"{path} cannot be written: the directory {target.parent} does not exist. "
                "Nothing was written. Create it first."
            )
        if target.exists() and not (target.is_file() and os.access(target, os.W_OK)):
            raise InputError(
                f"{path} exists and cannot be overwritten. Nothing was written. Name another file."
            )
    except (OSError, ValueError, RuntimeError) as error:
        if isinstance(error, InputError):
            raise
        raise _cannot_write(path, error) from error
    return target


def _cannot_write(path: str | os.PathLike[str], error: Exception) -> InputError:
    """One line for a failed write."""
    reason = getattr(error, "strerror", None) or str(error)
    return InputError(
        f"{path} cannot be written: {reason}. Nothing was written. "
        "Check the folder, its permissions and the space left on the disk."
    )


def read_toml(path: str | os.PathLike[str], *, consequence: str) -> dict[str, Any]:
    """Content of a TOML file.

    Parameters
    ----------
    path : path-like
    consequence : str
        What cannot be done without it: ends the message for a file that is not TOML.

    Raises
    ------
    DataFormatError
        When the file is not TOML.
    InputError
        When it cannot be read.
    """
    import tomllib

    source = Path(path)
    try:
        return tomllib.loads(source.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DataFormatError(f"{source.name} is not a TOML file: {error}. {consequence}") from error
    except OSError as error:
        raise InputError(f"{source} cannot be read: {error.strerror}. Check the path.") from error
