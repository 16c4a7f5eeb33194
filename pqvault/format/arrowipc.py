"""What an Arrow IPC stream is made of, found out before Arrow reads it.

A record batch may be compressed, and 100 kB may unpack to gigabytes; Arrow has no switch that
refuses that. Here only the message headers are looked at (flatbuffers, Message.fbs): that there is
a schema, then one record batch whose buffers are stored as they are, and then nothing. Arrow
checks the rest, this only sees to it that it has little to do.
"""

from __future__ import annotations

import struct
from typing import Final

from pqvault.errors import FormatError

__all__ = ["check_stream"]

_CONTINUATION: Final = 0xFFFFFFFF
_SCHEMA: Final = 1  # MessageHeader
_BATCH: Final = 3
_MAX_METADATA: Final = 16 * 1024 * 1024  # bytes
# Places in the tables of Message.fbs.
_HEADER_TYPE: Final = 1
_HEADER: Final = 2
_BODY_LENGTH: Final = 3
_COMPRESSION: Final = 3


def check_stream(data: memoryview, what: str) -> None:
    """Raise FormatError unless it is a schema and one uncompressed record batch."""
    try:
        at = _message(data, 0, _SCHEMA)
        at = _message(data, at, _BATCH)
    except (struct.error, IndexError):
        raise FormatError(f"{what} is no Arrow IPC stream") from None
    if at < 0 or bytes(data[at:]) not in (b"", struct.pack("<II", _CONTINUATION, 0)):
        raise FormatError(f"{what} is no Arrow IPC stream of one batch as it is stored")


def _message(data: memoryview, at: int, kind: int) -> int:
    """Where the message at ``at`` ends; -1 when it is not of a kind, or at is -1 already."""
    if at < 0:
        return -1
    mark, length = struct.unpack_from("<II", data, at)
    if mark != _CONTINUATION or not 0 < length <= _MAX_METADATA:
        return -1
    table = data[at + 8 : at + 8 + length]
    root = _number(table, 0, "<I")
    if _scalar(table, root, _HEADER_TYPE, "<B") != kind:
        return -1
    if kind == _BATCH:
        place = _place(table, root, _HEADER)
        header = place + _number(table, place, "<I")
        if _place(table, header, _COMPRESSION):
            return -1
    body = _scalar(table, root, _BODY_LENGTH, "<q")
    end = at + 8 + length + body
    return end if body >= 0 and end <= len(data) else -1


def _number(data: memoryview, at: int, form: str) -> int:
    if at < 0:
        raise IndexError(at)
    return int(struct.unpack_from(form, data, at)[0])


def _place(data: memoryview, table: int, slot: int) -> int:
    """Where a field of a flatbuffers table is; 0 when it is not there."""
    vtable = table - _number(data, table, "<i")
    if 4 + 2 * slot + 2 > _number(data, vtable, "<H"):
        return 0
    offset = _number(data, vtable + 4 + 2 * slot, "<H")
    return table + offset if offset else 0


def _scalar(data: memoryview, table: int, slot: int, form: str) -> int:
    place = _place(data, table, slot)
    return _number(data, place, form) if place else 0
