"""What ends with its `with` block: Closing is closed, Finishing is finished or aborted. Sweeping is
for what others hold of it."""

from __future__ import annotations

import threading
from collections import deque
from types import TracebackType
from typing import Generic, Self, TypeVar

__all__ = ["Closing", "Finishing", "Sweeping"]

Item = TypeVar("Item")


class Closing:
    """A context manager that closes at the end of the block, whatever ended it."""

    __slots__ = ()

    def close(self) -> None:
        """Let go of what is held; may be called twice."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Finishing:
    """A context manager that finishes at the end of a block that went well, where it is open then,
    and aborts when an error ended the block."""

    __slots__ = ()
    _open: bool  # neither finished nor aborted

    def finish(self) -> object:
        """Make it count."""
        raise NotImplementedError

    def abort(self) -> None:
        """Undo it; does nothing once it is finished or aborted."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            self.abort()
        elif self._open:
            self.finish()


class Sweeping(Generic[Item]):
    """Has a lock, and takes what is let go of without waiting for it: a `close` may be called by
    the garbage collector, in the midst of this very thread's work under the lock."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._left: deque[Item] = deque()

    def leave(self, item: Item) -> None:
        """Let go of an item; where the lock is held, when it is held the next time."""
        self._left.append(item)
        if self.lock.acquire(blocking=False):
            try:
                self.sweep()
            finally:
                self.lock.release()

    def sweep(self) -> None:
        """Let go of what was left; the lock is held by who calls."""
        while self._left:
            self._let_go(self._left.popleft())

    def _let_go(self, item: Item) -> None:
        raise NotImplementedError
