"""What a place for archives must be able to do, whatever it is made of.

Names are relative POSIX paths that pqvault makes itself (``commits/0f3a…``); ``""``
names the root where a folder is meant. Four ways to write, because they promise
different things:

=============  ==========================================================================
``put``        whole and atomic; replaces: a reader sees the old bytes or the new ones
``put_new``    whole and atomic; never replaces: of several writers exactly one is told so
``replace``    whole and atomic; only in place of what the writer has read: of several who read
               the same exactly one is told so
``create``     a stream under its final name, for data that means nothing until a commit
               names it; what a crash leaves there is a prefix
=============  ==========================================================================

All failures are errors of pqvault's tree; `explain` turns the operating system's into them.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self, TypeAlias

from pqvault.errors import FormatError, NotFound, PQVaultError

__all__ = [
    "Buffer",
    "Names",
    "ReadAt",
    "Sink",
    "Storage",
    "WritableBuffer",
    "check_name",
    "explain",
    "explained",
]

Buffer: TypeAlias = bytes | bytearray | memoryview
WritableBuffer: TypeAlias = bytearray | memoryview
Names: TypeAlias = list[str]  # `list` is the name of a method below


class ReadAt(Protocol):
    """An open file that any number of threads may read at any place."""

    @property
    def size(self) -> int:
        """Bytes, as of opening."""

    def pread_into(self, buffer: WritableBuffer, offset: int) -> None:
        """Fill all of `buffer` from `offset`.

        Raises `IntegrityError` when the file ends before; what `buffer` holds then is
        not to be used.
        """

    def close(self) -> None:
        """Give the file back; may be called twice, but not while a thread reads."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class Sink(Protocol):
    """A file being written, by one thread. A clean exit of ``with`` finishes it.

    After an error, `abort` or a failed `finish` nothing is left under its name.
    """

    @property
    def written(self) -> int:
        """Bytes taken so far."""

    def write(self, buffer: Buffer) -> int:
        """Write all of `buffer` and return its length in bytes."""

    def finish(self) -> None:
        """Make the bytes durable and close. The name is durable after `sync_folder`."""

    def abort(self) -> None:
        """Close and remove what was written; does nothing after `finish`."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class Storage(Protocol):
    """A tree of files, local or remote. Instances may be shared by threads and pickled."""

    @property
    def requests(self) -> int:
        """How many requests are worth having under way at once: 1 where they take no time."""

    def where(self, name: str) -> str:
        """The place of `name` in words for a person: a path or a URL."""

    def read(self, name: str, limit: int) -> bytes:
        """Return a whole small file.

        Raises `NotFound`, or `FormatError` when it has more than `limit` bytes.
        """

    def open(self, name: str) -> ReadAt:
        """Open a file to read it at any place. Raises `NotFound`."""

    def put(self, name: str, data: Buffer) -> None:
        """Write a whole file, replacing what is there; durable on return."""

    def put_new(self, name: str, data: Buffer) -> bool:
        """Write a whole file unless the name is taken; False when it is. Durable on return."""

    def replace(self, name: str, old: bytes, new: Buffer) -> bool:
        """Write a whole file in place of one that holds exactly `old`; durable on return.

        False when it holds something else by now, or is gone. It keeps its mode. Raises
        `Locked` when another process stays in the middle of replacing it.
        """

    def locked(self, name: str) -> AbstractContextManager[None]:
        """Hold the lock of a file that is there, for who must be the only one at some work.

        Raises `Locked` at once when another process holds it, `NotFound`.
        """

    def create(self, name: str) -> Sink:
        """Begin a file that must not exist. Raises `PQVaultError` when it does."""

    def list(self, folder: str) -> Names:
        """The sorted last components of what is in `folder`; [] when it does not exist.

        Unfinished files of `put` and `put_new` are left out.
        """

    def walk(self, folder: str, *, leftovers: bool = False) -> Iterator[str]:
        """The full name of every file below `folder`, sorted folder by folder.

        Whatever is not a folder is named, symbolic links too; they are not followed.
        With `leftovers` also the unfinished files of writers that were killed.
        """

    def unfinished(self, folder: str) -> Names:
        """The full names of what writers that were killed left in `folder`, not below it."""

    def exists(self, name: str) -> bool:
        """Whether anything bears this name."""

    def remove(self, name: str) -> None:
        """Remove a file; one that is gone already is no error."""

    def remove_folder(self, folder: str) -> None:
        """Remove a folder and the folders in it, where no file is left; no error if gone."""

    def mtime(self, name: str) -> float:
        """Seconds since 1970 of the last change, by the storage's clock. Raises `NotFound`."""

    def make_folder(self, folder: str) -> None:
        """Make a folder and its parents, durably; one that exists is no error."""

    def sync_folder(self, folder: str) -> None:
        """Make the names in `folder` durable."""


def check_name(name: str) -> str:
    """Return `name`, or raise `FormatError` unless it is a plain relative POSIX path.

    The second wall of ATTACKS row 25; parsers refuse such names where they read them.
    """
    parts = name.split("/")
    if "\0" in name or any(part in ("", ".", "..") for part in parts):
        raise FormatError(f"the name {name!r} is not a plain path inside an archive")
    return name


@dataclass(frozen=True, slots=True)
class _Reason:
    """What an errno means to a person, and what to do about it."""

    text: str
    hint: str = ""
    kind: type[PQVaultError] = PQVaultError


_FULL = "free some space, then run the command again"
_STRANGE = "an archive holds plain files and folders only; remove what stands there"
_PERMISSION = _Reason(
    "permission denied", "check the owner and the mode of the file and its folder"
)

_REASONS = {
    errno.ENOENT: _Reason("no such file or folder", "check the path", NotFound),
    errno.ENOSPC: _Reason("no space left on the device", _FULL),
    errno.EDQUOT: _Reason("the disk quota is used up", _FULL),
    errno.EFBIG: _Reason("the largest file size is reached", "see `ulimit -f`"),
    errno.EACCES: _PERMISSION,
    errno.EPERM: _PERMISSION,
    errno.EROFS: _Reason("the file system is read-only", "choose a place that can be written"),
    errno.EIO: _Reason("the device reports an input/output error", "check the disk; see `dmesg`"),
    errno.EMFILE: _Reason("too many files are open", "raise the limit with `ulimit -n`"),
    errno.EEXIST: _Reason("it exists already", "choose another name, or remove it first"),
    errno.ELOOP: _Reason("it is a symbolic link", _STRANGE, FormatError),
    errno.ENXIO: _Reason("it is a socket or a device", _STRANGE, FormatError),
    errno.EISDIR: _Reason("it is a folder", _STRANGE, FormatError),
    errno.ENOTDIR: _Reason("a part of the path is not a folder", _STRANGE, FormatError),
}


# What a file system says that has none of them (exFAT, some network mounts).
NO_HARD_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})


def explain(error: OSError, doing: str, where: str) -> PQVaultError:
    """Return the error of pqvault's tree for an operating system's error.

    `doing` is a verb, `where` the file: "cannot write /a/b: no space left on the device".
    """
    reason = _REASONS.get(error.errno or 0) or _Reason(error.strerror or type(error).__name__)
    return reason.kind(f"cannot {doing} {where}: {reason.text}", hint=reason.hint)


class explained:  # noqa: N801 - a function to its users
    """Raise what `explain` says in place of any OSError of the block.

    No generator: from Python 3.12 on an exception that takes the place of another in one is in a
    circle with it, which keeps the variables of all callers until it is collected.
    """

    __slots__ = ("_doing", "_where")

    def __init__(self, doing: str, where: str) -> None:
        self._doing = doing
        self._where = where

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, OSError):
            raise explain(error, self._doing, self._where) from error
