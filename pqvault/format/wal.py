"""The records of a write-ahead file. docs/format.md section 12.

::

    record = uint32be(length of message) ‖ uint64be(sequence) ‖ message

The message is sealed; what is in it begins with a byte that says what it is.
"""

from __future__ import annotations

import enum
import re
import struct
from dataclasses import dataclass
from typing import Final

from pqvault.errors import FormatError

__all__ = [
    "FIRST",
    "HEADER_SIZE",
    "LINK_SIZE",
    "MAX_CONTENT",
    "MAX_MESSAGE",
    "TABLE_KEY",
    "WAL",
    "Kind",
    "RecordHeader",
    "context",
    "end_content",
    "is_wal",
    "parse_end",
    "wal_name",
]

WAL: Final = "wal"
TABLE_KEY: Final = b"pqvault.table"  # metadata of the schema in `wal`: the table of the rows
HEADER_SIZE: Final = 12  # bytes
LINK_SIZE: Final = 32  # bytes of the message before that the next one is bound to
FIRST: Final = bytes(LINK_SIZE)  # what the first message is bound to
MIN_MESSAGE: Final = 56 + 16 + 1  # header of Cobblestone, one tag, the kind
MAX_MESSAGE: Final = 0x4000_0000  # 1 GiB
MAX_CONTENT: Final = 1_072_693_248  # 1 GiB less 1 MiB: with its tags it is below MAX_MESSAGE
_HEADER: Final = struct.Struct(">IQ")  # length of message, sequence
_END: Final = struct.Struct(">QQ")  # rows, records lost
_NAME: Final = re.compile(r"wal(?:\.[a-z0-9][a-z0-9_-]{0,63})?")


class Kind(enum.IntEnum):
    """The first byte of what is in a message."""

    BATCH = ord("B")
    END = ord("E")


@dataclass(frozen=True, slots=True)
class RecordHeader:
    """``length``: bytes of the message that follows. ``sequence``: from 0, one more each time."""

    length: int
    sequence: int

    def marshal(self) -> bytes:
        """12 bytes."""
        return _HEADER.pack(self.length, self.sequence)

    @classmethod
    def parse(cls, data: bytes | bytearray | memoryview, what: str) -> RecordHeader:
        """From 12 bytes. Raises FormatError for a length that no record has."""
        length, sequence = _HEADER.unpack(data)
        if not MIN_MESSAGE <= length <= MAX_MESSAGE:
            raise FormatError(f"{what} gives a length of {length:,} bytes")
        return cls(length, sequence)


def wal_name(group: str = "") -> str:
    """The file of a column group: ``wal``, ``wal.content``."""
    return f"{WAL}.{group}" if group else WAL


def is_wal(name: str) -> bool:
    """Whether a name is that of a write-ahead file."""
    return _NAME.fullmatch(name) is not None


def context(prefix: bytes, sequence: int, before: bytes) -> bytes:
    """What a message is bound to: its file, its place, and the message before it."""
    if len(before) != LINK_SIZE:
        raise ValueError(f"a message is bound to {LINK_SIZE} bytes of the one before")
    return prefix + sequence.to_bytes(8, "big") + before


def end_content(rows: int, lost: int) -> bytes:
    """What the closing record holds after its kind: rows in the file, records that were lost."""
    return _END.pack(rows, lost)


def parse_end(data: bytes | memoryview, what: str) -> tuple[int, int]:
    """Rows and lost records of a closing record, without its kind. Raises FormatError."""
    if len(data) != _END.size:
        raise FormatError(f"{what} has {len(data)} bytes and not {_END.size}")
    rows, lost = _END.unpack(data)
    return rows, lost
