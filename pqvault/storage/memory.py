"""A small file that was read whole: it holds no descriptor and costs no further request."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from pqvault.errors import IntegrityError
from pqvault.storage.base import WritableBuffer

__all__ = ["InMemory"]


class InMemory:
    """A `ReadAt` over bytes at hand."""

    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)
        self.size = len(data)

    def pread_into(self, buffer: WritableBuffer, offset: int) -> None:
        """Fill all of ``buffer`` from ``offset``."""
        view = memoryview(buffer).cast("B")
        data = self._data[offset : offset + len(view)]
        if len(data) != len(view):
            raise IntegrityError("a file of the archive ends early")
        view[:] = data

    def close(self) -> None:
        """Nothing is held."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
