"""Rows of a sealed table as records: a row group is the unit that one worker reads."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from pqvault.archive.archive import Archive
from pqvault.archive.tablerows import PartRows, TableRows, shaped
from pqvault.integrations.records import Piece, Records, Unit

__all__ = ["TableSource"]


class TableSource:
    """A table of an archive that is open in this process. ``columns``: which, all when None.

    Raises NotFound for a table or column that is not there, NoKeyFits for a column whose group
    the keys at hand do not open.
    """

    def __init__(self, archive: Archive, name: str, columns: Sequence[str] | None) -> None:
        self._table = TableRows(archive.find_table(name))
        self._names = list(self._table.schema.names if columns is None else columns)
        self._table.check_names(self._names)
        fields = [self._table.schema.field(name) for name in self._names]
        self._schema = pa.schema(fields, self._table.schema.metadata)
        self._parts: dict[int, PartRows] = {}

    def _part(self, number: int) -> PartRows:
        if number not in self._parts:
            self._parts[number] = PartRows(self._table.entries[number], self._table.whole)
        return self._parts[number]

    def units(self) -> list[Unit]:
        """A unit for each row group. Its piece: (part of the table, row group, the next)."""
        units = []
        for number, entry in enumerate(self._table.entries):
            counts = self._part(number).rows
            for group in range(len(counts)):
                size = entry.size // len(counts)
                units.append(Unit("table", size, (Piece(number, group, group + 1),)))
        return units

    def read(self, piece: Piece) -> Records:
        """The rows of one row group, with the types that the whole table has."""
        part, entry = self._part(piece.number), self._table.entries[piece.number]
        for columns, count in part.pieces(piece.begin, self._names):
            rows = shaped(columns, count, self._schema, entry.what)
            yield rows, rows.nbytes

    def name(self, piece: Piece) -> str:
        """What a piece is called in errors."""
        return f"{self._table.what} (row group {piece.begin} of part {piece.number})"
