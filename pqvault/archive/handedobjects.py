"""Objects of a part for who has their keys, and not the part's: a worker."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from pqvault.archive.layout import part_file
from pqvault.archive.witness import Witness
from pqvault.closing import Closing
from pqvault.format.commit import PartFile, object_number
from pqvault.format.entries import HOLE, Entry
from pqvault.format.zstdseek import MAX_FRAME
from pqvault.sealed import FrameCache, SealedReader
from pqvault.sealed.listed import open_listed
from pqvault.storage import ReadAt, Storage

if TYPE_CHECKING:  # it would import pyarrow
    from pqvault.archive.part import OpenPart

__all__ = ["SMALL", "Handed", "HandedObjects", "objects_of", "open_object"]

_CACHE: Final = MAX_FRAME  # bytes of content: a worker reads in order
SMALL: Final = 64 * 1024  # bytes of a sealed file that is read whole


def open_object(
    storage: Storage,
    part: str,
    file: PartFile,
    key: tuple[bytes, bytes],
    cache: FrameCache,
    around: Callable[[ReadAt], ReadAt] = lambda source: source,
) -> SealedReader:
    """A reader of one object of a part. ``key``: and context, as `RootKey.object` gives them;
    ``around``: what is read in the place of the file itself."""
    path = part_file(part, file.name)
    source = around(open_listed(storage, path, file.size, SMALL))
    try:
        return SealedReader(source, *key, path, cache=cache, close_source=source.close)
    except BaseException:
        source.close()
        raise


def objects_of(entries: Iterable[Entry]) -> set[int]:
    """The numbers of the objects that hold the content of entries."""
    return {extent.object for entry in entries for extent in entry.extents} - {HOLE}


class Handed(NamedTuple):
    """Objects of a part and a key and context for each, to be sent to a process of our own."""

    storage: Storage
    part: str
    digest: str
    files: tuple[PartFile, ...]
    keys: tuple[tuple[bytes, bytes], ...]

    @classmethod
    def of(cls, part: OpenPart, numbers: Iterable[int]) -> Self:
        """Of the objects ``numbers`` of a part."""
        files = tuple(part.file(number) for number in sorted(numbers))
        keys = tuple(part.key.object(file.name) for file in files)
        return cls(part.storage, part.id, part.digest, files, keys)

    def open(self, on_bytes: Callable[[int], object] | None = None) -> HandedObjects:
        """As the other process reads them. ``on_bytes``: their digests are taken on the way, of
        which it hears; it may raise."""
        return HandedObjects(self, on_bytes)


class HandedObjects(Closing):
    """As much of a part as a worker has keys for."""

    def __init__(self, handed: Handed, on_bytes: Callable[[int], object] | None) -> None:
        self.digest = handed.digest
        self._handed = handed
        pairs = zip(handed.files, handed.keys, strict=True)
        self._files = {object_number(file.name): (file, key) for file, key in pairs}
        self._cache = FrameCache(_CACHE)
        self._readers: dict[int, SealedReader] = {}
        self._on_bytes = on_bytes
        self._witnesses: dict[int, Witness] = {}

    def reader(self, number: int) -> SealedReader:
        """A reader of an object, kept open. Raises IntegrityError."""
        if number not in self._readers:
            file, key = self._files[number]
            storage, part = self._handed.storage, self._handed.part

            def around(source: ReadAt) -> ReadAt:
                if self._on_bytes is None:
                    return source
                self._witnesses[number] = Witness(source, self.digest, self._on_bytes)
                return self._witnesses[number]

            self._readers[number] = open_object(storage, part, file, key, self._cache, around)
        return self._readers[number]

    def has_digest(self, number: int) -> bool:
        """Whether the file of a witnessed object has the digest that the commit says. Cheap once
        its content was read in order. Raises IntegrityError."""
        self.reader(number)
        return self._witnesses[number].digest() == self._files[number][0].digest

    def close(self) -> None:
        """Close every file."""
        for reader in self._readers.values():
            reader.close()
