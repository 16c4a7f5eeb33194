"""What a catalog says of a table: its files, columns and rows. docs/format.md section 10.

One line of canonical JSON in the column ``table`` of the catalog. The Arrow schema in it stays
bytes here; who reads the table parses it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from pqvault.errors import FormatError
from pqvault.format import textdoc
from pqvault.format.commit import is_table

__all__ = ["MAX_TABLE_DOC", "MODES", "TableDoc", "TableFileDoc", "is_group"]

MAX_TABLE_DOC: Final = textdoc.MAX_SIZE  # bytes
# `replace`: the rows of a table are those of its last such entry and of all after it.
# `append`: rows that come on top of what earlier parts hold under the same path.
MODES: Final = ("replace", "append")
_KEYS: Final = ("mode", "rows", "schema", "files", "source")
_FILE_KEYS: Final = ("group", "root", "file", "columns")
_GROUP: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


def is_group(name: str) -> bool:
    """Whether a name may be that of a column group: 1 to 64 of a-z, 0-9, ``_`` and ``-``."""
    return _GROUP.fullmatch(name) is not None


@dataclass(frozen=True, slots=True)
class TableFileDoc:
    """One Parquet file of a table. ``group``: "" for the columns that go with the part's key.

    ``root``: hex of 32 bytes, which ties the file to the root key of the group's envelope (or
    the part's). ``file``: its name in the commit. ``columns``: places in the schema, ascending.
    """

    group: str
    root: str
    file: str
    columns: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TableDoc:
    """A table of one part. ``schema``: an Arrow IPC schema message of all columns.

    ``files``: first the file of the columns without a group, then the groups by name.
    ``source``: size in bytes and digest (hex, of the commit's digest) of the file that it was
    made from, or None.
    """

    mode: str
    rows: int
    schema: bytes
    files: tuple[TableFileDoc, ...]
    source: tuple[int, str] | None = None

    def marshal(self) -> bytes:
        """One line of JSON, without an end of line."""
        return textdoc.marshal_json(
            {
                "mode": self.mode,
                "rows": self.rows,
                "schema": textdoc.b64encode(self.schema),
                "files": [
                    {"group": f.group, "root": f.root, "file": f.file, "columns": list(f.columns)}
                    for f in self.files
                ],
                "source": list(self.source) if self.source is not None else [],
            }
        )

    @classmethod
    @lru_cache(maxsize=16)  # a table is looked up, and then read
    def parse(cls, data: bytes, what: str) -> TableDoc:
        """Raises FormatError naming ``what``."""
        if len(data) > MAX_TABLE_DOC:
            raise FormatError(f"{what} is described in over {MAX_TABLE_DOC} bytes")
        fields = textdoc.Fields(textdoc.parse_json(data, what), _KEYS, what)
        mode = fields.text("mode")
        if mode not in MODES:
            raise FormatError(f"{what} has the mode {mode!r}, which is not known")
        files = tuple(_file(item, what) for item in fields.items("files"))
        groups = [file.group for file in files]
        if groups[:1] != [""] or groups != sorted(set(groups)):
            raise FormatError(f"the files of {what} are not sorted by group, or a group is twice")
        if len({file.file for file in files}) != len(files):
            raise FormatError(f"{what} names a file twice")
        columns = sorted(column for file in files for column in file.columns)
        if columns != list(range(len(columns))):
            raise FormatError(f"{what} does not have each of its columns in one file")
        return cls(
            mode, fields.integer("rows"), fields.base64("schema"), files, _source(fields, what)
        )


def _file(item: object, what: str) -> TableFileDoc:
    fields = textdoc.Fields(item, _FILE_KEYS, f"a file of {what}")
    group, name = fields.text("group"), fields.text("file")
    if (group and not is_group(group)) or not is_table(name):
        raise FormatError(f"{what} has a group or a file of a name that none may have")
    columns = fields.items("columns")
    if not columns or any(type(c) is not int for c in columns) or columns != sorted(set(columns)):
        raise FormatError(f"the columns of a file of {what} are not ascending numbers")
    return TableFileDoc(group, fields.hex("root", 32), name, tuple(columns))


def _source(fields: textdoc.Fields, what: str) -> tuple[int, str] | None:
    items = fields.items("source")
    if not items:
        return None
    if len(items) != 2 or type(items[0]) is not int:
        raise FormatError(f"the source of {what} is not a size and a digest")
    size = 48 if isinstance(items[1], str) and len(items[1]) == 96 else 32
    return items[0], fields.hex_value(items[1], size, "source")
