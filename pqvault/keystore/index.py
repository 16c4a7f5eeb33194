"""Which archives a key version opens: kept by the commands that seal and by `scan`, asked by
`key destroy`.

A help for people, not a proof: rows are written without the passphrase, on hosts that hold
public keys only, so they are not authenticated, and archives that were copied elsewhere are
not in it.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Final

from pqvault.ids import now
from pqvault.keystore import database
from pqvault.keystore.store import Keystore
from pqvault.storage import storage_at

__all__ = [
    "STREAM",
    "Dependant",
    "Row",
    "add",
    "dependants",
    "record",
    "replace",
    "replace_all",
    "replace_below",
]

STREAM: Final = "stream"  # in place of the id of an archive, of a sealed stream
Row = tuple[str, str, str]  # archive id (or "stream"), path, key id


@dataclass(frozen=True, slots=True)
class Dependant:
    """An archive or sealed stream that a key opens. ``seen``: Unix time in ms."""

    archive: str
    path: str
    seen: int


def dependants(db: sqlite3.Connection, key_id: str) -> list[Dependant]:
    """What is known to be sealed to a key id, in order of path."""
    query = "SELECT archive, path, seen FROM archives WHERE key_id=? ORDER BY path"
    return [
        Dependant(archive, os.fsdecode(path), seen)
        for archive, path, seen in db.execute(query, (key_id,))
    ]


def _stored(path: str) -> str | bytes:
    """A path as the table holds it: SQLite's text is UTF-8, which a path need not be."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return os.fsencode(path)
    return path


def add(db: sqlite3.Connection, archive_id: str, path: str, key_ids: Iterable[str]) -> None:
    """Note in a transaction of the caller that ``key_ids`` open the archive at ``path``."""
    rows = [(archive_id, _stored(path), key_id, now()) for key_id in key_ids]
    db.executemany("INSERT OR REPLACE INTO archives VALUES (?,?,?,?)", rows)


def record(
    archive_id: str, path: str, key_ids: Iterable[str], *, keystore: Path | None = None
) -> None:
    """Remember that ``key_ids`` open the archive at ``path`` (or the URL that it is), if there is a
    keystore, under the name that a rotation has for it and `scan`."""
    if not Keystore.exists(keystore):
        return
    stream = archive_id == STREAM
    place = os.path.abspath(path) if stream else storage_at(path).where("").rstrip("/")
    with Keystore(keystore) as store, database.transaction(store.db, store.path):
        add(store.db, archive_id, place, key_ids)


def replace(
    archive_id: str, path: str, key_ids: Iterable[str], *, keystore: Path | None = None
) -> None:
    """Remember that ``key_ids`` and no others open the archive at ``path``: after a rotation."""
    replace_all([(archive_id, path, key_ids, now() + 1)], keystore=keystore)


def replace_all(
    entries: Iterable[tuple[str, str, Iterable[str], int]], *, keystore: Path | None = None
) -> None:
    """The same for many archives, as (archive id, path, key ids, when it was looked at), in one
    transaction. What others noted of an archive since then stays."""
    if not Keystore.exists(keystore):
        return
    with Keystore(keystore) as store, database.transaction(store.db, store.path):
        for archive_id, path, key_ids, since in entries:
            where = (archive_id, _stored(path), since)
            store.db.execute("DELETE FROM archives WHERE archive=? AND path=? AND seen<?", where)
            add(store.db, archive_id, path, key_ids)


def replace_below(
    folder: str,
    rows: Iterable[Row],
    keep: Iterable[str] = (),
    *,
    since: int | None = None,
    keystore: Path | None = None,
) -> int:
    """Make the index for all that is below ``folder`` be ``rows``, except paths of ``keep``, what
    is below them, and what others noted ``since`` one began to look.

    Returns how many entries went. Raises NotFound when there is no keystore.
    """
    kept = set(keep)
    prefix = folder.rstrip("/") + "/"
    new = set(rows)
    with Keystore(keystore) as store, database.transaction(store.db, store.path):
        before = now() + 1 if since is None else since
        query = "SELECT archive, path, key_id FROM archives WHERE seen<?"
        found = store.db.execute(query, (before,))
        old = {(archive, os.fsdecode(path), key_id) for archive, path, key_id in found}
        below = {row for row in old if row[1] == folder or row[1].startswith(prefix)}
        gone = {row for row in below - new if kept.isdisjoint(_around(row[1]))}
        where = "archive=? AND path=? AND key_id=?"
        left = ((archive, _stored(path), key_id) for archive, path, key_id in gone)
        store.db.executemany(f"DELETE FROM archives WHERE {where}", left)
        for archive, path, key_id in new:
            add(store.db, archive, path, [key_id])
    return len(gone)


def _around(path: str) -> set[str]:
    """A path and all folders that it is in."""
    return {path, *map(str, PurePath(path).parents)}
