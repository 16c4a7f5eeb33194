"""A table as a `pyarrow.dataset.Dataset`: all parts, projection and filters pushed down.

One Parquet format, with the decryption properties of its own file, for each fragment.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.dataset as pds

from pqvault.archive.tableentry import TableEntry
from pqvault.archive.tablerows import TableRows
from pqvault.tablefile import trouble

__all__ = ["TableDataset"]


class TableDataset(pds.FileSystemDataset):  # type: ignore[misc]
    """The rows of one table. Columns that no key at hand opens are not there, and naming one
    raises NoKeyFits with the key ids that would.

    What its own methods raise names the file; a scanner, and who makes one of it (DuckDB,
    Polars), raises pyarrow's errors.
    """

    def __init__(self, entries: Sequence[TableEntry]) -> None:
        self._rows = rows = TableRows(entries)
        files = [entry.files[""] for entry in entries]
        fragments = [file.fragment for file in files]
        super().__init__(fragments, rows.schema, files[0].format, fragments[0].filesystem)

    @property
    def hidden(self) -> dict[str, str]:
        """The columns that no key at hand opens, with their group."""
        return self._rows.hidden

    def scanner(self, columns: Any = None, filter: Any = None, **options: Any) -> Any:
        """See `pyarrow.dataset.Dataset.scanner`. Raises NoKeyFits, NotFound for names."""
        if isinstance(columns, list | tuple):
            self._rows.check_names(columns)
        return super().scanner(columns=columns, filter=filter, **options)

    def to_table(self, columns: Any = None, filter: Any = None, **options: Any) -> pa.Table:
        """See `pyarrow.dataset.Dataset.to_table`."""
        with trouble(self._rows.what):
            return self.scanner(columns, filter, **options).to_table()

    def head(self, num_rows: int, **options: Any) -> pa.Table:
        """The first rows."""
        with trouble(self._rows.what):
            return self.scanner(**options).head(num_rows)

    def count_rows(self, filter: Any = None, **options: Any) -> int:
        """How many rows there are, or match a filter."""
        if filter is None:
            return self._rows.rows
        with trouble(self._rows.what):
            return int(self.scanner(filter=filter, **options).count_rows())
