"""JSON lines: read once for the types, once more for the values, unless they are few.

Arrow's parser does the work, at several hundred MB a second: with the whole schema given it
refuses other keys, other types, duplicate keys, broken escapes and numbers that do not fit. What
it lets pass is looked for here (`_trusted`). Whatever it declines, for whatever reason, goes by
`strictjson`, which is exact and names what is wrong. So the fast way may decline anything, and may
accept only what the strict way reads as the same values.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj

from pqvault.sources.badlines import BadLines
from pqvault.sources.base import (
    SourceRefused,
    arrow_errors,
    in_pieces,
)
from pqvault.sources.jsontypes import EXACT, Types
from pqvault.sources.lines import MAX_LINE, Block, LineSource, Text, read_blocks
from pqvault.sources.strictjson import BadLine, parse_line

__all__ = ["JsonLinesSource"]

_STRICT: Final = 64 * 1024  # bytes of a block that is not halved any more before the strict way
_ARROW_BLOCK: Final = 1024 * 1024  # bytes that one of Arrow's threads parses
# An object takes a value in every column of its level, also where it has none. So a few hundred
# kB of `{}` can ask for gigabytes: this many values at once, and for a single line.
_CELLS: Final = 8_000_000
_CELLS_OF_LINE: Final = 256_000_000
_KEPT: Final = 32 * 1024 * 1024  # bytes of rows that are not parsed a second time
_SMALLEST: Final = 2.3e-308  # floats below may be zeros that were none
_TINY: Final = (re.compile(rb"e-[0-9]{3}"), re.compile(rb"E-[0-9]{3}"))
_ZEROS: Final = b"0" * 300
_LONG_INTEGER: Final = re.compile(rb"[:,\[\s]-?[0-9]{16,}\s*[,\]}]")
_SPACE: Final = b" \t\r\n"

# By Arrow, or line by line with the numbers of the lines.
_Piece: TypeAlias = pa.Table | list[tuple[int, dict[str, object]]]


class JsonLinesSource(LineSource):
    """A missing key and a null are one. Blank lines and a byte order mark are skipped."""

    kind = "jsonl"

    def __init__(self, path: str, name: str, bad_lines: BadLines | None) -> None:
        super().__init__(path, name, bad_lines)
        self._types = Types(name)
        self._kept: list[_Piece] | None = None  # all of a small file, parsed with its schema
        self.rows = self._learn()
        if self._types.promoted:
            # Integers were taken as such before the column turned out to hold floats.
            self._skipping = bad_lines is not None
            self.rows = self._learn()
        self._skipping = bad_lines is not None
        self._types.check()
        if not self._types.columns and self.rows:
            raise SourceRefused(f"{name} has {self.rows:,} lines of {{}} and so no column")
        self.schema = self._types.schema
        self.notes = tuple(
            f"{name}: the column {column} has integers and floats, and all are floats in the table"
            for column in dict.fromkeys(self._types.promoted)
        )

    def _learn(self) -> int:
        """Read the file for its types: the number of rows."""
        rows, size, kept = 0, 0, list[_Piece]()
        for found in self._parsed():
            rows += len(found)
            if isinstance(found, pa.Table):
                size += found.nbytes
            else:
                size += _STRICT
                for line, value in found:
                    self._types.learn(value, line)
            if size <= _KEPT:
                kept.append(found)
        schema = self._types.schema
        fits = (piece.schema.equals(schema) for piece in kept if isinstance(piece, pa.Table))
        self._kept = kept if size <= _KEPT and all(fits) else None
        return rows

    def batches(self) -> Iterator[pa.RecordBatch]:
        schema = self._types.schema
        for found in self._parsed() if self._kept is None else self._kept:
            if isinstance(found, pa.Table):
                batches = found.to_batches()
            else:
                with arrow_errors(self.name):
                    batches = [pa.RecordBatch.from_pylist([v for _, v in found], schema=schema)]
            for batch in batches:
                yield from in_pieces(batch)
        self._state.check(self._path, self.name)

    def close(self) -> None:
        self._kept = None

    def _parsed(self) -> Iterator[_Piece]:
        """All of the file, each piece by the one way or the other."""
        with Text(self._path, self.name) as text:
            for block in read_blocks(text):
                yield from self._parse(block)
        self._state.check(self._path, self.name)

    def _parse(self, whole: Block) -> Iterator[_Piece]:
        if whole.cut:
            self._refuse(whole.first, f"it is longer than {MAX_LINE:,} bytes", whole.data)
            return
        todo = [whole]
        while todo:
            block = todo.pop()
            braces = block.data.count(b"{")
            if not braces and not block.data.strip(_SPACE):
                continue
            cells = braces * max(1, self._types.columns)
            halves = block.halves() if cells > _CELLS or len(block.data) > _STRICT else None
            if cells > _CELLS and halves is not None:
                todo += reversed(halves)
            elif cells > _CELLS_OF_LINE:
                self._refuse(
                    block.first, f"it has {braces:,} objects, too many for its columns", block.data
                )
            elif (table := _by_arrow(block, self._types.schema)) is None:
                todo += reversed(halves or ())
                if halves is None:
                    yield list(self._strict(block))
            elif _trusted(table, block.data):
                yield table
            else:
                yield list(self._strict(block))

    def _strict(self, block: Block) -> Iterator[tuple[int, dict[str, object]]]:
        """Number and object of each line; a line that is none is refused."""
        for number, line in block.lines():
            try:
                yield number, parse_line(line)
            except BadLine as reason:
                self._refuse(number, str(reason), line)


def _by_arrow(block: Block, schema: pa.Schema) -> pa.Table | None:
    """The lines by Arrow's parser; None where it declines, or does not see one object a line."""
    data, lines = _one_object_a_line(block)
    table = _read_json(data, schema, _ARROW_BLOCK) if lines and len(schema) else None
    return table if table is not None and table.num_rows == lines else None


def _one_object_a_line(block: Block) -> tuple[bytes, int]:
    """The lines without blank ones and space around, and their number; none when one of them is
    not ``{…}``. With as many rows as lines, each line is one object then: a line that begins with
    a brace, behind one that ends with one, cannot continue it."""
    data, ends = block.data, block.ends
    if data[-2:] == b"}\n":
        ends -= 1
    elif data[-1:] != b"}":
        ends = -1
    if data[:1] != b"{" or data.count(b"}\n{") != ends:
        kept = [text for line in data.split(b"\n") if (text := line.strip(_SPACE))]
        if not all(text[:1] == b"{" and text[-1:] == b"}" for text in kept):
            return b"", 0
        data, ends = b"\n".join(kept), len(kept) - 1
    return data, ends + 1


def _read_json(data: bytes, schema: pa.Schema, size: int) -> pa.Table | None:
    options = pj.ParseOptions(explicit_schema=schema, unexpected_field_behavior="error")
    try:
        read = pj.ReadOptions(use_threads=len(data) > size, block_size=size)
        return pj.read_json(pa.BufferReader(data), read_options=read, parse_options=options)
    except pa.ArrowInvalid as error:
        if "straddling" in str(error) and size <= len(data):
            return _read_json(data, schema, len(data) + 1)
        return None


def _trusted(table: pa.Table, data: bytes) -> bool:
    """Whether Arrow's values are those of the text: it checks neither UTF-8 nor that a float is
    finite, takes zero for what is too small, and any integer for a float."""
    try:
        table.validate(full=True)
    except pa.ArrowInvalid:
        return False
    floats = [leaf for column in table.columns for leaf in _floats(column.chunks)]
    if not floats:
        return True
    sizes = [pc.min_max(pc.abs(leaf)).as_py() for leaf in floats]
    if not all(pc.all(pc.is_finite(leaf), min_count=0).as_py() for leaf in floats):
        return False
    if any(size["max"] is not None and size["max"] >= EXACT for size in sizes) and (
        _LONG_INTEGER.search(data)
    ):
        return False
    if any(size["min"] is not None and size["min"] < _SMALLEST for size in sizes):
        return _ZEROS not in data and not any(tiny.search(data) for tiny in _TINY)
    return True


def _floats(arrays: list[pa.Array]) -> Iterator[pa.Array]:
    """All columns of floats, at any depth."""
    for array in arrays:
        if pa.types.is_float64(array.type):
            yield array
        elif pa.types.is_struct(array.type):
            yield from _floats([array.field(i) for i in range(array.type.num_fields)])
        elif pa.types.is_list(array.type):
            yield from _floats([array.values])
