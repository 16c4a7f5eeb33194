"""What was fetched of a remote file, and what comes next: small reads share a request, and
whoever reads in order finds the next bytes already on their way."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Final

__all__ = ["Ahead"]

_SMALL: Final = 1024 * 1024  # bytes of a file that is fetched whole
_LEAST: Final = 128 * 1024  # bytes of a request: what takes no longer than asking for less
_FIRST: Final = 1024 * 1024  # bytes of the first window that is fetched ahead
_MOST: Final = 8 * 1024 * 1024  # bytes of the largest
_KEPT: Final = 4  # windows held
_THREADS: Final = 16


@cache
def _pool() -> ThreadPoolExecutor:
    # One for the process: readers come and go by the thousand, threads must not.
    return ThreadPoolExecutor(_THREADS, "pqvault-ahead")


# A child of fork has the pool object but none of its threads.
os.register_at_fork(after_in_child=_pool.cache_clear)


@dataclass(frozen=True, slots=True)
class _Window:
    start: int
    end: int
    data: Future[bytes]


class Ahead:
    """Answers reads of a file of ``size`` bytes through ``fetch(start, end)``.

    A file of up to 1 MiB is fetched whole; no request asks for less than 128 KiB, and the last
    small ones are kept, for the parts of a footer lie together. From the second read in order on,
    a window beyond it is fetched in the background, twice as large each time, up to 8 MiB.
    Memory: four windows. Thread-safe.
    """

    def __init__(self, fetch: Callable[[int, int], bytes], size: int) -> None:
        self._fetch = fetch
        self._size = size
        self._lock = threading.Lock()
        self._windows: list[_Window] = []
        self._next = -1  # where the last read ended
        self._width = _FIRST

    def read_into(self, out: memoryview, offset: int) -> None:
        """Fill ``out`` from ``offset``; the range lies within the file."""
        end = offset + len(out)
        in_order = self._note(offset, end)
        at = offset
        while at < end:
            window, mine = self._window(at, end)
            if mine:
                self._fill(window)
            stop = min(end, window.end)
            data = self._data(window)
            out[at - offset : stop - offset] = data[at - window.start : stop - window.start]
            at = stop
        if in_order:
            self._look_ahead(end)

    def _note(self, offset: int, end: int) -> bool:
        with self._lock:
            in_order, self._next = offset == self._next, end
            if not in_order:
                self._width = _FIRST
            return in_order

    def _window(self, at: int, end: int) -> tuple[_Window, bool]:
        """The window that holds ``at``, and whether the caller has to fetch it."""
        with self._lock:
            for window in self._windows:
                if window.start <= at < window.end:
                    return window, False
            if self._size <= _SMALL:
                start, stop = 0, self._size
            else:
                start, stop = at, min(self._size, max(end, at + _LEAST))
            stop = min([stop, *(w.start for w in self._windows if at < w.start < end)])
            window = _Window(start, stop, Future())
            if stop - start <= _SMALL:  # a large read is not likely to be asked for again
                self._keep(window)
            return window, True

    def _fill(self, window: _Window) -> None:
        try:
            data = self._fetch(window.start, window.end)
        except BaseException as error:
            window.data.set_exception(error)
            self._drop(window)
            raise
        window.data.set_result(data)

    def _data(self, window: _Window) -> bytes:
        try:
            return window.data.result()
        except BaseException:
            self._drop(window)
            raise

    def _drop(self, window: _Window) -> None:
        """Forget what failed: it is asked for again by who comes next."""
        with self._lock:
            self._windows = [w for w in self._windows if w is not window]

    def _keep(self, window: _Window) -> None:
        self._windows = [*self._windows[1 - _KEPT :], window]

    def _look_ahead(self, end: int) -> None:
        with self._lock:
            reach = end
            for window in sorted(self._windows, key=lambda w: w.start):
                if window.start <= reach < window.end:
                    reach = window.end
            if reach >= self._size or reach - end > self._width // 2:
                return
            stop = min(self._size, reach + self._width)
            self._width = min(_MOST, 2 * self._width)
            window = _Window(reach, stop, _pool().submit(self._fetch, reach, stop))
            self._keep(window)

    def close(self) -> None:
        """Drop what was fetched."""
        with self._lock:
            self._windows.clear()
