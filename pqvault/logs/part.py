"""LogPart: a part of an archive while a log is written into it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import pyarrow as pa

from pqvault.archive.columngroups import ColumnGroup, PartKeys, everybody
from pqvault.archive.committing import discard
from pqvault.archive.layout import envelope_name, part_file
from pqvault.errors import PQVaultError
from pqvault.format.wal import wal_name
from pqvault.keys import Recipient, one_profile
from pqvault.logs.wal import WalWriter
from pqvault.signing import SigningKey
from pqvault.storage import LocalStorage
from pqvault.storage.appending import AppendFile

__all__ = ["LogPart"]


@dataclass(frozen=True, slots=True)
class _Mark:
    """Where all files of a part stand."""

    rows: int
    sizes: list[int]
    places: list[tuple[int, bytes]]


class LogPart:
    """The write-ahead files of one part, one for each column group, and the keys of it.

    When it is made, everything that a record needs to be opened again is durable: envelopes,
    files, and the folders that they are in. Used by one thread. Raises PQVaultError.
    """

    def __init__(
        self,
        storage: LocalStorage,
        archive: str,
        recipients: Sequence[Recipient],
        groups: Sequence[ColumnGroup],
        sign: Sequence[SigningKey],
        table: str,
    ) -> None:
        self.storage = storage
        self._table = table
        self.groups = tuple(groups)
        sealed_to = everybody(recipients, groups)
        self.sealed_to = tuple(recipient.key_id for recipient in sealed_to)
        self.keys = PartKeys.generate(archive, groups, one_profile(sealed_to))
        self.rows = 0
        self.lost = 0
        self.ended = False
        self._pid = os.getpid()
        self._files: list[AppendFile] = []
        self._wals: list[tuple[tuple[str, ...], WalWriter]] = []
        try:
            storage.make_folder(f"parts/{self.id}")
            for envelope in self.keys.envelopes(recipients, groups, sign):
                storage.put(envelope_name(self.id, envelope.group), envelope.marshal())
            # The groups first: the main file, which says that there is a log, comes last.
            for group in groups:
                self._begin(group.name, group.columns)
            self._begin("", ())
            self._durable = self._mark()
        except BaseException:
            self.discard()
            raise

    def _begin(self, group: str, columns: tuple[str, ...]) -> None:
        file = self.storage.append(part_file(self.id, wal_name(group)))
        self._files.append(file)
        key = self.keys.groups[group] if group else self.keys.root
        table = "" if group else self._table
        self._wals.append((columns, WalWriter(file, key, group, table)))

    @property
    def id(self) -> str:
        """The part id."""
        return self.keys.root.part

    @property
    def size(self) -> int:
        """Bytes of its files."""
        return sum(file.size for file in self._files)

    def append(self, batch: pa.RecordBatch) -> None:
        """Write rows into every file, or into none."""
        taken = {name for group in self.groups for name in group.columns}
        rest = tuple(name for name in batch.schema.names if name not in taken)

        def write() -> None:
            for columns, writer in self._wals:
                writer.write_batch(batch.select(columns or rest))

        self._all_or_none(write)
        self.rows += len(batch)

    @property
    def removed(self) -> bool:
        """Whether somebody has removed a file of it."""
        return any(file.removed for file in self._files)

    def sync(self, *, durable: bool = True) -> None:
        """See that all that was appended can be found, and make it ``durable``."""
        if self.removed:
            where = self.storage.where(f"parts/{self.id}")
            raise PQVaultError(f"{where} was removed while a log was written into it")
        for file in self._files if durable else ():
            file.sync()
        self._durable = self._mark()

    def revert(self) -> None:
        """Take back what is not durable, after a failed :meth:`sync`."""
        self._return_to(self._durable)

    def end(self) -> None:
        """Append the closing record, durably: from here on nobody can cut the file unseen."""

        def write() -> None:
            for _, writer in self._wals:
                writer.end(self.rows, self.lost)

        if not self.ended:
            self._all_or_none(write)
            self.ended = True
        self.sync()

    def _all_or_none(self, write: Callable[[], object]) -> None:
        # A forked child has the same keys: what it seals must not follow what its parent sealed.
        if os.getpid() != self._pid:
            raise PQVaultError("a log part was carried into another process")
        before = self._mark()
        try:
            write()
        except BaseException:
            self._return_to(before)
            raise

    def _mark(self) -> _Mark:
        places = [writer.place for _, writer in self._wals]
        return _Mark(self.rows, [file.size for file in self._files], places)

    def _return_to(self, mark: _Mark) -> None:
        for file, size in zip(self._files, mark.sizes, strict=True):
            file.truncate(size)
        for (_, writer), place in zip(self._wals, mark.places, strict=True):
            writer.place = place
        self.rows = mark.rows

    def remove_files(self) -> None:
        """Remove the write-ahead files, the main one last, and give their locks back."""
        for group in (*(g.name for g in self.groups), ""):
            self.storage.remove(part_file(self.id, wal_name(group)))
        self.close()

    def discard(self) -> None:
        """Remove all of a part that holds no rows."""
        with suppress(PQVaultError):  # what cannot be removed is for gc
            discard(self.storage, self.id)
        self.close()

    def close(self) -> None:
        """Give the locks of the files back."""
        for file in self._files:
            file.close()
