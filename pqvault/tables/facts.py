"""What tables an archive has, what columns they have, and on request the keys of their files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from pqvault.archive.archive import Archive
from pqvault.archive.layout import part_file
from pqvault.archive.tablerows import TableRows
from pqvault.errors import PQVaultError

__all__ = ["ColumnFacts", "FileKey", "TableFacts", "columns", "file_keys", "list_tables"]


@dataclass(frozen=True, slots=True)
class TableFacts:
    """One table. ``size``: bytes of its files as sealed; ``parts``: ids, the oldest first;
    ``hidden``: columns that no identity opens."""

    path: bytes
    rows: int
    size: int
    columns: int
    parts: tuple[str, ...]
    groups: tuple[str, ...]
    hidden: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ColumnFacts:
    """One column. ``group``: "" or the column group that it is in; ``open``: whether an identity
    at hand opens it; ``metadata``: of the Arrow field, as text."""

    name: str
    type: str
    nullable: bool
    group: str
    open: bool
    metadata: dict[str, str]


@dataclass(frozen=True, slots=True)
class FileKey:
    """What opens one file of a table elsewhere. ``file``: its name in the archive; ``key``: 32
    bytes and ``aad_prefix`` in hex; ``columns``: what is in it."""

    file: str
    part: str
    group: str
    rows: int
    columns: tuple[str, ...]
    aad_prefix: str
    key: str = field(repr=False)


def list_tables(archive: Archive, problems: list[PQVaultError]) -> Iterator[TableFacts]:
    """Every table, by path. What is wrong with one goes to ``problems``, and the rest on."""
    for path in archive.table_paths():
        try:
            rows = TableRows(archive.find_table(path))
        except PQVaultError as error:
            problems.append(error)
            continue
        groups = {file.group for entry in rows.entries for file in entry.doc.files} - {""}
        yield TableFacts(
            path,
            rows.rows,
            sum(entry.size for entry in rows.entries),
            len(rows.whole),
            tuple(entry.part.id for entry in rows.entries),
            tuple(sorted(groups)),
            tuple(sorted(rows.hidden)),
        )


def columns(archive: Archive, name: str | bytes) -> list[ColumnFacts]:
    """The columns of a table, also those that no identity opens. Raises NotFound."""
    rows = TableRows(archive.find_table(name))
    group = rows.hidden | rows.groups
    return [
        ColumnFacts(
            f.name,
            str(f.type),
            f.nullable,
            group.get(f.name, ""),
            f.name not in rows.hidden,
            {_text(key): _text(value) for key, value in (f.metadata or {}).items()},
        )
        for f in rows.whole
    ]


def _text(data: Any) -> str:
    return str(data.decode("utf-8", "backslashreplace"))


def file_keys(archive: Archive, name: str | bytes) -> list[FileKey]:
    """Key and AAD prefix of every file of a table that the identities open.

    Whoever has them reads these files for ever: rotation does not change them. Raises NotFound.
    """
    found = []
    for entry in archive.find_table(name):
        names = entry.schema.names
        for file in entry.doc.files:
            if file.group not in entry.files:
                continue
            key, aad_prefix = entry.keys[file.group].table(file.file)
            found.append(
                FileKey(
                    part_file(entry.part.id, file.file),
                    entry.part.id,
                    file.group,
                    entry.doc.rows,
                    tuple(names[place] for place in file.columns),
                    aad_prefix.hex(),
                    key.hex(),
                )
            )
    return found
