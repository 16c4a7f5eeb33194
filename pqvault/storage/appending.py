"""A file that one process appends to for as long as it lives, and others read meanwhile.

Its lock (flock) says that its writer lives: whoever gets the lock may take the file over.
"""

from __future__ import annotations

import os

from pqvault.errors import Locked, PQVaultError
from pqvault.storage.base import Buffer, explained
from pqvault.storage.localfiles import Descriptor
from pqvault.storage.replacing import flock

__all__ = ["AppendFile", "FileLock"]


class AppendFile(Descriptor):
    """A locked file descriptor and how much of the file is whole. Used by one thread; to close it
    gives the lock back."""

    __slots__ = ("size", "synced", "where")

    def __init__(self, fd: int, where: str) -> None:
        self._fd = fd
        self.where = where
        self.size = 0  # bytes that were appended whole
        self.synced = 0  # bytes that were made durable
        take_lock(fd, where)

    def append(self, buffer: Buffer) -> None:
        """Write all of ``buffer`` at the end; after an error the file is as it was before."""
        if self._fd < 0:
            raise PQVaultError(f"{self.where} is closed and takes no more bytes")
        view = memoryview(buffer).cast("B")
        done = 0
        with explained("write", self.where):
            try:
                while done < len(view):
                    done += os.pwrite(self._fd, view[done:], self.size + done)
            except OSError:
                # What is there of it would be a torn record in the middle of the file.
                os.ftruncate(self._fd, self.size)
                raise
        self.size += done

    @property
    def removed(self) -> bool:
        """Whether no folder has the file any more, so that nobody will find what is in it."""
        try:
            return os.fstat(self._fd).st_nlink == 0
        except OSError:  # a server has removed it
            return True

    def truncate(self, size: int) -> None:
        """Take back what was appended after the first ``size`` bytes."""
        if size < self.size:
            with explained("write", self.where):
                os.ftruncate(self._fd, size)
            self.size, self.synced = size, min(self.synced, size)

    def sync(self) -> None:
        """Make everything that was appended durable."""
        if self.synced == self.size:
            return
        with explained("write", self.where):
            os.fdatasync(self._fd)
        self.synced = self.size


class FileLock(Descriptor):
    """The lock of a file that nobody appends to any more, held until `close`."""

    __slots__ = ()

    def __init__(self, fd: int, where: str) -> None:
        self._fd = fd
        try:
            take_lock(fd, where)
        except BaseException:
            self.close()
            raise


def take_lock(fd: int, where: str) -> None:
    """Lock an open file, or raise Locked at once."""
    try:
        flock(fd, where)
    except BlockingIOError:
        raise Locked(f"{where} is being written by another process") from None
