"""TableEntry: a table of one part, with the files and columns that the keys at hand open."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import pyarrow as pa

from pqvault.archive.layout import part_file
from pqvault.archive.part import OpenPart
from pqvault.errors import NoKeyFits, UsageError
from pqvault.format.entries import Entry
from pqvault.format.table import TableDoc, TableFileDoc
from pqvault.names import printable
from pqvault.rootkey import RootKey

if TYPE_CHECKING:  # it imports 100 ms of pyarrow, which an archive without tables does not need
    from pqvault.tablefile import TableFile

__all__ = ["TableEntry", "has_content", "short_name"]


def has_content(entry: Entry) -> bool:
    """Whether the file that a table was made from is kept with it."""
    return entry.size > 0 or entry.digest is not None


def short_name(path: bytes) -> bytes:
    """``train`` of ``data/train.jsonl.gz``: what people call a table."""
    name = path.rpartition(b"/")[2]
    return name.partition(b".")[0] or name


@dataclass(frozen=True)
class TableEntry:
    """What a part says of a table. Raises FormatError for what no pqvault writes."""

    part: OpenPart
    entry: Entry

    def __post_init__(self) -> None:
        if self.entry.table is None:
            raise UsageError(
                f"{printable(self.entry.path)} is not a table",
                hint="`pqvault table ls` lists the tables of an archive",
            )

    @property
    def what(self) -> str:
        """Its name in errors."""
        return f"table {printable(self.entry.path)} of part {self.part.id}"

    @cached_property
    def doc(self) -> TableDoc:
        """What the catalog says of it."""
        return TableDoc.parse(self.entry.table or b"", self.what)

    @cached_property
    def schema(self) -> pa.Schema:
        """Of all columns, also those that no key at hand opens."""
        from pqvault.tablefile import parse_schema

        schema = parse_schema(self.doc.schema, self.what)
        if len(schema) != sum(len(file.columns) for file in self.doc.files):
            raise self.part.bad(f"describes {self.what} with columns in no file, or in two")
        return schema

    @cached_property
    def at_once(self) -> dict[object, int]:
        """How many rows are read at once, by row group and columns: measured for the first scan."""
        return {}

    @property
    def size(self) -> int:
        """Bytes of its files as sealed."""
        return sum(self.part.table_size(file.file) for file in self.doc.files)

    def columns(self, file: TableFileDoc) -> pa.Schema:
        """The columns of one file."""
        schema = self.schema
        if len(file.columns) == len(schema):
            return schema
        return pa.schema([schema.field(place) for place in file.columns], schema.metadata)

    @cached_property
    def keys(self) -> dict[str, RootKey]:
        """The root keys at hand, by group. Raises what is wrong but for keys that do not fit."""
        found = {}
        for file in self.doc.files:
            try:
                found[file.group] = self.part.table_key(file)
            except NoKeyFits:
                if not file.group:
                    raise
        return found

    @cached_property
    def hidden(self) -> dict[str, str]:
        """The columns that no key at hand opens, with their group."""
        names = self.schema.names
        return {
            names[place]: file.group
            for file in self.doc.files
            if file.group not in self.keys
            for place in file.columns
        }

    def no_key(self, group: str) -> NoKeyFits:
        """Why a group is not open: the error of opening its envelope, which names key ids."""
        for file in self.doc.files:
            if file.group == group:
                try:
                    self.part.table_key(file)
                except NoKeyFits as error:
                    return error
        raise KeyError(group)

    @cached_property
    def files(self) -> dict[str, TableFile]:
        """The files that open, by group, checked against the catalog and with each other."""
        from pqvault.tablefile import TableFile

        opened = {}
        for file in self.doc.files:
            if file.group not in self.keys:
                continue
            key = self.keys[file.group]
            found = opened[file.group] = TableFile(
                self.part.storage,
                part_file(self.part.id, file.file),
                self.part.table_size(file.file),
                *key.table(file.file),
            )
            found.check(self.columns(file), self.doc.rows)
        main = opened[""]
        for group, other in opened.items():
            if group and other.row_groups() != main.row_groups():
                raise self.part.bad(
                    f"has {self.what}, whose column group {group!r} has other row groups than"
                    " the other columns"
                )
        return opened
