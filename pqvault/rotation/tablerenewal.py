"""Encrypt the tables of a part again: new files under new keys, and a catalog that says so.

Parquet encrypts page by page, each bound to its file, so that pages are read and written anew.
Rows, row groups, columns and groups stay what they are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa

from pqvault.archive.columngroups import PartKeys
from pqvault.archive.layout import new_table_name, part_file
from pqvault.archive.part import OpenPart
from pqvault.archive.partwriter import write_catalog
from pqvault.archive.publicpart import PublicPart
from pqvault.archive.sealedfiles import sealed_pieces
from pqvault.archive.tableentry import TableEntry
from pqvault.archive.tablerows import PartRows, shaped
from pqvault.format.catalog import SCHEMA, entries_of
from pqvault.format.commit import PartFile, object_number
from pqvault.policy import Policy
from pqvault.rootkey import Keyring, RootKey
from pqvault.sealed import FrameCache
from pqvault.storage import Storage
from pqvault.tablefile import OutFile, RowGroups, TableSink
from pqvault.tablefile.schemas import sorting_columns, sorting_of

__all__ = ["renew_part"]


def renew_part(
    storage: Storage,
    public: PublicPart,
    ring: Keyring,
    policy: Policy,
    key: RootKey,
    tell: Callable[[int], object],
) -> tuple[dict[str, RootKey], list[PartFile]]:
    """Write the tables of a part again and a catalog that names their files, as those of the part
    of ``key``: a new root key for each column group, and the files.

    Raises NoKeyFits for a column group that nothing in ``ring`` opens, IntegrityError.
    """
    part = OpenPart(storage, public, ring, FrameCache(), policy)
    try:
        groups = {
            group: RootKey.generate(key.archive, key.part, key.profile)
            for group in _groups_of(part)
        }
        storage.make_folder(f"parts/{key.part}/tables")
        listed, catalog = _renew_tables(storage, part, PartKeys(key, groups), tell)
    finally:
        part.close()
    commit = public.commit
    return groups, [*listed, write_catalog(catalog, key, storage, commit.digest, commit.files)]


def _groups_of(part: OpenPart) -> dict[str, str]:
    """The column groups of the tables of a part: name -> a table that has it.

    Raises NoKeyFits for one that no identity opens: its columns cannot be encrypted again.
    """
    found: dict[str, str] = {}
    for table in _tables(part):
        for file in table.doc.files:
            part.table_key(file)
            if file.group:
                found.setdefault(file.group, table.what)
    return found


def _tables(part: OpenPart) -> list[TableEntry]:
    return [
        TableEntry(part, entry)
        for batch in part.batches()
        if batch.column("table").null_count < len(batch)
        for entry in entries_of(batch)
        if entry.table is not None
    ]


def _renew_tables(
    storage: Storage, part: OpenPart, keys: PartKeys, tell: Callable[[int], object]
) -> tuple[list[PartFile], pa.Table]:
    """Write the tables of ``part`` under new keys: their files, and the rows of the new catalog."""
    files: list[PartFile] = []
    batches = []
    # Whoever knew the old root key could have exchanged them: only what the commit lists is taken.
    for file in part.commit.files:
        if object_number(file.name) < 0:
            name = part_file(part.id, file.name)
            for piece in sealed_pieces(storage, name, file, part.commit.digest):
                tell(len(piece))
    for batch in part.batches():
        docs: list[bytes | None] = []
        for entry in entries_of(batch):
            doc = None
            if entry.table is not None:
                doc, listed = _renew(storage, TableEntry(part, entry), keys, tell)
                files += listed
            docs.append(doc)
        columns = [*batch.columns[:-1], pa.array(docs, pa.binary())]
        batches.append(pa.RecordBatch.from_arrays(columns, schema=SCHEMA))
    return files, pa.Table.from_batches(batches, SCHEMA)


def _renew(
    storage: Storage, table: TableEntry, keys: PartKeys, tell: Callable[[int], object]
) -> tuple[bytes, list[PartFile]]:
    out = [
        OutFile(
            file.group,
            keys.groups[file.group] if file.group else keys.root,
            new_table_name(),
            file.columns,
        )
        for file in table.doc.files
    ]
    main = table.columns(table.doc.files[0])
    sorting: Any = sorting_of(table.files[""].fragment.metadata)
    sorting = sorting_columns(sorting, main, table.schema) or ()
    sink = TableSink(
        storage, table.schema, out, table.what, digest=table.part.commit.digest,
        row_groups=RowGroups.of_source(), sorting=sorting,
    )  # fmt: skip
    with sink:
        part = PartRows(table, table.schema)
        each = table.size // max(1, len(part.rows))
        for index in range(len(part.rows)):
            for columns, rows in part.pieces(index, table.schema.names):
                sink.write(shaped(columns, rows, table.schema, table.what))
            sink.end_row_group()
            tell(each)
        doc, listed = sink.finish(table.doc.mode, table.doc.source)
    return doc.marshal(), listed
