"""Extract files of a part: the unit of work of an unseal, for a thread here or a worker."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

from pqvault.archive.entryfile import EntryFile, Objects, naming
from pqvault.archive.extract import FileWriter, Place, TargetFull
from pqvault.archive.handedobjects import Handed
from pqvault.crypto import digest as digests
from pqvault.crypto.mac import equal
from pqvault.errors import PQVaultError
from pqvault.format.entries import HOLE, Entry, Extent

__all__ = ["Content", "Extracted", "extract_files", "extract_handed"]

WHOLE: Final = 4 * 1024 * 1024  # bytes; a file up to this is decoded whole, then written
SMALL: Final = 64 * 1024  # bytes; such files are written together
STEP: Final = 8 * 1024 * 1024  # bytes of a large file read at once, over several threads
_STEP: Final = 1024 * 1024  # the same where there is one thread


class _Frames:
    """Small files, of which most lie in the frame of the one before."""

    def __init__(self) -> None:
        self._part: Objects | None = None
        self._object = HOLE
        self._start = 0
        self._content = memoryview(b"")

    def small(self, part: Objects, entry: Entry) -> memoryview | None:
        """The content of a small file, checked; None for what takes more than a slice of a frame,
        and for what is wrong: then the long way finds out what."""
        if not 0 < entry.size <= SMALL or len(entry.extents) != 1:
            return None
        extent = entry.extents[0]
        begin = extent.offset - self._start
        held = part is self._part and extent.object == self._object
        if not (held and 0 <= begin <= len(self._content) - extent.length):
            if not self._load(part, extent):
                return None
            begin = extent.offset - self._start
            if begin + extent.length > len(self._content):
                return None
        content = self._content[begin : begin + extent.length]
        wanted = entry.digest
        if wanted is not None and not equal(wanted, digests.of(content, part.digest)):
            return None
        return content

    def _load(self, part: Objects, extent: Extent) -> bool:
        if extent.object == HOLE:
            return False
        try:
            reader = part.reader(extent.object)
            found = reader.frame(extent.offset) if extent.offset < reader.size else None
        except PQVaultError:
            return False
        if found is None:
            return False
        self._part, self._object = part, extent.object
        self._start, self._content = found
        return True


class Content:
    """The content of files, one after the other. ``tell`` is told bytes that were written here,
    and may raise to end it."""

    def __init__(self, writer: FileWriter, tell: Callable[[int], object], step: int = STEP) -> None:
        self._writer = writer
        self._step = step
        self._tell = tell
        self._frames = _Frames()

    def take(self, part: Objects, entry: Entry) -> memoryview | None:
        """The content of a small file, checked, for the caller to write; None when the file is
        written. Raises IntegrityError, and what the writer raises; both name the file."""
        content = self._frames.small(part, entry)
        if content is not None:
            return content
        file = EntryFile(part, entry)
        with naming(file.name):
            return self._take(entry, file)

    def _take(self, entry: Entry, file: EntryFile) -> memoryview | None:
        if entry.size > WHOLE or any(extent.object == HOLE for extent in entry.extents):
            self._large(entry, file)
            return None
        content = file.whole()
        file.check_content(content)
        if entry.size <= SMALL:
            return content
        self._writer.write_small(entry, content)
        self._tell(entry.size)
        return None

    def _large(self, entry: Entry, file: EntryFile) -> None:
        sink = self._writer.open_file(entry)
        try:
            hasher = file.hasher()
            for offset, data, hole in file.steps(self._step):
                hasher.update(data)
                if not hole:
                    sink.pwrite(data, offset)
                self._tell(len(data))
            file.check(hasher.digest())
            sink.commit()
        except BaseException:
            sink.abort()
            raise


class Extracted(NamedTuple):
    """What came of files: the numbers of those that are not there, and why."""

    missing: tuple[int, ...]
    failed: tuple[PQVaultError, ...]


def extract_files(
    part: Objects, entries: Sequence[Entry], writer: FileWriter, tell: Callable[[int], object]
) -> list[PQVaultError]:
    """Write files of one part; what fails is returned and the rest goes on. Raises TargetFull, and
    what ``tell`` raises to end it."""
    failed: list[PQVaultError] = []
    content = Content(writer, tell, _STEP)

    def small() -> Iterator[tuple[Entry, memoryview]]:
        for entry in entries:
            try:
                data = content.take(part, entry)
            except TargetFull:
                raise
            except PQVaultError as error:
                failed.append(error)
            else:
                if data is not None:
                    yield entry, data
                tell(0 if data is None else entry.size)

    writer.write_files(small(), failed.append)
    return failed


def extract_handed(
    handed: Handed, entries: Sequence[Entry], place: Place, tell: Callable[[int], object]
) -> Extracted:
    """:func:`extract_files`, for a process that was handed objects and a place to write to."""
    there: set[bytes] = set()
    with handed.open() as objects, place.writer(there.add) as writer:
        failed = extract_files(objects, entries, writer, tell)
    missing = (number for number, entry in enumerate(entries) if entry.path not in there)
    return Extracted(tuple(missing), tuple(failed))
