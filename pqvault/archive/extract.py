"""Write entries below a target folder, and nowhere else: the last wall of ``unseal``.

Nothing here knows keys or formats. What an archive says is authenticated, but only as far
as "someone who knew the public keys sealed it", so every name is taken as hostile:

- each step below the target is one component, opened relative to its parent's handle with
  ``O_NOFOLLOW``: no ``..``, no planted symbolic link, no race leads outside, and no path is
  too long or too deep;
- a file is written under a temporary name beside its own and renamed when it is whole;
- symbolic links are made last, so that nothing can be written through them;
- modes and times of folders are set last, children first; until then folders are 0o700.
"""

from __future__ import annotations

import ctypes
import errno
import itertools
import os
import secrets
import stat
import threading
import unicodedata
from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from pqvault.errors import PQVaultError, UsageError
from pqvault.names import printable

if TYPE_CHECKING:  # a name for the type checker only: it would import pyarrow
    from pqvault.format.catalog import Entry

__all__ = ["Extractor", "FileSink", "Links", "Report", "Skipped", "TargetFull"]

Links = Literal["inside", "as-is"]
Buffer = bytes | bytearray | memoryview

OPEN_FOLDERS = 256  # handles kept open: a quarter of the usual limit of 1,024
FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
FILE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
SPECIAL_BITS = stat.S_ISUID | stat.S_ISGID | stat.S_ISVTX
MAX_LINK_STEPS = 4096  # components looked at for one link; Linux gives up after 40 links


class TargetFull(PQVaultError):
    """The target's file system has no room left: no later entry can do better."""

    default_hint = "free some space, then run the command again with --force"


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

        self._root, self._made_target = _open_target(target, force)
        try:
            self._new_mode, folds = self._probe()
        except BaseException:
            os.close(self._root)
            self._remove_made_target()
            raise
        self._tree = _Tree(self._root, force=force, folds=folds, new_mode=self._new_mode)

    def __enter__(self) -> Extractor:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.abort()

    # ---- entries ---------------------------------------------------------------------

    def make_folder(self, entry: Entry) -> None:
        """Make a folder, 0o700 for now; its mode and time are set by :meth:`finish`."""
        try:
            stamp = _Stamp(entry.mode & self._keep_bits, entry.mtime_ns)
            self._tree.make(entry.path, stamp)
        except _TROUBLE as error:
            raise _failure(entry.path, error) from error
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
        except _TROUBLE as error:
            raise _failure(entry.path, error) from error
        return sink

    def write_small(self, entry: Entry, content: Buffer) -> None:
        """Write a whole file whose bytes are at hand: the fewest system calls there can be."""
        try:
            sink = FileSink(self, entry)
            try:
                if sink._write(content, 0) != entry.size:
                    raise _Refused(f"its content does not have its {entry.size} bytes")
                sink._finish(resize=False)
            except BaseException:
                sink.abort()
                raise
        except _TROUBLE as error:
            raise _failure(entry.path, error) from error

    def make_symlink(self, entry: Entry) -> None:
        """Remember a symbolic link; :meth:`finish` makes it, or reports why not."""
        try:
            _split(entry.path)
            if not entry.link or b"\0" in entry.link:
                raise _Refused("it is a symbolic link with no possible target")
        except _TROUBLE as error:
            raise _failure(entry.path, error) from error
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
        except _TROUBLE as error:
            raise _failure(entry.path, error) from error
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
            return new_mode, _folds_names(self._root, prefix)
        except OSError as error:
            raise _failure(os.fsencode(self._target), error) from error

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
            _rename_new(dir_fd, os.fsencode(temp), name)

    def _count(self, what: str, *, path: bytes | None = None, size: int = 0) -> None:
        with self._lock:
            self._tally[what] += 1
            self._tally["bytes"] += size
            if path is not None and (self._link_sources is None or path in self._link_sources):
                self._extracted.add(path)

    def _attempt(self, path: bytes, action: Callable[[], None]) -> bool:
        """Run one step of :meth:`finish`; what fails is kept for the report, but a full disk."""
        try:
            action()
        except _TROUBLE as error:
            failure = _failure(path, error)
            if isinstance(failure, TargetFull):
                raise failure from error
            self._failures.append(failure)
            return False
        return True

    def _hardlink(self, source: bytes, path: bytes) -> bool:
        source_parent, source_name = _split(source)
        parent, name = _split(path)
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
            _unlink_quietly(dir_fd, temp)

    def _make_symlinks(self) -> None:
        for entry in self._links_to_make():
            if self._attempt(entry.path, partial(self._symlink, entry)):
                self._count("symlinks")

    def _links_to_make(self) -> list[Entry]:
        if self._links == "as-is":
            return self._symlinks
        kept = {}
        for entry in self._symlinks:
            if _climbs_out(entry.path, entry.link or b""):
                self._skip(entry, "leaves the target folder")
            else:
                kept[entry.path] = entry.link or b""
        entries = []
        for entry in self._symlinks:
            if entry.path not in kept:
                continue
            if _leaves_through_links(entry.path, kept):
                self._skip(entry, "leaves the target folder through another link")
            else:
                entries.append(entry)
        return entries

    def _skip(self, entry: Entry, why: str) -> None:
        reason = f"its target {printable(entry.link or b'')} {why}"
        self._skipped.append(Skipped(entry.path, reason))

    def _symlink(self, entry: Entry) -> None:
        parent, name = _split(entry.path)
        self._tree.claim(entry.path)
        with self._tree.pinned(parent) as fd:
            first = os.fsencode(self._temp_name()) if self._force else name
            os.symlink(entry.link or b"", first, dir_fd=fd)
            times = (entry.mtime_ns, entry.mtime_ns)
            try:
                os.utime(first, ns=times, dir_fd=fd, follow_symlinks=False)
            except BaseException:
                _unlink_quietly(fd, first)
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
        parent, self._name = _split(entry.path)
        self._extractor = extractor
        self._entry = entry
        extractor._tree.claim(entry.path)
        self._temp = extractor._temp_name()
        self._folder: _Folder | None = extractor._tree.pin(parent)
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
        except _TROUBLE as error:
            raise _failure(self._entry.path, error) from error

    def commit(self) -> None:
        """Set size, mode and time, and give the file its name; a failure aborts."""
        try:
            self._finish(resize=True)
        except _TROUBLE as error:
            raise _failure(self._entry.path, error) from error

    def abort(self) -> None:
        """Remove what was written; does nothing after a commit."""
        folder, self._folder = self._folder, None
        if folder is None:
            return
        if self._fd >= 0:
            os.close(self._fd)
        _unlink_quietly(folder.fd, self._temp)
        self._extractor._tree.unpin(folder)

    def _write(self, buffer: Buffer, offset: int) -> int:
        with memoryview(buffer) as view:
            size = view.nbytes
            # The catalog's size is the cap: no content can fill more of the disk than it says.
            if offset < 0 or offset + size > self._entry.size:
                raise _Refused(f"its content goes beyond its {self._entry.size} bytes")
            written = os.pwrite(self._fd, view, offset) if size else 0
            if written != size:
                self._write_rest(view.cast("B"), written, offset)
        return size

    def _write_rest(self, view: memoryview, done: int, offset: int) -> None:
        while done < len(view):
            written = os.pwrite(self._fd, view[done:], offset + done)
            if not written:
                raise OSError(errno.EIO, "nothing could be written")
            done += written

    def _finish(self, *, resize: bool) -> None:
        entry, extractor, folder = self._entry, self._extractor, self._folder
        if folder is None:
            raise ValueError("this file is committed or aborted already")
        try:
            if resize:
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


# ---- folders ---------------------------------------------------------------------------


class _Stamp(NamedTuple):
    mode: int
    mtime_ns: int | None  # None: a parent that no entry named


class _Folder:
    """An open folder; its handle is closed only when no thread has it pinned."""

    __slots__ = ("fd", "pins")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.pins = 1


class _Pinned:
    __slots__ = ("_folder", "_path", "_tree")

    def __init__(self, tree: _Tree, path: bytes) -> None:
        self._tree, self._path = tree, path

    def __enter__(self) -> int:
        self._folder = self._tree.pin(self._path)
        return self._folder.fd

    def __exit__(self, *exc_info: object) -> None:
        self._tree.unpin(self._folder)


class _Tree:
    """The folders below the target, as a bounded cache of handles, and their final stamps.

    One lock covers cache, walk and stamps: folders are few beside files, and making them one
    at a time means that no two threads race to make the same one.
    """

    def __init__(self, root: int, *, force: bool, folds: bool, new_mode: int) -> None:
        self._lock = threading.Lock()
        # Paths in here have passed _split component by component. b"" is the target, pinned
        # until close().
        self._open: OrderedDict[bytes, _Folder] = OrderedDict({b"": _Folder(root)})
        self._stamps: dict[bytes, _Stamp] = {}
        self._implied = _Stamp(new_mode, None)
        self._force = force
        self._claims: dict[str, bytes] | None = {} if folds else None
        self.closed = False

    def pin(self, path: bytes) -> _Folder:
        """The folder ``path``, made with its parents where missing, until :meth:`unpin`."""
        with self._lock:
            folder = self._open.get(path)
            if folder is None:
                folder = self._walk(path)
            elif path:
                self._open.move_to_end(path)
            folder.pins += 1
            return folder

    def unpin(self, folder: _Folder) -> None:
        with self._lock:
            self._release(folder)

    def pinned(self, path: bytes) -> _Pinned:
        return _Pinned(self, path)

    def make(self, path: bytes, stamp: _Stamp) -> None:
        _split(path)
        with self._lock:
            known = path in self._stamps
            folder = self._open.get(path) or self._walk(path)
            if not known:
                _let_owner_in(folder.fd)
            self._stamps[path] = stamp

    def claim(self, path: bytes) -> None:
        """Where the file system folds names, refuse a second spelling of a name (row 29)."""
        if self._claims is None:
            return
        owner = self._claims.setdefault(_fold(path), path)
        if owner != path:
            raise _Refused(f"to this file system its name is that of {printable(owner)}")

    def children_first(self) -> list[tuple[bytes, _Stamp]]:
        # A parent's path is a prefix of its children's and so sorts before all of them.
        return sorted(self._stamps.items(), reverse=True)

    def stamp(self, path: bytes, stamp: _Stamp) -> None:
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

    def _release(self, folder: _Folder) -> None:
        folder.pins -= 1
        if self.closed and not folder.pins:
            os.close(folder.fd)

    def _walk(self, path: bytes) -> _Folder:
        if self.closed:
            raise ValueError("this extractor is finished or aborted")
        missing = []
        at = path
        while at not in self._open:
            missing.append(at)
            at, _ = _split(at)
        folder = self._open[at]
        for at in reversed(missing):
            folder = self._enter(folder, at)
        return folder

    def _enter(self, parent: _Folder, path: bytes) -> _Folder:
        name = path.rpartition(b"/")[2]
        if path not in self._stamps:
            self._make_one(parent.fd, name, path)
        try:
            folder = _Folder(os.open(name, FOLDER_FLAGS, dir_fd=parent.fd))
        except OSError as error:
            raise _blocked(parent.fd, name, path, error) from error
        self._open[path] = folder
        self._evict()  # never the new one: it is born pinned
        folder.pins -= 1
        return folder

    def _make_one(self, parent_fd: int, name: bytes, path: bytes) -> None:
        self.claim(path)
        try:
            os.mkdir(name, 0o700, dir_fd=parent_fd)
        except FileExistsError:
            # Without force the target was empty: what stands here now, others have put there.
            if not self._force:
                raise _Refused(f"{printable(path)} exists already in the target") from None
        else:
            self._stamps[path] = self._implied

    def _evict(self) -> None:
        while len(self._open) > OPEN_FOLDERS:
            path = next((path for path, folder in self._open.items() if not folder.pins), None)
            if path is None:
                return
            os.close(self._open.pop(path).fd)


def _let_owner_in(fd: int) -> None:
    """An existing folder may be read-only; its final mode is set by finish() in any case."""
    mode = stat.S_IMODE(os.fstat(fd).st_mode)
    if mode & 0o700 != 0o700:
        os.fchmod(fd, mode | 0o700)


def _blocked(parent_fd: int, name: bytes, path: bytes, error: OSError) -> _Refused | OSError:
    """Why a folder cannot be opened, in words where the reason is what stands in its place."""
    if error.errno not in (errno.ENOTDIR, errno.ELOOP):
        return error
    try:
        found = os.stat(name, dir_fd=parent_fd, follow_symlinks=False).st_mode
    except OSError:
        return error
    what = "a symbolic link, which is never followed" if stat.S_ISLNK(found) else "not a folder"
    return _Refused(f"{printable(path)} in the target is {what}")


# ---- the target ------------------------------------------------------------------------


def _open_target(target: Path, force: bool) -> tuple[int, bool]:
    """A handle of the target, and whether it was made now (0o700 until finished)."""
    shown = printable(os.fsencode(target))
    try:
        os.mkdir(target, 0o700)
        return os.open(target, FOLDER_FLAGS), True
    except FileExistsError:
        pass
    except OSError as error:
        hint = "make the folder that shall hold it first"
        raise UsageError(f"cannot make {shown}: {error.strerror}", hint=hint) from error
    try:
        # The only place where links are followed: the user typed this path.
        fd = os.open(target, FOLDER_FLAGS & ~os.O_NOFOLLOW)
    except OSError as error:
        raise UsageError(f"cannot extract into {shown}: {error.strerror}") from error
    try:
        _check_target(fd, shown, force)
    except BaseException:
        os.close(fd)
        raise
    return fd, False


def _check_target(fd: int, shown: str, force: bool) -> None:
    found = os.fstat(fd)
    open_to_all = found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX
    if open_to_all and found.st_uid != os.geteuid():
        raise UsageError(
            f"{shown} belongs to another user and everybody can move what is in it",
            hint="extract into a folder of your own",
        )
    if force:
        return
    with os.scandir(fd) as names:
        if next(names, None) is not None:
            raise UsageError(
                f"{shown} exists and is not empty",
                hint="name a new folder with -o, or pass --force to replace files in it",
            )


def _folds_names(root: int, prefix: bytes) -> bool:
    """Does this file system take `a` for `A`, or é in one code point for é in two?"""
    pairs = [(b"-a", b"-A"), (b"-\xc3\xa9", b"-e\xcc\x81")]
    return any(_same_name(root, prefix + one, prefix + other) for one, other in pairs)


def _same_name(root: int, one: bytes, other: bytes) -> bool:
    try:
        os.close(os.open(one, FILE_FLAGS, 0o600, dir_fd=root))
    except OSError as error:
        if error.errno in (errno.EILSEQ, errno.EINVAL):
            return False  # it does not take this name at all
        raise
    try:
        os.stat(other, dir_fd=root, follow_symlinks=False)
        return True
    except OSError:
        return False
    finally:
        os.unlink(one, dir_fd=root)


def _fold(path: bytes) -> str:
    """One text for all spellings that some folding file system takes for one name."""
    text = unicodedata.normalize("NFD", path.decode("utf-8", "surrogateescape"))
    text = unicodedata.normalize("NFC", text.casefold())
    # FAT drops dots and spaces at the end of a name.
    return "/".join(part.rstrip(". ") for part in text.split("/"))


# ---- names and links -------------------------------------------------------------------


def _split(path: bytes) -> tuple[bytes, bytes]:
    """Parent and last component, refusing a component that is no name.

    The parent is checked when its folder is opened for the first time, not again for each file.
    """
    parent, slash, name = path.rpartition(b"/")
    if name in (b"", b".", b"..") or b"\0" in name or (slash and not parent):
        raise _Refused("this is not a path that an archive may hold")
    return parent, name


def _climbs_out(path: bytes, target: bytes) -> bool:
    """Does a link lead above the target folder, all other components taken as folders?"""
    if target.startswith(b"/"):
        return True
    depth = path.count(b"/")
    for part in target.split(b"/"):
        if part == b"..":
            depth -= 1
            if depth < 0:
                return True
        elif part not in (b"", b"."):
            depth += 1
    return False


def _leaves_through_links(path: bytes, links: dict[bytes, bytes]) -> bool:
    """Does ``..`` after another link of this run lead above the target folder?

    With ``a/b/up -> ../..``, the link ``a/b/out -> up/../etc`` looks harmless and is not.
    Only a ``..`` that follows a name can do this: a link's own folder is a real folder.
    """
    parts = links[path].split(b"/")
    after_names = itertools.dropwhile(lambda part: part in (b"", b".", b".."), parts)
    if b".." not in after_names:
        return False
    todo = parts[::-1]
    at = path.split(b"/")[:-1]
    for _ in range(MAX_LINK_STEPS):
        if not todo:
            return False
        part = todo.pop()
        if part == b"..":
            if not at:
                return True
            at.pop()
        elif part not in (b"", b"."):
            at.append(part)
            onward = links.get(b"/".join(at))
            if onward is not None:
                at.pop()
                todo += onward.split(b"/")[::-1]
    return True  # too tangled to tell, so not made


# ---- system calls and their failures ---------------------------------------------------


class _Refused(Exception):
    """A reason of our own to turn an entry down; never leaves this module."""


_TROUBLE = (OSError, ValueError, OverflowError, _Refused)


def _failure(path: bytes, error: Exception) -> PQVaultError:
    """The error a caller sees, naming the entry."""
    shown = printable(path)
    if not isinstance(error, OSError):
        return PQVaultError(f"cannot extract {shown}: {error}")
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return TargetFull(f"cannot extract {shown}: no space is left in the target")
    if error.errno == errno.EEXIST:
        hint = "pass --force to replace it"
        return PQVaultError(f"cannot extract {shown}: it exists already", hint=hint)
    if error.errno in (errno.EISDIR, errno.ENOTEMPTY):
        hint = "move the folder away; folders are never deleted"
        return PQVaultError(f"cannot extract {shown}: a folder stands in its place", hint=hint)
    return PQVaultError(f"cannot extract {shown}: {error.strerror or error}")


def _unlink_quietly(dir_fd: int, name: str | bytes) -> None:
    try:
        os.unlink(name, dir_fd=dir_fd)
    except OSError:
        pass


# Python has no rename that refuses to replace. ctypes costs 1 µs a call and drops the GIL.
_RENAME_NOREPLACE = 1
_renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
if _renameat2 is not None:
    _renameat2.argtypes = (
        ctypes.c_int,
        ctypes.c_char_p,
        ctypes.c_int,
        ctypes.c_char_p,
        ctypes.c_uint,
    )


def _rename_new(dir_fd: int, old: bytes, new: bytes) -> None:
    """Rename within one folder; FileExistsError when ``new`` exists."""
    if _renameat2 is not None:
        if not _renameat2(dir_fd, old, dir_fd, new, _RENAME_NOREPLACE):
            return
        number = ctypes.get_errno()
        if number not in (errno.EINVAL, errno.ENOSYS):
            raise OSError(number, os.strerror(number))
    # NFS, some FUSE: look, then rename. A name that comes up in between is replaced, but even
    # then nothing is written through it.
    try:
        os.stat(new, dir_fd=dir_fd, follow_symlinks=False)
    except FileNotFoundError:
        os.rename(old, new, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
    else:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
