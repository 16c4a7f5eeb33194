"""The journal: what this host has sealed into an archive, so that a repeated or interrupted
seal carries on without a private key.

One SQLite file per archive in ``PQVAULT_HOME/journals``, mode 0600; it holds names, sizes and
times, no secret and no digest of content. The rows of a part are written just before its commit
is put, with the commit's digest; at start only rows count whose part is on storage with that
very commit. So a crash on either side, a restored or a collected archive make files be sealed
again, and never be assumed.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from itertools import chain, islice
from pathlib import Path
from typing import Final, NamedTuple

from pqvault import home
from pqvault.closing import Closing
from pqvault.errors import PQVaultError

__all__ = ["KEPT_TABLE", "Journal", "Known"]

KEPT_TABLE: Final = ord("T")  # kind, here alone: a table whose file is sealed beside it

_SCHEMA = """
CREATE TABLE IF NOT EXISTS parts (id TEXT PRIMARY KEY, digest TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS files (
    path BLOB PRIMARY KEY, kind INTEGER NOT NULL, size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL, ctime_ns INTEGER NOT NULL, inode INTEGER NOT NULL,
    part TEXT NOT NULL
) WITHOUT ROWID;
-- What stood below a folder is hidden for good once its path is no folder any more (format 5.3):
-- it is not sealed any longer, and must be sealed again when a folder comes back.
CREATE TRIGGER IF NOT EXISTS ended BEFORE INSERT ON files
WHEN NEW.kind != 100 AND EXISTS (SELECT 1 FROM files WHERE path = NEW.path AND kind = 100)
BEGIN
    DELETE FROM files WHERE path > CAST(NEW.path || x'2f' AS BLOB)
                        AND path < CAST(NEW.path || x'30' AS BLOB);
END;
"""
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_AT_ONCE = 64  # rows a statement: each statement costs as much as three rows
_INODES = 2**64  # SQLite's integers have a sign, inodes none
# What SQLite says when it is the place that is wrong, and not the file.
_PLACE = frozenset({sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM})
_BUSY = 60  # seconds to wait for another process's short transaction


class Known(NamedTuple):
    """What was sealed under a path: enough to see that a file has not changed."""

    path: bytes
    kind: int
    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    part: str


class Journal(Closing):
    """The journal of one archive on this host. Several processes may use it at once."""

    def __init__(self, archive: str, folder: Path | None = None) -> None:
        self.path = (folder or home.folder(home.journals().name)) / f"{archive}.sqlite"
        try:
            # Made by us with its mode before SQLite sees it; -wal and -shm take the same mode. One
            # that is there is not opened: to close it again would let go of the locks that SQLite
            # holds on it for another journal of this process.
            with suppress(FileExistsError):
                os.close(os.open(self.path, _NEW, 0o600))
            self._db = self._connect()
        except (OSError, sqlite3.Error) as error:
            raise self._failed(error) from None
        try:
            self._prepare()
        except sqlite3.Error as error:
            self._db.close()
            raise self._failed(error) from None

    def _prepare(self) -> None:
        """Tables, and the log that lets others read while one writes."""
        began = time.monotonic()
        while True:
            try:
                self._db.execute("PRAGMA journal_mode=WAL")
                self._db.executescript(_SCHEMA)
                return
            except sqlite3.OperationalError as error:
                # Changing the mode answers "locked" at once, whatever the time-out.
                busy = error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
                if not busy or time.monotonic() - began > _BUSY:
                    raise
                time.sleep(0.05)

    def _connect(self) -> sqlite3.Connection:
        # By one thread at a time, but not always the same one.
        return sqlite3.connect(
            self.path, timeout=_BUSY, isolation_level=None, check_same_thread=False
        )

    def _failed(self, error: Exception) -> PQVaultError:
        code = getattr(error, "sqlite_errorcode", None)
        hint = "remove it to seal without it: files are then sealed again"
        if code == sqlite3.SQLITE_FULL:
            hint = "free some space there, or set PQVAULT_HOME to another folder"
        elif isinstance(error, OSError) or (code or 0) & 0xFF in _PLACE:
            hint = (
                "check its owner and mode and those of its folder, or set PQVAULT_HOME to another"
            )
        reason = error.strerror if isinstance(error, OSError) else error
        return PQVaultError(f"the journal {self.path} cannot be used: {reason}", hint=hint)

    def valid_parts(self, committed: Mapping[str, str]) -> set[str]:
        """The parts we sealed that are on storage with the very commit that we put there.

        ``committed``: part id -> digest of its commit, in hex, as they are on storage now.
        """
        try:
            rows = self._db.execute("SELECT id, digest FROM parts").fetchall()
        except sqlite3.Error as error:
            raise self._failed(error) from None
        return {part for part, digest in rows if committed.get(part) == digest}

    def known(self, committed: Mapping[str, str]) -> Iterator[Known]:
        """The rows of :meth:`valid_parts`, in order of path."""
        return self._rows_of(self.valid_parts(committed))

    def _rows_of(self, ours: set[str]) -> Iterator[Known]:
        try:
            # A connection of its own: rows are read while others are written.
            with closing(self._connect()) as db:
                for row in db.execute("SELECT * FROM files ORDER BY path"):
                    if row[6] in ours:
                        known = Known(*row)
                        yield known if known.inode >= 0 else _with_inode(known, _INODES)
        except sqlite3.Error as error:
            raise self._failed(error) from None

    def record(self, part: str, commit_digest: str, rows: Iterable[Known]) -> None:
        """Remember a part that is about to be committed, in one transaction."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute("INSERT OR REPLACE INTO parts VALUES (?, ?)", (part, commit_digest))
            rows = (r if r.inode < _INODES // 2 else _with_inode(r, -_INODES) for r in rows)
            while some := list(islice(rows, _AT_ONCE)):
                places = ",".join(["(?,?,?,?,?,?,?)"] * len(some))
                statement = f"INSERT OR REPLACE INTO files VALUES {places}"
                self._db.execute(statement, list(chain.from_iterable(some)))
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise self._failed(error) from None

    @contextmanager
    def turn(self) -> Iterator[None]:
        """For the block no other run on this host has its turn; it waits for that.

        Of two parts that are committed at once readers see the later one by its commit, and the
        journal has the rows that were recorded last. They must be the same: else a file could be
        taken for sealed of which the archive shows what it was before.
        """
        try:
            fd = os.open(
                self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
            )
            try:
                fcntl.flock(fd, fcntl.LOCK_EX)
            except BaseException:
                os.close(fd)
                raise
        except OSError as error:
            raise self._failed(error) from None
        try:
            yield
        finally:
            os.close(fd)

    def close(self) -> None:
        """Close the file."""
        self._db.close()


def _with_inode(row: Known, more: int) -> Known:
    return row._replace(inode=row.inode + more)
