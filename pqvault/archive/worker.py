"""A worker process: does the units of work that `Processes` sends it, until that ends.

Its only argument is the number of the socket that the two share. What is sent over it comes from
the process that started this one, so that it can be unpickled.
"""

from __future__ import annotations

import gc
import sys
import time
import traceback
from enum import Enum
from multiprocessing.connection import Connection
from typing import Any, Final

from pqvault.archive.trim import keep_for_next
from pqvault.errors import PQVaultError

__all__ = ["STOP", "Said", "main"]

STOP: Final = "stop"  # sent to a worker in the middle of its work
_TELL: Final = 0.1  # seconds between two reports of progress


class Said(Enum):
    """What comes back, with a value."""

    TOLD = "told"  # bytes done since
    DONE = "done"  # the result
    FAILED = "failed"  # a PQVaultError
    BROKEN = "broken"  # a traceback: a bug


class _StoppedError(Exception):
    """Nobody wants the result any more."""


class _Tell:
    """Reports progress, not more often than somebody looks; ends the work when told to."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._untold = 0
        self._last = time.monotonic()

    def __call__(self, count: int = 0) -> None:
        self._untold += count
        now = time.monotonic()
        if now - self._last < _TELL:
            return
        self._last = now
        if self._connection.poll():  # whatever it is, or the end: it is not to go on
            raise _StoppedError
        self.flush()

    def flush(self) -> None:
        if self._untold:
            self._connection.send((Said.TOLD, self._untold))
            self._untold = 0


def main() -> None:
    """Work."""
    keep_for_next()
    gc.set_threshold(50_000)  # entries come and go by the thousand and hold no cycles
    connection = Connection(int(sys.argv[1]))
    try:
        while True:
            message = connection.recv()
            if message != STOP:  # one that came too late for the work before
                _answer(connection, *message)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass  # the other end is gone: that is how it ends


def _answer(connection: Connection, unit: Any, arguments: tuple[Any, ...]) -> None:
    tell = _Tell(connection)
    try:
        result = unit(*arguments, tell)
        tell.flush()
        connection.send((Said.DONE, result))
    except PQVaultError as error:
        connection.send((Said.FAILED, error))
    except _StoppedError:
        connection.send((Said.FAILED, PQVaultError("stopped")))
    except Exception:  # noqa: BLE001  a bug: raised again where the work was asked for
        connection.send((Said.BROKEN, traceback.format_exc()))
        raise SystemExit(1) from None
