"""How long work tells where it stands: one callback, one small value."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import NamedTuple

from pqvault.errors import PQVaultError

__all__ = ["Meter", "Progress", "Report", "ignore"]


class Report(NamedTuple):
    """``stage``: what is being done. Bytes of content done and, when it is known, in all."""

    stage: str
    done: int = 0
    total: int | None = None
    files: int = 0


Progress = Callable[[Report], object]


def ignore(report: Report) -> None:
    """The default: nothing is shown."""


class Meter:
    """The bytes that several threads have done of a run, told to ``progress``. ``total``: of the
    run, as far as it is known by then. Once :attr:`stop` is set, who tells of more is ended."""

    def __init__(self, stage: str, progress: Progress, total: Callable[[], int | None]) -> None:
        self.stop = threading.Event()
        self.done = 0
        self._stage = stage
        self._progress = progress
        self._total = total
        self._lock = threading.Lock()

    def check(self) -> None:
        """Raise PQVaultError once the run is stopped."""
        if self.stop.is_set():
            raise PQVaultError("stopped")

    def tell(self, count: int) -> None:
        """So many more are done; none: somebody waits. Raises as :meth:`check`."""
        self.check()
        if not count:
            return
        with self._lock:
            self.done += count
            done = self.done
        total = self._total()
        # What is read once more, a bad object or a file with several names, is no more to do.
        done = done if total is None else min(done, total)
        self._progress(Report(self._stage, done=done, total=total))
