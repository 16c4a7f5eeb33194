"""RangeFile: a binary file made of reads at any place."""

from __future__ import annotations

import io
import operator
import os
from typing import Final

__all__ = ["RangeFile"]

_AHEAD: Final = 64 * 1024  # bytes read at once where lines are asked for


class RangeFile(io.RawIOBase):
    """A read-only binary file over ``pread_into``: what readers and entries have in common."""

    size: int  # bytes

    def __init__(self) -> None:
        super().__init__()
        self._position = 0
        self._ahead = (0, b"")  # what readline() has read, and where it begins

    def pread_into(self, out: memoryview, offset: int) -> None:
        """Fill ``out`` from ``offset``. Thread-safe, does not move the position."""
        raise NotImplementedError

    def pread(self, offset: int, length: int) -> bytearray:
        """Up to ``length`` bytes from ``offset``; fewer only at the end. Thread-safe."""
        self._check()
        if offset < 0 or length < 0:
            raise ValueError("offset and length are not negative")
        out = bytearray(max(0, min(length, self.size - offset)))
        if out:
            self.pread_into(memoryview(out), offset)
        return out

    def read(self, size: int | None = -1, /) -> bytes:
        """Up to ``size`` bytes, all that is left when it is negative or None."""
        left = max(0, self.size - self._position)
        length = left if size is None or size < 0 else min(size, left)
        data = self.pread(self._position, length)
        self._position += length
        return bytes(data)

    def readall(self) -> bytes:
        """All that is left."""
        return self.read()

    def readline(self, size: int | None = -1, /) -> bytes:
        """The rest of the line with its newline, and no more than ``size`` bytes of it unless that
        is negative or None. Python's own would read byte by byte."""
        self._check()
        left = max(0, self.size - self._position)
        end = self._position + (left if size is None or size < 0 else min(size, left))
        at = self._position
        pieces: list[bytes] = []
        while at < end and not (pieces and pieces[-1].endswith(b"\n")):
            start, block = self._ahead
            if not start <= at < start + len(block):
                start, block = self._ahead = at, bytes(self.pread(at, _AHEAD))
            most = min(len(block), end - start)
            stop = block.find(b"\n", at - start, most) + 1 or most
            pieces.append(block[at - start : stop])
            at = start + stop
        self._position = at
        return b"".join(pieces)

    def readinto(self, buffer: object, /) -> int:
        """Fill ``buffer`` as far as there is content; returns the number of bytes."""
        self._check()
        with memoryview(buffer).cast("B") as view:  # type: ignore[arg-type]
            length = max(0, min(len(view), self.size - self._position))
            if length:
                self.pread_into(view[:length], self._position)
        self._position += length
        return length

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Move the position; returns it. Seeking past the end is allowed and reads nothing."""
        self._check()
        offset = operator.index(offset)
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size}
        if whence not in base:
            raise ValueError(f"whence {whence} is not 0, 1 or 2")
        if base[whence] + offset < 0:
            raise ValueError("a position is not negative")
        self._position = base[whence] + offset
        return self._position

    def tell(self) -> int:
        """The position in bytes."""
        return self._position

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def _check(self) -> None:
        if self.closed:
            raise ValueError("the file is closed")
