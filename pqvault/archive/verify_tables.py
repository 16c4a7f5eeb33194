"""Verify tables: every page of every column that a key at hand opens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from pqvault.archive.part import OpenPart
from pqvault.archive.tableentry import TableEntry
from pqvault.archive.tasks import Located
from pqvault.errors import FormatError, PQVaultError
from pqvault.format.commit import is_table
from pqvault.tablefile import OpenTable, TableFile, rows_at_once, trouble

__all__ = ["TableTask", "table_tasks", "unnamed"]


@dataclass(frozen=True, slots=True)
class TableTask:
    """One file of a table, to be read from end to end."""

    file: TableFile
    rows: int

    def read(self, check: Callable[[], object]) -> int:
        """Read it: the bytes of its columns in memory. ``check`` may raise to stop."""
        size = rows = 0
        opened = OpenTable(self.file)
        for index in range(len(opened.rows)):
            check()
            step = rows_at_once(opened.chunks(index), opened.rows[index])
            step = opened.measured(index, None, step)
            for table in opened.pieces(index, None, step):
                with trouble(self.file.path):
                    table.validate(full=True)
                size += table.nbytes
                rows += table.num_rows
        if rows != self.rows:
            raise FormatError(f"{self.file.path} has {rows} rows, its catalog says {self.rows}")
        return size


def table_tasks(
    tables: Sequence[Located],
    chosen: set[str],
    problems: list[PQVaultError],
    unread: list[str],
) -> Iterator[TableTask]:
    """What is to be read of the tables of a part. ``chosen``: names of files to look at.

    ``problems`` gets what is wrong, ``unread`` the column groups that no key at hand opens.
    """
    for part, entry in tables:
        table = TableEntry(part, entry)
        try:
            opened = table.files
            hidden = [f"{table.what}, column group {g}" for g in sorted(set(table.hidden.values()))]
        except PQVaultError as error:
            problems.append(error)
            continue
        unread += hidden
        names = {file.group: file.file for file in table.doc.files}
        for group, file in opened.items():
            if names[group] in chosen:
                yield TableTask(file, table.doc.rows)


def unnamed(part: OpenPart, tables: Sequence[Located]) -> list[PQVaultError]:
    """Table files of a commit that no table of its catalog names, or that two do."""
    named: list[str] = []
    for _, entry in tables:
        try:
            named += [file.file for file in TableEntry(part, entry).doc.files]
        except PQVaultError:
            continue  # told where the table is read
    found: list[PQVaultError] = []
    for file in part.commit.files:
        if is_table(file.name) and named.count(file.name) != 1:
            how = "two tables name" if file.name in named else "no table names"
            found.append(FormatError(f"part {part.id} has {file.name}, which {how}"))
    return found
