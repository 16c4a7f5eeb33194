"""LogRows: the rows of all write-ahead files of one part, column groups side by side."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import pyarrow as pa

from pqvault.archive.layout import part_file
from pqvault.errors import FormatError
from pqvault.format.wal import wal_name
from pqvault.logs.wal import Damage, End, WalReader
from pqvault.rootkey import RootKey
from pqvault.storage import LocalStorage

__all__ = ["LogRows"]

_AHEAD: Final = 8  # records
_Held = deque[tuple[int, pa.RecordBatch]]


@dataclass(slots=True)
class LogRows:
    """``keys``: root keys by group, the part's own under ``""``; of the groups, those at hand.

    :meth:`batches` gives what can be read now; called again, what came since. ``rows``: that were
    given; ``columns``: of each group, known from the first batch on.
    """

    storage: LocalStorage
    keys: dict[str, RootKey]
    rows: int = 0
    columns: dict[str, list[str]] = field(default_factory=dict)
    _readers: list[WalReader] = field(default_factory=list)
    _held: list[_Held] = field(default_factory=list)
    _schema: pa.Schema | None = None
    _skipped: int = 0

    @property
    def part(self) -> str:
        """The part id."""
        return self.keys[""].part

    @property
    def table(self) -> str:
        """The table that the rows become, known from the first batch on; "" when no log says so:
        those of before had one table an archive."""
        return self._readers[0].table if self._readers else ""

    @property
    def torn(self) -> int:
        """Bytes at the ends of the files in which no record opens."""
        return sum(reader.torn for reader in self._readers)

    @property
    def unfinished(self) -> bool:
        """Whether what is torn looks like writes that were cut off."""
        return all(reader.unfinished for reader in self._readers if reader.torn)

    @property
    def damaged(self) -> list[Damage]:
        """Records that do not open, with others behind them."""
        return [damage for reader in self._readers for damage in reader.damaged]

    @property
    def unmatched(self) -> int:
        """Rows that only some of the files have."""
        found: dict[int, int] = {}
        for held in self._held:
            found.update({sequence: len(batch) for sequence, batch in held})
        return self._skipped + sum(found.values())

    @property
    def end(self) -> End | None:
        """The closing record, when all files have the same."""
        ends = {reader.end for reader in self._readers}
        return ends.pop() if len(ends) == 1 else None

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Rows in the order in which they were logged. Raises FormatError, IntegrityError."""
        groups = sorted(self.keys)  # the main file, "", first
        names = [part_file(self.part, wal_name(group)) for group in groups]
        sources = []
        try:
            for name in names:
                sources.append(self.storage.open(name))
            if not self._readers:
                self._readers = [
                    WalReader(source, self.keys[group], group, name)
                    for source, group, name in zip(sources, groups, names, strict=True)
                ]
                self._held = [deque() for _ in groups]
            for reader, source in zip(self._readers, sources, strict=True):
                reader.source = source
            for batch in self._joined([reader.batches() for reader in self._readers]):
                self.rows += len(batch)
                yield batch
        finally:
            for source in sources:
                source.close()

    def _joined(
        self, streams: Sequence[Iterator[tuple[int, pa.RecordBatch]]]
    ) -> Iterator[pa.RecordBatch]:
        while True:
            for held, stream in zip(self._held, streams, strict=True):
                if not held and (item := next(stream, None)) is not None:
                    held.append(item)
            if not all(self._held):
                self._look_ahead(streams)
                return
            newest = max(held[0][0] for held in self._held)
            behind = [held for held in self._held if held[0][0] < newest]
            if behind:  # damage in another file took what belongs to these
                self._skip(behind)
                continue
            these = [held.popleft()[1] for held in self._held]
            yield self._side_by_side(these, f"record {newest} of the log in part {self.part}")

    def _skip(self, behind: Sequence[_Held]) -> None:
        least = min(held[0][0] for held in behind)
        gone = [held.popleft()[1] for held in behind if held[0][0] == least]
        self._skipped += len(gone[0])

    def _look_ahead(self, streams: Sequence[Iterator[tuple[int, pa.RecordBatch]]]) -> None:
        """What some files have more than others. A writer is ahead in one by a record or two,
        which are kept for the next call; where one was cut it may be a gigabyte."""
        for held, stream in zip(self._held, streams, strict=True):
            for item in stream:
                if len(held) < _AHEAD:
                    held.append(item)
                else:
                    self._skipped += len(item[1])

    def _side_by_side(self, batches: Sequence[pa.RecordBatch], where: str) -> pa.RecordBatch:
        if len({len(batch) for batch in batches}) != 1:
            raise FormatError(f"{where} has other rows in one column group than in another")
        for reader, batch in zip(self._readers, batches, strict=True):
            if reader.group:
                self.columns[reader.group] = batch.schema.names
        joined = batches[0]
        fields = [field for batch in batches for field in batch.schema]
        if len({field.name for field in fields}) != len(fields):
            raise FormatError(f"{where} has a column twice")
        if len(batches) > 1:
            columns = [column for batch in batches for column in batch.columns]
            joined = pa.RecordBatch.from_arrays(columns, schema=pa.schema(fields))
        if self._schema is not None and not joined.schema.equals(self._schema):
            raise FormatError(f"{where} has other columns than the records before it")
        self._schema = joined.schema
        return joined
