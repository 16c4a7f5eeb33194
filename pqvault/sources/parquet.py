"""A Parquet file as a source: its row groups, metadata and types as they are.

It is hostile input: its claims are compared with what is read, every value is validated, and no
extension type of the file runs code (pyarrow makes unknown ones their storage, ATTACKS row 32).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from pqvault.sources.base import (
    BATCH_BYTES,
    FileState,
    Source,
    SourceRefused,
    arrow_errors,
    arrow_path,
    check_names,
    checked,
    in_pieces,
)

__all__ = ["ParquetSource"]

# Rows of a batch. Few, because a column of one repeated text is far smaller in the file than in
# memory, and the file says how large it is: 2,048 rows are read as fast as 65,536.
_MAX_ROWS: Final = 2_048
_READ_AHEAD: Final = 1024 * 1024  # bytes of a column chunk that are read at once
_MAX_GROUPS: Final = 32_767  # of an encrypted file (its AAD counts in 16 bits)


class ParquetSource(Source):
    """Types, row groups, order, field metadata and key-value metadata are those of the file."""

    kind = "parquet"

    def __init__(self, path: str, name: str) -> None:
        self.name = name
        self._path = path
        self._state = FileState.of(path, name)
        _refuse_encrypted(path, name)
        with arrow_errors(name):
            self._file = pq.ParquetFile(
                arrow_path(path),
                buffer_size=_READ_AHEAD,
                pre_buffer=False,
                page_checksum_verification=True,
            )
        try:
            self._look()
        except BaseException:
            self.close()
            raise

    def _look(self) -> None:
        with arrow_errors(self.name):
            metadata = self._file.metadata
            read = self._file.schema_arrow
            groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
            self.row_groups = tuple(group.num_rows for group in groups)
            self._bytes = tuple(group.total_byte_size for group in groups)
            sorting = {tuple(group.sorting_columns) for group in groups}
        if len(groups) > _MAX_GROUPS:
            raise SourceRefused(
                f"{self.name} has {len(groups):,} row groups; an encrypted one can have"
                f" {_MAX_GROUPS:,}"
            )
        if min(self.row_groups, default=0) < 0 or sum(self.row_groups) != metadata.num_rows:
            raise SourceRefused(f"{self.name} counts its rows wrongly")
        self.rows = metadata.num_rows
        self.sorting = sorting.pop() if len(sorting) == 1 else ()
        self.schema = check_names(read, self.name)

    def batches(self) -> Iterator[pa.RecordBatch]:
        assert self.row_groups is not None
        for index, rows in enumerate(self.row_groups):
            yield from self._group(index, rows)
        self._state.check(self._path, self.name)

    def _group(self, index: int, rows: int) -> Iterator[pa.RecordBatch]:
        each = max(1, self._bytes[index] // max(1, rows))
        step = max(1, min(_MAX_ROWS, BATCH_BYTES // each))
        what = f"row group {index} of {self.name}"
        done = 0
        with arrow_errors(what):
            read = self._file.iter_batches(batch_size=step, row_groups=[index])
        while True:
            with arrow_errors(what):
                batch = next(read, None)
            if batch is None:
                break
            done += batch.num_rows
            yield from in_pieces(checked(batch, what))
        if done != rows:
            raise SourceRefused(f"{what} has {done:,} rows and says that it has {rows:,}")

    def close(self) -> None:
        self._file.close()


def _refuse_encrypted(path: str, name: str) -> None:
    with arrow_errors(name), open(path, "rb") as file:
        if file.read(4) == b"PARE":
            raise SourceRefused(
                f"{name} is encrypted Parquet, which opens with a key of its own",
                hint="seal it as a file, or decrypt it first",
            )
