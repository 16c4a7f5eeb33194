"""One part of an archive, opened and checked in the order of docs/format.md section 5.2."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

import pyarrow as pa

from pqvault.archive.handedobjects import SMALL, open_object
from pqvault.archive.publicpart import PublicPart, read_envelope
from pqvault.crypto import digest as digests
from pqvault.crypto.mac import equal
from pqvault.errors import FormatError, IntegrityError, NotFound
from pqvault.format.catalog import CatalogReader, check_ancestors
from pqvault.format.commit import CATALOG, PartFile, object_number
from pqvault.format.entries import Entry, Kind
from pqvault.format.table import TableFileDoc
from pqvault.policy import Policy
from pqvault.rootkey import Keyring, RootKey
from pqvault.sealed import FrameCache, RangeFile, SealedReader
from pqvault.storage import Storage

__all__ = [
    "OpenObjects",
    "OpenPart",
]

_CATALOG: Final = -1  # stands where objects have their numbers
_OPEN_OBJECTS: Final = 128  # readers, each with a file, that an archive keeps open


class OpenObjects:
    """Readers of objects, of all parts of an archive, the least recently used dropped first."""

    def __init__(self) -> None:
        self._readers: OrderedDict[tuple[str, int], SealedReader] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, part: str, number: int, open_it: Callable[[], SealedReader]) -> SealedReader:
        """The reader of an object, opened when it is not here."""
        key = (part, number)
        with self._lock:
            if (reader := self._readers.get(key)) is not None:
                self._readers.move_to_end(key)
                return reader
        reader = open_it()  # not under the lock: a store may take its time
        with self._lock:
            reader = self._readers.setdefault(key, reader)
            self._readers.move_to_end(key)
            # Dropped, not closed: another thread may be reading it; its file goes with it.
            while len(self._readers) > _OPEN_OBJECTS:
                self._readers.popitem(last=False)
        return reader

    def close(self, part: str) -> None:
        """Close the readers of one part."""
        with self._lock:
            for key in [key for key in self._readers if key[0] == part]:
                self._readers.pop(key).close()


class _Reopened(RangeFile):
    """An object whose reader is among the open ones only while others are not needed more."""

    def __init__(self, reader: Callable[[], SealedReader]) -> None:
        super().__init__()
        self._reader = reader
        self.size = reader().size

    def pread_into(self, out: memoryview, offset: int) -> None:
        """Fill ``out`` from ``offset``. Thread-safe. Raises IntegrityError."""
        self._reader().pread_into(out, offset)


class OpenPart:
    """A part whose root key is at hand: entries and their content. Thread-safe for reading."""

    def __init__(
        self,
        storage: Storage,
        public: PublicPart,
        identities: Keyring,
        cache: FrameCache,
        policy: Policy,
        objects: OpenObjects | None = None,
    ) -> None:
        commit = public.commit
        what = f"part {commit.part}"
        envelope = public.own_envelope
        # (1) parsed, names compared: read_public. (2) unwrap, (3) envelope MAC
        key = RootKey.unwrap(envelope, identities, f"the envelope of {what}")
        # (4) root, (5) commit MAC
        key.check_commit(commit, what)
        # (6) signatures
        self.signed_by = policy.check(commit, what)
        self.wrapped_by = policy.check_envelope(envelope, f"the envelope of {what}")
        self.signed = policy.counts_as_signed(commit, self.signed_by)
        self.commit = commit
        self.public = public
        self.key = key
        self.storage = storage
        numbered = ((object_number(file.name), file) for file in commit.files)
        self._files = {number: file for number, file in numbered if number >= 0}
        self._identities = identities
        self._policy = policy
        self._group_keys: dict[str, RootKey] = {}
        self._by_name = {file.name: file for file in commit.files}
        self._cache = cache
        self._objects = objects or OpenObjects()
        self._lock = threading.Lock()
        self._catalog_file: RangeFile | None = None
        self._catalog: CatalogReader | None = None
        self._catalog_lock = threading.Lock()

    @property
    def id(self) -> str:
        """The part id."""
        return self.commit.part

    @property
    def digest(self) -> str:
        """The name of the digest that it uses."""
        return self.commit.digest

    def file(self, number: int) -> PartFile:
        """What the commit says of object ``number``."""
        return self._files[number]

    @property
    def catalog(self) -> CatalogReader:
        """(7) The catalog, read when it is first asked for. Raises IntegrityError."""
        with self._catalog_lock:
            if self._catalog is None:
                self._catalog_file = self._open_catalog()
                where = f"the catalog of part {self.id}"
                size = digests.SIZES[self.commit.digest]
                objects = frozenset(self._files)
                self._catalog = CatalogReader(self._catalog_file, objects, where, size)
            return self._catalog

    def read_catalog(self) -> None:
        """Read the catalog's footer now, so that damage is met early."""
        _ = self.catalog

    def check_catalog(self) -> None:
        """Read all of the catalog. Raises IntegrityError for what a reader of it would refuse."""
        for _ in check_ancestors(self.batches(), f"the catalog of part {self.id}"):
            pass

    def _open_catalog(self) -> RangeFile:
        # In a folder each holds a descriptor, and of thousands of parts not all can.
        if self.storage.requests > 1 or self._by_name[CATALOG].size <= SMALL:
            return self._open(CATALOG)
        return _Reopened(lambda: self._objects.get(self.id, _CATALOG, partial(self._open, CATALOG)))

    def _open(self, name: str) -> SealedReader:
        file = self._by_name[name]
        return open_object(self.storage, self.id, file, self.key.object(name), self._cache)

    def reader(self, number: int) -> SealedReader:
        """A reader of object ``number``, kept open for the next caller."""
        return self._objects.get(self.id, number, lambda: self._open(self._files[number].name))

    def table_key(self, file: TableFileDoc) -> RootKey:
        """The root key that a table file goes by, checked to be the one of the catalog.

        Raises NoKeyFits, naming the key ids, when the columns in it are sealed to others.
        """
        key = self.key if not file.group else self._group_key(file.group)
        if not equal(key.commit_id.encode(), file.root.encode()):
            where = f"column group {file.group!r}" if file.group else "table"
            raise IntegrityError(f"the envelope of part {self.id} does not belong to its {where}")
        return key

    def _group_key(self, group: str) -> RootKey:
        with self._lock:
            key = self._group_keys.get(group)
        if key is None:
            what = f"the envelope of column group {group!r} of part {self.id}"
            try:
                envelope = read_envelope(self.storage, self.commit.archive, self.id, group)
            except NotFound:
                raise IntegrityError(f"{what} is missing") from None
            key = RootKey.unwrap(envelope, self._identities, what)
            key.check_same_profile(self.key, what)
            self._policy.check_envelope(envelope, what)
            with self._lock:
                self._group_keys[group] = key
        return key

    def bad(self, sentence: str) -> FormatError:
        """An error about the catalog of this part."""
        return FormatError(f"the catalog of part {self.id} {sentence}")

    def table_size(self, name: str) -> int:
        """The bytes of a table file, as the commit says. Raises FormatError when it does not."""
        if name not in self._by_name:
            raise self.bad(f"names {name}, its commit does not")
        return self._by_name[name].size

    def batches(self, start: bytes = b"", stop: bytes | None = None) -> Iterator[pa.RecordBatch]:
        """The rows of the catalog, checked; tombstones only where they are allowed.

        Row groups from the one that may hold ``start`` to the last that may hold a path before
        ``stop``.
        """
        for batch in self.catalog.batches(start, stop):
            self._check_tombstones(batch.column(1).to_pylist())
            yield batch

    def find(self, path: bytes) -> Entry | None:
        """What this part says of one path."""
        entry = self.catalog.find(path)
        if entry is not None:
            self._check_tombstones([entry.kind])
        return entry

    def _check_tombstones(self, kinds: list[int]) -> None:
        # A writer that could not read the archive cannot know what to remove.
        if self.commit.kind == "append" and Kind.TOMBSTONE in kinds:
            raise FormatError(f"part {self.id} removes entries, which its kind forbids")

    def close(self) -> None:
        """Close every file; what is read after this is opened again."""
        self._objects.close(self.id)
        with self._catalog_lock:
            file, self._catalog_file, self._catalog = self._catalog_file, None, None
        if file is not None:
            file.close()
