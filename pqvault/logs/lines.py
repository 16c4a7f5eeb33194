"""Rows as JSON lines, for people and programs."""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Iterator
from datetime import date, datetime, time
from typing import Any, Final

import pyarrow as pa

from pqvault.logs.schema import is_json
from pqvault.tables.rows import plain

__all__ = ["json_lines"]

_STEP: Final = 8192  # rows made into Python objects at once
# What could deceive a terminal and JSON lets through: delete, C1, marks of direction and of lines.
_DECEIVING: Final = re.compile("[\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def json_lines(table: pa.Table) -> Iterator[str]:
    """One line for each row, columns without a value left out. Columns of JSON are what they say,
    times are ISO 8601, bytes base64; non-finite floats are strings, as JSON has none."""
    as_json = {field.name for field in table.schema if is_json(field)}
    names = table.schema.names
    for row in _rows(table):
        values = {n: v for n, v in zip(names, row, strict=True) if v is not None}
        try:
            parsed = {n: _parsed(v) if n in as_json else v for n, v in values.items()}
            yield _line(parsed)
        except RecursionError:  # JSON that is nested deeper than Python goes stays a text
            yield _line(values)


def _rows(table: pa.Table) -> Iterator[tuple[Any, ...]]:
    # Some at a time: a stranger may have put millions into a few bytes.
    for at in range(0, len(table), _STEP):
        piece = table.slice(at, _STEP)
        yield from zip(*map(_values, piece.columns), strict=True)


def _values(column: pa.ChunkedArray) -> list[Any]:
    try:
        return list(column.to_pylist())
    except (OverflowError, ValueError):  # a time that Python has none for, or in no zone it knows
        return [value for chunk in column.chunks for value in plain(chunk)]


def _line(row: dict[str, Any]) -> str:
    return _escaped(json.dumps(_plain(row), ensure_ascii=False, separators=(",", ":")))


def _escaped(text: str) -> str:
    return _DECEIVING.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _parsed(text: Any) -> Any:
    try:
        return json.loads(text, parse_constant=str) if isinstance(text, str) else text
    except (ValueError, RecursionError):
        return text  # not by our writer, but who can forbid it


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if value is None or isinstance(value, str | int | float | bool):
        return value
    return str(value)
