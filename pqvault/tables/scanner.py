"""TableScanner: a scan over several files for each part, side by side, a row group at a time.

For columns of groups, which are in files of their own with the same row groups, and for archives
that are not on a local disk, so that no thread of Arrow's is left with a Python file. A filter
is asked of the statistics of every file first, then of the columns that it names; the other
columns of a row group are read only where a row is left.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.dataset as pds

from pqvault.archive.tableentry import TableEntry
from pqvault.archive.tablerows import PartRows, TableRows, shaped
from pqvault.errors import NotFound, UsageError
from pqvault.tablefile import trouble
from pqvault.tablefile.schemas import first_line
from pqvault.tablefile.views import without_views

__all__ = ["TableScanner", "columns_of"]

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
    by_place = "FieldPath(" in str(expression)  # among the columns that are seen
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
        try:
            _bind(whole.drop_columns(names), expression)
        except (pa.ArrowException, KeyError):
            if len(names) == 1:
                found += names
            else:
                half = len(names) // 2
                pending += [names[half:], names[:half]]
    rows.check_names(found)
    return found


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
        self._seen = without_views(rows.schema)
        self._given = self._seen if isinstance(columns, Mapping) else rows.schema
        self.projected_schema: pa.Schema = self._project(self._empty()).schema

    def _empty(self) -> pa.Table:
        return _some(self._given, self._chosen).empty_table()

    def _project(self, table: pa.Table) -> pa.Table:
        if isinstance(self._columns, Mapping):
            return pds.dataset(table).to_table(columns=dict(self._columns))
        return table

    def tables(self, least: bool = False) -> Iterator[pa.Table]:
        """What is left of each row group. ``least``: only the rows that the filter asks for."""
        chosen = [] if least else self._chosen
        for entry in self._rows.entries:
            part = PartRows(entry)
            for index in self._candidates(entry, len(part.rows)):
                found = self._row_group(entry, part, index, chosen)
                if found is not None:
                    yield found

    def _candidates(self, entry: TableEntry, count: int) -> list[int]:
        """The row groups in which statistics do not rule a match out."""
        if self._filter is None:
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
    ) -> pa.Table | None:
        rows, schema, given = part.rows[index], self._seen, _some(self._given, chosen)
        if self._filter is None:
            return shaped(part.read(index, chosen), rows, given, entry.what)
        asked = shaped(part.read(index, self._asked), rows, _some(schema, self._asked), entry.what)
        number = _no_name_of(asked.schema)  # what becomes of each row is asked by its number
        numbered = asked.append_column(number, pa.array(range(rows), pa.int32()))
        kept = numbered.filter(self._filter)
        if not len(kept):
            return None
        places = kept.column(number).combine_chunks()
        rest = [name for name in chosen if name not in self._asked]
        other = shaped(part.read(index, rest), rows, _some(schema, rest), entry.what)
        if rest and len(kept) < rows:
            other = other.take(places)
        columns = {name: kept.column(name) for name in self._asked}
        columns |= {name: other.column(name) for name in rest}
        return shaped(columns, len(kept), given, entry.what)

    def to_batches(self) -> Iterator[pa.RecordBatch]:
        """The rows, a batch at a time."""
        for table in self.tables():
            yield from self._project(table).to_batches(self._batch)

    def to_reader(self) -> pa.RecordBatchReader:
        """The rows as a stream that other libraries take."""
        return pa.RecordBatchReader.from_batches(self.projected_schema, self.to_batches())

    def to_table(self) -> pa.Table:
        """All rows."""
        return self._together([self._project(table) for table in self.tables()])

    def head(self, num_rows: int) -> pa.Table:
        """The first rows; reads no row group behind them."""
        found, left = [], num_rows
        for table in self.tables() if left > 0 else ():
            # Of a table without columns pyarrow's slice has as many rows as it is asked for.
            found.append(self._project(table.slice(0, min(left, len(table)))))
            left -= len(found[-1])
            if left <= 0:
                break
        return self._together(found)

    def _together(self, tables: list[pa.Table]) -> pa.Table:
        if not len(self.projected_schema):  # which would be no rows for pyarrow
            return shaped({}, sum(map(len, tables)), self.projected_schema, self._rows.what)
        return pa.concat_tables([self.projected_schema.empty_table(), *tables])

    def count_rows(self) -> int:
        """How many rows match."""
        if self._filter is None:
            return self._rows.rows
        return sum(len(table) for table in self.tables(least=True))


def _some(schema: pa.Schema, names: Sequence[str]) -> pa.Schema:
    return pa.schema([schema.field(name) for name in names], schema.metadata)
