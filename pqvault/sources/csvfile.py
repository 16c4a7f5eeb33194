"""CSV as RFC 4180 has it: a header, commas, double quotes. Read once for the types, then again.

Arrow parses, after a regular expression has found every row to follow the grammar: Arrow itself
takes a quote in the middle of a field, a lone CR and an open quote at the end for something.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Final

import pyarrow as pa
import pyarrow.csv as pc

from pqvault.sources.badlines import BadLines
from pqvault.sources.base import (
    SourceRefused,
    arrow_errors,
    in_pieces,
)
from pqvault.sources.csvtypes import Column, convert
from pqvault.sources.jsontypes import MAX_COLUMNS
from pqvault.sources.lines import MAX_LINE, LineSource, Text

__all__ = ["CsvSource"]

_STEP: Final = 4 * 1024 * 1024  # bytes read at once
_FIELD: Final = rb'(?:"[^"]*+(?:""[^"]*+)*+"|[^",\r\n]*+)'
_ROW: Final = re.compile(rb"%b(?:,%b)*+\r?\n" % (_FIELD, _FIELD))
_ROWS: Final = re.compile(rb"(?:%b(?:,%b)*+\r?\n)*+" % (_FIELD, _FIELD))
# The beginning of a row that may still become one: it ends in a field, in a quoted one perhaps.
_BEGUN: Final = re.compile(rb'(?:%b,)*+(?:"[^"]*+(?:""[^"]*+)*+"?|[^",\r\n]*+)\r?' % _FIELD)
_FIELDS: Final = re.compile(rb"(%b)(?:,|\r?\n)" % _FIELD)
_BLANK: Final = (b"\n", b"\r\n")
_BOM: Final = b"\xef\xbb\xbf"


class CsvSource(LineSource):
    """An empty field is null, and `""` is the empty text. Blank lines are skipped."""

    kind = "csv"

    def __init__(self, path: str, name: str, bad_lines: BadLines | None) -> None:
        super().__init__(path, name, bad_lines)
        self._names: list[str] = []
        self.rows = 0
        columns: list[Column] = []
        for texts in self._texts():
            columns = columns or [Column() for _ in self._names]
            for column, array in zip(columns, texts.columns, strict=True):
                column.learn(array)
            self.rows += texts.num_rows
        self._skipping = bad_lines is not None
        types = [c.type for c in columns] or [pa.string()] * len(self._names)
        fields = [pa.field(*pair) for pair in zip(self._names, types, strict=True)]
        self.schema = pa.schema(fields)

    def batches(self) -> Iterator[pa.RecordBatch]:
        for texts in self._texts():
            with arrow_errors(self.name):
                arrays = [
                    convert(array, field.type)
                    for array, field in zip(texts.columns, self.schema, strict=True)
                ]
                batch = pa.RecordBatch.from_arrays(arrays, schema=self.schema)
            yield from in_pieces(batch)

    def _texts(self) -> Iterator[pa.RecordBatch]:
        """All rows as text, a few MB at once."""
        with Text(self._path, self.name) as text:
            begun = False
            for rows, line in self._rows(text):
                if not begun:
                    rows, line = self._header(rows, line)
                    begun = True
                if rows and (batch := self._parse(rows, line)) is not None:
                    yield batch
            if not begun:
                raise SourceRefused(f"{self.name} has no header: it is empty")
        self._state.check(self._path, self.name)

    def _rows(self, text: Text) -> Iterator[tuple[bytes, int]]:
        """Whole rows that follow the grammar, and the number of their first line."""
        line = 1
        held = text.read(_STEP).removeprefix(_BOM)
        more = bool(held)
        while held:
            if not more and not held.endswith(b"\n"):
                held += b"\n"
            end = _end_of_rows(held)
            if end:
                yield held[:end], line
                line += held.count(b"\n", 0, end)
                held = held[end:]
            if held and (not more or len(held) > MAX_LINE or not _BEGUN.fullmatch(held)):
                # The row that begins here is none. The next one may begin in the next line.
                cut = held.find(b"\n") + 1
                if not cut and more:
                    raise SourceRefused(
                        f"{self.name}, line {line}: it is longer than {MAX_LINE:,} bytes"
                    )
                self._refuse(line, "its quotes do not match RFC 4180", held[:cut])
                line, held = line + 1, held[cut:]
                continue
            if more:
                piece = text.read(_STEP)
                more = bool(piece)
                held += piece

    def _header(self, rows: bytes, line: int) -> tuple[bytes, int]:
        """What is behind the header."""
        at = 0
        while (match := _ROW.match(rows, at)) and match[0] in _BLANK:
            at = match.end()
        if match is None:
            raise SourceRefused(f"{self.name} has no header: its lines are blank")
        line += rows.count(b"\n", 0, at)
        try:
            names = [_plain(field).decode("utf-8") for field in _FIELDS.findall(match[0])]
        except UnicodeDecodeError:
            raise SourceRefused(f"{self.name}, line {line}: the header is not UTF-8") from None
        if len(names) > MAX_COLUMNS:
            raise SourceRefused(f"{self.name} has {len(names):,} columns, over {MAX_COLUMNS:,}")
        twice = sorted(name for name, count in Counter(names).items() if count > 1)
        if twice:
            raise SourceRefused(
                f"{self.name}, line {line}: the header names the column {twice[0]!r} twice",
                hint="give each column a name of its own; the first line must name them",
            )
        self._names = names
        return rows[match.end() :], line + match[0].count(b"\n")

    def _parse(self, rows: bytes, line: int) -> pa.RecordBatch | None:
        batch = self._by_arrow(rows)
        if batch is None:
            kept = b"".join(self._good(rows, line))
            batch = self._by_arrow(kept) if kept else None
            if kept and batch is None:
                raise SourceRefused(f"{self.name}, line {line} and after: it cannot be parsed")
        return batch

    def _by_arrow(self, rows: bytes) -> pa.RecordBatch | None:
        """The rows as columns of text; None when one of them is not right."""
        read = pc.ReadOptions(use_threads=False, block_size=len(rows) + 1, column_names=self._names)
        parse = pc.ParseOptions(newlines_in_values=True)
        convert_ = pc.ConvertOptions(
            column_types={name: pa.string() for name in self._names},
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        )
        try:
            table = pc.read_csv(pa.BufferReader(rows), read, parse, convert_)
        except (pa.ArrowInvalid, UnicodeDecodeError):
            return None
        batches = table.combine_chunks().to_batches()
        return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=table.schema)

    def _good(self, rows: bytes, line: int) -> Iterator[bytes]:
        """Each row that can be read; the others are refused."""
        for match in _ROW.finditer(rows):
            row, here = match[0], line
            line += row.count(b"\n")
            fields = len(_FIELDS.findall(row))
            if row in _BLANK:
                continue
            if fields != len(self._names):
                self._refuse(here, f"it has {fields} fields, not {len(self._names)}", row)
                continue
            try:
                row.decode("utf-8")
            except UnicodeDecodeError as error:
                self._refuse(here, f"column {error.start + 1}: it is not UTF-8", row)
                continue
            yield row

    def _refuse(self, line: int, reason: str, data: bytes) -> None:
        super()._refuse(line, reason, data.rstrip(b"\r\n"))


def _end_of_rows(data: bytes) -> int:
    """Where the last whole row ends, of those at the head of ``data`` that follow the grammar."""
    if b'"' not in data and data.count(b"\r") == data.count(b"\r\n"):
        return data.rfind(b"\n") + 1
    match = _ROWS.match(data)
    return match.end() if match else 0


def _plain(field: bytes) -> bytes:
    return field[1:-1].replace(b'""', b'"') if field[:1] == b'"' else field
