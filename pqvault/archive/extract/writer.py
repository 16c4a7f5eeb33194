"""FileWriter: whole files below a folder; and FileSink: one file on its way."""

from __future__ import annotations

import errno
import itertools
import os
import stat
import threading
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from pqvault.archive.extract.folders import Folder, Tree
from pqvault.archive.extract.links import split
from pqvault.archive.extract.target import FILE_FLAGS
from pqvault.archive.extract.trouble import (
    TROUBLE,
    Refused,
    failure,
    rename_new,
    tell,
    unlink_quietly,
    write_all,
)
from pqvault.errors import PQVaultError

if TYPE_CHECKING:  # a name for the type checker only: it would import pyarrow
    from pqvault.format.entries import Entry

__all__ = ["FileSink", "FileWriter"]

Buffer = bytes | bytearray | memoryview


class FileWriter:
    """Writes files below the folder of ``tree``, from any number of threads: under a temporary
    name, which begins with ``prefix``, then renamed.

    ``force``: what has the name is replaced. ``keep_bits``: of modes. ``written`` is told the path
    of each file that appeared.
    """

    def __init__(
        self,
        tree: Tree,
        *,
        force: bool,
        keep_bits: int,
        prefix: str,
        written: Callable[[bytes], object],
    ) -> None:
        self.tree = tree
        self.force = force
        self.keep_bits = keep_bits
        self.files = 0
        self.size = 0  # bytes of them all
        self._prefix = prefix
        self._numbers = itertools.count()
        self._written = written
        self._lock = threading.Lock()

    def open_file(self, entry: Entry) -> FileSink:
        """A sink for a file of ``entry.size`` bytes, which appears when it is committed."""
        try:
            sink = FileSink(self, entry)
            try:
                sink.refuse_early()
            except BaseException:
                sink.abort()
                raise
        except TROUBLE as error:
            raise failure(entry.path, error) from error
        return sink

    def write_small(self, entry: Entry, content: Buffer) -> None:
        """Write a whole file whose bytes are at hand."""
        self.write_files([(entry, content)])

    def write_files(
        self,
        files: Iterable[tuple[Entry, Buffer]],
        failed: Callable[[PQVaultError], object] | None = None,
    ) -> None:
        """Write whole files whose bytes are at hand, with the fewest calls there can be.

        ``failed`` is told what is wrong with a file, and the rest goes on; without it, and when
        the target is full, that is raised.
        """
        folder: Folder | None = None
        above = b""
        files_done = size = 0
        try:
            for entry, content in files:
                try:
                    parent, name = split(entry.path)
                    self.tree.claim(entry.path)
                    if folder is None or parent != above:
                        if folder is not None:
                            last, folder = folder, None
                            self.tree.unpin(last)
                        folder, above = self.tree.pin(parent), parent
                    self._write_file(folder.fd, name, entry, content)
                except TROUBLE as error:
                    tell(entry.path, error, failed)
                else:
                    files_done += 1
                    size += entry.size
                    self._written(entry.path)
        finally:
            if folder is not None:
                self.tree.unpin(folder)
            with self._lock:
                self.files += files_done
                self.size += size

    def _write_file(self, dir_fd: int, name: bytes, entry: Entry, content: Buffer) -> None:
        # The catalog's size is the cap: no content can fill more of the disk than it says.
        if len(content) != entry.size:
            raise Refused(f"its content does not have its {entry.size} bytes")
        temp = self.temp_name()
        fd = os.open(temp, FILE_FLAGS, 0o600, dir_fd=dir_fd)
        try:
            try:
                if content:
                    write_all(fd, content, 0)
                os.fchmod(fd, entry.mode & self.keep_bits)
                os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
            finally:
                os.close(fd)  # before the rename: network file systems report full disks here
            self.publish(dir_fd, temp, name)
        except BaseException:
            unlink_quietly(dir_fd, temp)
            raise

    def temp_name(self) -> str:
        """A name that nothing has yet."""
        # Unpredictable per run and checked by O_EXCL: a counter is enough beyond that.
        return f"{self._prefix}-{next(self._numbers)}.tmp"

    def publish(self, dir_fd: int, temp: str, name: bytes) -> None:
        """Rename within a folder: this replaces a link itself, never what it points to."""
        if self.force:
            os.rename(temp, name, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
        else:
            rename_new(dir_fd, os.fsencode(temp), name)

    def count(self, entry: Entry) -> None:
        """A file appeared."""
        with self._lock:
            self.files += 1
            self.size += entry.size
        self._written(entry.path)


class FileSink:
    """A file on its way: written under a temporary name, seen only once it is committed.

    ``pwrite`` may be called by several threads; ranges never written are holes. In a
    ``with`` block a clean exit commits and an exception aborts.
    """

    __slots__ = ("_entry", "_fd", "_folder", "_name", "_temp", "_writer")

    def __init__(self, writer: FileWriter, entry: Entry) -> None:
        parent, self._name = split(entry.path)
        self._writer = writer
        self._entry = entry
        writer.tree.claim(entry.path)
        self._temp = writer.temp_name()
        self._folder: Folder | None = writer.tree.pin(parent)
        try:
            self._fd = os.open(self._temp, FILE_FLAGS, 0o600, dir_fd=self._folder.fd)
        except BaseException:
            writer.tree.unpin(self._folder)
            raise

    def __enter__(self) -> FileSink:
        return self

    def __exit__(self, exc_type: type[BaseException] | None, *rest: object) -> None:
        if exc_type is None and self._folder is not None:
            self.commit()
        else:
            self.abort()

    def pwrite(self, buffer: Buffer, offset: int) -> None:
        """Write all of ``buffer`` at ``offset`` bytes; both must lie within the entry's size."""
        try:
            self._write(buffer, offset)
        except TROUBLE as error:
            raise failure(self._entry.path, error) from error

    def commit(self, size: int | None = None) -> None:
        """Set size, mode and time, and give the file its name; a failure aborts.

        ``size``: bytes, where the entry's was only a cap.
        """
        try:
            if size is not None:
                self._entry = replace(self._entry, size=size)
            self._finish()
        except TROUBLE as error:
            raise failure(self._entry.path, error) from error

    def abort(self) -> None:
        """Remove what was written; does nothing after a commit."""
        folder, self._folder = self._folder, None
        if folder is None:
            return
        if self._fd >= 0:
            os.close(self._fd)
        unlink_quietly(folder.fd, self._temp)
        self._writer.tree.unpin(folder)

    def _write(self, buffer: Buffer, offset: int) -> None:
        with memoryview(buffer) as view:
            size = view.nbytes
            # The catalog's size is the cap: no content can fill more of the disk than it says.
            if offset < 0 or offset + size > self._entry.size:
                raise Refused(f"its content goes beyond its {self._entry.size} bytes")
            write_all(self._fd, view, offset)

    def _finish(self) -> None:
        entry, writer, folder = self._entry, self._writer, self._folder
        if folder is None:
            raise ValueError("this file is committed or aborted already")
        try:
            os.ftruncate(self._fd, entry.size)
            os.fchmod(self._fd, entry.mode & writer.keep_bits)
            os.utime(self._fd, ns=(entry.mtime_ns, entry.mtime_ns))
            fd, self._fd = self._fd, -1
            os.close(fd)  # before the rename: network file systems report full disks here
            writer.publish(folder.fd, self._temp, self._name)
        except BaseException:
            self.abort()
            raise
        self._folder = None
        writer.tree.unpin(folder)
        writer.count(entry)

    def refuse_early(self) -> None:
        """Say now, not after gigabytes, that the name is taken; the rename still decides."""
        assert self._folder is not None
        try:
            found = os.stat(self._name, dir_fd=self._folder.fd, follow_symlinks=False)
        except FileNotFoundError:
            return
        if stat.S_ISDIR(found.st_mode):
            raise IsADirectoryError(errno.EISDIR, "is a folder")
        if not self._writer.force:
            raise FileExistsError(errno.EEXIST, "exists")
