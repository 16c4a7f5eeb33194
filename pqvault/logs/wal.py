"""Write and read one write-ahead file. docs/format.md section 12."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Protocol

import pyarrow as pa

from pqvault.archive.append import check_path
from pqvault.crypto.cobblestone import HEADER_SIZE, MessageReader, MessageWriter
from pqvault.errors import FormatError, IntegrityError, PQVaultError, UsageError
from pqvault.format import wal
from pqvault.format.arrowipc import check_stream
from pqvault.format.wal import Kind, RecordHeader
from pqvault.rootkey import RootKey
from pqvault.storage import ReadAt
from pqvault.storage.base import Buffer

__all__ = ["Appending", "Damage", "End", "WalReader", "WalWriter"]

_PIECE: Final = 256 * 1024  # bytes sealed at once: sealing holds the interpreter's lock
_WINDOW: Final = 4 * 1024 * 1024  # bytes looked through at once for a record after damage
_NOT_ZERO: Final = re.compile(rb"[^\x00]")
_AHEAD: Final = 64  # records that may be damaged in a row


class Appending(Protocol):
    """What a writer needs of a file: :class:`pqvault.storage.appending.AppendFile`."""

    size: int

    def append(self, buffer: Buffer) -> None:
        """Write all of ``buffer`` at the end, or nothing of it."""


class WalWriter:
    """Seals records into a file in order. Used by one thread. ``table``: the path of the table that
    the rows become, for who reads them before.

    Nothing that fails to be appended counts: the next record takes its place.
    """

    def __init__(self, file: Appending, key: RootKey, group: str = "", table: str = "") -> None:
        self._table = {wal.TABLE_KEY: os.fsencode(table)} if table else {}
        self._key, self._prefix = key.wal(wal.wal_name(group))
        self._file = file
        self._schema: pa.Schema | None = None
        self._schema_bytes = memoryview(b"")
        self._before = wal.FIRST
        self._out = bytearray()
        self.sequence = 0  # of the next record

    @property
    def place(self) -> tuple[int, bytes]:
        """Where it stands: for who takes back what was appended since."""
        return self.sequence, self._before

    @place.setter
    def place(self, place: tuple[int, bytes]) -> None:
        self.sequence, self._before = place

    def write_batch(self, batch: pa.RecordBatch) -> None:
        """Append rows. Each record brings its schema, so that it needs no other."""
        if self._schema is None or not self._schema.equals(batch.schema, check_metadata=True):
            self._schema = batch.schema
            marked = batch.schema.with_metadata((batch.schema.metadata or {}) | self._table)
            self._schema_bytes = memoryview(marked.serialize()).cast("B")
        self._append(Kind.BATCH, self._schema_bytes, memoryview(batch.serialize()).cast("B"))

    def end(self, rows: int, lost: int) -> None:
        """Append the closing record: how many rows there are, how many records were lost."""
        self._append(Kind.END, memoryview(wal.end_content(rows, lost)))

    def _append(self, kind: Kind, *contents: memoryview) -> None:
        size = sum(map(len, contents))
        if size >= wal.MAX_CONTENT:
            raise PQVaultError(f"a record of {size:,} bytes is too large for a log")
        room = wal.HEADER_SIZE + MessageWriter.room(size + 1)
        if len(self._out) < room:
            self._out = bytearray(room)
        out, at = memoryview(self._out), wal.HEADER_SIZE
        context = wal.context(self._prefix, self.sequence, self._before)
        writer = MessageWriter(self._key, context)
        at += writer.update_into(bytes([kind]), out[at:])
        for content in contents:
            for start in range(0, len(content), _PIECE):
                at += writer.update_into(content[start : start + _PIECE], out[at:])
        last = writer.finalize()
        out[at : at + len(last)] = last
        at += len(last)
        header = RecordHeader(at - wal.HEADER_SIZE, self.sequence).marshal()
        out[: wal.HEADER_SIZE] = header
        self._file.append(out[:at])
        self._before = bytes(out[at - wal.LINK_SIZE : at])
        self.sequence += 1


@dataclass(frozen=True, slots=True)
class Damage:
    """Records that do not open, or bytes of none, with others behind them. ``offset``, ``size``:
    bytes."""

    sequence: int
    records: int
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class End:
    """What a closing record says."""

    rows: int
    lost: int


@dataclass(slots=True)
class WalReader:
    """Reads what is whole of a write-ahead file, once, in order; then says what was not.

    ``torn``: bytes at the end in which no record opens: a write that was cut off, or a file that
    was; ``unfinished``: they look like one record that should be longer, or are all zero.
    ``damaged``: what does not open before that. ``end``: the closing record, without which
    nobody can say how many records there should be. ``table``: what the first record says that the
    rows become; "" when it does not say.
    """

    source: ReadAt
    key: RootKey
    group: str
    what: str
    offset: int = 0
    sequence: int = 0
    rows: int = 0
    torn: int = 0
    unfinished: bool = False
    damaged: list[Damage] = field(default_factory=list)
    end: End | None = None
    table: str = ""
    _before: bytes = wal.FIRST
    _key: bytes = field(init=False, repr=False)
    _prefix: bytes = field(init=False)

    def __post_init__(self) -> None:
        self._key, self._prefix = self.key.wal(wal.wal_name(self.group))

    def batches(self) -> Iterator[tuple[int, pa.RecordBatch]]:
        """(sequence, rows) of each record of rows. Raises FormatError for what no writer seals."""
        while True:
            content = self._next()
            if content is None:
                break
            batch = self._take(content)
            if batch is not None:
                yield self.sequence - 1, batch
        self.torn = self.source.size - self.offset
        self.unfinished = self.torn > 0 and self._is_unfinished()
        if self.end is not None and self.torn:
            raise IntegrityError(f"{self.what} goes on for {self.torn:,} bytes after its end")

    def _take(self, content: memoryview) -> pa.RecordBatch | None:
        kind, body = content[0], content[1:]
        where = f"record {self.sequence - 1} of {self.what}"
        if kind == Kind.END:
            self.end = End(*wal.parse_end(body, where))
            if not self.damaged and self.end.rows != self.rows:
                raise FormatError(
                    f"{self.what} has {self.rows:,} rows, its closing record says {self.end.rows:,}"
                )
        elif kind == Kind.BATCH:
            batch = _parse_batch(body, where)
            metadata = dict(batch.schema.metadata or {})
            table = metadata.pop(wal.TABLE_KEY, b"")
            if table and not self.table:
                self.table = _table_of(table, where)
            self.rows += len(batch)
            return batch.replace_schema_metadata(metadata or None)
        else:
            raise FormatError(f"{where} is of the kind {kind}, which is not known")
        return None

    def _next(self) -> memoryview | None:
        """The content of the next record that opens; None at the end."""
        if self.end is not None:
            return None
        content = self._open(self.offset, self.sequence, self._before)
        return content if content is not None else self._resume()

    def _open(self, offset: int, sequence: int, before: bytes) -> memoryview | None:
        """The record at ``offset``, if it is whole and authentic; then we stand behind it."""
        left = self.source.size - offset - wal.HEADER_SIZE
        if left < 0:
            return None
        data = bytearray(wal.HEADER_SIZE)
        self.source.pread_into(data, offset)
        try:
            header = RecordHeader.parse(data, self.what)
        except FormatError:
            return None
        if header.sequence != sequence or header.length > left:
            return None
        start = offset + wal.HEADER_SIZE
        try:
            content = self._open_message(start, header.length, sequence, before)
        except IntegrityError:
            return None
        if not content:
            raise FormatError(f"record {sequence} of {self.what} is empty")
        self.offset = start + header.length
        self.sequence = sequence + 1
        link = bytearray(wal.LINK_SIZE)
        self.source.pread_into(link, self.offset - wal.LINK_SIZE)
        self._before = bytes(link)
        return memoryview(content)

    def _open_message(self, start: int, length: int, sequence: int, before: bytes) -> bytearray:
        """Its content. No more is read than opens: behind damage there may be what looks like a
        record at every few bytes, each of which says that it is as long as the file."""
        reader = MessageReader(self._key, wal.context(self._prefix, sequence, before), self.what)
        content = bytearray()
        at, end = start, start + length
        piece = HEADER_SIZE  # salt and commitment, which do not fit what is no record
        while at < end:
            sealed = bytearray(min(piece, end - at))
            self.source.pread_into(sealed, at)
            content += reader.update(memoryview(sealed))
            at += len(sealed)
            piece = _PIECE
        content += reader.finalize()
        return content

    def _is_unfinished(self) -> bool:
        if self.torn < wal.HEADER_SIZE:
            return True
        data = bytearray(wal.HEADER_SIZE)
        self.source.pread_into(data, self.offset)
        try:
            header = RecordHeader.parse(data, self.what)
        except FormatError:
            return (
                not any(data) and next(_places(self.source, _NOT_ZERO, self.offset), None) is None
            )
        return header.sequence == self.sequence and header.length + wal.HEADER_SIZE > self.torn

    def _resume(self) -> memoryview | None:
        """The first record behind damage; None when no more opens, which is a torn tail.

        It need not be where the damaged one says that it ends: its number is looked for. What it
        is bound to stands right before it.
        """
        damaged_at, expected = self.offset, self.sequence
        numbers = [(expected + n).to_bytes(8, "big") for n in range(_AHEAD + 1)]
        pattern = re.compile(b"|".join(re.escape(number) for number in numbers))
        for place in _places(self.source, pattern, damaged_at):
            offset = place - 4  # the length stands before the number
            if offset <= damaged_at or offset < wal.LINK_SIZE:
                continue
            number, before = bytearray(8), bytearray(wal.LINK_SIZE)
            self.source.pread_into(number, place)
            self.source.pread_into(before, offset - wal.LINK_SIZE)
            sequence = int.from_bytes(number, "big")
            content = self._open(offset, sequence, bytes(before))
            if content is not None:
                records = sequence - expected
                self.damaged.append(Damage(expected, records, damaged_at, offset - damaged_at))
                return content
        return None


def _places(source: ReadAt, pattern: re.Pattern[bytes], start: int) -> Iterator[int]:
    overlap = 8
    while start < source.size:
        window = bytearray(min(_WINDOW + overlap, source.size - start))
        source.pread_into(window, start)
        for match in pattern.finditer(window):
            if match.start() < _WINDOW:
                yield start + match.start()
        start += _WINDOW


def _table_of(path: bytes, where: str) -> str:
    try:
        check_path(path)
    except UsageError as error:
        raise FormatError(f"{where} is of no table: {error.message}") from None
    return os.fsdecode(path)


def _parse_batch(body: memoryview, where: str) -> pa.RecordBatch:
    """Rows whose every offset and text was checked: whoever knows a public key can seal some."""
    check_stream(body, where)
    try:
        with pa.ipc.open_stream(pa.py_buffer(body)) as stream:
            batch = stream.read_next_batch()
        batch.validate(full=True)
    except (pa.ArrowException, OSError, StopIteration) as error:
        raise FormatError(f"{where} holds no Arrow rows: {type(error).__name__}") from None
    return batch
