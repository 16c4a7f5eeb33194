"""Rows of a plan on their way from the thread that walks to the one that deals.

They lie in Arrow IPC in an unnamed temporary file, so that memory does not grow with the corpus
however far the walk is ahead. Folders are put in before it is known whether an entry needs them:
rows are given out once that is decided.
"""

from __future__ import annotations

import errno
import itertools
import os
import tempfile
from collections.abc import Iterator
from threading import Condition
from typing import Final

import pyarrow as pa

from pqvault import home
from pqvault.archive.walk import Found
from pqvault.errors import PQVaultError

__all__ = ["SPOOL_SCHEMA", "Spool"]

SPOOL_SCHEMA: Final = pa.schema(
    [
        ("path", pa.binary()),
        ("source", pa.binary()),
        ("kind", pa.uint8()),
        ("size", pa.int64()),
        ("mode", pa.uint16()),
        ("mtime_ns", pa.int64()),
        ("ctime_ns", pa.int64()),
        ("inode", pa.uint64()),
        ("device", pa.uint64()),
        ("links", pa.uint32()),
        ("sparse", pa.bool_()),
        ("target", pa.binary()),
    ]
)
_FIRST_BATCH: Final = 256  # rows; few at first, so that sealing begins at once
_BATCH: Final = 8192
_BYTES: Final = 4 * 1024 * 1024  # of paths in a batch, about


class Spool:
    """One thread adds rows, one other reads them."""

    def __init__(self) -> None:
        self._moved = Condition()
        try:
            self._file = tempfile.TemporaryFile(dir=home.folder(), buffering=0)
        except OSError as error:
            raise _failed(error) from None
        self._rows: list[Found] = []
        self._bytes = 0  # of their paths
        self._batch = _FIRST_BATCH
        self._needed = bytearray()  # one byte a row
        self._undecided = 0  # rows before this one are needed or not, and that stays
        self._places: list[tuple[int, int, int]] = []  # offset, length, rows of each batch
        self._end = 0
        self._ended = False
        self._error: BaseException | None = None

    # -- the thread that walks -------------------------------------------------------------

    def add(self, row: Found, needed: bool) -> int:
        """Take a row; returns its number."""
        self._needed.append(needed)
        self._rows.append(row)
        self._bytes += len(row.path) + len(row.source)
        return len(self._needed) - 1

    def need(self, row: int) -> None:
        """An entry needs this row too."""
        self._needed[row] = True

    def is_needed(self, row: int) -> bool:
        """Whether this row is needed as far as is known."""
        return bool(self._needed[row])

    @property
    def is_due(self) -> bool:
        """Whether there are enough rows for :meth:`flush`."""
        return len(self._rows) >= self._batch or self._bytes >= _BYTES

    def flush(self, undecided: int) -> None:
        """Write the rows; those from ``undecided`` on may still become needed."""
        place = self._write() if self._rows else None
        with self._moved:
            self._undecided = undecided
            if place is not None:
                self._places.append(place)
            self._moved.notify_all()

    def _write(self) -> tuple[int, int, int]:
        columns = zip(*self._rows, strict=True)
        arrays = [pa.array(c, f.type) for c, f in zip(columns, SPOOL_SCHEMA, strict=True)]
        data = memoryview(pa.RecordBatch.from_arrays(arrays, schema=SPOOL_SCHEMA).serialize())
        place = (self._end, len(data), len(self._rows))
        try:
            while data:
                written = os.pwrite(self._file.fileno(), data, self._end)
                if not written:
                    raise OSError(errno.EIO, "a write took no bytes")
                self._end += written
                data = data[written:]
        except OSError as error:
            raise _failed(error) from None
        self._rows, self._bytes = [], 0
        self._batch = min(_BATCH, self._batch * 2)
        return place

    def end(self, error: BaseException | None = None) -> None:
        """No more rows come; ``error`` is raised by who reads or waits."""
        with self._moved:
            self._undecided = len(self._needed)
            self._ended, self._error = True, error
            self._moved.notify_all()

    # -- the thread that deals -------------------------------------------------------------

    @property
    def ended(self) -> bool:
        """Whether all rows are there."""
        return self._ended and self._error is None

    def wait(self) -> None:
        """Until all rows are there. Raises what ended the walk."""
        with self._moved:
            self._moved.wait_for(lambda: self._ended)
        if self._error is not None:
            raise self._error

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The rows that are needed, as they come."""
        row = 0
        for index in itertools.count():
            if not self._await_batch(index, row):
                return
            offset, length, count = self._places[index]
            data = os.pread(self._file.fileno(), length, offset)
            batch = pa.ipc.read_record_batch(pa.py_buffer(data), SPOOL_SCHEMA)
            flags = self._needed[row : row + count]
            if 0 in flags:
                batch = batch.filter(pa.array([bool(flag) for flag in flags]))
            yield batch
            row += count

    def _await_batch(self, index: int, row: int) -> bool:
        """Until batch ``index``, which begins with ``row``, is decided; False: there is none."""

        def there() -> bool:
            if index == len(self._places):
                return self._ended
            return self._ended or row + self._places[index][2] <= self._undecided

        with self._moved:
            self._moved.wait_for(there)
        if self._error is not None:
            raise self._error
        return index < len(self._places)

    def close(self) -> None:
        """Give the temporary file back; nobody adds or reads any more."""
        self._file.close()


def _failed(error: OSError) -> PQVaultError:
    return PQVaultError(
        f"the plan cannot be written to {home.folder()}: {error.strerror}",
        hint="free some space there, or set PQVAULT_HOME to another folder",
    )
