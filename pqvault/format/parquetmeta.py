"""The footer and the page headers of a Parquet file, as far as a catalog needs them.

pyarrow 26 aborts the process over metadata that contradicts itself (`.column(i)` with a level
histogram of another length, `.statistics` of another type), and it believes a page's own header:
its size unpacked, its number of values, its encoding. So both are read here first. Only PLAIN
keeps a binary value as long as the bytes it is made of: a dictionary or shared prefixes
(DELTA_BYTE_ARRAY) make gigabytes out of a kilobyte. Source: parquet.thrift of parquet-format.
Everything malformed raises ValueError.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from pqvault.format import thrift

__all__ = ["LEAVES", "LEAVES_WITH_TABLES", "Chunk", "Group", "check_pages", "parse_footer"]

# type (1 INT32, 2 INT64, 6 BYTE_ARRAY), maximal repetition level, maximal definition level
LEAVES: Final = (
    (6, 0, 0), (1, 0, 0), (2, 0, 0), (1, 0, 0), (2, 0, 0), (6, 0, 1), (6, 0, 1),
    (1, 1, 1), (2, 1, 1), (2, 1, 1),
)  # fmt: skip
LEAVES_WITH_TABLES: Final = (*LEAVES, (6, 0, 1))
_BINARY: Final = 6
_HEAD: Final = 64 * 1024  # bytes a page header may take
_DATA, _DICTIONARY, _DATA_V2 = 0, 2, 3
# kind of page -> field of its own header, and in that: number of values, encoding
_KINDS: Final = {_DATA: (5, 1, 2), _DICTIONARY: (7, 1, 2), _DATA_V2: (8, 1, 4)}
_PLAIN, _PLAIN_DICTIONARY, _RLE_DICTIONARY = 0, 2, 8


@dataclass(frozen=True, slots=True)
class Chunk:
    """One column of a row group: where its pages are, and what the metadata says of them.

    ``packed``, ``unpacked``: bytes; ``least``: of its statistics.
    """

    binary: bool
    at: int
    packed: int
    unpacked: int
    values: int
    least: bytes | None


@dataclass(frozen=True, slots=True)
class Group:
    """One row group."""

    rows: int
    chunks: tuple[Chunk, ...]


def parse_footer(data: bytes) -> list[Group]:
    """FileMetaData without the four bytes of its length and the magic."""
    footer, _ = thrift.parse(data)
    try:
        groups = [
            Group(group[3], tuple(_chunk(*pair) for pair in zip(group[1], leaves, strict=True)))
            for group in footer[4]
            for leaves in (LEAVES if len(group[1]) == len(LEAVES) else LEAVES_WITH_TABLES,)
        ]
        rows = footer[3] - sum(group.rows for group in groups)
    except (IndexError, KeyError, TypeError, AttributeError):
        raise ValueError("the metadata is not that of a catalog") from None
    # pyarrow goes by the row groups, others by the file's own count: they would see two catalogs.
    if rows or 8 in footer or 9 in footer:
        raise ValueError("the file has other rows than its row groups, or is encrypted")
    return groups


def _chunk(column: dict[int, Any], leaf: tuple[int, int, int]) -> Chunk:
    meta = column[3]
    kind, repetition, definition = leaf
    sizes = meta.get(16, {})
    for field, levels in ((2, repetition), (3, definition)):
        if len(sizes.get(field, ())) not in (0, levels + 1):
            raise ValueError("a level histogram is of another length")
    at = meta[9]
    if 0 < meta.get(11, 0) < at:
        at = meta[11]
    least = meta.get(12, {}).get(6)
    # Arrow passes over a field of another type, as if it were not there.
    if type(least) not in (bytes, type(None)) or {type(meta[n]) for n in (5, 6, 7)} != {int}:
        raise ValueError("a column's facts are of other types")
    # 1: the name of another file, which pyarrow does not look at
    if meta[1] != kind or at < 0 or meta[7] < 0 or {1, 8, 9} & column.keys():
        raise ValueError("a column is of another type, out of the file, or encrypted")
    return Chunk(kind == _BINARY, at, meta[7], meta[6], meta[5], least)


def check_pages(file: Any, chunk: Chunk, most: int, values: int) -> None:
    """Raise ValueError unless a column chunk unpacks to ``most`` bytes and ``values`` values."""
    at, end = chunk.at, chunk.at + chunk.packed
    if max(chunk.packed, chunk.unpacked) > most or chunk.values > values:
        raise ValueError("a column unpacks to more than it may")
    while at < end:
        file.seek(at)
        page, used = thrift.parse(file.read(min(_HEAD, end - at)))
        try:
            kind, unpacked, packed = page[1], page[2], page[3]
            field, count_at, encoding_at = _KINDS[kind]
            count, encoding = page[field][count_at], page[field][encoding_at]
        except (IndexError, KeyError, TypeError):
            raise ValueError("a page header is not one") from None
        if encoding != _PLAIN and (
            chunk.binary or encoding not in (_PLAIN_DICTIONARY, _RLE_DICTIONARY)
        ):
            raise ValueError("a page has an encoding that no catalog may have")
        if chunk.binary and kind == _DICTIONARY:
            raise ValueError("a page has an encoding that no catalog may have")
        most -= unpacked
        values -= count
        if min(unpacked, packed, count, most, values) < 0:
            raise ValueError("a column unpacks to more than it may")
        at += used + packed
