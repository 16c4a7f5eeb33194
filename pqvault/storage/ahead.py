"""What was fetched of a remote file, and what comes next: small reads share a request, and
whoever reads in order finds the next bytes already on their way."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Final

from pqvault.closing import Sweeping

__all__ = ["Ahead"]

_SMALL: Final = 1024 * 1024  # bytes of a file that is fetched whole
_LEAST: Final = 128 * 1024  # bytes of a request: what takes no longer than asking for less
_FIRST: Final = 1024 * 1024  # bytes of the first window that is fetched ahead
_PIECE: Final = 4 * 1024 * 1024  # bytes of the largest: a store gives several sooner than one
_MOST: Final = 16 * 1024 * 1024  # bytes that are on their way, or wait, before one who reads on
_OVERLAP: Final = 32 * 1024  # bytes; sealed chunks are read whole, and twice where reads meet
_KEPT: Final = 4  # small windows held
_RUNS: Final = 8  # threads that read on in one file
_THREADS: Final = 16
_HELD: Final = 128 * 1024 * 1024  # bytes that all readers of the process hold


@cache
def _pool() -> ThreadPoolExecutor:
    # One for the process: readers come and go by the thousand, threads must not.
    return ThreadPoolExecutor(_THREADS, "pqvault-ahead")


@dataclass(eq=False, slots=True)
class _Run:
    """Reads that follow on each other. ``width``: bytes fetched before them, 0 after the first."""

    next: int
    width: int = 0


@dataclass(frozen=True, eq=False, slots=True)
class _Window:
    """``run``: that it was fetched for; None when a read needed it."""

    reader: Ahead
    start: int
    end: int
    data: Future[bytes]
    run: _Run | None


class _Shelf(Sweeping["Ahead"]):
    """The windows of all readers: what was put here first goes when there are too many bytes. All
    share its lock, each for a moment."""

    def __init__(self) -> None:
        super().__init__()
        self._windows: dict[_Window, None] = {}
        self.size = 0  # bytes

    def put(self, window: _Window) -> None:
        """Hold it; the lock is held by who calls."""
        self.sweep()
        self._windows[window] = None
        self.size += window.end - window.start
        while self.size > _HELD:
            oldest = next(iter(self._windows))
            oldest.reader.windows.remove(oldest)
            self.take(oldest)

    def has_room(self, size: int) -> bool:
        """Whether that many bytes drive nothing away."""
        return self.size + size <= _HELD

    def _let_go(self, item: Ahead) -> None:
        for window in item.windows:
            window.data.cancel()
            self.take(window)
        item.windows = []

    def take(self, window: _Window) -> None:
        """Hold it no more."""
        del self._windows[window]
        self.size -= window.end - window.start


_shelf = _Shelf()


def _forget() -> None:
    """In a child of fork, which has the pool object but none of its threads, and perhaps a lock
    that one of them held."""
    global _shelf
    _pool.cache_clear()
    _shelf = _Shelf()


os.register_at_fork(after_in_child=_forget)


class Ahead:
    """Answers reads of a file of ``size`` bytes through ``fetch(start, end)``.

    A file of up to 1 MiB is fetched whole; no request asks for less than 128 KiB, and the last
    small ones are kept, for the parts of a footer lie together. Who reads on from where a read
    ended, each of several threads, finds what follows on its way: 1 MiB at first and twice as much
    with each read, up to 16 MiB in requests of 4, which a store that gives a connection only so
    much answers side by side. Memory: that, and 128 MiB for all readers. Thread-safe.
    """

    def __init__(self, fetch: Callable[[int, int], bytes], size: int) -> None:
        self._fetch = fetch
        self._size = size
        self._shelf = _shelf
        self.windows: list[_Window] = []  # under the lock of the shelf
        self._runs: list[_Run] = []

    def read_into(self, out: memoryview, offset: int) -> None:
        """Fill ``out`` from ``offset``; the range lies within the file."""
        if self._shelf is not _shelf:
            self._begin_anew()
        end = offset + len(out)
        run = self._run(offset, end)
        if run.width:
            self._look_ahead(run)
        at = offset
        while at < end:
            window, mine = self._window(at, end)
            if mine:
                self._fill(window)
            stop = min(end, window.end)
            data = self._data(window)
            out[at - offset : stop - offset] = data[at - window.start : stop - window.start]
            at = stop

    def _begin_anew(self) -> None:
        """In a child of fork, where what was on its way never comes."""
        with _shelf.lock:
            if self._shelf is not _shelf:
                self.windows, self._runs, self._shelf = [], [], _shelf

    def _run(self, offset: int, end: int) -> _Run:
        with self._shelf.lock:
            for run in self._runs:
                again = run.next - offset
                if 0 <= again <= _OVERLAP and 2 * again <= end - offset:
                    run.width = max(_FIRST, min(_MOST, 2 * run.width))
                    run.next = end
                    self._let_go(run, offset)
                    return run
            run = _Run(end)
            self._runs = [*self._runs[1 - _RUNS :], run]
            return run

    def _let_go(self, run: _Run, offset: int) -> None:
        """Drop what was fetched for a run that is past it."""
        for window in [w for w in self.windows if w.run is run and w.end + _OVERLAP <= offset]:
            self._remove(window)

    def _window(self, at: int, end: int) -> tuple[_Window, bool]:
        """The window that holds ``at``, and whether the caller has to fetch it."""
        with self._shelf.lock:
            for window in self.windows:
                if window.start <= at < window.end:
                    return window, False
            if self._size <= _SMALL:
                start, stop = 0, self._size
            else:
                start, stop = at, min(self._size, max(end, at + _LEAST))
            stop = min([stop, *(w.start for w in self.windows if at < w.start < end)])
            window = _Window(self, start, stop, Future(), None)
            if stop - start <= _SMALL:  # a large read is not likely to be asked for again
                small = [w for w in self.windows if w.run is None]
                if len(small) >= _KEPT:
                    self._remove(small[0])
                self._add(window)
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
        with self._shelf.lock:
            if window in self.windows:
                self._remove(window)

    def _add(self, window: _Window) -> None:
        self.windows.append(window)
        self._shelf.put(window)

    def _remove(self, window: _Window) -> None:
        self.windows.remove(window)
        self._shelf.take(window)

    def _look_ahead(self, run: _Run) -> None:
        with self._shelf.lock:
            piece = max(_FIRST, min(_PIECE, run.width // 4))
            reach = self._covered(run.next)
            # With many that read on, what one has far before it would drive away what another one
            # needs next.
            while reach < self._size and reach - run.next < (
                run.width if self._shelf.has_room(piece) else piece
            ):
                there = (w.start for w in self.windows if reach < w.start)
                stop = min(self._size, reach + piece, *there)
                data = _pool().submit(self._fetch, reach, stop)
                self._add(_Window(self, reach, stop, data, run))
                reach = self._covered(stop)

    def _covered(self, reach: int) -> int:
        """Where what is there, or on its way, from ``reach`` on ends."""
        for window in sorted(self.windows, key=lambda w: w.start):
            if window.start <= reach < window.end:
                reach = window.end
        return reach

    def close(self) -> None:
        """Drop what was fetched."""
        if self._shelf is _shelf:
            self._shelf.leave(self)
