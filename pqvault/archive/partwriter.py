"""Collect what the jobs of a part bring, write its catalog, commit it."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from itertools import accumulate, repeat
from typing import Any

import pyarrow as pa

from pqvault.archive.deal import PartRows
from pqvault.archive.journal import KEPT_TABLE, Known
from pqvault.archive.layout import part_file
from pqvault.archive.objects import Sealed, SealOptions, seal_file
from pqvault.crypto import digest as digests
from pqvault.errors import IntegrityError
from pqvault.format.catalog import (
    EXTENT_TYPE,
    ROW_GROUP,
    SCHEMA,
    CatalogReader,
    CatalogWriter,
    check_ancestors,
    load_catalog,
)
from pqvault.format.commit import CATALOG, PartFile, object_number
from pqvault.format.entries import HOLE, Kind
from pqvault.lazy import LazyModule
from pqvault.rootkey import RootKey
from pqvault.sealed import SealedReader, SealedWriter
from pqvault.sealed.writer import DEFAULT_FRAME, STORE
from pqvault.storage import Storage

__all__ = [
    "PartTables",
    "load_partwriter",
    "write_catalog",
]

pc = LazyModule("pyarrow.compute")


def load_partwriter() -> None:
    """Import now what the end of a part needs, while the processors are busy with its objects."""
    pc.load()
    load_catalog()


class PartTables:
    """What is known of the rows of a part once its jobs are done: flat arrays, no objects."""

    def __init__(self, digest: str, *, keep_files: bool = False) -> None:
        self._digest = digest
        self._keep_files = keep_files
        self._extents = tuple(array("q") for _ in range(5))  # row, start, object, offset, length
        self._digests = _Digests(digests.SIZES[digest])
        self._ends: dict[int, int] = {}
        self._undigested: set[int] = set()
        self.files: list[PartFile] = []
        self.changed: dict[int, str] = {}
        self.failed: dict[int, str] = {}
        self.notes: list[str] = []
        self.tables: dict[int, bytes] = {}  # row -> what the catalog says of the table

    def add(self, sealed: Sealed) -> None:
        """Take the result of one job."""
        if sealed.file is not None:
            self.files.append(sealed.file)
        for extent in sealed.extents:
            for column, value in zip(self._extents, extent, strict=True):
                column.append(value)
        for row, digest in sealed.digests:
            self._digests.put(row, digest)
        for row, end in sealed.ends:
            self._ends[row] = min(end, self._ends.get(row, end))
        self.changed.update(sealed.changed)
        self._undigested.update(sealed.undigested)
        self.failed.update(sealed.failed)
        self.files += sealed.table_files
        self.tables.update(sealed.tables)
        self.notes += sealed.notes

    def table(self, part: PartRows) -> pa.Table:
        """The rows of the catalog, without those that failed."""
        for row, first in part.same_as.items():
            for notes in (self.changed, self.failed):
                if first in notes:
                    notes[row] = notes[first]
        for row, start, length in part.holes:
            for column, value in zip(self._extents, (row, start, HOLE, 0, length), strict=True):
                column.append(value)
        self._cut_ends()
        self._copy_links(part)
        plan = pa.Table.from_batches(part.batches)
        columns = [
            plan["path"],
            *self._kinds_sizes(plan, part),
            _as_first(plan["mode"], part),
            _as_first(plan["mtime_ns"], part),
            self._links(plan, part),
            self._digest_column(plan, part),
            self._extent_column(part.count),
            pa.array([self.tables.get(row) for row in range(part.count)], pa.binary())
            if self.tables
            else pa.nulls(part.count, pa.binary()),
        ]
        # Copied into the columns by now, and 70 bytes a row.
        self._extents = tuple(array("q") for _ in range(5))
        self._digests = _Digests(digests.SIZES[self._digest])
        table = pa.Table.from_arrays(columns, schema=SCHEMA)
        if self.failed:
            table = table.filter(pa.array([i not in self.failed for i in range(part.count)]))
        return table

    def _cut_ends(self) -> None:
        """Drop what lies beyond the end of a file that was cut while it was read."""
        if not self._ends:
            return
        kept = []
        for row, start, number, offset, length in zip(*self._extents, strict=True):
            length = min(length, self._ends.get(row, start + length) - start)
            if length > 0:
                kept.append((row, start, number, offset, length))
        for index, column in enumerate(self._extents):
            column[:] = array("q", [r[index] for r in kept])

    def _copy_links(self, part: PartRows) -> None:
        if not part.same_as:
            return
        firsts: dict[int, list[int]] = {first: [] for first in part.same_as.values()}
        for index, row in enumerate(self._extents[0]):
            if row in firsts:
                firsts[row].append(index)
        for row, first in part.same_as.items():
            self._digests.copy(first, row)
            if first in self._undigested:
                self._undigested.add(row)
            if first in self._ends:
                self._ends[row] = self._ends[first]
            for index in firsts[first]:
                self._extents[0].append(row)
                for column in self._extents[1:]:
                    column.append(column[index])

    def _kinds_sizes(self, plan: pa.Table, part: PartRows) -> list[Any]:
        kinds, sizes = plan["kind"], plan["size"]
        if part.same_as:
            values = kinds.to_pylist()
            for row in part.same_as:
                values[row] = int(Kind.HARDLINK)
            kinds = pa.array(values, pa.uint8())
        bare = () if self._keep_files else self.tables
        if self._ends or bare:
            values = sizes.to_pylist()
            for row, end in self._ends.items():
                values[row] = end
            for row in bare:  # whose file is not in the part
                values[row] = 0
            sizes = pa.array(values, pa.int64())
        return [kinds, sizes]

    def _links(self, plan: pa.Table, part: PartRows) -> Any:
        if not part.same_as:
            return plan["target"]
        values, paths = plan["target"].to_pylist(), plan["path"]
        for row, first in part.same_as.items():
            values[row] = paths[first].as_py()
        return pa.array(values, pa.binary())

    def _digest_column(self, plan: pa.Table, part: PartRows) -> Any:
        empty = digests.new(self._digest).digest()
        files = pc.equal(plan["kind"], int(Kind.FILE))
        for row in pc.indices_nonzero(pc.and_(files, pc.equal(plan["size"], 0))).to_pylist():
            self._digests.put(row, empty)
        for row in self._undigested:
            self._digests.drop(row)
        return self._digests.column(part.count)

    def _extent_column(self, count: int) -> Any:
        names = ("row", "start", "object", "offset", "length")
        table = pa.table(
            {n: _from_array(c) for n, c in zip(names, self._extents, strict=True)}
        ).sort_by([("row", "ascending"), ("start", "ascending")])
        counts = array("i", bytes(4 * (count + 1)))
        for row in _values(table["row"]):
            counts[row + 1] += 1
        fields = [
            _flat(table["object"]).cast(pa.int32()),
            _flat(table["offset"]),
            _flat(table["length"]),
        ]
        values = pa.StructArray.from_arrays(fields, fields=list(EXTENT_TYPE))
        offsets = pa.array(list(accumulate(counts)), pa.int32())
        return pa.ListArray.from_arrays(offsets, values, type=SCHEMA.field("extents").type)

    def known(self, part: PartRows, part_id: str) -> Iterator[Known]:
        """The rows of the journal: all that is sealed as planned."""
        left_out = self.failed.keys() | self.changed.keys()
        first = 0
        for batch in part.batches:
            names = ("path", "kind", "size", "mtime_ns", "ctime_ns", "inode")
            columns = [batch.column(name).to_pylist() for name in names]
            if self._keep_files:
                columns[1] = [KEPT_TABLE if k == Kind.TABLE else k for k in columns[1]]
            for row, values in enumerate(zip(*columns, repeat(part_id), strict=False), first):
                if row not in left_out:
                    yield Known._make(values)
            first += len(batch)


def _as_first(column: Any, part: PartRows) -> Any:
    """A column in which every other name of a file has the value of its first name."""
    if not part.same_as:
        return column
    values = column.to_pylist()
    for row, first in part.same_as.items():
        values[row] = values[first]
    return pa.array(values, column.type)


class _Digests:
    """Digests by row, some missing, in two flat buffers."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._values = bytearray()
        self._there = bytearray()

    def _grow(self, rows: int) -> None:
        more = rows - len(self._there)
        if more > 0:
            self._there += bytes(more)
            self._values += bytes(more * self._size)

    def put(self, row: int, value: bytes) -> None:
        self._grow(row + 1)
        self._there[row] = 1
        self._values[row * self._size : (row + 1) * self._size] = value

    def drop(self, row: int) -> None:
        self._grow(row + 1)
        self._there[row] = 0

    def copy(self, source: int, row: int) -> None:
        if source < len(self._there) and self._there[source]:
            self.put(row, bytes(self._values[source * self._size : (source + 1) * self._size]))

    def column(self, rows: int) -> Any:
        self._grow(rows)
        fixed = pa.Array.from_buffers(
            pa.binary(self._size), rows, [None, pa.py_buffer(self._values)]
        ).cast(pa.binary())
        there = pa.Array.from_buffers(pa.uint8(), rows, [None, pa.py_buffer(self._there)])
        return pc.if_else(pc.equal(there, 1), fixed, pa.scalar(None, pa.binary()))


def _values(column: Any) -> Iterator[Any]:
    """The values of a column, a chunk of them at a time."""
    for chunk in column.chunks:
        for at in range(0, len(chunk), ROW_GROUP):
            yield from chunk.slice(at, ROW_GROUP).to_pylist()


def _from_array(values: array[int]) -> Any:
    return pa.Array.from_buffers(pa.int64(), len(values), [None, pa.py_buffer(values)])


def _flat(column: Any) -> Any:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


class _Keep:
    """A file for Parquet's writer whose end is for us to say."""

    closed = False

    def __init__(self, writer: SealedWriter) -> None:
        self.write = writer.write
        self.tell = writer.tell

    def flush(self) -> None:
        """Nothing is buffered here."""

    def close(self) -> None:
        """The sealed object ends with `finish`."""


def write_catalog(
    table: pa.Table,
    key: RootKey,
    storage: Storage,
    digest: str,
    files: Iterable[PartFile],
) -> PartFile:
    """Seal the catalog of a part and read it back. ``digest``: its name. ``files``: of the part,
    objects of which, and no others, the catalog may name.

    Its frames are stored: Parquet compresses its own pages.
    """
    tables = table["table"].null_count < table.num_rows

    def fill(writer: SealedWriter) -> None:
        catalog = CatalogWriter(_Keep(writer), tables=tables)  # type: ignore[arg-type]
        # A copy of a row group at a time: paths may be long.
        for at in range(0, table.num_rows, ROW_GROUP):
            for batch in table.slice(at, ROW_GROUP).combine_chunks().to_batches():
                catalog.write(batch)
        catalog.finish()

    objects = frozenset(object_number(file.name) for file in files) - {-1}
    stored = SealOptions(STORE, DEFAULT_FRAME, digest)
    file = seal_file(CATALOG, *key.object(CATALOG), storage, key.part, stored, fill)
    _read_back(key, storage, table.num_rows, objects, digest)
    return file


def _read_back(
    key: RootKey, storage: Storage, rows: int, objects: frozenset[int], digest: str
) -> None:
    """Read what was just written as a reader will: what it would refuse must not be committed."""
    name = part_file(key.part, CATALOG)
    with storage.open(name) as source:
        reader = SealedReader(source, *key.object(CATALOG), name)
        catalog = CatalogReader(reader, objects, name, digests.SIZES[digest])
        if sum(len(b) for b in check_ancestors(catalog.batches(), name)) != rows:
            raise IntegrityError(f"{name} does not read back as it was written")
        reader.close()
