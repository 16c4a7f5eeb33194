"""The target folder itself, and what its file system takes for one name."""

from __future__ import annotations

import errno
import os
import stat
import unicodedata
from pathlib import Path

from pqvault.errors import UsageError
from pqvault.names import printable

__all__ = ["FILE_FLAGS", "FOLDER_FLAGS", "fold", "folds_names", "open_target"]

FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
FILE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def open_target(target: Path, force: bool) -> tuple[int, bool]:
    """A handle of the target, and whether it was made now (0o700 until finished)."""
    shown = printable(os.fsencode(target))
    try:
        os.mkdir(target, 0o700)
        return os.open(target, FOLDER_FLAGS), True
    except FileExistsError:
        pass
    except OSError as error:
        hint = "name another folder with -o"
        if error.errno == errno.ENOENT:
            hint = "make the folder that shall hold it first"
        raise UsageError(f"cannot make {shown}: {error.strerror}", hint=hint) from error
    try:
        # The only place where links are followed: the user typed this path.
        fd = os.open(target, FOLDER_FLAGS & ~os.O_NOFOLLOW)
    except OSError as error:
        hint = "name a folder with -o, or one that is not there yet"
        raise UsageError(f"cannot extract into {shown}: {error.strerror}", hint=hint) from error
    try:
        _check_target(fd, shown, force)
    except BaseException:
        os.close(fd)
        raise
    return fd, False


def _check_target(fd: int, shown: str, force: bool) -> None:
    found = os.fstat(fd)
    open_to_all = found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX
    if open_to_all and found.st_uid != os.geteuid():
        raise UsageError(
            f"{shown} belongs to another user and everybody can move what is in it",
            hint="extract into a folder of your own",
        )
    if force:
        return
    with os.scandir(fd) as names:
        if next(names, None) is not None:
            raise UsageError(
                f"{shown} exists and is not empty",
                hint="name a new folder with -o, or pass --force to replace files in it",
            )


def folds_names(root: int, prefix: bytes) -> bool:
    """Does this file system take `a` for `A`, or é in one code point for é in two?"""
    pairs = [(b"-a", b"-A"), (b"-\xc3\xa9", b"-e\xcc\x81")]
    return any(_same_name(root, prefix + one, prefix + other) for one, other in pairs)


def _same_name(root: int, one: bytes, other: bytes) -> bool:
    try:
        os.close(os.open(one, FILE_FLAGS, 0o600, dir_fd=root))
    except OSError as error:
        if error.errno in (errno.EILSEQ, errno.EINVAL):
            return False  # it does not take this name at all
        raise
    try:
        os.stat(other, dir_fd=root, follow_symlinks=False)
        return True
    except OSError:
        return False
    finally:
        os.unlink(one, dir_fd=root)


def fold(path: bytes) -> str:
    """One text for all spellings that some folding file system takes for one name."""
    text = unicodedata.normalize("NFD", path.decode("utf-8", "surrogateescape"))
    text = unicodedata.normalize("NFC", text.casefold())
    # FAT drops dots and spaces at the end of a name.
    return "/".join(part.rstrip(". ") for part in text.split("/"))
