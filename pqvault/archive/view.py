"""The view: what an archive of several parts holds. docs/format.md section 5.3."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence

import pyarrow as pa

from pqvault.archive.part import OpenPart
from pqvault.format.catalog import SCHEMA, Entry, Kind, check_ancestors

__all__ = ["View"]


class View:
    """Parts in their order, seen as one list of entries sorted by path. Nothing is kept in memory
    but one row group of each part."""

    def __init__(self, parts: Sequence[OpenPart]) -> None:
        self.parts = list(parts)

    def find(self, path: bytes) -> tuple[OpenPart, Entry] | None:
        """What stands under one path, with the part that holds it."""
        found = self._newest(path)
        if found is None or found[1].kind == Kind.TOMBSTONE:
            return None
        slash = path.find(b"/")
        while slash >= 0:
            above = self._newest(path[:slash])
            if above is not None and above[1].kind != Kind.FOLDER:
                return None
            slash = path.find(b"/", slash + 1)
        return found

    def _newest(self, path: bytes) -> tuple[OpenPart, Entry] | None:
        for part in reversed(self.parts):
            entry = part.find(path)
            if entry is not None:
                return part, entry
        return None

    def batches(self) -> Iterator[tuple[pa.RecordBatch, list[int]]]:
        """Batches sorted by path, and for each row the index of its part in :attr:`parts`."""
        if len(self.parts) == 1:
            for batch in self._checked(0):
                if Kind.TOMBSTONE in batch.column(1).to_pylist():
                    keep = [i for i, k in enumerate(batch.column(1)) if k != Kind.TOMBSTONE]
                    batch = batch.take(pa.array(keep, pa.int64()))
                yield batch, [0] * len(batch)
        else:
            yield from self._merged()

    def _checked(self, index: int) -> Iterator[pa.RecordBatch]:
        part = self.parts[index]
        return check_ancestors(part.batches(), f"the catalog of part {part.id}")

    def _merged(self) -> Iterator[tuple[pa.RecordBatch, list[int]]]:
        cursors = [c for i in range(len(self.parts)) if (c := _Cursor(i, self._checked(i))).more()]
        blockers: list[bytes] = []
        while cursors:
            # Up to the first end of a batch, every part has said all that it has to say.
            limit = min(cursor.paths[-1] for cursor in cursors)
            rows: list[tuple[bytes, int, int]] = []
            batches = []
            base = 0
            for cursor in cursors:
                batch, paths = cursor.take(limit)
                rows += [(p, -cursor.part, base + i) for i, p in enumerate(paths)]
                batches.append(batch)
                base += len(paths)
            rows.sort()  # by path, the newest part first
            table = pa.Table.from_batches(batches, SCHEMA)
            kept, parts = _standing(rows, table.column(1).to_pylist(), blockers)
            if kept:
                chosen = table.take(pa.array(kept, pa.int64())).combine_chunks()
                yield chosen.to_batches()[0], parts
            cursors = [cursor for cursor in cursors if cursor.more()]


def _standing(
    rows: list[tuple[bytes, int, int]], kinds: list[int], blockers: list[bytes]
) -> tuple[list[int], list[int]]:
    """The rows that stand, with their parts. ``blockers``: the non-folders around the current
    path, kept from call to call; their ranges nest, so only the innermost can hide it."""
    kept, parts = [], []
    last = None
    for path, negative_part, row in rows:
        if path == last:
            continue
        last = path
        while blockers and path >= blockers[-1] + b"0":  # "0" follows "/"
            blockers.pop()
        if blockers and path.startswith(blockers[-1] + b"/"):
            continue
        kind = kinds[row]
        if kind != Kind.FOLDER:
            blockers.append(path)
        if kind != Kind.TOMBSTONE:
            kept.append(row)
            parts.append(-negative_part)
    return kept, parts


class _Cursor:
    """Where one part's iteration stands."""

    def __init__(self, part: int, batches: Iterator[pa.RecordBatch]) -> None:
        self.part = part
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
