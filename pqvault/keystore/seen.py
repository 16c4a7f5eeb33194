"""What the keystore has seen of archives, so that an older state does not pass for the newest.

Of each archive: its heads (verified parts that no other verified part names as parent) and the
generation of each envelope that was rewrapped. As the index, it is written without the
passphrase and not authenticated: it protects from whoever can write the archive, not from
whoever can write the keystore.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from pqvault.closing import Closing
from pqvault.errors import RolledBack
from pqvault.keystore import database
from pqvault.keystore.store import Keystore
from pqvault.memory import Recalled, Sight

__all__ = ["Seen"]

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS heads (
    archive TEXT NOT NULL, part TEXT NOT NULL, PRIMARY KEY (archive, part)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS generations (
    archive TEXT NOT NULL, envelope TEXT NOT NULL, generation INTEGER NOT NULL,
    PRIMARY KEY (archive, envelope)
) WITHOUT ROWID;
"""
_HINT: Final = (
    "restore the newest state from a copy; if it is right as it is, say so once with"
    " --allow-rollback"
)


class Seen(Closing):
    """The `Memory` of one keystore. Safe for threads; other processes may use the keystore too.

    ``allow_rollback``: what is missing is told with ``warn``, and then forgotten.
    """

    def __init__(
        self,
        keystore: Path | None = None,
        *,
        allow_rollback: bool = False,
        warn: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Raises NotFound when there is no keystore."""
        self._store = Keystore(keystore)
        self._allow = allow_rollback
        self._warn = warn
        self._lock = threading.Lock()
        with database.guarded(self._store.path):
            self._store.db.executescript(_SCHEMA)

    def recall(self, archive: str) -> Recalled:
        """See `Memory.recall`."""
        db = self._store.db
        with self._lock, database.guarded(self._store.path):
            heads = db.execute("SELECT part FROM heads WHERE archive=?", (archive,))
            parts = frozenset(row[0] for row in heads)
            generations = db.execute(
                "SELECT envelope, generation FROM generations WHERE archive=?", (archive,)
            )
            return Recalled(parts, dict(generations))

    def missing(
        self,
        archive: str,
        recalled: Recalled,
        parts: Collection[str],
        generations: Mapping[str, int],
    ) -> list[RolledBack]:
        """See `Memory.missing`."""
        found = [
            RolledBack(f"part {part} is missing, which was seen here before", hint=_HINT)
            for part in sorted(recalled.heads.difference(parts))
        ]
        for name, generation in generations.items():
            known = recalled.generations.get(name, 0)
            if generation < known:
                what = f"the envelope {name} has generation {generation}, older than {known}"
                found.append(RolledBack(f"{what}, which was seen here before", hint=_HINT))
        if not (found and self._allow):
            return found
        for problem in found:
            self._warn(f"{problem.message}: allowed, and no longer remembered")
        self._forget(archive)
        return []

    def remember(self, archive: str, sights: Sequence[Sight], removed: Collection[str]) -> None:
        """See `Memory.remember`. Writes only what is new."""
        self.remember_all([(archive, sights, removed)])

    def remember_all(self, batch: Iterable[tuple[str, Sequence[Sight], Collection[str]]]) -> None:
        """The same of many archives, in one transaction."""
        changes = [change for item in batch if any(change := self._changes(*item))]
        if not changes:
            return
        with self._lock, database.transaction(self._store.db, self._store.path):
            for change in changes:
                _apply(self._store.db, *change)

    def _changes(
        self, archive: str, sights: Sequence[Sight], removed: Collection[str]
    ) -> tuple[list[tuple[str, str]], list[tuple[str, str]], list[tuple[str, str, int]]]:
        """Rows to add to heads, to take from them, and to set in generations."""
        known = self.recall(archive)
        parents = {parent for sight in sights for parent in sight.parents}
        gone = parents | set(removed)
        add = {s.part for s in sights} - gone - known.heads
        drop = known.heads & gone
        rows = [
            (archive, name, generation)
            for sight in sights
            for name, generation in sight.generations.items()
            # What was never rewrapped has generation 1, which nothing is older than.
            if generation > max(1, known.generations.get(name, 0))
        ]
        return [(archive, p) for p in sorted(add)], [(archive, p) for p in sorted(drop)], rows

    def _forget(self, archive: str) -> None:
        with self._lock, database.transaction(self._store.db, self._store.path):
            for table in ("heads", "generations"):
                self._store.db.execute(f"DELETE FROM {table} WHERE archive=?", (archive,))

    def close(self) -> None:
        """Close the file."""
        self._store.close()


def _apply(
    db: sqlite3.Connection,
    add: list[tuple[str, str]],
    drop: list[tuple[str, str]],
    generations: list[tuple[str, str, int]],
) -> None:
    db.executemany("INSERT OR IGNORE INTO heads VALUES (?,?)", add)
    db.executemany("DELETE FROM heads WHERE archive=? AND part=?", drop)
    # Two of us may have seen the envelope: the higher generation stands.
    db.executemany(
        "INSERT INTO generations VALUES (?,?,?) ON CONFLICT (archive, envelope)"
        " DO UPDATE SET generation=max(generation, excluded.generation)",
        generations,
    )
