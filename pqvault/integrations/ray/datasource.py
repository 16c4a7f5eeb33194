"""``ray.data.read_datasource(SealedDatasource("corpus.pqv", identities="file:key.txt"))``

The driver plans from catalogs and seek tables; tasks read whole frames, so that none is decoded
twice. A task carries numbers and references to keys: no key, no path.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache, partial
from typing import Any, Final

import pyarrow as pa
from ray.data.block import BlockMetadata
from ray.data.datasource import Datasource, ReadTask

from pqvault.archive.archive import Archive
from pqvault.archive.globs import several
from pqvault.errors import UsageError
from pqvault.integrations import references
from pqvault.integrations.opening import Opening
from pqvault.integrations.records import MAX_UNIT, Piece, Unit, kind_of, plan_units, records_of
from pqvault.integrations.samples import FileIndex
from pqvault.integrations.tablerecords import TableSource
from pqvault.names import printable

__all__ = ["SealedDatasource"]

FILES: Final = "files"
_BLOCK: Final = 32 * 1024 * 1024  # bytes of content a block, about


@dataclasses.dataclass(frozen=True, slots=True)
class _Reading:
    """What is read, as a task has it. No secret."""

    opening: Opening
    globs: tuple[str, ...]
    kind: str | None
    table: str | None
    columns: tuple[str, ...] | None


class SealedDatasource(Datasource):
    """The rows of an archive: of its files (``kind="files"``: a row ``path``, ``bytes`` for each),
    of what is in them (``jsonl``, ``lines``, ``parquet``, ``tar``; by the endings of their names
    when ``kind`` is None), or of a sealed ``table``, of which ``columns`` are decrypted.

    ``archive``: a path or URL that all workers reach. ``identities``: references to keys that mean
    the same to all workers: ``file:PATH``, ``env:NAME``, ``keystore:KEY``; never a key. ``globs``:
    which files, all when empty. ``signers``, ``as_of``: as everywhere. What is read are the parts
    that were there when this was made.

    Raises NotFound, NoKeyFits, UsageError, IntegrityError, PolicyRefused, RolledBack here; what a
    task meets ends the reading with an error that names the file.
    """

    def __init__(
        self,
        archive: str | os.PathLike[str],
        identities: Any = None,
        *,
        globs: str | Iterable[str] | None = (),
        kind: str | None = None,
        table: str | None = None,
        columns: Sequence[str] | None = None,
        signers: Any = None,
        as_of: str | None = None,
        storage_options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        patterns = several(globs)
        if table is None and columns is not None:
            raise UsageError("columns are of a table", hint="use select_columns() on the dataset")
        if table is not None and (patterns or kind is not None):
            raise UsageError("a table has rows; globs and kind are for files", hint="give one")
        keys = references.anywhere(identities) or None
        opening = Opening.of(archive, keys, signers, storage_options, as_of)
        chosen = None if columns is None else tuple(columns)
        self._reading = _Reading(opening, patterns, kind, table, chosen)
        self._units = _plan(self._reading)

    def get_name(self) -> str:
        """What Ray calls its tasks."""
        return "Sealed"

    def estimate_inmemory_data_size(self) -> int | None:
        """Bytes of content; what Arrow makes of it may be larger."""
        return sum(unit.size for unit in self._units)

    def get_read_tasks(
        self,
        parallelism: int,
        per_task_row_limit: int | None = None,
        data_context: Any = None,
    ) -> list[ReadTask]:
        """Runs of neighbouring units of about one size, as many as are asked for."""
        limit = {} if per_task_row_limit is None else {"per_task_row_limit": per_task_row_limit}
        tasks = []
        for units in _shares(self._units, parallelism):
            known = dict.fromkeys(f.name for f in dataclasses.fields(BlockMetadata) if f.init)
            known["size_bytes"] = sum(unit.size for unit in units)
            read = partial(_read, self._reading, units)
            tasks.append(ReadTask(read, BlockMetadata(**known), **limit))
        return tasks


def _plan(reading: _Reading) -> list[Unit]:
    archive = reading.opening.archive()
    if reading.table is not None:
        return TableSource(archive, reading.table, reading.columns).units()
    index = _index(reading.opening, reading.globs)
    index.check(reading.opening.place)
    if reading.kind == FILES:
        return list(_file_units(index))
    for number in range(len(index)):
        kind_of(index.path(number), reading.kind)
    return plan_units(archive, index, reading.kind)


@lru_cache(4)  # a worker process reads many tasks of few datasets
def _index(opening: Opening, globs: tuple[str, ...]) -> FileIndex:
    return FileIndex(opening.archive(), globs)


def _file_units(index: FileIndex) -> Iterator[Unit]:
    """Files in the order in which they lie, those of an object together, some MiB of them."""
    pieces: list[Piece] = []
    size, before = 0, None
    for number in sorted(range(len(index)), key=index.where):
        lies_in = index.where(number)[:2]
        if pieces and (size >= MAX_UNIT or lies_in != before):
            yield Unit(FILES, size, tuple(pieces))
            pieces, size = [], 0
        before = lies_in
        pieces.append(Piece(number, 0, index.size(number)))
        size += index.size(number)
    if pieces:
        yield Unit(FILES, size, tuple(pieces))


def _shares(units: list[Unit], parallelism: int) -> Iterator[tuple[Unit, ...]]:
    """Units in at most ``parallelism`` runs; cut where the run has its share of what is left."""
    left, tasks = sum(unit.size for unit in units), max(1, parallelism)
    share: list[Unit] = []
    size = 0
    for unit in units:
        share.append(unit)
        size += unit.size
        if tasks > 1 and size * tasks >= left:
            yield tuple(share)
            left, tasks = left - size, tasks - 1
            share, size = [], 0
    if share:
        yield tuple(share)


# -- in a task -----------------------------------------------------------------------------


def _read(reading: _Reading, units: Sequence[Unit]) -> Iterator[pa.Table]:
    """The rows of some units, in blocks."""
    archive = reading.opening.archive()
    if reading.table is not None:
        source = TableSource(archive, reading.table, reading.columns)
        for unit in units:
            for piece in unit.pieces:
                yield from (rows for rows, _ in source.read(piece))
        return
    index = _index(reading.opening, reading.globs)
    for unit in units:
        if unit.kind == FILES:
            yield from _files(archive, index, unit.pieces)
        else:
            for piece in unit.pieces:
                yield from _records(archive, index, unit.kind, piece)


def _files(archive: Archive, index: FileIndex, pieces: Sequence[Piece]) -> Iterator[pa.Table]:
    paths: list[str] = []
    contents: list[bytes] = []
    size = 0
    for piece in pieces:
        paths.append(os.fsdecode(index.path(piece.number)))
        contents.append(index.read(archive, piece.number))
        size += piece.end
        if size >= _BLOCK:
            yield _file_rows(paths, contents)
            paths, contents, size = [], [], 0
    if paths:
        yield _file_rows(paths, contents)


def _file_rows(paths: list[str], contents: list[bytes]) -> pa.Table:
    try:
        names = pa.array(paths, pa.string())
    except UnicodeEncodeError:
        raise UsageError(
            "a path in the archive is not UTF-8, and Arrow has no other text",
            hint="leave such files out with globs=…",
        ) from None
    return pa.table({"path": names, "bytes": pa.array(contents, pa.large_binary())})


def _records(archive: Archive, index: FileIndex, kind: str, piece: Piece) -> Iterator[pa.Table]:
    samples: list[Any] = []  # of a tar file come one at a time
    size = 0
    what = printable(index.path(piece.number))
    for records, taken in records_of(archive, index, kind, piece):
        if isinstance(records, pa.Table):
            if len(records):
                yield records
            continue
        samples += records
        size += taken
        if size >= _BLOCK:
            yield _rows(samples, kind, what)
            samples, size = [], 0
    if samples:
        yield _rows(samples, kind, what)


def _rows(records: list[Any], kind: str, what: str) -> pa.Table:
    """Records as rows: an object's members are its columns; anything else is one column."""
    try:
        if kind == "lines":
            return pa.table({"text": pa.array([line.decode() for line in records], pa.string())})
        if not all(isinstance(record, dict) for record in records):
            return pa.table({"value": pa.array(records)})
        names = dict.fromkeys(name for record in records for name in record)
        if not names:  # a table of no columns has no rows, for Ray
            raise TypeError("objects without members")
        return pa.table({n: pa.array([record.get(n) for record in records]) for n in names})
    except (pa.ArrowException, UnicodeError, OverflowError, TypeError) as error:
        first = str(error).partition("\n")[0]
        raise UsageError(
            f"{what} has records that are not rows of one kind: {first}",
            hint='read it with kind="files" and cut it yourself',
        ) from None
