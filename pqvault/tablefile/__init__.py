"""One table of one part: encrypted Parquet files. Built on by archives and by `pqvault.tables`."""

from __future__ import annotations

from pqvault.tablefile.opentable import OpenTable
from pqvault.tablefile.reader import TableFile, trouble
from pqvault.tablefile.schemas import check_schema, parse_schema
from pqvault.tablefile.unpacked import rows_at_once
from pqvault.tablefile.writer import OutFile, RowGroups, TableSink

__all__ = [
    "OpenTable",
    "OutFile",
    "RowGroups",
    "TableFile",
    "TableSink",
    "check_schema",
    "parse_schema",
    "rows_at_once",
    "trouble",
]
