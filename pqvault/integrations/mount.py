"""An archive as a read-only folder (FUSE), for programs that know only paths.

Nothing is extracted: what a program reads is fetched, decrypted and checked when it reads it.
"""

from __future__ import annotations

import errno
import itertools
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pqvault.archive.archive import Archive
from pqvault.archive.entryfile import EntryFile
from pqvault.archive.tableentry import has_content
from pqvault.errors import NotFound, PQVaultError, UsageError
from pqvault.format.entries import Entry, Kind
from pqvault.names import printable

__all__ = ["ArchiveFiles", "check", "mount"]

_TYPES = {Kind.FOLDER: stat.S_IFDIR, Kind.SYMLINK: stat.S_IFLNK}
_BLOCK = 4096  # bytes, of the sizes that `df` and `du` show
_ENDED = 8  # what libfuse's main says when its loop was ended by a signal
_UNCHANGING = 3600  # seconds for which the kernel may remember what it was told


def mount(
    archive: Archive,
    folder: str | os.PathLike[str],
    *,
    allow_other: bool = False,
    warn: Callable[[str], object] = lambda _: None,
) -> None:
    """Show ``archive`` in ``folder``, which must exist and be empty, until it is unmounted.

    What parts held when it was opened is what is shown. ``allow_other``: to other users too.
    ``warn`` is told of what cannot be read; the program that reads gets an I/O error. Raises
    UsageError when the package mfusepy or the system's FUSE is not there.
    """
    fuse = check(folder)
    target = Path(folder)
    options = {"allow_other": True} if allow_other else {}
    try:
        fuse.FUSE(
            _operations(fuse)(ArchiveFiles(archive, warn)),
            os.fspath(target),
            foreground=True,
            ro=True,
            nosuid=True,
            nodev=True,
            default_permissions=True,
            fsname="pqvault",
            subtype="pqvault",
            attr_timeout=_UNCHANGING,
            entry_timeout=_UNCHANGING,
            **options,
        )
    except RuntimeError as error:
        if error.args == (_ENDED,) and not os.path.ismount(target):
            return  # by a signal, as Ctrl-C sends one
        raise PQVaultError(
            f"{target} cannot be mounted (FUSE ended with {error})",
            hint="see what it printed; mounting takes /dev/fuse and fusermount3",
        ) from None


def check(folder: str | os.PathLike[str]) -> Any:
    """The library, when it, the system's FUSE and an empty folder are there. Raises UsageError."""
    target = Path(folder)
    try:
        if not target.is_dir() or any(target.iterdir()):
            raise UsageError(f"{target} is no empty folder", hint="name one; `mkdir` makes it")
    except OSError as error:
        if error.errno != errno.ENOTCONN:
            raise
        raise UsageError(
            f"{target} is what a mount has left whose process was killed",
            hint=f"unmount it first: umount {target}",
        ) from None
    try:
        import mfusepy
    except ImportError:
        raise UsageError(
            "mounting needs the package mfusepy", hint="pip install 'pqvault[mount]'"
        ) from None
    except OSError as error:
        raise UsageError(
            f"mounting needs the system's FUSE library: {error}",
            hint="on Debian: apt-get install fuse3",
        ) from None
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        raise UsageError("this machine has no /dev/fuse that may be used", hint="see `man fuse`")
    return mfusepy


class ArchiveFiles:
    """The operations of a file system, on paths as FUSE gives them: text that begins with ``/``.

    Their errors are OSErrors. Thread-safe, as an archive is.
    """

    def __init__(self, archive: Archive, warn: Callable[[str], object]) -> None:
        self._archive = archive
        self._warn = warn
        self._numbers = itertools.count(1)
        self._open: dict[int, EntryFile] = {}
        self._owner = {"st_uid": os.getuid(), "st_gid": os.getgid()}

    def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
        """Type, mode, size and time of an entry; all is owned by who mounted it."""
        if path == "/":
            return {"st_mode": stat.S_IFDIR | 0o555, "st_nlink": 2, **self._owner}
        entry = self._find(path)[1]
        # Nobody writes here, and no bit here gives anybody more than they have.
        mode = 0o777 if entry.kind == Kind.SYMLINK else entry.mode & 0o555
        size = len(entry.link or b"") if entry.kind == Kind.SYMLINK else entry.size
        return {
            "st_mode": _TYPES.get(entry.kind, stat.S_IFREG) | mode,
            "st_nlink": 2 if entry.kind == Kind.FOLDER else 1,
            "st_size": size,
            "st_blocks": -(-size // 512),
            "st_blksize": _BLOCK,
            **dict.fromkeys(("st_mtime", "st_ctime", "st_atime"), entry.mtime_ns),
            **self._owner,
        }

    def readdir(self, path: str, fh: int) -> Iterator[str]:
        """Names, one row group of the catalog at a time."""
        yield from (".", "..")
        with self._explained(path):
            for entry in self._archive.entries(path, direct=True):
                if _is_shown(entry):
                    yield os.fsdecode(entry.path.rpartition(b"/")[2])

    def readlink(self, path: str) -> str:
        """Where a link leads."""
        return os.fsdecode(self._find(path)[1].link or b"")

    def open(self, path: str, flags: int) -> int:
        """A number for a file."""
        if flags & (os.O_WRONLY | os.O_RDWR):
            raise OSError(errno.EROFS, path)
        file = EntryFile(*self._find(path))
        number = next(self._numbers)
        self._open[number] = file
        return number

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        """Up to ``size`` bytes; fewer only at the end."""
        with self._explained(path):
            return bytes(self._open[fh].pread(offset, size))

    def release(self, path: str, fh: int) -> int:
        """The end of a number."""
        self._open.pop(fh, None)
        return 0

    def statfs(self, path: str) -> dict[str, int]:
        """The size of all that is sealed; nothing is free."""
        size = sum(part.public.size for part in self._archive.parts)
        return {
            "f_bsize": _BLOCK,
            "f_frsize": _BLOCK,
            "f_blocks": -(-size // _BLOCK),
            "f_namemax": 255,
        }

    def _find(self, path: str) -> tuple[Any, Entry]:
        with self._explained(path):
            part, entry = self._archive.find(path)
        if not _is_shown(entry):
            raise OSError(errno.ENOENT, path)
        return part, entry

    def _explained(self, path: str) -> _Explained:
        return _Explained(path, self._warn)


def _is_shown(entry: Entry) -> bool:
    """Not a table that is kept as rows alone: it has no bytes to read."""
    return entry.kind in (Kind.FOLDER, Kind.SYMLINK) or has_content(entry)


class _Explained:
    """Turns pqvault's errors into those that a program knows; damage is told to ``warn``."""

    def __init__(self, path: str, warn: Callable[[str], object]) -> None:
        self._path = path
        self._warn = warn

    def __enter__(self) -> None:
        """Nothing is held."""

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, NotFound):
            raise OSError(errno.ENOENT, self._path) from None
        if isinstance(error, PQVaultError):
            self._warn(f"{printable(os.fsencode(self._path))}: {error.message}")
            raise OSError(errno.EIO, self._path) from None


def _operations(fuse: Any) -> Any:
    """A class of the library's kind, made when the library is there."""

    class Operations(ArchiveFiles, fuse.Operations):
        use_ns = True

        def __init__(self, files: ArchiveFiles) -> None:
            self.__dict__.update(files.__dict__)

        def init(self, path: str) -> None:
            """Nothing to begin."""

        def destroy(self, path: str) -> None:
            """Nothing to end."""

    return Operations
