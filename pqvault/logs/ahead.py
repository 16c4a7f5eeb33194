"""Run an iterator on a thread of its own, some bytes ahead of who uses its items."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

__all__ = ["ahead"]

T = TypeVar("T")


def ahead(items: Iterator[T], size: Callable[[T], int], room: int) -> Generator[T, None, None]:
    """Items of an iterator; what it raises is raised here, behind the items before.

    The next one is made while those that wait have less than ``room`` bytes by ``size``. Close it,
    or use it up: then the iterator is not used any more.
    """
    line = _Line(items, size, room)
    pool = ThreadPoolExecutor(1, "pqvault-records")
    try:
        try:
            filled = pool.submit(line.fill)
        except RuntimeError:  # the interpreter is ending, which allows no more threads
            yield from items
            return
        yield from line.taken()
        filled.result()
    finally:
        line.stop()
        pool.shutdown()


class _Line(Generic[T]):
    """Between the two threads."""

    def __init__(self, items: Iterator[T], size: Callable[[T], int], room: int) -> None:
        self._items = items
        self._size = size
        self._room = room
        self._waiting: deque[tuple[T, int]] = deque()
        self._held = 0  # bytes of what waits
        self._ended = False
        self._changed = threading.Condition()

    def fill(self) -> None:
        try:
            for item in self._items:
                size = self._size(item)
                with self._changed:
                    self._waiting.append((item, size))
                    self._held += size
                    self._changed.notify()
                    self._changed.wait_for(lambda: self._held < self._room or self._ended)
                    if self._ended:
                        return
        finally:
            self.stop()

    def taken(self) -> Generator[T, None, None]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._ended)
                if not self._waiting:
                    return
                item, size = self._waiting.popleft()
                self._held -= size
                self._changed.notify()
            yield item

    def stop(self) -> None:
        """No more are made; those that wait can be taken."""
        with self._changed:
            self._ended = True
            self._changed.notify()
