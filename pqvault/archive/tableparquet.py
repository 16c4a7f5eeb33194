"""A table written as plain Parquet: row groups as they are, of the columns that the keys open."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pyarrow as pa

from pqvault.archive.tablerows import TableRows
from pqvault.lazy import LazyModule

__all__ = ["MAX_TABLE", "parquet_name", "write_parquet"]

pq = LazyModule("pyarrow.parquet")

MAX_TABLE: Final = 2**62  # bytes; how large a file comes out is known when it is written
_LEAST: Final = 128 * 1024 * 1024  # bytes in memory of the pieces of large row groups


def parquet_name(path: bytes) -> bytes:
    """Where a table lands as a file: its path, with ``.parquet`` unless that is its end."""
    return path if path.endswith(b".parquet") else path + b".parquet"


def write_parquet(
    rows: TableRows,
    pwrite: Callable[[memoryview, int], object],
    check: Callable[[], object],
    on_bytes: Callable[[int], object],
) -> int:
    """Write the rows to ``pwrite(data, offset)``: the bytes written. ``check`` may raise to stop.

    Every page is authenticated before its row group is written anew.
    """
    sink = _Sink(pwrite)
    writer = pq.ParquetWriter(
        pa.PythonFile(sink, mode="w"),
        rows.schema,
        compression="zstd",
        sorting_columns=rows.sorting(),
    )
    for table in rows.row_groups(check=check, least=_LEAST):
        writer.write_table(table, row_group_size=max(1, len(table)))
        on_bytes(table.nbytes)
    writer.close()
    return sink.at


class _Sink:
    """A file for Parquet's writer, over ``pwrite``."""

    closed = False

    def __init__(self, pwrite: Callable[[memoryview, int], Any]) -> None:
        self._pwrite = pwrite
        self.at = 0

    def write(self, data: bytes) -> int:
        self._pwrite(memoryview(data), self.at)
        self.at += len(data)
        return len(data)

    def tell(self) -> int:
        return self.at

    def flush(self) -> None:
        """Nothing is buffered here."""

    def close(self) -> None:
        """The file ends when it is committed."""
