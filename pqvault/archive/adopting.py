"""What is found unchanged by its content goes into the journal, so that times do next time."""

from __future__ import annotations

from typing import Final

from pqvault.archive.journal import KEPT_TABLE, Journal, Known
from pqvault.archive.plan import Prior
from pqvault.archive.publicstate import PublicState
from pqvault.archive.walk import Found
from pqvault.format.entries import Kind

__all__ = ["Adopting"]

_AT_ONCE: Final = 8192  # rows; all of a corpus may be adopted


class Adopting:
    """Takes rows from one thread at a time. ``state``: of when the priors were read;
    ``keep_files``: whether tables have their files beside them."""

    def __init__(self, state: PublicState, *, keep_files: bool) -> None:
        self._table = KEPT_TABLE if keep_files else int(Kind.TABLE)
        self._archive = state.archive
        self._commits = {part.id: part.commit_digest for part in state.parts.values()}
        self._rows: dict[str, list[Known]] = {}  # by part
        self._count = 0

    def add(self, prior: Prior, found: Found) -> None:
        """What stands in the archive as ``prior`` is what was found. Raises PQVaultError."""
        kind = self._table if found.kind == Kind.TABLE else found.kind
        row = Known(
            found.path, kind, found.size, found.mtime_ns, found.ctime_ns, found.inode,
            prior.part,
        )  # fmt: skip
        self._rows.setdefault(prior.part, []).append(row)
        self._count += 1
        if self._count >= _AT_ONCE:
            self.flush()

    def flush(self) -> None:
        """All that was taken is in the journal. Raises PQVaultError."""
        if not self._rows:
            return
        # A journal of its own: the one of the run is another thread's.
        with Journal(self._archive) as journal:
            for part, rows in self._rows.items():
                journal.record(part, self._commits[part], rows)
        self._rows, self._count = {}, 0
