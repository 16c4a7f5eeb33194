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

from pqvault.logs.schema import JSON

__all__ = ["json_lines"]

# What could deceive a terminal and JSON lets through: delete, C1, marks of direction and of lines.
_DECEIVING: Final = re.compile("[\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def json_lines(table: pa.Table) -> Iterator[str]:
    """One line for each row, columns without a value left out. Columns of JSON are what they say,
    times are ISO 8601, bytes base64; non-finite floats are strings, as JSON has none."""
    as_json = {
        f.name for f in table.schema if f.metadata and dict(JSON).items() <= f.metadata.items()
    }
    for row in table.to_pylist():
        shown = {
            name: _parsed(value) if name in as_json else value
            for name, value in row.items()
            if value is not None
        }
        yield _escaped(json.dumps(_plain(shown), ensure_ascii=False, separators=(",", ":")))


def _escaped(text: str) -> str:
    return _DECEIVING.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _parsed(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=str)
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
