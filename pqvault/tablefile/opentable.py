"""OpenTable: the row groups of one table file, read whole or, where one is large, in pieces."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, Final

import pyarrow as pa

from pqvault.errors import FormatError
from pqvault.lazy import LazyModule
from pqvault.tablefile.encryption import decryption
from pqvault.tablefile.pagewalk import PageWalk
from pqvault.tablefile.reader import TableFile, trouble
from pqvault.tablefile.unpacked import PIECE, ROW, Chunk, chunk_of, texts_of

__all__ = ["OpenTable"]

pq = LazyModule("pyarrow.parquet")

_HOLE: Final = 64 * 1024  # bytes between column chunks that are fetched with them


class OpenTable:
    """A table file that was checked, open to be read by one thread."""

    def __init__(self, file: TableFile) -> None:
        self._path, self._keys = file.path, file.keys
        self._size = file.size
        self._leaves = file.leaves
        self._file, self._held = file.opened()
        self.rows = file.row_groups()
        """Of each row group."""
        with trouble(self._path):
            self._metadata = file.fragment.metadata
            self._parquet = pq.ParquetFile(
                self._file,
                decryption_properties=decryption(*self._keys),
                metadata=self._metadata,
            )

    @cached_property
    def _walk(self) -> PageWalk:
        return PageWalk(self._pread, self._size, *self._keys, self._path)

    def _pread(self, offset: int, length: int) -> bytes:
        return bytes(self._file.read_at(length, offset))

    def chunks(
        self, index: int, columns: Collection[str] | None = None, written_out: Collection[str] = ()
    ) -> list[Chunk]:
        """What a row group has of these columns, or of all.

        ``written_out``: columns that do not stay dictionaries. Raises IntegrityError, FormatError.
        """
        chosen = None if columns is None else set(columns)
        wanted = [
            (place, replace(leaf, coded=False) if leaf.column in written_out else leaf)
            for place, leaf in enumerate(self._leaves)
            if chosen is None or leaf.column in chosen
        ]
        with trouble(self._path):
            group = self._metadata.row_group(index)
            found = [(group.column(place), place, leaf) for place, leaf in wanted]
            if self._held is not None:
                self._held.hold(self._ranges([chunk for chunk, _, _ in found]))
            return [
                chunk_of(self._walk, chunk, index, place, leaf, self.rows[index])
                for chunk, place, leaf in found
            ]

    def measured(self, index: int, columns: Collection[str] | None, rows: int) -> int:
        """How many rows, ``rows`` or fewer, can be in memory where the lists of some have far
        more texts than those of others: which no header says, and dictionaries do.

        Raises FormatError for a row of over 2 GiB.
        """
        group = self._metadata.row_group(index)
        listed = {
            group.column(place).path_in_schema: leaf.column
            for place, leaf in enumerate(self._leaves)
            if leaf.listed and (columns is None or leaf.column in columns)
            if group.column(place).physical_type == "BYTE_ARRAY"
        }
        if not listed or rows >= self.rows[index] > 1:
            return rows
        with trouble(self._path):
            coded = pq.ParquetFile(
                self._file,
                decryption_properties=decryption(*self._keys),
                metadata=self._metadata,
                read_dictionary=list(listed),
            )
            while True:
                batches = coded.iter_batches(
                    rows, row_groups=[index], columns=[*{*listed.values()}]
                )
                largest = max((sum(map(texts_of, batch.columns)) for batch in batches), default=0)
                if largest <= 2 * PIECE or rows == 1:
                    break
                rows = max(1, rows * PIECE // largest)
        if largest > ROW:
            raise FormatError(f"row group {index} of {self._path} has a row of over 2 GiB")
        return rows

    def _ranges(self, chunks: Sequence[Any]) -> list[tuple[int, int]]:
        """Where column chunks are in the file; those that lie together as one."""
        found: list[tuple[int, int]] = []
        for begin, end in sorted(map(self._walk.extent, chunks)):
            if found and begin <= found[-1][1] + _HOLE:
                found[-1] = (found[-1][0], max(end, found[-1][1]))
            else:
                found.append((begin, end))
        return found

    def pieces(self, index: int, columns: Sequence[str] | None, rows: int) -> Iterator[pa.Table]:
        """A row group in order, so many rows at a time. Raises IntegrityError."""
        with trouble(self._path):
            if rows >= self.rows[index]:
                threads = columns is None or len(columns) > 1
                table = self._parquet.read_row_group(index, columns=columns, use_threads=threads)
                table.validate()
                batches = None
            else:
                batches = self._parquet.iter_batches(rows, row_groups=[index], columns=columns)
        if batches is None:
            yield table
            return
        while True:
            with trouble(self._path):
                batch = next(batches, None)
                if batch is None:
                    return
                batch.validate()
            yield pa.Table.from_batches([batch])
