"""The catalog: the list of a part's entries, as plain Parquet. docs/format.md section 6.

It stays columns: batches are checked with Arrow's own functions, and an :class:`Entry` is
made only for who iterates or asks for one path.
"""

from __future__ import annotations

import enum
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any, Final, TypeVar

import pyarrow as pa

from pqvault.errors import FormatError
from pqvault.format.parquetmeta import check_pages, parse_footer
from pqvault.format.table import MAX_TABLE_DOC
from pqvault.lazy import LazyModule
from pqvault.names import printable

__all__ = [
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
_PATHS: Final = pa.schema([SCHEMA.field("path")])

Value = TypeVar("Value")


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


def load_catalog() -> None:
    """Import now what reading and writing catalogs takes."""
    pc.load()
    pq.load()


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
    """Reads a catalog by row group; every batch that it gives out has been checked.

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

    def batch(self, group: int) -> pa.RecordBatch:
        """One row group, checked."""
        try:
            self._check_pages(group)
            batch = _one(self._unpacked(group, SCHEMA))
        except (pa.ArrowException, OSError, ValueError, IndexError) as error:
            raise self._bad(f"has a damaged row group {group}: {_first_line(error)}") from None
        if len(batch) != self._groups[group].rows:
            raise self._bad(f"does not have the rows that it says in row group {group}")
        _check_batch(batch, self._objects, self._bad)
        if _any(pc.not_equal(pc.binary_length(batch.column(6)), self._digest_size)):
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
        batch = self._recent.get(group)
        if batch is None:
            batch = _keep(self._recent, group, self.batch(group))
        return next(entries_of(batch.slice(row, 1)))

    def _paths(self, group: int) -> pa.Array:
        """The paths of a row group, sorted; nothing else of it is read."""
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

    def _bad(self, sentence: str) -> FormatError:
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


def check_ancestors(
    batches: Iterator[pa.RecordBatch], what: str, around: Sequence[bytes] = ()
) -> Iterator[pa.RecordBatch]:
    """Pass batches of a whole catalog on; raise unless each folder of a path is an entry before.

    A tombstone needs none. So a part is a forest by itself, and no file has children.
    ``around``: folders, outermost first, that are known to be entries before the first row.
    """
    folders = list(around)  # the folders around the current path, outermost first
    last = b""
    for batch in batches:
        kinds = batch.column(1).to_pylist()
        for path, kind in zip(batch.column(0).to_pylist(), kinds, strict=True):
            if kind == Kind.TOMBSTONE:
                continue
            parent = path.rpartition(b"/")[0]
            if parent != last:
                # Between a folder and what is in it stand only names that extend its own
                # with a byte below "/", so what is past the folder's range never comes back.
                while folders and not path.startswith(folders[-1] + b"/"):
                    if path < folders[-1] + b"0":
                        break
                    folders.pop()
                if parent and parent not in folders:
                    raise FormatError(f"{what} has {printable(path)}, but not the folder it is in")
                last = parent
            if kind == Kind.FOLDER:
                folders.append(path)
        yield batch


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


_BAD_PATH: Final = r"(?s)(^|/)\.{0,2}(/|$)|\x00|[^/]{256}"


def _check_batch(batch: pa.RecordBatch, objects: pa.Array, bad: Any) -> None:
    """The rules of one row group, column by column. docs/format.md section 6 numbers them."""
    path, kind, size, mode, _, link, digest, extents, table = batch.columns
    if any(column.null_count for column in (path, kind, size, mode, batch.column(4), extents)):
        raise bad("has a row with a value missing")
    # (1) paths: relative, no empty, `.` or `..` component, no NUL, lengths; strictly ascending
    lengths = pc.binary_length(path)
    if pc.max(lengths).as_py() > MAX_PATH or _any(_matches(path)):
        raise bad("has a path that no entry may have")
    if len(batch) > 1 and not pc.all(pc.less(path[:-1], path[1:])).as_py():
        raise bad("is not sorted by path, or has a path twice")
    # (2) kinds, sizes, modes
    kinds = pa.array([int(k) for k in Kind], pa.uint8())
    if not pc.all(pc.is_in(kind, kinds)).as_py():
        raise bad("has an entry of an unknown kind")
    if pc.min(size).as_py() < 0 or pc.max(mode).as_py() > 0o7777:
        raise bad("has a negative size, or a mode beyond permission bits")
    # (3) a link has a target and nothing else has
    links = pc.is_in(kind, pa.array([int(Kind.SYMLINK), int(Kind.HARDLINK)], pa.uint8()))
    if not pc.all(pc.equal(links, pc.is_valid(link))).as_py():
        raise bad("has a link without a target, or a target without a link")
    if _any(pc.less(pc.binary_length(link), 1)) or _any(
        pc.greater(pc.binary_length(link), MAX_PATH)
    ):
        raise bad("has a link target of no bytes or too many")
    if _any(pc.match_substring_regex(link, r"\x00")):
        raise bad("has a link target with a NUL")
    hard = pc.filter(link, pc.equal(kind, int(Kind.HARDLINK)))
    if _any(_matches(hard)):
        raise bad("has a hard link to a path that no entry may have")
    # (4) only files have content, and the extents add up to it
    with_content = [int(Kind.FILE), int(Kind.HARDLINK), int(Kind.TABLE)]
    content = pc.is_in(kind, pa.array(with_content, pa.uint8()))
    if _any(pc.and_(pc.invert(content), pc.not_equal(size, 0))):
        raise bad("has a folder or a link with content")
    if _any(pc.and_(pc.invert(content), pc.is_valid(digest))):
        raise bad("has a digest of something that has no content")
    _check_extents(extents, size, objects, bad)
    # (8) a table says what it is and nothing else does
    if not pc.all(pc.equal(pc.equal(kind, int(Kind.TABLE)), pc.is_valid(table))).as_py():
        raise bad("has a table that is not described, or a description of no table")
    if _any(pc.greater(pc.binary_length(table), MAX_TABLE_DOC)):
        raise bad("has a table that is described in too many bytes")


def _check_extents(extents: Any, size: Any, objects: Any, bad: Any) -> None:
    flat = extents.flatten()
    if flat.null_count or any(flat.field(i).null_count for i in range(3)):
        raise bad("has an extent with a value missing")
    number, offset, length = (flat.field(i) for i in range(3))
    if len(flat):
        if not pc.all(pc.is_in(number, objects)).as_py():
            raise bad("names an object that the part does not have")
        if pc.min(offset).as_py() < 0 or pc.min(length).as_py() < 1:
            raise bad("has an extent of no length or below its object")
        hole = pc.equal(number, HOLE)
        if _any(pc.and_(hole, pc.not_equal(offset, 0))):
            raise bad("has a hole with an offset")
    try:
        if len(flat):
            pc.add_checked(offset, length)
        # Sums of every list: differences of the running sum at the lists' ends.
        running = pc.cumulative_sum_checked(length)
    except pa.ArrowInvalid:
        raise bad("has extents longer than a file can be") from None
    running = pa.concat_arrays([pa.array([0], pa.int64()), running])
    offsets = pc.subtract(extents.offsets, extents.offsets[0])
    at_end = running.take(offsets)
    if not pc.all(pc.equal(pc.subtract(at_end[1:], at_end[:-1]), size)).as_py():
        raise bad("has extents that do not add up to the size of their entry")


def _matches(paths: Any) -> Any:
    return pc.match_substring_regex(paths, _BAD_PATH)


def _any(mask: Any) -> bool:
    return bool(pc.any(mask, min_count=0).as_py())


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
