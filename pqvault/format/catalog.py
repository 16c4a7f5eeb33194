"""The catalog: the list of a part's entries, as plain Parquet. docs/format.md section 6.

It stays columns: batches are checked with Arrow's own functions, and an :class:`Entry` is
made only for who iterates or asks for one path.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Iterator
from typing import IO, Any, Final, TypeVar

import pyarrow as pa

from pqvault.errors import FormatError, PQVaultError, UsageError
from pqvault.format.catalogrules import any_of, check_ancestors, check_batch
from pqvault.format.columns import EXTENT_TYPE, PLAIN_SCHEMA, SCHEMA, entries_of, table_of
from pqvault.format.entries import HOLE, MAX_NAME, MAX_PATH, Entry, Extent, Kind
from pqvault.format.parquetmeta import check_pages, parse_footer
from pqvault.lazy import LazyModule

__all__ = [
    "EXTENT_TYPE",
    "HOLE",
    "MAX_NAME",
    "MAX_PATH",
    "PLAIN_SCHEMA",
    "ROW_GROUP",
    "SCHEMA",
    "CatalogReader",
    "CatalogWriter",
    "Entry",
    "Extent",
    "Kind",
    "check_ancestors",
    "entries_of",
    "load_catalog",
    "table_of",
]

pc = LazyModule("pyarrow.compute")
pq = LazyModule("pyarrow.parquet")

ROW_GROUP: Final = 8192  # rows; one path found in 2 ms among 2 million (49 ms with 65,536)
GROUP_BYTES: Final = 16 * 1024 * 1024  # of paths and links; a writer begins a new group then
GROUP_EXTENTS: Final = 1024 * 1024  # likewise
# What a reader takes. A catalog is written by whoever knows the public key, so nothing is
# unpacked that these do not allow (ATTACKS row 30).
MAX_GROUP_BYTES: Final = 64 * 1024 * 1024  # of a column of a row group, unpacked
MAX_GROUP_VALUES: Final = 4 * 1024 * 1024
MAX_FOOTER: Final = 4 * 1024 * 1024  # bytes
_SLICE: Final = 1024  # rows unpacked at once


_PATHS: Final = pa.schema([SCHEMA.field("path")])

Value = TypeVar("Value")


class CatalogWriter:
    """Writes batches, already sorted by path, as Parquet with row groups of 8,192 rows.

    ``tables``: whether the part has any; the column of that name is left out otherwise.
    """

    def __init__(self, sink: IO[bytes], *, tables: bool = False) -> None:
        self._schema = SCHEMA if tables else PLAIN_SCHEMA
        self._writer = pq.ParquetWriter(
            pa.PythonFile(sink, mode="w"),
            self._schema,
            compression="zstd",
            use_dictionary=["kind", "mode"],
            write_statistics=["path"],
            store_schema=False,
        )
        self._rows: list[pa.RecordBatch] = []
        self._count = self._size = self._extents = 0

    def write(self, batch: pa.RecordBatch) -> None:
        """Take a batch of any length."""
        batch = batch.select(self._schema.names)
        for row in range(0, len(batch), _SLICE):
            piece = batch.slice(row, _SLICE)
            extents = len(piece.column("extents").flatten())
            size = sum(
                pc.sum(pc.binary_length(piece.column(c))).as_py() or 0
                for c in (0, 5, 8)[: piece.num_columns - 6]
            )
            if self._count and (
                self._count + len(piece) > ROW_GROUP
                or self._size + size > GROUP_BYTES
                or self._extents + extents > GROUP_EXTENTS
            ):
                self._flush()
            self._rows.append(piece)
            self._count += len(piece)
            self._size += size
            self._extents += extents

    def _flush(self) -> None:
        table = pa.Table.from_batches(self._rows, self._schema)
        # One long slice may hold more than a group should: then a few rows a group.
        few = self._size > GROUP_BYTES or self._extents > GROUP_EXTENTS
        self._writer.write_table(table, row_group_size=16 if few else ROW_GROUP)
        self._rows, self._count, self._size, self._extents = [], 0, 0, 0

    def finish(self) -> None:
        """Write the last rows and the footer."""
        if self._count:
            self._flush()
        self._writer.close()


class CatalogReader:
    """Reads a catalog by row group; every batch that it gives out has been checked. Thread-safe.

    ``file``: a seekable binary file of authenticated bytes. ``objects``: the numbers of the
    objects that extents may name. ``what`` names the catalog in errors. ``digest_size``: bytes.
    """

    def __init__(
        self, file: Any, objects: frozenset[int], what: str, digest_size: int = 32
    ) -> None:
        self._what = what
        self._digest_size = digest_size
        self._objects = pa.array(sorted(objects | {HOLE}), pa.int32())
        self._source = file
        # Parsed by us first: pyarrow may end the process over metadata that contradicts itself.
        try:
            self._groups = parse_footer(_footer(file, self._bad))
            self._file = pq.ParquetFile(pa.PythonFile(file, mode="r"), pre_buffer=False)
            schema = self._file.schema_arrow
        except (pa.ArrowException, OSError, ValueError) as error:
            raise self._bad(f"is not Parquet: {_first_line(error)}") from None
        schema = schema.remove_metadata()
        self.has_tables: bool = schema.equals(SCHEMA)
        if not self.has_tables and not schema.equals(PLAIN_SCHEMA):
            raise self._bad("does not have the columns of a catalog")
        sizes = [group.rows for group in self._groups]
        if any(not 0 < size <= ROW_GROUP for size in sizes):
            raise self._bad(f"has a row group of no rows or over {ROW_GROUP}")
        self.rows: int = sum(sizes)
        self.groups: int = len(sizes)
        self._recent: dict[int, pa.RecordBatch] = {}
        self._recent_paths: dict[int, pa.Array] = {}
        # Whoever reads moves the position of the file, which is one, and so does pyarrow.
        self._lock = threading.RLock()

    def batch(self, group: int) -> pa.RecordBatch:
        """One row group, checked."""
        try:
            with self._lock:
                self._check_pages(group)
                batch = _one(self._unpacked(group, SCHEMA))
        except (pa.ArrowException, OSError, ValueError, IndexError) as error:
            raise self._bad(f"has a damaged row group {group}: {_first_line(error)}") from None
        if len(batch) != self._groups[group].rows:
            raise self._bad(f"does not have the rows that it says in row group {group}")
        check_batch(batch, self._objects, self._bad)
        if any_of(pc.not_equal(pc.binary_length(batch.column(6)), self._digest_size)):
            raise self._bad("has a digest of another length than its commit's digest")
        self._check_statistic(group, batch.column(0))
        return batch

    def _check_statistic(self, group: int, paths: pa.Array) -> None:
        # Look-ups go by the statistics, so they must say what is there.
        if self._statistic(group) not in (None, paths[0].as_py()):
            raise self._bad(f"has statistics that lie about row group {group}")

    def _check_pages(self, group: int, columns: int = len(SCHEMA)) -> None:
        """What the page headers of a row group's first columns say must be within the caps."""
        try:
            for chunk in self._groups[group].chunks[:columns]:
                check_pages(self._source, chunk, MAX_GROUP_BYTES, MAX_GROUP_VALUES)
        except ValueError as error:
            raise self._bad(
                f"has a row group {group} that is not to be unpacked: {error}"
            ) from None

    def _unpacked(self, group: int, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        """The rows of a group, stopping where they outgrow what the metadata could say."""
        size = 0
        columns = None if schema is SCHEMA else schema.names
        for batch in self._file.iter_batches(
            _SLICE, row_groups=[group], columns=columns, use_threads=False
        ):
            size += batch.nbytes
            if size > len(schema) * MAX_GROUP_BYTES:
                raise self._bad("has a row group that unpacks to more than it may")
            if schema is SCHEMA and not self.has_tables:
                none = pa.nulls(len(batch), pa.binary())
                batch = pa.RecordBatch.from_arrays([*batch.columns, none], schema=SCHEMA)
            yield batch.cast(schema)

    def least(self, start: bytes = b"") -> bytes | None:
        """A path before which :meth:`batches` from ``start`` has no row: that of the statistics,
        which are checked when the rows are read. None when it has no rows at all."""
        group = max(0, self._group_of(start))
        return self._first(group) if group < self.groups else None

    def batches(self, start: bytes = b"", stop: bytes | None = None) -> Iterator[pa.RecordBatch]:
        """All row groups from the one that may hold ``start``, in order of path, up to the last
        that may hold a path before ``stop``."""
        last = b""
        for group in range(max(0, self._group_of(start)), self.groups):
            if stop is not None and group and self._first(group) >= stop:
                # What ends the reading must be true.
                self._check_statistic(group, self._paths(group))
                return
            batch = self.batch(group)
            first = batch.column(0)[0].as_py()
            if last and first <= last:
                raise self._bad("is not sorted by path")
            last = batch.column(0)[len(batch) - 1].as_py()
            yield batch

    def find(self, path: bytes) -> Entry | None:
        """The entry of one path; reads one row group, and only its paths when it is not there."""
        group = self._group_of(path)
        if group < 0:
            return None
        paths = self._paths(group)
        row = bisect_left(range(len(paths)), path, key=lambda at: paths[at].as_py())
        if row == len(paths):
            # Only now do statistics of the next group decide: believe the group itself.
            if group + 1 < self.groups and self._paths(group + 1)[0].as_py() <= path:
                raise self._bad("is not sorted by path")
            return None
        if paths[row].as_py() != path:
            return None
        with self._lock:
            batch = self._recent.get(group)
            if batch is None:
                batch = _keep(self._recent, group, self.batch(group))
        return next(entries_of(batch.slice(row, 1)))

    def _paths(self, group: int) -> pa.Array:
        """The paths of a row group, sorted; nothing else of it is read."""
        with self._lock:
            return self._read_paths(group)

    def _read_paths(self, group: int) -> pa.Array:
        found = self._recent_paths.get(group)
        if found is not None:
            return found
        try:
            self._check_pages(group, columns=1)
            paths = _one(self._unpacked(group, _PATHS)).column(0)
        except (pa.ArrowException, OSError, ValueError, IndexError) as error:
            raise self._bad(f"has a damaged row group {group}: {_first_line(error)}") from None
        if len(paths) != self._groups[group].rows or paths.null_count:
            raise self._bad(f"does not have the rows that it says in row group {group}")
        if len(paths) > 1 and not pc.all(pc.less(paths[:-1], paths[1:])).as_py():
            raise self._bad("is not sorted by path, or has a path twice")
        self._check_statistic(group, paths)
        return _keep(self._recent_paths, group, paths)

    def _group_of(self, path: bytes) -> int:
        """The last row group whose first path is not after ``path``; -1 when there is none."""
        low, high = 0, self.groups
        while low < high:
            middle = (low + high) // 2
            if self._first(middle) <= path:
                low = middle + 1
            else:
                high = middle
        return low - 1

    def _first(self, group: int) -> bytes:
        first = self._statistic(group)
        if first is None:  # a path too long for statistics
            first = self._paths(group)[0].as_py()
        return first

    def _statistic(self, group: int) -> bytes | None:
        return self._groups[group].chunks[0].least

    def _bad(self, sentence: str) -> PQVaultError:
        if self._source.closed:  # then nothing is wrong with it
            return UsageError(
                f"{self._what} was closed while it was read",
                hint="read it within the `with` block of its archive",
            )
        return FormatError(f"{self._what} {sentence}")


def _one(batches: Iterator[pa.RecordBatch]) -> pa.RecordBatch:
    """The rows of a row group in one piece. Raises IndexError when there are none."""
    table = pa.Table.from_batches(list(batches))
    table.validate(full=True)
    return table.combine_chunks().to_batches()[0]


def _keep(recent: dict[int, Value], group: int, value: Value) -> Value:
    """Remember it with the last few."""
    recent[group] = value
    if len(recent) > 4:
        recent.pop(next(iter(recent)))
    return value


def _footer(file: Any, bad: Any) -> bytes:
    """The metadata at the end of a Parquet file; refuses one that would take memory without end."""
    size = file.seek(0, 2)
    file.seek(max(0, size - 8))
    tail = file.read(8)
    length = int.from_bytes(tail[:4], "little")
    if tail[4:] != b"PAR1" or length > min(MAX_FOOTER, size - 8):
        raise bad("is not Parquet, or its footer is too long")
    file.seek(size - 8 - length)
    return bytes(file.read(length))


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def load_catalog() -> None:
    """Import now what reading and writing catalogs takes."""
    pc.load()
    pq.load()
