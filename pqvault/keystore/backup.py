"""The whole keystore as one file, and back.

A backup is a keystore: sealed under the passphrase it had then, with public keys, names and
states in clear. It may hold envelopes and commits of archives too (``kept``), which the keystore
that it becomes does not. Those rows are not authenticated: the documents in them are.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final

from pqvault import home
from pqvault.errors import IntegrityError, NotFound, PQVaultError, UsageError
from pqvault.keystore import database
from pqvault.keystore.change import Unlocked
from pqvault.keystore.store import Keystore
from pqvault.wholefile import name_new, sync_folder

__all__ = ["Kept", "backup", "kept_names", "kept_of", "private_copy", "restore"]

_PLACE: Final = "a drill copies to TMPDIR, a restore to PQVAULT_HOME: name a folder with room"
Unlock = Callable[[Keystore], Unlocked]
Kept = tuple[str, str, bytes]  # archive id, name within the archive, content
_SCHEMA: Final = """
CREATE TABLE kept (
    archive TEXT NOT NULL, name TEXT NOT NULL, data BLOB NOT NULL, PRIMARY KEY (archive, name)
) WITHOUT ROWID;
"""


def backup(store: Unlocked, target: Path, kept: Iterable[Kept] = ()) -> None:
    """Write a verified, consistent copy, mode 0600, and ``kept`` with it.

    Raises UsageError when the file exists.
    """
    if target.exists():
        raise _exists(target)
    try:
        str(target.absolute()).encode()
    except UnicodeEncodeError:
        raise UsageError(
            f"{target}: SQLite writes below names in UTF-8 only",
            hint="back up to another folder and move the file",
        ) from None
    store.verify()
    with store.change() as change:
        change.audit("backup", "keystore", where=str(target.absolute()))
    beside = home.beside(target)
    try:
        database.create_file(beside)
        with database.guarded(target):  # what fails is the copy: a full disk is that one's
            store.store.db.execute("VACUUM INTO ?", (str(beside),))
        if kept:
            _keep(beside, kept)
        _sync(beside)
        name_new(beside, target)
    except FileExistsError:
        raise _exists(target) from None
    except OSError as error:
        raise UsageError(
            f"{target} cannot be written: {error.strerror}", hint="back up to another folder"
        ) from None
    finally:
        with suppress(OSError):
            beside.unlink()
    sync_folder(target.absolute().parent)


def _exists(target: Path) -> UsageError:
    return UsageError(
        f"{target} exists, and a backup is never overwritten", hint="choose another name"
    )


def restore(source: Path, unlock: Unlock, *, replace: bool = False) -> Path | None:
    """Put a backup in the keystore's place after it was unlocked and verified.

    ``replace``: although there is a keystore, which is kept beside it; returns where. Raises
    UsageError when there is one otherwise, Locked when another process has it open.
    """
    target = home.folder() / home.keystore().name
    if target.exists() and not replace:
        raise UsageError(
            f"there is a keystore already: {target}",
            hint="--replace keeps it beside the restored one; what it did since is then not seen",
        )
    beside = home.beside(target)
    try:
        _copy(source, beside)
        with _called(source, beside), unlock(Keystore(beside)) as store:
            store.verify()
            with store.change() as change:
                change.audit("restore", "keystore", source=str(source.absolute()))
            _forget_kept(store.store)
            _use_log(store.store)
        _sync(beside)
        old = _aside(target) if target.exists() else None
        name_new(beside, target)
    finally:
        for suffix in ("", "-wal", "-shm"):
            beside.with_name(beside.name + suffix).unlink(missing_ok=True)
    sync_folder(target.parent)
    return old


def _keep(path: Path, kept: Iterable[Kept]) -> None:
    with database.guarded(path), closing(database.connect(path)) as db:
        db.executescript(_SCHEMA)
        with database.transaction(db, path):
            db.executemany("INSERT INTO kept VALUES (?,?,?)", kept)


def _has_kept(store: Keystore) -> bool:
    query = "SELECT 1 FROM sqlite_schema WHERE type='table' AND name='kept'"
    with database.guarded(store.path):
        return store.db.execute(query).fetchone() is not None


def _forget_kept(store: Keystore) -> None:
    if _has_kept(store):
        with database.guarded(store.path):
            store.db.executescript("DROP TABLE kept; VACUUM; PRAGMA wal_checkpoint(TRUNCATE);")


def kept_of(store: Keystore, archive: str) -> dict[str, bytes]:
    """What a backup keeps of one archive, by name. Raises NotFound when it keeps nothing of it."""
    found: dict[str, bytes] = {}
    if _has_kept(store):
        query = """SELECT name, data FROM kept WHERE archive=?
            AND typeof(name)='text' AND typeof(data)='blob'"""
        with database.guarded(store.path):
            found = dict(store.db.execute(query, (archive,)))
    if not found:
        raise NotFound(
            f"the backup keeps nothing of the archive {archive}",
            hint="`pqvault key backup FILE --archive ARCHIVE` keeps its envelopes and commits",
        )
    return found


def kept_names(store: Keystore) -> Iterator[tuple[str, str]]:
    """(archive id, name) of all that a backup keeps."""
    if _has_kept(store):
        with database.guarded(store.path):
            yield from store.db.execute("SELECT archive, name FROM kept ORDER BY archive")


@contextmanager
def private_copy(source: Path) -> Iterator[Keystore]:
    """A backup opened as a copy in a private folder, so that nothing touches the backup."""
    try:
        folder = tempfile.TemporaryDirectory(prefix="pqvault-")
    except OSError as error:  # a container whose file systems are all read-only
        raise PQVaultError(
            f"the backup {source} cannot be copied to be looked into: {error.strerror}", hint=_PLACE
        ) from None
    with folder:
        copy = Path(folder.name) / "keystore.sqlite"
        _copy(source, copy)
        with _called(source, copy), Keystore(copy) as store:
            yield store


@contextmanager
def _called(source: Path, copy: Path) -> Iterator[None]:
    """What is wrong with a copy of a backup is said by the name that the operator knows."""
    try:
        yield
    except IntegrityError as error:
        message = error.message.replace(f"the keystore {copy}", f"the backup {source}")
        raise type(error)(
            message.replace(str(copy), str(source)),
            hint="take another backup; `pqvault key drill --backup FILE ARCHIVE` tries one",
        ) from None


def _aside(target: Path) -> Path:
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    old = target.with_name(f"{target.name}.replaced-{stamp}-{secrets.token_hex(2)}")
    try:
        # Its log goes into it first, then the three files are one. SQLite refuses that while
        # somebody else has it open, who would go on writing to files that are no longer its own.
        with Keystore(target) as store, database.guarded(target):
            store.db.execute("PRAGMA journal_mode=DELETE")
    except IntegrityError:
        pass  # damaged, which is why it is replaced: kept as it is, with its log
    for suffix in ("", "-wal", "-shm"):
        with suppress(FileNotFoundError):
            os.rename(target.with_name(target.name + suffix), old.with_name(old.name + suffix))
    with suppress(IntegrityError), Keystore(old) as store:
        _use_log(store)
    return old


def _use_log(store: Keystore) -> None:
    """As a new keystore: a backup is written without, and a reader would keep writers waiting."""
    with database.guarded(store.path):
        store.db.execute("PRAGMA journal_mode=WAL")


def _copy(source: Path, target: Path) -> None:
    database.create_file(target)
    try:
        with source.open("rb") as reader, target.open("r+b") as writer:
            shutil.copyfileobj(reader, writer)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            where = f"{target.parent}: {error.strerror}"
            raise PQVaultError(
                f"the backup {source} cannot be copied to {where}", hint=_PLACE
            ) from None
        raise UsageError(
            f"the backup {source} cannot be read: {error.strerror}", hint="check the path"
        ) from None


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
