"""InOrderReader: a sealed object from a pipe, in one pass and bounded memory."""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator
from typing import Final, Protocol

from pqvault.crypto.cobblestone import MessageReader
from pqvault.errors import FormatError
from pqvault.format import zstdseek
from pqvault.format.zstdseek import SeekTable
from pqvault.sealed.decode import decode_frame

__all__ = ["InOrderReader"]

_READ: Final = 1024 * 1024  # bytes read from the pipe at once
_SKIPPABLE: Final = struct.pack("<I", 0x184D2A5E)


class _Input(Protocol):
    def read(self, size: int, /) -> bytes: ...


class InOrderReader:
    """Opens an object as it comes: each frame is given out whole, once it is authenticated.

    The frames' sizes are compared with the seek table when it comes, so that this reader
    and :class:`~pqvault.sealed.SealedReader` can never see two contents. An error after
    some frames means that what was given out is authentic but not all.
    """

    def __init__(self, source: _Input, key: bytes, context: bytes, what: str) -> None:
        self._source = source
        self._message = MessageReader(key, context, what)
        self._what = what

    def raw(self) -> Iterator[bytes]:
        """The zstd frames and the seek table as they are: what ``zstd -d`` takes."""
        while data := self._source.read(_READ):
            if plain := self._message.update(data):
                yield plain
        yield self._message.finalize()

    def frames(self) -> Iterator[bytes]:
        """The content of each frame, at most 8 MiB a piece."""
        buffer, pieces = bytearray(), self.raw()
        sealed_sizes, content_sizes = array("I"), array("I")
        while True:
            _fill(buffer, pieces, zstdseek.HEAD_SIZE)
            if buffer[:4] == _SKIPPABLE:
                break
            what = f"frame {len(content_sizes)} of {self._what}"
            _, size = zstdseek.parse_frame_header(buffer, what)
            sealed = _take_frame(buffer, pieces, what)
            sealed_sizes.append(len(sealed))
            content_sizes.append(size)
            yield decode_frame(sealed, size, what)
        table = SeekTable.of(sealed_sizes, content_sizes).marshal()
        for piece in pieces:
            buffer += piece
            # No more is read into memory than the frames seen account for.
            if len(buffer) > len(table):
                raise FormatError(f"{self._what} goes on after its seek table")
        if buffer != table:
            raise FormatError(f"the seek table of {self._what} lies about its frames")


def _take_frame(buffer: bytearray, pieces: Iterator[bytes], what: str) -> bytearray:
    """Cut one whole frame off the head of ``buffer``, block by block (RFC 8878 section 3.1.1)."""
    at, _ = zstdseek.parse_frame_header(buffer, what)
    last = False
    while not last:
        _fill(buffer, pieces, at + zstdseek.BLOCK_HEADER_SIZE)
        size, last = zstdseek.parse_block_header(buffer[at : at + 3], what)
        at += zstdseek.BLOCK_HEADER_SIZE + size
        if at > zstdseek.MAX_SEALED_FRAME:
            raise FormatError(f"{what} is longer than a frame can be")
        _fill(buffer, pieces, at)
        if len(buffer) < at:
            raise FormatError(f"{what} ends before its end")
    frame = buffer[:at]
    del buffer[:at]
    return frame


def _fill(buffer: bytearray, pieces: Iterator[bytes], least: int) -> None:
    while len(buffer) < least:
        piece = next(pieces, None)
        if piece is None:
            return
        buffer += piece
