"""Thrift's compact protocol, as far as Parquet's page headers need it: bytes in, numbers out."""

from __future__ import annotations

from typing import Any, Final, TypeAlias

__all__ = ["Struct", "parse"]

Struct: TypeAlias = dict[int, Any]  # by field id; bytes, integers, truth values, structs

_DEEPEST: Final = 16  # headers have structs three levels deep


def parse(data: bytes) -> Struct:
    """The struct that ``data`` begins with. Raises ValueError."""
    try:
        return _struct(data, 0, 0)[0]
    except IndexError:
        raise ValueError("it ends in the middle") from None


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a number has more than 64 bits")


def _integer(data: bytes, at: int) -> tuple[int, int]:
    value, at = _varint(data, at)
    return (value >> 1) ^ -(value & 1), at


def _struct(data: bytes, at: int, depth: int) -> tuple[Struct, int]:
    if depth > _DEEPEST:
        raise ValueError("it is nested too deeply")
    found: Struct = {}
    number = 0
    while data[at]:
        head = data[at]
        at += 1
        if head >> 4:
            number += head >> 4
        else:
            number, at = _integer(data, at)
        kind = head & 15
        if kind in (1, 2):  # true and false, which are all in the head
            found[number] = kind == 1
        else:
            found[number], at = _value(data, at, kind, depth)
    return found, at + 1


def _value(data: bytes, at: int, kind: int, depth: int) -> tuple[Any, int]:
    if kind in (4, 5, 6):
        return _integer(data, at)
    if kind in (1, 2, 3):  # in lists, and small integers
        return data[at], at + 1
    if kind == 7:
        return data[at : at + 8], at + 8
    if kind == 8:
        length, at = _varint(data, at)
        if length > len(data) - at:
            raise IndexError
        return data[at : at + length], at + length
    if kind in (9, 10):
        return _list(data, at, depth)
    if kind == 12:
        return _struct(data, at, depth + 1)
    raise ValueError(f"it has a value of the kind {kind}")


def _list(data: bytes, at: int, depth: int) -> tuple[list[Any], int]:
    count, kind = data[at] >> 4, data[at] & 15
    at += 1
    if count == 15:
        count, at = _varint(data, at)
    found = []
    for _ in range(count):
        value, at = _value(data, at, kind, depth + 1)
        found.append(value)
    return found, at
