"""What changed between two states of an archive, and every version of one path."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from pqvault.archive.archive import Archive
from pqvault.archive.merged import paired
from pqvault.archive.part import OpenPart
from pqvault.format.entries import Entry, Kind, above

__all__ = ["Change", "Difference", "Version", "differences", "versions"]

Change = Literal["added", "removed", "modified", "metadata", "type"]
Located = tuple[OpenPart, Entry]
_FILES = {Kind.FILE, Kind.HARDLINK}


@dataclass(frozen=True, slots=True)
class Difference:
    """One path that is not the same. ``before``, ``after``: None where it is not there.

    ``modified``: its content, or where a link leads; ``metadata``: mode or time alone.
    """

    path: bytes
    change: Change
    before: Entry | None
    after: Entry | None


@dataclass(frozen=True, slots=True)
class Version:
    """What one part says of a path. ``created``: of the part, Unix time in ms. ``entry``: None
    where it ends there: it was removed, or what it is below of is no folder any more."""

    part: str
    created: int
    entry: Entry | None


def differences(old: Archive, new: Archive) -> Iterator[Difference]:
    """What makes ``new`` of ``old``, in order of path. Reads catalogs, no content."""
    for path, before, after in paired(old.located(), new.located()):
        change: Change | None = "added" if before is None else "removed"
        if before is not None and after is not None:
            change = _change(before, after)
        if change is not None:
            yield Difference(path, change, before and before[1], after and after[1])


def _change(before: Located, after: Located) -> Change | None:
    (old_part, old), (new_part, new) = before, after
    if old_part.id == new_part.id and old == new:
        return None
    # Another name of a file is a file to who compares content.
    if old.kind != new.kind and not {old.kind, new.kind} <= _FILES:
        return "type"
    if _content(before) != _content(after):
        return "modified"
    same = (old.mode, old.mtime_ns) == (new.mode, new.mtime_ns) or new.kind == Kind.SYMLINK
    return None if same else "metadata"


def _content(located: Located) -> object:
    """What is equal just when the content is, as far as a catalog knows it."""
    part, entry = located
    if entry.kind == Kind.SYMLINK:
        return entry.link
    if entry.kind == Kind.TABLE:
        return part.id  # each part writes tables with keys of its own
    if entry.kind not in _FILES:
        return None
    # A file that changed while it was read has no digest: nobody knows what it is equal to.
    known = (entry.size, part.commit.digest, entry.digest)
    return known if entry.digest is not None else (part.id, entry.path)


def versions(archive: Archive, path: bytes) -> Iterator[Version]:
    """All that the parts of an archive say of one path, the oldest first."""
    there = False
    for part in archive.parts:
        entry = part.find(path)
        created = part.commit.created
        if entry is not None and entry.kind != Kind.TOMBSTONE:
            there = True
            yield Version(part.id, created, entry)
        elif there and (entry is not None or any(_ends(part, name) for name in above(path))):
            there = False
            yield Version(part.id, created, None)


def _ends(part: OpenPart, path: bytes) -> bool:
    entry = part.find(path)
    return entry is not None and entry.kind != Kind.FOLDER
