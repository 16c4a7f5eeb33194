"""EntryFile: the content of one entry, and the check of its digest."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, Protocol

from pqvault.crypto import digest as digests
from pqvault.crypto.mac import equal
from pqvault.errors import FormatError, IntegrityError, PQVaultError
from pqvault.format.entries import HOLE, Entry, Extent
from pqvault.names import printable
from pqvault.sealed import RangeFile, SealedReader

__all__ = ["EntryFile", "Objects", "named", "naming"]

# Holes cost nothing to claim and time to hash: 1 PiB, past what file systems take.
MAX_WHOLE: Final = 2**50  # bytes of a file that is read from end to end
_LARGE: Final = 64 * 1024 * 1024  # bytes
_STEP: Final = 4 * 1024 * 1024  # bytes read at once for a digest
_ZEROS: Final = memoryview(bytes(1024 * 1024))


class Objects(Protocol):
    """Where the content of entries is: a part, or as much of one as a worker was handed."""

    @property
    def digest(self) -> str:
        """The name of the digest that its catalog uses."""

    def reader(self, number: int) -> SealedReader:
        """A reader of an object. Raises IntegrityError."""


class EntryFile(RangeFile):
    """The content of one entry: its extents, one after the other. ``name`` is its path."""

    def __init__(self, part: Objects, entry: Entry) -> None:
        super().__init__()
        self.entry = entry
        self.name = printable(entry.path)
        self.size = entry.size
        self._part = part

    def pread_into(self, out: memoryview, offset: int) -> None:
        """Fill ``out`` from ``offset``. Thread-safe. Raises IntegrityError."""
        self._check()
        end = offset + len(out)
        if offset < 0 or end > self.size:
            raise ValueError("the range is outside the file")
        at = 0  # where the extent begins in the file
        for extent in self.entry.extents:
            start, stop = max(offset, at), min(end, at + extent.length)
            if start < stop:
                piece = out[start - offset : stop - offset]
                if extent.object == HOLE:
                    piece[:] = bytes(stop - start)
                else:
                    self._read(extent.object, extent.offset + start - at, piece)
            at += extent.length

    def pread(self, offset: int, length: int) -> bytearray:
        """Up to ``length`` bytes from ``offset``; fewer only at the end. Thread-safe."""
        if length > _LARGE:
            self._check_objects(offset, offset + length)
        try:
            return super().pread(offset, length)
        except MemoryError:
            raise PQVaultError(
                f"{self.name} has more bytes to read at once than there is memory for",
                hint="read it in steps, for example with `pqvault cat --range`",
            ) from None

    def read(self, size: int | None = -1, /) -> bytes:
        """Up to ``size`` bytes; the whole content in one read is compared with its digest too."""
        if self.size > MAX_WHOLE and (size is None or size < 0):
            raise self._too_large()
        whole = self.tell() == 0
        data = super().read(size)
        if whole and len(data) == self.size:
            self.check_content(memoryview(data))
        return data

    def prefix(self, offset: int, length: int) -> bytes:
        """At most ``length`` bytes from ``offset``, fewer where a frame or an extent ends.

        At the beginning of a frame no more of it is decoded than that. Empty at the end only.
        """
        self._check()
        at = 0
        for extent in self.entry.extents:
            if offset < at + extent.length:
                skip, left = offset - at, at + extent.length - offset
                if extent.object == HOLE:
                    return bytes(min(length, left))
                reader = self._reader(extent)
                return reader.prefix(extent.offset + skip, min(length, left))
            at += extent.length
        return b""

    def _read(self, number: int, offset: int, piece: memoryview) -> None:
        reader = self._part.reader(number)
        if offset + len(piece) > reader.size:
            raise self._beyond()
        reader.pread_into(piece, offset)

    def _check_objects(self, offset: int, end: int) -> None:
        """That a range is held by its objects, before memory is taken for what it claims."""
        at = 0
        for extent in self.entry.extents:
            if extent.object != HOLE and at < end and offset < at + extent.length:
                self._reader(extent)
            at += extent.length

    def _reader(self, extent: Extent) -> SealedReader:
        """A reader of the object of an extent, which holds all of it."""
        reader = self._part.reader(extent.object)
        if extent.offset + extent.length > reader.size:
            raise self._beyond()
        return reader

    def _beyond(self) -> FormatError:
        return FormatError(f"{self.name} claims content that its object does not have")

    def _too_large(self) -> FormatError:
        return FormatError(f"{self.name} claims {self.size} bytes, more than a file can have")

    def whole(self) -> memoryview:
        """All of the content at once; not a copy where it lies in one decoded frame."""
        extents = self.entry.extents
        if len(extents) == 1 and extents[0].object != HOLE:
            extent = extents[0]
            view = self._reader(extent).view(extent.offset, extent.length)
            if view is not None:
                return view
        return memoryview(self.pread(0, self.size))

    def steps(self, step: int) -> Iterator[tuple[int, memoryview, bool]]:
        """The content in order: (offset, bytes, whether they are a hole).

        About ``step`` bytes at a time, and at most those of a frame where it is longer; the buffer
        is used again for the next.
        """
        if self.size > MAX_WHOLE:
            raise self._too_large()
        buffer = memoryview(bytearray(min(step, self.size)))
        at = 0
        for extent in self.entry.extents:
            offset, end = extent.offset, extent.offset + extent.length
            while offset < end:
                if extent.object == HOLE:
                    data = _ZEROS[: end - offset]
                else:
                    take = min(end, self._reader(extent).stop(offset, step)) - offset
                    if take > len(buffer):
                        buffer = memoryview(bytearray(take))
                    data = buffer[:take]
                    self._read(extent.object, offset, data)
                yield at, data, extent.object == HOLE
                offset += len(data)
                at += len(data)

    def digest(self, check: Callable[[], object] = lambda: None) -> bytes:
        """Of the content, read from end to end. ``check`` may raise to end it."""
        hasher = self.hasher()
        for _, data, _ in self.steps(_STEP):
            check()
            hasher.update(data)
        return hasher.digest()

    def check(self, digest: bytes) -> None:
        """Raise IntegrityError unless ``digest`` of the content is what the catalog says.

        The bytes are authentic already; this is the end-to-end check from file to file.
        """
        wanted = self.entry.digest
        if wanted is not None and not equal(wanted, digest):
            raise IntegrityError(
                f"{self.name} does not have the digest that the catalog says",
                hint="the archive was sealed wrong: seal the file again",
            )

    def check_content(self, content: memoryview) -> None:
        """:meth:`check` of the whole content."""
        hasher = self.hasher()
        hasher.update(content)
        self.check(hasher.digest())

    def hasher(self) -> digests.Hasher:
        """A hasher of the digest that the catalog uses."""
        return digests.new(self._part.digest)


def named(error: PQVaultError, name: str) -> PQVaultError:
    """The same error, saying which entry it was met in: itself where it begins with that."""
    if error.message.startswith((f"{name} ", f"{name}: ", f"cannot extract {name}: ")):
        return error
    return type(error)(f"{name}: {error.message}", hint=error.hint)


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Raise what is raised inside as :func:`named` has it."""
    try:
        yield
    except PQVaultError as error:
        told = named(error, name)
        if told is error:
            raise
        raise told from error
