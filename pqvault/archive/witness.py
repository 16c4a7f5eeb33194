"""Witness: a file in storage that is read, and whose digest is taken on the way."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from pqvault.closing import Closing
from pqvault.crypto import digest as digests
from pqvault.storage import ReadAt
from pqvault.storage.base import WritableBuffer

__all__ = ["Witness"]

_STEP: Final = 1024 * 1024  # bytes


class Witness(Closing):
    """For who reads a file about in order, from its beginning to its end: what was read behind its
    end so far is not counted, and is read once more by :meth:`digest`. Thread-safe."""

    def __init__(self, source: ReadAt, digest: str, on_bytes: Callable[[int], object]) -> None:
        """``digest``: its name. ``on_bytes`` hears of each byte once, and may raise."""
        self._source = source
        self._hasher = digests.new(digest)
        self._on_bytes = on_bytes
        self._seen = 0  # bytes from the beginning
        self._lock = threading.Lock()
        self.size = source.size

    def pread_into(self, buffer: WritableBuffer, offset: int) -> None:
        """Fill ``buffer`` from ``offset``. Raises as the file's own does."""
        self._source.pread_into(buffer, offset)
        data = memoryview(buffer).cast("B")
        with self._lock:
            new = data[self._seen - offset :] if offset <= self._seen else data[:0]
            self._hasher.update(new)
            self._seen += len(new)
        self._on_bytes(len(new))

    def digest(self) -> str:
        """Of the whole file, in hex."""
        buffer = memoryview(bytearray(min(_STEP, self.size - self._seen)))
        while left := self.size - self._seen:
            self.pread_into(buffer[: min(len(buffer), left)], self._seen)
        return self._hasher.digest().hex()

    def close(self) -> None:
        """Close the file."""
        self._source.close()
