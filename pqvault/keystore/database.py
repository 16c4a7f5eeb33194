"""The keystore's SQLite file: schema, connections, transactions. No cryptography here.

WAL with synchronous=FULL: what was reported done is on the disk. ``secure_delete`` overwrites
what a row held; copies that a file system or a backup keeps are out of reach.
"""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from pqvault.errors import IntegrityError, Locked, NotFound, PQVaultError, UsageError

__all__ = ["FORMAT", "WAIT", "connect", "create_file", "guarded", "reading", "transaction"]

FORMAT: Final = 1
WAIT: Final = 10.0  # seconds for another process's transaction, which takes milliseconds

SCHEMA: Final = """
CREATE TABLE meta (
    id INTEGER PRIMARY KEY CHECK (id = 1), format INTEGER NOT NULL, keystore TEXT NOT NULL,
    created INTEGER NOT NULL, generation INTEGER NOT NULL, audit_seq INTEGER NOT NULL,
    audit_hash BLOB NOT NULL, root BLOB NOT NULL, mac BLOB NOT NULL
);
CREATE TABLE unlocks (kind TEXT PRIMARY KEY, parameters TEXT NOT NULL, sealed BLOB NOT NULL)
    WITHOUT ROWID;
CREATE TABLE names (
    uid TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, created INTEGER NOT NULL,
    labels TEXT NOT NULL, floor_seal INTEGER NOT NULL, floor_open INTEGER NOT NULL,
    mac BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE versions (
    uid TEXT NOT NULL REFERENCES names, version INTEGER NOT NULL, profile TEXT NOT NULL,
    key_id TEXT NOT NULL UNIQUE, public_key BLOB NOT NULL, sealed_seed BLOB, state TEXT NOT NULL,
    created INTEGER NOT NULL, expires INTEGER, period TEXT NOT NULL,
    transitions INTEGER NOT NULL, history BLOB NOT NULL, mac BLOB NOT NULL,
    PRIMARY KEY (uid, version)
);
CREATE TABLE transitions (
    uid TEXT NOT NULL, version INTEGER NOT NULL, seq INTEGER NOT NULL, time INTEGER NOT NULL,
    old TEXT NOT NULL, new TEXT NOT NULL, reason TEXT NOT NULL,
    PRIMARY KEY (uid, version, seq)
) WITHOUT ROWID;
CREATE TABLE audit (
    seq INTEGER PRIMARY KEY, time INTEGER NOT NULL, action TEXT NOT NULL, subject TEXT NOT NULL,
    detail TEXT NOT NULL, previous BLOB NOT NULL, hash BLOB NOT NULL
);
CREATE TABLE archives (
    archive TEXT NOT NULL, path TEXT NOT NULL, key_id TEXT NOT NULL, seen INTEGER NOT NULL,
    PRIMARY KEY (archive, path, key_id)
) WITHOUT ROWID;
CREATE INDEX archives_by_key ON archives (key_id);
"""

opened = False  # whether this process ever had a keystore open
_ROOM: Final = (
    "SQLite writes beside it, also to read: its folder must have room and not be read-only;"
    " `pqvault key restore FILE` puts a copy where PQVAULT_HOME says"
)
_BUSY: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})


def create_file(path: Path) -> None:
    """Make an empty file, mode 0600, before SQLite sees it; -wal and -shm take the same mode.

    Raises UsageError when it exists: a keystore is never overwritten.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(path, flags, 0o600)
    except FileExistsError:
        raise UsageError(
            f"there is a keystore already: {path}",
            hint="`pqvault key list` shows it; PQVAULT_HOME names another folder",
        ) from None
    try:
        os.fchmod(fd, 0o600)
    finally:
        os.close(fd)


def connect(path: Path, *, wait: float = WAIT) -> sqlite3.Connection:
    """Open an existing keystore. Raises NotFound, UsageError when others may read it."""
    try:
        mode = os.stat(path, follow_symlinks=False).st_mode
    except FileNotFoundError:
        raise NotFound(
            f"there is no keystore {path}",
            hint="make one with `pqvault init`, or name its folder in PQVAULT_HOME",
        ) from None
    except OSError as error:  # a folder above it that is a file, or not for us
        raise PQVaultError(
            f"the keystore {path} cannot be used: {error.strerror}",
            hint="name the folder where it is in PQVAULT_HOME",
        ) from None
    if not stat.S_ISREG(mode):
        raise UsageError(
            f"the keystore {path} is not a regular file",
            hint="name the folder where it is in PQVAULT_HOME",
        )
    if mode & 0o077:
        raise UsageError(
            f"the keystore {path} can be used by other users", hint=f"run `chmod 600 {path}`"
        )
    with guarded(path):
        db = sqlite3.connect(path, timeout=wait, isolation_level=None, check_same_thread=False)
        try:
            db.executescript(
                "PRAGMA trusted_schema=OFF; PRAGMA secure_delete=ON; PRAGMA cell_size_check=ON;"
                "PRAGMA foreign_keys=ON; PRAGMA synchronous=FULL;"
            )
            _refuse_strangers(db, path)
        except BaseException:
            db.close()
            raise
    global opened
    opened = True
    return db


def _refuse_strangers(db: sqlite3.Connection, path: Path) -> None:
    # A trigger or a view of somebody else would run inside our transactions.
    query = "SELECT name FROM sqlite_schema WHERE type IN ('trigger', 'view') LIMIT 1"
    if db.execute(query).fetchone() is not None:
        raise IntegrityError(
            f"the keystore {path} holds a trigger or a view, which pqvault never makes",
            hint="`pqvault key restore FILE --replace` puts a backup in its place",
        )


@contextmanager
def guarded(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into ours: Locked, IntegrityError for a damaged file, others."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF in _BUSY:
            raise Locked(f"the keystore {path} is in use by another process") from None
        raise PQVaultError(f"the keystore {path} cannot be used: {error}", hint=_ROOM) from None
    except sqlite3.IntegrityError as error:
        raise PQVaultError(
            f"the keystore {path} refuses this: {error}",
            hint="`pqvault key list --verify` checks it",
        ) from None
    except sqlite3.DatabaseError as error:
        raise IntegrityError(
            f"the keystore {path} is damaged: {error}",
            hint="`pqvault key restore FILE --replace` puts a backup in its place",
        ) from None


@contextmanager
def transaction(db: sqlite3.Connection, path: Path) -> Iterator[None]:
    """One writing transaction, taken at once (BEGIN IMMEDIATE), undone by any exception."""
    with guarded(path):
        db.execute("BEGIN IMMEDIATE")
        try:
            yield
            db.execute("COMMIT")
        finally:
            if db.in_transaction:
                db.execute("ROLLBACK")


@contextmanager
def reading(db: sqlite3.Connection, path: Path) -> Iterator[None]:
    """One state of the file for several queries; inside a transaction, that one's."""
    with guarded(path):
        if db.in_transaction:
            yield
            return
        db.execute("BEGIN")
        try:
            yield
        finally:
            db.execute("COMMIT")
