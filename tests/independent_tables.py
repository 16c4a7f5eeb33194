"""The other half of `independent_reader`: tables, write-ahead files and keysets, written from
docs/format.md, sections 10 to 12, and nothing else. It shares no code with pqvault."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.parquet.encryption as pe
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from independent_documents import (
    ENVELOPE,
    GROUP,
    HASH,
    MIB,
    TABLE_FILE,
    bind,
    expand,
    integer,
    is_base64,
    listed,
    matches,
    parse_document,
    record,
    row,
    signatures,
    unbase64,
)
from independent_keys import Damaged, Key, load_identity, need
from independent_reader import (
    Entry,
    NoKey,
    Opened,
    Part,
    ancestors,
    cobblestone,
    file_bytes,
    open_envelope,
    open_parts,
    open_stream,
)

__all__ = ["Keyset", "Table", "Wal", "read_table"]

# Canonical JSON (3)


def canonical(data: bytes) -> Any:
    """Line 2 of a document, as it stands in a table's description and in a keyset."""
    need(len(data) <= 4 * MIB, "more than 4 MiB")
    try:
        text = data.decode("ascii")
        value = json.loads(text)
        again = json.dumps(value, separators=(",", ":"))
    except (ValueError, RecursionError) as error:
        raise Damaged("not JSON") from error
    need(again == text and "\x7f" not in text and "\\" not in text, "not canonical")
    return value


# Tables (10)

FILE = record(
    {
        "group": GROUP,
        "root": matches("[0-9a-f]{64}"),
        "file": matches(TABLE_FILE),
        "columns": listed(integer(0), int, 1),
    }
)
TABLE = record(
    {
        "mode": matches("replace|append"),
        "rows": integer(0),
        "schema": is_base64,
        "files": listed(FILE, lambda one: one["group"], 1),
        "source": lambda value: value == [] or row(integer(0), HASH)(value),
    }
)


@dataclass
class Table:
    """The rows that one part has of a table. ``roots``: of the groups whose envelopes open."""

    description: bytes
    roots: dict[str, Opened]
    value: dict[str, Any] = field(init=False)
    schema: pa.Schema = field(init=False)

    def __post_init__(self) -> None:
        """10.1"""
        value = self.value = canonical(self.description)
        need(TABLE(value), "not the description of a table")
        message = pa.BufferReader(unbase64(value["schema"]))
        try:
            self.schema = pa.ipc.read_schema(message)
        except (pa.ArrowException, OSError, ValueError, TypeError) as error:
            raise Damaged("the schema of a table is damaged") from error
        need(message.tell() == message.size(), "bytes behind the schema of a table")
        names = self.schema.names
        need(names != [] and len(set(names)) == len(names), "no columns, or two of one name")
        groups = [one["group"] for one in value["files"]]
        need(groups[0] == "" and groups == sorted(groups), "the files of a table out of order")
        need(len({one["file"] for one in value["files"]}) == len(groups), "a file twice")
        columns = [column for one in value["files"] for column in one["columns"]]
        need(sorted(columns) == list(range(len(names))), "a column in no file, or in two")
        for one in value["files"]:
            need(one["columns"] == sorted(one["columns"]), "columns out of order")

    @property
    def files(self) -> list[str]:
        """What the commit must list."""
        return [one["file"] for one in self.value["files"]]

    def read(self, contents: dict[str, tuple[bytes, int]]) -> pa.Table:
        """The columns of the groups that open. ``contents``: bytes of each file, and its size by
        the commit."""
        found: dict[int, pa.ChunkedArray] = {}
        lengths = None
        for one in self.value["files"]:
            if one["group"] not in self.roots:
                continue
            data, size = contents[one["file"]]
            need(len(data) == size, "a table file of another size than the commit says")
            need(size >= 8 and data[:4] == data[-4:] == b"PARE", "not an encrypted Parquet file")
            table, groups = self._file(one, data)
            need(lengths in (None, groups), "files of one table with other row groups")
            lengths = groups
            found |= dict(zip(one["columns"], table.columns, strict=True))
        fields = [self.schema.field(place) for place in sorted(found)]
        columns = [
            with_type(found[place], self.schema.field(place).type) for place in sorted(found)
        ]
        return pa.Table.from_arrays(columns, schema=pa.schema(fields, self.schema.metadata))

    def _file(self, one: dict[str, Any], data: bytes) -> tuple[pa.Table, list[int]]:
        """10.2"""
        root = self.roots[one["group"]]
        need(root.derive("commit id", 32).hex() == one["root"], "another root key")
        context = bind("table", root.archive, root.part, one["file"].encode())
        properties = pe.create_decryption_properties(
            expand(root.root, context, 32), aad_prefix=context, allow_plaintext_files=False
        )
        try:
            file = pq.ParquetFile(pa.BufferReader(data), decryption_properties=properties)
            metadata = file.metadata
            need(metadata.num_rows == self.value["rows"], "another number of rows")
            need(metadata.num_row_groups <= 32767, "too many row groups")
            names = [self.schema.names[place] for place in one["columns"]]
            need(file.schema_arrow.names == names, "other columns")
            table = file.read()
            table.validate(full=True)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise Damaged(f"the table file {one['file']} does not open") from error
        groups = range(metadata.num_row_groups)
        return table, [metadata.row_group(group).num_rows for group in groups]


def with_type(column: pa.ChunkedArray, wanted: pa.DataType) -> pa.ChunkedArray:
    """From what Parquet keeps to the type of the schema."""
    if pa.types.is_dictionary(wanted) and not pa.types.is_dictionary(column.type):
        column = column.cast(wanted.value_type).dictionary_encode()
    seconds = pa.types.is_temporal(wanted) and getattr(wanted, "unit", "") == "s"
    kept = pa.types.is_date64(wanted) or pa.types.is_dictionary(wanted) or seconds
    need(column.type == wanted or kept or pa.types.is_nested(wanted), "a column of another type")
    try:
        return column if column.type == wanted else column.cast(wanted)
    except pa.ArrowException as error:
        raise Damaged("a column of another type") from error


def roots_of(folder: Path, part: Part, table: bytes, key: Key) -> dict[str, Opened]:
    """The root keys of the column groups that the key opens (10.3)."""
    found = {"": part.opened}
    for one in canonical(table)["files"]:
        if one["group"]:
            name = f"{part.commit['part']}.{one['group']}"
            data = file_bytes(folder / "envelopes" / name)
            envelope = parse_document(data, "pqvault.dev/envelope@v1", ENVELOPE)
            signatures(data, envelope)
            value = [envelope.value[key] for key in ("archive", "part", "group", "profile")]
            wanted = [part.commit[key] for key in ("archive", "part")]
            need(value == [*wanted, one["group"], part.commit["profile"]], "another envelope")
            try:
                found[one["group"]] = open_envelope(envelope, key)
            except NoKey:
                continue
    return found


def read_table(folder: Path | str, identity_text: str, path: bytes) -> pa.Table:
    """The rows of all parts of a table, as far as the key opens its columns (10.4)."""
    folder, key = Path(folder), load_identity(identity_text)
    parts = open_parts(folder, key)
    history = [(place, part) for place, part in enumerate(parts) if path in part.entries]
    ended = [
        place
        for place, part in enumerate(parts)
        for above in ancestors(path)
        if above in part.entries and part.entries[above].kind != ord("d")
    ]
    tables: list[pa.Table] = []
    hidden: set[str] = set()
    for place, part in reversed(history):
        entry = part.entries[path]
        if entry.kind != ord("t") or max(ended, default=-1) > place:
            break
        table = table_of(folder, part, entry, key)
        contents = {
            name: (file_bytes(part.folder / name), part.sizes[name]) for name in table.files
        }
        tables.append(table.read(contents))
        hidden |= set(table.schema.names) - set(tables[-1].schema.names)
        if table.value["mode"] == "replace":
            break
    need(tables != [], "there is no such table")
    seen = [table.drop_columns(hidden & set(table.schema.names)) for table in reversed(tables)]
    return pa.concat_tables(seen, promote_options="permissive")


def table_of(folder: Path, part: Part, entry: Entry, key: Key) -> Table:
    """What one part says of a table; each of its files is in the commit."""
    description = entry.table or b""
    found = Table(description, roots_of(folder, part, description, key))
    for name in found.files:
        need(name in part.sizes, "a table file that the commit does not list")
    return found


# Keysets (11)

KEYSET = record(
    {
        "format": matches("pqvault.dev/keyset@v1"),
        "secret": is_base64,
        "keys": listed(
            record(
                {
                    "name": matches("[A-Za-z0-9._/@-]{1,128}"),
                    "version": lambda value: integer(1)(value) and value <= 999_999_999,
                    "created": integer(0),
                    "key": is_base64,
                }
            ),
            lambda one: (one["name"], one["version"]),
            most=4096,
        ),
    }
)


@dataclass
class Keyset:
    """The content of a keyset: the sealed stream, opened."""

    content: bytes

    def __post_init__(self) -> None:
        """One line."""
        need(self.content.endswith(b"\n"), "a keyset is a line")
        value = canonical(self.content[:-1])
        need(KEYSET(value), "not a keyset")
        self.secret = unbase64(value["secret"])
        self.keys = {(one["name"], one["version"]): unbase64(one["key"]) for one in value["keys"]}
        need(len(self.secret) == 32, "a secret of another length")
        need(list(self.keys) == sorted(self.keys), "keys out of order")
        need(all(len(key) in (0, 32) for key in self.keys.values()), "a key of another length")
        self.id = expand(self.secret, bind("keyset id"), 16)

    @classmethod
    def open(cls, path: Path | str, identity_text: str) -> Keyset:
        """From its file."""
        return cls(open_stream(path, identity_text))

    def unwrap(self, reference: str, name: str) -> bytes:
        """The data key that a Parquet file's ``wrappedDEK`` is a reference to."""
        shape = re.fullmatch(
            "pqk1:([0-9a-f]{32}):([1-9][0-9]{0,8}):([A-Za-z0-9+/]+={0,2})", reference
        )
        if shape is None:
            raise Damaged("not a reference")
        keyset, version, text = shape.groups()
        need(bytes.fromhex(keyset) == self.id, "a reference to another keyset")
        key, sealed = self.keys.get((name, int(version)), b""), unbase64(text)
        need(len(key) == 32, "there is no such key, or it was destroyed")
        need(len(sealed) == 12 + 32 + 16, "a wrapped key of another length")
        aad = bind("keyset wrap", self.id, version.encode(), name.encode())
        try:
            return AESGCM(key).decrypt(sealed[:12], sealed[12:], aad)
        except InvalidTag as error:
            raise Damaged("a wrapped key does not open") from error


# Write-ahead files of logs (12)


class Record(NamedTuple):
    """A message that opened."""

    sequence: int
    content: bytes
    last: bytes  # its last 32 bytes
    end: int


@dataclass
class Wal:
    """A write-ahead file. ``torn``: bytes at its end in which no record opens. ``damaged``: records
    that do not open before that. ``rows_lost``: rows and lost records by the closing record."""

    archive: bytes
    part: bytes
    root: bytes
    name: str
    data: bytes
    torn: int = 0
    damaged: int = 0
    end: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        """12.1"""
        self.context = bind("wal", self.archive, self.part, self.name.encode())
        self.key = expand(self.root, self.context, 32)

    def batches(self) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Sequence and rows of each record that opens; the rest stands in the attributes."""
        schema, rows = None, 0
        for one in self._records():
            if self.end is not None:
                raise Damaged("something follows the closing record")
            kind, content = one.content[:1], one.content[1:]
            if kind == b"E":
                need(len(content) == 16, "a closing record of another length")
                self.end = struct.unpack(">QQ", content)
                continue
            need(kind == b"B", "a record of an unknown kind")
            batch = batch_of(content)
            need(schema in (None, batch.schema), "batches of two schemas")
            schema, rows = batch.schema, rows + len(batch)
            yield one.sequence, batch
        if self.end is not None:
            need(self.torn == 0, "something follows the closing record")
            need(self.damaged or rows == self.end[0], "another number of rows than it says")

    def _records(self) -> Iterator[Record]:
        at, sequence, before = 0, 0, bytes(32)
        while at < len(self.data):
            found = self._record(at, sequence, before)
            if found is None:
                found = self._behind(at, sequence)
                if found is None:
                    self.torn = len(self.data) - at
                    return
                self.damaged += found.sequence - sequence
            yield found
            at, sequence, before = found.end, found.sequence + 1, found.last

    def _record(self, at: int, sequence: int, before: bytes) -> Record | None:
        """The record that stands there, if it opens."""
        if at + 12 > len(self.data):
            return None
        length, number = struct.unpack_from(">IQ", self.data, at)
        message = self.data[at + 12 : at + 12 + length]
        if number != sequence or not 73 <= length <= 1 << 30 or len(message) != length:
            return None
        context = self.context + struct.pack(">Q", sequence) + before
        try:
            content = cobblestone(self.key, context, message)
        except Damaged:
            return None
        return Record(sequence, content, message[-32:], at + 12 + length)

    def _behind(self, at: int, sequence: int) -> Record | None:
        """The first record behind damage (12.2)."""
        for place in range(at + 1, len(self.data) - 12):
            number = int.from_bytes(self.data[place + 4 : place + 12], "big")
            if sequence <= number <= sequence + 64 and place >= 32:
                found = self._record(place, number, self.data[place - 32 : place])
                if found is not None:
                    return found
        return None


def batch_of(content: bytes) -> pa.RecordBatch:
    """An Arrow IPC stream of one batch."""
    try:
        stream = pa.ipc.open_stream(pa.BufferReader(content))
        batches = list(stream)
        need(len(batches) == 1, "not one batch")
        need(not any(map(pa.types.is_dictionary, batches[0].schema.types)), "a dictionary")
        batches[0].validate(full=True)
        reader = pa.ipc.MessageReader.open_stream(pa.BufferReader(content))
        need(not any(is_compressed(message) for message in reader), "compressed buffers")
    except (pa.ArrowException, OSError, ValueError) as error:
        raise Damaged("rows that are not Arrow") from error
    return batches[0]


def is_compressed(message: pa.ipc.Message) -> bool:
    """Whether the header of a RecordBatch message (Arrow's Message.fbs) has a `compression`."""
    data = message.metadata.to_pybytes()
    (root,) = struct.unpack_from("<I", data)
    header = field_at(data, root, 2)
    if message.type != "record batch" or header is None:
        return False
    (offset,) = struct.unpack_from("<I", data, header)
    return field_at(data, header + offset, 3) is not None


def field_at(data: bytes, table: int, number: int) -> int | None:
    """Where a field of a FlatBuffers table is."""
    start = table - struct.unpack_from("<i", data, table)[0]
    (size,) = struct.unpack_from("<H", data, start)
    place = 4 + 2 * number
    offset = struct.unpack_from("<H", data, start + place)[0] if place < size else 0
    return table + offset if offset else None
