"""The folders below the target: opened step by step, never through a link, stamped last."""

from __future__ import annotations

import errno
import os
import re
import stat
import threading
from collections import OrderedDict
from typing import NamedTuple

from pqvault.archive.extract.links import split
from pqvault.archive.extract.target import FOLDER_FLAGS, fold
from pqvault.archive.extract.trouble import Refused, unlink_quietly
from pqvault.names import printable

__all__ = ["OPEN_FOLDERS", "Folder", "JoinedTree", "Stamp", "Tree"]

LEFTOVER = re.compile(r"\.pqvault-[0-9a-f]{16}-[0-9]+\.tmp(?:-.*)?", re.DOTALL)
OPEN_FOLDERS = 256  # handles kept open: a quarter of the usual limit of 1,024


class Stamp(NamedTuple):
    mode: int
    mtime_ns: int | None  # None: a parent that no entry named


class Folder:
    """An open folder; its handle is closed only when no thread has it pinned."""

    __slots__ = ("fd", "pins")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.pins = 1


class Pinned:
    __slots__ = ("_folder", "_path", "_tree")

    def __init__(self, tree: Tree, path: bytes) -> None:
        self._tree, self._path = tree, path

    def __enter__(self) -> int:
        self._folder = self._tree.pin(self._path)
        return self._folder.fd

    def __exit__(self, *exc_info: object) -> None:
        self._tree.unpin(self._folder)


class Tree:
    """The folders below the target, as a bounded cache of handles, and their final stamps.

    One lock covers cache, walk and stamps: folders are few beside files, and making them one
    at a time means that no two threads race to make the same one.
    """

    def __init__(self, root: int, *, force: bool, folds: bool, new_mode: int) -> None:
        self._lock = threading.Lock()
        # Paths in here have passed split component by component. b"" is the target, pinned
        # until close().
        self._open: OrderedDict[bytes, Folder] = OrderedDict({b"": Folder(root)})
        self._stamps: dict[bytes, Stamp] = {}
        self._implied = Stamp(new_mode, None)
        self._force = force
        self._cleared = set[bytes]()  # existing folders that were looked through before first use
        self._clear(root, b"")
        self._claims: dict[str, bytes] | None = {} if folds else None
        self.closed = False

    def pin(self, path: bytes) -> Folder:
        """The folder ``path``, made with its parents where missing, until :meth:`unpin`."""
        with self._lock:
            folder = self._open.get(path)
            if folder is None:
                folder = self._walk(path)
            elif path:
                self._open.move_to_end(path)
            folder.pins += 1
            return folder

    def unpin(self, folder: Folder) -> None:
        with self._lock:
            self._release(folder)

    def pinned(self, path: bytes) -> Pinned:
        return Pinned(self, path)

    def make(self, path: bytes, stamp: Stamp) -> None:
        """Make a folder that gets ``stamp`` in the end. A new one is not opened before something
        in it is asked for, here: other processes open it themselves."""
        parent, name = split(path)
        with self._lock:
            if path not in self._stamps:
                above = self._open.get(parent) or self._walk(parent)
                self._make_one(above.fd, name, path)
            if path not in self._stamps:  # it was there before
                _let_owner_in((self._open.get(path) or self._walk(path)).fd)
            self._stamps[path] = stamp

    def ensure(self, path: bytes) -> None:
        """Make a folder where it is missing; one that this run has made is not opened for that."""
        with self._lock:
            if path and path not in self._stamps and path not in self._open:
                self._walk(path)

    def claim(self, path: bytes) -> None:
        """Where the file system folds names, refuse a second spelling of a name (row 29)."""
        if self._claims is None:
            return
        owner = self._claims.setdefault(fold(path), path)
        if owner != path:
            raise Refused(
                f"to this file system its name is that of {printable(owner)}",
                "extract it by a glob into another folder, or all on another file system",
            )

    def children_first(self) -> list[tuple[bytes, Stamp]]:
        # A parent's path is a prefix of its children's and so sorts before all of them.
        return sorted(self._stamps.items(), reverse=True)

    def stamp(self, path: bytes, stamp: Stamp) -> None:
        with self.pinned(path) as fd:
            os.fchmod(fd, stamp.mode)
            if stamp.mtime_ns is not None:
                os.utime(fd, ns=(stamp.mtime_ns, stamp.mtime_ns))

    def close(self) -> bool:
        """Close every handle, pinned ones when they are let go; False if closed before."""
        with self._lock:
            if self.closed:
                return False
            self.closed = True
            folders = list(self._open.values())
            root = self._open[b""]
            self._open.clear()
            self._release(root)
            for folder in folders:
                if folder is not root and not folder.pins:
                    os.close(folder.fd)
            return True

    def _release(self, folder: Folder) -> None:
        folder.pins -= 1
        if self.closed and not folder.pins:
            os.close(folder.fd)

    def _walk(self, path: bytes) -> Folder:
        if self.closed:
            raise ValueError("this extractor is finished or aborted")
        missing = []
        at = path
        while at not in self._open:
            missing.append(at)
            at, _ = split(at)
        folder = self._open[at]
        for at in reversed(missing):
            folder = self._enter(folder, at)
        return folder

    def _enter(self, parent: Folder, path: bytes) -> Folder:
        name = path.rpartition(b"/")[2]
        if path not in self._stamps:
            self._make_one(parent.fd, name, path)
        try:
            folder = Folder(os.open(name, FOLDER_FLAGS, dir_fd=parent.fd))
        except OSError as error:
            raise _blocked(parent.fd, name, path, error) from error
        self._clear(folder.fd, path)
        self._open[path] = folder
        self._evict()  # never the new one: it is born pinned
        folder.pins -= 1
        return folder

    def _clear(self, fd: int, path: bytes) -> None:
        """Remove what an extraction that was killed left in a folder, before this one writes there:
        an entry of the archive may bear such a name too."""
        if not self._force or path in self._cleared:
            return
        self._cleared.add(path)
        with os.scandir(fd) as entries:
            names = [entry.name for entry in entries if self._is_leftover(entry.name)]
        for name in names:
            unlink_quietly(fd, name)

    def _is_leftover(self, name: str) -> bool:
        return LEFTOVER.fullmatch(name) is not None

    def _make_one(self, parent_fd: int, name: bytes, path: bytes) -> None:
        self.claim(path)
        try:
            os.mkdir(name, 0o700, dir_fd=parent_fd)
        except FileExistsError:
            # Without force the target was empty: what stands here now, others have put there.
            if not self._force:
                raise Refused(
                    f"{printable(path)} exists already in the target", "is another unseal at work?"
                ) from None
        else:
            self._stamps[path] = self._implied

    def _evict(self) -> None:
        while len(self._open) > OPEN_FOLDERS:
            path = next((path for path, folder in self._open.items() if not folder.pins), None)
            if path is None:
                return
            os.close(self._open.pop(path).fd)


class JoinedTree(Tree):
    """The folders of an extraction that another process leads: they are there, none is made.

    ``lost``: how the names of files begin that processes left which ended in the middle of it.
    """

    def __init__(self, root: int, lost: tuple[str, ...]) -> None:
        self._lost = lost
        super().__init__(root, force=bool(lost), folds=False, new_mode=0o700)

    def _is_leftover(self, name: str) -> bool:
        return name.startswith(self._lost)

    def _make_one(self, parent_fd: int, name: bytes, path: bytes) -> None:
        """Made already."""


def _let_owner_in(fd: int) -> None:
    """An existing folder may be read-only; its final mode is set by finish() in any case."""
    mode = stat.S_IMODE(os.fstat(fd).st_mode)
    if mode & 0o700 != 0o700:
        os.fchmod(fd, mode | 0o700)


def _blocked(parent_fd: int, name: bytes, path: bytes, error: OSError) -> Refused | OSError:
    """Why a folder cannot be opened, in words where the reason is what stands in its place."""
    if error.errno not in (errno.ENOTDIR, errno.ELOOP):
        return error
    try:
        found = os.stat(name, dir_fd=parent_fd, follow_symlinks=False).st_mode
    except OSError:
        return error
    what = "a symbolic link, which is never followed" if stat.S_ISLNK(found) else "not a folder"
    return Refused(f"{printable(path)} in the target is {what}", "move it away")
