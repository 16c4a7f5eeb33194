"""Turns: threads that read small files one at a time, while the others compress.

A small file is five system calls, and each lets another thread have the interpreter; two threads
that do this at once wake each other ten times a file, which takes longer than the file. So who
reads small files holds the turn, up to where a frame is compressed.

That is right when files come from memory. Where reading waits for a disk, waiting together is
better: after a turn in which the process was mostly idle, threads go without for a while.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

__all__ = ["Turns"]

_IDLE: Final = 0.5  # of one processor, in use by all threads during a turn
_WITHOUT: Final = 16  # turns that are left out after one that lasted longer


class Turns:
    """Whose turn it is. For as many threads as share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._mine = threading.local()
        self._without = 0  # turns to go without; only a hint, so no lock for it

    @contextmanager
    def turn(self) -> Iterator[None]:
        """The block has its turn, but for where it says :meth:`aside`."""
        self._take()
        try:
            yield
        finally:
            self._give()

    @contextmanager
    def aside(self) -> Iterator[None]:
        """The block needs no turn: another thread may have it."""
        had = getattr(self._mine, "began", None) is not None
        if had:
            self._give()
        try:
            yield
        finally:
            if had:
                self._take()

    def _take(self) -> None:
        if self._without > 0:
            self._without -= 1
            self._mine.began = (0.0, 0.0)  # a turn without the lock
            return
        self._lock.acquire()
        self._mine.began = (time.monotonic(), time.process_time())

    def _give(self) -> None:
        wall, worked = self._mine.began
        self._mine.began = None
        if not wall:
            return
        lasted, worked = time.monotonic() - wall, time.process_time() - worked
        self._lock.release()
        if worked < _IDLE * lasted:
            self._without = _WITHOUT
