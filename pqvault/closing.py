"""What ends with its `with` block: Closing is closed, Finishing is finished or aborted."""

from __future__ import annotations

from types import TracebackType
from typing import Self

__all__ = ["Closing", "Finishing"]


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

    def finish(self) -> None:
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
