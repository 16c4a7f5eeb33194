"""The view: what an archive of several parts holds. docs/format.md section 5.3."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

import pyarrow as pa

from pqvault.archive.part import OpenPart
from pqvault.errors import FormatError, PolicyRefused, PQVaultError
from pqvault.format.catalog import SCHEMA, check_ancestors
from pqvault.format.entries import Entry, Kind
from pqvault.format.table import TableDoc
from pqvault.lazy import LazyModule
from pqvault.names import printable

__all__ = ["View"]

pc = LazyModule("pyarrow.compute")


class View:
    """Parts in their order, seen as one list of entries sorted by path. Nothing is kept in memory
    but one row group of each part. ``on_damage`` is told of a catalog that is found damaged on the
    way, and may raise; otherwise that part ends there.

    An unsigned part that hides or removes what a signed part holds is refused (format 9.4).
    """

    def __init__(
        self, parts: Sequence[OpenPart], on_damage: Callable[[PQVaultError], object]
    ) -> None:
        self.parts = list(parts)
        self._on_damage = on_damage
        self._signed = [part.signed for part in parts]
        self._mixed = len(set(self._signed)) > 1

    def find(self, path: bytes) -> tuple[OpenPart, Entry] | None:
        """What stands under one path, with the part that holds it."""
        newest = self._find_protected(path) if self._mixed else self._find_newest(path)
        if newest is None:
            return None
        index, entry = newest
        if entry.kind == Kind.TOMBSTONE:
            return None
        slash = path.find(b"/")
        while slash >= 0:
            above = path[:slash]
            if any(self._ends(part, above) for part in self.parts[index + 1 :]):
                return None
            found = self.parts[index].find(above)
            if found is None or found.kind != Kind.FOLDER:
                where = f"the catalog of part {self.parts[index].id}"
                raise FormatError(f"{where} has {printable(path)}, but not the folder it is in")
            slash = path.find(b"/", slash + 1)
        return self.parts[index], entry

    def find_table(self, path: bytes) -> list[tuple[OpenPart, Entry]]:
        """The entries whose rows are a table, the oldest first; [] when there is no such table.

        The one that stands, and while the first of them is in mode `append` also the one before
        it of that path, unless it is hidden or no table (format 10.4).
        """
        newest = self.find(path)
        if newest is None or newest[1].kind != Kind.TABLE:
            return []
        said = self._said(path)
        counting = self._standing_of(path, said) if self._mixed else {i for i, _ in said}
        rows = [(i, entry) for i, entry in said if i in counting]
        found: list[tuple[OpenPart, Entry]] = []
        for index, entry in rows:
            if entry.kind != Kind.TABLE or self._is_hidden(path, index):
                break
            what = f"table {printable(path)} of part {self.parts[index].id}"
            try:
                mode = TableDoc.parse(entry.table or b"", what).mode
            except PQVaultError as error:
                self._on_damage(error)
                continue
            found.append((self.parts[index], entry))
            if mode != "append":
                break
        return found[::-1]

    def _is_hidden(self, path: bytes, index: int) -> bool:
        """Whether a part after ``index`` says of a folder above ``path`` that it is none."""
        slash = path.find(b"/")
        while slash >= 0:
            if any(self._ends(part, path[:slash]) for part in self.parts[index + 1 :]):
                return True
            slash = path.find(b"/", slash + 1)
        return False

    def _find_newest(self, path: bytes) -> tuple[int, Entry] | None:
        for index in reversed(range(len(self.parts))):
            entry = self._find_in(self.parts[index], path)
            if entry is not None:
                return index, entry
        return None

    def _find_protected(self, path: bytes) -> tuple[int, Entry] | None:
        """What the newest part says of a path, once nothing of it or above it is hidden."""
        above = path
        while above := above.rpartition(b"/")[0]:
            self._standing_of(above, self._said(above))
        said = self._said(path)
        kept = self._standing_of(path, said)
        return next(((i, entry) for i, entry in said if i in kept), None)

    def _said(self, path: bytes) -> list[tuple[int, Entry]]:
        """What each part says of a path, the newest first."""
        parts = reversed(list(enumerate(self.parts)))
        return [(i, entry) for i, part in parts if (entry := self._find_in(part, path)) is not None]

    def _standing_of(self, path: bytes, said: list[tuple[int, Entry]]) -> set[int]:
        return self._protected(path, [(i, entry.kind == Kind.FOLDER) for i, entry in said])

    def _protected(self, path: bytes, said: list[tuple[int, bool]]) -> set[int]:
        """The parts, of those that say something of a path, that count: (index, folder or not).

        Where a signed part has said something, a later unsigned one may only say that a folder
        is a folder, and then the signed one stands. Raises PolicyRefused (format 9.4).
        """
        counting = set()
        for index, folder in said:
            before = [f for i, f in said if i < index and self._signed[i]]
            if self._signed[index] or not before:
                counting.add(index)
            elif not folder or not all(before):
                raise PolicyRefused(
                    f"{printable(path)} is hidden by part {self.parts[index].id}, which is not"
                    " signed, and a signed part holds it",
                    hint="find out who added that part",
                )
        return counting

    def _find_in(self, part: OpenPart, path: bytes) -> Entry | None:
        """What one part says of a path; nothing where its catalog is damaged, which is told."""
        try:
            return part.find(path)
        except PQVaultError as error:
            self._on_damage(error)
            return None

    def _ends(self, part: OpenPart, path: bytes) -> bool:
        """Whether a part says of a path that it is no folder, which ends what older parts have
        below it."""
        entry = self._find_in(part, path)
        return entry is not None and entry.kind != Kind.FOLDER

    def batches(
        self, below: bytes = b"", start: bytes = b""
    ) -> Iterator[tuple[pa.RecordBatch, list[int]]]:
        """Batches sorted by path, and for each row the index of its part in :attr:`parts`.

        ``below``: only that path and what is below it; ``start``: nothing before this path, which
        is below it. Row groups that hold nothing of that are not read.
        """
        if below:
            start = max(start, below)
        blockers = [b for path in _around(start) if (b := self._blocker(path)) is not None]
        if len(self.parts) == 1:
            for batch in self._checked(0, below, start):
                kinds = batch.column(1).to_pylist()
                if Kind.TOMBSTONE in kinds:
                    keep = [i for i, kind in enumerate(kinds) if kind != Kind.TOMBSTONE]
                    batch = batch.take(pa.array(keep, pa.int64()))
                if len(batch):
                    yield batch, [0] * len(batch)
        else:
            yield from self._merged(below, start, blockers)

    def children(self, folder: bytes) -> Iterator[pa.RecordBatch]:
        """What is in a folder and not below its folders; a large one of those is passed over."""
        prefix = folder + b"/" if folder else b""
        start = b""
        while True:
            last = b""
            for number, (batch, _) in enumerate(self.batches(folder, start)):
                paths = batch.column(0)
                deep = pc.count_substring(paths, pattern="/")
                inside = pc.and_(
                    pc.equal(deep, prefix.count(b"/")), pc.not_equal(paths, pa.scalar(folder))
                )
                yield batch.filter(inside)
                last = paths[len(paths) - 1].as_py()
                if number and b"/" in last[len(prefix) :]:
                    break  # a whole batch later still below the same folder, most likely
            else:
                return
            # "0" follows "/": the first path that is not below that folder.
            start = prefix + last[len(prefix) :].partition(b"/")[0] + b"0"

    def _blocker(self, path: bytes) -> tuple[bytes, int] | None:
        """The last part that says of a path that it is no folder."""
        if self._mixed:
            self._standing_of(path, self._said(path))
        for index in reversed(range(len(self.parts))):
            if self._ends(self.parts[index], path):
                return path, index
        return None

    def _checked(self, index: int, below: bytes, start: bytes) -> Iterator[pa.RecordBatch]:
        part = self.parts[index]
        try:
            what = f"the catalog of part {part.id}"
            if not start:
                yield from check_ancestors(part.batches(), what)
                return
            # What is around the first row was passed over, so it is looked up.
            around = [path for path in _around(start) if _is_folder(part.find(path))]
            rows = (_between(batch, start, below) for batch in part.batches(start, _end(below)))
            for batch in check_ancestors((b for b in rows if len(b)), what, around):
                inside = _inside(batch, below)
                if len(inside):
                    yield inside
        except PQVaultError as error:
            # Found only now, after the part was opened: it costs this part, not the others.
            self._on_damage(error)

    def _merged(
        self, below: bytes, start: bytes, blockers: list[tuple[bytes, int]]
    ) -> Iterator[tuple[pa.RecordBatch, list[int]]]:
        cursors = self._cursors(below, start)
        while cursors:
            # Those whose first row may lie before the end of all that is read must be read too.
            while True:
                loaded = [cursor for cursor in cursors if cursor.paths]
                limit = min((cursor.paths[-1] for cursor in loaded), default=None)
                late = [c for c in cursors if not c.paths and (limit is None or c.least <= limit)]
                if not late:
                    break
                first = min(late, key=lambda cursor: cursor.least)
                if not first.more():
                    cursors.remove(first)
                    if not cursors:
                        return
            assert limit is not None
            # Up to the first end of a batch, every part has said all that it has to say.
            rows: list[tuple[bytes, int, int]] = []
            batches = []
            base = 0
            for cursor in loaded:
                batch, paths = cursor.take(limit)
                rows += [(p, -cursor.part, base + i) for i, p in enumerate(paths)]
                batches.append(batch)
                base += len(paths)
            rows.sort()  # by path, the newest part first
            table = pa.Table.from_batches(batches, SCHEMA)
            kinds = table.column(1).to_pylist()
            if self._mixed:
                rows = list(self._counting(rows, kinds))
            kept, parts = _standing(rows, kinds, blockers)
            if kept:
                chosen = table.take(pa.array(kept, pa.int64())).combine_chunks()
                yield chosen.to_batches()[0], parts
            for cursor in loaded:
                if not cursor.paths and not cursor.more():
                    cursors.remove(cursor)

    def _cursors(self, below: bytes, start: bytes) -> list[_Cursor]:
        """One for each part that may have rows there. Nothing but statistics was read of them."""
        found = []
        for index, part in enumerate(self.parts):
            try:
                least = part.catalog.least(start)
            except PQVaultError as error:
                self._on_damage(error)
                continue
            end = _end(below)
            if least is not None and (end is None or least < end):
                found.append(_Cursor(index, max(least, start), self._checked(index, below, start)))
        return found

    def _counting(
        self, rows: list[tuple[bytes, int, int]], kinds: list[int]
    ) -> Iterator[tuple[bytes, int, int]]:
        for path, group in groupby(rows, key=lambda row: row[0]):
            said = list(group)
            counting = self._protected(path, [(-p, kinds[r] == Kind.FOLDER) for _, p, r in said])
            yield from (row for row in said if -row[1] in counting)


def _standing(
    rows: list[tuple[bytes, int, int]], kinds: list[int], blockers: list[tuple[bytes, int]]
) -> tuple[list[int], list[int]]:
    """The rows that stand, with their parts. ``blockers``: paths around the current one of which
    some part says that they are no folder, with the last such part; kept from call to call."""
    kept, parts = [], []
    at, count = 0, len(rows)
    while at < count:
        path, negative_part, row = rows[at]
        newest_end = -1  # the last part that says that this path is no folder
        while at < count and rows[at][0] == path:
            if newest_end < 0 and kinds[rows[at][2]] != Kind.FOLDER:
                newest_end = -rows[at][1]
            at += 1
        while blockers and path >= blockers[-1][0] + b"0":  # "0" follows "/"
            blockers.pop()
        part = -negative_part
        hidden = any(part < end and path.startswith(above + b"/") for above, end in blockers)
        if newest_end >= 0:
            blockers.append((path, newest_end))
        if not hidden and kinds[row] != Kind.TOMBSTONE:
            kept.append(row)
            parts.append(part)
    return kept, parts


def _around(path: bytes) -> list[bytes]:
    """What comes before a path and may have something below it that comes after, outermost first.

    The folders that it is in, and names that it goes on from with a byte below "/": ``a`` comes
    before ``a-b``, and ``a/x`` after it.
    """
    return [path[:at] for at, byte in enumerate(path) if at and byte <= 0x2F]


def _end(below: bytes) -> bytes | None:
    """What comes after all that is below a path: "0" follows "/"."""
    return below + b"0" if below else None


def _is_folder(entry: Entry | None) -> bool:
    return entry is not None and entry.kind == Kind.FOLDER


def _between(batch: pa.RecordBatch, start: bytes, below: bytes) -> pa.RecordBatch:
    """The rows from ``start`` on, up to the last below ``below``."""
    paths = batch.column(0)

    def row_of(path: bytes) -> int:
        return bisect_left(range(len(paths)), path, key=lambda at: paths[at].as_py())

    first = row_of(start)
    end = _end(below)
    return batch.slice(first, (len(batch) if end is None else row_of(end)) - first)


def _inside(batch: pa.RecordBatch, below: bytes) -> pa.RecordBatch:
    """Without names that only begin alike (``a-b`` when it is ``a`` that is asked for)."""
    if not below:
        return batch
    paths = batch.column(0)
    here = pc.equal(paths, pa.scalar(below))
    return batch.filter(pc.or_(here, pc.starts_with(paths, pattern=below + b"/")))


class _Cursor:
    """Where one part's iteration stands. ``least``: no row that is yet to be loaded is before."""

    def __init__(self, part: int, least: bytes, batches: Iterator[pa.RecordBatch]) -> None:
        self.part = part
        self.least = least
        self.paths: list[bytes] = []
        self._batch: pa.RecordBatch | None = None
        self._batches = batches

    def more(self) -> bool:
        """Whether there are rows left; loads the next batch when the current one is used up."""
        if not self.paths:
            self._batch = next(self._batches, None)
            if self._batch is None:
                return False
            self.paths = self._batch.column(0).to_pylist()
        return True

    def take(self, limit: bytes) -> tuple[pa.RecordBatch, list[bytes]]:
        """Cut off the rows up to ``limit``."""
        count = bisect_right(self.paths, limit)
        batch, paths = self._batch.slice(0, count), self.paths[:count]  # type: ignore[union-attr]
        self._batch, self.paths = self._batch.slice(count), self.paths[count:]  # type: ignore[union-attr]
        return batch, paths
