"""What a catalog is made of: its columns, and an entry as an object. docs/format.md section 6."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import pyarrow as pa

__all__ = [
    "EXTENT_TYPE",
    "HOLE",
    "MAX_NAME",
    "MAX_PATH",
    "MAX_SIZE",
    "PLAIN_SCHEMA",
    "SCHEMA",
    "Entry",
    "Extent",
    "Kind",
    "entries_of",
]

MAX_PATH: Final = 65535  # bytes of an entry's path
MAX_NAME: Final = 255  # bytes of one component
MAX_SIZE: Final = 2**63 - 1
HOLE: Final = -1  # the object of an extent that no object holds

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


class Kind(enum.IntEnum):
    """What an entry is; in the file one byte, an ASCII letter."""

    FILE = ord("f")
    FOLDER = ord("d")
    SYMLINK = ord("l")
    HARDLINK = ord("h")
    TOMBSTONE = ord("x")
    TABLE = ord("t")

    @property
    def letter(self) -> str:
        """``f``, ``d``, ``l``, ``h``, ``x`` or ``t``."""
        return chr(self)


@dataclass(frozen=True, slots=True)
class Extent:
    """``length`` bytes at ``offset`` of the content of object number ``object``; -1: a hole."""

    object: int
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One row. ``path``: raw bytes with ``/`` between components; ``size``: bytes of content;

    ``mode``: permission bits 0 to 0o7777; ``link``: the target of a symbolic link, or the path
    of the first name of a hard link; ``digest``: of the content, None when it has none.
    ``table``: of a table, what `pqvault.format.table.TableDoc` parses. The content of a table
    entry is the file that it was made from, when that is kept too.
    """

    path: bytes
    kind: Kind
    size: int = 0
    mode: int = 0
    mtime_ns: int = 0
    link: bytes | None = None
    digest: bytes | None = None
    extents: tuple[Extent, ...] = ()
    table: bytes | None = None


_KINDS: Final = {int(kind): kind for kind in Kind}


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
