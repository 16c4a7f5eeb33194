"""TableSink: record batches in, row groups out, in one file for each group of columns.

A row group is what memory is bounded by: batches are kept until one is full, and then it is
written to every file, so that their row groups have the same rows.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from pqvault.crypto import digest as digests
from pqvault.errors import PQVaultError, UsageError
from pqvault.format.commit import PartFile
from pqvault.format.table import TableDoc, TableFileDoc
from pqvault.lazy import LazyModule
from pqvault.rootkey import RootKey
from pqvault.storage import Sink, Storage
from pqvault.tablefile.encryption import MAX_ROW_GROUPS, encryption
from pqvault.tablefile.pages import batch_of
from pqvault.tablefile.reader import TableFile
from pqvault.tablefile.schemas import (
    Sorting,
    first_line,
    same_types,
    sorting_columns,
)
from pqvault.tablefile.unpacked import ROW
from pqvault.tablefile.views import storable

if TYPE_CHECKING:
    from pqvault.sources import Source

__all__ = ["OutFile", "RowGroups", "TableSink"]

pq = LazyModule("pyarrow.parquet")

LEVEL: Final = 3  # zstd
_SMALL: Final = 1024 * 1024  # bytes of a file that needs no thread
_TURN: Final = 512 * 1024  # bytes that the thread is given at once
_CROWDED: Final = MAX_ROW_GROUPS // 2  # row groups after which they grow


@dataclass(frozen=True, slots=True)
class RowGroups:
    """When a row group is full: ``rows``, or ``size`` bytes in memory, whichever comes first."""

    rows: int = 1024 * 1024
    size: int = 64 * 1024 * 1024

    @classmethod
    def of_source(cls) -> RowGroups:
        """For rows of a file that says where its row groups end: what bounds memory when they are
        larger than that."""
        return cls(rows=2**31 - 1, size=512 * 1024 * 1024)


@dataclass(frozen=True, slots=True)
class OutFile:
    """One file to write. ``group``: "" or a column group; ``key``: the root key it goes by;
    ``name``: in the commit; ``columns``: places in the schema."""

    group: str
    key: RootKey
    name: str
    columns: tuple[int, ...]


class TableSink:
    """One table of one part on its way. Used by one thread.

    ``files``: the first has the group "". ``schema``: what every batch has; the attribute
    is what is kept of it. ``sorting``: how the caller's rows are sorted.
    """

    def __init__(
        self,
        storage: Storage,
        schema: pa.Schema,
        files: Sequence[OutFile],
        what: str,
        *,
        digest: str = digests.DEFAULT,
        level: int = LEVEL,
        row_groups: RowGroups | None = None,
        sorting: Sorting = (),
    ) -> None:
        self._taken, self.schema = schema, storable(schema)
        self.rows = 0
        self._what = what
        self._storage = storage
        self._limits = row_groups or RowGroups()
        self._pending: list[pa.RecordBatch] = []
        self._pending_rows = self._pending_size = 0
        self._groups = 0
        self._broken = False
        self._files = tuple(files)
        self._out: list[_File] = []
        try:
            for file in files:
                self._out.append(_File(storage, self.schema, file, what, digest, level, sorting))
        except BaseException:
            self.abort()
            raise

    def write(self, data: pa.RecordBatch | pa.Table) -> None:
        """Take rows, any number of them. After an error the table is lost, but for rows of other
        columns or types, which are refused before any is taken."""
        if not same_types(data.schema, self._taken):
            raise UsageError(
                f"{self._what} got rows of other columns or types than those before",
                hint="cast them to the schema of the table first",
            )
        batches = data.to_batches() if isinstance(data, pa.Table) else [data]
        with self._whole():
            for batch in batches:
                self._take(batch)

    @contextmanager
    def _whole(self) -> Iterator[None]:
        """All rows are taken in the block, or none from then on: an error takes rows with it that
        were taken long before, and whoever caught it must not be told of a table that is whole."""
        if self._broken:
            raise PQVaultError(
                f"{self._what} lost rows to an earlier error, so nothing of it is kept",
                hint="write the table again, without what was refused",
            )
        self._broken = True
        yield
        self._broken = False

    def _take(self, batch: pa.RecordBatch) -> None:
        at = 0
        while at < len(batch):
            most, room = self._room()
            each = max(1, batch.nbytes // len(batch))
            # An eighth: what comes at once may vary in size.
            step = max(1, min(most - self._pending_rows, room // 8 // each))
            piece = batch.slice(at, step)
            size = piece.nbytes
            if size > ROW:
                for row in range(len(piece)):
                    self._check_row(piece.slice(row, 1))
            if self._pending and self._pending_size + size > room:
                self._end_row_group()
                continue
            self._pending.append(piece)
            self._pending_rows += len(piece)
            self._pending_size += size
            at += len(piece)
            if self._pending_rows >= most or self._pending_size >= room:
                self._end_row_group()

    def _check_row(self, row: pa.RecordBatch) -> None:
        """Refuse what readers do not take (docs/format.md 10.2)."""
        for name, column in zip(row.schema.names, row.columns, strict=True):
            if column.type.num_fields and column.nbytes > ROW:
                raise UsageError(
                    f"the column {name!r} of {self._what} has a row of over 2 GiB",
                    hint="divide it among several rows",
                )

    def _room(self) -> tuple[int, int]:
        """The most rows and bytes of the next row group."""
        # Twice as large each time that half of the numbers left are used up: they never end.
        left = MAX_ROW_GROUPS - self._groups
        growth = 0
        while left <= _CROWDED >> growth and growth < 12:
            growth += 1
        return self._limits.rows << growth, self._limits.size << growth

    def end_row_group(self) -> None:
        """Write what is there as a row group, also when it is not full."""
        with self._whole():
            self._end_row_group()

    def _end_row_group(self) -> None:
        if not self._pending_rows:
            return
        if self._groups == MAX_ROW_GROUPS:
            raise UsageError(f"{self._what} has more than {MAX_ROW_GROUPS} row groups")
        table = pa.Table.from_batches(self._pending, self._pending[0].schema)
        self._pending = []
        self._pending_rows = self._pending_size = 0
        for file in self._out:
            file.write(table)
        self.rows += table.num_rows
        self._groups += 1

    def write_source(
        self, source: Source, on_rows: Callable[[int], object] = lambda _: None
    ) -> None:
        """Write all rows of a source, with row groups as it has them."""
        ends = iter(source.row_groups or ())
        left = next(ends, None)
        for batch in source.batches():
            while left == 0:
                left = next(ends, None)
            self.write(batch)
            on_rows(len(batch))
            if left is not None:
                left -= len(batch)
                if left == 0:
                    self.end_row_group()

    def finish(
        self, mode: str, source: tuple[int, str] | None = None
    ) -> tuple[TableDoc, list[PartFile]]:
        """Write the footers and read them back; what the catalog and the commit say of it."""
        self.end_row_group()
        listed = [file.finish() for file in self._out]
        for file, listing in zip(self._files, listed, strict=True):
            key, aad_prefix = file.key.table(file.name)
            path = f"parts/{file.key.part}/{file.name}"
            columns = pa.schema([self.schema.field(i) for i in file.columns])
            TableFile(self._storage, path, listing.size, key, aad_prefix).check(columns, self.rows)
        described = tuple(
            TableFileDoc(f.group, f.key.commit_id, f.name, f.columns) for f in self._files
        )
        schema = self.schema.serialize().to_pybytes()
        doc = TableDoc(mode, self.rows, schema, described, source)
        TableDoc.parse(doc.marshal(), self._what)
        return doc, listed

    def abort(self) -> None:
        """Remove what was written; does nothing after :meth:`finish`."""
        for file in self._out:
            file.abort()

    def __enter__(self) -> TableSink:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            self.abort()


class _Digesting:
    """What pyarrow writes to: passes bytes on and takes the digest that the commit will list.

    A file that is not small gets a thread for both, beside the encoding and encrypting of the
    next pages. Pages come with small writes between them, which are gathered: two turns wait, of
    a page or more each.
    """

    closed = False

    def __init__(self, sink: Sink, digest: str) -> None:
        self._sink = sink
        self._hasher = digests.new(digest)
        self._at = 0
        self._dropped = False
        self._thread: ThreadPoolExecutor | None = None
        self._gathered: list[bytes] = []
        self._gathered_size = 0
        self._waiting: deque[Future[None]] = deque()

    def write(self, data: bytes) -> int:
        if self._dropped:
            return len(data)
        self._at += len(data)
        self._gathered.append(data)
        self._gathered_size += len(data)
        if self._at <= _SMALL:
            self._put(self._taken())
        elif self._gathered_size >= _TURN:
            self._hand_over()
        return len(data)

    def _taken(self) -> list[bytes]:
        taken, self._gathered, self._gathered_size = self._gathered, [], 0
        return taken

    def _hand_over(self) -> None:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "pqvault-table")
        while len(self._waiting) >= 2:
            self._waiting.popleft().result()
        taken = self._taken()
        try:
            self._waiting.append(self._thread.submit(self._put, taken))
        except RuntimeError:  # the interpreter is ending, which allows no more threads
            self._wait()
            self._put(taken)

    def _put(self, pieces: list[bytes]) -> None:
        for piece in pieces:
            self._hasher.update(piece)
            self._sink.write(piece)

    def _wait(self) -> None:
        while self._waiting:
            self._waiting.popleft().result()

    def tell(self) -> int:
        return self._at

    def flush(self) -> None:
        """What waits is written by `finish`."""

    def close(self) -> None:
        """The file ends with `finish`, never because pyarrow lets go of it."""

    def finish(self, name: str) -> PartFile:
        """Wait until all is written; the line of the commit. Raises what went wrong."""
        self._wait()
        self._put(self._taken())
        if self._thread is not None:
            self._thread.shutdown()
        self._sink.finish()
        return PartFile(name, self._sink.written, self._hasher.digest().hex())

    def drop(self) -> None:
        """Take nothing more: pyarrow writes a footer when it lets go of a writer."""
        self._dropped = True
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)
        self._sink.abort()


class _File:
    """One Parquet file being written."""

    def __init__(
        self,
        storage: Storage,
        schema: pa.Schema,
        file: OutFile,
        what: str,
        digest: str,
        level: int,
        sorting: Sorting,
    ) -> None:
        self._name = file.name
        self._what = what
        self._schema = pa.schema([schema.field(i) for i in file.columns])
        self._columns = self._schema.names
        self._options = {
            "compression": "zstd" if level else "none",
            "compression_level": level or None,
            "sorting_columns": sorting_columns(sorting, schema, self._schema),
        }
        self._keys = file.key.table(file.name)
        self._writer: Any = None
        self._file = _Digesting(storage.create(f"parts/{file.key.part}/{file.name}"), digest)

    def _begin(self, rows: pa.Table) -> Any:
        """The writer, made for the first rows, which say how large values are."""
        if self._writer is None:
            self._writer = pq.ParquetWriter(
                pa.PythonFile(self._file, mode="w"),
                self._schema,
                encryption_properties=encryption(*self._keys),
                write_batch_size=batch_of(rows),
                **self._options,
            )
        return self._writer

    def write(self, table: pa.Table) -> None:
        try:
            rows = table.select(self._columns).cast(self._schema)
            self._begin(rows).write_table(rows, row_group_size=len(rows))
        except (pa.ArrowException, ValueError) as error:  # the second: nulls where none may be
            raise UsageError(f"{self._what} cannot hold these rows: {first_line(error)}") from None

    def finish(self) -> PartFile:
        self._begin(self._schema.empty_table()).close()
        return self._file.finish(self._name)

    def abort(self) -> None:
        self._file.drop()
        if self._writer is not None:
            self._writer.close()
