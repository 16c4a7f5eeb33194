"""Seal one file as a table: the unit of work of ``seal --tables``, beside `objects.seal_object`."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pqvault.archive.columngroups import ColumnGroup, PartKeys, plan_files
from pqvault.archive.deal import TableJob
from pqvault.archive.objects import Sealed, SealOptions, hash_file
from pqvault.archive.sourcefile import file_facts, wait_for_tick
from pqvault.archive.walk import Found
from pqvault.errors import NotFound, UsageError
from pqvault.format.entries import Kind
from pqvault.lazy import LazyModule
from pqvault.names import printable
from pqvault.storage import Storage
from pqvault.tablefile import RowGroups, TableSink

if TYPE_CHECKING:
    from pqvault.sources import BadLines, Source

__all__ = ["TableOptions", "as_table", "seal_table"]

sources = LazyModule("pqvault.sources")


@dataclass(slots=True)
class TableOptions:
    """``keep_files``: seal the files too, byte for byte. ``bad_lines``: takes the lines that do
    not parse, which otherwise are errors. ``seen``: the columns of groups that were met."""

    groups: Sequence[ColumnGroup] = ()
    keep_files: bool = False
    bad_lines: BadLines | None = None
    seen: set[str] = field(default_factory=set)


def is_table_name(path: bytes) -> bool:
    """Whether a file of this name becomes a table."""
    return sources.kind_of(os.fsdecode(path)) is not None


def seal_table(
    job: TableJob,
    keys: PartKeys,
    storage: Storage,
    options: SealOptions,
    tables: TableOptions,
    on_bytes: Callable[[int], object],
) -> Sealed:
    """Read a file as rows and seal them. What is wrong with the file is named in the result, and
    the rest of the part goes on; raises PQVaultError when the table cannot be written."""
    result = Sealed()
    name = printable(job.path)
    try:
        path = os.fsdecode(job.source)
        wait_for_tick(job.expected.ctime_ns)
        with sources.open_source(path, name=name, bad_lines=tables.bad_lines) as source:
            groups = _groups_of(source, tables)
            files = plan_files(source.schema, keys, groups, f"table {name}")
            sink = TableSink(
                storage, source.schema, files, f"table {name}", digest=options.digest,
                level=options.level, sorting=source.sorting,
                row_groups=None if source.row_groups is None else RowGroups.of_source(),
            )  # fmt: skip
            with sink:
                # Progress is told in bytes of the file, which are as many as its rows make them.
                each = job.expected.size / max(1, source.rows)
                sink.write_source(source, lambda rows: on_bytes(int(rows * each)))
                digest = hash_file(job.source, options.digest)
                doc, listed = sink.finish("replace", (job.expected.size, digest))
            result.notes += source.notes
    except (sources.SourceRefused, NotFound, UsageError, OSError) as error:
        result.failed.append((job.row, _sentence(error, name)))
        return result
    if file_facts(job.source) != tuple(job.expected):
        result.changed.append((job.row, "changed while it was read"))
    result.tables.append((job.row, doc.marshal()))
    result.table_files += listed
    return result


def _groups_of(source: Source, tables: TableOptions) -> list[ColumnGroup]:
    """The groups that have columns in a table, with those columns."""
    found = []
    there = set(source.schema.names)
    for group in tables.groups:
        columns = tuple(column for column in group.columns if column in there)
        tables.seen.update(columns)
        if columns:
            found.append(ColumnGroup(group.name, columns, group.recipients))
    return found


def _sentence(error: Exception, name: str) -> str:
    """What is wrong, to be put behind the name of the file."""
    text = getattr(error, "message", None) or getattr(error, "strerror", None) or str(error)
    if text.startswith(name):
        return str(text.removeprefix(name).lstrip(": ,"))
    return f"cannot become a table: {text}"


def as_table(found: Found) -> Found:
    """What the walk found, as a table where its name says so."""
    if found.kind == Kind.FILE and found.source and is_table_name(found.path):
        return found._replace(kind=int(Kind.TABLE), sparse=False)
    return found
