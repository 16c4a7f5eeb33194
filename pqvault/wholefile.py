"""A file that appears whole or not at all: written beside its name, then renamed."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from pqvault.errors import UsageError
from pqvault.storage.base import NO_HARD_LINKS, explained

__all__ = ["name_new", "sync_folder", "whole_file"]


@contextmanager
def whole_file(path: str | os.PathLike[str], *, force: bool = False) -> Iterator[BinaryIO]:
    """An unbuffered binary file that gets its name when the block ends without an error.

    Raises UsageError when the name is taken, unless ``force`` and by a regular file or a link to
    one, whose mode it gets then; and when the disk is full a PQVaultError that says so. Nothing is
    left then.
    """
    if not os.fspath(path):
        raise UsageError("the output has an empty name", hint="is a variable of the shell unset?")
    target = Path(path)
    with explained("write", str(target)):
        _check(target, force)
    # So much of the name that it is no longer than names may be (255 bytes), in any letters.
    beside = target.with_name(f".{target.name[:50]}.{secrets.token_hex(4)}.tmp")
    with explained("write", str(target)):
        fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            with open(fd, "wb", buffering=0) as file:
                if force:
                    _keep_mode(fd, target)
                yield file
                os.fsync(fd)
            if force:
                os.rename(beside, target)
            else:
                _name(beside, target)
        finally:
            beside.unlink(missing_ok=True)
        sync_folder(target.parent)


def _check(target: Path, force: bool) -> None:
    # /dev/null and FIFOs take what is written; to replace one would leave it on a disk instead.
    if target.exists() and not target.is_file():
        kind = "a folder" if target.is_dir() else "no regular file, and nothing takes its place"
        raise UsageError(
            f"{target} is {kind}", hint="name a file with -o, or redirect standard output"
        )
    if not force and os.path.lexists(target):
        raise _exists(target)
    if not target.parent.is_dir():
        raise UsageError(f"{target.parent} is not a folder", hint="make it, or name another")


def _keep_mode(fd: int, target: Path) -> None:
    # Before anything is written: who could not read the old file must not read the new one.
    try:
        mode = target.stat().st_mode & 0o777
    except FileNotFoundError:
        return
    if mode != os.fstat(fd).st_mode & 0o777:  # a file system without modes may refuse to set one
        os.fchmod(fd, mode)


def name_new(beside: Path, target: Path) -> None:
    """Give a file the name ``target``, which nothing may have. Raises FileExistsError.

    ``beside`` may be left, another name of it. Without hard links the name is taken by an empty
    file first: still nothing is replaced, but a crash may leave that one.
    """
    try:
        os.link(beside, target)
    except OSError as error:
        if error.errno not in NO_HARD_LINKS:
            raise
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        try:
            os.rename(beside, target)
        except BaseException:
            target.unlink(missing_ok=True)
            raise


def _name(beside: Path, target: Path) -> None:
    try:
        name_new(beside, target)
    except FileExistsError:
        raise _exists(target) from None


def sync_folder(folder: Path) -> None:
    """Make the names in a folder last."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _exists(target: Path) -> UsageError:
    return UsageError(
        f"{target} exists, and nothing is written over it",
        hint="choose another name with -o, or add --force",
    )
