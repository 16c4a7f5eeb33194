"""A catalog as Parquet, by hand: the bytes depend on nobody's library, so they never change.

Plain values, no compression, one data page a column. Written from parquet-format (its
``parquet.thrift`` and ``Encodings.md``). Every function takes rows and faults, no function checks.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, NamedTuple

__all__ = ["CATALOG", "TABLE", "Column", "Row", "algorithm", "histogram", "write"]

# parquet.thrift: enum Type, ConvertedType, FieldRepetitionType, Encoding
INT32, INT64, BYTES = 1, 2, 6
UTF8, LIST, UINT_8, UINT_16 = 0, 3, 11, 12
REQUIRED, OPTIONAL, REPEATED = 0, 1, 2
PLAIN, RLE, RLE_DICTIONARY = 0, 3, 8

Claim = tuple[bytes, bytes] | None  # least and greatest


class Row(NamedTuple):
    """One entry as docs/format.md section 6 has it. ``extents``: (object, offset, length)."""

    path: bytes
    kind: str = "f"
    size: int = 0
    mode: int = 0o644
    mtime_ns: int = 1_700_000_000_000_000_000
    link: bytes | None = None
    digest: bytes | None = None
    extents: tuple[tuple[int, int, int], ...] = ()
    table: bytes | None = None


@dataclass(frozen=True)
class Column:
    """A column: flat values, or the list of extents where ``of`` gives tuples."""

    name: str
    type: int
    of: Callable[[Row], Any]
    converted: int | None = None
    optional: bool = False
    nested: bool = False
    dictionary: bool = False

    def but(self, **changes: Any) -> Column:
        """The same column with a fault."""
        return replace(self, **changes)


CATALOG = (
    Column("path", BYTES, lambda row: row.path),
    Column("kind", INT32, lambda row: ord(row.kind), UINT_8),
    Column("size", INT64, lambda row: row.size),
    Column("mode", INT32, lambda row: row.mode, UINT_16),
    Column("mtime_ns", INT64, lambda row: row.mtime_ns),
    Column("link", BYTES, lambda row: row.link, optional=True),
    Column("digest", BYTES, lambda row: row.digest, optional=True),
    Column("extents", INT64, lambda row: row.extents, nested=True),
)
TABLE = Column("table", BYTES, lambda row: row.table, optional=True)  # may be left out
_EXTENT = (("object", INT32), ("offset", INT64), ("length", INT64))


def write(
    groups: Sequence[Sequence[Row]],
    columns: Sequence[Column] = CATALOG,
    *,
    statistics: Callable[[Sequence[Row]], Claim] = lambda rows: (rows[0].path, rows[-1].path),
    counted: int | None = None,
    extra: Sequence[tuple[int, tuple[int, bytes]]] = (),
    unpacked: int | None = None,
    values: int | None = None,
    file: str = "",
    footer: Sequence[tuple[int, tuple[int, bytes]]] = (),
    total: int | None = None,
    created_by: str = "pqvault vectors",
) -> bytes:
    """A Parquet file with one row group for each of ``groups``.

    ``statistics``: what the footer claims to be the least and the greatest path of a row group,
    ``counted``: how many rows it says that each has. ``extra``: more fields of the ColumnMetaData
    of paths, as they are in Thrift; ``unpacked``, ``values``: what it says to be the size and the
    number of values of each column; ``file``: the name of another file that paths are to be in.
    ``footer``: more fields of the footer; ``total``: how many rows it says that there are.
    """
    out = bytearray(b"PAR1")
    row_groups = []
    for rows in groups:
        start, chunks = len(out), []
        for column in columns:
            claim = statistics(rows) if column.name == "path" and rows else None
            for path, kind, count, pages in _leaves(column, rows):
                of_paths = column.name == "path"
                data = _Pages(count, pages, column.dictionary, unpacked, values)
                more, elsewhere = (extra, file) if of_paths else ((), "")
                chunks.append(_chunk(out, path, kind, data, claim, more, elsewhere))
        said = len(rows) if counted is None else counted
        sizes = [(1, _list(12, chunks)), (2, _i64(len(out) - start)), (3, _i64(said))]
        row_groups.append(_struct(sizes))
    schema = [_element("schema", None, REQUIRED, children=len(columns))]
    for column in columns:
        schema += _schema(column)
    order = _struct([(1, (12, _struct([])))])
    metadata = _struct(
        [
            (1, _i32(2)),
            (2, _list(12, schema)),
            (3, _i64(sum(map(len, groups)) if total is None else total)),
            (4, _list(12, row_groups)),
            (6, _text(created_by)),
            (7, _list(12, [order] * sum(3 if c.nested else 1 for c in columns))),
            *footer,
        ]
    )
    return bytes(out) + metadata + struct.pack("<I", len(metadata)) + b"PAR1"


def algorithm() -> tuple[int, tuple[int, bytes]]:
    """The field of a footer that says how columns are encrypted: AES_GCM_V1, no more."""
    return 8, (12, _struct([(1, (12, _struct([])))]))


def _leaves(column: Column, rows: Sequence[Row]) -> list[tuple[list[str], int, int, bytes]]:
    """(path in the schema, type, number of values, page) of each leaf of a column."""
    values = [column.of(row) for row in rows]
    if not column.nested:
        present = [value for value in values if value is not None]
        page = _levels([int(v is not None) for v in values]) if column.optional else b""
        page += b"".join(_plain(column.type, value) for value in present)
        return [([column.name], column.type, len(values), page)]
    # repetition 0 begins a list; definition 1: there is an element
    pairs = [(min(i, 1), 1 if v else 0) for v in values for i in range(max(1, len(v)))]
    levels = _levels([r for r, _ in pairs]) + _levels([d for _, d in pairs])
    leaves = []
    for field, (name, kind) in enumerate(_EXTENT):
        page = levels + b"".join(_plain(kind, extent[field]) for v in values for extent in v)
        leaves.append(([column.name, "list", "element", name], kind, len(pairs), page))
    return leaves


class _Pages(NamedTuple):
    """The values of a column chunk, plain; how they are to be written."""

    count: int
    plain: bytes
    dictionary: bool
    unpacked: int | None
    values: int | None

    def write(self) -> tuple[bytes, int, list[int]]:
        """The pages, where the data page begins, and the encodings."""
        if not self.dictionary:
            return _page(self.plain, self.count, PLAIN), 0, [PLAIN, RLE]
        # Each value is an entry of its own: the indices are 0, 1, 2, … in runs of one.
        header = _struct([(1, _i32(self.count)), (2, _i32(PLAIN))])
        size = _i32(len(self.plain))
        head = _struct([(1, _i32(2)), (2, size), (3, size), (7, (12, header))])
        indices = bytes([8]) + b"".join(bytes([1 << 1, index]) for index in range(self.count))
        data = _page(indices, self.count, RLE_DICTIONARY)
        return head + self.plain + data, len(head) + len(self.plain), [PLAIN, RLE, RLE_DICTIONARY]


def _page(data: bytes, count: int, encoding: int) -> bytes:
    """A data page: its header and its bytes."""
    header = _struct([(1, _i32(count)), (2, _i32(encoding)), (3, _i32(RLE)), (4, _i32(RLE))])
    size = _i32(len(data))
    return _struct([(1, _i32(0)), (2, size), (3, size), (5, (12, header))]) + data


def _chunk(
    out: bytearray,
    path: list[str],
    kind: int,
    pages: _Pages,
    claim: Claim,
    extra: Sequence[tuple[int, tuple[int, bytes]]],
    file: str,
) -> bytes:
    """Append one column chunk; returns its ColumnChunk."""
    data, start, encodings = pages.write()
    at = len(out)
    out += data
    meta = [
        (1, _i32(kind)),
        (2, _list(5, [_varint(_zigzag(e)) for e in encodings])),
        (3, _list(8, [_text(name)[1] for name in path])),
        (4, _i32(0)),
        (5, _i64(pages.count if pages.values is None else pages.values)),
        (6, _i64(len(data) if pages.unpacked is None else pages.unpacked)),
        (7, _i64(len(data))),
        (9, _i64(at + start)),
    ]
    if pages.dictionary:
        meta.append((11, _i64(at)))
    if claim is not None:
        least, greatest = claim
        meta.append((12, (12, _struct([(5, _bytes(greatest)), (6, _bytes(least))]))))
    elsewhere = [(1, _text(file))] if file else []
    return _struct([*elsewhere, (2, _i64(at)), (3, (12, _struct([*meta, *extra])))])


def histogram(levels: Sequence[int]) -> tuple[int, tuple[int, bytes]]:
    """The field of a ColumnMetaData that counts how often each repetition level occurs."""
    return 16, (12, _struct([(2, _list(6, [_varint(_zigzag(level)) for level in levels]))]))


def _schema(column: Column) -> list[bytes]:
    if not column.nested:
        repetition = OPTIONAL if column.optional else REQUIRED
        return [_element(column.name, column.type, repetition, converted=column.converted)]
    return [
        _element(column.name, None, REQUIRED, children=1, converted=LIST),
        _element("list", None, REPEATED, children=1),
        _element("element", None, REQUIRED, children=len(_EXTENT)),
        *(_element(name, kind, REQUIRED) for name, kind in _EXTENT),
    ]


def _element(
    name: str,
    kind: int | None,
    repetition: int,
    *,
    children: int | None = None,
    converted: int | None = None,
) -> bytes:
    fields = [(3, _i32(repetition)), (4, _text(name))]
    if kind is not None:
        fields.insert(0, (1, _i32(kind)))
    if children is not None:
        fields.append((5, _i32(children)))
    if converted is not None:
        fields.append((6, _i32(converted)))
    return _struct(fields)


def _plain(kind: int, value: Any) -> bytes:
    if kind == BYTES:
        return struct.pack("<I", len(value)) + bytes(value)
    return struct.pack("<i" if kind == INT32 else "<q", value)


def _levels(levels: Sequence[int]) -> bytes:
    """Encodings.md, RLE: runs of one value, in one byte each; before it their length."""
    runs = b"".join(_varint(len(list(run)) << 1) + bytes([value]) for value, run in groupby(levels))
    return struct.pack("<I", len(runs)) + runs


# -- the compact protocol of Thrift: a value is (type, bytes) -------------------------------


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _zigzag(value: int) -> int:
    return value << 1 if value >= 0 else (-value << 1) - 1


def _i32(value: int) -> tuple[int, bytes]:
    return 5, _varint(_zigzag(value))


def _i64(value: int) -> tuple[int, bytes]:
    return 6, _varint(_zigzag(value))


def _bytes(value: bytes) -> tuple[int, bytes]:
    return 8, _varint(len(value)) + value


def _text(value: str) -> tuple[int, bytes]:
    return _bytes(value.encode())


def _list(kind: int, items: Sequence[bytes]) -> tuple[int, bytes]:
    count = len(items)
    head = bytes([count << 4 | kind]) if count < 15 else bytes([0xF0 | kind]) + _varint(count)
    return 9, head + b"".join(items)


def _struct(fields: Sequence[tuple[int, tuple[int, bytes]]]) -> bytes:
    out, last = bytearray(), 0
    for number, (kind, value) in fields:
        out += bytes([(number - last) << 4 | kind]) + value
        last = number
    return bytes(out) + b"\x00"
