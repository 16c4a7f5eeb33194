"""Progress on standard error, when it is a terminal: rate and time left."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from pqvault.progress import Progress, Report, ignore

from .output import Output

__all__ = ["shown"]

_EVERY = 0.1  # seconds between two drawings


@contextmanager
def shown(
    output: Output,
    label: str,
    *,
    pieces: bool = False,
    content: bool = False,
) -> Iterator[Progress]:
    """A progress callback; one that does nothing when nobody watches.

    ``pieces``: what is done is counted, and not measured in bytes. ``content``: standard output
    takes content, of which a bar on the same terminal would wipe lines.
    """
    mixed = content and sys.stdout is not None and sys.stdout.isatty()
    if mixed or output.json or output.verbosity < 0 or not sys.stderr.isatty():
        yield ignore
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        *((MofNCompleteColumn(),) if pieces else (DownloadColumn(), TransferSpeedColumn())),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=None)
        lock = threading.Lock()
        last = 0.0

        def show(report: Report) -> None:
            nonlocal last
            now = time.monotonic()
            with lock:
                if now - last < _EVERY:
                    return
                last = now
            stage = f"{report.stage} {report.files:,} entries" if report.files else report.stage
            bar.update(task, description=stage, completed=report.done, total=report.total)

        yield show
