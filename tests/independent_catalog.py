"""What `independent_reader` asks of a catalog's Parquet before pyarrow reads it.

Written from docs/format.md section 6 and from parquet-format (parquet.thrift, the compact protocol
of Thrift), and nothing else. It shares no code with pqvault.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from independent_keys import Damaged, need

__all__ = ["check_parquet"]

MIB = 1 << 20
VALUES = 4_194_304  # most values of a column of a row group
INT32, INT64, BYTES = 1, 2, 6
PLAIN, DICTIONARIES = 0, (2, 8)


class Leaf(NamedTuple):
    """A column of a catalog: its type, and how deep its levels go."""

    kind: int
    repetition: int = 0
    definition: int = 0


EXTENT = [Leaf(INT32, 1, 1), Leaf(INT64, 1, 1), Leaf(INT64, 1, 1)]
LINK, DIGEST, TABLE = Leaf(BYTES, 0, 1), Leaf(BYTES, 0, 1), Leaf(BYTES, 0, 1)
COLUMNS = [Leaf(BYTES), Leaf(INT32), Leaf(INT64), Leaf(INT32), Leaf(INT64), LINK, DIGEST, *EXTENT]


class Compact:
    """Thrift's compact protocol: a struct is a dictionary by the numbers of its fields."""

    def __init__(self, data: bytes, at: int = 0) -> None:
        self.data, self.at = data, at

    def byte(self) -> int:
        need(self.at < len(self.data), "metadata ends in the middle")
        self.at += 1
        return self.data[self.at - 1]

    def varint(self) -> int:
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value
            need(shift < 70, "a number of too many bytes")

    def integer(self) -> int:
        value = self.varint()
        return value >> 1 ^ -(value & 1)

    def binary(self, size: int) -> bytes:
        need(size <= len(self.data) - self.at, "metadata ends in the middle")
        self.at += size
        return self.data[self.at - size : self.at]

    def struct(self) -> dict[int, Any]:
        fields: dict[int, Any] = {}
        number = 0
        while head := self.byte():
            number = number + (head >> 4) if head >> 4 else self.integer()
            fields[number] = head & 15 == 1 if head & 15 in (1, 2) else self.value(head & 15)
        return fields

    def items(self) -> list[Any]:
        head = self.byte()
        kind, count = head & 15, head >> 4
        count = self.varint() if count == 15 else count
        need(count <= len(self.data) - self.at, "metadata ends in the middle")
        return [self.byte() == 1 if kind in (1, 2) else self.value(kind) for _ in range(count)]

    def value(self, kind: int) -> Any:
        if kind in (4, 5, 6):
            return self.integer()
        if kind == 12:
            return self.struct()
        if kind in (9, 10):
            return self.items()
        if kind == 8:
            return self.binary(self.varint())
        need(kind in (3, 7), "metadata of an unknown kind")
        return self.binary(1 if kind == 3 else 8)


def check_parquet(data: bytes) -> list[bytes | None]:
    """Raise Damaged for what no catalog may be. Returns the least path of each row group, by its
    statistics."""
    need(len(data) >= 12 and data[:4] == data[-4:] == b"PAR1", "the catalog is not Parquet")
    size = int.from_bytes(data[-8:-4], "little")
    need(size <= min(4 * MIB, len(data) - 12), "the catalog's footer is too long")
    end = len(data) - 8 - size
    try:
        footer = Compact(data[:-8], end).struct()
        need(footer.keys().isdisjoint({8, 9}), "an encrypted catalog")
        groups = footer[4]
        rows = [group[3] for group in groups]
        need(all(1 <= count <= 8192 for count in rows), "a row group is empty or too big")
        need(sum(rows) == footer[3], "another number of rows than in the row groups")
        return [check_group(data[:end], group[1]) for group in groups]
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise Damaged("the metadata is not that of a catalog") from error


def check_group(data: bytes, columns: list[Any]) -> bytes | None:
    """The columns of one row group."""
    leaves = [*COLUMNS, TABLE][: max(len(columns), len(COLUMNS))]
    for column, leaf in zip(columns, leaves, strict=True):
        need(column.keys().isdisjoint({1, 8, 9}), "a column elsewhere, or encrypted")
        meta = column[3]
        need(meta[1] == leaf.kind, "a column of another type")
        histograms = meta.get(16, {})
        for name, levels in ((2, leaf.repetition), (3, leaf.definition)):
            need(len(histograms.get(name, ())) in (0, levels + 1), "a histogram of other length")
        need(meta[5] <= VALUES and max(meta[6], meta[7]) <= 64 * MIB, "a column is too big")
        check_pages(data, meta, leaf)
    least = columns[0][3].get(12, {}).get(6)
    need(least is None or type(least) is bytes, "a statistic of another type")
    return least


def check_pages(data: bytes, meta: dict[int, Any], leaf: Leaf) -> None:
    """What the pages' own headers say."""
    at = min(meta[9], meta.get(11) or meta[9])
    end, size, values = at + meta[7], 0, 0
    need(0 <= at <= end <= len(data), "a column out of its file")
    while at < end:
        header = Compact(data, at)
        page = header.struct()
        need(page[1] in (0, 2, 3), "a page of an unknown kind")
        own = page[{0: 5, 2: 7, 3: 8}[page[1]]]
        encoding = own[4 if page[1] == 3 else 2]
        plain = encoding == PLAIN and not (page[1] == 2 and leaf.kind == BYTES)
        need(plain or (leaf.kind != BYTES and encoding in DICTIONARIES), "a page's encoding")
        need(min(page[2], page[3], own[1]) >= 0, "a page of less than nothing")
        size, values, at = size + page[2], values + own[1], header.at + page[3]
        need(size <= 64 * MIB and values <= VALUES, "a column is too big")
