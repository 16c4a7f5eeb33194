"""LogView: read a log with a private key, parts that are still open included where asked for."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from pqvault.archive.archive import Archive
from pqvault.archive.tableentry import TableEntry
from pqvault.archive.tablerows import TableRows
from pqvault.arguments import Identities, to_identities
from pqvault.closing import Closing
from pqvault.errors import FormatError, NoKeyFits, NotFound, PQVaultError
from pqvault.logs.closing import TABLE, damage_of, rows_of
from pqvault.logs.openparts import FoundPart, find_parts
from pqvault.logs.rows import LogRows
from pqvault.logs.schema import TIME, TIME_TYPE
from pqvault.memory import Memory
from pqvault.policy import ANYBODY, Policy
from pqvault.rootkey import Keyring, keyring
from pqvault.storage import Storage, storage_at

__all__ = ["LogPartFacts", "LogView"]

_POLL: Final = 0.5  # seconds
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class LogPartFacts:
    """A part of a log. ``state``: ``committed``; ``complete``: over, but not committed yet;
    ``live``: being written on this host; ``open or cut``: nobody here writes it, and nobody can
    tell whether something is missing at its end.

    ``rows``: None when it cannot be read. ``size``: bytes as sealed. ``time``: Unix ms of its
    commit, or of when it began. ``torn``: bytes at the end that hold no record.
    """

    part: str
    state: str
    rows: int | None
    size: int
    time: int
    torn: int = 0


@dataclass(slots=True)
class _Open:
    """An open part that is being followed."""

    found: FoundPart
    rows: LogRows


@dataclass(slots=True)
class LogView(Closing):
    """``archive``: a folder. ``name``: of the log's table. What cannot be read is in
    :attr:`problems`, and the caller must not take silence for completeness.

    Raises NotFound, NoKeyFits when no key fits anything.
    """

    archive: str | os.PathLike[str]
    identities: Identities
    name: str = TABLE
    memory: Memory | None = None
    policy: Policy = ANYBODY
    problems: list[PQVaultError] = field(default_factory=list, init=False)
    _told: set[str] = field(default_factory=set, init=False)  # their messages
    _storage: Storage = field(init=False)
    _opened: Archive = field(init=False)
    _keyring: Keyring = field(init=False)
    _open: dict[str, _Open] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self._storage = storage_at(self.archive)
        self.identities = to_identities(self.identities)
        self._keyring = keyring(self.identities)
        self._opened = Archive(
            self._storage, self.identities, strict=False, memory=self.memory, policy=self.policy
        )

    # -- what there is -----------------------------------------------------------------------

    def _entries(self) -> list[TableEntry]:
        """The committed parts, the oldest first."""
        try:
            return self._opened.find_table(self.name)
        except NotFound:
            return []
        finally:
            # Only now: a catalog that is damaged further on is found to be so on the way.
            for problem in self._opened.problems:
                self._note(problem)

    def _note(self, problem: PQVaultError) -> None:
        if problem.message not in self._told:
            self._told.add(problem.message)
            self.problems.append(problem)

    def _found(self) -> Iterator[_Open]:
        """Open parts that some key opens, in the order they began."""
        committed = {part.id for part in self._opened.parts}
        for found in find_parts(self._storage):
            if found.id in committed:
                continue
            if found.id not in self._open:
                try:
                    self._open[found.id] = _Open(found, self._rows_of(found))
                except PQVaultError as error:
                    self._note(error)
                    continue
            yield self._open[found.id]

    def _rows_of(self, found: FoundPart) -> LogRows:
        keys, _ = found.open_keys(self._opened.id, self._keyring, partly=True)
        return rows_of(found.storage, keys)

    def parts(self) -> list[LogPartFacts]:
        """All parts of the log, the committed ones first. Reads every open one."""
        found = find_parts(self._storage)
        self._opened.refresh()  # in this order: a part that is committed meanwhile is listed once
        committed = {part.id for part in self._opened.parts}
        still_open: list[LogPartFacts] = []
        for part in found:
            if part.id not in committed and (one := self._facts_of(part)) is not None:
                still_open.append(one)
        self._opened.refresh()  # to read all of them takes long, and their writers go on
        listed = {facts.part for facts in still_open}
        entries = [entry for entry in self._entries() if entry.part.id not in listed]
        return [self._committed(entry) for entry in entries] + still_open

    def _committed(self, entry: TableEntry) -> LogPartFacts:
        rows, size = None, 0
        try:
            rows, size = entry.doc.rows, entry.size
        except PQVaultError as error:
            self._note(error)
        return LogPartFacts(entry.part.id, "committed", rows, size, entry.part.commit.created)

    def _facts_of(self, found: FoundPart) -> LogPartFacts | None:
        state: str = ""
        began = found.began or 0
        try:
            state = found.state()
            rows = self._rows_of(found)
            for _ in rows.batches():
                if rows.table not in ("", self.name):
                    return None
        except PQVaultError as error:
            if isinstance(error, NotFound) and found.is_gone:
                return None
            self._note(error)
            return LogPartFacts(found.id, state, None, found.size, began)
        self._note_damage(rows)
        if rows.end is not None and state == "open or cut":
            state = "complete"
        return LogPartFacts(found.id, state, rows.rows, found.size, began, rows.torn)

    # -- rows --------------------------------------------------------------------------------

    def rows(
        self,
        *,
        open_parts: bool = False,
        columns: Sequence[str] | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> Iterator[pa.Table]:
        """Rows in the order of the parts, then as they were logged.

        ``open_parts``: also those of parts that have no commit yet. ``since``, ``until`` (not
        included): of their time. Raises NotFound for a column that is not there, NoKeyFits for one
        that other keys open.
        """
        entries = self._entries()
        parts = list(chain.from_iterable(map(self._alone, entries)))
        asked = [TIME] if since is not None or until is not None else []
        _check_names(parts, [*asked, *(columns or ())])
        if asked:
            parts = [part for part in parts if self._has_times(part.schema)]
        tables = chain.from_iterable(map(self._read, parts))
        if open_parts:
            seen = {entry.part.id for entry in entries}
            tables = chain(tables, self._read_rest(seen, times=bool(asked)))
        since_us, until_us = _moment(since), _moment(until)
        for table in tables:
            if asked and not self._has_times(table.schema):
                continue
            if since_us is not None:
                table = table.filter(pc.greater_equal(table[TIME], since_us))
            if until_us is not None:
                table = table.filter(pc.less(table[TIME], until_us))
            if columns is not None:
                table = table.select([name for name in columns if name in table.schema.names])
            if len(table):
                yield table

    def _has_times(self, schema: pa.Schema) -> bool:
        if TIME in schema.names and schema.field(TIME).type == TIME_TYPE:
            return True
        self._note(
            FormatError(
                f"rows of {self.name!r} have no times in the column {TIME!r}, which no log writes:"
                " they are left out"
            )
        )
        return False

    def _alone(self, entry: TableEntry) -> list[TableRows]:
        """One committed part by itself, so that one that is bad, or has columns of other types,
        does not keep the others from being read; [] when it is bad."""
        try:
            return [TableRows([entry])]
        except PQVaultError as error:
            self._note(error)
            return []

    def _read(self, part: TableRows) -> Iterator[pa.Table]:
        try:
            yield from part.row_groups()
        except PQVaultError as error:
            self._note(error)

    def _read_committed(self, entry: TableEntry) -> Iterator[pa.Table]:
        return chain.from_iterable(map(self._read, self._alone(entry)))

    def _read_rest(self, seen: set[str], *, times: bool) -> Iterator[pa.Table]:
        """Rows of open parts, and of those that were committed while others were read: that may
        have taken an hour."""
        self._open.clear()
        yield from self._committed_since(seen)
        for part in self._found():
            for table in self._read_open(part):
                hidden = set(part.found.groups).difference(part.rows.keys)
                if times and hidden and TIME not in table.schema.names:
                    raise NoKeyFits("no identity opens the times of the rows of an open part")
                yield table
        yield from self._committed_since(seen)

    def _committed_since(self, seen: set[str]) -> Iterator[pa.Table]:
        """Rows of parts that are committed and not in ``seen``, without those that were given
        while the part was open."""
        self._opened.refresh()
        for entry in self._entries():
            if entry.part.id in seen:
                continue
            seen.add(entry.part.id)
            given = self._open.pop(entry.part.id, None)
            skipped = given.rows.rows if given is not None else 0
            yield from _skipping(self._read_committed(entry), skipped)

    def _read_open(self, part: _Open) -> Iterator[pa.Table]:
        try:
            for batch in part.rows.batches():
                if part.rows.table not in ("", self.name):
                    return  # another log's
                yield pa.Table.from_batches([batch])
        except NotFound:
            return  # committed or expired meanwhile: its files are gone
        except PQVaultError as error:
            self._note(error)
        else:
            self._note_damage(part.rows)

    def _note_damage(self, rows: LogRows) -> None:
        if (damage := damage_of(rows)) is not None:
            self._note(damage)

    def last(self, count: int) -> list[pa.Table]:
        """The last ``count`` rows, those of open parts included."""
        kept: list[pa.Table] = []
        rows = 0
        self._open.clear()
        for part in self._found():
            for table in self._read_open(part):
                kept.append(table)
                rows += len(table)
                while kept and rows - len(kept[0]) >= count:
                    rows -= len(kept.pop(0))
        older: list[pa.Table] = []
        self._opened.refresh()  # a part may have been committed since
        for entry in reversed(self._entries()):
            if rows >= count:
                break
            given = self._open.get(entry.part.id)
            if given is not None and given.rows.rows:
                continue
            tables = list(self._read_committed(entry))
            older[:0] = tables
            rows += sum(map(len, tables))
        kept = older + kept
        surplus = rows - count
        while surplus > 0 and kept:
            first = kept.pop(0)
            if len(first) > surplus:
                kept.insert(0, first.slice(surplus))
                break
            surplus -= len(first)
        return kept

    def follow(self, stop: Callable[[], bool] = lambda: False) -> Iterator[pa.Table]:
        """Rows as they come, from after what :meth:`last` gave, until ``stop()``."""
        seen = {entry.part.id for entry in self._entries()}
        while not stop():
            found = list(self._found())
            yield from self._committed_since(seen)  # before what began after it
            for part in found:
                if part.found.id in self._open:
                    yield from self._read_open(part)
            time.sleep(_POLL)

    def close(self) -> None:
        """Close the archive."""
        self._opened.close()


def _check_names(parts: Sequence[TableRows], names: Sequence[str]) -> None:
    """Raise NoKeyFits for a column that is hidden in any part, NotFound for one that none has."""
    for name in names:
        for part in parts:
            if name in part.hidden:
                raise part.no_key(name)
        if parts and not any(name in part.schema.names for part in parts):
            raise NotFound(
                f"{parts[-1].what} has no column {name!r}",
                hint=f"it has {', '.join(parts[-1].schema.names)}",
            )


def _moment(when: datetime | None) -> pa.Scalar | None:
    if when is None:
        return None
    # By subtraction, which the year 1 of a zone in the east does not overflow.
    past = (when if when.tzinfo else when.astimezone()) - _EPOCH
    micros = pa.scalar(past // timedelta(microseconds=1), pa.int64())
    return micros.cast(TIME_TYPE)


def _skipping(tables: Iterator[pa.Table], rows: int) -> Iterator[pa.Table]:
    for table in tables:
        left = table.slice(rows)
        rows = max(0, rows - len(table))
        if len(left):
            yield left
