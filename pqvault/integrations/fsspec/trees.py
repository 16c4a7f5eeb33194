"""What stands behind the file system: the files of an archive, or the one of a sealed stream."""

from __future__ import annotations

import os
import posixpath
import weakref
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, Final, Protocol

from pqvault.archive.archive import Archive
from pqvault.archive.entryfile import EntryFile
from pqvault.errors import NotFound, UsageError
from pqvault.format.entries import Entry, Kind
from pqvault.integrations.fsspec.files import IsFolder, IsNoFolder, MissingFile, Window
from pqvault.names import printable
from pqvault.sealed import RangeFile, SealedReader

__all__ = ["ArchiveTree", "Info", "NewTree", "StreamTree", "Tree", "folder_info"]

Info = dict[str, Any]

_FOLDERS_KEPT: Final = 64  # listings
_LINKS: Final = 40  # followed one after the other, as Linux does


class Tree(Protocol):
    """Paths are text with ``/`` between components; "" is the root."""

    def info(self, path: str) -> Info:
        """One path. Raises MissingFile."""

    def children(self, path: str) -> list[Info]:
        """What is in a folder, sorted. Raises MissingFile."""

    def below(self, path: str) -> Iterator[Info]:
        """Everything below a folder, sorted."""

    def open(self, path: str) -> RangeFile:
        """A file of content. Raises MissingFile."""

    def key(self, path: str) -> str:
        """What changes when the content under a path does."""

    def check_new(self, path: str) -> None:
        """Raises IsFolder, IsNoFolder where a file written to a path would hide others."""


class ArchiveTree:
    """The entries of an archive."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._folders: OrderedDict[str, list[Info]] = OrderedDict()

    def info(self, path: str) -> Info:
        """One entry; of a symbolic link, what it leads to."""
        if not path:
            return folder_info("")
        return self._info(path, self._find(path))

    def _info(self, path: str, entry: Entry) -> Info:
        if entry.kind == Kind.SYMLINK:
            return self._link_info(path, entry.link or b"")
        return _info(path, entry.kind, entry.size, entry.mode, entry.mtime_ns, entry.digest)

    def _link_info(self, path: str, link: bytes) -> Info:
        try:
            entry = self._find(path)
        except MissingFile:  # it leads nowhere, or out of the archive
            return _bare_link(path, link)
        return self._info(path, entry)

    def _listed_link(self, path: str, link: bytes) -> Info:
        """One that leads to a folder is listed as a link, so that who walks does not go round in
        circles; asked for by its name it is that folder."""
        info = self._link_info(path, link)
        return _bare_link(path, link) if info["type"] == "directory" else info

    def _find(self, path: str) -> Entry:
        return self._located(path)[1]

    def _located(self, path: str) -> tuple[Any, Entry]:
        """The entry that a path leads to, with its part; links are followed, also in the middle."""
        at = path
        for _ in range(_LINKS):
            try:
                part, entry = self._archive.find(at)
            except NotFound as error:
                behind = self._behind(at)
                if behind is None:
                    raise MissingFile(error.message, hint=error.hint) from None
                at = behind
                continue
            if entry.kind != Kind.SYMLINK:
                return part, entry
            onward = _onward(at, entry)
            if onward is None:
                break
            at = onward
        raise MissingFile(f"{printable(os.fsencode(path))} is a link that leads to no entry")

    def _behind(self, path: str) -> str | None:
        """The same path with the first link in it followed; None when no folder of it is one."""
        end = path.find("/")
        while end >= 0:
            try:
                entry = self._archive.find(path[:end])[1]
            except NotFound:
                return None
            if entry.kind == Kind.SYMLINK:
                onward = _onward(path[:end], entry)
                return None if onward is None else posixpath.normpath(onward + path[end:])
            end = path.find("/", end + 1)
        return None

    def children(self, path: str) -> list[Info]:
        """Sorted by name."""
        found = self._folders.get(path)
        if found is None:
            found = list(self._rows(path, direct=True))
            if not found and path:
                info = self.info(path)  # raises for what is not there
                found = [info]
                if info["type"] == "directory":
                    found = list(self._linked(path, direct=True))
            self._folders[path] = found
            if len(self._folders) > _FOLDERS_KEPT:
                self._folders.popitem(last=False)
        return [dict(info) for info in found]

    def below(self, path: str) -> Iterator[Info]:
        """Sorted by path, folders before what is in them."""
        empty = True
        for info in self._rows(path, direct=False):
            empty = False
            yield info
        if empty and path:
            yield from self._linked(path, direct=False)

    def _linked(self, path: str, *, direct: bool) -> Iterator[Info]:
        """What is in a folder that a link leads to, by the names that it has by way of the link."""
        try:
            real = os.fsdecode(self._find(path).path)
        except MissingFile:
            return
        if real != path:
            for info in self._rows(real, direct=direct):
                yield info | {"name": path + info["name"][len(real) :]}

    def _rows(self, path: str, *, direct: bool) -> Iterator[Info]:
        for batch in self._archive.batches(path, direct=direct):
            columns = [batch.column(n).to_pylist() for n in range(7)]
            for name, kind, size, mode, mtime_ns, link, digest in zip(*columns, strict=True):
                shown = os.fsdecode(name)
                if shown == path:
                    continue  # the folder itself
                if kind == Kind.SYMLINK:
                    yield self._listed_link(shown, link)
                else:
                    yield _info(shown, kind, size, mode, mtime_ns, digest)

    def open(self, path: str) -> RangeFile:
        """The content of a file."""
        part, entry = self._located(path)
        if entry.kind == Kind.FOLDER:
            raise IsFolder(f"{printable(entry.path)} is a folder", hint="name a file in it")
        if entry.kind == Kind.TABLE and entry.digest is None:
            raise UsageError(
                f"{printable(entry.path)} is a table, kept as rows and not as a file",
                hint="`pqvault table export` writes it as Parquet, JSON lines or CSV",
            )
        return EntryFile(part, entry)

    def key(self, path: str) -> str:
        """The part and the digest of what stands there."""
        if not path:
            return " ".join(part.id for part in self._archive.parts)
        part, entry = self._located(path)
        return f"{part.id} {printable(entry.path)} {(entry.digest or b'').hex()}"

    def check_new(self, path: str) -> None:
        """A file hides for good what is below its name, and what is below a file hides that."""
        at = path
        while at:
            try:
                kind = self._archive.find(at)[1].kind
            except NotFound:
                at = at.rpartition("/")[0]
                continue
            shown = printable(os.fsencode(at))
            if at == path and kind == Kind.FOLDER:
                raise IsFolder(
                    f"{shown} is a folder, and a file of that name would hide all that is in it",
                    hint="name a file in it, or another name",
                )
            if at != path and kind != Kind.FOLDER:
                raise IsNoFolder(
                    f"{shown} is no folder, and a file below it would hide it",
                    hint="write below a folder, or below another name",
                )
            return


def _onward(at: str, link: Entry) -> str | None:
    """Where a link at ``at`` leads; None when that is out of the archive."""
    target = posixpath.join(posixpath.dirname(at), os.fsdecode(link.link or b""))
    onward = posixpath.normpath(target)
    return None if onward == ".." or onward.startswith(("../", "/")) else onward


def _bare_link(path: str, link: bytes) -> Info:
    return {"name": path, "type": "other", "size": 0, "destination": os.fsdecode(link)}


def folder_info(name: str) -> Info:
    """A folder of which nothing more is known."""
    return {"name": name, "type": "directory", "size": 0}


def _info(name: str, kind: int, size: int, mode: int, mtime_ns: int, digest: bytes | None) -> Info:
    if kind == Kind.FOLDER:
        return folder_info(name) | {"mode": mode, "mtime": mtime_ns / 1e9}
    if kind == Kind.TABLE and digest is None:  # rows, and no file that they came from
        return {"name": name, "type": "other", "size": 0}
    info = {"name": name, "type": "file", "size": size, "mode": mode, "mtime": mtime_ns / 1e9}
    return info | {"digest": digest.hex()} if digest else info


class NewTree:
    """A place where nothing is yet: whoever writes may look first whether something is there."""

    def __init__(self, place: str) -> None:
        self._place = place

    def _missing(self) -> MissingFile:
        return MissingFile(
            f"there is nothing at {self._place} yet", hint="what is written first makes it"
        )

    def info(self, path: str) -> Info:
        """The root alone."""
        if path:
            raise self._missing()
        return folder_info("")

    def children(self, path: str) -> list[Info]:
        """Nothing."""
        self.info(path)
        return []

    def below(self, path: str) -> Iterator[Info]:
        """Nothing."""
        return iter(())

    def open(self, path: str) -> RangeFile:
        """Nothing can be read."""
        raise self._missing()

    def key(self, path: str) -> str:
        """Another one than that of anything written."""
        self.info(path)
        return ""

    def check_new(self, path: str) -> None:
        """Nothing is hidden."""


class StreamTree:
    """A sealed stream: one file, under its own path, its name, and its name without ``.pqv``."""

    def __init__(self, reader: SealedReader, place: str) -> None:
        self._reader = reader
        weakref.finalize(self, reader.close)
        self._place = place
        last = place.rstrip("/").rpartition("/")[2]
        self.name = last.removesuffix(".pqv") or last
        self._names = {place.strip("/"), last, self.name}

    def _info(self, name: str) -> Info:
        return {"name": name, "type": "file", "size": self._reader.size}

    def info(self, path: str) -> Info:
        """The file, or the folder that it is in."""
        if not path:
            return folder_info("")
        if path not in self._names:
            raise MissingFile(
                f"{printable(os.fsencode(path))} is not in {self._place}, which is a sealed stream",
                hint=f"its one file is called {self.name}",
            )
        return self._info(path)

    def children(self, path: str) -> list[Info]:
        """The one file."""
        return [self.info(path) if path else self._info(self.name)]

    def below(self, path: str) -> Iterator[Info]:
        """The one file."""
        return iter(self.children("") if not path else [])

    def open(self, path: str) -> RangeFile:
        """Its content, also under the empty path."""
        if path:
            self.info(path)
        return Window(self._reader, path or self._place, self)

    def key(self, path: str) -> str:
        """A stream has no digest of its own: its size and end."""
        return f"{self._place} {self._reader.size} {self._reader.table.sealed[-1]}"

    def check_new(self, path: str) -> None:
        """Nothing is hidden."""
