"""The files of an archive by number: what datasets with random access are made of."""

from __future__ import annotations

import hashlib
import itertools
import os
import threading
import warnings
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import pyarrow as pa

from pqvault.archive.archive import Archive
from pqvault.archive.entryfile import EntryFile
from pqvault.archive.globs import Globs, several
from pqvault.archive.layout import WITH_CONTENT
from pqvault.archive.tasks import side_by_side
from pqvault.errors import IntegrityError, NotFound, PQVaultError
from pqvault.format.catalog import entries_of
from pqvault.format.entries import HOLE, Entry, Extent, Kind
from pqvault.integrations.opening import Opening
from pqvault.names import printable

__all__ = ["FileIndex", "Sample", "SampleFiles", "named"]

_SEVERAL: Final = -2  # in place of an object's number: the file is not one extent
_ROOM: Final = 8 * 1024 * 1024  # bytes of memory kept for the next file
_RATIO: Final = 10  # times more decoded than asked for is worth a warning
_RATIO_AFTER: Final = 64 * 1024 * 1024  # bytes decoded before anything is said


class Sample(NamedTuple):
    """One file: its path in the archive, and its content."""

    path: str
    data: bytes


class FileIndex:
    """Which files there are and where each lies, in flat arrays: 30 bytes a file, and its path.

    Sorted by path: the same archive gives the same numbers everywhere.
    """

    def __init__(self, archive: Archive, globs: Sequence[str]) -> None:
        wanted = Globs(globs)
        self._globs = globs
        self._paths: list[pa.Array] = []
        self._starts = array("q", [0])
        self._part, self._object = array("i"), array("i")
        self._offset, self._length = array("q"), array("q")
        self._local = threading.local()
        self._rows: dict[int, tuple[pa.RecordBatch, int]] = {}  # of files of several extents
        for batch, parts in archive.view.batches():
            self._add(batch, parts, wanted)
        self._unmatched = wanted.unmatched

    def check(self, place: str) -> None:
        """Raise NotFound when there is no file, or none like one of the globs."""
        if self._unmatched or not len(self):
            missing = self._unmatched or [os.fsencode(glob) for glob in self._globs] or [b"*"]
            raise NotFound(
                f"{place} has no file like {', '.join(map(printable, missing))}",
                hint="`pqvault ls` lists its paths",
            )

    def _add(self, batch: pa.RecordBatch, parts: list[int], wanted: Globs) -> None:
        batch, parts = wanted.select(batch, parts)
        kinds, digests = (batch.column(n).to_pylist() for n in (1, 6))
        kept = [
            i
            for i, kind in enumerate(kinds)
            if kind in WITH_CONTENT
            and (kind != Kind.TABLE or digests[i] is not None)  # else there are rows, and no file
        ]
        if not kept:
            return
        rows = batch.take(pa.array(kept, pa.int64()))
        self._paths.append(rows.column(0))
        self._part.extend(parts[i] for i in kept)
        extents = rows.column(7)
        ends = extents.offsets.to_pylist()
        flat = extents.values
        numbers, offsets, lengths = (flat.field(n).to_pylist() for n in range(3))
        for row, (begin, end) in enumerate(itertools.pairwise(ends)):
            if end - begin == 1 and numbers[begin] != HOLE:
                place = (numbers[begin], offsets[begin], lengths[begin])
            else:
                self._rows[len(self._object)] = (rows, row)
                place = (_SEVERAL, 0, rows.column(2)[row].as_py())
            self._object.append(place[0])
            self._offset.append(place[1])
            self._length.append(place[2])
        self._starts.append(len(self._object))

    def __len__(self) -> int:
        return len(self._object)

    def path(self, number: int) -> bytes:
        """The path of a file."""
        low, high = 0, len(self._paths)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self._starts[middle] <= number else (low, middle)
        path: bytes = self._paths[low][number - self._starts[low]].as_py()
        return path

    def digest(self) -> str:
        """Of all paths: where it is another one, the same numbers are of other files."""
        hasher = hashlib.blake2b(digest_size=16)
        for paths in self._paths:
            hasher.update(b"\0".join([*paths.to_pylist(), b""]))
        return hasher.hexdigest()

    def size(self, number: int) -> int:
        """Bytes of content."""
        return self._length[number]

    def places(self, numbers: Sequence[int]) -> Iterable[int]:
        """The places in ``numbers``, in an order in which files that lie together are together."""
        if len(numbers) == 1:
            return (0,)
        return sorted(range(len(numbers)), key=lambda place: self.where(numbers[place]))

    def frames(self, archive: Archive, numbers: Sequence[int]) -> list[list[int]]:
        """The places in ``numbers``, those of files that begin in one frame together: it is to be
        fetched and decoded once, by one thread. Objects that are not open are opened side by side.
        """

        def begins(where: tuple[int, int]) -> Sequence[int]:
            part, place = where
            return archive.parts[part].reader(place).table.content

        objects = sorted({self.where(n)[:2] for n in numbers if self._object[n] != _SEVERAL})
        found = side_by_side(archive.storage.requests, begins, objects)
        known = dict(zip(objects, found, strict=True))

        def frame(place: int) -> tuple[int, int, int]:
            part, number, offset = self.where(numbers[place])
            starts = known.get((part, number))
            if starts is None or isinstance(starts, PQVaultError):  # whoever reads it says so
                return part, number, offset
            return part, number, bisect_right(starts, offset)

        return [list(group) for _, group in itertools.groupby(self.places(numbers), frame)]

    def where(self, number: int) -> tuple[int, int, int]:
        """Part, object, and where in it a file begins."""
        return self._part[number], self._object[number], self._offset[number]

    def read(self, archive: Archive, number: int) -> bytes:
        """The content of a file. Raises IntegrityError that names it."""
        try:
            part, place = archive.parts[self._part[number]], self._object[number]
            if place == _SEVERAL:
                return bytes(EntryFile(part, self._several(number)).whole())
            offset, length = self._offset[number], self._length[number]
            reader = part.reader(place)
            if offset + length > reader.size:
                raise IntegrityError("it claims content that its object does not have")
            stored = reader.stored(offset, length)
            if stored is not None:
                return stored
            view = reader.view(offset, length)
            if view is not None:
                return bytes(view)
            with self._room(length) as room:
                reader.pread_into(room, offset)
                return bytes(room)
        except PQVaultError as error:
            raise named(error, printable(self.path(number))) from None

    def _room(self, size: int) -> memoryview:
        """Memory that is used again: fresh memory costs more than AES does."""
        buffer: bytearray | None = getattr(self._local, "buffer", None)
        if buffer is None or len(buffer) < size:
            buffer = bytearray(size)
            if size <= _ROOM:
                self._local.buffer = buffer
        return memoryview(buffer)[:size]

    def extents(self, archive: Archive, number: int) -> list[tuple[int, int, int, int]]:
        """Where the content lies, in order: (part, object, offset, length)."""
        part = self._part[number]
        if self._object[number] != _SEVERAL:
            where = (part, self._object[number], self._offset[number], self._length[number])
            return [where]
        return [(part, e.object, e.offset, e.length) for e in self._several(number).extents]

    def _several(self, number: int) -> Entry:
        rows, row = self._rows[number]
        (entry,) = entries_of(rows.slice(row, 1))
        return entry

    def file(self, archive: Archive, number: int) -> EntryFile:
        """A file, to be read in pieces."""
        part = archive.parts[self._part[number]]
        if self._object[number] == _SEVERAL:
            return EntryFile(part, self._several(number))
        extent = Extent(self._object[number], self._offset[number], self._length[number])
        path, size = self.path(number), self._length[number]
        return EntryFile(part, Entry(path, Kind.FILE, size, extents=(extent,)))


def named(error: PQVaultError, path: str) -> PQVaultError:
    """The same error, which says which sample it is about."""
    return type(error)(f"sample {path}: {error.message}", hint=error.hint)


class SampleFiles:
    """The files of an archive as a sequence: ``len``, ``[number]``, many at a time.

    ``archive``: path or URL. ``identities``: references to keys, or identities, which only
    forked workers can use. ``globs``: which files, all when empty. Pickles as an opening:
    a copy in another process reads the parts that were there when this one was made.
    """

    def __init__(
        self,
        archive: str | os.PathLike[str],
        *,
        identities: Any = None,
        globs: str | Iterable[str] | None = (),
        signers: Any = None,
        as_of: str | None = None,
        storage_options: dict[str, Any] | None = None,
    ) -> None:
        self._opening = Opening.of(archive, identities, signers, storage_options, as_of)
        self._globs = several(globs)
        self._index: FileIndex | None = None
        self._asked = 0  # bytes
        self._warned = False
        self.index.check(self._opening.place)

    def __getstate__(self) -> dict[str, Any]:
        # No paths: they are content too, and the archive has them sealed.
        return self.__dict__ | {"_index": None}

    @property
    def index(self) -> FileIndex:
        """The files; read from the catalogs when first needed in a process."""
        if self._index is None:
            self._index = FileIndex(self._opening.archive(), self._globs)
        return self._index

    def __len__(self) -> int:
        return len(self.index)

    def path(self, number: int) -> str:
        """The path of a file in the archive; negative numbers count from the end."""
        return os.fsdecode(self.index.path(range(len(self))[number]))

    def __getitem__(self, number: int | slice) -> Any:
        if isinstance(number, slice):
            return self.read(range(len(self))[number])
        return self._one(number)

    def _one(self, number: int) -> Sample:
        index, archive = self.index, self._opening.archive()
        sample = self._sample(index, archive, range(len(index))[number])
        self._consider(archive)
        return sample

    def read(self, numbers: Sequence[int]) -> list[Any]:
        """Files in the order asked for; read in the order in which they lie."""
        samples: list[Any] = [None] * len(numbers)
        for place, sample in self._each(numbers):
            if isinstance(sample, PQVaultError):
                raise sample
            samples[place] = sample
        return samples

    def _each(self, numbers: Sequence[int]) -> Iterator[tuple[int, Sample | PQVaultError]]:
        """(place in ``numbers``, sample or what is wrong with it), in the order in which they lie
        in the archive; at a store, side by side."""
        index, archive = self.index, self._opening.archive()
        every = range(len(index))
        numbers = [every[number] for number in numbers]  # also those from the end

        def one(place: int) -> tuple[int, Sample | PQVaultError]:
            try:
                return place, self._sample(index, archive, numbers[place])
            except PQVaultError as error:
                return place, error

        if archive.storage.requests == 1 or len(numbers) < 2:
            yield from map(one, index.places(numbers))
        else:
            groups = index.frames(archive, numbers)
            for group in side_by_side(
                archive.storage.requests, lambda places: [one(place) for place in places], groups
            ):
                assert not isinstance(group, PQVaultError)
                yield from group
        self._consider(archive)

    def _sample(self, index: FileIndex, archive: Archive, number: int) -> Sample:
        data = index.read(archive, number)
        self._asked += len(data)
        return Sample(os.fsdecode(index.path(number)), data)

    def _consider(self, archive: Archive) -> None:
        decoded = archive.cache.decoded
        if self._warned or decoded < max(_RATIO_AFTER, _RATIO * self._asked):
            return
        self._warned = True
        warnings.warn(
            f"{decoded >> 20} MiB were decoded to read {self._asked >> 20} MiB of samples from"
            f" {self._opening.place}: its frames are large for random access; seal it with"
            " `pqvault seal --access random`, or read it with SealedRecords",
            RuntimeWarning,
            stacklevel=4,
        )
