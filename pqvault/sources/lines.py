"""A text file as blocks of whole lines, unpacked as it is read, in bounded memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import pyarrow as pa

from pqvault.closing import Closing
from pqvault.sources.badlines import BadLines
from pqvault.sources.base import FileState, Source, SourceRefused, arrow_errors, arrow_path

__all__ = ["MAX_LINE", "Block", "LineSource", "Text", "read_blocks"]

MAX_LINE: Final = 128 * 1024 * 1024  # bytes of one line: strings of 100 MB fit
_BLOCK: Final = 4 * 1024 * 1024  # bytes read at once
_BOM: Final = b"\xef\xbb\xbf"
# How much more than its own size a packed file may hold: gzip reaches 1,032 times at most.
_RATIO: Final = 1_200
_ALWAYS: Final = 1024 * 1024 * 1024  # bytes


@dataclass(frozen=True, slots=True)
class Block:
    """Whole lines. ``first``: the number of the first, from 1. ``ends``: line ends in ``data``.
    ``cut``: it is one line that is longer than MAX_LINE, and ``data`` only its beginning."""

    data: bytes
    first: int
    ends: int
    cut: bool = False

    @classmethod
    def of(cls, data: bytes, first: int = 1) -> Block:
        """The line ends are counted."""
        return cls(data, first, data.count(b"\n"))

    def halves(self) -> tuple[Block, Block] | None:
        """Two blocks of about the same size; None for a single line."""
        middle = len(self.data) // 2
        at = self.data.find(b"\n", middle) + 1
        if not 0 < at < len(self.data):
            at = self.data.rfind(b"\n", 0, middle) + 1
        if not 0 < at < len(self.data):
            return None
        left = Block.of(self.data[:at], self.first)
        return left, Block(self.data[at:], self.first + left.ends, self.ends - left.ends)

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """Number and bytes of each line that is not blank, without its end."""
        for number, line in enumerate(self.data.split(b"\n"), self.first):
            if text := line.strip(b" \t\r"):
                yield number, text


class LineSource(Source):
    """A text file. ``bad_lines`` takes what is no row; without it such a line is refused."""

    def __init__(self, path: str, name: str, bad_lines: BadLines | None) -> None:
        self.name = name
        self._path = path
        self._state = FileState.of(path, name)
        self._bad = bad_lines
        self._skipping = False  # whether bad lines have been noted already

    def _refuse(self, line: int, reason: str, data: bytes) -> None:
        if self._bad is None:
            raise SourceRefused(
                f"{self.name}, line {line}: {reason}",
                hint="mend the line, or put such lines aside with --bad-lines FILE",
            )
        if not self._skipping:
            self._bad.add(self.name, line, reason, data)


class Text(Closing):
    """The bytes of a text file, unpacked where its name ends so. A bomb ends with an error."""

    def __init__(self, path: str, name: str) -> None:
        self._name = name
        packing = {".gz": "gzip", ".zst": "zstd"}.get(os.path.splitext(path.lower())[1])
        with arrow_errors(name):
            self._most = os.path.getsize(path) * _RATIO + _ALWAYS
            self._stream = pa.input_stream(
                arrow_path(path), compression=packing, buffer_size=_BLOCK // 4
            )

    def read(self, size: int) -> bytes:
        """Up to ``size`` bytes, none at the end. Raises SourceRefused."""
        with arrow_errors(self._name):
            data: bytes = self._stream.read(size)
        self._most -= len(data)
        if self._most < 0:
            raise SourceRefused(
                f"{self._name} unpacks to over {_RATIO:,} times its size, as no real data does"
            )
        return data

    def close(self) -> None:
        """Let go of the file."""
        self._stream.close()


def read_blocks(text: Text) -> Iterator[Block]:
    """The file in blocks of whole lines, without a byte order mark."""
    number, held, size = 1, list[bytes](), 0
    piece = text.read(_BLOCK).removeprefix(_BOM)
    while piece:
        cut = piece.rfind(b"\n") + 1
        if cut:
            block = Block.of(b"".join((*held, piece[:cut])), number)
            yield block
            number += block.ends
            held, size = [piece[cut:]], len(piece) - cut
        else:
            held.append(piece)
            size += len(piece)
        if size > MAX_LINE:
            yield Block(b"".join(held)[:1024], number, 0, cut=True)
            number, held = number + 1, [_behind_the_line(text)]
            size = len(held[0])
        piece = text.read(_BLOCK)
    if size:
        yield Block(b"".join(held), number, 0)


def _behind_the_line(text: Text) -> bytes:
    while piece := text.read(_BLOCK):
        if (at := piece.find(b"\n")) >= 0:
            return piece[at + 1 :]
    return b""
