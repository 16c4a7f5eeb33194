"""Extractor: entries in, files out; and FileSink: one file on its way."""

from __future__ import annotations

import errno
import itertools
import os
import secrets
import stat
import threading
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pqvault.archive.extract import target as targets
from pqvault.archive.extract.folders import Folder, Stamp, Tree
from pqvault.archive.extract.links import climbs_out, leaves_through_links, split
from pqvault.archive.extract.target import FILE_FLAGS, open_target
from pqvault.archive.extract.trouble import (
    TROUBLE,
    Refused,
    TargetFull,
    failure,
    rename_new,
    unlink_quietly,
    write_all,
)
from pqvault.errors import PQVaultError
from pqvault.names import printable

if TYPE_CHECKING:  # a name for the type checker only: it would import pyarrow
    from pqvault.format.entries import Entry

__all__ = ["Extractor", "FileSink", "Links", "Report", "Skipped"]

Links = Literal["inside", "as-is"]
Buffer = bytes | bytearray | memoryview

SPECIAL_BITS = stat.S_ISUID | stat.S_ISGID | stat.S_ISVTX


@dataclass(frozen=True, slots=True)
class Skipped:
    """A link that was not made, and why."""

    path: bytes
    reason: str


@dataclass(frozen=True, slots=True)
class Report:
    """What one run has done; ``failures`` are those of :meth:`Extractor.finish` alone."""

    files: int
    folders: int
    symlinks: int
    hardlinks: int
    bytes: int
    skipped: tuple[Skipped, ...]
    failures: tuple[PQVaultError, ...]


class Extractor:
    """Writes entries below ``target``; any order, from any number of threads.

    ``target`` must not exist or be empty, unless ``force``: then files and links of the
    same name are replaced, and folders are merged. ``preserve_special`` keeps setuid, setgid and
    sticky bits. ``links="inside"`` skips and reports symbolic links that leave the target.
    ``link_sources`` names the files that hard links refer to, where the caller knows them:
    without it every path of the run is remembered (some 150 bytes each).

    An entry that fails raises a PQVaultError that names it, and the others may go on;
    TargetFull is for the run. Used in a ``with`` block, all that is not finished is aborted.
    Each FileSink belongs to its caller, who ends it before :meth:`finish` or :meth:`abort`.
    """

    def __init__(
        self,
        target: Path,
        *,
        force: bool = False,
        preserve_special: bool = False,
        links: Links = "inside",
        link_sources: Collection[bytes] | None = None,
    ) -> None:
        self._target = target
        self._force = force
        self._keep_bits = 0o777 | (SPECIAL_BITS if preserve_special else 0)
        self._links = links
        self._link_sources = None if link_sources is None else frozenset(link_sources)
        self._temp_prefix = f".pqvault-{secrets.token_hex(8)}"
        self._temp_numbers = itertools.count()
        self._lock = threading.Lock()
        self._tally = {"files": 0, "folders": 0, "symlinks": 0, "hardlinks": 0, "bytes": 0}
        self._extracted: set[bytes] = set()
        self._symlinks: list[Entry] = []
        self._skipped: list[Skipped] = []
        self._failures: list[PQVaultError] = []

        self._root, self._made_target = open_target(target, force)
        try:
            self._new_mode, folds = self._probe()
        except BaseException:
            os.close(self._root)
            self._remove_made_target()
            raise
        self._tree = Tree(self._root, force=force, folds=folds, new_mode=self._new_mode)

    def __enter__(self) -> Extractor:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.abort()

    # ---- entries ---------------------------------------------------------------------

    def make_folder(self, entry: Entry) -> None:
        """Make a folder, 0o700 for now; its mode and time are set by :meth:`finish`."""
        try:
            stamp = Stamp(entry.mode & self._keep_bits, entry.mtime_ns)
            self._tree.make(entry.path, stamp)
        except TROUBLE as error:
            raise failure(entry.path, error) from error
        self._count("folders")

    def open_file(self, entry: Entry) -> FileSink:
        """A sink for a file of ``entry.size`` bytes, which appears when it is committed."""
        try:
            sink = FileSink(self, entry)
            try:
                sink._refuse_early()
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
                    self._tree.claim(entry.path)
                    if folder is None or parent != above:
                        if folder is not None:
                            last, folder = folder, None
                            self._tree.unpin(last)
                        folder, above = self._tree.pin(parent), parent
                    self._write_file(folder.fd, name, entry, content)
                except TROUBLE as error:
                    trouble = failure(entry.path, error)
                    if failed is None or isinstance(trouble, TargetFull):
                        raise trouble from error
                    failed(trouble)
                else:
                    files_done += 1
                    size += entry.size
                    self._remember(entry.path)
        finally:
            if folder is not None:
                self._tree.unpin(folder)
            with self._lock:
                self._tally["files"] += files_done
                self._tally["bytes"] += size

    def _write_file(self, dir_fd: int, name: bytes, entry: Entry, content: Buffer) -> None:
        # The catalog's size is the cap: no content can fill more of the disk than it says.
        if len(content) != entry.size:
            raise Refused(f"its content does not have its {entry.size} bytes")
        temp = self._temp_name()
        fd = os.open(temp, FILE_FLAGS, 0o600, dir_fd=dir_fd)
        try:
            try:
                if content:
                    write_all(fd, content, 0)
                os.fchmod(fd, entry.mode & self._keep_bits)
                os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
            finally:
                os.close(fd)  # before the rename: network file systems report full disks here
            self._publish(dir_fd, temp, name)
        except BaseException:
            unlink_quietly(dir_fd, temp)
            raise

    def make_symlink(self, entry: Entry) -> None:
        """Remember a symbolic link; :meth:`finish` makes it, or reports why not."""
        try:
            split(entry.path)
            if not entry.link or b"\0" in entry.link:
                raise Refused("it is a symbolic link with no possible target")
        except TROUBLE as error:
            raise failure(entry.path, error) from error
        self._symlinks.append(entry)

    def make_hardlink(self, entry: Entry) -> bool:
        """Make ``entry.path`` another name of the file ``entry.link``.

        False when that file was not extracted in this run, or the file system has no hard
        links: then the caller writes the content.
        """
        source = entry.link
        if source is None or source not in self._extracted:
            return False
        try:
            made = self._hardlink(source, entry.path)
        except TROUBLE as error:
            raise failure(entry.path, error) from error
        if made:
            self._count("hardlinks", path=entry.path)
        return made

    # ---- the end ---------------------------------------------------------------------

    def finish(self) -> Report:
        """Make the symbolic links, then give folders their modes and times. Call it once."""
        if self._tree.closed:
            raise ValueError("this extractor is finished or aborted")
        try:
            self._make_symlinks()
            for path, stamp in self._tree.children_first():
                self._attempt(path, partial(self._tree.stamp, path, stamp))
            if self._made_target:
                os.fchmod(self._root, self._new_mode)
        finally:
            self._tree.close()
        return Report(**self._tally, skipped=tuple(self._skipped), failures=tuple(self._failures))

    def abort(self) -> None:
        """Stop here: whole files stay, folders stay 0o700. Nothing after :meth:`finish`."""
        if self._tree.close():
            self._remove_made_target()

    # ---- parts -----------------------------------------------------------------------

    def _probe(self) -> tuple[int, bool]:
        """The mode that new folders get here, and whether the file system folds names."""
        try:
            name = self._temp_name()
            fd = os.open(name, FILE_FLAGS, 0o777, dir_fd=self._root)
            # The kernel has applied the umask: reading it otherwise would mean setting it.
            new_mode = stat.S_IMODE(os.fstat(fd).st_mode)
            os.close(fd)
            os.unlink(name, dir_fd=self._root)
            prefix = os.fsencode(name)
            return new_mode, targets.folds_names(self._root, prefix)
        except OSError as error:
            raise failure(os.fsencode(self._target), error) from error

    def _remove_made_target(self) -> None:
        if self._made_target:
            try:
                os.rmdir(self._target)  # fails, as it should, unless it is still empty
            except OSError:
                pass

    def _temp_name(self) -> str:
        # Unpredictable per run and checked by O_EXCL: a counter is enough beyond that.
        return f"{self._temp_prefix}-{next(self._temp_numbers)}.tmp"

    def _publish(self, dir_fd: int, temp: str, name: bytes) -> None:
        """Rename within a folder: this replaces a link itself, never what it points to."""
        if self._force:
            os.rename(temp, name, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
        else:
            rename_new(dir_fd, os.fsencode(temp), name)

    def _count(self, what: str, *, path: bytes | None = None, size: int = 0) -> None:
        with self._lock:
            self._tally[what] += 1
            self._tally["bytes"] += size
        if path is not None:
            self._remember(path)

    def _remember(self, path: bytes) -> None:
        """Of files that hard links may name; adding to a set takes no lock."""
        if self._link_sources is None or path in self._link_sources:
            self._extracted.add(path)

    def _attempt(self, path: bytes, action: Callable[[], None]) -> bool:
        """Run one step of :meth:`finish`; what fails is kept for the report, but a full disk."""
        try:
            action()
        except TROUBLE as error:
            trouble = failure(path, error)
            if isinstance(trouble, TargetFull):
                raise trouble from error
            self._failures.append(trouble)
            return False
        return True

    def _hardlink(self, source: bytes, path: bytes) -> bool:
        source_parent, source_name = split(source)
        parent, name = split(path)
        self._tree.claim(path)
        with self._tree.pinned(source_parent) as source_fd, self._tree.pinned(parent) as fd:
            first = self._temp_name() if self._force else os.fsdecode(name)
            try:
                os.link(
                    source_name,
                    os.fsencode(first),
                    src_dir_fd=source_fd,
                    dst_dir_fd=fd,
                    follow_symlinks=False,
                )
            except OSError as error:
                if error.errno in (errno.EPERM, errno.EMLINK, errno.EXDEV, errno.EOPNOTSUPP):
                    return False
                raise
            if self._force:
                self._replace(fd, first, name)
        return True

    def _replace(self, dir_fd: int, temp: str, name: bytes) -> None:
        try:
            self._publish(dir_fd, temp, name)
        finally:
            # rename() does nothing when both names are one file already, so look again.
            unlink_quietly(dir_fd, temp)

    def _make_symlinks(self) -> None:
        for entry in self._links_to_make():
            if self._attempt(entry.path, partial(self._symlink, entry)):
                self._count("symlinks")

    def _links_to_make(self) -> list[Entry]:
        if self._links == "as-is":
            return self._symlinks
        kept = {}
        for entry in self._symlinks:
            if climbs_out(entry.path, entry.link or b""):
                self._skip(entry, "leaves the target folder")
            else:
                kept[entry.path] = entry.link or b""
        entries = []
        for entry in self._symlinks:
            if entry.path not in kept:
                continue
            if leaves_through_links(entry.path, kept):
                self._skip(entry, "leaves the target folder through another link")
            else:
                entries.append(entry)
        return entries

    def _skip(self, entry: Entry, why: str) -> None:
        reason = f"its target {printable(entry.link or b'')} {why}"
        self._skipped.append(Skipped(entry.path, reason))

    def _symlink(self, entry: Entry) -> None:
        parent, name = split(entry.path)
        self._tree.claim(entry.path)
        with self._tree.pinned(parent) as fd:
            first = os.fsencode(self._temp_name()) if self._force else name
            os.symlink(entry.link or b"", first, dir_fd=fd)
            times = (entry.mtime_ns, entry.mtime_ns)
            try:
                os.utime(first, ns=times, dir_fd=fd, follow_symlinks=False)
            except BaseException:
                unlink_quietly(fd, first)
                raise
            if self._force:
                self._replace(fd, os.fsdecode(first), name)


class FileSink:
    """A file on its way: written under a temporary name, seen only once it is committed.

    ``pwrite`` may be called by several threads; ranges never written are holes. In a
    ``with`` block a clean exit commits and an exception aborts.
    """

    __slots__ = ("_entry", "_extractor", "_fd", "_folder", "_name", "_temp")

    def __init__(self, extractor: Extractor, entry: Entry) -> None:
        parent, self._name = split(entry.path)
        self._extractor = extractor
        self._entry = entry
        extractor._tree.claim(entry.path)
        self._temp = extractor._temp_name()
        self._folder: Folder | None = extractor._tree.pin(parent)
        try:
            self._fd = os.open(self._temp, FILE_FLAGS, 0o600, dir_fd=self._folder.fd)
        except BaseException:
            extractor._tree.unpin(self._folder)
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
        self._extractor._tree.unpin(folder)

    def _write(self, buffer: Buffer, offset: int) -> None:
        with memoryview(buffer) as view:
            size = view.nbytes
            # The catalog's size is the cap: no content can fill more of the disk than it says.
            if offset < 0 or offset + size > self._entry.size:
                raise Refused(f"its content goes beyond its {self._entry.size} bytes")
            write_all(self._fd, view, offset)

    def _finish(self) -> None:
        entry, extractor, folder = self._entry, self._extractor, self._folder
        if folder is None:
            raise ValueError("this file is committed or aborted already")
        try:
            os.ftruncate(self._fd, entry.size)
            os.fchmod(self._fd, entry.mode & extractor._keep_bits)
            os.utime(self._fd, ns=(entry.mtime_ns, entry.mtime_ns))
            fd, self._fd = self._fd, -1
            os.close(fd)  # before the rename: network file systems report full disks here
            extractor._publish(folder.fd, self._temp, self._name)
        except BaseException:
            self.abort()
            raise
        self._folder = None
        extractor._tree.unpin(folder)
        extractor._count("files", path=entry.path, size=entry.size)

    def _refuse_early(self) -> None:
        """Say now, not after gigabytes, that the name is taken; the rename still decides."""
        assert self._folder is not None
        try:
            found = os.stat(self._name, dir_fd=self._folder.fd, follow_symlinks=False)
        except FileNotFoundError:
            return
        if stat.S_ISDIR(found.st_mode):
            raise IsADirectoryError(errno.EISDIR, "is a folder")
        if not self._extractor._force:
            raise FileExistsError(errno.EEXIST, "exists")
