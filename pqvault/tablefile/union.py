"""One schema for the parts of a table: columns by name, types promoted where nothing is lost."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from pqvault.errors import UsageError
from pqvault.lazy import LazyModule

__all__ = ["promote", "union"]

pt = LazyModule("pyarrow.types")


def union(schemas: Sequence[tuple[str, pa.Schema]], what: str) -> pa.Schema:
    """The schema of all, each with the name of its part; columns in the order of the last part,
    those that only older parts have behind them.

    Raises UsageError naming the column, of the table ``what``, and both parts when its types have
    nothing in common.
    """
    newest = schemas[-1][1]
    if all(schema.equals(newest, check_metadata=True) for _, schema in schemas):
        return newest
    fields: dict[str, pa.Field] = {}
    first: dict[str, str] = {}
    for part, schema in reversed(schemas):
        for field in schema:
            known = fields.get(field.name)
            if known is None:
                fields[field.name] = field
                first[field.name] = part
                continue
            merged = promote(known.type, field.type)
            if merged is None:
                raise UsageError(
                    f"the column {field.name!r} of {what} is {field.type} in {part} and"
                    f" {known.type} in {first[field.name]}, and no type holds both",
                    hint="read the parts one by one with --as-of, or write the table anew",
                )
            fields[field.name] = known.with_type(merged).with_nullable(
                known.nullable or field.nullable
            )
    # Where a part does not have a column, its rows have no value in it.
    everywhere = set.intersection(*(set(schema.names) for _, schema in schemas))
    columns = [f if f.name in everywhere else f.with_nullable(True) for f in fields.values()]
    return pa.schema(columns, newest.metadata)


def promote(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """The least type that holds every value of both; None when there is none."""
    if one == other or pt.is_null(other):
        return one
    if pt.is_null(one):
        return other
    if pt.is_dictionary(one) or pt.is_dictionary(other):
        return promote(_values_of(one), _values_of(other))
    for a, b in ((one, other), (other, one)):
        found = _one_way(a, b)
        if found is not None:
            return found
    # Once, for it is the same either way: twice at each level, deep types would take for ever.
    return _nested(one, other)


def _values_of(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pt.is_dictionary(kind) else kind


_UNITS = ("s", "ms", "us", "ns")
_TEXT = (pa.string(), pa.string_view(), pa.large_string())
_BYTES = (pa.binary(), pa.binary_view(), pa.large_binary())
_FLOATS = {16: pa.float16(), 32: pa.float32(), 64: pa.float64()}
_EXACT = {16: 11, 32: 24, 64: 53}  # bits of an integer that a float of so many bits holds


def _one_way(a: pa.DataType, b: pa.DataType) -> pa.DataType | None:
    """``b`` or something larger when it takes all of ``a``."""
    if pt.is_integer(a) and pt.is_integer(b):
        return _integer(a, b)
    if pt.is_integer(a) and pt.is_floating(b):
        bits = a.bit_width - pt.is_signed_integer(a)
        fits = (w for w in (16, 32, 64) if w >= b.bit_width and _EXACT[w] >= bits)
        return next((_FLOATS[w] for w in fits), None)
    if pt.is_floating(a) and pt.is_floating(b):
        return a if a.bit_width > b.bit_width else b
    for kinds in (_TEXT, _BYTES):
        if a in kinds and b in kinds:
            return kinds[-1]
    if pt.is_fixed_size_binary(a) and b in _BYTES:
        return b
    if pt.is_decimal(a) and pt.is_decimal(b):
        return _decimal(a, b)
    if pt.is_integer(a) and pt.is_decimal(b):
        digits = len(str(2 ** (a.bit_width - pt.is_signed_integer(a))))
        return b if b.precision - b.scale >= digits else None
    if pt.is_date32(a) and pt.is_date64(b):
        return b
    if pt.is_timestamp(a) and pt.is_timestamp(b) and a.tz == b.tz:
        return pa.timestamp(max(a.unit, b.unit, key=_UNITS.index), a.tz)
    return None


def _integer(a: pa.DataType, b: pa.DataType) -> pa.DataType | None:
    signed = {8: pa.int8(), 16: pa.int16(), 32: pa.int32(), 64: pa.int64()}
    if pt.is_signed_integer(a) == pt.is_signed_integer(b):
        return a if a.bit_width > b.bit_width else b
    unsigned, other = (b, a) if pt.is_signed_integer(a) else (a, b)
    width = max(2 * unsigned.bit_width, other.bit_width)
    return signed.get(width)


def _decimal(a: pa.DataType, b: pa.DataType) -> pa.DataType | None:
    scale = max(a.scale, b.scale)
    digits = max(a.precision - a.scale, b.precision - b.scale) + scale
    if digits <= 38:
        return pa.decimal128(digits, scale)
    return pa.decimal256(digits, scale) if digits <= 76 else None


def _nested(a: pa.DataType, b: pa.DataType) -> pa.DataType | None:
    if pt.is_struct(a) and pt.is_struct(b):
        fields = {field.name: field for field in b}
        if {field.name for field in a} != set(fields) or len(fields) != a.num_fields:
            return None  # a cast of Arrow's fills no field of a struct in
        merged = []
        for field in b:
            other = a.field(field.name)
            kind = promote(field.type, other.type)
            if kind is None:
                return None
            merged.append(field.with_type(kind).with_nullable(field.nullable or other.nullable))
        return pa.struct(merged)
    lists = (pt.is_list, pt.is_large_list)
    if any(f(a) for f in lists) and any(f(b) for f in lists):
        inner = promote(a.value_type, b.value_type)
        if inner is None:
            return None
        item = b.value_field.with_type(inner)
        return pa.large_list(item) if any(map(pt.is_large_list, (a, b))) else pa.list_(item)
    return None
