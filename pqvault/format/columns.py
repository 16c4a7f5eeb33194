"""The columns of a catalog, and rows of them as objects. docs/format.md section 6."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import pyarrow as pa

from pqvault.format.entries import Entry, Extent, Kind

__all__ = ["EXTENT_TYPE", "PLAIN_SCHEMA", "SCHEMA", "entries_of", "table_of"]

EXTENT_TYPE: Final = pa.struct(
    [
        pa.field("object", pa.int32(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("length", pa.int64(), nullable=False),
    ]
)
SCHEMA: Final = pa.schema(
    [
        pa.field("path", pa.binary(), nullable=False),
        pa.field("kind", pa.uint8(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),
        pa.field("mode", pa.uint16(), nullable=False),
        pa.field("mtime_ns", pa.int64(), nullable=False),
        pa.field("link", pa.binary()),
        pa.field("digest", pa.binary()),
        pa.field(
            "extents", pa.list_(pa.field("element", EXTENT_TYPE, nullable=False)), nullable=False
        ),
        pa.field("table", pa.binary()),
    ]
)
# What is in the file of a part without tables.
PLAIN_SCHEMA: Final = pa.schema(list(SCHEMA)[:-1])

_EXTENT: Final = [field.name for field in EXTENT_TYPE]
_KINDS: Final = {int(kind): kind for kind in Kind}


def table_of(rows: Sequence[tuple[Any, ...]]) -> pa.Table:
    """Rows as a catalog has them, each extent as (object, offset, length)."""
    columns: list[Sequence[Any]] = list(zip(*rows, strict=True)) or [()] * len(SCHEMA)
    columns[-2] = [[dict(zip(_EXTENT, e, strict=True)) for e in found] for found in columns[-2]]
    arrays = [pa.array(c, f.type) for c, f in zip(columns, SCHEMA, strict=True)]
    return pa.Table.from_arrays(arrays, schema=SCHEMA)


def entries_of(batch: pa.RecordBatch) -> Iterator[Entry]:
    """The rows of a checked batch as objects."""
    *columns, extents, table = batch.columns
    values = zip(*(column.to_pylist() for column in columns), table.to_pylist(), strict=True)
    # Arrow would make a dictionary of each extent.
    flat = extents.flatten()
    numbers, offsets, lengths = (flat.field(i).to_pylist() for i in range(3))
    ends = extents.offsets.to_pylist()
    at, base = 0, ends[0] if ends else 0
    for row, (path, kind, size, mode, mtime_ns, link, digest, doc) in enumerate(values, 1):
        end = ends[row] - base
        pieces = tuple(map(Extent, numbers[at:end], offsets[at:end], lengths[at:end]))
        at = end
        yield Entry(path, _KINDS[kind], size, mode, mtime_ns, link, digest, pieces, doc)
