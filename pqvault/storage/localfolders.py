"""Folders of an archive on a POSIX file system: reached one by one, made durably."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from pqvault.errors import NotFound, UsageError
from pqvault.storage.base import explained

__all__ = ["OpenFolder", "make_in", "make_root", "sync_fd"]

_ROOT = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FOLDER = _ROOT | os.O_NOFOLLOW
_NO_SYNC = {errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS}


class OpenFolder:
    """A folder below ``root`` that is open in a block, by a descriptor, with ``last`` for company.
    An OSError of the block is explained."""

    __slots__ = ("_explained", "_fd", "_last", "_parts", "_root")

    def __init__(self, root: Path, parts: list[str], last: str, doing: str, where: str) -> None:
        self._root = root
        self._parts = parts
        self._last = last
        self._explained = explained(doing, where)

    def __enter__(self) -> tuple[int, str]:
        with self._explained:
            self._fd = _open_folder(self._root, self._parts)
        return self._fd, self._last

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._fd)
        self._explained.__exit__(kind, error, trace)


def _open_folder(root: Path, parts: list[str]) -> int:
    try:
        fd = os.open(root, _ROOT)
    except NotADirectoryError:
        # What a person typed, perhaps a sealed stream: no damage, and nothing to be removed.
        raise NotFound(f"{root} is not a folder", hint="check the path") from None
    for part in parts:
        try:
            inner = os.open(part, _FOLDER, dir_fd=fd)
        finally:
            os.close(fd)
        fd = inner
    return fd


def make_root(root: Path) -> None:
    """Make a folder and those above it, each durable in the one above. Raises UsageError."""
    missing = [folder for folder in (root, *root.parents) if not folder.exists()]
    above = missing[-1].parent if missing else root
    if not above.is_dir():
        raise UsageError(
            f"{above} is a file, and an archive is a folder", hint="choose another name with -o"
        )
    for folder in reversed(missing):
        with suppress(FileExistsError):
            folder.mkdir()
        fd = os.open(folder.parent, _ROOT)
        try:
            sync_fd(fd)
        finally:
            os.close(fd)


def make_in(parent: int, name: str, where: str) -> None:
    """Make a folder in one that is open, durably, if it is not there."""
    with explained("make", where), suppress(FileExistsError):
        os.mkdir(name, dir_fd=parent)
        sync_fd(parent)


def sync_fd(folder: int) -> None:
    """Make the names in a folder that is open durable."""
    try:
        os.fsync(folder)
    except OSError as error:
        # Some network file systems have nothing to sync in a folder and say so.
        if error.errno not in _NO_SYNC:
            raise
