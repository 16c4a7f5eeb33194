"""What the keystore learns from a rotation: who opens what now, and what was seen of archives."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Final

from pqvault.closing import Closing
from pqvault.keystore import database, index
from pqvault.keystore.seen import Seen
from pqvault.keystore.store import Keystore
from pqvault.rotation.archives import Rotated

__all__ = ["Ledger", "open_ledger"]

_BATCH: Final = 256  # archives a transaction, which costs an fsync


class Ledger(Closing):
    """The keystore's part in a rotation of many archives, used by several threads."""

    def __init__(
        self,
        keystore: Path,
        *,
        allow_rollback: bool = False,
        warn: Callable[[str], None] = lambda _: None,
    ) -> None:
        """See `Seen`."""
        self.seen = Seen(keystore, allow_rollback=allow_rollback, warn=warn)
        self._waiting: list[Rotated] = []
        self._store = Keystore(keystore)
        self._lock = threading.Lock()
        # Kill -9 loses nothing of it, a lost power the last rows: the index is a help, no proof.
        self._store.db.execute("PRAGMA synchronous=NORMAL")

    def expect(self, archive: str, path: str, key_ids: Iterable[str]) -> None:
        """Note, before an envelope is rewrapped, who will open it: nobody destroys that key."""
        with self._lock, database.transaction(self._store.db, self._store.path):
            index.add(self._store.db, archive, path, key_ids)

    def note(self, result: Rotated) -> None:
        """Note what became of one; written with others."""
        self._waiting.append(result)
        if len(self._waiting) >= _BATCH:
            self.flush()

    def flush(self) -> None:
        """Write what was noted: who opens each now, and nobody else."""
        waiting, self._waiting = self._waiting, []
        # Where something failed, not all is known of who opens it: what was known stays.
        entries = [(r.archive, r.path, r.key_ids, r.began) for r in waiting if not r.problems]
        if waiting:
            index.replace_all(entries, keystore=self._store.path)
            self.seen.remember_all([(r.archive, r.sights, r.removed) for r in waiting])

    def close(self) -> None:
        """Write the rest, and close the file."""
        try:
            self.flush()
        finally:
            self._store.close()
            self.seen.close()


def open_ledger(
    keystore: Keystore | None, *, allow_rollback: bool, warn: Callable[[str], None]
) -> AbstractContextManager[Ledger | None]:
    """The ledger of a run; None where there is no keystore to tell."""
    if keystore is None:
        return nullcontext()
    return Ledger(keystore.path, allow_rollback=allow_rollback, warn=warn)
