"""What several parts hold together: the rows of one catalog in their place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, TypeVar

import pyarrow as pa

from pqvault.archive.entryfile import EntryFile
from pqvault.archive.part import OpenPart
from pqvault.archive.repack import Places
from pqvault.archive.view import View
from pqvault.errors import IntegrityError, PQVaultError
from pqvault.format.catalog import entries_of, table_of
from pqvault.format.entries import Entry, Kind

__all__ = [
    "Row",
    "digest_in",
    "facts_of",
    "gone_from",
    "merged_table",
    "paired",
    "rows_of",
    "side_by_side",
    "view_of",
]

Row = tuple[int, Entry]  # index of its part
T = TypeVar("T")


def view_of(parts: Sequence[OpenPart]) -> View:
    """The view of some parts, which ends with an error where one is damaged."""

    def refuse(error: PQVaultError) -> None:
        raise error

    return View(parts, refuse)


def rows_of(view: View) -> Iterator[Row]:
    """What stands, with the index of its part."""
    for batch, where in view.batches():
        yield from zip(where, entries_of(batch), strict=True)


def gone_from(older: Sequence[OpenPart], group: Sequence[OpenPart]) -> Iterator[bytes]:
    """The paths of older parts that are not there any more after the group."""
    for path, one, other in side_by_side(view_of(older), view_of([*older, *group])):
        if one is not None and other is None:
            yield path


def side_by_side(one: View, other: View) -> Iterator[tuple[bytes, Entry | None, Entry | None]]:
    """The entries of two views, path by path; None where one has none."""
    for path, left, right in paired(rows_of(one), rows_of(other)):
        yield path, left and left[1], right and right[1]


def paired(
    one: Iterator[tuple[T, Entry]], other: Iterator[tuple[T, Entry]]
) -> Iterator[tuple[bytes, tuple[T, Entry] | None, tuple[T, Entry] | None]]:
    """What two lists that are sorted by path say of each path; None where one says nothing."""
    a, b = next(one, None), next(other, None)
    while a is not None or b is not None:
        path = min(found[1].path for found in (a, b) if found is not None)
        left = a if a is not None and a[1].path == path else None
        right = b if b is not None and b[1].path == path else None
        yield path, left, right
        a = next(one, None) if left is not None else a
        b = next(other, None) if right is not None else b


def facts_of(entry: Entry | None) -> object:
    """What two entries must have in common: all but where their content lies. Another name of a
    file may have become a file."""
    if entry is None:
        return None
    file = entry.kind in (Kind.FILE, Kind.HARDLINK)
    kind, link = (Kind.FILE, None) if file else (entry.kind, entry.link)
    return kind, link, entry.size, entry.mode, entry.mtime_ns, entry.digest, entry.table


def merged_table(
    group: Sequence[OpenPart], rows: Sequence[Row], gone: Sequence[bytes], places: Places
) -> pa.Table:
    """The rows of the new catalog: what stands, and a tombstone for what does not any more."""
    first_names = {entry.path: index for index, entry in rows if entry.kind == Kind.FILE}
    rest: tuple[Any, ...] = (int(Kind.TOMBSTONE), 0, 0, 0, None, None, [], None)
    made: list[tuple[Any, ...]] = [(path, *rest) for path in gone]
    for index, entry in rows:
        kind, link = entry.kind, entry.link
        # Another name is one only of the entry of its own part: else it is a file by now.
        if kind == Kind.HARDLINK and first_names.get(link or b"") != index:
            kind, link = Kind.FILE, None
        extents = places.extents(
            group[index].id, [(e.object, e.offset, e.length) for e in entry.extents]
        )
        facts = (int(kind), entry.size, entry.mode, entry.mtime_ns, link, entry.digest)
        made.append((entry.path, *facts, extents, entry.table))
    made.sort(key=lambda row: row[0])
    if any(a[0] >= b[0] for a, b in pairwise(made)):
        raise IntegrityError("a path is in the merged part twice")
    return table_of(made)


def digest_in(view: View, path: bytes) -> bytes:
    """Of a file that has none in its catalog: it changed while it was read."""
    found = view.find(path)
    if found is None:
        return b""
    return EntryFile(*found).digest()
