"""Thrift's compact protocol, as far as the metadata of Parquet has it: bytes in, values out."""

from __future__ import annotations

from typing import Any, Final, TypeAlias

__all__ = ["Struct", "parse"]

Struct: TypeAlias = dict[int, Any]  # by field id; bytes, integers, truth values, lists, structs

_DEEPEST: Final = 8
_INTEGERS: Final = (4, 5, 6)  # kinds


def parse(data: bytes) -> tuple[Struct, int]:
    """The struct that ``data`` begins with, and where it ends. Raises ValueError."""
    try:
        return _struct(data, 0, 0)
    except IndexError:
        raise ValueError("metadata ends in the middle") from None


def _struct(data: bytes, at: int, depth: int) -> tuple[Struct, int]:
    fields: Struct = {}
    number = 0
    while head := data[at]:
        at += 1
        if head > 15:
            number += head >> 4
        else:
            number, at = _integer(data, at)
        kind = head & 15
        if kind in _INTEGERS:
            fields[number], at = _integer(data, at)
        else:
            fields[number], at = _value(data, at, kind, depth)
    return fields, at + 1


def _value(data: bytes, at: int, kind: int, depth: int) -> tuple[Any, int]:
    if kind in _INTEGERS:
        return _integer(data, at)
    if kind == 12 and depth < _DEEPEST:
        return _struct(data, at, depth + 1)
    if kind == 8:
        size, at = _varint(data, at)
        if size > len(data) - at:
            raise IndexError
        return data[at : at + size], at + size
    if kind in (1, 2):  # true and false, which are all in the head
        return kind == 1, at
    if kind == 3:
        return data[at], at + 1
    if kind == 7:
        return data[at : at + 8], at + 8
    if kind in (9, 10) and depth < _DEEPEST:
        return _list(data, at, depth)
    raise ValueError(f"metadata has a value of the kind {kind}, or nested too deeply")


def _list(data: bytes, at: int, depth: int) -> tuple[list[Any], int]:
    head = data[at]
    count, at = (head >> 4, at + 1) if head < 0xF0 else _varint(data, at + 1)
    kind, items = head & 15, []
    if count > len(data) - at or (kind in (1, 2) and count):  # each takes a byte, but those
        raise IndexError
    for _ in range(count):
        # A list of lists is as deep as a struct is.
        item, at = _value(data, at, kind, depth + (kind in (9, 10)))
        items.append(item)
    return items, at


def _integer(data: bytes, at: int) -> tuple[int, int]:
    coded = data[at]
    if coded < 0x80:  # as most are: a table has some for each page
        at += 1
    else:
        coded, at = _varint(data, at)
    return coded >> 1 ^ -(coded & 1), at


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = data[at]
    at += 1
    if value < 0x80:
        return value, at
    value &= 0x7F
    shift = 7
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a number has more than 64 bits")
