"""Records to rows on the caller's thread, rows to Arrow on the writer's.

A row is a snapshot: what the caller does to a record afterwards does not reach it. What becomes
JSON is copied, and where it is plain it becomes text on the writer's thread: pqvault.logs.held.
A value that does not fit its column is not lost: it goes to ``extra`` under its name, and the
column is null.
"""

from __future__ import annotations

import operator
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import pyarrow as pa

from pqvault.errors import UsageError
from pqvault.logs.held import Held, hold
from pqvault.logs.jsontext import escape_surrogates, to_json
from pqvault.logs.schema import ALIASES, DEFAULT, DROPPED, EXTRA, TIME, complete, is_json
from pqvault.tablefile import check_schema

__all__ = ["ESCAPED", "Encoder", "Row"]

Row = list[Any]
ESCAPED: Final = 6  # characters that JSON may make of one
_ROW_SIZE: Final = 256  # bytes that a row takes besides its text
_TRIMMED: Final = "pqvault.trimmed"  # in extra: columns in which something was nested too deep
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_UNFIT: Final = object()


class Encoder:
    """Of one schema. Thread-safe: it keeps nothing of the records."""

    def __init__(self, schema: pa.Schema = DEFAULT) -> None:
        try:
            self.schema = complete(schema)
        except pa.ArrowInvalid as error:
            raise UsageError(f"the schema cannot be that of a log: {error}") from None
        names = self.schema.names
        for field in self.schema:
            if _not_plain(field.type):
                raise UsageError(f"the column {field.name!r} of a log cannot be {field.type}")
        if len(set(names)) != len(names):
            raise UsageError("the schema of a log has two columns of one name")
        if schema is not DEFAULT:
            check_schema(self.schema, "a log")  # now, and not when its first part becomes a table
        fits = [_converter(field) for field in self.schema]
        slots = {name: (index, fits[index]) for index, name in enumerate(names)}
        aliases = {
            a: slots[name] for a, name in ALIASES.items() if a not in slots and name in slots
        }
        self._slots = aliases | slots
        self._blank: Row = [None] * len(names)
        self._time = names.index(TIME)
        self._extra = names.index(EXTRA)
        self._dropped = names.index(DROPPED)
        self._json = [i for i, fit in enumerate(fits) if fit is None or i == self._extra]

    def encode(self, record: Mapping[str, object]) -> tuple[Row, int, bool]:
        """A row, about how many bytes it takes, and whether it says all of the record.

        While it holds values, its texts have at most ``ESCAPED`` times that many characters.
        """
        row = self._blank.copy()
        size = _ROW_SIZE
        extra: dict[str, object] = {}
        trimmed: list[str] = []
        slots = self._slots
        for key, value in record.items():
            if value is None:
                continue
            slot = slots.get(key)
            if slot is None:
                extra[str(key)] = value
                continue
            index, fit = slot
            if index == self._extra:
                extra.update(value if isinstance(value, Mapping) else {EXTRA: value})
                continue
            if fit is None:
                value = hold(value)
                if value is None:
                    value, whole = to_json(record[key])
                    if not whole:
                        trimmed.append(key)
            elif type(value) is not str or fit is not _text:
                value = fit(value)
            if value is _UNFIT or row[index] is not None:
                extra[key] = record[key]
                continue
            row[index] = value
            if type(value) is str:
                size += len(value)
            elif type(value) is Held:
                size += value.size
        if row[self._time] is None:
            row[self._time] = time.time_ns() // 1000
        if extra and not trimmed and (held := hold(extra)) is not None:
            row[self._extra] = held
            size += held.size
        elif extra or trimmed:
            text, whole = to_json(extra)
            if not whole:
                trimmed.append(EXTRA)
            if trimmed:
                text = to_json({_TRIMMED: trimmed})[0][:-1] + ("," + text[1:] if extra else "}")
            row[self._extra] = text
            size += len(text)
        return row, size, not trimmed

    def dropped(self, count: int, reason: str) -> Row:
        """The row that says that records were lost."""
        row = self._blank.copy()
        row[self._time] = time.time_ns() // 1000
        row[self._dropped] = count
        row[self._extra] = to_json({"pqvault.reason": reason})[0]
        return row

    def settle(self, rows: Sequence[Row]) -> None:
        """Make the texts of JSON columns, of which rows hold the values until now."""
        places = self._json
        for row in rows:
            for place in places:
                if type(row[place]) is Held:
                    row[place] = row[place].text()

    def settled_size(self, row: Row) -> int:
        """About how many bytes a row takes once it is settled, which it is then."""
        self.settle([row])
        return _ROW_SIZE + sum(len(value) for value in row if type(value) is str)

    def batch(self, rows: Sequence[Row]) -> pa.RecordBatch:
        """Rows as columns; they are settled, if they were not."""
        if not rows:
            return pa.RecordBatch.from_pylist([], schema=self.schema)
        self.settle(rows)
        columns = zip(*rows, strict=True)
        arrays = [_array(c, f) for c, f in zip(columns, self.schema, strict=True)]
        return pa.RecordBatch.from_arrays(arrays, schema=self.schema)


def _not_plain(kind: pa.DataType) -> bool:
    """Whether a type needs more than its own buffers: a dictionary, or code of others."""
    if pa.types.is_dictionary(kind) or isinstance(kind, pa.BaseExtensionType):
        return True
    return any(_not_plain(kind.field(i).type) for i in range(kind.num_fields))


# -- one value, on the caller's thread -----------------------------------------------------


def _text(value: Any) -> Any:
    if isinstance(value, str):
        return str.__str__(value)  # what it holds: str() of an enum is the name of its member
    if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
        return ",".join(value) if value else None  # as finish reasons come
    return _UNFIT


def _integer(value: Any) -> Any:
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        return _UNFIT
    try:
        value = operator.index(value)
    except TypeError:  # an array has one, and is none
        return _UNFIT
    return value if -(2**63) <= value < 2**63 else _UNFIT


def _float(value: Any) -> Any:
    if isinstance(value, bool | str) or not hasattr(value, "__float__"):
        return _UNFIT
    if isinstance(value, int) and abs(value) > 2**53:
        return _UNFIT
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return _UNFIT


def _boolean(value: Any) -> Any:
    return value if isinstance(value, bool) else _UNFIT


def _micros(value: Any) -> Any:
    """A moment as µs since 1970. A number is seconds; a large whole one ms, µs or ns."""
    try:
        if isinstance(value, str):
            value = datetime.fromisoformat(value)
        if isinstance(value, datetime):
            if value.tzinfo is None:
                value = value.replace(tzinfo=UTC)
            past = value - _EPOCH
            return (past.days * 86_400 + past.seconds) * 1_000_000 + past.microseconds
        if isinstance(value, bool) or not isinstance(value, int | float):
            return _UNFIT
        if isinstance(value, int):
            for limit, factor in ((10**11, 1_000_000), (10**14, 1_000), (10**17, 1)):
                if abs(value) < limit:
                    return value * factor
            return value // 1000 if abs(value) < 10**20 else _UNFIT
        return round(value * 1e6) if abs(value) < 1e11 else _UNFIT
    except (ValueError, OverflowError):
        return _UNFIT


def _as_is(kind: pa.DataType) -> Callable[[Any], Any]:
    def fit(value: Any) -> Any:
        try:
            return pa.scalar(value, kind)  # a copy of it, made now
        except (pa.ArrowException, TypeError, ValueError, OverflowError):
            return _UNFIT

    return fit


def _converter(field: pa.Field) -> Callable[[Any], Any] | None:
    """What fits a value to a column; None for a column of JSON."""
    if is_json(field):
        return None
    kind = field.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return _text
    if pa.types.is_int64(kind):
        return _integer
    if pa.types.is_float64(kind):
        return _float
    if pa.types.is_boolean(kind):
        return _boolean
    if kind.equals(pa.timestamp("us", "UTC")):
        return _micros
    return _as_is(kind)


# -- one column, on the writer's thread ----------------------------------------------------


def _array(values: Sequence[Any], field: pa.Field) -> pa.Array:
    try:
        return pa.array(values, field.type)
    except UnicodeEncodeError:
        mend = escape_surrogates if is_json(field) else _replace_surrogates
        return pa.array([mend(v) if v is not None else None for v in values], field.type)


def _replace_surrogates(text: str) -> str:
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
