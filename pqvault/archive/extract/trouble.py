"""Why an entry could not be extracted, and the system calls that Python lacks."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable

from pqvault.errors import PQVaultError
from pqvault.names import printable

__all__ = [
    "TROUBLE",
    "Refused",
    "TargetFull",
    "failure",
    "rename_new",
    "tell",
    "unlink_quietly",
    "write_all",
]


class TargetFull(PQVaultError):
    """The target's file system has no room left: no later entry can do better."""

    default_hint = "free some space, then run the command again with --force"


class Refused(Exception):
    """A reason of our own to turn an entry down; never leaves this module. ``hint``: for what the
    target is the reason of."""

    def __init__(self, reason: str, hint: str = "") -> None:
        super().__init__(reason)
        self.hint = hint


_FAULTY = "the archive may be damaged: `pqvault verify` lists what is"
_ELSEWHERE = "check the mode and the file system of the target, or name another folder with -o"

TROUBLE = (OSError, ValueError, OverflowError, Refused)


def failure(path: bytes, error: Exception) -> PQVaultError:
    """The error a caller sees, naming the entry."""
    shown = printable(path)
    if not isinstance(error, OSError):
        hint = getattr(error, "hint", "") or _FAULTY
        return PQVaultError(f"cannot extract {shown}: {error}", hint=hint)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return TargetFull(f"cannot extract {shown}: no space is left in the target")
    if error.errno == errno.EEXIST:
        hint = "pass --force to replace it"
        return PQVaultError(f"cannot extract {shown}: it exists already", hint=hint)
    if error.errno in (errno.EISDIR, errno.ENOTEMPTY):
        hint = "move the folder away; folders are never deleted"
        return PQVaultError(f"cannot extract {shown}: a folder stands in its place", hint=hint)
    return PQVaultError(f"cannot extract {shown}: {error.strerror or error}", hint=_ELSEWHERE)


def tell(path: bytes, error: Exception, failed: Callable[[PQVaultError], object] | None) -> None:
    """Tell ``failed`` what is wrong with an entry; without it, and when the target is full, that is
    raised."""
    trouble = failure(path, error)
    if failed is None or isinstance(trouble, TargetFull):
        raise trouble from error
    failed(trouble)


def unlink_quietly(dir_fd: int, name: str | bytes) -> None:
    try:
        os.unlink(name, dir_fd=dir_fd)
    except OSError:
        pass


def write_all(fd: int, buffer: bytes | bytearray | memoryview, offset: int) -> None:
    """Write all of ``buffer`` at ``offset``, however many calls it takes."""
    with memoryview(buffer) as view:
        done = os.pwrite(fd, view, offset) if view.nbytes else 0
        if done != view.nbytes:
            with view.cast("B") as rest:
                while done < len(rest):
                    written = os.pwrite(fd, rest[done:], offset + done)
                    if not written:
                        raise OSError(errno.EIO, "nothing could be written")
                    done += written


# Python has no rename that refuses to replace. ctypes costs 1 µs a call and drops the GIL.
_RENAME_NOREPLACE = 1
_renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
if _renameat2 is not None:
    _renameat2.argtypes = (
        ctypes.c_int,
        ctypes.c_char_p,
        ctypes.c_int,
        ctypes.c_char_p,
        ctypes.c_uint,
    )


def rename_new(dir_fd: int, old: bytes, new: bytes) -> None:
    """Rename within one folder; FileExistsError when ``new`` exists."""
    if _renameat2 is not None:
        if not _renameat2(dir_fd, old, dir_fd, new, _RENAME_NOREPLACE):
            return
        number = ctypes.get_errno()
        if number not in (errno.EINVAL, errno.ENOSYS):
            raise OSError(number, os.strerror(number))
    # NFS, some FUSE: look, then rename. A name that comes up in between is replaced, but even
    # then nothing is written through it.
    try:
        os.stat(new, dir_fd=dir_fd, follow_symlinks=False)
    except FileNotFoundError:
        os.rename(old, new, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
    else:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
