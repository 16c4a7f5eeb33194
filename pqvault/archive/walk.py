"""Walk sources in the order of catalogs: bytewise by the path that an entry will have."""

from __future__ import annotations

import errno
import heapq
import os
import stat
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from types import MappingProxyType
from typing import NamedTuple

from pqvault.archive.globs import Globs
from pqvault.archive.sourcefile import file_time
from pqvault.errors import UsageError
from pqvault.format.entries import MAX_NAME, MAX_PATH, Kind
from pqvault.keyfile import is_secret
from pqvault.names import printable

__all__ = ["Found", "Source", "Walker", "inside", "name_sources"]

# Plain numbers: corpora have entries by the million, and what is done once for each counts.
_FILE, _FOLDER = int(Kind.FILE), int(Kind.FOLDER)
_KINDS = {stat.S_IFREG: _FILE, stat.S_IFDIR: _FOLDER, stat.S_IFLNK: int(Kind.SYMLINK)}
_SPECIAL = {
    stat.S_IFSOCK: "a socket",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class Found(NamedTuple):
    """A thing on disk. ``path``: in the archive; ``source``: on disk; times in ns."""

    path: bytes
    source: bytes
    kind: int
    size: int
    mode: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    device: int
    links: int
    sparse: bool
    target: bytes | None


@dataclass(frozen=True, slots=True)
class Source:
    """What the user named. ``name``: how its entries begin, b"" for ``.``."""

    root: bytes
    name: bytes


def name_sources(
    sources: Sequence[str | bytes | os.PathLike[str]], prefix: str = ""
) -> list[Source]:
    """Entries begin with the last component of their source, ``.`` uses none.

    Raises UsageError for a source that is missing and for two of one name.
    """
    if not sources:
        raise UsageError("no source is given", hint="name the folders or files to seal")
    head = os.fsencode(prefix).strip(b"/")
    if head and (b"\0" in head or any(part in (b"", b".", b"..") for part in head.split(b"/"))):
        raise UsageError(f"the prefix {prefix!r} is not a plain relative path")
    found: dict[bytes, Source] = {}
    for source in sources:
        root = os.fsencode(source)
        if not root:
            raise UsageError("a source has an empty name", hint="is a variable of the shell unset?")
        if not os.path.exists(root):
            hint = "check the path"
            if b"://" in root:
                hint = "files and folders of this machine are sealed: copy it here, or mount it"
            raise UsageError(f"{printable(root)} does not exist", hint=hint)
        last = b"" if os.path.normpath(root) == b"." else os.path.basename(os.path.abspath(root))
        name = b"/".join(part for part in (head, last) if part)
        if any(len(part) > MAX_NAME for part in name.split(b"/")) or len(name) > MAX_PATH:
            raise UsageError(f"{printable(name)[:80]}… is too long a name for an entry")
        if name in found:
            raise UsageError(
                f"two sources would both be called {printable(name) or '.'} in the archive",
                hint="seal them in two runs with --prefix",
            )
        for other in found:
            if _within(name, other) or _within(other, name):
                raise UsageError(
                    f"the sources {printable(other) or '.'} and {printable(name) or '.'} would be"
                    " one within the other in the archive",
                    hint="seal them in two runs with --prefix",
                )
        found[name] = Source(root, name)
    return sorted(found.values(), key=lambda source: source.name)


def inside(
    sources: Sequence[Source], path_on_disk: str | bytes | os.PathLike[str]
) -> tuple[Source, bytes]:
    """The source that a path on disk lies in, and the path of its entry. Raises UsageError."""
    name = os.fsencode(path_on_disk)
    if is_secret(os.fsdecode(name)) and not os.path.lexists(name):
        raise UsageError(
            "--files-from holds the text of a private key where a path belongs",
            hint="give a file of paths, as `find SRC` prints them",
        )
    disk = os.path.abspath(name)
    for source in sources:
        root = os.path.abspath(source.root)
        if disk == root or disk.startswith(root.rstrip(b"/") + b"/"):
            rest = disk[len(root) :].strip(b"/")
            path = b"/".join(part for part in (source.name, rest) if part)
            if path:
                return source, path
    raise UsageError(
        f"{printable(name)} of --files-from is not inside a source",
        hint="list paths as `find SRC` prints them, with SRC as it is given to seal",
    )


def _within(path: bytes, folder: bytes) -> bool:
    return not folder or path.startswith(folder + b"/")


class Walker:
    """Goes through sources; what cannot be read or is no file is told to ``report``.

    ``report(path, sentence, failed)``: ``failed`` is False for what is skipped by design
    (sockets, FIFOs, devices). ``skip``: device and inode of what is left out, the archive itself
    above all, and what to report of it; nothing when that is empty.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        report: Callable[[bytes, str, bool], None],
        *,
        exclude: Iterable[str | bytes] = (),
        one_file_system: bool = False,
        skip: Mapping[tuple[int, int], str] = MappingProxyType({}),
    ) -> None:
        self._sources = sources
        self._report = report
        self._exclude = Globs(exclude)
        self._one_file_system = one_file_system
        self._skip = skip
        self.unread: list[bytes] = []  # paths below which things may exist that were not seen

    def walk(self) -> Iterator[Found]:
        """Everything below the sources, each folder before what is in it."""
        above = sorted({f.path: f for s in self._sources for f in _prefix_folders(s.name)}.values())
        walks = [self._source(source) for source in self._sources]
        if above or len(walks) > 1:
            yield from heapq.merge(above, *walks, key=attrgetter("path"))
        else:
            yield from walks[0]

    def listed(self, names: Iterable[tuple[Source, bytes]]) -> Iterator[Found]:
        """Only what is named, as :func:`inside` gives it. Folders are not entered."""
        wanted = {found.path: found for s in self._sources for found in _prefix_folders(s.name)}
        for source, path in names:
            self._add(wanted, source, path)
        yield from (wanted[path] for path in sorted(wanted))

    def _add(self, wanted: dict[bytes, Found], source: Source, path: bytes) -> bool:
        """Put a path and the folders above it, each a real folder; False when it is left out."""
        if path in wanted:
            return True
        if path != source.name:
            above = path.rpartition(b"/")[0]
            if above and not self._add(wanted, source, above):
                return False
            if above and wanted[above].kind != Kind.FOLDER:
                self._report(path, "is not in a folder of its source: a link is not followed", True)
                return False
        rest = path[len(source.name) :].strip(b"/")
        disk = os.path.join(os.path.realpath(source.root), rest) if rest else source.root
        found = None if self._exclude.match(path) else self._found(path, disk, root=not rest)
        if found is None:
            return False
        wanted[path] = found
        return True

    def excludes(self, path: bytes) -> bool:
        """Whether a path, or a folder above it, is excluded or was not seen for an error."""
        while path:
            if path in self.unread or self._exclude.match(path):
                return True
            path = path.rpartition(b"/")[0]
        return b"" in self.unread

    def covers(self, path: bytes) -> bool:
        """Whether a path of the archive lies below one of the sources."""
        return any(
            not s.name or path == s.name or path.startswith(s.name + b"/") for s in self._sources
        )

    def _source(self, source: Source) -> Iterator[Found]:
        if not source.name:
            yield from self._folder(b"", source.root, os.stat(source.root).st_dev)
            return
        found = self._found(source.name, os.path.realpath(source.root), root=True)
        if found is None or self._exclude.match(source.name):
            return
        yield found
        if found.kind == Kind.FOLDER:
            yield from self._folder(source.name, source.root, found.device)

    def _folder(self, path: bytes, disk: bytes, device: int) -> Iterator[Found]:
        # An explicit stack: trees may be deeper than Python's recursion.
        stack = [self._children(path, disk, device)]
        while stack:
            item = next(stack[-1], None)
            if item is None:
                stack.pop()
            elif item[1] is None:
                below, where = item[0], item[2]
                stack.append(self._children(below, where, device))
            else:
                yield item[1]

    def _children(
        self, path: bytes, disk: bytes, device: int
    ) -> Iterator[tuple[bytes, Found | None, bytes]]:
        """What is in a folder, sorted; (path, None, disk) where a folder's content is due.

        ``device``: of the source.
        """
        base = path + b"/" if path else b""
        try:
            due = self._without_excluded(base, _due(disk))
        except OSError as error:
            self.unread.append(path)
            self._report(path, f"cannot be read: {error.strerror}", True)
            return
        folders: dict[bytes, tuple[bytes, bytes]] = {}
        above = disk if disk.endswith(b"/") else disk + b"/"
        for name in due:
            if name.endswith(b"/"):
                if name[:-1] in folders:
                    below, where = folders.pop(name[:-1])
                    yield below, None, where
                continue
            found = self._found(base + name, above + name, root=False)
            if found is None:
                continue
            yield found.path, found, b""
            if found.kind != _FOLDER:
                continue
            if self._one_file_system and found.device != device:
                self.unread.append(found.path)  # what is there is not gone
            else:
                at = bisect_left(due, name + b"/")
                if at < len(due) and due[at] == name + b"/":
                    folders[name] = (found.path, found.source)
                else:
                    self.unread.append(found.path)
                    self._report(found.path, "became a folder just now: it was not read", True)

    def _without_excluded(self, base: bytes, due: list[bytes]) -> list[bytes]:
        # All of a folder at once, which takes little longer than one of them.
        if not self._exclude or not due:
            return due
        excluded = self._exclude.match_each([base + name.removesuffix(b"/") for name in due])
        return [name for name, out in zip(due, excluded, strict=True) if not out]

    def _found(self, path: bytes, disk: bytes, *, root: bool) -> Found | None:
        if len(path) > MAX_PATH:
            self._report(path, f"has a path of over {MAX_PATH} bytes", True)
            return None
        try:
            # Only what the user typed may be reached through a link.
            info = os.stat(disk) if root else os.lstat(disk)
            target = os.readlink(disk) if stat.S_ISLNK(info.st_mode) else None
        except OSError as error:
            if error.errno != errno.ENOENT:
                self.unread.append(path)
            self._report(path, f"cannot be read: {error.strerror}", True)
            return None
        if (info.st_dev, info.st_ino) in self._skip:
            if why := self._skip[info.st_dev, info.st_ino]:
                self._report(path, f"is {why}: skipped", False)
            return None
        kind = _KINDS.get(stat.S_IFMT(info.st_mode))
        if kind is None:
            special = _SPECIAL.get(stat.S_IFMT(info.st_mode), "of an unknown type")
            self._report(path, f"is {special}: skipped", False)
            return None
        is_file = kind == _FILE
        return Found(
            path,
            disk,
            kind,
            info.st_size if is_file else 0,
            stat.S_IMODE(info.st_mode),
            file_time(info.st_mtime_ns),
            file_time(info.st_ctime_ns),
            info.st_ino,
            info.st_dev,
            info.st_nlink,
            is_file and info.st_blocks * 512 < info.st_size,
            target,
        )


def _due(disk: bytes) -> list[bytes]:
    """The names in a folder, and once more those of folders with "/" behind: where their content is
    due, for other names may precede it ("a", "a-b", "a/x")."""
    due = []
    with os.scandir(disk) as entries:
        for entry in entries:
            due.append(entry.name)
            if entry.is_dir(follow_symlinks=False):
                due.append(entry.name + b"/")
    due.sort()
    return due


def _prefix_folders(name: bytes) -> Iterator[Found]:
    """The folders of ``--prefix``, which are nowhere on disk (``source`` is empty)."""
    parts = name.split(b"/")[:-1]
    for count in range(1, len(parts) + 1):
        path = b"/".join(parts[:count])
        yield Found(path, b"", int(Kind.FOLDER), 0, 0o755, 0, 0, 0, 0, 1, False, None)
