"""Arrow schemas: what Parquet can hold, and what it gives back of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, TypeAlias

import pyarrow as pa

from pqvault.errors import FormatError, UsageError
from pqvault.lazy import LazyModule
from pqvault.tablefile.dictionaries import with_type
from pqvault.tablefile.views import storable

__all__ = [
    "Sorting",
    "as_stored",
    "check_schema",
    "first_line",
    "leaf_paths",
    "parse_schema",
    "same_types",
    "sorting_columns",
    "sorting_of",
]

pq = LazyModule("pyarrow.parquet")

# How rows are sorted within each row group: pyarrow SortingColumns, by leaves of the whole schema.
Sorting: TypeAlias = Sequence[Any]


def parse_schema(data: bytes, what: str) -> pa.Schema:
    """An Arrow IPC schema message. Raises FormatError."""
    source = pa.BufferReader(data)
    try:
        schema = pa.ipc.read_schema(source)
    except (pa.ArrowException, OSError, ValueError, TypeError):
        raise FormatError(f"{what} has a schema that is damaged") from None
    if source.tell() != len(data):
        raise FormatError(f"{what} has {len(data) - source.tell()} bytes behind its schema")
    if len(set(schema.names)) != len(schema):
        raise FormatError(f"{what} has two columns of one name")
    return schema


def as_stored(schema: pa.Schema) -> pa.Schema:
    """What Parquet gives back of ``schema``: `date64` becomes `date32`, and so on.

    Found by asking, because it is Arrow's to say. Raises pa.ArrowException for a type that
    Parquet does not have.
    """
    return pq.read_schema(pa.BufferReader(_empty_file(schema)))


def _empty_file(schema: pa.Schema) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    pq.write_table(schema.empty_table(), sink)
    return sink.getvalue()


def sorting_columns(sorting: Sorting, whole: pa.Schema, part: pa.Schema) -> Sorting | None:
    """``sorting`` of the rows of ``whole`` for a file of its columns ``part``: the beginning of
    it that is there, for rows sorted by two columns are sorted by the first of them."""
    if not sorting:
        return None
    paths, places = leaf_paths(whole), {path: i for i, path in enumerate(leaf_paths(part))}
    found = []
    for column in sorting:
        place = places.get(paths[column.column_index])
        if place is None:
            break
        found.append(pq.SortingColumn(place, column.descending, column.nulls_first))
    return found or None


def leaf_paths(schema: pa.Schema) -> list[str]:
    """The paths of all leaf columns, as Parquet names them: `messages.list.element.role`."""
    leaves = pq.read_metadata(pa.BufferReader(_empty_file(schema))).schema
    return [leaves.column(i).path for i in range(len(leaves))]


def sorting_of(metadata: Any) -> Sorting:
    """How a Parquet file says that its rows are sorted; none unless all row groups agree."""
    said = {tuple(metadata.row_group(i).sorting_columns) for i in range(metadata.num_row_groups)}
    return said.pop() if len(said) == 1 else ()


def check_schema(schema: pa.Schema, what: str) -> None:
    """Raise UsageError, naming the column, unless all of it can be kept and given back."""
    schema = storable(schema)
    if not len(schema):
        raise UsageError(f"{what} has no columns")
    twice = next((name for name, count in Counter(schema.names).items() if count > 1), None)
    if twice is not None:
        raise UsageError(f"{what} has two columns named {twice!r}", hint="rename one of them")
    try:
        stored = as_stored(schema)
    except (pa.ArrowException, ValueError, OSError):  # OSError: nested too deeply
        suspects = list(schema)  # one by one, to name it
    else:
        pairs = zip(schema, stored, strict=True)
        suspects = [c for c, s in pairs if c.type != s.type or _has_empty_lists(c.type)]
    for column in suspects:
        _check_column(column, what)


def _check_column(column: pa.Field, what: str) -> None:
    try:
        if _has_empty_lists(column.type):
            raise ValueError("a list of a fixed size of 0 does not come back from Parquet")
        stored = as_stored(pa.schema([column])).field(0).type
        if stored != column.type:
            with_type(pa.chunked_array([pa.nulls(1, stored)]), column.type)
    except (pa.ArrowException, ValueError, OSError) as error:
        raise UsageError(
            f"the column {column.name!r} of {what} has the type {column.type}, which a table"
            f" cannot hold: {first_line(error)}",
            hint="cast it to another type first",
        ) from None


def _has_empty_lists(kind: pa.DataType) -> bool:
    """Whether a list of the fixed size 0 is in a type: Arrow writes it and cannot read it."""
    if isinstance(kind, pa.BaseExtensionType):
        return _has_empty_lists(kind.storage_type)
    if pa.types.is_fixed_size_list(kind) and not kind.list_size:
        return True
    return any(_has_empty_lists(kind.field(i).type) for i in range(kind.num_fields))


def same_types(one: pa.Schema, other: pa.Schema) -> bool:
    """Names, types and nullability; what is said beside them does not matter."""
    return bool(one.equals(other))


def first_line(error: BaseException) -> str:
    """Of an error of Arrow's, which may carry a stack."""
    text: Any = str(error).splitlines()
    return text[0] if text else type(error).__name__
