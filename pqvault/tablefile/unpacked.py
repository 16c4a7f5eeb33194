"""How many rows of a row group are read at once, so that a table takes no more memory than an
honest one, whatever it unpacks to."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Final

import pyarrow as pa

from pqvault.lazy import LazyModule
from pqvault.tablefile.pagewalk import Page, PageWalk

__all__ = [
    "PIECE",
    "ROW",
    "Chunk",
    "Leaf",
    "chunk_of",
    "leaves",
    "nulls",
    "rows_at_once",
    "texts_of",
]

pc = LazyModule("pyarrow.compute")
pt = LazyModule("pyarrow.types")

_WHOLE: Final = 1024 * 1024 * 1024  # bytes of a row group that is read in one; ours have 512 MiB
_ROWS: Final = 2**24  # at once, at the most: rows of nothing but nulls take no memory
ROW: Final = 2**31  # bytes of texts that pyarrow reads of one row
PIECE: Final = 128 * 1024 * 1024  # bytes of rows read at once of one that has more
_TINY: Final = 4096  # bytes of a column chunk of numbers, which unpack to 128 MiB at the most
_SCAN: Final = 16 * 1024 * 1024  # bytes that the texts of a dictionary become without a look at it
_NEVER: Final = 2**62
_TEXT: Final = 8  # bytes of a text besides its own: an offset
_LEVEL: Final = 8  # bytes of a value of a list or struct besides its own: levels, offsets
_STRICT: Final = {"UNCOMPRESSED", "ZSTD", "SNAPPY", "GZIP"}  # codecs of which that is so


@dataclass(frozen=True, slots=True)
class Leaf:
    """A column as Parquet has it. ``column``: the column of the table that it belongs to;
    ``width``: bytes of a value besides texts; ``fixed``: values that a row has even when the file
    has one for it, a null; ``coded``: read as a dictionary, in which each text stands once;
    ``listed``: texts in a list, so that one row can have any number."""

    column: str
    width: int
    fixed: int
    coded: bool
    listed: bool


def leaves(schema: pa.Schema) -> list[Leaf]:
    """The leaves of a file's schema, in its order."""
    return [leaf for field in schema for leaf in _below(field.type, field.name, 0, 1, False)]


def _below(kind: pa.DataType, column: str, width: int, fixed: int, listed: bool) -> list[Leaf]:
    """The last three: what the lists and structs around it make of it."""
    if isinstance(kind, pa.BaseExtensionType):
        return _below(kind.storage_type, column, width, fixed, listed)
    if pt.is_dictionary(kind):
        return [Leaf(column, width + 4, fixed, coded=True, listed=False)]
    if kind.num_fields:
        width += _LEVEL
        fixed *= kind.list_size if pt.is_fixed_size_list(kind) else 1
        listed = listed or not pt.is_struct(kind)
        inner = [kind.field(i).type for i in range(kind.num_fields)]
        return [leaf for one in inner for leaf in _below(one, column, width, fixed, listed)]
    try:
        return [Leaf(column, width - (-kind.bit_width // 8), fixed, coded=False, listed=False)]
    except ValueError:
        return [Leaf(column, width + _TEXT, fixed, coded=False, listed=listed)]


class Chunk:
    """One leaf in a row group of so many ``rows``. ``values``: how many it has there."""

    def __init__(self, leaf: Leaf, values: int, rows: int, pages: Sequence[Page]) -> None:
        self._leaf, self._values, self._rows = leaf, values, max(1, rows)
        self._pages = pages
        self._ends = list(accumulate(page.values for page in pages))

    def most(self, rows: int) -> int:
        """The most bytes that so many rows, one after another, take; of lists, that rows of usual
        length take."""
        values = min(self._values, -(-rows * self._values // self._rows))
        cost = [page.size + min(values, page.values) * page.each for page in self._pages]
        upto = [0, *accumulate(cost)]
        texts = 0
        for first, end in enumerate(self._ends):  # from the last value of each page on
            last = bisect_left(self._ends, end - 1 + values)
            texts = max(texts, upto[min(last + 1, len(cost))] - upto[first])
        return max(values, rows * self._leaf.fixed) * self._leaf.width + texts


def rows_at_once(chunks: Sequence[Chunk], rows: int) -> int:
    """How many of a row group's ``rows`` are read at once: all, or as many as stay within 128 MiB.

    ``chunks``: what is read of it.
    """
    found = max(1, rows)
    if sum(chunk.most(rows) for chunk in chunks) <= _WHOLE:
        return min(found, _ROWS)
    while found > 1 and sum(chunk.most(found) for chunk in chunks) > PIECE:
        found //= 2
    return min(found, _ROWS)


def texts_of(array: pa.Array) -> int:
    """Bytes that the texts of all dictionaries in an array have when they are written out."""
    kind = array.type
    if isinstance(array, pa.ExtensionArray):
        return texts_of(array.storage)
    if pt.is_dictionary(kind):
        return pc.sum(pc.binary_length(array.dictionary).take(array.indices)).as_py() or 0
    if pt.is_map(kind):
        return texts_of(array.keys) + texts_of(array.items)
    if pt.is_struct(kind):
        return sum(texts_of(array.field(i)) for i in range(kind.num_fields))
    return texts_of(array.values) if kind.num_fields else 0


def nulls(field: pa.Field, rows: int) -> list[Chunk]:
    """A column that a part does not have."""
    return [Chunk(leaf, rows, rows, ()) for leaf in leaves(pa.schema([field]))]


def chunk_of(walk: PageWalk, chunk: Any, group: int, place: int, leaf: Leaf, rows: int) -> Chunk:
    """A leaf in a row group of a file. ``chunk``: its metadata; ``place``: in the file. Raises
    IntegrityError, FormatError."""
    values = chunk.num_values
    if chunk.physical_type == "BYTE_ARRAY":
        pages = list(walk.pages(chunk, group, place, _NEVER if leaf.coded else _SCAN))
        if leaf.coded:
            pages = [Page(page.values, page.size, 0) for page in pages]
        return Chunk(leaf, values, rows, pages)
    if chunk.total_compressed_size <= _TINY and chunk.compression in _STRICT:
        return Chunk(leaf, values, rows, ())
    # One of them is in memory at a time.
    largest = max((page.size for page in walk.pages(chunk, group, place, _NEVER)), default=0)
    return Chunk(leaf, values, rows, (Page(values, largest, 0),))
