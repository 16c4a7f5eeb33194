"""AppendPart: a new part made of files that a program writes, with public keys only.

What `seal` does for files on disk, for files that come as writes: no plan, no journal, no
temporary file. Nothing of it exists for readers until :meth:`AppendPart.commit`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias

import pyarrow as pa

from pqvault.archive import layout, retired
from pqvault.archive.committing import (
    give_up,
    make_commit,
    make_envelope,
    put_part,
    refuse_digests,
    refuse_unsigned,
)
from pqvault.archive.objects import DigestingSink, SealOptions
from pqvault.archive.partwriter import write_catalog
from pqvault.archive.publicstate import PublicState
from pqvault.crypto import digest as digests
from pqvault.errors import IntegrityError, PQVaultError, UsageError
from pqvault.format.catalog import table_of
from pqvault.format.commit import PartFile, object_number
from pqvault.format.entries import MAX_NAME, Kind, is_path
from pqvault.handover import HandedKey
from pqvault.ids import new_id
from pqvault.keys import Recipient, one_profile
from pqvault.names import printable
from pqvault.rootkey import RootKey
from pqvault.sealed import SealedWriter
from pqvault.sealed.writer import DEFAULT_FRAME, DEFAULT_LEVEL
from pqvault.signing import SigningKey
from pqvault.storage import Sink, Storage

__all__ = ["OBJECT_SIZE", "AppendFile", "AppendPart", "OpenObject", "Written", "check_path"]

OBJECT_SIZE: Final = 256 * 1024 * 1024  # bytes of content; the file that reaches it is not cut
_FILE_MODE: Final = 0o644
_FOLDER_MODE: Final = 0o755


# What is known of a file: its size in bytes, its digest, (object, offset, length) of each extent.
Row: TypeAlias = tuple[int, bytes, list[tuple[int, int, int]]]


@dataclass(frozen=True, slots=True)
class Written:
    """An object that another process wrote under a key that it was handed: its line of the
    commit, and the files in it by their paths."""

    file: PartFile
    rows: dict[bytes, Row]


class Owner(Protocol):
    """Whose file is being written: it hears how that ends."""

    @property
    def digest(self) -> str:
        """The name of the digest that it uses."""

    def keep(
        self, path: bytes, size: int, digest: bytes, extents: list[tuple[int, int, int]]
    ) -> None:
        """The file is whole. ``extents``: (object, offset, length)."""

    def give_back(self, target: OpenObject) -> None:
        """The object may take another file."""


class OpenObject:
    """One object being written: files one after the other, by one of them at a time."""

    def __init__(self, sink: Sink, name: str, key: tuple[bytes, bytes], options: SealOptions):
        self.number = object_number(name)
        self.name = name
        self._sink = sink
        self._digesting = DigestingSink(sink, options.digest)
        self.writer = SealedWriter(
            self._digesting, *key, level=options.level, frame_size=options.frame_size
        )

    def finish(self) -> PartFile:
        """The line of the commit; the object is whole."""
        self.writer.finish()
        self._sink.finish()
        return self._digesting.listing(self.name)

    def abort(self) -> None:
        """Leave nothing of it."""
        self.writer.close()
        self._sink.abort()


class AppendFile:
    """One file of a part that is being written. ``with`` keeps it on a clean exit only."""

    def __init__(self, part: Owner, path: bytes, target: OpenObject) -> None:
        self.path = path
        self._part = part
        self._object: OpenObject | None = target
        self._start = target.writer.tell()
        self._hasher = digests.new(part.digest)
        self.size = 0  # bytes

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Take all of ``data``; returns its length in bytes."""
        if self._object is None:
            raise ValueError("the file is closed")
        view = memoryview(data).cast("B")
        self._object.writer.write(view)
        self._hasher.update(view)
        self.size += len(view)
        return len(view)

    def finish(self) -> None:
        """The file is whole: the part will list it."""
        if self._object is not None:
            extents = [(self._object.number, self._start, self.size)] if self.size else []
            self._part.keep(self.path, self.size, self._hasher.digest(), extents)
            self._part.give_back(self._object)
            self._object = None

    def abort(self) -> None:
        """The part will not list it; what was written of it is never read."""
        if self._object is not None:
            self._part.give_back(self._object)
            self._object = None


def check_path(path: bytes) -> None:
    """Raise UsageError for a path that no entry may have."""
    if not is_path(path):
        raise UsageError(
            f"{printable(path)[:80] or 'the empty path'} is not a path that an entry can have",
            hint=f"names of 1 to {MAX_NAME} bytes with one / between them, none of them . or ..",
        )


class AppendPart:
    """A part that grows by :meth:`create` and exists once :meth:`commit` has returned.

    Makes the archive when there is none. ``recipients``: who may open it. Files may be written
    on several threads. Raises UsageError, PolicyRefused, RolledBack before anything is written.
    """

    def __init__(
        self,
        storage: Storage,
        recipients: Sequence[Recipient],
        *,
        level: int = DEFAULT_LEVEL,
        frame_size: int = DEFAULT_FRAME,
        sign: Sequence[SigningKey] = (),
    ) -> None:
        self._storage = storage
        self._recipients = recipients
        self._sign = sign
        profile = one_profile(recipients)
        self._options = SealOptions(level, frame_size, profile.digest)
        self._state = PublicState(storage) if storage.exists(layout.HEADER) else None
        self._check()
        archive = layout.create_archive(storage)
        self._state = self._state or PublicState(storage)
        refuse_digests(self._state, profile)
        self._key = RootKey.generate(archive, new_id(), profile)
        storage.make_folder(f"parts/{self._key.part}/objects")
        self._lock = threading.Lock()
        self._free: list[OpenObject] = []
        self._busy: list[OpenObject] = []
        self._count = 0
        self._files: list[PartFile] = []
        self._rows: dict[bytes, Row] = {}
        self._handed: set[str] = set()  # names of objects that others may be writing

    @property
    def digest(self) -> str:
        """The name of the digest that it uses."""
        return self._options.digest

    def _check(self) -> None:
        if self._state is None:
            return
        self._state.refuse_rolled_back()
        retired.check(self._storage, [one.key_id for one in self._recipients])
        if not self._sign:
            refuse_unsigned(self._state)

    def create(self, path: bytes) -> AppendFile:
        """Begin a file. Raises UsageError for a path that no entry may have."""
        check_path(path)
        with self._lock:
            target = self._free.pop() if self._free else self._new_object()
            self._busy.append(target)
        return AppendFile(self, path, target)

    def _new_name(self) -> str:
        name = layout.new_object_name(self._count)
        self._count += 1
        return name

    def _new_object(self) -> OpenObject:
        name = self._new_name()
        sink = self._storage.create(layout.part_file(self._key.part, name))
        return OpenObject(sink, name, self._key.object(name), self._options)

    def give_back(self, target: OpenObject) -> None:
        """The object may take another file; a full one is finished. With one that met an error the
        part will not be committed, and that error is the one to tell."""
        with self._lock:
            self._busy.remove(target)
            if target.writer.tell() < OBJECT_SIZE or not target.writer.is_open:
                self._free.append(target)
                return
        file = target.finish()
        with self._lock:
            self._files.append(file)

    def keep(
        self, path: bytes, size: int, digest: bytes, extents: list[tuple[int, int, int]]
    ) -> None:
        """A file is whole."""
        with self._lock:
            self._rows[path] = (size, digest, extents)

    # -- objects that other processes write ------------------------------------------------

    @property
    def options(self) -> SealOptions:
        """How its objects are written."""
        return self._options

    def hand_over(self, worker: Recipient) -> HandedKey:
        """The key of a new object, for one worker. What it makes of it, it gives to :meth:`take`;
        of a worker that does not, nothing is left by the commit."""
        with self._lock:
            name = self._new_name()
            self._handed.add(name)
        return HandedKey.to(worker, self._key, name)

    def take(self, written: Written) -> None:
        """List what a worker wrote. Raises UsageError for a path that is there already,
        IntegrityError for an object that was not handed out or came before."""
        with self._lock:
            if written.file.name not in self._handed:
                raise IntegrityError(f"{written.file.name} was not handed out by this part")
            for path in written.rows:
                if path in self._rows:
                    raise UsageError(f"{printable(path)} was written twice")
            self._handed.remove(written.file.name)
            self._files.append(written.file)
            self._rows.update(written.rows)

    def commit(self) -> str | None:
        """Make the part exist; returns its id, None when no file was written.

        Raises PQVaultError when a file is still being written; nothing is left of the part when
        this fails.
        """
        try:
            if self._busy:
                raise PQVaultError("a file of this part is still being written: close it first")
            if not self._rows:
                self.discard()
                return None
            self._commit()
        except BaseException:
            self.discard()
            raise
        return self._key.part

    def _commit(self) -> None:
        state, key = self._state, self._key
        assert state is not None
        for name in self._handed:  # of workers that ended: nobody will list it
            self._storage.remove(layout.part_file(key.part, name))
        while self._free:
            self._files.append(self._free[-1].finish())
            self._free.pop()
        catalog = write_catalog(self._table(), key, self._storage, self.digest, self._files)
        envelope = make_envelope(key, self._recipients, self._sign)
        state.refresh()
        self._check()
        commit = make_commit(
            state,
            key,
            [*self._files, catalog],
            kind="append",
            sealed_to=[recipient.key_id for recipient in self._recipients],
            digest=self.digest,
            sign=self._sign,
        )
        put_part(self._storage, [envelope], commit)

    def _table(self) -> pa.Table:
        """The rows of the catalog: the files, and the folders around them."""
        folders = set()
        for path in self._rows:
            while path := path.rpartition(b"/")[0]:
                folders.add(path)
        both = folders & self._rows.keys()
        if both:
            raise UsageError(f"{printable(min(both))} cannot be both a file and a folder")
        now = time.time_ns()
        rows: list[tuple[Any, ...]] = [
            (path, int(Kind.FOLDER), 0, _FOLDER_MODE, now, None, None, [], None) for path in folders
        ] + [
            (path, int(Kind.FILE), size, _FILE_MODE, now, None, digest, extents, None)
            for path, (size, digest, extents) in self._rows.items()
        ]
        return table_of(sorted(rows))

    def discard(self) -> None:
        """Remove what was written; nothing happens after a commit."""
        with self._lock:
            left = [*self._busy, *self._free]
            self._busy, self._free = [], []
        for target in left:
            target.abort()
        give_up(self._storage, self._key.part)
