"""A small file that was read whole: it holds no descriptor and costs no further request."""

from __future__ import annotations

from pqvault.closing import Closing
from pqvault.errors import IntegrityError
from pqvault.storage.base import WritableBuffer

__all__ = ["InMemory"]


class InMemory(Closing):
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
