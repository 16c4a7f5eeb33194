"""Where the lines go that do not parse: a file of their own, each with its number and reason."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, Final

from pqvault.closing import Closing
from pqvault.errors import PQVaultError, UsageError

__all__ = ["BadLines"]

_SHOWN: Final = 64 * 1024 * 1024  # bytes of one line that are kept; longer ones are cut, and say so


class BadLines(Closing):
    """JSON lines: ``{"file": …, "line": 12, "reason": …, "bytes": 40, "text": …}``.

    ``text`` is the line; bytes that are not UTF-8 are there as lone surrogates, as Python's
    ``surrogateescape`` writes them. The file holds content in the clear, so only its owner may
    read it (mode 0600). It is made when the first line comes. ``count``: the lines so far.
    """

    def __init__(self, path: str | os.PathLike[str], *, force: bool = False) -> None:
        self.path = os.fspath(path)
        self.count = 0
        self._file: BinaryIO | None = None
        self._force = force
        self._lock = threading.Lock()
        if not force and os.path.lexists(self.path):
            raise self._exists()
        folder = os.path.dirname(self.path) or "."
        if not os.path.isdir(folder):
            raise UsageError(f"{folder} is not a folder, so {self.path} cannot be made in it")

    def add(self, name: str, line: int, reason: str, data: bytes) -> None:
        """One bad line of the file ``name``; ``line`` counts from 1."""
        text = data[:_SHOWN].decode("utf-8", "surrogateescape")
        record = {"file": name, "line": line, "reason": reason, "bytes": len(data), "text": text}
        with self._lock, self._explained():  # of several files at once
            file = self._opened()
            file.write(json.dumps(record).encode("ascii") + b"\n")
            file.flush()  # before the table that goes without the line is committed
            self.count += 1

    @contextmanager
    def _explained(self) -> Iterator[None]:
        # No fault of the file whose line it is, which would be named for it.
        try:
            yield
        except OSError as error:
            raise PQVaultError(
                f"bad lines cannot be written to {self.path}: {error.strerror}",
                hint="name another place for them, or free some space",
            ) from error

    def _opened(self) -> BinaryIO:
        if self._file is None:
            new = os.O_TRUNC if self._force else os.O_EXCL
            try:
                fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | new, 0o600)
            except FileExistsError:
                raise self._exists() from None
            self._file = open(fd, "wb")
        return self._file

    def _exists(self) -> UsageError:
        return UsageError(f"{self.path} exists, and bad lines are not written over it")

    def close(self) -> None:
        """All lines are in the file then."""
        file, self._file = self._file, None
        if file is not None:
            with self._explained():
                file.close()
