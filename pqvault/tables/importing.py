"""Import one file as a table, with public keys only."""

from __future__ import annotations

import os
from typing import Any

from pqvault.arguments import Recipients
from pqvault.errors import UsageError
from pqvault.sources import BadLines, open_source
from pqvault.storage import Storage
from pqvault.tablefile import RowGroups
from pqvault.tables.places import StrPath
from pqvault.tables.writing import TableWriter

__all__ = ["Imported", "import_table"]

Imported = tuple[str, int, tuple[str, ...]]  # part id, rows, notes about types


def import_table(
    file: StrPath,
    archive: StrPath | Storage,
    name: str | bytes = "",
    *,
    recipients: Recipients,
    bad_lines: BadLines | None = None,
    **options: Any,
) -> Imported:
    """Write a file of Parquet, JSON lines, CSV or Arrow as one part of an archive.

    ``name``: of the table, by default that of the file. ``options``: those of `TableWriter`.
    Row groups of Parquet are kept. Raises SourceRefused for what would not come back as the
    same values, and what `TableWriter` raises.
    """
    with open_source(file, bad_lines=bad_lines) as source:
        if not len(source.schema):
            raise UsageError(f"{os.fspath(file)} has no columns")
        if source.row_groups is not None:
            options.setdefault("row_groups", RowGroups.of_source())
        with TableWriter(
            archive, name or os.path.basename(os.fspath(file)), source.schema,
            recipients=recipients, sorting=source.sorting, **options,
        ) as writer:  # fmt: skip
            writer.write_source(source)
    return writer.part, writer.rows, source.notes
