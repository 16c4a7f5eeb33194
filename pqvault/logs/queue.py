"""A queue of rows, bounded by bytes: many threads put, a few take, and it knows what is done."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import Generic, TypeVar

__all__ = ["Batch", "RowQueue"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Batch(Generic[T]):
    """Rows that were taken and are not done yet. ``first``: how many were put before them."""

    first: int
    rows: list[T]
    size: int


class RowQueue(Generic[T]):
    """``limit``: bytes that may wait; a single larger row may, when nothing else does.

    ``enough``: bytes at which a taker is woken before its time.
    """

    def __init__(self, limit: int, enough: int) -> None:
        self._limit = limit
        self._enough = min(enough, limit)
        self._rows: deque[tuple[T, int]] = deque()
        # A signal's handler may log while the thread that it interrupts is in here: it comes in,
        # and finds all as it must be, because counts change before the call that adds the row.
        lock = threading.RLock()
        self._lock = lock
        self._takers = threading.Condition(lock)
        self._putters = threading.Condition(lock)
        self._flushers = threading.Condition(lock)
        self._size = 0
        self._put = 0  # rows that were ever put
        self._open: set[int] = set()  # where batches begin that are taken and not done
        self._hurry = 0  # rows up to here are waited for
        self._waiting = False  # a taker sleeps that wants to know of the first row
        self._closed = False

    @property
    def size(self) -> int:
        """Bytes that wait."""
        return self._size

    @property
    def put_count(self) -> int:
        """Rows that were ever put."""
        return self._put

    @property
    def full_share(self) -> float:
        """How full it is, 0 to 1 or over."""
        return self._size / self._limit

    def put(self, row: T, size: int, wait: float = 0.0) -> bool:
        """Add a row; False when there was no room for ``wait`` seconds, or it is closed."""
        with self._lock:
            if self._size + size > self._limit and self._rows and not self._wait_for(size, wait):
                return False
            if self._closed:
                return False
            self._put += 1
            self._size += size
            self._rows.append((row, size))
            if self._waiting or self._size >= self._enough:
                self._waiting = False
                self._takers.notify_all()
            return True

    def _wait_for(self, size: int, wait: float) -> bool:
        until = time.monotonic() + wait
        while self._size + size > self._limit and self._rows and not self._closed:
            left = until - time.monotonic()
            if left <= 0:
                return False
            self._takers.notify_all()
            self._putters.wait(min(left, threading.TIMEOUT_MAX))
        return True

    def wait(self, timeout: float, linger: float) -> bool:
        """Wait for rows up to ``timeout`` seconds and, when there are some, ``linger`` for more.

        Returns whether there are any. Returns at once when they are waited for, or enough.
        """
        with self._lock:
            if not self._rows:
                self._waiting = True
                self._takers.wait_for(self._ready, timeout)
                self._waiting = False
            if self._rows and not self._urgent():
                self._takers.wait_for(self._urgent, linger)
            return bool(self._rows)

    def _ready(self) -> bool:
        return bool(self._rows) or self._closed

    def _urgent(self) -> bool:
        head = self._put - len(self._rows)
        return self._size >= self._enough or self._hurry > head or self._closed

    def take(self, most_rows: int, most_size: int) -> Batch[T] | None:
        """The oldest rows, at least one; None when there is none. :meth:`done` must follow."""
        with self._lock:
            if not self._rows:
                return None
            first = self._put - len(self._rows)
            rows: list[T] = []
            size = 0
            while self._rows and len(rows) < most_rows:
                if rows and size + self._rows[0][1] > most_size:
                    break
                row, its = self._rows.popleft()
                rows.append(row)
                size += its
            self._size -= size
            self._open.add(first)
            # Half empty: who waits then has room for many rows, and is not woken for each few.
            if self._size <= self._limit // 2:
                self._putters.notify_all()
            return Batch(first, rows, size)

    def done(self, batches: list[Batch[T]]) -> None:
        """What was taken is safe, or given up."""
        with self._lock:
            self._open.difference_update(batch.first for batch in batches)
            self._flushers.notify_all()

    @property
    def settled(self) -> int:
        """Rows that are done, up to the first that is not."""
        with self._lock:
            return self._settled()

    def _settled(self) -> int:
        return min(self._open, default=self._put - len(self._rows))

    def flush(self, timeout: float | None) -> bool:
        """Wait until all that was put before is done; False when that took too long."""
        with self._lock:
            mark = self._put
            self._hurry = max(self._hurry, mark)
            self._takers.notify_all()
            return self._flushers.wait_for(lambda: self._settled() >= mark, timeout)

    def hurried(self, first: int) -> bool:
        """Whether somebody waits in :meth:`flush` for the row after the first ``first``."""
        return self._hurry > first

    def close(self) -> None:
        """Take no more rows; those that wait can still be taken."""
        with self._lock:
            self._closed = True
            self._takers.notify_all()
            self._putters.notify_all()

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._closed
