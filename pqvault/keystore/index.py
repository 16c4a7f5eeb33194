"""Which archives a key version opens: kept by `seal` and `scan`, asked by `key destroy`.

A help for people, not a proof: rows are written without the passphrase, on hosts that hold
public keys only, so they are not authenticated, and archives that were copied elsewhere are
not in it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pqvault.keystore import database
from pqvault.keystore.store import Keystore, now

__all__ = ["Dependant", "dependants", "record"]


@dataclass(frozen=True, slots=True)
class Dependant:
    """An archive or sealed stream that a key opens. ``seen``: Unix time in ms."""

    archive: str
    path: str
    seen: int


def dependants(db: sqlite3.Connection, key_id: str) -> list[Dependant]:
    """What is known to be sealed to a key id, in order of path."""
    query = "SELECT archive, path, seen FROM archives WHERE key_id=? ORDER BY path"
    return [Dependant(*row) for row in db.execute(query, (key_id,))]


def record(
    archive_id: str, path: str, key_ids: Iterable[str], *, keystore: Path | None = None
) -> None:
    """Remember that ``key_ids`` open the archive at ``path``, if there is a keystore."""
    if not Keystore.exists(keystore):
        return
    with Keystore(keystore) as store, database.transaction(store.db, store.path):
        rows = [(archive_id, path, key_id, now()) for key_id in key_ids]
        store.db.executemany("INSERT OR REPLACE INTO archives VALUES (?,?,?,?)", rows)
