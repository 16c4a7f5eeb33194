"""How many values pyarrow takes at once while it makes pages.

It looks only between such batches whether a page is full (1 MiB), and its own choice, 1,024, makes
pages of 64 MiB of values of 64 KiB: each pass over one (copy, compress, encrypt, write) goes
through main memory, which took three times as long. Pages of about 2 MiB stay in the cache.
"""

from __future__ import annotations

from typing import Final

import pyarrow as pa

__all__ = ["batch_of"]

_MOST: Final = 1024  # values; pyarrow's own choice
_FEWEST: Final = 8  # values: the length of a page is seen from outside, and must not be that of one
_PAGE: Final = 2 * 1024 * 1024  # bytes


def batch_of(table: pa.Table) -> int:
    """``write_batch_size`` for rows like these: 8 to 1,024."""
    widest = max((_widest(c) for column in table.columns for c in column.chunks), default=0)
    return max(_FEWEST, min(_MOST, int(_PAGE // max(widest, 1))))


def _widest(array: pa.Array) -> float:
    """Bytes of a value, on the average, of the leaf that has the largest."""
    kind = array.type
    if isinstance(array, pa.ExtensionArray):
        return _widest(array.storage)
    if pa.types.is_struct(kind):
        return max(map(_widest, array.flatten()), default=0.0)
    if pa.types.is_map(kind):
        return max(_widest(array.keys), _widest(array.items))
    if kind.num_fields:  # lists of all kinds
        return _widest(array.flatten())
    return array.nbytes / len(array) if len(array) else 0.0
