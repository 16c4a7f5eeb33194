"""Sealed tables: encrypted Parquet in an archive.

::

    from pqvault import tables
    tables.write_table("corpus.pqv", "runs", table, recipients=[key.recipient])
    tables.dataset("corpus.pqv", "runs", identities=[key]).to_table(columns=["loss"])
"""

from __future__ import annotations

from pqvault.archive.columngroups import ColumnGroup
from pqvault.tablefile import RowGroups
from pqvault.tables.dataset import TableDataset
from pqvault.tables.importing import import_table
from pqvault.tables.reading import count_rows, dataset, head, read_table, schema
from pqvault.tables.sql import query
from pqvault.tables.writing import TableWriter, write_table

__all__ = [
    "ColumnGroup",
    "RowGroups",
    "TableDataset",
    "TableWriter",
    "count_rows",
    "dataset",
    "head",
    "import_table",
    "query",
    "read_table",
    "schema",
    "write_table",
]
