"""Run an iterator on a thread of its own, a few items ahead of who uses them."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, TypeVar

__all__ = ["ahead"]

T = TypeVar("T")
_END: Final = object()


def ahead(items: Iterator[T], most: int) -> Generator[T, None, None]:
    """Items of an iterator, at most ``most`` of them ahead; what it raises is raised here.

    Close it, or use it up: then the iterator is not used any more.
    """
    pool = ThreadPoolExecutor(1, "pqvault-ahead")
    waiting: deque[Future[object]] = deque()
    try:
        try:
            waiting.extend(pool.submit(next, items, _END) for _ in range(most))
        except RuntimeError:  # the interpreter is ending, which allows no more threads
            yield from items
            return
        while (item := waiting.popleft().result()) is not _END:
            waiting.append(pool.submit(next, items, _END))
            yield item  # type: ignore[misc]
    finally:
        pool.shutdown(cancel_futures=True)
