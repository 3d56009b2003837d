"""Progress on stderr, for anything that takes longer than a second."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from dosemover._runtime import Progress, no_progress

_DELAY_S = 1.0


@contextmanager
def progress_bar(*, quiet: bool) -> Iterator[Progress]:
    """Callback that shows a bar on a terminal once a second has passed."""
    if quiet or not sys.stderr.isatty():
        yield no_progress
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    bar = Bar(
        TextColumn("[dim]{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    task = bar.add_task("", total=1.0)
    start = time.monotonic()

    def show(what: str, fraction: float) -> None:
        bar.update(task, description=what, completed=fraction)
        if not bar.live.is_started and time.monotonic() - start > _DELAY_S and fraction < 1:
            bar.start()

    try:
        yield show
    finally:
        bar.stop()


def say(message: str, *, quiet: bool) -> None:
    """One line on stderr."""
    if not quiet:
        print(message, file=sys.stderr)
