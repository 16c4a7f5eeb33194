"""One file of an archive in a folder: read at any offset, or written from begin to end."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from pqvault.closing import Closing, Finishing
from pqvault.errors import IntegrityError, PQVaultError, UsageError
from pqvault.storage.base import Buffer, WritableBuffer, explain, explained

if TYPE_CHECKING:
    from pqvault.storage.local import LocalStorage

__all__ = ["Descriptor", "LocalReader", "LocalSink", "write_all"]


class Descriptor(Closing):
    """What has one file open."""

    __slots__ = ("_fd",)
    _fd: int

    def close(self) -> None:
        """Close the file; may be called twice, but not while another thread uses it."""
        # Forgotten first: after a failed close the number may already belong to another.
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class LocalReader(Descriptor):
    """A `ReadAt` over one file descriptor; reads carry their own offset (preadv)."""

    __slots__ = ("size", "where")

    def __init__(self, fd: int, size: int, where: str) -> None:
        self._fd = fd
        self.size = size
        self.where = where

    def pread_into(self, buffer: WritableBuffer, offset: int) -> None:
        """Fill all of `buffer` from `offset`; see `ReadAt.pread_into`."""
        if offset < 0:
            raise UsageError(f"cannot read {self.where} at the negative offset {offset}")
        view = memoryview(buffer).cast("B")
        try:  # not `explained`, which costs a third of what a small read does
            while view:
                count = os.preadv(self._fd, [view], offset)
                if not count:
                    raise self._ends_early(offset)
                view = view[count:]
                offset += count
        except OSError as error:
            raise explain(error, "read", self.where) from error

    def read_all(self) -> bytes:
        """Return the whole file, without a second copy where one read gives all of it."""
        pieces = []
        done = 0
        with explained("read", self.where):
            while done < self.size:
                piece = os.pread(self._fd, self.size - done, done)
                if not piece:
                    raise self._ends_early(done)
                pieces.append(piece)
                done += len(piece)
        return b"".join(pieces)

    def _ends_early(self, offset: int) -> IntegrityError:
        return IntegrityError(f"{self.where} ends early: nothing is there at byte {offset:,}")

    def __del__(self) -> None:
        # Readers live in caches of open objects; a dropped one must not keep its file.
        with suppress(OSError):
            self.close()


class LocalSink(Finishing):
    """A `Sink` over one file descriptor.

    There is no ``__del__``: a file without `finish` stays a prefix that no commit names,
    and in a forked child an unlink would take the parent's file away.
    """

    __slots__ = ("_fd", "_name", "_open", "_storage", "written")

    def __init__(self, storage: LocalStorage, name: str, fd: int) -> None:
        self._storage = storage
        self._name = name
        self._fd = fd
        self._open = True
        self.written = 0

    def write(self, buffer: Buffer) -> int:
        """Write all of `buffer`; on an error nothing is left under the name."""
        with self._aborting_on_error():
            count = write_all(self._fd, buffer)
        self.written += count
        return count

    def finish(self) -> None:
        """fsync and close; on an error nothing is left under the name."""
        with self._aborting_on_error():
            os.fsync(self._fd)
            self._close()
        self._open = False

    def abort(self) -> None:
        """Close and remove the file; does nothing when it is finished or removed."""
        if not self._open:
            return
        self._open = False
        # Often called while another error is on its way, which must stay the one reported.
        with suppress(OSError):
            self._close()
        with suppress(PQVaultError):
            self._storage.remove(self._name)

    @contextmanager
    def _aborting_on_error(self) -> Iterator[None]:
        where = self._storage.where(self._name)
        if not self._open:
            raise UsageError(f"{where} is closed and takes no more bytes")
        try:
            with explained("write", where):
                yield
        except BaseException:
            self.abort()
            raise

    def _close(self) -> None:
        # Forgotten first: after a failed close the number may already belong to another.
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def write_all(fd: int, buffer: Buffer) -> int:
    """Write all of `buffer`, however many calls it takes (ATTACKS row 47)."""
    view = memoryview(buffer).cast("B")
    done = 0
    while done < len(view):
        count = os.write(fd, view[done:])
        if not count:
            raise OSError(errno.EIO, "a write took no bytes")
        done += count
    return done
