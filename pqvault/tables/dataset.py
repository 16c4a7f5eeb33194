"""A table as a `pyarrow.dataset.Dataset`: all parts, projection and filters pushed down.

One Parquet format, with the decryption properties of its own file, for each fragment.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.dataset as pds

from pqvault.archive.tableentry import TableEntry
from pqvault.archive.tablerows import TableRows
from pqvault.errors import UsageError
from pqvault.tablefile import trouble
from pqvault.tablefile.schemas import first_line
from pqvault.tables.scanner import TableScanner, columns_of

__all__ = ["TableDataset"]


class TableDataset(pds.FileSystemDataset):  # type: ignore[misc]
    """The rows of one table. Columns that no key at hand opens are not there, and naming one
    raises NoKeyFits with the key ids that would.

    Its own methods raise pqvault's errors, naming the table; a scanner, and what is made of one
    (DuckDB, Polars), raises pyarrow's once it runs. ``fragments`` and what pyarrow makes of them
    have the columns without a group; scans of the dataset have all.
    """

    def __init__(self, entries: Sequence[TableEntry]) -> None:
        self._rows = rows = TableRows(entries)
        files = [entry.files[""] for entry in entries]
        fragments = [file.fragment for file in files]
        schema = rows.schema
        if rows.groups:
            main = [field for field in schema if field.name not in rows.groups]
            schema = pa.schema(main, schema.metadata)
        super().__init__(fragments, schema, files[0].format, fragments[0].filesystem)
        self._filter: Any = None

    @property
    def schema(self) -> pa.Schema:
        """The columns that the keys at hand open."""
        return self._rows.schema

    @property
    def hidden(self) -> dict[str, str]:
        """The columns that no key at hand opens, with their group."""
        return self._rows.hidden

    def check_hidden(self, text: str) -> None:
        """Raise NoKeyFits when a column that no key at hand opens is named in ``text``."""
        words = set(re.findall(r"\w+", text.lower()))
        for name in self.hidden:
            if set(re.findall(r"\w+", name.lower())) <= words:
                raise self._rows.no_key(name)

    @property
    def groups(self) -> dict[str, str]:
        """The group of each column that is in one and that the keys at hand open."""
        return self._rows.groups

    def filter(self, expression: Any) -> TableDataset:
        """See `pyarrow.dataset.Dataset.filter`."""
        found: TableDataset = super().filter(expression)
        found._rows = self._rows
        found._filter = self._with_own(expression)
        return found

    def _with_own(self, filter: Any) -> Any:
        if self._filter is None or filter is None:
            return self._filter if filter is None else filter
        return self._filter & filter

    def scanner(
        self,
        columns: Any = None,
        filter: Any = None,
        batch_size: int | None = None,
        **options: Any,
    ) -> Any:
        """See `pyarrow.dataset.Dataset.scanner`. Raises NoKeyFits, NotFound for names."""
        return TableScanner(self._rows, columns, self._with_own(filter), batch_size)

    def to_table(self, columns: Any = None, filter: Any = None, **options: Any) -> pa.Table:
        """See `pyarrow.dataset.Dataset.to_table`."""
        with self._explained(columns, filter):
            return self.scanner(columns, filter, **options).to_table()

    def to_batches(
        self, columns: Any = None, filter: Any = None, **options: Any
    ) -> Iterator[pa.RecordBatch]:
        """See `pyarrow.dataset.Dataset.to_batches`."""
        with self._explained(columns, filter):
            yield from self.scanner(columns, filter, **options).to_batches()

    def reader(self, columns: Any = None, filter: Any = None) -> pa.RecordBatchReader:
        """The rows as a stream, whose errors are pqvault's too."""
        scanner = self.scanner(columns, filter)
        return pa.RecordBatchReader.from_batches(
            scanner.projected_schema, self.to_batches(columns, filter)
        )

    def head(
        self, num_rows: int, columns: Any = None, filter: Any = None, **options: Any
    ) -> pa.Table:
        """The first rows."""
        with self._explained(columns, filter):
            return self.scanner(columns, filter, **options).head(num_rows)

    def count_rows(self, filter: Any = None, **options: Any) -> int:
        """How many rows there are, or match a filter."""
        if self._with_own(filter) is None:
            return self._rows.rows
        with self._explained([], filter):
            # Not by the scanner's own count, which takes all rows of a row group when its least and
            # largest values match: NaN is in no statistics.
            batches = self.scanner([], filter, **options).to_batches()
            return sum(len(batch) for batch in batches)

    def take(self, indices: Any, **options: Any) -> pa.Table:
        """See `pyarrow.dataset.Dataset.take`."""
        return self.to_table(**options).take(indices)

    def sort_by(self, sorting: Any, **options: Any) -> Any:
        """See `pyarrow.dataset.Dataset.sort_by`."""
        return pds.InMemoryDataset(self.to_table()).sort_by(sorting, **options)

    @contextmanager
    def _explained(self, columns: Any, filter: Any) -> Iterator[None]:
        """Raise UsageError for what an expression makes of sound rows, such as a division by zero,
        and IntegrityError for rows that are not."""
        with trouble(self._rows.what):
            try:
                yield
            except pa.ArrowException as error:
                filter = self._with_own(filter)
                if filter is None and not isinstance(columns, Mapping):
                    raise
                chosen, asked = columns_of(self._rows, columns, filter)
                for _ in self._rows.row_groups(list(dict.fromkeys((*chosen, *asked)))):
                    pass  # it raises what is wrong with the rows
                raise UsageError(
                    f"{self._rows.what} does not take the expression: {first_line(error)}"
                ) from None
