"""An archive in a folder of a POSIX file system.

Every name is reached from the root folder by folder (``openat``), and no symbolic link
below the root is followed: a link planted in a shared archive must not make a writer
write, or ``gc`` remove, anything outside it (ATTACKS row 27). The root itself may be one.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from pqvault.errors import FormatError, NotFound
from pqvault.storage.appending import AppendFile, FileLock
from pqvault.storage.base import NO_HARD_LINKS, Buffer, Names, check_name, explained
from pqvault.storage.localfiles import LocalReader, LocalSink, write_all
from pqvault.storage.localfolders import OpenFolder, make_in, make_root, sync_fd
from pqvault.storage.replacing import copy_owner, is_named, lock_file

__all__ = ["LocalStorage"]

# O_NONBLOCK: opening a FIFO must not wait for a writer; regular files ignore it.
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_UPDATE = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NOT_OURS = (errno.EROFS, errno.EACCES, errno.EPERM)
_MODE = 0o666  # less the umask: an archive is ciphertext, its folder decides who reads it

_Entries: TypeAlias = list[tuple[str, bool]]  # name, is a folder

_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}\.tmp", re.DOTALL)


@dataclass(frozen=True, slots=True)
class LocalStorage:
    """A `Storage` below the folder `root`, which `make_folder` makes when it is missing."""

    root: Path

    def __post_init__(self) -> None:
        # Absolute from the start: workers may run in another folder.
        object.__setattr__(self, "root", Path(os.path.abspath(self.root)))

    @property
    def requests(self) -> int:
        """One at a time: a disk is asked by the threads that need it."""
        return 1

    def where(self, name: str) -> str:
        """The path of `name`."""
        return str(self.root / name)

    # --- reading

    def read(self, name: str, limit: int) -> bytes:
        """Return a whole file of at most `limit` bytes; see `Storage.read`."""
        with self.open(name) as file:
            if file.size > limit:
                raise FormatError(f"{file.where} has {file.size:,} bytes, more than {limit:,}")
            return file.read_all()

    def open(self, name: str) -> LocalReader:
        """Open a regular file. Raises `NotFound`, or `FormatError` for a link or a device."""
        with self._file("open", name) as (folder, last):
            fd = os.open(last, _READ, dir_fd=folder)
            try:
                status = os.fstat(fd)
                if not stat.S_ISREG(status.st_mode):
                    raise FormatError(f"{self.where(name)} is not a regular file")
                return LocalReader(fd, status.st_size, self.where(name))
            except BaseException:
                os.close(fd)
                raise

    def exists(self, name: str) -> bool:
        """Whether anything bears this name, a broken link included."""
        try:
            self.mtime(name)
        except NotFound:
            return False
        return True

    def mtime(self, name: str) -> float:
        """Seconds since 1970 of the last change."""
        with self._file("look at", name) as (folder, last):
            return os.stat(last, dir_fd=folder, follow_symlinks=False).st_mtime

    def list(self, folder: str) -> Names:
        """The sorted names of files and folders in `folder`, without temporary ones."""
        return [name for name, _ in self._scan(folder) if not _TEMPORARY.fullmatch(name)]

    def unfinished(self, folder: str) -> Names:
        """Temporary files in `folder`; see `Storage.unfinished`."""
        prefix = folder and folder + "/"
        return [prefix + n for n, _ in self._scan(folder) if _TEMPORARY.fullmatch(n)]

    def walk(self, folder: str, *, leftovers: bool = False) -> Iterator[str]:
        """The full name of every file below `folder`; see `Storage.walk`."""
        # A stack, because a hostile tree may be deeper than Python recurses.
        stack = [(folder, True)]
        while stack:
            name, is_folder = stack.pop()
            if is_folder:
                prefix = name and name + "/"
                stack += [(prefix + last, deep) for last, deep in reversed(self._scan(name))]
            elif leftovers or not _TEMPORARY.fullmatch(name.rpartition("/")[2]):
                yield name

    def _scan(self, folder: str) -> _Entries:
        """Sorted (name, is a folder); [] when the folder does not exist."""
        try:
            with self._folder("list", folder) as (fd, _), os.scandir(fd) as entries:
                return sorted((e.name, e.is_dir(follow_symlinks=False)) for e in entries)
        except NotFound:
            return []

    # --- writing

    def put(self, name: str, data: Buffer) -> None:
        """Write a whole file beside, fsync, rename, fsync the folder."""
        with self._file("write", name) as (folder, last), _beside(folder, last, data) as beside:
            os.rename(beside, last, src_dir_fd=folder, dst_dir_fd=folder)
            sync_fd(folder)

    def put_new(self, name: str, data: Buffer) -> bool:
        """Write a whole file beside and link it to its name; False when that is taken.

        Where a file system has no hard links (exFAT, some network mounts) the file is
        created under its name: still exclusive, but a crash may leave a part of it.
        """
        with self._file("write", name) as (folder, last), _beside(folder, last, data) as beside:
            try:
                _link_or_write(folder, beside, last, data)
            except FileExistsError:
                return False
            sync_fd(folder)
            return True

    def replace(self, name: str, old: bytes, new: Buffer) -> bool:
        """Write a whole file in place of one that holds `old`; see `Storage.replace`.

        Who replaces a file holds the lock (flock) of the file that is there, from before it is
        compared until another one has its name.
        """
        with self._file("replace", name) as (folder, last):
            try:
                # For writing too: over NFS an exclusive lock asks for it.
                fd = os.open(last, _UPDATE, dir_fd=folder)
            except FileNotFoundError:
                return False
            try:
                info = os.fstat(fd)
                lock_file(fd, self.where(name))
                if not is_named(fd, last, folder) or not _holds(fd, old):
                    return False
                with _beside(folder, last, new, info) as beside:
                    os.rename(beside, last, src_dir_fd=folder, dst_dir_fd=folder)
                    sync_fd(folder)
                return True
            finally:
                os.close(fd)

    @contextmanager
    def locked(self, name: str) -> Iterator[None]:
        """Hold the lock (flock) of a file; see `Storage.locked`."""
        with self._file("lock", name) as (folder, last):
            fd = os.open(last, _UPDATE, dir_fd=folder)
        try:
            lock_file(fd, self.where(name), wait=0)
            yield
        finally:
            os.close(fd)

    def create(self, name: str) -> LocalSink:
        """Begin a file that must not exist, in a folder that must."""
        with self._file("create", name) as (folder, last):
            fd = os.open(last, _CREATE, _MODE, dir_fd=folder)
        return LocalSink(self, name, fd)

    def append(self, name: str) -> AppendFile:
        """Begin a file that must not exist, to append to; its name and it are durable."""
        with self._file("create", name) as (folder, last):
            fd = os.open(last, _CREATE, _MODE, dir_fd=folder)
            try:
                file = AppendFile(fd, self.where(name))
                os.fsync(fd)
                sync_fd(folder)
            except BaseException:
                os.close(fd)
                raise
        return file

    def lock(self, name: str) -> FileLock:
        """Take the lock of a file that `append` began. Raises `Locked` while its writer lives."""
        with self._file("lock", name) as (folder, last):
            try:
                fd = os.open(last, _UPDATE, dir_fd=folder)
            except OSError as error:
                if error.errno not in _NOT_OURS:
                    raise
                fd = os.open(last, _READ, dir_fd=folder)  # who may only read may ask all the same
            return FileLock(fd, self.where(name))

    def shred(self, name: str) -> None:
        """Overwrite a file in place and remove it, durably; one that is gone is no error.

        Where the file system or the disk writes elsewhere what it overwrites, the old bytes stay
        until that place is used again.
        """
        with suppress(NotFound), self._file("shred", name) as (folder, last):
            fd = os.open(last, _UPDATE, dir_fd=folder)
            try:
                write_all(fd, bytes(os.fstat(fd).st_size))
                os.fsync(fd)
            finally:
                os.close(fd)
            os.unlink(last, dir_fd=folder)
            sync_fd(folder)

    def remove(self, name: str) -> None:
        """Remove a file; one that is gone already is no error."""
        with suppress(NotFound), self._file("remove", name) as (folder, last):
            os.unlink(last, dir_fd=folder)

    # --- folders

    def make_folder(self, folder: str) -> None:
        """Make the root, a folder in it and its parents, each durable in its parent."""
        with explained("make", str(self.root)):
            make_root(self.root)
        made = ""
        for part in check_name(folder).split("/") if folder else ():
            with self._folder("make", made) as (parent, _):
                make_in(parent, part, self.where(folder))
            made = f"{made}/{part}" if made else part
        # A file or a link may bear the name; better to say so here than at the first write.
        with self._folder("open", made):
            pass

    def check_writable(self, folder: str) -> None:
        """Raise PQVaultError where nothing may be written, now rather than at the first write."""
        unnamed = getattr(os, "O_TMPFILE", None)  # a file without a name, where the system has it
        if unnamed is None:
            return
        with self._folder("write", folder) as (fd, _):
            try:
                os.close(os.open(".", unnamed | os.O_WRONLY | os.O_CLOEXEC, dir_fd=fd))
            except OSError as error:
                if error.errno in _NOT_OURS:
                    raise
                # Full, say, which passes; or a file system that has no such files.

    def sync_folder(self, folder: str) -> None:
        """Make the names in `folder` durable."""
        with self._folder("write", folder) as (fd, _):
            sync_fd(fd)

    def remove_folder(self, folder: str) -> None:
        """Remove a folder and the folders in it, where no file is left."""
        found = [folder]
        for name in found:
            found += [f"{name}/{last}" for last, is_folder in self._scan(name) if is_folder]
        for name in reversed(found):
            self._remove_if_empty(name)

    def _remove_if_empty(self, folder: str) -> None:
        with suppress(NotFound), self._file("remove", folder) as (parent, last):
            try:
                os.rmdir(last, dir_fd=parent)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise

    # --- reaching a name

    def _folder(self, doing: str, folder: str) -> OpenFolder:
        """A descriptor of `folder`, and no name; an OSError of the block is explained."""
        parts = check_name(folder).split("/") if folder else []
        return OpenFolder(self.root, parts, "", doing, self.where(folder))

    def _file(self, doing: str, name: str) -> OpenFolder:
        """A descriptor of the folder that holds `name`, and its last component."""
        *parts, last = check_name(name).split("/")
        return OpenFolder(self.root, parts, last, doing, self.where(name))


def _holds(fd: int, data: bytes) -> bool:
    """Whether an open file holds exactly `data`."""
    found = b""
    while piece := os.pread(fd, len(data) + 1 - len(found), len(found)):
        found += piece
    return found == data


@contextmanager
def _beside(
    folder: int, last: str, data: Buffer, like: os.stat_result | None = None
) -> Iterator[str]:
    """The name of a durable temporary file with `data`, which is gone after the block."""
    name = f".{last}.{secrets.token_hex(4)}.tmp"
    try:
        # Within: a Ctrl-C may come when the file is there and nobody has its descriptor yet.
        _write_new(folder, name, data, like)
        yield name
    finally:
        with suppress(FileNotFoundError):  # it was renamed, or never made
            os.unlink(name, dir_fd=folder)


def _write_new(folder: int, name: str, data: Buffer, like: os.stat_result | None = None) -> None:
    """Create a file with `data`, its mode `like` another's, and fsync it; removed on an error."""
    fd = os.open(name, _CREATE, _MODE, dir_fd=folder)
    try:
        try:
            write_all(fd, data)
            if like is not None:
                copy_owner(fd, like)
            os.fsync(fd)
        finally:
            os.close(fd)
    except BaseException:
        with suppress(OSError):  # the error on its way is the one to report
            os.unlink(name, dir_fd=folder)
        raise


def _link_or_write(folder: int, beside: str, last: str, data: Buffer) -> None:
    """Give the file `beside` the name `last` too. Raises FileExistsError when it is taken."""
    try:
        os.link(beside, last, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
    except OSError as error:
        if error.errno not in NO_HARD_LINKS:
            raise
        _write_new(folder, last, data)
