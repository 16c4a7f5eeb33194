"""Polars: lazy frames over Parquet files of an archive, by Polars' own interface for sources.

Columns that a query does not need are neither read nor decrypted.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import fsspec
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
from polars.io.plugins import register_io_source

__all__ = ["scan_parquet"]

_ROWS = 65_536  # a batch, where the query does not say


def scan_parquet(url: str, **options: Any) -> pl.LazyFrame:
    """A file or folder of Parquet (``pqvault://corpus/rows::file:///data/corpus.pqv``).

    Folders named ``key=value`` in a folder are columns, as they are for Polars' own.

    ``options``: of the file system; references to keys, never keys.
    """
    filesystem, path = fsspec.url_to_fs(url, **options)
    hive = "hive" if filesystem.isdir(path) else None
    rows = ds.dataset(path, filesystem=filesystem, format="parquet", partitioning=hive)
    schema = _frame(rows.schema.empty_table()).schema

    def batches(
        columns: list[str] | None, predicate: pl.Expr | None, limit: int | None, size: int | None
    ) -> Iterator[pl.DataFrame]:
        needed = columns
        if columns is not None and predicate is not None:
            needed = list(dict.fromkeys([*columns, *predicate.meta.root_names()]))
        left = limit
        for batch in rows.to_batches(columns=needed, batch_size=size or _ROWS):
            frame = _frame(pa.Table.from_batches([batch]))
            if left is not None:
                frame = frame.head(left)
                left -= len(frame)
            if predicate is not None:
                frame = frame.filter(predicate)
            yield frame if columns is None else frame.select(columns)
            if left == 0:
                return

    return register_io_source(batches, schema=schema)


def _frame(table: pa.Table) -> pl.DataFrame:
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)  # of a table
    return frame
