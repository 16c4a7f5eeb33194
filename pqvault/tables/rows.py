"""Rows for people and for other programs: JSON lines, CSV, Parquet, Arrow."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import pairwise
from typing import Any, BinaryIO, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pyarrow.types as pt

from pqvault.errors import UsageError
from pqvault.tablefile.dictionaries import is_by_hand

__all__ = ["FORMATS", "plain", "write_rows"]

FORMATS: Final = ("jsonl", "csv", "parquet", "arrow")
_CALENDAR: Final = range(-1_096_193_779_200, 971_890_963_200)  # seconds: the years +-32,767
_PER_SECOND: Final = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_TO_QUOTE: Final = re.compile('[",\r\n]')
_STEP: Final = 8192  # rows made into Python objects at once
_BYTES: Final = 16 * 1024 * 1024  # of values in them: as objects they take ten times as much


def write_rows(reader: pa.RecordBatchReader, kind: str, out: BinaryIO) -> int:
    """Write all rows to ``out`` as one of FORMATS: how many.

    In JSON lines and CSV times are ISO 8601, bytes base64, decimals and numbers that are not
    finite texts, maps with keys of text objects, structs with two fields of one name lists of
    pairs; in CSV what is nested is JSON.
    """
    if kind == "parquet":
        with pq.ParquetWriter(out, reader.schema, compression="zstd") as parquet:
            return _count(reader, parquet.write_batch)
    if kind == "arrow":
        with pa.ipc.new_file(out, reader.schema) as arrow:
            return _count(reader, arrow.write_batch)
    if kind == "jsonl":
        _refuse_twice(reader.schema.names)
    return _count(reader, _csv(reader.schema, out) if kind == "csv" else _jsonl(out))


def _refuse_twice(names: list[str]) -> None:
    """An object keeps one value for each key, so the others would be left out."""
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UsageError(
            f"two columns are named {twice!r}, of which JSON lines would keep one",
            hint="give one of them another name: select a as b",
        )


def _count(reader: pa.RecordBatchReader, write: Any) -> int:
    count = 0
    for batch in reader:
        write(batch)
        count += len(batch)
    return count


def _jsonl(out: BinaryIO) -> Any:
    def write(batch: pa.RecordBatch) -> None:
        for rows in _pieces(batch):
            lines = (json.dumps(dict(zip(batch.schema.names, r, strict=True)), ensure_ascii=False)
                     for r in rows)  # fmt: skip
            out.write("".join(line + "\n" for line in lines).encode("utf-8", "surrogatepass"))

    return write


def _csv(schema: pa.Schema, out: BinaryIO) -> Any:
    def put(rows: Iterable[Iterable[Any]]) -> None:
        # A row of one empty field would be a blank line, which is none.
        lines = (",".join(map(_cell, row)) or '""' for row in rows)
        out.write("".join(line + "\n" for line in lines).encode())

    def write(batch: pa.RecordBatch) -> None:
        for rows in _pieces(batch):
            put(rows)

    put([schema.names])
    return write


def _cell(value: Any) -> str:
    """A field as RFC 4180 has it. Not by the module `csv`, which leaves a lone CR without quotes
    (readers begin a row there), and writes null and the empty text alike."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if text and not _TO_QUOTE.search(text):
        return text
    return '"' + text.replace('"', '""') + '"'


def _pieces(batch: pa.RecordBatch) -> Iterator[Iterator[tuple[Any, ...]]]:
    # A dictionary's texts are written out for each row that has them, however long they are.
    each = batch.nbytes // max(1, len(batch)) + sum(map(_longest, batch.columns))
    step = max(1, min(_STEP, _BYTES // max(1, each)))
    for at in range(0, len(batch), step):
        columns = [plain(column) for column in batch.slice(at, step).columns]
        yield zip(*columns, strict=True)


def _longest(array: pa.Array) -> int:
    """Bytes of the longest text of a column that is a dictionary."""
    if not pt.is_dictionary(array.type) or is_by_hand(array.type):
        return 0
    return pc.max(pc.binary_length(array.dictionary)).as_py() or 0


def plain(array: pa.Array) -> list[Any]:
    """The values of an array as what JSON has."""
    kind = array.type
    if not len(array):
        return []
    if isinstance(array, pa.ExtensionArray):
        return _texts(array) if str(kind) == "extension<arrow.uuid>" else plain(array.storage)
    if pt.is_dictionary(kind):
        return plain(array.dictionary_decode())
    if pt.is_floating(kind):
        return [v if v is None or abs(v) < float("inf") else _unusual(v) for v in array.to_pylist()]
    if pt.is_duration(kind):
        return plain(array.cast(pa.int64()))
    if pt.is_interval(kind):  # DuckDB's durations
        return [None if v is None else _interval(*v) for v in array.to_pylist()]
    if pt.is_temporal(kind):
        return [None if v is None else _iso(v) for v in _time_texts(array)]
    if pt.is_decimal(kind):
        return _cast_text(array)
    if any(f(kind) for f in (pt.is_binary, pt.is_large_binary, pt.is_fixed_size_binary)) or (
        kind == pa.binary_view()
    ):
        return [None if v is None else base64.b64encode(v).decode() for v in array.to_pylist()]
    if pt.is_struct(kind):
        fields = [plain(array.field(i)) for i in range(kind.num_fields)]
        names = [field.name for field in kind]
        rows = zip(*fields, strict=True) if fields else iter([()] * len(array))
        there = array.is_valid().to_pylist()
        pairs = (list(zip(names, row, strict=True)) for row in rows)
        # An object has one value for each key, and a struct can have two fields of one name.
        one_each = len(set(names)) == len(names)
        return [
            None if not valid else dict(row) if one_each else [list(pair) for pair in row]
            for row, valid in zip(pairs, there, strict=True)
        ]
    if pt.is_map(kind):
        return _maps(array)
    if pt.is_list_view(kind) or pt.is_large_list_view(kind) or pt.is_fixed_size_list(kind):
        array = array.cast(pa.large_list(kind.value_field))
        kind = array.type
    if pt.is_list(kind) or pt.is_large_list(kind):
        return _lists(array, plain(_own(array, array.values)))
    return list(array.to_pylist())


def _unusual(value: float) -> str:
    return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"


def _interval(months: int, days: int, nanoseconds: int) -> str:
    """ISO 8601."""
    seconds, rest = divmod(abs(nanoseconds), 10**9)
    part = f".{rest:09}".rstrip("0") if rest else ""
    return f"P{months}M{days}DT{'-' if nanoseconds < 0 else ''}{seconds}{part}S"


def _iso(text: str) -> str:
    # What is beyond all calendars Arrow calls "<value out of range: 1>".
    return text if text.startswith("<") else text.replace(" ", "T", 1)


def _time_texts(array: pa.Array) -> list[Any]:
    """In their zone; in UTC where the zone is in no list, and where a time is beyond Arrow's
    calendar, for which it would write another year without a word."""
    if not pt.is_timestamp(array.type) or array.type.tz is None:
        return _cast_text(array)
    counts, unit = array.cast(pa.int64()), array.type.unit
    ends = [end // _PER_SECOND[unit] for end in pc.min_max(counts).as_py().values() if end]
    if all(end in _CALENDAR for end in ends):
        with suppress(pa.ArrowInvalid):
            return _cast_text(array)
    texts = _cast_text(counts.cast(pa.timestamp(unit)))
    return [text if text is None or text.startswith("<") else text + "Z" for text in texts]


def _cast_text(array: pa.Array) -> list[Any]:
    return list(array.cast(pa.string()).to_pylist())


def _texts(array: pa.Array) -> list[Any]:
    return [None if value is None else str(value) for value in array.to_pylist()]


def _own(array: Any, values: pa.Array) -> pa.Array:
    """Of the values of lists those of these: a slice of an array has all of the whole."""
    first, end = array.offsets[0].as_py(), array.offsets[-1].as_py()
    return values.slice(first, end - first)


def _lists(array: Any, values: list[Any]) -> list[Any]:
    """``values``: those that the lists have."""
    ends = pc.subtract(array.offsets, array.offsets[0]).to_pylist()
    there = array.is_valid().to_pylist()
    return [
        values[start:end] if valid else None
        for (start, end), valid in zip(pairwise(ends), there, strict=True)
    ]


def _maps(array: Any) -> list[Any]:
    sides = (plain(_own(array, side)) for side in (array.keys, array.items))
    pairs = list(zip(*sides, strict=True))
    of_text = pt.is_string(array.type.key_type) or pt.is_large_string(array.type.key_type)
    found = _lists(array, pairs)
    return [
        None
        if m is None
        else dict(m)
        if of_text and len({key for key, _ in m}) == len(m)
        else [list(pair) for pair in m]
        for m in found
    ]
