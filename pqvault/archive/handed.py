"""One object of a part that another process commits: files written under a key handed over."""

from __future__ import annotations

from pqvault.archive.append import AppendFile, OpenObject, Row, Written, check_path
from pqvault.archive.layout import part_file
from pqvault.archive.objects import SealOptions
from pqvault.handover import HandedKey
from pqvault.keys import Identity
from pqvault.storage import Storage

__all__ = ["HandedObject"]


class HandedObject:
    """Files one after the other, in one object. Nothing of it exists for readers until the driver
    lists what :meth:`finish` gives. ``mine``: what the key was sealed to."""

    def __init__(
        self, storage: Storage, handed: HandedKey, mine: Identity, options: SealOptions
    ) -> None:
        key = handed.open(mine)
        self.digest = options.digest
        sink = storage.create(part_file(handed.part, handed.name))
        self._object = OpenObject(sink, handed.name, key, options)
        self._rows: dict[bytes, Row] = {}

    @property
    def size(self) -> int:
        """Bytes of content so far."""
        return self._object.writer.tell()

    def create(self, path: bytes) -> AppendFile:
        """Begin a file; the one before must be finished. Raises UsageError for a path that no
        entry may have."""
        check_path(path)
        return AppendFile(self, path, self._object)

    def keep(
        self, path: bytes, size: int, digest: bytes, extents: list[tuple[int, int, int]]
    ) -> None:
        """A file is whole."""
        self._rows[path] = (size, digest, extents)

    def give_back(self, target: OpenObject) -> None:
        """The object may take another file."""

    def finish(self) -> Written:
        """End the object; what the driver lists."""
        return Written(self._object.finish(), self._rows)

    def abort(self) -> None:
        """Leave nothing."""
        self._object.abort()
