"""The thread that turns parts that are over into tables, while the log goes on in the next."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import pyarrow as pa

from pqvault.archive.committing import discard
from pqvault.archive.layout import envelope_name
from pqvault.errors import PQVaultError
from pqvault.format.textdoc import MAX_SIZE
from pqvault.logs.closing import close_part, rows_of
from pqvault.logs.part import LogPart
from pqvault.logs.settings import LogStats
from pqvault.signing import SigningKey
from pqvault.storage import LocalStorage

__all__ = ["Closer"]

_RETRY: Final = (1.0, 60.0)  # seconds between tries, the first and the longest


class Closer:
    """``storage``: the archive; ``table``: the path of the log in it."""

    def __init__(
        self, storage: LocalStorage, table: str, sign: Sequence[SigningKey], stats: LogStats
    ) -> None:
        self._storage = storage
        self._table = table
        self._sign = sign
        self._stats = stats
        self._waiting: deque[LogPart] = deque()
        self._changed = threading.Condition()
        self._ending = False
        self._busy = False
        self._thread: threading.Thread | None = None

    def submit(self, part: LogPart) -> None:
        """Take a part that nothing more is written into."""
        with self._changed:
            self._waiting.append(part)
            if self._thread is None and not self._ending:
                # Not a daemon's work to lose: `stop` does by itself what is left.
                thread = threading.Thread(target=self._run, name="pqvault-close", daemon=True)
                with suppress(RuntimeError):  # the interpreter is ending: no more threads
                    thread.start()
                    self._thread = thread
            self._changed.notify_all()

    def size(self, storage: LocalStorage) -> int:
        """Bytes of the parts that wait in a storage."""
        with self._changed:
            return sum(part.size for part in self._waiting if part.storage is storage)

    def wait(self, timeout: float | None) -> bool:
        """Wait until all that was submitted is closed; False when that takes too long."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting and not self._busy, timeout)

    def stop(self) -> list[LogPart]:
        """Try once more what is left, here: the parts that could not be closed, which `recover`
        can close later."""
        with self._changed:
            self._ending = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()
        failed = []
        while self._waiting:
            part = self._waiting.popleft()
            if not self._try(part):
                part.close()
                failed.append(part)
        return failed

    def forget(self) -> None:
        """In a forked child: give back the files of parts, whose locks are its parent's."""
        for part in self._waiting:
            part.close()

    def _run(self) -> None:
        delay = _RETRY[0]
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._waiting) or self._ending)
                if self._ending:
                    return
                part = self._waiting.popleft()
                self._busy = True
            closed = self._try(part)
            with self._changed:
                self._busy = False
                if not closed:
                    self._waiting.append(part)
                self._changed.notify_all()
                if not closed and self._changed.wait_for(lambda: self._ending, delay):
                    return
            delay = _RETRY[0] if closed else min(2 * delay, _RETRY[1])

    def _try(self, part: LogPart) -> bool:
        try:
            self._close(part)
        except (PQVaultError, OSError, pa.ArrowException) as error:
            self._stats.problem(f"part {part.id} stays a write-ahead file: {error}")
            return False
        return True

    def _close(self, part: LogPart) -> None:
        rows = rows_of(part.storage, part.keys)
        elsewhere = part.storage is not self._storage
        if elsewhere:
            self._bring_envelopes(part)
        committed = close_part(
            rows,
            part.keys,
            self._table,
            into=self._storage,
            sealed_to=part.sealed_to,
            sign=self._sign,
        )
        if rows.rows != part.rows:
            lost = part.rows - rows.rows
            self._stats.drop("write-ahead file was altered", max(0, lost))
        if committed:
            self._stats.parts.append(part.id)
        part.remove_files()
        if elsewhere:
            discard(part.storage, part.id)

    def _bring_envelopes(self, part: LogPart) -> None:
        """From the spill folder, before a commit names the part."""
        for group in ("", *(group.name for group in part.groups)):
            name = envelope_name(part.id, group)
            self._storage.put(name, part.storage.read(name, MAX_SIZE))
