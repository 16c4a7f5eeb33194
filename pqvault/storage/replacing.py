"""Replace a file that several processes may want to replace at once.

Who replaces a file holds the lock of the file that is there (flock), from before it is read until
another one has its name; then the lock is that of a file without a name, and whoever waited for
it finds with `is_named` that it came too late.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time
from contextlib import suppress
from typing import Final

from pqvault.errors import Locked, PQVaultError

__all__ = ["copy_owner", "flock", "is_named", "lock_file"]

WAIT: Final = 10.0  # seconds for another process; a small file takes it milliseconds

_NO_LOCKS: Final = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)


def flock(fd: int, where: str) -> None:
    """Take the lock of an open file. Raises BlockingIOError while another has it."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        raise PQVaultError(
            f"{where} cannot be locked: its file system has no flock ({error.strerror})",
            hint="mount it with locks (Lustre: -o flock; NFS: with its lock daemon); without them"
            " two processes could undo each other's work",
        ) from None


def lock_file(fd: int, where: str, wait: float = WAIT) -> None:
    """Take the lock of an open file, which ends with it. Raises `Locked` after `wait` seconds."""
    until = time.monotonic() + wait
    while True:
        try:
            flock(fd, where)
            return
        except BlockingIOError:
            if time.monotonic() >= until:
                raise Locked(f"another process is at work on {where}") from None
            time.sleep(0.002)


def is_named(fd: int, name: str, folder: int | None = None) -> bool:
    """Whether `name` still is the open file: it may have been replaced before we had its lock."""
    try:
        there = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(there, os.fstat(fd))


def copy_owner(fd: int, info: os.stat_result) -> None:
    """Give an open file the mode of another, and its owner and group where we may."""
    mine = os.fstat(fd)
    if (mine.st_uid, mine.st_gid) != (info.st_uid, info.st_gid):
        with suppress(PermissionError):
            os.fchown(fd, info.st_uid, info.st_gid)
    os.fchmod(fd, stat.S_IMODE(info.st_mode))
