"""Records that wait for room beside an event loop, which must not."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections import deque
from collections.abc import Mapping
from typing import Final

from pqvault.logs import InferenceLog

__all__ = ["Waiting"]

_MOST: Final = 64  # records that may wait
_LARGE: Final = 1024 * 1024  # bytes, which may wait though there is room for others


class Waiting:
    """Takes records into a log, on a thread of its own where that could wait. The loop's own pool
    is the application's: it would stand still while the disk is full."""

    def __init__(self, log: InferenceLog) -> None:
        self._log = log
        self._reset()

    def _reset(self) -> None:
        """Begin with nothing: at first, and in a forked child, whose parent has what waits."""
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._records: deque[tuple[float, Mapping[str, object]]] = deque()
        self._thread: threading.Thread | None = None  # there is one while records wait

    def take(self, record: Mapping[str, object], size: int = 0) -> None:
        """Log a record of about ``size`` bytes. When many wait already, it is dropped, and
        counted."""
        if self._log.has_room and size <= _LARGE:
            self._log.log(record)
        elif not self._put_aside(record):
            self._log.log(record, wait=0.0)

    def _put_aside(self, record: Mapping[str, object]) -> bool:
        if self._pid != os.getpid():
            self._reset()
        settings = self._log.settings
        wait = 0.0 if settings.when_full == "drop" else settings.block_seconds
        with self._lock:
            if len(self._records) >= _MOST:
                return False
            if self._thread is None:
                # No daemon: what waits is logged before the end of the process closes the log.
                thread = threading.Thread(target=self._run, name="pqvault-waiting")
                try:
                    thread.start()
                except RuntimeError:  # the interpreter is ending: no more threads
                    return False
                self._thread = thread
            self._records.append((time.monotonic() + wait, record))
            return True

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._records:
                    self._thread = None
                    return
                until, record = self._records.popleft()
            # Counted from when it came: all of them are through when the last may not wait more.
            self._log.log(record, wait=max(0.0, until - time.monotonic()))

    async def settle(self) -> None:
        """Return when nothing waits any more."""
        thread = self._thread
        if thread is not None:
            await asyncio.to_thread(thread.join)
