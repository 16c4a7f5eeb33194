"""TableScanner: a scan over several files for each part, side by side, a row group at a time.

Not Arrow's own scan: that unpacks row groups whole, whatever they hold, knows nothing of columns
that are in files of their own, and leaves threads with a Python file where an archive is not on a
local disk. A filter is asked of the statistics of every file first, then of the columns that it
names; the other columns of a row group are read only where a row is left.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from itertools import chain, cycle, islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pds

from pqvault.archive.tableentry import TableEntry
from pqvault.archive.tablerows import PartRows, TableRows, shaped
from pqvault.errors import NotFound, UsageError
from pqvault.tablefile import trouble
from pqvault.tablefile.schemas import first_line
from pqvault.tablefile.views import without_views

__all__ = ["TableScanner", "columns_of"]

_AT_ONCE = 3  # row groups that are read: each is for several threads where it has several columns
_SMALL = 2 * 1024 * 1024  # bytes of columns, about, that are read before threads have begun
# What may be true of NaN, in an expression as Arrow writes it; comparisons but `!=` never are.
_MATCHES_NAN = re.compile(r"!=|nan_is_null=true|\b(?!is_valid\(|is_null\()\w+\(")
BATCH_ROWS = 128 * 1024  # of a batch that is given out, as pyarrow's own scanners do


def columns_of(rows: TableRows, columns: Any, filter: Any) -> tuple[list[str], list[str]]:
    """The columns that a projection and that a filter need.

    Raises NoKeyFits for one that is hidden, NotFound for one that is not there.
    """
    if columns is None:
        chosen = list(rows.schema.names)
    elif isinstance(columns, Mapping):
        named = {n for expression in columns.values() for n in _named(rows, expression)}
        chosen = [name for name in rows.schema.names if name in named]
    else:
        rows.check_names(columns)
        chosen = list(columns)
    wanted = _named(rows, filter) if filter is not None else []
    return list(dict.fromkeys(chosen)), wanted


def _named(rows: TableRows, expression: Any) -> list[str]:
    """The columns that an expression names, which pyarrow does not tell: without one of them
    it does not fit the rest."""
    by_place = "FieldPath(" in _shown(expression)  # among the columns that are seen
    whole = without_views(rows.schema if by_place else rows.whole).empty_table()
    more = _no_name_of(whole.schema)  # because a table of no columns is none
    whole = whole.append_column(more, pa.array([], pa.null()))
    try:
        _bind(whole, expression)
    except (pa.ArrowException, KeyError) as error:
        sentence = f"{rows.what}: {first_line(error)}"
        raise (NotFound if "No match for FieldRef" in sentence else UsageError)(sentence) from None
    if by_place:  # all have to be there, in their order
        return list(rows.schema.names)
    found: list[str] = []
    pending = [rows.whole.names]
    while pending:
        names = pending.pop()
        left = set(whole.column_names).difference(names)
        try:  # not `drop_columns`, which takes time that grows with the square of their number
            _bind(whole.select([n for n in whole.column_names if n in left]), expression)
        except (pa.ArrowException, KeyError):
            if len(names) == 1:
                found += names
            else:
                half = len(names) // 2
                pending += [names[half:], names[:half]]
    rows.check_names(found)
    return found


def _shown(expression: Any) -> str:
    """An expression as Arrow writes it."""
    try:
        return str(expression)
    except UnicodeDecodeError:  # it cuts long literals, within a character too
        return "FieldPath(?)"  # may be in it


def _bind(table: pa.Table, expression: Any) -> None:
    pds.dataset(table).scanner(columns={"it": expression})


def _no_name_of(schema: pa.Schema) -> str:
    """A name that none of the columns has."""
    return "#" + max(schema.names, key=len, default="")


class TableScanner:
    """What `pyarrow.dataset.Scanner` is, for one table. Raises as :func:`columns_of` does."""

    def __init__(
        self,
        rows: TableRows,
        columns: Any = None,
        filter: Any = None,
        batch_size: int | None = None,
    ) -> None:
        self._rows = rows
        self._columns = columns
        self._filter = filter
        self._batch = batch_size or BATCH_ROWS
        self._chosen, self._asked = columns_of(rows, columns, filter)
        self.dataset_schema: pa.Schema = rows.schema
        # What expressions see; rows that none is asked of stay as they are.
        self._seen = rows.seen
        self._given = self._seen if isinstance(columns, Mapping) else rows.schema
        self.projected_schema: pa.Schema = self._project(self._empty()).schema

    def _empty(self) -> pa.Table:
        return _some(self._given, self._chosen).empty_table()

    def _project(self, table: pa.Table) -> pa.Table:
        if isinstance(self._columns, Mapping):
            return pds.dataset(table).to_table(columns=dict(self._columns))
        return table

    def _row_groups(self, at_once: int = 1, least: bool = False) -> Iterator[Iterator[pa.Table]]:
        """What is left of each row group: of a large one in pieces. ``at_once``: how many may be
        read at the same time; ``least``: only the columns that the filter asks for."""
        chosen = [] if least else self._chosen
        for entry in self._rows.entries:
            indexes = self._candidates(entry)
            parts = [PartRows(entry, self._rows.whole) for _ in indexes[:at_once]]
            for index, part in zip(indexes, cycle(parts), strict=False):
                yield self._row_group(entry, part, index, chosen)

    def _tables(self, least: bool = False) -> Iterator[pa.Table]:
        share = len({*self._chosen, *self._asked}) / max(1, len(self._rows.whole))
        if sum(entry.size for entry in self._rows.entries) * share < _SMALL:
            return chain.from_iterable(self._row_groups(least=least))
        return _side_by_side(self._row_groups(_AT_ONCE, least))

    @cached_property
    def _statistics_hold(self) -> bool:
        """Whether no row matches that the least and the largest value tell nothing of: NaN."""
        floats = any(pa.types.is_floating(self._seen.field(name).type) for name in self._asked)
        return not (floats and _MATCHES_NAN.search(_shown(self._filter)))

    def _candidates(self, entry: TableEntry) -> list[int]:
        """The row groups in which statistics do not rule a match out."""
        count = len(entry.files[""].row_groups())
        if self._filter is None or not self._statistics_hold:
            return list(range(count))
        left = set(range(count))
        for file in entry.files.values():
            with trouble(file.path):
                try:
                    pieces = file.fragment.split_by_row_group(self._filter, self._seen)
                except pa.ArrowNotImplementedError:  # such as the least of UUIDs
                    continue
                left &= {group.id for piece in pieces for group in piece.row_groups}
        return sorted(left)

    def _row_group(
        self, entry: TableEntry, part: PartRows, index: int, chosen: Sequence[str]
    ) -> Iterator[pa.Table]:
        names, what = list(dict.fromkeys((*self._asked, *chosen))), entry.what
        if self._filter is None:
            for columns, rows in part.pieces(index, names):
                yield shaped(columns, rows, _some(self._given, names), what)
        elif part.at_once(index, self._asked) < part.rows[index]:
            for columns, rows in part.pieces(index, names):
                kept, places = self._kept(columns, rows, names, what)
                yield shaped(_columns(kept), len(places), _some(self._given, chosen), what)
        else:
            yield from self._two_steps(entry, part, index, chosen)

    def _two_steps(
        self, entry: TableEntry, part: PartRows, index: int, chosen: Sequence[str]
    ) -> Iterator[pa.Table]:
        """The filter's columns first, and the others where a row is left."""
        schema, given, what = self._seen, _some(self._given, chosen), entry.what
        rows = part.rows[index]
        for columns, _ in part.pieces(index, self._asked, max(1, rows)):
            kept, places = self._kept(columns, rows, self._asked, what)
        rest = [name for name in chosen if name not in self._asked]
        if not rest or not len(places):
            yield shaped(_columns(kept), len(places), given, what)
            return
        begin = 0
        for columns, count in part.pieces(index, rest):
            other = shaped(columns, count, _some(schema, rest), what)
            mine = pc.and_(pc.greater_equal(places, begin), pc.less(places, begin + count))
            those = kept if count == rows else kept.filter(mine)
            if len(those) < count:
                other = other.take(pc.subtract(places.filter(mine), begin))
            yield shaped(_columns(those) | _columns(other), len(those), given, what)
            begin += count

    def _kept(
        self, columns: dict[str, Any], rows: int, names: Sequence[str], what: str
    ) -> tuple[pa.Table, pa.ChunkedArray]:
        """The rows that the filter leaves, with a column of their numbers, and that column."""
        table = shaped(columns, rows, _some(self._seen, names), what)
        number = _no_name_of(table.schema)  # what becomes of each row is asked by its number
        kept = table.append_column(number, pa.arange(0, rows)).filter(self._filter)
        return kept, kept.column(number)

    def to_batches(self) -> Iterator[pa.RecordBatch]:
        """The rows, a batch at a time."""
        for table in self._tables():
            yield from self._project(table).to_batches(self._batch)

    def to_reader(self) -> pa.RecordBatchReader:
        """The rows as a stream that other libraries take."""
        return pa.RecordBatchReader.from_batches(self.projected_schema, self.to_batches())

    def to_table(self) -> pa.Table:
        """All rows."""
        return self._together([self._project(t) for t in self._tables()])

    def head(self, num_rows: int) -> pa.Table:
        """The first rows; reads no row group behind them."""
        found, left = [], num_rows
        for table in chain.from_iterable(self._row_groups() if left > 0 else ()):
            # Of a table without columns pyarrow's slice has as many rows as it is asked for.
            found.append(self._project(table.slice(0, min(left, len(table)))))
            left -= len(found[-1])
            if left <= 0:
                break
        return self._together(found)

    def _together(self, tables: list[pa.Table]) -> pa.Table:
        if not len(self.projected_schema):  # which would be no rows for pyarrow
            return shaped({}, sum(map(len, tables)), self.projected_schema, self._rows.what)
        there = [table for table in tables if len(table)]
        whole = pa.concat_tables(there or [self.projected_schema.empty_table()])
        return whole.replace_schema_metadata(self.projected_schema.metadata)

    def count_rows(self) -> int:
        """How many rows match."""
        if self._filter is None:
            return self._rows.rows
        return sum(map(len, self._tables(least=True)))


def _side_by_side(units: Iterator[Iterator[pa.Table]]) -> Iterator[pa.Table]:
    """The tables of all units in order, the next unit being begun meanwhile."""
    with ThreadPoolExecutor(_AT_ONCE, "pqvault-scan") as pool:
        begun = deque((unit, _soon(pool, unit)) for unit in islice(units, _AT_ONCE))
        while begun:
            unit, coming = begun.popleft()
            while (table := coming.result()) is not None:
                coming = _soon(pool, unit)
                yield table
            begun.extend((unit, _soon(pool, unit)) for unit in islice(units, 1))


def _soon(pool: ThreadPoolExecutor, unit: Iterator[pa.Table]) -> Future[pa.Table | None]:
    try:
        return pool.submit(next, unit, None)
    except RuntimeError:  # the interpreter is ending, which allows no more threads
        found: Future[pa.Table | None] = Future()
        found.set_result(next(unit, None))
        return found


def _columns(table: pa.Table) -> dict[str, pa.ChunkedArray]:
    return dict(zip(table.column_names, table.columns, strict=True))


def _some(schema: pa.Schema, names: Sequence[str]) -> pa.Schema:
    return pa.schema([schema.field(name) for name in names], schema.metadata)
