"""Extractor: entries in, files, folders and links out."""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pqvault.archive.extract import target as targets
from pqvault.archive.extract.folders import Stamp, Tree
from pqvault.archive.extract.links import climbs_out, leaves_through_links, split
from pqvault.archive.extract.place import Place, new_prefix
from pqvault.archive.extract.target import FILE_FLAGS, open_target
from pqvault.archive.extract.trouble import (
    TROUBLE,
    Refused,
    failure,
    tell,
    unlink_quietly,
)
from pqvault.archive.extract.writer import FileWriter
from pqvault.errors import PQVaultError
from pqvault.names import printable

if TYPE_CHECKING:  # a name for the type checker only: it would import pyarrow
    from pqvault.format.entries import Entry

__all__ = ["Extractor", "Links", "Report", "Skipped"]

Links = Literal["inside", "as-is"]

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
    TargetFull is for the run. ``files`` writes the files. Used in a ``with`` block, all that is
    not finished is aborted. Each FileSink belongs to its caller, who ends it before
    :meth:`finish` or :meth:`abort`.
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
        self._links = links
        self._link_sources = None if link_sources is None else frozenset(link_sources)
        self._lock = threading.Lock()
        self._tally = {"folders": 0, "symlinks": 0, "hardlinks": 0}
        self._extracted: set[bytes] = set()
        self._symlinks: list[Entry] = []
        self._skipped: list[Skipped] = []
        self._failures: list[PQVaultError] = []

        self._root, self._made_target = open_target(target, force)
        prefix = new_prefix()
        try:
            self._new_mode, folds = self._probe(f"{prefix}-0.tmp")
        except BaseException:
            os.close(self._root)
            self.remove_made_target()
            raise
        self._tree = Tree(self._root, force=force, folds=folds, new_mode=self._new_mode)
        self.files = FileWriter(
            self._tree,
            force=force,
            keep_bits=0o777 | (SPECIAL_BITS if preserve_special else 0),
            prefix=prefix,
            written=self._remember,
        )

    def __enter__(self) -> Extractor:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.abort()

    # ---- entries ---------------------------------------------------------------------

    def make_folder(self, entry: Entry) -> None:
        """Make a folder, 0o700 for now; its mode and time are set by :meth:`finish`."""
        try:
            stamp = Stamp(entry.mode & self.files.keep_bits, entry.mtime_ns)
            self._tree.make(entry.path, stamp)
        except TROUBLE as error:
            raise failure(entry.path, error) from error
        self._count("folders")

    def make_symlink(self, entry: Entry) -> None:
        """Remember a symbolic link; :meth:`finish` makes it, or reports why not."""
        try:
            split(entry.path)
            if not entry.link or b"\0" in entry.link:
                raise Refused("it is a symbolic link with no possible target")
        except TROUBLE as error:
            raise failure(entry.path, error) from error
        self._symlinks.append(entry)

    # ---- files that other processes write ----------------------------------------------

    def place(self) -> Place:
        """For a process that writes files of this extraction; each needs one of its own."""
        files = self.files
        path = os.fsencode(os.path.abspath(self._target))
        return Place(path, os.fstat(self._root).st_ino, new_prefix(), files.force, files.keep_bits)

    def prepare(
        self, entries: Iterable[Entry], failed: Callable[[PQVaultError], object]
    ) -> list[Entry]:
        """Make way for files that another process writes: their names are taken, their folders
        made. Those for which that could be done; ``failed`` is told of the others."""
        ready: list[Entry] = []
        made: bytes | None = None
        for entry in entries:
            try:
                parent, _ = split(entry.path)
                self._tree.claim(entry.path)
                if parent != made:
                    self._tree.ensure(parent)
                    made = parent
            except TROUBLE as error:
                tell(entry.path, error, failed)
            else:
                ready.append(entry)
        return ready

    def note(self, entries: Iterable[Entry]) -> None:
        """Files that another process has written."""
        for entry in entries:
            self.files.count(entry)

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
            self._count("hardlinks")
            self._remember(entry.path)
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
        return Report(
            files=self.files.files,
            bytes=self.files.size,
            **self._tally,
            skipped=tuple(self._skipped),
            failures=tuple(self._failures),
        )

    def abort(self) -> None:
        """Stop here: whole files stay, folders stay 0o700. Nothing after :meth:`finish`."""
        if self._tree.close():
            self.remove_made_target()

    # ---- parts -----------------------------------------------------------------------

    def _probe(self, name: str) -> tuple[int, bool]:
        """The mode that new folders get here, and whether the file system folds names."""
        try:
            fd = os.open(name, FILE_FLAGS, 0o777, dir_fd=self._root)
            # The kernel has applied the umask: reading it otherwise would mean setting it.
            new_mode = stat.S_IMODE(os.fstat(fd).st_mode)
            os.close(fd)
            os.unlink(name, dir_fd=self._root)
            prefix = os.fsencode(name)
            return new_mode, targets.folds_names(self._root, prefix)
        except OSError as error:
            raise failure(os.fsencode(self._target), error) from error

    def remove_made_target(self) -> None:
        """Remove the target where this run made it, and nothing is in it."""
        if self._made_target:
            try:
                os.rmdir(self._target)  # fails, as it should, unless it is still empty
            except OSError:
                pass

    def _count(self, what: str) -> None:
        with self._lock:
            self._tally[what] += 1

    def _remember(self, path: bytes) -> None:
        """Of files that hard links may name; adding to a set takes no lock."""
        if self._link_sources is None or path in self._link_sources:
            self._extracted.add(path)

    def _attempt(self, path: bytes, action: Callable[[], None]) -> bool:
        """Run one step of :meth:`finish`; what fails is kept for the report, but a full disk."""
        try:
            action()
        except TROUBLE as error:
            tell(path, error, self._failures.append)
            return False
        return True

    def _hardlink(self, source: bytes, path: bytes) -> bool:
        source_parent, source_name = split(source)
        parent, name = split(path)
        self._tree.claim(path)
        with self._tree.pinned(source_parent) as source_fd, self._tree.pinned(parent) as fd:
            first = self.files.temp_name() if self.files.force else os.fsdecode(name)
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
            if self.files.force:
                self._replace(fd, first, name)
        return True

    def _replace(self, dir_fd: int, temp: str, name: bytes) -> None:
        try:
            self.files.publish(dir_fd, temp, name)
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
            first = os.fsencode(self.files.temp_name()) if self.files.force else name
            os.symlink(entry.link or b"", first, dir_fd=fd)
            times = (entry.mtime_ns, entry.mtime_ns)
            try:
                os.utime(first, ns=times, dir_fd=fd, follow_symlinks=False)
            except BaseException:
                unlink_quietly(fd, first)
                raise
            if self.files.force:
                self._replace(fd, os.fsdecode(first), name)
