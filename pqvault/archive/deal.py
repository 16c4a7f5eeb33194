"""Deal the rows of a plan to parts and objects. Nothing is read but where the holes are."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pqvault.archive.sourcefile import open_regular
from pqvault.format.entries import Kind
from pqvault.lazy import LazyModule

if TYPE_CHECKING:
    import pyarrow as pa
else:
    pa = LazyModule("pyarrow")

__all__ = [
    "MAX_ENTRIES",
    "OBJECT_SIZE",
    "PART_SIZE",
    "Dealer",
    "DigestJob",
    "Expected",
    "ObjectJob",
    "PartRows",
    "Piece",
    "TableJob",
    "object_size",
]

OBJECT_SIZE: Final = 256 * 1024 * 1024  # bytes of content an object holds, at most about
LEAST_OBJECT: Final = 32 * 1024 * 1024
OBJECT_FILES: Final = 4096  # so that a job's list of files stays small
PART_SIZE: Final = 64 * 1024**3  # bytes of content; the file that reaches it is not cut
MAX_ENTRIES: Final = 200_000  # rows, so that a part's tables stay within 100 MiB
# Plain numbers: there are rows by the million.
_FILE, _FOLDER, _TABLE = int(Kind.FILE), int(Kind.FOLDER), int(Kind.TABLE)
_LEAST_HOLE: Final = 64 * 1024  # bytes; smaller holes are sealed as zeros


class Expected(NamedTuple):
    """What ``fstat`` must say before and after a file is read."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    device: int


class Piece(NamedTuple):
    """The data segments of one file that go into one object.

    ``row``: in the part. ``segments``: (offset in the file, length), None for all of a file
    without holes. ``whole``: they are all of the file's data, so its digest is taken on the way.
    """

    row: int
    source: bytes
    expected: Expected
    segments: tuple[tuple[int, int], ...] | None = None
    whole: bool = True

    def data(self) -> tuple[tuple[int, int], ...]:
        """The segments."""
        return ((0, self.expected.size),) if self.segments is None else self.segments


@dataclass(slots=True)
class ObjectJob:
    """What goes into one object, in order. ``size``: bytes of content."""

    number: int
    pieces: list[Piece] = field(default_factory=list)
    size: int = 0


@dataclass(frozen=True, slots=True)
class DigestJob:
    """A file that several objects share, or all holes: its digest takes a reading of its own."""

    piece: Piece


@dataclass(frozen=True, slots=True)
class TableJob:
    """A file that becomes a table. ``path``: in the archive."""

    row: int
    path: bytes
    source: bytes
    expected: Expected


Job = ObjectJob | DigestJob | TableJob


@dataclass(slots=True)
class PartRows:
    """The rows of one part as the plan has them, and what is known before any is sealed."""

    batches: list[pa.RecordBatch] = field(default_factory=list)  # without what only dealing needs
    count: int = 0
    again: int = 0  # the first of them: folders that the part before has, too
    size: int = 0  # bytes of content dealt
    holes: list[tuple[int, int, int]] = field(default_factory=list)  # row, start, length
    same_as: dict[int, int] = field(default_factory=dict)  # row of a hard link -> first row


def object_size(total: int, jobs: int) -> int:
    """Bytes of content an object takes, so that all workers end at about the same time."""
    return max(LEAST_OBJECT, min(OBJECT_SIZE, total // (12 * jobs)))


class Dealer:
    """Goes through the rows of a plan once, part by part.

    ``target()``: bytes of content an object takes, by what is known when it begins.
    ``keep_files``: of what becomes tables, too.
    ``is_over(part)``: asked between files, besides the limits of size and rows.
    """

    def __init__(
        self,
        batches: Iterator[pa.RecordBatch],
        target: Callable[[], int],
        is_over: Callable[[PartRows], bool],
        *,
        keep_files: bool = False,
    ) -> None:
        self._batches = batches
        self._target_now = target
        self._target = target()
        self._is_over = is_over
        self._keep_files = keep_files
        self._batch: pa.RecordBatch | None = None
        self._rows: list[tuple[Any, ...]] = []
        self._at = 0  # next row of the batch
        self._folders: list[tuple[bytes, pa.RecordBatch]] = []  # around the next row
        self._load()

    def part(self) -> PartRows | None:
        """The next part, with the folders around its first entry; None when all is dealt."""
        if self._batch is None:
            return None
        self._leave_folders(self._rows[self._at][0])
        rows = [_kept(row) for _, row in self._folders]
        return PartRows(batches=rows, count=len(rows), again=len(rows))

    def jobs(self, part: PartRows) -> Iterator[Job]:
        """What is to be done for ``part``; its rows are complete when this is exhausted."""
        open_job = self._next_object(0)
        first: dict[tuple[int, int], int] = {}  # (device, inode) -> row, for files of many names
        begin = self._at
        while self._batch is not None and not self._full(part):
            path, source, kind, size, _, mtime, ctime, inode, device, links, sparse, _ = self._rows[
                self._at
            ]
            row = part.count
            part.count += 1
            self._leave_folders(path)
            if kind == _FOLDER:
                self._folders.append((path, self._batch.slice(self._at, 1)))
            elif kind == _TABLE:
                expected = Expected(size, mtime, ctime, inode, device)
                part.size += size
                yield TableJob(row, path, source, expected)
                if self._keep_files and size:
                    full, open_job = self._place(Piece(row, source, expected), open_job)
                    yield from full
            elif kind == _FILE and links > 1 and (device, inode) in first:
                part.same_as[row] = first[device, inode]
            elif kind == _FILE and size:
                if links > 1:
                    first[device, inode] = row
                part.size += size
                piece = Piece(row, source, Expected(size, mtime, ctime, inode, device))
                if sparse:
                    piece = piece._replace(segments=_data_segments(source, size))
                    _note_holes(part, row, piece.data(), size)
                full, open_job = self._place(piece, open_job)
                yield from full
            self._at += 1
            if self._at == len(self._rows):
                part.batches.append(_kept(self._batch.slice(begin)))
                self._load()
                begin = 0
        if self._batch is not None and begin < self._at:
            part.batches.append(_kept(self._batch.slice(begin, self._at - begin)))
        if open_job.pieces:
            yield open_job

    def _place(self, piece: Piece, job: ObjectJob) -> tuple[list[Job], ObjectJob]:
        """Put a file where it goes: the jobs that are full by it, and the one still open."""
        size = sum(length for _, length in piece.data())
        # A file in several objects is read once more for its digest, so one that is not much larger
        # than an object stays whole.
        if size > min(2 * self._target, OBJECT_SIZE * 5 // 4) or not size:
            return self._spread(piece, job)
        full: list[Job] = []
        if job.pieces and job.size + size > self._target * 5 // 4:
            full.append(job)
            job = self._next_object(job.number + 1)
        job.pieces.append(piece)
        job.size += size
        if job.size >= self._target or len(job.pieces) == OBJECT_FILES:
            full.append(job)
            job = self._next_object(job.number + 1)
        return full, job

    def _spread(self, piece: Piece, job: ObjectJob) -> tuple[list[Job], ObjectJob]:
        """A file larger than an object: objects of its own, and one more reading for its digest,
        because they are sealed side by side. Also a file of holes only: a digest, no object."""
        jobs: list[Job] = []
        if job.pieces and piece.data():
            jobs.append(job)
            job = self._next_object(job.number + 1)
        # First, so that the file is in memory when its objects are read.
        jobs.append(DigestJob(piece))
        for segments in _cut(piece.data(), self._target):
            size = sum(length for _, length in segments)
            jobs.append(
                ObjectJob(job.number, [piece._replace(segments=segments, whole=False)], size)
            )
            job = self._next_object(job.number + 1)
        return jobs, job

    def _next_object(self, number: int) -> ObjectJob:
        self._target = self._target_now()
        return ObjectJob(number)

    def _full(self, part: PartRows) -> bool:
        return part.size >= PART_SIZE or part.count >= MAX_ENTRIES or self._is_over(part)

    def _leave_folders(self, path: bytes) -> None:
        while self._folders and path >= self._folders[-1][0] + b"0":  # "0" follows "/"
            self._folders.pop()

    def _load(self) -> None:
        self._batch = None
        for batch in self._batches:
            if len(batch):
                self._batch = batch
                columns = [column.to_pylist() for column in batch.columns]
                self._rows = list(zip(*columns, strict=True))
                break
        self._at = 0


_KEPT: Final = ["path", "kind", "size", "mode", "mtime_ns", "ctime_ns", "inode", "target"]


def _kept(rows: pa.RecordBatch) -> pa.RecordBatch:
    """What the catalog and the journal need of rows, copied: columns of a batch that was read share
    one buffer, which holds two and a half times as much."""
    return pa.concat_batches([rows.select(_KEPT)])


def _data_segments(source: bytes, size: int) -> tuple[tuple[int, int], ...]:
    """Where a sparse file has data, as (offset, length), with small holes counted as data."""
    segments: list[tuple[int, int]] = []
    try:
        fd, _ = open_regular(source)
    except OSError:
        return ((0, size),)  # sealing it will say what is wrong
    try:
        end = 0
        while end < size:
            start = os.lseek(fd, end, os.SEEK_DATA)
            stop = min(os.lseek(fd, start, os.SEEK_HOLE), size)
            if start >= size:
                break
            if segments and start - end < _LEAST_HOLE:
                start = segments.pop()[0]
            segments.append((start, stop - start))
            end = stop
    except OSError as error:
        if error.errno != errno.ENXIO:  # ENXIO: no data from there to the end
            return ((0, size),)
    finally:
        os.close(fd)
    if segments and segments[0][0] < _LEAST_HOLE:
        start, length = segments[0]
        segments[0] = (0, start + length)
    return tuple(segments)


def _note_holes(part: PartRows, row: int, segments: tuple[tuple[int, int], ...], size: int) -> None:
    at = 0
    for start, length in (*segments, (size, 0)):
        if start > at:
            part.holes.append((row, at, start - at))
        at = start + length


def _cut(
    segments: tuple[tuple[int, int], ...], target: int
) -> Iterator[tuple[tuple[int, int], ...]]:
    """The segments in runs of ``target`` bytes."""
    run: list[tuple[int, int]] = []
    room = target
    for start, length in segments:
        while length:
            take = min(length, room)
            run.append((start, take))
            start, length, room = start + take, length - take, room - take
            if not room:
                yield tuple(run)
                run, room = [], target
    if run:
        yield tuple(run)
