"""TableRows: the rows of all parts of a table, as the keys at hand show them, by row group."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any, Final

import pyarrow as pa

from pqvault.archive.tableentry import TableEntry
from pqvault.errors import FormatError, NoKeyFits, NotFound
from pqvault.names import printable
from pqvault.tablefile import OpenTable, trouble
from pqvault.tablefile.dictionaries import with_type
from pqvault.tablefile.schemas import Sorting, sorting_columns, sorting_of
from pqvault.tablefile.union import union
from pqvault.tablefile.unpacked import nulls, rows_at_once
from pqvault.tablefile.views import without_views

__all__ = ["TableRows"]

_KNOWN: Final = 4096  # row groups and columns whose size is remembered


class TableRows:
    """A table. ``entries``: what each part says of it, the oldest first.

    A column that is sealed to others in any part is hidden in all: none of its rows stand in
    for the whole. Raises UsageError when the types of a column have nothing in common.
    """

    def __init__(self, entries: Sequence[TableEntry]) -> None:
        self.entries = list(entries)
        self.path = entries[-1].entry.path
        self.what = f"table {printable(self.path)}"
        schemas = [(f"part {entry.part.id}", entry.schema) for entry in entries]
        self.whole = union(schemas, self.what)
        self._hidden = {
            name: (entry, group) for entry in entries for name, group in entry.hidden.items()
        }
        self.schema = self.whole
        if self._hidden:
            seen = [field for field in self.whole if field.name not in self._hidden]
            self.schema = pa.schema(seen, self.whole.metadata)
        """The columns that the keys at hand open, in all parts."""

    @cached_property
    def groups(self) -> dict[str, str]:
        """The group of each column that is in one and that the keys at hand open."""
        found: dict[str, str] = {}
        for entry in self.entries:
            names = entry.schema.names
            for file in entry.doc.files:
                if file.group in entry.files:
                    found |= {names[place]: file.group for place in file.columns if file.group}
        return {name: group for name, group in found.items() if name not in self._hidden}

    @property
    def hidden(self) -> dict[str, str]:
        """The other columns, with the group that each is in."""
        return {name: group for name, (_, group) in self._hidden.items()}

    @cached_property
    def rows(self) -> int:
        """How many there are."""
        return sum(entry.doc.rows for entry in self.entries)

    @cached_property
    def seen(self) -> pa.Schema:
        """The columns that the keys at hand open, as expressions see them."""
        return without_views(self.schema)

    def check_names(self, names: Sequence[Any]) -> None:
        """Raise NoKeyFits for a column that is hidden, NotFound for one that is not there."""
        there = set(self.schema.names)
        for name in names:
            if name in self._hidden:
                raise self.no_key(name)
            if isinstance(name, str) and name not in there:
                raise NotFound(f"{self.what} has no column {name!r}")

    def no_key(self, name: str) -> NoKeyFits:
        """What stands between us and a hidden column."""
        entry, group = self._hidden[name]
        error = entry.no_key(group)
        return NoKeyFits(
            f"the column {name!r} of {self.what} is in the column group {group!r}: {error.message}",
            hint=error.hint,
        )

    def sorting(self) -> Sorting | None:
        """How the rows of its row groups are sorted, as far as all parts say the same."""
        said = []
        for entry in self.entries:
            main = entry.columns(entry.doc.files[0])
            found = sorting_of(entry.files[""].fragment.metadata)
            said.append(sorting_columns(found, main, self.schema))
        return said[0] if all(one == said[0] for one in said) else None

    def row_groups(
        self,
        columns: Sequence[str] | None = None,
        check: Callable[[], object] = lambda: None,
        least: int = 0,
    ) -> Iterator[pa.Table]:
        """The rows in order, of the columns asked for; each row group as it was written, but
        those that are large in memory in pieces, which have at least ``least`` bytes.

        ``check`` is called between them and may raise.
        """
        names = self.schema.names if columns is None else list(columns)
        self.check_names(names)
        schema = pa.schema([self.schema.field(n) for n in names], self.schema.metadata)
        for entry in self.entries:
            part = PartRows(entry, self.whole)
            for index in range(len(part.rows)):
                found: list[pa.Table] = []
                for columns_of, rows in part.pieces(index, names):
                    check()
                    found.append(shaped(columns_of, rows, schema, entry.what))
                    if sum(table.nbytes for table in found) >= least:
                        yield _joined(found)
                        found = []
                if found:
                    yield _joined(found)


def _joined(tables: list[pa.Table]) -> pa.Table:
    return tables[0] if len(tables) == 1 else pa.concat_tables(tables)


class PartRows:
    """The row groups of one part of a table. ``whole``: the schema of the table. ``rows``: of
    each row group."""

    def __init__(self, entry: TableEntry, whole: pa.Schema) -> None:
        self._open = {group: OpenTable(file) for group, file in entry.files.items()}
        self._whole, self._what = whole, entry.what
        self.rows = self._open[""].rows
        names = entry.schema.names
        self.place = {
            names[place]: file.group
            for file in entry.doc.files
            if file.group in self._open
            for place in file.columns
        }
        """The group of each column that can be read."""
        self._recast = frozenset(f.name for f in entry.schema if f.type != whole.field(f.name).type)
        self._at_once = entry.at_once

    def at_once(self, index: int, names: Sequence[str]) -> int:
        """How many rows of a row group, of these columns, can be in memory at a time."""
        known, key = self._at_once, (index, tuple(names), self._recast)
        if key not in known:
            if len(known) >= _KNOWN:
                known.clear()
            known[key] = self._measure(index, names)
        return known[key]

    def _measure(self, index: int, names: Sequence[str]) -> int:
        rows = self.rows[index]
        absent = [self._whole.field(name) for name in names if name not in self.place]
        chunks = [chunk for field in absent for chunk in nulls(field, rows)]
        for group, wanted in self._by_group(names):
            chunks += self._open[group].chunks(index, wanted, self._recast)
        step = rows_at_once(chunks, rows)
        for group, wanted in self._by_group(names):
            step = self._open[group].measured(index, wanted, step)
        return step

    def _by_group(self, names: Sequence[str]) -> list[tuple[str, list[str]]]:
        """The columns that the part has, by the file that they are in."""
        found = [(g, [name for name in names if self.place.get(name) == g]) for g in self._open]
        return [(group, wanted) for group, wanted in found if wanted]

    def pieces(
        self, index: int, names: Sequence[str], step: int | None = None
    ) -> Iterator[tuple[dict[str, pa.ChunkedArray], int]]:
        """Columns of a row group, those that the part has, and how many rows, in order: ``step``
        rows at a time, as many as memory is for by default."""
        rows = self.rows[index]
        step = step or self.at_once(index, names)
        files = [
            self._open[group].pieces(index, wanted, step) for group, wanted in self._by_group(names)
        ]
        for begin in range(0, max(rows, 1), step):
            columns: dict[str, pa.ChunkedArray] = {}
            for file in files:
                table = next(file, None)
                if table is None:  # no nulls in their place
                    raise FormatError(f"{self._what} has row groups of different lengths")
                columns |= dict(zip(table.column_names, table.columns, strict=True))
            yield columns, min(step, rows - begin)


def shaped(
    columns: dict[str, pa.ChunkedArray], rows: int, schema: pa.Schema, what: str
) -> pa.Table:
    """Columns in the order and with the types of ``schema``; nulls for those that are not there."""
    arrays = []
    for field in schema:
        column = columns.get(field.name)
        if column is None:
            column = pa.chunked_array([pa.nulls(rows, field.type)])
        elif column.type != field.type:
            with trouble(what):
                column = with_type(column, field.type)
        if len(column) != rows:
            raise FormatError(f"{what} has row groups of different lengths")
        arrays.append(column)
    if not arrays:  # rows without columns are rows all the same
        return pa.table({"": pa.nulls(rows)}).select([])
    return pa.Table.from_arrays(arrays, schema=schema)
