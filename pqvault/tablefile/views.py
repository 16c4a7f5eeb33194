"""Texts and bytes as views (`string_view`), as Polars hands them over.

Arrow filters, takes and compares none, so expressions see large texts in their place; and it writes
none within structs or dictionaries to Parquet, so there large texts are kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pyarrow as pa

from pqvault.lazy import LazyModule

__all__ = ["storable", "with_fields", "without_views"]

pt = LazyModule("pyarrow.types")

_PLAIN: Final = {pa.string_view(): pa.large_string(), pa.binary_view(): pa.large_binary()}


def without_views(schema: pa.Schema) -> pa.Schema:
    """A schema with large texts and bytes in the place of views, at any depth."""
    return pa.schema(list(map(_plain_field, schema)), schema.metadata)


def storable(schema: pa.Schema) -> pa.Schema:
    """A schema with views only where they are columns themselves."""
    fields = [f if f.type in _PLAIN else _plain_field(f) for f in schema]
    return pa.schema(fields, schema.metadata)


def _plain_field(field: pa.Field) -> pa.Field:
    kind = field.type
    plain = _plain(kind)
    return field if plain is kind else field.with_type(plain)


def _plain(kind: pa.DataType) -> pa.DataType:
    if kind.num_fields:
        return with_fields(kind, _plain_field)
    if pt.is_dictionary(kind):
        return pa.dictionary(kind.index_type, _plain(kind.value_type), kind.ordered)
    return _PLAIN.get(kind, kind)


def with_fields(kind: pa.DataType, change: Callable[[pa.Field], pa.Field]) -> pa.DataType:
    """A nested type with other fields; any other type as it is."""
    if pt.is_struct(kind):
        return pa.struct([change(kind.field(i)) for i in range(kind.num_fields)])
    if pt.is_map(kind):
        key = change(kind.key_field).with_nullable(False)
        return pa.map_(key, change(kind.item_field), kind.keys_sorted)
    if pt.is_fixed_size_list(kind):
        return pa.list_(change(kind.value_field), kind.list_size)
    lists = (make(change(kind.value_field)) for is_it, make in _lists() if is_it(kind))
    return next(lists, kind)


def _lists() -> list[tuple[Callable[[pa.DataType], bool], Any]]:
    return [
        (pt.is_list, pa.list_),
        (pt.is_large_list, pa.large_list),
        (pt.is_list_view, pa.list_view),
        (pt.is_large_list_view, pa.large_list_view),
    ]
