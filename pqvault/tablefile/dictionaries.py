"""Dictionaries of values that are not text: Parquet keeps the values, and Arrow casts none back."""

from __future__ import annotations

import pyarrow as pa

from pqvault.lazy import LazyModule

__all__ = ["is_by_hand", "with_type"]

pt = LazyModule("pyarrow.types")


def is_by_hand(wanted: pa.DataType) -> bool:
    """Whether values become ``wanted`` here, because Arrow reads and casts to no such type."""
    if not pt.is_dictionary(wanted):
        return False
    value = wanted.value_type
    return not (
        pt.is_string(value)
        or pt.is_large_string(value)
        or pt.is_binary(value)
        or pt.is_large_binary(value)
    )


def with_type(column: pa.ChunkedArray, wanted: pa.DataType) -> pa.ChunkedArray:
    """A column with another type. Raises pa.ArrowException where that loses something."""
    if not is_by_hand(wanted):
        return column.cast(wanted)
    pieces = [p for chunk in column.cast(wanted.value_type).chunks for p in _encoded(chunk, wanted)]
    return pa.chunked_array(pieces, wanted)


def _encoded(values: pa.Array, wanted: pa.DataType) -> list[pa.DictionaryArray]:
    """One dictionary, or one for as many rows as it can number."""
    found = values.dictionary_encode()
    most = 2 ** (wanted.index_type.bit_width - pt.is_signed_integer(wanted.index_type))
    if len(found.dictionary) > most:
        return [
            piece
            for at in range(0, len(values), most)
            for piece in _encoded(values.slice(at, most), wanted)
        ]
    indices = found.indices.cast(wanted.index_type)
    return [pa.DictionaryArray.from_arrays(indices, found.dictionary, ordered=wanted.ordered)]
